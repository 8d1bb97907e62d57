"""What is asked where a group is integrated on nodes: its shape among groups, and its rows, each given the others."""

import numpy as np
from scipy import special

from hbm_zoo.group_level import checks
from hbm_zoo.group_level.checks import Check

SHAPE = Check(
    compares="Shapiro and Francia's W of log {coefficient} of the {groups}, 1 of a normal population",
    statistic=checks.normality,
    fewer="log {coefficient} is not normal over {groups}; {farthest} lies farthest out",
    poolings=("partial",),
    of_draws=True,
)


def given_others(y, f, sd, weight):
    """Of each row its normal score given the others of its group, and what these expect.

    Over what is known of theta_j without the row: weights of nodes over its density there (Gelfand, Dey & Chang
    1992, Bayesian Statistics 4).

    Parameters
    ----------
    y : numpy.ndarray
        What was measured [row].
    f, sd : numpy.ndarray
        What is expected at the nodes, and its error [row, node].
    weight : numpy.ndarray
        Of each node after all rows of the group [row, node].
    """
    with np.errstate(all="ignore"):
        z = (y[:, None] - f) / sd
        left = special.softmax(np.where(weight > 0, np.log(weight) + z**2 / 2 + np.log(sd), -np.inf), axis=-1)
        expected = (left * np.where(weight > 0, f, 0.0)).sum(axis=-1)
        ends = ((left * np.where(weight > 0, special.ndtr(side), 0.0)).sum(axis=-1) for side in (z, -z))
    return checks.normal_scores(*ends), expected


def neighbours(z, series, time):
    """Correlation of the scores [row] of rows of one series that follow one another."""
    order = np.lexsort((time, series))
    z, beside = z[order], np.diff(series[order]) == 0
    one, other = z[:-1][beside], z[1:][beside]
    total = np.sqrt((one**2).sum() * (other**2).sum())
    return float((one * other).sum() / total) if total > 0 else 0.0


def between(z, group):
    """F of the scores [row] between groups."""
    which = np.unique(group, return_inverse=True)[1]
    return checks.f_ratio(z, which) if which.size and which.max() > 0 else 0.0
