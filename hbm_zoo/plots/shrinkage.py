"""From each group's own estimate to its partial-pooling estimate."""

from __future__ import annotations

import numpy as np
import xarray as xr
from matplotlib.figure import Figure

from hbm_zoo.inference.fits import (
    Fits,
    check_together,
    hyperparameters,
    model_of,
    named_groups,
    prepared,
    settings,
    volume_label,
    word,
)
from hbm_zoo.model import HierarchicalModel
from hbm_zoo.plots.style import (
    GREY,
    SMALL,
    Picture,
    alike,
    colour,
    estimand_label,
    evenly,
    finish,
    group_name,
    label_edge,
    legend_below,
    name_points,
    panels,
    volume_axis,
)
from hbm_zoo.words import plural

MOST_GROUPS = 300
MOST_LABELLED = 30
EXTREMES = 3


def plot_shrinkage(fits: Fits, model: HierarchicalModel | None = None) -> Figure:
    """Draw where each group's estimate moves when groups share, and towards what.

    Parameters
    ----------
    fits : dict of str to xarray.DataTree
        As `fit_poolings` returns them; it must hold partial pooling.
    model : HierarchicalModel, optional
        The record of a model that is not in the zoo.

    Returns
    -------
    matplotlib.figure.Figure
        An arrow a group, own estimate to posterior mean, over the volume of its data, which
        is also the size of its points (over its place in the order of own estimates, if all
        have the same volume). Beyond 300 groups, 300 evenly spaced in that order. The target
        is the mean of the population, which is not complete pooling's estimate: both are drawn
        and labelled, as a line or, where they differ from group to group, a dash for each. A group
        without an estimate of its own has no arrow. Of more than 30 groups the three largest,
        the three smallest and the three that move farthest are named.

    Raises
    ------
    ValueError
        If there is no partial pooling among the fits, or they do not belong together.
    """
    fits = check_together(fits)
    partial = next((fit for fit in fits.values() if fit.attrs["pooling"] == "partial"), None)
    if partial is None:
        raise ValueError(f"plot_shrinkage needs a fit of partial pooling; got {', '.join(fits)}.")
    complete = next((fit for fit in fits.values() if fit.attrs["pooling"] == "complete"), None)
    record = model_of(partial, model)
    level = record.ask("The target of shrinkage", "population", "reliability")
    target = level.target(hyperparameters(partial), prepared(partial)).mean("sample")
    summary = named_groups(partial).assign(target=target)
    if complete is not None:
        each = complete["group_summary"].to_dataset()["mean"]
        summary["complete"] = each.isel({record.group: 0}, drop=True) if alike(each, record.group) else each
    parts = panels(summary["mean"], record.group)
    group = word(partial, record.group)
    figure = Picture(figsize=(max(7.4, 6.0 * len(parts)), 4.8), layout="constrained")
    for axes, (title, selection) in zip(figure.subplots(1, len(parts), squeeze=False)[0], parts, strict=True):
        here = summary.sel(selection)
        here = here.isel({record.group: evenly(np.argsort(here["own"].values, kind="stable"), MOST_GROUPS)})
        _draw_arrows(axes, here, record.group, group, word(partial, volume_label(record, partial)))
        _draw_targets(axes, here)
        axes.set_ylabel(title or estimand_label(partial))
    some = f" ({MOST_GROUPS} of {summary.sizes[record.group]})" if summary.sizes[record.group] > MOST_GROUPS else ""
    at = f"; {settings(partial)}" if settings(partial) and len(parts) > 1 else ""
    figure.suptitle(f"Each {group}'s own estimate, and where sharing moves it{some}{at}", fontsize="medium")
    legend_below(figure)
    return figure


def _draw_arrows(axes, summary: xr.Dataset, dim: str, group: str, unit: str) -> None:
    own, mean = summary["own"].values, summary["mean"].values
    volume = np.broadcast_to(summary["volume"].values, own.shape).astype(float)
    size = 10 + 60 * volume / volume.max()
    if np.ptp(volume) > 0:
        x = volume
        volume_axis(axes, volume)
        axes.set_xlabel(f"amount of data: {unit}")
    else:
        x = np.arange(1.0, own.size + 1)
        axes.set_xlabel(f"{plural(group)} in the order of their own estimates; {unit}: {volume[0]:g} each")
    known = np.isfinite(own)
    for name, pooling, label in (("target", "partial", "target of each"), ("complete", "complete", "complete pooling")):
        if name in summary and dim in summary[name].dims:
            axes.scatter(x, summary[name], marker="_", color=colour(pooling), lw=1.2, label=label)
    axes.scatter(x, own, s=size, facecolors="white", edgecolors=colour("own"), lw=0.8, label="own estimate")
    axes.scatter(x, mean, s=size, color=colour("partial"), alpha=0.8, lw=0, label="partial pooling")
    for at, start, end in zip(x[known], own[known], mean[known], strict=True):
        axes.annotate("", (at, end), (at, start), arrowprops={"arrowstyle": "->", "color": GREY, "lw": 0.7}, zorder=0.5)
    if own.size <= MOST_LABELLED and x is volume:
        name_points(axes, x, np.where(known, own, mean), summary[dim].values)
    elif own.size > MOST_LABELLED:
        named = _extremes(own, mean)
        name_points(axes, x[named], own[named], summary[dim].values[named])
    else:
        axes.set_xticks(x, [group_name(label) for label in summary[dim].values], rotation=90, fontsize=SMALL)
    finish(axes)


def _extremes(own: np.ndarray, mean: np.ndarray) -> np.ndarray:
    """The smallest and the largest estimates, and those that move farthest."""
    known = np.flatnonzero(np.isfinite(own))
    order = known[np.argsort(own[known], kind="stable")]
    farthest = known[np.argsort(-abs(own - mean)[known], kind="stable")]
    return np.unique([*order[:EXTREMES], *order[-EXTREMES:], *farthest[:EXTREMES]])


def _draw_targets(axes, summary: xr.Dataset) -> None:
    """The population's mean, the target, and complete pooling's estimate, each named at the edge."""
    lines = {"target": ("target: population mean", "partial", "--"), "complete": ("complete pooling", "complete", ":")}
    lines = {name: line for name, line in lines.items() if name in summary and not summary[name].ndim}
    if not lines:
        return
    for name, (_, pooling, dashes) in lines.items():
        axes.axhline(float(summary[name]), color=colour(pooling), lw=1.2, ls=dashes, zorder=0.7)
    texts, poolings, _ = zip(*lines.values(), strict=True)
    label_edge(
        axes, np.array([float(summary[name]) for name in lines]), list(texts), [colour(pooling) for pooling in poolings]
    )
