"""What the verbs of one model answer: the tables, sentences and pictures that its report has beside those of all."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import pandas as pd
import xarray as xr

import hbm_zoo as hz
from hbm_zoo.model import HierarchicalModel
from hbm_zoo.reporting import sentences


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
        What columns of the table mean, but ends of intervals; those that hold text.
    own_units
        Whether each row is in a unit of its own.
    """

    verb: str
    picture: str = ""
    heading: str
    word: str
    sentence: Callable[[pd.DataFrame], str]
    meanings: Mapping[str, str]
    texts: tuple[str, ...] = ()
    own_units: bool = False

    def table(self, fit: xr.DataTree, record: HierarchicalModel) -> pd.DataFrame | str:
        """What the verb says of a fit, or why it says nothing."""
        owner = hz.MODELS[record.name] if self is not OF_MODERATORS else hz
        try:
            return getattr(owner, self.verb)(fit, model=record)
        except ValueError as reason:
            return str(reason)

    def figure(self, fit: xr.DataTree, record: HierarchicalModel) -> Any:
        """The picture of a fit that has a table, a ``matplotlib.figure.Figure``."""
        return getattr(hz, self.picture)(fit, model=record)


OF_MODELS: Mapping[str, tuple[Answer, ...]] = {
    "material_batches": (
        Answer(
            verb="tolerance_bound",
            picture="plot_tolerance_bound",
            heading="What batches to come will hold",
            word="B-basis",
            sentence=sentences.bounds,
            meanings={
                "lower": "Beyond which the promise holds [unit of strength].",
                "mcse": "Monte Carlo error of the bound.",
                "promise": "What the number says. How often it holds was measured: docs/tolerance.md of the package.",
            },
            texts=("promise",),
        ),
    ),
    "model_discrepancy": (
        Answer(
            verb="modulus",
            picture="plot_modulus",
            heading="What is known of the material",
            word="Modulus",
            sentence=sentences.modulus,
            meanings={
                "model_alone": "Young's modulus by least squares, the simulator taken for the truth [GPa].",
                "E": "Posterior median of Young's modulus [GPa]; it has no mean.",
                "prior": "The prior's median [GPa]; an end is infinite where the prior allows no compliance.",
                "learned": "1 - Var(. | y) / Var(.) of the compliance: what the readings took off its prior variance.",
                "sd": "Posterior sd of the compliance, as a share of its mean.",
                "sd_of_difference": "Posterior sd of a specimen's difference from the mean of all, as a share of its "
                "compliance: free of a discrepancy that all share.",
            },
        ),
        Answer(
            verb="discrepancy",
            picture="plot_discrepancy",
            heading="How wrong the simulator is",
            word="Discrepancy",
            sentence=sentences.wrong,
            meanings={
                "discrepancy": "Posterior mean of what the rig adds to the simulator under the typical load [mm].",
                "mcse": "Monte Carlo error of the mean.",
                "simulator": "What the simulator says of the specimens' mean compliance [mm].",
                "simulator_error": "How far the simulator is off between its runs [mm], the most that was seen; 0 of "
                "one that is linear.",
                "share": "The discrepancy over what the simulator says.",
                "where": "Whether a sensor stood there or nearer to the tip.",
            },
            texts=("where",),
        ),
        Answer(
            verb="inside_and_beyond",
            heading="What would be there, among the data and beyond them",
            word="Prediction",
            sentence=sentences.predicted,
            meanings={
                "reality": "Posterior mean of the deflection without noise, simulator and discrepancy [mm].",
                "mcse": "Monte Carlo error of the mean [mm].",
                "sd": "Its posterior sd [mm].",
                "simulator": "The part of the simulator [mm].",
                "sd_of_simulator": "Its posterior sd: the two parts are hardly told apart, their sum is [mm].",
                "discrepancy": "The part of the discrepancy [mm].",
                "sd_of_discrepancy": "Its posterior sd [mm].",
                "where": "Whether readings reach there, along the beam and in load.",
                "without": "The same, were the simulator the truth [mm].",
                "mcse_without": "Monte Carlo error of that [mm].",
                "sd_without": "Its posterior sd [mm].",
            },
            texts=("where",),
        ),
    ),
    "population_pk": (
        Answer(
            verb="flip_flop",
            heading="Which of two rates is which",
            word="Flip-flop",
            sentence=sentences.odds,
            meanings={
                "odds": "Of absorption being the slower rate, against the faster: what priors say, for no data can.",
                "mcse": "Monte Carlo error of the odds.",
                "share": "Of draws that lie on the other side; the odds make no use of them.",
            },
        ),
    ),
    "reaction_networks": (
        Answer(
            verb="identifiability",
            heading="Which rates are known, and from whom",
            word="Rates",
            sentence=sentences.known,
            meanings={
                "prior": "Sd of the log under the prior of one module.",
                "others": "Sd of the log given the other modules only.",
                "alone": "Sd of the log given the module's own data only.",
                "all": "Sd of the log given all modules.",
                "mcse": "Monte Carlo error of the last.",
                "from_own": "Share of the prior's variance that the module's own data take off by themselves; below 0 "
                "where they leave more doubt than there was.",
                "from_others": "Share of it that the other modules take off by themselves.",
                "k_hat": "Of the weights by which the module's own data are left out; where it is too large the others "
                "were fitted again.",
            },
        ),
        Answer(
            verb="directions",
            heading="What a module's own data tell best",
            word="Directions",
            sentence=sentences.told_best,
            meanings={
                "direction": "1 is told best.",
                "left": "Share of the population's variance of this sum of log rates that the module's own data leave. "
                "The other columns are the weights of the sum, the largest of size 1; all this is local.",
                "ordered": "Rates that its data cannot tell from one another, put in one order.",
            },
            texts=("ordered",),
        ),
        Answer(
            verb="resolution",
            heading="Which spreads are resolved",
            word="Resolved",
            sentence=sentences.resolved,
            meanings={
                "share": "Of the posterior means of the spreads.",
                "off": "Log likelihood on the nodes that were made once less that on nodes that move [nats].",
                "error": "Standard error of the latter [nats].",
                "resolved": "Whether the nodes made once are right within a nat, here and at all larger spreads.",
            },
        ),
    ),
    "selection_gradients": (
        Answer(
            verb="over_years",
            picture="plot_selection",
            heading="Selection over the years",
            word="Selection",
            sentence=sentences.selection,
            meanings={
                "mean": "Posterior mean; of what is of the data alone, its value.",
                "mcse": "Monte Carlo error of the mean.",
            },
        ),
    ),
    "variance_components": (
        Answer(
            verb="components",
            picture="plot_components",
            heading="How much is inherited",
            word="Inherited",
            sentence=sentences.inherited,
            meanings={
                "rows": "How much data the site has.",
                "sigma_A": "Posterior mean of the additive genetic sd [unit of the response].",
                "sigma_E": "Posterior mean of the sd of all else [unit of the response].",
                "h2": "Posterior mean of sigma_A^2 / (sigma_A^2 + sigma_E^2), of an individual.",
                "p_h2_above_0.2": "Posterior probability that h2 is above 0.2.",
                "mcse": "Monte Carlo error of that probability.",
                "kappa": "Weight of the site's own data: 1 - Var(sigma_A | y, h) / Var(sigma_A | h), a share on "
                "average over data only.",
                "reml_sigma_A": "sigma_A by restricted maximum likelihood.",
                "reml_h2": "h2 by restricted maximum likelihood.",
                "anova_h2": "h2 by the analysis of variance of half sibs, which may be negative or beyond 1.",
                "classical": "Where a classical estimate lies at an end.",
            },
            texts=("classical",),
        ),
    ),
}


#: Of any model whose groups differ by moderators.
OF_MODERATORS = Answer(
    verb="moderators",
    picture="plot_moderators",
    heading="What moderators explain",
    word="Moderators",
    sentence=sentences.moderated,
    meanings={
        "mean": "Posterior mean, of a slope in the unit of its column.",
        "mcse": "Monte Carlo error of the mean.",
        "p_above_0": "Posterior probability that the slope is above 0.",
        "prior_mean": "Mean of the prior: what was expected before the data.",
        "meaning": "What it is. R2 is not metafor's, which compares estimates of tau^2 with and without moderators.",
    },
    texts=("meaning",),
    own_units=True,
)

#: What is answered under an option that changes what is estimated.
OF_ESTIMANDS: Mapping[str, tuple[Answer, ...]] = {
    "alpha": (
        Answer(
            verb="by_year",
            heading="Selection in each year",
            word="Selection",
            sentence=sentences.surviving,
            meanings={
                "animals": "How many animals there were.",
                "survivors": "How many of them survived.",
                "alpha": "Posterior mean of the slope of survival [log odds per sd].",
                "beta": "Posterior mean of the selection gradient of these animals [1 / sd].",
                "p_negative": "Posterior probability that it is below 0.",
                "mcse": "Monte Carlo error of that probability.",
                "kappa": "Weight of the year's own data: 1 - Var(alpha | y, h) / Var(alpha | h).",
                "own": "Gradient at the likeliest slope of the year alone.",
                "standard_error": "Its standard error, by the delta method.",
                "own_is": "Why there is none, or that it falls as the slope rises.",
            },
            texts=("own_is",),
        ),
    ),
}


#: All that have a table.
VERBS = sorted({each.verb for of in (*OF_MODELS.values(), *OF_ESTIMANDS.values(), (OF_MODERATORS,)) for each in of})


def answers_of(record: HierarchicalModel) -> tuple[Answer, ...]:
    """The answers that a model of the zoo has beside those of all models."""
    of_model = OF_ESTIMANDS.get(record.estimand, OF_MODELS.get(record.name, ()))
    return (*of_model, *([OF_MODERATORS] if record.moderators else []))
