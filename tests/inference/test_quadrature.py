"""Quadrature and weighted draws against integrals known in closed form."""

import numpy as np
import pytest
from scipy import stats
from scipy.special import digamma, gammaln, logsumexp, polygamma, softmax

from hbm_zoo.inference.quadrature import quadrature, standard_draws, standard_nodes


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


# Beyond three dimensions: weighted draws.


def rotated(size, seed):
    """Three centres, and matrices of unequal scales that correlate every dimension with every other."""
    rng = np.random.default_rng(seed)
    scales = 10 ** rng.uniform(-1, 0.7, size)
    return rng.normal(0, 3, (3, size)), rng.normal(size=(3, size, size)) * scales + np.diag(scales)


def moments(nodes, log_weights):
    """Mean and covariance of each function as a density."""
    weights = softmax(log_weights, axis=1)
    mean = np.einsum("cn,cnk->ck", weights, nodes)
    away = nodes - mean[:, None]
    return mean, np.einsum("cn,cni,cnj->cij", weights, away, away)


@pytest.mark.parametrize("size", [4, 6, 9])
def test_correlated_normals_of_many_dimensions(size):
    """Log integrals to 0.01, means to 0.03, covariances to 0.1 in units of the standard deviations."""
    centre, A = rotated(size, seed=size)
    normals = [stats.multivariate_normal(m, a @ a.T) for m, a in zip(centre, A, strict=True)]

    def log_f(x):
        return np.array([p.logpdf(points) - 40 for p, points in zip(normals, x, strict=True)])

    nodes, log_weights = quadrature(log_f, 3, size)
    np.testing.assert_allclose(logsumexp(log_weights, axis=1), -40, atol=0.01)
    mean, covariance = moments(nodes, log_weights)
    white = np.linalg.inv(A)
    np.testing.assert_allclose(np.einsum("cij,cj->ci", white, mean - centre), 0, atol=0.03)
    np.testing.assert_allclose(white @ covariance @ white.mT, np.broadcast_to(np.eye(size), (3, size, size)), atol=0.1)


@pytest.mark.parametrize("size", [4, 6, 9])
def test_a_normal_times_a_skew_factor(size):
    """2 N(x; m, A A') Phi(a . z), z = A^-1 (x - m), has integral 1 and mean m + sqrt(2/pi) A a / sqrt(1 + a'a).

    Azzalini & Dalla Valle (1996), Biometrika 83:715-726. Log integrals to 0.01, means to 0.03 standard deviations.
    """
    centre, A = rotated(size, seed=10 + size)
    skew = 4 * np.ones(size) / np.sqrt(size)
    white = np.linalg.inv(A)

    def log_f(x):
        z = np.einsum("cij,cnj->cni", white, x - centre[:, None])
        normal = stats.norm.logpdf(z).sum(axis=-1) - np.linalg.slogdet(A)[1][:, None]
        return np.log(2) + normal + stats.norm.logcdf(z @ skew)

    nodes, log_weights = quadrature(log_f, 3, size)
    np.testing.assert_allclose(logsumexp(log_weights, axis=1), 0, atol=0.01)
    mean, _ = moments(nodes, log_weights)
    exact = np.sqrt(2 / np.pi) * skew / np.sqrt(1 + skew @ skew)
    got = np.einsum("cij,cj->ci", white, mean - centre)
    np.testing.assert_allclose(got, np.broadcast_to(exact, (3, size)), atol=0.03)


@pytest.mark.parametrize("size", [4, 6, 9])
def test_skew_in_every_dimension(size):
    """Logs of gammas of shape 4: their integral is Gamma(4)^size, means digamma(4): to 0.01, and 0.03 of their sd."""
    nodes, log_weights = quadrature(lambda x: (4 * x - np.exp(x)).sum(axis=-1), 1, size)
    assert logsumexp(log_weights) == pytest.approx(size * gammaln(4), abs=0.01)
    mean, covariance = moments(nodes, log_weights)
    sd = np.sqrt(polygamma(1, 4))
    np.testing.assert_allclose((mean[0] - digamma(4)) / sd, 0, atol=0.03)
    np.testing.assert_allclose(np.sqrt(np.diag(covariance[0])) / sd, 1, atol=0.1)


@pytest.mark.parametrize("size", [4, 9])
def test_draws_have_density_1_in_all(size):
    z, log_w = standard_draws(size)
    assert len(z) == 4096
    student = stats.multivariate_t(np.zeros(size), 1.2**2 * np.eye(size), df=5)
    np.testing.assert_allclose(-log_w - np.log(4096), student.logpdf(z), rtol=1e-10)
    # The same points: half of their distances below the median of that distance's distribution.
    assert np.mean((z**2).sum(axis=1) / (1.2**2 * size) < stats.f(size, 5).median()) == pytest.approx(0.5, abs=0.01)


def test_finer_draws_are_more_and_what_they_change_is_the_error():
    errors = []
    for size in (4, 5, 6, 7, 8, 9):
        exact = size * gammaln([2.5, 6.0])
        shape = np.array([[2.5], [6.0]])
        coarse, fine = (
            logsumexp(quadrature(lambda x, a=shape: (a[..., None] * x - np.exp(x)).sum(axis=-1), 2, size, k)[1], axis=1)
            for k in (1, 2)
        )
        few, many = standard_draws(size)[0], standard_draws(size, 2)[0]
        assert len(many) == 4 * len(few)
        assert not np.isin(few, many).any()
        errors.append([coarse - exact, fine - exact, coarse - fine])
    of_coarse, of_fine, change = np.sqrt(np.mean(np.square(errors), axis=(0, 2)))
    assert of_fine < 0.7 * of_coarse < 1.4 * change
