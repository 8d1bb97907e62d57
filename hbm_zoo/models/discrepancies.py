"""Discrepancies of a rig, and those that options of `model_discrepancy` put in their place: none, by specimen."""

from dataclasses import replace
from functools import partial

import numpy as np
import pymc as pm
import pytensor.tensor as pt

from hbm_zoo.fields import Parameter
from hbm_zoo.group_level.discrepancy import root
from hbm_zoo.group_level.level import GroupLevel
from hbm_zoo.models import beam
from hbm_zoo.models.rig_checks import OF_BEAMS

#: What has no discrepancy has none of any size.
NOTHING = {"a": 0.0, "ell": 1.0}
A_OWN = Parameter("size of what each mounting adds to the discrepancy, sd [mm]", (0, np.inf))


def one_rig(data, prior):
    """Delta = a R z at the sensors [row], R R' their correlations, z ~ N(0, I)."""
    z = pm.Normal("z", dims="point")
    R = root(prior("ell"), data.apart, data.alike, pt)
    return pm.Deterministic("delta", prior("a") * (R @ z), dims="point")[data.point_index]


def no_rig(data, prior):
    """The model is the truth."""
    return 0.0


def each_mounting(data, prior):
    """Delta + v_j at the sensors [row]: what the rig has, and each mounting of its own."""
    z, z_own = pm.Normal("z", dims="point"), pm.Normal("z_own", dims=("specimen", "point"))
    R = root(prior("ell"), data.apart, data.alike, pt)
    delta = pm.Deterministic("delta", prior("a") * (R @ z), dims="point")
    return (delta + prior("a_own") * (z_own @ R.T))[data.of_specimen, data.point_index]


def without(record):
    """The record of a model that is taken for the truth: a = 0, and specimens are independent."""

    def fixed_too(pooling):
        return lambda priors, data: record.fixed[pooling](priors, data) | NOTHING

    return replace(
        record,
        prepare=lambda frame, simulator=None: beam.readings(frame, np.zeros(len(frame)), simulator=simulator),
        variants=with_rig(record, no_rig),
        fixed={pooling: fixed_too(pooling) for pooling in record.fixed},
        group_level=replace(record.group_level, kappa=GroupLevel.kappa, independent=True, joined=None),
        datasets={},
        extras=replace(
            record.extras,
            checks=OF_BEAMS,
            absent=lambda data: tuple(NOTHING),
            left_out=type(record.extras)().left_out,
        ),
    )


def by_specimen(record):
    """The record of mountings that differ from one another, and all from the model."""

    def default_priors(data):
        """The priors of one rig; a mounting may add as much as the rig has."""
        priors = record.default_priors(data)
        return priors | {"a_own": priors["a"]}

    variants = with_rig(record, each_mounting)
    marginalized = partial(record.variants["partial"]["marginalized"], of_rig=("a", "ell", "a_own"))
    return replace(
        record,
        parameters={**record.parameters, "a_own": A_OWN},
        default_priors=default_priors,
        variants={pooling: {**forms, "marginalized": marginalized} for pooling, forms in variants.items()},
        datasets={},
    )


def with_rig(record, rig):
    """The variants of a record with another discrepancy of each row."""
    return {
        pooling: {name: form if name == "marginalized" else partial(form, rig=rig) for name, form in forms.items()}
        for pooling, forms in record.variants.items()
    }
