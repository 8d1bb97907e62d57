"""Simulation-based calibration: what is right passes, and each error that was planted is seen."""

import warnings
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace

import arviz as az
import numpy as np
import pandas as pd
import pytest
import xarray as xr
from arviz_stats.base import array_stats
from pymc_extras.prior import Prior
from scipy import stats
from scipy.special import softmax

import hbm_zoo as hz
from hbm_zoo.diagnostics import calibration, simulations
from hbm_zoo.diagnostics.uniformity import ERRORS, holm, power, uniformity
from hbm_zoo.frames.rules import FrameError
from hbm_zoo.group_level.populations import Normal
from hbm_zoo.inference import sampling
from hbm_zoo.models.vaccine_clinics import MODEL
from hbm_zoo.workers.run import PiecesFailed

CLINICS = pd.DataFrame(
    {"clinic": list("ABCDE"), "effect": np.zeros(5), "standard_error": [0.3, 0.5, 0.8, 1.0, 1.2]}
).assign(effect=[0.3, -0.5, 1.0, 0.2, -0.8])
PRIORS = {"mu": Prior("Normal", mu=0.5, sigma=1.0), "tau": Prior("HalfNormal", sigma=1.0)}
SIMULATIONS = 80
GRID = stats.halfnorm.ppf((np.arange(500) + 0.5) / 500)  # of tau, in units of its prior


def exact(log_error=lambda tau: 0.0, wider=1.0):
    """Draws of mu and tau of clinics from their posterior, tau on a grid and mu given tau, instead of an engine."""

    def draw(record, data, pooling, parameterization, priors, settings, progressbar, sampler):
        rng, size = np.random.default_rng(settings["seed"]), settings["chains"] * settings["draws"]
        (m0, s0), s = priors["mu"].parameters.values(), wider * priors["tau"].parameters["sigma"]
        tau = s * GRID
        weight = 1 / (tau[:, None] ** 2 + data.standard_error.values**2)
        away = data.effect.values - m0
        precision = 1 / s0**2 + weight.sum(axis=1)
        mean = (weight @ away) / precision
        log_p = 0.5 * (np.log(weight).sum(axis=1) - np.log(precision) - weight @ away**2 + precision * mean**2)
        at = rng.choice(GRID.size, size, p=softmax(log_p + log_error(tau)))
        mu = m0 + rng.normal(mean[at], precision[at] ** -0.5)
        shape = settings["chains"], settings["draws"]
        h = {name: (("chain", "draw"), v.reshape(shape)) for name, v in {"mu": mu, "tau": tau[at]}.items()}
        coords = {"chain": range(shape[0]), "draw": range(shape[1])}
        tree = xr.DataTree.from_dict({"posterior": xr.Dataset(h, coords)})
        tree.attrs |= {"parameterization": "marginalized", "engine": "independent", "efficiency": 1.0}
        tree.attrs |= {"k_hat": -np.inf, "effective_proposals": size, "proposals": size, "tops": 1}
        return tree

    return draw


def repeated(times=20):
    """Each exact draw so many times, all of them taken for independent."""

    def draw(*arguments):
        tree = exact()(*arguments)
        drawn = tree["posterior"].to_dataset()
        which = np.arange(drawn.sizes["draw"]) // times * times
        tree["posterior"] = drawn.isel(draw=which).assign_coords(draw=drawn["draw"])
        return tree

    return draw


@dataclass(frozen=True)
class OneForAllGroups(Normal):
    """One deviate for all groups of a draw."""

    def sample(self, rng):
        """Draws that are not joint draws of groups."""
        mean, sd = xr.broadcast(self.mean, self.sd)
        return mean + sd * xr.DataArray(rng.standard_normal(mean.sizes["sample"]), dims="sample")


@dataclass(frozen=True)
class OneForAllDraws(Normal):
    """One deviate for all draws of a group."""

    def sample(self, rng):
        """Draws that are one draw, moved."""
        mean, sd = xr.broadcast(self.mean, self.sd)
        return mean + sd * xr.DataArray(rng.standard_normal(mean.sizes["clinic"]), dims="clinic")


def with_level(**changed):
    return replace(MODEL, group_level=replace(MODEL.group_level, **changed))


FAULTS = {
    "none": (MODEL, exact()),
    "Jacobian of log tau forgotten": (MODEL, exact(lambda tau: -np.log(tau))),
    "prior of tau half as wide": (MODEL, exact(wider=0.5)),
    "groups forget their population": (
        with_level(conditional=lambda h, data: Normal(data.effect + 0 * h.mu, data.standard_error + 0 * h.mu)),
        exact(),
    ),
    "new groups share a draw": (with_level(population=lambda h: OneForAllGroups(h.mu, h.tau)), exact()),
    "resampled draws are taken for independent": (MODEL, repeated()),
    "draws share a new group": (with_level(population=lambda h: OneForAllDraws(h.mu, h.tau)), exact()),
}


def calibrated(record=MODEL, **given):
    return hz.calibrate(record, CLINICS, random_seed=1, progressbar=False, **{"draws": 100, "priors": PRIORS} | given)


#: One fault of each kind; the others take as long again.
BY_DEFAULT = ("none", "Jacobian of log tau forgotten")


@pytest.mark.long
@pytest.mark.parametrize(
    "fault", [pytest.param(fault, marks=() if fault in BY_DEFAULT else pytest.mark.slow) for fault in FAULTS]
)
def test_what_is_right_passes_and_what_is_wrong_does_not(fault, monkeypatch):
    """Of 200 samples of 80 simulations this sees half the prior in 98 %, the other faults in all; the right in none."""
    record, draw = FAULTS[fault]
    monkeypatch.setattr(sampling, "draw", draw)
    least = calibrated(record, simulations=SIMULATIONS).table["p_holm"].min()
    assert least > 1e-3 if fault == "none" else least < 1e-3


def test_failed_checks_are_counted_and_their_simulations_too(monkeypatch):
    def doubtful(*arguments):
        tree = exact()(*arguments)
        tree.attrs["k_hat"] = 0.9
        return tree

    monkeypatch.setattr(sampling, "draw", doubtful)
    result = calibrated(simulations=3)
    assert result.failed == result.simulations == 3
    assert (result.table["simulations"] == 3).all()
    assert "3 whose draws failed a check" in str(result)
    assert result.tree["fits"]["verdict"].item(0).startswith("k-hat 0.90")


def refuses(frame, **options):
    """No effects of clinic C above 2."""
    if frame["effect"].iloc[2] > 2:
        raise FrameError("column 'effect' expected 2 at most for clinic C.")
    return MODEL.prepare(frame, **options)


@pytest.mark.long
def test_data_that_a_model_refuses_are_left_out_with_their_truths(monkeypatch):
    """Places are uniform still: had other data been drawn from the same truths, too high ones would be missed."""
    monkeypatch.setattr(sampling, "draw", exact())
    result = calibrated(replace(MODEL, prepare=refuses), simulations=SIMULATIONS)
    assert result.refused > SIMULATIONS / 20
    assert result.simulations == SIMULATIONS - result.refused
    assert result.table["p_holm"].min() > 1e-3
    said = f"{result.refused} more data sets left out: column 'effect' expected 2 at most for clinic C. Power"
    assert said in str(result)


def test_a_model_that_refuses_all_says_why(monkeypatch):
    monkeypatch.setattr(sampling, "draw", exact())
    high = {"mu": Prior("Normal", mu=50.0, sigma=1.0), "tau": Prior("HalfNormal", sigma=1.0)}
    with pytest.raises(PiecesFailed, match="expected 2 at most for clinic C"):
        calibrated(replace(MODEL, prepare=refuses), simulations=2, priors=high)


def test_what_is_undefined_is_an_error(monkeypatch):
    monkeypatch.setattr(sampling, "draw", exact())
    undefined = with_level(log_likelihood=lambda theta, h, data: np.nan * theta)
    with pytest.raises(PiecesFailed, match="'log_likelihood' is undefined at the truth or at a draw"):
        calibrated(undefined, simulations=2)


@pytest.fixture(scope="module")
def result():
    return calibrated(simulations=30, draws=250)


def test_the_result_is_in_arvizs_layout_and_says_what_was_done(result):
    places = result.tree["prior_sbc"]
    assert places["mu"].dims == ("chain", "draw")
    assert places["theta"].sizes == {"chain": 1, "draw": 30, "clinic": 3}
    assert places["theta"].clinic.values.tolist() == ["E", "C", "A"]  # the least, a middling and the most precise
    drawn = az.plot_ecdf_pit(result.tree, var_names=["mu", "tau"], backend="none")
    assert {"mu", "tau"} <= set(drawn.viz["ecdf_lines"].data_vars)
    assert result.engines == {"independent": 30}
    assert result.seconds > 0
    assert result.table.index[:5].tolist() == ["mu", "tau", "theta[E]", "theta[C]", "theta[A]"]
    assert result.table["p_holm"].min() > 1e-4
    assert "30 simulations (30 by independent), 0 whose draws failed a check" in str(result)


@pytest.mark.long
def test_the_same_to_the_bit_by_any_workers_and_gone_on_with(tmp_path, monkeypatch):
    monkeypatch.setattr(calibration, "AT_ONCE", 3)
    frame = hz.load_data("three_hospitals")

    def places(**given):
        given = {"pooling": "partial", "draws": 100, "simulations": 7, "random_seed": 1, "progressbar": False} | given
        return hz.calibrate("hospital_readmission", frame, **given).tree["prior_sbc"].to_dataset()

    alone = places()
    assert alone.sizes["draw"] == 7
    assert alone.identical(places(folder=tmp_path / "half"))
    last = sorted((tmp_path / "half").glob("*.nc"))[-1]
    last.unlink()
    assert alone.identical(places(folder=tmp_path / "half"))
    assert last.exists()
    ten, of_seven = places(simulations=10), slice(7)
    assert ten.isel(draw=of_seven).identical(alone)
    assert ten.identical(places(simulations=10, folder=tmp_path / "half"))
    with ThreadPoolExecutor(2) as executor, warnings.catch_warnings():
        assert alone.identical(places(executor=executor))


@pytest.mark.slow
def test_the_engine_that_is_asked_for_draws():
    frame = hz.load_data("three_hospitals")
    by_nuts = hz.calibrate(
        "hospital_readmission", frame, engine="nuts", simulations=2, random_seed=1, progressbar=False
    )
    assert by_nuts.engines == {"nuts": 2}
    assert ((by_nuts.tree["prior_sbc"].to_dataset() > 0) & (by_nuts.tree["prior_sbc"].to_dataset() < 1)).all()


@pytest.mark.parametrize("dtype", ["int64", "Int64", "float32", "int8"])
def test_a_design_whose_response_is_of_any_type_is_filled(dtype):
    """Effects that are whole numbers in the design are not in what is simulated."""
    frame = CLINICS.assign(effect=np.arange(len(CLINICS))).astype({"effect": dtype})
    given = {"simulations": 2, "draws": 50, "random_seed": 1, "progressbar": False}
    found, wide = (hz.calibrate(MODEL, each, **given) for each in (frame, frame.astype({"effect": "float64"})))
    assert found.tree["prior_sbc"].identical(wide.tree["prior_sbc"])


def test_the_default_design_is_small():
    assert calibration._small(MODEL)["clinic"].nunique() == 10


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"engine": "gibbs"}, "Unknown engine 'gibbs': expected one of auto, independent, nuts"),
        ({"pooling": "some"}, "Unknown pooling 'some'"),
        ({"parameterization": "marginal"}, "Did you mean 'marginalized'"),
        ({"simulations": 0}, "simulations must be a whole number, 1 or more, got 0"),
        ({"folder": "here", "random_seed": None}, "give random_seed as well"),
        ({"priors": {"tua": Prior("HalfNormal", sigma=1)}}, "no prior named 'tua'"),
        ({"priors": [Prior("HalfNormal", sigma=1)]}, "priors must be a mapping from a name to its Prior, got list"),
        ({"engine": "independent", "parameterization": "centered"}, "the centered form has arrays of unknowns"),
        ({"record": with_level(replicate=None)}, "calibrate needs how new data of a clinic come about"),
        ({"record": with_level(independent=False)}, "those of vaccine_clinics depend on one another"),
        ({"record": replace(MODEL, response="")}, "which column is the response"),
    ],
)
def test_what_cannot_be_simulated_is_refused_in_a_sentence(given, message):
    given = {"random_seed": 1, "progressbar": False} | given
    with pytest.raises(ValueError, match=message):
        hz.calibrate(given.pop("record", MODEL), CLINICS, **given)


def test_designs_that_change_with_the_response_or_hold_other_rows_are_refused():
    made_of_responses = hz.reaction_norms.environment_index(hz.load_data("barley_minnesota"))
    with pytest.raises(ValueError, match="made of the response"):
        hz.calibrate("reaction_norms", made_of_responses, random_seed=1)
    two_genes = hz.load_data("tissue_expression")
    with pytest.raises(ValueError, match="not all of them are of this fit"):
        hz.calibrate("tissue_expression", two_genes, gene="MAML1", random_seed=1)


def test_the_test_of_uniformity_has_the_size_and_the_power_that_it_is_said_to_have():
    rng = np.random.default_rng(1)
    p = np.array([uniformity(rng.random(100)) for _ in range(1000)])
    assert (p < 0.005).mean() < 0.005 + 4 * np.sqrt(0.005 / 1000)
    shift = "a shift of 0.2 sd"
    assert power(shift, 1000, 0.005) > 0.98 > power(shift, 100, 0.005)
    assert all(power(error, 1000, 0.05 / 20) > 0.9 for error in ERRORS)


def test_holm_keeps_the_order():
    np.testing.assert_allclose(holm(np.array([0.01, 0.04, 0.03, 0.005])), [0.03, 0.06, 0.06, 0.02])


@pytest.mark.slow
def test_ranks_of_the_same_truths_are_those_of_simuk():
    """The truths and data that simuk draws, ranked by its NUTS of the form with visible groups, and here."""
    import simuk

    effects = {}

    def simulator(mu, theta, seed, **others):
        effects[float(mu)] = np.random.default_rng(seed).normal(theta, CLINICS["standard_error"])
        return {"y": effects[float(mu)]}

    model = MODEL.build(CLINICS, "partial", "noncentered", priors=PRIORS)
    sampler = {"draws": 500, "tune": 500, "chains": 2, "cores": 1, "target_accept": 0.95}
    other = simuk.SBC(model, num_simulations=5, seed=1, simulator=simulator, sample_kwargs=sampler, progress_bar=False)
    other.run_simulations()
    same = {"model": MODEL, "frame": CLINICS, "options": {}, "pooling": "partial", "parameterization": None}
    piece = same | {"priors": PRIORS, "engine": "independent", "draws": 1000}
    design, truths, z = simulations.design_of(piece), other.ref_params, []
    for i, draws in enumerate(other.posteriors):
        truth = truths.isel(sample=[i]).drop_vars(["sample", "chain", "draw"], errors="ignore")
        theta = truth.theta.rename({truth.theta.dims[0]: "clinic"} if truth.theta.dims[0] != "sample" else {})
        found, _ = simulations.compared(
            piece,
            design,
            truth[["mu", "tau"]],
            theta,
            effects[truth["mu"].item()],
            np.random.default_rng(i),
        )
        for name in ("mu", "tau"):
            rank = other.simulations["prior_sbc"][name].values[0, i]
            below = (draws[name] < truth[name].item()).values.reshape(2, -1).astype(float)
            assert below.sum() == rank
            place = found[name].item()
            error = np.sqrt(array_stats.mcse(below, chain_axis=0, draw_axis=1) ** 2 + place * (1 - place) / 2000)
            z.append((rank / below.size - place) / (error + 1e-3))
    assert max(map(abs, z)) < 4
    assert np.mean(np.square(z)) < 2.5
