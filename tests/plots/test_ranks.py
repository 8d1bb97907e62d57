"""Ranks, and how little they are known, as the summary has them."""

import numpy as np
import pytest

import hbm_zoo as hz
from hbm_zoo.plots.ranks import _own_rank


def test_ranks_and_chances_are_the_summarys(heart_fits):
    figure = hz.plot_ranks(heart_fits)
    ranks, chances = figure.axes
    summary = heart_fits["partial"]["group_summary"].to_dataset()
    rows = summary.isel(hospital=np.argsort(summary["rank"].values, kind="stable"))
    drawn = {line.get_label(): line for line in (*ranks.lines, *chances.lines)}
    np.testing.assert_array_equal(drawn["mean rank, interval"].get_xdata(), rows["rank"])
    np.testing.assert_array_equal(drawn["P(among first 9)"].get_xdata(), rows["p_top10"])
    np.testing.assert_array_equal([bar.get_width() for bar in chances.patches], rows["p_best"])
    ends = np.array([segment[:, 0] for segment in ranks.collections[0].get_segments()])
    np.testing.assert_array_equal(ends, np.column_stack([rows["rank_eti89_lb"], rows["rank_eti89_ub"]]))
    assert [label.get_text() for label in ranks.get_yticklabels()] == [str(h) for h in rows["hospital"].values]


def test_the_first_row_is_on_top(three_hospitals_fits):
    axes = hz.plot_ranks(three_hospitals_fits).axes[0]
    bottom, top = axes.get_ylim()
    assert bottom > top
    assert axes.get_yticklabels()[0].get_text() in ("Small", "Large")


def test_title_says_how_little_is_known(heart_fits):
    summary = heart_fits["partial"]["group_summary"]
    places = int(np.median(summary["rank_eti89_ub"] - summary["rank_eti89_lb"] + 1))
    assert f"cover {places} or more of 94 places" in hz.plot_ranks(heart_fits).axes[0].get_title()


def test_own_ranks():
    np.testing.assert_array_equal(_own_rank(np.array([0.2, 3.0, np.nan, 0.2, 1.0])), [3.5, 1, np.nan, 3.5, 2])


def test_complete_pooling_ranks_nobody(three_hospitals_fits):
    with pytest.raises(ValueError, match="needs a fit that tells groups apart; got complete"):
        hz.plot_ranks(three_hospitals_fits["complete"])
