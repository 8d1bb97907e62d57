"""What is read out of a fit."""

import json

import numpy as np
import pytest
import xarray as xr

from hbm_zoo.inference.fits import hyperparameters


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
