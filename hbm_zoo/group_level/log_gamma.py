"""How far the log density of the log of a gamma falls away from its top: q(s) = e^s - 1 - s, times its shape.

PyTensor formulas. Precisions and variances of normals have it, seen on the log scale.
"""

import pytensor.tensor as pt

NEWTON = 3


def lost(s):
    """q(s), by its series near 0."""
    near = pt.abs(s) < 1e-2
    small, large = pt.switch(near, s, 0.0), pt.switch(near, 1.0, s)
    series = small**2 / 2 * (1 + small / 3 * (1 + small / 4 * (1 + small / 5 * (1 + small / 6))))
    return pt.switch(near, series, pt.expm1(large) - large)


def to_the_left(c):
    """No less than the x > 0 with q(-x) = c: Newton's method on a convex function, from above.

    Examples
    --------
    >>> x = to_the_left(pt.as_tensor(3.0))
    >>> round(lost(-x).eval().item(), 6)
    3.0
    """
    x = c + pt.sqrt(2 * c)
    for _ in range(NEWTON):
        x = x + (lost(-x) - c) / pt.expm1(-x)
    return x


def to_the_right(c):
    """No less than the x > 0 with q(x) = c.

    Examples
    --------
    >>> x = to_the_right(pt.as_tensor(3.0))
    >>> bool((lost(x) >= 3.0).eval())
    True
    """
    x = pt.sqrt(2 * c)
    for _ in range(NEWTON):
        x = pt.minimum(x, pt.log1p(c + x))
    return x
