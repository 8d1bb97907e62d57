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
from dataclasses import dataclass, field

import numpy as np
import pytensor.tensor as pt
import xarray as xr

from hbm_zoo.group_level.evaluate import evaluate
from hbm_zoo.group_level.level import GroupLevel, summed
from hbm_zoo.group_level.tilted import Estimand, Tilted

NOTHING = 1e-3  # Of the largest likelihood, below which errors count for less than in proportion.
EVENLY = 0.2  # Share of the nodes that are spread whatever the likelihood.

#: Of differences that stand for derivatives: many gaps of a table, which is straight between its nodes where tau is 0.
STEP = 0.3


def tail(mu, tau, x):
    """How far a ~ N(mu, tau^2) lies beyond x on average, on the side of x that is away from mu: a PyTensor formula."""
    z = pt.abs(x - mu) / pt.switch(tau > 0, tau, 1.0)
    return pt.switch(tau > 0, tau * (pt.exp(-(z**2) / 2) / np.sqrt(2 * np.pi) - z * pt.erfc(z / np.sqrt(2)) / 2), 0.0)


def hats(xp, mu, g, node):
    """Weights H [..., node] from the tails g [..., node] and mu [..., 1], by NumPy or by PyTensor."""
    gap = node[..., 1:] - node[..., :-1]
    bend = (g[..., 1:] - g[..., :-1]) / gap
    along = xp.clip((mu - node[..., :-1]) / gap, 0.0, 1.0)
    step = along - bend  # what lies beyond the first node of each gap, of a hat that is 1 at its second
    first, last = xp.ones_like(step[..., :1]), xp.zeros_like(step[..., :1])
    return xp.maximum(xp.concatenate([first, step], axis=-1) - xp.concatenate([step, last], axis=-1), 0.0)


def log_sampled(likelihood, log_top, node, mu, tau):
    """Log likelihood of all groups, tables [group, node], for the sampler [nats]."""
    return (log_top + pt.log((likelihood * hats(pt, mu, tail(mu, tau, node), node)).sum(axis=1))).sum()


def weights(mu: xr.DataArray, tau: xr.DataArray, node: xr.DataArray) -> xr.DataArray:
    """H [..., node] of labelled arrays, which combine by name: they sum to 1.

    Examples
    --------
    >>> node = xr.DataArray([-1.0, 0.0, 2.0], dims="node")
    >>> weights(xr.DataArray(0.5), xr.DataArray(0.0), node).values.tolist()
    [0.0, 0.75, 0.25]
    """
    g = evaluate(tail, mu, tau, node).transpose(..., "node")
    return xr.apply_ufunc(
        lambda mu, g, node: hats(np, mu[..., None], g, node),
        *(mu, g, node),
        input_core_dims=[[], ["node"], ["node"]],
        output_core_dims=[["node"]],
    )


@dataclass(frozen=True, kw_only=True)
class OnATable:
    """Independent groups with one parameter each, and any likelihood that no hyperparameter changes.

    Attributes
    ----------
    population
        ``population(h)``: the `Normal` population of the parameter, at placed hyperparameters.
    estimand
        What is reported of a group: `ABSOLUTE` or `EXP` of its parameter; None: the parameter.
    table
        ``table(data, priors)``: the nodes, as `table` makes them, and what else is kept of them.
    kappa
        The definition of the reliability, which is of the estimand.
    at
        As of `GroupLevel`.
    """

    population: Callable
    table: Callable
    estimand: Estimand | None = None
    kappa: str = "1 - Var(estimand | y, h) / Var(estimand | h)"
    at: Callable = GroupLevel.at
    _last: list = field(default_factory=list, init=False, repr=False, compare=False)

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
            step=STEP,
            cells=lambda data: data.sizes.get("node", 1),
            cells_of_row=lambda data: 1,
            **formulas,
        )

    def _before(self, h: xr.Dataset, data: xr.Dataset):
        return self.population(self.at(h, data))

    def conditional(self, h: xr.Dataset, data: xr.Dataset) -> Tilted:
        before = self._before(h, data)
        return Tilted(before.mean, before.sd, data.point, data.likelihood)

    def _weights(self, h: xr.Dataset, data: xr.Dataset) -> xr.DataArray:
        """Weights of the nodes; the last are kept, for they are asked for twice."""
        if not (self._last and self._last[0] is h and self._last[1] is data):
            before = self._before(h, data)
            self._last[:] = h, data, weights(before.mean, before.sd, data.point)
        return self._last[2]

    def log_left_out(self, h: xr.Dataset, data: xr.Dataset) -> xr.DataArray:
        with np.errstate(divide="ignore"):
            return data.log_top + np.log(xr.dot(self._weights(h, data), data.likelihood, dim="node"))

    def log_likelihood(self, theta: xr.DataArray, h: xr.Dataset, data: xr.Dataset) -> xr.DataArray:
        mass = xr.dot(weights(theta, xr.DataArray(0.0), data.point), data.likelihood, dim="node")
        with np.errstate(divide="ignore"):
            return data.log_top + np.log(mass)

    def expected_log_likelihood(self, h: xr.Dataset, data: xr.Dataset) -> xr.DataArray:
        return data.log_top + self.conditional(h, data).mean_log_likelihood()

    def reliability(self, h: xr.Dataset, data: xr.Dataset) -> xr.DataArray:
        before, after = (
            (population if self.estimand is None else population.map(self.estimand)).sd
            for population in (self._before(h, data), self.conditional(h, data))
        )
        return xr.where(before == 0, 0.0, 1 - (after / before.where(before > 0)) ** 2)

    def integration_error(self, h: xr.Dataset, data: xr.Dataset) -> xr.DataArray:
        """A third of the difference that it makes to leave out every second node (Richardson)."""
        found, likelihood, point = self._weights(h, data), data.likelihood, data.point
        left, right = (point.shift(node=by) for by in (1, -1))
        share = (point - left) / (right - left)
        between = (1 - share) * likelihood.shift(node=1) + share * likelihood.shift(node=-1)
        odd = xr.DataArray(np.arange(point.sizes["node"]) % 2 == 1, dims="node")
        ratio = xr.dot(found, xr.where(odd, between, likelihood), dim="node") / xr.dot(found, likelihood, dim="node")
        return abs(np.log(ratio)) / 3


def with_top(table: xr.Dataset) -> xr.Dataset:
    """The table with its ``log_likelihood`` [..., node] as ``likelihood``, the largest 1, and the ``log_top`` of that.

    Examples
    --------
    >>> with_top(xr.Dataset({"log_likelihood": ("node", [-3.0, -2.0])})).likelihood.round(3).values.tolist()
    [0.368, 1.0]
    """
    top = table.log_likelihood.max("node")
    likelihood = np.exp(table.log_likelihood - top)
    return table.drop_vars("log_likelihood").assign(likelihood=likelihood, log_top=top)


def mirrored(table: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """A table [node, ...] of an even likelihood, from 0 upwards, on the whole line.

    Examples
    --------
    >>> mirrored({"point": np.array([0.0, 2.0]), "height": np.array([1.0, 3.0])})["point"].tolist()
    [-2.0, 0.0, 2.0]
    """
    sign = dict.fromkeys(table, 1.0) | {"point": -1.0}
    return {name: np.concatenate([sign[name] * half[:0:-1], half]) for name, half in table.items()}


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
    total = share[-1] if share[-1] > 0 else 1.0  # of no data it is flat
    mixed = (1 - EVENLY) * share / total + EVENLY * np.linspace(0, 1, wide.size)
    return np.interp(np.linspace(0, 1, size), mixed / mixed[-1], wide)
