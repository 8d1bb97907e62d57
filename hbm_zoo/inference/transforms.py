"""The scale on which a spread is drawn."""

from __future__ import annotations

import numpy as np
import pymc as pm
import pytensor.tensor as pt
from pymc.distributions.transforms import Transform
from pymc.model.transform.conditioning import change_value_transforms
from pytensor.tensor.random.basic import HalfNormalRV


class HalfNormalToNormal(Transform):
    """A half-normal variable as the standard normal with the same probability below it.

    The log of a spread that may be 0 has a long left tail, in which a sampler loses its way; here
    both tails are a normal's, and a spread of which nothing is learned is a standard normal.
    """

    name = "normal"

    def forward(self, value, rng, size, loc, sigma):
        """From a spread to the whole line."""
        u = (value - loc) / (sigma * np.sqrt(2))
        return pt.switch(u < 0.5, -np.sqrt(2) * pt.erfcinv(2 * pt.erf(u)), np.sqrt(2) * pt.erfcinv(2 * pt.erfc(u)))

    def backward(self, value, rng, size, loc, sigma):
        """From the whole line to a spread; each half keeps its own small probability, so that no digit is lost."""
        tail = pt.erfc(pt.switch(value < 0, -value, value) / np.sqrt(2)) / 2
        return loc + sigma * np.sqrt(2) * pt.switch(value < 0, pt.erfinv(tail), pt.erfcinv(tail))

    def log_jac_det(self, value, rng, size, loc, sigma):
        """Log of the normal density over the half-normal's."""
        spread = (self.backward(value, rng, size, loc, sigma) - loc) / sigma
        return (spread**2 - value**2) / 2 + pt.log(sigma / 2)


def normal_tails(model: pm.Model) -> pm.Model:
    """The same model, its half-normal hyperparameters drawn on the scale of `HalfNormalToNormal`."""
    spreads = [v for v in model.free_RVs if isinstance(v.owner.op, HalfNormalRV)]
    return change_value_transforms(model, dict.fromkeys(spreads, HalfNormalToNormal())) if spreads else model
