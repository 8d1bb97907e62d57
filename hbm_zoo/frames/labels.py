"""One normal form of a label, whatever type it came in: a frame's, a fit's, and those of rows that come later.

Whole numbers are integers, also where pandas made floats of them; text has no space around
it, nothing that has no width, no space that does not break, and one Unicode form. Two labels are
the same if their `text` is. "001" is another label than 1, unless the labels known are numbers: then
text that is a number is that number.
"""

from __future__ import annotations

import re
import unicodedata

import numpy as np
import pandas as pd

from hbm_zoo.words import choose

NUMBER = re.compile(r"[+-]?\d+(\.\d*)?", re.ASCII)
#: Characters that nobody sees: zero-width space, word joiner, byte order mark, soft hyphen; and spaces of other kinds.
UNSEEN = dict.fromkeys(map(ord, "\u200b\u2060\ufeff\u00ad")) | dict.fromkeys(map(ord, "\u00a0\u202f\u2007"), " ")
#: Beyond, a float is whole whatever it was before it was rounded.
LARGEST = 2**53


def normal(column: pd.Series) -> pd.Series:
    """Labels that are all numbers as numbers, whole ones as integers; others as text.

    Examples
    --------
    >>> normal(pd.Series([1.0, 2.0])).tolist(), normal(pd.Series([1, " A"])).tolist()
    ([1, 2], ['1', 'A'])
    """
    values = column.to_numpy()
    if values.dtype.kind not in "iuf":
        return text(column)
    if values.dtype.kind == "f" and ((values == np.rint(values)) & (abs(values) < LARGEST)).all():
        values = values.astype(np.int64)
    return pd.Series(values, column.index, name=column.name)


def text(column: pd.Series) -> pd.Series:
    """Labels as text, equal where they are the same label; an empty cell stays empty.

    Examples
    --------
    >>> text(pd.Series([1.0, 2.5])).tolist(), text(pd.Series(["001", "A "])).tolist()
    (['1', '2.5'], ['001', 'A'])
    """
    of, distinct = pd.factorize(column)
    named = np.array([*map(one, distinct), np.nan], dtype=object)  # an empty cell is the last
    return pd.Series(named[of], column.index, dtype=object, name=column.name)


def like(column: pd.Series, known: np.ndarray) -> pd.Series:
    """Labels as the known ones are written: where those are numbers, "001" is 1.

    Examples
    --------
    >>> like(pd.Series(["001", "2"]), np.array([1, 2])).tolist()
    [1, 2]
    >>> like(pd.Series(["001", "2"]), np.array(["1", "2"])).tolist()
    ['001', '2']
    """
    plain = text(column)
    if known.dtype.kind not in "iuf":
        return plain
    return numbers(plain.map(_of_number, na_action="ignore"), known.dtype)


def numbers(labels: pd.Series, kind: np.dtype) -> pd.Series:
    """Labels in `text` as numbers of a kind, if each is one and reads the same."""
    try:
        as_numbers = labels.astype(kind)
    except (ValueError, OverflowError):
        return labels
    return as_numbers if (text(as_numbers) == labels).all() else labels


def one(label: object) -> str:
    """One label as text."""
    if isinstance(label, float | np.floating) and label.is_integer() and abs(float(label)) < LARGEST:
        label = int(label)
    return unicodedata.normalize("NFC", str(label).translate(UNSEEN)).strip()


def names(frame: pd.DataFrame, column: str, of: pd.Series) -> pd.Series:
    """The name of each group beside its label, from a column of a frame; a group without one is called by its label.

    Parameters
    ----------
    frame : pandas.DataFrame
        Holds the column.
    column : str
        Whose cells are the names, the same in all rows of a group, or empty.
    of : pandas.Series
        The label of each row's group, in its normal form.

    Raises
    ------
    ValueError
        If there is no such column, or a group has two names.

    Examples
    --------
    >>> frame = pd.DataFrame({"id": [7, 7, 9], "who": ["St. Mary", None, None]})
    >>> names(frame, "who", frame["id"]).to_dict()
    {7: 'St. Mary', 9: '9'}
    """
    choose(column, map(str, frame.columns), "column of the frame")
    found = text(frame[column].set_axis(of.values))
    found = found.mask(found == "").dropna()
    several = found.groupby(level=0).nunique()
    if (several > 1).any():
        first = several.index[several > 1][0]
        got = ", ".join(map(repr, dict.fromkeys(found[[first]])))
        raise ValueError(f"Column {column!r} expected one name a group, got {got} for {one(first)!r}.")
    labels = pd.Index(of.drop_duplicates())
    return found[~found.index.duplicated()].reindex(labels).fillna(pd.Series(labels.map(one), labels))


def alike(column: pd.Series) -> list[list[str]]:
    """Labels that are two, but look or sound like one: they differ by case, spaces or form only.

    Examples
    --------
    >>> alike(pd.Series(["St Mary", "st. mary", "St  mary", "Lake"]))
    [['St Mary', 'St  mary']]
    """
    distinct = pd.Series(text(column).dropna().unique(), dtype=object)
    folded = distinct.map(lambda label: "".join(unicodedata.normalize("NFKC", label).casefold().split()))
    several = folded.duplicated(keep=False)
    return [names.tolist() for _, names in distinct[several].groupby(folded[several], sort=False)]


def _of_number(label: str) -> str:
    """The text of the number that a text is, or the text."""
    if not NUMBER.fullmatch(label):
        return label
    return one(float(label)) if "." in label else str(int(label))
