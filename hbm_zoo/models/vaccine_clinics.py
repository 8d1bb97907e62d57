r"""Vaccine clinics: does the vaccine work, and does it work everywhere?

Each clinic (a trial, a study) reports an effect and its standard error: -0.9 with
0.6 from a small one, 0.01 with 0.06 from a large one. Trust each alone, average
them all, or learn from their disagreement how much to share?

The model
---------
    y_j | theta_j        ~ N(theta_j, se_j^2)                the data
    theta_j | mu, tau    ~ N(mu, tau^2)                      the clinics
    mu ~ N(m0, (2.5 s)^2),  tau ~ HalfNormal(s)              what we knew before

with m0 and s the mean and sd of the effects: read once from the frame, then frozen.

==========  ==================  ========  ==========  ==================================
on paper    in code             dims      unit        meaning
==========  ==================  ========  ==========  ==================================
y_j         ``effect``          clinic    effect      the clinic's estimate
se_j        ``standard_error``  clinic    effect      its standard error, taken as known
theta_j     ``theta``           clinic    effect      the clinic's own effect
mu          ``mu``                        effect      mean effect of the clinics
tau         ``tau``                       effect      spread of the clinics, sd
I^2         ``I2``                        share       of the variance that is not noise
kappa_j     ``kappa``           clinic    share       weight of the clinic's own data
==========  ==================  ========  ==========  ==================================

The unit is that of the effect: a log risk ratio, a difference, points of a test.
Given mu and tau everything about one clinic is known in closed form:

    theta_j | y_j ~ N(kappa_j y_j + (1 - kappa_j) mu, kappa_j se_j^2),
    kappa_j = tau^2 / (tau^2 + se_j^2).

No pooling gives each clinic the same wide normal in advance, N(m0, s0^2) with
s0^2 = Var(mu) + E[tau^2], matched in mean and variance to what the partial model
expects of one clinic. Complete pooling is tau = 0: one effect for all.

With moderators
---------------
What is known of a clinic beforehand, its latitude say, moves the mean it is expected
to have; tau is what is left of the spread:

    y_j | theta_j              ~ N(theta_j, se_j^2)          the data
    theta_j | mu, beta, tau    ~ N(mu + x_j beta, tau^2)     the clinics
    mu ~ N(m0, (2.5 s)^2),  tau ~ HalfNormal(s)              what we knew before
    beta ~ N(0, (s / sd(x))^2) of a number, N(0, (2 s)^2) of a level against the first

=========  =====================  ======================  ========  ====================
on paper   in code                dims                    unit      meaning
=========  =====================  ======================  ========  ===========================
x_j        ``moderators``         clinic, moderator       its own   columns, centred over clinics
beta       ``beta_<column>``                              effect    change with one unit, or of a
           ``..[level]``                                  / unit    level against the reference
mu         ``mu``                                         effect    mean effect at average x
=========  =====================  ======================  ========  ===========================

The share of variance explained is R^2 = Var_j(x_j beta) / (Var_j(x_j beta) + tau^2).
No pooling knows no x; complete pooling is tau = 0: all that differs is x_j beta.

With population=student-t
-------------------------
One clinic far from the others is pulled by a normal population as hard as any, and widens
it for all. A population with heavy tails lets go of it:

    y_j | theta_j          ~ N(theta_j, se_j^2)              the data
    theta_j | mu, tau, nu  ~ t_nu(mu, tau)                   the clinics
    nu = 2 + nu_above_2,  nu_above_2 ~ Gamma(2, 0.1)         what we knew before
    mu ~ N(m0, (2.5 s)^2),  tau ~ HalfNormal(s)

==========  ==================  ========  ==========  ==================================
on paper    in code             dims      unit        meaning
==========  ==================  ========  ==========  ==================================
nu          ``nu``                        none        degrees of freedom: heavy tails
                                                      below 10, all but normal beyond 30
nu - 2      ``nu_above_2``                none        how far above the 2 without which
                                                      the clinics have no sd
tau         ``tau``                       effect      scale of the t: the clinics' sd is
                                                      tau sqrt(nu / (nu - 2))
==========  ==================  ========  ==========  ==================================

Given w_j, a precision of the clinic's own, all is normal: t_nu(mu, tau) is N(mu, tau^2/w_j)
with w_j ~ Gamma(nu/2, nu/2), so that theta_j | y_j is a mixture of closed forms, and w_j is
integrated numerically (`hbm_zoo.group_level.heavy_tails`). What is known of a clinic may
have two tops: it belongs to the others, or it does not.

The weight of a clinic's own data depends on the data: at nu = 3, tau = .5 and se = 1 it is
(E[theta_j] - mu)/(y_j - mu) = .33 at y_j - mu = 2, .64 at 4, .87 at 6. That is the ``weight``
in the table of groups. kappa_j = 1 - E[Var(theta_j | y_j, h)]/Var(theta_j | h) is averaged
over data too (.53 there), since for one data set it can be negative. Thirteen clinics say little of nu:
its prior speaks along. No pooling gives each clinic the same t in advance, matched in mean
and variance; complete pooling is tau = 0, and knows no nu.

What it assumes
---------------
* Standard errors are known: with a handful of events in an arm they are not.
* Clinics do not share patients. Arms of one trial with a common control do.
* Clinics are exchangeable: nothing known about one sets it apart beforehand. Where
  something is known (the latitude of a BCG trial), tau holds what it explains, unless
  it is given as a moderator. A slope over clinics is no effect within a clinic.

References
----------
Rubin D (1981) Estimation in parallel randomized experiments. J Educ Stat 6:377-401.
Higgins J, Thompson S (2002) Quantifying heterogeneity in a meta-analysis. Stat Med
21:1539-1558. Röver C (2020) Bayesian random-effects meta-analysis using the
bayesmeta R package. J Stat Softw 93(6). Gelman A et al. (2013) Bayesian Data
Analysis, 3rd ed., sections 5.4 to 5.6. Berkey C et al. (1995) A random-effects
regression model for meta-analysis. Stat Med 14:395-411.
"""

import numpy as np
import pandas as pd
import pymc as pm
import xarray as xr
from pymc_extras.prior import Prior
from scipy import special

from hbm_zoo.fields import Extras, Parameter, Shipped
from hbm_zoo.frames.effect_sizes import from_counts, from_escalc
from hbm_zoo.frames.rules import label, number, positive
from hbm_zoo.group_level import normal
from hbm_zoo.group_level.evaluate import evaluate
from hbm_zoo.group_level.level import closed_form
from hbm_zoo.group_level.populations import Normal
from hbm_zoo.model import HierarchicalModel
from hbm_zoo.models.moderated import Moderated
from hbm_zoo.models.own_checks import OF_EFFECTS
from hbm_zoo.models.student_clinics import with_student_t
from hbm_zoo.priors import describe, moments

COLUMNS = {
    "clinic": label("the clinic's name", unique=True),
    "effect": number("estimated effect, e.g. a log risk ratio"),
    "standard_error": positive("standard error of the effect, in the same unit"),
}

PARAMETERS = {
    "mu": Parameter("mean effect of the population of clinics; 0 is no effect"),
    "tau": Parameter("spread of clinics around mu, sd, in the unit of the effect", (0, np.inf)),
}


def default_priors(data):
    """A mean effect anywhere near the data; a spread up to about twice that of the effects.

    Effects closer together than the smallest standard error say nothing of scale: that
    standard error is the least s.
    """
    m0 = float(data.effect.mean())
    s = spread_of_effects(data)
    return {"mu": Prior("Normal", mu=m0, sigma=2.5 * s), "tau": Prior("HalfNormal", sigma=s)}


def spread_of_effects(data):
    """The sd of the effects, or their smallest standard error if that is larger: the scale s of all priors."""
    return float(max(data.effect.std(ddof=1), data.standard_error.min()))


def matched_prior(priors):
    """The normal with the mean and variance of theta_j once mu and tau are averaged out."""
    (mu, mu_variance), (tau, tau_variance) = (moments(name, priors[name]) for name in ("mu", "tau"))
    return Prior("Normal", mu=mu, sigma=np.sqrt(mu_variance + tau**2 + tau_variance))


def prepare(frame):
    """One row a clinic becomes ``effect`` and ``standard_error`` [clinic]."""
    return xr.Dataset(
        {name: ("clinic", frame[name].to_numpy(float)) for name in ("effect", "standard_error")},
        coords={"clinic": frame["clinic"].to_numpy()},
    )


# The variants, each as it stands on the page.


def no_pooling(data, prior):
    """theta_j ~ N(m0, s0^2), fixed in advance; y_j ~ N(theta_j, se_j^2)."""
    theta = prior("theta", dims="clinic")
    pm.Normal("y", theta, data.standard_error, observed=data.effect, dims="clinic")


def complete_pooling(data, prior):
    """y_j ~ N(mu, se_j^2): one effect for all."""
    mu = prior("mu")
    pm.Normal("y", mu, data.standard_error, observed=data.effect, dims="clinic")


def partial_pooling_centered(data, prior):
    """theta_j ~ N(mu, tau^2); y_j ~ N(theta_j, se_j^2)."""
    mu, tau = clinics(data, prior)
    theta = pm.Normal("theta", mu, tau, dims="clinic")
    pm.Normal("y", theta, data.standard_error, observed=data.effect, dims="clinic")


def partial_pooling_noncentered(data, prior):
    """theta_j = mu + tau z_j, z_j ~ N(0, 1)."""
    mu, tau = clinics(data, prior)
    z = pm.Normal("z", dims="clinic")
    theta = pm.Deterministic("theta", mu + tau * z, dims="clinic")
    pm.Normal("y", theta, data.standard_error, observed=data.effect, dims="clinic")


def partial_pooling_marginalized(data, prior):
    """y_j ~ N(mu, tau^2 + se_j^2): theta_j is integrated out."""
    mu, tau = clinics(data, prior)
    pm.CustomDist(
        "y",
        data.standard_error,
        mu,
        tau,
        logp=normal.log_marginal,
        random=normal.random,
        signature="(),(),()->()",
        observed=data.effect,
        dims="clinic",
    )


def clinics(data, prior):
    """Mean and spread of the clinics, and the share I2 of the variance that is theirs."""
    mu, tau = prior("mu"), prior("tau")
    pm.Deterministic("I2", normal.reliability(typical_standard_error(data.standard_error), tau))
    return mu, tau


def typical_standard_error(se):
    """The standard error of a typical clinic (Higgins & Thompson 2002, equation 9)."""
    w = se**-2
    return ((w.shape[0] - 1) * w.sum() / (w.sum() ** 2 - (w**2).sum())) ** 0.5


# One clinic, given mu and tau.


def population(h):
    """Theta ~ N(mu, tau^2)."""
    return Normal(h.mu, h.tau)


def conditional(h, data):
    """theta_j | y_j ~ N(kappa y_j + (1 - kappa) mu, kappa se_j^2)."""
    mu, tau = normal.conditional(data.effect, data.standard_error, h.mu, h.tau)
    return h.assign(mu=mu, tau=tau)


def log_marginal(h, data):
    """Log p(y_j | mu, tau) [nats]."""
    return evaluate(normal.log_marginal, data.effect, data.standard_error, h.mu, h.tau)


def log_likelihood(theta, h, data):
    """Log N(y_j | theta_j, se_j^2) [nats]."""
    return normal.log_density(data.effect, theta, data.standard_error**2)


def expected_log_likelihood(h, data):
    """E[log N(y_j | theta_j, se_j^2)] over theta_j | y_j [nats]."""
    after = conditional(h, data)
    return normal.expected_log_density(data.effect, data.standard_error, after.mu, after.tau)


def reliability(h, data):
    """kappa_j = tau^2 / (tau^2 + se_j^2)."""
    return normal.reliability(data.standard_error, h.tau)


def tails(h, data):
    """Probabilities of no more than y_j, and of no less, given mu and tau."""
    return normal.tails(data.effect, data.standard_error, h.mu, h.tau)


def replicate(rng, theta, h, data):
    """y_j ~ N(theta_j, se_j^2)."""
    return xr.apply_ufunc(rng.normal, *xr.broadcast(theta, data.standard_error))


def with_response(data, effect):
    """The same clinics with other effects."""
    return data.assign(effect=("clinic", effect))


def thin(rng, data):
    """Add and subtract the same noise e_j ~ N(0, se_j^2): two independent halves.

    Given theta_j, y_j + e_j and y_j - e_j are uncorrelated normals, each with variance
    2 se_j^2: what each half of the patients would have said.
    """
    e = data.standard_error * rng.standard_normal(data.sizes["clinic"])
    halves = data.effect + e, data.effect - e
    return tuple(data.assign(effect=half, standard_error=np.sqrt(2) * data.standard_error) for half in halves)


def control_limits(target, precision, probability):
    """Ends between which an effect falls by chance, were every theta_j the target: target +- z se_j."""
    half = special.ndtri((1 + probability) / 2) / np.sqrt(precision)
    return target - half, target + half


def fixed_in_advance(priors, data):
    """No pooling: the population is the prior of one clinic, N(m0, s0^2)."""
    prior = priors["theta"]
    if prior.distribution != "Normal":
        raise ValueError(f"No pooling is exact under a Normal prior of 'theta', got {describe(prior)}.")
    mean, variance = moments("theta", prior)
    return {"mu": mean, "tau": np.sqrt(variance)}


def simulate(rng, *, clinics=12, mu=-0.5, tau=0.3, median_patients=400.0, sigma_patients=1.0):
    """A frame like the real one and the truth that made it.

    Parameters
    ----------
    rng : numpy.random.Generator
        Source of randomness.
    clinics : int
        Number of clinics.
    mu, tau : float
        Mean and sd of the population of effects [log odds ratio].
    median_patients : float
        Median size of a clinic, both arms together [patients]. The standard error is
        4 / sqrt(patients), that of a log odds ratio with equal arms and even odds.
    sigma_patients : float
        Spread of clinic sizes: sd of the log number of patients.

    Returns
    -------
    frame : pandas.DataFrame
        Columns clinic, effect, standard_error.
    truth : xarray.Dataset
        mu, tau, and theta [clinic].

    Examples
    --------
    >>> import numpy as np
    >>> frame, truth = simulate(np.random.default_rng(1), clinics=3)
    >>> list(frame.columns), dict(truth.theta.sizes)
    (['clinic', 'effect', 'standard_error'], {'clinic': 3})
    """
    names = [f"C{i + 1:02d}" for i in range(clinics)]
    patients = np.ceil(median_patients * np.exp(sigma_patients * rng.standard_normal(clinics)))
    theta = rng.normal(mu, tau, clinics)
    se = 4 / np.sqrt(patients)
    frame = pd.DataFrame({"clinic": names, "effect": rng.normal(theta, se), "standard_error": se})
    return frame, xr.Dataset({"mu": mu, "tau": tau, "theta": ("clinic", theta)}, coords={"clinic": names})


ALTERNATIVES = {"population": {"normal": lambda record: record, "student-t": with_student_t}}

MODEL = HierarchicalModel(
    name="vaccine_clinics",
    question="Does the vaccine work, and does it work everywhere?",
    group="clinic",
    estimand="theta",
    estimand_label="effect",
    response="effect",
    observed="y",
    location="mu",
    heterogeneity="tau",
    reference=0.0,
    columns=COLUMNS,
    parameters=PARAMETERS,
    default_priors=default_priors,
    matched_prior=matched_prior,
    prepare=prepare,
    own=lambda data: data.effect,
    volume=lambda data: (data.standard_error**-2).rename("precision"),
    variants={
        "none": {"centered": no_pooling},
        "complete": {"centered": complete_pooling},
        "partial": {
            "centered": partial_pooling_centered,
            "noncentered": partial_pooling_noncentered,
            "marginalized": partial_pooling_marginalized,
        },
    },
    fixed={"none": fixed_in_advance, "complete": lambda priors, data: {"tau": 0.0}, "partial": lambda priors, data: {}},
    group_level=closed_form(
        population=population,
        conditional=conditional,
        log_marginal=log_marginal,
        log_likelihood=log_likelihood,
        expected_log_likelihood=expected_log_likelihood,
        reliability=reliability,
        replicate=replicate,
        tails=tails,
    ),
    alternatives=ALTERNATIVES,
    simulate=simulate,
    datasets={name: Shipped() for name in ("bcg_vaccine", "eight_schools", "simulated_platform_trial")},
    extras=Extras(
        thin=thin,
        control_limits=control_limits,
        readers={"counts": from_counts, "escalc": from_escalc},
        moderated=Moderated(scale=spread_of_effects, unexplained=lambda h: h.tau**2, of="the effect"),
        checks=OF_EFFECTS,
        with_response=with_response,
    ),
)
build = MODEL.build
