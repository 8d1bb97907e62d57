"""A group level without a closed form, integrated numerically, from the likelihood at a given parameter."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import xarray as xr

from hbm_zoo.group_level.band_limited import Tabulated
from hbm_zoo.group_level.evaluate import evaluate
from hbm_zoo.group_level.kept import last_kept
from hbm_zoo.group_level.level import GroupLevel, integrated_numerically
from hbm_zoo.group_level.one_dimension import NODES, log_marginal, tabulated
from hbm_zoo.group_level.populations import Increasing


@dataclass(frozen=True, kw_only=True)
class OnALine:
    """Independent groups with one parameter each, theta ~ N(mu, tau^2), and any smooth likelihood that is log-concave.

    Attributes
    ----------
    population
        ``population(h)``: the `Normal` population of theta, at placed hyperparameters.
    estimand
        What is reported of a group, an `Increasing` function of theta: `EXPIT` where theta is the log odds of a share;
        None: theta, or what is given to the group level.
    kernel, constant
        ``kernel(theta, *variables) + constant(*variables)``, elementwise PyTensor formulas: the log
        likelihood of a group [nats]; the latter is what theta does not change.
    start
        ``start(*variables)``: a finite estimate of theta, a PyTensor formula.
    variables
        ``variables(data)``: the arrays [group] that the likelihood asks for.
    at
        As of `GroupLevel`.

    Examples
    --------
    >>> from hbm_zoo.models.success_rates import MODEL
    >>> MODEL.under(population="logit-normal").group_level.kind
    'integrated numerically'
    """

    population: Callable
    estimand: Increasing | None
    kernel: Callable
    constant: Callable
    start: Callable
    variables: Callable
    at: Callable = GroupLevel.at

    def log_marginal(self, mu, tau, *variables):
        """Log p(y | mu, tau) with theta integrated out, a PyTensor formula [nats]."""
        return self.constant(*variables) + log_marginal(self.kernel, self.start)(mu, tau, *variables)

    def group_level(self, **formulas) -> GroupLevel:
        """The group level; ``replicate(rng, theta, h, new)``, and ``kappa``, as of `integrated_numerically`."""
        return integrated_numerically(self, **formulas)

    def cells(self, data: xr.Dataset) -> int:
        return NODES

    def conditional(self, h: xr.Dataset, data: xr.Dataset) -> Tabulated:
        return self._tabulated(h, data)[0]

    def log_left_out(self, h: xr.Dataset, data: xr.Dataset) -> xr.DataArray:
        return self._tabulated(h, data)[1] + evaluate(self.constant, *self.variables(data))

    @last_kept
    def _tabulated(self, h: xr.Dataset, data: xr.Dataset) -> tuple[Tabulated, xr.DataArray]:
        before = self.population(self.at(h, data))
        return tabulated(self.kernel, self.start, before.mean, before.sd, *self.variables(data))

    def log_predictive(self, h: xr.Dataset, new: xr.Dataset, seen: xr.Dataset) -> xr.DataArray:
        """Old and new data are integrated together, so that the new may be as surprising as they like."""
        before = self.population(self.at(h, seen))
        return evaluate(self._of_both, before.mean, before.sd, *self.variables(seen), *self.variables(new))

    def _of_both(self, mu, tau, *variables):
        seen, new = variables[: len(variables) // 2], variables[len(variables) // 2 :]
        both = log_marginal(self.kernel, self.start, parts=2)(mu, tau, *variables)
        return self.constant(*new) + both - log_marginal(self.kernel, self.start)(mu, tau, *seen)

    def log_likelihood(self, theta: xr.DataArray, h: xr.Dataset, data: xr.Dataset) -> xr.DataArray:
        values = self.variables(data)
        return evaluate(self.kernel, theta, *values) + evaluate(self.constant, *values)

    def expected_log_likelihood(self, h: xr.Dataset, data: xr.Dataset) -> xr.DataArray:
        return self.conditional(h, data).expect(lambda theta: self.log_likelihood(theta, h, data))

    def reliability(self, h: xr.Dataset, data: xr.Dataset) -> xr.DataArray:
        """Of theta: its variance never grows under a likelihood that is log-concave (Brascamp & Lieb 1976)."""
        before, after = self.population(self.at(h, data)).sd, self.conditional(h, data).sd
        return xr.where(before == 0, 0.0, 1 - (after / before.where(before > 0)) ** 2)
