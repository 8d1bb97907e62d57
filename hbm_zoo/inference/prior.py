"""What was known before the data: draws of the prior and of the data it expects, and its density at other draws."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
import pymc as pm
import xarray as xr
from arviz_base import dict_to_dataset
from pymc.distributions.shape_utils import change_dist_size
from pymc.pytensorf import compile
from pytensor import function
from pytensor.graph.replace import vectorize_graph
from pytensor.graph.traversal import ancestors
from pytensor.tensor import tensor

from hbm_zoo.inference.chunks import in_portions
from hbm_zoo.model import HierarchicalModel
from hbm_zoo.priors import ONCE


def prior(
    record: HierarchicalModel,
    page: pm.Model,
    data: xr.Dataset,
    fixed: Mapping[str, float],
    draws: int,
    seed: int,
    whole: bool = True,
) -> xr.DataTree:
    """The groups prior, prior_predictive and observed_data of a fit.

    Parameters
    ----------
    record, page : HierarchicalModel, pymc.Model
        The model, and the form on its page.
    data : xarray.Dataset
        Prepared data.
    fixed : mapping of str to float
        The hyperparameters that the pooling fixes.
    draws, seed : int
        How many draws, and their seed.
    whole : bool
        Whether groups and data are drawn, or numbers that all groups share only.

    Returns
    -------
    xarray.DataTree
        The variables of the page [chain, draw, ...]: numbers, the estimand by group, and the data. Where the group
        level does not say how these come about, PyMC draws every variable of the page.
    """
    level = record.group_level
    if whole and not (level.population and level.replicate and (level.independent or level.emptied)):
        return by_pymc(page, draws, seed)
    drawn = numbers(page, draws, seed)
    if whole:
        rng = np.random.default_rng([seed, 1])
        h = xr.Dataset({name: ("draw", value) for name, value in drawn.items() if name in record.parameters})
        theta, new = replicated(record, h.assign(fixed), data, draws, rng)
        by_name = {record.estimand: level.reported(theta, data), record.observed: new}
        dims = page.named_vars_to_dims
        # A page may show the data in another form than they come in: contrasts of rows.
        as_shown = {n: v for n, v in by_name.items() if n in page.named_vars and {"draw", *dims[n]} == {*v.dims}}
        drawn |= {n: v.transpose("draw", *dims[n]).values for n, v in as_shown.items()}
    return pm.to_inference_data(prior=drawn, model=page)


def numbers(page: pm.Model, draws: int, seed: int) -> dict[str, np.ndarray]:
    """Draws [draw] of what is one number on the page and depends on no group, by name."""
    by_group = {variable for variable in page.basic_RVs if variable.type.ndim}
    alone = [v for v in page.free_RVs + page.deterministics if not (v.type.ndim or by_group & set(ancestors([v])))]
    random = [variable for variable in page.free_RVs if variable in alone]
    first = [variable for variable in random if not set(ancestors([variable])) & set(random) - {variable}]
    many = vectorize_graph(alone, {variable: change_dist_size(variable, (draws,), expand=True) for variable in first})
    values = compile([], many, random_seed=seed, mode=ONCE)()
    return {variable.name: value for variable, value in zip(alone, values, strict=True)}


def replicated(record, h: xr.Dataset, data: xr.Dataset, draws: int, rng) -> tuple[xr.DataArray, xr.DataArray]:
    """Parameters of new groups like those of the data, each with a draw of its own, and new data [draw, ...]."""
    level = record.group_level
    h = h if "draw" in h.dims else h.expand_dims(draw=draws)
    theta = level.before(h, data, record.group).sample(rng)
    return theta, level.replicate(rng, theta, h, data, level.unseen(data))


def by_pymc(page: pm.Model, draws: int, seed: int) -> xr.DataTree:
    """Every variable of the page, one draw after another."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        logging.getLogger("pymc").setLevel(logging.ERROR)
        return pm.sample_prior_predictive(draws, model=page, random_seed=seed, compile_kwargs={"mode": "FAST_COMPILE"})


def log_prior(model: pm.Model, posterior: xr.Dataset) -> xr.Dataset:
    """Log density of each sampled variable at its draws, given those it depends on.

    Parameters
    ----------
    model : pymc.Model
        The form that was sampled.
    posterior : xarray.Dataset
        Draws [chain, draw, ...] of all its free variables.

    Returns
    -------
    xarray.Dataset
        By the name of each variable, [chain, draw, ...] [nats]; without the dims that one density covers.

    Examples
    --------
    >>> with pm.Model() as model:
    ...     tau = pm.HalfNormal("tau")
    ...     theta = pm.Normal("theta", 0, tau, shape=2)
    >>> posterior = xr.Dataset({"tau": (("chain", "draw"), [[1.0]]), "theta": (("chain", "draw", "j"), [[[0.0, 2.0]]])})
    >>> log_prior(model, posterior)["theta"].round(2).values.tolist()
    [[[-0.92, -2.92]]]
    """
    draws = posterior[[variable.name for variable in model.free_RVs]].transpose("chain", "draw", ...)
    result = xr.Dataset()
    for name, density in _log_densities(model, model.free_RVs, draws).items():
        result[name] = (draws[name].dims[: density.ndim], density)
    return result.assign_coords({name: c for name, c in draws.coords.items() if name in result.dims})


def log_likelihood(model: pm.Model, posterior: xr.Dataset) -> xr.Dataset:
    """Log density of each observation given all that is sampled, groups too.

    Parameters
    ----------
    model : pymc.Model
        The form that was sampled.
    posterior : xarray.Dataset
        Draws [chain, draw, ...] of all its free variables.

    Returns
    -------
    xarray.Dataset
        By the name of each observed variable, [chain, draw, ...] [nats].

    Examples
    --------
    >>> with pm.Model(coords={"j": ["a", "b"]}) as model:
    ...     mu = pm.Normal("mu")
    ...     y = pm.Normal("y", mu, 1, observed=[0.0, 2.0], dims="j")
    >>> log_likelihood(model, xr.Dataset({"mu": (("chain", "draw"), [[0.0]])}))["y"].round(2).values.tolist()
    [[[-0.92, -2.92]]]
    """
    draws = posterior[[variable.name for variable in model.free_RVs]].transpose("chain", "draw", ...)
    by_name = _log_densities(model, model.observed_RVs, draws)
    return dict_to_dataset(
        by_name,
        coords={dim: pd.Index(labels) for dim, labels in model.coords.items() if labels is not None},
        dims={name: model.named_vars_to_dims[name] for name in by_name if name in model.named_vars_to_dims},
    ).assign_coords(chain=draws.chain, draw=draws.draw)


def _log_densities(model: pm.Model, variables: Sequence[Any], draws: xr.Dataset) -> dict[str, np.ndarray]:
    """The log density of some variables [chain, draw, ...] at draws [chain, draw, ...] of all free ones."""
    shape = draws.sizes["chain"], draws.sizes["draw"]
    flat = [draws[v.name].values.reshape(-1, *draws[v.name].shape[2:]).astype(v.dtype) for v in model.free_RVs]
    densities = _densities(model, variables)
    values = [model.rvs_to_values[variable] for variable in model.observed_RVs]
    cells = max(value[0].size for value in flat + [[value.eval(mode=ONCE)] for value in values])
    portions = in_portions(np.arange(len(flat[0])), 1, cells)
    parts = [densities(*(value[portion] for value in flat)) for portion in portions]
    whole = map(np.concatenate, zip(*parts, strict=True))
    return {v.name: density.reshape(*shape, *density.shape[1:]) for v, density in zip(variables, whole, strict=True)}


def _densities(model: pm.Model, variables: Sequence[Any]) -> Callable:
    """A function of the values of all free variables [sample, ...]: the log density of each of some [sample, ...]."""
    one = [model.rvs_to_values[variable] for variable in model.free_RVs]
    many = [tensor(dtype=v.dtype, shape=(None, *v.type.shape)) for v in model.free_RVs]
    densities = [pm.logp(variable, model.rvs_to_values[variable], warn_rvs=False) for variable in variables]
    values = dict(zip([*one, *model.free_RVs], [*many, *many], strict=True))
    return function(many, vectorize_graph(densities, values), mode=ONCE, on_unused_input="ignore")
