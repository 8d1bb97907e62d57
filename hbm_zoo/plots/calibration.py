"""Where groups lie in what the others expect of them: are their places uniform?"""

from __future__ import annotations

import warnings

import arviz as az
import matplotlib.pyplot as plt
import numpy as np
import xarray as xr
from matplotlib.figure import Figure

from hbm_zoo import words
from hbm_zoo.diagnostics.left_out_places import places, tails_left_out
from hbm_zoo.inference.fits import model_of, word
from hbm_zoo.model import HierarchicalModel
from hbm_zoo.plots.style import GREY, Picture, colour
from hbm_zoo.words import plural

BAND = 0.95


def plot_calibration(fit: xr.DataTree, random_seed: int = 0, model: HierarchicalModel | None = None) -> Figure:
    """Draw how uniform the places of the groups are, each among what the others expect of it.

    Parameters
    ----------
    fit : xarray.DataTree
        A fit of complete or partial pooling.
    random_seed : int
        Of counts, whose place is drawn at random between its two ends.
    model : HierarchicalModel, optional
        The record of a model that is not in the zoo.

    Returns
    -------
    matplotlib.figure.Figure
        The share of groups whose own estimate has a place below a number in (0, 1), less that number: 0 if the model
        is right (a panel for each coefficient). Below the band in the middle, above it on the left: places lie at both
        ends, and the population is too narrow, or its tails too light. The band holds the whole curve of 95 % of
        independent uniform places (Säilynoja, Bürkner & Vehtari 2022, Stat Comput 32:32). Places of groups left out
        are not independent: true curves leave it less often. It is a picture; `check_model` decides.

    Raises
    ------
    ValueError
        If the pooling is none, whose groups expect nothing of one another, or the model does not say how probable less
        than a group's own estimate is.
    """
    record = model_of(fit, model)
    if fit.attrs["pooling"] not in ("complete", "partial"):
        raise ValueError(f"plot_calibration needs complete or partial pooling, got {fit.attrs['pooling']}.")
    groups = plural(word(fit, record.group))
    of_groups = places(tails_left_out(record, fit), random_seed)
    by_name = _by_panel(of_groups, record.group, f"{groups} left out")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # a test of dependent places is not what the band is for
        collection = az.plot_ecdf_pit(
            xr.DataTree.from_dict({"places": xr.Dataset(by_name)}),
            group="places",
            sample_dims=["place"],
            method="envelope",
            envelope_prob=BAND,
            backend="matplotlib",
            visuals={
                "ecdf_lines": {"color": colour(fit.attrs["pooling"])},
                "credible_interval": {"color": GREY},
                "xlabel": {"text": "place among what the others expect"},
                "ylabel": {"text": f"share of {groups} below, less expected"},
                "remove_axis": False,
            },
            figure_kwargs={"FigureClass": Picture, "figsize": (5.2 * len(by_name), 4.0), "layout": "constrained"},
        )
    figure = collection.viz["figure"].item()
    figure.suptitle(f"Are places uniform? {words.pooling(fit.attrs['pooling']).capitalize()}", fontsize="medium")
    plt.close(figure)  # pyplot need not keep it
    return figure


def _by_panel(of_groups: xr.DataArray, group: str, title: str) -> dict[str, tuple[str, np.ndarray]]:
    """Places [place] by the title of their panel; of what has one."""
    inner = [dim for dim in of_groups.dims if dim != group]
    parts = {f"{of_groups[inner[0]].values[k]} of {title}": of_groups.isel({inner[0]: k}) for k in range(of_groups.sizes[inner[0]])} if inner else {title: of_groups}
    known = {name: part.values[np.isfinite(part.values)] for name, part in parts.items()}
    return {name: (f"place", values) for name, values in known.items()}
