"""Make the table of docs/discoveries.md: ``uv run python docs/discoveries.py FOLDER``, where what is finished is kept.

``--data-sets 50`` stops at fewer, ``--only SCENARIO`` does one and leaves the table. Each fit is the top of its
posterior, priors and grid of widths those of the scenario's first data set: with a thousand genes what is averaged over
the posterior hardly differs.
"""

import argparse
from dataclasses import replace
from pathlib import Path

import numpy as np
import xarray as xr

import hbm_zoo as hz
from hbm_zoo.diagnostics.multiplicity import STRONG_EVIDENCE, noise_from_a_t
from hbm_zoo.group_level.newton import modes
from hbm_zoo.inference.fits import population_fixed_at
from hbm_zoo.inference.log_posterior import log_posterior
from hbm_zoo.priors import apart_from_numbers, numbers
from hbm_zoo.workers.run import run, seed_of

GENES, SHARE, FDR = 1000, 0.1, 0.05
DATA_SETS, AT_ONCE, STARTS = 100, 25, 100
HEAD = "| data | null | slab | unit | data sets | false | se | power | found | not identified | normal noise |"


# Scenarios: from standard errors and a generator to effects and estimates.


def some(rng, se, effects):
    """Effects of a tenth of the genes, in median standard errors."""
    return np.where(rng.random(se.size) < SHARE, effects * np.median(se), 0.0)


def normal(rng, se):
    """Normal effects, sd 3"""
    theta = some(rng, se, 3 * rng.standard_normal(se.size))
    return theta, rng.normal(theta, se)


def heavy(rng, se):
    """Effects from a t with 2 degrees of freedom, scale 2"""
    theta = some(rng, se, 2 * rng.standard_t(2, se.size))
    return theta, rng.normal(theta, se)


def one_sided(rng, se):
    """Effects all above 0, half-normal, sd 3"""
    theta = some(rng, se, 3 * np.abs(rng.standard_normal(se.size)))
    return theta, rng.normal(theta, se)


def with_standard_error(rng, se):
    """Normal effects, sd 3 own standard errors"""
    theta = some(rng, se, 3 * rng.standard_normal(se.size)) * se / np.median(se)
    return theta, rng.normal(theta, se)


def t_noise(rng, se):
    """No effects, noise from a t with 5 degrees of freedom"""
    return 0 * se, se * rng.standard_t(5, se.size)


def wide_null(rng, se):
    """No effects, z scores with an sd of 1.3"""
    return 0 * se, rng.normal(0, 1.3 * se)


def blocks(rng, se):
    """No effects, blocks of 50 genes whose noise has a correlation of 0.5"""
    shared = rng.standard_normal(se.size // 50 + 1)[np.arange(se.size) // 50]
    return 0 * se, se * np.sqrt(0.5) * (shared + rng.standard_normal(se.size))


NULLS_AND_SLABS = [
    {"null": null, "slab": slab} for null in ("theoretical", "empirical") for slab in ("normal", "unimodal")
]
BY_Z = [{"null": "theoretical", "slab": slab, "unit": "z"} for slab in ("normal", "unimodal")]
SCENARIOS = {
    scenario: NULLS_AND_SLABS + (BY_Z if scenario in (normal, with_standard_error) else [])
    for scenario in (normal, heavy, one_sided, with_standard_error, t_noise, wide_null, blocks)
}
BY_NAME = {scenario.__name__: scenario for scenario in SCENARIOS}


def simulated(scenario, rng):
    """A frame, and the effects it came from."""
    frame, _ = hz.spike_slab_genes.MODEL.simulate(rng, genes=GENES)
    theta, effect = scenario(rng, frame["standard_error"].to_numpy())
    return frame.assign(effect=effect), theta


def posterior_of(record, data, priors):
    """The log posterior of the hyperparameters; a top takes few points, so that nothing need be compiled for it."""
    model = record.write(data, "partial", "marginalized", priors, apart_from_numbers(priors))
    posterior = log_posterior(model, arrays(record, data) | numbers(priors), record.group_level.cells(data))
    return replace(posterior, densities=lambda many: posterior.densities(False))


def arrays(record, data):
    """What a compiled density asks of the data."""
    return {str(name): v.values for name, v in record.extras.derived(data).data_vars.items()}


def top(record, posterior, fixed):
    """Hyperparameters at the top of a posterior, above the best of some draws of the prior."""
    starts = posterior.of_prior[:STARTS]
    best = starts[np.argmax(posterior(starts))]
    at, _ = modes(lambda x: posterior(x[0])[None], best[None], posterior.step)
    free = [name for name in record.parameters if name not in fixed]
    return posterior.variables(at)[free].assign(fixed)


def evidence(record, h, data, priors, free):
    """As of `discoveries` [nats], over no slab and over a t, half a nat a free number below the top."""
    z = data.effect / data.standard_error
    nothing = record.fixed["complete"](priors, data) | {record.location: 0.0}
    no_slab = population_fixed_at(nothing | {"delta0": float(z.mean()), "sigma0": float(z.std())})
    level = record.group_level
    with_slab = level.log_joint(h, data).item() - free / 2
    return with_slab - level.log_joint(no_slab, data).item(), with_slab - noise_from_a_t(data)[0]


def piece_of_work(piece):
    """False discovery proportion, power and number found of each of some data sets [data set]."""
    record = hz.spike_slab_genes.MODEL.under(**piece["options"])
    rng, scenario, priors = np.random.default_rng(piece["seed"]), BY_NAME[piece["scenario"]], piece["priors"]
    found, posterior = [], None
    for _ in range(piece["size"]):
        frame, theta = simulated(scenario, rng)
        data = record.data(frame).drop_vars("gene")
        fixed = record.fixed["partial"](priors, data)
        posterior = posterior_of(record, data, priors) if posterior is None else posterior.of(arrays(record, data))
        h = top(record, posterior, fixed)
        lfdr = record.group_level.expectations(h, data)["lfdr"].values.ravel()
        over_nothing, over_t = evidence(record, h, data, priors, posterior.size)
        identified = over_nothing >= STRONG_EVIDENCE
        order = np.argsort(lfdr)
        length = int((np.cumsum(lfdr[order]) / np.arange(1, GENES + 1) <= FDR).sum()) if identified else 0
        true = theta[order[:length]] != 0
        shares = (~true).sum() / max(length, 1), true.sum() / max((theta != 0).sum(), 1)
        found.append([*shares, length, not identified, length > 0 and over_t < 0])
    table = xr.DataArray(np.array(found, float), dims=("data_set", "number"))
    return xr.DataTree.from_dict({"lists": xr.Dataset({"found": table})})


def line(folder, scenario, options, data_sets):
    """One line of the table."""
    record = hz.spike_slab_genes.MODEL.under(**options)
    first, _ = simulated(scenario, np.random.default_rng(0))
    same = {"scenario": scenario.__name__, "options": options, "priors": record.priors(record.data(first))}
    seeds = [seed_of(1, f"{scenario.__name__} {k}") for k in range(data_sets // AT_ONCE)]  # the same data for all
    pieces = {f"{k}": {**same, "size": AT_ONCE, "seed": seed} for k, seed in enumerate(seeds)}
    name = "-".join([scenario.__name__, *options.values()])
    parts = run(piece_of_work, pieces, folder=Path(folder) / name, progressbar=False).values()
    numbers = xr.concat([part["lists"]["found"] for part in parts], "data_set").values
    (false, power, length, silent, noise), n = numbers.mean(axis=0), len(numbers)
    error = numbers[:, 0].std(ddof=1) / np.sqrt(n)
    power = f"{power:.2f}" if scenario in (normal, heavy, one_sided, with_standard_error) else ""
    of = f"{scenario.__doc__} | {options['null']} | {options['slab']} | {options.get('unit', 'effect')}"
    return f"| {of} | {n} | {false:.3f} | {error:.3f} | {power} | {length:.1f} | {silent:.2f} | {noise:.2f} |"


def main(folder, data_sets=DATA_SETS, only=None):
    """Write the table anew after each line; of one scenario only what it takes."""
    if only:
        for options in SCENARIOS[BY_NAME[only]]:
            print(line(folder, BY_NAME[only], options, data_sets), flush=True)
        return
    page = Path(__file__).with_name("discoveries.md")
    text = page.read_text().split(HEAD)[0] + HEAD + "\n|" + " --- |" * (HEAD.count("|") - 1) + "\n"
    for scenario, each in SCENARIOS.items():
        for options in each:
            row = line(folder, scenario, options, data_sets)
            print(row, flush=True)
            text += row + "\n"
            page.write_text(text)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder")
    parser.add_argument("--data-sets", type=int, default=DATA_SETS)
    parser.add_argument("--only", choices=list(BY_NAME))
    main(**vars(parser.parse_args()))
