"""Control limits against SciPy, and who is beyond them."""

from dataclasses import replace

import numpy as np
import pytest
import xarray as xr
from scipy import stats

import hbm_zoo as hz


@pytest.mark.parametrize("probability", [0.95, 0.998])
def test_beyond_hospital_limits_lies_no_more_than_chance_leaves_there(probability):
    """With whole counts no limit has exactly the probability: within is the last count that is likely enough."""
    expected, target, tail = np.geomspace(0.003, 5000, 200), 1.1, (1 - probability) / 2
    lower, upper = (
        limit * expected for limit in hz.hospital_readmission.MODEL.extras.control_limits(target, expected, probability)
    )
    below, above = np.ceil(lower - 1e-9) - 1, np.floor(upper + 1e-9)
    mean = target * expected
    assert np.all(stats.poisson.cdf(below, mean) <= tail)
    assert np.all(stats.poisson.sf(above, mean) <= tail)
    assert np.all((below < 0) | (stats.poisson.cdf(below + 1, mean) > tail - 1e-12))
    assert np.all(stats.poisson.sf(above - 1, mean) > tail - 1e-12)
    for limit, q in ((lower[-1], tail), (upper[-1], 1 - tail)):
        np.testing.assert_allclose(limit, mean[-1] + stats.norm.ppf(q) * np.sqrt(mean[-1]), rtol=2e-3)


def test_clinic_limits_are_normal_quantiles():
    precision = np.array([0.5, 4.0, 90.0])
    lower, upper = hz.vaccine_clinics.MODEL.extras.control_limits(-0.4, precision, 0.95)
    np.testing.assert_allclose(lower, stats.norm.ppf(0.025, -0.4, precision**-0.5))
    np.testing.assert_allclose(upper, stats.norm.ppf(0.975, -0.4, precision**-0.5))


def test_points_limits_and_target(heart_fits):
    figure = hz.plot_funnel(heart_fits)
    drawn = {line.get_label(): line for line in figure.axes[0].lines}
    summary = heart_fits["partial"]["group_summary"]
    target = heart_fits["complete"]["group_summary"]["mean"].values[0]
    for label, name in (("own estimate", "own"), ("partial pooling", "mean")):
        np.testing.assert_array_equal(drawn[label].get_xydata(), np.column_stack([summary["volume"], summary[name]]))
    x, lower = drawn["95 % limits"].get_data()
    np.testing.assert_array_equal(lower, hz.hospital_readmission.MODEL.extras.control_limits(target, x, 0.95)[0])
    assert any(set(line.get_ydata()) == {target} for line in figure.axes[0].lines)


def test_title_counts_and_names_those_beyond(heart_fits):
    """An exact count by SciPy: the probability of a count so large or so small, one hospital at a time."""
    assert hz.plot_funnel(heart_fits).get_suptitle().startswith("0 of 94 hospitals lie beyond")
    fits = {name: fit.copy(deep=True) for name, fit in heart_fits.items()}
    own = fits["partial"]["group_summary"]["own"].values
    own[10], own[93] = 60.0, 2.9
    figure = hz.plot_funnel(fits)
    assert figure.get_suptitle().startswith("2 of 94 hospitals lie beyond")
    assert {text.get_text() for text in figure.axes[0].texts} == {"11", "94", "complete pooling"}


def test_what_has_no_funnel_is_refused(three_hospitals_fits):
    record = hz.hospital_readmission.MODEL
    other = replace(record, extras=replace(record.extras, control_limits=None))
    with pytest.raises(ValueError, match="hospital_readmission has no control limits"):
        hz.plot_funnel(three_hospitals_fits, model=other)
    lines = {name: fit.copy(deep=True) for name, fit in three_hospitals_fits.items()}
    for fit in lines.values():
        summary = fit["group_summary"].to_dataset()
        fit["group_summary"] = xr.DataTree(summary.expand_dims(coefficient=["intercept", "slope"], axis=1))
    with pytest.raises(ValueError, match="hospital_readmission has no control limits"):
        hz.plot_funnel(lines, model=other)
    with pytest.raises(ValueError, match="needs fits of complete and of partial pooling; got partial"):
        hz.plot_funnel(three_hospitals_fits["partial"])
