"""The contract of what comes beside the frame, held to a model from outside the package that takes both kinds.

Ovens against their simulator: each oven lies theta_j degrees off what the simulator says of its
setting, and is measured once, by a sensor whose error a second frame gives.
"""

import math
import warnings

import numpy as np
import pandas as pd
import pymc as pm
import pytest
import xarray as xr
from pymc_extras.prior import Prior

import hbm_zoo as hz
from hbm_zoo.frames.inputs import SIMULATOR
from hbm_zoo.frames.rules import FrameError, label, number, positive
from hbm_zoo.group_level import normal
from hbm_zoo.group_level.evaluate import evaluate
from hbm_zoo.group_level.level import closed_form
from hbm_zoo.group_level.populations import Normal
from hbm_zoo.inference.convergence import ConvergenceWarning
from hbm_zoo.model import HierarchicalModel, Parameter
from hbm_zoo.priors import moments

SENSORS = {"sensor": label("the sensor"), "error": positive("its standard error [K]")}


def prepare(frame, sensors, simulator):
    """One row an oven: what was measured, what was simulated, and the error of its sensor."""
    error = sensors.set_index("sensor")["error"]
    for sensor in frame["sensor"]:
        if sensor not in error.index:
            raise FrameError(f"ovens expected the error of sensor {sensor!r} in 'sensors', got none.")
    return xr.Dataset(
        {
            "temperature": ("oven", frame["temperature"].to_numpy(float)),
            "simulated": ("oven", simulator(frame[["setting", "humidity"]].to_numpy())),
            "error": ("oven", error.loc[frame["sensor"]].to_numpy(float)),
        },
        coords={"oven": frame["oven"].to_numpy()},
    )


def measured(data, mean, sd, **given):
    pm.Normal("y", data.simulated + mean, sd, observed=data.temperature, dims="oven")


def no_pooling(data, prior):
    measured(data, prior("theta", dims="oven"), data.error)


def complete_pooling(data, prior):
    measured(data, prior("mu"), data.error)


def partial_pooling(data, prior):
    measured(data, pm.Normal("theta", prior("mu"), prior("tau"), dims="oven"), data.error)


def partial_pooling_marginalized(data, prior):
    measured(data, prior("mu"), pm.math.sqrt(prior("tau") ** 2 + data.error**2))


def off(data):
    """By how much each oven was measured to be off."""
    return data.temperature - data.simulated


def conditional(h, data):
    mu, tau = normal.conditional(off(data), data.error, h.mu, h.tau)
    return h.assign(mu=mu, tau=tau)


def fixed_in_advance(priors, data):
    mean, variance = moments("theta", priors["theta"])
    return {"mu": mean, "tau": np.sqrt(variance)}


def expected_log_likelihood(h, data):
    after = conditional(h, data)
    return normal.expected_log_density(off(data), data.error, after.mu, after.tau)


OVENS = HierarchicalModel(
    name="ovens",
    question="How far is each oven off its simulator?",
    group="oven",
    estimand="theta",
    estimand_label="off by [K]",
    response="temperature",
    observed="y",
    location="mu",
    heterogeneity="tau",
    reference=0.0,
    columns={
        "oven": label("the oven", unique=True),
        "setting": number("its setting [K]"),
        "humidity": number("of the room [1]"),
        "sensor": label("what measured it"),
        "temperature": number("measured [K]"),
    },
    inputs={"sensors": SENSORS, "simulator": SIMULATOR},
    parameters={"mu": Parameter("mean of the ovens [K]"), "tau": Parameter("their spread [K]", (0, np.inf))},
    default_priors=lambda data: {
        "mu": Prior("Normal", mu=0.0, sigma=10.0),
        "tau": Prior("HalfNormal", sigma=5.0),
    },
    matched_prior=lambda priors: Prior("Normal", mu=0.0, sigma=11.0),
    prepare=prepare,
    own=off,
    volume=lambda data: (data.error**-2).rename("precision"),
    variants={
        "none": {"centered": no_pooling},
        "complete": {"centered": complete_pooling},
        "partial": {"centered": partial_pooling, "marginalized": partial_pooling_marginalized},
    },
    fixed={"none": fixed_in_advance, "complete": lambda priors, data: {"tau": 0.0}, "partial": lambda priors, data: {}},
    group_level=closed_form(
        population=lambda h: Normal(h.mu, h.tau),
        conditional=conditional,
        log_marginal=lambda h, data: evaluate(normal.log_marginal, off(data), data.error, h.mu, h.tau),
        log_likelihood=lambda theta, h, data: normal.log_density(off(data), theta, data.error**2),
        expected_log_likelihood=expected_log_likelihood,
        reliability=lambda h, data: normal.reliability(data.error, h.tau),
        replicate=lambda rng, theta, h, data: xr.apply_ufunc(
            rng.normal, *xr.broadcast(theta + data.simulated, data.error)
        ),
    ),
    simulate=None,
    datasets={},
)


def heat(points):
    """What physics says: a little above the setting, less where it is humid."""
    setting, humidity = points.T
    return setting + 0.01 * (setting - 400) ** 2 / 100 - 3 * humidity


HEAT = heat(np.array([[500.0, 0.5]]))[0]
SENSOR_FRAME = pd.DataFrame({"sensor": ["good", "bad"], "error": [1.0, 4.0]})
TRUTH = np.array([6.0, -2.0, 3.0, 9.0, 1.0, 4.0, -5.0, 8.0, 2.0, 5.0, 0.0, 7.0])


def ovens_frame():
    rng = np.random.default_rng(4)
    settings, humidity = rng.uniform(400, 600, 12), rng.uniform(0, 1, 12)
    sensors = np.tile(["good", "bad"], 6)
    error = np.tile([1.0, 4.0], 6)
    return pd.DataFrame(
        {
            "oven": [f"O{i}" for i in range(12)],
            "setting": settings,
            "humidity": humidity,
            "sensor": sensors,
            "temperature": rng.normal(heat(np.column_stack([settings, humidity])) + TRUTH, error),
        }
    )


SETTINGS = {"draws": 300, "tune": 300, "chains": 2, "random_seed": 3, "progressbar": False}


@pytest.fixture(scope="module")
def ovens():
    given = {"sensors": SENSOR_FRAME, "simulator": heat}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        return {pooling: hz.fit(OVENS, ovens_frame(), pooling, **given, **SETTINGS) for pooling in ("none", "partial")}


@pytest.fixture(scope="module")
def saved(ovens, tmp_path_factory):
    """The same fit from a file, as another session opens it."""
    path = tmp_path_factory.mktemp("fits") / "partial.nc"
    ovens["partial"].to_netcdf(path)
    return xr.open_datatree(path).load()


def new_rows(**changed):
    rows = {"oven": ["O3", "new", "N1"], "setting": 500.0, "humidity": 0.5, "sensor": "good"}
    return pd.DataFrame(rows | {"temperature": [np.nan, np.nan, HEAT + 4]} | changed)


def predict(fit, frame=None, **more):
    return hz.predict(fit, new_rows() if frame is None else frame, model=OVENS, **more)


# What is kept.


@pytest.mark.parametrize("pooling", ["none", "partial"])
def test_ten_answers_and_the_second_frame_stay_in_the_fit(ovens, pooling):
    kept, frame = ovens[pooling]["constant_data"], ovens_frame()
    points = frame[["setting", "humidity"]].to_numpy()[:10]
    np.testing.assert_array_equal(kept["simulator.points"], points)
    np.testing.assert_allclose(kept["simulator.values"], heat(points)[:, None])
    assert kept["sensors.sensor"].values.tolist() == ["good", "bad"]
    assert kept["sensors.error"].values.tolist() == [1.0, 4.0]


def test_they_survive_saving_and_loading(ovens, saved):
    before, after = (fit["constant_data"].to_dataset() for fit in (ovens["partial"], saved))
    kept = [name for name in before if "." in name]
    assert len(kept) == 4
    for name in kept:
        np.testing.assert_array_equal(before[name].values, after[name].values)
    assert hz.groups(saved, model=OVENS)["partial"].tolist() == hz.groups(ovens, model=OVENS)["partial"].tolist()


def test_the_answer_is_used(ovens):
    table = hz.groups(ovens, model=OVENS)
    assert np.corrcoef(table["partial"], TRUTH)[0, 1] > 0.8
    frame = ovens_frame()
    expected = frame["temperature"] - heat(frame[["setting", "humidity"]].to_numpy())
    np.testing.assert_allclose(table["own"], expected)


def test_other_answers_are_other_data(ovens):
    warm = {"sensors": SENSOR_FRAME, "simulator": lambda points: heat(points) + 1}
    other = hz.fit(OVENS, ovens_frame(), "none", **warm, **SETTINGS)
    with pytest.raises(ValueError, match="do not belong together: 'other' is of other data"):
        hz.groups({"none": ovens["none"], "other": other}, model=OVENS)


def test_what_compares_needs_no_simulator(ovens):
    table = hz.compare_poolings(ovens, "new_group", model=OVENS)
    assert table.loc["partial", "refits"] == 12


# New rows: the simulator is asked for again.


@pytest.mark.parametrize("which", ["of this session", "saved"])
def test_new_rows_are_simulated_again(ovens, saved, which):
    fit = ovens["partial"] if which == "of this session" else saved
    result = predict(fit, simulator=heat)
    cases = result["group_summary"]["case"].sel(oven=["O3", "new", "N1"]).values.tolist()
    assert cases == ["known", "never seen", "brings rows"]
    posterior = fit["posterior"].dataset
    new, known = result["row_summary"]["mean"].values[1], result["row_summary"]["mean"].values[0]
    assert known == pytest.approx(HEAT + float(posterior["theta"].sel(oven="O3").mean()), abs=0.3)
    assert new == pytest.approx(HEAT + float(posterior["mu"].mean()), abs=0.6)


def test_groups_without_rows_need_no_simulator(ovens):
    assert hz.predict(ovens["partial"], n_new=2, model=OVENS)["group_summary"].sizes["oven"] == 2
    assert hz.predict(ovens["partial"], model=OVENS)["row_summary"].sizes["row"] == 12


NOT_THE_SIMULATOR = {
    "none": ({}, "This needs new simulations, and a fit cannot store a function: give it again as 'simulator'"),
    "another": ({"simulator": lambda p: heat(p) + 1}, r"'simulator' is not the simulator of the fit: at \(.*\) it .*"),
    "wrong shape": (
        {"simulator": lambda p: np.column_stack([heat(p)] * 2)},
        "'simulator' is not the simulator of the fit: of a point it gives 2 values, and gave 1",
    ),
    "not each": (
        {"simulator": lambda p: heat(p)[:1]},
        r"A simulator expected to answer each of 10 points gave shape \(1,\)",
    ),
    "another name": ({"simulater": heat}, r"Unknown input of ovens 'simulater': .*\. Did you mean 'simulator'\?"),
}


@pytest.mark.parametrize("what", NOT_THE_SIMULATOR)
def test_what_is_not_the_simulator_is_refused_in_a_sentence(ovens, what):
    again, said = NOT_THE_SIMULATOR[what]
    with pytest.raises(ValueError, match=rf"^{said}\.?$"):
        predict(ovens["partial"], **again)


WITHOUT = {
    "no simulator": ({"sensors": SENSOR_FRAME}, "ovens expected a simulator as 'simulator', got none."),
    "no frame": (
        {"simulator": heat},
        "ovens expected a frame with columns sensor, error as 'sensors', got none.",
    ),
    "swapped": (
        {"simulator": SENSOR_FRAME, "sensors": heat},
        "ovens, 'sensors' expected a pandas DataFrame, got function.",
    ),
}


@pytest.mark.parametrize("what", WITHOUT)
@pytest.mark.parametrize("verb", [hz.fit, hz.empirical_bayes, lambda *a, **k: OVENS.build(*a[1:], **k)])
def test_every_entrance_asks_for_what_the_model_takes(what, verb):
    options, sentence = WITHOUT[what]
    with pytest.raises(FrameError) as error:
        verb(OVENS, ovens_frame(), **options)
    assert str(error.value) == sentence


# The second frame, given again.


def test_a_new_sensor_needs_the_second_frame_again(ovens):
    frame = new_rows(sensor="best")
    with pytest.raises(FrameError, match=r"^ovens expected the error of sensor 'best' in 'sensors', got none\.$"):
        predict(ovens["partial"], frame, simulator=heat)
    more = pd.concat([SENSOR_FRAME, pd.DataFrame({"sensor": ["best"], "error": [0.01]})])
    result = predict(ovens["partial"], frame, simulator=heat, sensors=more)
    theta = result["predictions"]["theta"].sel(oven="O3")
    measured_again = result["predictions"]["y"].isel(row=0)
    assert float((measured_again - theta - HEAT).std()) == pytest.approx(0.01, rel=0.1)


def test_a_second_frame_that_lacks_what_is_needed_is_refused(ovens):
    for bad, said in (
        (SENSOR_FRAME.drop(columns="error"), r"^ovens, 'sensors' expected a column 'error' .*\.$"),
        (SENSOR_FRAME.assign(error=[1.0, 0.0]), r"^ovens, 'sensors': column 'error' expected .*, got 0.0 in row 1\.$"),
        (SENSOR_FRAME[1:], r"^ovens expected the error of sensor 'good' in 'sensors', got none\.$"),
    ):
        with pytest.raises(FrameError, match=said):
            predict(ovens["partial"], simulator=heat, sensors=bad)
        with pytest.raises(FrameError, match=said):
            hz.fit(OVENS, ovens_frame(), simulator=heat, sensors=bad)


def test_a_long_second_frame_costs_no_draws(ovens, monkeypatch):
    monkeypatch.setattr("hbm_zoo.diagnostics.prediction.LARGEST_ARRAY", 2 * 300 * 12)
    more = pd.DataFrame({"sensor": ["good", "bad", *map(str, range(500))], "error": 1.0})
    result = predict(ovens["partial"], simulator=heat, sensors=more)
    assert result["predictions"].sizes["draw"] == 300


def test_math_is_no_simulator():
    with pytest.raises(TypeError):
        hz.fit(OVENS, ovens_frame(), sensors=SENSOR_FRAME, simulator=math.sqrt)
