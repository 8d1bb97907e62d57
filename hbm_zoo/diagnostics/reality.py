"""What would be there without noise: simulator and discrepancy, for readings to come."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pandas as pd
import xarray as xr

from hbm_zoo.diagnostics.rigs import DRAWS, checked, formulas_of, options_of, taken_for_the_truth
from hbm_zoo.frames.rules import FrameError
from hbm_zoo.inference.fits import efficiency, hyperparameters, prepared, thinned
from hbm_zoo.inference.summary import interval_name, interval_tails
from hbm_zoo.model import HierarchicalModel

INSIDE, BEYOND_SENSORS, BEYOND_LOADS = "among the data", "beyond the last sensor", "beyond the loads"
ANOTHER_BEAM = "another beam than in the data"
#: What a specimen is [m, mm, mm].
BEAM = ("length", "width", "thickness")


def reality(
    fit: xr.DataTree,
    frame: pd.DataFrame,
    without: xr.DataTree | None = None,
    simulator: Callable | None = None,
    model: HierarchicalModel | None = None,
) -> pd.DataFrame:
    """Predict what would be there without noise: simulator and discrepancy, alone and together.

    Parameters
    ----------
    fit : xarray.DataTree
        A fit of ``model_discrepancy``.
    frame : pandas.DataFrame
        Columns specimen, position, load, length, width, thickness; specimens of the fit, or new ones.
    without : xarray.DataTree, optional
        A fit of the same data with discrepancy="none", to be shown beside it.
    simulator : callable, optional
        The simulator of the fit, if it had one of its own: a fit cannot store it.
    model : HierarchicalModel, optional
        The record of a model that is not in the zoo.

    Returns
    -------
    pandas.DataFrame
        By row of the frame: ``reality`` [mm], posterior mean, its Monte Carlo error ``mcse``, ``sd`` and interval; its
        parts ``simulator``, b f, and ``discrepancy``, posterior means, each with its sd: as they are hardly told apart,
        their sum is known better than either; ``where`` the row lies: "among the data", "beyond the last sensor",
        "beyond the loads", "another beam than in the data", or several of these.
        Beside it, if asked for, ``without`` with ``mcse_without``, ``sd_without`` and interval.

    Raises
    ------
    FrameError, ValueError
        If the fit is of another model, the frame is not what the model takes, or the simulator is not that of the fit.

    Examples
    --------
    >>> import hbm_zoo as hz
    >>> frame = hz.load_data("simulated_rig").query("specimen == 'S1'")
    >>> alone = hz.fit("model_discrepancy", frame, "none", random_seed=1, progressbar=False)
    >>> reality(alone, frame.head(1).assign(position=1.0, load=30.0))["where"].item()
    'beyond the last sensor, beyond the loads'
    """
    table = _of_rows(fit, frame, simulator, model)
    if without is None:
        return table
    if "a" not in checked(without, model).extras.absent(prepared(without)):
        raise ValueError('without expected a fit with discrepancy="none".')
    return _beside(table, _of_rows(without, frame, simulator, model))


def inside_and_beyond(
    fit: xr.DataTree, simulator: Callable | None = None, model: HierarchicalModel | None = None
) -> pd.DataFrame:
    """Reality with and without a discrepancy at three places: among the data, at the tip, under twice the loads.

    Parameters
    ----------
    fit : xarray.DataTree
        A fit of ``model_discrepancy`` with a discrepancy.
    simulator : callable, optional
        The simulator of the fit, if it had one of its own: a fit cannot store it.
    model : HierarchicalModel, optional
        The record of a model that is not in the zoo.

    Returns
    -------
    pandas.DataFrame
        As `reality` has them beside one another, by ``specimen``, ``position`` and ``load``, of the first specimen: at
        its middle sensor and at its end under the typical load, at its last sensor under twice the largest. What stands
        under ``without`` is of the same data and priors, the simulator taken for the truth.

    Raises
    ------
    FrameError, ValueError
        As `reality`; or if the fit has no discrepancy.

    Examples
    --------
    >>> import hbm_zoo as hz
    >>> frame = hz.load_data("simulated_rig").query("specimen == 'S1'")
    >>> alone = hz.fit("model_discrepancy", frame, "none", random_seed=1, progressbar=False)
    >>> inside_and_beyond(alone)["where"].tolist()
    ['among the data', 'beyond the last sensor', 'beyond the loads']
    """
    record, data = checked(fit, model), prepared(fit)
    if "a" in record.extras.absent(data):
        raise ValueError("The fit takes the simulator for the truth: fit with a discrepancy.")
    sensors = np.unique(data["position"].values[data["of_specimen"].values == 0])
    typical, loads = float(data.attrs["typical_load"]), data["load"].values
    places = [
        (sensors[(sensors.size - 1) // 2], typical),
        (float(data["length"].values[0]), typical),
        (sensors[-1], 2 * float(loads[abs(loads).argmax()])),
    ]
    frame = pd.DataFrame(places, columns=["position", "load"]).assign(
        specimen=data["specimen"].values[0], **{name: data[name].values[0] for name in BEAM if name in data}
    )
    table = _of_rows(fit, frame, simulator, model)
    both = _beside(table, _of_rows(taken_for_the_truth(fit, model), frame, simulator, model))
    return both.set_index(["specimen", "position", "load"])


def _beside(table: pd.DataFrame, other: pd.DataFrame) -> pd.DataFrame:
    """A table of reality with that of another fit."""
    kept = ["reality", "mcse", "sd", *(f"reality_{interval_name()}_{end}" for end in ("lb", "ub"))]
    names = ["without", "mcse_without", "sd_without", *(f"without_{interval_name()}_{end}" for end in ("lb", "ub"))]
    return table.assign(**{name: other[column] for name, column in zip(names, kept, strict=True)})


def _of_rows(
    fit: xr.DataTree, frame: pd.DataFrame, simulator: Callable | None, model: HierarchicalModel | None
) -> pd.DataFrame:
    """Reality and its parts, of each row of a frame."""
    drawn, seen, new = parts(fit, frame, simulator, model)
    columns: dict[str, np.ndarray] = {}
    for name, values in drawn.items():
        mean, sd = values.mean("sample").values, values.std("sample").values
        columns |= {str(name): mean, "sd" if name == "reality" else f"sd_of_{name}": sd}
        if name == "reality":
            columns["mcse"] = sd / np.sqrt(values.sizes["sample"] * efficiency(fit))
            for end, tail in zip(("lb", "ub"), interval_tails(), strict=True):
                columns[f"reality_{interval_name()}_{end}"] = values.quantile(tail, "sample").values
    labels = {name: frame[name].to_numpy() for name in ("specimen", "position", "load")}
    return pd.DataFrame(labels | columns | {"where": _where(seen, new)}, index=frame.index)


def parts(
    fit: xr.DataTree,
    frame: pd.DataFrame,
    simulator: Callable | None = None,
    model: HierarchicalModel | None = None,
) -> tuple[xr.Dataset, xr.Dataset, xr.Dataset]:
    """Joint draws of ``reality``, ``simulator`` and ``discrepancy`` [sample, row]; the rows seen, and the new ones."""
    record, seen = checked(fit, model), prepared(fit)
    if not isinstance(frame, pd.DataFrame) or frame.empty:
        raise FrameError("reality expected a frame with at least one row.")
    new = record.prepared(frame.assign(deflection=0.0), **options_of(record, fit, simulator))
    _check_beams(seen, new)
    h, rng = thinned(hyperparameters(fit), DRAWS), np.random.default_rng(int(fit.attrs["seed"]))
    formulas = formulas_of(record)
    both = formulas.joined(seen, formulas.emptied(new))
    b = record.group_level.conditional(h, both).over(xr.ones_like(h.m)).sample(rng)
    b = b.sel(specimen=new["specimen"].values.astype(str))
    simulator, delta = formulas.realities(rng, b, h, new, seen)
    return xr.Dataset({"reality": simulator + delta, "simulator": simulator, "discrepancy": delta}), seen, new


def _where(seen: xr.Dataset, new: xr.Dataset) -> list[str]:
    """Whether rows lie among those that were seen, in words."""
    far = new["position"].values > seen["position"].values.max() * (1 + 1e-9)
    loads, asked = seen["load"].values, new["load"].values
    slack = 1e-9 * abs(loads).max()
    heavy = (asked > max(loads.max(), 0.0) + slack) | (asked < min(loads.min(), 0.0) - slack)
    known = {tuple(beam) for beam in _beams(seen)}
    other = np.array([tuple(beam) not in known for beam in _beams(new)])[new["of_specimen"].values]
    words = {BEYOND_SENSORS: far, BEYOND_LOADS: heavy, ANOTHER_BEAM: other}
    return [", ".join(word for word, holds in words.items() if holds[i]) or INSIDE for i in range(asked.size)]


def _beams(data: xr.Dataset) -> np.ndarray:
    """The numbers of each specimen's beam, to ten digits [specimen, number]."""
    numbers = [data[name].values for name in BEAM if name in data]
    return np.array([[f"{value:.10g}" for value in row] for row in zip(*numbers, strict=True)])


def _check_beams(seen: xr.Dataset, new: xr.Dataset) -> None:
    """Refuse a specimen of the fit that is another beam here."""
    was = dict(zip(seen["specimen"].values.astype(str), map(tuple, _beams(seen)), strict=True))
    for name, beam in zip(new["specimen"].values.astype(str), map(tuple, _beams(new)), strict=True):
        if was.get(name, beam) != beam:
            raise FrameError(
                f"reality expected specimen {name} as it was in the fit, {' x '.join(was[name])}, got "
                f"{' x '.join(beam)}: give another beam a name of its own."
            )
