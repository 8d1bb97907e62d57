"""Who runs the pieces: this process, processes of our own, or any executor; the dead are replaced."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, BrokenExecutor, Executor, Future, ProcessPoolExecutor, wait
from contextlib import suppress
from multiprocessing.connection import Connection

MOST_DEATHS = 3
#: Pieces that a caller's executor holds at a time; how many workers it has is not known.
UNDER_WAY = 512


class WorkerDied(RuntimeError):
    """A worker died each time that it ran a piece."""


class Here(Executor):
    """The process that submits a piece runs it at once."""

    def submit(self, function, /, *args, **kwargs):
        """Run it."""
        future: Future = Future()
        future.set_result(function(*args, **kwargs))
        return future


class Crew:
    """An executor that is given a bounded number of pieces at a time.

    Parameters
    ----------
    executor : concurrent.futures.Executor, optional
        The caller's, who ends it, too.
    workers : int
        Without an executor: so many processes of our own or, if 1, this one.
    """

    def __init__(self, executor: Executor | None = None, workers: int = 1):
        self._workers, self._own = workers, executor is None and workers > 1
        self._executor = executor or Here()
        # Twice the workers: each finds its next piece at hand.
        self._most = UNDER_WAY if executor else 2 * workers if self._own else 1

    def __enter__(self) -> Crew:
        if self._own:
            held, self._leash = multiprocessing.Pipe(duplex=False)
            spawn = multiprocessing.get_context("spawn")  # a fork copies locks that threads of ours may hold
            self._executor = ProcessPoolExecutor(self._workers, spawn, _born, (held,))
        return self

    def __exit__(self, kind, error, traceback) -> None:
        if not self._own:
            return
        if kind is not None:
            self._leash.close()
        self._executor.shutdown(cancel_futures=True)
        self._leash.close()

    def outcomes(self, names: Iterable[str], submit: Callable[[Executor, str], Future]) -> Iterator[tuple[str, Future]]:
        """Each piece's name and its future, in whatever order they are done.

        When a process of our own dies, what was under way is lost, whichever piece was to blame. Those pieces run
        again one at a time, so that the one to blame is known; it is given up after `MOST_DEATHS` more.

        Raises
        ------
        WorkerDied
            If the caller's executor broke, or several pieces were given up and none was ever done.
        """
        waiting = deque(names)
        flying: dict[str, Future] = {}
        deaths: Counter[str] = Counter()
        given_up: Counter[bool] = Counter()
        try:
            while waiting or flying:
                while waiting and len(flying) < (1 if deaths else self._most):
                    name = waiting.popleft()
                    flying[name] = _sent(submit, self._executor, name)
                wait(flying.values(), return_when=FIRST_COMPLETED)
                for name in [name for name, future in flying.items() if future.done() and not _broke(future)]:
                    deaths.pop(name, None)
                    given_up[isinstance(_error(flying[name]), WorkerDied)] += 1
                    if given_up[True] > 1 and not given_up[False]:
                        flying[name].result()
                    yield name, flying.pop(name)
                if any(map(_broke, flying.values())):
                    self._replace(waiting, flying, deaths)
        finally:
            for future in flying.values():
                future.cancel()

    def _replace(self, waiting: deque, flying: dict, deaths: Counter) -> None:
        """New processes for the dead, and what they had under way once more, ahead of all others."""
        if not self._own:
            raise WorkerDied("The executor broke, which only its owner can mend: make a new one and run this again.")
        wait(flying.values())
        lost = [name for name, future in flying.items() if _broke(future)]
        deaths.update(dict.fromkeys(lost, int(len(lost) == 1)))  # who was not alone is a suspect
        self.__exit__(BrokenExecutor, None, None)
        self.__enter__()
        for name in reversed(lost):
            del flying[name]
            if deaths[name] >= MOST_DEATHS:
                flying[name] = _failed(WorkerDied(GIVEN_UP.format(name)))
            else:
                waiting.appendleft(name)


GIVEN_UP = (
    f"{{!r}} was given up: its worker died {MOST_DEATHS} times, with no other piece under way. Workers die when memory "
    "runs out, when they are killed, and in a script that starts them outside of `if __name__ == '__main__':`."
)


def _sent(submit: Callable[[Executor, str], Future], executor: Executor, name: str) -> Future:
    try:
        return submit(executor, name)
    except BrokenExecutor as error:
        return _failed(error)


def _failed(error: Exception) -> Future:
    future: Future = Future()
    future.set_exception(error)
    return future


def _error(future: Future) -> BaseException | None:
    return future.exception() if future.done() else None


def _broke(future: Future) -> bool:
    return isinstance(_error(future), BrokenExecutor)


def _born(leash: Connection) -> None:
    """Live no longer than the parent wants, or than it lives: a pool alone would leave orphans that wait for ever."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_die_with, args=(leash,), daemon=True).start()


def _die_with(leash: Connection) -> None:
    with suppress(EOFError, OSError):
        leash.recv()
    os._exit(1)
