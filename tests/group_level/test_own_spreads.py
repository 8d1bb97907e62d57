"""Rows of groups that have a spread each against Simpson's rule on raw rows, SciPy, and their limits."""

import numpy as np
import pytensor
import pytensor.tensor as pt
import pytest
import xarray as xr
from scipy import integrate, stats

from hbm_zoo.group_level import normal, own_spreads
from hbm_zoo.group_level.evaluate import evaluate

Z = np.linspace(-40, 40, 20_001)


def integral(y_bar, n, SS, mu, tau, sigma, s_sigma, of=lambda spread: 1.0, z=Z):
    """Log of the integral over z of the rows' density and a function of sigma_g, by Simpson's rule."""
    spread = sigma * np.exp(s_sigma * z)
    of_mean = stats.norm.logpdf(y_bar, mu, np.hypot(tau, spread / np.sqrt(n)))
    within = -0.5 * ((n - 1) * np.log(2 * np.pi * spread**2) + SS / spread**2 + np.log(n))
    log_f = of_mean + within + stats.norm.logpdf(z)
    return np.log(integrate.simpson(np.exp(log_f - log_f.max()) * of(spread), x=z)) + log_f.max()


CASES = [
    # y_bar, n, SS, mu, tau, sigma, s_sigma
    (0.3, 5, 2.0, 0.1, 0.5, 0.8, 0.4),
    (7.0, 3, 0.5, 0.0, 0.5, 0.5, 0.6),
    (-2.0, 1, 0.0, 0.5, 1.0, 1.0, 0.9),
    (0.0, 400, 900.0, 0.3, 0.2, 0.5, 0.3),
    (2.0, 40, 10.0, 0.0, 0.0, 0.5, 0.5),
    (0.1, 2, 1e-6, 0.0, 1.0, 1.0, 0.7),
    (25.0, 3, 0.2, 0.0, 1.4, 0.5, 0.15),
]


def found(*case):
    return own_spreads._evaluated(*case)[0].item()


@pytest.mark.parametrize("case", CASES)
def test_the_density_of_a_group_is_the_integral(case):
    assert found(*case) == pytest.approx(integral(*case), abs=1e-8)


def test_the_density_holds_wherever_a_group_lies():
    """At 300 random places, 1 to 5000 rows, up to 30 tau out: the worst is below 1e-7, most are below 1e-10."""
    rng, size = np.random.default_rng(1), 300
    n, sigma = rng.choice([1, 2, 3, 5, 10, 40, 400, 5000], size), np.exp(0.5 * rng.standard_normal(size))
    s, tau = abs(0.5 * rng.standard_normal(size)), abs(rng.standard_normal(size)) * np.exp(rng.standard_normal(size))
    own = sigma * np.exp(1.5 * s * rng.standard_normal(size))
    y_bar = np.hypot(tau, own / np.sqrt(n)) * rng.standard_normal(size) * rng.choice([1, 3, 8], size)
    SS = own**2 * np.where(n > 1, rng.chisquare(np.maximum(n - 1, 1)), 0)
    cases = [y_bar, n, SS, 0 * tau, tau, sigma, s]
    got, _, _ = own_spreads._evaluated(*(xr.DataArray(v, dims="case") for v in cases))
    errors = abs(got.values - [integral(*case) for case in zip(*cases, strict=True)])
    assert errors.max() < 1e-7
    assert np.median(errors) < 1e-10


def test_the_density_holds_where_the_integrand_bends_upwards():
    """Three rows that agree, 18 tau out: their sigma_g is 11 sds above the typical, and not where the contrasts are."""
    z = np.linspace(0, 12, 241)
    own = 0.5 * np.exp(0.15 * z)
    f = stats.norm.logpdf(25, 0, np.hypot(1.4, own / 3**0.5)) - 0.3 * z - 0.1 / own**2 - z**2 / 2
    assert np.diff(f, 2).max() > 0
    assert found(*CASES[6]) == pytest.approx(integral(*CASES[6]), abs=1e-8)


def test_the_gradient_is_that_of_the_integral():
    values = [pt.dscalar() for _ in range(7)]
    gradient = pytensor.function(
        values, pytensor.grad(own_spreads.log_marginal(*values), values[3:]), mode="AS_WRITTEN"
    )
    for case in CASES[:6]:
        differences = []
        for k in range(3, 7):
            steps = (case[:k] + (case[k] + sign * 1e-5,) + case[k + 1 :] for sign in (1, -1))
            ahead, behind = (integral(*moved) for moved in steps)
            differences.append((ahead - behind) / 2e-5)
        np.testing.assert_allclose(gradient(*case), differences, rtol=1e-5, atol=1e-5)


def known(**values):
    return xr.Dataset({name: ("sample", np.atleast_1d(np.asarray(v, float))) for name, v in values.items()})


def rows_of(y_bar, n, SS):
    return xr.Dataset({name: ("group", [v]) for name, v in {"y_bar": y_bar, "n": n, "SS": SS}.items()})


@pytest.mark.parametrize("case", CASES[:6])
def test_what_is_known_of_a_group_is_the_integral(case):
    y_bar, n, SS, mu, tau, sigma, s_sigma = case
    h, data = known(mu=mu, tau=tau, sigma=sigma, s_sigma=s_sigma), rows_of(y_bar, n, SS)
    kappa_given = lambda spread: n * tau**2 / (n * tau**2 + spread**2)  # noqa: E731
    mass = integral(*case)
    kappa, own = (
        np.exp(integral(*case, of) - mass) if tau or of is not kappa_given else 0.0 for of in (kappa_given, lambda x: x)
    )
    assert own_spreads.reliability(h, data).item() == pytest.approx(kappa, abs=1e-8)
    assert own_spreads.expectations(h, data)["sigma_g"].item() == pytest.approx(own, rel=1e-8)
    after = own_spreads.conditional(h, data)
    assert after.mean.item() == pytest.approx(mu + kappa * (y_bar - mu), abs=1e-8)
    if tau:
        square = lambda spread: kappa_given(spread) * spread**2 / n + (kappa_given(spread) * (y_bar - mu)) ** 2  # noqa: E731
        variance = np.exp(integral(*case, square) - mass) - (kappa * (y_bar - mu)) ** 2
        assert after.sd.item() == pytest.approx(np.sqrt(variance), rel=1e-7)


def test_the_log_likelihood_averaged_over_what_theta_may_be_is_the_integral():
    for case in (CASES[0], CASES[1], CASES[3]):
        h, data = known(mu=case[3], tau=case[4], sigma=case[5], s_sigma=case[6]), rows_of(*case[:3])
        after = own_spreads.conditional(h, data)
        mean, sd = after.mean.item(), after.sd.item()
        theta = xr.DataArray(mean + sd * np.sinh(np.linspace(-4, 4, 401)), dims="theta")
        weight = np.exp(after.log_density(theta)) * own_spreads.log_likelihood(theta, h, data)
        exact = integrate.simpson(weight.values.ravel(), x=theta.values)
        assert own_spreads.expected_log_likelihood(h, data).item() == pytest.approx(exact, rel=1e-6)


def test_without_spread_of_the_spreads_all_is_one_sigma_and_of_no_rows_nothing_is_known():
    for y_bar, n, SS, mu, tau, sigma, _ in CASES:
        exact = float(evaluate(normal.log_marginal_rows, y_bar, float(n), SS, mu, tau, sigma))
        assert found(y_bar, n, SS, mu, tau, sigma, 0.0) == pytest.approx(exact, rel=1e-11)
        assert found(y_bar, n, SS, mu, tau, sigma, 1e-6) == pytest.approx(exact, rel=1e-6)
    assert found(0.0, 0, 0.0, 1.0, 0.7, 0.5, 0.4) == pytest.approx(0, abs=1e-10)
    h, data = known(mu=0.1, tau=0.5, sigma=0.8, s_sigma=0.0), rows_of(0.3, 5, 2.0)
    after, (mean, sd) = own_spreads.conditional(h, data), normal.conditional(0.3, 0.8 / 5**0.5, 0.1, 0.5)
    np.testing.assert_allclose([after.mean.item(), after.sd.item()], [mean, sd], rtol=1e-12)


def test_no_spread_of_the_groups_is_a_point():
    h, data = known(mu=0.2, tau=0.0, sigma=0.8, s_sigma=0.4), rows_of(0.3, 5, 2.0)
    after = own_spreads.conditional(h, data)
    assert (after.mean.item(), after.sd.item()) == (pytest.approx(0.2, rel=1e-14), pytest.approx(0, abs=1e-12))
    one = own_spreads.log_likelihood(h.mu, h, data)
    np.testing.assert_allclose(own_spreads.log_left_out(h, data).values, one.values, rtol=1e-14)
    np.testing.assert_allclose(own_spreads.expected_log_likelihood(h, data).values, one.values, rtol=1e-12)


def test_places_of_own_means_are_uniform():
    """Of 4000 groups of 2, 3 and 9 rows; with sigma for each sigma_g they would not be."""
    rng, size = np.random.default_rng(5), 4000
    n = rng.choice([2, 3, 9], size)
    own, theta = 0.8 * np.exp(0.7 * rng.standard_normal(size)), rng.normal(0.1, 0.5, size)
    y_bar, SS = rng.normal(theta, own / np.sqrt(n)), own**2 * rng.chisquare(n - 1)
    data = xr.Dataset({"n": ("group", n), "y_bar": ("group", y_bar), "SS": ("group", SS)})
    for s_sigma, alarms in ((0.7, False), (0.0, True)):
        lower, upper = own_spreads.tails(known(mu=0.1, tau=0.5, sigma=0.8, s_sigma=s_sigma), data)
        np.testing.assert_allclose(lower + upper, 1, atol=1e-12)
        assert (stats.kstest(lower.values.ravel(), "uniform").pvalue < 1e-3) == alarms
