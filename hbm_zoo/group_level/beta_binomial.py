"""Successes among trials with a Beta population of probabilities.

    y_j | p_j ~ Binomial(n_j, p_j)
    p_j       ~ Beta with mean mu and spread phi

In the usual letters the Beta has a = mu/phi^2 and b = (1 - mu)/phi^2, as if 1/phi^2
trials had been seen before (Gelman et al., BDA3, sections 2.4 and 5.3), and its sd is
sqrt(mu (1 - mu)) phi / sqrt(1 + phi^2). Everything here is written in v = phi^2 instead,
because phi -> 0, where all groups become one, must be a number and not a limit.
"""

import numpy as np
import pytensor.tensor as pt
import xarray as xr
from scipy import special

from hbm_zoo.group_level.poisson_gamma import (
    expected_log_rate,
    log_rising_factorial,
    log_standardised_gamma,
    random_standardised_gamma,
)

#: Spreads below which tails are taken to be those of this one: gamma functions of 1 / phi^2 lose their digits.
LEAST_PHI = 1e-4
CELLS_AT_ONCE = 400_000


def log_marginal(y, n, mu, phi):
    """Log p(y | n, mu, phi): the beta-binomial, exact from phi = 0 to 1e7 trials.

    The textbook density C(n, y) B(a + y, b + n - y) / B(a, b) is that of Polya's urn,

        C(n, y) prod_{i < y} (mu + i v) prod_{i < n - y} (1 - mu + i v) / prod_{i < n} (1 + i v),

    with v = phi^2; on the log scale its products are sums S of `log_rising_factorial`.
    """
    v = phi**2
    return _log_choose(n, y) + _log_product(y, mu, v) + _log_product(n - y, 1 - mu, v) - log_rising_factorial(n, v)


def _log_product(k, share, v):
    """Log prod_{i < k} (share + i v)."""
    return k * pt.log(share) + log_rising_factorial(k, v / share)


def _log_choose(n, y):
    return pt.gammaln(n + 1.0) - pt.gammaln(y + 1.0) - pt.gammaln(n - y + 1.0)


def random(n, mu, phi, rng=None, size=None):
    """Draw y with p integrated out: p ~ Beta(mean mu, phi), then y ~ Binomial(n, p)."""
    return rng.binomial(n, rng.beta(mu / phi**2, (1 - mu) / phi**2, size=size))


def halves(y, n, rng):
    """Deal the trials into two halves: given p, two independent binomials.

    Which y1 of the y successes fall among the first half's n1 trials is hypergeometric, whatever p is.
    A coin gives the odd trial to one of the halves.

    Returns
    -------
    (y1, n1), (y2, n2)
        Successes and trials of each half.
    """
    n1 = (n + rng.integers(0, 2, np.shape(n))) // 2
    y1 = rng.hypergeometric(y, n - y, n1)
    return (y1, n1), (y - y1, n - n1)


def conditional(y, n, mu, phi):
    """P | y, n, mu, phi: again a Beta, with mean (a + y)/(a + b + n) and a + b + n trials seen."""
    v = phi**2
    return (mu + v * y) / (1 + v * n), phi / np.sqrt(1 + v * n)


def reliability(n, phi):
    """Kappa = n / (n + a + b): the weight of a group's own data, the same for every mu."""
    return n * phi**2 / (1 + n * phi**2)


def expected_logs(mean, phi):
    """E[log p] = digamma(a) - digamma(a + b) and E[log(1 - p)] of a Beta, for the expected log likelihood.

    A Beta is X / (X + Y) with Gammas of shapes a and b, independent of their sum: its expected logs
    are differences of theirs, stable as phi -> 0.
    """
    of_sum = expected_log_rate(1.0, phi)
    return tuple(expected_log_rate(share, phi / np.sqrt(share)) - of_sum for share in (mean, 1 - mean))


def log_standardised_logit(z, mu, phi):
    """Log p(z | mu, phi) for z = (logit p - logit mu) sqrt(mu (1 - mu)) / phi: standard normal as phi -> 0.

    The noncentered form: p = expit(logit mu + x), x = phi z / sqrt(mu (1 - mu)), and z has a density
    with next to no scale left in it. With K(x) = log(1 - mu + mu e^x), which generates the cumulants of
    one trial, it is proportional to exp(-(K(x) - mu x) / v); and its height at 0 is made of the heights
    of the three Gammas of which a Beta is made, for Stirling's leading terms cancel.
    """
    at_mean = (
        log_standardised_gamma(0.0, phi / pt.sqrt(mu))
        + log_standardised_gamma(0.0, phi / pt.sqrt(1 - mu))
        - log_standardised_gamma(0.0, phi)
    )
    return at_mean - z**2 * _relative_cumulants(phi * z / pt.sqrt(mu * (1 - mu)), mu)


def _relative_cumulants(x, mu):
    """(K(x) - mu x) / (mu (1 - mu) x^2), by the series of the cumulants for |x| < 1e-2; 1/2 at x = 0."""
    variance, skew = mu * (1 - mu), 1 - 2 * mu
    fourth, sixth = 1 - 6 * variance, 1 - 30 * variance * (1 - 4 * variance)
    fifth = skew * (1 - 12 * variance)
    series = 1 / 2 + x * (skew / 6 + x * (fourth / 24 + x * (fifth / 120 + x * sixth / 720)))
    small = pt.abs(x) < 1e-2
    far = pt.switch(small, 1.0, x)
    # Far out K rises by 1 for 1, where exp(x) would overflow.
    K = pt.log1p(mu * pt.expm1(pt.minimum(far, 500.0))) + pt.maximum(far - 500.0, 0.0)
    return pt.switch(small, series, (K - mu * far) / (variance * far**2))


def random_standardised_logit(mu, phi, rng=None, size=None):
    """Draw z: the log odds of a Beta are the difference of the logs of two Gammas."""
    success = random_standardised_gamma(phi / np.sqrt(mu), rng=rng, size=size)
    failure = random_standardised_gamma(phi / np.sqrt(1 - mu), rng=rng, size=size)
    return np.sqrt(1 - mu) * success - np.sqrt(mu) * failure


def tails(y, n, mu, phi):
    """Probabilities of no more than y, and of no less: the terms of the shorter end are summed, group by group."""
    at, (group,) = xr.broadcast(xr.DataArray(mu), xr.DataArray(phi)), y.dims
    by_group = [
        _ends(y_j, n_j, *(each.isel({group: j}, missing_dims="ignore").values for each in at))
        for j, (y_j, n_j) in enumerate(zip(y.values, n.values, strict=True))
    ]
    template = xr.broadcast(at[0], y)[0].transpose(..., group)
    return tuple(template.copy(data=np.stack(end, axis=-1)) for end in zip(*by_group, strict=True))


def _ends(y, n, mu, phi):
    """Sums of the terms up to y and from y on [...]; of many draws the terms are held one by one."""
    short = 2 * y <= n
    k = np.arange(y + 1) if short else np.arange(n, y - 1, -1)
    end = last = 0.0
    for some in np.array_split(k, max(1, k.size * mu.size // CELLS_AT_ONCE)):
        each = np.exp(_log_probability(some, n, mu[..., None], phi[..., None]))
        end, last = end + each.sum(axis=-1), each[..., -1]
    return (end, 1 - end + last) if short else (1 - end + last, end)


def _log_probability(k, n, mu, phi):
    """Of k successes, by gamma functions: as good as `log_marginal` for sums, and cheap."""
    v = np.maximum(phi, LEAST_PHI) ** 2
    a, b = mu / v, (1 - mu) / v
    ways = special.gammaln(n + 1) - special.gammaln(k + 1) - special.gammaln(n - k + 1)
    return ways + special.betaln(a + k, b + n - k) - special.betaln(a, b)
