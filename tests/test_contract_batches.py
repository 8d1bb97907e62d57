"""Groups that depend on one another, levels above them and labels of several columns, held to a model from outside.

Batches of a material are made in campaigns, a few specimens each is tested. Batch 1 of one campaign is not
batch 1 of another, and batches of one campaign share what was peculiar to it: given the hyperparameters they
depend on one another. Everything is known in closed form, and the oracle is the normal of all specimens,
written down as one covariance matrix.
"""

import io
import re
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd
import pymc as pm
import pytest
import xarray as xr
from pymc_extras.prior import Prior
from rich.console import Console
from scipy import stats
from scipy.optimize import minimize
from scipy.special import logsumexp

import hbm_zoo as hz
from hbm_zoo.command_line.terminal import _comparisons
from hbm_zoo.diagnostics.comparison import QUESTIONS, no_standard_error
from hbm_zoo.diagnostics.cross_validation import _log_predictive, new_group, same_group_rows
from hbm_zoo.diagnostics.heterogeneity import estimates_over_heterogeneity
from hbm_zoo.frames.rules import FrameError, key, label, number
from hbm_zoo.group_level import normal
from hbm_zoo.group_level.evaluate import evaluate
from hbm_zoo.group_level.level import GroupLevel, Level, summed
from hbm_zoo.group_level.populations import Normal
from hbm_zoo.inference import chunks
from hbm_zoo.inference.completion import _rank_draws, recovered
from hbm_zoo.inference.fits import hyperparameters, priors_of, thinned
from hbm_zoo.inference.free_parameters import FreeParameters, left_out
from hbm_zoo.inference.loo import k_hat_threshold
from hbm_zoo.inference.summary import group_summary, rank_summary
from hbm_zoo.model import HierarchicalModel, Parameter
from hbm_zoo.priors import moments
from hbm_zoo.reporting.findings import findings
from hbm_zoo.reporting.report import write

KEY = ("campaign", "batch")
SPREADS = ("sigma_campaign", "sigma_batch", "sigma")


def prepare(frame):
    """One row a specimen; what the rows of a batch say beside their mean is their sum of squares."""
    labels = key(frame, KEY, "batches")
    batch, batches = pd.factorize(labels)
    campaign, campaigns = pd.factorize(frame.loc[~labels.duplicated(), "campaign"])
    strength = frame["strength"].to_numpy(float)
    n, y_bar, SS = normal.moments_by_group(strength, batch)
    return xr.Dataset(
        {
            "strength": ("specimen", strength),
            "batch_index": ("specimen", batch),
            "campaign_index": ("batch", campaign),
            "made_in": (("batch", "campaign"), np.eye(len(campaigns))[campaign]),
            "n": ("batch", n),
            "y_bar": ("batch", y_bar),
            "SS": ("batch", SS),
        },
        coords={"batch": np.asarray(batches), "campaign": np.asarray(campaigns)},
    )


# The variants: as on the page, and all specimens jointly normal.


def no_pooling(data, prior):
    pm.Normal("y", prior("theta", dims="batch")[data.batch_index], prior("sigma"), observed=data.strength)


def complete_pooling(data, prior):
    pm.Normal("y", prior("mu"), prior("sigma"), observed=data.strength, dims="specimen")


def partial_pooling(data, prior):
    of_campaign = pm.Normal("of_campaign", prior("mu"), prior("sigma_campaign"), dims="campaign")
    theta = pm.Normal("theta", of_campaign[data.campaign_index], prior("sigma_batch"), dims="batch")
    pm.Normal("y", theta[data.batch_index], prior("sigma"), observed=data.strength, dims="specimen")


def marginalized(data, prior):
    """The means of the batches, jointly normal, and what the specimens say beside them; one form for three poolings."""
    pm.CustomDist(
        "y",
        data.n,
        data.SS,
        data.made_in,
        *map(prior, BATCHES.parameters),
        logp=log_density,
        random=None,
        signature="(b),(b),(b,c),(),(),(),()->(b)",
        observed=data.y_bar,
        dims="batch",
    )


def log_density(y_bar, n, SS, made_in, mu, sigma_campaign, sigma_batch, sigma):
    """Log density of all specimens: of the batches alone, moved by the campaigns they share [nats]."""
    alone = normal.log_marginal_rows(y_bar, n, SS, mu, sigma_batch, sigma)
    w = n / (sigma**2 + n * sigma_batch**2)
    spread = 1 + made_in.T @ w * sigma_campaign**2
    moved = (made_in.T @ (w * (y_bar - mu))) ** 2 * sigma_campaign**2 / spread
    return alone.sum() + 0.5 * (moved - pm.math.log(spread)).sum()


# One batch, given the hyperparameters.


@dataclass(frozen=True)
class Sharing(Normal):
    """Normals that share a standard normal with those of the same unit, each `shared` times of it."""

    shared: xr.DataArray
    unit: xr.DataArray

    def sample(self, rng):
        """A joint draw of all batches."""
        mean, sd, shared = xr.broadcast(self.mean, self.sd, self.shared)
        unit = xr.DataArray(self.unit)
        unit = unit.isel({dim: 0 for dim in unit.dims if dim != "batch"}).values.astype(int)
        of_unit = mean.isel(batch=np.zeros(unit.max() + 1, int))
        common = of_unit.copy(data=rng.standard_normal(of_unit.shape)).isel(batch=unit)
        alone = mean.copy(data=rng.standard_normal(mean.shape))
        return mean + shared * common.assign_coords(batch=mean.batch) + np.sqrt(sd**2 - shared**2) * alone


def by_campaign(values, data):
    """Sums over the batches of each campaign."""
    number_of = xr.DataArray(np.arange(data.sizes["campaign"]), {"campaign": data.campaign}, "campaign")
    return values.where(data.campaign_index == number_of, 0.0).sum("batch", skipna=False)


def of_own(values, data):
    """What is of a campaign, for each of its batches."""
    return values.isel(campaign=data.campaign_index).drop_vars("campaign")


def precision(h, n):
    """Of a batch's mean as a measurement of its campaign: n / (sigma^2 + n sigma_batch^2)."""
    return n / (h.sigma**2 + n * h.sigma_batch**2)


def of_others(h, data):
    """Precision and weighted deviations of the other batches of each batch's campaign."""
    w = precision(h, data.n)
    parts = w, w * (data.y_bar - h.mu)
    return [of_own(by_campaign(part, data), data) - part for part in parts]


def given(h, W, deviations):
    """Mean and variance of a campaign after measurements of it."""
    variance = h.sigma_campaign**2 / (1 + W * h.sigma_campaign**2)
    return h.mu + variance * deviations, variance


def campaigns(h, data):
    """Mean and variance of each campaign after the data."""
    w = precision(h, data.n)
    return given(h, by_campaign(w, data), by_campaign(w * (data.y_bar - h.mu), data))


def population(h):
    return Normal(h.mu, np.hypot(h.sigma_campaign, h.sigma_batch))


def conditional(h, data):
    mean, variance = (of_own(of, data) for of in campaigns(h, data))
    kappa = data.n * h.sigma_batch**2 / (h.sigma**2 + data.n * h.sigma_batch**2)
    shared = (1 - kappa) * np.sqrt(variance)
    sd = np.sqrt((1 - kappa) * h.sigma_batch**2 + shared**2)
    return Sharing(kappa * data.y_bar + (1 - kappa) * mean, sd, shared, data.campaign_index)


def log_joint(h, data):
    w = precision(h, data.n)
    W, t = by_campaign(w, data), data.n / w
    centre = by_campaign(w * data.y_bar, data) / W
    Q = by_campaign(w * (data.y_bar - of_own(centre, data)) ** 2, data)
    rows = -0.5 * ((data.n - 1) * np.log(2 * np.pi * h.sigma**2) + data.SS / h.sigma**2 + np.log(2 * np.pi * t))
    spread = 1 + W * h.sigma_campaign**2
    of_campaigns = -0.5 * (Q + np.log(spread) + W * (centre - h.mu) ** 2 / spread)
    return rows.sum("batch", skipna=False) + of_campaigns.sum("campaign", skipna=False)


def log_left_out(h, data):
    mean, variance = given(h, *of_others(h, data))
    tau = np.sqrt(h.sigma_batch**2 + variance)
    return evaluate(normal.log_marginal_rows, data.y_bar, data.n, data.SS, mean, tau, h.sigma)


def log_predictive(h, new, seen):
    now = conditional(h, seen)
    return evaluate(normal.log_marginal_rows, new.y_bar, new.n, new.SS, now.mean, now.sd, h.sigma)


def leave_row_out(h, data):
    """Log density of each specimen given all others."""
    W, deviations = (of.isel(batch=data.batch_index) for of in of_others(h, data))
    own = data[["n", "y_bar"]].isel(batch=data.batch_index)
    n = own.n - 1
    y_bar = (own.n * own.y_bar - data.strength) / n.where(n > 0, 1)
    w = precision(h, n)
    mean, variance = given(h, W + w, deviations + w * (y_bar - h.mu))
    kappa = n * h.sigma_batch**2 / (h.sigma**2 + n * h.sigma_batch**2)
    variance = (1 - kappa) * h.sigma_batch**2 + (1 - kappa) ** 2 * variance
    return normal.log_density(data.strength, kappa * y_bar + (1 - kappa) * mean, variance + h.sigma**2)


def rows_of(data):
    """The frame that the data were prepared from."""
    labels = pd.Series(data.batch.values[data.batch_index]).str.split(" / ", expand=True)
    return labels.set_axis(KEY, axis=1).assign(strength=data.strength.values)


def without_group(data, group, j):
    return prepare(rows_of(data)[data.batch_index.values != j].reset_index(drop=True))


def log_likelihood(theta, h, data):
    return normal.expected_log_density_rows(data.y_bar, data.n, data.SS, theta, 0, h.sigma)


def expected_log_likelihood(h, data):
    now = conditional(h, data)
    return normal.expected_log_density_rows(data.y_bar, data.n, data.SS, now.mean, now.sd, h.sigma)


def reliability(h, data):
    before, after = population(h).sd, conditional(h, data).sd
    return xr.where(before > 0, 1 - (after / before) ** 2, 0.0)


def replicate(rng, theta, h, new, seen):
    return xr.apply_ufunc(rng.normal, *xr.broadcast(theta.isel(batch=new.batch_index), h.sigma))


CAMPAIGNS = Level(
    dim="campaign",
    population=lambda h, data: Normal(h.mu, h.sigma_campaign),
    conditional=lambda h, data: Normal(*(of**power for of, power in zip(campaigns(h, data), (1, 0.5), strict=True))),
    reliability=lambda h, data: 1 - 1 / (1 + by_campaign(precision(h, data.n), data) * h.sigma_campaign**2),
    own=lambda data: by_campaign(data.n * data.y_bar, data) / by_campaign(data.n, data),
    volume=lambda data: by_campaign(data.n, data).rename("specimens"),
)


def default_priors(data):
    m0, s = float(data.y_bar.mean()), float(data.strength.std(ddof=1))
    spreads = {name: Prior("HalfNormal", sigma=s) for name in SPREADS}
    return {"mu": Prior("Normal", mu=m0, sigma=2.5 * s)} | spreads


def matched_prior(priors):
    (mu, variance), *spreads = (moments(name, priors[name]) for name in ("mu", "sigma_campaign", "sigma_batch"))
    return Prior("Normal", mu=mu, sigma=np.sqrt(variance + sum(mean**2 + var for mean, var in spreads)))


def fixed_in_advance(priors, data):
    mean, variance = moments("theta", priors["theta"])
    return {"mu": mean, "sigma_campaign": 0.0, "sigma_batch": np.sqrt(variance)}


BATCHES = HierarchicalModel(
    name="batches",
    question="How strong is the next batch?",
    group="batch",
    key=KEY,
    estimand="theta",
    estimand_label="mean strength [MPa]",
    response="strength",
    observed="y",
    location="mu",
    heterogeneity="sigma_batch",
    reference=None,
    columns={
        "campaign": label("the campaign a batch is made in"),
        "batch": label("the batch within its campaign"),
        "strength": number("strength of a specimen [MPa]"),
    },
    parameters={
        "mu": Parameter("mean strength [MPa]"),
        "sigma_campaign": Parameter("spread of campaigns, sd [MPa]", (0, np.inf)),
        "sigma_batch": Parameter("spread of batches of a campaign, sd [MPa]", (0, np.inf)),
        "sigma": Parameter("spread of specimens of a batch, sd [MPa]", (0, np.inf)),
    },
    default_priors=default_priors,
    matched_prior=matched_prior,
    prepare=prepare,
    own=lambda data: data.y_bar,
    volume=lambda data: data.n.rename("specimens"),
    variants={
        "none": {"centered": no_pooling, "marginalized": marginalized},
        "complete": {"centered": complete_pooling, "marginalized": marginalized},
        "partial": {"centered": partial_pooling, "marginalized": marginalized},
    },
    fixed={
        "none": fixed_in_advance,
        "complete": lambda priors, data: {"sigma_campaign": 0.0, "sigma_batch": 0.0},
        "partial": lambda priors, data: {},
    },
    group_level=GroupLevel(
        kind="in closed form",
        independent=False,
        population=population,
        conditional=conditional,
        log_joint=log_joint,
        log_left_out=log_left_out,
        log_predictive=log_predictive,
        log_likelihood=log_likelihood,
        expected_log_likelihood=expected_log_likelihood,
        reliability=reliability,
        replicate=replicate,
        leave_row_out=leave_row_out,
        without_row=lambda data, i: prepare(rows_of(data).drop(index=i).reset_index(drop=True)),
        without_group=without_group,
        further=(CAMPAIGNS,),
    ),
    simulate=None,
    datasets={},
)
H = xr.Dataset(
    {
        name: ("sample", values)
        for name, values in {
            "mu": [50.0, 48.0, 51.0],
            "sigma_campaign": [3.0, 0.0, 1.0],
            "sigma_batch": [2.0, 1.0, 0.0],
            "sigma": [1.0, 2.0, 1.5],
        }.items()
    }
)


def batches_frame(seed=4, batches=(3, 2, 2, 1), specimens=(3, 2, 4), tau=1):
    """Campaigns A, B, ... of so many batches 1, 2, ..., each of a few specimens."""
    rng = np.random.default_rng(seed)
    rows = []
    for c, made in enumerate(batches):
        of_campaign = rng.normal(50, 3)
        for b in range(made):
            theta = rng.normal(of_campaign, tau)
            rows += [("ABCD"[c], b + 1, y) for y in rng.normal(theta, 2, specimens[(c + b) % len(specimens)])]
    return pd.DataFrame(rows, columns=[*KEY, "strength"])


FRAME, SPREAD = batches_frame(), batches_frame(seed=4, tau=3)
DATA = BATCHES.data(FRAME)


class Oracle:
    """All means and specimens as one normal, by its covariance, at one point of the hyperparameters."""

    def __init__(self, h, frame=FRAME):
        labels = frame["campaign"].astype(str) + " / " + frame["batch"].astype(str)
        units = pd.unique(labels)
        of_unit = pd.Series(units).str.split(" / ").str[0].to_numpy()
        self.mu, self.y, self.batch = float(h.mu), frame["strength"].to_numpy(), pd.Index(units).get_indexer(labels)
        between = h.sigma_campaign.item() ** 2 * (of_unit[:, None] == of_unit)
        between = between + h.sigma_batch.item() ** 2 * np.eye(len(units))
        names = pd.unique(of_unit)
        self.theta = between
        self.theta_y = between[:, self.batch]
        self.campaign = h.sigma_campaign.item() ** 2 * np.eye(len(names))
        self.campaign_y = h.sigma_campaign.item() ** 2 * (names[:, None] == of_unit[self.batch])
        self.y_y = between[np.ix_(self.batch, self.batch)] + h.sigma.item() ** 2 * np.eye(len(frame))

    def log_density(self, rows, given=()):
        """Log density of some rows, given others [nats]."""
        both = [*given, *rows]
        log_p = lambda at: stats.multivariate_normal(  # noqa: E731
            np.full(len(at), self.mu), self.y_y[np.ix_(at, at)]
        ).logpdf(self.y[at])
        return log_p(both) - (log_p(list(given)) if len(given) else 0.0)

    def of(self, what="theta"):
        """Mean and covariance of the batches, or campaigns, after all rows."""
        prior, shared = getattr(self, what), getattr(self, f"{what}_y")
        gain = np.linalg.solve(self.y_y, shared.T).T
        return self.mu + gain @ (self.y - self.mu), prior - gain @ shared.T

    def rows(self, j):
        """The rows of a batch, and all others."""
        return np.flatnonzero(self.batch == j), np.flatnonzero(self.batch != j)


@pytest.fixture(scope="module")
def oracles():
    return [Oracle(H.isel(sample=s)) for s in range(H.sizes["sample"])]


def test_the_joint_density_is_that_of_one_normal(oracles):
    expected = [oracle.log_density(range(len(FRAME))) for oracle in oracles]
    np.testing.assert_allclose(chunks.log_joint(BATCHES, H, DATA), expected, rtol=1e-10)


def test_a_batch_left_out_is_given_the_others(oracles):
    expected = [[oracle.log_density(*oracle.rows(j)) for j in range(8)] for oracle in oracles]
    found = log_left_out(H, DATA).transpose("sample", "batch")
    np.testing.assert_allclose(found, expected, rtol=1e-10)
    gap = found.sum("batch") - chunks.log_joint(BATCHES, H, DATA)
    assert abs(gap[0]) > 0.5
    assert abs(gap[1]) < 1e-10  # campaigns that do not differ leave batches independent


def test_eight_groups_with_a_shared_offset_have_no_likelihood_by_group():
    """Sum of the conditionals and joint density differ by nats, and by the hyperparameters differently."""
    frame = pd.DataFrame({"campaign": "A", "batch": range(8), "strength": stats.norm.ppf((np.arange(8) + 0.5) / 8)})
    data = BATCHES.data(frame)
    h = xr.Dataset({"mu": 0.0, "sigma_campaign": ("sample", [0.5, 1.0, 2.0]), "sigma_batch": 0.6, "sigma": 0.8})
    oracles = [Oracle(h.isel(sample=s), frame) for s in range(3)]
    joint = np.array([oracle.log_density(range(8)) for oracle in oracles])
    left_out = np.array([[oracle.log_density(*oracle.rows(j)) for j in range(8)] for oracle in oracles])
    np.testing.assert_allclose(chunks.log_joint(BATCHES, h, data), joint, rtol=1e-10)
    np.testing.assert_allclose(log_left_out(h, data).transpose("sample", "batch"), left_out, rtol=1e-10)
    assert (left_out.sum(axis=1) - joint > [-0.2, 0.1, 0.7]).all()


def test_a_specimen_left_out_is_given_all_others(oracles):
    every = np.arange(len(FRAME))
    expected = [[oracle.log_density([i], np.delete(every, i)) for i in every] for oracle in oracles]
    np.testing.assert_allclose(leave_row_out(H, DATA).transpose("sample", "specimen"), expected, rtol=1e-9)


@pytest.mark.parametrize("what", ["theta", "campaign"])
def test_what_is_known_after_the_data(oracles, what):
    now = conditional(H, DATA) if what == "theta" else CAMPAIGNS.conditional(H, DATA)
    known = [oracle.of(what) for oracle in oracles]
    np.testing.assert_allclose(now.mean.transpose("sample", ...), [mean for mean, _ in known], rtol=1e-10)
    variances = [np.diag(covariance) for _, covariance in known]
    np.testing.assert_allclose(now.sd.transpose("sample", ...) ** 2, variances, rtol=1e-8, atol=1e-12)


def test_new_specimens_of_the_same_batches_given_all_that_was_seen():
    """Half of the rows, given the other half: of each batch, given what was seen of every batch."""
    first, second = FRAME[::2], FRAME[1::2]
    seen, new = (BATCHES.data(half) for half in (first, second))
    assert seen.batch.equals(new.batch)
    oracles = [Oracle(H.isel(sample=s), pd.concat([first, second])) for s in range(3)]
    at = np.arange(len(FRAME))
    expected = [
        [of.log_density(at[(at >= len(first)) & (of.batch == j)], at[: len(first)]) for j in range(8)] for of in oracles
    ]
    np.testing.assert_allclose(log_predictive(H, new, seen).transpose("sample", "batch"), expected, rtol=1e-9)


@pytest.fixture(scope="module")
def fits():
    settings = {"draws": 500, "tune": 400, "chains": 2, "random_seed": 4, "progressbar": False}
    return hz.fit_poolings(BATCHES, FRAME, **settings)


@pytest.fixture(scope="module")
def h(fits):
    return hyperparameters(fits["partial"])


def test_the_sampler_sees_the_same_density(h):
    model = BATCHES.build(FRAME, "partial", "marginalized")
    logp = model.compile_logp(vars=model.observed_RVs, mode="FAST_COMPILE")
    for s in range(0, h.sizes["sample"], 200):
        one = {name: float(value) for name, value in h.isel(sample=s).items()}
        point = {name if name == "mu" else f"{name}_log__": v if name == "mu" else np.log(v) for name, v in one.items()}
        assert logp(point) == pytest.approx(Oracle(h.isel(sample=s)).log_density(range(len(FRAME))), rel=1e-9)


# Draws are joint, so that ranks and reversals are those of the posterior.


def test_draws_of_the_batches_are_joint(fits, h):
    """Each draw, whitened by the exact covariance at its own hyperparameters, is standard normal noise."""
    theta = fits["partial"]["posterior"]["theta"].stack(sample=("chain", "draw")).transpose("sample", "batch").values
    white = []
    for s, draw in enumerate(theta):
        mean, covariance = Oracle(h.isel(sample=s)).of()
        white.append(np.linalg.solve(np.linalg.cholesky(covariance), draw - mean))
    white = np.array(white)
    error = 1 / np.sqrt(len(white))
    assert np.abs(white.mean(axis=0)).max() < 4 * error
    np.testing.assert_allclose(np.cov(white, rowvar=False), np.eye(8), atol=4.5 * error)


def test_ranks_are_those_of_joint_draws():
    """A campaign of which little is known moves all its batches: their order is known better than where they are."""
    strength = np.tile([0.0, 40.0, 80.0, 120.0], 2)
    frame = pd.DataFrame({"campaign": list("AAAABBBB"), "batch": [1, 2, 3, 4] * 2, "strength": strength})
    one = xr.Dataset({"mu": 60.0, "sigma_campaign": 5.0, "sigma_batch": 1.0, "sigma": 6.0}).expand_dims(sample=1)
    ranks = rank_summary(_rank_draws(BATCHES, None, one, BATCHES.data(frame), np.random.default_rng(1)), "batch")
    mean, covariance = Oracle(one.isel(sample=0), frame).of()
    total = np.add.outer(np.diag(covariance), np.diag(covariance))
    off = ~np.eye(8, dtype=bool)
    scores = []
    for variance in (total - 2 * covariance, total):  # as they are, and if batches were drawn one by one
        above = stats.norm.cdf((mean[:, None] - mean) / np.sqrt(np.where(off, variance, 1.0)))
        expected = 1 + np.where(off, above, 0.0).sum(axis=0)
        scores.append(np.abs(ranks["rank"].values - expected) / ranks["rank_mcse"].values)
    assert scores[0].max() < 4 < 8 < scores[1].max()


# Leaving out, against an answer on a grid.


def log_evidence(fit, without=None):
    """Log probability of all rows, or without a batch, mu integrated out in closed form, the spreads on a grid."""
    priors, keep = priors_of(fit), [j for j in range(8) if j != without]
    data = DATA.isel(batch=keep)
    (mu, mu_variance), s = moments("mu", priors["mu"]), priors["sigma"].parameters["sigma"]
    u, weight = np.polynomial.legendre.leggauss(28)
    nodes, weight = stats.halfnorm.ppf((u + 1) / 2) * s, weight / 2
    if fit.attrs["pooling"] == "complete":
        grid, log_weight = [np.zeros(1), np.zeros(1), nodes], np.log(weight)
    else:
        grid, log_weight = [nodes] * 3, np.log(np.einsum("i,j,k->ijk", *[weight] * 3)).ravel()
    sigma_campaign, sigma_batch, sigma = (v.ravel()[:, None, None] for v in np.meshgrid(*grid, indexing="ij"))
    n, campaign = data.n.values, data.campaign_index.values
    covariance = mu_variance + sigma_campaign**2 * (campaign[:, None] == campaign) + sigma_batch**2 * np.eye(len(n))
    covariance = covariance + sigma**2 * np.diag(1 / n)
    deviation, sigma = data.y_bar.values - mu, sigma[:, 0, 0]
    squares = (deviation * np.linalg.solve(covariance, np.tile(deviation[:, None], (len(sigma), 1, 1)))[..., 0]).sum(-1)
    of_means = -0.5 * (squares + np.linalg.slogdet(2 * np.pi * covariance)[1])
    within = (n - 1).sum() * np.log(2 * np.pi * sigma**2) + data.SS.values.sum() / sigma**2 + np.log(n).sum()
    return logsumexp(log_weight + of_means - 0.5 * within)


@pytest.mark.parametrize("pooling", ["complete", "partial"])
def test_a_batch_is_left_out_exactly(fits, pooling):
    fit = fits[pooling]
    with_all = log_evidence(fit)
    exact = np.array([with_all - log_evidence(fit, without=j) for j in range(8)])
    summary, refits = fit["group_summary"], new_group(BATCHES, fit, seed=0)
    assert summary["k_hat"].max() < k_hat_threshold(1000)
    assert (np.abs(summary["elpd"].values - exact) < 4 * summary["elpd_mcse"].values).all()
    assert (np.abs(refits.elpd - exact) < 4 * refits.mcse).all()
    assert refits.refits == 8


# What is said of a comparison.

WHY = "batches depend on one another, which allows no standard error"


@pytest.fixture(scope="module")
def found(fits):
    return findings(fits, model=BATCHES)


@pytest.mark.parametrize("question", QUESTIONS)
def test_differences_are_given_without_a_standard_error(found, question):
    table = found.comparisons[question]
    ranked = table[table["rank"].notna()]
    assert table.attrs["unit"] == {"new_group": "batch", "new_observation": "row"}[question]
    assert table["se"].isna().all()
    assert ranked["dse"].iloc[1:].isna().all()
    np.testing.assert_allclose(ranked["elpd_diff"], ranked["elpd"] - ranked["elpd"].iloc[0])
    assert (ranked["elpd_diff"].iloc[1:] < 0).all()
    assert ranked["note"].tolist() == [f"{WHY} of a difference"] * len(ranked)


def test_with_many_batches_it_is_still_their_dependence_that_forbids_one():
    many = xr.DataTree.from_dict({"constant_data": xr.Dataset(coords={"batch": range(40)})})
    assert no_standard_error(BATCHES, many) == WHY


def test_the_verdict_the_terminal_and_the_report_say_why(found, tmp_path):
    sentence = found.verdict[1]
    assert re.search(rf"leads complete pooling by \d+\.\d nats \({WHY}\)", sentence)
    assert " se " not in sentence
    console = Console(width=100, record=True, file=io.StringIO())
    _comparisons(found, console)
    printed = " ".join(console.export_text().split())
    assert WHY in printed
    assert " se " not in printed
    folder = write(found, tmp_path / "report")
    assert WHY in (folder / "report.md").read_text()
    assert pd.read_csv(folder / "comparison.csv")["se"].isna().all()


# Data are never taken in portions, and nothing is maximised or integrated but the joint density.


def answers(fits, record=BATCHES):
    """Numbers of all that asks the group level."""
    partial, complete = fits["partial"], fits["complete"]
    few, halves = thinned(hyperparameters(partial), 50), [BATCHES.data(FRAME[start::2]) for start in (0, 1)]
    free = FreeParameters(record, partial)
    rng = np.random.default_rng(0)
    return {
        "log_joint": chunks.log_joint(record, few, DATA),
        "estimates": estimates_over_heterogeneity(partial, at=[0.0, 1.0], model=record)["estimate"],
        "plug-in": hz.empirical_bayes(record, FRAME, draws=10)["estimates"]["value"],
        "posterior": free.log_posterior(np.zeros((1, 2, 4))),
        "above": hz.groups(partial, threshold=50.0, model=record)["p_above_50"],
        "campaigns": hz.groups(partial, model=record, level="campaign")["partial"],
        "summary": group_summary(record, "partial", few, DATA, 1.0).to_dataarray(),
        "draws": recovered(record, few.rename(sample="draw").expand_dims(chain=1), DATA, rng),
        "without": left_out(record, complete, np.arange(8))[0],
        "halves": _log_predictive(record, few, *halves),
        "rows": same_group_rows(record, partial, 0).elpd,
    }


def test_data_are_never_taken_in_portions(fits, monkeypatch):
    expected = answers(fits)
    monkeypatch.setattr(chunks, "CELLS_AT_ONCE", 1)
    for name, value in answers(fits).items():
        np.testing.assert_allclose(value, expected[name], rtol=1e-10, err_msg=name)


def test_what_is_left_out_is_not_maximised_and_not_integrated(fits):
    """A group level whose conditionals lie gives the same answers wherever nothing is left out."""
    lying = replace(
        BATCHES, group_level=replace(BATCHES.group_level, log_left_out=lambda h, data: 7 + log_left_out(h, data) / 2)
    )
    honest, found = answers(fits), answers(fits, lying)
    for name in ("log_joint", "estimates", "plug-in", "posterior", "above", "campaigns"):
        np.testing.assert_allclose(found[name], honest[name], rtol=1e-10, err_msg=name)


@pytest.mark.parametrize("method", ["ml", "reml"])
@pytest.mark.parametrize(("frame", "boundary"), [(FRAME, "sigma_batch = 0"), (SPREAD, "")], ids=["alike", "spread"])
def test_maximum_likelihood_is_that_of_the_joint_density(frame, boundary, method):
    plug_in = hz.empirical_bayes(BATCHES, frame, method=method, draws=10)
    ones = np.ones(len(frame))

    def minus_log_likelihood(log_sds):
        oracle = Oracle(xr.Dataset(dict(zip(SPREADS, np.exp(log_sds), strict=True)) | {"mu": 0.0}), frame)
        inverse = np.linalg.inv(oracle.y_y)
        information = ones @ inverse @ ones
        oracle.mu = ones @ inverse @ oracle.y / information
        over_mu = 0.5 * np.log(2 * np.pi / information) if method == "reml" else 0.0
        return -oracle.log_density(range(len(frame))) - over_mu

    best = minimize(minus_log_likelihood, np.zeros(3), method="Nelder-Mead", options={"xatol": 1e-5, "fatol": 1e-8})
    assert plug_in.attrs["log_likelihood"] == pytest.approx(-best.fun, abs=1e-6)
    values = plug_in["estimates"]["value"].sel(hyperparameter=list(SPREADS))
    np.testing.assert_allclose(values, np.exp(best.x), rtol=2e-3, atol=1e-4)
    assert plug_in.attrs["boundary"] == boundary


def test_a_plug_in_estimate_joins_the_fits_and_has_joint_draws():
    plug_in = hz.empirical_bayes(BATCHES, SPREAD, draws=1000, chains=2)
    mean, covariance = Oracle(hyperparameters(plug_in).isel(sample=0), SPREAD).of()
    theta = plug_in["posterior"]["theta"].stack(sample=("chain", "draw")).transpose("sample", "batch").values
    white = np.linalg.solve(np.linalg.cholesky(covariance), (theta - mean).T)
    np.testing.assert_allclose(np.cov(white), np.eye(8), atol=4.5 / np.sqrt(2000))


def test_the_evidence_without_a_batch_is_that_of_the_others(fits):
    """On the way to leaving out by quadrature: joint less conditional is the joint density of the others."""
    free = FreeParameters(BATCHES, fits["partial"])
    x = np.random.default_rng(2).normal(0, 0.5, (3, 2, 4))
    h = free.at(x, np.zeros(3))
    found = free._without(h, DATA, np.array([0, 6])).transpose("curve", "point").values
    for curve, keep in enumerate([DATA.batch_index.values != 0, DATA.batch_index.values != 6, slice(None)]):
        for point in range(2):
            oracle = Oracle(h.isel(curve=curve, point=point), FRAME[keep])
            assert found[curve, point] == pytest.approx(oracle.log_density(range(len(FRAME[keep]))), rel=1e-9)


# The level above.


def test_campaigns_have_a_table_of_their_own(fits, h):
    table = hz.groups(fits, threshold=50.0, model=BATCHES, level="campaign")
    known = [Oracle(h.isel(sample=s)).of("campaign") for s in range(h.sizes["sample"])]
    means = np.array([mean for mean, _ in known])
    variances = np.array([np.diag(covariance) for _, covariance in known])
    sds = np.sqrt(variances)
    below = lambda x: stats.norm.cdf((x - means) / sds).mean(axis=0)  # noqa: E731
    assert table.index.tolist() == list("ABCD")
    assert table.columns[0] == "specimens"
    assert table["specimens"].tolist() == FRAME.groupby("campaign").size().tolist()
    np.testing.assert_allclose(table["own"], FRAME.groupby("campaign")["strength"].mean())
    np.testing.assert_allclose(table["partial"], means.mean(axis=0))
    np.testing.assert_allclose(below(table["partial_eti89_lb"].to_numpy()), 0.055, atol=1e-6)
    np.testing.assert_allclose(below(table["partial_eti89_ub"].to_numpy()), 0.945, atol=1e-6)
    np.testing.assert_allclose(table["p_above_50"], 1 - below(50.0))
    kappa = 1 - variances / h.sigma_campaign.values[:, None] ** 2
    np.testing.assert_allclose(table["kappa"], kappa.mean(axis=0))
    np.testing.assert_allclose(table["kappa_eti89_lb"], np.quantile(kappa, 0.055, axis=0))
    np.testing.assert_allclose(table["complete"], float(hyperparameters(fits["complete"]).mu.mean()))
    assert not any(name.startswith(("none", "rank", "p_best")) for name in table)  # its spread was 0 in advance


def test_batches_have_theirs_from_the_same_normal(fits, h):
    table = hz.groups(fits, model=BATCHES)
    known = [Oracle(h.isel(sample=s)).of() for s in range(h.sizes["sample"])]
    means, variances = (np.array([f(*both) for both in known]) for f in (lambda m, c: m, lambda m, c: np.diag(c)))
    before = (h.sigma_campaign**2 + h.sigma_batch**2).values[:, None]
    np.testing.assert_allclose(table["partial"], means.mean(axis=0))
    np.testing.assert_allclose(table["kappa"], (1 - variances / before).mean(axis=0))


def test_a_level_that_does_not_exist_is_refused_with_the_nearest(fits):
    with pytest.raises(ValueError, match=r"Unknown level of batches 'campain'.*Did you mean 'campaign'"):
        hz.groups(fits, model=BATCHES, level="campain")
    assert hz.groups(fits, model=BATCHES, level="batch").equals(hz.groups(fits, model=BATCHES))


def expected_variance(means, covariance):
    """Of the units' sample variance, over draws of units with these means and covariance."""
    units = len(means)
    return means.var(ddof=1) + (np.trace(covariance) - covariance.sum() / units) / (units - 1)


def test_pooling_factors_of_every_level(fits, h):
    table = hz.pooling_factor(fits["partial"], model=BATCHES)
    assert list(table.index) == ["data", "batch", "campaign"]
    own = FRAME.groupby(list(KEY))["strength"].mean().to_numpy()
    errors: dict[str, list] = {"data": [], "batch": [], "campaign": []}
    for s in range(h.sizes["sample"]):
        oracle = Oracle(h.isel(sample=s))
        (theta, of_batches), (campaign, of_campaigns) = oracle.of(), oracle.of("campaign")
        errors["data"].append((own - theta, of_batches))
        errors["batch"].append((theta - oracle.mu, of_batches))
        errors["campaign"].append((campaign - oracle.mu, of_campaigns))
    for level, both in errors.items():
        within = np.mean([expected_variance(*one) for one in both])
        between = np.mean([mean for mean, _ in both], axis=0).var(ddof=1)
        assert table.loc[level, "pooling_factor"] == pytest.approx(1 - between / within, abs=0.03)
        total = own.var(ddof=1) if level == "data" else within
        assert table.loc[level, "r2"] == pytest.approx(1 - within / total, abs=0.03)


# Labels of several columns, and what comes next.

PLAIN = replace(
    BATCHES,
    fixed=BATCHES.fixed | {"partial": lambda priors, data: {"sigma_campaign": 0.0}},
    group_level=replace(BATCHES.group_level, independent=True, log_joint=summed(log_left_out), further=()),
)


def test_a_batch_is_labelled_by_its_campaign_too(fits):
    labels = ["A / 1", "A / 2", "A / 3", "B / 1", "B / 2", "C / 1", "C / 2", "D / 1"]
    assert hz.groups(fits, model=BATCHES).index.tolist() == labels
    assert fits["partial"]["posterior"]["batch"].values.tolist() == labels


def test_known_batches_are_predicted_given_all_others(fits, h):
    rows = pd.DataFrame({"campaign": ["C", "A", "C"], "batch": [2, 1, 2]}, index=[10, 11, 12])
    seen = []

    def spy(rng, theta, h, new, seen_by_model):
        seen.append(seen_by_model.batch.values.tolist())
        return replicate(rng, theta, h, new, seen_by_model)

    watched = replace(BATCHES, group_level=replace(BATCHES.group_level, replicate=spy))
    found = hz.predict(fits["partial"], rows, model=watched)
    assert seen == [DATA.batch.values.tolist()]
    known = [Oracle(h.isel(sample=s)).of()[0] for s in range(h.sizes["sample"])]
    expected = np.mean(known, axis=0)
    assert found["group_summary"]["batch"].values.tolist() == ["C / 2", "A / 1"]
    np.testing.assert_allclose(found["group_summary"]["mean"], expected[[6, 0]])
    new = found["predictions"]["y"]
    assert new["row"].values.tolist() == [10, 11, 12]
    assert new["of_batch"].values.tolist() == ["C / 2", "A / 1", "C / 2"]
    assert found["row_summary"]["campaign"].values.tolist() == ["C", "A", "C"]
    np.testing.assert_allclose(found["row_summary"]["mean"], expected[[6, 0, 6]], atol=0.4)


NEW = [{"n_new": 1}, {"frame": FRAME[:3].assign(campaign="E")}, {"frame": FRAME[["campaign"]].assign(batch=9)}]


@pytest.mark.parametrize("asked", NEW, ids=["no rows", "brings rows", "never seen"])
def test_a_new_batch_that_depends_on_the_others_is_refused(fits, asked):
    with pytest.raises(ValueError, match=r"^A new batch of batches depends on the others: .*\.$"):
        hz.predict(fits["partial"], model=BATCHES, **asked)


def test_known_and_new_batches_of_several_columns():
    plug_in = hz.empirical_bayes(PLAIN, SPREAD, draws=500, chains=2)
    (h,) = (hyperparameters(plug_in).isel(sample=0),)
    frame = pd.DataFrame(
        [("A", 1, np.nan), ("A", 9, np.nan), ("E", 1, 60.0), ("E", 1, np.nan)], columns=[*KEY, "strength"]
    )
    found = hz.predict(plug_in, frame, model=PLAIN)["group_summary"].to_dataset()
    assert found["batch"].values.tolist() == ["A / 1", "A / 9", "E / 1"]
    assert found["case"].values.tolist() == ["known", "never seen", "brings rows"]
    now = Oracle(h, pd.concat([SPREAD, frame[2:3]])).of()[0]
    np.testing.assert_allclose(found["mean"], [now[0], h.mu, now[-1]], rtol=1e-6)


BAD = {
    r"expected a column 'campaign' \(the campaign a batch is made in\)": FRAME.drop(columns="campaign"),
    r"expected a column 'batch' \(the batch within its campaign\), got 'campaign', 'batches'": FRAME.rename(
        columns={"batch": "batches"}
    ),
    r"column 'batch' expected a label, not empty, got an empty cell in row 1": FRAME.assign(
        batch=FRAME["batch"].where(FRAME.index != 1)
    ),
    r"column 'campaign' expected labels without ' / ', got 'A / 1'": FRAME.assign(campaign="A / 1"),
}


@pytest.mark.parametrize("sentence", BAD)
def test_bad_labels_are_refused_by_the_name_of_their_column(fits, sentence):
    with pytest.raises(FrameError, match=sentence):
        BATCHES.data(BAD[sentence])
    with pytest.raises(FrameError, match=sentence):
        hz.predict(fits["partial"], BAD[sentence], model=BATCHES)
