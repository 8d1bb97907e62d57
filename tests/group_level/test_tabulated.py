"""Hat weights and what a tabulated likelihood makes of a normal population, against SciPy's quadrature."""

import numpy as np
import pytensor.tensor as pt
import pytest
import xarray as xr
from scipy import integrate, stats

from hbm_zoo.group_level.populations import Normal
from hbm_zoo.group_level.reported import ABSOLUTE, EXP
from hbm_zoo.group_level.tabulated import log_integral, placed
from hbm_zoo.group_level.tilted import Tilted

RNG = np.random.default_rng(1)
HALF, HEIGHT = np.sort(RNG.uniform(0.1, 4, 7)), RNG.uniform(0.01, 1, 8)
NODE, LOGS = np.r_[-HALF[::-1], 0, HALF], np.log(np.r_[HEIGHT[:0:-1], HEIGHT])
POPULATIONS = [(0.5, 0.3), (1.0, 1e-3), (0.0, 0.7), (2.0, 3.0), (-1.0, 0.5), (5.0, 0.4)]


def tilted(mu, tau):
    return Tilted(*map(xr.DataArray, (mu, tau)), *(xr.DataArray(x, dims="node") for x in (NODE, LOGS)))


def integral(g, mu, tau, low=-np.inf, high=np.inf):
    """Of g times likelihood times population, piece by piece."""
    around = np.r_[mu + tau * np.array([-6, -2, 0, 2, 6]), NODE, -NODE]
    ends = [max(low, mu - 12 * tau - 6), *sorted(around), min(high, mu + 12 * tau + 6)]
    ends = [x for x in ends if ends[0] <= x <= ends[-1]]

    def f(a):
        return g(a) * np.exp(np.interp(a, NODE, LOGS)) * stats.norm.pdf(a, mu, tau)

    return sum(integrate.quad(f, *pair, epsabs=0, epsrel=1e-12)[0] for pair in zip(ends, ends[1:], strict=False))


@pytest.mark.parametrize(("mu", "tau"), POPULATIONS)
def test_the_sum_over_nodes_is_the_integral(mu, tau):
    expected = np.log(integral(lambda a: 1.0, mu, tau))
    assert tilted(mu, tau).log_mass.item() == pytest.approx(expected, abs=1e-9)
    found = log_integral(pt.constant(mu), pt.constant(tau), NODE[None], LOGS[None]).eval()
    assert found.item() == pytest.approx(expected, abs=1e-9)


@pytest.mark.parametrize(("mu", "tau"), POPULATIONS)
def test_weights_average_what_is_linear_between_nodes(mu, tau):
    W, values = tilted(mu, tau).weights(), RNG.uniform(0, 1, NODE.size)
    assert float(W.sum()) == pytest.approx(1, abs=1e-12)
    assert (W >= 0).all()
    mean = integral(lambda a: np.interp(a, NODE, values), mu, tau) / integral(lambda a: 1.0, mu, tau)
    assert float((W * values).sum()) == pytest.approx(mean, rel=1e-8)


@pytest.mark.parametrize(("mu", "tau"), POPULATIONS)
def test_moments_and_quantiles_are_the_integrals(mu, tau):
    after, mass = tilted(mu, tau), integral(lambda a: 1.0, mu, tau)
    mean = integral(lambda a: a, mu, tau) / mass
    assert after.mean.item() == pytest.approx(mean, rel=1e-9, abs=1e-12)
    sd = np.sqrt(integral(lambda a: (a - mean) ** 2, mu, tau) / mass)
    assert after.sd.item() == pytest.approx(sd, rel=1e-8)
    x = after.ppf(0.3).item()
    assert integral(lambda a: 1.0, mu, tau, high=x) / mass == pytest.approx(0.3, abs=1e-9)
    assert after.cdf(x).item() == pytest.approx(0.3, abs=1e-9)
    density = np.exp(np.interp(x, NODE, LOGS)) * stats.norm.pdf(x, mu, tau) / mass
    assert np.exp(after.log_density(x).item()) == pytest.approx(density, rel=1e-8)
    logs = integral(lambda a: np.interp(a, NODE, LOGS), mu, tau) / mass
    assert after.mean_log_likelihood().item() == pytest.approx(logs, rel=1e-8)


@pytest.mark.parametrize(("mu", "tau"), POPULATIONS)
@pytest.mark.parametrize(("estimand", "function"), [(ABSOLUTE, abs), (EXP, np.exp)])
def test_what_is_reported_has_the_moments_of_the_function(mu, tau, estimand, function):
    reported, mass = tilted(mu, tau).map(estimand), integral(lambda a: 1.0, mu, tau)
    mean = integral(function, mu, tau) / mass
    square = integral(lambda a: (function(a) - mean) ** 2, mu, tau) / mass
    assert reported.mean.item() == pytest.approx(mean, rel=1e-8)
    assert reported.sd.item() == pytest.approx(np.sqrt(square), rel=1e-5)
    for p in (0.05, 0.6):
        assert reported.cdf(reported.ppf(p)).item() == pytest.approx(p, abs=1e-8)
    x = reported.ppf(0.6).item()
    step = 1e-5 * x
    slope = (reported.cdf(x + step) - reported.cdf(x - step)).item() / (2 * step)
    assert np.exp(reported.log_density(x).item()) == pytest.approx(slope, rel=1e-3)


@pytest.mark.parametrize("estimand", [ABSOLUTE, EXP])
def test_before_the_data_it_is_that_of_a_normal(estimand):
    """SciPy's folded and log normal."""
    before = Normal(xr.DataArray(0.8), xr.DataArray(0.5)).map(estimand)
    known = stats.foldnorm(1.6, scale=0.5) if estimand is ABSOLUTE else stats.lognorm(0.5, scale=np.exp(0.8))
    found = [before.mean, before.sd, before.cdf(1.1), before.ppf(0.2), before.log_density(1.1)]
    expected = [known.mean(), known.std(), known.cdf(1.1), known.ppf(0.2), known.logpdf(1.1)]
    np.testing.assert_allclose([each.item() for each in found], expected, rtol=1e-9)


@pytest.mark.parametrize("estimand", [ABSOLUTE, EXP])
def test_no_spread_is_a_point(estimand):
    point = tilted(-1.0, 0.0)
    assert (point.mean.item(), point.sd.item(), point.ppf(0.2).item()) == (-1.0, 0.0, -1.0)
    reported = point.map(estimand)
    np.testing.assert_allclose([reported.mean, reported.ppf(0.9)], estimand(-1.0), rtol=1e-12)
    assert reported.sd.item() == 0
    assert point.log_mass.item() == pytest.approx(np.interp(-1.0, NODE, LOGS), rel=1e-12)
    assert float((point.weights() * LOGS).sum()) == pytest.approx(np.interp(-1.0, NODE, LOGS), rel=1e-12)
    found = log_integral(pt.constant(-1.0), pt.constant(0.0), NODE[None], LOGS[None]).eval()
    assert found.item() == pytest.approx(np.interp(-1.0, NODE, LOGS), rel=1e-12)


def test_draws_have_the_quantiles():
    draws = tilted(0.5, 0.7).over(xr.DataArray(np.ones(20_000), dims="sample")).sample(np.random.default_rng(2))
    expected = [tilted(0.5, 0.7).ppf(p).item() for p in (0.1, 0.5, 0.9)]
    below = [(draws <= x).mean().item() for x in expected]
    np.testing.assert_allclose(below, [0.1, 0.5, 0.9], atol=4 * 0.5 / np.sqrt(20_000))


def test_nodes_lie_where_a_likelihood_bends():
    wide = np.r_[0, np.geomspace(0.01, 30, 300)]
    narrow = -(((wide - 1) / 0.1) ** 2) / 2
    node = placed(wide, narrow, 41)
    assert ((node > 0.6) & (node < 1.4)).sum() >= 10
    assert (np.diff(node) > 0).all()
    assert (node[0], node[-1]) == (0, 30)


@pytest.mark.parametrize("tau", [0.0, 1e-6, 0.3, 2.0])
@pytest.mark.parametrize("away", [0.0, 5.0, 30.0])
def test_a_normal_likelihood_is_known_far_from_its_top(tau, away):
    """Of an error of 0.1: the marginal is a normal density, to .02 nats, and so is what is known after the data."""
    wide = np.unique(np.r_[np.linspace(-8, 8, 400), np.sinh(np.linspace(-5, 5, 161)) / 20])
    node = placed(wide, stats.norm(0, 0.1).logpdf(wide), 129)
    after = Tilted(
        *map(xr.DataArray, (0.1 * away, tau)), *(xr.DataArray(x, dims="node") for x in (node, -50 * node**2))
    )
    exact = stats.norm(0, np.hypot(tau, 0.1)).logpdf(0.1 * away) - stats.norm(0, 0.1).logpdf(0)
    assert after.log_mass.item() == pytest.approx(exact, abs=0.005 * (1 + away / 2) ** 2)
    found = log_integral(pt.constant(0.1 * away), pt.constant(tau), node[None], -50 * node[None] ** 2).eval()
    assert found.item() == pytest.approx(after.log_mass.item(), abs=1e-8)
    weight = 1 / (1 + (tau / 0.1) ** 2)
    assert after.mean.item() == pytest.approx(weight * 0.1 * away, abs=0.01 * np.sqrt(weight) * tau + 1e-9)
    assert after.sd.item() == pytest.approx(np.sqrt(weight) * tau, rel=0.02, abs=1e-9)
    assert after.cdf(after.ppf(0.3)).item() == pytest.approx(0.3 if tau else 1.0, abs=1e-9)
