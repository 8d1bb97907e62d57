"""One new patient, by what a cohort teaches and what the patient brings, without fitting the cohort again."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr

from hbm_zoo.diagnostics.new_rows import all_brought, labelled
from hbm_zoo.diagnostics.person import DRAWS_OF_PERSON, fit_of_patients
from hbm_zoo.diagnostics.updating import weights_after
from hbm_zoo.frames.rules import FrameError, FrameWarning
from hbm_zoo.group_level.dosing import check_doses, joined
from hbm_zoo.inference.completion import add_groups
from hbm_zoo.inference.convergence import convergence
from hbm_zoo.inference.fits import efficiency, free, hyperparameters, prepared, priors_of, thinned
from hbm_zoo.inference.fitting import data_hash
from hbm_zoo.inference.nodes import apart, as_groups, with_nodes
from hbm_zoo.inference.sampling import refit
from hbm_zoo.model import HierarchicalModel
from hbm_zoo.words import plural

#: Times the weight of the heaviest of a cohort, or of the lightest, beyond which it is in another unit.
FAR = 10.0


def personalise(
    fit: xr.DataTree, rows: pd.DataFrame, random_seed: int = 0, model: HierarchicalModel | None = None
) -> xr.DataTree:
    """A fit of one new patient: what the cohort teaches, and the patient's own doses and samples, without a refit.

    Parameters
    ----------
    fit : xarray.DataTree
        Of the cohort, the patient not in it.
    rows : pandas.DataFrame
        All there is of the patient, with the columns of the model: doses, and no, one or more samples in any order.
        With a further sample ask again with all of them.
    random_seed : int
        Seed of nodes and draws.
    model : HierarchicalModel, optional
        The record of a model that is not in the zoo.

    Returns
    -------
    xarray.DataTree
        As `fit`, of one patient: `hz.groups`, `hz.predict`, `curve`, `exposure` and `dose_for` take it. Its attrs hold
        the proof: ``k_hat`` of the weights of the cohort's draws, ``effective_draws``, ``effective_nodes`` (at the
        median draw, and ``fewest_nodes``, at any), ``refitted``, and a sentence, ``personalised``. What few nodes leave
        open is in the ``mcse`` of every number.

    Raises
    ------
    FrameError
        If the rows are not those of one patient, with a dose, who is new to the fit.

    Warns
    -----
    ConvergenceWarning
        If the cohort had to be fitted again, and that fit cannot be trusted.
    FrameWarning
        If samples are far from what typical values expect of the doses, or the weight is far from the cohort's:
        another unit, most likely.

    Notes
    -----
    P(theta, h | cohort, y) is proportional to sum_s delta(h_s) N(theta; mu_s, Omega_s) p(y | theta, sigma_s) over draws
    h_s of the cohort's fit: draws are weighted by the patient's marginal likelihood, and theta is known on nodes given
    each; `predict` does the same with rows that a new patient brings. Where k-hat says that the draws cannot follow,
    an unusual patient in a small cohort say, the cohort is fitted again with the patient in it.
    """
    record = fit_of_patients(fit, model, "personalise")
    data, cohort = _of_one_new_patient(record, fit, rows)
    _warn_of_units(record, data, cohort, priors_of(fit))
    label = data["patient"].values[0]
    h, priors = _one_a_draw(fit, hyperparameters(fit)), priors_of(fit)
    seen = with_nodes(record, data, priors, random_seed, h)
    after = weights_after(record, fit, h, seen)
    if after.holds:
        h, worth = (
            after.resampled(h, np.random.default_rng(random_seed)),
            efficiency(fit) * after.ess / after.weight.size,
        )
    else:
        both = joined(apart(cohort)[0], data)
        again = refit(fit, with_nodes(record, both, priors, random_seed, h), random_seed, record)
        convergence({"with the patient": again})
        h, worth = _one_a_draw(fit, hyperparameters(again)), efficiency(again)
        seen = with_nodes(record, data, priors, random_seed, h)
    attrs = {"efficiency": worth, "seed": random_seed, "data_hash": data_hash(data)}
    tree = _as_fit(fit, h, seen, attrs)
    known = record.group_level.conditional(thinned(h, DRAWS_OF_PERSON), seen)
    proof = _numbers(after, 1 / (known.weight**2).sum("node"))
    tree.attrs |= proof | {"personalised": _proof(label, int(data.seen.sum()), after, proof)}
    add_groups(record, tree, seen)
    return tree


def _of_one_new_patient(
    record: HierarchicalModel, fit: xr.DataTree, rows: pd.DataFrame
) -> tuple[xr.Dataset, xr.Dataset]:
    """The patient's data, and the cohort's, labels as text."""
    data = all_brought(record, fit, rows)
    check_doses(data)
    labels = data["patient"].values.tolist()
    if len(labels) != 1:
        raise FrameError(f"personalise expected the rows of one patient, got {len(labels)}: {', '.join(labels[:5])}.")
    cohort = labelled(record, prepared(fit))
    if labels[0] in cohort["patient"].values:
        raise FrameError(
            f"Patient {labels[0]} is in the fit already: `curve` and the others take patient={labels[0]!r}; "
            "with a further sample give the cohort's fit all rows of the patient again."
        )
    return data, cohort


def _warn_of_units(record: HierarchicalModel, data: xr.Dataset, cohort: xr.Dataset, priors: Mapping[str, Any]) -> None:
    """Say what is most likely another unit: a single patient may be as unusual, which a cohort is not."""
    label = data["patient"].values[0]
    if sentence := record.extras.contradiction(data, priors):
        warnings.warn(f"Patient {label}: {sentence}", FrameWarning, stacklevel=3)
    size, low, high = (float(value) for value in (data.size_V[0], cohort.size_V.min(), cohort.size_V.max()))
    if not low / FAR <= size <= high * FAR:
        warnings.warn(
            f"Patient {label}: a volume of {size / high if size > high else size / low:.2g} times that "
            f"of the {'heaviest' if size > high else 'lightest'} of the cohort: is column 'weight' in kg?",
            FrameWarning,
            stacklevel=3,
        )


def _one_a_draw(fit: xr.DataTree, h: xr.Dataset) -> xr.Dataset:
    """Hyperparameters, one for each draw, even if the pooling fixes them all."""
    sizes = fit["posterior"].sizes
    return h if h.sizes["sample"] > 1 else h.isel(sample=np.zeros(sizes["chain"] * sizes["draw"], int))


def _as_fit(fit: xr.DataTree, h: xr.Dataset, seen: xr.Dataset, attrs: Mapping[str, Any]) -> xr.DataTree:
    """A fit with other draws and data."""
    sizes = fit["posterior"].sizes
    shape = sizes["chain"], h.sizes["sample"] // sizes["chain"]
    coords = {"chain": np.arange(shape[0]), "draw": np.arange(shape[1])}
    drawn = {name: (("chain", "draw"), h[name].values[: np.prod(shape)].reshape(shape)) for name in free(fit)}
    tree = xr.DataTree.from_dict({"posterior": xr.Dataset(drawn, coords)} | as_groups(seen))
    tree.attrs = dict(tree.attrs) | dict(fit.attrs) | dict(attrs)
    return tree


def _numbers(after, nodes: xr.DataArray) -> dict[str, float]:
    """Those of the proof: of the draws that are weighted, and of the nodes that are effective at each."""
    return {
        "k_hat": after.k_hat,
        "effective_draws": after.ess,
        "effective_nodes": float(nodes.median()),
        "fewest_nodes": float(nodes.min()),
        "refitted": int(not after.holds),
    }


def _proof(label: str, samples: int, after, proof: Mapping[str, float]) -> str:
    """The proof in words."""
    weighted = f"{proof['effective_draws']:.0f} of {after.weight.size} draws of the cohort are effective"
    stand = after.k_hat == -np.inf  # weights that are all the same have no tail
    said = "the cohort's draws stand as they are" if stand else f"{weighted} (k-hat {after.k_hat:.2f})"
    ending = "; these cannot follow: the cohort was fitted again with the patient" if proof["refitted"] else ""
    nodes = f"{proof['effective_nodes']:.0f} nodes are effective at the median draw, {proof['fewest_nodes']:.0f} at any"
    return f"Patient {label}, {samples} {plural('sample', samples)}: {said}, {nodes}{ending}."
