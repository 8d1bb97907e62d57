"""Make the simulated data sets again: ``uv run python data/make_simulated.py``.

Each is one call of a model's own simulator with the seed below; the truth of each
group stands in its last column, named ``true_`` and the estimand.
"""

from pathlib import Path

import numpy as np
import pandas as pd

import hbm_zoo as hz

FOLDER = Path(__file__).parent


def simulated_readmissions() -> pd.DataFrame:
    """300 hospitals; median expected count 45, one in ten below 12 or above 165."""
    rng = np.random.default_rng(20240101)
    frame, truth = hz.hospital_readmission.simulate(rng, hospitals=300, mu=1.0, cv=0.15, median_expected=45.0)
    return frame.assign(true_lam=truth["lam"].values.round(6))


def simulated_discharges() -> pd.DataFrame:
    """150 hospitals at a risk of 20 %, log odds with an sd of .1; median 400 discharges."""
    rng = np.random.default_rng(20240115)
    simulate = hz.hospital_readmission.MODEL.under(noise="binomial").simulate
    frame, truth = simulate(rng, hospitals=150, mu=0.0, tau=0.1, median_discharges=400.0)
    return frame.assign(true_lam=truth["lam"].values.round(6))


def simulated_genes() -> pd.DataFrame:
    """1,000 genes, one in ten with an effect, about three standard errors large."""
    rng = np.random.default_rng(20240105)
    frame, truth = hz.spike_slab_genes.simulate(rng, genes=1000, pi0=0.9, tau=0.3)
    return frame.assign(true_theta=truth["theta"].values).round(6)


def simulated_platform_trial() -> pd.DataFrame:
    """16 arms, each with its own controls; median 200 patients, one arm in ten below 35 or above 1,200."""
    rng = np.random.default_rng(20240102)
    frame, truth = hz.vaccine_clinics.simulate(
        rng, clinics=16, mu=-0.3, tau=0.2, median_patients=200.0, sigma_patients=1.4
    )
    return frame.assign(true_theta=truth["theta"].values).round(6)


def simulated_alloy() -> pd.DataFrame:
    """Six campaigns of three to five batches, three to six specimens each [MPa]."""
    rng = np.random.default_rng(20240111)
    frame, truth = hz.material_batches.simulate(rng, campaigns=6, mu=500.0, sigma_c=8.0, sigma_b=6.0, sigma=10.0)
    labels = hz.material_batches.MODEL.labels(frame)
    return frame.assign(true_theta=truth["theta"].sel(batch=labels.to_numpy()).values).round(1)


def simulated_half_sibs() -> pd.DataFrame:
    """Twelve sites of 12 to 30 sires with 4 to 12 offspring each; sigma_A about 0.5, sigma_E 0.7 to 0.9."""
    rng = np.random.default_rng(20240113)
    frame, truth = hz.variance_components.simulate(rng, sites=12, mu=0.5, tau=0.25)
    return frame.assign(true_sigma_A=truth["sigma_A"].sel(site=frame["site"].to_numpy()).values).round(4)


def simulated_rig() -> pd.DataFrame:
    """Six beams of E about 70 GPa, 24 readings each, on a support that turns: half as much again at the tip [mm]."""
    rng = np.random.default_rng(20240114)
    frame, truth = hz.model_discrepancy.simulate(rng, specimens=6, E=70.0, cv=0.04, share=0.3, sigma=0.05)
    return frame.assign(true_b=truth["b"].sel(specimen=frame["specimen"].to_numpy()).values).round(6)


def simulated_network() -> pd.DataFrame:
    """Twelve modules A <-> B -> C: three show B and C at 8 times, nine C alone at 4; noise .03."""
    rng = np.random.default_rng(20240116)
    frame, truth = hz.reaction_networks.simulate(rng, mu=np.log([1.0, 0.6, 0.5]), omega=0.4, sigma=0.03)
    theta = truth["theta"].sel(module=frame["module"].to_numpy())
    rates = {f"true_theta_{name}": theta.sel(coefficient=name).values for name in theta.coefficient.values}
    return frame.assign(**rates).round(4)


MAKERS = (
    simulated_readmissions,
    simulated_discharges,
    simulated_platform_trial,
    simulated_genes,
    simulated_alloy,
    simulated_half_sibs,
    simulated_rig,
    simulated_network,
)

if __name__ == "__main__":
    for make in MAKERS:
        make().to_csv(FOLDER / f"{make.__name__}.csv", index=False)
