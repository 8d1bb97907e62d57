"""What every figure of a report means, in a sentence."""

from __future__ import annotations

import re

WORDS = {
    "pooling": "Whether groups share: not at all (no), wholly (complete), or as much as the data say (partial).",
    "kappa": "How much a group's own data count, between 0, all is borrowed from the others, and 1, nothing is; below "
    "0, of what is not normal, where its data leave more doubt than there was.",
    "elpd": "How well data that were left out are predicted: the higher, the better.",
    "nats": "The unit of elpd: one nat is a probability 2.7 times as high, two nats 7.4 times, for all data together.",
    "interval": "Between its ends the number lies with the probability named, given model and data.",
}

COMPARISON = {
    "question": "In comparison.csv, which: new_group, a group not seen before; new_observation, the same group again.",
    "pooling": "none: every group alone; complete: all groups lumped; partial: the data say how much to share.",
    "rank": "1 predicts best. No pooling has no rank for a new group: only its prior speaks.",
    "elpd": "Expected log predictive density of data left out [nats]; higher is better.",
    "se": "Standard error of elpd over the units left out [nats]; none where groups depend on one another.",
    "elpd_diff": "elpd less that of the best [nats].",
    "dse": "Standard error of elpd_diff [nats]; left out with fewer than 10 groups, where it says little, and where "
    "groups depend on one another.",
    "one_unit": "Largest share of a single unit in the sum of absolute differences: near 1, all hangs on it.",
    "mcse": "Monte Carlo error of elpd [nats]: what another seed would change.",
    "p": "Effective number of hyperparameters: how much better the data are fitted than predicted [nats].",
    "max_k_hat": "Largest Pareto k of the importance weights; above 0.7 they are unreliable (Vehtari et al. 2024).",
    "refits": "Units left out by fitting again without them, instead of by importance weights.",
    "dic": "Deviance information criterion, group level in focus, at the posterior means (Spiegelhalter et al. 2002); "
    "deviance scale, lower is better; not comparable with elpd.",
    "p_d": "Effective number of parameters of DIC, group level included.",
    "sum_kappa": "Sum of the weights kappa: about how many groups' worth of estimates the data pay for.",
    "parameters": "Raw count of parameters.",
    "note": "What to bear in mind in reading the row.",
}

GROUPS = {
    "label": "What the group is called beside its label.",
    "own": "The raw estimate from the group's own data alone.",
    "none": "Posterior mean under no pooling, every group alone under the same wide prior.",
    "complete": "Posterior mean under complete pooling, which leaves groups nothing of their own.",
    "partial": "Posterior mean under partial pooling, the group's own data and the population weighed.",
    "empirical_bayes": "Estimate with the population fixed at its maximum likelihood.",
    "sigma_g": "The spread within the group, sd, its own; averaged over the hyperparameters.",
    "weight": "How far the estimate has gone from the population's mean to the group's own, given these data; kappa is "
    "averaged over data.",
    "rank": "Mean rank, 1 for the largest; its interval says how little ranks are known.",
    "p_best": "Probability to be the largest of all.",
    "p_top10": "Probability to be among the largest tenth.",
    "lfdr": "Probability that the effect is null, given the data.",
    "lfsr": "Probability that the sign of the effect is wrong, lfdr + min(P(effect > 0), P(effect < 0)).",
}

DISCOVERIES = {
    "lfdr": GROUPS["lfdr"],
    "lfsr": GROUPS["lfsr"],
    "s_value": "Mean lfsr of all groups whose lfsr is no larger (Stephens 2017).",
    "p_value": "Two-sided, of effect / standard_error.",
    "bayesian_fdr": "Mean lfdr of the list down to this row: at most 0.05 (Efron 2008).",
}

CHECKS = {
    "r_hat": "Do chains agree? 1.01 at most (Vehtari et al. 2021).",
    "ess_bulk": "Effective draws for the centre of the posterior: at least 100 a chain.",
    "ess_tail": "Effective draws for its tails: at least 100 a chain.",
    "divergences": "Draws where the sampler lost its way: none.",
    "max_treedepth": "Draws that were cut short: none.",
    "e_bfmi": "How well tails are explored: at least 0.3.",
    "k_hat": "Of importance weights: 0.7 at most (Vehtari et al. 2024); -inf if nearly even.",
    "effective": "Draws that the weighted proposals are worth: at least 400 (Kong, Liu & Wong 1994).",
    "proposals": "Points from which independent draws were made.",
    "tops": "Tops of the posterior found from several starts, each of them in the proposal.",
}


FIT_TO_DATA = {
    "check": "What is looked at; outlying: whether every group belongs to the population.",
    "compares": "The statistic that is compared; normal scores are standard normal if the model is right.",
    "observed": "The statistic of the data.",
    "expected": "Where the model puts it, by data that it made and that were fitted again.",
    "p_holm": "How probable so much or more is if the model is right, for all checks of the pooling; fails below 0.05.",
}


def define(column: str, volume: str, kappa: str) -> str:
    """The meaning of a column of the groups table; `volume` is the column that counts the data, `kappa` its formula.

    Examples
    --------
    >>> define("p_above_1.5", "expected", "1 - v / t")
    'Posterior probability that the estimate is above 1.5.'
    """
    if column == "kappa":
        return f"Weight of the group's own data, {kappa}: 1 is trusted alone, 0 is the population's mean."
    if column == volume:
        return "How much data the group has."
    if above := re.fullmatch(r"p_above_(.+)", column):
        return f"Posterior probability that the estimate is above {above[1]}."
    if interval := re.fullmatch(r"(?:(.+)_)?(eti|hdi)(\d+)_(lb|ub)", column):
        end = "Lower" if interval[4] == "lb" else "Upper"
        return f"{end} end of the {interval[3]} % interval of {interval[1] or 'the estimate'}."
    return GROUPS.get(column, "")
