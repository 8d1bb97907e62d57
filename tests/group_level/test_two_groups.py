"""The two-groups model against SciPy, quadrature and finite differences; the spike-and-slab population."""

import numpy as np
import pytensor
import pytensor.tensor as pt
import pytest
import xarray as xr
from scipy import stats
from scipy.differentiate import derivative
from scipy.optimize import brentq
from scipy.special import logsumexp

from hbm_zoo.group_level import normal, two_groups
from hbm_zoo.group_level.averages import exceedance, quantile
from hbm_zoo.group_level.evaluate import evaluate
from hbm_zoo.group_level.populations import SpikeSlab

NAMES = ("pi0", "mu", "tau", "delta0", "sigma0")
POINTS = [
    (0.9, 0.0, 0.3, 0.0, 1.0),
    (0.2, 0.0, 2.0, 0.3, 0.9),
    (0.9999, 0.0, 0.02, -0.2, 1.3),
    (0.5, 0.4, 0.1, 0.1, 1.1),
]
LIMITS = [(0.0, 0.7, 0.0, 0.0, 1.0), (0.0, 0.0, 2.0, 0.0, 1.0), (1.0, 0.0, 2.0, 0.0, 1.0), (0.5, 0.0, 0.0, 0.0, 1.0)]
EFFECTS = np.array([0.0, 0.01, -0.4, 1.5, -9.0])
SE = np.array([0.1, 0.3, 0.2, 0.15, 0.12])
NODES, WEIGHTS = (12 * part for part in np.polynomial.legendre.leggauss(300))


def by_scipy(y, se, pi0, mu, tau, delta0, sigma0):
    centre, s = delta0 * se, sigma0 * se
    with np.errstate(divide="ignore"):
        weights = np.log([pi0, 1 - pi0])
    parts = [stats.norm.logpdf(y, centre, s), stats.norm.logpdf(y, centre + mu, np.hypot(s, tau))]
    return logsumexp(np.stack(parts) + weights[:, None], axis=0)


def log_marginal(y, se, *parameters):
    with np.errstate(divide="ignore"):
        return evaluate(two_groups.log_marginal, xr.DataArray(y, dims="g"), xr.DataArray(se, dims="g"), *parameters)


@pytest.mark.parametrize("parameters", POINTS + LIMITS)
def test_log_marginal_is_scipys_mixture(parameters):
    ours = log_marginal(EFFECTS, SE, *parameters).values
    np.testing.assert_allclose(ours, by_scipy(EFFECTS, SE, *parameters), rtol=1e-11)


@pytest.fixture(scope="module")
def gradient():
    y, se, *parameters = (pt.dscalar(name) for name in ("y", "se", *NAMES))
    value = two_groups.log_marginal(y, se, *parameters)
    return pytensor.function([y, se, *parameters], pt.grad(value, parameters), mode="AS_WRITTEN")


@pytest.mark.parametrize("parameters", POINTS)
def test_gradient_is_that_of_scipys_mixture(gradient, parameters):
    for y, se in zip(EFFECTS, SE, strict=True):
        ours = gradient(y, se, *parameters)
        for k, name in enumerate(NAMES):

            def along(values, k=k, y=y, se=se):
                each = [by_scipy(np.array([y]), se, *parameters[:k], v, *parameters[k + 1 :]) for v in np.ravel(values)]
                return np.reshape(each, np.shape(values))

            step = {"pi0": 0.3 * min(parameters[0], 1 - parameters[0])}.get(name, 0.05 * (abs(parameters[k]) or 1))
            scipys = derivative(along, parameters[k], initial_step=step)
            assert ours[k] == pytest.approx(scipys.df, rel=1e-5, abs=max(1e-6, 10 * scipys.error)), (y, name)


@pytest.mark.parametrize("parameters", POINTS)
def test_conditional_by_quadrature(parameters):
    """lfdr, mean and sd of the slab against integrals over theta."""
    pi0, mu, tau, delta0, sigma0 = parameters
    for y, se in zip(EFFECTS, SE, strict=True):
        lfdr, mean, sd = two_groups.conditional(y, se, *parameters)

        theta = mean + sd * NODES
        log_joint = stats.norm.logpdf(theta, mu, tau) + stats.norm.logpdf(y, theta + delta0 * se, sigma0 * se)
        largest = log_joint.max()
        joint = np.exp(log_joint - largest) * sd * WEIGHTS
        slab, first = (1 - pi0) * joint.sum(), (theta * joint).sum() / joint.sum()
        spike = pi0 * np.exp(stats.norm.logpdf(y, delta0 * se, sigma0 * se) - largest)
        assert lfdr == pytest.approx(spike / (spike + slab), rel=1e-7)
        assert mean == pytest.approx(first, rel=1e-7, abs=1e-12)
        assert sd**2 == pytest.approx(((theta - first) ** 2 * joint).sum() / joint.sum(), rel=1e-7)


@pytest.mark.parametrize("parameters", POINTS)
def test_candidates_formula_on_the_spike_and_on_the_slab(parameters):
    pi0, mu, tau, delta0, sigma0 = parameters
    lfdr, mean, sd = two_groups.conditional(EFFECTS, SE, *parameters)
    marginal = log_marginal(EFFECTS, SE, *parameters).values

    def likelihood(theta):
        return stats.norm.logpdf(EFFECTS, theta + delta0 * SE, sigma0 * SE)

    seen = lfdr > 0  # where the spike is not ruled out to the last digit
    spike = np.log(pi0) + likelihood(0)[seen] - np.log(lfdr[seen])
    np.testing.assert_allclose(spike, marginal[seen], rtol=1e-9)
    theta = mean + 0.7 * sd
    before = np.log1p(-pi0) + stats.norm.logpdf(theta, mu, tau)
    after = np.log1p(-lfdr) + stats.norm.logpdf(theta, mean, sd)
    np.testing.assert_allclose(before + likelihood(theta) - after, marginal, rtol=1e-9, atol=1e-9)


def test_without_a_spike_it_is_the_normal_family():
    lfdr, mean, sd = two_groups.conditional(EFFECTS, SE, 0.0, 0.4, 0.5, 0.0, 1.0)
    assert (lfdr == 0).all()
    np.testing.assert_allclose([mean, sd], normal.conditional(EFFECTS, SE, 0.4, 0.5))


def test_no_slab_leaves_nothing_but_zero():
    """pi0 = 1, or a slab of no width around 0: theta is 0, not a common effect."""
    for pi0, tau in ((1.0, 2.0), (0.3, 0.0)):
        after = SpikeSlab(*two_groups.conditional(EFFECTS, SE, pi0, 0.0, tau, 0.0, 1.0))
        np.testing.assert_array_equal(after.mean, 0)
        np.testing.assert_array_equal(after.sd, 0)


@pytest.mark.parametrize("parameters", POINTS)
def test_random_draws_have_the_density(parameters):
    se = 0.2
    pi0, mu, tau, delta0, sigma0 = parameters
    draws = two_groups.random(se, *parameters, rng=np.random.default_rng(7), size=(20_000,))

    def cdf(y):
        null = stats.norm.cdf(y, delta0 * se, sigma0 * se)
        return pi0 * null + (1 - pi0) * stats.norm.cdf(y, delta0 * se + mu, np.hypot(sigma0 * se, tau))

    assert stats.kstest(draws, cdf).pvalue > 1e-3


# The population, before and after the data.

AVERAGED = SpikeSlab(*(xr.DataArray(v, dims="sample") for v in ([0.5, 0.6, 0.2], [1.0, 1.2, 0.9], [0.5, 0.4, 0.7])))


def averaged_cdf(x):
    null, mean, sd = (v.values for v in vars(AVERAGED).values())
    return (null * (x >= 0) + (1 - null) * stats.norm.cdf(x, mean, sd)).mean()


def test_a_quantile_on_the_spike_is_exactly_zero():
    below, up_to = averaged_cdf(-1e-300), averaged_cdf(0)
    for p in (below + 1e-6, 0.2, up_to - 1e-6):
        assert float(quantile(AVERAGED, p)) == 0.0
    for p in (0.001, below - 1e-3, up_to + 1e-3, 0.5, 0.999):
        side = (-20, -1e-300) if p < below else (0, 20)
        assert float(quantile(AVERAGED, p)) == pytest.approx(
            brentq(lambda x, p=p: averaged_cdf(x) - p, *side), rel=1e-6
        )


def test_many_quantiles_at_once_are_each_its_own():
    shift = xr.DataArray(np.linspace(-2, 2, 9), dims="gene")
    many = SpikeSlab(AVERAGED.null, AVERAGED.slab_mean + shift, AVERAGED.slab_sd)
    for p in (0.055, 0.945):
        one_by_one = [
            float(quantile(SpikeSlab(AVERAGED.null, AVERAGED.slab_mean + s, AVERAGED.slab_sd), p)) for s in shift.values
        ]
        np.testing.assert_allclose(quantile(many, p), one_by_one, rtol=1e-6)


def test_exceedance_counts_the_spike_on_neither_side():
    assert float(exceedance(AVERAGED, 0.0)) == pytest.approx(1 - averaged_cdf(0), rel=1e-12)
    assert float(exceedance(AVERAGED, -0.1)) == pytest.approx(1 - averaged_cdf(-0.1), rel=1e-12)


def test_quantile_of_one_draw_inverts_its_distribution():
    for null, mean, sd in ((0.5, 1.0, 0.5), (0.0, -1.0, 2.0), (0.9, 0.0, 1.0)):
        one = SpikeSlab(*(xr.DataArray(v) for v in (null, mean, sd)))
        for p in (0.01, 0.3, 0.7, 0.99):
            x = float(one.ppf(p))
            assert float(one.cdf(x)) >= p - 1e-12
            assert float(one.cdf(np.nextafter(x, -np.inf))) <= p + 1e-9
    nothing = SpikeSlab(*(xr.DataArray(v) for v in (1.0, 0.0, 0.5)))
    assert [float(nothing.ppf(p)) for p in (0.01, 0.99)] == [0.0, 0.0]


def test_draws_have_the_share_mean_and_sd():
    n = 40_000
    wide = SpikeSlab(*(xr.DataArray(np.full(n, v), dims="sample") for v in (0.7, 0.5, 1.2)))
    draws = wide.sample(np.random.default_rng(2)).values
    assert abs((draws == 0).mean() - 0.7) < 4 * np.sqrt(0.21 / n)
    mean, sd = float(wide.mean[0]), float(wide.sd[0])
    assert abs(draws.mean() - mean) < 4 * sd / np.sqrt(n)
    assert draws.std() == pytest.approx(sd, rel=0.03)
