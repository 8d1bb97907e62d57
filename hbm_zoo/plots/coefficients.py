"""Two coefficients of each group against each other: what its data say alone, and what is left after sharing."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import xarray as xr
from matplotlib.figure import Figure
from matplotlib.patches import Ellipse
from scipy import stats

from hbm_zoo.inference.fits import Fits, check_together, hyperparameters, model_of, named_groups, prepared, word
from hbm_zoo.model import HierarchicalModel
from hbm_zoo.plots.style import GREY, Picture, colour, finish, legend_below, name_points

MOST_LABELLED = 20


def plot_coefficients(fits: Fits, model: HierarchicalModel | None = None) -> Figure:
    """Draw the coefficients of each group in pairs, with ellipses that shrink when groups share.

    Parameters
    ----------
    fits : dict of str to xarray.DataTree
        As `fit_poolings` returns them; it must hold no and partial pooling.
    model : HierarchicalModel, optional
        The record of a model that is not in the zoo.

    Returns
    -------
    matplotlib.figure.Figure
        A panel for each pair of coefficients. For each group the posterior mean alone and shared, an arrow between
        them, and around both the ellipse that holds half of a normal with the covariance of the draws; dashed, that of
        a group not seen before.

    Raises
    ------
    ValueError
        If a pooling is missing, fits do not belong together, a group has one coefficient, or draws were not kept.
    """
    fits = check_together(fits)
    of = {fit.attrs["pooling"]: fit for fit in reversed(fits.values())}
    if not {"none", "partial"} <= set(of):
        raise ValueError(f"plot_coefficients needs fits of no and of partial pooling; got {', '.join(fits)}.")
    record, partial = model_of(of["partial"], model), of["partial"]
    draws = {name: of[name]["posterior"].dataset.get(record.estimand) for name in ("none", "partial")}
    if any(each is None for each in draws.values()):
        raise ValueError("plot_coefficients needs draws of the groups, and these fits hold none: there were too many.")
    others = [str(dim) for dim in draws["partial"].dims if dim not in ("chain", "draw", record.group)]
    if not others or draws["partial"].sizes[others[0]] < 2:
        raise ValueError(f"plot_coefficients needs several coefficients a group; {record.name} has one.")
    labels = draws["partial"][others[0]].values
    pairs = list(combinations(range(labels.size), 2))
    level = record.ask("The ellipse of the population", "population")
    of_groups = level.of_groups(hyperparameters(partial), prepared(partial))
    population = level.reported(of_groups.sample(np.random.default_rng(0)), prepared(partial))
    group = word(partial, record.group)
    figure = Picture(figsize=(max(6.4, 5.2 * len(pairs)), 5.2), layout="constrained")
    for axes, pair in zip(figure.subplots(1, len(pairs), squeeze=False)[0], pairs, strict=True):
        two = {name: each.isel({others[0]: [*pair]}) for name, each in draws.items()}
        _draw_pair(axes, two, record.group, named_groups(partial)[record.group].values)
        new = population.isel({others[0]: [*pair]})
        _draw_ellipse(axes, new, others[0], "complete", ls="--", label=f"a new {group}")
        axes.set(xlabel=str(labels[pair[0]]), ylabel=str(labels[pair[1]]))
        finish(axes)
    figure.suptitle(f"Each {group} alone and shared, with ellipses that hold half", fontsize="medium")
    legend_below(figure)
    return figure


def _draw_pair(axes, draws: dict[str, xr.DataArray], dim: str, names: np.ndarray) -> None:
    """Means with their ellipses under both poolings, and the way from one to the other."""
    (coefficient,) = (str(d) for d in draws["partial"].dims if d not in ("chain", "draw", dim))
    means = {name: each.mean(("chain", "draw")).transpose(dim, coefficient).values for name, each in draws.items()}
    for name, label in (("none", "alone"), ("partial", "shared")):
        for j in range(draws[name].sizes[dim]):
            _draw_ellipse(axes, draws[name].isel({dim: j}), coefficient, name)
        axes.plot(*means[name].T, "o", ms=4, color=colour(name), label=label)
    for start, end in zip(means["none"], means["partial"], strict=True):
        axes.annotate("", end, start, arrowprops={"arrowstyle": "->", "color": GREY, "lw": 0.7}, zorder=0.5)
    if len(means["partial"]) <= MOST_LABELLED:
        x, y = means["partial"].T
        name_points(axes, x, y, names)


def _draw_ellipse(axes, draws: xr.DataArray, coefficient: str, pooling: str, **style) -> None:
    """The ellipse that holds half of a normal with the mean and covariance of draws of two coefficients."""
    x = draws.transpose(coefficient, ...).values.reshape(2, -1)
    values, vectors = np.linalg.eigh(np.cov(x))
    width, height = 2 * np.sqrt(stats.chi2.ppf(0.5, 2) * np.maximum(values, 0))
    angle = np.degrees(np.arctan2(vectors[1, 0], vectors[0, 0]))
    edge = {"fill": False, "ec": colour(pooling), "lw": 0.8, "alpha": 0.8 if style else 0.45} | style
    axes.add_patch(Ellipse(tuple(x.mean(axis=1)), width, height, angle=angle, **edge))
