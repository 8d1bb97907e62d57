"""What a caller types, and the nearest that exists."""

import inspect
import warnings

import numpy as np
import pandas as pd
import pytest

import hbm_zoo as hz
from hbm_zoo.frames.rules import FrameError, FrameWarning


@pytest.fixture
def clinics():
    return pd.DataFrame({"clinic": [*"abc"], "effect": [0.1, 0.3, -0.2], "standard_error": [0.2, 0.2, 0.3]})


@pytest.mark.parametrize(
    ("given", "hint"),
    [({"seed": 1}, "'random_seed'"), ({"warmup": 9}, "'tune'"), ({"covariates": ["x"]}, "'moderators'")],
)
def test_what_others_call_an_argument_is_named(clinics, given, hint):
    with pytest.raises(ValueError, match=hint):
        hz.fit("vaccine_clinics", clinics, **given)


def test_columns_of_other_programs_lead_to_their_reader(clinics):
    theirs = clinics.rename(columns={"effect": "yi", "standard_error": "sei"})
    with pytest.raises(FrameError, match=r"vaccine_clinics\.from_escalc"):
        hz.fit("vaccine_clinics", theirs)


def test_columns_of_several_levels_and_frames_of_other_libraries_are_refused_by_name(clinics):
    levels = clinics.set_axis(pd.MultiIndex.from_product([["trial"], clinics.columns]), axis=1)
    with pytest.raises(FrameError, match=r"2 levels of them, such as \('trial', 'clinic'\)"):
        hz.fit("vaccine_clinics", levels)
    other = type("DataFrame", (), {"__module__": "polars.dataframe.frame", "to_pandas": clinics.copy})()
    with pytest.raises(FrameError, match=r"got polars DataFrame\. Pass what its to_pandas\(\) returns"):
        hz.fit("vaccine_clinics", other)


def test_a_callers_own_attributes_of_a_frame_are_no_notes_of_its_reading(clinics):
    clinics.attrs = {"notes": {"by": np.arange(3)}, "labels": 3}
    fit = hz.fit("vaccine_clinics", clinics, pooling="none", draws=50, chains=2, random_seed=1)
    assert (fit.attrs["notes"], fit.attrs["labels"]) == ("[]", "{}")


def test_a_prior_may_be_its_text(clinics):
    written = {"tau": "HalfNormal(sigma=0.3)"}
    record = hz.vaccine_clinics.MODEL
    assert record.priors(record.data(clinics), written, "partial")["tau"].parameters == {"sigma": 0.3}
    with pytest.raises(ValueError, match="The prior of 'tau': expected a distribution with its numbers by name"):
        hz.fit("vaccine_clinics", clinics, priors={"tau": "HalfNormal(0.3)"})


def test_all_poolings_show_the_arguments_of_a_fit():
    of_fit, of_all = inspect.signature(hz.fit).parameters, inspect.signature(hz.fit_poolings).parameters
    assert [*of_all] == [name for name in of_fit if name != "pooling"]


def test_completion_on_a_model_shows_its_own_names():
    offered = dir(hz.vaccine_clinics)
    assert {"MODEL", "build", "simulate", "from_escalc", "log_marginal"} <= set(offered)
    assert not {"np", "pd", "xr", "Prior", "normal", "HierarchicalModel", "special"} & set(offered)
    assert "tolerance_bound" in dir(hz.material_batches)
    assert all(hasattr(hz.material_batches, name) for name in dir(hz.material_batches))


def test_a_center_far_outside_the_environments_is_said():
    x = np.tile(np.arange(2000, 2004.0), 3)
    noise = np.random.default_rng(1).normal(size=12)
    frame = pd.DataFrame({"genotype": np.repeat([*"abc"], 4), "environment": x, "response": x - 2000 + noise})
    with pytest.warns(FrameWarning, match=r"The center 0 lies 667 times the range .* 2000 to 2003, outside them"):
        hz.reaction_norms.MODEL.data(frame, center=0)
    with warnings.catch_warnings():
        warnings.simplefilter("error", FrameWarning)
        hz.reaction_norms.MODEL.data(frame, center=1999)
