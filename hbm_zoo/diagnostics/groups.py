"""One row a group: its own estimate, each pooling's, and how much it borrowed."""

from __future__ import annotations

import pandas as pd
import xarray as xr

from hbm_zoo.group_level.populations import exceedance
from hbm_zoo.inference.chunks import of_groups
from hbm_zoo.inference.fits import (
    Fits,
    check_together,
    hyperparameters,
    model_of,
    prepared,
    settings,
    thinned,
    volume_label,
)
from hbm_zoo.inference.summary import CELLS_IN_ALL, DRAWS_FOR_INTERVALS
from hbm_zoo.model import HierarchicalModel


def groups(fits: Fits, threshold: float | None = None, model: HierarchicalModel | None = None) -> pd.DataFrame:
    """Tabulate every group under every pooling.

    Parameters
    ----------
    fits : dict of str to xarray.DataTree, or one fit
        As `fit_poolings` returns them.
    threshold : float, optional
        Adds P(estimand > threshold).
    model : HierarchicalModel, optional
        The record of a model that is not in the zoo.

    Returns
    -------
    pandas.DataFrame
        Indexed by group (and by coefficient, if the estimand has several). The volume of its
        data; ``own``, the raw estimate; for each fit its posterior mean and interval
        (``partial``, ``partial_eti89_lb``, ...); and from partial pooling ``kappa`` =
        1 - E[Var(theta | y, h)] / Var(theta | h), the weight of the group's own data, with
        its interval over hyperparameters; ``p_above_<reference>``; ``p_above_<threshold>``;
        ``rank``, 1 for the largest, with interval; ``p_best``; ``p_top10``.

    Raises
    ------
    ValueError
        If fits do not belong together.

    Examples
    --------
    >>> import hbm_zoo as hz
    >>> frame = hz.load_data("three_hospitals")
    >>> alone = hz.fit("hospital_readmission", frame, pooling="none", random_seed=1)
    >>> hz.groups(alone)[["expected", "own", "none"]].round(2).loc["Small"].tolist()
    [4.0, 1.5, 1.45]
    """
    fits = check_together(fits)
    leading_name = next((n for n, f in fits.items() if f.attrs["pooling"] == "partial"), next(reversed(fits)))
    leading = fits[leading_name]
    record = model_of(leading, model)
    summary = leading["group_summary"].to_dataset()
    interval = _ends(summary)
    columns = {volume_label(record, leading): summary["volume"], "own": summary["own"]}
    for name, fit in fits.items():
        each = fit["group_summary"].to_dataset()
        columns |= {name: each["mean"], **{f"{name}_{end}": each[end] for end in _ends(each)}}
    kappa = [name for name in ("kappa", *(f"kappa_{end}" for end in interval)) if leading.attrs["pooling"] != "none"]
    columns |= {name: summary[name] for name in kappa if name in summary}
    if record.reference is not None:
        columns[f"p_above_{record.reference:g}"] = summary["p_above"]
    if threshold is not None:
        columns[f"p_above_{threshold:g}"] = probability_above(leading, float(threshold), record)
    ranks = ("rank", *(f"rank_{end}" for end in interval), "p_best", "p_top10")
    columns |= {name: summary[name] for name in ranks if name in summary}
    table = xr.Dataset({name: value.drop_vars("sample", errors="ignore") for name, value in columns.items()})
    table = table.to_dataframe(dim_order=list(summary["mean"].dims))
    return table.rename_axis(columns=settings(leading) or None)


def probability_above(fit: xr.DataTree, threshold: float, model: HierarchicalModel | None = None) -> xr.DataArray:
    """P(estimand > threshold) for each group, averaged over hyperparameter draws.

    Where nothing is known of a group given them it is the share of the draws beyond the threshold.
    """
    record, data = model_of(fit, model), prepared(fit)
    if record.group_level.conditional is None:
        return (fit["posterior"].dataset[record.estimand] > threshold).mean(["chain", "draw"])
    h = hyperparameters(fit)
    h = thinned(h, max(DRAWS_FOR_INTERVALS, CELLS_IN_ALL // data.sizes[record.group]))
    parts = [
        exceedance(record.group_level.conditional(h, chunk), threshold)
        for chunk in of_groups(record, data, h.sizes["sample"])
    ]
    return xr.concat(parts, dim=record.group)


def _ends(summary: xr.Dataset) -> list[str]:
    """The names of the interval's two ends, e.g. eti89_lb and eti89_ub."""
    return sorted(name for name in map(str, summary) if name.startswith("eti"))
