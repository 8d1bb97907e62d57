"""Priors a caller passes: taken as meant, or refused in words."""

import numpy as np
import pytest
from pymc_extras.prior import Prior
from scipy import stats

import hbm_zoo as hz
from hbm_zoo.models.hospital_readmission import MODEL
from hbm_zoo.priors import describe, from_json, moments, ppf, to_json

DATA = MODEL.data(hz.load_data("three_hospitals"))

REFUSED = {
    "unknown name": ({"muu": Prior("Normal")}, r"no prior named 'muu': expected one of mu, cv, lam. Did you mean 'mu'"),
    "negative sigma": ({"cv": Prior("HalfNormal", sigma=-1)}, r"HalfNormal\(sigma=-1\) of 'cv' is not a distribution"),
    "negative sigma of the log": ({"mu": Prior("LogNormal", mu=0, sigma=-1)}, "not a distribution: sigma < 0"),
    "NaN": ({"cv": Prior("HalfNormal", sigma=np.nan)}, "of 'cv' is not a"),
    "flat": ({"mu": Prior("HalfFlat")}, "of 'mu' is not a distribution"),
    "outside the support": ({"mu": Prior("Normal", mu=0, sigma=1)}, "'mu' lies between 0 and inf, but its prior"),
    "discrete": ({"cv": Prior("Poisson", mu=1)}, "must be for one real number"),
    "a vector": ({"mu": Prior("LogNormal", mu=[0, 1], sigma=1)}, "must be for one real number"),
    "dims": ({"mu": Prior("LogNormal", mu=0, sigma=1, dims="hospital")}, r"one number, got dims \('hospital',\)"),
    "a dict that would lose its numbers": ({"mu": {"dist": "Normal", "mu": 0}}, "must be a pymc_extras Prior"),
    "a number": ({"mu": 3}, "must be a pymc_extras Prior .* got 3"),
    "no variance to match": ({"cv": Prior("HalfCauchy", beta=1)}, "no known finite mean and variance"),
    "no mean in other parameters": ({"mu": Prior("InverseGamma", alpha=0.9, beta=1)}, "finite mean and variance"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_refused_in_words(case):
    given, sentence = REFUSED[case]
    with pytest.raises(ValueError, match=sentence):
        MODEL.priors(DATA, given)


SUCCESS_RATES = hz.success_rates.MODEL


@pytest.mark.parametrize(
    ("record", "name", "sentence"),
    [
        (SUCCESS_RATES.under(population="logit-normal"), "phi", "There is one with population='beta'."),
        (SUCCESS_RATES, "tau", "There is one with population='logit-normal'."),
        (SUCCESS_RATES.under(population="logit-normal"), "tua", "Did you mean 'tau'?"),
        (MODEL, "vc", "Did you mean 'cv'?"),
        (MODEL, "lambda", "Did you mean 'lam'?"),
    ],
)
def test_a_name_of_another_option_is_said_with_it_and_a_slip_with_the_nearest(record, name, sentence):
    data = record.data(hz.load_data(next(iter(record.datasets)), record))
    with pytest.raises(ValueError, match="no prior named") as refusal:
        record.priors(data, {name: Prior("HalfNormal")})
    assert str(refusal.value).endswith(f". {sentence}")


@pytest.mark.parametrize("name", ["nu", "phi", "sd", "x", "", 3])
def test_a_short_name_that_is_like_none_gets_no_hint(name):
    with pytest.raises(ValueError, match=r"expected one of mu, cv, lam\.$"):
        MODEL.priors(DATA, {name: Prior("Normal")})


def test_heavy_tails_are_welcome_with_a_prior_for_the_group():
    lam = Prior("Gamma", alpha=1, beta=1)
    priors = MODEL.priors(DATA, {"cv": Prior("HalfCauchy", beta=1), "lam": lam})
    assert priors["lam"] == lam


KNOWN = {
    "LogNormal": (Prior("LogNormal", mu=0.0, sigma=0.5), stats.lognorm(0.5)),
    "HalfNormal": (Prior("HalfNormal", sigma=2.0), stats.halfnorm(scale=2)),
    "HalfNormal by default": (Prior("HalfNormal"), stats.halfnorm()),
    "Gamma by mean and sd": (Prior("Gamma", mu=1, sigma=0.5), stats.gamma(4, scale=0.25)),
    "LogNormal by precision": (Prior("LogNormal", mu=0, tau=4), stats.lognorm(0.5)),
    "TruncatedNormal": (Prior("TruncatedNormal", mu=0, sigma=1, lower=0), stats.halfnorm()),
    "Exponential by scale": (Prior("Exponential", scale=2), stats.expon(scale=2)),
    "Uniform": (Prior("Uniform", lower=0, upper=2), stats.uniform(0, 2)),
}


@pytest.mark.parametrize("case", KNOWN)
def test_moments_and_quantiles_are_scipys(case):
    prior, scipys = KNOWN[case]
    assert moments("mu", prior) == pytest.approx((scipys.mean(), scipys.var()), rel=1e-9)
    assert ppf(prior, 1e-5) == pytest.approx(scipys.ppf(1e-5), rel=1e-6)
    assert ppf(prior, 0.7) == pytest.approx(scipys.ppf(0.7), rel=1e-9)


def test_the_others_stay_as_they_are():
    mine = Prior("HalfNormal", sigma=0.3)
    priors = MODEL.priors(DATA, {"cv": mine})
    assert priors["cv"] == mine
    assert priors["mu"] == MODEL.priors(DATA)["mu"]
    assert priors["lam"] != MODEL.priors(DATA)["lam"]


def test_text_and_back():
    priors = MODEL.priors(DATA)
    assert from_json(to_json(priors)) == priors
    assert describe(priors["mu"]) == "LogNormal(mu=0, sigma=0.5)"
