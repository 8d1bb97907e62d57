"""What `reaction_norms` checks of itself: whether lines are straight, and their noise alike."""

import numpy as np
import xarray as xr

from hbm_zoo.group_level import checks, normal_regression
from hbm_zoo.group_level.checks import Check
from hbm_zoo.models.own_checks import OF_NOISE

HYPERPARAMETERS = ["mu_intercept", "mu_slope", "tau_intercept", "tau_slope", "rho", "sigma"]
COEFFICIENT = xr.DataArray(["intercept", "slope"], dims="coefficient", name="coefficient")


def tails_of_lines(h, data):
    """Probabilities of no more than z1, then of z2 given z1, and of no less: what a genotype's own line is made of."""
    of_data = (data[name] for name in ("r11", "r12", "r22", "z1", "z2"))
    ends = normal_regression.tails(*of_data, *(h[name] for name in HYPERPARAMETERS))
    return tuple(xr.concat(xr.broadcast(*end), COEFFICIENT) for end in ends)


def lines_with_response(data, response):
    """The same rows with other responses."""
    statistics = normal_regression.qr(data.x.values, response, data.of_genotype.values, data.sizes["genotype"])
    fresh = {name: ("genotype", values) for name, values in statistics.items()}
    return data.assign(response=("observation", response), **fresh)


def about_own_lines(data):
    """Residuals [row] from each genotype's own line, their leverage taken off, x from its mean, and whose each is."""
    of, x, y = data.of_genotype.values, data.x.values, data.response.values
    n = np.bincount(of)
    from_mean = x - (np.bincount(of, x) / n)[of]
    squares = np.bincount(of, from_mean**2)[of]
    flat = data.r22.values[of] == 0
    slope = np.where(flat, 0.0, (data.z2.values / np.where(data.r22.values > 0, data.r22.values, 1.0))[of])
    residual = y - (np.bincount(of, y) / n)[of] - slope * from_mean
    freedom = 1 - 1 / n[of] - np.where(flat, 0.0, from_mean**2 / np.where(flat, 1.0, squares))
    spare = freedom > 1e-9
    return np.where(spare, residual / np.sqrt(np.where(spare, freedom, 1.0)), 0.0), spare, from_mean, of


def curvature(h, data, scores):
    """Student's t of a square of the environment that all lines share, beside a line for each genotype."""
    of, x, y = data.of_genotype.values, data.x.values, data.response.values
    (of_square, of_y), n = (about_line(data, values) for values in (x**2, y)), np.bincount(of)
    across, squares = float((of_square * of_y).sum()), float((of_square**2).sum())
    freedom = float((n - 1 - (data.r22.values > 0)).sum()) - 1
    left = float((of_y**2).sum()) - across**2 / squares if squares > 0 else 0.0
    return across / np.sqrt(squares * left / freedom) if squares > 0 and left > 0 and freedom > 0 else 0.0


def about_line(data, values):
    """What is left of values [row] beside a line in the environment for each genotype."""
    of, x = data.of_genotype.values, data.x.values
    statistics = normal_regression.qr(x, values, of, data.sizes["genotype"])
    slope = statistics["z2"] / np.where(statistics["r22"] > 0, statistics["r22"], 1.0)
    intercept = (statistics["z1"] - statistics["r12"] * slope) / statistics["r11"]
    return values - intercept[of] - slope[of] * x


def unequal_noise(h, data, scores):
    """Levene's F of the residuals from genotypes' own lines."""
    residual, spare, _, of = about_own_lines(data)
    return checks.f_ratio(np.abs(residual[spare]), np.unique(of[spare], return_inverse=True)[1]) if spare.any() else 0.0


def noise_along(h, data, scores):
    """Spearman's correlation of the size of residuals with the environment."""
    residual, spare, _, _ = about_own_lines(data)
    return checks.correlation(np.abs(residual[spare]), data.x.values[spare]) if spare.any() else 0.0


OF_LINES = {
    "curvature": Check(
        compares="Student's t of a square of the environment that all lines share",
        statistic=curvature,
        more="the lines bend upwards",
        fewer="the lines bend downwards",
        poolings=OF_NOISE,
        of_data=True,
    ),
    "equal noise": Check(
        compares="Levene's F of the residuals of {groups} about their own lines",
        statistic=unequal_noise,
        more="{groups} have noise of different sizes, and the model one sigma for all",
        poolings=OF_NOISE,
        of_data=True,
    ),
    "noise along the environment": Check(
        compares="correlation of the size of residuals with the environment",
        statistic=noise_along,
        more="the noise grows along the environment",
        fewer="the noise shrinks along the environment",
        poolings=OF_NOISE,
        of_data=True,
    ),
}
