"""From population to person: draws of the hyperparameters after the rows that a new group brings, without a refit.

With rows y' draws of p(h | y) are weighted to those of p(h | y, y'), proportional to p(h | y) m(y' | h), m the marginal
likelihood of the new groups; k-hat says whether they can be (Vehtari et al. 2024, JMLR 25:72, section 2).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import xarray as xr
from arviz_stats.base import array_stats
from scipy.special import softmax

from hbm_zoo.diagnostics.new_rows import labelled
from hbm_zoo.inference.chunks import log_joint
from hbm_zoo.inference.fits import efficiency, prepared
from hbm_zoo.inference.loo import k_hat_threshold
from hbm_zoo.model import HierarchicalModel


@dataclass(frozen=True)
class After:
    """Weights [sample] of draws after new rows, and how far they can be trusted.

    Attributes
    ----------
    weight
        They sum to 1.
    k_hat
        Of the weights; -inf where the rows say nothing of the hyperparameters.
    """

    weight: np.ndarray
    k_hat: float

    @property
    def ess(self) -> float:
        """Effective number of draws."""
        return float(1 / (self.weight**2).sum())

    @property
    def holds(self) -> bool:
        """Whether the weighted draws stand for the posterior with the new rows."""
        return bool(self.k_hat <= k_hat_threshold(self.weight.size))

    @property
    def attrs(self) -> dict[str, float]:
        """What is kept with what was computed of them; nothing where nothing had to be weighted."""
        return {} if self.k_hat == -np.inf else {"k_hat": self.k_hat, "ess": self.ess}

    def resampled(self, h: xr.Dataset, rng: np.random.Generator) -> xr.Dataset:
        """Systematic resampling: a draw comes up as often as its weight says, give or take one."""
        if self.k_hat == -np.inf:
            return h
        size = self.weight.size
        ladder = (rng.random() + np.arange(size)) / size
        return h.isel(sample=np.searchsorted(np.cumsum(self.weight), ladder).clip(max=size - 1))


def weights_after(record: HierarchicalModel, fit: xr.DataTree, h: xr.Dataset, brought: xr.Dataset) -> After:
    """Weights of draws h [sample] of a fit after rows of new groups, nodes of their integrals among them.

    Raises
    ------
    ValueError
        If the rows have a density under no draw.
    """
    log_density = _log_density(record, fit, h, brought)
    if not np.isfinite(log_density).any():
        raise ValueError(f"Under no draw of the fit do the rows brought to {record.name} have a density: look at them.")
    return smoothed(log_density, efficiency(fit))


def smoothed(log_density: np.ndarray, reff: float) -> After:
    """Pareto-smoothed weights from the log density [sample] of what was brought, somewhere finite [nats]."""
    possible = np.isfinite(log_density)  # a draw under which the rows have no density, or none is defined, goes
    if possible.all() and np.ptp(log_density) < 1e-12:
        return After(np.full(log_density.size, 1 / log_density.size), -np.inf)
    weight = np.zeros(log_density.size)
    # The routine smooths the weights of leaving data out, 1 / m; here data come in.
    log_weight, k_hat = array_stats.psislw(-log_density[possible], r_eff=reff)
    weight[possible] = softmax(log_weight)
    return After(weight, float(k_hat))


def _log_density(record: HierarchicalModel, fit: xr.DataTree, h: xr.Dataset, brought: xr.Dataset) -> np.ndarray:
    """Log density [sample] of the rows that new groups bring, given those of the fit [nats]."""
    level, seen = record.group_level, labelled(record, prepared(fit))
    if level.independent:
        return log_joint(record, h, brought).values
    return (log_joint(record, h, level.joined(seen, brought)) - log_joint(record, h, seen)).values
