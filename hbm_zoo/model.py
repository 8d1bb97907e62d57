"""The one record that a model module fills in, and the one entrance that builds it."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd
import pymc as pm
import xarray as xr
from pymc_extras.prior import Prior

from hbm_zoo.frames import rules
from hbm_zoo.priors import resolve
from hbm_zoo.words import choose

POOLINGS = ("none", "complete", "partial")


@dataclass(frozen=True)
class Parameter:
    """A hyperparameter on the page: what it means, and where it may lie."""

    meaning: str
    support: tuple[float, float] = (-np.inf, np.inf)


@dataclass(frozen=True, kw_only=True)
class ClosedForm:
    """What is known of a group without sampling it, given the hyperparameters.

    Every function takes ``h``, a Dataset of hyperparameters [sample], and ``data``,
    the prepared Dataset; results broadcast over samples and groups by name.

    Attributes
    ----------
    population
        ``population(h)``: the distribution a group's parameter comes from.
    conditional
        ``conditional(h, data)``: hyperparameters of the population after the
        group's own data (Bayes' theorem; a population of the same kind).
    log_marginal
        ``log_marginal(h, data)``: log likelihood of each group, its own parameter
        integrated out [nats].
    log_likelihood
        ``log_likelihood(theta, h, data)``: log likelihood of each group at a given
        value of its parameter [nats].
    expected_log_likelihood
        ``expected_log_likelihood(h, data)``: the same, averaged over
        ``conditional`` [nats].
    reliability
        ``reliability(h, data)``: shrinkage weight kappa of the group's own data,
        1 - E[Var(theta | y, h)] / Var(theta | h).
    replicate
        ``replicate(rng, theta, h, data)``: new observations like the data's.
    leave_row_out
        ``leave_row_out(h, data)``: log density of each row given the other rows of its
        group [nats], for models with several rows a group; else None.
    without_row
        ``without_row(data, i)``: the data without row i, fitted where importance sampling fails.
    expectations
        ``expectations(h, data)``: further quantities of each group by name, whose average
        over hyperparameter draws belongs in the summary; else None.
    """

    population: Callable
    conditional: Callable
    log_marginal: Callable
    log_likelihood: Callable
    expected_log_likelihood: Callable
    reliability: Callable
    replicate: Callable
    leave_row_out: Callable | None = None
    without_row: Callable | None = None
    expectations: Callable | None = None


class _Written:
    """Prepared data as a variant sees them: a ``pm.Data`` for each variable it asks for, and the attrs."""

    def __init__(self, data: xr.Dataset):
        self._data = data

    def __getattr__(self, name: str):
        """Register a variable when it is first asked for: the model holds what it uses, and no more."""
        if name in self._data.data_vars:
            variable = self._data[name]
            value = pm.Data(name, variable.values, dims=variable.dims or None)
        else:
            value = self._data.attrs[name]
        setattr(self, name, value)
        return value


@dataclass(frozen=True, kw_only=True, eq=False)
class HierarchicalModel:
    """One model of the zoo. `CONTRIBUTING.md` gives the rationale of every field.

    Attributes
    ----------
    name, question
        The module's name, and the question it answers in one sentence.
    group, estimand, observed, estimand_label
        The dim of the groups (and the column of their labels), the parameter each group has,
        the symbol of the data; the parameter in words, with its unit.
    response
        The column of the frame that holds the data, what `predict` predicts.
    location, heterogeneity
        The hyperparameters that say where the population sits and how wide it is.
    columns
        The frame's columns, by name, each with its rule (`hbm_zoo.frames`).
    parameters
        The hyperparameters by name.
    default_priors
        ``default_priors(data)``: a prior for each hyperparameter.
    matched_prior
        ``matched_prior(priors)``: under no pooling, the prior of one group, matched in
        mean and variance to what the partial model expects of a group; a dict of named
        priors if the estimand has several coefficients.
    prepare
        ``prepare(frame)``: the only place that knows the columns; a Dataset. It takes a
        single row, too: what a whole data set must have is asked of it elsewhere. If no
        group can be left out as if it were new, its attrs say why under ``circular``.
    derived
        ``derived(data)``: the data with what no parameter changes added, for forms that need it.
    own, volume
        ``own(data)``: the raw estimate of each group; ``volume(data)``: how much data
        it has. `volume_label` names the latter.
    variants
        Pooling, then parameterization, then the function that writes the model; the
        form on the page comes first.
    fixed
        Pooling, then ``fixed[pooling](priors, data)``: what that pooling fixes of the
        population. No pooling fixes all of it in advance, complete pooling sets the
        heterogeneity to 0, partial pooling fixes at most what an option of ``prepare``
        switches off.
    closed_form
        What is known of a group without sampling; None if nothing is.
    boundaries
        Where the likelihood may be largest at the edge of the population, if not where complete
        pooling is: what is fixed there.
    kappa
        The definition of its ``reliability``, named wherever it is printed.
    reference
        The value of the estimand that means "no effect"; None if none does.
    contradiction
        ``contradiction(data, priors)``: one sentence if the data rule the priors out.
    thin
        ``thin(rng, data)``: two independent halves of the data, for models that see
        each group once.
    path
        ``path(t, means)``: the hyperparameters that a heterogeneity of t fixes, where the
        heterogeneity is a matrix and t moves along one path through it, t = 1 at the posterior
        ``means``; None if the heterogeneity is one number.
    control_limits
        ``control_limits(target, volume, probability)``: the two ends between which chance
        alone puts a group's own estimate, were all groups at the target.
    simulate, datasets, readers
        A frame like the real one with its truth; shipped data, each with the options of
        ``prepare`` to show it by; readers of other files.
    """

    name: str
    question: str
    group: str
    estimand: str
    observed: str
    location: str
    heterogeneity: str
    columns: Mapping[str, rules.Rule]
    parameters: Mapping[str, Parameter]
    default_priors: Callable[[xr.Dataset], dict[str, Prior]]
    matched_prior: Callable[[Mapping[str, Prior]], Prior | dict[str, Prior]]
    prepare: Callable[..., xr.Dataset]
    own: Callable[[xr.Dataset], xr.DataArray]
    volume: Callable[[xr.Dataset], xr.DataArray]
    volume_label: str
    variants: Mapping[str, Mapping[str, Callable]]
    fixed: Mapping[str, Callable[[Mapping[str, Prior], xr.Dataset], dict[str, float]]]
    simulate: Callable
    datasets: Mapping[str, Mapping[str, Any]]
    reference: float | None
    estimand_label: str = ""
    response: str = ""
    closed_form: ClosedForm | None = None
    kappa: str = "1 - E[Var(theta | y, h)] / Var(theta | h)"
    boundaries: tuple[Mapping[str, float], ...] = ()
    derived: Callable[[xr.Dataset], xr.Dataset] = lambda data: data
    contradiction: Callable[[xr.Dataset, Mapping[str, Prior]], str | None] | None = None
    thin: Callable | None = None
    path: Callable[[float, Mapping[str, float]], dict[str, float]] | None = None
    control_limits: Callable | None = None
    readers: Mapping[str, Callable] = field(default_factory=dict)

    @property
    def options(self) -> list[str]:
        """What ``prepare`` takes beside the frame."""
        return [name for name in inspect.signature(self.prepare).parameters if name != "frame"]

    def data(self, frame: pd.DataFrame, **options) -> xr.Dataset:
        """Check a frame and prepare it.

        Raises
        ------
        FrameError, ValueError
            If the frame is not what the model expects: which column, which rows; or an
            option does not exist.
        """
        for name in options:
            choose(name, self.options, f"option of {self.name}")
        data = self.prepare(rules.check(frame, self.columns, self.name), **options)
        if data.sizes[self.group] < 2:
            raise rules.FrameError(f"{self.name} expected at least 2 {self.group}s to compare, got 1.")
        return data

    def priors(
        self, data: xr.Dataset, given: Mapping[str, Prior] | None = None, pooling: str = "none"
    ) -> dict[str, Prior]:
        """Every prior of the model under a pooling, the caller's in place of the defaults.

        Raises
        ------
        ValueError
            If a name does not exist, or a prior is not proper where it must be.
        """
        return resolve(self, data, given or {}, pooling)

    def build(
        self,
        frame: pd.DataFrame,
        pooling: str = "partial",
        parameterization: str | None = None,
        priors: Mapping[str, Prior] | None = None,
        **options,
    ) -> pm.Model:
        """Write the model down as an ordinary ``pm.Model``.

        Parameters
        ----------
        frame : pandas.DataFrame
            The data, with the columns of the model.
        pooling : {"none", "complete", "partial"}
            Treat every group alone, lump them all, or learn how much to share.
        parameterization : str, optional
            How the group level is written. Default: the form on the page, the first listed.
        priors : mapping of str to Prior, optional
            Replacements by name of the default priors.
        **options
            What this model's ``prepare`` takes beside the frame.

        Raises
        ------
        FrameError, ValueError
            If the frame, a name or a prior is not what the model expects.
        """
        pooling = choose(pooling, self.variants, "pooling")
        variants = self.variants[pooling]
        if parameterization is None:
            parameterization = next(iter(variants))
        choose(parameterization, variants, f"parameterization of {pooling} pooling")
        data = self.data(frame, **options)
        return self.write(data, pooling, parameterization, self.priors(data, priors, pooling))

    def closed(self, purpose: str) -> ClosedForm:
        """The closed form of a group, for a purpose that cannot do without.

        Raises
        ------
        ValueError
            If the model has none.
        """
        if self.closed_form is None:
            raise ValueError(
                f"{purpose} needs what is known of a {self.group} in closed form, and {self.name} has none."
            )
        return self.closed_form

    def write(self, data: xr.Dataset, pooling: str, parameterization: str, priors: Mapping[str, Prior]) -> pm.Model:
        """Write a variant on prepared data and resolved priors; what a pooling fixes is a constant."""
        seen = self.derived(data)
        with pm.Model(coords={dim: seen[dim].values for dim in seen.dims}) as model:

            def prior(name: str, dims: str | None = None):
                if name in self.parameters and name in (fixed := self.fixed[pooling](priors, data)):
                    return fixed[name]
                given = priors[name].deepcopy()
                given.dims = dims
                return given.create_variable(name)

            self.variants[pooling][parameterization](_Written(seen), prior)
        return model
