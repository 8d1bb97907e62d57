"""Is a posterior what it says? Simulation-based calibration of a model, a pooling and an engine.

If truths are drawn from the priors, data from the truths and draws from the posterior of the data, then a truth is one
more of these draws, and its place among them uniform (Cook, Gelman & Rubin 2006, J Comput Graph Stat 15:675-692; Talts
et al. 2018, arXiv:1804.06788). That holds for every quantity, and fails for some as soon as an engine, a formula or a
likelihood is another one than the truths came from (Modrak et al. 2023, Bayesian Anal, doi:10.1214/23-BA1404).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from concurrent.futures import Executor
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr
from pymc_extras.prior import Prior

from hbm_zoo.diagnostics.simulations import simulate
from hbm_zoo.diagnostics.uniformity import ERRORS, LEVEL, holm, power, uniformity
from hbm_zoo.inference.arguments import ENGINES, check_sizes, settled_seed
from hbm_zoo.inference.nodes import with_nodes
from hbm_zoo.inference.sampling import check_independent
from hbm_zoo.model import HierarchicalModel
from hbm_zoo.words import choose, plural
from hbm_zoo.workers.run import run, seed_of
from hbm_zoo.zoo import record_of

AT_ONCE, PORTION = 25, "portion"
DESIGN_GROUPS = 10
#: Power below which no error of these sizes can be expected to be seen.
MOST_BLIND = 0.5


@dataclass(frozen=True)
class Calibration:
    """What simulations say of a model, a pooling and an engine.

    Attributes
    ----------
    tree : xarray.DataTree
        ``prior_sbc``: the place in (0, 1) of each truth among its draws [chain, draw, ...], a simulation a draw, in
        ArviZ's layout, so that ``az.plot_ecdf_pit(result.tree)`` draws it. ``fits`` [draw]: the ``engine`` of each
        simulation, whether its draws ``passed`` the checks of `convergence`, the ``verdict``, ``seconds``.
    """

    tree: xr.DataTree

    @property
    def _fits(self) -> xr.Dataset:
        return self.tree["fits"].to_dataset()

    @property
    def simulations(self) -> int:
        """How many there are; those whose draws failed a check are among them, and in every number."""
        return self.tree["prior_sbc"].sizes["draw"]

    @property
    def failed(self) -> int:
        """How many had draws that failed a check of `convergence`."""
        return int((self._fits["passed"] == 0).sum())

    @property
    def refused(self) -> int:
        """Data sets that the model refuses, left out with their truths: places are uniform whatever the data."""
        return int(self.tree.attrs["refused"])

    @property
    def engines(self) -> dict[str, int]:
        """How many simulations each engine drew."""
        return pd.Series(self._fits["engine"].values.astype(str)).value_counts().to_dict()

    @property
    def seconds(self) -> float:
        """Time of all simulations together, whoever ran them."""
        return float(self._fits["seconds"].sum())

    @property
    def table(self) -> pd.DataFrame:
        """One row a quantity: is the place of the truth uniform?

        ``mean``, 0.5 if nothing is shifted, and ``middle_half``, the share of truths in the middle half of their
        posterior, less than 0.5 if it is too narrow, each with its ``_mcse`` under a uniform place; ``p`` of the
        pointwise order test with Cauchy combination (Tesso et al. 2026, arXiv:2603.02928, POT-C), which
        `az.plot_ecdf_pit` draws, truncated there, so that it is at most 0.5; ``p_holm``, for as many quantities as
        there are.
        """
        places = self.tree["prior_sbc"].to_dataset()
        n = self.simulations
        rows = {
            label: {
                "simulations": n,
                "mean": values.mean(),
                "mean_mcse": 1 / np.sqrt(12 * n),
                "middle_half": (abs(values - 0.5) < 0.25).mean(),
                "middle_half_mcse": 0.5 / np.sqrt(n),
                "p": uniformity(values),
            }
            for label, values in _one_by_one(places)
        }
        table = pd.DataFrame.from_dict(rows, orient="index").rename_axis("quantity")
        return table.assign(p_holm=holm(table["p"].to_numpy()))

    @property
    def power(self) -> dict[str, float]:
        """Chance that an error of one quantity gives it a ``p_holm`` below 0.05, by the error's size."""
        return {error: power(error, self.simulations, LEVEL / len(self.table)) for error in ERRORS}

    def __str__(self) -> str:
        """The result in sentences, and the table."""
        table, engines = self.table, ", ".join(f"{n} by {name}" for name, n in self.engines.items())
        worst = table["p"].idxmin()
        least, power = table.loc[worst, "p_holm"], "; ".join(f"{p:.0%} for {error}" for error, p in self.power.items())
        said = "places are not uniform (of 20 right posteriors one seems so)" if least < LEVEL else "no error is seen"
        if least >= LEVEL and max(self.power.values()) < MOST_BLIND:
            said = f"{said}, and of {self.simulations} simulations only coarse ones would be"
        return (
            f"{self.tree.attrs['model']}, {self.tree.attrs['pooling']} pooling: {said}. Of {len(table)} quantities "
            f"{worst} has the smallest p, {least:.3g} after Holm. {self.simulations} simulations ({engines}), "
            f"{self.failed} whose draws failed a check, all counted.{self._without} Power: {power}.\n\n"
            f"{table.round(4).to_string()}"
        )

    @property
    def _without(self) -> str:
        """What is said of data sets that the model refuses."""
        if not self.refused:
            return ""
        return f" {self.refused} more data {plural('set', self.refused)} left out: {self.tree.attrs['refusal']}"


def calibrate(
    model: ModuleType | HierarchicalModel | str,
    frame: pd.DataFrame | None = None,
    pooling: str = "partial",
    parameterization: str | None = None,
    engine: str = "auto",
    simulations: int = 1000,
    draws: int = 250,
    priors: Mapping[str, Prior] | None = None,
    executor: Executor | None = None,
    workers: int = 1,
    folder: str | Path | None = None,
    random_seed: int | None = None,
    progressbar: bool = True,
    **options,
) -> Calibration:
    """Check by simulation that a posterior is what it says.

    Parameters
    ----------
    model, pooling, parameterization, engine, priors
        As in `fit`. Data-scaled priors are computed once, on `frame`, and are the same in every simulation.
    frame : pandas.DataFrame, optional
        The design: all but the column of the response is kept as it is. Default: the first 10 groups of what the
        model's own ``simulate`` gives.
    simulations : int
        How many truths, each with its data and their posterior.
    draws : int
        Draws kept of each of 4 chains, as in `fit`.
    executor, workers, folder, progressbar
        As in `fit_many`: who simulates, and where what is finished is recorded, to be gone on with.
    random_seed : int, optional
        Seed; drawn and recorded if not given. Results are the same to the bit by any number of workers.
    **options
        Options of the model (``record.options``).

    Returns
    -------
    Calibration
        Its ``table`` tests each quantity: hyperparameters; the estimand of a group with the least, one with middling
        and one with the most data; of a group never seen, and the mean of several; new data of the groups seen; the log
        likelihood, that with the groups integrated out, and the log density of the groups in their population.
        ``print`` says it all, its power too.

    Raises
    ------
    FrameError, ValueError
        If an argument is not what is expected, the model does not say what it takes to simulate, or its groups
        depend on one another or its covariates on the response.

    Notes
    -----
    A form with arrays of unknowns, which NUTS alone draws, is compiled again for each simulation.

    Examples
    --------
    >>> import hbm_zoo as hz
    >>> frame = hz.load_data("three_hospitals")
    >>> alone = hz.calibrate("hospital_readmission", frame, "none", simulations=50, random_seed=1, progressbar=False)
    >>> bool(alone.table["p_holm"].min() > 0.05), alone.engines, alone.failed
    (True, {'exact': 50}, 0)
    """
    record, options = record_of(model).split(options, frame)
    pooling = choose(pooling, record.variants, "pooling")
    if parameterization is not None:
        choose(parameterization, record.variants[pooling], f"parameterization of {pooling} pooling")
    choose(engine, ENGINES, "engine")
    check_sizes(simulations=simulations, draws=draws)
    if folder is not None and random_seed is None:
        raise ValueError("Work in a folder is gone on with under its own seed only: give random_seed as well.")
    seed = settled_seed(random_seed)
    if frame is None:
        frame, options = _small(record), {**record.extras.simulated, **options}
    data = record.data(frame, **options)
    record.check_shareable(data, pooling)
    _check_simulated(record, data, int(record.measured(frame).sum()))
    fitted = {"model": record, "frame": frame, "options": options, "pooling": pooling}
    fitted |= {"priors": record.priors(data, priors, pooling), "parameterization": parameterization}
    if engine == "independent":
        seen = with_nodes(record, data, fitted["priors"], seed)
        check_independent(record, seen, pooling, parameterization, fitted["priors"])
    pieces = _pieces(simulations, seed, fitted | {"engine": engine, "draws": draws})
    parts = list(run(simulate, pieces, executor, workers, folder, progressbar, PORTION).values())
    tree = _joined(parts)
    tree.attrs |= {"model": record.name, "pooling": pooling, "engine": engine, "seed": seed, "draws": draws}
    return Calibration(tree)


def _joined(parts: list[xr.DataTree]) -> xr.DataTree:
    """All portions, and how many data sets were refused, with the sentence of the first."""
    joined = {name: xr.concat([part[name].to_dataset() for part in parts], "draw") for name in ("prior_sbc", "fits")}
    tree = xr.DataTree.from_dict(joined)
    refusals = [part.attrs["refusal"] for part in parts if part.attrs["refused"]]
    tree.attrs = {"refused": sum(part.attrs["refused"] for part in parts), "refusal": next(iter(refusals), "")}
    return tree


def _pieces(simulations: int, seed: int, same: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Portions of simulations, however many work on them, each with a seed of its own."""
    sizes = {first: min(AT_ONCE, simulations - first) for first in range(0, simulations, AT_ONCE)}
    return {
        f"{first + 1} to {first + size}": {**same, "simulations": size, "seed": seed_of(seed, f"from {first + 1}")}
        for first, size in sizes.items()
    }


def _small(record: HierarchicalModel) -> pd.DataFrame:
    """The first groups of a frame like the real one."""
    frame, _ = record.simulate(np.random.default_rng(0))
    labels = record.labels(frame)
    return frame[labels.isin(labels.unique()[:DESIGN_GROUPS])].reset_index(drop=True)


def _check_simulated(record: HierarchicalModel, data: xr.Dataset, rows: int) -> None:
    """Refuse what cannot be simulated as it is fitted."""
    level = record.ask("calibrate", "population", "conditional", "log_joint", "replicate")
    if not record.response:
        raise ValueError(f"calibrate needs to know which column is the response, and {record.name} does not say.")
    if not level.independent and level.emptied is None:
        raise ValueError(
            f"calibrate draws each {record.group} from the population alone, and those of {record.name} depend on one "
            "another."
        )
    if "circular" in data.attrs:
        raise ValueError(
            f"Some column of the frame is made of the response, so that new data would change the design: calibrate "
            f"{record.name} on a frame whose covariates were measured."
        )
    others = [name for name in data.dims if name != record.group and data.sizes[name] == rows]
    if data.sizes[record.group] != rows and not others:
        raise ValueError(f"The frame has {rows} rows, and not all of them are of this fit: give only those that are.")


def _one_by_one(places: xr.Dataset) -> Iterator[tuple[str, np.ndarray]]:
    """Each quantity by its name, ``theta[G001, slope]``, with its places [simulation]."""
    for name, values in places.isel(chain=0).data_vars.items():
        by = [dim for dim in values.dims if dim != "draw"]
        flat = values.stack(cell=by) if by else values.expand_dims("cell")
        for cell in flat.transpose("cell", "draw"):
            labels = ", ".join(str(cell[dim].item()) for dim in by)
            yield f"{name}[{labels}]" if by else str(name), cell.values
