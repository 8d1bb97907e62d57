"""Does the model fit, do groups differ at all, and is it the prior that says so?"""

from __future__ import annotations

import warnings

import pandas as pd
import xarray as xr

from hbm_zoo.diagnostics.evidence import evidence, spreads_of
from hbm_zoo.diagnostics.model_checks import MOST_NAMED, OUTLYING, check_model
from hbm_zoo.diagnostics.sensitivity import DECIDES, sensitivity
from hbm_zoo.inference.convergence import ConvergenceWarning
from hbm_zoo.inference.fits import Fits, free, word
from hbm_zoo.inference.summary import interval_name
from hbm_zoo.model import HierarchicalModel
from hbm_zoo.words import listed, plain, plural

#: Groups up to which refits under other priors take next to no time, and hyperparameters.
FEW_GROUPS, FEW_PARAMETERS = 200, 6
MOST_SAID = 3
#: Where more is to be computed than a verdict should take.
ASK = "hz.evidence says, and hz.sensitivity whether a prior decides"


def misfit(checks: pd.DataFrame | None, name: str) -> list[str]:
    """What partial pooling does not fit, the worst first; nothing if its checks find nothing."""
    if checks is None or name not in checks.attrs["rejected"]:
        return []
    rows = _rejected(checks, name)
    said = [_said(check, row) for check, row in rows.head(MOST_SAID).iterrows()]
    more = f"; {len(rows) - MOST_SAID} more of its checks fail" if len(rows) > MOST_SAID else ""
    return [f"Partial pooling does not fit: {'; '.join(said)}{more}{_supposed(rows.head(MOST_SAID))}."]


def _supposed(rows: pd.DataFrame) -> str:
    """What is supposed where a check says what is expected."""
    said = dict.fromkeys(supposed for what in rows["compares"] if (supposed := what.partition(", as if ")[2]))
    return f"; what is expected is as if {listed(said)}" if said else ""


def _rejected(checks: pd.DataFrame, name: str) -> pd.DataFrame:
    """The checks that a pooling does not pass, those farthest from what is expected first."""
    rows = checks.xs(name, level="pooling").loc[checks.attrs["rejected"][name]]
    low, high = (rows[f"{interval_name()}_{end}"] for end in ("lb", "ub"))
    far = (rows["observed"] - rows["expected"]).abs() / (high - low).where(high > low)
    far[rows.index == OUTLYING] = float("inf")  # a group by its name says most
    return rows.loc[far.sort_values(ascending=False, kind="stable").index]


def _said(check: object, row: pd.Series) -> str:
    """A check that failed, with its numbers."""
    if check == OUTLYING:
        return str(row["verdict"])
    return f"{row['verdict']} ({_numbers(row)})"


def instead(checks: pd.DataFrame | None, name: str, group: str) -> list[str]:
    """What to do with a model that its checks reject: look at groups by name, or another form of it."""
    if checks is None or name not in checks.attrs["rejected"]:
        return []
    steps = [f"do not report each {group} by this fit"]
    if options := checks.attrs["alternative"].get(name):
        steps.append(f"fit again with {listed(f'{option}={value!r}' for option, value in options.items())}")
    if labels := checks.attrs["outlying"].get(name):
        steps.append(f"find out what is different about {listed(map(str, labels[:MOST_NAMED]))}")
    if len(steps) == 1:
        steps.append("find out why it does not fit, which no option of it mends")
    return steps


def differ_at_all(record: HierarchicalModel, fits: Fits, checks: pd.DataFrame | None) -> list[str]:
    """The evidence that groups differ, beside the classical test of complete pooling; where it costs more, who says."""
    of = {fit.attrs["pooling"]: (name, fit) for name, fit in fits.items()}
    if not {"complete", "partial"} <= set(of):
        return []
    try:
        spreads_of(record, of["complete"][1], of["partial"][1])
    except ValueError:
        return []  # complete pooling is no special case of partial pooling
    how_strong = f"How strong the evidence is that {_groups(record, of['partial'][1])} differ"
    if not _costs_little(record, of["partial"][1]):
        return [f"{how_strong} is not asked here: {ASK}."]
    try:
        table = _quietly(evidence, dict(of.values()), model=record)
    except ValueError as error:
        return [f"{how_strong} could not be computed ({_clause(error)})."]
    factor, mcse = table.loc[1.0, ["log_bayes_factor", "mcse"]]
    narrow, wide = (table["log_bayes_factor"][scale] for scale in (0.5, 2.0))
    said = f"log Bayes factor {factor:.1f} nats, MCSE {mcse:.2f}; prior halved {narrow:.1f}, doubled {wide:.1f}"
    classical = _classical(record, checks, *of["complete"])
    scale = f"; the {table.attrs['scale']}" if table.attrs["scale"] else ""
    return [f"{table.attrs['verdict'].partition(':')[0]} ({said}{classical}{scale})."]


def _clause(error: ValueError) -> str:
    """What an error says, within a sentence."""
    return str(error).removesuffix(".")


def _groups(record: HierarchicalModel, partial: xr.DataTree) -> str:
    return plural(word(partial, record.group))


def _classical(record: HierarchicalModel, checks: pd.DataFrame | None, name: str, complete: xr.DataTree) -> str:
    """What the classical test of complete pooling sees, of a model that has one."""
    if checks is None:
        return ""
    if name not in checks.index.get_level_values("pooling"):
        try:
            checks = _quietly(check_model, {name: complete}, model=record)
        except ValueError:  # it has none
            return ""
    return f"; {_numbers(checks.loc[('spread', name)])}" if ("spread", name) in checks.index else ""


def _numbers(row: pd.Series) -> str:
    """A statistic, and where the model puts it."""
    name = row["compares"].partition(",")[0].partition(":")[0]
    ends = " to ".join(plain(float(row[f"{interval_name()}_{end}"])) for end in ("lb", "ub"))
    return f"{name}{':' if name[-1:].isdigit() else ''} {plain(float(row['observed']))}, expected {ends}"


def deciding_prior(record: HierarchicalModel, partial: xr.DataTree) -> list[str]:
    """The prior whose scale, halved or doubled, moves hyperparameters or groups; only where it costs little to know."""
    if not _costs_little(record, partial):
        return []
    try:
        table = _quietly(sensitivity, partial, model=record)
    except ValueError as error:
        return [f"look at the priors by hand: what moves with their scales could not be computed ({_clause(error)})"]
    moved = table.drop(index="as it is", level="parameter")[["moved", "groups_moved"]].max(axis=1)
    by_prior = moved.groupby(level="parameter", sort=False).max()
    deciding = by_prior[by_prior > DECIDES]
    if deciding.empty:
        return []
    said = listed(f"{name} ({value:.1f} posterior sd)" for name, value in deciding.items())
    return [f"say why the prior was chosen: with its scale halved or doubled estimates move, by that of {said}"]


def _costs_little(record: HierarchicalModel, partial: xr.DataTree) -> bool:
    """Whether refits are of a closed form, of few groups and of few hyperparameters."""
    few = partial["constant_data"].sizes[record.group] <= FEW_GROUPS and len(free(partial)) <= FEW_PARAMETERS
    return few and record.group_level.kind == "in closed form"


def _quietly(verb, *arguments, **named):
    """What a verb says, its warnings aside: refits under other priors may be harder to draw."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        return verb(*arguments, **named)
