"""What `material_batches` checks of itself: campaigns, the order of batches, and specimens within them."""

import numpy as np

from hbm_zoo.group_level import checks, nested
from hbm_zoo.group_level.checks import Check
from hbm_zoo.group_level.normal import moments_by_group
from hbm_zoo.models.own_checks import OF_NOISE


def with_response(data, strength):
    """The same batches with specimens of other strengths."""
    of_batches = moments_by_group(strength, data.batch_index.values)
    statistics = {name: ("batch", values) for name, values in zip(nested.STATISTICS, of_batches, strict=True)}
    return data.assign(strength=("specimen", strength), **statistics)


def tails_of_campaigns(h, data, scores):
    """Kurtosis of the campaigns' normal scores."""
    return checks.tails(h, data, nested.scores_of_families(h, data).values)


def drift(h, data, scores):
    """Correlation of batches' means with their order in their campaign, both from the campaign's mean."""
    family = data.family.values
    size = np.bincount(family)

    def within(values):
        return values - (np.bincount(family, values) / size)[family]

    order, mean = within(np.arange(family.size, dtype=float)), within(data.y_bar.values)
    total = (order**2).sum() * (mean**2).sum()
    return float((order * mean).sum() / np.sqrt(total)) if total > 0 else 0.0


def unequal_spreads(h, data, scores):
    """Levene's F of the specimens about their batches' means."""
    return checks.levene(data.strength.values, data.batch_index.values)


def tails_of_specimens(h, data, scores):
    """Kurtosis of the specimens about their batches' means, by sqrt(n / (n - 1)): of all, as batches have few."""
    of, n = data.batch_index.values, data.n.values
    away = (data.strength.values - data.y_bar.values[of]) * np.sqrt(n / np.maximum(n - 1, 1))[of]
    return checks.tails(h, data, away[n[of] > 1]) if (n > 1).any() else 0.0


OF_BATCHES = {
    "tails of campaigns": Check(
        compares="kurtosis of the normal scores of campaigns, 3 of a normal",
        statistic=tails_of_campaigns,
        more="a campaign lies farther from the others than a normal population of campaigns has them",
        poolings=("partial",),
    ),
    "drift": Check(
        compares="correlation of {groups} with their order in the frame, within their campaign",
        statistic=drift,
        more="{groups} drift upwards in the order of the frame: they are not exchangeable",
        fewer="{groups} drift downwards in the order of the frame: they are not exchangeable",
        poolings=("partial",),
        of_data=True,
    ),
    "equal variances": Check(
        compares="Levene's F of the specimens within {groups}",
        statistic=unequal_spreads,
        more="{groups} have noise of different sizes, and the model one sigma for all",
        poolings=OF_NOISE,
        of_data=True,
    ),
    "tails of specimens": Check(
        compares="kurtosis of the specimens within {groups}, 3 of a normal",
        statistic=tails_of_specimens,
        more="specimens have heavier tails than a normal: the weakest are weaker than what is promised of them",
        fewer="specimens have lighter tails than a normal, as values that are cut off, or of two kinds, have",
        poolings=OF_NOISE,
        of_data=True,
    ),
}
