"""What the rows of a new frame ask: of which groups, what is known of each, and what is to be predicted."""

from __future__ import annotations

import warnings
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from itertools import count, islice
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr

from hbm_zoo.frames import inputs, rules
from hbm_zoo.frames.labels import alike, like, text
from hbm_zoo.frames.moderators import DESIGN, DIM
from hbm_zoo.frames.rules import BETWEEN
from hbm_zoo.inference.fits import prepared
from hbm_zoo.model import KEY, HierarchicalModel
from hbm_zoo.words import choose, listed, plural


@dataclass(frozen=True)
class NewRows:
    """The groups asked about, what each is known by, and the rows to predict; labels are text.

    The rows as the model sees them, and their covariates as they came.
    """

    groups: list[str]
    known: xr.Dataset | None = None
    brought: xr.Dataset | None = None
    never_seen: tuple[str, ...] = ()
    rows: xr.Dataset | None = None
    table: pd.DataFrame | None = None

    @property
    def largest(self) -> int:
        return max(len(self.groups), inputs.largest(self.rows) if self.rows is not None else 1)


def read(
    record: HierarchicalModel,
    fit: xr.DataTree,
    frame: pd.DataFrame | None,
    n_new: int | None,
    again: Mapping[str, Any],
) -> NewRows:
    """Sort the rows of a frame by what their label and response say; ``again`` are further inputs given once more."""
    _check_asked(record, n_new, again)
    as_fitted = prepared(fit)
    data = labelled(record, as_fitted)
    if frame is None and n_new is None:
        return NewRows(groups=data[record.group].values.tolist(), known=data, rows=data)
    known_labels = data[record.group].values.tolist()
    if frame is None:
        return NewRows(groups=(extra := _names(n_new, known_labels)), never_seen=tuple(extra))

    options = options_again(record, fit, again)
    frame = _completed(record, frame, options, as_fitted[record.group].values, as_fitted.attrs.get(KEY, ""))
    labels = text(record.labels(frame))
    known, measured = labels.isin(known_labels), record.measured(frame)
    to_predict = measured & (known | frame[record.response].isna())
    brings, table = measured & ~to_predict, frame[to_predict]
    filled = frame.assign(**{record.response: frame[record.response].where(~to_predict, 0)})
    # What was done to a group, a dose say, goes with its rows.
    with_doses = (which | (~measured & labels.isin(labels[which])) for which in (to_predict, brings))
    rows, brought = (_prepare(record, filled[which], options) for which in with_doses)
    _check_new(record, data, labels[~known], rows, brought)
    groups = [*dict.fromkeys(labels), *_names(n_new or 0, {*labels, *known_labels})]
    seen = {*known_labels, *labels[brings]}
    old = pd.Index(known_labels).get_indexer(labels[known].unique())
    chosen = data.isel({record.group: old}) if record.group_level.independent else data
    return NewRows(
        groups=groups,
        known=chosen if old.size else None,
        brought=brought,
        never_seen=tuple(label for label in groups if label not in seen),
        rows=rows,
        table=table[[name for name in record.columns if name in {*table} - {record.response}]],
    )


def all_brought(record: HierarchicalModel, fit: xr.DataTree, frame: pd.DataFrame) -> xr.Dataset:
    """Rows of new groups as the model sees them, every row something that is known of its group."""
    options, as_fitted = options_again(record, fit, {}), prepared(fit)
    frame = _completed(record, frame, options, as_fitted[record.group].values, as_fitted.attrs.get(KEY, ""))
    return labelled(record, record.prepared(frame, **options))


def _check_asked(record: HierarchicalModel, n_new: int | None, again: Mapping[str, Any]) -> None:
    for name in again:
        choose(name, record.inputs, f"input of {record.name}")
    if n_new is not None and (isinstance(n_new, bool) or not isinstance(n_new, int | np.integer) or n_new < 1):
        raise ValueError(f"n_new must be a whole number of new {plural(record.group)}, 1 or more, got {n_new!r}.")


def _names(n_new: int, taken: Collection[str]) -> list[str]:
    """Labels for groups that have none."""
    return list(islice((name for i in count(1) if (name := f"new {i}") not in taken), n_new))


def options_again(record: HierarchicalModel, fit: xr.DataTree, again: Mapping[str, Any]) -> dict:
    """What the data of the fit were prepared with, e.g. their center; further frames as they were stored."""
    data = prepared(fit)
    asked = {name: data.attrs[name] for name in record.options_of_data if data.attrs.get(name, "") != ""}
    return asked | inputs.restored(data, record.inputs, again, record.may_lack)


def _completed(
    record: HierarchicalModel, frame: pd.DataFrame, options: dict, known: np.ndarray, key: str
) -> pd.DataFrame:
    """The frame with labels like the known and a response, missing if it has none; an option may select rows.

    Raises
    ------
    FrameError
        If the frame lacks a column or its rows are of something else than the fit.
    """
    if not record.response:
        raise ValueError(f"predict needs to know which column is the response, and {record.name} does not say.")
    if not isinstance(frame, pd.DataFrame) or frame.empty or not {*_needed(record)} <= {*frame.columns}:
        rules.check(frame, record.columns, record.name)
    _check_key(record, frame, key)
    if record.response not in frame.columns:
        frame = frame.assign(**{record.response: np.nan})
    for name in set(options) & set(record.columns):
        if name in frame.columns:
            frame = frame[text(frame[name]) == options[name]]
            if frame.empty:
                raise rules.FrameError(f"The fit is of {name} {options[name]!r}: the frame has no row of it.")
        else:
            frame = frame.assign(**{name: options[name]})
    several = len(record.key_columns) > 1  # then the fit has them joined, as text
    return frame if several else frame.assign(**{name: like(frame[name], known) for name in record.key_columns})


def _check_moderators(record: HierarchicalModel, rows: xr.Dataset | None, *known: xr.Dataset | None) -> None:
    """Refuse rows that place a group elsewhere than what is known of it does: its parameter is from there."""
    for data in known if rows is not None and record.moderators else ():
        if data is None:
            continue
        both = np.intersect1d(data[record.group].values, rows[record.group].values)
        before, now = (each[DESIGN].sel({record.group: both}).transpose(record.group, DIM) for each in (data, rows))
        moved = both[~np.isclose(before, now).all(axis=1)]
        if moved.size:
            columns = listed(each.column for each in record.moderators)
            raise rules.FrameError(
                f"{moved[0]} has other moderators ({columns}) in the rows to predict than in those it is known by: "
                f"give it another label, to be a new {record.group}."
            )


def _check_new(
    record: HierarchicalModel,
    seen: xr.Dataset,
    labels: pd.Series,
    rows: xr.Dataset | None,
    brought: xr.Dataset | None,
) -> None:
    """Refuse or say what is most likely a slip: moderators at odds or in another unit, a label like one of the fit."""
    _check_moderators(record, rows, seen, brought)
    _warn_of_likenesses(record, seen[record.group].values.tolist(), labels)
    for new in (rows, brought):
        _warn_of_distance(record, seen, new)


def _warn_of_likenesses(record: HierarchicalModel, known: list[str], new: pd.Series) -> None:
    """Of new labels that look or sound like one of the fit: its data would count twice."""
    for several in alike(pd.Series([*known, *new])):
        if (old := [name for name in several if name in known]) and (others := [n for n in several if n not in known]):
            warnings.warn(
                f"{record.name}: {listed(map(repr, others))} and {old[0]!r} of the fit differ by case, spaces or form "
                f"only and are taken for different {plural(record.group)}.",
                rules.FrameWarning,
                stacklevel=5,
            )


def _warn_of_distance(record: HierarchicalModel, seen: xr.Dataset, new: xr.Dataset | None) -> None:
    """Of moderators of new groups that lie further outside of those of the fit than these from one another."""
    for each in record.moderators if new is not None else ():
        if each.levels:
            continue
        of_fit, of_new = (data[DESIGN].sel({DIM: each.contrasts[0]}).values + each.centre for data in (seen, new))
        low, high = of_fit.min(), of_fit.max()
        far = (of_new < 2 * low - high) | (of_new > 2 * high - low)
        if far.any():
            j = int(np.flatnonzero(far)[0])
            warnings.warn(
                f"{record.name}: moderator {each.column!r} of {new[record.group].values[j]} is {of_new[j]:g}, far from "
                f"the {low:g} to {high:g} of the fit: is it in the same unit? Nothing but the straight line says what "
                "is there.",
                rules.FrameWarning,
                stacklevel=5,
            )


def _needed(record: HierarchicalModel) -> list[str]:
    """The columns of the key that a frame cannot do without."""
    return [name for name in record.key_columns if not record.columns[name].optional]


def _check_key(record: HierarchicalModel, frame: pd.DataFrame, key: str) -> None:
    """Refuse a frame whose groups are labelled by other columns than those of the fit."""
    have = [name for name in record.key_columns if name in frame.columns]
    if key and have != key.split(BETWEEN):
        raise rules.FrameError(
            f"The fit labels its {plural(record.group)} by {listed(map(repr, key.split(BETWEEN)))}, the frame by "
            f"{listed(map(repr, have))}: give the same columns."
        )


def _prepare(record: HierarchicalModel, rows: pd.DataFrame, options: dict) -> xr.Dataset | None:
    """Rows as the model sees them."""
    if rows.empty:
        return None
    return labelled(record, record.prepared(rows, **options))


def labelled(record: HierarchicalModel, data: xr.Dataset) -> xr.Dataset:
    """The same with labels, of groups and of levels above them, that are text."""
    dims = [record.group, *(level.dim for level in record.group_level.further)]
    return data.assign_coords({dim: text(pd.Series(data[dim].values)).to_numpy(str) for dim in dims})
