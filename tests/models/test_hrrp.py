"""The published file: expected counts, what is withheld, which hospitals are kept."""

import io
import warnings

import numpy as np
import pandas as pd
import pytest

import hbm_zoo as hz
from hbm_zoo.frames.rules import FrameError, FrameWarning

HEADER = (
    "Facility Name,Facility ID,State,Measure Name,Number of Discharges,Footnote,Excess Readmission Ratio,"
    "Predicted Readmission Rate,Expected Readmission Rate,Number of Readmissions,Start Date,End Date"
)
DATES = "07/01/2020,06/30/2023"
ROWS = [
    f'"ST. MARY, NORTH",010001,AL,READM-30-HF-HRRP,400,,1.0500,21.0000,20.0000,90,{DATES}',
    f"LAKE,01014F,AL,READM-30-HF-HRRP,300,,0.9000,19.3500,21.5000,60,{DATES}",
    f"SMALL,010008,AL,READM-30-HF-HRRP,60,,0.9700,19.0000,20.0000,12,{DATES}",
    f"HIDDEN,010009,AL,READM-30-HF-HRRP,N/A,,0.9700,19.0000,20.0000,Too Few to Report,{DATES}",
    f"NOTHING,010010,AL,READM-30-HF-HRRP,N/A,5,N/A,N/A,N/A,N/A,{DATES}",
    f"LAKE,01014F,AL,READM-30-AMI-HRRP,200,,0.9000,12.0000,14.0000,30,{DATES}",
]


@pytest.fixture
def published():
    return pd.read_csv(io.StringIO("\n".join([HEADER, *ROWS])), dtype=str, keep_default_na=False)


def quietly(*given, **options):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FrameWarning)
        return hz.hospital_readmission.from_hrrp(*given, **options)


def test_expected_is_discharges_times_the_expected_rate_and_never_the_published_ratio(published):
    frame = quietly(published, measure="READM-30-HF-HRRP")
    assert frame["hospital"].tolist() == ["010001 ST. MARY, NORTH", "01014F LAKE"]
    np.testing.assert_allclose(frame["expected"], [400 * 0.20, 300 * 0.215])
    assert frame["observed"].tolist() == [90, 60]


def test_a_frame_read_with_pandas_defaults_is_the_same(published):
    assert published["Facility ID"].iloc[0] == "010001"
    defaults = pd.read_csv(io.StringIO("\n".join([HEADER, *[row for row in ROWS if "LAKE" not in row]])))
    assert defaults["Facility ID"].iloc[0] == 10001  # the zero is lost
    assert quietly(defaults, least_expected=10)["hospital"].tolist() == ["010001 ST. MARY, NORTH", "010008 SMALL"]


def test_hospitals_are_left_out_by_their_expected_count(published):
    assert len(quietly(published, "HF", least_expected=12)) == 3
    assert len(quietly(published, "HF", least_expected=12.01)) == 2


def test_the_outcome_does_not_decide_who_is_kept(published):
    other = published.assign(**{"Number of Readmissions": published["Number of Readmissions"].replace("12", "59")})
    assert quietly(other, "HF")["hospital"].tolist() == quietly(published, "HF")["hospital"].tolist()


@pytest.mark.parametrize("measure", ["READM-30-HF-HRRP", "readm-30-hf-hrrp", "HF", "hf"])
def test_a_measure_may_be_named_shortly(published, measure):
    assert len(quietly(published, measure)) == 2


def test_several_measures_are_listed(published):
    with pytest.raises(ValueError, match="several measures.*READM-30-AMI-HRRP, READM-30-HF-HRRP"):
        quietly(published)


def test_an_unknown_measure_names_the_nearest(published):
    with pytest.raises(ValueError, match="Did you mean 'READM-30-HF-HRRP'"):
        quietly(published, "READM-30-HF-HRPP")


def test_the_poisson_s_overstatement_is_said_with_its_number(published):
    p = (90 + 60) / (400 + 300)
    with pytest.warns(FrameWarning) as caught:
        frame = hz.hospital_readmission.from_hrrp(published, "HF")
    said = [str(w.message) for w in caught]
    assert any(f"{100 * p:.1f} %" in s and f"{1 / (1 - p):.2f}" in s for s in said)
    assert all(s in frame.attrs["notes"] for s in said)


def test_more_than_one_percent_withheld_is_said(published):
    with pytest.warns(FrameWarning) as caught:
        hz.hospital_readmission.from_hrrp(published, "HF")
    assert any("1 of 3 hospitals (33.3 %) have no published count" in str(w.message) for w in caught)


def test_up_to_one_percent_withheld_is_not(published):
    many = pd.concat([published[:1].assign(**{"Facility ID": f"{i:06d}"}) for i in range(150)] + [published])
    with pytest.warns(FrameWarning) as caught:
        hz.hospital_readmission.from_hrrp(many, "HF")
    assert not any("no published count" in str(w.message) for w in caught)


@pytest.mark.parametrize("name", ["Facility ID", "Number of Discharges", "Expected Readmission Rate"])
def test_a_missing_column_is_named(published, name):
    with pytest.raises(FrameError, match=f"there is no '{name}'"):
        quietly(published.drop(columns=name), "HF")


def test_a_cell_that_is_neither_number_nor_withheld_is_named(published):
    published.loc[1, "Number of Readmissions"] = "6O"
    with pytest.raises(FrameError, match="'Number of Readmissions' expected a whole number or N/A, got '6O' in row 1"):
        quietly(published, "HF")


def test_nothing_left_is_refused(published):
    with pytest.raises(FrameError, match="at least 500 expected"):
        quietly(published, "HF", least_expected=500)


def test_the_record_lists_the_reader():
    record = hz.hospital_readmission.MODEL
    assert record.extras.readers["hrrp"] is hz.hospital_readmission.from_hrrp


def test_counts_are_whole_and_no_more_than_discharges(published):
    column = published["Number of Readmissions"]
    with pytest.raises(FrameError, match="expected a whole number or N/A, got '60.5' in row 1"):
        quietly(published.assign(**{"Number of Readmissions": column.replace("60", "60.5")}), "HF")
    with pytest.raises(FrameError, match="no more than the discharges, got more in row 1"):
        quietly(published.assign(**{"Number of Readmissions": column.replace("60", "301")}), "HF")
    with pytest.raises(ValueError, match="least_expected to be a number"):
        quietly(published, "HF", least_expected="many")


def test_every_hospital_left_out_is_counted(published):
    notes = quietly(published, "HF").attrs["notes"]
    assert any("1 hospitals have neither a count nor an expected rate" in note for note in notes)


def test_a_count_without_discharges_is_not_called_withheld(published):
    published.loc[1, "Number of Discharges"] = "N/A"
    notes = quietly(published, "HF").attrs["notes"]
    assert any("1 hospitals have a count, but no number of discharges" in note for note in notes)
    assert any("1 of 2 hospitals (50.0 %) have no published count" in note for note in notes)


def test_files_of_other_years_and_decimal_commas_are_the_same_hospitals(published):
    def read(frame, measure="HF"):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return hz.hospital_readmission.from_hrrp(frame, measure, least_expected=0)

    rate, today = "Expected Readmission Rate", read(published)
    old = {"Facility Name": "Hospital Name", "Facility ID": "Provider Number"}
    snake = {name: name.lower().replace(" ", "_") for name in published.columns}
    for same in (
        published.rename(columns=old),
        published.rename(columns=snake),
        published.assign(**{rate: published[rate].str.replace(".", ",")}),
    ):
        pd.testing.assert_frame_equal(read(same), today)
    under = published.assign(**{"Measure Name": published["Measure Name"].str.replace("-", "_")})
    pd.testing.assert_frame_equal(read(under, "READM-30-HF-HRRP"), today)


def test_a_rate_above_100_percent_is_refused(published):
    above = published.assign(**{"Expected Readmission Rate": "200.0"})
    with pytest.raises(FrameError, match="'Expected Readmission Rate' expected a number of percent, 0 to 100 or N/A"):
        hz.hospital_readmission.from_hrrp(above, "HF")


def test_a_column_that_is_not_there_has_a_nearest_name(published):
    with pytest.raises(FrameError, match="there is no 'Measure Name'. The nearest it has is 'Mesure Name'"):
        hz.hospital_readmission.from_hrrp(published.rename(columns={"Measure Name": "Mesure Name"}))
