"""Tissues with a spread each against SciPy on raw rows, ratios of integrals, draws, and a grid over hyperparameters."""

from dataclasses import replace

import arviz as az
import numpy as np
import pandas as pd
import pytest
import xarray as xr
from scipy import integrate, special, stats

import hbm_zoo as hz
from hbm_zoo.frames.rules import FrameError
from hbm_zoo.models.tissue_expression import MODEL

COMMON, RECORD = MODEL, MODEL.under(sigma="by tissue")
FRAME = pd.DataFrame(
    {
        "tissue": ["liver"] * 5 + ["kidney"] * 4 + ["placenta"] + ["lung"] * 2,
        "expression": [5.1, 2.2, 8.0, 5.5, 6.3, 7.7, 7.6, 7.8, 7.65, 4.4, 6.0, 6.9],
    }
)
Y, OF = FRAME["expression"].to_numpy(), np.repeat([0, 1, 2, 3], [5, 4, 1, 2])
M0, S = FRAME.groupby("tissue")["expression"].mean().mean(), Y.std(ddof=1)
SETTINGS = {"sigma": "by tissue", "random_seed": 3, "progressbar": False}
Z = np.linspace(-9, 9, 1201)


def at(**values):
    return xr.Dataset({name: ("sample", np.atleast_1d(np.asarray(value, float))) for name, value in values.items()})


def log_noise(sigma, s_sigma):
    return stats.halfnorm.logpdf(sigma, scale=S) + stats.halfnorm.logpdf(s_sigma, scale=0.5)


def log_prior(mu, tau, sigma, s_sigma):
    of_means = stats.norm.logpdf(mu, M0, 2.5 * S) + stats.halfnorm.logpdf(tau, scale=S)
    return of_means + log_noise(sigma, s_sigma)


def own(sigma_g, sigma, s_sigma):
    return stats.lognorm.logpdf(sigma_g, s_sigma, scale=sigma).sum()


def integrated(y, mu, tau, sigma, s_sigma):
    """Log density of some raw rows, jointly normal given sigma_g, by Simpson's rule over sigma_g."""
    spread = sigma * np.exp(s_sigma * Z)
    variance = np.linalg.eigvalsh(np.ones((y.size, y.size)))
    basis = np.linalg.eigh(np.ones((y.size, y.size)))[1]
    rotated = basis.T @ (y - mu)
    sds = np.sqrt(spread[:, None] ** 2 + tau**2 * np.round(variance, 9))
    log_f = stats.norm.logpdf(rotated, 0, sds).sum(axis=1) + stats.norm.logpdf(Z)
    return np.log(integrate.simpson(np.exp(log_f - log_f.max()), x=Z)) + log_f.max()


def marginal(mu, tau, sigma, s_sigma):
    return sum(integrated(Y[g == OF], mu, tau, sigma, s_sigma) for g in range(4))


S0 = np.sqrt((2.5 * S) ** 2 + S**2)
VARIANTS = {
    ("none", "centered"): lambda sigma, s_sigma, theta, sigma_g: (
        log_noise(sigma, s_sigma)
        + own(sigma_g, sigma, s_sigma)
        + stats.norm.logpdf(theta, M0, S0).sum()
        + stats.norm.logpdf(Y, theta[OF], sigma_g[OF]).sum()
    ),
    ("none", "marginalized"): lambda sigma, s_sigma: log_noise(sigma, s_sigma) + marginal(M0, S0, sigma, s_sigma),
    ("complete", "centered"): lambda mu, sigma, s_sigma, sigma_g: (
        log_noise(sigma, s_sigma)
        + stats.norm.logpdf(mu, M0, 2.5 * S)
        + own(sigma_g, sigma, s_sigma)
        + stats.norm.logpdf(Y, mu, sigma_g[OF]).sum()
    ),
    ("complete", "marginalized"): lambda mu, sigma, s_sigma: (
        log_noise(sigma, s_sigma) + stats.norm.logpdf(mu, M0, 2.5 * S) + marginal(mu, 0.0, sigma, s_sigma)
    ),
    ("partial", "centered"): lambda mu, tau, sigma, s_sigma, theta, sigma_g: (
        log_prior(mu, tau, sigma, s_sigma)
        + own(sigma_g, sigma, s_sigma)
        + stats.norm.logpdf(theta, mu, tau).sum()
        + stats.norm.logpdf(Y, theta[OF], sigma_g[OF]).sum()
    ),
    ("partial", "noncentered"): lambda mu, tau, sigma, s_sigma, z, sigma_g: (
        log_prior(mu, tau, sigma, s_sigma)
        + own(sigma_g, sigma, s_sigma)
        + stats.norm.logpdf(z).sum()
        + stats.norm.logpdf(Y, (mu + tau * z)[OF], sigma_g[OF]).sum()
    ),
    ("partial", "marginalized"): lambda mu, tau, sigma, s_sigma: (
        log_prior(mu, tau, sigma, s_sigma) + marginal(mu, tau, sigma, s_sigma)
    ),
}
POSITIVE = ("tau", "sigma", "s_sigma", "sigma_g")
POINT = {"mu": 6.3, "tau": 1.4, "sigma": 0.8, "s_sigma": 0.6}
POINT |= {"theta": np.array([5.2, 7.0, 4.9, 6.0]), "sigma_g": np.array([1.5, 0.3, 0.8, 0.7])}
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
    assert found == pytest.approx(formula(**{n: POINT[n] for n in names}), abs=1e-6)
    gradient = model.compile_dlogp(jacobian=False, mode="AS_WRITTEN")(named)
    differences, step = [], 1e-4
    for name in names:
        for e in np.eye(np.size(POINT[name])):
            by = step * (e if np.ndim(POINT[name]) else 1.0)
            moved = (POINT[name] * np.exp(s * by) if name in POSITIVE else POINT[name] + s * by for s in (1, -1))
            ahead, behind = (formula(**{n: POINT[n] for n in names} | {name: value}) for value in moved)
            differences.append((ahead - behind) / (2 * step))
    np.testing.assert_allclose(gradient, differences, rtol=1e-4, atol=1e-4)


H = at(mu=[6.3, 5.0], tau=[1.4, 0.3], sigma=[0.8, 1.5], s_sigma=[0.6, 0.2])


def test_rows_left_out_and_new_rows_are_ratios_of_integrals_of_raw_rows():
    data, new = RECORD.data(FRAME), FRAME.assign(expression=Y + np.linspace(-3, 5, 12))
    left_out = RECORD.group_level.leave_row_out(H, data, np.arange(12))
    ahead = RECORD.group_level.log_predictive(H, RECORD.data(new), data)
    for s in range(2):
        given = [float(H[name][s]) for name in ("mu", "tau", "sigma", "s_sigma")]
        for i in range(12):
            mine = OF[i] == OF
            others = Y[mine & (np.arange(12) != i)]
            expected = integrated(Y[mine], *given) - (integrated(others, *given) if others.size else 0.0)
            assert float(left_out[{"sample": s, "cell": i}]) == pytest.approx(expected, abs=1e-7)
        for g in range(4):
            old, fresh = Y[g == OF], new["expression"].to_numpy()[g == OF]
            expected = integrated(np.r_[old, fresh], *given) - integrated(old, *given)
            assert float(ahead[{"sample": s, "tissue": g}]) == pytest.approx(expected, abs=1e-7)


def test_one_sigma_for_all_is_the_limit():
    data, level, common = RECORD.data(FRAME), RECORD.group_level, COMMON.group_level
    for tau in (1.4, 0.0):
        h = at(mu=6.3, tau=tau, sigma=0.8, s_sigma=0.0)
        for name in ("log_left_out", "expected_log_likelihood", "reliability"):
            both = xr.broadcast(*(getattr(known, name)(h, data) for known in (level, common)))
            np.testing.assert_allclose(*both, rtol=1e-9, atol=1e-6 if name == "expected_log_likelihood" else 1e-12)
        ours, theirs = (known.leave_row_out(h, data, np.arange(12)) for known in (level, common))
        np.testing.assert_allclose(ours.transpose(*theirs.dims), theirs, rtol=1e-9)


def test_new_rows_have_the_noise_that_their_tissue_has_shown():
    """Kidney is quiet, liver is noisy, a tissue that was not seen is like any; laws of sigma_g by a grid."""
    level, data, rng = RECORD.group_level, RECORD.data(FRAME), np.random.default_rng(2)
    new = RECORD.prepared(pd.DataFrame({"tissue": ["kidney", "new", "liver"], "expression": 0.0}))
    draws = 4000
    theta = xr.DataArray(np.full((draws, 3), 7.0), dims=("sample", "tissue"))
    h = at(mu=np.full(draws, 6.3), tau=np.full(draws, 1.0), sigma=np.full(draws, 0.8), s_sigma=np.full(draws, 0.6))
    y = level.replicate(rng, theta, h, new, data)
    assert y.dims == ("sample", "cell")
    spread = 0.8 * np.exp(0.6 * Z)
    for k, g in enumerate([1, None, 0]):
        log_f = stats.norm.logpdf(Z)
        if g is not None:
            log_f = log_f + stats.norm.logpdf(Y[g == OF][:, None], 7.0, spread).sum(axis=0)
        weight = np.exp(log_f - special.logsumexp(log_f))
        cdf = lambda x: stats.norm.cdf(np.asarray(x)[:, None], 7.0, spread) @ weight  # noqa: B023, E731
        assert stats.kstest(y.values[:, k], cdf).pvalue > 1e-4


def test_a_tissue_whose_rows_are_all_the_same_is_refused_by_its_name():
    same = FRAME.assign(expression=np.where(FRAME["tissue"] == "kidney", 7.0, Y))
    with pytest.raises(FrameError, match="differ, got the same value in all 4 rows of 'kidney'"):
        hz.fit("tissue_expression", same, sigma="by tissue")
    assert COMMON.data(same).sizes["tissue"] == 4


def test_what_does_not_go_together_and_what_is_unknown_is_said():
    with pytest.raises(ValueError, match="does not go with population='student-t'"):
        hz.fit("tissue_expression", FRAME, sigma="by tissue", population="student-t")
    with pytest.raises(ValueError, match="Unknown sigma 'by_tissue'.*Did you mean 'by tissue'"):
        hz.fit("tissue_expression", FRAME, sigma="by_tissue")
    with pytest.raises(ValueError, match="no prior named 's_sigma'.*There is one with sigma='by tissue'"):
        hz.fit("tissue_expression", FRAME, priors={"s_sigma": "HalfNormal(sigma=1)"})


@pytest.fixture(scope="module")
def fit():
    return hz.fit("tissue_expression", FRAME, draws=500, **SETTINGS)


@pytest.mark.slow
def test_the_fit_is_the_quadrature(fit):
    """Means within 4 Monte Carlo errors; a shift of .3 posterior sds would be seen. Spreads of tissues within 3 %."""
    mu, tau = np.linspace(M0 - 7, M0 + 7, 57), np.exp(np.linspace(-4, 2.6, 34))
    sigma, s_sigma = np.exp(np.linspace(-3.2, 2.2, 37)), np.linspace(0.01, 2.2, 36)
    m, t, a, b = np.meshgrid(mu, tau, sigma, s_sigma, indexing="ij")
    level, z = log_prior(m, t, a, b) + np.log(t * a), np.linspace(-8, 8, 161)
    spread = np.empty((4, *level.shape))
    for g in range(4):
        y = Y[g == OF]
        n, mean, SS = y.size, y.mean(), ((y - y.mean()) ** 2).sum()
        for i, j in np.ndindex(sigma.size, s_sigma.size):
            v = (sigma[i] * np.exp(s_sigma[j] * z)) ** 2
            within = -0.5 * ((n - 1) * np.log(2 * np.pi * v) + SS / v + np.log(n)) + stats.norm.logpdf(z)
            f = np.exp(within) * stats.norm.pdf(mean, mu[:, None, None], np.sqrt(tau[:, None] ** 2 + v / n))
            spread[g, :, :, i, j] = f @ np.sqrt(v) / np.maximum(f.sum(axis=-1), 1e-300)
            with np.errstate(divide="ignore"):  # far from the data nothing is left of it
                level[:, :, i, j] += np.log(f.sum(axis=-1) * (z[1] - z[0]))
    weight = np.exp(level - special.logsumexp(level))
    for name, values in (("mu", m), ("tau", t), ("sigma", a), ("s_sigma", b)):
        draws = fit["posterior"][name]
        mcse = float(az.mcse(draws)) / np.sqrt(fit.attrs.get("efficiency", 1.0))
        assert abs(float(draws.mean()) - (weight * values).sum()) < 4 * mcse, name
        assert 4 * mcse < 0.3 * float(draws.std())
    expected = (weight * spread).sum(axis=(1, 2, 3, 4))
    found = hz.groups(fit).loc[["liver", "kidney", "placenta", "lung"], "sigma_g"]
    np.testing.assert_allclose(found, expected, rtol=0.03)


@pytest.mark.slow
def test_the_noise_of_each_is_in_the_table_and_poolings_are_compared_predicted_and_checked(fit):
    table = hz.groups(fit)
    assert table.loc["kidney", "sigma_g"] < 0.6 < 1.2 < table.loc["liver", "sigma_g"]
    fits = {"partial": fit} | {
        p: hz.fit("tissue_expression", FRAME, p, draws=500, **SETTINGS) for p in ("none", "complete")
    }
    for question in ("new_group", "new_observation"):
        assert np.isfinite(hz.compare_poolings(fits, question)["elpd"]).all()
    new = pd.DataFrame({"tissue": ["kidney", "liver", "skin"], "expression": [np.nan, np.nan, np.nan]})
    told = hz.predict(fit, new, random_seed=1)
    assert told["group_summary"]["case"].values.tolist() == ["known", "known", "never seen"]
    sd = told["row_summary"]["sd"].values
    assert sd[0] < 1.0 < sd[1]
    assert "equal variances" in hz.check_model(fit).index.get_level_values("check")


@pytest.mark.slow
def test_calibration_and_a_planted_error_that_it_sees():
    """The planted error has tissues' noise twice as uneven as the model says."""
    frame, _ = RECORD.simulate(np.random.default_rng(0), tissues=7, median_cells=6.0)
    asked = {"draws": 250, "random_seed": 1, "progressbar": False}
    right = hz.calibrate("tissue_expression", frame, simulations=100, sigma="by tissue", workers=2, **asked)
    assert right.table["p_holm"].min() > 0.01
    level = RECORD.group_level

    def uneven(rng, theta, h, new, seen):
        return level.replicate(rng, theta, h.assign(s_sigma=2 * h.s_sigma), new, seen)

    planted = replace(RECORD, group_level=replace(level, replicate=uneven))
    assert hz.calibrate(planted, frame, simulations=100, **asked).table["p_holm"].min() < 1e-3
