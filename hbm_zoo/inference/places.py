"""Where a posterior of few numbers is large.

Its tops are looked for from several starts: where the posterior is large, and where the likelihood is, the prior
counted less and less; they are far apart where the prior contradicts the data.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
from scipy.special import softmax

from hbm_zoo.group_level.newton import derivatives, modes
from hbm_zoo.inference.log_posterior import LogPosterior
from hbm_zoo.inference.mixture import DEFENCE, Mixture

#: How much the prior counts where a climb starts: a narrow prior with heavy tails holds on to it at one hundredth yet.
PRIOR_COUNTS = np.array([1, 1e-2, 1e-4, 1e-8])
#: Log density of the prior, in its units, below which a place is not looked at: formulas lose their digits there.
NEVER = -200.0
#: How far out along an axis a top is looked for, in units of the prior; how much lower than needed its flank may be.
FAR, NEARLY = 2 ** np.arange(2, 10, 0.25), 5.0
#: Places at most; what a top, and a shoulder, holds at least, of the one that holds most; shoulders looked at in turn.
MOST_PLACES, LEAST_HELD, LEAST_SHOULDER, CANDIDATES = 12, 1e-6, 1e-3, 5
#: Nats by which posterior over mixture is larger somewhere than at the tops, beyond which a top is missing.
TOO_THIN = 2.0
#: Distance, in standard deviations of the lower one, up to which two tops are one, or the step that found them.
SAME_TOP = 0.1
#: What is no curvature, and what stands for it; widths of a first mixture around a place, in units of its curvature,
#: and of its defence, in units of the prior.
NO_CURVATURE, FLATTEST, WIDTHS, WIDTH = 1e-5, 0.05, (1.0, 2.0), 1.5


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
    holds next to nothing, as in a tail heavier than the mixture's. There is no place where no draw of the prior has a
    density.
    """
    log_prior, log_likelihood = posterior.parts(posterior.of_prior)
    best = np.argmax(PRIOR_COUNTS[:, None] * log_prior + log_likelihood, axis=1)
    starts, _ = modes(_curves(posterior, PRIOR_COUNTS), posterior.of_prior[best], posterior.step)
    found = _distinct(posterior, *_climbed(posterior, starts))
    if not found.tops:
        return found
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
    return modes(_curves(posterior, np.ones(len(starts))), starts, posterior.step)


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
    _, _, curvature = derivatives(_curves(posterior, np.ones(1)), start, posterior.step)
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
        known = (np.einsum("ki,ij,kj->k", away, curvature[i], away) < max(SAME_TOP, posterior.step) ** 2).any()
        if not known and volume[i] > volume.max() + np.log(LEAST_HELD):
            kept.append(int(i))
    return Places(where[kept], curvature[kept], log_density[kept], len(kept))


def _curves(posterior: LogPosterior, counts: np.ndarray) -> Callable:
    """Log posteriors at points [curve, point, dimension], the prior counted as often as each curve says."""

    def log_density(x: np.ndarray) -> np.ndarray:
        log_prior, log_likelihood = posterior.parts(x.reshape(-1, x.shape[-1]))
        return counts[:, None] * log_prior.reshape(x.shape[:-1]) + log_likelihood.reshape(x.shape[:-1])

    return log_density


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
