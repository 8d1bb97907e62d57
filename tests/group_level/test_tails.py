"""Tails of groups whose parameter is integrated numerically, against SciPy, quadrature, identities and limits."""

import numpy as np
import pytest
import xarray as xr
from scipy import special, stats

import hbm_zoo as hz
from hbm_zoo.group_level import heavy_tails, logit_binomial
from hbm_zoo.models import own_checks

Z = np.linspace(-13, 13, 40_001)
WEIGHT = stats.norm.pdf(Z) * (Z[1] - Z[0])
SUCCESSES = {1: (0, 1), 5: (0, 2, 5), 300: (0, 3, 90, 300), 1_000_000: (0, 7, 300_000, 999_999)}


def named(*values):
    return [xr.DataArray(value) for value in values]


# Successes, their log odds normal.


@pytest.mark.parametrize("tau", [1e-9, 0.01, 0.2, 0.3, 1.0, 4.0])
@pytest.mark.parametrize("n", [1, 5, 300, 1_000_000])
def test_tails_of_shares_are_those_of_quadrature(n, tau):
    """Over z, finely, of incomplete betas; far from the middle too, to 3e-14."""
    for y in SUCCESSES[n]:
        away = np.array([-6.0, -2.0, 0.0, 1.0, 5.0]) * np.hypot(tau, 1 / np.sqrt(0.3 + min(y, n - y)))
        mu = xr.DataArray(special.logit((y + 0.5) / (n + 1)) + away, dims="sample")
        lower, upper = logit_binomial.tails(*named(y, n), mu, xr.full_like(mu, tau))
        p = special.expit(mu.values[:, None] + tau * Z)
        exact = special.betainc(max(n - y, 1), y + 1.0, 1 - p), special.betainc(max(y, 1), n - y + 1.0, p)
        for found, each, certain in ((lower, exact[0], y == n), (upper, exact[1], y == 0)):
            np.testing.assert_allclose(found, 1.0 if certain else (WEIGHT * each).sum(axis=1), rtol=3e-5, atol=3e-14)


def test_shares_without_spread_are_binomial():
    y, n, mu = (xr.DataArray(v, dims="unit") for v in ([0, 3, 45, 60], [10, 45, 45, 10**8], [-1.0, 0.2, 3.0, -14.0]))
    law = stats.binom(n.values, special.expit(mu.values))
    lower, upper = logit_binomial.tails(y, n, mu, xr.DataArray(0.0))
    np.testing.assert_allclose(lower, law.cdf(y.values), rtol=1e-8)
    np.testing.assert_allclose(upper, law.sf(y.values - 1), rtol=1e-8)


@pytest.mark.slow
def test_the_two_tails_of_a_share_count_what_was_seen_twice():
    """P(Y <= y) + P(Y >= y) is 1 + P(y), the density that is sampled, on either side of where nodes change."""
    record = hz.success_rates.MODEL.under(population="logit-normal")
    frame, _ = record.simulate(np.random.default_rng(1), units=12)
    data = record.data(frame)
    h = xr.Dataset({"mu": ("sample", [-1.0, 0.4]), "tau": ("sample", [0.02, 0.7])})
    lower, upper = record.group_level.tails(h, data)
    density = np.exp(record.group_level.log_left_out(h, data))
    xr.testing.assert_allclose((lower + upper - 1).transpose(*density.dims), density, rtol=0, atol=1e-9)


def test_risks_of_hospitals_are_shares_at_their_own_log_odds():
    record = hz.hospital_readmission.MODEL.under(noise="binomial")
    frame, _ = record.simulate(np.random.default_rng(2), hospitals=8)
    data = record.data(frame)
    h = xr.Dataset({"mu": 0.1, "tau": 0.3})
    lower, _ = record.group_level.tails(h, data)
    at = special.logit((frame["expected"] / frame["discharges"]).to_numpy()) + 0.1
    for j in range(8):
        law = stats.binom(frame["discharges"][j], special.expit(at[j] + 0.3 * Z))
        assert float(lower[j]) == pytest.approx(WEIGHT @ law.cdf(frame["observed"][j]), rel=1e-6)
    none = WEIGHT @ stats.binom.pmf(0, frame["discharges"].to_numpy()[:, None], special.expit(at[:, None] + 0.3 * Z)).T
    assert own_checks.expected_zeros_of_shares(h, data) == pytest.approx(none.sum(), rel=1e-6)


# Effects, of a population that is t.


@pytest.mark.parametrize("nu", [2.02, 4.0, 30.0, 1000.0])
def test_tails_of_a_t_population_are_those_of_quadrature(nu):
    y = xr.DataArray([-20.0, -8.0, -0.5, 0.0, 2.0, 12.0], dims="clinic")
    for tau in (0.01, 0.5, 1.0, 30.0):
        lower, upper = heavy_tails.tails(y, *named(1.0, 0.0, tau, nu))
        exact = (WEIGHT * stats.t.cdf((y.values[:, None] - Z) / tau, nu)).sum(axis=1)
        np.testing.assert_allclose(lower, exact, rtol=1e-6, atol=1e-30)
        np.testing.assert_allclose(lower + upper, 1, rtol=1e-12)


def test_a_t_population_without_spread_or_with_many_degrees_of_freedom_is_normal():
    record = hz.vaccine_clinics.MODEL.under(population="student-t")
    data = record.data(hz.load_data("bcg_vaccine"))
    normal = hz.vaccine_clinics.MODEL.group_level
    for tau, nu in ((0.0, 1.0), (0.4, 1e7)):
        h = xr.Dataset({"mu": -0.7, "tau": tau, "nu_above_2": nu})
        for found, exact in zip(record.group_level.tails(h, data), normal.tails(h, data), strict=True):
            np.testing.assert_allclose(found, exact, rtol=1e-12 if tau == 0 else 1e-5)


def test_tails_are_of_the_location_that_moderators_move():
    record, frame = hz.vaccine_clinics.MODEL.under(population="student-t"), hz.load_data("bcg_vaccine")
    moved, _ = record.split({"moderators": ["latitude"]}, frame)
    h = xr.Dataset({"mu": -0.7, "tau": 0.3, "nu_above_2": 2.0, "beta_latitude": -0.03})
    found = moved.group_level.tails(h, moved.data(frame))
    x = (frame["latitude"] - frame["latitude"].mean()).to_numpy()
    each = record.group_level.tails(h.assign(mu=("clinic", -0.7 - 0.03 * x)), record.data(frame))
    for tail, expected in zip(found, each, strict=True):
        np.testing.assert_allclose(tail, expected, rtol=1e-12)
