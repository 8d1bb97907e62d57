"""What numerical integration keeps fixed: made once a fit, stored in it, made anew for other data."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import xarray as xr
from pymc_extras.prior import Prior

from hbm_zoo.inference.chunks import log_joint
from hbm_zoo.inference.loo import smoothed
from hbm_zoo.model import HierarchicalModel

LARGEST_WEIGHT = 3  # Over the mean, of weights that are even enough.
FEW_NODES = 256


def with_nodes(
    record: HierarchicalModel,
    data: xr.Dataset,
    priors: Mapping[str, Prior],
    seed: int,
    pilot: xr.Dataset | None = None,
) -> xr.Dataset:
    """The data and the nodes of their groups; the data as they are where a model has none.

    Parameters
    ----------
    record : HierarchicalModel
        The model.
    data : xarray.Dataset
        Prepared data, without nodes.
    priors : mapping of str to Prior
        The priors of the model.
    seed : int
        Seed of the nodes.
    pilot : xarray.Dataset, optional
        Hyperparameters [sample] of a rough fit, which say where the groups' parameters lie.

    Returns
    -------
    xarray.Dataset
        Its attrs name the variables that are ``nodes``.
    """
    make = record.group_level.nodes
    if make is None:
        return data
    made = make(data, priors, np.random.default_rng(seed), pilot)
    return data.merge(made).assign_attrs(data.attrs | {"nodes": sorted(map(str, made.data_vars))})


def on_few_nodes(record: HierarchicalModel, data: xr.Dataset) -> xr.Dataset:
    """The data with the first nodes of each cloud: enough to see where a posterior is large, and no more.

    The first of Sobol points are spread as all of them are; nodes of other kinds stay.
    """
    is_cloud = record.group_level.log_sampled is not None
    return data.isel(node=slice(FEW_NODES), missing_dims="ignore") if is_cloud else data


def apart(data: xr.Dataset) -> tuple[xr.Dataset, xr.Dataset | None]:
    """The data without their nodes, and the nodes."""
    names = data.attrs.get("nodes")
    if names is None:
        return data, None
    plain = data.drop_vars(names)
    plain.attrs = {name: value for name, value in data.attrs.items() if name != "nodes"}
    unused = [dim for dim in plain.dims if all(dim not in variable.dims for variable in plain.data_vars.values())]
    kept = [dim for dim in unused if dim not in plain.coords]
    return plain.drop_dims(kept), data[names].assign_attrs(nodes=names)


def as_groups(data: xr.Dataset) -> dict[str, xr.Dataset]:
    """The groups of a fit that hold them: ``constant_data`` and, where there are any, ``nodes``."""
    plain, nodes = apart(data)
    return {"constant_data": plain} | ({} if nodes is None else {"nodes": nodes})


def reweighted(record: HierarchicalModel, tree: xr.DataTree, data: xr.Dataset, fixed: Mapping, seed: int) -> float:
    """Make draws of a posterior on coarse integrals those of the fine ones, in place.

    ``sample_stats`` stay those of the steps that the sampler took. Each chain keeps its length and its order:
    draws that weigh little are left out, others stand twice (systematic resampling of Pareto-smoothed weights;
    Kitagawa 1996, J Comput Graph Stat 5:1-25; Vehtari et al. 2024, JMLR 25:72).

    Returns
    -------
    float
        k-hat of the weights: beyond 0.7 the draws do not stand for the posterior. -inf where no draw weighs more than
        three times the mean: such weights have no tail.
    """
    posterior = tree["posterior"].to_dataset()
    free = [name for name in record.parameters if name not in fixed]
    h = posterior[free].assign(fixed).stack(sample=("chain", "draw"), create_index=False)
    log_ratios = log_joint(record, h, data) - record.group_level.log_sampled(h, data)
    shape = posterior.sizes["chain"], posterior.sizes["draw"]
    smooth, (k_hat,) = smoothed(log_ratios.transpose("sample").values[None])
    log_weights = smooth.reshape(shape)
    if np.isfinite(log_weights).any(axis=1).all():
        comb = (np.arange(shape[1]) + np.random.default_rng(seed).random((shape[0], 1))) / shape[1]
        reached = np.cumsum(np.exp(log_weights), axis=1)
        kept = [np.searchsorted(r / r[-1], c) for r, c in zip(reached, comb, strict=True)]
        where = xr.DataArray(np.array(kept), dims=("chain", "draw"))
        resampled = posterior.isel(chain=xr.DataArray(np.arange(shape[0]), dims="chain"), draw=where)
        tree["posterior"] = xr.DataTree(resampled.assign_coords(chain=posterior.chain, draw=posterior.draw))
    if np.exp(log_weights.max()) * log_weights.size <= LARGEST_WEIGHT:
        return -np.inf
    return np.inf if np.isnan(k_hat) else float(k_hat)
