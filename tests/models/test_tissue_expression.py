"""Tissue expression: density, identities, quadrature over tau and sigma, references, frames."""

import json
import time
import unicodedata
from pathlib import Path

import anndata
import arviz as az
import numpy as np
import pandas as pd
import pytest
import xarray as xr
from pymc_extras.prior import Prior
from scipy import sparse, stats

import hbm_zoo as hz
from hbm_zoo.frames.rules import FrameError, FrameWarning
from hbm_zoo.models import tissue_expression as tissues

MODEL = tissues.MODEL
FOLDER = Path(__file__).parents[1] / "reference"
REFERENCE = {
    name: json.loads((FOLDER / f"{name}.json").read_text()) for name in ("tissue_expression", "dyestuff", "dyestuff2")
}
SCALES = {  # of the reference's priors: mu (mean, sd), tau, sigma
    "tissue_expression": ((8.0, 5.0), 2.0, 1.0),
    "dyestuff": ((1500.0, 500.0), 100.0, 100.0),
    "dyestuff2": ((5.0, 10.0), 5.0, 10.0),
}
GENE = REFERENCE["tissue_expression"]["quadrature"]["gene"]


def load(name):
    if name == "dyestuff2":
        return pd.DataFrame(REFERENCE[name]["frame"])
    frame = hz.load_data(name, MODEL)
    return frame[frame["gene"] == GENE] if "gene" in frame else frame


def priors(name):
    (m0, s0), tau, sigma = SCALES[name]
    spread = {"tau": Prior("HalfNormal", sigma=tau), "sigma": Prior("HalfNormal", sigma=sigma)}
    return {"mu": Prior("Normal", mu=m0, sigma=s0)} | spread


SMALL = pd.DataFrame(
    {
        "tissue": ["liver"] * 4 + ["kidney"] * 3 + ["placenta"],
        "expression": [5.1, 4.2, 6.0, 5.5, 7.7, 6.9, 7.0, 4.4],
    }
)
SMALL_PRIORS = {
    "mu": Prior("Normal", mu=5.0, sigma=3.0),
    "tau": Prior("HalfNormal", sigma=2.0),
    "sigma": Prior("HalfNormal", sigma=1.5),
}
INDEX = np.repeat([0, 1, 2], [4, 3, 1])


# Density: each variant against scipy on the raw rows, and its gradient.


def density(pooling, form, point, gradient=False):
    model = MODEL.build(SMALL, pooling, form, SMALL_PRIORS)
    compiled = (model.compile_dlogp if gradient else model.compile_logp)(jacobian=False, mode="AS_WRITTEN")
    return compiled({v.name: np.asarray(point[v.name]) for v in model.value_vars})


def by_scipy(pooling, form, point):
    y, mu = SMALL["expression"].to_numpy(), point["mu"]
    tau, sigma = np.exp(point["tau_log__"]), np.exp(point["sigma_log__"])
    of_mu, of_tau = stats.norm(5, 3).logpdf(mu), stats.halfnorm(scale=2).logpdf(tau)
    of_sigma = stats.halfnorm(scale=1.5).logpdf(sigma)
    if pooling == "none":
        mu, tau, of_mu, of_tau = 5.0, np.sqrt(9 + 4), 0.0, 0.0
    if pooling == "complete":
        tau, of_tau = 0.0, 0.0
        if form == "centered":
            return of_mu + of_sigma + stats.norm(mu, sigma).logpdf(y).sum()
    hyper = of_mu + of_tau + of_sigma
    if form == "marginalized":
        covariance = sigma**2 * np.eye(8) + tau**2 * (INDEX[:, None] == INDEX)
        return hyper + stats.multivariate_normal.logpdf(y, np.full(8, mu), covariance)
    z = np.asarray(point["z"])
    theta = mu + tau * z if form == "noncentered" else np.asarray(point["theta"])
    group = stats.norm.logpdf(z).sum() if form == "noncentered" else stats.norm(mu, tau).logpdf(theta).sum()
    return hyper + group + stats.norm(theta[INDEX], sigma).logpdf(y).sum()


POINT = {
    "mu": 5.3,
    "tau_log__": np.log(0.9),
    "sigma_log__": np.log(0.7),
    "theta": np.array([5.0, 7.1, 4.9]),
    "z": np.array([-0.4, 1.7, -0.8]),
}
FREE = {"none": ["sigma_log__"], "complete": ["mu", "sigma_log__"], "partial": ["mu", "tau_log__", "sigma_log__"]}
VARIANTS = [(pooling, form) for pooling, forms in MODEL.variants.items() for form in forms]


@pytest.mark.parametrize(("pooling", "form"), VARIANTS)
def test_each_variant_has_the_density_and_gradient_of_the_page(pooling, form):
    np.testing.assert_allclose(density(pooling, form, POINT), by_scipy(pooling, form, POINT), rtol=1e-9)
    own = {"centered": ["theta"], "noncentered": ["z"], "marginalized": []}[form] if pooling != "complete" else []
    differences, step = [], 1e-5
    for name in FREE[pooling] + own:
        for e in np.eye(np.size(POINT[name])):
            by = step * (e if np.ndim(POINT[name]) else 1.0)
            ahead, behind = (by_scipy(pooling, form, POINT | {name: POINT[name] + s * by}) for s in (1, -1))
            differences.append((ahead - behind) / (2 * step))
    gradient = density(pooling, form, POINT, gradient=True)
    np.testing.assert_allclose(np.sort(gradient), np.sort(differences), rtol=1e-5, atol=1e-6)


# Identities and limits: no sampling.


def one(**values):
    return xr.Dataset({name: ("sample", [float(value)]) for name, value in values.items()})


def test_change_of_variables_and_candidates_formula():
    mu, tau, sigma = 5.3, 0.9, 0.7
    point = POINT | {"theta": mu + tau * POINT["z"]}
    centered, noncentered, marginal = (
        density("partial", form, point) for form in ("centered", "noncentered", "marginalized")
    )
    np.testing.assert_allclose(centered + 3 * np.log(tau), noncentered, rtol=1e-12)
    after = tissues.conditional(one(mu=mu, tau=tau, sigma=sigma), MODEL.data(SMALL))
    posterior = stats.norm(after.mu, after.tau).logpdf(point["theta"]).sum()
    np.testing.assert_allclose(centered - posterior, marginal, rtol=1e-12)


def test_without_spread_all_is_complete_pooling():
    data, h = MODEL.data(SMALL), one(mu=5.3, tau=0.0, sigma=0.7)
    by_row = stats.norm(5.3, 0.7).logpdf(SMALL["expression"])
    by_tissue = np.bincount(INDEX, by_row)
    for found in (
        tissues.log_marginal(h, data),
        tissues.log_likelihood(h.mu, h, data),
        tissues.expected_log_likelihood(h, data),
    ):
        np.testing.assert_allclose(found.values.ravel(), by_tissue, rtol=1e-12)
    np.testing.assert_allclose(tissues.leave_row_out(h, data, np.arange(len(SMALL))).values.ravel(), by_row, rtol=1e-12)
    assert (tissues.reliability(h, data) == 0).all()


def test_a_row_left_out_is_a_row_of_the_tissue_without_it():
    data, h = MODEL.data(SMALL), one(mu=5.3, tau=0.9, sigma=0.7)
    found = tissues.leave_row_out(h, data, np.arange(len(SMALL)))
    assert set(found.dims) == {"sample", "cell"}
    whole = tissues.log_marginal(h, data).values.ravel()
    for i in range(7):  # row 7 is its tissue's only one
        without = MODEL.data(SMALL.drop(index=i))
        expected = whole[INDEX[i]] - tissues.log_marginal(h, without).values.ravel()[INDEX[i]]
        assert found.isel(cell=i).item() == pytest.approx(expected, rel=1e-9)
    assert found.isel(cell=7).item() == pytest.approx(whole[2], rel=1e-12)


# Deterministic agreement with lme4.


@pytest.mark.parametrize(("name", "deviance"), [("dyestuff", 327.32706), ("dyestuff2", 162.87304)])
def test_deviance_at_lme4s_ml_is_lme4s(name, deviance):
    ml = REFERENCE[name]["lme4"]["ML"]
    tau, sigma = (c["sd_or_corr"] for c in ml["variance_components"])
    h = one(mu=ml["fixed"]["(Intercept)"]["estimate"], tau=tau, sigma=sigma)
    assert ml["deviance_or_reml_criterion"] == deviance
    assert -2 * float(tissues.log_marginal(h, MODEL.data(load(name))).sum()) == pytest.approx(deviance, abs=1e-5)


def test_lme4s_blups_of_twelve_genes_are_the_conditional_means():
    frame = hz.load_data("tissue_expression")
    assert len(REFERENCE["tissue_expression"]["REML"]) == 12
    for gene, reml in REFERENCE["tissue_expression"]["REML"].items():
        data = MODEL.data(frame, gene=gene)
        after = tissues.conditional(one(mu=reml["mu"], tau=reml["sd_tissue"], sigma=reml["sd_within"]), data)
        blups = [reml["tissue_means_blup"][name] for name in data.tissue.values]
        np.testing.assert_allclose(after.mu.values.ravel(), blups, atol=6e-5)


# Two-dimensional quadrature over tau and sigma, mu and the tissues integrated out exactly.


class Quadrature:
    """Exact posterior on a grid over (log tau, log sigma), from count, mean and squares."""

    def __init__(self, frame, name):
        (self.m0, self.s0), tau_scale, sigma_scale = SCALES[name]
        groups = frame.groupby("tissue", sort=False)["expression"]
        n, y, SS = groups.size().to_numpy(), groups.mean().to_numpy(), 0.0
        SS = (groups.var(ddof=0) * groups.size()).sum()
        within = np.sqrt(SS / (n - 1).sum())
        tau = np.exp(np.linspace(np.log(1e-4), np.log(8.0), 500)) * tau_scale
        sigma = within * np.exp(np.linspace(-8, 8, 240) / np.sqrt(2 * (n - 1).sum()))
        self.tau, self.sigma = (g.ravel()[:, None] for g in np.meshgrid(tau, sigma, indexing="ij"))
        variance, d = self.tau**2 + self.sigma**2 / n, y - self.m0
        inner = 1 + self.s0**2 * (1 / variance).sum(axis=1)
        square = (d**2 / variance).sum(axis=1) - self.s0**2 * (d / variance).sum(axis=1) ** 2 / inner
        of_means = -0.5 * (np.log(2 * np.pi * variance).sum(axis=1) + np.log(inner) + square)
        s = self.sigma[:, 0]
        of_rows = -(n - 1).sum() / 2 * np.log(2 * np.pi * s**2) - SS / (2 * s**2) - np.log(n).sum() / 2
        hyper = stats.halfnorm(scale=tau_scale).logpdf(self.tau[:, 0]) + stats.halfnorm(scale=sigma_scale).logpdf(s)
        log_weight = of_means + of_rows + hyper + np.log(self.tau[:, 0] * s)
        cell = np.log(tau[1] / tau[0]) * np.log(sigma[1] / sigma[0])
        self.log_evidence = np.log(np.exp(log_weight - log_weight.max()).sum() * cell) + log_weight.max()
        self.weight = np.exp(log_weight - log_weight.max())
        self.weight /= self.weight.sum()
        self.mu_sd = (1 / self.s0**2 + (1 / variance).sum(axis=1)) ** -0.5
        self.mu_mean = self.mu_sd**2 * (self.m0 / self.s0**2 + (y / variance).sum(axis=1))
        kappa = self.tau**2 / variance
        mean = kappa * y + (1 - kappa) * self.mu_mean[:, None]
        spread = kappa * self.sigma**2 / n + ((1 - kappa) * self.mu_sd[:, None]) ** 2
        self.theta_mean = self.weight @ mean
        self.theta_sd = np.sqrt(self.weight @ (spread + (mean - self.theta_mean) ** 2))

    def cdf(self, name, x):
        """P(hyperparameter <= x)."""
        if name == "mu":
            return float(self.weight @ stats.norm.cdf(x, self.mu_mean, self.mu_sd))
        return float(self.weight[getattr(self, name)[:, 0] <= x].sum())


@pytest.mark.parametrize("name", list(REFERENCE))
def test_our_quadrature_is_the_references(name):
    """Two quadratures, one in R: its own three to four digits."""
    q, estimates = Quadrature(load(name), name), REFERENCE[name]["quadrature"]["estimates"]
    for ours, theirs in (("mu", "mu"), ("tau", "sd_between"), ("sigma", "sd_within")):
        for level, quantity in ((0.025, "q2.5"), (0.5, "median"), (0.975, "q97.5")):
            assert q.cdf(ours, estimates[theirs][quantity]) == pytest.approx(level, abs=0.012), (ours, quantity)
    means = estimates["group_means"].values()
    np.testing.assert_allclose(q.theta_mean, [t["mean"] for t in means], atol=5e-3 * q.theta_sd.max())
    np.testing.assert_allclose(q.theta_sd, [t["sd"] for t in means], rtol=5e-3)


@pytest.fixture(
    scope="module",
    params=["dyestuff2", *(pytest.param(n, marks=pytest.mark.slow) for n in ("dyestuff", "tissue_expression"))],
)
def fitted(request):
    name = request.param
    fit = hz.fit(tissues, load(name), priors=priors(name), draws=2000, random_seed=3, progressbar=False)
    return name, fit


def test_the_fit_is_the_quadrature(fitted):
    """Each mean and probability within 4 Monte Carlo errors.

    Power: 4 errors are less than 0.15 posterior sds, so a shift of that size would be seen.
    """
    name, fit = fitted
    q, posterior, summary = Quadrature(load(name), name), fit["posterior"].dataset, fit["group_summary"]
    exact = {"mu": q.weight @ q.mu_mean, "tau": q.weight @ q.tau[:, 0], "sigma": q.weight @ q.sigma[:, 0]}
    for quantity, mean in exact.items():
        mcse = float(az.mcse(posterior[quantity]))
        assert abs(float(posterior[quantity].mean()) - mean) < 4 * mcse, quantity
        assert 4 * mcse < 0.15 * float(posterior[quantity].std())
        for level in (0.05, 0.5, 0.95):
            value = float(posterior[quantity].quantile(level))
            error = np.sqrt(level * (1 - level) / float(az.ess(posterior[quantity], method="quantile", prob=level)))
            assert abs(q.cdf(quantity, value) - level) < 4 * error + 0.01, quantity
    assert (abs(summary["mean"].values - q.theta_mean) < 4 * az.mcse(posterior["theta"]).values).all()
    np.testing.assert_allclose(summary["sd"].values, q.theta_sd, rtol=0.05)


def test_leaving_a_tissue_out_is_brute_force_by_quadrature(fitted):
    """By PSIS where k-hat allows it; by exact refits all together. 4 Monte Carlo errors, at least 0.1 nats."""
    name, fit = fitted
    frame, summary = load(name), fit["group_summary"]
    whole = Quadrature(frame, name).log_evidence
    exact = [whole - Quadrature(frame[frame["tissue"] != g], name).log_evidence for g in frame["tissue"].unique()]
    error = abs(summary["elpd"].values - exact)
    trusted = summary["k_hat"].values < 0.7
    assert trusted.sum() >= len(exact) / 2
    assert (error < np.maximum(0.1, 4 * summary["elpd_mcse"].values))[trusted].all()
    refitted = hz.compare_poolings({"partial": fit}).loc["partial"]
    assert refitted["refits"] == len(exact)
    assert abs(refitted["elpd"] - sum(exact)) < max(0.1, 4 * refitted["mcse"])


def test_a_variance_estimated_zero_has_an_interval():
    """dyestuff2: REML says tau = 0; the posterior says how much more it may be."""
    assert REFERENCE["dyestuff2"]["lme4"]["REML"]["variance_components"][0]["sd_or_corr"] == 0
    q = Quadrature(load("dyestuff2"), "dyestuff2")
    assert q.cdf("tau", 2.0) < 0.9


# Frames: genes, sizes, AnnData, what is refused.


def test_a_gene_must_be_selected():
    frame = hz.load_data("tissue_expression")
    with pytest.raises(FrameError, match=r"one gene, got 12: 'MAML1'.*gene='MAML1'"):
        MODEL.data(frame)
    with pytest.raises(ValueError, match="Did you mean 'MAML1'"):
        MODEL.data(frame, gene="MAML2")
    with pytest.raises(FrameError, match="expected a column 'gene'"):
        MODEL.data(SMALL, gene="MAML1")
    chosen = MODEL.data(frame, gene="ZIM2")
    assert chosen.attrs["gene"] == "ZIM2"
    assert chosen.sizes == {"cell": 189, "tissue": 7}


def test_statistics_are_pandas_in_order_of_appearance():
    data, groups = MODEL.data(SMALL), SMALL.groupby("tissue", sort=False)["expression"]
    assert data.tissue.values.tolist() == ["liver", "kidney", "placenta"]
    np.testing.assert_array_equal(data.n, groups.size())
    np.testing.assert_allclose(data.y_bar, groups.mean(), rtol=1e-14)
    np.testing.assert_allclose(data.SS, groups.var(ddof=0) * groups.size(), atol=1e-12)


def test_a_million_cells_are_prepared_in_two_seconds():
    rng = np.random.default_rng(10)
    tissue = np.array([f"T{i:02d}" for i in range(50)])[rng.integers(0, 50, 1_000_000)]
    frame = pd.DataFrame({"tissue": tissue, "expression": rng.normal(size=1_000_000)})
    start = time.process_time()
    data = MODEL.data(frame)
    assert time.process_time() - start < 2
    assert data.sizes["tissue"] == 50


@pytest.mark.parametrize("matrix", [np.asarray, sparse.csr_matrix])
def test_anndata_gives_the_frame(matrix):
    X = matrix(np.array([[1.0, 0.0], [2.5, 4.5], [0.0, 3.0]]))
    adata = anndata.AnnData(X, obs=pd.DataFrame({"organ": ["a", "b", "b"]}, index=["c1", "c2", "c3"]))
    adata.var_names = ["G1", "G2"]
    frame = tissues.from_anndata(adata, gene="G2", tissue_key="organ")
    assert frame["tissue"].tolist() == ["a", "b", "b"]
    assert frame["expression"].tolist() == [0.0, 4.5, 3.0]
    assert MODEL.data(frame).attrs["gene"] == "G2"
    with pytest.raises(ValueError, match="Unknown gene 'G9'"):
        tissues.from_anndata(adata, gene="G9", tissue_key="organ")
    with pytest.raises(ValueError, match="Did you mean 'organ'"):
        tissues.from_anndata(adata, gene="G2", tissue_key="organs")


def test_a_tissue_in_either_unicode_form_is_one_tissue():
    names = ["né", unicodedata.normalize("NFD", "né"), "liver", "liver"]
    data = MODEL.data(pd.DataFrame({"tissue": names, "expression": [1.0, 1.2, 2.0, 2.2]}))
    assert data.tissue.values.tolist() == ["né", "liver"]
    assert data.n.values.tolist() == [2, 2]


def test_a_gene_with_a_number_is_selected_and_predicted():
    frame = hz.load_data("dyestuff", "tissue_expression").assign(gene=2)
    several = pd.concat([frame, frame.assign(gene=3)])
    for gene in (2, 2.0, "2"):
        assert MODEL.data(several, gene=gene).attrs["gene"] == "2"
    fit = hz.fit("tissue_expression", several, "none", gene=2, random_seed=1, draws=500, chains=2)
    for gene in (2, 2.0, "2"):
        assert hz.predict(fit, frame.head(2).assign(gene=gene))["group_summary"]["case"].values.tolist() == ["known"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"expression": [np.inf, *range(7)]}, "'expression' expected a finite number, got inf in row 0"),
        ({"expression": list("abcdefgh")}, "'expression' expected a finite number, got 'a' in row 0"),
        ({"tissue": [" ", *"aaabbbb"]}, "'tissue' expected a label, not empty, got ' ' in row 0"),
        ({"tissue": "liver"}, "at least 2 tissues"),
    ],
)
def test_bad_values_are_named(change, message):
    with pytest.raises(FrameError, match=message):
        MODEL.data(SMALL.assign(**change))


def test_rows_without_spread_are_refused():
    same = SMALL.assign(expression=np.repeat([0.1, 0.3, 0.7], [4, 3, 1]))
    with pytest.raises(FrameError, match="same value in all rows of each tissue"):
        MODEL.build(same)
    with pytest.raises(FrameError, match="same value in all rows of the frame"):
        MODEL.build(SMALL.assign(expression=0.1))


def test_tissues_of_one_row_each_are_said_to_tell_the_spreads_apart_by_their_priors():
    with pytest.warns(FrameWarning, match="Every tissue has one row"):
        MODEL.build(SMALL.assign(tissue=list("abcdefgh")))


def test_simulated_tissues_have_the_truth_they_report():
    """4 standard errors: an sd 3 % off would be seen."""
    frame, truth = tissues.simulate(np.random.default_rng(11), tissues=4000, tau=1.0, sigma=0.5)
    residual = frame["expression"] - truth["theta"].sel(tissue=frame["tissue"].to_numpy()).values
    assert abs(residual.std() / 0.5 - 1) < 4 / np.sqrt(2 * len(frame))
    assert abs(float(truth["theta"].std()) - 1) < 4 / np.sqrt(8000)
    assert frame.groupby("tissue").size().min() == 1


@pytest.mark.filterwarnings("ignore:The 'future.infer_string' option:DeprecationWarning")
@pytest.mark.filterwarnings("ignore:.*names are not unique")
def test_anndata_that_would_be_misread_is_refused_or_said():
    obs = pd.DataFrame({"organ": ["a", "b"]}, index=["c1", "c2"])
    adata = anndata.AnnData(np.array([[1.0, 2.0], [3.0, 4.0]]), obs=obs)
    adata.var_names = ["G1", "G1"]
    with pytest.raises(ValueError, match="2 genes are named 'G1'"):
        tissues.from_anndata(adata, gene="G1", tissue_key="organ")
    adata.var_names = ["G1", "G2"]
    with pytest.warns(FrameWarning, match="whole numbers only: are these raw counts"):
        tissues.from_anndata(adata, gene="G1", tissue_key="organ")
    empty = anndata.AnnData(obs=obs, var=pd.DataFrame(index=["G1"]))
    with pytest.raises(ValueError, match="adata.X is empty"):
        tissues.from_anndata(empty, gene="G1", tissue_key="organ")
