"""Spike-and-slab genes: references, identities of the variants, poolings, readers, halves."""

import io
import json
import re
from pathlib import Path

import numpy as np
import pandas as pd
import pymc as pm
import pytest
import xarray as xr
from pymc_extras.prior import Prior
from scipy import special, stats

import hbm_zoo as hz
from hbm_zoo.frames.rules import FrameError, FrameWarning
from hbm_zoo.inference.fits import hyperparameters
from hbm_zoo.models import spike_slab_genes as genes

MODEL = genes.MODEL
CLOSED = hz.spike_slab_genes
REFERENCE = json.loads((Path(__file__).parents[1] / "reference" / "leukemia_genes.json").read_text())["analyses"]
ABL1 = {"1635_at", "1636_g_at", "39730_at"}
DEGREES_OF_FREEDOM = 77
NULLS = ("theoretical", "empirical")


def at(**values):
    """Hyperparameters at one point; what is not given is the theoretical null and no common effect."""
    values = {"mu": 0.0, "delta0": 0.0, "sigma0": 1.0} | values
    return xr.Dataset({name: ("sample", [float(value)]) for name, value in values.items()})


@pytest.fixture(scope="module")
def leukemia():
    """Effects on the log2 scale, and the same as z scores (t mapped to a standard normal)."""
    effects = hz.load_data("leukemia_genes")
    t = effects["effect"] / effects["standard_error"]
    scores = effects.assign(effect=stats.norm.ppf(stats.t.cdf(t, DEGREES_OF_FREEDOM)), standard_error=1.0)
    return {"effects": MODEL.data(effects), "scores": MODEL.data(scores)}


# The reference: maximum likelihood, its list, a quadrature.


@pytest.mark.parametrize(
    ("analysis", "scale", "log_likelihood"),
    [
        ("maximum_likelihood", "scores", -20129.128),
        ("ml_empirical_null", "scores", -20127.297),
        ("ml_effect_scale", "effects", 11710.385),
    ],
)
def test_log_likelihood_at_the_reference_estimates(leukemia, analysis, scale, log_likelihood):
    estimates = dict(REFERENCE[analysis]["estimates"])
    assert estimates.pop("log_likelihood") == pytest.approx(log_likelihood, abs=0.006)
    ours = float(CLOSED.log_marginal(at(**estimates), leukemia[scale]).sum())
    assert ours == pytest.approx(log_likelihood, abs=0.01)  # z scores are recomputed from seven digits


def test_the_list_at_the_reference_estimates(leukemia):
    estimates = REFERENCE["maximum_likelihood"]["estimates"]
    h = at(pi0=estimates["pi0"], tau=estimates["tau"])
    lfdr = np.sort(CLOSED.expectations(h, leukemia["scores"])["lfdr"].values.ravel())
    running = np.cumsum(lfdr) / np.arange(1, lfdr.size + 1)
    selected = REFERENCE["maximum_likelihood"]["bayesian_fdr_selection"]
    for alpha in (0.05, 0.1):
        assert abs((running <= alpha).sum() - selected[f"alpha_{alpha}"]) <= 1


def test_probes_of_abl1_are_three_of_the_four_surest(leukemia):
    for scale, analysis in (("scores", "maximum_likelihood"), ("effects", "ml_effect_scale")):
        estimates = REFERENCE[analysis]["estimates"]
        h = at(pi0=estimates["pi0"], tau=estimates["tau"])
        lfdr = CLOSED.expectations(h, leukemia[scale])["lfdr"].isel(sample=0)
        assert set(lfdr.gene.values[np.argsort(lfdr.values)[:4]]) > ABL1


def test_the_posterior_of_the_reference_by_quadrature(leukemia):
    """Our likelihood on a grid, under the reference's priors, gives the reference's moments."""
    pi0, tau = np.linspace(0.72, 0.86, 25), np.linspace(1.28, 1.82, 25)
    grid = xr.Dataset({"pi0": ("p", pi0), "tau": ("t", tau), "mu": 0.0, "delta0": 0.0, "sigma0": 1.0})
    data = leukemia["scores"]
    parts = [data.isel(gene=slice(start, start + 400)) for start in range(0, data.sizes["gene"], 400)]
    total = sum(CLOSED.log_marginal(grid, part).sum("gene").transpose("p", "t").values for part in parts)
    total = total + stats.halfnorm(scale=5).logpdf(tau)
    weights = np.exp(total - total.max())
    for name, values in (("pi0", pi0[:, None]), ("tau", tau[None])):
        mean = np.average(values + 0 * weights, weights=weights)
        sd = np.sqrt(np.average((values - mean + 0 * weights) ** 2, weights=weights))
        reference = REFERENCE["quadrature"]["estimates"][name]
        assert mean == pytest.approx(reference["mean"], abs=2e-3 * reference["mean"])
        assert sd == pytest.approx(reference["sd"], rel=0.03)


@pytest.mark.slow
def test_the_posterior_of_the_reference_by_sampling():
    frame = hz.load_data("leukemia_genes")
    t = frame["effect"] / frame["standard_error"]
    scores = frame.assign(effect=stats.norm.ppf(stats.t.cdf(t, DEGREES_OF_FREEDOM)), standard_error=1.0)
    priors = {"pi0": Prior("Beta", alpha=1, beta=1), "tau": Prior("HalfNormal", sigma=5)}
    fit = hz.fit(genes, scores, priors=priors, random_seed=6, progressbar=False)
    for name in ("pi0", "tau"):
        draws, reference = fit["posterior"][name].values.ravel(), REFERENCE["quadrature"]["estimates"][name]
        error = reference["sd"] / np.sqrt(1000)
        assert abs(draws.mean() - reference["mean"]) < 5 * error
        for q in ("q2.5", "q97.5"):
            assert np.quantile(draws, float(q[1:]) / 100) == pytest.approx(reference[q], abs=8 * error)
    with pytest.warns(UserWarning, match="rests on normal noise"):
        found = hz.discoveries(fit)
    classical = REFERENCE["classical"]
    assert set(found.index[:4]) > ABL1
    assert abs(len(found) - 184) <= 5
    assert found.attrs["bonferroni"] == classical["bonferroni_0.05"]
    assert found.attrs["benjamini_hochberg"] == classical["benjamini_hochberg_0.05"]
    assert found.attrs["p_below_0.05"] == classical["two_sided_p_below_0.05"]


@pytest.mark.slow
def test_empirical_bayes_finds_the_maximum_of_the_reference():
    frame = hz.load_data("leukemia_genes")
    fit = hz.empirical_bayes(genes, frame)
    ours = fit["estimates"]["value"].to_series()
    estimates = REFERENCE["ml_effect_scale"]["estimates"]
    assert ours["pi0"] == pytest.approx(estimates["pi0"], abs=2e-4)
    assert ours["tau"] == pytest.approx(estimates["tau"], abs=1e-3)
    assert fit.attrs["log_likelihood"] == pytest.approx(11710.385, abs=0.01)


# The variants say the same thing.

FEW = pd.DataFrame({"gene": ["A", "B"], "effect": [0.35, -0.9], "standard_error": [0.2, 0.3]})
POINT = {"pi0": 0.7, "tau": 0.8, "delta0": 0.2, "sigma0": 1.1}


def likelihood_of(form, null, **values):
    """Log density of the data, and of the genes' own variables, at given values, as PyMC has it."""
    model = MODEL.build(FEW, parameterization=form, null=null)
    variables = [model["y"], *(model[name] for name in values if name in model.named_vars)]
    logp = model.compile_logp(vars=variables, jacobian=False, mode="AS_WRITTEN")
    point = model.initial_point()
    for variable in model.free_RVs:
        value = values.get(variable.name, POINT.get(variable.name))
        transform = model.rvs_to_transforms[variable]
        moved = value if transform is None else transform.forward(pm.math.constant(value), *variable.owner.inputs)
        point[model.rvs_to_values[variable].name] = np.asarray(moved if transform is None else moved.eval())
    return float(logp(point))


@pytest.mark.parametrize("null", NULLS)
def test_summing_the_indicators_out_of_the_page_gives_the_noncentered_form(null):
    beta = np.array([0.4, -1.1])
    by_indicator = [likelihood_of("indicator", null, gamma=np.array(gamma), beta=beta) for gamma in np.ndindex(2, 2)]
    noncentered = likelihood_of("noncentered", null, z=beta / POINT["tau"]) - 2 * np.log(POINT["tau"])
    assert np.logaddexp.reduce(by_indicator) == pytest.approx(noncentered, rel=1e-10)


@pytest.mark.parametrize("null", NULLS)
def test_integrating_the_effects_out_gives_the_marginalized_form(null):
    """The mixture of both genes by quadrature over beta."""
    delta0, sigma0 = (POINT["delta0"], POINT["sigma0"]) if null == "empirical" else (0.0, 1.0)
    centre, s = FEW["standard_error"] * delta0, FEW["standard_error"] * sigma0
    beta = np.linspace(-8, 8, 4001)
    total = 0.0
    for y, c, width in zip(FEW["effect"], centre, s, strict=True):
        mixture = 0.7 * stats.norm.pdf(y, c, width) + 0.3 * stats.norm.pdf(y, c + beta, width)
        total += np.log(np.trapezoid(stats.norm.pdf(beta, 0, 0.8) * mixture, beta))
    assert likelihood_of("marginalized", null) == pytest.approx(total, rel=1e-8)


def test_build_shows_the_page_and_fit_refuses_its_indicators():
    model = MODEL.build(FEW)
    assert {v.name for v in model.free_RVs} == {"pi0", "tau", "gamma", "beta"}
    assert {v.name for v in MODEL.build(FEW, null="empirical").free_RVs} > {"delta0", "sigma0"}
    with pytest.raises(ValueError, match="NUTS cannot draw gamma, which is discrete"):
        hz.fit(genes, FEW, parameterization="indicator")


def test_recover_needs_no_more_than_was_sampled(genes_fit):
    frame = hz.load_data("simulated_genes")
    drawn = xr.DataTree.from_dict({"posterior": genes_fit["posterior"].to_dataset()[["pi0", "tau"]]})
    theta = hz.recover(drawn, genes, frame, random_seed=1)["posterior"]["theta"]
    lfdr = genes_fit["group_summary"]["lfdr"]
    share = (theta == 0).mean(["chain", "draw"])
    np.testing.assert_allclose(share, lfdr, atol=5 * 0.5 / np.sqrt(4000))
    assert abs(theta.mean(["chain", "draw"]) - genes_fit["group_summary"]["mean"]).max() < 0.05


@pytest.mark.slow
def test_sampling_with_visible_effects_agrees_with_sampling_without(genes_fit):
    frame = hz.load_data("simulated_genes").head(300)
    draws = {"noncentered": 2000, "marginalized": 1000}
    fits = [hz.fit(genes, frame, parameterization=form, draws=n, random_seed=8) for form, n in draws.items()]
    for name in ("pi0", "tau"):
        first, second = (fit["posterior"][name].values.ravel() for fit in fits)
        assert abs(first.mean() - second.mean()) < 5 * second.std() * np.sqrt(2 / 400)


# Poolings.


@pytest.fixture(scope="module")
def few_fits():
    frame, _ = genes.simulate(np.random.default_rng(2), genes=40, pi0=0.6)
    return frame, hz.fit_poolings(genes, frame, random_seed=4, progressbar=False)


def test_no_pooling_is_the_normal_posterior_of_each_gene(few_fits):
    frame, fits = few_fits
    h = hyperparameters(fits["none"])
    s0, se = h.tau.item(), frame["standard_error"].to_numpy()
    assert (h.pi0.item(), h.mu.item()) == (0, 0)
    k = s0**2 / (s0**2 + se**2)
    summary = fits["none"]["group_summary"]
    np.testing.assert_allclose(summary["mean"], k * frame["effect"])
    np.testing.assert_allclose(summary["sd"], np.sqrt(k) * se)
    np.testing.assert_allclose(summary["kappa"], k)


def test_complete_pooling_is_one_normal_posterior(few_fits):
    frame, fits = few_fits
    s0 = hyperparameters(fits["none"]).tau.item()
    precision = (1 / frame["standard_error"] ** 2).sum() + 1 / s0**2
    mean = (frame["effect"] / frame["standard_error"] ** 2).sum() / precision
    summary = fits["complete"]["group_summary"].to_dataset()
    assert np.ptp(summary["mean"].values) < 1e-12
    assert float(summary["mean"][0]) == pytest.approx(mean, abs=5 * precision**-0.5 / np.sqrt(1000))
    assert float(summary["sd"][0]) == pytest.approx(precision**-0.5, rel=0.1)
    assert (summary["lfdr"] == 0).all()


def test_the_matched_prior_has_the_moments_of_the_partial_model():
    data = MODEL.data(FEW)
    priors = MODEL.priors(data)
    rng = np.random.default_rng(1)
    n = 1_000_000
    tau = np.exp(rng.normal(np.log(2 * 0.25), 1, n))
    theta = np.where(rng.random(n) < rng.beta(9, 1, n), 0.0, rng.normal(0, tau))
    s0 = priors["theta"].parameters["sigma"]
    assert s0 == pytest.approx(np.sqrt(0.1 * (2 * 0.25) ** 2 * np.exp(2)), rel=1e-6)
    assert theta.std() == pytest.approx(s0, rel=0.1)
    assert priors["mu"].parameters["sigma"] == pytest.approx(s0)


def test_kappa_is_the_weight_of_the_gene_given_hyperparameters():
    h = at(pi0=0.8, tau=0.4, delta0=0.3, sigma0=0.9)
    data = MODEL.data(FEW)
    mean = CLOSED.population(CLOSED.conditional(h, data)).mean
    centred = data.effect - 0.3 * data.standard_error
    np.testing.assert_allclose(mean, CLOSED.reliability(h, data) * centred)


def test_dic_averages_are_those_of_draws():
    """expected_log_likelihood against draws of the gene's own posterior."""
    h, data = at(pi0=0.8, tau=0.4), MODEL.data(FEW)
    many = h.isel(sample=np.zeros(50_000, int))
    theta = CLOSED.population(CLOSED.conditional(many, data)).sample(np.random.default_rng(3))
    draws = CLOSED.log_likelihood(theta, many, data)
    error = draws.std("sample") / np.sqrt(50_000)
    assert (abs(draws.mean("sample") - CLOSED.expected_log_likelihood(h, data)) < 4 * error).all()


def test_both_questions_of_a_comparison(few_fits):
    _, fits = few_fits
    for question in ("new_group", "new_observation"):
        table = hz.compare_poolings(fits, question=question)
        assert table.index[0] == "partial"
        assert np.isfinite(table["elpd"].astype(float)).all()


def test_leaving_a_gene_out_is_brute_force_by_quadrature(few_fits):
    """A grid over pi0 and log tau: log p(y) less log p(y without gene j), for every gene."""
    frame, fits = few_fits
    row = hz.compare_poolings({"partial": fits["partial"]}).loc["partial"]
    y, se = frame["effect"].to_numpy(), frame["standard_error"].to_numpy()
    pi0 = ((np.arange(400) + 0.5) / 400)[:, None, None]
    middle = np.log(2 * np.median(se))
    log_tau = np.linspace(middle - 6, middle + 6, 400)[None, :, None]
    spike = np.log(pi0) + stats.norm.logpdf(y, 0, se)
    each = np.logaddexp(spike, np.log1p(-pi0) + stats.norm.logpdf(y, 0, np.hypot(se, np.exp(log_tau))))
    log_prior = (stats.beta.logpdf(pi0, 9, 1) + stats.norm.logpdf(log_tau, middle, 1))[..., 0]
    whole = log_prior + each.sum(axis=-1)
    exact = sum(special.logsumexp(whole) - special.logsumexp(whole - each[..., j]) for j in range(y.size))
    assert row["elpd"] == pytest.approx(exact, abs=4.5 * row["mcse"] + 0.02)
    assert row["mcse"] < 0.2


# Halves of the data.


def test_halves_are_independent_with_twice_the_variance():
    frame = pd.DataFrame({"gene": np.arange(50_000), "effect": 0.0, "standard_error": 0.3})
    rng = np.random.default_rng(5)
    frame["effect"] = rng.normal(0.7, 0.3, 50_000)
    first, second = MODEL.extras.thin(rng, MODEL.data(frame))
    for half in (first, second):
        assert half.effect.std().item() == pytest.approx(0.3 * np.sqrt(2), rel=0.02)
        np.testing.assert_allclose(half.standard_error, 0.3 * np.sqrt(2))
    assert abs(np.corrcoef(first.effect, second.effect)[0, 1]) < 4 / np.sqrt(50_000)
    np.testing.assert_allclose((first.effect + second.effect) / 2, frame["effect"])


def test_the_empirical_null_has_no_independent_halves():
    with pytest.raises(ValueError, match="independent only if the standard errors are true"):
        MODEL.under(null="empirical").extras.thin(np.random.default_rng(1), MODEL.data(FEW))


# The empirical null.


@pytest.mark.long
def test_a_null_that_is_shifted_and_wide_is_found():
    frame, truth = genes.simulate(np.random.default_rng(6), genes=1500, pi0=0.9, delta0=0.3, sigma0=0.8)
    fit = hz.fit(genes, frame, null="empirical", random_seed=2, progressbar=False)
    for name in ("pi0", "tau", "delta0", "sigma0"):
        draws = fit["posterior"][name].values
        assert abs(draws.mean() - truth[name].item()) < 4 * draws.std(), name
    assert fit["posterior"]["sigma0"].max() < 1
    assert json.loads(fit.attrs["fixed"]) == {"mu": 0.0}


def test_the_name_of_a_null_is_checked():
    with pytest.raises(ValueError, match="Unknown null 'empiric'.*Did you mean 'empirical'"):
        MODEL.under(null="empiric")


# Readers.

DESEQ2 = """"","baseMean","log2FoldChange","lfcSE","stat","pvalue","padj"
"ENSG01",100.1,1.5,0.5,3,0.0027,0.01
"ENSG02",0,NA,NA,NA,NA,NA
"ENSG03",12,-0.2,0.1,-2,0.0455,NA
"ENSG04",900,9,1,9,NA,NA
"""
LIMMA = """"","logFC","AveExpr","t","P.Value","adj.P.Val","B"
"1636_g_at",1.1,9.2,9.3,3e-14,1e-9,20
"1000_at",0,7.1,0,1,1,-6
"39730_at",-1.15,9,-8.7,5e-13,1e-8,18
"""


@pytest.mark.parametrize("index", [None, 0])
def test_deseq2_tables_as_they_are(index):
    with pytest.warns(FrameWarning, match="2 of 4 genes are left out: no estimate or no p value"):
        frame = genes.from_deseq2(pd.read_csv(io.StringIO(DESEQ2), index_col=index))
    assert frame.to_dict("list") == {
        "gene": ["ENSG01", "ENSG03"],
        "effect": [1.5, -0.2],
        "standard_error": [0.5, 0.1],
    }
    assert frame.attrs["notes"][0].startswith("2 of 4 genes")


def test_limma_tables_as_they_are():
    with pytest.warns(FrameWarning, match="1 of 3 genes are left out"):
        frame = genes.from_limma(pd.read_csv(io.StringIO(LIMMA)))
    assert list(frame["gene"]) == ["1636_g_at", "39730_at"]
    np.testing.assert_allclose(frame["effect"] / frame["standard_error"], [9.3, -8.7])


def test_a_reader_takes_a_file_whose_cells_are_text():
    text = pd.read_csv(io.StringIO(DESEQ2), dtype=str, keep_default_na=False)
    with pytest.warns(FrameWarning, match="2 of 4"):
        assert list(genes.from_deseq2(text)["effect"]) == [1.5, -0.2]


@pytest.mark.parametrize(
    ("reader", "table", "sentence"),
    [
        ("deseq2", {"gene": ["a"], "log2FoldChange": [1.0]}, "expected a column 'lfcSE'"),
        ("deseq2", {"log2FoldChange": [1.0], "lfcSE": [1.0]}, "genes in the index or in a column 'gene'"),
        ("deseq2", {"gene": ["a"], "log2FoldChange": [1.0], "lfcSE": [1.0], "pvalue": [0.3]}, "shrunk already"),
        ("deseq2", {"gene": ["a"], "log2FoldChange": ["big"], "lfcSE": [1.0]}, "expected a number or NA, got 'big'"),
        ("deseq2", {"gene": ["a", "b"], "log2FoldChange": [1.0, 1.0], "lfcSE": [1.0, -1.0]}, "'lfcSE' expected"),
        (
            "limma",
            {"ID": ["a", "b"], "logFC": [1.0, 1.0], "t": [2.0, -2.0]},
            "logFC and t of the same sign; they differ in row 1",
        ),
        ("limma", {"ID": ["a"], "logFC": [1.0]}, "expected a column 't'"),
        ("limma", "topTable.csv", "expected a pandas DataFrame, got str"),
    ],
)
def test_tables_that_cannot_be_read(reader, table, sentence):
    with pytest.raises(FrameError, match=sentence):
        MODEL.extras.readers[reader](pd.DataFrame(table) if isinstance(table, dict) else table)


def test_bad_frames():
    for change, sentence in (
        ({"effect": [np.nan, 1.0]}, "'effect' expected a finite number, got an empty cell in row 0"),
        ({"standard_error": [0.0, 1.0]}, "'standard_error' expected a finite number above 0, got 0.0 in row 0"),
        ({"gene": ["A", "A"]}, "expected each value once, got 'A'"),
    ):
        with pytest.raises(FrameError, match=sentence):
            MODEL.data(FEW.assign(**change))
    with pytest.raises(FrameError, match="expected a column 'standard_error'"):
        MODEL.data(FEW.drop(columns="standard_error"))


def test_beyond_the_budget_nothing_of_the_size_of_draws_times_genes_is_kept(few_fits, monkeypatch):
    monkeypatch.setattr("hbm_zoo.inference.completion.LARGEST_ARRAY", 10_000)
    frame, fits = few_fits
    fit = hz.fit(genes, frame, random_seed=4, progressbar=False)
    assert all("gene" not in fit[group].dims for group in ("posterior", "prior"))
    assert not {"log_likelihood", "prior_predictive", "posterior_predictive"} & set(fit.children)
    assert "posterior[theta]" in fit.attrs["left_out"]
    xr.testing.assert_allclose(fit["group_summary"]["lfdr"], fits["partial"]["group_summary"]["lfdr"])


def test_what_rounding_made_0_and_rows_without_a_name_are_left_out_each_by_its_reason():
    frame = pd.DataFrame(
        {"ID": ["a", "b", "c", None, "e"], "logFC": [1.0, -0.5, 0.0, 2.0, None], "t": [5, -2, 0.01, 4, 1]}
    )
    with pytest.warns(FrameWarning):
        read = genes.from_limma(frame)
    assert read["gene"].tolist() == ["a", "b"]
    assert read.attrs["notes"] == [
        "1 of 5 genes are left out: no name.",
        "1 of 5 genes are left out: no estimate.",
        "1 of 5 genes are left out: logFC or t of 0, by rounding, which tells no standard error.",
    ]
    with pytest.raises(FrameError, match="of the same sign"):
        genes.from_limma(pd.DataFrame({"ID": ["a"], "logFC": [1.0], "t": [-5.0]}))


def test_a_table_with_decimal_commas_is_the_same_table():
    text = ";log2FoldChange;lfcSE;stat;pvalue\ng1;1,25;0,2;6;0,1\ng2;-0,1;0,1;-1;0,3\n"
    read = genes.from_deseq2(pd.read_csv(io.StringIO(text), sep=";"))
    assert read.to_numpy().tolist() == [["g1", 1.25, 0.2], ["g2", -0.1, 0.1]]


@pytest.mark.slow
def test_what_the_verdict_says_of_leukemia():
    """A fit that expects 250 genes beyond |z| = 4 where 94 are is not to be reported, and two options are named."""
    frame, same = hz.load_data("leukemia_genes"), {"draws": 500, "random_seed": 1, "progressbar": False}
    fits = hz.fit_poolings("spike_slab_genes", frame, **same)
    said = hz.verdict(fits)
    (wrong,) = [sentence for sentence in said if sentence.startswith("Partial pooling does not fit")]
    assert re.search(r"\(genes with \|z\| > 4: 94, expected 24\d to 26\d\)", wrong)
    assert wrong.endswith("what is expected is as if genes were independent of one another.")
    assert any(sentence.startswith("If it fitted, this would hold: Slab not identified") for sentence in said)
    assert said[-1] == "Next: do not report each gene by this fit; fit again with null='empirical' and unit='z'."
    again = hz.check_model(hz.fit("spike_slab_genes", frame, unit="z", **same))
    assert {"outlying", "asymmetry", "standard error"} <= set(again.attrs["rejected"]["partial"])
    assert again.attrs["alternative"]["partial"] == {"slab": "unimodal", "null": "empirical"}
