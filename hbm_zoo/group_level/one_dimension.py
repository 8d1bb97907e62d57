"""One parameter of a group integrated numerically, with nodes that move with the hyperparameters.

    y_j | theta_j ~ p(y_j | theta_j),  any smooth density that is log-concave in theta_j
    theta_j       = mu + tau z_j,  z_j ~ N(0, 1)

The integrand exp(l(mu + tau z) - z^2/2) is a smooth bell in z, so that the trapezoid rule between
the two points where it has lost 20 nats converges faster than any power of its step (Trefethen &
Weideman 2014, SIAM Rev 56:385-458). In units of z no spread, tau = 0, is no limit. The two ends are
found one by one, for one tail may be normal and the other exponential. Where nodes lie does
not change an integral: they are constants of the gradient.

Measured on binomial counts of 1 to 10^8 trials, none, some and all of them successes, mu from 1e-5 to 5 away
from the raw log odds, two data of one theta too: the error of a group is below 7e-7 nats for tau up to 3, and below
1e-9 for tau up to 1 and a million trials. A wider population cuts a likelihood that has no top off so steeply that the
nodes are too far apart: with no successes the mean is 4 % wrong at tau = 5 and 40 % at 10.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache, reduce
from typing import Any

import numpy as np
import pytensor.tensor as pt
import xarray as xr
from pytensor import function, scan
from pytensor.compile.builders import OpFromGraph
from pytensor.gradient import disconnected_grad, grad
from pytensor.scan.utils import until

from hbm_zoo.group_level.band_limited import Tabulated

NODES = 31
NATS = 20.0  # What the integrand has lost at the first and the last node.
STEPS_TO_THE_MODE = 20
#: Of itself, or of the prior's sd: a move of the mode by less is none.
SETTLED = 1e-6
STEPS_TO_AN_END = 4
LEAST_SPREAD = 1e-9


def log_marginal(log_likelihood: Callable, start: Callable, parts: int = 1) -> Callable:
    """The formula of log p(y | mu, tau), the integral over z of p(y | mu + tau z) N(z; 0, 1) [nats].

    Parameters
    ----------
    log_likelihood
        ``log_likelihood(theta, *data)``, an elementwise PyTensor formula; what does not depend on theta
        is better added outside, or it is computed at every node.
    start
        ``start(*data)``: a finite estimate of theta, near the top of its likelihood.
    parts : int
        How many independent data of this kind tell of the same theta: old ones and new ones, say.

    Returns
    -------
    callable
        ``formula(mu, tau, *data)``, elementwise; the data of one part after those of another.

    Examples
    --------
    >>> formula = log_marginal(lambda theta, y: -((y - theta) ** 2) / 2, lambda y: y)
    >>> round(float(formula(0.0, 1.0, pt.as_tensor(1.0)).eval()), 4), round(float(-0.5 * np.log(2) - 0.25), 4)
    (-0.5966, -0.5966)
    """

    def formula(mu, tau, *data):
        log_f, _, step = _tabulate(log_likelihood, start, parts, mu, tau, *data)
        return _log_integral(log_f, step)

    return formula


def _log_integral(log_f, step):
    top = disconnected_grad(log_f.max(axis=0))
    return top + pt.log(pt.exp(log_f - top).sum(axis=0)) + pt.log(step) - 0.5 * np.log(2 * np.pi)


def tabulated(log_likelihood: Callable, start: Callable, mu, tau, *data) -> tuple[Tabulated, xr.DataArray]:
    """Theta | y, mu, tau of labelled arrays, which broadcast by name, and log p(y | mu, tau) [nats].

    One compiled function knows both: to compile takes longer than to compute them.
    """
    compiled = _compiled(log_likelihood, start, len(data))
    aligned = xr.broadcast(*map(xr.DataArray, (mu, tau, *data)))
    flat = [np.ascontiguousarray(value.values, dtype=float).ravel() for value in aligned]
    *of_nodes, log_integral = compiled(*flat)
    at, weight = (values.T.reshape(*aligned[0].shape, NODES) for values in of_nodes)
    dims = (*aligned[0].dims, "node")
    posterior = Tabulated(*(xr.DataArray(values, aligned[0].coords, dims) for values in (at, weight)))
    return posterior, aligned[0].copy(data=log_integral.reshape(aligned[0].shape))


@cache
def _compiled(log_likelihood: Callable, start: Callable, size: int):
    mu, tau, *data = (pt.dvector() for _ in range(2 + size))
    log_f, z, step = _tabulate(log_likelihood, start, 1, mu, tau, *data)
    weight = pt.exp(log_f - log_f.max(axis=0))
    return function([mu, tau, *data], [mu + tau * z, weight / weight.sum(axis=0), _log_integral(log_f, step)])


def _tabulate(log_likelihood: Callable, start: Callable, parts: int, mu, tau, *data):
    """Log integrand and z [node, ...], and the step between nodes."""
    given = [pt.as_tensor(value) for value in (mu, tau, *data)]
    inside = [value.type() for value in given]
    ends = _ends(_likelihood(log_likelihood, start, parts, inside[2:]), *inside[:2])
    # Where nodes lie does not change an integral: no gradient goes through them, whatever is rewritten before.
    op = OpFromGraph(inside, ends, connection_pattern=[[False, False]] * len(inside))
    low, high = op.make_node(*given).outputs
    z = low + (high - low) * np.linspace(0, 1, NODES).reshape(-1, *[1] * low.ndim)
    log = _likelihood(log_likelihood, start, parts, given[2:]).log
    return log(given[0] + given[1] * z) - z**2 / 2, z, (high - low) / (NODES - 1)


@dataclass(frozen=True)
class _Likelihood:
    """A log-concave likelihood of theta, and what is known of its top before it is looked for.

    The top of a product lies between the tops of its factors, and no higher than their sum.
    """

    log: Callable
    tops: list
    height: Any
    shape: Any

    def slopes(self, mu, tau, z):
        """Log likelihood at mu + tau z, and its first two derivatives in z."""
        theta = mu + tau * z
        level = self.log(theta)
        first = grad(level.sum(), theta, disconnected_inputs="ignore")
        return level, tau * first, tau**2 * pt.minimum(grad(first.sum(), theta, disconnected_inputs="ignore"), 0)


def _likelihood(log_likelihood: Callable, start: Callable, parts: int, data: Sequence) -> _Likelihood:
    size = len(data) // parts
    each = [data[k * size : (k + 1) * size] for k in range(parts)]
    tops = [start(*part) for part in each]
    height = sum(log_likelihood(top, *part) for top, part in zip(tops, each, strict=True))
    shape = sum(value * 0.0 for value in data)
    return _Likelihood(lambda theta: sum(log_likelihood(theta, *part) for part in each), tops, height, shape)


def _ends(likelihood: _Likelihood, mu, tau):
    """The two z where the integrand has lost `NATS`, on either side of its top."""
    shape = mu * 0 + tau * 0 + likelihood.shape
    mu, tau = mu + shape, tau + shape

    def slopes(z):
        return likelihood.slopes(mu, tau, z)

    top = _mode(slopes, likelihood, mu, tau)
    sides = np.array([-1.0, 1.0]).reshape(-1, *[1] * top.ndim)
    ends = top + sides * _distance(slopes, top, sides)
    return [ends[0], ends[1]]


def _mode(slopes: Callable, likelihood: _Likelihood, mu, tau):
    """Where the slope of the log likelihood in z is z: between 0 and the top of the likelihood.

    On the side of 0 Newton's method for log(slope / z) = 0, which an exponential tail makes linear; past the
    top of the likelihood the plain one, if it stays in the upper half of the bracket; else its middle.
    """
    level, slope, _ = slopes(pt.zeros_like(mu))
    side = pt.switch(slope < 0, -1.0, 1.0)
    rise = pt.sqrt(2 + 2 * pt.maximum(likelihood.height - level, 0))
    high = pt.minimum(pt.abs(slope), rise)
    away = reduce(pt.maximum, (pt.abs(top - mu) for top in likelihood.tops))
    high = pt.minimum(high, (away + 3) / pt.maximum(tau, LEAST_SPREAD)) + 1e-12

    def step(low, high, u):
        _, slope, bend = slopes(side * u)
        slope = side * slope
        low, high = pt.switch(slope > u, u, low), pt.switch(slope > u, high, u)
        safe = pt.switch(slope > 0, slope, 1.0)
        newton = u * pt.exp(pt.clip(pt.log(safe / u) / (1 - u * bend / safe), -30, 30))
        middle = (low + high) / 2
        new = pt.switch(slope > 0, newton, pt.maximum(u + (slope - u) / (1 - bend), middle))
        new = pt.switch(pt.and_(new >= low, new <= high), new, middle)
        settled = pt.or_(pt.abs(new - u) <= SETTLED * u, high - low <= SETTLED)
        return [low, high, new], until(settled.all())

    *_, u = _repeated(
        step, STEPS_TO_THE_MODE, pt.zeros_like(high), high, _first(slopes, likelihood, mu, tau, side, high)
    )
    return side * u


def _first(slopes: Callable, likelihood: _Likelihood, mu, tau, side, high):
    """One step of Newton's method from the best known top of a likelihood: where data are rich that is the mode."""
    best, height = pt.zeros_like(high), slopes(pt.zeros_like(high))[0]
    for top in likelihood.tops:
        u = pt.clip(side * (top - mu) / pt.maximum(tau, LEAST_SPREAD), 0, high)
        there = slopes(side * u)[0] - u**2 / 2
        best, height = pt.switch(there > height, u, best), pt.maximum(there, height)
    _, slope, bend = slopes(side * best)
    first = best + (side * slope - best) / (1 - bend)
    return pt.switch(pt.and_(first > 0, first < high), first, high)


def _distance(slopes: Callable, top, sides):
    """How far from the top the integrand has lost `NATS`: Newton's method on the logs of loss and distance."""
    farthest = np.sqrt(2 * NATS)  # the normal alone has lost as much there
    highest = slopes(top)[0] - top**2 / 2

    def step(far):
        z = top + sides * far
        level, slope, _ = slopes(z)
        lost = pt.maximum(highest - level + z**2 / 2, 1e-12)
        rate = pt.maximum(sides * (z - slope) * far / lost, 1)
        return [pt.clip(far * pt.exp(-pt.log(lost / NATS) / rate), 1e-6, farthest)]

    return _repeated(step, STEPS_TO_AN_END, pt.zeros_like(sides * top) + farthest)[0]


def _repeated(step: Callable, times: int, *state):
    """The state after so many steps; a loop, which is compiled once, where steps written out take minutes."""
    found = scan(step, outputs_info=list(state), n_steps=times, return_updates=False)
    return [values[-1] for values in (found if isinstance(found, list | tuple) else [found])]
