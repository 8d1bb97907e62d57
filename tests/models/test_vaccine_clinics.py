"""Vaccine clinics: density, identities, quadrature over tau, references, readers, bad frames."""

import json
from pathlib import Path

import arviz as az
import numpy as np
import pandas as pd
import pytest
import xarray as xr
from pymc_extras.prior import Prior
from scipy import stats

import hbm_zoo as hz
from hbm_zoo.frames.rules import FrameError
from hbm_zoo.group_level.averages import exceedance, quantile
from hbm_zoo.group_level.populations import Normal
from hbm_zoo.inference.fits import hyperparameters
from hbm_zoo.models import vaccine_clinics as clinics

MODEL = clinics.MODEL
REFERENCE = Path(__file__).parents[1] / "reference"
BCG = json.loads((REFERENCE / "bcg_vaccine.json").read_text())
SCHOOLS = json.loads((REFERENCE / "eight_schools.json").read_text())
PRIORS = {
    "bcg_vaccine": {"mu": Prior("Normal", mu=0.0, sigma=10.0), "tau": Prior("HalfNormal", sigma=1.0)},
    "eight_schools": {
        "mu": Prior("Normal", mu=0, sigma=5),
        "tau": Prior("HalfCauchy", beta=5),
        "theta": Prior("Normal", mu=0, sigma=15),  # only for no pooling: a half-Cauchy has no variance to match
    },
}
LOG_PRIORS = {  # of mu (mean, sd) and tau, as scipy has them
    "bcg_vaccine": ((0, 10), stats.halfnorm(scale=1)),
    "eight_schools": ((0, 5), stats.halfcauchy(scale=5)),
}
DRAWS = 2000


# Density: each variant against scipy, at random points, and its gradient.


def density(pooling, parameterization, point, gradient=False):
    model = MODEL.build(hz.load_data("bcg_vaccine"), pooling, parameterization, PRIORS["bcg_vaccine"])
    compiled = (model.compile_dlogp if gradient else model.compile_logp)(jacobian=False, mode="AS_WRITTEN")
    return compiled({v.name: np.asarray(point[v.name]) for v in model.value_vars})


def by_scipy(pooling, parameterization, point):
    frame = hz.load_data("bcg_vaccine")
    y, se = frame["effect"].to_numpy(), frame["standard_error"].to_numpy()
    mu, tau, theta = point["mu"], np.exp(point["tau_log__"]), np.asarray(point["theta"])
    theta = mu + tau * np.asarray(point["z"]) if parameterization == "noncentered" else theta
    of_mu, of_tau = stats.norm(0, 10).logpdf(mu), stats.halfnorm(scale=1).logpdf(tau)
    data = stats.norm(theta, se).logpdf(y).sum()
    if pooling == "none":
        # s0^2 = Var(mu) + E[tau^2] = 100 + 1
        return stats.norm(0, np.sqrt(101)).logpdf(theta).sum() + data
    if pooling == "complete":
        return of_mu + stats.norm(mu, se).logpdf(y).sum()
    group = {
        "centered": lambda: stats.norm(mu, tau).logpdf(theta).sum() + data,
        "noncentered": lambda: stats.norm.logpdf(point["z"]).sum() + data,
        "marginalized": lambda: stats.norm(mu, np.hypot(tau, se)).logpdf(y).sum(),
    }
    return of_mu + of_tau + group[parameterization]()


VARIANTS = [(pooling, form) for pooling, forms in MODEL.variants.items() for form in forms]


@pytest.mark.parametrize(("pooling", "form"), VARIANTS)
def test_each_variant_has_the_density_and_gradient_of_the_page(pooling, form):
    rng = np.random.default_rng(4)
    point = {"mu": -0.5, "tau_log__": np.log(0.4), "theta": rng.normal(size=13), "z": rng.normal(size=13)}
    # PyMC keeps the log of a constant prior scale in single precision.
    np.testing.assert_allclose(density(pooling, form, point), by_scipy(pooling, form, point), rtol=0, atol=1e-7)
    gradient, step = density(pooling, form, point, gradient=True), 1e-5
    free = {"none": ["theta"], "complete": ["mu"]}.get(pooling) or ["mu", "tau_log__"]
    free += {"centered": ["theta"], "noncentered": ["z"]}.get(form, []) if pooling == "partial" else []
    differences = []
    for name in free:
        for e in np.eye(np.size(point[name])):
            moved = [point | {name: point[name] + s * step * (e if np.ndim(point[name]) else 1.0)} for s in (1, -1)]
            differences.append((by_scipy(pooling, form, moved[0]) - by_scipy(pooling, form, moved[1])) / (2 * step))
    np.testing.assert_allclose(np.sort(gradient), np.sort(differences), rtol=1e-5, atol=1e-6)


# Identities and limits: no sampling.


@pytest.fixture(scope="module")
def data():
    return MODEL.data(hz.load_data("bcg_vaccine"))


def one(**values):
    return xr.Dataset({name: ("sample", [float(value)]) for name, value in values.items()})


def test_candidates_formula_and_change_of_variables():
    rng = np.random.default_rng(5)
    z, mu, tau = rng.normal(size=13), -0.5, 0.4
    point = {"mu": mu, "tau_log__": np.log(tau), "theta": mu + tau * z, "z": z}
    centered, noncentered, marginal = (
        density("partial", form, point) for form in ("centered", "noncentered", "marginalized")
    )
    np.testing.assert_allclose(centered + 13 * np.log(tau), noncentered, rtol=1e-12)
    data = MODEL.data(hz.load_data("bcg_vaccine"))
    after = clinics.conditional(one(mu=mu, tau=tau), data)
    posterior = stats.norm(after.mu, after.tau).logpdf(point["theta"]).sum()
    np.testing.assert_allclose(centered - posterior, marginal, rtol=1e-12)


def test_without_spread_all_is_complete_pooling(data):
    h = one(mu=-0.4, tau=0.0)
    after = clinics.conditional(h, data)
    assert (after.mu == -0.4).all()
    assert (after.tau == 0).all()
    assert (clinics.reliability(h, data) == 0).all()
    for found in (
        clinics.log_marginal(h, data),
        clinics.log_likelihood(h.mu, h, data),
        clinics.expected_log_likelihood(h, data),
    ):
        np.testing.assert_allclose(
            found.values.ravel(), stats.norm(-0.4, data.standard_error).logpdf(data.effect), rtol=1e-12
        )


def test_an_unlimited_spread_leaves_each_clinic_its_own_effect(data):
    after = clinics.conditional(one(mu=-0.4, tau=1e9), data)
    np.testing.assert_allclose(after.mu.values.ravel(), data.effect, rtol=1e-8)
    np.testing.assert_allclose(after.tau.values.ravel(), data.standard_error, rtol=1e-8)


def test_the_matched_prior_has_the_moments_of_a_clinic():
    """A million clinics drawn from the hyperpriors; 4 standard errors of mean and variance."""
    rng = np.random.default_rng(6)
    prior = clinics.matched_prior({"mu": Prior("Normal", mu=3, sigma=2), "tau": Prior("HalfNormal", sigma=1.5)})
    theta = rng.normal(rng.normal(3, 2, 1_000_000), abs(rng.normal(0, 1.5, 1_000_000)))
    assert abs(theta.mean() - prior.parameters["mu"]) < 4 * theta.std() / 1000
    assert abs(theta.var() - prior.parameters["sigma"] ** 2) < 4 * ((theta - theta.mean()) ** 2).std() / 1000


def test_default_priors_are_read_once_from_the_effects():
    schools = hz.load_data("eight_schools")
    priors = MODEL.priors(MODEL.data(schools))
    m0, s = schools["effect"].mean(), schools["effect"].std()
    assert priors["mu"] == Prior("Normal", mu=m0, sigma=2.5 * s)
    assert priors["tau"] == Prior("HalfNormal", sigma=s)
    constant = schools.assign(effect=3.0)
    assert MODEL.priors(MODEL.data(constant))["tau"].parameters["sigma"] == schools["standard_error"].min()


def test_halves_have_twice_the_variance_and_are_independent():
    """20,000 clinics: an sd 4 % off, or a correlation of 0.03, would be seen (4 standard errors)."""
    frame, truth = clinics.simulate(np.random.default_rng(7), clinics=20_000)
    data = MODEL.data(frame)
    halves = clinics.thin(np.random.default_rng(8), data)
    np.testing.assert_allclose((halves[0].effect + halves[1].effect) / 2, data.effect, atol=1e-12)
    z = [(half.effect - truth.theta) / half.standard_error for half in halves]
    assert all(abs(float(one.std()) - 1) < 4 / np.sqrt(40_000) for one in z)
    assert abs(np.corrcoef(*z)[0, 1]) < 4 / np.sqrt(20_000)


# Deterministic agreement with metafor.


def test_metafors_blups_are_the_conditional_means(data):
    reml = BCG["frequentist"]["estimates"]["REML"]
    after = clinics.conditional(one(mu=reml["mu"], tau=np.sqrt(reml["tau_sq"])), data)
    np.testing.assert_allclose(after.mu.values.ravel(), reml["blup"], atol=6e-6)


@pytest.mark.parametrize("method", ["REML", "ML"])
def test_i2_is_metafors(data, method):
    estimate = BCG["frequentist"]["estimates"][method]
    typical = clinics.typical_standard_error(data.standard_error.values)
    np.testing.assert_allclose(
        100 * estimate["tau_sq"] / (estimate["tau_sq"] + typical**2), estimate["I2_pct"], rtol=1e-5
    )


@pytest.mark.parametrize(
    ("name", "reference"),
    [("bcg_vaccine", BCG["frequentist"]["estimates"]), ("eight_schools", SCHOOLS["frequentist"])],
)
def test_the_likelihood_is_stationary_at_metafors_ml(name, reference):
    """The derivative vanishes at the estimate, or points below 0 where tau^2 is estimated 0."""
    data, ml = MODEL.data(hz.load_data(name)), reference["ML"]

    def log_likelihood(mu, tau_sq):
        return float(clinics.log_marginal(one(mu=mu, tau=np.sqrt(tau_sq)), data).sum())

    at = log_likelihood(ml["mu"], ml["tau_sq"])
    scale = ml["se_mu"], ml["se_tau_sq"]
    for mu, tau_sq in ((0.1, 0), (-0.1, 0), (0, 0.1), (0, -0.1)):
        if ml["tau_sq"] + tau_sq * scale[1] >= 0:
            assert log_likelihood(ml["mu"] + mu * scale[0], ml["tau_sq"] + tau_sq * scale[1]) < at


# One-dimensional quadrature over tau, mu and theta integrated out exactly (after Rover 2020).


class Quadrature:
    """Exact posterior on a grid over log tau: mu and the clinics are normal given tau."""

    def __init__(self, y, se, name):
        (self.m0, self.s0), prior = LOG_PRIORS[name]
        self.y, self.se = y, se
        self.tau = np.exp(np.linspace(np.log(1e-5), np.log(1e3), 6000)) * np.median(se)
        log_weight = prior.logpdf(self.tau) + np.log(self.tau) + self.log_evidence_given_tau(y, se)
        self.step = np.log(self.tau[1] / self.tau[0])
        self.log_evidence = np.log(np.sum(np.exp(log_weight - log_weight.max())) * self.step) + log_weight.max()
        self.weight = np.exp(log_weight - log_weight.max())
        self.weight /= self.weight.sum()
        precision = 1 / (self.tau[:, None] ** 2 + se**2)
        self.mu_sd = (1 / self.s0**2 + precision.sum(axis=1)) ** -0.5
        self.mu_mean = self.mu_sd**2 * (self.m0 / self.s0**2 + (precision * y).sum(axis=1))

    def log_evidence_given_tau(self, y, se):
        """Log N(y; m0 1, diag(tau^2 + se^2) + s0^2 J), by the rank-one formulas."""
        variance, d = self.tau[:, None] ** 2 + se**2, y - self.m0
        inner = 1 + self.s0**2 * (1 / variance).sum(axis=1)
        square = (d**2 / variance).sum(axis=1) - self.s0**2 * (d / variance).sum(axis=1) ** 2 / inner
        return -0.5 * (np.log(2 * np.pi * variance).sum(axis=1) + np.log(inner) + square)

    def theta(self):
        """Mean and sd of each clinic's effect."""
        kappa = self.tau[:, None] ** 2 / (self.tau[:, None] ** 2 + self.se**2)
        mean = kappa * self.y + (1 - kappa) * self.mu_mean[:, None]
        variance = kappa * self.se**2 + ((1 - kappa) * self.mu_sd[:, None]) ** 2
        overall = self.weight @ mean
        return overall, np.sqrt(self.weight @ (variance + (mean - overall) ** 2))

    def cdf_of_mu(self, x):
        """P(mu <= x)."""
        return self.weight @ stats.norm.cdf(x, self.mu_mean, self.mu_sd)

    def cdf_of_new(self, x):
        """P(theta <= x) of a clinic not yet seen."""
        return self.weight @ stats.norm.cdf(x, self.mu_mean, np.hypot(self.mu_sd, self.tau))

    def cdf_of_tau(self, x):
        """P(tau <= x)."""
        return self.weight[self.tau <= x].sum()


def quadrature(name, leave_out=None):
    frame = hz.load_data(name)
    keep = np.arange(len(frame)) != leave_out
    return Quadrature(frame["effect"].to_numpy()[keep], frame["standard_error"].to_numpy()[keep], name)


@pytest.mark.parametrize(("name", "reference"), [("bcg_vaccine", BCG), ("eight_schools", SCHOOLS)])
def test_our_quadrature_is_the_references(name, reference):
    """Two quadratures, one in R: four digits, the reference's own."""
    q, estimates = quadrature(name), reference["quadrature"]["estimates"]
    for level, quantity in ((0.025, "q2.5"), (0.5, "median"), (0.975, "q97.5")):
        assert q.cdf_of_mu(estimates["mu"][quantity]) == pytest.approx(level, abs=2e-3)
        assert q.cdf_of_tau(estimates["tau"][quantity]) == pytest.approx(level, abs=3e-3)
        assert q.cdf_of_new(estimates["predictive_new_theta"][quantity]) == pytest.approx(level, abs=2e-3)
    mean, sd = q.theta()
    np.testing.assert_allclose(mean, [t["mean"] for t in estimates["theta"].values()], atol=2e-3 * sd.max())
    np.testing.assert_allclose(sd, [t["sd"] for t in estimates["theta"].values()], rtol=3e-3)


@pytest.fixture(
    scope="module", params=["bcg_vaccine", pytest.param("eight_schools", marks=pytest.mark.slow)], ids=lambda n: n
)
def fitted(request):
    fit = hz.fit(
        clinics,
        hz.load_data(request.param),
        priors=PRIORS[request.param],
        draws=DRAWS,
        random_seed=8,
        progressbar=False,
    )
    return request.param, fit


def test_the_fit_is_the_quadrature(fitted):
    """Each mean and probability within 4 Monte Carlo errors.

    Power: 4 errors are less than 0.15 posterior sds, so a shift of that size would be seen.
    """
    name, fit = fitted
    q, posterior, summary = quadrature(name), fit["posterior"].dataset, fit["group_summary"]
    exact = {"mu": q.weight @ q.mu_mean, "tau": q.weight @ q.tau}
    for quantity, mean in exact.items():
        mcse = float(az.mcse(posterior[quantity]))
        assert abs(float(posterior[quantity].mean()) - mean) < 4 * mcse
        assert 4 * mcse < 0.15 * float(posterior[quantity].std())
    mean, sd = q.theta()
    mcse = az.mcse(posterior["theta"])
    assert (abs(summary["mean"].values - mean) < 4 * mcse.values).all()
    np.testing.assert_allclose(summary["sd"].values, sd, rtol=0.04)
    for ours, cdf in (("mu", q.cdf_of_mu), ("tau", q.cdf_of_tau)):
        for level in (0.05, 0.5, 0.95):
            value = float(posterior[ours].quantile(level))
            error = np.sqrt(level * (1 - level) / float(az.ess(posterior[ours], method="quantile", prob=level)))
            assert abs(cdf(value) - level) < 4 * error + 1e-3


def test_the_interval_of_a_clinic_not_yet_seen_is_the_quadratures(fitted):
    name, fit = fitted
    h, q = hyperparameters(fit), quadrature(name)
    population = Normal(h.mu, h.tau)
    for level in (0.055, 0.945):
        assert q.cdf_of_new(float(quantile(population, level))) == pytest.approx(level, abs=0.01)
    assert 1 - float(exceedance(population, 0.0)) == pytest.approx(q.cdf_of_new(0.0), abs=0.01)


def test_leaving_a_clinic_out_is_brute_force_by_quadrature(fitted):
    name, fit = fitted
    whole = quadrature(name).log_evidence
    exact = [whole - quadrature(name, leave_out=j).log_evidence for j in range(len(hz.load_data(name)))]
    found = fit["group_summary"]["elpd"].values
    np.testing.assert_allclose(found, exact, atol=0.1)
    assert found.sum() == pytest.approx(sum(exact), abs=0.1)


def test_the_fit_agrees_with_independent_chains(fitted):
    """JAGS (BCG) and Stan (schools) under the same priors: means within 4 joint Monte Carlo errors."""
    name, fit = fitted
    reference = (BCG["jags"] if name == "bcg_vaccine" else SCHOOLS["posteriordb"])["estimates"]
    posterior = fit["posterior"].dataset
    ours = {"mu": posterior["mu"], "tau": posterior["tau"]}
    ours |= {f"theta[{j + 1}]": posterior["theta"].isel(clinic=j) for j in range(posterior.sizes["clinic"])}
    for quantity, draws in ours.items():
        error = np.hypot(float(az.mcse(draws)), reference[quantity]["mcse_mean"])
        assert abs(float(draws.mean()) - reference[quantity]["mean"]) < 4 * error, quantity


def test_i2_is_a_share_recorded_with_each_draw(fitted):
    _, fit = fitted
    typical = clinics.typical_standard_error(fit["constant_data"]["standard_error"].values)
    tau = fit["posterior"]["tau"]
    np.testing.assert_allclose(fit["posterior"]["I2"], tau**2 / (tau**2 + typical**2), rtol=1e-10)


def test_no_pooling_is_exact():
    schools = hz.load_data("eight_schools")
    fit = hz.fit(clinics, schools, pooling="none", random_seed=1, progressbar=False)
    m0, s = schools["effect"].mean(), schools["effect"].std()
    prior, data = 1 / (6.25 * s**2 + s**2), schools["standard_error"].to_numpy() ** -2.0
    mean = (prior * m0 + data * schools["effect"].to_numpy()) / (prior + data)
    np.testing.assert_allclose(fit["group_summary"]["mean"], mean, rtol=1e-10)
    np.testing.assert_allclose(fit["group_summary"]["sd"], (prior + data) ** -0.5, rtol=1e-10)
    elpd = stats.norm(m0, np.sqrt(1 / prior + 1 / data)).logpdf(schools["effect"])
    np.testing.assert_allclose(fit["group_summary"]["elpd"], elpd, rtol=1e-10)


def test_no_pooling_needs_a_normal_prior():
    with pytest.raises(ValueError, match="Normal prior of 'theta', got StudentT"):
        hz.fit(clinics, hz.load_data("eight_schools"), "none", priors={"theta": Prior("StudentT", nu=3, mu=0, sigma=9)})


def test_simulated_clinics_have_the_truth_they_report():
    """4 standard errors; a mean 0.01 off, or an sd 5 % off, would be seen."""
    frame, truth = clinics.simulate(np.random.default_rng(9), clinics=20_000, mu=-0.5, tau=0.3)
    z = (frame["effect"] - truth["theta"].values) / frame["standard_error"]
    assert abs(z.mean()) < 4 / np.sqrt(20_000)
    assert abs(z.std() - 1) < 4 / np.sqrt(40_000)
    assert abs(float(truth["theta"].mean()) + 0.5) < 4 * 0.3 / np.sqrt(20_000)
    assert abs(float(truth["theta"].std()) / 0.3 - 1) < 4 / np.sqrt(40_000)


def test_control_limits_are_scipys():
    low, high = clinics.control_limits(0.2, 1 / 0.3**2, 0.95)
    np.testing.assert_allclose([low, high], stats.norm(0.2, 0.3).ppf([0.025, 0.975]), rtol=1e-12)


# Frames.


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"standard_error": [0.1, 0.0, 0.2]}, "'standard_error' expected a finite number above 0, got 0.0 in row 1"),
        ({"standard_error": [0.1, -0.3, 0.2]}, "got -0.3 in row 1"),
        ({"effect": [0.1, np.nan, 0.2]}, "'effect' expected a finite number, got an empty cell in row 1"),
        ({"effect": ["a", "b", "c"]}, "'effect' expected a finite number, got 'a' in row 0"),
        ({"clinic": ["x", "x", "y"]}, "'clinic' expected each value once, got 'x' in rows 0, 1"),
        ({"clinic": ["x", None, "y"]}, "'clinic' expected a label, not empty"),
    ],
)
def test_bad_values_are_named(change, message):
    frame = pd.DataFrame({"clinic": ["a", "b", "c"], "effect": [0.1, 0.2, 0.3], "standard_error": [0.1, 0.1, 0.1]})
    with pytest.raises(FrameError, match=message):
        MODEL.data(frame.assign(**change))


def test_bad_frames_are_named():
    frame = hz.load_data("eight_schools")
    with pytest.raises(FrameError, match="nearest it has is 'effects'"):
        MODEL.data(frame.rename(columns={"effect": "effects"}))
    with pytest.raises(FrameError, match="at least 2 clinics"):
        MODEL.data(frame.head(1))
