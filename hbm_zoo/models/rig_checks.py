"""What `model_discrepancy` checks of itself: whether what is left of readings is noise."""

from dataclasses import replace

import numpy as np

from hbm_zoo.group_level import checks
from hbm_zoo.group_level.checks import Check
from hbm_zoo.group_level.discrepancy_level import given_others
from hbm_zoo.model import POOLINGS
from hbm_zoo.models.own_checks import OF_NOISE


def scores(h, data):
    """Of each reading how far it lies from what all others expect, over its sd: standard normal."""
    away, precision = given_others(h, data, np.arange(data.sizes["row"]))
    return (away * np.sqrt(precision)).values


def own_slopes(h, data, _):
    """Mean square of the specimens' own compliances about their mean, over the noise that they have, F."""
    weight, own = data.ff.values, data.b_hat.values
    mean = (weight * own).sum() / weight.sum()
    freedom = max(own.size - 1, 1)
    return float((weight * (own - mean) ** 2).sum() / freedom / float(h.sigma) ** 2)


def neighbours(h, data, _):
    """Correlation of what is left of readings of neighbouring sensors, of one specimen under one load."""
    of, load, place = (data[name].values for name in ("of_specimen", "load", "position"))
    order = np.lexsort((place, load, of))
    z = scores(h, data)[order]
    beside = (np.diff(of[order]) == 0) & (np.diff(load[order]) == 0)
    one, other = z[:-1][beside], z[1:][beside]
    total = np.sqrt((one**2).sum() * (other**2).sum())
    return float((one * other).sum() / total) if total > 0 else 0.0


def tails_of_readings(h, data, _):
    """Kurtosis of the readings, each given all others."""
    return checks.tails(h, data, scores(h, data))


def noise_with_size(h, data, _):
    """Spearman's correlation of how far readings lie off with how far the simulator bends the beam there."""
    return checks.correlation(np.abs(scores(h, data)), np.abs(data.f.values))


OF_RIG = {
    "spread": Check(
        compares="mean square of the {groups}' own compliances, 1 were there one and no discrepancy",
        statistic=own_slopes,
        more="{groups} differ by more than chance",
        fewer="{groups} differ by less than chance: the noise is overstated",
        poolings=("complete",),
    ),
    "neighbours": Check(
        compares="correlation of what is left of neighbouring sensors of one {group} under one load",
        statistic=neighbours,
        more="neighbouring sensors err alike: there is a discrepancy that the model has not",
        poolings=POOLINGS,
        alternative={"more": {"discrepancy": "by specimen"}},
    ),
    "tails of readings": Check(
        compares="kurtosis of readings given all others, 3 of a normal",
        statistic=tails_of_readings,
        more="readings have heavier tails than a normal: a few of them pull the curve",
        fewer="readings have lighter tails than a normal, as values that are cut off have",
        poolings=OF_NOISE,
    ),
    "noise with the deflection": Check(
        compares="correlation of how far readings lie off with the deflection that the simulator has there",
        statistic=noise_with_size,
        more="the noise grows with the deflection",
        fewer="the noise shrinks with the deflection",
        poolings=OF_NOISE,
    ),
}

#: Where the simulator is taken for the truth.
OF_BEAMS = OF_RIG | {"neighbours": replace(OF_RIG["neighbours"], alternative={"more": {"discrepancy": "shared"}})}
