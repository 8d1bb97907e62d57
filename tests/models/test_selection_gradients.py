"""Selection gradients against SciPy, identities, quadrature, metafor's estimates and bad frames."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import xarray as xr
from pymc_extras.prior import Prior
from scipy import stats

import hbm_zoo as hz
from hbm_zoo.frames.rules import FrameError, FrameWarning
from hbm_zoo.inference.fits import efficiency
from hbm_zoo.models import selection_gradients as sg
from hbm_zoo.models.vaccine_clinics import MODEL as CLINICS

MODEL, LEVEL = sg.MODEL, sg.MODEL.group_level
FRAME = hz.load_data("selection_gradients")
DEPTH = FRAME[FRAME["trait"] == "beak_depth"]
REFERENCE = json.loads((Path(__file__).parents[1] / "reference" / "selection_gradients.json").read_text())["analyses"]


def gaps():
    """Four years of three traits, out of order; one year lacks two traits, one lacks one."""
    frame, _ = sg.simulate(np.random.default_rng(4), years=4, traits=3)
    frame = frame.drop(index=[4, 6, 7]).sample(frac=1, random_state=1)
    lost = frame["year"] == 1991
    frame.loc[lost & (frame["trait"] == "C"), "covariances"] = frame.loc[
        lost & (frame["trait"] == "C"), "covariances"
    ].str.replace(r"; B.*", "", regex=True)
    frame.loc[frame["year"] == 1992, "covariances"] = np.nan
    return frame


GAPS = gaps()
DATA = MODEL.data(GAPS)
PRIORS = MODEL.priors(DATA)
VALUES = {"mu_1": 0.1, "mu_2": -0.2, "mu_3": 0.05, "tau_1": 0.2, "tau_2": 0.1, "tau_3": 0.3}
VALUES |= {"rho_12": 0.4, "rho_13": -0.5, "rho_23": 0.3}
SIZE = 3
H = xr.Dataset({n: ("sample", [float(v)]) for n, v in (dict.fromkeys(sg.PARAMETERS, 0.0) | VALUES).items()})


def population():
    mean = np.array([VALUES[f"mu_{k}"] for k in (1, 2, 3)])
    r12, r13, partial = VALUES["rho_12"], VALUES["rho_13"], VALUES["rho_23"]
    r23 = r12 * r13 + partial * np.sqrt((1 - r12**2) * (1 - r13**2))
    tau = np.array([VALUES[f"tau_{k}"] for k in (1, 2, 3)])
    return mean, np.outer(tau, tau) * np.array([[1, r12, r13], [r12, 1, r23], [r13, r23, 1]])


MEAN, T = population()
BETA = MEAN + np.random.default_rng(2).standard_normal((4, SIZE)) * 0.2


# Each variant's density, term by term.


def of_year(t):
    """What was measured in a year, the estimates, and the covariance of their errors."""
    i = np.flatnonzero(DATA.measured.values[t])
    return i, DATA.b.values[t, i], DATA.S.values[t][np.ix_(i, i)]


def given(beta):
    return sum(stats.multivariate_normal.logpdf(b, beta[t][i], S) for t in range(4) for i, b, S in [of_year(t)])


def integrated(mean, T):
    return sum(
        stats.multivariate_normal.logpdf(b, mean[i], T[np.ix_(i, i)] + S) for t in range(4) for i, b, S in [of_year(t)]
    )


def log_prior(names):
    total = 0.0
    for name in names:
        if name.startswith("mu"):
            total += stats.norm.logpdf(VALUES[name], 0, 0.3)
        elif name.startswith("tau"):
            total += stats.halfnorm.logpdf(VALUES[name], scale=0.2)
        else:
            a = 2.0 if name == "rho_23" else 2.5
            total += stats.beta.logpdf((VALUES[name] + 1) / 2, a, a)
    return total


def variants():
    every, means = log_prior(VALUES), log_prior(["mu_1", "mu_2", "mu_3"])
    sd = [PRIORS[f"beta_{k}"].parameters["sigma"] for k in (1, 2, 3)]
    z = np.linalg.solve(np.linalg.cholesky(T), (BETA - MEAN).T)
    return {
        ("partial", "centered"): every + stats.multivariate_normal(MEAN, T).logpdf(BETA).sum() + given(BETA),
        ("partial", "noncentered"): every + stats.norm.logpdf(z).sum() + given(BETA),
        ("partial", "marginalized"): every + integrated(MEAN, T),
        ("none", "centered"): stats.norm.logpdf(BETA, 0, sd).sum() + given(BETA),
        ("none", "marginalized"): integrated(np.zeros(3), np.diag(np.square(sd))),
        ("complete", "centered"): means + integrated(MEAN, np.zeros((3, 3))),
        ("complete", "marginalized"): means + integrated(MEAN, np.zeros((3, 3))),
    }


@pytest.mark.parametrize(("pooling", "parameterization"), list(variants()))
def test_density_of_every_variant(pooling, parameterization):
    model = MODEL.build(GAPS, pooling, parameterization)
    z = np.linalg.solve(np.linalg.cholesky(T), (BETA - MEAN).T).T
    own = {"beta": BETA, "z": z} | {f"beta_{k + 1}": BETA[:, k] for k in range(SIZE)}
    point = VALUES | own | {f"{name}_raw": (VALUES[name] + 1) / 2 for name in VALUES if name.startswith("rho")}
    with model:
        logp = model.compile_fn(model.logp(jacobian=False), inputs=model.value_vars, mode="AS_WRITTEN")
    transformed = {}
    for rv, value in model.rvs_to_values.items():
        if value in model.value_vars:
            transform = model.rvs_to_transforms[rv]
            x = np.asarray(point[rv.name], dtype=float)
            transformed[value.name] = x if transform is None else transform.forward(x, *rv.owner.inputs).eval()
    # PyTensor takes 2.5, of Beta(2.5, 2.5), for a number of single precision: its constant is off by 4e-8.
    assert float(logp(transformed)) == pytest.approx(variants()[pooling, parameterization], rel=1e-9, abs=1e-7)


def test_matched_prior_is_what_partial_pooling_expects_of_a_year():
    """E[Var] + Var[E]: 0.3^2 + E[tau^2] = 0.3^2 + 0.2^2."""
    assert PRIORS["beta_2"].parameters["mu"] == pytest.approx(0.0)
    assert PRIORS["beta_2"].parameters["sigma"] == pytest.approx(np.sqrt(0.09 + 0.04))


# Limits and identities, without MCMC.


def test_one_trait_is_the_model_of_clinics():
    """y_j ~ N(theta_j, se_j^2), theta_j ~ N(mu, tau^2), formula by formula."""
    data = MODEL.data(DEPTH)
    clinics = CLINICS.data(DEPTH.rename(columns={"year": "clinic", "gradient": "effect"}).drop(columns="trait"))
    values = {"mu": 0.07, "tau": 0.08}
    theirs = xr.Dataset({name: ("sample", [value]) for name, value in values.items()})
    ours = xr.zeros_like(H).assign(mu_1=theirs["mu"], tau_1=theirs.tau)
    one, other = LEVEL, CLINICS.group_level
    for name in ("log_left_out", "reliability", "expected_log_likelihood"):
        found = getattr(one, name)(ours, data).squeeze().values
        np.testing.assert_allclose(found, getattr(other, name)(theirs, clinics).squeeze().values, rtol=1e-10)
    after, expected = one.conditional(ours, data), other.conditional(theirs, clinics)
    np.testing.assert_allclose(after.mean.squeeze().values, expected.mean.squeeze().values, rtol=1e-10)
    np.testing.assert_allclose(after.sd.squeeze().values, expected.sd.squeeze().values, rtol=1e-10)


def test_traits_without_correlation_are_as_many_models_of_one():
    frame = FRAME.assign(covariances=np.where(FRAME["trait"] == "mass", "beak_depth = 0", ""))
    h = H.assign({name: 0 * H[name] for name in H if name.startswith("rho")})
    both = LEVEL.log_joint(h, MODEL.data(frame))
    alone = [LEVEL.log_joint(h, MODEL.data(DEPTH))]
    mass = FRAME[FRAME["trait"] == "mass"].drop(columns="covariances")
    alone.append(LEVEL.log_joint(h.assign(mu_1=h.mu_2, tau_1=h.tau_2), MODEL.data(mass)))
    np.testing.assert_allclose(both, sum(alone), rtol=1e-12)


def test_the_order_of_rows_and_traits_changes_numbers_only():
    """Traits numbered otherwise: the same densities at the same population, numbered otherwise."""
    data = MODEL.data(FRAME)
    turned = MODEL.data(FRAME.sample(frac=1, random_state=3), traits="mass; beak_depth")
    assert turned.identical(MODEL.data(FRAME.sample(frac=1, random_state=3), traits=["mass", "beak_depth"]))
    swap = {"mu_1": "mu_2", "mu_2": "mu_1", "tau_1": "tau_2", "tau_2": "tau_1"}
    other = H.assign({name: H[given] for name, given in swap.items()})
    one, two = LEVEL.log_left_out(H, data), LEVEL.log_left_out(other, turned)
    np.testing.assert_allclose(one.squeeze(), two.sel(year=one.year).squeeze(), rtol=1e-10)


def test_a_trait_not_measured_is_predicted_from_those_that_were():
    """1992 has one trait; the others follow it by their correlation."""
    after = LEVEL.conditional(H, DATA).mean.sel(year=1992).squeeze()
    (k,) = np.flatnonzero(DATA.measured.sel(year=1992))
    names = DATA.trait.values
    moved = float(after.sel(trait=names[k])) - MEAN[k]
    for j in range(SIZE):
        assert float(after.sel(trait=names[j])) - MEAN[j] == pytest.approx(T[j, k] / T[k, k] * moved)
    assert np.isnan(MODEL.own(DATA).sel(year=1992)).sum() == 2


def test_halves_are_independent_and_average_to_the_data():
    rng, draws = np.random.default_rng(3), 200
    halves = [sg.thin(rng, DATA) for _ in range(draws)]
    one, two = (np.stack([half[i].b.values for half in halves]) for i in (0, 1))
    np.testing.assert_allclose(one + two, np.broadcast_to(2 * DATA.b.values, one.shape), atol=1e-12)
    t = 0
    noise = np.cov(one[:, t].T)
    np.testing.assert_allclose(noise, DATA.S.values[t], atol=5 * np.diag(DATA.S.values[t]).max() / np.sqrt(draws))
    i, _, S = of_year(t)
    np.testing.assert_allclose(halves[0][0].S.values[t][np.ix_(i, i)], 2 * S)
    assert (halves[0][0].S.values * DATA.P.values).sum() == pytest.approx(
        2 * (DATA.S.values * DATA.P.values).sum(), rel=1e-12
    )


def test_replicates_have_the_errors_of_their_years_in_the_order_of_the_frame():
    theta = xr.DataArray(np.tile(BETA, (5000, 1, 1)), dims=("sample", "year", "trait"), coords=DATA.b.coords)
    new = LEVEL.replicate(np.random.default_rng(1), theta, H, DATA, DATA).transpose("sample", "estimate").values
    rows = GAPS.reset_index(drop=True)
    sd = rows["standard_error"].to_numpy()
    expected = BETA[DATA.of_year.values, DATA.of_trait.values]
    np.testing.assert_allclose(new.mean(axis=0), expected, atol=4.5 * sd.max() / np.sqrt(5000))
    two = np.flatnonzero(rows["year"] == 1990)
    S = DATA.S.values[DATA.of_year.values[two[0]]][np.ix_(*[DATA.of_trait.values[two]] * 2)]
    np.testing.assert_allclose(np.cov(new[:, two].T), S, atol=5 * S.max() / np.sqrt(5000))


# Frozen references.


@pytest.fixture(scope="module")
def depth_fit():
    return hz.fit(MODEL, DEPTH, draws=2000, random_seed=1, progressbar=False)


@pytest.fixture(scope="module")
def both_fits():
    return hz.fit_poolings(MODEL, FRAME, random_seed=2, progressbar=False)


def test_posterior_is_that_of_quadrature(depth_fit):
    """tests/reference/selection_gradients.json: a grid over tau, mu in closed form."""
    expected = REFERENCE["bayes_partial"]["estimates"]
    worth = efficiency(depth_fit) * depth_fit.posterior["mu_1"].size
    for name, reference in (("mu_1", expected["mu"]), ("tau_1", expected["tau"])):
        draws = depth_fit.posterior[name].values.ravel()
        assert abs(draws.mean() - reference["mean"]) < 4 * draws.std() / np.sqrt(worth)
    tau = depth_fit.posterior["tau_1"].values.ravel()
    for q, p in (("q5", 0.05), ("median", 0.5), ("q95", 0.95)):
        assert abs((tau < expected["tau"][q]).mean() - p) < 4 * np.sqrt(p * (1 - p) / worth)


def test_years_are_those_of_quadrature(depth_fit):
    summary, expected = (
        depth_fit["group_summary"].to_dataset().squeeze("trait"),
        REFERENCE["bayes_partial"]["estimates"],
    )
    years = [str(year) for year in summary.year.values]
    negative = [expected["P_beta_negative_by_year"][year] for year in years]
    kappa = [expected["kappa_mean_by_year"][year] for year in years]
    np.testing.assert_allclose(1 - summary["p_above"], negative, atol=0.006)
    np.testing.assert_allclose(summary["kappa"], kappa, atol=0.008)


@pytest.mark.parametrize("method", ["ml", "reml"])
def test_maxima_are_metafor_s(method):
    """Exactly 0 where the truth is 0.10."""
    found, expected = hz.empirical_bayes(MODEL, DEPTH, method=method), REFERENCE[method]["estimates"]
    estimates = found["estimates"].to_dataset()
    assert list(estimates.hyperparameter.values) == ["mu_1", "tau_1"]
    assert float(estimates["value"].sel(hyperparameter="mu_1")) == pytest.approx(expected["mu"], abs=1e-6)
    assert float(estimates["value"].sel(hyperparameter="tau_1")) == expected["tau"] == 0
    assert float(estimates["se"].sel(hyperparameter="mu_1")) == pytest.approx(expected["se_mu"], rel=1e-4)
    of_design = 0.5 * np.log(16) if method == "reml" else 0.0  # metafor adds half the log determinant of X'X
    assert found.attrs["log_likelihood"] + of_design == pytest.approx(expected["log_likelihood"], abs=1e-5)


def test_the_posterior_does_not_think_it_is_zero(depth_fit):
    """REML says that the years do not differ; the truth, 0.10, is within the interval."""
    low, high = np.quantile(depth_fit.posterior["tau_1"], [0.05, 0.95])
    assert low < 0.10 < high
    assert (depth_fit.posterior["tau_1"] > 0.01).mean() > 0.8


def test_leaving_a_year_out_is_a_refit_without_it(depth_fit):
    """By importance sampling, and by a fit of fifteen years."""
    j = 5
    years = DEPTH["year"].unique()
    rest = hz.fit(MODEL, DEPTH[DEPTH["year"] != years[j]], draws=2000, random_seed=3, progressbar=False)
    row = DEPTH[DEPTH["year"] == years[j]].iloc[0]
    mu, tau = (rest.posterior[name].values.ravel() for name in ("mu_1", "tau_1"))
    density = stats.norm.pdf(row["gradient"], mu, np.hypot(tau, row["standard_error"]))
    expected, error = np.log(density.mean()), density.std() / density.mean() / np.sqrt(efficiency(rest) * density.size)
    summary = depth_fit["group_summary"].to_dataset().isel(year=j)
    assert abs(float(summary["elpd"].squeeze()) - expected) < 4 * np.hypot(error, float(summary["elpd_mcse"].squeeze()))


@pytest.mark.slow
def test_both_questions_and_the_table(both_fits, depth_fit):
    table = hz.compare_poolings(both_fits)
    assert table.loc["none", "rank"] is pd.NA
    assert np.isfinite(table.loc[["partial", "complete"], "elpd"].astype(float)).all()
    alone = hz.fit(MODEL, DEPTH, "none", draws=2000, random_seed=1, progressbar=False)
    again = hz.compare_poolings({"none": alone, "partial": depth_fit}, "new_observation")
    assert again.index.tolist() == ["partial", "none"]
    rows = hz.groups(both_fits)
    assert rows.index.names == ["year", "trait"]
    assert len(rows) == 32
    kappa = rows["kappa"].astype(float)
    assert ((kappa > 0) & (kappa < 1)).all()


def test_a_year_never_seen_and_one_that_brings_a_trait(both_fits):
    new = hz.predict(both_fits["partial"], n_new=1)["group_summary"].to_dataset()
    mean = both_fits["partial"].posterior.dataset[["mu_1", "mu_2"]].mean()
    np.testing.assert_allclose(new["mean"].squeeze(), [mean["mu_1"], mean["mu_2"]], rtol=1e-6)
    brought = pd.DataFrame({"year": [2006], "trait": ["mass"], "gradient": [0.4], "standard_error": [0.1]})
    found = hz.predict(both_fits["partial"], brought)["group_summary"].to_dataset().sel(year=2006)
    assert float(found["mean"].sel(trait="mass")) > 0.1
    assert float(found["sd"].sel(trait="mass")) < float(found["sd"].sel(trait="beak_depth")) + 0.1


def test_a_fit_is_stored_and_read(both_fits, tmp_path):
    both_fits["partial"].to_netcdf(tmp_path / "fit.nc")
    with xr.open_datatree(tmp_path / "fit.nc") as tree:
        again = hz.groups(tree.load())
    pd.testing.assert_frame_equal(again, hz.groups({"partial": both_fits["partial"]}))


# Bad frames.


def changed(**columns):
    return FRAME.assign(**columns)


BAD = {
    "expected a column 'gradient'.*nearest": FRAME.rename(columns={"gradient": "gradients"}),
    "column 'standard_error' expected a finite number above 0, got 0.0 in row 0": changed(
        standard_error=[0.0, *FRAME["standard_error"][1:]]
    ),
    "column 'gradient' expected a finite number, got an empty cell in row 3": changed(
        gradient=FRAME["gradient"].where(FRAME.index != 3)
    ),
    "each trait once a year, got 'mass' twice in 1990": pd.concat([FRAME, FRAME.iloc[[1]]]),
    "one to four traits": pd.concat([DEPTH.assign(trait=name) for name in "abcde"]),
    "column 'covariances' expected covariances by name.*got 'twelve' in row 1": changed(
        covariances=["", "twelve", *FRAME["covariances"][2:]]
    ),
    "expected that of 'beak_depth' and 'mass' in 1990, got nothing": changed(
        covariances=FRAME["covariances"].str.replace("beak_depth = -0.00743", "beak = -0.00743")
    ),
    "expected that of 'beak_depth' and 'mass' in 1991, got nothing": changed(
        covariances=FRAME["covariances"].where(FRAME.index != 3)
    ),
    "expected one number of 'mass' and 'beak_depth' in 1990, got 0.5 and -0.00743": changed(
        covariances=["mass = 0.5", *FRAME["covariances"][1:]]
    ),
    "covariances of 'mass' with others, got one with itself in 1990": changed(
        covariances=["", "mass = 0.01", *FRAME["covariances"][2:]]
    ),
    "covariances that the standard errors allow, got larger ones in 1990": changed(
        covariances=["", "beak_depth = 0.5", *FRAME["covariances"][2:]]
    ),
    "names without ';' and '=', got 'a=b'": DEPTH.assign(trait="a=b"),
    "at least 2 years to compare, got 1": DEPTH[:1],
}


@pytest.mark.parametrize("message", BAD)
def test_a_bad_frame_is_refused_in_a_sentence(message):
    with pytest.raises(FrameError, match=message):
        MODEL.data(BAD[message])


def test_a_covariance_with_what_has_no_row_says_nothing():
    mass = MODEL.data(FRAME[FRAME["trait"] == "mass"])
    np.testing.assert_allclose(mass.S.squeeze(), FRAME.loc[FRAME["trait"] == "mass", "standard_error"] ** 2)


def test_traits_that_are_not_listed_are_refused():
    with pytest.raises(FrameError, match="expected traits among 'mass', got 'beak_depth'"):
        MODEL.data(FRAME, traits="mass")


def test_several_traits_without_covariances_are_said_to_have_none():
    with pytest.warns(FrameWarning, match="taken for independent"):
        data = MODEL.data(FRAME.drop(columns="covariances"))
    assert (data.S.values[:, 0, 1] == 0).all()


def test_gradients_in_another_unit_are_refused_by_the_prior():
    """Per mm, of a trait whose sd is 0.02 mm."""
    with pytest.raises(ValueError, match="Is the trait in standard deviations"):
        hz.fit(MODEL, DEPTH.assign(gradient=50 * DEPTH["gradient"], standard_error=50 * DEPTH["standard_error"]))


def test_a_trait_without_any_gradient_is_refused():
    with pytest.raises(ValueError, match="No year has a gradient of 'wing'"):
        hz.fit(MODEL, DEPTH, traits=["beak_depth", "wing"])


def test_a_prior_of_a_trait_that_is_not_there_is_refused():
    with pytest.raises(ValueError, match="prior of 'tau_2': these data have nothing"):
        hz.fit(MODEL, DEPTH, priors={"tau_2": Prior("HalfNormal", sigma=1)})


def test_no_pooling_is_exact_under_normals_only():
    with pytest.raises(ValueError, match="Normal prior of 'beta_1'"):
        hz.fit(MODEL, DEPTH, pooling="none", priors={"beta_1": Prior("StudentT", nu=3, mu=0, sigma=1)})


@pytest.mark.slow
@pytest.mark.parametrize("pooling", ["none", "complete", "partial"])
def test_simulation_based_calibration(pooling):
    """Two hundred simulations of two traits; in full in the docs."""
    frame, _ = sg.simulate(np.random.default_rng(1), years=6)
    result = hz.calibrate(MODEL, frame, pooling=pooling, simulations=200, random_seed=2, progressbar=False)
    assert result.table["p_holm"].min() > 0.01


# The verbs.


def test_next_year_is_that_of_quadrature(depth_fit):
    table = sg.over_years(depth_fit).loc["beak_depth"]
    row = table.loc["P(next year < 0)"]
    assert abs(row["mean"] - REFERENCE["bayes_partial"]["estimates"]["P_beta_next_negative"]) < 4 * row["mcse"]


def test_over_years_says_what_the_draws_say(both_fits):
    """Signs and shares counted in the draws of gradients and hyperparameters themselves."""
    fit, table = both_fits["partial"], sg.over_years(both_fits["partial"])
    posterior = fit.posterior.dataset
    for k, trait in ((1, "beak_depth"), (2, "mass")):
        rows = FRAME[FRAME["trait"] == trait]
        mu, tau, beta = posterior[f"mu_{k}"], posterior[f"tau_{k}"], posterior["beta"].sel(trait=trait)
        error = (rows["standard_error"] ** 2).mean()
        found = table.loc[trait, "mean"]
        assert found["variance of estimates"] == pytest.approx(rows["gradient"].var())
        assert found["mean squared standard error"] == pytest.approx(error)
        assert found["share that is error"] == pytest.approx(float((error / (error + tau**2)).mean()))
        naive = (np.sign(rows["gradient"]) != np.sign(rows["gradient"].mean())).mean()
        assert found["years of opposite sign, naive"] == naive
        counted = (np.sign(beta) != np.sign(mu)).mean("year")
        error = 4 * float(counted.std()) / np.sqrt(counted.size * efficiency(fit))
        assert abs(found["years of opposite sign"] - float(counted.mean())) < error
        rng = np.random.default_rng(k)
        new = rng.normal(mu, tau)
        assert abs(found["P(next year < 0)"] - (new < 0).mean()) < 4 * 0.5 / np.sqrt(new.size * efficiency(fit))


def test_by_year_is_the_summary_and_what_was_measured(both_fits):
    table, fit = sg.by_year(both_fits["partial"]), both_fits["partial"]
    rows = FRAME.set_index(["year", "trait"])
    np.testing.assert_allclose(table["own"], rows.loc[table.index, "gradient"])
    np.testing.assert_allclose(table["standard_error"], rows.loc[table.index, "standard_error"])
    below = (fit.posterior["beta"] < 0).mean(["chain", "draw"]).transpose("year", "trait").values.ravel()
    assert (abs(table["p_negative"] - below) < 5 * 0.5 / np.sqrt(4000)).all()
    assert (table["mcse"] < 0.01).all()
    assert "kappa" not in sg.by_year(both_fits["none"])


def test_correlation_of_two_traits_is_rho(both_fits):
    (row,) = sg.correlations(both_fits["partial"]).itertuples()
    assert row.mean == pytest.approx(float(both_fits["partial"].posterior["rho_12"].mean()))


def test_complete_pooling_has_one_gradient_for_all_years(both_fits):
    found = sg.over_years(both_fits["complete"]).loc["mass", "mean"]
    assert found["sd over years"] == found["years of opposite sign"] == 0
    assert found["share that is error"] == 1
    assert found["P(next year < 0)"] == found["P(mean gradient < 0)"]


def test_verbs_refuse_what_cannot_answer(both_fits, depth_fit):
    with pytest.raises(ValueError, match="No pooling knows no population"):
        sg.over_years(both_fits["none"])
    with pytest.raises(ValueError, match="plug-in"):
        sg.over_years(hz.empirical_bayes(MODEL, DEPTH))
    with pytest.raises(ValueError, match="two traits or more"):
        sg.correlations(depth_fit)
    clinics = hz.fit("vaccine_clinics", hz.load_data("eight_schools"), "none", random_seed=1)
    with pytest.raises(ValueError, match="fits of selection_gradients, got one of vaccine_clinics"):
        sg.by_year(clinics)


# Years each like the one before.

SERIES = MODEL.under(autocorrelation=True)


def test_density_of_a_series_on_the_page_and_integrated():
    """All years and traits as one dense normal; 1992 is missing, so that 1993 is two years after 1991."""
    frame = GAPS[GAPS["year"] != 1992]
    data, phi = SERIES.data(frame), 0.6
    z = np.random.default_rng(5).standard_normal((3, SIZE))
    lag = abs(np.subtract.outer(*[np.array([1990, 1991, 1993])] * 2))
    assert data["year"].values.tolist() == data.time.values.tolist() == [1990, 1991, 1993]
    i = np.flatnonzero(data.measured.values.ravel())
    S = np.zeros((9, 9))
    for t in range(3):
        S[3 * t : 3 * t + 3, 3 * t : 3 * t + 3] = data.S.values[t]
    C, b = np.kron(phi**lag, T), data.b.values.ravel()
    beta = MEAN + np.linalg.cholesky(phi**lag) @ z @ np.linalg.cholesky(T).T
    prior = log_prior(VALUES) + stats.truncnorm(-2, 2, scale=0.5).logpdf(phi)
    normal, errors = stats.multivariate_normal, S[np.ix_(i, i)]
    expected = {
        "marginalized": prior + normal.logpdf(b[i], np.tile(MEAN, 3)[i], (C + S)[np.ix_(i, i)]),
        "noncentered": prior + stats.norm.logpdf(z).sum() + normal.logpdf(b[i], beta.ravel()[i], errors),
    }
    shares = {f"{name}_raw": (VALUES[name] + 1) / 2 for name in VALUES if name.startswith("rho")}
    for form, value in expected.items():
        model = SERIES.build(frame, "partial", form)
        with model:
            logp = model.compile_fn(model.logp(jacobian=False), inputs=model.value_vars, mode="AS_WRITTEN")
        point = VALUES | shares | {"z": z, "phi": phi}
        at = {}
        for rv in model.free_RVs:
            transform, x = model.rvs_to_transforms[rv], np.asarray(point[rv.name], float)
            inputs = rv.owner.inputs
            at[model.rvs_to_values[rv].name] = x if transform is None else transform.forward(x, *inputs).eval()
        assert float(logp(at)) == pytest.approx(value, rel=1e-9, abs=1e-7)


@pytest.fixture(scope="module")
def series_fit():
    return hz.fit(MODEL, DEPTH, autocorrelation=True, random_seed=1, progressbar=False)


def test_next_year_of_a_series_follows_the_last(series_fit):
    """E[mu + phi (beta_last - mu)] over the draws of gradients themselves."""
    posterior = series_fit.posterior.dataset
    last = posterior["beta"].sel(year=2005, trait="beak_depth")
    expected = posterior["mu_1"] + posterior["phi"] * (last - posterior["mu_1"])
    row = sg.over_years(series_fit).loc[("beak_depth", "next year")]
    error = float(expected.std()) / np.sqrt(expected.size * efficiency(series_fit))
    assert abs(row["mean"] - float(expected.mean())) < 4 * error
    asked = pd.DataFrame({"year": [2006], "trait": ["beak_depth"], "standard_error": [0.1]})
    predicted = hz.predict(series_fit, asked)["group_summary"].to_dataset().sel(year=2006)
    assert float(predicted["mean"].squeeze()) == pytest.approx(row["mean"], abs=1e-9)


def test_leaving_a_year_of_a_series_out_is_an_interpolation(series_fit):
    table = hz.compare_poolings({"partial": series_fit})
    assert table.attrs["question"] == "a year between the others (interpolation): leave one year out"
    assert np.isnan(table.loc["partial", "se"])


def test_one_step_ahead_is_each_year_given_those_before():
    """No pooling has its prior; complete pooling the normal of mu after the years before, in closed form."""
    fits = {
        pooling: hz.fit(MODEL, DEPTH, pooling, random_seed=1, progressbar=False) for pooling in ("none", "complete")
    }
    table = sg.one_step_ahead(fits, first=13)
    b, se = DEPTH["gradient"].to_numpy(), DEPTH["standard_error"].to_numpy()
    alone = stats.norm.logpdf(b, 0, np.sqrt(0.13 + se**2))[13:].sum()
    assert table.loc["none", "elpd"] == pytest.approx(alone)
    total = 0.0
    for t in range(13, 16):
        precision = 1 / 0.09 + (1 / se[:t] ** 2).sum()
        mean = (b[:t] / se[:t] ** 2).sum() / precision
        total += stats.norm.logpdf(b[t], mean, np.sqrt(1 / precision + se[t] ** 2))
    assert abs(table.loc["complete", "elpd"] - total) < 4 * table.loc["complete", "mcse"]
    assert table["years"].tolist() == [3, 3]
    with pytest.raises(ValueError, match="2 to 15 years before the first, got 16"):
        sg.one_step_ahead(fits, first=16)


def test_a_series_needs_years_that_are_whole_numbers():
    with pytest.raises(FrameError, match="column 'year' expected whole numbers, got 'spring'"):
        SERIES.data(DEPTH.assign(year=["spring", *map(str, DEPTH["year"][1:])]))
    assert MODEL.data(DEPTH.assign(year=["spring", *map(str, DEPTH["year"][1:])])).sizes["year"] == 16


@pytest.mark.slow
def test_simulation_based_calibration_of_a_series():
    frame, _ = SERIES.simulate(np.random.default_rng(1), years=8, traits=1)
    result = hz.calibrate(MODEL, frame, simulations=200, random_seed=2, progressbar=False, autocorrelation=True)
    assert result.table["p_holm"].min() > 0.01
