"""What the verbs of `model_discrepancy` share: whose fit it is, which formulas are its, and the same without a rig."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import cache
from types import ModuleType

import xarray as xr

from hbm_zoo.diagnostics.new_rows import options_again
from hbm_zoo.group_level import any_simulator, discrepancy_level
from hbm_zoo.inference.fits import model_of, prepared, priors_of
from hbm_zoo.inference.fitting import attributes
from hbm_zoo.inference.sampling import TUNE, sample
from hbm_zoo.model import HierarchicalModel

#: Draws of the hyperparameters of which tables are made.
DRAWS = 2000
#: What the simulator taken for the truth has of a discrepancy.
NOTHING = {"a": 0.0, "ell": 1.0, "a_own": 0.0}
#: Whose formulas hold where discrepancies are not shared.
FORMULAS = {"apart": any_simulator}


def checked(fit: xr.DataTree, model: HierarchicalModel | None = None) -> HierarchicalModel:
    """The record of a fit of `model_discrepancy`.

    Raises
    ------
    ValueError
        If it is of another model.
    """
    record = model_of(fit, model)
    if not {"m", "s", "sigma", "a", "ell"} <= set(record.parameters):
        raise ValueError(f"This is of fits of model_discrepancy, got one of {record.name}.")
    return record


def formulas_of(record: HierarchicalModel) -> ModuleType:
    """Those that hold for a record's discrepancies."""
    return FORMULAS.get(record.chosen["discrepancy"], discrepancy_level)


def options_of(record: HierarchicalModel, fit: xr.DataTree, simulator: Callable | None) -> dict:
    """What the rows of a fit were prepared with, and its simulator, if it had one of its own."""
    return options_again(record, fit, {} if simulator is None else {"simulator": simulator})


def taken_for_the_truth(fit: xr.DataTree, model: HierarchicalModel | None = None) -> xr.DataTree:
    """The same data and priors with the simulator taken for the truth: draws of the hyperparameters alone.

    Parameters
    ----------
    fit : xarray.DataTree
        A fit of ``model_discrepancy``.
    model : HierarchicalModel, optional
        The record of a model that is not in the zoo.

    Returns
    -------
    xarray.DataTree
        What ``fit(discrepancy="none")`` of the frame of the fit draws under the fit's priors, settings and seed.

    Raises
    ------
    ValueError
        If the fit is of another model.

    Examples
    --------
    >>> import hbm_zoo as hz
    >>> frame = hz.load_data("simulated_rig").query("specimen == 'S1'")
    >>> alone = hz.fit("model_discrepancy", frame, "none", random_seed=1, progressbar=False)
    >>> list(taken_for_the_truth(alone)["posterior"].data_vars)
    ['sigma']
    """
    record, data, pooling = _undisputed(checked(fit, model)), prepared(fit), fit.attrs["pooling"]
    priors = priors_of(fit)
    numbers = {name: int(fit.attrs[name]) for name in ("draws", "chains", "seed")}
    settings = {**numbers, "tune": int(fit.attrs.get("tune", TUNE)), "engine": "auto"}
    tree = sample(record, data, pooling, None, priors, settings, False, {})
    tree.attrs |= attributes(record, data, pooling, priors) | {"seed": numbers["seed"]}
    tree["constant_data"] = xr.DataTree(data)
    return tree


@cache
def _undisputed(record: HierarchicalModel) -> HierarchicalModel:
    """The record with no discrepancy of any size."""
    nothing = {name: value for name, value in NOTHING.items() if name in record.parameters}

    def fixed_too(pooling):
        return lambda priors, data: record.fixed[pooling](priors, data) | nothing

    return replace(record, fixed={pooling: fixed_too(pooling) for pooling in record.fixed})
