"""Effect against evidence: every gene, and the ones worth another look."""

from __future__ import annotations

import numpy as np
import pandas as pd
import xarray as xr
from matplotlib.figure import Figure
from scipy import stats

from hbm_zoo.diagnostics.multiplicity import discoveries
from hbm_zoo.inference.fits import LABEL, prepared, word
from hbm_zoo.model import HierarchicalModel
from hbm_zoo.plots.style import FAINT, INK, SMALL, Picture, colour, finish, legend_below, name_points

MOST_NAMED = 10


def plot_volcano(
    fit: xr.DataTree, fdr: float = 0.05, min_effect: float | None = None, model: HierarchicalModel | None = None
) -> Figure:
    """Draw every group's own effect against its p value, and mark the discoveries.

    Parameters
    ----------
    fit, fdr, min_effect, model
        As in `discoveries`.

    Returns
    -------
    matplotlib.figure.Figure
        Groups on the list in colour, from the own effect (ring) to the posterior mean (dot); the
        ten surest are named. The lines are plain p < 0.05 and Bonferroni.

    Raises
    ------
    ValueError
        As `discoveries`.
    """
    found, data = discoveries(fit, fdr, min_effect, model), prepared(fit)
    evidence = _evidence(data.effect / data.standard_error)
    groups = word(fit, fit.attrs["group"]) + "s"
    figure = Picture(figsize=(7.4, 5.4), layout="constrained")
    axes = figure.subplots()
    axes.plot(data.effect, evidence, ".", ms=2.5, color=FAINT, rasterized=True, zorder=1, label=f"other {groups}")
    _draw_lines(axes, evidence.size)
    axes.set_ylim(0, 1.06 * evidence.max())
    axes.margins(x=0.15)
    if len(found):
        _draw_found(axes, found)
    axes.set(xlabel=word(fit, "effect"), ylabel=r"evidence: $-\log_{10}$ p value")
    finish(axes)
    legend_below(figure)
    larger = f" larger than {min_effect:g}" if min_effect else ""
    title = f"{len(found):,} of {evidence.size:,} {groups} with an effect{larger}, Bayesian FDR {fdr:g}"
    figure.suptitle(title if found.attrs["identified"] else "Slab not identified: no discoveries", fontsize="medium")
    return figure


def _evidence(z) -> np.ndarray:
    """Minus log10 of the two-sided p value; no z is too large for it."""
    return -(stats.norm.logsf(np.abs(np.asarray(z))) + np.log(2)) / np.log(10)


def _draw_found(axes, found: pd.DataFrame) -> None:
    """Each discovery from its own effect to its posterior mean, the surest by name."""
    heights = _evidence(found["effect"] / found["standard_error"])
    axes.hlines(heights, found["effect"], found["mean"], color=colour("partial"), lw=0.5, alpha=0.6, zorder=2)
    rings = {"ms": 4, "color": colour("partial"), "mew": 0.8, "ls": "", "zorder": 3}
    axes.plot(found["effect"], heights, "o", mfc="none", label="discovery: own effect", **rings)
    axes.plot(found["mean"], heights, "o", label="discovery: posterior mean", **(rings | {"ms": 3}))
    top = found.iloc[:MOST_NAMED]
    names = top.get(LABEL, top.index.to_series()).astype(str)
    name_points(axes, top["effect"].to_numpy(), heights[:MOST_NAMED], names, outward=True)


def _draw_lines(axes, groups: int) -> None:
    """The two classical thresholds."""
    for p, text in ((0.05, "p = 0.05"), (0.05 / groups, "Bonferroni")):
        axes.axhline(-np.log10(p), color=INK, lw=0.8, ls=":", zorder=1)
        axes.annotate(
            text, (1, -np.log10(p)), xycoords=axes.get_yaxis_transform(), ha="right", va="bottom", fontsize=SMALL
        )
