"""What `variance_components` checks of itself: whether traits are normal, given who is related to whom."""

import numpy as np

from hbm_zoo.group_level import checks, contrasts
from hbm_zoo.group_level.checks import Check
from hbm_zoo.group_level.kept import last_kept
from hbm_zoo.models.own_checks import OF_NOISE


@last_kept
def given_others(data):
    """Of each scored row how far it lies from what the others of its site expect, over its sd, and where that is.

    At the variances of restricted maximum likelihood, a pair for each site; (P y)_i / sqrt(P_ii) is standard normal at
    the true ones, with P = W diag(1/v) W' (`contrasts`).
    """
    scores, expected = [], []
    for j in range(data.sizes["site"]):
        one, y, _ = contrasts.experiment(data, j)
        used, q = data.n.values[j] > 0, data.q.values[data.contrast_site.values == j]
        sigma_A, sigma_E, _ = contrasts.restricted_maximum(*(data[k].values[j, used] for k in ("d", "n", "SS")))
        w = 1 / np.maximum(sigma_A**2 * one.d + sigma_E**2, np.finfo(float).tiny)
        precision, Py = (one.W**2) @ w, one.W @ (w * q)
        scored = (one.W**2).sum(axis=1) >= contrasts.NO_RANK
        scores.append(Py[scored] / np.sqrt(precision[scored]))
        expected.append(y[scored] - Py[scored] / precision[scored])
    return np.concatenate(scores), np.concatenate(expected)


def asymmetry_of_rows(h, data, scores):
    """Skewness of the rows given the others."""
    return checks.asymmetry(h, data, given_others(data)[0])


def tails_of_rows(h, data, scores):
    """Kurtosis of the rows given the others."""
    return checks.tails(h, data, given_others(data)[0])


def noise_with_level(h, data, scores):
    """Spearman's correlation of how far rows lie from what others expect with what that is, over all sites."""
    found, expected = given_others(data)
    of = data.site_of.values[data.scored_row.values]
    mean = np.bincount(of, expected) / np.maximum(np.bincount(of), 1)
    return checks.correlation(np.abs(found), expected - mean[of])


OF_RELATIVES = {
    "asymmetry of rows": Check(
        compares="skewness of the rows, given their relatives",
        statistic=asymmetry_of_rows,
        more="the trait has a longer upper tail than a normal: look at its logarithm",
        fewer="the trait has a longer lower tail than a normal",
        poolings=OF_NOISE,
        of_data=True,
    ),
    "tails of rows": Check(
        compares="kurtosis of the rows, given their relatives, 3 of a normal",
        statistic=tails_of_rows,
        more="the trait has heavier tails than a normal: a few rows make much of the variance",
        fewer="the trait has lighter tails than a normal, as values that are cut off, or counted in classes, have",
        poolings=OF_NOISE,
        of_data=True,
    ),
    "noise with the level": Check(
        compares="correlation of how far rows lie from what their relatives expect with what that is",
        statistic=noise_with_level,
        more="families with large values differ by more within: look at the logarithm of the trait",
        fewer="families with large values differ by less within",
        poolings=OF_NOISE,
        of_data=True,
    ),
}
