"""Hospitals with binomial noise against SciPy, identities, limits, a quadrature, and a country's file."""

import warnings

import arviz as az
import numpy as np
import pandas as pd
import pytest
import xarray as xr
from scipy import integrate, optimize, special, stats

import hbm_zoo as hz
from hbm_zoo.frames.rules import FrameError, FrameWarning
from hbm_zoo.group_level.averages import quantile
from hbm_zoo.group_level.populations import Normal
from hbm_zoo.group_level.reported import RelativeRisk
from hbm_zoo.models import hrrp
from hbm_zoo.models.hospital_readmission import MODEL

POISSON, RECORD = MODEL, MODEL.under(noise="binomial")
FRAME = pd.DataFrame(
    {
        "hospital": list("ABCDEF"),
        "observed": [0, 3, 14, 60, 9, 130],
        "expected": [0.9, 2.0, 11.0, 75.0, 4.5, 104.0],
        "discharges": [4, 10, 60, 300, 9, 500],
    }
)
O, E, N = (FRAME[name].to_numpy() for name in ("observed", "expected", "discharges"))
EXPECTED_ODDS = special.logit(E / N)
QUIET = {"mode": "AS_WRITTEN"}


def log_prior(mu, tau):
    return stats.norm.logpdf(mu, 0, 0.5) + stats.halfnorm.logpdf(tau)


def counts(alpha):
    return stats.binom.logpmf(O, N, special.expit(EXPECTED_ODDS + alpha))


def integrated(mu, tau, j, score=None):
    """The integral over alpha of the binomial of hospital j, or of its product with a score, by adaptive quadrature."""

    def f(alpha):
        p = special.expit(EXPECTED_ODDS[j] + alpha)
        return stats.binom.pmf(O[j], N[j], p) * stats.norm.pdf(alpha, mu, tau) * (score(alpha) if score else 1.0)

    own = np.clip(special.logit((O[j] + 0.5) / (N[j] + 1)) - EXPECTED_ODDS[j], mu - 8 * tau, mu + 8 * tau)
    options = {"epsabs": 1e-15, "epsrel": 1e-8, "limit": 400, "points": sorted({own, mu})}
    return integrate.quad(f, mu - 12 * tau, mu + 12 * tau, **options)[0]


def matched():
    """Mean and sd of alpha once mu ~ N(0, .5^2) and tau ~ |N(0, 1)| are averaged out."""
    return 0.0, np.sqrt(0.25 + 1.0)


VARIANTS = {
    ("none", "centered"): lambda alpha: stats.norm.logpdf(alpha, *matched()).sum() + counts(alpha).sum(),
    ("complete", "centered"): lambda mu: stats.norm.logpdf(mu, 0, 0.5) + counts(mu).sum(),
    ("partial", "centered"): lambda mu, tau, alpha: (
        log_prior(mu, tau) + stats.norm.logpdf(alpha, mu, tau).sum() + counts(alpha).sum()
    ),
    ("partial", "noncentered"): lambda mu, tau, z: (
        log_prior(mu, tau) + stats.norm.logpdf(z).sum() + counts(mu + tau * z).sum()
    ),
    ("partial", "marginalized"): lambda mu, tau: (
        log_prior(mu, tau) + sum(np.log(integrated(mu, tau, j)) for j in range(6))
    ),
}
NAMES = {
    ("none", "centered"): ["alpha"],
    ("complete", "centered"): ["mu"],
    ("partial", "centered"): ["mu", "tau", "alpha"],
    ("partial", "noncentered"): ["mu", "tau", "z"],
    ("partial", "marginalized"): ["mu", "tau"],
}


def point(rng):
    return {
        "mu": rng.normal(0, 0.5),
        "tau": rng.uniform(0.05, 1.2),
        "alpha": rng.normal(0, 0.5, 6),
        "z": rng.normal(size=6),
    }


@pytest.mark.parametrize("which", VARIANTS, ids="-".join)
def test_every_variant_is_its_density_by_scipy_at_random_points(which):
    model = RECORD.build(FRAME, *which)
    density = model.compile_logp(jacobian=False, **QUIET)
    rng = np.random.default_rng(1)
    for _ in range(3):
        values = {name: value for name, value in point(rng).items() if name in NAMES[which]}
        named = {"tau_log__" if n == "tau" else n: np.log(v) if n == "tau" else v for n, v in values.items()}
        assert density(named) == pytest.approx(VARIANTS[which](**values), abs=1e-6)


@pytest.mark.long
def test_the_gradient_of_the_integrated_form_is_the_expected_score():
    """D log m / d mu = E[(alpha - mu) / tau^2 | O], and so for log tau: posterior means by adaptive quadrature."""
    gradient = RECORD.build(FRAME, "partial", "marginalized").compile_dlogp(jacobian=False, **QUIET)
    for mu, tau in ((0.1, 0.3), (-0.6, 0.05), (0.2, 1.1)):
        scores = (lambda a: (a - mu) / tau**2), (lambda a: ((a - mu) / tau) ** 2 - 1)  # noqa: B023
        each = [sum(integrated(mu, tau, j, s) / integrated(mu, tau, j) for j in range(6)) for s in scores]
        found = gradient({"mu": mu, "tau_log__": np.log(tau)})
        np.testing.assert_allclose(found, [each[0] - mu / 0.25, each[1] - tau**2], rtol=1e-5, atol=1e-5)


def at(**values):
    return xr.Dataset({name: ("sample", np.atleast_1d(np.asarray(value, float))) for name, value in values.items()})


def test_without_spread_all_hospitals_have_the_same_odds_against_those_expected():
    level, data = RECORD.group_level, RECORD.data(FRAME)
    none = level.log_left_out(at(mu=0.3, tau=0.0), data).values.ravel()
    np.testing.assert_allclose(none, counts(0.3), atol=1e-8)
    lam = level.after(at(mu=0.3, tau=0.0), data)
    np.testing.assert_allclose(lam.mean.values.ravel(), special.expit(EXPECTED_ODDS + 0.3) / (E / N), rtol=1e-12)
    assert float(abs(lam.sd).max()) == 0


def test_rare_readmissions_are_a_poisson_of_log_normal_ratios():
    """At a risk of one in a million odds and ratios are the same, and so are both models' densities of the counts."""
    rare = RECORD.data(FRAME.assign(discharges=(1e6 * E).astype(int)))
    found = RECORD.group_level.log_left_out(at(mu=0.2, tau=0.5), rare).values.ravel()
    z = np.linspace(-9, 9, 4001)
    poisson = stats.poisson.pmf(O[:, None], E[:, None] * np.exp(0.2 + 0.5 * z))
    np.testing.assert_allclose(found, np.log(integrate.simpson(poisson * stats.norm.pdf(z), x=z)), atol=1e-4)


# The relative risk: a function that is another for each hospital.


def test_the_population_of_a_relative_risk_is_the_change_of_variables():
    expected = xr.DataArray([0.2, 0.02, 0.6], dims="hospital", coords={"hospital": list("ABC")})
    alpha = Normal(xr.DataArray([0.1, -0.4], dims="sample"), xr.DataArray([0.3, 0.9], dims="sample"))
    lam = alpha.map(RelativeRisk(expected))
    for i, j in np.ndindex(2, 3):
        m, s, e = float(alpha.mean[i]), float(alpha.sd[i]), float(expected[j])
        ratio = lambda a: special.expit(special.logit(e) + a) / e  # noqa: B023, E731
        mean, second = (
            integrate.quad(lambda a: ratio(a) ** k * stats.norm.pdf(a, m, s), m - 12 * s, m + 12 * s)[0]  # noqa: B023
            for k in (1, 2)
        )
        here = {"sample": i, "hospital": j}
        assert float(lam.mean.isel(here)) == pytest.approx(mean, abs=1e-9)
        assert float(lam.sd.isel(here)) == pytest.approx(np.sqrt(second - mean**2), abs=1e-7)
        x = ratio(m + 0.7 * s)
        assert float(lam.cdf(x).isel(here)) == pytest.approx(special.ndtr(0.7), abs=1e-12)
        assert float(lam.ppf(special.ndtr(0.7)).isel(here)) == pytest.approx(x, rel=1e-12)
        slope = (lam.cdf(x + 1e-6) - lam.cdf(x - 1e-6)).isel(here) / 2e-6
        assert float(np.exp(lam.log_density(x)).isel(here)) == pytest.approx(float(slope), rel=1e-6)


def test_taken_apart_into_cells_each_keeps_the_risk_expected_of_it():
    """The planted fault is the risk of one hospital for all: the quantile of 'B' would be that of 'A'."""
    level, data = RECORD.group_level, RECORD.data(FRAME)
    h = at(mu=[0.1, 0.2, 0.0], tau=[0.2, 0.4, 0.3])
    for population in (level.of_groups(h, data), level.after(h, data)):
        found = quantile(population, 0.9)
        assert found.dims == ("hospital",)
        for j in range(6):
            f = lambda x: float(population.cdf(x).isel(hospital=j).mean("sample")) - 0.9  # noqa: B023, E731
            assert float(found[j]) == pytest.approx(optimize.brentq(f, 0.01, N[j] / E[j] - 1e-9), rel=2e-4)


def test_halves_are_binomials_of_the_same_risk():
    data, rng = RECORD.data(FRAME), np.random.default_rng(3)
    total = np.zeros(6)
    for _ in range(400):
        first, second = RECORD.extras.thin(rng, data)
        for name in ("observed", "discharges", "expected"):
            np.testing.assert_allclose(first[name] + second[name], data[name])
        np.testing.assert_array_equal(first.e, data.e)
        total += first.observed.values
    np.testing.assert_allclose(total / 400, O / 2, atol=4 * np.sqrt(N / 16 / 400).max())
    empty = data.assign(observed=0 * data.observed, discharges=0 * data.discharges)
    np.testing.assert_allclose(RECORD.group_level.log_left_out(at(mu=0.1, tau=0.3), empty), 0, atol=1e-9)


# A whole country at 20 % risk.


def country(seed, hospitals=3000, tau=0.0625):
    """Read from the file that the publisher would make; relative risks have an sd of .05."""
    frame, _ = RECORD.simulate(
        np.random.default_rng(seed), hospitals=hospitals, tau=tau, median_discharges=250.0, sigma_discharges=0.8
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FrameWarning)
        return hrrp.from_hrrp(hrrp.published(frame))


def likeliest(record, frame, spread, grid, centre):
    """The spread on a grid where the likelihood is largest, the location where it is as expected."""
    data = record.data(frame)
    h = at(**{"mu": np.full(grid.size, centre), spread: grid})
    return grid[int(np.argmax(record.group_level.log_joint(h, data).values))]


def test_the_poisson_takes_half_the_spread_of_a_country_and_the_binomial_finds_it():
    frame = country(5)
    assert len(frame) > 2400
    tau = likeliest(RECORD, frame, "tau", np.linspace(0.03, 0.1, 15), 0.0)
    cv = likeliest(POISSON, frame, "cv", np.linspace(0.0, 0.08, 17), 1.0)
    assert 0.8 * tau == pytest.approx(0.05, abs=0.006)  # d lam / d alpha = 1 - e
    assert cv < 0.035


# Bad frames.


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"observed": [0, 3, 61, 60, 9, 130]},
            "at most as many readmissions as discharges, got 61 of 60 for 'C' in row 2",
        ),
        (
            {"expected": [0.9, 2, 60, 75, 4.5, 500]},
            "to be expected than discharges, got 60 of 60 for 'C' in row 2 .and 1 more",
        ),
        ({"expected": [0.9, 2, 11, 75, 4.5, 0]}, "column 'expected' .*0"),
        (
            {"discharges": [0, 10, 60, 300, 9, 500]},
            "column 'discharges' expected a whole number, 1 or more.*0 in row 0",
        ),
        ({"discharges": [4, 10.5, 60, 300, 9, 500]}, "column 'discharges' expected a whole number.*10.5 in row 1"),
        ({"discharges": [4, np.nan, 60, 300, 9, 500]}, "column 'discharges' .*an empty cell in row 1"),
        ({"discharges": [4, 1e10, 60, 300, 9, 500]}, "column 'discharges' .*at most 999,999,999"),
    ],
)
def test_bad_values_are_named(change, message):
    with pytest.raises(FrameError, match=message):
        hz.fit("hospital_readmission", FRAME.assign(**change), noise="binomial")


def test_what_does_not_belong_together_is_named():
    with pytest.raises(FrameError, match="expected a column 'discharges'"):
        hz.fit("hospital_readmission", FRAME.drop(columns="discharges"), noise="binomial")
    with pytest.raises(ValueError, match="Unknown noise 'binomal'.*Did you mean 'binomial'"):
        hz.fit("hospital_readmission", FRAME, noise="binomal")
    with pytest.raises(ValueError, match="no prior named 'cv'"):
        hz.fit("hospital_readmission", FRAME, noise="binomial", priors={"cv": "HalfNormal(sigma=1)"})
    priors = RECORD.priors(RECORD.data(FRAME))
    few = RECORD.data(FRAME.assign(expected=FRAME["expected"] / 100))
    assert "in another unit" in RECORD.extras.contradiction(few, priors)
    assert RECORD.extras.contradiction(RECORD.data(FRAME), priors) is None


@pytest.fixture(scope="module")
def fit():
    return hz.fit("hospital_readmission", FRAME, noise="binomial", draws=500, random_seed=2, progressbar=False)


def test_the_fit_is_the_quadrature(fit):
    """Means within 4 Monte Carlo errors, each below .3 posterior sds; relative risks by the same grid."""
    mu, log_tau, z = np.linspace(-1, 1.2, 61), np.linspace(-5, 1.5, 61), np.linspace(-8, 8, 97)
    m, tau = np.meshgrid(mu, np.exp(log_tau), indexing="ij")
    log_post, ratios = log_prior(m, tau) + np.log(tau), []
    for j in range(6):
        p = special.expit(EXPECTED_ODDS[j] + m[..., None] + tau[..., None] * z)
        likelihood = stats.binom.pmf(O[j], N[j], p) * stats.norm.pdf(z) * (z[1] - z[0])
        log_post += np.log(likelihood.sum(axis=-1))
        ratios.append((likelihood * p).sum(axis=-1) / likelihood.sum(axis=-1) * N[j] / E[j])
    weight = np.exp(log_post - special.logsumexp(log_post))
    for name, values in (("mu", m), ("tau", tau)):
        draws = fit["posterior"][name]
        mcse = float(az.mcse(draws)) / np.sqrt(fit.attrs.get("efficiency", 1.0))
        assert abs(float(draws.mean()) - (weight * values).sum()) < 4 * mcse, name
        assert 4 * mcse < 0.3 * float(draws.std())
    exact = np.array([(weight * ratio).sum() for ratio in ratios])
    np.testing.assert_allclose(fit["group_summary"]["mean"], exact, atol=0.02)
    np.testing.assert_allclose(fit["posterior"]["lam"].mean(["chain", "draw"]), exact, atol=0.1)


def test_thresholds_are_of_the_relative_risk(fit):
    table = hz.groups(fit, threshold=1.1)
    lam = fit["posterior"]["lam"]
    np.testing.assert_allclose(table["own"], O / E)
    np.testing.assert_allclose(table["p_above_1.1"], (lam > 1.1).mean(["chain", "draw"]), atol=0.06)
    assert table["partial_eti89_ub"].max() < float((N / E).max())


@pytest.mark.long
def test_a_hospital_is_predicted_at_the_risk_expected_of_it(fit):
    """Relative risks of the known are at the risk of the fit, of the others at that of their rows."""
    new = pd.DataFrame(
        {
            "hospital": ["F", "sure", "rare", "brings"],
            "expected": [10.0, 98.0, 1.0, 40.0],
            "discharges": [40, 100, 100, 200],
            "observed": [np.nan, np.nan, np.nan, 50],
        }
    )
    told = hz.predict(fit, new, random_seed=1)
    lam, O_new = told["predictions"]["lam"], told["predictions"]["O"]
    assert told["group_summary"]["case"].values.tolist() == ["known", "never seen", "never seen", "brings rows"]
    np.testing.assert_allclose(lam.mean(["chain", "draw"]), told["group_summary"]["mean"], atol=0.1)
    assert float(lam.sel(hospital="sure").max()) <= 100 / 98
    assert float(lam.sel(hospital="rare").max()) > 1.5
    assert int(O_new.max()) <= 100
    expected = float(lam.sel(hospital="F").mean())
    assert float(O_new.isel(row=0).mean()) == pytest.approx(10 * expected, rel=0.1)
    with pytest.raises(ValueError, match="give it a row"):
        hz.predict(fit, n_new=1)


def test_a_funnel_is_refused_for_its_reason(fit):
    with pytest.raises(ValueError, match="no control limits"):
        hz.plot_funnel(
            {"complete": hz.fit("hospital_readmission", FRAME, "complete", noise="binomial"), "partial": fit}
        )


@pytest.mark.slow
def test_calibration():
    frame, _ = RECORD.simulate(np.random.default_rng(0), hospitals=8)
    result = hz.calibrate(
        "hospital_readmission", frame, noise="binomial", simulations=200, draws=250, workers=2, random_seed=1
    )
    assert result.table["p_holm"].min() > 0.01
