"""Rows of groups whose simulator is any smooth one: what `any_simulator` needs beside what `discrepancy` does."""

from __future__ import annotations

import numpy as np
import pandas as pd
import xarray as xr
from numpy.polynomial.chebyshev import chebder, chebval, chebvander
from scipy import optimize

from hbm_zoo.group_level import discrepancy_rows
from hbm_zoo.group_level.discrepancy_rows import ROWS

#: Runs of the simulator at each point, and as many of Chebyshev's polynomials; as many more in a second parameter.
POWERS, RIG_POWERS = 13, 9
#: The ends of a second parameter where there is none: it is 0.
NO_RIG = (-1.0, 1.0)
#: What the integral over a group asks of it and of the points.
INTEGRATED = ("n", "towards", "beside", "V", "b_hat", "apart", "alike", "ends", "rig_ends")
#: Where the least misfit of a group is looked for first.
GRID, RIG_GRID = np.linspace(-1, 1, 401), np.linspace(-1, 1, 41)


def runs(ends, size=POWERS):
    """Where a simulator runs between two ends: at Chebyshev's nodes."""
    return _from_unit(np.cos(np.pi * (np.arange(size) + 0.5) / size), ends)


def held_out(ends, size=POWERS):
    """Halfway between the runs, and at the ends: where a table is farthest from them."""
    return _from_unit(np.cos(np.pi * np.arange(size + 1) / size), ends)


def _from_unit(x, ends):
    low, high = ends
    return (low + high) / 2 + (high - low) / 2 * x


def said_by(answers):
    """The coefficients [row, power, ...] of the polynomials through what was said in the `runs` [row, run, ...]."""
    for axis in range(1, answers.ndim):
        size = answers.shape[axis]
        k = np.arange(size)
        nodes = np.cos(np.pi * np.outer(k + 0.5, k) / size) * np.where(k > 0, 2, 1) / size
        answers = np.moveaxis(np.moveaxis(answers, axis, -1) @ nodes, -1, axis)
    return answers


def at(said, b, ends, r, rig_ends):
    """What the polynomials say at each b and r, between the ends [row, b, r]."""
    powers = zip((b, r), (ends, rig_ends), said.shape[1:], strict=True)
    of_b, of_r = (chebvander((2 * x - sum(e)) / (e[1] - e[0]), size - 1) for x, e, size in powers)
    return np.einsum("ipq,bp,rq->ibr", said, of_b, of_r)


def of_rows(rows: xr.Dataset, labels: np.ndarray) -> xr.Dataset:
    """What rows say: as of `discrepancy_rows.of_rows`, f the simulator's at a group's own estimate over that.

    Parameters
    ----------
    rows : xarray.Dataset
        As there, but for f, and ``said`` [row, power, of_rig]; attrs ``stiffest``, ``softest``, ``rig_from`` and
        ``rig_to`` too.
    labels : numpy.ndarray
        Of the groups.

    Returns
    -------
    xarray.Dataset
        Also ``b_hat``, the group's own estimate between the ends, by least squares, a second parameter where it suits
        the group best, and ``ff``, the squares of the simulator's slopes there; ``V`` [specimen, point, near],
        ``towards`` [specimen, point, power, of_rig] and ``beside`` [specimen, also_power, power, of_rig]; ``ends``
        [end] of the compliance [1/GPa], and ``rig_ends``.
    """
    ends = np.array([1 / rows.attrs["stiffest"], 1 / rows.attrs["softest"]])
    of, every = rows["of_specimen"].values, rows["said"].values
    y, seen = rows["deflection"].values, rows["seen"].values
    said = every[..., 0].copy()  # at the second parameter that suits a group best
    for j in range(labels.size) if every.shape[2] > 1 else ():
        said[of == j] = _best_of_rig(every[of == j], y[of == j], seen[of == j])
    b_hat = np.array([_least_squares(said[of == j], y[of == j], seen[of == j], ends) for j in range(labels.size)])
    own, unit = b_hat[of], (2 * b_hat[of] - ends.sum()) / np.ptp(ends)
    f = chebval(unit, said.T, tensor=False) / own
    data = discrepancy_rows.of_rows(rows[[n for n in ROWS if n != "f"]].assign(f=("row", f)), labels)
    slopes = chebval(unit, chebder(said.T), tensor=False) * 2 / np.ptp(ends) * seen
    ff = np.bincount(of, slopes**2, minlength=labels.size)
    W = np.zeros((of.size, data.sizes["point"]))
    W[np.arange(of.size), data["point_index"].values] = rows["w"].values
    each = [_of_group(W[of == j], y[of == j], every[of == j], seen[of == j]) for j in range(labels.size)]
    V, towards, beside = (np.stack(_as_long(parts)) for parts in zip(*each, strict=True))
    return data.assign(
        said=(("row", "power", "of_rig"), every),
        b_hat=("specimen", b_hat),
        ff=("specimen", ff),
        V=(("specimen", "point", "near"), V),
        towards=(("specimen", "point", "power", "of_rig"), towards),
        beside=(("specimen", "also_power", "power", "of_rig"), beside),
        ends=("end", ends),
        rig_ends=("end", [rows.attrs.get(name, end) for name, end in zip(("rig_from", "rig_to"), NO_RIG, strict=True)]),
    )


def _best_of_rig(every, y, seen):
    """The coefficients [row, power] at the second parameter, of a few, that some b suits the rows best with."""
    said = every @ chebvander(RIG_GRID, every.shape[2] - 1).T
    off = chebvander(GRID, POWERS - 1) @ said - y[:, None, None]
    return said[..., (seen[:, None, None] * off**2).sum(axis=0).min(axis=0).argmin()]


def _least_squares(said, y, seen, ends):
    """The b between the ends that rows are nearest to; the middle if none is seen."""
    if not seen.any():
        return float(np.mean(ends))
    off = chebval(GRID, said.T) - y[:, None]
    best = int((seen[:, None] * off**2).sum(axis=0).argmin())

    def misfit(x):
        return (seen * (chebval(x, said.T) - y) ** 2).sum()

    around = GRID[max(best - 1, 0)], GRID[min(best + 1, GRID.size - 1)]
    found = optimize.minimize_scalar(misfit, bounds=around, method="bounded", options={"xatol": 1e-10})
    return float(_from_unit(found.x, ends))


def _of_group(W, y, said, seen):
    """V, and the coefficients of y - F along the columns of W and beside them: rows in any order."""
    order = np.lexsort((y, *W.T))
    powers = said.shape[1:]
    W, off = W[order] * seen[order, None], -(said[order] * seen[order, None, None]).reshape(order.size, -1)
    off[:, 0] += y[order] * seen[order]
    O, V = np.linalg.qr(W)
    towards, missing = O.T @ off, W.shape[1] - len(V)
    beside = np.linalg.qr(off - O @ towards, mode="r").reshape(-1, *powers)
    return (
        np.pad(V, ((0, missing), (0, 0))),
        np.pad(towards, ((0, missing), (0, 0))).reshape(-1, *powers),
        beside,
    )


def _as_long(arrays):
    """Arrays with zeros at the end of the first axis, all as long as the longest."""
    longest = max(map(len, arrays))
    return [np.pad(array, [(0, longest - len(array))] + [(0, 0)] * (array.ndim - 1)) for array in arrays]


def _rows(data):
    """The rows of the groups that data still have."""
    of = pd.Index(data["place"].values).get_indexer(data["of_specimen"].values)
    rows = data[[*ROWS, "said"]].drop_vars("specimen", errors="ignore").assign(of_specimen=("row", of))
    return rows.isel(row=of >= 0)


def emptied(data):
    """The same groups before their data: no y is known."""
    rows = _rows(data)
    return of_rows(rows.assign(seen=xr.zeros_like(rows["seen"])), data["specimen"].values)


def without_group(data, group, j):
    """The data without one group; a group that is alone is there, and nothing seen of it."""
    return emptied(data) if data.sizes[group] == 1 else data.isel({group: np.arange(data.sizes[group]) != j})


def without_row(data, i):
    """The data without one row; a group that had no other is gone."""
    rows = data[[*ROWS, "said"]].drop_vars("specimen", errors="ignore").isel(row=np.arange(data.sizes["row"]) != i)
    left, of = np.unique(rows["of_specimen"].values, return_inverse=True)
    return of_rows(rows.assign(of_specimen=("row", of)), data["specimen"].values[left])


def without_each(data, rows):
    """The group of each of some rows without it, side by side in the place of the groups: what their integral asks."""
    bare, every = data[[*ROWS, "said"]].drop_vars("specimen", errors="ignore"), np.arange(data.sizes["row"])
    alone = bare.assign(of_specimen=xr.zeros_like(bare["of_specimen"]))
    theirs = [bare["seen"] * (bare["of_specimen"] == bare["of_specimen"][i]) * (every != i) for i in rows]
    each = [of_rows(alone.assign(seen=seen), np.zeros(1))[[*INTEGRATED]] for seen in theirs]
    return xr.concat(each, dim="specimen", data_vars="minimal", compat="override", coords="minimal").drop_vars(
        "specimen"
    )


def with_readings(data, deflection):
    """The same rows with other readings, of the same beams."""
    found = of_rows(_rows(data).assign(deflection=("row", deflection)), data["specimen"].values)
    return found.assign({name: values for name, values in data.data_vars.items() if name not in found})


def joined(*parts):
    """The rows of several data sets; groups are known by their labels."""
    each = [(_rows(part), part["specimen"].values.astype(str)) for part in parts]
    every = pd.Index(pd.unique(np.concatenate([labels for _, labels in each])))
    of = [every.get_indexer(labels)[rows["of_specimen"].values] for rows, labels in each]
    rows = xr.concat([rows for rows, _ in each], dim="row").assign(of_specimen=("row", np.concatenate(of)))
    return of_rows(rows.assign_attrs(parts[0].attrs), every.to_numpy(str))
