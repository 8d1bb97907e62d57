"""NONMEM data sets: what is read, and what is refused by its name."""

import numpy as np
import pandas as pd
import pytest

import hbm_zoo as hz
from hbm_zoo.frames.rules import FrameError

from_nonmem = hz.population_pk.from_nonmem
ROWS = pd.DataFrame(
    {
        "ID": [1, 1, 1, 2, 2, 2],
        "TIME": [0, 1.5, 4, 0, 2, 3],
        "AMT": ["100", ".", ".", "50", ".", "."],
        "DV": [".", "3.2", "2.9", ".", "1.1", "."],
        "EVID": [1, 0, 0, 1, 0, 0],
        "MDV": [1, 0, 0, 1, 0, 1],
        "RATE": [50, 0, 0, 0, 0, 0],
        "WT": [70, 70, 70, 62, 62, 62],
    }
)


def test_rows_are_events():
    frame = from_nonmem(ROWS)
    assert frame["patient"].tolist() == [1, 1, 1, 2, 2]
    np.testing.assert_array_equal(frame["amount"], [100, np.nan, np.nan, 50, np.nan])
    np.testing.assert_array_equal(frame["duration"], [2, np.nan, np.nan, np.nan, np.nan])
    np.testing.assert_array_equal(frame["concentration"], [np.nan, 3.2, 2.9, np.nan, 1.1])
    assert frame.attrs["notes"] == ["1 of 6 rows hold neither a dose nor a sample (MDV, EVID) and are left out."]
    data = hz.population_pk.MODEL.under(route="iv").data(frame, typical_CL=2.0, typical_V=20.0, typical_sd=1.0)
    assert data.size_V.values.tolist() == [1.0, 62 / 70]


def test_without_evid_an_amount_is_a_dose():
    plain = from_nonmem(ROWS[["ID", "TIME", "AMT", "DV"]].iloc[:5])
    assert plain["amount"].notna().tolist() == [True, False, False, True, False]


@pytest.mark.parametrize(
    ("column", "row", "value", "sentence"),
    [
        ("ADDL", 0, 3, "column 'ADDL' expected nothing or 0: further doses that have no row are not read, got 3"),
        ("II", 0, 12, "column 'II' expected nothing or 0"),
        ("SS", 3, 1, "column 'SS' expected nothing or 0: a steady state .* in row 3"),
        ("EVID", 3, 4, "column 'EVID' expected 0, 1 or 2: a reset is not read, got 4 in row 3"),
        ("RATE", 0, -2, "column 'RATE' expected 0 or above: a rate that is modelled"),
        ("AMT", 0, ".", "column 'AMT' expected a dose above 0 where EVID is 1"),
        ("DV", 1, "BLQ", "column 'DV' expected a number, got 'BLQ' in row 1"),
        ("TIME", 1, "08:30", "column 'TIME' expected a number, got '08:30' in row 1"),
    ],
)
def test_what_is_not_read_is_refused_by_its_name(column, row, value, sentence):
    frame = ROWS.assign(**({} if column in ROWS else {column: 0})).astype({column: object} if column in ROWS else {})
    frame[column] = frame[column].astype(object)
    frame.loc[row, column] = value
    with pytest.raises(FrameError, match=sentence):
        from_nonmem(frame)


def test_a_missing_column_is_named():
    with pytest.raises(FrameError, match="got none named DV"):
        from_nonmem(ROWS.drop(columns="DV"))
