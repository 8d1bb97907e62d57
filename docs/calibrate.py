"""Make the table of docs/calibration.md: ``uv run python docs/calibrate.py FOLDER``, where what is finished is kept."""

import sys
from pathlib import Path

import numpy as np

import hbm_zoo as hz

MODELS = {
    "vaccine_clinics": {"population": "normal"},
    "vaccine_clinics ": {"population": "student-t"},
    "hospital_readmission": {"noise": "poisson"},
    "hospital_readmission ": {"noise": "binomial"},
    "tissue_expression": {},
    "spike_slab_genes": {"null": "theoretical"},
    "spike_slab_genes ": {"null": "empirical"},
    "spike_slab_genes  ": {"unit": "z"},
    "spike_slab_genes   ": {"slab": "unimodal"},
    "success_rates": {"population": "beta"},
    "success_rates ": {"population": "logit-normal"},
    "reaction_norms": {},
    "material_batches": {},
    "model_discrepancy": {"discrepancy": "shared"},
    "model_discrepancy ": {"discrepancy": "none"},
    "model_discrepancy  ": {"discrepancy": "by specimen"},
    "model_discrepancy   ": {"discrepancy": "apart"},
    "variance_components": {"population": "folded"},
    "variance_components ": {"population": "log-normal"},
    "selection_gradients": {"autocorrelation": False},
    "selection_gradients ": {"autocorrelation": True},
    "selection_gradients  ": {"exact": True},
}
#: Pooling, engine, simulations, draws of each chain.
WAYS = [("partial", "auto", 1000, 250), ("none", "auto", 200, 250), ("complete", "auto", 200, 250)]
BY_NUTS = ("partial", "nuts", 100, 500)
GENES = 40
HEAD = "| model | pooling | engine | simulations | failed a check | quantities | smallest p | of | s each |"


def row(folder, name, options, pooling, engine, simulations, draws):
    """One line of the table, and the power of its test."""
    model, frame = name.strip(), None
    if model == "spike_slab_genes":  # ten genes say next to nothing of pi0
        frame, _ = hz.spike_slab_genes.MODEL.simulate(np.random.default_rng(0), genes=GENES)
    called = ", ".join([model, *(value if isinstance(value, str) else f"{n}={value}" for n, value in options.items())])
    result = hz.calibrate(
        model,
        frame,
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
    return f"| {cells} | {result.seconds / simulations:.2f} |", result.power


def main(folder):
    """Write the table anew after each line."""
    page = Path(__file__).with_name("calibration.md")
    text = page.read_text().split(HEAD)[0] + HEAD + "\n|" + " --- |" * (HEAD.count("|") - 1) + "\n"
    for way in [(*model, *way) for way in [*WAYS, BY_NUTS] for model in MODELS.items()]:
        line, power = row(Path(folder), *way)
        text += line + "\n"
        page.write_text(text)
        print(line, power, flush=True)


if __name__ == "__main__":
    main(sys.argv[1])
