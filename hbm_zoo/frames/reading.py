"""Read a person's file as it is: separators, decimal commas, byte order marks, rows that are no group.

A frame read here knows where it came from: its index holds the lines of the file, so
an error names the line, and its ``attrs`` hold the ``source``, the ``labels`` (what
the file calls the model's columns) and ``notes`` on what was done to the rows.
"""

from __future__ import annotations

import csv
import difflib
import io
import re
from collections.abc import Container, Iterable, Iterator, Mapping
from pathlib import Path

import pandas as pd

from hbm_zoo.frames.numerals import as_numbers
from hbm_zoo.frames.rules import FrameError, Rule, cell, likenesses, places
from hbm_zoo.frames.summaries import summary_rows
from hbm_zoo.words import plural

SEPARATORS = ",;\t|"
BYTE_ORDER = "\ufeff"
MOST_LISTED = 20
MOST_COLUMNS = 8
#: How rows that cannot be used are left out.
WAY_OUT = "Remove it from the file, or leave such rows out, counted and listed, by --drop-unusable."


def read(path: Path) -> pd.DataFrame:
    """Read a file as text, every cell as it stands in it; a parquet file with its types.

    Raises
    ------
    FrameError
        If the file is not there, not a table, or a line has more cells than the header.
    """
    path = Path(path)
    if path.is_dir():
        raise FrameError(f"{path} is a folder: name a file in it.")
    if not path.is_file():
        near = difflib.get_close_matches(path.name, [p.name for p in path.parent.glob("*")], n=1)
        raise FrameError(f"There is no file {path}." + (f" Did you mean {near[0]}?" if near else ""))
    content = path.read_bytes()
    if content.startswith(b"PAR1"):
        frame = pd.read_parquet(io.BytesIO(content))
        frame.index = pd.RangeIndex(1, len(frame) + 1, name="row")
    elif content.startswith((b"PK\x03\x04", b"\xd0\xcf\x11\xe0")):
        raise FrameError(f"{path} is a workbook: save the sheet as CSV.")
    else:
        frame = _read_text(_decoded(content, path), path)
    frame.columns = [str(name).strip() for name in frame.columns]
    frame.attrs = {"notes": [], "separator": None} | frame.attrs | {"source": path.name, "labels": {}}
    return frame


def for_model(
    frame: pd.DataFrame,
    columns: Mapping[str, str],
    rules: Mapping[str, Rule],
    drop_unusable: bool = False,
    label: str | None = None,
    further: Iterable[str] = (),
) -> pd.DataFrame:
    """Give the model's names to a frame's columns, and read its numbers.

    Parameters
    ----------
    frame : pandas.DataFrame
        As `read` returns it.
    columns : mapping of str to str
        The model's name to the file's. A name not given is looked for, its case ignored.
    rules : mapping of str to Rule
        The model's columns.
    drop_unusable : bool
        Leave out, and note, summaries and rows that break a column's rule.
    label : str, optional
        A further column that is used, with the names of groups.
    further : iterable of str
        Others, which options name.

    Raises
    ------
    FrameError
        If a column named is not in the file or not in the model, or a row is a summary of the others.
    """
    source, labels = frame.attrs["source"], _labels(frame, columns, rules)
    if label is not None:
        _check_known(label, frame.columns, f"--label {label}: {source}")
    kept = frame.drop(columns=[name for name in labels if name in frame.columns and name not in labels.values()])
    named = kept.rename(columns={theirs: ours for ours, theirs in labels.items()})
    present = {name: rules[name] for name in labels}
    named = as_numbers(named, present)
    other = {ours: theirs for ours, theirs in labels.items() if ours != theirs}
    named.attrs = {
        "source": source,
        "labels": other,
        "notes": [*frame.attrs["notes"], *unused(frame, {*labels.values(), *further, label})],
    }
    return usable(named, present, drop_unusable)


NOT_USED = "the model does not use"


def unused(frame: pd.DataFrame, used: Container) -> list[str]:
    """A sentence that names the columns which the model does not use.

    Examples
    --------
    >>> unused(pd.DataFrame({"effect": [0.1], "latitude": [44]}), ["effect"])
    ["the model does not use column 'latitude'."]
    """
    others = [repr(str(name)) for name in frame.columns if name not in used]
    if not others:
        return []
    more = f" and {len(others) - MOST_COLUMNS} more" if len(others) > MOST_COLUMNS else ""
    names = f"{', '.join(others[:MOST_COLUMNS])}{more}"
    source = f"{frame.attrs['source']}: " if frame.attrs.get("source") else ""
    return [f"{source}{NOT_USED} {plural('column', len(others))} {names}."]


def usable(frame: pd.DataFrame, rules: Mapping[str, Rule], drop_unusable: bool) -> pd.DataFrame:
    """The rows that a model can use: others are left out and noted, or the first summary among them is refused.

    Raises
    ------
    FrameError
        If a row is a summary of the others and none is to be left out.
    """
    unit, source, unusable = frame.index.name or "row", frame.attrs["source"], summary_rows(frame, rules)
    frame.attrs["notes"] = [*frame.attrs["notes"], *(f"{source}: {said}" for said in likenesses(frame, rules))]
    if not drop_unusable:
        for row, why in unusable.items():
            raise FrameError(f"{unit} {row} of {source} is no {next(iter(rules))}: {why}. {WAY_OUT}")
        return frame
    for name, rule in rules.items():
        for row in frame.index[~rule.holds(frame[name]).to_numpy(bool)]:
            unusable.setdefault(row, f"{frame.attrs['labels'].get(name, name)} is {cell(frame.at[row, name])}")
    kept = frame.drop(index=list(unusable))
    kept.attrs = frame.attrs | {"notes": [*frame.attrs["notes"], *_left_out(unusable, frame, rules)]}
    return kept


def _left_out(unusable: Mapping, frame: pd.DataFrame, rules: Mapping[str, Rule]) -> list[str]:
    """A sentence that counts and lists what was left out."""
    if not unusable:
        return []
    unit, source, first = frame.index.name or "row", frame.attrs["source"], sorted(unusable)[:MOST_LISTED]
    named = zip(places(frame.loc[first], rules), first, strict=True)
    listed = "; ".join(f"{place}: {unusable[row]}" for place, row in named)
    more = f"; and {len(unusable) - MOST_LISTED} more" if len(unusable) > MOST_LISTED else ""
    return [f"{len(unusable)} {plural(unit, len(unusable))} of {source} could not be used, left out: {listed}{more}."]


def in_their_words(sentence: str, labels: Mapping[str, str]) -> str:
    """A sentence about the model's columns, with the file's names in their place."""
    for ours, theirs in labels.items():
        for before in ("column ", "Rescale "):
            sentence = sentence.replace(f"{before}{ours!r}", f"{before}{theirs!r}")
    return sentence


def _decoded(content: bytes, path: Path) -> str:
    no_text = f"{path} is not a text file: expected CSV or parquet."
    if content.startswith((b"\xff\xfe", b"\xfe\xff")):
        try:
            return content.decode("utf-16").lstrip(BYTE_ORDER)
        except UnicodeDecodeError as error:
            raise FrameError(no_text) from error
    if b"\0" in content:
        raise FrameError(no_text)
    try:
        return content.decode("utf-8").lstrip(BYTE_ORDER)
    except UnicodeDecodeError:
        return content.decode("cp1252", errors="replace")


def _read_text(text: str, path: Path) -> pd.DataFrame:
    """Cells as text, empty ones missing; lines without a cell are skipped, the others keep their number."""
    stated = re.match(r"sep=(.)\r?\n", text)
    first = next((line for line in text.splitlines()[1 if stated else 0 :] if line.strip()), "")
    separator = (
        stated[1] if stated else max(SEPARATORS, key=lambda mark: len(next(csv.reader([first], delimiter=mark), [])))
    )
    header: list[str] = []
    rows, lines, notes = [], [], []
    for line, cells in _records(text, separator, path):
        cells = [cell.strip() for cell in cells]
        if not any(cells) or (stated and line == 1):
            continue
        if not header:
            header = _without_empty_end(cells)
            continue
        cells = _without_empty_end(cells)
        if len(cells) > len(header):
            raise FrameError(f"{path.name}: line {line} has {len(cells)} cells, the header has {len(header)}.")
        rows.append([cell or None for cell in cells] + [None] * (len(header) - len(cells)))
        lines.append(line)
        notes += [
            f"Line {line} of {path.name}: the cell of {name!r} goes over several lines. Is a quote missing?"
            for name, cell in zip(header, cells, strict=False)
            if "\n" in cell or "\r" in cell
        ]
    if not header:
        raise FrameError(f"{path.name} is empty: expected a header and rows.")
    frame = pd.DataFrame(rows, columns=header, index=pd.Index(lines, name="line", dtype=int), dtype=object)
    frame.attrs = {"notes": notes, "separator": separator}
    return frame


def _records(text: str, separator: str, path: Path) -> Iterator[tuple[int, list[str]]]:
    """Rows of cells, each with the line where it begins."""
    reader, line = csv.reader(io.StringIO(text, newline=""), delimiter=separator, strict=True), 1
    try:
        for cells in reader:
            yield line, cells
            line = reader.line_num + 1
    except csv.Error as error:
        if "end of data" in str(error):
            raise FrameError(f"{path.name}: a quote that is opened in line {line} is never closed.") from None
        if "field larger" in str(error):
            raise FrameError(
                f"{path.name}: a cell in line {line} has more than {csv.field_size_limit():,} characters. Is a quote "
                "missing?"
            ) from None
        raise FrameError(
            f"{path.name}: line {line} has a quote amid a cell that is quoted; inside quotes a quote is written twice."
        ) from None


def _without_empty_end(cells: list[str]) -> list[str]:
    """Cells up to the last that holds something: spreadsheets pad lines with empty ones."""
    return cells[: max((i + 1 for i, cell in enumerate(cells) if cell), default=0)]


def _labels(frame: pd.DataFrame, columns: Mapping[str, str], rules: Mapping[str, Rule]) -> dict[str, str]:
    """The model's name of each column and the file's: as told, else the same but for case."""
    for ours, theirs in columns.items():
        _check_known(ours, rules, f"--columns {ours}={theirs}: the model")
        _check_known(theirs, frame.columns, f"--columns {ours}={theirs}: {frame.attrs['source']}")
    labels = {}
    for ours in rules:
        free = [name for name in frame.columns if name not in columns.values()]
        alike = [ours] if ours in free else [name for name in free if name.lower() == ours.lower()]
        if ours in columns:
            labels[ours] = columns[ours]
        elif len(alike) == 1:
            labels[ours] = alike[0]
    for theirs in labels.values():
        if list(frame.columns).count(theirs) > 1 or list(labels.values()).count(theirs) > 1:
            raise FrameError(f"{frame.attrs['source']}: expected one column {theirs!r} for one column of the model.")
    return labels


def _check_known(name: str, known: Iterable[str], owner: str) -> None:
    if name not in known:
        near = difflib.get_close_matches(name, list(known), n=1, cutoff=0.4)
        hint = f" Did you mean {near[0]!r}?" if near else ""
        raise FrameError(f"{owner} has no column {name!r}, only {', '.join(known)}.{hint}")
