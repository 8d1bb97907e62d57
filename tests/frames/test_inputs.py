"""What comes beside the frame: a simulator that remembers and is recognised, a second frame that is kept."""

import numpy as np
import pandas as pd
import pytest
import xarray as xr

from hbm_zoo.frames.inputs import REMEMBERED, SIMULATOR, Remembered, given, restored, stored
from hbm_zoo.frames.rules import FrameError, label, positive

DAYS = {"class": label("the class"), "days": positive("days of school [days]")}
KINDS = {"simulator": SIMULATOR, "days": DAYS}


def curve(points):
    """Two values at each point of two inputs, of very different size."""
    return np.column_stack([1e9 + points[:, 0], np.exp(-points[:, 1])])


def asked(simulator, points):
    """Data of a fit whose simulator was asked at some points."""
    remembered = given("ovens", "simulator", SIMULATOR, {"simulator": simulator})
    remembered(points)
    return stored(xr.Dataset(), {"simulator": remembered})


POINTS = np.random.default_rng(1).uniform(size=(25, 2))


def test_the_first_ten_answers_are_kept_of_one_call_or_of_many():
    at_once, one_by_one = Remembered(curve), Remembered(curve)
    at_once(POINTS)
    for point in POINTS:
        one_by_one(point[None])
    for remembered in (at_once, one_by_one):
        np.testing.assert_array_equal(remembered.points, POINTS[:REMEMBERED])
        np.testing.assert_array_equal(remembered.values, curve(POINTS[:REMEMBERED]))


def test_answers_of_any_shape_are_stored_as_a_row_each():
    data = asked(lambda points: np.ones((len(points), 3, 4)), POINTS)
    assert dict(data.sizes) == {"simulator.answer": 10, "simulator.input": 2, "simulator.output": 12}
    assert asked(lambda points: points[:, 0], POINTS)["simulator.values"].shape == (10, 1)


def test_what_is_kept_is_what_was_asked_whatever_the_simulator_does_to_its_arrays():
    buffer = np.empty((25, 1))

    def careless(points):
        points *= 2
        buffer[: len(points)] = points[:, :1]
        return buffer[: len(points)]

    remembered = Remembered(careless)
    remembered(POINTS)
    kept = np.array(remembered.values)
    remembered(POINTS[::-1])
    np.testing.assert_array_equal(remembered.points, POINTS[:REMEMBERED])
    np.testing.assert_array_equal(remembered.values, kept)


def test_a_simulator_that_was_never_asked_leaves_nothing():
    remembered = given("ovens", "simulator", SIMULATOR, {"simulator": curve})
    assert not stored(xr.Dataset(), {"simulator": remembered}).data_vars


UNANSWERED = {
    "fewer": (lambda points: curve(points)[1:], r"gave shape \(24, 2\)"),
    "one for all": (lambda points: 1.0, r"gave shape \(\)"),
    "text": (lambda points: ["hot"] * len(points), "gave no numbers"),
    "nothing": (lambda points: None, r"gave shape \(\)"),
    "ragged": (lambda points: [[1.0], *([[1.0, 2.0]] * 24)], "gave no numbers"),
}


@pytest.mark.parametrize("what", UNANSWERED)
def test_a_simulator_must_answer_each_point(what):
    simulator, said = UNANSWERED[what]
    with pytest.raises(ValueError, match=rf"^A simulator expected to answer each of 25 points {said}\.$"):
        Remembered(simulator)(POINTS)


def test_a_simulator_must_answer_every_point_alike():
    remembered = Remembered(lambda points: np.ones((len(points), 1 + (len(points) > 1))))
    remembered(POINTS[:1])
    with pytest.raises(ValueError, match=r"^A simulator gave shape \(1,\) of a point, and then shape \(2,\)\.$"):
        remembered(POINTS)


NOT_GIVEN = {
    "none": ({}, "ovens expected a simulator as 'simulator', got none."),
    "a number": ({"simulator": 3}, "ovens expected 'simulator' to be a function of points, got 3."),
    "text": ({"simulator": "curve"}, "ovens expected 'simulator' to be a function of points, got 'curve'."),
}


@pytest.mark.parametrize("what", NOT_GIVEN)
def test_a_simulator_must_be_a_function(what):
    options, sentence = NOT_GIVEN[what]
    with pytest.raises(FrameError) as error:
        given("ovens", "simulator", SIMULATOR, options)
    assert str(error.value) == sentence


def test_a_simulator_is_recognised_by_its_answers():
    again = restored(asked(curve, POINTS), {"simulator": SIMULATOR}, {"simulator": lambda p: curve(p) * (1 + 1e-12)})
    np.testing.assert_allclose(again["simulator"](POINTS), curve(POINTS))


OTHERS = {
    "other values": (lambda p: 1.1 * curve(p), r"at \(0\.511822, 0\.950464\) it gives 1\.1e\+09, and gave 1e\+09"),
    "in the small one": (
        lambda p: curve(p) * [1, 1.1],
        r"at \(0\.511822, 0\.950464\) it gives 0\.4252\d+, and gave 0\.3865\d+",
    ),
    "shape": (lambda p: curve(p)[:, :1], "of a point it gives 1 value, and gave 2"),
    "undefined": (lambda p: np.where(p[:, :1] > 0.5, np.nan, curve(p)), r"at \(.*\) it gives nan, and gave 1e\+09"),
}


@pytest.mark.parametrize("what", OTHERS)
def test_another_simulator_is_refused_in_a_sentence(what):
    simulator, said = OTHERS[what]
    with pytest.raises(ValueError, match=rf"^'simulator' is not the simulator of the fit: {said}\.$"):
        restored(asked(curve, POINTS), {"simulator": SIMULATOR}, {"simulator": simulator})


def test_an_infinite_answer_hides_no_other_simulator():
    def pole(points):
        return np.where(points[:, 0] == POINTS[0, 0], np.inf, points[:, 1])

    restored(asked(pole, POINTS), {"simulator": SIMULATOR}, {"simulator": pole})
    with pytest.raises(ValueError, match="is not the simulator of the fit"):
        restored(asked(pole, POINTS), {"simulator": SIMULATOR}, {"simulator": lambda p: pole(p) + 1})


def test_an_undefined_answer_is_recognised():
    nowhere = lambda points: np.full(len(points), np.nan)  # noqa: E731
    restored(asked(nowhere, POINTS), {"simulator": SIMULATOR}, {"simulator": nowhere})


@pytest.mark.parametrize("again", [{}, {"simulator": None}, {"simulator": "curve"}])
def test_a_fit_cannot_store_a_simulator(again):
    with pytest.raises(ValueError, match=r"^This needs new simulations, .*: give it again as 'simulator'\.$"):
        restored(asked(curve, POINTS), {"simulator": SIMULATOR}, again)


def test_a_second_frame_comes_back_as_it_was_stored():
    days = pd.DataFrame({"class": ["1a", "1b"], "days": [30, 40], "teacher": ["Ann", "Bo"]})
    kept = given("absences", "days", DAYS, {"days": days})
    back = restored(stored(xr.Dataset(), {"days": kept}), {"days": DAYS}, {})["days"]
    pd.testing.assert_frame_equal(back, days[["class", "days"]])


def test_a_second_frame_given_again_takes_the_place_of_the_stored_one():
    days = pd.DataFrame({"class": ["1a"], "days": [30.0]})
    more = pd.DataFrame({"class": ["1a", "9z"], "days": [30.0, 50.0]})
    data = stored(xr.Dataset(), {"days": days})
    assert restored(data, {"days": DAYS}, {"days": more})["days"] is more


BAD_FRAMES = {
    "none": ({}, r"absences expected a frame with columns class, days as 'days', got none"),
    "a path": ({"days": "days.csv"}, r"absences, 'days' expected a pandas DataFrame, got str"),
    "column": (
        {"days": pd.DataFrame({"class": ["1a"], "day": [30]})},
        r"absences, 'days' expected a column 'days' \(days of school \[days\]\), got 'class', 'day'\. "
        r"The nearest it has is 'day'",
    ),
    "cell": (
        {"days": pd.DataFrame({"class": ["1a", "1b"], "days": [30, -1]})},
        r"absences, 'days': column 'days' expected a finite number above 0, got -1 in row 1 \(1b\)",
    ),
}


@pytest.mark.parametrize("what", BAD_FRAMES)
def test_a_second_frame_is_named_where_it_is_wrong(what):
    options, said = BAD_FRAMES[what]
    with pytest.raises(FrameError, match=rf"^{said}\.$"):
        given("absences", "days", DAYS, options)
