"""Complete a fit: everything that draws of the hyperparameters and the data determine."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping

import numpy as np
import pymc as pm
import xarray as xr
from pymc_extras.prior import Prior

from hbm_zoo.frames.inputs import largest
from hbm_zoo.inference.chunks import each_group
from hbm_zoo.inference.fits import efficiency, free, hyperparameters, proposals, thinned
from hbm_zoo.inference.loo import relative_efficiency
from hbm_zoo.inference.nodes import as_groups
from hbm_zoo.inference.prior import log_likelihood, log_prior, prior
from hbm_zoo.inference.summary import group_summary, rank_summary, summary_of_draws
from hbm_zoo.model import HierarchicalModel

LARGEST_ARRAY = 20_000_000
PREDICTIVE_DRAWS = 500


def complete(record: HierarchicalModel, tree: xr.DataTree, data: xr.Dataset, priors: Mapping[str, Prior]) -> None:
    """Add to a fit everything that draws of the hyperparameters and the data determine."""
    _add_page(record, tree, data, priors)
    if record.group_level.conditional is None:
        _complete_from_draws(record, tree, data, priors)
    else:
        add_groups(record, tree, data)


def add_groups(record: HierarchicalModel, tree: xr.DataTree, data: xr.Dataset) -> None:
    """Add to a fit the summary and the draws of its groups, known given its hyperparameters."""
    rng = np.random.default_rng(tree.attrs["seed"])
    h, worth = hyperparameters(tree), efficiency(tree)
    summary = group_summary(record, tree.attrs["pooling"], h, data, worth, proposals(tree))
    if _tells_groups_apart(tree, data):
        summary = summary.merge(rank_summary(_rank_draws(record, tree, h, data, rng), record.group, worth))
    tree["group_summary"] = xr.DataTree(summary)
    _add_arrays(record, tree, data, rng)


def _complete_from_draws(record, tree, data, priors) -> None:
    """Add to a fit what draws alone say of the groups: no kappa, nothing of a group left out."""
    posterior = tree["posterior"].to_dataset()
    if record.group not in posterior.get(record.estimand, xr.DataArray()).dims:
        raise ValueError(
            f"{record.name} does not say what is known of a {record.group} given the hyperparameters, so its "
            f"{tree.attrs['pooling']} pooling must show {record.estimand!r} by {record.group}."
        )
    draws = posterior[record.estimand].stack(sample=("chain", "draw")).reset_index("sample", drop=True)
    summary = summary_of_draws(record, draws.drop_vars(["chain", "draw"], errors="ignore"), data)
    if _tells_groups_apart(tree, data):
        summary = summary.merge(rank_summary(draws, record.group, relative_efficiency(posterior[[record.estimand]])))
    tree["group_summary"] = xr.DataTree(summary)
    sampled = record.write(data, tree.attrs["pooling"], tree.attrs["parameterization"], priors)
    every = slice(None, None, max(1, posterior.sizes["draw"] // PREDICTIVE_DRAWS))
    predictive = pm.sample_posterior_predictive(
        xr.DataTree.from_dict({"posterior": posterior.isel(draw=every)}),
        model=sampled,
        random_seed=tree.attrs["seed"],
        progressbar=False,
        compile_kwargs={"mode": "FAST_COMPILE"},
    )
    tree["posterior_predictive"] = predictive["posterior_predictive"]
    tree["log_likelihood"] = xr.DataTree(log_likelihood(sampled, posterior))


def _tells_groups_apart(tree, data) -> bool:
    """Whether groups have ranks: there are several, and they are not all the same."""
    return tree.attrs["pooling"] != "complete" and data.sizes[tree.attrs["group"]] > 1


def _add_page(record, tree, data, priors) -> None:
    """Prior, prior predictive, observed and constant data, from the model on the page; the log prior of the draws."""
    pooling, whole = tree.attrs["pooling"], not _too_large(tree, data)
    page = record.write(data, pooling, next(iter(record.variants[pooling])), priors)
    draws = max(1, min(PREDICTIVE_DRAWS, LARGEST_ARRAY // largest(data)))
    before = prior(record, page, data, json.loads(tree.attrs["fixed"]), draws, tree.attrs["seed"], whole)
    for group in ("prior", "prior_predictive", "observed_data"):
        if group in before and before[group].data_vars:
            tree[group] = before[group]
    for group, dataset in as_groups(data).items():
        tree[group] = xr.DataTree(dataset)
    if tree.attrs["parameterization"] != "exact":
        sampled = record.write(data, pooling, tree.attrs["parameterization"], priors)
        tree["log_prior"] = xr.DataTree(log_prior(sampled, tree["posterior"].to_dataset()))


def _rank_draws(record, tree, h, data, rng) -> xr.DataArray:
    """Joint draws [sample, group] of every group, as many as the budget allows, 1000 at most."""
    most = max(50, min(1000, LARGEST_ARRAY // 4 // data.sizes[record.group]))
    few = h.isel(sample=np.zeros(most, int)) if h.sizes["sample"] == 1 else thinned(h, most)
    level = record.group_level
    draws = each_group(record, data, most, lambda part: level.reported(level.conditional(few, part).sample(rng), part))
    return draws.transpose("sample", ...)


def _add_arrays(record, tree, data, rng) -> None:
    """Draws x groups for ArviZ and people, unless they would be too large."""
    posterior = tree["posterior"].to_dataset()
    if _too_large(tree, data):
        tree.attrs["left_out"] = (
            f"posterior[{record.estimand}], log_likelihood, prior_predictive, posterior_predictive: "
            f"beyond {LARGEST_ARRAY:g} values"
        )
        return
    level, h, theta = record.group_level, _every_draw(tree), _sampled(record, tree)
    formulas = {} if theta is not None else {"theta": _sampler(record, h, rng)}
    if tree.attrs["pooling"] != "none" and free(tree) and "circular" not in data.attrs:
        formulas["log_left_out"] = level.log_left_out
    known = _at_each_draw(record, h, data, formulas) if formulas else {}
    theta = known.get("theta", theta)
    if record.estimand not in posterior:
        tree["posterior"] = xr.DataTree(posterior.assign({record.estimand: level.reported(theta, data)}))
    kept = max(1, min(PREDICTIVE_DRAWS, LARGEST_ARRAY // posterior.sizes["chain"] // largest(data)))
    every = slice(None, None, -(-posterior.sizes["draw"] // kept))
    replicated = level.replicate(rng, theta.isel(draw=every), h.isel(draw=every), data, data)
    tree["posterior_predictive"] = xr.DataTree(
        xr.Dataset({record.observed: replicated.transpose("chain", "draw", ...)})
    )
    if "log_left_out" in known:
        tree["log_likelihood"] = xr.DataTree(xr.Dataset({record.observed: known["log_left_out"]}))


def _too_large(tree, data) -> bool:
    """Whether an array of draws x groups would be beyond the budget."""
    sizes = tree["posterior"].sizes
    return sizes["chain"] * sizes["draw"] * data.sizes[tree.attrs["group"]] > LARGEST_ARRAY


def drawn(record, tree, data, rng) -> tuple[xr.Dataset, xr.DataArray]:
    """Draws of the hyperparameters, what is fixed included, and of each group's parameter [chain, draw]."""
    h, theta = _every_draw(tree), _sampled(record, tree)
    return h, recovered(record, h, data, rng) if theta is None else theta


def recovered(record, h, data, rng) -> xr.DataArray:
    """Exact draws of each group's parameter, one for each draw of the hyperparameters [chain, draw]."""
    return _at_each_draw(record, h, data, {"theta": _sampler(record, h, rng)})["theta"]


def _every_draw(tree) -> xr.Dataset:
    """Draws of the hyperparameters [chain, draw], what is fixed included."""
    posterior = tree["posterior"].to_dataset()
    h = posterior[free(tree)].assign_coords(chain=posterior.chain, draw=posterior.draw)
    return h.assign(json.loads(tree.attrs["fixed"]))


def _sampled(record, tree) -> xr.DataArray | None:
    """Draws of each group's parameter where the sampler has made them."""
    return None if record.group_level.reports_another else tree["posterior"].to_dataset().get(record.estimand)


def _sampler(record, h, rng) -> Callable:
    """One draw of each group's parameter for each of the hyperparameters."""
    shape = xr.DataArray(np.ones((h.sizes["chain"], h.sizes["draw"])), dims=("chain", "draw"))
    return lambda h, part: record.group_level.conditional(h, part).over(shape).sample(rng)


def _at_each_draw(record, h, data, formulas: Mapping[str, Callable]) -> xr.Dataset:
    """What formulas say of each draw and group [chain, draw, ...], in turn of the same groups, with what they share."""

    def said(part: xr.Dataset) -> xr.Dataset:
        return xr.Dataset({name: formula(h, part) for name, formula in formulas.items()})

    found = each_group(record, data, h.sizes["chain"] * h.sizes["draw"], said)
    return found.transpose("chain", "draw", ...).assign_coords(chain=h.chain, draw=h.draw)
