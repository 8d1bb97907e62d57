"""Where groups, and rows, lie in what the others expect of them: are their places uniform?"""

from __future__ import annotations

import numpy as np
import xarray as xr
from arviz_stats.ecdf_utils import ecdf_pit
from matplotlib.figure import Figure

from hbm_zoo import words
from hbm_zoo.diagnostics.left_out_places import places, tails_left_out, tails_of_rows
from hbm_zoo.inference.fits import model_of, word
from hbm_zoo.model import HierarchicalModel
from hbm_zoo.plots.style import FAINT, INK, Picture, colour, finish, legend_below, panels
from hbm_zoo.words import plural

BAND, SIMULATIONS = 0.95, 1000
#: Places beyond which the band of so many is drawn, at evenly spaced points.
MOST_POINTS = 500


def plot_calibration(fit: xr.DataTree, random_seed: int = 0, model: HierarchicalModel | None = None) -> Figure:
    """Draw how uniform the places of groups and of rows are, each among what the others expect of it.

    Parameters
    ----------
    fit : xarray.DataTree
        A fit of complete or partial pooling; of no pooling where groups have several rows, which are drawn alone.
    random_seed : int
        Of counts, whose place is drawn at random between its two ends.
    model : HierarchicalModel, optional
        The record of a model that is not in the zoo.

    Returns
    -------
    matplotlib.figure.Figure
        The share of groups whose own estimate has a place below a number in (0, 1), less that number: 0 everywhere if
        the model is right, but for chance (a panel for each coefficient). Above 0 on the left and below it on the right
        too many places lie at the ends: what others expect is too narrow, or its tails too light. Groups show whether
        the population is right. Where the model has them, a panel of rows, each given all others, shows whether the
        likelihood is. The band, ArviZ's, holds the whole curve of 95 % of independent uniform places (Säilynoja,
        Bürkner & Vehtari 2022, Stat Comput 32:32). Places of what is left out are not independent, and leave it less
        often: it is a picture, and `check_model` decides.

    Raises
    ------
    ValueError
        If the pooling is none, where groups expect nothing of one another, and groups have one row; or the model does
        not say how probable less than a group's own estimate is.
    """
    record = model_of(fit, model)
    parts = _places(record, fit, random_seed)
    figure = Picture(figsize=(max(6.2, 4.6 * len(parts)), 3.8), layout="constrained")
    row = figure.subplots(1, len(parts), squeeze=False)[0]
    for axes, (title, values) in zip(row, parts.items(), strict=True):
        _draw(axes, values[np.isfinite(values)], fit.attrs["pooling"])
        axes.set(xlabel="place among what the others expect", title=title)
        finish(axes)
    row[0].set_ylabel("share below, less expected")
    legend_below(figure)
    figure.suptitle(f"Do data lie where {words.pooling(fit.attrs['pooling'])} expects them?", fontsize="medium")
    return figure


def _places(record: HierarchicalModel, fit: xr.DataTree, seed: int) -> dict[str, np.ndarray]:
    """The places of what each panel shows, by its title."""
    pooling, groups, found = fit.attrs["pooling"], plural(word(fit, record.group)), {}
    level = record.group_level
    if pooling in ("complete", "partial") and (level.tails is not None or level.row_tails is None):
        of_groups = places(tails_left_out(record, fit), seed)
        for title, selection in panels(of_groups, record.group):
            found[f"{groups}: {title}" if title else groups] = of_groups.sel(selection).values.ravel()
    if level.row_tails is not None:
        found["rows, each given all others"] = places(tails_of_rows(record, fit, seed), seed).values
    if not found:
        raise ValueError(
            f"plot_calibration needs a fit whose groups learn from one another, got {words.pooling(pooling)}."
        )
    return found


def _draw(axes, values: np.ndarray, pooling: str) -> None:
    """The band, and the curve of some places within it or not."""
    at, _, low, high = ecdf_pit(values, BAND, SIMULATIONS)
    shown = np.unique(np.linspace(0, at.size - 1, min(at.size, MOST_POINTS)).round().astype(int))
    at, low, high = at[shown], low[shown], high[shown]
    share = np.searchsorted(np.sort(values), at, side="right") / values.size
    axes.fill_between(at, low - at, high - at, color=FAINT, alpha=0.5, lw=0, label="95 % of independent places")
    axes.axhline(0, color=INK, lw=0.8)
    axes.plot(at, share - at, color=colour(pooling), lw=1.6, label=words.pooling(pooling))
