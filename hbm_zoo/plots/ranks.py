"""Who is first, and how little that is known."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import xarray as xr
from matplotlib.figure import Figure
from scipy.stats import rankdata

from hbm_zoo.inference.fits import Fits, called_by, check_together, named_groups, word
from hbm_zoo.plots.style import (
    Picture,
    both_ends,
    colour,
    estimand_label,
    finish,
    group_name,
    interval_ends,
    legend_below,
    marked,
    panels,
    said_of_ends,
)
from hbm_zoo.words import plural

MOST_GROUPS = 100
MANY = 25


def plot_ranks(fits: Fits, kept: Iterable = ()) -> Figure:
    """Draw each group's rank with its interval, beside the probability that it is the first.

    Parameters
    ----------
    fits : dict of str to xarray.DataTree, or one fit
        As `fit_poolings` returns them; ranks are partial pooling's, or the only fit's.
    kept : iterable of labels, optional
        Groups that are drawn wherever they lie in the order, however many groups there are.

    Returns
    -------
    matplotlib.figure.Figure
        Rank 1 is the largest estimand. Left, the posterior mean of the rank, its interval and the
        rank of the own estimate; right, P(first) and, where that is more than one group,
        P(among the first tenth). Rows are in the order of the mean rank (a pair of panels
        for each coefficient); beyond 100 groups, both ends of that order and those to be kept.
        The title says how wide a typical interval is.

    Raises
    ------
    ValueError
        If fits do not belong together, or none of them ranks groups (complete pooling does not).
    """
    fits = check_together(fits)
    ranked = [fit for fit in fits.values() if "rank" in fit["group_summary"]]
    if not ranked:
        raise ValueError(f"plot_ranks needs a fit that tells groups apart; got {', '.join(fits)}.")
    fit = next((fit for fit in ranked if fit.attrs["pooling"] == "partial"), ranked[0])
    summary, dim = named_groups(fit), fit.attrs["group"]
    parts = panels(summary["rank"], dim)
    shown, keep = min(summary.sizes[dim], MOST_GROUPS), marked(fit, kept)
    height = 1.8 + shown * (0.3 if shown <= MANY else 0.13)
    figure = Picture(figsize=(max(7.4, 6.2 * len(parts)), max(3.6, height)), layout="constrained")
    grid = figure.subplots(1, 2 * len(parts), squeeze=False, width_ratios=[3, 1] * len(parts))[0]
    for (title, selection), ranks, chances in zip(parts, grid[::2], grid[1::2], strict=True):
        here = summary.sel(selection).assign(own_rank=(dim, _own_rank(summary.sel(selection)["own"].values)))
        order = both_ends(np.argsort(here["rank"].values, kind="stable"), keep, MOST_GROUPS)
        rows = here.isel({dim: order})
        _draw_ranks(ranks, rows, dim, fit.attrs["pooling"])
        _draw_chances(chances, rows, summary.sizes[dim], fit.attrs["pooling"])
        ranks.set(
            xlabel=f"rank by {title or estimand_label(fit)}, 1 the largest",
            ylabel=called_by(fit),
            xlim=(0.5, summary.sizes[dim] + 0.5),
        )
        ranks.set_title(_how_little(here, title, word(fit, dim)), fontsize="medium")
    if shown < summary.sizes[dim]:
        among = int(np.isin(order, keep).sum())
        said = said_of_ends("mean ranks", order.size, summary.sizes[dim], among, keep.size)
        figure.suptitle(f"{summary.sizes[dim]} {plural(word(fit, dim))}: {said}", fontsize="small")
    legend_below(figure)
    return figure


def _own_rank(own: np.ndarray) -> np.ndarray:
    """The rank of own estimates, 1 the largest, ties in the middle; none for a group without one."""
    return rankdata(-own, nan_policy="omit")


def _draw_ranks(axes, rows: xr.Dataset, dim: str, pooling: str) -> None:
    y, many = np.arange(rows.sizes[dim]), rows.sizes[dim] > MANY
    lower, upper = (rows[end].values for end in interval_ends(rows, "rank_"))
    axes.hlines(y, lower, upper, color=colour(pooling), lw=0.9 if many else 1.8)
    axes.plot(rows["rank"].values, y, "o", ms=2.5 if many else 5, color=colour(pooling), label="mean rank, interval")
    own = rows["own_rank"].values
    axes.plot(own, y, "|", ms=4 if many else 10, mew=1.2, color=colour("own"), label="rank of the own estimate")
    axes.set_yticks(y, [group_name(label) for label in rows[dim].values], fontsize=5.5 if many else 9)
    axes.set_ylim(y.size - 0.3, -0.7)
    finish(axes)


def _draw_chances(axes, rows: xr.Dataset, groups: int, pooling: str) -> None:
    y, many = np.arange(rows["rank"].size), rows["rank"].size > MANY
    axes.barh(y, rows["p_best"].values, 0.7, color=colour(pooling), label="P(first)")
    top = max(1, round(groups / 10))
    if top > 1:
        tenth = rows["p_top10"].values
        axes.plot(tenth, y, "o", ms=2.5 if many else 5, mfc="white", mec=colour(pooling), label=f"P(among first {top})")
    likeliest = max(float(rows[name].max()) for name in ("p_best", "p_top10"))
    axes.set(xlabel="probability", xlim=(0, 1.1 * likeliest), yticks=[], ylim=(y.size - 0.3, -0.7))
    finish(axes)


def _how_little(summary: xr.Dataset, title: str, group: str) -> str:
    """How many places a typical interval of a rank covers."""
    lower, upper = interval_ends(summary, "rank_")
    places = float((summary[upper] - summary[lower] + 1).median())
    covered = f"{places:.0f} or more of {summary['rank'].size}"
    percent = lower.removeprefix("rank_eti").removesuffix("_lb")
    first = f"{title.capitalize()}: half" if title else "Half"
    return f"{first} of the {percent} % intervals of a {group}'s rank\ncover {covered} places"
