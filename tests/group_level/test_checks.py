"""Tails and statistics against SciPy, identities and limits; no sampling."""

import numpy as np
import pandas as pd
import pytest
import xarray as xr
from scipy import stats

import hbm_zoo as hz
from hbm_zoo.group_level import beta_binomial, checks, normal, normal_regression, poisson_gamma, two_groups
from hbm_zoo.models import line_checks, own_checks


def named(dim, *columns):
    return [xr.DataArray(np.asarray(column), dims=dim) for column in columns]


# Tails.


@pytest.mark.parametrize("cv", [0.0, 1e-6, 0.05, 0.3, 2.0])
def test_tails_of_counts_are_those_of_scipy(cv):
    O, E = named("hospital", [0, 1, 7, 60, 300, 2000], [1.5, 3.0, 4.0, 40.0, 310.0, 2100.0])
    mu = 1.1
    law = stats.poisson(E * mu) if cv < 1e-5 else stats.nbinom(cv**-2, 1 / (1 + E * mu * cv**2))
    lower, upper = poisson_gamma.tails(O, E, xr.DataArray(mu), xr.DataArray(cv))
    np.testing.assert_allclose(lower, law.cdf(O), rtol=1e-4 if 0 < cv < 1e-5 else 1e-7)
    np.testing.assert_allclose(upper, law.sf(O - 1), rtol=1e-4 if 0 < cv < 1e-5 else 1e-7)


@pytest.mark.parametrize("phi", [1e-5, 0.05, 0.5])
def test_tails_of_successes_are_those_of_scipy(phi):
    y, n = named("unit", [0, 3, 18, 45, 45], [10, 45, 45, 45, 60])
    mu = 0.3
    v = phi**2
    law = stats.binom(n.values, mu) if phi < 1e-3 else stats.betabinom(n.values, mu / v, (1 - mu) / v)
    lower, upper = beta_binomial.tails(y, n, xr.DataArray(mu), xr.DataArray(phi))
    terms = law.pmf(np.arange(61)[:, None])  # SciPy's own tail is one less the other
    for k in range(y.size):
        np.testing.assert_allclose(lower[k], terms[: int(y[k]) + 1, k].sum(), rtol=1e-4)
        np.testing.assert_allclose(upper[k], terms[int(y[k]) :, k].sum(), rtol=1e-4)


def test_tails_of_many_draws_are_those_of_each():
    y, n = named("unit", [2, 30], [20, 40])
    mu, phi = named("sample", [0.1, 0.4, 0.8], [0.2, 0.01, 0.6])
    lower, upper = beta_binomial.tails(y, n, mu, phi)
    assert lower.dims == upper.dims == ("sample", "unit")
    for k in range(3):
        each = beta_binomial.tails(y, n, mu[k], phi[k])
        np.testing.assert_allclose(lower[k], each[0])
        np.testing.assert_allclose(upper[k], each[1])


def test_tails_at_a_location_each_are_those_of_each_group():
    y, n = named("unit", [2, 30], [20, 40])
    mu, phi = xr.DataArray([[0.1, 0.6], [0.3, 0.9]], dims=("sample", "unit")), xr.DataArray([0.2, 0.05], dims="sample")
    lower, upper = beta_binomial.tails(y, n, mu, phi)
    for j in range(2):
        each = beta_binomial.tails(y[[j]], n[[j]], mu[:, j], phi)
        np.testing.assert_allclose(lower[:, [j]], each[0])
        np.testing.assert_allclose(upper[:, [j]], each[1])


def test_tails_of_effects_and_of_two_groups_are_normal():
    y, se = named("gene", [-3.0, 0.2, 1.7, 9.0], [1.0, 0.5, 0.8, 1.0])
    lower, upper = normal.tails(y, se, 0.3, 0.6)
    law = stats.norm(0.3, np.hypot(se, 0.6))
    np.testing.assert_allclose(lower, law.cdf(y))
    np.testing.assert_allclose(upper, law.sf(y))
    lower, upper = two_groups.tails(y, se, 0.8, 0.1, 2.0, 0.05, 1.2)
    null, slab = stats.norm(0.05 * se, 1.2 * se), stats.norm(0.05 * se + 0.1, np.hypot(1.2 * se, 2.0))
    np.testing.assert_allclose(lower, 0.8 * null.cdf(y) + 0.2 * slab.cdf(y))
    np.testing.assert_allclose(upper, 0.8 * null.sf(y) + 0.2 * slab.sf(y))


def test_scores_of_lines_are_white():
    """The two scores of a genotype are what a Cholesky factor of the whole covariance makes of its z."""
    frame, _ = hz.reaction_norms.MODEL.simulate(np.random.default_rng(1), genotypes=4, environments=5)
    data = hz.reaction_norms.MODEL.data(frame)
    h = xr.Dataset(
        {"mu_intercept": 48.0, "mu_slope": 1.5, "tau_intercept": 5.0, "tau_slope": 0.7, "rho": -0.4, "sigma": 3.0}
    )
    lower, upper = hz.reaction_norms.MODEL.group_level.tails(h, data)
    scores = checks.normal_scores(*(tail.transpose("genotype", "coefficient").values for tail in (lower, upper)))
    T = np.array([[25.0, -0.4 * 5 * 0.7], [-0.4 * 5 * 0.7, 0.49]])
    for g in range(4):
        one = data.isel(genotype=g)
        R = np.array([[float(one.r11), float(one.r12)], [0.0, float(one.r22)]])
        L = np.linalg.cholesky(R @ T @ R.T + 9.0 * np.eye(2))
        expected = np.linalg.solve(L, [float(one.z1), float(one.z2)] - R @ [48.0, 1.5])
        np.testing.assert_allclose(scores[g], expected, rtol=1e-9)


def test_scores_of_gradients_are_white_and_only_of_what_was_measured():
    frame, _ = hz.selection_gradients.MODEL.simulate(np.random.default_rng(2), years=5)
    data = hz.selection_gradients.MODEL.data(frame.drop(index=[3]))
    values = {"mu_1": 0.1, "mu_2": -0.1, "tau_1": 0.2, "tau_2": 0.1, "rho_12": 0.5}
    h = xr.Dataset(dict.fromkeys(hz.selection_gradients.MODEL.parameters, 0.0) | values)
    lower, upper = hz.selection_gradients.MODEL.group_level.tails(h, data)
    scores = checks.normal_scores(*(tail.transpose("year", "trait").values for tail in (lower, upper)))
    C = np.array([[0.04, 0.01], [0.01, 0.01]]) + data.S.values[0]
    np.testing.assert_allclose(scores[0], np.linalg.solve(np.linalg.cholesky(C), data.b.values[0] - [0.1, -0.1]))
    assert np.isnan(scores).tolist() == [[False, False], [False, True], *[[False, False]] * 3]
    assert scores[1, 0] == pytest.approx((data.b.values[1, 0] - 0.1) / np.sqrt(0.04 + data.S.values[1, 0, 0]))


def test_a_genotype_of_one_environment_has_one_score():
    r11, r12, r22, z1, z2 = named("genotype", [1.0], [2.0], [0.0], [3.0], [0.0])
    lower, upper = normal_regression.tails(r11, r12, r22, z1, z2, 0.0, 1.0, 1.0, 0.5, 0.2, 1.0)
    assert np.isfinite(lower[0]).all()
    assert np.isnan(lower[1]).all()
    assert np.isnan(upper[1]).all()


def test_scores_keep_their_digits_in_both_tails():
    z = np.array([-7.5, -1.0, 0.0, 1.0, 7.5])
    np.testing.assert_allclose(checks.normal_scores(stats.norm.cdf(z), stats.norm.sf(z)), z, atol=1e-12)


def test_scores_of_counts_are_of_the_middle():
    law = stats.poisson(3.0)
    scores = checks.normal_scores(law.cdf([0, 3]), law.sf([-1, 2]))
    np.testing.assert_allclose(scores, stats.norm.ppf([law.pmf(0) / 2, law.cdf(2) + law.pmf(3) / 2]), rtol=1e-12)


# Statistics.


def test_shape_and_correlation_are_those_of_scipy():
    rng = np.random.default_rng(9)
    scores = np.append(rng.gamma(2.0, size=30), np.nan)
    known = scores[:-1]
    assert checks.asymmetry(None, None, scores) == pytest.approx(stats.skew(known))
    assert checks.tails(None, None, scores) == pytest.approx(stats.kurtosis(known, fisher=False))
    other = rng.integers(0, 5, 30)
    assert checks.correlation(known, other) == pytest.approx(stats.spearmanr(known, other).statistic)


def test_what_is_all_the_same_has_no_shape_and_no_correlation():
    """As of a normal: undefined, it would be surprising in no data, or in all; z scores have standard errors of 1."""
    same = np.full(5, 0.3)
    assert (checks.asymmetry(None, None, same), checks.tails(None, None, same)) == (0.0, 3.0)
    assert checks.correlation(np.arange(5.0), np.ones(5)) == 0.0


def test_levene_is_that_of_scipy_where_groups_are_equal():
    """Where all groups have as many rows the factor of O'Neill & Mathews is the same for each, and F has none."""
    values = np.random.default_rng(2).normal(size=(4, 9))
    expected = stats.levene(*values, center="mean").statistic
    assert checks.levene(values.ravel(), np.repeat(np.arange(4), 9)) == pytest.approx(expected)


def test_levene_of_nothing_to_compare_is_0():
    assert checks.levene(np.arange(3.0), np.arange(3)) == 0.0
    assert checks.levene(np.array([1.0, 2.0, 5.0]), np.array([0, 0, 1])) == 0.0
    pairs = np.random.default_rng(1).normal(size=20)  # two rows lie as far from their mean, but for rounding
    assert checks.levene(pairs, np.repeat(np.arange(10), 2)) == 0.0


def test_kurtosis_within_does_not_see_spreads_that_differ():
    rng = np.random.default_rng(3)
    values, group = rng.normal(size=4000), np.repeat(np.arange(40), 100)
    values -= (np.bincount(group, values) / 100)[group]
    wide = values * np.repeat(np.exp(rng.normal(size=40)), 100)
    assert checks.kurtosis_within(wide, group) == pytest.approx(checks.kurtosis_within(values, group))
    assert stats.kurtosis(wide, fisher=False) > 6


def test_cochran_and_the_share_of_variance_are_those_of_metafor():
    """The BCG trials: metafor's Q and its H^2, from which Higgins & Thompson's I^2 = 1 - 1 / H^2."""
    data = hz.vaccine_clinics.MODEL.data(hz.load_data("bcg_vaccine"))
    weight = data.standard_error**-2
    mean = (weight * data.effect).sum() / weight.sum()
    assert own_checks.cochran(xr.Dataset({"mu": mean}), data, None) == pytest.approx(152.2330, abs=1e-3)
    for mu in (0.0, mean, 3.0):
        found = own_checks.share_of_variance(xr.Dataset({"mu": mu}), data, None)
        assert found == pytest.approx(1 - 12 / 152.2330, abs=1e-5)
    line = -0.03 * (hz.load_data("bcg_vaccine")["latitude"].to_numpy() - 33)
    left = own_checks.share_of_variance(xr.Dataset({"mu": ("clinic", line)}), data, None)
    moved = data.assign(effect=data.effect - line)
    assert left == pytest.approx(own_checks.share_of_variance(xr.Dataset({"mu": 0.0}), moved, None))
    assert left < 1 - 12 / 152.2330


def test_expected_zeros_are_those_of_a_negative_binomial():
    data = hz.hospital_readmission.MODEL.data(hz.load_data("heart_transplants"))
    h = xr.Dataset({"mu": 0.9, "cv": 0.3})
    law = stats.nbinom(1 / 0.09, 1 / (1 + data.expected * 0.9 * 0.09))
    assert own_checks.expected_zeros(h, data) == pytest.approx(law.pmf(0).sum(), rel=1e-9)


def test_curvature_is_students_t_of_a_least_squares_fit():
    """Beside an intercept and a slope for each genotype."""
    frame, _ = hz.reaction_norms.MODEL.simulate(np.random.default_rng(4), genotypes=5, environments=6)
    frame = frame.drop(index=[3, 11])
    data = hz.reaction_norms.MODEL.data(frame)
    lines = pd.get_dummies(frame["genotype"]).to_numpy(float)
    x = data.x.values[:, None]
    X = np.hstack([lines, lines * x, x**2])
    beta, _, _, _ = np.linalg.lstsq(X, frame["response"].to_numpy(), rcond=None)
    left = frame["response"].to_numpy() - X @ beta
    variance = left @ left / (len(frame) - X.shape[1])
    t = beta[-1] / np.sqrt(variance * np.linalg.inv(X.T @ X)[-1, -1])
    assert line_checks.curvature(None, data, None) == pytest.approx(t, rel=1e-8)


def test_residuals_are_studentised():
    """Each has the variance of the noise whatever its leverage: by the hat matrix of a genotype."""
    frame, _ = hz.reaction_norms.MODEL.simulate(np.random.default_rng(5), genotypes=2, environments=4)
    data = hz.reaction_norms.MODEL.data(frame)
    residual, spare, _, of = line_checks.about_own_lines(data)
    assert spare.all()
    X = np.column_stack([np.ones(4), data.x.values[of == 1]])
    hat = X @ np.linalg.inv(X.T @ X) @ X.T
    y = data.response.values[of == 1]
    np.testing.assert_allclose(residual[of == 1], (y - hat @ y) / np.sqrt(1 - np.diag(hat)), rtol=1e-9)


def test_counts_beyond_a_threshold_are_expected_of_the_mixture():
    frame, _ = hz.spike_slab_genes.MODEL.simulate(np.random.default_rng(6), genes=300)
    data = hz.spike_slab_genes.MODEL.data(frame)
    h = xr.Dataset({"pi0": 0.8, "mu": 0.0, "tau": 0.3, "delta0": 0.1, "sigma0": 1.1})
    check = hz.spike_slab_genes.MODEL.extras.checks["|z| > 3"]
    se = frame["standard_error"].to_numpy()
    null, slab = stats.norm(0.1, 1.1), stats.norm(0.1, np.hypot(1.1, 0.3 / se))
    by_hand = 0.8 * 300 * (null.cdf(-3) + null.sf(3)) + 0.2 * (slab.cdf(-3) + slab.sf(3)).sum()
    assert check.expected(h, data) == pytest.approx(by_hand, rel=1e-9)
    assert check.statistic(h, data, None) == (abs(frame["effect"] / se) > 3).sum()


@pytest.mark.parametrize(
    "model",
    [
        "vaccine_clinics",
        "hospital_readmission",
        "success_rates",
        "tissue_expression",
        "reaction_norms",
        "spike_slab_genes",
        "selection_gradients",
        "material_batches",
        "variance_components",
    ],
)
def test_data_with_another_response_are_those_that_are_prepared(model):
    """And with their own response they are what they were."""
    record = hz.MODELS[model].MODEL
    frame, _ = record.simulate(np.random.default_rng(7))
    other, _ = record.simulate(np.random.default_rng(8))
    n = min(len(frame), len(other))
    frame = frame.head(n)
    response = np.minimum(other[record.response].to_numpy()[:n], frame.get("trials", pd.Series(np.inf, range(n))))
    changed = frame.assign(**{record.response: np.asarray(response, frame[record.response].dtype)})
    anew = record.extras.with_response(record.data(frame), changed[record.response].to_numpy())
    expected = record.data(changed)
    for name in expected.data_vars:
        np.testing.assert_allclose(anew[name], expected[name], rtol=1e-9, atol=1e-9, err_msg=str(name))
