"""A normal population after data whose likelihood is tabulated: its log is linear between nodes.

    p(a | y, mu, tau) prop. to L(a) N(a; mu, tau^2),   log L linear between nodes and constant beyond the last

On each piece this is a normal of the same spread, moved and cut off: mass, mean, variance, distribution function and
quantiles are known, all exact for this L, and at tau = 0 a point.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import xarray as xr

from hbm_zoo.group_level.pieces import Pieces
from hbm_zoo.group_level.populations import Normal, Population


@dataclass(frozen=True)
class Tilted(Population):
    """N(mu, tau^2) times a likelihood whose log is linear between nodes, in the order of the line.

    Examples
    --------
    A flat likelihood changes nothing; one that rises moves the mean, by slope times variance.

    >>> line = xr.DataArray([-100.0, 100.0], dims="node")
    >>> flat = Tilted(xr.DataArray(1.0), xr.DataArray(2.0), line, 0 * line)
    >>> rising = Tilted(xr.DataArray(1.0), xr.DataArray(2.0), line, line / 100)
    >>> round(flat.mean.item(), 9), round(flat.sd.item(), 9), round(rising.mean.item(), 9)
    (1.0, 2.0, 1.04)
    """

    inner = ("node",)
    mu: xr.DataArray
    tau: xr.DataArray
    node: xr.DataArray
    log_likelihood: xr.DataArray

    @property
    def mean(self):
        return self.mu + self.tau * self._of(lambda piece: piece.moment(1))

    @property
    def sd(self):
        first, second = (self._of(lambda piece, p=p: piece.moment(p)) for p in (1, 2))
        return self.tau * np.sqrt(np.maximum(second - first**2, 0.0))

    @property
    def log_mass(self):
        """Log of the integral of likelihood times population [nats]."""
        return self._of(lambda piece: piece.log_mass)

    @property
    def mean_absolute(self):
        """E|a|, where one of the nodes is 0."""
        return self._of(lambda piece: piece.mean_absolute)

    def log_mean_exp(self, t):
        """Log E[exp(t a)]: that of the normal, and how the shift by t tau^2 changes the mass."""
        shifted = Tilted(self.mu + t * self.tau**2, self.tau, self.node, self.log_likelihood)
        return t * self.mu + (t * self.tau) ** 2 / 2 + shifted.log_mass - self.log_mass

    def cdf(self, x):
        return self._of(lambda piece, x: piece.below(x), x)

    def ppf(self, p):
        return self._of(lambda piece: piece.quantile(p))

    def absolute_ppf(self, p):
        """The quantile of |a|."""
        return self._of(lambda piece: piece.absolute_quantile(p))

    def sample(self, rng):
        return self._of(lambda piece: piece.quantile(rng.random(piece.point.shape)))

    def log_density(self, x):
        height = self._of(lambda piece, x: piece.log_height(x), x)
        return height - self.log_mass + Normal(self.mu, self.tau).log_density(x)

    def mean_log_likelihood(self):
        """E[log L(a)] [nats]."""
        return self._of(lambda piece: piece.mean_log_likelihood)

    def weights(self):
        """Weights [..., node] by which functions that are linear between nodes are averaged; they sum to 1."""
        outer, pieces = self._held
        found = np.broadcast_to(pieces.weights, (*outer.shape, pieces.weights.shape[-1]))
        return xr.DataArray(found, outer.coords, (*outer.dims, "node"))

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
        outer = xr.broadcast(*map(self._outer, map(xr.DataArray, (self.mu, self.tau, self.node, self.log_likelihood))))[
            0
        ]
        outer = outer.drop_vars([name for name in outer.coords if name not in outer.dims]).astype(float)
        mu, tau, node, log_likelihood = (
            self._placed(each, outer) for each in (self.mu, self.tau, self.node, self.log_likelihood)
        )
        return outer, Pieces(*(np.broadcast_to(each, (*outer.shape, 1)) for each in (mu, tau)), node, log_likelihood)

    @staticmethod
    def _placed(value, outer) -> np.ndarray:
        """An array with an axis for each of the dims, and one of the nodes last."""
        value = xr.DataArray(value)
        value = value if "node" in value.dims else value.expand_dims("node")
        value = value.transpose(*(dim for dim in outer.dims if dim in value.dims), "node")
        missing = tuple(i for i, dim in enumerate(outer.dims) if dim not in value.dims)
        return np.expand_dims(value.values.astype(float), missing)
