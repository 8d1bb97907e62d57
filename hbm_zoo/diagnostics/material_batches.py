"""A verb of `material_batches` alone: what a customer may count on."""

from __future__ import annotations

import numpy as np
import pandas as pd
import xarray as xr
from scipy import stats
from scipy.optimize import elementwise

from hbm_zoo.frames.labels import one, text
from hbm_zoo.group_level.averages import quantile
from hbm_zoo.group_level.nested import families_after, of_families
from hbm_zoo.group_level.populations import Normal
from hbm_zoo.inference.fits import efficiency, hyperparameters, model_of, prepared, priors_of, word
from hbm_zoo.model import KEY, HierarchicalModel
from hbm_zoo.priors import moments
from hbm_zoo.words import choose, plural

SPECIMENS, NEXT = "specimens of new batches", "next batch"
SIDES = ("lower", "upper", "both")
#: Of the classical value: fewest batches, and the level of its tests.
FEWEST_BATCHES, LEVEL = 5, 0.05


def tolerance_bound(
    fit: xr.DataTree,
    content: float = 0.90,
    confidence: float = 0.95,
    of: str = SPECIMENS,
    campaign: object = None,
    side: str = "lower",
    model: HierarchicalModel | None = None,
) -> pd.DataFrame:
    """Bound what batches to come will hold: a tolerance bound, and two other numbers it is taken for.

    Parameters
    ----------
    fit : xarray.DataTree
        Partial or complete pooling of ``material_batches``.
    content, confidence : float
        Share of specimens that the bound is to keep, and the posterior probability that it does: 0.90 and 0.95 as
        in a B-basis, 0.99 and 0.95 as in an A-basis.
    of : {"specimens of new batches", "next batch"}
        Two promises: ``content`` of all specimens of batches to come lie beyond the bound; or of those of the one next
        batch. Either may be the lower: the former must allow for all that is not known of how batches differ, the
        latter for the chance that the one batch is weak. With few batches the former is.
    campaign : optional
        The label of a known campaign that the batches will be of. Default: a campaign never seen.
    side : {"lower", "upper", "both"}
        Where the bound lies; "both" is an interval around the posterior mean of the centre.
    model : HierarchicalModel, optional
        The record of a model that is not in the zoo.

    Returns
    -------
    pandas.DataFrame
        Columns ``lower`` and ``upper`` [unit of strength], whichever are asked for, ``mcse``, their Monte Carlo error,
        and ``promise``, in words. First row: the tolerance bound. Then ``one specimen``, the predictive quantile: a
        single new specimen lies beyond it with probability ``content``; on average, not with confidence. Of one side,
        for specimens of batches of any campaign, ``one-way ANOVA`` is the classical value, which knows no campaigns
        and no prior, with what speaks against it. ``attrs`` has the content, the confidence, the side and the campaign
        that were asked for.

    Raises
    ------
    ValueError
        If the fit is of another model, of no pooling or a plug-in estimate, a name is unknown, or a share is not
        between 0 and 1.

    Notes
    -----
    Given the spreads, the quantile that the bound is about is normal: centre - z spread, with the centre mu or mu_c
    after the data, and the bound is the quantile of these normals averaged over draws. Of the next batch, a fresh
    batch's own mean less z sigma. How often bounds under the default priors hold, measured by simulation, is in
    ``docs/tolerance.md``. Classical: Vangel (1992), Technometrics 34:430-441, as in CMH-17 (2012), section 8.3.5.7.

    Examples
    --------
    >>> import hbm_zoo as hz
    >>> fit = hz.fit("material_batches", hz.load_data("pastes"), random_seed=1, progressbar=False)
    >>> table = tolerance_bound(fit)
    >>> list(table.index), bool(table["lower"].iloc[0] < table["lower"].iloc[1])
    (['specimens of new batches', 'one specimen', 'one-way ANOVA'], True)
    """
    of, side = choose(of, (SPECIMENS, NEXT), "of"), choose(side, SIDES, "side")
    for name, value in (("content", content), ("confidence", confidence)):
        if not isinstance(value, float) or not 0 < value < 1:
            raise ValueError(f"{name} must lie between 0 and 1, got {value!r}.")
    record, data = _checked(fit, model), prepared(fit)
    centre, spread, of_batch = to_come(record, fit, campaign)
    z, worth = stats.norm.ppf(content), spread.size * efficiency(fit)
    if side == "both":
        first = _around(fit, centre, spread, of_batch, of, content, confidence, worth)
        tail = (1 - content) / 2
    else:
        down = side == "lower"
        first = _quantile(bounded(centre, spread, of_batch, of, -z if down else z), confidence, side, worth)
        tail = 1 - content
    alone = Normal(centre.mean, (centre.sd**2 + spread**2) ** 0.5)
    rows = {of: first | {"promise": _promise(fit, data, of, content, confidence, campaign)}}
    ends = [end for end in ("lower", "upper") if side in (end, "both")]
    of_one = [_quantile(alone, 1 - tail, end, worth) for end in ends]
    rows["one specimen"] = {end: found[end] for end, found in zip(ends, of_one, strict=True)} | {
        "mcse": max(found["mcse"] for found in of_one),
        "promise": f"one new specimen lies there with probability {100 * content:.12g} %",
    }
    if side != "both" and of == SPECIMENS and campaign is None:
        value, against = anova_basis(data, content, confidence, side)
        said = "classical" + (f"; {'; '.join(against)}" if against else "")
        rows["one-way ANOVA"] = {side: value, "mcse": np.nan, "promise": said}
    table = pd.DataFrame.from_dict(rows, orient="index")[[*ends, "mcse", "promise"]].rename_axis("bound")
    table.attrs |= {"content": content, "confidence": confidence, "side": side, "campaign": campaign}
    return table


def _checked(fit: xr.DataTree, model: HierarchicalModel | None) -> HierarchicalModel:
    """The record of a fit that says what batches to come are of."""
    record, pooling = model_of(fit, model), fit.attrs["pooling"]
    if not {"mu", "sigma_c", "sigma_b", "sigma"} <= set(record.parameters):
        raise ValueError(f"tolerance_bound is of fits of material_batches, got one of {record.name}.")
    if pooling not in ("partial", "complete"):
        why = {"none": "No pooling says nothing of the next batch but its prior"}
        raise ValueError(
            f"{why.get(pooling, 'A plug-in estimate takes the spreads for known')}: give a fit of partial pooling."
        )
    return record


def to_come(record: HierarchicalModel, fit: xr.DataTree, campaign: object) -> tuple[Normal, xr.DataArray, xr.DataArray]:
    """Of batches to come, by draw: where they lie, known up to a normal; the spread of specimens, and of batches."""
    h, data = hyperparameters(fit), prepared(fit)
    if campaign is None:
        between = h.sigma_c**2 + h.sigma_b**2
        return _grand_mean(fit, h, data), np.sqrt(between + h.sigma**2), np.sqrt(between)
    labels = text(pd.Series(data["campaign"].values)).tolist()
    at = labels.index(choose(one(campaign), labels, "campaign"))
    known = families_after(h, data)
    centre = Normal(known.mean.isel(campaign=at, drop=True), known.sd.isel(campaign=at, drop=True))
    return centre, np.sqrt(h.sigma_b**2 + h.sigma**2), h.sigma_b


def _grand_mean(fit: xr.DataTree, h: xr.Dataset, data: xr.Dataset) -> Normal:
    """Mu given the spreads: normal, if its prior is; else the draws themselves."""
    prior = priors_of(fit)["mu"]
    if prior.distribution != "Normal" or prior.transform:
        return Normal(h.mu, xr.zeros_like(h.mu))
    mean, variance = moments("mu", prior)
    _, W, of_campaign, _ = of_families(h, data)
    weight = W / (1 + W * h.sigma_c**2)
    precision = 1 / variance + weight.sum("campaign")
    return Normal((mean / variance + (weight * of_campaign).sum("campaign")) / precision, precision**-0.5)


def bounded(centre: Normal, spread: xr.DataArray, of_batch: xr.DataArray, of: str, z: float) -> Normal:
    """What a one-sided bound is a quantile of: the z-quantile of all specimens, or of those of a fresh batch."""
    if of == SPECIMENS:
        return Normal(centre.mean + z * spread, centre.sd)
    sigma = np.sqrt(spread**2 - of_batch**2)
    return Normal(centre.mean + z * sigma, (centre.sd**2 + of_batch**2) ** 0.5)


def _quantile(population: Normal, probability: float, side: str, worth: float) -> dict[str, float]:
    """Beyond which the population lies with a probability, averaged over draws; and its Monte Carlo error."""
    p = 1 - probability if side == "lower" else probability
    value = float(quantile(population, p))
    with np.errstate(divide="ignore", invalid="ignore"):
        below = xr.where(population.sd > 0, population.cdf(value), population.mean <= value)
    aside = float(below.std()) / np.sqrt(worth)
    low, high = (float(quantile(population, np.clip(p + s * aside, 1e-9, 1 - 1e-9))) for s in (-1, 1))
    return {side: value, "mcse": (high - low) / 2}


def _around(fit, centre: Normal, spread, of_batch, of: str, content: float, confidence: float, worth: float) -> dict:
    """An interval around the mean of the centre that keeps the content with a confidence."""
    rng, middle = np.random.default_rng(fit.attrs["seed"]), float(centre.mean.mean())
    if of == SPECIMENS:
        of_specimens, sd = centre.sample(rng), spread
    else:
        of_specimens = Normal(centre.mean, (centre.sd**2 + of_batch**2) ** 0.5).sample(rng)
        sd = np.sqrt(spread**2 - of_batch**2)
    away, sd = abs(of_specimens - middle).values, np.broadcast_to(sd, of_specimens.shape)

    def lacking(k, away, sd):
        return stats.norm.cdf((k - away) / sd) - stats.norm.cdf((-k - away) / sd) - content

    half = elementwise.find_root(lacking, (np.zeros_like(away), away + 10 * sd), args=(away, sd)).x
    aside = np.sqrt(confidence * (1 - confidence) / worth)
    low, k, high = np.quantile(half, np.clip([confidence - aside, confidence, confidence + aside], 0, 1))
    return {"lower": middle - k, "upper": middle + k, "mcse": (high - low) / 2}


def _promise(fit: xr.DataTree, data: xr.Dataset, of: str, content: float, confidence: float, campaign: object) -> str:
    """What a tolerance bound says, in the words of the data's owner."""
    above, group = word(fit, "campaign"), word(fit, "batch")
    if data.sizes["campaign"] > 1:
        where = f", of a {above} never seen," if campaign is None else f", of {above} {campaign},"
    else:
        where = f", of this {above}," if "campaign" in data.attrs.get(KEY, "") else ""
    whose = f"specimens of {plural(group)} to come" if of == SPECIMENS else f"the next {group}'s specimens"
    return f"{100 * content:.12g} % of {whose}{where} lie there with posterior probability {100 * confidence:.12g} %"


def anova_basis(data: xr.Dataset, content: float, confidence: float, side: str = "lower") -> tuple[float, list[str]]:
    """The classical basis value of batches as one level, and what speaks against it.

    Vangel (1992), Technometrics 34:430-441; CMH-17 (2012), section 8.3.5.7: between the factor of independent
    specimens and that of as many as there are batches, by the ratio of the mean squares.
    """
    n, y_bar, SS = (data[name].values.astype(float) for name in ("n", "y_bar", "SS"))
    k, total = n.size, n.sum()
    if k < 2 or total <= k:
        return np.nan, ["not defined for one batch, or one specimen a batch"]
    mean = (n * y_bar).sum() / total
    between = (n * (y_bar - mean) ** 2).sum() / (k - 1)
    within = SS.sum() / (total - k)
    typical = (total - (n**2).sum() / total) / (k - 1)
    sd = np.sqrt(between / typical + (typical - 1) / typical * within)
    u = max(between / within, 1.0)
    w = np.sqrt(u / (u + typical - 1))
    all_alike, all_apart = (_factor(size, content, confidence) for size in (total, k))
    factor = (all_alike - all_apart / np.sqrt(typical) + (all_apart - all_alike) * w) / (1 - 1 / np.sqrt(typical))
    return float(mean - factor * sd if side == "lower" else mean + factor * sd), _against(data)


def _factor(n: float, content: float, confidence: float) -> float:
    """Of n independent specimens: quantile of a noncentral t (Odeh & Owen 1980, Tables for Normal Tolerance Limits)."""
    return float(stats.nct.ppf(confidence, n - 1, stats.norm.ppf(content) * np.sqrt(n)) / np.sqrt(n))


def _against(data: xr.Dataset) -> list[str]:
    """Preconditions of the classical value that do not hold."""
    found, n = [], data.n.values
    if n.size < FEWEST_BATCHES:
        found.append(f"{n.size} batches, fewer than {FEWEST_BATCHES}")
    if data.sizes["campaign"] > 1:
        found.append("campaigns are not in it")
    by_batch = [data.strength.values[data.batch_index.values == b] for b in range(n.size)]
    several = [rows for rows in by_batch if rows.size > 2]
    if len(several) > 1 and stats.levene(*several).pvalue < LEVEL:
        found.append("variances within batches differ (Levene)")
    labels = data["batch"].values
    if outlying := [str(labels[b]) for b, rows in enumerate(by_batch) if rows.size > 2 and _has_outlier(rows)]:
        found.append(f"outliers within {', '.join(outlying)} (maximum normed residual)")
    return found


def _has_outlier(rows: np.ndarray) -> bool:
    """Grubbs' test, both sides (CMH-17, section 8.3.3.1)."""
    n, sd = rows.size, rows.std(ddof=1)
    if sd == 0:
        return False
    t2 = stats.t.isf(LEVEL / (2 * n), n - 2) ** 2
    return abs(rows - rows.mean()).max() / sd > (n - 1) / np.sqrt(n) * np.sqrt(t2 / (n - 2 + t2))
