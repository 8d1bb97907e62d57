"""Every group's estimate if the groups differed this much: shrinkage as a function of heterogeneity."""

from __future__ import annotations

import difflib
import json
from collections.abc import Callable, Mapping

import numpy as np
import pymc as pm
import pytensor.tensor as pt
import xarray as xr
from pymc_extras.prior import Prior
from pytensor import function
from scipy.special import expit, log_expit, logit, logsumexp, softmax

from hbm_zoo.fits import hyperparameters, model_of, prepared, priors_of
from hbm_zoo.model import HierarchicalModel
from hbm_zoo.quadrature import quadrature
from hbm_zoo.summary import in_chunks

GRID_POINTS = 80
RANGE_SHOWN = 0.995


def estimates_over_heterogeneity(
    fit: xr.DataTree,
    at: np.ndarray | None = None,
    groups: list | None = None,
    model: HierarchicalModel | None = None,
) -> xr.Dataset:
    """Each group's posterior mean given the heterogeneity, the other hyperparameters integrated out.

    Parameters
    ----------
    fit : xarray.DataTree
        A fit of partial pooling.
    at : array_like, optional
        Values of the heterogeneity, 0 or more. Default: from 0 to beyond nearly all its draws.
    groups : list, optional
        The groups wanted. Default: all.
    model : HierarchicalModel, optional
        The record of a model that is not in the zoo.

    Returns
    -------
    xarray.Dataset
        ``estimate`` [heterogeneity, group, ...] = E[theta_j | t, y], in the unit of the
        estimand; ``draws`` [sample] of the heterogeneity; where it is one number,
        ``log_density`` [heterogeneity] = log p(t | y) up to a constant. ``attrs["at_0"]`` says
        whether the estimates at t = 0 are those of complete pooling.

    Raises
    ------
    ValueError
        If the fit is not of partial pooling, a group is unknown, or the model has no closed form.

    Notes
    -----
    With h the other hyperparameters,

        E[theta_j | t, y] = int E[theta_j | h, t, y_j] p(h | t, y) dh,
        p(h | t, y)       ~ p(h) prod_j m_j(h, t),

    by Gauss-Hermite quadrature around the mode of h given t (Naylor & Smith 1982, J R Stat Soc C
    31:214-225), h taken to the whole line. Averaged over p(t | y) this is the fit's own estimate.
    Where the heterogeneity is a matrix, t moves along one path through it, t = 1 at the posterior
    means (``path`` of the record).

    Examples
    --------
    >>> import hbm_zoo as hz
    >>> fit = hz.fit("hospital_readmission", hz.load_data("three_hospitals"), random_seed=1, progressbar=False)
    >>> over = estimates_over_heterogeneity(fit, at=[0, 1])
    >>> over["estimate"].round(2).values.tolist()
    [[1.16, 1.16, 1.16], [1.4, 0.6, 1.19]]
    """
    record = model_of(fit, model)
    if fit.attrs["pooling"] != "partial":
        raise ValueError(f"Estimates over the heterogeneity need partial pooling; got {fit.attrs['pooling']} pooling.")
    closed = record.closed("The estimate at a given heterogeneity")
    data, h = prepared(fit), hyperparameters(fit)
    draws = path_draws(record, h)
    t = grid_over(draws) if at is None else np.asarray(at, float)
    others = Others(record, fit)
    nodes, log_weights = quadrature(lambda x: others.log_posterior(x, t), t.size, len(others.names))
    weights = xr.DataArray(softmax(log_weights, axis=1), dims=("heterogeneity", "node"), coords={"heterogeneity": t})
    given = others.at(nodes, t)
    wanted = data if groups is None else data.sel({record.group: known(groups, data[record.group])})
    estimates = [
        (closed.population(closed.conditional(given, chunk)).mean * weights).sum("node")
        for chunk in in_chunks(wanted, record.group, weights.size)
    ]
    result = xr.Dataset({"estimate": xr.concat(estimates, dim=record.group), "draws": draws})
    alike = set(others.names) == set(record.parameters) - set(record.fixed["complete"](priors_of(fit), data))
    result.attrs["at_0"] = "complete pooling" if alike else f"{record.group}s that do not differ"
    if record.path is None:
        log_prior = log_density(priors_of(fit)[record.heterogeneity])(t)
        result["log_density"] = ("heterogeneity", logsumexp(log_weights, axis=1) + log_prior)
    return result


def known(groups: list, labels: xr.DataArray) -> list:
    """The labels that groups are given by; 3 and "3" are the same.

    Raises
    ------
    ValueError
        If there is no such group; the nearest is given.
    """
    by_text = {str(label): label for label in labels.values.tolist()}
    for given in groups:
        if str(given) not in by_text:
            near = difflib.get_close_matches(str(given), by_text, n=1)
            raise ValueError(f"There is no {labels.name} {given!r}." + (f" Did you mean {near[0]!r}?" if near else ""))
    return [by_text[str(given)] for given in groups]


def grid_over(draws: xr.DataArray) -> np.ndarray:
    """From 0 to beyond nearly all draws, half the points evenly, half where the draws are."""
    shares = np.linspace(0, RANGE_SHOWN, GRID_POINTS // 2 + 1)
    where = draws.quantile(shares).values
    return np.unique(np.concatenate([np.linspace(0, where[-1], GRID_POINTS // 2 + 1), where]))


def on_path(record: HierarchicalModel, t, means: Mapping[str, float]) -> dict:
    """The hyperparameters that the heterogeneity t fixes."""
    return {record.heterogeneity: t} if record.path is None else record.path(t, means)


def path_draws(record: HierarchicalModel, h: xr.Dataset) -> xr.DataArray:
    """The heterogeneity of each draw: along a path, the geometric mean of its spreads over those at t = 1."""
    means = means_of(h)
    one, two = on_path(record, 1.0, means), on_path(record, 2.0, means)
    spreads = [name for name in one if one[name] != two[name]]
    return np.exp(sum(np.log(h[name] / one[name]) for name in spreads) / len(spreads))


def means_of(h: xr.Dataset) -> dict[str, float]:
    """The posterior mean of each hyperparameter."""
    return {str(name): float(value.mean()) for name, value in h.items()}


class Others:
    """The hyperparameters beside the heterogeneity, each on the whole line, in units of its draws' sd."""

    def __init__(self, record: HierarchicalModel, fit: xr.DataTree):
        h, priors = hyperparameters(fit), priors_of(fit)
        self.record, self.data, self.means = record, prepared(fit), means_of(h)
        self.log_marginal = record.closed("The estimate at a given heterogeneity").log_marginal
        self.fixed = json.loads(fit.attrs["fixed"])
        self.names = [n for n in record.parameters if n not in self.fixed and n not in on_path(record, 1.0, self.means)]
        self.lines = {name: line(record.parameters[name].support) for name in self.names}
        self.log_priors = {name: log_density(priors[name]) for name in self.names}
        drawn = {name: self.lines[name][0](h[name].values) for name in self.names}
        self.scales = {name: (u.mean(), u.std()) for name, u in drawn.items()}

    def on_line(self, x: np.ndarray) -> dict[str, np.ndarray]:
        """Each hyperparameter on the whole line, at points x [..., dimension]."""
        return {name: centre + scale * x[..., k] for k, (name, (centre, scale)) in enumerate(self.scales.items())}

    def at(self, x: np.ndarray, t: np.ndarray) -> xr.Dataset:
        """All hyperparameters [heterogeneity, node] at points x [heterogeneity, node, dimension]."""
        dims = ("heterogeneity", "node")
        named = {name: self.lines[name][1](u) for name, u in self.on_line(x).items()}
        named |= self.fixed | on_path(self.record, t[:, None], self.means)
        return xr.Dataset({name: (dims, np.broadcast_to(value, x.shape[:2])) for name, value in named.items()})

    def log_posterior(self, x: np.ndarray, t: np.ndarray) -> np.ndarray:
        """Log p(y | h, t) + log p(h) + log Jacobian at points x [heterogeneity, node, dimension]."""
        h, group = self.at(x, t), self.record.group
        total = np.zeros(x.shape[:2])
        for chunk in in_chunks(self.data, group, total.size):
            total += self.log_marginal(h, chunk).sum(group).transpose("heterogeneity", "node").values
        for name, u in self.on_line(x).items():
            total += self.log_priors[name](h[name].values.ravel()).reshape(u.shape) + self.lines[name][2](u)
        return total


def line(support: tuple[float, float]) -> tuple[Callable, Callable, Callable]:
    """From a support to the whole line, the way back, and the log Jacobian of the way back."""
    low, high = support
    if np.isfinite([low, high]).all():
        width = high - low
        return (
            lambda value: logit((value - low) / width),
            lambda u: low + width * expit(u),
            lambda u: np.log(width) + log_expit(u) + log_expit(-u),
        )
    if np.isfinite(low):
        return (lambda value: np.log(value - low)), (lambda u: low + np.exp(u)), (lambda u: u)
    return (lambda value: value), (lambda u: u), np.zeros_like


def log_density(prior: Prior) -> Callable:
    """The log density of a prior, for arrays of values."""
    value = pt.dvector()
    with pm.Model():
        variable = prior.create_variable("value")
    return function([value], pm.logp(variable, value), mode="FAST_COMPILE")
