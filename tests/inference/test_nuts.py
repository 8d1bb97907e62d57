"""NUTS on a kept density: its gradient, its units, other data, its seeds, and an end before the end."""

import ctypes
import os
import signal
import subprocess
import sys
import threading
import time

import arviz as az
import numpy as np
import pymc as pm
import pytest
import xarray as xr
from pytensor.link.numba.cache import CACHED_SRC_FUNCTIONS
from scipy import stats

import hbm_zoo as hz
from hbm_zoo.inference import nuts, sampling
from hbm_zoo.models.vaccine_clinics import MODEL
from hbm_zoo.priors import apart_from_numbers

SETTINGS = {"draws": 200, "tune": 200, "chains": 2, "seed": 1}


def prepared(unit=1.0, rows=slice(None)):
    frame = hz.load_data("bcg_vaccine").iloc[rows]
    return MODEL.data(frame.assign(effect=unit * frame["effect"], standard_error=unit * frame["standard_error"]))


def written(data):
    priors = MODEL.priors(data, pooling="partial")
    return nuts.compiled(MODEL.write(data, "partial", "marginalized", priors, apart_from_numbers(priors)))


def drawn(model, **options):
    return nuts.sample(model, SETTINGS, False, options)


@pytest.fixture(scope="module")
def bcg():
    return written(prepared())


def evaluated(model, x):
    """What the sampler is told at a point: whether there is a density, its log, and the gradient."""
    number = ctypes.c_double * len(x)
    call = ctypes.CFUNCTYPE(ctypes.c_int64, ctypes.c_uint64, *[ctypes.c_void_p] * 4)
    point, gradient, value = number(*x), number(), number()
    code = call(model.density.compiled_logp_func.address)(
        len(x), *map(ctypes.addressof, (point, gradient, value)), model.density.user_data.ctypes.data
    )
    return code, value[0], np.array(gradient)


def test_the_density_is_scipys_and_the_gradient_its_differences(bcg):
    data, points = prepared(), np.array([[0.3, -0.7], [-1.2, 0.4], [2.0, 1.0]])
    h = dict(zip(bcg.names, bcg.own_scales(points, *bcg.data.values()), strict=True))
    priors = {name: prior.parameters for name, prior in MODEL.priors(data, pooling="partial").items()}
    spread = np.hypot(h["tau"][:, None], data.standard_error.values)
    expected = stats.norm.logpdf(data.effect.values, h["mu"][:, None], spread).sum(axis=1)
    expected += stats.norm.logpdf(h["mu"], priors["mu"]["mu"], priors["mu"]["sigma"])
    expected += stats.norm.logpdf(stats.norm.isf(stats.halfnorm.sf(h["tau"], scale=priors["tau"]["sigma"])))
    found = np.array([evaluated(bcg, x)[1] for x in points])
    np.testing.assert_allclose(np.diff(found), np.diff(expected), rtol=1e-8)
    for x in points:
        ahead, behind = ([evaluated(bcg, x + sign * 1e-5 * e)[1] for e in np.eye(2)] for sign in (1, -1))
        np.testing.assert_allclose(evaluated(bcg, x)[2], np.subtract(ahead, behind) / 2e-5, rtol=1e-6, atol=1e-7)


def test_a_point_without_a_density_is_said_to_be_one(bcg):
    assert evaluated(bcg, [0.0, 0.0])[0] == 0
    assert evaluated(bcg, [np.nan, 0.0])[0] > 0
    assert evaluated(bcg, [0.0, 1e300])[0] > 0


def test_a_seed_is_a_seed_on_one_core_and_on_two(bcg):
    one, two = drawn(bcg, cores=1), drawn(bcg, cores=2)
    xr.testing.assert_equal(one["posterior"].to_dataset(), two["posterior"].to_dataset())


@pytest.mark.parametrize("unit", [1e-12, 1e12])
def test_other_units_are_the_same_density_the_same_file_and_the_same_draws(bcg, unit):
    other, x = written(prepared(unit)), np.array([0.3, -0.7])
    one, same = (CACHED_SRC_FUNCTIONS[model.density.compiled_logp_func.__wrapped__] for model in (bcg, other))
    assert one == same  # the name of the file
    assert other.density.compiled_logp_func.cache_hits == 1
    np.testing.assert_allclose(evaluated(other, x)[2], evaluated(bcg, x)[2], rtol=1e-9)
    here, there = (drawn(model)["posterior"].dataset[["mu", "tau"]] for model in (bcg, other))
    error = np.hypot(*(az.mcse(h, method="mean") for h in (here, there / unit)))
    assert (np.abs(here.mean() - there.mean() / unit) < 5 * error).to_array().all()


HERE_AND_LATER = """
import numpy as np
import hbm_zoo as hz
from hbm_zoo.inference import nuts
from hbm_zoo.models.hospital_readmission import MODEL
data = MODEL.data(hz.load_data("three_hospitals"))
model = nuts.compiled(MODEL.write(data, "partial", "marginalized", MODEL.priors(data, pooling="partial")))
draws = nuts.sample(model, {"draws": 200, "tune": 200, "chains": 2, "seed": 1}, False, {})["posterior"]
print(model.density.compiled_logp_func.cache_hits, draws["cv"].values.tobytes().hex())
"""


@pytest.mark.slow
def test_the_process_that_compiles_and_one_that_finds_it_compiled_draw_the_same(tmp_path):
    flags = os.environ | {"PYTENSOR_FLAGS": f"base_compiledir={tmp_path}"}
    command = [sys.executable, "-W", "ignore", "-c", HERE_AND_LATER]
    run = [subprocess.run(command, env=flags, capture_output=True, text=True, check=True).stdout for _ in range(2)]
    (compiling, first), (finding, second) = map(str.split, run)
    assert (compiling, finding) == ("0", "1")
    assert first == second


def test_other_data_are_not_compiled_and_leave_the_first_alone(monkeypatch, bcg):
    few = prepared(rows=slice(0, 6))
    before, changed = drawn(bcg), bcg.with_data(few)
    x = np.array([0.3, -0.7])
    priors = MODEL.priors(prepared(), pooling="partial")
    fresh = nuts.compiled(MODEL.write(few, "partial", "marginalized", priors, apart_from_numbers(priors)))
    np.testing.assert_allclose(evaluated(changed, x)[1], evaluated(fresh, x)[1], rtol=1e-12)
    assert evaluated(changed, x)[1] != evaluated(bcg, x)[1]
    for name in ("tau", "mu", "I2"):  # I2 is a function of the data, too
        np.testing.assert_allclose(drawn(changed)["posterior"][name], drawn(fresh)["posterior"][name], rtol=1e-6)
    xr.testing.assert_equal(drawn(bcg)["posterior"].to_dataset(), before["posterior"].to_dataset())
    arguments = ("partial", "marginalized", priors)
    sampling._compile(MODEL, prepared(), *arguments)
    monkeypatch.setattr(nuts, "compiled", None)
    assert evaluated(sampling._compile(MODEL, few, *arguments), x)[1] == evaluated(changed, x)[1]


def test_what_is_kept_is_on_its_own_scale_with_its_own_labels():
    with pm.Model(coords={"clinic": ["b", "a"]}) as model:
        shift = pm.Data("shift", [10.0, 20.0], dims="clinic")
        share = pm.Uniform("share", 2, 3)
        theta = pm.Normal("theta", share, 100.0, dims="clinic")
        pm.Deterministic("moved", theta + shift, dims="clinic")
        pm.Normal("y", theta, 100.0, observed=[0.0, 300.0], dims="clinic")
    posterior = drawn(nuts.compiled(model))["posterior"].dataset
    assert posterior["moved"].dims == ("chain", "draw", "clinic")
    assert posterior["clinic"].values.tolist() == ["b", "a"]
    assert 2 < posterior["share"].min() < posterior["share"].max() < 3
    np.testing.assert_allclose((posterior["moved"] - posterior["theta"]).isel(chain=0, draw=0), [10, 20])
    error = az.mcse(posterior["theta"], method="mean")
    assert (np.abs(posterior["theta"].mean(("chain", "draw")) - [1.25, 151.25]) < 5 * error + 0.5).all()


def test_a_formula_that_fails_is_a_divergence_or_an_error_but_no_draw():
    with pm.Model() as model:
        x = pm.Normal("x")
        pm.Potential("root", pm.math.log(x - 100))
    with pytest.raises(RuntimeError, match="initial"):
        drawn(nuts.compiled(model))


@pytest.fixture
def interruptible():
    """Python as it is in a terminal: a shell starts what it leaves in the background deaf to interrupts."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def test_an_interrupted_fit_is_none(bcg, interruptible):
    done = threading.Event()

    def interrupt():
        """Once, and again: Python drops a signal that comes while an object is taken apart."""
        wait = 0.5
        while not done.wait(wait):
            signal.raise_signal(signal.SIGINT)
            wait = 5.0

    interrupting = threading.Thread(target=interrupt)
    interrupting.start()
    start = time.perf_counter()
    try:
        with pytest.raises(KeyboardInterrupt):
            nuts.sample(bcg, SETTINGS | {"draws": 2_000_000}, False, {})
    finally:
        done.set()
        interrupting.join()
    assert time.perf_counter() - start < 20
