r"""Predictors of groups: a population whose location moves with what is known of a group beforehand.

    mu_j = mu + x_j beta,        mu exp(x_j beta) of rates, expit(logit mu + x_j beta) of shares

with x_j centred over groups, so that mu is the location of groups as they are on average. No pooling knows no x;
complete pooling is mu_j with no spread around it; partial pooling adds the spread. A slope of a number is N(0, s^2)
per sd of its column, a level against its reference N(0, (2 s)^2), as much as in an even split, whose sd is 1/2
(Gelman 2008, Stat Med 27:2865-2873).
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import wraps
from operator import add
from typing import Any

from pymc_extras.prior import Prior

from hbm_zoo.fields import Parameter
from hbm_zoo.frames import moderators as frames
from hbm_zoo.frames.moderators import DESIGN, DIM, Moderator, slopes
from hbm_zoo.group_level.level import GroupLevel
from hbm_zoo.group_level.located import located
from hbm_zoo.model import HierarchicalModel
from hbm_zoo.words import listed


@dataclass(frozen=True, kw_only=True)
class Moderated:
    """How predictors move the location of a model's population: ``extras.moderated`` of its record.

    Where groups have several coefficients, each by its name, what is given here of the one is a mapping.

    Attributes
    ----------
    scale
        ``scale(data)``: prior sd of the slope per sd of a column [unit of x beta].
    unexplained
        ``unexplained(h)``: variance of groups around their location on the scale of x beta, at placed hyperparameters.
    moved
        ``moved(location, by)``: the location, moved by x beta; of arrays and of PyTensor's variables.
    of
        What x beta is added to, in words.
    written
        ``written(record)``: the record in forms that take a location a group, where its own take one for all.
    coefficients
        By the name of each coefficient its location and its heterogeneity; empty where groups have one parameter.
    """

    scale: Callable
    unexplained: Callable
    moved: Callable = add
    of: Any = ""
    written: Callable[[HierarchicalModel], HierarchicalModel] = lambda record: record
    coefficients: Mapping[str, tuple[str, str]] = field(default_factory=dict)

    def __call__(self, record: HierarchicalModel, moderators: tuple[Moderator, ...]) -> HierarchicalModel:
        """The record whose groups differ by moderators."""
        record, names, moving = self.written(record), slopes(moderators), self.moving(record, moderators)

        def x_beta(location: str, slope: Callable, column: Callable) -> Any:
            return sum(slope(name) * column(list(names).index(name)) for name in moving[location])

        def at(h, data):
            def by(location):
                return x_beta(location, lambda n: h[n], lambda k: data[DESIGN].isel({DIM: k}, drop=True))

            return h.assign(**{location: self.moved(h[location], by(location)) for location in moving})

        def written(variant: Callable) -> Callable:
            @wraps(variant)
            def moved(data, prior):
                def placed(name, dims=None):
                    value = prior(name, dims)
                    if name not in moving:
                        return value
                    return self.moved(value, x_beta(name, prior, lambda k: data.moderators[:, k]))

                variant(data, placed)

            return moved

        def alone(priors, data):
            return record.fixed["none"](priors, data) | dict.fromkeys(names, 0.0)

        return replace(
            record,
            columns={**record.columns, **{m.column: m.rule for m in moderators if m.column not in record.columns}},
            parameters=self._parameters(record, moderators),
            default_priors=self._default_priors(record, moderators),
            prepare=_prepare(record, moderators),
            variants={p: {n: written(v) for n, v in forms.items()} for p, forms in record.variants.items()},
            fixed={**record.fixed, "none": alone},
            group_level=_placed(record, at),
            extras=replace(record.extras, check=_check(record)),
        )

    def moving(self, record: HierarchicalModel, moderators: tuple[Moderator, ...]) -> dict[str, list[str]]:
        """The slopes that move each location, of those that are moved."""
        found: dict[str, list[str]] = {}
        for each in moderators:
            location, _ = self.coefficients.get(each.of, (record.location, ""))
            found.setdefault(location, []).extend(slopes([each]))
        return found

    def part(self, given: Any, of: str) -> Any:
        """What is given of a coefficient, or of the one parameter."""
        return given[of] if self.coefficients else given

    def _parameters(self, record: HierarchicalModel, moderators: tuple[Moderator, ...]) -> Mapping[str, Parameter]:
        """The location, said to be of groups as they are on average; the slopes, each in its own unit."""
        found = dict(record.parameters)
        for location, names in self.moving(record, moderators).items():
            average = listed(_average(each) for each in moderators if set(slopes([each])) <= set(names))
            found[location] = replace(found[location], meaning=f"{found[location].meaning}; at {average}")
        for each in moderators:
            of, levels = self.part(self.of, each.of), each.levels or [""]
            for name, level in zip(slopes([each]), levels[1:] or [""], strict=True):
                meaning = f"{of} of {each.column} {level!r} less that of {levels[0]!r}" if level else ""
                found[name] = Parameter(meaning or f"change of {of} with one unit of {each.column}")
        return found

    def _default_priors(self, record: HierarchicalModel, moderators: tuple[Moderator, ...]) -> Callable:
        """Of a slope per unit of a number: s over the column's sd; of a level: 2 s."""
        own = {name: each for each in moderators for name in slopes([each])}

        def default_priors(data):
            s, sd = self.scale(data), data[DESIGN].std(record.group, ddof=1).values
            widths = [
                self.part(s, each.of) * (2.0 if each.levels else 1 / sd[k]) for k, each in enumerate(own.values())
            ]
            betas = {n: Prior("Normal", mu=0.0, sigma=float(w)) for n, w in zip(own, widths, strict=True)}
            return record.default_priors(data) | betas

        return wraps(record.default_priors)(default_priors)


def _average(moderator: Moderator) -> str:
    """Where the location is that of the hyperparameter: at the mean of a number, over all levels of a category."""
    if isinstance(moderator.centre, float):
        return f"mean {moderator.column} {moderator.centre:.4g}"
    return f"the mix of {moderator.column} of these data"


def _prepare(record: HierarchicalModel, moderators: tuple[Moderator, ...]) -> Callable:
    """The data with the design beside them."""

    @wraps(record.prepare)
    def prepare(frame, **options):
        data, labels = record.prepare(frame, **options), record.labels(frame)
        x = frames.design(frame, moderators, labels, data[record.group].values, record.group, record.name)
        return data.assign({DESIGN: x})

    return prepare


def _placed(record: HierarchicalModel, at: Callable) -> GroupLevel:
    """The group level with a location each; the design stays with the groups where a row is left out."""
    level = record.group_level

    def without_row(data, i):
        others = level.without_row(data, i)
        return others.assign({DESIGN: data[DESIGN].sel({record.group: others[record.group]})})

    return located(replace(level, without_row=level.without_row and without_row), at)


def _check(record: HierarchicalModel) -> Callable:
    """What a reader must know: which groups alone tell of some slope."""

    def check(data):
        yield from record.extras.check(data)
        if sentence := frames.told_by_one(data[DESIGN], record.group):
            yield f"{record.name}: {sentence}"

    return check
