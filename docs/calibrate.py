"""Make the table of docs/calibration.md: ``uv run python docs/calibrate.py FOLDER``, where what is finished is kept.

``--only WORDS`` makes the lines that begin with these, such as "vaccine_clinics, population=student-t | partial", and
``--simulations 200`` stops at so many.
"""

import argparse
from pathlib import Path

import numpy as np
import pandas as pd

import hbm_zoo as hz

MODELS = [
    ("vaccine_clinics", {"population": "normal"}),
    ("vaccine_clinics", {"population": "student-t"}),
    ("vaccine_clinics", {"moderators": ["x"]}),
    ("hospital_readmission", {"noise": "poisson"}),
    ("hospital_readmission", {"noise": "binomial"}),
    ("hospital_readmission", {"moderators": ["x"]}),
    ("tissue_expression", {}),
    ("tissue_expression", {"population": "student-t"}),
    ("tissue_expression", {"sigma": "by tissue"}),
    ("tissue_expression", {"noise": "student-t"}),
    ("tissue_expression", {"moderators": ["x"]}),
    ("spike_slab_genes", {"null": "theoretical"}),
    ("spike_slab_genes", {"null": "empirical"}),
    ("spike_slab_genes", {"unit": "z"}),
    ("spike_slab_genes", {"slab": "unimodal"}),
    ("spike_slab_genes", {"null": "empirical", "slab": "unimodal"}),
    ("spike_slab_genes", {"null": "empirical", "unit": "z"}),
    ("success_rates", {"population": "beta"}),
    ("success_rates", {"population": "logit-normal"}),
    ("success_rates", {"moderators": ["x"]}),
    ("reaction_norms", {}),
    ("reaction_norms", {"moderators": {"slope": ["x"]}}),
    ("material_batches", {}),
    ("model_discrepancy", {"discrepancy": "shared"}),
    ("model_discrepancy", {"discrepancy": "none"}),
    ("model_discrepancy", {"discrepancy": "by specimen"}),
    ("model_discrepancy", {"discrepancy": "apart"}),
    ("variance_components", {"population": "folded"}),
    ("variance_components", {"population": "log-normal"}),
    ("selection_gradients", {"autocorrelation": False}),
    ("selection_gradients", {"autocorrelation": True}),
    ("selection_gradients", {"exact": True}),
]
#: Pooling, engine, simulations, draws of each chain.
WAYS = [("partial", "auto", 1000, 250), ("none", "auto", 200, 250), ("complete", "auto", 200, 250)]
BY_NUTS = ("partial", "nuts", 100, 500)
GENES = 40
HEAD = "| model | pooling | engine | simulations | failed a check | quantities | smallest p | of | s each |"


def named(model, options):
    """A model and its options, as the table has them."""
    return ", ".join([model, *(f"{name}={value}" for name, value in options.items())]).translate(
        str.maketrans("", "", "[]{}'")
    )


def frame_of(model, options):
    """What truths are drawn around; None: ten groups of what `simulate` gives."""
    record, rng = hz.MODELS[model].MODEL, np.random.default_rng(0)
    if model == "spike_slab_genes":  # ten genes say next to nothing of pi0
        return record.simulate(rng, genes=GENES)[0]
    if "moderators" not in options:
        return None
    frame, _ = record.simulate(rng)
    frame = frame[frame[record.group].isin(frame[record.group].unique()[:10])]
    group, _ = pd.factorize(frame[record.group])
    return frame.assign(x=np.linspace(-1, 2, 10)[group])


def row(folder, model, options, pooling, engine, simulations, draws):
    """One line of the table."""
    called = named(model, options)
    result = hz.calibrate(
        model,
        frame_of(model, options),
        pooling,
        engine=engine,
        simulations=simulations,
        draws=draws,
        folder=folder / f"{called} {pooling} {engine} {simulations}".replace(", ", "-").replace(" ", "-"),
        workers=2,
        random_seed=1,
        progressbar=False,
        **options,
    )
    table, engines = result.table, ", ".join(f"{n} {how}" for how, n in result.engines.items())
    worst = table["p"].idxmin()
    counts = f"{simulations} | {result.failed} | {len(table)}"
    cells = f"{called} | {pooling} | {engines} | {counts} | {table.loc[worst, 'p_holm']:.3g} | {worst}"
    return f"| {cells} | {result.seconds / simulations:.2f} |"


def main(folder, only="", most=1000):
    """Write the table anew after each line."""
    page = Path(__file__).with_name("calibration.md")
    above, table = page.read_text().split(HEAD)
    kept = [line for line in table.splitlines()[2:] if line]
    ways = [(*model, *way) for way in [*WAYS, BY_NUTS] for model in MODELS]
    starts = [f"| {named(model, options)} | {pooling} | {engine}" for model, options, pooling, engine, *_ in ways]
    for start, (*way, simulations, draws) in zip(starts, ways, strict=True):
        if not start.removeprefix("| ").startswith(only):
            continue
        line = row(Path(folder), *way, min(simulations, most), draws)
        print(line, flush=True)
        kept = [*(other for other in kept if place(other, starts) != starts.index(start)), line]
        kept.sort(key=lambda line: place(line, starts))
        page.write_text("\n".join([above + HEAD, "|" + " --- |" * (HEAD.count("|") - 1), *kept, ""]))


def place(line, starts):
    """Which of the ways a line of the table is of: engines are counted there, by NUTS where it was asked for alone."""
    model, pooling, counted = line.split(" | ")[:3]
    by = "nuts" if counted.split()[1:] == ["nuts"] else "auto"
    return starts.index(f"{model} | {pooling} | {by}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder")
    parser.add_argument("--only", default="")
    parser.add_argument("--simulations", type=int, default=1000, dest="most")
    main(**vars(parser.parse_args()))
