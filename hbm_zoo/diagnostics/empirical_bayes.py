"""Empirical Bayes: the hyperparameters estimated by maximum likelihood, then taken as known.

What is lost is seen beside full Bayes: no prior, but also no uncertainty of the
hyperparameters in any interval, and a spread of the groups that may be exactly 0.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from types import ModuleType

import numpy as np
import pandas as pd
import xarray as xr
from pymc_extras.prior import Prior
from scipy.optimize import minimize

from hbm_zoo.group_level.newton import STEP, derivatives, modes
from hbm_zoo.inference.chunks import log_joint
from hbm_zoo.inference.completion import add_groups
from hbm_zoo.inference.fits import population_fixed_at
from hbm_zoo.inference.fitting import attributes
from hbm_zoo.inference.free_parameters import line
from hbm_zoo.inference.nodes import as_groups, with_nodes
from hbm_zoo.model import HierarchicalModel
from hbm_zoo.priors import ppf
from hbm_zoo.words import choose
from hbm_zoo.zoo import record_of

METHODS = ("ml", "reml")
FLAT = 1e-5  # Curvature, in units of the prior's spread, of a likelihood that says nothing.
TIE = 1e-7  # Nats by which a boundary may fall short of an interior and still be the answer.
NOT_LEFT_OUT = ["elpd", "lppd", "k_hat", "elpd_mcse"]


def empirical_bayes(
    model: ModuleType | HierarchicalModel | str,
    frame: pd.DataFrame,
    method: str = "ml",
    draws: int = 1000,
    chains: int = 4,
    random_seed: int = 0,
    **options,
) -> xr.DataTree:
    """Maximise the marginal likelihood; give each group its posterior at that point.

    Parameters
    ----------
    model, frame
        As in `fit`.
    method : {"ml", "reml"}
        Maximum likelihood; or restricted maximum likelihood, which integrates the mean of the
        population out under a flat prior, for models whose likelihood is normal in it.
    draws, chains : int
        Draws of the group level.
    random_seed : int
        Seed of these draws.
    **options
        Options of the model (``record.options``).

    Returns
    -------
    xarray.DataTree
        Like a fit, with pooling ``empirical_bayes``, so that it joins a dict of fits:
        ``fits | {"empirical_bayes": empirical_bayes(model, frame)}``. Group ``estimates`` has
        ``value`` and standard error ``se`` [hyperparameter], the latter from the observed
        information, NaN at a boundary. Attrs: ``method``; ``log_likelihood`` [nats] at the maximum
        (restricted under REML); ``boundary``, e.g. ``tau = 0`` where the likelihood is largest when
        groups do not differ, else empty.

    Raises
    ------
    FrameError, ValueError
        If the frame, a name or an option is not what is expected, the model does not say what is known of a group,
        the likelihood has no maximum, or REML is asked of a model that is not normal in its mean.

    Notes
    -----
    Efron & Morris (1973), J Am Stat Assoc 68:117-130; Morris (1983), J Am Stat Assoc 78:47-65.
    REML: Harville (1974), Biometrika 61:383-385. The log likelihood is quadratic in the
    mean, so integrating it out adds (k/2) log 2 pi - (1/2) log |J| to its maximum over the mean,
    with J the information of the k mean parameters.

    Examples
    --------
    >>> import hbm_zoo as hz
    >>> plug_in = hz.empirical_bayes("hospital_readmission", hz.load_data("pumps"))
    >>> plug_in["estimates"]["value"].round(3).values.tolist()
    [0.652, 1.102]
    """
    record, options = record_of(model).split(options, frame)
    record.ask("empirical_bayes", "log_joint", "conditional")
    choose(method, METHODS, "method")
    data = record.data(frame, **options)
    record.check_shareable(data, "partial")
    priors = record.default_priors(data)
    seen = with_nodes(record, data, priors, random_seed)
    best = _best(record, seen, priors, method)
    if seen is not data:
        seen = with_nodes(record, data, priors, random_seed, population_fixed_at(best.values))
        best = _best(record, seen, priors, method)

    empty = xr.Dataset(coords={"chain": np.arange(chains), "draw": np.arange(draws)})
    tree = xr.DataTree.from_dict({"posterior": empty, "estimates": best.table(record, data)} | as_groups(seen))
    tree.attrs = attributes(record, data, "partial", priors) | {
        "pooling": "empirical_bayes",
        "parameterization": "exact",
        "priors": "{}",
        "fixed": json.dumps(best.values),
        "method": method,
        "log_likelihood": best.log_likelihood,
        "boundary": ", ".join(f"{name} = {value:g}" for name, value in best.boundary.items()),
        "engine": "exact",
        **{"draws": draws, "chains": chains, "seed": random_seed},
    }
    add_groups(record, tree, seen)
    summary = tree["group_summary"].to_dataset().drop_vars(NOT_LEFT_OUT, errors="ignore")
    if not (summary["sd"] > 0).all():
        summary = summary.drop_vars([name for name in summary if str(name).startswith(("rank", "p_best", "p_top"))])
    tree["group_summary"] = xr.DataTree(summary)
    return tree


@dataclass(frozen=True)
class _Estimate:
    """Where the likelihood is largest: all hyperparameters, standard errors of the estimated ones."""

    values: dict[str, float]
    se: dict[str, float]
    log_likelihood: float
    boundary: dict[str, float]
    flat: bool

    def table(self, record: HierarchicalModel, data: xr.Dataset) -> xr.Dataset:
        names = [name for name in self.values if name not in record.extras.absent(data)]
        columns = {"value": [self.values[n] for n in names], "se": [self.se.get(n, np.nan) for n in names]}
        by_name = {key: ("hyperparameter", column) for key, column in columns.items()}
        return xr.Dataset(by_name, {"hyperparameter": names})


def _best(record: HierarchicalModel, data: xr.Dataset, priors: Mapping[str, Prior], method: str) -> _Estimate:
    """The largest of the interior and every boundary; of equals the one with fewer parameters."""
    known = record.fixed["partial"](priors, data)
    lines = {name: _Line(of.support, priors[name]) for name, of in record.parameters.items() if name not in known}
    surface = _Surface(record, data, lines, known, method)
    if not surface.is_defined:
        where = ", ".join(f"{name} = {line.value(0.0):.3g}" for name, line in lines.items())
        raise ValueError(f"The likelihood of {record.name} is not defined where its search begins, at {where}.")
    best = surface.highest({})
    for boundary in _boundaries(record, record.fixed["complete"](priors, data), known):
        surface = _Surface(record, data, lines, known | boundary, method)
        if not surface.is_defined:
            continue
        there = surface.highest(boundary)
        if there.log_likelihood > best.log_likelihood - TIE:
            best = there
    if best.flat:
        where = ", ".join(f"{name} = {value:.3g}" for name, value in best.values.items() if name not in known)
        raise ValueError(
            f"The likelihood of {record.name} has no maximum on these data: it is still flat at {where}. A fit whose "
            "priors say what the data do not is partial pooling."
        )
    return best


def _boundaries(record: HierarchicalModel, complete: Mapping[str, float], known: Mapping[str, float]) -> list[dict]:
    """The edges of each free hyperparameter; the spread vanishing, one part of it at a time, then all of it."""
    free = {name: parameter for name, parameter in record.parameters.items() if name not in known}
    edges = [dict(edge) for parameter in free.values() for edge in parameter.edges]
    if not set(known) <= set(complete):  # what partial pooling fixes complete pooling does not: it is no special case
        return edges
    complete = {name: value for name, value in complete.items() if name not in known}
    lowest = [name for name, value in complete.items() if value == record.parameters[name].support[0]]
    inside = {name: value for name, value in complete.items() if name not in lowest}
    parts = [{name: complete[name]} | inside for name in lowest] if len(lowest) > 1 else []
    return [*edges, *parts, complete]


class _Surface:
    """The log likelihood over the free hyperparameters, each on a line without bounds.

    A line has its 0 at the median of the default prior and its unit from the prior's spread:
    they say where to look and how far to step, and do not enter the likelihood.
    """

    def __init__(self, record, data, lines, known, method):
        self.record, self.data, self.lines, self.known = record, data, lines, known
        free = [name for name in record.parameters if name not in known]
        unbounded = [name for name in free if np.isinf(record.parameters[name].support).all()]
        self.means = unbounded if method == "reml" else []
        self.searched = [name for name in free if name not in self.means]
        if method == "reml" and not (self.means and self._is_quadratic()):
            raise ValueError(
                f"REML integrates out a mean under a flat prior, for models normal in it; {record.name} has no such "
                "mean: use method='ml'."
            )

    def log_likelihood(self, searched: np.ndarray, means: np.ndarray) -> np.ndarray:
        """Log p(data) at points [sample, ...] of the lines [nats]."""
        at = dict(zip([*self.searched, *self.means], np.hstack([searched, means]).T, strict=True))
        values = {name: self.lines[name].value(u) for name, u in at.items()}
        samples = {name: ("sample", np.broadcast_to(v, len(searched))) for name, v in (self.known | values).items()}
        with np.errstate(all="ignore"):
            total = log_joint(self.record, xr.Dataset(samples), self.data).values
        return np.nan_to_num(total, nan=-np.inf)

    @property
    def is_defined(self) -> bool:
        """Whether there is a likelihood where the search begins, at the middle of the lines."""
        return bool(np.isfinite(self.log_likelihood(*(np.zeros((1, len(n))) for n in (self.searched, self.means)))[0]))

    def height(self, searched: np.ndarray) -> np.ndarray:
        """What is maximised: the log likelihood, or its integral over the means."""
        if not self.means:
            return self.log_likelihood(searched, np.empty((len(searched), 0)))
        top, _, information = self._over_means(searched)
        units = sum(np.log(self.lines[name].unit) for name in self.means)
        return top + len(self.means) / 2 * np.log(2 * np.pi) - np.linalg.slogdet(information)[1] / 2 + units

    def _over_means(self, searched: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """The quadratic in the means: its maximum, where it is, and minus its second derivative."""

        def log_likelihood(means: np.ndarray) -> np.ndarray:
            here = np.repeat(searched, means.shape[1], axis=0)
            return self.log_likelihood(here, means.reshape(len(here), -1)).reshape(means.shape[:2])

        level, slope, information = derivatives(log_likelihood, np.zeros((len(searched), len(self.means))), step=1.0)
        at = np.linalg.solve(information, slope[..., None])[..., 0]
        return level + (slope * at).sum(axis=-1) / 2, at, information

    def _is_quadratic(self) -> bool:
        """Whether a parabola through three points of each mean predicts a fourth."""
        middle = np.zeros((1, len(self.searched)))
        for direction in np.eye(len(self.means)):
            f = [self.log_likelihood(middle, k * direction[None])[0] for k in (-1, 0, 1, 2)]
            if abs(f[3] - 3 * f[2] + 3 * f[1] - f[0]) > 1e-8 * np.abs(f).max():
                return False
        return True

    def highest(self, boundary: dict[str, float]) -> _Estimate:
        """The maximum, with standard errors from the curvature there."""
        start, step = np.zeros((1, len(self.searched))), self.record.group_level.step
        (u,), (curvature,) = modes(lambda u: self.height(u[0])[None], start, step)
        if boundary and u.size and step**4 / 2 > TIE:
            u = self._exactly(u, step)
        at, information = np.empty((1, 0)), np.empty((1, 0, 0))
        if self.means:
            _, at, information = self._over_means(u[None])
        lines = dict(zip([*self.searched, *self.means], [*u, *at[0]], strict=True))
        spread = [*standard_errors(curvature), *standard_errors(information[0])]
        values = {name: float(self.lines[name].value(x)) for name, x in lines.items()}
        se = {name: float(self.lines[name].slope(x) * sd) for (name, x), sd in zip(lines.items(), spread, strict=True)}
        everything = {name: float((self.known | values)[name]) for name in self.record.parameters}
        flat = bool(self.searched) and np.linalg.eigvalsh(curvature).min() < FLAT
        return _Estimate(everything, se, float(self.height(u[None])[0]), boundary, flat)

    def _exactly(self, u: np.ndarray, step: float) -> np.ndarray:
        """The top near one that long differences found, which may miss by more than a boundary is higher."""
        simplex = u + step * np.vstack([np.zeros(u.size), np.eye(u.size)])
        ends = {"initial_simplex": simplex, "xatol": 1e-6, "fatol": TIE}
        return minimize(lambda u: -self.height(u[None])[0], u, method="Nelder-Mead", options=ends).x


class _Line:
    """A hyperparameter's support mapped to the whole line: as it is, its logarithm, or its logit."""

    def __init__(self, support: tuple[float, float], prior: Prior):
        to_line, self._from_line, _ = line(support)
        low, self.middle, high = to_line(np.array([ppf(prior, p) for p in (0.16, 0.5, 0.84)]))
        self.unit = (high - low) / 2

    def value(self, u):
        return self._from_line(self.middle + self.unit * u)

    def slope(self, u):
        return (self.value(u + STEP) - self.value(u - STEP)) / (2 * STEP)


def standard_errors(information: np.ndarray) -> np.ndarray:
    """Square roots of the diagonal of the inverse; NaN where the likelihood is flat or bends upwards."""
    values, vectors = np.linalg.eigh(information)
    if (values > 0).all():
        return np.sqrt((vectors**2 / values).sum(axis=1))
    return np.full(len(information), np.nan)
