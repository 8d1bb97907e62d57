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


if __name__ == "__main__":
    makers = (simulated_readmissions, simulated_platform_trial, simulated_genes, simulated_alloy, simulated_half_sibs)
    for make in makers:
        make().to_csv(FOLDER / f"{make.__name__}.csv", index=False)
