"""Reaction norms against SciPy, identities, lme4's likelihoods and frozen posteriors."""

import json
from pathlib import Path

import arviz as az
import numpy as np
import pandas as pd
import pymc as pm
import pytest
import xarray as xr
from pymc_extras.prior import Prior
from scipy import stats

import hbm_zoo as hz
from hbm_zoo.frames.rules import FrameError
from hbm_zoo.inference.fits import hyperparameters
from hbm_zoo.inference.sampling import refit
from hbm_zoo.models import reaction_norms as rn
from hbm_zoo.priors import from_json, lkj, to_json

MODEL = rn.MODEL
CLOSED = hz.reaction_norms
SLEEP, BARLEY = hz.load_data("sleepstudy"), hz.load_data("barley_minnesota")
NAMES = list(rn.PARAMETERS)
H = xr.Dataset(dict(zip(NAMES, (51.0, 1.7, 5.0, 0.9, -0.4, 3.0), strict=True))).expand_dims("sample")


def analyses(name):
    return json.loads((Path(__file__).parents[1] / "reference" / f"{name}.json").read_text())["analyses"]


def at(*values):
    return xr.Dataset(dict(zip(NAMES, map(float, values), strict=True))).expand_dims("sample")


def covariance(h):
    t0, t1, rho = (float(h[name].squeeze()) for name in ("tau_intercept", "tau_slope", "rho"))
    return np.array([[t0**2, rho * t0 * t1], [rho * t0 * t1, t1**2]])


def uneven():
    """Seven genotypes: many rows, two, one, equal environments; labels and rows out of order."""
    rng = np.random.default_rng(5)
    x = {"g": [0, 2, 4, 6, 9], "b": [1, 1, 8], "a": [3], "e": [5, 5, 5], "c": [0, 9], "d": [2, 4, 4, 7], "f": [10]}
    rows = [(name, float(v), 50 + 2 * v + 5 * rng.standard_normal()) for name, values in x.items() for v in values]
    return pd.DataFrame(rows, columns=["genotype", "environment", "response"]).sample(frac=1, random_state=1)


FRAME = uneven()
DATA = MODEL.data(FRAME)
PRIORS = MODEL.priors(DATA)


# Each variant's density, term by term.


def log_prior(names, values):
    """The default priors by SciPy; rho is measured by its share, (rho + 1)/2."""
    total = 0.0
    for name in names:
        numbers = PRIORS[name].parameters
        if name == "rho":
            total += stats.beta.logpdf((values[name] + 1) / 2, 2, 2)
        elif "mu" in numbers:
            total += stats.norm.logpdf(values[name], numbers["mu"], numbers["sigma"])
        else:
            total += stats.halfnorm.logpdf(values[name], scale=numbers["sigma"])
    return total


def rows_given(theta, sigma):
    lines = theta[DATA.of_genotype.values]
    return stats.norm.logpdf(DATA.response, lines[:, 0] + lines[:, 1] * DATA.x, sigma).sum()


def rows_integrated(mu, T, sigma):
    total = 0.0
    for g in range(DATA.sizes["genotype"]):
        mine = DATA.of_genotype.values == g
        X = np.column_stack([np.ones(mine.sum()), DATA.x.values[mine]])
        total += stats.multivariate_normal.logpdf(
            DATA.response.values[mine], X @ mu, X @ T @ X.T + sigma**2 * np.eye(mine.sum())
        )
    return total


THETA = np.array([50.0, 2.0]) + np.random.default_rng(2).standard_normal((7, 2)) * [5, 1]
VALUES = {name: float(H[name].squeeze()) for name in NAMES}
MEAN, T = np.array([VALUES["mu_intercept"], VALUES["mu_slope"]]), covariance(H)
U = np.linalg.solve(np.linalg.cholesky(T), (THETA - MEAN).T).T
SIGMA = VALUES["sigma"]


def matched():
    return [PRIORS[f"theta_{name}"].parameters for name in rn.COEFFICIENTS]


def independent_lines():
    return sum(stats.norm.logpdf(THETA[:, k], p["mu"], p["sigma"]).sum() for k, p in enumerate(matched()))


def variants():
    every, alone = log_prior(NAMES, VALUES), log_prior(["sigma"], VALUES)
    given = rows_given(THETA, SIGMA)
    in_advance = np.array([p["mu"] for p in matched()]), np.diag([p["sigma"] ** 2 for p in matched()])
    one = log_prior(["mu_intercept", "mu_slope", "sigma"], VALUES)
    flat = rows_integrated(MEAN, np.zeros((2, 2)), SIGMA)
    lines = stats.multivariate_normal(MEAN, T).logpdf(THETA).sum()
    return {
        ("partial", "centered"): every + lines + given,
        ("partial", "noncentered"): every + stats.norm.logpdf(U).sum() + given,
        ("partial", "marginalized"): every + rows_integrated(MEAN, T, SIGMA),
        ("none", "centered"): alone + independent_lines() + given,
        ("none", "marginalized"): alone + rows_integrated(*in_advance, SIGMA),
        ("complete", "centered"): one + flat,
        ("complete", "marginalized"): one + flat,
    }


@pytest.mark.parametrize(("pooling", "parameterization"), list(variants()))
def test_density_of_every_variant(pooling, parameterization):
    model = MODEL.build(FRAME, pooling, parameterization)
    own = {"theta": THETA, "theta_intercept": THETA[:, 0], "theta_slope": THETA[:, 1], "u": U}
    point = VALUES | own | {"rho_raw": (VALUES["rho"] + 1) / 2}
    with model:
        logp = model.compile_fn(model.logp(jacobian=False), inputs=model.value_vars, mode="AS_WRITTEN")
    transformed = {}
    for rv, value in model.rvs_to_values.items():
        if value in model.value_vars:
            transform = model.rvs_to_transforms[rv]
            x = np.asarray(point[rv.name], dtype=float)
            transformed[value.name] = x if transform is None else transform.forward(x, *rv.owner.inputs).eval()
    assert float(logp(transformed)) == pytest.approx(variants()[pooling, parameterization], rel=1e-9)


def test_change_of_variables():
    """logp_centered(theta) + log |d theta / d u| = logp_noncentered(u)."""
    densities = variants()
    jacobian = 7 * np.log(np.linalg.det(np.linalg.cholesky(T)))
    assert densities["partial", "centered"] + jacobian == pytest.approx(densities["partial", "noncentered"])


# Identities, without MCMC.


def log_density(population, theta):
    mean, sd, rho = (v.squeeze("sample") if "sample" in v.dims else v for v in vars(population).values())
    values = []
    for g in theta.genotype.values:
        m, s, r = (v.sel(genotype=g) if "genotype" in v.dims else v for v in (mean, sd, rho))
        C = np.array([[1, float(r)], [float(r), 1]]) * np.outer(s, s)
        values.append(stats.multivariate_normal(m.values, C).logpdf(theta.sel(genotype=g).values))
    return np.array(values)


@pytest.mark.parametrize("seed", range(3))
def test_candidates_formula(seed):
    """Besag (1989): log p(theta) + log p(y | theta) - log p(theta | y) = log p(y), any theta."""
    theta = xr.DataArray(
        [50, 2] + np.random.default_rng(seed).standard_normal((7, 2)) * [8, 2],
        dims=("genotype", "coefficient"),
        coords={"genotype": DATA.genotype, "coefficient": rn.COEFFICIENTS},
    )
    before, after = CLOSED.population(H), CLOSED.population(CLOSED.conditional(H, DATA))
    likelihood = CLOSED.log_likelihood(theta, H, DATA).squeeze().values
    candidate = log_density(before, theta) + likelihood - log_density(after, theta)
    np.testing.assert_allclose(candidate, CLOSED.log_marginal(H, DATA).squeeze().values, rtol=1e-8)


def test_expected_log_likelihood_by_quadrature():
    nodes, weights = np.polynomial.hermite_e.hermegauss(4)
    weights = weights / weights.sum()
    after = CLOSED.population(CLOSED.conditional(H, DATA))
    total = 0.0
    for a, wa in zip(nodes, weights, strict=True):
        for b, wb in zip(nodes, weights, strict=True):
            z = rn.by_coefficient(a, after.correlation * a + np.sqrt(1 - after.correlation**2) * b)
            total = total + wa * wb * CLOSED.log_likelihood(after.mean + after.sd * z, H, DATA)
    xr.testing.assert_allclose(CLOSED.expected_log_likelihood(H, DATA), total.transpose(*total.dims))


def test_moving_the_center_moves_the_intercept_alone():
    """The same population of lines seen from two centers, and rho that depends on which."""
    c = 7.5
    there = MODEL.data(FRAME, center=DATA.center + c)
    shift = np.array([[1, c], [0, 1]])
    moved = shift @ T @ shift.T
    t0, t1 = np.sqrt(np.diag(moved))
    h = at(MEAN[0] + c * MEAN[1], MEAN[1], t0, t1, moved[0, 1] / (t0 * t1), SIGMA)
    xr.testing.assert_allclose(CLOSED.log_marginal(h, there), CLOSED.log_marginal(H, DATA))
    ours, theirs = (CLOSED.reliability(*pair) for pair in ((H, DATA), (h, there)))
    xr.testing.assert_allclose(ours.sel(coefficient="slope"), theirs.sel(coefficient="slope"))
    assert moved[0, 1] * T[0, 1] < 0


def test_data_in_two_portions_are_the_data_at_once():
    """The conditional is a population: what is learnt from some rows is what the others meet."""
    several = FRAME[FRAME["genotype"].isin(["g", "d"])].sort_values("genotype")
    first = several.groupby("genotype").cumcount() % 2 == 0
    parts = [rn.prepare(several[mask], center=DATA.center) for mask in (first, ~first)]
    together = rn.prepare(several, center=DATA.center)
    step = CLOSED.conditional(H, parts[0])
    after = CLOSED.conditional(step, parts[1])
    expected = CLOSED.conditional(H, together)
    for name in NAMES:
        xr.testing.assert_allclose(after[name], expected[name].broadcast_like(after[name]), rtol=1e-7)
    two_steps = CLOSED.log_marginal(H, parts[0]) + CLOSED.log_marginal(step, parts[1])
    xr.testing.assert_allclose(two_steps, CLOSED.log_marginal(H, together).broadcast_like(two_steps))


def test_leave_row_out_rows_keep_their_order():
    values = CLOSED.leave_row_out(H, DATA, np.arange(len(FRAME)))
    frame = FRAME.reset_index(drop=True)
    for i in (0, 7, 12, len(frame) - 1):
        group = frame[frame["genotype"] == frame["genotype"][i]]
        whole, rest = (rn.prepare(f, center=DATA.center) for f in (group, group.drop(index=i)))
        without = float(CLOSED.log_marginal(H, rest).sum()) if len(rest.observation) else 0.0
        expected = float(CLOSED.log_marginal(H, whole).sum()) - without
        assert float(values.isel(observation=i).squeeze()) == pytest.approx(expected)


def test_own_lines_are_least_squares():
    own = MODEL.own(DATA)
    for name, rows in FRAME.groupby("genotype"):
        line = own.sel(genotype=name)
        if rows["environment"].nunique() < 2:
            assert np.isnan(line).all()
        else:
            fit = stats.linregress(rows["environment"] - DATA.center, rows["response"])
            np.testing.assert_allclose(line, [fit.intercept, fit.slope], rtol=1e-9)


def test_joint_draws_have_their_correlation():
    draws = CLOSED.population(at(*MEAN, 5, 0.9, -0.4, 3).isel(sample=np.zeros(40_000, int))).sample(
        np.random.default_rng(1)
    )
    r = np.corrcoef(draws.sel(coefficient="intercept"), draws.sel(coefficient="slope"))[0, 1]
    assert np.arctanh(r) == pytest.approx(np.arctanh(-0.4), abs=4 / np.sqrt(40_000))
    np.testing.assert_allclose(draws.std("sample"), [5, 0.9], rtol=0.02)


# Likelihoods of lme4 (1.1-31), digit for digit.


def test_sleepstudy_maximum_likelihood():
    ml = analyses("sleepstudy")["ML"]["estimates"]
    fixed, parts = ml["fixed"], [v["sd_or_corr"] for v in ml["variance_components"]]
    mu = [fixed["(Intercept)"]["estimate"], fixed["days"]["estimate"]]
    total = float(CLOSED.log_marginal(at(*mu, *parts), MODEL.data(SLEEP, center=0.0)).sum())
    assert total == pytest.approx(-ml["deviance_or_reml_criterion"] / 2, abs=1e-4)


def test_barley_restricted_likelihood():
    """The flat population line integrated out: the log likelihood is quadratic in it, so exactly."""
    reml = analyses("barley_minnesota")["reml"]["estimates"]
    data = MODEL.data(BARLEY)
    rest = [reml[name] for name in ("sd_intercept", "sd_slope", "correlation", "sigma")]
    top = np.array([reml["intercept"], reml["slope"]])

    def log_likelihood(mu):
        return float(CLOSED.log_marginal(at(*mu, *rest), data).sum())

    one = np.eye(2)
    second = [
        [sum(a * b * log_likelihood(top + a * i + b * j) for a in (1, -1) for b in (1, -1)) / 4 for j in one]
        for i in one
    ]
    integral = log_likelihood(top) + np.log(2 * np.pi) - 0.5 * np.linalg.slogdet(-np.array(second))[1]
    assert integral == pytest.approx(reml["restricted_log_likelihood"], abs=1e-3)
    errors = np.sqrt(np.diag(np.linalg.inv(-np.array(second))))
    np.testing.assert_allclose(errors, [reml["se_intercept"], reml["se_slope"]], rtol=1e-3)


# Priors.


def test_default_correlation_is_lkj():
    with pm.Model():
        rho = pm.draw(lkj(2.0).create_variable("rho"), 20_000, random_seed=1, mode="AS_WRITTEN")
    assert stats.kstest(rho, lambda r: (2 + 3 * r - r**3) / 4).pvalue > 1e-3


@pytest.mark.parametrize(
    "prior",
    [
        Prior("Uniform", lower=-1, upper=1),
        Prior("TruncatedNormal", mu=0, sigma=0.5, lower=-1, upper=1),
        Prior("Beta", alpha=4, beta=2, transform="correlation"),
    ],
    ids=str,
)
def test_a_caller_states_rho_on_its_own_scale(prior):
    resolved = MODEL.priors(DATA, {"rho": prior})
    assert resolved["rho"] == prior
    assert from_json(to_json(resolved)) == resolved
    model = MODEL.build(FRAME, priors={"rho": prior})
    assert np.abs(pm.draw(model["rho"], 50, random_seed=1, mode="AS_WRITTEN")).max() < 1


def test_priors_follow_the_unit_of_the_response():
    scaled = MODEL.priors(MODEL.data(FRAME.assign(response=1000 * FRAME["response"])))
    for name in ("mu_slope", "tau_intercept", "tau_slope", "sigma", "theta_slope"):
        assert scaled[name]["sigma"] == pytest.approx(1000 * PRIORS[name]["sigma"])


def test_no_pooling_is_matched_in_mean_and_variance():
    mu, tau = PRIORS["mu_slope"]["sigma"], PRIORS["tau_slope"]["sigma"]
    assert PRIORS["theta_slope"]["sigma"] == pytest.approx(np.hypot(mu, tau))
    with pytest.raises(ValueError, match="theta_slope.*StudentT"):
        MODEL.fixed["none"](PRIORS | {"theta_slope": Prior("StudentT", nu=3)}, DATA)


# Frames.


def rows(**columns):
    frame = pd.DataFrame(
        {"genotype": list("aabbcc"), "environment": [0.0, 1, 0, 1, 0, 2], "response": [1.0, 3, 2, 5, 0, 1]}
    )
    return frame.assign(**columns)


BAD = {
    "no column": (rows().drop(columns="environment"), "column 'environment'.*genotype"),
    "text": (rows(environment=list("xyzuvw")), "'environment' expected a finite number.*'x' in row 0"),
    "missing": (rows(response=[1, 2, np.nan, 3, 4, 5]), "'response'.*empty cell in row 2"),
    "infinite": (rows(environment=[0, 1, 2, np.inf, 4, 5]), "'environment'.*inf in row 3"),
    "no label": (rows(genotype=["a", "a", "b", None, "c", "c"]), "'genotype'.*row 3"),
    "one genotype": (rows(genotype="a"), "at least 2 genotypes"),
    "one environment": (rows(environment=7.0), "'environment' expected at least 2 values, got 7 in every row"),
    "constant": (rows(response=3.0), "'response' expected values that differ, got 3"),
    "no noise": (
        pd.concat([rows(response=[0.0, 2, 1, 5, 3, 3]).assign(plot=plot) for plot in "ab"]),
        "exactly on a line",
    ),
    "empty": (rows().iloc[:0], "at least one row"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_frames(case):
    frame, sentence = BAD[case]
    with pytest.raises(FrameError, match=sentence):
        MODEL.build(frame)


@pytest.mark.parametrize("center", [np.inf, np.nan, "mean", True])
def test_bad_center(center):
    with pytest.raises(FrameError, match="center"):
        MODEL.data(rows(), center=center)


def test_lines_without_a_row_to_spare_are_said_so():
    with pytest.warns(UserWarning, match="told apart by their priors"):
        MODEL.build(rows())


def test_genotypes_of_one_environment_each_are_said_to_tell_no_slope():
    apart = FRAME.assign(environment=pd.factorize(FRAME["genotype"])[0].astype(float))
    with pytest.warns(UserWarning, match="No genotype was seen in two environments"):
        MODEL.build(apart)


def test_order_and_kind_of_labels_do_not_matter():
    h = H
    shuffled = FRAME.sample(frac=1, random_state=9).astype({"genotype": "category"})
    ours, theirs = (CLOSED.log_marginal(h, MODEL.data(f)) for f in (FRAME, shuffled))
    xr.testing.assert_allclose(ours, theirs.sel(genotype=ours.genotype))


def test_simulate_keeps_every_genotype():
    frame, truth = rn.simulate(np.random.default_rng(3), genotypes=200, environments=6, missing=0.7)
    assert frame["genotype"].nunique() == 200
    assert len(frame) < 0.5 * 1200
    assert (frame.groupby("genotype").size() == 1).any()
    assert np.corrcoef(truth.theta.T)[0, 1] == pytest.approx(0.3, abs=0.25)
    MODEL.data(frame, center=truth.attrs["center"])


# A gradient made of the responses.


def test_barley_is_its_own_index():
    plain = BARLEY.assign(environment=BARLEY["index_of"]).drop(columns="index_of")
    index = rn.environment_index(plain, scale=10.0)
    np.testing.assert_allclose(index["environment"], BARLEY["environment"], atol=1e-8)
    assert MODEL.own(MODEL.data(index)).sel(coefficient="slope").mean() == pytest.approx(10)


def test_an_index_settles_the_mean_slope():
    data = MODEL.data(BARLEY)
    assert data.attrs["center"] == 0
    assert MODEL.fixed["partial"](MODEL.priors(data), data) == {"mu_slope": pytest.approx(10)}
    assert MODEL.fixed["complete"](MODEL.priors(data), data)["mu_slope"] == pytest.approx(10)
    names = {v.name for v in MODEL.build(BARLEY).free_RVs}
    assert "mu_slope" not in names
    measured = MODEL.data(BARLEY.drop(columns="index_of"))
    assert MODEL.fixed["partial"](MODEL.priors(measured), measured) == {}


@pytest.mark.parametrize("scale", [0, -1, np.inf, [1]])
def test_bad_scale(scale):
    with pytest.raises(ValueError, match="scale above 0"):
        rn.environment_index(BARLEY, scale)


@pytest.fixture(scope="module")
def barley():
    return hz.fit(rn, BARLEY, random_seed=4, progressbar=False)


def test_barley_lies_around_reml(barley):
    reml = analyses("barley_minnesota")["reml"]["estimates"]
    posterior = barley["posterior"].dataset
    for ours, theirs in {
        "mu_intercept": "intercept",
        "tau_intercept": "sd_intercept",
        "tau_slope": "sd_slope",
        "rho": "correlation",
        "sigma": "sigma",
    }.items():
        low, high = np.quantile(posterior[ours], [0.025, 0.975])
        assert low < reml[theirs] < high


def test_an_index_leaves_no_genotype_out(barley):
    assert "mu_slope" not in barley["posterior"]
    assert "log_likelihood" not in barley.children
    assert np.isnan(barley["group_summary"]["elpd"]).all()
    with pytest.raises(ValueError, match="index made of the responses"):
        hz.compare_poolings({"partial": barley})
    table = hz.compare_poolings({"partial": barley}, question="new_observation")
    assert np.isfinite(table["elpd"].astype(float)).all()


# The posterior of sleepstudy under the priors of an independent run (JAGS).


JAGS = {
    "mu_intercept": Prior("Normal", mu=300, sigma=200),
    "mu_slope": Prior("Normal", mu=0, sigma=50),
    "tau_intercept": Prior("HalfNormal", sigma=100),
    "tau_slope": Prior("HalfNormal", sigma=30),
    "rho": Prior("Uniform", lower=-1, upper=1),
    "sigma": Prior("HalfNormal", sigma=100),
}


JAGS_NAMES = dict(zip(NAMES, ("b0", "b1", "sd0", "sd1", "rho", "sigma"), strict=True))


@pytest.fixture(scope="module")
def sleep():
    return hz.fit(rn, SLEEP, priors=JAGS, center=0.0, draws=2000, random_seed=6, progressbar=False)


@pytest.mark.parametrize(("ours", "theirs"), list(JAGS_NAMES.items()))
def test_sleepstudy_hyperparameters(sleep, ours, theirs):
    expected = analyses("sleepstudy")["bayes_jags"]["estimates"][theirs]
    draws = sleep["posterior"].dataset[ours]
    error = np.hypot(float(az.mcse(draws)), expected["mcse_mean"])
    assert float(draws.mean()) == pytest.approx(expected["mean"], abs=4 * error)
    for p in (0.025, 0.25, 0.5, 0.75, 0.975):
        name = "median" if p == 0.5 else f"q{100 * p:g}"
        # The reference's quantile is about as uncertain as ours at five times fewer effective draws.
        error = 1.2 * float(az.mcse(draws, method="quantile", prob=p))
        assert float(draws.quantile(p)) == pytest.approx(expected[name], abs=4 * error)


def test_sleepstudy_subjects(sleep):
    reference = analyses("sleepstudy")["bayes_jags"]
    summary, theta = sleep["group_summary"].dataset, sleep["posterior"].dataset["theta"]
    error = az.mcse(theta)
    for j, subject in enumerate(reference["subject_order"], start=1):
        for k, coefficient in enumerate(rn.COEFFICIENTS, start=1):
            expected = reference["estimates"][f"b[{j},{k}]"]
            here = {"genotype": int(subject), "coefficient": coefficient}
            tolerance = 4.5 * np.hypot(float(error.sel(here)), expected["mcse_mean"])
            assert float(summary["mean"].sel(here)) == pytest.approx(expected["mean"], abs=tolerance)
            assert float(summary["sd"].sel(here)) == pytest.approx(expected["sd"], rel=0.05)


def test_psis_agrees_with_refits(sleep):
    """Where k-hat trusts it, leaving a subject out by importance sampling is leaving it out."""
    summary = sleep["group_summary"].to_dataset()
    data = sleep["constant_data"].to_dataset()
    trusted = np.flatnonzero(summary["k_hat"] < 0.5)[:4]
    assert trusted.size >= 3
    for j in trusted:
        h = hyperparameters(refit(sleep, data.isel(genotype=np.delete(np.arange(18), j)), random_seed=int(j)))
        values = CLOSED.log_marginal(h, data.isel(genotype=[j])).values.ravel()
        exact = np.logaddexp.reduce(values) - np.log(values.size)
        assert float(summary["elpd"][j]) == pytest.approx(exact, abs=0.15)


def test_known_results_follow_the_data_not_the_path_there(sleep):
    kappa = sleep["group_summary"]["kappa"]
    assert float(kappa.min()) > 0
    assert float(kappa.max()) < 1
    recovered = hz.recover(sleep, rn, SLEEP, random_seed=1, center=0.0)
    ours, theirs = (f["posterior"]["theta"].mean(("chain", "draw")) for f in (recovered, sleep))
    np.testing.assert_allclose(ours, theirs, rtol=0.15, atol=0.6)


# Moderators of intercepts and of slopes.


def with_moderators(seed=5, genotypes=6):
    """A frame whose genotypes differ in height and kind, the record, its data, and hyperparameters [sample]."""
    rng = np.random.default_rng(seed)
    frame, _ = hz.reaction_norms.simulate(rng, genotypes=genotypes, environments=4, missing=0.2)
    names = frame["genotype"].unique()
    height = dict(zip(names, rng.normal(100, 10, genotypes), strict=True))
    kind = dict(zip(names, "aabbab", strict=True))
    frame = frame.assign(height=frame["genotype"].map(height), kind=frame["genotype"].map(kind))
    given = {"slope": ["height"], "intercept": ["kind", "height"]}
    record, _ = hz.reaction_norms.MODEL.split({"moderators": given}, frame)
    h = {"mu_intercept": [49.0, 52.0], "mu_slope": [2.0, -1.0], "tau_intercept": [5.0, 1.0], "tau_slope": [0.7, 0.0]}
    h |= {"rho": [0.4, 0.0], "sigma": [3.0, 2.0], "beta_slope_height": [0.1, -0.05]}
    h |= {"beta_intercept_kind[b]": [4.0, -3.0], "beta_intercept_height": [-0.3, 0.2]}
    return frame, record, record.data(frame), xr.Dataset({name: ("sample", values) for name, values in h.items()})


def expected_lines(frame, h, i):
    """Intercept and slope of each genotype's population, from the frame's own columns."""
    each = frame.drop_duplicates("genotype")
    height, b = each["height"] - each["height"].mean(), (each["kind"] == "b") - (each["kind"] == "b").mean()
    at = h.isel(sample=i)
    intercept = float(at.mu_intercept) + float(at["beta_intercept_kind[b]"]) * b
    intercept = intercept + float(at.beta_intercept_height) * height
    slope = float(at.mu_slope) + float(at.beta_slope_height) * height
    return dict(zip(each["genotype"], zip(intercept, slope, strict=True), strict=True))


def test_rows_are_dense_normals_around_the_line_that_moderators_expect():
    frame, record, data, h = with_moderators()
    x = frame["environment"] - frame["environment"].mean()
    for i in range(2):
        t0, t1, rho, sigma = (float(h[n][i]) for n in ("tau_intercept", "tau_slope", "rho", "sigma"))
        T = np.array([[t0**2, rho * t0 * t1], [rho * t0 * t1, t1**2]])
        for genotype, line in expected_lines(frame, h, i).items():
            rows = frame["genotype"] == genotype
            X = np.column_stack([np.ones(rows.sum()), x[rows]])
            dense = stats.multivariate_normal(X @ line, X @ T @ X.T + sigma**2 * np.eye(len(X)))
            found = record.group_level.log_left_out(h, data).sel(genotype=genotype)[i]
            assert float(found) == pytest.approx(dense.logpdf(frame["response"][rows]), rel=1e-9)
            before = record.group_level.of_groups(h, data).mean.sel(genotype=genotype).isel(sample=i)
            assert before.values == pytest.approx(line)


def test_a_row_left_out_with_moderators_is_the_likelihood_less_that_without_it():
    _, record, data, h = with_moderators()
    level = record.group_level
    for i in (0, 7):
        difference = level.log_joint(h, data) - level.log_joint(h, level.without_row(data, i))
        found = level.leave_row_out(h, data, np.array([i])).squeeze()
        np.testing.assert_allclose(found, difference, rtol=1e-7)


@pytest.mark.parametrize("pooling", ["complete", "partial"])
def test_forms_with_moderators_are_one_density(pooling):
    """Rows given lines, and rows with the lines integrated out, differ by p(theta | y, h) alone."""
    _, record, data, h = with_moderators()
    h, priors = h.isel(sample=[0]), record.priors(data, {"rho": Prior("Uniform", lower=-1.0, upper=1.0)}, pooling)
    fixed = record.fixed[pooling](priors, data)
    here = {n: v.item() for n, v in h.items()} | fixed
    placed = xr.Dataset({n: ("sample", [v]) for n, v in here.items()})
    expected = record.group_level.log_joint(placed, data).item()
    for form in ("centered", "marginalized"):
        model = record.write(data, pooling, form, priors)
        lines = [v for v in model.free_RVs if v.name == "theta"]
        after = record.group_level.conditional(placed, data)
        theta = (after.mean + 0.1).squeeze("sample").transpose("genotype", "coefficient")
        values = {"theta": theta.values} | here
        own = {
            rv: values[rv.name] if t is None else t.forward(np.asarray(values[rv.name]), *rv.owner.inputs).eval()
            for rv, t in model.rvs_to_transforms.items()
            if rv in model.free_RVs
        }
        point = {model.rvs_to_values[rv].name: np.asarray(value, float) for rv, value in own.items()}
        joint = model.compile_logp([*lines, *model.observed_RVs], jacobian=False, mode="AS_WRITTEN")(point)
        known = float(after.log_density(theta).sum("genotype").squeeze()) if lines else 0.0
        assert joint - known == pytest.approx(expected, rel=1e-7)


def test_a_prior_of_a_slope_of_slopes_is_per_sd_in_the_scale_of_slopes():
    frame, record, data, _ = with_moderators()
    priors, sd = record.default_priors(data), frame.drop_duplicates("genotype")["height"].std(ddof=1)
    scale = {name: priors[f"tau_{name}"].parameters["sigma"] for name in ("intercept", "slope")}
    assert priors["beta_slope_height"].parameters["sigma"] == pytest.approx(scale["slope"] / sd)
    assert priors["beta_intercept_height"].parameters["sigma"] == pytest.approx(scale["intercept"] / sd)
    assert priors["beta_intercept_kind[b]"].parameters["sigma"] == pytest.approx(2 * scale["intercept"])


@pytest.mark.slow
def test_what_moderators_explain_is_said_of_each_coefficient():
    frame, *_ = with_moderators()
    given = {"slope": ["height"], "intercept": ["kind"]}
    fit = hz.fit("reaction_norms", frame, moderators=given, random_seed=1, progressbar=False, draws=250)
    table = hz.moderators(fit)
    assert table.index.tolist() == [
        *("beta_slope_height", "beta_intercept_kind[b]"),
        *("tau_slope", "R2[slope]", "tau_intercept", "R2[intercept]"),
    ]
    h = fit["posterior"].dataset
    explained = (h["beta_slope_height"] * frame.drop_duplicates("genotype")["height"].std(ddof=1)) ** 2
    assert table.loc["R2[slope]", "mean"] == pytest.approx(float((explained / (explained + h.tau_slope**2)).mean()))
    left, right = hz.plot_moderators(fit).axes
    assert (left.get_ylabel(), right.get_ylabel()) == ("slope", "intercept")


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (["height"], "moderators of reaction_norms are of intercept or slope"),
        ({"slop": ["height"]}, "Did you mean 'slope'"),
        ({"slope": "height"}, "expected a list of columns"),
        ({"slope": ["environment"]}, "expected one value for each genotype"),
    ],
)
def test_moderators_of_lines_are_of_a_coefficient_and_of_a_genotype(given, said):
    frame, *_ = with_moderators()
    with pytest.raises(ValueError, match=said):
        hz.fit("reaction_norms", frame, moderators=given)
