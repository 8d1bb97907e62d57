"""A smooth density that is known by its values on evenly spaced nodes: its distribution function, quantiles and draws.

Between nodes it is the band-limited function through its values. Around each node its distribution function is a power
series, whose coefficients are sums over nodes.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache

import numpy as np
import xarray as xr
from numpy.polynomial.polynomial import polyder, polyval
from scipy import special

from hbm_zoo.group_level.populations import Population

#: Powers of the series of a distribution function around a node, and steps of Newton's method to its quantile.
POWERS, STEPS_TO_A_QUANTILE = 10, 4
TINY = np.finfo(float).tiny  # What stands for no density.


@dataclass(frozen=True)
class Tabulated(Population):
    """A smooth density by its values on evenly spaced nodes; all nodes in one place is a point.

    Between nodes the density is the band-limited function through its values: sums over nodes are
    its integrals, to the accuracy of the trapezoid rule.
    """

    inner = ("node",)
    at: xr.DataArray
    weight: xr.DataArray

    @property
    def mean(self):
        return self.expect(lambda theta: theta)

    @property
    def sd(self):
        middle = self.mean
        return np.sqrt(self.expect(lambda theta: (theta - middle) ** 2))

    def expect(self, g: Callable):
        """E[g(theta)] of an elementwise function, from its first value on: of a point exactly g there."""
        values = g(self.at)
        first = values.isel(node=0, drop=True)
        return first + (self.weight * (values - first)).sum("node", skipna=False)

    @property
    def _step(self):
        return (self.at.isel(node=-1) - self.at.isel(node=0)) / (self.at.sizes["node"] - 1)

    def _at_each(self, formula: Callable, values):
        """What an array function of the first node, the step, the weights [..., node] and values says."""
        given = self.at.isel(node=0), self._step, self.weight, values
        return xr.apply_ufunc(formula, *given, input_core_dims=[[], [], ["node"], []])

    def cdf(self, x):
        return self._at_each(_cdf, x)

    def ppf(self, p):
        return self._at_each(_ppf, p)

    def log_density(self, x):
        return self._at_each(_log_density, x)

    def sample(self, rng):
        outer = self._outer(self.weight * self.at)
        return self.ppf(outer.copy(data=rng.random(outer.shape)))


def _cdf(first, step, weight, x):
    node, steps = _nearest(first, step, weight.shape[-1], x)
    below = polyval(steps, _series(weight, node), tensor=False)
    return np.where(step == 0, x >= first, below.clip(0, 1))


def _log_density(first, step, weight, x):
    node, steps = _nearest(first, step, weight.shape[-1], x)
    return np.log(polyval(steps, polyder(_series(weight, node)), tensor=False).clip(min=TINY)) - np.log(step)


def _ppf(first, step, weight, p):
    """From the node around which p lies, Newton's method on the power series of the cdf."""
    below = np.cumsum(weight, axis=-1) < np.expand_dims(p, -1)
    node = below.sum(axis=-1).clip(max=weight.shape[-1] - 1)
    series = _series(weight, node)
    slope, steps = polyder(series), np.zeros(node.shape)
    for _ in range(STEPS_TO_A_QUANTILE):
        density = polyval(steps, slope, tensor=False).clip(min=TINY)
        steps = (steps + (p - polyval(steps, series, tensor=False)) / density).clip(-1, 1)
    return first + (node + steps) * step


def _nearest(first, step, nodes: int, x):
    """The node next to x, and how many steps x lies from it: 1, beyond the last and before the first, at most."""
    from_first = ((x - first) / np.where(step > 0, step, 1.0)).clip(-1, nodes)
    node = from_first.round().clip(0, nodes - 1)
    return np.nan_to_num(node).astype(int), from_first - node


def _series(weight: np.ndarray, node: np.ndarray) -> np.ndarray:
    """Power series [power, ...] around a node of the cdf of a band-limited density, its values the weights [..., node].

    With the sine integral Si the cdf is sum_k w_k (1/2 + Si(pi (x - k)) / pi).
    """
    return np.stack([np.einsum("...k,...k", weight, matrix[node]) for matrix in _matrices(weight.shape[-1])])


@cache
def _matrices(nodes: int) -> np.ndarray:
    """Coefficients [power, node, k] of 1/2 + Si(pi (x - k)) / pi around each node.

    Its derivative is sinc, for whose own x sinc(x) = sin(pi x) / pi has, by Leibniz' rule, a recursion.
    """
    n = np.subtract.outer(np.arange(nodes), np.arange(nodes)).astype(float)
    away, sign = np.where(n == 0, 1.0, n), (-1.0) ** n
    powers, derivative = [0.5 + special.sici(np.pi * n)[0] / np.pi], np.where(n == 0, 1.0, 0.0)
    for m in range(1, POWERS):
        powers.append(derivative / special.factorial(m))
        there = (np.pi ** (m - 1) * sign * np.sin(m * np.pi / 2) - m * derivative) / away
        derivative = np.where(n == 0, np.pi**m * np.cos(m * np.pi / 2) / (m + 1), there)
    return np.stack(powers)
