"""Compressed sums against exactly rounded ones, and the joint density against its groups."""

import math

import numpy as np
import pytensor
import pytensor.tensor as pt
import pytest
import xarray as xr

from hbm_zoo.group_level import poisson_gamma
from hbm_zoo.group_level.compression import NODES, compress
from hbm_zoo.group_level.evaluate import evaluate


def points_like_hospitals(rng):
    return np.exp(rng.normal(3, 2, 4_000)), rng.poisson(20, (2, 4_000)).astype(float)


@pytest.mark.parametrize("t", [1e-16, 1e-9, 1e-3, 0.3, 10.0, 1e6])
def test_sums_of_the_logarithm_keep_every_digit(t):
    points, weights = points_like_hospitals(np.random.default_rng(1))
    nodes, few = compress(points, weights)
    assert nodes.size < points.size / 10
    for long, short in zip(weights, few, strict=True):
        exact = math.fsum(long * np.log1p(t * points))
        assert math.fsum(short * np.log1p(t * nodes)) == pytest.approx(exact, rel=2e-15)
        slope = math.fsum(long * points / (1 + t * points))
        assert math.fsum(short * nodes / (1 + t * nodes)) == pytest.approx(slope, rel=1e-13)


def test_few_points_and_equal_points_stay():
    points = np.array([0.2, 3.0, 3.5, 900.0])
    nodes, weights = compress(points, np.arange(4.0))
    np.testing.assert_array_equal(np.sort(nodes), points)
    assert weights.sum() == 6
    nodes, weights = compress(np.full(40, 7.0), np.ones(40))
    assert nodes.size == NODES
    assert weights @ np.log1p(3 * nodes) == pytest.approx(40 * np.log1p(21), rel=1e-14)
    assert compress(np.array([]), np.array([]))[0].size == 0


@pytest.fixture(scope="module")
def joint():
    """The joint log density and its gradient in mu and cv, of the compressed data."""
    vectors = [pt.dvector() for _ in range(5)]
    constant, mu, cv = pt.dscalar(), pt.dscalar(), pt.dscalar()
    value = poisson_gamma.log_joint(*vectors, constant, mu, cv)
    function = pytensor.function([*vectors, constant, mu, cv], [value, *pytensor.grad(value, [mu, cv])])
    return lambda O, E, mu, cv: [float(x) for x in function(*poisson_gamma.sufficient(O, E).values(), mu, cv)]


def last_digit(O):
    """What rounding does to a sum whose terms are of size O log O."""
    return 1e-9 + 1e-15 * float((O * np.log1p(O)).sum())


@pytest.mark.parametrize("median", [0.5, 5.0, 1_000.0])
@pytest.mark.parametrize("cv", [0.0, 1e-8, 1e-4, 0.05, 0.3, 2.0])
def test_the_joint_density_is_the_sum_over_groups(joint, median, cv):
    rng = np.random.default_rng(2)
    E = median * np.exp(rng.standard_normal(1_000))
    O = rng.poisson(E * rng.gamma(25, 1 / 25, E.size))
    frame = [xr.DataArray(v, dims="j") for v in (O, E)]
    each = evaluate(poisson_gamma.log_marginal, *frame, 1.07, cv).values
    value, in_mu, in_cv = joint(O, E, 1.07, cv)
    assert value == pytest.approx(math.fsum(each), abs=last_digit(O))
    v = cv**2
    assert in_mu == pytest.approx(math.fsum((O - 1.07 * E) / (1.07 * (1 + v * 1.07 * E))), rel=1e-10, abs=1e-7)
    if cv >= 1e-4:
        step = 1e-4 * cv
        ends = [math.fsum(evaluate(poisson_gamma.log_marginal, *frame, 1.07, cv + d).values) for d in (-step, step)]
        assert in_cv == pytest.approx((ends[1] - ends[0]) / (2 * step), rel=1e-5, abs=1e-3)


@pytest.mark.parametrize("O", [[0, 0, 0], [0, 1, 0], [1, 1, 1], [2, 0, 10**6]])
def test_counts_at_the_edge(joint, O):
    O, E = np.array(O), np.array([0.3, 1.0, 2e6])
    each = evaluate(poisson_gamma.log_marginal, xr.DataArray(O, dims="j"), xr.DataArray(E, dims="j"), 0.9, 0.4)
    assert joint(O, E, 0.9, 0.4)[0] == pytest.approx(float(each.sum()), abs=last_digit(O))
