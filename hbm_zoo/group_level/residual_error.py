"""How a measurement scatters around what is expected of it: by a fixed amount, by a share of it, or by both.

    y ~ N(f, sd(f)^2),  sd(f)^2 = sigma_add^2 + (sigma_prop f)^2

Where one of the two is 0 a group's rows come down to two sums, whatever the other is, so that a likelihood at
thousands of nodes costs the same however many rows there are. Of a row below the limit of quantification only that is
known: its density is the probability P(y < limit) (M3 of Beal 2001, J Pharmacokinet Pharmacodyn 28:481-504).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from scipy import special

from hbm_zoo.group_level.special import log_Phi

SIGMAS = ("sigma_add", "sigma_prop")
#: What is known of a row: nothing, what was measured, or that it was below the limit.
MEASURED, BELOW = 1.0, 2.0
#: What stands for an expectation of nothing, as of a drug that has all gone, where the error is a share of it: a
#: density of 0 whose logs and gradients are numbers.
LEAST_SCALE = 1e-140


@dataclass(frozen=True)
class Scaled:
    """One of the two sigmas is 0: sd = sigma f^power, with power 0 or 1.

    Attributes
    ----------
    fixed
        The sigma that is 0.
    power
        Of what is expected.
    """

    fixed: dict[str, float]
    power: int

    def sd(self, f, sigma_add, sigma_prop):
        """Of a measurement of which f is expected."""
        return (sigma_add + sigma_prop) * f**self.power

    def sums(self, f: np.ndarray, y: np.ndarray, used: np.ndarray) -> np.ndarray:
        """All that sigma does not change, of f [..., row]: squares, and the logs of their scales [..., part]."""
        scale = np.where(used > 0, np.maximum(f**self.power, LEAST_SCALE), 1.0)
        squares = np.where(used > 0, (y - f) / scale, 0.0) ** 2
        return np.stack([squares.sum(axis=-1), np.log(scale).sum(axis=-1)], axis=-1)

    def log_density(self, sums, y, used, sigma_add, sigma_prop, xp: Any = np):
        """Of a group's rows [nats], from sums [..., part] and which rows are used [..., row]."""
        sigma = sigma_add + sigma_prop
        n, squares, log_scale = used.sum(axis=-1), sums[..., 0], sums[..., 1]
        return -n * (xp.log(sigma) + np.log(2 * np.pi) / 2) - log_scale - squares / (2 * sigma**2)


class Combined:
    """Neither is 0: each row counts by itself."""

    fixed: ClassVar[dict[str, float]] = {}

    def sd(self, f, sigma_add, sigma_prop):
        """Of a measurement of which f is expected."""
        return (sigma_add**2 + (sigma_prop * f) ** 2) ** 0.5

    def sums(self, f: np.ndarray, y: np.ndarray, used: np.ndarray) -> np.ndarray:
        """What is expected of each row [..., part]."""
        return np.where(used > 0, f, 0.0)

    def log_density(self, f, y, used, sigma_add, sigma_prop, xp: Any = np):
        """Of a group's rows [nats], from what is expected of each [..., part]."""
        variance = sigma_add[..., None] ** 2 + (sigma_prop[..., None] * f) ** 2
        each = -0.5 * ((y - f) ** 2 / variance + xp.log(2 * np.pi * variance))
        return (used * each).sum(axis=-1)


@dataclass(frozen=True)
class Censored:
    """One of the others, some rows below the limit of quantification, which stands in their place."""

    of: Scaled | Combined

    @property
    def fixed(self) -> dict[str, float]:
        """The sigma that is 0, if one is."""
        return self.of.fixed

    def sd(self, f, sigma_add, sigma_prop):
        """Of a measurement of which f is expected."""
        return self.of.sd(f, sigma_add, sigma_prop)

    def sums(self, f: np.ndarray, y: np.ndarray, used: np.ndarray) -> np.ndarray:
        """What is expected of each row [..., part]."""
        return np.where(used > 0, f, 0.0)

    def log_density(self, f, y, used, sigma_add, sigma_prop, xp: Any = np):
        """Of a group's rows [nats], from what is expected of each [..., part]."""
        sd = xp.where(used > 0, self.sd(f, sigma_add[..., None], sigma_prop[..., None]), 1.0)
        return xp.where(used > 0, log_density(y, f, sd, used == BELOW, xp), 0.0).sum(axis=-1)


def log_density(y, f, sd, below, xp: Any = np):
    """Of each row [nats]: of one that is below y, log Phi((y - f) / sd)."""
    z = (y - f) / sd
    of_below = special.log_ndtr(z) if xp is np else log_Phi(z)
    return xp.where(below, of_below, -0.5 * z**2 - xp.log(sd) - np.log(2 * np.pi) / 2)


ERRORS: dict[str, Scaled | Combined] = {
    "additive": Scaled({"sigma_prop": 0.0}, power=0),
    "proportional": Scaled({"sigma_add": 0.0}, power=1),
    "combined": Combined(),
}


def residual_error(error: str, lloq: float) -> Scaled | Combined | Censored:
    """The residual error by its name, with a limit of quantification or without one, 0.

    Examples
    --------
    >>> residual_error("additive", 0.0).power
    0
    """
    return Censored(ERRORS[error]) if lloq else ERRORS[error]
