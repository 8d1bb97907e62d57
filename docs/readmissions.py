"""What spread does each noise find in a country? ``uv run python docs/readmissions.py`` makes the table."""

import warnings
from pathlib import Path

import numpy as np
import xarray as xr

import hbm_zoo as hz
from hbm_zoo.models.hrrp import from_hrrp, published

COUNTRIES, HOSPITALS = 10, 3000
#: The risk that is expected on average, and the sd of relative risks in truth.
CELLS = [(0.2, 0.0), (0.2, 0.05), (0.2, 0.1), (0.05, 0.05)]
POISSON = hz.hospital_readmission.MODEL
BINOMIAL = POISSON.under(noise="binomial")
HEAD = "| risk | hospitals | sd of relative risks | binomial | Poisson |"


def country(rng, risk, sd):
    """What `from_hrrp` reads of the file that the publisher would make; d lam / d alpha = 1 - e makes tau of the sd."""
    frame, _ = BINOMIAL.simulate(
        rng, hospitals=HOSPITALS, tau=sd / (1 - risk), risk=risk, median_discharges=250.0, sigma_discharges=0.8
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return from_hrrp(published(frame), least_expected=25.0)


def likeliest(record, frame, location, spread, grid):
    """The spread where the likelihood is largest, all hospitals together as expected: by a parabola through its top."""
    data = record.data(frame)
    h = xr.Dataset({record.location: ("sample", np.full(grid.size, location)), spread: ("sample", grid)})
    height = record.group_level.log_joint(h, data).values
    i = int(np.argmax(height))
    if i in (0, grid.size - 1):
        return float(grid[i])
    near = slice(i - 1, i + 2)
    bend, slope, _ = np.polyfit(grid[near] - grid[i], height[near], 2)
    return float(grid[i] - slope / (2 * bend))


def row(risk, sd):
    """Means over countries with their standard errors."""
    found, sizes = [], []
    for seed in range(COUNTRIES):
        frame, grid = country(np.random.default_rng([seed, 3]), risk, sd), np.linspace(0, 2 * sd + 0.04, 17)
        tau = likeliest(BINOMIAL, frame, 0.0, "tau", grid / (1 - risk))
        found.append([(1 - risk) * tau, likeliest(POISSON, frame, 1.0, "cv", grid)])
        sizes.append(len(frame))
    mean, error = np.mean(found, axis=0), np.std(found, axis=0, ddof=1) / np.sqrt(COUNTRIES)
    cells = " | ".join(f"{m:.4f} +- {e:.4f}" for m, e in zip(mean, error, strict=True))
    return f"| {risk:g} | {np.mean(sizes):.0f} | {sd:g} | {cells} |"


def main():
    """Write the table anew after each line."""
    page = Path(__file__).with_name("readmissions.md")
    text = page.read_text().split(HEAD)[0] + HEAD + "\n|" + " --- |" * (HEAD.count("|") - 1) + "\n"
    for cell in CELLS:
        text += row(*cell) + "\n"
        page.write_text(text)


if __name__ == "__main__":
    main()
