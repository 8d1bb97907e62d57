r"""Material batches: what may a customer count on from the next batch?

An alloy is cast in batches, a few specimens of each are torn apart, and batches are made in
campaigns (or by suppliers, in laboratories). Three to five batches are all there is before a
part must be designed. Treat every batch alone, lump all specimens, or learn from the data how
much campaigns, batches and specimens differ?

The model
---------
    y_cbi | theta_cb          ~ N(theta_cb, sigma^2)          the specimens
    theta_cb | mu_c, sigma_b  ~ N(mu_c, sigma_b^2)            the batches of a campaign
    mu_c | mu, sigma_c        ~ N(mu, sigma_c^2)              the campaigns
    mu ~ N(m0, (2.5 s)^2),  sigma_c, sigma_b, sigma ~ HalfNormal(2.5 s)

with m0 and s the mean and the sd of all rows: read once from the frame, then frozen.

=============  ===================  ========  ============  =====================================
on paper       in code              dims      unit          meaning
=============  ===================  ========  ============  =====================================
y_cbi          ``strength``         specimen  strength      one specimen's strength
b              ``batch_index``      specimen                the specimen's batch
c              ``family``           batch                   the batch's campaign
n_cb           ``n``                batch     specimens     how many there are
ybar_cb        ``y_bar``            batch     strength      their mean
SS_cb          ``SS``               batch     strength^2    their squares around it
theta_cb       ``theta``            batch     strength      the batch's own mean
mu_c           ``mu_c``             campaign  strength      the campaign's own mean
mu             ``mu``                         strength      mean of the campaigns
sigma_c        ``sigma_c``                    strength      spread of campaigns, sd
sigma_b        ``sigma_b``                    strength      spread of batches in a campaign, sd
sigma          ``sigma``                      strength      spread of specimens in a batch, sd
kappa_cb       ``kappa``            batch     share         weight of a batch's own data
=============  ===================  ========  ============  =====================================

A batch borrows twice: from its campaign, and its campaign from the others. With w = n /
(sigma^2 + n sigma_b^2) and W = sum w over the batches of a campaign, whose mean weighted by w
is ybar_c,

    mu_c | y ~ N(kappa_c ybar_c + (1 - kappa_c) mu, sigma_c^2 / (1 + W sigma_c^2)),
    kappa_c = W sigma_c^2 / (1 + W sigma_c^2);
    theta_cb | mu_c, y ~ N(kappa_cb ybar_cb + (1 - kappa_cb) mu_c, kappa_cb sigma^2 / n_cb),
    kappa_cb = n_cb sigma_b^2 / (sigma^2 + n_cb sigma_b^2).

No pooling gives each batch the same wide normal in advance, N(m0, s0^2) with s0^2 = Var(mu) +
E[sigma_c^2 + sigma_b^2]; complete pooling is sigma_c = sigma_b = 0. sigma is shared by the
batches in all three. Between the last two, estimates over the heterogeneity scale both spreads
together. A batch that is left out is a new batch of its own campaign.

One campaign (or no column of it) has one level: sigma_c = 0, and its batches are independent.

The spreads' priors are wide on purpose. The sd of the batches' means, a tempting scale, is known
no better than sigma_b itself, and bounds on the next batch that were made with it held too
seldom: ``docs/tolerance.md``.

What it assumes
---------------
* Strength is normal within and between batches: a lower tail that is heavier than that makes the
  part weaker than any bound says.
* The spread within a batch is the same in each.
* Batches of a campaign, and campaigns, are exchangeable: no trend from batch to batch.

References
----------
Davies O, Goldsmith P (1972) Statistical Methods in Research and Production, 4th ed., chapter 6.
Box G, Tiao G (1973) Bayesian Inference in Statistical Analysis, chapter 5. CMH-17 (2012)
Composite Materials Handbook, vol. 1, section 8.3. Gelman A (2006) Bayesian Anal 1:515-534.
"""

import numpy as np
import pandas as pd
import pymc as pm
import xarray as xr
from pymc_extras.prior import Prior

from hbm_zoo.fields import Extras, Parameter, Shipped
from hbm_zoo.frames.rules import FrameError, key, label, number
from hbm_zoo.group_level import nested
from hbm_zoo.group_level.level import GroupLevel, Level
from hbm_zoo.group_level.normal import are_the_same, moments_by_group
from hbm_zoo.group_level.populations import Normal
from hbm_zoo.model import HierarchicalModel, verbs_of
from hbm_zoo.models.batch_checks import OF_BATCHES, with_response
from hbm_zoo.priors import describe, moments

KEY = ("campaign", "batch")
ONE_CAMPAIGN = "all"
#: Of the sd of specimens, by which means that are the same may differ.
ROUNDING = 1e-9
KAPPA = "n sigma_b^2 / (sigma^2 + n sigma_b^2), against the batch's campaign"

COLUMNS = {
    "campaign": label("the campaign, supplier or laboratory that a batch is of", optional=True),
    "batch": label("the batch that a specimen is of, within its campaign"),
    "strength": number("strength of one specimen"),
}

PARAMETERS = {
    "mu": Parameter("mean strength of the campaigns"),
    "sigma_c": Parameter("spread of campaigns around mu, sd", (0, np.inf)),
    "sigma_b": Parameter("spread of batches around their campaign's mean, sd", (0, np.inf)),
    "sigma": Parameter("spread of specimens around their batch's mean, sd", (0, np.inf)),
}


def default_priors(data):
    """A mean anywhere near the data; no spread more than about five times that of all specimens."""
    m0, s = float(data.strength.mean()), float(data.strength.std(ddof=1))
    spread = Prior("HalfNormal", sigma=2.5 * s)
    return {"mu": Prior("Normal", mu=m0, sigma=2.5 * s), "sigma_c": spread, "sigma_b": spread, "sigma": spread}


def check(data):
    """What only priors tell: where each batch has one specimen, or each of several campaigns one batch.

    Raises
    ------
    FrameError
        If no specimens of a batch differ: the density grows without bound as sigma goes to 0.
    """
    all_same, each_same = are_the_same(data.strength, data.n, data.SS)
    if all_same or each_same:
        raise FrameError(
            "material_batches: column 'strength' expected specimens of a batch that differ, got the same value in all "
            f"rows of {'the frame' if all_same else 'each batch'}: nothing says how large sigma is."
        )
    if float(np.ptp(data.y_bar.values)) <= ROUNDING * float(np.sqrt(data.SS.mean())):
        yield "The means of all batches are the same: strengths expected, not deviations from a batch's mean."
    if data.n.max() == 1:
        yield _only_priors_tell("Every batch has one row", "specimens (sigma)", "batches (sigma_b)")
    if data.sizes["campaign"] > 1 and data.member.sum("batch").max() == 1:
        yield _only_priors_tell("Every campaign has one batch", "batches (sigma_b)", "campaigns (sigma_c)")


def _only_priors_tell(why, one, other):
    return f"{why}: only their priors tell the spread of {one} from that of {other}."


def matched_prior(priors):
    """The normal with the mean and variance of theta once the hyperparameters are averaged out."""
    (mu, variance), *spreads = (moments(name, priors[name]) for name in ("mu", "sigma_c", "sigma_b"))
    return Prior("Normal", mu=mu, sigma=np.sqrt(variance + sum(mean**2 + v for mean, v in spreads)))


def prepare(frame):
    """The rows [specimen], and count, mean, centred squares and campaign of each batch [batch]."""
    labels = key(frame, KEY, "material_batches")
    index, batches = pd.factorize(labels)
    y = frame["strength"].to_numpy(float)
    n, y_bar, SS = moments_by_group(y, index)
    first = ~labels.duplicated()
    named = frame["campaign"][first] if "campaign" in frame else pd.Series([ONE_CAMPAIGN] * batches.size)
    family, campaigns = pd.factorize(named)
    return xr.Dataset(
        {
            "strength": ("specimen", y),
            "batch_index": ("specimen", index.astype(np.int64)),
            "n": ("batch", n.astype(np.int64)),
            "y_bar": ("batch", y_bar),
            "SS": ("batch", SS),
            "family": ("batch", family.astype(np.int64)),
            "member": (("batch", "campaign"), np.eye(campaigns.size)[family]),
        },
        coords={"batch": np.asarray(batches), "campaign": np.asarray(campaigns)},
    )


# The variants, each as it stands on the page.


def no_pooling(data, prior):
    """theta_b ~ N(m0, s0^2), fixed in advance; y_bi ~ N(theta_b, sigma^2)."""
    theta, sigma = prior("theta", dims="batch"), prior("sigma")
    pm.Normal("y", theta[data.batch_index], sigma, observed=data.strength, dims="specimen")


def complete_pooling(data, prior):
    """y_bi ~ N(mu, sigma^2): one mean for all."""
    mu, sigma = prior("mu"), prior("sigma")
    pm.Normal("y", mu, sigma, observed=data.strength, dims="specimen")


def partial_pooling_noncentered(data, prior):
    """mu_c = mu + sigma_c z_c, theta_b = mu_c + sigma_b z_b, all z ~ N(0, 1)."""
    mu, sigma_c, sigma_b, sigma = prior("mu"), prior("sigma_c"), prior("sigma_b"), prior("sigma")
    z_c, z_b = pm.Normal("z_c", dims="campaign"), pm.Normal("z_b", dims="batch")
    mu_c = pm.Deterministic("mu_c", mu + sigma_c * z_c, dims="campaign")
    theta = pm.Deterministic("theta", mu_c[data.family] + sigma_b * z_b, dims="batch")
    pm.Normal("y", theta[data.batch_index], sigma, observed=data.strength, dims="specimen")


def marginalized(data, prior):
    """All rows are jointly normal: batches and campaigns are integrated out.

    One form for all three poolings, each with its own population: no pooling fixes mu and both spreads in
    advance, complete pooling has spreads of 0. The mean of a batch's rows stands for them all.
    """
    pm.CustomDist(
        "y",
        data.n,
        data.SS,
        data.member,
        prior("mu"),
        prior("sigma_c"),
        prior("sigma_b"),
        prior("sigma"),
        logp=nested.log_marginal,
        random=nested.random_means,
        signature="(n),(n),(n,c),(),(),(),()->(n)",
        observed=data.y_bar,
        dims="batch",
    )


# Batches and campaigns, given mu, sigma_c, sigma_b and sigma.


def population(h):
    """Theta ~ N(mu, sigma_c^2 + sigma_b^2), of a batch of a campaign never seen."""
    return Normal(h.mu, np.sqrt(h.sigma_c**2 + h.sigma_b**2))


def replicate(rng, theta, h, new, seen):
    """y_bi ~ N(theta_b, sigma^2), as many as there are."""
    return xr.apply_ufunc(rng.normal, *xr.broadcast(theta.isel(batch=new.batch_index), h.sigma))


def leave_row_out(h, data, rows):
    """Log density of each specimen given all others [nats]."""
    return nested.leave_row_out(h, data, data.strength[rows], data.batch_index[rows])


def without_row(data, i):
    """The data without one specimen; a batch that had no other is gone."""
    keep = np.arange(data.sizes["specimen"]) != i
    index, y = data.batch_index.values[keep], data.strength.values[keep]
    left = np.unique(index)
    n, y_bar, SS = moments_by_group(y, np.searchsorted(left, index))
    rows = {"strength": ("specimen", y), "batch_index": ("specimen", np.searchsorted(left, index))}
    of_batches = {"n": ("batch", n), "y_bar": ("batch", y_bar), "SS": ("batch", SS)}
    return data.drop_dims("specimen").isel(batch=left).assign(rows | of_batches)


def fixed_in_advance(priors, data):
    """No pooling: the population is the prior of one batch, N(m0, s0^2)."""
    prior = priors["theta"]
    if prior.distribution != "Normal":
        raise ValueError(f"No pooling is exact under a Normal prior of 'theta', got {describe(prior)}.")
    mean, variance = moments("theta", prior)
    return {"mu": mean, "sigma_c": 0.0, "sigma_b": np.sqrt(variance)}


def joined(seen, *new):
    """The batches of several data sets.

    Raises
    ------
    ValueError
        If batches of another campaign are added to those of one alone, which says nothing of how campaigns differ.
    """
    others = {str(label) for part in new for label in part["campaign"].values} - {*map(str, seen["campaign"].values)}
    if seen.sizes["campaign"] == 1 and others:
        raise ValueError(
            f"The fit is of one campaign, which does not say how far another may lie: {sorted(others)[0]!r} cannot be "
            "predicted. Fit several campaigns."
        )
    return nested.joined(seen, *new)


def one_level(priors, data):
    """Partial pooling of one campaign: nothing can be said of the spread of campaigns."""
    return {"sigma_c": 0.0} if data.sizes["campaign"] == 1 else {}


def shrink_together(t, means):
    """Both spreads t times their posterior means."""
    return {name: t * means[name] for name in ("sigma_c", "sigma_b")}


CAMPAIGN = Level(
    dim="campaign",
    population=lambda h, data: Normal(h.mu, h.sigma_c),
    conditional=nested.families_after,
    reliability=nested.weight_of_family,
    own=lambda data: xr.dot(data.n * data.y_bar, data.member, dim="batch") / xr.dot(data.n, data.member, dim="batch"),
    volume=lambda data: data.member.sum("batch").rename("batches"),
)


def simulate(
    rng,
    *,
    campaigns=6,
    mu=500.0,
    sigma_c=8.0,
    sigma_b=6.0,
    sigma=10.0,
    batches=(3, 5),
    specimens=(3, 6),
):
    """A frame like the real one and the truth that made it.

    Parameters
    ----------
    rng : numpy.random.Generator
        Source of randomness.
    campaigns : int
        Number of campaigns.
    mu, sigma_c, sigma_b, sigma : float
        Mean, and sd of campaigns, of batches in a campaign, of specimens in a batch [MPa].
    batches, specimens : tuple of int
        Fewest and most batches of a campaign, and specimens of a batch.

    Returns
    -------
    frame : pandas.DataFrame
        Columns campaign, batch, strength [MPa].
    truth : xarray.Dataset
        The hyperparameters, mu_c [campaign] and theta [batch].

    Examples
    --------
    >>> import numpy as np
    >>> frame, truth = simulate(np.random.default_rng(1), campaigns=2)
    >>> list(frame.columns), truth.sizes["campaign"]
    (['campaign', 'batch', 'strength'], 2)
    """
    names = np.array([f"C{i + 1}" for i in range(campaigns)])
    of = np.repeat(np.arange(campaigns), rng.integers(batches[0], batches[1] + 1, campaigns))
    batch = pd.Series(of).groupby(of).cumcount().to_numpy() + 1
    mu_c = rng.normal(mu, sigma_c, campaigns)
    theta = rng.normal(mu_c[of], sigma_b)
    row = np.repeat(np.arange(of.size), rng.integers(specimens[0], specimens[1] + 1, of.size))
    frame = pd.DataFrame({"campaign": names[of][row], "batch": batch[row], "strength": rng.normal(theta[row], sigma)})
    truth = {"mu": mu, "sigma_c": sigma_c, "sigma_b": sigma_b, "sigma": sigma, "mu_c": ("campaign", mu_c)}
    labels = [f"{names[c]} / {b}" for c, b in zip(of, batch, strict=True)]
    return frame, xr.Dataset(truth | {"theta": ("batch", theta)}, coords={"campaign": names, "batch": labels})


MODEL = HierarchicalModel(
    name="material_batches",
    question="What may a customer count on from the next batch?",
    group="batch",
    key=KEY,
    estimand="theta",
    estimand_label="mean strength",
    response="strength",
    observed="y",
    location="mu",
    heterogeneity="sigma_b",
    reference=None,
    columns=COLUMNS,
    parameters=PARAMETERS,
    default_priors=default_priors,
    matched_prior=matched_prior,
    prepare=prepare,
    own=lambda data: data.y_bar,
    volume=lambda data: data.n.rename("specimens"),
    variants={
        "none": {"centered": no_pooling, "marginalized": marginalized},
        "complete": {"centered": complete_pooling, "marginalized": marginalized},
        "partial": {"noncentered": partial_pooling_noncentered, "marginalized": marginalized},
    },
    fixed={
        "none": fixed_in_advance,
        "complete": lambda priors, data: {"sigma_c": 0.0, "sigma_b": 0.0},
        "partial": one_level,
    },
    group_level=GroupLevel(
        kind="in closed form",
        kappa=KAPPA,
        independent=False,
        apart=lambda data: data.sizes["campaign"] == 1,  # whose mean is mu: sigma_c = 0
        population=population,
        conditional=nested.conditional,
        log_joint=nested.log_joint,
        log_left_out=nested.log_left_out,
        log_predictive=nested.log_predictive,
        log_likelihood=nested.log_likelihood,
        expected_log_likelihood=nested.expected_log_likelihood,
        reliability=nested.reliability,
        replicate=replicate,
        deviations=nested.deviations,
        tails=nested.tails,
        leave_row_out=leave_row_out,
        without_row=without_row,
        emptied=nested.emptied,
        joined=joined,
        further=(CAMPAIGN,),
    ),
    simulate=simulate,
    datasets={
        "pastes": Shipped(columns={"campaign": "batch", "batch": "cask"}),
        "dyestuff": Shipped(columns={"strength": "yield_g"}),
        "dyestuff2": Shipped(columns={"strength": "yield"}),
        "simulated_alloy": Shipped(),
    },
    extras=Extras(check=check, path=shrink_together, checks=OF_BATCHES, with_response=with_response),
)
build = MODEL.build
__getattr__ = verbs_of("material_batches", "tolerance_bound")
