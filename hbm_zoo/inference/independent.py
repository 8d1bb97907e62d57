"""Independent draws of a posterior of few numbers, where it can be shown that they are of it.

Proposals come from a mixture of Student t's that was fitted to the posterior, two around each of its tops, so that it
may be skew, and one, as a defence, as wide as the prior. Each is weighted by posterior over proposal (importance
sampling; Geweke 1989, Econometrica 57:1317-1339), and draws are resampled by the weights.

That the weights look well proves little where a proposal has missed a top. So the tops are looked for from several
starts: where the posterior is large, and where the likelihood is, the prior counted less and less; they are far apart
where the prior contradicts the data.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
from scipy.special import logsumexp, softmax

from hbm_zoo.group_level.newton import derivatives, modes
from hbm_zoo.group_level.student import FREEDOM, log_student
from hbm_zoo.inference.log_posterior import LogPosterior
from hbm_zoo.inference.loo import smoothed

MOST_DIMENSIONS = 10
K_HAT_MOST, ESS_LEAST = 0.7, 400
#: Of the mixture: the defence's share, and its width in units of the prior; the least share of another component, so
#: that a small top is not forgotten; what is no curvature, and what stands for it.
DEFENCE, WIDTH, LEAST_SHARE, NO_CURVATURE, FLATTEST = 0.05, 1.5, 0.01, 1e-5, 0.05
#: How much the prior counts where a climb starts: a narrow prior with heavy tails holds on to it at one hundredth yet.
PRIOR_COUNTS = np.array([1, 1e-2, 1e-4, 1e-8])
#: Log density of the prior, in its units, below which a place is not looked at: formulas lose their digits there.
NEVER = -200.0
#: How far out along an axis a top is looked for, in units of the prior; how much lower than needed its flank may be.
FAR, NEARLY = 2 ** np.arange(2, 10, 0.25), 5.0
#: Places at most; what a top, and a shoulder, holds at least, of the one that holds most; shoulders looked at in turn;
#: points that a component needs to be fitted.
MOST_PLACES, LEAST_HELD, LEAST_SHOULDER, CANDIDATES, LEAST_POINTS = 12, 1e-6, 1e-3, 5, 20
#: Nats by which posterior over mixture is larger somewhere than at the tops, beyond which a top is missing.
TOO_THIN = 2.0
#: Distance, in standard deviations of the lower one, up to which two tops are one.
SAME_TOP = 0.1
#: First widths around a top, in units of its curvature; rounds of fitting, and their proposals.
WIDTHS, ROUNDS, OF_A_ROUND, FITTED_WELL = (1.0, 2.0), 5, 2000, 0.8
LEAST_PROPOSALS, MOST_BATCHES = 4000, 8


@dataclass(frozen=True)
class Places:
    """Where the posterior is large: its tops, the highest first, then shoulders, which have no top of their own.

    Attributes
    ----------
    where, curvature, log_density
        Of each [place, dimension], minus the curvature and the log density there.
    tops
        How many of the first are tops.
    """

    where: np.ndarray
    curvature: np.ndarray
    log_density: np.ndarray
    tops: int

    @property
    def volumes(self) -> np.ndarray:
        """Roughly the log of what each place holds, up to a constant, by Laplace's method."""
        return self.log_density - np.linalg.slogdet(self.curvature)[1] / 2

    @property
    def shares(self) -> np.ndarray:
        """Roughly how much of the posterior each top holds."""
        return softmax(self.volumes[: self.tops])

    def usual(self, mixture: Mixture) -> float:
        """The most that the posterior is beside a mixture at the tops [nats]."""
        return float(np.max((self.log_density - mixture.log_density(self.where))[: self.tops]))


def places(posterior: LogPosterior) -> Places:
    """Where climbers from draws of the prior, and from far out, find the posterior large.

    They start where posterior and likelihood are largest among the draws; where, far along an axis from the prior's
    median or from a top, the posterior is large beside the mixture that the tops so far make; then wherever it is so
    yet, until that finds nothing new. A climb from there that ends on a known top has started on a shoulder, unless it
    holds next to nothing, as in a tail heavier than the mixture's.
    """
    log_prior, log_likelihood = posterior.parts(posterior.of_prior)
    best = np.argmax(PRIOR_COUNTS[:, None] * log_prior + log_likelihood, axis=1)
    starts, _ = modes(_curves(posterior, PRIOR_COUNTS), posterior.of_prior[best])
    found = _distinct(posterior, *_climbed(posterior, starts))
    far, beside = _far_out(posterior, found)
    if (flanks := far[beside > TOO_THIN - NEARLY]).size:
        found = _with(posterior, found, *_climbed(posterior, flanks))
    while len(found.where) < MOST_PLACES:
        for start in _overlooked(posterior, found, log_prior + log_likelihood):
            grown = _with(posterior, found, *_climbed(posterior, start[None]))
            if grown.tops > found.tops:
                break
            grown = _with_shoulder(posterior, found, start[None])
            if grown.volumes[-1] > found.volumes.max() + np.log(LEAST_SHOULDER) and not _known(grown):
                break
        else:
            return found
        found = grown
    return found


def _overlooked(posterior: LogPosterior, found: Places, of_prior: np.ndarray) -> np.ndarray:
    """Where the posterior is too large beside the mixture, of draws of the prior and far out [point, dimension]."""
    mixture = around(found)
    far, beside_far = _far_out(posterior, found)
    beside = np.append(of_prior - mixture.log_density(posterior.of_prior) - found.usual(mixture), beside_far)
    most = np.argsort(-beside)[:CANDIDATES]
    return np.concatenate([posterior.of_prior, far])[most[beside[most] > TOO_THIN]]


def _climbed(posterior: LogPosterior, starts: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The tops above some starts, and minus the curvature there."""
    return modes(_curves(posterior, np.ones(len(starts))), starts)


def _far_out(posterior: LogPosterior, found: Places) -> tuple[np.ndarray, np.ndarray]:
    """On each half of an axis through the prior's median or a place, where the posterior is largest beside the mixture.

    Also how much more it is so there than at the tops [nats]. Far out the draws of the prior see nothing, and yet there
    the data may be explained best: all that differs by a large spread, say.
    """
    size = found.where.shape[1]
    centres = np.concatenate([np.zeros((1, size)), found.where])
    rays = centres[:, None, None] + FAR[:, None, None] * np.concatenate([np.eye(size), -np.eye(size)])
    points, mixture = rays.reshape(-1, size), around(found)
    log_prior, log_likelihood = posterior.parts(points)
    possible = log_prior > NEVER
    beside = np.where(possible, log_prior + log_likelihood - mixture.log_density(points), -np.inf)
    beside = beside.reshape(rays.shape[:-1])
    best = np.take_along_axis(rays, beside.argmax(axis=1)[:, None, :, None], axis=1)
    return best.reshape(-1, size), beside.max(axis=1).ravel() - found.usual(mixture)


def _with(posterior: LogPosterior, found: Places, where: np.ndarray, curvature: np.ndarray) -> Places:
    """More tops, the shoulders as they are."""
    k = found.tops
    where, curvature = np.concatenate([found.where[:k], where]), np.concatenate([found.curvature[:k], curvature])
    tops = _distinct(posterior, where, curvature)
    return replace(
        tops,
        where=np.concatenate([tops.where, found.where[k:]]),
        curvature=np.concatenate([tops.curvature, found.curvature[k:]]),
        log_density=np.concatenate([tops.log_density, found.log_density[k:]]),
    )


def _known(grown: Places) -> bool:
    """Whether the last place lies where another is, as beside the edge of a density."""
    away = grown.where[:-1] - grown.where[-1]
    return bool((np.einsum("ki,ij,kj->k", away, grown.curvature[-1], away) < 1).any())


def _with_shoulder(posterior: LogPosterior, found: Places, start: np.ndarray) -> Places:
    """One more place, where it is not curved as wide as half its distance to the next top."""
    _, _, curvature = derivatives(_curves(posterior, np.ones(1)), start)
    away = np.linalg.norm(found.where[: found.tops] - start, axis=1).min()
    return replace(
        found,
        where=np.concatenate([found.where, start]),
        curvature=np.concatenate([found.curvature, _not_flat(curvature, min(FLATTEST, (2 / away) ** 2))]),
        log_density=np.append(found.log_density, posterior(start)),
    )


def _not_flat(curvature: np.ndarray, flattest: float = FLATTEST) -> np.ndarray:
    values, vectors = np.linalg.eigh(curvature)
    return (vectors * np.where(values > NO_CURVATURE, values, flattest)[..., None, :]) @ vectors.mT


def _distinct(posterior: LogPosterior, where: np.ndarray, curvature: np.ndarray) -> Places:
    """Each top once, the highest first, none flatter than some, and none that holds next to nothing."""
    curvature, log_density = _not_flat(curvature), posterior(where)
    volume = log_density - np.linalg.slogdet(curvature)[1] / 2
    kept: list[int] = []
    for i in np.argsort(-log_density):
        away = where[kept] - where[i]
        known = (np.einsum("ki,ij,kj->k", away, curvature[i], away) < SAME_TOP**2).any()
        if not known and volume[i] > volume.max() + np.log(LEAST_HELD):
            kept.append(int(i))
    return Places(where[kept], curvature[kept], log_density[kept], len(kept))


def _curves(posterior: LogPosterior, counts: np.ndarray) -> Callable:
    """Log posteriors at points [curve, point, dimension], the prior counted as often as each curve says."""

    def log_density(x: np.ndarray) -> np.ndarray:
        log_prior, log_likelihood = posterior.parts(x.reshape(-1, x.shape[-1]))
        return counts[:, None] * log_prior.reshape(x.shape[:-1]) + log_likelihood.reshape(x.shape[:-1])

    return log_density


@dataclass(frozen=True)
class Mixture:
    """Student t's with shares [component], centres [component, dimension], roots of scales; the last is the defence."""

    shares: np.ndarray
    centres: np.ndarray
    roots: np.ndarray

    def sample(self, points: int, rng: np.random.Generator) -> np.ndarray:
        """Independent points [point, dimension]."""
        which = rng.choice(self.shares.size, size=points, p=self.shares)
        normal = rng.standard_normal((points, self.centres.shape[1], 1))
        t = normal[..., 0] * np.sqrt(FREEDOM / rng.chisquare(FREEDOM, points))[:, None]
        return self.centres[which] + (self.roots[which] @ t[..., None])[..., 0]

    def log_parts(self, x: np.ndarray) -> np.ndarray:
        """Log share x density [component, point] of each component."""
        standard = np.linalg.solve(self.roots, (x - self.centres[:, None]).mT).mT
        log_size = np.linalg.slogdet(self.roots)[1]
        return np.log(self.shares)[:, None] + log_student(standard) - log_size[:, None]

    def log_density(self, x: np.ndarray) -> np.ndarray:
        """Log density [point]."""
        return logsumexp(self.log_parts(x), axis=0)

    def fitted(self, x: np.ndarray, log_ratios: np.ndarray) -> Mixture:
        """Nearer to the posterior: each component gets the share, mean and covariance of its part of weighted points.

        A step of population Monte Carlo (Cappe et al. 2008, Stat Comput 18:447-459), no weight beyond the mean times
        the root of their number (Ionides 2008, J Comput Graph Stat 17:295-311). One with next to no points stays.
        """
        weight = np.minimum(softmax(log_ratios), len(x) ** -0.5)
        parts = softmax(self.log_parts(x), axis=0)[:-1] * weight
        mass = parts.sum(axis=1)
        known = mass**2 > LEAST_POINTS * (parts**2).sum(axis=1)
        centres = np.where(known[:, None], (parts @ x) / np.where(known, mass, 1)[:, None], self.centres[:-1])
        away = x - centres[:, None]
        covariance = (parts[..., None] * away).mT @ away / np.where(known, mass, 1)[:, None, None]
        values, vectors = np.linalg.eigh(covariance * (FREEDOM - 2) / FREEDOM)
        roots = np.where(known[:, None, None], vectors * np.sqrt(np.maximum(values, 0))[:, None], self.roots[:-1])
        shares = np.maximum(mass / mass.sum(), LEAST_SHARE)
        return Mixture(
            np.append((1 - DEFENCE) * shares / shares.sum(), DEFENCE),
            np.concatenate([centres, self.centres[-1:]]),
            np.concatenate([roots, self.roots[-1:]]),
        )


def around(found: Places) -> Mixture:
    """A first mixture: around each place as wide as its curvature says, and wider, and the defence."""
    values, vectors = np.linalg.eigh(found.curvature)
    sharp = vectors / np.sqrt(values)[:, None]
    roots, size = np.concatenate([width * sharp for width in WIDTHS]), found.where.shape[1]
    return Mixture(
        np.append(np.full(len(roots), (1 - DEFENCE) / len(roots)), DEFENCE),
        np.concatenate([*[found.where] * len(WIDTHS), np.zeros((1, size))]),
        np.concatenate([roots, WIDTH * np.eye(size)[None]]),
    )


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

    Their worth alone says how many: k-hat is looked at once. ``exact(x)`` is the log posterior where that of the
    densities has coarser integrals.
    """
    target, mixture = exact or posterior, fitted(posterior, found, rng)
    batch, points, log_ratios = max(2 * draws, LEAST_PROPOSALS), [], []
    for _ in range(MOST_BATCHES):
        points.append(mixture.sample(batch, rng))
        log_ratios.append(target(points[-1]) - mixture.log_density(points[-1]))
        result = Weighted(np.concatenate(points), np.concatenate(log_ratios), found.tops)
        if result.ess >= max(ESS_LEAST, draws / 2):
            break
    return result


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
