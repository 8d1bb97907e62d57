"""What draws of the hyperparameters say together: a population's quantiles and tails, averaged over them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import xarray as xr
from scipy.optimize import elementwise

from hbm_zoo.group_level.populations import Population

FEW_DRAWS = 100
MOST_STEPS = 8
NEAR, CLOSE = 1e-2, 1e-5  # Shares of the smaller tail.
ASIDE = 1e-2  # Standard deviations.


def quantile(population: Population, p: float) -> xr.DataArray:
    """Quantile of a population averaged over hyperparameter draws [sample].

    Where hyperparameters leave the group no freedom (sd = 0) this is the quantile of the draws; otherwise
    the root of the averaged distribution function. An atom may hold the quantile: then it is exactly there.

    Examples
    --------
    >>> from hbm_zoo.group_level.populations import Normal
    >>> two = Normal(xr.DataArray([-1.0, 1.0], dims="sample"), xr.DataArray([0.5, 0.5], dims="sample"))
    >>> round(quantile(two, 0.05).item(), 3), round(quantile(two, 0.95).item(), 3)
    (-1.641, 1.641)
    """
    (found,) = quantiles(population, [p])
    return found


def quantiles(population: Population, probabilities: Sequence[float]) -> list[xr.DataArray]:
    """Several quantiles, with what they share."""
    cells, template = population.cells()
    average = _Average(cells, *(values.transpose("sample", "cell").values for values in (cells.mean, cells.sd)))
    free = (average.sd > 0).any(axis=0)
    around = _around_the_atom(average) if cells.atom is not None and free.any() else None
    return [template.copy(data=_of_cells(average, p, free, around).reshape(template.shape)) for p in probabilities]


def _of_cells(average: _Average, p: float, free: np.ndarray, around: np.ndarray | None) -> np.ndarray:
    """The quantile of each cell: of those that are not free, of the draws."""
    if around is None:
        result, ends = np.empty(free.size), np.full((2, free.size), [[-np.inf], [np.inf]])
        if not free.all():
            result[~free] = np.quantile(average.mean[:, ~free], p, axis=0)
    else:
        result = np.full(free.size, average.cells.atom)
        free, ends = _beside_the_atom(average.cells.atom, around, p)
    if free.any():
        result[free] = average.of(np.flatnonzero(free)).root(p, *ends[:, free])
    return result


def exceedance(population: Population, threshold: float) -> xr.DataArray:
    """P(theta > threshold), averaged over hyperparameter draws [sample]."""
    mean, sd = xr.broadcast(population.mean, population.sd)
    with np.errstate(divide="ignore", invalid="ignore"):
        beyond = xr.where(sd > 0, 1 - population.cdf(threshold), mean > threshold)
    return beyond.mean("sample")


def _around_the_atom(average: _Average) -> np.ndarray:
    """Probabilities [2, cell] below the atom, and up to it."""
    ends = np.nextafter(average.cells.atom, -np.inf), average.cells.atom
    return np.stack([average.cdf(np.full(average.sd.shape[1], end)) for end in ends])


def _beside_the_atom(atom: float, around: np.ndarray, p: float) -> tuple[np.ndarray, np.ndarray]:
    """The cells whose quantile is not exactly there, and the ends [2, cell] of the side where it is."""
    below, up_to = around
    ends = np.where(p > up_to, atom, -np.inf), np.where(p <= below, np.nextafter(atom, -np.inf), np.inf)
    return ~((below < p) & (p <= up_to)), np.stack(ends)


@dataclass(frozen=True)
class _Average:
    """A population taken apart into cells, averaged over draws [sample, cell]; one without spread is a point."""

    cells: Population
    mean: np.ndarray
    sd: np.ndarray

    def of(self, which, draws=slice(None)) -> _Average:
        """The average of some cells over some draws."""
        return _Average(self.cells.of(which, draws), self.mean[draws][:, which], self.sd[draws][:, which])

    @np.errstate(divide="ignore", invalid="ignore")
    def cdf(self, x: np.ndarray, which=slice(None)) -> np.ndarray:
        """P(theta <= x) of some cells, each at its own x [cell]."""
        below = self._each_draw(self.cells.of(which).cdf(xr.DataArray(x, dims="cell")))
        return np.where(self.sd[:, which] == 0, self.mean[:, which] <= x, below).mean(axis=0)

    def root(self, p: float, low: np.ndarray, high: np.ndarray) -> np.ndarray:
        """Where the distribution function is p, between two ends [cell].

        The secant method starts from the root over a few of the draws, which is near; where it fails, as it may
        where the function has jumps, the root is bracketed.
        """
        few = self.of(slice(None), slice(None, None, max(1, len(self.sd) // FEW_DRAWS)))
        x, aside = np.clip(few.quantiles(p).mean(axis=0), low, high), ASIDE * self.sd.mean(axis=0)
        slope = (few.cdf(x + aside) - few.cdf(x - aside)) / (2 * aside)
        x, _, slope = few.by_secants(p, x, slope, NEAR)
        x, excess, slope = self.by_secants(p, x, slope, CLOSE)
        lost = np.flatnonzero(~(np.abs(excess) <= CLOSE * min(p, 1 - p)))
        with np.errstate(divide="ignore", invalid="ignore"):
            last = excess / slope
        x = np.clip(x - np.where(np.abs(last) < aside, last, 0.0), low, high)
        if lost.size:
            x[lost] = self.of(lost).bracketed(p, low[lost], high[lost])
        return x

    @np.errstate(divide="ignore", invalid="ignore", over="ignore")
    def by_secants(self, p: float, x: np.ndarray, slope: np.ndarray, near: float) -> tuple[np.ndarray, ...]:
        """Steps from x while each halves what the distribution function is off; the last x, what is left, the slope."""
        x, slope, excess = x.copy(), slope.copy(), self.cdf(x) - p
        walking = np.arange(x.size)
        for _ in range(MOST_STEPS):
            far = walking[np.abs(excess[walking]) > near * min(p, 1 - p)]
            if not far.size:
                break
            there = x[far] - excess[far] / slope[far]
            left = self.cdf(there, far) - p
            slopes, better = (left - excess[far]) / (there - x[far]), np.abs(left) < np.abs(excess[far]) / 2
            walking = far[better]
            x[walking], excess[walking], slope[walking] = there[better], left[better], slopes[better]
        return x, excess, slope

    @np.errstate(divide="ignore", invalid="ignore")
    def quantiles(self, p: float) -> np.ndarray:
        """The quantile of each draw [sample, cell]."""
        return np.where(self.sd == 0, self.mean, self._each_draw(self.cells.ppf(p)))

    def bracketed(self, p: float, low: np.ndarray, high: np.ndarray) -> np.ndarray:
        """The root between the smallest and the largest quantile of any draw; NaN where there is none."""
        each, margin = self.quantiles(p), 1e-9 * self.sd.max(axis=0)
        ends = np.maximum(low, each.min(axis=0) - margin), np.minimum(high, each.max(axis=0) + margin)
        return elementwise.find_root(
            lambda x, cell: self.cdf(x, cell.astype(int)) - p,
            ends,
            args=(np.arange(margin.size),),
            tolerances={"xrtol": 1e-7, "xatol": 0, "fatol": 0, "frtol": 0},
        ).x

    @staticmethod
    def _each_draw(values: xr.DataArray) -> np.ndarray:
        return values.transpose("sample", "cell").values
