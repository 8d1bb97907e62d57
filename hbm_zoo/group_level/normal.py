"""Normal measurements of a normal population.

    y_j | theta_j ~ N(theta_j, se_j^2)
    theta_j       ~ N(mu, tau^2)

A group of n rows, each N(theta, sigma^2), is one such measurement, its mean with
se^2 = sigma^2 / n, and what its rows say of sigma alone (`log_within`).
Gelman et al., BDA3, sections 2.5, 5.4 and 11.6.
"""

import numpy as np
import pytensor.tensor as pt
from scipy import special

LOG_2PI = np.log(2 * np.pi)


def log_marginal(y, se, mu, tau):
    """Log p(y | mu, tau): N(mu, tau^2 + se^2)."""
    variance = tau**2 + se**2
    return -0.5 * (LOG_2PI + pt.log(variance) + (y - mu) ** 2 / variance)


def log_marginal_rows(y_bar, n, SS, mu, tau, sigma):
    """Log density of a group's n rows: N(mu 1, sigma^2 I + tau^2 J), from their statistics."""
    return log_marginal(y_bar, sigma / pt.sqrt(n), mu, tau) + log_within(n, SS, sigma)


def log_within(n, SS, sigma):
    """Log density of n rows given their mean; SS is the sum of squares around it.

    The n - 1 contrasts of the rows are N(0, sigma^2); -log(n)/2 takes the density of
    the mean to that of the contrast sum / sqrt(n).
    """
    return -0.5 * ((n - 1) * (LOG_2PI + 2 * pt.log(sigma)) + SS / sigma**2 + pt.log(n))


def random(se, mu, tau, rng=None, size=None):
    """Draw y with theta integrated out."""
    return rng.normal(mu, np.sqrt(tau**2 + se**2), size=size)


def random_mean(n, SS, mu, tau, sigma, rng=None, size=None):
    """Draw the mean of a group's n rows with theta integrated out; SS says nothing of it."""
    return random(sigma / np.sqrt(n), mu, tau, rng=rng, size=size)


def conditional(y, se, mu, tau):
    """Mean and sd of theta | y, mu, tau: N(kappa y + (1 - kappa) mu, kappa se^2)."""
    kappa = reliability(se, tau)
    return kappa * y + (1 - kappa) * mu, np.sqrt(kappa) * se


def tails(y, se, mu, tau):
    """Probabilities of no more than y, and of no less, under N(mu, tau^2 + se^2)."""
    score = (y - mu) / np.sqrt(tau**2 + se**2)
    return special.ndtr(score), special.ndtr(-score)


def reliability(se, tau):
    """Kappa = tau^2 / (tau^2 + se^2): the weight of the measurement."""
    return tau**2 / (tau**2 + se**2)


def log_density(y, mean, variance):
    """Log N(y; mean, variance) on labelled arrays."""
    return -0.5 * (LOG_2PI + np.log(variance) + (y - mean) ** 2 / variance)


def expected_log_density(y, se, mean, sd):
    """E[log N(y; theta, se^2)] over theta ~ N(mean, sd^2)."""
    return log_density(y, mean, se**2) - 0.5 * (sd / se) ** 2


def expected_log_density_rows(y_bar, n, SS, mean, sd, sigma):
    """E[log N(rows; theta, sigma^2)] over theta ~ N(mean, sd^2); sd = 0 is a given theta."""
    squares = SS + n * ((y_bar - mean) ** 2 + sd**2)
    return -0.5 * (n * (LOG_2PI + 2 * np.log(sigma)) + squares / sigma**2)


def leave_row_out(y, y_bar, n, mu, tau, sigma):
    """Log density of a row given the other n - 1 rows of its group, theta integrated out."""
    return log_density(y, *left_out(y, y_bar, n, mu, tau, sigma))


def row_tails(y, y_bar, n, mu, tau, sigma):
    """Probabilities of no more than a row, and of no less, given the other n - 1 rows of its group."""
    mean, variance = left_out(y, y_bar, n, mu, tau, sigma)
    return tails(y, np.sqrt(variance), mean, 0.0)


def left_out(y, y_bar, n, mu, tau, sigma):
    """Mean and variance of a row given the other n - 1 rows of its group, theta integrated out.

    The others shift theta's mean by tau^2 sum(y_k - mu) / (sigma^2 + (n - 1) tau^2) and leave it
    the variance tau^2 sigma^2 / (sigma^2 + (n - 1) tau^2); alone, a row is of a new group.
    """
    precision = sigma**2 + (n - 1) * tau**2
    return mu + tau**2 * (n * (y_bar - mu) - (y - mu)) / precision, sigma**2 * (1 + tau**2 / precision)


def are_the_same(y, n, SS):
    """Whether all rows have one value but for rounding; and whether those of each group of several have."""
    rounding = 8 * np.finfo(float).eps * float(abs(y).max())
    return float(y.max() - y.min()) <= rounding, bool(n.max() > 1 and float(SS.sum() / n.sum()) <= rounding**2)


def moments_by_group(y, group):
    """Count, mean and centred sum of squares of each group, by the corrected two-pass algorithm.

    The second pass repairs the rounding of the first: exact to the last digits even where
    the mean is 1e8 times the spread (Chan, Golub & LeVeque 1983, Am Stat 37:242-247).
    """
    n = np.bincount(group)
    y_bar = np.bincount(group, y) / n
    deviation = y - y_bar[group]
    shift = np.bincount(group, deviation) / n
    SS = np.bincount(group, deviation**2) - n * shift**2
    return n, y_bar + shift, np.maximum(SS, 0)
