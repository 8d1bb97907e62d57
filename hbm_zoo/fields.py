"""What a record is filled in with: hyperparameters, shipped data, and what a model may have and need not."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import xarray as xr
from pymc_extras.prior import Prior

from hbm_zoo.frames import rules
from hbm_zoo.group_level.checks import Check
from hbm_zoo.group_level.curves import Curve


@dataclass(frozen=True)
class Parameter:
    """A hyperparameter on the page: what it means, and where it may lie.

    Attributes
    ----------
    meaning, support
        In words, with its unit; its two ends.
    edges
        Ends at which a likelihood may be largest, each with what else is settled there. The end
        where complete pooling has a spread need not be named.

    Raises
    ------
    ValueError
        If the support is neither the whole line, nor above an end, nor between two.
    """

    meaning: str
    support: tuple[float, float] = (-np.inf, np.inf)
    edges: tuple[Mapping[str, float], ...] = ()

    def __post_init__(self):
        low, high = self.support
        if not low < high or (low == -np.inf and high < np.inf):
            raise ValueError(f"A support is (-inf, inf), (low, inf) or (low, high), got {self.support}.")


@dataclass(frozen=True, kw_only=True)
class Shipped:
    """A shipped data set as a model takes it.

    Attributes
    ----------
    file
        Its file in ``data/``, without its ending; by default the name of the data set.
    columns
        The model's names of columns, and the file's where they differ.
    options
        The options of the model to show it by.
    where
        The model's name of a column, and the value it has in the rows to take of a file that holds several data sets.
    reader, given
        The reader of the model that makes its columns of the file's, if it needs one, and the options it is given.
    """

    file: str = ""
    columns: Mapping[str, str] = field(default_factory=dict)
    options: Mapping[str, Any] = field(default_factory=dict)
    where: Mapping[str, str] = field(default_factory=dict)
    reader: str = ""
    given: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Extras:
    """What a model may have and need not.

    Attributes
    ----------
    derived
        ``derived(data)``: the data with what no parameter changes added, for forms that need it.
    contradiction
        ``contradiction(data, priors)``: one sentence if the data rule the priors out.
    thin
        ``thin(rng, data)``: two independent halves of the data, for models that see each group once.
    path
        ``path(t, means)``: the hyperparameters that a heterogeneity of t fixes, where the
        heterogeneity is a matrix and t moves along one path through it, t = 1 at the posterior
        ``means``.
    control_limits
        ``control_limits(target, volume, probability)``: the two ends between which chance
        alone puts a group's own estimate, were all groups at the target.
    absent
        ``absent(data)``: the hyperparameters of what a data set has not, a third trait say; every pooling fixes them,
        and no table shows them.
    left_out
        What a group left out stands for, in words.
    readers
        Functions that read other files, by name.
    simulated
        The options by which a frame of ``simulate`` is fitted, as `Shipped` has them of a data set.
    check
        ``check(data)``: refuses a whole data set that lacks what the model needs, and gives a sentence for each thing
        that a reader of the results must know; it is asked once a fit, whatever the priors.
    curve
        The `Curve` of each group through its rows, for the pictures in the space of the data.
    checks
        What `check_model` asks of this model, by name, beside what it asks of all (`checks.OF_ALL`), or in place of it.
    with_response
        ``with_response(data, response)``: the same data with another response [row], as ``prepare`` makes them.
    further_columns
        ``further_columns(options)``: columns that the options of the data name, such as fixed effects, each with its
        rule.
    nuisances
        What each group has beside its parameter, the same under every pooling, integrated out: each a `Parameter`.
    moderated
        ``moderated(record, moderators)``: the record whose groups differ beforehand by columns of the frame that say in
        what; ``moderated.unexplained(h)`` is the variance that is left on the scale of their slopes.
    """

    derived: Callable[[xr.Dataset], xr.Dataset] = lambda data: data
    contradiction: Callable[[xr.Dataset, Mapping[str, Prior]], str | None] | None = None
    thin: Callable | None = None
    path: Callable[[float, Mapping[str, float]], dict[str, float]] | None = None
    control_limits: Callable | None = None
    absent: Callable[[xr.Dataset], Collection[str]] = lambda data: ()
    left_out: str = "{a_group} not seen before"
    readers: Mapping[str, Callable] = field(default_factory=dict)
    simulated: Mapping[str, Any] = field(default_factory=dict)
    check: Callable[[xr.Dataset], Iterable[str]] = lambda data: ()
    curve: Curve | None = None
    checks: Mapping[str, Check] = field(default_factory=dict)
    with_response: Callable[[xr.Dataset, np.ndarray], xr.Dataset] | None = None
    further_columns: Callable[[Mapping[str, Any]], Mapping[str, rules.Rule]] = lambda options: {}
    nuisances: Mapping[str, Parameter] = field(default_factory=dict)
    moderated: Any = None
