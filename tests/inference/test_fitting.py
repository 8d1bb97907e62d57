"""What a fit holds, what becomes of it on disk, and that ArviZ takes it as it is."""

import json

import arviz as az
import numpy as np
import pandas as pd
import pymc as pm
import pytest
import xarray as xr
from pymc_extras.prior import Prior
from scipy import stats

import hbm_zoo as hz
from hbm_zoo.inference import completion, fitting, sampling
from hbm_zoo.inference.convergence import ConvergenceWarning
from hbm_zoo.inference.fits import check_together, hyperparameters, model_of, priors_of
from hbm_zoo.models.hospital_readmission import MODEL

FRAME = hz.load_data("three_hospitals")
GROUPS = {
    "posterior",
    "group_summary",
    "prior",
    "prior_predictive",
    "posterior_predictive",
    "observed_data",
    "constant_data",
}


def short_fit(**options):
    """A fit of few draws."""
    return hz.fit("hospital_readmission", FRAME, progressbar=False, **{"draws": 200, "chains": 2} | options)


@pytest.fixture(scope="module")
def loaded(three_hospitals_fits, tmp_path_factory):
    """The three fits, written to netCDF and read back."""
    folder = tmp_path_factory.mktemp("fits")
    for name, fit in three_hospitals_fits.items():
        fit.to_netcdf(folder / f"{name}.nc")
    return {name: az.from_netcdf(folder / f"{name}.nc") for name in three_hospitals_fits}


def test_a_fit_describes_itself(three_hospitals_fits):
    for pooling, fit in three_hospitals_fits.items():
        assert fit.attrs["model"] == "hospital_readmission"
        assert fit.attrs["pooling"] == pooling
        assert (fit.attrs["group"], fit.attrs["estimand"]) == ("hospital", "lam")
        assert json.loads(fit.attrs["versions"])["hbm_zoo"] == hz.__version__
        assert fit.attrs["left_out"] == ""
        assert model_of(fit) is MODEL
        assert priors_of(fit) == MODEL.priors(MODEL.data(FRAME), pooling=pooling)
        xr.testing.assert_identical(fit["constant_data"].to_dataset(), MODEL.data(FRAME))
    assert [f.attrs["parameterization"] for f in three_hospitals_fits.values()] == [
        "exact",
        "marginalized" if "marginalized" in MODEL.variants["complete"] else "centered",
        "marginalized",
    ]


def test_a_fit_holds_what_it_promises(three_hospitals_fits):
    for pooling, fit in three_hospitals_fits.items():
        sampled = set() if pooling == "none" else {"proposals", "log_likelihood", "log_prior"}
        assert GROUPS | sampled <= set(fit.children)
        assert ("log_likelihood" in fit.children) == (pooling != "none")
        assert fit["posterior"]["lam"].dims == ("chain", "draw", "hospital")
        assert fit["posterior"]["lam"].hospital.values.tolist() == FRAME["hospital"].tolist()
        assert np.isfinite(fit["posterior"]["lam"]).all()
        assert not any(v.isnull().any() for v in fit["group_summary"].dataset.values())
        assert fit["posterior_predictive"]["O"].dtype.kind == "i"


def test_log_likelihood_has_the_group_level_integrated_out(three_hospitals_fits):
    fit = three_hospitals_fits["partial"]
    h = fit["posterior"].dataset
    a, data = h["a"], MODEL.data(FRAME)
    expected = xr.apply_ufunc(stats.nbinom.logpmf, data.observed, a, a / (a + data.expected * h["mu"]))
    # SciPy loses digits where a is large.
    difference = abs(fit["log_likelihood"]["O"] - expected)
    assert (difference < 1e-7 * (1 + abs(expected)) + 1e-14 * a).all()


def test_log_prior_is_the_prior(three_hospitals_fits):
    fit = three_hospitals_fits["partial"]
    posterior, log_prior = fit["posterior"].dataset, fit["log_prior"].dataset
    assert set(log_prior) == {"mu", "cv"}
    np.testing.assert_allclose(log_prior["mu"], stats.lognorm.logpdf(posterior["mu"], 0.5), atol=1e-8)
    np.testing.assert_allclose(log_prior["cv"], stats.halfnorm.logpdf(posterior["cv"]), atol=1e-8)


def test_recovered_group_level_is_drawn_given_each_draw(three_hospitals_fits):
    """(lam - its conditional mean) / its conditional sd is standard, and knows nothing of the hyperparameters."""
    posterior = three_hospitals_fits["partial"]["posterior"].dataset
    data = MODEL.data(FRAME)
    shape, rate = data.observed + posterior["a"], data.expected + posterior["b"]
    z = (posterior["lam"] - shape / rate) / (np.sqrt(shape) / rate)
    for j in range(3):
        draws = z.isel(hospital=j).values.ravel()
        assert abs(draws.mean()) < 4.5 / np.sqrt(draws.size)
        assert draws.var() == pytest.approx(1, abs=0.25)
        assert abs(np.corrcoef(draws, np.log(posterior["cv"].values.ravel()))[0, 1]) < 4.5 / np.sqrt(draws.size)


def test_netcdf_keeps_everything(three_hospitals_fits, loaded):
    for name, fit in three_hospitals_fits.items():
        assert set(loaded[name].children) == set(fit.children)
        assert loaded[name].attrs == fit.attrs
        for group in fit.children:
            xr.testing.assert_equal(loaded[name][group].to_dataset(), fit[group].to_dataset())


def test_everything_works_on_a_loaded_fit(three_hospitals_fits, loaded):
    assert check_together(loaded)
    pd.testing.assert_frame_equal(hz.convergence(loaded), hz.convergence(three_hospitals_fits))
    # Only the dtype of the labels is another one: text comes back from netCDF as text.
    pd.testing.assert_frame_equal(
        hz.groups(loaded, threshold=1.1), hz.groups(three_hospitals_fits, threshold=1.1), check_index_type=False
    )
    pd.testing.assert_frame_equal(
        hz.compare_poolings(loaded, question="new_group"),
        hz.compare_poolings(three_hospitals_fits, question="new_group"),
    )
    fit = loaded["partial"]
    again = sampling.refit(fit, fit["constant_data"].to_dataset(), random_seed=fit.attrs["seed"])
    np.testing.assert_allclose(hyperparameters(again)["mu"], hyperparameters(fit)["mu"])


def test_arviz_takes_fits_as_they_are(loaded):
    partial = loaded["partial"]
    assert {"mu", "cv"} <= set(az.summary(partial, var_names=["mu", "cv"]).index)
    loo = az.loo(partial)
    summary = partial["group_summary"].dataset
    error = float(np.sqrt((summary["elpd_mcse"] ** 2).sum()))
    assert float(loo.elpd) == pytest.approx(float(summary["elpd"].sum()), abs=5 * error)
    sensitivity = az.psense_summary(partial, var_names=["mu", "cv"], prior_var_names=["mu", "cv"])
    assert set(sensitivity.index) == {"mu", "cv"}
    az.plot_forest(loaded, var_names=["lam"], combined=True, backend="none")
    az.plot_ppc_rootogram(partial, backend="none")


def test_same_seed_same_draws(three_hospitals_fits):
    again = hz.fit("hospital_readmission", FRAME, random_seed=1, progressbar=False)
    xr.testing.assert_equal(again["posterior"].to_dataset(), three_hospitals_fits["partial"]["posterior"].to_dataset())
    xr.testing.assert_equal(
        again["group_summary"].to_dataset(), three_hospitals_fits["partial"]["group_summary"].to_dataset()
    )
    other = short_fit(random_seed=2)
    assert not np.isclose(other["posterior"]["mu"][0, 0], short_fit(random_seed=3)["posterior"]["mu"][0, 0])


def test_a_drawn_seed_is_recorded():
    fit = hz.fit("hospital_readmission", FRAME, pooling="none", draws=20)
    again = hz.fit("hospital_readmission", FRAME, pooling="none", draws=20, random_seed=fit.attrs["seed"])
    xr.testing.assert_equal(fit["posterior"].to_dataset(), again["posterior"].to_dataset())


def test_labels_of_every_kind_reach_the_fit(tmp_path):
    for labels in ([30, 10, 20], [1, "A", 2.5], pd.Categorical(["B", "A", "C"], categories=["Z", "C", "B", "A"])):
        fit = hz.fit("hospital_readmission", FRAME.assign(hospital=labels), pooling="none", draws=20, random_seed=1)
        np.testing.assert_allclose(fit["group_summary"]["own"], [1.5, 0.5, 1.2])
        path = tmp_path / f"{type(labels[0]).__name__}{len(list(tmp_path.iterdir()))}.nc"
        fit.to_netcdf(path)
        back = az.from_netcdf(path)
        assert back["group_summary"].hospital.values.tolist() == fit["group_summary"].hospital.values.tolist()


def test_order_of_rows_does_not_matter(three_hospitals_fits):
    turned = FRAME.iloc[[2, 0, 1]]
    fit = hz.fit("hospital_readmission", turned, pooling="none", draws=20, random_seed=1)
    alone = three_hospitals_fits["none"]["group_summary"].dataset
    np.testing.assert_allclose(
        fit["group_summary"]["mean"], alone["mean"].sel(hospital=turned["hospital"].to_numpy()), rtol=1e-12
    )


def test_options_of_the_sampler_arrive():
    with pytest.warns(ConvergenceWarning):
        fit = short_fit(random_seed=4, engine="nuts", tune=100, maxdepth=1, target_accept=0.8)
    assert int(fit["sample_stats"]["depth"].max()) <= 1
    assert fit["sample_stats"]["reached_max_treedepth"].any()
    assert "diverging" in fit["sample_stats"]
    assert (fit.attrs["engine"], fit.attrs["why_nuts"], fit.attrs["tune"]) == ("nuts", "asked for", 100)


def test_priors_arrive_by_name():
    narrow = Prior("HalfNormal", sigma=0.001)
    fit = short_fit(random_seed=5, priors={"cv": narrow})
    assert float(fit["posterior"]["cv"].max()) < 0.01
    assert priors_of(fit)["cv"] == narrow


def test_arrays_beyond_the_budget_are_left_out_and_nothing_else_changes(monkeypatch):
    full = short_fit(random_seed=6)
    monkeypatch.setattr(completion, "LARGEST_ARRAY", 300)
    lean = short_fit(random_seed=6)
    assert "lam" not in lean["posterior"]
    assert not {"log_likelihood", "posterior_predictive"} & set(lean.children)
    assert lean.attrs["left_out"].startswith("posterior[lam], log_likelihood")
    for name in ("mean", "sd", "kappa", "elpd", "eti89_lb"):
        np.testing.assert_array_equal(lean["group_summary"][name], full["group_summary"][name])


@pytest.mark.parametrize("parameterization", ["centered", "noncentered"])
def test_visible_group_levels_agree_with_the_marginal_one(parameterization, three_hospitals_fits):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(fitting, "convergence", lambda fit: None)
        fit = hz.fit(
            "hospital_readmission",
            FRAME,
            parameterization=parameterization,
            random_seed=7,
            progressbar=False,
            target_accept=0.98,
        )
    assert fit.attrs["parameterization"] == parameterization
    marginal = three_hospitals_fits["partial"]
    for name in ("mu", "lam"):
        here, there = fit["posterior"][name], marginal["posterior"][name]
        error = np.hypot(az.mcse(here, method="mean"), az.mcse(there, method="mean"))
        assert (np.abs(here.mean(("chain", "draw")) - there.mean(("chain", "draw"))) < 5 * error + 0.02).all()


def test_groups_alone_may_be_sampled(three_hospitals_fits):
    """Nothing is left to draw but the groups: what is known of them is known exactly, and their draws are NUTS's."""
    fit = hz.fit(MODEL, FRAME, "none", "centered", draws=500, tune=500, random_seed=2, progressbar=False)
    alone = three_hospitals_fits["none"]["group_summary"]
    assert fit.attrs["engine"] == "nuts"
    np.testing.assert_allclose(fit["group_summary"]["mean"], alone["mean"], rtol=1e-12)
    drawn = fit["posterior"]["lam"].mean(("chain", "draw"))
    np.testing.assert_allclose((drawn - alone["mean"]) / alone["sd"], 0, atol=0.15)
    assert bool(hz.convergence({"none": fit})["passed"].all())


def test_recover_adds_the_group_level_to_anyones_draws(three_hospitals_fits):
    rng = np.random.default_rng(3)
    mine = xr.DataTree.from_dict(
        {
            "posterior": xr.Dataset(
                {
                    "mu": (("chain", "draw"), rng.uniform(0.9, 1.1, (2, 4_000))),
                    "cv": (("chain", "draw"), rng.uniform(0.1, 0.6, (2, 4_000))),
                },
                coords={"chain": [0, 1], "draw": np.arange(4_000)},
            )
        }
    )
    recovered = hz.recover(mine, "hospital_readmission", FRAME, random_seed=1)
    assert "lam" not in mine["posterior"]
    h, lam = mine["posterior"].dataset, recovered["posterior"]["lam"]
    a = h["cv"] ** -2
    expected = ((MODEL.data(FRAME).observed + a) / (MODEL.data(FRAME).expected + a / h["mu"])).mean(("chain", "draw"))
    np.testing.assert_allclose(lam.mean(("chain", "draw")), expected, atol=0.03)
    with pytest.raises(ValueError, match="Expected draws of mu, cv; the posterior has no cv"):
        hz.recover(xr.DataTree.from_dict({"posterior": h[["mu"]]}), "hospital_readmission", FRAME)


def test_build_is_an_ordinary_model():
    model = hz.hospital_readmission.build(FRAME)
    assert isinstance(model, pm.Model)
    assert [v.name for v in model.free_RVs] == ["mu", "cv", "lam"]
    assert not model.potentials
    for parameterization in ("centered", "noncentered", "marginalized"):
        variant = MODEL.build(FRAME, parameterization=parameterization)
        assert [v.name for v in variant.observed_RVs] == ["O"]
        assert not variant.potentials
        assert np.isfinite(list(variant.point_logps().values())).all()


def test_fits_of_other_data_do_not_mix(three_hospitals_fits):
    other = hz.fit("hospital_readmission", FRAME.assign(observed=[6, 3, 48]), pooling="none", draws=20, random_seed=1)
    with pytest.raises(ValueError, match="do not belong together: 'none' is of other data than 'partial'"):
        check_together({"partial": three_hospitals_fits["partial"], "none": other})


def test_fit_poolings_takes_no_pooling():
    with pytest.raises(ValueError, match="leave out 'pooling'"):
        hz.fit_poolings("hospital_readmission", FRAME, pooling="none")
