"""Model discrepancy with discrepancy="apart": a fit of a simulator that bends, its verbs, bad simulators."""

import numpy as np
import pandas as pd
import pytest
import xarray as xr
from pymc_extras.prior import Prior

import hbm_zoo as hz
from hbm_zoo.diagnostics.cross_validation import same_group_rows, without_row
from hbm_zoo.frames.rules import FrameError, FrameWarning
from hbm_zoo.inference.fits import efficiency, model_of
from hbm_zoo.models.beam import deflection

MODEL = hz.model_discrepancy.MODEL
RIG = hz.load_data("simulated_rig")
ONE = RIG[RIG["specimen"] == "S1"]
VERBS = hz.model_discrepancy
SETTINGS = {"random_seed": 1, "progressbar": False, "draws": 500, "discrepancy": "apart"}


def bends(points):
    """A beam that is the stiffer the farther it bends [mm]."""
    d = deflection(*points[:, :-1].T) * points[:, -1]
    return d / (1 + (d / 60.0) ** 2)


@pytest.fixture(scope="module")
def fit():
    """A rig that turns, under a simulator that bends; E is known to 3 %."""
    y = bends(ONE[["position", "load", "length", "width", "thickness"]].assign(b=1 / 70).to_numpy())
    y += 0.3 * y[-1] * ONE["load"] / 15.0 * ONE["position"] + np.random.default_rng(3).normal(0, 0.05, len(ONE))
    known = {"b": Prior("Normal", mu=1 / 70, sigma=0.03 / 70)}
    return hz.fit(MODEL, ONE.assign(deflection=y), "none", simulator=bends, priors=known, **SETTINGS)


@pytest.mark.slow
def test_a_single_experiment_has_its_modulus_its_discrepancy_and_its_predictions(fit):
    table = VERBS.modulus(fit)
    assert table["E_eti89_lb"].item() < 70 < table["E_eti89_ub"].item()
    asked = ONE.head(2).assign(position=[0.45, 0.8], load=[10.0, 15.0])
    said = VERBS.reality(fit, asked, simulator=bends)
    np.testing.assert_allclose(said["simulator"] + said["discrepancy"], said["reality"], rtol=1e-9)
    assert said["reality"].iloc[1] == pytest.approx(fit["constant_data"]["deflection"].values[-1], abs=0.2)
    assert (said["sd"] < said["sd_of_discrepancy"] / 2).all()
    curve = VERBS.discrepancy(fit, [0.45, 0.8], simulator=bends)
    size = said["sd_of_discrepancy"].iloc[0] / np.sqrt(1000 * efficiency(fit))
    assert curve["discrepancy"].iloc[0] == pytest.approx(said["discrepancy"].iloc[0], abs=5 * size)
    assert curve["simulator"].iloc[1] == pytest.approx(
        bends(np.array([[0.8, 10.0, 1.0, 30.0, 10.0, fit["posterior"]["b"].mean().item()]])).item(), rel=0.01
    )


@pytest.mark.slow
def test_each_reading_is_left_out_as_by_a_refit(fit):
    """Two of them, by weights of one fit and by fits without them, within 4 errors of both."""
    scores = same_group_rows(model_of(fit), fit, 1)
    assert scores.max_k_hat < 0.7
    for i in (3, 20):
        exact = without_row({"model": model_of(fit), "fit": fit, "left_out": i, "seed": 5})
        assert abs(float(exact["elpd"]) - scores.elpd[i]) < 4 * np.hypot(float(exact["mcse"]), scores.mcse[i])
    table = hz.compare_poolings({"none": fit}, question="new_observation")
    assert table.loc["none", "elpd"] == pytest.approx(scores.total)


@pytest.mark.slow
def test_a_discrepancy_of_another_kind_is_seen_and_one_of_its_kind_is_not(fit):
    """A support that turns freely by an angle before it holds, where the model grows with the load."""
    assert not hz.check_model(fit).attrs["rejected"]
    y = bends(ONE[["position", "load", "length", "width", "thickness"]].assign(b=1 / 70).to_numpy())
    gap = ONE.assign(deflection=y + 5 * ONE["position"] + np.random.default_rng(5).normal(0, 0.05, len(ONE)))
    table = hz.check_model(hz.fit(MODEL, gap, "none", simulator=bends, **SETTINGS))
    assert table.attrs["rejected"]["none"] == ["neighbours"]


@pytest.mark.slow
def test_a_simulator_that_is_not_given_again_is_shown_where_it_ran(fit):
    table = VERBS.discrepancy(fit, [0.45, 0.8])
    assert table["simulator"].isna().tolist() == [True, False]
    given = VERBS.discrepancy(fit, [0.45, 0.8], simulator=bends)
    np.testing.assert_allclose(table["simulator"].iloc[1], given["simulator"].iloc[1], rtol=1e-9)
    with pytest.raises(ValueError, match="is not the simulator of the fit"):
        VERBS.reality(fit, ONE.head(1), simulator=lambda points: 1.01 * bends(points))
    with pytest.raises(ValueError, match="give it again as 'simulator'"):
        VERBS.reality(fit, ONE.head(1))


@pytest.mark.slow
def test_the_simulator_taken_for_the_truth_bends_as_well(fit):
    """Without a discrepancy the posterior is that of least squares with the prior: far softer."""
    found = VERBS.taken_for_the_truth(fit)
    known = {"m": 1 / 70, "s": 0.03 / 70, "ell": 1.0, "r": 0.0}
    h = xr.Dataset({name: ("sample", [value]) for name, value in known.items()})
    sigma = found["posterior"]["sigma"].mean().item()
    data = fit["constant_data"].to_dataset()
    alone = MODEL.under(discrepancy="apart").group_level.conditional(
        h.assign(a=("sample", [0.0]), sigma=("sample", [sigma])), data
    )
    assert 1 / alone.mean.item() < 68 < VERBS.modulus(fit)["E"].item()
    assert sigma > 5 * fit["posterior"]["sigma"].mean().item()


BAD = {
    "a step": (lambda p: np.where(p[:, -1] > 0.02, 1.0, 0.5) * bends(p), FrameError, "smooth function .* runs miss by"),
    "a kink": (lambda p: bends(p) * (1 + 30 * abs(p[:, -1] - 0.02)), FrameError, "nearer moduli as 'softest'"),
    "chance": (lambda p: bends(p) + np.random.default_rng().normal(0, 1, len(p)), FrameError, "smooth function"),
    "NaN": (lambda p: np.where(p[:, 1] > 10, np.nan, bends(p)), FrameError, "one finite deflection .* got nan"),
    "infinite": (lambda p: bends(p) / (p[:, 0] > 0.15), FrameError, "one finite deflection"),
    "two numbers": (lambda p: np.stack([bends(p), bends(p)], axis=1), FrameError, "got 2 of each"),
    "too few": (lambda p: bends(p)[:-1], ValueError, "expected to answer each of"),
    "text": (lambda p: ["much"] * len(p), ValueError, "gave no numbers"),
    "no function": (3.0, FrameError, "to be a function of points"),
    "metres": (lambda p: bends(p) / 1e3, FrameError, "nearest to an end of the moduli"),
    "nothing": (lambda p: 0 * bends(p), FrameError, "has no reading under a load"),
}


@pytest.mark.filterwarnings("ignore:divide by zero")
@pytest.mark.parametrize("name", BAD)
def test_a_bad_simulator_is_refused(name):
    simulator, error, sentence = BAD[name]
    with pytest.raises(error, match=sentence):
        MODEL.under(discrepancy="apart").data(ONE, simulator=simulator)


def test_a_table_that_is_nearly_too_coarse_is_told():
    def nearly(points):
        return bends(points) + 0.02 * np.cos(4e3 * points[:, -1])

    with pytest.warns(FrameWarning, match="Between its runs the simulator is known to .* of the scatter"):
        data = MODEL.under(discrepancy="apart").data(ONE, simulator=nearly, stiffest=150.0, softest=30.0)
    assert data.attrs["table_error"] > 0


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"stiffest": 20.0, "softest": 60.0}, "more than 'softest', got 20 and 60"),
        ({"stiffest": -1.0}, "'stiffest' expected a modulus above 0"),
        ({"softest": True}, "'softest' expected a modulus above 0"),
        ({"simulator": bends, "rig_from": 0.0}, "'rig_to' expected an end of the second parameter, a number, got None"),
        ({"simulator": bends, "rig_from": 1.0, "rig_to": 0.0}, "more than 'rig_from', got 0 and 1"),
        ({"simulator": bends, "rig_from": 0.0, "rig_to": np.nan}, "'rig_to' expected an end"),
        ({"rig_from": 0.0, "rig_to": 1.0}, "are of a 'simulator' of two parameters, got none"),
    ],
)
def test_ends_that_cannot_be_are_refused(options, sentence):
    with pytest.raises(ValueError, match=sentence):
        MODEL.under(discrepancy="apart").data(ONE, **options)


def test_a_prior_beyond_the_runs_is_refused():
    with pytest.raises(ValueError, match=r"has \d+% beyond: give other moduli"):
        hz.fit(MODEL, ONE, "none", priors={"b": Prior("Normal", mu=0.03, sigma=0.01)}, **SETTINGS)


def on_a_spring(points):
    """A clamped beam whose support turns by r P L, r the last input in rad/(N m): in proportion to both, for once."""
    position, load, length = points[:, :3].T
    return deflection(*points[:, :5].T) * points[:, 5] + 1e3 * points[:, 6] * load * length * position


ON_A_SPRING = {"simulator": on_a_spring, "rig_from": 0.0, "rig_to": 3e-3}


def test_a_prior_of_the_second_parameter_beyond_the_runs_is_refused_and_of_one_that_is_not_there_too():
    prior = {"r": Prior("Normal", mu=3e-3, sigma=1e-3)}
    with pytest.raises(ValueError, match=r"second parameter 'r' has \d+% beyond: give other ends"):
        hz.fit(MODEL, ONE, "none", priors=prior, **ON_A_SPRING, **SETTINGS, stiffest=300.0, softest=20.0)
    with pytest.raises(ValueError, match="these data have nothing that it is of"):
        hz.fit(MODEL, ONE, "none", priors=prior, simulator=bends, **SETTINGS)


@pytest.mark.slow
def test_a_support_that_turns_is_told_from_a_soft_material_where_two_positions_are_seen():
    """From readings at one position either is as good; at two the ratio of these tells.

    At the best sensor alone a support of twice the compliance is a material of some more; no discrepancy but that.
    """
    rng, b, r, sds = np.random.default_rng(7), 1 / 70, 1.2e-3, {}
    nearly = {"a": Prior("HalfNormal", sigma=0.02), "sigma": Prior("HalfNormal", sigma=0.1)}
    for name, places in {"one": [0.8], "two": [0.3, 0.8]}.items():
        frame = pd.DataFrame({"position": np.repeat(places, 12), "load": np.tile([5.0, 10.0, 15.0], 4 * len(places))})
        frame = frame.assign(specimen="S1", length=1.0, width=30.0, thickness=10.0)
        given = frame[["position", "load", "length", "width", "thickness"]].assign(b=b, r=r).to_numpy()
        frame["deflection"] = on_a_spring(given) + rng.normal(0, 0.05, len(frame))
        if name == "one":
            frame = pd.concat([frame, frame.head(1).assign(position=0.0, load=5.0, deflection=0.0)])
        fit = hz.fit(MODEL, frame, "none", priors=nearly, **ON_A_SPRING, **SETTINGS)
        posterior = fit["posterior"].to_dataset()
        sds[name] = {v: float(posterior[v].std()) for v in ("b", "r")}
        assert abs(posterior["r"].mean() - r) < 4 * sds[name]["r"]
        assert abs(posterior["b"].mean() - b) < 4 * sds[name]["b"]
        assert np.corrcoef(posterior["b"].values.ravel(), posterior["r"].values.ravel())[0, 1] < -0.9
    assert sds["one"]["r"] > 10 * sds["two"]["r"]
    assert sds["one"]["b"] > 10 * sds["two"]["b"]
    curve = VERBS.discrepancy(fit, [0.3, 0.8])
    assert curve["simulator"].notna().all()
    assert VERBS.reality(fit, frame.head(1), simulator=on_a_spring)["sd"].item() < 0.1


DESIGN, _ = MODEL.simulate(np.random.default_rng(3), specimens=1, positions=(0.2, 0.4, 0.6, 0.8), loads=(5.0, 10.0))


@pytest.mark.slow
def test_a_single_experiment_is_calibrated():
    """The runs are between moduli that are given: by default they are of the readings, each time of others."""
    many = {"simulations": 200, "draws": 250, "random_seed": 1, "progressbar": False}
    between = {"stiffest": 200.0, "softest": 30.0}
    result = hz.calibrate(MODEL, DESIGN, "none", discrepancy="apart", simulator=bends, **between, **many)
    assert result.table["p_holm"].min() > 0.01
    assert result.failed <= 10
