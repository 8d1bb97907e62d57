"""Checks on data in which something is wrong, and on the same where nothing is: they must tell them apart."""

import numpy as np
import pandas as pd
import pytest

import hbm_zoo as hz
from hbm_zoo.diagnostics import replicas


@pytest.fixture(autouse=True)
def few_replicates(monkeypatch):
    """No test reads an interval; p values end as they do."""
    monkeypatch.setattr(replicas, "LEAST", 19)


def rejected(model, frame, pooling="partial", **options):
    """The checks that a fit does not pass."""
    fit = hz.fit(model, frame, pooling, random_seed=1, progressbar=False, **options)
    return hz.check_model(fit).attrs["rejected"].get(pooling, [])


@pytest.mark.slow
def test_two_populations_of_log_odds_are_seen():
    rng = np.random.default_rng(1)
    units = pd.DataFrame({"unit": range(40), "trials": 200})
    options = {"population": "logit-normal"}
    one = units.assign(successes=rng.binomial(200, 1 / (1 + np.exp(1 - 0.5 * rng.standard_normal(40)))))
    two = units.assign(successes=rng.binomial(200, np.where(np.arange(40) < 20, 0.1, 0.6)))
    assert rejected("success_rates", one, **options) == []
    assert "tails" in rejected("success_rates", two, **options)


@pytest.mark.slow
def test_risks_that_differ_and_hospitals_that_report_nothing_are_seen_under_binomial_noise():
    rng = np.random.default_rng(2)
    hospitals = pd.DataFrame({"hospital": range(30), "discharges": 300, "expected": 60.0})
    alike = hospitals.assign(observed=rng.binomial(300, 0.2, 30))
    differ = hospitals.assign(observed=rng.binomial(300, 0.2 * np.exp(0.3 * rng.standard_normal(30))))
    silent = alike.assign(observed=alike["observed"].where(np.arange(30) > 2, 0))
    options = {"noise": "binomial"}
    assert rejected("hospital_readmission", alike, "complete", **options) == []
    assert "spread" in rejected("hospital_readmission", differ, "complete", **options)
    assert "zeros" in rejected("hospital_readmission", silent, **options)


@pytest.mark.slow
def test_two_populations_of_clinics_are_none_that_is_t_and_one_that_is_t_is():
    rng = np.random.default_rng(3)
    clinics = pd.DataFrame({"clinic": range(30), "standard_error": 0.2})
    heavy = clinics.assign(effect=rng.normal(0.5 * rng.standard_t(3, 30), 0.2))
    two = clinics.assign(effect=rng.normal(np.repeat([-2.0, 2.0], 15), 0.2))
    assert rejected("vaccine_clinics", heavy, population="student-t") == []
    assert "tails" in rejected("vaccine_clinics", two, population="student-t")


@pytest.mark.slow
def test_batches_that_drift_and_specimens_that_are_two_kinds_are_seen():
    rng = np.random.default_rng(4)
    batch = np.repeat(np.arange(24), 6)
    plain = pd.DataFrame({"campaign": batch // 6, "batch": batch})
    theta, noise = 500 + 6 * rng.standard_normal(24), rng.normal(0, 10, 144)
    right = plain.assign(strength=theta[batch] + noise)
    drifting = plain.assign(strength=theta[batch] + noise + 6 * (batch % 6))
    heavy = plain.assign(strength=theta[batch] + np.where(np.arange(144) % 36 == 0, -70.0, noise))
    assert rejected("material_batches", right) == []
    assert "drift" in rejected("material_batches", drifting)
    assert "tails of specimens" in rejected("material_batches", heavy)


@pytest.mark.slow
def test_modules_of_another_kind_and_errors_from_a_t_are_seen():
    """Eight modules, 24 rows each; the last rate of one is a twentieth, and errors are from a t with 2 degrees."""
    rng, record = np.random.default_rng(6), hz.reaction_networks.MODEL
    times = tuple(np.geomspace(0.3, 12, 12))
    frame, truth = record.simulate(rng, modules=8, rich=8, times=times, omega=0.2)
    another = truth.theta.copy()
    another[2, 2] -= np.log(20)
    h, data = truth.assign(sigma=0.0), record.data(frame)
    of_another, exact = (record.group_level.replicate(rng, at, h, data, data).values for at in (another, truth.theta))
    kinds = frame.assign(value=of_another + 0.03 * rng.standard_normal(len(frame)))
    heavy = frame.assign(value=exact + 0.02 * rng.standard_t(2, len(frame)))
    assert rejected("reaction_networks", frame, draws=250) == []
    assert rejected("reaction_networks", kinds, draws=250) == ["shape of k2"]
    assert "tails of rows" in rejected("reaction_networks", heavy, draws=250)
