"""Populations with heavy tails: Student's t, and what it becomes after normal data, a mixture of normals."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import xarray as xr
from scipy import special

from hbm_zoo.group_level.populations import Population

BISECTIONS = 32
#: Points of an expectation, from the mean in half sds: dense where normals are narrow, out to 16 sds.
POINTS, HALF_SDS = 29, 4.2


@dataclass(frozen=True)
class StudentT(Population):
    """Student's t with a location, a scale and nu > 2 degrees of freedom; scale = 0 is a point.

    Examples
    --------
    >>> t = StudentT(xr.DataArray(0.0), xr.DataArray(1.0), xr.DataArray(4.0))
    >>> round(t.sd.item() ** 2, 9), round(t.cdf(2.0).item(), 4)
    (2.0, 0.9419)
    """

    mean: xr.DataArray
    scale: xr.DataArray
    nu: xr.DataArray

    @property
    def sd(self):
        return self.scale * np.sqrt(self.nu / (self.nu - 2))

    def cdf(self, x):
        return special.stdtr(self.nu, (x - self.mean) / self.scale)

    def ppf(self, p):
        return self.mean + self.scale * special.stdtrit(self.nu, p)

    def log_density(self, x):
        z, half = (x - self.mean) / self.scale, self.nu / 2
        constant = special.gammaln(half + 0.5) - special.gammaln(half) - 0.5 * np.log(np.pi * self.nu)
        return constant - (half + 0.5) * np.log1p(z**2 / self.nu) - np.log(self.scale)

    def sample(self, rng):
        mean, scale, nu = xr.broadcast(self.mean, self.scale, self.nu)
        return mean + scale * nu.copy(data=rng.standard_t(nu.values))


@dataclass(frozen=True)
class MixtureOfNormals(Population):
    """Normals with weights that add up to 1; where all have sd 0 and one mean it is a point.

    Examples
    --------
    >>> two = MixtureOfNormals(*(xr.DataArray(v, dims="node") for v in ([-1.0, 1.0], [0.5, 0.5], [0.5, 0.5])))
    >>> two.mean.item(), round(two.sd.item() ** 2, 9), two.cdf(0.0).item(), abs(two.ppf(0.5).item()) < 1e-9
    (0.0, 1.25, 0.5, True)
    """

    inner = ("node",)
    each_mean: xr.DataArray
    each_sd: xr.DataArray
    weight: xr.DataArray

    def _over(self, values):
        return (self.weight * values).sum("node", skipna=False)

    @property
    def mean(self):
        return self._over(self.each_mean)

    @property
    def sd(self):
        return np.sqrt(self._over(self.each_sd**2 + (self.each_mean - self.mean) ** 2))

    def expect(self, g):
        """E[g(theta)] of a smooth elementwise function by the trapezoid rule; of a point exactly g there."""
        t = xr.DataArray(np.linspace(-HALF_SDS, HALF_SDS, POINTS), dims="point")
        middle, sd = self.mean, self.sd
        x = middle + sd / 2 * np.sinh(t)
        with np.errstate(divide="ignore", invalid="ignore"):
            density = xr.where(self.each_sd.max("node") > 0, np.exp(self.log_density(x)) * sd, 1.0) * np.cosh(t)
        values = g(x)
        first = g(middle)
        return first + (density * (values - first)).sum("point", skipna=False) / density.sum("point", skipna=False)

    def cdf(self, x):
        with np.errstate(divide="ignore", invalid="ignore"):
            below = special.ndtr((x - self.each_mean) / self.each_sd)
        return self._over(xr.where(self.each_sd > 0, below, x >= self.each_mean)).clip(0, 1)

    def ppf(self, p):
        """By bisection between the least and the largest quantile of any of the normals that has weight."""
        each = (self.each_mean + self.each_sd * special.ndtri(p)).where(self.weight > 0)
        low, high = each.min("node"), each.max("node")
        for _ in range(BISECTIONS):
            middle = (low + high) / 2
            short = self.cdf(middle) < p
            low, high = xr.where(short, middle, low), xr.where(short, high, middle)
        return (low + high) / 2

    def log_density(self, x):
        z = (x - self.each_mean) / self.each_sd
        log_each = np.log(self.weight) - 0.5 * (np.log(2 * np.pi) + z**2) - np.log(self.each_sd)
        top = log_each.max("node")
        return top + np.log(np.exp(log_each - top).sum("node", skipna=False))

    def sample(self, rng):
        outer = self._outer(self.weight * self.each_mean)
        u = outer.copy(data=rng.random(outer.shape))
        node = (self.weight.cumsum("node") < u).sum("node").clip(max=self.weight.sizes["node"] - 1)
        mean, sd = (
            value.isel(node=node) if "node" in value.dims else value for value in (self.each_mean, self.each_sd)
        )
        return mean + sd * outer.copy(data=rng.standard_normal(outer.shape))
