"""How records and priors travel to other processes: importing this module tells Python's pickle."""

from __future__ import annotations

import copyreg
from collections.abc import Mapping
from functools import lru_cache

import cloudpickle
from pymc_extras.prior import Prior

from hbm_zoo.model import HierarchicalModel
from hbm_zoo.zoo import NAMES, record_of


def of_the_zoo(record: HierarchicalModel) -> bool:
    """Whether a record is one of the zoo, or what its own options make of it."""
    base = record.base or record
    return base.name in NAMES and record_of(base.name) is base


def _by_name(record: HierarchicalModel) -> tuple:
    """How a record travels: one of the zoo by its name and the options that change it, another by value."""
    if of_the_zoo(record):
        return _of_the_zoo, (record.name, dict(record.changed))
    return _of_the_caller, (cloudpickle.dumps(vars(record)),)


def _of_the_zoo(name: str, changed: Mapping[str, str]) -> HierarchicalModel:
    return record_of(name).under(**changed)


@lru_cache
def _of_the_caller(pickled: bytes) -> HierarchicalModel:
    """One record for all its pieces, since a model is compiled once for each record."""
    record = object.__new__(HierarchicalModel)
    vars(record).update(cloudpickle.loads(pickled))
    return record


def _as_declared(prior: Prior) -> tuple:
    """How a prior travels: as it was before a variable was made of it, which leaves a function there that cannot."""
    return _declared, ({name: value for name, value in vars(prior).items() if name != "dim_handler"},)


def _declared(parts: dict) -> Prior:
    prior = object.__new__(Prior)
    vars(prior).update(parts)
    return prior


copyreg.pickle(HierarchicalModel, _by_name)
copyreg.pickle(Prior, _as_declared)
