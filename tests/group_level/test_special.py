"""Elementary functions, and their gradients, against NumPy and SciPy."""

import numpy as np
import pytensor
import pytensor.tensor as pt
from pytensor.tensor.elemwise import Elemwise
from scipy.special import expit

from hbm_zoo.group_level.special import log1p_exp

X = np.array([-800.0, -40.0, -1.0, -1e-9, 0.0, 1e-9, 1.0, 40.0, 800.0])


def test_log1p_exp_and_its_gradient_wherever_x_lies():
    x = pt.dvector("x")
    value = log1p_exp(x)
    f = pytensor.function([x], [value, pytensor.grad(value.sum(), x)], mode="FAST_COMPILE")
    found, slope = f(X)
    np.testing.assert_allclose(found, np.logaddexp(0, X), rtol=1e-15, atol=2e-16)
    np.testing.assert_allclose(slope, expit(X), atol=2e-16)


def test_it_is_not_computed_number_by_number():
    """What NumPy has no function for is."""
    x = pt.dvector("x")
    f = pytensor.function([x], log1p_exp(x), mode="FAST_COMPILE")
    steps = [node.op.scalar_op for node in f.maker.fgraph.apply_nodes if isinstance(node.op, Elemwise)]
    assert all(getattr(step, "nfunc_spec", None) for step in steps), steps
