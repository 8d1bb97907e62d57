"""What does a model pool, over what, through what, and how is it written?"""

from __future__ import annotations

from collections.abc import Iterable

import pymc as pm
import xarray as xr
from pytensor.graph.basic import Variable
from pytensor.graph.traversal import ancestors

from hbm_zoo.model import Written
from hbm_zoo.words import listed


def describe_pooling(model: pm.Model) -> str:
    """Say in words how a model pools its groups.

    What is visible is read from the graph of the model; what is integrated out, or the same for
    all groups, was recorded by ``build`` when it wrote the model, and so was the name of its form.

    Parameters
    ----------
    model : pymc.Model
        As ``build`` returns it, or a model of your own whose groups have a named dim.

    Returns
    -------
    str
        A sentence for each variable of the groups: the dim it is pooled over, the
        hyperparameters it is pooled through, and its parameterization under partial pooling (the one
        that ``build`` recorded, else centered or noncentered), or no or complete pooling.

    Raises
    ------
    ValueError
        If it is no model, or the graph has a structure that is not known, in one sentence.

    Notes
    -----
    Centered: a variable of the groups is drawn given hyperparameters. Noncentered: it is
    computed from hyperparameters and from a variable of the groups drawn without them
    (Betancourt & Girolami 2015, section 3). Marginalized: no variable of the groups is left.

    Examples
    --------
    >>> import hbm_zoo as hz
    >>> model = hz.hospital_readmission.build(hz.load_data("three_hospitals"), parameterization="centered")
    >>> describe_pooling(model)
    'lam is pooled over hospital through mu and cv: partial pooling, centered.'
    """
    if not isinstance(model, pm.Model):
        of_fit = ": a fit holds none; give what `build` returns" if isinstance(model, xr.DataTree) else ""
        raise ValueError(f"describe_pooling expected a pymc.Model, got a {type(model).__name__}{of_fit}.")
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
    named = [*seen, *(v for v in model.deterministics if v.ndim and v in _above(observed))]
    for entering in observed.owner.inputs:
        meets = [v for v in rest if v in _free(entering, rest, named)]
        if meets and (z := [v for v in alone if v in _above(entering)]):
            raise ValueError(
                f"The structure is not known: {_names(z)} meets {_names(meets)} in the likelihood; give the sum a name "
                "by pm.Deterministic with the dims of the groups."
            )
    if not rest:
        return sentences
    written = _written(model)
    if written and written.pooling == "complete":  # and each group has something else of its own
        return [*sentences, _complete(written, rest, observed)]
    return [*sentences, _shared(rest, observed)]


def _sentence(model: pm.Model, variable: Variable, parts: list, through: list, direct: list) -> str:
    dims = _dims(model, variable)
    if not dims:
        raise ValueError(f"The structure is not known: {variable.name} is computed by group but has no dims.")
    written = _written(model)
    dim = written.record.group if written and written.record.group in dims else listed(dims)
    made = f", made of {_names(parts)}," if parts != [variable] else ""
    if not through:
        return f"{variable.name}{made} is drawn for each {dim} alone, with a prior fixed in advance: no pooling."
    form = written.parameterization if written else "noncentered" if direct else "centered"
    return f"{variable.name}{made} is pooled over {dim} through {_names(through)}: partial pooling, {form}."


def _without_groups(model: pm.Model, observed: Variable, shared: list) -> str:
    """No variable of the groups is left: they are one, or they are integrated out, as was recorded."""
    written = _written(model)
    if written is None:
        raise ValueError(
            "The structure is not known: no variable has the dim of a group and the zoo did not build it, so "
            "complete pooling cannot be told from groups that are integrated out."
        )
    estimand, group = written.record.estimand, written.record.group
    if written.pooling == "partial":
        return (
            f"{estimand} is integrated out of the likelihood of {observed.name}, which depends on {_names(shared)}: "
            f"partial pooling over {group}, {written.parameterization}."
        )
    if written.pooling == "none":
        alone = f"{estimand}, with a prior fixed in advance for each {group} alone, is integrated out of the likelihood"
        return f"{alone}: no pooling, {written.parameterization}. {_shared(shared, observed)}"
    return _complete(written, shared, observed)


def _complete(written: Written, shared: list, observed: Variable) -> str:
    """What the groups have in common, and what else is shared."""
    place = [v for v in shared if _names([v]) in _makers(written)]
    rest = [v for v in shared if v not in place]
    verb = "is" if len(place) == 1 else "are"
    complete = f"{_names(place)} {verb} the same for every {written.record.group}: complete pooling."
    return f"{complete} {_shared(rest, observed)}" if rest else complete


class _Noting:
    """Hyperparameters that note which of them are read."""

    def __init__(self, h: xr.Dataset, read: set[str] | None = None):
        self.h, self.read = h, set() if read is None else read

    def __getattr__(self, name: str):
        if name in self.h:
            self.read.add(name)
        return getattr(self.h, name)

    def __getitem__(self, name: str) -> xr.DataArray:
        return getattr(self, name)

    def assign(self, **placed) -> _Noting:
        return _Noting(self.h.assign(**placed), self.read)


def _makers(written: Written) -> set[str]:
    """The hyperparameters that the population of a group is made of, where they place it included."""
    record = written.record
    noting = _Noting(xr.Dataset(dict.fromkeys(record.parameters, 0.5)))
    record.group_level.of_groups(noting, written.data)  # type: ignore[arg-type]
    return noting.read


def _named_nearest(computed: list, by_group: list, observed: Variable) -> list:
    """The named variables of the groups that the likelihood meets first."""
    named = [*computed, *by_group]
    return [
        v
        for v in named
        if v in set(ancestors([observed], blockers=[n for n in named if n is not v and n is not observed]))
    ]


def _written(model: pm.Model) -> Written | None:
    """What was recorded when the zoo wrote the model, if it did."""
    return getattr(model, "written", None)


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
