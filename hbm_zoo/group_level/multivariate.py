"""Normal measurements of one to four numbers at once, of a normal population, some of them not measured.

    b_t | beta_t ~ N(beta_t, S_t),    S_t the covariance of the measurements' errors
    beta_t       ~ N(mu, T),          T = D R D, D the sds tau on the diagonal

R comes from canonical partial correlations rho_ij, of i and j given all before i: any values in (-1, 1) are a
correlation matrix, and its row i of the Cholesky factor is their product (Lewandowski, Kurowicka & Joe 2009, J Multivar
Anal 100:1989-2001). Of two numbers rho_12 is their correlation.

What was not measured is an entry with an error of 1 of its own, a mean of 0 and no covariance: it adds nothing to the
determinant, nor to the squares. With T = L L' and P the inverse of S_t, 0 where nothing was measured,

    beta_t | b_t ~ N(mu + V P (b_t - mu), V),    V = L (I + L' P L)^-1 L',

so that T is never inverted: T = 0, and a year without data, are not special. Gelman et al., BDA3, section 3.5.

Data hold ``b``, ``measured`` [group, trait], ``S``, ``P`` [group, trait, other].
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np
import pytensor.tensor as pt
import xarray as xr
from scipy import special

from hbm_zoo.group_level.evaluate import evaluate
from hbm_zoo.group_level.normal import LOG_2PI
from hbm_zoo.group_level.populations import Normal

VECTOR, MATRIX = ["trait"], ["trait", "other"]


def pairs(size: int) -> list[tuple[int, int]]:
    """Positions of the lower triangle, row by row.

    Examples
    --------
    >>> pairs(2)
    [(0, 0), (1, 0), (1, 1)]
    """
    return [(i, j) for i in range(size) for j in range(i + 1)]


def cholesky(tau: Sequence, rho: Sequence[Sequence]) -> list[list]:
    """The rows of L, T = L L', from sds and the partial correlations rho[i][j] of i with an earlier j."""
    rows = []
    for i, sd in enumerate(tau):
        left, row = 1.0, []
        for j in range(i):
            row.append(sd * rho[i][j] * left)
            left = left * (1 - rho[i][j] ** 2) ** 0.5
        rows.append([*row, sd * left])
    return rows


def covariance(L: Sequence[Sequence]) -> dict[tuple[int, int], object]:
    """The lower triangle of L L'."""
    return {(i, j): sum(L[i][k] * L[j][k] for k in range(j + 1)) for i, j in pairs(len(L))}


@cache
def log_density_of(size: int) -> Callable:
    """Log N(b; mu, T + S) over what was measured [nats], of so many numbers, all arguments one by one.

    In this order: b, measured, mu, and the lower triangles, row by row, of S and of T. One number after another is
    taken out of the squares and of the covariance of those that follow: Gauss's elimination.
    """
    lower = pairs(size)

    def log_density(*flat):
        b, measured, mu = (flat[k * size : (k + 1) * size] for k in range(3))
        S, T = (dict(zip(lower, flat[start:], strict=False)) for start in (3 * size, 3 * size + len(lower)))
        C = {(i, j): measured[i] * measured[j] * T[i, j] + S[i, j] for i, j in lower}
        away = [measured[i] * (b[i] - mu[i]) for i in range(size)]
        total = sum(measured) * LOG_2PI
        for k in range(size):
            total = total + pt.log(C[k, k]) + away[k] ** 2 / C[k, k]
            for i in range(k + 1, size):
                share = C[i, k] / C[k, k]
                away[i] = away[i] - share * away[k]
                for j in range(k + 1, i + 1):
                    C[i, j] = C[i, j] - share * C[j, k]
        return -0.5 * total

    return log_density


@cache
def logp_of(size: int) -> Callable:
    """The same as PyMC calls it: b [..., trait] first."""
    log_density = log_density_of(size)
    return lambda value, *others: log_density(*(value[..., i] for i in range(size)), *others)


@cache
def random_of(size: int) -> Callable:
    """Draws of b [..., trait] from the same arguments but b; what was not measured is 0."""
    lower, traits = pairs(size), size

    def random(*flat, rng=None, size=None):
        arrays = np.broadcast_arrays(*flat)
        measured, mu = (np.stack(arrays[k * traits : (k + 1) * traits], axis=-1) for k in range(2))
        S, T = (_full(arrays[start : start + len(lower)], traits) for start in (2 * traits, 2 * traits + len(lower)))
        L = np.linalg.cholesky(S + T * measured[..., None] * measured[..., None, :])
        return measured * (mu + (L @ rng.standard_normal((*mu.shape, 1)))[..., 0])

    return random


def _full(triangle: Sequence[np.ndarray], size: int) -> np.ndarray:
    """A symmetric matrix [..., i, j] from its lower triangle."""
    by_pair = dict(zip(pairs(size), triangle, strict=True))
    rows = [np.stack([by_pair[max(i, j), min(i, j)] for j in range(size)], axis=-1) for i in range(size)]
    return np.stack(rows, axis=-2)


@dataclass(frozen=True)
class Vector(Normal):
    """Normals [..., trait] that are correlated, by a factor F [..., trait, other] of their covariance F F'."""

    factor: xr.DataArray

    @classmethod
    def from_factor(cls, mean: xr.DataArray, factor: xr.DataArray) -> Vector:
        """From the mean and the factor alone."""
        return cls(mean, (factor**2).sum("other") ** 0.5, factor)

    def cells(self):
        """Each number alone."""
        return Normal(self.mean, self.sd).cells()

    def sample(self, rng):
        """One draw of all together."""
        mean, sd = xr.broadcast(self.mean, self.sd)
        z = mean.copy(data=rng.standard_normal(mean.shape)).rename(trait="other")
        return (mean + xr.dot(self.factor, z.drop_vars("other", errors="ignore"), dim="other")).transpose(..., "trait")

    def log_density(self, x):
        """Of all numbers together [nats]."""

        def log_density(away, factor):
            z = np.linalg.solve(factor, away[..., None])[..., 0]
            return -0.5 * (z**2 + LOG_2PI).sum(axis=-1) - np.linalg.slogdet(factor)[1]

        return xr.apply_ufunc(log_density, x - self.mean, self.factor, input_core_dims=[VECTOR, MATRIX])


def population(h):
    """Theta ~ N(mean, factor factor')."""
    return Vector.from_factor(h["mean"], h.factor)


def conditional(h, data):
    """Mean and factor of theta | b: mean + V P (b - mean), and V's, which is L C'^-1 with I + L' P L = C C'."""
    away = data.measured * (data.b - h["mean"])
    shift, factor = xr.apply_ufunc(
        after, away, h.factor, data.P, input_core_dims=[VECTOR, MATRIX, MATRIX], output_core_dims=[VECTOR, MATRIX]
    )
    return xr.Dataset({"mean": h["mean"] + shift, "factor": factor})


def after(away, L, P):
    """V P away, and a factor of V, of arrays [..., trait] and [..., trait, other]."""
    C = np.linalg.cholesky(np.eye(L.shape[-1]) + _t(L) @ P @ L)
    factor = _t(np.linalg.solve(C, _t(L)))
    shift = (factor @ (_t(factor) @ (P @ away[..., None])))[..., 0]
    return shift, np.broadcast_to(factor, (*shift.shape, shift.shape[-1]))


def reliability(h, data):
    """Kappa_k = 1 - V_kk / T_kk of each number, 0 where the population is a point: u (I + M)^-1 M u', M = L' P L.

    u is the row of L over its length, the sd.
    """

    def weight(L, P):
        sd = np.sqrt((L**2).sum(axis=-1, keepdims=True))
        u = L / np.where(sd > 0, sd, 1.0)
        M = _t(L) @ P @ L
        return (u * (u @ np.linalg.solve(np.eye(L.shape[-1]) + M, M))).sum(axis=-1)

    return xr.apply_ufunc(weight, h.factor, data.P, input_core_dims=[MATRIX, MATRIX], output_core_dims=[VECTOR])


def tails(h, data):
    """Probabilities of no more than what was measured, each number given those before it, and of no less; else NaN."""
    return tails_of(data, h["mean"], squared(h.factor, "other"))


def tails_of(data, mean, V):
    """The same of numbers that come from N(mean, V)."""

    def scores(away, V, S, measured):
        both = measured[..., :, None] * measured[..., None, :]
        C = np.linalg.cholesky(S + both * V)
        return np.where(measured > 0, np.linalg.solve(C, away[..., None])[..., 0], np.nan)

    away, dims = data.measured * (data.b - mean), [VECTOR, MATRIX, MATRIX, VECTOR]
    white = xr.apply_ufunc(scores, away, V, data.S, data.measured, input_core_dims=dims, output_core_dims=[VECTOR])
    return special.ndtr(white), special.ndtr(-white)


def _t(matrix):
    return np.swapaxes(matrix, -1, -2)


def log_marginal(h, data):
    """Log p(b_t | mu, T) of what was measured [nats]."""
    return log_density(data, h["mean"], squared(h.factor, "other"))


def log_likelihood(theta, h, data):
    """Log N(b_t; theta_t, S_t) of what was measured [nats]."""
    return log_density(data, theta, xr.zeros_like(data.S, dtype=float))


def expected_log_likelihood(h, data):
    """Its mean over theta | b: the squares grow by the trace of P V."""
    known = conditional(h, data)
    return averaged(known["mean"], squared(known.factor, "other"), data)


def averaged(mean, V, data):
    """The log likelihood of each group averaged over N(mean, V) [nats]."""
    return log_likelihood(mean, None, data) - 0.5 * xr.dot(data.P, V, dim=MATRIX)


def squared(factor, source):
    """F F' [..., trait, other] of a factor F with its chances along a dim."""
    other = factor.rename(trait="also").drop_vars("also", errors="ignore")
    return xr.dot(factor, other, dim=source).rename(also="other")


def log_density(data, mean, T):
    """Log N(b; mean, T + S) of what was measured, number by number [nats]."""
    size = data.sizes["trait"]

    def each(vector):
        return [vector.isel(trait=i, drop=True) for i in range(size)]

    def entries(matrix):
        return [matrix.isel(trait=i, other=j, drop=True) for i, j in pairs(size)]

    return evaluate(
        log_density_of(size), *each(data.b), *each(data.measured), *each(mean), *entries(data.S), *entries(T)
    )
