"""Bubbles lie where the groups lie, the line where the population is expected."""

import numpy as np
import pytest

import hbm_zoo as hz
from hbm_zoo.inference.fits import hyperparameters


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
