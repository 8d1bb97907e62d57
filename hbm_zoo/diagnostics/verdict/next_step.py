"""What the numbers ask for next."""

from __future__ import annotations

import json
from collections.abc import Mapping

import pandas as pd
import xarray as xr

from hbm_zoo.diagnostics.comparison import GROUPS_FOR_SIGNIFICANCE
from hbm_zoo.diagnostics.verdict.criticism import deciding_prior, instead
from hbm_zoo.diagnostics.verdict.prediction import is_behind
from hbm_zoo.inference.fits import named_groups, word
from hbm_zoo.model import HierarchicalModel
from hbm_zoo.words import named, plural

MISFIT = 3
PRIOR_SHARE = 0.7


def next_steps(
    record: HierarchicalModel,
    name: str,
    partial: xr.DataTree,
    tables: Mapping[str, pd.DataFrame],
    checks: pd.DataFrame | None,
    found: pd.DataFrame | None = None,
) -> list[str]:
    """What a model that does not fit asks for; a closer look at a misfit, at the prior; or the use of the result."""
    group, groups = word(partial, record.group), partial["constant_data"].sizes[record.group]
    deciding = deciding_prior(record, partial)
    steps = [
        *instead(checks, name, group),
        *_misfit(record, name, partial, tables.get("new_group")),
        *([] if deciding else _prior_weight(record, partial, groups)),
    ]
    if groups >= GROUPS_FOR_SIGNIFICANCE and any(is_behind(table.loc[name]) for table in tables.values()):
        steps.append(f"find out why partial pooling is clearly behind before using its {plural(group)}")
    use = f"report each {group} by partial pooling, with its interval"
    if found is not None and not found.attrs["identified"]:
        use = f"take no {group} for one that differs"
    return [*(steps or [use]), *deciding]


def _misfit(record: HierarchicalModel, name: str, partial: xr.DataTree, table: pd.DataFrame | None) -> list[str]:
    """Rule of thumb: p far above the number of hyperparameters is a sign of misfit."""
    if table is None:
        return []
    p = float(table.loc[name, "p"])
    sampled = set(json.loads(partial.attrs["hyperparameters"])) - set(json.loads(partial.attrs["fixed"]))
    if not p > MISFIT * len(sampled):
        return []
    summary, group = named_groups(partial), word(partial, record.group)
    surprising = summary[record.group].values[int((summary["lppd"] - summary["elpd"]).values.argmax())]
    return [
        f"look at {named(group, surprising)}, which surprises the model most ({len(sampled)} hyperparameters act as "
        f"{p:.1f}, a sign that not all {plural(group)} come from one such population)"
    ]


def _prior_weight(record: HierarchicalModel, partial: xr.DataTree, groups: int) -> list[str]:
    """A spread that is known little better than before must be asked about."""
    name = record.heterogeneity
    prior, posterior = (partial[part].dataset[name] for part in ("prior", "posterior"))
    share, counted = float(posterior.std() / prior.std()), f"{groups} {plural(word(partial, record.group))}"
    if share < PRIOR_SHARE and groups >= GROUPS_FOR_SIGNIFICANCE:
        return []
    return [
        f"fit again with another prior of {name}, and see what moves (from {counted} its posterior "
        f"sd is {share:.2f} of its prior's)"
    ]
