"""Quadrature against integrals known in closed form."""

import numpy as np
import pytest
from scipy import stats
from scipy.special import gammaln, logsumexp, softmax

from hbm_zoo.inference.quadrature import quadrature, standard_nodes


@pytest.mark.parametrize("size", [1, 2, 3])
def test_normal_densities_far_from_the_start_are_exact(size):
    rng = np.random.default_rng(size)
    centre = rng.normal(0, 30, (4, size))
    factor = rng.normal(size=(4, size, size))
    covariance = np.einsum("cij,ckj->cik", factor, factor) + 0.3 * np.eye(size)
    normals = [stats.multivariate_normal(m, V) for m, V in zip(centre, covariance, strict=True)]

    def log_f(x):
        return np.array([np.atleast_1d(p.logpdf(points)) + 2.5 for p, points in zip(normals, x, strict=True)])

    nodes, log_weights = quadrature(log_f, 4, size)
    weights = softmax(log_weights, axis=1)
    np.testing.assert_allclose(logsumexp(log_weights, axis=1), 2.5, atol=1e-4)
    mean = np.einsum("cn,cnk->ck", weights, nodes)
    np.testing.assert_allclose(mean, centre, atol=1e-4)
    deviation = nodes - mean[:, None]
    np.testing.assert_allclose(
        np.einsum("cn,cni,cnj->cij", weights, deviation, deviation), covariance, rtol=1e-3, atol=1e-3
    )


@pytest.mark.parametrize("shape", [1.5, 4.0, 30.0])
def test_skew_density(shape):
    """Gamma in the log: its integral is Gamma(shape), the mean of exp(u) the shape."""
    nodes, log_weights = quadrature(lambda x: shape * x[..., 0] - np.exp(x[..., 0]), 1, 1)
    assert logsumexp(log_weights) == pytest.approx(gammaln(shape), abs=2e-3)
    assert (softmax(log_weights) * np.exp(nodes[..., 0])).sum() == pytest.approx(shape, rel=2e-3)


@pytest.mark.parametrize(("size", "order"), [(1, 21), (2, 11), (3, 5)])
def test_nodes_a_dimension(size, order):
    z, log_w = standard_nodes(size)
    assert z.shape == (order**size, size)
    density = np.exp(-0.5 * (z**2).sum(axis=1)) / (2 * np.pi) ** (size / 2)
    assert (np.exp(log_w) * density).sum() == pytest.approx(1)


def test_nothing_to_integrate():
    nodes, log_weights = quadrature(lambda x: np.array([[1.0], [2.0]]), 2, 0)
    assert nodes.shape == (2, 1, 0)
    np.testing.assert_allclose(log_weights[:, 0], [1, 2])
