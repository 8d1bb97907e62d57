"""Which pooling predicts better, and by how much?"""

from __future__ import annotations

from collections.abc import Mapping

import pandas as pd
import xarray as xr

from hbm_zoo.diagnostics.comparison import no_standard_error
from hbm_zoo.inference.fits import word
from hbm_zoo.inference.loo import k_hat_threshold
from hbm_zoo.model import HierarchicalModel
from hbm_zoo.words import listed, pooling, with_article

STANDARD_ERRORS = 2
LITTLE = 4
MOST_OF_IT = 0.5


def prediction(record: HierarchicalModel, fit: xr.DataTree, tables: Mapping[str, pd.DataFrame]) -> list[str]:
    """The answer to each question, from the ranked rows of its own table."""
    group, why_not = word(fit, record.group), no_standard_error(record, fit)
    starts = {
        "new_group": f"for {record.extras.left_out.format(a_group=with_article(group))}",
        "new_observation": f"for the same {group} again",
    }
    answers, named = [], None
    for question, table in tables.items():
        best = pooling(str(table.index[0]))
        answers.append(f"{starts[question]} {answer(table, why_not, 'it' if best == named else best)}")
        named = best
    return answers


def answer(table: pd.DataFrame, why_not: str, best: str) -> str:
    """Which pooling leads which others, and whether that is more than noise.

    Parameters
    ----------
    table : pandas.DataFrame
        As `compare_poolings` returns it.
    why_not : str
        Why a difference has no standard error, e.g. ``3 hospitals are too few for a standard error``; unread
        where it has one.
    best : str
        The pooling of the first row in words.

    Returns
    -------
    str
        The answer, without a stop.
    """
    ranked = table[table["rank"].notna()]
    if len(ranked) < 2:
        return "there is nothing to compare: fewer than two poolings can be ranked"
    others = ranked.iloc[1:]
    if others["dse"].astype(float).isna().any():
        leads = listed(f"{pooling(str(name))} by {-row['elpd_diff']:.1f} nats" for name, row in others.iterrows())
        said = f"{leads} ({why_not})"
    else:
        said = listed(_lead(str(name), row, table.attrs["unit"]) for name, row in others.iterrows())
    return f"{best} leads {said}{_doubt(ranked)}"


def _lead(name: str, row: pd.Series, unit: str) -> str:
    """The lead over one pooling: how sure, how large, and whether all of it hangs on one unit."""
    if f"{-row['elpd_diff']:.1f}" in ("0.0", "-0.0"):
        degree = "by nothing"
    elif row["one_unit"] > MOST_OF_IT:
        degree = f"mostly at one {unit}"
    elif is_behind(row):
        degree = "clearly"
    else:
        degree = "hardly" if _exceeds_noise(row) else "within noise"
    return f"{pooling(name)} {degree} ({abs(row['elpd_diff']):.1f} nats, se {row['dse']:.1f})"


def is_behind(row: pd.Series) -> bool:
    """Whether a pooling is behind the best by more than noise, and by more than a little."""
    return _exceeds_noise(row) and -float(row["elpd_diff"]) >= LITTLE


def _exceeds_noise(row: pd.Series) -> bool:
    return -float(row["elpd_diff"]) > STANDARD_ERRORS * float(row["dse"])


def _doubt(ranked: pd.DataFrame) -> str:
    """Importance sampling that failed and was not replaced by refits."""
    bad = ranked[(ranked["max_k_hat"].astype(float) > k_hat_threshold(10_000)) & (ranked["refits"].astype(float) == 0)]
    names = map(pooling, map(str, bad.index))
    return f", with doubt about {listed(names)}, whose k-hat is too large" if len(bad) else ""
