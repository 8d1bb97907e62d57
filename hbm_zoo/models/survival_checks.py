"""What `selection_gradients` of animals that lived or died checks of itself: slopes, and that they are enough."""

import numpy as np
from scipy.special import expit

from hbm_zoo.group_level import checks
from hbm_zoo.group_level.checks import Check
from hbm_zoo.group_level.survival import animals, near_likeliest
from hbm_zoo.models.own_checks import OF_NOISE


def by_year(data):
    """Of each year the traits of its animals, who survived, the likeliest intercept and slope, and their covariance."""
    for j in range(data.sizes["year"]):
        z, survived = animals(data, j)
        yield z, survived, *near_likeliest(z, survived)


def curvature(h, data, _):
    """Signed root of the score test of z^2 in the log odds, one coefficient for all years (Rao 1948).

    Proc Camb Phil Soc 44:50-57. What z^2 shares with intercept and slope of its year is taken away.
    """
    score = information = 0.0
    for z, survived, (alpha_0, alpha), covariance in by_year(data):
        p, X = expit(alpha_0 + alpha * z), np.column_stack([np.ones(z.size), z])
        w, q = p * (1 - p), z**2
        left = q - X @ (covariance @ (X.T @ (w * q)))
        score, information = score + left @ (survived - p), information + w @ left**2
    return float(score / np.sqrt(information)) if information > 0 else 0.0


def differences(h, data, _):
    """Q = sum of (alpha_t - their mean)^2 / se_t^2 of the likeliest slopes (Cochran 1954, Biometrics 10:101-129)."""
    slopes, variances = np.array([(at[1], covariance[1, 1]) for _, _, at, covariance in by_year(data)]).T
    mean = np.average(slopes, weights=1 / variances)
    return float(((slopes - mean) ** 2 / variances).sum())


OF_YEARS = {
    "spread": Check(
        compares="Cochran's Q of the likeliest slopes, were there one for all {groups}",
        statistic=differences,
        more="{groups} differ by more than chance",
        poolings=("complete",),
        of_data=True,
    ),
    "shape": Check(
        compares="Shapiro and Francia's W of the slopes of the {groups}, 1 of a normal population",
        statistic=checks.normality,
        fewer="slopes are not normal over {groups}; {farthest} lies farthest out",
        poolings=("partial",),
        of_draws=True,
    ),
    "curvature": Check(
        compares="signed root of the score test of a square of the trait in the log odds of survival",
        statistic=curvature,
        more="survival is higher at both ends of the trait than a slope has it: selection is disruptive, too",
        fewer="survival is highest within the trait, as a slope cannot have it: selection stabilises, too",
        poolings=OF_NOISE,
        of_data=True,
    ),
}
