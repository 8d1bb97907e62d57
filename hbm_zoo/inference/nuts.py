"""NUTS on a log density that is compiled once on a machine: the next process finds it on disk."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from math import prod
from typing import Any

import numba
import numpy as np
import nutpie
import pandas as pd
import pymc as pm
import pytensor
import pytensor.tensor as pt
import xarray as xr
from arviz_base import dict_to_dataset
from numba.core import types
from nutpie.compile_pymc import CompiledPyMCModel, address_as_void_pointer, make_user_data
from pytensor.compile.sharedvalue import SharedVariable
from pytensor.graph import clone_replace, rewrite_graph, vectorize_graph
from pytensor.graph.traversal import graph_inputs
from pytensor.link.numba.cache import CACHED_SRC_FUNCTIONS, compile_numba_function_src
from pytensor.link.numba.dispatch.basic import numba_njit

from hbm_zoo.inference.transforms import normal_tails

#: Draws of a prior that say how wide it is; what lies below the ends of its central two thirds.
PRIOR_DRAWS, TWO_THIRDS = 200, (1 / 6, 5 / 6)

NUMBERS = types.CPointer(types.double)
# What nutpie calls. `table` holds the addresses of the arrays of data, their sizes, then their shapes; a result above
# 0 is a point without a density, where a step diverges.
DENSITY = types.int64(types.uint64, NUMBERS, NUMBERS, NUMBERS, types.voidptr)
DENSITY_SOURCE = """
def density(size, x, gradient, value, table):
    word = carray(table, ({words},), np.intp)
    try:
        found, slope = formula(carray(x, (size,)), {arrays})
    except Exception:
        return 1
    value[0] = found.item()
    finite = math.isfinite(value[0])
    for k in range(size):
        gradient[k] = slope[k]
        finite &= math.isfinite(slope[k])
    return 0 if finite else 2
"""
COPY = types.int64(types.uint64, types.uint64, NUMBERS, NUMBERS, types.voidptr)
COPY_SOURCE = """
def copy(size, same_size, x, out, table):
    for k in range(size):
        out[k] = x[k]
    return 0
"""


@dataclass(frozen=True)
class Compiled:
    """A model that NUTS can draw from.

    Attributes
    ----------
    density
        What nutpie draws: x [variable], on the whole line and in the units of the priors.
    own_scales
        From x [draw, variable] and arrays of data to what is kept, on its own scale [draw, ...].
    data
        The arrays that ``own_scales`` takes.
    names, dims, coords
        Of what is kept: free variables and deterministics.
    """

    density: CompiledPyMCModel
    own_scales: Callable
    data: Mapping[SharedVariable, np.ndarray]
    names: Sequence[str]
    dims: Mapping[Any, Sequence[Any]]
    coords: Mapping[str, Any]

    def with_data(self, data: xr.Dataset) -> Compiled:
        """The same on other data, of other sizes too; this one keeps its own."""
        used = {variable.name for variable in self.density.shared_var_keys} & set(data.data_vars)
        density = self.density.with_data(**{name: data[name].values for name in used})
        own = {v: data[v.name].values if v.name in data.data_vars else array for v, array in self.data.items()}
        return replace(self, density=density, data=own)


def compiled(model: pm.Model) -> Compiled:
    """Compile a model, or find it compiled.

    A variable u on the whole line is drawn as x, u = centre + unit x, in a unit that its prior gives: data and
    priors in other units of measurement give the same draws, but for rounding.

    Parameters
    ----------
    model : pymc.Model
        Its free variables are continuous; arrays, and numbers of its priors, are in shared variables: others are no
        other function, and nothing is compiled for them.

    Returns
    -------
    Compiled
    """
    model = normal_tails(model)
    centre, unit, shapes = prior_units(model)
    affine = pytensor.shared(centre), pytensor.shared(unit)
    names = [variable.name for variable in model.free_RVs + model.deterministics]
    own_scales, data = _own_scales(model, names, shapes, affine)
    return Compiled(
        density=_density(model, shapes, affine),
        own_scales=own_scales,
        data=data,
        names=names,
        dims={name: dims for name, dims in model.named_vars_to_dims.items() if dims and name in names},
        coords={dim: pd.Index(labels) for dim, labels in model.coords.items() if labels is not None},
    )


def prior_units(model: pm.Model) -> tuple[np.ndarray, np.ndarray, list[tuple[int, ...]]]:
    """Where each variable starts on the whole line [variable], its unit there [variable], and the shapes.

    The unit is half of what the central two thirds of the prior span; that of a log or a logit is 1, since other units
    of measurement only move it.
    """
    start = list(model.initial_point().values())
    plain = [variable for variable in model.free_RVs if model.rvs_to_transforms[variable] is None]
    draws = pm.draw(plain, draws=PRIOR_DRAWS, random_seed=0, mode="FAST_COMPILE") if plain else []
    spread = {v: np.ptp(np.quantile(d, TWO_THIRDS, axis=0), axis=0) / 2 for v, d in zip(plain, draws, strict=True)}
    unit = [spread.get(variable, np.ones_like(at)) for variable, at in zip(model.free_RVs, start, strict=True)]
    return (
        np.concatenate([at.ravel() for at in start]),
        np.concatenate([size.ravel() for size in unit]),
        [at.shape for at in start],
    )


def _placed(model: pm.Model, shapes: list, affine: tuple, x) -> dict:
    """The model's variables on the whole line at x [..., variable]."""
    u = affine[0] + affine[1] * x
    ends = np.cumsum([0, *map(prod, shapes)])
    values = [model.rvs_to_values[variable] for variable in model.free_RVs]
    return {
        value: u[..., first:last].reshape((*x.shape[:-1], *shape)).astype(value.dtype)
        for value, shape, first, last in zip(values, shapes, ends, ends[1:], strict=False)
    }


def _own_scales(model: pm.Model, names: list[str], shapes: list, affine: tuple) -> tuple[Callable, dict]:
    """From draws x to what is kept, all draws at once, and the arrays of data that this needs."""
    x = pt.dmatrix("x")
    shown = {variable.name: variable for variable in model.unobserved_value_vars}
    kept = vectorize_graph([shown[name] for name in names], _placed(model, shapes, affine, x))
    data = {v: v.get_value() for v in graph_inputs(kept) if isinstance(v, SharedVariable)}
    given: dict[Any, Any] = {v: v.type() for v in data}
    return pytensor.function([x, *given.values()], clone_replace(kept, given), mode="FAST_COMPILE"), data


def _density(model: pm.Model, shapes: list, affine: tuple) -> CompiledPyMCModel:
    """The log density and its gradient, as nutpie calls them, with nothing of Python in between."""
    size = sum(map(prod, shapes))
    x = pt.TensorType("float64", shape=(size,))("x")
    stable: Any = rewrite_graph(model.logp(), include=("canonicalize", "stabilize"))
    log_density: Any = clone_replace(stable, _placed(model, shapes, affine, x))
    slope: Any = pytensor.grad(log_density, x)
    # Reordered sums would round in one way where they are compiled and in another where they are found on disk.
    with pytensor.config.change_flags(numba__fastmath=False):
        formula = pytensor.function([x], [log_density, slope], mode="NUMBA")
        arrays = [np.array(variable.get_value(), order="C") for variable in formula.get_shared()]
        in_c = _density_in_c(formula.vm.jit_fn.py_func, arrays)
    keys = {variable: str(k) for k, variable in enumerate(formula.get_shared())}
    data = dict(zip(keys.values(), arrays, strict=True))
    return CompiledPyMCModel(
        compiled_logp_func=in_c,
        compiled_expand_func=_in_c("copy", COPY, COPY_SOURCE, {}, "copy"),
        initial_point_func=lambda seed: np.random.default_rng(seed).uniform(-1, 1, size),
        shared_data=data,
        shared_var_keys=keys,
        user_data=make_user_data(keys, data),
        n_expanded=size,
        shape_info=(["x"], [slice(size)], [(size,)]),
        logp_func=None,
        expand_func=None,
        dims={},
        _n_dim=size,
        _shapes={"x": (size,)},
        _coords={},
    )


def _density_in_c(formula: Callable, data: list[np.ndarray]):
    """The compiled formula, its arrays found in nutpie's table."""
    starts = np.cumsum([2 * len(data), *(array.ndim for array in data)])
    arrays = []
    for k, (array, start) in enumerate(zip(data, starts, strict=False)):
        shape = "".join(f"word[{start + axis}], " for axis in range(array.ndim))
        arrays.append(f"carray(pointer(word[{k}]), ({shape}), np.{array.dtype.name})")
    source = DENSITY_SOURCE.format(words=starts[-1], arrays=", ".join(arrays))
    known = {"formula": numba_njit(formula), "pointer": address_as_void_pointer}
    return _in_c("density", DENSITY, source, known, CACHED_SRC_FUNCTIONS.get(formula))


def _in_c(name: str, signature, source: str, known: dict, key: str | None):
    """A function of C; kept on disk where what it calls has a key, as PyTensor keeps its own."""
    if key is not None:
        key = hashlib.sha256((key + source).encode()).hexdigest()
    known = {"np": np, "math": math, "carray": numba.carray, "__name__": __name__} | known
    function = compile_numba_function_src(source, name, known, cache_key=key)
    return numba.cfunc(signature, cache=key is not None and pytensor.config.numba__cache)(function)


def sample(model: Compiled, settings: Mapping[str, int], progressbar: bool, sampler: Mapping) -> xr.DataTree:
    """Draws [chain, draw], and how the sampler came by them.

    Parameters
    ----------
    model : Compiled
        The model.
    settings : mapping of str to int
        ``draws``, ``tune``, ``chains``, ``seed``.
    progressbar : bool
        Show the sampler's progress.
    sampler : mapping
        Options of nutpie.

    Returns
    -------
    xarray.DataTree
        Groups posterior and sample_stats.

    Raises
    ------
    KeyboardInterrupt
        If sampling was interrupted: there is no half a fit.
    """
    sizes = {name: settings[name] for name in ("draws", "tune", "chains", "seed")}
    try:
        tree = nutpie.sample(model.density, **sizes, progress_bar=progressbar, save_warmup=False, **sampler)
    except ValueError as error:
        if "no results" in str(error):  # how the sampler says that it was interrupted before its first draw
            raise KeyboardInterrupt("sampling was interrupted") from None
        raise
    if tree["posterior"].sizes.get("draw", 0) < settings["draws"]:
        raise KeyboardInterrupt("sampling was interrupted")  # the sampler returns what it has
    chains = [model.own_scales(x, *model.data.values()) for x in tree["posterior"]["x"].values]
    kept = {name: np.stack(values) for name, *values in zip(model.names, *chains, strict=True)}
    stats = tree["sample_stats"].to_dataset()
    plain = [name for name in stats if stats[name].dtype != object and set(stats[name].dims) == {"chain", "draw"}]
    return xr.DataTree.from_dict(
        {
            "posterior": dict_to_dataset(kept, coords=dict(model.coords), dims=dict(model.dims)),
            "sample_stats": stats[plain].assign(reached_max_treedepth=stats["maxdepth_reached"]),
        }
    )
