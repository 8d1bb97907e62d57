"""From population to person: bands are those of the tables, and narrower the more is known."""

import numpy as np
import pandas as pd
import pytest

import hbm_zoo as hz

COHORT = hz.population_pk.MODEL.under(route="iv").simulate(
    np.random.default_rng(3), patients=6, times=(1.0, 4.0, 12.0, 24.0), fewest=3
)[0]
ROWS = pd.DataFrame(
    {
        "patient": "new",
        "time": [20.0, 0.0, 2.0],
        "amount": [np.nan, 320.0, np.nan],
        "concentration": [6.0, np.nan, 9.0],
        "weight": 60.0,
    }
)


@pytest.fixture(scope="module")
def cohort():
    """Complete pooling: a population without spread, known at once."""
    options = {"route": "iv", "typical_CL": 2.8, "typical_V": 32.0, "typical_sd": 0.5}
    return hz.fit("population_pk", COHORT, "complete", draws=200, random_seed=1, progressbar=False, **options)


def test_a_panel_after_each_number_of_samples(cohort):
    figure = hz.plot_personalised(cohort, ROWS, after=(0, 2))
    assert [axes.get_title("left") for axes in figure.axes] == ["0 samples", "2 samples"]
    assert [len(axes.collections) for axes in figure.axes] == [1, 2]
    filled = [line for line in figure.axes[1].lines if line.get_label() == "sample used"]
    np.testing.assert_allclose(filled[0].get_xydata(), [[2.0, 9.0], [20.0, 6.0]])
    times = figure.axes[1].lines[1].get_xdata()
    table = hz.population_pk.curve(hz.population_pk.personalise(cohort, ROWS), list(times))
    np.testing.assert_allclose(figure.axes[1].lines[1].get_ydata(), table["median"])


@pytest.mark.parametrize("after", [(3,), (), (-1, 0)])
def test_samples_that_are_not_there_are_refused(cohort, after):
    with pytest.raises(ValueError, match="numbers of samples from 0 to 2"):
        hz.plot_personalised(cohort, ROWS, after=after)
