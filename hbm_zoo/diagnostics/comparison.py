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
from collections.abc import Callable, Mapping
from concurrent.futures import Executor
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
import xarray as xr

from hbm_zoo.diagnostics.cross_validation import ALONE, SPLITS, Scores, new_group, same_group_halves, same_group_rows
from hbm_zoo.inference.arguments import settled_seed
from hbm_zoo.inference.fits import Fits, check_together, model_of, prepared, priors_of, word
from hbm_zoo.model import POOLINGS, HierarchicalModel
from hbm_zoo.priors import describe
from hbm_zoo.words import choose, plural, with_article
from hbm_zoo.workers.recorded import file_name

GROUPS_FOR_SIGNIFICANCE = 10

QUESTIONS = {
    "new_group": "{left_out}: leave one {group} out",
    "new_observation": "the same {group}, again: {method}",
}


def compare_poolings(
    fits: Fits,
    question: str = "new_group",
    random_seed: int | None = 0,
    model: HierarchicalModel | None = None,
    executor: Executor | None = None,
    workers: int = 1,
    folder: str | Path | None = None,
) -> pd.DataFrame:
    """Compare how well each pooling predicts.

    Parameters
    ----------
    fits : dict of str to xarray.DataTree
        As `fit_poolings` returns them, or any of the same model and data by their names: of several options, say.
    question : {"new_group", "new_observation"}
        A group not seen before, or the same group again. The two are never mixed.
    random_seed : int, optional
        Seed of refits and of random halves; drawn if None.
    model : HierarchicalModel, optional
        The record of a model that is not in the zoo.
    executor, workers, folder
        Who refits, as in `fit_many`, and where each refit is recorded, to be gone on with; the numbers are the same to
        the bit whoever does.

    Returns
    -------
    pandas.DataFrame
        One row a pooling, the best first. ``elpd`` [nats] with its standard error ``se``
        over groups (rows); ``elpd_diff`` and ``dse`` to the best; ``one_unit``, the largest share of a
        single group (row) in the absolute differences; ``mcse`` of the Monte Carlo;
        ``p`` = lppd - elpd, the effective number of hyperparameters; ``max_k_hat``; ``refits``,
        the groups or rows left out exactly; ``dic`` and ``p_d`` [deviance scale, lower is better;
        group level in focus, plug-in the posterior mean]; ``sum_kappa``; ``parameters``, the raw
        count; ``note``.
        ``attrs["question"]`` says what is predicted, ``attrs["unit"]`` what is left out.

    Raises
    ------
    ValueError
        If fits do not belong together, the question is unknown or the model cannot answer it.

    Notes
    -----
    A new group: elpd_j = -log mean_s 1/m_j(h_s) by PSIS on the hyperparameters (Vehtari, Gelman & Gabry 2017);
    exactly where k-hat is too large, and for all groups when they are at most 20 and a refit costs little
    (numerical integrals do not) or, under complete pooling, at most 200: by a refit without the group or, under
    complete pooling, by quadrature over what all groups share, if more nodes do not change it. A row of the
    same group: by PSIS, and by a refit without the row by the same rule. The standard error of a difference
    says little with fewer than 10 groups (Sivula, Magnusson & Vehtari 2020, arXiv:2008.10296): it is left out.
    Where groups depend on one another given h, log p(y_j | the other groups) is left out in turn; its terms are
    no independent draws, so that neither ``se`` nor ``dse`` is given.

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
    records = {name: model_of(fit, model) for name, fit in fits.items()}  # options may differ from fit to fit
    record, seed = next(iter(records.values())), settled_seed(random_seed)
    level = record.ask("compare_poolings", "log_left_out")
    unit = word(next(iter(fits.values())), record.group)
    circular = prepared(next(iter(fits.values()))).attrs.get("circular")

    def by(*of: str) -> Callable:
        inside = map(file_name, of)
        return partial(ALONE, executor=executor, workers=workers, folder=folder and Path(folder, question, *inside))

    if question == "new_group":
        if circular:
            raise ValueError(circular)
        scores = {name: new_group(records[name], fit, seed, by(name)) for name, fit in fits.items()}
        method = ""
    elif level.leave_row_out is not None:
        scores = {name: same_group_rows(records[name], fit, seed, by(name)) for name, fit in fits.items()}
        method, unit = "leave one row out, given the other rows", "row"
    elif record.extras.thin is not None:
        scores = same_group_halves(records, fits, seed, by())
        method = f"one random half predicts the other, {SPLITS} splits"
    else:
        raise ValueError(f"{record.name} says neither how to leave a row out nor how to halve its data.")
    table, fit = _table(records, fits, scores, question), next(iter(fits.values()))
    table.attrs["unit"] = unit
    table.attrs["question"] = _asked(record, question, word(fit, record.group), method)
    table.columns.name = table.attrs["question"]
    return table


def _asked(record: HierarchicalModel, question: str, group: str, method: str) -> str:
    """The question in words."""
    left_out = record.extras.left_out.format(a_group=with_article(group))
    return QUESTIONS[question].format(group=group, left_out=left_out, method=method)


def _table(
    records: Mapping[str, HierarchicalModel], fits: Fits, scores: dict[str, Scores], question: str
) -> pd.DataFrame:
    asked = [name for name, fit in fits.items() if question != "new_group" or fit.attrs["pooling"] != "none"]
    ranked = [name for name in asked if not np.isnan(scores[name].total)]
    ranked.sort(key=lambda name: -scores[name].total)
    record, one = next(iter(records.values())), next(iter(fits.values()))
    independent, reason = record.group_level.independent_in(prepared(one)), no_standard_error(record, one)
    rows = {}
    for name in [*ranked, *(name for name in fits if name not in ranked)]:
        score, best = scores[name], scores[ranked[0]] if name in ranked else None
        rows[name] = {
            "rank": ranked.index(name) + 1 if name in ranked else pd.NA,
            "elpd": score.total,
            "se": score.standard_error if independent else np.nan,
            **_behind(score, best, bool(reason)),
            "mcse": score.monte_carlo_error,
            **{column: getattr(score, column) for column in ("p", "max_k_hat", "refits")},
            **_deviance(records[name], fits[name]),
            "note": _unranked(records[name], fits[name], question, score)
            or (f"{reason} of a difference" if reason and len(fits) > 1 else ""),
        }
    table = pd.DataFrame(rows).T.infer_objects()
    table["rank"] = table["rank"].astype("Int64")
    table.index.name = "pooling"
    return table


def _behind(score: Scores, best: Scores | None, uncertain: bool) -> dict[str, float]:
    """The difference to the best, its standard error and how much one unit makes of it; none for what is not ranked."""
    if best is None:
        return {"elpd_diff": np.nan, "dse": np.nan, "one_unit": np.nan}
    if score is best:
        return {"elpd_diff": 0.0, "dse": np.nan if uncertain else 0.0, "one_unit": np.nan}
    difference = score.minus(best)
    return {
        "elpd_diff": difference.total,
        "dse": np.nan if uncertain else difference.standard_error,
        "one_unit": difference.largest_share,
    }


def _deviance(record: HierarchicalModel, fit: xr.DataTree) -> dict[str, float]:
    """DIC and p_D (Spiegelhalter et al. 2002, J R Stat Soc B 64:583-639), the group level in focus."""
    summary = fit["group_summary"].to_dataset()
    mean_deviance = -2 * float(summary["mean_log_likelihood"].sum(skipna=False))
    p_d = mean_deviance + 2 * float(summary["fixed_log_likelihood"].sum(skipna=False))
    fixed = json.loads(fit.attrs["fixed"])
    sampled = len([name for name in json.loads(fit.attrs["hyperparameters"]) if name not in fixed])
    groups = 0 if fit.attrs["pooling"] == "complete" else summary["mean"].size
    kappa = float(summary["kappa"].sum()) if fit.attrs["pooling"] == "partial" else np.nan
    return {"dic": mean_deviance + p_d, "p_d": p_d, "sum_kappa": kappa, "parameters": sampled + groups}


def no_standard_error(record: HierarchicalModel, fit: xr.DataTree) -> str:
    """Why a difference has no standard error, in words; empty if it has one."""
    group, groups = word(fit, record.group), fit["constant_data"].sizes[record.group]
    if not record.group_level.independent_in(prepared(fit)):
        return f"{plural(group)} depend on one another, which allows no standard error"
    few = groups < GROUPS_FOR_SIGNIFICANCE
    return f"{groups} {plural(group)} are too few for a standard error" if few else ""


def _unranked(record: HierarchicalModel, fit: xr.DataTree, question: str, score: Scores) -> str:
    """What no pooling says of a new group, or that a density is undefined, and that it is not ranked."""
    if np.isnan(score.total):
        return "a density is not defined: unranked"
    if question != "new_group" or fit.attrs["pooling"] != "none":
        return ""
    own = [describe(prior) for name, prior in priors_of(fit).items() if name not in record.parameters]
    fixed = json.loads(fit.attrs["fixed"])
    shared = [name for name in json.loads(fit.attrs["hyperparameters"]) if name not in fixed]
    beside = f", beside the shared {' and '.join(shared)}," if shared else ""
    return f"only its prior {' and '.join(own)}{beside} speaks: unranked"
