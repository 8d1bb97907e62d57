"""The hyperparameters that something leaves free: their posterior on the whole line, for quadrature and bridges."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from functools import partial

import numpy as np
import pymc as pm
import pytensor.tensor as pt
import xarray as xr
from pymc_extras.prior import Prior
from pytensor import function
from scipy.special import expit, log_expit, logit, logsumexp
from scipy.stats import multivariate_normal

from hbm_zoo.group_level.newton import modes
from hbm_zoo.inference.chunks import log_joint, of_groups
from hbm_zoo.inference.fits import hyperparameters, prepared, priors_of
from hbm_zoo.inference.loo import bridge
from hbm_zoo.inference.quadrature import quadrature
from hbm_zoo.model import HierarchicalModel

NO_DENSITY = -1e100  # Nats where there is none, or none is defined: below any that is, and finite, for differences.


def left_out(record: HierarchicalModel, fit: xr.DataTree, which: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Log predictive density of each of some groups left out, under complete pooling, and how exact it is [nats].

    What all groups share is integrated out by quadrature, once with every group and once
    without each: the ratio of the two is what the others say of it. Nothing is sampled, so
    a group that lies where no draw does is no harder than another. The error is what
    half as many nodes in each dimension change, or a quarter of the weighted draws that stand
    for nodes beyond three dimensions. NaN where a density is defined at no node.
    """
    free = FreeParameters(record, fit)
    log_f, curves, size = partial(free.log_posterior, without=which), which.size + 1, len(free.names)
    top = modes(log_f, np.zeros((curves, size)), record.group_level.step)

    def elpd(finer: int) -> np.ndarray:
        _, log_weights = quadrature(log_f, curves, size, finer, top=top)
        log_evidence = logsumexp(log_weights, axis=1)
        log_evidence[log_evidence < NO_DENSITY / 2] = np.nan  # a ratio of two that are nothing is not 1
        return log_evidence[-1] - log_evidence[:-1]

    coarse, fine = elpd(1), elpd(2)
    return fine, np.abs(fine - coarse)


def log_evidence(
    free: FreeParameters, h: xr.Dataset, data: xr.Dataset, reff: float, rng: np.random.Generator
) -> tuple[float, float]:
    """Log probability of the data, all hyperparameters integrated out, and its Monte Carlo error [nats].

    A bridge (Meng & Wong 1996, Stat Sinica 6:831-860) from the posterior to a normal whose
    integral is known: half of the draws h [sample] say which normal, the other half are
    bridged with as many of its own.
    """
    drawn = np.column_stack([free.lines[name][0](h[name].values) for name in free.names])
    centre, sd = drawn[::2].mean(axis=0), drawn[::2].std(axis=0)
    z = (drawn - centre) / sd  # hyperparameters in one unit, whatever that of the data
    normal = multivariate_normal(np.zeros(sd.size), np.corrcoef(z[::2], rowvar=False))
    proposed = normal.rvs(len(z[1::2]), random_state=rng).reshape(-1, sd.size)
    from_normal, from_posterior = (
        free.log_density(centre + sd * at, data) + np.log(sd).sum() - normal.logpdf(at) for at in (proposed, z[1::2])
    )
    return bridge(from_normal, from_posterior, (1.0, reff))


def on_path(record: HierarchicalModel, t, means: Mapping[str, float]) -> dict:
    """The hyperparameters that the heterogeneity t fixes."""
    path = record.extras.path
    return {record.heterogeneity: t} if path is None else path(t, means)


def means_of(h: xr.Dataset) -> dict[str, float]:
    """The posterior mean of each hyperparameter."""
    return {str(name): float(value.mean()) for name, value in h.items()}


class FreeParameters:
    """The hyperparameters that neither the pooling nor `path` fixes, on the whole line; x in units of their draws' sd.

    ``path(t)`` gives what a heterogeneity of t fixes; without it nothing else is fixed.
    """

    def __init__(self, record: HierarchicalModel, fit: xr.DataTree, path: Callable | None = None):
        h, priors = hyperparameters(fit), priors_of(fit)
        self.record, self.data = record, prepared(fit)
        self.path = path or (lambda t: {})
        record.ask("The posterior of the hyperparameters", "log_joint")
        self.fixed = json.loads(fit.attrs["fixed"])
        self.names = [n for n in record.parameters if n not in self.fixed and n not in self.path(1.0)]
        self.lines = {name: line(record.parameters[name].support) for name in self.names}
        self.log_priors = {name: log_density(priors[name]) for name in self.names}
        drawn = {name: self.lines[name][0](h[name].values) for name in self.names}
        self.scales = {name: (u.mean(), u.std()) for name, u in drawn.items()}

    def on_line(self, x: np.ndarray) -> dict[str, np.ndarray]:
        """Each hyperparameter on the whole line, at points x [..., dimension]."""
        return {name: centre + scale * x[..., k] for k, (name, (centre, scale)) in enumerate(self.scales.items())}

    def at(self, x: np.ndarray, t: np.ndarray) -> xr.Dataset:
        """All hyperparameters [curve, point] at points x [curve, point, dimension], t [curve]."""
        return self._at(self.on_line(x), t, x.shape[:2])

    def _at(self, on_line: Mapping[str, np.ndarray], t: np.ndarray, shape: tuple) -> xr.Dataset:
        named = {name: self.lines[name][1](u) for name, u in on_line.items()}
        named |= self.fixed | self.path(t[:, None])
        return xr.Dataset({name: (("curve", "point"), np.broadcast_to(value, shape)) for name, value in named.items()})

    def log_posterior(self, x: np.ndarray, t: np.ndarray | None = None, without: np.ndarray | None = None):
        """Log p(y | h, t) + log p(h) + log Jacobian [curve, point] at points x [curve, point, dimension], t [curve].

        ``without`` says which group is not in y, one for each curve but the last; all are in y if not given.
        """
        t, density = np.zeros(len(x)) if t is None else t, partial(log_joint, self.record)
        if without is not None:
            density = partial(self._without, which=without)
        return self._log_density(self.on_line(x), t, x.shape[:2], self.data, density)

    def _without(self, h: xr.Dataset, data: xr.Dataset, which: np.ndarray) -> xr.DataArray:
        """Log p(y | h) [curve, point] without the data of one group for each curve but the last."""
        level, group = self.record.group_level, self.record.group
        if not level.independent:
            of_one = level.log_left_out(h, data)
            left = [of_one.isel({"curve": curve, group: j}, drop=True) for curve, j in enumerate(which)]
            return level.log_joint(h, data) - xr.concat([*left, xr.zeros_like(left[0])], dim="curve")
        counted = xr.DataArray(np.ones((which.size + 1, data.sizes[group]), bool), dims=("curve", group))
        counted.values[np.arange(which.size), which] = False
        samples = h.sizes["curve"] * h.sizes["point"]
        chunks = of_groups(self.record, data.assign(counted=counted), samples)
        return sum(level.log_left_out(h, part).where(part.counted, 0.0).sum(group, skipna=False) for part in chunks)

    def log_density(self, u: np.ndarray, data: xr.Dataset) -> np.ndarray:
        """The same [point] for other data, at points u [point, dimension] of the lines themselves."""
        on_line = {name: u[None, :, k] for k, name in enumerate(self.names)}
        return self._log_density(on_line, np.zeros(1), (1, len(u)), data, partial(log_joint, self.record))[0]

    def _log_density(self, on_line: Mapping[str, np.ndarray], t: np.ndarray, shape: tuple, data, density: Callable):
        h = self._at(on_line, t, shape)
        total = density(h, data).transpose("curve", "point").values.copy()
        for name, u in on_line.items():
            total += self.log_priors[name](h[name].values.ravel()).reshape(shape) + self.lines[name][2](u)
        return np.maximum(np.nan_to_num(total, nan=NO_DENSITY), NO_DENSITY)


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
    if np.isfinite(low):  # points may lie where exp has no number; no density is left there
        return (lambda value: np.log(value - low)), (lambda u: low + np.exp(np.minimum(u, 300))), (lambda u: u)
    return (lambda value: value), (lambda u: u), np.zeros_like


def log_density(prior: Prior) -> Callable:
    """The log density of a prior, for arrays of values."""
    value = pt.dvector()
    with pm.Model():
        variable = prior.create_variable("value")
    return function([value], pm.logp(variable, value), mode="FAST_COMPILE")
