"""Does a model that converged fit? Its own checks, under a rate of false alarms that is stated and was measured."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import islice

import numpy as np
import pandas as pd
import xarray as xr
from scipy import stats

from hbm_zoo.diagnostics import replicas
from hbm_zoo.diagnostics.left_out_places import error_of_two_sided, tails_left_out, two_sided
from hbm_zoo.diagnostics.pivots import Compared, shapes
from hbm_zoo.diagnostics.uniformity import LEVEL, holm
from hbm_zoo.group_level.checks import OF_ALL, OF_GROUPS, SIDES, Check, normal_scores
from hbm_zoo.inference.arguments import settled_seed
from hbm_zoo.inference.fits import Fits, check_together, model_of, named_groups, options, word
from hbm_zoo.inference.summary import interval_name, interval_tails
from hbm_zoo.model import POOLINGS, HierarchicalModel
from hbm_zoo.words import listed, named, plural

OUTLYING = "outlying"
MOST_NAMED = 5
#: Of a statistic, by which it may differ where it is the same of all data.
ROUNDING = 1e-9
TWICE = (
    "Replicates are of the same groups and were not fitted again: data are used twice, which makes p too large, if "
    "anything."
)
PASSES = "as expected"


def check_model(
    fits: Fits | xr.DataTree, random_seed: int | None = 0, model: HierarchicalModel | None = None
) -> pd.DataFrame:
    """Ask whether data look as a fitted model expects them.

    Parameters
    ----------
    fits : dict of str to xarray.DataTree, or one fit
        As `fit_poolings` returns them, or `fit`.
    random_seed : int, optional
        Seed of the replicated data; drawn if None.
    model : HierarchicalModel, optional
        The record of a model that is not in the zoo.

    Returns
    -------
    pandas.DataFrame
        One row a ``check`` and ``pooling``: what it ``compares``; ``observed``, ``expected`` and the interval that
        the model gives it; ``p``, two-sided where both sides are a misfit, and its Monte Carlo error ``p_mcse``;
        ``p_holm``, for as many checks as the pooling has; ``verdict`` in words. ``attrs``: ``rejected``, the checks
        that a pooling does not pass, by its name; ``outlying``, what its groups are called that do not belong to the
        population; ``alternative``, options of the model to try; ``note``, that data are used twice, where they are.

    Raises
    ------
    ValueError
        If fits do not belong together, or the model does not say what its checks need: which.

    Notes
    -----
    A pooling is rejected if a ``p_holm`` is below 0.05: of right models one in twenty, at most, whatever its checks are
    (Holm 1979, Scand J Stat 6:65-70). The rate was measured, and the power: docs/checks.md of the package.

    Each p value is of the same statistic on data that the fit made and that were fitted again, by the top of their
    posterior. The fit that makes them has seen the data, so that what it adapts to, a spread above all, seldom looks
    odd: p values are too large, if anything. Replicates end when each tail of each check was reached ten times, with
    fifty a check at most (Besag & Clifford 1991, Biometrika 78:301-304). "outlying" needs none: what the others expect
    of a group is known in closed form, the places of the groups are uniform one by one, and Holm's rule holds however
    they depend on one another. Its p value is that of the group that lies farthest out.

    Integrals of `population_pk`, `reaction_networks` and `variance_components` have nodes where the data of a fit are:
    replicates are of the same groups, and not fitted again. Data are used twice there, which makes p too large, if
    anything, by as much as what is compared depends on the spreads: it is rows given the others of their group, their
    shape and their order. The shape of the population of patients, or of modules, is asked of draws of the posterior,
    in which their scores are independent and standard normal if the model is right, averaged over truths and data
    (Yuan & Johnson 2012, Biometrics 68:156-164); twice the mean p value over draws is too large rather than too small.
    Groups of few rows have the scores that the model gives them, and say little.

    A check whose statistic is the same whatever such data are, the kurtosis of two groups say, is left out.

    What cannot be seen: one row a group cannot tell noise that is larger, or has heavier tails, from a population that
    is wider, or has heavier tails. Under partial pooling its spread absorbs either; only complete pooling is checked.

    Examples
    --------
    >>> import hbm_zoo as hz
    >>> fit = hz.fit("vaccine_clinics", hz.load_data("bcg_vaccine"), random_seed=1, progressbar=False)
    >>> table = hz.check_model(fit)
    >>> table.index.get_level_values("check").tolist()
    ['outlying', 'asymmetry', 'tails', 'I^2']
    >>> table["verdict"].unique().tolist()
    ['as expected']
    """
    fits = {name: fit for name, fit in check_together(fits).items() if fit.attrs["pooling"] in POOLINGS}
    if not fits:
        raise ValueError("check_model takes fits of no, complete or partial pooling; got none.")
    records = {name: model_of(fit, model) for name, fit in fits.items()}  # options may differ from fit to fit
    record, seed = next(iter(records.values())), settled_seed(random_seed)
    if not record.extras.checks:
        record.ask("check_model", "tails")
    parts = {name: _of_fit(records[name], fit, seed) for name, fit in fits.items()}
    rows = {(check, name): row for name, part in parts.items() for check, row in part.rows.items()}
    if not rows:
        raise ValueError(
            f"{record.name} has no checks of a fit of {' or '.join(fits)} pooling: give check_model a fit of "
            f"{' or '.join(name for name in POOLINGS if name not in fits)} pooling."
        )
    table = pd.DataFrame.from_dict(rows, orient="index")
    table.index = pd.MultiIndex.from_tuples(rows, names=["check", "pooling"])
    rejected = {name: [c for c, row in part.rows.items() if row["p_holm"] < LEVEL] for name, part in parts.items()}
    table.attrs |= {
        "rejected": {name: checks for name, checks in rejected.items() if checks},
        "outlying": {name: part.outlying for name, part in parts.items() if part.outlying},
        "alternative": {name: _to_try(records[name], fits[name], part.alternative) for name, part in parts.items()},
        "note": TWICE if record.group_level.nodes is not None else "",
    }
    return table


@dataclass(frozen=True)
class _Checked:
    """The rows of one pooling by check, the groups that do not belong to its population, and options to try."""

    rows: dict[str, dict]
    outlying: list
    alternative: dict[str, str | Mapping]


def _checks_of(record: HierarchicalModel, name: str) -> dict[str, Check]:
    """The checks of a pooling: those of all with tails, then the model's own, which may stand in their place."""
    of_all = OF_ALL if record.group_level.tails else {}
    return {check: of for check, of in {**of_all, **record.extras.checks}.items() if name in of.poolings}


def _of_fit(record: HierarchicalModel, fit: xr.DataTree, seed: int) -> _Checked:
    """Every check of one pooling, and its groups that do not belong."""
    called = {"group": word(fit, record.group), "groups": plural(word(fit, record.group))}
    called |= {"one": "one line" if record.moderators else "one value"}
    checks, rows, p_of_groups = _checks_of(record, fit.attrs["pooling"]), {}, None
    if record.group_level.tails and fit.attrs["pooling"] in OF_GROUPS:
        tails = tails_left_out(record, fit).assign_coords({record.group: named_groups(fit)[record.group].values})
        p_of_groups, errors = (_by_label(of(tails), record.group) for of in (two_sided, error_of_two_sided))
        rows[OUTLYING] = _farthest(p_of_groups, errors, called)
    of_draws = {name: checks.pop(name) for name in [*checks] if checks[name].of_draws}
    if of_draws:
        rows |= _by_draws(of_draws, record, fit, seed, called)
    if checks:
        rows |= _by_replicates(checks, replicas.Refits(record, fit, seed), len(rows) + len(checks), called)
    together, outlying = holm(np.array([row["p"] for row in rows.values()])), []
    if p_of_groups is not None:
        outlying = _outlying(p_of_groups, rows[OUTLYING]["p"], together[0])
        rows[OUTLYING]["wrong"] = _do_not_belong(outlying, called)
        rows[OUTLYING]["alternative"] = checks["tails"].alternative.get("more", {}) if "tails" in checks else {}
    alternative: dict[str, str | Mapping] = {}
    for row, p_holm in zip(rows.values(), together, strict=True):
        wrong, of_check = row.pop("wrong"), row.pop("alternative")
        alternative |= of_check if p_holm < LEVEL else {}
        row |= {"p_holm": p_holm, "verdict": wrong if p_holm < LEVEL else PASSES}
    return _Checked(rows, outlying, alternative)


def _by_label(p: xr.DataArray, group: str) -> pd.Series:
    """P values by the label of a group, and the coefficient if there are several."""
    labelled = p.transpose(group, ...).to_series().dropna()
    if labelled.index.nlevels > 1:
        labelled.index = [" ".join(map(str, label)) for label in labelled.index]
    return labelled


def _farthest(p: pd.Series, errors: pd.Series, called: Mapping[str, str]) -> dict:
    """The group farthest from what the others expect of it, by Bonferroni, which is Holm's first step."""
    tails = interval_tails()
    low, middle, high = stats.beta.ppf([tails[0], 0.5, tails[1]], 1, p.size)
    compares = "smallest p value of a {group}, given the others".format(**called)
    return {
        "compares": compares,
        "observed": p.min(),
        **_expected(middle, low, high),
        "p": min(1.0, p.size * p.min()),
        "p_mcse": p.size * float(errors.iloc[int(np.argmin(p))]),
    }


def _outlying(p: pd.Series, of_first: float, together: float) -> list:
    """The groups that lie too far out, the farthest first, by Holm's rule over groups, within that over checks."""
    p = p.sort_values(kind="stable")
    return p.index[holm(p.to_numpy()) * (together / of_first if of_first > 0 else 1.0) < LEVEL].tolist()


def _do_not_belong(labels: list, called: Mapping[str, str]) -> str:
    """The first of them by name."""
    shown = [named(called["group"], label) for label in labels[:MOST_NAMED]]
    shown += [f"{len(labels) - MOST_NAMED:,} more"] if len(labels) > MOST_NAMED else []
    count = f"{len(labels):,} {called['group']} does" if len(labels) == 1 else f"{len(labels):,} {called['groups']} do"
    return f"{count} not belong to the population: {listed(shown)}" if shown else ""


def _expected(middle: float, low: float, high: float) -> dict[str, float]:
    name = interval_name()
    return {"expected": middle, f"{name}_lb": low, f"{name}_ub": high}


def _by_replicates(
    checks: Mapping[str, Check], refits: replicas.Refits, among: int, called: Mapping[str, str]
) -> dict[str, dict]:
    """A row for each check whose statistic is compared with those of replicated data; it is among so many.

    One that is the same of all such data, but for rounding, as the kurtosis of two scores is, tells nothing; nor does a
    count of what no such data hold.
    """
    seen, expected = _statistics(checks, refits, refits.data)
    left, least, most = seen - expected, seen, seen
    drawn = np.empty((0, len(checks)))
    for data in islice(refits, max(replicas.LEAST, replicas.MOST_A_CHECK * among - 1)):
        statistic, of_it = _statistics(checks, refits, data)
        drawn = np.vstack([drawn, statistic - of_it])
        least, most = np.fmin(least, statistic), np.fmax(most, statistic)
        if len(drawn) >= replicas.LEAST and _known_well_enough(drawn, left):
            break
    return {
        name: _row(check, _compared(seen[k], expected[k], drawn[:, k]), called)
        for k, (name, check) in enumerate(checks.items())
        if not most[k] - least[k] <= ROUNDING * max(abs(seen[k]), abs(expected[k]))
    }


def _compared(seen: float, expected: float, drawn: np.ndarray) -> Compared:
    """A statistic, and what is left of it in replicated data."""
    left = seen - expected
    exceeds = {"more": drawn >= left, "fewer": drawn <= left}
    p = {side: replicas.sequential_p(hits) for side, hits in exceeds.items()}
    used = {side: replicas.stopped_at(hits) for side, hits in exceeds.items()}
    error = {side: float(np.sqrt(value * max(1 - value, 0) / used[side])) for side, value in p.items()}
    return Compared(seen, expected, drawn, p, error)


def _by_draws(
    checks: dict[str, Check], record: HierarchicalModel, fit: xr.DataTree, seed: int, called: Mapping[str, str]
) -> dict[str, dict]:
    """A row for each check and coefficient whose scores in draws of the posterior have a known law."""
    found = shapes(record, fit, checks, seed)
    return {
        name: _row(check, one, {**called, "coefficient": coefficient, "farthest": named(called["group"], group)})
        for name, check, one, coefficient, group in found
    }


def _statistics(checks: Mapping[str, Check], refits: replicas.Refits, data: xr.Dataset) -> tuple:
    """Each statistic of some data, fitted, and what is expected of it there."""
    h, scores, level = xr.Dataset(), np.empty(0), refits.record.group_level
    if not all(check.of_data for check in checks.values()):
        h = refits.fitted(data)
        if level.tails:
            scores = normal_scores(*(tail.values for tail in level.tails(h, data)))
    placed = level.at(h, data) if h else h
    pairs = [(check.statistic(placed, data, scores), check.expected(placed, data)) for check in checks.values()]
    return np.array([seen for seen, _ in pairs], float), np.array([expected for _, expected in pairs], float)


def _known_well_enough(drawn: np.ndarray, left: np.ndarray) -> bool:
    """Whether each tail of each check was reached often enough."""
    return bool(np.minimum((drawn >= left).sum(axis=0), (drawn <= left).sum(axis=0)).min() >= replicas.ENOUGH)


def _row(check: Check, found: Compared, called: Mapping[str, str]) -> dict:
    """Observed, expected, and the p value of the sides that are a misfit."""
    asked = [side for side in SIDES if getattr(check, side)]
    side = min(asked, key=found.p.__getitem__)
    low, high = np.quantile(found.drawn, interval_tails())
    return {
        "compares": check.compares.format(**called),
        "observed": found.seen,
        **_expected(found.expected + found.drawn.mean(), found.expected + low, found.expected + high),
        "p": min(1.0, len(asked) * found.p[side]),
        "p_mcse": len(asked) * found.p_mcse[side],
        "wrong": getattr(check, side).format(**called),
        "alternative": check.alternative.get(side, {}),
    }


def _to_try(record: HierarchicalModel, fit: xr.DataTree, alternative: Mapping) -> dict[str, str]:
    """Options that are not those of the fit; one may be said by its value in the fit, as what follows on that.

    Where they do not go with another option of the fit, that one is as it is by default.
    """
    has, found = record.chosen | options(fit), {}
    for name, value in alternative.items():
        found[name] = value.get(has.get(name)) if isinstance(value, Mapping) else value
    found = {name: value for name, value in found.items() if value not in (None, has.get(name))}
    defaults = {name: next(iter(known)) for name, known in record.alternatives.items()}
    try:
        record.under(**{name: value for name, value in found.items() if name in defaults})
    except ValueError:
        found |= {n: value for n, value in defaults.items() if n not in found and record.chosen[n] != value}
    return found
