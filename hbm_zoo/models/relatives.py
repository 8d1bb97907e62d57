"""Who is related to whom, and what else is known of each row: from the columns of `variance_components`."""

import warnings

import numpy as np
import pandas as pd
import xarray as xr

from hbm_zoo.frames import pedigree as pedigrees
from hbm_zoo.frames.labels import text
from hbm_zoo.frames.rules import FrameError, FrameWarning, Rule, cell
from hbm_zoo.words import listed

MODEL = "variance_components"
#: The columns that say who is related, and what they make of rows.
DESIGNS = {
    ("sire",): "half sibs",
    ("sire", "dam"): "full sibs within half sibs",
    ("family",): "full sibs",
    ("animal",): "animals of a pedigree",
}
FEW_LEVELS = 10
INTERCEPT = "mean"


def named(fixed_effects) -> list[str]:
    """The columns that an option names: a text with commas, or a list."""
    names = fixed_effects.split(",") if isinstance(fixed_effects, str) else fixed_effects
    return [str(name).strip() for name in names if str(name).strip()]


def columns(options) -> dict[str, Rule]:
    """The columns of fixed effects, each with its rule."""
    rule = Rule(
        "a number or a label, not empty",
        lambda s: s.notna() & (s.astype(str).str.strip() != ""),
        "a fixed effect",
        label=True,
    )
    names = named(options.get("fixed_effects", ""))
    if twice := sorted({name for name in names if names.count(name) > 1} | ({INTERCEPT} & set(names))):
        raise FrameError(f"{MODEL}: {twice[0]!r} is a fixed effect already: give the column another name.")
    if "response" in names:
        raise FrameError(f"{MODEL}: 'response' is what fixed effects are to explain, and none of them.")
    return dict.fromkeys(names, rule)


def fixed(frame: pd.DataFrame, names: list[str]) -> xr.DataArray:
    """X [record, effect]: a mean, each covariate, each level of each factor; its rank is looked at by site."""
    effects = {INTERCEPT: np.ones(len(frame))}
    for name in names:
        numbers = pd.to_numeric(frame[name], errors="coerce").to_numpy(float)
        if np.isfinite(numbers).all():
            _doubtful(name, numbers)
            effects[name] = numbers
        else:
            labels = text(frame[name])
            effects |= {f"{name}={level}": (labels == level).to_numpy(float) for level in dict.fromkeys(labels)}
    return xr.DataArray(np.column_stack(list(effects.values())), {"effect": list(effects)}, ("record", "effect"))


def _doubtful(name: str, numbers: np.ndarray) -> None:
    """Numbers that may be labels: a few whole ones."""
    distinct = np.unique(numbers)
    if 2 < distinct.size <= FEW_LEVELS < numbers.size and (distinct == np.rint(distinct)).all():
        warnings.warn(
            f"Column {name!r} holds the numbers {listed(f'{x:g}' for x in distinct)} and is taken for a covariate, a "
            f"straight line: write its values as text, {f'{name}1'!r} say, for one effect a level.",
            FrameWarning,
            stacklevel=6,
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


def _shared(name: str, label: object, sites) -> str:
    where = f"{listed(map(str, sites[:3]))}{' and more' if len(sites) > 3 else ''}"
    return (
        f"{MODEL}: {name} {cell(label)} has offspring or records at sites {where}: relatives make "
        "sites depend on one another (genotype by environment), which this model has not. Fit one site at a time."
    )
