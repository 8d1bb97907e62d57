"""What the numbers say, in sentences: each computed, each true of other data too."""

from __future__ import annotations

import json
import warnings
from collections.abc import Iterable, Mapping

import numpy as np
import pandas as pd
import xarray as xr

from hbm_zoo.diagnostics.comparison import GROUPS_FOR_SIGNIFICANCE, QUESTIONS, compare_poolings
from hbm_zoo.diagnostics.convergence import ConvergenceWarning, convergence
from hbm_zoo.diagnostics.multiplicity import SlabNotIdentified, discoveries, has_null_group
from hbm_zoo.fits import Fits, check_together, hyperparameters, model_of, with_article, word
from hbm_zoo.loo import k_hat_threshold
from hbm_zoo.model import POOLINGS, HierarchicalModel

STANDARD_ERRORS = 2
MISFIT = 3
CONTRAST = 1.5
PRIOR_SHARE = 0.7


def verdict(
    fits: Fits,
    comparisons: Mapping[str, pd.DataFrame] | None = None,
    model: HierarchicalModel | None = None,
) -> list[str]:
    """Say what fits of several poolings show: a sentence on each question.

    Parameters
    ----------
    fits : dict of str to xarray.DataTree
        As `fit_poolings` returns them.
    comparisons : dict of str to pandas.DataFrame, optional
        Tables of `compare_poolings` by question; computed if not given.
    model : HierarchicalModel, optional
        The record of a model that is not in the zoo.

    Returns
    -------
    list of str
        A sentence each: whether the draws can be trusted; which pooling predicts better, by how
        much, for a new group and for the same group again, each answered by its own table; which
        groups differ from nothing, if the model has a null group; how strongly the groups are
        pulled, which most, and whether for the weight of its data or for its
        distance; what to do next. If a fit failed a check nothing else is said.

    Raises
    ------
    ValueError
        If fits do not belong together.

    Notes
    -----
    A difference counts if it exceeds two of its standard errors; with fewer than 10 groups no
    standard error is used (Sivula, Magnusson & Vehtari 2020, arXiv:2008.10296). No pooling is not
    ranked on a new group, where only its prior speaks. Most pulled is the group whose
    posterior mean lies furthest from its own estimate. That distance is, given hyperparameters,
    (1 - kappa) |own - target|, so that each factor is set against its median over groups.

    Examples
    --------
    >>> import hbm_zoo as hz
    >>> alone = hz.fit("hospital_readmission", hz.load_data("three_hospitals"), "none", random_seed=1)
    >>> verdict({"none": alone})[0]
    'Every fit can be trusted: no pooling is drawn exactly.'
    """
    fits = {name: fit for name, fit in check_together(fits).items() if fit.attrs["pooling"] in POOLINGS}
    record = model_of(next(iter(fits.values())), model)
    if failed := _failed(fits):
        return failed
    tables, refusals = _tables(fits, comparisons, record)
    first = next(iter(fits.values()))
    group, groups = word(first, record.group), first["constant_data"].sizes[record.group]
    answers = [_prediction(group, question, table, groups) for question, table in tables.items()]
    sentences = [_trusted(fits), *_in_one(answers), *refusals]
    name = next((name for name, fit in fits.items() if fit.attrs["pooling"] == "partial"), None)
    if name is None:
        return [*sentences, "Nothing is said of how strongly groups are pulled: no fit is of partial pooling."]
    partial = fits[name]
    return [
        *sentences,
        *_discovered(record, partial),
        *_in_one(_pull(record, partial)),
        *_in_one(_next(record, name, partial, tables)),
    ]


def _in_one(parts: list[str]) -> list[str]:
    """Parts as one sentence; none as no sentence."""
    text = "; ".join(parts)
    return [f"{text[0].upper()}{text[1:]}."] if parts else []


# Can the draws be trusted?


def _failed(fits: Fits) -> list[str]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        checked = convergence(fits)
    bad = checked.loc[~checked["passed"].astype(bool), "verdict"]
    if bad.empty:
        return []
    reasons = "; ".join(f"{_pooling(name)} ({reason})" for name, reason in bad.items())
    return [
        f"Do not rely on these fits: {reasons}.",
        "Nothing is concluded from them; fit again as the failed check says.",
    ]


def _trusted(fits: Fits) -> str:
    exact = [name for name, fit in fits.items() if fit.attrs["parameterization"] == "exact"]
    sampled = [name for name in fits if name not in exact]
    parts = [f"{_listed(map(_pooling, sampled))} passed the checks of convergence"] if sampled else []
    parts += [f"{_listed(map(_pooling, exact))} is drawn exactly"] if exact else []
    return f"Every fit can be trusted: {'; '.join(parts)}."


# Which pooling predicts better?


def _tables(fits: Fits, given: Mapping[str, pd.DataFrame] | None, record: HierarchicalModel):
    """A table for each question that can be answered, and the reasons of those that cannot."""
    if given is not None:
        return {question: given[question] for question in QUESTIONS if question in given}, []
    tables, refusals = {}, []
    for question in QUESTIONS:
        try:
            tables[question] = compare_poolings(fits, question, model=record)
        except ValueError as refusal:
            refusals.append(str(refusal))
    return tables, list(dict.fromkeys(refusals))


def _prediction(group: str, question: str, table: pd.DataFrame, groups: int) -> str:
    """The answer to one question, from the ranked rows of its own table."""
    new = question == "new_group"
    start = f"for {with_article(group)} not seen before" if new else f"for the same {group} again"
    ranked = table[table["rank"].notna()]
    if len(ranked) < 2:
        return f"{start} there is nothing to compare: fewer than two poolings can be ranked"
    best, others = ranked.index[0], ranked.index[1:]
    gaps = {name: (-float(ranked.loc[name, "elpd_diff"]), float(ranked.loc[name, "dse"])) for name in others}
    doubt = _doubt(ranked)
    if ranked["dse"].astype(float).isna().any():
        behind = _listed(f"{_pooling(name)} is {gap:.1f} nats behind" for name, (gap, _) in gaps.items())
        few = f"but {groups} {group}s are too few to tell that from noise"
        return f"{start} {_pooling(best)} scores highest; {behind}, {few}{doubt}"
    clear = [name for name in others if _is_behind(ranked.loc[name])]
    level = [name for name in gaps if name not in clear]
    parts = []
    if clear:
        better = _listed(f"{_pooling(n)} (by {gaps[n][0]:.1f} nats, standard error {gaps[n][1]:.1f})" for n in clear)
        parts.append(f"predicts better than {better}")
    if level:
        behind = _listed(f"{_pooling(n)} by {gaps[n][0]:.1f} nats (standard error {gaps[n][1]:.1f})" for n in level)
        parts.append(f"is ahead of {behind} within noise only")
    return f"{start} {_pooling(best)} {', and '.join(parts)}{doubt}"


def _doubt(ranked: pd.DataFrame) -> str:
    """Importance sampling that failed and was not replaced by refits."""
    bad = ranked[(ranked["max_k_hat"].astype(float) > k_hat_threshold(10_000)) & (ranked["refits"].astype(float) == 0)]
    return f", with doubt about {_listed(map(_pooling, bad.index))}, whose k-hat is too large" if len(bad) else ""


# Which groups differ from nothing, if that is asked?


def _discovered(record: HierarchicalModel, partial: xr.DataTree) -> list[str]:
    if not has_null_group(partial):
        return []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", SlabNotIdentified)
        return [discoveries(partial, model=record).attrs["verdict"]]


# How strongly are groups pulled, and which most?


def _pull(record: HierarchicalModel, partial: xr.DataTree) -> list[str]:
    """Sentences on the pull of the groups, for each coefficient of the estimand."""
    summary = partial["group_summary"].to_dataset()
    inner = [dim for dim in summary["mean"].dims if dim != record.group]
    words = {name: word(partial, name) for name in (record.group, record.volume_label)}
    target = None
    if record.closed_form:
        target = record.closed_form.population(hyperparameters(partial)).mean.mean("sample")
    definition = f"; kappa = {record.kappa}"
    if not inner:
        return _pull_of(record, summary, target, record.estimand, words, definition)
    sentences = []
    for value in summary[inner[0]].values:
        here = {inner[0]: value}
        place = target.sel(here) if target is not None and inner[0] in target.dims else target
        sentences += _pull_of(record, summary.sel(here), place, str(value), words, definition)
        definition = ""  # once is enough
    return sentences


def _pull_of(
    record: HierarchicalModel,
    summary: xr.Dataset,
    target: xr.DataArray | None,
    what: str,
    words: Mapping[str, str],
    definition: str,
) -> list[str]:
    group, size = words[record.group], summary.sizes[record.group]
    moved = abs(summary["own"] - summary["mean"]).values
    known = np.isfinite(moved)
    sentences = []
    if "kappa" in summary:
        kappa = summary["kappa"].values
        weight = np.median(kappa)
        strength = "strongly" if weight < 1 / 3 else "about half way" if weight < 2 / 3 else "little"
        sentences.append(
            f"the typical {group} is pulled {strength}: its own data have weight kappa {weight:.2f} in {what} (median"
            f"{definition}; sum {kappa.sum():.1f} over {size:,})"
        )
    if not known.any():
        return [*sentences, f"no {group} has an estimate of {what} of its own to be pulled from"]
    j = int(np.nanargmax(moved))
    own, mean = (float(summary[name][j]) for name in ("own", "mean"))
    why = _why(words[record.volume_label], summary, float(target), j) if target is not None else ""
    name = summary[record.group].values[j]
    of = "" if sentences else f" in {what}"
    return [*sentences, f"most pulled{of} is {name}, from {_plain(own)} to {_plain(mean)}{why}"]


def _why(volume_label: str, summary: xr.Dataset, target: float, j: int) -> str:
    """Its distance from the target or the weight of its data: whichever is further from usual."""
    known = np.isfinite(summary["own"].values)
    distance = abs(summary["own"].values - target)
    lost = 1 - summary["kappa"].values
    far, light = (_times_the_median(values[j], values[known]) for values in (distance, lost))
    kappa = f"kappa {1 - lost[j]:.2f}, median {1 - np.median(lost[known]):.2f}"
    away = f"{far:.1f} times the median distance from {_plain(target)}"
    volume = float(summary["volume"].broadcast_like(summary["own"])[j])
    reasons = []
    if far > CONTRAST:
        reasons.append(f"it lies far out ({away})")
    if light > CONTRAST:
        reasons.append(f"its own data weigh less than usual ({kappa}; {volume_label} {_plain(volume)})")
    if not reasons:
        return f", though neither its distance ({away}) nor the weight of its data ({kappa}) is unusual"
    return ", because " + " and ".join(reasons if far > light else reversed(reasons))


def _times_the_median(value: float, values: np.ndarray) -> float:
    return value / median if (median := float(np.median(values))) > 0 else 1.0


# What to do next?


def _next(record: HierarchicalModel, name: str, partial: xr.DataTree, tables: Mapping) -> list[str]:
    """What the numbers ask for: a closer look at a misfit, at the prior, or the use of the result."""
    group, groups = word(partial, record.group), partial["constant_data"].sizes[record.group]
    steps = [*_misfit(record, name, partial, tables.get("new_group")), *_prior_weight(record, partial, groups)]
    if groups >= GROUPS_FOR_SIGNIFICANCE and any(_is_behind(table.loc[name]) for table in tables.values()):
        steps.append(f"find out why partial pooling is clearly behind before using its {group}s")
    return ["next: " + "; ".join(steps or [f"report each {group} by partial pooling, with its interval"])]


def _is_behind(row: pd.Series) -> bool:
    return -float(row["elpd_diff"]) > STANDARD_ERRORS * float(row["dse"])


def _misfit(record: HierarchicalModel, name: str, partial: xr.DataTree, table: pd.DataFrame | None) -> list[str]:
    """Rule of thumb: p far above the number of hyperparameters is a sign of misfit."""
    if table is None:
        return []
    p = float(table.loc[name, "p"])
    sampled = set(json.loads(partial.attrs["hyperparameters"])) - set(json.loads(partial.attrs["fixed"]))
    if not p > MISFIT * len(sampled):
        return []
    summary = partial["group_summary"].to_dataset()
    surprising = summary[record.group].values[int((summary["lppd"] - summary["elpd"]).values.argmax())]
    return [
        f"look at {surprising}, which surprises the model most ({len(sampled)} hyperparameters act as {p:.1f}, a sign "
        f"that not all {word(partial, record.group)}s come from one such population)"
    ]


def _prior_weight(record: HierarchicalModel, partial: xr.DataTree, groups: int) -> list[str]:
    """A spread that is known little better than before must be asked about."""
    name = record.heterogeneity
    prior, posterior = (partial[part].dataset[name] for part in ("prior", "posterior"))
    share = float(posterior.std() / prior.std())
    if share < PRIOR_SHARE and groups >= GROUPS_FOR_SIGNIFICANCE:
        return []
    return [
        f"fit again with another prior of {name}, and see what moves (from {groups} {word(partial, record.group)}s its "
        f"posterior sd is {share:.2f} of its prior's)"
    ]


def _pooling(name: str) -> str:
    return {"none": "no pooling"}.get(name, f"{name} pooling")


def _plain(value: float) -> str:
    """Three digits, and no powers of ten for numbers that people write out."""
    return f"{value:,.0f}" if 1000 <= abs(value) < 1e9 else f"{value:.3g}"


def _listed(words: Iterable[str]) -> str:
    *first, last = words
    return f"{', '.join(first)} and {last}" if first else last
