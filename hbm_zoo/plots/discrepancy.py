"""A simulator that is wrong: what the rig adds to it, and what that leaves of the modulus."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from pymc_extras.prior import Prior
from scipy import stats

from hbm_zoo.diagnostics.model_discrepancy import POPULATION, discrepancy, modulus
from hbm_zoo.diagnostics.rigs import checked, taken_for_the_truth
from hbm_zoo.inference.fits import hyperparameters, prepared, priors_of, word
from hbm_zoo.inference.summary import interval_name
from hbm_zoo.model import HierarchicalModel
from hbm_zoo.plots.style import FAINT, GREY, INK, SMALL, Picture, colour, finish, group_name, legend_below
from hbm_zoo.priors import log_density, quantiles

GRID, POINTS = 61, 400
#: Of E in the picture: the shares of the prior, and of what else is shown, that it leaves out at each end.
PRIOR_OUT, OUT = 0.1, 0.002
MOST_SPECIMENS = 40


def plot_discrepancy(
    fit: xr.DataTree, simulator: Callable | None = None, model: HierarchicalModel | None = None
) -> Figure:
    """Draw the simulator, the readings, and the discrepancy between them.

    Parameters
    ----------
    fit : xarray.DataTree
        A fit of ``model_discrepancy`` that has a discrepancy.
    simulator : callable, optional
        The simulator of the fit, if it had one of its own; without it what it said at the sensors is drawn.
    model : HierarchicalModel, optional
        The record of a model that is not in the zoo.

    Returns
    -------
    matplotlib.figure.Figure
        Above, along the beam and under the typical load: the readings at the load nearest to it, the simulator at the
        specimens' mean compliance, and with the discrepancy. Below, the discrepancy with its interval; beyond the last
        sensor it is grey.

    Raises
    ------
    ValueError
        As `model_discrepancy.discrepancy`.

    Examples
    --------
    >>> import hbm_zoo as hz
    >>> frame = hz.load_data("simulated_rig").query("specimen == 'S1'")
    >>> figure = hz.plot_discrepancy(hz.fit("model_discrepancy", frame, "none", random_seed=1, progressbar=False))
    """
    data = prepared(fit)
    length, typical = float(data.attrs["length"]), float(data.attrs["typical_load"])
    everywhere = np.union1d(np.linspace(0, length, GRID), data["position"].values)
    table = discrepancy(fit, everywhere, simulator, model)
    simulated = table.dropna(subset="simulator")  # at the sensors alone, where a simulator of one's own is not given
    figure = Picture(figsize=(7.0, 5.2), layout="constrained")
    above, below = figure.subplots(2, 1, sharex=True, height_ratios=[3, 2])
    loads, sensors = data["load"].values, data["position"].values
    shown = np.isclose(loads, loads[abs(loads - typical).argmin()])
    kind, x = colour(fit.attrs["pooling"]), table.index
    above.plot(sensors[shown], data["deflection"].values[shown], "o", ms=3.5, mfc="white", mec=GREY, label="readings")
    above.plot(simulated["simulator"], color=INK, ls="--", lw=1.2, label="simulator")
    both = simulated["simulator"] + simulated["discrepancy"]
    above.plot(both, color=kind, lw=1.4, label="simulator and discrepancy")
    above.set_ylabel(f"{group_name(word(fit, 'deflection'))} at {typical:g} N [mm]", fontsize=SMALL)
    low, high = (table[f"discrepancy_{interval_name()}_{end}"] for end in ("lb", "ub"))
    below.fill_between(x, low, high, color=kind, alpha=0.25, lw=0)
    below.plot(x, table["discrepancy"], color=kind, lw=1.4)
    below.axhline(0, color=INK, lw=0.8)
    below.set_ylabel("discrepancy [mm]", fontsize=SMALL)
    below.set_xlabel("distance from the support [m]", fontsize=SMALL)
    for axes in (above, below):
        axes.axvspan(sensors.max(), length, color=FAINT, alpha=0.3, lw=0)
        axes.set_xlim(0, length)
        finish(axes)
    above.set_title("Grey: beyond the last sensor", fontsize=SMALL, loc="right")
    legend_below(figure)
    return figure


def plot_modulus(
    fit: xr.DataTree, without: xr.DataTree | None = None, model: HierarchicalModel | None = None
) -> Figure:
    """Draw what is known of Young's modulus, and what the prior says of it.

    Parameters
    ----------
    fit : xarray.DataTree
        A fit of ``model_discrepancy``.
    without : xarray.DataTree, optional
        A fit of the same data with discrepancy="none", to be shown beside it. Default: hyperparameters are drawn for
        it, in seconds, from the same data and priors.
    model : HierarchicalModel, optional
        The record of a model that is not in the zoo.

    Returns
    -------
    matplotlib.figure.Figure
        Above, densities of 1/m (under no pooling, of the first specimen's E): the prior, the posterior, and the
        posterior were the simulator taken for the truth, which shows what the prior decides. Below, a row a specimen:
        what the model alone says, and E with its interval; beyond 40 specimens, the first 40.

    Raises
    ------
    ValueError
        As `model_discrepancy.modulus`.

    Examples
    --------
    >>> import hbm_zoo as hz
    >>> frame = hz.load_data("simulated_rig").query("specimen == 'S1'")
    >>> figure = hz.plot_modulus(hz.fit("model_discrepancy", frame, "none", random_seed=1, progressbar=False))
    """
    table = modulus(fit, model)
    rows = table.drop(POPULATION, errors="ignore").head(MOST_SPECIMENS)
    figure = Picture(figsize=(7.0, 3.2 + 0.2 * len(rows)), layout="constrained")
    above, below = figure.subplots(2, 1, sharex=True, height_ratios=[2.2, 1 + 0.2 * len(rows)])
    drawn, kind = _moduli(fit, model), colour(fit.attrs["pooling"])
    alone = _alone(fit, without, model)
    low, high = _ends([drawn, alone, rows["model_alone"]], fit)
    _densities(above, np.linspace(low, high, POINTS), drawn, alone, fit)
    y = np.arange(len(rows))
    below.hlines(y, rows[f"E_{interval_name()}_lb"], np.minimum(rows[f"E_{interval_name()}_ub"], high), kind, lw=1.4)
    below.plot(rows["E"], y, "o", ms=4, color=kind)
    by_least_squares = "least squares, the simulator alone"
    below.plot(rows["model_alone"], y, "o", ms=4, mfc="white", mec=INK, clip_on=False, label=by_least_squares)
    below.set_yticks(y, [group_name(name) for name in rows.index], fontsize=SMALL)
    below.invert_yaxis()
    below.set_xlabel("Young's modulus E [GPa]", fontsize=SMALL)
    for axes in (above, below):
        axes.set_xlim(low, high)
        finish(axes)
    legend_below(figure)
    return figure


def _moduli(fit: xr.DataTree, model: HierarchicalModel | None) -> np.ndarray:
    """Draws of E, of the population or, under no pooling, of the first specimen, where there is one."""
    record, h = checked(fit, model), hyperparameters(fit)
    b = h.m.values
    if fit.attrs["pooling"] == "none":
        rng = np.random.default_rng(int(fit.attrs["seed"]))
        b = record.group_level.conditional(h, prepared(fit)).sample(rng).isel(specimen=0).values
    return 1 / b[b > 0]


def _of_prior(fit: xr.DataTree) -> Prior:
    """The prior of the compliance that is drawn."""
    priors = priors_of(fit)
    return priors["b"] if fit.attrs["pooling"] == "none" else priors["m"]


def _densities(axes: Axes, E: np.ndarray, drawn: np.ndarray, alone: np.ndarray, fit: xr.DataTree) -> None:
    """Of E: the prior, the posterior, and the posterior were the simulator the truth, as high as that."""
    density, kind = stats.gaussian_kde(drawn)(E), colour(fit.attrs["pooling"])
    axes.plot(E, _prior_density(E, fit), color=GREY, ls=":", lw=1.4, label="prior")
    axes.fill_between(E, density, color=kind, alpha=0.25, lw=0)
    axes.plot(E, density, color=kind, lw=1.4, label="posterior")
    if alone.size:
        at, of_alone = np.union1d(E, np.linspace(alone.min(), alone.max(), POINTS)), stats.gaussian_kde(alone)
        scaled = of_alone(at) * density.max() / of_alone(at).max()
        axes.plot(at, scaled, color=INK, ls="--", lw=1.2, label="simulator taken for the truth (height scaled)")
    axes.set_yticks([])
    axes.set_ylabel("density", fontsize=SMALL)


def _alone(fit: xr.DataTree, without: xr.DataTree | None, model: HierarchicalModel | None) -> np.ndarray:
    """The same were the simulator taken for the truth; nothing beside a fit that takes it for that."""
    if "a" in checked(fit, model).extras.absent(prepared(fit)):
        return np.array([])
    return _moduli(taken_for_the_truth(fit, model) if without is None else without, model)


def _ends(shown: list, fit: xr.DataTree) -> tuple[float, float]:
    """From the least to the largest E that is worth looking at."""
    of_prior = quantiles(_of_prior(fit), np.array([1 - PRIOR_OUT, PRIOR_OUT]))
    ends = [1 / of_prior[of_prior > 0], *(np.quantile(x, [OUT, 1 - OUT]) for x in shown if len(x))]
    every = np.concatenate(ends)[np.isfinite(np.concatenate(ends))]
    return float(every.min()), float(every.max())


def _prior_density(E: np.ndarray, fit: xr.DataTree) -> np.ndarray:
    """Of E, whose compliance has the prior."""
    return np.exp(log_density(_of_prior(fit))(1 / E)) / E**2
