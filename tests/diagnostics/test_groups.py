"""One row a group, checked by hand."""

import numpy as np
import pytest
import xarray as xr
from scipy import stats

import hbm_zoo as hz
from hbm_zoo.diagnostics.groups import probability_above
from hbm_zoo.inference.fits import efficiency
from hbm_zoo.inference.summary import rank_summary


@pytest.fixture(scope="module")
def three():
    return hz.fit_poolings(hz.hospital_readmission, hz.load_data("three_hospitals"), random_seed=1, progressbar=False)


def test_own_is_not_the_posterior_mean_under_no_pooling(three):
    table = hz.groups(three)
    np.testing.assert_allclose(table["own"], [1.5, 0.5, 1.2])
    np.testing.assert_allclose(table["none"], [1.45, 0.58, 1.20], atol=0.005)
    assert table["complete"].nunique() == 1


def test_rao_blackwell_means_agree_with_the_draws(three):
    table, lam = hz.groups(three), three["partial"]["posterior"]["lam"]
    error = lam.std(("chain", "draw")).values / np.sqrt(1000)
    assert (np.abs(table["partial"] - lam.mean(("chain", "draw")).values) < 5 * error).all()


@pytest.mark.parametrize("threshold", ["0", np.nan, np.inf])
def test_a_threshold_is_a_finite_number(three, threshold):
    with pytest.raises(ValueError, match="threshold expected a finite number, got"):
        hz.groups(three, threshold=threshold)


def test_probabilities_beyond_a_threshold_by_hand(three):
    h = three["partial"]["posterior"].to_dataset()
    a, b = h["a"].values.ravel()[:, None], h["b"].values.ravel()[:, None]
    by_hand = stats.gamma.sf(1.3, a + [6, 2, 48], scale=1 / (b + [4, 4, 40])).mean(0)
    np.testing.assert_allclose(probability_above(three["partial"], 1.3), by_hand, rtol=1e-8)
    np.testing.assert_allclose(hz.groups(three, threshold=1.3)["p_above_1.3"], by_hand, rtol=1e-8)


def test_kappa_is_the_weight_of_the_own_data(three):
    table = hz.groups(three)
    b = three["partial"]["posterior"]["b"].values.ravel()
    np.testing.assert_allclose(table["kappa"], [(E / (E + b)).mean() for E in (4, 4, 40)], rtol=1e-10)
    assert (table["kappa_eti89_lb"] < table["kappa"]).all()


def test_ranks_are_a_permutation_on_average(three):
    table = hz.groups(three)
    assert table["rank"].sum() == pytest.approx(6)
    assert table["p_best"].sum() == pytest.approx(1)
    assert table["rank"].idxmin() == "Small"


def test_errors_of_ranks_are_of_as_many_draws_as_the_hyperparameters_are_worth(three):
    fit = three["partial"]
    summary, worth = fit["group_summary"].to_dataset(), 1000 * efficiency(fit)
    best = summary["p_best"]
    assert worth < 990
    np.testing.assert_allclose(summary["p_best_mcse"], np.sqrt(best * (1 - best) / worth))
    draws = xr.DataArray(np.random.default_rng(1).normal(size=(40, 3)), dims=("sample", "hospital"))
    few, many = rank_summary(draws, "hospital", 0.25), rank_summary(draws, "hospital")
    np.testing.assert_allclose(few["rank_mcse"], 2 * many["rank_mcse"])


def test_one_fit_alone_will_do(three):
    assert list(hz.groups(three["partial"]).index) == ["Small", "Smaller", "Large"]
