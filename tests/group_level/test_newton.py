"""Newton's method against modes and curvatures known in closed form, and against scipy's search."""

import numpy as np
import pytest
from scipy import stats
from scipy.optimize import minimize

from hbm_zoo.group_level.newton import LARGE, STEP, derivatives, modes


def quadratic(curvature, centre):
    """Log of a normal density of each curve, up to a constant."""

    def log_f(x):
        away = x - centre[:, None]
        return -0.5 * np.einsum("cni,cij,cnj->cn", away, curvature, away)

    return log_f


def test_derivatives_of_a_quadratic():
    curvature = np.array([[2.0, 0.7, -0.2], [0.7, 1.5, 0.3], [-0.2, 0.3, 0.9]])
    at = np.array([[0.4, -1.0, 2.0], [0.0, 0.0, 0.0]])
    for step in (STEP, 1.0):
        value, gradient, minus_bend = derivatives(
            lambda x: -0.5 * np.einsum("...i,ij,...j", x, curvature, x), at, step=step
        )
        np.testing.assert_allclose(value, [-0.5 * at[0] @ curvature @ at[0], 0])
        np.testing.assert_allclose(gradient, -at @ curvature, atol=1e-9)
        np.testing.assert_allclose(minus_bend, [curvature, curvature], atol=1e-8)


def test_derivatives_of_a_function_with_all_of_them():
    x, y = 0.3, -0.8
    value, gradient, minus_bend = derivatives(lambda p: np.exp(p[..., 0]) * np.sin(p[..., 1]), np.array([[x, y]]))
    f, g = np.exp(x) * np.sin(y), np.exp(x) * np.cos(y)
    assert value[0] == f
    np.testing.assert_allclose(gradient[0], [f, g], rtol=1e-6)
    np.testing.assert_allclose(minus_bend[0], [[-f, -g], [-g, f]], rtol=1e-5)


def test_correlated_normals_of_unequal_scales_one_of_them_far_away():
    rng = np.random.default_rng(1)
    scales = np.array([1e-3, 1.0, 50.0])
    correlation = np.array([[1, 0.9, -0.5], [0.9, 1, -0.3], [-0.5, -0.3, 1]])
    covariance = np.outer(scales, scales) * correlation
    information = np.broadcast_to(np.linalg.inv(covariance), (4, 3, 3))
    centre = rng.normal(size=(4, 3)) * scales
    start = centre + scales * np.array([[0.0], [1.0], [10.0], [1e4]])
    mode, curvature = modes(quadratic(information, centre), start)
    np.testing.assert_allclose((mode - centre) / scales, 0, atol=2e-6)
    np.testing.assert_allclose(np.linalg.inv(curvature) / covariance, 1, rtol=1e-4)


def banana(p):
    x, y = p[..., 0], p[..., 1]
    return -((1 - x) ** 2) - 100 * (y - x**2) ** 2


def test_a_banana_from_its_far_end():
    """Rosenbrock (1960); its Hessian at (1, 1) is [[802, -400], [-400, 200]]."""
    mode, curvature = modes(banana, np.array([[-1.2, 1.0], [3.0, -20.0], [-30.0, 5.0]]))
    np.testing.assert_allclose(mode, 1, atol=1e-5)
    np.testing.assert_allclose(curvature, np.broadcast_to([[802, -400], [-400, 200]], (3, 2, 2)), rtol=1e-4)


def test_a_poisson_regression_is_that_of_scipy():
    rng = np.random.default_rng(2)
    X = np.column_stack([np.ones(40), rng.normal(size=(40, 2))])
    y = rng.poisson(np.exp(X @ [1.0, 0.5, -0.7]), size=(3, 40))

    def log_f(beta):
        eta = beta @ X.T
        return (y[:, None] * eta - np.exp(eta)).sum(axis=-1) + stats.norm.logpdf(beta, 0, 2).sum(axis=-1)

    mode, curvature = modes(log_f, np.array([[0.0, 0, 0], [-3.0, 2, 2], [4.0, 0, 1]]))
    for k, beta in enumerate(mode):

        def gradient(b, k=k):
            return X.T @ (np.exp(X @ b) - y[k]) + b / 4

        def height(b, k=k):
            return -(y[k] * (X @ b) - np.exp(X @ b)).sum() + b @ b / 8

        found = minimize(height, np.zeros(3), jac=gradient, method="BFGS", options={"gtol": 1e-9})
        np.testing.assert_allclose(beta, found.x, atol=1e-6)
        information = X.T * np.exp(X @ beta) @ X + np.eye(3) / 4
        np.testing.assert_allclose(curvature[k], information, rtol=1e-5, atol=1e-4)


def test_mode_is_found_where_the_density_is_not_log_concave():
    student = stats.t(df=2, loc=[[-15.0], [40.0]])
    mode, curvature = modes(lambda x: student.logpdf(x[..., 0]), np.zeros((2, 1)))
    np.testing.assert_allclose(mode[:, 0], [-15, 40], atol=1e-6)
    np.testing.assert_allclose(curvature[:, 0, 0], 1.5, rtol=1e-5)


@pytest.mark.parametrize("nothing", [-np.inf, np.nan])
def test_where_the_density_is_0_is_no_obstacle(nothing):
    """A gamma of shape 1.5 and 40 in its own unit: 0 below 0, over which a step of Newton's goes."""
    shape = np.array([1.5, 40.0])

    def log_f(x):
        inside = x[..., 0] > 0
        safe = np.where(inside, x[..., 0], 1.0)
        return np.where(inside, (shape[:, None] - 1) * np.log(safe) - safe, nothing)

    mode, curvature = modes(log_f, np.array([[30.0], [STEP / 2]]))
    np.testing.assert_allclose(mode[:, 0], shape - 1, rtol=1e-5)
    np.testing.assert_allclose(curvature[:, 0, 0], 1 / (shape - 1), rtol=1e-4)


def test_a_difference_to_minus_infinity_is_large_not_infinite():
    value, gradient, bend = derivatives(lambda x: np.where(x[..., 0] > 0, -(x[..., 1] ** 2), -np.inf), np.zeros((1, 2)))
    assert value[0] < -1e200
    np.testing.assert_allclose(gradient, [[LARGE / (2 * STEP), 0]])
    assert np.isfinite(bend).all()


def test_no_dimensions():
    mode, curvature = modes(lambda x: np.array([[1.0], [2.0]]), np.zeros((2, 0)))
    assert mode.shape == (2, 0)
    assert curvature.shape == (2, 0, 0)


def test_a_function_exact_to_six_digits_takes_longer_differences():
    noise = np.random.default_rng(3)

    def log_f(x):
        exact = -0.5 * ((x[..., 0] - 2) / 3) ** 2
        return exact + 1e-6 * noise.uniform(-1, 1, exact.shape)

    mode, curvature = modes(log_f, np.zeros((5, 1)), step=0.01)
    np.testing.assert_allclose(mode, 2, atol=1e-2)
    np.testing.assert_allclose(curvature, 1 / 9, rtol=0.05)
