"""Which pooling predicts better? Two questions, never mixed.

``new_group``
    A group we have not seen: leave one group out, its own parameter averaged over the
    population. No pooling has only its prior to say: shown, named, unranked.
``new_observation``
    The same group, again: the fair contest of all three. With several rows a group each
    row is left out in turn, given the group's other rows; with one row a group the data
    are split at random into two independent halves, one fitted, the other scored.
"""

from __future__ import annotations

import json

import numpy as np
import pandas as pd
import xarray as xr
from scipy.special import logsumexp

from hbm_zoo.diagnostics.shared_parameters import left_out
from hbm_zoo.fits import (
    Fits,
    check_together,
    hyperparameters,
    model_of,
    prepared,
    priors_of,
    thinned,
    with_article,
    word,
)
from hbm_zoo.loo import bridge, k_hat_threshold, leave_one_out, relative_efficiency
from hbm_zoo.model import POOLINGS, HierarchicalModel, choose
from hbm_zoo.priors import describe
from hbm_zoo.sampling import refit
from hbm_zoo.summary import CELLS_IN_ALL, DRAWS_FOR_INTERVALS, in_chunks

GROUPS_FOR_BRUTE_FORCE = 20
GROUPS_FOR_BRUTE_FORCE_COMPLETE = 200
GROUPS_FOR_SIGNIFICANCE = 10
MOST_ROWS = 20_000
QUADRATURE_ERROR = 0.01
SPLITS = 20
DRAWS_A_SPLIT = 250
DRAWS_OF_MANY_GROUPS = 100
CELLS_A_SPLIT = 2_000_000

QUESTIONS = {
    "new_group": "{a_group} not seen before: leave one {group} out",
    "new_observation": "the same {group}, again: {method}",
}


def compare_poolings(
    fits: Fits,
    question: str = "new_group",
    random_seed: int = 0,
    model: HierarchicalModel | None = None,
) -> pd.DataFrame:
    """Compare how well each pooling predicts.

    Parameters
    ----------
    fits : dict of str to xarray.DataTree
        As `fit_poolings` returns them.
    question : {"new_group", "new_observation"}
        A group not seen before, or the same group again. The two are never mixed.
    random_seed : int
        Seed of refits and of random halves.
    model : HierarchicalModel, optional
        The record of a model that is not in the zoo.

    Returns
    -------
    pandas.DataFrame
        One row a pooling, the best first. ``elpd`` [nats] with its standard error ``se``
        over groups (rows); ``elpd_diff`` and ``dse`` to the best; ``mcse`` of the Monte Carlo;
        ``p`` = lppd - elpd, the effective number of hyperparameters; ``max_k_hat``; ``refits``,
        the groups or rows left out exactly; ``dic`` and ``p_d`` [deviance scale, lower is better;
        group level in focus, plug-in the posterior mean]; ``sum_kappa``; ``parameters``, the raw
        count; ``note``.
        ``attrs["question"]`` says what is predicted.

    Raises
    ------
    ValueError
        If fits do not belong together, the question is unknown or the model cannot answer it.

    Notes
    -----
    A new group: elpd_j = -log mean_s 1/m_j(h_s) by PSIS on the hyperparameters (Vehtari, Gelman &
    Gabry 2017); exactly where k-hat is too large, and for all groups when they are at most 20
    or, under complete pooling, at most 200: by a refit without the group or, under complete
    pooling, by quadrature over what all groups share, if more nodes do not change it. A row of
    the same group: by PSIS, and where k-hat is too large, or rows are at most 20, by a refit
    without the row. The standard error of a difference says little with fewer than 10 groups
    (Sivula, Magnusson & Vehtari 2020, arXiv:2008.10296): it is left out.

    Examples
    --------
    >>> import hbm_zoo as hz
    >>> frame = hz.load_data("three_hospitals")
    >>> alone = hz.fit("hospital_readmission", frame, pooling="none", random_seed=1)
    >>> hz.compare_poolings({"none": alone})["note"].item()
    'only its prior Gamma(alpha=0.6377, beta=0.5628) speaks: unranked'
    """
    choose(question, QUESTIONS, "question")
    fits = {name: fit for name, fit in check_together(fits).items() if fit.attrs["pooling"] in POOLINGS}
    record = model_of(next(iter(fits.values())), model)
    closed = record.closed("compare_poolings")
    circular = prepared(next(iter(fits.values()))).attrs.get("circular")
    if question == "new_group":
        if circular:
            raise ValueError(circular)
        scores = {name: _new_group(record, fit, random_seed) for name, fit in fits.items()}
        method = ""
    elif closed.leave_row_out is not None:
        scores = {name: _same_group_rows(record, fit, random_seed) for name, fit in fits.items()}
        method = "leave one row out, given the other rows"
    elif record.thin is not None:
        scores = _same_group_halves(record, fits, random_seed)
        method = f"one random half predicts the other, {SPLITS} splits"
    else:
        raise ValueError(f"{record.name} says neither how to leave a row out nor how to halve its data.")
    table, fit = _table(record, fits, scores, question), next(iter(fits.values()))
    table.attrs["question"] = _asked(question, word(fit, record.group), method)
    table.columns.name = table.attrs["question"]
    return table


def _asked(question: str, group: str, method: str) -> str:
    """The question in words."""
    return QUESTIONS[question].format(group=group, a_group=with_article(group), method=method)


def _new_group(record: HierarchicalModel, fit: xr.DataTree, seed: int) -> dict:
    """Elpd of each group left out, by PSIS or, where that is in doubt, exactly."""
    summary = fit["group_summary"].to_dataset()
    elpd, complete = summary["elpd"].values.copy(), fit.attrs["pooling"] == "complete"
    if "k_hat" not in summary:
        return {"elpd": elpd, "mcse": np.zeros_like(elpd)}
    k_hat, mcse = summary["k_hat"].values, summary["elpd_mcse"].values.copy()
    few = elpd.size <= (GROUPS_FOR_BRUTE_FORCE_COMPLETE if complete else GROUPS_FOR_BRUTE_FORCE)
    draws = fit["posterior"].sizes["chain"] * fit["posterior"].sizes["draw"]
    used = min(draws, max(DRAWS_FOR_INTERVALS, CELLS_IN_ALL // elpd.size))
    doubtful = np.flatnonzero(few | ~(k_hat <= k_hat_threshold(used)))
    refits = doubtful
    if complete:
        elpd[doubtful], mcse[doubtful] = left_out(record, fit, doubtful)
        refits = doubtful[mcse[doubtful] > QUADRATURE_ERROR]
    elpd[refits], mcse[refits] = _refitted(record, fit, refits, seed)
    p = float(summary["lppd"].sum() - elpd.sum())
    return {"elpd": elpd, "mcse": mcse, "p": p, "max_k_hat": float(k_hat.max()), "refits": doubtful.size}


def _refitted(record: HierarchicalModel, fit: xr.DataTree, which: np.ndarray, seed: int) -> tuple[list, list]:
    """Elpd and its Monte Carlo error of each of some groups, by a fit without it."""
    data, draws_of_all, reff = prepared(fit), hyperparameters(fit), _efficiency(record, fit)
    log_marginal, every = record.closed("compare_poolings").log_marginal, np.arange(data.sizes[record.group])
    bridges = []
    for j in which:
        one, others = (data.isel({record.group: chosen}) for chosen in ([j], np.delete(every, j)))
        draws_of_others = refit(fit, others, seed + int(j), record)
        without, including = (log_marginal(h, one).values.ravel() for h in (draws_of_others, draws_of_all))
        bridges.append(bridge(without, including, reff))
    return [elpd for elpd, _ in bridges], [mcse for _, mcse in bridges]


def _efficiency(record: HierarchicalModel, fit: xr.DataTree) -> float:
    """Effective draws of the sampled hyperparameters over all draws."""
    fixed = json.loads(fit.attrs["fixed"])
    return relative_efficiency(fit["posterior"].dataset[[name for name in record.parameters if name not in fixed]])


def _same_group_rows(record: HierarchicalModel, fit: xr.DataTree, seed: int) -> dict:
    """Elpd of each row given the other rows of its group, by PSIS or, where that is in doubt, by refits."""
    h, data, reff = hyperparameters(fit), prepared(fit), _efficiency(record, fit)
    leave_row_out = record.closed("compare_poolings").leave_row_out
    row = next(dim for dim in leave_row_out(h.isel(sample=[0]), data).dims if dim != "sample")
    chosen = np.arange(data.sizes[row])
    if chosen.size > MOST_ROWS:
        chosen = np.sort(np.random.default_rng(seed).choice(chosen, MOST_ROWS, replace=False))
    chunks = in_chunks(data.isel({row: chosen}), row, h.sizes["sample"])
    left_out = xr.concat([leave_one_out(leave_row_out(h, chunk), reff) for chunk in chunks], dim=row)
    elpd, mcse, k_hat = (left_out[name].values.copy() for name in ("elpd", "elpd_mcse", "k_hat"))
    few = elpd.size <= GROUPS_FOR_BRUTE_FORCE and np.isfinite(k_hat).any()
    doubtful = np.flatnonzero(few | ~(k_hat <= k_hat_threshold(h.sizes["sample"])))
    for i in doubtful:
        one, others = data.isel({row: [chosen[i]]}), record.closed_form.without_row(data, chosen[i])
        draws_of_others = refit(fit, others, seed + int(i), record)
        without, including = (leave_row_out(draws, one).values.ravel() for draws in (draws_of_others, h))
        elpd[i], mcse[i] = bridge(without, including, reff)
    scale = data.sizes[row] / elpd.size
    return {
        "elpd": elpd,
        "scale": scale,
        "mcse": mcse,
        "p": scale * float(left_out["lppd"].sum() - elpd.sum()),
        "max_k_hat": float(k_hat.max()),
        "refits": doubtful.size,
    }


def _same_group_halves(record: HierarchicalModel, fits: Fits, seed: int) -> dict[str, dict]:
    """Elpd of one random half of the data given the other, averaged over splits.

    What is known after the first half is the population that the second half comes from.
    """
    rng = np.random.default_rng(seed)
    data = prepared(next(iter(fits.values())))
    scores: dict[str, list] = {name: [] for name in fits}
    for split in range(SPLITS):
        first, second = record.thin(rng, data)
        for name, fit in fits.items():
            h = refit(fit, first, seed + split, record, draws=DRAWS_A_SPLIT)
            few = thinned(h, max(DRAWS_OF_MANY_GROUPS, CELLS_A_SPLIT // data.sizes[record.group]))
            scores[name].append(_log_predictive(record, few, first, second))
    return {
        name: {"elpd": np.mean(by_split, axis=0), "by_split": np.array(by_split)} for name, by_split in scores.items()
    }


def _log_predictive(record: HierarchicalModel, h: xr.Dataset, first: xr.Dataset, second: xr.Dataset) -> np.ndarray:
    """Log density of each group's second half given its first, averaged over draws, chunk by chunk."""
    closed, chunks = record.closed_form, (in_chunks(half, record.group, h.sizes["sample"]) for half in (first, second))
    parts = []
    for seen, unseen in zip(*chunks, strict=True):
        log_density = closed.log_marginal(closed.conditional(h, seen), unseen).transpose("sample", ...).values
        parts.append(logsumexp(log_density, axis=0) - np.log(len(log_density)))
    return np.concatenate(parts)


def _table(record: HierarchicalModel, fits: Fits, scores: dict[str, dict], question: str) -> pd.DataFrame:
    ranked = [name for name, fit in fits.items() if question != "new_group" or fit.attrs["pooling"] != "none"]
    ranked.sort(key=lambda name: -scores[name]["elpd"].sum())
    groups = next(iter(fits.values()))["constant_data"].sizes[record.group]
    rows = {}
    for name in [*ranked, *(name for name in fits if name not in ranked)]:
        score, best = scores[name], scores[ranked[0]] if name in ranked else None
        rows[name] = {
            "rank": ranked.index(name) + 1 if name in ranked else pd.NA,
            **_totals(score, best, is_best=bool(ranked) and name == ranked[0], groups=groups),
            **{column: score.get(column, np.nan) for column in ("p", "max_k_hat", "refits")},
            **_deviance(record, fits[name]),
            "note": _note(record, fits[name], question, groups),
        }
    table = pd.DataFrame(rows).T.infer_objects()
    table["rank"] = table["rank"].astype("Int64")
    table.index.name = "pooling"
    return table


def _totals(score: dict, best: dict | None, is_best: bool, groups: int) -> dict[str, float]:
    """Sums over units, with standard errors over units and, where data were split, over splits."""
    scale = score.get("scale", 1.0)
    totals = {"elpd": scale * score["elpd"].sum(), "se": scale * _standard_error(score["elpd"], score.get("by_split"))}
    if best is None:
        totals |= {"elpd_diff": np.nan, "dse": np.nan}
    elif is_best:
        totals |= {"elpd_diff": 0.0, "dse": 0.0}
    else:
        difference = score["elpd"] - best["elpd"]
        splits = score["by_split"] - best["by_split"] if "by_split" in score else None
        enough = groups >= GROUPS_FOR_SIGNIFICANCE
        totals |= {
            "elpd_diff": scale * difference.sum(),
            "dse": scale * _standard_error(difference, splits) if enough else np.nan,
        }
    if "by_split" in score:
        totals["mcse"] = score["by_split"].sum(axis=1).std(ddof=1) / np.sqrt(SPLITS)
    else:
        totals["mcse"] = scale * np.sqrt((score["mcse"] ** 2).sum())
    return totals


def _standard_error(by_unit: np.ndarray, by_split: np.ndarray | None) -> float:
    """Standard error of a sum over units, the noise of random splits added."""
    variance = by_unit.size * by_unit.var(ddof=1) if by_unit.size > 1 else np.nan
    if by_split is not None:
        variance += by_split.sum(axis=1).var(ddof=1) / len(by_split)
    return float(np.sqrt(variance))


def _deviance(record: HierarchicalModel, fit: xr.DataTree) -> dict[str, float]:
    """DIC and p_D (Spiegelhalter et al. 2002, J R Stat Soc B 64:583-639), the group level in focus."""
    summary = fit["group_summary"].to_dataset()
    mean_deviance = -2 * float(summary["mean_log_likelihood"].sum())
    p_d = mean_deviance + 2 * float(summary["fixed_log_likelihood"].sum())
    fixed = json.loads(fit.attrs["fixed"])
    sampled = len([name for name in json.loads(fit.attrs["hyperparameters"]) if name not in fixed])
    groups = 0 if fit.attrs["pooling"] == "complete" else summary["mean"].size
    kappa = float(summary["kappa"].sum()) if fit.attrs["pooling"] == "partial" else np.nan
    return {"dic": mean_deviance + p_d, "p_d": p_d, "sum_kappa": kappa, "parameters": sampled + groups}


def _note(record: HierarchicalModel, fit: xr.DataTree, question: str, groups: int) -> str:
    if question == "new_group" and fit.attrs["pooling"] == "none":
        own = [describe(prior) for name, prior in priors_of(fit).items() if name.startswith(record.estimand)]
        fixed = json.loads(fit.attrs["fixed"])
        shared = [name for name in json.loads(fit.attrs["hyperparameters"]) if name not in fixed]
        beside = f", beside the shared {' and '.join(shared)}," if shared else ""
        return f"only its prior {' and '.join(own)}{beside} speaks: unranked"
    if groups < GROUPS_FOR_SIGNIFICANCE:
        return f"{groups} {word(fit, record.group)}s are too few for a standard error of a difference"
    return ""
