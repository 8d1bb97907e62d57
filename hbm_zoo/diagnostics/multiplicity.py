"""Which of thousands of groups differ from nothing? A list, and how many of it are expected to be wrong."""

from __future__ import annotations

import json
import warnings

import numpy as np
import pandas as pd
import xarray as xr
from scipy import stats

from hbm_zoo.inference.chunks import each_group, log_joint
from hbm_zoo.inference.fits import (
    LABEL,
    hyperparameters,
    model_of,
    options,
    population_fixed_at,
    prepared,
    priors_of,
    thinned,
    word,
)
from hbm_zoo.model import HierarchicalModel

STRONG_EVIDENCE = float(np.log(20))
DRAWS = 400


class SlabNotIdentified(UserWarning):
    """The data say nothing about effects that are not 0: there may be none."""


class NoiseMayHaveHeavyTails(UserWarning):
    """Noise with heavy tails would explain the data as well as effects do, or better."""


#: Measured: docs/discoveries.md of the package.
BOTH_FREE = (
    "Null and slab are both free: of simulated lists like this one 6 to 7 % were false where 5 % were promised "
    "(docs/discoveries.md)."
)


def discoveries(
    fit: xr.DataTree,
    fdr: float = 0.05,
    min_effect: float | None = None,
    model: HierarchicalModel | None = None,
) -> pd.DataFrame:
    """List the groups that differ, at most a share `fdr` of the list being wrong on average.

    Parameters
    ----------
    fit : xarray.DataTree
        Partial pooling of a model with a null group, such as ``spike_slab_genes``.
    fdr : float
        Largest Bayesian false discovery rate of the list; 1 lists every group.
    min_effect : float, optional
        Smallest effect worth finding [unit of the effect]: a discovery is wrong if its
        effect is no larger than this. Default: if its effect is 0.
    model : HierarchicalModel, optional
        The record of a model that is not in the zoo.

    Returns
    -------
    pandas.DataFrame
        Indexed by group, the surest first: ``effect``, ``standard_error``; posterior ``mean``
        and interval; ``lfdr`` = P(effect is 0 | data); with `min_effect`, ``p_within`` =
        P(abs(effect) <= min_effect | data); ``lfsr`` = lfdr + the smaller of P(effect > 0) and
        P(effect < 0); ``s_value``, the mean lfsr of all groups whose lfsr is no larger;
        ``p_value``, two-sided, of effect / standard_error; ``bayesian_fdr``, the mean lfdr (or
        p_within) of the list down to this row. In ``attrs``: how many groups, discoveries, and
        what Bonferroni and Benjamini-Hochberg at level `fdr` and plain p < 0.05 would list;
        ``log_evidence`` and ``log_evidence_over_t`` [nats], ``t_degrees`` and ``identified``, see the
        notes; ``verdict``, in sentences.

    Raises
    ------
    ValueError
        If the fit has no null group, or a number is out of range.

    Warns
    -----
    SlabNotIdentified
        If the data do not tell the slab from nothing. Then nothing is listed.
    NoiseMayHaveHeavyTails
        If a slab is identified, but noise from a t would explain the data as well, or better.

    Notes
    -----
    Local and Bayesian false discovery rate: Efron (2008) Statist Sci 23:1-22;
    lfsr and s-value: Stephens (2017) Biostatistics 18:275-294.

    The slab counts as identified if the log likelihood, averaged over the posterior, exceeds that
    of no slab at all by log 20 = 3 nats, the usual mark of strong evidence (Kass & Raftery 1995, J Am
    Stat Assoc 90:773-795). That null has the centre and the width of the z scores under every
    option: z scores with a sd of 1.3 are a wide null, and no evidence for a slab. Where it is not
    identified, draws of the slab's width are draws of its prior, or of the null's. P values, and
    the counts made of them, are those of the theoretical null.

    The slab is compared, too, with z scores from a t, its centre, width and degrees of freedom those that
    suit them best. One z score a group hardly tells heavy tails of noise from a few effects
    (docs/discoveries.md says how often which is ahead), so where the t is ahead the list stays, and
    a sentence says that it rests on the noise being normal.

    Examples
    --------
    >>> import hbm_zoo as hz
    >>> frame = hz.load_data("simulated_genes")
    >>> fit = hz.fit("spike_slab_genes", frame, random_seed=1, progressbar=False)
    >>> hz.discoveries(fit).attrs["discoveries"] > hz.discoveries(fit).attrs["bonferroni"]
    True
    """
    record = model_of(fit, model)
    require_null_group(fit, "discoveries")
    _check_numbers(fdr, min_effect)
    data, summary = prepared(fit), fit["group_summary"].to_dataset()
    p_value = 2 * stats.norm.sf(np.abs(data.effect / data.standard_error))
    table = _table(summary, data, p_value)
    if min_effect:
        table.insert(table.columns.get_loc("lfsr"), "p_within", _p_within(record, fit, data, min_effect))
    table = table.sort_values("p_within" if min_effect else "lfdr", kind="stable")
    table["bayesian_fdr"] = table["p_within" if min_effect else "lfdr"].expanding().mean()
    evidence = _evidence(record, fit, data)
    found = table[(table["bayesian_fdr"] <= fdr) & evidence["identified"]]
    found.attrs = {
        "fdr": fdr,
        "min_effect": min_effect,
        "groups": len(table),
        "discoveries": len(found),
        "bonferroni": int((p_value * p_value.size <= fdr).sum()),
        "benjamini_hochberg": int((stats.false_discovery_control(p_value) <= fdr).sum()),
        "p_below_0.05": int((p_value < 0.05).sum()),
        "null": options(fit).get("null", "theoretical"),
        "slab": options(fit).get("slab", "normal"),
        **evidence,
    }
    found.attrs["verdict"] = _verdict(found, word(fit, record.group))
    if not evidence["identified"]:
        warnings.warn(found.attrs["verdict"], SlabNotIdentified, stacklevel=2)
    elif may_be_noise(found):
        warnings.warn(_rests_on_normal_noise(found), NoiseMayHaveHeavyTails, stacklevel=2)
    return found


def may_be_noise(found: pd.DataFrame) -> bool:
    """Whether there is a list, and noise from a t would explain the data as well, or better."""
    return len(found) > 0 and found.attrs["log_evidence_over_t"] < 0


def has_null_group(fit: xr.DataTree) -> bool:
    """Whether it is partial pooling of a model in which some groups may have no effect at all."""
    return fit.attrs["pooling"] == "partial" and "lfdr" in fit["group_summary"]


def require_null_group(fit: xr.DataTree, what: str) -> None:
    """Refuse, in the name of a function, a fit in which no group may have no effect at all.

    Raises
    ------
    ValueError
        If the fit is not partial pooling of a model with a null group.
    """
    if not has_null_group(fit):
        raise ValueError(
            f"{what} needs partial pooling of a model in which some groups may have no effect at all, such as "
            f"spike_slab_genes; got {fit.attrs['pooling']} pooling of {fit.attrs['model']}."
        )


def _check_numbers(fdr: float, min_effect: float | None) -> None:
    if not 0 < fdr <= 1:
        raise ValueError(f"fdr must be above 0 and at most 1, got {fdr!r}.")
    if min_effect is not None and not min_effect >= 0:
        raise ValueError(f"min_effect must be 0 or more, got {min_effect!r}.")


def _table(summary: xr.Dataset, data: xr.Dataset, p_value: np.ndarray) -> pd.DataFrame:
    """Every group's own effect, posterior and error probabilities."""
    below = 1 - summary["lfdr"] - summary["p_above"]
    lfsr = summary["lfdr"] + np.minimum(summary["p_above"], below).clip(min=0)
    columns = {name: summary[name] for name in [LABEL] if name in summary}
    columns |= {name: data[name] for name in ("effect", "standard_error")}
    columns |= {name: summary[name] for name in ("mean", *sorted(n for n in map(str, summary) if n.startswith("eti")))}
    columns |= {"lfdr": summary["lfdr"], "lfsr": lfsr, "s_value": _s_value(lfsr), "p_value": lfsr.copy(data=p_value)}
    return xr.Dataset(columns).to_dataframe()


def _s_value(lfsr: xr.DataArray) -> xr.DataArray:
    """Mean lfsr of the groups whose lfsr is no larger (Stephens 2017)."""
    ordered = np.sort(lfsr.values)
    mean = np.cumsum(ordered) / np.arange(1, ordered.size + 1)
    return lfsr.copy(data=mean[np.searchsorted(ordered, lfsr.values, side="right") - 1])


def _p_within(record: HierarchicalModel, fit: xr.DataTree, data: xr.Dataset, size: float) -> np.ndarray:
    """P(abs(theta) <= size | data) of each group, averaged over hyperparameter draws."""
    h = thinned(hyperparameters(fit), DRAWS)

    def within(part: xr.Dataset) -> xr.DataArray:
        posterior = record.group_level.conditional(h, part)
        return (posterior.cdf(size) - posterior.cdf(-size)).mean("sample")

    return each_group(record, data, h.sizes["sample"], within).values


def _evidence(record: HierarchicalModel, fit: xr.DataTree, data: xr.Dataset) -> dict:
    """Log likelihoods averaged over the posterior, less those of a wide null and of noise from a t [nats]."""
    with_slab = float(log_joint(record, thinned(hyperparameters(fit), DRAWS), data).mean())
    over_nothing, (heavy, degrees) = with_slab - _without_slab(record, fit, data), noise_from_a_t(data)
    return {
        "log_evidence": over_nothing,
        "log_evidence_over_t": with_slab - heavy,
        "t_degrees": degrees,
        "identified": over_nothing >= STRONG_EVIDENCE,
    }


def _without_slab(record: HierarchicalModel, fit: xr.DataTree, data: xr.Dataset) -> float:
    """Log likelihood of a null with the centre and width of the z scores, and nothing else [nats]."""
    z = data.effect / data.standard_error
    best_null = {"delta0": float(z.mean()), "sigma0": float(z.std())}
    nothing = record.fixed["complete"](priors_of(fit), data) | {record.location: 0.0}
    no_slab = population_fixed_at(json.loads(fit.attrs["fixed"]) | nothing | best_null)
    return log_joint(record, no_slab, data).item()


def noise_from_a_t(data: xr.Dataset) -> tuple[float, float]:
    """Largest log density of effects whose z scores are from one t [nats], and its degrees of freedom."""
    se = data.standard_error.values
    z = data.effect.values / se
    degrees, centre, width = stats.t.fit(z, 5, loc=np.median(z), scale=stats.median_abs_deviation(z, scale="normal"))
    return float((stats.t.logpdf(z, degrees, centre, width) - np.log(se)).sum()), float(degrees)


def _verdict(found: pd.DataFrame, group: str) -> str:
    """What the list says, in a sentence."""
    attrs = found.attrs
    if not attrs["identified"]:
        return (
            f"Slab not identified: that no {group} differs explains the data about as well, the null as wide as the z "
            f"scores (with a slab the log likelihood is {attrs['log_evidence']:+.1f} nats; {STRONG_EVIDENCE:+.1f} are "
            "needed). No discoveries."
        )
    larger = f" by more than {attrs['min_effect']:g}" if attrs["min_effect"] else ""
    against = "" if attrs["null"] == "theoretical" else "with standard errors taken at their word "
    wrong = found["bayesian_fdr"].iloc[-1] * len(found) if len(found) else 0.0
    normal = f" {_rests_on_normal_noise(found)}" if may_be_noise(found) else ""
    normal += f" {BOTH_FREE}" if len(found) and (attrs["null"], attrs["slab"]) == ("empirical", "unimodal") else ""
    return (
        f"{len(found):,} of {attrs['groups']:,} {group}s differ{larger}, {wrong:.1f} of them expected to be wrong "
        f"(Bayesian false discovery rate at most {attrs['fdr']:g}); {against}Bonferroni lists {attrs['bonferroni']:,}, "
        f"Benjamini-Hochberg {attrs['benjamini_hochberg']:,}, plain p < 0.05 {attrs['p_below_0.05']:,}.{normal}"
    )


def _rests_on_normal_noise(found: pd.DataFrame) -> str:
    """What a list takes for granted, where the data do not show it."""
    behind, degrees = -found.attrs["log_evidence_over_t"], found.attrs["t_degrees"]
    better = "better" if behind >= STRONG_EVIDENCE else "as well"
    return (
        f"The list rests on normal noise: that nothing differs, and the noise is a t with {degrees:.1f} degrees of "
        f"freedom, explains the data {better} (by {behind:.1f} nats). If what was divided by its standard error are t "
        "statistics, turn them into z scores first."
    )
