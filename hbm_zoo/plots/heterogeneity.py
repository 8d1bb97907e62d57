"""Every group's estimate as a function of how much groups differ: the best picture of shrinkage there is."""

from __future__ import annotations

import numpy as np
import xarray as xr
from matplotlib.figure import Figure
from scipy.interpolate import PchipInterpolator

from hbm_zoo.diagnostics.heterogeneity import estimates_over_heterogeneity
from hbm_zoo.inference.fits import model_of, named_groups, word
from hbm_zoo.model import HierarchicalModel
from hbm_zoo.plots.style import (
    FAINT,
    GREY,
    INK,
    Picture,
    colour,
    estimand_label,
    evenly,
    finish,
    group_name,
    label_edge,
    legend_below,
    panels,
)
from hbm_zoo.words import plural

MOST_GROUPS = 100
MOST_LABELLED = 30
CURVE_POINTS = 300


def plot_estimates_over_heterogeneity(
    fit: xr.DataTree, model: HierarchicalModel | None = None, groups: list | None = None
) -> Figure:
    """Draw each group's estimate at every heterogeneity, above the posterior of the heterogeneity.

    Parameters
    ----------
    fit : xarray.DataTree
        A fit of partial pooling.
    model : HierarchicalModel, optional
        The record of a model that is not in the zoo.
    groups : list, optional
        The groups to draw. Default: all; beyond 100, 100 evenly spaced in the order of their
        partial-pooling mean.

    Returns
    -------
    matplotlib.figure.Figure
        Above, a line a group (a panel for each coefficient): its estimate from where groups do not
        differ towards its own; at the right edge the fit's estimate, which is the line averaged
        over the posterior below where the heterogeneity is one number. Below, that posterior: the
        draws, and for one number its density by quadrature. Where it is a matrix T, t runs along
        T = t^2 That, t = 1 at the posterior means: one path through all T, and the fit's estimate,
        averaged over all of them, need not be an average of the line.

    Raises
    ------
    ValueError
        If the fit is not of partial pooling, a group is unknown, or the model has no closed form.

    Notes
    -----
    After Rubin (1981), J Educ Stat 6:377-401; Gelman et al. (2013), Bayesian Data Analysis, figures 5.5
    and 5.6; Röver (2020), J Stat Softw 93(6). `estimates_over_heterogeneity` gives the numbers.
    """
    record = model_of(fit, model)
    dim = record.group
    summary = fit["group_summary"].to_dataset()
    if groups is None:
        by_mean = summary["mean"].isel({other: 0 for other in summary["mean"].dims if other != dim})
        shown = np.sort(evenly(np.argsort(by_mean.values, kind="stable"), MOST_GROUPS))
        groups = summary[dim].values[shown].tolist()
    over = estimates_over_heterogeneity(fit, groups=groups, model=record)
    places = summary.get_index(dim).get_indexer(over[dim].values)
    averaged = named_groups(fit)["mean"].isel({dim: places})
    parts = panels(averaged, dim)
    figure = Picture(figsize=(max(7.0, 5.6 * len(parts)), 6.0), layout="constrained")
    grid = figure.subplots(2, len(parts), squeeze=False, sharex=True, height_ratios=[3, 1])
    for (above, below), (title, selection) in zip(grid.T, parts, strict=True):
        of_fit = (
            "partial pooling: the average" if record.extras.path is None else "partial pooling: averaged over all T"
        )
        estimates = over["estimate"].sel(selection)
        _draw_estimates(above, estimates, averaged.sel(selection), dim, over.attrs["at_0"], of_fit)
        _draw_posterior(below, over)
        above.set_ylabel(title or estimand_label(fit))
        below.set_xlabel(_in_words(record, word(fit, dim)))
    grid[1, 0].set_ylabel("posterior")
    some = "" if len(groups) == summary.sizes[dim] else f" ({len(groups)} of {summary.sizes[dim]})"
    figure.suptitle(f"If {plural(word(fit, dim))} differed this much{some}: {estimand_label(fit)}", fontsize="medium")
    legend_below(figure)
    return figure


def _draw_estimates(axes, estimate: xr.DataArray, averaged: xr.DataArray, dim: str, at_0: str, of_fit: str) -> None:
    t, lines = estimate["heterogeneity"].values, estimate.transpose("heterogeneity", dim).values
    labels = [group_name(label) for label in averaged[dim].values]
    few = len(labels) <= MOST_LABELLED
    axes.plot(t, lines, color=INK if few else GREY, lw=1.0 if few else 0.6, alpha=0.8 if few else 0.6)
    paint = colour("complete") if at_0 == "complete pooling" else INK
    axes.plot([0], lines[:1, 0], "D", ms=6, color=paint, label=at_0, clip_on=False, zorder=4)
    ends = averaged.values
    edge = np.full(ends.size, 1.08 * t[-1])
    axes.plot([t[-1] + 0 * edge, edge], [lines[-1], ends], color=FAINT, lw=0.5, zorder=1)
    axes.plot(edge, ends, "o", ms=5 if few else 3, color=colour("partial"), label=of_fit)
    axes.set_xlim(0, 1.1 * t[-1])
    if few:
        label_edge(axes, ends, labels)
    finish(axes)


def _draw_posterior(axes, over: xr.Dataset) -> None:
    t = over["heterogeneity"].values
    seen = over["draws"].values[over["draws"].values <= t[-1]]
    axes.hist(
        seen, bins=30, range=(0, t[-1]), density=True, color=colour("partial"), alpha=0.3, label="posterior draws"
    )
    if "log_density" in over:
        log_density = over["log_density"].where(np.isfinite, drop=True)
        x = np.linspace(float(log_density["heterogeneity"][0]), t[-1], CURVE_POINTS)
        curve = PchipInterpolator(log_density["heterogeneity"].values, log_density.values)(x)
        density = np.exp(curve - curve.max())
        axes.plot(x, density / np.trapezoid(density, x), color=colour("partial"), lw=1.4, label="posterior density")
    axes.set_yticks([])
    axes.set_ylim(bottom=0)
    finish(axes)
    axes.spines["left"].set_visible(False)


def _in_words(record: HierarchicalModel, group: str) -> str:
    if record.extras.path is not None:
        return f"t: spread of the {plural(group)}, in units of the estimated one (T = t² T̂)"
    meaning = record.parameters[record.heterogeneity].meaning.partition(";")[0]
    return f"{record.heterogeneity}: {meaning}"
