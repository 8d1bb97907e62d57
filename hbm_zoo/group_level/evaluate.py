"""Evaluate a PyTensor formula on labelled arrays: one formula, two uses."""

from collections.abc import Callable
from functools import cache

import numpy as np
import pytensor.tensor as pt
import xarray as xr
from pytensor import function
from pytensor.graph.op import HasInnerGraph
from pytensor.graph.traversal import toposort
from pytensor.tensor.elemwise import Elemwise

#: Operations of a formula, and cells of one evaluation, that are worth compiling together.
LONG, MANY_CELLS = 60, 200_000


def evaluate(formula: Callable, *arguments):
    """Apply an elementwise PyTensor formula to DataArrays, broadcasting by name.

    The formula that the sampler differentiates is the one that the diagnostics evaluate, so the two cannot disagree.
    What depends on some of the dims only is computed once for them. A formula that holds a search for its nodes is
    worth compiling, 5 s once on a machine, for 2 instead of 20 microseconds a cell: once for cells of any dims. So is a
    long one of many cells, for 40 instead of 400 nanoseconds, and one that NumPy has no function for, which would be
    computed number by number.
    """
    arguments = xr.align(*map(xr.DataArray, arguments), join="outer", copy=False)
    template = xr.broadcast(*arguments)[0]
    arrays = [_spread(a, template.dims) for a in arguments]
    searches, slow = _kind(formula, len(arrays))
    shapes = tuple(tuple(1 if n == 1 else None for n in a.shape) for a in arrays)
    if searches:
        arrays = [np.broadcast_to(array, template.shape).ravel() for array in arrays]
        shapes = ((None,),) * len(arrays)
    values = _compiled(formula, shapes, searches or (slow and template.size >= MANY_CELLS))(*arrays)
    values = values.reshape(template.shape) if searches else np.broadcast_to(values, template.shape)
    return template.copy(data=values.copy())


def _spread(argument: xr.DataArray, dims: tuple) -> np.ndarray:
    """The values with an axis for each of the dims, of length 1 where they do not depend on it."""
    values = argument.transpose(*(dim for dim in dims if dim in argument.dims)).values.astype(float)
    return np.expand_dims(values, tuple(i for i, dim in enumerate(dims) if dim not in argument.dims))


@cache
def _kind(formula: Callable, arguments: int) -> tuple[bool, bool]:
    """Whether a formula holds a search, and whether it is long, or has steps that NumPy does not know."""
    steps = list(toposort([formula(*(pt.dvector() for _ in range(arguments)))]))
    scalars = [step.op.scalar_op for step in steps if isinstance(step.op, Elemwise)]
    one_by_one = any(getattr(scalar, "nfunc_spec", None) is None for scalar in scalars)
    return any(isinstance(step.op, HasInnerGraph) for step in steps), one_by_one or len(steps) > LONG


@cache
def _compiled(formula: Callable, shapes: tuple[tuple[int | None, ...], ...], together: bool = False) -> Callable:
    inputs = [pt.tensor(shape=shape, dtype="float64") for shape in shapes]
    mode = "FAST_RUN" if together else "FAST_COMPILE"
    return function(inputs, formula(*inputs), mode=mode, on_unused_input="ignore")
