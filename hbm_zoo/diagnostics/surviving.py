"""Selection on survival year by year, from the animals themselves: the slope, and the gradient that it makes."""

from __future__ import annotations

import numpy as np
import pandas as pd
import xarray as xr

from hbm_zoo.group_level import survival
from hbm_zoo.group_level.logistic import NoGradient, average_gradient, likeliest
from hbm_zoo.inference.fits import efficiency, hyperparameters, prepared, thinned
from hbm_zoo.inference.summary import affordable, interval_name, interval_tails
from hbm_zoo.model import HierarchicalModel

SLOPE, DRAWS = "alpha", 4000


def by_year(fit: xr.DataTree, record: HierarchicalModel) -> pd.DataFrame:
    """Slopes and gradients of each year, as `selection_gradients.by_year` has them with ``exact=True``."""
    data = prepared(fit)
    h = affordable(hyperparameters(fit), data.sizes["year"] * record.group_level.cells(data))
    below = record.group_level.after(h, data).cdf(xr.DataArray(0.0))
    below = below if "sample" in below.dims else below.expand_dims("sample")
    summary, drawn = fit["group_summary"].to_dataset(), gradients(fit, record)
    ends = list(zip(("lb", "ub"), interval_tails(), strict=True))
    columns = {
        "animals": data["animals"].values.astype(int),
        "survivors": np.bincount(data["of_year"], data["survived"], data.sizes["year"]).astype(int),
        "alpha": summary["mean"].values,
        **{f"alpha_{interval_name()}_{end}": summary[f"{interval_name()}_{end}"].values for end, _ in ends},
        "beta": drawn.mean("sample").values,
        **{f"beta_{interval_name()}_{end}": drawn.quantile(tail, "sample").values for end, tail in ends},
        "p_negative": below.mean("sample").values,
        "mcse": (below.std("sample") / np.sqrt(below.sizes["sample"] * efficiency(fit))).values,
    }
    columns |= {"kappa": summary["kappa"].values} if fit.attrs["pooling"] != "none" else {}
    alone = pd.DataFrame([_alone(data, j) for j in range(data.sizes["year"])])
    return pd.DataFrame(columns | alone.to_dict("list"), index=pd.Index(data["year"].values, name="year"))


def gradients(fit: xr.DataTree, record: HierarchicalModel) -> xr.DataArray:
    """Draws of the gradient [sample, year] of each year's animals."""
    h, data, rng = hyperparameters(fit), prepared(fit), np.random.default_rng(int(fit.attrs["seed"]))
    h = h.isel(sample=np.zeros(DRAWS, int)) if h.sizes["sample"] == 1 else thinned(h, DRAWS)
    found = []
    for j in range(data.sizes["year"]):
        after = record.group_level.conditional(h, data.isel(year=[j]))
        alpha = after.over(xr.ones_like(h["mu"])).sample(rng).isel(year=0).values
        alpha_0 = survival.intercepts(rng, alpha, data, j)
        found.append(survival.gradient(alpha, alpha_0, survival.animals(data, j)[0]))
    return xr.DataArray(np.transpose(found), {"year": data["year"].values}, ("sample", "year"))


def _alone(data: xr.Dataset, j: int) -> dict[str, object]:
    """The gradient at the likeliest slope of a year alone, its standard error, and what is to be said of it."""
    z, survived = survival.animals(data, j)
    X = np.column_stack([np.ones(z.size), z])
    try:
        b, S, turned = average_gradient(*likeliest(survived, X), X)
    except NoGradient as why:
        return {"own": np.nan, "standard_error": np.nan, "own_is": str(why)}
    own_is = "at the turn: it falls as the slope rises" if turned else ""
    return {"own": b.item(), "standard_error": np.sqrt(S.item()), "own_is": own_is}
