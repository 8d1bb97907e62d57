"""Check a frame against a model's columns; say plainly what is wrong with it."""

from __future__ import annotations

import difflib
import warnings
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd
import pandera.pandas as pa
from pandera.errors import SchemaErrors

from hbm_zoo.frames import labels
from hbm_zoo.words import listed, plural

MOST_ROWS_SHOWN = 5
#: A number that is as many times its column's median, or one above 0 as small a part of it, is none that was measured.
FILLED = 1e15
#: From what likeness on, of 1, the name of a column that is not used may be meant for one that is missing.
NEAR = 0.8


class FrameError(ValueError):
    """A frame that a model cannot use: what was expected, what came, and where."""


class FrameWarning(UserWarning):
    """Something about a frame that a reader of the results must know."""


@dataclass(frozen=True)
class Rule:
    """A column's rule in words, and the same rule as a test of a whole column.

    Attributes
    ----------
    expected : str
        What a value must be, to be read after "expected".
    holds : callable
        From a Series to a boolean Series.
    meaning : str
        What the column is, with its unit.
    unique : bool
        Whether a value may occur only once; where columns together label a group, whether their values together may.
    optional : bool
        Whether the column may be missing.
    """

    expected: str
    holds: Callable[[pd.Series], pd.Series]
    meaning: str
    unique: bool = False
    optional: bool = False
    label: bool = False


def label(meaning: str, unique: bool = False, optional: bool = False) -> Rule:
    """A name: text or number, never missing."""
    return Rule("a label, not empty", _named, meaning, unique, optional, True)


def count(meaning: str, least: int = 0, most: int = 2_000_000_000) -> Rule:
    """A whole number; PyMC keeps counts in 32 bits, so beyond 2e9 they would turn negative."""
    return Rule(
        f"a whole number, {least} or more and at most {most:,}",
        lambda s: _finite(s) & _number(s).between(least, most) & (_number(s) % 1 == 0),
        meaning,
    )


def positive(meaning: str) -> Rule:
    """A finite number above 0."""
    return Rule("a finite number above 0", lambda s: _finite(s) & (_number(s) > 0), meaning)


def number(meaning: str) -> Rule:
    """A finite number."""
    return Rule("a finite number", _finite, meaning)


def not_negative(meaning: str) -> Rule:
    """A finite number, 0 or above."""
    return Rule("a finite number, 0 or above", lambda s: _finite(s) & (_number(s) >= 0), meaning)


def or_empty(rule: Rule, optional: bool = False) -> Rule:
    """A rule of a column whose cells may be empty.

    Examples
    --------
    >>> or_empty(positive("dose [mg]")).holds(pd.Series([np.nan, 3.0, -1.0])).tolist()
    [True, True, False]
    """
    return replace(
        rule, expected=f"{rule.expected}, or nothing", holds=lambda s: s.isna() | rule.holds(s), optional=optional
    )


def check(
    frame: pd.DataFrame,
    columns: Mapping[str, Rule],
    model: str,
    key: tuple[str, ...] = (),
    readers: Iterable[str] = (),
) -> pd.DataFrame:
    """Return the model's columns of a frame, numbers as numbers, labels as labels; `key` together label a group.

    ``readers`` make such a frame of those of other programs; they are named where a column is missing.

    Raises
    ------
    FrameError
        One sentence for each column at fault, with rows, expected and got.
    """
    _check_frame(frame, model)
    _check_columns(frame, columns, model, readers)
    if frame.empty:
        raise FrameError(f"{model} expected at least one row, got an empty frame.")
    present = {name: rule for name, rule in columns.items() if name in frame.columns}
    schema = pa.DataFrameSchema(
        {
            name: pa.Column(
                None, pa.Check(rule.holds, ignore_na=False, error=rule.expected), nullable=True, coerce=False
            )
            for name, rule in present.items()
        },
        unique_column_names=True,
    )
    plain = frame[list(present)].reset_index(drop=True)
    try:
        schema.validate(plain, lazy=True)
    except SchemaErrors as errors:
        raise FrameError(_sentences(errors.failure_cases, frame, columns, model)) from None
    _check_sizes(frame, present, model)
    if len(key) > 1:
        _parts(frame, key, model)
    _check_duplicates(frame, present, model, key)
    for sentence in [*likenesses(plain, present), *_misspelt(frame, columns)]:
        warnings.warn(f"{model}: {sentence}", FrameWarning, stacklevel=3)
    return pd.DataFrame(
        {name: labels.normal(plain[name]) if rule.label else _number(plain[name]) for name, rule in present.items()}
    )


def likenesses(frame: pd.DataFrame, columns: Mapping[str, Rule]) -> list[str]:
    """A sentence for labels that differ by case, spaces or form only."""
    return [
        f"column {name!r} has {listed(map(repr, several))}, which differ by case, spaces or form only and are taken "
        "for different ones."
        for name, rule in columns.items()
        for several in (labels.alike(frame[name]) if rule.label else ())
    ]


def given_twice(frame: pd.DataFrame, columns: Iterable[str]) -> Iterable[str]:
    """A sentence where every row is there twice, or as many times: the columns of a model are asked first."""
    known = frame[[name for name in columns if name in frame.columns]]
    if len(frame) > 2 and _times(known) > 1 and _times(frame.astype(str)) > 1:
        yield "every row is there more than once, the same in each column. Was a file read twice? Give its rows once."


def _times(frame: pd.DataFrame) -> int:
    """How many times a table is there, one below the other, in any order of rows: what their counts have in common."""
    counts = pd.util.hash_pandas_object(frame, index=False).value_counts(sort=False)
    return int(np.gcd.reduce(counts.to_numpy()))


def _misspelt(frame: pd.DataFrame, columns: Mapping[str, Rule]) -> Iterable[str]:
    """A sentence for each column that may be missing, is, and is nearly the name of one that is not used."""
    unused = {str(name).casefold(): str(name) for name in frame.columns if name not in columns}
    for name in (name for name, rule in columns.items() if rule.optional and name not in frame.columns):
        for near in difflib.get_close_matches(name.casefold(), unused, n=1, cutoff=NEAR):
            yield f"column {unused[near]!r} is not used. If it is {name!r} ({columns[name].meaning}), call it so."


def _check_frame(frame: object, model: str) -> None:
    if not isinstance(frame, pd.DataFrame):
        hint = " Pass what its to_pandas() returns." if hasattr(frame, "to_pandas") else ""
        kind = f"{type(frame).__module__.split('.')[0]} {type(frame).__name__}".removeprefix("builtins ")
        raise FrameError(f"{model} expected a pandas DataFrame, got {kind}.{hint}")
    if isinstance(frame.columns, pd.MultiIndex):
        raise FrameError(
            f"{model} expected columns with one name each, got {frame.columns.nlevels} levels of them, such as "
            f"{frame.columns[0]!r}. frame.columns.get_level_values(-1) are names of one level."
        )


def _check_columns(frame: pd.DataFrame, columns: Mapping[str, Rule], model: str, readers: Iterable[str]) -> None:
    others = f" Frames of other kinds are read by {listed([f'{model}.{name}' for name in readers])}." if readers else ""
    for name, rule in columns.items():
        if name not in frame.columns and not rule.optional:
            near = difflib.get_close_matches(name, [str(c) for c in frame.columns], n=1, cutoff=0.4)
            hint = f" The nearest it has is {near[0]!r}." if near else ""
            have = ", ".join(repr(str(c)) for c in frame.columns) or "no columns"
            raise FrameError(f"{model} expected a column {name!r} ({rule.meaning}), got {have}.{hint or others}")
        if list(frame.columns).count(name) > 1:
            raise FrameError(
                f"{model} expected one column {name!r}, got {list(frame.columns).count(name)} of that name."
            )


def _sentences(failures: pd.DataFrame, frame: pd.DataFrame, columns: Mapping[str, Rule], model: str) -> str:
    sentences = []
    for (column, expected), cases in failures.groupby(["column", "check"], sort=False):
        at, unit = frame.iloc[cases["index"].astype(int)], frame.index.name or "row"
        first = at.iloc[:MOST_ROWS_SHOWN]
        cells = zip(places(first, columns, column), first[column], strict=True)
        shown = "; ".join(f"{cell(value)} in {place}" for place, value in cells)
        more = f" and {len(at) - MOST_ROWS_SHOWN} more {unit}s" if len(at) > MOST_ROWS_SHOWN else ""
        sentences.append(f"{model}: column {column!r} expected {expected}, got {shown}{more}.")
    return " ".join(sentences)


def _check_sizes(frame: pd.DataFrame, columns: Mapping[str, Rule], model: str) -> None:
    """Refuse what programs write where nothing was measured, 9.97e36 say: its square leaves no digit of the others."""
    for name in (name for name, rule in columns.items() if not rule.label):
        size = _number(frame[name]).abs().replace(0, np.nan).to_numpy(dtype=float)
        if np.isnan(size).all():
            continue
        usual = np.nanmedian(size)
        small = columns[name].holds(pd.Series([1.0, 0.0])).tolist() == [True, False]  # where 0 is not a number either
        at = np.flatnonzero((size / FILLED > usual) | (small & (size * FILLED < usual)))
        if at.size:
            got, place = cell(frame[name].iloc[at[0]]), places(frame.iloc[at[:1]], columns, name)[0]
            raise FrameError(
                f"{model}: column {name!r} expected numbers of one unit, got {got} in {place} where their median size "
                f"is {usual:.3g}: what programs write for a missing number? Leave such rows out."
            )


def places(frame: pd.DataFrame, columns: Mapping[str, Rule], at_fault: str = "") -> list[str]:
    """Where each row is, and whose: of the first label that is not itself at fault.

    Examples
    --------
    >>> places(pd.DataFrame({"hospital": ["St. Mary"], "expected": [0.0]}), {"hospital": label("its name")})
    ['row 0 (St. Mary)']
    """
    unit = frame.index.name or "row"
    whose = next((name for name, rule in columns.items() if rule.label and name in frame and name != at_fault), None)
    labels_of = [""] * len(frame) if whose is None else labels.text(frame[whose]).fillna("")
    return [f"{unit} {row}" + (f" ({of})" if of else "") for row, of in zip(frame.index, labels_of, strict=True)]


def _check_duplicates(frame: pd.DataFrame, columns: Mapping[str, Rule], model: str, key: tuple[str, ...]) -> None:
    unique = [name for name, rule in columns.items() if rule.unique]
    for names in dict.fromkeys(key if name in key else (name,) for name in unique):
        plain = frame[list(names)].apply(labels.text)
        twice = plain.duplicated(keep=False).values
        if twice.any():
            values = frame.loc[:, list(names)][twice].iloc[0]
            rows = frame.index[(plain == plain[twice].iloc[0]).all(axis=1).values]
            unit = frame.index.name or "row"
            raise FrameError(
                f"{model}: {plural('column', len(names))} {listed(map(repr, names))} expected each "
                f"{'value' if len(names) == 1 else 'combination'} once, got {listed(map(cell, values))} in {unit}s "
                f"{', '.join(map(str, rows[:MOST_ROWS_SHOWN]))}."
            )


def cell(value: object) -> str:
    """The value of a cell as an error shows it."""
    if value is None or value is pd.NA or (isinstance(value, float) and np.isnan(value)):
        return "an empty cell"
    return repr(value.item() if isinstance(value, np.generic) else value)


def _named(column: pd.Series) -> pd.Series:
    """Whether each value is a name: each distinct one is looked at once."""
    names = column.drop_duplicates()
    return column.notna() & ~column.isin(names[names.astype(str).str.strip() == ""])


def _number(column: pd.Series) -> pd.Series:
    """The column as numbers; text and booleans, even '12', are not numbers."""
    if isinstance(column.dtype, np.dtype) and column.dtype.kind in "iuf":
        return column
    if pd.api.types.is_any_real_numeric_dtype(column.dtype):
        return column.astype(float)
    plain = column.astype(object)
    numbers = plain.map(lambda v: v if isinstance(v, int | float | np.number) and not isinstance(v, bool) else np.nan)
    return numbers.astype(float)


def _finite(column: pd.Series) -> pd.Series:
    return pd.Series(np.isfinite(_number(column).to_numpy(dtype=float)), index=column.index)


BETWEEN = " / "


def key(frame: pd.DataFrame, columns: tuple[str, ...], model: str) -> pd.Series:
    """The label of each row's group, in its normal form: a column, or several joined by a slash.

    Raises
    ------
    FrameError
        If a label holds a slash where it could be joined in two ways: between spaces, or at an end.

    Examples
    --------
    >>> key(pd.DataFrame({"campaign": ["A", "A"], "batch": [1, 2]}), ("campaign", "batch"), "batches").tolist()
    ['A / 1', 'A / 2']
    """
    if len(columns) == 1:
        return labels.normal(frame[columns[0]])
    first, *others = _parts(frame, columns, model)
    return first.str.cat(others, sep=BETWEEN) if others else first


def _parts(frame: pd.DataFrame, columns: tuple[str, ...], model: str) -> list[pd.Series]:
    """The labels that are joined, of columns that may be missing; one that could be joined in two ways is refused."""
    parts = [labels.text(frame[name]) for name in columns if name in frame.columns]
    for part in parts if len(parts) > 1 else ():
        held = (" " + part + " ").str.contains(BETWEEN, regex=False, na=False)
        if held.any():
            raise FrameError(
                f"{model}: column {part.name!r} expected labels without a slash between spaces or at an end, which "
                f"joins columns, got {cell(part[held].iloc[0])} in {frame.index.name or 'row'} {frame.index[held][0]}."
            )
    return parts
