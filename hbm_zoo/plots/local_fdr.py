"""The histogram of z scores, what is null in it, and the local false discovery rate over it."""

from __future__ import annotations

import numpy as np
import xarray as xr
from matplotlib.figure import Figure

from hbm_zoo.diagnostics.multiplicity import require_null_group
from hbm_zoo.inference.fits import hyperparameters, model_of, prepared, thinned, word
from hbm_zoo.model import HierarchicalModel
from hbm_zoo.plots.style import FAINT, GREY, INK, Picture, colour, finish, legend_below

BINS = 90
POINTS = 301
DRAWS = 50
STANDARD_ERRORS = 50


def plot_local_fdr(fit: xr.DataTree, model: HierarchicalModel | None = None) -> Figure:
    """Draw the two groups that make up the z scores, and which of them a z score belongs to.

    Parameters
    ----------
    fit : xarray.DataTree
        Partial pooling of a model with a null group, such as ``spike_slab_genes``.
    model : HierarchicalModel, optional
        The record of a model that is not in the zoo.

    Returns
    -------
    matplotlib.figure.Figure
        Above, the histogram of z = effect / standard_error (its counts on a square-root scale,
        or the tails would not be seen) with the expected counts of all groups and of null groups
        alone. Below, each group's lfdr, and their average at a given z: the ratio of the two curves
        (Efron 2008, Statist Sci 23:1-22). Groups with the same z but other standard
        errors have other lfdr.

    Raises
    ------
    ValueError
        If the fit has no null group.
    """
    record = model_of(fit, model)
    require_null_group(fit, "plot_local_fdr")
    data, group = prepared(fit), word(fit, fit.attrs["group"])
    z = (data.effect / data.standard_error).values
    grid = np.linspace(z.min(), z.max(), POINTS)
    everything, null = _densities(record, fit, data, grid)
    count = z.size * (grid[-1] - grid[0]) / BINS
    figure = Picture(figsize=(7.4, 6.2), layout="constrained")
    above, below = figure.subplots(2, 1, sharex=True, height_ratios=[3, 2])
    above.hist(z, BINS, range=(grid[0], grid[-1]), color=FAINT, label=f"{group}s")
    above.plot(grid, count * everything, color=colour("partial"), lw=1.6, label=f"all {group}s, expected")
    above.plot(grid, count * null, color=INK, lw=1.4, ls="--", label=f"null {group}s, expected")
    above.set_yscale("function", functions=(lambda n: np.sqrt(np.maximum(n, 0)), np.square))
    above.set(ylabel=f"{group}s a bin (square-root scale)", ylim=(0, None))
    lfdr = fit["group_summary"].dataset["lfdr"].values
    below.plot(z, lfdr, ".", ms=2.5, color=GREY, alpha=0.5, rasterized=True, label=f"lfdr of each {group}")
    below.plot(grid, null / everything, color=colour("partial"), lw=1.6, ls=":", label="average lfdr at z")
    below.set(xlabel="z = effect / standard error", ylabel="local false discovery rate", ylim=(-0.02, 1.02))
    for axes in (above, below):
        finish(axes)
    legend_below(figure)
    summary = f"{1 - lfdr.mean():.1%} of {z.size:,} {group}s expected to have an effect"
    figure.suptitle(f"Two groups of {group}s: {summary}", fontsize="medium")
    return figure


def _densities(record: HierarchicalModel, fit: xr.DataTree, data: xr.Dataset, grid: np.ndarray):
    """Density of z over all groups, and its null part, averaged over posterior and standard errors."""
    h, level = thinned(hyperparameters(fit), DRAWS), record.group_level
    order = np.argsort(data.standard_error.values, kind="stable")
    some = order[((np.arange(STANDARD_ERRORS) + 0.5) / STANDARD_ERRORS * order.size).astype(int)]
    typical = data.isel({record.group: some}).drop_vars(record.group).rename({record.group: "error"})
    error = typical.standard_error
    imagined = typical.assign(effect=xr.DataArray(grid, dims="z") * error)
    density = np.exp(level.log_left_out(h, imagined)) * error
    null = density * level.expectations(h, imagined)["lfdr"]
    return (part.mean(["sample", "error"]).transpose("z").values for part in (density, null))
