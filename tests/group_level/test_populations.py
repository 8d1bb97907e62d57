"""Populations against SciPy, from a point to a heavy tail."""

import numpy as np
import pytest
import xarray as xr
from scipy import integrate, special, stats
from scipy.optimize import brentq

from hbm_zoo.group_level.averages import exceedance, quantile
from hbm_zoo.group_level.populations import EXPIT, Beta, Gamma, Normal

MEANS = np.array([1.2, 1.25, 1.4])
RATES = np.array([0.22, 0.25, 0.31])


def samples(values):
    return xr.DataArray(np.asarray(values, dtype=float), dims="sample")


def gamma(cv):
    return Gamma(samples(MEANS), samples(np.full(3, cv))), stats.gamma(cv**-2, scale=MEANS * cv**2)


def normal(sd):
    return Normal(samples(MEANS), samples(np.full(3, sd))), stats.norm(MEANS, sd)


def beta(phi):
    return Beta(samples(RATES), samples(np.full(3, phi))), stats.beta(RATES / phi**2, (1 - RATES) / phi**2)


PAIRS = {f"gamma {cv:g}": gamma(cv) for cv in (1e-4, 0.03, 0.5, 1.0, 3.0)}
PAIRS |= {f"normal {sd:g}": normal(sd) for sd in (1e-6, 0.4, 3.0)}
PAIRS |= {f"beta {phi:g}": beta(phi) for phi in (1e-4, 0.03, 0.5, 1.0, 3.0)}


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


@pytest.mark.parametrize("phi", [1e-4, 0.1, 0.5, 2.0])
def test_log_density_of_a_beta(phi):
    ours, scipys = beta(phi)
    x = RATES + 0.5 * scipys.std()
    np.testing.assert_allclose(ours.log_density(samples(x)), scipys.logpdf(x), rtol=1e-10, atol=1e-7)


def test_a_beta_point():
    point = Beta(samples([0.2, 0.3, 0.4]), samples([0.0, 0.0, 0.0]))
    assert float(quantile(point, 0.5)) == 0.3
    assert float(exceedance(point, 0.25)) == pytest.approx(2 / 3)
    assert (point.sample(np.random.default_rng(0)) == point.mean).all()
    assert (point.ppf(0.9) == point.mean).all()
    np.testing.assert_array_equal(point.cdf(0.3), [1, 1, 0])


def test_points_and_betas_in_one_average():
    """Half of the draws are a point at 0.3: below it only the others count."""
    mixed = Beta(samples([0.3, 0.3]), samples([0.0, 0.2]))
    below = float(mixed.cdf(0.25).mean("sample"))
    assert below == pytest.approx(stats.beta(7.5, 17.5).cdf(0.25) / 2, rel=1e-12)
    assert float(quantile(mixed, below)) == pytest.approx(0.25, rel=1e-6)


@pytest.mark.parametrize("phi", [0.05, 0.7, 1.5])
def test_beta_draws(phi):
    draws = Beta(samples(np.full(20_000, 0.3)), samples(np.full(20_000, phi))).sample(np.random.default_rng(2))
    assert stats.kstest(draws.values, stats.beta(0.3 / phi**2, 0.7 / phi**2).cdf).pvalue > 1e-3


@pytest.mark.parametrize("sd", [1e-3, 0.3, 1.0, 3.0])
def test_a_share_whose_log_odds_are_normal(sd):
    """Mean and sd by scipy's adaptive quadrature; all else by the change of variable."""
    log_odds = stats.norm(-1.1, sd)
    share = Normal(samples([-1.1]), samples([sd])).map(EXPIT)
    mean, square = (
        integrate.quad(lambda z, k=k: special.expit(-1.1 + sd * z) ** k * stats.norm.pdf(z), -12, 12, epsabs=1e-13)[0]
        for k in (1, 2)
    )
    assert share.mean.item() == pytest.approx(mean, rel=1e-10)
    assert share.sd.item() == pytest.approx(np.sqrt(square - mean**2), rel=1e-6)
    for p in (0.02, 0.5, 0.97):
        x = special.expit(log_odds.ppf(p))
        assert share.ppf(p).item() == pytest.approx(x, rel=1e-12)
        assert share.cdf(x).item() == pytest.approx(p, rel=1e-10)
        density = log_odds.pdf(special.logit(x)) / (x * (1 - x))
        assert share.log_density(x).item() == pytest.approx(np.log(density), rel=1e-10)
        assert float(quantile(share, p)) == pytest.approx(x, rel=1e-6)
    assert share.cdf(-0.1).item() == share.cdf(0.0).item() == 0
    assert share.cdf(1.0).item() == share.cdf(1.1).item() == 1
    many = share.over(xr.DataArray(np.ones(20_000), dims="draw")).sample(np.random.default_rng(3))
    assert stats.kstest(special.logit(many.values.ravel()), log_odds.cdf).pvalue > 1e-3


def test_a_share_without_spread_is_a_point():
    point = Normal(samples([-1.0, 0.0, 2.0]), samples([0.0, 0.0, 0.0])).map(EXPIT)
    assert float(quantile(point, 0.5)) == pytest.approx(0.5, rel=1e-12)
    assert float(exceedance(point, 0.3)) == pytest.approx(2 / 3)
    np.testing.assert_allclose(point.sample(np.random.default_rng(0)), special.expit([-1.0, 0.0, 2.0]), rtol=1e-12)
