"""The one record that a model module fills in, and the one entrance that builds it."""

from __future__ import annotations

import inspect
import warnings
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from functools import cache
from importlib import import_module
from typing import Any

import numpy as np
import pandas as pd
import pymc as pm
import xarray as xr
from pymc_extras.prior import Prior

from hbm_zoo.fields import Extras, Parameter, Shipped
from hbm_zoo.frames import inputs, rules
from hbm_zoo.frames.moderators import OPTION, SLOPE, Moderator, again, of_frame
from hbm_zoo.group_level.level import MISSING, GroupLevel
from hbm_zoo.priors import check_name, check_prior, given_as
from hbm_zoo.words import choose, plural

POOLINGS = ("none", "complete", "partial")
#: Of prepared data: the columns of the key that the frame has, where it need not have all.
KEY = "key"


@dataclass(frozen=True)
class Written:
    """What a model pools, recorded when it is written."""

    record: HierarchicalModel
    pooling: str
    parameterization: str
    data: xr.Dataset


class _Seen:
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
        The dim of the groups, the parameter each group has, the symbol of the data; the parameter in
        words, with its unit.
    key
        The columns that together label a group; by default the one with the name of the group.
    response
        The column of the frame that holds the data, what `predict` predicts.
    measured
        ``measured(frame)``: which rows have a response; the others say what was done to a group, such as a dose.
    location, heterogeneity
        The hyperparameters that say where the population sits and how wide it is.
    reference
        The value of the estimand that means "no effect"; None if none does.
    columns
        The frame's columns, by name, each with its rule (`hbm_zoo.frames.rules`).
    inputs
        What the model takes beside the frame: by name, the columns of a second frame, each with its
        rule, or `hbm_zoo.frames.inputs.SIMULATOR`. One that ``prepare`` has a default for may be left out.
    fewest_groups
        How many groups a data set must have: two, or one where a single experiment is a case; it
        has no pooling but its own.
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
        single row, too: what a whole data set must have ``extras.check`` asks. If no
        group can be left out as if it were new, its attrs say why under ``circular``.
    own, volume
        ``own(data)``: the raw estimate of each group; ``volume(data)``: how much data it has, the
        array's name saying of what.
    variants
        Pooling, then parameterization, then the function that writes the model; the
        form on the page comes first.
    fixed
        Pooling, then ``fixed[pooling](priors, data)``: what that pooling fixes of the
        population. No pooling fixes all of it in advance, complete pooling sets the
        heterogeneity to 0, partial pooling fixes at most what an option settles.
    group_level
        What is known of a group given the hyperparameters.
    alternatives
        Options that change the model: option, then value, then ``change(record)``, the record that
        holds for it. The first value is this record, and changes nothing; `inputs.Freely` where they cannot be listed.
    simulate, datasets
        A frame like the real one with its truth; shipped data by name.
    extras
        What a model may have and need not.
    changed, base
        The alternatives that hold in this record and not in the one that it was changed from.
    """

    name: str
    question: str
    group: str
    estimand: str
    observed: str
    location: str
    heterogeneity: str
    reference: float | None
    columns: Mapping[str, rules.Rule]
    parameters: Mapping[str, Parameter]
    default_priors: Callable[[xr.Dataset], dict[str, Prior]]
    matched_prior: Callable[[Mapping[str, Prior]], Prior | dict[str, Prior]]
    prepare: Callable[..., xr.Dataset]
    own: Callable[[xr.Dataset], xr.DataArray]
    volume: Callable[[xr.Dataset], xr.DataArray]
    variants: Mapping[str, Mapping[str, Callable]]
    fixed: Mapping[str, Callable[[Mapping[str, Prior], xr.Dataset], dict[str, float]]]
    simulate: Callable
    datasets: Mapping[str, Shipped]
    group_level: GroupLevel = GroupLevel()
    key: tuple[str, ...] = ()
    inputs: Mapping[str, inputs.Input] = field(default_factory=dict)
    fewest_groups: int = 2
    estimand_label: str = ""
    response: str = ""
    measured: Callable[[pd.DataFrame], pd.Series] = lambda frame: pd.Series(True, index=frame.index)
    alternatives: Mapping[str, Mapping[Any, Callable[[HierarchicalModel], HierarchicalModel]]] = field(
        default_factory=dict
    )
    extras: Extras = Extras()
    changed: Mapping[str, Any] = field(default_factory=dict)
    base: HierarchicalModel | None = None

    @property
    def options(self) -> list[str]:
        """What the model takes beside the frame: what changes it, further inputs, what ``prepare`` asks for."""
        return [*self.changing, *self.options_of_data]

    @property
    def changing(self) -> list[str]:
        """The options that change the record: alternatives, and moderators where it takes them."""
        return [*self.alternatives, *([OPTION] if self.extras.moderated else [])]

    @property
    def moderators(self) -> tuple[Moderator, ...]:
        """The columns by which groups differ beforehand in this record."""
        return self.changed.get(OPTION, ())

    @property
    def options_of_data(self) -> list[str]:
        """What ``prepare`` takes beside the frame."""
        return [name for name in self._asked if name != "frame"]

    @property
    def may_lack(self) -> set[str]:
        """The further inputs that ``prepare`` can do without."""
        return {name for name in self.inputs if self._asked[name].default is not inspect.Parameter.empty}

    @property
    def _asked(self) -> Mapping[str, inspect.Parameter]:
        """The arguments of ``prepare``."""
        return inspect.signature(self.prepare).parameters

    def under(self, moderators: Iterable = (), **options: str | bool) -> HierarchicalModel:
        """The record that holds for some options; no formula asks which.

        Moderators are as the options of a fit have them, a column each with what it was centred at.

        Raises
        ------
        ValueError
            If an option does not exist, or has no such value; the nearest is given.

        Examples
        --------
        >>> from hbm_zoo.models.spike_slab_genes import MODEL
        >>> [record.fixed["partial"]({}, None) for record in (MODEL, MODEL.under(null="empirical"))]
        [{'mu': 0.0, 'delta0': 0.0, 'sigma0': 1.0}, {'mu': 0.0}]
        """
        chosen = self.chosen
        for name, value in options.items():
            known = self.alternatives[choose(name, self.alternatives, f"option of {self.name}")]
            chosen[name] = inputs.value_of(name, known, value)
        if placing := again(moderators):
            chosen[OPTION] = placing  # the last, so that it changes what the others have made
        return self if chosen == self.chosen else _under(self.base or self, tuple(chosen.items()))

    def with_alternatives(self, options: Mapping[str, Any]) -> HierarchicalModel:
        """The record under those of some options that are its alternatives: its data may take further ones."""
        return self.under(**{name: value for name, value in options.items() if name in self.alternatives})

    @property
    def chosen(self) -> dict[str, Any]:
        """The options that hold in this record, of those that change it."""
        return {name: next(iter(values)) for name, values in self.alternatives.items()} | dict(self.changed)

    def split(
        self, options: Mapping[str, Any], frame: pd.DataFrame | None = None
    ) -> tuple[HierarchicalModel, dict[str, Any]]:
        """The record under the options that change it, and the options that are left for its data.

        ``moderators`` are columns of ``frame``.

        Raises
        ------
        FrameError, ValueError
            If an option does not exist, the nearest is given; or a column is no moderator.
        """
        for name in options:
            choose(name, self.with_alternatives(options).options, f"option of {self.name}")
        changing = {name: value for name, value in options.items() if name in self.changing}
        if OPTION in changing:
            changing[OPTION] = self._of_frame(frame, changing[OPTION])
        return self.under(**changing), {name: value for name, value in options.items() if name not in changing}

    def _of_frame(self, frame: pd.DataFrame | None, given: Any) -> tuple[Moderator, ...]:
        """The moderators that columns of a frame are, of each coefficient if there are several."""
        rules.check(frame, {name: self.columns[name] for name in self.key_columns}, self.name, self.key)
        coefficients = self.extras.moderated.coefficients
        if coefficients and not isinstance(given, Mapping):
            example = f"{{{next(reversed(coefficients))!r}: ['latitude']}}"
            raise ValueError(f"{OPTION} of {self.name} are of {' or '.join(coefficients)}, {example}, got {given!r}.")
        found: tuple[Moderator, ...] = ()
        for of, columns in given.items() if coefficients else [("", given)]:
            choose(of, coefficients or [""], f"coefficient of {self.name}")
            self._check_moderators(columns)
            groups = self.labels(frame)
            found += of_frame(frame, columns, groups, self.group, self.name, of) if columns else ()
        return found

    def _check_moderators(self, columns: Any) -> None:
        """Refuse what is no list of columns that could say in what groups differ."""
        if not isinstance(columns, list | tuple) or not all(isinstance(name, str) for name in columns):
            raise ValueError(f"{OPTION} expected a list of columns, such as ['latitude'], got {columns!r}.")
        taken = [self.response, *self.key_columns]
        for name in columns:
            if name in taken or list(columns).count(name) > 1:
                why = f"is what {self.name} models" if name in taken else "is there twice"
                raise ValueError(f"{OPTION} expected columns by which {plural(self.group)} differ: {name!r} {why}.")

    def labels(self, frame: pd.DataFrame) -> pd.Series:
        """The label of each row's group: a column, or several joined by a slash."""
        return rules.key(frame, self.key_columns, self.name)

    @property
    def key_columns(self) -> tuple[str, ...]:
        """The columns that together label a group."""
        return self.key or (self.group,)

    def data(self, frame: pd.DataFrame, **options) -> xr.Dataset:
        """Check a frame, and what comes with it, and prepare them.

        Raises
        ------
        FrameError, ValueError
            If the frame is not what the model expects: which column, which rows; or an
            option does not exist.

        Warns
        -----
        FrameWarning
            If the model has something to say of the data.
        """
        data = self.prepared(frame, **options)
        if (groups := data.sizes[self.group]) < self.fewest_groups:
            expected = f"at least {self.fewest_groups} {plural(self.group, self.fewest_groups)}"
            raise rules.FrameError(f"{self.name} expected {expected} to compare, got {groups}.")
        twice = (f"{self.name}: {sentence}" for sentence in rules.given_twice(frame, self.columns))
        for sentence in [*twice, *self.extras.check(data)]:
            warnings.warn(sentence, rules.FrameWarning, stacklevel=4)
        return data

    def prepared(self, frame: pd.DataFrame, **options) -> xr.Dataset:
        """The same of rows that need not be a whole data set; further inputs are kept beside the data."""
        for name in options:
            choose(name, self.options_of_data, f"option of the data of {self.name}")
        wanted = {name: kind for name, kind in self.inputs.items() if name in options or name not in self.may_lack}
        given = {name: inputs.given(self.name, name, kind, options) for name, kind in wanted.items()}
        columns = {**self.columns, **self.extras.further_columns(options)}
        readers = [reader.__name__ for reader in self.extras.readers.values()]
        data = self.prepare(rules.check(frame, columns, self.name, self.key, readers), **options | given)
        if any(self.columns[name].optional for name in self.key):
            data.attrs[KEY] = rules.BETWEEN.join(name for name in self.key if name in frame.columns)
        return inputs.stored(data, given)

    def matched(self, priors: Mapping[str, Prior]) -> dict[str, Prior]:
        """The prior of one group by name: the estimand's, or one for each of its coefficients."""
        matched = self.matched_prior(priors)
        return {self.estimand: matched} if isinstance(matched, Prior) else matched

    def priors(
        self, data: xr.Dataset, given: Mapping[str, Prior | str] | None = None, pooling: str = "none"
    ) -> dict[str, Prior]:
        """Every prior of the model under a pooling, the caller's in place of the defaults.

        Under no pooling the prior of one group is among them.

        Raises
        ------
        ValueError
            If they are no mapping, a name is unknown, a value is not a Prior, or a prior is not a proper
            distribution on the support of its parameter.
        """
        if given is not None and not isinstance(given, Mapping):
            raise ValueError(f"priors must be a mapping from a name to its Prior, got {type(given).__name__}.")
        defaults = self.default_priors(data)
        if pooling != "none" and not given:
            return dict(defaults)
        of_group = self.matched(defaults)
        given = {name: given_as(name, prior) for name, prior in (given or {}).items()}
        for name, prior in given.items():
            check_name(name, [*self.parameters, *of_group], self.name, self._option_with(name))
            known = {**self.parameters, **self.extras.nuisances}.get(name)
            check_prior(name, prior, known.support if known else None)
            if name in self.extras.nuisances and getattr(prior, "distribution", "") == "Uniform":
                raise ValueError(f"{name!r} is integrated on points, which want a prior without edges; got {prior}.")
            if name in self.extras.absent(data):
                raise ValueError(f"The prior of {name!r}: these data have nothing that it is of.")
        resolved = defaults | given
        if pooling != "none":
            return {name: resolved[name] for name in defaults}
        return resolved if set(of_group) <= set(resolved) else self.matched(resolved) | resolved

    def _option_with(self, parameter: str) -> str:
        """The option under which the model has a hyperparameter of this name, as a caller gives it; else nothing."""
        options = [(name, value) for name, values in self.alternatives.items() for value in values]
        having = (f"{n}={v!r}" for n, v in options if parameter in (self.base or self).under(**{n: v}).parameters)
        of_moderators = self.extras.moderated and str(parameter).startswith(SLOPE)
        return f"{OPTION}=[...] that lists such a column" if of_moderators else next(having, "")

    def build(
        self,
        frame: pd.DataFrame,
        pooling: str = "partial",
        parameterization: str | None = None,
        priors: Mapping[str, Prior | str] | None = None,
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
        priors : mapping of str to Prior or str, optional
            Replacements by name of the default priors, as `fit` takes them.
        **options
            What this model takes beside the frame.

        Raises
        ------
        FrameError, ValueError
            If the frame, a name or a prior is not what the model expects.
        """
        record, options = self.split(options, frame)
        pooling = choose(pooling, record.variants, "pooling")
        variants = record.variants[pooling]
        if parameterization is None:
            parameterization = next(iter(variants))
        choose(parameterization, variants, f"parameterization of {pooling} pooling")
        data = record.data(frame, **options)
        record.check_shareable(data, pooling)
        resolved = record.priors(data, priors, pooling)
        if parameterization == "marginalized" and (nodes := record.group_level.nodes):
            data = data.merge(nodes(data, resolved, np.random.default_rng(0), None))
        return record.write(data, pooling, parameterization, resolved)

    def check_shareable(self, data: xr.Dataset, pooling: str) -> None:
        """Refuse to share among groups where there is one.

        Raises
        ------
        ValueError
            If the pooling needs several groups and the data have one.
        """
        if pooling != "none" and data.sizes[self.group] < 2:
            raise ValueError(f"One {self.group} has nothing to share with others: only no pooling can be fitted.")

    def ask(self, purpose: str, *what: str) -> GroupLevel:
        """The group level, for a purpose that cannot do without some of its members.

        Raises
        ------
        ValueError
            If one is missing: which.
        """
        for name in what:
            if getattr(self.group_level, name) is None:
                missing = MISSING[name].format(group=self.group)
                raise ValueError(f"{purpose} needs {missing}, and {self.name} does not give it.")
        return self.group_level

    def write(
        self,
        data: xr.Dataset,
        pooling: str,
        parameterization: str,
        priors: Mapping[str, Prior],
        written: Mapping[str, Prior] | None = None,
    ) -> pm.Model:
        """Write a variant on prepared data and resolved priors; what a pooling fixes is a constant.

        ``written`` are the same priors as the model is to hold them: their numbers in shared variables, say.
        """
        seen = self.extras.derived(data)
        with pm.Model(coords={dim: seen[dim].values for dim in seen.dims}) as model:

            def prior(name: str, dims: str | None = None):
                if name in self.parameters and name in (fixed := self.fixed[pooling](priors, data)):
                    return fixed[name]
                given = (written or priors)[name].deepcopy()
                given.dims = dims
                return given.create_variable(name)

            self.variants[pooling][parameterization](_Seen(seen), prior)
        model.written = Written(self, pooling, parameterization, data)
        return model


@cache
def _under(record: HierarchicalModel, chosen: tuple[tuple[str, Any], ...]) -> HierarchicalModel:
    """One record for one choice, so that what was compiled for it is found again."""
    changes = {name: value for name, value in chosen if value != record.chosen.get(name)}
    changed = record
    for name, value in changes.items():
        change = changed.extras.moderated if name == OPTION else None
        changed = change(changed, value) if change else record.alternatives[name][value](changed)
    return replace(changed, changed=changes, base=record) if changes else record


def verbs_of(model: str, *names: str) -> Callable[[str], Any]:
    """What a page puts at its end as ``__getattr__``: verbs of this model alone, which take fits and load late."""

    def __getattr__(name: str) -> Any:
        if name in names:
            return getattr(import_module(f"hbm_zoo.diagnostics.{model}"), name)
        raise AttributeError(f"module 'hbm_zoo.models.{model}' has no attribute {name!r}")

    __getattr__.names = names  # type: ignore[attr-defined]
    return __getattr__
