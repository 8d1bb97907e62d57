"""What the verbs of one model answer: the tables, sentences and pictures that its report has beside those of all."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import pandas as pd
import xarray as xr

import hbm_zoo as hz
from hbm_zoo.model import HierarchicalModel
from hbm_zoo.reporting.formatting import aligned, number


@dataclass(frozen=True, kw_only=True)
class Answer:
    """One verb's answer.

    Attributes
    ----------
    verb, picture
        Of the model, ``hz.<model>.<verb>``, and the picture that goes with it, ``hz.<picture>``, if one does.
    heading, word
        Of its section in a report; of its line in the terminal.
    sentence
        What its table says, in a sentence.
    meanings, texts
        What each column of the table means; those that hold text.
    """

    verb: str
    picture: str = ""
    heading: str
    word: str
    sentence: Callable[[pd.DataFrame], str]
    meanings: Mapping[str, str]
    texts: tuple[str, ...] = ()

    def table(self, fit: xr.DataTree, record: HierarchicalModel) -> pd.DataFrame | str:
        """What the verb says of a fit, or why it says nothing."""
        try:
            return getattr(hz.MODELS[record.name], self.verb)(fit, model=record)
        except ValueError as reason:
            return str(reason)

    def figure(self, fit: xr.DataTree, record: HierarchicalModel) -> Any:
        """The picture of a fit that has a table, a ``matplotlib.figure.Figure``."""
        return getattr(hz, self.picture)(fit, model=record)


def _bounds(table: pd.DataFrame) -> str:
    """The bound, its error and its promise, and the numbers that it is not to be taken for."""
    bound, *others = aligned(table["lower"], digits=4)
    apart = [f"{name} {value}" for name, value in zip(table.index[1:], others, strict=True)]
    return (
        f"{bound} (mcse {number(table['mcse'].iloc[0], 2)}): {table['promise'].iloc[0]}. "
        f"Not to be taken for {' or '.join(apart)}"
    )


def _odds(table: pd.DataFrame) -> str:
    """Odds of the mirror, their error, and what they mean."""
    odds, mcse = (number(table[name].iloc[0], 2) for name in ("odds", "mcse"))
    stand = "CL and the area under the curve do not depend on it, ka, V and peaks do"
    return f"odds {odds} (mcse {mcse}) that absorption is the slower of the two rates: {stand}"


OF_MODELS: Mapping[str, tuple[Answer, ...]] = {
    "material_batches": (
        Answer(
            verb="tolerance_bound",
            picture="plot_tolerance_bound",
            heading="What batches to come will hold",
            word="B-basis",
            sentence=_bounds,
            meanings={
                "lower": "Beyond which the promise holds [unit of strength].",
                "mcse": "Monte Carlo error of the bound.",
                "promise": "What the number says. How often it holds was measured: docs/tolerance.md of the package.",
            },
            texts=("promise",),
        ),
    ),
    "population_pk": (
        Answer(
            verb="flip_flop",
            heading="Which of two rates is which",
            word="Flip-flop",
            sentence=_odds,
            meanings={
                "odds": "Of absorption being the slower rate, against the faster: what priors say, for no data can.",
                "mcse": "Monte Carlo error of the odds.",
                "share": "Of draws that lie on the other side; the odds make no use of them.",
            },
        ),
    ),
}


def answers_of(record: HierarchicalModel) -> tuple[Answer, ...]:
    """The answers that a model of the zoo has beside those of all models."""
    return OF_MODELS.get(record.name, ())
