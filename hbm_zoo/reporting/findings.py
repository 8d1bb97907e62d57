"""What is to be said of a set of fits, computed once: the terminal and the report say the same."""

from __future__ import annotations

import json
import re
import warnings
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import pandas as pd

import hbm_zoo as hz
from hbm_zoo import words
from hbm_zoo.diagnostics.multiplicity import NoiseMayHaveHeavyTails, SlabNotIdentified, has_null_group
from hbm_zoo.inference.convergence import ConvergenceWarning
from hbm_zoo.inference.fits import (
    LABEL,
    Fits,
    check_together,
    model_of,
    named_groups,
    prepared,
    priors_of,
    settings,
    word,
)
from hbm_zoo.model import HierarchicalModel
from hbm_zoo.priors import describe, ppf, to_json
from hbm_zoo.reporting.answers import answers_of

#: Probability beyond which a group is said to lie above a number, or below it; how many are named.
CERTAIN, MOST_NAMED = 0.9, 10
NOTHING = "Nothing is concluded: a fit broke off, and the others alone do not answer the question."
QUESTIONS = ("new_group", "new_observation")


@dataclass(frozen=True, kw_only=True)
class Findings:
    """Everything that the terminal and the report say.

    Attributes
    ----------
    fits, record
        The fits, and the record of their model.
    failures
        Pooling to the reason why its fit broke off.
    checks, comparisons, groups
        As `convergence`, `compare_poolings` (or a sentence why not) and `groups` return
        them, the last two in the words of the data's owner.
    fit_to_data
        As `check_model` returns it, or a sentence why it does not.
    priors, population
        One row a hyperparameter: its prior in words, and its posterior.
    discoveries
        As `discoveries` returns them, if the model has a null group; else None.
    answers
        Of the model's own verbs, by name: a table, or a sentence why there is none.
    verdict
        Two or three sentences computed from the numbers.
    threshold
        What the estimates were compared with, beside the reference.
    """

    fits: Fits
    record: HierarchicalModel
    failures: Mapping[str, str]
    checks: pd.DataFrame
    comparisons: Mapping[str, pd.DataFrame | str]
    groups: pd.DataFrame
    fit_to_data: pd.DataFrame | str
    priors: pd.DataFrame
    population: pd.DataFrame
    discoveries: pd.DataFrame | None
    answers: Mapping[str, pd.DataFrame | str]
    verdict: list[str]
    threshold: float | None

    @property
    def passed(self) -> bool:
        """Whether every fit was made and passed its checks."""
        return not self.failures and bool(self.checks["passed"].all())

    @property
    def leading(self):
        """The fit of partial pooling; without one the last."""
        return next((f for f in self.fits.values() if f.attrs["pooling"] == "partial"), list(self.fits.values())[-1])

    @property
    def group(self) -> str:
        """What the data's owner calls a group."""
        return word(self.leading, self.record.group)

    @property
    def notes(self) -> list[str]:
        """What was noted in reading the data."""
        return json.loads(self.leading.attrs.get("notes", "[]"))

    @property
    def troubles(self) -> list[str]:
        """What failed, one sentence each."""
        broken = [f"The fit of {words.pooling(name)} broke off: {why}" for name, why in self.failures.items()]
        failed = self.checks[~self.checks["passed"].astype(bool)]
        return broken + [f"{words.pooling(n).capitalize()}: {row['verdict']}." for n, row in failed.iterrows()]

    @property
    def interval(self) -> str:
        """The name of the interval, e.g. 89 %."""
        return f"{round(100 * float(self.leading.attrs['ci_prob']))} %"

    @property
    def data(self) -> str:
        """The data in a sentence: where from, how many groups, how much data each has."""
        fit = self.leading
        volume = fit["group_summary"]["volume"]
        volume = volume.isel({dim: 0 for dim in volume.dims if dim != self.record.group}).values
        source = f"{fit.attrs['source']}: " if fit.attrs.get("source") else ""
        least, middle, most = np.quantile(volume, [0, 0.5, 1])
        spread = (
            f"{words.plain(least)} to {words.plain(most)} (median {words.plain(middle)})"
            if most > least
            else f"{words.plain(most)} each"
        )
        chosen = f"; {options}" if (options := settings(fit)) else ""
        return f"{source}{volume.size:,} {words.plural(self.group, volume.size)}, {self.volume} {spread}{chosen}"

    @property
    def standing_out(self) -> list[str]:
        """Which groups lie beyond the threshold asked for, or else the model's reference, and how sure that is."""
        line = self.record.reference if self.threshold is None else self.threshold
        if line is None or self.discoveries is not None or f"p_above_{line:g}" not in self.groups:
            return []
        said, rejected = [], self.leading.attrs["pooling"] in self.rejected
        for coefficient, table in self.parts.items():
            table = table.rename(index=self.called)
            above, what = table[f"p_above_{line:g}"], coefficient or self.record.estimand
            sides = [(above, f"{what} > {line:g}")]
            if self.threshold is None:
                sides.append((1 - above, f"{what} < {line:g}"))
            shown = [side for side in sides if (side[0] > CERTAIN).any()] or sides[:1]
            said += [self._beyond(chance, event) for chance, event in shown]
        return [f"If the model fitted: {sentence}" for sentence in said] if rejected else said

    @property
    def rejected(self) -> Mapping[str, list[str]]:
        """The poolings that their checks reject, and by which."""
        return {} if isinstance(self.fit_to_data, str) else self.fit_to_data.attrs["rejected"]

    def _beyond(self, chance: pd.Series, event: str) -> str:
        """How many groups some event is nearly certain of: the surest by name, or, if they are most, the others."""
        sure = (chance > CERTAIN).to_numpy()
        most = sure.sum() > len(chance) / 2
        listed = chance[~sure if most else sure].sort_values(ascending=False, kind="stable")
        named = [f"{label} ({chance:.2f})" for label, chance in listed.iloc[:MOST_NAMED].items()]
        more = f" and {len(listed) - MOST_NAMED} more" if len(listed) > MOST_NAMED else ""
        which = f"{', not for ' if most else ': '}{', '.join(named)}{more}" if named else ""
        groups = f"{len(chance)} {words.plural(self.group, len(chance))}"
        return f"P({event}) exceeds {CERTAIN} for {sure.sum()} of {groups}{which}"

    @property
    def called(self) -> dict:
        """What sentences and tables call each group: its name where there is one, and else its label."""
        labels = self.leading["group_summary"].dataset[self.record.group].values
        return dict(zip(labels.tolist(), named_groups(self.leading)[self.record.group].values, strict=True))

    @property
    def label(self) -> str:
        """The column of the groups' names, if there is one beside their labels."""
        return str(self.groups.columns[0]) if LABEL in self.leading["group_summary"] else ""

    @property
    def volume(self) -> str:
        """The column that counts a group's data, in the words of the data's owner."""
        return str(self.groups.columns[1 if self.label else 0])

    @property
    def certain(self) -> set:
        """Labels of the groups that are said to lie beyond: of a reference, on either side."""
        line = self.record.reference if self.threshold is None else self.threshold
        if line is None or f"p_above_{line:g}" not in self.groups:
            return set()
        chances = [part[f"p_above_{line:g}"] for part in self.parts.values()]
        if self.threshold is None:
            chances += [1 - above for above in chances]
        return {label for chance in chances for label in chance.index[chance > CERTAIN]}

    @property
    def parts(self) -> dict[str, pd.DataFrame]:
        """The groups table by coefficient of the estimand, each indexed by group alone; under "" if it has none."""
        others = [name for name in self.groups.index.names if name != self.group]
        if not others:
            return {"": self.groups}
        return {str(name): part.droplevel(others) for name, part in self.groups.groupby(level=others[0], sort=False)}


def findings(
    fits: Fits,
    threshold: float | None = None,
    model: HierarchicalModel | None = None,
    failures: Mapping[str, str] | None = None,
) -> Findings:
    """Compute what is to be said of fits that belong together.

    Raises
    ------
    ValueError
        If fits do not belong together.
    """
    fits = check_together(fits)
    comparisons = {question: _compared(fits, question, model) for question in QUESTIONS}
    leading = fits.get("partial", list(fits.values())[-1])
    record, checks = model_of(leading, model), _fit_to_data(fits, model)
    return Findings(
        fits=fits,
        record=record,
        failures=dict(failures or {}),
        checks=_checked(fits),
        comparisons=comparisons,
        groups=_spoken(hz.groups(fits, threshold, record), leading),
        fit_to_data=checks,
        priors=_priors(record, fits),
        population=_population(fits, record),
        discoveries=_discoveries(fits, record),
        answers={answer.verb: answer.table(leading, record) for answer in answers_of(record)},
        verdict=_verdict(fits, comparisons, model, checks) if not failures else [NOTHING],
        threshold=threshold,
    )


def _in_their_word(meaning: str, ours: str, theirs: str) -> str:
    """A parameter's meaning, groups called what the data's owner calls them."""
    for one, other in ((words.plural(ours), words.plural(theirs)), (ours, theirs)):
        meaning = re.sub(rf"\b{one}\b", other.replace("\\", r"\\"), meaning)
    return meaning


def _checked(fits: Fits) -> pd.DataFrame:
    """The checks; what failed is said with the findings, not as a warning."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        return hz.convergence(fits)


def _compared(fits: Fits, question: str, model: HierarchicalModel | None) -> pd.DataFrame | str:
    try:
        return hz.compare_poolings(fits, question, model=model)
    except ValueError as reason:
        return str(reason)


def _fit_to_data(fits: Fits, model: HierarchicalModel | None) -> pd.DataFrame | str:
    try:
        return hz.check_model(fits, model=model)
    except ValueError as reason:
        return str(reason)


def _verdict(
    fits: Fits, comparisons: Mapping, model: HierarchicalModel | None, checks: pd.DataFrame | str
) -> list[str]:
    from hbm_zoo.diagnostics.verdict import verdict

    tables = {question: table for question, table in comparisons.items() if isinstance(table, pd.DataFrame)}
    return verdict(fits, tables, model, checks if isinstance(checks, pd.DataFrame) else None)


def _discoveries(fits: Fits, record: HierarchicalModel) -> pd.DataFrame | None:
    """The list of groups that differ; what would warn of it is said by the verdict."""
    fit = next(filter(has_null_group, fits.values()), None)
    if fit is None:
        return None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", SlabNotIdentified)
        warnings.simplefilter("ignore", NoiseMayHaveHeavyTails)
        return _spoken(hz.discoveries(fit, model=record), fit)


def _spoken(table: pd.DataFrame, fit) -> pd.DataFrame:
    """A table in the words of the data's owner."""
    renamed = table.rename(columns={n: theirs for n in table.columns if (theirs := word(fit, n)) not in table.columns})
    return renamed.rename_axis(index=[word(fit, str(name)) for name in table.index.names])


def _priors(record: HierarchicalModel, fits: Fits) -> pd.DataFrame:
    """Each prior: as written, its central 90 %, what it is of, and whose choice it was."""
    fit = next(iter(fits.values()))
    never = record.fixed["partial"](priors_of(fit), prepared(fit)) if "partial" in record.fixed else {}
    used = {name: prior for fit in fits.values() for name, prior in priors_of(fit).items() if name not in never}
    default = record.default_priors(prepared(fit))
    chosen = {name: used[name] for name in default if name in used and not _same(used[name], default[name])}
    expected = record.priors(prepared(fit), chosen)
    meanings = {name: of.meaning for name, of in {**record.parameters, **record.extras.nuisances}.items()}
    rows = {}
    for name in sorted(used, key=[*record.parameters, *used].index):
        callers = name in chosen or not _same(used[name], expected[name])
        of_group = f"no pooling: the prior of one {word(fit, record.group)}" + (
            "" if callers else ", matched to the others"
        )
        rows[name] = {
            "prior": describe(used[name]),
            "between": _central(used[name]),
            "meaning": meanings.get(name, of_group),
            "choice": "the caller's" if callers else "default",
        }
    return pd.DataFrame(rows).T.rename_axis("parameter")


def _same(one, other) -> bool:
    return to_json({"": one}) == to_json({"": other})


def _central(prior) -> str:
    """Where the prior puts its central 90 %, if that is known in closed form."""
    try:
        low, high = ppf(prior, 0.05), ppf(prior, 0.95)
    except (ImportError, AttributeError, TypeError, ValueError, NotImplementedError):
        return ""
    return f"{low:.3g} to {high:.3g}"


def _population(fits: Fits, record: HierarchicalModel) -> pd.DataFrame:
    """Posterior mean and interval of each hyperparameter under each pooling that learns it."""
    rows = []
    for name, fit in fits.items():
        tail = (1 - float(fit.attrs["ci_prob"])) / 2
        fixed = json.loads(fit.attrs["fixed"])
        for parameter, about in record.parameters.items():
            if parameter in fixed or parameter not in fit["posterior"]:
                continue
            draws = fit["posterior"].dataset[parameter].values.ravel()
            low, high = np.quantile(draws, [tail, 1 - tail])
            meaning = _in_their_word(about.meaning, record.group, word(fit, record.group))
            rows.append((name, parameter, draws.mean(), low, high, meaning))
    return pd.DataFrame(rows, columns=["pooling", "parameter", "mean", "lower", "upper", "meaning"])
