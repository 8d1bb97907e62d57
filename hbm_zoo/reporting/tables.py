"""The tables of a report, as plain frames of text, and those as Markdown."""

from __future__ import annotations

import re

import pandas as pd

from hbm_zoo import words
from hbm_zoo.inference.convergence import COLUMNS
from hbm_zoo.reporting.findings import Findings
from hbm_zoo.reporting.formatting import aligned, fixed, interval, number

MOST_GROUPS = 40
#: The column of one end of an interval.
END = re.compile(r"(?P<of>(.*_)?)(eti|hdi)(?P<percent>\d+)_(?P<end>lb|ub)")
K_HAT_HIGH = 0.7
COMPARISON_DIGITS = {"elpd": 1, "se": 1, "elpd_diff": 1, "dse": 1, "mcse": 2, "p": 1, "max_k_hat": 2, "refits": 0}
DEVIANCE_DIGITS = {"dic": 1, "p_d": 1, "sum_kappa": 1, "parameters": 0}


def comparison(table: pd.DataFrame, deviance: bool = False) -> pd.DataFrame:
    """A comparison of poolings in words and few digits; what does not apply to any row is left out.

    DIC and what stands beside it is of the fits, not of a question: `deviance` adds it.
    """
    shown = {"pooling": [words.pooling(str(name)) for name in table.index], "rank": map(number, table["rank"])}
    for name, digits in (COMPARISON_DIGITS | (DEVIANCE_DIGITS if deviance else {})).items():
        if table[name].notna().any():
            shown[name] = [number(None) if pd.isna(v) else fixed(v, digits) for v in table[name].astype(float)]
    return pd.DataFrame({name: list(values) for name, values in shown.items()})


def notes(table: pd.DataFrame) -> list[str]:
    """The notes on the rows of a comparison, each once."""
    exact = table[(table["refits"].astype(float) > 0) & (table["max_k_hat"].astype(float) > K_HAT_HIGH)]
    named = ", ".join(f"{name} {n:.0f}" for name, n in exact["refits"].items())
    left_out = [f"left out exactly where k-hat is high: {named}"] if named else []
    by_note = {note: list(table.index[table["note"] == note]) for note in table["note"] if note}
    ranked = set(table.index[table["rank"].notna()])
    said = [
        note if ranked <= set(names) else f"{words.listed(map(words.pooling, names))}: {note}"
        for note, names in by_note.items()
    ]
    return left_out + said


def groups(findings: Findings) -> tuple[pd.DataFrame, str]:
    """The groups table for reading, largest first, and what was left out of it."""
    table = findings.groups
    leading = next(name for name in ("partial", *findings.fits) if name in table.columns)
    ends = [name for name in table.columns if str(name).startswith(f"{leading}_eti")]
    half = MOST_GROUPS // 2 // len(findings.parts)
    few = pd.concat(
        {name: _ends(part.sort_values(leading, ascending=False), half) for name, part in findings.parts.items()}
    )
    columns = {findings.group: [" ".join(filter(None, (str(group), name))) for name, group in few.index]}
    columns |= {findings.label: few[findings.label].tolist()} if findings.label else {}
    for name in (findings.volume, "own", *findings.fits):
        columns[str(name)] = aligned(few[name]).tolist()
        if name == leading:
            columns[findings.interval] = interval(*(few[end] for end in sorted(ends))).tolist()
    further = [
        name
        for name in table.columns
        if name in ("kappa", "weight", "lfdr", "lfsr") or str(name).startswith("p_above_")
    ]
    columns |= {_heading(str(name)): few[name].map("{:.2f}".format).tolist() for name in further}
    if "rank" in table.columns:
        columns["rank"] = aligned(few["rank"].round()).tolist()
    shown = pd.DataFrame(columns)
    if len(few) == len(table):
        return shown, ""
    left_out = f"The {half} largest and the {half} smallest; all {len(table)} are in groups.csv."
    between = [len(part) - 2 * half for part in findings.parts.values()]
    return _with_gaps(shown, between, half, findings.label or findings.group), left_out


def _with_gaps(shown: pd.DataFrame, between: list[int], half: int, column: str) -> pd.DataFrame:
    """A row where others are left out, which says how many; `between` of each part of so many at both ends."""
    pieces = []
    for k, skipped in enumerate(between):
        part = shown.iloc[2 * half * k : 2 * half * (k + 1)]
        text = f"… {skipped} between …".replace(" ", "\N{NO-BREAK SPACE}")
        said = pd.DataFrame([[text if name == column else "" for name in shown.columns]], columns=shown.columns)
        pieces += [part.iloc[:half], said, part.iloc[half:]]
    return pd.concat(pieces, ignore_index=True)


def _ends(table: pd.DataFrame, half: int) -> pd.DataFrame:
    """The first and the last rows of a table that is too long."""
    return table if len(table) <= 2 * half else pd.concat([table.iloc[:half], table.iloc[-half:]])


def _heading(name: str) -> str:
    return f"P(> {name.removeprefix('p_above_')})" if name.startswith("p_above_") else name


def population(findings: Findings) -> pd.DataFrame:
    """Each hyperparameter under each pooling that learns it: mean and interval."""
    table = findings.population
    ends = [f"{number(a)} to {number(b)}" for a, b in zip(table["lower"], table["upper"], strict=True)]
    return pd.DataFrame(
        {
            "pooling": [words.pooling(name) for name in table["pooling"]],
            "parameter": table["parameter"],
            "mean": [number(float(mean)) for mean in table["mean"]],
            findings.interval: ends,
            "meaning": table["meaning"],
        }
    )


def checks(findings: Findings) -> pd.DataFrame:
    """The checks of each fit with their verdict."""
    table = findings.checks
    shown = {"pooling": [words.pooling(str(name)) for name in table.index]}
    for name in [name for name in COLUMNS if table[name].notna().any()]:
        digits = {"r_hat": 3, "e_bfmi": 2, "k_hat": 2}.get(name, 0)
        shown[name] = [number(None) if pd.isna(v) else f"{v:.{digits}f}" for v in table[name].astype(float)]
    return pd.DataFrame(shown | {"verdict": table["verdict"].tolist()})


def fit_to_data(table: pd.DataFrame) -> pd.DataFrame:
    """What the model expects of the data and what they are, check by check."""
    low, high = (table[name] for name in table if str(name).endswith(("_lb", "_ub")))
    ends = zip(map(words.plain, low), map(words.plain, high), strict=True)
    shown = {
        "pooling": [words.pooling(name) for _, name in table.index],
        "check": [check for check, _ in table.index],
        "compares": table["compares"].tolist(),
        "observed": [words.plain(value) for value in table["observed"]],
        "expected": [f"{low} to {high}" for low, high in ends],
        "p_holm": [fixed(value, 3) for value in table["p_holm"]],
        "verdict": table["verdict"].tolist(),
    }
    return pd.DataFrame(shown).sort_values("pooling", kind="stable", key=_leading_first)


def _leading_first(names: pd.Series) -> pd.Series:
    """Partial pooling before the others."""
    return names != words.pooling("partial")


def priors(findings: Findings) -> pd.DataFrame:
    """The priors in words."""
    return findings.priors.reset_index().rename(columns={"between": "central 90 %"})


def plain(table: pd.DataFrame, one_by_one: bool = False) -> pd.DataFrame:
    """Any table for reading: its labels first, numbers in few digits; the first rows of a long one.

    The numbers of a column are aligned, or, where rows are in units of their own, written one by one. Both ends of an
    interval are one column.
    """
    shown = table.iloc[:MOST_GROUPS].reset_index()
    columns = {}
    for name in map(str, shown.columns):
        low = END.fullmatch(name)
        if low and low["end"] == "ub":
            continue
        several = [name, f"{name[:-2]}ub"] if low else [name]
        head = f"{low['of'].replace('_', ' ')}{low['percent']} %" if low else name
        columns[head] = _written(shown[several], one_by_one)
    return pd.DataFrame(columns)


def _written(column: pd.DataFrame, one_by_one: bool) -> pd.Series:
    """A column as text, or the two ends of an interval as one."""
    if not all(map(pd.api.types.is_numeric_dtype, column.dtypes)) or pd.api.types.is_bool_dtype(column.dtypes.iloc[0]):
        return column.iloc[:, 0].astype(str)
    if not one_by_one:
        return aligned(column.iloc[:, 0]) if column.shape[1] == 1 else interval(*(column[end] for end in column))
    return column.map(number).agg(" to ".join, axis=1)


def escaped(text: str) -> str:
    r"""Text that Markdown takes as it is, in one line.

    Examples
    --------
    >>> escaped("A <b> | *"), escaped("two\nlines")
    ('A \\<b> \\| \\*', 'two lines')
    """
    return re.sub(r"([\\|<*`\[])", r"\\\1", " ".join(text.splitlines()))


def markdown(table: pd.DataFrame) -> str:
    """A table as Markdown."""

    def row(cells) -> str:
        return "| " + " | ".join(escaped(str(cell)) for cell in cells) + " |"

    return "\n".join([row(table.columns), row(["---"] * len(table.columns)), *map(row, table.itertuples(index=False))])
