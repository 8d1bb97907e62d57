"""Where a truth lies among draws, and the design of simulations."""

import numpy as np
import pytest
import xarray as xr
from scipy import stats

from hbm_zoo.diagnostics.simulations import log_densities, place, places_of
from hbm_zoo.diagnostics.uniformity import uniformity
from hbm_zoo.group_level.populations import Normal, SpikeSlab
from hbm_zoo.inference.independent import resampled

SIMULATIONS = 400


def test_the_place_among_independent_draws_is_uniform_and_lies_within_its_rank():
    rng = np.random.default_rng(1)
    draws = rng.standard_normal((9, SIMULATIONS))
    truth = rng.standard_normal(SIMULATIONS)
    places = place(truth, draws, 9, rng)
    np.testing.assert_array_equal(np.floor(places * 10), (draws < truth).sum(axis=0))
    assert uniformity(places) > 1e-3


def test_counts_and_points_have_uniform_places_too():
    rng = np.random.default_rng(2)
    draws, truth = rng.poisson(0.7, (50, SIMULATIONS)), rng.poisson(0.7, SIMULATIONS)
    assert uniformity(place(truth, draws, 50, rng)) > 1e-3
    assert uniformity(place(np.zeros(SIMULATIONS), np.zeros((50, SIMULATIONS)), 50, rng)) > 1e-3
    assert uniformity((draws < truth).mean(axis=0) + 1e-3) < 1e-9  # equals not dealt with


def test_resampled_draws_taken_for_independent_are_seen():
    """Thirty draws resampled to 600: places are uniform by what they are worth, and not by their number."""
    rng, even = np.random.default_rng(3), np.full(30, 1 / 30)
    counted, naive = [], []
    for truth in rng.standard_normal(SIMULATIONS):
        x = rng.standard_normal(30)
        chosen, worth = resampled(even, 600, rng)
        counted.append(place(np.array(truth), x[chosen], worth, rng))
        naive.append(place(np.array(truth), x[chosen], 600, rng))
    assert worth == pytest.approx(30)
    assert uniformity(np.array(counted)) > 1e-3
    assert uniformity(np.array(naive)) < 1e-9


def test_a_truth_among_undefined_draws_has_no_place():
    truth, draws = xr.Dataset({"mu": ("sample", [0.0])}), xr.Dataset({"mu": ("sample", [0.0, np.nan])})
    with pytest.raises(ValueError, match="'mu' is undefined at the truth or at a draw"):
        places_of(truth, draws, 2, np.random.default_rng(1))


def test_an_atom_has_a_probability_and_no_density():
    theta = xr.DataArray([0.0, 0.5, 1.0])
    of = SpikeSlab(*map(xr.DataArray, (0.3, 1.0, 2.0)))
    expected = np.log([0.3, 0.7 * stats.norm.pdf(0.5, 1, 2), 0.7 * stats.norm.pdf(1, 1, 2)])
    np.testing.assert_allclose(log_densities(of, theta), expected)
    np.testing.assert_allclose(
        log_densities(Normal(xr.DataArray(1.0), xr.DataArray(2.0)), theta), stats.norm.logpdf(theta, 1, 2)
    )
