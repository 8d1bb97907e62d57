"""Draw hyperparameters: independently where that can be proved, else by NUTS."""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable, Hashable
from typing import Any

import numpy as np
import xarray as xr

from hbm_zoo.inference import nuts
from hbm_zoo.inference.asleep import asleep
from hbm_zoo.inference.chunks import log_joint_above
from hbm_zoo.inference.fits import model_of, priors_of
from hbm_zoo.inference.independent import MOST_DIMENSIONS, failures, resampled, weighted
from hbm_zoo.inference.log_posterior import LogPosterior, few_numbers, log_posterior
from hbm_zoo.inference.nodes import on_few_nodes, reweighted
from hbm_zoo.inference.places import Places, places
from hbm_zoo.model import HierarchicalModel
from hbm_zoo.priors import apart_from_numbers, families, numbers, to_json

# Small steps, and smaller ones if a draw diverged: where the spread, or the share of what differs, may be 0 the
# posterior is sharply curved.
TARGET_ACCEPT = (0.9, 0.98)
TUNE = 1000
#: Compiled functions that are kept, of each kind.
MOST_KEPT = 64
#: Nats below the highest proposal at which none weighs anything.
NOTHING = 60.0
#: Of the posterior, that a top must hold for chains to have to know of it.
LEAST_SHARE = 0.001

_COMPILED: dict[tuple, Any] = {}
_POSTERIORS: dict[tuple, LogPosterior] = {}


@asleep("jax")
def refit(
    fit: xr.DataTree,
    data: xr.Dataset,
    random_seed: int,
    model: HierarchicalModel | None = None,
    draws: int | None = None,
) -> xr.DataTree:
    """The same model, priors and settings on other prepared data: what `hyperparameters` and `efficiency` read.

    ``draws``, if given, is how many to keep of each chain, after a warm-up of no more.

    The model is compiled once and kept, so a refit costs about as much as its draws.
    """
    record = model_of(fit, model)
    settings: dict[str, Any] = {name: int(fit.attrs[name]) for name in ("draws", "chains")}
    engine = "nuts" if fit.attrs.get("engine") == "nuts" else "auto"
    settings |= {"seed": random_seed, "tune": int(fit.attrs.get("tune", TUNE)), "engine": engine}
    if draws is not None:
        settings |= {"draws": draws, "tune": min(draws, settings["tune"])}
    tree = sample(record, data, fit.attrs["pooling"], None, priors_of(fit), settings, False, {})
    tree.attrs |= {"fixed": fit.attrs["fixed"], "hyperparameters": fit.attrs["hyperparameters"]}
    return tree


def sample(record, data, pooling, parameterization, priors, settings, progressbar, sampler) -> xr.DataTree:
    """Draws of one pooling; none are needed where the pooling leaves no hyperparameter free."""
    if not _nothing_to_sample(record, data, pooling, parameterization, priors):
        return draw(record, data, pooling, parameterization, priors, settings, progressbar, sampler)
    empty = xr.Dataset(coords={"chain": np.arange(settings["chains"]), "draw": np.arange(settings["draws"])})
    tree = xr.DataTree.from_dict({"posterior": empty})
    tree.attrs |= {"parameterization": "exact", "engine": "exact"}
    return tree


def _nothing_to_sample(record, data, pooling, parameterization, priors) -> bool:
    """Whether no hyperparameter is left free, and groups are known given them."""
    known = record.group_level.conditional is not None
    return known and parameterization is None and set(record.fixed[pooling](priors, data)) >= set(record.parameters)


def check_independent(record, data, pooling, parameterization, priors) -> None:
    """Refuse a form that independent draws cannot be made of, before it is fitted many times.

    Raises
    ------
    ValueError
        If its unknowns are not few numbers.
    """
    form = parameterization or _default_form(record, pooling)
    exact = _nothing_to_sample(record, data, pooling, parameterization, priors)
    if not exact and _posterior(record, data, pooling, form, priors) is None:
        raise ValueError(_not_independent(_many_numbers(form)))


def _many_numbers(parameterization: str) -> str:
    return f"the {parameterization} form has arrays of unknowns, or more than {MOST_DIMENSIONS} numbers"


def _not_independent(why: str) -> str:
    return f"No independent draws: {why}. Leave 'engine' out, or pass engine='nuts'."


def _default_form(record: HierarchicalModel, pooling: str) -> str:
    """The form that is sampled where none is asked for: the groups integrated out, if they can be."""
    variants = record.variants[pooling]
    return "marginalized" if "marginalized" in variants else next(iter(variants))


def draw(record, data, pooling, parameterization, priors, settings, progressbar, sampler) -> xr.DataTree:
    """Draws of one variant by the engine that ``settings`` name; ``auto`` says why it took NUTS."""
    engine, parameterization = settings["engine"], parameterization or _default_form(record, pooling)
    posterior = _posterior(record, data, pooling, parameterization, priors)
    few, found = _posterior(record, on_few_nodes(record, data), pooling, parameterization, priors), None
    if posterior is None or few is None:
        why = _many_numbers(parameterization)
    elif not (found := places(few)).tops:
        why, found = "no draw of the prior can have brought about the data", None
    if found is None and engine == "independent":
        raise ValueError(_not_independent(why))
    if found is not None:
        why = "asked for"
        if engine != "nuts":
            fine = _to_be_made_fine(record, parameterization, settings)
            tree = _independently(record, data, pooling, priors, posterior, few, found, settings, fine)
            why = "; ".join(failures(tree.attrs["k_hat"], tree.attrs["effective_proposals"], tree.attrs["proposals"]))
            if engine == "independent" or not why:
                tree.attrs["parameterization"] = parameterization
                return tree
    tree = _by_nuts(record, data, pooling, parameterization, priors, settings, progressbar, sampler)
    tree.attrs |= {"parameterization": parameterization, "engine": "nuts", "why_nuts": why, "tune": settings["tune"]}
    tree.attrs |= _tops(found or _beside(record, data, pooling, parameterization, priors))
    return tree


def _beside(record, data, pooling, parameterization, priors) -> Places | None:
    """Places of the posterior of a form that shows its groups, by the form that has them integrated out."""
    if parameterization == "marginalized" or "marginalized" not in record.variants[pooling]:
        return None
    posterior = _posterior(record, on_few_nodes(record, data), pooling, "marginalized", priors)
    found = None if posterior is None else places(posterior)
    return found if found and found.tops else None


def _tops(found: Places | None) -> dict[Hashable, Any]:
    """How many tops hold a share of the posterior, of which chains may have seen one; nothing where none is known."""
    return {} if found is None else {"tops": int((found.shares > LEAST_SHARE).sum())}


def _independently(
    record, data, pooling, priors, posterior: LogPosterior, few: LogPosterior, found: Places, settings, fine: bool
) -> xr.DataTree:
    """Independent draws, and the proposals with their weights, of which leaving out makes use.

    ``fine``: by finer integrals than those that are sampled.
    """
    rng, fixed = np.random.default_rng(settings["seed"]), record.fixed[pooling](priors, data)
    free = [name for name in record.parameters if name not in fixed]

    def exact(x: np.ndarray) -> np.ndarray:
        h = posterior.variables(x)[free].assign(fixed)
        log_prior, rough = few.parts(x)
        least = (log_prior + rough).max() - NOTHING - log_prior
        return log_prior + log_joint_above(record, h, data, least)

    shape = settings["chains"], settings["draws"]
    points = weighted(posterior, found, np.prod(shape), rng, exact if fine else None)
    chosen, worth = resampled(points.weights, np.prod(shape), rng)
    drawn = posterior.variables(points.x[chosen])
    posterior_draws = {name: (("chain", "draw"), value.values.reshape(shape)) for name, value in drawn.items()}
    coords = {dim: np.arange(size) for dim, size in zip(("chain", "draw"), shape, strict=True)}
    weighing = points.log_ratios != -np.inf
    proposals = posterior.variables(points.x[weighing], "proposal")[free]
    proposals["log_ratio"] = "proposal", points.log_ratios[weighing]
    tree = xr.DataTree.from_dict({"posterior": xr.Dataset(posterior_draws, coords), "proposals": proposals})
    tree.attrs |= {"engine": "independent", "k_hat": points.k_hat, "proposals": len(points.x), "tops": points.tops}
    tree.attrs |= {"effective_proposals": points.ess, "efficiency": worth / chosen.size}
    return tree


def _to_be_made_fine(record: HierarchicalModel, parameterization: str, settings) -> bool:
    """Whether there are integrals in what is sampled that could be finer, and the draws are not only a pilot's."""
    integrated = parameterization == "marginalized" and record.group_level.log_sampled is not None
    return integrated and not settings.get("pilot", False)


def _by_nuts(record, data, pooling, parameterization, priors, settings, progressbar, sampler) -> xr.DataTree:
    """Draws by steps so small that none diverges, if that can be had; by those the caller asked for, if any."""
    compiled = _compile(record, data, pooling, parameterization, priors)
    for target in [sampler["target_accept"]] if "target_accept" in sampler else TARGET_ACCEPT:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            tree = nuts.sample(compiled, settings, progressbar, sampler | {"target_accept": target})
        tree.attrs["target_accept"] = target
        if not tree["sample_stats"]["diverging"].any():
            break
    if _to_be_made_fine(record, parameterization, settings):
        fixed = record.fixed[pooling](priors, data)
        tree.attrs["k_hat"] = reweighted(record, tree, data, fixed, settings["seed"])
    return tree


def posterior_of(fit: xr.DataTree, data: xr.Dataset, model: HierarchicalModel | None = None) -> LogPosterior | None:
    """The log posterior of a fit's hyperparameters given prepared data; None where it is not of a few numbers."""
    record, pooling = model_of(fit, model), fit.attrs["pooling"]
    return _posterior(record, data, pooling, _default_form(record, pooling), priors_of(fit))


def _posterior(record, data, pooling, parameterization, priors) -> LogPosterior | None:
    """The log posterior of a form of few numbers, compiled once and kept; None of another form."""
    key = _key(record, data, pooling, parameterization, priors)
    nodes = 1 if "nodes" in data.attrs else record.group_level.cells(data)  # those that are data are counted there
    arrays = {str(name): v.values for name, v in record.extras.derived(data).data_vars.items()} | numbers(priors)

    def compiled() -> LogPosterior | None:
        model = record.write(data, pooling, parameterization, priors, apart_from_numbers(priors))
        of_few = few_numbers(model) and len(model.free_RVs) <= MOST_DIMENSIONS
        return log_posterior(model, arrays, nodes, record.group_level.step) if of_few else None

    posterior = _kept(_POSTERIORS, key, compiled)
    return posterior and posterior.with_data(arrays, nodes)


def _kept(cache: dict, key: tuple, make: Callable):
    """What was made for a key; the eldest goes where there are many."""
    if key not in cache:
        if len(cache) >= MOST_KEPT:
            del cache[next(iter(cache))]
        cache[key] = make()
    return cache[key]


def _key(record, data, pooling, parameterization, priors) -> tuple:
    attrs = json.dumps(data.attrs, sort_keys=True, default=str)
    fixed = json.dumps(record.fixed[pooling](priors, data), sort_keys=True, default=float)  # constants of the model
    return record, pooling, parameterization, families(priors), attrs, fixed


def _compile(record, data, pooling, parameterization, priors):
    """A compiled variant holding `data`; one whose group level is integrated out is kept."""

    def compiled() -> nuts.Compiled:
        model = record.write(data, pooling, parameterization, priors, apart_from_numbers(priors))
        if discrete := ", ".join(variable.name for variable in model.discrete_value_vars):
            raise ValueError(
                f"NUTS cannot draw {discrete}, which is discrete: the {parameterization} form is for build only."
            )
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return nuts.compiled(model)

    key = (*_key(record, data, pooling, parameterization, priors), to_json(priors))
    found = _kept(_COMPILED, key, compiled)
    if found.dims:  # its groups are those of the data that it was compiled for
        del _COMPILED[key]
        return found
    return found.with_data(record.extras.derived(data))
