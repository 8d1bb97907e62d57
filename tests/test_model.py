"""The record refuses what no formula of the package understands."""

import numpy as np
import pytest

from hbm_zoo.fields import Parameter


@pytest.mark.parametrize("support", [(-np.inf, np.inf), (0, np.inf), (2.0, np.inf), (-1, 1)])
def test_a_support_is_the_line_a_half_or_an_interval(support):
    assert Parameter("of the test", support).support == support


@pytest.mark.parametrize("support", [(-np.inf, 0), (1, 1), (2, 1), (np.nan, 1)])
def test_another_support_is_refused(support):
    with pytest.raises(ValueError, match=r"A support is \(-inf, inf\), \(low, inf\) or \(low, high\)"):
        Parameter("of the test", support)
