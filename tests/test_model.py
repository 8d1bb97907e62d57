"""The record refuses what no formula of the package understands."""

from dataclasses import replace

import numpy as np
import pytest

import hbm_zoo as hz
from hbm_zoo.fields import Parameter


@pytest.mark.parametrize("support", [(-np.inf, np.inf), (0, np.inf), (2.0, np.inf), (-1, 1)])
def test_a_support_is_the_line_a_half_or_an_interval(support):
    assert Parameter("of the test", support).support == support


@pytest.mark.parametrize("support", [(-np.inf, 0), (1, 1), (2, 1), (np.nan, 1)])
def test_another_support_is_refused(support):
    with pytest.raises(ValueError, match=r"A support is \(-inf, inf\), \(low, inf\) or \(low, high\)"):
        Parameter("of the test", support)


def test_a_record_that_was_replaced_stays_so_under_the_options_that_it_has():
    """A planted error in a record of an option was lost, and calibration of it saw none."""
    record = hz.tissue_expression.MODEL.under(population="student-t")
    planted = replace(record, group_level=replace(record.group_level, population=None))
    assert planted.under() is planted
    assert planted.split({"population": "student-t"})[0].group_level.population is None
    assert planted.under(population="normal") is hz.tissue_expression.MODEL.under(population="normal")
