"""A population of groups that is a Student t, nu > 2: its priors, and what each pooling fixes of it."""

import numpy as np
import pymc as pm
from pymc_extras.prior import Prior

from hbm_zoo.fields import Parameter
from hbm_zoo.priors import describe, expectation, moments

NU_ABOVE_2 = Parameter(
    "degrees of freedom of the population beyond the two without which it has no sd; near 0 a few groups lie far out, "
    "beyond 30 the population is all but normal",
    (0, np.inf),
)


def with_priors(default_priors):
    """The priors of the normal population, and one of how heavy the tails are."""

    def priors(data):
        """A mean anywhere near the data, a spread up to about twice theirs; tails from heavy to normal."""
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
            f"The prior {describe(prior)} of 'nu_above_2' lies so near 0 that the variance of one group is not finite: "
            "pass a prior for 'theta' as well, or one of 'nu_above_2' with less weight there."
        )
    return inflation


def student_t(prior):
    """Location, scale and degrees of freedom of the population."""
    mu, tau = prior("mu"), prior("tau")
    return mu, tau, pm.Deterministic("nu", 2 + prior("nu_above_2"))


def fixed_in_advance(priors, data):
    """No pooling: the population is the prior of one group, a t."""
    prior = priors["theta"]
    given = prior.parameters if prior.distribution == "StudentT" and not prior.transform else {}
    if not {"nu", "mu", "sigma"} <= set(given) or not given["nu"] > 2:
        raise ValueError(
            "No pooling is exact under a StudentT prior of 'theta' with nu, mu and sigma, and nu above 2, got "
            f"{describe(prior)}."
        )
    return {"mu": float(given["mu"]), "tau": float(given["sigma"]), "nu_above_2": float(given["nu"]) - 2}


def no_spread(priors, data):
    """Complete pooling: no spread, whatever its shape."""
    return {"tau": 0.0, "nu_above_2": moments("nu_above_2", priors["nu_above_2"])[0]}


def variance(h):
    """Of a t with nu > 2 degrees of freedom: tau^2 nu / (nu - 2)."""
    return h.tau**2 * (h.nu_above_2 + 2) / h.nu_above_2
