"""Bubbles lie where the groups lie, the line where the population is expected."""

import numpy as np
import pandas as pd
import pytest
import xarray as xr

import hbm_zoo as hz
from hbm_zoo.inference.fits import hyperparameters
from hbm_zoo.plots import moderators as pictures


@pytest.fixture(scope="module")
def fit():
    frame = hz.load_data("bcg_vaccine")
    return hz.fit("vaccine_clinics", frame, moderators=["latitude", "allocation"], random_seed=1, progressbar=False)


def test_a_number_has_bubbles_by_precision_and_a_line(fit):
    frame, (axes,) = hz.load_data("bcg_vaccine"), hz.plot_moderators(fit, ["latitude"]).axes
    (bubbles,) = [c for c in axes.collections if c.get_label().startswith("own estimate")]
    np.testing.assert_allclose(bubbles.get_offsets(), frame[["latitude", "effect"]], atol=1e-12)
    areas = bubbles.get_sizes() - 8
    np.testing.assert_allclose(areas / areas.max(), (frame["standard_error"].min() / frame["standard_error"]) ** 2)
    (line,) = [line for line in axes.lines if line.get_label() == "mean of the population"]
    h, (x, y) = hyperparameters(fit), line.get_data()
    np.testing.assert_allclose(y, [(h.mu + h.beta_latitude * (at - frame["latitude"].mean())).mean() for at in x])
    assert axes.get_xlabel() == "latitude"


def test_a_category_has_an_interval_a_level_and_groups_in_their_own(fit):
    frame, (axes,) = hz.load_data("bcg_vaccine"), hz.plot_moderators(fit, ["allocation"]).axes
    assert [tick.get_text() for tick in axes.get_xticklabels()] == ["alternate", "random", "systematic"]
    (bubbles,) = [c for c in axes.collections if c.get_label().startswith("own estimate")]
    where = frame["allocation"].map({"alternate": 0, "random": 1, "systematic": 2})
    np.testing.assert_allclose(bubbles.get_offsets()[:, 0], where, atol=1e-12)
    (means,) = [line for line in axes.lines if line.get_marker() == "_"]
    shares = frame["allocation"].value_counts(normalize=True)
    h = hyperparameters(fit)
    b, c = h["beta_allocation[random]"], h["beta_allocation[systematic]"]
    average = h.mu - b * shares["random"] - c * shares["systematic"]
    np.testing.assert_allclose(means.get_ydata(), [average.mean(), (average + b).mean(), (average + c).mean()])


def test_every_moderator_has_a_panel_and_others_are_refused_by_the_nearest_name(fit):
    assert len(hz.plot_moderators(fit).axes) == 2
    with pytest.raises(ValueError, match="Did you mean 'latitude'"):
        hz.plot_moderators(fit, ["latitud"])
    plain = hz.fit("vaccine_clinics", hz.load_data("bcg_vaccine"), pooling="none", random_seed=1)
    with pytest.raises(ValueError, match="needs a fit of partial pooling with moderators"):
        hz.plot_moderators(plain)


OPTIONS = [
    ("vaccine_clinics", {"population": "student-t"}),
    ("hospital_readmission", {"noise": "poisson"}),
    ("hospital_readmission", {"noise": "binomial"}),
    ("success_rates", {"population": "beta"}),
    ("success_rates", {"population": "logit-normal"}),
    ("tissue_expression", {"population": "student-t"}),
    ("tissue_expression", {"sigma": "by tissue"}),
    ("tissue_expression", {"noise": "student-t"}),
]


@pytest.mark.parametrize(("model", "options"), OPTIONS)
def test_the_population_is_drawn_under_every_option(model, options, monkeypatch):
    """At its mean location the line has the mean of what is reported of a group that was not seen."""
    record = hz.MODELS[model].MODEL.under(**options)
    frame, _ = record.simulate(np.random.default_rng(3))
    label = record.labels(frame)
    age = dict(zip(label.unique(), np.linspace(40, 60, label.nunique()), strict=True))
    record, rest = record.split({"moderators": ["age"], **options}, frame.assign(age=label.map(age)))
    data = record.data(frame.assign(age=label.map(age)), **rest)
    h = {"mu": [0.3, 0.6], record.heterogeneity: [0.4, 0.2], "sigma": [0.7, 0.5], "s_sigma": [0.3, 0.4]}
    h |= {"nu_above_2": [3.0, 9.0], "beta_age": [0.02, -0.03]}
    h = xr.Dataset({name: ("sample", values) for name, values in h.items() if name in record.parameters})
    monkeypatch.setattr(pictures, "prepared", lambda fit: data)
    monkeypatch.setattr(pictures, "hyperparameters", lambda fit: h)
    drawn = pictures._population(record, None, record.moderators[0], pd.Series([40.0, 50.0, 60.0]), [0])
    median = medians(data, record.group)
    there = record.group_level.of_groups(h.assign(beta_age=0 * h.beta_age), median)
    np.testing.assert_allclose(*xr.broadcast(drawn.mean.isel({record.group: 1}), there.mean.isel({record.group: 0})))
    assert (np.diff(drawn.mean.transpose("sample", ...).values) * np.sign([[0.02], [-0.03]]) > 0).all()


def medians(data, group):
    """One group whose numbers are the medians of all."""
    return data.assign(
        {n: (group, np.full(v.size, np.median(v))) for n, v in data.data_vars.items() if v.dims == (group,)}
    )
