import numpy as np
import pytest
import xarray as xr
from arviz_stats.base import array_stats
from scipy import stats
from scipy.special import logsumexp

from hbm_zoo.inference.loo import EVEN_WEIGHTS, bridge, leave_one_out, smoothed


@pytest.fixture(scope="module")
def samples():
    """Weighted samples, and the log likelihood of a unit that matters and of two that hardly do."""
    rng = np.random.default_rng(1)
    x = rng.standard_t(5, 4000)
    log_ratios = -(x**2) / 2 + 3 * np.log1p(x**2 / 5)
    values = np.array([-((x - 3) ** 2) / 2, -1 - 0.04 * np.tanh(x), np.full(x.size, -2.0)])
    return xr.DataArray(values, dims=("unit", "sample")), xr.DataArray(log_ratios, dims="sample")


def test_a_unit_that_matters_is_smoothed_by_itself(samples):
    values, log_ratios = samples
    found = leave_one_out(values, log_ratios=log_ratios).isel(unit=0)
    log_weights, k_hat = smoothed((log_ratios - values[0]).values[None])
    assert found["elpd"].item() == logsumexp(log_weights[0] + values[0].values)
    assert found["k_hat"].item() == k_hat[0]


def test_units_that_hardly_matter_leave_the_tail_of_the_weights_as_it_is(samples):
    values, log_ratios = samples
    found = leave_one_out(values, log_ratios=log_ratios)
    _, k_hat = smoothed(log_ratios.values[None])
    assert np.ptp(values[1].values) < EVEN_WEIGHTS
    assert (found["k_hat"][1:] == k_hat[0]).all()
    for unit in (1, 2):
        log_weights, _ = smoothed((log_ratios - values[unit]).values[None])
        alone = logsumexp(log_weights[0] + values[unit].values)
        assert found["elpd"][unit].item() == pytest.approx(alone, abs=1e-5)
    assert found["elpd"][2].item() == pytest.approx(-2)


def test_even_weights_and_units_that_hardly_matter_have_no_tail(samples):
    values, _ = samples
    assert (leave_one_out(values[1:])["k_hat"] == -np.inf).all()


def test_a_tail_that_ends_near_the_mean_of_the_weights_is_bounded_however_it_is_shaped():
    """Most of the tail lies on a plateau, the rest a quarter of a nat above: by its shape alone k-hat is above 2."""
    x = np.random.default_rng(1).normal(size=8000)
    plateau = 0.2 - 1e-4 * x**2 - 30 * np.maximum(x - 1.5, 0) ** 2
    log_ratios = np.where(x > -2.2, plateau, 0.2 + 0.25 * np.exp(-((x + 3) ** 2)))
    assert array_stats.psislw(-log_ratios)[1] > 0.7
    log_weights, k_hat = smoothed(log_ratios[None])
    assert k_hat[0] == 0
    np.testing.assert_allclose(log_weights[0], log_ratios - logsumexp(log_ratios), rtol=1e-12)


def test_a_tail_that_does_not_end_is_not_taken_for_one():
    log_ratios = np.log1p(stats.genpareto(1.2).rvs(4000, random_state=3))
    assert smoothed(log_ratios[None])[1][0] > 0.7


def test_a_bridge_between_draws_that_never_meet_says_so():
    """Where densities of the unit differ by e^2000 no draw of one side is one of the other."""
    rng = np.random.default_rng(2)
    apart = -2000 + rng.standard_normal(100), rng.standard_normal(100)
    assert bridge(*apart)[1] == np.inf
    assert np.isfinite(bridge(apart[0] + 900, apart[1])[1]), "shares of 1e-240, whose squares are nothing"
