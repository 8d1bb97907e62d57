"""A group level without a closed form, integrated numerically, from the likelihood at a given parameter."""

from __future__ import annotations

from collections.abc import Callable

import xarray as xr

from hbm_zoo.group_level.evaluate import evaluate
from hbm_zoo.group_level.level import GroupLevel, summed
from hbm_zoo.group_level.one_dimension import NODES, log_marginal, posterior


def on_a_line(
    *,
    normal: Callable,
    reported: Callable,
    kernel: Callable,
    constant: Callable,
    start: Callable,
    variables: Callable,
    at: Callable = GroupLevel.at,
    **formulas,
) -> GroupLevel:
    """Independent groups with one parameter each, theta ~ N(mu, tau^2), and any smooth likelihood that is log-concave.

    Parameters
    ----------
    normal
        ``normal(h)``: the `Normal` population of theta, at placed hyperparameters.
    reported
        ``reported(population)``: the population of the estimand from that of theta: `Expit` where
        theta is the log odds of a share.
    kernel, constant
        ``kernel(theta, *variables) + constant(*variables)``, elementwise PyTensor formulas: the log
        likelihood of a group [nats]; the latter is what theta does not change.
    start
        ``start(*variables)``: a finite estimate of theta, a PyTensor formula.
    variables
        ``variables(data)``: the arrays [group] that the likelihood asks for.
    at
        As of `GroupLevel`.
    **formulas
        ``log_likelihood``, ``replicate`` and ``kappa`` of the estimand, as of `GroupLevel`.

    Returns
    -------
    GroupLevel
        All its functions take hyperparameters as they are drawn. New data of a group are integrated together
        with the old ones, so that they may be as surprising as they like.

    Examples
    --------
    >>> from hbm_zoo.models.success_rates import MODEL
    >>> MODEL.under(population="logit-normal").group_level.kind
    'integrated numerically'
    """
    of_one, of_two = (log_marginal(kernel, start, parts) for parts in (1, 2))

    def integral(formula: Callable, h: xr.Dataset, *parts: xr.Dataset) -> xr.DataArray:
        before, values = normal(at(h, parts[0])), [value for data in parts for value in variables(data)]
        return evaluate(formula, before.mean, before.sd, *values)

    def ways(data: xr.Dataset) -> xr.DataArray:
        return evaluate(constant, *variables(data))

    def log_left_out(h: xr.Dataset, data: xr.Dataset) -> xr.DataArray:
        return integral(of_one, h, data) + ways(data)

    def log_predictive(h: xr.Dataset, new: xr.Dataset, seen: xr.Dataset) -> xr.DataArray:
        return integral(of_two, h, seen, new) - integral(of_one, h, seen) + ways(new)

    def theta_after(h: xr.Dataset, data: xr.Dataset):
        before = normal(at(h, data))
        return posterior(kernel, start, before.mean, before.sd, *variables(data))

    def expected_log_likelihood(h: xr.Dataset, data: xr.Dataset) -> xr.DataArray:
        return theta_after(h, data).expect(lambda theta: evaluate(kernel, theta, *variables(data))) + ways(data)

    def reliability(h: xr.Dataset, data: xr.Dataset) -> xr.DataArray:
        before, after = reported(normal(at(h, data))).sd, reported(theta_after(h, data)).sd
        return xr.where(before > 0, 1 - (after / before.where(before > 0, 1.0)) ** 2, 0.0)

    return GroupLevel(
        kind="integrated numerically",
        at=at,
        population=lambda h: reported(normal(h)),
        conditional=lambda h, data: reported(theta_after(h, data)),
        log_joint=summed(log_left_out),
        log_left_out=log_left_out,
        log_predictive=log_predictive,
        expected_log_likelihood=expected_log_likelihood,
        reliability=reliability,
        cells=lambda data: NODES,
        **formulas,
    )
