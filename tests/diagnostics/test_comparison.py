"""Two questions, never mixed: against closed forms, quadrature and brute force."""

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pandas as pd
import pytest
import xarray as xr
from pymc_extras.prior import Prior
from scipy import stats
from scipy.special import logsumexp

import hbm_zoo as hz
from hbm_zoo.diagnostics import cross_validation
from hbm_zoo.diagnostics.cross_validation import SPLITS, refitted
from hbm_zoo.inference.fits import prepared, priors_of
from hbm_zoo.inference.free_parameters import left_out

SETTINGS = {"random_seed": 1, "progressbar": False}


@pytest.fixture(scope="module")
def three():
    return hz.fit_poolings(hz.hospital_readmission, hz.load_data("three_hospitals"), **SETTINGS)


@pytest.fixture(scope="module")
def heart():
    return hz.fit_poolings(hz.hospital_readmission, hz.load_data("heart_transplants"), **SETTINGS)


@pytest.fixture(scope="module")
def three_tables(three):
    return {question: hz.compare_poolings(three, question, 7) for question in ("new_group", "new_observation")}


@pytest.fixture(scope="module")
def heart_table(heart):
    return hz.compare_poolings(heart)


def negative_binomial(O, E, a, b):
    """Log p(O | lam ~ Gamma(a, b)), by scipy."""
    return stats.nbinom.logpmf(O, a, b / (b + E))


def posterior_grid(O, E, complete=False):
    """Points (mu, cv) and log posterior weights under the default priors, on a fine grid."""
    log_mu = np.linspace(-1.5, 1.5, 121)[:, None, None]
    cv = np.array([1e-4]) if complete else np.linspace(0.005, 4, 240)
    mu, cv = np.exp(log_mu), cv[None, :, None]
    a = cv**-2
    log_weight = stats.norm.logpdf(log_mu, 0, 0.5) + stats.halfnorm.logpdf(cv)
    log_weight = log_weight[..., 0] + negative_binomial(O, E, a, a / mu).sum(-1)
    return mu, cv, log_weight - logsumexp(log_weight)


@pytest.mark.parametrize(
    ("alpha", "elpd"), [(1.0, -197), pytest.param(0.1, -290, marks=pytest.mark.slow), (0.001, -624)]
)
def test_no_pooling_moves_with_its_prior_and_is_never_ranked(alpha, elpd):
    priors = {"lam": Prior("Gamma", alpha=alpha, beta=alpha)}
    fit = hz.fit("hospital_readmission", hz.load_data("heart_transplants"), "none", priors=priors, **SETTINGS)
    table = hz.compare_poolings({"none": fit})
    frame = hz.load_data("heart_transplants")
    exact = negative_binomial(frame["observed"], frame["expected"], alpha, alpha).sum()
    assert table.loc["none", "elpd"] == pytest.approx(exact, abs=1e-8)
    assert table.loc["none", "elpd"] == pytest.approx(elpd, abs=1)
    assert table["rank"].isna().all()
    assert f"alpha={alpha:g}" in table.loc["none", "note"]


@pytest.mark.parametrize("pooling", ["complete", "partial"])
def test_a_new_hospital_against_quadrature(three_tables, pooling):
    frame = hz.load_data("three_hospitals")
    O, E = frame["observed"].to_numpy(), frame["expected"].to_numpy()
    exact = 0.0
    for j in range(3):
        mu, cv, log_weight = posterior_grid(np.delete(O, j), np.delete(E, j), complete=pooling == "complete")
        a = cv**-2
        exact += logsumexp(log_weight + negative_binomial(O[j], E[j], a, a / mu)[..., 0])
    table = three_tables["new_group"]
    assert table.loc[pooling, "refits"] == 3
    assert table.loc[pooling, "elpd"] == pytest.approx(exact, abs=5 * table.loc[pooling, "mcse"] + 0.01)


def test_importance_sampling_agrees_with_refitting_every_hospital(monkeypatch):
    frame = hz.load_data("heart_transplants").tail(21)
    fits = {"partial": hz.fit("hospital_readmission", frame, **SETTINGS)}
    smoothed = hz.compare_poolings(fits).loc["partial"]
    monkeypatch.setattr("hbm_zoo.diagnostics.cross_validation.GROUPS_FOR_BRUTE_FORCE", 21)
    brute_force = hz.compare_poolings(fits).loc["partial"]
    assert (brute_force["refits"], smoothed["refits"]) == (21, 0)
    assert smoothed["elpd"] == pytest.approx(brute_force["elpd"], abs=0.05 + 4 * brute_force["mcse"])


def test_partial_pooling_of_the_heart_hospitals_as_computed_elsewhere(heart_table):
    partial = heart_table.loc["partial"]
    assert partial["elpd"] == pytest.approx(-182.7, abs=0.3)
    assert partial["refits"] <= 1  # of the hospital that moves the population most, where k-hat is near its limit


def test_the_same_hospital_again_against_scipy_and_quadrature(three, three_tables):
    table = three_tables["new_observation"]
    data, rng = prepared(three["none"]), np.random.default_rng(7)
    mean, variance = np.exp(0.125), 2 * np.exp(0.5) - np.exp(0.25)
    a0, b0 = mean**2 / variance, mean / variance
    exact = {"none": 0.0, "partial": 0.0}
    for _ in range(SPLITS):
        first, second = hz.hospital_readmission.MODEL.extras.thin(rng, data)
        O1, O2, half = first["observed"].values, second["observed"].values, data["expected"].values / 2
        exact["none"] += negative_binomial(O2, half, a0 + O1, b0 + half).sum() / SPLITS
        mu, cv, log_weight = posterior_grid(O1, half)
        a, b = cv**-2, cv**-2 / mu
        by_hospital = logsumexp(log_weight[..., None] + negative_binomial(O2, half, a + O1, b + half), axis=(0, 1))
        exact["partial"] += by_hospital.sum() / SPLITS
    assert table.loc["none", "elpd"] == pytest.approx(exact["none"], abs=1e-8)
    assert table.loc["partial", "elpd"] == pytest.approx(exact["partial"], abs=0.03)


def test_thinning_makes_two_independent_poissons():
    data = xr.Dataset({"observed": ("hospital", np.full(200_000, 6)), "expected": ("hospital", np.full(200_000, 5.0))})
    rng = np.random.default_rng(0)
    data["observed"] = ("hospital", rng.poisson(6.0, 200_000))
    first, second = hz.hospital_readmission.MODEL.extras.thin(rng, data)
    O1, O2 = first["observed"].values, second["observed"].values
    assert (O1 + O2 == data["observed"].values).all()
    assert (first["expected"] == 2.5).all()
    assert abs(np.corrcoef(O1, O2)[0, 1]) < 4 / np.sqrt(200_000)
    assert O1.var() == pytest.approx(3.0, abs=0.06)


def test_the_two_questions_never_mix(three_tables):
    assert "not seen before" in three_tables["new_group"].attrs["question"]
    assert "again" in three_tables["new_observation"].attrs["question"]
    assert three_tables["new_group"]["rank"].isna().sum() == 1
    assert three_tables["new_observation"]["rank"].notna().all()
    assert three_tables["new_group"].columns.name == three_tables["new_group"].attrs["question"]


def test_p_counts_hyperparameters_and_p_d_the_group_level(heart_table):
    partial = heart_table.loc["partial"]
    assert partial["p"] < 3
    assert partial["p_d"] == pytest.approx(partial["sum_kappa"] + 1, abs=2)
    complete = heart_table.loc["complete"]
    assert complete["p_d"] == pytest.approx(1, abs=0.1)
    assert list(heart_table.loc[["none", "complete", "partial"], "parameters"]) == [94, 1, 96]


def test_p_d_against_draws(heart, heart_table):
    """p_D = mean deviance - deviance at the mean, from the draws of lam themselves."""
    fit = heart["partial"]
    lam, data = fit["posterior"]["lam"], fit["constant_data"]
    O, E = data["observed"].values, data["expected"].values
    draws = -2 * stats.poisson.logpmf(O, E * lam.values).sum(-1)
    p_d = draws.mean() - -2 * stats.poisson.logpmf(O, E * lam.mean(("chain", "draw")).values).sum()
    table = heart_table.loc["partial"]
    assert table["p_d"] == pytest.approx(p_d, abs=5 * draws.std() / np.sqrt(draws.size) + 0.2)
    assert table["dic"] == pytest.approx(draws.mean() + p_d, abs=1)


def test_few_hospitals_have_no_standard_error_of_a_difference(three_tables):
    table = three_tables["new_group"]
    assert table.loc[table["rank"] == 2, "dse"].isna().all()
    assert "too few" in table.loc["partial", "note"]


@pytest.mark.long
def test_two_hospitals_are_enough():
    frame = hz.load_data("three_hospitals").head(2)
    fits = hz.fit_poolings("hospital_readmission", frame, **SETTINGS)
    for question in ("new_group", "new_observation"):
        assert np.isfinite(hz.compare_poolings(fits, question)["elpd"]).all()


def test_fits_of_other_data_are_refused(three, heart):
    with pytest.raises(ValueError, match="do not belong together: 'partial' is of other data"):
        hz.compare_poolings({"none": three["none"], "partial": heart["partial"]})


def test_an_unknown_question_names_the_nearest(three):
    with pytest.raises(ValueError, match="Unknown question 'new_groups'.*Did you mean 'new_group'"):
        hz.compare_poolings(three, "new_groups")


def test_a_fit_from_disk_gives_the_same_table(three, three_tables, tmp_path):
    for name, fit in three.items():
        fit.to_netcdf(tmp_path / f"{name}.nc")
    loaded = {name: xr.open_datatree(tmp_path / f"{name}.nc").load() for name in three}
    here, there = three_tables["new_group"], hz.compare_poolings(loaded, random_seed=7)
    np.testing.assert_allclose(here["elpd"].astype(float), there["elpd"].astype(float), rtol=1e-12)


def test_an_outlier_left_out_of_complete_pooling_is_exact():
    """BCG: one effect for thirteen trials that disagree; PSIS gives -86, the mean over refitted draws -101."""
    frame = hz.load_data("bcg_vaccine")
    y, se = frame["effect"].to_numpy(), frame["standard_error"].to_numpy()
    fit = hz.fit("vaccine_clinics", frame, pooling="complete", **SETTINGS)
    prior = hz.vaccine_clinics.MODEL.priors(prepared(fit))["mu"].parameters
    m0, s0, exact = float(prior["mu"]), float(prior["sigma"]), 0.0
    for j in range(len(y)):
        weights = 1 / np.delete(se, j) ** 2
        variance = 1 / (weights.sum() + 1 / s0**2)
        mean = variance * (weights @ np.delete(y, j) + m0 / s0**2)
        exact += stats.norm.logpdf(y[j], mean, np.sqrt(variance + se[j] ** 2))
    row = hz.compare_poolings({"complete": fit}).loc["complete"]
    assert exact == pytest.approx(-93.7, abs=0.2)
    assert row["max_k_hat"] > 0.7
    assert row["elpd"] == pytest.approx(exact, abs=1e-6)
    assert row["mcse"] < 1e-6


def test_an_outlier_left_out_of_partial_pooling_is_known_to_its_error():
    """Eleven clinics agree, one lies at 40 standard errors: no draw without it comes near it."""
    y = np.array([-0.13, 0.05, -0.09, 0.02, 0.1, 4.0, 0.08, -0.06, 0.03, 0, 0.11, -0.04])
    frame = pd.DataFrame({"clinic": [f"C{i}" for i in range(12)], "effect": y, "standard_error": 0.1})
    fit = hz.fit("vaccine_clinics", frame, **SETTINGS)
    priors = {name: {k: float(v) for k, v in prior.parameters.items()} for name, prior in priors_of(fit).items()}
    tau = np.linspace(1e-6, 30, 60_001)

    def log_evidence(y):
        total = np.empty(tau.size)
        for k, t in enumerate(tau[:, None] ** 2 + 0.01):
            spread = priors["mu"]["sigma"] ** 2
            centred, shared = y - priors["mu"]["mu"], 1 + spread * y.size / t[0]
            squares = (centred @ centred - spread * centred.sum() ** 2 / (t[0] * shared)) / t[0]
            total[k] = -0.5 * (squares + y.size * np.log(2 * np.pi * t[0]) + np.log(shared))
        return logsumexp(total + stats.halfnorm.logpdf(tau, scale=priors["tau"]["sigma"])) + np.log(tau[1] - tau[0])

    exact = log_evidence(y) - log_evidence(np.delete(y, 5))
    (elpd,), (mcse,) = refitted(hz.vaccine_clinics.MODEL, fit, np.array([5]), 0)
    assert exact == pytest.approx(-26.25, abs=0.02)
    assert mcse < 0.05
    assert elpd == pytest.approx(exact, abs=4 * mcse)


@pytest.mark.parametrize(
    ("model", "dataset"),
    [("tissue_expression", "dyestuff"), ("reaction_norms", "sleepstudy"), ("spike_slab_genes", "")],
)
def test_complete_pooling_by_quadrature_agrees_with_refits(model, dataset):
    """Whatever the groups share, one number or three: no worse than the fits it replaces."""
    record = getattr(hz, model).MODEL
    simulated, _ = record.simulate(np.random.default_rng(3), **({} if dataset else {"genes": 12}))
    fit = hz.fit(record, hz.load_data(dataset, record) if dataset else simulated, pooling="complete", **SETTINGS)
    which = np.array([0, 3])
    elpd, mcse = refitted(record, fit, which, seed=1)
    by_quadrature, error = left_out(record, fit, which)
    assert error.max() < 0.01
    np.testing.assert_array_less(abs(by_quadrature - elpd), 4.5 * np.array(mcse) + 0.01)


@pytest.mark.slow
def test_where_quadrature_is_not_exact_it_is_known_and_refitted(monkeypatch):
    """Two rows nearly settle one line: what is left out lies down a funnel in sigma that few nodes miss."""
    rows = [("a", 0, 1.0), ("a", 1, 2.5), ("b", 0, 2.0), ("b", 1, 6.0)]
    frame = pd.DataFrame(rows, columns=["genotype", "environment", "response"])
    with pytest.warns(UserWarning, match="No genotype has a row to spare"):
        fit = hz.fit("reaction_norms", frame, pooling="complete", **SETTINGS)
    tried = []
    monkeypatch.setattr(cross_validation, "left_out", lambda *given: tried.append(left_out(*given)) or tried[-1])
    row = hz.compare_poolings({"complete": fit}).loc["complete"]
    ((_, error),) = tried
    assert len(error) == 2
    assert not (error <= 0.01).all()
    # The mean integrated out in closed form, sigma on a grid.
    assert row["elpd"] == pytest.approx(-10.72, abs=4.5 * row["mcse"])
    assert 0 < row["mcse"] < 0.5


def test_no_pooling_that_shares_a_noise_is_left_out_exactly_and_says_so():
    """Tissues share sigma: leaving one out changes it, and a one-dimensional integral says how much."""
    cells = pd.DataFrame({"tissue": list("aaaabbb"), "expression": [1, 1.01, 0.99, 1.0, 3, 3.8, 2.0]})
    row = hz.compare_poolings({"none": hz.fit("tissue_expression", cells, pooling="none", **SETTINGS)}).loc["none"]
    assert row["elpd"] == pytest.approx(-18.50, abs=4.5 * row["mcse"])
    assert row["refits"] == 2
    assert pd.isna(row["rank"])
    assert "beside the shared sigma" in row["note"]


def test_a_row_that_importance_sampling_cannot_leave_out_is_refitted():
    """One cell far from all others: k-hat says so, and a grid over mu, tau and sigma says what is right."""
    cells = pd.DataFrame({"tissue": list("aabbccdd"), "expression": [1, 1.2, 2, 2.1, 3, 3.3, 1.5, 9.0]})
    fit = hz.fit("tissue_expression", cells, **SETTINGS)
    row = hz.compare_poolings({"partial": fit}, "new_observation").loc["partial"]
    assert row["max_k_hat"] > 0.7
    assert row["refits"] >= 1
    record, data = hz.tissue_expression.MODEL, prepared(fit)
    priors = {name: {k: float(v) for k, v in p.parameters.items()} for name, p in priors_of(fit).items()}
    mu, tau, sigma = (
        v.ravel() for v in np.meshgrid(np.linspace(-12, 20, 61), np.linspace(0.02, 9, 75), np.geomspace(0.02, 9, 75))
    )
    h = xr.Dataset({"mu": ("sample", mu), "tau": ("sample", tau), "sigma": ("sample", sigma)})
    log_prior = stats.norm.logpdf(mu, priors["mu"]["mu"], priors["mu"]["sigma"]) + np.log(sigma)
    log_prior += sum(stats.halfnorm.logpdf(h[name].values, scale=priors[name]["sigma"]) for name in ("tau", "sigma"))

    def log_evidence(data):
        return logsumexp(log_prior + record.group_level.log_left_out(h, data).sum("tissue").values)

    exact = sum(log_evidence(data) - log_evidence(hz.MODELS[record.name].without_row(data, i)) for i in range(8))
    assert row["elpd"] == pytest.approx(exact, abs=4.5 * row["mcse"])


@pytest.mark.long
@pytest.mark.parametrize("question", ["new_group", "new_observation"])
def test_refits_are_the_same_whoever_makes_them(three, three_tables, question):
    with ThreadPoolExecutor(2) as executor:
        shared = hz.compare_poolings(three, question, 7, executor=executor)
    assert max(shared["refits"].fillna(0)) > 0 or question == "new_observation"
    pd.testing.assert_frame_equal(shared, three_tables[question], check_exact=True)


@pytest.fixture(scope="module")
def of_two_options():
    frame = hz.load_data("bcg_vaccine")
    return {
        "t": hz.fit("vaccine_clinics", frame, population="student-t", draws=250, **SETTINGS),
        "normal": hz.fit("vaccine_clinics", frame, **SETTINGS),
    }


@pytest.mark.parametrize("question", ["new_group", pytest.param("new_observation", marks=pytest.mark.long)])
def test_fits_of_other_options_are_scored_as_if_alone(of_two_options, question):
    """Whichever comes first: once all were scored by the model of the first."""
    together = hz.compare_poolings(of_two_options, question, 7)
    for name, fit in of_two_options.items():
        alone = hz.compare_poolings({name: fit}, question, 7)
        columns = ["elpd", "se", "mcse", "refits", "dic"]
        np.testing.assert_array_equal(together.loc[name, columns].astype(float), alone.loc[name, columns].astype(float))
    turned = hz.compare_poolings(dict(reversed(of_two_options.items())), question, 7)
    pd.testing.assert_series_equal(turned["elpd"].sort_index(), together["elpd"].sort_index(), check_names=False)


def test_names_of_fits_are_no_paths(three, tmp_path):
    fits = {"../up/a": three["partial"], "a": three["complete"]}
    hz.compare_poolings(fits, "new_group", 7, folder=tmp_path / "in" / "side")
    assert [path.name for path in tmp_path.iterdir()] == ["in"]
    assert [path.name for path in (tmp_path / "in").iterdir()] == ["side"]


@pytest.mark.parametrize("seed", [-1, 0.5])
def test_a_seed_that_is_none_is_refused_and_none_is_drawn(three, seed):
    fits = {"partial": three["partial"]}
    with pytest.raises(ValueError, match="random_seed must be a whole number, 0 or more, or None"):
        hz.compare_poolings(fits, "new_group", seed)
    with pytest.raises(ValueError, match="random_seed must be a whole number, 0 or more, or None"):
        hz.check_model(fits, seed)
    assert len(hz.compare_poolings(fits, "new_group", None)) == 1
    assert len(hz.check_model(fits, None)) > 1


def test_no_refit_has_the_seed_of_the_fit(three, monkeypatch):
    """Its draws would be those of the fit, and the bridge between them takes both for independent."""
    seeds = []
    refit = cross_validation.refit
    monkeypatch.setattr(
        cross_validation, "refit", lambda fit, data, seed, *given: seeds.append(seed) or refit(fit, data, seed, *given)
    )
    for seed in (0, 1):
        hz.compare_poolings({"partial": three["partial"]}, "new_group", seed)
    assert len({*seeds, 1}) == len(seeds) + 1 == 7


def test_a_refit_takes_little_along(three):
    """Of a fit its arrays of draws x groups stay at home, and what is left refits as the whole does."""
    fit = three["partial"]
    assert cross_validation.lean(fit).nbytes < fit.nbytes / 2
    piece = {"model": hz.hospital_readmission.MODEL, "left_out": 0, "seed": 5}
    whole, light = (cross_validation.without_group(piece | {"fit": f}) for f in (fit, cross_validation.lean(fit)))
    assert light.identical(whole)


@pytest.mark.parametrize("question", ["new_group", "new_observation"])
def test_refits_are_recorded_and_gone_on_with(three, three_tables, question, tmp_path, monkeypatch):
    """Those of a fit that was read from its file, too; of another seed they are refused."""
    fits = {name: three[name] for name in ("complete", "partial")}
    expected = hz.compare_poolings(fits, question, 7)
    pd.testing.assert_frame_equal(hz.compare_poolings(fits, question, 7, folder=tmp_path), expected, check_exact=True)
    files = sorted(tmp_path.glob("**/*.nc"))
    assert len(files) == (3 if question == "new_group" else 2 * SPLITS)
    files[0].unlink()
    three["partial"].to_netcdf(tmp_path / "partial.nc")
    with xr.open_datatree(tmp_path / "partial.nc") as read:
        fits["partial"] = read.load()
    refits = []
    refit = cross_validation.refit
    monkeypatch.setattr(cross_validation, "refit", lambda *given, **how: refits.append(given) or refit(*given, **how))
    pd.testing.assert_frame_equal(hz.compare_poolings(fits, question, 7, folder=tmp_path), expected, check_exact=True)
    assert len(refits) == 1
    with pytest.raises(ValueError, match="holds other work"):
        hz.compare_poolings(fits, question, 8, folder=tmp_path)
