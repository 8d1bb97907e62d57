"""A parameter integrated numerically, against quadrature piece by piece: binomial counts with normal log odds."""

import numpy as np
import pytensor
import pytensor.tensor as pt
import pytest
import xarray as xr
from scipy import integrate, optimize, special, stats

from hbm_zoo.group_level import one_dimension

CASES = [(y, n) for n in (1, 20, 1000, 50_000) for y in sorted({0, 1, n // 3, n})]
PLACES = [(mu, tau) for mu in (-6.0, -1.0, 2.5) for tau in (1e-8, 0.05, 0.6, 1.0, 3.0)]


def log_likelihood(alpha, y, n):
    return y * alpha - n * pt.softplus(alpha)


def start(y, n):
    return pt.log((y + 0.5) / (n - y + 0.5))


@pytest.fixture(scope="module")
def compiled():
    mu, tau, y, n = (pt.dvector() for _ in range(4))
    value = one_dimension.log_marginal(log_likelihood, start)(mu, tau, y, n)
    gradient = pytensor.grad(value.sum(), [mu, tau])
    return pytensor.function([mu, tau, y, n], [value, *gradient], mode="AS_WRITTEN")


def pieces(mu, tau, y, n):
    """The log integrand's top, and ends and cuts around it."""

    def minus(z):
        return -(y * (mu + tau * z) - n * np.logaddexp(0, mu + tau * z) - z**2 / 2)

    def slope(z):
        return tau * (y - n * special.expit(mu + tau * z)) - z

    first = slope(0.0)
    top = optimize.brentq(slope, min(0, first) - 1e-9, max(0, first) + 1e-9, xtol=1e-14) if abs(first) > 1e-12 else 0.0
    width = (1 + tau**2 * n * special.expit(mu + tau * top) * (1 - special.expit(mu + tau * top))) ** -0.5
    cuts = top + np.concatenate([-np.array([9, 3, 1]), [0], np.array([1, 3, 9])])
    cuts = np.unique(np.concatenate([cuts, top + width * np.array([-40, -12, -4, -1, 1, 4, 12, 40])]))
    return minus, top, cuts[(cuts >= top - 9) & (cuts <= top + 9)]


def by_quadrature(mu, tau, y, n, of=lambda z: 1.0):
    minus, top, cuts = pieces(mu, tau, y, n)

    def total(g):
        parts = zip(cuts[:-1], cuts[1:], strict=True)
        f = [integrate.quad(lambda z: g(z) * np.exp(minus(top) - minus(z)), a, b, epsrel=1e-12)[0] for a, b in parts]
        return sum(f)

    whole = total(lambda z: 1.0)
    return np.log(whole) - minus(top) - 0.5 * np.log(2 * np.pi), total(of) / whole


@pytest.mark.parametrize(("mu", "tau"), PLACES)
@pytest.mark.filterwarnings("ignore::scipy.integrate.IntegrationWarning")
def test_value_against_quadrature(compiled, mu, tau):
    """1e-6 nats a group up to a spread of 1, 1e-4 to 3, whatever was seen of how many trials."""
    y, n = np.array(CASES, float).T
    ours, _, _ = compiled(np.full(y.size, mu), np.full(y.size, tau), y, n)
    theirs = np.array([by_quadrature(mu, tau, *case)[0] for case in CASES])
    np.testing.assert_allclose(ours, theirs, rtol=1e-11, atol=1e-6 if tau <= 1 else 1e-4)


@pytest.mark.parametrize("tau", [0.3, 3.0])
@pytest.mark.filterwarnings("ignore::scipy.integrate.IntegrationWarning")
def test_gradient_is_the_average_slope(compiled, tau):
    """D log m / d mu = E[l'], d log m / d tau = E[z l'], over the posterior."""
    mu, (y, n) = -1.0, (3.0, 20.0)
    _, of_mu, of_tau = (float(part[0]) for part in compiled([mu], [tau], [y], [n]))

    def slope(z):
        return y - n * special.expit(mu + tau * z)

    assert of_mu == pytest.approx(by_quadrature(mu, tau, y, n, slope)[1], abs=1e-5)
    assert of_tau == pytest.approx(by_quadrature(mu, tau, y, n, lambda z: z * slope(z))[1], abs=1e-5)


def test_no_spread_is_a_number_and_not_a_limit(compiled):
    value, of_mu, of_tau = (float(part[0]) for part in compiled([-1.0], [0.0], [3.0], [10.0]))
    assert value == pytest.approx(3 * -1.0 - 10 * np.log1p(np.exp(-1)), abs=1e-9)
    assert of_mu == pytest.approx(3 - 10 * special.expit(-1.0), abs=1e-8)
    assert of_tau == pytest.approx(0, abs=1e-8)


def test_the_sum_over_eighteen_groups_errs_the_same_wherever_the_hyperparameters_are(compiled):
    """The error of the sum varies by less than .01 nats over spreads from 0 to 3."""
    rng = np.random.default_rng(3)
    y = rng.binomial(45, 0.27, 18).astype(float)
    n, errors = np.full(18, 45.0), []
    fine = np.linspace(-12, 12, 4001)
    for mu, tau in zip(rng.normal(-1, 0.5, 40), rng.uniform(0, 3, 40), strict=True):
        ours = compiled(np.full(18, mu), np.full(18, tau), y, n)[0].sum()
        alpha = mu + tau * fine[:, None]
        log_f = y * alpha - n * np.logaddexp(0, alpha) + stats.norm.logpdf(fine)[:, None]
        errors.append(ours - (special.logsumexp(log_f, axis=0) + np.log(fine[1] - fine[0])).sum())
    assert np.abs(errors).max() < 1e-4


@pytest.mark.parametrize("tau", [0.4, 3.0])
def test_the_posterior_is_a_population(tau):
    mu, y, n = -1.0, xr.DataArray([0.0, 3.0, 20.0], dims="unit"), 20.0
    table, log_integral = one_dimension.tabulated(log_likelihood, start, xr.DataArray([mu], dims="sample"), tau, y, n)
    alpha = np.linspace(mu - 12 * tau, mu + 12 * tau, 200_001)
    for j, successes in enumerate(y.values):
        log_f = successes * alpha - n * np.logaddexp(0, alpha) + stats.norm(mu, tau).logpdf(alpha)
        exact = special.logsumexp(log_f) + np.log(alpha[1] - alpha[0])
        assert float(log_integral.isel(sample=0, unit=j)) == pytest.approx(exact, abs=1e-6)
        weight = np.exp(log_f - log_f.max())
        weight /= weight.sum()
        mean = weight @ alpha
        one = table.sd.isel(sample=0, unit=j), table.mean.isel(sample=0, unit=j)
        assert float(one[1]) == pytest.approx(mean, abs=1e-5)
        assert float(one[0]) == pytest.approx(np.sqrt(weight @ (alpha - mean) ** 2), abs=1e-5)
        for p in (0.055, 0.5, 0.945):
            x = float(np.interp(p, weight.cumsum(), alpha))
            assert float(table.ppf(p).isel(sample=0, unit=j)) == pytest.approx(x, abs=2e-3 * tau)
            assert float(table.cdf(x).isel(sample=0, unit=j)) == pytest.approx(p, abs=1e-3)
    p = xr.DataArray(np.r_[1e-6, 1e-3, np.linspace(0.01, 0.99, 99), 1 - 1e-3], dims="p")
    np.testing.assert_allclose(*xr.broadcast(table.cdf(table.ppf(p)), p), atol=1e-5)


@pytest.mark.parametrize("tau", [0.05, 0.6, 1.0])
def test_the_distribution_function_is_the_sum_of_sine_integrals(tau):
    """What is added around the nearest node is what all nodes add up to, between nodes and past the last."""
    y, n = (xr.DataArray(values, dims="unit") for values in np.array(CASES, float).T)
    table, _ = one_dimension.tabulated(log_likelihood, start, 0.3, tau, y, n)
    first, step = table.at.isel(node=0), (table.at.isel(node=1) - table.at.isel(node=0))
    x = first + step * xr.DataArray(np.linspace(-0.9, one_dimension.NODES - 0.1, 200), dims="x")
    steps = (x - table.at) / step
    below = (table.weight * (0.5 + special.sici(np.pi * steps)[0] / np.pi)).sum("node")
    density = (table.weight * xr.apply_ufunc(np.sinc, steps)).sum("node")
    np.testing.assert_allclose(*xr.broadcast(table.cdf(x), below.clip(0, 1)), atol=1e-7)
    found = np.exp(table.log_density(x)) * step  # a density a step
    np.testing.assert_allclose(*xr.broadcast(found, density.clip(0)), atol=1e-6)


def test_draws_follow_the_table():
    many = xr.DataArray(np.full(4000, -1.0), dims="sample")
    table, _ = one_dimension.tabulated(log_likelihood, start, many, 0.7, xr.DataArray(3.0), 10.0)
    draws, one = table.sample(np.random.default_rng(5)), table.cells()[0].of([0])
    share = [float(one.cdf(x).isel(sample=0, cell=0)) for x in np.sort(draws.values)[::40]]
    assert stats.kstest(share, "uniform").pvalue > 1e-3


def test_a_point_has_no_width():
    point, _ = one_dimension.tabulated(log_likelihood, start, xr.DataArray([0.5], dims="sample"), 0.0, 3.0, 10.0)
    assert point.sd.item() == pytest.approx(0, abs=1e-12)
    assert point.mean.item() == pytest.approx(0.5)
    assert [point.cdf(x).item() for x in (0.4, 0.6)] == [0, 1]


def test_a_population_that_is_nowhere_has_no_distribution():
    mu = xr.DataArray([0.5, np.nan], dims="sample")
    table, _ = one_dimension.tabulated(log_likelihood, start, mu, 0.3, 3.0, 10.0)
    for found in (table.cdf(0.4), table.ppf(0.4), table.log_density(0.4), table.sample(np.random.default_rng(1))):
        assert np.isfinite(found).values.tolist() == [True, False]


def zoomed(mu, tau, *counts):
    """The integral on a grid that zooms in on where it has lost less than 60 nats."""

    def log_f(z):
        alpha = mu + tau * z
        each = (y * special.log_expit(alpha) + (n - y) * special.log_expit(-alpha) for y, n in counts)
        return sum(each) - z**2 / 2

    end = max(abs(np.log((y + 0.5) / (n - y + 0.5)) - mu) for y, n in counts) / tau + 50
    low, high = -end, end
    for _ in range(40):
        z = np.linspace(low, high, 2001)
        near, step = z[log_f(z) > log_f(z).max() - 60], z[1] - z[0]
        low, high = near.min() - step, near.max() + step
    z = np.linspace(low, high, 20_001)
    return special.logsumexp(log_f(z)) + np.log(z[1] - z[0]) - 0.5 * np.log(2 * np.pi)


@pytest.mark.slow
def test_large_counts_wherever_the_population_lies():
    """To 10^8 trials, the population from 1e-5 to 5 from the raw log odds, two data of one theta too.

    The planted fault is a search that starts from the end of its bracket in ten steps: some errors were 17 nats.
    """
    rng, cases = np.random.default_rng(0), []
    for n in (1, 50, 20_000, 10**6, 10**8):
        for tau in (1e-3, 0.1, 1.0, 3.0):
            for i in range(8):
                y = (0, n, *rng.binomial(n, special.expit(rng.normal(0, 2, 6))))[i]
                raw = np.log((y + 0.5) / (n - y + 0.5))
                mu = raw + rng.choice([-1, 1]) * 10 ** rng.uniform(-5, 0.7)
                cases.append((mu, tau, y, n, *((rng.integers(0, n + 1), n) if i % 2 else (0, 3))))
    cases.append((-0.009919, 3.0, 9950, 20_000, 1, 1))
    mu, tau, *data = np.array(cases, float).T
    arguments = [pt.dvector() for _ in range(6)]
    for parts in (1, 2):
        formula = one_dimension.log_marginal(log_likelihood, start, parts)
        some = arguments[: 2 + 2 * parts]
        ours = pytensor.function(some, formula(*some))(mu, tau, *data[: 2 * parts])
        exact = [zoomed(m, t, *[(d[k], d[k + 1]) for k in range(0, 2 * parts, 2)]) for m, t, *d in cases]
        np.testing.assert_allclose(ours, exact, rtol=1e-9, atol=1e-6)
