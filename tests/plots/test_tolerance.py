"""The bound over the batches that it was learned from: what is drawn is what the tables say."""

import numpy as np
import pytest

import hbm_zoo as hz
from hbm_zoo.diagnostics.material_batches import NEXT, tolerance_bound
from hbm_zoo.plots.style import COLOURS


@pytest.fixture(scope="module")
def alloy():
    return hz.fit("material_batches", hz.load_data("simulated_alloy"), random_seed=1, progressbar=False)


@pytest.mark.parametrize(("of", "side"), [(NEXT, "upper"), ("specimens of new batches", "lower")])
def test_line_share_and_rows(alloy, of, side):
    figure = hz.plot_tolerance_bound(alloy, of=of, side=side)
    bound = tolerance_bound(alloy, of=of, side=side)[side].iloc[0]
    above, below = figure.axes
    assert all(any(set(line.get_xdata()) == {bound} for line in axes.lines) for axes in figure.axes)
    x, density = above.lines[0].get_data()
    beyond = x < bound if side == "lower" else x > bound
    assert density[beyond].sum() / density.sum() == pytest.approx(0.05, abs=0.01)
    summary = alloy["group_summary"].dataset
    drawn = {label.get_text(): label.get_position()[1] for label in below.get_yticklabels()}
    assert list(drawn) == summary["batch"].values.tolist()
    points = [line.get_xydata()[0] for line in below.lines if line.get_label() == "partial pooling"]
    np.testing.assert_allclose(
        sorted(points, key=lambda p: p[1]), list(zip(summary["mean"].values, range(22), strict=True))
    )


def test_complete_pooling_is_named_and_coloured_as_such():
    fit = hz.fit("material_batches", hz.load_data("simulated_alloy"), "complete", random_seed=1, progressbar=False)
    drawn = {line.get_label(): line.get_color() for line in hz.plot_tolerance_bound(fit).axes[1].lines}
    assert drawn["complete pooling"] == COLOURS["complete"]
    assert "partial pooling" not in drawn


def test_an_interval_has_no_such_picture(alloy):
    with pytest.raises(ValueError, match="side"):
        hz.plot_tolerance_bound(alloy, side="both")


def test_a_picture_makes_the_promise_that_the_table_makes(alloy):
    """What the table takes the picture takes, whatever it is called."""
    promise = {"content": 0.99, "confidence": 0.9, "campaign": "C1", "side": "upper"}
    bound = tolerance_bound(alloy, **promise)["upper"].iloc[0]
    figure = hz.plot_tolerance_bound(alloy, **promise)
    assert all(any(set(line.get_xdata()) == {bound} for line in axes.lines) for axes in figure.axes)
    assert "99 % quantile" in figure.axes[0].get_title(loc="left")
    with pytest.raises(TypeError, match="contents"):
        hz.plot_tolerance_bound(alloy, contents=0.99)
