"""The models of the zoo, named one by one."""

from types import ModuleType

from hbm_zoo.model import HierarchicalModel, choose
from hbm_zoo.models import hospital_readmission, reaction_norms, spike_slab_genes, tissue_expression, vaccine_clinics

MODELS: dict[str, ModuleType] = {
    "hospital_readmission": hospital_readmission,
    "reaction_norms": reaction_norms,
    "spike_slab_genes": spike_slab_genes,
    "tissue_expression": tissue_expression,
    "vaccine_clinics": vaccine_clinics,
}


def record_of(model: ModuleType | HierarchicalModel | str) -> HierarchicalModel:
    """The record of a model given as a module, a record or a name.

    Raises
    ------
    ValueError
        If a name is not in the zoo, or a thing is no model; the nearest name is given.
    """
    if isinstance(model, HierarchicalModel):
        return model
    if isinstance(model, str):
        return MODELS[choose(model, MODELS, "model")].MODEL
    record = getattr(model, "MODEL", None)
    if isinstance(record, HierarchicalModel):
        return record
    raise ValueError(f"Expected a model's module, record or name, got {model!r}.")
