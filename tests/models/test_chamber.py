"""Rats in a chamber: the equations against another program's, least squares of each rat and of all, what is shipped."""

import numpy as np
import pytest
from scipy.integrate import solve_ivp
from scipy.optimize import least_squares

import hbm_zoo as hz
from hbm_zoo.group_level.solutions import solution
from hbm_zoo.models import chamber

MODEL = hz.reaction_networks.MODEL
OPTIONS = dict(MODEL.datasets["ccl4_chamber"].options)
#: A chamber of 3.8 L less a rat of 182 g; of muscle, viscera, fat and liver [L], of blood flow, of partition to air.
WEIGHT, LITERS = 0.182, 3.618
TISSUES = [(0.74, 0.32, 13.3), (0.05, 0.48, 16.17), (0.08, 0.05, 281.48), (0.04, 0.15, 16.17)]


@pytest.fixture(scope="module")
def rats():
    """Of each rat its dose [ppm], and times and shares."""
    doses = chamber.RATS.set_index("module")["amount"]
    frame = hz.load_data("ccl4_chamber")
    return {name: (doses[name], *rows[["time", "value"]].to_numpy().T) for name, rows in frame.groupby("module")}


def in_milligrams(logs, ppm, times):
    """The share left in the air by LSODA, everything in mg, mg/L and hours; blood of tissues at once."""
    Q, V = np.exp(logs)
    dose = LITERS * ppm * 153.8 / 24450

    def change(t, mg):
        venous = [m / (WEIGHT * v * p / 5.487) for m, (v, _, p) in zip(mg[1:], TISSUES, strict=True)]
        mixed = sum(f * c for c, (_, f, _) in zip(venous, TISSUES, strict=True))
        arterial = (Q * mixed + Q * mg[0] / LITERS) / (Q + Q / 5.487)
        into = [Q * f * (arterial - c) for c, (_, f, _) in zip(venous, TISSUES, strict=True)]
        into[3] -= V * venous[3] / (0.4027 + venous[3])
        return [Q * (arterial / 5.487 - mg[0] / LITERS) - 0.02 * mg[0], *into]

    found = solve_ivp(change, (0, times[-1]), [dose, 0, 0, 0, 0], "LSODA", times, rtol=1e-8, atol=1e-10)
    return found.y[0] / dose


def least(rats, start=(1.4, -3.5), **how):
    """Least squares of some rats together by that."""

    def off(logs):
        return np.concatenate([in_milligrams(logs, ppm, times) - share for ppm, times, share in rats])

    return least_squares(off, start, diff_step=1e-4, **how)


def test_the_equations_are_those_of_another_program(rats):
    rng = np.random.default_rng(1)
    for ppm, times, _ in [*rats.values()][::3]:
        logs = np.log([4.0, 0.04]) + 0.7 * rng.standard_normal(2)
        found = solution(chamber.CHAMBER, np.exp(logs), np.array([1, 0, 0, 0, 0, ppm]), times)
        np.testing.assert_allclose(found[:, 0], in_milligrams(logs, ppm, times), atol=3e-5)


def test_nothing_is_made_and_what_is_lost_is_lost_by_the_liver_and_the_chamber():
    state = np.array([[0.5], [0.2], [0.05], [0.1], [0.02], [951.0]])
    change = np.array(chamber.breathing(0.0, state, np.array([[4.0], [0.04]])))
    leaving = 0.02 / (0.182 * 0.04 * 16.17 / 5.487)
    mg = LITERS * 951 * 153.8 / 24450
    destroyed = 0.04 * mg * leaving / (0.4027 + mg * leaving) / mg
    assert change[:5].sum() == pytest.approx(-destroyed - 0.02 * 0.5, rel=1e-9)
    assert change[5] == 0


def test_what_is_shipped_is_what_was_measured_over_the_doses():
    frame = hz.load_data("ccl4_chamber")
    doses = frame["initial_ppm"].map(chamber.DOSES)
    np.testing.assert_allclose(frame["value"], frame["chamber_ppm"] / doses, atol=1e-6)
    own = chamber.RATS.set_index("module")["amount"]
    assert (frame["module"].map(own) == doses).all()
    record, options = MODEL.split(OPTIONS)
    data = record.data(frame, **options)
    assert data.start.sel(species="air").values.tolist() == [1.0] * 12
    np.testing.assert_array_equal(data.start.sel(species="dose"), own[data["module"].values])


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:.*no solution of amounts:RuntimeWarning")  # rates e^17 from typical ones are tried
def test_one_set_of_rates_for_all_is_their_least_squares(rats):
    """With priors so wide the posterior lies around it, and the error is what is left."""
    exact = least(rats.values())
    fit = hz.fit(MODEL, hz.load_data("ccl4_chamber"), "complete", random_seed=1, progressbar=False, **OPTIONS)
    posterior = fit["posterior"].dataset
    for name, value in zip("QV", exact.x, strict=True):
        mu = posterior[f"mu_{name}"]
        assert abs(float(mu.mean()) - value) < 0.5 * float(mu.std()) + 0.01, name
    assert float(posterior["sigma"].mean()) == pytest.approx(np.sqrt(2 * exact.cost / (429 - 2)), rel=0.02)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:.*no solution of amounts:RuntimeWarning")
def test_how_fast_a_rat_breathes_is_its_own_least_squares(rats):
    """Q is told by each rat alone; V by those of the two low doses, and not by the others."""
    fit = hz.fit(MODEL, hz.load_data("ccl4_chamber"), "none", random_seed=1, progressbar=False, draws=250, **OPTIONS)
    known = fit["group_summary"].dataset
    for j, rat in enumerate(known["module"].values):
        exact, sd = least([rats[rat]]).x, known["sd"].values[j]
        assert abs(known["mean"].values[j, 0] - exact[0]) < sd[0] + 0.01, rat
        if rats[rat][0] < 100:
            assert abs(known["mean"].values[j, 1] - exact[1]) < sd[1] + 0.01, rat
    assert (known["sd"].values[:6, 1] > 0.5).all()
    assert (known["sd"].values[6:, 1] < 0.2).all()
