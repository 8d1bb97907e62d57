"""Empirical Bayes against closed forms, independent densities, and the ML and REML of other programs."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from pymc_extras.prior import Prior
from scipy import stats
from scipy.special import betaln, expit, polygamma

import hbm_zoo as hz
from hbm_zoo.diagnostics.empirical_bayes import _Line
from hbm_zoo.inference.convergence import convergence
from hbm_zoo.inference.fits import population_fixed_at, prepared

REFERENCE = json.loads((Path(__file__).parents[1] / "reference" / "empirical_bayes.json").read_text())


def frame_of(name, model):
    """The data of a reference, in the columns of its model."""
    if name == "surgical":
        frame = pd.DataFrame(REFERENCE[name]["frame"])
        return frame.assign(expected=frame.operations * frame.observed.sum() / frame.operations.sum())
    if "frame" in REFERENCE[name]:
        return pd.DataFrame(REFERENCE[name]["frame"])
    frame = hz.load_data(name, model)
    # A column that marks the index would fix its slope; the other program estimated it.
    return frame.drop(columns="index_of", errors="ignore")


def reference_fit(model, name, method, **options):
    fit = hz.empirical_bayes(model, frame_of(name, model), method=method, draws=50, **options)
    return fit, REFERENCE[name][method]


def agrees(fit, reference, rtol):
    """Compare what the reference lists: values, standard errors, the likelihood in either form."""
    estimates = fit["estimates"].to_dataset()
    for name, expected in reference.items():
        if name == "deviance":
            got = -2 * fit.attrs["log_likelihood"]
        elif name == "log_likelihood":
            got = fit.attrs["log_likelihood"]
        elif name.startswith("se_log_"):
            one = estimates.sel(hyperparameter=name.removeprefix("se_log_"))
            got = float(one.se / one.value)
        elif name.startswith("se_"):
            got = float(estimates.se.sel(hyperparameter=name.removeprefix("se_")))
        elif name.endswith("_sq"):
            got = float(estimates.value.sel(hyperparameter=name.removesuffix("_sq"))) ** 2
        else:
            got = float(estimates.value.sel(hyperparameter=name))
        assert got == pytest.approx(expected, rel=rtol.get(name, rtol["else"])), name


@pytest.mark.parametrize("name", ["pumps", "heart_transplants", "surgical"])
def test_hospitals_agree_with_the_maximum_of_another_program(name):
    fit, reference = reference_fit("hospital_readmission", name, "ml")
    agrees(fit, reference, {"else": 1e-5, "log_likelihood": 3e-8})
    np.testing.assert_allclose(fit["group_summary"]["mean"], REFERENCE[name]["lam"], rtol=1e-4)
    assert fit.attrs["boundary"] == ""


@pytest.mark.parametrize("method", ["ml", "reml"])
def test_clinics_agree_with_metafor(method):
    fit, reference = reference_fit("vaccine_clinics", "bcg_vaccine", method)
    # metafor's standard error of mu takes tau as known: that of ML is compared below.
    agrees(fit, {k: v for k, v in reference.items() if (k, method) != ("se_mu", "ml")}, {"else": 1e-6})


def test_a_standard_error_with_tau_taken_as_known_is_that_of_metafor():
    fit, reference = reference_fit("vaccine_clinics", "bcg_vaccine", "ml")
    tau = float(fit["estimates"]["value"].sel(hyperparameter="tau"))
    weight = 1 / (tau**2 + frame_of("bcg_vaccine", "vaccine_clinics")["standard_error"] ** 2)
    assert weight.sum() ** -0.5 == pytest.approx(reference["se_mu"], rel=1e-6)
    assert fit["estimates"]["se"].sel(hyperparameter="mu") > reference["se_mu"]


@pytest.mark.parametrize("method", ["ml", "reml"])
@pytest.mark.parametrize("name", ["dyestuff", "dyestuff2"])
def test_batches_agree_with_lme4_and_a_variance_of_0_is_exactly_0(name, method):
    fit, reference = reference_fit("tissue_expression", name, method)
    agrees(fit, reference, {"else": 5e-6, "deviance": 1e-7})
    assert fit.attrs["boundary"] == ("tau = 0" if name == "dyestuff2" else "")


@pytest.mark.parametrize("method", [pytest.param("ml", marks=pytest.mark.slow), "reml"])
def test_lines_of_reaction_times_agree_with_lme4(method):
    fit, reference = reference_fit("reaction_norms", "sleepstudy", method, center=0.0)
    # lme4 stops its search at a relative tolerance of about 1e-5.
    agrees(fit, reference, {"else": 1e-4, "rho": 2e-4, "deviance": 1e-7})


def test_lines_of_barley_agree_with_lme4():
    fit, reference = reference_fit("reaction_norms", "barley_minnesota", "reml")
    agrees(fit, reference, {"else": 1e-4, "rho": 5e-4, "log_likelihood": 2e-7})


def test_genes_agree_with_the_maximum_of_another_program():
    fit, reference = reference_fit("spike_slab_genes", "leukemia_genes", "ml")
    agrees(fit, reference, {"else": 1e-5, "log_likelihood": 1e-6})


def test_the_estimate_is_the_top_of_an_independent_negative_binomial():
    frame = hz.load_data("heart_transplants")
    fit = hz.empirical_bayes("hospital_readmission", frame, draws=10)

    def log_likelihood(mu, cv):
        a = cv**-2
        return stats.nbinom.logpmf(frame["observed"], a, a / (a + mu * frame["expected"])).sum()

    mu, cv = fit["estimates"]["value"].values
    assert log_likelihood(mu, cv) == pytest.approx(fit.attrs["log_likelihood"], abs=1e-8)
    around = [log_likelihood(mu * (1 + a), cv * (1 + b)) for a in (-1e-3, 0, 1e-3) for b in (-1e-3, 0, 1e-3)]
    assert max(around) == around[4]


def test_balanced_batches_have_the_closed_forms_of_the_analysis_of_variance():
    rng = np.random.default_rng(8)
    k, n = 7, 5
    y = rng.normal(0, 2, (k, 1)) + rng.normal(20, 1.5, (k, n))
    frame = pd.DataFrame({"tissue": np.repeat(list("abcdefg"), n), "expression": y.ravel()})
    within = y.var(axis=1, ddof=1).mean()
    between = n * y.mean(axis=1).var(ddof=1)
    for method, share in (("ml", (k - 1) / k), ("reml", 1.0)):
        fit = hz.empirical_bayes("tissue_expression", frame, method=method, draws=10)
        expected = [y.mean(), np.sqrt((share * between - within) / n), np.sqrt(within)]
        np.testing.assert_allclose(fit["estimates"]["value"], expected, rtol=1e-6)


@pytest.mark.parametrize("centre", [-6.0, 0.0, 4.0])
def test_a_share_is_looked_for_where_its_prior_is(centre):
    """A normal prior of the logit: its middle is the line's 0, and one sd the line's unit."""
    logit_normal = _Line((0, 1), Prior("LogitNormal", mu=centre, sigma=0.7))
    u = np.linspace(-2, 2, 5)
    one_sd = stats.norm.ppf(0.84)
    np.testing.assert_allclose(logit_normal.value(u), expit(centre + 0.7 * one_sd * u), rtol=1e-6)


@pytest.mark.parametrize("prior", [Prior("Uniform", lower=0, upper=1), Prior("Beta", alpha=40.0, beta=2.0)])
@pytest.mark.parametrize("rare", [True, False])
def test_a_mean_rate_near_its_end_has_the_information_of_the_beta_binomial(rare, prior):
    """A rate of 0.002, or of 0.998, under a prior that is nowhere near one of them."""
    rng = np.random.default_rng(6)
    n = rng.integers(2000, 8000, 60)
    y = rng.binomial(n, rng.beta(0.002 * 800, 0.998 * 800, 60))
    y = y if rare else n - y
    frame = pd.DataFrame({"unit": [f"U{j}" for j in range(60)], "successes": y, "trials": n})
    rates = hz.success_rates.MODEL
    record = replace(rates, default_priors=lambda data: rates.default_priors(data) | {"mu": prior})
    fit = hz.empirical_bayes(record, frame, draws=10)
    (mu, phi), se = fit["estimates"]["value"].values, fit["estimates"]["se"].values
    assert (mu < 0.003) if rare else (mu > 0.997)

    def log_likelihood(mu, phi):
        a, b = mu / phi**2, (1 - mu) / phi**2
        return (betaln(y + a, n - y + b) - betaln(a, b)).sum()

    a, b = mu / phi**2, (1 - mu) / phi**2
    both = polygamma(1, a + b) - polygamma(1, n + a + b)
    bend = np.array(
        [
            [(polygamma(1, y + a) - polygamma(1, a) + both).sum(), both.sum()],
            [both.sum(), (polygamma(1, n - y + b) - polygamma(1, b) + both).sum()],
        ]
    )
    slopes = np.array([[1, -2 * mu / phi], [-1, -2 * (1 - mu) / phi]]) / phi**2
    # The differences are of sums of log gammas of thousands, exact to rounding.
    np.testing.assert_allclose(se, np.sqrt(np.diag(np.linalg.inv(-slopes.T @ bend @ slopes))), rtol=1e-3)
    for step in (np.array([1e-3 * se[0], 0]), np.array([0, 1e-3 * se[1]])):
        up, down = (log_likelihood(*(np.array([mu, phi]) + sign * step)) for sign in (1, -1))
        assert abs(up - down) / 2e-3 < 1e-4  # standard deviations from the top


def test_groups_that_do_not_differ_are_one_and_the_fit_says_so():
    frame = pd.DataFrame({"hospital": list("abcd"), "observed": [10, 21, 29, 40], "expected": [10.0, 20, 30, 40]})
    fit = hz.empirical_bayes("hospital_readmission", frame, draws=20)
    assert fit.attrs["boundary"] == "cv = 0"
    np.testing.assert_allclose(fit["group_summary"]["mean"], 1.0, rtol=1e-7)
    assert (fit["group_summary"]["sd"] == 0).all()
    assert np.isnan(fit["estimates"]["se"].sel(hyperparameter="cv"))
    assert not [name for name in fit["group_summary"] if "rank" in name or "best" in name]
    assert "rank" not in hz.groups(fit)


def test_a_spread_just_inside_is_not_taken_for_0():
    frame = pd.DataFrame({"hospital": list("abcdef"), "observed": [6, 14, 22, 39, 40, 75], "expected": [10.0] * 6})
    frame["expected"] = frame["observed"].mean() * np.array([0.3, 0.5, 0.7, 1.1, 1.3, 2.1])
    spread = hz.empirical_bayes("hospital_readmission", frame.assign(observed=[4, 21, 15, 45, 33, 85]), draws=10)
    assert spread.attrs["boundary"] == ""
    assert spread["estimates"]["value"].sel(hyperparameter="cv") > 0.05


def test_one_part_of_the_spread_may_vanish_alone():
    rng = np.random.default_rng(3)
    x = np.tile(np.arange(6.0), 12)
    level = np.repeat(rng.normal(50, 6, 12), 6)
    frame = pd.DataFrame({"genotype": np.repeat([f"g{i}" for i in range(12)], 6), "environment": x})
    # Parallel lines, their noise made orthogonal to each line's slope.
    noise = rng.normal(0, 2, (12, 6))
    centred = np.arange(6.0) - 2.5
    noise -= (noise @ centred)[:, None] * centred / (centred @ centred)
    fit = hz.empirical_bayes(
        "reaction_norms", frame.assign(response=level + 3 * x + noise.ravel()), draws=10, center=2.5
    )
    assert fit.attrs["boundary"] == "tau_slope = 0, rho = 0"
    assert fit["estimates"]["value"].sel(hyperparameter="tau_intercept") > 3
    np.testing.assert_allclose(fit["group_summary"]["mean"].sel(coefficient="slope"), 3.0, rtol=1e-6)


@pytest.mark.parametrize("method", ["ml", pytest.param("reml", marks=pytest.mark.slow)])
def test_a_correlation_at_its_end_is_reported(method):
    """Few lines, nearly parallel: the likelihood is largest where intercept and slope are one."""
    rng = np.random.default_rng(2)
    frame, _ = hz.reaction_norms.simulate(rng, genotypes=8, environments=4, tau_slope=0.4, rho=0.0)
    fit = hz.empirical_bayes("reaction_norms", frame, method=method)
    rho = fit["estimates"].to_dataset().sel(hyperparameter="rho")
    assert fit.attrs["boundary"] == "rho = -1"
    assert float(rho["value"]) == -1
    assert np.isnan(rho["se"])
    record = hz.reaction_norms.MODEL
    h = population_fixed_at(json.loads(fit.attrs["fixed"]))
    nearer = h.assign(rho=h.rho + 1e-3)
    log_likelihoods = [float(record.group_level.log_left_out(at, prepared(fit)).sum()) for at in (h, nearer)]
    assert log_likelihoods[0] > log_likelihoods[1]
    assert np.isfinite(fit["group_summary"]["mean"]).all()


def test_a_likelihood_without_a_maximum_is_refused():
    frame = pd.DataFrame({"hospital": list("abcd"), "observed": 0, "expected": [1.0, 2.0, 3.0, 4.0]})
    with pytest.raises(ValueError, match="has no maximum on these data: it is still flat at mu = "):
        hz.empirical_bayes("hospital_readmission", frame)


def test_the_fourth_column_stands_beside_the_other_three(heart_fits):
    plug_in = hz.empirical_bayes("hospital_readmission", hz.load_data("heart_transplants"))
    fits = heart_fits | {"empirical_bayes": plug_in}
    table = hz.groups(fits)
    assert {"empirical_bayes", "empirical_bayes_eti89_lb", "empirical_bayes_eti89_ub"} <= set(table)
    plug_in_width, width = (
        (table[f"{name}_eti89_ub"] - table[f"{name}_eti89_lb"]).mean() for name in ("empirical_bayes", "partial")
    )
    assert plug_in_width < width
    labels = [text.get_text() for legend in hz.plot_poolings(fits).legends for text in legend.get_texts()]
    assert "empirical Bayes" in labels
    # It has seen the group that a comparison leaves out: it takes no part.
    assert list(hz.compare_poolings({name: fits[name] for name in ("none", "empirical_bayes")}).index) == ["none"]
    assert convergence(fits).loc["empirical_bayes", "passed"]


def test_draws_follow_the_posterior_at_the_plug_in():
    fit = hz.empirical_bayes("hospital_readmission", hz.load_data("pumps"), draws=2000, random_seed=4)
    mu, cv = fit["estimates"]["value"].values
    a, b = cv**-2, cv**-2 / mu
    frame = hz.load_data("pumps")
    for j in (0, 6):
        posterior = stats.gamma(a + frame["observed"][j], scale=1 / (b + frame["expected"][j]))
        assert stats.kstest(fit["posterior"]["lam"].values[..., j].ravel(), posterior.cdf).pvalue > 1e-3
        summary = fit["group_summary"].to_dataset().isel(hospital=j)
        np.testing.assert_allclose(
            [summary["mean"], summary["sd"], summary["eti89_ub"]],
            [posterior.mean(), posterior.std(), posterior.ppf(0.945)],
            rtol=1e-6,
        )


@pytest.mark.parametrize(
    ("model", "given", "sentence"),
    [
        ("hospital_readmission", {"method": "reml"}, "REML integrates out a mean .* use method='ml'"),
        ("hospital_readmission", {"method": "rmel"}, "Unknown method 'rmel': .* Did you mean 'reml'"),
        ("hospital_readmission", {"center": 1.0}, "Unknown option of hospital_readmission 'center'"),
    ],
)
def test_what_cannot_be_done_is_refused_in_one_sentence(model, given, sentence):
    with pytest.raises(ValueError, match=sentence):
        hz.empirical_bayes(model, hz.load_data("pumps"), **given)
