"""Hospitals whose patients come back or do not: the counts of `hospital_readmission` with binomial noise.

    O_j | alpha_j       ~ Binomial(n_j, p_j),  logit p_j = logit e_j + alpha_j,  e_j = E_j / n_j
    alpha_j | mu, tau   ~ N(mu, tau^2)

The same group level as `success_rates` with log odds that are normal (`hbm_zoo.models.logit_normal`), each hospital's
log odds counted from those expected of it. What is reported is the relative risk lam_j = p_j / e_j.
"""

from dataclasses import replace

import numpy as np
import pandas as pd
import pymc as pm
import pytensor.tensor as pt
import xarray as xr
from pymc_extras.prior import Prior
from scipy import special, stats

from hbm_zoo.fields import Parameter, Shipped
from hbm_zoo.frames.rules import FrameError, cell, count
from hbm_zoo.group_level import beta_binomial, logit_binomial
from hbm_zoo.group_level.integrated import OnALine
from hbm_zoo.group_level.populations import Normal
from hbm_zoo.group_level.reported import RelativeRisk
from hbm_zoo.models import logit_normal
from hbm_zoo.models.moderated import Moderated
from hbm_zoo.models.own_checks import OF_SHARES
from hbm_zoo.priors import describe, ppf

MOST_DISCHARGES = 999_999_999  # That NumPy deals into halves.

DISCHARGES = count("patients discharged, who may come back [patients]", least=1, most=MOST_DISCHARGES)

PARAMETERS = {
    "mu": Parameter("mean log odds of readmission of the hospitals, less those expected; 0 is as expected"),
    "tau": Parameter("spread of hospitals around mu, sd, in log odds; 0.2 is typical", (0, np.inf)),
}


def default_priors(data):
    """Hospitals as a whole within odds of 0.4 to 2.7 times those expected; any spread up to 2."""
    return {"mu": Prior("Normal", mu=0.0, sigma=0.5), "tau": Prior("HalfNormal", sigma=1.0)}


def prepare(frame):
    """One row a hospital becomes ``observed``, ``discharges``, ``expected`` and the risk ``e`` [hospital]."""
    O, n = (frame[name].to_numpy(np.int64) for name in ("observed", "discharges"))
    E = frame["expected"].to_numpy(float)
    _refuse(frame, O > n, "at most as many readmissions as discharges, got", O, n)
    _refuse(frame, E >= n, "fewer readmissions to be expected than discharges, got", E, n)
    seen = {"observed": O, "discharges": n, "expected": E, "e": E / n}
    return xr.Dataset(
        {name: ("hospital", values) for name, values in seen.items()}, coords={"hospital": frame["hospital"].to_numpy()}
    )


def _refuse(frame, wrong, expected, count, discharges):
    """An error that names the first hospital where something is wrong, and how many there are."""
    if wrong.any():
        j = int(np.argmax(wrong))
        where = f"for {cell(frame['hospital'].iloc[j])} in {frame.index.name or 'row'} {frame.index[j]}"
        others = f" (and {wrong.sum() - 1} more)" if wrong.sum() > 1 else ""
        raise FrameError(
            f"hospital_readmission with noise='binomial' expected {expected} {count[j]:g} of {discharges[j]} {where}"
            f"{others}."
        )


def contradiction(data, priors):
    """Say so if the odds of all hospitals together lie where the prior of mu has next to no weight."""
    O, E, n = (float(data[name].sum()) for name in ("observed", "expected", "discharges"))
    low, high = special.logit(stats.beta.ppf([0.025, 0.975], O + 0.5, n - O + 0.5)) - special.logit(E / n)
    if high < ppf(priors["mu"], 1e-5) or low > ppf(priors["mu"], 1 - 1e-5):
        return (
            f"Observed is {O:g} and expected {E:g} of {n:g} discharges, but the prior {describe(priors['mu'])} of 'mu' "
            "gives so large a difference of log odds next to no weight: are the expected counts in another unit? "
            "Rescale 'expected', or pass a prior for 'mu'."
        )
    return None


# The variants, each as it stands on the page.


def no_pooling(data, prior):
    """alpha_j ~ N(m0, s0^2), fixed in advance."""
    readmissions(data, prior("alpha", dims="hospital"))


def complete_pooling(data, prior):
    """Logit p_j = logit e_j + mu: the same odds against those expected for all."""
    pm.Binomial(
        "O", data.discharges, logit_p=pm.math.logit(data.e) + prior("mu"), observed=data.observed, dims="hospital"
    )


def partial_pooling_centered(data, prior):
    """alpha_j ~ N(mu, tau^2)."""
    readmissions(data, pm.Normal("alpha", prior("mu"), prior("tau"), dims="hospital"))


def partial_pooling_noncentered(data, prior):
    """alpha_j = mu + tau z_j, z_j ~ N(0, 1)."""
    mu, tau = prior("mu"), prior("tau")
    z = pm.Normal("z", dims="hospital")
    readmissions(data, pm.Deterministic("alpha", mu + tau * z, dims="hospital"))


def partial_pooling_marginalized(data, prior):
    """O_j with alpha_j integrated out numerically."""
    pm.CustomDist(
        "O",
        data.discharges,
        data.e,
        prior("mu"),
        prior("tau"),
        logp=lambda O, n, e, mu, tau: HOSPITALS.log_marginal(mu, tau, O, n, e),
        random=random,
        signature="(),(),(),()->()",
        dtype="int64",
        observed=data.observed,
        dims="hospital",
    )


def readmissions(data, alpha):
    """O_j ~ Binomial(n_j, p_j), and the relative risk lam_j = p_j / e_j."""
    log_odds = pm.math.logit(data.e) + alpha
    pm.Deterministic("lam", pm.math.sigmoid(log_odds) / data.e, dims="hospital")
    pm.Binomial("O", data.discharges, logit_p=log_odds, observed=data.observed, dims="hospital")


def random(n, e, mu, tau, rng=None, size=None):
    """Draw O with alpha integrated out."""
    return rng.binomial(n, special.expit(special.logit(e) + rng.normal(mu, tau, size=size)))


# One hospital, given mu and tau.


def log_kernel(alpha, O, n, e):
    """Log p^O (1 - p)^(n - O) at log odds alpha beyond those expected [nats]."""
    return logit_normal.log_kernel(pt.log(e) - pt.log1p(-e) + alpha, O, n)


def log_ways(O, n, e):
    """Log of the number of ways in which O of n patients come back [nats]."""
    return logit_normal.log_ways(O, n)


def raw_alpha(O, n, e):
    """The hospital's own log odds, less those expected: finite."""
    return logit_normal.raw_log_odds(O, n) - pt.log(e) + pt.log1p(-e)


def tails(h, data):
    """Probabilities of no more than O_j, and of no less, given mu and tau."""
    return logit_binomial.tails(data.observed, data.discharges, special.logit(data.e) + h.mu, h.tau)


def replicate(rng, alpha, h, new):
    """O_j ~ Binomial(n_j, p_j)."""
    return xr.apply_ufunc(rng.binomial, *xr.broadcast(new.discharges, special.expit(special.logit(new.e) + alpha)))


HOSPITALS = OnALine(
    population=lambda h: Normal(h.mu, h.tau),
    estimand=None,
    kernel=log_kernel,
    constant=log_ways,
    start=raw_alpha,
    variables=lambda data: (data.observed, data.discharges, data.e),
)


def thin(rng, data):
    """Deal the patients of each hospital into two halves: two independent binomials of the same risk.

    Given p_j every order of who comes back is as likely as another, so half of the patients hold a
    hypergeometric number of the readmissions. An odd patient falls to either half.
    """
    halves = beta_binomial.halves(data.observed.values, data.discharges.values, rng)
    return tuple(
        data.assign(observed=("hospital", O), discharges=("hospital", n), expected=n * data.e) for O, n in halves
    )


def simulate(rng, *, hospitals=100, mu=0.0, tau=0.2, risk=0.2, median_discharges=200.0, sigma_discharges=1.0):
    """A frame like the real one and the truth that made it; mu and tau on the log odds, else as of the Poisson.

    The risk expected of a hospital is `risk`, with log odds that have an sd of 0.1 among hospitals: their case mix.
    """
    names = [f"H{i + 1:04d}" for i in range(hospitals)]
    n = np.ceil(median_discharges * np.exp(sigma_discharges * rng.standard_normal(hospitals))).astype(np.int64)
    share = special.expit(special.logit(risk) + 0.1 * rng.standard_normal(hospitals))
    expected = np.round(n * share, 4)
    alpha = xr.DataArray(rng.normal(mu, tau, hospitals), dims="hospital", coords={"hospital": names})
    lam = RelativeRisk(alpha.copy(data=expected / n))(alpha)
    O = rng.binomial(n, lam.values * expected / n)
    frame = pd.DataFrame({"hospital": names, "observed": O, "expected": expected, "discharges": n})
    return frame, xr.Dataset({"mu": mu, "tau": tau, "lam": lam})


VARIANTS = {
    "none": {"centered": no_pooling},
    "complete": {"centered": complete_pooling},
    "partial": {
        "centered": partial_pooling_centered,
        "noncentered": partial_pooling_noncentered,
        "marginalized": partial_pooling_marginalized,
    },
}


def with_binomial_noise(record):
    """The record of `hospital_readmission` with binomial noise."""
    return replace(
        record,
        heterogeneity="tau",
        estimand_label="relative risk",
        columns={**record.columns, "discharges": DISCHARGES},
        parameters=PARAMETERS,
        default_priors=default_priors,
        matched_prior=logit_normal.matched_prior,
        prepare=prepare,
        variants=VARIANTS,
        fixed=logit_normal.FIXED,
        group_level=HOSPITALS.group_level(
            estimand_by_group=lambda data: RelativeRisk(data.e),
            replicate=replicate,
            tails=tails,
            kappa="1 - Var(alpha | y, h) / tau^2, of log odds",
        ),
        simulate=simulate,
        datasets={"simulated_discharges": Shipped()},
        extras=replace(
            record.extras,
            derived=lambda data: data,
            contradiction=contradiction,
            thin=thin,
            checks=OF_SHARES,
            moderated=Moderated(scale=lambda data: 0.5, unexplained=lambda h: h.tau**2, of="the log odds"),
            control_limits=None,  # the noise of O/E depends on the risk as well as on E
        ),
    )
