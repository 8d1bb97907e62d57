"""Groups whose location differs before their data: the same formulas, at hyperparameters placed once."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from hbm_zoo.group_level.level import GroupLevel, summed

#: What takes hyperparameters and data, and rows in one case.
OF_H_AND_DATA = (
    "conditional",
    "log_left_out",
    "expected_log_likelihood",
    "reliability",
    "leave_row_out",
    "expectations",
    "integration_error",
    "tails",
    "row_tails",
)


def located(level: GroupLevel, at: Callable) -> GroupLevel:
    """A group level of independent groups, alike so far, each placed by ``at(h, data)`` before all else.

    Its formulas stay as they are: what they take for hyperparameters of all are those of each group.

    Examples
    --------
    >>> import xarray as xr
    >>> from hbm_zoo.models.vaccine_clinics import MODEL
    >>> h = xr.Dataset({"mu": ("sample", [0.0]), "tau": ("sample", [1.0]), "beta": ("sample", [0.1])})
    >>> data = xr.Dataset({"x": ("clinic", [-10.0, 10.0])})
    >>> clinics = located(MODEL.group_level, lambda h, data: h.assign(mu=h.mu + h.beta * data.x))
    >>> clinics.of_groups(h, data).mean.values.tolist()
    [[-1.0, 1.0]]
    """

    def placed(formula: Callable | None) -> Callable | None:
        return formula and (lambda h, data, *rows: formula(at(h, data), data, *rows))

    known: dict[str, Any] = {name: placed(getattr(level, name)) for name in OF_H_AND_DATA}
    predictive, likelihood, replicated = level.log_predictive, level.log_likelihood, level.replicate
    return replace(
        level,
        at=lambda h, data: level.at(at(h, data), data),
        alike=False,
        log_joint=summed(known["log_left_out"]),
        log_predictive=lambda h, new, seen: predictive(at(h, seen), new, seen),
        log_likelihood=lambda theta, h, data: likelihood(theta, at(h, data), data),
        replicate=lambda rng, theta, h, new, seen: replicated(rng, theta, at(h, new), new, seen),
        **known,
    )
