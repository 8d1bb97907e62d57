"""Integrals of a few smooth, single-peaked functions at once, in a few dimensions."""

from __future__ import annotations

from collections.abc import Callable
from itertools import product

import numpy as np
from numpy.polynomial.hermite_e import hermegauss

NODES_IN_ALL = 125
NODES_A_DIMENSION = (3, 21)
STEP = 0.01
MOST_STEPS = 200


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
    mode, curvature = modes(log_f, curves, size)
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


def modes(log_f: Callable, curves: int, size: int) -> tuple[np.ndarray, np.ndarray]:
    """The mode of each function [curve, dimension] by Newton's method, and minus the curvature of its log there.

    A step goes uphill along every axis of the curvature and no farther than a radius that
    doubles after a success and shrinks after a failure.
    """
    x, radius = np.zeros((curves, size)), np.ones(curves)
    value, gradient, curvature = derivatives(log_f, x)
    for _ in range(MOST_STEPS):
        values, vectors = np.linalg.eigh(curvature)
        step = np.einsum("cij,cj,ckj,ck->ci", vectors, 1 / np.maximum(np.abs(values), 1e-3), vectors, gradient)
        length = np.linalg.norm(step, axis=1)
        if (np.minimum(length, radius) < STEP).all():
            break
        step *= np.minimum(1, radius / np.maximum(length, STEP))[:, None]
        there = derivatives(log_f, x + step)
        better = there[0] > value
        radius = np.where(better, 2 * radius, radius / 4)
        x = np.where(better[:, None], x + step, x)
        value, gradient = np.where(better, there[0], value), np.where(better[:, None], there[1], gradient)
        curvature = np.where(better[:, None, None], there[2], curvature)
    return x, curvature


def derivatives(log_f: Callable, x: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Value [curve], gradient [curve, i] and minus curvature [curve, i, j] at x, by central differences."""
    size = x.shape[1]
    unit = np.eye(size)
    pairs = [(i, j) for i in range(size) for j in range(i + 1)]
    both = [sign * (unit[i] + unit[j]) for sign in (1, -1) for i, j in pairs]
    f = log_f(x[:, None, :] + STEP * np.array([np.zeros(size), *unit, *-unit, *both]))
    value, up, down, up_both, down_both = np.split(f, np.cumsum([1, size, size, len(pairs)]), axis=1)
    value, alone = value[:, 0], up + down
    curvature = np.empty((len(x), size, size))
    for k, (i, j) in enumerate(pairs):
        bend = alone[:, i] + alone[:, j] - up_both[:, k] - down_both[:, k] - 2 * value
        curvature[:, i, j] = curvature[:, j, i] = bend / (2 * STEP**2)
    return value, (up - down) / (2 * STEP), curvature
