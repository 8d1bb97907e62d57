"""The models of the zoo, named once; a model is loaded when it is asked for."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from importlib import import_module
from types import ModuleType
from typing import TYPE_CHECKING

from hbm_zoo.words import choose

if TYPE_CHECKING:
    from hbm_zoo.model import HierarchicalModel

NAMES = (
    "hospital_readmission",
    "material_batches",
    "model_discrepancy",
    "population_pk",
    "reaction_networks",
    "reaction_norms",
    "selection_gradients",
    "spike_slab_genes",
    "success_rates",
    "tissue_expression",
    "vaccine_clinics",
    "variance_components",
)


class Models(Mapping[str, ModuleType]):
    """The modules of the zoo by name."""

    def __getitem__(self, name: str) -> ModuleType:
        if name not in NAMES:
            raise KeyError(name)
        return import_module(f"hbm_zoo.models.{name}")

    def __iter__(self) -> Iterator[str]:
        return iter(NAMES)

    def __len__(self) -> int:
        return len(NAMES)


MODELS = Models()


def record_of(model: ModuleType | HierarchicalModel | str) -> HierarchicalModel:
    """The record of a model given as a module, a record or a name.

    Raises
    ------
    ValueError
        If a name is not in the zoo, or a thing is no model; the nearest name is given.
    """
    from hbm_zoo.model import HierarchicalModel

    if isinstance(model, HierarchicalModel):
        return model
    if isinstance(model, str):
        return MODELS[choose(model, NAMES, "model")].MODEL
    record = getattr(model, "MODEL", None)
    if isinstance(record, HierarchicalModel):
        return record
    raise ValueError(f"Expected a model's module, record or name, got {model!r}.")
