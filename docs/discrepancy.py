"""How often do intervals hold when the simulator is wrong? ``uv run python docs/discrepancy.py FILE`` makes the table.

Finished rigs are kept in the file, and the same call goes on where an earlier one was stopped.
"""

import sys
import warnings
from concurrent.futures import ProcessPoolExecutor
from itertools import product
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import pandas as pd
import xarray as xr
from arviz_stats.base import array_stats
from pymc_extras.prior import Prior
from scipy import stats
from scipy.special import softmax

import hbm_zoo as hz
from hbm_zoo.diagnostics.reality import parts
from hbm_zoo.inference import sampling
from hbm_zoo.inference.fits import hyperparameters
from hbm_zoo.inference.fitting import attributes
from hbm_zoo.models.model_discrepancy import truly

RIGS, E, SHARE, MIDDLE = 80, 70.0, 0.3, 10.0
#: What the model does not know of, and how that differs between mountings, sd of the log.
TRUTHS = {
    "clamped": ("clamped", 0.0),
    "rotational spring": ("rotational spring", 0.0),
    "springs that differ": ("rotational spring", 0.3),
    "sinking support": ("sinking support", 0.0),
    "gap": ("gap", 0.0),
    "stiffening spring": ("stiffening spring", 0.0),
}
OPTIONS = {
    "none": {"discrepancy": "none"},
    "pinned, proportional": {},
    "free, proportional": {"support": "free"},
    "pinned, stationary": {"with_load": "stationary"},
    "by specimen, pinned, proportional": {"discrepancy": "by specimen"},
}
PRIORS = {"vague": None, "E to 3 %": {"m": Prior("Normal", mu=1 / E, sigma=0.03 / E)}}
#: Predictions for a specimen of the rig: position [m] and load [N].
ASKED = {"among the data": (0.45, 10.0), "beyond the last sensor": (1.0, 10.0), "beyond the loads": (0.8, 30.0)}
TAILS = [0.05, 0.95]
#: Draws of proposals that are moved to the posterior, how often at most, and of those that are kept, one if it is good.
MOVED, MOST, KEPT = 400, 16, (2000, 6000)
#: Share of the draws that weights are worth where a proposal need not be moved again.
THERE = 0.4
HELD = ["E", "discrepancy", *ASKED]
HEAD = (
    "| truth | discrepancy of the model | prior of E | rigs | E | discrepancy | among | beyond sensors | beyond loads |"
)


def drawn(record, data, priors, seed):
    """What of a fit the verbs need, its draws and its data, and whether importance sampling alone has made them."""
    resolved = record.priors(data, priors, "partial")
    fixed = record.fixed["partial"](resolved, data)
    free = [name for name in record.parameters if name not in fixed]
    found = importance(record, data, resolved, fixed, free, np.random.default_rng(seed))
    if found is None:
        settings = {"draws": 250, "chains": 4, "tune": 1000, "seed": seed, "engine": "auto"}
        fit = sampling.sample(record, data, "partial", None, resolved, settings, False, {})
    else:
        fit = xr.DataTree.from_dict({"posterior": xr.Dataset({n: (("chain", "draw"), v) for n, v in found.items()})})
    fit.attrs |= attributes(record, data, "partial", resolved) | {"seed": seed}
    fit["constant_data"] = xr.DataTree(data)
    return fit, found is not None


def importance(record, data, priors, fixed, free, rng):
    """Draws by name, by importance sampling from a Student t that is moved to the posterior; None if it was not found.

    The package's own engine looks for further tops and takes seconds; here are thousands of fits of one design, whose
    posteriors have one top.
    """
    scale = priors["m"].parameters

    def h_of(u):
        values = {name: np.exp(u[:, k]) if name != "m" else scale["mu"] + scale["sigma"] * u[:, k] for k, name in free}
        return xr.Dataset({name: ("sample", values.get(name, np.full(len(u), fixed.get(name)))) for name in all_names})

    all_names, free = [*record.parameters], [*enumerate(free)]

    def log_posterior(u):
        h = h_of(u)
        total = record.group_level.log_joint(h, data).values.copy()
        for k, name in free:
            of = priors[name].parameters
            if name == "m":
                total -= 0.5 * u[:, k] ** 2
            elif name == "ell":
                total -= 0.5 * ((u[:, k] - of["mu"]) / of["sigma"]) ** 2
            else:
                total += u[:, k] - 0.5 * (np.exp(u[:, k]) / of["sigma"]) ** 2
        return np.where(np.isfinite(total), total, -np.inf)

    start = {"m": 0.0, "s": np.log(0.02 * scale["mu"]), "sigma": np.log(priors["sigma"].parameters["sigma"] / 5)}
    if "a" in priors:
        size = np.log(priors["a"].parameters["sigma"] / 2)
        start |= {"a": size, "a_own": size - 3, "ell": priors["ell"].parameters["mu"]}
    centre, cov = np.array([start[name] for _, name in free]), 0.25 * np.eye(len(free))

    def proposed(size):
        of_t = stats.multivariate_t(centre, 1.2 * cov, df=5, seed=rng)
        u = of_t.rvs(size).reshape(size, -1)
        return u, log_posterior(u) - of_t.logpdf(u)

    for kept in KEPT:
        for _ in range(MOST):
            u, log_weight = proposed(MOVED)
            if not np.isfinite(log_weight).any():
                return None
            weight = tempered(log_weight)
            centre, cov = weight @ u, np.cov(u.T, aweights=weight) + 1e-6 * np.eye(len(free))
            if worth(softmax(log_weight)) > THERE:
                break
        u, log_weight = proposed(kept)
        log_weight, k_hat = array_stats.psislw(-log_weight)
        weight = softmax(log_weight)
        if k_hat < 0.7 and worth(weight) * kept > 300:
            chosen = h_of(u[rng.choice(len(u), 1000, p=weight)])
            return {name: chosen[name].values.reshape(4, 250) for _, name in free}
    return None


def tempered(log_weight):
    """Weights to the power at which they are worth a tenth of the draws, 1 at most: early proposals lie far off."""
    for power in 0.7 ** np.arange(60):
        weight = softmax(power * log_weight)
        if worth(weight) > 0.1:
            return weight
    return weight


def worth(weight):
    """Equal weights that tell as much, as a share of all."""
    return 1 / (weight**2).sum() / weight.size


def study(cell):
    """Of one rig, by option and prior: whether 90 % intervals hold, how wide they are, where their middles lie."""
    seed, name = cell
    truth, mounting = TRUTHS[name]
    frame, true = hz.model_discrepancy.simulate(
        np.random.default_rng(seed), E=E, share=SHARE, truth=truth, mounting=mounting
    )
    asked = frame[frame["specimen"] == "S1"].iloc[[0] * len(ASKED)]
    asked = asked.assign(**dict(zip(("position", "load"), np.transpose([*ASKED.values()]), strict=True)))
    of_first = np.full(len(asked), float(true.E[0]))
    of_model, there = (truly(asked, of_first, what, float(true.share[0]), E, MIDDLE) for what in ("clamped", truth))
    found = []
    for option, options in OPTIONS.items():
        record, of_data = hz.model_discrepancy.MODEL.split(options)
        data = record.data(frame, **of_data)
        for prior, priors in PRIORS.items():
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                fit, light = drawn(record, data, priors, seed)
            row = {"truth": name, "seed": seed, "option": option, "prior": prior, "light": light}
            found.append(row | held(fit, asked, there, (there - of_model)[0]))
    return found


def held(fit, asked, there, off):
    """Whether the intervals of one fit hold what is there, and its first row's part that the model has not."""
    of_rows, _, _ = parts(fit, asked)
    low, high = of_rows["reality"].quantile(TAILS, "sample").transpose("quantile", "row").values
    delta = of_rows["discrepancy"].isel(row=0).quantile(TAILS).values
    m = np.quantile(hyperparameters(fit)["m"], TAILS)
    row = {"E": m[0] <= 1 / E <= m[1], "E width": float(abs(np.diff(1 / m)[0])), "E middle": 2 / m.sum()}
    row |= {"discrepancy": delta[0] <= off <= delta[1]}
    for k, where in enumerate(ASKED):
        row |= {where: low[k] <= there[k] <= high[k], f"{where} width": high[k] - low[k]}
    return row


def table(rows):
    """Coverage by truth, option and prior, each with its standard error."""
    said = []
    for (truth, option, prior), cell in rows.groupby(["truth", "option", "prior"], sort=False):
        held = [f"{p:.2f} +- {np.sqrt(p * (1 - p) / len(cell)):.2f}" for p in cell[HELD].mean()]
        held[0] += f" ({cell['E middle'].median():.0f}, width {cell['E width'].median():.0f})"
        said.append("| " + " | ".join([truth, option, prior, str(len(cell)), *held]) + " |")
    return "\n".join(said)


def main(file, workers=2, rigs=RIGS):
    """Write the table anew after each five rigs of every truth."""
    page, kept = Path(__file__).with_name("discrepancy.md"), Path(file)
    text = page.read_text().split(HEAD)[0] + HEAD + "\n|" + " --- |" * (HEAD.count("|") - 1) + "\n"
    rows = pd.read_csv(kept) if kept.exists() else pd.DataFrame(columns=["truth", "seed"])
    done = set(zip(rows["truth"], rows["seed"], strict=True))
    cells = [cell for cell in product(range(int(rigs)), TRUTHS) if cell[::-1] not in done]
    with ProcessPoolExecutor(int(workers), get_context("spawn")) as executor:
        for k, found in enumerate(executor.map(study, cells), start=1):
            found = pd.DataFrame(found)
            found.to_csv(kept, mode="a", header=not kept.exists(), index=False)
            rows = pd.concat([rows, found]) if len(rows) else found
            if k % (5 * len(TRUTHS)) == 0:
                page.write_text(text + table(rows) + "\n")
                print(k, flush=True)
    page.write_text(text + table(rows) + "\n")


if __name__ == "__main__":
    main(*sys.argv[1:])
