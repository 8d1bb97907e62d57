"""A mixture of Student t's, which is fitted to weighted points."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.special import logsumexp, softmax

from hbm_zoo.group_level.student import FREEDOM, log_student

#: The share of the last component, the defence; the least share of another, so that a small top is not forgotten;
#: points that a component needs to be fitted; the share of all points that are the neighbours of one.
DEFENCE, LEAST_SHARE, LEAST_POINTS, NEIGHBOURS = 0.05, 0.01, 20, 0.1


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

    def grown(self, x: np.ndarray, log_posterior: np.ndarray, parts: int) -> Mixture:
        """More components, one after the other where the posterior is largest beside all so far.

        Each lies at a point and is as wide as its neighbours, by their weights (incremental mixture importance
        sampling; Raftery & Bao 2010, Biometrics 66:1162-1173): so a mixture follows a curve.
        """
        mixture, every = self, 1 / len(x)
        weight = softmax(log_posterior - self.log_density(x)) + every
        precision = np.linalg.inv(np.cov(x.T, aweights=weight).reshape(2 * x.shape[1:]))
        for _ in range(parts):
            beside = log_posterior - mixture.log_density(x)
            away = x - x[beside.argmax()]
            near = np.argsort(np.einsum("ki,ij,kj->k", away, precision, away))[: int(NEIGHBOURS * len(x))]
            weight = softmax(beside)[near] + every
            covariance = (weight * away[near].T) @ away[near] / weight.sum()
            mixture = mixture._with(x[beside.argmax()], np.linalg.cholesky(covariance * (FREEDOM - 2) / FREEDOM))
        return mixture

    def _with(self, centre: np.ndarray, root: np.ndarray) -> Mixture:
        """One more component, of an equal share, before the defence."""
        *others, defence = self.shares
        size = len(others)
        return Mixture(
            np.array([*np.array(others) * size / (size + 1), (1 - defence) / (size + 1), defence]),
            np.insert(self.centres, size, centre, axis=0),
            np.insert(self.roots, size, root, axis=0),
        )
