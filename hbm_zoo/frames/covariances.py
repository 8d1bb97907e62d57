"""Covariances of the errors of a group's estimates, one estimate a row: by name, in a column of text.

``mass = -0.0074; length = 0.001`` in the row of a wing says how its error goes with those of mass and length. So rows
may stand in any order, and some be left out. A covariance may stand in the row of either, or of both.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterable, Sequence

import numpy as np
import pandas as pd

from hbm_zoo.frames.rules import FrameError, FrameWarning, Rule

ONE = re.compile(r"\s*(?P<name>[^=;]*[^=;\s])\s*=\s*(?P<value>[-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?)\s*")
ROUNDING = 1e-6
LEAST_EIGENVALUE = 1e-10  # Of a matrix of correlations.


def parsed(text: object) -> dict[str, float] | None:
    """Covariances by name; none of an empty cell, None of anything else, such as one name twice.

    Examples
    --------
    >>> parsed("mass = -0.0074; length = 0.001"), parsed(""), parsed("-0.0074")
    ({'mass': -0.0074, 'length': 0.001}, {}, None)
    """
    if pd.isna(text) or not str(text).strip():
        return {}
    found = [ONE.fullmatch(part) for part in str(text).strip().rstrip(";").split(";")]
    by_name = {one["name"]: float(one["value"]) for one in found if one}
    return by_name if len(by_name) == len(found) else None


def written(S: np.ndarray, names: Sequence[str]) -> list[str]:
    """A covariance matrix as the texts of its rows, each with those before it.

    Examples
    --------
    >>> written(np.array([[1.0, 0.5], [0.5, 2.0]]), ["wing", "mass"])
    ['', 'wing = 0.5']
    """
    return ["; ".join(f"{names[i]} = {float(S[k, i])!r}" for i in range(k)) for k in range(len(names))]


def covariances(meaning: str) -> Rule:
    """A column of covariances, which may be missing, or empty."""
    expected = "covariances by name, each once, such as 'mass = -0.0074; length = 0.001', or nothing"
    return Rule(
        expected, lambda column: column.map(lambda v: parsed(v) is not None).astype(bool), meaning, False, True, True
    )


def matrices(
    frame: pd.DataFrame, row: np.ndarray, column: np.ndarray, groups: Iterable, names: Sequence[str], model: str
) -> np.ndarray:
    """The covariance [group, name, name] of errors, from ``standard_error`` and, if there are any, ``covariances``.

    Parameters
    ----------
    frame : pandas.DataFrame
        One row an estimate.
    row, column : numpy.ndarray
        Which group and which name it is of, by position [row].
    groups, names : sequence
        Their labels.
    model : str
        Whose frame it is, for messages.

    Returns
    -------
    numpy.ndarray
        What was not estimated has a variance of 1 and no covariance.

    Raises
    ------
    FrameError
        If covariances are missing, contradict one another, or are too large for the standard errors.

    Warns
    -----
    FrameWarning
        If a group has several estimates and there are no covariances: their errors are taken for independent.
    """
    groups = list(groups)
    S = np.tile(np.eye(len(names)), (len(groups), 1, 1))
    S[row, column, column] = frame["standard_error"].to_numpy(float) ** 2
    there = set(zip(row.tolist(), column.tolist(), strict=True))
    if "covariances" not in frame:
        if len(there) > len(set(row.tolist())):
            warnings.warn(
                "Without a column 'covariances' the errors of estimates of one group are taken for independent; those "
                "of one regression are not.",
                FrameWarning,
                stacklevel=2,
            )
        return S
    given = _Given(model, groups, names, there, {})
    for g, k, text in zip(row.tolist(), column.tolist(), frame["covariances"], strict=True):
        for name, value in (parsed(text) or {}).items():
            given.take(g, k, name, value)
    for (g, i, j), value in given.values.items():
        S[g, i, j] = S[g, j, i] = value
    given.check(S)
    return S


class _Given:
    """The covariances that a frame gives, each once."""

    def __init__(self, model, groups, names, there, values):
        self.model, self.groups, self.names, self.there, self.values = model, groups, names, there, values

    def refused(self, sentence: str) -> FrameError:
        return FrameError(f"{self.model}: column 'covariances' {sentence}.")

    def take(self, g: int, k: int, name: str, value: float) -> None:
        """One covariance, of two names of a group; one with what has no row says nothing."""
        j = list(self.names).index(name) if name in self.names else -1
        if (g, j) not in self.there:
            return
        where, one = self.groups[g], self.names[k]
        if j == k:
            raise self.refused(f"expected covariances of {one!r} with others, got one with itself in {where}")
        first = self.values.setdefault((g, min(j, k), max(j, k)), value)
        if not np.isclose(first, value, rtol=ROUNDING, atol=0):
            raise self.refused(f"expected one number of {one!r} and {name!r} in {where}, got {first:g} and {value:g}")

    def check(self, S: np.ndarray) -> None:
        """Refuse what is missing or impossible."""
        for g, where in enumerate(self.groups):
            here = [k for k in range(len(self.names)) if (g, k) in self.there]
            for i, j in ((i, j) for i in here for j in here if i < j):
                if (g, i, j) not in self.values:
                    both = f"{self.names[i]!r} and {self.names[j]!r}"
                    raise self.refused(f"expected that of {both} in {where}, got nothing; write 0 if it is")
            sd = np.sqrt(np.diag(S[g]))
            if not np.linalg.eigvalsh(S[g] / np.outer(sd, sd)).min() > LEAST_EIGENVALUE:
                raise self.refused(f"expected covariances that the standard errors allow, got larger ones in {where}")
