"""A group level says what it is given, and nothing is dropped in silence."""

import pytest
import xarray as xr

from hbm_zoo.group_level import level
from hbm_zoo.group_level.level import Level, closed_form

FORMULAS = {
    "population": lambda h: h,
    "conditional": lambda h, data: h,
    "log_marginal": lambda h, data: h.mu + 0 * data.y,
    "log_likelihood": lambda theta, h, data: theta,
}


def test_what_is_given_beside_the_formulas_is_kept():
    above = Level(**dict.fromkeys(Level.__dataclass_fields__))
    made = closed_form(**FORMULAS, further=(above,), estimand=abs, leave_row_out=lambda h, data, rows: h.mu + rows)
    assert made.further == (above,)
    assert made.estimand is abs
    assert made.leave_row_out(xr.Dataset({"mu": 1.0}), xr.Dataset(), 2) == 3.0


@pytest.mark.parametrize("wrong", [{"expected_loglikelihood": abs}, {"independent": False}, {"log_joint": abs}])
def test_what_no_closed_form_has_is_refused(wrong):
    with pytest.raises(TypeError, match=next(iter(wrong))):
        closed_form(**FORMULAS, **wrong)


def test_what_is_missing_is_missing_by_name():
    assert closed_form(**FORMULAS).replicate is None
    assert "replicate" in level.MISSING
    with pytest.raises(TypeError, match="log_likelihood"):
        closed_form(**{name: formula for name, formula in FORMULAS.items() if name != "log_likelihood"})
