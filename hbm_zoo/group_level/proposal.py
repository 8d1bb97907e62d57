"""Where the nodes of a cloud lie: around the top of likelihood x population, and, as a defence, with the population.

In standardised units z = L^-1 (theta - mu) the proposal is

    0.7 t_5(mode, 1.5^2 inverse curvature) + 0.3 N(0, 1.5^2 I)

with mode and curvature of likelihood x N(z; 0, I), the curvature at least 0.2 in every direction. The second part is
a defence (Hesterberg 1995, Technometrics 37:185-194): a group of few data takes its nodes from the population.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import xarray as xr
from scipy import special
from scipy.stats import qmc

from hbm_zoo.group_level.newton import modes
from hbm_zoo.group_level.student import log_student, student_points
from hbm_zoo.group_level.weighted import MultivariateNormal

NEAR, WIDER, FLATTEST = 0.7, 1.5, 0.2
STARTS, STEP = 64, 0.01


def standard_points(dimensions: int, size: int, seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Points of a t and of a normal [node, deviate], and a share [node] below `NEAR` near the mode: scrambled Sobol."""
    u = qmc.Sobol(dimensions + 2, rng=seed).random(size)
    normal = special.ndtri(np.clip(u[:, :dimensions], 1e-12, 1 - 1e-12))
    return student_points(u[:, :-1]), normal, u[:, -1]


def standardised(log_likelihood: Callable, population: MultivariateNormal, curve: str) -> Callable:
    """Log p(y | mu + L z) + log N(z; 0, I) of points z [curve, point, deviate]; -inf where a simulator fails."""

    def log_f(z: np.ndarray) -> np.ndarray:
        theta = population.at(xr.DataArray(z, dims=(curve, "node", "deviate")))
        found = log_likelihood(theta).fillna(-np.inf).transpose(curve, "node", ...)
        return found.values.reshape(z.shape[:2]) + log_standard_normal(z)

    return log_f


def log_standard_normal(z: np.ndarray) -> np.ndarray:
    """Log N(z; 0, I) of points [..., deviate]."""
    return -(z**2 + np.log(2 * np.pi)).sum(axis=-1) / 2


def proposed(
    log_f: Callable, curves: int, points: tuple, top: tuple[np.ndarray, np.ndarray] | None = None
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Nodes [curve, node, deviate] of the proposal of each curve; log q and log f there [curve, node].

    ``points`` are as of `standard_points`, with a leading axis of one for all curves or one each.
    ``top``: mode and curvature [curve, deviate, ...], where they need not be looked for.
    """
    student, normal, near = points[0], points[1], points[2] < NEAR
    mode, curvature = top or modes(log_f, _start(log_f, curves, normal[:, :STARTS]), STEP)
    values, vectors = np.linalg.eigh(curvature)
    axes = WIDER * vectors / np.sqrt(np.maximum(values, FLATTEST))[:, None, :]
    z = np.where(near[..., None], mode[:, None] + student @ axes.mT, WIDER * normal)
    away = (z - mode[:, None]) @ np.linalg.inv(axes).mT
    log_near = np.log(NEAR) + log_student(away) - np.linalg.slogdet(axes)[1][:, None]
    log_defence = np.log(1 - NEAR) + log_standard_normal(z / WIDER) - z.shape[-1] * np.log(WIDER)
    return z, np.logaddexp(log_near, log_defence), log_f(z)


def _start(log_f: Callable, curves: int, normal: np.ndarray) -> np.ndarray:
    """The best of some points of the defence and its middle: a likelihood may have several tops."""
    starts = np.concatenate([np.zeros_like(normal[:, :1]), WIDER * normal], axis=1)
    starts = np.broadcast_to(starts, (curves, *starts.shape[1:]))
    return starts[np.arange(curves), log_f(starts).argmax(axis=1)]
