"""Populations of a vector against scipy, and against sums written out."""

import numpy as np
import pytest
import xarray as xr
from scipy import stats

from hbm_zoo.group_level.averages import exceedance, quantile
from hbm_zoo.group_level.weighted import MultivariateNormal, Weighted

MEAN = np.array([[1.0, -2.0], [0.5, 0.0], [2.0, 3.0]])
ROOTS = np.array([[[0.5, 0.0], [0.3, 0.4]], [[1.0, 0.0], [-0.8, 0.6]], [[1e-3, 0.0], [0.0, 2.0]]])


def normal():
    """Three draws of a bivariate normal."""
    return MultivariateNormal(
        xr.DataArray(MEAN, dims=("sample", "coefficient")),
        xr.DataArray(ROOTS, dims=("sample", "coefficient", "deviate")),
    )


def test_the_multivariate_normal_is_scipys():
    ours, x = normal(), np.array([0.9, -1.0])
    for k, (mean, root) in enumerate(zip(MEAN, ROOTS, strict=True)):
        theirs = stats.multivariate_normal(mean, root @ root.T)
        one = MultivariateNormal(ours.mean.isel(sample=k), ours.cholesky.isel(sample=k))
        density = one.log_density(xr.DataArray(x, dims="coefficient"))
        assert float(density) == pytest.approx(theirs.logpdf(x), rel=1e-9)
        sd = np.sqrt(np.diag(root @ root.T))
        np.testing.assert_allclose(one.sd, sd)
        np.testing.assert_allclose(one.cdf(0.3), stats.norm(mean, sd).cdf(0.3))
        np.testing.assert_allclose(one.ppf(0.2), stats.norm(mean, sd).ppf(0.2))


def test_draws_of_the_multivariate_normal_are_joint():
    one = MultivariateNormal(normal().mean.isel(sample=1), normal().cholesky.isel(sample=1))
    draws = one.over(xr.DataArray(np.ones(40_000), dims="draw")).sample(np.random.default_rng(1))
    draws = draws.transpose("draw", "coefficient").values
    covariance = ROOTS[1] @ ROOTS[1].T
    np.testing.assert_allclose(draws.mean(axis=0), MEAN[1], atol=4 / np.sqrt(40_000))
    np.testing.assert_allclose(np.cov(draws.T), covariance, atol=0.03)


def test_a_normal_without_spread_is_a_point():
    zero = xr.DataArray(np.zeros((3, 2, 2)), dims=("sample", "coefficient", "deviate"))
    point = MultivariateNormal(normal().mean, zero)
    assert (point.sd == 0).all()
    np.testing.assert_array_equal(point.sample(np.random.default_rng(0)).transpose("sample", "coefficient"), MEAN)
    np.testing.assert_allclose(quantile(point, 0.5), np.median(MEAN, axis=0))


def weighted(samples=4, groups=3, nodes=50, moving=False):
    rng = np.random.default_rng(2)
    shape = (samples, groups, nodes, 2) if moving else (groups, nodes, 2)
    dims = ("sample", "site", "node", "coefficient")[0 if moving else 1 :]
    weight = rng.dirichlet(np.ones(nodes), (samples, groups))
    return Weighted(
        xr.DataArray(rng.standard_normal(shape), dims=dims, coords={"coefficient": ["a", "b"]}),
        xr.DataArray(weight, dims=("sample", "site", "node"), coords={"site": list("ABC")[:groups]}),
    )


@pytest.mark.parametrize("moving", [False, True])
def test_weighted_nodes_are_their_sums(moving):
    ours = weighted(moving=moving)
    theta = np.broadcast_to(ours.theta.transpose(..., "site", "node", "coefficient").values, (4, 3, 50, 2))
    w = ours.weight.values[..., None]
    mean = (w * theta).sum(axis=2)
    dims = ("sample", "site", "coefficient")
    np.testing.assert_allclose(ours.mean.transpose(*dims), mean, rtol=1e-12)
    np.testing.assert_allclose(
        ours.sd.transpose(*dims), np.sqrt((w * (theta - mean[:, :, None]) ** 2).sum(axis=2)), rtol=1e-10
    )
    np.testing.assert_allclose(ours.cdf(0.2).transpose(*dims), (w * (theta <= 0.2)).sum(axis=2), rtol=1e-12)
    median = ours.ppf(0.5).transpose(*dims).values
    assert ((w * (theta <= median[:, :, None])).sum(axis=2) >= 0.5 - 1e-12).all()
    assert ((w * (theta < median[:, :, None])).sum(axis=2) < 0.5).all()
    average = (w * (theta <= 0.3)).sum(axis=2).mean(axis=0)
    np.testing.assert_allclose(exceedance(ours, 0.3).transpose("site", "coefficient"), 1 - average, rtol=1e-12)
    middle = quantile(ours, 0.5)
    assert list(middle.coefficient.values) == ["a", "b"]
    for j in range(3):  # the quantile of the average of all draws is a node at which its distribution passes one half
        for k in range(2):
            x, every, weights = float(middle[dict(site=j, coefficient=k)]), theta[:, j, :, k], w[:, j, :, 0] / 4
            assert weights[every <= x + 1e-6].sum() >= 0.5 - 1e-9
            assert weights[every < x - 1e-6].sum() <= 0.5 + 1e-9


def test_draws_of_weighted_nodes_are_joint_and_as_often_as_their_weight():
    ours = weighted(samples=1, groups=1, nodes=4)
    draws = ours.over(xr.DataArray(np.ones(20_000), dims="draw")).sample(np.random.default_rng(3))
    theta = ours.theta.isel(site=0).values
    draws = draws.squeeze().transpose("draw", "coefficient").values
    which = abs(draws[:, None, 0] - theta[None, :, 0]).argmin(axis=1)
    np.testing.assert_array_equal(draws, theta[which])
    shares = np.bincount(which, minlength=4) / 20_000
    np.testing.assert_allclose(shares, ours.weight.squeeze(), atol=4 * 0.5 / np.sqrt(20_000))


def test_nodes_in_one_place_are_a_point():
    theta = xr.DataArray(np.full((5, 2), [0.1, 0.7]), dims=("node", "coefficient"))
    point = Weighted(theta, xr.DataArray(np.full((3, 5), 0.2), dims=("sample", "node")))
    assert (point.sd == 0).all()
    np.testing.assert_array_equal(point.mean.isel(sample=0), [0.1, 0.7])
    np.testing.assert_allclose(quantile(point, 0.4), [0.1, 0.7])
    np.testing.assert_array_equal(exceedance(point, 0.3), [0, 1])


def test_expectations_of_any_function_and_what_has_no_density():
    ours = weighted()
    log_g = -((ours.theta.isel(coefficient=0) - 0.2) ** 2)
    direct = np.log((ours.weight * np.exp(log_g)).sum("node"))
    np.testing.assert_allclose(ours.log_expectation(log_g).transpose("sample", "site"), direct, rtol=1e-12)
    with pytest.raises(NotImplementedError, match="A weighted sample of nodes has no density"):
        ours.log_density(0.0)
