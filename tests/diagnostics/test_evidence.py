"""Bayes factors against quadrature, and what they refuse."""

import json

import numpy as np
import pandas as pd
import pytest
from pymc_extras.prior import Prior
from scipy import integrate, stats

import hbm_zoo as hz
from hbm_zoo.diagnostics.evidence import of_these_data
from hbm_zoo.diagnostics.rescaled import scaled
from hbm_zoo.inference.fits import priors_of
from hbm_zoo.priors import ppf

EFFECTS, ERRORS = np.array([0.1, 0.9, -0.6, 0.4]), np.array([0.3, 0.4, 0.2, 0.5])


def clinics_fits(times=1.0, **more):
    frame = pd.DataFrame({"clinic": [*"abcd"], "effect": times * EFFECTS, "standard_error": times * ERRORS})
    what = {"random_seed": 1, "progressbar": False} | more
    return {p: hz.fit("vaccine_clinics", frame, pooling=p, **what) for p in ("complete", "partial")}


@pytest.fixture(scope="module")
def fits():
    return clinics_fits()


def by_quadrature(priors, scale):
    """The log Bayes factor by scipy alone."""
    mu, tau = priors["mu"].parameters, priors["tau"].parameters
    known = stats.norm(mu["mu"], mu["sigma"])
    spread = stats.halfnorm(scale=scale * tau["sigma"])

    m = np.linspace(mu["mu"] - 8 * mu["sigma"], mu["mu"] + 8 * mu["sigma"], 2001)[:, None]
    t = np.linspace(0, 8 * scale * tau["sigma"], 1501)

    def marginal(sd):
        each = [stats.norm.pdf(y, m, np.hypot(se, sd)) for y, se in zip(EFFECTS, ERRORS, strict=True)]
        return integrate.simpson(np.prod(each, axis=0) * known.pdf(m), x=m[:, 0], axis=0)

    return float(np.log(integrate.simpson(marginal(t) * spread.pdf(t), x=t) / marginal(np.zeros(1))[0]))


def test_it_is_the_ratio_of_two_integrals_at_each_scale(fits):
    table = hz.evidence(fits, scales=(0.5, 1, 2))
    for scale, row in table.iterrows():
        expected = by_quadrature(priors_of(fits["partial"]), scale)
        assert row["mcse"] < 0.02
        assert row["log_bayes_factor"] == pytest.approx(expected, abs=4 * row["mcse"])
    assert np.ptp(table["log_bayes_factor"]) > 20 * table["mcse"].max()  # a scale that is not used would be seen
    assert table["prior"].is_unique


def test_units_change_nothing(fits):
    """Of effects in millionths no bridge is singular; a log density of -2e11 is above what stands for none."""
    a_million = [hz.evidence(each, scales=[1]).loc[1, "log_bayes_factor"] for each in (fits, clinics_fits(times=1e6))]
    assert a_million[0] == pytest.approx(a_million[1], abs=1e-4)
    apart = pd.DataFrame({"clinic": [*"abcdefgh"], "effect": 10.0 * np.arange(8), "standard_error": 1e-4})
    both = {p: hz.fit("vaccine_clinics", apart, p, random_seed=1, progressbar=False) for p in ("complete", "partial")}
    assert hz.evidence(both, scales=[1]).loc[1, "log_bayes_factor"] == pytest.approx(4200 / 2 / 1e-8, rel=1e-6)


@pytest.mark.slow
def test_draws_of_chains_give_the_same(fits):
    chains = clinics_fits(engine="nuts", draws=500)
    one, other = (hz.evidence(each, scales=[1]).loc[1] for each in (fits, chains))
    error = np.hypot(one["mcse"], other["mcse"])
    assert one["log_bayes_factor"] == pytest.approx(other["log_bayes_factor"], abs=4 * error)


def test_the_sentence_follows_the_numbers(fits):
    table = hz.evidence(fits)
    factor = table.loc[1.0, "log_bayes_factor"]
    degree = next(w for least, w in ((5, "very strong"), (3, "strong"), (1, "positive"), (0, "not")) if factor >= least)
    assert table.attrs["verdict"].startswith(f"Evidence that clinics differ is {degree}")
    assert (
        f"is {factor:.1f} nats (MCSE {table.loc[1.0, 'mcse']:.2f}) at 1 times the scale of the prior of tau"
        in (table.attrs["verdict"])
    )


@pytest.mark.long
def test_units_that_do_not_differ_are_told_apart_by_priors_alone():
    """A rate of 0 in all: a uniform prior of the mean finds it improbable, and a spread explains it away."""
    frame = pd.DataFrame({"unit": [*"abcdef"], "successes": 0, "trials": 20})
    same = {"random_seed": 1, "progressbar": False}
    table = hz.evidence({p: hz.fit("success_rates", frame, p, **same) for p in ("complete", "partial")}, scales=[1])
    assert table["log_bayes_factor"].item() > 0
    assert "though their own estimates are the same and only priors tell them apart" in table.attrs["verdict"]


@pytest.mark.parametrize("scale", [0, -1, np.nan, "2"])
def test_a_scale_is_a_number_above_0(fits, scale):
    with pytest.raises(ValueError, match="scales expected finite numbers above 0, got"):
        hz.evidence(fits, scales=[scale])
    with pytest.raises(ValueError, match="scales expected finite numbers above 0, got"):
        hz.sensitivity(fits["partial"], scales=[scale])


def test_priors_of_data_that_nobody_has_are_not_asked_aloud():
    """Half the deflections are those of no material: nothing is said of the scale, and nothing is refused."""
    record = hz.model_discrepancy.MODEL
    frame, _ = record.simulate(np.random.default_rng(1), specimens=2)
    data = record.data(frame.assign(deflection=0.053 * frame["deflection"]))
    default = record.default_priors(data)
    assert of_these_data(record, data, default, ["s"]) == ""
    assert "prior of s" in of_these_data(record, record.data(frame), record.default_priors(record.data(frame)), ["s"])


def test_what_is_not_nested_is_refused(fits):
    with pytest.raises(ValueError, match="needs fits of complete and of partial pooling; got partial"):
        hz.evidence(fits["partial"])
    for none_or_endless in (Prior("LogNormal", mu=0, sigma=1), Prior("Gamma", alpha=0.5, beta=1)):
        other = {"partial": clinics_fits(priors={"tau": none_or_endless}, draws=100)["partial"]}
        with pytest.raises(ValueError, match="of 'tau' has no finite density above nothing at 0"):
            hz.evidence(fits | other)
    other = fits["complete"].copy()
    other.attrs = fits["complete"].attrs | {"fixed": json.dumps({"mu": 0.0})}
    with pytest.raises(ValueError, match="is not its partial pooling with tau = 0"):
        hz.evidence({"complete": other, "partial": fits["partial"]})


@pytest.mark.parametrize(
    "prior",
    [
        Prior("HalfNormal", sigma=1.5),
        Prior("HalfCauchy", beta=2),
        Prior("HalfStudentT", nu=3, sigma=2),
        Prior("Uniform", lower=0, upper=3),
        Prior("Weibull", alpha=1, beta=2),
        Prior("InverseGamma", alpha=2, beta=3),
        Prior("Exponential", lam=2),
        Prior("Gamma", alpha=1, beta=3),
    ],
)
def test_a_prior_on_another_scale_has_its_quantiles_there(prior):
    np.testing.assert_allclose(ppf(scaled("tau", prior, 3), 0.3), 3 * ppf(prior, 0.3), rtol=1e-6)


def test_a_family_without_a_known_scale_is_refused():
    known = r" of 'tau' is not known here, only of HalfNormal\(sigma\), "
    for prior, said in ((Prior("Beta", alpha=1, beta=2), "alpha=1, beta=2"), (Prior("HalfNormal", tau=4), "tau=4")):
        with pytest.raises(ValueError, match=rf"\({said}\){known}"):
            scaled("tau", prior, 2)


def test_fits_that_differ_in_more_than_the_spreads_are_refused():
    """Thirteen equal effects once gave 366 nats for a spread, of another prior of mu."""
    frame = pd.DataFrame({"clinic": [*"abcd"], "effect": 0.0, "standard_error": 1.0})
    same = {"random_seed": 1, "progressbar": False}
    lumped = hz.fit("vaccine_clinics", frame, "complete", priors={"mu": "Normal(mu=8, sigma=0.1)"}, **same)
    partial = hz.fit("vaccine_clinics", frame, **same)
    with pytest.raises(ValueError, match=r"that of 'mu' is Normal\(mu=8, sigma=0.1\) under complete and"):
        hz.evidence({"complete": lumped, "partial": partial})
    normal = hz.fit("vaccine_clinics", frame, "complete", **same)
    other = hz.fit("vaccine_clinics", frame, population="student-t", draws=100, **same)
    with pytest.raises(ValueError, match="fits of the same options: that of complete pooling has none"):
        hz.evidence({"complete": normal, "partial": other})
