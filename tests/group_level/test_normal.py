"""The normal family against scipy, quadrature and exact fractions; no sampling."""

from fractions import Fraction

import numpy as np
import pytensor
import pytensor.tensor as pt
import pytest
import xarray as xr
from scipy import stats

from hbm_zoo.group_level import normal
from hbm_zoo.group_level.evaluate import evaluate

HYPER = [(0.3, 0.7, 1.1), (-2.0, 0.0, 0.5), (5.0, 1e-6, 2.0), (0.0, 40.0, 0.1)]


def rows(n, seed=1):
    return np.random.default_rng(seed).normal(0.4, 1.3, n)


def statistics(y):
    return y.mean(), y.size, ((y - y.mean()) ** 2).sum()


def joint(y, mu, tau, sigma):
    """Log density of the rows of a group by brute force: the n-dimensional normal."""
    covariance = sigma**2 * np.eye(y.size) + tau**2 * np.ones((y.size, y.size))
    return stats.multivariate_normal.logpdf(y, np.full(y.size, mu), covariance) if y.size else 0.0


@pytest.mark.parametrize(("mu", "tau", "se"), HYPER)
def test_log_marginal_is_the_normal_of_scipy(mu, tau, se):
    expected = stats.norm.logpdf(1.7, mu, np.hypot(tau, se))
    np.testing.assert_allclose(float(evaluate(normal.log_marginal, 1.7, se, mu, tau)), expected, rtol=1e-12)


@pytest.mark.parametrize("n", [1, 2, 7])
@pytest.mark.parametrize(("mu", "tau", "sigma"), HYPER)
def test_log_marginal_of_rows_is_the_joint_normal(n, mu, tau, sigma):
    y = rows(n)
    found = float(evaluate(normal.log_marginal_rows, *statistics(y), mu, tau, sigma))
    np.testing.assert_allclose(found, joint(y, mu, tau, sigma), rtol=1e-7)


@pytest.mark.parametrize("n", [1, 7])
def test_gradient_of_rows_is_that_of_the_joint_normal(n):
    y, at, step = rows(n), np.array([0.3, 0.7, 1.1]), 1e-5
    inputs = [pt.dscalar() for _ in range(3)]
    formula = normal.log_marginal_rows(*map(float, statistics(y)), *inputs)
    gradient = pytensor.function(inputs, pt.grad(formula, inputs), mode="AS_WRITTEN")(*at)
    differences = [(joint(y, *(at + e)) - joint(y, *(at - e))) / (2 * step) for e in step * np.eye(3)]
    np.testing.assert_allclose(gradient, differences, rtol=1e-6)


@pytest.mark.parametrize("n", [1, 2, 7])
@pytest.mark.parametrize(("mu", "tau", "sigma"), HYPER)
def test_a_row_left_out_is_a_ratio_of_joint_densities(n, mu, tau, sigma):
    y = rows(n)
    y_bar, _, _ = statistics(y)
    found = normal.leave_row_out(y, y_bar, n, mu, tau, sigma)
    expected = [joint(y, mu, tau, sigma) - joint(np.delete(y, i), mu, tau, sigma) for i in range(n)]
    np.testing.assert_allclose(found, expected, rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("n", [1, 2, 7])
@pytest.mark.parametrize(("mu", "tau", "sigma"), HYPER)
def test_tails_of_a_row_are_those_of_the_joint_normal_given_its_others(n, mu, tau, sigma):
    y = rows(n)
    lower, upper = normal.row_tails(y, y.mean(), n, mu, tau, sigma)
    S = sigma**2 * np.eye(n) + tau**2 * np.ones((n, n))
    for i, others in enumerate(~np.eye(n, dtype=bool)):
        gain = np.linalg.solve(S[others][:, others], S[others, i]) if n > 1 else np.zeros(0)
        given = stats.norm(mu + gain @ (y[others] - mu), np.sqrt(S[i, i] - gain @ S[others, i]))
        np.testing.assert_allclose([lower[i], upper[i]], [given.cdf(y[i]), given.sf(y[i])], rtol=1e-6, atol=1e-12)


@pytest.mark.parametrize("theta", [-3.0, 0.2, 9.0])
def test_candidates_formula_holds_at_any_theta(theta):
    y, mu, tau, sigma = rows(5), 0.3, 0.7, 1.1
    y_bar, n, SS = statistics(y)
    mean, sd = normal.conditional(y_bar, sigma / np.sqrt(n), mu, tau)
    prior, posterior = stats.norm.logpdf(theta, mu, tau), stats.norm.logpdf(theta, mean, sd)
    likelihood = normal.expected_log_density_rows(y_bar, n, SS, theta, 0, sigma)
    marginal = float(evaluate(normal.log_marginal_rows, y_bar, n, SS, mu, tau, sigma))
    np.testing.assert_allclose(prior + likelihood - posterior, marginal, rtol=1e-10)


def test_expected_log_densities_are_averages_over_theta():
    y, se, mean, sd, sigma = rows(5), 0.8, 0.1, 0.6, 1.1
    nodes, weights = np.polynomial.hermite_e.hermegauss(20)
    theta, weights = mean + sd * nodes, weights / weights.sum()
    one = weights @ stats.norm.logpdf(1.7, theta, se)
    many = weights @ stats.norm.logpdf(y[:, None], theta, sigma).sum(axis=0)
    np.testing.assert_allclose(normal.expected_log_density(1.7, se, mean, sd), one, rtol=1e-12)
    found = normal.expected_log_density_rows(*statistics(y), mean, sd, sigma)
    np.testing.assert_allclose(found, many, rtol=1e-12)


def test_no_spread_leaves_the_population_as_it_was():
    assert normal.conditional(9.0, 0.5, 1.0, 0.0) == (1.0, 0.0)
    assert normal.reliability(0.5, 0.0) == 0


def test_moments_are_exact_where_the_mean_is_a_hundred_million_times_the_spread():
    rng = np.random.default_rng(2)
    group = np.array([0] * 400 + [1] + [2] * 99)
    y = 1e8 + rng.normal(size=500)
    n, y_bar, SS = normal.moments_by_group(y, group)
    for g in range(3):
        exact = [Fraction(value) for value in y[group == g]]
        mean = sum(exact) / len(exact)
        assert n[g] == len(exact)
        np.testing.assert_allclose(y_bar[g], float(mean), rtol=1e-16)
        np.testing.assert_allclose(SS[g], float(sum((v - mean) ** 2 for v in exact)), rtol=1e-9, atol=1e-12)


def test_random_draws_have_the_marginal_mean_and_variance():
    """A shift of 0.02 sd in the mean, or of 3 % in the sd, would be seen: 4 standard errors."""
    size, mu, tau, sigma, n = 40_000, 2.0, 0.7, 1.1, 4
    for draws in (
        normal.random(sigma / 2, mu, tau, rng=np.random.default_rng(3), size=size),
        normal.random_mean(n, 1.0, mu, tau, sigma, rng=np.random.default_rng(3), size=size),
    ):
        sd = np.sqrt(tau**2 + sigma**2 / n)
        assert abs(draws.mean() - mu) < 4 * sd / np.sqrt(size)
        assert abs(draws.std() / sd - 1) < 4 / np.sqrt(2 * size)


def test_formulas_broadcast_by_name():
    h = xr.DataArray([0.1, 0.2], dims="sample")
    y = xr.DataArray([1.0, 2.0, 3.0], dims="clinic")
    assert evaluate(normal.log_marginal, y, 0.5, h, 1.0).sizes == {"clinic": 3, "sample": 2}
