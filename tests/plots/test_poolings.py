"""The forest shows the summaries, no more and no less."""

import numpy as np
import pytest
from matplotlib.colors import to_rgba

import hbm_zoo as hz
from hbm_zoo.plots.funnel import beyond_limits
from hbm_zoo.plots.style import COLOURS


def lines(axes):
    return {line.get_label(): line for line in axes.lines}


def test_points_and_intervals_are_the_summaries(heart_fits):
    axes = hz.plot_poolings(heart_fits).axes[0]
    order = np.argsort(heart_fits["partial"]["group_summary"]["mean"].values, kind="stable")
    for name, word in (("none", "no pooling"), ("partial", "partial pooling")):
        summary = heart_fits[name]["group_summary"]
        np.testing.assert_array_equal(lines(axes)[word].get_xdata(), summary["mean"].values[order])
        (collection,) = (c for c in axes.collections if np.allclose(c.get_edgecolor()[0], to_rgba(COLOURS[name])))
        ends = np.array([segment[:, 0] for segment in collection.get_segments()])
        np.testing.assert_array_equal(
            ends, np.column_stack([summary[e].values[order] for e in ("eti89_lb", "eti89_ub")])
        )
    own = heart_fits["none"]["group_summary"]["own"].values[order]
    np.testing.assert_array_equal(lines(axes)["own estimate"].get_xdata(), own)


def test_complete_pooling_is_one_band_for_all(heart_fits):
    axes = hz.plot_poolings(heart_fits).axes[0]
    summary = heart_fits["complete"]["group_summary"]
    (band,) = axes.patches
    assert band.get_x() == summary["eti89_lb"].values[0]
    assert band.get_x() + band.get_width() == pytest.approx(summary["eti89_ub"].values[0])
    assert set(lines(axes)["complete pooling"].get_xdata()) == {summary["mean"].values[0]}


def test_rows_do_not_overlap_and_a_fourth_fit_has_its_own(three_hospitals_fits):
    fourth = three_hospitals_fits["partial"].copy()
    fourth.attrs = three_hospitals_fits["partial"].attrs | {"pooling": "empirical_bayes"}
    axes = hz.plot_poolings(three_hospitals_fits | {"empirical_bayes": fourth}).axes[0]
    drawn = lines(axes)
    assert drawn["empirical Bayes"].get_color() == COLOURS["empirical_bayes"]
    rows = np.sort(np.concatenate([drawn[w].get_ydata() for w in ("no pooling", "partial pooling", "empirical Bayes")]))
    assert np.diff(rows).min() > 0.2


def test_at_most_a_hundred_groups_and_the_title_says_so():
    frame = hz.load_data("simulated_readmissions")
    fits = {"none": hz.fit("hospital_readmission", frame, pooling="none", draws=100, random_seed=1)}
    figure = hz.plot_poolings(fits)
    assert len(figure.axes[0].get_yticks()) == 100
    assert "100 of them" in figure.get_suptitle()
    assert figure.get_suptitle().startswith("300 hospitals")


def test_both_ends_and_what_is_to_be_kept_are_drawn_of_many_groups():
    frame = hz.load_data("simulated_readmissions")
    fits = {"none": hz.fit("hospital_readmission", frame, pooling="none", draws=100, random_seed=1)}
    means = fits["none"]["group_summary"]["mean"].to_series().sort_values(kind="stable")
    middle = list(means.index[148:150])
    figure = hz.plot_poolings(fits, kept=middle)
    drawn = [label.get_text() for label in figure.axes[0].get_yticklabels()]
    assert drawn == [*means.index[:49], *middle, *means.index[-49:]]
    assert "with 2 of the 2 that stand out; 200 between are not drawn" in figure.get_suptitle()


def test_a_funnel_names_what_a_report_keeps(heart_fits):
    title = hz.plot_funnel(heart_fits).get_suptitle()
    assert title.startswith(f"{beyond_limits(heart_fits).size} of ")
    assert beyond_limits({"partial": heart_fits["partial"]}).size == 0
