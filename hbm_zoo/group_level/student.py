"""Draws of a multivariate Student t from uniform points, and its density: a proposal with tails."""

import numpy as np
from scipy import special

FREEDOM = 5


def student_points(u: np.ndarray) -> np.ndarray:
    """Points [node, dimension] of a t with `FREEDOM` degrees of freedom, scale I, from uniform ones with one more.

    Examples
    --------
    >>> student_points(np.full((1, 3), 0.5)).tolist()
    [[0.0, 0.0]]
    """
    u = np.clip(u, 1e-12, 1 - 1e-12)
    chi_square = 2 * special.gammaincinv(FREEDOM / 2, u[:, -1:])
    return special.ndtri(u[:, :-1]) * np.sqrt(FREEDOM / chi_square)


def log_student(x: np.ndarray) -> np.ndarray:
    """Its log density at points [..., dimension]."""
    size = x.shape[-1]
    constant = special.gammaln((FREEDOM + size) / 2) - special.gammaln(FREEDOM / 2) - size / 2 * np.log(FREEDOM * np.pi)
    return constant - (FREEDOM + size) / 2 * np.log1p((x**2).sum(axis=-1) / FREEDOM)
