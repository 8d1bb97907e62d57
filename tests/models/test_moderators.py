"""Groups whose location moves with moderators: densities, limits, exact answers, metafor's numbers, calibration."""

import json
import pickle
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import xarray as xr
from scipy import optimize, special, stats

import hbm_zoo as hz
import hbm_zoo.workers.pickling  # noqa: F401  tells pickle how a record travels
from hbm_zoo.diagnostics.calibration import calibrate
from hbm_zoo.frames.moderators import DESIGN
from hbm_zoo.frames.rules import FrameError, FrameWarning
from hbm_zoo.inference.chunks import log_joint
from hbm_zoo.inference.fits import hyperparameters, model_of, prepared

METAFOR = json.loads((Path(__file__).parents[1] / "reference" / "bcg_moderators.json").read_text())["analyses"]
BCG = hz.load_data("bcg_vaccine")
Y, SE, LATITUDE = (BCG[name].to_numpy(float) for name in ("effect", "standard_error", "latitude"))
X = LATITUDE - LATITUDE.mean()
CLINICS = hz.vaccine_clinics.MODEL


def frames():
    """A frame of each model that takes moderators, with a number and a category, and the options."""
    rng = np.random.default_rng(7)
    found = {}
    for name, few, options in (
        ("vaccine_clinics", {"clinics": 7}, {}),
        ("hospital_readmission", {"hospitals": 7}, {}),
        ("tissue_expression", {"tissues": 7, "median_cells": 4.0}, {}),
        ("success_rates", {"units": 7}, {}),
        ("success_rates", {"units": 7}, {"population": "logit-normal"}),
    ):
        record = hz.MODELS[name].MODEL
        frame, _ = record.simulate(np.random.default_rng(3), **few)
        of = record.labels(frame)
        age = dict(zip(of.unique(), rng.normal(50, 9, 7), strict=True))
        kind = dict(zip(of.unique(), "abcabca", strict=True))
        found["-".join([name, *options.values()])] = (record, frame.assign(age=of.map(age), kind=of.map(kind)), options)
    return found


CASES = frames()
#: What is integrated numerically is compiled for seconds.
EACH = [pytest.param(name, marks=pytest.mark.slow if "logit" in name else ()) for name in CASES]


def moderated(name, columns=("age", "kind")):
    """The record of a case with moderators, its data, and hyperparameters [sample]."""
    record, frame, options = CASES[name]
    record, rest = record.split({**options, "moderators": [*columns]}, frame)
    data = record.data(frame, **rest)
    h = {"mu": [0.3, 0.6], record.heterogeneity: [0.4, 0.2], "sigma": [0.7, 0.5]}
    h |= {"beta_age": [0.02, -0.03], "beta_kind[b]": [0.3, -0.5], "beta_kind[c]": [-0.4, 0.1]}
    return record, data, xr.Dataset({n: ("sample", v) for n, v in h.items() if n in record.parameters})


def placed_by_hand(name, h, frame, record):
    """The location of each group [sample, group], from the frame's own columns."""
    each = frame.assign(of=record.labels(frame)).drop_duplicates("of")
    age, b, c = each["age"], each["kind"] == "b", each["kind"] == "c"
    by = sum(
        h[slope].values[:, None] * (np.asarray(x, float) - np.mean(x))
        for slope, x in (("beta_age", age), ("beta_kind[b]", b), ("beta_kind[c]", c))
    )
    mu = h.mu.values[:, None]
    if name == "hospital_readmission":
        return mu * np.exp(by)
    return special.expit(special.logit(mu) + by) if name == "success_rates" else mu + by


# Log density, against formulas that know nothing of a design.


@pytest.mark.parametrize("name", CASES)
def test_the_location_is_that_of_a_regression_on_the_scale_of_the_model(name):
    record, data, h = moderated(name)
    expected = placed_by_hand(name, h, CASES[name][1], record)
    np.testing.assert_allclose(record.group_level.at(h, data).mu.transpose("sample", ...), expected, rtol=1e-12)


@pytest.mark.parametrize(
    "name",
    [pytest.param(n, marks=pytest.mark.slow if "logit" in n else ()) for n in CASES],  # a search takes a minute
)
def test_a_group_is_that_of_the_model_without_moderators_at_its_own_location(name):
    """Everything that is known of a group, asked of the plain record one group at a time."""
    record, data, h = moderated(name)
    plain, dim = CASES[name][0].under(**CASES[name][2]).group_level, record.group
    location = placed_by_hand(name, h, CASES[name][1], record)
    level, rng = record.group_level, np.random.default_rng
    for j in range(data.sizes[dim]):
        one, own = data.isel({dim: [j]}), h.assign(mu=("sample", location[:, j]))
        for asked in ("log_left_out", "expected_log_likelihood", "reliability"):
            found, expected = (getattr(known, asked)(at, one) for known, at in ((level, h), (plain, own)))
            np.testing.assert_allclose(*xr.broadcast(found, expected), rtol=1e-9)
        if level.tails is not None:
            for ends in zip(level.tails(h, one), plain.tails(own, one), strict=True):
                np.testing.assert_allclose(*xr.broadcast(*ends), rtol=1e-9)
        for asked in ("mean", "sd"):
            found, expected = (getattr(known.after(at, one), asked) for known, at in ((level, h), (plain, own)))
            np.testing.assert_allclose(*xr.broadcast(found, expected), rtol=1e-9)
        theta = level.conditional(h, one).mean
        np.testing.assert_allclose(
            *xr.broadcast(level.log_likelihood(theta, h, one), plain.log_likelihood(theta, own, one)), rtol=1e-9
        )
        np.testing.assert_allclose(
            *xr.broadcast(level.log_predictive(h, one, one), plain.log_predictive(own, one, one)), rtol=1e-9
        )
        drawn, same = (known.before(at, one, dim).sample(rng(1)) for known, at in ((level, h), (plain, own)))
        np.testing.assert_allclose(*xr.broadcast(drawn, same), rtol=1e-9)
    total = level.log_left_out(h, data).sum(dim)
    np.testing.assert_allclose(level.log_joint(h, data), total, rtol=1e-12)
    assert level.log_joint(h, data).dims == ("sample",)


@pytest.mark.parametrize("pooling", ["complete", "partial"])
@pytest.mark.parametrize("name", EACH)
def test_what_is_sampled_is_what_is_evaluated(name, pooling):
    record, data, h = moderated(name)
    model, fixed = written(record, data, pooling)
    observed = model.compile_logp(model.observed_RVs, mode="AS_WRITTEN")
    for i in range(2):
        here = {n: float(v[i]) for n, v in h.items()} | fixed
        expected = float(record.group_level.log_joint(xr.Dataset(here).expand_dims("sample"), data).squeeze())
        np.testing.assert_allclose(observed(at_point(model, here)), expected, rtol=1e-8)


@pytest.mark.parametrize("name", ["vaccine_clinics", "tissue_expression"])
def test_the_gradient_of_what_is_sampled_is_its_slope(name):
    record, data, h = moderated(name)
    model, _ = written(record, data, "partial")
    density, gradient = (f(mode="AS_WRITTEN") for f in (model.compile_logp, model.compile_dlogp))
    point = at_point(model, {n: float(v[0]) for n, v in h.items()})
    x = np.array([float(v) for v in point.values()])
    slope = optimize.approx_fprime(x, lambda x: float(density(dict(zip(point, x, strict=True)))), 1e-7)
    np.testing.assert_allclose(gradient(point), slope, rtol=2e-3, atol=2e-3)


def written(record, data, pooling):
    """The form of a pooling that is sampled, and what the pooling fixes."""
    form = "marginalized" if "marginalized" in record.variants[pooling] else "centered"
    priors = record.priors(data)
    return record.write(data, pooling, form, priors), record.fixed[pooling](priors, data)


def at_point(model, h):
    """PyMC's values of hyperparameters."""
    transforms = {rv: model.rvs_to_transforms[rv] for rv in model.free_RVs}
    own = {
        rv: h[rv.name] if t is None else t.forward(np.asarray(h[rv.name]), *rv.owner.inputs).eval()
        for rv, t in transforms.items()
    }
    return {model.rvs_to_values[rv].name: np.asarray(own[rv], float) for rv in model.free_RVs}


@pytest.mark.parametrize("name", EACH)
def test_the_centered_form_less_its_groups_is_the_form_without(name):
    """Candidate's formula: log p(theta, y | h) - log p(theta | y, h) = log p(y | h), for any theta."""
    record, data, h = moderated(name)
    model, h = record.write(data, "partial", "centered", record.priors(data)), h.isel(sample=[0])
    (own,) = (v for v in model.free_RVs if v.ndim)
    joint = model.compile_logp([own, *model.observed_RVs], mode="AS_WRITTEN", jacobian=False)
    population = record.group_level.conditional(h, data)
    theta = (population.mean + 0.3 * population.sd).squeeze("sample")
    point = at_point(model, {n: v.item() for n, v in h.items()} | {own.name: theta.values})
    after = float(population.log_density(theta).sum(record.group).squeeze())
    np.testing.assert_allclose(joint(point) - after, record.group_level.log_joint(h, data).item(), rtol=1e-6)


@pytest.mark.parametrize("name", EACH)
def test_the_noncentered_form_is_at_the_location_where_nothing_deviates(name):
    record, data, h = moderated(name)
    model, h = record.write(data, "partial", "noncentered", record.priors(data)), h.isel(sample=[0])
    z = np.zeros(data.sizes[record.group])
    point = at_point(model, {n: v.item() for n, v in h.items()} | {"z": z})
    own = "alpha" if "logit" in name else record.estimand
    (of_values,) = model.replace_rvs_by_values([model[own]])
    at = model.compile_fn(of_values, inputs=model.value_vars, mode="AS_WRITTEN", on_unused_input="ignore")
    values = at(point)
    np.testing.assert_allclose(values, placed_by_hand(name, h, CASES[name][1], record)[0], rtol=1e-9)


# Identities and limits, without draws.


@pytest.mark.parametrize("name", EACH)
def test_slopes_of_0_are_no_moderators_and_no_pooling_knows_none(name):
    record, data, h = moderated(name)
    plain = CASES[name][0].under(**CASES[name][2])
    flat = h.assign(dict.fromkeys(record.moderators and [n for n in h if n.startswith("beta")], 0.0))
    np.testing.assert_allclose(record.group_level.log_joint(flat, data), plain.group_level.log_joint(h, data))
    priors = record.priors(data)
    alone = record.fixed["none"](priors, data)
    assert {n: v for n, v in alone.items() if not n.startswith("beta")} == plain.fixed["none"](priors, data)
    assert [v for n, v in alone.items() if n.startswith("beta")] == [0.0, 0.0, 0.0]


def test_a_prior_is_per_sd_of_a_number_and_twice_that_of_a_level():
    record, data, _ = moderated("vaccine_clinics")
    priors, s = record.default_priors(data), record.default_priors(data)["tau"].parameters["sigma"]
    sd = CASES["vaccine_clinics"][1]["age"].std(ddof=1)
    widths = [priors[n].parameters["sigma"] for n in ("beta_age", "beta_kind[b]", "beta_kind[c]")]
    np.testing.assert_allclose(widths, [s / sd, 2 * s, 2 * s])


def test_another_reference_is_the_same_prediction_with_other_contrasts():
    """The contrasts of one reference are those of another, less one."""
    record, frame, _ = CASES["vaccine_clinics"]
    of_a, data, h = moderated("vaccine_clinics", ["kind"])
    ordered = frame.assign(kind=pd.Categorical(frame["kind"], ["c", "a", "b"]))
    of_c, _ = record.split({"moderators": ["kind"]}, ordered)
    turned = h[["mu", "tau"]].assign({"beta_kind[a]": -h["beta_kind[c]"]})
    turned["beta_kind[b]"] = h["beta_kind[b]"] - h["beta_kind[c]"]
    np.testing.assert_allclose(
        of_c.group_level.log_joint(turned, of_c.data(ordered)), of_a.group_level.log_joint(h, data), rtol=1e-12
    )


def test_data_without_a_row_keep_the_design_of_the_others():
    record, data, h = moderated("tissue_expression")
    level, i = record.group_level, 3
    others = level.without_row(data, i)
    expected = level.log_joint(h, data) - level.log_joint(h, others)
    np.testing.assert_allclose(level.leave_row_out(h, data, np.array([i])).squeeze(), expected, rtol=1e-8)


def test_one_record_for_one_choice_wherever_it_travels():
    record, data, _ = moderated("success_rates-logit-normal")
    assert pickle.loads(pickle.dumps(record)) is record
    assert record.under(moderators=record.moderators) is record
    assert record.parameters["beta_kind[b]"].meaning == "the log odds of kind 'b' less that of 'a'"
    assert record.parameters["mu"].meaning.endswith("; at mean age 46.57 and the mix of kind of these data")
    assert data[DESIGN].mean("unit").values == pytest.approx(0, abs=1e-12)


# Exact answers: mu and beta integrated out by a matrix, tau on a fine grid.


@pytest.fixture(scope="module")
def fits():
    """Three poolings of the BCG trials with latitude."""
    return hz.fit_poolings("vaccine_clinics", BCG, moderators=["latitude"], random_seed=1, progressbar=False)


M0, S = Y.mean(), Y.std(ddof=1)
PRIOR_MEAN = np.array([M0, 0.0])
PRIOR_COV = np.diag([(2.5 * S) ** 2, (S / LATITUDE.std(ddof=1)) ** 2])
DESIGN_BCG = np.column_stack([np.ones(13), X])
TAU = (np.arange(400) + 0.5) / 200
LOG_PRIOR = stats.halfnorm(scale=S).logpdf(TAU)


def evidence(tau, kept=slice(None)):
    """Log p(y | tau)."""
    x, se = DESIGN_BCG[kept], SE[kept]
    covariance = np.diag(se**2 + tau**2) + x @ PRIOR_COV @ x.T
    return stats.multivariate_normal(x @ PRIOR_MEAN, covariance).logpdf(Y[kept])


def line_given(tau):
    """Mean and covariance of mu and beta given tau and the data."""
    weight = DESIGN_BCG.T / (SE**2 + tau**2)
    covariance = np.linalg.inv(np.linalg.inv(PRIOR_COV) + weight @ DESIGN_BCG)
    return covariance @ (np.linalg.solve(PRIOR_COV, PRIOR_MEAN) + weight @ Y), covariance


SHARE = special.softmax([evidence(t) for t in TAU] + LOG_PRIOR)
LINES, COVARIANCES = (np.array(each) for each in zip(*map(line_given, TAU), strict=True))


def sure(draws, fit):
    """The mean of independent draws and its Monte Carlo error."""
    return float(draws.mean()), float(draws.std() / np.sqrt(draws.size * fit.attrs["efficiency"]))


EXACT = {"mu": SHARE @ LINES[:, 0], "beta_latitude": SHARE @ LINES[:, 1], "tau": SHARE @ TAU}


@pytest.mark.parametrize("name", EXACT)
def test_draws_are_of_the_exact_posterior(fits, name):
    mean, mcse = sure(hyperparameters(fits["partial"])[name], fits["partial"])
    assert abs(mean - EXACT[name]) < 4 * mcse


def test_a_trial_is_pulled_to_its_own_line(fits):
    kappa = TAU[:, None] ** 2 / (TAU[:, None] ** 2 + SE**2)
    exact = SHARE @ (kappa * Y + (1 - kappa) * (LINES @ DESIGN_BCG.T))
    np.testing.assert_allclose(fits["partial"]["group_summary"]["mean"], exact, atol=0.02)
    np.testing.assert_allclose(fits["partial"]["group_summary"]["kappa"], SHARE @ kappa, atol=0.02)


def test_leaving_a_trial_out_is_a_ratio_of_evidences(fits):
    def total(kept):
        return special.logsumexp([evidence(t, kept) for t in TAU] + LOG_PRIOR)

    exact = [total(slice(None)) - total(np.arange(13) != j) for j in range(13)]
    left_out = fits["partial"]["group_summary"].to_dataset()
    assert (abs(left_out["elpd"] - exact) < 4 * left_out["elpd_mcse"] + 0.01).all()
    alone = stats.norm(M0, np.sqrt(PRIOR_COV[0, 0] + S**2 + SE**2)).logpdf(Y)  # no pooling knows no latitude
    np.testing.assert_allclose(fits["none"]["group_summary"]["elpd"], alone)


def test_complete_pooling_is_weighted_least_squares_with_its_prior(fits):
    (mean, slope), covariance = line_given(0.0)
    for name, exact, sd in (("mu", mean, covariance[0, 0]), ("beta_latitude", slope, covariance[1, 1])):
        draws = hyperparameters(fits["complete"])[name]
        found, mcse = sure(draws, fits["complete"])
        assert abs(found - exact) < 4 * mcse
        assert float(draws.std()) == pytest.approx(np.sqrt(sd), rel=0.05)


def test_a_new_trial_lies_on_the_line_at_the_latitude_of_its_row(fits):
    rows = pd.DataFrame({"clinic": ["Quito", "Oslo"], "standard_error": 0.1, "latitude": [10, 60]})
    found = hz.predict(fits["partial"], rows)
    x = np.array([[1, at - LATITUDE.mean()] for at in (10, 60)])
    means = LINES @ x.T
    exact = SHARE @ means
    spread = TAU[:, None] ** 2 + np.einsum("ki,tij,kj->tk", x, COVARIANCES, x)
    sd = np.sqrt(SHARE @ (spread + means**2) - exact**2)
    summary = found["group_summary"].to_dataset().sel(clinic=["Quito", "Oslo"])
    np.testing.assert_allclose(summary["mean"], exact, atol=0.03)
    np.testing.assert_allclose(summary["sd"], sd, rtol=0.06)
    np.testing.assert_allclose(found["row_summary"]["sd"], np.sqrt(sd**2 + 0.01), rtol=0.08)


def test_the_evidence_that_trials_of_one_latitude_differ_is_a_ratio_of_integrals(fits):
    width = TAU[1] - TAU[0]
    exact = special.logsumexp([evidence(t) for t in TAU] + LOG_PRIOR) + np.log(width) - evidence(0.0)
    found = hz.evidence(fits, scales=(1.0,))
    assert abs(found["log_bayes_factor"].item() - exact) < 4 * found["mcse"].item() + 0.01
    assert found.attrs["verdict"].startswith("Evidence that clinics of the same latitude differ is positive")


# What moderators explain.


def test_the_share_explained_is_a_ratio_draw_by_draw(fits):
    h, table = hyperparameters(fits["partial"]), hz.moderators(fits["partial"])
    explained = (h.beta_latitude * LATITUDE.std(ddof=1)) ** 2
    share = explained / (explained + h.tau**2)
    mean, mcse = sure(share, fits["partial"])
    assert table.loc["R2", "mean"] == pytest.approx(mean)
    assert table.loc["R2", "mcse"] == pytest.approx(mcse, rel=1e-3)
    assert table.loc["tau", "mean"] == pytest.approx(float(h.tau.mean()))
    exact = SHARE @ [special.roots_hermitenorm(40)[1] @ ratio(t, b, c) / np.sqrt(2 * np.pi) for t, b, c in by_tau()]
    assert abs(mean - exact) < 4 * mcse


def by_tau():
    """tau, and mean and variance of the slope given it."""
    return zip(TAU, LINES[:, 1], COVARIANCES[:, 1, 1], strict=True)


def ratio(tau, mean, variance):
    """R^2 at the nodes of Gauss and Hermite of the slope."""
    explained = (mean + np.sqrt(variance) * special.roots_hermitenorm(40)[0]) ** 2 * LATITUDE.var(ddof=1)
    return explained / (explained + tau**2)


def test_the_prior_share_of_one_number_is_the_arcsine_law(fits):
    """Beta sd(x) and tau are two normals of one scale, signs aside: Z1^2 / (Z1^2 + Z2^2) ~ Beta(1/2, 1/2)."""
    row, law = hz.moderators(fits["partial"]).loc["R2"], stats.beta(0.5, 0.5)
    assert row["prior_mean"] == pytest.approx(0.5, abs=4 * law.std() / np.sqrt(20_000))
    assert [row["prior_eti89_lb"], row["prior_eti89_ub"]] == pytest.approx(law.ppf([0.055, 0.945]), abs=0.01)


def test_what_is_left_on_the_scale_of_the_slopes_is_the_variance_of_logs():
    """Of a Gamma its log, of a Beta its log odds: by draws."""
    rng, n = np.random.default_rng(2), 400_000
    h = xr.Dataset({"mu": 0.3, "cv": 0.4, "phi": 0.3})
    of_rates, of_shares = (hz.MODELS[n].MODEL.extras.moderated for n in ("hospital_readmission", "success_rates"))
    rates, shares = rng.gamma(0.4**-2, size=n), rng.beta(0.3 / 0.09, 0.7 / 0.09, size=n)
    for found, draws in ((of_rates.unexplained(h), np.log(rates)), (of_shares.unexplained(h), special.logit(shares))):
        assert float(found) == pytest.approx(draws.var(), rel=0.02)


def test_what_has_no_moderators_or_is_not_learned_is_refused(fits):
    with pytest.raises(ValueError, match="this fit is of no pooling"):
        hz.moderators(fits["none"])
    plain = hz.fit("vaccine_clinics", BCG, pooling="none", random_seed=1)
    with pytest.raises(ValueError, match="has no moderators"):
        hz.moderators(plain)
    same = ["mean", "sd", "own"]
    xr.testing.assert_allclose(
        plain["group_summary"].to_dataset()[same], fits["none"]["group_summary"].to_dataset()[same]
    )


# R's metafor.


CASES_OF_METAFOR = {
    "latitude_reml": (["latitude"], "reml"),
    "latitude_ml": (["latitude"], "ml"),
    "allocation_reml": (["allocation"], "reml"),
    "latitude_and_allocation_ml": (["latitude", "allocation"], "ml"),
}
THEIR_NAMES = {
    "beta_latitude": "ablat",
    "beta_allocation[random]": "allocrandom",
    "beta_allocation[systematic]": "allocsystematic",
}


@pytest.mark.parametrize("case", CASES_OF_METAFOR)
def test_empirical_bayes_is_metafor(case):
    (columns, method), theirs = CASES_OF_METAFOR[case], METAFOR[case]
    fit = hz.empirical_bayes("vaccine_clinics", BCG, method=method, moderators=columns)
    value, se = (fit["estimates"][name].to_series() for name in ("value", "se"))
    # metafor stops at steps of 1e-5 of tau^2: at its own numbers the likelihood is lower, if by 1e-7 nats.
    assert value["tau"] ** 2 == pytest.approx(theirs["tau2"], abs=3e-5)
    slopes = [name for name in value.index if name in THEIR_NAMES]
    for name in slopes:
        assert value[name] == pytest.approx(theirs["coefficients"][THEIR_NAMES[name]], abs=1e-4)
        assert se[name] == pytest.approx(theirs["se"][THEIR_NAMES[name]], rel=2e-3 if method == "reml" else 0.2)
    x, of_zero = prepared(fit)[DESIGN], {m.column: m.design(pd.Series(zero(m)))[0] for m in model_of(fit).moderators}
    centres = -np.concatenate([*of_zero.values()])
    intercept = value["mu"] - value[slopes] @ centres
    assert intercept == pytest.approx(theirs["coefficients"]["intrcpt"], abs=3e-4)
    full = np.column_stack([np.ones(13), x])
    # Under REML metafor adds the log of |X'X|, which no parameter changes, and we the units of the slopes' flat prior.
    constant = np.linalg.slogdet(full.T @ full)[1] / 2 if method == "reml" else 0.0
    assert fit.attrs["log_likelihood"] + constant == pytest.approx(theirs["log_likelihood"], abs=2e-6)


def zero(moderator):
    """Where metafor's intercept lies: at 0 of a number, at the reference of a category."""
    return moderator.levels[:1] or [0.0]


def test_the_standard_errors_of_ml_are_of_the_observed_information():
    """Metafor's are of the expected one, which is why they differ under ML."""
    fit = hz.empirical_bayes("vaccine_clinics", BCG, moderators=["latitude"])

    def minus(at):
        return -stats.norm.logpdf(Y, at[0] + at[2] * X / 10, np.sqrt(at[1] ** 2 + SE**2)).sum()

    mu, tau, slope = fit["estimates"]["value"].values
    H = hessian(minus, np.array([mu, tau, 10 * slope]))
    expected = np.sqrt(np.diag(np.linalg.inv(H))) / [1, 1, 10]
    np.testing.assert_allclose(fit["estimates"]["se"], expected, rtol=0.02)


def hessian(f, x, step=1e-3):
    E = step * np.eye(len(x))
    return np.array(
        [[(f(x + a + b) - f(x + a - b) - f(x - a + b) + f(x - a - b)) / (4 * step**2) for a in E] for b in E]
    )


# Units, files, and what is refused.


def test_another_unit_is_the_same_fit_with_its_slope_in_that_unit(fits):
    celsius = BCG.assign(latitude=1e6 * LATITUDE + 5e7)
    other = hz.fit("vaccine_clinics", celsius, moderators=["latitude"], random_seed=1, progressbar=False)
    h, same = hyperparameters(fits["partial"]), hyperparameters(other)
    np.testing.assert_allclose(same.beta_latitude * 1e6, h.beta_latitude, rtol=1e-6)
    np.testing.assert_allclose(same.tau, h.tau, rtol=1e-6)


def test_rows_that_say_less_or_something_else_are_refused(fits):
    new = pd.DataFrame({"clinic": ["Quito"], "standard_error": [0.1]})
    for rows, said in (
        (new, "expected a column 'latitude'"),
        (new.assign(latitude=np.nan), "an empty cell in row 0"),
        (
            BCG.assign(latitude=BCG["latitude"] + 1),
            r"Aronson 1948 has other moderators \(latitude\)",
        ),
    ):
        with pytest.raises(FrameError, match=said):
            hz.predict(fits["partial"], rows)
    with pytest.raises(ValueError, match="give it a row"):
        hz.predict(fits["partial"], n_new=1)
    known = hz.predict(fits["partial"], BCG.drop(columns="effect"))
    np.testing.assert_allclose(known["group_summary"]["mean"], fits["partial"]["group_summary"]["mean"], atol=1e-9)


@pytest.mark.long
def test_a_fit_with_levels_is_stored_whole_and_says_who_alone_tells_of_one(tmp_path):
    one = BCG.assign(allocation=["alone", *["random"] * 12])
    with pytest.warns(FrameWarning, match="Of some slope Aronson 1948 tells alone"):
        fit = hz.fit("vaccine_clinics", one, moderators=["allocation"], random_seed=1, progressbar=False)
    assert hz.moderators(fit).attrs["note"].startswith("Of some slope Aronson 1948 tells alone")
    fit.to_netcdf(tmp_path / "fit.nc")
    with xr.open_datatree(tmp_path / "fit.nc") as again:
        assert model_of(again) is model_of(fit)
        np.testing.assert_allclose(hz.moderators(again)["mean"], hz.moderators(fit)["mean"])


@pytest.mark.parametrize(
    ("model", "options", "said"),
    [
        (
            "spike_slab_genes",
            {"moderators": ["x"]},
            "the null of each gene is an effect of 0, which no predictor moves",
        ),
        ("material_batches", {"moderators": ["x"]}, "Unknown option of material_batches 'moderators'"),
        ("vaccine_clinics", {"covariates": ["latitude"]}, "are called 'moderators' here"),
        ("vaccine_clinics", {"moderators": "latitude"}, "expected a list of columns"),
        ("vaccine_clinics", {"moderators": ["effect"]}, "'effect' is what vaccine_clinics models"),
        ("vaccine_clinics", {"moderators": ["latitude"] * 2}, "'latitude' is there twice"),
        ("vaccine_clinics", {"moderators": ["lattitude"]}, "Did you mean 'latitude'"),
        ("vaccine_clinics", {"priors": {"beta_latitude": "HalfNormal(sigma=1)"}}, "There is one with moderators="),
    ],
)
def test_what_is_asked_wrongly_is_refused_by_its_name(model, options, said):
    with pytest.raises(ValueError, match=said):
        hz.fit(model, BCG, **options)


# Calibration.


@pytest.mark.slow
def test_the_posterior_of_clinics_with_moderators_is_calibrated():
    found = calibrate(
        "vaccine_clinics", BCG, moderators=["latitude", "allocation"], simulations=400, random_seed=5, progressbar=False
    )
    assert found.failed <= 4
    assert found.table["p_holm"].min() > 0.05, str(found)


@pytest.mark.slow
def test_a_conditional_that_forgets_the_moderators_is_seen():
    record, _ = CLINICS.split({"moderators": ["latitude"]}, BCG)

    def forgets(h, data):
        return CLINICS.group_level.conditional(h, data)

    faulty = replace(
        record, name="faulty", base=None, changed={}, group_level=replace(record.group_level, conditional=forgets)
    )
    found = calibrate(faulty, BCG, simulations=200, random_seed=5, progressbar=False)
    assert found.table.loc["log_population", "p_holm"] < 1e-6


def moved_readmissions(data, by):
    """The same data, were the log odds expected of each hospital higher by so much."""
    return data.assign(e=("hospital", special.expit(special.logit(data.e.values) + by)))


ALTERNATIVES = {
    "binomial noise": (
        hz.hospital_readmission.MODEL.under(noise="binomial"),
        {"hospitals": 9},
        {"mu": [0.1, -0.2], "tau": [0.3, 0.0]},
        moved_readmissions,
    ),
    "Student population": (
        hz.vaccine_clinics.MODEL.under(population="student-t"),
        {"clinics": 9},
        {"mu": [-0.7, -0.2], "tau": [0.3, 0.01], "nu_above_2": [1.0, 30.0]},
        lambda data, by: data.assign(effect=data.effect - by),
    ),
}


@pytest.mark.parametrize("case", ALTERNATIVES)
def test_in_an_alternative_a_moderator_moves_the_location_as_data_moved_the_other_way(case):
    record, few, values, moved = ALTERNATIVES[case]
    rng = np.random.default_rng(5)
    frame, _ = record.simulate(rng, **few)
    frame["x"] = rng.normal(size=len(frame))
    moderated, _ = record.split({"moderators": ["x"]}, frame)
    plain, slope = record.data(frame), np.array([0.4, -0.3])
    h = xr.Dataset({name: ("sample", each) for name, each in values.items()})
    got = log_joint(moderated, h.assign(beta_x=("sample", slope)), moderated.data(frame))
    x = frame["x"].to_numpy() - frame["x"].mean()
    there = [log_joint(record, h.isel(sample=[s]), moved(plain, slope[s] * x)).item() for s in range(2)]
    np.testing.assert_allclose(got, there, rtol=1e-10)
    assert abs(got - log_joint(record, h, plain)).min() > 1e-3


def test_variance_of_a_student_population_is_that_of_scipy():
    h = xr.Dataset({"tau": 0.7, "nu_above_2": 1.5})
    unexplained = hz.vaccine_clinics.MODEL.under(population="student-t").extras.moderated.unexplained
    np.testing.assert_allclose(unexplained(h), stats.t.var(3.5, scale=0.7))


def test_tails_of_a_group_are_about_its_own_location():
    record, _ = CLINICS.split({"moderators": ["latitude"]}, BCG)
    h = xr.Dataset({"mu": ("sample", [-0.7]), "tau": ("sample", [0.3]), "beta_latitude": ("sample", [-0.03])})
    lower, upper = record.group_level.tails(h, record.data(BCG))
    z = (Y - (-0.7 - 0.03 * X)) / np.hypot(SE, 0.3)
    np.testing.assert_allclose(lower.isel(sample=0), stats.norm.cdf(z), rtol=1e-9)
    np.testing.assert_allclose(upper.isel(sample=0), stats.norm.sf(z), rtol=1e-9)
