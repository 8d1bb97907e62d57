"""Elementary functions that stay exact, gradient included, where the textbook form cancels."""

import numpy as np
import pytensor.tensor as pt


def log1p_ratio_minus_one(x, log1p_x):
    """log(1 + x) / x - 1 from x and log(1 + x), by its series for |x| < 1e-3; 0 at x = 0."""
    small = pt.abs(x) < 1e-3
    # Both branches of a switch are differentiated: keep each finite everywhere.
    near, far = pt.switch(small, x, 0.0), pt.switch(small, 1.0, x)
    series = -near * (1 / 2 - near * (1 / 3 - near * (1 / 4 - near * (1 / 5 - near / 6))))
    return pt.switch(small, series, log1p_x / far - 1)


def log1p_ratio(x, log1p_x):
    """log(1 + x) / x from x and log(1 + x); beyond 1 without the difference of two numbers near 1 that loses all."""
    far = x > 1
    return pt.switch(far, log1p_x / pt.switch(far, x, 1.0), 1 + log1p_ratio_minus_one(pt.switch(far, 1.0, x), log1p_x))


def stirling_tail(y):
    """Log Gamma(1/y) minus Stirling's leading terms, as a series in y = 1/shape.

    Abramowitz & Stegun (1964), equation 6.1.41; below 1e-9 for y < 0.06.
    """
    z = y * y
    return y * (1 / 12 - z * (1 / 360 - z * (1 / 1260 - z / 1680)))


def log_Phi(z):
    """Log of the standard normal distribution function, to the far left too."""
    left = z < -1.0
    x = z / np.sqrt(2.0)
    near, far = pt.switch(left, 0.0, x), pt.switch(left, x, -1.0)
    return pt.switch(left, pt.log(pt.erfcx(-far) / 2) - far**2, pt.log1p(-pt.erfc(near) / 2))
