"""What does a model pool, over what, through what, and how is it written? Read from its graph."""

from __future__ import annotations

from collections.abc import Iterable

import pymc as pm
from pymc.distributions.custom import CustomDistRV
from pytensor.graph.basic import Variable
from pytensor.graph.traversal import ancestors

from hbm_zoo.inference.fits import zoo_records
from hbm_zoo.model import HierarchicalModel


def describe_pooling(model: pm.Model) -> str:
    """Say in words how a model pools its groups, from its graph alone.

    Parameters
    ----------
    model : pymc.Model
        As ``build`` returns it, or a model of your own whose groups have a named dim.

    Returns
    -------
    str
        A sentence for each variable of the groups: the dim it is pooled over, the
        hyperparameters it is pooled through, and its parameterization (centered,
        noncentered, marginalized) under partial pooling, or no or complete pooling.

    Raises
    ------
    ValueError
        If the graph has a structure that is not known, in one sentence.

    Notes
    -----
    Centered: a variable of the groups is drawn given hyperparameters. Noncentered: it is
    computed from hyperparameters and from a variable of the groups drawn without them.
    Marginalized: no variable of the groups is left, but a density of the zoo's own depends on the
    width of the population (Betancourt & Girolami 2015, section 3, for the first two).

    Examples
    --------
    >>> import hbm_zoo as hz
    >>> model = hz.hospital_readmission.build(hz.load_data("three_hospitals"), parameterization="centered")
    >>> describe_pooling(model)
    'lam is pooled over hospital through mu and cv: partial pooling, centered.'
    """
    if model.potentials:
        raise ValueError(
            f"The structure is not known: {_names(model.potentials)} adds to the density outside any variable."
        )
    if len(model.observed_RVs) != 1:
        observed = _names(model.observed_RVs) or "none"
        raise ValueError(f"The structure is not known: expected one observed variable, got {observed}.")
    (observed,) = model.observed_RVs
    drawn = [v for v in model.free_RVs if v in _above(observed)]
    by_group = [v for v in drawn if v.ndim > 0]
    shared = [v for v in drawn if v.ndim == 0]
    for variable in by_group:
        if not _dims(model, variable):
            raise ValueError(f"The structure is not known: {variable.name} has {variable.ndim} axes without dims.")
        if others := [v for v in by_group if v is not variable and v in _above(variable)]:
            raise ValueError(
                f"The structure is not known: {variable.name} is drawn given {_names(others)}, by group too."
            )
    if not by_group:
        return _without_groups(model, observed, shared)
    return " ".join(_sentences(model, observed, by_group, shared))


def _sentences(model: pm.Model, observed: Variable, by_group: list, shared: list) -> list[str]:
    """A sentence for each variable of the groups that the likelihood sees, one for what all share."""
    computed = [v for v in model.deterministics if v in _above(observed) and set(by_group) & _above(v)]
    seen = _named_nearest(computed, by_group, observed)
    sentences, used = [], set()
    for variable in seen:
        parts = [v for v in by_group if v in _above(variable)] if variable in computed else [variable]
        direct = _free(variable, shared, parts) if variable in computed else []
        through = [v for v in shared if v in direct or any(v in _above(part) for part in parts)]
        used |= set(through)
        sentences.append(_sentence(model, variable, parts, through, direct))
    rest = [v for v in shared if v not in used]
    alone = [v for v in seen if v in by_group and not any(h in _above(v) for h in shared)]
    for entering in observed.owner.inputs:
        meets = [v for v in rest if v in _free(entering, rest, seen)]
        if meets and (z := [v for v in alone if v in _above(entering)]):
            raise ValueError(
                f"The structure is not known: {_names(z)} meets {_names(meets)} in the likelihood; give the sum a name "
                "by pm.Deterministic with the dims of the groups."
            )
    return [*sentences, _shared(rest, observed)] if rest else sentences


def _sentence(model: pm.Model, variable: Variable, parts: list, through: list, direct: list) -> str:
    dims = _dims(model, variable)
    if not dims:
        raise ValueError(f"The structure is not known: {variable.name} is computed by group but has no dims.")
    record = _record(model)
    dim = record.group if record and record.group in dims else dims[0]
    made = f", made of {_names(parts)}," if parts != [variable] else ""
    if not through:
        return f"{variable.name}{made} is drawn for each {dim} alone, with a prior fixed in advance: no pooling."
    form = "noncentered" if direct else "centered"
    return f"{variable.name}{made} is pooled over {dim} through {_names(through)}: partial pooling, {form}."


def _without_groups(model: pm.Model, observed: Variable, shared: list) -> str:
    """No variable of the groups is left: they are one, or they are integrated out."""
    record = _record(model)
    names = {_names([v]) for v in shared}
    if record is None or observed.name != record.observed or not names <= set(record.parameters):
        raise ValueError(
            "The structure is not known: no variable has the dim of a group, and the model is not one of the zoo's, so "
            "complete pooling cannot be told from groups that are integrated out."
        )
    estimand, group = record.estimand, record.group
    if record.heterogeneity in names:
        if not isinstance(observed.owner.op, CustomDistRV):
            raise ValueError(
                f"The structure is not known: {observed.name} depends on {record.heterogeneity}, but {estimand} is not "
                "integrated out of its density."
            )
        return (
            f"{estimand} is integrated out of the likelihood of {observed.name}, which depends on {_names(shared)}: "
            f"partial pooling over {group}, marginalized."
        )
    place = [v for v in shared if v.name.split("_")[0] == record.location.split("_")[0]]
    if not place:
        alone = f"{estimand}, with a prior fixed in advance for each {group} alone, is integrated out of the likelihood"
        return f"{alone}: no pooling, marginalized. {_shared(shared, observed)}"
    rest = [v for v in shared if v not in place]
    verb = "is" if len(place) == 1 else "are"
    complete = f"{_names(place)} {verb} the same for every {group}: complete pooling."
    return f"{complete} {_shared(rest, observed)}" if rest else complete


def _named_nearest(computed: list, by_group: list, observed: Variable) -> list:
    """The named variables of the groups that the likelihood meets first."""
    named = [*computed, *by_group]
    return [
        v
        for v in named
        if v in set(ancestors([observed], blockers=[n for n in named if n is not v and n is not observed]))
    ]


def _record(model: pm.Model) -> HierarchicalModel | None:
    """The record of the zoo whose groups and data these are."""
    data = {v.name for v in model.data_vars}
    known = (r for r in zoo_records() if r.group in model.coords and r.observed in model.named_vars and data)
    return next(known, None)


def _above(variable: Variable) -> set[Variable]:
    """Everything a variable depends on, itself included."""
    return set(ancestors([variable]))


def _free(variable: Variable, candidates: list, blockers: list) -> list:
    """The candidates that a variable depends on other than through the blockers."""
    reached = set(ancestors([variable], blockers=[b for b in blockers if b is not variable]))
    return [v for v in candidates if v in reached]


def _dims(model: pm.Model, variable: Variable) -> tuple[str, ...]:
    return tuple(dim for dim in model.named_vars_to_dims.get(variable.name, ()) if dim)


def _names(variables: Iterable[Variable]) -> str:
    """Names in a list; pymc_extras draws a transformed prior as ``<name>_raw``."""
    *first, last = [v.name.removesuffix("_raw") for v in variables] or [""]
    return f"{', '.join(first)} and {last}" if first else last


def _shared(variables: list, observed: Variable) -> str:
    verb = "is" if len(variables) == 1 else "are"
    return f"{_names(variables)} {verb} shared by all in the likelihood of {observed.name}."
