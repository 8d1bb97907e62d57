r"""Variance components: how much of what we see is inherited, and must the answer be zero?

Progenies of trees stand at twelve sites, daughters of bulls in twelve herds, and at each the
question is how much of the variance is inherited. Site by site the analysis of variance often
says exactly 0, or more than there can be. Trust each site alone, give all one variance, or learn
from the data how much sites differ in theirs?

The model
---------
    y_l                    = X_l b_l + g_l + e_l                  the rows of a site
    g_l | sigma_A,l        ~ N(0, sigma_A,l^2 K_l)                breeding values of relatives
    e_l | sigma_E,l        ~ N(0, sigma_E,l^2 I)                  all else
    sigma_A,l = |a_l|,  a_l | mu, tau  ~ N(mu, tau^2)             the sites
    mu ~ HalfNormal(s),  tau ~ HalfNormal(s/2)                    what we knew before
    log sigma_E,l ~ N(log 0.8 s, 0.75^2),  b_l flat               of each site alone

with s the sd of all rows around their fixed effects: read once from the frame, then frozen.

============  ====================  ========  ==============  ========================================
on paper      in code               dims      unit            meaning
============  ====================  ========  ==============  ========================================
y             ``response``          record    response        what was measured of one animal or plant
X             ``X``                 record    as it is        fixed effects: a mean, and the columns
                                                              that the option fixed_effects names,
                                                              "block (factor), north (covariate)";
                                                              without a word numbers are covariates
q_k           ``y``                 contrast  response        error contrasts: rows without X b, made
                                                              independent
d_k           ``d``                 site      none            how much of sigma_A^2 a contrast holds
n_k           ``n``                 site      contrasts       how many contrasts have this d
SS_k          ``SS``                site      response^2      and the sum of their squares
a             ``a``                 site      response        sigma_A up to its sign
sigma_A       ``sigma_A``           site      response        additive genetic sd of the site
sigma_E       ``sigma_E``           site      response        sd of all else at the site
mu            ``mu``                          response        mean of the sites' a
tau           ``tau``                         response        spread of the sites' a, sd
kappa         ``kappa``             site      share           weight of the site's own data
============  ====================  ========  ==============  ========================================

K is the numerator relationship: 1 on the diagonal (more of an inbred animal), 1/2 of full sibs, 1/4
of half sibs. Columns say who is related: ``sire`` (half sibs), ``sire`` and ``dam`` (full sibs within
half sibs), ``family`` (full sibs, their parents not named), or ``animal`` with a second frame as
``pedigree`` (animal, sire, dam). h^2 = sigma_A^2 / (sigma_A^2 + sigma_E^2).

What the rows say of the variances is in their error contrasts, q_k ~ N(0, sigma_A^2 d_k + sigma_E^2),
the density of restricted maximum likelihood, from eigenvalues that are found once. sigma_E,l is of the
site alone and integrated out, so that the likelihood of a site is a function of a_l, tabulated once;
against the population each piece of it is integrated exactly, and tau = 0 is no limit.

No pooling gives each site the same normal of a in advance, with the mean and variance that the
partial model expects; complete pooling is tau = 0: one sigma_A for all sites. sigma_E,l and b_l are of
each site in all three. The folded normal is smooth through 0: with mu = 0 it is the half normal.

The density of a site that is left out is that of its error contrasts: comparable between fits with
the same fixed effects only. kappa is of sigma_A, which is not normal: data may leave more doubt than
there was, and kappa be below 0; on average over data it is a share.

With population=log-normal
--------------------------
    log sigma_A,l = a_l,  a_l | mu, tau  ~ N(mu, tau^2)           the sites
    mu ~ N(log(s/2), 1),  tau ~ HalfNormal(0.5)                   what we knew before

============  ====================  ========  ==============  ========================================
on paper      in code               dims      unit            meaning
============  ====================  ========  ==============  ========================================
a             ``a``                 site      log response    log sigma_A of the site
mu            ``mu``                          log response    mean of the sites' log sigma_A
tau           ``tau``                         log response    spread of the sites' log sigma_A, sd
============  ====================  ========  ==============  ========================================

Sites differ by factors, and none has exactly no inheritance.

What it assumes
---------------
* Breeding values add up. Full sibs share dominance, a mother and a house as well: all of it is in
  sigma_A, and h^2 is familial resemblance.
* Parents that no row names a parent of are not related, and not selected.
* Sites share no relatives: a sire at two sites makes them depend on one another.
* Each row is an individual, not the mean of a plot. New rows are new animals, offspring of the parents that they name.
* The prior of sigma_E is not harmless: where it is far off, intervals of sigma_A hold too seldom.

References
----------
Patterson H, Thompson R (1971) Recovery of inter-block information when block sizes are unequal.
Biometrika 58:545-554. Henderson C (1975) Best linear unbiased estimation and prediction under a
selection model. Biometrics 31:423-447. Lynch M, Walsh B (1998) Genetics and Analysis of Quantitative
Traits. Gelman A (2006) Prior distributions for variance parameters. Bayesian Anal 1:515-534.
"""

from dataclasses import replace
from functools import cache, partial

import numpy as np
import pandas as pd
import pymc as pm
import xarray as xr
from pymc_extras.prior import Prior
from scipy import special

from hbm_zoo.fields import Extras, Parameter, Shipped
from hbm_zoo.frames import pedigree as pedigrees
from hbm_zoo.frames.rules import FrameError, cell, label, number
from hbm_zoo.group_level import contrasts, tabulated, variance_tables
from hbm_zoo.group_level.left_out_rows import Rows
from hbm_zoo.group_level.nuisance import DEVIATES
from hbm_zoo.group_level.populations import Normal
from hbm_zoo.group_level.reported import ABSOLUTE, EXP
from hbm_zoo.model import HierarchicalModel, verbs_of
from hbm_zoo.models import relatives
from hbm_zoo.models.relative_checks import OF_RELATIVES
from hbm_zoo.priors import describe, from_json, log_density, moments, ppf, quantiles, to_json
from hbm_zoo.words import listed, plural

KAPPA = "of sigma_A: 1 - Var(sigma_A | y, h) / Var(sigma_A | h), a share on average over data only"
COLUMNS = {
    "site": label("the site, herd or year of an experiment"),
    "response": number("what was measured of one animal or plant"),
    "sire": label("its sire", optional=True),
    "dam": label("its dam", optional=True),
    "family": label("its family of full sibs, where parents are not named", optional=True),
    "animal": label("the animal, in the pedigree", optional=True),
}

PARAMETERS = {
    "mu": Parameter("mean of the sites' a, whose absolute value is sigma_A", (0, np.inf)),
    "tau": Parameter("spread of the sites' a around mu, sd", (0, np.inf)),
}
PARAMETERS_OF_LOG = {
    "mu": Parameter("mean of the sites' log sigma_A"),
    "tau": Parameter("spread of the sites' log sigma_A around mu, sd", (0, np.inf)),
}


def default_priors(data):
    """A sigma_A up to about twice the sd of rows around their fixed effects; sigma_E by a factor of 4 about it."""
    s = spread(data)
    return {
        "mu": Prior("HalfNormal", sigma=s),
        "tau": Prior("HalfNormal", sigma=s / 2),
        "sigma_E": Prior("LogNormal", mu=float(np.log(0.8 * s)), sigma=0.75),
    }


def default_priors_of_log(data):
    """A typical sigma_A by a factor of 7 about half the sd of rows; most sites within a factor of 3 of it."""
    s = spread(data)
    return {
        "mu": Prior("Normal", mu=float(np.log(s / 2)), sigma=1.0),
        "tau": Prior("HalfNormal", sigma=0.5),
        "sigma_E": Prior("LogNormal", mu=float(np.log(0.8 * s)), sigma=0.75),
    }


def spread(data) -> float:
    """The sd of all rows around their fixed effects."""
    return float(np.sqrt(data.SS.sum() / data.n.sum()))


def check(data):
    """What a reader must know of the data: equally related rows, rows that are not scored, dams of several sires.

    Raises
    ------
    FrameError
        If a site has no row beyond its fixed effects, or no rows that differ; or rows of sites differ so much in
        size that one of them must be in another unit.
    """
    sites, n, SS = (data[name].values for name in ("site", "n", "SS"))
    for empty, why in (
        (n.sum(axis=1) == 0, "more rows than fixed effects"),
        ((n.sum(axis=1) > 0) & (SS.sum(axis=1) <= 1e-20 * data.square.values), "rows that differ"),
    ):
        if empty.any():
            raise FrameError(f"variance_components expected {why} at each site, got none at {cell(sites[empty][0])}.")
    relatives.check_units(sites, np.sqrt(SS.sum(axis=1) / n.sum(axis=1)))
    lost = np.setdiff1d(np.arange(data.sizes["record"]), data.scored_row.values)
    if (alike := (n > 0).sum(axis=1) == 1).any():
        where = listed(map(str, sites[alike]))
        yield f"Only priors tell sigma_A from sigma_E at {where}: all rows are equally related."
    if lost.size:
        yield (
            f"{plural('Row', lost.size)} {listed(map(str, lost[:5]))}{' and more' if lost.size > 5 else ''}: "
            "each alone tells of a fixed effect, says nothing of the variances and is not scored row by row."
        )
    yield from relatives.shared_dams(data)


def matched_prior(priors):
    """The normal of a with the mean and variance that mu and tau give it on average, and sigma_E as it is."""
    (mu, mu_variance), (tau, tau_variance) = (moments(name, priors[name]) for name in ("mu", "tau"))
    a = Prior("Normal", mu=mu, sigma=float(np.sqrt(mu_variance + tau**2 + tau_variance)))
    return {"a": a, "sigma_E": priors["sigma_E"]}


def prepare(frame, fixed_effects="", pedigree=None):
    """The rows [record], their fixed effects and pedigree; of each site its eigenvalues, counts and sums of squares."""
    site_of, sites = pd.factorize(frame["site"])
    X, effects = relatives.fixed(frame, relatives.named(fixed_effects))
    animals = relatives.animals(frame, pedigree)
    data = xr.Dataset(
        {
            "response": ("record", frame["response"].to_numpy(float)),
            "site_of": ("record", site_of.astype(np.int64)),
            "X": X,
        }
        | {name: value for name, value in animals.items() if name != "animal"},
        coords={"site": np.asarray(sites), "animal": animals["animal"]},
        attrs={"fixed_effects": effects},
    )
    return of_contrasts(data)


def of_contrasts(data):
    """The same with what rows tell of the variances of their site."""
    site_of = data.site_of.values
    found = [_eigen(*contrasts.experiment(data, j)) for j in range(data.sizes["site"])]
    widest = max(1, *(each["d"].size for each in found))
    padded = {
        name: (("site", "eigen"), np.stack([np.pad(each[name], (0, widest - each[name].size)) for each in found]))
        for name in ("d", "n", "SS")
    }
    of_rows = {name: np.concatenate([each[name] for each in found]) for name in ("q", "d_of")}
    rows = [np.flatnonzero(site_of == j)[each["scored"]] for j, each in enumerate(found)]
    return data.assign(
        padded
        | {"q": ("contrast", of_rows["q"]), "d_of": ("contrast", of_rows["d_of"])}
        | {"contrast_site": ("contrast", np.repeat(np.arange(len(found)), [each["q"].size for each in found]))}
        | {"scored_row": ("scored", np.concatenate(rows).astype(np.int64))}
        | {"rows": ("site", np.bincount(site_of)), "square": ("site", [each["square"] for each in found])}
    )


def _eigen(one, y, _):
    """What is known of a site's variances: eigenvalues, counts and sums of squares; the contrasts themselves."""
    q = one.W.T @ y
    d, n, SS = contrasts.grouped(one.d, q)
    scored = np.flatnonzero((one.W**2).sum(axis=1) >= contrasts.NO_RANK)
    return {"q": q, "d_of": one.d, "d": d, "n": n, "SS": SS, "scored": scored, "square": float(y @ y)}


def with_response(data, response):
    """The same animals with other responses; what was tabulated of theirs is gone."""
    bare = data.drop_dims(["eigen", "contrast", "scored", "node", "deviate"], errors="ignore")
    return of_contrasts(bare.assign(response=("record", response)))


# The variants, each as it stands on the page: of rows the error contrasts, which know nothing of b.


def no_pooling(data, prior):
    """a_l ~ N(m0, s0^2), fixed in advance; sigma_A,l = |a_l|."""
    contrasts_of(data, prior, prior("a", dims="site"), pm.math.abs)


def complete_pooling(data, prior):
    """sigma_A,l = mu: one for all sites."""
    contrasts_of(data, prior, prior("mu") + 0 * data.rows, pm.math.abs)


def partial_pooling_noncentered(data, prior):
    """a_l = mu + tau z_l, z_l ~ N(0, 1); sigma_A,l = |a_l|."""
    contrasts_of(data, prior, noncentered(prior), pm.math.abs)


def no_pooling_of_log(data, prior):
    """a_l ~ N(m0, s0^2), fixed in advance; sigma_A,l = exp(a_l)."""
    contrasts_of(data, prior, prior("a", dims="site"), pm.math.exp)


def complete_pooling_of_log(data, prior):
    """sigma_A,l = exp(mu): one for all sites."""
    contrasts_of(data, prior, prior("mu") + 0 * data.rows, pm.math.exp)


def partial_pooling_of_log_noncentered(data, prior):
    """a_l = mu + tau z_l, z_l ~ N(0, 1); sigma_A,l = exp(a_l)."""
    contrasts_of(data, prior, noncentered(prior), pm.math.exp)


def noncentered(prior):
    """A of each site."""
    mu, tau, z = prior("mu"), prior("tau"), pm.Normal("z", dims="site")
    return pm.Deterministic("a", mu + tau * z, dims="site")


def contrasts_of(data, prior, a, function):
    """q_k ~ N(0, sigma_A^2 d_k + sigma_E^2), of every site."""
    sigma_A = pm.Deterministic("sigma_A", function(a), dims="site")
    sigma_E = prior("sigma_E", dims="site")
    variance = sigma_A[data.contrast_site] ** 2 * data.d_of + sigma_E[data.contrast_site] ** 2
    pm.Normal("y", 0, pm.math.sqrt(variance), observed=data.q, dims="contrast")


def marginalized(data, prior):
    """Every site by its tabulated likelihood, which is all that the data say of a: a and sigma_E are integrated out."""
    pm.CustomDist(
        "y",
        data.point,
        prior("mu"),
        prior("tau"),
        logp=tabulated.log_sampled,
        signature="(l,k),(),()->(l,k)",
        observed=data.log_likelihood,
        dims=("site", "node"),
    )


# One site, given mu and tau.


def population(h):
    """A ~ N(mu, tau^2)."""
    return Normal(h.mu, h.tau)


def own(data):
    """Restricted maximum likelihood of sigma_A, which may be exactly 0; NaN where no two rows are relatives."""
    found = np.full(data.sizes["site"], np.nan)
    for j in range(found.size):
        used = data.n.values[j] > 0
        if used.sum() > 1:
            found[j] = contrasts.restricted_maximum(*(data[name].values[j, used] for name in ("d", "n", "SS")))[0]
    return xr.DataArray(found, {"site": data.site}, ("site",))


def fixed_in_advance(priors, data):
    """No pooling: the population is the prior of one site, a ~ N(m0, s0^2)."""
    prior = priors["a"]
    if prior.distribution != "Normal" or prior.transform:
        raise ValueError(f"No pooling is exact under a Normal prior of 'a', got {describe(prior)}.")
    mean, variance = moments("a", prior)
    return {"mu": mean, "tau": np.sqrt(variance)}


def folded_table(data, priors):
    """Sites' tables on the line of a, which is even, up to thirty times the sd of rows."""
    wide = spread_of(data, priors) * np.r_[0, np.geomspace(2e-2, 30, variance_tables.WIDE)]
    return variance_tables.tables(data, *of_sigma_E(priors), np.abs, wide, even=True)


def log_table(data, priors):
    """Sites' tables of log sigma_A, from a thousandth to thirty times the sd of rows."""
    wide = np.log(spread_of(data, priors)) + np.linspace(np.log(1e-3), np.log(30), variance_tables.WIDE)
    return variance_tables.tables(data, *of_sigma_E(priors), np.exp, wide, even=False)


def of_sigma_E(priors):
    """The log density of sigma_E before the data, a function, and quantiles of it."""
    return _of_sigma_E(to_json({"sigma_E": priors["sigma_E"]}))


@cache
def _of_sigma_E(prior):
    of = from_json(prior)["sigma_E"]
    return log_density(of), quantiles(of, special.ndtr(DEVIATES))


def spread_of(data, priors) -> float:
    """The sd of all rows around their fixed effects; of rows that have none, the median of sigma_E beforehand."""
    SS, n = float(data.SS.sum()), int(data.n.sum())
    return np.sqrt(SS / n) if SS > 0 else ppf(priors["sigma_E"], 0.5)


def sites(estimand, table):
    """The group level, by what sigma_A is of a."""
    of = {"sigma_A": estimand.function}
    without = partial(variance_tables.without_rows, **of)
    rows = Rows(group="site", dim="scored", population=population, place=variance_tables.place, without=without)
    return tabulated.OnATable(population=population, estimand=estimand, table=table, kappa=KAPPA).group_level(
        replicate=lambda rng, theta, h, new, seen: variance_tables.replicate(rng, theta, new, seen, **of),
        emptied=variance_tables.emptied,
        leave_row_out=rows.leave_row_out,
        without_row=rows.without_row,
    )


def log_normal(record):
    """The record with sigma_A that differ by factors."""
    return replace(
        record,
        parameters=PARAMETERS_OF_LOG,
        default_priors=default_priors_of_log,
        variants={
            "none": {"centered": no_pooling_of_log, "marginalized": marginalized},
            "complete": {"centered": complete_pooling_of_log, "marginalized": marginalized},
            "partial": {"noncentered": partial_pooling_of_log_noncentered, "marginalized": marginalized},
        },
        group_level=sites(EXP, log_table),
        simulate=partial(simulate, mu=-0.7, tau=0.4, sigma_A=np.exp),
    )


ALTERNATIVES = {"population": {"folded": lambda record: record, "log-normal": log_normal}}


def simulate(
    rng,
    *,
    sites=12,
    mu=0.5,
    tau=0.25,
    sigma_E=(0.7, 0.9),
    sires=(12, 30),
    dams=0,
    offspring=(4, 12),
    sigma_A=np.abs,
):
    """A frame like the real one and the truth that made it.

    Parameters
    ----------
    rng : numpy.random.Generator
        Source of randomness.
    sites : int
        Number of sites.
    mu, tau : float
        Mean and sd of the sites' a.
    sigma_E : tuple of float
        The least and the largest sd of all else at a site.
    sires, offspring : tuple of int
        Fewest and most sires of a site, and offspring of a sire, or of a dam if there are dams.
    dams : int
        Dams of each sire; 0: each offspring has another, not named.
    sigma_A : callable
        Of a: its absolute value, or ``np.exp``.

    Returns
    -------
    frame : pandas.DataFrame
        Columns site, sire, dam if there are any, response.
    truth : xarray.Dataset
        mu, tau, and a, sigma_A, sigma_E [site].

    Examples
    --------
    >>> import numpy as np
    >>> frame, truth = simulate(np.random.default_rng(1), sites=2)
    >>> list(frame.columns), truth.sizes["site"]
    (['site', 'sire', 'response'], 2)
    """
    names = [f"S{i + 1:02d}" for i in range(sites)]
    a, noise = rng.normal(mu, tau, sites), rng.uniform(*sigma_E, sites)
    scale, frames = sigma_A(a), []
    for j, name in enumerate(names):
        sire = np.arange(rng.integers(sires[0], sires[1] + 1))
        mother = np.repeat(sire, max(dams, 1))
        family = np.repeat(np.arange(mother.size), rng.integers(offspring[0], offspring[1] + 1, mother.size))
        of_sire = rng.normal(0, scale[j], sire.size)
        of_dam = rng.normal(0, scale[j], mother.size if dams else family.size)
        at_dam = family if dams else np.arange(family.size)
        g = (of_sire[mother[family]] + of_dam[at_dam]) / 2 + rng.normal(0, scale[j] * np.sqrt(0.5), family.size)
        columns = {"site": name, "sire": [f"{name}-{i + 1:02d}" for i in mother[family]]}
        if dams:
            columns["dam"] = [f"{name}-d{i + 1:02d}" for i in family]
        frames.append(pd.DataFrame(columns | {"response": rng.normal(10 + g, noise[j])}))
    truth = {"mu": mu, "tau": tau, "a": ("site", a), "sigma_A": ("site", scale), "sigma_E": ("site", noise)}
    return pd.concat(frames, ignore_index=True), xr.Dataset(truth, coords={"site": names})


AS_PROGENIES = {"sire": "progeny", "response": "height_m"}
EUCALYPTUS = Shipped(file="eucalyptus_progenies", columns=AS_PROGENIES, options={"fixed_effects": "block"})
MODEL = HierarchicalModel(
    name="variance_components",
    question="How much of what we see is inherited, and must the answer be zero?",
    group="site",
    estimand="sigma_A",
    estimand_label="additive genetic sd",
    response="response",
    observed="y",
    location="mu",
    heterogeneity="tau",
    reference=None,
    columns=COLUMNS,
    inputs={"pedigree": pedigrees.COLUMNS},
    fewest_groups=1,
    parameters=PARAMETERS,
    default_priors=default_priors,
    matched_prior=matched_prior,
    prepare=prepare,
    own=own,
    volume=lambda data: data.rows.rename("rows"),
    variants={
        "none": {"centered": no_pooling, "marginalized": marginalized},
        "complete": {"centered": complete_pooling, "marginalized": marginalized},
        "partial": {"noncentered": partial_pooling_noncentered, "marginalized": marginalized},
    },
    fixed={"none": fixed_in_advance, "complete": lambda priors, data: {"tau": 0.0}, "partial": lambda priors, data: {}},
    group_level=sites(ABSOLUTE, folded_table),
    alternatives=ALTERNATIVES,
    simulate=simulate,
    datasets={
        "simulated_half_sibs": Shipped(),
        "galton_families": Shipped(columns={"response": "height_in"}, options={"fixed_effects": "sex"}),
        **{
            f"eucalyptus_{site.lower().replace(' ', '_').replace('-', '_')}": replace(EUCALYPTUS, where={"site": site})
            for site in ("Araraquara", "Bento Quirino", "Mogi-Guacu")
        },
    },
    extras=Extras(
        check=check,
        checks=OF_RELATIVES,
        with_response=with_response,
        further_columns=relatives.columns,
        nuisances={"sigma_E": Parameter("all else at a site, sd", (0, np.inf))},
    ),
)
build = MODEL.build
__getattr__ = verbs_of("variance_components", "components", "breeding_values", "response_to_selection")
