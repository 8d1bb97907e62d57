"""The posterior on the whole line at many points, against SciPy and in other units."""

import numpy as np
import pandas as pd
import pymc as pm
import pytest
import xarray as xr
from pymc_extras.prior import Prior
from scipy import stats

import hbm_zoo as hz
from hbm_zoo.inference.log_posterior import few_numbers, log_posterior
from hbm_zoo.priors import apart_from_numbers, numbers
from hbm_zoo.zoo import record_of


def posterior_of(model, frame, pooling="partial", form="marginalized"):
    """The posterior of a form, and its record, data and priors."""
    record = record_of(model)
    data = record.data(frame)
    priors = record.priors(data, pooling=pooling)
    model = record.write(data, pooling, form, priors, apart_from_numbers(priors))
    return log_posterior(model, arrays(record, data, priors), nodes=1), record, data, priors


def arrays(record, data, priors):
    """What a posterior takes of data and of priors."""
    return {name: v.values for name, v in record.extras.derived(data).data_vars.items()} | numbers(priors)


def test_it_is_the_density_of_prior_and_likelihood():
    posterior, record, data, _ = posterior_of("hospital_readmission", hz.load_data("three_hospitals"))
    x = np.random.default_rng(1).normal(size=(50, 2))
    h = posterior.variables(x)
    a = h["cv"] ** -2
    expected = xr.apply_ufunc(stats.nbinom.logpmf, data.observed, a, a / (a + data.expected * h["mu"])).sum("hospital")
    log_prior, log_likelihood = posterior.parts(x)
    np.testing.assert_allclose(log_likelihood, expected, rtol=1e-8)
    # Of the prior: normal on the line of log mu, and standard normal on the line of the spread.
    names = [v.name for v in posterior.model.free_RVs]
    u = posterior.centre + posterior.scale * x
    on_line = {"mu": stats.norm(0, 0.5), "cv": stats.norm()}
    log_density = sum(on_line[name].logpdf(u[:, k]) for k, name in enumerate(names)) + np.log(posterior.scale).sum()
    np.testing.assert_allclose(log_prior, log_density, rtol=1e-6)
    np.testing.assert_array_equal(posterior(x), log_prior + log_likelihood)


def test_other_units_have_the_same_posterior():
    frame = hz.load_data("bcg_vaccine")
    x = np.random.default_rng(2).normal(size=(20, 2))
    here, *_ = posterior_of("tissue_expression", hz.load_data("dyestuff", "tissue_expression"))
    x3 = np.random.default_rng(2).normal(size=(20, 3))
    dyestuff = hz.load_data("dyestuff", "tissue_expression")
    for factor in (1e-12, 1e12):
        there, *_ = posterior_of("tissue_expression", dyestuff.assign(expression=dyestuff["expression"] * factor))
        difference = there(x3) - here(x3)
        np.testing.assert_allclose(difference, difference[0], atol=1e-6)
        np.testing.assert_allclose(there.variables(x3)["mu"], factor * here.variables(x3)["mu"], rtol=1e-9)
    assert posterior_of("vaccine_clinics", frame)[0](x).shape == (20,)


def test_chunks_and_other_data_change_nothing():
    frame = hz.load_data("bcg_vaccine")
    posterior, record, data, priors = posterior_of("vaccine_clinics", frame)
    x = np.random.default_rng(3).normal(size=(101, 2))
    whole = posterior(x)
    in_sevens = posterior.with_data(arrays(record, data, priors), 400_000 // 7 // len(frame))
    np.testing.assert_allclose(in_sevens(x), whole, rtol=1e-13)  # compiled to the last as well
    few = record.data(frame.iloc[:5])
    others = {"mu": Prior("Normal", mu=1, sigma=3), "tau": Prior("HalfNormal", sigma=0.2)}
    of_few = posterior.with_data(arrays(record, few, others), nodes=1)
    model = record.write(few, "partial", "marginalized", others, apart_from_numbers(others))
    anew = log_posterior(model, arrays(record, few, others), nodes=1)
    np.testing.assert_allclose(of_few(x), anew(x), rtol=1e-12)
    xr.testing.assert_allclose(of_few.variables(x), anew.variables(x))
    np.testing.assert_array_equal(of_few.of_prior, anew.of_prior)
    np.testing.assert_array_equal(posterior(x), whole)


@pytest.mark.long
def test_loops_that_are_repeated_for_each_point_are_compiled():
    """Few units, so that the size of the work would not have them compiled: the plain functions of a loop failed."""
    rates = record_of("success_rates").under(population="logit-normal")
    frame = pd.DataFrame({"unit": ["A", "B"], "successes": [1, 5], "trials": [4, 9]})
    posterior, record, data, _ = posterior_of(rates, frame)
    x = np.random.default_rng(4).normal(size=(3, 2))
    expected = record.group_level.log_joint(posterior.variables(x), data)
    np.testing.assert_allclose(posterior.parts(x)[1], expected, rtol=1e-9)


def test_nothing_is_defined_outside():
    posterior, *_ = posterior_of("hospital_readmission", hz.load_data("three_hospitals"))
    log_prior, log_likelihood = posterior.parts(np.array([[1e200, 0.0], [0.0, 0.0], [np.nan, 0.0]]))
    assert np.isneginf(log_prior[[0, 2]]).all()
    assert np.isneginf(log_likelihood[[0, 2]]).all()
    assert np.isfinite([log_prior[1], log_likelihood[1]]).all()


@pytest.mark.parametrize(
    ("pooling", "form", "few"), [("partial", "marginalized", True), ("partial", "centered", False)]
)
def test_forms_of_few_numbers_are_told_from_others(pooling, form, few):
    model = hz.hospital_readmission.build(hz.load_data("three_hospitals"), pooling, form)
    assert few_numbers(model) is few


def test_a_point_outside_the_support_stops_no_other():
    y = np.array([1.0, 2.0, 0.5])
    with pm.Model() as model:
        mu = pm.Normal("mu", 0, 1)
        tau = pm.Exponential("tau", 1)
        pm.Normal("y", mu, tau, observed=y)
    posterior = log_posterior(model, {}, nodes=1)
    log_prior, log_likelihood = posterior.parts(np.array([[0.5, 1.0], [0.0, -5000.0], [-1.0, 0.5]]))
    h = posterior.variables(np.array([[0.5, 1.0], [-1.0, 0.5]]))
    expected = stats.norm(h["mu"].values[:, None], h["tau"].values[:, None]).logpdf(y).sum(axis=1)
    np.testing.assert_allclose(log_likelihood[[0, 2]], expected, rtol=1e-10)
    assert log_likelihood[1] == log_prior[1] == -np.inf
