"""What `reaction_networks` checks of itself: whether modules are alike, and what is left of rows noise."""

from dataclasses import replace
from typing import Any

import numpy as np

from hbm_zoo.group_level import checks
from hbm_zoo.group_level.checks import Check
from hbm_zoo.group_level.kept import last_kept
from hbm_zoo.group_level.kinetics import ROW, Kinetics
from hbm_zoo.models import row_checks
from hbm_zoo.models.own_checks import OF_NOISE


def given_others(kinetics: Kinetics, h, data):
    """Of each row its normal score given the others of its module, what these expect, and its module [3, row]."""
    known = kinetics.cloud.on_fixed_nodes(h, data)
    x = kinetics.at_nodes(known.theta, data).transpose("module", "node", "instant", "species").values
    module, instant, species = (data[name].values for name in ROW[1:])
    weight = known.weight.transpose("module", "node").values[module]
    at = x[module, :, instant, species]
    return np.stack([*row_checks.given_others(data.value.values, at, float(h.sigma), weight), module])


def time_of(data):
    """When each row was measured."""
    return data.time.values[data.of_module.values, data.of_instant.values]


def neighbours(_, data, found):
    """Correlation of the scores of rows of a species in a module that follow one another."""
    series = data.of_module.values * data.sizes["species"] + data.of_species.values
    return row_checks.neighbours(found[0], series, time_of(data))


def instants(_, data, found):
    """F of the scores between times of a species, the same in several modules."""
    each = np.unique([data.of_species.values, time_of(data)], axis=1, return_inverse=True)[1]
    return row_checks.between(found[0], each)


def tails_of_rows(_, data, found):
    """Kurtosis of the scores of the rows."""
    return checks.tails(None, data, found[0])


def error_with_amount(_, data, found):
    """Spearman's correlation of the size of scores with the amount that is expected."""
    return checks.correlation(np.abs(found[0]), found[1])


def modules(_, data, found):
    """F of the scores between modules."""
    return row_checks.between(found[0], found[2])


#: Scores are what `given_others` returns, but of draws.
OF_MODULES = {
    "spread": Check(
        compares="F of what is left of the rows between {groups}, were there one set of rates for all",
        statistic=modules,
        more="{groups} differ by more than chance",
        poolings=("complete",),
    ),
    "shape": row_checks.SHAPE,
    "neighbours": Check(
        compares="correlation of what is left of rows of a species that follow one another",
        statistic=neighbours,
        more="rows that follow one another err alike: curves have another shape than the network gives",
        poolings=OF_NOISE,
    ),
    "times": Check(
        compares="F of what is left of the rows between times of a species, over {groups}",
        statistic=instants,
        more="rows of a species at one time err alike in all {groups}: curves have another shape than the network "
        "gives",
        poolings=OF_NOISE,
    ),
    "tails of rows": Check(
        compares="kurtosis of rows given the others of their {group}, 3 of a normal",
        statistic=tails_of_rows,
        more="rows have heavier tails than a normal: a few pull the curves of their {groups}",
        fewer="rows have lighter tails than a normal",
        poolings=OF_NOISE,
    ),
    "error with the amount": Check(
        compares="correlation of how far rows lie off with the amount that is expected",
        statistic=error_with_amount,
        more="the error grows with the amount, and the model has it the same",
        fewer="the error shrinks with the amount, and the model has it the same",
        poolings=OF_NOISE,
    ),
}


def of(kinetics: Kinetics) -> dict[str, Any]:
    """What the extras of a network have of them."""
    scores = last_kept(lambda h, data: given_others(kinetics, h, data))

    def asked(check: Check) -> Check:
        return replace(check, statistic=lambda h, data, _: check.statistic(h, data, scores(h, data)))

    found = {name: check if check.of_draws else asked(check) for name, check in OF_MODULES.items()}
    return {"checks": found, "with_response": kinetics.with_response}
