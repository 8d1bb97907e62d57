r"""Hospital readmission: whose rate is high, and whose is only noisy?

A regulator sees, for each hospital, how many patients came back and how many
were expected to, given who they were. Six where four were expected is a ratio
of 1.5, but so is 600 where 400 were. Treat every hospital alone, lump them all,
or learn from the data how much to share?

The model
---------
    O_j | lam_j      ~ Poisson(E_j lam_j)                    the data
    lam_j | mu, cv   ~ Gamma(shape a, rate b)                the hospitals
    mu ~ LogNormal(0, 0.5),  cv ~ HalfNormal(1)              what we knew before

with a = 1/cv^2 and b = a/mu, so that mu is the mean of the population of
hospitals and cv its coefficient of variation.

==========  =============  ==========  ===========  =============================
on paper    in code        dims        unit         meaning
==========  =============  ==========  ===========  =============================
O_j         ``observed``   hospital    patients     readmissions seen
E_j         ``expected``   hospital    patients     readmissions expected
lam_j       ``lam``        hospital    ratio        the hospital's own rate ratio
mu          ``mu``                     ratio        mean rate ratio of hospitals
cv          ``cv``                     ratio        spread of hospitals, sd / mean
a, b        ``a``, ``b``                            the Gamma's shape and rate
kappa_j     ``kappa``      hospital    share        weight of the hospital's data
==========  =============  ==========  ===========  =============================

Given mu and cv everything about one hospital is known in closed form:

    lam_j | O_j ~ Gamma(a + O_j, b + E_j),   mean = kappa O/E + (1 - kappa) mu,
    kappa_j = E_j / (E_j + b).

No pooling gives each hospital the same wide Gamma in advance, matched in mean
and variance to what the partial model expects of one hospital: Gamma(.64, .56)
by default. Complete pooling is cv = 0: one ratio for all.

With moderators
---------------
What is known of a hospital beforehand, its type say, moves the ratio it is expected to
have by a factor; cv is what is left of the spread:

    O_j | lam_j            ~ Poisson(E_j lam_j)              the data
    lam_j | mu, beta, cv   ~ Gamma(1/cv^2, 1/(cv^2 mu_j))    the hospitals
    mu_j = mu exp(x_j beta)
    mu ~ LogNormal(0, 0.5),  cv ~ HalfNormal(1)              what we knew before
    beta ~ N(0, (0.5 / sd(x))^2) of a number, N(0, 1) of a level against the first

with x_j the columns, centred over hospitals, so that mu is the ratio at average x, and
exp(beta) the factor of one unit. The share of variance of log ratios that is explained
is R^2 = Var_j(x_j beta) / (Var_j(x_j beta) + trigamma(1/cv^2)). Hospitals are no longer
one observation: no sums are sufficient for all where each has a mu_j of its own.

With noise=binomial
-------------------
Where one patient in five comes back a Poisson overstates the noise, and takes from the
spread what it gives the noise. With the number of patients discharged beside the counts:

    O_j | alpha_j      ~ Binomial(n_j, p_j)                  the data
    logit p_j          = logit e_j + alpha_j,  e_j = E_j / n_j
    alpha_j | mu, tau  ~ N(mu, tau^2)                        the hospitals
    mu ~ N(0, 0.5^2),  tau ~ HalfNormal(1)                   what we knew before

==========  ==============  ==========  ===========  ==============================
on paper    in code         dims        unit         meaning
==========  ==============  ==========  ===========  ==============================
n_j         ``discharges``  hospital    patients     discharged, who may come back
e_j         ``e``           hospital    share        risk expected from the case mix
lam_j       ``lam``         hospital    ratio        the hospital's own relative
                                                     risk, p_j / e_j
alpha_j     ``alpha``       hospital    log odds     the hospital's own log odds,
                                                     less those expected
mu          ``mu``                      log odds     mean of the alpha_j
tau         ``tau``                     log odds     spread of hospitals, their sd
==========  ==============  ==========  ===========  ==============================

What is reported of a hospital, and what thresholds refer to, is its relative risk lam_j,
of which O/E is the raw estimate; mu and tau are on the log odds. At 20 % a tau of .1 is a
spread of about .08 of relative risks. There is no closed form: each alpha_j is integrated
numerically (`hbm_zoo.models.binomial_noise`). kappa_j = 1 - Var(alpha_j | O, h)/tau^2 is
that of the log odds, averaged over what is known of mu and tau. No pooling gives each
alpha_j the same wide normal, complete pooling is tau = 0. The noise of O/E depends on the
risk expected as well as on E, so that a funnel has no limits here.

All patients of a hospital have its one risk p_j: that they differ within it, which the
expected counts do know, is ignored. It makes the noise smaller still than a binomial's.

What it assumes
---------------
* Expected counts are known without error, and the case mix is in them.
* Readmissions are rare, under noise=poisson. At a risk of p that overstates the
  noise by about 1/(1 - p), which biases cv down. Under noise=binomial all patients
  of a hospital have one risk: case mix within a hospital is ignored.
* Hospitals are exchangeable: nothing known about one sets it apart beforehand, but what
  is given as a moderator.

References
----------
Christiansen C, Morris C (1997) Hierarchical Poisson regression modeling. J Am
Stat Assoc 92:618-632. Gelman A et al. (2013) Bayesian Data Analysis, 3rd ed.,
sections 2.6 and 5.2.
"""

from dataclasses import replace

import numpy as np
import pandas as pd
import pymc as pm
import xarray as xr
from pymc_extras.prior import Prior
from scipy import special, stats

from hbm_zoo.fields import Extras, Parameter, Shipped
from hbm_zoo.frames.rules import count, label, positive
from hbm_zoo.group_level import poisson_gamma
from hbm_zoo.group_level.evaluate import evaluate
from hbm_zoo.group_level.level import closed_form
from hbm_zoo.group_level.populations import Gamma
from hbm_zoo.model import HierarchicalModel
from hbm_zoo.models.binomial_noise import with_binomial_noise
from hbm_zoo.models.hrrp import from_hrrp
from hbm_zoo.models.moderated import Moderated
from hbm_zoo.models.own_checks import OF_COUNTS
from hbm_zoo.priors import describe, moments, ppf

COLUMNS = {
    "hospital": label("the hospital's name", unique=True),
    "observed": count("readmissions seen [patients]"),
    "expected": positive("readmissions expected from the case mix [patients]"),
}

PARAMETERS = {
    "mu": Parameter("mean rate ratio of the population of hospitals; 1 is as expected", (0, np.inf)),
    "cv": Parameter("spread of hospitals around mu, sd / mean; 0.2 is typical", (0, np.inf)),
}


def default_priors(data):
    """Hospitals as a whole within 0.4 to 2.7 times what is expected; any spread up to 2."""
    return {"mu": Prior("LogNormal", mu=0.0, sigma=0.5), "cv": Prior("HalfNormal", sigma=1.0)}


def matched_prior(priors):
    """The Gamma with the mean and variance of lam_j once mu and cv are averaged out."""
    (mu, mu_variance), (cv, cv_variance) = (moments(name, priors[name]) for name in ("mu", "cv"))
    mean_square = (mu**2 + mu_variance) * (1 + cv**2 + cv_variance)
    rate = mu / (mean_square - mu**2)
    return Prior("Gamma", alpha=mu * rate, beta=rate)


def prepare(frame):
    """One row a hospital becomes ``observed`` and ``expected`` [hospital]."""
    observed, expected = frame["observed"].to_numpy(np.int64), frame["expected"].to_numpy(float)
    seen = {"observed": ("hospital", observed), "expected": ("hospital", expected)}
    return xr.Dataset(seen, coords={"hospital": frame["hospital"].to_numpy()})


def derived(data):
    """Add what is sufficient for mu and cv: some hundred numbers, however many the hospitals."""
    enough = poisson_gamma.sufficient(data.observed.values, data.expected.values)
    dims = {"steps": "step", "above": "step", "sizes": "size", "events": "size", "groups": "size", "constant": ()}
    return data.assign({name: (dims[name], value) for name, value in enough.items()})


def contradiction(data, priors):
    """Say so if the overall ratio lies where the prior of mu has next to no weight."""
    O, E = float(data.observed.sum()), float(data.expected.sum())
    low, high = stats.gamma.ppf([0.025, 0.975], O + 0.5) / E
    if high < ppf(priors["mu"], 1e-5) or low > ppf(priors["mu"], 1 - 1e-5):
        unit = "are the expected counts in another unit? Rescale 'expected', or pass" if O else "pass"
        return (
            f"Observed / expected is {O:g} / {E:g} = {O / E:.3g} overall, but the prior {describe(priors['mu'])} of "
            f"'mu' gives that next to no weight: {unit} a prior for 'mu'."
        )
    return None


# The variants, each as it stands on the page.


def no_pooling(data, prior):
    """lam_j ~ Gamma(a0, b0), fixed in advance; O_j ~ Poisson(E_j lam_j)."""
    lam = prior("lam", dims="hospital")
    pm.Poisson("O", data.expected * lam, observed=data.observed, dims="hospital")


def complete_pooling(data, prior):
    """O_j ~ Poisson(E_j mu): one ratio for all."""
    mu = prior("mu")
    pm.Poisson("O", data.expected * mu, observed=data.observed, dims="hospital")


def partial_pooling_centered(data, prior):
    """lam_j ~ Gamma(a, b); O_j ~ Poisson(E_j lam_j)."""
    a, b = shape_and_rate(prior("mu"), prior("cv"))
    lam = pm.Gamma("lam", a, b, dims="hospital")
    pm.Poisson("O", data.expected * lam, observed=data.observed, dims="hospital")


def partial_pooling_noncentered(data, prior):
    """lam_j = mu exp(cv z_j), with the Gamma's own density for z_j."""
    mu, cv = prior("mu"), prior("cv")
    shape_and_rate(mu, cv)
    z = pm.CustomDist(
        "z",
        cv,
        logp=poisson_gamma.log_standardised_gamma,
        random=poisson_gamma.random_standardised_gamma,
        signature="()->()",
        dims="hospital",
    )
    lam = pm.Deterministic("lam", mu * pm.math.exp(cv * z), dims="hospital")
    pm.Poisson("O", data.expected * lam, observed=data.observed, dims="hospital")


def partial_pooling_marginalized(data, prior):
    """O_j ~ negative binomial: lam_j is integrated out, and all hospitals are one observation."""
    mu, cv = prior("mu"), prior("cv")
    shape_and_rate(mu, cv)
    enough = [data.steps, data.above, data.sizes, data.events, data.groups, data.constant]
    pm.CustomDist(
        "O",
        data.expected,
        mu,
        cv,
        *enough,
        logp=lambda O, E, mu, cv, *enough: poisson_gamma.log_joint(*enough, mu, cv),
        random=lambda E, mu, cv, *enough, rng, size: poisson_gamma.random(E, mu, cv, rng, size),
        signature="(n),(),(),(k),(k),(s),(s),(s),()->(n)",
        dtype="int64",
        observed=data.observed,
        dims="hospital",
    )


def hospital_by_hospital(data, prior):
    """O_j ~ negative binomial, each an observation of its own, where each has a mu of its own."""
    pm.CustomDist(
        "O",
        data.expected,
        prior("mu"),
        prior("cv"),
        logp=poisson_gamma.log_marginal,
        random=poisson_gamma.random,
        signature="(),(),()->()",
        dtype="int64",
        observed=data.observed,
        dims="hospital",
    )


def shape_and_rate(mu, cv):
    """A = 1/cv^2 and b = a/mu, recorded so that (O + a)/(E + b) can be checked by hand."""
    a = pm.Deterministic("a", cv**-2)
    return a, pm.Deterministic("b", a / mu, dims=("hospital",) * (a / mu).ndim)


# One hospital, given mu and cv.


def population(h):
    """Lam ~ Gamma with mean mu and coefficient of variation cv."""
    return Gamma(h.mu, h.cv)


def conditional(h, data):
    """lam_j | O_j: the Gamma with shape a + O_j and rate b + E_j."""
    mu, cv = poisson_gamma.conditional(data.observed, data.expected, h.mu, h.cv)
    return h.assign(mu=mu, cv=cv)


def log_marginal(h, data):
    """Log p(O_j | mu, cv) [nats]."""
    return evaluate(poisson_gamma.log_marginal, data.observed, data.expected, h.mu, h.cv)


def log_likelihood(lam, h, data):
    """Log Poisson(O_j | E_j lam_j) [nats]."""
    O, E = data.observed, data.expected
    return special.xlogy(O, E * lam) - E * lam - special.gammaln(O + 1)


def expected_log_likelihood(h, data):
    """E[log Poisson(O_j | E_j lam_j)] over lam_j | O_j [nats]."""
    O, E, after = data.observed, data.expected, conditional(h, data)
    log_rate = poisson_gamma.expected_log_rate(after.mu, after.cv)
    return O * (np.log(E) + log_rate) - E * after.mu - special.gammaln(O + 1)


def reliability(h, data):
    """kappa_j = E_j / (E_j + b)."""
    return poisson_gamma.reliability(data.expected, h.mu, h.cv)


def tails(h, data):
    """Probabilities of no more than O_j, and of no less, given mu and cv."""
    return poisson_gamma.tails(data.observed, data.expected, h.mu, h.cv)


def replicate(rng, lam, h, data):
    """O_j ~ Poisson(E_j lam_j)."""
    return xr.apply_ufunc(poisson_gamma.counts, rng, data.expected * lam)


def with_response(data, observed):
    """The same hospitals with other counts."""
    return data.assign(observed=("hospital", observed))


def thin(rng, data):
    """Send each patient to one of two halves by a fair coin: two independent Poissons.

    Given lam_j, O_j splits into two counts, each Poisson(E_j lam_j / 2).
    """
    first = data.observed.copy(data=rng.binomial(data.observed, 0.5))
    halves = first, data.observed - first
    return tuple(data.assign(observed=half, expected=data.expected / 2) for half in halves)


def control_limits(target, expected, probability):
    """Ends between which O/E falls by chance, were every rate ratio the target.

    Poisson limits, between whole counts by interpolation (Spiegelhalter 2005, Stat Med 24:1185-1202,
    appendix), each so that no more than its tail lies beyond: the upper one is between the last count that is
    likely enough and the next.
    """
    mean, tail = target * expected, (1 - probability) / 2
    low, high = stats.poisson.ppf(tail, mean), stats.poisson.isf(tail, mean)
    below = low - (stats.poisson.cdf(low, mean) - tail) / stats.poisson.pmf(low, mean)
    above = high + (stats.poisson.sf(high - 1, mean) - tail) / stats.poisson.pmf(high, mean)
    return np.maximum(below, 0) / expected, above / expected


def fixed_in_advance(priors, data):
    """No pooling: the population is the prior of one hospital, Gamma(a0, b0)."""
    prior = priors["lam"]
    if prior.distribution != "Gamma":
        raise ValueError(f"No pooling is exact under a Gamma prior of 'lam', got {describe(prior)}.")
    mean, variance = moments("lam", prior)
    return {"mu": mean, "cv": np.sqrt(variance) / mean}


def with_a_mu_each(record):
    """The record in forms that take a mu for each hospital."""
    partial = record.variants["partial"] | {"marginalized": hospital_by_hospital}
    extras = replace(record.extras, derived=lambda data: data)
    return replace(record, variants={**record.variants, "partial": partial}, extras=extras)


def simulate(rng, *, hospitals=100, mu=1.0, cv=0.2, median_expected=40.0, sigma_expected=1.0):
    """A frame like the real one and the truth that made it.

    Parameters
    ----------
    rng : numpy.random.Generator
        Source of randomness.
    hospitals : int
        Number of hospitals.
    mu, cv : float
        Mean and coefficient of variation of the population of rate ratios.
    median_expected : float
        Median of the expected counts [patients].
    sigma_expected : float
        Spread of hospital sizes: sd of the log expected count.

    Returns
    -------
    frame : pandas.DataFrame
        Columns hospital, observed, expected.
    truth : xarray.Dataset
        mu, cv, and lam [hospital].

    Examples
    --------
    >>> import numpy as np
    >>> frame, truth = simulate(np.random.default_rng(1), hospitals=3)
    >>> list(frame.columns), dict(truth.lam.sizes)
    (['hospital', 'observed', 'expected'], {'hospital': 3})
    """
    names = [f"H{i + 1:04d}" for i in range(hospitals)]
    expected = np.round(median_expected * np.exp(sigma_expected * rng.standard_normal(hospitals)), 2).clip(min=0.01)
    lam = Gamma(
        xr.DataArray(np.full(hospitals, mu), dims="hospital", coords={"hospital": names}), xr.DataArray(cv)
    ).sample(rng)
    frame = pd.DataFrame({"hospital": names, "observed": rng.poisson(expected * lam.values), "expected": expected})
    return frame, xr.Dataset({"mu": mu, "cv": cv, "lam": lam})


ALTERNATIVES = {"noise": {"poisson": lambda record: record, "binomial": with_binomial_noise}}

MODEL = HierarchicalModel(
    name="hospital_readmission",
    question="Whose readmission rate is high, and whose is only noisy?",
    group="hospital",
    estimand="lam",
    estimand_label="rate ratio",
    response="observed",
    observed="O",
    location="mu",
    heterogeneity="cv",
    reference=1.0,
    columns=COLUMNS,
    parameters=PARAMETERS,
    default_priors=default_priors,
    matched_prior=matched_prior,
    prepare=prepare,
    own=lambda data: data.observed / data.expected,
    volume=lambda data: data.expected,
    variants={
        "none": {"centered": no_pooling},
        "complete": {"centered": complete_pooling},
        "partial": {
            "centered": partial_pooling_centered,
            "noncentered": partial_pooling_noncentered,
            "marginalized": partial_pooling_marginalized,
        },
    },
    fixed={"none": fixed_in_advance, "complete": lambda priors, data: {"cv": 0.0}, "partial": lambda priors, data: {}},
    group_level=closed_form(
        population=population,
        conditional=conditional,
        log_marginal=log_marginal,
        log_likelihood=log_likelihood,
        expected_log_likelihood=expected_log_likelihood,
        reliability=reliability,
        replicate=replicate,
        tails=tails,
        kappa="1 - E[Var(lam | y, h)] / Var(lam | h)",
    ),
    alternatives=ALTERNATIVES,
    simulate=simulate,
    datasets={
        **{name: Shipped() for name in ("heart_transplants", "pumps", "three_hospitals", "simulated_readmissions")},
        "simulated_discharges": Shipped(options={"noise": "binomial"}),
    },
    extras=Extras(
        derived=derived,
        contradiction=contradiction,
        thin=thin,
        control_limits=control_limits,
        readers={"hrrp": from_hrrp},
        moderated=Moderated(
            scale=lambda data: 0.5,
            moved=lambda mu, by: mu * np.exp(by),
            unexplained=lambda h: special.zeta(2, h.cv**-2.0),  # trigamma, of a log Gamma
            of="the log rate ratio",
            written=with_a_mu_each,
        ),
        checks=OF_COUNTS,
        with_response=with_response,
    ),
)
build = MODEL.build
