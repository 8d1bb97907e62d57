"""Numbers as people write them: 1.5 or 1,5, 1,234 or 1.234.

A cell may have two readings, one for each decimal mark. What the other cells and the
columns' rules leave in doubt is not read: the check then names the cell.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import partial

import numpy as np
import pandas as pd

from hbm_zoo.frames.rules import Rule

OTHER = {".": ",", ",": "."}
NUMERAL = {
    mark: re.compile(rf"[+-]?(\d+|[1-9]\d{{0,2}}(\{other}\d{{3}})+|(?=\{mark}\d))(\{mark}\d*)?([eE][+-]?\d+)?")
    for mark, other in OTHER.items()
}


def as_numbers(frame: pd.DataFrame, rules: Mapping[str, Rule]) -> pd.DataFrame:
    """Read the text in those columns that are there and hold numbers; what is no number, or in doubt, stays text.

    Where commas separate cells (``frame.attrs["separator"]``) the point is the decimal mark, unless a cell has no
    reading but with a decimal comma.

    Examples
    --------
    >>> from hbm_zoo.frames.rules import count, positive
    >>> frame = pd.DataFrame({"observed": ["1.200", "3"], "expected": ["1.100,5", "2,25"]})
    >>> as_numbers(frame, {"observed": count(""), "expected": positive("")}).to_numpy().tolist()
    [[1200.0, 1100.5], [3.0, 2.25]]
    """
    once = [name for name in rules if list(frame.columns).count(name) == 1]
    text = {name: frame[name] for name in once if not rules[name].label and _has_text(frame[name])}
    readings = {mark: {name: column.map(partial(read, mark=mark)) for name, column in text.items()} for mark in OTHER}
    votes = {mark: sum(_votes(readings[mark][n], readings[OTHER[mark]][n], rules[n]) for n in text) for mark in OTHER}
    if frame.attrs.get("separator") == ",":
        votes = {mark: sum(_only(readings[mark][n], readings[OTHER[mark]][n]) for n in text) for mark in OTHER}
    mark = "," if votes[","] > votes["."] else "."
    undecided = not any(votes.values())
    return frame.assign(
        **{name: _column(text[name], readings[mark][name], readings[OTHER[mark]][name], undecided) for name in text}
    )


def read(cell: object, mark: str) -> float:
    """The number that a cell holds if `mark` is its decimal mark, else NaN.

    Examples
    --------
    >>> read("1,234", "."), read("1,234", ","), read("1.5", ",")
    (1234.0, 1.234, nan)
    """
    if not isinstance(cell, str):
        return np.nan if cell is None else cell  # type: ignore[return-value]
    if not NUMERAL[mark].fullmatch(cell):
        return np.nan
    return float(cell.replace(OTHER[mark], "").replace(mark, "."))


def _has_text(column: pd.Series) -> bool:
    return bool(column.map(lambda cell: isinstance(cell, str)).any())


def _votes(reading: pd.Series, other: pd.Series, rule: Rule) -> int:
    """How many cells are right by their column's rule if read this way, and wrong if read the other."""
    return int((rule.holds(reading) & ~rule.holds(other)).sum())


def _only(reading: pd.Series, other: pd.Series) -> int:
    """How many cells are a number if read this way, and none if read the other."""
    return int((reading.notna() & other.isna()).sum())


def _column(text: pd.Series, reading: pd.Series, other: pd.Series, undecided: bool) -> pd.Series:
    """A column of numbers, or of numbers and the text that could not be read."""
    comma = text.map(lambda cell: isinstance(cell, str) and "," in cell)
    unread = text.map(lambda cell: isinstance(cell, str)) & (reading.isna() | (undecided & comma & (reading != other)))
    return text.where(unread, reading.astype(object)) if unread.any() else reading.astype(float)
