"""A group's name beside its label: wherever a person reads, and nowhere in the numbers."""

import numpy as np
import pandas as pd
import pytest
import xarray as xr

import hbm_zoo as hz
from hbm_zoo.frames.labels import names
from hbm_zoo.reporting.findings import findings
from hbm_zoo.reporting.tables import groups as groups_table

FRAME = pd.DataFrame(
    {
        "hospital": ["001", "002", "003", "004"],
        "who": ["Memorial", "St. Mary", "Memorial", None],
        "observed": [30, 12, 4, 50],
        "expected": [10.0, 14.0, 5.0, 22.0],
    }
)
CALLED = ["Memorial (001)", "St. Mary", "Memorial (003)", "004"]
HOW = {"draws": 200, "random_seed": 1, "progressbar": False}


@pytest.fixture(scope="module")
def named():
    return hz.fit_poolings("hospital_readmission", FRAME, label="who", **HOW)


def test_numbers_are_those_of_a_fit_without_names(named):
    plain = hz.fit("hospital_readmission", FRAME, **HOW)
    xr.testing.assert_identical(plain["posterior"].to_dataset(), named["partial"]["posterior"].to_dataset())
    table = hz.groups(named)
    assert table.columns[0] == "label"
    assert table["label"].tolist() == ["Memorial", "St. Mary", "Memorial", "004"]
    assert table.index.tolist() == FRAME["hospital"].tolist()


@pytest.mark.parametrize("picture", [hz.plot_poolings, hz.plot_ranks])
def test_rows_of_pictures_are_called_by_name_and_their_label_where_two_share_it(picture, named):
    (axes, *_) = picture(named, kept=["001"]).axes
    assert sorted(text.get_text() for text in axes.get_yticklabels()) == sorted(CALLED)
    assert axes.get_ylabel() == "who"


@pytest.mark.parametrize("picture", [hz.plot_funnel, hz.plot_shrinkage])
def test_points_of_pictures_are_called_by_name(picture, named):
    drawn = ", ".join(text.get_text() for text in picture(named).axes[0].texts)
    assert all(name in drawn for name in CALLED)


def test_estimates_over_heterogeneity_keep_each_name_at_its_line(named):
    fit = named["partial"]
    (above, *_) = hz.plot_estimates_over_heterogeneity(fit).axes
    at = {text.get_text(): text.xy[1] for text in above.texts}
    means = fit["group_summary"]["mean"].values
    np.testing.assert_allclose([at[name] for name in CALLED], means)


@pytest.mark.long
def test_sentences_and_tables_of_a_report_say_both(named):
    found = findings(named, threshold=1.5)
    (said,) = found.standing_out
    assert "Memorial (001)" in said
    moved = abs(found.groups["own"] - found.groups["partial"]).to_numpy().argmax()
    assert f"{CALLED[moved]} moves farthest" in " ".join(found.verdict)
    table, _ = groups_table(found)
    assert table.columns[:4].tolist() == ["hospital", "who", "expected", "own"]
    assert dict(zip(table["hospital"], table["who"], strict=True))["001"] == "Memorial"


@pytest.mark.long
def test_a_group_that_does_not_belong_is_called_by_name():
    rng = np.random.default_rng(2)
    effects = np.r_[rng.normal(0, 0.2, 19), 9.0]
    frame = pd.DataFrame({"clinic": range(20), "effect": effects, "standard_error": 0.2})
    frame["who"], frame["year"] = [*map(str, range(19)), "Far"], rng.normal(2000, 5, 20)
    fit = hz.fit("vaccine_clinics", frame, label="who", moderators=["year"], **HOW)
    checks = hz.check_model(fit)
    assert checks.attrs["outlying"]["partial"][0] == "Far"
    assert "population: Far" in checks.loc[("outlying", "partial"), "verdict"]
    drawn = [text.get_text() for text in hz.plot_moderators(fit).axes[0].texts]
    assert "Far" in ", ".join(drawn)


def test_names_survive_the_disk(named, tmp_path):
    named["partial"].to_netcdf(tmp_path / "fit.nc")
    with xr.open_datatree(tmp_path / "fit.nc") as tree:
        again = hz.groups(tree.load())
    pd.testing.assert_frame_equal(again, hz.groups(named["partial"]), check_index_type=False)


def test_discoveries_carry_the_name():
    frame = pd.DataFrame(
        {
            "gene": [f"g{i}" for i in range(40)],
            "effect": np.r_[np.full(8, 6.0), np.linspace(-1, 1, 32)],
            "standard_error": 1.0,
            "symbol": [f"ABC{i}" for i in range(40)],
        }
    )
    fit = hz.fit("spike_slab_genes", frame, label="symbol", **HOW)
    found = hz.discoveries(fit)
    assert len(found) >= 8
    assert found["label"].tolist() == [f"ABC{gene[1:]}" for gene in found.index]


@pytest.mark.parametrize(
    ("column", "cells", "said"),
    [
        ("whoo", None, "Unknown column of the frame 'whoo'.*Did you mean 'who'"),
        ("who", ["A", "B", "C", "C"], "'who' expected one name a group, got 'B', 'C' for '2'"),
    ],
)
def test_what_is_no_name_of_a_group_is_refused(column, cells, said):
    frame = pd.DataFrame({"hospital": [1, 2, 2, 3], "who": cells or ["A", "B", "B", "C"]})
    with pytest.raises(ValueError, match=said):
        names(frame, column, frame["hospital"])


def test_a_name_in_one_row_of_a_group_is_enough():
    frame = pd.DataFrame({"id": [1, 1, 2], "who": [None, " A ", " "]})
    assert names(frame, "who", frame["id"]).to_dict() == {1: "A", 2: "2"}
