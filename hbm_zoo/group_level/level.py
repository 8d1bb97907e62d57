"""The group level: what is known of a group given the hyperparameters, and who answers it.

What a diagnostic asks of a group is always one of few things: the population it comes from;
the same after its data; the likelihood with its parameter integrated out; new data. A model in
closed form answers by formulas (`closed_form`), one without by numerical integration, and one
that is only drawn answers what its population alone can. What nobody answers is None, and
refused by its name (`MISSING`).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import xarray as xr

from hbm_zoo.group_level.newton import STEP

MISSING = {
    "population": "the population that a {group} comes from",
    "conditional": "what is known of a {group} after its data, given the hyperparameters",
    "log_joint": "the likelihood with what belongs to each {group} integrated out",
    "log_left_out": "the density of a {group} left out, given the others",
    "log_predictive": "the density of new data of a {group} given its old ones",
    "log_likelihood": "the likelihood of a {group} at a given parameter",
    "expected_log_likelihood": "the likelihood of a {group} averaged over its parameter",
    "reliability": "the weight of a {group}'s own data",
    "replicate": "how new data of a {group} come about",
    "leave_row_out": "the density of a row given the others of its {group}",
    "tails": "how probable less than the own estimate of a {group} is, and more",
}


@dataclass(frozen=True, kw_only=True)
class Level:
    """A level of groups above the first, given the hyperparameters: campaigns of batches, say.

    Attributes
    ----------
    dim
        Its dim, which labels its units in the data.
    population, conditional, reliability
        ``population(h, data)`` of its units, the same after all data ``conditional(h, data)``,
        and the weight ``reliability(h, data)`` of a unit's own data.
    own, volume
        ``own(data)``, the raw estimate of each unit; ``volume(data)``, how much data it has, the
        array's name saying of what.
    """

    dim: str
    population: Callable
    conditional: Callable
    reliability: Callable
    own: Callable
    volume: Callable


@dataclass(frozen=True, kw_only=True)
class GroupLevel:
    """What is known of the groups given the hyperparameters; None where nothing is.

    Every function takes ``h``, a Dataset of hyperparameters [sample], and ``data``, the prepared
    Dataset; results broadcast over samples and groups by name. ``h`` never has the dim of the groups:
    what differs from group to group before its data, such as a location by a covariate, is placed
    by ``at``, once, and all that follows sees the placed hyperparameters.

    Attributes
    ----------
    kind
        How it is known, in words.
    kappa
        The definition of its ``reliability``, named wherever it is printed.
    independent
        Whether groups are independent given h. If not, data are never taken in chunks of groups,
        and no standard error over groups is printed.
    apart
        ``apart(data)``: whether groups that may depend on one another do not in these data: then a standard error is
        printed all the same.
    at
        ``at(h, data)``: the hyperparameters as each group's population has them.
    alike
        Whether `at` gives all groups the same: it says then by which names the data know them, those of traits say.
    population
        ``population(h)``: the `Population` of a group's parameter, at placed hyperparameters.
    estimand
        ``estimand(theta)``: what is reported of a group where that is a function of its parameter, such as a clearance
        of a log clearance; the `map` of its populations is asked for then. None: the parameter itself.
    estimand_by_group
        ``estimand_by_group(data)``: that function where it is another for each group of the data, such as a risk over
        the one expected there; in place of ``estimand``.
    conditional
        ``conditional(h, data)``: the `Population` of each group's parameter after the data; of the
        same kind as before or another. Its draws are joint over the groups.
    log_joint
        ``log_joint(h, data)`` [sample]: log likelihood of all data, every group's own parameter
        integrated out [nats]. The only thing that is maximised, integrated or reweighted.
    log_left_out
        ``log_left_out(h, data)`` [sample, group]: log p(y_j | the other groups' y, h) [nats], for
        leaving out only. The terms of ``log_joint`` where groups are independent, else not.
    log_predictive
        ``log_predictive(h, new, seen)`` [sample, group]: log density of new data of the same groups
        given what was seen of them [nats].
    log_likelihood, expected_log_likelihood
        ``log_likelihood(theta, h, data)`` of each group at a given parameter, and
        ``expected_log_likelihood(h, data)``, its average over ``conditional`` [nats].
    reliability
        ``reliability(h, data)``: shrinkage weight kappa of the group's own data,
        1 - E[Var(theta | y, h)] / Var(theta | h).
    replicate
        ``replicate(rng, theta, h, new, seen)``: new observations like those of ``new``, given all that
        was ``seen``: what groups share is drawn given that.
    tails
        ``tails(h, data)``: two probabilities [sample, group, ...], that a group's own estimate is at most what was
        seen, and at least that; its parameter integrated out. Of several coefficients each given those before it; where
        groups depend on one another, given the others.
    deviations
        ``deviations(h, data)``: the `Population`, after the data, of each group's parameter less what the level above
        expects of it, where that is itself uncertain given h; draws are joint.
    leave_row_out, without_row
        ``leave_row_out(h, data, rows)``: log density of some rows, by position, given all other data [nats];
        ``without_row(data, i)``: the data without row i, fitted where importance sampling fails.
    row_tails
        ``row_tails(h, data, rows)``: two probabilities [sample, row] of some rows, that they are at most what was seen,
        and at least that, given all other data.
    without_group
        ``without_group(data, group, j)``: the data without group j.
    emptied, joined
        ``emptied(data)``: the same groups before their data, which new data of a truth come from; needed where groups
        have unknowns of their own beside the parameter, or depend on one another. In the latter case
        ``joined(seen, *further)`` is one data set of the groups of several; new groups are predicted, and truths
        simulated, by ``conditional`` of these.
    expectations
        ``expectations(h, data)``: further quantities of each group by name, whose average over
        hyperparameter draws belongs in the summary.
    nodes
        ``nodes(data, priors, rng, pilot)``: what numerical integration keeps fixed, made once a fit;
        ``pilot`` are hyperparameters of a rough fit, None before there is one.
    integration_error
        ``integration_error(h, data)`` [sample, group]: standard error of each group's integral [nats].
    log_sampled
        ``log_sampled(h, data)`` [sample]: ``log_joint`` as the form that is sampled has it [nats], where its integrals
        are coarser; draws are reweighted from it to ``log_joint``.
    log_most
        ``log_most(h, data)`` [sample]: no less than ``log_joint`` and much cheaper, where there is ``log_sampled``: the
        log likelihood, each group at the parameter that suits its data best.
    log_at_most
        ``log_at_most(h, data)`` [sample]: no more than ``log_most``, no less than ``log_joint``, and nearly as cheap:
        groups that need no simulation for their integrals have these.
    cells, cells_of_row
        ``cells(data)``: numbers held for each group and draw; more than 1 where groups have nodes.
        ``cells_of_row(data)``: for each row and draw where rows are left out; by default as many.
    step
        Of the differences that stand for derivatives of ``log_joint`` in h, in units of the posterior's spread: long
        where the error of an integral changes with h.
    further
        Levels above that of the groups.
    """

    kind: str = "drawn"
    kappa: str = "1 - E[Var(theta | y, h)] / Var(theta | h)"
    independent: bool = True
    apart: Callable = lambda data: False
    at: Callable = lambda h, data: h
    alike: bool = False
    population: Callable | None = None
    estimand: Callable | None = None
    estimand_by_group: Callable | None = None
    conditional: Callable | None = None
    log_joint: Callable | None = None
    log_left_out: Callable | None = None
    log_predictive: Callable | None = None
    log_likelihood: Callable | None = None
    expected_log_likelihood: Callable | None = None
    reliability: Callable | None = None
    replicate: Callable | None = None
    tails: Callable | None = None
    deviations: Callable | None = None
    leave_row_out: Callable | None = None
    without_row: Callable | None = None
    row_tails: Callable | None = None
    without_group: Callable = lambda data, group, j: data.isel({group: np.arange(data.sizes[group]) != j})
    emptied: Callable | None = None
    joined: Callable | None = None
    expectations: Callable | None = None
    nodes: Callable | None = None
    integration_error: Callable | None = None
    log_sampled: Callable | None = None
    log_most: Callable | None = None
    log_at_most: Callable | None = None
    cells: Callable = lambda data: 1
    cells_of_row: Callable | None = None
    step: float = STEP
    further: tuple[Level, ...] = ()

    @property
    def placed(self) -> bool:
        """Whether populations differ from group to group before the groups' data."""
        return (self.at is not GroupLevel.at or self.estimand_by_group is not None) and not self.alike

    @property
    def reports_another(self) -> bool:
        """Whether what is reported of a group is a function of its parameter, and not the parameter itself."""
        return self.estimand is not None or self.estimand_by_group is not None

    def independent_in(self, data: xr.Dataset) -> bool:
        """Whether the groups of these data are independent given h."""
        return self.independent or self.apart(data)

    def of_groups(self, h: xr.Dataset, data: xr.Dataset):
        """The population that each group of the data comes from, before its own: of the estimand."""
        return self.of_estimand(self.population(self.at(h, data)), data)

    def target(self, h: xr.Dataset, data: xr.Dataset) -> xr.DataArray:
        """Towards which each group is pulled: the mean of its population, which the data of all may have moved."""
        if self.deviations is None:
            return self.of_groups(h, data).mean
        return self.conditional(h, data).mean - self.deviations(h, data).mean

    def before(self, h: xr.Dataset, data: xr.Dataset, group: str):
        """The population of the parameters of groups that lie where those of the data do; draws are joint."""
        if not self.independent:
            return self.conditional(h, self.emptied(data))
        each = xr.ones_like(data[group], dtype=float) * xr.ones_like(next(iter(h.values())), dtype=float)
        return self.population(self.at(h, data)).over(each)

    def unseen(self, data: xr.Dataset) -> xr.Dataset:
        """What was seen before there were any data: the groups without theirs, where that makes a difference."""
        return data if self.emptied is None else self.emptied(data)

    def after(self, h: xr.Dataset, data: xr.Dataset):
        """The population of each group's estimand after the data."""
        return self.of_estimand(self.conditional(h, data), data)

    def of_estimand(self, population, data: xr.Dataset):
        """The population of the estimand of the groups of the data, from that of their parameter."""
        return population.map(self._estimand_in(data)) if self.reports_another else population

    def reported(self, theta: xr.DataArray, data: xr.Dataset) -> xr.DataArray:
        """The estimand of draws of the parameter of the groups of the data."""
        return self._estimand_in(data)(theta) if self.reports_another else theta

    def _estimand_in(self, data: xr.Dataset) -> Callable:
        return self.estimand_by_group(data) if self.estimand_by_group else self.estimand


def closed_form(
    *,
    population: Callable,
    conditional: Callable,
    log_marginal: Callable,
    log_likelihood: Callable,
    replicate: Callable | None = None,
    at: Callable = GroupLevel.at,
    **formulas,
) -> GroupLevel:
    """A conjugate family of independent groups, where Bayes' theorem keeps the kind of the population.

    Parameters
    ----------
    population
        ``population(h)``, as of `GroupLevel`.
    conditional
        ``conditional(h, data)``: the hyperparameters of the population after each group's own data.
        Yesterday's posterior is today's population: the same formulas predict and leave out.
    log_marginal
        ``log_marginal(h, data)`` [sample, group]: log likelihood of each group [nats].
    log_likelihood
        ``log_likelihood(theta, h, data)``, as of `GroupLevel`.
    replicate
        ``replicate(rng, theta, h, new)``: new observations.
    at
        As of `GroupLevel`.
    **formulas
        Further members of `GroupLevel`. All formulas take placed hyperparameters.

    Returns
    -------
    GroupLevel
        All its functions take hyperparameters as they are drawn.

    Examples
    --------
    >>> from hbm_zoo.models.vaccine_clinics import MODEL
    >>> MODEL.group_level.kind
    'in closed form'
    """

    def placed(formula: Callable) -> Callable:
        return lambda h, data, *rows: formula(at(h, data), data, *rows)

    given: dict[str, Any] = {name: placed(f) if name in OF_H_AND_DATA else f for name, f in formulas.items()}
    log_left_out = placed(log_marginal)
    return GroupLevel(
        kind="in closed form",
        independent=True,
        at=at,
        population=population,
        conditional=placed(lambda h, data: population(conditional(h, data))),
        log_joint=summed(log_left_out),
        log_left_out=log_left_out,
        log_predictive=lambda h, new, seen: log_marginal(conditional(at(h, seen), seen), new),
        log_likelihood=lambda theta, h, data: log_likelihood(theta, at(h, data), data),
        replicate=replicate and (lambda rng, theta, h, new, seen: replicate(rng, theta, at(h, new), new)),
        **given,
    )


def integrated_numerically(engine, *, replicate: Callable | None = None, **formulas) -> GroupLevel:
    """Independent groups without a closed form, whose parameter an engine integrates out: `OnALine`, `Cloud`.

    Parameters
    ----------
    engine
        Has ``at``, ``population(h)`` at placed hyperparameters and ``estimand``, and answers ``conditional``,
        ``log_left_out``, ``log_likelihood``, ``log_predictive``, ``expected_log_likelihood``,
        ``reliability`` and ``cells`` as of `GroupLevel`.
    replicate
        ``replicate(rng, theta, h, new)`` at placed hyperparameters.
    **formulas
        Further members of `GroupLevel`.
    """
    return GroupLevel(
        kind="integrated numerically",
        independent=True,
        at=engine.at,
        population=engine.population,
        estimand=engine.estimand,
        conditional=engine.conditional,
        log_joint=summed(engine.log_left_out),
        log_left_out=engine.log_left_out,
        log_predictive=engine.log_predictive,
        log_likelihood=engine.log_likelihood,
        expected_log_likelihood=engine.expected_log_likelihood,
        reliability=engine.reliability,
        replicate=replicate and (lambda rng, theta, h, new, seen: replicate(rng, theta, engine.at(h, new), new)),
        cells=engine.cells,
        **formulas,
    )


OF_H_AND_DATA = ("expected_log_likelihood", "reliability", "leave_row_out", "expectations", "tails", "row_tails")


def summed(log_marginal: Callable) -> Callable:
    """The joint log likelihood of independent groups; a group that has none makes it undefined."""

    def log_joint(h: xr.Dataset, data: xr.Dataset) -> xr.DataArray:
        each = log_marginal(h, data)
        return each.sum([dim for dim in each.dims if dim not in h.dims], skipna=False)

    return log_joint
