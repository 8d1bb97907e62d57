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
def test_a_clinic_that_a_normal_population_does_not_expect_is_one_that_a_t_may_have():
    effect = np.r_[np.random.default_rng(3).normal(0, 0.3, 15), 6.0]
    clinics = pd.DataFrame({"clinic": range(16), "effect": effect, "standard_error": 0.2})
    two = clinics.assign(effect=np.random.default_rng(4).normal(np.repeat([-2.0, 2.0], 8), 0.2))
    assert "outlying" in rejected("vaccine_clinics", clinics)
    assert rejected("vaccine_clinics", clinics, population="student-t") == []
    assert "tails" in rejected("vaccine_clinics", two, population="student-t")
