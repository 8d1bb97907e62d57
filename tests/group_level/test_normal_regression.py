"""A line in each group against the n-dimensional normal, least squares and brute-force conditioning."""

import numpy as np
import pytensor
import pytensor.tensor as pt
import pytest
from scipy import stats

from hbm_zoo.group_level import normal_regression as nr

MU = np.array([50.0, 2.0])
TAU, RHO, SIGMA = (6.0, 0.8), -0.6, 4.0
#: The x of one group each; 0.1 is no binary fraction, so its mean over seven rows is not quite 0.1.
DESIGNS = {
    "spread": [-3.0, -1.0, 0.5, 2.0, 7.0],
    "repeated": [1.0, 1.0, 4.0, 4.0, 4.0],
    "two": [-1.0, 2.0],
    "one": [3.0],
    "one at the center": [0.0],
    "equal": [2.0, 2.0, 2.0],
    "equal, rounded": [0.1] * 7,
    "far": [1000.0, 1001.0, 1002.5],
}


@pytest.fixture(params=DESIGNS, ids=str)
def group(request):
    x = np.array(DESIGNS[request.param])
    y = 50 + 2 * x + 5 * np.random.default_rng(len(x)).standard_normal(len(x))
    return x, y, {name: value[0] for name, value in nr.qr(x, y, np.zeros(len(x), int), 1).items()}


def covariance(tau=TAU, rho=RHO):
    return np.array([[tau[0] ** 2, rho * tau[0] * tau[1]], [rho * tau[0] * tau[1], tau[1] ** 2]])


def marginal(x, y, mu=MU, T=None, sigma=SIGMA):
    X = np.column_stack([np.ones_like(x), x])
    T = covariance() if T is None else T
    return stats.multivariate_normal(X @ mu, X @ T @ X.T + sigma**2 * np.eye(len(x)), allow_singular=False).logpdf(y)


def arguments(statistics, tau=TAU, rho=RHO, sigma=SIGMA, mu=MU):
    return [*statistics.values(), *mu, *tau, rho, sigma]


@pytest.fixture(scope="module")
def log_marginal():
    inputs = [pt.dscalar() for _ in range(13)]
    value = nr.log_marginal(*inputs)
    gradient = pytensor.grad(value, inputs[7:])
    return pytensor.function(inputs, [value, *gradient], mode="AS_WRITTEN")


def test_qr_rebuilds_the_rows(group):
    x, y, s = group
    assert s["n"] == len(x)
    X = np.column_stack([np.ones_like(x), x])
    R = np.array([[s["r11"], s["r12"]], [0, s["r22"]]])
    np.testing.assert_allclose(R.T @ R, X.T @ X, rtol=1e-10, atol=1e-12)
    np.testing.assert_allclose(R.T @ [s["z1"], s["z2"]], X.T @ y, rtol=1e-10, atol=1e-10)
    fitted = X @ np.linalg.lstsq(X, y, rcond=1e-10)[0]
    assert s["rss"] == pytest.approx(((y - fitted) ** 2).sum(), rel=1e-8, abs=1e-9)


def test_log_marginal_is_the_normal_of_the_rows(group, log_marginal):
    x, y, s = group
    assert log_marginal(*arguments(s))[0] == pytest.approx(marginal(x, y), rel=1e-10)


def test_gradient_is_that_of_the_normal_of_the_rows(group, log_marginal):
    x, y, s = group
    at = np.array([*MU, *TAU, RHO, SIGMA])

    def density(h):
        return marginal(x, y, h[:2], covariance(h[2:4], h[4]), h[5])

    step = 1e-5
    numeric = [(density(at + step * e) - density(at - step * e)) / (2 * step) for e in np.eye(6)]
    np.testing.assert_allclose(log_marginal(*arguments(s))[1:], numeric, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("tau", "rho"), [((0.0, 0.0), 0.0), ((6.0, 0.0), 0.3), ((0.0, 0.8), -0.3), ((6.0, 0.8), 1.0), ((6.0, 0.8), -1.0)]
)
def test_degenerate_populations_are_finite_numbers(group, log_marginal, tau, rho):
    x, y, s = group
    expected = marginal(x, y, T=covariance(tau, rho))
    assert log_marginal(*arguments(s, tau, rho))[0] == pytest.approx(expected, rel=1e-9)
    after, weights = posterior(s, tau, rho)
    assert np.isfinite([*after, *weights]).all()
    np.testing.assert_array_less(-1e-15, weights)
    for tau_k, tau_after in zip(tau, after[2:4], strict=True):
        assert (tau_after == 0) == (tau_k == 0)


def posterior(s, tau=TAU, rho=RHO, sigma=SIGMA):
    z = [np.float64(s[name]) for name in ("r11", "r12", "r22", "z1", "z2")]
    h = [np.float64(v) for v in (*MU, *tau, rho, sigma)]
    return nr.conditional(*z, *h), nr.reliability(*z[:3], *h[2:])


def test_conditional_and_reliability_by_conditioning_the_rows(group):
    x, y, s = group
    X, T = np.column_stack([np.ones_like(x), x]), covariance()
    gain = T @ X.T @ np.linalg.inv(X @ T @ X.T + SIGMA**2 * np.eye(len(x)))
    mean, V = MU + gain @ (y - X @ MU), T - gain @ X @ T
    (intercept, slope, *spread), weights = posterior(s)
    np.testing.assert_allclose([intercept, slope], mean, rtol=1e-8)
    np.testing.assert_allclose(covariance(spread[:2], spread[2]), V, rtol=1e-6, atol=1e-9)
    np.testing.assert_allclose(weights, 1 - np.diag(V) / np.diag(T), rtol=1e-6, atol=1e-9)


def test_wide_populations_leave_the_least_squares_line():
    x, y = np.array(DESIGNS["spread"]), np.array([40.0, 45.0, 52.0, 50.0, 66.0])
    s = {name: value[0] for name, value in nr.qr(x, y, np.zeros(5, int), 1).items()}
    (intercept, slope, tau_intercept, tau_slope, rho), weights = posterior(s, (1e8, 1e8), 0.0)
    fit = stats.linregress(x, y)
    assert intercept == pytest.approx(fit.intercept)
    assert slope == pytest.approx(fit.slope)
    V = SIGMA**2 * np.linalg.inv(np.array([[5, x.sum()], [x.sum(), (x**2).sum()]]))
    np.testing.assert_allclose(covariance((tau_intercept, tau_slope), rho), V, rtol=1e-9)
    np.testing.assert_allclose(weights, 1, rtol=1e-12)


def test_one_path_to_complete_pooling(group, log_marginal):
    """T = t^2 That, t to 0: the line is the population's, the data's weight is 0."""
    x, y, s = group
    flat = log_marginal(*arguments(s, (0.0, 0.0)))[0]
    gaps = [abs(log_marginal(*arguments(s, (t * TAU[0], t * TAU[1])))[0] - flat) for t in (1e-2, 1e-4, 1e-6)]
    assert gaps[2] < 1e-4 * max(gaps[0], 1e-12) + 1e-8
    (intercept, slope, *_), weights = posterior(s, (1e-9, 1e-9))
    np.testing.assert_allclose([intercept, slope], MU, rtol=1e-9)
    np.testing.assert_allclose(weights, 0, atol=1e-12)


def test_leave_row_out_is_a_ratio_of_marginals(group):
    x, y, s = group
    (intercept, slope, t0, t1, rho), _ = posterior(s)
    line, variance = intercept + slope * x, t0**2 + 2 * rho * t0 * t1 * x + (t1 * x) ** 2
    values = nr.log_leave_row_out(y, line, variance, SIGMA)
    for i in range(len(x)):
        rest = np.delete(np.arange(len(x)), i)
        without = marginal(x[rest], y[rest]) if len(rest) else 0.0
        assert values[i] == pytest.approx(marginal(x, y) - without, rel=1e-6)


def test_tails_of_a_row_are_those_of_the_joint_normal_given_its_others(group):
    x, y, s = group
    (intercept, slope, t0, t1, rho), _ = posterior(s)
    line, variance = intercept + slope * x, t0**2 + 2 * rho * t0 * t1 * x + (t1 * x) ** 2
    lower, upper = nr.row_tails(y, line, variance, SIGMA)
    X = np.column_stack([np.ones_like(x), x])
    S, mean = X @ covariance() @ X.T + SIGMA**2 * np.eye(len(x)), X @ MU
    for i, others in enumerate(~np.eye(len(x), dtype=bool)):
        gain = np.linalg.solve(S[others][:, others], S[others, i])
        given = stats.norm(mean[i] + gain @ (y - mean)[others], np.sqrt(S[i, i] - gain @ S[others, i]))
        np.testing.assert_allclose([lower[i], upper[i]], [given.cdf(y[i]), given.sf(y[i])], rtol=1e-5)


def test_random_has_the_moments_of_the_statistics(group):
    x, _, s = group
    rng = np.random.default_rng(3)
    draws = nr.random(*[s[k] for k in ("n", "r11", "r12", "r22")], *MU, *TAU, RHO, SIGMA, rng=rng, size=(40_000,))
    X = np.column_stack([np.ones_like(x), x])
    Y = rng.multivariate_normal(X @ MU, X @ covariance() @ X.T + SIGMA**2 * np.eye(len(x)), 40_000)
    expected = np.array(
        list(nr.qr(np.tile(x, 40_000), Y.ravel(), np.repeat(np.arange(40_000), len(x)), 40_000).values())
    )
    for ours, theirs in zip(draws.T, expected[4:], strict=True):
        if theirs.std() < 1e-6:
            np.testing.assert_allclose(ours, 0, atol=1e-9)
        else:
            assert stats.ks_2samp(ours, theirs).pvalue > 1e-4
