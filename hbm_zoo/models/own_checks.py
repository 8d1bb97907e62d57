"""What each model checks of itself beside what all do: see `hbm_zoo.group_level.checks`."""

from dataclasses import replace

import numpy as np
import xarray as xr
from scipy import special, stats

from hbm_zoo.group_level import checks, logit_binomial, poisson_gamma
from hbm_zoo.group_level.checks import Check

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
    return float(poisson_gamma.tails(0, data.expected, h.mu, h.cv)[0].sum())


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


# The same among patients discharged.


def expected_zeros_of_shares(h, data):
    """Sum of P(O_j = 0 | mu, tau)."""
    none, log_odds = xr.zeros_like(data.observed), special.logit(data.e) + h.mu
    return float(logit_binomial.tails(none, data.discharges, log_odds, h.tau)[0].sum())


OF_SHARES = {"zeros": replace(OF_COUNTS["zeros"], expected=expected_zeros_of_shares)}


# Clinics: effects with standard errors.


def cochran(h, data, scores):
    """Q = sum of (y_j - mu)^2 / se_j^2 (Cochran 1954, Biometrics 10:101-129)."""
    return float((((data.effect - h.mu) / data.standard_error) ** 2).sum())


def share_of_variance(h, data, scores):
    """I^2 = 1 - (J - 1) / Q, Q about the mean by inverse variances (Higgins & Thompson 2002, Stat Med 21:1539-1558).

    With moderators it is of what the line through them leaves.
    """
    left, weight = (data.effect - h.mu).values, data.standard_error.values**-2
    mean = (weight * left).sum() / weight.sum()
    Q = float((weight * (left - mean) ** 2).sum())
    return max(0.0, 1 - (left.size - 1) / Q) if Q > 0 else 0.0


OF_EFFECTS = {
    "spread": Check(
        compares="Cochran's Q, were there {one} for all",
        statistic=cochran,
        more="{groups} differ by more than their standard errors say",
        fewer="{groups} differ by less than their standard errors say: these are too large",
        poolings=("complete",),
    ),
    "I^2": Check(
        compares="I^2, the share of the variance of effects about {one} that is not noise",
        statistic=share_of_variance,
        more="{groups} differ by more than the fitted spread allows: look at its prior",
        fewer="{groups} differ by less than the fitted spread has it: look at its prior",
        poolings=("partial",),
    ),
    "tails": replace(
        checks.OF_ALL["tails"],
        more=f"{checks.OF_ALL['tails'].more}, or their noise has: one row a {{group}} cannot tell the two",
        alternative={"more": {"population": "student-t"}, "fewer": {"population": {"student-t": "normal"}}},
    ),
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
        alternative={"more": {"sigma": "by tissue"}},
    ),
    "tails of rows": Check(
        compares="kurtosis of the rows within {groups}",
        statistic=tails_of_rows,
        more="rows have heavier tails than a normal: a few of them pull the means of their {groups}",
        fewer="rows have lighter tails than a normal, as values that are cut off, or of two kinds, have",
        poolings=OF_NOISE,
        of_data=True,
        alternative={"more": {"noise": "student-t"}},
    ),
    "tails": replace(OF_EFFECTS["tails"], more=checks.OF_ALL["tails"].more),
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
        compares=f"{{groups}} with |z| > {threshold:g}, as if {{groups}} were independent of one another",
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
    "tails": replace(
        checks.OF_ALL["tails"], alternative={"more": {"slab": "unimodal"}, "fewer": {"slab": {"unimodal": "normal"}}}
    ),
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
