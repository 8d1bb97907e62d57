"""The genes of `spike_slab_genes`, alike in their effects over their standard errors: ashr's alpha = 1.

    theta_g = se_g zeta_g,  zeta_g from the spike and the slab

(Stephens 2017, Biostatistics 18:275-294, section 2.5). Nothing else changes, and no formula does: the spreads of the
population are multiples of se_g, placed before all else. What is reported, and the density of the data, stay in the
unit of the effect, so that elpd is on one scale with that of the other unit: it is the elpd of z scores less the sum of
log se_g, the Jacobian.
"""

from dataclasses import replace
from functools import wraps

import numpy as np
import pymc as pm

from hbm_zoo.group_level.located import located

#: Hyperparameters in the unit in which genes are alike.
IN_THE_UNIT = ("mu", "tau", "narrowest", "widest")


def placed(h, data):
    """Location and spreads of each gene in the unit of the effect."""
    return h.assign({name: h[name] * data.unit for name in IN_THE_UNIT if name in h})


def written(variant):
    """A variant that is given location and spreads of each gene."""

    @wraps(variant)
    def in_the_unit(data, prior):
        def each(name, dims=None):
            return prior(name, dims) * data.unit if name in IN_THE_UNIT else prior(name, dims)

        variant(data, each)

    return in_the_unit


def no_pooling(data, prior):
    """theta_g = se_g zeta_g, zeta_g ~ N(0, s0^2), fixed in advance; effect_g ~ N(theta_g, se_g^2)."""
    theta = pm.Deterministic("theta", data.unit * prior("zeta", dims="gene"), dims="gene")
    pm.Normal("y", theta, data.standard_error, observed=data.effect, dims="gene")


def with_z(record):
    """The record of `spike_slab_genes` whose genes are alike in z."""

    def prepare(frame):
        """The same, and ``unit`` [gene]: what a z score of 1 is worth, also where halves have less precision."""
        data = record.prepare(frame)
        return data.assign(unit=data.standard_error)

    def default_priors(data):
        in_z = {name: data[name] / data.unit for name in ("effect", "standard_error")}
        return record.default_priors(data.assign(in_z))

    def alone(priors, data):
        return record.fixed["none"]({**priors, "theta": priors["zeta"]}, data)

    def simulate(rng, *, tau=3.0, median_standard_error=0.1, sigma_standard_error=0.3, **others):
        frame, truth = record.simulate(rng, tau=tau, median_standard_error=1.0, sigma_standard_error=0.0, **others)
        se = median_standard_error * np.exp(sigma_standard_error * rng.standard_normal(len(frame)))
        return frame.assign(effect=frame["effect"] * se, standard_error=se), truth.assign(theta=truth.theta * se)

    forms = {pooling: {form: written(v) for form, v in of.items()} for pooling, of in record.variants.items()}
    return replace(
        record,
        default_priors=wraps(record.default_priors)(default_priors),
        matched_prior=lambda priors: {"zeta": record.matched_prior(priors)},
        prepare=prepare,
        variants=forms | {"none": {"centered": no_pooling}},
        fixed={**record.fixed, "none": alone},
        group_level=located(record.group_level, placed),
        simulate=simulate,
    )
