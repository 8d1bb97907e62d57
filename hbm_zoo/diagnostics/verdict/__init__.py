"""What the numbers say, in sentences: each computed, each true of other data too."""

from __future__ import annotations

import warnings
from collections.abc import Mapping

import pandas as pd
import xarray as xr

from hbm_zoo.diagnostics.comparison import QUESTIONS, compare_poolings
from hbm_zoo.diagnostics.model_checks import check_model
from hbm_zoo.diagnostics.multiplicity import NoiseMayHaveHeavyTails, SlabNotIdentified, discoveries, has_null_group
from hbm_zoo.diagnostics.verdict.criticism import differ_at_all, misfit
from hbm_zoo.diagnostics.verdict.next_step import next_steps
from hbm_zoo.diagnostics.verdict.prediction import prediction
from hbm_zoo.diagnostics.verdict.pull import pull
from hbm_zoo.inference.convergence import ConvergenceWarning, convergence
from hbm_zoo.inference.fits import Fits, check_together, model_of, prepared, word
from hbm_zoo.model import POOLINGS, HierarchicalModel
from hbm_zoo.words import listed, pooling


def verdict(
    fits: Fits,
    comparisons: Mapping[str, pd.DataFrame] | None = None,
    model: HierarchicalModel | None = None,
    checks: pd.DataFrame | None = None,
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
    checks : pandas.DataFrame, optional
        The table of `check_model`; if not given it is computed for partial pooling, where the model has checks.

    Returns
    -------
    list of str
        A sentence each: whether the draws can be trusted; what reading the data gave warning
        of; which pooling predicts better, by how
        much, for a new group and for the same group again, each answered by its own table; how strong
        the evidence is that groups differ at all, or, where that takes long, who says; what partial pooling
        does not fit, if its checks reject it; which groups differ from nothing, if the model has a
        null group; how strongly the groups are pulled, which moves farthest, and whether for the
        weight of its data or for its distance; what to do next, which is never to report groups by a
        model that its checks reject. If a fit failed a check nothing else is said, nor of one group alone.

    Raises
    ------
    ValueError
        If fits do not belong together.

    Notes
    -----
    A lead is clear if it exceeds two of its standard errors (``se``) and 4 nats: smaller ones are hardly
    leads, the former within noise; where one group makes most of it the standard error says little, and that
    group is what is said. So does it where differences are skewed: a lead of 10 nats or more of which one
    group makes a fifth is called large but uneven, not noise. With fewer than 10 groups no standard error is
    used (all three: Sivula, Magnusson & Vehtari 2020, arXiv:2008.10296), nor where groups depend on one
    another. No pooling is not ranked on a new group, where only its prior speaks. The group that moves
    farthest is the one whose posterior mean lies furthest from its own estimate. That way is the product of its
    surprise, |own - target| in sds of what is expected of it, and of how far its data let themselves be moved by a
    surprise of one; the factor that is more times its median over groups is the reason.

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
    if prepared(first := next(iter(fits.values()))).sizes[record.group] < 2:
        alone = f"One {word(first, record.group)} has nothing to share with others: no pooling is all there is."
        return [_trusted(fits), alone]
    tables, refusals = _tables(fits, comparisons, model)
    sentences = [
        _trusted(fits),
        *record.extras.check(prepared(first)),
        *_in_one(prediction(record, first, tables)),
        *refusals,
    ]
    name = next((name for name, fit in fits.items() if fit.attrs["pooling"] == "partial"), None)
    if name is None:
        return [*sentences, "Nothing is said of how strongly groups are pulled: no fit is of partial pooling."]
    partial, record = fits[name], model_of(fits[name], model)
    table, unasked = _checked(partial, name, record) if checks is None else (checks, [])
    wrong, found = misfit(table, name), _discovered(record, partial)
    differ = [] if found is None else [found.attrs["verdict"]]
    return [
        *sentences,
        *differ_at_all(record, fits, table),
        *wrong,
        *unasked,
        *([f"If it fitted, this would hold: {sentence}" for sentence in differ] if wrong else differ),
        *_in_one(pull(record, partial)),
        *_in_one([f"next: {'; '.join(next_steps(record, name, partial, tables, table, found))}"]),
    ]


def _in_one(parts: list[str]) -> list[str]:
    """Parts as one sentence; none as no sentence."""
    text = "; ".join(parts)
    return [f"{text[0].upper()}{text[1:]}."] if parts else []


def _failed(fits: Fits) -> list[str]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        checked = convergence(fits)
    bad = checked.loc[~checked["passed"].astype(bool), "verdict"]
    if bad.empty:
        return []
    reasons = "; ".join(f"{pooling(str(name))} ({reason})" for name, reason in bad.items())
    return [
        f"Do not rely on these fits: {reasons}.",
        "Nothing is concluded from them; fit again as the failed check says.",
    ]


def _trusted(fits: Fits) -> str:
    kinds = {name: fit.attrs.get("group_level", "in closed form") for name, fit in fits.items()}
    alone = {name: kinds[name] for name, fit in fits.items() if fit.attrs["parameterization"] == "exact"}
    sampled = [name for name in fits if name not in alone]
    parts = [f"{listed(map(pooling, sampled))} passed the checks of convergence"] if sampled else []
    how = "exactly" if set(alone.values()) <= {"in closed form"} else "independently, integrated numerically"
    parts += [f"{listed(map(pooling, alone))} is drawn {how}"] if alone else []
    return f"Every fit can be trusted: {'; '.join(parts)}."


def _tables(fits: Fits, given: Mapping[str, pd.DataFrame] | None, model: HierarchicalModel | None):
    """A table for each question that can be answered, and the reasons of those that cannot."""
    if given is not None:
        return {question: given[question] for question in QUESTIONS if question in given}, []
    tables, refusals = {}, []
    for question in QUESTIONS:
        try:
            tables[question] = compare_poolings(fits, question, model=model)
        except ValueError as refusal:
            refusals.append(str(refusal))
    return tables, list(dict.fromkeys(refusals))


def _checked(partial: xr.DataTree, name: str, record: HierarchicalModel) -> tuple[pd.DataFrame | None, list[str]]:
    """The checks of partial pooling; of a model that has none None, and a sentence why."""
    try:
        return check_model({name: partial}, model=record), []
    except ValueError as refusal:
        return None, [f"Whether it fits was not asked: {refusal}"]


def _discovered(record: HierarchicalModel, partial: xr.DataTree) -> pd.DataFrame | None:
    """Which groups differ from nothing; None if that is not asked."""
    if not has_null_group(partial):
        return None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", SlabNotIdentified)
        warnings.simplefilter("ignore", NoiseMayHaveHeavyTails)
        return discoveries(partial, model=record)
