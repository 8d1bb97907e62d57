"""Independent draws of a posterior of few numbers, where it can be shown that they are of it.

Proposals come from a mixture of Student t's that was fitted to the posterior, two around each of its `places`, so that
it may be skew, and one, as a defence, as wide as the prior. Each is weighted by posterior over proposal (importance
sampling; Geweke 1989, Econometrica 57:1317-1339), and draws are resampled by the weights. That the weights look well
proves little where a proposal has missed a top: hence the search for places.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from scipy.special import softmax

from hbm_zoo.inference.log_posterior import LogPosterior
from hbm_zoo.inference.loo import smoothed
from hbm_zoo.inference.mixture import Mixture
from hbm_zoo.inference.places import Places, around

MOST_DIMENSIONS = 10
K_HAT_MOST, ESS_LEAST = 0.7, 400
#: Rounds of fitting, their proposals, and the share of these that is effective where no further round is needed.
ROUNDS, OF_A_ROUND, FITTED_WELL = 5, 2000, 0.8
#: Proposals at least, and at least where each takes integrals of its own; batches of them at most.
LEAST_PROPOSALS, LEAST_INTEGRATED, MOST_BATCHES = 4000, 1000, 8
#: Where the weights of a mixture prove too little: how often it grows at most, by so many components and proposals; the
#: most that one of these weighs, over the mean, where it need not grow further, and beyond which it must grow at all:
#: of posteriors along a curve k-hat may be 0.3 and a mean 10 errors off, and one proposal weighs as much as 20.
TURNS, MORE_PARTS, OF_A_TURN, EVEN, THIN = 16, 2, 4000, 5.0, 15.0


def fitted(posterior: LogPosterior, found: Places, rng: np.random.Generator) -> Mixture:
    """The mixture after rounds of proposals, as few as will do."""
    mixture = around(found)
    for _ in range(ROUNDS):
        x = mixture.sample(OF_A_ROUND, rng)
        log_ratios = posterior(x) - mixture.log_density(x)
        if not np.isfinite(log_ratios).any() or effective(softmax(log_ratios)) > FITTED_WELL * OF_A_ROUND:
            break
        mixture = mixture.fitted(x, log_ratios)
    return mixture


@dataclass(frozen=True)
class Weighted:
    """Points x [proposal, dimension] with the log of posterior over proposal [proposal], and from how many tops."""

    x: np.ndarray
    log_ratios: np.ndarray
    tops: int

    @cached_property
    def _smoothed(self) -> tuple[np.ndarray, float]:
        log_weights, (k_hat,) = smoothed(self.log_ratios[None])
        weights = np.exp(log_weights[0])
        return (weights, float(k_hat)) if np.isfinite(weights).all() else (np.zeros_like(weights), np.inf)

    @property
    def weights(self) -> np.ndarray:
        """Of each point, their tail that of a Pareto; they sum to 1."""
        return self._smoothed[0]

    @property
    def k_hat(self) -> float:
        """Of the weights: beyond 0.7 they do not say what they leave out (Vehtari et al. 2024, JMLR 25:72)."""
        return self._smoothed[1]

    @property
    def ess(self) -> float:
        """How many draws of the posterior the weighted points are worth."""
        return effective(self.weights)

    @property
    def failures(self) -> list[str]:
        """What of the proof does not hold, in words."""
        return failures(self.k_hat, self.ess, len(self.x))


def heaviest(log_ratios: np.ndarray) -> float:
    """The largest weight over the mean of all."""
    return float(softmax(log_ratios).max()) * log_ratios.size


def effective(weights: np.ndarray) -> float:
    """Effective number of weighted draws, 1 / sum of squared weights (Kong, Liu & Wong 1994, JASA 89:278-288)."""
    squares = float((weights**2).sum())
    return 1 / squares if squares else 0.0


def failures(k_hat: float, ess: float, proposals: int) -> list[str]:
    """What of the proof does not hold, in words."""
    found = []
    if not k_hat <= K_HAT_MOST:
        found.append(f"k-hat {k_hat:.2f} of the weights is above {K_HAT_MOST}")
    if not ess >= ESS_LEAST:
        found.append(f"{ess:.0f} effective of {proposals} proposals are fewer than {ESS_LEAST}")
    return found


def weighted(
    posterior: LogPosterior, found: Places, draws: int, rng: np.random.Generator, exact: Callable | None = None
) -> Weighted:
    """Weighted proposals, at least twice as many as draws are wanted, more where they are worth less than half of them.

    Their worth alone says how many: k-hat is looked at once. Where they prove too little, or one weighs too much, as
    along a curve, the mixture gets more components by them, and others are drawn. ``exact(x)`` is the log posterior
    where that of the densities has coarser integrals; these are too dear to grow by unless the proof fails.
    """
    mixture, target = fitted(posterior, found, rng), exact or posterior
    batch = max(2 * draws, LEAST_INTEGRATED if exact else LEAST_PROPOSALS)

    def proposed(mixture: Mixture) -> Weighted:
        points, log_ratios = [], []
        for _ in range(MOST_BATCHES):
            points.append(mixture.sample(batch, rng))
            log_ratios.append(target(points[-1]) - mixture.log_density(points[-1]))
            result = Weighted(np.concatenate(points), np.concatenate(log_ratios), found.tops)
            if result.ess >= max(ESS_LEAST, draws / 2):
                break
        return result

    first = proposed(mixture)
    thin = first.failures or (exact is None and heaviest(first.log_ratios) > THIN)
    return proposed(along(posterior, mixture, first, rng)) if thin and first.ess > 0 else first


def along(posterior: LogPosterior, mixture: Mixture, seen: Weighted, rng: np.random.Generator) -> Mixture:
    """The mixture with more components where it is too thin, fitted to the posterior each time; first by what was seen.

    A few at a time: the thin ends of a curve are seen from the parts that lie nearest to them.
    """
    x, log_density = seen.x, seen.log_ratios + mixture.log_density(seen.x)
    for _ in range(TURNS):
        mixture = mixture.grown(x, log_density, MORE_PARTS)
        x = mixture.sample(OF_A_TURN, rng)
        log_density = posterior(x)
        log_ratios = log_density - mixture.log_density(x)
        mixture = mixture.fitted(x, log_ratios)
        if heaviest(log_ratios) < EVEN:
            break
    return mixture


def resampled(weights: np.ndarray, draws: int, rng: np.random.Generator) -> tuple[np.ndarray, float]:
    """Which of weighted proposals to draw [draw], in random order, and how many independent draws they are worth.

    Systematic resampling (Kitagawa 1996, J Comput Graph Stat 5:1-25): a proposal comes as often as its weight says,
    give or take one. What that rounding adds to the variance of a mean, sum of f (1 - f) / draws^2 for fractions f of
    weights x draws, is counted: of even weights draws are worth their number and not that of the proposals.
    """
    order = rng.permutation(weights.size)
    reached = np.cumsum(weights[order])
    comb = (np.arange(draws) + rng.random()) / draws
    chosen = order[np.searchsorted(reached / reached[-1], comb).clip(max=weights.size - 1)]
    fraction = weights * draws % 1
    variance = (weights**2).sum() + (fraction * (1 - fraction)).sum() / draws**2
    return rng.permutation(chosen), float(1 / variance)
