r"""Success rates: who is good, and who was only lucky?

Eighteen batters have had 45 turns each; one hit .400, one .156. A hospital has operated on
47 children and lost none. Take every rate at its word, give all one rate, or let them
together say how much rates differ at all?

The model
---------
    y_j | p_j        ~ Binomial(n_j, p_j)                    the data
    p_j | mu, phi    ~ Beta(a, b)                            the units
    mu ~ Uniform(0, 1),  phi ~ HalfNormal(0.5)               what we knew before

with a = mu/phi^2 and b = (1 - mu)/phi^2, so that mu is the mean of the population of rates and
1/phi^2 = a + b the number of trials that it is worth; phi = 0 is one rate for all.

==========  =============  ======  ==========  ==========================================
on paper    in code        dims    unit        meaning
==========  =============  ======  ==========  ==========================================
y_j         ``successes``  unit    trials      successes seen
n_j         ``trials``     unit    trials      trials made
p_j         ``p``          unit    share       the unit's own rate
mu          ``mu``                 share       mean rate of the population of units
phi         ``phi``                none        spread: sd of p is
                                               sqrt(mu (1 - mu)) phi / sqrt(1 + phi^2)
a, b        ``a``, ``b``           trials      successes and failures the population
                                               is worth
kappa_j     ``kappa``      unit    share       weight of the unit's own data
==========  =============  ======  ==========  ==========================================

Given mu and phi everything about one unit is known in closed form:

    p_j | y_j ~ Beta(a + y_j, b + n_j - y_j),   mean = kappa y/n + (1 - kappa) mu,
    kappa_j = n_j / (n_j + a + b).

No pooling gives each unit the same wide Beta in advance, matched in mean and variance to
what the partial model expects of one unit. Complete pooling is phi = 0: one rate for all.

With population=logit-normal
----------------------------
    y_j | alpha_j      ~ Binomial(n_j, p_j)                  the data, log odds alpha_j of p_j
    alpha_j | mu, tau  ~ N(mu, tau^2)                        the units
    mu ~ N(0, 1.5^2),  tau ~ HalfNormal(1)                   what we knew before

==========  =============  ======  ==========  ==========================================
on paper    in code        dims    unit        meaning
==========  =============  ======  ==========  ==========================================
alpha_j     ``alpha``      unit    log odds    the unit's own rate, as log(p_j/(1 - p_j))
mu          ``mu``                 log odds    mean of the population of units
tau         ``tau``                log odds    spread of the units around mu, sd
==========  =============  ======  ==========  ==========================================

The units differ by their log odds, the scale on which odds ratios and covariates live; tau = 0 is one
rate for all, and what is reported of a unit is its rate p_j. There is no closed form: each alpha_j is
integrated numerically (`hbm_zoo.models.logit_normal`). There kappa_j = 1 - Var(alpha_j | y, h)/tau^2 is
that of the log odds: a unit without a success says less of them than its number of trials.

With moderators
---------------
What is known of a unit beforehand moves the log odds of the rate it is expected to have; the
spread is what is left:

    y_j | p_j              ~ Binomial(n_j, p_j)              the data
    p_j | mu, beta, phi    ~ Beta(mu_j/phi^2, (1 - mu_j)/phi^2)
    log(mu_j / (1 - mu_j)) = log(mu / (1 - mu)) + x_j beta
    mu ~ Uniform(0, 1),  phi ~ HalfNormal(0.5)               what we knew before
    beta ~ N(0, (1 / sd(x))^2) of a number, N(0, 2^2) of a level against the first

with x_j the columns, centred over units, so that mu is the mean rate at average x, and exp(beta)
the odds ratio of one unit. With population=logit-normal alpha_j ~ N(mu + x_j beta, tau^2).
R^2 = Var_j(x_j beta) / (Var_j(x_j beta) + V), V the variance of log odds around their mean:
tau^2, or of the Beta trigamma(mu_j/phi^2) + trigamma((1 - mu_j)/phi^2), averaged over units.

What it assumes
---------------
* Trials of a unit are independent and alike: no hot hand, no case mix.
* Units are exchangeable: nothing known about one sets it apart beforehand, but what is given as
  a moderator.
* One row a unit: two rows would be two units, so that counts are added up first.

References
----------
Efron B, Morris C (1975) Data analysis using Stein's estimator and its generalizations. J Am
Stat Assoc 70:311-319. Gelman A et al. (2013) Bayesian Data Analysis, 3rd ed., section 5.3.
"""

from dataclasses import replace

import numpy as np
import pandas as pd
import pymc as pm
import xarray as xr
from pymc_extras.prior import Prior
from scipy import special, stats

from hbm_zoo.fields import Extras, Parameter, Shipped
from hbm_zoo.frames.rules import FrameError, count, label
from hbm_zoo.group_level import beta_binomial
from hbm_zoo.group_level.evaluate import evaluate
from hbm_zoo.group_level.level import closed_form
from hbm_zoo.group_level.populations import Beta
from hbm_zoo.model import HierarchicalModel, verbs_of
from hbm_zoo.models.logit_normal import with_logit_normal
from hbm_zoo.models.moderated import Moderated
from hbm_zoo.priors import describe, expectation, moments

MOST_TRIALS = 999_999_999  # That NumPy deals into halves.

COLUMNS = {
    "unit": label("the unit's name: a player, a hospital", unique=True),
    "successes": count("successes seen [trials]", most=MOST_TRIALS),
    "trials": count("trials made [trials]", least=1, most=MOST_TRIALS),
}

PARAMETERS = {
    "mu": Parameter("mean rate of the population of units", (0, 1)),
    "phi": Parameter("spread of units: 1/phi^2 is the number of trials the population is worth", (0, np.inf)),
}


def default_priors(data):
    """Any mean rate; a population worth as many trials as one likes, and hardly (5 %) less than one."""
    return {"mu": Prior("Uniform", lower=0.0, upper=1.0), "phi": Prior("HalfNormal", sigma=0.5)}


def matched_prior(priors):
    """The Beta with the mean and variance of p_j once mu and phi are averaged out."""
    mu, mu_variance = moments("mu", priors["mu"])
    share = expectation(priors["phi"], lambda phi: phi**2 / (1 + phi**2))
    ratio = (mu_variance + (mu * (1 - mu) - mu_variance) * share) / (mu * (1 - mu))
    worth = 1 / ratio - 1
    return Prior("Beta", alpha=mu * worth, beta=(1 - mu) * worth)


def prepare(frame):
    """One row a unit becomes ``successes`` and ``trials`` [unit]."""
    y, n = (frame[name].to_numpy(np.int64) for name in ("successes", "trials"))
    if (y > n).any():
        j = int(np.argmax(y > n))
        raise FrameError(
            f"success_rates expected at most as many successes as trials, got {y[j]} of {n[j]} for "
            f"{frame['unit'].iloc[j]!r}."
        )
    return xr.Dataset({"successes": ("unit", y), "trials": ("unit", n)}, coords={"unit": frame["unit"].to_numpy()})


# The variants, each as it stands on the page.


def no_pooling(data, prior):
    """p_j ~ Beta(a0, b0), fixed in advance; y_j ~ Binomial(n_j, p_j)."""
    p = prior("p", dims="unit")
    pm.Binomial("y", data.trials, p, observed=data.successes, dims="unit")


def complete_pooling(data, prior):
    """y_j ~ Binomial(n_j, mu): one rate for all."""
    pm.Binomial("y", data.trials, prior("mu"), observed=data.successes, dims="unit")


def partial_pooling_centered(data, prior):
    """p_j ~ Beta(a, b); y_j ~ Binomial(n_j, p_j)."""
    a, b = worth(prior("mu"), prior("phi"))
    p = pm.Beta("p", a, b, dims="unit")
    pm.Binomial("y", data.trials, p, observed=data.successes, dims="unit")


def partial_pooling_noncentered(data, prior):
    """p_j = expit(logit mu + phi z_j / sqrt(mu (1 - mu))), with the Beta's own density for z_j."""
    mu, phi = prior("mu"), prior("phi")
    worth(mu, phi)
    z = pm.CustomDist(
        "z",
        mu,
        phi,
        logp=beta_binomial.log_standardised_logit,
        random=beta_binomial.random_standardised_logit,
        signature="(),()->()",
        dims="unit",
    )
    log_odds = pm.math.logit(mu) + phi * z / pm.math.sqrt(mu * (1 - mu))
    p = pm.Deterministic("p", pm.math.sigmoid(log_odds), dims="unit")
    pm.Binomial("y", data.trials, p, observed=data.successes, dims="unit")


def partial_pooling_marginalized(data, prior):
    """y_j ~ beta-binomial: p_j is integrated out."""
    mu, phi = prior("mu"), prior("phi")
    worth(mu, phi)
    integrated_out(data, mu, phi)


def partial_pooling_marginalized_each(data, prior):
    """The same where each unit has a mu of its own; none is recorded, for that would be an array."""
    integrated_out(data, prior("mu"), prior("phi"))


def integrated_out(data, mu, phi):
    """y_j ~ beta-binomial."""
    pm.CustomDist(
        "y",
        data.trials,
        mu,
        phi,
        logp=beta_binomial.log_marginal,
        random=beta_binomial.random,
        signature="(),(),()->()",
        dtype="int64",
        observed=data.successes,
        dims="unit",
    )


def worth(mu, phi):
    """A = mu/phi^2 and b = (1 - mu)/phi^2, recorded so that (y + a)/(n + a + b) can be checked by hand."""
    a, b = mu / phi**2, (1 - mu) / phi**2
    return tuple(pm.Deterministic(name, value, dims=("unit",) * value.ndim) for name, value in (("a", a), ("b", b)))


# One unit, given mu and phi.


def population(h):
    """P ~ Beta with mean mu and spread phi."""
    return Beta(h.mu, h.phi)


def conditional(h, data):
    """p_j | y_j: the Beta with a + y_j successes and b + n_j - y_j failures."""
    mu, phi = beta_binomial.conditional(data.successes, data.trials, h.mu, h.phi)
    return h.assign(mu=mu, phi=phi)


def log_marginal(h, data):
    """Log p(y_j | mu, phi) [nats]."""
    return evaluate(beta_binomial.log_marginal, data.successes, data.trials, h.mu, h.phi)


def log_likelihood(p, h, data):
    """Log Binomial(y_j | n_j, p_j) [nats]."""
    y, n = data.successes, data.trials
    return log_ways(y, n) + special.xlogy(y, p) + special.xlog1py(n - y, -p)


def expected_log_likelihood(h, data):
    """E[log Binomial(y_j | n_j, p_j)] over p_j | y_j [nats]."""
    y, n, after = data.successes, data.trials, conditional(h, data)
    log_p, log_q = beta_binomial.expected_logs(after.mu, after.phi)
    return log_ways(y, n) + y * log_p + (n - y) * log_q


def log_ways(y, n):
    """Log of the number of orders in which y of n trials succeed."""
    return special.gammaln(n + 1) - special.gammaln(y + 1) - special.gammaln(n - y + 1)


def reliability(h, data):
    """kappa_j = n_j / (n_j + a + b)."""
    return beta_binomial.reliability(data.trials, h.phi)


def tails(h, data):
    """Probabilities of no more than y_j, and of no less, given mu and phi."""
    return beta_binomial.tails(data.successes, data.trials, h.mu, h.phi)


def replicate(rng, p, h, data):
    """y_j ~ Binomial(n_j, p_j)."""
    return xr.apply_ufunc(rng.binomial, *xr.broadcast(data.trials, p))


def with_response(data, successes):
    """The same units with other successes."""
    return data.assign(successes=("unit", successes))


def thin(rng, data):
    """Deal the trials of each unit into two halves: two independent binomials.

    Given p_j every order of successes and failures is as likely as another, so half of the trials
    hold a hypergeometric number of the successes. An odd trial falls to either half.
    """
    halves = beta_binomial.halves(data.successes.values, data.trials.values, rng)
    return tuple(data.assign(successes=("unit", y), trials=("unit", n)) for y, n in halves)


def control_limits(target, trials, probability):
    """Ends between which y/n falls by chance, were every rate the target.

    Binomial limits, between whole counts by interpolation (Spiegelhalter 2005, Stat Med 24:1185-1202,
    appendix); the upper is the lower of the failures, so that neither end counts as far out what is likely.
    Between whole numbers of trials, where a curve is drawn, they are those of the nearest.
    """
    trials = np.rint(trials)

    def lower(rate):
        tail = (1 - probability) / 2
        count = stats.binom.ppf(tail, trials, rate)
        excess = stats.binom.cdf(count, trials, rate) - tail
        return np.maximum(count - excess / stats.binom.pmf(count, trials, rate), 0) / trials

    return lower(target), 1 - lower(1 - target)


def fixed_in_advance(priors, data):
    """No pooling: the population is the prior of one unit, Beta(a0, b0)."""
    prior = priors["p"]
    if prior.distribution != "Beta" or prior.transform:
        raise ValueError(f"No pooling is exact under a Beta prior of 'p', got {describe(prior)}.")
    mean, variance = moments("p", prior)
    ratio = variance / (mean * (1 - mean))
    return {"mu": mean, "phi": np.sqrt(ratio / (1 - ratio))}


ALTERNATIVES = {"population": {"beta": lambda record: record, "logit-normal": with_logit_normal}}


def with_a_mu_each(record):
    """The record in forms that take a mu for each unit."""
    partial = record.variants["partial"] | {"marginalized": partial_pooling_marginalized_each}
    return replace(record, variants={**record.variants, "partial": partial})


def unexplained(h):
    """Variance of the log odds of a Beta."""
    return special.zeta(2, h.mu / h.phi**2) + special.zeta(2, (1 - h.mu) / h.phi**2)


def simulate(rng, *, units=30, mu=0.25, phi=0.1, median_trials=60.0, sigma_trials=0.8):
    """A frame like the real one and the truth that made it.

    Parameters
    ----------
    rng : numpy.random.Generator
        Source of randomness.
    units : int
        Number of units.
    mu, phi : float
        Mean of the population of rates, and its spread; 1/phi^2 is the number of trials it is worth.
    median_trials : float
        Median number of trials of a unit; each has at least one.
    sigma_trials : float
        Spread of unit sizes: sd of the log number of trials.

    Returns
    -------
    frame : pandas.DataFrame
        Columns unit, successes, trials.
    truth : xarray.Dataset
        mu, phi, and p [unit].

    Examples
    --------
    >>> import numpy as np
    >>> frame, truth = simulate(np.random.default_rng(1), units=3)
    >>> list(frame.columns), dict(truth.p.sizes)
    (['unit', 'successes', 'trials'], {'unit': 3})
    """
    names = [f"U{i + 1:03d}" for i in range(units)]
    n = np.ceil(median_trials * np.exp(sigma_trials * rng.standard_normal(units))).astype(np.int64)
    each = xr.DataArray(np.ones(units), dims="unit", coords={"unit": names})
    p = Beta(mu * each, phi * each).sample(rng)
    frame = pd.DataFrame({"unit": names, "successes": rng.binomial(n, p.values), "trials": n})
    return frame, xr.Dataset({"mu": mu, "phi": phi, "p": p})


MODEL = HierarchicalModel(
    name="success_rates",
    question="Who is good, and who was only lucky?",
    group="unit",
    estimand="p",
    estimand_label="success rate",
    response="successes",
    observed="y",
    location="mu",
    heterogeneity="phi",
    reference=None,
    columns=COLUMNS,
    parameters=PARAMETERS,
    default_priors=default_priors,
    matched_prior=matched_prior,
    prepare=prepare,
    own=lambda data: data.successes / data.trials,
    volume=lambda data: data.trials,
    variants={
        "none": {"centered": no_pooling},
        "complete": {"centered": complete_pooling},
        "partial": {
            "centered": partial_pooling_centered,
            "noncentered": partial_pooling_noncentered,
            "marginalized": partial_pooling_marginalized,
        },
    },
    fixed={"none": fixed_in_advance, "complete": lambda priors, data: {"phi": 0.0}, "partial": lambda priors, data: {}},
    group_level=closed_form(
        population=population,
        conditional=conditional,
        log_marginal=log_marginal,
        log_likelihood=log_likelihood,
        expected_log_likelihood=expected_log_likelihood,
        reliability=reliability,
        replicate=replicate,
        tails=tails,
        kappa="1 - E[Var(p | y, h)] / Var(p | h)",
    ),
    alternatives=ALTERNATIVES,
    simulate=simulate,
    datasets={
        "baseball": Shipped(columns={"unit": "player", "successes": "hits", "trials": "at_bats"}),
        "surgical": Shipped(columns={"unit": "hospital", "successes": "deaths", "trials": "operations"}),
    },
    extras=Extras(
        thin=thin,
        control_limits=control_limits,
        with_response=with_response,
        moderated=Moderated(
            scale=lambda data: 1.0,
            moved=lambda mu, by: mu / (mu + (1 - mu) * np.exp(-by)),  # on the log odds
            unexplained=unexplained,
            of="the log odds",
            written=with_a_mu_each,
        ),
    ),
)
build = MODEL.build
__getattr__ = verbs_of("success_rates", "score")
