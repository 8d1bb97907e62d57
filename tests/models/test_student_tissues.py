"""Tissues of a Student population against SciPy on raw rows, identities, limits, and a three-dimensional quadrature."""

from dataclasses import replace

import arviz as az
import numpy as np
import pandas as pd
import pytest
import xarray as xr
from scipy import integrate, special, stats

import hbm_zoo as hz
from hbm_zoo.group_level.populations import Normal
from hbm_zoo.models.tissue_expression import MODEL
from hbm_zoo.priors import given_as

NORMAL, RECORD = MODEL, MODEL.under(population="student-t")
FRAME = pd.DataFrame(
    {
        "tissue": ["liver"] * 4 + ["kidney"] * 3 + ["placenta"] + ["lung"] * 2,
        "expression": [5.1, 4.2, 6.0, 5.5, 7.7, 6.9, 7.0, 4.4, 14.0, 13.1],
    }
)
Y, OF = FRAME["expression"].to_numpy(), np.repeat([0, 1, 2, 3], [4, 3, 1, 2])
M0, S = FRAME.groupby("tissue")["expression"].mean().mean(), Y.std(ddof=1)
SETTINGS = {"population": "student-t", "random_seed": 3, "progressbar": False}


def at(**values):
    return xr.Dataset({name: ("sample", np.atleast_1d(np.asarray(value, float))) for name, value in values.items()})


def log_prior(mu, tau, nu_above_2, sigma):
    spreads = stats.halfnorm.logpdf(tau, scale=S) + stats.halfnorm.logpdf(sigma, scale=S)
    return stats.norm.logpdf(mu, M0, 2.5 * S) + spreads + stats.gamma.logpdf(nu_above_2, 2, scale=10)


def rows(theta, sigma):
    return stats.norm.logpdf(Y, theta, sigma).sum()


def integrated(y, mu, tau, nu, sigma):
    """Log of the integral over theta of some raw rows times the t, by Simpson's rule."""
    theta = np.unique(
        np.r_[y.mean() + sigma * np.linspace(-16, 16, 8001), mu + tau * np.sinh(np.linspace(-9, 9, 8001))]
    )
    log_f = stats.norm.logpdf(y[:, None], theta, sigma).sum(axis=0) + stats.t.logpdf(theta, nu, mu, tau)
    return np.log(integrate.simpson(np.exp(log_f - log_f.max()), x=theta)) + log_f.max()


def marginal(mu, tau, nu, sigma):
    return sum(integrated(Y[g == OF], mu, tau, nu, sigma) for g in range(4))


ALONE = 22, M0, np.sqrt(((2.5 * S) ** 2 + S**2 * (1 + 2 * 0.1)) * 20 / 22)  # nu, mean, scale of the matched t
VARIANTS = {
    ("none", "centered"): lambda sigma, theta: (
        stats.halfnorm.logpdf(sigma, scale=S) + stats.t.logpdf(theta, *ALONE).sum() + rows(theta[OF], sigma)
    ),
    ("none", "marginalized"): lambda sigma: (
        stats.halfnorm.logpdf(sigma, scale=S) + marginal(ALONE[1], ALONE[2], ALONE[0], sigma)
    ),
    ("partial", "centered"): lambda mu, tau, nu_above_2, sigma, theta: (
        log_prior(mu, tau, nu_above_2, sigma)
        + stats.t.logpdf(theta, 2 + nu_above_2, mu, tau).sum()
        + rows(theta[OF], sigma)
    ),
    ("partial", "noncentered"): lambda mu, tau, nu_above_2, sigma, z: (
        log_prior(mu, tau, nu_above_2, sigma)
        + stats.t.logpdf(z, 2 + nu_above_2).sum()
        + rows((mu + tau * z)[OF], sigma)
    ),
    ("partial", "marginalized"): lambda mu, tau, nu_above_2, sigma: (
        log_prior(mu, tau, nu_above_2, sigma) + marginal(mu, tau, 2 + nu_above_2, sigma)
    ),
}
POSITIVE = ("tau", "nu_above_2", "sigma")
POINT = {"mu": 6.3, "tau": 1.4, "nu_above_2": 1.7, "sigma": 0.8, "theta": np.array([5.2, 7.0, 4.9, 13.0])}
POINT["z"] = (POINT["theta"] - 6.0) / 1.3


#: The formula is the same under every pooling, and takes a while to compile.
AGAIN = [("none", "marginalized"), ("complete", "marginalized")]
CASES = [pytest.param(w, id="-".join(w), marks=[pytest.mark.slow] * (w in AGAIN)) for w in VARIANTS]


@pytest.mark.parametrize("which", CASES)
def test_every_variant_is_its_density_by_scipy_on_raw_rows_and_so_is_its_gradient(which):
    model, formula = RECORD.build(FRAME, *which), VARIANTS[which]
    names = [v.name.removesuffix("_log__") for v in model.value_vars]
    named = {f"{n}_log__" if n in POSITIVE else n: np.log(POINT[n]) if n in POSITIVE else POINT[n] for n in names}
    found = model.compile_logp(jacobian=False, mode="AS_WRITTEN")(named)
    # The variance that no pooling is matched to is itself a quadrature.
    assert found == pytest.approx(formula(**{n: POINT[n] for n in names}), abs=1e-7 if which[0] != "none" else 1e-3)
    gradient = model.compile_dlogp(jacobian=False, mode="AS_WRITTEN")(named)
    differences, step = [], 1e-4
    for name in names:
        for e in np.eye(np.size(POINT[name])):
            by = step * (e if np.ndim(POINT[name]) else 1.0)
            moved = (POINT[name] * np.exp(s * by) if name in POSITIVE else POINT[name] + s * by for s in (1, -1))
            ahead, behind = (formula(**{n: POINT[n] for n in names} | {name: value}) for value in moved)
            differences.append((ahead - behind) / (2 * step))
    np.testing.assert_allclose(gradient, differences, rtol=1e-4, atol=1e-4)


H = at(mu=[6.3, 5.0], tau=[1.4, 0.3], nu_above_2=[1.7, 0.4], sigma=[0.8, 1.5])


@pytest.mark.long
def test_a_row_left_out_is_a_ratio_of_integrals_of_raw_rows():
    data = RECORD.data(FRAME)
    found = RECORD.group_level.leave_row_out(H, data, np.array([1, 3, 6, 7, 8, 9]))
    assert set(found.dims) == {"sample", "cell"}
    for s in range(2):
        mu, tau, above, sigma = (float(H[name][s]) for name in ("mu", "tau", "nu_above_2", "sigma"))
        for k, i in enumerate([1, 3, 6, 7, 8, 9]):
            mine = OF[i] == OF
            others = Y[mine & (np.arange(10) != i)]
            without = integrated(others, mu, tau, 2 + above, sigma) if others.size else 0.0
            expected = integrated(Y[mine], mu, tau, 2 + above, sigma) - without
            assert float(found[{"sample": s, "cell": k}]) == pytest.approx(expected, abs=1e-7)


def test_new_rows_of_a_tissue_are_a_ratio_of_integrals():
    new = FRAME.assign(expression=Y + np.linspace(-3, 5, 10))
    level = RECORD.group_level
    found = level.log_predictive(H, RECORD.data(new), RECORD.data(FRAME))
    for s, g in np.ndindex(2, 4):
        given = (*(float(H[name][s]) for name in ("mu", "tau")), 2 + float(H.nu_above_2[s]), float(H.sigma[s]))
        old, fresh = Y[g == OF], new["expression"].to_numpy()[g == OF]
        expected = integrated(np.r_[old, fresh], *given) - integrated(old, *given)
        assert float(found[{"sample": s, "tissue": g}]) == pytest.approx(expected, abs=1e-7)


def test_tails_are_of_the_mean_of_the_rows_theta_integrated_out():
    data = RECORD.data(FRAME)
    lower, upper = RECORD.group_level.tails(H, data)
    np.testing.assert_allclose(lower + upper, 1, atol=1e-12)
    for s, g in np.ndindex(2, 4):
        mu, tau, sigma, nu = float(H.mu[s]), float(H.tau[s]), float(H.sigma[s]), 2 + float(H.nu_above_2[s])
        theta = mu + tau * np.sinh(np.linspace(-18, 18, 40_001))
        below = stats.norm.cdf((Y[g == OF].mean() - theta) / (sigma / np.sqrt((g == OF).sum())))
        exact = integrate.simpson(below * stats.t.pdf(theta, nu, mu, tau), x=theta)
        assert float(lower[{"sample": s, "tissue": g}]) == pytest.approx(exact, abs=1e-7)


def test_many_degrees_of_freedom_are_the_normal_tissues_and_no_spread_is_complete_pooling():
    data, other = RECORD.data(FRAME), RECORD.data(FRAME.assign(expression=Y + 0.4))
    ours, theirs, rows_of = RECORD.group_level, NORMAL.group_level, np.arange(10)
    for tau, tolerance in ((1.4, 1e-4), (0.0, 1e-10)):
        h = at(mu=6.3, tau=tau, nu_above_2=1e6 if tau else 0.5, sigma=0.8)
        for ask in (
            lambda level, h=h: level.log_left_out(h, data),
            lambda level, h=h: level.log_predictive(h, other, data),
            lambda level, h=h: level.leave_row_out(h, data, rows_of),
            lambda level, h=h: level.expected_log_likelihood(h, data),
            lambda level, h=h: level.tails(h, data)[0],
            lambda level, h=h: level.conditional(h, data).mean,
            lambda level, h=h: level.conditional(h, data).sd,
        ):
            np.testing.assert_allclose(*xr.broadcast(ask(ours), ask(theirs)), atol=tolerance, rtol=1e-5)


@pytest.fixture(scope="module")
def fit():
    return hz.fit("tissue_expression", FRAME, draws=500, **SETTINGS)


@pytest.mark.slow
def test_the_fit_is_the_quadrature(fit):
    """Means within 4 Monte Carlo errors; a shift of .3 posterior sds would be seen. 40 s."""
    mu, log_tau = np.linspace(M0 - 9, M0 + 9, 61), np.linspace(-4, 3, 41)
    log_above_2, log_sigma = np.linspace(-3.5, 4.6, 15), np.linspace(-1.6, 1.6, 33)
    tau, sigma, k = np.exp(log_tau), np.exp(log_sigma), np.exp(log_above_2)
    w = np.exp(np.linspace(-16, 5, 169))
    half = 1 + k / 2
    density = half[:, None] * (np.log(half)[:, None] + np.log(w) - w) - special.gammaln(half)[:, None]
    density = np.exp(density) * np.log(w[1] / w[0])
    m, t, a, s = np.meshgrid(mu, tau, k, sigma, indexing="ij")
    level = log_prior(m, t, a, s) + np.log(t * a * s)
    for g in range(4):
        y = Y[g == OF]
        for j, sd in enumerate(sigma):
            spread = np.hypot(sd / np.sqrt(y.size), tau[:, None] / np.sqrt(w))
            normal = stats.norm.pdf(y.mean(), mu[:, None, None], spread)
            within = stats.norm.logpdf(y, y.mean(), sd).sum() - stats.norm.logpdf(0, 0, sd / np.sqrt(y.size))
            level[..., j] += np.log(np.einsum("mtw,aw->mta", normal, density)) + within
    weight = np.exp(level - special.logsumexp(level))
    for name, values in (("mu", m), ("tau", t), ("nu_above_2", a), ("sigma", s)):
        draws = fit["posterior"][name]
        mcse = float(az.mcse(draws)) / np.sqrt(fit.attrs.get("efficiency", 1.0))
        assert abs(float(draws.mean()) - (weight * values).sum()) < 4 * mcse, name
        assert 4 * mcse < 0.3 * float(draws.std())


@pytest.mark.slow
def test_a_tissue_far_out_is_let_go_compared_predicted_and_checked(fit):
    table = hz.groups(fit)
    assert table.loc["lung", "weight"] > table.loc["lung", "kappa"]
    fits = {"partial": fit} | {
        p: hz.fit("tissue_expression", FRAME, p, draws=500, **SETTINGS) for p in ("none", "complete")
    }
    for question in ("new_group", "new_observation"):
        elpd = hz.compare_poolings(fits, question)["elpd"]
        assert np.isfinite(elpd).all()
    new = pd.DataFrame({"tissue": ["lung", "skin", "bone"], "expression": [np.nan, np.nan, 6.0]})
    told = hz.predict(fit, new, random_seed=1)["group_summary"].to_dataset().to_dataframe()
    assert told["case"].tolist() == ["known", "never seen", "brings rows"]
    assert told.loc["lung", "mean"] > 12
    checks = hz.check_model(fit)
    assert "outlying" in checks.index.get_level_values("check")


@pytest.mark.slow
def test_calibration_and_a_planted_error_that_it_sees():
    """The planted error has tissues of the t's scale that are normal, as if nu were endless."""
    frame, _ = RECORD.simulate(np.random.default_rng(0), tissues=7, median_cells=6.0)
    asked = {"draws": 250, "random_seed": 1, "progressbar": False}
    right = hz.calibrate("tissue_expression", frame, simulations=100, population="student-t", workers=2, **asked)
    assert right.table["p_holm"].min() > 0.01
    priors = RECORD.priors(RECORD.data(frame)) | {"nu_above_2": given_as("nu_above_2", "Gamma(alpha=2, beta=2)")}
    planted = replace(RECORD, group_level=replace(RECORD.group_level, population=lambda h: Normal(h.mu, h.tau)))
    found = hz.calibrate(planted, frame, simulations=100, priors=priors, **asked)
    assert found.table["p_holm"].min() < 1e-3
