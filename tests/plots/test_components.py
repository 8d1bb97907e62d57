"""Components of sites: what is drawn is what the table says."""

import numpy as np
import pytest

import hbm_zoo as hz
from hbm_zoo.diagnostics.variance_components import (
    anova_h2,
    breeding_values,
    components,
    response_to_selection,
    variances,
)
from hbm_zoo.group_level import contrasts
from hbm_zoo.inference.fits import prepared

MODEL = hz.variance_components.MODEL


@pytest.fixture(scope="module")
def fit():
    frame, _ = MODEL.simulate(np.random.default_rng(3), sites=4, sires=(6, 9), dams=2, offspring=(2, 4))
    return hz.fit(MODEL, frame, "none", random_seed=1, progressbar=False)


def test_points_and_intervals_are_those_of_the_table(fit):
    table = components(fit)
    left, right = hz.plot_components(fit, threshold=0.3).axes
    for axes, name, classical in ((left, "sigma_A", "reml_sigma_A"), (right, "h2", "reml_h2")):
        points = [line.get_xdata() for line in axes.lines if len(line.get_xdata()) == 1]
        np.testing.assert_allclose(np.ravel(points)[::2], table[name])
        np.testing.assert_allclose(np.ravel(points)[1::2], table[classical])
    assert [text.get_text() for text in right.texts[:4]] == [
        f"{p:.2f}" for p in components(fit, threshold=0.3)["p_h2_above_0.3"]
    ]


def test_averages_of_draws_are_those_of_the_summary(fit):
    drawn, summary = variances(fit, MODEL), fit["group_summary"].to_dataset()
    error = drawn.sigma_A.std("sample") / np.sqrt(drawn.sizes["sample"])
    assert (abs(drawn.sigma_A.mean("sample") - summary["mean"]) < 4 * error).all()


def test_breeding_values_are_averages_of_best_linear_unbiased_predictions(fit):
    """By a dense normal, of sires and dams of one site."""
    data = prepared(fit)
    one, y, kept = contrasts.experiment(data, 0)
    K, V_of = one.A[:, one.row], one.A[np.ix_(one.row, one.row)]
    sigma_A, sigma_E = np.array([0.4, 0.9]), np.array([0.8, 0.6])
    mean, variance = contrasts.predicted(one, y, sigma_A, sigma_E)
    X = np.ones((y.size, 1))
    for i in range(2):
        inverse = np.linalg.inv(sigma_A[i] ** 2 * V_of + sigma_E[i] ** 2 * np.eye(y.size))
        P = inverse - inverse @ X @ np.linalg.solve(X.T @ inverse @ X, X.T @ inverse)
        np.testing.assert_allclose(mean[i], sigma_A[i] ** 2 * K @ P @ y, atol=1e-9)
        expected = sigma_A[i] ** 2 * np.diag(one.A) - sigma_A[i] ** 4 * np.einsum("ij,jk,ik->i", K, P, K)
        np.testing.assert_allclose(variance[i], expected, atol=1e-9)
    drawn = contrasts.drawn(np.random.default_rng(1), one, y, np.full(4000, 0.9), np.full(4000, 0.6))[0]
    np.testing.assert_allclose(drawn.mean(axis=0), mean[1], atol=5 * 0.9 / np.sqrt(4000))
    np.testing.assert_allclose(drawn.std(axis=0), np.sqrt(variance[1]), rtol=0.08)
    table = breeding_values(fit, of="dams", site=data["site"].values[0])
    labels = set(table.index.get_level_values("dam"))
    assert labels == set(data["animal"].values[kept][np.unique(one.dam[one.row])])
    assert table["offspring"].sum() == y.size
    assert table["rank"].sum() == pytest.approx(len(table) * (len(table) + 1) / 2, rel=1e-6)


def test_the_response_is_proportional_to_the_differential(fit):
    once, twice = (response_to_selection(fit, differential) for differential in (1.0, 2.0))
    np.testing.assert_allclose(twice, 2 * once)
    np.testing.assert_allclose(once["response"], components(fit)["h2"])


def test_the_analysis_of_variance_is_of_half_sibs_only(fit):
    assert np.isnan(anova_h2(prepared(fit), 0))
    frame, _ = MODEL.simulate(np.random.default_rng(3), sites=1, sires=(8, 8), offspring=(10, 10))
    data = MODEL.data(frame)
    of_sires = frame.groupby("sire")["response"]
    sires = (10 * of_sires.mean().var(ddof=1) - of_sires.var(ddof=1).mean()) / 10
    assert anova_h2(data, 0) == pytest.approx(4 * sires / (sires + of_sires.var(ddof=1).mean()))


@pytest.mark.parametrize(
    ("verb", "wrong", "sentence"),
    [
        (components, {"threshold": 20}, "threshold is a share of variance"),
        (breeding_values, {"of": "bulls"}, "sires, dams or animals|sires"),
        (breeding_values, {"site": "S99"}, "site"),
        (response_to_selection, {"differential": "1"}, "differential must be a finite number"),
    ],
)
def test_what_cannot_be_is_refused_by_name(fit, verb, wrong, sentence):
    with pytest.raises(ValueError, match=sentence):
        verb(fit, **wrong)
    other = hz.fit("hospital_readmission", hz.load_data("three_hospitals"), "none", random_seed=1, progressbar=False)
    with pytest.raises(ValueError, match="This is of fits of variance_components, got one of hospital_readmission"):
        verb(other, **({"differential": 1.0} if verb is response_to_selection else {}))
