"""The top of smooth functions of a few variables, many at once, and how sharp each is there."""

from collections.abc import Callable

import numpy as np

#: Of the differences that stand for derivatives.
STEP = 1e-3
MOST_STEPS, SHORTEST = 200, 1e-6
#: Nats at most between neighbours, so that a density of 0 next door is far below and not infinitely far.
LARGE = 1e8
#: Curvatures whose inverse root is no unit, but this one's is; and what changes nothing in a value.
FLATTEST, ROUNDING = 1e-2, 1e-14


def modes(log_f: Callable, start: np.ndarray, step: float = STEP) -> tuple[np.ndarray, np.ndarray]:
    """The mode of each function, and minus the curvature of its log there.

    Parameters
    ----------
    log_f : callable
        Logs of positive functions: from points [curve, point, dimension] to values [curve, point]; -inf or NaN where
        a function is 0.
    start : numpy.ndarray
        [curve, dimension], where each function is not 0. Lengths of order one should matter.
    step : float
        Length of the differences that stand for derivatives: the default where ``log_f`` is exact to rounding, 0.01
        where it is exact to six digits, as a simulator may be.

    Returns
    -------
    mode : numpy.ndarray
        [curve, dimension]
    curvature : numpy.ndarray
        [curve, dimension, dimension]; not positive definite where a function has no mode.

    Notes
    -----
    Newton's method, twice: in the given units, then in those of the curvature found, in which differences are
    neither long nor short. The mode is exact to about ``step``^2 standard deviations of the normal density there.

    Examples
    --------
    >>> mode, curvature = modes(lambda x: 4 * x[..., 0] - np.exp(x[..., 0]), np.zeros((1, 1)))
    >>> np.exp(mode).round(4).item(), curvature.round(4).item()
    (4.0, 4.0)
    """
    x, unit = start, np.broadcast_to(np.eye(start.shape[1]), (*start.shape, start.shape[1]))
    for _ in range(2):
        v, bend = climb(lambda v, x=x, unit=unit: log_f(x[:, None] + v @ unit.mT), np.zeros_like(start), step)
        x = x + (unit @ v[..., None])[..., 0]
        inverse = np.linalg.inv(unit)
        curvature = inverse.mT @ bend @ inverse
        values, vectors = np.linalg.eigh(curvature)
        unit = vectors / np.sqrt(np.maximum(values, FLATTEST))[:, None, :]
    return x, curvature


def climb(log_f: Callable, x: np.ndarray, step: float, most_steps: int = MOST_STEPS) -> tuple[np.ndarray, np.ndarray]:
    """Uphill along each axis of the curvature, no farther than a radius that learns.

    It ends where Newton's decrement, the way that is left in standard deviations (Boyd & Vandenberghe 2004, Convex
    Optimization, section 9.5), is shorter than the differences are exact.
    """
    value, gradient, curvature = derivatives(log_f, x, step)
    radius = np.ones(len(x))
    for _ in range(most_steps):
        values, vectors = np.linalg.eigh(curvature)
        slope = (vectors.mT @ gradient[..., None])[..., 0]
        along = slope / np.maximum(np.abs(values), step**4)
        if (((slope * along).sum(axis=1) < step**4) | (radius < SHORTEST)).all():
            break
        length = np.linalg.norm(along, axis=1)
        taken = np.minimum(length, radius)
        way = (vectors @ along[..., None])[..., 0] * (taken / np.where(length > 0, length, 1))[:, None]
        there = derivatives(log_f, x + way, step)
        better = there[0] >= value - ROUNDING * np.abs(value)
        radius = np.where(better, np.maximum(radius, 2 * taken), taken / 4)
        x, value = np.where(better[:, None], x + way, x), np.where(better, there[0], value)
        gradient = np.where(better[:, None], there[1], gradient)
        curvature = np.where(better[:, None, None], there[2], curvature)
    return x, curvature


def derivatives(log_f: Callable, x: np.ndarray, step: float = STEP) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Value [curve], gradient [curve, i] and minus curvature [curve, i, j] at x [curve, i].

    Central differences (Abramowitz & Stegun 1964, 25.3.21, 25.3.23, 25.3.27), exact for a quadratic.
    """
    size = x.shape[1]
    one, (i, j) = np.eye(size), np.tril_indices(size, -1)
    both = one[i] + one[j]
    f = log_f(x[:, None] + step * np.concatenate([np.zeros((1, size)), one, -one, both, -both]))
    f = np.nan_to_num(f, nan=-1e300, neginf=-1e300)
    above = np.clip(f[:, 1:] - f[:, :1], -LARGE, LARGE)
    up, down, up_both, down_both = np.split(above, np.cumsum([size, size, len(i)]), axis=1)
    alone, curvature = up + down, np.empty((*x.shape, size))
    curvature[:, range(size), range(size)] = -alone / step**2
    curvature[:, i, j] = (alone[:, i] + alone[:, j] - up_both - down_both) / (2 * step**2)
    curvature[:, j, i] = curvature[:, i, j]
    return f[:, 0], (up - down) / (2 * step), curvature
