"""Gelman and Pardoe's formulas, written out once more, and their limits."""

import numpy as np
import pandas as pd
import pytest
import xarray as xr

import hbm_zoo as hz
from hbm_zoo.diagnostics.pooling_factor import _factors

SETTINGS = {"random_seed": 1, "progressbar": False, "draws": 250}


@pytest.fixture(scope="module")
def pumps():
    return hz.fit_poolings("hospital_readmission", hz.load_data("pumps"), **SETTINGS)


def by_hand(outcome, errors):
    """Of arrays [draw, unit]: lambda and R^2, page 244 of the paper."""
    between = np.var(errors.mean(axis=0), ddof=1)
    within = np.mean([np.var(row, ddof=1) for row in errors])
    total = np.mean([np.var(row, ddof=1) for row in np.atleast_2d(outcome)])
    return 1 - between / within, 1 - within / total


@pytest.mark.parametrize("pooling", ["none", "partial"])
def test_each_level_against_a_direct_computation(pumps, pooling):
    fit, frame = pumps[pooling], hz.load_data("pumps")
    lam = fit["posterior"]["lam"].values.reshape(-1, len(frame))
    own = (frame["observed"] / frame["expected"]).to_numpy()
    mu = fit["posterior"]["mu"].values.reshape(-1, 1) if pooling == "partial" else 1.1
    table = hz.pooling_factor(fit)
    np.testing.assert_allclose(table.loc["data"], by_hand(own, own - lam), rtol=1e-10)
    np.testing.assert_allclose(table.loc["hospital"], by_hand(lam, lam - mu), rtol=1e-10, atol=1e-12)


def test_complete_pooling_is_the_limit_one(pumps):
    table = hz.pooling_factor(pumps["complete"])
    assert table.loc["hospital"].tolist() == [1.0, 0.0]
    assert table.loc["data", "r2"] == pytest.approx(0.0, abs=1e-12)


def test_narrower_populations_are_pooled_more():
    """theta_k ~ N(0, tau^2), y_k ~ N(theta_k, 1): E V(eps) and V(E eps) of exact draws; lambda rises to 1."""
    rng = np.random.default_rng(0)
    factors = []
    for tau in (100.0, 1.0, 0.01):
        y = rng.normal(0, np.hypot(tau, 1), 400)
        kappa = tau**2 / (tau**2 + 1)
        theta = kappa * y + np.sqrt(kappa) * rng.standard_normal((1000, 400))
        draws = xr.DataArray(theta, dims=("sample", "hospital"))
        found = float(_factors(draws, draws, "hospital")["pooling_factor"])
        # V(E eps) = kappa^2 V(y), E V(eps) = V(E eps) + kappa
        exact = kappa / (kappa**2 * y.var(ddof=1) + kappa)
        assert found == pytest.approx(exact, rel=0.02)
        factors.append(found)
    assert factors[0] < 0.001
    assert factors[-1] > 0.99
    assert factors == sorted(factors)


def test_groups_without_an_estimate_of_their_own_are_left_aside():
    own = xr.DataArray([1.0, np.nan, 3.0, 5.0], dims="hospital")
    theta = xr.DataArray(np.random.default_rng(0).normal(size=(50, 4)), dims=("sample", "hospital"))
    found = _factors(own, own - theta, "hospital")
    kept = np.array([0, 2, 3])
    expected = by_hand(own.values[kept], own.values[kept] - theta.values[:, kept])
    np.testing.assert_allclose([found["pooling_factor"], found["r2"]], expected)


@pytest.mark.parametrize("pooling", ["none", "complete", "partial"])
def test_draws_that_were_left_out_are_made_anew(pumps, pooling):
    full = pumps[pooling]
    thin = full.copy()
    thin["posterior"] = xr.DataTree(full["posterior"].to_dataset().drop_vars("lam"))
    pd.testing.assert_frame_equal(hz.pooling_factor(thin), hz.pooling_factor(full), atol=0.03, rtol=0.05)


def test_a_model_with_several_coefficients_has_a_row_for_each():
    draws = xr.DataArray(np.random.default_rng(0).normal(size=(50, 4, 2)), dims=("sample", "genotype", "coefficient"))
    draws = draws.assign_coords(coefficient=["intercept", "slope"])
    found = _factors(draws, draws, "genotype")
    for k, name in enumerate(["intercept", "slope"]):
        exact = by_hand(draws.values[..., k], draws.values[..., k])
        assert float(found["pooling_factor"].sel(coefficient=name)) == pytest.approx(exact[0])


@pytest.mark.parametrize(
    "takes_one",
    [
        hz.pooling_factor,
        hz.predict,
        hz.discoveries,
        hz.plot_estimates_over_heterogeneity,
        hz.plot_volcano,
        hz.plot_local_fdr,
    ],
)
def test_what_takes_one_fit_refuses_several(three_hospitals_fits, takes_one):
    with pytest.raises(ValueError, match="Expected one fit, got a dict: 'none', 'complete', 'partial'. Give one"):
        takes_one(three_hospitals_fits)
