"""How strong is the evidence that groups differ at all?"""

from __future__ import annotations

import json
import warnings
from collections.abc import Iterable, Mapping, Sequence

import numpy as np
import pandas as pd
import xarray as xr
from pymc_extras.prior import Prior

from hbm_zoo.diagnostics.rescaled import check_scales, scaled, with_priors
from hbm_zoo.inference.chunks import log_joint
from hbm_zoo.inference.fits import (
    Fits,
    check_together,
    efficiency,
    free,
    hyperparameters,
    model_of,
    prepared,
    priors_of,
    settings,
    word,
)
from hbm_zoo.inference.free_parameters import FreeParameters, log_density, log_evidence
from hbm_zoo.model import HierarchicalModel
from hbm_zoo.priors import describe
from hbm_zoo.words import listed, plural

#: What a log Bayes factor is called from so many nats on (Kass & Raftery 1995, section 3.2).
DEGREES = ((5, "very strong"), (3, "strong"), (1, "positive"), (0, "not worth more than a bare mention"))


def evidence(
    fits: Fits, scales: Sequence[float] = (0.5, 1.0, 2.0), model: HierarchicalModel | None = None
) -> pd.DataFrame:
    """The Bayes factor of partial over complete pooling, with the priors of the spreads as they are and rescaled.

    Parameters
    ----------
    fits : dict of str to xarray.DataTree
        As `fit_poolings` returns them; it must hold complete and partial pooling.
    scales : sequence of float
        By how much the scale of each spread's prior is multiplied; each but 1 takes a refit.
    model : HierarchicalModel, optional
        The record of a model that is not in the zoo.

    Returns
    -------
    pandas.DataFrame
        Indexed by ``scale``: ``prior`` of the spreads, ``log_bayes_factor`` = log p(y | partial pooling) - log p(y |
        complete pooling) [nats] and its Monte Carlo error ``mcse``. ``attrs["verdict"]`` is a sentence, and
        ``attrs["scale"]`` says whose scale is taken from these data, empty where none is.

    Raises
    ------
    ValueError
        If a pooling is missing; complete pooling is not partial pooling with spreads of 0; a spread's prior has no
        density at 0, or an infinite one, so that the two are not nested; or it has no scale that is known here, and
        another than 1 is asked for.

    Notes
    -----
    Kass & Raftery (1995), J Am Stat Assoc 90:773-795. Both probabilities are bridges (Meng & Wong 1996, Stat Sinica
    6:831-860) from the posterior to a normal. A Bayes factor depends on the prior of the spreads however many data
    there are: the wider it is, the more it is against a spread; hence the three rows. The default priors of most
    models take their scales from the data, which then are used twice. The Savage-Dickey ratio is the same number, but
    no draw lies near 0 where it is large.

    Examples
    --------
    >>> import hbm_zoo as hz
    >>> fits = hz.fit_poolings("vaccine_clinics", hz.load_data("bcg_vaccine"), random_seed=1, progressbar=False)
    >>> hz.evidence(fits)["log_bayes_factor"].round(1).tolist()
    [57.5, 57.8, 57.5]
    """
    fits = check_together(fits)
    of = {fit.attrs["pooling"]: fit for fit in fits.values()}
    if not {"complete", "partial"} <= set(of):
        raise ValueError(f"evidence needs fits of complete and of partial pooling; got {', '.join(fits)}.")
    record, partial = model_of(of["partial"], model), of["partial"]
    check_scales(scales)
    spreads, used = spreads_of(record, of["complete"], partial), priors_of(partial)
    _check_shared(of["complete"], partial, spreads)
    lumped, error = _log_evidence(record, of["complete"])
    rows = {}
    for scale in scales:
        priors = {name: used[name] if scale == 1 else scaled(name, used[name], scale) for name in spreads}
        fit = partial if scale == 1 else with_priors(record, partial, priors)
        differing, mcse = _log_evidence(record, fit)
        said = ", ".join(f"{name} ~ {describe(prior)}" for name, prior in priors.items())
        rows[float(scale)] = {
            "prior": said,
            "log_bayes_factor": differing - lumped,
            "mcse": float(np.hypot(mcse, error)),
        }
    table = pd.DataFrame.from_dict(rows, orient="index").rename_axis("scale")
    of_same = f" of the same {listed(each.column for each in record.moderators)}" if record.moderators else ""
    own = partial["group_summary"]["own"].transpose(record.group, ...).values
    alike = bool((own == own[:1]).all())
    sentence = _sentence(table, spreads, plural(word(partial, record.group)) + of_same, alike)
    table.attrs["scale"] = of_these_data(record, prepared(partial), used, spreads)
    table.attrs["verdict"] = " ".join([sentence, *([f"The {table.attrs['scale']}."] if table.attrs["scale"] else [])])
    return table


def of_these_data(
    record: HierarchicalModel, data: xr.Dataset, used: Mapping[str, Prior], spreads: Iterable[str]
) -> str:
    """Which spreads have a default prior whose scale is that of the data: of half the responses it is another."""
    anew = record.extras.with_response
    if anew is None or record.response not in data:
        return ""
    default = record.default_priors(data)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of data that nobody has
        try:
            other = record.default_priors(anew(data, data[record.response].values / 2))
        except ValueError:
            return ""
    theirs = [n for n in spreads if describe(used[n]) == describe(default[n]) != describe(other[n])]
    return f"scale of the prior of {listed(theirs)} is taken from these data, which are used twice" if theirs else ""


def spreads_of(record: HierarchicalModel, complete: xr.DataTree, partial: xr.DataTree) -> list[str]:
    """The hyperparameters that complete pooling sets to 0 and partial pooling learns, their priors looked at."""
    fixed, learned = json.loads(complete.attrs["fixed"]), free(partial)
    spreads = [name for name in learned if fixed.get(name) == 0 and record.parameters[name].support[0] == 0]
    if record.heterogeneity not in spreads:
        raise ValueError(
            f"Complete pooling of {record.name} is not its partial pooling with {record.heterogeneity} = 0."
        )
    for name in spreads:
        prior = priors_of(partial)[name]
        if not np.isfinite(log_density(prior)(np.zeros(1))[0]):
            raise ValueError(
                f"The prior {describe(prior)} of {name!r} has no finite density above nothing at 0, which complete "
                "pooling takes for certain: no Bayes factor compares the two. Give it a half-normal, say."
            )
    return spreads


def _check_shared(complete: xr.DataTree, partial: xr.DataTree, spreads: list[str]) -> None:
    """Refuse fits that differ in more than the spreads: a Bayes factor would tell of that."""
    if settings(complete) != settings(partial):
        raise ValueError(
            f"evidence compares fits of the same options: that of complete pooling has {settings(complete) or 'none'}, "
            f"that of partial pooling {settings(partial) or 'none'}."
        )
    lumped, differing = priors_of(complete), priors_of(partial)
    for name in free(complete):
        if name not in spreads and describe(lumped[name]) != describe(differing[name]):
            raise ValueError(
                f"evidence compares fits whose priors differ in nothing but the spreads: that of {name!r} is "
                f"{describe(lumped[name])} under complete and {describe(differing[name])} under partial pooling."
            )


def _log_evidence(record: HierarchicalModel, fit: xr.DataTree) -> tuple[float, float]:
    """Log p(y) under a fit's pooling and its Monte Carlo error [nats]."""
    h, data = hyperparameters(fit), prepared(fit)
    if not free(fit):
        return float(log_joint(record, h, data).isel(sample=0)), 0.0
    rng = np.random.default_rng(int(fit.attrs["seed"]))
    return log_evidence(FreeParameters(record, fit), h, data, efficiency(fit), rng)


def _sentence(table: pd.DataFrame, spreads: list[str], groups: str, alike: bool) -> str:
    """What the Bayes factors say, and what moves them."""
    factors = table["log_bayes_factor"]
    first = 1.0 if 1.0 in factors.index else factors.index[0]
    factor, error = factors[first], table["mcse"][first]
    degree = next(word for least, word in DEGREES if abs(factor) >= least)
    event = "differ" if factor > 0 else "are all the same"
    others = factors.drop(index=first)
    told = listed([f"{value:.1f} at {scale:g} times it" for scale, value in others.items()]) if len(others) else ""
    of = f"at {first:g} times the scale of the prior of {listed(spreads)}" + (f", {told}" if told else "")
    doubt = ", and the prior decides which" if factors.min() < 0 < factors.max() else ""
    doubt += ", though their own estimates are the same and only priors tell them apart" if alike and factor > 0 else ""
    return (
        f"Evidence that {groups} {event} is {degree}{doubt}: the log Bayes factor of partial over complete pooling is "
        f"{factor:.1f} nats (MCSE {error:.2f}) {of}."
    )
