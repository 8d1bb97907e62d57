"""Populations: what is known of one group's parameter, given hyperparameters.

A population is a mean, an sd, a cdf, a ppf, a log density and draws; nobody asks which one it is.
It is the same before and after a group's data are seen, or of another kind: a mixture, a table on
nodes. Fields are ``xarray.DataArray``s; dims combine by name, so draws of the hyperparameters
[sample] and groups meet in one expression. No spread (sd = 0) is a point, not a limit.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from typing import Any, ClassVar

import numpy as np
import xarray as xr
from scipy import special

BEFORE_0 = -np.finfo(float).tiny


class Population:
    """What all populations share: their fields, spread over other dims or taken apart into cells.

    Attributes
    ----------
    inner
        Dims that lie inside one population, such as its nodes.
    atom
        Where a share of the probability may sit in one point, if anywhere.
    """

    inner: ClassVar[tuple[str, ...]] = ()
    atom: ClassVar[float | None] = None
    mean: xr.DataArray
    sd: xr.DataArray

    def sample(self, rng):
        """A draw of each group's parameter, joint where groups depend on one another."""
        raise NotImplementedError

    def log_density(self, x):
        """Log density of the continuous part [nats]."""
        raise NotImplementedError

    def cdf(self, x):
        """P(theta <= x)."""
        raise NotImplementedError

    def ppf(self, p):
        """The quantile of a probability."""
        raise NotImplementedError

    def map(self, g) -> Population:
        """The population of a function of the parameter: what the function makes of this one."""
        return g.of(self)

    def over(self, like: xr.DataArray) -> Population:
        """The same population for each entry of an array, so that each has a draw of its own."""
        ones = xr.ones_like(like, dtype=float)
        return self._with({name: value * ones for name, value in self._fields().items()})

    def cells(self) -> tuple[Population, xr.DataArray]:
        """Every field as [sample, cell, ...], and a template of the cells by name."""
        template = xr.broadcast(*(self._outer(value) for value in self._fields().values()))[0]
        template = template.transpose("sample", ...)
        flat = {name: self._flat(value, template) for name, value in self._fields().items()}
        return self._with(flat), template.isel(sample=0, drop=True)

    def of(self, cells, draws=slice(None)) -> Population:
        """Some of the cells of a population taken apart, at some of the draws."""
        some = {"cell": cells, "sample": draws}
        return self._with({name: value.isel(some, missing_dims="ignore") for name, value in self._fields().items()})

    def _with(self, changed: dict[str, xr.DataArray]) -> Population:
        return replace(self, **changed)  # type: ignore[type-var]

    def _fields(self) -> dict[str, xr.DataArray]:
        return {field.name: xr.DataArray(getattr(self, field.name)) for field in fields(self)}  # type: ignore[arg-type]

    def _outer(self, value: xr.DataArray) -> xr.DataArray:
        return value.isel({dim: 0 for dim in self.inner if dim in value.dims}, drop=True)

    def _flat(self, value: xr.DataArray, template: xr.DataArray) -> xr.DataArray:
        inside = [dim for dim in self.inner if dim in value.dims]
        wide = (value * xr.ones_like(template, dtype=float)).transpose(*template.dims, *inside).values
        sizes = template.sizes["sample"], -1, *(value.sizes[dim] for dim in inside)
        return xr.DataArray(wide.reshape(sizes), dims=("sample", "cell", *inside))


@dataclass(frozen=True)
class Gamma(Population):
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

    def log_density(self, x):
        shape = self.cv**-2.0
        rate = shape / self.mean
        return special.xlogy(shape, rate) + special.xlogy(shape - 1, x) - rate * x - special.gammaln(shape)

    def sample(self, rng):
        def draw(mean, cv):
            shape = np.maximum(cv, np.finfo(float).tiny ** 0.25) ** -2
            return np.where(cv > 0, mean * rng.standard_gamma(shape) / shape, mean)

        return xr.apply_ufunc(draw, *xr.broadcast(self.mean, self.cv))


@dataclass(frozen=True)
class Beta(Population):
    """Beta with a mean and a spread phi, a + b = 1/phi^2; phi = 0 is a point."""

    mean: xr.DataArray
    phi: xr.DataArray

    @property
    def sd(self):
        return np.sqrt(self.mean * (1 - self.mean)) * self.phi / np.sqrt(1 + self.phi**2)

    def cdf(self, x):
        a, b = self._successes_and_failures()
        return xr.where(self.phi > 0, special.betainc(a, b, np.clip(x, 0, 1)), x >= self.mean)

    def ppf(self, p):
        return xr.where(self.phi > 0, special.betaincinv(*self._successes_and_failures(), p), self.mean)

    def log_density(self, x):
        a, b = self._successes_and_failures()
        return special.xlogy(a - 1, x) + special.xlog1py(b - 1, -x) - special.betaln(a, b)

    def sample(self, rng):
        def draw(a, b, mean, phi):
            return np.where(phi > 0, rng.beta(a, b), mean)

        return xr.apply_ufunc(draw, *xr.broadcast(*self._successes_and_failures(), self.mean, self.phi))

    def _successes_and_failures(self):
        """A and b, as if so many had been seen before; of a point those of any spread."""
        phi = xr.where(self.phi > 0, self.phi, 1.0)
        return self.mean / phi**2, (1 - self.mean) / phi**2


@dataclass(frozen=True)
class Normal(Population):
    """Normal with a mean and a standard deviation; sd = 0 is a point."""

    mean: xr.DataArray
    sd: xr.DataArray

    def cdf(self, x):
        return special.ndtr((x - self.mean) / self.sd)

    def ppf(self, p):
        return self.mean + self.sd * special.ndtri(p)

    def log_density(self, x):
        return -0.5 * (np.log(2 * np.pi) + ((x - self.mean) / self.sd) ** 2) - np.log(self.sd)

    def sample(self, rng):
        return xr.apply_ufunc(rng.normal, *xr.broadcast(self.mean, self.sd))

    @property
    def mean_absolute(self):
        """E|theta| (Leone, Nelson & Nottingham 1961, Technometrics 3:543-550)."""
        z = abs(self.mean) / xr.where(self.sd > 0, self.sd, 1.0)
        near = self.sd * np.sqrt(2 / np.pi) * np.exp(-(z**2) / 2) + abs(self.mean) * special.erf(z / np.sqrt(2))
        return xr.where(self.sd > 0, near, abs(self.mean))

    def absolute_ppf(self, p):
        """The quantile of |theta|, by bisection from 0 to the farther end of an interval around theta that holds p."""
        high = np.maximum(*(abs(self.ppf(q)) for q in ((1 - p) / 2, (1 + p) / 2)))
        low = xr.zeros_like(high)
        for _ in range(60):
            middle = (low + high) / 2
            short = self.cdf(middle) - self.cdf(-middle) < p
            low, high = xr.where(short, middle, low), xr.where(short, high, middle)
        return xr.where(self.sd > 0, (low + high) / 2, abs(self.mean))

    def log_mean_exp(self, t):
        """Log E[exp(t theta)]."""
        return t * self.mean + (t * self.sd) ** 2 / 2

    def expect(self, g):
        """E[g(theta)] of a smooth elementwise function by the trapezoid rule; without spread exactly g there."""
        z = xr.DataArray(np.linspace(-9, 9, 73), dims="node")
        weight, middle = np.exp(-(z**2) / 2), g(self.mean)
        return middle + ((g(self.mean + self.sd * z) - middle) * weight).sum("node", skipna=False) / weight.sum()


@dataclass(frozen=True)
class CorrelatedNormal(Normal):
    """Two normals, [..., coefficient], and their correlation; cdf and ppf are the marginals'."""

    correlation: xr.DataArray

    def log_density(self, x):
        """Of both coefficients together."""
        z = (x - self.mean) / self.sd
        first, second = (z.isel(coefficient=k, drop=True) for k in (0, 1))
        unexplained = 1 - self.correlation**2
        squares = (first**2 - 2 * self.correlation * first * second + second**2) / unexplained
        scale = np.log(self.sd).sum("coefficient", skipna=False)
        return -0.5 * (squares + np.log(unexplained)) - np.log(2 * np.pi) - scale

    def sample(self, rng):
        mean, correlation = xr.broadcast(self.mean * xr.ones_like(self.sd), self.correlation)
        z = mean.copy(data=rng.standard_normal(mean.shape))
        shared = z.isel(coefficient=0, drop=True)
        second = mean.coefficient == mean.coefficient[1]
        z = xr.where(second, correlation * shared + np.sqrt(1 - correlation**2) * z, z)
        return (mean + self.sd * z).transpose(*mean.dims)


@dataclass(frozen=True)
class Increasing:
    """An increasing function of the line, its inverse, and the log of its slope at the inverse."""

    function: Callable
    inverse: Callable
    log_slope: Callable

    def __call__(self, theta):
        return self.function(theta)

    def of(self, population):
        """The population of the function, of one that can say what it expects of a function (``expect``)."""
        return Mapped(population, self)


EXPIT = Increasing(special.expit, lambda p: special.logit(np.clip(p, 0, 1)), lambda p: np.log(p) + np.log1p(-p))


@dataclass(frozen=True)
class Mapped(Population):
    """An increasing function of what has a population: a share whose log odds are normal.

    Examples
    --------
    >>> of_rates = Normal(xr.DataArray(0.0), xr.DataArray(1.0)).map(EXPIT)
    >>> of_rates.mean.item(), round(of_rates.sd.item(), 4), of_rates.cdf(0.5).item()
    (0.5, 0.2083, 0.5)
    """

    of_parameter: Any
    g: Any

    @property
    def mean(self):
        return self.of_parameter.expect(self.g)

    @property
    def sd(self):
        middle = self.mean
        return np.sqrt(self.of_parameter.expect(lambda theta: (self.g(theta) - middle) ** 2))

    def cdf(self, x):
        return self.of_parameter.cdf(self.g.inverse(x))

    def ppf(self, p):
        return self.g(self.of_parameter.ppf(p))

    def log_density(self, x):
        return self.of_parameter.log_density(self.g.inverse(x)) - self.g.log_slope(x)

    def sample(self, rng):
        return self.g(self.of_parameter.sample(rng))

    def over(self, like):
        return Mapped(self.of_parameter.over(like), self.g)

    def cells(self):
        flat, template = self.of_parameter.cells()
        return Mapped(flat, self.g), template

    def of(self, cells, draws=slice(None)):
        return Mapped(self.of_parameter.of(cells, draws), self.g)


@dataclass(frozen=True)
class SpikeSlab(Population):
    """Exactly 0 with probability `null`, else Normal; slab_sd = 0 is a point."""

    atom = 0.0
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
        below = (1 - self.null) * self.slab_cdf(BEFORE_0)
        rest = xr.where(p <= below, p, p - self.null)
        with np.errstate(divide="ignore", invalid="ignore"):
            outside = self.slab_mean + self.slab_sd * special.ndtri(rest / (1 - self.null))
        return xr.where((p > below) & (p <= below + self.null), 0.0, outside)

    def log_density(self, x):
        """Of the continuous part, at effects that are not 0."""
        return np.log1p(-self.null) + Normal(self.slab_mean, self.slab_sd).log_density(x)

    def sample(self, rng):
        def draw(null, mean, sd):
            return np.where(rng.random(null.shape) < null, 0.0, rng.normal(mean, sd))

        return xr.apply_ufunc(draw, *xr.broadcast(self.null, self.slab_mean, self.slab_sd))
