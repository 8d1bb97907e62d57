"""hbm_zoo: Bayesian hierarchical models with no, complete and partial pooling.

Imports are lazy: ``import hbm_zoo as hz`` costs milliseconds, the first name that
needs PyMC loads it.
"""

from importlib import import_module
from typing import Any

from hbm_zoo.zoo import NAMES

_HOMES = {
    "MODELS": "zoo",
    "load_data": "zoo.data",
    "datasets": "zoo.data",
    "fit": "inference.fitting",
    "fit_poolings": "inference.fitting",
    "recover": "inference.fitting",
    "fit_many": "inference.many",
    "units": "inference.many",
    "convergence": "inference.convergence",
    "compare_poolings": "diagnostics.comparison",
    "groups": "diagnostics.groups",
    "predict": "diagnostics.prediction",
    "empirical_bayes": "diagnostics.empirical_bayes",
    "evidence": "diagnostics.evidence",
    "sensitivity": "diagnostics.sensitivity",
    "moderators": "diagnostics.moderators",
    "check_model": "diagnostics.model_checks",
    "discoveries": "diagnostics.multiplicity",
    "verdict": "diagnostics.verdict",
    "calibrate": "diagnostics.calibration",
    "pooling_factor": "diagnostics.pooling_factor",
    "describe_pooling": "diagnostics.description",
    "report": "reporting.report",
    "plot_poolings": "plots.poolings",
    "plot_shrinkage": "plots.shrinkage",
    "plot_ranks": "plots.ranks",
    "plot_calibration": "plots.calibration",
    "plot_funnel": "plots.funnel",
    "plot_moderators": "plots.moderators",
    "plot_fits": "plots.fits",
    "plot_coefficients": "plots.coefficients",
    "plot_estimates_over_heterogeneity": "plots.heterogeneity",
    "plot_tolerance_bound": "plots.tolerance",
    "plot_personalised": "plots.person",
    "plot_components": "plots.components",
    "plot_selection": "plots.selection",
    "plot_modulus": "plots.discrepancy",
    "plot_discrepancy": "plots.discrepancy",
    "plot_volcano": "plots.volcano",
    "plot_local_fdr": "plots.local_fdr",
}
__all__ = [*_HOMES, *NAMES]
__version__ = "0.1.0"


def __getattr__(name: str) -> Any:
    value: Any
    if name in _HOMES:
        value = getattr(import_module(f"hbm_zoo.{_HOMES[name]}"), name)
    elif name in NAMES:
        value = import_module(f"hbm_zoo.models.{name}")
        value.__dir__ = lambda: _offered(value)
    else:
        raise AttributeError(f"module 'hbm_zoo' has no attribute {name!r}")
    globals()[name] = value
    return value


def _offered(page: Any) -> list[str]:
    """What completion shows of a model's page: the record, how to build it, readers, its own formulas and verbs."""
    own = {name for name, value in vars(page).items() if getattr(value, "__module__", "") == page.__name__}
    readers = {reader.__name__ for reader in page.MODEL.extras.readers.values()}
    verbs = getattr(vars(page).get("__getattr__"), "names", ())
    return sorted({"MODEL", "build", *own, *readers, *verbs} - {"__getattr__"})


def __dir__() -> list[str]:
    return sorted(__all__)
