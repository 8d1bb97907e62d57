"""One patient of a fit: what is known of the logs, and what doses make of them."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import xarray as xr

from hbm_zoo.frames.labels import one, text
from hbm_zoo.group_level.one_compartment import course
from hbm_zoo.group_level.routes import ROUTES
from hbm_zoo.group_level.weighted import Weighted
from hbm_zoo.inference.fits import hyperparameters, model_of, prepared, thinned
from hbm_zoo.model import HierarchicalModel
from hbm_zoo.words import choose

#: Draws over which a person's nodes are averaged, and portions of them, whose scatter is the error.
DRAWS_OF_PERSON, PORTIONS = 1000, 10
#: Nodes of a person that are kept where each draw has its own.
MOST_NODES = 4096
#: Points of an interval between doses, at which a peak is looked for.
POINTS = 200


class Person:
    """One patient of a fit: nodes of the logs, their weights averaged over draws, and doses so far.

    Attributes
    ----------
    theta, weight
        [node, coefficient] and [node], the weights summing to 1.
    weights, point
        The weights given each draw, or portion of the draws [draw, node]; which point of the integral a node is [node].
    doses
        Times, amounts and durations of the patient's own.
    """

    def __init__(self, fit: xr.DataTree, patient: object, model: HierarchicalModel | None, verb: str):
        record, data = fit_of_patients(fit, model, verb), prepared(fit)
        labels = text(pd.Series(data["patient"].values)).tolist()
        if patient is None and len(labels) > 1:
            raise ValueError(f"The fit is of {len(labels)} patients: name one, patient={labels[0]!r} say.")
        j = 0 if patient is None else labels.index(choose(one(patient), labels, "patient"))
        single = data.isel(patient=[j])
        h = thinned(hyperparameters(fit), DRAWS_OF_PERSON)
        self.theta, self.weights, self.point = on_nodes(record.group_level.conditional(h, single))
        self.route = ROUTES[str(record.chosen["route"])]
        self.weight = xr.DataArray(self.weights.mean(axis=0), dims="node")
        sizes = single.size_CL.item(), single.size_V.item()
        self.individual = self.route.individual(np.exp(self.theta.T), *sizes)
        given = single.amount.values[0] > 0
        self.doses = [single[name].values[0][given] for name in ("dose_time", "amount", "duration")]

    @property
    def clearance(self) -> np.ndarray:
        """[node]."""
        return self.individual[0]

    def error(self, values: np.ndarray) -> np.ndarray:
        """Monte Carlo error of the mean of values [node, ...]: of the draws, by portions, and of the integral.

        The latter is that of independent points with the weights of each draw (Owen 2013, Monte Carlo Theory, 9.8),
        too large rather than too small for points that are evenly spread.
        """
        flat = values.reshape(len(values), -1)
        of_draw = self.weights @ flat
        portions = np.stack([part.mean(axis=0) for part in np.array_split(of_draw, min(PORTIONS, len(of_draw)))])
        of_node = (self.weight.values[:, None] * flat) - self.weights.T @ of_draw / len(of_draw)
        of_points = np.zeros((self.point.max() + 1, flat.shape[1]))
        np.add.at(of_points, self.point, of_node)
        of_draws = portions.std(axis=0, ddof=1) / np.sqrt(len(portions)) if len(portions) > 1 else 0.0
        return np.hypot(of_draws, np.sqrt((of_points**2).sum(axis=0))).reshape(values.shape[1:])

    def curve(
        self, times: np.ndarray, dose_times: np.ndarray, amounts: np.ndarray, durations: np.ndarray
    ) -> np.ndarray:
        """Concentrations [node, time]."""
        individual = [value[:, None] for value in self.individual]
        each = (
            self.route.curve(*course(times, *dose), *individual)
            for dose in zip(dose_times, amounts, durations, strict=True)
        )
        return sum(each, np.zeros((len(self.theta), times.size)))

    def exposures(self, amount: float, every: float, number: int, duration: float) -> dict[str, np.ndarray]:
        """Peak, its time and trough [node] of the last interval of a regimen."""
        doses = regimen(amount, every, number, duration)
        # Dense after the dose, where a peak may be narrow, and at an infusion's end; a sample at a dose is before it.
        after = np.union1d(np.geomspace(1e-9, 1, POINTS), np.linspace(0, 1, POINTS)[1:]) * every
        after = np.union1d(after, min(duration, every) or every)
        f = self.curve(doses[0][-1] + after, *doses)
        peak = f.argmax(axis=1)
        return {"Cmax": f.max(axis=1), "tmax": after[peak], "trough": f[:, -1]}


def on_nodes(known: Weighted) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Nodes [node, coefficient] of one patient, their weights by draw, and the point of the integral that each is.

    Where they move there are others for each draw: then some of all, in proportion to their weights, those of a portion
    of the draws together.
    """
    weight = known.weight.isel(patient=0).transpose("sample", "node").values
    draws, points = weight.shape
    if "sample" not in known.theta.dims:
        return known.theta.isel(patient=0).transpose("node", "coefficient").values, weight, np.arange(points)
    theta = known.theta.isel(patient=0).transpose("sample", "node", "coefficient").values
    reached = np.cumsum(weight) / weight.sum()
    chosen = np.searchsorted(reached, (np.arange(MOST_NODES) + 0.5) / MOST_NODES).clip(max=reached.size - 1)
    several = min(PORTIONS, draws)
    of = (chosen // points) * several // draws == np.arange(several)[:, None]
    return theta.reshape(-1, theta.shape[-1])[chosen], of / of.sum(axis=1, keepdims=True), chosen % points


def regimen(amount, every, number, duration) -> list[np.ndarray]:
    """Times, amounts and durations of doses, one like the other."""
    if isinstance(number, bool) or not isinstance(number, int | np.integer) or number < 1:
        raise ValueError(f"number must be a whole number of doses, 1 or more, got {number!r}.")
    if every is None and number > 1:
        raise ValueError("Several doses need to know the hours between them, every=...")
    step = 0.0 if every is None else a_number("every", every)
    times = step * np.arange(number)
    constant = np.ones(number)
    return [times, a_number("amount", amount) * constant, a_number("duration", duration, 0.0) * constant]


def a_number(name: str, value: Any, least: float | None = None) -> float:
    """A finite number above 0, or from ``least``."""
    numeric = isinstance(value, int | float | np.number) and not isinstance(value, bool) and np.isfinite(value)
    if not numeric or not (value > 0 if least is None else value >= least):
        raise ValueError(
            f"{name} must be a finite number {'above 0' if least is None else f'from {least:g}'}, got {value!r}."
        )
    return float(value)


def fit_of_patients(fit: xr.DataTree, model: HierarchicalModel | None, verb: str) -> HierarchicalModel:
    """The record of a fit of population_pk; of another it is refused to a verb."""
    record = model_of(fit, model)
    if "route" not in record.alternatives or not {"mu_CL", "mu_V"} <= set(record.parameters):
        raise ValueError(f"{verb} is of fits of population_pk, got one of {record.name}.")
    return record
