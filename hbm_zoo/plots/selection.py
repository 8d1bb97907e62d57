"""Selection over the years: what was measured, what is left of its scatter, and what the next year may bring."""

from __future__ import annotations

import numpy as np
import pandas as pd
import xarray as xr
from matplotlib.figure import Figure
from scipy import stats

from hbm_zoo.diagnostics.selection_gradients import by_year, over_years
from hbm_zoo.inference.fits import model_of
from hbm_zoo.inference.summary import interval_name
from hbm_zoo.model import HierarchicalModel
from hbm_zoo.plots.style import (
    FAINT,
    INK,
    SMALL,
    Picture,
    colour,
    estimand_label,
    finish,
    group_name,
    legend_below,
)
from hbm_zoo.words import pooling

ASIDE = 0.16
MOST_LABELS = 24


def plot_selection(fit: xr.DataTree, model: HierarchicalModel | None = None) -> Figure:
    """Draw the gradients of each year, and of the next.

    Parameters
    ----------
    fit : xarray.DataTree
        Partial or complete pooling of ``selection_gradients``.
    model : HierarchicalModel, optional
        The record of a model that is not in the zoo.

    Returns
    -------
    matplotlib.figure.Figure
        A panel a trait. For each year its estimate with the interval that its standard error alone gives, beside it the
        posterior mean with its interval; a line is the posterior mean of the population of years. At the right end a
        year never seen. The title says how many years have the opposite sign, counted and expected.

    Raises
    ------
    ValueError
        As `selection_gradients.over_years`.

    Examples
    --------
    >>> import hbm_zoo as hz
    >>> frame = hz.load_data("selection_gradients")
    >>> figure = hz.plot_selection(hz.fit("selection_gradients", frame, random_seed=1, progressbar=False))
    """
    record = model_of(fit, model)
    over, years = over_years(fit, model), _in_time(by_year(fit, model))
    traits = over.index.get_level_values("trait").unique()
    figure = Picture(figsize=(7.4, 0.6 + 2.5 * len(traits)), layout="constrained")
    panels = figure.subplots(len(traits), 1, sharex=True, squeeze=False)[:, 0]
    labels = years.index.get_level_values(record.group).unique()
    for axes, trait in zip(panels, traits, strict=True):
        _draw_years(axes, years.xs(trait, level="trait"), fit)
        _draw_population(axes, over.loc[trait], len(labels), fit)
        naive, expected = over.loc[trait, "mean"][["years of opposite sign, naive", "years of opposite sign"]]
        axes.set_title(
            f"{group_name(trait)}: {100 * naive:.0f} % of estimates have the sign opposite to their mean, of gradients "
            f"{100 * expected:.0f} % are expected to",
            fontsize=SMALL,
            loc="left",
        )
        finish(axes)
    step = -(-len(labels) // MOST_LABELS)
    ticks = [*range(0, len(labels), step), len(labels)]
    names = [*(group_name(label) for label in labels[::step]), "next"]
    panels[-1].set_xticks(ticks, names, fontsize=SMALL, rotation=45)
    figure.supylabel(estimand_label(fit), fontsize="small")
    legend_below(figure)
    return figure


def _in_time(years: pd.DataFrame) -> pd.DataFrame:
    """The years in their order, if they are numbers; else as they come."""
    time = pd.to_numeric(pd.Series(years.index.get_level_values(0)), errors="coerce")
    return years if time.isna().any() else years.iloc[np.argsort(time.to_numpy(), kind="stable")]


def _draw_years(axes, years: pd.DataFrame, fit: xr.DataTree) -> None:
    """Each year's estimate and what it became."""
    z = stats.norm.ppf((1 + float(fit.attrs["ci_prob"])) / 2)
    x, low, high = np.arange(len(years)), *(years[f"{interval_name()}_{end}"] for end in ("lb", "ub"))
    kind, name = fit.attrs["pooling"], pooling(fit.attrs["pooling"])
    axes.vlines(
        x - ASIDE, years["own"] - z * years["standard_error"], years["own"] + z * years["standard_error"], FAINT
    )
    axes.plot(x - ASIDE, years["own"], "o", ms=4.5, mfc="white", mec=colour("own"), label="estimate of the year alone")
    axes.vlines(x + ASIDE, low, high, colour(kind), lw=1.4)
    axes.plot(x + ASIDE, years["beta"], "o", ms=4, color=colour(kind), label=name)


def _draw_population(axes, over: pd.DataFrame, at: int, fit: xr.DataTree) -> None:
    """The mean over years, no selection, and a year never seen."""
    low, high = (over[f"{interval_name()}_{end}"] for end in ("lb", "ub"))
    axes.axhline(0, color=INK, lw=0.8, zorder=0.5)
    axes.axhline(over.loc["mean gradient", "mean"], color=colour(fit.attrs["pooling"]), lw=0.9, ls="--", zorder=0.6)
    axes.vlines(at, low["next year"], high["next year"], INK, lw=1.4)
    axes.plot(at, over.loc["next year", "mean"], "s", ms=4.5, color=INK, label="a year never seen")
