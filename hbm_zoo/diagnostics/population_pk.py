"""Verbs of `population_pk` alone: from population to person, and what a person needs."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
import xarray as xr

from hbm_zoo.diagnostics.flip_flop import FlipFlopWarning as FlipFlopWarning
from hbm_zoo.diagnostics.flip_flop import flip_flop as flip_flop
from hbm_zoo.diagnostics.person import Person, a_number, regimen
from hbm_zoo.diagnostics.personalised import personalise as personalise
from hbm_zoo.group_level.weighted import Weighted
from hbm_zoo.inference.summary import interval_name, interval_tails
from hbm_zoo.model import HierarchicalModel
from hbm_zoo.words import choose, plain

#: Of the peak, less than which no dose is given for.
LEAST_LEFT = 1e-6
PROBABILITIES = (0.05, 0.25, 0.5, 0.75, 0.95)


def curve(
    fit: xr.DataTree,
    times: float | Sequence[float],
    patient: object = None,
    amount: float | None = None,
    every: float | None = None,
    number: int = 1,
    duration: float = 0.0,
    model: HierarchicalModel | None = None,
) -> pd.DataFrame:
    """The concentration of a patient over time, after the doses in the fit or after others.

    Parameters
    ----------
    fit : xarray.DataTree
        Of one patient (`personalise`), or of a cohort.
    times : float or sequence of float
        When [h].
    patient : optional
        The label of one of several.
    amount, every, number, duration
        ``number`` doses of an ``amount``, ``every`` so many hours from time 0, each over ``duration`` hours. Default:
        the patient's own doses.
    model : HierarchicalModel, optional
        The record of a model that is not in the zoo.

    Returns
    -------
    pandas.DataFrame
        By ``time``: ``mean``, its Monte Carlo error ``mcse``, draws and integral in it, ``sd``, ``median`` and
        interval of the concentration itself, a sample's error not in it.

    Raises
    ------
    ValueError
        If a patient must be named, is unknown, or a number is not what is expected.
    """
    person = Person(fit, patient, model, "curve")
    at = np.array([a_number("times", t, 0.0) for t in np.atleast_1d(times).tolist()])
    if not at.size:
        raise ValueError("curve expected one time or more, got none.")
    doses = person.doses if amount is None else regimen(amount, every, number, duration)
    return _described(person, person.curve(at, *doses)).set_index(pd.Index(at, name="time"))


def exposure(
    fit: xr.DataTree,
    amount: float,
    every: float,
    number: int = 1,
    duration: float = 0.0,
    above: float | None = None,
    patient: object = None,
    model: HierarchicalModel | None = None,
) -> pd.DataFrame:
    """Area under the curve, peak and trough of a patient under a regimen.

    Parameters
    ----------
    fit, patient, model
        As of `curve`.
    amount, every, number, duration
        As of `curve`; peak and trough are those of the last interval: of the first dose, or of a steady state if there
        are many.
    above : float, optional
        A concentration: ``p_above`` is the probability of a trough, and of a peak, beyond it.

    Returns
    -------
    pandas.DataFrame
        Rows ``AUC`` [mass h/L], of one dose until nothing is left, which in a steady state is that of an interval;
        ``Cmax``, ``tmax`` [h] after the last dose, and ``trough`` [mass/L], ``every`` hours after it. Columns ``mean``,
        ``mcse``, ``sd``, ``median``, the interval, and ``p_above`` with ``p_above_mcse``.

    Raises
    ------
    ValueError
        As `curve`.
    """
    person = Person(fit, patient, model, "exposure")
    rows = person.exposures(amount, every, number, duration)
    rows["AUC"] = amount / person.clearance
    table = pd.concat([_described(person, v[:, None]) for v in rows.values()])
    table.index = pd.Index([*rows], name="exposure")
    if above is not None:
        at = a_number("above", above, 0.0)
        beyond = {name: rows[name] > at for name in ("Cmax", "trough")}
        table["p_above"] = pd.Series({name: float(person.weight.values @ is_so) for name, is_so in beyond.items()})
        table["p_above_mcse"] = pd.Series({name: float(person.error(1.0 * is_so)) for name, is_so in beyond.items()})
    return table.loc[["AUC", "Cmax", "tmax", "trough"]]


def dose_for(
    fit: xr.DataTree,
    target: float,
    of: str = "AUC",
    every: float | None = None,
    number: int = 1,
    duration: float = 0.0,
    patient: object = None,
    model: HierarchicalModel | None = None,
) -> pd.DataFrame:
    """The dose that a patient needs for a target exposure, with its distribution.

    Parameters
    ----------
    fit, patient, model
        As of `curve`.
    target : float
        The exposure to reach: of the area under the curve [mass h/L], or of a concentration [mass/L].
    of : {"AUC", "Cmax", "trough"}
        Of what. Peak and trough are those after the last of ``number`` doses, ``every`` so many hours.
    every, number, duration
        As of `exposure`.

    Returns
    -------
    pandas.DataFrame
        By ``probability``: the ``dose`` that reaches the target with it, and its Monte Carlo error ``mcse``. The median
        is too little as often as not.

    Raises
    ------
    ValueError
        As `curve`; or if less than a millionth of the peak is left at the trough.

    Notes
    -----
    Concentrations are proportional to the dose: the doses of the nodes are target over exposure to a dose of 1.
    """
    choose(of, ("AUC", "Cmax", "trough"), "of")
    person, target = Person(fit, patient, model, "dose_for"), a_number("target", target)
    regimen(1.0, every, number, duration)  # refuses what is no regimen, though an area does not depend on it
    if of == "AUC":
        of_one = 1 / person.clearance
    else:
        if every is None:
            raise ValueError(f"dose_for a {of} needs to know the hours between doses, every=...")
        exposures = person.exposures(1.0, every, number, duration)
        of_one, left = exposures[of], exposures["trough"] / exposures["Cmax"]
        share = Weighted(xr.DataArray(left, dims="node"), person.weight).ppf(0.5).item()
        if of == "trough" and share < LEAST_LEFT:
            raise ValueError(
                f"dose_for a trough expected doses of which something is left, got every={every:g} [h], after which "
                f"{plain(share)} of the peak is there: is it in hours?"
            )
    doses = Weighted(xr.DataArray(target / of_one, dims="node"), person.weight)
    found = {p: _quantile(person, doses, p) for p in PROBABILITIES}
    return pd.DataFrame.from_dict(found, orient="index", columns=["dose", "mcse"]).rename_axis("probability")


def _quantile(person: Person, values: Weighted, p: float) -> tuple[float, float]:
    """A quantile, and half the way between those that lie one error of its probability to either side."""
    at = values.ppf(p).item()
    error = float(person.error(1.0 * (values.theta.values <= at)))
    low, high = (values.ppf(np.clip(p + side * error, p / 2, (1 + p) / 2)).item() for side in (-1, 1))
    return at, (high - low) / 2


def _described(person: Person, of_nodes: np.ndarray) -> pd.DataFrame:
    """Mean and its error, sd, median and interval of each quantity [node, quantity]."""
    (lower, upper), name = interval_tails(), interval_name()
    values = Weighted(xr.DataArray(of_nodes, dims=("node", "quantity")), person.weight)
    error = xr.DataArray(person.error(of_nodes), dims="quantity")
    columns = {"mean": values.mean, "mcse": error, "sd": values.sd, "median": values.ppf(0.5)}
    columns |= {f"{name}_lb": values.ppf(lower), f"{name}_ub": values.ppf(upper)}
    return pd.DataFrame({column: np.atleast_1d(value.values) for column, value in columns.items()})
