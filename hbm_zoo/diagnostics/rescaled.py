"""The same fit with priors on other scales."""

from __future__ import annotations

from collections.abc import Iterable

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
    "InverseGamma": ("beta",),
    "Normal": ("sigma",),
    "StudentT": ("sigma",),
    "Cauchy": ("beta",),
    "LogNormal": ("sigma",),
}
SHRINKS = {"Exponential": ("lam",), "Gamma": ("beta",)}
SCALES = GROWS | SHRINKS


def check_scales(scales: Iterable[float]) -> None:
    """Refuse what no scale can be multiplied by.

    Raises
    ------
    ValueError
        If one is no finite number above 0.
    """
    for scale in scales:
        if not (isinstance(scale, int | float | np.number) and 0 < scale < np.inf):
            raise ValueError(f"scales expected finite numbers above 0, got {scale!r}.")


def scaled(name: str, prior: Prior, scale: float, support: tuple[float, float] = (-np.inf, np.inf)) -> Prior:
    """A prior with its scale multiplied: about 0 where that is its end, else about its centre, on its own line.

    Parameters
    ----------
    name, prior, scale
        Of a hyperparameter; its prior; by how much.
    support : tuple of float
        Between which ends the hyperparameter lies. A uniform prior between two has no scale: half of it would cut the
        data off.

    Raises
    ------
    ValueError
        If it is not known how that is written in the prior's family, or it would leave the support.

    Examples
    --------
    >>> scaled("tau", Prior("Exponential", lam=2), 4).parameters
    {'lam': 0.5}
    """
    check_scales([scale])
    family, numbers = prior.distribution, prior.parameters
    if prior.transform or not set(SCALES.get(family, ("",))) <= set(numbers):
        known = listed(f"{each}({', '.join(own)})" for each, own in SCALES.items())
        raise ValueError(f"The scale of the prior {describe(prior)} of {name!r} is not known here, only of {known}.")
    if family == "Uniform":
        return _scaled_uniform(name, prior, scale, support)
    grown = {own: float(numbers[own]) * scale for own in GROWS.get(family, ())}
    shrunk = {own: float(numbers[own]) / scale for own in SHRINKS.get(family, ())}
    return Prior(family, **(numbers | grown | shrunk))


def _scaled_uniform(name: str, prior: Prior, scale: float, support: tuple[float, float]) -> Prior:
    ends = np.array([prior.parameters[end] for end in GROWS["Uniform"]], float)
    if np.isfinite(support).all():
        raise ValueError(f"The prior {describe(prior)} of {name!r}, which lies between two ends, has no scale.")
    about = 0.0 if 0 in ends else ends.mean()
    lower, upper = about + scale * (ends - about)
    if lower < support[0] or upper > support[1]:
        raise ValueError(f"On {scale:g} times its scale the prior {describe(prior)} of {name!r} leaves its support.")
    return Prior("Uniform", lower=float(lower), upper=float(upper))


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
