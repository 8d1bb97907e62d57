"""Seconds from frame to finished fit, and of a whole comparison, each in a fresh process: two checkouts, one run.

    git worktree add ../before <commit>
    python benchmarks/seconds.py ../before .

For each data set that the first checkout has, a process imports the package, then fits partial pooling, or of one group
no pooling; imports are not counted. The checkouts take turns, so that what else the machine does meets both; a first
round fills their caches and is not counted. The last row is `hbm-zoo compare` with its imports. Printed are medians of
seconds by the clock, and the ratio of the first checkout to the last.
"""

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from statistics import median

REPETITIONS = 3
FIT = """
import json, time, warnings
import hbm_zoo as hz
import hbm_zoo.inference.fitting
warnings.simplefilter("ignore")
name, model = {name!r}, {model!r}
record = hz.MODELS[model].MODEL
options, frame = dict(record.datasets[name].options), hz.load_data(name, model)
pooling = "partial" if record.labels(frame).nunique() > 1 else "none"
start = time.perf_counter(), time.process_time()
fit = hz.fit(model, frame, pooling, random_seed=1, progressbar=False, **options)
print(json.dumps([time.perf_counter() - start[0], time.process_time() - start[1]]))
"""
DATA = """
import json, hbm_zoo as hz
records = [module.MODEL for module in hz.MODELS.values()]
print(json.dumps([(name, record.name) for record in records for name in record.datasets]))
"""


def output(checkout: Path, *command: str) -> str:
    """What a command prints in the environment of a checkout; the bytecode of what it imports is kept, as usual."""
    env = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    how = {"cwd": checkout, "env": env, "check": True, "capture_output": True, "text": True, "timeout": 900}
    return subprocess.run(["uv", "run", "--quiet", *command], **how).stdout


def seconds_of_fit(checkout: Path, name: str, model: str) -> float:
    """From the frame to the fit, imports not counted."""
    printed = output(checkout, "python", "-c", FIT.format(name=name, model=model))
    return json.loads(printed.splitlines()[-1])[0]


def seconds_of_comparison(checkout: Path) -> float:
    """Of the README's first command, everything counted."""
    start = time.perf_counter()
    output(checkout, "hbm-zoo", "compare", "hospital_readmission", "--seed", "2")
    return time.perf_counter() - start


def race(label: str, measure, checkouts: list[Path]) -> None:
    """A row: the median of each checkout, taking turns, and the ratio of the first to the last."""
    for checkout in checkouts:
        measure(checkout)
    runs = [[measure(checkout) for checkout in checkouts] for _ in range(REPETITIONS)]
    medians = [median(column) for column in zip(*runs, strict=True)]
    print(f"{label:26s}", *(f"{m:8.2f}" for m in medians), f"{medians[0] / medians[-1]:8.1f}", flush=True)


def main() -> None:
    """Print a row for each data set, and one for the comparison."""
    checkouts = [Path(path).resolve() for path in sys.argv[1:] or ["."]]
    print(f"{'seconds':26s}", *(f"{path.name[:8]:>8s}" for path in checkouts), f"{'ratio':>8s}")
    for shipped in json.loads(output(checkouts[0], "python", "-c", DATA).splitlines()[-1]):
        race(shipped[0], lambda checkout, shipped=shipped: seconds_of_fit(checkout, *shipped), checkouts)
    race("compare", seconds_of_comparison, checkouts)


if __name__ == "__main__":
    main()
