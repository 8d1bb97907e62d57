"""Genes that are alike in z: the model of z scores, reported in the unit of the effect."""

import numpy as np
import pandas as pd
import pytest
import xarray as xr
from scipy import stats
from scipy.optimize import approx_fprime

import hbm_zoo as hz
from hbm_zoo.diagnostics.multiplicity import NoiseMayHaveHeavyTails
from hbm_zoo.group_level.checks import normal_scores
from hbm_zoo.inference.fits import hyperparameters
from hbm_zoo.models import spike_slab_genes as genes

EFFECTS, BY_Z = genes.MODEL, genes.MODEL.under(unit="z")
FEW = pd.DataFrame({"gene": ["A", "B", "C"], "effect": [0.35, -0.9, 0.01], "standard_error": [0.2, 0.3, 0.05]})
SCORES = FEW.assign(effect=FEW["effect"] / FEW["standard_error"], standard_error=1.0)
LOG_SE = np.log(FEW.set_index("gene")["standard_error"].to_xarray())
POINT = {"pi0": 0.7, "tau": 2.5, "mu": 0.0, "delta0": 0.2, "sigma0": 1.1}
H = xr.Dataset({name: ("sample", [value]) for name, value in POINT.items()})


def by_scipy(u, null):
    """Log density of the effects at what PyMC has on the line: logit pi0, log tau, delta0, log sigma0."""
    pi0, tau = 1 / (1 + np.exp(-u[0])), np.exp(u[1])
    delta0, sigma0 = (u[2], np.exp(u[3])) if null == "empirical" else (0.0, 1.0)
    y, se = FEW["effect"].to_numpy(), FEW["standard_error"].to_numpy()
    spike = np.log(pi0) + stats.norm.logpdf(y, delta0 * se, sigma0 * se)
    return np.logaddexp(spike, np.log1p(-pi0) + stats.norm.logpdf(y, delta0 * se, se * np.hypot(sigma0, tau))).sum()


@pytest.mark.parametrize("null", ["theoretical", "empirical"])
def test_density_and_gradient_are_those_of_scipy(null):
    model = BY_Z.under(unit="z", null=null).build(FEW, parameterization="marginalized")
    values = [model.rvs_to_values[v] for v in model.free_RVs]
    u = np.array([0.8, 0.9, 0.2, 0.1])[: len(values)]
    point = {value.name: np.asarray(at) for value, at in zip(values, u, strict=True)}
    ours = model.compile_logp(vars=model.observed_RVs, mode="AS_WRITTEN")(point)
    assert float(ours) == pytest.approx(by_scipy(u, null), rel=1e-12)
    slope = model.compile_dlogp(mode="AS_WRITTEN")(point)
    log_prior = model.compile_logp(vars=model.free_RVs, mode="AS_WRITTEN")
    whole = approx_fprime(u, lambda at: by_scipy(at, null) + float(log_prior(dict(zip(point, at, strict=True)))), 1e-7)
    np.testing.assert_allclose(slope, whole, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("null", ["theoretical", "empirical"])
def test_it_is_the_model_of_z_scores_less_the_jacobian(null):
    ours, scores = BY_Z.under(unit="z", null=null), EFFECTS.under(null=null)
    data, of_scores = ours.data(FEW), scores.data(SCORES)
    level, other = ours.group_level, scores.group_level
    np.testing.assert_allclose(level.log_left_out(H, data), other.log_left_out(H, of_scores) - LOG_SE, rtol=1e-12)
    np.testing.assert_allclose(level.reliability(H, data), other.reliability(H, of_scores), rtol=1e-12)
    lfdr, of_z = (each.expectations(H, of)["lfdr"] for each, of in ((level, data), (other, of_scores)))
    np.testing.assert_allclose(lfdr, of_z, rtol=1e-12)
    theta, zeta = level.conditional(H, data), other.conditional(H, of_scores)
    for name in ("mean", "sd"):
        np.testing.assert_allclose(getattr(theta, name), getattr(zeta, name) * np.exp(LOG_SE), rtol=1e-12, atol=1e-15)


def test_standard_errors_that_are_all_the_same_leave_no_difference():
    same = FEW.assign(standard_error=0.2)
    h = H.assign(tau=H.tau * 0.2)
    of_effects = EFFECTS.group_level.log_left_out(h, EFFECTS.data(same))
    np.testing.assert_allclose(BY_Z.group_level.log_left_out(H, BY_Z.data(same)), of_effects, rtol=1e-12)


def test_no_spread_is_nothing_and_one_z_for_all_is_no_spread():
    """Tau = 0 is exact: theta is 0; with pi0 = 0 and a location it is mu se_g."""
    data = BY_Z.data(FEW)
    nothing = BY_Z.group_level.conditional(H.assign(tau=0 * H.tau), data)
    np.testing.assert_array_equal(nothing.mean, 0)
    np.testing.assert_array_equal(nothing.sd, 0)
    one = H.assign(tau=0 * H.tau, pi0=0 * H.pi0, mu=H.mu + 1.5)
    np.testing.assert_allclose(BY_Z.group_level.conditional(one, data).mean.values[0], 1.5 * np.exp(LOG_SE))
    np.testing.assert_allclose(BY_Z.group_level.target(one, data).values.ravel(), 1.5 * np.exp(LOG_SE))


def test_halves_keep_what_a_z_score_is_worth():
    """A gene's effect is the same in a half of the data, whose standard error is larger."""
    data = BY_Z.data(FEW)
    for half in BY_Z.extras.thin(np.random.default_rng(1), data):
        np.testing.assert_allclose(half.standard_error, data.standard_error * np.sqrt(2))
        np.testing.assert_array_equal(half.unit, data.unit)
        np.testing.assert_array_equal(BY_Z.group_level.of_groups(H, half).sd, BY_Z.group_level.of_groups(H, data).sd)


@pytest.fixture(scope="module")
def badly_measured():
    """Genes whose effects go with their standard errors, and fits in both units."""
    frame, truth = BY_Z.simulate(np.random.default_rng(3), genes=400, pi0=0.3, sigma_standard_error=1.0)
    of_effects = {"partial": hz.fit(genes, frame, random_seed=2, progressbar=False)}
    by_z = hz.fit_poolings(genes, frame, unit="z", random_seed=2, progressbar=False)
    return frame, truth, {"effect": of_effects, "z": by_z}


def test_elpd_is_that_of_z_scores_less_the_sum_of_log_se(badly_measured):
    frame, _, fits = badly_measured
    scores = frame.assign(effect=frame["effect"] / frame["standard_error"], standard_error=1.0)
    of_scores = hz.fit(genes, scores, random_seed=7, progressbar=False)
    ours, theirs = (hz.compare_poolings({"partial": f}).loc["partial"] for f in (fits["z"]["partial"], of_scores))
    error = np.hypot(ours["mcse"], theirs["mcse"])
    assert error < 0.3
    assert abs(ours["elpd"] - theirs["elpd"] + np.log(frame["standard_error"]).sum()) < 4 * error


def test_the_unit_that_the_data_came_from_predicts_better(badly_measured):
    _, truth, fits = badly_measured
    elpd = {u: hz.compare_poolings({"partial": of["partial"]}).loc["partial", "elpd"] for u, of in fits.items()}
    assert elpd["z"] > elpd["effect"] + 10
    drawn = fits["z"]["partial"]["posterior"]
    for name in ("pi0", "tau"):
        assert abs(drawn[name].mean() - truth[name]) < 4 * drawn[name].std()
    again = fits["z"]["partial"]["group_summary"].dataset
    assert abs(((again["mean"] - truth.theta.values) / again["sd"]).mean()) < 4 / np.sqrt(400)


def test_the_check_of_standard_errors_names_the_other_unit(badly_measured):
    """Badly measured genes have too large scores where effects are taken to be alike, and not where z scores are."""
    check = genes.MODEL.extras.checks["standard error"]
    assert check.alternative == {"more": {"unit": "z"}, "fewer": {"unit": "effect"}}
    frame, _, fits = badly_measured
    seen = {}
    for unit, of in fits.items():
        record = genes.MODEL.under(unit=unit)
        h, data = hyperparameters(of["partial"]).mean("sample"), record.data(frame)
        scores = normal_scores(*(tail.values for tail in record.group_level.tails(h, data)))
        seen[unit] = check.statistic(h, data, scores)
    assert seen["effect"] > 3 / np.sqrt(len(frame))
    assert abs(seen["z"]) < 3 / np.sqrt(len(frame))


@pytest.mark.slow
def test_both_questions_and_the_list(badly_measured):
    frame, truth, fits = badly_measured
    for question in ("new_group", "new_observation"):
        table = hz.compare_poolings(fits["z"], question=question)
        assert table.index[0] == "partial"
        assert np.isfinite(table["elpd"].astype(float)).all()
    with pytest.warns(NoiseMayHaveHeavyTails, match="explains the data as well"):
        found = hz.discoveries(fits["z"]["partial"], fdr=0.1)
    wrong = (truth.theta.sel(gene=found.index.to_numpy()) == 0).sum().item()
    assert len(found) > 30
    assert wrong <= 0.1 * len(found) + 3 * np.sqrt(0.1 * len(found))
    bayes = hz.empirical_bayes(genes, frame, unit="z")["estimates"]["value"].to_series()
    assert bayes["tau"] == pytest.approx(truth.tau.item(), rel=0.3)


def test_a_gene_never_seen_needs_its_standard_error(badly_measured):
    _, _, fits = badly_measured
    new = pd.DataFrame({"gene": ["X", "Y"], "standard_error": [0.1, 1.0]})
    sd = hz.predict(fits["z"]["partial"], new)["group_summary"].dataset["sd"]
    assert sd.sel(gene="Y").item() == pytest.approx(10 * sd.sel(gene="X").item(), rel=1e-6)
    with pytest.raises(ValueError, match="depends on its columns: give it a row"):
        hz.predict(fits["z"]["partial"], n_new=1)


def test_pictures_of_two_groups_and_the_volcano(badly_measured):
    """The expected counts of z are those of the model: as many in all as there are genes."""
    _, _, fits = badly_measured
    above = hz.plot_local_fdr(fits["z"]["partial"]).axes[0]
    z, count = next(line.get_data() for line in above.lines if line.get_label() == "all genes, expected")
    width = (z[-1] - z[0]) / 90
    assert np.trapezoid(count, z) / width == pytest.approx(400, rel=0.02)
    with pytest.warns(NoiseMayHaveHeavyTails):  # 400 genes do not tell
        volcano = hz.plot_volcano(fits["z"]["partial"])
    assert "genes with an effect" in volcano.get_suptitle()
