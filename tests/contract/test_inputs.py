"""What comes beside the frame: a second frame, and a simulator; no pooling is drawn exactly, nothing is sampled.

Wells yield counts of germs: y_j ~ N(theta_j g_j, se^2) with the growth g_j either looked up in a second frame by medium
or simulated at the well's temperature.
"""

import sys
from dataclasses import replace
from types import ModuleType

import numpy as np
import pandas as pd
import pymc as pm
import pytest
import xarray as xr
from pymc_extras.prior import Prior

import hbm_zoo as hz
from hbm_zoo import zoo
from hbm_zoo.command_line.commands import compare_poolings
from hbm_zoo.command_line.errors import BadInput
from hbm_zoo.command_line.source import Source
from hbm_zoo.fields import Parameter
from hbm_zoo.frames.inputs import SIMULATOR
from hbm_zoo.frames.rules import FrameError, label, number, positive
from hbm_zoo.group_level import normal
from hbm_zoo.group_level.level import closed_form
from hbm_zoo.group_level.populations import Normal
from hbm_zoo.model import HierarchicalModel
from hbm_zoo.priors import moments


def prepared(frame, growth):
    values = {"y": frame["yield"].to_numpy(float), "growth": growth, "se": np.full(len(frame), 0.5)}
    return xr.Dataset({k: ("well", v) for k, v in values.items()}, coords={"well": frame["well"].to_numpy()})


def looked_up(frame, media):
    return prepared(frame, media.set_index("medium")["growth"].reindex(frame["medium"]).to_numpy(float))


def simulated(frame, simulator):
    return prepared(frame, simulator(frame[["temperature"]].to_numpy(float))[:, 0])


def scaled(data):
    """The yield over growth, a measurement of theta."""
    return data.y / data.growth, data.se / data.growth


def conditional(h, data):
    mean, sd = normal.conditional(*scaled(data), h.mu, h.tau)
    return h.assign(mu=mean, tau=sd)


def log_marginal(h, data):
    return normal.log_density(data.y, h.mu * data.growth, data.se**2 + (h.tau * data.growth) ** 2)


def expected(h, data):
    after = conditional(h, data)
    return normal.expected_log_density(*scaled(data), after.mu, after.tau) - np.log(data.growth)


def no_pooling(data, prior):
    theta = prior("theta", dims="well")
    pm.Normal("germs", theta * data.growth, data.se, observed=data.y, dims="well")


def pooled(data, prior):
    variance = data.se**2 + (prior("tau") * data.growth) ** 2
    pm.Normal("germs", prior("mu") * data.growth, pm.math.sqrt(variance), observed=data.y, dims="well")


def of_one_well(priors):
    (m, v), (t, tv) = (moments(name, priors[name]) for name in ("mu", "tau"))
    return Prior("Normal", mu=m, sigma=np.sqrt(v + t**2 + tv))


def alone(priors, data):
    m, v = moments("theta", priors["theta"])
    return {"mu": m, "tau": np.sqrt(v)}


MEDIA = HierarchicalModel(
    name="wells",
    question="Which well is contaminated?",
    group="well",
    estimand="theta",
    response="yield",
    observed="germs",
    location="mu",
    heterogeneity="tau",
    reference=None,
    columns={"well": label("the well", unique=True), "medium": label("its medium"), "yield": number("germs [1000]")},
    parameters={"mu": Parameter("mean contamination"), "tau": Parameter("spread of wells", (0, np.inf))},
    default_priors=lambda data: {"mu": Prior("Normal", mu=0, sigma=2), "tau": Prior("HalfNormal", sigma=1)},
    matched_prior=of_one_well,
    prepare=looked_up,
    own=lambda data: scaled(data)[0],
    volume=lambda data: data.growth.rename("growth"),
    inputs={"media": {"medium": label("the medium", unique=True), "growth": positive("growth in a day")}},
    variants={
        "none": {"centered": no_pooling},
        "complete": {"marginalized": pooled},
        "partial": {"marginalized": pooled},
    },
    fixed={"none": alone, "complete": lambda p, d: {"tau": 0.0}, "partial": lambda p, d: {}},
    group_level=closed_form(
        population=lambda h: Normal(h.mu, h.tau),
        conditional=conditional,
        log_marginal=log_marginal,
        log_likelihood=lambda theta, h, data: normal.log_density(data.y, theta * data.growth, data.se**2),
        expected_log_likelihood=expected,
        reliability=lambda h, data: normal.reliability(scaled(data)[1], h.tau),
        replicate=lambda rng, theta, h, data: xr.apply_ufunc(
            rng.normal, *xr.broadcast(theta * data.growth, data.se), keep_attrs=False
        ),
    ),
    simulate=None,
    datasets={},
)
SIMULATED = replace(
    MEDIA,
    name="incubated",
    columns={
        "well": label("the well", unique=True),
        "temperature": number("temperature [C]"),
        "yield": number("germs [1000]"),
    },
    prepare=simulated,
    inputs={"simulator": SIMULATOR},
)

WELLS = pd.DataFrame({"well": [*"abcdef"], "medium": [*"XXYYZZ"], "yield": [1.0, 2.0, 4.0, 7.0, 2.0, 3.0]})
GROWTH = pd.DataFrame({"medium": [*"XYZ"], "growth": [1.0, 4.0, 2.0]})
INCUBATED = WELLS.drop(columns="medium").assign(temperature=[20.0, 21.0, 25.0, 26.0, 22.0, 22.5])
FEW = {"draws": 200, "chains": 2, "random_seed": 2, "progressbar": False}


def growth_at(points):
    return np.exp(0.2 * (points - 20))


def hotter(points):
    return np.exp(0.3 * (points - 20))


@pytest.fixture(scope="module")
def by_media():
    return hz.fit(MEDIA, WELLS, "none", media=GROWTH, **FEW)


@pytest.fixture(scope="module")
def by_simulator():
    return hz.fit(SIMULATED, INCUBATED, "none", simulator=growth_at, **FEW)


def exact(fit, y, growth):
    """Mean of theta given one measurement, the population fixed in advance."""
    mu, tau = alone({"theta": of_one_well(MEDIA.default_priors(None))}, None).values()
    weight = tau**2 / (tau**2 + (0.5 / growth) ** 2)
    return weight * y / growth + (1 - weight) * mu


# A second frame.


def test_the_second_frame_is_in_the_fit_and_in_its_file(by_media, tmp_path):
    by_media.to_netcdf(tmp_path / "fit.nc")
    with xr.open_datatree(tmp_path / "fit.nc") as opened:
        for fit in (by_media, opened):
            data = fit["constant_data"]
            assert data["media.medium"].values.tolist() == ["X", "Y", "Z"]
            assert data["media.growth"].values.tolist() == [1.0, 4.0, 2.0]
            expected = exact(fit, WELLS["yield"], WELLS["medium"].map({"X": 1.0, "Y": 4.0, "Z": 2.0}))
            np.testing.assert_allclose(fit["group_summary"]["mean"], expected)
            new = pd.DataFrame({"well": ["g", "g2"], "medium": ["Z", "Z"], "yield": [8.0, np.nan]})
            said = hz.predict(fit, new, model=MEDIA)["group_summary"].to_dataset()
            assert float(said["mean"][0]) == pytest.approx(exact(fit, 8.0, 2.0))


def test_given_again_the_second_frame_takes_the_place_of_the_stored_one(by_media):
    new = pd.DataFrame({"well": ["g"], "medium": ["W"], "yield": [8.0]})
    more = pd.concat([GROWTH, pd.DataFrame({"medium": ["W"], "growth": [8.0]})])
    said = hz.predict(by_media, pd.concat([new, new.assign(well="h", **{"yield": np.nan})]), model=MEDIA, media=more)
    summary = said["group_summary"].to_dataset()
    assert float(summary["mean"][0]) == pytest.approx(exact(by_media, 8.0, 8.0))
    drawn = said["predictions"]["germs"].sel(row=0).values
    assert drawn.std() > 8  # 8 times the spread of theta, not of some other medium
    with pytest.raises(ValueError, match=r"^Unknown input of wells 'medium': expected one of media\."):
        hz.predict(by_media, new, model=MEDIA, medium=more)


BAD_MEDIA = {
    "none": ({}, r"^wells expected a frame with columns medium, growth as 'media', got none\.$"),
    "no frame": ({"media": 3}, r"^wells, 'media' expected a pandas DataFrame, got int\.$"),
    "column": (
        {"media": GROWTH.rename(columns={"growth": "grwth"})},
        r"^wells, 'media' expected a column 'growth' \(growth in a day\), got 'medium', 'grwth'\. .* 'grwth'\.$",
    ),
    "value": (
        {"media": GROWTH.assign(growth=[1.0, 0.0, 2.0])},
        r"^wells, 'media': column 'growth' expected a finite number above 0, got 0\.0 in row 1 \(Y\)\.$",
    ),
    "twice": (
        {"media": GROWTH.assign(medium=[*"XXZ"])},
        r"^wells, 'media': column 'medium' expected each value once, got 'X' in rows 0, 1\.$",
    ),
}


@pytest.mark.parametrize("fault", BAD_MEDIA)
def test_a_bad_second_frame_is_named(fault):
    given, sentence = BAD_MEDIA[fault]
    with pytest.raises(FrameError, match=sentence):
        hz.fit(MEDIA, WELLS, "none", **given)


def test_other_media_are_other_data(by_media):
    other = hz.fit(MEDIA, WELLS, "none", media=GROWTH.assign(growth=[1.0, 4.0, 2.5]), **FEW)
    assert other.attrs["data_hash"] != by_media.attrs["data_hash"]


# A simulator.


def test_a_simulator_s_answers_are_in_the_fit(by_simulator):
    data = by_simulator["constant_data"]
    np.testing.assert_allclose(data["simulator.points"][:, 0], INCUBATED["temperature"])
    np.testing.assert_allclose(data["simulator.values"][:, 0], growth_at(INCUBATED["temperature"]))
    many = pd.concat([INCUBATED.assign(well=INCUBATED["well"] + str(k)) for k in range(3)])
    assert SIMULATED.data(many, simulator=growth_at).sizes["simulator.answer"] == 10


def test_what_needs_new_simulations_asks_for_the_simulator_and_knows_it(by_simulator):
    new = pd.DataFrame({"well": ["g", "h"], "temperature": [30.0, 30.0], "yield": [9.0, np.nan]})
    said = hz.predict(by_simulator, new, model=SIMULATED, simulator=growth_at)["group_summary"].to_dataset()
    assert float(said["mean"][0]) == pytest.approx(exact(by_simulator, 9.0, growth_at(30.0)))
    with pytest.raises(ValueError, match=r"a fit cannot store a function: give it again as 'simulator'\.$"):
        hz.predict(by_simulator, new, model=SIMULATED)
    other = r"^'simulator' is not the simulator of the fit: at \(21\) it gives 1\.34986, and gave 1\.2214\.$"
    with pytest.raises(ValueError, match=other):
        hz.predict(by_simulator, new, model=SIMULATED, simulator=hotter)
    with pytest.raises(ValueError, match=r"of a point it gives 2 values, and gave 1\.$"):
        hz.predict(by_simulator, new, model=SIMULATED, simulator=lambda x: np.hstack([growth_at(x)] * 2))


def test_the_groups_of_the_fit_and_new_ones_in_general_need_no_simulator(by_simulator):
    for given in ({}, {"n_new": 2}):
        assert "theta" in hz.predict(by_simulator, model=SIMULATED, **given)["predictions"]


@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        ({}, r"^incubated expected a simulator as 'simulator', got none\.$"),
        ({"simulator": 3}, r"^incubated expected 'simulator' to be a function of points, got 3\.$"),
        ({"simulator": lambda x: 1.0}, r"^A simulator expected to answer each of 6 points gave shape \(\)\.$"),
    ],
)
def test_what_is_no_simulator_is_refused(given, sentence):
    with pytest.raises(ValueError, match=sentence):
        hz.fit(SIMULATED, INCUBATED, "none", **given)


# On the command line.


@pytest.fixture
def shell(monkeypatch, tmp_path):
    """Both models under their names, the frames as files, and a module that holds the simulator."""
    monkeypatch.setattr(zoo, "NAMES", (*zoo.NAMES, "wells", "incubated"))
    for name, record in (("wells", MEDIA), ("incubated", SIMULATED)):
        page = ModuleType(f"hbm_zoo.models.{name}")
        page.MODEL = record
        monkeypatch.setitem(sys.modules, page.__name__, page)
    for name, frame in (("wells", WELLS), ("incubated", INCUBATED), ("media", GROWTH)):
        frame.to_csv(tmp_path / f"{name}.csv", index=False)
    lab = ModuleType("lab")
    lab.growth_at = growth_at
    monkeypatch.setitem(sys.modules, "lab", lab)

    def compare(model, *options, out=None):
        source = Source(tmp_path / f"{model}.csv", None, None, (), options)
        settings = {"draws": 200, "tune": 200, "chains": 2, "random_seed": 2}
        return compare_poolings(model, source, ["none"], [], settings, None, out, False, False)

    return compare


def test_the_command_line_reads_a_second_frame_and_finds_a_simulator(shell, tmp_path, capsys):
    assert shell("wells", f"media={tmp_path / 'media.csv'}") == 0
    assert "6 wells, growth 1 to 4" in capsys.readouterr().out
    assert shell("incubated", "simulator=lab:growth_at") == 0
    assert "6 wells" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("model", "options", "sentence"),
    [
        ("wells", (), r"wells expected a frame with columns medium, growth as 'media', got none"),
        ("wells", ("media=nowhere.csv",), r"There is no file nowhere\.csv"),
        ("wells", ("medai=media.csv",), r"Unknown option of wells 'medai': .* Did you mean 'media'\?"),
        (
            "wells",
            ("media={bad}",),
            r"bad\.csv: wells, 'media': column 'growth' expected a finite number above 0, got 0\.0 in line 3",
        ),
        ("incubated", ("simulator=lab:growth",), r"lab has no 'growth'\. Did you mean 'growth_at'\?"),
        ("incubated", ("simulator=growth_at",), r"--option simulator expected module:function, got 'growth_at'"),
    ],
)
def test_the_command_line_names_a_bad_input(shell, tmp_path, model, options, sentence):
    GROWTH.assign(growth=[1, 0, 2]).to_csv(tmp_path / "bad.csv", index=False)
    with pytest.raises(BadInput, match=sentence):
        shell(model, *(option.format(bad=tmp_path / "bad.csv") for option in options))
