"""Selection on survival, animal by animal: `selection_gradients` with exact=True."""

from collections.abc import Mapping
from dataclasses import replace
from functools import cache

import numpy as np
import pandas as pd
import pymc as pm
import xarray as xr
from pymc_extras.prior import Prior
from scipy import special

from hbm_zoo.fields import Extras, Parameter
from hbm_zoo.frames.rules import FrameError, label, number
from hbm_zoo.group_level import survival, tabulated
from hbm_zoo.group_level.left_out_rows import Rows
from hbm_zoo.group_level.logistic import NoGradient, likeliest
from hbm_zoo.group_level.nuisance import DEVIATES
from hbm_zoo.group_level.populations import Normal
from hbm_zoo.models.individuals import FITNESS, animals_of, listed_in, standardised
from hbm_zoo.models.survival_checks import OF_YEARS
from hbm_zoo.priors import describe, from_json, log_density, moments, quantiles, to_json
from hbm_zoo.words import listed

TRUTH = bool | np.bool_
COLUMNS = {
    "year": label("the year"),
    "z": number("the trait of one animal, from the year's mean in units of the sd of all animals"),
    "survived": replace(
        FITNESS["survival"], holds=lambda s: FITNESS["survival"].holds(s) & ~s.map(lambda cell: isinstance(cell, TRUTH))
    ),
}
PARAMETERS = {
    "mu": Parameter("mean slope of survival over the years, log odds per sd"),
    "tau": Parameter("spread of the slopes of survival over the years, sd", (0, np.inf)),
}
READER = "standardised_animals"
FARTHEST = 4.0  # Sd of z, either way of 1, that priors of slopes per sd can be meant for.
#: How far from 0 the mean of a year may be, in sds, and in standard errors of a mean beside that.
OFF, BY_CHANCE = 0.25, 4.0


def exactly(record):
    """The record of `selection_gradients` whose data are animals that survived or died."""
    if "phi" in record.parameters:
        raise ValueError("exact=True is of years that are independent: it does not go with autocorrelation=True.")
    return replace(
        record,
        estimand="alpha",
        estimand_label="slope of survival, log odds per sd",
        response="survived",
        location="mu",
        heterogeneity="tau",
        columns=COLUMNS,
        parameters=PARAMETERS,
        default_priors=default_priors,
        matched_prior=matched_prior,
        prepare=prepare,
        own=own,
        volume=lambda data: data.animals,
        variants=VARIANTS,
        fixed={"none": in_advance, "complete": lambda priors, data: {"tau": 0.0}, "partial": lambda priors, data: {}},
        group_level=years(),
        simulate=simulate,
        datasets={name: shipped for name, shipped in record.datasets.items() if shipped.options},
        extras=Extras(
            check=check,
            contradiction=contradiction,
            readers={"animals": standardised_animals},
            nuisances={"alpha_0": Parameter("log odds of survival of a year's mean animal")},
            checks=OF_YEARS,
            with_response=lambda data, survived: data.assign(survived=("animal", survived)),
        ),
    )


def standardised_animals(
    frame: pd.DataFrame, trait: str, fitness: str = "survived", year: str = "year"
) -> pd.DataFrame:
    """Traits of animals from their year's mean, in units of the sd of all.

    Parameters
    ----------
    frame : pandas.DataFrame
        One row an animal and year: the year, one trait [any unit], whether it survived, 0 or 1.
    trait, fitness, year : str
        Its columns; one trait.

    Returns
    -------
    pandas.DataFrame
        Columns year, z, survived: what ``selection_gradients`` takes with ``exact=True``.

    Raises
    ------
    FrameError
        If a column is missing or holds something else, there are several traits, or the trait does not vary.

    Examples
    --------
    >>> import pandas as pd
    >>> birds = pd.DataFrame({"year": [1, 1, 2, 2], "mass": [20.0, 22.0, 19.0, 21.0], "survived": [0, 1, 1, 1]})
    >>> standardised_animals(birds, "mass")["z"].round(2).tolist()
    [-0.77, 0.77, -0.77, 0.77]
    """
    names = listed_in(trait)
    if len(names) != 1:
        raise FrameError(f"{READER} expected one trait, got {listed(map(repr, names))}: with exact=True there is one.")
    (trait,) = names
    animals = animals_of(frame, [trait], fitness, year, "survival", READER)
    z = standardised(animals, [trait], year, "over years", READER)[trait]
    columns = {"year": animals[year], "z": z, "survived": animals[fitness].astype(int)}
    made = pd.DataFrame(columns)
    made.attrs = {**frame.attrs, "labels": {"year": year, "z": trait, "survived": fitness}}
    return made


def default_priors(data):
    """A slope twice a gradient, as where half survive: .6 either way, and .4 between years, are large; any survival."""
    return {
        "mu": Prior("Normal", mu=0.0, sigma=0.6),
        "tau": Prior("HalfNormal", sigma=0.4),
        "alpha_0": Prior("Normal", mu=0.0, sigma=1.5),
    }


def matched_prior(priors):
    """The normal with the mean and variance of a year's slope, and alpha_0 as it is."""
    (mean, variance), (tau, of_tau) = (moments(name, priors[name]) for name in ("mu", "tau"))
    alpha = Prior("Normal", mu=mean, sigma=float(np.sqrt(variance + tau**2 + of_tau)))
    return {"alpha": alpha, "alpha_0": priors["alpha_0"]}


def contradiction(data, priors):
    """Say so if the trait is not in standard deviations, which priors of slopes per sd are meant for."""
    sd = float(data.z.std())
    if 1 / FARTHEST < sd < FARTHEST:
        return None
    return (
        f"The trait has an sd of {sd:.3g}, and slopes under the priors {describe(priors['mu'])} of 'mu' and "
        f"{describe(priors['tau'])} of 'tau' are per sd: make it one by standardised_animals."
    )


def prepare(frame):
    """Animals [animal] with trait and survival; of each year how many."""
    of_year, years = pd.factorize(frame["year"])
    animals = {
        "z": frame["z"].to_numpy(float),
        "survived": frame["survived"].to_numpy(float),
        "of_year": of_year.astype(np.int64),
    }
    if not np.isfinite(animals["z"].std()) or abs(animals["z"]).max() > 1e6:
        raise FrameError("selection_gradients expected traits 'z' in sd units, got values beyond a million.")
    counts = {"animals": ("year", np.bincount(of_year).astype(float))}
    return xr.Dataset(
        {name: ("animal", value) for name, value in animals.items()} | counts, {"year": np.asarray(years)}
    )


def check(data):
    """Nothing to warn of; traits of a whole data set are from their year's mean, as alpha_0 is of an animal there.

    Raises
    ------
    FrameError
        If a year's mean is far from 0.
    """
    animals, sd = data.animals.values, float(data.z.std()) or 1.0
    mean = np.bincount(data.of_year, data.z) / animals
    far = abs(mean) > sd * (OFF + BY_CHANCE / np.sqrt(animals))
    if far.any():
        j = int(np.argmax(abs(mean) * far))
        raise FrameError(
            f"selection_gradients: column 'z' expected traits from their year's mean, got a mean of {mean[j]:.3g} in "
            f"{data['year'].values[j]}: make them by standardised_animals."
        )
    return []


# The variants, each as it stands on the page.


def no_pooling(data, prior):
    """alpha_t fixed in advance to a wide normal."""
    survivors(data, prior, prior("alpha", dims="year"))


def complete_pooling(data, prior):
    """alpha_t = mu: one slope for all years."""
    survivors(data, prior, prior("mu") + 0 * data.animals)


def partial_pooling_centered(data, prior):
    """alpha_t ~ N(mu, tau^2)."""
    survivors(data, prior, pm.Normal("alpha", prior("mu"), prior("tau"), dims="year"))


def partial_pooling_noncentered(data, prior):
    """alpha_t = mu + tau z_t with z_t ~ N(0, 1)."""
    mu, tau, z_t = prior("mu"), prior("tau"), pm.Normal("z_t", dims="year")
    survivors(data, prior, pm.Deterministic("alpha", mu + tau * z_t, dims="year"))


def survivors(data, prior, alpha):
    """y_i ~ Bernoulli with log odds alpha_0,t + alpha_t z_i."""
    alpha_0 = prior("alpha_0", dims="year")
    log_odds = alpha_0[data.of_year] + alpha[data.of_year] * data.z
    pm.Bernoulli("y", logit_p=log_odds, observed=data.survived, dims="animal")


def marginalized(data, prior):
    """Every year by its tabulated likelihood, all that its animals say of alpha: alpha and alpha_0 integrated out."""
    pm.CustomDist(
        "y",
        data.point,
        prior("mu"),
        prior("tau"),
        logp=tabulated.log_sampled,
        signature="(t,k),(),()->(t,k)",
        observed=data.log_likelihood,
        dims=("year", "node"),
    )


VARIANTS = {
    "none": {"centered": no_pooling, "marginalized": marginalized},
    "complete": {"centered": complete_pooling, "marginalized": marginalized},
    "partial": {
        "centered": partial_pooling_centered,
        "noncentered": partial_pooling_noncentered,
        "marginalized": marginalized,
    },
}


# One year, given mu and tau.


def years():
    """The group level: independent years, the likelihood of each tabulated."""
    rows = Rows(group="year", dim="animal", population=population, place=survival.place, without=survival.without_rows)
    kappa = "1 - Var(alpha | y, h) / Var(alpha | h)"
    return tabulated.OnATable(population=population, table=table, kappa=kappa).group_level(
        replicate=lambda rng, theta, h, new, seen: survival.replicate(rng, theta, new, seen),
        emptied=survival.emptied,
        leave_row_out=rows.leave_row_out,
        without_row=rows.without_row,
    )


def population(h):
    """Alpha ~ N(mu, tau^2)."""
    return Normal(h.mu, h.tau)


def own(data):
    """The likeliest slope of each year; NaN where there is none: nobody died, say, or the trait tells who did."""
    found = np.full(data.sizes["year"], np.nan)
    for j in range(found.size):
        z, survived = survival.animals(data, j)
        try:
            found[j] = likeliest(survived, np.column_stack([np.ones(z.size), z]))[0][1]
        except NoGradient:
            continue
    return xr.DataArray(found, {"year": data.year}, ("year",))


def in_advance(priors, data):
    """No pooling: the population is the prior of one year, alpha ~ N(m0, s0^2)."""
    prior = priors["alpha"]
    if prior.distribution != "Normal" or prior.transform:
        raise ValueError(f"No pooling is exact under a Normal prior of 'alpha', got {describe(prior)}.")
    mean, variance = moments("alpha", prior)
    return {"mu": mean, "tau": np.sqrt(variance)}


def table(data, priors):
    """Every year's likelihood of its slope, alpha_0 integrated out."""
    return survival.tables(data, *of_alpha_0(priors))


def of_alpha_0(priors: Mapping[str, Prior]):
    """The log density of alpha_0 before the data, a function, and quantiles of it."""
    return _of_alpha_0(to_json({"alpha_0": priors["alpha_0"]}))


@cache
def _of_alpha_0(prior):
    of = from_json(prior)["alpha_0"]
    return log_density(of), quantiles(of, special.ndtr(DEVIATES))


def simulate(rng, *, years=16, mu=0.3, tau=0.25, alpha_0=(-0.8, 0.8), animals=(50, 200)):
    """A frame like the real one and the truth that made it.

    Parameters
    ----------
    rng : numpy.random.Generator
        Source of randomness.
    years : int
        Number of years, from 1990 on.
    mu, tau : float
        Mean and sd over the years of the slope of survival [log odds per sd].
    alpha_0 : tuple of float
        Between which log odds of survival with a mean trait the years lie.
    animals : tuple of int
        Fewest and most animals of a year.

    Returns
    -------
    frame : pandas.DataFrame
        Columns year, z, survived.
    truth : xarray.Dataset
        mu, tau, and alpha, alpha_0 [year].

    Examples
    --------
    >>> import numpy as np
    >>> frame, truth = simulate(np.random.default_rng(1), years=3)
    >>> list(frame.columns), dict(truth.alpha.sizes)
    (['year', 'z', 'survived'], {'year': 3})
    """
    labels = 1990 + np.arange(years)
    of_year = np.repeat(np.arange(years), rng.integers(animals[0], animals[1] + 1, years))
    slope, intercept = rng.normal(mu, tau, years), rng.uniform(*alpha_0, years)
    z = rng.standard_normal(of_year.size)
    survived = rng.random(of_year.size) < special.expit(intercept[of_year] + slope[of_year] * z)
    frame = pd.DataFrame({"year": labels[of_year], "z": z, "survived": survived.astype(int)})
    truth = {"mu": mu, "tau": tau, "alpha": ("year", slope), "alpha_0": ("year", intercept)}
    return frame, xr.Dataset(truth, {"year": labels})
