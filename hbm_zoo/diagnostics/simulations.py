"""Data sets whose truth is known, and where the truth lies among the draws of what is fitted to them."""

from __future__ import annotations

import json
import time
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pymc as pm
import xarray as xr

from hbm_zoo.frames.rules import FrameError, FrameWarning
from hbm_zoo.group_level.populations import Population
from hbm_zoo.inference import completion, sampling
from hbm_zoo.inference.asleep import asleep
from hbm_zoo.inference.chunks import log_joint
from hbm_zoo.inference.convergence import ConvergenceWarning, convergence
from hbm_zoo.inference.fits import efficiency
from hbm_zoo.inference.fitting import placed_nodes
from hbm_zoo.inference.nodes import with_nodes
from hbm_zoo.model import HierarchicalModel

TUNE, CHAINS = 500, 4
MOST_GROUPS = 3


@dataclass(frozen=True)
class Design:
    """What all simulations share: all but the response, and which groups are looked at, by positions.

    Attributes
    ----------
    data
        As prepared.
    groups, rows
        Groups with the least, a middling and the most data, and the first row of each.
    free
        The hyperparameters that the pooling leaves free; ``fixed`` are the others.
    """

    data: xr.Dataset
    groups: np.ndarray
    rows: np.ndarray
    free: list[str]
    fixed: Mapping[str, float]


def design_of(piece: Mapping[str, Any]) -> Design:
    """The design of a piece of `simulate`."""
    record, frame = piece["model"], piece["frame"]
    data, frame = record.data(frame, **piece["options"]), frame[record.measured(frame)]
    order = np.argsort(record.volume(data).values, kind="stable")
    groups = order[np.unique(np.linspace(0, order.size - 1, MOST_GROUPS).round().astype(int))]
    labels = record.labels(frame).to_numpy()
    rows = np.array([np.flatnonzero(labels == label)[0] for label in data[record.group].values[groups]])
    fixed = record.fixed[piece["pooling"]](piece["priors"], data)
    return Design(data, groups, rows, [name for name in record.parameters if name not in fixed], fixed)


@asleep("jax")
def simulate(piece: Mapping[str, Any]) -> xr.DataTree:
    """Some simulations: where each truth lies (``prior_sbc`` [chain, draw, ...]), and how each was fitted.

    Parameters
    ----------
    piece : mapping
        ``model``, a record, its ``frame`` and ``options``, ``pooling``, ``parameterization``, frozen ``priors``,
        ``engine``, ``draws``, and a ``seed`` and a number of ``simulations``.

    Returns
    -------
    xarray.DataTree
        Group ``fits`` [draw]: ``engine``, ``passed`` every check of `convergence`, the ``verdict``, ``seconds``. Data
        that the model refuses, ``refused`` so many times with a sentence, are left out with their truths: places are
        uniform whatever the data.

    Raises
    ------
    FrameError
        If the model refuses the data of each.
    """
    rng = np.random.default_rng(piece["seed"])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FrameWarning)  # said once, of the frame that they are like
        design = design_of(piece)
        truths = of_priors(piece["priors"], design, piece["simulations"], rng)
        found, refused = [], []
        for i in range(piece["simulations"]):
            try:
                found.append(_simulation(piece, design, truths.isel(sample=[i]), rng))
            except FrameError as error:
                refused.append(error)
    if not found:
        raise refused[0]
    places, fits = (xr.concat(each, "draw") for each in zip(*found, strict=True))
    tree = xr.DataTree.from_dict({"prior_sbc": places.expand_dims("chain"), "fits": fits})
    tree.attrs |= {"refused": len(refused), "refusal": str(refused[0]) if refused else ""}
    return tree


def of_priors(priors: Mapping, design: Design, size: int, rng) -> xr.Dataset:
    """Hyperparameters [sample] from their priors, what the pooling fixes included."""
    h = xr.Dataset({name: ("sample", np.full(size, float(value))) for name, value in design.fixed.items()})
    if not design.free:
        return h
    with pm.Model():
        variables = [priors[name].create_variable(name) for name in design.free]
    drawn = pm.draw(variables, size, random_seed=rng.integers(2**31), mode="FAST_COMPILE")
    return h.assign(
        {name: ("sample", np.reshape(values, size)) for name, values in zip(design.free, drawn, strict=True)}
    )


def _simulation(piece: Mapping[str, Any], design: Design, h: xr.Dataset, rng) -> tuple[xr.Dataset, xr.Dataset]:
    """Groups and data from a truth h [sample], one; where the truth lies in a fit to them."""
    record = piece["model"]
    level, data = record.group_level, with_nodes(record, design.data, piece["priors"], piece["seed"])
    theta = level.before(h, data, record.group).sample(rng)
    response = level.replicate(rng, theta, h, data, level.unseen(data)).isel(sample=0).values
    return compared(piece, design, h, theta, response, rng)


def compared(
    piece: Mapping[str, Any],
    design: Design,
    h: xr.Dataset,
    theta: xr.DataArray,
    response: np.ndarray,
    rng: np.random.Generator,
) -> tuple[xr.Dataset, xr.Dataset]:
    """The places of a truth, h and theta [sample], one, in a fit to a response; and how that was fitted."""
    start, record, frame = time.perf_counter(), piece["model"], piece["frame"].copy()
    frame[record.response] = frame[record.response].astype(object)  # whatever the column of the design is of
    frame.loc[record.measured(frame), record.response] = response
    data = record.data(frame, **piece["options"])
    tree, data = _fitted(piece, data, int(rng.integers(2**31)))
    h_drawn, theta_drawn = (_stacked(each) for each in completion.drawn(record, tree, data, rng))
    all_one = piece["pooling"] == "complete"
    of_truth = quantities(record, all_one, design, h, theta, data, rng)
    of_fit = quantities(record, all_one, design, h_drawn, theta_drawn, data, rng)
    sizes = tree["posterior"].sizes
    places = places_of(of_truth, of_fit, efficiency(tree) * sizes["chain"] * sizes["draw"], rng)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # counted, and said once of all
        checks = convergence(tree).iloc[0]
    about = {"engine": tree.attrs["engine"], "passed": bool(checks["passed"]), "verdict": checks["verdict"]}
    return places, xr.Dataset(about | {"seconds": time.perf_counter() - start})


def _fitted(piece: Mapping[str, Any], data: xr.Dataset, seed: int) -> tuple[xr.DataTree, xr.Dataset]:
    """Draws given data, as `fit` makes them, and the data with nodes if there are any."""
    settings = {"draws": piece["draws"], "chains": CHAINS, "tune": TUNE, "seed": seed, "engine": piece["engine"]}
    what = (piece["pooling"], piece["parameterization"], piece["priors"])
    seen = placed_nodes(piece["model"], data, *what, settings)
    tree = sampling.sample(piece["model"], seen, *what, settings, False, {"cores": 1})
    fixed, names = piece["model"].fixed[piece["pooling"]](piece["priors"], data), list(piece["model"].parameters)
    tree.attrs |= {"fixed": json.dumps(fixed, default=float), "hyperparameters": json.dumps(names)}
    return tree, seen


def _stacked(drawn):
    """[chain, draw] as [sample]; what is fixed, for each."""
    flat = drawn.stack(sample=("chain", "draw"), create_index=False).drop_vars(["chain", "draw"])
    if not isinstance(flat, xr.Dataset):
        return flat
    return flat.map(lambda v: v if "sample" in v.dims else v.expand_dims(sample=drawn.chain.size * drawn.draw.size))


def quantities(
    record: HierarchicalModel,
    all_one: bool,
    design: Design,
    h: xr.Dataset,
    theta: xr.DataArray,
    data: xr.Dataset,
    rng: np.random.Generator,
) -> xr.Dataset:
    """What is compared of a truth and of draws: h, groups' parameters theta, and what follows from them [sample, ...].

    Parameters one by one do not see a posterior that is the prior, or one that forgets it. The log likelihoods, which
    know the data, see the former, and the log density of the groups in their population the latter (Modrak et al. 2023,
    Bayesian Anal, doi:10.1214/23-BA1404). The mean of new groups sees one draw that all share.
    """
    level, group = record.group_level, record.group
    found = {name: h[name] for name in design.free}
    if not all_one:
        new = level.reported(level.before(h, data, group).sample(rng), data)
        found[record.estimand] = level.reported(theta, data).isel({group: design.groups})
        found[f"{record.estimand}_new"] = new.isel({group: design.groups[0]}, drop=True)
        found[f"{record.estimand}_new_mean"] = new.mean(group)
        found["log_population"] = log_population(record, h, data, theta)
        if design.free:
            found["log_marginal_likelihood"] = log_joint(record, h, data)
    if level.log_likelihood is not None:
        found["log_likelihood"] = level.log_likelihood(theta, h, data).sum(group, skipna=False)
    new_data = level.replicate(rng, theta, h, data, data)
    (row,) = (dim for dim in new_data.dims if dim != "sample")
    labels = data[group].values[design.groups]
    of_rows = new_data.transpose("sample", row).values[:, design.rows]
    found[f"{record.observed}_new"] = xr.DataArray(of_rows, {group: labels}, ("sample", group))
    return xr.Dataset(found)


def log_population(record: HierarchicalModel, h: xr.Dataset, data: xr.Dataset, theta: xr.DataArray) -> xr.DataArray:
    """Log density [sample] of groups' parameters in the population they come from [nats]."""
    level = record.group_level
    if level.independent:
        return log_densities(level.population(level.at(h, data)), theta).sum(record.group, skipna=False)
    return level.conditional(h, level.emptied(data)).log_density(theta)


def log_densities(population: Population, theta: xr.DataArray) -> xr.DataArray:
    """Log density of each group's parameter in a population, log probability at an atom [nats]."""
    density = population.log_density(theta)
    if population.atom is None:
        return density
    atom = population.cdf(population.atom) - population.cdf(np.nextafter(population.atom, -np.inf))
    with np.errstate(divide="ignore"):
        return xr.where(theta == population.atom, np.log(atom), density)


def places_of(truth: xr.Dataset, draws: xr.Dataset, worth: float, rng: np.random.Generator) -> xr.Dataset:
    """The `place` of each quantity of a truth [sample], one, among draws [sample] that are worth so many.

    Raises
    ------
    ValueError
        If a quantity is undefined, so that the truth has no place.
    """
    found = {}
    for name, value in truth.transpose("sample", ...).items():
        among = draws[name].transpose(*value.dims).values
        if np.isnan(among).any() or np.isnan(value).any():
            raise ValueError(f"{name!r} is undefined at the truth or at a draw, so that the truth has no place.")
        found[name] = value.isel(sample=0, drop=True).copy(data=place(value.values[0], among, worth, rng))
    return xr.Dataset(found)


def place(truth: np.ndarray, draws: np.ndarray, worth: float, rng: np.random.Generator) -> np.ndarray:
    """Where a truth [...] lies among draws [sample, ...]: uniform on (0, 1) if it is one of them.

    The truth is one more of as many independent draws as the draws are worth, W,

        (P(draw < truth) + u (P(draw = truth) + 1 / W)) / (1 + 1 / W),  u ~ U(0, 1):

    of W independent draws the rank of Talts et al. (2018, arXiv:1804.06788), at random within itself and among equals.
    Where draws are chained or resampled W is fewer than they are, and taken for independent they would seem too narrow.

    Examples
    --------
    >>> bool(place(np.array(0.0), np.array([1.0, 2.0, 2.0, 3.0]), 4, np.random.default_rng(1)) < 0.2)
    True
    """
    below, equal = (draws < truth).mean(axis=0), (draws == truth).mean(axis=0)
    return (below + rng.random(below.shape) * (equal + 1 / worth)) / (1 + 1 / worth)
