"""An experiment with relatives: all that its data say of two variances, from eigenvalues that are found once.

    y = X b + a + e,   a ~ N(0, sigma_A^2 K),   e ~ N(0, sigma_E^2 I)

N is an orthonormal basis of what the columns of X leave out, and N'KN = U diag(d) U'. The error contrasts q = U'N'y
know nothing of b and are independent, q_k ~ N(0, v_k) with v_k = sigma_A^2 d_k + sigma_E^2. Their density, with b
integrated out under a flat prior, is that of restricted maximum likelihood (Patterson & Thompson 1971, Biometrika
58:545-554). It has no log |R| of X = QR, which would carry the unit of a covariate. Equal d_k share one sum of squares:
a balanced set of half sibs has two, those of the analysis of variance.

Let W = N U. Breeding values are known up to a normal, E[a | y] = sigma_A^2 K W (q / v), and a row given the others,
with P = W diag(1/v) W', has residual (P y)_i / P_ii and variance 1 / P_ii (Dubrule 1983, Math Geol 15:687-699).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from types import MappingProxyType

import numpy as np
import xarray as xr
from scipy.linalg import eigh
from scipy.optimize import minimize_scalar

from hbm_zoo.group_level.relationship import breeding_values, relationship

LOG_2PI = float(np.log(2 * np.pi))
SAME = 1e-9  # Relative, of eigenvalues.
NO_RANK = 1e-8  # Of P_ii v: a row that alone tells of a fixed effect.
SPAN_LEAST = 1e-9  # Of a column of X, relative to its size: a smaller one is of rounding.
GRID_OF_H2 = np.linspace(0, 1, 201)


@dataclass(frozen=True)
class Design:
    """All of an experiment but its response.

    Attributes
    ----------
    sire, dam, mendelian, A
        The pedigree of all animals, parents first, and what follows from it (`relationship`).
    row
        The animal of each row.
    Q
        Orthonormal basis of the columns of X [row, effect].
    W, d
        Eigenvectors [row, contrast], in the order of eigenvalues d.
    """

    sire: np.ndarray
    dam: np.ndarray
    mendelian: np.ndarray
    A: np.ndarray
    row: np.ndarray
    Q: np.ndarray
    W: np.ndarray
    d: np.ndarray


def design(X: np.ndarray, sire: np.ndarray, dam: np.ndarray, row: np.ndarray) -> Design:
    """The design of an experiment; the same again costs nothing."""
    arrays = np.ascontiguousarray(X, float), *(np.ascontiguousarray(each, np.int64) for each in (sire, dam, row))
    return _design(X.shape, *(each.tobytes() for each in arrays))


@lru_cache(maxsize=64)
def _design(shape: tuple[int, int], *held: bytes) -> Design:
    X = np.frombuffer(held[0]).reshape(shape)
    sire, dam, row = (np.frombuffer(each, np.int64) for each in held[1:])
    A, mendelian = relationship(sire, dam)
    centre, unit = units(X)
    left, values, _ = np.linalg.svd((X - centre) / unit, full_matrices=True)
    rank = int((values > 1e-10 * max(shape)).sum())
    N = left[:, rank:]
    d, U = eigh(N.T @ A[np.ix_(row, row)] @ N, driver="evd")  # which two busy cores do not bring to a halt
    return Design(sire, dam, mendelian, A, row, left[:, :rank], N @ U, np.maximum(d, 0.0))


def units(X: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Centre and unit of each column of X [row, effect]; the first, of ones, makes up for the centres.

    So a year of our era, or a time in nanoseconds, is no second mean.

    Examples
    --------
    >>> [part.tolist() for part in units(np.array([[1.0, 2001.0, 0.0], [1.0, 2005.0, 0.0]]))]
    [[0.0, 2003.0, 0.0], [1.0, 4.0, 1.0]]
    """
    size, span = abs(X).max(axis=0), np.ptp(X, axis=0)
    varies = span > SPAN_LEAST * size
    return X.mean(axis=0) * varies, np.where(varies, span, np.where(size > 0, size, 1.0))


def experiment(data: xr.Dataset, j: int) -> tuple[Design, np.ndarray, np.ndarray]:
    """One site of prepared data: its design, its response, and the positions of its animals among all."""
    of, sire, dam, row = (data[name].values for name in ("site_of", "sire", "dam", "row"))
    here = of == j
    wanted = new = np.unique(row[here])
    while new.size:
        parents = np.unique(np.r_[sire[new], dam[new]])
        new = np.setdiff1d(parents[parents >= 0], wanted)
        wanted = np.union1d(wanted, new)
    at = np.full(sire.size + 1, -1)  # and of a parent that is not known, -1
    at[wanted] = np.arange(wanted.size)
    one = design(data["X"].values[here], at[sire[wanted]], at[dam[wanted]], at[row[here]])
    return one, data["response"].values[here], wanted


def grouped(d: np.ndarray, q: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Distinct eigenvalues d, how many contrasts each has, and their sum of squares.

    Examples
    --------
    >>> d, n, SS = grouped(np.array([0.75, 0.75, 2.0]), np.array([1.0, 2.0, 3.0]))
    >>> d.tolist(), n.tolist(), SS.tolist()
    ([0.75, 2.0], [2, 1], [5.0, 9.0])
    """
    if not d.size:
        return d, np.empty(0, np.int64), d
    first = _first_of_each(d)
    n = np.diff(np.r_[first, d.size])
    return np.add.reduceat(d, first) / n, n, np.add.reduceat(q**2, first)


def _first_of_each(d: np.ndarray) -> np.ndarray:
    """Where each distinct eigenvalue begins, of those in order."""
    return np.r_[0, np.flatnonzero(np.diff(d) > SAME * (1 + d[1:])) + 1]


def log_density(sigma_A: np.ndarray, sigma_E: np.ndarray, d: np.ndarray, n: np.ndarray, SS: np.ndarray) -> np.ndarray:
    """Log density of the error contrasts [...], of eigenvalues [k] with counts and sums of squares [nats]."""
    v = np.asarray(sigma_A)[..., None] ** 2 * d + np.asarray(sigma_E)[..., None] ** 2
    return -((n * (LOG_2PI + np.log(v)) + SS / v).sum(axis=-1)) / 2


def restricted_maximum(d: np.ndarray, n: np.ndarray, SS: np.ndarray) -> tuple[float, float, float]:
    """The largest density of the contrasts: sigma_A, sigma_E, either may be exactly 0, and its log [nats].

    Searched over h^2 = sigma_A^2 / (sigma_A^2 + sigma_E^2) in [0, 1], the whole variance solved for.

    Examples
    --------
    Of half sibs with mean squares 2 within and 3 between eight families of ten, as the analysis of variance has it:

    >>> sigma_A, sigma_E, _ = restricted_maximum(np.array([0.75, 3.25]), np.array([72, 7]), np.array([144.0, 21.0]))
    >>> round(sigma_A**2, 6), 4 * (3 - 2) / 10
    (0.4, 0.4)
    """
    total = n.sum()

    def parts(h2):
        with np.errstate(divide="ignore", invalid="ignore"):
            v = np.asarray(h2)[..., None] * d + 1 - np.asarray(h2)[..., None]
            whole = (SS / v).sum(axis=-1) / total
            height = -(n * np.log(v)).sum(axis=-1) / 2 - total / 2 * (np.log(whole) + 1 + LOG_2PI)
        return whole, np.where(np.isfinite(height), height, -np.inf)

    heights = parts(GRID_OF_H2)[1]
    best = int(heights.argmax())
    ends = GRID_OF_H2[max(best - 1, 0)], GRID_OF_H2[min(best + 1, GRID_OF_H2.size - 1)]
    inside = minimize_scalar(lambda h2: -parts(h2)[1], bounds=ends, method="bounded", options={"xatol": 1e-12}).x
    h2 = max((0.0, float(inside), 1.0), key=lambda h2: parts(h2)[1] + (1e-9 if h2 in (0, 1) else 0))
    whole, height = parts(h2)
    return float(np.sqrt(h2 * whole)), float(np.sqrt((1 - h2) * whole)), float(height)


def given_others(
    one: Design, y: np.ndarray, sigma_A: np.ndarray, sigma_E: np.ndarray, rows: slice | Sequence[int] = slice(None)
) -> np.ndarray:
    """Log density of rows given all others [..., row] [nats]; NaN of one that alone tells of a fixed effect."""
    first, W = _first_of_each(one.d), one.W[rows]
    d = np.add.reduceat(one.d, first) / np.diff(np.r_[first, one.d.size])
    w = 1 / (np.asarray(sigma_A)[..., None] ** 2 * d + np.asarray(sigma_E)[..., None] ** 2)
    precision, Py = (w @ np.add.reduceat(part, first, axis=1).T for part in (W**2, W * (one.W.T @ y)))
    alone = (W**2).sum(axis=1) < NO_RANK
    with np.errstate(divide="ignore", invalid="ignore"):
        found = (np.log(precision) - LOG_2PI - Py**2 / precision) / 2
    return np.where(alone, np.nan, found)


def drawn(rng: np.random.Generator, one: Design, y: np.ndarray, sigma_A: np.ndarray, sigma_E: np.ndarray):
    """Breeding values [draw, animal] and X b [draw, row] after the data, one of each for each draw of the variances.

    What the prior would draw, corrected by the contrasts that it misses (Matheron's rule; Journel & Huijbregts 1978,
    Mining geostatistics, p. 495); of b, which has a flat prior, what the rest leaves of y.
    """
    a, e = fresh(rng, one, sigma_A, sigma_E)
    missed = (y - a[:, one.row] - e) @ one.W / (sigma_A[:, None] ** 2 * one.d + sigma_E[:, None] ** 2)
    a = a + sigma_A[:, None] ** 2 * (missed @ (one.A[:, one.row] @ one.W).T)
    e = e + sigma_E[:, None] ** 2 * (missed @ one.W.T)
    return a, ((y - a[:, one.row] - e) @ one.Q) @ one.Q.T


def fresh(
    rng: np.random.Generator,
    one: Design,
    sigma_A: np.ndarray,
    sigma_E: np.ndarray,
    known: Mapping[int, np.ndarray] = MappingProxyType({}),
):
    """Breeding values [draw, animal] and errors [draw, row] before any data, but for what is known of some animals."""
    a = breeding_values(rng, one.sire, one.dam, one.mendelian, sigma_A, known)
    return a, sigma_E[:, None] * rng.standard_normal((sigma_A.size, one.row.size))


def predicted(one: Design, y: np.ndarray, sigma_A: np.ndarray, sigma_E: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean and variance of the breeding values [draw, animal] given the variances.

    Best linear unbiased prediction (Henderson 1975, Biometrics 31:423-447).
    """
    w = 1 / (sigma_A[:, None] ** 2 * one.d + sigma_E[:, None] ** 2)
    KW = one.A[:, one.row] @ one.W
    mean = sigma_A[:, None] ** 2 * ((w * (one.W.T @ y)) @ KW.T)
    variance = sigma_A[:, None] ** 2 * np.diag(one.A) - sigma_A[:, None] ** 4 * (w @ (KW**2).T)
    return mean, np.maximum(variance, 0.0)
