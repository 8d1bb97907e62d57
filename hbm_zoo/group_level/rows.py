"""Rows of a group that their count, mean and centred squares stand for: rows added, and one left out.

With m the density of a group's rows, everything of the group alone integrated out,

    p(y_i | the other rows, h) = m(all rows) / m(the others),   m(no rows) = 1.
"""

from collections.abc import Callable

import numpy as np
import xarray as xr


def joined(one: xr.Dataset, other: xr.Dataset) -> xr.Dataset:
    """Count ``n``, mean ``y_bar`` and squares ``SS`` of two sets of rows together (Chan, Golub & LeVeque 1983).

    Examples
    --------
    >>> one, other = (xr.Dataset({"n": n, "y_bar": y, "SS": 0.0}) for n, y in ((1, 0.0), (1, 2.0)))
    >>> [joined(one, other)[name].item() for name in ("n", "y_bar", "SS")]
    [2, 1.0, 2.0]
    """
    n = one.n + other.n
    apart, share = other.y_bar - one.y_bar, other.n / np.maximum(n, 1)
    SS = one.SS + other.SS + one.n * share * apart**2
    return xr.Dataset({"n": n, "y_bar": one.y_bar + share * apart, "SS": SS})


def without(y: xr.DataArray, of_all: xr.Dataset) -> xr.Dataset:
    """The same of the rows of a group but one, y; of no rows n = 0, with its mean left as it was."""
    n, away = of_all.n, y - of_all.y_bar
    others = np.maximum(n - 1, 1)
    SS = np.maximum(of_all.SS - away**2 * n / others, 0.0)
    return xr.Dataset({"n": n - 1, "y_bar": of_all.y_bar - away / others, "SS": xr.where(n > 2, SS, 0.0)})


def leave_row_out(log_marginal: Callable, group: str, of_row: str, response: str) -> Callable:
    """The function ``leave_row_out(h, data, rows)`` of `GroupLevel`, from ``log_marginal(h, data)`` of statistics.

    Parameters
    ----------
    log_marginal
        Log density [..., group] of a group's rows, at placed hyperparameters [nats].
    group, of_row, response
        The names of the groups' dim, of the group of each row by position, and of the response [row].
    """

    def left_out(h: xr.Dataset, data: xr.Dataset, rows: np.ndarray) -> xr.DataArray:
        of = data[of_row][rows]
        of_all = data[["n", "y_bar", "SS"]].isel({group: of}).drop_vars(group, errors="ignore")
        placed = h.isel({group: of}, missing_dims="ignore").drop_vars(group, errors="ignore")
        others = without(data[response][rows], of_all)
        several = others.n > 0
        of_others = log_marginal(placed, others.assign(n=np.maximum(others.n, 1)))
        return log_marginal(placed, of_all) - xr.where(several, of_others, 0.0)

    return left_out
