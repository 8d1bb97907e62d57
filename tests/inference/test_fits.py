"""What is read out of a fit."""

import json

import numpy as np
import pytest
import xarray as xr

import hbm_zoo as hz
from hbm_zoo.inference.fits import check_together, hyperparameters, options, settings
from hbm_zoo.inference.fitting import attributes


def fit_with(mu):
    tree = xr.DataTree.from_dict({"posterior": xr.Dataset({"mu": mu})})
    tree.attrs = {"fixed": json.dumps({"tau": 0.5}), "hyperparameters": json.dumps(["mu", "tau"])}
    return tree


def test_hyperparameters_are_draws_and_what_the_pooling_fixed():
    h = hyperparameters(fit_with((("chain", "draw"), np.arange(6.0).reshape(2, 3))))
    assert h.mu.values.tolist() == list(range(6))
    assert (h.tau == 0.5).all()


def test_a_hyperparameter_by_group_is_refused():
    """In chunks of groups each would meet another's data, in silence."""
    with pytest.raises(
        ValueError, match="one number a draw; these have clinic as well.*placed by the group level's `at`"
    ):
        hyperparameters(fit_with((("chain", "draw", "clinic"), np.zeros((2, 3, 4)))))


def test_what_is_no_fit_is_refused_by_its_type():
    with pytest.raises(ValueError, match="Expected fits made by hbm_zoo.fit, one or a dict of them, got str"):
        check_together("partial")


@pytest.mark.parametrize(
    ("given", "shown"), [({}, ""), ({"noise": "poisson"}, ""), ({"noise": "binomial"}, "noise = binomial")]
)
def test_an_option_that_makes_the_model_of_the_page_is_not_repeated(given, shown):
    record = hz.hospital_readmission.MODEL.under(**given)
    data = record.data(hz.load_data("simulated_discharges"))
    fit = xr.DataTree()
    fit.attrs |= attributes(record, data, "complete", record.priors(data))
    assert settings(fit) == shown
    assert options(fit)["noise"] == given.get("noise", "poisson")
