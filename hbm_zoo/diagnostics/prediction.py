"""What comes next: for a group we know, one never seen, and one that brings a few rows.

What is known of a group's parameter is always a population: that of all groups if it
has shown nothing, the same after Bayes' theorem if it has. Its next data follow from
draws of either, so that one rule serves all three.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping
from dataclasses import replace

import numpy as np
import pandas as pd
import xarray as xr

from hbm_zoo.diagnostics.new_rows import NewRows, labelled, read
from hbm_zoo.diagnostics.updating import weights_after
from hbm_zoo.frames.labels import numbers
from hbm_zoo.group_level.averages import exceedance, quantile
from hbm_zoo.group_level.populations import Population
from hbm_zoo.inference.chunks import CELLS_AT_ONCE, of_groups
from hbm_zoo.inference.convergence import ConvergenceWarning
from hbm_zoo.inference.fits import hyperparameters, model_of, prepared, priors_of
from hbm_zoo.inference.nodes import with_nodes
from hbm_zoo.inference.summary import (
    above_reference,
    affordable,
    interval_name,
    interval_tails,
)
from hbm_zoo.model import HierarchicalModel

LARGEST_ARRAY = 20_000_000


def predict(
    fit: xr.DataTree,
    frame: pd.DataFrame | None = None,
    n_new: int | None = None,
    random_seed: int = 0,
    model: HierarchicalModel | None = None,
    **again,
) -> xr.DataTree:
    """Predict groups and their new data.

    Parameters
    ----------
    fit : xarray.DataTree
        As `fit` or `empirical_bayes` returns it.
    frame : pandas.DataFrame, optional
        Rows with the model's columns. Label and response say what a row is:

        * a group of the fit: its next data are predicted, with this row's covariates. The
          response may be left out and is not read: the group's own data are in the fit;
        * another group, response left out (NaN, or no such column): its data are predicted. If
          none of its rows has a response, the group was never seen;
        * another group, response given: the row is what the group brings. All groups learn
          from it, as if it had been in the fit; a plug-in estimate of the hyperparameters stays.

        Default: the rows of the fit once more, unless `n_new` is given.
    n_new : int, optional
        Add so many groups never seen, ``new 1``, ``new 2``, ... They have no covariates, so
        their parameter is predicted, not their data.
    random_seed : int
        Seed of the draws.
    model : HierarchicalModel, optional
        The record of a model that is not in the zoo.
    **again
        Further inputs of the model (``record.inputs``), for the rows of `frame`: a simulator, which a fit cannot
        store and which must still give what it gave; a second frame, in place of the one in the fit.

    Returns
    -------
    xarray.DataTree
        ``predictions``: draws of the estimand of each group, and of the new data of each ``row`` of
        the frame (by its index) that asks for them [chain, draw, ...]. ``group_summary``: ``case``,
        ``mean``, ``sd``, interval and ``p_above`` of each group's parameter, averaged over
        hyperparameters in closed form; ``row_summary``: the rows' covariates, and ``mean``,
        ``sd`` and interval of their new data, from the draws. Where rows were brought, attrs
        hold ``k_hat`` and ``ess``.

    Raises
    ------
    FrameError
        If the frame is not what the model expects.
    ValueError
        If the model does not say what is asked for, or `n_new` is not a number of groups.

    Warns
    -----
    ConvergenceWarning
        If the rows brought move the hyperparameters too far for the draws at hand: refit with them.
    FrameWarning
        If a new label looks like one of the fit, or a moderator of a new group lies far from those of the fit.

    Notes
    -----
    Given the hyperparameters h, groups never seen are independent: each has its own draw. Draws
    of h follow p(h | y); with rows y' of new groups they must follow p(h | y, y'), which is
    proportional to p(h | y) m(y' | h), m the marginal likelihood. They are resampled with
    these weights, Pareto smoothed (Vehtari et al. 2024, JMLR 25:72, section 2).

    Examples
    --------
    >>> import hbm_zoo as hz
    >>> frame = hz.load_data("three_hospitals")
    >>> alone = hz.fit("hospital_readmission", frame, pooling="none", random_seed=1)
    >>> next_period = hz.predict(alone, frame.drop(columns="observed").assign(expected=10.0))
    >>> next_period["group_summary"]["mean"].round(2).values.tolist()
    [1.45, 0.58, 1.2]
    """
    record = model_of(fit, model)
    asked = read(record, fit, frame, n_new, again)
    _check_answerable(record, asked)
    rng = np.random.default_rng(random_seed)
    h = _draws(fit)
    attrs: dict[str, float] = {}
    if asked.brought is not None:
        brought = with_nodes(record, asked.brought, priors_of(fit), random_seed, h)
        asked = replace(asked, brought=brought)
        h, attrs = _updated(record, fit, h, brought, rng)
    chains = fit["posterior"].sizes["chain"]
    h = _within_budget(h, chains, asked.largest)
    one_known = len(hyperparameters(fit)["sample"]) == 1
    tree = {"group_summary": _summaries(record, fit, h.isel(sample=[0]) if one_known else h, asked)}
    known_by = list(_known_by(record, fit, h, asked, h.sizes["sample"]))
    drawn = [population.sample(rng) for _, population, _ in known_by]
    theta = _by_group(record, asked, drawn)
    reported = [record.group_level.reported(each, of) for each, (_, _, of) in zip(drawn, known_by, strict=True)]
    predictions = {record.estimand: _by_group(record, asked, reported)}
    if asked.rows is not None:
        theirs = theta.sel({record.group: asked.rows[record.group].values})
        new = record.group_level.replicate(rng, theirs, h, asked.rows, prepared(fit))
        predictions[record.observed] = _by_row(record, new, asked.table)
        tree["row_summary"] = _describe(predictions[record.observed], asked.table)
    tree["predictions"] = xr.Dataset({name: _by_chain(value, chains) for name, value in predictions.items()})
    result = xr.DataTree.from_dict({name: _labels_as_in(fit, value, record.group) for name, value in tree.items()})
    about = ("model", "pooling", "group", "estimand", "estimand_label", "options")
    result.attrs |= {name: fit.attrs[name] for name in about} | attrs | {"seed": random_seed}
    return result


def _check_answerable(record: HierarchicalModel, asked: NewRows) -> None:
    """Refuse what the model does not say, by the name of what is missing."""
    level = record.group_level
    needed = ["population"] if asked.never_seen else []
    if asked.known is not None or asked.brought is not None:
        needed.append("conditional")
    record.ask("predict", *needed, *(["replicate"] if asked.rows is not None else []))
    if not level.independent and level.joined is None and (asked.brought is not None or asked.never_seen):
        raise ValueError(
            f"A new {record.group} of {record.name} depends on the others: fit again with its rows in the frame."
        )
    with_rows = set() if asked.rows is None else {*asked.rows[record.group].values}
    if level.independent and level.emptied is not None and asked.brought is not None:
        if both := sorted(with_rows & {*asked.brought[record.group].values}):
            raise ValueError(
                f"{both[0]} brings rows, and others of it are to be predicted: what is of a {record.group} alone is "
                "known of those of the fit only. Fit again with its rows in the frame."
            )
    if (level.placed or not level.independent) and {*asked.never_seen} - with_rows:
        raise ValueError(f"Where a new {record.group} of {record.name} lies depends on its columns: give it a row.")


def _draws(fit: xr.DataTree) -> xr.Dataset:
    """Hyperparameters [sample], one for each draw of the fit even if they are known exactly."""
    h = hyperparameters(fit)
    sizes = fit["posterior"].sizes
    return h if h.sizes["sample"] > 1 else h.isel(sample=np.zeros(sizes["chain"] * sizes["draw"], int))


def _updated(record, fit, h: xr.Dataset, brought: xr.Dataset, rng) -> tuple[xr.Dataset, dict[str, float]]:
    """Hyperparameters after the rows that new groups bring, by importance resampling."""
    after = weights_after(record, fit, h, brought)
    if after.holds:
        return after.resampled(h, rng), after.attrs
    warnings.warn(
        f"The rows brought say more of the hyperparameters than {after.weight.size} draws can follow (k-hat "
        f"{after.k_hat:.2f}, {after.ess:.0f} effective draws): fit again with these rows in the frame.",
        ConvergenceWarning,
        stacklevel=3,
    )
    return after.resampled(h, rng), after.attrs


def _within_budget(h: xr.Dataset, chains: int, largest: int) -> xr.Dataset:
    """As many draws of each chain as an array of draws x groups, or rows, may hold."""
    draws = h.sizes["sample"] // chains
    kept = min(draws, max(1, LARGEST_ARRAY // (chains * largest)))
    of_chain = np.linspace(0, draws - 1, kept).round().astype(int)
    return h.isel(sample=(draws * np.arange(chains)[:, None] + of_chain).ravel())


def _known_by(
    record: HierarchicalModel, fit: xr.DataTree, h: xr.Dataset, asked: NewRows, samples: int
) -> Iterator[tuple[Mapping[str, str], Population, xr.Dataset]]:
    """By label what each group has shown, the population of its parameter, and its data; in chunks for the samples."""
    level = record.group_level
    if not level.independent:
        yield _known_together(record, fit, h, asked)
        return
    for case, data in (("known", asked.known), ("brings rows", asked.brought)):
        for part in of_groups(record, data, samples) if data is not None else ():
            yield dict.fromkeys(part[record.group].values, case), level.conditional(h, part), part
    if asked.never_seen:
        labels = list(asked.never_seen)
        ones = xr.DataArray(np.ones((h.sizes["sample"], len(labels))), {record.group: labels}, ("sample", record.group))
        covariates = asked.rows.sel({record.group: labels}) if level.placed else prepared(fit)
        yield dict.fromkeys(labels, "never seen"), level.population(level.at(h, covariates)).over(ones), covariates


def _known_together(
    record: HierarchicalModel, fit: xr.DataTree, h: xr.Dataset, asked: NewRows
) -> tuple[dict[str, str], Population, xr.Dataset]:
    """The same of groups that depend on one another: those never seen are there without data."""
    level, new = record.group_level, [] if asked.brought is None else [asked.brought]
    if asked.never_seen:
        new.append(level.emptied(asked.rows.sel({record.group: list(asked.never_seen)})))
    seen = labelled(record, prepared(fit))
    cases = dict.fromkeys(seen[record.group].values, "known")
    cases |= {label: "brings rows" for part in new for label in part[record.group].values}
    cases |= dict.fromkeys(asked.never_seen, "never seen")
    joined = level.joined(seen, *new) if new else seen
    return cases, level.conditional(h, joined), joined


def _by_group(record, asked: NewRows, parts: list):
    """What was computed by case, in the order of the groups asked about."""
    joined = xr.concat(parts, dim=record.group).sel({record.group: asked.groups})
    return joined.transpose("sample", record.group, ..., missing_dims="ignore")


def _summaries(record: HierarchicalModel, fit: xr.DataTree, h: xr.Dataset, asked: NewRows) -> xr.Dataset:
    """The summary of each group asked about; intervals from fewer draws."""
    level, with_data = record.group_level, [data for data in (asked.known, asked.brought) if data is not None]
    cells = len(asked.groups) * max(map(level.cells, with_data), default=1)
    h = affordable(h, cells)
    few = affordable(h, cells, CELLS_AT_ONCE)
    of_all, of_few = (_known_by(record, fit, some, asked, h.sizes["sample"]) for some in (h, few))
    parts = [
        _summary(record, cases, level.of_estimand(one, data), level.of_estimand(other, data))
        for (cases, one, data), (_, other, _) in zip(of_all, of_few, strict=True)
    ]
    return _by_group(record, asked, parts)


def _summary(record, cases: Mapping[str, str], population: Population, of_few: Population) -> xr.Dataset:
    """Mean, sd, interval of each group's parameter, averaged over hyperparameters; the interval over few of them."""
    mean, sd = xr.broadcast(population.mean, population.sd)
    ends = zip(("lb", "ub"), interval_tails(), strict=True)
    by_name = {
        "mean": mean.mean("sample"),
        "sd": np.sqrt((sd**2).mean("sample") + mean.var("sample")),
        **{f"{interval_name()}_{end}": quantile(of_few, tail) for end, tail in ends},
        **above_reference(record, lambda reference: exceedance(population, reference)),
    }
    labels = mean[record.group].values
    by_name["case"] = record.group, [cases[label] for label in labels]
    return xr.Dataset(by_name).assign_coords({record.group: labels})


def _by_row(record, draws: xr.DataArray, table: pd.DataFrame | None) -> xr.DataArray:
    """New data by the frame's row, with its group beside it."""
    (dim,) = (name for name in draws.dims if name != "sample")
    labels, index = draws.coords.get(record.group), range(draws.sizes[dim])
    if table is not None:
        labels, index = record.labels(table), table.index
    plain = draws.rename({dim: "row"}) if dim != "row" else draws
    plain = plain.drop_vars(plain.coords).assign_coords(row=np.asarray(index))
    return plain if labels is None else plain.assign_coords({f"of_{record.group}": ("row", np.asarray(labels))})


def _describe(draws: xr.DataArray, table: pd.DataFrame | None) -> xr.Dataset:
    """Covariates, mean, sd and interval of each new row."""
    lower, upper = (draws.quantile(tail, "sample").drop_vars("quantile") for tail in interval_tails())
    name = interval_name()
    summary = {"mean": draws.mean("sample"), "sd": draws.std("sample"), f"{name}_lb": lower, f"{name}_ub": upper}
    if table is None:
        return xr.Dataset(summary)
    covariates = {column: ("row", table[column].to_numpy()) for column in table}
    return xr.Dataset(covariates | {key: value.reset_coords(drop=True) for key, value in summary.items()})


def _labels_as_in(fit: xr.DataTree, result: xr.Dataset, group: str) -> xr.Dataset:
    """Labels that are numbers in the fit are numbers again, unless a new one is not."""
    kind = fit["constant_data"][group].dtype
    if group not in result.coords or kind.kind not in "iuf":
        return result
    return result.assign_coords({group: numbers(pd.Series(result[group].values, dtype=object), kind).to_numpy()})


def _by_chain(draws: xr.DataArray, chains: int) -> xr.DataArray:
    """[sample, ...] becomes [chain, draw, ...]."""
    draws = draws.transpose("sample", ...)
    values = draws.values.reshape(chains, -1, *draws.shape[1:])
    coords = {name: value for name, value in draws.coords.items() if "sample" not in value.dims}
    return xr.DataArray(values, coords | {"chain": range(chains)}, ("chain", "draw", *draws.dims[1:])).assign_coords(
        draw=range(values.shape[1])
    )
