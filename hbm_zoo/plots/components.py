"""How much is inherited at each site: the classical estimate, which may be exactly 0, and what is known instead."""

from __future__ import annotations

import xarray as xr
from matplotlib.figure import Figure

from hbm_zoo.diagnostics.variance_components import components
from hbm_zoo.inference.summary import interval_name
from hbm_zoo.model import HierarchicalModel
from hbm_zoo.plots.style import GREY, SMALL, Picture, colour, finish, group_name, legend_below

PANELS = (("sigma_A", "reml_sigma_A"), ("h2", "reml_h2"))


def plot_components(fit: xr.DataTree, threshold: float = 0.2, model: HierarchicalModel | None = None) -> Figure:
    """Draw sigma_A and the heritability of each site.

    Parameters
    ----------
    fit, threshold, model
        As of `variance_components.components`.

    Returns
    -------
    matplotlib.figure.Figure
        A row a site: the posterior mean with its interval, and the REML estimate, filled where it is exactly 0 or 1. On
        the right the threshold, and beside each row the probability that h^2 is beyond it.

    Raises
    ------
    ValueError
        As `variance_components.components`.

    Examples
    --------
    >>> import hbm_zoo as hz
    >>> alone = hz.fit("variance_components", hz.load_data("eucalyptus_araraquara"), "none", fixed_effects="block",
    ...     random_seed=1, progressbar=False)
    >>> figure = hz.plot_components(alone)
    """
    table, pooling = components(fit, threshold, model), fit.attrs["pooling"]
    figure = Picture(figsize=(7.4, 1.6 + 0.28 * len(table)), layout="constrained")
    for axes, (name, classical) in zip(figure.subplots(1, 2, sharey=True), PANELS, strict=True):
        for row, (_, of) in enumerate(table.iterrows()):
            ends = [of[f"{name}_{interval_name()}_{end}"] for end in ("lb", "ub")]
            axes.plot(ends, [row, row], color=colour(pooling), lw=1.4)
            axes.plot(of[name], row, "o", ms=5, color=colour(pooling), label=f"{pooling} pooling")
            at_end = of["reml_sigma_A"] == 0 or of["reml_h2"] == 1
            face, said = (colour("own"), "REML, at an end") if at_end else ("white", "REML")
            axes.plot(of[classical], row, "o", ms=5, mfc=face, mec=colour("own"), label=said, clip_on=False, zorder=3)
        axes.set_xlim(0, None)
        finish(axes)
    left, right = figure.axes
    left.set_yticks(range(len(table)), [group_name(site) for site in table.index], fontsize=SMALL)
    left.set(xlabel=f"{fit.attrs['estimand_label']} ({fit.attrs['estimand']})", ylim=(len(table) - 0.4, -0.6))
    right.set(xlabel="heritability", xlim=(0, 1))
    right.axvline(threshold, color=GREY, lw=0.8, zorder=0.5)
    for row, p in enumerate(table[f"p_h2_above_{threshold:g}"]):
        right.text(1.02, row, f"{p:.2f}", va="center", fontsize=SMALL, transform=right.get_yaxis_transform())
    right.text(1.02, -0.8, f"P(> {threshold:g})", va="center", fontsize=SMALL, transform=right.get_yaxis_transform())
    legend_below(figure)
    return figure
