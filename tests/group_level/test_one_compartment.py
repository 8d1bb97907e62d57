"""One compartment: against ordinary differential equations and textbook forms, where rates meet, superposition."""

from decimal import Decimal, getcontext

import numpy as np
import pytensor
import pytensor.tensor as pt
import pytest
from scipy.integrate import solve_ivp

from hbm_zoo.group_level.one_compartment import course, g, intravenous, oral

TIMES = np.array([0.0, 0.5, 1.0, 3.0, 6.0, 10.0, 26.0])
DOSES = np.array([0.0, 4.0, 9.0]), np.array([100.0, 60.0, 80.0]), np.array([2.0, 0.0, 3.0])


def integrated(CL, V, ka=None):
    """Concentrations after the doses by an ODE solver, restarted at each change."""
    start, amount, duration = DOSES
    duration = np.zeros(3) if ka else duration
    changes = np.unique([0.0, *start, *(start + duration), 30.0])
    state, found = np.zeros(2), np.zeros(TIMES.size)
    for begin, end in zip(changes[:-1], changes[1:], strict=True):
        bolus = amount[(start == begin) & (duration == 0)].sum()
        state = state + (np.array([bolus, 0]) if ka else np.array([0, bolus]))
        rate = (amount / np.where(duration > 0, duration, 1))[
            (duration > 0) & (start <= begin) & (begin < start + duration)
        ].sum()
        absorbed = ka or 0.0

        def change(t, y, absorbed=absorbed, rate=rate):
            return [-absorbed * y[0], absorbed * y[0] + rate - CL / V * y[1]]

        inside = (TIMES > begin) & (TIMES <= end)
        solved = solve_ivp(change, (begin, end), state, rtol=1e-10, atol=1e-12, dense_output=True)
        found[inside], state = solved.sol(TIMES[inside])[1], solved.y[:, -1]
    return found / V


@pytest.mark.parametrize("ka", [0.02, 0.1, 1.7, None])
def test_any_history_of_doses_is_what_the_differential_equations_say(ka):
    start, amount, duration = DOSES
    courses = course(TIMES[:, None], start, amount, np.zeros(3) if ka else duration)
    found = oral(*courses, 2.0, 20.0, ka) if ka else intravenous(*courses, 2.0, 20.0)
    np.testing.assert_allclose(found.sum(axis=-1), integrated(2.0, 20.0, ka), rtol=1e-7, atol=1e-9)


@pytest.mark.parametrize("apart", [0.0, 1e-12, 1e-7, 1e-5, 1e-3, 0.5])
def test_oral_is_the_bateman_function_where_rates_meet(apart):
    """Against 50 digits, on both sides."""
    getcontext().prec = 50
    ke, t = Decimal(1) / 10, Decimal(7)
    for ka in (ke + Decimal(apart), ke - Decimal(apart) / 10):
        exact = t * (-ke * t).exp() if ka == ke else ((-ke * t).exp() - (-ka * t).exp()) / (ka - ke)
        found = oral(100.0, 7.0, 0.0, 2.0, 20.0, float(ka))
        assert found == pytest.approx(float(100 * ka / 20 * exact), rel=1e-12)


def test_g_is_smooth_at_its_seam():
    x = np.array([0.0, 0.9999e-5, 1.0001e-5, 1e-3, 1.0, 800.0])
    exact = [1.0, *(float((1 - (-Decimal(v)).exp()) / Decimal(v)) for v in x[1:])]
    np.testing.assert_allclose(g(x), exact, rtol=1e-10)


def test_pytensor_has_the_same_curve_and_a_finite_gradient():
    theta = pt.dvector("theta")
    courses = [value[3] for value in course(TIMES[:, None], *DOSES)]
    for curve, logs in ((oral, [0.7, 3.0, 0.7 - 3.0]), (oral, [0.7, 3.0, 0.4]), (intravenous, [0.7, 3.0])):
        values = [pt.exp(theta[k]) for k in range(len(logs))]
        total = curve(*courses, *values, xp=pt).sum()
        value, gradient = pytensor.function([theta], [total, pytensor.grad(total, theta)], mode="AS_WRITTEN")(logs)
        assert value == pytest.approx(curve(*courses, *np.exp(logs)).sum(), rel=1e-12)
        steps = 1e-6 * np.eye(len(logs))
        differences = [
            curve(*courses, *np.exp(logs + s)).sum() - curve(*courses, *np.exp(logs - s)).sum() for s in steps
        ]
        np.testing.assert_allclose(gradient, np.array(differences) / 2e-6, rtol=1e-5, atol=1e-7)


def test_a_short_infusion_is_a_bolus_and_a_fast_absorption_too():
    bolus = intravenous(*course(TIMES, 0.0, 100.0, 0.0), 2.0, 20.0)
    short = intravenous(*course(TIMES, 0.0, 100.0, 1e-9), 2.0, 20.0)
    fast = oral(*course(TIMES, 0.0, 100.0, 0.0), 2.0, 20.0, 1e9)
    np.testing.assert_allclose(short, bolus, rtol=1e-8)
    np.testing.assert_allclose(fast, bolus, rtol=1e-8)
    assert bolus[0] == 0  # a sample at the very time of a dose was taken before it


def test_two_rates_exchanged_have_the_same_curve():
    courses, (CL, V, ka) = course(TIMES, 0.0, 100.0, 0.0), (2.0, 20.0, 1.3)
    np.testing.assert_allclose(oral(*courses, CL, CL / ka, CL / V), oral(*courses, CL, V, ka), rtol=1e-13)
