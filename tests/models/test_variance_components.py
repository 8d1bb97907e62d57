"""Variance components: densities against dense normals, limits, references, pedigrees, frames."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import xarray as xr
from pymc_extras.prior import Prior
from scipy import integrate, special, stats

import hbm_zoo as hz
from hbm_zoo.frames.rules import FrameError, FrameWarning
from hbm_zoo.group_level import contrasts
from hbm_zoo.group_level.contrasts import experiment
from hbm_zoo.inference.fits import hyperparameters, prepared
from hbm_zoo.inference.nodes import with_nodes

MODEL = hz.variance_components.MODEL
LOG = MODEL.under(population="log-normal")
FOLDER = Path(__file__).parents[1] / "reference"
SETTINGS = {"random_seed": 1, "progressbar": False}
SMALL, TRUTH = MODEL.simulate(np.random.default_rng(2), sites=3, sires=(6, 9), offspring=(2, 5))
ONE = SMALL[SMALL["site"] == "S01"].reset_index(drop=True)
FAMILIES = pd.DataFrame(
    {
        "animal": ["c1", "c2", "c3", "c4", "d1", "d2"],
        "sire": ["s", "s", "s", "t", "c1", "c1"],
        "dam": ["m", "m", "n", "n", "c2", "c4"],
    }
)


def with_tables(record, frame, priors=None, **options):
    data = record.data(frame, **options)
    return with_nodes(record, data, record.priors(data, priors), seed=1)


def reference(name):
    return json.loads((FOLDER / f"{name}.json").read_text())["analyses"]


def eucalyptus():
    """The three sites, their progenies taken for different ones, as the reference takes them."""
    frame = pd.concat(hz.load_data(name, MODEL) for name in MODEL.datasets if name.startswith("eucalyptus"))
    return frame.reset_index(drop=True).assign(sire=lambda f: f["sire"] + " of " + f["site"])


def prepared_as_plots(frame, fixed_effects="", pedigree=None):
    """Progenies share a quarter of sigma_A^2, and nothing of it is in the residual: the model of the reference."""
    data = MODEL.prepare(frame, fixed_effects, pedigree)
    return data.assign(d=xr.where(data.n > 0, data.d - 0.75, 0.0), d_of=data.d_of - 0.75)


OF_PLOTS = replace(MODEL, prepare=prepared_as_plots)
AS_IN_REFERENCE = {
    "sigma_E": Prior("LogNormal", mu=np.log(2), sigma=0.75),
    "mu": Prior("HalfNormal", sigma=3.0),
    "tau": Prior("HalfNormal", sigma=1.5),
    "a": Prior("Normal", mu=0.0, sigma=3.0),
}


# The density of one site.


def same(column):
    """Where two rows have the same label."""
    labels = column.to_numpy(object)
    return (labels[:, None] == labels).astype(float)


@pytest.mark.parametrize(
    ("columns", "alike"),
    [
        (["sire"], lambda f: 0.25 * same(f["sire"])),
        (["sire", "dam"], lambda f: 0.25 * (same(f["sire"]) + same(f["dam"]))),
        (["family"], lambda f: 0.5 * same(f["family"])),
    ],
)
def test_contrasts_have_the_restricted_density_of_a_dense_normal(columns, alike):
    """Log N(y; X b, V) with b integrated out under a flat prior, apart from log |X'X| / 2."""
    rng = np.random.default_rng(3)
    frame = pd.DataFrame({"site": "A", "sire": rng.choice(list("abcd"), 18), "x": rng.normal(size=18)})
    frame = frame.assign(dam=frame["sire"] + rng.choice(["1", "2"], 18), family=frame["sire"], y=rng.normal(10, 2, 18))
    data = MODEL.data(frame.rename(columns={"y": "response"})[["site", "response", "x", *columns]], fixed_effects="x")
    K, X, y = alike(frame) + 0.0, np.column_stack([np.ones(18), frame["x"]]), frame["y"].to_numpy()
    np.fill_diagonal(K, 1)
    eigen = [data[name].values[0] for name in ("d", "n", "SS")]
    for sigma_A, sigma_E in [(0.0, 1.0), (1e-5, 0.5), (0.8, 0.3), (3.0, 2.0)]:
        V = sigma_A**2 * K + sigma_E**2 * np.eye(18)
        inverse = np.linalg.inv(V)
        XVX = X.T @ inverse @ X
        P = inverse - inverse @ X @ np.linalg.solve(XVX, X.T @ inverse)
        determinants = sum(np.linalg.slogdet(each)[1] for each in (V, XVX)) - np.linalg.slogdet(X.T @ X)[1]
        dense = -(16 * np.log(2 * np.pi) + determinants + y @ P @ y) / 2
        found = contrasts.log_density(np.array(sigma_A), np.array(sigma_E), *eigen)
        assert found.item() == pytest.approx(dense, rel=1e-10)


def test_the_page_has_that_density_and_its_gradient():
    data = MODEL.data(SMALL)
    model = MODEL.write(data, "partial", "noncentered", MODEL.priors(data))
    start = model.initial_point()
    log_likelihood = model.compile_logp(vars=model.observed_RVs, mode="AS_WRITTEN")
    gradient = model.compile_dlogp(mode="AS_WRITTEN")
    a = 0.3 + 0.2 * np.array([0.5, -3.0, 1.0])
    sigma_E = np.array([0.7, 0.8, 0.9])
    point = start | {"mu_log__": np.log(0.3), "tau_log__": np.log(0.2), "z": np.array([0.5, -3.0, 1.0])}
    point |= {"sigma_E_log__": np.log(sigma_E)}
    by_site = [[data[name].values[j] for name in ("d", "n", "SS")] for j in range(3)]
    dense = sum(contrasts.log_density(np.array(abs(a[j])), np.array(sigma_E[j]), *by_site[j]) for j in range(3))
    assert log_likelihood(point) == pytest.approx(float(dense), rel=1e-10)
    joint = model.compile_logp(mode="AS_WRITTEN")
    shifted = [joint(point | {"mu_log__": point["mu_log__"] + step}) for step in (1e-5, -1e-5)]
    names = [v.name for v in model.value_vars]
    flat = np.concatenate([np.ravel(point[name]) for name in names])
    at = int(sum(np.size(point[name]) for name in names[: names.index("mu_log__")]))
    assert flat.size == gradient(point).size
    assert gradient(point)[at] == pytest.approx((shifted[0] - shifted[1]) / 2e-5, rel=1e-5)


@pytest.mark.parametrize("record", [MODEL, pytest.param(LOG, marks=pytest.mark.slow)], ids=["folded", "log"])
def test_the_table_is_the_integral_over_sigma_E_and_a(record):
    """By Simpson's rule, of populations wide, narrow and without spread, to .01 nats; and so small an error is said."""
    data = with_tables(record, SMALL)
    level, prior = record.group_level, record.priors(record.data(SMALL))["sigma_E"]
    log_sigma = np.linspace(-5, 3, 1201)
    before = stats.norm(float(prior.parameters["mu"]), float(prior.parameters["sigma"])).logpdf(log_sigma)
    sigma_A = level.estimand

    def log_l(a, j):
        eigen = [data[name].values[j] for name in ("d", "n", "SS")]
        f = contrasts.log_density(sigma_A(a)[:, None], np.exp(log_sigma), *eigen) + before
        top = f.max()
        return top + np.log(integrate.simpson(np.exp(f - top), x=log_sigma, axis=1))

    centre = 0.4 if record is MODEL else np.log(0.4)
    for mu, tau in [(centre, 0.0), (centre, 0.05), (centre, 0.5)]:
        h = xr.Dataset({"mu": ("sample", [mu]), "tau": ("sample", [tau])})
        found, error = level.log_left_out(h, data), level.integration_error(h, data)
        for j in range(3):
            if tau == 0:
                exact = log_l(np.array([mu]), j)[0]
            else:
                a = mu + tau * np.linspace(-8, 8, 1601)
                exact = np.log(integrate.simpson(np.exp(log_l(a, j)) * stats.norm(mu, tau).pdf(a), x=a))
            assert found.isel(sample=0, site=j).item() == pytest.approx(exact, abs=0.01)
            assert error.isel(sample=0, site=j) < 0.01


def test_the_sampled_form_is_the_sum_of_the_tables():
    data = with_tables(MODEL, SMALL)
    model = MODEL.write(data, "partial", "marginalized", MODEL.priors(MODEL.data(SMALL)))
    log_likelihood = model.compile_logp(vars=model.observed_RVs, mode="AS_WRITTEN")
    for mu, tau in [(0.4, 0.2), (0.01, 1.5), (1.0, 1e-6)]:
        h = xr.Dataset({"mu": ("sample", [mu]), "tau": ("sample", [tau])})
        found = log_likelihood({"mu_log__": np.log(mu), "tau_log__": np.log(tau)})
        assert found == pytest.approx(MODEL.group_level.log_joint(h, data).item(), rel=1e-9)


def test_the_gradient_of_the_sampled_form_is_its_difference():
    data = with_tables(MODEL, SMALL)
    model = MODEL.write(data, "partial", "marginalized", MODEL.priors(MODEL.data(SMALL)))
    log_joint, gradient = (compiled(mode="AS_WRITTEN") for compiled in (model.compile_logp, model.compile_dlogp))
    point = np.log([0.4, 0.2])
    at = [
        dict(zip(("mu_log__", "tau_log__"), point + step, strict=True))
        for step in 1e-5 * np.array([[1, 0], [-1, 0], [0, 1], [0, -1]])
    ]
    up, down, right, left = map(log_joint, at)
    expected = np.array([up - down, right - left]) / 2e-5
    np.testing.assert_allclose(gradient({"mu_log__": point[0], "tau_log__": point[1]}), expected, rtol=1e-6)


def test_sigma_E_is_drawn_from_what_is_known_of_it_given_sigma_A():
    from hbm_zoo.group_level.variance_tables import sigma_E

    data = with_tables(MODEL, SMALL)
    log_sigma = np.linspace(-5, 3, 4001)
    for a in (0.0, 0.37, -0.8):
        eigen = [data[name].values[0] for name in ("d", "n", "SS")]
        prior = MODEL.priors(MODEL.data(SMALL))["sigma_E"].parameters
        f = contrasts.log_density(np.full(4001, abs(a)), np.exp(log_sigma), *eigen)
        f = np.exp(f - f.max()) * stats.norm(float(prior["mu"]), float(prior["sigma"])).pdf(log_sigma)
        mean = (log_sigma * f).sum() / f.sum()
        sd = np.sqrt((log_sigma**2 * f).sum() / f.sum() - mean**2)
        drawn = np.log(sigma_E(np.random.default_rng(4), np.full(20_000, a), data, 0))
        assert abs(drawn.mean() - mean) < 4 * sd / np.sqrt(20_000) + 0.003 * sd
        assert drawn.std() == pytest.approx(sd, rel=0.03)


def test_units_of_a_covariate_do_not_matter():
    frame = ONE.assign(x=np.random.default_rng(5).normal(size=len(ONE)))
    one, other = (with_tables(MODEL, frame.assign(x=k * frame["x"]), fixed_effects="x") for k in (1.0, 1000.0))
    np.testing.assert_allclose(one.log_likelihood, other.log_likelihood, rtol=1e-9)


def test_the_origin_of_a_covariate_does_not_matter():
    """A year, and the same as a time far from its origin, take one degree of freedom at each site and say the same."""
    frame = SMALL.assign(year=2001.25 + np.random.default_rng(5).integers(0, 4, len(SMALL)))
    near, far = (MODEL.data(frame.assign(year=frame["year"] + offset), fixed_effects="year") for offset in (0.0, 1e9))
    np.testing.assert_allclose(near["SS"], far["SS"], rtol=1e-6)
    assert (far["n"].sum("eigen") == far["rows"] - 2).all()


# Relatives.


def test_half_sibs_are_a_pedigree_and_so_are_full_sibs():
    """Columns and a written pedigree say the same."""
    frame = ONE.assign(animal=[f"o{i}" for i in range(len(ONE))])
    pedigree = frame[["animal", "sire"]].assign(dam=[f"m{i}" for i in range(len(ONE))])
    written = MODEL.data(frame.drop(columns="sire"), pedigree=pedigree)
    plain = MODEL.data(ONE)
    for name in ("d", "n", "SS"):
        np.testing.assert_allclose(written[name], plain[name], atol=1e-9)
    full = MODEL.data(ONE.rename(columns={"sire": "family"}))
    both = MODEL.data(ONE.assign(dam=ONE["sire"] + "-dam"))
    np.testing.assert_allclose(full["SS"], both["SS"], atol=1e-9)


def test_inbreeding_counts():
    """d1 has full sibs as parents: 1.25 on the diagonal."""
    data = MODEL.data(
        pd.DataFrame({"site": "A", "animal": ["c1", "c3", "d1", "d2"], "response": [1.0, 2, 4, 3]}), pedigree=FAMILIES
    )
    one, _, kept = experiment(data, 0)
    labels = data["animal"].values[kept].tolist()
    A = pd.DataFrame(one.A, labels, labels)
    assert A.loc["d1", "d1"] == 1.25
    assert A.loc["d2", "d2"] == 1  # its parents are not related
    assert A.loc["c1", "c3"] == 0.25
    assert A.loc["d1", "d2"] == 0.375  # c1 is a parent of both, and the other parent of d1 its full sib


PEDIGREED = pd.DataFrame({"site": "A", "animal": ["c1", "c2", "c3", "c4"], "response": [1.0, 2.0, 4.0, 3.0]})


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (lambda p: pd.concat([p.tail(1), p.head(5)]), "'d2' stands before its parent 'c1'"),
        (lambda p: p.assign(sire=p["sire"].where(p["animal"] != "c1", "d1")), "'c1' is its own ancestor"),
        (lambda p: p.assign(dam=p["dam"].replace("n", "s")), "'s' is a sire in one row and a dam in another"),
        (lambda p: p.fillna("0").replace({"sire": {"s": "0"}, "dam": {"m": "0"}}), "leave the cell empty"),
        (
            lambda p: p.assign(dam=p["dam"].replace("n", "0")),
            "'0' is a dam without a row of its own",
        ),
        (lambda p: pd.concat([p, p.head(1)]), "expected each value once, got 'c1'"),
        (lambda p: p.drop(columns="dam"), "expected a column 'dam'"),
        (lambda p: p[p["animal"] != "c3"], "animal 'c3' is not in the pedigree"),
    ],
)
def test_a_pedigree_that_cannot_be_is_refused(change, sentence):
    with pytest.raises(FrameError, match=sentence):
        MODEL.data(PEDIGREED, pedigree=change(FAMILIES))


def test_an_empty_text_is_an_unknown_parent():
    empty, blank = (FAMILIES.assign(dam=FAMILIES["dam"].replace("n", nobody)) for nobody in (None, " "))
    xr.testing.assert_identical(*(MODEL.data(PEDIGREED, pedigree=each)[["d", "SS"]] for each in (empty, blank)))


def test_no_columns_and_sites_of_another_unit_are_named():
    frame, _ = hz.variance_components.simulate(np.random.default_rng(3), sites=3, sires=(3, 4), offspring=(2, 3))
    with pytest.raises(FrameError, match="expected fixed effects as a text or a list of columns, got 3"):
        MODEL.data(frame, fixed_effects=3)
    larger = frame.assign(response=frame["response"] * np.where(frame["site"] == "S01", 1000, 1))
    with pytest.raises(FrameError, match="expected sites in one unit, got rows with an sd of .* at 'S01' and of"):
        MODEL.data(larger)


@pytest.mark.parametrize(
    ("prior", "said"),
    [
        (Prior("Normal", mu=0, sigma=1), "'sigma_E' lies between 0 and inf"),
        (Prior("Uniform", lower=0.5, upper=1), "'sigma_E' is integrated on points, which want a prior without edges"),
    ],
)
def test_priors_of_what_is_integrated_out_are_looked_at(prior, said):
    frame, _ = hz.variance_components.simulate(np.random.default_rng(3), sites=2, sires=(3, 4), offspring=(2, 3))
    with pytest.raises(ValueError, match=said):
        MODEL.priors(MODEL.data(frame), {"sigma_E": prior})


def test_some_rows_given_the_others_are_those_of_a_dense_precision():
    """P = V^-1 less what tells of the mean: log density of a row is (log P_ii - (P y)_i^2 / P_ii - log 2 pi) / 2."""
    frame, _ = hz.variance_components.simulate(np.random.default_rng(3), sites=2, sires=(3, 4), offspring=(2, 3))
    one, y, _ = experiment(MODEL.data(frame), 1)
    sigma_A, sigma_E = 0.7, 0.9
    inverse = np.linalg.inv(sigma_A**2 * one.A[np.ix_(one.row, one.row)] + sigma_E**2 * np.eye(y.size))
    to_mean = inverse.sum(axis=1)
    P = inverse - np.outer(to_mean, to_mean) / to_mean.sum()
    expected = (np.log(np.diag(P)) - np.log(2 * np.pi) - (P @ y) ** 2 / np.diag(P)) / 2
    every = contrasts.given_others(one, y, np.array([sigma_A]), np.array([sigma_E]))[0]
    np.testing.assert_allclose(every, expected, rtol=1e-8)
    some = contrasts.given_others(one, y, np.array([sigma_A]), np.array([sigma_E]), [4, 1])[0]
    np.testing.assert_allclose(some, expected[[4, 1]], rtol=1e-8)


def test_sites_that_share_relatives_are_refused():
    with pytest.raises(FrameError, match="sire 'S01-01' has offspring or records at sites S01 and S02"):
        MODEL.data(SMALL.assign(sire=SMALL["sire"].replace("S02-01", "S01-01")))
    with pytest.raises(FrameError, match="has offspring or records at sites A and B: relatives make"):
        MODEL.data(PEDIGREED.assign(site=["A", "A", "A", "B"]), pedigree=FAMILIES)


def test_dams_that_are_numbered_within_sires_are_asked_about():
    """The same number is one dam, unless a pedigree says so itself or the label holds the sire."""
    dams = ONE.assign(dam=np.resize(["d1", "d2"], len(ONE)))
    with pytest.warns(FrameWarning, match="Dam 'd1', and 1 more, has offspring of several sires.*label them uniquely"):
        MODEL.data(dams)
    MODEL.data(dams.assign(dam=dams["sire"] + dams["dam"]))
    MODEL.data(PEDIGREED, pedigree=FAMILIES.assign(dam=FAMILIES["dam"].replace("n", "m")))
    with pytest.raises(FrameError, match="sites S01, S02 and S03.*different animals, label them uniquely; else fit"):
        MODEL.data(SMALL.assign(sire=SMALL["sire"].str[-2:]))


def test_an_own_estimate_is_that_of_the_analysis_of_variance_where_it_is_balanced():
    rng = np.random.default_rng(7)
    frame = pd.DataFrame({"site": "A", "sire": np.repeat(np.arange(8), 10)})
    frame["response"] = rng.normal(size=80) + rng.normal(0, 1.2, 8)[frame["sire"]]
    of_sires = frame.groupby("sire")["response"]
    between, within = 10 * of_sires.mean().var(ddof=1), of_sires.var(ddof=1).mean()
    assert MODEL.own(MODEL.data(frame)).item() == pytest.approx(np.sqrt(4 * (between - within) / 10), rel=1e-6)
    alike = frame.assign(response=frame["response"] - of_sires.transform("mean"))
    assert MODEL.own(MODEL.data(alike)).item() == 0


# References.


def test_restricted_maxima_are_lme4_s():
    expected = reference("eucalyptus_progenies")["reml_per_site"]["estimates"]
    data = OF_PLOTS.data(eucalyptus(), fixed_effects="block")
    for j, site in enumerate(data["site"].values):
        used = data["n"].values[j] > 0
        sigma_A, sigma_E, _ = contrasts.restricted_maximum(*(data[name].values[j, used] for name in ("d", "n", "SS")))
        assert sigma_A == pytest.approx(2 * expected["sd_progeny"][site], rel=1e-4)
        assert sigma_E == pytest.approx(expected["sigma"][site], rel=1e-4)


def test_galton_s_families_have_lme4_s_maximum():
    expected = reference("galton_families")["full_sibs_reml"]["estimates"]
    frame = hz.load_data("galton_families")
    data = MODEL.data(frame, fixed_effects="sex")
    sigma_A, sigma_E, height = contrasts.restricted_maximum(*(data[name].values[0] for name in ("d", "n", "SS")))
    assert sigma_A == pytest.approx(expected["sigma_A"], abs=1e-3)
    assert sigma_E == pytest.approx(expected["sigma_E"], abs=1e-3)
    assert sigma_A**2 / (sigma_A**2 + sigma_E**2) == pytest.approx(expected["h2"], abs=1e-3)
    X = np.column_stack([np.ones(len(frame)), frame["sex"] == "male"])
    assert height - np.linalg.slogdet(X.T @ X)[1] / 2 == pytest.approx(expected["restricted_log_likelihood"], abs=1e-3)


def test_galton_s_pedigree_has_the_reference_s_maximum():
    """Children and parents, a mean for each sex of each generation."""
    raw = hz.load_data("galton_families")
    parents = raw.drop_duplicates("family")
    people = [
        pd.DataFrame(
            {"animal": side[0] + parents["family"].astype(str), "who": side, "response": parents[f"{side}_in"]}
        )
        for side in ("father", "mother")
    ]
    number = [f"c{i}" for i in range(len(raw))]
    children = pd.DataFrame({"animal": number, "who": raw["sex"], "response": raw["response"]})
    frame = pd.concat([*people, children], ignore_index=True).assign(site="Britain")
    family = raw["family"].astype(str)
    pedigree = pd.DataFrame({"animal": number, "sire": "f" + family, "dam": "m" + family})
    data = MODEL.data(frame, fixed_effects="who", pedigree=pedigree)
    sigma_A, sigma_E, height = contrasts.restricted_maximum(*(data[name].values[0] for name in ("d", "n", "SS")))
    expected = reference("galton_families")["pedigree_reml"]["estimates"]
    assert [sigma_A, sigma_E] == pytest.approx([expected["sigma_A"], expected["sigma_E"]], abs=2e-3)
    X = np.column_stack([frame["who"] == who for who in frame["who"].unique()]).astype(float)
    found = height - np.linalg.slogdet(X.T @ X)[1] / 2
    assert found == pytest.approx(expected["restricted_log_likelihood"], abs=2e-3)


@pytest.fixture(scope="module")
def poolings():
    return hz.fit_poolings(OF_PLOTS, eucalyptus(), fixed_effects="block", priors=AS_IN_REFERENCE, **SETTINGS)


def test_no_pooling_is_the_reference_s(poolings):
    summary = poolings["none"]["group_summary"].to_dataset()
    for site, expected in reference("eucalyptus_progenies")["no_pooling"]["estimates"].items():
        assert summary["mean"].sel(site=site).item() == pytest.approx(expected["mean"], abs=0.01)
        assert summary["sd"].sel(site=site).item() == pytest.approx(expected["sd"], abs=0.01)


def test_complete_and_partial_pooling_are_the_reference_s(poolings):
    """Within four Monte Carlo errors, and the reference's own grid."""
    expected = reference("eucalyptus_progenies")
    one = hyperparameters(poolings["complete"])["mu"]
    of = expected["complete_pooling"]["estimates"]
    assert float(one.mean()) == pytest.approx(of["mean"], abs=4 * of["sd"] / np.sqrt(3000) + 0.01)
    assert float(one.std()) == pytest.approx(of["sd"], rel=0.06)
    partial, h = expected["partial_folded_normal"]["estimates"], hyperparameters(poolings["partial"])
    for ours, theirs in (("mu", "m"), ("tau", "s")):
        of = partial[theirs]
        assert float(h[ours].mean()) == pytest.approx(of["mean"], abs=4 * of["sd"] / np.sqrt(3000) + 0.01)
    summary = poolings["partial"]["group_summary"].to_dataset()
    for site in summary["site"].values:
        assert summary["mean"].sel(site=site).item() == pytest.approx(partial[site]["mean"], abs=0.06)
        assert summary["sd"].sel(site=site).item() == pytest.approx(partial[site]["sd"], abs=0.06)


# Limits, and what is left out.


def test_without_spread_all_sites_have_one_sigma_A(poolings):
    summary = poolings["complete"]["group_summary"].to_dataset()
    assert float(summary["mean"].max() - summary["mean"].min()) == pytest.approx(0, abs=1e-12)
    assert (summary["kappa"] == 0).all()


def test_a_site_alone_is_a_case():
    fits = hz.fit_poolings(MODEL, ONE, **SETTINGS)
    assert list(fits) == ["none"]
    assert hz.groups(fits).index.tolist() == ["S01"]


@pytest.mark.long
@pytest.mark.parametrize("outlying", [pytest.param(0.0, marks=pytest.mark.slow), 8.0])
def test_a_row_left_out_is_the_ratio_of_two_flat_integrals(outlying):
    """By a dense normal, of sigma_A and sigma_E on a grid: p(y) / p(y without the row), X b integrated out of both."""
    one = ONE.assign(response=ONE["response"] + outlying * (ONE.index == 0))
    data = with_tables(MODEL, one)
    h = xr.Dataset({"mu": ("sample", [0.4]), "tau": ("sample", [0.3])})
    found = MODEL.group_level.leave_row_out(h, data, np.arange(3))
    prior = MODEL.priors(MODEL.data(one))["sigma_E"].parameters
    a, log_sigma = 0.4 + 0.3 * np.linspace(-6, 6, 121), np.linspace(-2.5, 1.2, 91)
    weight = stats.norm(0.4, 0.3).pdf(a)[:, None] * stats.norm(float(prior["mu"]), float(prior["sigma"])).pdf(log_sigma)
    sire, y = one["sire"].to_numpy(), one["response"].to_numpy()

    def evidence(keep):
        K, X = 0.25 * (sire[keep, None] == sire[keep]), np.ones((keep.sum(), 1))
        np.fill_diagonal(K, 1)
        total = 0.0
        for i, j in np.ndindex(weight.shape):
            inverse = np.linalg.inv(a[i] ** 2 * K + np.exp(2 * log_sigma[j]) * np.eye(keep.sum()))
            XVX, XVy = X.T @ inverse @ X, X.T @ inverse @ y[keep]
            log = np.linalg.slogdet(inverse)[1] - np.linalg.slogdet(XVX)[1]
            log -= y[keep] @ inverse @ y[keep] - XVy @ np.linalg.solve(XVX, XVy) + (keep.sum() - 1) * np.log(2 * np.pi)
            total += weight[i, j] * np.exp(log / 2)
        return np.log(total)

    everything = np.ones(len(ONE), bool)
    for i in (0, 2):
        expected = evidence(everything) - evidence(np.arange(len(ONE)) != i)
        assert found.isel(scored=i).item() == pytest.approx(expected, abs=0.01)


def test_where_the_spread_is_0_an_empirical_estimate_has_the_error_of_its_curvature():
    """Tables are straight between their nodes: differences over a gap would see a kink."""
    rng = np.random.default_rng(9)
    frame, _ = MODEL.simulate(rng, sites=2, tau=0.0, sires=(15, 15), offspring=(6, 6))
    estimates = hz.empirical_bayes(MODEL, frame)["estimates"].to_dataset().sel(hyperparameter="mu")
    data = MODEL.data(frame)
    prior = MODEL.priors(data)["sigma_E"].parameters
    t = np.linspace(-4, 4, 401) * float(prior["sigma"]) + float(prior["mu"])
    a = float(estimates["value"]) + 0.02 * np.array([-1.0, 0.0, 1.0])
    weight = stats.norm(float(prior["mu"]), float(prior["sigma"])).logpdf(t)
    total = 0.0
    for j in range(2):
        used = data.n.values[j] > 0
        eigen = [data[name].values[j, used] for name in ("d", "n", "SS")]
        total = total + special.logsumexp(contrasts.log_density(a[:, None], np.exp(t)[None], *eigen) + weight, axis=1)
    curvature = (2 * total[1] - total[0] - total[2]) / 0.02**2
    assert float(estimates["se"]) == pytest.approx(curvature**-0.5, rel=0.06)


@pytest.mark.long
def test_an_empirical_estimate_of_no_spread_is_exactly_0():
    """Its search takes long steps, and once ended beside the boundary, at .003, or found no maximum."""
    sizes = {"sites": 4, "tau": 0.0, "sires": (12, 20), "offspring": (4, 8)}
    for seed in (2, 6):
        frame, _ = MODEL.simulate(np.random.default_rng(seed), **sizes)
        found = hz.empirical_bayes(MODEL, frame)
        assert found.attrs["boundary"] == "tau = 0"
        assert found["estimates"]["value"].values[1] == 0
        data = with_tables(MODEL, frame)
        mu, tau = np.meshgrid(np.linspace(0.3, 1.0, 141), [0.0, 1e-3, 1e-2, 0.05])
        h = xr.Dataset({"mu": ("sample", mu.ravel()), "tau": ("sample", tau.ravel())})
        assert float(MODEL.group_level.log_joint(h, data).max()) <= found.attrs["log_likelihood"] + 1e-6


@pytest.mark.slow
def test_a_site_left_out_is_what_a_fit_without_it_predicts():
    """The log of its density, averaged over draws that never saw it, within four of both Monte Carlo errors."""
    frame, _ = MODEL.simulate(np.random.default_rng(3), sites=4, sires=(8, 12), offspring=(3, 6))
    data = MODEL.data(frame)
    priors = MODEL.priors(data)
    settings = {"priors": priors, "draws": 2000, **SETTINGS}
    fit = hz.fit(MODEL, frame, **settings)
    summary = fit["group_summary"].dataset
    for j, site in enumerate(data["site"].values[:2]):
        h = hyperparameters(hz.fit(MODEL, frame[frame["site"] != site], **settings))
        density = np.exp(MODEL.group_level.log_left_out(h, prepared(fit).isel(site=[j])).values.ravel())
        error = density.std() / density.mean() / np.sqrt(density.size)
        error = np.hypot(error, float(summary["elpd_mcse"].sel(site=site)))
        assert float(summary["elpd"].sel(site=site)) == pytest.approx(np.log(density.mean()), abs=4 * error)
    scored = hz.compare_poolings({"partial": fit})
    assert scored["elpd"].item() == pytest.approx(float(summary["elpd"].sum()), abs=4 * scored["mcse"].item() + 1e-9)


def test_fits_with_other_fixed_effects_are_not_compared():
    """Densities of error contrasts are comparable for one X only."""
    frame = ONE.assign(block=np.where(np.arange(len(ONE)) % 2, "b1", "b2"))
    with_block, without = (hz.fit(MODEL, frame, "none", fixed_effects=x, **SETTINGS) for x in ("block", ""))
    with pytest.raises(ValueError, match="These fits do not belong together: 'without' is of other data"):
        hz.compare_poolings({"with": with_block, "without": without})


@pytest.mark.long
def test_a_new_site_of_one_row_says_nothing_of_its_variance():
    fit = hz.fit(MODEL, SMALL, draws=200, **SETTINGS)
    one = hz.predict(fit, SMALL.head(1).assign(site="new"))["group_summary"].to_dataset().sel(site="new")
    never = hz.predict(fit, n_new=1)["group_summary"].to_dataset().isel(site=0)
    assert float(one["mean"]) == pytest.approx(float(never["mean"]), rel=0.02)


@pytest.mark.long
def test_effects_of_new_rows_are_estimable_or_not_in_any_unit():
    blocks = SMALL.assign(block=np.where(np.arange(len(SMALL)) % 2, "b1", np.where(SMALL["site"] == "S01", "b0", "b2")))
    asked = blocks[blocks["site"] == "S01"].head(1).assign(block="b2")
    for offset, unit in ((0.0, 1.0), (5e6, 100.0), (0.0, 1e-7)):
        north = offset + unit * np.random.default_rng(1).normal(size=len(SMALL))
        fit = hz.fit(MODEL, blocks.assign(north=north), "none", fixed_effects="block, north", draws=100, **SETTINGS)
        with pytest.raises(ValueError, match="Site 'S01' has no data of a fixed effect"):
            hz.predict(fit, asked.assign(north=north[0]))
        there = hz.predict(fit, asked.assign(north=north[0], block="b0"))["predictions"]["y"]
        assert abs(float(there.mean()) - SMALL["response"].mean()) < 3


def test_the_data_without_a_row_are_those_of_a_frame_without_it():
    data = with_tables(MODEL, ONE)
    priors = MODEL.priors(MODEL.data(ONE))
    less = MODEL.group_level.without_row(data, 4)
    again = with_tables(MODEL, ONE.drop(index=4).reset_index(drop=True), priors)
    h = xr.Dataset({"mu": ("sample", [0.2, 0.6]), "tau": ("sample", [0.0, 0.4])})
    ours, theirs = (MODEL.group_level.log_joint(h, each) for each in (less, again))
    # The density of the contrasts lacks what ties them to rows, which no hyperparameter changes.
    assert float((ours - theirs).diff("sample").item()) == pytest.approx(0, abs=0.01)


def test_a_row_that_alone_tells_of_a_fixed_effect_is_named_and_not_scored():
    frame = ONE.assign(block=np.where(np.arange(len(ONE)) == 5, "apart", "rest"))
    with pytest.warns(FrameWarning, match="Row 5: each alone tells of a fixed effect"):
        fit = hz.fit(MODEL, frame, "none", fixed_effects="block", **SETTINGS)
    assert 5 not in prepared(fit)["scored_row"].values
    score = hz.compare_poolings({"none": fit}, "new_observation")
    assert np.isfinite(score["elpd"]).all()


@pytest.mark.long
def test_new_rows_have_the_spread_of_the_site_and_its_mean():
    fit = hz.fit(MODEL, SMALL, **SETTINGS)
    replicated = fit["posterior_predictive"]["y"]
    for _, rows in SMALL.groupby("site"):
        drawn = replicated.values[:, :, rows.index]
        assert drawn.mean() == pytest.approx(rows["response"].mean(), abs=0.15)
        assert drawn.std(axis=2).mean() == pytest.approx(rows["response"].std(), rel=0.25)
    with pytest.raises(ValueError, match="The mean of site 'S99' has a flat prior"):
        hz.predict(fit, pd.DataFrame({"site": ["S99"], "sire": ["new"]}))
    assert set(hz.predict(fit, n_new=2)["group_summary"]["case"].values) == {"never seen"}


def test_new_offspring_of_a_known_sire_are_predicted_by_what_is_known_of_it():
    """Half of its breeding value; nothing of a sire that is not known, and by nobody before there are data."""
    frame, _ = MODEL.simulate(np.random.default_rng(4), sites=1, mu=1.2, tau=0.0, sires=(15, 15), offspring=(12, 12))
    fit = hz.fit(MODEL, frame, "none", **SETTINGS)
    ranked = hz.variance_components.breeding_values(fit).loc["S01", "breeding_value"].sort_values()
    asked = pd.DataFrame({"site": "S01", "sire": [ranked.index[0], ranked.index[-1], "new"]})
    rows = hz.predict(fit, asked)["row_summary"].dataset
    expected = [*(ranked.iloc[[0, -1]] / 2), 0.0]
    error = 4 * float(rows["sd"].max()) / np.sqrt(4000)
    np.testing.assert_allclose(rows["mean"] - rows["mean"][2], expected, atol=1.5 * error)
    assert abs(ranked.iloc[0] - ranked.iloc[-1]) / 2 > 6 * error
    assert rows["sd"][2] > rows["sd"][:2].max()
    level, data = MODEL.group_level, prepared(fit)
    theta = xr.DataArray(np.full((4000, 1), 1.2), {"site": ["S01"]}, ("sample", "site"))
    before = level.replicate(np.random.default_rng(1), theta, hyperparameters(fit), data, level.unseen(data))
    by_sire = before.mean("sample").groupby(xr.DataArray(frame["sire"], dims="record")).mean()
    assert float(by_sire.std()) < error


def test_a_pedigree_for_new_animals_has_the_parents_that_the_fit_s_has():
    """Another sire of an animal that was seen is refused; one who is not named here is not."""
    fit = hz.fit(MODEL, PEDIGREED, "none", pedigree=FAMILIES, **SETTINGS)
    asked = pd.DataFrame({"site": ["A"], "animal": ["new"]})
    child = pd.DataFrame({"animal": ["new"], "sire": ["c1"], "dam": ["c2"]})
    more, fewer = (pd.concat([frame, child]) for frame in (FAMILIES, FAMILIES[FAMILIES["animal"] != "c2"]))
    for pedigree in (more, fewer):
        assert np.isfinite(hz.predict(fit, asked, pedigree=pedigree)["row_summary"]["mean"]).all()
    other = more.assign(sire=more["sire"].where(more["animal"] != "c1", "another"))
    with pytest.raises(ValueError, match="the sire of 'c1' is 's', got 'another'"):
        hz.predict(fit, asked, pedigree=other)


# Frames.


@pytest.mark.parametrize(
    ("change", "options", "sentence"),
    [
        (lambda f: f.drop(columns="site"), {}, "expected a column 'site'"),
        (lambda f: f.drop(columns="response"), {}, "expected a column 'response'"),
        (lambda f: f.drop(columns="sire"), {}, "expected one way of saying who is related.*got none"),
        (lambda f: f.assign(family="x"), {}, "expected one way of saying who is related.*'sire' and 'family'"),
        (lambda f: f.rename(columns={"sire": "dam"}), {}, "expected one way of saying who is related"),
        (lambda f: f.rename(columns={"sire": "animal"}), {}, "'animal' goes with a frame as 'pedigree'"),
        (lambda f: f, {"pedigree": FAMILIES}, "'pedigree' goes with a column 'animal'"),
        (lambda f: f.assign(response="tall"), {}, "'response' expected a finite number.*'tall'"),
        (lambda f: f.assign(sire=None), {}, "'sire' expected a label"),
        (lambda f: f.assign(dam=f["sire"]), {}, "is a sire in one row and a dam in another"),
        (lambda f: f, {"fixed_effects": "block"}, "expected a column 'block'"),
        (
            lambda f: f.assign(block=None),
            {"fixed_effects": "block"},
            "'block' expected a number in each row, or labels",
        ),
        (
            lambda f: f.assign(plot=[f"p{i}" for i in f.index]),
            {"fixed_effects": "plot"},
            "more rows than fixed effects.*'S01'",
        ),
        (lambda f: f.assign(response=3.0), {}, "rows that differ at each site, got none at 'S01'"),
        (lambda f: f, {"fixed_effect": "block"}, "fixed_effects"),
        (lambda f: f.assign(mean=1.0), {"fixed_effects": "mean"}, "'mean' is a fixed effect already"),
        (lambda f: f, {"fixed_effects": "response"}, "'response' is what fixed effects are to explain"),
        (lambda f: f.iloc[:0], {}, "empty frame"),
    ],
)
def test_bad_frames_are_named(change, options, sentence):
    with pytest.raises(ValueError, match=sentence):
        MODEL.build(change(SMALL), **options)


def test_what_only_priors_can_tell_is_said():
    with pytest.warns(FrameWarning, match="Only priors tell sigma_A from sigma_E at S01"):
        MODEL.build(ONE.drop_duplicates("sire"), "none")


def test_what_is_to_be_said_of_data_is_said_once_whatever_the_priors():
    """By a fit, and not by what reads one."""
    own = {"sigma_E": Prior("LogNormal", mu=0.0, sigma=0.5), "a": Prior("Normal", mu=0.0, sigma=1.0)}
    frame = ONE.drop_duplicates("sire")
    with pytest.warns(FrameWarning) as said:
        fit = hz.fit(MODEL, frame, "none", priors=own, **SETTINGS)
    assert ["Only priors tell" in str(one.message) for one in said] == [True]
    MODEL.priors(prepared(fit))
    with pytest.warns(FrameWarning) as said:
        hz.calibrate(MODEL, frame, "none", simulations=2, draws=50, priors=own, random_seed=1, progressbar=False)
    assert len(said) == 1
    with pytest.raises(FrameError, match="rows that differ"):
        hz.fit(MODEL, ONE.assign(response=3.0), "none", priors=own, **SETTINGS)


@pytest.mark.parametrize("blocks", [3, 12])
def test_numbers_that_may_be_labels_are_asked_about(blocks):
    """A word settles it, and so does a label; numbers that hardly come twice are no labels."""
    frame, _ = MODEL.simulate(np.random.default_rng(2), sites=2, sires=(12, 12), offspring=(5, 5))
    frame = frame.assign(block=np.arange(len(frame)) % blocks + 1, weight=np.arange(len(frame)))
    with pytest.warns(FrameWarning, match=f"'block' holds {blocks} whole numbers from 1 to {blocks} and is taken for"):
        line = MODEL.data(frame, fixed_effects="block")
    assert line.attrs["fixed_effects"] == "block (covariate)"
    xr.testing.assert_identical(line, MODEL.data(frame, fixed_effects="block (covariate)"))
    said = MODEL.data(frame, fixed_effects="block (factor), weight")
    assert said.sizes["effect"] == 2 + blocks
    labelled = MODEL.data(frame.assign(block="b" + frame["block"].astype(str)), fixed_effects=["block", "weight"])
    np.testing.assert_allclose(said["SS"], labelled["SS"])
    assert labelled.attrs["fixed_effects"] == "block (factor), weight (covariate)"


def test_a_cell_that_is_no_number_makes_no_factor_of_a_covariate():
    frame = SMALL.assign(north=np.random.default_rng(1).normal(size=len(SMALL)).round(3).astype(object))
    frame.loc[7, "north"] = "n/a?"
    with pytest.raises(FrameError, match=r"'north' expected a number in each row.*got 'n/a\?' in row 7"):
        MODEL.data(frame, fixed_effects="north")


def test_a_fixed_effect_of_new_rows_is_what_it_was():
    """A factor whose labels look like numbers, and a covariate that gets a label."""
    blocks = SMALL.assign(block=np.resize(["1", "2", "x"], len(SMALL)), north=np.arange(len(SMALL)) / 7)
    fit = hz.fit(MODEL, blocks, "none", fixed_effects="block, north", draws=100, **SETTINGS)
    asked = SMALL.head(2).assign(block=["1", "2"], north=1.0)
    as_text, as_numbers = (
        hz.predict(fit, asked.assign(block=asked["block"].astype(kind)))["row_summary"]["mean"] for kind in (str, float)
    )
    np.testing.assert_array_equal(as_text, as_numbers)
    with pytest.raises(FrameError, match="'north' expected a finite number, got 'far' in row 1"):
        hz.predict(fit, asked.assign(north=["1", "far"]))


def test_a_prior_that_no_pooling_cannot_take_is_named():
    with pytest.raises(ValueError, match="No pooling is exact under a Normal prior of 'a'"):
        hz.fit(MODEL, ONE, "none", priors={"a": Prior("StudentT", nu=3, mu=0, sigma=1)}, **SETTINGS)


@pytest.mark.slow
@pytest.mark.parametrize("design", ["half sibs", "full sibs", "no inheritance"])
def test_simulation_based_calibration(design):
    """Two hundred simulations; in full in the docs."""
    rng, sizes = np.random.default_rng(1), {"sites": 4, "sires": (8, 12), "offspring": (3, 6)}
    frame, _ = MODEL.simulate(rng, **(sizes | {"dams": 2} if design == "full sibs" else sizes))
    priors = {"mu": Prior("HalfNormal", sigma=1e-3), "tau": Prior("HalfNormal", sigma=1e-3)}
    given = {"priors": priors} if design == "no inheritance" else {}
    result = hz.calibrate(MODEL, frame, simulations=200, random_seed=2, progressbar=False, **given)
    assert result.table["p_holm"].min() > 0.01
    assert {"log_population", "tau", "sigma_A_new_mean"} <= set(result.table.index)


@pytest.mark.slow
@pytest.mark.parametrize("pooling", ["none", "complete"])
def test_the_other_poolings_are_calibrated_too(pooling):
    """A hundred simulations: of sites that are alike, and of each alone."""
    sizes = {"sites": 4, "sires": (10, 14), "offspring": (3, 6)}
    frame, _ = MODEL.simulate(np.random.default_rng(1), **sizes)
    settings = {"simulations": 100, "draws": 250, "random_seed": 2, "progressbar": False}
    assert hz.calibrate(MODEL, frame, pooling, **settings).table["p_holm"].min() > 0.01


def test_numbers_of_numpy_and_labels_as_numbers_are_understood():
    numbered = SMALL.assign(site=SMALL["site"].map({site: float(k) for k, site in enumerate(SMALL["site"].unique())}))
    fit = hz.fit(MODEL, numbered, "none", draws=100, **SETTINGS)
    verbs = hz.variance_components
    assert verbs.breeding_values(fit, site=2.0).index.unique("site").tolist() == [2]
    response, components = (verbs.response_to_selection(fit, np.int64(2)), verbs.components(fit, np.float32(0.25)))
    pd.testing.assert_frame_equal(response, verbs.response_to_selection(fit, 2))
    assert "p_h2_above_0.25" in components
