"""The fits in the space of the data: each group's rows, and its curve alone, lumped and shared."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import xarray as xr
from matplotlib.figure import Figure

from hbm_zoo import words
from hbm_zoo.group_level.curves import Curve
from hbm_zoo.inference.fits import Fits, check_together, model_of, named_groups, prepared, word
from hbm_zoo.inference.summary import interval_tails
from hbm_zoo.model import HierarchicalModel
from hbm_zoo.plots.style import (
    INK,
    Picture,
    both_ends,
    colour,
    finish,
    group_name,
    legend_below,
    said_of_ends,
)

MOST_GROUPS, COLUMNS = 24, 6
PLACES = 60
MOST_CELLS = 20_000_000


def plot_fits(fits: Fits, kept: Iterable = (), model: HierarchicalModel | None = None) -> Figure:
    """Draw each group's rows and the curve that each pooling puts through them.

    Parameters
    ----------
    fits : dict of str to xarray.DataTree, or one fit
        As `fit_poolings` returns them.
    kept : iterable of labels, optional
        Groups that are drawn wherever they lie in the order, however many groups there are.
    model : HierarchicalModel, optional
        The record of a model that is not in the zoo.

    Returns
    -------
    matplotlib.figure.Figure
        A panel a group: its rows; the posterior mean of its curve alone, of all lumped, and shared, the last with its
        interval. Panels are in the order of how far sharing moves the curve, the farthest first; beyond 24 groups both
        ends of that order.

    Raises
    ------
    ValueError
        If fits do not belong together, the model has no curve, or no fit holds draws of the groups.

    Examples
    --------
    >>> import hbm_zoo as hz
    >>> fit = hz.fit("reaction_norms", hz.load_data("sleepstudy"), pooling="none", random_seed=1)
    >>> len(hz.plot_fits(fit).axes)
    18
    """
    fits = check_together(fits)
    record = model_of(next(iter(fits.values())), model)
    if (curve := record.extras.curve) is None:
        raise ValueError(f"{record.name} has no curve through the rows of each {record.group}.")
    drawn = {name: fit for name, fit in fits.items() if record.estimand in fit["posterior"]}
    if not drawn:
        raise ValueError("plot_fits needs draws of the groups, and these fits hold none: there were too many to keep.")
    leading = next((fit for fit in drawn.values() if fit.attrs["pooling"] == "partial"), next(iter(drawn.values())))
    data, group = prepared(leading), word(leading, record.group)
    names = named_groups(leading)[record.group].values
    of, x, y = curve.rows(data)
    along = xr.DataArray(np.linspace(x.min(), x.max(), PLACES), dims="x")
    curves = {name: _curves(record, curve, fit, along) for name, fit in drawn.items()}
    order, said = _order(record.group, curves, drawn, data, kept)
    figure, panels = _panels(order.size)
    for axes, j in zip(panels, order, strict=True):
        axes.plot(x[of == j], y[of == j], "o", ms=3, mfc="white", mec=INK, label="data", zorder=3)
        for name, each in curves.items():
            _draw_curve(axes, along.values, each.isel({record.group: j}), drawn[name].attrs["pooling"], name)
        axes.set_title(group_name(names[j]), fontsize="small")
        finish(axes)
    plane = f"{word(leading, curve.response)} over {word(leading, curve.axis)}"
    counted = f"{data.sizes[record.group]} {words.plural(group, data.sizes[record.group])}"
    figure.suptitle(f"{counted}, {plane}{said}", fontsize="medium")
    legend_below(figure)
    return figure


def _panels(size: int) -> tuple[Figure, np.ndarray]:
    """A grid of panels on common axes."""
    columns = min(COLUMNS, size)
    rows = -(-size // columns)
    figure = Picture(figsize=(max(4.5, 1.9 * columns), 1.2 + 1.7 * rows), layout="constrained")
    panels = figure.subplots(rows, columns, sharex=True, sharey=True, squeeze=False).ravel()
    for axes in panels[size:]:
        axes.remove()
    return figure, panels[:size]


def _curves(record: HierarchicalModel, curve: Curve, fit: xr.DataTree, along: xr.DataArray) -> xr.Dataset:
    """Posterior mean of each group's curve with its interval [group, x]."""
    draws = fit["posterior"].dataset[record.estimand]
    every = max(1, draws.size * along.size // MOST_CELLS)
    at = curve.at(draws.isel(draw=slice(None, None, every)), along, prepared(fit))
    low, high = (at.quantile(tail, ("chain", "draw")).drop_vars("quantile") for tail in interval_tails())
    return xr.Dataset({"mean": at.mean(("chain", "draw")), "low": low, "high": high})


def _order(dim: str, curves: dict[str, xr.Dataset], fits: Fits, data: xr.Dataset, kept: Iterable):
    """Groups by how far sharing moves their curves, and what a title says of those left out."""
    of = {fits[name].attrs["pooling"]: each["mean"] for name, each in curves.items()}
    order = np.arange(data.sizes[dim])
    if {"none", "partial"} <= set(of):
        order = np.argsort(-(abs(of["partial"] - of["none"]).mean("x")).values, kind="stable")
    keep = np.flatnonzero(np.isin(data[dim].values, [*kept]))
    chosen = both_ends(order, keep, MOST_GROUPS)
    if chosen.size == order.size:
        return chosen, ""
    among = int(np.isin(chosen, keep).sum())
    return chosen, "\n" + said_of_ends("how far sharing moves them", chosen.size, order.size, among, keep.size)


def _draw_curve(axes, x: np.ndarray, curve: xr.Dataset, pooling: str, name: str) -> None:
    axes.plot(x, curve["mean"], color=colour(pooling), lw=1.3, label=words.pooling(name))
    if pooling == "partial":
        axes.fill_between(x, curve["low"], curve["high"], color=colour(pooling), alpha=0.2, lw=0)
