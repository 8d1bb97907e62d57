"""A normal population after data whose likelihood is tabulated: a normal times a piecewise linear function.

    p(a | y, mu, tau) prop. to L(a) N(a; mu, tau^2),   L linear between nodes and constant beyond the last

On each piece the integrals of 1, z, z^2 and z^3 times the normal density are known, z = (a - mu)/tau, and with them
mass, mean, variance, distribution function and E|a|, all exact for this L, and at tau = 0 a point. What is reported of
a may be its absolute value or its exponential: the folded and the log normal.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import xarray as xr
from scipy import special

from hbm_zoo.group_level.populations import Normal, Population

FAR = 50.0  # Standard deviations, where a normal has nothing left.
BISECTIONS = 60


@dataclass(frozen=True)
class Tilted(Population):
    """N(mu, tau^2) times a likelihood that is piecewise linear between nodes, in the order of the line.

    Examples
    --------
    A flat likelihood changes nothing; one that rises from 0 shifts the mean.

    >>> line = xr.DataArray([-100.0, 100.0], dims="node")
    >>> flat = Tilted(xr.DataArray(1.0), xr.DataArray(2.0), line, xr.ones_like(line))
    >>> rising = Tilted(xr.DataArray(1.0), xr.DataArray(2.0), line, line + 100)
    >>> flat.mean.item(), round(flat.sd.item(), 9), round(rising.mean.item(), 3)
    (1.0, 2.0, 1.04)
    """

    inner = ("node",)
    mu: xr.DataArray
    tau: xr.DataArray
    node: xr.DataArray
    likelihood: xr.DataArray

    @property
    def mean(self):
        return self.mu + self.tau * self._of(lambda piece: piece.moment(1))

    @property
    def sd(self):
        first, second = (self._of(lambda piece, p=p: piece.moment(p)) for p in (1, 2))
        return self.tau * np.sqrt(np.maximum(second - first**2, 0.0))

    @property
    def mean_absolute(self):
        """E|a|, where one of the nodes is 0."""
        return self._of(lambda piece: piece.mean_absolute)

    def log_mean_exp(self, t):
        """Log E[exp(t a)]: that of the normal, and how the shift by t tau^2 changes the mass."""
        shifted = Tilted(self.mu + t * self.tau**2, self.tau, self.node, self.likelihood)
        mass, before = (each._of(lambda piece: piece.mass) for each in (shifted, self))
        return t * self.mu + (t * self.tau) ** 2 / 2 + np.log(mass) - np.log(before)

    def cdf(self, x):
        return self._of(lambda piece, x: piece.below(x), x)

    def ppf(self, p):
        return self._of(lambda piece: piece.quantile(p))

    def absolute_ppf(self, p):
        """The quantile of |a|, where nodes and likelihood are even."""
        return self._of(lambda piece: piece.absolute_quantile(p))

    def sample(self, rng):
        return self._of(lambda piece: piece.quantile(rng.random(piece.point.shape)))

    def log_density(self, x):
        with np.errstate(divide="ignore"):
            height = np.log(self._of(lambda piece, x: piece.height(x), x)) - np.log(self._of(lambda piece: piece.mass))
        return height + Normal(self.mu, self.tau).log_density(x)

    def mean_log_likelihood(self):
        """E[log L(a)], log L taken as linear between nodes as well."""
        return self._of(lambda piece: piece.mean_log_likelihood)

    def _of(self, what, *x):
        """What the pieces say, by the dims of all fields but the node's, and of points x."""
        outer, pieces = self._held
        at = [xr.DataArray(each) for each in x]
        if any(set(each.dims) - set(outer.dims) for each in at):
            wide = self.over(xr.broadcast(outer, *at)[0])
            outer, pieces = wide._held
        points = [self._placed(each, outer) for each in at]
        return outer.copy(data=np.broadcast_to(what(pieces, *points), outer.shape))

    @cached_property
    def _held(self):
        """A template of the outer dims, and the pieces, which are asked many things."""
        outer = xr.broadcast(*map(self._outer, map(xr.DataArray, (self.mu, self.tau, self.node, self.likelihood))))[0]
        outer = outer.drop_vars([name for name in outer.coords if name not in outer.dims]).astype(float)
        mu, tau, node, likelihood = (
            self._placed(each, outer) for each in (self.mu, self.tau, self.node, self.likelihood)
        )
        return outer, _Pieces(*(np.broadcast_to(each, (*outer.shape, 1)) for each in (mu, tau)), node, likelihood)

    @staticmethod
    def _placed(value, outer) -> np.ndarray:
        """An array with an axis for each of the dims, and one of the nodes last."""
        value = xr.DataArray(value)
        value = value if "node" in value.dims else value.expand_dims("node")
        value = value.transpose(*(dim for dim in outer.dims if dim in value.dims), "node")
        missing = tuple(i for i, dim in enumerate(outer.dims) if dim not in value.dims)
        return np.expand_dims(value.values.astype(float), missing)


class _Pieces:
    """Arrays [..., node] or [..., 1]: between nodes, and beyond the last on either side, L = level + slope z."""

    def __init__(self, mu: Any, tau: Any, node: Any, likelihood: Any):
        self.mu, self.tau, self.node, self.likelihood = mu, tau, node, likelihood
        self.scale = np.where(tau > 0, tau, 1.0)
        self.point = tau[..., 0] == 0

    @cached_property
    def z(self) -> np.ndarray:
        """The ends of pieces [..., node + 2]."""
        inside = (self.node - self.mu) / self.scale
        edge = np.full((*inside.shape[:-1], 1), np.inf)
        return np.clip(np.concatenate([-edge, inside, edge], axis=-1), -FAR, FAR)

    @cached_property
    def line(self) -> tuple[np.ndarray, np.ndarray]:
        """Level at z = 0, and slope, of each piece [..., node + 1]."""
        return self._line(self.likelihood)

    def _line(self, values) -> tuple[np.ndarray, np.ndarray]:
        slope = np.diff(values, axis=-1) / np.diff(self.node, axis=-1)
        level = values[..., :-1] + slope * (self.mu - self.node[..., :-1])
        shape = (*np.broadcast_shapes(level.shape, self.z[..., 1:-2].shape)[:-1], 1)
        first, last = (np.broadcast_to(values[..., at], shape) for at in (slice(0, 1), slice(-1, None)))
        none, wide = np.zeros(shape), (*shape[:-1], slope.shape[-1])
        levels = np.concatenate([first, np.broadcast_to(level, wide), last], axis=-1)
        return levels, np.concatenate([none, np.broadcast_to(slope * self.scale, wide), none], axis=-1)

    @cached_property
    def whole(self) -> list[np.ndarray]:
        return _powers(self.z[..., :-1], self.z[..., 1:])

    @cached_property
    def masses(self) -> np.ndarray:
        return self._integral(0, self.whole)

    @property
    def mass(self) -> np.ndarray:
        return np.where(self.point, self._at(self.mu), self.masses.sum(axis=-1))

    def _integral(self, power: int, of: list[np.ndarray]) -> np.ndarray:
        """Of z^power times L [..., piece]."""
        level, slope = self.line
        return level * of[power] + slope * of[power + 1]

    def moment(self, power: int) -> np.ndarray:
        """E[z^power]; of a point 0."""
        return np.where(self.point, 0.0, self._integral(power, self.whole).sum(axis=-1) / self.masses.sum(axis=-1))

    @property
    def mean_absolute(self) -> np.ndarray:
        node = self.node
        middle = (node[..., 1:] + node[..., :-1]) / 2
        sign = np.sign(np.concatenate([node[..., :1], middle, node[..., -1:]], axis=-1))
        each = self.mu * self.masses + self.scale * self._integral(1, self.whole)
        return np.where(self.point, abs(self.mu[..., 0]), (sign * each).sum(axis=-1) / self.masses.sum(axis=-1))

    @property
    def mean_log_likelihood(self) -> np.ndarray:
        with np.errstate(divide="ignore"):
            logs = np.log(np.maximum(self.likelihood, np.finfo(float).tiny))
        (level, slope), (of_log, slope_of_log) = self.line, self._line(logs)
        I0, I1, I2, _ = self.whole
        each = level * of_log * I0 + (level * slope_of_log + slope * of_log) * I1 + slope * slope_of_log * I2
        return np.where(self.point, np.log(self._at(self.mu)), each.sum(axis=-1) / self.masses.sum(axis=-1))

    def below(self, x) -> np.ndarray:
        """The share below points x [..., 1]: whole pieces, and a part of one."""
        z = np.clip((x - self.mu) / self.scale, -FAR, FAR)
        sums = self.masses.cumsum(axis=-1)
        there = self._piece((self.z[..., 1:-1] < z).sum(axis=-1))
        level, slope, start, before = (there(each) for each in (*self.line, self.z[..., :-1], sums - self.masses))
        I0, I1, *_ = _powers(start, z[..., 0])
        share = (before + level * I0 + slope * I1) / sums[..., -1]
        return np.where(self.point, x[..., 0] >= self.mu[..., 0], np.clip(share, 0, 1))

    def _piece(self, which: np.ndarray):
        """What arrays [..., piece] hold at one piece [...]."""
        at = np.broadcast_to(which, self.masses.shape[:-1])[..., None]
        return lambda values: np.take_along_axis(np.broadcast_to(values, self.masses.shape), at, axis=-1)[..., 0]

    def height(self, x) -> np.ndarray:
        return self._at(x)

    def _at(self, x) -> np.ndarray:
        """L at points [..., 1]."""
        left, right = (np.diff(self.node, axis=-1, **{end: self.node[..., at]}) for end, at in ENDS)
        with np.errstate(invalid="ignore", divide="ignore"):
            rising = np.where(left > 0, 1 + (x - self.node) / np.where(left > 0, left, 1.0), 1.0)
            falling = np.where(right > 0, 1 - (x - self.node) / np.where(right > 0, right, 1.0), 1.0)
        return (np.clip(np.minimum(rising, falling), 0, 1) * self.likelihood).sum(axis=-1)

    def quantile(self, p) -> np.ndarray:
        """The piece by the sums of masses, and inside it by bisection."""
        sums = self.masses.cumsum(axis=-1)
        wanted = np.asarray(p) * sums[..., -1]
        there = self._piece(np.minimum((sums < wanted[..., None]).sum(axis=-1), sums.shape[-1] - 1))
        level, slope, low, high = (there(each) for each in (*self.line, self.z[..., :-1], self.z[..., 1:]))
        start, rest = low, wanted - there(sums - self.masses)
        for _ in range(BISECTIONS):
            middle = (low + high) / 2
            I0, I1, *_ = _powers(start, middle)
            too_far = level * I0 + slope * I1 > rest
            low, high = np.where(too_far, low, middle), np.where(too_far, middle, high)
        return self.mu[..., 0] + self.tau[..., 0] * (low + high) / 2

    def absolute_quantile(self, p) -> np.ndarray:
        """The same of |a|: a piece and its mirror together."""
        middle = self.masses.shape[-1] // 2
        right, left = self.masses[..., middle:], self.masses[..., middle - 1 :: -1]
        sums = (right + left).cumsum(axis=-1)
        wanted = np.asarray(p) * sums[..., -1]
        which = np.minimum((sums < wanted[..., None]).sum(axis=-1), sums.shape[-1] - 1)
        here, mirrored = self._piece(middle + which), self._piece(middle - 1 - which)
        rest = wanted - here(np.concatenate([np.zeros_like(self.masses[..., :middle]), sums - right - left], axis=-1))
        lines = [[there(each) for each in self.line] for there in (here, mirrored)]
        mu, scale = self.mu[..., 0], self.scale[..., 0]
        inner, outer = (here(self.z[..., at]) * scale + mu for at in (slice(None, -1), slice(1, None)))
        low, high = np.maximum(inner, 0.0), np.maximum(outer, -mirrored(self.z[..., :-1]) * scale - mu)
        start = low
        for _ in range(BISECTIONS):
            x = (low + high) / 2
            ends = ((start - mu) / scale, (x - mu) / scale), ((-x - mu) / scale, (-start - mu) / scale)
            integrals = [_powers(*pair) for pair in ends]
            found = sum(level * I[0] + slope * I[1] for (level, slope), I in zip(lines, integrals, strict=True))
            low, high = np.where(found > rest, low, x), np.where(found > rest, x, high)
        return np.where(self.point, abs(mu), (low + high) / 2)


ENDS = (("prepend", slice(0, 1)), ("append", slice(-1, None)))


def _powers(low: np.ndarray, high: np.ndarray) -> list[np.ndarray]:
    """Integrals of 1, z, z^2, z^3 times the standard normal density from low to high."""
    f_low, f_high = (np.exp(-(z**2) / 2) / np.sqrt(2 * np.pi) for z in (low, high))
    # On the side of 0 where the tail is small, so that no digit is lost.
    mirror = low > 0
    I0 = special.ndtr(np.where(mirror, -low, high)) - special.ndtr(np.where(mirror, -high, low))
    I1 = f_low - f_high
    return [I0, I1, I0 + low * f_low - high * f_high, 2 * I1 + low**2 * f_low - high**2 * f_high]


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
