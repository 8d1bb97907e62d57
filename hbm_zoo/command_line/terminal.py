"""What a comparison prints: some thirty lines, legible at 80 columns."""

from __future__ import annotations

import itertools
import json
import re
import textwrap
from collections.abc import Mapping

import numpy as np
import pandas as pd
from rich.console import Console
from rich.table import Table
from rich.text import Text

from hbm_zoo import words
from hbm_zoo.inference.fits import prepared
from hbm_zoo.reporting import tables
from hbm_zoo.reporting.answers import answers_of
from hbm_zoo.reporting.findings import Findings
from hbm_zoo.reporting.formatting import aligned, fixed, number
from hbm_zoo.zoo import pages

COLUMNS = {"elpd": 1, "se": 1, "elpd_diff": 1, "dse": 1, "p": 1, "max_k_hat": 2}
ALIKE = 0.005  # kappas that are the same to two digits are in no order
UNBROKEN = "\N{NO-BREAK SPACE}"  # textwrap does not break there
MOST_SHRUNKEN = 5
MOST_SHRUNKEN_EACH = 3
COLOURS = {"none": "yellow", "complete": "blue", "partial": "red", "empirical_bayes": "green"}


def show(found: Findings, console: Console) -> None:
    """Print findings: data, model, checks, the two comparisons, population, shrinkage, verdict."""
    for trouble in found.troubles:
        _line("Failed", f"Do not rely on this: {trouble}", console, "bold red")
    _heads(found, console)
    console.print()
    _comparisons(found, console)
    console.print()
    _line("Model fit", _fit_to_data(found), console)
    _line("Population", _population(found), console)
    _shrinkage(found, console)
    for answer in answers_of(found.record):
        table = found.answers[answer.verb]
        _line(answer.word, table if isinstance(table, str) else answer.sentence(table), console)
    for k, sentence in enumerate(found.standing_out):
        _line("" if k else "Stand out", sentence, console)
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
    console.print(Text.assemble((f"{head:<12}", "bold"), (_spaced(lines[0]), style)), soft_wrap=True)
    for line in lines[1:]:
        console.print(Text(" " * 12 + _spaced(line), style=style), soft_wrap=True)


def _whole(text: str) -> str:
    """Text that is not to be broken at its spaces."""
    return text.replace(" ", UNBROKEN)


def _spaced(line: str) -> str:
    return line.replace(UNBROKEN, " ")


def _heads(found: Findings, console: Console) -> None:
    _line("Question", found.record.question, console)
    _line("Data", found.data, console)
    for note in found.notes:
        _line("Note", note, console)
    for i, line in enumerate(_likelihood(found)):
        console.print(Text.assemble((f"{'' if i else 'Model':<12}", "bold"), line), soft_wrap=True)
    _line("", ",  ".join(map(_whole, _priors(found))), console)
    _line("Checks", _checks(found), console, "green" if found.passed else "bold red")


def _learned(found: Findings) -> pd.DataFrame:
    """The hyperparameters of the leading fit."""
    return found.population[found.population["pooling"] == found.leading.attrs["pooling"]]


def _likelihood(found: Findings) -> list[str]:
    """The model's formula down to its priors, which follow as they were used."""
    parameters = tuple(f"{name} ~" for name in found.record.parameters)
    lines = itertools.takewhile(
        lambda line: not line.startswith(parameters),
        pages.formula(found.record.name, **found.record.chosen).splitlines(),
    )
    return [re.sub(r" {4,}\w.*", "", line) for line in lines]  # the words beside the symbols would not fit


def _priors(found: Findings) -> list[str]:
    """The priors of what was learned; what the data's null or the pooling fixed, by its value."""
    learned = set(_learned(found)["parameter"])
    names = [name for name in found.priors.index if name in learned] or list(found.priors.index)
    fixed = json.loads(found.leading.attrs["fixed"])
    hidden = {*learned, *found.record.extras.absent(prepared(found.leading))}
    values = [f"{name} = {words.plain(value)}" for name, value in fixed.items() if learned and name not in hidden]
    return [f"{name} ~ {found.priors.loc[name, 'prior']}" for name in names] + values


def _checks(found: Findings) -> str:
    """The checks of all fits in one line: the worst of each."""
    table = found.checks
    by_nuts, weighted = (table[table[name].astype(float).notna()] for name in ("r_hat", "effective"))
    seed = f"seed {found.leading.attrs['seed']}"
    if not found.passed:
        return f"failed, see above ({seed})"
    said = []
    if len(weighted):
        k_hat, least = weighted["k_hat"].astype(float).max(), weighted.loc[weighted["effective"].astype(float).idxmin()]
        worth = f"{least['effective']:.0f} effective of {least['proposals']:.0f}"
        tops = int(weighted["tops"].max())
        said.append(f"independent, k-hat {k_hat:.2f}, {worth}, {'one top' if tops == 1 else f'up to {tops} tops'}")
    if len(by_nuts):
        least = by_nuts[["ess_bulk", "ess_tail"]].astype(float).min(axis=None)
        said.append(f"R-hat {by_nuts['r_hat'].astype(float).max():.3f}, ESS {least:.0f}, no divergence")
    return f"passed: {'; '.join(said)} ({seed})" if said else f"exact draws, none needed ({seed})"


def _comparisons(found: Findings, console: Console) -> None:
    """Both comparisons under one head, so that their columns can be read against each other."""
    for reason in (table for table in found.comparisons.values() if isinstance(table, str)):
        _line("Comparison", reason, console)
    compared = [table for table in found.comparisons.values() if not isinstance(table, str)]
    columns = {name: n for name, n in COLUMNS.items() if any(table[name].notna().any() for table in compared)}
    head = ["pooling", "rank", *columns]
    rows = [[_cells(str(name), row, columns) for name, row in table.iterrows()] for table in compared]
    widths = [max(map(len, cells)) for cells in zip(head, *itertools.chain(*rows), strict=True)]
    said: set[str] = set()
    for i, table in enumerate(compared):
        question = table.attrs["question"]
        console.print(Text(question[0].upper() + question[1:], style="bold"), soft_wrap=True)
        if i == 0:
            console.print(Text(_row(head, widths), style="dim"), soft_wrap=True)
        for name, cells in zip(table.index, rows[i], strict=True):
            console.print(Text(_row(cells, widths), style=COLOURS.get(str(name), "")), soft_wrap=True)
        for note in tables.notes(table):
            if note not in said:
                console.print(Text("\n".join(textwrap.wrap(note, console.width)), style="dim"))
            said.add(note)


def _cells(name: str, row: pd.Series, columns: Mapping[str, int]) -> list[str]:
    numbers = [number(None) if pd.isna(row[c]) else fixed(float(row[c]), digits) for c, digits in columns.items()]
    return [words.pooling(name), number(row["rank"]), *numbers]


def _row(cells: list[str], widths: list[int]) -> str:
    """Cells in their columns, the first set to the left, the others to the right."""
    first, *others = zip(cells, widths, strict=True)
    return "  " + "  ".join([first[0].ljust(first[1]), *(cell.rjust(width) for cell, width in others)]).rstrip()


def _fit_to_data(found: Findings) -> str:
    """Which checks each pooling fails, or how many it passes."""
    table = found.fit_to_data
    if isinstance(table, str):
        return table
    said = []
    for name, rows in table.groupby(level="pooling", sort=False):
        failed = table.attrs["rejected"].get(name)
        how = f"fails {words.listed(failed)}" if failed else f"passes {len(rows)} checks"
        said.append(f"{words.pooling(str(name))} {how}")
    return "; ".join(said)


def _population(found: Findings) -> str:
    """The hyperparameters of the leading fit, with their intervals."""
    ends = f"{found.interval}: "  # named once
    parts = []
    for r in _learned(found).itertuples():
        parts.append(_whole(f"{r.parameter} {number(r.mean)} ({ends}{number(r.lower)} to {number(r.upper)})"))
        ends = ""
    return "; ".join(parts) or "fixed in advance: nothing was learned of it"


def _shrinkage(found: Findings, console: Console) -> None:
    """The most and the least shrunken groups, side by side, for each coefficient of the estimand."""
    if not {"kappa", "partial"} <= set(found.groups):
        return
    few = MOST_SHRUNKEN if len(found.parts) == 1 else MOST_SHRUNKEN_EACH
    for coefficient, table in found.parts.items():
        ordered = table.dropna(subset=["kappa"]).sort_values("kappa", kind="stable")
        what = "shrunken"
        if np.ptp(ordered["kappa"]) < ALIKE:
            farthest = (ordered["own"] - ordered["partial"]).abs().sort_values(ascending=False, kind="stable").index
            ordered, what = ordered.loc[farthest], "moved"
        most, least = (f"{end}, {coefficient}" if coefficient else f"{end} {what}" for end in ("Most", "Least"))
        halves = {most: ordered.iloc[:few], least: ordered.iloc[::-1].iloc[:few]}
        if len(ordered) < 2 * few:
            halves = {f"From most to least {what}": ordered}
        side_by_side = Table.grid(padding=(0, 3, 0, 0))
        width = console.width // len(halves) - 24
        side_by_side.add_row(
            *(_movements(head, rows.rename(index=found.called), width) for head, rows in halves.items())
        )
        console.print(side_by_side)


def _movements(head: str, rows: pd.DataFrame, width: int) -> Table:
    """Where each group moves, and the weight of its own data; a long name loses its middle."""
    table = Table(box=None, padding=(0, 1, 0, 0))
    table.add_column(words.shortened(head, width), max_width=width, no_wrap=True, header_style="bold")
    for name in ("own", "partial", "kappa"):
        table.add_column(name, justify="right", style="red" if name == "partial" else "", header_style="dim")
    moves = pd.concat([rows["own"], rows["partial"]])
    own, partial = aligned(moves)[: len(rows)], aligned(moves)[len(rows) :]
    for index, before, after, kappa in zip(rows.index, own, partial, rows["kappa"], strict=True):
        table.add_row(words.shortened(str(index), width), before, after, f"{kappa:.2f}")
    return table
