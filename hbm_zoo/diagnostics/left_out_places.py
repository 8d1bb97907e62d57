"""Where each group lies in what the others expect of it, and each row in what all other rows do."""

from __future__ import annotations

from typing import Any

import numpy as np
import xarray as xr

from hbm_zoo.diagnostics.cross_validation import MOST_ROWS, lean
from hbm_zoo.inference.chunks import each_group, in_portions
from hbm_zoo.inference.fits import efficiency, hyperparameters, prepared, proposals
from hbm_zoo.inference.loo import k_hat_threshold, without_each
from hbm_zoo.inference.sampling import refit
from hbm_zoo.inference.summary import CELLS_LEFT_OUT, affordable
from hbm_zoo.model import HierarchicalModel
from hbm_zoo.workers.run import seed_of

#: Groups that are left out exactly at most, where weights are in doubt.
MOST_REFITS = 20
LOWER, UPPER = "lower", "upper"


def tails_left_out(record: HierarchicalModel, fit: xr.DataTree) -> xr.Dataset:
    """Probabilities ``lower`` and ``upper`` [group, ...] of no more, and of no less, than the own estimate of a group.

    Each with its Monte Carlo error, ``lower_mcse`` and ``upper_mcse``.

    Given the data of the other groups (PSIS; Gelfand, Dey & Chang 1992, Bayesian Statistics 4), its parameter and the
    hyperparameters integrated out: each uniform if the model is right, over truths and data, but not independent of one
    another. Where weights are in doubt the group is left out by a refit, of twenty at most; those that are left are
    too near to the middle, if anything.

    Raises
    ------
    ValueError
        If the model does not say how probable less than a group's own estimate is, or no group can be left out.
    """
    level, data = record.ask("check_model", "tails", "log_left_out"), prepared(fit)
    if "circular" in data.attrs:
        raise ValueError(data.attrs["circular"])
    h, reff = _draws(fit, data.sizes[record.group] * level.cells(data))

    def of_chunk(part: xr.Dataset) -> xr.Dataset:
        return _averaged(level.tails(h, part), level.log_left_out(h, part), h, reff)

    found = each_group(record, data, h.sizes["sample"], of_chunk)
    k_hat = found["k_hat"].values
    doubtful = np.flatnonzero(~(k_hat <= k_hat_threshold(h.sizes["sample"])))
    doubtful = doubtful[np.argsort(-k_hat[doubtful], kind="stable")]
    exactly = {int(j): _by_refit(record, fit, data, int(j)) for j in doubtful[:MOST_REFITS]}
    return _replaced(found.drop_vars("k_hat"), exactly, record.group)


def tails_of_rows(record: HierarchicalModel, fit: xr.DataTree, seed: int = 0) -> xr.Dataset:
    """Probabilities ``lower`` and ``upper`` [row] of no more, and of no less, than each row, given all other rows.

    By PSIS, the parameter of its group and the hyperparameters integrated out; of very many rows some at random.

    Raises
    ------
    ValueError
        If the model does not say how probable less than a row is, given the others of its group.
    """
    level, data = record.ask("plot_calibration", "row_tails", "leave_row_out"), prepared(fit)
    of_row = level.cells(data) if level.cells_of_row is None else level.cells_of_row(data)
    one = level.leave_row_out(hyperparameters(fit).isel(sample=[0]), data, np.arange(1))
    (row,) = set(one.dims) - {"sample"}
    rows = np.arange(data.sizes[row])
    if rows.size > MOST_ROWS:
        rows = np.sort(np.random.default_rng(seed).choice(rows, MOST_ROWS, replace=False))
    h, reff = _draws(fit, rows.size * of_row)
    parts = [
        _averaged(level.row_tails(h, data, some), level.leave_row_out(h, data, some), h, reff)
        for some in in_portions(rows, h.sizes["sample"], of_row)
    ]
    return xr.concat(parts, dim=row).drop_vars("k_hat")


def _draws(fit: xr.DataTree, cells: int) -> tuple[xr.Dataset, float]:
    """Hyperparameters to be weighted, proposals where there are any, as many as so many cells allow; their worth."""
    proposed = proposals(fit)
    h, reff = (hyperparameters(fit), efficiency(fit)) if proposed is None else (proposed, 1.0)
    return affordable(h, cells, CELLS_LEFT_OUT), reff


def _averaged(tails: tuple, log_left_out: xr.DataArray, h: xr.Dataset, reff: float) -> xr.Dataset:
    """Tails [unit, ...] over the draws that the other units leave, and k-hat [unit] of their weights."""
    log_left_out = log_left_out.transpose(..., "sample")
    given = h["log_ratio"].values if "log_ratio" in h else np.zeros(h.sizes["sample"])
    log_weights, k_hat = without_each(log_left_out.values, given, reff)
    weights = log_left_out.copy(data=np.exp(log_weights))
    each = _named(tails)
    found = (each * weights).sum("sample", skipna=False)
    error: Any = np.sqrt((weights**2 * (each - found) ** 2).sum("sample", skipna=False) / reff)
    found = found.assign(k_hat=weights.isel(sample=0, drop=True).copy(data=k_hat))
    return found.assign({f"{name}_mcse": value for name, value in error.items()})


def _by_refit(record: HierarchicalModel, fit: xr.DataTree, data: xr.Dataset, j: int) -> xr.Dataset:
    """The tails of one group by a fit of the others."""
    level = record.group_level
    others = level.without_group(data, record.group, j)
    again = refit(lean(fit), others, seed_of(int(fit.attrs["seed"]), f"without {j}"), record)
    h = hyperparameters(again)
    one, which = (data.isel({record.group: [j]}), 0) if level.independent else (data, j)
    each = _named(level.tails(h, one)).isel({record.group: [which]})
    error = each.std("sample", skipna=False) / np.sqrt(efficiency(again) * h.sizes["sample"])
    return each.mean("sample", skipna=False).assign({f"{name}_mcse": value for name, value in error.items()})


def _named(tails: tuple[xr.DataArray, xr.DataArray]) -> xr.Dataset:
    return xr.Dataset(dict(zip((LOWER, UPPER), tails, strict=True))).clip(0, 1)


def _replaced(found: xr.Dataset, exactly: dict[int, xr.Dataset], group: str) -> xr.Dataset:
    found = found.transpose(group, ...).copy(deep=True)
    for j, tails in exactly.items():
        for name in tails:
            found[name].values[j] = tails[name].transpose(group, ...).values[0]
    return found


def two_sided(tails: xr.Dataset) -> xr.DataArray:
    """P value of each group, twice the smaller tail, what was seen included: of counts it is too large, if anything."""
    return (2 * xr.where(tails[LOWER] < tails[UPPER], tails[LOWER], tails[UPPER])).clip(max=1)


def error_of_two_sided(tails: xr.Dataset) -> xr.DataArray:
    """Monte Carlo error of `two_sided`, twice that of the smaller tail; undefined where that is."""
    error = 2 * xr.where(tails[LOWER] < tails[UPPER], tails[f"{LOWER}_mcse"], tails[f"{UPPER}_mcse"])
    return error.fillna(np.inf).where(two_sided(tails).notnull())


def places(tails: xr.Dataset, seed: int = 0) -> xr.DataArray:
    """The place of each group in (0, 1), uniform if the model is right; of counts at random between its two ends.

    Czado, Gneiting & Held (2009), Biometrics 65:1254-1261.
    """
    u = np.random.default_rng(seed).random(tails[LOWER].shape)
    low, high = 1 - tails[UPPER], tails[LOWER]
    return low + u * (high - low)
