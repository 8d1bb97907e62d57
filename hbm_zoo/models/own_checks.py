"""What each model checks of itself beside what all do: see `hbm_zoo.group_level.checks`."""

from dataclasses import replace

import numpy as np
import xarray as xr
from scipy import stats

from hbm_zoo.group_level import checks, normal_regression, poisson_gamma
from hbm_zoo.group_level.checks import Check
from hbm_zoo.group_level.evaluate import evaluate

#: Where complete pooling has one sigma for rows and groups alike, it says nothing of the noise of rows.
OF_NOISE = ("none", "partial")

# Hospitals: counts.


def dispersion(h, data, scores):
    """Pearson's chi-square over the number of hospitals."""
    mean = data.expected * h.mu
    return float(((data.observed - mean) ** 2 / mean).mean())


def zeros(h, data, scores):
    """How many hospitals saw nothing."""
    return int((data.observed == 0).sum())


def expected_zeros(h, data):
    """Sum of P(O_j = 0 | mu, cv)."""
    return float(np.exp(evaluate(poisson_gamma.log_marginal, 0.0, data.expected, h.mu, h.cv)).sum())


OF_COUNTS = {
    "spread": Check(
        compares="Pearson's dispersion of the counts, 1 of a Poisson with one rate",
        statistic=dispersion,
        more="counts vary by more than a Poisson with one rate does: one row a {group} cannot tell overdispersion from "
        "spread, so that under partial pooling the spread absorbs either",
        fewer="counts vary by less than a Poisson does: risks that are not small overstate its noise",
        poolings=("complete",),
        alternative={"fewer": {"noise": "binomial"}},
    ),
    "zeros": Check(
        compares="{groups} that saw nothing",
        statistic=zeros,
        expected=expected_zeros,
        more="more {groups} saw nothing than the model expects",
        fewer="fewer {groups} saw nothing than the model expects",
    ),
}


# Clinics: effects with standard errors.


def cochran(h, data, scores):
    """Q = sum of (y_j - mu)^2 / se_j^2 (Cochran 1954, Biometrics 10:101-129)."""
    return float((((data.effect - h.mu) / data.standard_error) ** 2).sum())


def share_of_variance(h, data, scores):
    """I^2 = 1 - (J - 1) / Q, Q about the mean by inverse variances (Higgins & Thompson 2002, Stat Med 21:1539-1558)."""
    effect, weight = data.effect.values, data.standard_error.values**-2
    mean = (weight * effect).sum() / weight.sum()
    Q = float((weight * (effect - mean) ** 2).sum())
    return max(0.0, 1 - (effect.size - 1) / Q) if Q > 0 else 0.0


OF_EFFECTS = {
    "spread": Check(
        compares="Cochran's Q, were there one effect for all",
        statistic=cochran,
        more="{groups} differ by more than their standard errors say",
        fewer="{groups} differ by less than their standard errors say: these are too large",
        poolings=("complete",),
    ),
    "I^2": Check(
        compares="I^2, the share of the variance of effects that is not noise",
        statistic=share_of_variance,
        more="{groups} differ by more than the fitted spread allows: look at its prior",
        fewer="{groups} differ by less than the fitted spread has it: look at its prior",
        poolings=("partial",),
    ),
    "tails": replace(checks.OF_ALL["tails"], alternative={"more": {"population": "student-t"}}),
}


# Tissues: rows of a group.


def unequal_spreads(h, data, scores):
    """Levene's F of the rows about their tissues' means."""
    return checks.levene(data.expression.values, data.tissue_index.values)


def tails_of_rows(h, data, scores):
    """Kurtosis of the rows about their tissues' means."""
    of = data.tissue_index.values
    return checks.kurtosis_within(data.expression.values - data.y_bar.values[of], of)


OF_ROWS = {
    "equal variances": Check(
        compares="Levene's F of the rows within {groups}",
        statistic=unequal_spreads,
        more="{groups} have noise of different sizes, and the model one sigma for all",
        poolings=OF_NOISE,
        of_data=True,
    ),
    "tails of rows": Check(
        compares="kurtosis of the rows within {groups}",
        statistic=tails_of_rows,
        more="rows have heavier tails than a normal: a few of them pull the means of their {groups}",
        fewer="rows have lighter tails than a normal, as values that are cut off, or of two kinds, have",
        poolings=OF_NOISE,
        of_data=True,
    ),
}


# Reaction norms: lines.

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


# Genes: thousands of z scores.

EMPIRICAL = dict.fromkeys(("more", "fewer"), {"null": "empirical"})


def z_scores(data):
    """Effects over their standard errors."""
    return (data.effect / data.standard_error).values


def beyond(threshold, tails):
    """How many |z| exceed a threshold, beside how many are expected, were genes independent."""

    def seen(h, data, scores):
        return int((np.abs(z_scores(data)) > threshold).sum())

    def expected(h, data):
        """Sum over genes of P(|z_g| > threshold), of null and slab."""
        at = threshold * data.standard_error
        lower, _ = tails(h, data.assign(effect=-at))
        _, upper = tails(h, data.assign(effect=at))
        return float((lower + upper).sum())

    return Check(
        compares=f"{{groups}} with |z| > {threshold:g}, as if independent of one another",
        statistic=seen,
        expected=expected,
        more=f"more {{groups}} lie beyond |z| = {threshold:g} than the model expects",
        fewer=f"fewer {{groups}} lie beyond |z| = {threshold:g} than the model expects",
        poolings=("partial",),
        alternative=EMPIRICAL,
    )


def centre(h, data, scores):
    """Median z score."""
    return float(np.median(z_scores(data)))


def width(h, data, scores):
    """Interquartile range of the z scores, in sds of a normal."""
    return float(stats.iqr(z_scores(data), scale="normal"))


def with_standard_error(h, data, scores):
    """Spearman's correlation of the size of scores with the standard error."""
    return checks.correlation(np.abs(scores), data.standard_error.values)


OF_GENES = {
    "centre": Check(
        compares="median z score: the centre of the null",
        statistic=centre,
        more="the null lies above 0",
        fewer="the null lies below 0",
        poolings=("partial",),
        alternative=EMPIRICAL,
    ),
    "width": Check(
        compares="interquartile range of the z scores, in sds of a normal: the width of the null",
        statistic=width,
        more="the null is wider than the standard errors say",
        fewer="the null is narrower than the standard errors say",
        poolings=("partial",),
        alternative=EMPIRICAL,
    ),
    "standard error": Check(
        compares="correlation of the size of scores with the standard error",
        statistic=with_standard_error,
        more="{groups} that are measured badly have larger effects: effects are not alike in this unit",
        fewer="{groups} that are measured well have larger effects: effects are not alike in this unit",
        poolings=("partial",),
        alternative={"more": {"unit": "z"}, "fewer": {"unit": "effect"}},
    ),
}


def of_genes(tails):
    """What is asked of genes, of which ``tails(h, data)`` are known."""
    return {f"|z| > {threshold}": beyond(threshold, tails) for threshold in (2, 3, 4, 5)} | OF_GENES
