"""A line a group from complete pooling on, the posterior below on the same axis."""

import numpy as np
import pytest

import hbm_zoo as hz
from hbm_zoo.diagnostics.heterogeneity import estimates_over_heterogeneity


def test_a_line_a_group_over_the_posterior(three_hospitals_fits):
    fit = three_hospitals_fits["partial"]
    above, below = hz.plot_estimates_over_heterogeneity(fit).axes
    over = estimates_over_heterogeneity(fit)
    t = over["heterogeneity"].values
    curves = [line for line in above.lines if len(line.get_xdata()) == t.size]
    assert len(curves) == 3
    np.testing.assert_array_equal(curves[1].get_ydata(), over["estimate"].isel(hospital=1))
    assert above.get_xlim() == below.get_xlim()
    density = below.lines[0].get_xydata()
    assert np.trapezoid(density[:, 1], density[:, 0]) == pytest.approx(1)
    bars = np.array([bar.get_height() * bar.get_width() for bar in below.patches])
    assert bars.sum() == pytest.approx(1)


def test_complete_pooling_at_the_left_and_the_fit_at_the_right(three_hospitals_fits):
    fit = three_hospitals_fits["partial"]
    drawn = {line.get_label(): line for line in hz.plot_estimates_over_heterogeneity(fit).axes[0].lines}
    left = drawn["complete pooling"].get_xydata()[0]
    complete = three_hospitals_fits["complete"]["group_summary"]
    assert left[0] == 0
    assert left[1] == pytest.approx(complete["mean"].values[0], abs=0.1 * complete["sd"].values[0])
    right = drawn["partial pooling: the average"].get_ydata()
    np.testing.assert_array_equal(right, fit["group_summary"]["mean"].values)


def test_chosen_groups(heart_fits):
    figure = hz.plot_estimates_over_heterogeneity(heart_fits["partial"], groups=[94, "3"])
    assert "2 of 94" in figure.get_suptitle()
    assert [text.get_text() for text in figure.axes[0].texts] in (["94", "3"], ["3", "94"])
    with pytest.raises(ValueError, match="There is no hospital 1000"):
        hz.plot_estimates_over_heterogeneity(heart_fits["partial"], groups=[1000])


def test_other_poolings_are_refused(three_hospitals_fits):
    with pytest.raises(ValueError, match="need partial pooling; got none pooling"):
        hz.plot_estimates_over_heterogeneity(three_hospitals_fits["none"])
