"""Rows of groups whose simulator is wrong, and what the formulas of `discrepancy` need of them."""

from __future__ import annotations

import numpy as np
import pandas as pd
import xarray as xr

#: What a row is of.
ROWS = ("deflection", "f", "w", "position", "load", "seen", "of_specimen")


def of_rows(rows: xr.Dataset, labels: np.ndarray) -> xr.Dataset:
    """What rows say: their points, and of each group what the formulas need.

    Parameters
    ----------
    rows : xarray.Dataset
        ``deflection``, which is y, ``f``, ``w``, the ``position`` and the ``load`` that the discrepancy depends on,
        ``seen``, 1 where y is known and 0 where it is not, and ``of_specimen``, the position of a row's group [row];
        attrs ``reach``, the distance over which loads are alike, infinite where all are.
    labels : numpy.ndarray
        Of the groups.

    Returns
    -------
    xarray.Dataset
        The rows and, by group, ``n`` rows, ``b_hat`` the group's own estimate, ``q`` [specimen, term] of its residuals
        and ``rest``, the squares that no discrepancy explains, ``ff``, the squares of f, and its ``place`` among the
        groups of the rows; ``T`` [design, term, also] and ``of_design``, which of these a group has; ``apart``, the
        squared distance of points, and ``alike``, the correlation of their loads [point, near].
    """
    y, f, w, at, under, seen, of = (rows[name].values for name in ROWS)
    places = pd.MultiIndex.from_arrays([at, under if np.isfinite(rows.attrs["reach"]) else np.zeros_like(under)])
    point, points = places.factorize(sort=True)
    x, P = (points.get_level_values(k).to_numpy(float) for k in (0, 1))
    X = np.zeros((y.size, 1 + x.size))
    X[:, 0], X[np.arange(y.size), 1 + point] = f, w
    X *= seen[:, None]
    each = [_of_group(X[of == j], y[of == j], seen[of == j]) for j in range(labels.size)]
    n, b_hat, rest, q, Ts = (np.stack(parts) for parts in zip(*each, strict=True))
    of_design, designs = pd.factorize(pd.Series([T.tobytes() for T in Ts]))
    T = Ts[[int(np.argmax(of_design == k)) for k in range(len(designs))]]
    apart, loads = ((values[:, None] - values) ** 2 for values in (x, P))
    return xr.Dataset(
        {name: ("row", rows[name].values) for name in ROWS}
        | {"point_index": ("row", point.astype(np.int64))}
        | {"place": ("specimen", np.arange(labels.size))}
        | {"n": ("specimen", n), "b_hat": ("specimen", b_hat), "rest": ("specimen", rest)}
        | {"q": (("specimen", "term"), q), "T": (("design", "term", "also"), T)}
        | {"ff": ("specimen", (T[of_design][:, :, 0] ** 2).sum(axis=1))}
        | {"of_design": ("specimen", of_design.astype(np.int64))}
        | {"apart": (("point", "near"), apart)}
        | {"alike": (("point", "near"), np.exp(-loads / (2 * rows.attrs["reach"] ** 2)))},
        coords={"specimen": labels},
        attrs=rows.attrs,
    )


def _of_group(X, y, seen):
    """Count, own estimate, what of its residuals no column of X explains and q of them, and T: rows in any order."""
    order = np.lexsort((y, *X.T))
    X, y = X[order], y[order] * seen[order]
    ff = X[:, 0] @ X[:, 0]
    b_hat = X[:, 0] @ y / ff if ff > 0 else 0.0
    r, (O, T) = y - b_hat * X[:, 0], np.linalg.qr(X)
    q, missing = O.T @ r, X.shape[1] - len(T)
    rest = r - O @ q
    return seen.sum(), b_hat, rest @ rest, np.pad(q, (0, missing)), np.pad(T, ((0, missing), (0, 0)))


def without_row(data, i):
    """The data without one row; a group that had no other is gone."""
    rows = data[list(ROWS)].isel(row=np.arange(data.sizes["row"]) != i)
    left, of = np.unique(rows["of_specimen"].values, return_inverse=True)
    return of_rows(rows.assign(of_specimen=("row", of)), data["specimen"].values[left])


def without_group(data, group, j):
    """The data without one group, and without its rows; a group that is alone is there, and nothing seen of it."""
    if data.sizes[group] == 1:
        return emptied(data)
    others = data.isel({group: np.arange(data.sizes[group]) != j})
    return of_rows(_rows(others), others["specimen"].values)


def emptied(data):
    """The same groups before their data: no y is known."""
    rows = _rows(data)
    return of_rows(rows.assign(seen=xr.zeros_like(rows["seen"])), data["specimen"].values)


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


def _rows(data):
    """The rows of the groups that data still have: some may have been left out, and their rows have not."""
    of = pd.Index(data["place"].values).get_indexer(data["of_specimen"].values)
    rows = data[list(ROWS)].drop_vars("specimen", errors="ignore").assign(of_specimen=("row", of))
    return rows.isel(row=of >= 0)
