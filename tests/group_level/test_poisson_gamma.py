"""The Poisson-Gamma closed forms against sixty-digit arithmetic, SciPy and brute force."""

import math
from decimal import Decimal, getcontext

import numpy as np
import pytensor
import pytensor.tensor as pt
import pytest
import xarray as xr
from scipy import integrate, special, stats

from hbm_zoo.group_level import poisson_gamma
from hbm_zoo.group_level.evaluate import evaluate
from hbm_zoo.group_level.special import log1p_ratio_minus_one

COUNTS = (0, 1, 15, 16, 17, 1_000)
SPREADS = (1e-8, 1e-6, 1e-4, 1e-3, 0.01, 0.05, 0.2, 0.8, 2.0, 5.0)


def by_decimals(O, E, mu, cv):
    """Log marginal and its derivative in log cv, term by term to sixty digits.

    Beyond 2,000 counts the two long sums of positive terms are added exactly in floats.
    """
    getcontext().prec = 60
    v, m = Decimal(cv) ** 2, Decimal(E) * Decimal(mu)
    if O <= 2_000:
        rising = sum(((1 + k * v).ln() for k in range(O)), Decimal(0))
        slope = sum((k * v / (1 + k * v) for k in range(O)), Decimal(0))
        factorial = Decimal(math.factorial(O)).ln()
    else:
        kv = np.arange(O) * cv**2
        rising, slope = Decimal(math.fsum(np.log1p(kv))), Decimal(math.fsum(kv / (1 + kv)))
        factorial = Decimal(math.fsum(np.log(np.arange(1, O + 1))))
    log_one_plus = (1 + v * m).ln()
    value = rising + O * m.ln() - (O + 1 / v) * log_one_plus - factorial
    derivative = 2 * (slope + log_one_plus / v - (O + 1 / v) * v * m / (1 + v * m))
    return float(value), float(derivative)


@pytest.fixture(scope="module")
def compiled():
    """Log marginal and its derivatives in log cv and log mu, as the sampler would have them."""
    O, E, log_mu, log_cv = (pt.dscalar() for _ in range(4))
    value = poisson_gamma.log_marginal(O, E, pt.exp(log_mu), pt.exp(log_cv))
    function = pytensor.function([O, E, log_mu, log_cv], [value, *pytensor.grad(value, [log_cv, log_mu])])
    return lambda O, E, mu, cv: [float(x) for x in function(O, E, math.log(mu), math.log(cv))]


@pytest.mark.parametrize("O", COUNTS)
def test_log_marginal_and_its_derivative_are_exact_at_any_spread(compiled, O):
    for cv in SPREADS:
        for ratio in (0.5, 1.0, 2.0):
            E = ratio * max(O, 1) + 0.37
            # exp(log(cv)) is what the function saw: the derivative at tiny cv notices the last bit.
            value, derivative = by_decimals(O, E, math.exp(math.log(1.03)), math.exp(math.log(cv)))
            got, in_log_cv, _ = compiled(O, E, 1.03, cv)
            assert got == pytest.approx(value, rel=1e-12, abs=1e-11), (cv, ratio)
            assert in_log_cv == pytest.approx(derivative, rel=1e-12, abs=1e-8), (cv, ratio)


@pytest.mark.parametrize("cv", [1e-8, *(pytest.param(cv, marks=pytest.mark.slow) for cv in (1e-4, 0.2, 2.0))])
def test_ten_million_counts(compiled, cv):
    O, E = 10**7, 1e7 + 0.37
    value, derivative = by_decimals(O, E, math.exp(math.log(1.0)), math.exp(math.log(cv)))
    got, in_log_cv, _ = compiled(O, E, 1.0, cv)
    # The terms are of size 1e8, so 1e-7 is the last digit a float has.
    assert got == pytest.approx(value, abs=1e-7)
    assert in_log_cv == pytest.approx(derivative, abs=1e-8)


@pytest.mark.parametrize("O", COUNTS)
def test_derivative_in_log_mu_is_the_posterior_excess(compiled, O):
    """By Fisher's identity d/dlog mu = a (E[lam | O] / mu - 1), here in a form without a."""
    for cv in SPREADS:
        E, mu = O + 2.5, 0.8
        assert compiled(O, E, mu, cv)[2] == pytest.approx((O - E * mu) / (1 + cv**2 * E * mu), rel=1e-9, abs=1e-9)


@pytest.mark.parametrize("cv", [0.1, 0.5, 1.0, 3.0])
def test_log_marginal_is_the_negative_binomial(cv):
    O, E, mu = np.array([0, 1, 7, 16, 17, 60, 400]), np.array([0.2, 1, 9, 12, 21, 55, 480]), 1.2
    a = 1 / cv**2
    expected = stats.nbinom.logpmf(O, a, a / (a + E * mu))
    got = evaluate(poisson_gamma.log_marginal, xr.DataArray(O, dims="j"), xr.DataArray(E, dims="j"), mu, cv)
    np.testing.assert_allclose(got, expected, rtol=1e-10)


@pytest.mark.parametrize("mu", [1e6, 1e10, 1e20, 1e30])
@pytest.mark.parametrize("cv", [1e-3, 0.017, 0.5, 3.0])
def test_rates_that_no_data_have_are_as_unlikely_as_they_are(mu, cv):
    """Heavy priors of mu reach there: log p = sum log(1 + k v) + O log m - (O + 1/v) log(1 + v m) - log O!."""
    E, m, v = 40.0, Decimal(40.0) * Decimal(mu), Decimal(cv) ** 2
    for O in (0, 3, 57):
        rising = sum((1 + k * v).ln() for k in range(O))
        exact = float(rising + O * m.ln() - (O + 1 / v) * (1 + v * m).ln() - Decimal(math.factorial(O)).ln())
        assert float(evaluate(poisson_gamma.log_marginal, float(O), E, mu, cv)) == pytest.approx(exact, rel=1e-10)
        of_all = poisson_gamma.sufficient(np.array([O]), np.array([E]))
        # Sums over sizes are compressed: what is kept of 57 events is exact to 1e-8 where the data are.
        of_all = float(poisson_gamma.log_joint(*of_all.values(), mu, cv).eval())
        assert of_all == pytest.approx(exact, rel=1e-10, abs=1e-4)


def test_log_marginal_is_the_integral_over_the_rate():
    for O, E, mu, cv in [(3, 2.0, 1.1, 0.7), (0, 5.0, 0.9, 1.5), (40, 31.0, 1.3, 0.2)]:
        a = 1 / cv**2
        prior = stats.gamma(a, scale=mu / a)
        total, _ = integrate.quad(
            lambda lam, O=O, E=E, prior=prior: stats.poisson.pmf(O, E * lam) * prior.pdf(lam), 0, 20, limit=500
        )
        assert float(evaluate(poisson_gamma.log_marginal, O, E, mu, cv)) == pytest.approx(math.log(total), abs=1e-8)


def test_no_spread_is_exactly_poisson():
    O, E = np.array([0, 1, 15, 16, 17, 1_000, 10**7]), np.array([0.3, 2, 12, 16, 20, 950, 1e7])
    got = evaluate(poisson_gamma.log_marginal, xr.DataArray(O, dims="j"), xr.DataArray(E, dims="j"), 1.02, 0.0)
    np.testing.assert_allclose(got, stats.poisson.logpmf(O, 1.02 * E), rtol=1e-13, atol=1e-7)


def test_gradient_is_finite_at_no_spread():
    cv = pt.dscalar()
    total = sum(poisson_gamma.log_marginal(O, E, 1.0, cv) for O, E in [(0.0, 1.0), (16.0, 2.0), (1e7, 1e7)])
    assert pytensor.function([cv], pytensor.grad(total, cv))(0.0) == 0.0


def test_switches_are_seamless():
    x = np.array([-0.3, -1.001e-3, -0.999e-3, 0.0, 1e-12, 0.999e-3, 1.001e-3, 0.5, 80.0])
    exact = [float((1 + Decimal(t)).ln() / Decimal(t) - 1) if t else 0.0 for t in x.tolist()]
    ratio = evaluate(lambda t: log1p_ratio_minus_one(t, pt.log1p(t)), xr.DataArray(x, dims="x"))
    np.testing.assert_allclose(ratio, exact, rtol=1e-11, atol=1e-15)


def test_standardised_gamma_is_the_gamma_in_other_words():
    """Log p(z) = log p(lam) + log |dlam/dz| with lam = mu exp(cv z), at every branch of its switches."""
    z = xr.DataArray([-3.0, -0.4, -1e-3, 0.0, 1e-3, 0.6, 1.5], dims="z")
    for cv in (0.01, 0.05, 0.199, 0.201, 0.5, 1.0, 2.0):
        a = 1 / cv**2
        lam = np.exp(cv * z)
        expected = stats.gamma.logpdf(lam, a, scale=1 / a) + np.log(cv * lam)
        np.testing.assert_allclose(
            evaluate(poisson_gamma.log_standardised_gamma, z, cv), expected, rtol=1e-9, atol=2e-10 * a
        )


@pytest.mark.parametrize("cv", [0.01, 0.1, 0.1999, 0.2001, 0.7, 2.0])
def test_standardised_gamma_integrates_to_one(cv):
    z = xr.DataArray(np.linspace(-80 / max(cv, 1) ** 0.5, 12, 400_001), dims="z")
    density = np.exp(evaluate(poisson_gamma.log_standardised_gamma, z, cv))
    lost = special.gammainc(cv**-2, cv**-2 * math.exp(cv * float(z[0])))
    assert integrate.trapezoid(density, z) + lost == pytest.approx(1, abs=1e-8)


def test_standardised_gamma_is_standard_normal_without_spread():
    z = xr.DataArray([-2.0, 0.0, 1.3], dims="z")
    np.testing.assert_allclose(evaluate(poisson_gamma.log_standardised_gamma, z, 0.0), stats.norm.logpdf(z), rtol=1e-14)


def test_conditional_is_gamma_with_counts_added():
    O, E, mu, cv = 6, 4.0, 1.1, 0.4
    a, b = cv**-2, cv**-2 / mu
    mean, spread = poisson_gamma.conditional(O, E, mu, cv)
    assert mean == pytest.approx((O + a) / (E + b))
    assert spread == pytest.approx((O + a) ** -0.5)
    assert poisson_gamma.conditional(O, E, mu, 0.0) == (mu, 0.0)


def test_reliability_is_the_share_of_variance_resolved():
    """1 - E[Var(lam | O)] / Var(lam), the expectation summed over every O."""
    for E, mu, cv in [(4.0, 1.2, 0.3), (0.2, 0.8, 1.0), (60.0, 1.0, 0.1)]:
        a = cv**-2
        O = np.arange(2_000)
        weight = stats.nbinom.pmf(O, a, a / (a + E * mu))
        variance = (O + a) / (E + a / mu) ** 2
        share = 1 - weight @ variance / (mu * cv) ** 2
        assert poisson_gamma.reliability(E, mu, cv) == pytest.approx(share, abs=1e-9)
    assert poisson_gamma.reliability(4.0, 1.2, 0.0) == 0


@pytest.mark.parametrize("cv", [0.0, 1e-6, 0.0099, 0.0101, 0.3, 2.0])
def test_expected_log_rate(cv):
    a = 1e300 if cv == 0 else cv**-2
    got = float(poisson_gamma.expected_log_rate(xr.DataArray(1.3), xr.DataArray(cv)))
    assert got == pytest.approx(math.log(1.3) + special.digamma(a) - math.log(a), abs=1e-11)


def test_random_counts_have_the_marginal_distribution():
    """Chi-square of 20,000 counts; a population with a cv 20 % wider would be caught."""
    rng, (E, mu, cv) = np.random.default_rng(11), (4.0, 1.1, 0.6)
    O = poisson_gamma.random(E, mu, cv, rng=rng, size=20_000)

    def p_value(spread):
        a = spread**-2
        cells = stats.nbinom.pmf(np.arange(14), a, a / (a + E * mu))
        seen = np.bincount(np.minimum(O, 14), minlength=15)
        return stats.chisquare(seen, 20_000 * np.append(cells, 1 - cells.sum())).pvalue

    assert p_value(cv) > 1e-3
    assert p_value(1.2 * cv) < 1e-6


def test_random_standardised_gamma_has_its_density():
    rng = np.random.default_rng(3)
    for cv in (0.1, 1.0):
        lam = np.exp(cv * poisson_gamma.random_standardised_gamma(cv, rng=rng, size=5_000))
        assert stats.kstest(lam, stats.gamma(cv**-2, scale=cv**2).cdf).pvalue > 1e-3
