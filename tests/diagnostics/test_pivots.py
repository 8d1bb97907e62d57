"""Scores of groups in draws of a posterior: their law, p values that hold, populations that have another shape."""

import json

import numpy as np
import pytest
import xarray as xr
from scipy import stats

import hbm_zoo as hz
from hbm_zoo.diagnostics import pivots
from hbm_zoo.group_level.checks import Check, normality

MODEL = hz.reaction_norms.MODEL
SHAPE = Check(compares="W", statistic=normality, fewer="not normal", of_draws=True)


def known_at(frame, h, draws=40):
    """A fit whose posterior is one point: groups are known exactly given it."""
    shape = {name: (("chain", "draw"), np.full((1, draws), float(value))) for name, value in h.items()}
    fit = xr.DataTree.from_dict({"posterior": xr.Dataset(shape), "constant_data": MODEL.data(frame)})
    fit.attrs |= {"model": MODEL.name, "pooling": "partial", "fixed": "{}", "seed": 1}
    fit.attrs |= {"hyperparameters": json.dumps(list(MODEL.parameters)), "options": "{}"}
    return fit


@pytest.fixture(autouse=True)
def few_sets(monkeypatch):
    """For speed."""
    monkeypatch.setattr(pivots, "SETS", 199)


def lines(genotypes, seed=1):
    frame, truth = MODEL.simulate(np.random.default_rng(seed), genotypes=genotypes, environments=4)
    return frame, {name: float(truth[name]) for name in MODEL.parameters}


def test_scores_of_a_right_model_are_standard_normal_and_of_a_narrower_population_are_not():
    """However much its shrinkage is: of intercepts next to none, of slopes much."""
    frame, h = lines(600)
    right = pivots.scores_in_draws(MODEL, known_at(frame, h, 5), np.random.default_rng(2))
    named = dict(pivots.by_coefficient(right, "theta"))
    assert len(named) == 2
    for scores in named.values():
        assert stats.kstest(scores.isel(sample=0), "norm").pvalue > 0.01
    narrow = {name: value / 1.5 if name.startswith("tau") else value for name, value in h.items()}
    wrong = pivots.scores_in_draws(MODEL, known_at(frame, narrow, 5), np.random.default_rng(2))
    assert any(stats.kstest(s.isel(sample=0), "norm").pvalue < 1e-3 for _, s in pivots.by_coefficient(wrong, "theta"))


@pytest.mark.parametrize("told", [1.0, 0.5, 0.0], ids=["told by the data", "half", "not at all"])
def test_twice_the_mean_p_holds_however_draws_depend_on_one_another(told):
    """At most one alarm in twenty where scores of each draw are standard normal: 100 data sets of 12 groups."""
    rng, p = np.random.default_rng(3), []
    for _ in range(100):
        both = rng.standard_normal(12), rng.standard_normal((10, 12))
        z = np.sqrt(told) * both[0] + np.sqrt(1 - told) * both[1]
        p.append(pivots.compared(SHAPE, z, 1.0, rng).p["fewer"])
    alarms = (np.array(p) < 0.05).sum()
    assert stats.binomtest(int(alarms), 100, 0.05, alternative="greater").pvalue > 0.01
    assert np.mean(p) > 0.5


def test_one_group_far_out_and_two_kinds_are_seen():
    rng = np.random.default_rng(4)
    noise = 0.2 * rng.standard_normal((50, 12))
    far = np.append(rng.standard_normal(11), 8.0)
    kinds = np.repeat([-1.0, 1.0], 6) + 0.1 * rng.standard_normal(12)
    for z in (far, kinds):
        found = pivots.compared(SHAPE, z + noise, 1.0, rng)
        assert found.p["fewer"] < 0.05
        assert found.seen < np.quantile(found.drawn, 0.05)


def test_a_statistic_of_draws_has_the_monte_carlo_error_that_it_says():
    """Again with other draws and other standard normals."""
    truth = np.append(np.random.default_rng(5).standard_normal(11), 4.5)
    again = []
    for seed in range(40):
        rng = np.random.default_rng([6, seed])
        again.append(pivots.compared(SHAPE, 0.7 * truth + 0.7 * rng.standard_normal((30, 12)), 1.0, rng))
    spread, said = np.std([one.p["fewer"] for one in again]), np.mean([one.p_mcse["fewer"] for one in again])
    assert 0.6 < spread / said < 1.5


def test_w_of_a_sample_is_near_that_of_shapiro_and_wilk():
    rng = np.random.default_rng(8)
    for z in rng.standard_normal((5, 40)):
        assert normality(None, None, 3 * z - 1) == pytest.approx(stats.shapiro(z).statistic, abs=0.02)


def test_of_fewer_than_three_groups_nothing_is_said():
    assert normality(None, None, np.array([0.3, -2.0])) == normality(None, None, np.zeros(5)) == 1.0
    found = pivots.compared(SHAPE, np.array([[0.3, -9.0]]), 1.0, np.random.default_rng(7))
    assert found.p["fewer"] == 1.0


@pytest.mark.slow
def test_scores_of_fitted_posteriors_are_standard_normal_over_truths_and_data():
    """A hundred and fifty truths and data sets from priors, fitted: the first draw of each, ten clinics."""
    record = hz.vaccine_clinics.MODEL
    frame, _ = record.simulate(np.random.default_rng(8), clinics=10)
    priors, rng, scores = record.priors(record.data(frame), pooling="partial"), np.random.default_rng(9), []
    for seed in range(150):
        mu, tau = (moment(priors, name, rng) for name in ("mu", "tau"))
        effect = rng.normal(mu + tau * rng.standard_normal(10), frame["standard_error"])
        fit = hz.fit(record, frame.assign(effect=effect), priors=priors, draws=100, random_seed=seed, progressbar=False)
        scores.append(pivots.scores_in_draws(record, fit, rng).isel(sample=0).values)
    assert stats.kstest(np.ravel(scores), "norm").pvalue > 0.01
    assert np.var(scores) == pytest.approx(1, abs=4 * np.sqrt(2 / 1500))


def moment(priors, name, rng):
    """A draw of mu or tau, whose priors are normal and half normal."""
    number = priors[name].parameters
    drawn = rng.normal(number.get("mu", 0.0), number["sigma"])
    return drawn if priors[name].distribution == "Normal" else abs(drawn)
