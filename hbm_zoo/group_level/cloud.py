"""A group's parameter of a few dimensions integrated out on a cloud of nodes, whatever its likelihood.

    y_j | theta_j ~ p(y_j | F(theta_j), h),   theta_j ~ N(mu, Omega) in two to four dimensions

Nodes theta_jk, k = 1..K, are drawn once a fit from a proposal q_j, and what the simulator F says there is computed
once. Hyperparameters enter through the weights of the nodes only:

    log m_j(h) = logsumexp_k [log p(y_j | F_jk, h) + log N(theta_jk; mu, Omega) - log q_j(theta_jk)] - log K

is smooth in h, its gradient never touches the simulator, and the softmax of the bracket is the posterior of
theta_j, a weighted sample (importance sampling; Owen 2013, Monte Carlo theory, methods and examples, chapter 9).

The smaller a spread, the fewer nodes lie where the population is. Where fewer than `FEWEST` are effective they move
with it: theta = mu + L z, L L' = Omega, with the same proposal in z and the population itself as the pilot, so that
Omega = 0 is no limit. There the mean of N(z; 0, I)/q(z), which is 1, is a control variate (Owen & Zhou 2000, J Am
Stat Assoc 95:135-143): it takes away the error that the likelihood has no part in.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import xarray as xr
from scipy import special

from hbm_zoo.group_level.adapted import adapted
from hbm_zoo.group_level.features import features, log_normal
from hbm_zoo.group_level.kept import last_kept
from hbm_zoo.group_level.level import GroupLevel, integrated_numerically, summed
from hbm_zoo.group_level.moving import OF_NODES, moving, top_by_nodes
from hbm_zoo.group_level.proposal import proposed, standard_points, standardised
from hbm_zoo.group_level.weighted import MultivariateNormal, Weighted

CELLS_AT_ONCE = 16_000_000  # Numbers in one array of draws x groups x nodes x coefficients.
FEWEST = 100
INTEGRAL = "log_marginal", "error", "effective"
STEP = 0.1


@dataclass(frozen=True, kw_only=True)
class Cloud:
    """Independent groups, each with a parameter theta of two to four coefficients.

    Attributes
    ----------
    group
        The dim of the groups.
    population
        ``population(h)``: the `MultivariateNormal` of theta, at placed hyperparameters.
    predict
        ``predict(theta, data)`` [..., group, node, ...]: what the simulator says at theta [..., group, node,
        coefficient]: all of the likelihood that no hyperparameter changes, a curve at each time or a sum of squares.
    log_density
        ``log_density(predicted, h, data)`` [..., group, node]: log density of each group's data given that [nats].
        NaN, where a simulator fails, counts as a likelihood of 0.
    rough
        ``rough(data, priors)``: hyperparameters before any fit, one value each, with a spread in every coefficient.
    estimand
        As of `GroupLevel`: ``estimand(theta)`` is what is reported of a group, such as ``np.exp``; by default theta.
    at
        As of `GroupLevel`.
    size
        Nodes a group, a power of 2: 1024 where data are rich, 4096 where a group has fewer rows than coefficients.
    moving_size
        Nodes that move, a power of 2 and no more than that: fewer where each is a simulation, for they lie better.
        Default: as many.
    rounds
        How often the nodes are placed anew by their weights, where a likelihood is large in several places (`adapted`).
    roughly
        Whether nodes that move lie where those of the fit have the likelihood (`top_by_nodes`), and no top is looked
        for: so where each step towards it is many simulations.

    Examples
    --------
    Counts with a log rate, the sum of two coefficients:

    >>> unit = xr.DataArray(np.eye(2), dims=("coefficient", "deviate"))
    >>> cloud = Cloud(
    ...     group="site",
    ...     population=lambda h: MultivariateNormal(h.mu * unit.sum("deviate"), h.omega * unit),
    ...     predict=lambda theta, data: theta.sum("coefficient"),
    ...     log_density=lambda log_rate, h, data: data.y * log_rate - np.exp(log_rate) - special.gammaln(data.y + 1),
    ...     rough=lambda data, priors: xr.Dataset({"mu": 0.5, "omega": 0.5}),
    ... )
    >>> data = xr.Dataset({"y": ("site", [0, 3, 9])})
    >>> level = cloud.group_level()
    >>> data = data.merge(level.nodes(data, {}, np.random.default_rng(1), None))
    >>> h = xr.Dataset({"mu": 0.5, "omega": ("sample", [0.0, 0.5])})
    >>> level.log_left_out(h, data).round(2).values.tolist()
    [[-2.72, -1.51, -6.52], [-2.11, -1.95, -3.93]]
    >>> level.conditional(h, data).mean.isel(site=2, coefficient=0).round(2).values.tolist()
    [0.5, 0.96]
    """

    group: str
    population: Callable
    predict: Callable
    log_density: Callable
    rough: Callable
    estimand: Callable | None = None
    at: Callable = GroupLevel.at
    size: int = 1024
    moving_size: int | None = None
    rounds: int = 0
    roughly: bool = False

    def group_level(self, **formulas) -> GroupLevel:
        """The group level; ``replicate(rng, theta, h, new)``, and more, as of `integrated_numerically`."""
        return integrated_numerically(
            self,
            nodes=self._nodes,
            log_sampled=summed(self._on_fixed_nodes),
            log_most=summed(self._at_best),
            log_at_most=summed(self._at_most),
            step=STEP,
            integration_error=lambda h, data: self.integrate(h, data).error,
            **formulas,
        )

    def cells(self, data: xr.Dataset) -> int:
        return data.sizes.get("node", 1)

    def integrate(self, h: xr.Dataset, data: xr.Dataset) -> xr.Dataset:
        """Log likelihood of each group with its parameter integrated out, and how well that is known.

        Returns
        -------
        xarray.Dataset
            ``log_marginal`` [nats] and its standard ``error`` [nats], independent between groups but shared by the
            draws of h; ``effective``, so many equal weights tell as much as those of the nodes; ``moved``, whether
            the nodes moved with the population. All [draws of h, group].
        """
        flat, restored = flattened(self.at(h, data), self.group)
        portions = self._portions(flat, data)
        population = self.population(flat).over(flat.state)
        if len(portions) == 1 or not population.cholesky.any():
            return self._in_portions(lambda h, theta, log_f, found: found.drop_vars(OF_NODES), h, data)
        found = xr.concat([integral(self._fixed(some, data)) for some in portions], dim="state")
        found["moved"] = found.effective < FEWEST
        for here, moved in self._moved(flat, data, found):
            for name in INTEGRAL:
                found[name][here] = moved[name]
        found["log_marginal"] = found.log_marginal.where(_defined(population))
        return found.map(restored)

    def _on_fixed_nodes(self, h: xr.Dataset, data: xr.Dataset) -> xr.DataArray:
        """Log likelihood of each group on nodes that never move, which is what a sampler has."""
        flat, restored = flattened(self.at(h, data), self.group)
        parts = [integral(self._fixed(some, data)).log_marginal for some in self._portions(flat, data)]
        return restored(xr.concat(parts, dim="state"))

    def _at_best(self, h: xr.Dataset, data: xr.Dataset) -> xr.DataArray:
        """Log likelihood of each group at the best of its nodes, wherever the population is."""
        flat, restored = flattened(self.at(h, data), self.group)
        best = [self._density(data.predicted, some, data).max("node") for some in self._portions(flat, data)]
        return restored(xr.concat(best, dim="state"))

    def _at_most(self, h: xr.Dataset, data: xr.Dataset) -> xr.DataArray:
        """The same, but of a group whose nodes do not move its integral."""
        flat, restored = flattened(self.at(h, data), self.group)
        parts = []
        for some in self._portions(flat, data):
            found, best = integral(self._fixed(some, data)), self._density(data.predicted, some, data).max("node")
            parts.append(found.log_marginal.where(found.effective >= FEWEST, best))
        return restored(xr.concat(parts, dim="state"))

    def conditional(self, h: xr.Dataset, data: xr.Dataset) -> Weighted:
        """What is known of each group's theta after its data, draws x groups x nodes of it at once."""
        theta, log_f, _ = self._table(h, data)
        return Weighted(theta, weights(log_f))

    def on_fixed_nodes(self, h: xr.Dataset, data: xr.Dataset) -> Weighted:
        """The same on nodes that never move: for much data that are of the same groups."""
        flat, restored = flattened(self.at(h, data), self.group)
        if not self.population(flat).cholesky.any():
            return self.conditional(h, data)
        return Weighted(data.theta, restored(weights(self._fixed(flat, data))))

    def log_left_out(self, h: xr.Dataset, data: xr.Dataset) -> xr.DataArray:
        return self.integrate(h, data).log_marginal

    def log_predictive(self, h: xr.Dataset, new: xr.Dataset, seen: xr.Dataset) -> xr.DataArray:
        """Only ``seen`` has a cloud: the new data are averaged over what is known after it."""

        def ratio(h: xr.Dataset, theta: xr.DataArray, log_f: xr.DataArray, found: xr.Dataset) -> xr.DataArray:
            return integral(log_f + self._finite(theta, h, new)).log_marginal - integral(log_f).log_marginal

        return self._in_portions(ratio, h, seen)

    def log_likelihood(self, theta: xr.DataArray, h: xr.Dataset, data: xr.Dataset) -> xr.DataArray:
        return self._finite(theta.expand_dims("node"), self.at(h, data), data).isel(node=0)

    def expected_log_likelihood(self, h: xr.Dataset, data: xr.Dataset) -> xr.DataArray:
        def average(h: xr.Dataset, theta: xr.DataArray, log_f: xr.DataArray, found: xr.Dataset) -> xr.DataArray:
            weight = weights(log_f)
            return (weight * found[OF_NODES].where(weight > 0, 0.0)).sum("node", skipna=False)

        return self._in_portions(average, h, data)

    def reliability(self, h: xr.Dataset, data: xr.Dataset) -> xr.DataArray:
        before, after = map(self._sd, (self.population(self.at(h, data)), self.conditional(h, data)))
        return xr.where(before == 0, 0.0, 1 - (after / before.where(before > 0)) ** 2)

    def _sd(self, population: MultivariateNormal | Weighted) -> xr.DataArray:
        return (population if self.estimand is None else population.map(self.estimand)).sd

    def _nodes(self, data: xr.Dataset, priors, rng: np.random.Generator, pilot: xr.Dataset | None) -> xr.Dataset:
        """The cloud of each group around a rough fit, with what the simulator says there, ``predicted``."""
        rough = self.rough(data, priors) if pilot is None else pilot.mean("sample")
        if not (self.population(self.at(rough, data)).sd > 0).all():  # complete pooling has no spread to look for
            rough = self.rough(data, priors)
        at, seed = self.at(rough, data), int(rng.integers(2**31))
        log_likelihood, population = partial(self._finite, h=at, data=data), self.population(at)
        made = nodes(log_likelihood, population, data[self.group], self.size, seed, self.rounds)
        with np.errstate(all="ignore"):  # where it fails at nodes that stay, its warning is heard
            return made.assign(predicted=self.predict(made.theta, data), features=features(made))

    def _in_portions(self, formula: Callable, h: xr.Dataset, data: xr.Dataset):
        """``formula(h, nodes, log f, integral)`` at placed hyperparameters, as many at once as memory allows."""
        flat, restored = flattened(self.at(h, data), self.group)
        portions = self._portions(flat, data)
        if len(portions) == 1:
            return formula(self.at(h, data), *self._table(h, data))
        found = xr.concat([formula(some, *self._tabulate(some, data)) for some in portions], dim="state")
        return found.map(restored) if isinstance(found, xr.Dataset) else restored(found)

    def _portions(self, flat: xr.Dataset, data: xr.Dataset) -> list[xr.Dataset]:
        """States of the hyperparameters, as many at once as memory allows."""
        held = max(data.theta.size, data.predicted.size)
        if not self.population(flat).cholesky.any():  # a group has one node
            held = -(-held // data.sizes["node"])
        step = max(1, CELLS_AT_ONCE // held)
        return [flat.isel(state=slice(start, start + step)) for start in range(0, flat.sizes["state"], step)]

    @last_kept
    def _table(self, h: xr.Dataset, data: xr.Dataset) -> tuple[xr.DataArray, xr.DataArray, xr.Dataset]:
        """Nodes, log f and integral at all hyperparameters."""
        flat, restored = flattened(self.at(h, data), self.group)
        theta, log_f, found = self._tabulate(flat, data)
        return restored(theta), restored(log_f), found.map(restored)

    def _finite(self, theta: xr.DataArray, h: xr.Dataset, data: xr.Dataset) -> xr.DataArray:
        return self._density(self._predict(theta, data), h, data)

    def _predict(self, theta: xr.DataArray, data: xr.Dataset) -> xr.DataArray:
        with np.errstate(all="ignore"), warnings.catch_warnings():  # points are tried where a simulator fails
            warnings.simplefilter("ignore", RuntimeWarning)
            return self.predict(theta, data)

    def _density(self, predicted: xr.DataArray, h: xr.Dataset, data: xr.Dataset) -> xr.DataArray:
        with np.errstate(all="ignore"):  # and hyperparameters at the end of all numbers
            return self.log_density(predicted, h, data).fillna(-np.inf)

    def _tabulate(self, h: xr.Dataset, data: xr.Dataset) -> tuple[xr.DataArray, xr.DataArray, xr.Dataset]:
        """Nodes, log of integrand over proposal [state, group, node], and the integral, at placed hyperparameters."""
        population = self.population(h).over(h.state)
        if not population.cholesky.any():
            theta = (population.mean * xr.ones_like(data[self.group], dtype=float)).expand_dims("node")
            log_f = self._finite(theta, h, data).transpose("state", self.group, "node")
            return theta, log_f, integral(log_f).assign({"moved": log_f.isel(node=0) < np.inf, OF_NODES: log_f})
        theta, log_f = data.theta, self._fixed(h, data)
        density = self._density(data.predicted, h, data).broadcast_like(log_f).transpose(*log_f.dims).copy()
        found = integral(log_f).assign({OF_NODES: density})
        found["moved"] = found.effective < FEWEST
        if found.moved.any():
            theta, log_f, found = self._with_moved(h, data, log_f, found)
        defined = _defined(population)
        return theta, log_f.where(defined), found.assign(log_marginal=found.log_marginal.where(defined))

    def _fixed(self, h: xr.Dataset, data: xr.Dataset) -> xr.DataArray:
        """Log of integrand over proposal [state, group, node] at the nodes of the fit."""
        population = self.population(h).over(h.state)
        log_f = self._density(data.predicted, h, data) + log_normal(population, data) - data.log_q
        return log_f.transpose("state", self.group, "node")

    def _with_moved(self, h: xr.Dataset, data: xr.Dataset, log_f: xr.DataArray, found: xr.Dataset):
        """The same, with nodes that move where too few of the fixed ones are effective."""
        theta = (data.theta * xr.ones_like(h.state, dtype=float)).transpose(*log_f.dims, "coefficient").copy()
        for here, moved in self._moved(h, data, found):
            again = np.arange(log_f.sizes["node"]) % moved.sizes["node"]  # fewer nodes stand for as many, each as often
            every = moved.isel({self.group: 0, "node": again}, missing_dims="ignore")
            theta[here], log_f[here] = every.theta.transpose("state", ...), every.log_f
            found[OF_NODES][here] = every[OF_NODES]
            for name in INTEGRAL:
                found[name][here] = moved[name]
        return theta, log_f, found

    def _moved(self, h: xr.Dataset, data: xr.Dataset, found: xr.Dataset) -> Iterator[tuple[dict, xr.Dataset]]:
        """Of each group the states at which its nodes move, as many at once as memory allows, and its integral."""
        step = self._portions(h, data)[0].sizes["state"]
        for j in np.flatnonzero(found.moved.any("state")):
            of_group, one = np.flatnonzero(found.moved.isel({self.group: j})), data.isel({self.group: [j]})
            for states in np.split(of_group, range(step, of_group.size, step)):
                some = h.isel({"state": states, self.group: [j]}, missing_dims="ignore")
                population = self.population(some).over(some.state).over(xr.ones_like(one.seed, dtype=float))
                log_likelihood = partial(self._finite, h=some, data=one)
                every = data.sizes["node"]
                size = min(self.moving_size or every, every)
                top = top_by_nodes(self._density(one.predicted, some, one), population, one) if self.roughly else None
                moved = moving(log_likelihood, population, size, one.seed.item(), top)
                yield {"state": states, self.group: j}, moved


def _defined(population: MultivariateNormal) -> xr.DataArray:
    return (population.mean + population.sd).notnull().all("coefficient")


def on_nodes(formula: Callable, theta: xr.DataArray, one: xr.Dataset) -> xr.DataArray:
    """``formula(theta)`` of one group at its nodes: once at those of the fit, and where they moved."""
    if "sample" not in theta.dims or theta.sizes["node"] != one.sizes["node"]:  # without a spread there is one
        return formula(theta)
    moved = (theta != one.theta).any([dim for dim in theta.dims if dim != "sample"])
    found = formula(one.theta).expand_dims(sample=theta.sizes["sample"]).copy()
    if moved.any():
        found[{"sample": moved.values}] = formula(theta.isel(sample=moved.values))
    return found


def flattened(h: xr.Dataset, group: str) -> tuple[xr.Dataset, Callable]:
    """Hyperparameters with all dims of their draws as one, "state", and how to undo that in an array."""
    drawn = {dim for value in h.data_vars.values() for dim in value.dims} - {group, "coefficient", "deviate"}
    sizes = {dim: size for dim, size in h.sizes.items() if dim in drawn}
    labels = {name: label for name, label in h.coords.items() if set(label.dims) <= set(sizes)}
    flat = h.drop_vars(labels).stack(state=list(sizes), create_index=False) if sizes else h.expand_dims("state")

    def restored(values: xr.DataArray) -> xr.DataArray:
        if "state" not in values.dims:
            return values
        if not sizes:
            return values.isel(state=0)
        apart = values.variable.unstack(state=sizes)
        return xr.DataArray(apart, coords={**values.coords, **labels}).transpose(*sizes, ...)

    return flat, restored


def weights(log_f: xr.DataArray) -> xr.DataArray:
    """The share of each node in the integral; NaN where there is none."""
    with np.errstate(invalid="ignore"):
        return log_f.copy(data=special.softmax(log_f.values, axis=log_f.get_axis_num("node")))


def integral(log_f: xr.DataArray) -> xr.Dataset:
    """Log of the mean of f over nodes, its standard error by the delta method, and the effective number of nodes."""
    top = log_f.max("node")
    f: Any = np.exp(log_f - top.where(np.isfinite(top), 0.0))
    total, squares, size = f.sum("node", skipna=False), xr.dot(f, f, dim="node"), log_f.sizes["node"]
    with np.errstate(divide="ignore", invalid="ignore"):
        effective = (total**2 / squares).fillna(0.0)
        error = np.sqrt(np.maximum(1 / effective - 1 / size, 0.0))
        return xr.Dataset({"log_marginal": top + np.log(total / size), "error": error, "effective": effective})


def nodes(
    log_likelihood: Callable,
    pilot: MultivariateNormal,
    groups: xr.DataArray,
    size: int = 1024,
    seed: int = 0,
    rounds: int = 0,
) -> xr.Dataset:
    """The cloud of each group: scrambled Sobol points of the proposal around a rough fit (`proposal`).

    Parameters
    ----------
    log_likelihood : callable
        ``log_likelihood(theta)`` [group, node] at theta [group, node, coefficient] [nats].
    pilot : MultivariateNormal
        The population of the rough fit; no spread may be 0.
    groups : xarray.DataArray
        Any array [group]; its labels become those of the cloud.
    size : int
        Nodes a group, a power of 2.
    seed : int
        Of the points.
    rounds : int
        Of `adapted`.

    Returns
    -------
    xarray.Dataset
        ``theta`` [group, node, coefficient]; ``log_q`` [group, node], log density of the proposal there; ``seed``
        [group], of nodes that move; ``pilot_mean`` and ``pilot_cholesky``.

    Raises
    ------
    ValueError
        If ``size`` is no power of 2, the pilot lacks a spread, or no node of a group can have brought about its data.
    """
    if size < 2 or size & (size - 1):
        raise ValueError(f"A cloud has a power of 2 of nodes a group, such as 1024; got {size}.")
    if not (pilot.sd > 0).all():
        raise ValueError(f"The pilot's population must have a spread in every coefficient; got sd {pilot.sd.values}.")
    group = str(groups.dims[0])
    seeds, ones = np.random.SeedSequence(seed).generate_state(groups.size), xr.ones_like(groups, dtype=float)
    points = [standard_points(pilot.mean.sizes["coefficient"], size, seed) for seed in seeds]
    each: Any = pilot.over(ones)
    stacked = tuple(np.stack(part) for part in zip(*points, strict=True))
    standard = standardised(log_likelihood, each, group)
    z, log_q, log_f = adapted(standard, proposed(standard, len(seeds), stacked), seeds, rounds)
    lost = ~np.isfinite(log_f).any(axis=1)
    if lost.any():
        raise ValueError(f"The likelihood is 0 at every node of {group} {groups.values[lost].tolist()}.")
    theta = each.at(xr.DataArray(z, dims=(group, "node", "deviate"))).transpose(group, "node", "coefficient")
    matrix = ["coefficient", "deviate"]
    log_scale = xr.apply_ufunc(lambda L: np.linalg.slogdet(L)[1], each.cholesky, input_core_dims=[matrix])
    cloud = {"theta": theta, "log_q": xr.DataArray(log_q, dims=(group, "node")) - log_scale}
    return xr.Dataset(
        cloud | {"seed": ones.copy(data=seeds), "pilot_mean": pilot.mean, "pilot_cholesky": pilot.cholesky}
    )
