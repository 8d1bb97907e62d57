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
from pymc_extras.prior import Prior

from hbm_zoo.group_level import heavy_tails
from hbm_zoo.group_level.heavy_tails import HeavyTails
from hbm_zoo.model import Parameter
from hbm_zoo.priors import describe, expectation, moments

NU_ABOVE_2 = Parameter(
    "degrees of freedom of the population beyond the two without which it has no sd; near 0 a few clinics lie far out, "
    "beyond 30 the population is all but normal",
    (0, np.inf),
)


def with_priors(default_priors):
    """The priors of the normal population, and one of how heavy the tails are."""

    def priors(data):
        """A mean effect anywhere near the data, a spread up to about twice theirs; tails from heavy to normal."""
        return default_priors(data) | {"nu_above_2": Prior("Gamma", alpha=2.0, beta=0.1)}

    return priors


def matched_prior(priors):
    """The t with the mean and variance of theta_j once mu, tau and nu are averaged out, and nu where it is expected."""
    names = "mu", "tau", "nu_above_2"
    (mu, mu_variance), (tau, tau_variance), (above_2, _) = (moments(name, priors[name]) for name in names)
    variance = mu_variance + (tau**2 + tau_variance) * _inflation(priors["nu_above_2"])
    nu = 2 + above_2
    return Prior("StudentT", nu=nu, mu=mu, sigma=float(np.sqrt(variance * (nu - 2) / nu)))


def _inflation(prior):
    """E[nu / (nu - 2)], by which the variance of a t exceeds tau^2."""
    inflation = expectation(prior, lambda above_2: 1 + 2 / np.maximum(above_2, np.finfo(float).tiny))
    if not inflation < 1e3:
        raise ValueError(
            f"The prior {describe(prior)} of 'nu_above_2' lies so near 0 that the variance of one clinic's effect is "
            "not finite: pass a prior for 'theta' as well, or one of 'nu_above_2' with less weight there."
        )
    return inflation


# The variants, each as it stands on the page.


def no_pooling(data, prior):
    """theta_j ~ t, fixed in advance; y_j ~ N(theta_j, se_j^2)."""
    theta = prior("theta", dims="clinic")
    pm.Normal("y", theta, data.standard_error, observed=data.effect, dims="clinic")


def partial_pooling_centered(data, prior):
    """theta_j ~ t_nu(mu, tau); y_j ~ N(theta_j, se_j^2)."""
    mu, tau, nu = clinics(prior)
    theta = pm.StudentT("theta", nu=nu, mu=mu, sigma=tau, dims="clinic")
    pm.Normal("y", theta, data.standard_error, observed=data.effect, dims="clinic")


def partial_pooling_noncentered(data, prior):
    """theta_j = mu + tau z_j, z_j ~ t_nu(0, 1)."""
    mu, tau, nu = clinics(prior)
    z = pm.StudentT("z", nu=nu, mu=0, sigma=1, dims="clinic")
    theta = pm.Deterministic("theta", mu + tau * z, dims="clinic")
    pm.Normal("y", theta, data.standard_error, observed=data.effect, dims="clinic")


def partial_pooling_marginalized(data, prior):
    """y_j with theta_j integrated out."""
    pm.CustomDist(
        "y",
        data.standard_error,
        *clinics(prior),
        logp=heavy_tails.log_marginal,
        random=heavy_tails.random,
        signature="(),(),(),()->()",
        observed=data.effect,
        dims="clinic",
    )


def clinics(prior):
    """Location, scale and degrees of freedom of the clinics."""
    mu, tau = prior("mu"), prior("tau")
    return mu, tau, pm.Deterministic("nu", 2 + prior("nu_above_2"))


def fixed_in_advance(priors, data):
    """No pooling: the population is the prior of one clinic, a t."""
    prior = priors["theta"]
    given = prior.parameters if prior.distribution == "StudentT" and not prior.transform else {}
    if not {"nu", "mu", "sigma"} <= set(given) or not given["nu"] > 2:
        raise ValueError(
            "No pooling is exact under a StudentT prior of 'theta' with nu, mu and sigma, and nu above 2, got "
            f"{describe(prior)}."
        )
    return {"mu": float(given["mu"]), "tau": float(given["sigma"]), "nu_above_2": float(given["nu"]) - 2}


def one_effect(priors, data):
    """Complete pooling: no spread, whatever its shape."""
    return {"tau": 0.0, "nu_above_2": moments("nu_above_2", priors["nu_above_2"])[0]}


def simulate(rng, *, clinics=12, mu=-0.5, tau=0.2, nu=4.0, median_patients=400.0, sigma_patients=1.0):
    """A frame like the real one and the truth that made it; theta from a t_nu(mu, tau), else as of the normal."""
    names = [f"C{i + 1:02d}" for i in range(clinics)]
    patients = np.ceil(median_patients * np.exp(sigma_patients * rng.standard_normal(clinics)))
    theta, se = mu + tau * rng.standard_t(nu, clinics), 4 / np.sqrt(patients)
    frame = pd.DataFrame({"clinic": names, "effect": rng.normal(theta, se), "standard_error": se})
    truth = {"mu": mu, "tau": tau, "nu_above_2": nu - 2, "theta": ("clinic", theta)}
    return frame, xr.Dataset(truth, coords={"clinic": names})


CLINICS = HeavyTails(measured=lambda data: (data.effect, data.standard_error))


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
        fixed={"none": fixed_in_advance, "complete": one_effect, "partial": lambda priors, data: {}},
        group_level=CLINICS.group_level(replicate=record.group_level.replicate),
        simulate=simulate,
        extras=replace(record.extras, moderated=replace(record.extras.moderated, unexplained=variance)),
    )


def variance(h):
    """Of a t with nu > 2 degrees of freedom: tau^2 nu / (nu - 2)."""
    return h.tau**2 * (h.nu_above_2 + 2) / h.nu_above_2
