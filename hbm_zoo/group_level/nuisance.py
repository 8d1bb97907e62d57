"""One more unknown of a group, which no pooling touches: integrated out of its table, and drawn again where wanted.

    L_j(a) = integral of p(y_j | a, t) p(t) dt

p(t) is of each group alone, so that L_j is a function of one number. At each node of a table the quantiles of t given
that node and the data are kept, at standard normal deviates: between them, and so for a normal t everywhere, t is
linear in these, as it is in a between nodes.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from scipy import special

from hbm_zoo.group_level.tabulated import placed

NODES = 129
COARSE, FINE = 97, 65  # Points of t, to find where the integrand is and to integrate it.
NATS = 30.0
ENOUGH, MOST_ROUNDS = 20, 8
DEVIATES = np.linspace(-5, 5, 41)


@dataclass(frozen=True)
class Nuisance:
    """An unknown t that is integrated out at each parameter a of a group, by the trapezoid rule.

    Attributes
    ----------
    integrand
        ``integrand(a, t)``, a [node] and t [node, point]: log density of the data and of t [node, point; nats].
    ends
        ``ends(a)``: between which points [node] the integrand is not nothing.

    Examples
    --------
    A normal one: its integral, and where it lies.

    >>> normal = Nuisance(lambda a, t: -((t - a[:, None]) ** 2) / 2, lambda a: (a - 20, a + 30))
    >>> log_integral, (t, masses) = normal.over(np.array([0.0, 3.0]))
    >>> np.exp(log_integral).round(6).tolist(), round((2 * np.pi) ** 0.5, 6), (t * masses).sum(axis=1).round(6).tolist()
    ([2.506628, 2.506628], 2.506628, [0.0, 3.0])
    """

    integrand: Callable
    ends: Callable

    def tabulated(self, wide: np.ndarray, parameter: Callable) -> dict[str, np.ndarray]:
        """The table of a group: nodes among the points of a range, log likelihood there, quantiles of t.

        ``parameter`` makes a of the points of the range.
        """
        rough = self.roughly(parameter(wide))
        point = placed(wide, rough, NODES)
        log_likelihood, of_t = self.over(parameter(point))
        return {"point": point, "log_likelihood": log_likelihood, "quantiles": at_deviates(*of_t)}

    def over(self, a: np.ndarray) -> tuple[np.ndarray, tuple[np.ndarray, np.ndarray]]:
        """Log of the integral at each a; with it points [node, point] of t and the share of the integral at each."""
        t, f = self._resolved(a)
        t = _fine(t, _near_top(f))
        f = self.integrand(a, t)
        return _log_integral(t, f), (t, special.softmax(f, axis=1))

    def roughly(self, a: np.ndarray) -> np.ndarray:
        """The same on coarse points: where the likelihood of a bends is seen on them."""
        return _log_integral(*self._resolved(a))

    def without(self, a: np.ndarray, of_rows: Callable) -> np.ndarray:
        """Log of the integral at each a if a row were not there [node, row].

        ``of_rows(a, t)`` is the log density of each row given the others [node, point, row], by which it is divided:
        without an outlier the integrand lies elsewhere.
        """

        def near(a, t, f):
            return _near_top(f) | _near_top(f[..., None] - of_rows(a, t)).any(axis=2)

        with np.errstate(invalid="ignore", divide="ignore"):
            t, f = self._resolved(a, near)
            t = _fine(t, near(a, t, f))
            without = self.integrand(a, t)[..., None] - of_rows(a, t)
            return special.logsumexp(without, axis=1) + np.log(t[:, 1] - t[:, 0])[:, None]

    def _resolved(self, a: np.ndarray, near: Callable = lambda a, t, f: _near_top(f)) -> tuple[np.ndarray, np.ndarray]:
        """Points of t, and the integrand there, drawn together until enough of them are where it is not nothing."""
        low, high = (np.broadcast_to(end, a.shape)[:, None] for end in self.ends(a))
        t = low + (high - low) * np.linspace(0, 1, COARSE)
        f = self.integrand(a, t)
        for _ in range(MOST_ROUNDS):
            used = near(a, t, f)
            narrow = used.sum(axis=1) < ENOUGH
            if not narrow.any():
                break
            t[narrow] = _fine(t[narrow], used[narrow], COARSE)
            f[narrow] = self.integrand(a[narrow], t[narrow])
        return t, f


def _near_top(f: np.ndarray) -> np.ndarray:
    """Where the integrand is not nothing."""
    return f > f.max(axis=1, keepdims=True) - NATS


def _fine(t: np.ndarray, near: np.ndarray, points: int = FINE) -> np.ndarray:
    """Points [node, point] from before the first to after the last of those that are near the top."""
    gap = (t[:, 1] - t[:, 0])[:, None]
    first, last = near.argmax(axis=1)[:, None], t.shape[1] - 1 - near[:, ::-1].argmax(axis=1)[:, None]
    low, high = (np.take_along_axis(t, at, axis=1) for at in (first, last))
    return low - gap + (high - low + 2 * gap) * np.linspace(0, 1, points)


def _log_integral(t: np.ndarray, f: np.ndarray) -> np.ndarray:
    return special.logsumexp(f, axis=1) + np.log(t[:, 1] - t[:, 0])


def log_density_of(before: np.ndarray) -> Callable:
    """The log density of t before the data, from its quantiles at `DEVIATES`: beyond these its tails are normal.

    Examples
    --------
    >>> log_density_of(3 + 2 * DEVIATES)(np.array([3.0, 5.0, 23.0])).round(4).tolist()
    [-1.6121, -2.1121, -51.6121]
    """
    slope = np.gradient(DEVIATES, before)

    def log_density(t):
        inside = np.clip(t, before[0], before[-1])
        z = np.interp(inside, before, DEVIATES) + (t - inside) * np.where(t < inside, slope[0], slope[-1])
        return -(z**2 + np.log(2 * np.pi)) / 2 + np.log(np.interp(inside, before, slope))

    return log_density


def at_deviates(t: np.ndarray, masses: np.ndarray) -> np.ndarray:
    """Quantiles [node, deviate] of points [node, point] with masses."""
    below = np.cumsum(masses, axis=1) - masses / 2
    z = special.ndtri(np.clip(below, 1e-15, 1 - 1e-15))
    return np.array([np.interp(DEVIATES, z[i], t[i]) for i in range(len(t))])


def drawn(rng: np.random.Generator, a: np.ndarray, node: np.ndarray, quantiles: np.ndarray) -> np.ndarray:
    """A draw of t of one group for each of its parameters a [draw], from its table [node, deviate]."""
    right = np.clip(np.searchsorted(node, a), 1, node.size - 1)
    along = np.clip((a - node[right - 1]) / (node[right] - node[right - 1]), 0, 1)
    z = np.clip(rng.standard_normal(a.size), *DEVIATES[[0, -1]])
    place = (z - DEVIATES[0]) / (DEVIATES[1] - DEVIATES[0])
    low = np.minimum(place.astype(int), DEVIATES.size - 2)
    above = place - low

    def at(k):
        return quantiles[k, low] + above * (quantiles[k, low + 1] - quantiles[k, low])

    return (1 - along) * at(right - 1) + along * at(right)
