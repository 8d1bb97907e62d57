"""Draw hyperparameters: a variant is compiled once and drawn again with other data."""

from __future__ import annotations

import json
import warnings
from typing import Any

import numpy as np
import xarray as xr

from hbm_zoo.inference import nuts
from hbm_zoo.inference.fits import hyperparameters, model_of, population_fixed_at, priors_of
from hbm_zoo.inference.nodes import reweighted
from hbm_zoo.model import HierarchicalModel
from hbm_zoo.priors import to_json

# Small steps, and smaller ones if a draw diverged: where the spread, or the share of what differs, may be 0 the
# posterior is sharply curved.
TARGET_ACCEPT = (0.9, 0.98)

_COMPILED: dict[tuple, Any] = {}


def refit(
    fit: xr.DataTree,
    data: xr.Dataset,
    random_seed: int,
    model: HierarchicalModel | None = None,
    draws: int | None = None,
) -> xr.Dataset:
    """Hyperparameters [sample] of the same model, priors and settings on other prepared data.

    ``draws``, if given, is how many to keep of each chain, after a warm-up of no more.

    The model is compiled once and kept, so a refit costs about as much as its draws.
    """
    record = model_of(fit, model)
    fixed = json.loads(fit.attrs["fixed"])
    if set(fixed) >= set(record.parameters):
        return population_fixed_at(fixed)
    settings = {name: int(fit.attrs[name]) for name in ("draws", "tune", "chains")} | {"seed": random_seed}
    if draws is not None:
        settings |= {"draws": draws, "tune": min(draws, settings["tune"])}
    tree = draw(record, data, fit.attrs["pooling"], None, priors_of(fit), settings, False, {})
    tree.attrs |= {"fixed": fit.attrs["fixed"], "hyperparameters": fit.attrs["hyperparameters"]}
    return hyperparameters(tree)


def sample(record, data, pooling, parameterization, priors, settings, progressbar, sampler) -> xr.DataTree:
    """Draws of one pooling; none are needed where the pooling leaves no hyperparameter free."""
    fixed = record.fixed[pooling](priors, data)
    known = record.group_level.conditional is not None
    if not (known and parameterization is None and set(fixed) >= set(record.parameters)):
        return _without_divergences(record, data, pooling, parameterization, priors, settings, progressbar, sampler)
    empty = xr.Dataset(coords={"chain": np.arange(settings["chains"]), "draw": np.arange(settings["draws"])})
    tree = xr.DataTree.from_dict({"posterior": empty})
    tree.attrs["parameterization"] = "exact"
    return tree


def _without_divergences(record, data, pooling, parameterization, priors, settings, progressbar, sampler):
    """Draws by steps so small that none diverges, if that can be had; by those the caller asked for, if any."""
    for target in [sampler["target_accept"]] if "target_accept" in sampler else TARGET_ACCEPT:
        given = sampler | {"target_accept": target}
        tree = draw(record, data, pooling, parameterization, priors, settings, progressbar, given)
        tree.attrs["target_accept"] = target
        if not tree["sample_stats"]["diverging"].any():
            break
    return tree


def draw(record, data, pooling, parameterization, priors, settings, progressbar, sampler) -> xr.DataTree:
    """Draws of one variant by NUTS."""
    variants = record.variants[pooling]
    parameterization = parameterization or ("marginalized" if "marginalized" in variants else next(iter(variants)))
    compiled = _compile(record, data, pooling, parameterization, priors)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        tree = nuts.sample(compiled, settings, progressbar, {"target_accept": TARGET_ACCEPT[0]} | sampler)
    tree.attrs["parameterization"] = parameterization
    if parameterization == "marginalized" and record.group_level.log_sampled:
        fixed = record.fixed[pooling](priors, data)
        tree.attrs["k_hat"] = reweighted(record, tree, data, fixed, settings["seed"])
    return tree


def _compile(record, data, pooling, parameterization, priors):
    """A compiled variant holding `data`; one whose group level is integrated out is kept."""
    key = (record, pooling, parameterization, to_json(priors), json.dumps(data.attrs, sort_keys=True, default=str))
    if key in _COMPILED:
        return _COMPILED[key].with_data(record.extras.derived(data))
    model = record.write(data, pooling, parameterization, priors)
    if discrete := ", ".join(variable.name for variable in model.discrete_value_vars):
        raise ValueError(
            f"NUTS cannot draw {discrete}, which is discrete: the {parameterization} form is for build only."
        )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        compiled = nuts.compiled(model)
    if not compiled.dims:
        _COMPILED[key] = compiled
    return compiled
