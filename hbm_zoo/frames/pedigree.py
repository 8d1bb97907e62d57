"""Who is whose parent: a pedigree as positions, parents before their offspring."""

from __future__ import annotations

import numpy as np
import pandas as pd

from hbm_zoo.frames.labels import text
from hbm_zoo.frames.rules import FrameError, Rule, label

UNKNOWN = "a label, or an empty cell if unknown"
#: What files write where a parent is not known.
NOBODY = ("0", "na", "nan", "n/a", ".", "-", "*", "none", "null", "unknown", "?")
COLUMNS = {
    "animal": label("the animal", unique=True),
    "sire": Rule(UNKNOWN, lambda s: pd.Series(True, s.index), "its sire", label=True),
    "dam": Rule(UNKNOWN, lambda s: pd.Series(True, s.index), "its dam", label=True),
}


def positions(pedigree: pd.DataFrame, model: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Labels of all animals, and the position of each one's sire and dam, -1 where not known.

    Parents without a row of their own come first, as animals of unknown parents.

    Raises
    ------
    FrameError
        If an animal is its own ancestor, is a sire and a dam, or stands before one of its parents.

    Examples
    --------
    >>> frame = pd.DataFrame({"animal": ["a", "b"], "sire": ["s", "s"], "dam": [None, "a"]})
    >>> [part.tolist() for part in positions(frame, "a model")]
    [['s', 'a', 'b'], [-1, 0, 0], [-1, -1, 1]]
    """
    animal, sire, dam = (text(pedigree[name]) for name in ("animal", "sire", "dam"))
    sire, dam = (parent.where(parent != "") for parent in (sire, dam))
    for name, parent in (("sire", sire), ("dam", dam)):
        if stands := sorted(set(parent[parent.str.lower().isin(NOBODY)]) - set(animal)):
            raise FrameError(
                f"{model}, 'pedigree': {stands[0]!r} is a {name} without a row of its own. If it stands for an unknown "
                "parent, leave the cell empty."
            )
    both = sorted(set(sire.dropna()) & set(dam.dropna()))
    if both:
        raise FrameError(f"{model}, 'pedigree': {both[0]!r} is a sire in one row and a dam in another.")
    known = set(animal)
    founders = [p for p in dict.fromkeys([*sire.dropna(), *dam.dropna()]) if p not in known]
    labels = np.array([*founders, *animal], dtype=object)
    at = {name: i for i, name in enumerate(labels)}
    of_founders = [-1] * len(founders)
    found = [np.array([*of_founders, *(at.get(p, -1) for p in each)], dtype=np.int64) for each in (sire, dam)]
    for each in found:
        early = np.flatnonzero(each >= np.arange(labels.size))
        if early.size:
            raise FrameError(_out_of_order(labels, found, int(early[0]), model))
    return labels, found[0], found[1]


def _out_of_order(labels: np.ndarray, parents: list[np.ndarray], i: int, model: str) -> str:
    """Whether the animal is its own ancestor, or only stands too early."""
    for start in range(labels.size):
        ancestors, new = set(), {int(each[start]) for each in parents} - {-1}
        while new:
            ancestors |= new
            new = {int(each[p]) for p in new for each in parents} - {-1} - ancestors
        if start in ancestors:
            return f"{model}, 'pedigree': {labels[start]!r} is its own ancestor: no pedigree has a loop."
    parent = next(int(each[i]) for each in parents if each[i] >= i)
    return (
        f"{model}, 'pedigree': {labels[i]!r} stands before its parent {labels[parent]!r}: give parents before their "
        "offspring."
    )
