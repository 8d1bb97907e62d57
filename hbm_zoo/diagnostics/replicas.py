"""Data that a fitted model makes, and the model fitted to them again: what a statistic may be when the model is right.

A p value of a statistic of replicated data that are not fitted again would use the data twice, and lie about one half
whatever they were (Bayarri & Berger 2000, J Am Stat Assoc 95:1127-1142; Hjort, Dahl & Steinbakk 2006, 101:1157-1174).
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import cached_property

import numpy as np
import xarray as xr

from hbm_zoo.group_level.newton import climb, modes
from hbm_zoo.inference.fits import free, hyperparameters, prepared
from hbm_zoo.inference.log_posterior import LogPosterior
from hbm_zoo.inference.sampling import posterior_of
from hbm_zoo.model import HierarchicalModel

#: Exceedances after which a p value is known well enough; replicates at least, for intervals, and at most a check:
#: enough for all of them that the smallest p value there can be is 0.04 after Holm.
ENOUGH, LEAST, MOST_A_CHECK = 10, 99, 50
AT_ONCE = 100
#: Length of differences, in sds of the posterior: a top is known to its square. What stands for no curvature.
STEP, FLATTEST = 0.03, 0.05


class Refits:
    """Data sets [replicate], each with the hyperparameters at the top of its own posterior under a fit's priors."""

    def __init__(self, record: HierarchicalModel, fit: xr.DataTree, seed: int):
        record.ask("check_model", "population", "replicate", "log_joint")
        if record.extras.with_response is None:
            raise ValueError(
                f"check_model needs how the data look with another response, and {record.name} does not give it."
            )
        self.record, self.fit, self.seen = record, fit, prepared(fit)
        if "circular" in self.seen.attrs:
            raise ValueError(self.seen.attrs["circular"])
        self.data = self.seen.drop_vars(record.group)  # labels, which every sum of two arrays would compare anew
        self.drawn, self.names = hyperparameters(fit), free(fit)
        self.rng = np.random.default_rng([int(fit.attrs["seed"]), seed])

    @cached_property
    def posterior(self) -> LogPosterior:
        """That of the data themselves."""
        posterior = posterior_of(self.fit, self.data, self.record)
        if posterior is None:
            raise ValueError(
                f"check_model fits replicated data again where a posterior is of a few numbers; that of "
                f"{self.record.name} is of more."
            )
        return posterior

    @cached_property
    def highest(self) -> tuple[np.ndarray, np.ndarray]:
        """The top of the posterior of the data themselves, above the best of draws of the prior, and its width."""
        posterior = self.posterior
        best = posterior.of_prior[np.argmax(posterior(posterior.of_prior))]
        (top,), (curvature,) = modes(lambda x: posterior(x[0])[None], best[None], posterior.step)
        values, vectors = np.linalg.eigh(curvature)
        return top, vectors / np.sqrt(np.maximum(values, FLATTEST))

    def _top(self, posterior: LogPosterior) -> np.ndarray:
        """The top of a posterior near that of the data, in whose units one climb is enough."""
        top, unit = self.highest
        start, step = np.zeros((1, top.size)), max(STEP, posterior.step)
        (v,), _ = climb(lambda v: posterior(top + v[0] @ unit.T)[None], start, step)
        return top + unit @ v

    @property
    def again(self) -> bool:
        """Whether replicates are of the same groups: nodes of a fit lie where their own data have them."""
        return self.record.group_level.nodes is not None

    def fitted(self, data: xr.Dataset) -> xr.Dataset:
        """The hyperparameters at the top of the posterior of some data, one value each; of the same groups its mean."""
        if self.again:
            return self.drawn.mean("sample")
        if not self.names:
            return self.drawn.isel(sample=0, drop=True)
        arrays = {str(name): v.values for name, v in self.record.extras.derived(data).data_vars.items()}
        posterior = self.posterior.of(arrays)
        at = posterior.variables(self._top(posterior)[None])[self.names]
        return self.drawn.isel(sample=0, drop=True).assign(at.isel(sample=0, drop=True))

    def __iter__(self) -> Iterator[xr.Dataset]:
        """Data like those of the fit, each of another draw of the posterior, without end."""
        level, anew = self.record.group_level, self.record.extras.with_response
        while True:
            some = self.rng.integers(self.drawn.sizes["sample"], size=AT_ONCE)
            h = self.drawn.isel(sample=some)
            if self.again:
                known, theta = self.seen, level.conditional(h, self.seen).sample(self.rng)
            else:
                known, theta = level.unseen(self.seen), level.before(h, self.seen, self.record.group).sample(self.rng)
            response = level.replicate(self.rng, theta, h, self.seen, known)
            for values in response.transpose("sample", ...).values:
                yield anew(self.data, values)


def sequential_p(exceeds: np.ndarray) -> float:
    """P value of a Monte Carlo test [replicate] that stops at enough exceedances (Besag & Clifford 1991).

    Biometrika 78:301-304: ENOUGH over the number of replicates that it took; if there were fewer,
    (exceedances + 1) / (replicates + 1). Either is exact where replicates and data are exchangeable.

    Examples
    --------
    >>> sequential_p(np.zeros(99, bool)), sequential_p(np.tile([True, False], 20))
    (0.01, 0.5263157894736842)
    """
    hits = int(exceeds.sum())
    return ENOUGH / stopped_at(exceeds) if hits >= ENOUGH else (hits + 1) / (exceeds.size + 1)


def stopped_at(exceeds: np.ndarray) -> int:
    """After how many replicates there were enough exceedances; all of them, if there were fewer.

    Examples
    --------
    >>> stopped_at(np.zeros(99, bool)), stopped_at(np.tile([True, False], 20))
    (99, 19)
    """
    hits = np.cumsum(exceeds)
    return int(np.argmax(hits == ENOUGH)) + 1 if hits[-1] >= ENOUGH else exceeds.size
