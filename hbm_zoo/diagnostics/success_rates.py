"""A verb of `success_rates` alone: what came later, against what each pooling expected."""

from __future__ import annotations

import numpy as np
import pandas as pd
import xarray as xr
from scipy.special import logsumexp

from hbm_zoo.frames.labels import like, text
from hbm_zoo.frames.rules import FrameError, check, count, label
from hbm_zoo.inference.fits import Fits, check_together, efficiency, hyperparameters, model_of, prepared
from hbm_zoo.model import HierarchicalModel

LATER = {
    "unit": label("the unit's name", unique=True),
    "successes": count("successes seen later [trials]"),
    "trials": count("trials made later [trials]", least=1),
}


def score(fits: Fits, later: pd.DataFrame, model: HierarchicalModel | None = None) -> pd.DataFrame:
    """Score each pooling on data of the same units that it has not seen.

    Parameters
    ----------
    fits : dict of str to xarray.DataTree, or one fit
        As `fit_poolings` returns them, of ``success_rates``.
    later : pandas.DataFrame
        Columns unit, successes, trials: what units of the fit did afterwards.
    model : HierarchicalModel, optional
        The record of a model that is not in the zoo.

    Returns
    -------
    pandas.DataFrame
        One row a pooling, and ``own`` for the raw rates. ``rmse``, the root mean square over units of the
        estimated less the later rate [share]. ``log_score`` [nats], the sum over units of the log predictive density
        of the later counts given the earlier ones, averaged over draws of the hyperparameters, and ``mcse``,
        its Monte Carlo error, as of as many independent draws as those of the hyperparameters are worth; raw rates
        have none.

    Raises
    ------
    FrameError, ValueError
        If the frame is not what is expected, or a unit is not in the fits.

    Examples
    --------
    >>> import hbm_zoo as hz
    >>> frame = hz.load_data("surgical")
    >>> fits = {"none": hz.fit("success_rates", frame, pooling="none", random_seed=1)}
    >>> float(score(fits, frame).loc["own", "rmse"])
    0.0
    """
    fits = check_together(fits)
    record = model_of(next(iter(fits.values())), model)
    data = prepared(next(iter(fits.values())))
    units = like(check(later, LATER, "score")["unit"], data[record.group].values)
    later = check(later.assign(unit=units.to_numpy()), LATER, "score")
    data = _known(record, data, later)
    new = record.prepare(later)
    rate = record.own(new).values
    rows = {"own": {"rmse": _rmse(record.own(data).values, rate), "log_score": np.nan, "mcse": np.nan}}
    for name, fit in fits.items():
        estimate = fit["group_summary"].dataset["mean"].sel({record.group: data[record.group]}).values
        rows[name] = {"rmse": _rmse(estimate, rate), **_log_score(model_of(fit, model), fit, new, data)}
    return pd.DataFrame(rows).T.rename_axis("pooling")


def _known(record: HierarchicalModel, data: xr.Dataset, later: pd.DataFrame) -> xr.Dataset:
    """The earlier data of the units, in the order of the later ones."""
    labels = text(later[record.group])
    at = pd.Index(text(pd.Series(data[record.group].values))).get_indexer(labels)
    if (at < 0).any():
        raise FrameError(f"score expected units of the fits, got {labels[at < 0].iloc[0]!r}, which is in none of them.")
    return data.isel({record.group: at})


def _rmse(estimate: np.ndarray, rate: np.ndarray) -> float:
    return float(np.sqrt(np.mean((estimate - rate) ** 2)))


def _log_score(record: HierarchicalModel, fit: xr.DataTree, new: xr.Dataset, seen: xr.Dataset) -> dict[str, float]:
    """Log predictive density of the later data, and its Monte Carlo error."""
    level = record.ask("score", "log_predictive")
    new = new.assign_coords({record.group: seen[record.group].values})
    each = level.log_predictive(hyperparameters(fit), new, seen).transpose("sample", ...).values
    mean = logsumexp(each, axis=0) - np.log(len(each))
    of_draws = np.exp(each - mean).sum(axis=1)  # what each adds to all units together, which move with it
    return {"log_score": float(mean.sum()), "mcse": float(of_draws.std() / np.sqrt(len(each) * efficiency(fit)))}
