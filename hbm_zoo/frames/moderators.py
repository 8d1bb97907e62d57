r"""Moderators: columns that say beforehand in what groups differ, and the design x [group, moderator] they make.

A number enters as it is, less its mean over groups; a category as one contrast a level, 1 in the groups that have it
and 0 in others, less its share of the groups, against the first level, its reference: the first category of a pandas
Categorical, else the first of the alphabet. So the location mu is that of groups as they are on average, and a slope
is in the reader's own unit.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import xarray as xr

from hbm_zoo.frames import labels
from hbm_zoo.frames.numerals import OTHER, read
from hbm_zoo.frames.rules import MOST_ROWS_SHOWN, FrameError, FrameWarning, Rule, cell, check, label, number
from hbm_zoo.words import choose, listed, plural, with_article

#: The option that names them, the design in prepared data, and its second dim.
OPTION, DESIGN, DIM = "moderators", "moderators", "moderator"
#: How the name of a slope begins.
SLOPE = "beta_"
#: What no file of a fit can hold in the name of a variable.
SLASH = "/"
#: Of unit columns: singular values below are 0 but for rounding.
COLLINEAR = 1e-8


class Moderator(NamedTuple):
    """A column and what it is centred at: a mean; or its levels, each with its share of groups, the reference first.

    Where groups have several coefficients it is ``of`` one, whose location it moves.
    """

    column: str
    centre: float | tuple[tuple[str, float], ...]
    of: str = ""

    @property
    def levels(self) -> list[str]:
        """The levels of a category, the reference first; none of a number."""
        return [] if isinstance(self.centre, float) else [level for level, _ in self.centre]

    @property
    def contrasts(self) -> list[str]:
        """The names of its columns of the design: its own, or one a level but the reference, ``column[level]``."""
        name = f"{self.of}_{self.column}" if self.of else self.column
        return [f"{name}[{level}]" for level in self.levels[1:]] or [name]

    @property
    def in_words(self) -> str:
        """Its name, what it is of, and of a category the level that the others are set against."""
        name = f"{self.column} of {self.of}" if self.of else self.column
        return f"{name} (against {self.levels[0]})" if self.levels else name

    @property
    def rule(self) -> Rule:
        """What its cells must be."""
        if not self.levels:
            return number(f"moderator {self.column}")
        known = listed(map(repr, self.levels))
        return Rule(f"a level of the fit, {known}", self._known, f"moderator {self.column}", label=True)

    def _known(self, column: pd.Series) -> pd.Series:
        return labels.text(column).isin(self.levels)

    def design(self, values: pd.Series) -> np.ndarray:
        """Its columns of the design [group, contrast]."""
        if isinstance(self.centre, float):
            return (values.to_numpy(float) - self.centre)[:, None]
        named = labels.text(values)
        return np.column_stack([(named == level).to_numpy(float) - share for level, share in self.centre[1:]])

    def values(self, x: np.ndarray) -> np.ndarray:
        """Of columns of the design the number they come from, or the position of the level."""
        if isinstance(self.centre, float):
            return x[:, 0] + self.centre
        return np.rint(x + [share for _, share in self.centre[1:]]) @ np.arange(1, len(self.centre))


def again(given: Iterable[Any]) -> tuple[Moderator, ...]:
    """Moderators as the options of a fit hold them: lists where tuples were."""
    return tuple(
        Moderator(column, float(at) if isinstance(at, int | float) else tuple((str(a), b) for a, b in at), *of)
        for column, at, *of in given
    )


def slopes(moderators: Iterable[Moderator]) -> dict[str, str]:
    """The name of each slope, and the column of the design that it multiplies.

    Examples
    --------
    >>> slopes([Moderator("latitude", 33.5), Moderator("type", (("public", 0.5), ("private", 0.5)))])
    {'beta_latitude': 'latitude', 'beta_type[private]': 'type[private]'}
    """
    return {f"{SLOPE}{contrast}": contrast for each in moderators for contrast in each.contrasts}


def of_frame(
    frame: pd.DataFrame, columns: Iterable[str], groups: pd.Series, group: str, model: str, of: str = ""
) -> tuple[Moderator, ...]:
    """The moderators that some columns of a frame are, centred over its groups.

    Parameters
    ----------
    frame : pandas.DataFrame
        The data, one row a group or several.
    columns : iterable of str
        The names of the columns.
    groups : pandas.Series
        The label of each row's group.
    group, model, of : str
        What a group is called, who asks, and for which coefficient if groups have several.

    Raises
    ------
    FrameError
        If a column is missing, has an empty cell or text among its numbers, differs within a group, is the same for
        all groups or a combination of others, or there are more contrasts than groups less two.
    """
    for name in columns:
        choose(name, [c for c in frame.columns if isinstance(c, str)], f"column for a moderator of {model}")
        if list(frame.columns).count(name) > 1:
            raise FrameError(
                f"{model} expected one column {name!r}, got {list(frame.columns).count(name)} of that name."
            )
    rules = {name: _kind(frame[name]) for name in columns}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FrameWarning)  # what is to be said of the columns is said once, with the others
        checked = check(frame[list(rules)], rules, model)
    values = _by_group(checked, groups, group, model)
    found = tuple(_moderator(frame[name], values[name], rules[name].label)._replace(of=of) for name in columns)
    _check_names(found, model)
    for each in found:
        if values[each.column].nunique() == 1:
            raise FrameError(
                f"{model}: moderator {each.column!r} is {cell(values[each.column].iloc[0])} for every {group}: it "
                "tells none from another."
            )
    _check_design(found, values, group, model)
    return found


def design(
    frame: pd.DataFrame, moderators: tuple[Moderator, ...], groups: pd.Series, of: np.ndarray, group: str, model
):
    """The design x [group, moderator] of the groups ``of``, as they are labelled; ``groups`` is the label of each row.

    Raises
    ------
    FrameError
        If a moderator differs within a group: which.
    """
    values = _by_group(frame, groups, group, model, [*dict.fromkeys(each.column for each in moderators)])
    values = values.loc[labels.text(pd.Series(of))]
    x = np.hstack([each.design(values[each.column]) for each in moderators])
    return xr.DataArray(x, {DIM: list(slopes(moderators).values())}, (group, DIM))


def told_by_one(x: xr.DataArray, group: str) -> str:
    """A sentence on groups that alone tell of some slope, if there are any: the design without one has a lower rank."""
    full = np.column_stack([np.ones(x.sizes[group]), x.transpose(group, DIM)])
    basis, sizes, _ = np.linalg.svd(full / np.linalg.norm(full, axis=0), full_matrices=False)
    basis = basis[:, sizes > COLLINEAR]  # coefficients may share columns
    only = x[group].values[(basis**2).sum(axis=1) > 1 - COLLINEAR]
    if not only.size:
        return ""
    who = listed(map(str, only)) if only.size == 1 else f"each of {listed(map(str, only))}"
    return (
        f"Of some slope {who} tells alone: with that {group} left out nothing but the prior of the slope says where it "
        "lies."
    )


def _kind(column: pd.Series) -> Rule:
    """Whether a column is of numbers or of levels: text is of numbers if most of its cells read as such."""
    meaning = f"moderator {column.name}"
    if isinstance(column.dtype, pd.CategoricalDtype) or pd.api.types.is_bool_dtype(column.dtype):
        return label(meaning)
    if pd.api.types.is_numeric_dtype(column.dtype):
        return number(meaning)
    cells = column.dropna()
    of_numbers = replace(number(meaning), expected="a finite number (levels with numbers for names are a Categorical)")
    return of_numbers if len(cells) and cells.map(_is_number).mean() > 0.5 else label(meaning)


def _is_number(value: object) -> bool:
    """Whether a cell is a number, or text that reads as one."""
    if isinstance(value, str):
        return any(np.isfinite(read(value, mark)) for mark in OTHER)
    return isinstance(value, int | float | np.number) and not isinstance(value, bool)


def kinds(frame: pd.DataFrame, columns: Iterable[str]) -> Mapping[str, Rule]:
    """The rule of each column that is there, for a file that is still text."""
    return {name: _kind(frame[name]) for name in columns if list(frame.columns).count(name) == 1}


def _moderator(column: pd.Series, values: pd.Series, of_levels: bool) -> Moderator:
    """A column centred over groups; the levels of a Categorical have its order."""
    if not of_levels:
        return Moderator(str(column.name), float(values.mean()))
    shares = labels.text(values).value_counts(normalize=True)
    ordered = isinstance(column.dtype, pd.CategoricalDtype)
    known = [labels.one(level) for level in column.cat.categories] if ordered else sorted(shares.index)
    return Moderator(str(column.name), tuple((level, float(shares[level])) for level in known if level in shares.index))


def _by_group(
    frame: pd.DataFrame, groups: pd.Series, group: str, model: str, columns: list[str] | None = None
) -> pd.DataFrame:
    """The moderators of each group, indexed by its label as text."""
    own = frame[columns or list(frame.columns)].set_axis(labels.text(groups).to_numpy(), axis=0)
    by = own.groupby(level=0, sort=False)
    for name, several in (by.nunique() > 1).items():
        if several.any():
            which = several.index[several]
            shown = "; ".join(
                f"{listed(map(cell, own.loc[[one], name].unique()[:MOST_ROWS_SHOWN]))} in {one}"
                for one in which[:MOST_ROWS_SHOWN]
            )
            more = f"; and in {len(which) - MOST_ROWS_SHOWN} more" if len(which) > MOST_ROWS_SHOWN else ""
            raise FrameError(
                f"{model}: moderator {name!r} expected one value for each {group}, got {shown}{more}. What differs "
                f"within {with_article(group)} is no moderator of {plural(group)}."
            )
    return by.first()


def _check_names(moderators: tuple[Moderator, ...], model: str) -> None:
    by_slope: dict[str, str] = {}
    for each in moderators:
        for name in slopes([each]):
            if name in by_slope:
                raise FrameError(
                    f"{model}: columns {by_slope[name]!r} and {each.column!r} would both have the slope {name!r}: "
                    "rename one of them."
                )
            by_slope[name] = each.column
    for name in by_slope:
        if SLASH in name:
            raise FrameError(
                f"{model}: the slope {name!r} has a slash in its name, which no file of a fit can hold: rename the "
                "column or its level."
            )


def _check_design(moderators: tuple[Moderator, ...], values: pd.DataFrame, group: str, model: str) -> None:
    """Refuse more contrasts than groups can tell apart, and columns that are combinations of others."""
    size, groups = len(slopes(moderators)), len(values)
    if size > groups - 2:
        of_each = listed(f"{len(each.contrasts)} of {each.column}" for each in moderators)
        raise FrameError(
            f"{model}: {groups} {plural(group, groups)} tell at most {max(groups - 2, 0)} slopes, got {size}: "
            f"{of_each}."
        )
    before = np.empty((groups, 0))
    for k, each in enumerate(moderators):
        columns = each.design(values[each.column])
        joined = np.hstack([before, columns / np.linalg.norm(columns, axis=0)])
        if np.linalg.svd(joined, compute_uv=False)[-1] < COLLINEAR:
            others = listed(repr(other.column) for other in moderators[:k])
            raise FrameError(
                f"{model}: moderator {each.column!r} says nothing that {others} {'do' if k > 1 else 'does'} not say: "
                "their columns are collinear, and no data tell their slopes apart. Leave one out."
            )
        before = joined
