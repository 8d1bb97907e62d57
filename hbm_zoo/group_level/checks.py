"""What may be wrong with a model that converged: statistics of data, and what it means where one is surprising.

Each takes the data and the model as it was fitted to them: ``h``, one value a hyperparameter, and the groups' normal
scores there, standard normal if the model is right (Dunn & Smyth 1996, J Comput Graph Stat 5:236-244). Which values of
a statistic are surprising is asked of data that the model made and that were fitted again: none need a known law.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import numpy as np
import xarray as xr
from scipy import special
from scipy.stats import rankdata

#: Normal scores of probabilities that differ from 0, or 1, by less than rounding.
FARTHEST = 8.2
#: Variance of scores that differ by rounding alone.
ALL_THE_SAME = 1e-20
OF_GROUPS = ("complete", "partial")
SIDES = ("more", "fewer")


@dataclass(frozen=True, kw_only=True)
class Check:
    """A statistic of a data set, and what it means where the model did not expect it.

    Attributes
    ----------
    compares
        What is compared, in words; ``{group}`` and ``{groups}`` stand for what the data's owner calls them.
    statistic
        ``statistic(h, data, scores)``: a number; scores [group, ...], NaN of what has none.
    expected
        ``expected(h, data)``: what the model at h expects of it; it is what is left of the statistic that is compared.
    more, fewer
        What is wrong where the statistic is larger, or smaller, than the model expects; None where that is no misfit.
    poolings
        Under which it is asked.
    of_data
        Whether the statistic is of the data alone: nothing need be fitted to know it.
    of_draws
        Whether it is of the normal scores of one coefficient in a draw of the posterior, h and data being None: those
        of a right model are independent and standard normal. ``{coefficient}`` and ``{farthest}``, a group, may stand
        in the words.
    alternative
        By the side, ``more`` or ``fewer``: options of the model under which it may pass, each a value, or by the value
        that the fit has the one to try.
    """

    compares: str
    statistic: Callable[[xr.Dataset, xr.Dataset, np.ndarray], float]
    expected: Callable[[xr.Dataset, xr.Dataset], float] = lambda h, data: 0.0
    more: str | None = None
    fewer: str | None = None
    poolings: tuple[str, ...] = OF_GROUPS
    of_data: bool = False
    of_draws: bool = False
    alternative: Mapping[str, Mapping[str, str | Mapping[str, str]]] = field(default_factory=dict)


def normal_scores(lower: np.ndarray, upper: np.ndarray) -> np.ndarray:
    """Normal scores of tails: of the middle of what was seen, each from the tail that keeps its digits.

    Examples
    --------
    >>> normal_scores(np.array([0.025, 1 - 1e-12]), np.array([0.975, 1e-12])).round(2).tolist()
    [-1.96, 7.03]
    """
    half = np.maximum(lower + upper - 1, 0) / 2
    below = lower < upper
    scores = special.ndtri(np.where(below, lower, upper) - half)
    return np.clip(np.where(below, scores, -scores), -FARTHEST, FARTHEST)


def spread(h, data, scores):
    """Sum of squared scores over their number."""
    return float((_known(scores) ** 2).mean())


def asymmetry(h, data, scores):
    """Third standardised moment of the scores."""
    return _standardised_moment(scores, 3, of_normal=0.0)


def tails(h, data, scores):
    """Fourth standardised moment of the scores: 3 of a normal."""
    return _standardised_moment(scores, 4, of_normal=3.0)


def normality(h, data, scores):
    """Squared correlation of the scores in order with those of a normal: W' of Shapiro & Francia (1972).

    J Am Stat Assoc 67:215-216, at Blom's places; 1 of fewer than three scores, or of scores that are all the same.
    """
    z = np.sort(_known(scores))
    if z.size < 3 or z.var() <= ALL_THE_SAME:
        return 1.0
    normal = special.ndtri((np.arange(1, z.size + 1) - 0.375) / (z.size + 0.25))
    away = z - z.mean()
    return float((away @ normal) ** 2 / ((away @ away) * (normal @ normal)))


def _standardised_moment(scores: np.ndarray, power: int, of_normal: float) -> float:
    """Of the scores about their mean, over that power of their sd; scores that are all the same say nothing of it."""
    away = _known(scores) - _known(scores).mean()
    variance = (away**2).mean()
    return float((away**power).mean() / variance ** (power / 2)) if variance > ALL_THE_SAME else of_normal


def _known(scores: np.ndarray) -> np.ndarray:
    """The scores of all that has one."""
    return scores[np.isfinite(scores)]


#: Of every model that says how probable the own estimate of a group is.
OF_ALL = {
    "spread": Check(
        compares="squares of the {groups}' normal scores, were there {one} for all",
        statistic=spread,
        more="{groups} differ by more than chance",
        fewer="{groups} differ by less than chance: the noise is overstated",
        poolings=("complete",),
    ),
    "asymmetry": Check(
        compares="skewness of the {groups}' normal scores: the shape of the population",
        statistic=asymmetry,
        more="the population has a longer upper tail than the model's",
        fewer="the population has a longer lower tail than the model's",
        poolings=("partial",),
    ),
    "tails": Check(
        compares="kurtosis of the {groups}' normal scores, 3 of a normal: the shape of the population",
        statistic=tails,
        more="the population has heavier tails than the model's",
        fewer="the population has lighter tails than the model's, as two populations have",
        poolings=("partial",),
    ),
}


def correlation(one: np.ndarray, other: np.ndarray) -> float:
    """Spearman's correlation of two arrays; 0 where one of them has one value."""
    ranks = [rankdata(values) for values in (one, other)]
    constant = any(np.ptp(rank) == 0 for rank in ranks)
    return 0.0 if constant else float(np.corrcoef(*ranks)[0, 1])


def levene(values: np.ndarray, group: np.ndarray) -> float:
    """F of the absolute deviations of values [row] from their groups' means: are spreads equal?

    Each deviation is scaled by sqrt(n / (n - 1)), without which small groups would seem to have small spreads; one row
    has none, and two deviate alike, but for rounding. Levene (1960); O'Neill & Mathews (2000), Aust N Z J Stat
    42:81-100.
    """
    n = np.bincount(group)
    several = n[group] > 2
    mean = np.bincount(group, values) / np.maximum(n, 1)
    scale = np.sqrt(n / np.maximum(n - 1, 1))
    deviation = (np.abs(values - mean[group]) * scale[group])[several]
    if np.unique(group[several]).size < 2:
        return 0.0
    return f_ratio(deviation, np.unique(group[several], return_inverse=True)[1])


def f_ratio(values: np.ndarray, group: np.ndarray) -> float:
    """Mean square between groups over that within; 0 where there is no freedom within."""
    n = np.bincount(group)
    mean = np.bincount(group, values) / n
    between = float((n * (mean - values.mean()) ** 2).sum()) / (n.size - 1)
    freedom = values.size - n.size
    within = float(((values - mean[group]) ** 2).sum()) / freedom if freedom else 0.0
    return between / within if within > 0 else 0.0


def kurtosis_within(residual: np.ndarray, group: np.ndarray, least: int = 4) -> float:
    """Fourth standardised moment of residuals [row] about their groups' own spreads, over groups of at least 4 rows.

    Each group has its own spread, so that spreads which differ do not pass for heavy tails.
    """
    n = np.bincount(group)
    second, fourth = (np.bincount(group, residual**power) for power in (2, 4))
    enough = (n >= least) & (second > 0)
    if not enough.any():
        return 0.0
    return float((n[enough] ** 2 * fourth[enough] / second[enough] ** 2).sum() / n[enough].sum())
