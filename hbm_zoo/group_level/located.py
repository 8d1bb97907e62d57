"""Groups whose location differs before their data: the same formulas, at hyperparameters placed once."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from hbm_zoo.group_level.level import GroupLevel, summed


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

    left_out, predictive, likelihood, replicated = (
        getattr(level, name) for name in ("log_left_out", "log_predictive", "log_likelihood", "replicate")
    )
    log_left_out = placed(left_out)
    return replace(
        level,
        at=at,
        conditional=placed(level.conditional),
        log_joint=summed(log_left_out),
        log_left_out=log_left_out,
        log_predictive=lambda h, new, seen: predictive(at(h, seen), new, seen),
        log_likelihood=lambda theta, h, data: likelihood(theta, at(h, data), data),
        expected_log_likelihood=placed(level.expected_log_likelihood),
        reliability=placed(level.reliability),
        replicate=lambda rng, theta, h, new, seen: replicated(rng, theta, at(h, new), new, seen),
        leave_row_out=placed(level.leave_row_out),
    )
