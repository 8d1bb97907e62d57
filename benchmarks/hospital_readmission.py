"""What integrating the group level out in a stable form buys: effective draws per second.

    python benchmarks/hospital_readmission.py

Three ways to the same posterior of mu and cv for 3,000 hospitals, in one run: the
zoo's marginal likelihood, the textbook's (``pm.NegativeBinomial``), and the centered
form with a parameter for each hospital. All are sampled by nutpie. A speed is the
smaller bulk ESS of mu and cv over the seconds of sampling, warm-up included and
compilation not (it is listed); the median of the repetitions.
"""

import time
import warnings

import arviz as az
import numpy as np
import nutpie
import pandas as pd
import pymc as pm

from hbm_zoo.models.hospital_readmission import MODEL, simulate

HOSPITALS, CHAINS, CORES = 3_000, 4, 2
MEDIAN_EXPECTED = (5, 30, 1_000)
REPETITIONS = 3


def textbook(data, priors) -> pm.Model:
    """O_j ~ NegativeBinomial with mean E_j mu and shape 1/cv^2, as PyMC writes it."""
    with pm.Model() as model:
        mu, cv = (priors[name].create_variable(name) for name in ("mu", "cv"))
        pm.NegativeBinomial("O", mu=data.expected.values * mu, alpha=cv**-2, observed=data.observed.values)
    return model


def sample(compiled, draws: int, seed: int) -> dict[str, float]:
    """One run: smaller bulk ESS of mu and cv, and seconds of sampling."""
    start = time.perf_counter()
    tree = nutpie.sample(
        compiled, draws=draws, tune=draws, chains=CHAINS, cores=CORES, seed=seed, progress_bar=False, save_warmup=False
    )
    seconds = time.perf_counter() - start
    ess = min(float(az.ess(tree["posterior"].dataset[name].values, method="bulk")) for name in ("mu", "cv"))
    return {"ess": ess, "seconds": seconds, "speed": ess / seconds}


def race(median_expected: float) -> pd.DataFrame:
    """The three forms on the same simulated hospitals, taking turns."""
    frame, _ = simulate(np.random.default_rng(1), hospitals=HOSPITALS, median_expected=median_expected)
    data = MODEL.data(frame)
    priors = MODEL.priors(data)
    forms = {
        "hbm_zoo": (MODEL.write(data, "partial", "marginalized", priors), 1000, REPETITIONS),
        "NegativeBinomial": (textbook(data, priors), 1000, REPETITIONS),
        "centered": (MODEL.write(data, "partial", "centered", priors), 500, 1),
    }
    rows, compiled = {}, {}
    for name, (model, *_) in forms.items():
        start = time.perf_counter()
        compiled[name] = nutpie.compile_pymc_model(model, var_names=["mu", "cv"])
        rows[name] = {"compile_seconds": time.perf_counter() - start}
        sample(compiled[name], draws=10, seed=0)
    runs = {name: [] for name in forms}
    for repetition in range(REPETITIONS):
        for name, (_, draws, times) in forms.items():
            if repetition < times:
                runs[name].append(sample(compiled[name], draws, seed=repetition + 1))
    table = pd.DataFrame({name: rows[name] | pd.DataFrame(runs[name]).median().to_dict() for name in forms}).T
    table["hbm_zoo_is_faster_by"] = table.loc["hbm_zoo", "speed"] / table["speed"]
    return table


def main() -> None:
    """Print the race at each size of hospital."""
    warnings.simplefilter("ignore")
    tables = {median: race(median) for median in MEDIAN_EXPECTED}
    print(pd.concat(tables, names=["median_expected", "form"]).round(1).to_string())


if __name__ == "__main__":
    main()
