"""Verbs of `model_discrepancy` alone: what is known of the material and of the rig; `reality` is beside it."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import pandas as pd
import xarray as xr

from hbm_zoo.diagnostics.reality import BEYOND_SENSORS, INSIDE
from hbm_zoo.diagnostics.reality import inside_and_beyond as inside_and_beyond
from hbm_zoo.diagnostics.reality import reality as reality
from hbm_zoo.diagnostics.rigs import DRAWS, checked, formulas_of, options_of
from hbm_zoo.diagnostics.rigs import taken_for_the_truth as taken_for_the_truth
from hbm_zoo.group_level.averages import quantile
from hbm_zoo.group_level.populations import Normal
from hbm_zoo.inference.fits import efficiency, hyperparameters, prepared, priors_of, thinned
from hbm_zoo.inference.summary import interval_name, interval_tails
from hbm_zoo.model import HierarchicalModel
from hbm_zoo.priors import moments, quantiles

POPULATION = "all specimens"


def modulus(fit: xr.DataTree, model: HierarchicalModel | None = None) -> pd.DataFrame:
    """Young's modulus of the material and of each specimen, and how much of it the readings have told.

    Parameters
    ----------
    fit : xarray.DataTree
        A fit of ``model_discrepancy``.
    model : HierarchicalModel, optional
        The record of a model that is not in the zoo.

    Returns
    -------
    pandas.DataFrame
        First row: 1/m, of the population; then the specimens. ``model_alone`` [GPa], of least squares, the simulator
        taken for the truth; ``E`` [GPa], the posterior median, with its interval; ``prior`` [GPa], the prior's median,
        with its interval; ``learned`` = 1 - Var(. | y) / Var(.) of the compliance, what the readings took off its prior
        variance, all hyperparameters averaged; ``sd`` and ``sd_of_difference``, of a specimen's compliance and of its
        difference from the mean of the specimens, as shares of it. The latter is free of a discrepancy that all share.

    Raises
    ------
    ValueError
        If the fit is of another model.

    Notes
    -----
    1/E is normal given the hyperparameters, so that E has no mean: a quantile of E is one of 1/E turned over, infinite
    where that is not positive (Kennedy & O'Hagan 2001, J R Stat Soc B 63:425-464, on what a discrepancy does to it).

    Examples
    --------
    >>> import hbm_zoo as hz
    >>> frame = hz.load_data("simulated_rig").query("specimen == 'S1'")
    >>> alone = hz.fit("model_discrepancy", frame, "none", discrepancy="none", random_seed=1, progressbar=False)
    >>> modulus(alone)[["model_alone", "E"]].round(0).loc["S1"].tolist()
    [52.0, 52.0]
    """
    record, data = checked(fit, model), prepared(fit)
    h, priors, rng = hyperparameters(fit), priors_of(fit), np.random.default_rng(int(fit.attrs["seed"]))
    after = record.group_level.conditional(h, data)
    b = after.sample(rng).transpose("sample", "specimen").values
    of_one = priors.get("b") or record.matched(priors)["b"]
    between = (b - b.mean(axis=1, keepdims=True)).std(axis=0) if b.shape[1] > 1 else [np.nan]
    rows = {}
    if fit.attrs["pooling"] != "none":
        drawn, (_, before) = h.m.values, moments("m", priors["m"])
        rows[POPULATION] = {"model_alone": turned_over(least_squares(data))} | _of_E(np.quantile(drawn, upside_down()))
        rows[POPULATION] |= _of_E(quantiles(priors["m"], upside_down()), "prior")
        rows[POPULATION] |= {"learned": 1 - drawn.var() / before, "sd": drawn.std() / drawn.mean()}
    _, before = moments("b", of_one)
    turned = np.stack([quantile(after, p).values for p in upside_down()], axis=1)
    for j, name in enumerate(data["specimen"].values):
        rows[name] = {"model_alone": turned_over(float(data.b_hat[j]))} | _of_E(turned[j])
        rows[name] |= _of_E(quantiles(of_one, upside_down()), "prior")
        rows[name] |= {"learned": 1 - b[:, j].var() / before, "sd": b[:, j].std() / b[:, j].mean()}
        rows[name]["sd_of_difference"] = between[j] / b[:, j].mean()
    return pd.DataFrame.from_dict(rows, orient="index").rename_axis("specimen")


def upside_down() -> np.ndarray:
    """Of a compliance: the probabilities below its quantiles that are E's median, lower and upper end."""
    return 1 - np.array([0.5, *interval_tails()])


def _of_E(compliances: np.ndarray, what: str = "E") -> dict[str, float]:
    """Median and ends of E, from the quantiles of a compliance."""
    names = (what, *(f"{what}_{interval_name()}_{end}" for end in ("lb", "ub")))
    return {name: turned_over(b) for name, b in zip(names, compliances, strict=True)}


def turned_over(b: float) -> float:
    """E = 1/b; infinite where no compliance is left."""
    return float(1 / b) if b > 0 else np.inf


def least_squares(data: xr.Dataset) -> float:
    """The compliance of all readings, the simulator taken for the truth [1/GPa]."""
    return float((data.ff * data.b_hat).sum() / data.ff.sum())


def discrepancy(
    fit: xr.DataTree,
    positions: Sequence[float] | np.ndarray | None = None,
    simulator: Callable | None = None,
    model: HierarchicalModel | None = None,
) -> pd.DataFrame:
    """The discrepancy that the rig adds to the simulator under the typical load.

    Parameters
    ----------
    fit : xarray.DataTree
        A fit of ``model_discrepancy``, but with discrepancy="none".
    positions : sequence of float, optional
        Distances from the support [m]. Default: those of the sensors.
    simulator : callable, optional
        The simulator of the fit, if it had one of its own: a fit cannot store it.
    model : HierarchicalModel, optional
        The record of a model that is not in the zoo.

    Returns
    -------
    pandas.DataFrame
        By position: ``discrepancy`` [mm], the posterior mean, with its interval and ``mcse``; ``simulator`` [mm], what
        the simulator says of the specimens' mean compliance, and ``share``, the former over the latter, NaN where a
        simulator of one's own is not given and has not run; ``simulator_error`` [mm], how far the simulator is off
        between its runs, 0 of one that is linear; ``where``, "among the data" or "beyond the last sensor". Of each
        mounting's own only what all share is in it.

    Raises
    ------
    ValueError
        If the fit is of another model, has no discrepancy, a position is not on the beam, or the simulator is another.

    Examples
    --------
    >>> import hbm_zoo as hz
    >>> frame = hz.load_data("simulated_rig").query("specimen == 'S1'")
    >>> alone = hz.fit("model_discrepancy", frame, "none", random_seed=1, progressbar=False)
    >>> discrepancy(alone, [0.8, 1.0])["where"].tolist()
    ['among the data', 'beyond the last sensor']
    """
    record, data = checked(fit, model), prepared(fit)
    if "a" in record.extras.absent(data):
        raise ValueError("The fit takes the simulator for the truth: fit with a discrepancy.")
    x = _places(data, positions)
    h = thinned(hyperparameters(fit), DRAWS)
    new, formulas = _of_the_first(record, fit, data, x, simulator), formulas_of(record)
    both = formulas.joined(data, formulas.emptied(new))
    at = both["point_index"].values[-x.size :]
    w = xr.DataArray(new["w"].values, dims="point")
    of_rig = formulas.rig(h, both)
    of_rig = Normal(*(value.isel(point=at) * w for value in (of_rig.mean, of_rig.sd)))
    b, on_average = float(record.group_level.conditional(h, data).mean.mean()), h.mean("sample")
    simulated = formulas.simulated(b, on_average, new).values
    if simulator is None and "simulator.points" in data:
        simulated = _where_it_ran(data, formulas.simulated(b, on_average, data).values, x)
    mean = of_rig.mean.mean("sample").values
    columns = {"discrepancy": mean}
    for end, tail in zip(("lb", "ub"), interval_tails(), strict=True):
        columns[f"discrepancy_{interval_name()}_{end}"] = quantile(of_rig, tail).values
    columns["mcse"] = of_rig.mean.std("sample").values / np.sqrt(h.sizes["sample"] * efficiency(fit))
    with np.errstate(divide="ignore", invalid="ignore"):
        columns |= {
            "simulator": simulated,
            "simulator_error": data.attrs.get("table_error", 0.0),
            "share": mean / simulated,
        }
    columns["where"] = np.where(x > data["position"].values.max(), BEYOND_SENSORS, INSIDE)
    return pd.DataFrame(columns, index=pd.Index(x, name="position"))


def _places(data: xr.Dataset, positions: Sequence[float] | np.ndarray | None) -> np.ndarray:
    """Distances from the support, by default those of the sensors [m]."""
    x = np.unique(data["position"].values) if positions is None else np.asarray(positions, float)
    length = float(data.attrs["length"])
    if x.ndim != 1 or not x.size or not ((x >= 0) & (x <= length)).all():
        raise ValueError(f"positions must be distances from the support from 0 to {length:g} m, got {positions!r}.")
    return x


def _nothing(points: np.ndarray) -> np.ndarray:
    """In the place of a simulator whose answers are not asked."""
    return np.zeros(len(points))


def _of_the_first(
    record: HierarchicalModel, fit: xr.DataTree, data: xr.Dataset, x: np.ndarray, simulator: Callable | None
) -> xr.Dataset:
    """Rows of the first specimen's beam under the typical load; f of a simulator that is not given again is not its."""
    beam = {name: data[name].values[0] for name in record.columns if name in data and data[name].dims == ("specimen",)}
    typical = float(data.attrs["typical_load"])
    frame = pd.DataFrame({"specimen": data["specimen"].values[0], "position": x, "load": typical, "deflection": 0.0})
    options = {name: data.attrs[name] for name in record.options_of_data if name in data.attrs}
    options |= {"simulator": _nothing} if "rig_from" in options else {}
    if simulator is not None or "simulator.points" not in data:
        options = options_of(record, fit, simulator)
    return record.prepared(frame.assign(**beam), **options)


def _where_it_ran(data: xr.Dataset, simulated: np.ndarray, x: np.ndarray) -> np.ndarray:
    """What a simulator said of the first specimen's beam under the typical load, NaN where it has not run."""
    there = ((data["of_specimen"] == 0) & np.isclose(data["load"], float(data.attrs["typical_load"]))).values
    ran = dict(zip(data["position"].values[there], simulated[there], strict=True))
    return np.array([ran.get(place, np.nan) for place in x])
