"""Cheap tasks that workers import: each notes that it ran, draws with its seed, and may die."""

import os
import signal
import sys
import threading
import time
import uuid
import warnings
from pathlib import Path

import numpy as np
from threadpoolctl import threadpool_info


class Odd(Exception):
    """Cannot be pickled."""

    def __init__(self):
        super().__init__("no two alike")
        self.lock = threading.Lock()


def pieces(log, n=8, seconds=0.0, **of_some):
    """`n` pieces that note in the folder `log` that they ran; `of_some`: by name what else a piece has."""
    return {
        f"p{i}": {"log": str(log), "name": f"p{i}", "seed": i, "seconds": seconds} | of_some.get(f"p{i}", {})
        for i in range(n)
    }


def ran(log):
    """How often each piece ran."""
    names = [path.name.split(".")[0] for path in Path(log).iterdir()]
    return {name: names.count(name) for name in sorted(set(names))}


def draw(piece):
    """Draws, and a sum whose last bits depend on the number of threads that make it."""
    earlier = [path for path in Path(piece["log"]).iterdir() if path.name.startswith(f"{piece['name']}.")]
    (Path(piece["log"]) / f"{piece['name']}.{uuid.uuid4()}").touch()
    if len(earlier) < piece.get("dies", 0):
        os.kill(os.getpid(), signal.SIGKILL)
    time.sleep(piece["seconds"])
    if len(earlier) < piece.get("interrupted", 0):
        raise KeyboardInterrupt
    if "odd" in piece:
        raise Odd
    if "wrong" in piece:
        raise ValueError(piece["wrong"])
    if "warns" in piece:
        warnings.warn(piece["warns"], UserWarning, stacklevel=2)
    matrix = np.random.default_rng(piece["seed"]).normal(size=(400, 400))
    threads = max(library["num_threads"] for library in threadpool_info())
    return {"sums": (matrix @ matrix.T @ matrix).sum(axis=1).tobytes(), "threads": threads}


def tree(piece):
    """The same as it can be recorded."""
    import xarray as xr  # which takes longer than the rest

    drawn = draw(piece)
    values = xr.Dataset({"sums": ("row", np.frombuffer(drawn["sums"])), "threads": drawn["threads"]})
    return xr.DataTree.from_dict({"values": values})


if __name__ == "__main__":
    folder, log, workers = sys.argv[1:]
    from tasks_for_workers import tree as importable

    from hbm_zoo.workers.run import run

    run(importable, pieces(log, seconds=0.2), folder=folder, workers=int(workers), progressbar=False)
