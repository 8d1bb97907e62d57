"""A spike and several slabs against SciPy, the family of one slab, and integrals."""

import numpy as np
import pytensor.tensor as pt
import pytest
import xarray as xr
from pytensor import function
from scipy import integrate, stats
from scipy.optimize import approx_fprime

from hbm_zoo.group_level import spike_and_slabs, two_groups
from hbm_zoo.group_level.averages import quantile
from hbm_zoo.group_level.evaluate import evaluate
from hbm_zoo.group_level.spike_and_slabs import SpikeSlabs

EFFECTS, SE = np.array([-3.0, -0.4, 0.0, 0.7, 30.0]), np.array([0.5, 0.2, 1.0, 0.3, 0.4])
WEIGHTS, CENTRES, WIDTHS = np.array([0.5, 0.3, 0.2]), np.array([0.0, 0.1, -0.2]), np.array([0.2, 0.9, 4.0])
#: pi0, delta0, sigma0.
POINTS = [(0.8, 0.0, 1.0), (0.3, 0.4, 1.3), (0.0, -0.2, 0.7), (1.0, 0.1, 1.1)]


def slabs(pi0, sigma0):
    """Shares, centres and widths over sigma0, as log densities take them."""
    return [*(1 - pi0) * WEIGHTS, *CENTRES, *WIDTHS / sigma0]


def before(pi0):
    nodes = (xr.DataArray(values, dims="node") for values in (CENTRES, WIDTHS, WEIGHTS))
    return SpikeSlabs(xr.DataArray(pi0), *nodes)


def by_scipy(y, se, pi0, delta0, sigma0):
    """The density as it stands on the page."""
    centre, s = delta0 * se, sigma0 * se
    each = [stats.norm.pdf(y, centre + mu, np.hypot(s, width)) for mu, width in zip(CENTRES, WIDTHS, strict=True)]
    return pi0 * stats.norm.pdf(y, centre, s) + (1 - pi0) * (WEIGHTS @ np.array(each))


@pytest.mark.parametrize("point", POINTS)
def test_density_is_that_of_scipy(point):
    pi0, delta0, sigma0 = point
    with np.errstate(divide="ignore"):  # of a share that is 0
        ours = evaluate(spike_and_slabs.log_marginal, EFFECTS, SE, *point, *slabs(pi0, sigma0))
    density = by_scipy(EFFECTS, SE, *point)
    near = density > 0  # where SciPy has a number
    assert near.sum() >= 4
    np.testing.assert_allclose(ours.values[near], np.log(density[near]), rtol=1e-10)
    assert np.isfinite(ours).all()


def test_gradient_is_that_of_differences():
    variables = [pt.dscalar() for _ in range(11)]  # y, se, pi0, delta0, sigma0 and two slabs
    f = spike_and_slabs.log_kernel(*variables)
    slope = function(variables, pt.grad(f, variables), mode="AS_WRITTEN")
    value = function(variables, f, mode="AS_WRITTEN")
    for y, se in zip(EFFECTS, SE, strict=True):
        at = np.array([y, se, 0.7, 0.2, 1.2, 0.2, 0.1, 0.0, 0.1, 0.3, 0.9])
        np.testing.assert_allclose(slope(*at), approx_fprime(at, lambda x: value(*x), 1e-7), rtol=2e-4, atol=2e-5)


def test_no_share_of_what_explains_the_data_is_a_number():
    """A gene 200 standard errors away under the null alone, and under a slab alone without the null."""
    nothing = [0.0, 0.0, 0.0, 0.0, 1.0, 40.0]
    with np.errstate(divide="ignore"):
        alone = evaluate(spike_and_slabs.log_marginal, 200.0, 1.0, 1.0, 0.0, 1.0, *nothing)
    assert alone.item() == pytest.approx(stats.norm.logpdf(200.0), rel=1e-12)
    narrow = evaluate(spike_and_slabs.log_marginal, 200.0, 1.0, 0.0, 0.0, 1.0, 1.0, 0.0, 0.0, 0.0, 1.0, 40.0)
    assert narrow.item() == pytest.approx(stats.norm.logpdf(200.0, 0, np.sqrt(2)), rel=1e-12)


def test_one_slab_is_the_two_groups():
    """Its density, its conditional and its tails."""
    pi0, mu, tau, delta0, sigma0 = 0.7, 0.1, 0.8, 0.2, 1.1
    one = SpikeSlabs(xr.DataArray(pi0), *(xr.DataArray([v], dims="node") for v in (mu, tau, 1.0)))
    y, se = (xr.DataArray(values, dims="gene") for values in (EFFECTS, SE))
    ours = evaluate(spike_and_slabs.log_marginal, y, se, pi0, delta0, sigma0, 1 - pi0, mu, tau / sigma0)
    np.testing.assert_allclose(ours, evaluate(two_groups.log_marginal, y, se, pi0, mu, tau, delta0, sigma0), rtol=1e-12)
    after = spike_and_slabs.conditional(y, se, delta0, sigma0, one)
    theirs = two_groups.conditional(EFFECTS, SE, pi0, mu, tau, delta0, sigma0)
    for name, value in zip(("null", "each_mean", "each_sd"), theirs, strict=True):
        np.testing.assert_allclose(np.squeeze(getattr(after, name).values), value, rtol=1e-10, err_msg=name)
    both = spike_and_slabs.tails(y, se, delta0, sigma0, one)
    for end, other in zip(both, two_groups.tails(EFFECTS, SE, pi0, mu, tau, delta0, sigma0), strict=True):
        np.testing.assert_allclose(end, other, rtol=1e-12)


@pytest.mark.parametrize("point", POINTS[:3])
def test_what_is_known_after_the_data_is_an_integral(point):
    """lfdr, mean and sd of a gene by quadrature over theta."""
    pi0, delta0, sigma0 = point
    y, se = EFFECTS[:4], SE[:4]
    after = spike_and_slabs.conditional(*(xr.DataArray(v, dims="gene") for v in (y, se)), delta0, sigma0, before(pi0))
    theta = np.linspace(-30, 30, 60_001)
    slab = stats.norm.pdf(theta[:, None], CENTRES, WIDTHS) @ WEIGHTS
    for j in range(4):
        joint = (1 - pi0) * slab * stats.norm.pdf(y[j], theta + delta0 * se[j], sigma0 * se[j])
        moments = [integrate.simpson(joint * theta**k, x=theta) for k in range(3)]
        spike = pi0 * stats.norm.pdf(y[j], delta0 * se[j], sigma0 * se[j])
        mean = moments[1] / (spike + moments[0])
        assert after.null[j].item() == pytest.approx(spike / (spike + moments[0]), rel=1e-7)
        assert after.mean[j].item() == pytest.approx(mean, rel=1e-7, abs=1e-10)
        assert after.sd[j].item() ** 2 == pytest.approx(moments[2] / (spike + moments[0]) - mean**2, rel=1e-6)


def test_a_quantile_on_the_spike_is_exactly_zero_and_others_invert_the_cdf():
    many = before(0.6).over(xr.DataArray(np.ones(2), dims="sample"))
    below, upto = many.cdf(-1e-300)[0].item(), many.cdf(0.0)[0].item()
    assert upto - below == pytest.approx(0.6)
    for p in (0.01, below - 1e-3, below + 1e-3, 0.5, upto - 1e-3, upto + 1e-3, 0.99):
        x = quantile(many, p)
        assert many.ppf(p)[0].item() == pytest.approx(x.item(), abs=1e-6)
        if below < p < upto:
            assert x.item() == 0
        else:
            assert many.cdf(x)[0].item() == pytest.approx(p, abs=1e-6)


def test_draws_are_of_the_population_and_of_the_density():
    rng, n, (pi0, delta0, sigma0) = np.random.default_rng(3), 40_000, (0.6, 0.3, 1.2)
    theta = before(pi0).over(xr.DataArray(np.ones(n), dims="sample")).sample(rng)
    assert abs((theta == 0).mean() - pi0) < 4 * np.sqrt(pi0 * (1 - pi0) / n)
    slab = theta.values[theta.values != 0]
    assert stats.kstest(slab, lambda x: before(0.0).cdf(xr.DataArray(x, dims="x")).values).pvalue > 1e-3
    y = spike_and_slabs.random(0.3, pi0, delta0, sigma0, *slabs(pi0, sigma0), rng=rng, size=(n,))

    def cdf(x):
        return spike_and_slabs.tails(xr.DataArray(x, dims="y"), 0.3, delta0, sigma0, before(pi0))[0].values

    assert stats.kstest(y, cdf).pvalue > 1e-3
