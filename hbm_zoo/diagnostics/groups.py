"""One row a group: its own estimate, each pooling's, and how much it borrowed; the same of a level above."""

from __future__ import annotations

import numpy as np
import pandas as pd
import xarray as xr

from hbm_zoo.group_level.averages import exceedance, quantile
from hbm_zoo.group_level.level import Level
from hbm_zoo.inference.chunks import CELLS_AT_ONCE, each_group
from hbm_zoo.inference.fits import (
    LABEL,
    Fits,
    check_together,
    hyperparameters,
    model_of,
    prepared,
    settings,
    volume_label,
)
from hbm_zoo.inference.summary import (
    affordable,
    interval_name,
    interval_tails,
)
from hbm_zoo.model import HierarchicalModel
from hbm_zoo.words import choose

#: What the data of a group weigh given these data, among the `expectations` of a group level where kappa is another.
WEIGHT = "weight"
#: The noise within a group, among these where each has its own.
NOISE = "sigma_g"


def groups(
    fits: Fits, threshold: float | None = None, model: HierarchicalModel | None = None, level: str | None = None
) -> pd.DataFrame:
    """Tabulate every group under every pooling.

    Parameters
    ----------
    fits : dict of str to xarray.DataTree, or one fit
        As `fit_poolings` returns them.
    threshold : float, optional
        Adds P(estimand > threshold).
    model : HierarchicalModel, optional
        The record of a model that is not in the zoo.
    level : str, optional
        A level above the groups, one row a unit of it: ``"campaign"`` where batches are made in
        campaigns. Default: the groups.

    Returns
    -------
    pandas.DataFrame
        Indexed by group (and by coefficient, if the estimand has several). Its ``label``, if the fit has
        one beside it; the volume of its data; ``own``, the raw estimate; for each fit its posterior mean and interval
        (``partial``, ``partial_eti89_lb``, ...); and from partial pooling ``kappa`` =
        1 - E[Var(theta | y, h)] / Var(theta | h), the weight of the group's own data, with
        its interval over hyperparameters, and ``weight`` = (E[theta | y, h] - mu)/(own - mu), where that is another;
        ``sigma_g``, the spread within a group, where each has its own;
        ``p_above_<reference>``; ``p_above_<threshold>``;
        ``rank``, 1 for the largest, with interval; ``p_best``; ``p_top10``.

        Of a level above, the same but for the ranks, from closed forms averaged over hyperparameter draws. No
        pooling is left out where it gives that level no spread: what it says of a unit was fixed in advance.

    Raises
    ------
    ValueError
        If fits do not belong together, the threshold is no finite number, or the model has no such level; the nearest
        name is given.

    Examples
    --------
    >>> import hbm_zoo as hz
    >>> frame = hz.load_data("three_hospitals")
    >>> alone = hz.fit("hospital_readmission", frame, pooling="none", random_seed=1)
    >>> hz.groups(alone)[["expected", "own", "none"]].round(2).loc["Small"].tolist()
    [4.0, 1.5, 1.45]
    """
    if not (threshold is None or (isinstance(threshold, int | float | np.number) and np.isfinite(threshold))):
        raise ValueError(f"threshold expected a finite number, got {threshold!r}.")
    fits = check_together(fits)
    leading = next((n for n, f in fits.items() if f.attrs["pooling"] == "partial"), next(reversed(fits)))
    record = model_of(fits[leading], model)
    above = {each.dim: each for each in record.group_level.further}
    dim = choose(level or record.group, [record.group, *above], f"level of {record.name}")
    if dim in above:
        columns = _of_level(record, above[dim], fits, leading, threshold)
    else:
        columns = _of_groups(record, fits, leading, threshold)
    table = xr.Dataset({name: value.drop_vars("sample", errors="ignore") for name, value in columns.items()})
    others = [str(name) for name in table.sizes if name != dim]
    return table.to_dataframe(dim_order=[dim, *others]).rename_axis(columns=settings(fits[leading]) or None)


def _of_groups(record, fits: Fits, leading: str, threshold: float | None) -> dict[str, xr.DataArray]:
    """The columns of the table, from the summaries that the fits hold."""
    summary = fits[leading]["group_summary"].to_dataset()
    interval = _ends(summary)
    columns = {name: summary[name] for name in [LABEL] if name in summary}
    columns |= {volume_label(record, fits[leading]): summary["volume"], "own": summary["own"]}
    for name, fit in fits.items():
        each = fit["group_summary"].to_dataset()
        columns |= {name: each["mean"], **{f"{name}_{end}": each[end] for end in _ends(each)}}
    borrowed = fits[leading].attrs["pooling"] != "none"
    kappa = [name for name in ("kappa", *(f"kappa_{end}" for end in interval), WEIGHT) if borrowed]
    columns |= {name: summary[name] for name in (*kappa, NOISE) if name in summary}
    if record.reference is not None:
        columns[f"p_above_{record.reference:g}"] = summary["p_above"]
    if threshold is not None:
        columns[f"p_above_{threshold:g}"] = probability_above(fits[leading], float(threshold), record)
    ranks = ("rank", *(f"rank_{end}" for end in interval), "p_best", "p_top10")
    return columns | {name: summary[name] for name in ranks if name in summary}


def _of_level(record, level: Level, fits: Fits, leading: str, threshold: float | None) -> dict[str, xr.DataArray]:
    """The columns of the table of a level above, from its formulas; all its data at once."""
    data = prepared(fits[leading])
    columns = {str(level.volume(data).name): level.volume(data), "own": level.own(data)}
    for name, fit in fits.items():
        columns |= {f"{name}{end}": value for end, value in _estimates(record, level, fit).items()}
    if fits[leading].attrs["pooling"] == "none":
        return columns
    h = _draws(record, level, fits[leading])
    kappa, population = level.reliability(h, data), level.conditional(h, data)
    columns["kappa"] = kappa.mean("sample")
    for end, tail in _tails().items():
        columns[f"kappa{end}"] = kappa.quantile(tail, "sample", skipna=False).drop_vars("quantile")
    if record.reference is not None:
        columns[f"p_above_{record.reference:g}"] = exceedance(population, record.reference)
    if threshold is not None:
        columns[f"p_above_{threshold:g}"] = exceedance(population, threshold)
    return columns


def _estimates(record, level: Level, fit: xr.DataTree) -> dict[str, xr.DataArray]:
    """Posterior mean and interval of each unit of a level under one pooling; the interval from fewer draws."""
    h, data = _draws(record, level, fit), prepared(fit)
    if fit.attrs["pooling"] == "none" and not (level.population(h, data).sd > 0).any():
        return {}
    few = level.conditional(affordable(h, data.sizes[level.dim], CELLS_AT_ONCE), data)
    ends = {end: quantile(few, tail) for end, tail in _tails().items()}
    return {"": level.conditional(h, data).mean.mean("sample"), **ends}


def _draws(record, level: Level, fit: xr.DataTree) -> xr.Dataset:
    """Hyperparameters [sample], as many as arrays of draws x groups may hold."""
    sizes = prepared(fit).sizes
    return affordable(hyperparameters(fit), sizes[record.group])


def _tails() -> dict[str, float]:
    """The tails of the interval by the ending of their column, e.g. _eti89_lb."""
    return {f"_{interval_name()}_{end}": tail for end, tail in zip(("lb", "ub"), interval_tails(), strict=True)}


def probability_above(fit: xr.DataTree, threshold: float, model: HierarchicalModel | None = None) -> xr.DataArray:
    """P(estimand > threshold) for each group, averaged over hyperparameter draws.

    Where nothing is known of a group given them it is the share of the draws beyond the threshold.
    """
    record, data = model_of(fit, model), prepared(fit)
    if record.group_level.conditional is None:
        return (fit["posterior"].dataset[record.estimand] > threshold).mean(["chain", "draw"])
    h = hyperparameters(fit)
    h = affordable(h, data.sizes[record.group])
    after = record.group_level.after
    return each_group(record, data, h.sizes["sample"], lambda part: exceedance(after(h, part), threshold))


def _ends(summary: xr.Dataset) -> list[str]:
    """The names of the interval's two ends, e.g. eti89_lb and eti89_ub."""
    return sorted(name for name in map(str, summary) if name.startswith("eti"))
