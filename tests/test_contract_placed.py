"""Groups placed by a covariate, held to a model from outside: effects of trials that change with latitude.

Meta-regression: each trial has its own mean a + b x_j in the population. The hyperparameters are numbers, not
arrays of trials; where each trial's population lies is said once, by `at`. Complete pooling is a line.
"""

from dataclasses import replace

import numpy as np
import pandas as pd
import pymc as pm
import pytest
import xarray as xr
from pymc_extras.prior import Prior
from scipy import stats
from scipy.optimize import minimize

import hbm_zoo as hz
from hbm_zoo.diagnostics.comparison import QUESTIONS
from hbm_zoo.diagnostics.cross_validation import new_group
from hbm_zoo.diagnostics.heterogeneity import estimates_over_heterogeneity
from hbm_zoo.frames.rules import label, number, positive
from hbm_zoo.group_level import normal
from hbm_zoo.group_level.evaluate import evaluate
from hbm_zoo.group_level.level import closed_form
from hbm_zoo.group_level.populations import Normal
from hbm_zoo.inference import chunks
from hbm_zoo.inference.fits import hyperparameters, priors_of
from hbm_zoo.inference.summary import group_summary
from hbm_zoo.model import Extras, HierarchicalModel, Parameter
from hbm_zoo.priors import moments


def prepare(frame):
    """One row a trial."""
    columns = ("effect", "standard_error", "latitude")
    return xr.Dataset(
        {name: ("trial", frame[name].to_numpy(float)) for name in columns}, coords={"trial": frame["trial"].to_numpy()}
    )


def page(data, prior):
    """theta_j ~ N(a + b x_j, tau^2); y_j ~ N(theta_j, se_j^2)."""
    theta = pm.Normal("theta", prior("a") + prior("b") * data.latitude, prior("tau"), dims="trial")
    pm.Normal("y", theta, data.standard_error, observed=data.effect, dims="trial")


def no_pooling(data, prior):
    """Each trial alone; its latitude says nothing."""
    pm.Normal("y", prior("theta", dims="trial"), data.standard_error, observed=data.effect, dims="trial")


def line(data, prior):
    """y_j ~ N(a + b x_j, se_j^2): complete pooling."""
    pm.Normal("y", prior("a") + prior("b") * data.latitude, data.standard_error, observed=data.effect, dims="trial")


def marginalized(data, prior):
    """y_j ~ N(a + b x_j, tau^2 + se_j^2)."""
    sd = pm.math.sqrt(prior("tau") ** 2 + data.standard_error**2)
    pm.Normal("y", prior("a") + prior("b") * data.latitude, sd, observed=data.effect, dims="trial")


def at(h, data):
    """Where the population of each trial lies."""
    return h.assign(mu=h.a + h.b * data.latitude)


def population(h):
    return Normal(h.mu, h.tau)


def conditional(h, data):
    mu, tau = normal.conditional(data.effect, data.standard_error, h.mu, h.tau)
    return h.assign(mu=mu, tau=tau)


def log_marginal(h, data):
    return evaluate(normal.log_marginal, data.effect, data.standard_error, h.mu, h.tau)


def log_likelihood(theta, h, data):
    return normal.log_density(data.effect, theta, data.standard_error**2)


def expected_log_likelihood(h, data):
    after = conditional(h, data)
    return normal.expected_log_density(data.effect, data.standard_error, after.mu, after.tau)


def replicate(rng, theta, h, data):
    return xr.apply_ufunc(rng.normal, *xr.broadcast(theta, data.standard_error))


def thin(rng, data):
    e = data.standard_error * rng.standard_normal(data.sizes["trial"])
    halves = data.effect + e, data.effect - e
    return tuple(data.assign(effect=half, standard_error=np.sqrt(2) * data.standard_error) for half in halves)


def matched_prior(priors):
    """The normal of a trial at latitude 0, where the mean latitude is."""
    (mu, variance), (tau, tau_variance) = (moments(name, priors[name]) for name in ("a", "tau"))
    return Prior("Normal", mu=mu, sigma=np.sqrt(variance + tau**2 + tau_variance))


def fixed_in_advance(priors, data):
    mean, variance = moments("theta", priors["theta"])
    return {"a": mean, "b": 0.0, "tau": np.sqrt(variance)}


TRIALS = HierarchicalModel(
    name="trials",
    question="Does the effect change with latitude?",
    group="trial",
    estimand="theta",
    estimand_label="effect",
    response="effect",
    observed="y",
    location="a",
    heterogeneity="tau",
    reference=0.0,
    columns={
        "trial": label("the trial", unique=True),
        "effect": number("estimated effect"),
        "standard_error": positive("its standard error"),
        "latitude": number("distance from the equator [10 degrees, centred]"),
    },
    parameters={
        "a": Parameter("mean effect at mean latitude"),
        "b": Parameter("change of the mean effect with latitude [1 / 10 degrees]"),
        "tau": Parameter("spread of trials at one latitude, sd", (0, np.inf)),
    },
    default_priors=lambda data: {
        "a": Prior("Normal", mu=0.0, sigma=1.0),
        "b": Prior("Normal", mu=0.0, sigma=0.5),
        "tau": Prior("HalfNormal", sigma=0.5),
    },
    matched_prior=matched_prior,
    prepare=prepare,
    own=lambda data: data.effect,
    volume=lambda data: (data.standard_error**-2).rename("precision"),
    variants={
        "none": {"centered": no_pooling},
        "complete": {"centered": line},
        "partial": {"centered": page, "marginalized": marginalized},
    },
    fixed={"none": fixed_in_advance, "complete": lambda priors, data: {"tau": 0.0}, "partial": lambda priors, data: {}},
    group_level=closed_form(
        at=at,
        population=population,
        conditional=conditional,
        log_marginal=log_marginal,
        log_likelihood=log_likelihood,
        expected_log_likelihood=expected_log_likelihood,
        reliability=lambda h, data: normal.reliability(data.standard_error, h.tau),
        replicate=replicate,
    ),
    simulate=None,
    datasets={},
    extras=Extras(thin=thin),
)


def trials_frame(seed=1, trials=12):
    """Effects that fall with latitude, more or less exactly known."""
    rng = np.random.default_rng(seed)
    latitude, se = rng.uniform(-2, 2, trials), rng.uniform(0.1, 0.5, trials)
    effect = rng.normal(rng.normal(-0.5 - 0.4 * latitude, 0.3), se)
    names = [f"T{j + 1}" for j in range(trials)]
    return pd.DataFrame({"trial": names, "effect": effect, "standard_error": se, "latitude": latitude})


FRAME = trials_frame()
DATA = TRIALS.data(FRAME)
Y, SE, X = (FRAME[name].to_numpy() for name in ("effect", "standard_error", "latitude"))
LINE = np.stack([np.ones(12), X], axis=1)


@pytest.fixture(scope="module")
def fits():
    settings = {"draws": 500, "tune": 400, "chains": 2, "random_seed": 4, "progressbar": False}
    return hz.fit_poolings(TRIALS, FRAME, **settings)


@pytest.fixture(scope="module")
def h(fits):
    """Draws [sample, 1] of a, b and tau, to be set against arrays of trials."""
    return hyperparameters(fits["partial"])


def column(h, name):
    return h[name].values[:, None]


def placed(h, x=X):
    return column(h, "a") + column(h, "b") * x


def test_hyperparameters_never_have_the_dim_of_the_groups(fits):
    for fit in fits.values():
        assert set(hyperparameters(fit).sizes) == {"sample"}
    seen = []
    watched = replace(
        TRIALS, group_level=replace(TRIALS.group_level, log_joint=lambda h, data: seen.append(h.sizes) or 0.0)
    )
    chunks.log_joint(watched, hyperparameters(fits["partial"]), DATA)
    assert all("trial" not in sizes for sizes in seen)


def test_each_trial_comes_from_its_own_population(h):
    expected = stats.norm(placed(h), np.hypot(column(h, "tau"), SE)).logpdf(Y)
    found = TRIALS.group_level.log_left_out(h, DATA).transpose("sample", "trial")
    np.testing.assert_allclose(found, expected, rtol=1e-10)
    np.testing.assert_allclose(chunks.log_joint(TRIALS, h, DATA), expected.sum(axis=1), rtol=1e-10)


def test_each_trial_is_pulled_to_the_line(fits, h):
    kappa = column(h, "tau") ** 2 / (column(h, "tau") ** 2 + SE**2)
    mean, sd = kappa * Y + (1 - kappa) * placed(h), np.sqrt(kappa) * SE
    table = hz.groups(fits, threshold=-1.0, model=TRIALS)
    below = lambda x: stats.norm.cdf((x - mean) / sd).mean(axis=0)  # noqa: E731
    np.testing.assert_allclose(table["partial"], mean.mean(axis=0))
    np.testing.assert_allclose(table["kappa"], kappa.mean(axis=0))
    np.testing.assert_allclose(below(table["partial_eti89_lb"].to_numpy()), 0.055, atol=1e-6)
    np.testing.assert_allclose(table["p_above_0"], 1 - below(0.0))
    np.testing.assert_allclose(table["p_above_-1"], 1 - below(-1.0))


def test_complete_pooling_is_a_line(fits):
    table, h = hz.groups(fits, model=TRIALS), hyperparameters(fits["complete"])
    np.testing.assert_allclose(table["complete"], placed(h).mean(axis=0))
    np.testing.assert_allclose(table["complete_eti89_lb"], np.quantile(placed(h), 0.055, axis=0))
    assert np.ptp(table["complete"]) > 0.5
    priors = priors_of(fits["complete"])
    prior_precision = np.diag([priors[name].parameters["sigma"] ** -2 for name in ("a", "b")])
    covariance = np.linalg.inv(prior_precision + LINE.T @ (LINE / SE[:, None] ** 2))
    exact = covariance @ (LINE.T @ (Y / SE**2))
    assert [float(h.a.mean()), float(h.b.mean())] == pytest.approx(list(exact), abs=0.02)
    np.testing.assert_allclose(np.ptp(table["complete"]), abs(float(h.b.mean())) * np.ptp(X))


def test_no_pooling_knows_nothing_of_the_line(fits):
    (mean, variance) = moments("theta", priors_of(fits["none"])["theta"])
    kappa = variance / (variance + SE**2)
    np.testing.assert_allclose(hz.groups(fits, model=TRIALS)["none"], kappa * Y + (1 - kappa) * mean)
