"""Bubbles: each group's own estimate over a moderator, with what the population is expected to be there."""

from __future__ import annotations

import numpy as np
import pandas as pd
import xarray as xr
from matplotlib.figure import Figure

from hbm_zoo.frames.moderators import DESIGN, DIM, Moderator, slopes
from hbm_zoo.group_level.averages import quantile
from hbm_zoo.group_level.populations import Population
from hbm_zoo.inference.fits import hyperparameters, model_of, named_groups, prepared, volume_label, word
from hbm_zoo.inference.summary import affordable, interval_tails
from hbm_zoo.model import HierarchicalModel
from hbm_zoo.plots.style import Picture, colour, estimand_label, finish, group_name, legend_below, name_points
from hbm_zoo.words import choose

POINTS = 60
MOST_NAMED = 20
LARGEST_BUBBLE = 260
CELLS = 400_000
#: How far beside the bubbles of a level its intervals stand.
ASIDE = 0.25


def plot_moderators(
    fit: xr.DataTree, moderators: list[str] | None = None, model: HierarchicalModel | None = None
) -> Figure:
    """Draw each group's own estimate against what was known of it beforehand, and the population as it moves.

    Parameters
    ----------
    fit : xarray.DataTree
        A fit of partial pooling with ``moderators``.
    moderators : list of str, optional
        Which of them, a panel each. Default: all.
    model : HierarchicalModel, optional
        The record of a model that is not in the zoo.

    Returns
    -------
    matplotlib.figure.Figure
        Own estimates, areas by the volume of their data. The mean of the population over the moderator, the others
        where they are on average: its posterior mean, dark its interval, light that of a group not seen before. Groups
        are named where they are at most 20. Where the estimand depends on what is expected of a group, as a relative
        risk does, the population is that of the median group.

    Raises
    ------
    ValueError
        If the fit is not of partial pooling, has no moderators, or none of such a name; the nearest is given.
    """
    record = model_of(fit, model)
    if not record.moderators or fit.attrs["pooling"] != "partial":
        raise ValueError("plot_moderators needs a fit of partial pooling with moderators.")
    names = [each.column for each in record.moderators]
    wanted = [choose(name, names, "moderator of the fit") for name in moderators or names]
    shown = [each for each in record.moderators if each.column in wanted]
    figure = Picture(figsize=(max(7.0, 5.4 * len(shown)), 4.8), layout="constrained")
    for axes, moderator in zip(figure.subplots(1, len(shown), squeeze=False)[0], shown, strict=True):
        _draw(axes, record, fit, moderator)
    _, tail = interval_tails()
    group = word(fit, record.group)
    others = "; other moderators as they are on average" if len(names) > 1 else ""
    figure.suptitle(
        f"Each {group}'s own estimate, and {100 * (2 * tail - 1):.0f} % intervals of the population{others}",
        fontsize="medium",
    )
    legend_below(figure)
    return figure


def _draw(axes, record: HierarchicalModel, fit: xr.DataTree, moderator: Moderator) -> None:
    """One panel: the population, over it the bubbles."""
    data, summary = prepared(fit), _of(named_groups(fit), record, moderator)
    position = list(slopes(record.moderators).values()).index
    where = [position(contrast) for contrast in moderator.contrasts]
    x = moderator.values(data[DESIGN].transpose(record.group, DIM).values[:, where])
    _draw_population(axes, record, fit, moderator, x, where)
    if moderator.levels:
        axes.set_xticks(range(len(moderator.levels)), [group_name(level) for level in moderator.levels])
        axes.set_xlim(-0.6, len(moderator.levels) - 0.4)
    own, volume = summary["own"].values, summary["volume"].values.astype(float)
    axes.scatter(
        x,
        own,
        s=LARGEST_BUBBLE * volume / volume.max() + 8,
        facecolors="none",
        edgecolors=colour("own"),
        lw=0.9,
        label=f"own estimate; area: {word(fit, volume_label(record, fit))}",
        zorder=3,
    )
    if own.size <= MOST_NAMED:
        known = np.isfinite(own)
        name_points(axes, x[known], own[known], summary[record.group].values[known])
    axes.set(xlabel=word(fit, moderator.column), ylabel=moderator.of or estimand_label(fit))
    finish(axes)


def _draw_population(axes, record, fit: xr.DataTree, moderator: Moderator, x: np.ndarray, where: list[int]) -> None:
    """Its mean with the interval of that mean, and the interval of a new group."""
    at = pd.Series(moderator.levels or np.linspace(x.min(), x.max(), POINTS))
    population = _population(record, fit, moderator, at, where)
    mean, ends = _of(population.mean, record, moderator), interval_tails()
    outer = [_of(quantile(population, tail), record, moderator).values for tail in ends]
    inner = [mean.quantile(tail, "sample").values for tail in ends]
    drawn, red = mean.mean("sample").values, colour("partial")
    new, of_mean = f"a new {word(fit, record.group)}", "mean of the population"
    if moderator.levels:
        places = np.arange(at.size) - ASIDE
        axes.vlines(places, *outer, color=red, lw=9, alpha=0.16, label=new, zorder=0.6)
        axes.vlines(places, *inner, color=red, lw=3, alpha=0.6, label=of_mean, zorder=0.7)
        axes.plot(places, drawn, "_", color=red, ms=16, zorder=0.8)
        return
    axes.fill_between(at, *outer, color=red, alpha=0.12, lw=0, label=new, zorder=0.6)
    axes.fill_between(at, *inner, color=red, alpha=0.3, lw=0, zorder=0.7)
    axes.plot(at, drawn, color=red, lw=1.4, label=of_mean, zorder=0.8)


def _of(values, record: HierarchicalModel, moderator: Moderator):
    """Of several coefficients the one whose location is moved."""
    dims = [dim for dim in values.dims if dim not in ("sample", record.group)] if moderator.of else []
    return values.sel({dims[0]: moderator.of}) if dims else values


def _population(record, fit: xr.DataTree, moderator: Moderator, at: pd.Series, where: list[int]) -> Population:
    """The population of the estimand [sample, group] of groups that lie at some values, and else on average."""
    x = np.zeros((at.size, len(slopes(record.moderators))))
    x[:, where] = moderator.design(at)
    of_groups = prepared(fit).drop_vars(DESIGN).data_vars.items()
    numbers = {name: v for name, v in of_groups if v.dims == (record.group,) and v.dtype.kind in "if"}
    # A relative risk depends on what is expected of its group: here it is the median of what is expected of all.
    there = xr.Dataset({name: (record.group, np.full(at.size, np.median(v))) for name, v in numbers.items()})
    there = there.assign({DESIGN: ((record.group, DIM), x)})
    return record.group_level.of_groups(affordable(hyperparameters(fit), at.size, CELLS), there)
