"""Find the top of a smooth function of a few variables, and how sharp it is there."""

from collections.abc import Callable

import numpy as np
from scipy.optimize import minimize

STEP = 1e-3


def climb(height: Callable, dims: int) -> tuple[np.ndarray, np.ndarray]:
    """Newton's method in a trust region, then once more in the units of the curvature found."""
    u, unit, hessian = np.zeros(dims), np.ones(dims), np.empty((dims, dims))
    offsets, read = stencil(dims)
    for _ in range(2 if dims else 0):

        def derivatives(v, here=u, unit=unit):
            with np.errstate(invalid="ignore"):  # beside a point where nothing is defined there is no slope
                return [-d[0] for d in read(height(here + unit * (v + STEP * offsets))[None], STEP)]

        found = minimize(
            lambda v, d=derivatives: tuple(d(v)[:2]),
            np.zeros(dims),
            jac=True,
            hess=lambda v, d=derivatives: d(v)[2],
            method="trust-exact",
            options={"gtol": 1e-6},
        )
        u = u + unit * found.x
        hessian = -derivatives(found.x)[2] / np.outer(unit, unit)
        curvature = -np.diag(hessian)
        unit = np.where(curvature > 1, np.maximum(curvature, 1) ** -0.5, 1.0)
    return u, hessian


def stencil(dims: int) -> tuple[np.ndarray, Callable]:
    """Points around 0, and how to read value, gradient and Hessian off a function there.

    Central differences (Abramowitz & Stegun 1964, 25.3.21, 25.3.23, 25.3.27); exact for a quadratic.
    """
    one = np.eye(dims)
    pairs = [(i, j) for i in range(dims) for j in range(i)]
    both = np.array([one[i] + one[j] for i, j in pairs]).reshape(len(pairs), dims)
    offsets = np.concatenate([np.zeros((1, dims)), one, -one, both, -both])

    def read(values: np.ndarray, step: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        middle, up, down, up2, down2 = np.split(values, np.cumsum([1, dims, dims, len(pairs)]), axis=-1)
        hessian = np.zeros((*values.shape[:-1], dims, dims))
        hessian[..., range(dims), range(dims)] = (up - 2 * middle + down) / step**2
        for k, (i, j) in enumerate(pairs):
            alone = up[..., i] + down[..., i] + up[..., j] + down[..., j]
            mixed = (up2[..., k] + down2[..., k] - alone + 2 * middle[..., 0]) / (2 * step**2)
            hessian[..., i, j] = hessian[..., j, i] = mixed
        return middle[..., 0], (up - down) / (2 * step), hessian

    return offsets, read


def standard_errors(information: np.ndarray) -> np.ndarray:
    """Square roots of the diagonal of the inverse; NaN where the likelihood is flat or bends upwards."""
    if information.size and np.linalg.eigvalsh(information).min() > 0:
        return np.sqrt(np.diag(np.linalg.inv(information)))
    return np.full(len(information), np.nan)
