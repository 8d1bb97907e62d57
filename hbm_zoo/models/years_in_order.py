"""Selection gradients of years each like the one before: `selection_gradients` with autocorrelation=True."""

from collections.abc import Sequence
from dataclasses import replace
from functools import partial

import numpy as np
import pymc as pm
import pytensor.tensor as pt
from pymc_extras.prior import Prior

from hbm_zoo.fields import Parameter
from hbm_zoo.frames.labels import text
from hbm_zoo.frames.rules import FrameError, cell
from hbm_zoo.group_level import multivariate, series
from hbm_zoo.group_level.level import GroupLevel
from hbm_zoo.models.numbered_traits import at, estimate, years

PHI = Parameter("correlation of a year's gradients with those of the year before", (-1, 1))

#: Of the scatter of gradients: below, what a year's own data say cannot be taken back from what all say.
LEAST_ERROR = 1e-5


def with_autocorrelation(record):
    """The record of `selection_gradients` with AR(1) years."""

    def default_priors(data):
        """The priors of independent years, and years that are about as likely to be alike as to alternate."""
        return record.default_priors(data) | {"phi": Prior("TruncatedNormal", mu=0.0, sigma=0.5, lower=-1, upper=1)}

    def fixed_too(pooling):
        return lambda priors, data: record.fixed[pooling](priors, data) | {"phi": 0.0}

    none, complete = ({**record.variants[pooling], "marginalized": marginalized} for pooling in ("none", "complete"))
    partial_pooling = {"noncentered": partial_pooling_noncentered, "marginalized": marginalized}
    return replace(
        record,
        parameters={**record.parameters, "phi": PHI},
        default_priors=default_priors,
        prepare=partial(prepare, record.prepare),
        variants={"none": none, "complete": complete, "partial": partial_pooling},
        fixed={"none": fixed_too("none"), "complete": fixed_too("complete"), "partial": record.fixed["partial"]},
        group_level=series_level(record.group_level.replicate),
        simulate=partial(record.simulate, phi=0.5),
        datasets={name: shipped for name, shipped in record.datasets.items() if not shipped.options},
        extras=replace(record.extras, left_out="{a_group} between the others (interpolation)"),
    )


def series_level(replicate):
    """Years, each like the one before, given the hyperparameters."""
    return GroupLevel(
        kind="in closed form",
        kappa=series.KAPPA,
        independent=False,
        at=at,
        alike=True,
        population=multivariate.population,
        conditional=placed(series.conditional),
        log_joint=placed(series.log_joint),
        log_left_out=placed(series.log_left_out),
        log_predictive=lambda h, new, seen: series.log_predictive(in_time(h, seen), new, seen),
        log_likelihood=multivariate.log_likelihood,
        expected_log_likelihood=placed(series.expected_log_likelihood),
        reliability=placed(series.reliability),
        tails=placed(series.tails),
        replicate=replicate,
        cells=lambda data: data["b"].size * data.sizes["trait"],
        emptied=series.emptied,
        joined=series.joined,
    )


def in_time(h, data):
    """Mu and L by trait, and phi."""
    return at(h, data).assign(phi=h.phi)


def placed(formula):
    """A formula of hyperparameters as they are drawn."""
    return lambda h, data: formula(in_time(h, data), data)


def prepare(independent, frame, traits: str | Sequence[str] | None = None):
    """The data of independent years in the order of time, and ``time`` [year].

    Raises
    ------
    FrameError
        If the year of a row is not a whole number: without it a gap has no length; two labels are of one year; or an
        error is next to nothing, where the formulas lose their digits.
    """
    labels = text(frame["year"])
    whole = labels.str.fullmatch(r"-?\d+")
    if not whole.all():
        row = frame.index[~whole][0]
        raise FrameError(
            "selection_gradients: with autocorrelation=True column 'year' expected whole numbers, got "
            f"{cell(frame['year'][row])} in row {row}."
        )
    data = independent(frame, traits)
    time = data["year"].values.astype(float)
    if np.unique(time).size < time.size:
        first, twice = (data["year"].values[time == min(t for t in time if (time == t).sum() > 1)])[:2]
        raise FrameError(f"selection_gradients: {first!r} and {twice!r} are one year: give it one label.")
    error = frame["standard_error"].to_numpy(float)
    if error.min() < LEAST_ERROR * max(error.max(), np.ptp(frame["gradient"].to_numpy(float))):
        raise FrameError(
            "selection_gradients: with autocorrelation=True column 'standard_error' expected no error below "
            f"{LEAST_ERROR:g} of the scatter of gradients, got {error.min():.3g} in row {frame.index[error.argmin()]}."
        )
    order = np.argsort(time)
    place = np.argsort(order)
    ordered = data.assign(time=("year", time)).isel(year=order)
    return ordered.assign(of_year=("estimate", place[data.of_year.values]))


def partial_pooling_noncentered(data, prior):
    """beta_t = mu + L u_t, u_t = phi^g u_s + (1 - phi^(2 g))^(1/2) z_t with s the year before and g = t - s."""
    mu, L = years(data, prior)
    z = pm.Normal("z", dims=("year", "trait"))
    C = series.factor_in_time(prior("phi"), data.time, pt)
    beta = pm.Deterministic("beta", mu + C @ z @ L.T, dims=("year", "trait"))
    estimate(data, beta[data.of_year, data.of_trait])


def marginalized(data, prior):
    """All years are jointly normal: y ~ N(mu, C C' x T + S)."""
    mu, L = years(data, prior)
    pm.CustomDist(
        "y",
        data.measured,
        data.S,
        data.time,
        mu,
        L,
        prior("phi"),
        logp=series.log_density,
        random=series.random,
        signature="(t,k),(t,k,k),(t),(k),(k,k),()->(t,k)",
        observed=data.b,
        dims=("year", "trait"),
    )
