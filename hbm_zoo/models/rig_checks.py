"""What `model_discrepancy` checks of itself: whether what is left of readings is noise."""

import numpy as np

from hbm_zoo.group_level import checks
from hbm_zoo.group_level.any_simulator_left_out import row_tails
from hbm_zoo.group_level.checks import Check
from hbm_zoo.group_level.discrepancy_level import given_others
from hbm_zoo.group_level.kept import last_kept
from hbm_zoo.model import POOLINGS
from hbm_zoo.models.own_checks import OF_NOISE


def in_closed_form(h, data):
    """Of each reading how far it lies from what all others expect, over its sd: standard normal."""
    away, precision = given_others(h, data, np.arange(data.sizes["row"]))
    return (away * np.sqrt(precision)).values


def by_nodes(h, data):
    """The same of any simulator: the normal score of its place."""
    return checks.normal_scores(*(tail.values for tail in row_tails(h, data, np.arange(data.sizes["row"]))))


def own_slopes(h, data, _):
    """Mean square of the specimens' own compliances about their mean, over the noise that they have, F."""
    weight, own = data.ff.values, data.b_hat.values
    mean = (weight * own).sum() / weight.sum()
    freedom = max(own.size - 1, 1)
    return float((weight * (own - mean) ** 2).sum() / freedom / float(h.sigma) ** 2)


SPREAD = Check(
    compares="mean square of the {groups}' own compliances, 1 were there one and no discrepancy",
    statistic=own_slopes,
    more="{groups} differ by more than chance",
    fewer="{groups} differ by less than chance: the noise is overstated",
    poolings=("complete",),
)


def neighbours(z, data):
    """Correlation of what is left of readings of neighbouring sensors, of one specimen under one load."""
    of, load, place = (data[name].values for name in ("of_specimen", "load", "position"))
    order = np.lexsort((place, load, of))
    beside = (np.diff(of[order]) == 0) & (np.diff(load[order]) == 0)
    one, other = z[order][:-1][beside], z[order][1:][beside]
    total = np.sqrt((one**2).sum() * (other**2).sum())
    return float((one * other).sum() / total) if total > 0 else 0.0


def tails_of_readings(z, data):
    """Kurtosis of the readings, each given all others."""
    return checks.tails(None, data, z)


def noise_with_size(z, data):
    """Spearman's correlation of how far readings lie off with how far the simulator bends the beam there."""
    return checks.correlation(np.abs(z), np.abs(data.f.values))


def of_rigs(scores, **alternative):
    """The checks of rigs whose readings have such scores; a discrepancy to try where there is one more."""
    scores = last_kept(scores)

    def of(statistic):
        return lambda h, data, _: statistic(scores(h, data), data)

    return {
        "spread": SPREAD,
        "neighbours": Check(
            compares="correlation of what is left of neighbouring sensors of one {group} under one load",
            statistic=of(neighbours),
            more="neighbouring sensors err alike: there is a discrepancy that the model has not",
            poolings=POOLINGS,
            alternative={"more": alternative} if alternative else {},
        ),
        "tails of readings": Check(
            compares="kurtosis of readings given all others, 3 of a normal",
            statistic=of(tails_of_readings),
            more="readings have heavier tails than a normal: a few of them pull the curve",
            fewer="readings have lighter tails than a normal, as values that are cut off have",
            poolings=OF_NOISE,
        ),
        "noise with the deflection": Check(
            compares="correlation of how far readings lie off with the deflection that the simulator has there",
            statistic=of(noise_with_size),
            more="the noise grows with the deflection",
            fewer="the noise shrinks with the deflection",
            poolings=OF_NOISE,
        ),
    }


OF_RIG = of_rigs(in_closed_form, discrepancy="by specimen")
#: Where the simulator is taken for the truth, and where it is any smooth one.
OF_BEAMS, OF_ANY = of_rigs(in_closed_form, discrepancy="shared"), of_rigs(by_nodes)
