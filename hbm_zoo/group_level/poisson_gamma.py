"""Counts with a Gamma population of rates.

    O_j | lam_j ~ Poisson(E_j lam_j)
    lam_j       ~ Gamma with mean mu and coefficient of variation cv

In the usual letters the Gamma has shape a = 1/cv^2 and rate b = a/mu (Gelman et
al., BDA3, section 2.6). Everything here is written in v = cv^2 instead, because
cv -> 0, where the hospitals become one, must be a number and not a limit.
"""

import numpy as np
import pytensor.tensor as pt
import xarray as xr
from scipy import special

from hbm_zoo.group_level.compression import compress
from hbm_zoo.group_level.special import log1p_ratio, log1p_ratio_minus_one, stirling_tail

EXPLICIT_TERMS = 16
LARGEST_MEAN = 1e18
#: Spreads below which tails are those of a Poisson: they differ by less than rounding.
LEAST_CV = 1e-7


def log_marginal(O, E, mu, cv):
    """Log p(O | mu, cv): the negative binomial, exact from cv = 0 to counts of 1e7.

    With m = E mu and v = cv^2 the textbook density is
    Gamma(O + a)/(Gamma(a) O!) (m/(m + a))^O (a/(m + a))^a, a = 1/v. Its log is

        S + O log m - O log(1 + v m) - log(1 + v m)/v - log O!,
        S = sum_{k < O} log(1 + k v),

    where S is the rising factorial a (a + 1) ... (a + O - 1) / a^O on the log
    scale. The difference of two log-gammas would lose everything as v -> 0.
    """
    m, x = E * mu, E * (mu * cv**2)
    log1p_x = pt.log1p(x)
    S = log_rising_factorial(O, cv**2)
    return S + O * (pt.log(m) - log1p_x) - m * log1p_ratio(x, log1p_x) - pt.gammaln(O + 1.0)


def log_rising_factorial(O, v):
    """sum_{k < O} log(1 + k v): sixteen terms one by one, the rest by Stirling's series."""
    O, v = pt.as_tensor(O), pt.as_tensor(v)
    k = np.arange(1.0, EXPLICIT_TERMS).reshape(-1, *[1] * max(O.ndim, v.ndim))
    head = pt.switch(pt.gt(O, k), pt.log1p(k * v), 0.0).sum(axis=0)
    n = pt.maximum(O - EXPLICIT_TERMS, 0)
    w = v / (1 + EXPLICIT_TERMS * v)
    u = n * w
    log1p_u = pt.log1p(u)
    tail = (
        n * (log1p_ratio_minus_one(u, log1p_u) + pt.log1p(EXPLICIT_TERMS * v))
        + (n - 0.5) * log1p_u
        + stirling_tail(w / (1 + u))
        - stirling_tail(w)
    )
    return head + pt.switch(pt.gt(O, EXPLICIT_TERMS), tail, 0.0)


def sufficient(O, E):
    """What sums of `log_marginal` over all groups depend on, some hundred numbers however many the groups.

    Every term is log(1 + t x): S has t = v at the whole numbers k below a count, ``above`` being
    how many counts lie above k; the rest has t = mu v at the sizes E, summed once for each event
    and once for each group. `compress` keeps all such sums.
    """
    steps, above = compress(*whole_numbers_below(O))
    sizes, (events, groups) = compress(E, np.stack([O, np.ones_like(E)]))
    constant = np.sum(special.xlogy(O, E) - special.gammaln(O + 1))
    return {"steps": steps, "above": above, "sizes": sizes, "events": events, "groups": groups, "constant": constant}


def whole_numbers_below(O):
    """Points and weights with sum_j sum_{0 < k < O_j} f(k), f(k) = log(1 + k v), for counts as large as 2e9.

    Up to 2^17 the points are the k themselves. Beyond, 65,536 blocks an octave, each by the two
    points that have its mean and variance: exact for cubics, and f is one there to the last digit.
    """
    octaves = range(17, max(17, int(O.max(initial=0)).bit_length()))
    singles = np.arange(1, min(2**17, O.max(initial=0) + 1))
    starts = np.concatenate([singles, *(2**e + 2 ** (e - 16) * np.arange(2**16) for e in octaves)])
    sizes = np.concatenate([np.ones_like(singles), *(np.full(2**16, 2 ** (e - 16)) for e in octaves)])
    some = O[O > 1]
    whole = some.size - np.searchsorted(np.sort(some), starts + sizes)
    last = np.searchsorted(starts, some, side="right") - 1
    start, size = np.concatenate([starts, starts[last]]), np.concatenate([sizes, some - starts[last]])
    middle, apart = start + (size - 1) / 2, np.sqrt(np.maximum(size**2 - 1, 0) / 12)
    weight = np.concatenate([whole, np.ones(some.size)]) * size / 2
    used = weight > 0
    return np.concatenate([(middle - apart)[used], (middle + apart)[used]]), np.tile(weight[used], 2)


def log_joint(steps, above, sizes, events, groups, constant, mu, cv):
    """Sum of `log_marginal` over all groups, from what is `sufficient`."""
    m, x = sizes * mu, sizes * (mu * cv**2)
    log1p_x = pt.log1p(x)
    S = (above * pt.log1p(steps * cv**2)).sum()
    of_sizes = events * (pt.log(mu) - log1p_x) - groups * m * log1p_ratio(x, log1p_x)
    return S + of_sizes.sum() + constant


def random(E, mu, cv, rng=None, size=None):
    """Draw O with lam integrated out: lam ~ Gamma(mean mu, cv), then O ~ Poisson(E lam)."""
    return counts(rng, E * rng.gamma(1 / cv**2, mu * cv**2, size=size))


def counts(rng, mean):
    """Draw Poisson counts; a mean of 1e18, as a heavy prior may have, stands for all beyond, where integers end."""
    return rng.poisson(np.minimum(mean, LARGEST_MEAN))


def conditional(O, E, mu, cv):
    """Lam | O, mu, cv: again a Gamma, with mean (O + a)/(E + b) and shape a + O."""
    v = cv**2
    return mu * (1 + v * O) / (1 + v * mu * E), cv / np.sqrt(1 + v * O)


def reliability(E, mu, cv):
    """E / (E + b): the weight of a hospital's own data (Christiansen & Morris 1997)."""
    m = mu * E
    return m * cv**2 / (1 + m * cv**2)


def expected_log_rate(mean, cv):
    """E[log lam] = digamma(a) - log b for a Gamma with this mean and cv."""
    v = cv**2
    a = 1 / xr.where(v < 1e-4, 1.0, v)
    return np.log(mean) + xr.where(v < 1e-4, -v / 2 - v**2 / 12, special.digamma(a) - np.log(a))


def log_standardised_gamma(z, cv):
    """Log p(z | cv) for z = log(lam / mu) / cv: standard normal as cv -> 0.

    The noncentered form: lam = mu exp(cv z), and z has a density with no scale
    left in it, so the funnel of the centered form is gone.
    """
    v, x = cv**2, cv * z
    small = pt.abs(x) < 1e-2
    safe = pt.switch(small, 1.0, x)
    series = -(z**2) * (1 / 2 + x / 6 + x**2 / 24 + x**3 / 120 + x**4 / 720)
    return _log_normaliser(v) + pt.switch(small, series, (safe - pt.expm1(safe)) / v)


def _log_normaliser(v):
    """A log a - a - log Gamma(a) + log cv, a = 1/v, by Stirling's series where a > 25."""
    small = v < 0.04
    stirling = -0.5 * np.log(2 * np.pi) - stirling_tail(pt.switch(small, v, 0.0))
    a = 1 / pt.switch(small, 1.0, v)
    return pt.switch(small, stirling, (a - 0.5) * pt.log(a) - a - pt.gammaln(a))


def random_standardised_gamma(cv, rng=None, size=None):
    """Draw z = log(lam / mu) / cv. A draw of lam below the smallest float is that float."""
    a = 1 / cv**2
    lam = np.maximum(rng.gamma(a, 1 / a, size=size), np.finfo(float).tiny)
    return np.log(lam) / cv


def tails(O, E, mu, cv):
    """Probabilities of no more than O, and of no less: the negative binomial, at cv = 0 the Poisson.

    Both are incomplete betas (Abramowitz & Stegun 1964, 26.5.26), so that each tail keeps its digits.
    """
    return xr.apply_ufunc(_tails, O, E, mu, cv, output_core_dims=[[], []])


def _tails(O, E, mu, cv):
    m, v = E * mu, np.maximum(cv, LEAST_CV) ** 2
    mixed = cv > LEAST_CV
    if not np.any(mixed):
        lower, upper = _tails_of_poisson(O, m)
    elif np.all(mixed):
        lower, upper = _tails_of_mixture(O, m, v)
    else:
        both = zip(_tails_of_mixture(O, m, v), _tails_of_poisson(O, m), strict=True)
        lower, upper = (np.where(mixed, *pair) for pair in both)
    return lower, np.where(O > 0, upper, 1.0)


def _tails_of_poisson(O, m):
    return special.gammaincc(O + 1, m), special.gammainc(np.maximum(O, 1), m)


def _tails_of_mixture(O, m, v):
    odds = m * v
    lower = special.betainc(1 / v, O + 1.0, 1 / (1 + odds))
    return lower, special.betainc(np.maximum(O, 1.0), 1 / v, odds / (1 + odds))
