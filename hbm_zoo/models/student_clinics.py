"""The effects of `vaccine_clinics`, with a population that lets a clinic lie far out.

    y_j | theta_j           ~ N(theta_j, se_j^2)
    theta_j | mu, tau, nu   ~ t_nu(mu, tau),  nu > 2

Given a group's own precision w_j all is normal: what is known of a clinic is a mixture of closed forms
(`hbm_zoo.group_level.heavy_tails`).
"""

from dataclasses import replace

import numpy as np
import pandas as pd
import pymc as pm
import xarray as xr

from hbm_zoo.fields import Parameter
from hbm_zoo.group_level import heavy_tails
from hbm_zoo.group_level.heavy_tails import HeavyTails
from hbm_zoo.models.student_population import (
    NU_ABOVE_2,
    fixed_in_advance,
    matched_prior,
    no_spread,
    student_t,
    variance,
    with_priors,
)

# The variants, each as it stands on the page.


def no_pooling(data, prior):
    """theta_j ~ t, fixed in advance; y_j ~ N(theta_j, se_j^2)."""
    theta = prior("theta", dims="clinic")
    pm.Normal("y", theta, data.standard_error, observed=data.effect, dims="clinic")


def partial_pooling_centered(data, prior):
    """theta_j ~ t_nu(mu, tau); y_j ~ N(theta_j, se_j^2)."""
    mu, tau, nu = student_t(prior)
    theta = pm.StudentT("theta", nu=nu, mu=mu, sigma=tau, dims="clinic")
    pm.Normal("y", theta, data.standard_error, observed=data.effect, dims="clinic")


def partial_pooling_noncentered(data, prior):
    """theta_j = mu + tau z_j, z_j ~ t_nu(0, 1)."""
    mu, tau, nu = student_t(prior)
    z = pm.StudentT("z", nu=nu, mu=0, sigma=1, dims="clinic")
    theta = pm.Deterministic("theta", mu + tau * z, dims="clinic")
    pm.Normal("y", theta, data.standard_error, observed=data.effect, dims="clinic")


def partial_pooling_marginalized(data, prior):
    """y_j with theta_j integrated out."""
    pm.CustomDist(
        "y",
        data.standard_error,
        *student_t(prior),
        logp=heavy_tails.log_marginal,
        random=heavy_tails.random,
        signature="(),(),(),()->()",
        observed=data.effect,
        dims="clinic",
    )


def simulate(rng, *, clinics=12, mu=-0.5, tau=0.2, nu=4.0, median_patients=400.0, sigma_patients=1.0):
    """A frame like the real one and the truth that made it; theta from a t_nu(mu, tau), else as of the normal."""
    names = [f"C{i + 1:02d}" for i in range(clinics)]
    patients = np.ceil(median_patients * np.exp(sigma_patients * rng.standard_normal(clinics)))
    theta, se = mu + tau * rng.standard_t(nu, clinics), 4 / np.sqrt(patients)
    frame = pd.DataFrame({"clinic": names, "effect": rng.normal(theta, se), "standard_error": se})
    truth = {"mu": mu, "tau": tau, "nu_above_2": nu - 2, "theta": ("clinic", theta)}
    return frame, xr.Dataset(truth, coords={"clinic": names})


CLINICS = HeavyTails(measured=lambda h, data: (data.effect, data.standard_error))


def with_student_t(record):
    """The record of `vaccine_clinics` with a t population of effects."""
    tau = Parameter("scale of the t population of clinics around mu, in the unit of the effect", (0, np.inf))
    return replace(
        record,
        parameters={**record.parameters, "tau": tau, "nu_above_2": NU_ABOVE_2},
        default_priors=with_priors(record.default_priors),
        matched_prior=matched_prior,
        variants={
            "none": {"centered": no_pooling},
            "complete": record.variants["complete"],
            "partial": {
                "centered": partial_pooling_centered,
                "noncentered": partial_pooling_noncentered,
                "marginalized": partial_pooling_marginalized,
            },
        },
        fixed={"none": fixed_in_advance, "complete": no_spread, "partial": lambda priors, data: {}},
        group_level=CLINICS.group_level(replicate=record.group_level.replicate),
        simulate=simulate,
        extras=replace(record.extras, moderated=replace(record.extras.moderated, unexplained=variance)),
    )
