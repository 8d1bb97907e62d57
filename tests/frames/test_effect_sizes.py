"""Effects from counts against statsmodels and metafor; from metafor's own table; what is refused."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from statsmodels.stats.contingency_tables import Table2x2

import hbm_zoo as hz
from hbm_zoo.frames.effect_sizes import from_counts, from_escalc
from hbm_zoo.frames.rules import FrameError

BCG = pd.DataFrame(json.loads((Path(__file__).parents[1] / "reference" / "bcg_vaccine.json").read_text())["counts"])
SMALL = pd.DataFrame(
    {
        "clinic": ["A", "B", "C"],
        "events_treated": [3, 0, 0],
        "total_treated": [10, 12, 20],
        "events_control": [5, 4, 0],
        "total_control": [11, 12, 20],
    }
)


def table(row):
    treated = [row.events_treated, row.total_treated - row.events_treated]
    return Table2x2(np.array([treated, [row.events_control, row.total_control - row.events_control]]))


def test_bcg_counts_give_the_shipped_effects():
    shipped = hz.load_data("bcg_vaccine")[["clinic", "effect", "standard_error"]]
    pd.testing.assert_frame_equal(from_counts(BCG), shipped, rtol=1e-8, check_dtype=False)


@pytest.mark.parametrize(
    ("measure", "effect", "error"),
    [
        ("log_risk_ratio", "log_riskratio", "log_riskratio_se"),
        ("log_odds_ratio", "log_oddsratio", "log_oddsratio_se"),
    ],
)
def test_ratios_are_statsmodels(measure, effect, error):
    tables = [table(row) for row in BCG.itertuples()]
    found = from_counts(BCG, measure)
    np.testing.assert_allclose(found["effect"], [getattr(t, effect) for t in tables], rtol=1e-12)
    np.testing.assert_allclose(found["standard_error"], [getattr(t, error) for t in tables], rtol=1e-12)


def test_risk_difference_is_the_difference_of_two_proportions():
    found = from_counts(SMALL.head(1), "risk_difference")
    p, q = 3 / 10, 5 / 11
    np.testing.assert_allclose(found["effect"], p - q)
    np.testing.assert_allclose(found["standard_error"], np.sqrt(p * (1 - p) / 10 + q * (1 - q) / 11))


def test_a_zero_cell_is_corrected_in_that_trial_only_and_said():
    with pytest.warns(UserWarning, match=r"added 0.5 to the four cells of 1 of 2 trials \(B\)"):
        found = from_counts(SMALL.head(2), "log_odds_ratio")
    expected = [np.log(3 * 6 / (7 * 5)), np.log(0.5 * 8.5 / (12.5 * 4.5))]
    np.testing.assert_allclose(found["effect"], expected, rtol=1e-12)


def test_a_trial_without_any_event_is_left_out_of_a_ratio_and_named():
    with (
        pytest.warns(UserWarning, match=r"added 0.5"),
        pytest.warns(UserWarning, match=r"left out 1 of 3 trials \(C\)"),
    ):
        assert from_counts(SMALL)["clinic"].tolist() == ["A", "B"]
    with pytest.warns(UserWarning, match=r"2 of 3 trials \(B, C\)"):
        assert from_counts(SMALL, "risk_difference")["clinic"].tolist() == ["A", "B", "C"]


def test_impossible_counts_are_named():
    with pytest.raises(FrameError, match="12 events of 10 in 'A'"):
        from_counts(SMALL.assign(events_treated=[12, 0, 0]))
    with pytest.raises(FrameError, match="'total_control' expected a whole number, 0 or more.*, got 11.5 in row 0"):
        from_counts(SMALL.assign(total_control=[11.5, 12, 20]))
    with pytest.raises(ValueError, match="Did you mean 'log_odds_ratio'"):
        from_counts(SMALL, "odds_ratio")


def test_metafors_table_is_read_as_it_is():
    escalc = pd.DataFrame({"trial": ["x", "y"], "yi": [-0.5, 0.1], "vi": [0.04, 0.09]})
    assert from_escalc(escalc).values.tolist() == [["x", -0.5, 0.2], ["y", 0.1, 0.3]]
    assert from_escalc(escalc.drop(columns="trial"))["clinic"].tolist() == [1, 2]
    with pytest.raises(FrameError, match="'vi' expected a finite number above 0, got an empty cell in row 0"):
        from_escalc(escalc.assign(vi=[np.nan, 0.09]))


def test_a_label_that_is_asked_for_must_be_there():
    escalc = pd.DataFrame({"study": ["x", "y"], "yi": [-0.5, 0.1], "vi": [0.04, 0.09]})
    assert from_escalc(escalc, label="study")["clinic"].tolist() == ["x", "y"]
    with pytest.raises(ValueError, match="Unknown column 'stdy'.*Did you mean 'study'"):
        from_escalc(escalc, label="stdy")
