"""What the commands do that need the models: fit, say, write."""

from __future__ import annotations

import logging
import re
import signal
import threading
import time
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
from rich.console import Console
from rich.table import Table

import hbm_zoo as hz
from hbm_zoo import words
from hbm_zoo.command_line import parsing, terminal
from hbm_zoo.command_line.source import Source, bad_input
from hbm_zoo.inference.arguments import split
from hbm_zoo.inference.fitting import poolings_of
from hbm_zoo.model import HierarchicalModel
from hbm_zoo.reporting.findings import findings
from hbm_zoo.reporting.folder import check_target
from hbm_zoo.zoo.data import data_folder

#: What a person's names hold is text, not markup.
plain_console = partial(Console, highlight=False, markup=False, emoji=False)
LOGGERS = ("pymc", "pytensor", "arviz", "numba", "matplotlib")


def compare_poolings(
    model: str,
    source: Source,
    poolings: Sequence[str],
    priors: Sequence[str],
    settings: dict,
    threshold: float | None,
    out: Path | None,
    overwrite: bool,
    quiet: bool,
) -> int:
    """Fit, compare, print and, if asked, write a report; 1 if a fit or its check failed."""
    record = hz.MODELS[model].MODEL
    console, progress = plain_console(), plain_console(stderr=True, quiet=quiet)
    with _silence(), _interrupts() as stop_if_interrupted:
        with bad_input(record):
            target = check_target(out, overwrite) if out else None
            frame, options = source.read(record)
            given = parsing.priors(priors)
        with bad_input(record, frame):
            frame.attrs["notes"] += _said(record, frame, options)
        # A column that the model uses too has the model's name by now.
        label = {theirs: ours for ours, theirs in frame.attrs.get("labels", {}).items()}.get(source.label, source.label)
        if settings["random_seed"] is None:
            settings = settings | {"random_seed": int(np.random.SeedSequence().generate_state(1)[0] % 2**31)}
        asked = dict.fromkeys(poolings or poolings_of(record, frame))
        fits, failures = _fit(record, frame, asked, progress, priors=given, label=label, **options, **settings)
        stop_if_interrupted()
        if not fits:
            raise RuntimeError(" ".join(f"{words.pooling(name)}: {why}." for name, why in failures.items()))
        with progress.status("Comparing predictions"):
            found = findings(fits, threshold, failures=failures)
        stop_if_interrupted()
        (terminal.show_verdict if quiet else terminal.show)(found, console)
        if target:
            from hbm_zoo.reporting.report import write  # brings pictures and templates

            with progress.status("Writing the report"):
                write(found, target)
            console.print(f"Report      {out / 'report.html'}", soft_wrap=True)
    return 0 if found.passed else 1


def _said(record: HierarchicalModel, frame: pd.DataFrame, options: Mapping) -> list[str]:
    """What the model has to say of the data: a warning in Python, a note here."""
    record, of_data, _ = split(record, options, frame)
    return [*record.extras.check(record.prepared(frame, **of_data))]


def _fit(record, frame, poolings, progress, **how) -> tuple[dict, dict[str, str]]:
    """Each pooling's fit, or why it broke off."""
    fits, failures = {}, {}
    for pooling in poolings:
        start = time.perf_counter()
        with progress.status(f"Fitting {words.pooling(pooling)}"), bad_input(record, frame):
            try:
                fits[pooling] = hz.fit(record, frame, pooling=pooling, progressbar=False, **how)
            except (ValueError, TypeError) as error:
                if isinstance(error, np.linalg.LinAlgError):
                    failures[pooling] = f"{error}"
                else:
                    raise
            except Exception as error:  # the sampler and PyTensor raise what they like
                failures[pooling] = f"{type(error).__name__}: {str(error).partition(chr(10))[0]}"
        outcome = "broke off" if pooling in failures else f"{time.perf_counter() - start:.1f} s"
        progress.print(f"{words.pooling(pooling).capitalize():<18}{outcome}", style="dim")
    return fits, failures


@contextmanager
def _interrupts() -> Iterator[Callable[[], None]]:
    """Remember an interrupt: the sampler may take it for itself, and what follows must not go on as if nothing was."""
    seen: list[int] = []

    def remember(number, frame):
        seen.append(number)
        signal.default_int_handler(number, frame)

    def stop_if_interrupted():
        if seen:
            raise KeyboardInterrupt

    if threading.current_thread() is not threading.main_thread():
        yield stop_if_interrupted
        return
    before = signal.signal(signal.SIGINT, remember)
    try:
        yield stop_if_interrupted
    finally:
        signal.signal(signal.SIGINT, before)


@contextmanager
def _silence() -> Iterator[None]:
    """Keep the libraries' warnings and logs from the terminal: what matters is in the findings."""
    levels = {name: logging.getLogger(name).level for name in LOGGERS}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for name in LOGGERS:
            logging.getLogger(name).setLevel(logging.ERROR)
        try:
            yield
        finally:
            for name, level in levels.items():
                logging.getLogger(name).setLevel(level)


def show_data(name: str | None, out: Path | None, model: str | None) -> None:
    """Print a shipped data set with its source, or the list of all; save it if asked."""
    console = plain_console()
    if name is None:
        table = hz.datasets().reset_index()
        drawn = Table(box=None, padding=(0, 2, 0, 0), header_style="bold")
        for column in table.columns:
            drawn.add_column(column, justify="right" if column == "rows" else "left")
        for row in table.astype(str).itertuples(index=False):
            drawn.add_row(*row)
        console.print(drawn)
        return
    with bad_input():
        frame = hz.load_data(name, model)
        if out and out.exists():
            raise FileExistsError(f"{out} exists: name another file.")
        if out:
            frame.to_csv(out, index=False)
    console.print(_where_from(name), soft_wrap=False)
    console.print(f"\n{len(frame)} rows, the first of them:\n{frame.head(10).to_string(index=False)}", soft_wrap=True)


def _where_from(name: str) -> str:
    """What data/SOURCES.md says of a data set."""
    lines = (data_folder() / "SOURCES.md").read_text(encoding="utf-8").splitlines()
    heads = (i for i, line in enumerate(lines) if line.startswith("#") and re.search(rf"\b{name}\b", line))
    start = next(heads, None)
    if start is None:
        return name
    end = next((i for i in range(start + 1, len(lines)) if lines[i].startswith("#")), len(lines))
    return "\n".join(line.lstrip("# ") for line in lines[start:end]).strip()
