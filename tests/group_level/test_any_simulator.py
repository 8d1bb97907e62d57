"""Any smooth simulator: the density against dense quadrature, limits, gradient, draws of the discrepancy, its table."""

from functools import cache

import numpy as np
import pytensor
import pytensor.tensor as pt
import pytest
import xarray as xr
from scipy import integrate, stats

import hbm_zoo as hz
from hbm_zoo.group_level import any_simulator, any_simulator_left_out, any_simulator_rows, discrepancy_level
from hbm_zoo.group_level.any_simulator import GROUPS, PLACES
from hbm_zoo.group_level.discrepancy import APART
from hbm_zoo.models.beam import deflection

MODEL = hz.model_discrepancy.MODEL
APART_RECORD = MODEL.under(discrepancy="apart")
SMALL, _ = MODEL.simulate(np.random.default_rng(2), specimens=2, positions=(0.2, 0.5, 0.9), loads=(5.0, 10.0))
SMALL = SMALL.iloc[[0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 11]]
RANGE = {"stiffest": 150.0, "softest": 30.0}
NAMES = ("m", "s", "sigma", "a", "ell", "r")
POINTS = {
    "usual": (0.016, 0.002, 0.1, 1.3, 0.4),
    "little noise": (0.016, 0.004, 1e-3, 2.0, 0.4),
    "no discrepancy": (0.016, 0.003, 0.3, 0.0, 0.4),
    "far off": (0.012, 0.0004, 0.2, 0.3, 1.0),
    "wide": (0.02, 0.006, 2.0, 5.0, 0.2),
}


def bends(points, far=50.0):
    """A beam that is the stiffer the farther it bends [mm]."""
    d = deflection(*points[:, :-1].T) * points[:, -1]
    return d / (1 + (d / far) ** 2)


def data_of(frame=SMALL, **simulator):
    return APART_RECORD.data(frame, **simulator, **RANGE)


CURVED = data_of(simulator=bends)


def turning(points, r=None):
    """The same on a support that turns by r P L, r in rad/(N m)."""
    points, r = (points[:, :-1], points[:, -1]) if r is None else (points, r)
    turned = 1e3 * r * points[:, 1] * points[:, 2] * points[:, 0]
    d = deflection(*points[:, :-1].T) * points[:, -1] + turned
    return d / (1 + (d / 50.0) ** 2)


TURNING = data_of(simulator=turning, rig_from=0.0, rig_to=3e-3)


@cache
def turned_by(r):
    """The simulator of one parameter that it is at an r."""
    return lambda points: turning(points, r)


def h_of(*values, r=0.0):
    return xr.Dataset({name: ("sample", [value]) for name, value in zip(NAMES, (*values, r), strict=True)})


def extended(simulator, point, b):
    """What a simulator says at one point, beyond the runs in the straight lines that it ends in there."""
    low, high = 1 / RANGE["stiffest"], 1 / RANGE["softest"]
    inside, step = np.clip(b, low, high), 1e-6 * (high - low)
    at = [simulator(np.column_stack([np.tile(point, (b.size, 1)), inside + k * step])) for k in (-1, 0, 1)]
    return at[1] + (at[2] - at[0]) / (2 * step) * (b - inside)


@cache
def dense(values, simulator, which, without=None):
    """Log density of a specimen's rows, and the mean and sd of b, by quadrature of the normal density of all rows."""
    m, s, sigma, a, ell = values
    rows = SMALL[(SMALL["specimen"] == which) & (SMALL.index != without)]
    y, x, P = (rows[name].to_numpy() for name in ("deflection", "position", "load"))
    w = P / np.median(SMALL["load"]) * 2 * x
    C = np.exp(-(np.subtract.outer(x, x) ** 2) / (2 * ell**2))
    C = np.where(np.equal.outer(x, x), 1.0, (1 - APART) * C)
    V = a**2 * np.outer(w, w) * C + sigma**2 * np.eye(y.size)
    given = rows[["position", "load", "length", "width", "thickness"]].to_numpy()
    L, log_det = np.linalg.cholesky(V), np.linalg.slogdet(2 * np.pi * V)[1]
    b = np.linspace(m - 12 * s, m + 12 * s, 100_001)
    off = np.stack([y[i] - extended(simulator, given[i], b) for i in range(y.size)])
    log_f = -0.5 * ((np.linalg.solve(L, off) ** 2).sum(axis=0) + log_det) + stats.norm(m, s).logpdf(b)
    f = np.exp(log_f - log_f.max())
    total, mean = (integrate.simpson(f * g, x=b) for g in (1.0, b))
    mean /= total
    return np.log(total) + log_f.max(), mean, np.sqrt(integrate.simpson(f * (b - mean) ** 2, x=b) / total)


@pytest.mark.parametrize("name", POINTS)
def test_the_density_and_what_is_known_of_a_group_are_dense_quadrature(name):
    data, h = CURVED, h_of(*POINTS[name])
    found, after = any_simulator.log_left_out(h, data), any_simulator.conditional(h, data)
    for j, which in enumerate(("S1", "S2")):
        log_density, mean, sd = dense(POINTS[name], bends, which)
        assert found.values[0, j] == pytest.approx(log_density, rel=1e-9, abs=1e-6)
        assert after.mean.values[0, j] == pytest.approx(mean, rel=1e-7)
        assert after.sd.values[0, j] == pytest.approx(sd, rel=1e-5)


@pytest.mark.parametrize("r", [0.2e-3, 1.7e-3])
def test_at_a_second_parameter_a_simulator_is_that_of_one(r):
    """The density, what is known of b, and a row given all others, by dense quadrature at r.

    Within three of the standard errors that the table is said to make.
    """
    values, h = POINTS["usual"], h_of(*POINTS["usual"], r=r)
    found, after = any_simulator.log_left_out(h, TURNING), any_simulator.conditional(h, TURNING)
    error = any_simulator.integration_error(h, TURNING).values[0]
    assert (error < 1e-3).all()
    for j, which in enumerate(("S1", "S2")):
        log_density, mean, sd = dense(values, turned_by(r), which)
        assert found.values[0, j] == pytest.approx(log_density, abs=3 * error[j] + 1e-6)
        assert after.mean.values[0, j] == pytest.approx(mean, rel=1e-5)
        assert after.sd.values[0, j] == pytest.approx(sd, rel=1e-4)
    exact = dense(values, turned_by(r), "S1")[0] - dense(values, turned_by(r), "S1", SMALL.index[4])[0]
    assert any_simulator_left_out.leave_row_out(h, TURNING, np.array([4])).item() == pytest.approx(
        exact, abs=3 * error[0] + 1e-6
    )
    b, given = 0.0161, SMALL[["position", "load", "length", "width", "thickness"]].assign(b=0.0161).to_numpy()
    np.testing.assert_allclose(
        any_simulator.simulated(b, h, TURNING).squeeze(), turning(given, r), atol=TURNING.attrs["table_error"]
    )


def test_one_specimen_under_a_linear_simulator_is_the_exact_linear_model():
    one = SMALL[SMALL["specimen"] == "S1"]
    linear, tabled = MODEL.data(one), data_of(one)
    for values in POINTS.values():
        h = h_of(*values)
        exact, found = (
            f(h, d) for f, d in ((discrepancy_level.log_joint, linear), (any_simulator.log_left_out, tabled))
        )
        np.testing.assert_allclose(found.squeeze(), exact.squeeze(), atol=1e-7)
        exact, found = discrepancy_level.conditional(h, linear), any_simulator.conditional(h, tabled)
        np.testing.assert_allclose(found.mean, exact.mean, rtol=1e-8)
        np.testing.assert_allclose(found.sd, exact.sd, rtol=1e-6)
        exact, found = discrepancy_level.rig(h, linear), any_simulator.rig(h, tabled)
        np.testing.assert_allclose(found.mean, exact.mean, rtol=1e-6, atol=1e-9)
        np.testing.assert_allclose(found.sd, exact.sd, rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("name", POINTS)
def test_a_row_given_all_others_is_dense_quadrature_with_it_and_without(name, monkeypatch):
    """By the one table of its group, and by the integral of the group without it."""
    h, rows = h_of(*POINTS[name]), np.array([9, 4])
    exact = [
        dense(POINTS[name], bends, which)[0] - dense(POINTS[name], bends, which, label)[0]
        for label, which in SMALL["specimen"].iloc[rows].items()
    ]
    tails = any_simulator_left_out.row_tails(h, CURVED, rows)
    for at_ends in (any_simulator_left_out.AT_ENDS, 0.0):
        monkeypatch.setattr(any_simulator_left_out, "AT_ENDS", at_ends)
        found = any_simulator_left_out.leave_row_out(h, CURVED, rows)
        assert found.dims == ("sample", "row")
        np.testing.assert_allclose(found.values[0], exact, rtol=1e-7, atol=3e-6)
        for tail, again in zip(tails, any_simulator_left_out.row_tails(h, CURVED, rows), strict=True):
            np.testing.assert_allclose(tail, again, rtol=1e-5, atol=1e-12)


def test_rows_of_one_specimen_under_a_linear_simulator_are_the_exact_linear_model():
    one = SMALL[SMALL["specimen"] == "S1"]
    linear, tabled, rows = MODEL.data(one), data_of(one), np.arange(len(one))
    for values in POINTS.values():
        h = h_of(*values)
        found = any_simulator_left_out.leave_row_out(h, tabled, rows)
        np.testing.assert_allclose(found, discrepancy_level.leave_row_out(h, linear, rows), rtol=1e-6, atol=1e-6)
        away, precision = discrepancy_level.given_others(h, linear, rows)
        score, tails = (away * np.sqrt(precision)).values, any_simulator_left_out.row_tails(h, tabled, rows)
        for side, tail in zip((1, -1), tails, strict=True):
            np.testing.assert_allclose(tail, stats.norm.cdf(side * score), rtol=1e-4, atol=1e-12)


def test_data_without_a_row_are_those_of_the_frame_without_it():
    without = any_simulator_rows.without_row(CURVED, 3)
    given = data_of(SMALL.drop(SMALL.index[3]), simulator=bends, typical_load=CURVED.attrs["typical_load"])
    for name in ("n", "towards", "beside", "V", "b_hat"):
        np.testing.assert_allclose(without[name], given[name], atol=1e-9, err_msg=name)
    h = h_of(*POINTS["usual"])
    left = any_simulator.log_left_out(h, CURVED).sum() - any_simulator.log_left_out(h, without).sum()
    given_others = any_simulator_left_out.leave_row_out(h, CURVED, np.array([3])).item()
    assert float(left) == pytest.approx(given_others, abs=1e-6)


def test_specimens_that_are_alike_are_exactly_at_m():
    data = CURVED
    h = h_of(0.016, 0.0, 0.1, 1.3, 0.4)
    b = h.m * xr.ones_like(data.n)
    level = any_simulator.log_likelihood(b, h, data)
    np.testing.assert_allclose(any_simulator.log_left_out(h, data), level, rtol=1e-12)
    near = any_simulator.log_left_out(h.assign(s=h.s + 1e-9), data)
    np.testing.assert_allclose(near, level, atol=1e-4)
    assert (any_simulator.conditional(h, data).sd == 0).all()
    assert (any_simulator.reliability(h, data) == 0).all()


def test_candidate_s_formula():
    """Log p(b | h) + log p(y | b, h) - log p(b | y, h) = log p(y | h)."""
    data, h = CURVED, h_of(*POINTS["usual"])
    after = any_simulator.conditional(h, data)
    for b in (after.mean, after.mean + 1.3 * after.sd):
        before = xr.apply_ufunc(stats.norm.logpdf, b, h.m, h.s)
        rest = before + any_simulator.log_likelihood(b, h, data) - after.log_density(b)
        np.testing.assert_allclose(rest, any_simulator.log_left_out(h, data), atol=1e-6)


def test_what_is_sampled_is_what_is_asked_and_has_its_gradient():
    data = TURNING
    arrays = [data[name].transpose("specimen", *dims).values for name, dims in GROUPS.items()]
    arrays += [data[name].values for name in PLACES]
    h = [pt.dscalar(name) for name in NAMES]
    log_p = any_simulator.log_density(None, *map(pt.as_tensor, arrays), *h)
    f = pytensor.function(h, [log_p.sum(), *pt.grad(log_p.sum(), h)], mode="AS_WRITTEN")
    for name in ("usual", "far off"):
        values = np.array([*POINTS[name], 1.3e-3])
        level, *gradient = f(*values)

        def at(h, data=data):
            return float(any_simulator.log_left_out(h_of(*h[:-1], r=h[-1]), data).sum())

        assert float(level) == pytest.approx(at(values), rel=1e-10)
        for k, size in enumerate(values):
            ahead, behind = (at(values + side * 1e-5 * size * np.eye(6)[k]) for side in (1, -1))
            assert gradient[k] * size == pytest.approx((ahead - behind) / 2e-5, rel=1e-4, abs=1e-5)


def test_discrepancies_and_realities_are_drawn_as_they_are_known():
    """Mean and sd of v over draws of b and v are those of `rig`; a reality between the sensors has all its parts."""
    data, h = data_of(SMALL[SMALL["specimen"] == "S1"], simulator=bends), h_of(*POINTS["usual"])
    many, rng = h.isel(sample=np.zeros(4_000, int)), np.random.default_rng(4)
    b = any_simulator.conditional(many, data).over(xr.ones_like(many.m)).sample(rng)
    v = any_simulator.discrepancies(rng, b, many, data).isel(specimen=0)
    known = any_simulator.rig(h, data)
    assert (abs(v.mean("sample") - known.mean[0]) < 4.5 * known.sd[0] / np.sqrt(4_000)).all()
    np.testing.assert_allclose(v.std("sample"), known.sd[0], rtol=0.06)
    F, of_v = any_simulator.realities(rng, b, many, data, data)
    y = (F + of_v).mean("sample").values
    assert (abs(y - data["deflection"].values) < 4 * 0.1).all()
    there = any_simulator.simulated(b.isel(specimen=0), many, data)
    np.testing.assert_allclose(F.std("sample"), there.std("sample"))


def test_the_table_is_the_simulator_and_knows_its_error():
    data = data_of(simulator=lambda points: bends(points, far=15.0))
    ends, given = data["ends"].values, SMALL[["position", "load", "length", "width", "thickness"]].to_numpy()
    b = np.linspace(*ends, 23)
    said = any_simulator_rows.at(data["said"].values, b, ends, np.zeros(1), (-1, 1))[..., 0]
    there = np.stack([bends(np.column_stack([given, np.full(len(given), one)]), 15.0) for one in b], axis=1)
    assert 1e-6 < abs(said - there).max() < 1.5 * data.attrs["table_error"] < 1e-2
    assert CURVED.attrs["table_error"] < 1e-7


def test_what_the_table_is_off_is_in_the_error_of_the_density():
    """As by readings that are off by as much, each one way or the other: the sd of the log density over these."""
    h, rng, found = h_of(*POINTS["usual"]), np.random.default_rng(6), []
    said = any_simulator.integration_error(h, CURVED.assign_attrs(table_error=1e-4))
    for _ in range(60):
        off = CURVED["deflection"].values + 1e-4 * rng.choice([-1, 1], CURVED.sizes["row"])
        found.append(any_simulator.log_left_out(h, any_simulator_rows.with_readings(CURVED, off)).values[0])
    np.testing.assert_allclose(np.std(found, axis=0), said.values[0], rtol=0.3)
    assert (any_simulator.integration_error(h, CURVED) < 1e-5).all()


def test_beyond_the_runs_the_simulator_goes_on_in_a_straight_line():
    ends = np.array([0.01, 0.03])
    t = any_simulator.polynomials(np.array([0.029, 0.03, 0.031, 0.032, 0.01, 0.009, 0.008]), ends, np)
    np.testing.assert_allclose(t[3] - t[2], t[2] - t[1], atol=1e-6)
    np.testing.assert_allclose(t[6] - t[5], t[5] - t[4], atol=1e-6)
    k = np.arange(any_simulator_rows.POWERS)
    np.testing.assert_allclose(t[2] - t[1], 0.1 * k**2, atol=1e-6)


def test_a_group_that_is_alone_is_left_out_to_its_prior():
    one, h = SMALL[SMALL["specimen"] == "S1"], h_of(*POINTS["usual"])
    for record in (MODEL, MODEL.under(discrepancy="none"), APART_RECORD):
        level, data = record.group_level, record.data(one)
        others = level.without_group(data, "specimen", 0)
        assert others["specimen"].values.tolist() == ["S1"]
        np.testing.assert_allclose(level.log_joint(h, others), 0, atol=1e-12)
        np.testing.assert_allclose(level.conditional(h, others).sd.squeeze(), h.s.squeeze(), rtol=1e-6)
    both = APART_RECORD.group_level.without_group(CURVED, "specimen", 0)
    np.testing.assert_allclose(
        any_simulator.log_left_out(h, both), any_simulator.log_left_out(h, CURVED).isel(specimen=[1])
    )
