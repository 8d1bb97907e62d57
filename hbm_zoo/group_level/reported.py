"""What is reported of a parameter where that is a function of it, and the population of the function.

Of one that is normal, or normal after data, its absolute value or its exponential; of log odds against what is
expected of each group, the relative risk.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import xarray as xr
from scipy import special

from hbm_zoo.group_level.populations import Mapped, Population


@dataclass(frozen=True)
class _Reported(Population):
    """A function of what has a population."""

    of_parameter: Any

    def over(self, like):
        return type(self)(self.of_parameter.over(like))

    def cells(self):
        flat, template = self.of_parameter.cells()
        return type(self)(flat), template

    def of(self, cells, draws=slice(None)):
        return type(self)(self.of_parameter.of(cells, draws))

    def _or_point(self, sd):
        """No spread where the parameter has none."""
        return xr.where(self.of_parameter.sd > 0, sd, 0.0)


@dataclass(frozen=True)
class Folded(_Reported):
    """The absolute value of what is normal, or tilted normal: smooth through 0.

    Examples
    --------
    >>> from hbm_zoo.group_level.populations import Normal
    >>> half = Folded(Normal(xr.DataArray(0.0), xr.DataArray(1.0)))
    >>> round(half.mean.item() ** 2 * np.pi / 2, 9), round(half.cdf(xr.DataArray(1.0)).item(), 4)
    (1.0, 0.6827)
    """

    @property
    def mean(self):
        return self.of_parameter.mean_absolute

    @property
    def sd(self):
        square = self.of_parameter.mean**2 + self.of_parameter.sd**2
        return self._or_point(np.sqrt(np.maximum(square - self.mean**2, 0.0)))

    def cdf(self, x):
        x = xr.DataArray(x)
        return xr.where(x < 0, 0.0, self.of_parameter.cdf(x) - self.of_parameter.cdf(-x))

    def ppf(self, p):
        return self.of_parameter.absolute_ppf(p)

    def log_density(self, x):
        both = [self.of_parameter.log_density(side * xr.DataArray(x)) for side in (1, -1)]
        return xr.where(xr.DataArray(x) < 0, -np.inf, np.logaddexp(*both))

    def sample(self, rng):
        return abs(self.of_parameter.sample(rng))


@dataclass(frozen=True)
class Exponential(_Reported):
    """The exponential of what is normal, or tilted normal: the log normal.

    Examples
    --------
    >>> from hbm_zoo.group_level.populations import Normal
    >>> round(Exponential(Normal(xr.DataArray(0.0), xr.DataArray(1.0))).mean.item() ** 2 / np.e, 9)
    1.0
    """

    @property
    def mean(self):
        return np.exp(self.of_parameter.log_mean_exp(1))

    @property
    def sd(self):
        square, mean = (np.exp(self.of_parameter.log_mean_exp(t)) for t in (2, 1))
        return self._or_point(np.sqrt(np.maximum(square - mean**2, 0.0)))

    def cdf(self, x):
        with np.errstate(divide="ignore"):
            return self.of_parameter.cdf(np.log(np.maximum(xr.DataArray(x), 0.0)))

    def ppf(self, p):
        return np.exp(self.of_parameter.ppf(p))

    def log_density(self, x):
        with np.errstate(divide="ignore", invalid="ignore"):
            log_x = np.log(xr.DataArray(x))
            return self.of_parameter.log_density(log_x) - log_x

    def sample(self, rng):
        return np.exp(self.of_parameter.sample(rng))


@dataclass(frozen=True)
class Estimand:
    """What is reported of a parameter: a function, and the population it makes of the parameter's."""

    function: Any
    population: Any

    def __call__(self, theta):
        return self.function(theta)

    def of(self, population):
        """The population of the function."""
        return self.population(population)


ABSOLUTE, EXP = Estimand(np.abs, Folded), Estimand(np.exp, Exponential)


@dataclass(frozen=True)
class Relative(Mapped):
    """The population of a relative risk: each cell goes with the risk expected there."""

    g: RelativeRisk

    def over(self, like):
        return Relative(self.of_parameter.over(like), self.g)

    def cells(self):
        flat, template = self.of_parameter.over(self.g.expected).cells()
        expected = (self.g.expected * xr.ones_like(template, dtype=float)).transpose(*template.dims)
        return Relative(flat, RelativeRisk(xr.DataArray(expected.values.ravel(), dims="cell"))), template

    def of(self, cells, draws=slice(None)):
        return Relative(self.of_parameter.of(cells, draws), RelativeRisk(self.g.expected.isel(cell=cells)))


@dataclass(frozen=True)
class RelativeRisk:
    """The risk of each group over the one expected there, of the log odds by which they differ.

    p / e with logit p = logit e + alpha: increasing in alpha, from 0 to 1/e.

    Examples
    --------
    >>> twice = RelativeRisk(xr.DataArray([0.2, 0.02], dims="hospital"))
    >>> twice(np.log(2.0)).round(3).values.tolist(), twice.inverse(twice(0.7)).round(3).values.tolist()
    ([1.667, 1.961], [0.7, 0.7])
    """

    expected: xr.DataArray

    def __call__(self, alpha):
        return special.expit(special.logit(self.expected) + alpha) / self.expected

    def inverse(self, ratio):
        """The log odds alpha of a relative risk."""
        return special.logit(np.clip(ratio * self.expected, 0, 1)) - special.logit(self.expected)

    def log_slope(self, ratio):
        """Log of d(p / e) / d alpha = p (1 - p) / e."""
        return np.log(ratio) + np.log1p(-ratio * self.expected)

    def of(self, population):
        """The population of the relative risk, of one that can say what it expects of a function (``expect``)."""
        return Relative(population, self)
