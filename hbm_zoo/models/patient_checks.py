"""What `population_pk` checks of itself: whether patients are normal, and what is left of samples noise."""

from typing import Any

import numpy as np

from hbm_zoo.group_level import checks
from hbm_zoo.group_level.checks import Check
from hbm_zoo.group_level.kept import last_kept
from hbm_zoo.group_level.residual_error import MEASURED, residual_error
from hbm_zoo.group_level.routes import ROUTES
from hbm_zoo.models import row_checks
from hbm_zoo.models.own_checks import OF_NOISE


@last_kept
def given_others(h, data):
    """Of each sample its normal score given the others of its patient, what these expect, its patient and its time.

    Samples below the limit of quantification have none.
    """
    route = next(route for route in ROUTES.values() if len(route.names) == data.sizes["coefficient"])
    known = route.cloud.on_fixed_nodes(h, data)
    f = route.expected(known.theta, data).transpose("patient", "row", "node").values
    sd = residual_error(data.attrs["error"], data.attrs["lloq"]).sd(f, float(h.sigma_add), float(h.sigma_prop))
    patient, row = np.nonzero(data.used.values == MEASURED)
    weight = known.weight.transpose("patient", "node").values[patient]
    of_rows = data.sampled.values[patient, row], f[patient, row], np.broadcast_to(sd, f.shape)[patient, row]
    return *row_checks.given_others(*of_rows, weight), patient, data.time.values[patient, row]


def neighbours(h, data, _):
    """Correlation of the scores of samples that follow one another."""
    z, _, patient, time = given_others(h, data)
    return row_checks.neighbours(z, patient, time)


def tails_of_samples(h, data, _):
    """Kurtosis of the scores of the samples."""
    return checks.tails(h, data, given_others(h, data)[0])


def error_with_concentration(h, data, _):
    """Spearman's correlation of the size of scores with the concentration that is expected."""
    z, expected, _, _ = given_others(h, data)
    return checks.correlation(np.abs(z), expected)


def patients(h, data, _):
    """F of the scores between patients."""
    z, _, patient, _ = given_others(h, data)
    return row_checks.between(z, patient)


OF_PATIENTS = {
    "spread": Check(
        compares="F of what is left of the samples between {groups}, were there one curve for all",
        statistic=patients,
        more="{groups} differ by more than chance",
        poolings=("complete",),
    ),
    "shape": row_checks.SHAPE,
    "neighbours": Check(
        compares="correlation of what is left of samples that follow one another",
        statistic=neighbours,
        more="samples that follow one another err alike: curves have another shape than one compartment gives",
        poolings=OF_NOISE,
    ),
    "tails of samples": Check(
        compares="kurtosis of samples given the others of their {group}, 3 of a normal",
        statistic=tails_of_samples,
        more="samples have heavier tails than a normal: a few pull the curves of their {groups}",
        fewer="samples have lighter tails than a normal",
        poolings=OF_NOISE,
    ),
    "error with the concentration": Check(
        compares="correlation of how far samples lie off, over the error that they have, with what is expected",
        statistic=error_with_concentration,
        more="the error grows faster with the concentration than the model has it",
        fewer="the error grows less with the concentration than the model has it",
        poolings=OF_NOISE,
        alternative={
            "more": {"error": {"additive": "combined"}},
            "fewer": {"error": {"proportional": "combined"}},
        },
    ),
}


def of(route) -> dict[str, Any]:
    """What the extras of a route of administration have of them."""
    return {"checks": OF_PATIENTS, "with_response": route.with_response}
