"""Rows left out of groups whose likelihood is tabulated: their density given all other rows, and the data without one.

With L without row i, and W the weights of nodes after the data of all rows,

    log p(y_i | all others, h) = -log sum_k W_k (L without i / L)_k

Where that ratio is too steep to be linear between nodes, as of a row far from the others, the likelihood without it is
tabulated anew, on nodes of its own.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from itertools import groupby
from operator import itemgetter

import numpy as np
import xarray as xr

from hbm_zoo.group_level.kept import last_kept
from hbm_zoo.group_level.tabulated import placed
from hbm_zoo.group_level.tilted import Tilted

STEEP = 0.2  # Nats from node to node.
FINER = 4


@dataclass(frozen=True, kw_only=True)
class Rows:
    """The rows of groups on a table.

    Attributes
    ----------
    group, dim
        The dim of the groups, and that of the rows that are scored.
    population
        ``population(h)``: the normal population of the groups' parameter.
    place
        ``place(data, i)``: the group of scored row i, and which of its rows it is, by position.
    without
        ``without(data, j, point, rows)``: log likelihood of group j at points of its parameter, without each of some of
        its rows [row, point; nats].
    """

    group: str
    dim: str
    population: Callable
    place: Callable
    without: Callable

    def leave_row_out(self, h: xr.Dataset, data: xr.Dataset, rows: np.ndarray) -> xr.DataArray:
        """Log density of scored rows given all others [..., row] [nats]."""
        found = []
        for j, together in groupby((self.place(data, int(i)) for i in rows), key=itemgetter(0)):
            every, W, gained = self._of_group(h, data, j)
            positions = [position for _, position in together]
            some = gained[positions]
            left_out = -np.log(xr.dot(W, xr.DataArray(np.exp(some), dims=(self.dim, "node")), dim="node"))
            held = W.mean([dim for dim in W.dims if dim != "node"]).values > 0
            steep = (abs(np.diff(some, axis=1)) * (held[1:] & held[:-1])).max(axis=1) > STEEP
            for i in np.flatnonzero(steep):
                others = self._anew(data, j, positions[i])
                left_out[{self.dim: i}] = every.log_mass - replace(every, **others).log_mass
            found.append(left_out)
        return xr.concat(found, dim=self.dim)

    @last_kept
    def _of_group(self, h: xr.Dataset, data: xr.Dataset, j: int):
        """What is known of a group, the weights of its nodes, and what it gains without each row."""
        one, before = data[["point", "log_likelihood"]].isel({self.group: j}, drop=True), self.population(h)
        every = Tilted(before.mean, before.sd, one.point, one.log_likelihood)
        return every, every.weights(), self._gained(data, j)

    def _gained(self, data: xr.Dataset, j: int) -> np.ndarray:
        """What the log likelihood of a group gains at its nodes without each of its rows [row, node]."""
        point, log_likelihood = (data[name].values[j] for name in ("point", "log_likelihood"))
        return self.without(data, j, point, slice(None)) - log_likelihood

    def _anew(self, data: xr.Dataset, j: int, position: int) -> dict[str, xr.DataArray]:
        """The table of a group without one row."""
        point, rows = data["point"].values[j], [position]
        (log_likelihood,) = self.without(data, j, point, rows)
        fine = np.interp(np.linspace(0, point.size - 1, FINER * point.size), np.arange(point.size), point)
        node = placed(fine, np.interp(fine, point, log_likelihood), point.size)
        (log_likelihood,) = self.without(data, j, node, rows)
        return {
            name: xr.DataArray(v, dims="node") for name, v in {"node": node, "log_likelihood": log_likelihood}.items()
        }

    def without_row(self, data: xr.Dataset, i: int) -> xr.Dataset:
        """The data without one scored row: the table of its group."""
        j, position = self.place(data, i)
        point, log_likelihood = data.point.copy(), data.log_likelihood.copy()
        others = self._anew(data, j, position)
        point[j], log_likelihood[j] = others["node"].values, others["log_likelihood"].values
        return data.assign(point=point, log_likelihood=log_likelihood)
