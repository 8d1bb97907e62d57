"""Where a comparison's data come from, and what is said of them in the words of their owner."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

import hbm_zoo as hz
from hbm_zoo.command_line import parsing
from hbm_zoo.command_line.errors import BadInput
from hbm_zoo.frames import reading
from hbm_zoo.frames.moderators import OPTION, kinds
from hbm_zoo.frames.numerals import as_numbers
from hbm_zoo.frames.rules import FrameError, Rule, check
from hbm_zoo.inference.arguments import OF_SAMPLER
from hbm_zoo.model import HierarchicalModel
from hbm_zoo.words import choose


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
        with bad_input(record):
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
            with bad_input(record, frame):
                further = record.extras.further_columns(options)
            named = reading.for_model(frame, columns, rules, self.drop_unusable, self.label, further)
            return self._checked(named, record), options
        frame = _renamed(frame, parsing.columns(self.columns, ()))
        own = {name: options.pop(name) for name in inspect.signature(reader).parameters if name in options}
        with bad_input(record, frame):
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
        with bad_input(record, frame):
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
    with bad_input(record, frame):
        check(frame, columns, f"{record.name}, {name!r}")
    return frame


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
def bad_input(record: HierarchicalModel | None = None, frame: pd.DataFrame | None = None) -> Iterator[None]:
    """Say what was wrong in the words of the data's owner."""
    try:
        yield
    except (ValueError, OSError) as error:
        about = frame.attrs if frame is not None else {}
        sentence = reading.in_their_words(str(error), about.get("labels", {}))
        sentence = _as_options(sentence, record) if record else sentence
        raise BadInput(f"{about['source']}: {sentence}" if about.get("source") else sentence) from error
