"""Elementary functions against NumPy and SciPy, with their first two derivatives."""

import numpy as np
import pytensor
import pytensor.tensor as pt
from scipy import special

from hbm_zoo.group_level.special import softplus


def test_softplus_is_exact_with_its_derivatives():
    x = pt.dvector()
    f = softplus(x)
    slope = pytensor.grad(f.sum(), x)
    found = pytensor.function([x], [f, slope, pytensor.grad(slope.sum(), x)])(
        at := np.array([-700, -40, -3, 0, 2, 36, 38, 700.0])
    )
    p = special.expit(at)
    expected = np.logaddexp(0, at), p, p * special.expit(-at)
    for one, other in zip(found, expected, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-12, atol=2e-16)
