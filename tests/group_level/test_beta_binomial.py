"""The beta-binomial closed forms against forty-digit arithmetic, SciPy and enumeration."""

import itertools
import math
from decimal import Decimal, localcontext

import numpy as np
import pytensor
import pytensor.tensor as pt
import pytest
import xarray as xr
from scipy import integrate, special, stats

from hbm_zoo.group_level import beta_binomial
from hbm_zoo.group_level.evaluate import evaluate

POPULATIONS = [(0.27, 0.08), (0.05, 0.3), (0.5, 1.0), (0.9, 2.0)]


def shapes(mu, phi):
    """The Beta's a and b."""
    return mu / phi**2, (1 - mu) / phi**2


def log_rising(k, w):
    """sum_{i < k} log(1 + i w) in decimals: fifty terms one by one, the rest by Euler and Maclaurin."""
    head = sum(((1 + i * w).ln() for i in range(min(k, 50))), Decimal(0))

    def integral_and_corrections(i):
        t, u = 1 + i * w, w / (1 + i * w)
        return t * t.ln() / w - i - t.ln() / 2 + u / 12 - u**3 / 360 + u**5 / 1260 - u**7 / 1680

    return head + integral_and_corrections(k) - integral_and_corrections(50) if k > 50 else head


def log_marginal(y, n, mu, phi):
    """Log of C(n, y) B(a + y, b + n - y) / B(a, b), in decimals."""
    v, one = phi**2, Decimal(1)
    urn = sum(k * share.ln() + log_rising(k, v / share) for k, share in ((y, mu), (n - y, 1 - mu))) - log_rising(n, v)
    return urn + log_rising(n, one) - log_rising(y, one) - log_rising(n - y, one)


def by_decimals(y, n, mu, phi):
    """Log marginal, and its derivatives in logit mu and log phi by differences in the fifteenth digit."""
    with localcontext(prec=45):
        mu, phi, h = Decimal(mu), Decimal(phi), Decimal("1e-15")
        in_mu = log_marginal(y, n, mu + h, phi) - log_marginal(y, n, mu - h, phi)
        in_log_phi = log_marginal(y, n, mu, phi * (1 + h)) - log_marginal(y, n, mu, phi * (1 - h))
        value = log_marginal(y, n, mu, phi)
        return float(value), float(in_mu / (2 * h) * mu * (1 - mu)), float(in_log_phi / (2 * h))


@pytest.fixture(scope="module")
def compiled():
    """Log marginal and its derivatives in logit mu and log phi."""
    y, n, mu, log_phi = (pt.dscalar() for _ in range(4))
    value = beta_binomial.log_marginal(y, n, mu, pt.exp(log_phi))
    in_mu, in_log_phi = pytensor.grad(value, [mu, log_phi])
    function = pytensor.function([y, n, mu, log_phi], [value, in_mu * mu * (1 - mu), in_log_phi])
    return lambda y, n, mu, phi: [float(x) for x in function(y, n, mu, math.log(phi))]


def test_the_decimals_are_right():
    for w in (Decimal("1e-16"), Decimal("0.37"), Decimal(10**4)):
        one_by_one = sum(((1 + i * w).ln() for i in range(2_000)), Decimal(0))
        assert float(log_rising(2_000, w) - one_by_one) == pytest.approx(0, abs=1e-16)


@pytest.mark.parametrize("n", [1, 16, 17, *(pytest.param(n, marks=pytest.mark.slow) for n in (45, 1_000)), 100_000])
@pytest.mark.parametrize("phi", [1e-8, 1e-6, 1e-4, 1e-3, 0.03, 0.2, 1.0, 5.0])
def test_log_marginal_and_its_derivatives_are_exact_at_any_spread(compiled, n, phi):
    for share in (0.0, 0.3, 1.0):
        for mu in (0.001, 0.27, 0.8):
            y = round(share * n)
            # exp(log(phi)) is what the function saw.
            expected = by_decimals(y, n, mu, math.exp(math.log(phi)))
            assert compiled(y, n, mu, phi) == pytest.approx(expected, rel=1e-11, abs=3e-14 * n), (share, mu)


@pytest.mark.parametrize("phi", [1e-8, 1e-6, 1e-4, 1e-3, 0.2, 2.0])
@pytest.mark.parametrize("mu", [0.001, 0.27, 0.95])
def test_ten_million_trials(compiled, mu, phi):
    n = 10**7
    y = round(mu * n) + 300
    value, in_logit_mu, in_log_phi = by_decimals(y, n, mu, math.exp(math.log(phi)))
    got = compiled(y, n, mu, phi)
    # The terms are of size 1e8, so 1e-7 is about the last digit a float has.
    assert got[0] == pytest.approx(value, abs=2e-7)
    assert got[1] == pytest.approx(in_logit_mu, rel=1e-11, abs=1e-8)
    assert got[2] == pytest.approx(in_log_phi, rel=1e-11, abs=3e-8)


@pytest.mark.parametrize(("mu", "phi"), POPULATIONS)
def test_log_marginal_is_the_beta_binomial(mu, phi):
    n = np.array([1, 1, 7, 16, 17, 45, 45, 400])
    y = np.array([0, 1, 7, 0, 9, 18, 45, 31])
    got = evaluate(beta_binomial.log_marginal, xr.DataArray(y, dims="j"), xr.DataArray(n, dims="j"), mu, phi)
    np.testing.assert_allclose(got, stats.betabinom.logpmf(y, n, *shapes(mu, phi)), rtol=1e-10, atol=1e-10)


def test_no_spread_is_exactly_binomial():
    n = np.array([0, 1, 1, 16, 17, 45, 1_000, 10**7])
    y = np.array([0, 0, 1, 16, 0, 12, 270, 2_700_300])
    got = evaluate(beta_binomial.log_marginal, xr.DataArray(y, dims="j"), xr.DataArray(n, dims="j"), 0.27, 0.0)
    np.testing.assert_allclose(got, stats.binom.logpmf(y, n, 0.27), rtol=1e-13, atol=1e-7)


def test_gradient_is_finite_at_no_spread():
    y, n, phi = pt.dvector(), pt.dvector(), pt.dscalar()
    total = beta_binomial.log_marginal(y, n, 0.3, phi).sum()
    gradient = pytensor.function([y, n, phi], pytensor.grad(total, phi), mode="AS_WRITTEN")
    assert gradient([0.0, 16.0, 3e6], [1.0, 40.0, 1e7], 0.0) == 0.0


@pytest.mark.parametrize(("mu", "phi"), POPULATIONS)
@pytest.mark.parametrize(("y", "n"), [(0, 9), (3, 9), (9, 9), (1, 1)])
def test_candidates_identity(y, n, mu, phi):
    """Log p(y | p) + log p(p) - log p(p | y) is the log marginal, whatever p is."""
    after = beta_binomial.conditional(y, n, mu, phi)
    assert shapes(*after) == pytest.approx((shapes(mu, phi)[0] + y, shapes(mu, phi)[1] + n - y))
    for p in (0.02, 0.4, 0.97):
        before, posterior = (stats.beta.logpdf(p, *shapes(*h)) for h in ((mu, phi), after))
        candidate = stats.binom.logpmf(y, n, p) + before - posterior
        assert float(evaluate(beta_binomial.log_marginal, y, n, mu, phi)) == pytest.approx(candidate, abs=1e-10)


def test_conditional_without_spread_is_the_point():
    assert beta_binomial.conditional(6, 20, 0.4, 0.0) == (0.4, 0.0)


def test_new_counts_given_old_ones_are_the_marginal_under_the_conditional():
    """P(both) = p(first) p(second | first), but for the ways to deal the successes to first and second."""
    (y1, n1), (y2, n2), mu, phi = (4, 11), (9, 20), 0.3, 0.25
    log_marginal = lambda *arguments: float(evaluate(beta_binomial.log_marginal, *arguments))  # noqa: E731
    first = log_marginal(y1, n1, mu, phi)
    second = log_marginal(y2, n2, *beta_binomial.conditional(y1, n1, mu, phi))
    ways = stats.hypergeom.logpmf(y1, n1 + n2, y1 + y2, n1)
    assert first + second == pytest.approx(log_marginal(y1 + y2, n1 + n2, mu, phi) + ways, abs=1e-12)


@pytest.mark.parametrize("n", [1, 12, 300])
@pytest.mark.parametrize(("mu", "phi"), POPULATIONS)
def test_reliability_is_the_share_of_variance_resolved(n, mu, phi):
    """1 - E[Var(p | y)] / Var(p), the expectation summed over every y."""
    y = np.arange(n + 1)
    weight = stats.betabinom.pmf(y, n, *shapes(mu, phi))
    a, b = shapes(*beta_binomial.conditional(y, n, mu, phi))
    share = 1 - weight @ stats.beta.var(a, b) / stats.beta.var(*shapes(mu, phi))
    assert beta_binomial.reliability(n, phi) == pytest.approx(share, abs=1e-11)
    assert beta_binomial.reliability(n, 0.0) == 0


@pytest.mark.parametrize(("mu", "phi"), [*POPULATIONS, (0.27, 0.009), (0.01, 0.02)])
def test_expected_logs_by_quadrature(mu, phi):
    """In log odds, where the density is smooth."""
    a, b = shapes(mu, phi)
    centre, sd = special.logit(mu), phi / math.sqrt(mu * (1 - mu))
    x = centre + sd * np.linspace(-400, 400, 800_001)
    weight = np.exp(a * special.log_expit(x) + b * special.log_expit(-x) - special.betaln(a, b))
    got = beta_binomial.expected_logs(xr.DataArray(mu), xr.DataArray(phi))
    for ours, log in zip(got, (special.log_expit(x), special.log_expit(-x)), strict=True):
        assert float(ours) == pytest.approx(integrate.trapezoid(weight * log, x), rel=1e-8)


@pytest.mark.parametrize("phi", [0.0, 1e-8, 1e-4, 3e-3])
def test_expected_logs_as_the_spread_vanishes(phi):
    """To fourth order in phi: E[log p] = log mu - (1 - mu) v / (2 mu) - (1 - mu^2) v^2 / (12 mu^2)."""
    mu, v = 0.27, phi**2
    got = beta_binomial.expected_logs(xr.DataArray(mu), xr.DataArray(phi))
    for ours, share in zip(got, (mu, 1 - mu), strict=True):
        series = math.log(share) - (1 - share) * v / (2 * share) - (1 - share**2) * v**2 / (12 * share**2)
        assert float(ours) == pytest.approx(series, abs=2e-15)


Z = np.array([-3.0, -0.4, -1e-3, 0.0, 1e-3, 0.6, 1.5, 4.0])


@pytest.mark.parametrize("mu", [0.01, 0.27, 0.5, 0.8])
@pytest.mark.parametrize("phi", [1e-3, 0.01, 0.0999, 0.1001, 0.3, 1.0])
def test_standardised_logit_is_the_beta_in_other_words(mu, phi):
    """Log p(z) = log p(p) + log |dp/dz|, at every branch of its switches."""
    scale, (a, b) = phi / math.sqrt(mu * (1 - mu)), shapes(mu, phi)
    x = special.logit(mu) + scale * Z
    expected = a * special.log_expit(x) + b * special.log_expit(-x) - special.betaln(a, b) + math.log(scale)
    got = evaluate(beta_binomial.log_standardised_logit, xr.DataArray(Z, dims="z"), mu, phi)
    # The textbook form loses the digits of a + b.
    np.testing.assert_allclose(got, expected, rtol=1e-11, atol=4e-15 / phi**2 + 1e-12)


def test_standardised_logit_is_standard_normal_without_spread():
    z = xr.DataArray(Z, dims="z")
    for phi, atol in ((0.0, 1e-14), (1e-8, 1e-6)):
        got = evaluate(beta_binomial.log_standardised_logit, z, 0.27, phi)
        np.testing.assert_allclose(got, stats.norm.logpdf(Z), atol=atol)


def test_gradient_of_the_standardised_logit():
    """Against central differences, at both branches of the series, and finite where phi = 0."""
    z, mu, spread = (pt.dscalar() for _ in range(3))
    value = beta_binomial.log_standardised_logit(z, mu, spread)
    density = pytensor.function([z, mu, spread], value)
    gradient = pytensor.function([z, mu, spread], pytensor.grad(value, [z, mu, spread]))
    for at, phi in itertools.product((-2.0, 0.03, 1.4), (0.0, 1e-5, 0.1, 1.0)):
        point, step = np.array([at, 0.3, phi]), 1e-5
        differences = [(density(*point + e) - density(*point - e)) / (2 * step) for e in step * np.eye(3)]
        np.testing.assert_allclose(gradient(*point), differences, atol=1e-8)


@pytest.mark.parametrize(("mu", "phi"), [(0.5, 0.1), (0.27, 0.5), (0.1, 1.0)])
def test_standardised_logit_integrates_to_one(mu, phi):
    z = xr.DataArray(np.linspace(-400, 400, 800_001), dims="z")
    density = np.exp(evaluate(beta_binomial.log_standardised_logit, z, mu, phi))
    assert integrate.trapezoid(density, z) == pytest.approx(1, abs=1e-8)


def test_standardised_logit_beyond_the_exponential():
    """Far out log p(z) falls by (1 - mu)/v for each unit of log odds, where exp(x) is no float any more."""
    mu, phi = 0.3, 5.0
    scale = phi / math.sqrt(mu * (1 - mu))
    far = xr.DataArray([60.0, 90.0, 1e4], dims="z")
    got = evaluate(beta_binomial.log_standardised_logit, far, mu, phi)
    slope = np.diff(got) / np.diff(scale * far)
    np.testing.assert_allclose(slope, -(1 - mu) / phi**2, rtol=1e-9)


def test_halves_of_trials_are_independent_binomials():
    """P(y) P(y1 | y) = P(y1) P(y2) for every y1 and y2, by enumeration."""
    n1, n2, p = 4, 3, 0.3
    y1, y2 = np.meshgrid(np.arange(n1 + 1), np.arange(n2 + 1))
    dealt = stats.binom.pmf(y1 + y2, n1 + n2, p) * stats.hypergeom.pmf(y1, n1 + n2, y1 + y2, n1)
    np.testing.assert_allclose(dealt, stats.binom.pmf(y1, n1, p) * stats.binom.pmf(y2, n2, p), rtol=1e-12)


def test_halves_are_dealt_so():
    """Chi-square of 20,000 deals of 4 successes in 9 trials; dealing successes by a coin would be caught."""
    rng = np.random.default_rng(5)
    y, n = np.full(20_000, 4), np.full(20_000, 9)
    (y1, n1), (y2, n2) = beta_binomial.halves(y, n, rng)
    assert ((y1 + y2 == y) & (n1 + n2 == n) & (np.minimum(n1, n2) == 4)).all()
    assert 0.48 < (n1 == 5).mean() < 0.52

    def p_value(of_five):
        seen = np.bincount(y1[n1 == 5], minlength=5)
        return stats.chisquare(seen, seen.sum() * of_five.pmf(np.arange(5))).pvalue

    assert p_value(stats.hypergeom(9, 4, 5)) > 1e-3
    assert p_value(stats.binom(4, 5 / 9)) < 1e-6


def test_random_counts_have_the_marginal_distribution():
    """Chi-square of 20,000 counts; a population 20 % wider would be caught."""
    n, mu, phi = 12, 0.3, 0.4
    y = beta_binomial.random(n, mu, phi, rng=np.random.default_rng(11), size=20_000)

    def p_value(spread):
        cells = stats.betabinom.pmf(np.arange(n + 1), n, *shapes(mu, spread))
        return stats.chisquare(np.bincount(y, minlength=n + 1), 20_000 * cells).pvalue

    assert p_value(phi) > 1e-3
    assert p_value(1.2 * phi) < 1e-6


@pytest.mark.parametrize(("mu", "phi"), POPULATIONS)
def test_random_standardised_logit_has_its_density(mu, phi):
    z = beta_binomial.random_standardised_logit(mu, phi, rng=np.random.default_rng(3), size=5_000)
    a, b = shapes(mu, phi)
    # 1 - p, for at phi = 2 a third of all p are nearer to 1 than a float can say.
    failure = special.expit(-special.logit(mu) - phi / math.sqrt(mu * (1 - mu)) * z)
    assert stats.kstest(failure, stats.beta(b, a).cdf).pvalue > 1e-3
