"""Estimates over the heterogeneity against closed forms, quadrature and their limits; no MCMC but one."""

import arviz as az
import numpy as np
import pytest
import xarray as xr
from scipy import integrate, stats

import hbm_zoo as hz
from hbm_zoo.diagnostics.heterogeneity import estimates_over_heterogeneity, grid_over
from hbm_zoo.inference.fits import priors_of
from hbm_zoo.inference.fitting import attributes
from hbm_zoo.inference.free_parameters import line, log_density
from hbm_zoo.priors import moments
from hbm_zoo.zoo import record_of


def fit_of(model, frame, centre, seed=0, **options):
    """A fit as `hz.fit` makes it, its draws scattered around a centre rather than sampled.

    What is under test integrates by itself: it takes from the draws only where to look.
    """
    record = record_of(model)
    data = record.data(frame, **options)
    priors = record.priors(data)
    rng = np.random.default_rng(seed)
    draws = {name: value * np.exp(0.2 * rng.standard_normal((2, 100))) for name, value in centre.items()}
    posterior = xr.Dataset({name: (("chain", "draw"), value) for name, value in draws.items()})
    tree = xr.DataTree.from_dict({"posterior": posterior, "constant_data": data})
    tree.attrs |= attributes(record, data, "partial", priors)
    return tree


@pytest.fixture(scope="module")
def schools():
    return fit_of("vaccine_clinics", hz.load_data("eight_schools"), {"mu": 8.0, "tau": 6.0})


def test_clinics_against_the_normal_formulas(schools):
    """Given tau, mu is normal: BDA3, equation 5.20, with a normal prior of mu."""
    data, priors = schools["constant_data"], priors_of(schools)
    y, se = data["effect"].values, data["standard_error"].values
    m0, s2 = moments("mu", priors["mu"])
    tau = np.array([0.0, 0.5, 5.0, 20.0, 400.0])[:, None]
    precision = 1 / (tau**2 + se**2)
    V = 1 / (1 / s2 + precision.sum(axis=1))
    mu = V * (m0 / s2 + (precision * y).sum(axis=1))
    kappa = tau**2 / (tau**2 + se**2)
    over = estimates_over_heterogeneity(schools, at=tau[:, 0])
    np.testing.assert_allclose(
        over["estimate"].transpose("heterogeneity", "clinic"), kappa * y + (1 - kappa) * mu[:, None], rtol=1e-6
    )
    joint = [
        stats.multivariate_normal.logpdf(y, np.full(8, m0), np.diag(t**2 + se**2) + s2) for t in tau[:, 0]
    ] + stats.halfnorm.logpdf(tau[:, 0], scale=float(priors["tau"].parameters["sigma"]))
    log_density_at = over["log_density"].values
    np.testing.assert_allclose(log_density_at - log_density_at[0], joint - joint[0], atol=1e-4)


def test_result_does_not_depend_on_the_draws(schools):
    elsewhere = fit_of("vaccine_clinics", hz.load_data("eight_schools"), {"mu": 80.0, "tau": 1.0}, seed=3)
    at = [0.0, 3.0, 30.0]
    here, there = (estimates_over_heterogeneity(fit, at=at)["estimate"] for fit in (schools, elsewhere))
    np.testing.assert_allclose(here, there, rtol=1e-6)


def test_hospitals_against_adaptive_quadrature():
    frame = hz.load_data("pumps")
    fit = fit_of("hospital_readmission", frame, {"mu": 1.0, "cv": 1.0})
    O, E = frame["observed"].to_numpy(), frame["expected"].to_numpy()
    for cv in (0.3, 1.5):
        a = cv**-2

        def integrand(log_mu, power, j, a=a):
            b = a / np.exp(log_mu)
            log_m = stats.nbinom.logpmf(O, a, b / (b + E)).sum() + stats.norm.logpdf(log_mu, 0, 0.5)
            return np.exp(log_m + 40) * ((O[j] + a) / (E[j] + b)) ** power

        total = integrate.quad(integrand, -4, 4, args=(0, 0), epsabs=0, limit=200)[0]
        exact = [integrate.quad(integrand, -4, 4, args=(1, j), epsabs=0, limit=200)[0] / total for j in range(10)]
        estimate = estimates_over_heterogeneity(fit, at=[cv])["estimate"].isel(heterogeneity=0)
        np.testing.assert_allclose(estimate, exact, rtol=1e-5)


def test_genes_against_adaptive_quadrature():
    frame, _ = hz.spike_slab_genes.simulate(np.random.default_rng(4), genes=30)
    fit = fit_of("spike_slab_genes", frame, {"pi0": 0.6, "tau": 0.3})
    y, se, tau = frame["effect"].to_numpy(), frame["standard_error"].to_numpy(), 0.25
    spike, slab = stats.norm.pdf(y, 0, se), stats.norm.pdf(y, 0, np.hypot(se, tau))

    def integrand(pi0, j):
        m = pi0 * spike + (1 - pi0) * slab
        mean = 1.0 if j is None else (1 - pi0) * slab[j] / m[j] * y[j] * tau**2 / (tau**2 + se[j] ** 2)
        return np.exp(np.log(m).sum()) * stats.beta.pdf(pi0, 9, 1) * mean

    total = integrate.quad(integrand, 0, 1, args=(None,), epsabs=0)[0]
    exact = [integrate.quad(integrand, 0, 1, args=(j,), epsabs=0)[0] / total for j in range(30)]
    over = estimates_over_heterogeneity(fit, at=[0.0, tau])
    np.testing.assert_allclose(over["estimate"].sel(heterogeneity=tau), exact, rtol=1e-3, atol=1e-6)
    # Without spread there is no effect at all: that is not complete pooling's common effect.
    np.testing.assert_array_equal(over["estimate"].sel(heterogeneity=0), 0)
    assert over.attrs["at_0"] == "genes that do not differ"


def test_tissues_from_complete_pooling_to_their_own_means():
    frame = hz.load_data("dyestuff", "tissue_expression")
    fit = fit_of("tissue_expression", frame, {"mu": 1500.0, "tau": 40.0, "sigma": 50.0})
    priors, y = priors_of(fit), frame["expression"].to_numpy()
    m0, s2 = moments("mu", priors["mu"])
    scale = float(priors["sigma"].parameters["sigma"])

    def mu_given(sigma):
        precision = 1 / s2 + y.size / sigma**2
        return (m0 / s2 + y.sum() / sigma**2) / precision

    def integrand(sigma, power):
        covariance = sigma**2 * np.eye(y.size) + s2
        log_density = stats.multivariate_normal.logpdf(y, np.full(y.size, m0), covariance)
        return np.exp(log_density + 170) * stats.halfnorm.pdf(sigma, scale=scale) * mu_given(sigma) ** power

    exact = np.divide(*(integrate.quad(integrand, 20, 250, args=(power,), epsabs=0)[0] for power in (1, 0)))
    over = estimates_over_heterogeneity(fit, at=[0.0, 1e7])
    np.testing.assert_allclose(over["estimate"].sel(heterogeneity=0), exact, rtol=1e-7)
    np.testing.assert_allclose(over["estimate"].sel(heterogeneity=1e7), fit["constant_data"]["y_bar"], rtol=1e-6)
    assert over.attrs["at_0"] == "complete pooling"


def test_reaction_norms_shrink_along_one_path():
    """At t = 0 one line for all, at large t each one's least squares, and T = t^2 That between."""
    frame = hz.load_data("sleepstudy")
    centre = {
        "mu_intercept": 298.0,
        "mu_slope": 10.0,
        "tau_intercept": 30.0,
        "tau_slope": 6.0,
        "rho": 0.1,
        "sigma": 26.0,
    }
    fit = fit_of("reaction_norms", frame, centre)
    over = estimates_over_heterogeneity(fit, at=[0.0, 1e4])
    assert set(over["estimate"].dims) == {"heterogeneity", "genotype", "coefficient"}
    assert "log_density" not in over
    X = np.column_stack([np.ones(len(frame)), frame["environment"] - frame["environment"].mean()])
    y, priors = frame["response"].to_numpy(), priors_of(fit)
    (m0, v0), (m1, v1) = (moments(name, priors[name]) for name in ("mu_intercept", "mu_slope"))
    prior_mean, prior_precision = np.array([m0, m1]), np.diag([1 / v0, 1 / v1])
    scale = float(priors["sigma"].parameters["sigma"])

    def at_sigma(sigma):
        precision = prior_precision + X.T @ X / sigma**2
        mean = np.linalg.solve(precision, prior_precision @ prior_mean + X.T @ y / sigma**2)
        fitted, away = y - X @ mean, mean - prior_mean
        quadratic = fitted @ fitted / sigma**2 + away @ prior_precision @ away
        log_density = -len(y) * np.log(sigma) - 0.5 * np.linalg.slogdet(precision)[1] - 0.5 * quadratic
        return log_density + stats.halfnorm.logpdf(sigma, scale=scale), mean

    sigmas = np.linspace(38, 60, 400)
    log_densities, means = zip(*map(at_sigma, sigmas), strict=True)
    weights = np.exp(np.array(log_densities) - max(log_densities))
    exact = weights @ np.array(means) / weights.sum()
    at_zero = over["estimate"].sel(heterogeneity=0).transpose("genotype", "coefficient").values
    np.testing.assert_allclose(at_zero, np.tile(exact, (18, 1)), rtol=1e-5)
    own = hz.reaction_norms.MODEL.own(fit["constant_data"].to_dataset())
    far = over["estimate"].sel(heterogeneity=1e4).transpose(*own.dims)
    np.testing.assert_allclose(far, own, rtol=1e-5)


def test_averaged_over_the_posterior_it_is_the_fit(heart_fits):
    """E[theta] = int E[theta | cv] p(cv) dcv, one side by quadrature, the other by MCMC."""
    over = estimates_over_heterogeneity(heart_fits["partial"], at=np.linspace(0, 1.2, 121))
    weights = np.exp(over["log_density"] - over["log_density"].max())
    weights /= weights.sum()
    cv = heart_fits["partial"]["posterior"]["cv"]
    mcse = float(az.mcse(cv.to_dataset(name="cv"))["cv"])
    assert abs(float((weights * over["heterogeneity"]).sum()) - float(cv.mean())) < 4 * mcse
    summary = heart_fits["partial"]["group_summary"]
    averaged = (weights * over["estimate"]).sum("heterogeneity")
    assert float((abs(averaged - summary["mean"]) / summary["sd"]).max()) < 0.05


def test_groups_are_chosen_by_name(schools):
    every, some = (estimates_over_heterogeneity(schools, at=[4.0], groups=g) for g in (None, ["C", "A"]))
    assert some["clinic"].values.tolist() == ["C", "A"]
    np.testing.assert_allclose(some["estimate"], every["estimate"].sel(clinic=["C", "A"]))
    with pytest.raises(ValueError, match="There is no clinic 'Z'"):
        estimates_over_heterogeneity(schools, groups=["Z"])


def test_other_poolings_are_refused(three_hospitals_fits):
    with pytest.raises(ValueError, match="need partial pooling; got complete pooling"):
        estimates_over_heterogeneity(three_hospitals_fits["complete"])


def test_default_grid_runs_from_zero_to_beyond_nearly_all_draws():
    draws = xr.DataArray(np.random.default_rng(1).gamma(4, size=5000), dims="sample")
    grid = grid_over(draws)
    assert grid[0] == 0
    assert np.mean(draws > grid[-1]) == pytest.approx(0.005, abs=1e-3)
    assert np.all(np.diff(grid) > 0)


@pytest.mark.parametrize("support", [(-np.inf, np.inf), (0, np.inf), (0, 1), (-1, 1)])
def test_whole_line_and_back(support):
    to_line, back, log_jacobian = line(support)
    u = np.linspace(-3, 3, 7)
    np.testing.assert_allclose(to_line(back(u)), u, atol=1e-12)
    slope = (back(u + 1e-6) - back(u - 1e-6)) / 2e-6
    np.testing.assert_allclose(np.exp(log_jacobian(u)), slope, rtol=1e-8)


def test_log_density_of_a_prior(schools):
    values = np.array([0.5, 3.0, 40.0])
    scale = float(priors_of(schools)["tau"].parameters["sigma"])
    np.testing.assert_allclose(
        log_density(priors_of(schools)["tau"])(values), stats.halfnorm.logpdf(values, scale=scale)
    )
