"""A group level without a closed form, integrated numerically, from the likelihood at a given parameter."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import xarray as xr

from hbm_zoo.group_level.evaluate import evaluate
from hbm_zoo.group_level.level import GroupLevel, summed
from hbm_zoo.group_level.one_dimension import NODES, Tabulated, log_marginal, posterior
from hbm_zoo.group_level.populations import Increasing


@dataclass(frozen=True, kw_only=True)
class OnALine:
    """Independent groups with one parameter each, theta ~ N(mu, tau^2), and any smooth likelihood that is log-concave.

    Attributes
    ----------
    normal
        ``normal(h)``: the `Normal` population of theta, at placed hyperparameters.
    estimand
        What is reported of a group, an `Increasing` function of theta: `EXPIT` where theta is the log odds of a share.
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

    normal: Callable
    estimand: Increasing
    kernel: Callable
    constant: Callable
    start: Callable
    variables: Callable
    at: Callable = GroupLevel.at

    def log_marginal(self, mu, tau, *variables):
        """Log p(y | mu, tau) with theta integrated out, a PyTensor formula [nats]."""
        return self.constant(*variables) + log_marginal(self.kernel, self.start)(mu, tau, *variables)

    def group_level(self, **formulas) -> GroupLevel:
        """The group level; ``replicate`` at given theta, and ``kappa``, as of `GroupLevel`."""
        return GroupLevel(
            kind="integrated numerically",
            at=self.at,
            population=self.normal,
            estimand=self.estimand,
            conditional=self._conditional,
            log_joint=summed(self._log_left_out),
            log_left_out=self._log_left_out,
            log_predictive=self._log_predictive,
            log_likelihood=self._log_likelihood,
            expected_log_likelihood=self._expected_log_likelihood,
            reliability=self._reliability,
            cells=lambda data: NODES,
            **formulas,
        )

    def _conditional(self, h: xr.Dataset, data: xr.Dataset) -> Tabulated:
        before = self.normal(self.at(h, data))
        return posterior(self.kernel, self.start, before.mean, before.sd, *self.variables(data))

    def _log_left_out(self, h: xr.Dataset, data: xr.Dataset) -> xr.DataArray:
        before = self.normal(self.at(h, data))
        return evaluate(self.log_marginal, before.mean, before.sd, *self.variables(data))

    def _log_predictive(self, h: xr.Dataset, new: xr.Dataset, seen: xr.Dataset) -> xr.DataArray:
        """Old and new data are integrated together, so that the new may be as surprising as they like."""
        before = self.normal(self.at(h, seen))
        return evaluate(self._of_both, before.mean, before.sd, *self.variables(seen), *self.variables(new))

    def _of_both(self, mu, tau, *variables):
        seen, new = variables[: len(variables) // 2], variables[len(variables) // 2 :]
        both = log_marginal(self.kernel, self.start, parts=2)(mu, tau, *variables)
        return self.constant(*new) + both - log_marginal(self.kernel, self.start)(mu, tau, *seen)

    def _log_likelihood(self, theta: xr.DataArray, h: xr.Dataset, data: xr.Dataset) -> xr.DataArray:
        values = self.variables(data)
        return evaluate(self.kernel, theta, *values) + evaluate(self.constant, *values)

    def _expected_log_likelihood(self, h: xr.Dataset, data: xr.Dataset) -> xr.DataArray:
        return self._conditional(h, data).expect(lambda theta: self._log_likelihood(theta, h, data))

    def _reliability(self, h: xr.Dataset, data: xr.Dataset) -> xr.DataArray:
        """Of theta: its variance never grows under a likelihood that is log-concave (Brascamp & Lieb 1976)."""
        before, after = self.normal(self.at(h, data)).sd, self._conditional(h, data).sd
        return xr.where(before > 0, 1 - (after / before.where(before > 0, 1.0)) ** 2, 0.0)
