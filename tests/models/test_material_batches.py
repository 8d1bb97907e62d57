"""Material batches: density, limits, quadrature over three spreads, references, the bound, frames."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import xarray as xr
from pymc_extras.prior import Prior
from scipy import stats
from scipy.special import softmax

import hbm_zoo as hz
from hbm_zoo.diagnostics.material_batches import NEXT, SPECIMENS, anova_basis, tolerance_bound
from hbm_zoo.frames.rules import FrameError, FrameWarning
from hbm_zoo.inference.fits import prepared

MODEL = hz.material_batches.MODEL
FOLDER = Path(__file__).parents[1] / "reference"
ONE_LEVEL = ("pastes", "dyestuff", "dyestuff2")
BASIS = {name: json.loads((FOLDER / f"{name}_basis.json").read_text())["analyses"] for name in ONE_LEVEL}
SETTINGS = {"random_seed": 1, "progressbar": False}

SMALL = pd.DataFrame(
    {
        "campaign": ["A"] * 5 + ["B"] * 4 + ["A"],
        "batch": [1, 1, 1, 2, 2, 1, 1, 2, 2, 2],
        "strength": [5.1, 4.2, 6.0, 5.5, 7.7, 6.9, 7.0, 4.4, 8.1, 6.6],
    }
)
SMALL_PRIORS = {"mu": Prior("Normal", mu=5.0, sigma=3.0)} | {
    name: Prior("HalfNormal", sigma=scale) for name, scale in (("sigma_c", 1.0), ("sigma_b", 2.0), ("sigma", 1.5))
}
BATCH, CAMPAIGN = np.array([0, 0, 0, 1, 1, 2, 2, 3, 3, 1]), np.array([0, 0, 1, 1])
POINT = {"mu": 5.3, "sigma_c_log__": -0.4, "sigma_b_log__": 0.1, "sigma_log__": -0.3} | {
    "z_c": np.array([-0.4, 1.1]),
    "z_b": np.array([0.2, -1.3, 0.7, 0.1]),
    "theta": np.array([5.0, 6.1, 7.0, 6.2]),
}
VARIANTS = [(pooling, form) for pooling, forms in MODEL.variants.items() for form in forms]


def load(name):
    """Batches of one level, as the references take them."""
    if name == "pastes":
        return hz.load_data("pastes").drop(columns="batch").rename(columns={"campaign": "batch"})
    return hz.load_data(name, MODEL)


def by_scipy(pooling, form, point):
    """Log joint density without Jacobians."""
    y, mu = SMALL["strength"].to_numpy(), point["mu"]
    c, b, s = (np.exp(point[f"{name}_log__"]) for name in ("sigma_c", "sigma_b", "sigma"))
    of = {"mu": stats.norm(5, 3).logpdf(mu), "sigma": stats.halfnorm(scale=1.5).logpdf(s)}
    of |= {"c": stats.halfnorm(scale=1.0).logpdf(c), "b": stats.halfnorm(scale=2.0).logpdf(b)}
    if pooling == "none":
        mu, c, b, of = 5.0, 0.0, np.sqrt(9 + 1 + 4), {"sigma": of["sigma"]}
    if pooling == "complete":
        c, b, of = 0.0, 0.0, {"mu": of["mu"], "sigma": of["sigma"]}
        if form == "centered":
            return sum(of.values()) + stats.norm(mu, s).logpdf(y).sum()
    if form == "marginalized":
        family = CAMPAIGN[BATCH]
        V = s**2 * np.eye(10) + b**2 * np.equal.outer(BATCH, BATCH) + c**2 * np.equal.outer(family, family)
        return sum(of.values()) + stats.multivariate_normal(np.full(10, mu), V).logpdf(y)
    theta = point["theta"]
    groups = stats.norm(mu, b).logpdf(theta).sum()
    if form == "noncentered":
        theta = mu + c * point["z_c"][CAMPAIGN] + b * point["z_b"]
        groups = stats.norm.logpdf(np.concatenate([point["z_c"], point["z_b"]])).sum()
    return sum(of.values()) + groups + stats.norm(theta[BATCH], s).logpdf(y).sum()


@pytest.mark.parametrize(("pooling", "form"), VARIANTS)
def test_each_variant_has_the_density_and_gradient_of_the_page(pooling, form):
    model = MODEL.build(SMALL, pooling, form, SMALL_PRIORS)
    point = {v.name: np.asarray(POINT[v.name]) for v in model.value_vars}
    found = model.compile_logp(jacobian=False, mode="AS_WRITTEN")(point)
    assert float(found) == pytest.approx(by_scipy(pooling, form, POINT), rel=1e-9)
    differences = []
    for name in point:
        for e in np.eye(np.size(POINT[name])):
            by = 1e-5 * (e if np.ndim(POINT[name]) else 1.0)
            ahead, behind = (by_scipy(pooling, form, POINT | {name: POINT[name] + s * by}) for s in (1, -1))
            differences.append((ahead - behind) / 2e-5)
    gradient = model.compile_dlogp(jacobian=False, mode="AS_WRITTEN")(point)
    np.testing.assert_allclose(np.sort(gradient), np.sort(differences), rtol=1e-5, atol=1e-6)


# Quadrature: three spreads on a grid of quantiles of their priors, mu in closed form.


class Grid:
    """Posterior of the spreads of a frame [point], and mu given them."""

    def __init__(self, frame, priors, size=25):
        y = frame["strength"].to_numpy()
        batch, campaign = (pd.factorize(labels)[0] for labels in (MODEL.labels(frame), frame["campaign"]))
        scales = [priors[name].parameters["sigma"] for name in ("sigma_c", "sigma_b", "sigma")]
        one = stats.halfnorm.ppf((np.arange(size) + 0.5) / size)
        c, b, s = (x.ravel() for x in np.meshgrid(*(scale * one for scale in scales), indexing="ij"))
        of_batch, of_campaign = (np.equal.outer(labels, labels) for labels in (batch, campaign))
        m0, s0 = (priors["mu"].parameters[name] for name in ("mu", "sigma"))
        log_evidence = []
        for point in zip(c, b, s, strict=True):
            V = point[2] ** 2 * np.eye(y.size) + point[1] ** 2 * of_batch + point[0] ** 2 * of_campaign + s0**2
            factor = np.linalg.cholesky(V)
            z = np.linalg.solve(factor, y - m0)
            log_evidence.append(-0.5 * z @ z - np.log(np.diag(factor)).sum())
        self.weight, self.c, self.b, self.s = softmax(log_evidence), c, b, s


def test_the_fit_is_the_grid():
    """Means of the spreads within 4 Monte Carlo errors and the error of a grid of 25 quantiles each."""
    fit = hz.fit(MODEL, SMALL, priors=SMALL_PRIORS, **SETTINGS)
    coarse, fine = (Grid(SMALL, SMALL_PRIORS, size) for size in (13, 25))
    for name, axis in (("sigma_c", "c"), ("sigma_b", "b"), ("sigma", "s")):
        draws = fit["posterior"][name].values
        exact, rough = (float(grid.weight @ getattr(grid, axis)) for grid in (fine, coarse))
        error = 4 * draws.std() / np.sqrt(fit.attrs["efficiency"] * draws.size) + abs(exact - rough)
        assert abs(draws.mean() - exact) < error, name
        assert error < 0.35 * draws.std(), name


@pytest.fixture(scope="module", params=ONE_LEVEL)
def referenced(request):
    """A fit of one level under the priors of the reference."""
    frame = load(request.param)
    s = frame["strength"].std()
    spread = Prior("HalfNormal", sigma=s)
    priors = {"mu": Prior("Normal", mu=frame["strength"].mean(), sigma=2.5 * s)}
    priors |= dict.fromkeys(("sigma_c", "sigma_b", "sigma"), spread)
    return BASIS[request.param], hz.fit(MODEL, frame, priors=priors, **SETTINGS)


def test_one_level_agrees_with_quadrature_made_elsewhere(referenced):
    reference, fit = referenced[0]["bayes"]["estimates"], referenced[1]
    assert json.loads(fit.attrs["fixed"]) == {"sigma_c": 0.0}
    worth = fit.attrs["efficiency"] * fit["posterior"]["sigma"].size
    for name in ("sigma_b", "sigma"):
        draws, exact = fit["posterior"][name].values, reference[name]
        assert abs(draws.mean() - exact["mean"]) < 4 * exact["sd"] / np.sqrt(worth)
        assert draws.std() == pytest.approx(exact["sd"], rel=0.08)


@pytest.mark.parametrize(("content", "basis"), [(0.90, "B_basis"), (0.99, "A_basis")])
def test_the_bound_agrees_with_quadrature_and_the_classical_value_with_cmstatr(referenced, content, basis):
    reference, fit = referenced
    table = tolerance_bound(fit, content=content)
    bound = table.loc[SPECIMENS]
    assert abs(bound["lower"] - reference["bayes"]["estimates"][basis]) < 4 * bound["mcse"]
    classical = reference["cmstatr_basis_anova"]["estimates"][basis]
    assert table.loc["one-way ANOVA", "lower"] == pytest.approx(classical, rel=1e-5)


@pytest.fixture(scope="module")
def alloy():
    return hz.fit_poolings(MODEL, hz.load_data("simulated_alloy"), **SETTINGS)


def simulated_promise(fit, of, campaign, z, rng, draws=200_000):
    """What a lower or upper bound is a quantile of, drawn: centre, perhaps a batch, and z standard deviations."""
    h = fit["posterior"].to_dataset().stack(sample=("chain", "draw"), create_index=False)
    h = h.isel(sample=rng.integers(h.sizes["sample"], size=draws))
    name, b = ("mu", h.sigma_c**2 + h.sigma_b**2) if campaign is None else (None, h.sigma_b**2)
    if name:
        centre = h["mu"]
    else:
        data = prepared(fit)
        centre = hz.MODELS["material_batches"].CAMPAIGN.conditional(h, data)
        at = data["campaign"].values.tolist().index(campaign)
        centre = rng.normal(centre.mean.isel(campaign=at), centre.sd.isel(campaign=at))
    if of == SPECIMENS:
        return centre + z * np.sqrt(b + h.sigma**2)
    return rng.normal(centre, np.sqrt(b)) + z * h.sigma


@pytest.mark.parametrize("of", [SPECIMENS, NEXT])
@pytest.mark.parametrize("campaign", [None, "C4"])
def test_bounds_are_quantiles_of_what_they_promise(alloy, of, campaign):
    """Each side against plain draws of the same promise; both within a few Monte Carlo errors."""
    fit, rng, z = alloy["partial"], np.random.default_rng(3), stats.norm.ppf(0.9)
    for side, sign, tail in (("lower", -1, 0.05), ("upper", 1, 0.95)):
        row = tolerance_bound(fit, of=of, campaign=campaign, side=side).loc[of]
        drawn = np.sort(simulated_promise(fit, of, campaign, sign * z, rng))
        plain = np.quantile(drawn, tail)
        beside = np.sqrt(tail * (1 - tail) / (fit.attrs["efficiency"] * 4000))
        error = (np.quantile(drawn, tail + beside) - np.quantile(drawn, tail - beside)) / 2
        assert abs(row[side] - plain) < 4 * error
        assert row["mcse"] < 1.1 * error  # the closed form adds nothing to it


def test_an_interval_keeps_its_content_with_its_confidence(alloy):
    fit, rng = alloy["partial"], np.random.default_rng(4)
    h = fit["posterior"].to_dataset()
    for of in (SPECIMENS, NEXT):
        low, high = tolerance_bound(fit, of=of, side="both").loc[of, ["lower", "upper"]]
        between = h.sigma_c**2 + h.sigma_b**2
        centre = h.mu if of == SPECIMENS else h.mu.copy(data=rng.normal(h.mu, np.sqrt(between)))
        sd = np.sqrt(h.sigma**2 + (between if of == SPECIMENS else 0))
        kept = stats.norm.cdf((high - centre) / sd) - stats.norm.cdf((low - centre) / sd)
        assert (kept >= 0.9).mean() == pytest.approx(0.95, abs=0.02)


def test_one_specimen_is_promised_most(alloy):
    """More confidence and more content lower the bound."""
    fit = alloy["partial"]
    specimens, following = (tolerance_bound(fit, of=of) for of in (SPECIMENS, NEXT))
    bounds = specimens.loc[SPECIMENS, "lower"], following.loc[NEXT, "lower"]
    assert max(bounds) < specimens.loc["one specimen", "lower"]
    assert tolerance_bound(fit, content=0.99)["lower"].iloc[0] < specimens["lower"].iloc[0]
    assert tolerance_bound(fit, confidence=0.99)["lower"].iloc[0] < specimens["lower"].iloc[0]


def test_of_few_batches_the_bound_on_all_of_them_is_the_lower():
    frame, _ = MODEL.simulate(np.random.default_rng(6), campaigns=1, batches=(3, 3), specimens=(5, 5))
    fit = hz.fit(MODEL, frame, **SETTINGS)
    assert tolerance_bound(fit)["lower"].iloc[0] < tolerance_bound(fit, of=NEXT)["lower"].iloc[0]


def test_what_speaks_against_the_classical_value_is_said():
    data = MODEL.data(hz.load_data("simulated_alloy"))
    assert "campaigns are not in it" in anova_basis(data, 0.9, 0.95)[1]
    few = pd.DataFrame({"batch": np.repeat(list("abc"), 5), "strength": np.r_[0:5, 100:105, 50, 50, 51, 50, 99]})
    against = anova_basis(MODEL.data(few), 0.9, 0.95)[1]
    assert against == ["3 batches, fewer than 5", "outliers within c (maximum normed residual)"]
    uneven = few.assign(strength=np.outer([1, 50, 2], np.arange(5)).ravel())
    assert "variances within batches differ (Levene)" in anova_basis(MODEL.data(uneven), 0.9, 0.95)[1]


@pytest.mark.parametrize(
    ("wrong", "sentence"),
    [
        ({"content": 1.0}, "content must lie between 0 and 1"),
        ({"confidence": 95}, "confidence must lie between 0 and 1"),
        ({"of": "next batches"}, "next batch"),
        ({"side": "low"}, "lower"),
        ({"campaign": "C9"}, "campaign"),
    ],
)
def test_a_bound_that_cannot_be_is_refused_by_name(alloy, wrong, sentence):
    with pytest.raises(ValueError, match=sentence):
        tolerance_bound(alloy["partial"], **wrong)


def test_a_bound_of_other_fits_is_refused_in_a_sentence(alloy):
    with pytest.raises(ValueError, match="No pooling says nothing of the next batch"):
        tolerance_bound(alloy["none"])
    with pytest.raises(ValueError, match="A plug-in estimate takes the spreads for known"):
        tolerance_bound(hz.empirical_bayes(MODEL, SMALL))
    with pytest.raises(ValueError, match="fits of material_batches, got one of hospital_readmission"):
        tolerance_bound(hz.fit("hospital_readmission", hz.load_data("three_hospitals"), "none", **SETTINGS))


def test_promises_are_said_to_the_digit_and_in_the_owner_s_words():
    fit = hz.fit(MODEL, hz.load_data("pastes"), **SETTINGS)
    said = tolerance_bound(fit, content=0.999, confidence=0.995)["promise"]
    assert said.iloc[0] == (
        "99.9 % of specimens of casks to come, of a batch never seen, lie there with posterior probability 99.5 %"
    )
    assert said["one specimen"] == "one new specimen lies there with probability 99.9 %"
    assert "of batch C," in tolerance_bound(fit, campaign="C")["promise"].iloc[0]


@pytest.mark.parametrize("method", ["reml", "ml"])
@pytest.mark.parametrize("name", ["dyestuff", "dyestuff2"])
def test_the_maximum_is_lme4_s(name, method):
    """One level, the spread of batches of dyestuff2 exactly 0."""
    reference = json.loads((FOLDER / f"{name}.json").read_text())["lme4"][method.upper()]
    found = hz.empirical_bayes(MODEL, load(name), method=method)
    values, errors = (found["estimates"][key].to_series() for key in ("value", "se"))
    sds = [component["sd_or_corr"] for component in reference["variance_components"]]
    np.testing.assert_allclose(values[["sigma_b", "sigma"]], sds, rtol=1e-4, atol=1e-6)
    fixed = reference["fixed"]["(Intercept)"]
    np.testing.assert_allclose([values["mu"], errors["mu"]], [fixed["estimate"], fixed["se"]], rtol=1e-4)
    assert found.attrs["log_likelihood"] == pytest.approx(-reference["deviance_or_reml_criterion"] / 2, abs=1e-4)
    assert found.attrs["boundary"] == ("sigma_b = 0" if name == "dyestuff2" else "")


def test_the_maximum_of_two_levels_is_lme4_s():
    reference = json.loads((FOLDER / "pastes.json").read_text())["analyses"]["reml_nested"]["estimates"]
    found = hz.empirical_bayes(MODEL, hz.load_data("pastes"), method="reml")
    values = found["estimates"]["value"].to_series()[["mu", "sigma_c", "sigma_b", "sigma"]]
    expected = [reference[name] for name in ("intercept", "sd_batch", "sd_cask", "sigma")]
    np.testing.assert_allclose(values, expected, rtol=2e-5)
    assert found.attrs["log_likelihood"] == pytest.approx(reference["restricted_log_likelihood"], abs=1e-4)


# What the page says.


def test_without_spreads_all_is_complete_pooling(alloy):
    summary = alloy["complete"]["group_summary"].dataset
    assert float(summary["mean"].max() - summary["mean"].min()) == 0
    h = xr.Dataset({"mu": 500.0, "sigma_c": 0.0, "sigma_b": 0.0, "sigma": 10.0}).expand_dims("sample")
    data = prepared(alloy["complete"])
    rows = stats.norm(500, 10).logpdf(data.strength).sum()
    assert MODEL.group_level.log_joint(h, data).item() == pytest.approx(rows, rel=1e-12)


def test_campaigns_have_a_table_and_a_pooling_factor_of_their_own(alloy):
    table = hz.groups(alloy, level="campaign")
    assert table.index.tolist() == [f"C{i}" for i in range(1, 7)]
    assert "none" not in table
    assert table["kappa"].between(0, 1).all()
    assert {"batch", "campaign"} <= set(hz.pooling_factor(alloy["partial"]).index.astype(str))


def test_a_batch_to_come_is_of_its_campaign_or_of_none(alloy):
    """New batches of a known campaign lie around its mean, those of a new one around mu; rows they bring count."""
    fit, campaigns = alloy["partial"], hz.groups(alloy, level="campaign")["partial"]
    asked = pd.DataFrame({"campaign": ["C4", "C6", "X"], "batch": ["new"] * 3})
    summary = hz.predict(fit, asked)["group_summary"].to_dataset()
    mean = summary["mean"].to_series()
    assert mean["C4 / new"] == pytest.approx(campaigns["C4"], abs=0.3)
    assert mean["C6 / new"] == pytest.approx(campaigns["C6"], abs=0.3)
    assert mean["X / new"] == pytest.approx(float(fit["posterior"]["mu"].mean()), abs=0.5)
    assert set(summary["case"].values) == {"never seen"}
    brought = pd.DataFrame({"campaign": "X", "batch": "new", "strength": [470.0, 474.0, 466.0, 471.0]})
    after = hz.predict(fit, pd.concat([brought, asked.tail(1).assign(batch="next")]))["group_summary"].to_dataset()
    of = dict(zip(after["batch"].values.tolist(), after["mean"].values.tolist(), strict=True))
    assert 470 < of["X / new"] < mean["X / new"]
    assert of["X / new"] < of["X / next"] < mean["X / new"]
    with pytest.raises(ValueError, match="Where a new batch of material_batches lies depends on its columns"):
        hz.predict(fit, n_new=2)


@pytest.fixture(scope="module", params=[int, str])
def numbered(request):
    """A fit whose campaigns are named by numbers."""
    frame, _ = MODEL.simulate(np.random.default_rng(5), campaigns=3, batches=(2, 3), specimens=(3, 4))
    return hz.fit(MODEL, frame.assign(campaign=frame["campaign"].str[1:].astype(request.param)), draws=500, **SETTINGS)


@pytest.mark.parametrize("asked", [[1, 9], ["1", "X"], [1, "X"]])
def test_a_campaign_is_known_whatever_its_label_is_written_as(numbered, asked):
    fit = numbered
    new = hz.predict(fit, pd.DataFrame({"campaign": asked, "batch": ["99", "1"]}))["group_summary"].to_dataset()
    known, unknown = new["sd"].values
    h = fit["posterior"].to_dataset()
    assert new["mean"].values[0] == pytest.approx(float(hz.groups(fit, level="campaign")["partial"].iloc[0]), abs=0.5)
    assert unknown > known
    assert unknown == pytest.approx(float(np.sqrt(h.mu.var() + (h.sigma_c**2 + h.sigma_b**2).mean())), rel=0.05)
    assert tolerance_bound(fit, campaign=1.0)["lower"].iloc[0] == tolerance_bound(fit, campaign="1")["lower"].iloc[0]


def test_a_fit_of_one_level_predicts_its_next_batch_and_no_other_campaign():
    without = SMALL.query("campaign == 'A'").drop(columns="campaign")
    fit = hz.fit(MODEL, without, **SETTINGS)
    new = hz.predict(fit, pd.DataFrame({"batch": ["next", 1]}))["group_summary"].to_dataset()
    assert dict(zip(new["batch"].values, new["case"].values, strict=True)) == {"next": "never seen", "1": "known"}
    with pytest.raises(FrameError, match="labels its batches by 'batch', the frame by 'campaign' and 'batch'"):
        hz.predict(fit, SMALL)
    named = hz.fit(MODEL, SMALL.query("campaign == 'A'"), **SETTINGS)
    with pytest.raises(FrameError, match="labels its batches by 'campaign' and 'batch', the frame by 'batch'"):
        hz.predict(named, without)
    with pytest.raises(ValueError, match="does not say how far another may lie: 'B'"):
        hz.predict(named, pd.DataFrame({"campaign": ["B"], "batch": ["1"]}))
    assert "of this campaign," in tolerance_bound(named)["promise"].iloc[0]


def test_batches_are_pooled_to_their_campaign():
    """Campaigns far apart and batches nearly alike: the weight of a batch's own data is small, and the level pooled."""
    sizes = {"batches": (5, 5), "specimens": (3, 3)}
    frame, _ = MODEL.simulate(np.random.default_rng(4), sigma_c=60, sigma_b=0.5, sigma=15, **sizes)
    fit = hz.fit(MODEL, frame, **SETTINGS)
    assert float(fit["group_summary"]["kappa"].max()) < 0.5
    pooled = hz.pooling_factor(fit)["pooling_factor"]
    assert pooled["campaign"] < 0.2 < 0.5 < pooled["batch"]


def test_known_and_new_batches_of_a_campaign_are_drawn_together(alloy):
    """What they share of their campaign's chance correlates their draws."""
    asked = pd.DataFrame({"campaign": ["C4", "C4"], "batch": ["new 1", "new 2"]})
    theta = hz.predict(alloy["partial"], asked)["predictions"]["theta"].stack(sample=("chain", "draw"))
    assert np.corrcoef(theta.transpose("batch", "sample"))[0, 1] > 0.1


@pytest.mark.slow
def test_simulation_based_calibration_of_batches_in_campaigns():
    """Two hundred simulations; in full in the docs."""
    frame, _ = MODEL.simulate(np.random.default_rng(1), campaigns=4, batches=(2, 3), specimens=(2, 4))
    result = hz.calibrate(MODEL, frame, simulations=200, random_seed=2, progressbar=False)
    assert result.table["p_holm"].min() > 0.01
    assert {"log_population", "theta_new_mean", "sigma_c"} <= set(result.table.index)


def test_one_campaign_has_one_level_with_or_without_its_column():
    frame = SMALL.assign(batch=MODEL.labels(SMALL).str.replace(" / ", "-")).drop(columns="campaign")
    without = hz.fit(MODEL, frame, **SETTINGS)
    named = hz.fit(MODEL, frame.assign(campaign="only"), **SETTINGS)
    assert json.loads(without.attrs["fixed"]) == json.loads(named.attrs["fixed"]) == {"sigma_c": 0.0}
    np.testing.assert_array_equal(without["posterior"]["sigma_b"], named["posterior"]["sigma_b"])


@pytest.mark.long
def test_batches_of_one_campaign_are_independent_and_of_two_are_not():
    """Six are still too few for a standard error of a difference, which is another reason."""
    frame = hz.load_data("dyestuff", MODEL)
    table = hz.compare_poolings({name: hz.fit(MODEL, frame, name, **SETTINGS) for name in ("partial", "complete")})
    assert np.isfinite(table["se"]).all()
    assert table["note"].unique().tolist() == ["6 batches are too few for a standard error of a difference"]
    assert np.isnan(hz.compare_poolings({"partial": hz.fit(MODEL, SMALL, **SETTINGS)})["se"].item())


def test_the_same_label_in_two_campaigns_is_two_batches():
    assert MODEL.data(SMALL)["batch"].values.tolist() == ["A / 1", "A / 2", "B / 1", "B / 2"]


# Frames.


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (lambda f: f.drop(columns="strength"), "expected a column 'strength'"),
        (lambda f: f.drop(columns="batch"), "expected a column 'batch'"),
        (lambda f: f.assign(strength=f["strength"].where(f.index != 3)), "'strength' expected a finite number.*row 3"),
        (lambda f: f.assign(strength=np.inf), "'strength' expected a finite number.*inf"),
        (lambda f: f.assign(strength="5 MPa"), "'strength' expected a finite number.*'5 MPa'"),
        (lambda f: f.assign(batch=None), "'batch' expected a label"),
        (lambda f: f.assign(campaign=""), "'campaign' expected a label"),
        (lambda f: f.assign(campaign="x / y"), "without a slash"),
        (lambda f: f.head(3), "expected at least 2 batches"),
        (lambda f: f.assign(strength=3.0), "got the same value in all rows of the frame"),
        (lambda f: f.assign(strength=f.groupby(["campaign", "batch"])["strength"].transform("mean")), "each batch"),
        (lambda f: f.iloc[:0], "empty frame"),
    ],
)
def test_bad_frames_are_named(change, sentence):
    with pytest.raises(FrameError, match=sentence):
        MODEL.build(change(SMALL))


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (lambda f: f.drop_duplicates(["campaign", "batch"]), "Every batch has one row"),
        (lambda f: f.assign(campaign=MODEL.labels(f).str.replace("/", "-")), "Every campaign has one batch"),
    ],
)
def test_what_only_priors_can_tell_is_said(change, sentence):
    with pytest.warns(FrameWarning, match=sentence):
        MODEL.build(change(SMALL))


def test_a_prior_that_no_pooling_cannot_take_is_named():
    with pytest.raises(ValueError, match="No pooling is exact under a Normal prior of 'theta'"):
        hz.fit(MODEL, SMALL, "none", priors={"theta": Prior("StudentT", nu=3, mu=0, sigma=1)}, **SETTINGS)
