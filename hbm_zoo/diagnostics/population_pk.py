"""Verbs of `population_pk` alone: from population to person, and what a person needs."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr
from pymc_extras.prior import Prior

from hbm_zoo.diagnostics.new_rows import all_brought, labelled
from hbm_zoo.diagnostics.updating import weights_after
from hbm_zoo.frames.labels import one, text
from hbm_zoo.frames.rules import FrameError
from hbm_zoo.group_level.dosing import check_doses, joined
from hbm_zoo.group_level.one_compartment import course
from hbm_zoo.group_level.routes import ROUTES, Route, correlations_of
from hbm_zoo.group_level.weighted import Weighted
from hbm_zoo.inference.chunks import log_joint
from hbm_zoo.inference.completion import add_groups
from hbm_zoo.inference.convergence import convergence
from hbm_zoo.inference.fits import efficiency, free, hyperparameters, model_of, prepared, priors_of, thinned
from hbm_zoo.inference.fitting import data_hash
from hbm_zoo.inference.nodes import apart, as_groups, with_nodes
from hbm_zoo.inference.sampling import refit
from hbm_zoo.inference.summary import interval_name, interval_tails
from hbm_zoo.model import HierarchicalModel
from hbm_zoo.priors import log_density
from hbm_zoo.words import choose, plural

#: Odds of the mirror beyond which it cannot be left unsaid.
MOST_ODDS = 0.05
#: Draws at which a mirrored population is integrated anew, and over which a person's nodes are averaged.
DRAWS_OF_MIRROR, DRAWS_OF_PERSON = 200, 1000
#: Nodes of a person that are kept where each draw has its own.
MOST_NODES = 4096
#: Points of an interval between doses, at which a peak is looked for.
POINTS = 200
PROBABILITIES = (0.05, 0.25, 0.5, 0.75, 0.95)


class FlipFlopWarning(UserWarning):
    """Absorption and elimination may be exchanged: what does not depend on it is CL and the area under the curve."""


def flip_flop(fit: xr.DataTree, model: HierarchicalModel | None = None) -> pd.DataFrame:
    """How probable is it that the two rates are exchanged, absorption the slower?

    Parameters
    ----------
    fit : xarray.DataTree
        Partial or complete pooling of ``population_pk``, oral.
    model : HierarchicalModel, optional
        The record of a model that is not in the zoo.

    Returns
    -------
    pandas.DataFrame
        One row, ``mirror``: ``odds`` of the other side against this one, their Monte Carlo error ``mcse``, and the
        ``share`` of draws that lie there, of which the odds make no use.

    Raises
    ------
    ValueError
        If the fit is of another model, not oral, or of no pooling.

    Warns
    -----
    FlipFlopWarning
        If the odds are above 0.05.

    Notes
    -----
    A theta = (log CL, log CL - log ka, log CL - log V) has the same curve as theta, A A = I and |det A| = 1. So
    N(mu, Omega) and N(A mu, A Omega A') have one likelihood, and the odds are the mean of
    p(mirror h)/p(h) over the posterior of one side, p the prior as a density of (mu, Omega), whose Jacobian is 1.
    Where patients' clearances and volumes do not follow their weights alike, the curve of a patient is exchanged with
    that of another weight: then the ratio of the likelihoods, near 1, is counted, too.

    Examples
    --------
    >>> import hbm_zoo as hz
    >>> callable(hz.population_pk.flip_flop)
    True
    """
    record, data = _checked(fit, model, "flip_flop"), prepared(fit)
    route, pooling = ROUTES[str(record.chosen["route"])], fit.attrs["pooling"]
    if len(route.names) < 3:
        raise ValueError("flip_flop is of drugs that are absorbed: a dose into a vein has one rate only.")
    if pooling not in ("partial", "complete"):
        raise ValueError(f"flip_flop compares populations with their mirrors, and {pooling!r} has none: give partial.")
    h, worth = hyperparameters(fit), efficiency(fit)
    log_ratio = np.log(data.size_CL / data.size_V)
    middle, priors = float(log_ratio.mean()), priors_of(fit)
    here = (h.mu_ka > h.mu_CL - h.mu_V + middle).values
    if not here.any():
        raise ValueError("In no draw is absorption the faster: the priors put this fit on the other side.")
    side = h.isel(sample=here)
    if np.ptp(log_ratio.values) > 1e-9:
        side = thinned(side, DRAWS_OF_MIRROR)
    other = mirrored(route, side, middle)
    log_odds = log_prior(route, other, priors, pooling) - log_prior(route, side, priors, pooling)
    if np.ptp(log_ratio.values) > 1e-9:
        log_odds = log_odds + log_joint(record, other, data) - log_joint(record, side, data)
    ratios = np.exp(log_odds.values)
    odds, mcse = ratios.mean(), ratios.std() / np.sqrt(max(1.0, worth * ratios.size))
    if odds > MOST_ODDS:
        warnings.warn(
            f"The odds that the rates are exchanged are {odds:.2g}: CL and the area under the curve stand, ka, V and "
            "peaks do not. A typical ka that is better known would settle it.",
            FlipFlopWarning,
            stacklevel=2,
        )
    row = {"odds": odds, "mcse": mcse, "share": 1 - here.mean()}
    return pd.DataFrame([row], index=pd.Index(["mirror"], name="side"))


def mirrored(route: Route, h: xr.Dataset, log_ratio: float) -> xr.Dataset:
    """The population with the two rates of each patient exchanged, h [sample]."""
    population, each = route.population(h), xr.ones_like(h.mu_CL)
    mean = (population.mean * each).transpose("sample", "coefficient").values
    L = (population.cholesky * each).transpose("sample", "coefficient", "deviate").values
    A = np.stack([route.mirrored(e) for e in np.eye(3)], axis=-1)
    covariance = A @ L @ L.mT @ A.T
    omega = np.sqrt(np.diagonal(covariance, axis1=1, axis2=2))
    with np.errstate(invalid="ignore"):
        r = covariance / omega[:, :, None] / omega[:, None, :]
        partial = (r[:, 1, 2] - r[:, 0, 1] * r[:, 0, 2]) / np.sqrt((1 - r[:, 0, 1] ** 2) * (1 - r[:, 0, 2] ** 2))
    rho = [np.where(omega.all(axis=1), value, 0.0) for value in (r[:, 0, 1], r[:, 0, 2], partial)]
    mu = route.mirrored(mean, log_ratio)
    found = {f"mu_{name}": mu[:, k] for k, name in enumerate(route.names)}
    found |= {f"omega_{name}": omega[:, k] for k, name in enumerate(route.names)}
    found |= dict(zip(correlations_of(route.names), rho, strict=True))
    return h.assign({name: ("sample", value) for name, value in found.items()})


def log_prior(route: Route, h: xr.Dataset, priors: Mapping[str, Prior], pooling: str) -> xr.DataArray:
    """Log prior [sample] as a density of (mu, Omega), up to a constant; of mu alone where there is no spread.

    Priors are of spreads and correlations, the last partial: the density of Omega is theirs over the Jacobians
    8 prod omega^3 and sqrt((1 - rho_CL_V^2) (1 - rho_CL_ka^2)).
    """
    names = [f"mu_{name}" for name in route.names]
    if pooling == "partial":
        names += [f"omega_{name}" for name in route.names] + correlations_of(route.names)
    total = np.sum([log_density(priors[name])(h[name].values) for name in names], axis=0)
    if pooling == "partial":
        total -= 3 * np.sum([np.log(h[f"omega_{name}"].values) for name in route.names], axis=0)
        total -= np.sum([np.log1p(-(h[name].values ** 2)) / 2 for name in ("rho_CL_V", "rho_CL_ka")], axis=0)
    return xr.DataArray(total, dims="sample")


def personalise(
    fit: xr.DataTree, rows: pd.DataFrame, random_seed: int = 0, model: HierarchicalModel | None = None
) -> xr.DataTree:
    """A fit of one new patient: what the cohort teaches, and the patient's own doses and samples, without a refit.

    Parameters
    ----------
    fit : xarray.DataTree
        Of the cohort, the patient not in it.
    rows : pandas.DataFrame
        All there is of the patient, with the columns of the model: doses, and no, one or more samples in any order.
        With a further sample ask again with all of them.
    random_seed : int
        Seed of nodes and draws.
    model : HierarchicalModel, optional
        The record of a model that is not in the zoo.

    Returns
    -------
    xarray.DataTree
        As `fit`, of one patient: `hz.groups`, `hz.predict`, `curve`, `exposure` and `dose_for` take it. Its attrs hold
        the proof: ``k_hat`` of the weights of the cohort's draws, ``effective_draws``, ``effective_nodes`` (the fewest
        at any draw), ``refitted``, and a sentence, ``personalised``.

    Raises
    ------
    FrameError
        If the rows are not those of one patient, with a dose, who is new to the fit.

    Warns
    -----
    ConvergenceWarning
        If the cohort had to be fitted again, and that fit cannot be trusted.

    Notes
    -----
    P(theta, h | cohort, y) is proportional to sum_s delta(h_s) N(theta; mu_s, Omega_s) p(y | theta, sigma_s) over draws
    h_s of the cohort's fit: draws are weighted by the patient's marginal likelihood, and theta is known on nodes given
    each; `predict` does the same with rows that a new patient brings. Where k-hat says that the draws cannot follow,
    an unusual patient in a small cohort say, the cohort is fitted again with the patient in it.
    """
    record = _checked(fit, model, "personalise")
    data, cohort = _of_one_new_patient(record, fit, rows)
    label = data["patient"].values[0]
    h, priors = _one_a_draw(fit, hyperparameters(fit)), priors_of(fit)
    seen = with_nodes(record, data, priors, random_seed, h)
    after = weights_after(record, fit, h, seen)
    if after.holds:
        h, worth = (
            after.resampled(h, np.random.default_rng(random_seed)),
            efficiency(fit) * after.ess / after.weight.size,
        )
    else:
        both = joined(apart(cohort)[0], data)
        again = refit(fit, with_nodes(record, both, priors, random_seed, h), random_seed, record)
        convergence({"with the patient": again})
        h, worth = _one_a_draw(fit, hyperparameters(again)), efficiency(again)
        seen = with_nodes(record, data, priors, random_seed, h)
    attrs = {"efficiency": worth, "seed": random_seed, "data_hash": data_hash(data)}
    tree = _as_fit(fit, h, seen, attrs)
    known = record.group_level.conditional(thinned(h, DRAWS_OF_PERSON), seen)
    proof = {
        "k_hat": after.k_hat,
        "effective_draws": after.ess,
        "effective_nodes": float((1 / (known.weight**2).sum("node")).min()),
        "refitted": int(not after.holds),
    }
    tree.attrs |= proof | {"personalised": _proof(label, int(data.seen.sum()), after, proof)}
    add_groups(record, tree, seen)
    return tree


def _of_one_new_patient(
    record: HierarchicalModel, fit: xr.DataTree, rows: pd.DataFrame
) -> tuple[xr.Dataset, xr.Dataset]:
    """The patient's data, and the cohort's, labels as text."""
    data = all_brought(record, fit, rows)
    check_doses(data)
    labels = data["patient"].values.tolist()
    if len(labels) != 1:
        raise FrameError(f"personalise expected the rows of one patient, got {len(labels)}: {', '.join(labels[:5])}.")
    cohort = labelled(record, prepared(fit))
    if labels[0] in cohort["patient"].values:
        raise FrameError(
            f"Patient {labels[0]} is in the fit already: `curve` and the others take patient={labels[0]!r}."
        )
    return data, cohort


def _one_a_draw(fit: xr.DataTree, h: xr.Dataset) -> xr.Dataset:
    """Hyperparameters, one for each draw, even if the pooling fixes them all."""
    sizes = fit["posterior"].sizes
    return h if h.sizes["sample"] > 1 else h.isel(sample=np.zeros(sizes["chain"] * sizes["draw"], int))


def _as_fit(fit: xr.DataTree, h: xr.Dataset, seen: xr.Dataset, attrs: Mapping[str, Any]) -> xr.DataTree:
    """A fit with other draws and data."""
    sizes = fit["posterior"].sizes
    shape = sizes["chain"], h.sizes["sample"] // sizes["chain"]
    coords = {"chain": np.arange(shape[0]), "draw": np.arange(shape[1])}
    drawn = {name: (("chain", "draw"), h[name].values[: np.prod(shape)].reshape(shape)) for name in free(fit)}
    tree = xr.DataTree.from_dict({"posterior": xr.Dataset(drawn, coords)} | as_groups(seen))
    tree.attrs = dict(tree.attrs) | dict(fit.attrs) | dict(attrs)
    return tree


def _proof(label: str, samples: int, after, proof: Mapping[str, float]) -> str:
    """The proof in words."""
    weighted = f"{proof['effective_draws']:.0f} of {after.weight.size} draws of the cohort are effective"
    said = (
        f"{weighted} (k-hat {after.k_hat:.2f})" if np.isfinite(after.k_hat) else "the cohort's draws stand as they are"
    )
    ending = "; too few: the cohort was fitted again with the patient" if proof["refitted"] else ""
    nodes = f"at least {proof['effective_nodes']:.0f} nodes are effective"
    return f"Patient {label}, {samples} {plural('sample', samples)}: {said}, {nodes}{ending}."


def curve(
    fit: xr.DataTree,
    times: Sequence[float],
    patient: object = None,
    amount: float | None = None,
    every: float | None = None,
    number: int = 1,
    duration: float = 0.0,
    model: HierarchicalModel | None = None,
) -> pd.DataFrame:
    """The concentration of a patient over time, after the doses in the fit or after others.

    Parameters
    ----------
    fit : xarray.DataTree
        Of one patient (`personalise`), or of a cohort.
    times : sequence of float
        When [h].
    patient : optional
        The label of one of several.
    amount, every, number, duration
        ``number`` doses of an ``amount``, ``every`` so many hours from time 0, each over ``duration`` hours. Default:
        the patient's own doses.
    model : HierarchicalModel, optional
        The record of a model that is not in the zoo.

    Returns
    -------
    pandas.DataFrame
        By ``time``: ``mean``, ``sd``, ``median`` and interval of the concentration itself, a sample's error not in it.

    Raises
    ------
    ValueError
        If a patient must be named, is unknown, or a number is not what is expected.
    """
    person = Person(fit, patient, model, "curve")
    at = np.array([_number("times", t, 0.0) for t in times])
    doses = person.doses if amount is None else regimen(amount, every, number, duration)
    values = Weighted(xr.DataArray(person.curve(at, *doses), dims=("node", "time")), person.weight)
    return _described(values).set_index(pd.Index(at, name="time"))


def exposure(
    fit: xr.DataTree,
    amount: float,
    every: float,
    number: int = 1,
    duration: float = 0.0,
    above: float | None = None,
    patient: object = None,
    model: HierarchicalModel | None = None,
) -> pd.DataFrame:
    """Area under the curve, peak and trough of a patient under a regimen.

    Parameters
    ----------
    fit, patient, model
        As of `curve`.
    amount, every, number, duration
        As of `curve`; peak and trough are those of the last interval: of the first dose, or of a steady state if there
        are many.
    above : float, optional
        A concentration: ``p_above`` is the probability of a trough, and of a peak, beyond it.

    Returns
    -------
    pandas.DataFrame
        Rows ``AUC`` [mass h/L], of one dose until nothing is left, which in a steady state is that of an interval;
        ``Cmax``, ``tmax`` [h] after the last dose, and ``trough`` [mass/L], ``every`` hours after it. Columns ``mean``,
        ``sd``, ``median``, the interval, and ``p_above``.

    Raises
    ------
    ValueError
        As `curve`.
    """
    person = Person(fit, patient, model, "exposure")
    rows = person.exposures(amount, every, number, duration)
    rows["AUC"] = amount / person.clearance
    table = pd.concat([_described(Weighted(xr.DataArray(v, dims="node"), person.weight)) for v in rows.values()])
    table.index = pd.Index([*rows], name="exposure")
    if above is not None:
        at = _number("above", above, 0.0)
        beyond = {name: float(person.weight.values @ (rows[name] > at)) for name in ("Cmax", "trough")}
        table["p_above"] = pd.Series(beyond)
    return table.loc[["AUC", "Cmax", "tmax", "trough"]]


def dose_for(
    fit: xr.DataTree,
    target: float,
    of: str = "AUC",
    every: float | None = None,
    number: int = 1,
    duration: float = 0.0,
    patient: object = None,
    model: HierarchicalModel | None = None,
) -> pd.DataFrame:
    """The dose that a patient needs for a target exposure, with its distribution.

    Parameters
    ----------
    fit, patient, model
        As of `curve`.
    target : float
        The exposure to reach: of the area under the curve [mass h/L], or of a concentration [mass/L].
    of : {"AUC", "Cmax", "trough"}
        Of what. Peak and trough are those after the last of ``number`` doses, ``every`` so many hours.
    every, number, duration
        As of `exposure`.

    Returns
    -------
    pandas.DataFrame
        By ``probability``: the ``dose`` that reaches the target with it. The median is too little as often as not.

    Raises
    ------
    ValueError
        As `curve`.

    Notes
    -----
    Concentrations are proportional to the dose: the doses of the nodes are target over exposure to a dose of 1.
    """
    choose(of, ("AUC", "Cmax", "trough"), "of")
    person, target = Person(fit, patient, model, "dose_for"), _number("target", target)
    if of == "AUC":
        of_one = 1 / person.clearance
    else:
        if every is None:
            raise ValueError(f"dose_for a {of} needs to know the hours between doses, every=...")
        of_one = person.exposures(1.0, every, number, duration)[of]
    doses = Weighted(xr.DataArray(target / of_one, dims="node"), person.weight)
    found = {p: doses.ppf(p).item() for p in PROBABILITIES}
    return pd.DataFrame({"dose": found.values()}, index=pd.Index(found, name="probability"))


class Person:
    """One patient of a fit: nodes of the logs, their weights averaged over draws, and doses so far.

    Attributes
    ----------
    theta, weight
        [node, coefficient] and [node], the weights summing to 1.
    doses
        Times, amounts and durations of the patient's own.
    """

    def __init__(self, fit: xr.DataTree, patient: object, model: HierarchicalModel | None, verb: str):
        record, data = _checked(fit, model, verb), prepared(fit)
        labels = text(pd.Series(data["patient"].values)).tolist()
        if patient is None and len(labels) > 1:
            raise ValueError(f"The fit is of {len(labels)} patients: name one, patient={labels[0]!r} say.")
        j = 0 if patient is None else labels.index(choose(one(patient), labels, "patient"))
        single = data.isel(patient=[j])
        h = thinned(hyperparameters(fit), DRAWS_OF_PERSON)
        theta, weight = _on_nodes(record.group_level.conditional(h, single))
        self.route = ROUTES[str(record.chosen["route"])]
        self.theta, self.weight = theta, xr.DataArray(weight, dims="node")
        sizes = single.size_CL.item(), single.size_V.item()
        self.individual = self.route.individual(np.exp(self.theta.T), *sizes)
        given = single.amount.values[0] > 0
        self.doses = [single[name].values[0][given] for name in ("dose_time", "amount", "duration")]

    @property
    def clearance(self) -> np.ndarray:
        """[node]."""
        return self.individual[0]

    def curve(
        self, times: np.ndarray, dose_times: np.ndarray, amounts: np.ndarray, durations: np.ndarray
    ) -> np.ndarray:
        """Concentrations [node, time]."""
        individual = [value[:, None] for value in self.individual]
        each = (
            self.route.curve(*course(times, *dose), *individual)
            for dose in zip(dose_times, amounts, durations, strict=True)
        )
        return sum(each, np.zeros((len(self.theta), times.size)))

    def exposures(self, amount: float, every: float, number: int, duration: float) -> dict[str, np.ndarray]:
        """Peak, its time and trough [node] of the last interval of a regimen."""
        doses = regimen(amount, every, number, duration)
        after = np.append(1e-9, np.linspace(0, 1, POINTS)[1:]) * every  # a sample at the time of a dose is before it
        f = self.curve(doses[0][-1] + after, *doses)
        peak = f.argmax(axis=1)
        return {"Cmax": f.max(axis=1), "tmax": after[peak], "trough": f[:, -1]}


def _on_nodes(known: Weighted) -> tuple[np.ndarray, np.ndarray]:
    """Nodes [node, coefficient] of one patient and their weights, averaged over draws.

    Where they move there are others for each draw: then some of all, in proportion to their weights.
    """
    weight = known.weight.isel(patient=0).transpose("sample", "node").values
    if "sample" not in known.theta.dims:
        return known.theta.isel(patient=0).transpose("node", "coefficient").values, weight.mean(axis=0)
    theta = known.theta.isel(patient=0).transpose("sample", "node", "coefficient").values
    reached = np.cumsum(weight) / weight.sum()
    chosen = np.searchsorted(reached, (np.arange(MOST_NODES) + 0.5) / MOST_NODES).clip(max=reached.size - 1)
    return theta.reshape(-1, theta.shape[-1])[chosen], np.full(MOST_NODES, 1 / MOST_NODES)


def regimen(amount, every, number, duration) -> list[np.ndarray]:
    """Times, amounts and durations of doses, one like the other."""
    if isinstance(number, bool) or not isinstance(number, int | np.integer) or number < 1:
        raise ValueError(f"number must be a whole number of doses, 1 or more, got {number!r}.")
    if every is None and number > 1:
        raise ValueError("Several doses need to know the hours between them, every=...")
    step = 0.0 if every is None else _number("every", every)
    times = step * np.arange(number)
    constant = np.ones(number)
    return [times, _number("amount", amount) * constant, _number("duration", duration, 0.0) * constant]


def _number(name: str, value: Any, least: float | None = None) -> float:
    """A finite number above 0, or from ``least``."""
    numeric = isinstance(value, int | float | np.number) and not isinstance(value, bool) and np.isfinite(value)
    if not numeric or not (value > 0 if least is None else value >= least):
        raise ValueError(
            f"{name} must be a finite number {'above 0' if least is None else f'from {least:g}'}, got {value!r}."
        )
    return float(value)


def _described(values: Weighted) -> pd.DataFrame:
    """Mean, sd, median and interval of each quantity."""
    (lower, upper), name = interval_tails(), interval_name()
    columns = {"mean": values.mean, "sd": values.sd, "median": values.ppf(0.5)}
    columns |= {f"{name}_lb": values.ppf(lower), f"{name}_ub": values.ppf(upper)}
    return pd.DataFrame({column: np.atleast_1d(value.values) for column, value in columns.items()})


def _checked(fit: xr.DataTree, model: HierarchicalModel | None, verb: str) -> HierarchicalModel:
    """The record of a fit of population_pk."""
    record = model_of(fit, model)
    if "route" not in record.alternatives or not {"mu_CL", "mu_V"} <= set(record.parameters):
        raise ValueError(f"{verb} is of fits of population_pk, got one of {record.name}.")
    return record
