"""One parameter of a group, normal in the population, whose likelihood is tabulated once.

    a_j ~ N(mu, tau^2),   log L_j(a) linear between its values at nodes a_1 < ... < a_K, constant beyond the last

Where no hyperparameter enters the likelihood of a group given its parameter, it is a function of one number, whatever
else was integrated out of it. Against the population each piece between nodes is a normal that is moved and cut off,

    m_j(mu, tau) = sum_k exp(c_k + s_k^2/2) [Phi(z_k+1 - s_k) - Phi(z_k - s_k)],   z_k = (a_k - mu)/tau,

log L = c_k + s_k z there: smooth in mu and tau; at tau = 0 it is the likelihood at mu. It is the log that is linear,
for a population may lie where a likelihood has next to nothing, as where groups differ that share one parameter: the
error of a normal likelihood is h^2/8 nats in gaps of h standard errors, near its top and far from it. Gauss-Hermite
nodes, which move with mu and tau, miss a likelihood that is narrow where a population is wide. Nodes lie close where
the log bends (de Boor 1973, in Spline functions and approximation theory, 57-72), closer near its top; half of them
have four times the error, which says how large it is.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pytensor.tensor as pt
import xarray as xr

from hbm_zoo.group_level.kept import last_kept
from hbm_zoo.group_level.level import GroupLevel, summed
from hbm_zoo.group_level.pieces import FAR
from hbm_zoo.group_level.reported import Estimand
from hbm_zoo.group_level.special import log_Phi
from hbm_zoo.group_level.tilted import Tilted

#: Standard errors from the top of a likelihood at which gaps are twice as wide as there.
WIDER = 2.0
EVENLY = 0.1  # Share of the nodes that are spread whatever the likelihood.

#: Of differences that stand for derivatives: many gaps of a table, which is straight between its nodes where tau is 0.
STEP = 0.3


def log_integral(mu, tau, node, log_likelihood):
    """Log m of groups, tables [group, node], as a PyTensor formula [group; nats]."""
    scale = pt.switch(tau > 0, tau, 1.0)
    inside = pt.clip((node - mu) / scale, -FAR, FAR)
    edge = FAR + pt.zeros_like(inside[:, :1])
    low, high = pt.concatenate([-edge, inside], axis=1), pt.concatenate([inside, edge], axis=1)
    slope = (log_likelihood[:, 1:] - log_likelihood[:, :-1]) / (node[:, 1:] - node[:, :-1])
    level = log_likelihood[:, :-1] + slope * (mu - node[:, :-1])
    none, first, last = pt.zeros_like(edge), log_likelihood[:, :1] + 0 * edge, log_likelihood[:, -1:] + 0 * edge
    level, slope = (pt.concatenate(each, axis=1) for each in ([first, level, last], [none, slope * scale, none]))
    at_mu = pt.switch((low < 0) & (high >= 0), level, 0.0).sum(axis=1)
    log_masses = level + slope**2 / 2 + log_between(low - slope, high - slope)
    return pt.switch(tau > 0, pt.logsumexp(log_masses, axis=1), at_mu)


def log_between(low, high):
    """log(Phi(high) - Phi(low)) as a PyTensor formula, as `pieces.log_between`."""
    mirror = low > 0
    left, right = pt.switch(mirror, -high, low), pt.switch(mirror, -low, high)
    top = log_Phi(right)
    return top + pt.log1mexp(log_Phi(left) - top)


def log_sampled(log_likelihood, node, mu, tau):
    """Log likelihood of all groups, tables [group, node], for the sampler [nats]."""
    return log_integral(mu, tau, node, log_likelihood).sum()


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

    @last_kept
    def conditional(self, h: xr.Dataset, data: xr.Dataset) -> Tilted:
        before = self._before(h, data)
        return Tilted(before.mean, before.sd, data.point, data.log_likelihood)

    def log_left_out(self, h: xr.Dataset, data: xr.Dataset) -> xr.DataArray:
        return self.conditional(h, data).log_mass

    def log_likelihood(self, theta: xr.DataArray, h: xr.Dataset, data: xr.Dataset) -> xr.DataArray:
        return Tilted(theta, xr.zeros_like(theta), data.point, data.log_likelihood).log_mass

    def expected_log_likelihood(self, h: xr.Dataset, data: xr.Dataset) -> xr.DataArray:
        return self.conditional(h, data).mean_log_likelihood()

    def reliability(self, h: xr.Dataset, data: xr.Dataset) -> xr.DataArray:
        before, after = (
            (population if self.estimand is None else population.map(self.estimand)).sd
            for population in (self._before(h, data), self.conditional(h, data))
        )
        return xr.where(before == 0, 0.0, 1 - (after / before.where(before > 0)) ** 2)

    def integration_error(self, h: xr.Dataset, data: xr.Dataset) -> xr.DataArray:
        """A third of the difference that it makes to leave out every second node (Richardson)."""
        every = self.conditional(h, data)
        half = [value.isel(node=slice(None, None, 2)) for value in (data.point, data.log_likelihood)]
        return abs(every.log_mass - Tilted(every.mu, every.tau, *half).log_mass) / 3


def mirrored(table: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """A table [node, ...] of an even likelihood, from 0 upwards, on the whole line.

    Examples
    --------
    >>> mirrored({"point": np.array([0.0, 2.0]), "height": np.array([1.0, 3.0])})["point"].tolist()
    [-2.0, 0.0, 2.0]
    """
    sign = dict.fromkeys(table, 1.0) | {"point": -1.0}
    return {name: np.concatenate([sign[name] * half[:0:-1], half]) for name, half in table.items()}


def placed(wide: np.ndarray, log_likelihood: np.ndarray, size: int) -> np.ndarray:
    """So many of a range's points that a piecewise linear log likelihood errs alike in pieces as far from its top.

    Its error in a piece is the square of the piece times the second derivative. A part of the nodes is spread over all
    the range, so that nowhere is without.
    """
    gap = np.diff(wide)
    bend = np.abs(np.diff(np.diff(log_likelihood) / gap)) / ((gap[1:] + gap[:-1]) / 2)
    away = np.sqrt(2 * (log_likelihood.max() - log_likelihood[1:-1]))
    density = np.sqrt(bend) / (1 + away / WIDER)
    share = np.r_[0.0, np.cumsum((np.r_[density, density[-1]] + np.r_[density[0], density]) / 2 * gap)]
    total = share[-1] if share[-1] > 0 else 1.0  # of no data it is flat
    mixed = (1 - EVENLY) * share / total + EVENLY * np.linspace(0, 1, wide.size)
    return np.interp(np.linspace(0, 1, size), mixed / mixed[-1], wide)
