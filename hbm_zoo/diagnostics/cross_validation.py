"""The three ways of scoring a prediction: leave a group out, leave a row out, halve the data.

Each gives, by unit (group or row), the log density of what was left out [nats], and how well
that is known: by importance sampling where it can be trusted, else exactly.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import xarray as xr
from scipy.special import logsumexp

from hbm_zoo.inference.chunks import in_portions, of_groups
from hbm_zoo.inference.fits import Fits, efficiency, hyperparameters, prepared, priors_of, proposals, thinned
from hbm_zoo.inference.free_parameters import FreeParameters, left_out, log_evidence
from hbm_zoo.inference.loo import bridge, k_hat_threshold, leave_one_out
from hbm_zoo.inference.nodes import apart, with_nodes
from hbm_zoo.inference.sampling import refit
from hbm_zoo.inference.summary import CELLS_LEFT_OUT, LEAST_DRAWS, affordable, most_draws
from hbm_zoo.model import HierarchicalModel
from hbm_zoo.workers.run import run, seed_of

GROUPS_FOR_BRUTE_FORCE = 20
CELLS_OF_A_REFIT = 100
GROUPS_FOR_BRUTE_FORCE_COMPLETE = 200
MOST_ROWS = 20_000
QUADRATURE_ERROR = 0.01
LEAST_OVERLAP = 0.05  # Monte Carlo error of a bridge [nats] beyond which its two ends are too far apart
SPLITS = 20
DRAWS_A_SPLIT = 250
#: Where a likelihood has many nodes: draws of each chain of a refit; cells, draws x rows x nodes, of leaving rows out.
DRAWS_A_REFIT, CELLS_OF_ROWS = 250, 100_000_000
DRAWS_OF_MANY_GROUPS = 100
CELLS_A_SPLIT = 2_000_000
#: What of a fit its refits need.
FOR_REFITS = ("sample_stats", "proposals", "observed_data", "constant_data", "nodes")
ALONE = partial(run, progressbar=False, noun="refit")


@dataclass(frozen=True, kw_only=True)
class Scores:
    """Log densities of what was left out, and what is known of them.

    Attributes
    ----------
    elpd
        By unit [nats].
    mcse
        Its Monte Carlo error by unit [nats]; where data were split, it is in `by_split`.
    by_split
        The same by split and unit, where data were split at random.
    p, max_k_hat, refits
        Effective number of hyperparameters, worst k-hat, units left out exactly.
    scale
        Units in all over units scored.
    """

    elpd: np.ndarray
    mcse: np.ndarray | float = 0.0
    by_split: np.ndarray | None = None
    p: float = np.nan
    max_k_hat: float = np.nan
    refits: float = np.nan
    scale: float = 1.0

    @property
    def total(self) -> float:
        """Sum over units."""
        return self.scale * float(self.elpd.sum())

    @property
    def standard_error(self) -> float:
        """Standard error of the sum over units, the noise of random splits added."""
        variance = self.elpd.size * self.elpd.var(ddof=1) if self.elpd.size > 1 else np.nan
        return self.scale * float(np.sqrt(variance + self._variance_of_splits))

    @property
    def monte_carlo_error(self) -> float:
        """Monte Carlo error of the sum, from draws or, where data were split, from splits."""
        by_unit = np.sum(np.broadcast_to(self.mcse, self.elpd.shape) ** 2)
        return self.scale * float(np.sqrt(by_unit + self._variance_of_splits))

    @property
    def _variance_of_splits(self) -> float:
        return 0.0 if self.by_split is None else self.by_split.sum(axis=1).var(ddof=1) / len(self.by_split)

    @property
    def largest_share(self) -> float:
        """The largest share of one unit in the sum of absolute values."""
        sizes = np.abs(self.elpd)
        return float(sizes.max() / sizes.sum()) if sizes.any() else np.nan

    def minus(self, other: Scores) -> Scores:
        """The differences, unit by unit and split by split."""
        splits = None if self.by_split is None else self.by_split - other.by_split
        return Scores(elpd=self.elpd - other.elpd, by_split=splits, scale=self.scale)


def new_group(record: HierarchicalModel, fit: xr.DataTree, seed: int, by: Callable = ALONE) -> Scores:
    """Elpd of each group left out, by PSIS or, where that is in doubt, exactly: refits are given to ``by``."""
    summary = fit["group_summary"].to_dataset()
    elpd, complete = summary["elpd"].values.copy(), fit.attrs["pooling"] == "complete"
    if "k_hat" not in summary:
        return Scores(elpd=elpd)
    k_hat, mcse = summary["k_hat"].values, summary["elpd_mcse"].values.copy()
    few = elpd.size <= GROUPS_FOR_BRUTE_FORCE_COMPLETE if complete else _refits_cost_little(record, fit)
    draws = fit["posterior"].sizes["chain"] * fit["posterior"].sizes["draw"]
    cells = elpd.size * record.group_level.cells(prepared(fit))
    used = min(draws, most_draws(cells, CELLS_LEFT_OUT))
    doubtful = np.flatnonzero(few | ~(k_hat <= k_hat_threshold(used)))
    refits = doubtful
    if complete:
        elpd[doubtful], mcse[doubtful] = left_out(record, fit, doubtful)
        refits = doubtful[~(mcse[doubtful] <= QUADRATURE_ERROR)]
    elpd[refits], mcse[refits] = refitted(record, fit, refits, seed, by)
    p = float(summary["lppd"].sum() - elpd.sum())
    return Scores(elpd=elpd, mcse=mcse, p=p, max_k_hat=float(k_hat.max()), refits=doubtful.size)


def _refits_cost_little(record: HierarchicalModel, fit: xr.DataTree) -> bool:
    """Whether every group may be left out by a refit: few groups, and a likelihood without many nodes."""
    groups = fit["constant_data"].sizes[record.group]
    return groups <= GROUPS_FOR_BRUTE_FORCE and groups * record.group_level.cells(prepared(fit)) <= CELLS_OF_A_REFIT


def refitted(
    record: HierarchicalModel, fit: xr.DataTree, which: np.ndarray, seed: int, by: Callable = ALONE
) -> tuple[np.ndarray, np.ndarray]:
    """Elpd and its Monte Carlo error of each of some groups, by a fit without it."""
    record.ask("compare_poolings", "log_left_out")
    return _one_by_one(without_group, record, fit, which, seed, by)


def _scored(elpd: np.ndarray | float, mcse: float = 0.0) -> xr.DataTree:
    """The score of a piece, as it can be recorded."""
    return xr.DataTree(xr.Dataset({"elpd": (("unit",)[: np.ndim(elpd)], elpd), "mcse": mcse}))


def without_group(piece: Mapping[str, Any]) -> xr.DataTree:
    """Elpd of one group given the others, and its Monte Carlo error, by a fit of those others."""
    record, fit, j = piece["model"], piece["fit"], piece["left_out"]
    data, level = prepared(fit), record.group_level
    one = data.isel({record.group: [j]})

    def log_density(h: xr.Dataset) -> xr.DataArray:
        if level.independent:
            return level.log_left_out(h, one)
        return level.log_left_out(h, data).isel({record.group: j})

    others = level.without_group(data, record.group, j)
    elpd, mcse = _without(record, fit, others, log_density, piece["seed"])
    return _scored(elpd, np.hypot(mcse, _error_of_nodes(record, fit, one)))


def without_row(piece: Mapping[str, Any]) -> xr.DataTree:
    """Elpd of one row given all others, and its Monte Carlo error, by a fit of those others."""
    record, fit, i = piece["model"], piece["fit"], piece["left_out"]
    data, level = prepared(fit), record.group_level
    others = level.without_row(data, i)
    return _scored(*_without(record, fit, others, lambda h: level.leave_row_out(h, data, np.array([i])), piece["seed"]))


def _one_by_one(task: Callable, record, fit, which: np.ndarray, seed: int, by: Callable) -> tuple:
    """What a task says of each that is left out, those who refit taking turns."""
    if not which.size:
        return np.empty(0), np.empty(0)
    light = lean(fit)
    pieces = {
        str(j): {"model": record, "fit": light, "left_out": int(j), "seed": seed_of(seed, f"without {j}")}
        for j in which
    }
    found = [*by(task, pieces).values()]
    return tuple(np.array([float(each[name]) for each in found]) for name in ("elpd", "mcse"))


def lean(fit: xr.DataTree) -> xr.DataTree:
    """A fit without its arrays of draws x groups, light enough to be sent to many."""
    known = fit["posterior"].dataset
    kept = {"posterior": known[[name for name in json.loads(fit.attrs["hyperparameters"]) if name in known]]}
    kept |= {name: fit[name].dataset for name in FOR_REFITS if name in fit.children}
    light = xr.DataTree.from_dict(kept)
    light.attrs |= fit.attrs
    return light


def _error_of_nodes(record: HierarchicalModel, fit: xr.DataTree, one: xr.Dataset) -> float:
    """Standard error [nats] of the integral of one group, the same for all draws: more of them do not make it less."""
    if record.group_level.integration_error is None:
        return 0.0
    h = thinned(hyperparameters(fit), LEAST_DRAWS)
    return float(record.group_level.integration_error(h, one).mean())


def _without(
    record: HierarchicalModel, fit: xr.DataTree, others: xr.Dataset, log_density: Callable, seed: int
) -> tuple[float, float]:
    """Elpd of what the other data leave out, and its Monte Carlo error, by a fit of those others.

    A bridge between the posteriors with it and without it; where they hardly overlap, one from
    each to a normal.
    """
    few = None if record.group_level.cells(prepared(fit)) <= CELLS_OF_A_REFIT else DRAWS_A_REFIT
    again = refit(fit, others, seed, record, few)
    known, reff, reff_of_all = hyperparameters(again), efficiency(again), efficiency(fit)
    draws = known, thinned(hyperparameters(fit), known.sizes["sample"])
    without, including = (log_density(h).values.ravel() for h in draws)
    elpd, mcse = bridge(without, including, (reff, reff_of_all))
    if not mcse > LEAST_OVERLAP:
        return elpd, mcse
    rng, free = np.random.default_rng(seed), FreeParameters(record, fit)
    (others_alone, error), (all_of_it, error_of_all) = (
        log_evidence(free, h, data, worth, rng)
        for h, data, worth in zip(draws, (others, prepared(fit)), (reff, reff_of_all), strict=True)
    )
    return all_of_it - others_alone, float(np.hypot(error, error_of_all))


def same_group_rows(record: HierarchicalModel, fit: xr.DataTree, seed: int, by: Callable = ALONE) -> Scores:
    """Elpd of each row given the other rows of its group, by PSIS or, where that is in doubt, by refits."""
    data, proposed = prepared(fit), proposals(fit)
    h, reff, log_ratios = (hyperparameters(fit), efficiency(fit), None)
    if proposed is not None:
        h, reff, log_ratios = proposed, 1.0, proposed["log_ratio"]
    level = record.ask("compare_poolings", "leave_row_out")
    leave_row_out, cells = level.leave_row_out, level.cells(data)
    row = next(dim for dim in leave_row_out(h.isel(sample=[0]), data, np.arange(1)).dims if dim != "sample")
    if cells > CELLS_OF_A_REFIT:
        h = affordable(h, data.sizes[row] * cells, CELLS_OF_ROWS)
        log_ratios = h.get("log_ratio")
    chosen, of_row = np.arange(data.sizes[row]), cells if level.cells_of_row is None else level.cells_of_row(data)
    if chosen.size > MOST_ROWS:
        chosen = np.sort(np.random.default_rng(seed).choice(chosen, MOST_ROWS, replace=False))
    portions = in_portions(chosen, h.sizes["sample"], of_row)
    by_portion = [leave_one_out(leave_row_out(h, data, rows), reff, log_ratios=log_ratios) for rows in portions]
    scored = xr.concat(by_portion, dim=row)
    elpd, mcse, k_hat = (scored[name].values.copy() for name in ("elpd", "elpd_mcse", "k_hat"))
    few = elpd.size <= GROUPS_FOR_BRUTE_FORCE and elpd.size * cells <= CELLS_OF_A_REFIT and np.isfinite(k_hat).any()
    doubtful = np.flatnonzero(few | ~(k_hat <= k_hat_threshold(h.sizes["sample"])))
    elpd[doubtful], mcse[doubtful] = _one_by_one(without_row, record, fit, chosen[doubtful], seed, by)
    scale = data.sizes[row] / elpd.size
    return Scores(
        elpd=elpd,
        mcse=mcse,
        p=scale * float(scored["lppd"].sum() - elpd.sum()),
        max_k_hat=float(k_hat.max()) if h.sizes["sample"] > 1 else np.nan,
        refits=doubtful.size,
        scale=scale,
    )


def same_group_halves(
    records: Mapping[str, HierarchicalModel], fits: Fits, seed: int, by: Callable = ALONE
) -> dict[str, Scores]:
    """Elpd of one random half of the data given the other, averaged over splits.

    What is known after the first half is the population that the second half comes from.
    """
    rng = np.random.default_rng(seed)
    data, _ = apart(prepared(next(iter(fits.values()))))
    halves = [next(iter(records.values())).extras.thin(rng, data) for _ in range(SPLITS)]
    seeds = [seed_of(seed, f"half {split}") for split in range(SPLITS)]
    pieces = {
        f"{name} {split}": {"model": records[name], "fit": lean(fit), "halves": halves[split], "seed": seeds[split]}
        for name, fit in fits.items()
        for split in range(SPLITS)
    }
    found = by(of_a_half, pieces)
    by_split = {name: np.array([found[f"{name} {split}"]["elpd"] for split in range(SPLITS)]) for name in fits}
    return {name: Scores(elpd=each.mean(axis=0), by_split=each) for name, each in by_split.items()}


def of_a_half(piece: Mapping[str, Any]) -> xr.DataTree:
    """Elpd of each group's second half, by a fit of the first halves."""
    record, fit, (first, second) = piece["model"], piece["fit"], piece["halves"]
    seen = with_nodes(record, first, priors_of(fit), piece["seed"], hyperparameters(fit))
    h = hyperparameters(refit(fit, seen, piece["seed"], record, draws=DRAWS_A_SPLIT))
    cells = seen.sizes[record.group] * record.group_level.cells(seen)
    few = thinned(h, max(DRAWS_OF_MANY_GROUPS, CELLS_A_SPLIT // cells))
    return _scored(_log_predictive(record, few, seen, second))


def _log_predictive(record: HierarchicalModel, h: xr.Dataset, first: xr.Dataset, second: xr.Dataset) -> np.ndarray:
    """Log density of each group's second half given its first, averaged over draws, chunk by chunk."""
    level = record.group_level
    parts = []
    for seen in of_groups(record, first, h.sizes["sample"]):
        unseen = second.sel({record.group: seen[record.group].values}) if level.independent else second
        log_density = level.log_predictive(h, unseen, seen).transpose("sample", ...).values
        parts.append(logsumexp(log_density, axis=0) - np.log(len(log_density)))
    return np.concatenate(parts)
