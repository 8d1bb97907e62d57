r"""Spike-and-slab genes: which of twenty thousand genes differ, and by how much?

Two groups of patients are compared gene by gene. Of 20,000 genes that do not differ at
all, 1,000 have p < 0.05; a threshold against any single mistake finds next to nothing.
Treat every gene alone, give all one effect, or let the genes together say how many
differ and how far?

The model
---------
    effect_g | theta_g ~ N(theta_g + delta0 se_g, (sigma0 se_g)^2)    the data
    theta_g = gamma_g beta_g                                     the genes: exactly 0, or
    gamma_g ~ Bernoulli(1 - pi0),  beta_g ~ N(0, tau^2)          drawn from a normal slab
    pi0 ~ Beta(9, 1),  tau ~ LogNormal(log(2 median se), 1)      what we knew before
    null theoretical: delta0 = 0, sigma0 = 1
    null empirical:   delta0 ~ N(0, 0.5),  sigma0 ~ LogNormal(0, 0.2)

============  ====================  ======  ============  ===============================
on paper      in code               dims    unit          meaning
============  ====================  ======  ============  ===============================
effect_g      ``effect``            gene    of the frame  estimated effect, e.g. log2 fold
se_g          ``standard_error``    gene    of the frame  its standard error
gamma_g       ``gamma``             gene    0 or 1        1 if the gene differs
beta_g        ``beta``              gene    of the frame  its effect if it does
theta_g       ``theta``             gene    of the frame  its effect
pi0           ``pi0``                       share         genes that do not differ
tau           ``tau``                       of the frame  sd of the effects that are not 0
mu            ``mu``                        of the frame  the one effect of complete pooling
delta0        ``delta0``                    of se         centre of the empirical null
sigma0        ``sigma0``                    of se         width of the empirical null
lfdr_g        ``lfdr``              gene    probability   P(theta_g = 0 | data)
kappa_g       ``kappa``             gene    share         weight of the gene's own data
============  ====================  ======  ============  ===============================

A z score is an effect with standard error 1. Given pi0 and tau everything about one gene
is known in closed form, here with the theoretical null:

    lfdr_g = pi0 N(effect; 0, se^2) / (pi0 N(effect; 0, se^2) + (1 - pi0) N(effect; 0, se^2 + tau^2))
    theta_g | effect_g = 0 with probability lfdr_g, else ~ N(k effect, k se^2),  k = tau^2 / (tau^2 + se^2)
    mean = kappa_g effect_g,  kappa_g = (1 - lfdr_g) k:  the weight depends on the data, the target is 0.

``null="empirical"`` does not take the standard errors at their word (Efron 2004): the null
has a centre delta0 and a width sigma0 of its own, in units of se_g, and the slab lies on top
of it.

No pooling gives each gene the same wide normal in advance, matched in variance to what the
partial model expects of one gene. Complete pooling gives all genes one effect, mu. Neither
has a null group, so the null is estimated under partial pooling only.

With slab=unimodal
------------------
    effect_g | theta_g ~ N(theta_g + delta0 se_g, (sigma0 se_g)^2)
    theta_g = gamma_g beta_g,  gamma_g ~ Bernoulli(pi1)          the genes: exactly 0, or
    beta_g ~ w_1 N(0, s_1^2) + ... + w_5 N(0, s_5^2)             drawn from one of five slabs
    s_k = sigma0 narrowest (widest/narrowest)^((k - 1)/4)        their widths, given
    w_k = v_k (1 - v_1) ... (1 - v_(k-1)),  w_5 what is left     sticks v1, v2, v3, v4
    v_k ~ Beta(1, 5 - k),  pi1 ~ Beta(5, 10)                     what we knew before
    null empirical:   delta0 ~ N(0, 0.5),  sigma0 ~ LogNormal(0, 0.2)

=============  ====================  ======  ============  ==============================
on paper       in code               dims    unit          meaning
=============  ====================  ======  ============  ==============================
pi1            ``pi1``                       share         genes that differ, 1 - pi0
v_1 ... v_4    ``v1`` ``v2``                 share         of a width, among the slabs
               ``v3`` ``v4``                               that are at least as wide
narrowest      ``narrowest``                 of the frame  sd of the narrowest slab
widest         ``widest``                    of the frame  sd of the widest slab
=============  ====================  ======  ============  ==============================

A population with one top at 0 and any tails (ashr: Stephens 2017). That is Dirichlet(10, 1, ..., 1) of the
null and the slabs, as if ten genes had been seen in the one and one in each of the others. The narrowest slab
is half a median standard error, the widest twice what the largest effect asks for; both are frozen with the priors.

With ``null="empirical"`` a slab just wider than the null is the same density: a null of width 1.3 is one of
width 1 and a slab of 0.83, so that pi0 is not identified. There the narrowest slab is 2 sigma0 median
standard errors, and pi0 is *assumed central*: what is narrower counts as null (Efron's zero assumption).

Slabs are symmetric. Halves of their own for each sign would fit effects of one sign better, at twice the shares and
with truncated normals; lists of such effects keep their rate without (docs/discoveries.md).

With unit=z
-----------
    effect_g | zeta_g ~ N(theta_g + delta0 se_g, (sigma0 se_g)^2),  theta_g = se_g zeta_g
    zeta_g = gamma_g beta_g                                      the genes: exactly 0, or
    gamma_g ~ Bernoulli(1 - pi0),  beta_g ~ N(0, tau^2)          drawn from a normal slab
    pi0 ~ Beta(9, 1),  tau ~ LogNormal(log 2, 1)                 what we knew before
    null empirical:   delta0 ~ N(0, 0.5),  sigma0 ~ LogNormal(0, 0.2)

============  ====================  ======  ============  ===============================
on paper      in code               dims    unit          meaning
============  ====================  ======  ============  ===============================
zeta_g        ``zeta``              gene    of se         effect over its standard error
se_g          ``unit``              gene    of the frame  what a zeta of 1 is worth
============  ====================  ======  ============  ===============================

Genes are alike in effects or in z scores, as they are where genes that vary more also differ by more: ashr's
alpha, 0 or 1 (Stephens 2017, section 2.5). What is reported of a gene stays its effect theta_g: the reader
wants fold changes. elpd is of the effects, too, on one scale under either unit: that of z scores, less the
Jacobian, the sum of log se_g. The larger one fits; the check "standard error" asks the same of one unit.

What it assumes
---------------
* Estimates are normal with known standard errors. Few degrees of freedom make t statistics
  that are not: turn them into z scores first. Noise with heavy tails is listed as effects under
  every null and slab; `discoveries` says where a t would explain the data better (docs/discoveries.md).
* Genes are independent given the hyperparameters. Correlated genes shift and widen the null
  (Efron 2007, J Am Stat Assoc 102:93-103): that is what the empirical null is for.
* Effects that are not 0 are normal around 0, or have one top there, in the unit that is chosen: pi0 of effects and pi0
  of z scores are different quantities.
* p_D is finite but says little where posteriors have two modes (Celeux et al. 2006, Bayesian
  Anal 1:651-673): do not choose by DIC here.

References
----------
Efron B (2004) Large-scale simultaneous hypothesis testing: the choice of a null hypothesis. J Am
Stat Assoc 99:96-104. Efron B (2008) Microarrays, empirical Bayes and the two-groups model. Statist
Sci 23:1-22. Stephens M (2017) False discovery rates: a new deal. Biostatistics 18:275-294.
"""

from dataclasses import replace

import numpy as np
import pandas as pd
import pymc as pm
import xarray as xr
from pymc_extras.prior import Prior

from hbm_zoo.fields import Extras, Parameter, Shipped
from hbm_zoo.frames.rules import label, number, positive
from hbm_zoo.group_level import normal, two_groups
from hbm_zoo.group_level.evaluate import evaluate
from hbm_zoo.group_level.kept import last_kept
from hbm_zoo.group_level.level import closed_form
from hbm_zoo.group_level.populations import SpikeSlab
from hbm_zoo.model import HierarchicalModel
from hbm_zoo.models.gene_tables import from_deseq2, from_limma
from hbm_zoo.models.genes_by_z import with_z
from hbm_zoo.models.own_checks import of_genes
from hbm_zoo.models.unimodal_genes import with_unimodal
from hbm_zoo.priors import describe, moments

COLUMNS = {
    "gene": label("the gene's name", unique=True),
    "effect": number("estimated effect, e.g. log2 fold change, or a z score"),
    "standard_error": positive("standard error of the effect, 1 for a z score"),
}

PARAMETERS = {
    "pi0": Parameter("share of genes whose effect is exactly 0", (0, 1), ({"pi0": 0.0}, {"pi0": 1.0, "tau": 0.0})),
    "tau": Parameter("sd of the effects that are not 0 [unit in which genes are alike]", (0, np.inf)),
    "mu": Parameter("the one effect of all genes under complete pooling, 0 otherwise [unit in which they are alike]"),
    "delta0": Parameter("centre of the empirical null [standard errors]; 0 is the theoretical null"),
    "sigma0": Parameter("width of the empirical null [standard errors]; 1 is the theoretical null", (0, np.inf)),
}

THEORETICAL_NULL = {"delta0": 0.0, "sigma0": 1.0}


def default_priors(data):
    """Nine genes in ten do not differ; effects that are not 0 about twice the noise, give or take tenfold.

    The scale is the median standard error of the frame. The one effect of complete pooling has
    the prior that no pooling gives to a gene.
    """
    median_se = float(np.median(data.standard_error))
    priors = {
        "pi0": Prior("Beta", alpha=9.0, beta=1.0),
        "tau": Prior("LogNormal", mu=float(np.log(2 * median_se)), sigma=1.0),
        "delta0": Prior("Normal", mu=0.0, sigma=0.5),
        "sigma0": Prior("LogNormal", mu=0.0, sigma=0.2),
    }
    return priors | {"mu": matched_prior(priors)}


def matched_prior(priors):
    """The normal with the mean and variance of theta_g once pi0 and tau are averaged out."""
    (pi0, _), (tau, tau_variance) = (moments(name, priors[name]) for name in ("pi0", "tau"))
    return Prior("Normal", mu=0.0, sigma=float(np.sqrt((1 - pi0) * (tau**2 + tau_variance))))


def prepare(frame):
    """One row a gene becomes ``effect`` and ``standard_error`` [gene]."""
    return xr.Dataset(
        {name: ("gene", frame[name].to_numpy(float)) for name in ("effect", "standard_error")},
        coords={"gene": frame["gene"].to_numpy()},
    )


def derived(data):
    """Add the log of each standard error, which no parameter changes."""
    return data.assign(log_standard_error=np.log(data.standard_error))


# The variants, each as it stands on the page.


def no_pooling(data, prior):
    """theta_g ~ N(0, s0^2), fixed in advance; effect_g ~ N(theta_g, se_g^2)."""
    theta = prior("theta", dims="gene")
    pm.Normal("y", theta, data.standard_error, observed=data.effect, dims="gene")


def complete_pooling(data, prior):
    """effect_g ~ N(mu, se_g^2): one effect for all."""
    pm.Normal("y", prior("mu"), data.standard_error, observed=data.effect, dims="gene")


def partial_pooling_indicator(data, prior):
    """theta_g = gamma_g beta_g; effect_g ~ N(theta_g + delta0 se_g, (sigma0 se_g)^2)."""
    gamma = pm.Bernoulli("gamma", 1 - prior("pi0"), dims="gene")
    beta = pm.Normal("beta", 0, prior("tau"), dims="gene")
    theta = pm.Deterministic("theta", gamma * beta, dims="gene")
    delta0, sigma0 = null(prior)
    se = data.standard_error
    pm.Normal("y", theta + delta0 * se, sigma0 * se, observed=data.effect, dims="gene")


def partial_pooling_noncentered(data, prior):
    """beta_g = tau z_g stays, gamma_g is summed out: given beta_g the slab is a point."""
    pi0, tau = prior("pi0"), prior("tau")
    z = pm.Normal("z", dims="gene")
    beta = pm.Deterministic("beta", tau * z, dims="gene")
    two_groups_effect(data, pi0, beta, 0.0, *null(prior))


def partial_pooling_marginalized(data, prior):
    """effect_g ~ pi0 N(0, se_g^2) + (1 - pi0) N(0, se_g^2 + tau^2): gamma_g and beta_g are integrated out."""
    two_groups_effect(data, prior("pi0"), 0.0, prior("tau"), *null(prior))


def null(prior):
    """Centre and width of the null, in standard errors."""
    return prior("delta0"), prior("sigma0")


def two_groups_effect(data, *parameters):
    """effect_g from the mixture of null and slab."""
    pm.CustomDist(
        "y",
        data.standard_error,
        data.log_standard_error,
        *parameters,
        logp=lambda y, se, log_se, *parameters: two_groups.log_kernel(y, se, *parameters) - log_se,
        random=lambda se, log_se, *parameters, rng, size: two_groups.random(se, *parameters, rng=rng, size=size),
        signature="(),(),(),(),(),(),()->()",
        observed=data.effect,
        dims="gene",
    )


# One gene, given the hyperparameters.


def population(h):
    """Theta is 0 with probability pi0, else N(mu, tau^2); mu is 0 under partial pooling."""
    return SpikeSlab(h.pi0, h.mu, h.tau)


@last_kept
def conditional(h, data):
    """theta_g | effect_g: 0 with probability lfdr_g, else normal again."""
    lfdr, mean, sd = two_groups.conditional(data.effect, data.standard_error, *hyper(h))
    return h.assign(pi0=lfdr, mu=mean, tau=sd)


def hyper(h):
    """The hyperparameters in the order of the formulas."""
    return h.pi0, h.mu, h.tau, h.delta0, h.sigma0


def log_marginal(h, data):
    """Log p(effect_g | pi0, tau, delta0, sigma0) [nats]."""
    with np.errstate(divide="ignore"):
        return evaluate(two_groups.log_marginal, data.effect, data.standard_error, *hyper(h))


def log_likelihood(theta, h, data):
    """Log N(effect_g | theta_g + delta0 se_g, (sigma0 se_g)^2) [nats]."""
    y, s = two_groups.centred(data.effect, data.standard_error, h.delta0, h.sigma0)
    return -0.5 * (np.log(2 * np.pi) + ((y - theta) / s) ** 2) - np.log(s)


def expected_log_likelihood(h, data):
    """E[log N(effect_g | theta_g + delta0 se_g, (sigma0 se_g)^2)] over theta_g | effect_g [nats]."""
    y, s = two_groups.centred(data.effect, data.standard_error, h.delta0, h.sigma0)
    after = population(conditional(h, data))
    mean_square = (y - after.mean) ** 2 + after.sd**2
    return -0.5 * (np.log(2 * np.pi) + mean_square / s**2) - np.log(s)


def reliability(h, data):
    """kappa_g = (1 - lfdr_g) tau^2 / (tau^2 + s_g^2): under partial pooling E[theta_g | y] = kappa_g y'_g."""
    _, s = two_groups.centred(data.effect, data.standard_error, h.delta0, h.sigma0)
    return (1 - conditional(h, data).pi0) * normal.reliability(s, h.tau)


def tails(h, data):
    """Probabilities of no more than effect_g, and of no less, given pi0, tau, delta0 and sigma0."""
    return two_groups.tails(data.effect, data.standard_error, *hyper(h))


def replicate(rng, theta, h, data):
    """effect_g ~ N(theta_g + delta0 se_g, (sigma0 se_g)^2)."""
    se = data.standard_error
    return xr.apply_ufunc(rng.normal, *xr.broadcast(theta + h.delta0 * se, h.sigma0 * se))


def expectations(h, data):
    """lfdr_g = P(theta_g = 0 | effect_g), the local false discovery rate."""
    return {"lfdr": conditional(h, data).pi0}


def with_response(data, effect):
    """The same genes with other effects."""
    return data.assign(effect=("gene", effect))


def thin(rng, data):
    """Add and subtract independent noise: two independent halves, each with variance 2 se_g^2."""
    noise = rng.normal(0.0, data.standard_error)
    se = data.standard_error * np.sqrt(2)
    return tuple(data.assign(effect=data.effect + sign * noise, standard_error=se) for sign in (1, -1))


# What each pooling fixes of the population.


def fixed_in_advance(priors, data):
    """No pooling: the population is the prior of one gene, N(m0, s0^2), with no spike."""
    prior = priors["theta"]
    if prior.distribution != "Normal":
        raise ValueError(f"No pooling is exact under a Normal prior of 'theta', got {describe(prior)}.")
    mean, variance = moments("theta", prior)
    return {"pi0": 0.0, "mu": mean, "tau": np.sqrt(variance)} | THEORETICAL_NULL


def fixed_in_complete(priors, data):
    """Complete pooling: no spike and no spread, one effect mu."""
    return {"pi0": 0.0, "tau": 0.0} | THEORETICAL_NULL


def fixed_in_partial(priors, data):
    """The slab lies around 0, and the null is the theoretical one."""
    return {"mu": 0.0} | THEORETICAL_NULL


# The empirical null.


def with_empirical_null(record):
    """The null has a centre and a width of its own; the data cannot be halved by noise of a known size."""
    fixed = {**record.fixed, "partial": lambda priors, data: {"mu": 0.0}}
    return replace(record, fixed=fixed, extras=replace(record.extras, thin=refuse_to_halve))


def refuse_to_halve(rng, data):
    """The empirical null doubts the standard errors that independent halves rest on."""
    raise ValueError(
        "The same gene, again, is asked of two halves of the data that are independent only if the standard "
        "errors are true; the empirical null doubts them: fit with null='theoretical' for this question."
    )


ALTERNATIVES = {
    "null": {"theoretical": lambda record: record, "empirical": with_empirical_null},
    "slab": {"normal": lambda record: record, "unimodal": with_unimodal},
    "unit": {"effect": lambda record: record, "z": with_z},
}


def simulate(
    rng, *, genes=2000, pi0=0.9, tau=0.3, delta0=0.0, sigma0=1.0, median_standard_error=0.1, sigma_standard_error=0.3
):
    """A frame like the real one and the truth that made it.

    Parameters
    ----------
    rng : numpy.random.Generator
        Source of randomness.
    genes : int
        Number of genes.
    pi0, tau : float
        Share of genes whose effect is 0, and sd of the other effects [log2].
    delta0, sigma0 : float
        Centre and width of the null [standard errors]; 0 and 1 if standard errors are true.
    median_standard_error : float
        Median of the standard errors [log2].
    sigma_standard_error : float
        Their spread: sd of the log standard error.

    Returns
    -------
    frame : pandas.DataFrame
        Columns gene, effect, standard_error.
    truth : xarray.Dataset
        pi0, tau, delta0, sigma0, and theta [gene].

    Examples
    --------
    >>> import numpy as np
    >>> frame, truth = simulate(np.random.default_rng(1), genes=3)
    >>> list(frame.columns), dict(truth.theta.sizes)
    (['gene', 'effect', 'standard_error'], {'gene': 3})
    """
    names = [f"G{i + 1:06d}" for i in range(genes)]
    se = median_standard_error * np.exp(sigma_standard_error * rng.standard_normal(genes))
    each = xr.DataArray(np.ones(genes), dims="gene", coords={"gene": names})
    theta = SpikeSlab(pi0 * each, 0 * each, tau * each).sample(rng)
    effect = rng.normal(theta.values + delta0 * se, sigma0 * se)
    frame = pd.DataFrame({"gene": names, "effect": effect, "standard_error": se})
    return frame, xr.Dataset({"pi0": pi0, "tau": tau, "delta0": delta0, "sigma0": sigma0, "theta": theta})


MODEL = HierarchicalModel(
    name="spike_slab_genes",
    question="Which genes differ, and by how much?",
    group="gene",
    estimand="theta",
    estimand_label="effect",
    response="effect",
    observed="y",
    location="mu",
    heterogeneity="tau",
    reference=0.0,
    columns=COLUMNS,
    parameters=PARAMETERS,
    default_priors=default_priors,
    matched_prior=matched_prior,
    prepare=prepare,
    own=lambda data: data.effect,
    volume=lambda data: (data.standard_error**-2).rename("precision, 1 / standard_error^2"),
    variants={
        "none": {"centered": no_pooling},
        "complete": {"centered": complete_pooling},
        "partial": {
            "indicator": partial_pooling_indicator,
            "noncentered": partial_pooling_noncentered,
            "marginalized": partial_pooling_marginalized,
        },
    },
    fixed={"none": fixed_in_advance, "complete": fixed_in_complete, "partial": fixed_in_partial},
    group_level=closed_form(
        population=population,
        conditional=conditional,
        log_marginal=log_marginal,
        log_likelihood=log_likelihood,
        expected_log_likelihood=expected_log_likelihood,
        reliability=reliability,
        replicate=replicate,
        tails=tails,
        expectations=expectations,
        kappa="P(theta != 0 | y) tau^2 / (tau^2 + s^2)",
    ),
    alternatives=ALTERNATIVES,
    simulate=simulate,
    datasets={"leukemia_genes": Shipped(), "simulated_genes": Shipped()},
    extras=Extras(
        derived=derived,
        thin=thin,
        readers={"deseq2": from_deseq2, "limma": from_limma},
        checks=of_genes(tails),
        with_response=with_response,
    ),
)
build = MODEL.build
