"""The posterior of a model with few unknown numbers, on the whole line, at many points at once.

Points x are PyMC's own values of the free variables in units of their prior: 0 is the prior's median, and 1 the half of
the width of its middle half. So data in other units, and priors that follow them, have the same posterior of x.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import cache
from typing import Any

import numpy as np
import pymc as pm
import pytensor.tensor as pt
import xarray as xr
from pymc.distributions.shape_utils import change_dist_size
from pymc.logprob.utils import local_check_parameter_to_ninf_switch
from pymc.pytensorf import reseed_rngs
from pytensor import function
from pytensor.compile import SharedVariable
from pytensor.graph.basic import Variable
from pytensor.graph.op import HasInnerGraph
from pytensor.graph.replace import clone_replace, vectorize_graph
from pytensor.graph.rewriting.basic import in2out
from pytensor.graph.rewriting.utils import rewrite_graph
from pytensor.graph.traversal import ancestors, graph_inputs, toposort
from pytensor.tensor.random.type import RandomType
from threadpoolctl import ThreadpoolController

from hbm_zoo.group_level.newton import STEP
from hbm_zoo.inference.transforms import normal_tails

CELLS_AT_ONCE = 400_000
#: Cells in all beyond which a compiled function repays the seconds that it takes to load.
CELLS_UNCOMPILED = 4_000_000
POINTS = 12_000
DRAWS_OF_PRIOR = 400


@dataclass(frozen=True)
class LogPosterior:
    """Log prior and log likelihood at points x [point, dimension], and the way back to the variables.

    Attributes
    ----------
    model
        The model as written, its half-normal variables on the scale of two normal tails.
    centre, scale
        Of PyMC's values, by dimension: those of the prior.
    of_prior
        Points [draw, dimension] drawn from the prior.
    densities
        ``densities(many)``: a function for much data, compiled to the last, or one for little, at hand at once.
    way_back, of_prior_compiled
        The other compiled functions.
    data
        The arrays of data, and numbers of the priors, that they ask for, by name.
    nodes
        Numbers held for each point and element of the data.
    step
        Length of the differences that stand for derivatives, as of `GroupLevel`.
    """

    model: pm.Model
    centre: np.ndarray
    scale: np.ndarray
    of_prior: np.ndarray
    densities: Callable
    way_back: Callable
    of_prior_compiled: Callable
    data: Mapping[str, np.ndarray]
    nodes: int
    step: float

    @property
    def cells(self) -> int:
        """Numbers held for each point."""
        return self.nodes * max((array.size for array in self.data.values()), default=1)

    @property
    def much(self) -> bool:
        """Whether compiling to the last repays."""
        return self.cells * POINTS > CELLS_UNCOMPILED

    @property
    def size(self) -> int:
        """How many dimensions there are."""
        return self.centre.size

    def __call__(self, x: np.ndarray) -> np.ndarray:
        """Log p(x, y) [point, each] [nats]; -inf where there is none."""
        return np.add(*self.parts(x))

    def parts(self, x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Log p(x) and log p(y | x) [point, each] [nats]; -inf, both, where one is not defined."""
        step, u = max(1, CELLS_AT_ONCE // self.cells), self.centre + self.scale * x
        densities = self.densities(self.much)
        # Of matrices as small as these, one by one, threads that wait for each other take ten times as long.
        with np.errstate(all="ignore"), _threads().limit(limits=None if self.much else 1):
            parts = [densities(u[i : i + step], *self.data.values()) for i in range(0, len(u), step)]
        log_prior, log_joint = (np.concatenate(each) for each in zip(*parts, strict=True))
        defined = np.isfinite(log_joint) & np.isfinite(log_prior)
        log_likelihood = np.where(defined, log_joint - np.where(defined, log_prior, 0.0), -np.inf)
        return np.where(defined, log_prior + np.log(self.scale).sum(), -np.inf), log_likelihood

    def variables(self, x: np.ndarray, dim: str = "sample") -> xr.Dataset:
        """Free variables and what is computed of them, each on its own scale, at points x [point, dimension]."""
        with np.errstate(all="ignore"):
            values = self.way_back(self.centre + self.scale * x, *self.data.values())
        shown = self.model.free_RVs + self.model.deterministics
        return xr.Dataset({v.name: (dim, np.broadcast_to(at, len(x))) for v, at in zip(shown, values, strict=True)})

    def of(self, arrays: Mapping[str, np.ndarray]) -> LogPosterior:
        """The same of other arrays of data under the same priors, x in the same units."""
        fresh = {n: np.asarray(arrays[n], held.dtype) if n in arrays else held for n, held in self.data.items()}
        return replace(self, data=fresh)

    def with_data(self, arrays: Mapping[str, np.ndarray], nodes: int) -> LogPosterior:
        """The same of other arrays of data and other numbers of the priors, nothing compiled again."""
        data = {name: np.asarray(arrays[name], held.dtype) for name, held in self.data.items()}
        drawn = np.column_stack(self.of_prior_compiled(*data.values()))
        low, centre, high = np.quantile(drawn, [0.25, 0.5, 0.75], axis=0)
        scale = (high - low) / 2
        return replace(self, centre=centre, scale=scale, of_prior=(drawn - centre) / scale, data=data, nodes=nodes)


@cache
def _threads() -> ThreadpoolController:
    """Those of linear algebra; to find its libraries takes longer than a density."""
    return ThreadpoolController()


def few_numbers(model: pm.Model) -> bool:
    """Whether all that is unknown in a model is some real numbers, and all that is computed of them is numbers."""
    shown = model.free_RVs + model.deterministics
    return not model.discrete_value_vars and bool(model.free_RVs) and all(v.type.ndim == 0 for v in shown)


def log_posterior(model: pm.Model, arrays: Mapping[str, np.ndarray], nodes: int, step: float = STEP) -> LogPosterior:
    """The posterior of a model of `few_numbers`.

    Parameters
    ----------
    model : pymc.Model
        What it takes of data and of priors is in shared variables.
    arrays : mapping of str to numpy.ndarray
        Values for these, by name.
    nodes : int
        How many numbers the likelihood of a point takes for each element of the data.
    step : float
        Length of the differences that stand for derivatives.
    """
    model = normal_tails(model)
    u = pt.dmatrix("u")
    by_point = {v: u[:, k].astype(v.dtype) for k, v in enumerate(model.value_vars)}
    both = vectorize_graph(_unchecked([model.logp(vars=model.free_RVs), model.logp()]), by_point)
    shown = vectorize_graph(model.replace_rvs_by_values(model.free_RVs + model.deterministics), by_point)
    drawn = _of_prior(model)
    held = [v for v in graph_inputs([*both, *shown, *drawn]) if isinstance(v, SharedVariable) and v.name in arrays]
    asked: dict[Variable, Variable] = {v: v.type() for v in held}

    def compiled(given: list, outputs: list, mode: str = "FAST_COMPILE") -> Callable:
        of_data = clone_replace(outputs, asked)
        inputs = [*given, *asked.values()]
        return function(inputs, of_data, mode=mode, on_unused_input="ignore")

    densities = [density + pt.zeros(u.shape[0]) for density in both]
    # A loop or a search stands alone or, repeated for each point, inside another operation.
    searches = any(isinstance(getattr(node.op, "core_op", node.op), HasInnerGraph) for node in toposort(densities))

    @cache
    def of_mode(many: bool) -> Callable:
        return compiled([u], densities, "NUMBA" if searches or many else "FAST_COMPILE")

    nowhere = np.empty(0)
    return LogPosterior(
        model=model,
        centre=nowhere,
        scale=nowhere,
        of_prior=nowhere,
        densities=of_mode,
        way_back=compiled([u], shown),
        of_prior_compiled=compiled([], drawn),
        data={v.name: np.empty(0, v.type.dtype) for v in held},
        nodes=nodes,
        step=step,
    ).with_data(arrays, nodes)


def _unchecked(densities: list[Variable]) -> list[Variable]:
    """Densities that are 0 where a parameter leaves its support: of many points, one that does must stop no other."""
    rewritten: Any = rewrite_graph(densities, include=(), custom_rewrite=in2out(local_check_parameter_to_ninf_switch))
    return rewritten


def _of_prior(model: pm.Model) -> list[Variable]:
    """Draws of the prior, as PyMC's values on the whole line [draw], the same whenever they are computed."""
    to_line = model.rvs_to_transforms
    values = [v if to_line[v] is None else to_line[v].forward(v, *v.owner.inputs) for v in model.free_RVs]
    first = [v for v in model.free_RVs if not set(ancestors([v])) & set(model.free_RVs) - {v}]
    many = vectorize_graph(values, {v: change_dist_size(v, (DRAWS_OF_PRIOR,), expand=True) for v in first})
    reseed_rngs([v for v in graph_inputs(many) if isinstance(v.type, RandomType)], 0)
    return many
