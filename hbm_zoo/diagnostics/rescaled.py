"""The same fit with priors on other scales."""

from __future__ import annotations

import numpy as np
import xarray as xr
from pymc_extras.prior import Prior

from hbm_zoo.diagnostics.cross_validation import lean
from hbm_zoo.inference.fits import hyperparameters, prepared, priors_of
from hbm_zoo.inference.nodes import apart, as_groups, with_nodes
from hbm_zoo.inference.sampling import refit
from hbm_zoo.model import HierarchicalModel
from hbm_zoo.priors import describe, to_json
from hbm_zoo.words import listed

#: Of each family the numbers that grow with its scale, and those that shrink.
GROWS = {
    "HalfNormal": ("sigma",),
    "HalfCauchy": ("beta",),
    "HalfStudentT": ("sigma",),
    "Uniform": ("lower", "upper"),
    "Weibull": ("beta",),
    "Normal": ("sigma",),
    "StudentT": ("sigma",),
    "Cauchy": ("beta",),
    "LogNormal": ("sigma",),
}
SHRINKS = {"Exponential": ("lam",), "Gamma": ("beta",)}

FAMILIES = (*GROWS, *SHRINKS)


def scaled(name: str, prior: Prior, scale: float) -> Prior:
    """A prior with its scale multiplied: about 0 where that is its end, else about its centre, on its own line.

    Raises
    ------
    ValueError
        If it is not known how that is written in the prior's family, or the scale is no number above 0.

    Examples
    --------
    >>> scaled("tau", Prior("Exponential", lam=2), 4).parameters
    {'lam': 0.5}
    """
    if not (isinstance(scale, int | float | np.number) and 0 < scale < np.inf):
        raise ValueError(f"scales expected finite numbers above 0, got {scale!r}.")
    family = prior.distribution
    if prior.transform or family not in FAMILIES:
        known = listed(FAMILIES)
        raise ValueError(f"The scale of the prior {describe(prior)} of {name!r} is not known here, only of {known}.")
    grown = {own: float(prior.parameters[own]) * scale for own in GROWS.get(family, ())}
    shrunk = {own: float(prior.parameters[own]) / scale for own in SHRINKS.get(family, ())}
    return Prior(family, **(prior.parameters | grown | shrunk))


def with_priors(record: HierarchicalModel, fit: xr.DataTree, priors: dict[str, Prior]) -> xr.DataTree:
    """The same fit with other priors, its integrals on nodes made for these."""
    other, all_priors, seed = lean(fit), priors_of(fit) | priors, int(fit.attrs["seed"])
    other.attrs["priors"] = to_json(all_priors)
    data = with_nodes(record, apart(prepared(fit))[0], all_priors, seed, hyperparameters(fit))
    tree = refit(other, data, seed, record)
    for name, value in other.attrs.items():
        tree.attrs.setdefault(name, value)
    for group, dataset in as_groups(data).items():
        tree[group] = xr.DataTree(dataset)
    if "observed_data" in fit.children:
        tree["observed_data"] = fit["observed_data"]
    return tree
