"""How alike relatives are: the numerator relationship of a pedigree, and its inbreeding.

Parents come before their offspring, and are positions in the pedigree; -1 is a parent not known. The breeding value
of an animal is the mean of its parents' and a Mendelian part,

    a_i = (a_sire + a_dam) / 2 + m_i,   Var(m_i) = sigma_A^2 (1 - (A_ss + A_dd) / 4),

with 0 for what an unknown parent would add (Henderson 1976, Biometrics 32:69-83). Families of half and full sibs are
pedigrees of two generations.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

import numpy as np


def relationship(sire: np.ndarray, dam: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The numerator relationship A [animal, animal], and the Mendelian variance of each in units of sigma_A^2.

    Parameters
    ----------
    sire, dam : numpy.ndarray
        Position of each animal's parents, before its own; -1 where not known.

    Returns
    -------
    A : numpy.ndarray
        1 + F on the diagonal, F the coefficient of inbreeding; 1/2 of full sibs, 1/4 of half sibs.
    mendelian : numpy.ndarray
        1 of an animal of unknown parents, 1/2 of one of two that are not inbred.

    Examples
    --------
    Full sibs, and their offspring:

    >>> A, mendelian = relationship(np.array([-1, -1, 0, 0, 2]), np.array([-1, -1, 1, 1, 3]))
    >>> A[2, 3].item(), A[4, 4].item(), mendelian.tolist()
    (0.5, 1.25, [1.0, 1.0, 0.5, 0.5, 0.5])
    """
    size = sire.size
    A, mendelian = np.zeros((size, size)), np.ones(size)
    for i in range(size):
        known = [p for p in (sire[i], dam[i]) if p >= 0]
        mendelian[i] -= sum(A[p, p] for p in known) / 4
        A[i, :i] = sum((A[p, :i] / 2 for p in known), np.zeros(i))
        A[:i, i] = A[i, :i]
        A[i, i] = 1 + (A[sire[i], dam[i]] / 2 if len(known) == 2 else 0)
    return A, mendelian


def breeding_values(
    rng: np.random.Generator,
    sire: np.ndarray,
    dam: np.ndarray,
    mendelian: np.ndarray,
    sigma_A: np.ndarray,
    known: Mapping[int, np.ndarray] = MappingProxyType({}),
) -> np.ndarray:
    """Breeding values [draw, animal] down the pedigree, those of the positions that are ``known`` [draw] as they are.

    Examples
    --------
    >>> rng, none = np.random.default_rng(1), np.full(2, -1)
    >>> breeding_values(rng, np.array([-1, 0]), none, np.array([1, 0]), np.ones(2), {0: np.array([4.0, 6.0])}).tolist()
    [[4.0, 2.0], [6.0, 3.0]]
    """
    own = rng.standard_normal((sigma_A.size, sire.size)) * np.sqrt(mendelian) * sigma_A[:, None]
    for i in range(sire.size):
        own[:, i] = known[i] if i in known else own[:, i] + sum(own[:, p] / 2 for p in (sire[i], dam[i]) if p >= 0)
    return own
