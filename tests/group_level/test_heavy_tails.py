"""Normal data of a Student population against adaptive quadrature, its limits, and published weights."""

import itertools

import numpy as np
import pytensor
import pytensor.tensor as pt
import pytest
import xarray as xr
from scipy import integrate, stats

from hbm_zoo.group_level import heavy_tails, normal
from hbm_zoo.group_level.averages import quantile
from hbm_zoo.group_level.evaluate import evaluate
from hbm_zoo.group_level.mixture_of_normals import MixtureOfNormals, StudentT


def integral(y, se, mu, tau, nu, of=lambda theta: 1.0):
    """Of N(y; theta, se^2) t_nu(theta; mu, tau) and a function of theta, piece by piece between the two tops."""
    ends = [mu - 50 * tau, mu - 5 * tau, mu, mu + 5 * tau, mu + 50 * tau, *(y + k * se for k in (-8, -3, 0, 3, 8))]
    ends = sorted({y - 14 * se, y + 14 * se, *(x for x in ends if abs(x - y) < 14 * se)})

    def f(theta):
        return stats.norm.pdf(y, theta, se) * stats.t.pdf(theta, nu, mu, tau) * of(theta)

    pieces = zip(ends, ends[1:], strict=False)
    return sum(integrate.quad(f, a, b, epsabs=1e-18, epsrel=1e-12, limit=400)[0] for a, b in pieces)


CASES = [
    # y, se, mu, tau, nu
    (0.3, 1.0, 0.1, 0.5, 3.0),
    (6.0, 1.0, 0.0, 0.5, 3.0),
    (-9.0, 0.5, 1.0, 0.2, 2.3),
    (2.0, 2.0, -0.5, 4.0, 8.0),
    (12.0, 1.0, 0.0, 3.0, 25.0),
    (5.0, 1.0, 0.0, 0.05, 4.0),
    (1.0, 0.1, 0.0, 1.5, 300.0),
    (4.0, 1.0, 0.0, 1.0, 3000.0),
]


@pytest.mark.parametrize("case", CASES)
def test_the_density_of_a_group_is_the_integral(case):
    found = float(evaluate(heavy_tails.log_marginal, *case))
    assert found == pytest.approx(np.log(integral(*case)), abs=1e-9)


def test_the_density_holds_wherever_a_group_lies():
    """At 30 random places, nu from 2.2 to 500, up to 20 sd out; the worst is below 1e-9, most are below 1e-11."""
    rng, errors = np.random.default_rng(2), []
    for _ in range(30):
        tau, se = np.exp(rng.uniform(-4, 3)), np.exp(rng.uniform(-1, 1))
        y = rng.normal() * rng.choice([1, 3, 8]) * np.hypot(tau, se)
        case = y, se, 0.0, tau, 2.2 + np.exp(rng.uniform(-3, 6))
        errors.append(float(evaluate(heavy_tails.log_marginal, *case)) - np.log(integral(*case)))
    assert np.abs(errors).max() < 1e-9
    assert np.median(np.abs(errors)) < 1e-11


@pytest.fixture(scope="module")
def gradient():
    """Of the density of a group in its effect, standard error and the hyperparameters."""
    values = [pt.dscalar() for _ in range(5)]
    return pytensor.function(values, pytensor.grad(heavy_tails.log_marginal(*values), values), mode="AS_WRITTEN")


@pytest.mark.parametrize("case", CASES[:6])
def test_the_gradient_is_that_of_the_integral(case, gradient):
    y, se, mu, tau, nu = case
    found, mass = gradient(*case), integral(*case)
    scores = {
        0: lambda theta: (theta - y) / se**2,
        1: lambda theta: ((theta - y) ** 2 / se**2 - 1) / se,
        2: lambda theta: (nu + 1) * (theta - mu) / (nu * tau**2 + (theta - mu) ** 2),
        3: lambda theta: ((nu + 1) * (theta - mu) ** 2 / (nu * tau**2 + (theta - mu) ** 2) - 1) / tau,
    }
    for i, score in scores.items():
        assert found[i] == pytest.approx(integral(*case, score) / mass, rel=1e-7, abs=1e-8)
    step = 1e-4 * nu
    by_nu = np.log(integral(y, se, mu, tau, nu + step) / integral(y, se, mu, tau, nu - step)) / (2 * step)
    assert found[4] == pytest.approx(by_nu, rel=1e-5, abs=1e-7)


def test_many_degrees_of_freedom_are_the_normal_and_no_spread_is_a_number():
    y, se, mu, tau = 1.7, 0.8, 0.2, 0.6
    limit = stats.norm.logpdf(y, mu, np.hypot(se, tau))
    differences = [float(evaluate(heavy_tails.log_marginal, y, se, mu, tau, nu)) - limit for nu in (1e3, 1e4, 1e5)]
    np.testing.assert_allclose(np.array(differences[1:]) / differences[:-1], 0.1, rtol=0.01)  # O(1 / nu)
    assert abs(differences[-1]) < 1e-5
    for nu, out in itertools.product((2.5, 5.0, 100.0), (1.7, 13.0, -40.0)):
        none = float(evaluate(heavy_tails.log_marginal, out, se, mu, 0.0, nu))
        assert none == pytest.approx(stats.norm.logpdf(out, mu, se), abs=1e-10)


def known(*values):
    return [xr.DataArray(np.atleast_1d(value), dims="sample") for value in values]


@pytest.mark.parametrize("case", [*CASES[:3], *(pytest.param(case, marks=pytest.mark.slow) for case in CASES[3:6])])
def test_what_is_known_of_a_group_is_the_integral(case):
    after, mass = heavy_tails.conditional(*known(*case)), integral(*case)
    mean = integral(*case, lambda theta: theta) / mass
    variance = integral(*case, lambda theta: (theta - mean) ** 2) / mass
    assert float(after.mean[0]) == pytest.approx(mean, abs=1e-9)
    assert float(after.sd[0]) == pytest.approx(np.sqrt(variance), rel=1e-8)
    y, se, mu, tau, nu = case
    x = mean + 0.6 * np.sqrt(variance)
    density = stats.norm.logpdf(y, x, se) + stats.t.logpdf(x, nu, mu, tau) - np.log(mass)
    assert float(after.log_density(x)[0]) == pytest.approx(density, abs=1e-8)
    below = integral(*case, lambda theta: float(theta <= x)) / mass
    assert float(after.cdf(x)[0]) == pytest.approx(below, abs=1e-6)
    assert float(after.ppf(float(after.cdf(x)[0]))[0]) == pytest.approx(x, abs=1e-8)
    assert float(quantile(after, float(after.cdf(x)[0]))) == pytest.approx(x, abs=1e-3 * np.sqrt(variance))


def test_the_weight_of_the_data_grows_with_their_distance():
    """.33, .64 and .87 at own = 2, 4 and 6, of a t_3 with tau = .5 and a standard error of 1; smooth through mu."""
    weights = [float(heavy_tails.weight_of_data(*known(y, 1.0, 0.0, 0.5, 3.0))[0]) for y in (2.0, 4.0, 6.0)]
    assert np.round(weights, 2).tolist() == [0.33, 0.64, 0.87]
    for y, weight in zip((2.0, 4.0, 6.0), weights, strict=True):
        case = y, 1.0, 0.0, 0.5, 3.0
        assert weight == pytest.approx(integral(*case, lambda theta: theta) / integral(*case) / y, abs=1e-9)  # noqa: B023
    assert 0 < float(heavy_tails.weight_of_data(*known(0.0, 1.0, 0.0, 0.5, 3.0))[0]) < 0.33


@pytest.mark.parametrize(
    ("tau", "nu"),
    [
        (0.5, 3.0),
        (0.1, 2.6),
        (1.0, 500.0),
        *(pytest.param(*at, marks=pytest.mark.slow) for at in [(1.3, 7.0), (4.0, 30.0)]),
    ],
)
def test_kappa_is_averaged_over_data(tau, nu):
    """By simulation of the data, Rao-Blackwellised: within 4 standard errors; of a normal tau^2 / (tau^2 + se^2)."""
    rng = np.random.default_rng(4)
    z, w = rng.standard_normal(20_000), rng.gamma(nu / 2, 2 / nu, 20_000)
    y = xr.DataArray(z * np.sqrt(1 + tau**2 / w), dims="sample")
    after = heavy_tails.conditional(y, 1.0, 0.0, tau, nu)
    left = after.sd**2 * (nu - 2) / (nu * tau**2)
    found = float(heavy_tails.reliability(xr.DataArray(1.0), xr.DataArray(tau), xr.DataArray(nu)))
    assert found == pytest.approx(1 - float(left.mean()), abs=4 * float(left.std()) / np.sqrt(20_000) + 1e-4)
    if nu == 500:
        assert found == pytest.approx(normal.reliability(1.0, tau), abs=5e-3)


def test_for_one_data_set_the_reduction_of_variance_may_be_negative_and_kappa_is_not():
    after = heavy_tails.conditional(*known(5.0, 1.0, 0.0, 0.3, 3.0))
    assert 1 - float(after.sd[0]) ** 2 / (3 * 0.3**2) < 0
    assert float(heavy_tails.reliability(*known(1.0, 0.3, 3.0))[0]) > 0
    assert float(heavy_tails.reliability(*known(1.0, 0.0, 3.0))[0]) == 0


def test_populations_are_scipy_s():
    t = StudentT(*known(0.5, 0.7, 3.2))
    theirs = stats.t(3.2, 0.5, 0.7)
    for x in (-3.0, 0.5, 2.0):
        assert float(t.cdf(x)[0]) == pytest.approx(theirs.cdf(x), abs=1e-12)
        assert float(t.log_density(x)[0]) == pytest.approx(theirs.logpdf(x), abs=1e-12)
    assert float(t.ppf(0.03)[0]) == pytest.approx(theirs.ppf(0.03))
    assert float(t.sd[0]) == pytest.approx(theirs.std())
    draws = t.over(xr.DataArray(np.ones(4000), dims="group")).sample(np.random.default_rng(1)).values.ravel()
    assert stats.kstest(draws, theirs.cdf).pvalue > 1e-3


def test_draws_follow_the_mixture():
    parts = [-2.0, 0.0, 3.0], [0.3, 1.0, 0.0], [0.2, 0.5, 0.3]
    mixture = MixtureOfNormals(*(xr.DataArray([v] * 4000, dims=("sample", "node")) for v in parts))
    draws = mixture.sample(np.random.default_rng(3))
    assert float((draws == 3.0).mean()) == pytest.approx(0.3, abs=4 * np.sqrt(0.21 / 4000))
    others = draws.values[draws.values != 3.0]
    cdf = lambda x: (0.2 * stats.norm.cdf(x, -2, 0.3) + 0.5 * stats.norm.cdf(x)) / 0.7  # noqa: E731
    assert stats.kstest(others, cdf).pvalue > 1e-3
