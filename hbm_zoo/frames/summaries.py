"""Rows of a table that are no group: totals, and estimates that pool the others.

They are known by their words, or by arithmetic: a row that is the sum of all others in each column, or the estimate
that pools all others.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

import numpy as np
import pandas as pd

from hbm_zoo.frames.rules import Rule

WORDS = re.compile(
    r"((grand|sub)[ -]?)?totals?( (of )?all .*)?|sum|national|nationwide|gesamt|summe|insgesamt|totaal|somme|totale|"
    r"(overall|pooled|summary|combined)( (effect|estimate|result|mean|rate)s?)?|"
    r"(re|fe|ce|ee) model|(random|fixed|common|equal)[ -]effects?( model| estimate)?|"
    r"all (hospitals|clinics|trials|studies|sites|units|groups)"
)
#: What may stand behind such words: (95% CI), [Q = 3.1, p = 0.2], a colon.
BEHIND = re.compile(r"\s*([(\[].*|:.*)?$")
#: Fewest other rows, and columns, of which a sum is no coincidence; how near a pooled estimate must be, in its error.
FEWEST_OTHERS, FEWEST_COLUMNS, NEAR = 3, 2, 0.02


def summary_rows(frame: pd.DataFrame, rules: Mapping[str, Rule]) -> dict:
    """The index of each row that is a summary, and how it is known.

    Examples
    --------
    >>> from hbm_zoo.frames.rules import count, label
    >>> frame = pd.DataFrame({"ward": ["A", "B", "Total"], "falls": [1, 2, 3]})
    >>> summary_rows(frame, {"ward": label(""), "falls": count("")})
    {2: "'Total' is the name of a summary"}
    """
    said: dict = {}
    for name in [name for name, rule in rules.items() if rule.label]:
        texts = frame[name].map(lambda cell: str(cell).strip() if pd.notna(cell) else "")
        named = texts.map(lambda text: bool(text) and bool(WORDS.fullmatch(BEHIND.sub("", text).strip().casefold())))
        said |= {row: f"{texts[row]!r} is the name of a summary" for row in frame.index[named]}
    return said | _by_arithmetic(frame.drop(index=list(said)), rules)


def _by_arithmetic(frame: pd.DataFrame, rules: Mapping[str, Rule]) -> dict:
    """A row that the others add up to, or pool to."""
    numbers = pd.DataFrame(
        {name: pd.to_numeric(frame[name], errors="coerce") for name, rule in rules.items() if not rule.label},
        index=frame.index,
    )
    nameless = _nameless(frame, rules)
    found: dict = {}
    if len(frame) > FEWEST_OTHERS or nameless.any():
        is_sum = _sums(numbers)
        enough = (len(frame) > FEWEST_OTHERS) & (numbers.shape[1] >= FEWEST_COLUMNS)
        found |= {row: "it is the sum of all others" for row in frame.index[is_sum & (enough | nameless)]}
    if {"effect", "standard_error"} <= set(numbers) and len(frame) > FEWEST_OTHERS:
        pools = _pools(numbers["effect"].to_numpy(float), numbers["standard_error"].to_numpy(float))
        found |= {row: "it is the estimate that pools all others" for row in frame.index[pools]}
    return found if len(found) == 1 else {}


def _nameless(frame: pd.DataFrame, rules: Mapping[str, Rule]) -> np.ndarray:
    """Rows whose labels are all empty."""
    labels = frame[[name for name, rule in rules.items() if rule.label]]
    return labels.isna().all(axis=1).to_numpy() if labels.shape[1] else np.zeros(len(frame), bool)


def _sums(numbers: pd.DataFrame) -> np.ndarray:
    """Which rows are the sum of the others in every column, one of them not 0."""
    values = numbers.to_numpy(float)
    with np.errstate(invalid="ignore"):
        others = values.sum(axis=0) - values
        return (np.isclose(values, others, rtol=1e-6, atol=0.01) & (values != 0)).all(axis=1) & bool(values.size)


def _pools(effect: np.ndarray, error: np.ndarray) -> np.ndarray:
    """Which rows are the others' mean weighted by precision, with its standard error: of common or random effects."""
    found = np.zeros(effect.size, bool)
    if not (np.isfinite(effect).all() and np.isfinite(error).all() and (error > 0).all()):
        return found
    for row in range(effect.size):
        y, v = np.delete(effect, row), np.delete(error, row) ** 2
        for between in (0.0, _between(y, v)):
            w = 1 / (v + between)
            mean, sd = (w * y).sum() / w.sum(), w.sum() ** -0.5
            found[row] |= abs(effect[row] - mean) < NEAR * sd and abs(error[row] / sd - 1) < NEAR
    return found


def _between(y: np.ndarray, v: np.ndarray) -> float:
    """The variance between trials by moments (DerSimonian & Laird 1986, Control Clin Trials 7:177-188)."""
    w = 1 / v
    Q = (w * (y - (w * y).sum() / w.sum()) ** 2).sum()
    return max(0.0, (Q - (y.size - 1)) / (w.sum() - (w**2).sum() / w.sum()))
