"""The gradients of each year and of the next: what is drawn is what the tables say."""

import numpy as np
import pytest

import hbm_zoo as hz
from hbm_zoo.plots.style import COLOURS


@pytest.fixture(scope="module")
def partial():
    return hz.fit("selection_gradients", hz.load_data("selection_gradients"), random_seed=1, progressbar=False)


def test_points_are_those_of_the_tables(partial):
    figure, years = hz.plot_selection(partial), hz.selection_gradients.by_year(partial)
    over = hz.selection_gradients.over_years(partial)
    assert len(figure.axes) == 2
    for axes, trait in zip(figure.axes, ("beak_depth", "mass"), strict=True):
        drawn = {line.get_label(): line.get_ydata() for line in axes.lines}
        rows = years.xs(trait, level="trait")
        np.testing.assert_array_equal(drawn["estimate of the year alone"], rows["own"])
        np.testing.assert_array_equal(drawn["partial pooling"], rows["beta"])
        assert drawn["a year never seen"] == over.loc[(trait, "next year"), "mean"]
        share = 100 * over.loc[(trait, "years of opposite sign"), "mean"]
        assert f"of gradients {share:.0f} % are expected to" in axes.get_title(loc="left")
    labels = [label.get_text() for label in figure.axes[1].get_xticklabels()]
    assert labels == [*map(str, range(1990, 2006)), "next"]


def test_complete_pooling_is_named_and_coloured_as_such():
    frame = hz.load_data("selection_gradients")
    fit = hz.fit("selection_gradients", frame[frame["trait"] == "mass"], "complete", random_seed=1, progressbar=False)
    (axes,) = hz.plot_selection(fit).axes
    drawn = {line.get_label(): line.get_color() for line in axes.lines}
    assert drawn["complete pooling"] == COLOURS["complete"]


def test_no_pooling_has_no_such_picture():
    fit = hz.fit("selection_gradients", hz.load_data("selection_gradients"), "none", random_seed=1)
    with pytest.raises(ValueError, match="No pooling"):
        hz.plot_selection(fit)
