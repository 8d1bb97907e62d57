"""What may be counted on from batches to come: the bound, what it is a quantile of, and the batches behind it."""

from __future__ import annotations

import numpy as np
import xarray as xr
from matplotlib.figure import Figure
from scipy import stats

from hbm_zoo.diagnostics.groups import groups
from hbm_zoo.diagnostics.material_batches import bounded, to_come, tolerance_bound
from hbm_zoo.inference.fits import model_of, named_groups, prepared, word
from hbm_zoo.model import HierarchicalModel
from hbm_zoo.plots.style import (
    FAINT,
    GREY,
    INK,
    SMALL,
    Picture,
    colour,
    estimand_label,
    evenly,
    finish,
    group_name,
    interval_ends,
    legend_below,
)
from hbm_zoo.words import choose

MOST_BATCHES = 40
POINTS, REACH = 400, 4.0


def plot_tolerance_bound(fit: xr.DataTree, **promise) -> Figure:
    """Draw a tolerance bound over the batches that it was learned from.

    Parameters
    ----------
    fit : xarray.DataTree
        As of `material_batches.tolerance_bound`.
    **promise
        What else that takes; of ``side`` one of the two.

    Returns
    -------
    matplotlib.figure.Figure
        Above, the density of what the bound is a quantile of, the share beyond the bound filled. Below, a row a batch,
        by campaign: its specimens, their mean, the pooled estimate with its interval; a tick is the mean
        of the campaign. Beyond 40 batches, 40 evenly spaced.

    Raises
    ------
    ValueError
        As `material_batches.tolerance_bound`.

    Examples
    --------
    >>> import hbm_zoo as hz
    >>> fit = hz.fit("material_batches", hz.load_data("pastes"), random_seed=1, progressbar=False)
    >>> figure = hz.plot_tolerance_bound(fit, content=0.99)
    """
    table, record = tolerance_bound(fit, **promise), model_of(fit, promise.get("model"))
    content, campaign = table.attrs["content"], table.attrs["campaign"]
    side = choose(table.attrs["side"], ("lower", "upper"), "side")
    bound = float(table[side].iloc[0])
    rows = min(prepared(fit).sizes[record.group], MOST_BATCHES)
    figure = Picture(figsize=(7.4, 2.6 + 0.17 * rows), layout="constrained")
    above, below = figure.subplots(2, 1, sharex=True, height_ratios=[1, 2.2])
    z = stats.norm.ppf(content) * (-1 if side == "lower" else 1)
    _draw_density(above, bounded(*to_come(record, fit, campaign), table.index[0], z), bound, side, content)
    _draw_batches(below, fit, record)
    for axes in (above, below):
        axes.axvline(bound, color=colour("partial"), lw=1.2, zorder=0.7)
        finish(axes)
    below.set_xlabel(estimand_label(fit))
    figure.suptitle(f"{bound:.4g}: {table['promise'].iloc[0]}", fontsize="small")
    legend_below(figure)
    return figure


def _draw_density(axes, population, bound: float, side: str, content: float) -> None:
    """The mixture of normals over draws; where the promise fails is filled."""
    middle = float(population.mean.mean())
    sd = float(np.sqrt((population.sd**2).mean() + population.mean.var()))
    x = np.linspace(middle - REACH * sd, middle + REACH * sd, POINTS)
    if float(population.sd.min()) > 0:
        mean, spread = (value.values[:, None] for value in (population.mean, population.sd))
        density = stats.norm.pdf(x, mean, spread).mean(axis=0)
    else:
        density = stats.gaussian_kde(population.mean.values)(x)
    axes.plot(x, density, color=INK, lw=1)
    beyond = x < bound if side == "lower" else x > bound
    axes.fill_between(x, density, where=beyond, color=colour("partial"), alpha=0.35, lw=0)
    axes.set(yticks=[], ylim=(0, None))
    axes.spines["left"].set_visible(False)
    tail = 1 - content if side == "lower" else content
    axes.set_title(f"where the {100 * tail:.3g} % quantile of specimens may lie", fontsize=SMALL, loc="left")


def _draw_batches(axes, fit, record: HierarchicalModel) -> None:
    """A row a batch: specimens, own mean, the pooled estimate with its interval, the campaign's mean."""
    summary, data = named_groups(fit), prepared(fit)
    order = np.lexsort((np.arange(data.sizes[record.group]), data.family.values))
    order, low, high = evenly(order, MOST_BATCHES), *interval_ends(summary)
    pooling, above = fit.attrs["pooling"], word(fit, "campaign")
    campaigns = groups(fit, model=record, level="campaign")[pooling].to_numpy()
    for row, j in enumerate(order):
        rows = data.strength.values[data.batch_index.values == j]
        of_batch = summary.isel({record.group: j})
        axes.plot(rows, np.full(rows.size, row), "|", color=FAINT, ms=7, label="specimens", zorder=1)
        axes.plot(of_batch["own"], row, "o", ms=4.5, mfc="white", mec=colour("own"), label="own mean", zorder=2)
        ends = [float(of_batch[low]), float(of_batch[high])]
        axes.plot(ends, [row, row], color=colour(pooling), lw=1.2, zorder=2)
        axes.plot(of_batch["mean"], row, "o", ms=4, color=colour(pooling), label=f"{pooling} pooling", zorder=3)
        c = int(data.family.values[j])
        at = [row - 0.5, row + 0.5]
        axes.plot([campaigns[c]] * 2, at, color=GREY, lw=2, label=f"its {above}", zorder=1.5)
    axes.set_yticks(range(order.size), [group_name(summary[record.group].values[j]) for j in order], fontsize=SMALL)
    axes.set_ylim(order.size - 0.4, -0.6)
