"""Every group given the hyperparameters, averaged over their draws, chunk by chunk.

Means, standard deviations and probabilities of a group's parameter are averages of
closed forms over draws of the hyperparameters (Rao-Blackwell): next to no Monte
Carlo error, and no array of draws x groups.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import numpy as np
import xarray as xr
from arviz_base import rcParams
from scipy.stats import rankdata

from hbm_zoo.group_level.averages import exceedance, quantiles
from hbm_zoo.inference.chunks import CELLS_AT_ONCE, each_group
from hbm_zoo.inference.fits import thinned
from hbm_zoo.inference.loo import leave_one_out
from hbm_zoo.model import HierarchicalModel

#: Cells, draws x groups x nodes, that are summarised, and that leaving out takes, which needs less of each.
CELLS_IN_ALL, CELLS_LEFT_OUT = 2_000_000, 8_000_000
LEAST_DRAWS = 200
LEAVING_OUT = ("elpd", "lppd", "k_hat", "elpd_mcse")


def interval_name() -> str:
    """Name of the equal-tailed interval that ``az.rcParams`` asks for, e.g. ``eti89``."""
    return f"eti{round(100 * rcParams['stats.ci_prob'])}"


def interval_tails() -> tuple[float, float]:
    """Lower and upper tail of that interval."""
    tail = (1 - rcParams["stats.ci_prob"]) / 2
    return tail, 1 - tail


def group_summary(
    model: HierarchicalModel,
    pooling: str,
    h: xr.Dataset,
    data: xr.Dataset,
    reff: float,
    proposals: xr.Dataset | None = None,
) -> xr.Dataset:
    """Summarise each group under one pooling.

    Parameters
    ----------
    model : HierarchicalModel
        A record whose groups are known given the hyperparameters.
    pooling : str
        Which pooling the hyperparameters come from.
    h : xarray.Dataset
        Hyperparameters [sample].
    data : xarray.Dataset
        Prepared data.
    reff : float
        Relative efficiency of the draws.
    proposals : xarray.Dataset, optional
        Weighted hyperparameters [sample], as of `fits.proposals`; leaving out is done with them, if there are any.

    Returns
    -------
    xarray.Dataset
        By group: ``mean, sd``, the interval, ``p_above`` the reference value, ``own``,
        ``volume``, ``kappa`` with interval, ``elpd, lppd, k_hat, elpd_mcse`` of leaving the
        group out [nats], ``mean_log_likelihood`` (conditional, averaged over the
        posterior), and ``fixed_log_likelihood`` (at the posterior means). If the data's attrs
        say under ``circular`` why no group can be left out, what that needs is NaN.
    """
    cells = data.sizes[model.group] * model.group_level.cells(data)
    some, few = affordable(h, cells), affordable(h, cells, CELLS_AT_ONCE)  # h itself, if there are no more
    if few.sizes == some.sizes:
        few = some  # what was computed of it is kept
    plug_in = some.mean("sample").expand_dims("sample")
    points = affordable(h if proposals is None else proposals, cells, CELLS_LEFT_OUT)
    known = each_group(model, data, some.sizes["sample"], partial(_summarise, model, some, few, plug_in))
    left_out = each_group(model, data, points.sizes["sample"], partial(_left_out, model, points, reff))
    summary = known.merge(left_out)
    if "circular" in data.attrs:
        summary = summary.assign({name: xr.full_like(summary[name], np.nan) for name in LEAVING_OUT})
    if pooling == "none" and h.sizes["sample"] == 1:
        summary = summary.drop_vars(["k_hat", "elpd_mcse", "lppd"])
    return summary.assign(own=model.own(data), volume=model.volume(data)).drop_vars("sample", errors="ignore")


def affordable(h: xr.Dataset, cells: int, in_all: int = CELLS_IN_ALL) -> xr.Dataset:
    """As many of the hyperparameter draws as so many cells a draw allow, evenly spaced."""
    return thinned(h, most_draws(cells, in_all))


def most_draws(cells: int, in_all: int = CELLS_IN_ALL) -> int:
    """How many draws so many cells a draw allow."""
    return max(LEAST_DRAWS, in_all // cells)


def average(values: xr.DataArray) -> xr.DataArray:
    """The mean over draws; undefined where it is undefined at one of them."""
    return values.mean("sample", skipna=False)


def _left_out(model: HierarchicalModel, points: xr.Dataset, reff: float, data: xr.Dataset) -> xr.Dataset:
    """Leaving out each group of a chunk; weighted points are independent of one another."""
    level, log_ratios = model.group_level, points.get("log_ratio")
    log_left_out = level.log_left_out(points, data).transpose("sample", ...)
    error = level.integration_error(points, data) if level.integration_error else None
    return leave_one_out(log_left_out, reff if log_ratios is None else 1.0, error, log_ratios)


def _summarise(
    model: HierarchicalModel, h: xr.Dataset, few: xr.Dataset, plug_in: xr.Dataset, data: xr.Dataset
) -> xr.Dataset:
    """The same for a chunk of the groups; the ends of intervals, which take many steps, from fewer draws."""
    level = model.group_level
    parameter = level.conditional(h, data)
    posterior = level.of_estimand(parameter, data)
    tails, name = interval_tails(), interval_name()
    mean, spread = xr.broadcast(posterior.mean, posterior.sd)
    kappa = level.reliability(h, data)
    of_kappa = kappa.quantile(tails, "sample", skipna=False).drop_vars("quantile")
    further = level.expectations(h, data) if level.expectations else {}
    log_likelihood = average(level.expected_log_likelihood(h, data))
    at_the_mean = level.log_likelihood(average(parameter.mean), plug_in, data)
    lower, upper = quantiles(posterior if few is h else level.after(few, data), tails)
    return xr.Dataset(
        {
            "mean": average(mean),
            "sd": np.sqrt(average(spread**2) + mean.var("sample", skipna=False)),
            f"{name}_lb": lower,
            f"{name}_ub": upper,
            "kappa": average(kappa),
            f"kappa_{name}_lb": of_kappa.isel(quantile=0),
            f"kappa_{name}_ub": of_kappa.isel(quantile=1),
            "mean_log_likelihood": log_likelihood,
            "fixed_log_likelihood": at_the_mean.isel(sample=0, drop=True, missing_dims="ignore"),
        }
        | {name: average(value) for name, value in further.items()}
        | above_reference(model, lambda reference: exceedance(posterior, reference))
    )


def above_reference(model: HierarchicalModel, probability: Callable) -> dict[str, xr.DataArray]:
    """``p_above``, the probability of being above the reference, for a model that has one."""
    return {} if model.reference is None else {"p_above": probability(model.reference)}


def summary_of_draws(model: HierarchicalModel, draws: xr.DataArray, data: xr.Dataset) -> xr.Dataset:
    """Summarise each group from draws [sample, group] of its parameter, where no closed form is known.

    Returns
    -------
    xarray.Dataset
        By group: ``mean, sd``, the interval, ``p_above`` the reference value, ``own``, ``volume``.
    """
    lower, upper = interval_tails()
    name = interval_name()
    return xr.Dataset(
        {
            "mean": draws.mean("sample"),
            "sd": draws.std("sample"),
            f"{name}_lb": draws.quantile(lower, "sample").drop_vars("quantile"),
            f"{name}_ub": draws.quantile(upper, "sample").drop_vars("quantile"),
            "own": model.own(data),
            "volume": model.volume(data),
        }
        | above_reference(model, lambda reference: (draws > reference).mean("sample"))
    )


def rank_summary(draws: xr.DataArray, group: str, worth: float = 1.0) -> xr.Dataset:
    """Ranks of the groups, 1 for the largest, ties shared, from joint draws [sample, group].

    Returns
    -------
    xarray.Dataset
        ``rank`` (mean) with interval, ``p_best`` (largest) and ``p_top10`` (among the
        largest tenth), each with the Monte Carlo error of its mean under ``*_mcse``, as of
        ``worth`` independent draws for each: those of the hyperparameters are worth so much, and groups given them
        more, so that it is too large rather than too small.
    """
    axis = draws.get_axis_num(group)
    ranks = draws.copy(data=rankdata(-draws.values, axis=axis))
    interval = ranks.quantile(interval_tails(), "sample", skipna=False)
    name = interval_name()
    top = max(1, round(draws.sizes[group] / 10))
    n = worth * draws.sizes["sample"]
    best, top10 = (ranks == 1).mean("sample"), (ranks <= top).mean("sample")
    return xr.Dataset(
        {
            "rank": ranks.mean("sample"),
            "rank_mcse": ranks.std("sample", ddof=1) / np.sqrt(n),
            f"rank_{name}_lb": interval.isel(quantile=0, drop=True),
            f"rank_{name}_ub": interval.isel(quantile=1, drop=True),
            "p_best": best,
            "p_best_mcse": np.sqrt(best * (1 - best) / n),
            "p_top10": top10,
            "p_top10_mcse": np.sqrt(top10 * (1 - top10) / n),
        }
    )
