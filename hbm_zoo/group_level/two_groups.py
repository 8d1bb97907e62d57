"""A normal measurement of an effect that is exactly 0 in a share of the groups.

    y_g | theta_g ~ N(theta_g + delta0 se_g, (sigma0 se_g)^2)
    theta_g       = 0 with probability pi0, else ~ N(mu, tau^2)

The two-groups model (Efron 2008, Statist Sci 23:1-22, section 2) with a normal slab.
delta0 and sigma0 are the centre and the width of the empirical null (Efron 2004, J Am
Stat Assoc 99:96-104); 0 and 1 are the theoretical one. pi0 = 0 is the normal family,
tau = 0 a slab that is a point: both are numbers here and not limits.
"""

import numpy as np
import pytensor.tensor as pt
from scipy import special

from hbm_zoo.group_level import normal


def log_marginal(y, se, pi0, mu, tau, delta0, sigma0):
    """Log p(y): pi0 N(y'; 0, s^2) + (1 - pi0) N(y'; mu, s^2 + tau^2), y' and s as the null sees them."""
    return log_kernel(y, se, pi0, mu, tau, delta0, sigma0) - pt.log(se)


def log_kernel(y, se, pi0, mu, tau, delta0, sigma0):
    """What is left of `log_marginal` without - log se, which no parameter changes.

    In units of s the slab is wider by 1/r and the density is

        (pi0 exp(-z^2/2) + (1 - pi0) r exp(-r^2 (z - mu/s)^2/2)) / (s sqrt(2 pi)),
        z = y'/s, r = s/sqrt(s^2 + tau^2),

    the larger exponential taken out, so that one is left.
    """
    y, s = centred(y, se, delta0, sigma0)
    r2 = 1 / (1 + (tau / s) ** 2)
    null = pt.log(pi0) - (y / s) ** 2 / 2
    slab = pt.log1p(-pi0) - r2 * ((y - mu) / s) ** 2 / 2
    r, smaller = pt.sqrt(r2), pt.exp(-pt.abs(null - slab))
    mixed = pt.log(pt.switch(null > slab, 1 + r * smaller, smaller + r))
    return pt.maximum(null, slab) + mixed - pt.log(sigma0) - 0.5 * np.log(2 * np.pi)


def random(se, pi0, mu, tau, delta0, sigma0, rng=None, size=None):
    """Draw y with the indicator and the effect both integrated out."""
    noise = rng.normal(delta0 * se, sigma0 * se, size=size)
    return noise + np.where(rng.random(size=noise.shape) < pi0, 0.0, rng.normal(mu, tau, size=noise.shape))


def centred(y, se, delta0, sigma0):
    """The measurement as the null sees it: y' = y - delta0 se, s = sigma0 se."""
    return y - delta0 * se, sigma0 * se


def conditional(y, se, pi0, mu, tau, delta0, sigma0):
    """The spike and slab after y: local false discovery rate, mean and sd of the slab.

    lfdr = pi0 N(y'; 0, s^2) / p(y), the probability that theta is 0 (Efron 2008).
    """
    y, s = centred(y, se, delta0, sigma0)
    log_ratio = 0.5 * (np.log1p((tau / s) ** 2) - (y / s) ** 2 + (y - mu) ** 2 / (s**2 + tau**2))
    return special.expit(special.logit(pi0) + log_ratio), *normal.conditional(y, s, mu, tau)


def tails(y, se, pi0, mu, tau, delta0, sigma0):
    """Probabilities of no more than y, and of no less: of the null and of the slab, in their shares."""
    y, s = centred(y, se, delta0, sigma0)
    both = zip(normal.tails(y, s, 0.0, 0.0), normal.tails(y, s, mu, tau), strict=True)
    return tuple(pi0 * null + (1 - pi0) * slab for null, slab in both)
