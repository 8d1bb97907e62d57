"""In a worker: what comes of a piece. Little is imported here, so that a worker starts as fast as its task allows."""

from __future__ import annotations

import json
import pickle
import sys
import threading
import traceback
import warnings
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from threadpoolctl import threadpool_limits

#: In the attrs of a recorded result: the fingerprint of its piece, and what was warned of on the way to it.
PIECE, WARNED = "piece", "warned"
#: What libraries say to those who write programs.
NOT_FOR_USERS = (DeprecationWarning, PendingDeprecationWarning, ImportWarning, ResourceWarning)
#: Threads of a process take turns: they share the memory of PyTensor's compiled functions, and Python's warnings.
IN_TURN = threading.RLock()


@dataclass(frozen=True)
class Outcome:
    """What came of a piece: a result or an error, and warnings as module, category and text."""

    result: Any = None
    error: BaseException | None = None
    warned: Sequence[Sequence[str]] = ()


def perform(task: Callable, piece: Any, recorded_as: str | None = None) -> Outcome:
    """What comes of a piece, one thread for its linear algebra, and what it warned of; in bytes if it is recorded."""
    with IN_TURN, warnings.catch_warnings(record=True) as heard:
        _one_thread(len(sys.modules))
        warnings.simplefilter("always")
        for category in NOT_FOR_USERS:
            warnings.simplefilter("ignore", category)
        try:
            result = task(piece)
            kept = result if recorded_as is None else _to_bytes(result, recorded_as, _said(heard))
            return Outcome(kept, None, _said(heard))
        except Exception as error:
            return Outcome(None, _portable(error), _said(heard))


@lru_cache(maxsize=1)
def _one_thread(modules: int) -> None:
    """For good in a process that serves; `run` lifts it in its own.

    Looking for the libraries takes as long as a cheap piece: again only when there are more modules, which bring them.
    """
    threadpool_limits(limits=1)


def _said(heard: list[warnings.WarningMessage]) -> list[tuple[str, str, str]]:
    """Each warning once."""
    said = ((w.category.__module__, w.category.__qualname__, str(w.message)) for w in heard)
    return list(dict.fromkeys(said))


def _to_bytes(result: Any, piece: str, said: list) -> bytes:
    import xarray as xr

    if not isinstance(result, xr.DataTree):
        raise TypeError(f"Expected a DataTree to be recorded, the task returned {type(result).__name__}.")
    result.attrs |= {PIECE: piece, WARNED: json.dumps(said)}
    with _no_lock_of_a_cluster():
        return bytes(result.to_netcdf())


def _no_lock_of_a_cluster() -> AbstractContextManager:
    """Where a cluster is at work xarray asks it for a lock by the file's name, which bytes in memory do not have."""
    dask = sys.modules.get("dask")
    return dask.config.set(scheduler="synchronous") if dask else nullcontext()


def _portable(error: Exception) -> Exception:
    """An error that arrives: one that cannot be made again from its pickle would break the pool that brings it."""
    note = "In the worker:\n" + "".join(traceback.format_exception(error))
    error.__traceback__ = error.__cause__ = error.__context__ = None
    try:
        pickle.loads(pickle.dumps(error))
    except Exception:
        error = RuntimeError(f"{type(error).__name__}: {error}")
    error.add_note(note)
    return error


def outcome_of(future: Future) -> Outcome:
    """What a worker said, or why none could."""
    error = future.exception()
    return future.result() if error is None else Outcome(error=error)
