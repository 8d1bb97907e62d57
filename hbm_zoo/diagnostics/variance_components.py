"""Verbs of `variance_components` alone: how much is inherited, by whom, and what selection makes of it."""

from __future__ import annotations

from numbers import Real

import numpy as np
import pandas as pd
import xarray as xr

from hbm_zoo.frames import labels
from hbm_zoo.group_level import contrasts
from hbm_zoo.group_level.averages import quantile
from hbm_zoo.group_level.contrasts import experiment
from hbm_zoo.group_level.populations import Normal
from hbm_zoo.group_level.variance_tables import sigma_E
from hbm_zoo.inference.fits import efficiency, hyperparameters, model_of, prepared, thinned
from hbm_zoo.inference.summary import interval_name, interval_tails, rank_summary
from hbm_zoo.model import HierarchicalModel
from hbm_zoo.words import choose

DRAWS, DRAWS_OF_ANIMALS = 4000, 500
SIRES, DAMS, ANIMALS = "sires", "dams", "animals"


def components(fit: xr.DataTree, threshold: float = 0.2, model: HierarchicalModel | None = None) -> pd.DataFrame:
    """Variance components and heritability of each site, the classical estimates beside them.

    Parameters
    ----------
    fit : xarray.DataTree
        A fit of ``variance_components``.
    threshold : float
        Of h^2, a share: adds the probability that it is larger.
    model : HierarchicalModel, optional
        The record of a model that is not in the zoo.

    Returns
    -------
    pandas.DataFrame
        By site: ``rows``; posterior mean and interval of ``sigma_A``, ``sigma_E`` [unit of the response] and ``h2`` =
        sigma_A^2 / (sigma_A^2 + sigma_E^2); ``p_h2_above_<threshold>`` and its Monte Carlo error ``mcse``; ``kappa`` =
        1 - Var(sigma_A | y, h) / Var(sigma_A | h), a share on average over data only; ``reml_sigma_A`` and ``reml_h2``,
        by restricted maximum likelihood within what relatives can have; ``anova_h2``, of half sibs without fixed
        effects but a mean (else NaN), which may be negative or beyond 1; and ``classical``, in words where an estimate
        is at an end.

    Raises
    ------
    ValueError
        If the fit is of another model, or the threshold no share.

    Notes
    -----
    h^2 is of an individual: where full sibs share more than genes, it is familial resemblance. ANOVA: sire variance =
    (MS between - MS within) / n0, sigma_A^2 four times that, sigma_E^2 the rest (Lynch & Walsh 1998, chapter 18).

    Examples
    --------
    >>> import hbm_zoo as hz
    >>> alone = hz.fit("variance_components", hz.load_data("eucalyptus_araraquara"), "none", fixed_effects="block",
    ...     random_seed=1, progressbar=False)
    >>> components(alone)[["sigma_A", "h2", "reml_h2"]].round(1).values.tolist()
    [[1.8, 0.6, 1.0]]
    """
    if not isinstance(threshold, Real) or not 0 <= threshold < 1:
        raise ValueError(f"threshold is a share of variance, from 0 to below 1; got {threshold!r}.")
    record, data = _checked(fit, model), prepared(fit)
    drawn = variances(fit, record)
    drawn["h2"] = drawn.sigma_A**2 / (drawn.sigma_A**2 + drawn.sigma_E**2)
    summary = fit["group_summary"].to_dataset()
    columns = {"rows": data.rows.values}
    for name in ("sigma_A", "sigma_E", "h2"):
        columns |= _described(name, drawn[name])
    for end in ("lb", "ub"):  # known better than from draws
        columns[f"sigma_A_{interval_name()}_{end}"] = summary[f"{interval_name()}_{end}"].values
    columns["sigma_A"] = summary["mean"].values
    p = (drawn.h2 > threshold).mean("sample").values
    columns |= {
        f"p_h2_above_{threshold:g}": p,
        "mcse": np.sqrt(p * (1 - p) / (drawn.sizes["sample"] * efficiency(fit))),
    }
    columns["kappa"] = summary["kappa"].values if fit.attrs["pooling"] != "none" else np.nan
    classical = pd.DataFrame([_classical(data, j) for j in range(data.sizes["site"])])
    table = pd.DataFrame(columns | classical.to_dict("list"), index=pd.Index(data["site"].values, name="site"))
    return table.drop(columns="kappa") if fit.attrs["pooling"] == "none" else table


def breeding_values(
    fit: xr.DataTree, of: str = SIRES, site: object = None, model: HierarchicalModel | None = None
) -> pd.DataFrame:
    """Breeding values, averaged over what is not known of the variances, and their ranks within each site.

    Parameters
    ----------
    fit : xarray.DataTree
        A fit of ``variance_components``.
    of : {"sires", "dams", "animals"}
        The parents that rows name, or the animals that have rows; those of families are named by their row.
    site : optional
        One site. Default: all.
    model : HierarchicalModel, optional
        The record of a model that is not in the zoo.

    Returns
    -------
    pandas.DataFrame
        By site and animal: ``offspring``, rows of which it is a parent; ``breeding_value``, ``sd`` and interval
        [unit of the response], as a deviation from the site's mean; ``rank``, 1 for the largest, with interval, and
        ``p_best``.

    Raises
    ------
    ValueError
        If the fit is of another model, a name is unknown, or the data name no such parents.

    Notes
    -----
    Given the variances a breeding value is normal (BLUP; Henderson 1975, Biometrics 31:423-447); mean, sd and interval
    are of these normals over draws of the variances, ranks of joint draws.

    Examples
    --------
    >>> import hbm_zoo as hz
    >>> alone = hz.fit("variance_components", hz.load_data("eucalyptus_araraquara"), "none", fixed_effects="block",
    ...     random_seed=1, progressbar=False)
    >>> breeding_values(alone)["rank"].idxmin()
    ('Araraquara', 'P3')
    """
    record, data = _checked(fit, model), prepared(fit)
    of, sites = choose(of, (SIRES, DAMS, ANIMALS), "of"), list(map(labels.one, data["site"].values))
    chosen = range(len(sites)) if site is None else [sites.index(choose(labels.one(site), sites, "site"))]
    drawn = variances(fit, record, DRAWS_OF_ANIMALS)
    tables = {data["site"].values[j]: _of_site(data, j, of, drawn.isel(site=j), int(fit.attrs["seed"])) for j in chosen}
    return pd.concat(tables, names=["site", of.removesuffix("s")])


def response_to_selection(
    fit: xr.DataTree, differential: float, model: HierarchicalModel | None = None
) -> pd.DataFrame:
    """What a generation of selection changes: R = h^2 S, the breeder's equation.

    Parameters
    ----------
    fit : xarray.DataTree
        A fit of ``variance_components``.
    differential : float
        S, how far the mean of the parents that are chosen lies from that of all [unit of the response].
    model : HierarchicalModel, optional
        The record of a model that is not in the zoo.

    Returns
    -------
    pandas.DataFrame
        By site: ``response`` with its interval [unit of the response].

    Raises
    ------
    ValueError
        If the fit is of another model, or the differential is no finite number.

    Notes
    -----
    Lush (1937), Animal Breeding Plans. Where h^2 holds what full sibs share beside genes, so does R, and promises too
    much.

    Examples
    --------
    >>> import hbm_zoo as hz
    >>> alone = hz.fit("variance_components", hz.load_data("eucalyptus_araraquara"), "none", fixed_effects="block",
    ...     random_seed=1, progressbar=False)
    >>> response_to_selection(alone, 2.0)["response"].round(1).tolist()
    [1.2]
    """
    if isinstance(differential, bool) or not isinstance(differential, Real) or not np.isfinite(differential):
        raise ValueError(f"differential must be a finite number, in the unit of the response; got {differential!r}.")
    drawn = variances(fit, _checked(fit, model))
    response = differential * drawn.sigma_A**2 / (drawn.sigma_A**2 + drawn.sigma_E**2)
    return pd.DataFrame(_described("response", response), index=pd.Index(response["site"].values, name="site"))


def variances(fit: xr.DataTree, record: HierarchicalModel, most: int = DRAWS) -> xr.Dataset:
    """Draws of ``sigma_A`` and ``sigma_E`` [sample, site], joint in each site."""
    h, data, rng = hyperparameters(fit), prepared(fit), np.random.default_rng(int(fit.attrs["seed"]))
    h = h.isel(sample=np.zeros(most, int)) if h.sizes["sample"] == 1 else thinned(h, most)
    level, found = record.group_level, []
    for j in range(data.sizes["site"]):
        one = data.isel(site=[j])
        a = level.conditional(h, one).over(xr.ones_like(h["mu"])).sample(rng).isel(site=0)
        found.append((level.reported(a, one).values, sigma_E(rng, a.values, data, j)))
    by_name = zip(("sigma_A", "sigma_E"), np.transpose(found, (1, 2, 0)), strict=True)
    return xr.Dataset({name: (("sample", "site"), values) for name, values in by_name}, {"site": data["site"].values})


def _checked(fit: xr.DataTree, model: HierarchicalModel | None) -> HierarchicalModel:
    record = model_of(fit, model)
    if record.estimand != "sigma_A":
        raise ValueError(f"This is of fits of variance_components, got one of {record.name}.")
    return record


def _described(name: str, draws: xr.DataArray) -> dict[str, np.ndarray]:
    """Mean and interval of draws [sample, ...]."""
    ends = zip(("lb", "ub"), interval_tails(), strict=True)
    return {name: draws.mean("sample").values} | {
        f"{name}_{interval_name()}_{end}": draws.quantile(tail, "sample").values for end, tail in ends
    }


def _classical(data: xr.Dataset, j: int) -> dict[str, object]:
    """Restricted maximum likelihood, and the analysis of variance where it is one."""
    used = data.n.values[j] > 0
    if used.sum() < 2:
        return {"reml_sigma_A": np.nan, "reml_h2": np.nan, "anova_h2": np.nan, "classical": "not defined"}
    sigma_A, other, _ = contrasts.restricted_maximum(*(data[name].values[j, used] for name in ("d", "n", "SS")))
    h2, anova = sigma_A**2 / (sigma_A**2 + other**2), anova_h2(data, j)
    said = ["REML exactly 0"] if sigma_A == 0 else ["REML h2 exactly 1"] if other == 0 else []
    said += ["ANOVA negative: 0"] if anova < 0 else ["ANOVA beyond 1"] if anova > 1 else []
    return {"reml_sigma_A": sigma_A, "reml_h2": h2, "anova_h2": anova, "classical": "; ".join(said)}


def anova_h2(data: xr.Dataset, j: int) -> float:
    """Heritability by the one-way analysis of variance of half sibs; NaN of another design."""
    one, y, _ = experiment(data, j)
    sire, known = one.sire[one.row], one.dam[one.row] >= 0
    if known.any() or (sire < 0).any() or one.Q.shape[1] != 1 or (one.sire[sire] >= 0).any():
        return np.nan
    _, of, n = np.unique(sire, return_inverse=True, return_counts=True)
    means = np.bincount(of, y) / n
    if n.size < 2 or n.sum() == n.size:
        return np.nan
    between = (n * (means - y.mean()) ** 2).sum() / (n.size - 1)
    within = ((y - means[of]) ** 2).sum() / (n.sum() - n.size)
    typical = (n.sum() - (n**2).sum() / n.sum()) / (n.size - 1)
    of_sires = (between - within) / typical
    return float(4 * of_sires / (of_sires + within))


def _of_site(data: xr.Dataset, j: int, of: str, drawn: xr.Dataset, seed: int) -> pd.DataFrame:
    """Breeding values of the animals of one site that are asked for."""
    one, y, kept = experiment(data, j)
    parents = {SIRES: one.sire, DAMS: one.dam}
    chosen = one.row if of == ANIMALS else np.unique(parents[of][one.row])
    chosen = chosen[chosen >= 0]
    if not chosen.size:
        raise ValueError(f"The rows name no {of}: ask for {SIRES if of == DAMS else ANIMALS}.")
    labels = data["animal"].values[kept][chosen]
    scales = drawn.sigma_A.values, drawn.sigma_E.values
    mean, variance = (part[:, chosen] for part in contrasts.predicted(one, y, *scales))
    dims, coords = ("sample", "animal"), {"animal": labels}
    normal = Normal(*(xr.DataArray(part, coords, dims) for part in (mean, np.sqrt(variance))))
    joint = contrasts.drawn(np.random.default_rng([seed, j]), one, y, *scales)[0][:, chosen]
    ranks = rank_summary(xr.DataArray(joint, coords, dims), "animal")
    ends = zip(("lb", "ub"), interval_tails(), strict=True)
    columns = {
        "offspring": np.array([((one.sire[one.row] == i) | (one.dam[one.row] == i)).sum() for i in chosen]),
        "breeding_value": mean.mean(axis=0),
        "sd": np.sqrt(variance.mean(axis=0) + mean.var(axis=0)),
        **{f"{interval_name()}_{end}": quantile(normal, tail).values for end, tail in ends},
    }
    of_rank = [f"rank{end}" for end in ("", *(f"_{interval_name()}_{end}" for end in ("lb", "ub")))]
    columns |= {name: ranks[name].values for name in (*of_rank, "p_best")}
    return pd.DataFrame(columns, index=labels)
