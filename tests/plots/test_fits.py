"""Pictures in the space of the data, and of coefficients in pairs, show what the fits hold."""

import numpy as np
import pandas as pd
import pytest
from matplotlib.colors import to_rgba
from matplotlib.patches import Ellipse
from scipy import stats

import hbm_zoo as hz
from hbm_zoo.plots.style import COLOURS


@pytest.fixture(scope="module")
def lines_fits():
    return hz.fit_poolings("reaction_norms", hz.load_data("sleepstudy"), draws=200, random_seed=1, progressbar=False)


def test_each_panel_has_its_rows_and_the_lines_through_them(lines_fits):
    frame = hz.load_data("sleepstudy")
    figure = hz.plot_fits(lines_fits)
    assert {axes.get_title() for axes in figure.axes} == set(frame["genotype"].astype(str))
    for axes in figure.axes:
        drawn = {line.get_label(): line for line in axes.lines}
        rows = frame[frame["genotype"].astype(str) == axes.get_title()]
        np.testing.assert_allclose(drawn["data"].get_xdata(), rows["environment"])
        np.testing.assert_allclose(drawn["data"].get_ydata(), rows["response"])
        for name, word in (("none", "no pooling"), ("complete", "complete pooling"), ("partial", "partial pooling")):
            theta = (
                lines_fits[name]["posterior"]["theta"].sel(genotype=rows["genotype"].iloc[0]).mean(("chain", "draw"))
            )
            x = drawn[word].get_xdata()
            line = theta.sel(coefficient="intercept").item() + theta.sel(coefficient="slope").item() * (
                x - frame["environment"].mean()
            )
            np.testing.assert_allclose(drawn[word].get_ydata(), line)


@pytest.mark.long
def test_concentrations_are_those_of_each_patient_s_doses_at_any_time():
    """Two patients, one dosed twice: the picture's line is the mean over draws of the formula, dose by dose."""
    frame = pd.DataFrame(
        {
            "patient": ["A"] * 4 + ["B"] * 3,
            "time": [0.0, 2.0, 6.0, 8.0, 0.0, 1.0, 5.0],
            "amount": [100.0, np.nan, 50.0, np.nan, 80.0, np.nan, np.nan],
            "concentration": [np.nan, 3.1, np.nan, 3.0, np.nan, 2.9, 2.2],
        }
    )
    typical = {"typical_CL": 3.0, "typical_V": 25.0, "typical_sd": 0.5, "route": "iv"}
    fit = hz.fit("population_pk", frame, pooling="none", draws=100, random_seed=1, progressbar=False, **typical)
    theta = fit["posterior"]["theta"].stack(sample=("chain", "draw"))
    doses = {"A": [(0.0, 100.0), (6.0, 50.0)], "B": [(0.0, 80.0)]}
    for axes in hz.plot_fits({"none": fit}).axes:
        drawn = {line.get_label(): line for line in axes.lines}
        x = drawn["no pooling"].get_xdata()
        CL, V = (np.exp(theta.sel(patient=axes.get_title(), coefficient=name).values[:, None]) for name in ("CL", "V"))
        given = [(x > t) * D / V * np.exp(-CL / V * (x - t).clip(0)) for t, D in doses[axes.get_title()]]
        np.testing.assert_allclose(drawn["no pooling"].get_ydata(), sum(given).mean(axis=0), rtol=1e-10)
    assert {tuple(line.get_xdata()) for axes in hz.plot_fits({"none": fit}).axes for line in axes.lines[:1]} == {
        (2.0, 8.0),
        (1.0, 5.0),
    }


def test_those_that_sharing_moves_farthest_come_first(lines_fits):
    gaps = []
    for axes in hz.plot_fits(lines_fits).axes:
        drawn = {line.get_label(): line.get_ydata() for line in axes.lines}
        gaps.append(abs(drawn["partial pooling"] - drawn["no pooling"]).mean())
    assert gaps == sorted(gaps, reverse=True)
    assert gaps[0] > 3 * gaps[-1]


def test_a_model_without_rows_along_an_axis_has_no_such_picture(heart_fits):
    with pytest.raises(ValueError, match="hospital_readmission has no curve through the rows of each hospital"):
        hz.plot_fits(heart_fits)
    with pytest.raises(ValueError, match="needs several coefficients a group; hospital_readmission has one"):
        hz.plot_coefficients(heart_fits)


def test_ellipses_hold_half_of_the_draws_and_shrink(lines_fits):
    (axes,) = hz.plot_coefficients(lines_fits).axes
    genotypes, areas = hz.load_data("sleepstudy")["genotype"].nunique(), {}
    for name in ("none", "partial"):
        mine = [e for e in axes.patches if np.allclose(e.get_edgecolor()[:3], to_rgba(COLOURS[name])[:3])]
        assert len(mine) == genotypes
        areas[name] = sum(each.width * each.height for each in mine)
        theta = lines_fits[name]["posterior"]["theta"].stack(sample=("chain", "draw")).isel(genotype=0)
        points = theta.transpose("sample", "coefficient").values
        around, inverse = points - points.mean(axis=0), np.linalg.inv(np.cov(points.T))
        inside = np.einsum("si,ij,sj->s", around, inverse, around) < stats.chi2.ppf(0.5, 2)
        turned = np.radians(mine[0].angle)
        axis = np.array([[np.cos(turned), np.sin(turned)], [-np.sin(turned), np.cos(turned)]])
        across = (points - np.array(mine[0].center)) @ axis.T / (np.array([mine[0].width, mine[0].height]) / 2)
        np.testing.assert_array_equal((across**2).sum(axis=1) < 1, inside)
    assert areas["partial"] < areas["none"]
    assert sum(isinstance(patch, Ellipse) and patch.get_linestyle() == "--" for patch in axes.patches) == 1
