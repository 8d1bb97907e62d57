"""Quantiles of averages over draws, where the averaged distribution function is awkward."""

import numpy as np
import pytest
import xarray as xr
from scipy import stats
from scipy.optimize import brentq

from hbm_zoo.group_level import averages
from hbm_zoo.group_level.averages import quantile
from hbm_zoo.group_level.populations import Beta, Gamma, Normal, SpikeSlab
from hbm_zoo.group_level.weighted import Weighted

RNG = np.random.default_rng(5)
TAILS = (1e-4, 0.055, 0.5, 0.945, 1 - 1e-4)


def samples(values):
    return xr.DataArray(np.asarray(values, dtype=float), dims="sample")


def by_brentq(cdf, p, low, high):
    return brentq(lambda x: cdf(x).mean() - p, low, high, xtol=1e-15, rtol=1e-14)


@pytest.fixture(params=["rough", "two modes", "heavy tails"])
def draws(request):
    """Draws of mean and sd: from all alike to modes far from one another."""
    size = 400
    mean, sd = RNG.normal(1, 0.3, size), np.exp(RNG.normal(-1, 0.5, size))
    if request.param == "two modes":
        return np.where(np.arange(size) < 300, -20.0, 30.0) + mean, sd
    return (mean, sd) if request.param == "rough" else (mean, np.exp(RNG.normal(-1, 3, size)))


@pytest.mark.parametrize("p", TAILS)
def test_normals(draws, p):
    mean, sd = draws
    exact = by_brentq(stats.norm(mean, sd).cdf, p, -1e8, 1e8)
    assert float(quantile(Normal(samples(mean), samples(sd)), p)) == pytest.approx(exact, abs=1e-6 * sd.mean())


@pytest.mark.parametrize("p", TAILS)
def test_gammas_of_which_some_are_almost_points(p):
    mean, cv = np.exp(RNG.normal(0, 0.1, 400)), np.abs(RNG.normal(0, 0.3, 400))
    exact = by_brentq(stats.gamma(cv**-2, scale=mean * cv**2).cdf, p, 1e-9, 100)
    assert float(quantile(Gamma(samples(mean), samples(cv)), p)) == pytest.approx(exact, rel=1e-6)


@pytest.mark.parametrize("family", [Gamma, Normal, Beta])
def test_points_among_the_draws(family):
    """A quarter of the draws is a point at 0.3: whatever quantile is there is exactly there, else the others' own."""
    spread = np.where(np.arange(400) % 4, 0.1, 0.0)
    mixed = family(samples(np.full(400, 0.3)), samples(spread))
    others = family(samples([0.3]), samples([0.1]))
    up_to = float(others.cdf(0.3).item()) * 0.75
    assert float(quantile(mixed, up_to + 0.1)) == pytest.approx(0.3, rel=1e-6)
    assert float(quantile(mixed, 0.06)) == pytest.approx(others.ppf(0.08).item(), rel=1e-6)
    assert float(quantile(mixed, 0.94)) == pytest.approx(others.ppf(0.92).item(), rel=1e-6)


def test_a_draw_that_is_undefined_leaves_the_quantile_undefined():
    """It is not among the few draws that the search starts from."""
    mean = np.full((200, 2), [[1.0, 2.0]])
    mean[101, 1] = np.nan
    got = quantile(Normal(xr.DataArray(mean, dims=("sample", "site")), samples(np.full(200, 0.5))), 0.1)
    assert np.isnan(got.values).tolist() == [False, True]


@pytest.mark.parametrize("p", TAILS)
def test_nodes_are_steps(p):
    """The averaged distribution function of nodes jumps: no secant finds its quantile, brackets do."""
    theta = xr.DataArray(np.sort(RNG.normal(size=(50, 1)), axis=0), dims=("node", "coefficient"))
    weight = RNG.dirichlet(np.ones(50), size=200)
    ours = Weighted(theta, xr.DataArray(weight, dims=("sample", "node")))
    exact = theta.values[np.argmax(np.cumsum(weight.mean(axis=0)) >= p), 0]
    assert float(quantile(ours, p).item()) == pytest.approx(exact, rel=1e-6)


@pytest.mark.parametrize("p", [0.01, 0.2, 0.5, 0.7, 0.99])
def test_a_spike_between_slabs(p):
    null, mean, sd = RNG.beta(5, 5, 300), RNG.normal(0, 0.5, 300), RNG.uniform(0.1, 1, 300)

    def cdf(x):
        return null * (x >= 0) + (1 - null) * stats.norm(mean, sd).cdf(x)

    below, up_to = cdf(-1e-300).mean(), cdf(0).mean()
    exact = 0.0 if below < p <= up_to else by_brentq(cdf, p, *((-20, -1e-300) if p <= below else (0, 20)))
    assert float(quantile(SpikeSlab(*map(samples, (null, mean, sd))), p)) == pytest.approx(exact, abs=1e-7)


@pytest.mark.parametrize("family", [Normal, Gamma])
def test_few_passes_over_all_draws(monkeypatch, family):
    """What a search costs: that of a root between brackets is a dozen, and the quantile of each draw."""
    shape = (2000, 30)
    mean, sd = np.exp(RNG.normal(0, 0.1, shape)), np.exp(RNG.normal(-1.5, 0.3, 2000))
    passes, cdf = [], averages._Average.cdf
    monkeypatch.setattr(
        averages._Average,
        "cdf",
        lambda self, x, which=slice(None): passes.append(x.size * len(self.sd)) or cdf(self, x, which),
    )
    quantile(family(xr.DataArray(mean, dims=("sample", "site")), samples(sd)), 0.055)
    assert sum(passes) < 6 * mean.size
