"""Are places in (0, 1) uniform, and would it be seen if they were not?"""

from __future__ import annotations

from functools import cache

import numpy as np
from arviz_stats.base import array_stats
from scipy.special import ndtr

LEVEL = 0.05
#: Errors of a posterior whose power is stated: where they put a truth that is z standard deviations from the middle.
ERRORS = {
    "intervals too narrow by a factor 1.2": lambda z: ndtr(1.2 * z),
    "intervals too wide by a factor 1.2": lambda z: ndtr(z / 1.2),
    "a shift of 0.2 sd": lambda z: ndtr(z + 0.2),
}
REPLICATES = 400


def uniformity(places: np.ndarray) -> float:
    """P of places [simulation] that should be uniform on (0, 1)."""
    return float(array_stats.uniformity_test(places)[0])


def holm(p: np.ndarray) -> np.ndarray:
    """P's that hold together (Holm 1979, Scand J Stat 6:65-70).

    Examples
    --------
    >>> holm(np.array([0.03, 0.01, 0.5])).tolist()
    [0.06, 0.03, 0.5]
    """
    order = np.argsort(p)
    adjusted = np.maximum.accumulate((p.size - np.arange(p.size)) * p[order]).clip(max=1)
    return adjusted[np.argsort(order)]


@cache
def power(error: str, simulations: int, level: float) -> float:
    """Chance that `uniformity` falls below a level under one of `ERRORS` of a normal posterior, by simulation."""
    rng, place = np.random.default_rng(0), ERRORS[error]
    found = [uniformity(place(rng.standard_normal(simulations))) for _ in range(REPLICATES)]
    return float(np.mean(np.array(found) < level))
