"""A label is the same label whatever type it came in, and never another one."""

import unicodedata

import numpy as np
import pandas as pd
import pytest

from hbm_zoo.frames.labels import alike, like, normal, numbers, text
from hbm_zoo.frames.rules import FrameError, check, key, label

SAME = {
    "integers": ([1, 2, 3], [1, 2, 3]),
    "whole floats": ([1.0, 2.0, 3.0], [1, 2, 3]),
    "floats of 32 bits": (np.array([1, 2], np.float32), [1, 2]),
    "nullable integers": (pd.array([1, 2], dtype="Int64"), [1, 2]),
    "categories of floats": (pd.Categorical([2.0, 1.0]), [2, 1]),
    "not all whole": ([1.0, 2.5], [1.0, 2.5]),
    "numbers among text": ([1, 2.0, 2.5, "A"], ["1", "2", "2.5", "A"]),
    "leading zeros": (["001", "1"], ["001", "1"]),
    "space around": ([" A", "A ", "A"], ["A", "A", "A"]),
    "either Unicode form": (["né", unicodedata.normalize("NFD", "né")], ["né", "né"]),
    "what nobody sees": (["A\u200b", "\ufeffA", "St\u00a0Mary", "St Mary"], ["A", "A", "St Mary", "St Mary"]),
    "beyond the whole numbers of a float": ([1e300, 1.0], [1e300, 1.0]),
    "infinite": ([np.inf, 1.0], [np.inf, 1.0]),
}


@pytest.mark.parametrize("case", SAME)
def test_a_normal_form_is_the_label_and_its_own_normal_form(case):
    came, expected = SAME[case]
    got = normal(pd.Series(came))
    assert got.tolist() == expected
    assert list(map(type, got.tolist())) == list(map(type, expected))
    pd.testing.assert_series_equal(normal(got), got)
    assert text(got).tolist() == text(pd.Series(came)).tolist()


def test_text_is_equal_where_labels_are():
    assert text(pd.Series([1.0, 2.0])).equals(text(pd.Series(["1", "2"])))
    assert text(pd.Series([1.0, np.nan])).isna().tolist() == [False, True]
    assert text(pd.Series([2**60 + 1])).tolist() == [str(2**60 + 1)]


@pytest.mark.parametrize("came", [[1, 2], [1.0, 2.0], ["1", "2"], ["001", "02"], ["1.0", "+2"]])
def test_where_the_known_are_numbers_a_number_in_text_is_that_number(came):
    got = like(pd.Series(came), np.array([1, 2, 3]))
    assert got.tolist() == [1, 2]
    assert got.dtype == int


@pytest.mark.parametrize("came", [["001", "1e0"], ["001", "x"], ["001", "1_0"], ["001", "2.5"]])
def test_what_is_no_number_of_the_known_kind_stays_text_with_all_beside_it(came):
    assert like(pd.Series(came), np.array([1, 2, 3])).tolist() == ["1", came[1]]


def test_where_the_known_are_text_zeros_count():
    assert like(pd.Series(["001", 1, 1.0]), np.array(["001", "2"])).tolist() == ["001", "1", "1"]


def test_labels_become_numbers_only_where_nothing_is_lost():
    assert numbers(pd.Series(["1", "2"]), np.dtype(int)).tolist() == [1, 2]
    for lost in (["001"], ["1e3"], ["1", "new 1"], ["300"]):
        assert numbers(pd.Series(lost), np.dtype(np.uint8)).tolist() == lost
    assert numbers(pd.Series(["1e3", "inf"]), np.dtype(float)).tolist() == ["1e3", "inf"]


@pytest.mark.parametrize("twice", [[1.0, "1"], ["A", "A "], ["né", unicodedata.normalize("NFD", "né")]])
def test_one_label_in_two_types_is_there_twice(twice):
    with pytest.raises(FrameError, match="expected each value once, got .* in rows 0, 1"):
        check(pd.DataFrame({"unit": twice}), {"unit": label("a unit", unique=True)}, "model")


COLUMNS = {"campaign": label("a campaign", unique=True), "batch": label("a batch", unique=True)}
BOTH = tuple(COLUMNS)


@pytest.mark.parametrize("column", BOTH)
@pytest.mark.parametrize("ambiguous", ["A /", "/ 1", "/", "A / B", "A / "])
def test_a_slash_that_could_join_is_refused(column, ambiguous):
    frame = pd.DataFrame({"campaign": ["A", "B"], "batch": ["1", "2"]}, index=["x", "y"])
    frame.loc["y", column] = ambiguous
    sentence = (
        f"model: column '{column}' expected labels without a slash between spaces or at an end, which joins columns, "
        f"got '{ambiguous.strip()}' in row y."
    )
    for refuse in (lambda: key(frame, BOTH, "model"), lambda: check(frame, COLUMNS, "model", BOTH)):
        with pytest.raises(FrameError) as error:
            refuse()
        assert str(error.value) == sentence


def test_other_slashes_join_in_one_way():
    frame = pd.DataFrame({"campaign": ["A", "A/", "A/B", "/A"], "batch": [1.0, 2.0, 3.0, 4.0]})
    assert key(frame, BOTH, "model").tolist() == ["A / 1", "A/ / 2", "A/B / 3", "/A / 4"]
    assert check(frame, COLUMNS, "model", BOTH)["batch"].tolist() == [1, 2, 3, 4]


def test_labels_alike_but_for_case_spaces_and_form():
    column = pd.Series(["St Mary", "ST  MARY", "St. Mary", "Lake", "lake", "\uff21", "A", "1", 1])
    assert alike(column) == [["St Mary", "ST  MARY"], ["Lake", "lake"], ["\uff21", "A"]]
