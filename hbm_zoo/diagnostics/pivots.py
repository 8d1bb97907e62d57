"""Are groups alike in the way that the model has it? Their normal scores in draws of the posterior, whose law is known.

Given h a group's parameter comes from the population, so that in truths drawn from the model the normal scores of the
groups are independent and standard normal; so they are, then, in a draw of h and all parameters from the posterior,
averaged over truths and data (Johnson 2007, Bayesian Anal 2:719-734; Yuan & Johnson 2012, Biometrics 68:156-164). No
data need be made anew, however hard the model is to fit. Draws of one posterior depend on one another: twice their
mean p value holds all the same (Rueschendorf 1982, J Appl Probab 19:623-632).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import xarray as xr
from scipy.special import ndtri

from hbm_zoo.group_level.checks import FARTHEST, Check
from hbm_zoo.inference.chunks import each_group
from hbm_zoo.inference.fits import efficiency, hyperparameters, prepared, thinned
from hbm_zoo.model import HierarchicalModel

#: Draws of the posterior at most, and sets of standard normals that they are compared with.
DRAWS, SETS = 400, 999


@dataclass(frozen=True)
class Compared:
    """A statistic that was seen, what is expected of it, what is left of it where the model is right, and p values.

    Attributes
    ----------
    p, p_mcse
        By the side, ``more`` and ``fewer``, with their Monte Carlo error.
    """

    seen: float
    expected: float
    drawn: np.ndarray
    p: dict[str, float]
    p_mcse: dict[str, float]


def scores_in_draws(record: HierarchicalModel, fit: xr.DataTree, rng: np.random.Generator) -> xr.DataArray:
    """Normal scores [sample, group, ...] of the groups' parameters in some draws of the posterior."""
    level, data = record.group_level, prepared(fit)
    h = thinned(hyperparameters(fit), DRAWS)
    theta = each_group(record, data, h.sizes["sample"], lambda part: level.conditional(h, part).sample(rng))
    scores = xr.apply_ufunc(ndtri, level.population(level.at(h, data)).cdf(theta))
    return scores.clip(-FARTHEST, FARTHEST).transpose("sample", record.group, ...)


def by_coefficient(scores: xr.DataArray, only: str) -> Iterator[tuple[str, xr.DataArray]]:
    """The scores [sample, group] of each coefficient by its name, or that of the ``only`` one."""
    if "coefficient" not in scores.dims:
        scores = scores.expand_dims(coefficient=[only])
    for name in scores["coefficient"].values:
        yield str(name), scores.sel(coefficient=name, drop=True)


def compared(check: Check, scores: np.ndarray, reff: float, rng: np.random.Generator) -> Compared:
    """A statistic of the groups' scores [draw, group] with that of as many independent standard normals."""
    drawn = np.array([check.statistic(None, None, z) for z in rng.standard_normal((SETS, scores.shape[1]))])
    seen = np.array([check.statistic(None, None, z) for z in scores])
    beyond = {"more": drawn >= seen[:, None], "fewer": drawn <= seen[:, None]}
    worth, p, error = max(1.0, reff * seen.size), {}, {}
    for side, is_beyond in beyond.items():
        p[side] = min(1.0, 2 * float((1 + is_beyond.sum() / seen.size) / (1 + SETS)))
        error[side] = 2 * float(np.sqrt(is_beyond.mean(axis=1).var() / worth + is_beyond.mean(axis=0).var() / SETS))
    return Compared(float(seen.mean()), 0.0, drawn, p, error)


def shapes(
    record: HierarchicalModel, fit: xr.DataTree, checks: dict[str, Check], seed: int
) -> Iterator[tuple[str, Check, Compared, str, object]]:
    """Of each check and coefficient: the name of its row, the check, what was compared, and the group farthest out."""
    rng = np.random.default_rng([int(fit.attrs["seed"]), seed])
    for coefficient, scores in by_coefficient(scores_in_draws(record, fit, rng), record.estimand):
        farthest = scores[record.group].values[int(abs(scores.mean("sample").values).argmax())]
        for name, check in checks.items():
            found = compared(check, scores.values, efficiency(fit), rng)
            yield f"{name} of {coefficient}", check, found, coefficient, farthest
