"""Arrows from own estimates to partial pooling, towards the population mean."""

import numpy as np
import pytest

import hbm_zoo as hz


def arrows(axes):
    return [text for text in axes.texts if text.arrow_patch is not None and not text.get_text()]


def test_an_arrow_a_group_from_own_to_partial(heart_fits):
    axes = hz.plot_shrinkage(heart_fits).axes[0]
    summary = heart_fits["partial"]["group_summary"]
    drawn = np.array([(*arrow.xyann, arrow.xy[1]) for arrow in arrows(axes)])
    expected = np.column_stack([summary[name].values for name in ("volume", "own", "mean")])
    assert len(drawn) == 94
    np.testing.assert_array_equal(drawn[np.lexsort(drawn.T)], expected[np.lexsort(expected.T)])


def test_target_is_the_population_mean_not_complete_pooling(three_hospitals_fits):
    axes = hz.plot_shrinkage(three_hospitals_fits).axes[0]
    mu = float(three_hospitals_fits["partial"]["posterior"]["mu"].mean())
    complete = three_hospitals_fits["complete"]["group_summary"]["mean"].values[0]
    heights = sorted({line.get_ydata()[0] for line in axes.lines})
    np.testing.assert_allclose(heights, sorted([mu, complete]), rtol=1e-12)
    named = {text.get_text(): text.xy[1] for text in axes.texts if text.get_text()}
    assert named["target: population mean"] == pytest.approx(mu)
    assert named["complete pooling"] == pytest.approx(complete)


def test_points_grow_with_the_data(three_hospitals_fits):
    own, partial = hz.plot_shrinkage(three_hospitals_fits).axes[0].collections
    size = dict(zip(own.get_offsets()[:, 0], own.get_sizes(), strict=True))
    assert size[40.0] > size[4.0]
    np.testing.assert_array_equal(own.get_sizes(), partial.get_sizes())


def test_partial_pooling_alone_is_enough_and_needed(three_hospitals_fits):
    alone = hz.plot_shrinkage({"partial": three_hospitals_fits["partial"]}).axes[0]
    assert "complete pooling" not in [text.get_text() for text in alone.texts]
    with pytest.raises(ValueError, match="needs a fit of partial pooling; got none, complete"):
        hz.plot_shrinkage({name: three_hospitals_fits[name] for name in ("none", "complete")})


def test_groups_of_one_size_stand_side_by_side():
    frame = hz.load_data("three_hospitals").assign(expected=8.0)
    fit = hz.fit("hospital_readmission", frame, random_seed=1, progressbar=False)
    axes = hz.plot_shrinkage({"partial": fit}).axes[0]
    assert axes.collections[0].get_offsets()[:, 0].tolist() == [1, 2, 3]
    assert [label.get_text() for label in axes.get_xticklabels()] == ["Smaller", "Small", "Large"]
    assert "expected: 8 each" in axes.get_xlabel()


def test_a_batch_is_pulled_to_its_campaign():
    fit = hz.fit("material_batches", hz.load_data("pastes"), random_seed=1, progressbar=False)
    dashes = hz.plot_shrinkage({"partial": fit}).axes[0].collections[0].get_offsets()[:, 1]
    of_batch = fit["group_summary"].to_dataset().sortby("own")
    campaigns = hz.groups(fit, level="campaign")["partial"]
    expected = [campaigns[str(label).split(" / ")[0]] for label in of_batch["batch"].values]
    np.testing.assert_allclose(dashes, expected, rtol=1e-6)
