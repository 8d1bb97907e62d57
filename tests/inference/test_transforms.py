"""The scale of a spread: SciPy's quantiles, its Jacobian, and the same density on either scale."""

import numpy as np
import pymc as pm
import pytensor
import pytensor.tensor as pt
import pytest
from scipy import stats

from hbm_zoo.inference.transforms import HalfNormalToNormal, normal_tails

SCALE = 1.7


@pytest.fixture(scope="module")
def at():
    """Spread, its way back, log Jacobian, and the derivative of the spread, on a grid of the line."""
    x = pt.dvector()
    transform, given = HalfNormalToNormal(), (None, None, 0.0, SCALE)
    spread = transform.backward(x, *given)
    back, jacobian = transform.forward(spread, *given), transform.log_jac_det(x, *given)
    grid = np.array([-30, -9, -3, -0.5, 0, 0.5, 3, 9, 30.0])
    found = pytensor.function([x], [spread, back, jacobian, pytensor.grad(spread.sum(), x)])(grid)
    return grid, *found


def test_the_probability_below_is_the_same(at):
    x, spread, back, _, _ = at
    np.testing.assert_allclose(spread[x > -9], stats.halfnorm.isf(stats.norm.sf(x[x > -9]), scale=SCALE), rtol=1e-12)
    np.testing.assert_allclose(stats.halfnorm.logcdf(spread, scale=SCALE), stats.norm.logcdf(x), rtol=1e-12)
    np.testing.assert_allclose(back, x, atol=1e-13)


def test_the_jacobian_is_the_derivative(at):
    *_, jacobian, derivative = at
    np.testing.assert_allclose(jacobian, np.log(derivative), atol=1e-12)


def test_only_half_normal_variables_move_and_the_density_stays():
    with pm.Model() as model:
        pm.HalfNormal("tau", SCALE)
        pm.LogNormal("mu")
        pm.Exponential("rate", 1)
    moved = normal_tails(model)
    assert {v.name for v in moved.value_vars} == {"tau_normal__", "mu_log__", "rate_log__"}
    with_jacobian, without = (moved.compile_logp(vars=[moved["tau"]], jacobian=j) for j in (True, False))
    for x in (-2.0, 0.4, 3.0):
        point = moved.initial_point() | {"tau_normal__": x}
        spread = stats.halfnorm.isf(stats.norm.sf(x), scale=SCALE)
        assert with_jacobian(point) == pytest.approx(stats.norm.logpdf(x), rel=1e-10)
        assert without(point) == pytest.approx(stats.halfnorm.logpdf(spread, scale=SCALE), rel=1e-10)


def test_a_model_without_half_normal_variables_is_left_alone():
    with pm.Model() as model:
        pm.LogNormal("mu")
    assert normal_tails(model) is model
