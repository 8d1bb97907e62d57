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
from scipy.optimize import minimize_scalar
from scipy.special import logsumexp

import hbm_zoo as hz
from hbm_zoo.diagnostics import cross_validation
from hbm_zoo.diagnostics.cross_validation import _log_predictive, new_group
from hbm_zoo.diagnostics.heterogeneity import estimates_over_heterogeneity
from hbm_zoo.frames.rules import label, number, positive
from hbm_zoo.group_level import normal
from hbm_zoo.group_level.evaluate import evaluate
from hbm_zoo.group_level.level import closed_form
from hbm_zoo.group_level.populations import Normal
from hbm_zoo.inference import chunks
from hbm_zoo.inference.fits import hyperparameters, priors_of
from hbm_zoo.inference.free_parameters import FreeParameters, left_out
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
    np.testing.assert_allclose(table["p_above_0"], 1 - below(0.0), atol=1e-12)
    np.testing.assert_allclose(table["p_above_-1"], 1 - below(-1.0), atol=1e-12)


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


def answers(fits):
    """Numbers of all that takes trials in portions."""
    partial, free = fits["partial"], FreeParameters(TRIALS, fits["partial"])
    h = hyperparameters(partial)
    return {
        "log_joint": chunks.log_joint(TRIALS, h, DATA),
        "summary": group_summary(TRIALS, "partial", h, DATA, 1.0).to_dataarray(),
        "above": hz.groups(partial, threshold=-1.0, model=TRIALS)["p_above_-1"],
        "posterior": free.log_posterior(np.zeros((1, 200, 3))),
        "without": left_out(TRIALS, fits["complete"], np.arange(12))[0],
        "estimates": estimates_over_heterogeneity(partial, at=[0.0, 0.5], model=TRIALS)["estimate"],
        "halves": _log_predictive(TRIALS, h, *thin(np.random.default_rng(1), DATA)),
    }


@pytest.mark.parametrize("trials", [1, 5])
def test_chunks_of_five_give_the_numbers_of_all_at_once(fits, monkeypatch, trials):
    expected = answers(fits)
    for name, samples in {"summary": 1000, "posterior": 200, "without": 10}.items():
        monkeypatch.setattr(chunks, "CELLS_AT_ONCE", trials * samples)
        found = answers(fits)
        for what, value in found.items():
            np.testing.assert_allclose(value, expected[what], rtol=1e-9, err_msg=f"{what}, portions for {name}")


# New trials use their own latitude.

NEW = pd.DataFrame(
    {
        "trial": ["T3", "far north", "equator", "equator"],
        "effect": [np.nan, np.nan, 0.9, np.nan],
        "standard_error": 0.3,
        "latitude": [X[2], 4.0, -2.0, -2.0],
    }
)


def test_a_new_trial_uses_its_own_latitude(fits, h):
    north = hz.predict(fits["partial"], NEW[:2], model=TRIALS)
    summary = north["group_summary"].to_dataset()
    assert summary["case"].values.tolist() == ["known", "never seen"]
    mean = placed(h, 4.0)
    kappa = column(h, "tau") ** 2 / (column(h, "tau") ** 2 + SE[2] ** 2)
    known = kappa * Y[2] + (1 - kappa) * placed(h, X[2])
    np.testing.assert_allclose(summary["mean"], [known.mean(), mean.mean()])
    sd = np.sqrt((column(h, "tau") ** 2).mean() + mean.var())
    assert float(summary["sd"][1]) == pytest.approx(sd)
    draws = north["predictions"]["y"].sel(row=1)
    assert float(draws.mean()) == pytest.approx(mean.mean(), abs=4 * np.hypot(sd, 0.3) / np.sqrt(1000))
    assert float(draws.std()) == pytest.approx(np.hypot(sd, 0.3), rel=0.1)


def test_a_trial_that_brings_its_data_moves_the_line(fits, h):
    """Against the posterior with it, by weights that nobody smoothed."""
    found = hz.predict(fits["partial"], NEW[:3].assign(trial=["T3", "far north", "equator"]), model=TRIALS)
    weight = stats.norm(placed(h, -2.0), np.hypot(column(h, "tau"), 0.3)).pdf(0.9)
    weight /= weight.sum()
    kappa = column(h, "tau") ** 2 / (column(h, "tau") ** 2 + 0.3**2)
    equator = (weight * (kappa * 0.9 + (1 - kappa) * placed(h, -2.0))).sum()
    north = (weight * placed(h, 4.0)).sum()
    summary = found["group_summary"].to_dataset().set_coords("case").swap_dims(trial="case")["mean"]
    assert float(summary.sel(case="brings rows")) == pytest.approx(equator, abs=0.02)
    assert float(summary.sel(case="never seen")) == pytest.approx(north, abs=0.04)
    assert abs(north - placed(h, 4.0).mean()) > 0.04  # it did move
    assert found.attrs["k_hat"] < 0.7


def test_a_new_trial_without_a_latitude_is_refused(fits):
    with pytest.raises(ValueError, match=r"^Where a new trial of trials lies depends on its columns: give it a row\.$"):
        hz.predict(fits["partial"], n_new=1, model=TRIALS)


# Leaving out, against the normal of all trials with a and b integrated out.


def log_evidence(fit, y, se, x, of_trial=None):
    """Log probability of measurements, tau on a grid; `of_trial` says which are of one trial."""
    priors = priors_of(fit)
    same = np.eye(len(y)) if of_trial is None else np.equal.outer(of_trial, of_trial)
    if fit.attrs["pooling"] == "none":
        mean, variance = moments("theta", priors["theta"])
        return stats.multivariate_normal(np.full(len(y), mean), variance * same + np.diag(se**2)).logpdf(y)
    a, b = (priors[name].parameters["sigma"] for name in ("a", "b"))
    u, weight = np.polynomial.legendre.leggauss(40)
    taus, weight = stats.halfnorm.ppf((u + 1) / 2) * 0.5, weight / 2
    if fit.attrs["pooling"] == "complete":
        taus, weight = np.zeros(1), np.ones(1)
    shared = a**2 + b**2 * np.outer(x, x) + np.diag(se**2)
    log_p = [stats.multivariate_normal(np.zeros(len(y)), shared + tau**2 * same).logpdf(y) for tau in taus]
    return logsumexp(log_p, b=weight)


@pytest.mark.parametrize("pooling", ["complete", "partial"])
def test_a_trial_is_left_out_exactly(fits, pooling):
    fit, keep = fits[pooling], ~np.eye(12, dtype=bool)
    exact = log_evidence(fit, Y, SE, X) - np.array([log_evidence(fit, Y[k], SE[k], X[k]) for k in keep])
    summary, again = fit["group_summary"], new_group(TRIALS, fit, seed=0)
    assert again.refits == 12
    trusted = summary["k_hat"].values < 0.6
    assert trusted.sum() > 8
    error = 4 * summary["elpd_mcse"].values + 1e-3
    assert (np.abs(summary["elpd"].values - exact) < error)[trusted].all()
    np.testing.assert_allclose(again.elpd, exact, atol=1e-3 if pooling == "complete" else 0.1)


def test_poolings_are_compared_on_a_new_trial(fits):
    table = hz.compare_poolings(fits, model=TRIALS)
    keep = ~np.eye(12, dtype=bool)
    for name, fit in fits.items():
        exact = log_evidence(fit, Y, SE, X) - np.array([log_evidence(fit, Y[k], SE[k], X[k]) for k in keep])
        assert table.loc[name, "elpd"] == pytest.approx(exact.sum(), abs=0.2)
        assert table.loc[name, "se"] == pytest.approx(np.sqrt(12) * exact.std(ddof=1), rel=0.05)
    assert table["dse"].notna().sum() == 2


def test_poolings_are_compared_on_the_same_trials_again(fits, monkeypatch):
    monkeypatch.setattr(cross_validation, "SPLITS", 2)
    table, rng = hz.compare_poolings(fits, "new_observation", random_seed=7, model=TRIALS), np.random.default_rng(7)
    exact = dict.fromkeys(fits, 0.0)
    for _ in range(2):
        first, second = thin(rng, DATA)
        y, se, trials = first.effect.values, first.standard_error.values, np.arange(12)
        for name, fit in fits.items():
            alone = log_evidence(fit, y, se, X)
            for j in range(12):
                both = [np.append(of, of_j) for of, of_j in ((y, second.effect.values[j]), (se, se[j]), (X, X[j]))]
                exact[name] += (log_evidence(fit, *both, np.append(trials, j)) - alone) / 2
    for name, value in exact.items():
        assert table.loc[name, "elpd"] == pytest.approx(value, abs=0.3)


# The line in what is integrated, maximised, tabulated and said.


def test_estimates_at_a_given_spread_are_pulled_to_the_line(fits):
    at_both = estimates_over_heterogeneity(fits["partial"], at=[0.0, 0.5], groups=["T4", "T2"], model=TRIALS)
    assert at_both.attrs["at_0"] == "complete pooling"
    for t in (0.0, 0.5):
        weights = 1 / (SE**2 + t**2)
        covariance = np.linalg.inv(np.diag([1.0, 0.5**-2]) + LINE.T @ (LINE * weights[:, None]))
        of_line = LINE @ covariance @ (LINE.T @ (Y * weights))
        kappa = t**2 * weights
        exact = kappa * Y + (1 - kappa) * of_line
        np.testing.assert_allclose(at_both["estimate"].sel(heterogeneity=t), exact[[3, 1]], atol=1e-6)


@pytest.mark.parametrize("method", ["ml", "reml"])
def test_maximum_likelihood_finds_the_line(method):
    plug_in = hz.empirical_bayes(TRIALS, FRAME, method=method, draws=10)

    def weighted(log_tau):
        weights = 1 / (SE**2 + np.exp(2 * log_tau))
        information = LINE.T @ (LINE * weights[:, None])
        return weights, information, np.linalg.solve(information, LINE.T @ (Y * weights))

    def minus_log_likelihood(log_tau):
        weights, information, of_line = weighted(log_tau)
        over_line = np.log(2 * np.pi) - np.linalg.slogdet(information)[1] / 2 if method == "reml" else 0.0
        return -stats.norm(LINE @ of_line, weights**-0.5).logpdf(Y).sum() - over_line

    best = minimize_scalar(minus_log_likelihood, bounds=(-6, 2), method="bounded", options={"xatol": 1e-8})
    assert plug_in.attrs["log_likelihood"] == pytest.approx(-best.fun, abs=1e-6)
    _, information, of_line = weighted(best.x)
    estimates = plug_in["estimates"].to_dataset()
    assert estimates["value"].values.tolist() == pytest.approx([*of_line, np.exp(best.x)], rel=1e-3)
    se = np.sqrt(np.diag(np.linalg.inv(information)))
    if method == "reml":
        np.testing.assert_allclose(estimates["se"][:2], se, rtol=1e-3)


def test_the_line_is_what_the_trials_level_explains(fits, h):
    table = hz.pooling_factor(fits["partial"], model=TRIALS)
    kappa = column(h, "tau") ** 2 / (column(h, "tau") ** 2 + SE**2)
    mean, variance = kappa * Y + (1 - kappa) * placed(h), kappa * SE**2
    errors = mean - placed(h)
    within = (errors.var(axis=1, ddof=1) + variance.mean(axis=1)).mean()
    total = (mean.var(axis=1, ddof=1) + variance.mean(axis=1)).mean()
    assert table.loc["trial", "r2"] == pytest.approx(1 - within / total, abs=0.02)
    assert table.loc["trial", "pooling_factor"] == pytest.approx(1 - errors.mean(axis=0).var(ddof=1) / within, abs=0.03)
    assert table.loc["trial", "r2"] > 0.3


def test_the_words_know_a_line(fits, tmp_path, monkeypatch):
    monkeypatch.setattr(cross_validation, "SPLITS", 2)
    limits = replace(TRIALS, extras=replace(TRIALS.extras, control_limits=lambda target, volume, p: (target, target)))
    folder = hz.report(fits, tmp_path / "report", model=limits)
    assert not (folder / "funnel.png").exists()
    with pytest.raises(
        ValueError, match=r"^A funnel has one target, and trials expects something else of each trial\.$"
    ):
        hz.plot_funnel(fits, limits)
    text = (folder / "report.md").read_text()
    assert "one value for all" not in text
