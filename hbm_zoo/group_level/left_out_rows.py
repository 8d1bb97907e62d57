"""Rows left out of groups whose likelihood is tabulated: their density given all other rows, and the data without one.

With H the weights of the nodes against the population, and L without row i in units of the table,

    log p(y_i | all others, h) = log sum_k H_k L_k - log sum_k H_k L_k without i
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import groupby
from operator import itemgetter

import numpy as np
import xarray as xr

from hbm_zoo.group_level.tabulated import weights, with_top


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
        ``without(data, j)``: log of group j's likelihood without each of its rows [row, node], in units of its table.
    """

    group: str
    dim: str
    population: Callable
    place: Callable
    without: Callable
    _last: list = field(default_factory=list, init=False, repr=False, compare=False)

    def leave_row_out(self, h: xr.Dataset, data: xr.Dataset, rows: np.ndarray) -> xr.DataArray:
        """Log density of scored rows given all others [..., row] [nats]."""
        found = []
        for j, together in groupby((self.place(data, int(i)) for i in rows), key=itemgetter(0)):
            H, whole, table = self._of_group(h, data, j)
            without = xr.DataArray(table[[position for _, position in together]], dims=(self.dim, "node"))
            found.append(whole - np.log(xr.dot(H, without, dim="node")))
        return xr.concat(found, dim=self.dim)

    def _of_group(self, h: xr.Dataset, data: xr.Dataset, j: int):
        """Weights of a group's nodes, its log integral, its table without each row; the last are kept."""
        asked = h, data, j
        if not (self._last and all(one is other for one, other in zip(asked, self._last[0], strict=True))):
            one, before = data[["point", "likelihood"]].isel({self.group: j}, drop=True), self.population(h)
            H = weights(before.mean, before.sd, one.point)
            whole = np.log(xr.dot(H, one.likelihood, dim="node"))
            self._last[:] = [asked, (H, whole, np.exp(self.without(data, j)))]
        return self._last[1]

    def without_row(self, data: xr.Dataset, i: int) -> xr.Dataset:
        """The data without one scored row: the table of its group."""
        j, position = self.place(data, i)
        with np.errstate(divide="ignore"):
            log_likelihood = np.log(data.likelihood) + data.log_top
        log_likelihood[j] = self.without(data, j)[position] + data.log_top.values[j]
        return data.assign(with_top(data.assign(log_likelihood=log_likelihood))[["likelihood", "log_top"]])
