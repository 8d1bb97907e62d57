"""Where the nodes of a cloud lie if a likelihood is large along a curve, or in several places.

Nodes around one top (`proposal`) miss most of such a likelihood. Their weights say where it is: a mixture of Student
t's is fitted to them, nodes are drawn of it, weighted, and the mixture is fitted to these in turn (population Monte
Carlo; Cappe, Douc, Guillin, Marin & Robert 2008, Stat Comput 18:447-459). Two parts with the population stay in it, a
wide one and a narrow one; a place that none of their nodes comes near is not found.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from hbm_zoo.group_level.proposal import NEAR, WIDER, log_standard_normal, standard_points
from hbm_zoo.group_level.student import log_student

#: Components of the mixture; steps of a fit; how much wider than the fit the mixture is, and how narrow it may be.
COMPONENTS, STEPS, WIDENED, NARROWEST = 8, 5, 1.3, 1e-3
#: Of one half of the defence the width over that of the population: for hyperparameters with smaller spreads.
NARROWER = 0.5


def adapted(log_f: Callable, nodes: tuple, seeds: np.ndarray, rounds: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Nodes [curve, node, deviate] after some rounds; log q and log f there [curve, node].

    Parameters
    ----------
    log_f : callable
        As of `proposal.standardised`.
    nodes : tuple
        A first proposal's, as `proposal.proposed` gives them.
    seeds : numpy.ndarray
        Of each curve's points [curve].
    rounds : int
        How often the mixture is fitted.
    """
    z, log_q, height = nodes
    mixture = None
    for turn in range(rounds):
        weight = _softmax(height - log_q)
        mixture = fitted(z, weight, mixture or _beginning(z, weight, turn))
        points = (standard_points(z.shape[-1], z.shape[1], int(seed) + turn + 1) for seed in seeds)
        z, log_q = _drawn(mixture, *(np.stack(part) for part in zip(*points, strict=True)))
        height = log_f(z)
    return z, log_q, height


def fitted(z: np.ndarray, weight: np.ndarray, mixture: tuple) -> tuple:
    """The mixture's shares [curve, part], means and factors of covariances, by weighted expectation-maximisation."""
    share, mean, factor = mixture
    for _ in range(STEPS):
        belongs = _softmax(_log_parts(z, share, mean, factor), axis=-1) * weight[..., None]
        share = belongs.sum(axis=1) + 1e-12
        mean = (belongs.mT @ z) / share[..., None]
        spread = np.stack([_covariance(z, belongs[..., k], mean[:, k]) for k in range(share.shape[1])], axis=1)
        factor = np.linalg.cholesky(spread / share[..., None, None] + NARROWEST * np.eye(z.shape[-1]))
        share = share / share.sum(axis=1, keepdims=True)
    return share, mean, factor


def _beginning(z: np.ndarray, weight: np.ndarray, seed: int) -> tuple:
    """Parts around some of the nodes, by their weights, each as wide as all of them are over the root of how many."""
    rng, curves = np.random.default_rng(seed), np.arange(len(z))[:, None]
    reached = np.cumsum(weight, axis=1)
    comb = (np.arange(COMPONENTS) + rng.random(COMPONENTS)) / COMPONENTS
    where = np.stack([np.searchsorted(r / r[-1], comb).clip(max=z.shape[1] - 1) for r in reached])
    middle = (weight[:, None] @ z)[:, 0]
    spread = _covariance(z, weight, middle) / COMPONENTS + NARROWEST * np.eye(z.shape[-1])
    factor = np.repeat(np.linalg.cholesky(spread)[:, None], COMPONENTS, axis=1)
    return np.full(where.shape, 1 / COMPONENTS), z[curves, where], factor


def _covariance(z: np.ndarray, weight: np.ndarray, mean: np.ndarray) -> np.ndarray:
    """Weighted squares around means [curve, deviate]."""
    away = z - mean[:, None]
    return (weight[..., None] * away).mT @ away


def _drawn(mixture: tuple, student: np.ndarray, normal: np.ndarray, u: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Nodes of the mixture and of the defence, and log q."""
    share, mean, factor = mixture
    factor, curves = WIDENED * factor, np.arange(len(u))[:, None]
    part = (u[..., None] / NEAR > np.cumsum(share, axis=1)[:, None]).sum(axis=-1).clip(max=share.shape[1] - 1)
    around = mean[curves, part] + (factor[curves, part] @ student[..., None])[..., 0]
    width = np.where(u < (1 + NEAR) / 2, WIDER, NARROWER)
    z = np.where((u < NEAR)[..., None], around, width[..., None] * normal)
    wide, narrow = (log_standard_normal(z / w) - z.shape[-1] * np.log(w) for w in (WIDER, NARROWER))
    log_defence = np.log((1 - NEAR) / 2) + np.logaddexp(wide, narrow)
    each = np.log(NEAR) + _log_parts(z, share, mean, factor)
    return z, np.logaddexp(np.logaddexp.reduce(each, axis=-1), log_defence)


def _log_parts(z: np.ndarray, share: np.ndarray, mean: np.ndarray, factor: np.ndarray) -> np.ndarray:
    """Log of each part's share of the density [curve, node, part]."""
    parts = []
    for k in range(share.shape[1]):
        away = (z - mean[:, None, k]) @ np.linalg.inv(factor[:, k]).mT
        parts.append(log_student(away) - np.linalg.slogdet(factor[:, k])[1][:, None] + np.log(share[:, k])[:, None])
    return np.stack(parts, axis=-1)


def _softmax(x: np.ndarray, axis: int = 1) -> np.ndarray:
    """Shares along an axis."""
    e = np.exp(x - x.max(axis=axis, keepdims=True))
    return e / e.sum(axis=axis, keepdims=True)
