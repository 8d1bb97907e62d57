"""Every group under each pooling, in one forest."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import xarray as xr
from matplotlib.figure import Figure

from hbm_zoo import words
from hbm_zoo.inference.fits import Fits, called_by, check_together, named_groups, word
from hbm_zoo.plots.style import (
    Picture,
    alike,
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

MOST_GROUPS = 100
MANY = 25


def plot_poolings(fits: Fits, kept: Iterable = ()) -> Figure:
    """Draw each group's own estimate and its posterior mean and interval under each pooling.

    Parameters
    ----------
    fits : dict of str to xarray.DataTree
        As `fit_poolings` returns them; others, e.g. of `empirical_bayes`, may be added.
    kept : iterable of labels, optional
        Groups that are drawn wherever they lie in the order, however many groups there are.

    Returns
    -------
    matplotlib.figure.Figure
        Groups in the order of their partial-pooling mean; complete pooling, the same for
        all, is a band. Beyond 100 groups, 100 are drawn: both ends of that order and, between them, those
        that are to be kept; the title counts the others.

    Raises
    ------
    ValueError
        If fits do not belong together.

    Examples
    --------
    >>> import hbm_zoo as hz
    >>> frame = hz.load_data("three_hospitals")
    >>> alone = hz.fit("hospital_readmission", frame, pooling="none", random_seed=1)
    >>> figure = hz.plot_poolings({"none": alone})
    >>> [label.get_text() for label in figure.axes[0].get_yticklabels()]
    ['Smaller', 'Large', 'Small']
    """
    fits = check_together(fits)
    summaries = {name: named_groups(fit) for name, fit in fits.items()}
    leading_name = next((name for name, fit in fits.items() if fit.attrs["pooling"] == "partial"), next(iter(fits)))
    leading, fit = summaries[leading_name], fits[leading_name]
    dim = fit.attrs["group"]
    group = word(fit, dim)
    parts = panels(leading["mean"], dim)
    shown, keep = min(leading.sizes[dim], MOST_GROUPS), marked(fit, kept)
    rows = sum(fit.attrs["pooling"] != "complete" for fit in fits.values())
    height = 1.8 + shown * ((0.16 + 0.12 * rows) if shown <= MANY else (0.05 + 0.06 * rows))
    figure = Picture(figsize=(max(7.0, 5.2 * len(parts)), max(3.6, height)), layout="constrained")
    for axes, (title, selection) in zip(figure.subplots(1, len(parts), squeeze=False)[0], parts, strict=True):
        chosen = {name: summary.sel(selection) for name, summary in summaries.items()}
        order = both_ends(np.argsort(chosen[leading_name]["mean"].values, kind="stable"), keep, MOST_GROUPS)
        _draw_forest(axes, {name: summary.isel({dim: order}) for name, summary in chosen.items()}, fits, dim)
        axes.set(xlabel=f"{title} {estimand_label(fit)}" if len(parts) == 1 else title, ylabel=called_by(fit))
    counted = f"{leading.sizes[dim]} {words.plural(group, leading.sizes[dim])}"
    title = f"{counted}: {estimand_label(fit)}, {_interval_in_words(leading)}"
    if shown < leading.sizes[dim]:
        among = int(np.isin(order, keep).sum())
        title += "\n" + said_of_ends(words.pooling(leading_name), order.size, leading.sizes[dim], among, keep.size)
    figure.suptitle(title, fontsize="medium")
    legend_below(figure)
    return figure


def _draw_forest(axes, summaries: dict[str, xr.Dataset], fits: Fits, dim: str) -> None:
    """A row a group, in it a line a pooling; complete pooling behind them all, where it is one value for all."""
    (first, *_), shown = summaries.values(), next(iter(summaries.values())).sizes[dim]
    many = shown > MANY
    apart = [n for n, of in summaries.items() if fits[n].attrs["pooling"] != "complete" or not alike(of["mean"], dim)]
    offsets = dict(zip(apart, np.linspace(0.25, -0.25, len(apart)) if len(apart) != 1 else [0.0], strict=True))
    for name, summary in summaries.items():
        paint, label = colour(fits[name].attrs["pooling"]), words.pooling(name)
        mean, lower, upper = (summary[key].values for key in ("mean", *interval_ends(summary)))
        if name not in offsets:
            axes.axvspan(lower[0], upper[0], color=paint, alpha=0.15, lw=0)
            axes.axvline(mean[0], color=paint, lw=1.2, label=label)
            continue
        y = np.arange(shown) + offsets[name]
        axes.hlines(y, lower, upper, color=paint, lw=0.9 if many else 1.8)
        axes.plot(mean, y, "o", ms=2.5 if many else 5, color=paint, label=label)
    own = np.arange(shown) + max(offsets.values(), default=0.0)
    axes.plot(first["own"].values, own, "|", ms=4 if many else 10, mew=1.2, color=colour("own"), label="own estimate")
    axes.set_yticks(np.arange(shown), [group_name(label) for label in first[dim].values], fontsize=5.5 if many else 9)
    axes.set_ylim(-0.7, shown - 0.3)
    finish(axes)


def _interval_in_words(summary: xr.Dataset) -> str:
    lower, _ = interval_ends(summary)
    return f"posterior mean and {lower.removeprefix('eti').removesuffix('_lb')} % interval"
