"""What a network says over time: how much of each species there is, at many rates at once.

A linear network, dx/dt = K x, is solved by the exponential of its matrix. Where two species only are ever consumed,
and what is lost of them comes to one more, that is a formula: with the eigenvalues -l1, -l2 of their block (of a
compartment system real; Anderson 1983, Compartmental Modeling and Tracer Kinetics, section 12)

    x(t) = exp(-l1 t) x0 + t exp(-l1 t) g((l2 - l1) t) (K x0 + l1 x0),  g(x) = (1 - exp(-x))/x,

Newton's form of the exponential on two eigenvalues, finite where they meet; the rest is in the third species. Other
linear networks have the eigenvectors of their matrix or, where it has too few of them, its exponential by scaling and
squaring (Al-Mohy & Higham 2009, SIAM J Matrix Anal Appl 31:970-989). What is not linear is solved by steps (`steps`).
"""

from __future__ import annotations

import warnings

import numpy as np
from scipy.linalg import expm

from hbm_zoo.group_level.equations import Equations
from hbm_zoo.group_level.network import Network
from hbm_zoo.group_level.one_compartment import g
from hbm_zoo.group_level.steps import by_steps

#: Of coefficients on eigenvectors over what there is: beyond it too many digits are lost.
LARGEST = 1e6
#: Of what there is, how far below 0 rounding, and steps, may bring a species.
ROUNDING, OF_STEPS = 1e-9, 1e-5


def solution(network: Network | Equations, rates: np.ndarray, start: np.ndarray, time: np.ndarray) -> np.ndarray:
    """How much there is [..., instant, species].

    Parameters
    ----------
    network : Network or Equations
        The reactions.
    rates : numpy.ndarray
        [..., rate]
    start : numpy.ndarray
        What there is at time 0 [..., species].
    time : numpy.ndarray
        [..., instant], not negative.

    Returns
    -------
    numpy.ndarray
        Never negative; NaN where a rate is too large or too small for a number, and where there is no solution.

    Warns
    -----
    RuntimeWarning
        If equations have no solution at some rates, or one below 0: at which.

    Examples
    --------
    >>> from hbm_zoo.group_level.network import network
    >>> x = solution(network("A -> B"), np.array([np.log(2)]), np.array([1.0, 0.0]), np.array([0.0, 1.0, 2.0]))
    >>> x.round(3).tolist()
    [[1.0, 0.0], [0.5, 0.5], [0.25, 0.75]]
    """
    with np.errstate(all="ignore"):
        if isinstance(network, Network) and network.linear:
            found, off = (_by_two if network.pair else by_matrix)(network, rates, start, time), ROUNDING
        else:
            found, off = by_steps(network, rates, start, time), OF_STEPS
        found[found < -off * start.sum(axis=-1)[..., None, None]] = np.nan
        if off == OF_STEPS:
            _name_unsolved(network, rates, found)
        return np.maximum(found, 0.0, out=found)


def _name_unsolved(network: Network | Equations, rates: np.ndarray, found: np.ndarray) -> None:
    """Warn of numbers for rates at which there is no solution."""
    is_number = (np.isfinite(rates) & (rates > 0)).all(axis=-1)
    lost = np.argwhere(np.isnan(found).any(axis=(-2, -1)) & is_number)
    if len(lost):
        rates = np.broadcast_to(rates, (*found.shape[:-2], rates.shape[-1]))
        at = ", ".join(f"{name} = {k:.3g}" for name, k in zip(network.rates, rates[tuple(lost[0])], strict=True))
        more = f", nor at {len(lost) - 1} others" if len(lost) > 1 else ""
        warnings.warn(
            f"{network.text} has no solution of amounts, 0 or above, at {at}{more}: they count as impossible.",
            RuntimeWarning,
            stacklevel=2,
        )


def _by_two(network: Network, rates: np.ndarray, start: np.ndarray, time: np.ndarray) -> np.ndarray:
    i, j, last = network.pair  # type: ignore[misc]
    a, b, c, d = ((rates[..., which] @ often)[..., None] for which, often in network.block)
    x, y = start[..., i, None], start[..., j, None]
    half, root = -(a + d) / 2, np.sqrt((a - d) ** 2 / 4 + b * c)
    slow = (a * d - b * c) / (half + root)
    decay = np.exp(-slow * time)
    bent = time * decay * g(2 * root * time)
    found = np.empty((*np.broadcast_shapes(bent.shape, x.shape), 3))
    found[..., i] = decay * x + bent * ((a + slow) * x + b * y)
    found[..., j] = decay * y + bent * (c * x + (d + slow) * y)
    found[..., last] = start.sum(axis=-1)[..., None] - found[..., i] - found[..., j]
    return found


def by_matrix(network: Network, rates: np.ndarray, start: np.ndarray, time: np.ndarray) -> np.ndarray:
    """The same of any network, by eigenvectors, or by the exponential itself where they are too few."""
    K = np.tensordot(rates, network.parts, axes=1)
    outer = np.broadcast_shapes(K.shape[:-2], start.shape[:-1], time.shape[:-1])
    fine = np.isfinite(K).all(axis=(-2, -1))
    values, vectors = np.linalg.eig(np.where(fine[..., None, None], K, np.eye(K.shape[-1])))
    vectors, values = (np.broadcast_to(part, outer + part.shape[K.ndim - 2 :]) for part in (vectors, values))
    start, time = np.broadcast_to(start, outer + start.shape[-1:]), np.broadcast_to(time, outer + time.shape[-1:])
    few = abs(np.linalg.det(vectors)) < 1 / LARGEST
    along = np.linalg.solve(
        np.where(few[..., None, None], np.eye(K.shape[-1]), vectors), start[..., None] + 0 * values[..., None]
    )
    few |= abs(along).max(axis=(-2, -1)) > LARGEST * abs(start).max(axis=-1)
    found = np.real((np.exp(time[..., None] * values[..., None, :]) * along[..., None, :, 0]) @ vectors.mT)
    fine = np.broadcast_to(fine, outer)
    K = np.broadcast_to(K, outer + K.shape[-2:])
    for at in map(tuple, np.argwhere(few & fine)):
        found[at] = expm(K[at] * time[at][:, None, None]) @ start[at]
    return np.where(fine[..., None, None], found, np.nan)
