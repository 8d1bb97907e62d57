"""Seconds of ``hbm-zoo compare`` on each shipped data set, cold: a new process, and nothing compiled beforehand.

    python benchmarks/comparisons.py [MODEL ...]

Imports, fits, both comparisons, checks and answers are in it; a report is not. CPU seconds are of all processes; on a
machine that has other work they are too many, and the others far too many.
"""

import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import hbm_zoo as hz

LONGEST = 3000


def seconds(model: str, name: str) -> tuple[float, float, str]:
    """By the clock and of processors, and how it ended."""
    with tempfile.TemporaryDirectory() as empty:
        env = {**os.environ, "PYTENSOR_FLAGS": f"base_compiledir={empty}"}
        command = [Path(sys.executable).with_name("hbm-zoo"), "compare", model, "--dataset", name, "--seed", "1"]
        start, before = time.perf_counter(), resource.getrusage(resource.RUSAGE_CHILDREN)
        try:
            code = subprocess.run(command, env=env, capture_output=True, timeout=LONGEST).returncode
            ended = {0: "", 1: "a fit failed a check"}.get(code, "broke off")
        except subprocess.TimeoutExpired:
            ended = f"not in {LONGEST} s"
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        used = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
        return time.perf_counter() - start, used, ended


def main() -> None:
    """A row for each data set of the models asked for, or of all."""
    print("| model | data | seconds | of processors | |\n| --- | --- | --- | --- | --- |")
    for model in sys.argv[1:] or hz.MODELS:
        for name in hz.MODELS[model].MODEL.datasets:
            clock, used, ended = seconds(model, name)
            print(f"| {model} | {name} | {clock:.0f} | {used:.0f} | {ended} |", flush=True)


if __name__ == "__main__":
    main()
