"""One task on many pieces, by however many workers, to the bit as by one; what is finished may be recorded.

A piece holds all that its result depends on, its seed too (`seed_of`): never on the order, on who runs it, or on how
many threads its linear algebra has, which is one.
"""

from __future__ import annotations

import hashlib
import json
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Executor, Future
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from threadpoolctl import threadpool_limits

from hbm_zoo.words import plural
from hbm_zoo.workers import pickling as pickling  # records travel by name
from hbm_zoo.workers import recorded
from hbm_zoo.workers.crew import Crew
from hbm_zoo.workers.outcome import WARNED, outcome_of, perform

MOST_NAMED = 10


class Results(Mapping[str, Any]):
    """What each finished piece gave, in the order of the pieces; what is recorded is read whenever it is asked for.

    Attributes
    ----------
    failed : dict of str to Exception
        Why each of the other pieces gave nothing.
    """

    def __init__(self, names: Iterable[str], folder: recorded.Folder | None = None):
        self._names, self._folder = list(names), folder
        self._held: dict[str, Any] = {}
        self.failed: dict[str, BaseException] = {}

    def __getitem__(self, name: str) -> Any:
        if name in self.failed:
            raise KeyError(f"{name!r} failed: {self.failed[name]}") from self.failed[name]
        if name not in self._held:
            known = ", ".join(map(repr, [*self][:MOST_NAMED]))
            raise KeyError(f"No result is named {name!r}; names are text: {known}{', ...' * (len(self) > MOST_NAMED)}.")
        held = self._held[name]
        return held if self._folder is None else self._folder.read(name)

    def __contains__(self, name: object) -> bool:
        return name in self._held  # without reading it

    def __iter__(self) -> Iterator[str]:
        return iter([name for name in self._names if name in self._held])

    def __len__(self) -> int:
        return len(self._held)

    def __repr__(self) -> str:
        more = ", ..." if len(self) > MOST_NAMED else ""
        return f"<{len(self)} of {len(self._names)} results: {', '.join([*self][:MOST_NAMED])}{more}>"

    def attrs(self, name: str) -> Mapping[str, Any]:
        """What a result says of itself; of a recorded one, nothing else is read."""
        found = self._held[name].attrs if self._folder is None else self._folder.attrs(name)
        return self[name].attrs if found is None else found  # `self` says what is wrong

    def add(self, name: str, result: Any) -> None:
        """Hold a result, or the bytes of one to be recorded."""
        if self._folder is not None:
            self._folder.write(name, result)
        self._held[name] = None if self._folder is not None else result

    def resume(self) -> dict[str, Sequence]:
        """Take what is recorded already; what each of those pieces warned of."""
        if self._folder is None:
            return {}
        found = {name: attrs for name in self._names if (attrs := self._folder.attrs(name)) is not None}
        self._held = dict.fromkeys(found)
        return {name: json.loads(attrs[WARNED]) for name, attrs in found.items()}


class PiecesFailed(RuntimeError):
    """Some pieces failed: ``results`` has what the others gave, and each reason under ``results.failed``."""

    def __init__(self, message: str, results: Results):
        super().__init__(message)
        self.results = results


def run(
    task: Callable[[Any], Any],
    pieces: Mapping[str, Any],
    executor: Executor | None = None,
    workers: int = 1,
    folder: str | Path | None = None,
    progressbar: bool = True,
    noun: str = "piece",
) -> Results:
    """Run a task on each of many pieces.

    Parameters
    ----------
    task : callable
        A function of a module that workers can import, of one piece.
    pieces : mapping of str to object
        Each with all that its result depends on.
    executor : concurrent.futures.Executor, optional
        Who runs them: a pool of threads or processes, or ``distributed.Client(...).get_executor()``.
    workers : int
        Without an executor: so many processes, started for this and ended; 1 is this process.
    folder : str or Path, optional
        Where finished pieces are recorded, one NetCDF file each, for results that are ``xarray.DataTree``. The same
        call goes on where an earlier one was stopped, however it was; pieces that are not recorded yet may have
        changed, or be new.
    progressbar : bool
        Show on the standard error how many are done, and the time left.
    noun : str
        What a piece is called in messages.

    Returns
    -------
    Results
        A mapping from the name of a piece to its result.

    Raises
    ------
    ValueError
        If an argument is not what is expected, or the folder holds other work.
    PiecesFailed
        After all others are done, if pieces failed: what is made of the results should not lack some of them unseen.

    Warns
    -----
    UserWarning and others
        What pieces warned of, once for each category.

    Notes
    -----
    When a process of ours dies, another takes its place, and what was lost runs again; a piece whose worker died
    three times is given up. Threads of one process take turns, so that only processes save time.

    Examples
    --------
    >>> from math import factorial
    >>> dict(run(factorial, {"three": 3, "four": 4}, progressbar=False))
    {'three': 6, 'four': 24}
    """
    _check(task, pieces, executor, workers)
    book = None if folder is None else recorded.opened(folder, task, pieces)
    results = Results(pieces, book)
    warned: dict[str, Sequence] = results.resume()

    def submit(worker: Executor, name: str) -> Future:
        return worker.submit(perform, task, pieces[name], None if book is None else book.fingerprints[name])

    with threadpool_limits(limits=1), warnings.catch_warnings(), _progress(noun, progressbar) as progress:
        bar = progress.add_task("", total=len(pieces), completed=len(results))
        with Crew(executor, workers) as crew:
            for name, future in crew.outcomes([name for name in pieces if name not in results], submit):
                outcome = outcome_of(future)
                warned[name] = outcome.warned
                if outcome.error is None:
                    results.add(name, outcome.result)
                else:
                    results.failed[name] = outcome.error
                progress.advance(bar)
    results.failed = {name: results.failed[name] for name in pieces if name in results.failed}
    _warn({name: warned[name] for name in pieces}, noun)
    if results.failed:
        said = summary(results.failed, len(pieces), noun, "failed")
        raise PiecesFailed(said, results) from next(iter(results.failed.values()))
    return results


def seed_of(root: int, name: str) -> int:
    """The seed of a piece, 53 bits: by its name, so that it has the same one whichever others there are.

    Examples
    --------
    >>> seed_of(1, "a") == seed_of(1, "a"), seed_of(1, "a") == seed_of(2, "a"), seed_of(1, "a") == seed_of(1, "b")
    (True, False, False)
    """
    of_name = int.from_bytes(hashlib.sha256(name.encode()).digest())
    return int(np.random.SeedSequence([root, of_name]).generate_state(1, np.uint64)[0] >> np.uint64(11))


def _check(task: Callable, pieces: Mapping[str, Any], executor: Executor | None, workers: int) -> None:
    if not isinstance(workers, int) or isinstance(workers, bool) or workers < 1:
        raise ValueError(f"workers must be a whole number, 1 or more, got {workers!r}.")
    if executor is not None and workers != 1:
        raise ValueError("Expected workers or an executor, got both: an executor has its own workers.")
    if executor is not None and not hasattr(executor, "submit"):
        raise ValueError(f"Expected an executor of concurrent.futures, got {executor!r}: a number is for workers.")
    if not pieces:
        raise ValueError("Expected at least one piece of work, got none.")
    if not all(isinstance(name, str) for name in pieces):
        raise ValueError(f"Expected pieces by names that are text, got {list(pieces)[:MOST_NAMED]!r}.")
    if workers > 1 and (task.__module__ == "__main__" or "<" in task.__qualname__):
        raise ValueError(f"Workers cannot import {task.__qualname__} of {task.__module__}: define it in a module.")


def _progress(noun: str, shown: bool) -> Progress:
    left = (TextColumn("elapsed"), TimeElapsedColumn(), TextColumn("left"), TimeRemainingColumn())
    columns = (TextColumn(plural(noun)), BarColumn(), MofNCompleteColumn(), *left)
    return Progress(*columns, console=Console(stderr=True), disable=not shown)


def _warn(warned: Mapping[str, Iterable], noun: str) -> None:
    """Say once for each category which pieces warned, and what the first said."""
    said: dict[tuple[str, str], dict[str, str]] = {}
    for name, heard in warned.items():
        for module, category, text in heard:
            said.setdefault((module, category), {}).setdefault(name, text)
    for (module, category), texts in said.items():
        kind = getattr(import_module(module), category, UserWarning)
        warnings.warn(summary(texts, len(warned), noun, "warned"), kind, stacklevel=3)


def summary(failed: Mapping[str, object], of: int, noun: str, what: str) -> str:
    """How many, which, and why the first.

    Examples
    --------
    >>> summary({"a": "no data.", "b": "no data."}, 5, "unit", "failed")
    '2 of 5 units failed: a, b. The first, a: no data.'
    """
    more = f" and {len(failed) - MOST_NAMED} more" if len(failed) > MOST_NAMED else ""
    first, reason = next(iter(failed.items()))
    which = ", ".join(list(failed)[:MOST_NAMED])
    return f"{len(failed)} of {of} {plural(noun, of)} {what}: {which}{more}. The first, {first}: {reason}"
