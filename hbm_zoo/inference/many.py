"""One model fitted to many units, each alone: all genes of an atlas, all measures of a file, all traits of a trial."""

from __future__ import annotations

import inspect
import json
import warnings
from collections.abc import Mapping
from concurrent.futures import Executor
from pathlib import Path
from types import ModuleType
from typing import Any

import pandas as pd
import xarray as xr
from arviz_base import rc_context, rcParams

from hbm_zoo.frames import labels
from hbm_zoo.frames.rules import FrameError
from hbm_zoo.inference.arguments import OF_SAMPLER, check_engine, check_sizes, settled_seed
from hbm_zoo.inference.convergence import ConvergenceWarning, convergence
from hbm_zoo.inference.fits import free, hyperparameters, model_of
from hbm_zoo.inference.fitting import BY, fit
from hbm_zoo.inference.summary import interval_name, interval_tails
from hbm_zoo.model import HierarchicalModel
from hbm_zoo.words import choose
from hbm_zoo.workers.run import PiecesFailed, Results, run, seed_of, summary
from hbm_zoo.zoo import record_of

UNIT, INTERVALS = "unit", "stats.ci_prob"


class FailedUnitsWarning(UserWarning):
    """Units that have no fit."""


def fit_many(
    model: ModuleType | HierarchicalModel | str,
    frames: Mapping[str, pd.DataFrame] | pd.DataFrame,
    by: str | None = None,
    pooling: str = "partial",
    random_seed: int | None = None,
    executor: Executor | None = None,
    workers: int = 1,
    folder: str | Path | None = None,
    progressbar: bool = True,
    **same,
) -> Results:
    """Fit one pooling of a model to each of many units.

    Parameters
    ----------
    model, pooling
        As in `fit`.
    frames : mapping of str to pandas.DataFrame, or one DataFrame
        The data of each unit by its name, or of all of them.
    by : str, optional
        The column of the one DataFrame that names each row's unit.
    random_seed : int, optional
        The seed of a unit is made of this one and its name. Drawn if not given.
    executor : concurrent.futures.Executor, optional
        Who fits: a pool of processes, or of a cluster, ``distributed.Client(...).get_executor()``.
    workers : int
        Without an executor: how many processes; 1 is this one. Fits are the same to the bit. A process needs some
        ten seconds to start.
    folder : str or Path, optional
        Where each fit is recorded, whole, as soon as it is finished: some megabytes each. Fits are then not kept in
        memory, and the same call, which must name its seed, goes on where an earlier one was stopped; units that
        failed may have been mended, and there may be more.
    progressbar : bool
        Show on the standard error how many are done, and the time left.
    **same
        What else `fit` takes, the same for each unit.

    Returns
    -------
    Results
        A mapping from the name of a unit to its fit, in the order of the units; with a folder each is read
        from its file whenever it is asked for. ``failed`` says by name why a unit has no fit.

    Raises
    ------
    FrameError, ValueError
        If an argument is not what is expected, or the folder holds other work.
    PiecesFailed
        If no unit has a fit.

    Warns
    -----
    FailedUnitsWarning
        If some have none.
    ConvergenceWarning
        Once, naming the units whose draws fail a check of `convergence`.

    Examples
    --------
    >>> import hbm_zoo as hz
    >>> frame = hz.load_data("three_hospitals")
    >>> years = {"2023": frame, "2024": frame.assign(observed=frame["observed"] + 1)}
    >>> fits = hz.fit_many("hospital_readmission", years, pooling="none", random_seed=1, progressbar=False)
    >>> {year: fit["group_summary"]["mean"].round(2).values.tolist() for year, fit in fits.items()}
    {'2023': [1.45, 0.58, 1.2], '2024': [1.67, 0.8, 1.22]}
    """
    record = record_of(model)
    _check_options(record, same)
    choose(pooling, record.variants, "pooling")
    if folder is not None and random_seed is None:
        raise ValueError("Work in a folder is gone on with under its own seed only: give random_seed as well.")
    seed = settled_seed(random_seed)
    told = {INTERVALS: rcParams[INTERVALS]}
    pieces = {
        name: {"model": record, "frame": frame, "pooling": pooling, "random_seed": seed_of(seed, name)} | same | told
        for name, frame in _units(frames, by).items()
    }
    try:
        return run(fit_unit, pieces, executor, workers, folder, progressbar, UNIT)
    except PiecesFailed as error:
        fits = error.results
        if not fits:
            raise
    said = summary(fits.failed, len(pieces), UNIT, "have no fit")
    warnings.warn(said, FailedUnitsWarning, stacklevel=2)
    return fits


def units(fits: Results) -> pd.DataFrame:
    """What was learned of the population of each unit, and whether that can be trusted.

    Parameters
    ----------
    fits : Results
        As `fit_many` returns them.

    Returns
    -------
    pandas.DataFrame
        One row a unit: the mean and interval of each hyperparameter that its pooling leaves free, in its own unit, and
        of its group's estimand where it has one group; ``passed`` and the ``verdict`` of `convergence`. Units without a
        fit are the last, with the reason for a verdict.

    Examples
    --------
    >>> import hbm_zoo as hz
    >>> frame = hz.load_data("three_hospitals")
    >>> years = {"2023": frame, "2024": frame.assign(observed=frame["observed"] + 1)}
    >>> fits = hz.fit_many("hospital_readmission", years, pooling="none", random_seed=1, progressbar=False)
    >>> hz.units(fits)["verdict"].unique().tolist()
    ['exact: independent draws in closed form']
    """
    if not isinstance(fits, Results):
        raise ValueError(f"units expected what fit_many returned, got a {type(fits).__name__}.")
    rows = {name: json.loads(fits.attrs(name)[UNIT]) for name in fits}
    refused = {name: {"passed": False, "verdict": str(reason)} for name, reason in fits.failed.items()}
    return pd.DataFrame.from_dict(rows | refused, orient="index").rename_axis(UNIT)


def fit_unit(piece: Mapping[str, Any]) -> xr.DataTree:
    """The fit of a unit, a row of `units` among its attrs."""
    given = dict(piece)
    with rc_context({INTERVALS: given.pop(INTERVALS)}):  # of the caller: a worker has ArviZ's own
        tree = fit(**given, progressbar=False)
        tree.attrs[UNIT] = json.dumps(_row(tree, model_of(tree, record_of(given["model"]))))
    return tree


def _of_group(known: xr.Dataset, estimand: str) -> dict[str, float]:
    """The mean and interval of each coefficient of a group."""
    by_name = known.to_dataframe() if known.sizes else pd.DataFrame({n: [v.item()] for n, v in known.items()}, [""])
    return {
        "_".join(filter(None, [estimand, str(name), *([end] if end != "mean" else [])])): float(value)
        for name, ends in by_name.iterrows()
        for end, value in ends.items()
    }


def _row(tree: xr.DataTree, record: HierarchicalModel) -> dict[str, Any]:
    """One unit in numbers: its population, and its group where it has one only."""
    row: dict[str, Any] = {}
    ends = [f"{interval_name()}_lb", f"{interval_name()}_ub"]
    for name, draws in hyperparameters(tree)[free(tree)].data_vars.items():
        tails = draws.quantile(interval_tails(), "sample").values.tolist()
        row |= {str(name): float(draws.mean())} | {f"{name}_{end}": tail for end, tail in zip(ends, tails, strict=True)}
    known = tree["group_summary"].to_dataset()
    if known.sizes[record.group] == 1:
        row |= _of_group(known[["mean", *ends]].isel({record.group: 0}, drop=True), record.estimand)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # `fit` has said it
        checks = convergence(tree).iloc[0]
    return row | {"passed": bool(checks["passed"]), "verdict": checks["verdict"]}


def _units(frames: Mapping[str, pd.DataFrame] | pd.DataFrame, by: str | None) -> dict[str, pd.DataFrame]:
    """The frame of each unit by its name as text, in the order in which they come."""
    if isinstance(frames, Mapping):
        if by is not None:
            raise ValueError("Expected frames by the name of their unit, or one frame and `by`, got both.")
        named = {labels.one(name): frame for name, frame in frames.items()}
        if len(named) < len(frames):
            raise ValueError(f"Expected units by different names, got {', '.join(map(repr, frames))}.")
        return named
    if not isinstance(frames, pd.DataFrame):
        raise FrameError(f"fit_many expected a DataFrame or a mapping of them, got {type(frames).__name__}.")
    if by is None:
        raise ValueError("One frame holds many units only by a column: give its name as `by`.")
    if not isinstance(by, str) or list(frames.columns).count(by) != 1:
        choose(str(by), map(str, frames.columns), "column")
        raise FrameError(f"Expected one column with the text {str(by)!r} for a name: give the columns such names.")
    names = labels.text(frames[by])
    if names.isna().any():
        row = frames.index[names.isna()][0]
        raise FrameError(f"Column {by!r} expected the name of a unit in each row, got an empty cell in row {row}.")
    parts = {str(name): part for name, part in frames.groupby(names.to_numpy(), sort=False)}
    for part in parts.values():
        part.attrs = dict(frames.attrs) | {BY: by}
    return parts


def _check_options(record: HierarchicalModel, given: Mapping[str, Any]) -> None:
    """Refuse at once what would be refused for each unit."""
    of_fit, own = (list(inspect.signature(f).parameters) for f in (fit, fit_many))
    known = [*record.options, *OF_SAMPLER, *(name for name in of_fit if name not in [*own, "frame", "sampler"])]
    for name in given:
        choose(name, known, f"option of {record.name}")
    check_sizes(**{name: given[name] for name in ("draws", "chains") if name in given})
    sampler = {name: value for name, value in given.items() if name in OF_SAMPLER}
    check_engine(given.get("engine", "auto"), given.get("tune"), sampler)
