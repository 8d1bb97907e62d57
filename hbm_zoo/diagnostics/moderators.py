"""What do predictors of groups explain, and how much is left?"""

from __future__ import annotations

from itertools import groupby

import numpy as np
import pandas as pd
import pymc as pm
import xarray as xr

from hbm_zoo import words
from hbm_zoo.frames.moderators import DESIGN, DIM, slopes, told_by_one
from hbm_zoo.inference.fits import efficiency, free, hyperparameters, model_of, prepared, priors_of
from hbm_zoo.inference.summary import interval_name, interval_tails
from hbm_zoo.model import HierarchicalModel

DRAWS_OF_PRIOR = 20_000
R2 = "R2"


def moderators(fit: xr.DataTree, model: HierarchicalModel | None = None) -> pd.DataFrame:
    """The slopes of moderators, the heterogeneity they leave, and their share of it, each beside its prior.

    Parameters
    ----------
    fit : xarray.DataTree
        A fit of partial pooling with ``moderators``.
    model : HierarchicalModel, optional
        The record of a model that is not in the zoo.

    Returns
    -------
    pandas.DataFrame
        One row a slope, ``beta_<column>`` per unit of a number or ``beta_<column>[level]`` against the reference;
        then the heterogeneity that is left, and ``R2``, of each coefficient that is moved if groups have several.
        Posterior ``mean`` with its Monte Carlo error ``mcse``, interval, and ``p_above_0``; ``prior_mean`` and the
        interval of the prior; ``meaning``, with its unit.
        ``attrs["note"]`` names groups that alone tell of some slope, if there are any.

    Raises
    ------
    ValueError
        If the fit is not of partial pooling, or has no moderators.

    Notes
    -----
    R2 = Var_j(x_j beta) / (Var_j(x_j beta) + tau^2), the level's share of variance explained, draw by draw (Gelman &
    Pardoe 2006, Technometrics 48:241-251, with the population's variance in the denominator); where the spread is not
    an sd on the scale of x beta, its variance there takes the place of tau^2. Priors that say little of slopes say
    much of R2, and more with each moderator: hence its prior beside it. R's metafor prints another number of that
    name, by how much the estimate of tau^2 is smaller than without moderators.

    Examples
    --------
    >>> import hbm_zoo as hz
    >>> frame = hz.load_data("bcg_vaccine")
    >>> fit = hz.fit("vaccine_clinics", frame, moderators=["latitude"], random_seed=1, progressbar=False)
    >>> table = hz.moderators(fit)
    >>> table.index.tolist(), table["mean"].round(2).tolist(), table["prior_mean"].round(1).tolist()
    (['beta_latitude', 'tau', 'R2'], [-0.03, 0.33, 0.61], [0.0, 0.6, 0.5])
    """
    record = model_of(fit, model)
    if not record.moderators:
        raise ValueError(f"This fit of {record.name} has no moderators: fit again with moderators=['...'].")
    if fit.attrs["pooling"] != "partial":
        raise ValueError(
            "What moderators leave is learned by partial pooling; this fit is of "
            f"{words.pooling(fit.attrs['pooling'])}."
        )
    h, data = hyperparameters(fit), prepared(fit)
    rng = np.random.default_rng(int(fit.attrs["seed"]))
    after, before = (_quantities(record, each, data) for each in (h, _from_priors(record, fit, rng)))
    worth = h.sizes["sample"] * efficiency(fit)
    ends = dict(zip(("lb", "ub"), interval_tails(), strict=True))
    rows = {
        name: {
            "mean": float(draws.mean()),
            "mcse": float(draws.std()) / np.sqrt(worth),
            **{f"{interval_name()}_{end}": float(draws.quantile(tail)) for end, tail in ends.items()},
            "p_above_0": float((draws > 0).mean()) if name in slopes(record.moderators) else np.nan,
            "prior_mean": float(before[name].mean()),
            **{f"prior_{interval_name()}_{end}": float(before[name].quantile(tail)) for end, tail in ends.items()},
            "meaning": _meaning(record, name),
        }
        for name, draws in after.items()
    }
    table = pd.DataFrame.from_dict(rows, orient="index").rename_axis("quantity")
    table.attrs["note"] = told_by_one(data[DESIGN], record.group)
    return table


def _quantities(record: HierarchicalModel, h: xr.Dataset, data: xr.Dataset) -> dict[str, xr.DataArray]:
    """Slopes, the heterogeneity that is left, and R2 [sample]."""
    moderated, x = record.extras.moderated, data[DESIGN].drop_vars(DIM)
    names, at = list(slopes(record.moderators)), record.group_level.at(h, data)
    shown = {name: h[name] for name in names}
    for of, moderators in groupby(record.moderators, key=lambda each: each.of):
        own = list(slopes(moderators))
        columns = x.isel({DIM: [names.index(name) for name in own]})
        explained = xr.dot(h[own].to_dataarray(DIM).drop_vars(DIM), columns, dim=DIM).var(record.group, ddof=1)
        left = moderated.part(moderated.unexplained(at), of)
        left = left.mean(record.group) if record.group in left.dims else left
        _, heterogeneity = moderated.coefficients.get(of, ("", record.heterogeneity))
        shown[heterogeneity] = h[heterogeneity]
        shown[f"{R2}[{of}]" if of else R2] = explained / (explained + left)
    return shown


def _from_priors(record: HierarchicalModel, fit: xr.DataTree, rng: np.random.Generator) -> xr.Dataset:
    """Hyperparameters [sample] as the priors of the fit have them."""
    names, priors = free(fit), priors_of(fit)
    with pm.Model():
        variables = [priors[name].create_variable(name) for name in names]
    drawn = pm.draw(variables, DRAWS_OF_PRIOR, random_seed=rng.integers(2**31), mode="FAST_COMPILE")
    known = {name: float(value) for name, value in hyperparameters(fit).isel(sample=0).items() if name not in names}
    return xr.Dataset({name: ("sample", values) for name, values in zip(names, drawn, strict=True)} | known)


def _meaning(record: HierarchicalModel, name: str) -> str:
    if name.startswith(R2):
        return f"share of the variance between {words.plural(record.group)} that the moderators explain"
    meaning = record.parameters[name].meaning
    return meaning if name in slopes(record.moderators) else f"{meaning}; what the moderators leave"
