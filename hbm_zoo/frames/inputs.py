"""What a model takes beside its frame: a second frame, a simulator, or an option that changes it."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr

from hbm_zoo.frames.rules import FrameError, Rule, check
from hbm_zoo.words import choose, plural

SIMULATOR = "simulator"
Input = Mapping[str, Rule] | str
REMEMBERED = 10


@dataclass(frozen=True)
class Freely(Mapping):
    """The values of an option that is written freely, a formula say, in the place of a mapping of those that there are.

    Attributes
    ----------
    first
        The value of the record itself; what is listed.
    read
        ``read(value)``: its one spelling, or a ValueError. A fit knows it by its text, which ``read`` takes, too.
    change
        ``change(value)``: the change of a record, for a value so spelt.
    """

    first: str
    read: Callable[[Any], Any]
    change: Callable[[Any], Callable]

    def __getitem__(self, value: Any) -> Callable:
        return self.change(value)

    def __iter__(self) -> Iterator[str]:
        yield self.first

    def __len__(self) -> int:
        return 1


def value_of(option: str, known: Mapping[Any, Any], value: Any) -> Any:
    """The value of an option that changes a model, as the model spells it; what is true is written true as text.

    Raises
    ------
    ValueError
        If there is none; the nearest is given.

    Examples
    --------
    >>> value_of("exact", {False: None, True: None}, "TRUE")
    True
    """
    if isinstance(known, Freely):
        return known.read(value)
    by_word = {str(one).lower(): one for one in known}
    return by_word[choose(str(value).lower(), by_word, option)]


class Remembered:
    """A simulator that remembers its first ten answers; it cannot be stored itself.

    It takes points [point, input] and gives values [point, ...].

    Examples
    --------
    >>> double = Remembered(lambda points: 2 * points)
    >>> double([[1.0], [2.0]]).tolist(), len(double.points)
    ([[2.0], [4.0]], 2)
    """

    def __init__(self, simulator: Callable[[np.ndarray], np.ndarray]):
        self.simulator = simulator
        self.points: list[np.ndarray] = []
        self.values: list[np.ndarray] = []

    def __call__(self, points: np.ndarray) -> np.ndarray:
        """Simulate.

        Raises
        ------
        ValueError
            If the simulator does not answer each point with numbers, as many as before.
        """
        points = np.array(points, float)
        answer = self.simulator(points.copy())
        expected = f"A simulator expected to answer each of {len(points)} points"
        try:
            values = np.array(answer, float)  # a copy, for a simulator may write over its own arrays
        except (TypeError, ValueError):
            raise ValueError(f"{expected} gave no numbers.") from None
        if values.shape[:1] != points.shape[:1]:
            raise ValueError(f"{expected} gave shape {values.shape}.")
        if self.values and values.shape[1:] != self.values[0].shape:
            before, now = self.values[0].shape, values.shape[1:]
            raise ValueError(f"A simulator gave shape {before} of a point, and then shape {now}.")
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
        source = getattr(value, "attrs", {}).get("source")
        return check(value, kind, f"{model}, {name!r}" + (f" ({source})" if source else ""))  # type: ignore[arg-type]
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
            kept[f"{name}.points"] = ((f"{name}.answer", f"{name}.input"), np.stack(value.points))
            kept[f"{name}.values"] = ((f"{name}.answer", f"{name}.output"), _a_row_each(value.values))
    return data.assign(kept)


def largest(data: xr.Dataset) -> int:
    """The longest dim of the data themselves, whatever came beside them.

    Examples
    --------
    >>> largest(xr.Dataset({"y": ("pupil", [1, 2]), "days.days": ("days.row", [30, 40, 50])}))
    2
    """
    return max((size for dim, size in data.sizes.items() if "." not in str(dim)), default=1)


def restored(
    data: xr.Dataset, kinds: Mapping[str, Input], again: Mapping[str, Any], may_lack: Collection[str] = ()
) -> dict[str, Any]:
    """What came beside the frame: frames as they were stored, simulators as given again and recognised.

    A frame given again takes the place of the stored one: it may have rows for what is new. Those that a model
    ``may_lack`` need not have come.

    Raises
    ------
    ValueError
        If a simulator is not given again, or does not repeat its stored answers, or there was none.
    """
    lacking = {name for name in may_lack if isinstance(kinds[name], str) and f"{name}.points" not in data}
    for name in lacking & set(again):
        raise ValueError(f"The fit was made without a {name!r}, and what is new cannot have one.")
    kinds = {name: kind for name, kind in kinds.items() if name not in lacking}
    frames = {name: kind for name, kind in kinds.items() if not isinstance(kind, str) and f"{name}.row" in data.dims}
    stored = {name: _frame(name, data, kind) for name, kind in frames.items()}
    simulators = {name: _same(name, data, again.get(name)) for name, kind in kinds.items() if isinstance(kind, str)}
    return stored | dict(again) | simulators


def _frame(name: str, data: xr.Dataset, columns: Mapping[str, Rule]) -> pd.DataFrame:
    """A second frame as it was stored."""
    return pd.DataFrame({column: data[f"{name}.{column}"].values for column in columns if f"{name}.{column}" in data})


def _same(name: str, data: xr.Dataset, simulator: Callable | None) -> Remembered:
    """The simulator of a fit, if it still gives what it gave."""
    if not callable(simulator):
        raise ValueError(f"This needs new simulations, and a fit cannot store a function: give it again as {name!r}.")
    remembered = Remembered(simulator)
    if f"{name}.points" not in data:  # it was never asked
        return remembered
    points, answers = data[f"{name}.points"].values, data[f"{name}.values"].values
    now, other = _a_row_each(remembered(points)), f"{name!r} is not the simulator of the fit"
    if now.shape != answers.shape:
        gives = f"{now.shape[1]} {plural('value', now.shape[1])}"
        raise ValueError(f"{other}: of a point it gives {gives}, and gave {answers.shape[1]}.")
    size = np.max(abs(answers), axis=0, where=np.isfinite(answers), initial=0)  # of each output: units differ
    different = ~np.isclose(now, answers, rtol=1e-6, atol=1e-9 * size, equal_nan=True)
    if different.any():
        i, k = np.argwhere(different)[0]
        at = ", ".join(f"{x:.6g}" for x in points[i])
        raise ValueError(f"{other}: at ({at}) it gives {now[i, k]:.6g}, and gave {answers[i, k]:.6g}.")
    return remembered


def _a_row_each(values: list[np.ndarray] | np.ndarray) -> np.ndarray:
    """Answers [answer, output], whatever shape each has."""
    return np.reshape(values, (len(values), -1))
