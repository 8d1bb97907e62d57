"""Normal measurements of a population with heavy tails, a Student t.

    y_j | theta_j       ~ N(theta_j, se_j^2)
    theta_j             ~ t_nu(mu, tau),  that is  theta_j | w_j ~ N(mu, tau^2 / w_j),  w_j ~ Gamma(nu/2, nu/2)

Given w all is normal (`normal.py`), so that a group is a mixture of closed forms, and one integral is left,

    p(y | mu, tau, nu) = int N(y; mu, se^2 + tau^2/w) Gamma(w; nu/2, nu/2) dw.

In s = log w the integrand is smooth and falls off at least exponentially, so that the trapezoid rule between the
points where it has lost 28 nats converges faster than any power of its step (Trefethen & Weideman 2014, SIAM Rev
56:385-458). These points have bounds in closed form. With q(s) = e^s - 1 - s, the density of s has lost nu/2 q(s) at s;
to the right the likelihood gains less than s/2; to the left no more than from its height at s = 0 to that
at the variance (y - mu)^2, where s = -a, and past that point it only falls; next to nothing as long as tau^2 e^-s is
little. No spread, tau = 0, is no limit.

A scale mixture of normals: Andrews & Mallows (1974), J R Stat Soc B 36:99-102. Shrinkage that lets go of what lies far
out: Dawid (1973), Biometrika 60:664-667.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache

import numpy as np
import pytensor.tensor as pt
import xarray as xr
from pytensor import function
from scipy import special
from scipy.interpolate import RectBivariateSpline

from hbm_zoo.group_level import normal
from hbm_zoo.group_level.evaluate import evaluate
from hbm_zoo.group_level.level import GroupLevel, summed
from hbm_zoo.group_level.log_gamma import lost, to_the_left, to_the_right
from hbm_zoo.group_level.mixture_of_normals import MixtureOfNormals, StudentT

NODES = 96
NATS = 28.0
#: The same where a probability as small as that of the farthest normal score is asked for.
NATS_OF_TAILS = 38.0
#: What -s may be: the variance of a normal is a number there, if none of it is the population's.
FARTHEST = 700.0
#: Of the table of kappa: log of tau/se, log of nu - 2; and the data that it is averaged over, y = scale sinh(t).
LOG_RATIOS, LOG_TAILS, SINH = np.linspace(-8, 8, 41), np.linspace(-4, 7, 34), np.linspace(0, 14, 121)
LEAST_KAPPA = 1e-9


def log_marginal(y, se, mu, tau, nu):
    """Log p(y | mu, tau, nu) with theta integrated out, a PyTensor formula [nats]."""
    log_f, _, step = _tabulate(y, se, mu, tau, nu)
    top = log_f.max(axis=0)
    return top + pt.log(pt.exp(log_f - top).sum(axis=0)) + pt.log(step)


def _tabulate(y, se, mu, tau, nu):
    """Log integrand and s = log w [node, ...], and the step between nodes."""
    y, se, mu, tau, nu = map(pt.as_tensor, (y, se, mu, tau, nu))
    low, high = _ends(y, se, mu, tau, nu)
    s = low + (high - low) * np.linspace(0, 1, NODES).reshape(-1, *[1] * low.ndim)
    height = nu / 2 * (pt.log(nu / 2) - 1) - pt.gammaln(nu / 2)
    variance = se**2 + tau**2 * pt.exp(-s)
    log_normal = -0.5 * (normal.LOG_2PI + pt.log(variance) + (y - mu) ** 2 / variance)
    return height - nu / 2 * lost(s) + log_normal, s, (high - low) / (NODES - 1)


def _ends(y, se, mu, tau, nu):
    """The s on either side of all but 1e-12 of the integral."""
    square, variance = (y - mu) ** 2, se**2 + tau**2
    ratio = pt.maximum(square / variance, 1.0)
    gain = (ratio - 1 - pt.log(ratio)) / 2
    a = pt.log(pt.maximum(square - se**2, tau**2)) - pt.log(tau**2 + np.finfo(float).tiny)
    left = pt.minimum(to_the_left(2 * (gain + NATS) / nu), pt.maximum(a, 0.0) + to_the_left(2 * NATS / nu))
    # Up to here the likelihood gains a nat at most: all, if the density of s has lost too much by then.
    still = pt.maximum(pt.log(2 * variance**2) - pt.log(square * tau**2 + np.finfo(float).tiny), 0.0)
    enough = pt.or_(pt.eq(tau, 0), nu / 2 * lost(-still) > gain + NATS)  # without spread it gains nothing
    left = pt.switch(enough, to_the_left(2 * (NATS + 1) / nu), left)
    return -pt.minimum(left, FARTHEST), to_the_right(2 * (NATS + 2) / nu)


def random(se, mu, tau, nu, rng=None, size=None):
    """Draw y with theta integrated out."""
    return rng.normal(mu + tau * rng.standard_t(nu, size=size), se)


def tails(y, se, mu, tau, nu):
    """Probabilities of no more than y, and of no less, theta integrated out."""
    beyond = evaluate(_beyond, abs(y - mu), se, tau, nu)
    return xr.where(y < mu, beyond, 1 - beyond), xr.where(y < mu, 1 - beyond, beyond)


def _beyond(distance, se, tau, nu):
    """P(y - mu > distance), a PyTensor formula: each w has its normal tail."""
    distance, se, tau, nu = map(pt.as_tensor, (distance, se, tau, nu))
    low, high = _ends(distance, se, 0.0, tau, nu)
    low = pt.minimum(low, -to_the_left(2 * NATS_OF_TAILS / nu))
    high = pt.maximum(high, to_the_right(2 * NATS_OF_TAILS / nu))
    s = low + (high - low) * np.linspace(0, 1, NODES).reshape(-1, *[1] * low.ndim)
    weight = pt.exp(-nu / 2 * lost(s))
    tail = pt.erfc(distance / pt.sqrt(2 * (se**2 + tau**2 * pt.exp(-s)))) / 2
    return (weight * tail).sum(axis=0) / weight.sum(axis=0)


@cache
def _nodes():
    """A function of flat arrays: s and the weights of its nodes [node, ...]."""
    given = [pt.dvector() for _ in range(5)]
    log_f, s, _ = _tabulate(*given)
    weight = pt.exp(log_f - log_f.max(axis=0))
    return function(given, [s, weight / weight.sum(axis=0)], mode="FAST_COMPILE")


def conditional(y, se, mu, tau, nu) -> MixtureOfNormals:
    """Theta | y of labelled arrays: a mixture, over what w may be, of N(kappa_w y + (1 - kappa_w) mu, kappa_w se^2)."""
    kappa, weight = _kappa_given_w(y, se, mu, tau, nu)
    return MixtureOfNormals(kappa * y + (1 - kappa) * mu, np.sqrt(kappa) * se, weight)


def weight_of_data(y, se, mu, tau, nu):
    """(E[theta | y] - mu) / (y - mu) = E[kappa_w | y], finite where y is mu: it grows with the distance of y."""
    kappa, weight = _kappa_given_w(y, se, mu, tau, nu)
    return (weight * kappa).sum("node", skipna=False)


def _kappa_given_w(y, se, mu, tau, nu):
    """kappa_w = tau^2 / (tau^2 + w se^2) and the weights of w after the data, of labelled arrays [..., node]."""
    aligned = xr.broadcast(*map(xr.DataArray, (y, se, mu, tau, nu)))
    found = _nodes()(*(np.ascontiguousarray(each.values, dtype=float).ravel() for each in aligned))
    dims, like = (*aligned[0].dims, "node"), aligned[0]
    s, weight = (xr.DataArray(each.T.reshape(*like.shape, NODES), like.coords, dims) for each in found)
    kappa = tau**2 / (tau**2 + np.exp(s) * se**2)
    return kappa, weight


# How much a group's own data count.


def reliability(se, tau, nu):
    """Kappa = 1 - E[Var(theta | y)] / Var(theta), averaged over data y too: a function of tau/se and nu alone.

    For one data set 1 - Var(theta | y) / Var(theta) may be below 0: data that cannot tell whether a group lies far out.
    From a table that is made once, by splines of its logit; errors are below 1e-4 of nu from 2.02 to 1000.
    """
    ratio, tail = xr.broadcast(tau / se, nu - 2)
    with np.errstate(divide="ignore"):
        x, t = (np.clip(np.log(v.values), axis[0], axis[-1]) for v, axis in ((ratio, LOG_RATIOS), (tail, LOG_TAILS)))
    return xr.where(ratio > 0, ratio.copy(data=special.expit(_logit_kappa().ev(x, t))), 0.0)


@cache
def _logit_kappa():
    """A spline of logit kappa over log(tau/se) and log(nu - 2)."""
    each = [kappa_of(np.exp(LOG_RATIOS), 2 + np.exp(tail)) for tail in LOG_TAILS]
    return RectBivariateSpline(LOG_RATIOS, LOG_TAILS, special.logit(np.clip(each, LEAST_KAPPA, 1 - LEAST_KAPPA)).T)


def kappa_of(tau, nu):
    """Kappa at spreads tau [spread] and one nu, the standard error 1: data averaged by the trapezoid rule."""
    spread = xr.DataArray(tau, dims="spread")
    scale = np.sqrt(1 + spread**2)
    y = scale * xr.DataArray(np.sinh(SINH), dims="t")
    width = scale * xr.DataArray(np.cosh(SINH) * np.where(SINH == 0, 0.5, 1.0), dims="t")
    density = np.exp(evaluate(log_marginal, y, 1.0, 0.0, spread, nu)) * width
    variance = conditional(y, 1.0, 0.0, spread, nu).sd ** 2
    left = (variance * density).sum("t") / density.sum("t")
    return (1 - left * (nu - 2) / (nu * spread**2)).values


# The group level.


@dataclass(frozen=True)
class HeavyTails:
    """Groups that are one normal measurement each, of a population that is t.

    Attributes
    ----------
    measured
        ``measured(h, data)``: the estimate and its standard error, two arrays [..., group].
    beside
        ``beside(h, data)``: log density of what else was seen of a group, given its estimate: of rows given their mean
        [nats].
    """

    measured: Callable
    beside: Callable = lambda h, data: 0.0

    def group_level(self, **formulas) -> GroupLevel:
        """The group level, of hyperparameters ``mu``, ``tau`` and ``nu_above_2``; formulas as of `GroupLevel`."""
        return GroupLevel(
            kind="integrated numerically",
            kappa="1 - E[Var(theta | y, h)] / Var(theta | h), averaged over data",
            population=lambda h: StudentT(h.mu, h.tau, 2 + h.nu_above_2),
            conditional=self.conditional,
            log_joint=summed(self.log_left_out),
            log_left_out=self.log_left_out,
            log_predictive=self.log_predictive,
            log_likelihood=self.log_likelihood,
            expected_log_likelihood=self.expected_log_likelihood,
            reliability=lambda h, data: reliability(self.measured(h, data)[1], h.tau, 2 + h.nu_above_2),
            expectations=self.expectations,
            tails=self.tails,
            cells=lambda data: NODES,
            **formulas,
        )

    def conditional(self, h, data):
        return conditional(*self.measured(h, data), h.mu, h.tau, 2 + h.nu_above_2)

    def log_left_out(self, h, data):
        measured = evaluate(log_marginal, *self.measured(h, data), h.mu, h.tau, 2 + h.nu_above_2)
        return measured + self.beside(h, data)

    def log_predictive(self, h, new, seen):
        """Two measurements of one theta are their weighted mean, and their difference, which theta does not change."""
        (y, se), (y_new, se_new) = self.measured(h, seen), self.measured(h, new)
        share = se**2 / (se**2 + se_new**2)
        both = y + share * (y_new - y), se_new * np.sqrt(share)
        given = h.mu, h.tau, 2 + h.nu_above_2
        apart = normal.log_density(y_new, y, se**2 + se_new**2) + self.beside(h, new)
        return apart + evaluate(log_marginal, *both, *given) - evaluate(log_marginal, y, se, *given)

    def log_likelihood(self, theta, h, data):
        y, se = self.measured(h, data)
        return normal.log_density(y, theta, se**2) + self.beside(h, data)

    def expected_log_likelihood(self, h, data):
        after, (y, se) = self.conditional(h, data), self.measured(h, data)
        return normal.expected_log_density(y, se, after.mean, after.sd) + self.beside(h, data)

    def tails(self, h, data):
        y, se = self.measured(h, data)
        return tails(y, se, h.mu, h.tau, 2 + h.nu_above_2)

    def expectations(self, h, data):
        """The ``weight`` of each group's own data, given them."""
        return {"weight": weight_of_data(*self.measured(h, data), h.mu, h.tau, 2 + h.nu_above_2)}
