"""Verbs of `reaction_networks` alone: what a module's own data, and the other modules, tell of its rates."""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr
from scipy import linalg

from hbm_zoo.group_level.populations import Population
from hbm_zoo.inference.fits import hyperparameters, model_of, prepared, priors_of, proposals, thinned
from hbm_zoo.inference.free_parameters import means_of, on_path
from hbm_zoo.inference.loo import k_hat_threshold, smoothed
from hbm_zoo.inference.nodes import apart, with_nodes
from hbm_zoo.inference.sampling import refit
from hbm_zoo.model import HierarchicalModel
from hbm_zoo.words import choose

#: Draws of the hyperparameters over which a module is averaged, and portions of them, whose scatter is the error.
DRAWS, PORTIONS = 400, 10
#: Proposals that are weighted to leave a module out.
PROPOSALS = 4000
LOCAL = "local: where the posterior is; along a curve, such as of a sum of rates that is known, directions turn"
#: How far the squares of a module may be from those with two rates exchanged, of their size, to be the same.
SAME = 1e-6
#: Of the spreads at their posterior means, those at which integrals are looked at; nats within which they are resolved.
SHARES, RESOLVED = 0.5 ** np.arange(7), 1.0


def identifiability(
    fit: xr.DataTree, combinations: Iterable[str] | None = None, model: HierarchicalModel | None = None
) -> pd.DataFrame:
    """How well is each rate of each module known: a priori, from the others, from its own data, from all?

    Parameters
    ----------
    fit : xarray.DataTree
        Partial pooling of ``reaction_networks``.
    combinations : iterable of str, optional
        Functions of the rates: ``k1``, ``k1 * k2``, ``k1 / k2``, ``k1 + km + k2``. Default: the rates, their products
        and ratios in pairs, their sums in pairs and the sum of all.
    model : HierarchicalModel, optional
        The record of a model that is not in the zoo.

    Returns
    -------
    pandas.DataFrame
        By ``module`` and ``function``: standard deviations of its log under the ``prior`` of one module, given the
        ``others`` only, ``alone`` with no more than its own data (and the error sigma that all tell), and with ``all``;
        ``mcse`` of the last; ``from_own`` and ``from_others``, the shares of the prior's variance that either takes
        off by itself; ``k_hat`` of the weights by which the module's own data are left out: beyond the limit of so
        many draws, 1 - 1/log10(draws) and at most 0.7, ``others`` is of a fit of the other modules.

    Raises
    ------
    ValueError
        If the fit is of another model or pooling, or a combination cannot be read.

    Notes
    -----
    Var(q) = E[Var(q | h)] + Var(E[q | h]) over draws of h, each given the data by the nodes of the module; for
    ``others`` the draws, or the proposals that independent draws were made of, are weighted by 1 / m_j(h) (Vehtari,
    Gelman & Gabry 2017, Stat Comput 27:1413-1432). A module that tells much, one of few that are watched closely, has
    weights that no draws of all modules bear: 1 / m_j is large where its data say that the truth is not.
    What is declared is what is seen: directions of a posterior, `directions`, are of one place and miss a sum of rates.

    Examples
    --------
    >>> import hbm_zoo as hz
    >>> callable(hz.reaction_networks.identifiability)
    True
    """
    record, data = _checked(fit, model, "identifiability"), prepared(fit)
    names = [str(name) for name in data["coefficient"].values]
    functions = _functions(names, combinations)
    of = _logs(names, functions)
    level, h = record.group_level, thinned(hyperparameters(fit), DRAWS)
    wide = record.fixed["none"](record.priors(apart(data)[0], given=priors_of(fit)), data)
    by_itself = h.assign({name: xr.full_like(h.sigma, value) for name, value in wide.items()})
    own = with_nodes(record, apart(data)[0], priors_of(fit), int(fit.attrs["seed"]), by_itself)
    prior = level.population(by_itself.isel(sample=[0])).map(of).sd.isel(sample=0)
    rows = []
    for j in range(data.sizes["module"]):
        one, alone = data.isel(module=[j]), own.isel(module=[j])
        without, weight, k_hat = _without(record, fit, data, j)
        after = level.conditional(h, one).map(of)
        sds = {
            "prior": prior.values,
            "others": sd_of_mixture(level.population(without).map(of), weight),
            "alone": sd_of_mixture(level.conditional(by_itself, alone).map(of)),
            "all": sd_of_mixture(after),
        }
        rows.append(_rows(data["module"].values[j], functions, sds, _error(after), k_hat))
    return pd.concat(rows)


def _without(
    record: HierarchicalModel, fit: xr.DataTree, data: xr.Dataset, j: int
) -> tuple[xr.Dataset, np.ndarray | None, float]:
    """Hyperparameters [sample] given all modules but one, their weights, None if they are even, and k-hat.

    The proposals of independent draws reach farther than the draws; where their weights are in doubt all the same, the
    others are fitted again.
    """
    level, reached = record.group_level, proposals(fit)
    h = thinned(hyperparameters(fit), DRAWS) if reached is None else thinned(reached, PROPOSALS)
    given = 0.0 if reached is None else h.log_ratio.values
    log_m = level.log_left_out(h, data.isel(module=[j])).isel(module=0).values
    (log_weight,), (k_hat,) = smoothed((given - log_m)[None])
    if k_hat <= k_hat_threshold(log_m.size):
        return h, np.exp(log_weight), float(k_hat)
    others = level.without_group(data, record.group, j)
    again = refit(fit, others, int(fit.attrs["seed"]) + j, record, DRAWS // fit.attrs["chains"] + 1)
    return hyperparameters(again), None, float(k_hat)


def directions(fit: xr.DataTree, model: HierarchicalModel | None = None) -> pd.DataFrame:
    """In which direction of the log rates do a module's data say most, and least? A local answer.

    Parameters
    ----------
    fit, model
        As of `identifiability`.

    Returns
    -------
    pandas.DataFrame
        By ``module`` and ``direction``, from the best told: ``left``, the share of the population's variance along it
        that the module's own data leave; its weights on the log rates, the largest of size 1, whose sum by these
        weights is what is told so well; and ``ordered``, the rates that its data cannot tell from one another, which
        are put in one order, the larger first. ``attrs["note"]`` says that all this is local.

    Raises
    ------
    ValueError
        As `identifiability`.

    Notes
    -----
    Generalised eigenvectors of Var(theta_j | y, h) against Omega(h), both averaged over draws of h. They are of one
    place, where the posterior is: along a curve such as k1 + km + k2 = constant they turn.
    """
    record, data = _checked(fit, model, "directions"), prepared(fit)
    names = [str(name) for name in data["coefficient"].values]
    level, h, rows = record.group_level, thinned(hyperparameters(fit), DRAWS), []
    for j in range(data.sizes["module"]):
        one = data.isel(module=[j])
        known = level.conditional(h, one)
        swapped = exchangeable(record, one, names)
        theta = _ordered(known.theta.isel(module=0), swapped, names).transpose(..., "node", "coefficient").values
        weight = known.weight.isel(module=0).transpose("sample", "node").values
        omega = np.stack([h[f"omega_{name}"].values for name in names], axis=-1)
        spread = np.sqrt((omega**2).mean(axis=0))
        left, along = generalised(_variance(theta, weight), spread)
        index = pd.MultiIndex.from_product([[data["module"].values[j]], range(1, len(names) + 1)])
        said = ", ".join(f"{a} > {b}" for a, b in swapped)
        rows.append(pd.DataFrame(along, index, names).assign(left=left, ordered=said)[["left", *names, "ordered"]])
    table = pd.concat(rows).rename_axis(["module", "direction"])
    table.attrs["note"] = LOCAL
    return table


def generalised(variance: np.ndarray, spread: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Shares of a population's variances that a variance leaves [direction], the least first, and weights w of each.

    V w = left Omega w, Omega = diag(spread^2): the sum w theta has the variance left w Omega w.

    Examples
    --------
    >>> left, along = generalised(np.diag([0.01, 4.0]), np.array([1.0, 2.0]))
    >>> left.round(9).tolist(), abs(along).tolist()
    ([0.01, 1.0], [[1.0, 0.0], [0.0, 1.0]])
    """
    left, vectors = linalg.eigh(variance, np.diag(spread**2))
    along = vectors.T
    return left, along / np.take_along_axis(along, abs(along).argmax(axis=1)[:, None], axis=1)


def resolution(fit: xr.DataTree, model: HierarchicalModel | None = None) -> pd.DataFrame:
    """How small may the spreads of modules be, for the nodes that were made once to resolve them?

    Parameters
    ----------
    fit, model
        As of `identifiability`.

    Returns
    -------
    pandas.DataFrame
        By ``share``, of the posterior means of the spreads: the spreads, ``omega_`` by rate; ``off``, log likelihood of
        all modules on the nodes that were made once, less that on nodes that move where fewer than 100 of the former
        are effective [nats]; ``error``, the standard error of the latter [nats]; ``resolved``, whether the nodes made
        once are right within a nat, at this and at all larger spreads.

    Raises
    ------
    ValueError
        As `identifiability`.

    Notes
    -----
    The other hyperparameters are at their posterior means. A sampler has the nodes that were made once; its draws are
    reweighted to those that move.

    Examples
    --------
    >>> import hbm_zoo as hz
    >>> callable(hz.reaction_networks.resolution)
    True
    """
    record, data = _checked(fit, model, "resolution"), prepared(fit)
    level, means = record.group_level, means_of(hyperparameters(fit))
    spreads = on_path(record, xr.DataArray(SHARES, dims="sample"), means)
    at = xr.Dataset(means | spreads)
    error = np.sqrt((level.integration_error(at, data) ** 2).sum("module")).values
    with np.errstate(invalid="ignore", divide="ignore"):
        off = (level.log_sampled(at, data) - level.log_joint(at, data)).values
    table = pd.DataFrame({name: value.values for name, value in spreads.items()} | {"off": off, "error": error})
    within = abs(table["off"]) <= RESOLVED
    return table.assign(resolved=within.cummin()).set_index(pd.Index(SHARES, name="share"))


def exchangeable(record: HierarchicalModel, one: xr.Dataset, names: list[str]) -> list[tuple[str, str]]:
    """Pairs of rates that the rows of a module cannot tell from one another: exchanged, they say the same."""
    some = one.theta.isel(node=slice(64)).rename(node="point")
    h = xr.Dataset({"sigma": 1.0})
    here, found = record.group_level.log_likelihood(some, h, one), []
    for a, b in itertools.combinations(range(len(names)), 2):
        order = list(range(len(names)))
        order[a], order[b] = b, a
        there = record.group_level.log_likelihood(some.copy(data=some.values[..., order]), h, one)
        if (abs(there - here) <= SAME * (1 + abs(here))).all():
            found.append((names[a], names[b]))
    return found


def sd_of_mixture(population: Population, weight: np.ndarray | None = None) -> np.ndarray:
    """Standard deviation [function] of one module over draws [sample], each as often as its weight says."""
    mean, sd = (_by_draw(values) for values in (population.mean, population.sd))
    w = np.full(len(mean), 1 / len(mean)) if weight is None else weight
    centre = w @ mean
    return np.sqrt(w @ (sd**2 + (mean - centre) ** 2))


def _by_draw(values: xr.DataArray) -> np.ndarray:
    """[sample, function] of one module."""
    values = values.isel(module=0) if "module" in values.dims else values
    return values.transpose("sample", "coefficient").values


def _error(population: Population) -> np.ndarray:
    """Monte Carlo error of the standard deviation, by the scatter of portions of the draws."""
    mean, sd = (_by_draw(values) for values in (population.mean, population.sd))
    parts = [np.arange(len(mean))[k::PORTIONS] for k in range(PORTIONS)]
    each = [np.sqrt((sd[p] ** 2).mean(axis=0) + mean[p].var(axis=0)) for p in parts]
    return np.std(each, axis=0, ddof=1) / np.sqrt(PORTIONS)


def _rows(module: object, functions: list[str], sds: dict, error: np.ndarray, k_hat: float) -> pd.DataFrame:
    """The table of one module."""
    index = pd.MultiIndex.from_product([[module], functions], names=["module", "function"])
    table = pd.DataFrame(sds, index=index).assign(mcse=error)
    for column, sd in (("from_own", "alone"), ("from_others", "others")):
        table[column] = 1 - (table[sd] / table["prior"]) ** 2
    return table.assign(k_hat=k_hat)


def _functions(names: list[str], given: Iterable[str] | None) -> list[str]:
    """The functions of the rates, as written."""
    if given is not None:
        given = [given] if isinstance(given, str) else list(given)
        for text in given:
            for name in re.split(r"[+*/]", text):
                choose(name.strip(), names, f"rate in {text!r}")
            if "+" in text and re.search(r"[*/]", text):
                raise ValueError(f"A combination is a sum, or of products and ratios, got {text!r}.")
        return given
    pairs = [*itertools.combinations(names, 2)]
    sums = [" + ".join(names)] if len(names) > 2 else []
    return [*names, *(f"{a} {op} {b}" for op in "*/+" for a, b in pairs), *sums]


def _logs(names: list[str], functions: list[str]) -> Callable[[xr.DataArray], xr.DataArray]:
    """The logs of the functions [..., coefficient], of log rates theta [..., coefficient]."""

    def of(theta: xr.DataArray) -> xr.DataArray:
        by_name = {name: theta.isel(coefficient=k, drop=True) for k, name in enumerate(names)}
        return xr.concat([_log(text, by_name) for text in functions], dim="coefficient").assign_coords(
            coefficient=functions
        )

    return of


def _log(text: str, theta: dict[str, Any]) -> Any:
    """The log of one function."""
    if "+" in text:
        return np.log(sum(np.exp(theta[name.strip()]) for name in text.split("+")))
    first, *rest = re.split(r"\s*([*/])\s*", text.strip())
    total = theta[first]
    for sign, name in zip(rest[::2], rest[1::2], strict=True):
        total = total + theta[name] if sign == "*" else total - theta[name]
    return total


def _ordered(theta: xr.DataArray, swapped: list[tuple[str, str]], names: list[str]) -> xr.DataArray:
    """The nodes with exchangeable rates in one order, the larger first."""
    values = theta.transpose(..., "coefficient").values.copy()
    for a, b in swapped:
        i, k = names.index(a), names.index(b)
        values[..., [i, k]] = -np.sort(-values[..., [i, k]], axis=-1)
    return theta.transpose(..., "coefficient").copy(data=values)


def _variance(theta: np.ndarray, weight: np.ndarray) -> np.ndarray:
    """E[Var(theta | y, h)] over draws of h [coefficient, coefficient]."""
    theta = np.broadcast_to(theta, (*weight.shape, theta.shape[-1]))
    away = theta - weight[:, None] @ theta
    return ((weight[..., None] * away).mT @ away).mean(axis=0)


def _checked(fit: xr.DataTree, model: HierarchicalModel | None, verb: str) -> HierarchicalModel:
    """The record of a partial pooling of reaction_networks."""
    record = model_of(fit, model)
    if "network" not in record.alternatives:
        raise ValueError(f"{verb} is of fits of reaction_networks, got one of {record.name}.")
    if fit.attrs["pooling"] != "partial":
        raise ValueError(
            f"{verb} asks what modules lend one another: give partial pooling, got {fit.attrs['pooling']}."
        )
    return record
