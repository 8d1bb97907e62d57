"""The same counts as `success_rates`, with a normal population of log odds.

    y_j | alpha_j       ~ Binomial(n_j, p_j),  p_j = 1/(1 + exp(-alpha_j))
    alpha_j | mu, tau   ~ N(mu, tau^2)

What is reported of a unit is its rate p_j. There is no closed form: alpha_j is integrated
numerically, and all that is known of a unit comes from its likelihood at given log odds.
"""

from dataclasses import replace

import numpy as np
import pandas as pd
import pymc as pm
import pytensor.tensor as pt
import xarray as xr
from pymc_extras.prior import Prior

from hbm_zoo.fields import Parameter
from hbm_zoo.group_level import logit_binomial
from hbm_zoo.group_level.integrated import OnALine
from hbm_zoo.group_level.populations import EXPIT, Normal
from hbm_zoo.models.moderated import Moderated
from hbm_zoo.priors import describe, moments

PARAMETERS = {
    "mu": Parameter("mean log odds of the population of units"),
    "tau": Parameter("spread of units around mu, sd, in log odds", (0, np.inf)),
}


def default_priors(data):
    """Typical rates from 5 to 95 percent; at tau = 1 the odds of 95 % of the units within a factor of 50."""
    return {"mu": Prior("Normal", mu=0.0, sigma=1.5), "tau": Prior("HalfNormal", sigma=1.0)}


def matched_prior(priors):
    """The normal with the mean and variance of alpha_j once mu and tau are averaged out."""
    (mu, mu_variance), (tau, tau_variance) = (moments(name, priors[name]) for name in ("mu", "tau"))
    return {"alpha": Prior("Normal", mu=mu, sigma=float(np.sqrt(mu_variance + tau**2 + tau_variance)))}


# The variants, each as it stands on the page.


def no_pooling(data, prior):
    """alpha_j ~ N(m0, s0^2), fixed in advance."""
    successes(data, prior("alpha", dims="unit"))


def complete_pooling(data, prior):
    """y_j ~ Binomial(n_j, expit(mu)): one rate for all."""
    pm.Binomial("y", data.trials, logit_p=prior("mu"), observed=data.successes, dims="unit")


def partial_pooling_centered(data, prior):
    """alpha_j ~ N(mu, tau^2)."""
    successes(data, pm.Normal("alpha", prior("mu"), prior("tau"), dims="unit"))


def partial_pooling_noncentered(data, prior):
    """alpha_j = mu + tau z_j, z_j ~ N(0, 1)."""
    mu, tau = prior("mu"), prior("tau")
    z = pm.Normal("z", dims="unit")
    successes(data, pm.Deterministic("alpha", mu + tau * z, dims="unit"))


def partial_pooling_marginalized(data, prior):
    """y_j with alpha_j integrated out numerically."""
    pm.CustomDist(
        "y",
        data.trials,
        prior("mu"),
        prior("tau"),
        logp=lambda y, n, mu, tau: UNITS.log_marginal(mu, tau, y, n),
        random=random,
        signature="(),(),()->()",
        dtype="int64",
        observed=data.successes,
        dims="unit",
    )


def successes(data, alpha):
    """y_j ~ Binomial(n_j, p_j), p_j from its log odds."""
    pm.Deterministic("p", pm.math.sigmoid(alpha), dims="unit")
    pm.Binomial("y", data.trials, logit_p=alpha, observed=data.successes, dims="unit")


def random(n, mu, tau, rng=None, size=None):
    """Draw y with alpha integrated out."""
    alpha = rng.normal(mu, tau, size=size)
    return rng.binomial(n, 1 / (1 + np.exp(-alpha)))


# One unit, given mu and tau.


def log_kernel(alpha, y, n):
    """Log p^y (1 - p)^(n - y) at log odds alpha [nats]."""
    return y * alpha - n * pt.softplus(alpha)


def log_ways(y, n):
    """Log of the number of orders in which y of n trials succeed [nats]."""
    return pt.gammaln(n + 1.0) - pt.gammaln(y + 1.0) - pt.gammaln(n - y + 1.0)


def raw_log_odds(y, n):
    """Log odds with half a success and half a failure added: finite (Haldane 1956, Ann Hum Genet 20:309-311)."""
    return pt.log((y + 0.5) / (n - y + 0.5))


def tails(h, data):
    """Probabilities of no more than y_j, and of no less, given mu and tau."""
    return logit_binomial.tails(data.successes, data.trials, h.mu, h.tau)


def replicate(rng, alpha, h, new):
    """y_j ~ Binomial(n_j, expit(alpha_j))."""
    return xr.apply_ufunc(rng.binomial, *xr.broadcast(new.trials, EXPIT(alpha)))


UNITS = OnALine(
    population=lambda h: Normal(h.mu, h.tau),
    estimand=EXPIT,
    kernel=log_kernel,
    constant=log_ways,
    start=raw_log_odds,
    variables=lambda data: (data.successes, data.trials),
)


def fixed_in_advance(priors, data):
    """No pooling: the population is the prior of one unit, log odds ~ N(m0, s0^2)."""
    prior = priors["alpha"]
    if prior.distribution != "Normal" or prior.transform:
        raise ValueError(f"No pooling is exact under a Normal prior of 'alpha', got {describe(prior)}.")
    mean, variance = moments("alpha", prior)
    return {"mu": mean, "tau": np.sqrt(variance)}


VARIANTS = {
    "none": {"centered": no_pooling},
    "complete": {"centered": complete_pooling},
    "partial": {
        "centered": partial_pooling_centered,
        "noncentered": partial_pooling_noncentered,
        "marginalized": partial_pooling_marginalized,
    },
}
FIXED = {
    "none": fixed_in_advance,
    "complete": lambda priors, data: {"tau": 0.0},
    "partial": lambda priors, data: {},
}


def with_logit_normal(record):
    """The record of `success_rates` with a normal population of log odds."""
    return replace(
        record,
        heterogeneity="tau",
        parameters=PARAMETERS,
        default_priors=default_priors,
        matched_prior=matched_prior,
        variants=VARIANTS,
        fixed=FIXED,
        group_level=UNITS.group_level(
            replicate=replicate, tails=tails, kappa="1 - Var(alpha | y, h) / tau^2, of log odds"
        ),
        simulate=simulate,
        extras=replace(
            record.extras,
            moderated=Moderated(scale=lambda data: 1.0, unexplained=lambda h: h.tau**2, of="the log odds"),
        ),
    )


def simulate(rng, *, units=30, mu=-1.0, tau=0.4, median_trials=60.0, sigma_trials=0.8):
    """A frame like the real one and the truth that made it; mu and tau on the log odds, else as of `success_rates`."""
    names = [f"U{i + 1:03d}" for i in range(units)]
    n = np.ceil(median_trials * np.exp(sigma_trials * rng.standard_normal(units))).astype(np.int64)
    alpha = xr.DataArray(rng.normal(mu, tau, units), dims="unit", coords={"unit": names})
    p = 1 / (1 + np.exp(-alpha))
    frame = pd.DataFrame({"unit": names, "successes": rng.binomial(n, p.values), "trials": n})
    return frame, xr.Dataset({"mu": mu, "tau": tau, "p": p})
