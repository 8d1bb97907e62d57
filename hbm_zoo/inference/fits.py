"""Read a fit: whose it is, what it holds, and whether fits belong together."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping

import numpy as np
import pandas as pd
import xarray as xr

from hbm_zoo.frames.moderators import OPTION, again
from hbm_zoo.inference.loo import relative_efficiency
from hbm_zoo.model import HierarchicalModel
from hbm_zoo.priors import from_json
from hbm_zoo.zoo import record_of

Fits = Mapping[str, xr.DataTree]
#: In a fit's summary of its groups, and its table: what a group is called beside its label.
LABEL = "label"


def model_of(fit: xr.DataTree, model: HierarchicalModel | None = None) -> HierarchicalModel:
    """The record that holds for a fit: by name, or a record of the caller's own, under the fit's options.

    Raises
    ------
    ValueError
        If the fit names no model of the zoo and none is given, or another one than given.
    """
    if not isinstance(fit, xr.DataTree):
        several = f": {', '.join(map(repr, fit))}. Give one of them" if isinstance(fit, Mapping) else ""
        raise ValueError(f"Expected one fit, got a {type(fit).__name__}{several}.")
    name = fit.attrs.get("model")
    if name is None:
        raise ValueError("Expected a fit made by hbm_zoo.fit, got a DataTree whose attrs name no model.")
    record = record_of(name if model is None else model)
    if record.name != name:
        raise ValueError(f"The fit is of {name!r}, but the model given is {record.name!r}.")
    return record.under(**{name: value for name, value in options(fit).items() if name in record.changing})


def prepared(fit: xr.DataTree) -> xr.Dataset:
    """The data as the model saw them, the nodes of its integrals among them, in memory."""
    data = fit["constant_data"].to_dataset().load()
    if "nodes" not in fit.children:
        return data
    nodes = fit["nodes"].to_dataset().load()
    return data.merge(nodes).assign_attrs(data.attrs | {"nodes": sorted(map(str, nodes.data_vars))})


def volume_label(record: HierarchicalModel, fit: xr.DataTree) -> str:
    """What the volume of a group's data is counted in, in the words of the record."""
    return str(record.volume(prepared(fit)).name)


def options(fit: xr.DataTree) -> dict:
    """The options that a fit was made with."""
    return json.loads(fit.attrs.get("options", "{}"))


def word(fit: xr.DataTree, name: str) -> str:
    """What the data's owner calls a column or dim of the model: ``frame.attrs["labels"]`` when it was fitted."""
    return json.loads(fit.attrs.get("labels", "{}")).get(name, name)


def named_groups(fit: xr.DataTree) -> xr.Dataset:
    """The summary of a fit's groups, each under its name where ``fit(label=...)`` gave one.

    Groups that share a name keep their label behind it.
    """
    summary, dim = fit["group_summary"].to_dataset(), fit.attrs["group"]
    if LABEL not in summary:
        return summary
    names = pd.Series(summary[LABEL].values.astype(object))
    shared = names.duplicated(keep=False)
    labels = summary[dim].values[shared]
    names[shared] = [f"{name} ({label})" for name, label in zip(names[shared], labels, strict=True)]
    return summary.assign_coords({dim: names.to_numpy()})


def called_by(fit: xr.DataTree) -> str:
    """What the data's owner calls that by which groups are called: the column of their names, or of their labels."""
    return word(fit, LABEL if LABEL in fit["group_summary"] else fit.attrs["group"])


def settings(fit: xr.DataTree, without: Collection[str] = ()) -> str:
    """The options that a fit was made with, for all that is printed to repeat: ``center = 34.42``.

    Not those that are off, nor those that make no other model than the page's.
    """
    as_by_default = json.loads(fit.attrs.get("as_by_default", "[]"))
    on = {name: value for name, value in in_words(fit).items() if value is not False}
    on = {name: value for name, value in on.items() if name not in {*without, *as_by_default}}
    return ", ".join(f"{n} = {v:.4g}" if isinstance(v, float) else f"{n} = {v}" for n, v in on.items())


def in_words(fit: xr.DataTree) -> dict:
    """The options that a fit was made with; of moderators the names of their columns."""
    given = options(fit)
    return given | ({OPTION: " + ".join(each.in_words for each in again(given[OPTION]))} if OPTION in given else {})


def priors_of(fit: xr.DataTree) -> dict:
    """The priors of a fit, as frozen when it was made."""
    return from_json(fit.attrs["priors"])


def hyperparameters(fit: xr.DataTree) -> xr.Dataset:
    """Draws of the population's hyperparameters [sample], what the pooling fixed included.

    Raises
    ------
    ValueError
        If one has a dim of its own, such as the groups': chunks of groups would then be taken for all of them.
    """
    fixed, names = json.loads(fit.attrs["fixed"]), free(fit)
    if not names:
        return population_fixed_at(fixed)
    drawn = fit["posterior"].dataset[names]
    if further := sorted(map(str, set(drawn.dims) - {"chain", "draw"})):
        raise ValueError(
            f"Hyperparameters are one number a draw; these have {', '.join(further)} as well. What differs between "
            "groups before their data is placed by the group level's `at`."
        )
    drawn = drawn.stack(sample=("chain", "draw")).reset_index("sample", drop=True)
    return xr.broadcast(drawn.drop_vars(["chain", "draw"], errors="ignore").assign(fixed))[0]


def free(fit: xr.DataTree) -> list[str]:
    """The hyperparameters that the pooling of a fit leaves free."""
    fixed = json.loads(fit.attrs["fixed"])
    return [name for name in json.loads(fit.attrs["hyperparameters"]) if name not in fixed]


def efficiency(fit: xr.DataTree) -> float:
    """Effective draws of the hyperparameters over draws: by the weights of independent draws, by the ESS of chains."""
    if not free(fit):  # what is known without error
        return 1.0
    if "efficiency" in fit.attrs:
        return float(fit.attrs["efficiency"])
    return relative_efficiency(fit["posterior"].dataset[free(fit)])


def proposals(fit: xr.DataTree) -> xr.Dataset | None:
    """The hyperparameters [sample] that independent draws were made of, and the logs of their weights, ``log_ratio``.

    They lie farther apart than the draws, and are independent, which is what leaving data out needs. Those without any
    weight, where no density is defined, are not among them: what data left out have there is not defined either.
    """
    if "proposals" not in fit.children:
        return None
    proposed = fit["proposals"].to_dataset().rename(proposal="sample")
    proposed = proposed.isel(sample=np.flatnonzero(proposed["log_ratio"] > -np.inf))
    return xr.broadcast(proposed.assign(json.loads(fit.attrs["fixed"])))[0]


def population_fixed_at(values: Mapping[str, float]) -> xr.Dataset:
    """Hyperparameters known in advance, as a Dataset with one sample."""
    return xr.Dataset({name: ("sample", [float(value)]) for name, value in values.items()})


def thinned(h: xr.Dataset, most: int) -> xr.Dataset:
    """At most `most` hyperparameter draws, evenly spaced."""
    size = h.sizes["sample"]
    return h if size <= most else h.isel(sample=np.linspace(0, size - 1, most).round().astype(int))


def check_together(fits: Fits | xr.DataTree) -> dict[str, xr.DataTree]:
    """Return fits as a plain dict if they are of one model on one data set.

    Raises
    ------
    ValueError
        If there is no fit, a value is not one, or two are of other models or other data.
    """
    if not isinstance(fits, Mapping):  # a fit is one, too
        raise ValueError(f"Expected fits made by hbm_zoo.fit, one or a dict of them, got {type(fits).__name__}.")
    if isinstance(fits, xr.DataTree):
        fits = {fits.attrs.get("pooling", "fit"): fits}
    if not fits:
        raise ValueError("Expected at least one fit, got none.")
    for name, fit in fits.items():
        if not isinstance(fit, xr.DataTree) or "model" not in fit.attrs:
            raise ValueError(
                f"Expected fits made by hbm_zoo.fit; {name!r} is a {type(fit).__name__} that names no model."
            )
    (first, reference), *others = fits.items()
    for name, fit in others:
        for what in ("model", "data_hash"):
            if fit.attrs[what] != reference.attrs[what]:
                described = "other data" if what == "data_hash" else f"another model, {fit.attrs[what]!r}"
                raise ValueError(f"These fits do not belong together: {name!r} is of {described} than {first!r}.")
    return dict(fits)
