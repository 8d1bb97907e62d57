"""What is asked of a fit, looked at before anything is drawn."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd

from hbm_zoo.frames.moderators import OPTION
from hbm_zoo.model import HierarchicalModel
from hbm_zoo.words import choose, plural

ENGINES = ("auto", "independent", "nuts")
#: What others call an argument of `fit`, and what does not exist, in words.
OTHER_WORDS = {
    "seed": "random_seed",
    "random_state": "random_seed",
    "samples": "draws",
    "iter": "draws",
    "warmup": "tune",
    "burn": "tune",
    "prior": "priors",
    "progress_bar": "progressbar",
    "nuts_sampler": "engine",
}
PREDICTORS = ("covariates", "moderators", "predictors", "formula")
#: What a predictor would move of a model that takes none, in words, if it is not one population of all groups.
UNMOVED = {"spike_slab_genes": "the null of each gene is an effect of 0, which no predictor moves"}
OF_SAMPLER = ("target_accept", "maxdepth", "max_energy_error", "cores", "adaptation", "low_rank_modified_mass_matrix")


def split(
    record: HierarchicalModel, given: Mapping[str, Any], frame: pd.DataFrame | None = None
) -> tuple[HierarchicalModel, dict, dict]:
    """The record under the options given, what is left of them for its data, and options of the sampler."""
    known = record.with_alternatives(given).options
    for name in given:
        if name in OTHER_WORDS and name not in known:
            raise ValueError(f"Unknown option of {record.name} {name!r}: it is called {OTHER_WORDS[name]!r} here.")
        if name in PREDICTORS and name not in known:
            one_population = f"its {plural(record.group)} come from one population, which no predictor divides"
            why = UNMOVED.get(record.name, one_population)
            if OPTION in known:
                why = f"columns by which {plural(record.group)} differ beforehand are called {OPTION!r} here"
            raise ValueError(f"Unknown option of {record.name} {name!r}: {why}.")
        choose(name, [*known, *OF_SAMPLER], f"option of {record.name}")
    record, options = record.split({name: value for name, value in given.items() if name in known}, frame)
    return record, options, {name: value for name, value in given.items() if name in OF_SAMPLER}


def settled_seed(random_seed: int | None) -> int:
    """The seed given, or one that nobody chose, to be recorded.

    Raises
    ------
    ValueError
        If it is no whole number, 0 or more.
    """
    if random_seed is None:
        return int(np.random.SeedSequence().generate_state(1)[0] % 2**31)
    if not isinstance(random_seed, int | np.integer) or isinstance(random_seed, bool) or not 0 <= random_seed < 2**63:
        raise ValueError(f"random_seed must be a whole number, 0 or more, or None, got {random_seed!r}.")
    return int(random_seed)


def check_engine(engine: str, tune: int | None, sampler: Mapping[str, Any]) -> None:
    """Refuse settings of NUTS for draws that have no steps."""
    choose(engine, ENGINES, "engine")
    given = [*(["tune"] if tune is not None else []), *sampler]
    if engine == "independent" and given:
        raise ValueError(f"{', '.join(given)}: a setting of NUTS; independent draws have no warm-up and no steps.")
    accepted = sampler.get("target_accept", 0.5)
    if not isinstance(accepted, int | float) or not 0 < accepted < 1:
        raise ValueError(f"target_accept must lie between 0 and 1, got {sampler['target_accept']!r}.")
    if tune is not None:
        check_sizes(tune=tune)
    check_sizes(**{name: sampler[name] for name in ("cores", "maxdepth") if sampler.get(name) is not None})


def check_sizes(**sizes: int) -> None:
    """Refuse what is no whole number, or too small.

    Raises
    ------
    ValueError
        If one is not, by its name.
    """
    for name, value in sizes.items():
        if not isinstance(value, int | np.integer) or isinstance(value, bool) or value < 1:
            raise ValueError(f"{name} must be a whole number, 1 or more, got {value!r}.")
