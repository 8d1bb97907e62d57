"""Which engine draws, what it says of itself, and that it is the same posterior."""

import warnings

import numpy as np
import pandas as pd
import pytest
import xarray as xr
from pymc_extras.prior import Prior

import hbm_zoo as hz
from hbm_zoo.inference import independent, nuts, sampling
from hbm_zoo.inference.convergence import ConvergenceWarning
from hbm_zoo.inference.fits import efficiency, priors_of, proposals
from hbm_zoo.inference.loo import relative_efficiency

CLINICS = hz.load_data("bcg_vaccine")


@pytest.fixture(scope="module")
def by_engine():
    """Clinics by both engines."""
    return {
        engine: hz.fit("vaccine_clinics", CLINICS, engine=engine, random_seed=1, progressbar=False)
        for engine in ("independent", "nuts")
    }


def test_both_engines_draw_from_one_posterior(by_engine):
    """Z tests of means and of squares, with the errors that each engine states."""
    for name in ("mu", "tau"):
        for power in (1, 2):
            drawn = {engine: fit["posterior"][name].values ** power for engine, fit in by_engine.items()}
            errors = []
            for engine, values in drawn.items():
                own = relative_efficiency(xr.Dataset({name: (("chain", "draw"), values)}))
                reff = own if engine == "nuts" else efficiency(by_engine[engine])
                errors.append(values.std() / np.sqrt(reff * values.size))
            assert abs(drawn["nuts"].mean() - drawn["independent"].mean()) < 4.5 * np.hypot(*errors)


def test_a_fit_says_which_engine_drew(by_engine):
    independent_fit, nuts = by_engine["independent"], by_engine["nuts"]
    assert independent_fit.attrs["engine"] == "independent"
    assert {"k_hat", "proposals", "effective_proposals", "tops", "efficiency"} <= set(independent_fit.attrs)
    assert "tune" not in independent_fit.attrs
    assert "sample_stats" not in independent_fit.children
    assert nuts.attrs["why_nuts"] == "asked for"
    assert (nuts.attrs["tune"], "proposals" in nuts.children) == (1000, False)


def test_what_holds_by_construction_is_no_check(by_engine):
    checks = hz.convergence(by_engine)
    shown = checks.loc["independent"]
    assert shown[["r_hat", "ess_bulk", "ess_tail", "divergences", "max_treedepth", "e_bfmi"]].isna().all()
    assert shown["passed"]
    assert "effective of 8000 proposals, one top found" in shown["verdict"]
    assert checks.loc["nuts", ["k_hat", "effective", "proposals"]].isna().all()
    assert checks.loc["nuts", "tops"] == 1


def test_an_unproved_fit_turns_to_nuts_and_says_why(monkeypatch):
    monkeypatch.setattr(independent, "K_HAT_MOST", -10.0)
    fit = hz.fit("vaccine_clinics", CLINICS, random_seed=2, progressbar=False)
    assert fit.attrs["engine"] == "nuts"
    assert "of the weights is above -10" in fit.attrs["why_nuts"]
    with pytest.warns(ConvergenceWarning, match="of the weights is above -10.0; pass engine='nuts'"):
        asked = hz.fit("vaccine_clinics", CLINICS, engine="independent", random_seed=2, progressbar=False)
    assert asked.attrs["engine"] == "independent"


def test_chains_do_not_hide_a_second_top():
    """Of a prior that contradicts three clinics; independent draws have both."""
    frame = pd.DataFrame({"clinic": [*"abc"], "effect": [10.0, 10.3, 9.8], "standard_error": 0.5})
    priors = {"mu": Prior("StudentT", nu=3, mu=0, sigma=0.1), "tau": Prior("HalfNormal", sigma=2)}
    given = {"priors": priors, "random_seed": 1, "progressbar": False}
    with pytest.warns(ConvergenceWarning, match="2 tops of the posterior were found"):
        hz.fit("vaccine_clinics", frame, engine="nuts", **given)
    both = hz.fit("vaccine_clinics", frame, **given)
    assert (both.attrs["engine"], both.attrs["tops"]) == ("independent", 2)
    assert float((both["posterior"]["mu"] < 5).mean()) == pytest.approx(0.672, abs=0.05)  # on a grid


@pytest.mark.long
def test_chains_of_a_form_that_shows_its_groups_do_not_hide_it_either():
    """The mean of mu is 2.04 +- 4.02; one chain after the other stays at the prior's top, and R-hat is 1.007."""
    frame = pd.DataFrame({"clinic": [*"abc"], "effect": [10.0, 10.3, 9.8], "standard_error": 0.5})
    priors = {"mu": Prior("StudentT", nu=2, mu=0, sigma=0.05), "tau": Prior("HalfNormal", sigma=3)}
    given = {"parameterization": "noncentered", "random_seed": 1, "progressbar": False}
    with pytest.warns(ConvergenceWarning, match="2 tops of the posterior were found"):
        hz.fit("vaccine_clinics", frame, priors=priors, **given)
    assert hz.fit("vaccine_clinics", CLINICS, **given).attrs["tops"] == 1


@pytest.mark.parametrize("mu", ["HalfCauchy", "HalfStudentT", "LogNormal"])
def test_heavy_priors_of_a_rate_do_not_leave_for_where_no_data_are(mu):
    """Medians of mu from 1.04 to 1.16; where the density loses its digits, at 1e25, no data have rates."""
    heavy = {
        "HalfCauchy": Prior("HalfCauchy", beta=1),
        "HalfStudentT": Prior("HalfStudentT", nu=1, sigma=0.01),
        "LogNormal": Prior("LogNormal", mu=0, sigma=10),
    }
    priors = {"mu": heavy[mu], "cv": Prior("InverseGamma", alpha=1, beta=0.0118)}
    frame = hz.load_data("three_hospitals")
    fit = hz.fit("hospital_readmission", frame, priors=priors, draws=250, random_seed=1, progressbar=False)
    assert (fit.attrs["engine"], fit.attrs["tops"]) == ("independent", 1)
    assert 0.95 < float(fit["posterior"]["mu"].median()) < 1.3


def test_visible_forms_are_always_nuts():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        fit = hz.fit(
            "vaccine_clinics", CLINICS, parameterization="noncentered", draws=50, tune=50, chains=2, progressbar=False
        )
    assert fit.attrs["engine"] == "nuts"
    assert "arrays of unknowns" in fit.attrs["why_nuts"]


def test_data_in_other_units_have_the_same_draws():
    here = hz.fit("vaccine_clinics", CLINICS, random_seed=3, progressbar=False)
    for factor in (1e-12, 1e12):
        frame = CLINICS.assign(effect=CLINICS["effect"] * factor, standard_error=CLINICS["standard_error"] * factor)
        priors = {"mu": Prior("Normal", mu=0, sigma=factor), "tau": Prior("HalfNormal", sigma=factor)}
        there = hz.fit("vaccine_clinics", frame, priors=priors, random_seed=3, progressbar=False)
        units = hz.fit(
            "vaccine_clinics",
            CLINICS,
            priors={"mu": Prior("Normal", mu=0, sigma=1), "tau": Prior("HalfNormal", sigma=1)},
            random_seed=3,
            progressbar=False,
        )
        np.testing.assert_allclose(there["posterior"]["tau"], factor * units["posterior"]["tau"], rtol=1e-6)
        assert there.attrs["engine"] == here.attrs["engine"] == "independent"


def test_a_refit_is_of_the_other_data_and_disturbs_nothing(by_engine):
    fit = by_engine["independent"]
    record = hz.vaccine_clinics.MODEL
    few = record.data(CLINICS.iloc[:4])
    h = sampling.refit(fit, few, random_seed=5)["posterior"]
    priors = priors_of(fit)
    alone = hz.fit("vaccine_clinics", CLINICS.iloc[:4], priors=priors, random_seed=5, progressbar=False)
    np.testing.assert_array_equal(h["mu"].values, alone["posterior"]["mu"].values)
    again = sampling.refit(fit, fit["constant_data"].to_dataset(), random_seed=1)["posterior"]
    np.testing.assert_array_equal(again["mu"].values, fit["posterior"]["mu"].values)


@pytest.mark.parametrize("engine", ["independent", "nuts"])
def test_what_a_pooling_fixes_is_of_its_own_data(engine):
    """No pooling fixes the population from the priors, which follow the data: other data in the same process."""
    frame = hz.load_data("dyestuff", "tissue_expression")
    settings = {"engine": engine, "draws": 500, "random_seed": 1, "progressbar": False}
    first, second = (
        hz.fit("tissue_expression", frame.assign(expression=frame["expression"] / unit), "none", **settings)
        for unit in (100, 1)
    )
    sigma = second["posterior"]["sigma"].mean() / first["posterior"]["sigma"].mean()
    assert float(sigma) == pytest.approx(100, rel=0.1)


def test_leaving_out_of_weighted_proposals_is_exact(by_engine):
    """Against exact refits, and no farther from them than its error says; the draws have more of it."""
    fit = by_engine["independent"]
    summary = fit["group_summary"].dataset
    exact = hz.compare_poolings({"partial": fit}, question="new_group")
    error = np.sqrt((summary["elpd_mcse"].values ** 2).sum() + exact["mcse"].iloc[0] ** 2)
    assert abs(summary["elpd"].values.sum() - exact["elpd"].iloc[0]) < 5 * error
    proposed = proposals(fit)
    assert proposed.sizes["sample"] == fit.attrs["proposals"]
    assert proposals(by_engine["nuts"]) is None


@pytest.mark.parametrize(
    ("diverged", "given", "targets"), [(1, {}, [0.9, 0.98]), (0, {}, [0.9]), (1, {"target_accept": 0.8}, [0.8])]
)
def test_a_divergence_is_answered_by_smaller_steps_unless_the_caller_chose_them(monkeypatch, diverged, given, targets):
    asked, steps = [], nuts.sample

    def stepped(compiled, settings, progressbar, sampler):
        asked.append(sampler["target_accept"])
        tree = steps(compiled, settings, progressbar, sampler)
        stats = tree["sample_stats"].to_dataset()
        stats["diverging"].values[0, 0] = diverged and len(asked) == 1
        tree["sample_stats"] = xr.DataTree(stats)
        return tree

    monkeypatch.setattr(nuts, "sample", stepped)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        fit = hz.fit("vaccine_clinics", CLINICS, engine="nuts", random_seed=1, progressbar=False, **given)
    assert asked == targets
    assert fit.attrs["target_accept"] == targets[-1]


@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        ({"target_accept": 2.0}, "target_accept must lie between 0 and 1, got 2.0"),
        ({"cores": 0}, "cores must be a whole number, 1 or more, got 0"),
        ({"maxdepth": -1}, "maxdepth must be a whole number, 1 or more, got -1"),
        ({"priors": ["mu"]}, "priors must be a mapping from a name to its Prior, got list"),
    ],
)
def test_settings_that_cannot_be_are_refused_before_anything_is_compiled(given, sentence):
    with pytest.raises(ValueError, match=sentence):
        hz.fit("vaccine_clinics", hz.load_data("eight_schools"), engine="nuts", **given)


def test_few_draws_fail_their_check_however_good_their_weights():
    with pytest.warns(ConvergenceWarning, match="8 draws are fewer than 400: raise draws"):
        hz.fit("vaccine_clinics", hz.load_data("eight_schools"), draws=2, random_seed=1, progressbar=False)
