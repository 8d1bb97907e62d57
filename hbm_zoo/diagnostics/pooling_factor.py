"""How much is pooled, and explained, at each level (Gelman & Pardoe 2006)."""

from __future__ import annotations

import numpy as np
import pandas as pd
import xarray as xr

from hbm_zoo.group_level.level import Level
from hbm_zoo.inference.fits import hyperparameters, model_of, prepared, thinned
from hbm_zoo.model import HierarchicalModel
from hbm_zoo.words import plural

MOST_CELLS = 4_000_000


def pooling_factor(fit: xr.DataTree, model: HierarchicalModel | None = None) -> pd.DataFrame:
    """Pooling factor and explained variance of each level, from draws.

    Parameters
    ----------
    fit : xarray.DataTree
        As `fit` returns it.
    model : HierarchicalModel, optional
        The record of a model that is not in the zoo.

    Returns
    -------
    pandas.DataFrame
        One row a level (and coefficient, if the estimand has several). Level ``data``: the
        groups' own estimates, errors own_k - theta_k; the level of the groups: theta_k, errors
        theta_k - E[theta_k | h], what the levels above make of them included; each further level: its
        units in the same way. Columns ``pooling_factor``, between 0 (units go their own
        way) and about 1 (all as their population says), and ``r2``.

    Raises
    ------
    ValueError
        If the model does not say what is known of a group, or is not the fit's, or there is one group.

    Notes
    -----
    Of a level theta_k = prediction_k + eps_k, with V the variance over k = 1..K (divisor
    K - 1) and E the mean over draws (Gelman & Pardoe 2006, Technometrics 48:241-251, p. 244)::

        lambda = 1 - V(E[eps_k]) / E[V(eps_k)],    R^2 = 1 - E[V(eps_k)] / E[V(theta_k)].

    Complete pooling leaves no errors among groups: its factor is the limit 1, its R^2 the limit
    0. Where nothing but a common mean predicts a group R^2 of the groups is 0 up to
    rounding. This is not kappa, which is of one group, given hyperparameters. Where a fit
    left its draws out, they are made anew from the closed form, thinned to a budget.

    Examples
    --------
    >>> import hbm_zoo as hz
    >>> alone = hz.fit("hospital_readmission", hz.load_data("pumps"), pooling="none", random_seed=1)
    >>> list(pooling_factor(alone).index)
    ['data', 'hospital']
    """
    record = model_of(fit, model)
    if fit["constant_data"].sizes[record.group] < 2:
        raise ValueError(f"One {record.group} has no variance among {plural(record.group)}: nothing is pooled.")
    theta, errors = _draws(record, fit)
    own = fit["group_summary"].to_dataset()["own"]
    tables = {
        "data": _factors(own, own - theta, record.group),
        record.group: _factors(theta, errors, record.group),
        **{level.dim: _factors(*_draws_of(level, record, fit), level.dim) for level in record.group_level.further},
    }
    table = xr.concat(list(tables.values()), pd.Index(tables, name="level"))
    return table.to_dataframe()[["pooling_factor", "r2"]]


def _draws(record: HierarchicalModel, fit: xr.DataTree) -> tuple[xr.DataArray, xr.DataArray]:
    """Draws [sample, group] of each group's parameter, and of its error around what is expected of it."""
    level = record.ask("pooling_factor", "population", "conditional")
    h, data, posterior = hyperparameters(fit), prepared(fit), fit["posterior"].dataset
    if level.deviations is not None:
        h, rng = _few(record, h, data), np.random.default_rng(int(fit.attrs["seed"]))
        return level.conditional(h, data).sample(rng), level.deviations(h, data).sample(rng)
    expected = level.of_groups(h, data).mean
    if record.estimand in posterior:
        theta = posterior[record.estimand].stack(sample=("chain", "draw")).reset_index("sample", drop=True)
        theta = theta.drop_vars(["chain", "draw"], errors="ignore")
        return theta, theta - (expected.mean("sample") if h.sizes["sample"] == 1 else expected)
    h, rng = _few(record, h, data), np.random.default_rng(int(fit.attrs["seed"]))
    theta = level.reported(level.conditional(h, data).sample(rng), data)
    return theta, theta - level.of_groups(h, data).mean


def _draws_of(level: Level, record: HierarchicalModel, fit: xr.DataTree) -> tuple[xr.DataArray, xr.DataArray]:
    """Draws [sample, unit] of the units of a level above the groups, and their errors."""
    data, rng = prepared(fit), np.random.default_rng(int(fit.attrs["seed"]))
    h = _few(record, hyperparameters(fit), data)
    units = level.conditional(h, data).sample(rng)
    return units, units - level.population(h, data).mean


def _few(record: HierarchicalModel, h: xr.Dataset, data: xr.Dataset) -> xr.Dataset:
    """Hyperparameters [sample] within the budget; those known exactly as often as it allows."""
    most = max(50, MOST_CELLS // data.sizes[record.group])
    return h.isel(sample=np.zeros(most, int)) if h.sizes["sample"] == 1 else thinned(h, most)


def _factors(outcome: xr.DataArray, errors: xr.DataArray, group: str) -> xr.Dataset:
    """Lambda and R^2 of one level from draws of its errors, units without an outcome left aside."""
    within = errors.var(group, ddof=1).mean("sample")
    between = errors.mean("sample").var(group, ddof=1)
    total = outcome.var(group, ddof=1)
    total = total.mean("sample") if "sample" in total.dims else total
    rounding = 1e-24 * (outcome**2).mean([dim for dim in (group, "sample") if dim in outcome.dims])
    return xr.Dataset(
        {
            "pooling_factor": xr.where(within > rounding, 1 - between / within, 1.0),
            "r2": xr.where(total > rounding, 1 - within / total, 0.0),
        }
    )
