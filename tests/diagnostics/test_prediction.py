"""Predictions against closed forms, independent algebra, and a refit that includes the new groups."""

import numpy as np
import pandas as pd
import pytest
import xarray as xr
from scipy import stats

import hbm_zoo as hz
from hbm_zoo.frames.rules import FrameError, FrameWarning
from hbm_zoo.inference.convergence import ConvergenceWarning
from hbm_zoo.inference.fits import hyperparameters, prepared
from hbm_zoo.inference.sampling import refit
from hbm_zoo.zoo import record_of

NEW = pd.DataFrame({"hospital": ["Fourth", "Fifth"], "observed": [30, 2], "expected": [20.0, 9.0]})


@pytest.fixture(scope="module")
def pumps():
    """The hyperparameters known: every prediction has a closed form."""
    return hz.empirical_bayes("hospital_readmission", hz.load_data("pumps"), random_seed=5)


def shape_and_rate(fit):
    mu, cv = fit["estimates"]["value"].sel(hyperparameter=["mu", "cv"]).values
    return cv**-2, cv**-2 / mu


def follows(counts, a, b, expected, least=1e-3):
    """Chi-square of counts against the negative binomial of a Gamma(a, b) rate."""
    law = stats.nbinom(a, b / (b + expected))
    edges = np.unique(law.ppf(np.linspace(0, 1, 11)[1:-1]))
    share = np.diff(np.r_[0, law.cdf(edges), 1])
    seen = np.bincount(np.searchsorted(edges, counts.ravel()), minlength=len(share))
    assert stats.chisquare(seen, share * counts.size).pvalue > least


# One group, its hyperparameters known: closed forms.


def test_the_next_period_of_a_known_hospital_has_its_own_expected_count(pumps):
    frame = hz.load_data("pumps").iloc[[4, 9]].assign(observed=np.nan, expected=[7.0, 3.0])
    predictions = hz.predict(pumps, frame, random_seed=1)
    a, b = shape_and_rate(pumps)
    known = hz.load_data("pumps").iloc[[4, 9]]
    for k in range(2):
        after = a + known["observed"].iloc[k], b + known["expected"].iloc[k]
        follows(predictions["predictions"]["O"].values[..., k], *after, frame["expected"].iloc[k])
        assert float(predictions["group_summary"]["mean"][k]) == pytest.approx(after[0] / after[1], rel=1e-9)
    assert predictions["group_summary"]["case"].values.tolist() == ["known", "known"]


def test_a_known_hospital_is_as_the_fit_says_whatever_its_row_observed(pumps, heart_fits):
    for fit, frame in ((pumps, hz.load_data("pumps")), (heart_fits["partial"], hz.load_data("heart_transplants"))):
        said = hz.predict(fit, frame.assign(observed=999))["group_summary"].to_dataset()
        for name in ("mean", "sd", "eti89_lb", "p_above"):
            np.testing.assert_allclose(said[name], fit["group_summary"][name], rtol=1e-6, atol=1e-12)


def test_a_hospital_never_seen_is_a_draw_from_the_population_with_its_own_data(pumps):
    frame = pd.DataFrame({"hospital": ["Eleventh"], "expected": [6.0]})
    predictions = hz.predict(pumps, frame, random_seed=2)
    a, b = shape_and_rate(pumps)
    lam = predictions["predictions"]["lam"].values.ravel()
    assert stats.kstest(lam, stats.gamma(a, scale=1 / b).cdf).pvalue > 1e-3
    follows(predictions["predictions"]["O"].values, a, b, 6.0)
    # One draw of its parameter for both: the data depend on it.
    assert np.corrcoef(lam, predictions["predictions"]["O"].values.ravel())[0, 1] > 0.5


def test_a_hospital_that_brings_a_row_is_its_posterior_and_predicts_from_it(pumps):
    frame = pd.DataFrame({"hospital": ["Eleventh"] * 2, "observed": [3.0, np.nan], "expected": [2.0, 5.0]})
    predictions = hz.predict(pumps, frame, random_seed=3)
    a, b = shape_and_rate(pumps)
    posterior = stats.gamma(a + 3, scale=1 / (b + 2))
    summary = predictions["group_summary"].to_dataset()
    np.testing.assert_allclose(
        [summary["mean"].item(), summary["sd"].item(), summary["eti89_lb"].item(), summary["p_above"].item()],
        [posterior.mean(), posterior.std(), posterior.ppf(0.055), posterior.sf(1.0)],
        rtol=1e-6,
    )
    assert summary["case"].item() == "brings rows"
    follows(predictions["predictions"]["O"].values, a + 3, b + 2, 5.0)
    assert "k_hat" not in predictions.attrs  # known hyperparameters have nothing to learn


# Groups never seen are independent of each other, given the hyperparameters.


def test_two_hospitals_never_seen_do_not_share_a_draw(pumps):
    lam = hz.predict(pumps, n_new=3, random_seed=4)["predictions"]["lam"].stack(sample=("chain", "draw")).values
    off_diagonal = np.corrcoef(lam)[np.triu_indices(3, 1)]
    assert np.abs(off_diagonal).max() < 4 / np.sqrt(lam.shape[1])


def test_hospitals_never_seen_correlate_through_the_hyperparameters_alone(three_hospitals_fits):
    fit = three_hospitals_fits["partial"]
    frame = pd.DataFrame({"hospital": ["a", "b"], "expected": 1000.0})
    predictions = hz.predict(fit, frame, random_seed=5)["predictions"]
    h = hyperparameters(fit)
    residual = (predictions["lam"].stack(sample=("chain", "draw")).values - h.mu.values) / (h.mu * h.cv).values
    assert abs(stats.spearmanr(*residual).statistic) < 4 / np.sqrt(h.sizes["sample"])
    # The same of what they will show, which hardly has noise of its own here.
    shown = predictions["O"].stack(sample=("chain", "draw")).values / 1000.0
    residual = (shown - h.mu.values) / (h.mu * h.cv).values
    assert abs(stats.spearmanr(*residual).statistic) < 4 / np.sqrt(h.sizes["sample"])


def test_complete_pooling_says_one_ratio_for_all_and_no_pooling_its_prior(three_hospitals_fits):
    complete = hz.predict(three_hospitals_fits["complete"], n_new=2)["predictions"]["lam"].values
    np.testing.assert_array_equal(complete[..., 0], complete[..., 1])
    alone = hz.predict(three_hospitals_fits["none"], n_new=1)
    prior = stats.gamma(0.6377, scale=1 / 0.5628)
    assert float(alone["group_summary"]["mean"].item()) == pytest.approx(prior.mean(), rel=1e-3)
    assert stats.kstest(alone["predictions"]["lam"].values.ravel(), prior.cdf).pvalue > 1e-3


# New groups that bring rows: as if they had been in the fit.


def z_against_refit(fit, new, summary, random_seed):
    """How far the means of hyperparameters and groups lie from those of a refit, in standard errors."""
    record = record_of(fit.attrs["model"])
    brought = record.prepare(new)
    both = xr.concat([prepared(fit), brought], dim=record.group)
    h = hyperparameters(refit(fit, both, random_seed))
    closed = hz.MODELS[record.name]
    after = closed.population(closed.conditional(h, both))
    mean, sd = xr.broadcast(after.mean, after.sd)
    # About 1000 effective draws in the refit, 600 left to the weighted fit.
    error = np.sqrt(mean.var("sample") * (1 / 1000 + 1 / 600))
    expected = mean.mean("sample").sel({record.group: summary[record.group]})
    z = (summary["mean"] - expected) / error.sel({record.group: summary[record.group]})
    total = np.sqrt((sd**2).mean("sample") + mean.var("sample")).sel({record.group: summary[record.group]})
    return z, summary["sd"] / total


def test_rows_brought_count_as_if_they_had_been_in_the_fit(three_hospitals_fits):
    fit = three_hospitals_fits["partial"]
    old = hz.load_data("three_hospitals")
    predictions = hz.predict(fit, pd.concat([NEW, old]), random_seed=6)
    assert predictions.attrs["k_hat"] < 0.7
    summary = predictions["group_summary"].to_dataset()
    z, ratio = z_against_refit(fit, NEW, summary, random_seed=11)
    assert np.abs(z).max() < 4
    np.testing.assert_allclose(ratio, 1, atol=0.06)
    # Taking the hyperparameters of the fit as they are would be far off: the test can fail.
    record = record_of("hospital_readmission")
    h = hyperparameters(fit)
    unweighted = hz.MODELS[record.name].conditional(h, record.prepare(NEW)).mu.mean("sample")
    naive = summary.sel(hospital=["Fourth", "Fifth"]).assign(mean=unweighted)
    assert np.abs(z_against_refit(fit, NEW, naive, random_seed=11)[0]).max() > 8


def test_rows_brought_change_what_is_said_of_the_others(three_hospitals_fits):
    fit = three_hospitals_fits["partial"]
    before = hz.predict(fit, n_new=1)["group_summary"]["mean"].item()
    high = pd.DataFrame({"hospital": list("xyz"), "observed": [30, 31, 33], "expected": [20.0, 20, 20]})
    after = hz.predict(fit, high, n_new=1)["group_summary"]["mean"].sel(hospital="new 1").item()
    assert after > before + 0.1


def test_rows_that_say_more_than_the_draws_can_follow_are_refused_trust(three_hospitals_fits):
    far = pd.DataFrame({"hospital": list("vwxyz"), "observed": [900, 950, 990, 1010, 940], "expected": 100.0})
    with pytest.warns(ConvergenceWarning, match="fit again with these rows in the frame"):
        predictions = hz.predict(three_hospitals_fits["partial"], far)
    assert predictions.attrs["k_hat"] > 0.7
    assert predictions.attrs["ess"] < 100


# The other models, their hyperparameters known: independent algebra.


def test_a_clinic_that_brings_its_effect_is_pulled_towards_the_population():
    fit = hz.empirical_bayes("vaccine_clinics", hz.load_data("bcg_vaccine"), random_seed=1)
    mu, tau = fit["estimates"]["value"].sel(hyperparameter=["mu", "tau"]).values
    frame = pd.DataFrame({"clinic": ["new", "later"], "effect": [0.5, np.nan], "standard_error": [0.4, 0.2]})
    predictions = hz.predict(fit, frame)
    kappa = tau**2 / (tau**2 + 0.4**2)
    expected = [kappa * 0.5 + (1 - kappa) * mu, mu]
    np.testing.assert_allclose(predictions["group_summary"]["mean"], expected)
    y = predictions["predictions"]["y"].values.ravel()
    assert stats.kstest(y, stats.norm(mu, np.hypot(tau, 0.2)).cdf).pvalue > 1e-3


def test_a_tissue_that_brings_cells_and_cells_of_a_known_tissue():
    frame = hz.load_data("tissue_expression")
    gene = frame["gene"].iloc[0]
    fit = hz.empirical_bayes("tissue_expression", frame, gene=gene, random_seed=1)
    mu, tau, sigma = fit["estimates"]["value"].sel(hyperparameter=["mu", "tau", "sigma"]).values
    cells = [9.0, 9.4, 9.9]
    new = pd.DataFrame({"tissue": ["lung"] * 4 + ["kidney"], "expression": [*cells, np.nan, np.nan]})
    predictions = hz.predict(fit, new, random_seed=2)
    summary = predictions["group_summary"].to_dataset()
    precision = tau**-2 + 3 * sigma**-2
    mean = (mu / tau**2 + sum(cells) / sigma**2) / precision
    np.testing.assert_allclose(summary.sel(tissue="lung")[["mean", "sd"]].to_array(), [mean, precision**-0.5])
    kidney = fit["group_summary"].to_dataset().sel(tissue="kidney")
    assert summary["mean"].sel(tissue="kidney").item() == pytest.approx(kidney["mean"].item())
    y = predictions["predictions"]["y"]
    assert y["row"].values.tolist() == [3, 4]
    assert y["of_tissue"].values.tolist() == ["lung", "kidney"]
    for k, (m, sd) in enumerate([(mean, precision**-0.5), (kidney["mean"].item(), kidney["sd"].item())]):
        assert stats.kstest(y.values[..., k].ravel(), stats.norm(m, np.hypot(sd, sigma)).cdf).pvalue > 1e-3
    same = hz.predict(fit, new.assign(gene=gene), random_seed=2)
    np.testing.assert_array_equal(same["predictions"]["y"], y)
    with pytest.raises(FrameError, match=f"The fit is of gene '{gene}'"):
        hz.predict(fit, new.assign(gene="another"))


def test_a_line_from_two_measurements_and_a_known_line_at_a_new_environment():
    frame = hz.load_data("sleepstudy")
    fit = hz.empirical_bayes("reaction_norms", frame, random_seed=1)
    center = fit["constant_data"].attrs["center"]
    h = fit["estimates"]["value"].to_series()
    mu = h[["mu_intercept", "mu_slope"]].to_numpy()
    both = h["rho"] * h["tau_intercept"] * h["tau_slope"]
    T = np.array([[h["tau_intercept"] ** 2, both], [both, h["tau_slope"] ** 2]])
    known = frame["genotype"].iloc[0]
    new = pd.DataFrame(
        {
            "genotype": ["new", "new", known, "new"],
            "environment": [0.0, 3.0, 12.0, 9.0],
            "response": [240.0, 300.0, np.nan, np.nan],
        }
    )
    predictions = hz.predict(fit, new, random_seed=2)

    def line(x, y):
        X = np.column_stack([np.ones(len(x)), np.asarray(x) - center])
        K = T @ X.T @ np.linalg.inv(X @ T @ X.T + h["sigma"] ** 2 * np.eye(len(x)))
        return mu + K @ (np.asarray(y) - X @ mu), T - K @ X @ T

    own = frame[frame["genotype"] == known]
    for k, (name, x, at) in enumerate(
        [(known, own, 12.0), ("new", new[:2], 9.0)],
    ):
        mean, V = line(x["environment"], x["response"])
        summary = predictions["group_summary"].to_dataset().sel(genotype=str(name))
        np.testing.assert_allclose(summary["mean"], mean, rtol=1e-8)
        np.testing.assert_allclose(summary["sd"], np.sqrt(np.diag(V)), rtol=1e-6)
        row = np.array([1.0, at - center])
        law = stats.norm(row @ mean, np.sqrt(row @ V @ row + h["sigma"] ** 2))
        assert stats.kstest(predictions["predictions"]["y"].values[..., k].ravel(), law.cdf).pvalue > 1e-3


def test_a_gene_that_was_not_on_the_chip_brings_an_effect():
    rng = np.random.default_rng(1)
    frame, _ = hz.spike_slab_genes.simulate(rng, genes=300)
    fit = hz.empirical_bayes("spike_slab_genes", frame, random_seed=1)
    pi0, tau = fit["estimates"]["value"].sel(hyperparameter=["pi0", "tau"]).values
    new = pd.DataFrame({"gene": ["late", "blank"], "effect": [0.5, np.nan], "standard_error": [0.12, 0.1]})
    predictions = hz.predict(fit, new, random_seed=2)
    null, slab = stats.norm(0, 0.12).pdf(0.5), stats.norm(0, np.hypot(0.12, tau)).pdf(0.5)
    lfdr = pi0 * null / (pi0 * null + (1 - pi0) * slab)
    mean = (1 - lfdr) * tau**2 / (tau**2 + 0.12**2) * 0.5
    assert predictions["group_summary"]["mean"].sel(gene="late").item() == pytest.approx(mean, rel=1e-9)
    zero = (predictions["predictions"]["theta"].sel(gene="blank") == 0).mean().item()
    assert zero == pytest.approx(pi0, abs=4 * np.sqrt(pi0 * (1 - pi0) / 4000))


# The frame in, the tables out.


def test_rows_and_groups_come_back_in_the_order_and_under_the_labels_of_the_frame(pumps):
    frame = pd.DataFrame(
        {"hospital": [7, 42, 3], "observed": [np.nan, 5, np.nan], "expected": [1.0, 2.0, 3.0]}, index=["u", "v", "w"]
    )
    predictions = hz.predict(pumps, frame)
    assert predictions["group_summary"]["hospital"].values.tolist() == [7, 42, 3]
    assert predictions["group_summary"]["case"].values.tolist() == ["known", "brings rows", "known"]
    table = predictions["row_summary"].to_dataset().to_dataframe()
    assert table.index.tolist() == ["u", "w"]
    assert table[["hospital", "expected"]].to_numpy().tolist() == [[7, 1.0], [3, 3.0]]
    assert {"mean", "sd", "eti89_lb", "eti89_ub"} <= set(table)
    assert predictions["predictions"]["O"].dims == ("chain", "draw", "row")
    assert predictions["predictions"]["O"].dtype.kind == "i"


NUMBERED = pd.DataFrame({"hospital": [1, 2, 3], "observed": [30, 50, 100], "expected": [40.0, 40.0, 90.0]})


@pytest.fixture(scope="module")
def numbered():
    """A fit for each way to write the labels; its own estimates are known to three digits."""
    ways = {"numbers": [1, 2, 3], "floats": [1.0, 2.0, 3.0], "text": ["1", "2", "3"], "zeros": ["001", "002", "003"]}
    return {
        way: hz.fit(
            "hospital_readmission", NUMBERED.assign(hospital=labels), "none", random_seed=1, draws=100, chains=2
        )
        for way, labels in ways.items()
    }


@pytest.mark.parametrize(
    ("way", "came", "labels", "known"),
    [
        ("numbers", [1, 2, 3], [1, 2, 3], True),
        ("numbers", [1.0, 2.0, 3.0], [1, 2, 3], True),
        ("numbers", ["1", "2", "3"], [1, 2, 3], True),
        ("numbers", ["001", "002", "003"], [1, 2, 3], True),
        ("numbers", ["1e0", "x", "y"], ["1e0", "x", "y"], False),
        ("floats", ["001", "2", "3.0"], [1, 2, 3], True),
        ("text", [1.0, 2.0, 3.0], ["1", "2", "3"], True),
        ("text", ["001", "002", "003"], ["001", "002", "003"], False),
        ("zeros", ["001", "002", "003"], ["001", "002", "003"], True),
        ("zeros", [1, 2, 3], ["1", "2", "3"], False),
    ],
)
def test_a_hospital_is_known_by_its_label_whatever_the_type(numbered, way, came, labels, known):
    said = hz.predict(numbered[way], NUMBERED.assign(hospital=came, observed=np.nan), random_seed=1)
    groups = said["group_summary"].to_dataset()
    assert groups["hospital"].values.tolist() == labels
    assert groups["case"].values.tolist() == ["known" if known else "never seen"] * 3
    expected = [0.755, 1.248, 1.111] if known else [1.133] * 3
    np.testing.assert_allclose(groups["mean"], expected, atol=6e-4)
    assert said["row_summary"]["hospital"].values.tolist() == labels
    assert said["predictions"]["O"]["of_hospital"].values.tolist() == labels


def test_a_label_of_several_types_is_one_hospital_and_beside_a_new_one_the_others_are_known(numbered):
    rows = NUMBERED.assign(hospital=["001", "X", 3.0], observed=np.nan)
    groups = hz.predict(numbered["numbers"], rows)["group_summary"].to_dataset()
    assert groups["hospital"].values.tolist() == ["1", "X", "3"]
    assert groups["case"].values.tolist() == ["known", "never seen", "known"]
    with pytest.raises(FrameError, match="'hospital' expected each value once, got .* in rows 0, 2"):
        hz.predict(numbered["numbers"], rows.assign(hospital=["001", "X", 1]))


def test_without_a_frame_the_rows_of_the_fit_come_again(pumps):
    predictions = hz.predict(pumps)
    assert predictions["predictions"]["O"].sizes["row"] == 10
    np.testing.assert_allclose(predictions["group_summary"]["mean"], pumps["group_summary"]["mean"])


def test_a_loaded_fit_predicts_the_same_and_predictions_can_be_stored(three_hospitals_fits, tmp_path):
    fit = three_hospitals_fits["partial"]
    fit.to_netcdf(tmp_path / "fit.nc")
    with xr.open_datatree(tmp_path / "fit.nc") as loaded:
        again = hz.predict(loaded, NEW, n_new=1, random_seed=8)
    predictions = hz.predict(fit, NEW, n_new=1, random_seed=8)
    np.testing.assert_array_equal(again["predictions"]["lam"], predictions["predictions"]["lam"])
    predictions.to_netcdf(tmp_path / "predictions.nc")
    with xr.open_datatree(tmp_path / "predictions.nc") as stored:
        assert stored["group_summary"]["case"].values.tolist() == ["brings rows", "brings rows", "never seen"]


@pytest.mark.parametrize(
    ("given", "error", "sentence"),
    [
        ({"n_new": 0}, ValueError, "n_new must be a whole number of new hospitals, 1 or more, got 0"),
        ({"n_new": True}, ValueError, "n_new must be a whole number"),
        ({"frame": [1, 2]}, FrameError, "expected a pandas DataFrame, got list"),
        ({"frame": NEW[:0]}, FrameError, "got an empty frame"),
        ({"frame": NEW.rename(columns={"hospital": "clinic"})}, FrameError, "expected a column 'hospital'"),
        ({"frame": NEW.drop(columns="expected")}, FrameError, "expected a column 'expected'"),
        ({"frame": NEW.assign(expected=[1.0, -1.0])}, FrameError, "'expected' expected a finite number above 0"),
        ({"frame": NEW.assign(observed=["many", np.nan])}, FrameError, "'observed' expected a whole number"),
        ({"frame": NEW.assign(hospital="same", observed=np.nan)}, FrameError, "each value once, got 'same'"),
        ({"frame": NEW.assign(hospital=[None, "b"])}, FrameError, "a label, not empty"),
    ],
)
def test_bad_rows_are_refused_in_one_sentence(pumps, given, error, sentence):
    with pytest.raises(error, match=sentence):
        hz.predict(pumps, **given)


@pytest.fixture(scope="module")
def trials():
    """Trials by their latitude, its hyperparameters known."""
    return hz.empirical_bayes("vaccine_clinics", hz.load_data("bcg_vaccine"), moderators=["latitude"], random_seed=1)


def test_a_label_that_is_nearly_one_of_the_fit_is_said_to_be_another(trials):
    again = hz.load_data("bcg_vaccine").head(1).assign(clinic="aronson  1948")
    with pytest.warns(FrameWarning, match="and 'Aronson 1948' of the fit differ by case, spaces or form only"):
        hz.predict(trials, again)


def test_a_moderator_far_from_those_of_the_fit_is_said(trials):
    """A latitude in millionths of a degree; one as far beyond as those of the fit lie apart is no fault."""
    new = hz.load_data("bcg_vaccine").head(1).assign(clinic="new", latitude=33e6, effect=np.nan)
    with pytest.warns(FrameWarning, match=r"'latitude' of new is 3.3e\+07, far from the 13 to 55 of the fit"):
        hz.predict(trials, new)
    hz.predict(trials, new.assign(latitude=70.0))


def test_new_names_do_not_clash_with_the_frame(pumps):
    frame = pd.DataFrame({"hospital": ["new 1"], "expected": [2.0]})
    labels = hz.predict(pumps, frame, n_new=2)["group_summary"]["hospital"].values.tolist()
    assert labels == ["new 1", "new 2", "new 3"]
