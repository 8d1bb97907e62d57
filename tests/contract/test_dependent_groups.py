"""Groups that depend on one another: batches within campaigns, which share their campaign's mean.

A group of a key of two columns, a level above it, and a likelihood that is no product over groups. Every
oracle is a matrix: y ~ N(mu 1, S + sigma_b^2 I + sigma_c^2 J), J = 1 within a campaign, by scipy or on a fine grid.
"""

import re
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd
import pymc as pm
import pytensor.tensor as pt
import pytest
import xarray as xr
from pymc_extras.prior import Prior
from scipy import optimize, special, stats

import hbm_zoo as hz
from hbm_zoo.command_line import terminal
from hbm_zoo.command_line.commands import plain_console
from hbm_zoo.diagnostics import cross_validation
from hbm_zoo.diagnostics.cross_validation import refitted
from hbm_zoo.diagnostics.heterogeneity import estimates_over_heterogeneity
from hbm_zoo.fields import Extras, Parameter
from hbm_zoo.frames.rules import FrameError, key, label, number, positive
from hbm_zoo.group_level.level import GroupLevel, Level
from hbm_zoo.group_level.normal import log_density
from hbm_zoo.group_level.populations import Normal
from hbm_zoo.inference import chunks
from hbm_zoo.inference.completion import add_groups
from hbm_zoo.inference.fits import prepared
from hbm_zoo.inference.free_parameters import left_out
from hbm_zoo.model import HierarchicalModel
from hbm_zoo.priors import moments
from hbm_zoo.reporting.findings import findings
from hbm_zoo.reporting.report import write

# The record: y_b ~ N(theta_b, se_b^2), theta_b ~ N(mu_c, sigma_b^2), mu_c ~ N(mu, sigma_c^2).


@dataclass(frozen=True)
class Joint(Normal):
    """Normals [..., batch] that share sources of chance: mean + factor z, z [..., source] ~ N(0, 1)."""

    inner = ("source",)
    factor: xr.DataArray

    def sample(self, rng):
        """One draw of each source for all batches."""
        factor = self.factor * xr.ones_like(self.mean)
        z = factor.isel(batch=0, drop=True)
        return self.mean + (factor * z.copy(data=rng.standard_normal(z.shape))).sum("source")


def prepare(frame):
    campaigns = pd.unique(frame["campaign"])
    return xr.Dataset(
        {
            "strength": ("batch", frame["strength"].to_numpy(float)),
            "se": ("batch", frame["se"].to_numpy(float)),
            "member": (("batch", "campaign"), np.equal.outer(frame["campaign"].to_numpy(), campaigns).astype(float)),
        },
        coords={"batch": key(frame, ("campaign", "batch"), "batches").to_numpy(), "campaign": campaigns},
    )


def of_campaigns(h, data):
    """Precision W, weighted mean and Q of each campaign's batches, and 1 + W sigma_c^2."""
    w = data.member / (data.se**2 + h.sigma_b**2)
    W = w.sum("batch")
    mean = (w * data.strength).sum("batch") / W.where(W > 0, 1)
    Q = (w * (data.strength - mean) ** 2).sum("batch")
    return W, mean, Q, 1 + W * h.sigma_c**2


def log_joint(h, data):
    W, mean, Q, spread = of_campaigns(h, data)
    constant = -0.5 * np.log(2 * np.pi * (data.se**2 + h.sigma_b**2)).sum("batch")
    by_campaign = -Q / 2 - np.log(spread) / 2 - W * (mean - h.mu) ** 2 / (2 * spread)
    return constant + by_campaign.sum("campaign", skipna=False)


def campaigns_after(h, data):
    W, mean, _, spread = of_campaigns(h, data)
    kappa = W * h.sigma_c**2 / spread
    return Normal(kappa * mean + (1 - kappa) * h.mu, h.sigma_c / np.sqrt(spread))


def conditional(h, data):
    """theta_b | y: its own chance, and its campaign's, which it shares."""
    campaigns, kappa = campaigns_after(h, data), h.sigma_b**2 / (h.sigma_b**2 + data.se**2)
    mean = kappa * data.strength + (1 - kappa) * (data.member * campaigns.mean).sum("campaign")
    own = xr.DataArray(np.eye(data.sizes["batch"]), dims=("batch", "source")) * np.sqrt(kappa) * data.se
    shared = (data.member * campaigns.sd * (1 - kappa)).rename(campaign="source").drop_vars("source", errors="ignore")
    factor = xr.concat([own, shared], dim="source")
    return Joint(mean, np.sqrt((factor**2).sum("source")), factor.transpose(..., "source"))


def log_left_out(h, data):
    """Log p(y_b | the other batches): its campaign's mean is known from its neighbours."""
    w = 1 / (data.se**2 + h.sigma_b**2)
    others = (data.member * (data.member * w).sum("batch")).sum("campaign") - w
    total = (data.member * (data.member * w * (data.strength - h.mu)).sum("batch")).sum("campaign")
    spread = 1 + others * h.sigma_c**2
    middle = h.mu + h.sigma_c**2 * (total - w * (data.strength - h.mu)) / spread
    return log_density(data.strength, middle, h.sigma_c**2 / spread + 1 / w)


def log_predictive(h, new, seen):
    after = conditional(h, seen)
    return log_density(new.strength, after.mean, after.sd**2 + new.se**2)


def log_likelihood(theta, h, data):
    return log_density(data.strength, theta, data.se**2)


def expected_log_likelihood(h, data):
    after = conditional(h, data)
    return log_density(data.strength, after.mean, data.se**2) - 0.5 * (after.sd / data.se) ** 2


def reliability(h, data):
    before, after = h.sigma_b**2 + h.sigma_c**2, conditional(h, data).sd ** 2
    return xr.where(before > 0, 1 - after / before, 0.0)


def replicate(rng, theta, h, new, seen):
    return xr.apply_ufunc(rng.normal, *xr.broadcast(theta, new.se))


def thin(rng, data):
    e = data.se * rng.standard_normal(data.sizes["batch"])
    return tuple(data.assign(strength=data.strength + sign * e, se=np.sqrt(2) * data.se) for sign in (1, -1))


CAMPAIGN = Level(
    dim="campaign",
    population=lambda h, data: Normal(h.mu, h.sigma_c),
    conditional=campaigns_after,
    reliability=lambda h, data: 1 - 1 / of_campaigns(h, data)[3],
    own=lambda data: (data.member * data.strength).sum("batch") / data.member.sum("batch"),
    volume=lambda data: data.member.sum("batch").rename("batches"),
)

BATCHES = GroupLevel(
    kind="in closed form",
    independent=False,
    population=lambda h: Normal(h.mu, np.sqrt(h.sigma_b**2 + h.sigma_c**2)),
    conditional=conditional,
    log_joint=log_joint,
    log_left_out=log_left_out,
    log_predictive=log_predictive,
    log_likelihood=log_likelihood,
    expected_log_likelihood=expected_log_likelihood,
    reliability=reliability,
    replicate=replicate,
    further=(CAMPAIGN,),
)


def no_pooling(data, prior):
    pm.Normal("y", prior("theta", dims="batch"), data.se, observed=data.strength, dims="batch")


def pooled(data, prior):
    """N(mu 1, S + sigma_b^2 I + sigma_c^2 J); complete pooling is sigma_b = 0, campaigns differ still."""
    pm.CustomDist(
        "y",
        data.se,
        data.member,
        prior("mu"),
        prior("sigma_c"),
        prior("sigma_b"),
        logp=log_density_of_all,
        random=draw_all,
        signature="(n),(n,c),(),(),()->(n)",
        observed=data.strength,
        dims="batch",
    )


def log_density_of_all(y, se, member, mu, sigma_c, sigma_b):
    w = 1 / (se**2 + sigma_b**2)
    W, total = w @ member, (w * (y - mu)) @ member
    squares = (w * (y - mu) ** 2).sum() - (total**2 * sigma_c**2 / (1 + W * sigma_c**2)).sum()
    return -0.5 * (squares + pt.log(1 + W * sigma_c**2).sum() + pt.log(2 * np.pi / w).sum())


def draw_all(se, member, mu, sigma_c, sigma_b, rng=None, size=None):
    shared = member @ rng.normal(0, sigma_c, member.shape[1])
    return mu + shared + rng.normal(0, np.sqrt(se**2 + sigma_b**2))


def of_one_batch(priors):
    """The normal with the mean and variance of theta_b once the hyperparameters are averaged out."""
    (m, v), *spreads = (moments(name, priors[name]) for name in ("mu", "sigma_c", "sigma_b"))
    return Prior("Normal", mu=m, sigma=np.sqrt(v + sum(s**2 + sv for s, sv in spreads)))


def alone(priors, data):
    m, v = moments("theta", priors["theta"])
    return {"mu": m, "sigma_c": 0.0, "sigma_b": np.sqrt(v)}


RECORD = HierarchicalModel(
    name="batches",
    question="How strong is a batch, and what of the next?",
    group="batch",
    key=("campaign", "batch"),
    estimand="theta",
    estimand_label="strength [MPa]",
    response="strength",
    observed="y",
    location="mu",
    heterogeneity="sigma_b",
    reference=0.0,
    columns={
        "campaign": label("the campaign", unique=True),
        "batch": label("the batch, within its campaign", unique=True),
        "strength": number("its mean strength [MPa, centred]"),
        "se": positive("standard error of the mean [MPa]"),
    },
    parameters={
        "mu": Parameter("mean strength"),
        "sigma_c": Parameter("spread of campaigns", (0, np.inf)),
        "sigma_b": Parameter("spread of batches in a campaign", (0, np.inf)),
    },
    default_priors=lambda data: {
        "mu": Prior("Normal", mu=0.0, sigma=2.0),
        "sigma_c": Prior("HalfNormal", sigma=1.5),
        "sigma_b": Prior("HalfNormal", sigma=1.0),
    },
    matched_prior=of_one_batch,
    prepare=prepare,
    own=lambda data: data.strength,
    volume=lambda data: (data.se**-2).rename("precision"),
    variants={
        "none": {"centered": no_pooling},
        "complete": {"marginalized": pooled},
        "partial": {"marginalized": pooled},
    },
    fixed={"none": alone, "complete": lambda p, d: {"sigma_b": 0.0}, "partial": lambda p, d: {}},
    group_level=BATCHES,
    simulate=None,
    datasets={},
    extras=Extras(thin=thin),
)

FRAME = pd.DataFrame(
    {
        "campaign": ["A", "A", "A", "B", "B", "B", "C", "C"],
        "batch": [1, 2, 3, 1, 2, 3, 1, 2],
        "strength": [1.9, 1.1, 2.3, -1.2, -0.3, -1.6, 0.1, 0.9],
        "se": [0.4, 0.5, 0.3, 0.4, 0.6, 0.4, 0.5, 0.3],
    }
)
LABELS = ["A / 1", "A / 2", "A / 3", "B / 1", "B / 2", "B / 3", "C / 1", "C / 2"]
Y, SE = FRAME["strength"].to_numpy(), FRAME["se"].to_numpy()
SAME = np.equal.outer(FRAME["campaign"].to_numpy(), FRAME["campaign"].to_numpy()).astype(float)


SETTINGS = {"draws": 1000, "chains": 2, "random_seed": 4, "progressbar": False}


@pytest.fixture(scope="module")
def sampled():
    """Partial pooling, and each batch left out by a refit."""
    fit = hz.fit(RECORD, FRAME, **SETTINGS)
    return fit, refitted(RECORD, fit, np.arange(len(Y)), seed=1)


@pytest.fixture(scope="module")
def fits(sampled):
    others = {pooling: hz.fit(RECORD, FRAME, pooling, **SETTINGS) for pooling in ("none", "complete")}
    return others | {"partial": sampled[0]}


# Exact answers, by matrices alone.


def before(sigma_c, sigma_b):
    """Covariance of the batches before their data."""
    return sigma_c**2 * SAME + sigma_b**2 * np.eye(len(Y))


def density(mu, sigma_c, sigma_b):
    return stats.multivariate_normal(np.full(len(Y), mu), before(sigma_c, sigma_b) + np.diag(SE**2)).logpdf(Y)


def grid(sigma_b=None, size=60):
    """Spreads [point] and the log of their prior times the width of a cell; mu is integrated out by a matrix."""
    c, b = (scale * (np.arange(size) + 0.5) * 4.5 / size for scale in (1.5, 1.0))
    c, b = (x.ravel() for x in np.meshgrid(c, b if sigma_b is None else [sigma_b], indexing="ij"))
    log_prior = stats.halfnorm(scale=1.5).logpdf(c)
    return c, b, log_prior + (stats.halfnorm(scale=1.0).logpdf(b) if sigma_b is None else 0.0)


def covariances(c, b):
    """Of the batches [point, batch, batch], mu ~ N(0, 2^2) among what they share."""
    return c[:, None, None] ** 2 * SAME + b[:, None, None] ** 2 * np.eye(len(Y)) + 4.0


def log_weights(c, b, log_prior, kept=slice(None)):
    """Log p(spreads, y) of some of the batches [point]."""
    V = (covariances(c, b) + np.diag(SE**2))[:, kept][:, :, kept]
    y = Y[kept]
    squares = np.einsum("i,pij,j->p", y, np.linalg.inv(V), y)
    return log_prior - 0.5 * (squares + np.linalg.slogdet(V)[1] + y.size * np.log(2 * np.pi))


def exact_elpd(sigma_b=None):
    """Log p(y_b | the others) of each batch, everything integrated out."""
    points = grid(sigma_b)
    everything = special.logsumexp(log_weights(*points))
    others = [np.arange(len(Y)) != j for j in range(len(Y))]
    return np.array([everything - special.logsumexp(log_weights(*points, kept)) for kept in others])


def exact_moments(sigma_b=None):
    """Mean and covariance of the batches' parameters, everything else integrated out."""
    c, b, log_prior = grid(sigma_b)
    share = special.softmax(log_weights(c, b, log_prior))
    P = covariances(c, b)
    gain = P @ np.linalg.inv(P + np.diag(SE**2))
    mean, cov = gain @ Y, P - gain @ P
    average = share @ mean
    return average, np.einsum("p,pij->ij", share, cov + np.einsum("pi,pj->pij", mean, mean)) - np.outer(
        average, average
    )


# What is known given the hyperparameters, against scipy.

H = xr.Dataset({"mu": ("sample", [0.3, -1.0]), "sigma_c": ("sample", [1.2, 0.0]), "sigma_b": ("sample", [0.6, 0.4])})


def at(sample):
    return tuple(float(H[name][sample]) for name in ("mu", "sigma_c", "sigma_b"))


@pytest.mark.parametrize("sample", [0, 1])
def test_the_joint_density_is_the_matrix_s_and_not_the_sum_of_those_left_out(sample):
    data = RECORD.data(FRAME)
    joint, each = log_joint(H, data)[sample].item(), log_left_out(H, data)[sample].values
    assert joint == pytest.approx(density(*at(sample)), abs=1e-10)
    mu, V = at(sample)[0], before(*at(sample)[1:]) + np.diag(SE**2)
    precision = np.linalg.inv(V)
    middle, sd = Y - precision @ (Y - mu) / np.diag(precision), np.diag(precision) ** -0.5
    np.testing.assert_allclose(each, stats.norm.logpdf(Y, middle, sd), atol=1e-10)
    shares_nothing = at(sample)[1] == 0
    assert (abs(each.sum() - joint) < 1e-10) == shares_nothing


def test_the_conditional_is_joint():
    data, (mu, c, b) = RECORD.data(FRAME), at(0)
    after, P = conditional(H, data), before(c, b)
    gain = P @ np.linalg.inv(P + np.diag(SE**2))
    cov = P - gain @ P
    np.testing.assert_allclose(after.mean.isel(sample=0), mu + gain @ (Y - mu), atol=1e-10)
    np.testing.assert_allclose(after.sd.isel(sample=0), np.sqrt(np.diag(cov)), atol=1e-10)
    many = conditional(H.isel(sample=np.zeros(20_000, int)), data).sample(np.random.default_rng(1))
    correlation = cov / np.sqrt(np.outer(np.diag(cov), np.diag(cov)))
    np.testing.assert_allclose(np.corrcoef(many.transpose("batch", "sample")), correlation, atol=0.03)
    assert correlation[0, 1] > 0.1


def test_the_variant_has_the_density_of_the_group_level():
    model, (mu, c, b) = RECORD.build(FRAME), at(0)
    log_p = model.compile_logp(vars=model.observed_RVs, jacobian=False, mode="AS_WRITTEN")
    point = {"mu": mu, "sigma_c_log__": np.log(c), "sigma_b_log__": np.log(b)}
    assert float(log_p(point)) == pytest.approx(density(mu, c, b), abs=1e-9)


# Only the joint density is maximised and integrated.


def test_empirical_bayes_maximises_the_joint_density():
    plug_in = hz.empirical_bayes(RECORD, FRAME, draws=10, chains=1)
    best = optimize.minimize(lambda u: -density(u[0], *np.exp(u[1:])), np.zeros(3), method="BFGS")
    assert plug_in.attrs["log_likelihood"] == pytest.approx(-best.fun, abs=1e-6)
    np.testing.assert_allclose(plug_in["estimates"]["value"], [best.x[0], *np.exp(best.x[1:])], rtol=1e-3)


def test_quadrature_leaves_out_of_the_joint_density(fits):
    """Complete pooling: batches of a campaign do not differ, and still depend on one another."""
    elpd, error = left_out(RECORD, fits["complete"], np.arange(len(Y)))
    np.testing.assert_allclose(elpd, exact_elpd(sigma_b=0.0), atol=2e-3)
    assert error.max() < 0.01


def test_psis_and_refits_agree_with_leaving_out_exactly(sampled):
    fit, (by_refits, error) = sampled
    exact, smoothed = exact_elpd(), fit["group_summary"].to_dataset()
    trusted = (smoothed["k_hat"] < 0.7).values
    assert trusted.sum() >= 6
    np.testing.assert_allclose(smoothed["elpd"][trusted], exact[trusted], atol=0.06)
    assert np.all(np.abs(by_refits - exact) < 4 * np.array(error))
    assert max(error) < 0.03


@pytest.mark.parametrize(("pooling", "sigma_b"), [("partial", None), ("complete", 0.0)])
def test_the_batches_are_known_as_the_exact_posterior_says(fits, pooling, sigma_b):
    mean, cov = exact_moments(sigma_b)
    summary, draws = fits[pooling]["group_summary"], fits[pooling]["posterior"]["theta"]
    np.testing.assert_allclose(summary["mean"], mean, atol=0.03)
    np.testing.assert_allclose(summary["sd"], np.sqrt(np.diag(cov)), rtol=0.05)
    seen = np.cov(draws.stack(sample=("chain", "draw")).transpose("batch", "sample"))
    np.testing.assert_allclose(seen, cov, atol=0.03)
    off_diagonal = cov[0, 1] / np.sqrt(cov[0, 0] * cov[1, 1])
    assert off_diagonal == pytest.approx(1.0) if sigma_b == 0 else off_diagonal > 0.04


@pytest.fixture(scope="module")
def found(fits):
    return findings(fits, model=RECORD)


@pytest.fixture(scope="module")
def tables(found):
    return found.comparisons


def test_the_comparison_leaves_each_batch_out_given_the_others(tables):
    table = tables["new_group"]
    assert table["refits"].tolist()[:2] == [8, 8]
    assert table.loc["partial", "elpd"] == pytest.approx(exact_elpd().sum(), abs=0.1)
    assert table.loc["complete", "elpd"] == pytest.approx(exact_elpd(sigma_b=0.0).sum(), abs=0.01)
    assert table.loc["partial", "elpd_diff"] == pytest.approx(
        table.loc["partial", "elpd"] - table.loc["complete", "elpd"] if table.index[0] == "complete" else 0.0
    )


def test_no_standard_error_is_given_the_differences_are(tables, fits):
    for table in tables.values():
        assert table[["se", "dse"]].isna().all().all()
        ranked = table[table["rank"].notna()]
        assert ranked["elpd_diff"].notna().all()
        assert (ranked["note"] == "batches depend on one another, which allows no standard error of a difference").all()
    sentence = hz.verdict(fits, tables, model=RECORD)[1]
    assert "(batches depend on one another, which allows no standard error)" in sentence
    assert re.search(r"leads \w+ pooling by \d+\.\d nats", sentence)
    assert ", se " not in sentence


def test_terminal_and_report_say_why(found, capsys, tmp_path):
    terminal.show(found, plain_console(width=100))
    out = capsys.readouterr().out
    head = next(line for line in out.splitlines() if "elpd_diff" in line)
    assert not {"se", "dse"} & set(head.split())
    assert "depend on one another, which allows no standard error" in " ".join(out.split())
    page = (write(found, tmp_path / "report") / "report.md").read_text()
    assert "batches depend on one another, which allows no standard error of a difference" in page
    assert not re.search(r"\| (d?se) \|", page)


def test_groups_are_never_taken_in_chunks(fits, tables, monkeypatch):
    """With room for one cell at a time every number is as before."""
    monkeypatch.setattr(chunks, "CELLS_AT_ONCE", 1)
    fit = fits["partial"]
    again = fit.copy()
    del again["posterior"][RECORD.estimand]
    add_groups(RECORD, again, prepared(fit))
    for part in ("group_summary", "posterior", "posterior_predictive", "log_likelihood"):
        xr.testing.assert_allclose(again[part].to_dataset(), fit[part].to_dataset(), rtol=1e-12)
    np.testing.assert_allclose(left_out(RECORD, fits["complete"], np.arange(8))[0], exact_elpd(sigma_b=0.0), atol=2e-3)
    pd.testing.assert_frame_equal(hz.compare_poolings(fits, "new_group", model=RECORD), tables["new_group"])
    over = estimates_over_heterogeneity(fit, at=[0.0, 0.5], groups=["B / 2"], model=RECORD)
    assert over["estimate"].sizes == {"heterogeneity": 2, "batch": 1}


def test_rows_are_left_out_of_all_data_in_any_portions(fits, monkeypatch):
    """Each batch has one row here: without it the others of its campaign still say where it lies."""
    level = replace(
        BATCHES,
        leave_row_out=lambda h, data, rows: log_left_out(h, data).isel(batch=rows),
        without_row=lambda data, i: data.isel(batch=np.arange(data.sizes["batch"]) != i),
    )
    record, fit = replace(RECORD, group_level=level), fits["partial"]
    whole = cross_validation.same_group_rows(record, fit, 1)
    monkeypatch.setattr(chunks, "CELLS_AT_ONCE", 1)
    one_by_one = cross_validation.same_group_rows(record, fit, 1)
    np.testing.assert_allclose(one_by_one.elpd, whole.elpd, rtol=1e-12)
    np.testing.assert_allclose(whole.elpd, exact_elpd(), atol=0.1)


def test_ranks_are_of_joint_draws(fits):
    mean, cov = exact_moments()
    draws = np.random.default_rng(2).multivariate_normal(mean, cov, 20_000)
    summary = fits["partial"]["group_summary"]
    expected = (-draws).argsort(axis=1).argsort(axis=1).mean(axis=0) + 1
    np.testing.assert_allclose(summary["rank"], expected, atol=0.15)


def test_known_batches_are_predicted_and_new_ones_refused(fits):
    fit = fits["partial"]
    frame = pd.DataFrame({"campaign": ["C", "A"], "batch": [2, 1], "se": [0.2, 0.4]}, index=[7, 9])
    said = hz.predict(fit, frame, model=RECORD)
    summary = said["group_summary"].to_dataset()
    assert summary["batch"].values.tolist() == ["C / 2", "A / 1"]
    known = fit["group_summary"].to_dataset().sel(batch=["C / 2", "A / 1"])
    np.testing.assert_allclose(summary["mean"], known["mean"], rtol=1e-9)
    assert said["predictions"]["y"]["of_batch"].values.tolist() == ["C / 2", "A / 1"]
    assert said["row_summary"]["row"].values.tolist() == [7, 9]
    bring = frame.assign(batch=[9, 8], strength=[1.0, 2.0])
    for given in ({"frame": bring}, {"frame": bring.drop(columns="strength")}, {"n_new": 1}):
        with pytest.raises(ValueError, match=r"^A new batch of batches depends on the others: fit again with its rows"):
            hz.predict(fit, model=RECORD, **given)


# The level above, and the key.


def campaign_given(h_c, h_b, y=Y, s0=2.0):
    """Mean [campaign] and covariance of the campaigns' means given the spreads, mu ~ N(0, s0^2) integrated out."""
    one = np.equal.outer(np.array(["A", "B", "C"]), FRAME["campaign"].to_numpy()).astype(float)
    cov = h_c**2 * np.eye(3) + s0**2
    gain = cov @ one @ np.linalg.inv(one.T @ cov @ one + h_b**2 * np.eye(8) + np.diag(SE**2))
    return gain @ y, cov - gain @ one.T @ cov


def test_the_table_of_campaigns_is_the_exact_posterior(fits):
    table = hz.groups(fits, level="campaign", threshold=0.5, model=RECORD)
    assert table.index.tolist() == ["A", "B", "C"]
    assert table["batches"].tolist() == [3, 3, 2]
    np.testing.assert_allclose(table["own"], FRAME.groupby("campaign")["strength"].mean())
    c, b, log_prior = grid()
    share = special.softmax(log_weights(c, b, log_prior))
    mean, cov = (np.array(values) for values in zip(*map(campaign_given, c, b), strict=True))
    sd = np.sqrt(np.einsum("pcc->pc", cov))
    np.testing.assert_allclose(table["partial"], share @ mean, atol=0.04)
    np.testing.assert_allclose(table["p_above_0.5"], share @ stats.norm.sf(0.5, mean, sd), atol=0.02)
    below = share @ stats.norm.cdf(table["partial_eti89_lb"].to_numpy(), mean, sd)
    np.testing.assert_allclose(below, 0.055, atol=0.012)
    assert {"kappa", "p_above_0"} <= set(table)
    assert not [name for name in table if str(name).startswith(("none", "rank"))]  # no pooling fixed it in advance


def test_the_weight_of_a_campaign_s_own_data_is_the_variance_that_they_remove():
    data, (mu, c, b) = RECORD.data(FRAME), at(0)
    kappa = CAMPAIGN.reliability(H, data).isel(sample=0).values
    mean, cov = campaign_given(c, b, y=Y - mu, s0=0.0)
    np.testing.assert_allclose(kappa, 1 - np.diag(cov) / c**2, atol=1e-10)
    np.testing.assert_allclose(CAMPAIGN.conditional(H, data).mean.isel(sample=0), mu + mean, atol=1e-10)


def factor(errors, cov):
    """1 - V(E[eps]) / E[V(eps)] of errors with these means and this covariance."""
    between = np.var(errors, ddof=1)
    return 1 - between / (between + np.trace(cov - cov.mean(axis=0)) / (len(errors) - 1))


def test_the_pooling_factor_has_a_row_a_level(fits):
    c, b, log_prior = grid(size=30)
    share, (mean, cov) = special.softmax(log_weights(c, b, log_prior)), zip(*map(campaign_given, c, b), strict=True)
    average = share @ np.array(mean)
    second = np.einsum("p,pij->ij", share, np.array(cov) + np.einsum("pi,pj->pij", mean, mean))
    batches, of_batches = exact_moments()
    expected = {
        "data": factor(Y - batches, of_batches),
        "batch": factor(batches, of_batches),
        "campaign": factor(average, second - np.outer(average, average)),
    }
    table = hz.pooling_factor(fits["partial"], model=RECORD)
    assert table.index.tolist() == list(expected)
    np.testing.assert_allclose(table["pooling_factor"], list(expected.values()), atol=0.03)


def test_an_unknown_level_is_named_with_the_nearest(fits):
    expected = r"^Unknown level of batches 'campaigns': expected one of batch, campaign\. Did you mean 'campaign'\?$"
    with pytest.raises(ValueError, match=expected):
        hz.groups(fits, level="campaigns", model=RECORD)


BAD = {
    "twice": (
        FRAME.assign(batch=[1, 2, 1, 1, 2, 3, 1, 2]),
        r"^batches: columns 'campaign' and 'batch' expected each combination once, got 'A' and 1 in rows 0, 2\.$",
    ),
    "slash": (
        FRAME.assign(campaign=FRAME["campaign"].replace("A", "A / x")),
        r"^batches: column 'campaign' expected labels without a slash .* got 'A / x' in row 0\.$",
    ),
    "slash at an end": (
        FRAME.assign(campaign=FRAME["campaign"].replace("A", "A /")),
        r"^batches: column 'campaign' expected labels without a slash .* got 'A /' in row 0\.$",
    ),
    "empty": (
        FRAME.assign(campaign=FRAME["campaign"].replace("B", ""), batch=[np.nan, *FRAME["batch"][1:]]),
        r"'campaign' expected a label, not empty, got .. in row 3 \(1\); .*an empty cell in row 0 \(A\)\.$",
    ),
    "missing": (FRAME.rename(columns={"campaign": "campagne"}), r"expected a column 'campaign' .* 'campagne'\.$"),
    "alone": (FRAME.iloc[:1], r"^batches expected at least 2 batches to compare, got 1\.$"),
}


@pytest.mark.parametrize("fault", BAD)
def test_a_bad_key_is_named_by_its_columns(fault):
    frame, sentence = BAD[fault]
    with pytest.raises(FrameError, match=sentence):
        hz.fit(RECORD, frame, "none")


def test_rows_to_predict_need_both_columns_of_the_key(fits):
    with pytest.raises(FrameError, match=r"^batches expected a column 'campaign' \(the campaign\)"):
        hz.predict(fits["partial"], FRAME.drop(columns="campaign"), model=RECORD)
