"""Which prior decides what?"""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
import xarray as xr
from arviz_stats import psense
from pymc_extras.prior import Prior

from hbm_zoo import words
from hbm_zoo.diagnostics.rescaled import check_scales, scaled, with_priors
from hbm_zoo.inference.fits import free, hyperparameters, model_of, prepared, priors_of, word
from hbm_zoo.model import HierarchicalModel
from hbm_zoo.priors import describe
from hbm_zoo.words import listed, plural

#: Posterior standard deviations beyond which a prior on another scale is said to decide.
DECIDES = 0.5
#: Of ArviZ's measure, beyond which a posterior is called sensitive (Kallioinen et al. 2024, section 3.3).
SENSITIVE = 0.05
#: Nats by which a log density that is the same everywhere may differ.
ROUNDING = 1e-9


def sensitivity(
    fit: xr.DataTree, scales: Sequence[float] = (0.5, 2.0), model: HierarchicalModel | None = None
) -> pd.DataFrame:
    """What the headline numbers of a fit become when each prior is narrower, and wider.

    Parameters
    ----------
    fit : xarray.DataTree
        A fit with hyperparameters that its pooling leaves free.
    scales : sequence of float
        By how much the scale of each hyperparameter's prior is multiplied, one at a time; each takes a refit.
    model : HierarchicalModel, optional
        The record of a model that is not in the zoo.

    Returns
    -------
    pandas.DataFrame
        Indexed by ``parameter`` and ``scale``, first the fit as it is. ``prior`` as it then is; posterior ``mean``
        and ``sd`` of that hyperparameter; the means of the heterogeneity and of the location; ``moved``, by how many
        posterior sds the hyperparameter that moves farthest does, and ``groups_moved``, the same of the group that
        does, against the fit as it is, Monte Carlo errors of some hundredths included; ``power``, how strongly the
        posterior of the heterogeneity answers to this prior raised to a power near 1 (ArviZ, `psense`): above 0.05 it
        is sensitive; 0 of a prior that is the same everywhere. ``attrs["left_out"]`` are the hyperparameters whose
        priors have no scale that is known here, and ``attrs["verdict"]`` is a sentence that names them.

    Raises
    ------
    ValueError
        If the pooling leaves nothing free, or the model does not say what is known of a group after its data.

    Notes
    -----
    Power-scaling: Kallioinen, Paananen, Buerkner & Vehtari (2024), Stat Comput 34:57.

    Examples
    --------
    >>> import hbm_zoo as hz
    >>> fit = hz.fit("vaccine_clinics", hz.load_data("bcg_vaccine"), random_seed=1, progressbar=False)
    >>> table = hz.sensitivity(fit)
    >>> table.index.get_level_values("parameter").unique().tolist()
    ['as it is', 'mu', 'tau']
    """
    record = model_of(fit, model)
    record.ask("sensitivity", "conditional")
    names = free(fit)
    if not names:
        pooling = words.pooling(fit.attrs["pooling"]).capitalize()
        raise ValueError(
            f"{pooling} leaves no hyperparameter free, whose priors sensitivity looks at: fit again with another prior "
            f"of one {word(fit, record.group)}, and compare."
        )
    before, priors = _estimates(record, fit), priors_of(fit)
    rescaled = _rescaled(record, {name: priors[name] for name in names}, scales)
    heterogeneity = record.heterogeneity if record.heterogeneity in names else names[0]
    power = _power(fit, names, heterogeneity)
    headline = [heterogeneity, *({record.location} & set(names) - {heterogeneity})]
    rows = {("as it is", 1.0): {"prior": "", **_row(before, before, heterogeneity, headline), "power": np.nan}}
    for (name, scale), prior in rescaled.items():
        after = _estimates(record, with_priors(record, fit, {name: prior}))
        numbers = _row(before, after, name, headline)
        rows[name, scale] = {"prior": describe(prior), **numbers, "power": power[name]}
    table = pd.DataFrame.from_dict(rows, orient="index")
    table.index = pd.MultiIndex.from_tuples(rows, names=["parameter", "scale"])
    table.attrs["left_out"] = [name for name in names if name not in {known for known, _ in rescaled}]
    unseen = [f"{name} ({describe(priors[name])})" for name in table.attrs["left_out"]]
    table.attrs["verdict"] = _sentence(table, plural(word(fit, record.group)), heterogeneity, unseen)
    return table


def _rescaled(
    record: HierarchicalModel, priors: Mapping[str, Prior], scales: Sequence[float]
) -> dict[tuple[str, float], Prior]:
    """Each prior on each scale, of those that have one."""
    check_scales(scales)
    found: dict[tuple[str, float], Prior] = {}
    for name, prior in priors.items():
        try:
            found |= {(name, float(k)): scaled(name, prior, k, record.parameters[name].support) for k in scales}
        except ValueError:
            continue
    return found


def _estimates(record: HierarchicalModel, fit: xr.DataTree) -> dict[str, xr.Dataset | xr.DataArray]:
    """Mean and sd of the hyperparameters, and of each group."""
    h, data = hyperparameters(fit)[free(fit)], prepared(fit)
    groups = record.group_level.after(hyperparameters(fit), data)
    spread = np.sqrt((groups.sd**2).mean("sample") + groups.mean.var("sample"))
    return {"mean": h.mean("sample"), "sd": h.std("sample"), "groups": groups.mean.mean("sample"), "group_sd": spread}


def _row(before: dict, after: dict, name: str, headline: list[str]) -> dict[str, float]:
    """The numbers of one fit, set against those of another."""
    moved = abs(after["mean"] - before["mean"]) / before["sd"]
    groups = (abs(after["groups"] - before["groups"]) / before["group_sd"].where(before["group_sd"] > 0)).max()
    return {
        "mean": float(after["mean"][name]),
        "sd": float(after["sd"][name]),
        **{each: float(after["mean"][each]) for each in headline},
        "moved": float(max(moved[each] for each in moved)),
        "groups_moved": float(groups),
    }


def _power(fit: xr.DataTree, names: list[str], heterogeneity: str) -> dict[str, float]:
    """How the posterior of the heterogeneity answers to a power of each prior; one that is constant has no powers."""
    draws = xr.DataTree.from_dict({"posterior": fit["posterior"].dataset[names], "log_prior": fit["log_prior"].dataset})

    def of(name: str) -> float:
        known = draws["log_prior"].dataset
        if name not in known:
            return np.nan
        if np.ptp(known[name].values) <= ROUNDING:
            return 0.0
        return float(psense(draws, var_names=[heterogeneity], group="prior", group_var_names=[name])[heterogeneity])

    with warnings.catch_warnings():  # of a tail of at least five draws, which it then takes
        warnings.filterwarnings("ignore", "Number of tail draws cannot be less than 5")
        return {name: of(name) for name in names}


def _sentence(table: pd.DataFrame, groups: str, heterogeneity: str, left_out: list[str]) -> str:
    """Which prior decides, if one does, and which were not looked at."""
    looked_at = table.drop(index="as it is", level="parameter")
    unseen = f" The prior of {listed(left_out)} was not looked at: no scale of it is known here." if left_out else ""
    if looked_at.empty:
        return f"Nothing is known of which prior decides.{unseen}"
    by_prior = looked_at[["moved", "groups_moved"]].max(axis=1).groupby(level="parameter", sort=False).max()
    deciding = by_prior[by_prior > DECIDES]
    if not deciding.empty:
        named = listed([f"{name} ({value:.2f} posterior sd)" for name, value in deciding.items()])
        return f"The prior decides, that of {named}: report what it was, and why.{unseen}"
    power = looked_at["power"].groupby(level="parameter", sort=False).first()
    felt = [f"that of {name} ({value:.2f})" for name, value in power[power > SENSITIVE].items()]
    these = f"{plural('prior', len(by_prior))} of {listed(by_prior.index)} {'does' if len(by_prior) == 1 else 'do'}"
    none = f"The {these} not decide" if left_out else "No prior decides"
    said = f"{none}: on these scales hyperparameters and {groups} move by {by_prior.max():.2f} posterior sd at most"
    powers = f"; {heterogeneity} is sensitive to powers of a prior, {listed(felt)}" if felt else ""
    return f"{said} (prior of {by_prior.idxmax()}){powers}.{unseen}"
