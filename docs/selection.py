"""How much of the scatter of gradients is selection's? ``uv run python docs/selection.py`` makes docs/selection.md."""

import warnings
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import pandas as pd
import xarray as xr
from scipy.optimize import brentq
from scipy.special import expit

import hbm_zoo as hz
from hbm_zoo.inference import sampling
from hbm_zoo.inference.fits import hyperparameters
from hbm_zoo.inference.fitting import attributes

STUDIES, YEARS, ANIMALS = 150, 16, (50, 200)
MU, TAU, SURVIVAL = 0.10, 0.10, 0.4
LEVEL = 0.89
Z, WEIGHT = np.polynomial.hermite_e.hermegauss(40)
WEIGHT = WEIGHT / WEIGHT.sum()
HEAD = "| quantity | mean over studies | of studies, sd |"


def intercept(slope):
    """That of a logistic survival which is 0.4 on average over normal animals."""
    return brentq(lambda a: WEIGHT @ expit(a + slope * Z) - SURVIVAL, -30, 30)


def gradient(slope):
    """The average gradient of relative survival."""
    p = expit(intercept(slope) + slope * Z)
    return slope * (WEIGHT @ (p * (1 - p))) / (WEIGHT @ p)


def animals(rng):
    """One study: animals of some years, and the true gradient of each year."""
    beta = rng.normal(MU, TAU, YEARS)
    rows = []
    for year, true in enumerate(beta, start=1):
        z = rng.standard_normal(rng.integers(ANIMALS[0], ANIMALS[1] + 1))
        slope = brentq(lambda s, true=true: gradient(s) - true, -3, 3)
        alive = (rng.random(z.size) < expit(intercept(slope) + slope * z)).astype(int)
        rows.append(pd.DataFrame({"year": year, "trait": z, "alive": alive}))
    return pd.concat(rows), beta


def fitted(frame, seed):
    """Draws, without tables."""
    record = hz.selection_gradients.MODEL
    data = record.data(frame)
    priors = record.priors(data, None, "partial")
    settings = {"draws": 500, "chains": 4, "tune": 1000, "seed": seed, "engine": "auto"}
    fit = sampling.sample(record, data, "partial", None, priors, settings, False, {})
    fit.attrs |= attributes(record, data, "partial", priors) | {"seed": seed}
    fit["constant_data"] = xr.DataTree(data)
    return fit, data


def study(seed):
    """What the estimates say, what the posterior says, and what is true."""
    rng = np.random.default_rng(seed)
    frame, beta = animals(rng)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        frame = hz.selection_gradients.from_individuals(frame, "trait", "alive", kind="survival")
        fit, data = fitted(frame, seed)
        reml = hz.empirical_bayes("selection_gradients", frame, method="reml", draws=1, chains=1)
    over = hz.selection_gradients.over_years(fit).loc["trait", "mean"]
    h = hyperparameters(fit)
    drawn = hz.selection_gradients.MODEL.group_level.conditional(h, data).sample(rng).squeeze("trait")
    of_tau = float(reml["estimates"]["value"].sel(hyperparameter="tau_1"))

    def place(draws, truth):
        return float((draws < truth).mean())

    def held(draws, truth):
        return abs(place(draws, truth) - 0.5) < LEVEL / 2

    years = [held(drawn.isel(year=t), beta[int(year) - 1]) for t, year in enumerate(data.year.values)]
    return {
        "variance of estimates": over["variance of estimates"],
        "less their mean squared error": over["variance of estimates"] - over["mean squared standard error"],
        "true variance of these years": beta.var(ddof=1),
        "posterior mean of tau^2": float((h.tau_1**2).mean()),
        "REML estimate of tau is exactly 0": float(of_tau == 0),
        "posterior median of tau there": float(h.tau_1.median()) if of_tau == 0 else np.nan,
        "89 % interval of tau holds the truth": held(h.tau_1, TAU),
        "89 % interval of mu holds the truth": held(h.mu_1, MU),
        "89 % intervals of years hold the truth": np.mean(years),
        "years of opposite sign, estimates": over["years of opposite sign, naive"],
        "years of opposite sign, expected": over["years of opposite sign"],
        "years of opposite sign, true": (beta < 0).mean(),
        "standard error, mean square": over["mean squared standard error"],
        "error of estimates, mean square": float(
            ((data.b.squeeze("trait").values - beta[data.year.values.astype(int) - 1]) ** 2).mean()
        ),
    }


def main():
    """Write the table."""
    page = Path(__file__).with_name("selection.md")
    text = page.read_text().split(HEAD)[0] + HEAD + "\n|" + " --- |" * (HEAD.count("|") - 1) + "\n"
    with ProcessPoolExecutor(2, get_context("spawn")) as executor:
        found = pd.DataFrame([*executor.map(study, range(STUDIES), chunksize=5)]).astype(float)
    for name, values in found.items():
        error = values.std() / np.sqrt(values.count())
        text += f"| {name} | {values.mean():.4f} +- {error:.4f} | {values.std():.4f} |\n"
    page.write_text(text)
    print(text)


if __name__ == "__main__":
    main()
