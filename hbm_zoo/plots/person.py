"""From population to person: the band of a patient's concentrations, narrower with every sample."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
import xarray as xr
from matplotlib.figure import Figure

from hbm_zoo.diagnostics.population_pk import curve, personalise
from hbm_zoo.inference.summary import interval_name
from hbm_zoo.model import HierarchicalModel
from hbm_zoo.plots.style import GREY, INK, SMALL, Picture, colour, finish, legend_below
from hbm_zoo.words import plural

POINTS, FURTHER, MOST_PANELS = 120, 1.15, 6
#: After a dose [h], when what is given at once is in.
AT_ONCE = 1e-6


def plot_personalised(
    fit: xr.DataTree,
    rows: pd.DataFrame,
    after: Sequence[int] | None = None,
    model: HierarchicalModel | None = None,
) -> Figure:
    """Draw what is known of a patient's concentrations after some samples, in the order in which they were taken.

    Parameters
    ----------
    fit, rows, model
        As of `population_pk.personalise`.
    after : sequence of int, optional
        A panel after each of these numbers of samples. Default: 0, 1, 2 and all.

    Returns
    -------
    matplotlib.figure.Figure
        In each panel the interval of the concentration itself before any sample (grey) and after those that are
        filled; open ones were not used.

    Raises
    ------
    ValueError
        As `population_pk.personalise`, or if there are not so many samples.

    Examples
    --------
    >>> import hbm_zoo as hz
    >>> callable(hz.plot_personalised)
    True
    """
    measured = rows["concentration"].notna()
    samples = rows[measured].sort_values("time")
    if after is None:
        after = sorted({0, 1, 2, len(samples)} & {*range(len(samples) + 1)})
    if not after or len(after) > MOST_PANELS or not {*after} <= {*range(len(samples) + 1)}:
        raise ValueError(
            f"after must be 1 to {MOST_PANELS} numbers of samples from 0 to {len(samples)}, got {list(after)!r}."
        )
    given = rows.loc[~measured, "time"].to_numpy(float)
    times = np.unique([*np.linspace(0, FURTHER * float(rows["time"].max()), POINTS), *given, *(given + AT_ONCE)])
    bands = {n: _band(fit, pd.concat([rows[~measured], samples.iloc[:n]]), times, model) for n in {0, *after}}
    across = min(len(after), 3)
    down = -(-len(after) // across)
    figure = Picture(figsize=(2.9 * across, 2.4 * down + 0.5), layout="constrained")
    panels = figure.subplots(down, across, sharex=True, sharey=True, squeeze=False).ravel()
    for axes, n in zip(panels, after, strict=False):
        _draw(axes, times, bands[0], GREY, "population", 0.25)
        if n:
            _draw(axes, times, bands[n], colour("partial"), "patient", 0.35)
        for used, face in ((samples.iloc[:n], INK), (samples.iloc[n:], "white")):
            label = "sample used" if face == INK else "sample to come"
            axes.plot(used["time"], used["concentration"], "o", ms=4.5, mec=INK, mfc=face, label=label, zorder=3)
        axes.set_title(f"{n} {plural('sample', n)}", fontsize=SMALL, loc="left")
        axes.set_xlabel("time [h]")
        finish(axes)
    panels[0].set_ylabel("concentration")
    for axes in panels[len(after) :]:
        axes.set_axis_off()
    legend_below(figure)
    return figure


def _band(fit: xr.DataTree, rows: pd.DataFrame, times: np.ndarray, model: HierarchicalModel | None) -> pd.DataFrame:
    return curve(personalise(fit, rows, model=model), list(times), model=model)


def _draw(axes, times: np.ndarray, band: pd.DataFrame, paint: str, whose: str, alpha: float) -> None:
    low, high = (band[f"{interval_name()}_{end}"] for end in ("lb", "ub"))
    axes.fill_between(times, low, high, color=paint, alpha=alpha, lw=0, label=f"{whose}, interval")
    axes.plot(times, band["median"], color=paint, lw=1.2, label=f"{whose}, median")
