"""How strongly are groups pulled, and which moves farthest?"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import xarray as xr

from hbm_zoo.group_level.checks import normal_scores
from hbm_zoo.inference.fits import hyperparameters, named_groups, prepared, volume_label, word
from hbm_zoo.model import HierarchicalModel
from hbm_zoo.words import named, plain, plural, told_apart

CONTRAST = 1.5
NOTICEABLE = 0.2  # posterior standard deviations
#: Of the way of one group, more than which the median of all is no way of its own.
IN_COMMON = 0.5


def pull(record: HierarchicalModel, partial: xr.DataTree) -> list[str]:
    """Sentences on the pull of the groups, for each coefficient of the estimand."""
    summary, called = partial["group_summary"].to_dataset(), named_groups(partial)[record.group].values
    inner = [dim for dim in summary["mean"].dims if dim != record.group]
    words = {"group": word(partial, record.group), "volume": word(partial, volume_label(record, partial))}
    target = None
    if record.group_level.population and "kappa" in summary:
        target = record.group_level.target(hyperparameters(partial), prepared(partial)).mean("sample")
        if record.group_level.tails is not None or record.group_level.kind == "in closed form":
            summary["surprise"] = _surprise(record, partial, summary, target)
        target = target.broadcast_like(summary["own"]).assign_coords({record.group: called})
    summary = summary.assign_coords({record.group: called})  # from here on groups have the names of their owner
    definition = f"; kappa = {record.group_level.kappa}"
    if not inner:
        return _of_coefficient(record, summary, target, "", words, definition)
    sentences = []
    for value in summary[inner[0]].values:
        here = {inner[0]: value}
        place = target.sel(here) if target is not None else None
        several = summary.sizes[inner[0]]
        sentences += _of_coefficient(record, summary.sel(here), place, f" in {value}", words, definition, several)
        definition = ""  # once is enough
    return sentences


def _of_coefficient(
    record: HierarchicalModel,
    summary: xr.Dataset,
    target: xr.DataArray | None,
    where: str,
    words: Mapping[str, str],
    definition: str,
    one_of: int = 1,
) -> list[str]:
    """Of one of so many coefficients."""
    group, sentences = words["group"], []
    if "kappa" in summary:
        weight = float(np.median(summary["kappa"].values))
        strength = "strongly" if weight < 1 / 3 else "about half way" if weight < 2 / 3 else "little"
        sentences.append(f"the typical {group} is pulled {strength} (median kappa {weight:.2f}{where}{definition})")
    moved = abs(summary["own"] - summary["mean"]).values
    if not np.isfinite(moved).any():
        return [*sentences, f"no {group} has an estimate of its own{where} to be pulled from"]
    j = int(np.nanargmax(moved))
    if not moved[j] > NOTICEABLE * float(summary["sd"][j]):
        return [*sentences, f"no {group} moves noticeably{where}"]
    own, mean = told_apart(float(summary["own"][j]), float(summary["mean"][j]))
    why = _why(words["volume"], summary, target, j, _besides(record, group, one_of)) if target is not None else ""
    name = named(group, summary[record.group].values[j])
    return [*sentences, f"{name} moves farthest{'' if sentences else where}, from {own} to {mean}{why}"]


def _besides(record: HierarchicalModel, group: str, one_of: int) -> str:
    """What moves a group, beside the population that all are of."""
    if one_of > 1:
        return "its other coefficients"
    return "" if record.group_level.independent else f"the other {plural(group)} that it goes with"


def _why(volume_label: str, summary: xr.Dataset, target: xr.DataArray, j: int, besides: str) -> str:
    """What moves it: something else than the pull towards the target, or else what makes its pull the largest.

    Where groups are integrated numerically kappa is no weight, and where own estimates have no probability either, no
    reason is given.
    """
    place = plain(_of(target, summary, j))
    distance, moves = (summary["own"] - target).values, (summary["mean"] - summary["own"]).values
    if other := _not_the_pull(distance, moves, j, place, besides):
        return other
    away = f"{_times_the_median(abs(distance), j):.1f} times the median distance from {place}"
    weight = f"kappa {float(summary['kappa'][j]):.2f}; {volume_label} {plain(_of(summary['volume'], summary, j))}"
    if "surprise" not in summary:
        return f" ({away}; {weight})"
    return _of_its_pull(summary, distance, moves, j, besides, away, weight)


def _not_the_pull(distance: np.ndarray, moves: np.ndarray, j: int, place: str, besides: str) -> str:
    """What all move by; or, of a group that goes away from the target, what else there is."""
    in_common = float(np.nanmedian(moves))
    if in_common / moves[j] > IN_COMMON:
        return f", most of it what all move by ({plain(in_common)})"
    if distance[j] * moves[j] > 0:
        by = besides or "how its own rows count: those that lie far out less, say"
        return f", away from {place}: no pull towards that, but {by}"
    return ""


def _of_its_pull(
    summary: xr.Dataset, distance: np.ndarray, moves: np.ndarray, j: int, besides: str, away: str, weight: str
) -> str:
    """Its distance from the target or the weight of its data: whichever is further from usual.

    The way that a group moves is its surprise times what its data are moved by a surprise of one: a distance that is
    large because its data say little is no surprise.
    """
    surprise = abs(summary["surprise"].values)
    with np.errstate(divide="ignore", invalid="ignore"):
        moved_by_one = abs(moves) / surprise
    far, light = _times_the_median(surprise, j), _times_the_median(moved_by_one, j)
    if max(far, light) <= CONTRAST:
        return f", though neither its distance ({away}) nor the weight of its data ({weight}) is unusual"
    if far > light:
        what = f" for what {besides} say" if besides else " for data as precise as its own"
        return f": it lies far out{'' if _times_the_median(abs(distance), j) > CONTRAST else what} ({away})"
    least = f"less than those of {'most' if np.isfinite(distance).all() else 'most that have an estimate of their own'}"
    return f": its data weigh {'little' if float(summary['kappa'][j]) < 0.5 else least} ({weight})"


def _of(values: xr.DataArray, summary: xr.Dataset, j: int) -> float:
    """Of group j, what may be the same of all."""
    return float(values.broadcast_like(summary["own"])[j])


def _times_the_median(values: np.ndarray, j: int) -> float:
    """One of some values over the median of those that are known."""
    median = float(np.median(values[np.isfinite(values)]))
    return float(values[j]) / median if median > 0 else 1.0


def _surprise(record: HierarchicalModel, partial: xr.DataTree, summary: xr.Dataset, target: xr.DataArray):
    """How far each own estimate lies from the target, in sds of what is expected of it.

    Its normal score or, where the model has none, from kappa = Var(theta) / Var(own), true of linear shrinkage.
    """
    if record.group_level.tails is None:
        return (summary["own"] - target) * np.sqrt(summary["kappa"])
    h = hyperparameters(partial).mean("sample")
    lower, upper = record.group_level.tails(h, prepared(partial))
    return lower.copy(data=normal_scores(lower.values, upper.values))
