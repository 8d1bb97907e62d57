"""Populations against SciPy, from a point to a heavy tail."""

import numpy as np
import pytest
import xarray as xr
from scipy import stats
from scipy.optimize import brentq

from hbm_zoo.group_level.populations import Gamma, Normal, exceedance, quantile

MEANS = np.array([1.2, 1.25, 1.4])


def samples(values):
    return xr.DataArray(np.asarray(values, dtype=float), dims="sample")


def gamma(cv):
    return Gamma(samples(MEANS), samples(np.full(3, cv))), stats.gamma(cv**-2, scale=MEANS * cv**2)


def normal(sd):
    return Normal(samples(MEANS), samples(np.full(3, sd))), stats.norm(MEANS, sd)


PAIRS = {f"gamma {cv:g}": gamma(cv) for cv in (1e-4, 0.03, 0.5, 1.0, 3.0)}
PAIRS |= {f"normal {sd:g}": normal(sd) for sd in (1e-6, 0.4, 3.0)}


@pytest.mark.parametrize("name", PAIRS)
def test_one_population_is_scipys(name):
    ours, scipys = PAIRS[name]
    np.testing.assert_allclose(ours.sd, scipys.std(), rtol=1e-9)
    for p in (0.01, 0.3, 0.9):
        x = scipys.ppf(p)
        np.testing.assert_allclose(ours.ppf(p), x, rtol=1e-8)
        np.testing.assert_allclose(ours.cdf(x), scipys.cdf(x), atol=1e-8)


@pytest.mark.parametrize("name", PAIRS)
@pytest.mark.parametrize("p", [0.055, 0.5, 0.945])
def test_quantile_of_an_average_of_populations(name, p):
    ours, scipys = PAIRS[name]
    ends = scipys.ppf(p)
    exact = brentq(
        lambda x: scipys.cdf(x).mean() - p, ends.min() - scipys.std()[0], ends.max() + scipys.std()[0], xtol=1e-14
    )
    assert float(quantile(ours, p)) == pytest.approx(exact, rel=1e-6, abs=1e-6 * scipys.std()[0])


@pytest.mark.parametrize("name", PAIRS)
def test_exceedance_of_an_average_of_populations(name):
    ours, scipys = PAIRS[name]
    for threshold in (1.0, 1.3):
        assert float(exceedance(ours, threshold)) == pytest.approx(scipys.sf(threshold).mean(), abs=1e-8)


@pytest.mark.parametrize("family", [Gamma, Normal])
def test_a_point_is_a_number_not_a_limit(family):
    point = family(samples([0.8, 1.0, 1.4]), samples([0.0, 0.0, 0.0]))
    assert float(quantile(point, 0.5)) == 1.0
    assert float(exceedance(point, 0.9)) == pytest.approx(2 / 3)
    assert (point.sample(np.random.default_rng(0)) == point.mean).all()


def test_groups_keep_their_place():
    """Dims and coordinates of the groups survive; each group's quantile is its own."""
    mean = samples([1.0, 2.0]) * xr.DataArray([1.0, 10.0], dims="hospital", coords={"hospital": ["A", "B"]})
    got = quantile(Gamma(mean, samples([0.2, 0.3])), 0.5)
    assert got.dims == ("hospital",)
    assert list(got.hospital.values) == ["A", "B"]
    assert float(got.sel(hospital="B")) == pytest.approx(10 * float(got.sel(hospital="A")), rel=1e-6)


@pytest.mark.parametrize("cv", [0.05, 0.7, 2.0])
def test_gamma_draws(cv):
    draws = Gamma(samples(np.full(20_000, 1.3)), samples(np.full(20_000, cv))).sample(np.random.default_rng(2))
    assert stats.kstest(draws.values, stats.gamma(cv**-2, scale=1.3 * cv**2).cdf).pvalue > 1e-3
