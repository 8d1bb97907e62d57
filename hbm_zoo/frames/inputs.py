"""What a model takes beside its frame: a second frame, or a simulator."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr

from hbm_zoo.frames.rules import FrameError, Rule, check

SIMULATOR = "simulator"
Input = Mapping[str, Rule] | str
REMEMBERED = 10


class Remembered:
    """A simulator that remembers its first ten answers; it cannot be stored itself.

    It takes points [point, input] and gives values [point, ...].
    """

    def __init__(self, simulator: Callable[[np.ndarray], np.ndarray]):
        self.simulator = simulator
        self.points: list[np.ndarray] = []
        self.values: list[np.ndarray] = []

    def __call__(self, points: np.ndarray) -> np.ndarray:
        """Simulate."""
        points = np.asarray(points, float)
        values = np.asarray(self.simulator(points), float)
        free = REMEMBERED - len(self.points)
        self.points += list(points[:free])
        self.values += list(values[:free])
        return values


def given(model: str, name: str, kind: Input, options: Mapping[str, Any]) -> Any:
    """A further input as the model takes it: a frame checked by its rules, a simulator that remembers.

    Raises
    ------
    FrameError
        If it is missing or not what is expected.
    """
    if name not in options:
        what = "a simulator" if kind == SIMULATOR else f"a frame with columns {', '.join(kind)}"
        raise FrameError(f"{model} expected {what} as {name!r}, got none.")
    value = options[name]
    if kind != SIMULATOR:
        return check(value, kind, f"{model}, {name!r}")  # type: ignore[arg-type]
    if not callable(value):
        raise FrameError(f"{model} expected {name!r} to be a function of points, got {value!r}.")
    return value if isinstance(value, Remembered) else Remembered(value)


def stored(data: xr.Dataset, given: Mapping[str, Any]) -> xr.Dataset:
    """The data with what came beside the frame: ``days.school`` [days.row], or ten answers of a simulator."""
    kept: dict[str, tuple] = {}
    for name, value in given.items():
        if isinstance(value, pd.DataFrame):
            kept |= {f"{name}.{column}": (f"{name}.row", value[column].to_numpy()) for column in value}
        elif value.points:
            answers = np.reshape(value.values, (len(value.points), -1))
            kept[f"{name}.points"] = ((f"{name}.answer", f"{name}.input"), np.stack(value.points))
            kept[f"{name}.values"] = ((f"{name}.answer", f"{name}.output"), answers)
    return data.assign(kept)


def restored(data: xr.Dataset, kinds: Mapping[str, Input], again: Mapping[str, Any]) -> dict[str, Any]:
    """What came beside the frame: frames as they were stored, simulators as given again and recognised.

    Raises
    ------
    ValueError
        If a simulator is not given again, or does not repeat its stored answers.
    """
    return {
        name: _same(name, data, again.get(name))
        if kind == SIMULATOR
        else pd.DataFrame({column: data[f"{name}.{column}"].values for column in kind if f"{name}.{column}" in data})
        for name, kind in kinds.items()
    }


def _same(name: str, data: xr.Dataset, simulator: Callable | None) -> Remembered:
    """The simulator of a fit, if it still gives what it gave."""
    if simulator is None:
        raise ValueError(f"This needs new simulations, and a fit cannot store a function: give it again as {name!r}.")
    remembered, answers = Remembered(simulator), data[f"{name}.values"].values
    now = remembered(data[f"{name}.points"].values).reshape(answers.shape)
    if not np.allclose(now, answers, rtol=1e-6, atol=1e-12):
        worst = np.unravel_index(np.argmax(np.abs(now - answers)), answers.shape)
        raise ValueError(
            f"{name!r} is not the simulator of the fit: at {data[f'{name}.points'].values[worst[0]].tolist()} it gives "
            f"{now[worst]:.6g}, and gave {answers[worst]:.6g}."
        )
    return remembered
