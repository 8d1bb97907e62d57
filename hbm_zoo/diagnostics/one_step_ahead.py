"""Years predicted one step ahead, each from those before it alone."""

from __future__ import annotations

import numpy as np
import pandas as pd
import xarray as xr

from hbm_zoo.inference.fits import Fits, check_together, efficiency, hyperparameters, model_of, prepared
from hbm_zoo.inference.sampling import refit
from hbm_zoo.model import HierarchicalModel


def one_step_ahead(fits: Fits, first: int | None = None, model: HierarchicalModel | None = None) -> pd.DataFrame:
    """Score each pooling on the next year: each year is predicted from those before it alone.

    Parameters
    ----------
    fits : dict of str to xarray.DataTree
        As `fit_poolings` returns them; years are numbers.
    first : int, optional
        How many years are seen before the first that is predicted. Default: half of them, two at least.
    model : HierarchicalModel, optional
        The record of a model that is not in the zoo.

    Returns
    -------
    pandas.DataFrame
        A row a pooling, the best first: ``elpd`` = sum of log p(y_t | the years before) [nats], each by a fit to
        those years under the priors of the fit; ``elpd_diff`` to the best; ``mcse``, the Monte Carlo error; ``years``,
        how many were predicted. No standard error of a difference: predictions of one series depend on one another.

    Raises
    ------
    ValueError
        If the fits are of another model, years are no numbers, or too few to predict one.

    Notes
    -----
    Leave-future-out cross-validation, a refit for each year (Bürkner, Gabry & Vehtari 2020, J Stat Comput Simul
    90:2499-2523).
    """
    fits = check_together(fits)
    leading = next(iter(fits.values()))
    record, data = model_of(leading, model), prepared(leading)
    if "year" not in data.dims:
        raise ValueError(f"This is of fits of selection_gradients, got one of {record.name}.")
    time = pd.to_numeric(pd.Series(data["year"].values), errors="coerce").to_numpy(float)
    order = np.argsort(time)
    first = max(2, time.size // 2) if first is None else int(first)
    if np.isnan(time).any():
        raise ValueError(
            f"One step ahead needs years that are numbers, got {data['year'].values[np.isnan(time)][0]!r}."
        )
    if not 2 <= first < time.size:
        raise ValueError(f"One step ahead needs 2 to {time.size - 1} years before the first, got {first}.")
    rows = {}
    for name, fit in fits.items():
        each = [_ahead(record, fit, order[: k + 1], model) for k in range(first, time.size)]
        elpd, mcse = np.transpose(each)
        rows[name] = {"elpd": elpd.sum(), "mcse": np.sqrt((mcse**2).sum()), "years": len(each)}
    table = pd.DataFrame.from_dict(rows, orient="index").rename_axis("pooling").sort_values("elpd", ascending=False)
    table.insert(1, "elpd_diff", table["elpd"] - table["elpd"].iloc[0])
    return table.astype({"years": int})


def _ahead(record: HierarchicalModel, fit: xr.DataTree, years: np.ndarray, model) -> tuple[float, float]:
    """Log density of the last of some years given those before it [nats], and its Monte Carlo error."""
    data = prepared(fit).isel(year=years)
    past = refit(fit, data.isel(year=slice(-1)), int(fit.attrs["seed"]), model)
    h = hyperparameters(past)
    log_density = record.group_level.log_left_out(h, data).isel(year=-1).values
    density = np.exp(log_density - log_density.max())
    relative = density.std() / density.mean() / np.sqrt(density.size * efficiency(past))
    return float(np.log(density.mean()) + log_density.max()), float(relative)
