"""Who is related to whom, and what else is known of each row: from the columns of `variance_components`."""

import re
import warnings

import numpy as np
import pandas as pd
import xarray as xr

from hbm_zoo.frames import pedigree as pedigrees
from hbm_zoo.frames.labels import text
from hbm_zoo.frames.rules import FrameError, FrameWarning, Rule, cell, label
from hbm_zoo.words import listed

MODEL = "variance_components"
#: The columns that say who is related, and what they make of rows.
DESIGNS = {
    ("sire",): "half sibs",
    ("sire", "dam"): "full sibs within half sibs",
    ("family",): "full sibs",
    ("animal",): "animals of a pedigree",
}
INTERCEPT = "mean"
#: What a fixed effect is, and how an option says so of a column: "block (factor)".
FACTOR, COVARIATE = "factor", "covariate"
SAID = re.compile(rf"(.+?)\s*\(({FACTOR}|{COVARIATE})\)")
#: Times the sd of rows at another site, beyond which tables of their variances are too coarse.
FARTHEST = 100.0
NEARLY_ALL = 0.8  # Of the cells of a column: where they are numbers, the others are mistakes.


def named(fixed_effects) -> list[tuple[str, str]]:
    """The columns that an option names, a text with commas or a list, each with its kind; none where it does not say.

    Examples
    --------
    >>> named("block (factor), north")
    [('block', 'factor'), ('north', '')]
    """
    names = fixed_effects.split(",") if isinstance(fixed_effects, str) else fixed_effects
    if not isinstance(names, list | tuple):
        raise FrameError(f"{MODEL} expected fixed effects as a text or a list of columns, got {fixed_effects!r}.")
    plain = [str(name).strip() for name in names if str(name).strip()]
    said = [SAID.fullmatch(name) for name in plain]
    return [(found[1], found[2]) if found else (name, "") for name, found in zip(plain, said, strict=True)]


def columns(options) -> dict[str, Rule]:
    """The columns of fixed effects, each with its rule."""
    effects = named(options.get("fixed_effects", ""))
    names = [name for name, _ in effects]
    if twice := sorted({name for name in names if names.count(name) > 1} | ({INTERCEPT} & set(names))):
        raise FrameError(f"{MODEL}: {twice[0]!r} is a fixed effect already: give the column another name.")
    if "response" in names:
        raise FrameError(f"{MODEL}: 'response' is what fixed effects are to explain, and none of them.")
    return {name: _rule(name, kind) for name, kind in effects}


def _rule(name: str, kind: str) -> Rule:
    """Of a factor, of a covariate, or of a column that is to show which it is."""
    if kind == FACTOR:
        return label("a fixed effect, a factor")
    if kind == COVARIATE:
        return Rule("a finite number", _is_number, "a fixed effect, a covariate", label=True)
    either = f"a number in each row, or labels ('{name} ({FACTOR})' takes numbers for labels), and no empty cell"
    return Rule(either, _of_one_kind, "a fixed effect", label=True)


def _of_one_kind(column: pd.Series) -> pd.Series:
    """Whether each cell is filled, and no label where nearly all are numbers."""
    filled, numbers = column.notna() & (column.astype(str).str.strip() != ""), _is_number(column)
    return numbers | (filled & (numbers.mean() < NEARLY_ALL))


def _is_number(column: pd.Series) -> pd.Series:
    return pd.Series(np.isfinite(_numbers(column)), column.index)


def _numbers(column: pd.Series) -> np.ndarray:
    """The cells as numbers, text that is one too; NaN of others."""
    return pd.to_numeric(column, errors="coerce").to_numpy(float)


def fixed(frame: pd.DataFrame, effects: list[tuple[str, str]]) -> tuple[xr.DataArray, str]:
    """X [record, effect]: a mean, each covariate, each level of each factor; its rank is looked at by site.

    With it the effects as an option names them, each with the kind that it has in these rows: new ones take it over.
    """
    X, said = {INTERCEPT: np.ones(len(frame))}, []
    for name, kind in effects:
        numbers, labels = _numbers(frame[name]), text(frame[name])
        if not kind:
            kind = COVARIATE if np.isfinite(numbers).all() else FACTOR
            _doubtful(name, numbers)
        levels = dict.fromkeys(labels)
        X |= {name: numbers} if kind == COVARIATE else {f"{name}={k}": (labels == k).to_numpy(float) for k in levels}
        said.append(f"{name} ({kind})")
    return xr.DataArray(np.column_stack(list(X.values())), {"effect": list(X)}, ("record", "effect")), ", ".join(said)


def _doubtful(name: str, numbers: np.ndarray) -> None:
    """Numbers that may be labels: whole ones, fewer than half as many as rows."""
    distinct = np.unique(numbers)
    if 2 < distinct.size <= numbers.size / 2 and (distinct == np.rint(distinct)).all():
        low, high = (f"{end:.12g}" for end in distinct[[0, -1]])
        warnings.warn(
            f"Column {name!r} holds {distinct.size} whole numbers from {low} to {high} and is taken for a covariate, a "
            f"straight line: for one effect a level say '{name} ({FACTOR})', or write labels, '{name}{low}' say; "
            f"'{name} ({COVARIATE})' if it is a line.",
            FrameWarning,
            stacklevel=7,
        )


def check_units(sites, sd):
    """Refuse sds of rows by site that no variances of one population have, and that no table of them covers."""
    least, most = int(sd.argmin()), int(sd.argmax())
    if sd[most] > FARTHEST * sd[least]:
        raise FrameError(
            f"{MODEL} expected sites in one unit, got rows with an sd of {sd[most]:.3g} at "
            f"{cell(sites[most])} and of {sd[least]:.3g} at {cell(sites[least])}."
        )


def animals(frame: pd.DataFrame, pedigree: pd.DataFrame | None) -> dict[str, tuple]:
    """All animals, parents first: ``animal`` labels, ``sire`` and ``dam`` by position, ``row`` the animal of a record.

    Raises
    ------
    FrameError
        If the columns do not say who is related in one way, or an animal, sire, dam or family is of two sites.
    """
    have = tuple(name for name in ("sire", "dam", "family", "animal") if name in frame)
    if have not in DESIGNS:
        ways = "; ".join(f"{' and '.join(map(repr, names))} ({what})" for names, what in DESIGNS.items())
        raise FrameError(
            f"{MODEL} expected one way of saying who is related, {ways}; got "
            f"{listed(map(repr, have)) if have else 'none'}."
        )
    if ("animal" in have) != (pedigree is not None):
        wants = (
            "column 'animal' goes with a frame as 'pedigree'"
            if "animal" in have
            else "'pedigree' goes with a column 'animal'"
        )
        raise FrameError(f"{MODEL}: a {wants}.")
    if pedigree is not None:
        return _of_pedigree(frame, pedigree)
    for name in have:
        _of_one_site(frame, name)
    return _of_families(frame, have)


def _of_families(frame: pd.DataFrame, have: tuple[str, ...]) -> dict[str, tuple]:
    """Parents that are not related, and their offspring, one a row."""
    parents = [text(frame[name]) for name in have]
    if have == ("family",):
        labels = [*(parents[0] + ", sire").unique(), *(parents[0] + ", dam").unique()]
        codes = pd.factorize(parents[0])[0]
        of = [codes, codes + codes.max() + 1]
    elif len(have) == 2:
        both = sorted(set(parents[0]) & set(parents[1]))
        if both:
            raise FrameError(f"{MODEL}: {both[0]!r} is a sire in one row and a dam in another.")
        of, labels = [], []
        for each in parents:
            codes, distinct = pd.factorize(each)
            of.append(codes + len(labels))
            labels += list(distinct)
    else:
        codes, distinct = pd.factorize(parents[0])
        of, labels = [codes, np.full(len(frame), -1)], list(distinct)
    unknown, rows = np.full(len(labels), -1), len(labels) + np.arange(len(frame))
    everyone = np.array([*map(str, labels), *(f"row {i}" for i in frame.index)], dtype=object)
    return _named(everyone, np.r_[unknown, of[0]], np.r_[unknown, of[1]], rows)


def _of_pedigree(frame: pd.DataFrame, pedigree: pd.DataFrame) -> dict[str, tuple]:
    """The animals of a pedigree that have records, and their ancestors."""
    labels, sire, dam = pedigrees.positions(pedigree, MODEL)
    label = text(frame["animal"])
    twice = label[label.duplicated()]
    if twice.size:
        raise FrameError(
            f"{MODEL}: column 'animal' expected each animal once, got {twice.iloc[0]!r} in rows "
            f"{listed(map(str, frame.index[label == twice.iloc[0]]))}: an animal's own environment is not in the model."
        )
    row = pd.Index(labels).get_indexer(label)
    if (row < 0).any():
        raise FrameError(f"{MODEL}: animal {label.iloc[int((row < 0).argmax())]!r} is not in the pedigree.")
    _of_sites(labels, sire, dam, row, *pd.factorize(text(frame["site"])))
    return _named(labels, sire, dam, row)


def _named(labels, sire, dam, row) -> dict[str, tuple]:
    return {
        "animal": ("animal", labels),
        "sire": ("animal", sire.astype(np.int64)),
        "dam": ("animal", dam.astype(np.int64)),
        "row": ("record", np.asarray(row, np.int64)),
    }


def _of_one_site(frame: pd.DataFrame, name: str) -> None:
    sites = text(frame["site"]).groupby(text(frame[name])).unique()
    shared = sites[sites.map(len) > 1]
    if shared.size:
        raise FrameError(_shared(name, shared.index[0], shared.iloc[0]))


def _of_sites(labels, sire, dam, row, site, sites) -> None:
    """Refuse an ancestor that animals of two sites have in common."""
    of = np.full(labels.size, -1)
    for i, j in sorted(zip(row, site, strict=True), reverse=True):
        new = {int(i)}
        while new:
            k = new.pop()
            if of[k] not in (-1, j):
                raise FrameError(_shared("animal", labels[k], sorted([sites[of[k]], sites[j]])))
            if of[k] == -1:
                of[k] = j
                new |= {int(p) for p in (sire[k], dam[k]) if p >= 0}


def shared_dams(data: xr.Dataset):
    """A sentence where rows name a dam with several sires, and no pedigree says that she is one animal."""
    known = (data.dam >= 0).values & ("pedigree.row" not in data.dims)
    pairs = pd.DataFrame({"sire": data.sire.values[known], "dam": data.dam.values[known]})
    sires = pairs.groupby("dam")["sire"].unique()
    several = sires[sires.map(len) > 1]
    if several.empty:
        return
    label = data["animal"].values
    dam, first, second = (cell(label[i]) for i in (several.index[0], *several.iloc[0][:2]))
    rest = f", and {several.size - 1} more," if several.size > 1 else ""
    yield (
        f"Dam {dam}{rest} has offspring of several sires, {first} and {second}, and is taken for one animal that mated "
        "with each: if dams are numbered within sires, label them uniquely."
    )


def _shared(name: str, label: object, sites) -> str:
    where = f"{listed(map(str, sites[:3]))}{' and more' if len(sites) > 3 else ''}"
    return (
        f"{MODEL}: {name} {cell(label)} has offspring or records at sites {where}: relatives make sites depend on one "
        "another (genotype by environment), which this model has not. If they are different animals, label them "
        "uniquely; else fit one site at a time."
    )
