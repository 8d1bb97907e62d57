"""Rows of groups that have a spread each, which are log-normal among groups.

    y_gi | theta_g, sigma_g  ~ N(theta_g, sigma_g^2),  n rows
    theta_g                  ~ N(mu, tau^2)
    log sigma_g              = log sigma + s_sigma z_g,  z_g ~ N(0, 1)

Given sigma_g all is normal, with theta_g integrated out too,

    p(y | sigma_g) = N(ybar; mu, tau^2 + sigma_g^2 / n) N(the n - 1 contrasts of the rows; 0, sigma_g^2),

so that what is known of theta_g is a mixture of normals, and one integral is left, over z. By the trapezoid rule, on
two grids: a wide one, between bounds in closed form, shows where the integrand is within 30 nats of its top, and a fine
one is laid there. It need not be log-concave: of a group far out that is quiet, or noisy. In units of z no spread of
the spreads, s_sigma = 0, is no limit; tau = 0 gives the density of rows at a given theta.

The bounds: the log of the normal of z has lost z^2/2; that of the contrasts (n - 1)/2 q(-2 s_sigma (z - z_c)), with
q(x) = e^x - 1 - x, from its top z_c where sigma_g^2 = SS / (n - 1); and that of the mean is largest where
sigma_g^2 + n tau^2 = n (ybar - mu)^2. Where one factor alone has lost more than the tops of the others can give back
there is nothing.
"""

from __future__ import annotations

from functools import cache

import numpy as np
import pytensor.tensor as pt
import xarray as xr
from pytensor import function
from pytensor.gradient import disconnected_grad

from hbm_zoo.group_level import normal, rows
from hbm_zoo.group_level.band_limited import Tabulated
from hbm_zoo.group_level.level import GroupLevel, summed
from hbm_zoo.group_level.log_gamma import to_the_left, to_the_right
from hbm_zoo.group_level.mixture_of_normals import MixtureOfNormals
from hbm_zoo.group_level.populations import Normal

STATISTICS = ["n", "y_bar", "SS"]
WIDE, NODES = 32, 56
NATS = 30.0
#: Of s_sigma, and of squares over sigma^2: what stands for 0 in a bound.
LEAST_SPREAD, LEAST_SQUARES = 1e-9, 1e-10


def log_marginal(y_bar, n, SS, mu, tau, sigma, s_sigma):
    """Log density of n rows, theta_g and sigma_g integrated out, a PyTensor formula [nats]."""
    log_f, _, step = _tabulate(y_bar, n, SS, mu, tau, sigma, s_sigma)
    top = disconnected_grad(log_f.max(axis=0))
    return top + pt.log(pt.exp(log_f - top).sum(axis=0)) + pt.log(step) - (n + 1) / 2 * normal.LOG_2PI


def _tabulate(*given):
    """Log integrand and log sigma_g [node, ...], and the step of z between nodes."""
    y_bar, n, SS, mu, tau, sigma, s_sigma = map(pt.as_tensor, given)
    squares = n * (y_bar - mu) ** 2

    def log_f(z):
        return _given(pt.log(sigma) + s_sigma * z, n, SS, squares, n * tau**2) - z**2 / 2

    widest = _widest(log_f, n, SS, squares, n * tau**2, sigma, s_sigma)
    low, high = map(disconnected_grad, _where(log_f, _between(*widest, WIDE)))
    z = _between(low, high, NODES)
    return log_f(z), pt.log(sigma) + s_sigma * z, (high - low) / (NODES - 1)


def _given(log_sigma, n, SS, squares, of_theta):
    """Log p(y | sigma_g) but for its constant; 0 of no rows [nats]."""
    variance = pt.exp(2 * log_sigma)
    of_mean = variance + of_theta
    return -0.5 * (2 * (n - 1) * log_sigma + SS / variance + pt.log(of_mean) + squares / of_mean)


def _between(low, high, nodes):
    """Evenly spaced points [node, ...]."""
    return low + (high - low) * np.linspace(0, 1, nodes).reshape(-1, *[1] * low.ndim)


def _where(log_f, wide):
    """The ends of all that is near the top, seen on the wide grid."""
    level, step = log_f(wide), wide[1] - wide[0]
    near = level > level.max(axis=0) - NATS
    first = pt.switch(near, wide, wide[-1]).min(axis=0) - step
    last = pt.switch(near, wide, wide[0]).max(axis=0) + step
    return pt.maximum(first, wide[0]), pt.minimum(last, wide[-1])


def _widest(log_f, n, SS, squares, of_theta, sigma, s_sigma):
    """The z beyond which there is nothing."""
    s, least = pt.maximum(s_sigma, LEAST_SPREAD), LEAST_SQUARES * sigma**2
    contrasts, several = pt.maximum(n - 1, 1), n > 1
    variance = pt.maximum(SS, least) / contrasts
    z_c, z_all = (pt.log(v / sigma**2) / (2 * s) for v in (variance, (SS + squares + least) / pt.maximum(n, 1)))
    pulled = 1 / (1 + 1 / (2 * contrasts * s**2))
    level = log_f(pt.stack(pt.broadcast_arrays(0 * z_c, z_c, z_all, pulled * z_c, pulled * z_all)))
    top = pt.switch(several, level.max(axis=0), level[0])
    largest = pt.maximum(squares, pt.maximum(of_theta, least))
    of_mean = pt.switch(n > 0, -0.5 * (pt.log(largest) + squares / largest), 0.0)
    of_contrasts = pt.switch(several, -0.5 * contrasts * (pt.log(variance) + 1), 0.0)
    most = NATS + of_mean + of_contrasts - top
    reach, c = pt.sqrt(2 * most), 2 * most / contrasts
    low = pt.switch(several, z_c - to_the_right(c) / (2 * s), -reach)
    high = pt.switch(several, z_c + to_the_left(c) / (2 * s), reach)
    return pt.maximum(low, -reach), pt.minimum(high, reach)


def random(n, SS, mu, tau, sigma, s_sigma, rng=None, size=None):
    """Draw the mean of a group's n rows; SS says nothing of it."""
    own = sigma * np.exp(s_sigma * rng.standard_normal(size))
    return normal.random(own / np.sqrt(n), mu, tau, rng=rng, size=size)


@cache
def _compiled():
    """A function of flat arrays: the log density, log sigma_g and the weights of its nodes [node, ...]."""
    given = [pt.dvector() for _ in range(7)]
    log_f, log_sigma, _ = _tabulate(*given)
    weight = pt.exp(log_f - log_f.max(axis=0))
    return function(given, [log_marginal(*given), log_sigma, weight / weight.sum(axis=0)], mode="FAST_COMPILE")


def _evaluated(*given):
    """The same of labelled arrays, compiled once for all dims."""
    aligned = xr.broadcast(*map(xr.DataArray, given))
    found = _compiled()(*(np.ascontiguousarray(each.values, dtype=float).ravel() for each in aligned))
    like, nodes = aligned[0], (*aligned[0].dims, "node")
    log_m, *by_node = (each.T.reshape((*like.shape, *each.shape[:-1])) for each in found)
    return like.copy(data=log_m), *(xr.DataArray(each, like.coords, nodes) for each in by_node)


# One group, given mu, tau, sigma and s_sigma.


def of_log_sigma(h, data, mu, tau) -> Tabulated:
    """Log sigma_g given the rows, theta_g of N(mu, tau^2)."""
    _, log_sigma, weight = _evaluated(data.y_bar, data.n, data.SS, mu, tau, h.sigma, h.s_sigma)
    return Tabulated(log_sigma, weight)


def conditional(h, data) -> MixtureOfNormals:
    """theta_g given the rows: for each sigma_g that it may be a normal, as of `normal.conditional`."""
    lam = of_log_sigma(h, data, h.mu, h.tau)
    mean, sd = normal.conditional(data.y_bar, np.exp(lam.at) / np.sqrt(data.n), h.mu, h.tau)
    return MixtureOfNormals(mean, sd, lam.weight)


def log_left_out(h, data):
    """Log density of each group's rows [nats]."""
    log_m, _, _ = _evaluated(data.y_bar, data.n, data.SS, h.mu, h.tau, h.sigma, h.s_sigma)
    return log_m


def log_predictive(h, new, seen):
    """New rows of the same groups, which have the spreads that they had: a ratio of two integrals."""
    both = rows.joined(seen[STATISTICS], new[STATISTICS])
    return log_left_out(h, both) - log_left_out(h, seen)


def log_likelihood(theta, h, data):
    """Log density of the rows at a theta_g, sigma_g integrated out: a population without spread."""
    return log_left_out(h.assign(mu=theta, tau=0.0), data)


def expected_log_likelihood(h, data):
    """The same averaged over theta_g given the rows."""
    return conditional(h, data).expect(lambda theta: log_likelihood(theta, h, data))


def reliability(h, data):
    """E[n tau^2 / (n tau^2 + sigma_g^2) | y, h]: the weight of ybar_g in E[theta_g | y, h]."""
    lam = of_log_sigma(h, data, h.mu, h.tau)
    return lam.expect(lambda at: normal.reliability(np.exp(at) / np.sqrt(data.n), h.tau))


def expectations(h, data):
    """``sigma_g``, the spread within each group, given its rows."""
    return {"sigma_g": of_log_sigma(h, data, h.mu, h.tau).expect(np.exp)}


def tails(h, data):
    """Probabilities of no more than ybar_g, and of no less, given the contrasts of its rows.

    The contrasts say what sigma_g is, and nothing of theta_g: given them ybar_g - theta_g is a mixture of normals
    (Fisher 1934, Proc R Soc A 144:285-307).
    """
    alone = data[STATISTICS].assign(n=data.n - 1)  # n - 1 contrasts, as if theta were known
    lam = of_log_sigma(h, alone, data.y_bar, 0.0)
    each = normal.tails(data.y_bar, np.exp(lam.at) / np.sqrt(data.n), h.mu, h.tau)
    return tuple((lam.weight * tail).sum("node", skipna=False) for tail in each)


def replicate(rng, theta, h, new, seen, group: str, of_row: str):
    """y_gi ~ N(theta_g, sigma_g^2): sigma_g of its law given theta_g and what was seen of the group, if anything."""
    where = {str(label): j for j, label in enumerate(seen[group].values)}
    at = np.array([where.get(str(label), -1) for label in new[group].values])
    known = seen[STATISTICS].isel({group: at}).assign_coords({group: new[group]})
    known = known.assign(n=xr.where(at >= 0, known.n, 0), SS=xr.where(at >= 0, known.SS, 0.0))
    theta = theta.assign_coords({group: new[group]})
    own = np.exp(of_log_sigma(h, known, theta, 0.0).over(theta).sample(rng))
    mean, sd = (value.isel({group: new[of_row]}) for value in xr.broadcast(theta, own))
    return xr.apply_ufunc(rng.normal, mean, sd)


def emptied(data):
    """The same groups before any row of them was seen."""
    return data.assign({name: xr.zeros_like(data[name]) for name in STATISTICS})


def group_level(group: str, of_row: str, response: str, **formulas) -> GroupLevel:
    """The group level of rows that say by ``of_row`` which group each is of; formulas as of `GroupLevel`."""
    return GroupLevel(
        kind="integrated numerically",
        kappa="E[n tau^2 / (n tau^2 + sigma_g^2) | y, h], the weight of the own mean",
        population=lambda h: Normal(h.mu, h.tau),
        conditional=conditional,
        log_joint=summed(log_left_out),
        log_left_out=log_left_out,
        log_predictive=log_predictive,
        log_likelihood=log_likelihood,
        expected_log_likelihood=expected_log_likelihood,
        reliability=reliability,
        expectations=expectations,
        tails=tails,
        replicate=lambda rng, theta, h, new, seen: replicate(rng, theta, h, new, seen, group, of_row),
        leave_row_out=rows.leave_row_out(log_left_out, group, of_row, response),
        emptied=emptied,
        cells=lambda data: NODES,
        **formulas,
    )
