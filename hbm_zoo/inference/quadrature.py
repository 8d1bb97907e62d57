"""Integrals of a few smooth, single-peaked functions at once, in a few dimensions."""

from __future__ import annotations

from collections.abc import Callable
from itertools import product

import numpy as np
from numpy.polynomial.hermite_e import hermegauss

from hbm_zoo.group_level.newton import modes

NODES_IN_ALL = 125
NODES_A_DIMENSION = (3, 21)


def quadrature(log_f: Callable, curves: int, size: int, finer: int = 1) -> tuple[np.ndarray, np.ndarray]:
    """Gauss-Hermite nodes around the mode of each function, and its log mass at each node.

    Parameters
    ----------
    log_f : callable
        Logs of positive functions of the whole line: from points [curve, point, dimension] to
        values [curve, point]. Lengths of order one matter; the mode is looked for from 0.
    curves, size : int
        Number of functions and of dimensions.
    finer : int
        So many times the nodes in each dimension.

    Returns
    -------
    nodes : numpy.ndarray
        [curve, node, dimension]
    log_weights : numpy.ndarray
        [curve, node]; their logsumexp over nodes is the log of a function's integral.

    Notes
    -----
    Naylor & Smith (1982), J R Stat Soc C 31:214-225: exact for a normal density times a polynomial,
    whose degree is less than twice the nodes a dimension (21, 11, 5 in 1, 2, 3 dimensions).

    Examples
    --------
    >>> nodes, log_weights = quadrature(lambda x: -0.5 * (x[..., 0] - 3) ** 2, curves=1, size=1)
    >>> round(float(np.exp(log_weights).sum()) ** 2 / np.pi, 6)
    2.0
    """
    mode, curvature = modes(log_f, np.zeros((curves, size)))
    values, vectors = np.linalg.eigh(curvature)
    values = np.maximum(values, 1e-6)
    z, log_w = standard_nodes(size, finer)
    nodes = mode[:, None, :] + np.einsum("nd,ckd->cnk", z, vectors / np.sqrt(values[:, None, :]))
    return nodes, log_f(nodes) + log_w - 0.5 * np.log(values).sum(axis=1, keepdims=True)


def standard_nodes(size: int, finer: int = 1) -> tuple[np.ndarray, np.ndarray]:
    """Nodes z [node, dimension] and log weights [node] such that the integral of f is sum exp(log weight) f(z)."""
    order = finer * int(np.clip(np.floor(NODES_IN_ALL ** (1 / max(size, 1)) + 1e-9), *NODES_A_DIMENSION))
    z, w = hermegauss(order)
    log_w = np.log(w) + z**2 / 2
    points = np.array(list(product(z, repeat=size)))
    return points, np.array([sum(each) for each in product(log_w, repeat=size)])
