"""What the commands do that need the models: read, fit, say, write."""

from __future__ import annotations

import inspect
import logging
import re
import signal
import threading
import time
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
from rich.console import Console
from rich.table import Table

import hbm_zoo as hz
from hbm_zoo import words
from hbm_zoo.command_line import parsing, terminal
from hbm_zoo.command_line.errors import BadInput
from hbm_zoo.frames import reading
from hbm_zoo.frames.moderators import OPTION, kinds
from hbm_zoo.frames.numerals import as_numbers
from hbm_zoo.frames.rules import FrameError, Rule, check
from hbm_zoo.inference.arguments import OF_SAMPLER, split
from hbm_zoo.inference.fitting import poolings_of
from hbm_zoo.model import HierarchicalModel
from hbm_zoo.reporting.findings import findings
from hbm_zoo.reporting.folder import check_target
from hbm_zoo.words import choose
from hbm_zoo.zoo.data import data_folder

#: What a person's names hold is text, not markup.
plain_console = partial(Console, highlight=False, markup=False, emoji=False)
LOGGERS = ("pymc", "pytensor", "arviz", "numba", "matplotlib")


@dataclass(frozen=True)
class Source:
    """Where the data come from: a file or a shipped data set, and how it is to be read."""

    file: Path | None
    dataset: str | None
    reader: str | None
    columns: tuple[str, ...]
    options: tuple[str, ...]
    moderators: tuple[str, ...] = ()
    drop_unusable: bool = False
    label: str | None = None

    def read(self, record: HierarchicalModel) -> tuple[pd.DataFrame, dict]:
        """The frame in the model's columns, and the options that are not the reader's."""
        if self.file and self.dataset:
            raise BadInput("Give either --data or --dataset.")
        if self.file is None and (self.columns or self.reader or self.drop_unusable or self.label):
            raise BadInput(
                "--columns, --reader, --label and --drop-unusable say how to read a file: name it by --data."
            )
        reader = self._reader(record)
        options = self._options(record, reader) | self._moderators(record)
        frame, rest = self._frame(record, reader, options)
        beside = [note for value in rest.values() for note in getattr(value, "attrs", {}).get("notes", [])]
        frame.attrs["notes"] = [*frame.attrs.get("notes", []), *beside]
        return frame, rest

    def _frame(self, record: HierarchicalModel, reader: Callable | None, options: dict) -> tuple[pd.DataFrame, dict]:
        """The frame itself, from a file or shipped, and the options that are not the reader's."""
        with _bad_input(record):
            record = record.under(**{name: value for name, value in options.items() if name in record.alternatives})
        if self.file is None:
            if not record.datasets:
                raise BadInput(f"{record.name} has no shipped data: give a file by --data.")
            name = choose(self.dataset or next(iter(record.datasets)), record.datasets, f"data set of {record.name}")
            frame = hz.load_data(name, record)
            frame.attrs["source"] = name
            return frame, {**record.datasets[name].options, **options}
        if str(self.file) in record.datasets and not self.file.exists():
            raise BadInput(f"There is no file {self.file}; the shipped data of that name: --dataset {self.file}.")
        frame = reading.read(self.file)
        if reader is None:
            columns, rules = parsing.columns(self.columns, record.columns), self._rules(record, frame)
            with _bad_input(record, frame):
                further = record.extras.further_columns(options)
            named = reading.for_model(frame, columns, rules, self.drop_unusable, self.label, further)
            return self._checked(named, record), options
        frame = _renamed(frame, parsing.columns(self.columns, ()))
        own = {name: options.pop(name) for name in inspect.signature(reader).parameters if name in options}
        with _bad_input(record, frame):
            read = reader(frame, **own)
        notes = {"notes": [*dict.fromkeys([*frame.attrs["notes"], *read.attrs.get("notes", [])])]}
        read.attrs = frame.attrs | read.attrs | notes
        present = {name: rule for name, rule in self._rules(record, read).items() if name in read}
        return reading.usable(as_numbers(read, present), present, self.drop_unusable), options

    def _rules(self, record: HierarchicalModel, frame: pd.DataFrame) -> dict[str, Rule]:
        """The rules of the model's columns, and of moderators as their cells say."""
        given = self._moderators(record).get(OPTION, [])
        named = [name for columns in given.values() for name in columns] if isinstance(given, dict) else given
        return {**kinds(frame, named), **record.columns}

    def _moderators(self, record: HierarchicalModel) -> dict:
        """The moderators as the library takes them: by coefficient, ``slope=latitude``, where a model has several."""
        several = record.extras.moderated.coefficients if record.extras.moderated else {}
        if not several or not self.moderators:
            return {OPTION: list(self.moderators)} if self.moderators else {}
        return {OPTION: parsing.by_coefficient(self.moderators, several)}

    def _checked(self, frame: pd.DataFrame, record: HierarchicalModel) -> pd.DataFrame:
        """The frame, if each cell is what its column expects; else how to leave such rows out is said."""
        with _bad_input(record, frame):
            try:
                check(frame, record.columns, record.name)
            except FrameError as error:
                if self.drop_unusable or f"in {frame.index.name} " not in str(error):
                    raise
                raise FrameError(f"{error} {reading.WAY_OUT}") from None
        return frame

    def _options(self, record: HierarchicalModel, reader: Callable | None) -> dict:
        """Options as the library takes them: text, numbers, frames out of files, functions out of modules."""
        takers = [taker for taker in (reader, record.prepare) if taker]
        options = parsing.options(self.options, takers, [*record.alternatives, *record.inputs])
        of_reader = _options_of(reader) if reader else []
        known = record.with_alternatives(options).options
        for name in options:
            choose(name, [*of_reader, *known, *OF_SAMPLER], f"option of {record.name}")
        for name, kind in record.inputs.items():
            if name not in options:
                continue
            if isinstance(kind, str):
                options[name] = parsing.function(name, options[name])
            else:
                options[name] = _second_frame(record, name, Path(options[name]), kind, self.drop_unusable)
        return options

    def _reader(self, record: HierarchicalModel):
        if self.reader is None:
            return None
        if not record.extras.readers:
            raise BadInput(f"{record.name} has no reader: name the columns of your file by --columns.")
        return record.extras.readers[choose(self.reader, record.extras.readers, f"reader of {record.name}")]


def _renamed(frame: pd.DataFrame, columns: Mapping[str, str]) -> pd.DataFrame:
    """A file with the names that its reader knows."""
    for theirs in columns.values():
        choose(theirs, map(str, frame.columns), f"column of {frame.attrs['source']}")
    return frame.rename(columns={theirs: ours for ours, theirs in columns.items()})


def _second_frame(
    record: HierarchicalModel, name: str, path: Path, columns: Mapping[str, Rule], drop_unusable: bool
) -> pd.DataFrame:
    """What comes beside the frame, from a file; what is wrong with it is said of that file."""
    try:
        frame = reading.for_model(reading.read(path), {}, columns, drop_unusable)
    except FrameError as error:
        raise FrameError(f"--option {name}: {error}") from None
    with _bad_input(record, frame):
        check(frame, columns, f"{record.name}, {name!r}")
    return frame


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
        with _bad_input(record):
            target = check_target(out, overwrite) if out else None
            frame, options = source.read(record)
            given = parsing.priors(priors)
        with _bad_input(record, frame):
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
        with progress.status(f"Fitting {words.pooling(pooling)}"), _bad_input(record, frame):
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


def _options_of(reader: Callable) -> list[str]:
    """What a reader takes beside the frame."""
    return [name for name in inspect.signature(reader).parameters if name != "frame"]


def _as_options(sentence: str, record: HierarchicalModel) -> str:
    """A sentence with options of the model and its readers as they are given here, not as Python has them.

    Examples
    --------
    >>> _as_options("Select one, e.g. gene='MAML1'.", hz.tissue_expression.MODEL)
    'Select one, e.g. --option gene=MAML1.'
    """
    names = {*record.options, *(name for reader in record.extras.readers.values() for name in _options_of(reader))}

    def as_option(found: re.Match) -> str:
        flag, name, value = found.groups()
        return found[0] if flag or name not in names else f"--option {name}={value or ''}"

    return re.sub(r"(--\w+ )?\b(\w+)=(?:'([^']*)')?", as_option, sentence)


@contextmanager
def _bad_input(record: HierarchicalModel | None = None, frame: pd.DataFrame | None = None) -> Iterator[None]:
    """Say what was wrong in the words of the data's owner."""
    try:
        yield
    except (ValueError, OSError) as error:
        about = frame.attrs if frame is not None else {}
        sentence = reading.in_their_words(str(error), about.get("labels", {}))
        sentence = _as_options(sentence, record) if record else sentence
        raise BadInput(f"{about['source']}: {sentence}" if about.get("source") else sentence) from error


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
    with _bad_input():
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
