"""The list of discoveries against SciPy, statsmodels and simulated truth."""

import warnings

import numpy as np
import pytest
import xarray as xr
from scipy import stats
from statsmodels.stats.multitest import multipletests

import hbm_zoo as hz
from hbm_zoo.diagnostics.multiplicity import (
    BOTH_FREE,
    NoiseMayHaveHeavyTails,
    SlabNotIdentified,
    _verdict,
    noise_from_a_t,
)
from hbm_zoo.group_level.populations import SpikeSlab
from hbm_zoo.inference.fits import hyperparameters, prepared
from hbm_zoo.inference.sampling import refit
from hbm_zoo.inference.summary import affordable
from hbm_zoo.models import spike_slab_genes as genes

MODEL = genes.MODEL


@pytest.fixture(scope="module")
def every(genes_fit):
    return hz.discoveries(genes_fit, fdr=1)


def averaged(fit, frame):
    """lfdr, P(theta > 0) and P(abs(theta) <= 0.2) of each gene, draw by draw, by SciPy."""
    h = affordable(hyperparameters(fit), len(frame))
    pi0, tau = (h[name].values[:, None] for name in ("pi0", "tau"))
    y, se = frame["effect"].to_numpy(), frame["standard_error"].to_numpy()
    null, slab = pi0 * stats.norm.pdf(y, 0, se), (1 - pi0) * stats.norm.pdf(y, 0, np.hypot(se, tau))
    lfdr, k = null / (null + slab), tau**2 / (tau**2 + se**2)
    after = stats.norm(k * y, np.sqrt(k) * se)
    within = lfdr + (1 - lfdr) * (after.cdf(0.2) - after.cdf(-0.2))
    return [part.mean(axis=0) for part in (lfdr, (1 - lfdr) * after.sf(0), within)]


def test_probabilities_are_averages_over_draws(genes_fit, every):
    frame = hz.load_data("simulated_genes")
    lfdr, above, within = averaged(genes_fit, frame)
    rows = every.loc[frame["gene"]]
    np.testing.assert_allclose(rows["lfdr"], lfdr, rtol=1e-8, atol=1e-14)
    np.testing.assert_allclose(rows["lfsr"], lfdr + np.minimum(above, 1 - lfdr - above), rtol=1e-7, atol=1e-12)
    small = hz.discoveries(genes_fit, fdr=1, min_effect=0.2).loc[frame["gene"], "p_within"]
    np.testing.assert_allclose(small, within, atol=5e-3)  # at fewer draws
    np.testing.assert_allclose(rows["p_value"], 2 * stats.norm.sf(abs(frame["effect"] / frame["standard_error"])))


def test_intervals_hold_their_share_of_the_mixture(genes_fit, every):
    """An endpoint off the spike cuts its tail off exactly; at exactly 0 the spike covers the tail."""
    h = hyperparameters(genes_fit).isel(sample=slice(None, None, 10))
    data = MODEL.data(hz.load_data("simulated_genes"))
    posterior = hz.spike_slab_genes.population(hz.spike_slab_genes.conditional(h, data))
    for name, tail in (("eti89_lb", 0.055), ("eti89_ub", 0.945)):
        end = xr.DataArray(every.loc[data.gene.values, name].to_numpy(), dims="gene")
        upto = posterior.cdf(end).mean("sample")
        below = upto - (end == 0) * posterior.null.mean("sample")
        assert ((below <= tail + 0.01) & (upto >= tail - 0.01)).all()
        assert (end == 0).mean() > 0.5
        np.testing.assert_allclose(upto[end != 0], tail, atol=0.01)


def test_the_list_is_the_longest_whose_mean_lfdr_is_small(genes_fit, every):
    found = hz.discoveries(genes_fit, fdr=0.1)
    assert every["lfdr"].is_monotonic_increasing
    np.testing.assert_allclose(found["bayesian_fdr"], np.cumsum(found["lfdr"]) / np.arange(1, len(found) + 1))
    assert found["bayesian_fdr"].iloc[-1] <= 0.1 < every["bayesian_fdr"].iloc[len(found)]
    assert list(found.index) == list(every.index[: len(found)])
    assert found.attrs["discoveries"] == len(found) > 20


def test_s_values_are_means_of_smaller_lfsr(every):
    by_hand = [every["lfsr"][every["lfsr"] <= value].mean() for value in every["lfsr"]]
    np.testing.assert_allclose(every["s_value"], by_hand)


def test_classical_counts_are_those_of_statsmodels(genes_fit, every):
    attrs = hz.discoveries(genes_fit, fdr=0.05).attrs
    for name, method in (("bonferroni", "bonferroni"), ("benjamini_hochberg", "fdr_bh")):
        assert attrs[name] == multipletests(every["p_value"], 0.05, method)[0].sum()
    assert attrs["p_below_0.05"] == (every["p_value"] < 0.05).sum()
    assert f"{attrs['discoveries']} of 1,000 genes differ" in attrs["verdict"]


def test_larger_effects_are_fewer(genes_fit):
    larger = hz.discoveries(genes_fit, min_effect=0.3)
    assert 0 < len(larger) < len(hz.discoveries(genes_fit))
    assert (larger["p_within"] >= larger["lfdr"]).all()
    assert larger["p_within"].is_monotonic_increasing
    assert "by more than 0.3" in larger.attrs["verdict"]


def test_a_fit_read_from_disk_gives_the_same_list(genes_fit, tmp_path):
    genes_fit.to_netcdf(tmp_path / "fit.nc")
    with xr.open_datatree(tmp_path / "fit.nc") as loaded:
        again = hz.discoveries(loaded.load(), min_effect=0.1)
    assert again.equals(hz.discoveries(genes_fit, min_effect=0.1))


def test_refusals_in_a_sentence(genes_fit, three_hospitals_fits):
    with pytest.raises(ValueError, match="some groups may have no effect.*got partial pooling of hospital_readmission"):
        hz.discoveries(three_hospitals_fits["partial"])
    alone = hz.fit(genes, hz.load_data("simulated_genes").head(5), pooling="none", random_seed=1)
    with pytest.raises(ValueError, match="got no pooling|got none pooling"):
        hz.discoveries(alone)
    for fdr in (0, -0.1, 1.5):
        with pytest.raises(ValueError, match="fdr must be above 0 and at most 1"):
            hz.discoveries(genes_fit, fdr=fdr)
    with pytest.raises(ValueError, match="min_effect must be 0 or more"):
        hz.discoveries(genes_fit, min_effect=-1)


def test_what_lists_of_a_free_null_and_slab_held_is_said_beside_them(genes_fit):
    """And beside no others: those hold what they promise."""
    found = hz.discoveries(genes_fit)
    for null in ("theoretical", "empirical"):
        for slab in ("normal", "unimodal"):
            found.attrs |= {"null": null, "slab": slab}
            assert (BOTH_FREE in _verdict(found, "gene")) == ((null, slab) == ("empirical", "unimodal"))
    nothing = found.head(0)
    nothing.attrs = found.attrs | {"discoveries": 0, "null": "empirical", "slab": "unimodal"}
    assert BOTH_FREE not in _verdict(nothing, "gene")


@pytest.mark.parametrize("seed", [1, pytest.param(2, marks=pytest.mark.slow)])
def test_pure_null_data_end_with_a_sentence_and_a_passed_gate(seed):
    """Nothing differs: the sampler is fine, the slab is not identified, nothing is listed."""
    frame, _ = genes.simulate(np.random.default_rng(seed), genes=500, pi0=1.0)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        fit = hz.fit(genes, frame, random_seed=seed, progressbar=False)
    with pytest.warns(SlabNotIdentified, match="Slab not identified"):
        found = hz.discoveries(fit, fdr=0.2)
    assert len(found) == 0
    assert found.attrs["verdict"].endswith("No discoveries.")
    assert found.attrs["log_evidence"] < 3


def lists_of_one_study(fit, rng, alpha):
    """False and all discoveries of one simulated data set, and what Bonferroni lists, by the fast refit."""
    frame, truth = genes.simulate(rng, genes=1000, pi0=0.9)
    data = MODEL.data(frame)
    h = hyperparameters(refit(fit, data, random_seed=int(rng.integers(1e6)), draws=150))
    lfdr = hz.spike_slab_genes.expectations(h, data)["lfdr"].mean("sample").values
    order = np.argsort(lfdr)
    listed = order[np.cumsum(lfdr[order]) / np.arange(1, lfdr.size + 1) <= alpha]
    p_value = 2 * stats.norm.sf(abs(frame["effect"] / frame["standard_error"]))
    return (truth.theta.values[listed] == 0).sum(), listed.size, (p_value <= alpha / lfdr.size).sum()


@pytest.mark.long
def test_the_realised_false_discovery_proportion_is_as_promised(genes_fit):
    """Twenty data sets, one gene in ten not null: the mean proportion is within 2 se of alpha or below."""
    rng, alpha = np.random.default_rng(11), 0.1
    false, listed, bonferroni = np.array([lists_of_one_study(genes_fit, rng, alpha) for _ in range(20)]).T
    proportion = false / np.maximum(listed, 1)
    assert proportion.mean() <= alpha + 2 * proportion.std(ddof=1) / np.sqrt(20)
    assert proportion.mean() > alpha / 3  # nor is the promise kept by listing next to nothing
    assert (listed > bonferroni).all()


def test_evidence_of_the_slab_is_against_a_null_as_wide_as_the_z_scores(genes_fit):
    """By quadrature over pi0 and tau; against the theoretical null it would be more."""
    frame, _ = genes.simulate(np.random.default_rng(4), genes=60, pi0=0.7)
    data = MODEL.data(frame)
    fit = hz.fit(genes, frame, random_seed=5, progressbar=False)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", SlabNotIdentified)
        evidence = hz.discoveries(fit).attrs["log_evidence"]
    pi0, tau = np.linspace(0.0005, 0.9995, 300), np.exp(np.linspace(-6, 3, 250)) * 0.2
    median = float(np.median(data.standard_error))
    weights = stats.beta(9, 1).pdf(pi0)[:, None] * stats.norm(np.log(2 * median), 1).pdf(np.log(tau))[None]
    grid = xr.Dataset({"pi0": ("p", pi0), "tau": ("t", tau), "mu": 0.0, "delta0": 0.0, "sigma0": 1.0})
    log_likelihood = MODEL.group_level.log_left_out(grid, data).sum("gene").transpose("p", "t").values
    se, z = frame["standard_error"], frame["effect"] / frame["standard_error"]
    null = stats.norm.logpdf(frame["effect"], z.mean() * se, z.std(ddof=0) * se).sum()
    theoretical = stats.norm.logpdf(frame["effect"], 0, se).sum()
    mean = np.average(log_likelihood - null, weights=weights * np.exp(log_likelihood - log_likelihood.max()))
    assert evidence == pytest.approx(mean, abs=0.3)
    assert null > theoretical
    assert isinstance(hz.spike_slab_genes.population(grid), SpikeSlab)


@pytest.mark.long
def test_noise_with_heavy_tails_is_said_beside_the_list():
    """A t with 5 degrees of freedom and no effects: there is a list, and what would explain it as well."""
    rng = np.random.default_rng(3)
    frame, _ = genes.simulate(rng, genes=1000, pi0=1.0)
    frame["effect"] = frame["standard_error"] * rng.standard_t(5, len(frame))
    fit = hz.fit(genes, frame, random_seed=7, progressbar=False)
    with pytest.warns(NoiseMayHaveHeavyTails, match=r"rests on normal noise.*explains the data better \(by"):
        found = hz.discoveries(fit)
    assert len(found) > 0
    assert found.attrs["log_evidence_over_t"] < 0
    assert found.attrs["t_degrees"] == pytest.approx(5, abs=2)
    assert found.attrs["verdict"].endswith("turn them into z scores first.")


def test_normal_noise_and_a_slab_are_ahead_of_a_t(genes_fit):
    attrs = hz.discoveries(genes_fit).attrs
    assert attrs["log_evidence_over_t"] > 0
    assert "rests on" not in attrs["verdict"]


def test_the_best_t_is_that_of_a_grid(genes_fit):
    """Beside it nothing is better, and its density is that of the effects, not of z scores."""
    data = prepared(genes_fit)
    se, effect = data.standard_error.values, data.effect.values
    best, degrees = noise_from_a_t(data)
    nu, width, centre = np.meshgrid(np.geomspace(2, 8, 40), np.linspace(0.8, 1.1, 31), np.linspace(-0.1, 0.1, 9))
    grid = stats.t.logpdf(effect, nu[..., None], centre[..., None] * se, width[..., None] * se).sum(axis=-1)
    assert grid.max() < best + 1e-6
    assert grid.max() == pytest.approx(best, abs=0.1)
    assert nu.ravel()[grid.argmax()] == pytest.approx(degrees, rel=0.1)


@pytest.mark.long
@pytest.mark.parametrize("null", ["theoretical", pytest.param("empirical", marks=pytest.mark.slow)])
def test_a_wide_null_is_no_evidence_for_a_slab(null):
    """Z scores with a sd of 1.3 and no effects: nothing is listed, under either null."""
    frame, _ = genes.simulate(np.random.default_rng(6), genes=1000, pi0=1.0, sigma0=1.3)
    fit = hz.fit(genes, frame, null=null, random_seed=1, progressbar=False)
    with pytest.warns(SlabNotIdentified, match="the null as wide as the z scores"):
        found = hz.discoveries(fit)
    assert len(found) == 0
    assert found.attrs["benjamini_hochberg"] > 0  # which takes standard errors at their word
