"""How often do bounds on batches hold? ``uv run python docs/tolerance.py`` makes the table of docs/tolerance.md."""

import warnings
from concurrent.futures import ProcessPoolExecutor
from itertools import product
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import xarray as xr
from pymc_extras.prior import Prior
from scipy import stats

import hbm_zoo as hz
from hbm_zoo.diagnostics.material_batches import NEXT, SPECIMENS, tolerance_bound
from hbm_zoo.inference import sampling
from hbm_zoo.inference.fitting import attributes

STUDIES, SPECIMENS_EACH = 250, 5
#: Campaigns, batches of each, sd of batches over that of specimens; the sd of campaigns, where there are several.
CELLS = [*product([1], [3, 5, 10], [0.3, 1.0, 3.0]), (3, 3, 1.0), (6, 4, 1.0)]
SIGMA_C = 1.0
HEAD = "| campaigns | batches of each | sigma_b | new batches | next batch | narrow: new | narrow: next | ANOVA |"


def drawn(frame, priors, seed):
    """What of a fit a bound needs: its draws and its data, no tables."""
    record = hz.material_batches.MODEL
    data = record.data(frame)
    resolved = record.priors(data, priors, "partial")
    settings = {"draws": 500, "chains": 4, "tune": 1000, "seed": seed, "engine": "auto"}
    fit = sampling.sample(record, data, "partial", None, resolved, settings, False, {})
    fit.attrs |= attributes(record, data, "partial", resolved) | {"seed": seed}
    fit["constant_data"] = xr.DataTree(data)
    return fit


def bounds(frame, priors, seed):
    """Lower bounds of 90 % with 95 %: of specimens of new batches, of the next batch, and the classical one."""
    fit = drawn(frame, priors, seed)
    of_all, of_next = (tolerance_bound(fit, of=of)["lower"] for of in (SPECIMENS, NEXT))
    return of_all[SPECIMENS], of_next[NEXT], of_all["one-way ANOVA"]


def study(campaigns, batches, sigma_b, seed):
    """Whether bounds hold, of one simulated data set, under the default priors and narrow ones."""
    rng, sigma_c = np.random.default_rng(seed), SIGMA_C if campaigns > 1 else 0.0
    sizes = {"batches": (batches, batches), "specimens": (SPECIMENS_EACH, SPECIMENS_EACH)}
    spreads = {"sigma_c": sigma_c, "sigma_b": sigma_b, "sigma": 1.0}
    frame, _ = hz.material_batches.simulate(rng, campaigns=campaigns, mu=50.0, **spreads, **sizes)
    between = float(frame.groupby(["campaign", "batch"])["strength"].mean().std())
    narrow = dict.fromkeys(("sigma_c", "sigma_b", "sigma"), Prior("HalfNormal", sigma=between))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        default, other = (bounds(frame, priors, seed) for priors in (None, narrow))
    in_truth = np.hypot(sigma_c, sigma_b)
    batch = rng.normal(50.0, in_truth)

    def above(bound, of_next):
        return stats.norm.sf(bound, batch, 1.0) if of_next else stats.norm.sf(bound, 50.0, np.hypot(in_truth, 1.0))

    shares = [above(default[0], False), above(default[1], True), above(other[0], False), above(other[1], True)]
    return [share >= 0.9 for share in [*shares, above(default[2], False)]]


def main():
    """Write the table anew after each line."""
    page = Path(__file__).with_name("tolerance.md")
    text = page.read_text().split(HEAD)[0] + HEAD + "\n|" + " --- |" * (HEAD.count("|") - 1) + "\n"
    with ProcessPoolExecutor(2, get_context("spawn")) as executor:
        for cell in CELLS:
            held = np.array([*executor.map(study, *zip(*[cell] * STUDIES, strict=True), range(STUDIES), chunksize=20)])
            share = held.mean(axis=0)
            covered = [f"{p:.3f} +- {np.sqrt(p * (1 - p) / STUDIES):.3f}" for p in share]
            text += "| " + " | ".join([*map(str, cell), *covered]) + " |\n"
            page.write_text(text)
            print(cell, covered, flush=True)


if __name__ == "__main__":
    main()
