"""Clinics of a Student population against SciPy, identities, a three-dimensional quadrature and planted outliers."""

import arviz as az
import numpy as np
import pandas as pd
import pytest
import xarray as xr
from scipy import integrate, special, stats

import hbm_zoo as hz
from hbm_zoo.models.vaccine_clinics import MODEL

NORMAL, RECORD = MODEL, MODEL.under(population="student-t")
FRAME = pd.DataFrame(
    {
        "clinic": list("ABCDEFGH"),
        "effect": [0.2, -0.1, 0.4, 0.0, 0.3, 0.1, 3.0, -0.2],
        "standard_error": [0.2, 0.3, 0.5, 0.1, 0.4, 0.2, 0.3, 0.6],
    }
)
Y, SE = FRAME["effect"].to_numpy(), FRAME["standard_error"].to_numpy()
M0, S = Y.mean(), Y.std(ddof=1)
QUIET = {"mode": "AS_WRITTEN"}


def log_prior(mu, tau, nu_above_2):
    normal = stats.norm.logpdf(mu, M0, 2.5 * S) + stats.halfnorm.logpdf(tau, scale=S)
    return normal + stats.gamma.logpdf(nu_above_2, 2, scale=10)


def measured(theta):
    return stats.norm.logpdf(Y, theta, SE).sum()


def integrated(y, se, mu, tau, nu):
    """By Simpson's rule over what theta may be given y, 14 standard errors wide, closer where the population is."""
    theta = np.unique(np.r_[np.linspace(y - 14 * se, y + 14 * se, 8001), mu + tau * np.sinh(np.linspace(-7, 7, 8001))])
    theta = theta[abs(theta - y) <= 14 * se]
    return integrate.simpson(stats.norm.pdf(y, theta, se) * stats.t.pdf(theta, nu, mu, tau), x=theta)


def alone(theta):
    """A t with the variance Var(mu) + E[tau^2] E[nu / (nu - 2)], nu - 2 ~ Gamma(2, .1), at nu = E[nu] = 22."""
    variance = (2.5 * S) ** 2 + S**2 * (1 + 2 * 0.1)
    return stats.t.logpdf(theta, 22, M0, np.sqrt(variance * 20 / 22)).sum() + measured(theta)


VARIANTS = {
    ("none", "centered"): (alone, ["theta"]),
    ("complete", "centered"): (lambda mu: stats.norm.logpdf(mu, M0, 2.5 * S) + measured(mu), ["mu"]),
    ("partial", "centered"): (
        lambda mu, tau, nu_above_2, theta: (
            log_prior(mu, tau, nu_above_2) + stats.t.logpdf(theta, 2 + nu_above_2, mu, tau).sum() + measured(theta)
        ),
        ["mu", "tau", "nu_above_2", "theta"],
    ),
    ("partial", "noncentered"): (
        lambda mu, tau, nu_above_2, z: (
            log_prior(mu, tau, nu_above_2) + stats.t.logpdf(z, 2 + nu_above_2).sum() + measured(mu + tau * z)
        ),
        ["mu", "tau", "nu_above_2", "z"],
    ),
    ("partial", "marginalized"): (
        lambda mu, tau, nu_above_2: (
            log_prior(mu, tau, nu_above_2)
            + sum(np.log(integrated(y, se, mu, tau, 2 + nu_above_2)) for y, se in zip(Y, SE, strict=True))
        ),
        ["mu", "tau", "nu_above_2"],
    ),
}


@pytest.mark.parametrize("which", VARIANTS, ids="-".join)
def test_every_variant_is_its_density_by_scipy_at_random_points(which):
    formula, names = VARIANTS[which]
    density = RECORD.build(FRAME, *which).compile_logp(jacobian=False, **QUIET)
    rng = np.random.default_rng(1)
    for _ in range(3):
        point = {"mu": rng.normal(), "tau": rng.uniform(0.1, 1.5), "nu_above_2": rng.gamma(2, 5)}
        point |= {"theta": rng.normal(size=8), "z": rng.normal(size=8)}
        values = {name: point[name] for name in names}
        positive = ("tau", "nu_above_2")
        named = {f"{n}_log__" if n in positive else n: np.log(v) if n in positive else v for n, v in values.items()}
        # The variance that no pooling is matched to is itself a quadrature.
        assert density(named) == pytest.approx(formula(**values), abs=1e-7 if "mu" in names else 1e-4)


def at(**values):
    return xr.Dataset({name: ("sample", np.atleast_1d(np.asarray(value, float))) for name, value in values.items()})


def test_many_degrees_of_freedom_are_the_normal_population_in_all_that_is_known_of_a_group():
    """Errors fall as 1 / nu: at a million they are below 1e-5."""
    data, new = RECORD.data(FRAME), RECORD.data(FRAME.assign(effect=Y + 0.3))
    h = at(mu=0.2, tau=0.5, nu_above_2=1e6)
    ours, theirs = RECORD.group_level, NORMAL.group_level
    for name in ("log_left_out", "expected_log_likelihood", "reliability"):
        both = xr.broadcast(*(getattr(level, name)(h, data) for level in (ours, theirs)))
        np.testing.assert_allclose(*both, rtol=2e-3, atol=1e-5)
    both = xr.broadcast(*(level.log_predictive(h, new, data) for level in (ours, theirs)))
    np.testing.assert_allclose(*both, atol=1e-4)
    after, normal = ours.conditional(h, data), theirs.conditional(h, data)
    for p in (0.05, 0.5, 0.95):
        np.testing.assert_allclose(*xr.broadcast(after.ppf(p), normal.ppf(p)), atol=1e-4)
    weight, kappa = ours.expectations(h, data)["weight"], theirs.reliability(h, data)
    np.testing.assert_allclose(*xr.broadcast(weight, kappa), atol=1e-4)


def test_without_spread_all_clinics_are_one():
    data, h = RECORD.data(FRAME), at(mu=0.2, tau=0.0, nu_above_2=1.5)
    level = RECORD.group_level
    np.testing.assert_allclose(level.log_left_out(h, data).values.ravel(), stats.norm.logpdf(Y, 0.2, SE), atol=1e-10)
    after = level.conditional(h, data)
    np.testing.assert_allclose(after.mean, 0.2, atol=1e-12)
    np.testing.assert_allclose(after.sd, 0.0, atol=1e-12)
    assert float(abs(level.reliability(h, data)).max()) == 0


def test_new_data_of_the_same_clinic_are_a_ratio_of_integrals():
    data, level = RECORD.data(FRAME), RECORD.group_level
    new = RECORD.data(FRAME.assign(effect=[4.0, -0.1, 9.0, 0.0, -3.0, 0.1, 0.0, -0.2], standard_error=SE[::-1]))
    mu, tau, nu = 0.1, 0.4, 3.5
    found = level.log_predictive(at(mu=mu, tau=tau, nu_above_2=nu - 2), new, data).values.ravel()
    theta = np.unique(np.r_[np.linspace(-12, 16, 40_001), mu + tau * np.sinh(np.linspace(-5, 5, 8001))])
    before = stats.t.pdf(theta, nu, mu, tau)
    for j in range(8):
        old = stats.norm.pdf(Y[j], theta, SE[j]) * before
        both = old * stats.norm.pdf(float(new.effect[j]), theta, SE[::-1][j])
        ratio = integrate.simpson(both, x=theta) / integrate.simpson(old, x=theta)
        assert found[j] == pytest.approx(np.log(ratio), abs=1e-6)


def test_a_clinic_far_out_is_let_go_and_pulls_the_others_less():
    """G lies ten standard errors out: at nu = 3 its weight is .97, and it moves the others' mean less than a normal."""
    data, h = RECORD.data(FRAME), at(mu=0.1, tau=0.15, nu_above_2=1.0)
    weight = RECORD.group_level.expectations(h, data)["weight"].sel(clinic="G")
    normal = NORMAL.group_level.reliability(h, data).sel(clinic="G")
    assert weight.item() > 0.9
    assert normal.item() < 0.25


@pytest.fixture(scope="module")
def fit():
    return hz.fit("vaccine_clinics", FRAME, population="student-t", draws=500, random_seed=3, progressbar=False)


def test_the_fit_is_the_quadrature(fit):
    """Means within 4 Monte Carlo errors; a shift of .3 posterior sds would be seen."""
    mu, log_tau = np.linspace(-0.7, 1.2, 39), np.linspace(-4.5, 1.6, 49)
    log_above_2 = np.linspace(-3.5, 4.6, 21)
    m, t, k = np.meshgrid(mu, np.exp(log_tau), np.exp(log_above_2), indexing="ij")
    level = np.zeros(m.shape)
    s = np.linspace(-16, 5, 241)  # log of the precision w
    for y, se in zip(Y, SE, strict=True):
        w = np.exp(s)
        half = 1 + np.exp(log_above_2) / 2
        density = half[:, None] * (np.log(half)[:, None] + s - w) - special.gammaln(half)[:, None]
        normal = stats.norm.logpdf(y, mu[:, None, None], np.sqrt(se**2 + np.exp(log_tau)[:, None] ** 2 / w))
        level += np.log(np.einsum("mts,ks->mtk", np.exp(normal), np.exp(density)) * (s[1] - s[0]))
    log_post = level + log_prior(m, t, k) + np.log(t * k)
    weight = np.exp(log_post - special.logsumexp(log_post))
    for name, values in (("mu", m), ("tau", t), ("nu_above_2", k)):
        draws = fit["posterior"][name]
        mcse = float(az.mcse(draws)) / np.sqrt(fit.attrs.get("efficiency", 1.0))
        assert abs(float(draws.mean()) - (weight * values).sum()) < 4 * mcse, name
        assert 4 * mcse < 0.3 * float(draws.std())
    assert fit.attrs["engine"] == "independent"


def test_the_table_of_groups_has_the_weight_beside_kappa(fit):
    table = hz.groups(fit)
    assert {"kappa", "weight"} <= set(table.columns)
    assert table["weight"].between(0, 1).all()
    assert table.loc["G", "weight"] > table.loc["G", "kappa"]
    assert "weight" not in hz.groups(hz.fit("vaccine_clinics", FRAME, pooling="none", random_seed=1)).columns


def test_prediction_takes_known_new_and_never_seen_clinics(fit):
    new = pd.DataFrame({"clinic": ["G", "new", "near"], "effect": [np.nan, np.nan, 0.1], "standard_error": 0.1})
    summary = hz.predict(fit, new, random_seed=1)["group_summary"].to_dataset().to_dataframe()
    assert summary["case"].tolist() == ["known", "never seen", "brings rows"]
    assert summary.loc["G", "mean"] == pytest.approx(float(fit["group_summary"]["mean"].sel(clinic="G")), abs=0.1)
    assert summary.loc["near", "mean"] == pytest.approx(0.1, abs=0.05)


@pytest.mark.slow
def test_calibration_of_a_student_population_and_that_it_would_see_a_normal_one():
    frame, _ = RECORD.simulate(np.random.default_rng(0), clinics=8)
    result = hz.calibrate(
        "vaccine_clinics", frame, population="student-t", simulations=200, draws=250, workers=2, random_seed=1
    )
    assert result.table["p_holm"].min() > 0.01


# Bad input.


@pytest.mark.parametrize(
    ("prior", "message"),
    [
        ({"theta": "Normal(mu=0, sigma=1)"}, "exact under a StudentT prior of 'theta'.*got Normal"),
        ({"theta": "StudentT(nu=1.5, mu=0, sigma=1)"}, "nu above 2"),
        ({"nu_above_2": "Normal(mu=0, sigma=1)"}, "nu_above_2"),
        ({"nu": "Gamma(alpha=2, beta=0.1)"}, "no prior named 'nu'.*nu_above_2"),
        ({"nu_above_2": "Gamma(alpha=0.5, beta=0.1)"}, "so near 0"),
    ],
)
def test_bad_priors_are_named(prior, message):
    with pytest.raises(ValueError, match=message):
        hz.fit("vaccine_clinics", FRAME, pooling="none", population="student-t", priors=prior)


def test_an_unknown_population_names_the_nearest():
    with pytest.raises(ValueError, match="Unknown population 'student'.*Did you mean 'student-t'"):
        hz.fit("vaccine_clinics", FRAME, population="student")
    with pytest.raises(ValueError, match="no prior named 'nu_above_2'.*There is one with population='student-t'"):
        hz.fit("vaccine_clinics", FRAME, priors={"nu_above_2": "Gamma(alpha=2, beta=0.1)"})
