"""What holds for every picture: a Figure nobody else holds, the user's names, the same from a fit on disk."""

import matplotlib as mpl
import numpy as np
import pytest
import xarray as xr
from matplotlib import pyplot
from matplotlib.figure import Figure
from matplotlib.text import Text

import hbm_zoo as hz
from hbm_zoo.plots.style import COLOURS, SMALL, evenly, label_edge, name_points
from hbm_zoo.words import POOLINGS

mpl.use("Agg")

PICTURES = {
    "poolings": hz.plot_poolings,
    "shrinkage": hz.plot_shrinkage,
    "funnel": hz.plot_funnel,
    "ranks": hz.plot_ranks,
    "heterogeneity": lambda fits: hz.plot_estimates_over_heterogeneity(fits["partial"]),
}


@pytest.fixture(scope="module")
def loaded(three_hospitals_fits, tmp_path_factory):
    """The three fits, written to disk and read again."""
    folder = tmp_path_factory.mktemp("fits")
    fits = {}
    for name, fit in three_hospitals_fits.items():
        fit.to_netcdf(folder / f"{name}.nc")
        with xr.open_datatree(folder / f"{name}.nc") as tree:
            fits[name] = tree.load()
    return fits


def content(figure):
    """Every number and word drawn, by axes."""
    return [
        (
            [line.get_xydata() for line in axes.lines],
            [np.asarray(c.get_offsets()) for c in axes.collections],
            [text.get_text() for text in (*axes.texts, *axes.get_yticklabels(), axes.xaxis.label, axes.yaxis.label)],
        )
        for axes in figure.axes
    ]


@pytest.mark.parametrize("picture", PICTURES)
def test_a_figure_that_pyplot_does_not_hold(picture, three_hospitals_fits, tmp_path):
    figure = PICTURES[picture](three_hospitals_fits)
    assert isinstance(figure, Figure)
    assert pyplot.get_fignums() == []
    figure.savefig(tmp_path / "picture.png")
    assert (tmp_path / "picture.png").stat().st_size > 10_000


@pytest.mark.parametrize("picture", PICTURES)
def test_names_are_the_users(picture, three_hospitals_fits):
    drawn = {text for _, _, texts in content(PICTURES[picture](three_hospitals_fits)) for text in texts}
    assert {"Small", "Smaller", "Large"} <= drawn


@pytest.mark.parametrize("picture", PICTURES)
def test_a_fit_from_disk_gives_the_same_picture(picture, three_hospitals_fits, loaded):
    np.testing.assert_equal(content(PICTURES[picture](loaded)), content(PICTURES[picture](three_hospitals_fits)))


@pytest.mark.parametrize("picture", ["poolings", "shrinkage", "funnel", "ranks"])
def test_fits_of_other_data_are_refused(picture, three_hospitals_fits, heart_fits):
    with pytest.raises(ValueError, match="do not belong together"):
        PICTURES[picture]({"partial": heart_fits["partial"], "complete": three_hospitals_fits["complete"]})


@pytest.mark.parametrize("picture", PICTURES)
def test_nothing_is_drawn_behind_the_legend(picture, heart_fits):
    figure = PICTURES[picture](heart_fits)
    figure.canvas.draw()
    (legend,) = figure.legends
    box = legend.get_window_extent()
    assert all(not box.overlaps(axes.get_window_extent()) for axes in figure.axes)
    assert 0 <= box.x0
    assert box.x1 <= figure.bbox.x1


def test_each_pooling_has_a_colour_and_a_word():
    assert set(POOLINGS) == set(COLOURS) - {"own"} == {"none", "complete", "partial", "empirical_bayes"}
    assert len(set(COLOURS.values())) == len(COLOURS)


def test_evenly_keeps_both_ends():
    assert evenly(np.arange(1000), 100)[[0, -1]].tolist() == [0, 999]
    assert evenly(np.arange(7), 100).tolist() == list(range(7))


def test_labels_at_the_edge_keep_their_order_and_their_distance():
    figure = Figure(figsize=(5, 4))
    axes = figure.subplots()
    heights = [0.5, 0.501, 0.502, 0.9]
    axes.plot([0, 1], [0, 1])
    label_edge(axes, heights, ["c", "b", "a", "far"])
    at = {text.get_text(): text.xyann[1] for text in axes.texts}
    assert at["c"] < at["b"] < at["a"] < at["far"]
    assert at["far"] == pytest.approx(0.9)
    pixels = np.sort(axes.transData.transform([(0, y) for y in at.values()])[:, 1])
    assert np.diff(pixels).min() > SMALL / 72 * figure.dpi


def test_many_points_in_one_place_are_named_by_a_few_and_counted():
    axes = Figure().subplots()
    name_points(axes, np.full(7, 2.0), np.full(7, 5.0), [*"abcdefg"])
    assert [text.get_text() for text in axes.texts] == ["a, b, c and 4 more"]


def test_points_in_one_place_share_a_name_and_near_ones_make_room():
    figure = Figure(figsize=(6, 4))
    axes = figure.subplots()
    axes.set(xlim=(0, 10), ylim=(0, 10))
    name_points(axes, np.array([2.0, 2.0, 2.1, 9.9]), np.array([5.0, 5.0, 5.05, 5.0]), ["p", "q", "near", "edge"])
    texts = {text.get_text(): text for text in axes.texts}
    assert set(texts) == {"p, q", "near", "edge"}
    assert texts["edge"].get_ha() == "right"
    figure.draw_without_rendering()
    assert not texts["p, q"].get_window_extent().overlaps(Text.get_window_extent(texts["near"]))


def test_no_label_of_many_points_covers_another_and_one_far_from_its_point_is_led_to_it():
    """Thirty points, each label wider than the way to the next point: one that moves up meets those moved before."""
    figure = Figure(figsize=(7, 5))
    axes = figure.subplots()
    axes.set(xlim=(0, 40), ylim=(0, 30))
    x = np.arange(30.0)
    name_points(axes, x, 12 - 0.1 * x, [f"Memorial Hospital {i}" for i in range(30)])
    figure.draw_without_rendering()
    boxes = [Text.get_window_extent(text) for text in axes.texts]  # without its leader
    assert not [(i, j) for i, one in enumerate(boxes) for j, other in enumerate(boxes[:i]) if one.overlaps(other)]
    led = [text.arrow_patch is not None for text in axes.texts]
    assert 0 < sum(led) < len(led)
