"""What a comparison prints: some thirty lines, legible at 80 columns."""

from __future__ import annotations

import re
import textwrap

import pandas as pd
from rich.console import Console
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from hbm_zoo import pages
from hbm_zoo.plots.style import WORDS
from hbm_zoo.reporting import tables
from hbm_zoo.reporting.findings import Findings
from hbm_zoo.reporting.formatting import aligned, fixed, number

COLUMNS = {"elpd": 1, "se": 1, "elpd_diff": 1, "dse": 1, "p": 1, "max_k_hat": 2}
CERTAIN = 0.9
MOST_NAMED = 10
MOST_SHRUNKEN = 5
MOST_SHRUNKEN_EACH = 3
COLOURS = {"none": "yellow", "complete": "blue", "partial": "red", "empirical_bayes": "green"}


def show(found: Findings, console: Console) -> None:
    """Print findings: data, model, checks, the two comparisons, population, shrinkage, verdict."""
    for trouble in found.troubles:
        _line("Failed", f"Do not rely on this: {trouble}", console, "bold red")
    _heads(found, console)
    for table in found.comparisons.values():
        console.print()
        _comparison(table, console)
    console.print()
    _line("Population", _population(found), console)
    _shrinkage(found, console)
    if found.threshold is not None:
        _line("Threshold", _above(found), console)
    said_by_the_checks = found.passed and len(found.verdict) > 1
    _line("Verdict", " ".join(found.verdict[said_by_the_checks:]), console, "bold")


def show_verdict(found: Findings, console: Console) -> None:
    """Print the verdict alone, with what was noted in reading the data and the seed that repeats it."""
    for note in found.notes:
        _line("Note", note, console)
    _line("Verdict", " ".join(found.verdict), console, "bold")
    _line("Seed", str(found.leading.attrs["seed"]), console)


def _line(head: str, text: str, console: Console, style: str = "") -> None:
    """A line of a name and text, the text hanging when it is long."""
    lines = textwrap.wrap(text, max(30, console.width - 12), break_long_words=False) or [""]
    console.print(Text.assemble((f"{head:<12}", "bold"), (lines[0], style)), soft_wrap=True)
    for line in lines[1:]:
        console.print(Text(" " * 12 + line, style=style), soft_wrap=True)


def _heads(found: Findings, console: Console) -> None:
    _line("Question", found.record.question, console)
    _line("Data", found.data, console)
    for note in found.notes:
        _line("Note", note, console)
    for i, line in enumerate(pages.formula(found.record.name).splitlines()):
        symbols = re.sub(r" {4,}\w.*", "", line)  # the words beside them would not fit
        console.print(Text.assemble((f"{'' if i else 'Model':<12}", "bold"), symbols), soft_wrap=True)
    learned = [name for name in found.priors.index if name in set(found.population["parameter"])]
    learned = learned or list(found.priors.index)
    _line("Priors", "; ".join(f"{name} ~ {found.priors.loc[name, 'prior']}" for name in learned), console)
    _line("Checks", _checks(found), console, "green" if found.passed else "bold red")


def _checks(found: Findings) -> str:
    """The checks of all fits in one line: the worst of each."""
    table, sampled = found.checks, found.checks["r_hat"].astype(float).notna()
    seed = f"seed {found.leading.attrs['seed']}"
    if not found.passed:
        return f"failed, see above ({seed})"
    if not sampled.any():
        return f"exact draws, none needed ({seed})"
    worst = table[sampled].astype({"r_hat": float, "e_bfmi": float})
    least = min(worst["ess_bulk"].astype(float).min(), worst["ess_tail"].astype(float).min())
    return f"passed: R-hat {worst['r_hat'].max():.3f}, {least:.0f} effective draws, no divergence ({seed})"


def _comparison(table: pd.DataFrame | str, console: Console) -> None:
    if isinstance(table, str):
        _line("Comparison", table, console)
        return
    question = table.attrs["question"]
    console.print(Text(question[0].upper() + question[1:], style="bold"))
    drawn = Table(box=None, padding=(0, 2, 0, 0), header_style="dim")
    drawn.add_column("pooling")
    drawn.add_column("rank", justify="right")
    shown = [name for name in COLUMNS if table[name].notna().any()]
    for name in shown:
        drawn.add_column(name, justify="right")
    for name, row in table.iterrows():
        cells = [number(None) if pd.isna(row[c]) else fixed(float(row[c]), COLUMNS[c]) for c in shown]
        pooling = Text(WORDS.get(str(name), str(name)), style=COLOURS.get(str(name), ""))
        drawn.add_row(pooling, number(row["rank"]), *cells)
    console.print(Padding(drawn, (0, 0, 0, 2), expand=False))
    for note in tables.notes(table):
        console.print(Text("\n".join(textwrap.wrap(note, max(30, console.width - 4))), style="dim"))


def _population(found: Findings) -> str:
    """The hyperparameters of the leading fit, with their intervals."""
    rows = found.population[found.population["pooling"] == found.leading.attrs["pooling"]]
    parts = [f"{r.parameter} {number(r.mean)} ({number(r.lower)} to {number(r.upper)})" for r in rows.itertuples()]
    return (
        f"{'; '.join(parts)} ({found.interval} intervals)" if parts else "fixed in advance: nothing was learned of it"
    )


def _above(found: Findings) -> str:
    """The groups that lie above the threshold with some certainty."""
    chance = found.groups[f"p_above_{found.threshold:g}"]
    sure = chance[chance > CERTAIN].sort_values(ascending=False, kind="stable")
    names = [" ".join(map(str, label if isinstance(label, tuple) else (label,))) for label in sure.index[:MOST_NAMED]]
    which = f": {', '.join(names)}{', ...' if len(sure) > MOST_NAMED else ''}" if names else ""
    return (
        f"P({found.record.estimand} > {found.threshold:g}) exceeds {CERTAIN} for {len(sure)} of {len(chance)} "
        f"{found.group}s{which}"
    )


def _shrinkage(found: Findings, console: Console) -> None:
    """The most and the least shrunken groups, side by side, for each coefficient of the estimand."""
    if not {"kappa", "partial"} <= set(found.groups):
        return
    few = MOST_SHRUNKEN if len(found.parts) == 1 else MOST_SHRUNKEN_EACH
    for coefficient, table in found.parts.items():
        ordered = table.dropna(subset=["kappa"]).sort_values("kappa", kind="stable")
        halves = {"Most shrunken": ordered.iloc[:few], "Least shrunken": ordered.iloc[::-1].iloc[:few]}
        if len(ordered) < 2 * few:
            halves = {"From most to least shrunken": ordered}
        side_by_side = Table.grid(padding=(0, 3, 0, 0))
        width = console.width // len(halves) - 24
        side_by_side.add_row(*(_movements(f"{head} {coefficient}", rows, width) for head, rows in halves.items()))
        console.print(side_by_side)


def _movements(head: str, rows: pd.DataFrame, width: int) -> Table:
    """Where each group moves, and the weight of its own data; a long name loses its middle."""
    table = Table(box=None, padding=(0, 1, 0, 0), title=head, title_justify="left", title_style="bold")
    table.add_column("", max_width=max(width, 10), no_wrap=True)
    for name in ("own", "partial", "kappa"):
        table.add_column(name, justify="right", style="red" if name == "partial" else "", header_style="dim")
    moves = pd.concat([rows["own"], rows["partial"]])
    own, partial = aligned(moves)[: len(rows)], aligned(moves)[len(rows) :]
    for index, before, after, kappa in zip(rows.index, own, partial, rows["kappa"], strict=True):
        table.add_row(shortened(str(index), max(width, 10)), before, after, f"{kappa:.2f}")
    return table


def shortened(name: str, width: int) -> str:
    """A name that is too long loses its middle: names that begin alike stay apart.

    Examples
    --------
    >>> shortened("St. Mary and Sons, North", 12)
    'St. Ma…North'
    """
    if len(name) <= width:
        return name
    tail = (width - 1) // 2
    return f"{name[: width - 1 - tail]}…{name[-tail:]}"
