"""A network's solution as an operation of PyTensor: any network, solved by NumPy, all modules in one call.

Its gradient is that of central differences, all of them in one call, too: exact to about eight digits of a formula,
to three of what is solved by steps, where a simulator cannot be differentiated.
"""

from __future__ import annotations

import warnings

import numpy as np
import pytensor.tensor as pt
from pytensor.graph.basic import Apply
from pytensor.graph.op import Op
from pytensor.graph.replace import _vectorize_node
from pytensor.link.numba.dispatch.basic import generate_fallback_impl, numba_funcify

from hbm_zoo.group_level.equations import Equations
from hbm_zoo.group_level.network import Network
from hbm_zoo.group_level.solutions import solution

#: Of the differences, on the log of a rate: of a formula, and of a solution by steps.
STEP, OF_STEPS = 1e-4, 3e-3


class Amounts(Op):
    """How much there is [..., module, instant, species], from log rates [..., module, rate]."""

    __props__ = ("network",)

    def __init__(self, network: Network | Equations):
        self.network = network

    def make_node(self, theta, start, time):
        """Log rates, what there is at time 0 [module, species], and times [module, instant]."""
        inputs = [pt.as_tensor(value).astype("float64") for value in (theta, start, time)]
        return Apply(self, inputs, [pt.tensor(dtype="float64", shape=(None,) * (inputs[0].ndim + 1))])

    def perform(self, node, inputs, outputs):
        theta, start, time = inputs
        with np.errstate(over="ignore"):
            outputs[0][0] = np.asarray(solution(self.network, np.exp(theta), start, time))

    def infer_shape(self, node, shapes):
        """The shape of log rates but their own, instants, species."""
        theta, _, time = shapes
        return [(*theta[:-1], time[-1], len(self.network.species))]

    def pullback(self, inputs, outputs, cotangents):
        """Towards log rates only: times and beginnings are data."""
        theta, start, time = inputs
        h = STEP if self.network.linear else OF_STEPS
        here, step = theta[..., None, :, :], h * pt.eye(len(self.network.rates))[:, None, :]
        up, down = self(here + step, start, time), self(here - step, start, time)
        slope = ((up - down) * cotangents[0][..., None, :, :, :]).sum(axis=(-2, -1)) / (2 * h)
        return [pt.moveaxis(slope, -2, -1), pt.zeros_like(start), pt.zeros_like(time)]


@_vectorize_node.register(Amounts)
def _many(op, node, *batched):
    """Many points at once are one call."""
    return op.make_node(*batched)


@numba_funcify.register(Amounts)
def _called_back(op, node=None, **_):
    """Compiled code calls NumPy, which is as it should be and no reason for a warning."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return generate_fallback_impl(op, node)
