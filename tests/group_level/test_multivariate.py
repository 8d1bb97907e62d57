"""One to four normal numbers at once against dense normals, some of them not measured."""

import numpy as np
import pytensor.tensor as pt
import pytest
import xarray as xr
from pytensor import function
from pytensor.gradient import grad
from scipy import stats

from hbm_zoo.group_level import multivariate as mv
from hbm_zoo.priors import lkj

SIZES = range(1, 5)


def case(size, groups=5, samples=3):
    """Random data, some numbers of which were not measured, one group without any; and random populations."""
    rng = np.random.default_rng(size)
    measured = (rng.random((groups, size)) < 0.7).astype(float)
    measured[0], measured[1] = 1.0, 0.0
    root = rng.standard_normal((groups, size, size))
    both = measured[:, :, None] * measured[:, None, :]
    S = both * (root @ np.swapaxes(root, 1, 2) + 0.1 * np.eye(size)) + np.eye(size) * (1 - measured[:, :, None])
    data = xr.Dataset(
        {
            "b": (("group", "trait"), measured * rng.standard_normal((groups, size))),
            "measured": (("group", "trait"), measured),
            "S": (("group", "trait", "other"), S),
            "P": (("group", "trait", "other"), np.linalg.inv(S) * both),
        }
    )
    tau, rho = rng.random((samples, size)) + 0.2, 1.6 * rng.random((samples, size, size)) - 0.8
    factor = np.stack([full(mv.cholesky(t, r)) for t, r in zip(tau, rho, strict=True)])
    mean = rng.standard_normal((samples, size))
    h = xr.Dataset({"mean": (("sample", "trait"), mean), "factor": (("sample", "trait", "other"), factor)})
    return data, h


def full(rows):
    return np.array([[*row, *[0.0] * (len(rows) - len(row))] for row in rows])


def of(data, h, g, s):
    """What was measured in a group: which, b, S; and a population's mean and T."""
    i = np.flatnonzero(data.measured[g])
    L = h.factor.isel(sample=s).values
    return i, data.b.values[g, i], data.S.values[g][np.ix_(i, i)], h["mean"].values[s], L @ L.T


def every(data, h):
    return [(g, s) for g in range(data.sizes["group"]) for s in range(h.sizes["sample"])]


@pytest.mark.parametrize("size", SIZES)
def test_density_is_that_of_the_dense_normal_of_what_was_measured(size):
    data, h = case(size)
    found = mv.log_marginal(h, data).transpose("group", "sample").values
    for g, s in every(data, h):
        i, b, S, mean, T = of(data, h, g, s)
        expected = stats.multivariate_normal.logpdf(b, mean[i], T[np.ix_(i, i)] + S) if i.size else 0.0
        assert found[g, s] == pytest.approx(expected, rel=1e-10, abs=1e-10)


@pytest.mark.parametrize("size", SIZES)
def test_gradient_is_that_of_the_dense_normal(size):
    """d/dmu = C^-1 e and d/dT_ij = (a a' - C^-1)_ij, halved on the diagonal, with a = C^-1 e."""
    data, h = case(size)
    lower = mv.pairs(size)
    L, mean = h.factor.isel(sample=0).values, h["mean"].values[0]
    T, b, S = L @ L.T, data.b.values[0], data.S.values[0]
    numbers = [*b, *np.ones(size), *mean, *(S[p] for p in lower), *(T[p] for p in lower)]
    flat = [pt.dscalar() for _ in numbers]
    wanted = [*flat[2 * size : 3 * size], *flat[-len(lower) :]]
    slopes = function(flat, grad(mv.log_density_of(size)(*flat), wanted), mode="AS_WRITTEN")(*numbers)
    a = np.linalg.solve(T + S, b - mean)
    of_T = np.outer(a, a) - np.linalg.inv(T + S)
    expected = [*a, *(of_T[i, j] / (2 if i == j else 1) for i, j in lower)]
    np.testing.assert_allclose(np.array(slopes, float), expected, rtol=1e-8, atol=1e-8)


@pytest.mark.parametrize("size", SIZES)
def test_conditional_is_bayes_theorem_by_dense_inverses(size):
    data, h = case(size)
    after = mv.conditional(h, data)
    kappa = mv.reliability(h, data).transpose("group", "sample", "trait").values
    for g, s in every(data, h):
        i, b, S, mean, T = of(data, h, g, s)
        K = T[:, i] @ np.linalg.inv(T[np.ix_(i, i)] + S)
        V = T - K @ T[i]
        F = after.factor.isel(group=g, sample=s).transpose("trait", "other").values
        np.testing.assert_allclose(after["mean"].isel(group=g, sample=s), mean + K @ (b - mean[i]), atol=1e-10)
        np.testing.assert_allclose(F @ F.T, V, atol=1e-10)
        np.testing.assert_allclose(kappa[g, s], 1 - np.diag(V) / np.diag(T), atol=1e-10)


def test_a_group_without_data_is_the_population_and_no_spread_is_a_point():
    data, h = case(3)
    none = mv.conditional(h, data).isel(group=1)
    xr.testing.assert_allclose(none["mean"], h["mean"])
    np.testing.assert_allclose(mv.population(none).sd, mv.population(h).sd)
    point = h.assign(factor=0 * h.factor)
    after = mv.population(mv.conditional(point, data))
    assert (after.sd == 0).all()
    assert (mv.reliability(point, data) == 0).all()
    np.testing.assert_array_equal(*xr.broadcast(after.mean, h["mean"]))
    xr.testing.assert_allclose(mv.log_marginal(point, data), mv.log_likelihood(h["mean"], h, data))


def test_data_that_say_nearly_all_leave_their_own_variance():
    """T - K T would have lost it: errors of 1e-7 beside a spread of about 1."""
    data, h = case(2)
    exact = data.assign(S=1e-14 * data.S, P=1e14 * data.P)
    V = mv.population(mv.conditional(h, exact)).sd.isel(group=0) ** 2
    expected = 1e-14 * data.S.isel(group=0).values.diagonal()
    np.testing.assert_allclose(V, np.broadcast_to(expected, V.shape), rtol=1e-6)


def test_data_in_two_portions_are_the_data_at_once():
    data, h = case(3)
    again = data.assign(b=data.b * 0.3 - 0.2 * data.measured)
    steps = mv.log_marginal(h, data) + mv.log_marginal(mv.conditional(h, data), again)
    found = steps.transpose("group", "sample").values
    for g, s in every(data, h):
        i, b, S, mean, T = of(data, h, g, s)
        if i.size:
            T = T[np.ix_(i, i)]
            both = np.r_[b, again.b.values[g, i]]
            dense = stats.multivariate_normal.logpdf(both, np.tile(mean[i], 2), np.block([[T + S, T], [T, T + S]]))
            assert found[g, s] == pytest.approx(dense, rel=1e-9)


def test_expected_log_likelihood_is_its_average():
    """Exact of a quadratic: five nodes in each direction."""
    data, h = case(2)
    z, w = np.polynomial.hermite_e.hermegauss(5)
    after, total = mv.conditional(h, data), 0.0
    for one, u in zip(z, w / w.sum(), strict=True):
        for two, v in zip(z, w / w.sum(), strict=True):
            theta = after["mean"] + xr.dot(after.factor, xr.DataArray([one, two], dims="other"), dim="other")
            total = total + u * v * mv.log_likelihood(theta, h, data)
    np.testing.assert_allclose(*xr.broadcast(mv.expected_log_likelihood(h, data), total))


def test_partial_correlations_are_of_two_given_the_first():
    rho = np.array([[0, 0, 0], [0.6, 0, 0], [-0.3, 0.5, 0]])
    L = full(mv.cholesky([1, 1, 1], rho))
    R = L @ L.T
    np.testing.assert_allclose(np.diag(R), 1)
    np.testing.assert_allclose(R[0, 1:], rho[1:, 0])
    given_first = (R[1, 2] - R[0, 1] * R[0, 2]) / np.sqrt((1 - R[0, 1] ** 2) * (1 - R[0, 2] ** 2))
    assert given_first == pytest.approx(0.5)


def test_priors_of_partial_correlations_are_lkj_of_the_matrix():
    """LKJ(2) has a density proportional to |R|: of three numbers Beta(2.5) of two, Beta(2) of the partial one."""

    def matrix(p):
        L = full(mv.cholesky([1, 1, 1], [[], [p[0]], [p[1], p[2]]]))
        return (L @ L.T)[[0, 0, 1], [1, 2, 2]]

    def log_ratio(p):
        first, partial = (lkj(eta).parameters["alpha"] for eta in (2.5, 2.0))
        shares = [(first, p[0]), (first, p[1]), (partial, p[2])]
        log_prior = sum(stats.beta.logpdf((x + 1) / 2, a, a) for a, x in shares)
        slopes = [(matrix(p + e) - matrix(p - e)) / 2e-6 for e in 1e-6 * np.eye(3)]
        x, y, z = matrix(p)
        determinant = 1 + 2 * x * y * z - x**2 - y**2 - z**2
        return log_prior - np.linalg.slogdet(np.array(slopes))[1] - np.log(determinant)

    found = [log_ratio(1.8 * np.random.default_rng(seed).random(3) - 0.9) for seed in range(6)]
    np.testing.assert_allclose(found, found[0], atol=1e-7)


def test_draws_have_their_means_and_covariance():
    _, h = case(3)
    many = mv.population(h.isel(sample=0)).over(xr.DataArray(np.ones(60_000), dims="draw"))
    draws = many.sample(np.random.default_rng(1)).transpose("draw", "trait").values
    L = h.factor.isel(sample=0).values
    whitened = np.linalg.solve(L, (draws - h["mean"].values[0]).T)
    np.testing.assert_allclose(whitened.mean(axis=1), 0, atol=4 / np.sqrt(60_000))
    np.testing.assert_allclose(np.cov(whitened), np.eye(3), atol=4 * np.sqrt(2 / 60_000))


def test_density_of_a_population_is_joint():
    _, h = case(3)
    x = xr.DataArray([0.3, -0.2, 0.5], dims="trait")
    found = mv.population(h).log_density(x).values
    for s, value in enumerate(found):
        L = h.factor.values[s]
        assert value == pytest.approx(stats.multivariate_normal.logpdf(x.values, h["mean"].values[s], L @ L.T))


def test_random_draws_are_of_the_density():
    """Whitened by their own covariance; what was not measured is 0."""
    data, h = case(2, samples=1)
    lower, L = mv.pairs(2), h.factor.values[0]
    T, mean = L @ L.T, h["mean"].values[0]
    groups = [0] * 40_000
    S = data.S.values[groups]
    arguments = [np.ones(40_000), np.zeros(40_000), *mean, *(S[:, i, j] for i, j in lower), *(T[p] for p in lower)]
    S[:, 1, :], S[:, :, 1], S[:, 1, 1] = 0, 0, 1
    drawn = mv.random_of(2)(*arguments, rng=np.random.default_rng(2))
    assert (drawn[:, 1] == 0).all()
    z = (drawn[:, 0] - mean[0]) / np.sqrt(T[0, 0] + S[0, 0, 0])
    assert stats.kstest(z, "norm").pvalue > 1e-3
