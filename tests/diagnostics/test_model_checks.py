"""Places of groups left out, p values of replicated data, alarms on planted faults, and the verdict on them."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import xarray as xr
from scipy import stats

import hbm_zoo as hz
from hbm_zoo.diagnostics import replicas
from hbm_zoo.diagnostics.cross_validation import lean
from hbm_zoo.diagnostics.left_out_places import places, tails_left_out, tails_of_rows, two_sided
from hbm_zoo.diagnostics.model_checks import _compared, _outlying, _to_try
from hbm_zoo.diagnostics.replicas import Refits, sequential_p
from hbm_zoo.diagnostics.verdict.criticism import instead, misfit
from hbm_zoo.inference.fits import hyperparameters, model_of, prepared, priors_of
from hbm_zoo.inference.sampling import refit

SETTINGS = {"random_seed": 1, "progressbar": False}


def clinics(effect, se):
    names = [f"C{i:02d}" for i in range(len(effect))]
    return pd.DataFrame({"clinic": names, "effect": effect, "standard_error": se})


@pytest.fixture(autouse=True)
def few_replicates(monkeypatch):
    """No test reads an interval; p values end as they do."""
    monkeypatch.setattr(replicas, "LEAST", 19)


@pytest.fixture(scope="module")
def bcg():
    return hz.fit_poolings("vaccine_clinics", hz.load_data("bcg_vaccine"), **SETTINGS)


# Where groups lie in what the others expect.


def test_places_under_complete_pooling_are_those_of_a_closed_form(bcg):
    """Mu given the other clinics is normal, and so is what they expect of the one left out."""
    frame = hz.load_data("bcg_vaccine")
    y, weight = frame["effect"].to_numpy(), frame["standard_error"].to_numpy() ** -2.0
    prior = priors_of(bcg["complete"])["mu"].parameters
    mean, sd = prior["mu"], prior["sigma"]
    lower = tails_left_out(hz.vaccine_clinics.MODEL, bcg["complete"])["lower"].values
    for j in range(len(frame)):
        others = np.arange(len(frame)) != j
        precision = weight[others].sum() + sd**-2
        centre = (weight[others] @ y[others] + mean * sd**-2) / precision
        exact = stats.norm(centre, np.sqrt(1 / precision + 1 / weight[j])).cdf(y[j])
        assert lower[j] == pytest.approx(exact, abs=0.01)


def test_the_two_tails_of_a_continuous_estimate_are_one(bcg):
    tails = tails_left_out(hz.vaccine_clinics.MODEL, bcg["partial"])
    np.testing.assert_allclose(tails["lower"] + tails["upper"], 1, atol=1e-9)
    np.testing.assert_allclose(places(tails), tails["lower"], atol=1e-9)


@pytest.mark.parametrize("moderators", [[], ["age"]], ids=["plain", "moderated"])
def test_places_of_rows_are_those_of_fits_without_them(moderators):
    """Tails of a row at draws of a posterior that never saw it; one lies far out, and its own data must not hide it."""
    rng = np.random.default_rng(4)
    tissue, age = np.repeat(list("ABCDE"), 4), np.repeat([20.0, 30.0, 35.0, 50.0, 60.0], 4)
    frame = pd.DataFrame({"tissue": tissue, "age": age, "expression": rng.normal(age / 20, 0.5)})
    frame.loc[0, "expression"] += 4.0
    fit = hz.fit("tissue_expression", frame, moderators=moderators, **SETTINGS)
    record, data = model_of(fit), prepared(fit)
    found = tails_of_rows(record, fit)
    for i in (0, 1, 19):
        h = hyperparameters(refit(lean(fit), record.group_level.without_row(data, i), 1, record))
        lower, _ = record.group_level.row_tails(h, data, np.array([i]))
        spread = 2 * float(lower.std()) / np.sqrt(400)  # both ends are worth some hundred draws
        assert float(found["lower"][i]) == pytest.approx(float(lower.mean()), abs=4 * spread)
    assert float(found["upper"][0]) < 0.01
    np.testing.assert_allclose(found["lower"] + found["upper"], 1, atol=1e-9)


def test_places_of_rows_see_what_places_of_groups_cannot():
    """Rows of a t with 2 degrees of freedom: the curve of rows leaves its band far, that of normal rows does not."""
    rng, tissue = np.random.default_rng(6), np.repeat(np.arange(6), 50)
    for noise, fits in ((rng.standard_normal(300), True), (rng.standard_t(2, 300), False)):
        frame = pd.DataFrame({"tissue": tissue, "expression": tissue + noise})
        fit = hz.fit("tissue_expression", frame, "none", **SETTINGS)
        of_rows = places(tails_of_rows(model_of(fit), fit))
        assert (stats.kstest(of_rows, "uniform").pvalue > 0.01) == fits
        (panel,) = hz.plot_calibration(fit).axes
        assert panel.get_title() == "rows, each given all others"


def test_places_of_counts_are_uniform_between_their_ends():
    law = stats.poisson(2.0)
    counts = np.random.default_rng(1).poisson(2.0, 4000)
    tails = xr.Dataset({"lower": ("g", law.cdf(counts)), "upper": ("g", law.sf(counts - 1))})
    assert stats.kstest(places(tails), "uniform").pvalue > 0.01
    assert places(tails).equals(places(tails))
    assert not places(tails, 1).equals(places(tails, 2))
    for level in (0.01, 0.1, 0.5):  # of counts a p value is too large, if anything
        assert (two_sided(tails) <= level).mean() <= level + 3 * np.sqrt(level / 4000)


# P values.


@pytest.mark.parametrize("most", [99, 199])
def test_a_sequential_p_value_is_exact_for_what_is_exchangeable(most):
    """Of a statistic that is one more of the replicates P(p <= level) is the level, at levels that p can have."""
    rng = np.random.default_rng(2)
    drawn = rng.random((20_000, most + 1))
    p = np.array([sequential_p(row[1:] >= row[0]) for row in drawn])
    for level in (0.02, 0.05, 0.1, 0.5):
        assert (p <= level).mean() == pytest.approx(level, abs=4 * np.sqrt(level / 20_000) + 1 / (most + 1))
        assert (p <= level).mean() <= level + 4 * np.sqrt(level / 20_000)


def test_the_top_of_a_refit_is_that_of_its_posterior(bcg):
    """By a grid over mu and tau, on the scale where tau is a standard normal."""
    refits, priors = Refits(hz.vaccine_clinics.MODEL, bcg["partial"], 0), priors_of(bcg["partial"])
    (m, width), s = priors["mu"].parameters.values(), priors["tau"].parameters["sigma"]
    for data in [refits.data, *(data for data, _ in zip(refits, range(3), strict=False))]:
        at = refits.fitted(data)
        y, se = data.effect.values, data.standard_error.values
        x = np.linspace(-3, 4, 1401)
        tau = stats.halfnorm(scale=s).ppf(stats.norm.cdf(x))
        weight = 1 / (tau[:, None] ** 2 + se**2)
        precision = weight.sum(axis=1) + width**-2
        mu = ((weight * y).sum(axis=1) + m * width**-2) / precision
        height = stats.norm(mu[:, None], weight**-0.5).logpdf(y).sum(axis=1) + stats.norm(m, width).logpdf(mu)
        best = (height + stats.norm.logpdf(x)).argmax()
        assert float(at.tau) == pytest.approx(tau[best], abs=0.01)
        assert float(at.mu) == pytest.approx(mu[best], abs=0.01)


@pytest.mark.long
def test_a_table_is_the_same_again_and_another_by_another_seed(bcg):
    again = [hz.check_model({"partial": bcg["partial"]}, seed) for seed in (3, 3, 4)]
    pd.testing.assert_frame_equal(again[0], again[1])
    assert not again[0].equals(again[2])


# Which checks there are, and what they see.


def test_one_row_a_check_and_pooling(bcg):
    table = hz.check_model(bcg)
    assert table.xs("partial", level="pooling").index.tolist() == ["outlying", "asymmetry", "tails", "I^2"]
    assert table.xs("complete", level="pooling").index.tolist() == ["outlying", "spread"]
    assert table.loc[("spread", "complete"), "observed"] == pytest.approx(152.2, abs=0.3)
    assert table.attrs["rejected"]["complete"] == ["outlying", "spread"]
    assert set(table.attrs["outlying"]["complete"]) >= {"TPT Madras 1980", "Hart & Sutherland 1977"}
    assert (table["p_holm"] >= table["p"]).all()
    assert ((table["p_holm"] < 0.05) == (table["verdict"] != "as expected")).all()


def test_one_clinic_apart_is_named():
    rng = np.random.default_rng(5)
    effect = rng.normal(0, 0.2, 25)
    effect[7] = 4.0
    table = hz.check_model(hz.fit("vaccine_clinics", clinics(effect, np.full(25, 0.2)), **SETTINGS))
    assert table.attrs["outlying"] == {"partial": ["C07"]}
    assert table.loc[("outlying", "partial"), "verdict"] == "1 clinic does not belong to the population: C07"


def test_no_group_is_named_by_chance_among_many():
    """Holm's rule over groups: ten thousand uniform p values name one in five per cent of the cases."""
    rng = np.random.default_rng(6)
    cases = [pd.Series(rng.random(10_000)) for _ in range(400)]
    named = [bool(_outlying(p, min(1.0, p.size * p.min()), min(1.0, p.size * p.min()))) for p in cases]
    assert np.mean(named) == pytest.approx(0.05, abs=0.033)


@pytest.mark.parametrize(
    ("noise", "expected"), [("normal", []), ("unequal", ["equal variances"]), ("t", ["tails of rows"])]
)
def test_rows_of_tissues_tell_tails_from_unequal_variances(noise, expected):
    """Each check sees its own fault, and not the other's; no hyperparameter is fitted, as no pooling needs none."""
    rng = np.random.default_rng(7)
    tissue = np.repeat(np.arange(12), 60)
    e = {
        "normal": rng.normal(size=720),
        "unequal": np.exp(0.5 * rng.normal(size=12))[tissue] * rng.normal(size=720),
        "t": rng.standard_t(4, 720),
    }[noise]
    frame = pd.DataFrame({"tissue": [f"T{t:02d}" for t in tissue], "expression": 8 + tissue % 3 + e})
    table = hz.check_model(hz.fit("tissue_expression", frame, "none", **SETTINGS))
    assert table.index.get_level_values("check").tolist() == ["equal variances", "tails of rows"]
    assert table.attrs["rejected"].get("none", []) == expected


@pytest.mark.long
def test_overdispersion_is_seen_by_complete_pooling_and_absorbed_by_the_spread():
    rng = np.random.default_rng(8)
    expected = np.full(40, 40.0)
    frame = pd.DataFrame({"hospital": [f"H{i:02d}" for i in range(40)], "expected": expected})
    frame["observed"] = rng.negative_binomial(40 / 1.0, 1 / 2.0, 40)
    fits = {p: hz.fit("hospital_readmission", frame, p, **SETTINGS) for p in ("complete", "partial")}
    table = hz.check_model(fits)
    assert "spread" in table.attrs["rejected"]["complete"]
    assert "partial" not in table.attrs["rejected"]
    assert "cannot tell overdispersion from spread" in table.loc[("spread", "complete"), "verdict"]


@pytest.mark.slow
def test_true_models_raise_few_alarms():
    """Truth and data from frozen priors: more alarms than that have a probability below 0.005 at 5 %."""
    rng, record = np.random.default_rng(9), hz.vaccine_clinics.MODEL
    frame = clinics(rng.normal(size=15), np.exp(rng.normal(-0.5, 0.4, 15)))
    priors, alarms = record.priors(record.data(frame), None, "partial"), 0
    for seed in range(60):
        mu = rng.normal(priors["mu"].parameters["mu"], priors["mu"].parameters["sigma"])
        tau = abs(rng.normal(0, priors["tau"].parameters["sigma"]))
        effect = rng.normal(rng.normal(mu, tau, 15), frame["standard_error"])
        fit = hz.fit("vaccine_clinics", frame.assign(effect=effect), priors=priors, draws=250, **SETTINGS)
        alarms += bool(hz.check_model(fit, seed).attrs["rejected"])
    assert alarms <= 8


# What the verdict says of it.


def checked(rejected=(), outlying=(), alternative=None):
    """A table of check_model, made by hand."""
    rows = {
        ("outlying", "partial"): ("smallest p value", 1e-9, 0.01, 0.001, 0.1, "1 gene does not belong: G1"),
        ("|z| > 4", "partial"): ("genes with |z| > 4", 94.0, 256.0, 230.0, 281.0, "fewer genes lie beyond"),
        ("centre", "partial"): ("median z score", -0.03, 0.0, -0.02, 0.02, "the null lies below 0"),
    }
    columns = ["compares", "observed", "expected", "eti89_lb", "eti89_ub", "verdict"]
    table = pd.DataFrame.from_dict(rows, orient="index", columns=columns)
    table.index = pd.MultiIndex.from_tuples(rows, names=["check", "pooling"])
    table.attrs |= {
        "rejected": {"partial": list(rejected)} if rejected else {},
        "outlying": {"partial": list(outlying)} if outlying else {},
        "alternative": {"partial": alternative or {}},
    }
    return table


def test_the_worst_misfit_is_said_first():
    (sentence,) = misfit(checked(["centre", "|z| > 4"]), "partial")
    assert sentence.startswith(
        "Partial pooling does not fit: fewer genes lie beyond (genes with |z| > 4: 94, expected 230 to 281); the null"
    )
    assert misfit(checked(), "partial") == misfit(None, "partial") == []


def test_a_group_by_its_name_says_most():
    (sentence,) = misfit(checked(["|z| > 4", "outlying"], ["G1"]), "partial")
    assert sentence.startswith("Partial pooling does not fit: 1 gene does not belong: G1; fewer")


@pytest.mark.parametrize(
    ("table", "expected"),
    [
        (checked(["|z| > 4"], alternative={"null": "empirical"}), "fit again with null='empirical'"),
        (checked(["outlying"], ["G1", "G2"]), "find out what is different about G1 and G2"),
        (checked(["centre"]), "find out why it does not fit, which no option of it mends"),
    ],
)
def test_what_is_rejected_is_not_to_be_reported(table, expected):
    assert instead(table, "partial", "gene") == ["do not report each gene by this fit", expected]


@pytest.mark.long
def test_the_verdict_of_a_rejected_model_never_recommends_to_report_it(bcg):
    tables = {"new_group": hz.compare_poolings(bcg)}
    good, bad = checked(), checked(["centre"])
    assert hz.verdict(bcg, tables, checks=good)[-1] == "Next: report each clinic by partial pooling, with its interval."
    sentences = hz.verdict(bcg, tables, checks=bad)
    assert "Next: do not report each clinic by this fit; find out why" in sentences[-1]
    assert not any("report each clinic by partial pooling" in sentence for sentence in sentences)


@pytest.mark.long
def test_the_evidence_is_quoted_beside_the_classical_test(bcg):
    sentences = hz.verdict(bcg, {"new_group": hz.compare_poolings(bcg)}, checks=hz.check_model(bcg))
    (said,) = [sentence for sentence in sentences if sentence.startswith("Evidence that clinics differ is very strong")]
    assert "(log Bayes factor 57.8 nats, MCSE 0.0" in said
    assert "; prior halved 57.5, doubled 57.5; Cochran's Q 152, expected " in said


# Refusals.


def test_what_cannot_be_checked_is_refused_in_a_sentence(bcg):
    other = hz.fit("vaccine_clinics", hz.load_data("eight_schools"), "complete", **SETTINGS)
    record = hz.vaccine_clinics.MODEL
    silent = replace(record.extras, checks={})
    mute = replace(record, group_level=replace(record.group_level, tails=None), extras=silent)
    rigid = replace(record, extras=replace(record.extras, with_response=None))
    with pytest.raises(ValueError, match="needs how probable less than the own estimate of a clinic is, and more"):
        hz.check_model(bcg, model=mute)
    with pytest.raises(ValueError, match="needs how the data look with another response, and vaccine_clinics does not"):
        hz.check_model(bcg, model=rigid)
    with pytest.raises(ValueError, match="takes fits of no, complete or partial pooling; got none"):
        hz.check_model(hz.empirical_bayes("vaccine_clinics", hz.load_data("bcg_vaccine")))
    with pytest.raises(ValueError, match="do not belong together"):
        hz.check_model({"partial": bcg["partial"], "complete": other})
    with pytest.raises(ValueError, match="Expected at least one fit, got none"):
        hz.check_model({})


@pytest.mark.long
def test_what_to_try_is_an_option_that_mends_this_side():
    """A clinic far out asks for heavy tails, counts that hardly vary for a binomial, those that vary more for none."""
    rng = np.random.default_rng(3)
    effect = np.r_[rng.normal(0, 0.3, 15), 6.0]
    clinics = pd.DataFrame({"clinic": range(16), "effect": effect, "standard_error": 0.2})
    fit = hz.fit("vaccine_clinics", clinics, random_seed=1, progressbar=False)
    found = hz.check_model(fit)
    assert "outlying" in found.attrs["rejected"]["partial"]
    assert found.attrs["alternative"]["partial"] == {"population": "student-t"}
    for observed, options in ((np.full(30, 20), {"noise": "binomial"}), (rng.integers(2, 60, 30), {})):
        hospitals = pd.DataFrame({"hospital": range(30), "observed": observed, "expected": 20.0})
        complete = hz.fit("hospital_readmission", hospitals, "complete", random_seed=1, progressbar=False)
        found = hz.check_model(complete)
        assert "spread" in found.attrs["rejected"]["complete"]
        assert found.attrs["alternative"]["complete"] == options


@pytest.mark.long
def test_from_tails_that_are_too_light_a_t_population_leads_back_to_the_normal():
    tails = hz.vaccine_clinics.MODEL.extras.checks["tails"].alternative
    trials = hz.load_data("bcg_vaccine")
    for population, options in (("student-t", {"population": "normal"}), ("normal", {})):
        record = hz.vaccine_clinics.MODEL.under(population=population)
        fit = hz.fit(record, trials, "complete", draws=100, random_seed=1, progressbar=False)
        assert _to_try(record, fit, tails["fewer"]) == options
        assert _to_try(record, fit, tails["more"]) == ({} if options else {"population": "student-t"})


def test_what_is_the_same_of_all_such_data_is_no_check():
    """The kurtosis of two scores is 1 whatever they are; one campaign has no spread of campaigns."""
    frame = pd.DataFrame({"campaign": "x", "batch": [*"aabb"], "strength": [1.0, 2.0, 2.5, 3.0]})
    fit = hz.fit("material_batches", frame, random_seed=1, draws=100, progressbar=False)
    table = hz.check_model(fit)
    assert not {"tails", "tails of campaigns"} & set(table.index.get_level_values("check"))
    assert {"outlying", "asymmetry"} & set(table.index.get_level_values("check"))


def test_what_to_try_can_be_fitted():
    """A sigma of each tissue is of a normal population: from a t both options change."""
    record = hz.tissue_expression.MODEL.under(population="student-t")
    fit = xr.DataTree()
    fit.attrs["options"] = "{}"
    assert _to_try(record, fit, {"sigma": "by tissue"}) == {"sigma": "by tissue", "population": "normal"}
    assert _to_try(record.base, fit, {"sigma": "by tissue"}) == {"sigma": "by tissue"}


def test_the_error_of_a_sequential_p_value_is_its_own():
    """Of as many replicates as it took: over many runs it scatters by that, and not by what a longer run would give."""
    rng = np.random.default_rng(4)
    found = [_compared(0.6, 0.0, rng.random(400)) for _ in range(4_000)]
    p, errors = (np.array([each["more"] for each in of]) for of in zip(*((f.p, f.p_mcse) for f in found), strict=True))
    assert errors.mean() == pytest.approx(p.std(), rel=0.15)
    assert np.sqrt(0.4 * 0.6 / 400) < p.std() / 3


@pytest.mark.long
def test_the_error_of_the_farthest_group_is_that_of_its_draws():
    """Seven clinics and one far out: the p value scatters over seeds as its error says."""
    rng = np.random.default_rng(2)
    effect = [*rng.normal(0, 0.3, 7), 2.4]
    frame = pd.DataFrame({"clinic": [*"abcdefgh"], "effect": effect, "standard_error": 0.2})
    rows = [
        hz.check_model(hz.fit("vaccine_clinics", frame, draws=200, random_seed=seed, progressbar=False)).loc["outlying"]
        for seed in range(12)
    ]
    p, errors = (np.array([float(row[name].iloc[0]) for row in rows]) for name in ("p", "p_mcse"))
    assert 0.4 < errors.mean() / p.std(ddof=1) < 2.5


def test_fits_of_other_options_are_checked_as_if_alone():
    frame = hz.load_data("bcg_vaccine")
    fits = {
        "normal": hz.fit("vaccine_clinics", frame, random_seed=1, progressbar=False),
        "t": hz.fit("vaccine_clinics", frame, population="student-t", draws=250, random_seed=1, progressbar=False),
    }
    together = hz.check_model(fits).xs("t", level="pooling")
    alone = hz.check_model({"t": fits["t"]}).xs("t", level="pooling")
    pd.testing.assert_frame_equal(together, alone)
