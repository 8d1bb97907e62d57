"""Pieces of a normal density times a likelihood whose log is linear on each.

With z = (a - mu)/tau and log L = level + slope z on a piece,

    L phi(z) = exp(level + slope^2/2) phi(z - slope)

so that on each piece w = z - slope is standard normal, cut off at the ends that are moved as well. All is done with
logs: the pieces that a population has next to nothing of may be the only ones that the likelihood leaves.
"""

from __future__ import annotations

from functools import cached_property
from typing import Any

import numpy as np
from scipy import special

#: Standard deviations that stand for infinity, and what stands for the tail beyond all.
FAR, NOTHING = 1e8, 1e-15
BISECTIONS = 60
LOG_ROOT_2PI = np.log(2 * np.pi) / 2


def log_between(low: np.ndarray, high: np.ndarray) -> np.ndarray:
    """log(Phi(high) - Phi(low)), on the side of 0 where no digit is lost.

    Examples
    --------
    >>> log_between(np.array([-1.96, 40.0]), np.array([1.96, 41.0])).round(3).tolist()
    [-0.051, -804.608]
    """
    mirror = low > 0
    left, right = np.where(mirror, -high, low), np.where(mirror, -low, high)
    top = special.log_ndtr(right)
    with np.errstate(divide="ignore"):
        return top + np.log(-np.expm1(np.minimum(special.log_ndtr(left) - top, 0.0)))


class Pieces:
    """Arrays [..., node] or [..., 1]: between nodes, and beyond the last on either side, where L is constant."""

    def __init__(self, mu: Any, tau: Any, node: Any, log_likelihood: Any):
        self.mu, self.tau, self.node, self.log_likelihood = mu, tau, node, log_likelihood
        self.scale = np.where(tau > 0, tau, 1.0)
        self.point = tau[..., 0] == 0

    @cached_property
    def z(self) -> np.ndarray:
        """The ends of pieces [..., node + 2]."""
        inside = np.clip((self.node - self.mu) / self.scale, -FAR, FAR)
        edge = np.full((*inside.shape[:-1], 1), FAR)
        return np.concatenate([-edge, inside, edge], axis=-1)

    @cached_property
    def line(self) -> tuple[np.ndarray, np.ndarray]:
        """Level at z = 0, and slope, of log L on each piece [..., node + 1]."""
        values = self.log_likelihood
        slope = np.diff(values, axis=-1) / np.diff(self.node, axis=-1)
        level = values[..., :-1] + slope * (self.mu - self.node[..., :-1])
        shape = (*np.broadcast_shapes(level.shape, self.z[..., 1:-2].shape)[:-1], 1)
        first, last = (np.broadcast_to(values[..., at], shape) for at in (slice(0, 1), slice(-1, None)))
        none, wide = np.zeros(shape), (*shape[:-1], slope.shape[-1])
        levels = np.concatenate([first, np.broadcast_to(level, wide), last], axis=-1)
        return levels, np.concatenate([none, np.broadcast_to(slope * self.scale, wide), none], axis=-1)

    @cached_property
    def ends(self) -> tuple[np.ndarray, np.ndarray]:
        """Of w on each piece [..., node + 1]."""
        return self.z[..., :-1] - self.line[1], self.z[..., 1:] - self.line[1]

    @cached_property
    def log_between(self) -> np.ndarray:
        """Log probability of w on each piece, were it not cut off."""
        return log_between(*self.ends)

    @cached_property
    def log_masses(self) -> np.ndarray:
        level, slope = self.line
        return level + slope**2 / 2 + self.log_between

    @cached_property
    def log_mass(self) -> np.ndarray:
        """Log of the integral of L times the population."""
        if not self.point.any():
            return special.logsumexp(self.log_masses, axis=-1)
        at_mu = self.log_height(self.mu)
        return at_mu if self.point.all() else np.where(self.point, at_mu, special.logsumexp(self.log_masses, axis=-1))

    @cached_property
    def shares(self) -> np.ndarray:
        """Of the integral [..., piece]."""
        return special.softmax(self.log_masses, axis=-1)

    @cached_property
    def of_ends(self) -> list[np.ndarray]:
        """phi(w) over the probability of the piece, at its two ends."""
        return [np.exp(-(w**2) / 2 - LOG_ROOT_2PI - self.log_between) for w in self.ends]

    @cached_property
    def first(self) -> np.ndarray:
        """E[z] on each piece."""
        low, high = self.of_ends
        with np.errstate(invalid="ignore"):
            mean = np.nan_to_num(low - high)
        return np.clip(self.line[1] + mean, self.z[..., :-1], self.z[..., 1:])

    @cached_property
    def second(self) -> np.ndarray:
        """E[z^2] on each piece."""
        (low, high), (of_low, of_high), slope = self.ends, self.of_ends, self.line[1]
        with np.errstate(invalid="ignore", over="ignore"):
            square = np.nan_to_num(1 + low * of_low - high * of_high + 2 * slope * self.first - slope**2)
        return np.clip(square, self.first**2, np.maximum(self.z[..., :-1] ** 2, self.z[..., 1:] ** 2))

    def moment(self, power: int) -> np.ndarray:
        """E[z] or E[z^2]; of a point 0."""
        each = self.first if power == 1 else self.second
        return np.where(self.point, 0.0, (self.shares * each).sum(axis=-1))

    @property
    def mean_absolute(self) -> np.ndarray:
        node = self.node
        middle = (node[..., 1:] + node[..., :-1]) / 2
        sign = np.sign(np.concatenate([node[..., :1], middle, node[..., -1:]], axis=-1))
        each = sign * self.shares * (self.mu + self.scale * self.first)
        return np.where(self.point, abs(self.mu[..., 0]), each.sum(axis=-1))

    @property
    def mean_log_likelihood(self) -> np.ndarray:
        level, slope = self.line
        each = self.shares * (level + slope * self.first)
        return np.where(self.point, self.log_mass, each.sum(axis=-1))

    @cached_property
    def weights(self) -> np.ndarray:
        """Of the nodes [..., node]: hats averaged over the pieces, or at the point."""
        a = np.where(self.point[..., None], self.mu, self.mu + self.scale * self.first[..., 1:-1])
        inside = np.where(self.point[..., None], self._at_the_point[..., 1:-1], self.shares[..., 1:-1])
        along = np.clip((a - self.node[..., :-1]) / np.diff(self.node, axis=-1), 0.0, 1.0)
        left, right = inside * (1 - along), inside * along
        first, last = (
            np.where(self.point[..., None], self._at_the_point[..., at], self.shares[..., at])
            for at in (slice(0, 1), slice(-1, None))
        )
        return np.concatenate([first, right], axis=-1) + np.concatenate([left, last], axis=-1)

    @property
    def _at_the_point(self) -> np.ndarray:
        """1 on the piece that holds mu [..., piece], else 0."""
        which = (self.z[..., 1:-1] < 0).sum(axis=-1)
        return (np.arange(self.shares.shape[-1]) == which[..., None]).astype(float)

    def _piece(self, which: np.ndarray):
        """What arrays [..., piece] hold at one piece [...]."""
        shape = np.broadcast_shapes(self.z[..., 1:].shape, self.line[0].shape)
        at = np.broadcast_to(which, shape[:-1])[..., None]
        return lambda values: np.take_along_axis(np.broadcast_to(values, shape), at, axis=-1)[..., 0]

    @cached_property
    def sums(self) -> np.ndarray:
        return self.shares.cumsum(axis=-1)

    def below(self, x) -> np.ndarray:
        """The share below points x [..., 1]: whole pieces, and a part of one."""
        z = np.clip((x - self.mu) / self.scale, -FAR, FAR)
        there = self._piece((self.z[..., 1:-1] < z).sum(axis=-1))
        low, slope = there(self.ends[0]), there(self.line[1])
        part = np.exp(log_between(low, np.maximum(z[..., 0] - slope, low)) - there(self.log_between))
        share = there(self.sums - self.shares) + there(self.shares) * np.clip(np.nan_to_num(part), 0, 1)
        return np.where(self.point, x[..., 0] >= self.mu[..., 0], np.clip(share, 0, 1))

    def log_height(self, x) -> np.ndarray:
        """Log L at points [..., 1]."""
        z = (x - self.mu) / self.scale
        there = self._piece((self.z[..., 1:-1] < z).sum(axis=-1))
        level, slope = map(there, self.line)
        return level + np.where(slope == 0, 0.0, slope * z[..., 0])

    def quantile(self, p) -> np.ndarray:
        """The piece by the sums of shares, and inside it the normal that is cut off."""
        p = np.asarray(p)
        there = self._piece(np.minimum((self.sums < p[..., None]).sum(axis=-1), self.sums.shape[-1] - 1))
        low, high, slope, share, log_of_piece = map(there, (*self.ends, self.line[1], self.shares, self.log_between))
        part = np.clip((p - there(self.sums - self.shares)) / np.where(share > 0, share, 1.0), 0.0, 1.0)
        mirror = low > 0
        left, part = np.where(mirror, -high, low), np.where(mirror, 1 - part, part)
        with np.errstate(divide="ignore"):
            w = special.ndtri_exp(np.minimum(np.logaddexp(special.log_ndtr(left), np.log(part) + log_of_piece), 0.0))
        w = np.clip(np.where(mirror, -w, w), low, high)
        return np.where(self.point, self.mu[..., 0], self.mu[..., 0] + self.scale[..., 0] * (slope + w))

    def absolute_quantile(self, p) -> np.ndarray:
        """The same of |a|, by bisection."""
        low = np.zeros(self.point.shape)
        high = np.maximum(*(abs(self.quantile(tail)) for tail in (NOTHING, 1 - NOTHING)))
        for _ in range(BISECTIONS):
            x = (low + high) / 2
            too_far = self.below(x[..., None]) - self.below(-x[..., None]) > p
            low, high = np.where(too_far, low, x), np.where(too_far, x, high)
        return np.where(self.point, abs(self.mu[..., 0]), (low + high) / 2)
