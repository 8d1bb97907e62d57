"""One parameter of a group, normal in the population, whose likelihood is tabulated once.

    a_j ~ N(mu, tau^2),   L_j(a) linear between its values at nodes a_1 < ... < a_K, constant beyond the last

Where no hyperparameter enters the likelihood of a group given its parameter, it is a function of one number, whatever
else was integrated out of it. Against the population it is a sum with exact weights, those of hat functions,

    m_j(mu, tau) = sum_k L_k H_k,
    H_k = E[hat_k(a)] = hat_k(mu) + (g_k+1 - g_k)/(a_k+1 - a_k) - (g_k - g_k-1)/(a_k - a_k-1),
    g_k = tau [phi(z_k) - |z_k| Phi(-|z_k|)],   z_k = (a_k - mu)/tau

smooth in mu and tau; at tau = 0 it is the likelihood at mu. Gauss-Hermite nodes, which move with mu and tau, miss a
likelihood that is narrow where a population is wide. Nodes lie close where the likelihood bends (de Boor 1973, in
Spline functions and approximation theory, 57-72); half of them have four times the error, which says how large it is.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pytensor.tensor as pt
import xarray as xr

from hbm_zoo.group_level.evaluate import evaluate
from hbm_zoo.group_level.level import GroupLevel, summed
from hbm_zoo.group_level.tilted import Estimand, Tilted

BEYOND = 1e9  # In units of all nodes' range: where the neighbour of the last lies.
NOTHING = 1e-3  # Of the largest likelihood, below which errors count for less than in proportion.
EVENLY = 0.2  # Share of the nodes that are spread whatever the likelihood.


def hat(mu, tau, before, node, after):
    """Weight of a node between two others in an integral against N(mu, tau^2): elementwise, a PyTensor formula."""
    at_mu = pt.clip(pt.minimum((mu - before) / (node - before), (after - mu) / (after - node)), 0.0, 1.0)
    g = [_tail(mu, tau, x) for x in (before, node, after)]
    return pt.maximum(at_mu + (g[2] - g[1]) / (after - node) - (g[1] - g[0]) / (node - before), 0.0)


def _tail(mu, tau, x):
    """How far a lies beyond x on average, x on the far side of mu."""
    z = pt.abs(x - mu) / pt.switch(tau > 0, tau, 1.0)
    return pt.switch(tau > 0, tau * (pt.exp(-(z**2) / 2) / np.sqrt(2 * np.pi) - z * pt.erfc(z / np.sqrt(2)) / 2), 0.0)


def log_sampled(likelihood, log_top, node, mu, tau):
    """Log likelihood of all groups, tables [group, node], for the sampler [nats]."""
    reach = BEYOND * (node[:, -1:] - node[:, :1])
    before = pt.concatenate([node[:, :1] - reach, node[:, :-1]], axis=1)
    after = pt.concatenate([node[:, 1:], node[:, -1:] + reach], axis=1)
    return (log_top + pt.log((likelihood * hat(mu, tau, before, node, after)).sum(axis=1))).sum()


def weights(mu: xr.DataArray, tau: xr.DataArray, node: xr.DataArray) -> xr.DataArray:
    """H [..., node] of labelled arrays, which combine by name: they sum to 1.

    Examples
    --------
    >>> node = xr.DataArray([-1.0, 0.0, 2.0], dims="node")
    >>> weights(xr.DataArray(0.5), xr.DataArray(0.0), node).values.tolist()
    [0.0, 0.75, 0.25]
    """
    return evaluate(hat, mu, tau, *neighbours(node))


def neighbours(node: xr.DataArray) -> tuple[xr.DataArray, xr.DataArray, xr.DataArray]:
    """Each node between the one before and the one after it."""
    first, last = node.isel(node=0, drop=True), node.isel(node=-1, drop=True)
    reach = BEYOND * (last - first)
    position = xr.DataArray(np.arange(node.sizes["node"]), dims="node")
    before = xr.where(position > 0, node.shift(node=1), first - reach)
    after = xr.where(position < node.sizes["node"] - 1, node.shift(node=-1), last + reach)
    return before.transpose(*node.dims), node, after.transpose(*node.dims)


@dataclass(frozen=True, kw_only=True)
class OnATable:
    """Independent groups with one parameter each, normal in the population, and any likelihood that no hyperparameter
    changes.

    Attributes
    ----------
    population
        ``population(h)``: the `Normal` population of the parameter, at placed hyperparameters.
    estimand
        What is reported of a group: `ABSOLUTE` or `EXP` of its parameter.
    table
        ``table(data, priors)``: the nodes, as `table` makes them, and what else is kept of them.
    kappa
        The definition of the reliability, which is of the estimand.
    at
        As of `GroupLevel`.
    """

    population: Callable
    estimand: Estimand
    table: Callable
    kappa: str = "1 - Var(estimand | y, h) / Var(estimand | h)"
    at: Callable = GroupLevel.at

    def group_level(self, **formulas) -> GroupLevel:
        """The group level; ``replicate(rng, theta, h, new, seen)`` and more, as of `GroupLevel`."""
        return GroupLevel(
            kind="tabulated",
            kappa=self.kappa,
            at=self.at,
            population=self.population,
            estimand=self.estimand,
            conditional=self.conditional,
            log_joint=summed(self.log_left_out),
            log_left_out=self.log_left_out,
            log_likelihood=self.log_likelihood,
            expected_log_likelihood=self.expected_log_likelihood,
            reliability=self.reliability,
            nodes=lambda data, priors, rng, pilot: self.table(data, priors),
            integration_error=self.integration_error,
            cells=lambda data: data.sizes.get("node", 1),
            **formulas,
        )

    def _before(self, h: xr.Dataset, data: xr.Dataset):
        return self.population(self.at(h, data))

    def conditional(self, h: xr.Dataset, data: xr.Dataset) -> Tilted:
        before = self._before(h, data)
        return Tilted(before.mean, before.sd, data.point, data.likelihood)

    def log_left_out(self, h: xr.Dataset, data: xr.Dataset) -> xr.DataArray:
        before = self._before(h, data)
        mass = xr.dot(weights(before.mean, before.sd, data.point), data.likelihood, dim="node")
        with np.errstate(divide="ignore"):
            return data.log_top + np.log(mass)

    def log_likelihood(self, theta: xr.DataArray, h: xr.Dataset, data: xr.Dataset) -> xr.DataArray:
        mass = xr.dot(weights(theta, xr.DataArray(0.0), data.point), data.likelihood, dim="node")
        with np.errstate(divide="ignore"):
            return data.log_top + np.log(mass)

    def expected_log_likelihood(self, h: xr.Dataset, data: xr.Dataset) -> xr.DataArray:
        return data.log_top + self.conditional(h, data).mean_log_likelihood()

    def reliability(self, h: xr.Dataset, data: xr.Dataset) -> xr.DataArray:
        before, after = (population.map(self.estimand).sd for population in (self._before(h, data), self.conditional(h, data)))
        return xr.where(before == 0, 0.0, 1 - (after / before.where(before > 0)) ** 2)

    def integration_error(self, h: xr.Dataset, data: xr.Dataset) -> xr.DataArray:
        """A third of what every second node would say otherwise (Richardson)."""
        before = self._before(h, data)
        mass, coarse = (
            xr.dot(weights(before.mean, before.sd, nodes.point), nodes.likelihood, dim="node")
            for nodes in (data[["point", "likelihood"]], data[["point", "likelihood"]].isel(node=slice(None, None, 2)))
        )
        return abs(np.log(coarse / mass)) / 3


def table(log_likelihood: Callable, wide: np.ndarray, size: int, even: bool = False) -> dict[str, np.ndarray | float]:
    """Nodes of a likelihood and its values there.

    Parameters
    ----------
    log_likelihood : callable
        ``log_likelihood(a)`` of an array of parameters [nats].
    wide : numpy.ndarray
        Increasing parameters, close enough to see where the likelihood bends; they reach as far as nodes will. Of an
        even likelihood they start at 0.
    size : int
        Nodes, an odd number, so that every second one is a table, too; of an even likelihood of each half.
    even : bool
        Whether L(-a) = L(a): the other half is a mirror.

    Returns
    -------
    dict
        ``point`` and ``likelihood`` [node], the largest 1, and the log of what that stands for, ``log_top`` [nats].

    Examples
    --------
    >>> found = table(lambda a: -((a - 1) ** 2) / 2, np.linspace(0, 12, 200), 41, even=True)
    >>> found["point"].size, found["point"][40].item(), abs(found["likelihood"].max().item() - 1) < 1e-12
    (81, 0.0, True)
    """
    log_l = log_likelihood(wide)
    node = placed(wide, np.exp(log_l - log_l.max()), size)
    log_l = log_likelihood(node)
    top = log_l.max()
    likelihood = np.exp(log_l - top)
    if even:
        node, likelihood = np.r_[-node[:0:-1], node], np.r_[likelihood[:0:-1], likelihood]
    return {"point": node, "likelihood": likelihood, "log_top": float(top)}


def placed(wide: np.ndarray, likelihood: np.ndarray, size: int) -> np.ndarray:
    """So many of a range's points that a piecewise linear likelihood errs alike in all pieces.

    Its error in a piece is the square of the piece times the second derivative; pieces are as long as the root of
    that, over the likelihood itself down to a thousandth of its largest, allows. A part of the nodes is spread by the
    square root of distance, so that nowhere is without.
    """
    gap = np.diff(wide)
    slope = np.diff(likelihood) / gap
    bend = np.abs(np.diff(slope)) / ((gap[1:] + gap[:-1]) / 2)
    density = np.sqrt(bend / (likelihood[1:-1] + NOTHING * likelihood.max()))
    share = np.r_[0.0, np.cumsum((np.r_[density, density[-1]] + np.r_[density[0], density]) / 2 * gap)]
    mixed = (1 - EVENLY) * share / share[-1] + EVENLY * np.linspace(0, 1, wide.size)
    return np.interp(np.linspace(0, 1, size), mixed, wide)
