"""The genes of `spike_slab_genes`, with a slab that has one top at 0 and any tails: a mixture on a grid of widths.

    theta_g = 0 with probability 1 - pi1, else ~ sum_k w_k N(0, s_k^2),  s_k from narrowest to widest

(Stephens 2017, Biostatistics 18:275-294, section 2.2). Widths are fixed, shares are learned: (1 - pi1, pi1 w_1, ...) ~
Dirichlet(10, 1, ..., 1), as sticks that are broken off: v_k is the share of width k among those that are at least as
wide (Sethuraman 1994, Stat Sinica 4:639-650). So all that is unknown is a few independent numbers.
"""

from dataclasses import replace

import numpy as np
import pymc as pm
import pytensor.tensor as pt
import xarray as xr
from pymc_extras.prior import Prior

from hbm_zoo.fields import Parameter
from hbm_zoo.group_level import spike_and_slabs
from hbm_zoo.group_level.evaluate import evaluate
from hbm_zoo.group_level.level import closed_form
from hbm_zoo.group_level.spike_and_slabs import SpikeSlabs
from hbm_zoo.group_level.two_groups import centred
from hbm_zoo.models.own_checks import of_genes
from hbm_zoo.priors import describe, moments

#: Widths of the grid, and the shares that are broken off for all but the last.
WIDTHS = 5
STICKS = [f"v{k}" for k in range(1, WIDTHS)]
#: As many genes as the prior has seen in the null; of each width it has seen one.
PRIOR_GENES = 10.0
#: The narrowest slab in standard errors, by whether the width of the null is known; the widest over it at least.
NARROWEST, LEAST_RANGE = {True: 0.5, False: 2.0}, 8.0
MEANINGS = {
    True: "share of genes whose effect is not 0, and the spread of genes: at 0 none differs",
    False: "share of genes not assumed central, and the spread of genes: a slab as narrow as a free null is "
    "the same density, so that genes in such a one count as null (Efron's zero assumption)",
}
OF_A_WIDTH = "sd of the {} slab over sigma0, given [unit in which genes are alike]"


def parameters(record, known):
    """Shares and widths in place of the spread of one slab."""
    changed = {"pi1": Parameter(MEANINGS[known], (0, 1), ({"pi1": 0.0}, {"pi1": 1.0}))}
    for k, name in enumerate(STICKS, 1):
        changed[name] = Parameter(f"share of width {k} among the slabs at least as wide", (0, 1))
    for name in ("narrowest", "widest"):
        changed[name] = Parameter(OF_A_WIDTH.format(name), (0, np.inf))
    return changed | {name: record.parameters[name] for name in ("mu", "delta0", "sigma0")}


def priors_of(record, known):
    """The priors: ten genes seen in the null, one in each slab, and a grid of widths that is frozen."""

    def default_priors(data):
        """Shares as if ten genes had been seen in the null and one in each slab; widths from noise to the data.

        The widest slab has twice the sd that the largest effect asks for, as in ashr.
        """
        narrowest = NARROWEST[known] * float(np.median(data.standard_error))
        most = float((data.effect**2 - data.standard_error**2).max())
        widest = max(LEAST_RANGE * narrowest, 2 * np.sqrt(max(most, 0.0)))
        priors = {"pi1": Prior("Beta", alpha=float(WIDTHS), beta=PRIOR_GENES)}
        priors |= {name: Prior("Beta", alpha=1.0, beta=float(WIDTHS - k)) for k, name in enumerate(STICKS, 1)}
        priors |= {"narrowest": Prior("DiracDelta", c=narrowest), "widest": Prior("DiracDelta", c=widest)}
        kept = record.default_priors(data)
        return priors | {name: kept[name] for name in ("delta0", "sigma0")} | {"mu": matched_prior(priors)}

    return default_priors


def matched_prior(priors):
    """The normal with the mean and variance of theta_g once the shares are averaged out."""
    pi1, *sticks = (moments(name, priors[name])[0] for name in ("pi1", *STICKS))
    grid = widths(*(given(priors, name) for name in ("narrowest", "widest")))
    variance = sum(share * width**2 for share, width in zip(weights(sticks), grid, strict=True))
    return Prior("Normal", mu=0.0, sigma=float(np.sqrt(pi1 * variance)))


def given(priors, name):
    """A width of the grid, which is not learned."""
    prior = priors[name]
    if prior.distribution != "DiracDelta" or prior.transform:
        raise ValueError(f"The widths of slabs are given: {name!r} expected DiracDelta(c=...), got {describe(prior)}.")
    return float(prior.parameters["c"])


def weights(sticks):
    """w_k = v_k (1 - v_1) ... (1 - v_{k-1}); the last width has what is left."""
    left, found = 1.0, []
    for v in sticks:
        found.append(v * left)
        left = left * (1 - v)
    return [*found, left]


def widths(narrowest, widest):
    """s_k over sigma0, from the narrowest to the widest by equal factors."""
    return [narrowest ** (1 - step) * widest**step for step in np.linspace(0, 1, WIDTHS)]


# The variants, each as it stands on the page.


def slabs(prior):
    """pi0, shares of the slabs among the genes that differ, widths over sigma0; centre and width of the null."""
    pi0, w = pm.Deterministic("pi0", 1 - prior("pi1")), weights([prior(v) for v in STICKS])
    return pi0, w, widths(prior("narrowest"), prior("widest")), prior("delta0"), prior("sigma0")


def partial_pooling_indicator(data, prior):
    """theta_g = gamma_g beta_g, beta_g from the slab which_g; effect_g ~ N(theta_g + delta0 se_g, (sigma0 se_g)^2)."""
    pi0, w, s, delta0, sigma0 = slabs(prior)
    gamma = pm.Bernoulli("gamma", 1 - pi0, dims="gene")
    which = pm.Categorical("which", p=pt.stack(w), dims="gene")
    beta = pm.Normal("beta", 0, sum(pt.eq(which, k) * sigma0 * width for k, width in enumerate(s)), dims="gene")
    theta = pm.Deterministic("theta", gamma * beta, dims="gene")
    se = data.standard_error
    pm.Normal("y", theta + delta0 * se, sigma0 * se, observed=data.effect, dims="gene")


def partial_pooling_marginalized(data, prior):
    """effect_g from null and slabs: gamma_g, which_g and beta_g are integrated out."""
    pi0, w, s, delta0, sigma0 = slabs(prior)
    of_slabs = [*((1 - pi0) * share for share in w), *[0.0] * len(w), *s]
    pm.CustomDist(
        "y",
        data.standard_error,
        data.log_standard_error,
        pi0,
        delta0,
        sigma0,
        *of_slabs,
        logp=lambda y, se, log_se, *parameters: spike_and_slabs.log_kernel(y, se, *parameters) - log_se,
        random=lambda se, log_se, *parameters, rng, size: spike_and_slabs.random(se, *parameters, rng=rng, size=size),
        signature=",".join(["()"] * (5 + len(of_slabs))) + "->()",
        observed=data.effect,
        dims="gene",
    )


# One gene, given the hyperparameters.


def at(h, data):
    """Spike and slabs by what `SpikeSlabs` calls them. The spike is at 0: about another location there is none."""
    node = "node"
    w, s = weights([h[v] for v in STICKS]), widths(h.narrowest, h.widest)
    null = xr.where(h.mu == 0, 1 - h.pi1, 0.0)
    return h.assign(null=null, each_mean=h.mu, each_sd=h.sigma0 * xr.concat(s, node), weight=xr.concat(w, node))


def population(h):
    """Theta is 0 with probability null, else from the mixture."""
    return SpikeSlabs(h.null, h.each_mean, h.each_sd, h.weight)


def conditional(h, data):
    """theta_g | effect_g: 0 with probability lfdr_g, else a mixture again."""
    after = spike_and_slabs.conditional(data.effect, data.standard_error, h.delta0, h.sigma0, population(h))
    return h.assign({name: getattr(after, name) for name in ("null", "each_mean", "each_sd", "weight")})


def log_marginal(h, data):
    """Log p(effect_g | shares, widths, delta0, sigma0) [nats]."""
    q, mu, s = (1 - h.null) * h.weight, h.each_mean, h.each_sd / h.sigma0
    each = [part.isel(node=k, missing_dims="ignore") for part in (q, mu, s) for k in range(WIDTHS)]
    with np.errstate(divide="ignore"):
        return evaluate(
            spike_and_slabs.log_marginal, data.effect, data.standard_error, h.null, h.delta0, h.sigma0, *each
        )


def reliability(h, data):
    """kappa_g = sum_k P(slab k | y) s_k^2 / (s_k^2 + s_g^2): under partial pooling E[theta_g | y] = kappa_g y'_g."""
    _, s = centred(data.effect, data.standard_error, h.delta0, h.sigma0)
    after = conditional(h, data)
    return (1 - after.null) * (after.weight * h.each_sd**2 / (h.each_sd**2 + s**2)).sum("node", skipna=False)


def expected_log_likelihood(h, data):
    """E[log N(effect_g | theta_g + delta0 se_g, (sigma0 se_g)^2)] over theta_g | effect_g [nats]."""
    y, s = centred(data.effect, data.standard_error, h.delta0, h.sigma0)
    after = population(conditional(h, data))
    return -0.5 * (np.log(2 * np.pi) + ((y - after.mean) ** 2 + after.sd**2) / s**2) - np.log(s)


def tails(h, data):
    """Probabilities of no more than effect_g, and of no less."""
    return spike_and_slabs.tails(data.effect, data.standard_error, h.delta0, h.sigma0, population(h))


# What each pooling fixes of the population.


def fixed_in(record):
    """No pooling: one width, and no spike. Complete pooling: no width. Partial pooling: the grid."""
    one = dict.fromkeys(STICKS, 1.0)

    def alone(priors, data):
        known = record.fixed["none"](priors, data)
        width = {"narrowest": known["tau"], "widest": known["tau"]}
        return {name: known[name] for name in ("mu", "delta0", "sigma0")} | {"pi1": 1.0} | one | width

    def lumped(priors, data):
        known = record.fixed["complete"](priors, data)
        nothing = {"pi1": 0.0, "narrowest": 0.0, "widest": 0.0}
        return {name: known[name] for name in ("delta0", "sigma0")} | one | nothing

    def learned(priors, data):
        return record.fixed["partial"](priors, data) | {name: given(priors, name) for name in ("narrowest", "widest")}

    return {"none": alone, "complete": lumped, "partial": learned}


def slabs_of(level):
    """What is known of a gene given shares and widths; its data are as with one slab."""
    return closed_form(
        at=at,
        population=population,
        conditional=conditional,
        log_marginal=log_marginal,
        reliability=reliability,
        tails=tails,
        expectations=lambda h, data: {"lfdr": conditional(h, data).null},
        kappa="sum over slabs of P(slab | y) s_k^2 / (s_k^2 + s^2)",
        alike=True,
        cells=lambda data: WIDTHS,
        log_likelihood=level.log_likelihood,
        expected_log_likelihood=expected_log_likelihood,
        replicate=lambda rng, theta, h, new: level.replicate(rng, theta, h, new, new),
    )


def with_unimodal(record):
    """The record of `spike_slab_genes` with a mixture of slabs."""
    known = "sigma0" in record.fixed["partial"]({}, None)
    forms = {"indicator": partial_pooling_indicator, "marginalized": partial_pooling_marginalized}
    return replace(
        record,
        heterogeneity="pi1",
        parameters=parameters(record, known),
        default_priors=priors_of(record, known),
        matched_prior=matched_prior,
        variants={**record.variants, "partial": forms},
        fixed=fixed_in(record),
        group_level=slabs_of(record.group_level),
        extras=replace(record.extras, checks=of_genes(tails)),
    )
