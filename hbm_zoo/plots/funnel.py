"""Is a group out of line, or only small? Own estimates against the volume of data, with control limits."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from matplotlib.figure import Figure

from hbm_zoo.inference.fits import Fits, check_together, model_of, named_groups, volume_label, word
from hbm_zoo.model import HierarchicalModel
from hbm_zoo.plots.style import (
    GREY,
    Picture,
    colour,
    estimand_label,
    finish,
    label_edge,
    legend_below,
    name_points,
    volume_axis,
)
from hbm_zoo.words import plural

PROBABILITIES = (0.95, 0.998)
DASHES = ("--", "-")
CURVE_POINTS = 400
MOST_NAMED = 20
MANY = 300


def plot_funnel(fits: Fits, model: HierarchicalModel | None = None) -> Figure:
    """Draw own estimates against the volume of data, with the limits that chance alone keeps.

    Parameters
    ----------
    fits : dict of str to xarray.DataTree
        As `fit_poolings` returns them; it must hold complete and partial pooling.
    model : HierarchicalModel, optional
        The record of a model that is not in the zoo.

    Returns
    -------
    matplotlib.figure.Figure
        Own estimates and, over them, those of partial pooling. The target is complete pooling's
        estimate, and 95 % and 99.8 % of groups like it, or more of counts, stay within the limits. Groups beyond
        99.8 % are named, the 20 furthest out if there are more; all are, if they are at most 20.

    Raises
    ------
    ValueError
        If a pooling is missing, fits do not belong together, the model has no control limits, or no one target.

    Notes
    -----
    Spiegelhalter (2005), Stat Med 24:1185-1202. The limits test each group alone against "all are
    the same"; partial pooling says by how much they differ.
    """
    fits = check_together(fits)
    of = {fit.attrs["pooling"]: fit for fit in reversed(fits.values())}
    if not {"complete", "partial"} <= set(of):
        raise ValueError(f"plot_funnel needs fits of complete and of partial pooling; got {', '.join(fits)}.")
    partial = of["partial"]
    record = model_of(partial, model)
    limits, target = _limits(record), float(of["complete"]["group_summary"].to_dataset()["mean"][0])
    summary, dim = named_groups(partial), record.group
    own, mean, volume = (summary[name].values for name in ("own", "mean", "volume"))
    figure = Picture(figsize=(7.4, 4.8), layout="constrained")
    axes = figure.subplots()
    axes.vlines(volume, own, mean, color=GREY, lw=0.5, zorder=1)
    size = 4.5 if own.size <= MANY else 2.0
    axes.plot(volume, own, "o", ms=size, mfc="white", mec=colour("own"), label="own estimate", zorder=2)
    axes.plot(volume, mean, "o", ms=size - 0.5, color=colour("partial"), alpha=0.8, label="partial pooling", zorder=3)
    _draw_limits(axes, limits, target, volume, own)
    out = _how_far_out(limits, target, volume, own)
    beyond = out > 0
    named = np.argsort(-out, kind="stable")[: min(MOST_NAMED, own.size if own.size <= MOST_NAMED else beyond.sum())]
    name_points(axes, volume[named], own[named], summary[dim].values[named])
    axes.set(xlabel=f"amount of data: {word(partial, volume_label(record, partial))}", ylabel=estimand_label(partial))
    finish(axes)
    lie = f"{beyond.sum()} of {own.size} {plural(word(partial, dim))} {'lies' if beyond.sum() == 1 else 'lie'}"
    figure.suptitle(f"{lie} beyond the 99.8 % limits of chance", fontsize="medium")
    legend_below(figure)
    return figure


def beyond_limits(fits: Fits, model: HierarchicalModel | None = None) -> np.ndarray:
    """Labels of the groups beyond the 99.8 % limits of `plot_funnel`; none where a model has no funnel."""
    fits = check_together(fits)
    of = {fit.attrs["pooling"]: fit for fit in fits.values()}
    record = model_of(next(iter(fits.values())), model)
    if not {"complete", "partial"} <= set(of) or record.extras.control_limits is None or record.group_level.placed:
        return np.array([])
    summary = of["partial"]["group_summary"].to_dataset()
    target = float(of["complete"]["group_summary"].to_dataset()["mean"][0])
    out = _how_far_out(record.extras.control_limits, target, summary["volume"].values, summary["own"].values)
    return summary[record.group].values[out > 0]


def _how_far_out(limits: Callable, target: float, volume: np.ndarray, own: np.ndarray) -> np.ndarray:
    """By how much of their width estimates lie beyond the outer limits; below 0 within them."""
    lower, upper = limits(target, volume, PROBABILITIES[-1])
    return np.maximum(own - upper, lower - own) / (upper - lower)


def _limits(record: HierarchicalModel) -> Callable:
    """The control limits of a model that has them."""
    if record.extras.control_limits is None:
        raise ValueError(
            f"{record.name} has no control limits: a funnel needs an estimate of each {record.group} whose noise is "
            "known from the volume of its data alone."
        )
    if record.group_level.placed:
        raise ValueError(f"A funnel has one target, and {record.name} expects something else of each {record.group}.")
    return record.extras.control_limits


def _draw_limits(axes, limits: Callable, target: float, volume: np.ndarray, own: np.ndarray) -> None:
    """The target and both limits over the volumes seen; what lies far beyond the data is cut off."""
    volume_axis(axes, volume)
    wide = axes.get_xscale() == "log"
    ends = (volume.min() / 1.15, volume.max() * 1.15) if wide else (0.9 * volume.min(), 1.05 * volume.max())
    x = (np.geomspace if wide else np.linspace)(*ends, CURVE_POINTS)
    low, high = min(own.min(), target), max(own.max(), target)
    axes.set(xlim=ends, ylim=(low - 0.12 * (high - low), high + 0.12 * (high - low)))
    axes.axhline(target, color=colour("complete"), lw=1.2, zorder=0.7)
    for probability, dashes in zip(PROBABILITIES, DASHES, strict=True):
        labels = f"{100 * probability:g} % limits", None
        for limit, label in zip(limits(target, x, probability), labels, strict=True):
            axes.plot(x, limit, color=colour("complete"), lw=0.9, ls=dashes, label=label, zorder=0.7)
    label_edge(axes, np.array([target]), ["complete pooling"], colour("complete"))
