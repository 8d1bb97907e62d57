"""Verbs of `selection_gradients` alone: each year, all years, and how traits' gradients go together."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pandas as pd
import xarray as xr
from scipy import special

from hbm_zoo.diagnostics import surviving
from hbm_zoo.diagnostics.one_step_ahead import one_step_ahead as one_step_ahead
from hbm_zoo.group_level.averages import quantile
from hbm_zoo.group_level.populations import Normal
from hbm_zoo.inference.fits import efficiency, hyperparameters, model_of, prepared
from hbm_zoo.inference.summary import affordable, interval_name, interval_tails
from hbm_zoo.model import HierarchicalModel


def by_year(fit: xr.DataTree, model: HierarchicalModel | None = None) -> pd.DataFrame:
    """Tabulate the gradients of each year.

    Parameters
    ----------
    fit : xarray.DataTree
        A fit of ``selection_gradients``.
    model : HierarchicalModel, optional
        The record of a model that is not in the zoo.

    Returns
    -------
    pandas.DataFrame
        A row a year and trait: ``own``, the estimate, and its ``standard_error``, NaN where none was made; ``beta``,
        the posterior mean of the gradient, with its interval; ``p_negative`` = P(beta_t < 0 | all data), and ``mcse``,
        its Monte Carlo error; ``kappa``, the weight of the year's own data, by the definition in
        ``MODEL.group_level.kappa``.

        With ``exact=True`` a row a year: ``animals``, ``survivors``; ``alpha``, the posterior mean of the slope of
        survival, with its interval and ``kappa``; ``beta``, that of the gradient of these animals, with its interval;
        ``p_negative``, which both share, and ``mcse``; ``own``, the gradient at the likeliest slope, and its
        ``standard_error`` (delta method), NaN where there is none, for which ``own_is`` says why, or that it is at the
        turn, where it falls as the slope rises.

    Raises
    ------
    ValueError
        If the fit is of another model.

    Examples
    --------
    >>> import hbm_zoo as hz
    >>> alone = hz.fit("selection_gradients", hz.load_data("selection_gradients"), "none", random_seed=1)
    >>> by_year(alone).loc[(1990, "beak_depth"), ["own", "beta", "p_negative"]].round(2).tolist()
    [-0.18, -0.15, 0.89]
    """
    if model_of(fit, model).estimand == surviving.SLOPE:
        return surviving.by_year(fit, model_of(fit, model))
    record, data, h = _checked(fit, model)
    summary = fit["group_summary"].to_dataset()
    lower, upper = (f"{interval_name()}_{end}" for end in ("lb", "ub"))
    below = _below_zero(record.group_level.after(h, data))
    columns = {
        "own": summary["own"],
        "standard_error": _standard_errors(data),
        "beta": summary["mean"],
        lower: summary[lower],
        upper: summary[upper],
        "p_negative": below.mean("sample"),
        "mcse": _error(below, fit),
    }
    columns |= {"kappa": summary["kappa"]} if fit.attrs["pooling"] != "none" else {}
    table = xr.Dataset({name: value.drop_vars("sample", errors="ignore") for name, value in columns.items()})
    return table.to_dataframe(dim_order=[record.group, "trait"])


def over_years(fit: xr.DataTree, model: HierarchicalModel | None = None) -> pd.DataFrame:
    """Say how selection varies: how much of the scatter of estimates is error, and how often its sign turns.

    Parameters
    ----------
    fit : xarray.DataTree
        Partial or complete pooling of ``selection_gradients``.
    model : HierarchicalModel, optional
        The record of a model that is not in the zoo.

    Returns
    -------
    pandas.DataFrame
        A row a trait and quantity, with its posterior ``mean`` (of what is of the data alone, its value), its interval
        if it has one, and ``mcse``, the Monte Carlo error of the mean:

        * ``mean gradient``, of the population of years: mu; and ``P(mean gradient < 0)``;
        * ``sd over years``: tau;
        * ``variance of estimates`` between years (divisor one less than the years), and
          ``mean squared standard error`` of these: of the data alone;
        * ``share that is error``: E / (E + tau^2), E the mean squared standard error;
        * ``years of opposite sign, naive``: the share of years whose estimate has not the sign of the mean estimate;
        * ``years of opposite sign``: the expected share of these years whose gradient has not the sign of mu: the mean
          over years of P(sign(beta_t) != sign(mu) | y);
        * ``next year``, the gradient of a year never seen, with ``autocorrelation=True`` of the one after the last,
          and ``P(next year < 0)``.

    Raises
    ------
    ValueError
        If the fit is of another model, of no pooling, which knows no population of years, or a plug-in estimate.

    Notes
    -----
    A variance of estimates less their mean squared error estimates that of selection (Morrissey & Hadfield 2012,
    Evolution 66:435-442), and may be negative; the share that is error cannot be, nor exceed 1.

    Examples
    --------
    >>> import hbm_zoo as hz
    >>> frame = hz.load_data("selection_gradients")
    >>> fit = hz.fit("selection_gradients", frame, random_seed=1, progressbar=False)
    >>> table = over_years(fit).loc["beak_depth"]
    >>> bool(table.loc["years of opposite sign", "mean"] < table.loc["years of opposite sign, naive", "mean"])
    True
    """
    record, data, h = _checked(fit, model)
    if fit.attrs["pooling"] not in ("partial", "complete"):
        why = {"none": "No pooling knows no population of years"}
        given = why.get(fit.attrs["pooling"], "A plug-in estimate takes its population for known")
        raise ValueError(f"{given}: give a fit of partial pooling.")
    population, after = record.group_level.of_groups(h, data), record.group_level.after(h, data)
    own, error = record.own(data), (_standard_errors(data) ** 2).mean("year")
    next_year = _next_year(record, h, data)
    found = {
        "mean gradient": _spread(population.mean, fit),
        "P(mean gradient < 0)": _expected(population.mean < 0, fit),
        "sd over years": _spread(population.sd, fit),
        "variance of estimates": {"mean": own.var("year", ddof=1)},
        "mean squared standard error": {"mean": error},
        "share that is error": _spread(error / (error + population.sd**2), fit),
        "years of opposite sign, naive": {"mean": (own * own.mean("year") < 0).sum("year") / own.notnull().sum("year")},
        "years of opposite sign": _expected(_opposite(after, population.mean).mean("year"), fit),
        "next year": _expected(next_year.mean, fit) | {end: quantile(next_year, tail) for end, tail in _ends()},
        "P(next year < 0)": _expected(_below_zero(next_year), fit),
    }
    columns = ["mean", *(end for end, _ in _ends()), "mcse"]
    rows = {
        (trait, quantity): {name: float(value.sel(trait=trait)) for name, value in of.items()}
        for trait in data["trait"].values
        for quantity, of in found.items()
    }
    table = pd.DataFrame.from_dict(rows, orient="index").reindex(columns=columns, index=list(rows))
    return table.set_axis(pd.MultiIndex.from_tuples(rows, names=["trait", "quantity"]))


def correlations(fit: xr.DataTree, model: HierarchicalModel | None = None) -> pd.DataFrame:
    """Say how the gradients of traits go together over the years.

    Parameters
    ----------
    fit : xarray.DataTree
        Partial pooling of ``selection_gradients``.
    model : HierarchicalModel, optional
        The record of a model that is not in the zoo.

    Returns
    -------
    pandas.DataFrame
        A row a pair of traits: the correlation of their gradients in the population of years, its posterior ``mean``,
        interval, and ``mcse``. Of two traits it is rho_12; of more, rho_23 and those after it are partial ones.

    Raises
    ------
    ValueError
        If the fit is of another model or pooling, or of one trait.

    Examples
    --------
    >>> import hbm_zoo as hz
    >>> frame = hz.load_data("selection_gradients")
    >>> fit = hz.fit("selection_gradients", frame, random_seed=1, progressbar=False)
    >>> correlations(fit).index.tolist()
    [('beak_depth', 'mass')]
    """
    record, data, h = _checked(fit, model)
    names = data["trait"].values.tolist()
    if fit.attrs["pooling"] != "partial" or len(names) < 2:
        raise ValueError("Correlations are of two traits or more, and of partial pooling.")
    factor = record.group_level.of_groups(h, data).factor
    unit = factor / np.sqrt((factor**2).sum("other"))
    rows = {}
    for i, j in combinations(range(len(names)), 2):
        together = (unit.isel(trait=i, drop=True) * unit.isel(trait=j, drop=True)).sum("other")
        rows[names[i], names[j]] = {name: float(value) for name, value in _spread(together, fit).items()}
    return pd.DataFrame.from_dict(rows, orient="index").set_axis(
        pd.MultiIndex.from_tuples(rows, names=["trait", "with"])
    )


def _checked(fit: xr.DataTree, model: HierarchicalModel | None) -> tuple[HierarchicalModel, xr.Dataset, xr.Dataset]:
    """The record of a fit, its data and hyperparameters."""
    record = model_of(fit, model)
    if record.estimand == surviving.SLOPE:
        raise ValueError("With exact=True there is one trait and no standard errors: by_year says what is known.")
    if not {"mu_1", "tau_1", "rho_12"} <= set(record.parameters):
        raise ValueError(f"This is of fits of selection_gradients, got one of {record.name}.")
    data = prepared(fit)
    return record, data, affordable(hyperparameters(fit), data.sizes["year"] * record.group_level.cells(data))


def _next_year(record: HierarchicalModel, h: xr.Dataset, data: xr.Dataset) -> Normal:
    """The gradients of the year after the last: of any year, or of one that is like it."""
    level = record.group_level
    if level.independent:
        population = level.of_groups(h, data)
    else:
        last = level.emptied(data.isel(year=[-1])).assign_coords(year=["next"])
        new = last.assign(time=data["time"].isel(year=[-1]).drop_vars("year") + 1)
        every = level.conditional(h, level.joined(data, new))
        population = Normal(*(value.isel(year=-1, drop=True) for value in (every.mean, every.sd)))
    return Normal(*xr.broadcast(population.mean, population.sd))


def _standard_errors(data: xr.Dataset) -> xr.DataArray:
    """Of each estimate that was made [year, trait]."""
    variance = data["b"].copy(data=np.einsum("tkk->tk", data["S"].values))
    return (variance**0.5).where(data["measured"] > 0)


def _below_zero(population: Normal) -> xr.DataArray:
    """P(gradient < 0) at each draw; one without spread is a point."""
    mean, sd = xr.broadcast(population.mean, population.sd)
    return xr.where(sd > 0, special.ndtr(-mean / sd.where(sd > 0, 1.0)), mean < 0)


def _opposite(after: Normal, mu: xr.DataArray) -> xr.DataArray:
    """P(the sign of a year's gradient is not that of mu) at each draw."""
    below = _below_zero(after)
    return xr.where(mu < 0, 1 - below, below)


def _spread(values: xr.DataArray, fit: xr.DataTree) -> dict[str, xr.DataArray]:
    """Mean and interval over draws, and the Monte Carlo error of the mean."""
    ends = {end: values.quantile(tail, "sample").drop_vars("quantile") for end, tail in _ends()}
    return {"mean": values.mean("sample"), **ends, "mcse": _error(values, fit)}


def _expected(values: xr.DataArray, fit: xr.DataTree) -> dict[str, xr.DataArray]:
    """The mean over draws, and its Monte Carlo error."""
    return {"mean": values.mean("sample"), "mcse": _error(values, fit)}


def _error(values: xr.DataArray, fit: xr.DataTree) -> xr.DataArray:
    """Monte Carlo error of a mean over draws [sample]; of one draw there is none."""
    worth = values.sizes["sample"] * efficiency(fit)
    return values.std("sample") / np.sqrt(worth)


def _ends() -> list[tuple[str, float]]:
    """The two ends of the interval, and their tails."""
    return [(f"{interval_name()}_{end}", tail) for end, tail in zip(("lb", "ub"), interval_tails(), strict=True)]
