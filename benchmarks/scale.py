"""Many refits and many genes: seconds and memory, each in a fresh process.

    uv run python benchmarks/scale.py

* ``refits``: 1,000 refits of thirteen trials, drawn with replacement, by two processes
* ``genes``: one fit of 200,000 genes, spike and slab

Each is run twice and the second is counted, with what the first left on disk.
"""

import json
import os
import resource
import subprocess
import sys
import time
import warnings
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context

import numpy as np

import hbm_zoo as hz

REFITS, PORTION, GENES = 1_000, 500, 200_000


def refits() -> None:
    """Bootstrap samples of the BCG trials, each refitted, by two processes."""
    portions = [range(first, first + PORTION) for first in range(0, REFITS, PORTION)]
    with ProcessPoolExecutor(2, get_context("spawn")) as executor:
        list(executor.map(of_a_portion, portions))


def of_a_portion(seeds: range) -> None:
    """Some of them."""
    from hbm_zoo.inference.fits import prepared
    from hbm_zoo.inference.sampling import refit

    fit = hz.fit("vaccine_clinics", hz.load_data("bcg_vaccine"), random_seed=1, progressbar=False)
    data = prepared(fit)
    for seed in seeds:
        rows = np.random.default_rng(seed).integers(data.sizes["clinic"], size=data.sizes["clinic"])
        refit(fit, data.isel(clinic=rows), seed)


def genes() -> None:
    """One in ten with an effect."""
    frame, _ = hz.spike_slab_genes.MODEL.simulate(np.random.default_rng(1), genes=GENES)
    hz.fit("spike_slab_genes", frame, random_seed=1, progressbar=False)


WORKS = {"refits": refits, "genes": genes}


def alone(work: str) -> dict[str, float]:
    """A work in a process of its own."""
    env = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    command = [sys.executable, __file__, "alone", work]
    printed = subprocess.run(command, check=True, capture_output=True, text=True, env=env, timeout=3_000).stdout
    return json.loads(printed.splitlines()[-1])


def main() -> None:
    """Print a row for each work, or what one of them took."""
    warnings.simplefilter("ignore")
    if sys.argv[1:2] == ["alone"]:
        start = time.perf_counter()
        WORKS[sys.argv[2]]()
        memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
        print(json.dumps({"seconds": time.perf_counter() - start, "memory [GiB]": memory}))
        return
    for work in sys.argv[1:] or WORKS:
        alone(work)
        print(f"{work:8s}", {name: round(value, 2) for name, value in alone(work).items()}, flush=True)


if __name__ == "__main__":
    main()
