"""Draws of a posterior on coarse integrals, reweighted to that of the fine ones."""

from types import SimpleNamespace

import numpy as np
import pytest
import xarray as xr
from scipy import stats

from hbm_zoo.inference.convergence import K_HAT_MOST, convergence
from hbm_zoo.inference.nodes import reweighted


def record_of(log_ratio):
    """A model whose sampler has log likelihood 0, and whose tables have another."""
    level = SimpleNamespace(
        log_joint=lambda h, data: log_ratio(h.mu),
        log_sampled=lambda h, data: xr.zeros_like(h.mu),
        independent=False,
        cells=lambda data: 1,
    )
    return SimpleNamespace(parameters={"mu": None, "tau": None}, group="unit", group_level=level)


def drawn(seed=1):
    mu = np.random.default_rng(seed).normal(size=(4, 2000))
    posterior = xr.Dataset(
        {"mu": (("chain", "draw"), mu), "order": (("chain", "draw"), np.tile(np.arange(2000), (4, 1)))}
    )
    return xr.DataTree.from_dict({"posterior": posterior.assign_coords(chain=range(4), draw=range(2000))})


def log_ratio_to(mean, sd):
    return lambda mu: xr.zeros_like(mu) + stats.norm(mean, sd).logpdf(mu) - stats.norm.logpdf(mu)


def test_reweighted_draws_are_of_the_other_posterior():
    tree = drawn()
    k_hat = reweighted(record_of(log_ratio_to(0.5, 0.8)), tree, xr.Dataset(), {"tau": 1.0}, seed=2)
    posterior = tree["posterior"]
    assert k_hat < K_HAT_MOST
    # The effective draws of these weights are 1 / E w^2, about 0.58 of all.
    error = 0.8 / np.sqrt(0.58 * 8000)
    assert float(posterior["mu"].mean()) == pytest.approx(0.5, abs=4 * error)
    assert float(posterior["mu"].std()) == pytest.approx(0.8, abs=4 * error)
    assert dict(posterior.sizes) == {"chain": 4, "draw": 2000}
    assert (posterior["order"].diff("draw") >= 0).all()  # what follows what in a chain stays


def test_nearly_even_weights_have_no_tail():
    """One draw in a thousand weighs twice the mean, whatever a Pareto of that tail says."""
    tree = drawn()
    assert reweighted(record_of(lambda mu: 0.7 * (mu > 3)), tree, xr.Dataset(), {"tau": 1.0}, seed=2) == -np.inf
    assert float(tree["posterior"]["mu"].std()) == pytest.approx(1, abs=0.05)


def test_a_draw_that_weighs_as_much_as_all_others_raises_an_alarm():
    """Whether its tail has one value or several."""
    assert reweighted(record_of(lambda mu: 9.0 * (mu > 3)), drawn(), xr.Dataset(), {"tau": 1.0}, seed=2) > K_HAT_MOST


def test_draws_that_cannot_stand_for_the_posterior_raise_an_alarm():
    tree = drawn()
    assert reweighted(record_of(log_ratio_to(4.0, 0.3)), tree, xr.Dataset(), {"tau": 1.0}, seed=2) > K_HAT_MOST


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_integrals_without_a_number_leave_the_draws_and_raise_an_alarm(value):
    tree, before = drawn(), drawn()["posterior"].to_dataset()
    undefined = record_of(lambda mu: (0 * mu).where(mu < 3, value))
    assert reweighted(undefined, tree, xr.Dataset(), {"tau": 1.0}, seed=2) == np.inf
    xr.testing.assert_identical(tree["posterior"].to_dataset(), before)


@pytest.mark.parametrize(("k_hat", "passed"), [(0.5, True), (0.9, False), (np.inf, False)])
def test_a_large_k_hat_fails_the_fit(k_hat, passed):
    rng = np.random.default_rng(3)
    stats_of = {
        "diverging": np.zeros((4, 2000), bool),
        "maxdepth_reached": np.zeros((4, 2000), bool),
        "energy": rng.normal(size=(4, 2000)),
    }
    tree = drawn()
    tree["posterior"] = xr.DataTree(tree["posterior"].to_dataset()[["mu"]])
    tree["sample_stats"] = xr.DataTree(xr.Dataset({n: (("chain", "draw"), v) for n, v in stats_of.items()}))
    tree.attrs["k_hat"] = k_hat
    if passed:
        assert convergence(tree)["passed"].all()
        return
    with pytest.warns(UserWarning, match="k-hat .* of the integrals is above 0.7"):
        assert not convergence(tree)["passed"].any()
