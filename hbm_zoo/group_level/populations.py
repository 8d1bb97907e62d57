"""Populations: what is known of one group's parameter, given hyperparameters.

A population is the same kind of thing before and after a group's data are seen.
Parameters are ``xarray.DataArray``s; dims combine by name, so draws of the
hyperparameters [sample] and groups meet in one expression.
"""

from dataclasses import dataclass

import numpy as np
import xarray as xr
from scipy import special
from scipy.optimize import elementwise


@dataclass(frozen=True)
class Gamma:
    """Gamma with a mean and a coefficient of variation; cv = 0 is a point."""

    mean: xr.DataArray
    cv: xr.DataArray

    @property
    def sd(self):
        return self.mean * self.cv

    def cdf(self, x):
        shape = self.cv**-2.0
        return special.gammainc(shape, shape * np.maximum(x, 0) / self.mean)

    def ppf(self, p):
        shape = self.cv**-2.0
        return special.gammaincinv(shape, p) * self.mean / shape

    def sample(self, rng):
        def draw(mean, cv):
            shape = np.maximum(cv, np.finfo(float).tiny ** 0.25) ** -2
            return np.where(cv > 0, mean * rng.standard_gamma(shape) / shape, mean)

        return xr.apply_ufunc(draw, *xr.broadcast(self.mean, self.cv))


@dataclass(frozen=True)
class Normal:
    """Normal with a mean and a standard deviation; sd = 0 is a point."""

    mean: xr.DataArray
    sd: xr.DataArray

    def cdf(self, x):
        return special.ndtr((x - self.mean) / self.sd)

    def ppf(self, p):
        return self.mean + self.sd * special.ndtri(p)

    def sample(self, rng):
        return xr.apply_ufunc(rng.normal, *xr.broadcast(self.mean, self.sd))


@dataclass(frozen=True)
class CorrelatedNormal(Normal):
    """Two normals, [..., coefficient], and their correlation; cdf and ppf are the marginals'."""

    correlation: xr.DataArray

    def sample(self, rng):
        mean, correlation = xr.broadcast(self.mean * xr.ones_like(self.sd), self.correlation)
        z = mean.copy(data=rng.standard_normal(mean.shape))
        shared = z.isel(coefficient=0, drop=True)
        second = mean.coefficient == mean.coefficient[1]
        z = xr.where(second, correlation * shared + np.sqrt(1 - correlation**2) * z, z)
        return (mean + self.sd * z).transpose(*mean.dims)


@dataclass(frozen=True)
class SpikeSlab:
    """Exactly 0 with probability `null`, else Normal; slab_sd = 0 is a point."""

    null: xr.DataArray
    slab_mean: xr.DataArray
    slab_sd: xr.DataArray

    @property
    def mean(self):
        return (1 - self.null) * self.slab_mean

    @property
    def sd(self):
        return np.sqrt((1 - self.null) * (self.slab_sd**2 + self.null * self.slab_mean**2))

    def cdf(self, x):
        return self.null * (x >= 0) + (1 - self.null) * self.slab_cdf(x)

    def slab_cdf(self, x):
        with np.errstate(divide="ignore", invalid="ignore"):
            inside = special.ndtr((x - self.slab_mean) / self.slab_sd)
        return xr.where(self.slab_sd > 0, inside, x >= self.slab_mean)

    def ppf(self, p):
        below = (1 - self.null) * self.slab_cdf(-np.finfo(float).tiny)
        rest = xr.where(p <= below, p, p - self.null)
        with np.errstate(divide="ignore", invalid="ignore"):
            outside = self.slab_mean + self.slab_sd * special.ndtri(rest / (1 - self.null))
        return xr.where((p > below) & (p <= below + self.null), 0.0, outside)

    def sample(self, rng):
        def draw(null, mean, sd):
            return np.where(rng.random(null.shape) < null, 0.0, rng.normal(mean, sd))

        return xr.apply_ufunc(draw, *xr.broadcast(self.null, self.slab_mean, self.slab_sd))


def quantile(population, p):
    """Quantile of a population averaged over hyperparameter draws [sample].

    Where hyperparameters leave the group no freedom (sd = 0) this is the quantile
    of the draws; otherwise the root of the averaged distribution function,
    bracketed by the smallest and the largest quantile of any single draw. A spike may
    hold the quantile: then it is exactly 0.
    """
    fields = [f.transpose("sample", ...) for f in xr.broadcast(*vars(population).values())]
    template = fields[0].isel(sample=0, drop=True)
    cells = type(population)(*(f.values.reshape(f.sizes["sample"], -1) for f in fields))
    if not np.any(cells.sd > 0):
        return template.copy(data=np.quantile(cells.mean, p, axis=0).reshape(template.shape))
    ends = cells.ppf(p)
    margin = 1e-9 * cells.sd.max(axis=0)
    low, high = ends.min(axis=0) - margin, ends.max(axis=0) + margin
    result, free = np.zeros(margin.size), np.arange(margin.size)
    if isinstance(cells, SpikeSlab):
        low, high, free = _beside_the_spike(cells, p, low, high)
    else:
        points = ~(cells.sd > 0).any(axis=0)
        result[points], free = np.quantile(cells.mean[:, points], p, axis=0), np.flatnonzero(~points)

    def excess(x, cell):
        here = type(cells)(*(field[:, cell.astype(int)] for field in vars(cells).values()))
        return here.cdf(x).mean(axis=0) - p

    if free.size:
        result[free] = elementwise.find_root(
            excess,
            (low[free], high[free]),
            args=(free,),
            tolerances={"xrtol": 1e-7, "xatol": 0, "fatol": 0, "frtol": 0},
        ).x
    return template.copy(data=result.reshape(template.shape))


def _beside_the_spike(cells, p, low, high):
    """Brackets on one side of 0, and the cells whose quantile is not exactly 0."""
    before = -np.finfo(float).tiny
    below, up_to = cells.cdf(before).mean(axis=0), cells.cdf(0.0).mean(axis=0)
    low, high = np.where(p > up_to, 0.0, low), np.where(p <= below, before, high)
    return low, high, np.flatnonzero((p <= below) | (p > up_to))


def exceedance(population, threshold):
    """P(theta > threshold), averaged over hyperparameter draws [sample]."""
    mean, sd = xr.broadcast(population.mean, population.sd)
    with np.errstate(divide="ignore", invalid="ignore"):
        beyond = xr.where(sd > 0, 1 - population.cdf(threshold), mean > threshold)
    return beyond.mean("sample")
