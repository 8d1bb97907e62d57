"""Bad input: the right result or one clear sentence, never a wrong number."""

import numpy as np
import pandas as pd
import pytest

import hbm_zoo as hz
from hbm_zoo.frames.rules import FrameError, FrameWarning
from hbm_zoo.models.hospital_readmission import MODEL

GOOD = {"hospital": ["B", "A", "C"], "observed": [6, 2, 48], "expected": [4.0, 4.0, 40.0]}
COUNT = "hospital_readmission: column 'observed' expected a whole number, 0 or more and at most 2,000,000,000, got "
POSITIVE = "hospital_readmission: column 'expected' expected a finite number above 0, got "
LABEL = "hospital_readmission: column 'hospital' expected a label, not empty, got "
HAVE = "got 'hospital', 'observed', "


def frame(**replaced):
    return pd.DataFrame(GOOD | replaced)


REFUSED = {
    "missing column": (
        frame().rename(columns={"expected": "Expcted"}),
        "hospital_readmission expected a column 'expected' (readmissions expected from the case mix [patients]), "
        + HAVE
        + "'Expcted'. The nearest it has is 'Expcted'.",
    ),
    "missing column, nothing near": (
        frame().rename(columns={"expected": "zz"}),
        "hospital_readmission expected a column 'expected' (readmissions expected from the case mix [patients]), "
        + HAVE
        + "'zz'. Frames of other kinds are read by hospital_readmission.from_hrrp.",
    ),
    "not a frame": (GOOD, "hospital_readmission expected a pandas DataFrame, got dict."),
    "empty frame": (frame().iloc[:0], "hospital_readmission expected at least one row, got an empty frame."),
    "one hospital": (frame().iloc[:1], "hospital_readmission expected at least 2 hospitals to compare, got 1."),
    "column twice": (
        pd.concat([frame(), frame()[["observed"]]], axis=1),
        "hospital_readmission expected one column 'observed', got 2 of that name.",
    ),
    "NaN count": (frame(observed=[6, np.nan, 48]), COUNT + "an empty cell in row 1 (A)."),
    "None in text column": (frame(observed=[6, None, "x"]), COUNT + "an empty cell in row 1 (A); 'x' in row 2 (C)."),
    "nullable integer": (
        frame(observed=pd.array([6, None, 48], dtype="Int64")),
        COUNT + "an empty cell in row 1 (A).",
    ),
    "text in a number": (frame(observed=[6, "2", 48]), COUNT + "'2' in row 1 (A)."),
    "negative count": (frame(observed=[6, -2, 48]), COUNT + "-2 in row 1 (A)."),
    "fractional count": (frame(observed=[6, 2.5, 48]), COUNT + "2.5 in row 1 (A)."),
    "infinite count": (frame(observed=[6, np.inf, 48]), COUNT + "inf in row 1 (A)."),
    "count that would wrap in 32 bits": (frame(observed=[6, 3_000_000_000, 48]), COUNT + "3000000000 in row 1 (A)."),
    "count that would wrap in 64 bits": (frame(observed=[6, 1e19, 48]), COUNT + "1e+19 in row 1 (A)."),
    "booleans": (frame(observed=[True, 2, 48]), COUNT + "True in row 0 (B)."),
    "complex": (
        frame(expected=[4 + 0j, 4 + 1j, 40]),
        POSITIVE + "(4+0j) in row 0 (B); (4+1j) in row 1 (A); (40+0j) in row 2 (C).",
    ),
    "expected zero": (frame(expected=[4.0, 0.0, 40.0]), POSITIVE + "0.0 in row 1 (A)."),
    "expected negative": (frame(expected=[4.0, -1.0, 40.0]), POSITIVE + "-1.0 in row 1 (A)."),
    "expected infinite": (frame(expected=[4.0, np.inf, 40.0]), POSITIVE + "inf in row 1 (A)."),
    "expected NaN": (frame(expected=[4.0, np.nan, 40.0]), POSITIVE + "an empty cell in row 1 (A)."),
    "what programs write for nothing": (
        frame(expected=[4.0, 9.97e36, 40.0]),
        "hospital_readmission: column 'expected' expected numbers of one unit, got 9.97e+36 in row 1 (A) where their "
        "median size is 40: what programs write for a missing number? Leave such rows out.",
    ),
    "next to nothing": (
        frame(expected=[4.0, 1e-300, 40.0]),
        "hospital_readmission: column 'expected' expected numbers of one unit, got 1e-300 in row 1 (A) where their "
        "median size is 4: what programs write for a missing number? Leave such rows out.",
    ),
    "two columns at fault": (
        frame(observed=[6, -2, 48], expected=[4.0, 4.0, 0.0]),
        COUNT + "-2 in row 1 (A). " + POSITIVE + "0.0 in row 2 (C).",
    ),
    "rows by the caller's index": (
        frame(observed=[6, -2, -3]).set_axis(["x", "y", "z"]),
        COUNT + "-2 in row y (A); -3 in row z (C).",
    ),
    "repeated index": (
        frame(observed=[6, -2, -3]).set_axis(["x", "y", "y"]),
        COUNT + "-2 in row y (A); -3 in row y (C).",
    ),
    "many rows": (
        pd.DataFrame({"hospital": range(9), "observed": [-1] * 9, "expected": [1.0] * 9}),
        COUNT + "-1 in row 0 (0); -1 in row 1 (1); -1 in row 2 (2); -1 in row 3 (3); -1 in row 4 (4) and 4 more rows.",
    ),
    "duplicated hospital": (
        frame(hospital=["B", "A", "B"]),
        "hospital_readmission: column 'hospital' expected each value once, got 'B' in rows 0, 2.",
    ),
    "duplicated across types": (
        frame(hospital=[1, "1", "B"]),
        "hospital_readmission: column 'hospital' expected each value once, got 1 in rows 0, 1.",
    ),
    "hospital missing": (frame(hospital=["B", None, "C"]), LABEL + "an empty cell in row 1."),
    "hospital blank": (frame(hospital=["B", " ", "C"]), LABEL + "' ' in row 1."),
    "categorical hospital missing": (
        frame(hospital=pd.Categorical(["B", None, "C"])),
        LABEL + "an empty cell in row 1.",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_one_sentence_says_what_is_wrong(case):
    given, sentence = REFUSED[case]
    with pytest.raises(FrameError) as error:
        MODEL.data(given)
    assert str(error.value) == sentence


ACCEPTED = {
    "unsorted labels": (frame(), ["B", "A", "C"]),
    "integer labels": (frame(hospital=[30, 10, 20]), [30, 10, 20]),
    "mixed-type labels": (frame(hospital=[1, "A", 2.5]), ["1", "A", "2.5"]),
    "categorical labels": (frame(hospital=pd.Categorical(["B", "A", "C"])), ["B", "A", "C"]),
    "categorical integers": (frame(hospital=pd.Categorical([3, 1, 2])), [3, 1, 2]),
    "unused categories": (
        frame(hospital=pd.Categorical(["B", "A", "C"], categories=["Z", "C", "A", "B"])),
        ["B", "A", "C"],
    ),
    "nullable integers": (frame(observed=pd.array([6, 2, 48], dtype="Int64")), ["B", "A", "C"]),
    "whole floats": (frame(observed=[6.0, 2.0, 48.0]), ["B", "A", "C"]),
    "small unsigned integers": (frame(observed=np.array([6, 2, 48], dtype=np.uint8)), ["B", "A", "C"]),
    "further columns": (frame(region=["n", None, "s"]), ["B", "A", "C"]),
    "any index": (frame().set_axis(["r", "r", "s"]), ["B", "A", "C"]),
    "arrow": (frame().convert_dtypes(dtype_backend="pyarrow"), ["B", "A", "C"]),
}


@pytest.mark.parametrize("case", ACCEPTED)
def test_each_hospital_keeps_its_own_numbers(case):
    given, labels = ACCEPTED[case]
    before = given.copy()
    data = MODEL.data(given)
    assert data.hospital.values.tolist() == labels
    assert data.observed.values.tolist() == [6, 2, 48]
    assert data.expected.values.tolist() == [4.0, 4.0, 40.0]
    pd.testing.assert_frame_equal(given, before)


def test_a_column_that_may_be_missing_and_is_misspelt_is_named():
    """Without its column another model would be fitted; a column of another name is none of the model's."""
    cells = pd.DataFrame({"tissue": [*"aabb"], "expression": [1.0, 2.0, 3.0, 5.0], "lab": [*"xyxy"]})
    with pytest.warns(FrameWarning, match=r"column 'Gene' is not used. If it is 'gene' \(.*\), call it so"):
        hz.tissue_expression.MODEL.data(cells.assign(Gene="TP53"))
    hz.tissue_expression.MODEL.data(cells)


def test_a_file_that_was_read_twice_is_said():
    """Not that some rows are alike, and not where a column tells them apart."""
    rows = pd.DataFrame({"tissue": ["liver", "heart", "heart"], "expression": [8.0, 9.0, 9.0]})
    twice = pd.concat([rows, rows])
    with pytest.warns(FrameWarning, match="tissue_expression: every row is there more than once"):
        hz.tissue_expression.MODEL.data(twice)
    beside = pd.DataFrame([[1, [2], "a"], [None, [3], 4.0], [1, [2], "b"]] * 2, columns=["note", "note", "of any kind"])
    with pytest.warns(FrameWarning, match="every row is there more than once"):
        hz.tissue_expression.MODEL.data(pd.concat([twice.reset_index(drop=True), beside], axis=1))
    counts = pd.DataFrame({"tissue": ["liver"] * 5 + ["heart"] * 4, "expression": [1.0, 1, 2, 2, 2, 3, 3, 4, 4]})
    for told_apart in (rows, twice.assign(donor=range(6)), counts, counts.set_index("tissue", drop=False)):
        hz.tissue_expression.MODEL.data(told_apart)


def test_expected_in_another_unit():
    with pytest.raises(ValueError, match=r"56 / 4800 = 0.0117 overall.*another unit\? Rescale 'expected'"):
        hz.fit("hospital_readmission", frame(expected=[400.0, 400.0, 4000.0]))


@pytest.mark.parametrize(
    ("wrong", "sentence"),
    [
        ({"pooling": "parti"}, "Unknown pooling 'parti': .* Did you mean 'partial'?"),
        ({"parameterization": "noncentred"}, "Unknown parameterization .* Did you mean 'noncentered'?"),
        ({"pooling": "none", "parameterization": "marginalized"}, "Unknown parameterization .* one of centered"),
        ({"target_acept": 0.9}, "Did you mean 'target_accept'?"),
        ({"draws": 0}, "draws must be a whole number, 1 or more, got 0"),
        ({"chains": 2.5}, "chains must be a whole number, 1 or more, got 2.5"),
        ({"tune": -1}, "tune must be a whole number"),
    ],
)
def test_names_and_sizes_are_checked_before_sampling(wrong, sentence):
    with pytest.raises(ValueError, match=sentence):
        hz.fit("hospital_readmission", frame(), **wrong)


def test_unknown_model_gives_the_nearest():
    with pytest.raises(ValueError, match="Did you mean 'hospital_readmission'?"):
        hz.fit("hospital_readmision", frame())
