"""A regression line in each group, with a bivariate normal population of lines.

    y | theta ~ N(X theta, sigma^2 I),    X = [1, x], one row a measurement
    theta     ~ N(mu, T),                 T from tau_intercept, tau_slope, rho

With X = Q R the data of a group enter through R (upper triangular), z = Q'y and
rss = |y - Q z|^2 alone (Golub & Van Loan 2013, section 5.3). With T = L L' and
B = R L, e = z - R mu, everything below is a sum of squares over one determinant:
nothing is inverted, nothing cancels, and tau = 0, rho = 1 or one measurement are
not special. A group whose x are all equal has r22 = z2 = 0.

Gelman & Hill (2007) Data Analysis Using Regression, section 13.3; Lindley & Smith
(1972) J R Stat Soc B 34:1-41.
"""

import numpy as np
import pytensor.tensor as pt
from scipy import special


def qr(x, y, group, groups):
    """n, R, z and rss of each group's line, from its rows: Gram-Schmidt on [1, x].

    Parameters
    ----------
    x, y : numpy.ndarray
        Covariate and response [row].
    group : numpy.ndarray
        Which group a row is of, 0 to ``groups - 1`` [row].
    groups : int
        Number of groups.

    Returns
    -------
    dict of str to numpy.ndarray
        ``n, r11, r12, r22, z1, z2, rss`` [group].
    """

    def total(values):
        return np.bincount(group, values, groups)

    n = total(np.ones_like(x))
    x_mean, y_mean = total(x) / n, total(y) / n
    dx, dy = x - x_mean[group], y - y_mean[group]
    low, high = np.full(groups, np.inf), np.full(groups, -np.inf)
    np.minimum.at(low, group, x)
    np.maximum.at(high, group, x)
    # Equal x have no slope to tell, whatever rounding leaves of their deviations.
    r22 = np.where(high > low, np.sqrt(total(dx**2)), 0.0)
    z2 = np.where(r22 > 0, total(dx * dy), 0.0) / np.where(r22 > 0, r22, 1.0)
    slope = z2 / np.where(r22 > 0, r22, 1.0)
    rss = total((dy - slope[group] * dx) ** 2)
    return {"n": n, "r11": np.sqrt(n), "r12": np.sqrt(n) * x_mean, "r22": r22, "z1": np.sqrt(n) * y_mean} | {
        "z2": z2,
        "rss": rss,
    }


def loading(r11, r12, r22, tau_intercept, tau_slope, rho):
    """B = R L = [[a, b], [c, d]]: what a standardised deviation of the line does to z."""
    along, across = tau_slope * rho, tau_slope * (1 - rho**2) ** 0.5
    return r11 * tau_intercept + r12 * along, r12 * across, r22 * along, r22 * across


def log_marginal(n, r11, r12, r22, z1, z2, rss, mu_intercept, mu_slope, tau_intercept, tau_slope, rho, sigma):
    """Log p(y | mu, T, sigma), the density of the group's rows: N(X mu, X T X' + sigma^2 I).

    The residuals have n - 2 dimensions of N(0, sigma^2), and z ~ N(R mu, S) with
    S = B B' + sigma^2 I, so that

        |S|       = sigma^4 + sigma^2 |B|^2 + det(B)^2,
        e' S^-1 e = (sigma^2 |e|^2 + |adj(B) e|^2) / |S|.
    """
    a, b, c, d = loading(r11, r12, r22, tau_intercept, tau_slope, rho)
    e1, e2 = z1 - r11 * mu_intercept - r12 * mu_slope, z2 - r22 * mu_slope
    v, det_B = sigma**2, r11 * tau_intercept * d
    det_S = v**2 + v * (a**2 + b**2 + c**2 + d**2) + det_B**2
    squares = (v * (e1**2 + e2**2) + (d * e1 - b * e2) ** 2 + (a * e2 - c * e1) ** 2) / det_S
    return -0.5 * (n * np.log(2 * np.pi) + (n - 2) * pt.log(v) + rss / v + pt.log(det_S) + squares)


def random(n, r11, r12, r22, mu_intercept, mu_slope, tau_intercept, tau_slope, rho, sigma, rng=None, size=None):
    """Draw z1, z2, rss [..., 3] of new data on the same x, the line integrated out."""
    parts = np.broadcast_arrays(n, r11, r12, r22, mu_intercept, mu_slope, tau_intercept, tau_slope, rho, sigma)
    shape = parts[0].shape if size is None else size
    a, b, c, d = loading(r11, r12, r22, tau_intercept, tau_slope, rho)
    u1, u2, noise1, noise2 = rng.standard_normal((4, *shape))
    z1 = r11 * mu_intercept + r12 * mu_slope + a * u1 + b * u2 + sigma * noise1
    z2 = r22 * mu_slope + c * u1 + d * u2 + sigma * noise2 * (r22 > 0)
    freedom = np.broadcast_to(n - 1 - (r22 > 0), shape)
    rss = sigma**2 * np.where(freedom > 0, rng.chisquare(np.maximum(freedom, 1)), 0.0)
    return np.stack(np.broadcast_arrays(z1, z2, rss), axis=-1)


def conditional(r11, r12, r22, z1, z2, mu_intercept, mu_slope, tau_intercept, tau_slope, rho, sigma):
    """mu, tau and rho of theta | y: mean mu + K (z - R mu) and variance T - K R T, K = T R' S^-1.

    Written for the standardised deviation u of the line, theta = mu + L u, with
    u | y ~ N((sigma^2 B'e + det(B) adj(B) e) / |S|, sigma^2 (B'B + sigma^2 I)^-1), because
    T - K R T loses all its digits once the data say more than the population.
    """
    a, b, c, d = loading(r11, r12, r22, tau_intercept, tau_slope, rho)
    e1, e2 = z1 - r11 * mu_intercept - r12 * mu_slope, z2 - r22 * mu_slope
    v, det_B, across = sigma**2, r11 * tau_intercept * d, (1 - rho**2) ** 0.5
    det_S = v**2 + v * (a**2 + b**2 + c**2 + d**2) + det_B**2
    u1 = (v * (a * e1 + c * e2) + det_B * (d * e1 - b * e2)) / det_S
    u2 = (v * (b * e1 + d * e2) + det_B * (a * e2 - c * e1)) / det_S
    # The lower Cholesky factor of u's variance, and the row of L in it that is the slope's.
    g22 = v + b**2 + d**2
    c11, c21, c22 = sigma * (g22 / det_S) ** 0.5, -sigma * (a * b + c * d) / (g22 * det_S) ** 0.5, sigma / g22**0.5
    w1, w2 = rho * c11 + across * c21, across * c22
    length = (w1**2 + w2**2) ** 0.5
    return (
        mu_intercept + tau_intercept * u1,
        mu_slope + tau_slope * (rho * u1 + across * u2),
        tau_intercept * c11,
        tau_slope * length,
        (w1 / length).clip(-1, 1),
    )


def reliability(r11, r12, r22, tau_intercept, tau_slope, rho, sigma):
    """Kappa = 1 - V_kk / T_kk of intercept and slope, 0 where the population is a point.

    With l the unit row of L, L_k = tau_k l: kappa_k = (sigma^2 |B l|^2 + det(B)^2) / |S|.
    """
    a, b, c, d = loading(r11, r12, r22, tau_intercept, tau_slope, rho)
    v, det_B, across = sigma**2, r11 * tau_intercept * d, (1 - rho**2) ** 0.5
    det_S = v**2 + v * (a**2 + b**2 + c**2 + d**2) + det_B**2
    of_slope = (a * rho + b * across) ** 2 + (c * rho + d * across) ** 2
    return (v * (a**2 + c**2) + det_B**2) / det_S, (v * of_slope + det_B**2) / det_S


def log_leave_row_out(y, mean, variance, sigma):
    """Log p(y_i | the group's other rows), from the line's fit to all of them at x_i.

    Parameters
    ----------
    y
        The response of the row.
    mean, variance
        Mean and variance of the line at x_i given all the group's rows.
    sigma
        Noise of a measurement.

    Notes
    -----
    With h = variance / sigma^2: N(y - (y - mean)/(1 - h), sigma^2/(1 - h)), since (1 - h)/sigma^2 is
    row i of the diagonal of the inverse marginal covariance (Sundararajan & Keerthi 2001,
    Neural Comput 13:1103-1118).
    """
    rest = 1 - variance / sigma**2
    return -0.5 * (np.log(2 * np.pi * sigma**2 / rest) + (y - mean) ** 2 / (rest * sigma**2))


def row_tails(y, mean, variance, sigma):
    """Probabilities of no more than y_i, and of no less, given the group's other rows; as of `log_leave_row_out`."""
    score = (y - mean) / np.sqrt(sigma**2 - variance)
    return special.ndtr(score), special.ndtr(-score)


def tails(r11, r12, r22, z1, z2, mu_intercept, mu_slope, tau_intercept, tau_slope, rho, sigma):
    """Probabilities of no more than z1, and of no less; then of z2 given z1. NaN of a z2 that says nothing, r22 = 0."""
    a, b, c, d = loading(r11, r12, r22, tau_intercept, tau_slope, rho)
    e1, e2 = z1 - r11 * mu_intercept - r12 * mu_slope, z2 - r22 * mu_slope
    first, second, across = a**2 + b**2 + sigma**2, c**2 + d**2 + sigma**2, a * c + b * d
    given = (e2 - across / first * e1) / np.sqrt(second - across**2 / first)
    scores = e1 / np.sqrt(first), given.where(r22 > 0)
    return tuple(tuple(special.ndtr(sign * score) for score in scores) for sign in (1, -1))
