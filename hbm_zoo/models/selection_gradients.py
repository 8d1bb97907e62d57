r"""Selection gradients: is selection the same every year, or is only our measurement of it not?

Survival, or the number of young, is regressed on traits in standard deviations: the slopes are the
selection gradients of that year. They change from year to year, and so would they if selection never
did: some hundred animals a year measure a gradient of 0.1 to within 0.1. Believe each year, average them, or learn
from the years how much of their scatter is selection's own?

The model
---------
    y_t | beta_t      ~ N(beta_t, S_t)                    the estimates of a year, one to four traits
    beta_t | mu, T    ~ N(mu, T)                          the years
    mu = (mu_1, mu_2, mu_3, mu_4),  T = D R D             one for each trait there is
    D = diag(tau_1, tau_2, tau_3, tau_4)
    R from rho_12, rho_13, rho_23, rho_14, rho_24, rho_34
    mu_1 ~ N(0, 0.3^2),  tau_1 ~ HalfNormal(0.2),         and so of the other traits
    R ~ LKJ(2)

The traits are numbered as they come in the frame, or as the option ``traits`` lists them.

==============  ====================  ==============  ==========  ==================================
on paper        in code               dims            unit        meaning
==============  ====================  ==============  ==========  ==================================
y_t             ``gradient``          estimate        1 / sd      estimated gradients, one a row
S_t             ``standard_error``,   year, trait,    1 / sd^2    covariance of their errors
                ``covariances``,      other
                ``S``
beta_t          ``beta``              year, trait     1 / sd      the gradients themselves
mu              ``mu_1``, ``mu_2``,                   1 / sd      mean gradients over the years
                ``mu_3``, ``mu_4``
D               ``tau_1``,                            1 / sd      how much gradients differ between
                ``tau_2``,                                        years, sd
                ``tau_3``, ``tau_4``
R               ``rho_12``,                           none        how they go together over years:
                ``rho_13``,                                       partial correlations of two traits,
                ``rho_23``,                                       given those numbered before both
                ``rho_14``,
                ``rho_24``,
                ``rho_34``
kappa           ``kappa``             year, trait     share       weight of the year's own data
==============  ====================  ==============  ==========  ==================================

A gradient is the change of relative fitness per sd of the trait, hence the unit 1 / sd; where a frame holds
gradients of another unit all that is of that unit changes with it, and so must the priors. Given the
hyperparameters all is known of a year in closed form: with K = T (T + S_t)^-1,

    beta_t | y_t ~ N(mu + K (y_t - mu), T - K T).

A trait that was not measured in a year is predicted from those that were. No pooling gives each gradient
the same wide normal in advance, matched in mean and variance to what the partial model expects of one, the
traits independent. Complete pooling is T = 0: the same selection every year.

The default priors are of gradients in sd units: of some thousand that have been published half are smaller than 0.16
in size (Kingsolver et al. 2001), sampling errors included.

With autocorrelation=True
-------------------------
    y_t | beta_t          ~ N(beta_t, S_t)                the estimates of a year
    beta_t | beta_s       ~ N(mu + phi^g (beta_s - mu), (1 - phi^(2 g)) T)
    s the year before, g = t - s
    mu = (mu_1, mu_2, mu_3, mu_4),  T = D R D             one for each trait there is
    D = diag(tau_1, tau_2, tau_3, tau_4)
    R from rho_12, rho_13, rho_23, rho_14, rho_24, rho_34
    phi ~ N(0, 0.5^2) on (-1, 1),  the others as of independent years

=============  ==================  ==========  ==========  ==============================================
on paper       in code             dims        unit        meaning
=============  ==================  ==========  ==========  ==============================================
phi            ``phi``                         none        correlation of a year's gradients with those of
                                                           the year before
g              ``time``            year        years       how long ago that was
=============  ==================  ==========  ==========  ==============================================

Each year is N(mu, T) as before, and two years are alike by phi^|t - s|, as their labels say: whole numbers, of which
one that is missing, or left out, is a gap. Leaving a year out asks what its neighbours on both sides say of it: an
interpolation. What comes next is another question, `one_step_ahead`. Years depend on one another, which allows no
standard error of a difference between poolings.

With exact=True
---------------
    y_i | alpha_0,t, alpha_t  ~ Bernoulli(p_i)                    did animal i of year t survive?
    log(p_i / (1 - p_i))       = alpha_0,t + alpha_t z_i
    alpha_t | mu, tau         ~ N(mu, tau^2)                      the years
    mu ~ N(0, 0.6^2),  tau ~ HalfNormal(0.4)                      what we knew before
    alpha_0,t ~ N(0, 1.5^2)                                       of each year alone

==============  ==============  ==========  =================  ===========================================
on paper        in code         dims        unit               meaning
==============  ==============  ==========  =================  ===========================================
y_i             ``survived``    animal      0 or 1             did it survive?
z_i             ``z``           animal      sd                 its trait, from the year's mean in units of
                                                               the sd of all animals
alpha_t         ``alpha``       year        log odds per sd    slope of survival
alpha_0,t       ``alpha_0``     year        log odds           survival of an animal with the mean trait
mu              ``mu``                      log odds per sd    mean slope over the years
tau             ``tau``                     log odds per sd    how much slopes differ between years, sd
==============  ==============  ==========  =================  ===========================================

One trait, and the animals themselves in place of estimates (`standardised_animals` makes the columns): nothing is
taken for normal, and a year with three deaths, or none, or whose trait tells survivors from dead, says what it can.
alpha_0,t is of the year alone and integrated out, so that the likelihood of a year is a function of alpha_t, tabulated
once, its log linear between nodes; against the population each piece is integrated exactly.

The gradient beta_t = alpha_t mean(p (1 - p)) / mean(p), over the animals of the year, is derived and reported by
`by_year`. No population can stand on it: it rises with the slope, turns, and falls again. The normal form leaves out,
by name, years at the turn and beyond. Whether log odds bend in the trait is one of the checks: where selection
stabilises, a slope is half of it.

What it assumes
---------------
* Errors of measurement are normal with a covariance that is known: with twenty animals, or five deaths, they are not,
  and errors that grow with the gradient pull the mean to 0.
* Years without a gradient are missing for no reason of selection. Those that `from_individuals` leaves out, by name,
  since traits told survivors from dead or selection was too steep, were of the strongest.
* Traits were standardised by the same sd in all years. Divided by each year's own, a gradient that never changes
  comes out as one that does.
* Years are exchangeable: no trend, and a year says nothing of the next but through mu and T; with
  ``autocorrelation=True`` it does, and all traits keep as much of it.
* Animals of one year are not those of another: a bird that lives through ten years is in ten regressions.

References
----------
Lande R, Arnold S (1983) The measurement of selection on correlated characters. Evolution
37:1210-1226. Kingsolver J et al. (2001) The strength of phenotypic selection in natural populations. Am Nat
157:245-261. Morrissey M, Hadfield J (2012) Directional selection in temporally replicated studies is remarkably
consistent. Evolution 66:435-442. Lewandowski D, Kurowicka D, Joe H (2009) Generating random correlation
matrices. J Multivar Anal 100:1989-2001. Janzen F, Stern H (1998) Logistic regression for empirical studies of
multivariate selection. Evolution 52:1564-1571.
"""

from collections.abc import Sequence

import numpy as np
import pandas as pd
import pymc as pm
import pytensor.tensor as pt
import xarray as xr
from pymc_extras.prior import Prior

from hbm_zoo.fields import Extras, Parameter, Shipped
from hbm_zoo.frames.covariances import covariances, matrices
from hbm_zoo.frames.rules import FrameError, label, number, positive
from hbm_zoo.group_level import multivariate
from hbm_zoo.group_level.level import closed_form
from hbm_zoo.group_level.series import factor_in_time
from hbm_zoo.model import HierarchicalModel, verbs_of
from hbm_zoo.models.individuals import from_individuals as from_individuals
from hbm_zoo.models.individuals import listed_in, rows_of
from hbm_zoo.models.numbered_traits import MOST, PAIRS, TRAITS, absent, at, estimate, present, scalars, years
from hbm_zoo.models.survival_slopes import exactly
from hbm_zoo.models.survival_slopes import standardised_animals as standardised_animals
from hbm_zoo.models.years_in_order import with_autocorrelation
from hbm_zoo.priors import describe, lkj, moments
from hbm_zoo.words import listed

NAME = "selection_gradients"
LARGE = 4  # Of what a prior expects of a gradient, its sd.
ORDINAL = ("first", "second", "third", "fourth")
COLUMNS = {
    "year": label("the year"),
    "trait": label("the trait that the gradient is of"),
    "gradient": number("estimated selection gradient"),
    "standard_error": positive("its standard error"),
    "covariances": covariances("covariances of the gradient's error with those of the year's other traits"),
}

PARAMETERS = {
    **{f"mu_{k}": Parameter(f"mean gradient of the {ORDINAL[k - 1]} trait") for k in TRAITS},
    **{f"tau_{k}": Parameter(f"sd of the {ORDINAL[k - 1]} trait's gradients over years", (0, np.inf)) for k in TRAITS},
    **{
        f"rho_{i}{j}": Parameter(
            f"correlation of the {ORDINAL[i - 1]} and {ORDINAL[j - 1]} trait's gradients"
            + (f" given the {listed(ORDINAL[: i - 1])}'s" if i > 1 else ""),
            (-1, 1),
            ({f"rho_{i}{j}": -1.0}, {f"rho_{i}{j}": 1.0}),
        )
        for i, j in PAIRS
    },
}


def default_priors(data):
    """For gradients in sd units: a mean of 0.3 either way, and years that differ by 0.2, are large; R ~ LKJ(2)."""
    size = data.sizes["trait"]
    priors = {f"mu_{k}": Prior("Normal", mu=0.0, sigma=0.3) for k in TRAITS[:size]}
    priors |= {f"tau_{k}": Prior("HalfNormal", sigma=0.2) for k in TRAITS[:size]}
    return priors | {f"rho_{i}{j}": lkj(2 + (size - 1 - i) / 2) for i, j in PAIRS if j <= size}


def matched_prior(priors):
    """Normals with the mean and variance of a year's gradient of each trait."""
    return {f"beta_{k}": _matched(priors, k) for k in TRAITS if f"mu_{k}" in priors}


def _matched(priors, k):
    (mean, variance), (tau, tau_variance) = (moments(n, priors[n]) for n in (f"mu_{k}", f"tau_{k}"))
    return Prior("Normal", mu=mean, sigma=float(np.sqrt(variance + tau**2 + tau_variance)))


def contradiction(data, priors):
    """Say so if a trait's gradients are of another size than any that its priors know."""
    for k, trait in enumerate(data.trait.values, start=1):
        here = data.isel(trait=k - 1, other=k - 1)
        if not here.measured.any():
            return f"No year has a gradient of {str(trait)!r}: leave it out of the traits."
        precision = here.measured / here.S
        mean, error = float((precision * here.b).sum() / precision.sum()), float(precision.max()) ** -0.5
        (centre, variance), (tau, of_tau) = (moments(name, priors[name]) for name in (f"mu_{k}", f"tau_{k}"))
        spread = np.sqrt(variance + tau**2 + of_tau)
        if error > LARGE * spread or abs(mean - centre) > LARGE * (spread + float(precision.sum()) ** -0.5):
            used = listed(f"{describe(priors[name])} of {name!r}" for name in (f"mu_{k}", f"tau_{k}"))
            return (
                f"The gradients of {str(trait)!r} are {mean:.3g} on average, their standard errors {error:.3g} or "
                f"more, which the priors {used} do not expect. Is the trait in standard deviations? Rescale it, or "
                "pass priors for both."
            )
    return None


def prepare(frame, traits: str | Sequence[str] | None = None):
    """Rows become ``gradient`` [estimate], and a vector and the covariance of its errors for each year.

    Parameters
    ----------
    frame : pandas.DataFrame
        Columns year, trait, gradient, standard_error, and covariances if there are any.
    traits : sequence of str, or str, optional
        The traits in the order of their numbers; in a text separated by semicolons. Default: as they come in the frame.

    Returns
    -------
    xarray.Dataset
        Dims estimate, year, trait, other. ``b`` and ``S`` hold 0, and an error of 1 of its own, where a trait was not
        ``measured``, ``P`` the inverse of S, 0 there.

    Raises
    ------
    FrameError
        If there are more than four traits or others than those listed, a year has a trait twice, or covariances are
        missing, contradict one another, or are not those of any errors.

    Warns
    -----
    FrameWarning
        If there are several traits and no covariances: their errors are taken for independent.
    """
    names = _numbered(frame, traits)
    of_year, labels = pd.factorize(frame["year"])
    of_trait = pd.Index(names).get_indexer(frame["trait"].astype(str))
    _check_once(frame, of_year, of_trait)
    shape = len(labels), len(names)
    b, measured = np.zeros(shape), np.zeros(shape)
    b[of_year, of_trait], measured[of_year, of_trait] = frame["gradient"], 1.0
    S = matrices(frame, of_year, of_trait, labels, names, NAME)
    return xr.Dataset(
        {
            "gradient": ("estimate", frame["gradient"].to_numpy(float)),
            "of_year": ("estimate", of_year.astype(np.int64)),
            "of_trait": ("estimate", of_trait.astype(np.int64)),
            "b": (("year", "trait"), b),
            "measured": (("year", "trait"), measured),
            "S": (("year", "trait", "other"), S),
            "P": (("year", "trait", "other"), np.linalg.inv(S) * measured[:, :, None] * measured[:, None, :]),
        },
        coords={"year": np.asarray(labels), "trait": names},
        attrs={"traits": "; ".join(names)},
    )


def _numbered(frame, traits):
    """The traits in the order of their numbers."""
    there = [str(trait) for trait in frame["trait"].unique()]
    names = listed_in(traits) if traits is not None else there
    if wrong := [name for name in there if ";" in name or "=" in name]:
        raise FrameError(f"{NAME}: column 'trait' expected names without ';' and '=', got {wrong[0]!r}.")
    if len(names) > MOST or len(set(names)) < len(names):
        raise FrameError(f"{NAME} expected one to four traits, each once, got {listed(map(repr, names))}.")
    if other := [name for name in there if name not in names]:
        raise FrameError(f"{NAME} expected traits among {listed(map(repr, names))}, got {other[0]!r}.")
    return names


def _check_once(frame, of_year, of_trait):
    twice = pd.DataFrame({"year": of_year, "trait": of_trait}).duplicated().to_numpy()
    if twice.any():
        row = frame[twice].iloc[0]
        raise FrameError(
            f"{NAME} expected each trait once a year, got {str(row['trait'])!r} twice in {row['year']}: average the "
            "two, or give studies years of their own."
        )


# The variants, each as it stands on the page.


def no_pooling(data, prior):
    """beta_t fixed in advance to a wide normal for each trait; y_t ~ N(beta_t, S_t)."""
    each = [prior(f"beta_{k}", dims="year") for k in present(data)]
    beta = pm.Deterministic("beta", pt.stack(each, axis=-1), dims=("year", "trait"))
    estimate(data, beta[data.of_year, data.of_trait])


def complete_pooling(data, prior):
    """y_t ~ N(mu, S_t): one vector of gradients for all years."""
    mu, _ = years(data, prior)
    estimate(data, mu[data.of_trait])


def partial_pooling_centered(data, prior):
    """beta_t ~ N(mu, T); y_t ~ N(beta_t, S_t)."""
    mu, L = years(data, prior)
    beta = pm.MvNormal("beta", mu, chol=L, dims=("year", "trait"))
    estimate(data, beta[data.of_year, data.of_trait])


def partial_pooling_noncentered(data, prior):
    """beta_t = mu + L z_t with z_t ~ N(0, I) and T = L L'."""
    mu, L = years(data, prior)
    z = pm.Normal("z", dims=("year", "trait"))
    beta = pm.Deterministic("beta", mu + z @ L.T, dims=("year", "trait"))
    estimate(data, beta[data.of_year, data.of_trait])


def marginalized(data, prior):
    """y_t ~ N(mu, T + S_t): beta_t is integrated out.

    All three poolings: no pooling has mu and T fixed in advance, complete pooling T = 0.
    """
    mu, L = scalars(data, prior)
    size = len(mu)
    lower = multivariate.pairs(size)
    T = multivariate.covariance(L)
    arguments = [
        *(data.measured[:, k] for k in range(size)),
        *mu,
        *(data.S[:, i, j] for i, j in lower),
        *(T[pair] for pair in lower),
    ]
    pm.CustomDist(
        "y",
        *arguments,
        logp=multivariate.logp_of(size),
        random=multivariate.random_of(size),
        signature=f"{','.join(['()'] * len(arguments))}->({size})",
        observed=data.b,
        dims=("year", "trait"),
    )


# One year, given the hyperparameters.


def replicate(rng, theta, h, data):
    """y_t ~ N(beta_t, S_t), as many as were measured."""
    L = data.S.copy(data=np.linalg.cholesky(data.S.values))
    z = theta.copy(data=rng.standard_normal(theta.shape)).rename(trait="other").drop_vars("other", errors="ignore")
    every = theta + xr.dot(L, z, dim="other")
    return every.isel(year=data.of_year, trait=data.of_trait).drop_vars(["year", "trait"])


def with_response(data, gradient):
    """The same years with other gradients."""
    b = data.b.copy(deep=True)
    b.values[data.of_year.values, data.of_trait.values] = gradient
    return data.assign(gradient=("estimate", gradient), b=b)


def thin(rng, data):
    """Add and subtract the same noise e_t ~ N(0, S_t): two independent halves, each with the covariance 2 S_t."""
    z = rng.standard_normal((*data.b.shape, 1))
    e = data.measured * (np.linalg.cholesky(data.S.values) @ z)[..., 0]
    measured = data.measured * data.measured.rename(trait="other").drop_vars("other")
    errors = {"S": data.S * (1 + measured), "P": data.P / 2}
    return tuple(data.assign(b=half, **errors) for half in (data.b + e, data.b - e))


def in_advance(priors, data):
    """No pooling: the population is the prior of one gradient of each trait, the traits independent."""
    fixed = dict.fromkeys(PARAMETERS, 0.0)
    for k in TRAITS[: data.sizes["trait"]]:
        prior = priors[f"beta_{k}"]
        if prior.distribution != "Normal" or prior.transform:
            raise ValueError(f"No pooling is exact under a Normal prior of 'beta_{k}', got {describe(prior)}.")
        mean, variance = moments(f"beta_{k}", prior)
        fixed |= {f"mu_{k}": mean, f"tau_{k}": float(np.sqrt(variance))}
    return fixed


def not_there(priors, data):
    """Partial pooling fixes what is of traits that there are not."""
    return dict.fromkeys(absent(data), 0.0)


def constant(priors, data):
    """Complete pooling: T = 0."""
    return {name: 0.0 for name in PARAMETERS if not name.startswith("mu")} | not_there(priors, data)


def shrink_together(t, means):
    """T = t^2 That: all spreads by the same factor, their correlations kept."""
    return {name: t * value if name.startswith("tau") else value for name, value in means.items() if name[:2] != "mu"}


ALTERNATIVES = {
    "autocorrelation": {False: lambda record: record, True: with_autocorrelation},
    "exact": {False: lambda record: record, True: exactly},
}


def simulate(
    rng,
    *,
    years=16,
    traits=("beak_depth", "mass"),
    mu=(0.10, -0.05),
    tau=(0.10, 0.05),
    rho=0.3,
    phi=0.0,
    animals=(50, 200),
    trait_correlation=0.4,
    survival=0.5,
):
    """A frame like the real one and the truth that made it.

    Parameters
    ----------
    rng : numpy.random.Generator
        Source of randomness.
    years : int
        Number of years, from 1990 on.
    traits : sequence of str, or int
        One to four traits; a number names them A, B, ...
    mu, tau : float or sequence of float
        Mean and sd over the years of each trait's gradient [1 / sd].
    rho : float
        Correlation of any two traits' gradients over the years.
    phi : float
        Correlation of a year's gradients with those of the year before.
    animals : tuple of int
        Fewest and most animals of a year.
    trait_correlation : float
        Correlation of any two traits among animals, which makes errors of gradients correlated.
    survival : float
        Share that survives. The errors are those of a regression of relative survival: of n animals with
        the traits' correlation C, C^-1 (1 - survival) / (survival n).

    Returns
    -------
    frame : pandas.DataFrame
        Columns year, trait, gradient, standard_error, covariances.
    truth : xarray.Dataset
        The hyperparameters, and ``beta`` [year, trait].

    Examples
    --------
    >>> import numpy as np
    >>> frame, truth = simulate(np.random.default_rng(1), years=3)
    >>> len(frame), dict(truth.beta.sizes)
    (6, {'year': 3, 'trait': 2})
    """
    names = list("ABCD"[:traits]) if isinstance(traits, int) else list(traits)
    size = len(names)
    mean, sd = (np.resize(np.asarray(value, float), size) for value in (mu, tau))
    labels = 1990 + np.arange(years)
    R, C = ((1 - r) * np.eye(size) + r for r in (rho, trait_correlation))
    in_time = factor_in_time(phi, labels.astype(float), np)
    beta = mean + in_time @ rng.standard_normal((years, size)) @ (np.linalg.cholesky(R).T * sd)
    n = rng.integers(animals[0], animals[1] + 1, years)
    S = np.linalg.inv(C) * ((1 - survival) / (survival * n))[:, None, None]
    b = beta + (np.linalg.cholesky(S) @ rng.standard_normal((years, size, 1)))[..., 0]
    rows = [rows_of(year, names, *one) for year, one in zip(labels, zip(b, S, strict=True), strict=True)]
    by_trait = {f"{name}_{k + 1}": value[k] for name, value in (("mu", mean), ("tau", sd)) for k in range(size)}
    partial = {f"rho_{i}{j}": rho / (1 + (i - 1) * rho) for i, j in PAIRS if j <= size}
    truth = xr.Dataset(
        by_trait | partial | {"phi": phi, "beta": (("year", "trait"), beta)}, {"year": labels, "trait": names}
    )
    return pd.concat(rows, ignore_index=True), truth


MODEL = HierarchicalModel(
    name=NAME,
    question="Is selection the same every year, or is only our measurement of it not?",
    group="year",
    estimand="beta",
    estimand_label="selection gradient",
    response="gradient",
    observed="y",
    location="mu_1",
    heterogeneity="tau_1",
    reference=0.0,
    columns=COLUMNS,
    parameters=PARAMETERS,
    default_priors=default_priors,
    matched_prior=matched_prior,
    prepare=prepare,
    own=lambda data: data.b.where(data.measured > 0),
    volume=lambda data: (data.measured / data.S.values.diagonal(axis1=1, axis2=2)).sum("trait").rename("precision"),
    variants={
        "none": {"centered": no_pooling, "marginalized": marginalized},
        "complete": {"centered": complete_pooling, "marginalized": marginalized},
        "partial": {
            "centered": partial_pooling_centered,
            "noncentered": partial_pooling_noncentered,
            "marginalized": marginalized,
        },
    },
    fixed={"none": in_advance, "complete": constant, "partial": not_there},
    group_level=closed_form(
        at=at,
        alike=True,
        population=multivariate.population,
        conditional=multivariate.conditional,
        log_marginal=multivariate.log_marginal,
        log_likelihood=multivariate.log_likelihood,
        expected_log_likelihood=multivariate.expected_log_likelihood,
        reliability=multivariate.reliability,
        replicate=replicate,
        tails=multivariate.tails,
    ),
    alternatives=ALTERNATIVES,
    simulate=simulate,
    datasets={
        "selection_gradients": Shipped(),
        "selection_years": Shipped(
            reader="individuals",
            given={"traits": "beak_depth_sd; mass_sd", "fitness": "survived", "kind": "survival"},
        ),
        "selection_survivors": Shipped(
            file="selection_years",
            reader="animals",
            given={"trait": "beak_depth_sd"},
            options={"exact": True},
        ),
    },
    extras=Extras(
        thin=thin,
        contradiction=contradiction,
        path=shrink_together,
        absent=absent,
        readers={"individuals": from_individuals, "animals": standardised_animals},
        with_response=with_response,
    ),
)
build = MODEL.build
__getattr__ = verbs_of(NAME, "by_year", "over_years", "correlations", "one_step_ahead")
