"""Beams on a rig: what the simulator of `model_discrepancy`, finite elements or one's own, says of each reading."""

from __future__ import annotations

import numpy as np
import pandas as pd
import xarray as xr

from hbm_zoo.frames.rules import FrameError
from hbm_zoo.group_level.discrepancy_rows import of_rows

NAME = "model_discrepancy"
GEOMETRY = ["length", "width", "thickness"]
ELEMENTS = 20
MM = 1e3
GPA = 1e9
#: Of a simulator of one's own: a compliance [1/GPa] beside 1 at which it is asked whether it is linear, and how nearly.
ANOTHER, LINEAR = 0.01, 1e-6


def deflection(position, load, length, width, thickness):
    """Deflection of a clamped cantilever with a load at its tip, of a material of 1 GPa [mm].

    Euler-Bernoulli elements with Hermite's cubics, exact for a load at a node (Przemieniecki 1968, Theory of Matrix
    Structural Analysis, chapter 5). It is proportional to 1/E: of a material of E it is 1/E of this.

    Parameters
    ----------
    position : numpy.ndarray
        Distances from the support, at most the length [m].
    load : numpy.ndarray
        Forces at the tip [N].
    length, width, thickness : numpy.ndarray
        Of the beams [m, mm, mm].

    Returns
    -------
    numpy.ndarray
        Deflections [mm].

    Examples
    --------
    >>> deflection(np.array([0.5, 1.0]), 10.0, 1.0, 30.0, 10.0).round(2)
    array([ 416.67, 1333.33])
    """
    second_moment = (width / MM) * (thickness / MM) ** 3 / 12
    return MM * load * length**3 / (GPA * second_moment) * _of_unit_beam(np.asarray(position / length))


def _of_unit_beam(x: np.ndarray) -> np.ndarray:
    """Deflection at x in [0, 1] of a beam of length, stiffness E I and load 1."""
    nodal = _nodal(ELEMENTS)
    element = np.minimum((x * ELEMENTS).astype(int), ELEMENTS - 1)
    t = x * ELEMENTS - element
    shapes = 1 - 3 * t**2 + 2 * t**3, (t - 2 * t**2 + t**3) / ELEMENTS, 3 * t**2 - 2 * t**3, (t**3 - t**2) / ELEMENTS
    return sum(shape * nodal[2 * element + k] for k, shape in enumerate(shapes))


def _nodal(elements: int) -> np.ndarray:
    """Deflection and slope of each node of a clamped beam, one after the other, under a load of 1 at the last."""
    h = 1 / elements
    stiffness = np.array(
        [
            [12, 6 * h, -12, 6 * h],
            [6 * h, 4 * h**2, -6 * h, 2 * h**2],
            [-12, -6 * h, 12, -6 * h],
            [6 * h, 2 * h**2, -6 * h, 4 * h**2],
        ]
    )
    K = np.zeros((2 * elements + 2,) * 2)
    for first in range(0, 2 * elements, 2):
        K[first : first + 4, first : first + 4] += stiffness / h**3
    load = np.zeros(2 * elements)
    load[-2] = 1.0
    return np.concatenate([[0.0, 0.0], np.linalg.solve(K[2:, 2:], load)])


def simulated(simulator, runs):
    """What a simulator of one's own says of a material of 1 GPa [run], at positions, loads and geometries [run, input].

    Raises
    ------
    FrameError
        If an answer is not one finite number, or is not in proportion to the compliance, the last input.
    """
    points, back = np.unique(runs, axis=0, return_inverse=True)
    f = answers(simulator, points, 1.0)
    few = np.unique(np.linspace(0, len(points) - 1, 10).astype(int))
    scaled = answers(simulator, points[few], ANOTHER) / ANOTHER
    off = abs(scaled - f[few]) > LINEAR * abs(f).max()
    if off.any():
        at = few[off][0]
        raise FrameError(
            f"{NAME}: 'simulator' expected deflections in proportion to the compliance, its last input, got "
            f"{f[at]:.6g} mm at 1/GPa and {ANOTHER * scaled[off][0]:.6g} mm at {ANOTHER:g}/GPa, {points[at][0]:g} m "
            f"from the support under {points[at][1]:g} N: only what is linear is integrated exactly; what "
            "is not goes with discrepancy='apart'."
        )
    return f[back.reshape(-1)]


def answers(simulator, points, last):
    """What a simulator says of each point and a last input, or one each: one number, if it is one [mm].

    Raises
    ------
    FrameError
        If it is none.
    """
    said = simulator(np.column_stack([points, np.broadcast_to(last, len(points))])).reshape(len(points), -1)
    if said.shape[1] != 1 or not np.isfinite(said).all():
        bad = said[~np.isfinite(said).all(axis=1)][:1]
        got = f"{said.shape[1]} of each" if said.shape[1] != 1 else f"{bad.item()}"
        raise FrameError(f"{NAME}: 'simulator' expected one finite deflection [mm] of each point, got {got}.")
    return said[:, 0]


def readings(frame, w, reach: float = np.inf, simulator=None):
    """The rows of a frame whose discrepancy is scaled by w, and alike at loads within a reach [N].

    Raises
    ------
    FrameError
        If a sensor is not on its beam, a specimen has two geometries, or a simulator of one's own is not linear.
    """
    _check(frame)
    of, labels = pd.factorize(frame["specimen"])
    columns = {name: frame[name].to_numpy(float) for name in ("deflection", "position", "load", *GEOMETRY)}
    given = [columns[name] for name in ("position", "load", *GEOMETRY)]
    f = deflection(*given) if simulator is None else simulated(simulator, np.column_stack(given))
    rows = {name: columns[name] for name in ("deflection", "position", "load")}
    rows |= {"f": f, "w": w, "seen": np.ones(len(frame)), "of_specimen": of.astype(np.int64)}
    attrs = {"reach": float(reach), "length": float(frame["length"].max())}
    data = of_rows(
        xr.Dataset({name: ("row", values) for name, values in rows.items()}, attrs=attrs), np.asarray(labels)
    )
    first = np.unique(of, return_index=True)[1]
    return data.assign({name: ("specimen", columns[name][first]) for name in GEOMETRY})


def _check(frame):
    off = ~frame["position"].between(0, frame["length"])
    if off.any():
        row = frame[off].iloc[0]
        raise FrameError(
            f"{NAME}: column 'position' expected distances from the support between 0 and the length of the beam, both "
            f"in m, got {row['position']:g} of {row['length']:g} in row {frame.index[off][0]}."
        )
    for name in GEOMETRY:
        several = frame.groupby("specimen", sort=False)[name].nunique()
        if (several > 1).any():
            which = several.index[several > 1][0]
            raise FrameError(
                f"{NAME}: column {name!r} expected one value a specimen, got {several[which]} of {str(which)!r}."
            )
