"""The few hyperparameters a model has beside its heterogeneity: their posterior, for quadrature."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping

import numpy as np
import pymc as pm
import pytensor.tensor as pt
import xarray as xr
from pymc_extras.prior import Prior
from pytensor import function
from scipy.special import expit, log_expit, logit, logsumexp

from hbm_zoo.fits import hyperparameters, prepared, priors_of
from hbm_zoo.model import HierarchicalModel
from hbm_zoo.quadrature import quadrature
from hbm_zoo.summary import in_chunks


def left_out(record: HierarchicalModel, fit: xr.DataTree, which: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Log predictive density of each of some groups left out, under complete pooling, and how exact it is [nats].

    What all groups share is integrated out by quadrature, once with every group and once
    without each: the ratio of the two is what the others say of it. Nothing is sampled, so
    a group that lies where no draw does is no harder than another. The error is what
    half as many nodes in each dimension change.
    """
    others = Others(record, fit)
    curves = which.size + 1
    counted = xr.DataArray(np.ones((curves, others.data.sizes[record.group])), dims=("heterogeneity", record.group))
    counted.values[np.arange(which.size), which] = 0
    none = np.zeros(curves)

    def elpd(finer: int) -> np.ndarray:
        log_f, size = lambda x: others.log_posterior(x, none, counted), len(others.names)
        log_evidence = logsumexp(quadrature(log_f, curves, size, finer)[1], axis=1)
        return log_evidence[-1] - log_evidence[:-1]

    coarse, fine = elpd(1), elpd(2)
    return fine, np.abs(fine - coarse)


def on_path(record: HierarchicalModel, t, means: Mapping[str, float]) -> dict:
    """The hyperparameters that the heterogeneity t fixes."""
    return {record.heterogeneity: t} if record.path is None else record.path(t, means)


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

    def log_posterior(self, x: np.ndarray, t: np.ndarray, counted: xr.DataArray | None = None) -> np.ndarray:
        """Log p(y | h, t) + log p(h) + log Jacobian at points x [heterogeneity, node, dimension].

        ``counted`` [heterogeneity, group] says which groups' data are in y; all if not given.
        """
        h, group = self.at(x, t), self.record.group
        data = self.data if counted is None else self.data.assign(_counted=counted)
        total = np.zeros(x.shape[:2])
        for chunk in in_chunks(data, group, total.size):
            each = self.log_marginal(h, chunk)
            total += (each * chunk.get("_counted", 1.0)).sum(group).transpose("heterogeneity", "node").values
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
    if np.isfinite(low):  # nodes may lie where exp has no number; no density is left there
        return (lambda value: np.log(value - low)), (lambda u: low + np.exp(np.minimum(u, 300))), (lambda u: u)
    return (lambda value: value), (lambda u: u), np.zeros_like


def log_density(prior: Prior) -> Callable:
    """The log density of a prior, for arrays of values."""
    value = pt.dvector()
    with pm.Model():
        variable = prior.create_variable("value")
    return function([value], pm.logp(variable, value), mode="FAST_COMPILE")
