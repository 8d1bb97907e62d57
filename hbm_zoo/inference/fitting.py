"""Fit a model: compile once, draw the hyperparameters, recover the group level."""

from __future__ import annotations

import hashlib
import inspect
import json
from collections.abc import Iterable, Mapping
from functools import cache
from importlib.metadata import version
from types import ModuleType
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr
from arviz_base import rcParams
from pymc_extras.prior import Prior

from hbm_zoo.frames import labels
from hbm_zoo.frames.reading import NOT_USED, unused
from hbm_zoo.inference import completion, sampling
from hbm_zoo.inference.arguments import check_engine, check_sizes, settled_seed, split
from hbm_zoo.inference.asleep import asleep
from hbm_zoo.inference.convergence import convergence
from hbm_zoo.inference.fits import LABEL, hyperparameters
from hbm_zoo.inference.nodes import on_few_nodes, with_nodes
from hbm_zoo.model import POOLINGS, HierarchicalModel
from hbm_zoo.priors import to_json
from hbm_zoo.words import choose
from hbm_zoo.zoo import record_of

PILOT_DRAWS = 200
#: An attribute of the rows of one unit: the column by which it was told from others.
BY = "by"


@asleep("jax")
def fit(
    model: ModuleType | HierarchicalModel | str,
    frame: pd.DataFrame,
    pooling: str = "partial",
    parameterization: str | None = None,
    priors: Mapping[str, Prior | str] | None = None,
    draws: int = 1000,
    tune: int | None = None,
    chains: int = 4,
    random_seed: int | None = None,
    progressbar: bool = True,
    engine: str = "auto",
    label: str | None = None,
    **sampler,
) -> xr.DataTree:
    """Fit one pooling of a model, its group level integrated out, then recovered.

    Parameters
    ----------
    model : module, HierarchicalModel or str
        A model of the zoo: ``hz.hospital_readmission``, its record or its name.
    frame : pandas.DataFrame
        The data, with the model's columns.
    pooling : {"none", "complete", "partial"}
        Every group alone, all lumped, or learn from the data how much to share.
    parameterization : str, optional
        How the group level is written while sampling. Default: integrated out; exact
        independent draws where no hyperparameter is left to sample.
    priors : mapping of str to Prior or str, optional
        Replacements by name of the default priors; a text such as "HalfNormal(sigma=0.5)" is read as one.
    draws, chains : int
        Draws kept of each chain, and chains.
    tune : int, optional
        Warm-up draws of each chain, should it come to NUTS; 1000 if not given.
    random_seed : int, optional
        Seed; drawn and recorded if not given.
    progressbar : bool
        Show the sampler's progress.
    engine : {"auto", "independent", "nuts"}
        Independent draws, by importance sampling of a form of a few numbers; NUTS; or the former where it can be shown
        that they are of the posterior, and else NUTS: ``attrs["why_nuts"]`` says why. Where no hyperparameter is free
        there is nothing to choose: ``attrs["engine"]`` is "exact".
    label : str, optional
        A column of the frame with the name of each group beside its label: pictures and sentences call it so.
    **sampler
        Options of the model (``record.options``), or of NUTS, should it come to it. Without ``target_accept`` it is
        0.9, and 0.98 if a draw diverged.

    Returns
    -------
    xarray.DataTree
        Groups posterior, group_summary, sample_stats (of NUTS) or proposals (of independent draws, with the logs of
        their weights), log_likelihood (one value a
        group, its parameter integrated out [nats]; not under no pooling; of each observation
        given the groups for a model without a closed form), log_prior, prior,
        prior_predictive, posterior_predictive, observed_data, constant_data; attrs that
        describe the fit.

    Raises
    ------
    FrameError, ValueError
        If the frame, a name, a prior or an option is not what is expected, or the data rule the priors out.

    Warns
    -----
    ConvergenceWarning
        If the draws fail a check of `convergence`.

    Examples
    --------
    >>> import hbm_zoo as hz
    >>> frame = hz.load_data("three_hospitals")
    >>> alone = hz.fit("hospital_readmission", frame, pooling="none", random_seed=1)
    >>> alone["group_summary"]["mean"].round(2).values.tolist()
    [1.45, 0.58, 1.2]
    """
    record, options, sampler = split(record_of(model), sampler, frame)
    pooling = choose(pooling, record.variants, "pooling")
    if parameterization is not None:
        choose(parameterization, record.variants[pooling], f"parameterization of {pooling} pooling")
    check_engine(engine, tune, sampler)
    check_sizes(draws=draws, chains=chains)
    data = record.data(frame, **options)
    names = None if label is None else labels.names(frame, label, record.labels(frame))
    record.check_shareable(data, pooling)
    resolved = record.priors(data, priors, pooling)
    if record.extras.contradiction and (sentence := record.extras.contradiction(data, resolved)):
        raise ValueError(sentence)
    seed = settled_seed(random_seed)
    settings = {"draws": draws, "chains": chains, "seed": seed}
    of_engine = settings | {"tune": sampling.TUNE if tune is None else tune, "engine": engine}
    seen = placed_nodes(record, data, pooling, parameterization, resolved, of_engine)
    tree = sampling.sample(record, seen, pooling, parameterization, resolved, of_engine, progressbar, sampler)
    tree.attrs |= attributes(record, data, pooling, resolved) | _origin(frame, _used(record, options, label)) | settings
    completion.complete(record, tree, seen, resolved)
    if names is not None:
        called = names.reindex(data[record.group].values).to_numpy()
        tree["group_summary"] = tree["group_summary"].to_dataset().assign({LABEL: (record.group, called)})
        tree.attrs["labels"] = json.dumps(json.loads(tree.attrs["labels"]) | {LABEL: label})
    convergence(tree)
    return tree


def placed_nodes(record, data, pooling, parameterization, priors, settings) -> xr.Dataset:
    """The nodes of numerical integrals, where there are any: first rough ones, then, by a short fit, better placed.

    Nodes that are no coarser than the integrals can be are of the data alone, and placed once; so are those of complete
    pooling, which has no spread to place them by.
    """
    seen = with_nodes(record, data, priors, settings["seed"])
    if (
        seen is data
        or pooling == "complete"
        or record.group_level.log_sampled is None
        or set(record.fixed[pooling](priors, data)) >= set(record.parameters)
    ):
        return seen
    short = settings | {"draws": PILOT_DRAWS, "tune": PILOT_DRAWS, "chains": 2, "pilot": True}
    tree = sampling.draw(record, on_few_nodes(record, seen), pooling, parameterization, priors, short, False, {})
    fixed = record.fixed[pooling](priors, data)
    tree.attrs |= {"fixed": json.dumps(fixed), "hyperparameters": json.dumps(list(record.parameters))}
    return with_nodes(record, data, priors, settings["seed"], hyperparameters(tree))


def fit_poolings(model: ModuleType | HierarchicalModel | str, frame: pd.DataFrame, **same) -> dict[str, xr.DataTree]:
    """Fit no, complete and partial pooling on the same data.

    Parameters
    ----------
    model, frame
        As in `fit`.
    **same
        What `fit` takes, the same for each pooling. ``random_seed`` is drawn once if not given.

    Returns
    -------
    dict of str to xarray.DataTree
        Keys ``none``, ``complete``, ``partial``: ``az.plot_forest(fits)`` works; ``az.compare`` takes the last two, for
        where every group is alone no other tells anything of one that is left out.

    Raises
    ------
    FrameError, ValueError
        As `fit`.
    """
    if "pooling" in same:
        raise ValueError("fit_poolings fits every pooling: leave out 'pooling', or call fit for one.")
    same["random_seed"] = settled_seed(same.get("random_seed"))
    return {pooling: fit(model, frame, pooling=pooling, **same) for pooling in poolings_of(model, frame)}


_of_fit = inspect.signature(fit)
fit_poolings.__signature__ = _of_fit.replace(  # type: ignore[attr-defined]
    parameters=[parameter for name, parameter in _of_fit.parameters.items() if name != "pooling"],
    return_annotation=dict[str, xr.DataTree],
)


def poolings_of(model: ModuleType | HierarchicalModel | str, frame: pd.DataFrame) -> tuple[str, ...]:
    """The poolings that data allow: a single group, where the model takes one, has nothing to share."""
    record = record_of(model)
    alone = record.fewest_groups == 1 and isinstance(frame, pd.DataFrame) and set(record.key_columns) <= set(frame)
    return ("none",) if alone and record.labels(frame).nunique() == 1 else POOLINGS


def recover(
    idata: xr.DataTree,
    model: ModuleType | HierarchicalModel | str,
    frame: pd.DataFrame,
    random_seed: int | None = None,
    **options,
) -> xr.DataTree:
    """Add the group level to draws of the hyperparameters, whoever made them.

    Given hyperparameters and data a group's parameter is drawn exactly from its
    conditional distribution, one draw of it for each draw of the hyperparameters.

    Parameters
    ----------
    idata : xarray.DataTree
        Holds a ``posterior`` with the hyperparameters of partial pooling [chain, draw].
    model, frame
        As in `fit`.
    random_seed : int, optional
        Seed of the draws.
    **options
        Options of the model (``record.options``).

    Returns
    -------
    xarray.DataTree
        A copy of `idata` whose posterior has the estimand by group as well.

    Raises
    ------
    ValueError
        If the model does not say what is known of a group after its data, a hyperparameter is missing, or there is
        one group, which has nothing to share.
    """
    record, options = record_of(model).split(options, frame)
    record.ask("recover", "conditional")
    posterior = idata["posterior"].to_dataset()
    data = record.data(frame, **options)
    record.check_shareable(data, "partial")
    priors = record.priors(data, pooling="partial")
    fixed = record.fixed["partial"](priors, data)
    needed = [name for name in record.parameters if name not in fixed]
    seed = settled_seed(random_seed)
    missing = [name for name in needed if name not in posterior]
    if missing:
        raise ValueError(f"Expected draws of {', '.join(needed)}; the posterior has no {', '.join(missing)}.")
    h = posterior[needed].assign(fixed)
    data = with_nodes(record, data, priors, seed, h.stack(sample=("chain", "draw"), create_index=False))
    draws = completion.recovered(record, h, data, np.random.default_rng(seed))
    recovered = idata.copy()
    reported = record.group_level.reported(draws, data)
    recovered["posterior"] = xr.DataTree(posterior.assign({record.estimand: reported}))
    return recovered


def attributes(record, data, pooling, priors) -> dict[str, Any]:
    """What makes a fit describe itself."""
    return {
        "model": record.name,
        "pooling": pooling,
        "group": record.group,
        "estimand": record.estimand,
        "estimand_label": record.estimand_label,
        "hyperparameters": json.dumps(list(record.parameters)),
        "priors": to_json(priors),
        "fixed": json.dumps({name: float(value) for name, value in record.fixed[pooling](priors, data).items()}),
        "options": json.dumps(_options(record, data), default=str),
        "as_by_default": json.dumps([name for name in record.alternatives if name not in record.changed]),
        "group_level": record.group_level.kind,
        "data_hash": data_hash(data),
        "left_out": "",
        "ci_prob": float(rcParams["stats.ci_prob"]),
        "versions": _versions(),
    }


@cache
def _versions() -> str:
    """Those that results depend on, read once: that takes a tenth of the time of a small fit."""
    return json.dumps({name: version(name) for name in ("hbm_zoo", "pymc", "arviz", "nutpie", "numpy")})


def _options(record: HierarchicalModel, data: xr.Dataset) -> dict[str, Any]:
    """The options that hold: those that change the model, and those that were settled in preparing the data."""
    return record.chosen | {name: data.attrs[name] for name in record.options if data.attrs.get(name, "") != ""}


def _used(record: HierarchicalModel, options: Mapping[str, Any], label: str | None) -> set[str | None]:
    """The columns that a fit uses: the model's, those that its options name, moderators and the names of groups."""
    moderators = (each.column for each in record.moderators)
    return {*record.columns, *record.extras.further_columns(options), *moderators, label}


def _origin(frame: pd.DataFrame, used: Iterable) -> dict[str, str]:
    """Where a frame came from, what its owner calls the columns, and what was noted in reading it or is not used."""
    labels, notes = frame.attrs.get("labels"), frame.attrs.get("notes")
    # A caller's own attributes may have these names, and hold anything.
    labels = {str(ours): str(theirs) for ours, theirs in labels.items()} if isinstance(labels, Mapping) else {}
    notes = [note for note in notes if isinstance(note, str)] if isinstance(notes, list) else []
    noted = any(NOT_USED in note for note in notes)
    notes = notes if noted else [*notes, *unused(frame, {*used, frame.attrs.get(BY)})]
    return {"source": str(frame.attrs.get("source", "")), "labels": json.dumps(labels), "notes": json.dumps(notes)}


def data_hash(data: xr.Dataset) -> str:
    """A short fingerprint of prepared data: equal data, equal fingerprint."""
    digest = hashlib.sha256()
    for name in sorted(map(str, data.variables)):
        values = data[name].values
        digest.update(name.encode() + (repr(values.tolist()).encode() if values.dtype == object else values.tobytes()))
    return digest.hexdigest()[:16]
