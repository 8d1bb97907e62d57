"""Networks as they are written, and their solutions against the exponential of the matrix and the closed form."""

import pickle
import re

import numpy as np
import pytensor.tensor as pt
import pytest
from pytensor.graph.replace import vectorize_graph
from scipy.integrate import solve_ivp
from scipy.linalg import expm
from scipy.special import lambertw

from hbm_zoo.group_level import steps
from hbm_zoo.group_level.amounts import Amounts
from hbm_zoo.group_level.equations import KNOWN, equations
from hbm_zoo.group_level.network import Network, network
from hbm_zoo.group_level.solutions import by_matrix, solution

TIMES = np.array([0.0, 0.3, 1.0, 5.0, 40.0])
LINEAR = (
    "A <-> B; B -> C",
    "A <-> B",
    "A -> B; B -> C; B -> D",
    "A -> B; B -> C; C -> A",
    "A -> B; A -> 0; B -> 0",
    "A -> 2 B; B -> C; C -> D",
)


def generator(net: Network, rates):
    """K written down reaction by reaction."""
    K = np.zeros((len(net.species),) * 2)
    for k, reaction in zip(rates, net.reactions, strict=True):
        one = reaction.taken
        K[net.species.index(one), net.species.index(one)] -= k
        for other, n in reaction.made:
            K[net.species.index(other), net.species.index(one)] += n * k
    return K


def beginning(net):
    return np.linspace(1.0, 0.2, len(net.species))


@pytest.mark.parametrize("text", LINEAR)
@pytest.mark.parametrize("equal", [False, True])
def test_a_linear_network_is_the_exponential_of_its_matrix(text, equal):
    """At rates at random, and where all are equal, and a matrix may have too few eigenvectors."""
    net = network(text)
    rates = np.exp(np.random.default_rng(1).normal(0, 0 if equal else 1.5, (20, len(net.rates))))
    found = solution(net, rates, beginning(net), TIMES)
    for k, x in zip(rates, found, strict=True):
        exact = np.stack([expm(generator(net, k) * t) @ beginning(net) for t in TIMES])
        np.testing.assert_allclose(x, exact, atol=2e-12)
        np.testing.assert_allclose(solution(net, k, beginning(net), TIMES), x, atol=2e-12)  # and one point alone


def motif(k1, km, k2, t):
    """B and C of A <-> B -> C."""
    S = k1 + km + k2
    d = np.sqrt(S**2 - 4 * k1 * k2)
    slow = (S - d) / 2
    bend = np.exp(-slow * t) * (1 - np.exp(-d * t)) / d
    return k1 * bend, 1 - np.exp(-slow * t) - slow * bend


def test_the_motif_has_its_closed_form_by_either_way():
    net = network("A <-> B; B -> C")
    rates = np.exp(np.random.default_rng(2).normal(size=(50, 3)))
    B, C = motif(*rates.T[..., None], TIMES)
    for found in (solution(net, rates, np.eye(3)[0], TIMES), by_matrix(net, rates, np.eye(3)[0], TIMES)):
        np.testing.assert_allclose(found[..., 1], B, atol=1e-13)
        np.testing.assert_allclose(found[..., 2], C, atol=1e-13)


def test_the_product_alone_does_not_know_k1_from_k2():
    net, rates = network("A <-> B; B -> C"), np.exp(np.random.default_rng(3).normal(size=(50, 3)))
    here, there = (solution(net, k, np.eye(3)[0], TIMES) for k in (rates, rates[:, [2, 1, 0]]))
    np.testing.assert_allclose(here[..., 2], there[..., 2], atol=1e-13)
    assert abs(here[..., 1] - there[..., 1]).max() > 0.1


def test_what_is_conserved_stays_and_nothing_is_negative():
    rng = np.random.default_rng(4)
    for text in LINEAR:
        net = network(text)
        x = solution(net, np.exp(rng.normal(0, 3, (200, len(net.rates)))), beginning(net), TIMES)
        assert x.min() >= 0
        if (weights := net.never_more).size:
            total = x @ weights
            assert (total <= total[:, :1] * (1 + 1e-9)).all()
            if np.allclose(net.made.T @ weights, 0):
                np.testing.assert_allclose(total, total[:, :1] + 0 * total, rtol=1e-9)


def test_rates_at_the_ends_of_all_numbers_stop_nothing():
    net = network("A <-> B; B -> C")
    found = solution(net, np.exp([[-700.0, -700, -700], [300.0, 0, 0], [0, 300, -300]]), np.eye(3)[0], TIMES)
    assert found.shape == (3, 5, 3)
    np.testing.assert_allclose(found[0], np.tile(np.eye(3)[0], (5, 1)), atol=1e-300)
    with np.errstate(over="ignore"):
        assert np.isnan(solution(net, np.exp([[800.0, 0, 0]]), np.eye(3)[0], TIMES)[:, 1:]).all()


def test_an_operation_has_the_slopes_of_the_solution_and_takes_many_points_at_once():
    net = network("A <-> B; B -> C")
    theta, start, time = pt.dmatrix(), np.tile(np.eye(3)[0], (2, 1)), np.stack([TIMES, 2 * TIMES])
    x = Amounts(net)(theta, start, time)
    slope = pt.grad((x**2).sum(), theta)
    at, h = np.array([[0.1, -0.4, 0.3], [-0.2, 0.5, 0.0]]), 1e-5

    def total(rates):
        return (solution(net, np.exp(rates), start, time) ** 2).sum()

    steps = np.eye(6).reshape(6, 2, 3) * h
    exact = np.array([(total(at + s) - total(at - s)) / (2 * h) for s in steps]).reshape(2, 3)
    np.testing.assert_allclose(slope.eval({theta: at}), exact, atol=1e-6)
    many = pt.dtensor3()
    of_many = vectorize_graph(x, {theta: many}).eval({many: np.stack([at, at + 1])})
    np.testing.assert_allclose(of_many[1], solution(net, np.exp(at + 1), start, time))


def test_networks_are_read_as_chemists_write_them():
    net = network("E<->S:kon,koff;  S -> E + 2 P : kcat; P -> 0")
    assert net.text == "E <-> S : kon, koff; S -> E + 2 P : kcat; P -> 0"
    assert net.species == ("E", "S", "P")
    assert net.rates == ("kon", "koff", "kcat", "k3")
    np.testing.assert_allclose(net.made, [[-1, 1, 1, 0], [1, -1, -1, 0], [0, 0, 2, -1]])
    assert network("A<->B;B->C").text == network(" A <-> B ; B -> C; ").text == "A <-> B; B -> C"
    assert network("A <-> B; B <-> C").rates == ("k1", "km1", "k2", "km2")
    assert network("A <-> B; B -> C").pair == (0, 1, 2)
    assert network("A -> B; B -> 0").pair is None


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "A network is written as 'A <-> B; B -> C', got ''"),
        ("A = B", "A network is written as 'A <-> B; B -> C', got 'A = B'"),
        ("A -> B; B = C", "A reaction has one arrow"),
        ("A -> B -> C", "A reaction has one arrow"),
        ("A -> A", "changes nothing"),
        ("A -> B : k; B -> C : k", "rate 'k' is there twice"),
        ("A -> B : A", "'A' is a species and a rate"),
        ("A <-> B : k", "expected 2 names of rates"),
        ("A -> B : 3", "expected 1 name of a rate, or mm(V, K)"),
        ("A + B -> C", "Each reaction takes one of one species"),
        ("2 A -> B", "got '2 A -> B'"),
        ("A <-> 2 B", "got 'A <-> 2 B'"),
        ("0 -> A", "got '0 -> A'"),
        ("A ! -> B", "written as 'A' or '2 A + B'"),
        ("0 A -> B", "written as 'A' or '2 A + B'"),
    ],
)
def test_what_is_no_network_is_refused_in_words(text, said):
    with pytest.raises(ValueError, match=re.escape(said)):
        network(text)


# What is not linear is solved by steps.


def one_by_one(net, rates, start, times):
    """By a library's implicit solver, at tolerances that no step of ours comes near."""
    found = []
    for k in rates:
        solved = solve_ivp(
            lambda t, x, k=k: net.change(t, x[:, None], k[:, None])[:, 0],
            (0.0, times.max()),
            start,
            "Radau",
            times,
            rtol=1e-10,
            atol=1e-13,
        )
        found.append(solved.y.T)
    return np.stack(found)


@pytest.mark.parametrize("spread", [pytest.param(0.5, marks=pytest.mark.slow), 2.5])
def test_each_of_many_points_is_as_exact_as_if_it_were_alone(spread):
    """Rates a factor of 150 and more apart in one call, the fastest of them and the slowest among those looked at."""
    net, start, times = network("A <-> B; B -> C : mm(V, K)"), np.array([1.0, 0.0, 0.0]), TIMES[:4]
    rates = np.exp(np.random.default_rng(5).normal(0, spread, (1024, 4)))
    found = solution(net, rates, start, times)
    some = [*rates.argmax(axis=0)[:3], *rates.argmin(axis=0)[1:]]
    np.testing.assert_allclose(found[some], one_by_one(net, rates[some], start, times), atol=2e-5)
    np.testing.assert_allclose(solution(net, rates[some[0]], start, times), found[some[0]], atol=1e-12)


def test_half_the_tolerance_changes_no_more_than_the_tolerance(monkeypatch):
    net, start, times = network("A -> B; B -> C : mm(V, K)"), np.array([1.0, 0.0, 0.0]), TIMES[:4]
    rates = np.exp(np.random.default_rng(6).normal(0, 1.5, (512, 3)))
    coarse = solution(net, rates, start, times)
    for name in ("RELATIVE", "ABSOLUTE"):
        monkeypatch.setattr(steps, name, getattr(steps, name) / 2)
    fine = solution(net, rates, start, times)
    assert 0 < abs(fine - coarse).max() < 2e-5


def test_a_step_is_of_order_four_and_its_error_of_order_three():
    """Half the step, a 32nd of the error, a 16th of what is said of it, and of the error between its ends."""
    net, errors = network("A <-> B; B -> C : mm(V, K)"), []
    x, k = np.array([[0.7], [0.2], [0.1]]), np.array([[1.0], [0.6], [0.8], [0.3]])
    for h in (0.2, 0.1):
        half, exact = one_by_one(net, k.T, x[:, 0], np.array([h / 2, h]))[0]
        new, parts = steps.step_of(net, np.zeros(1), x, k, np.array([h]))
        middle = steps.between(x, new, parts, np.array([0.5]))
        errors.append([abs(new[:, 0] - exact).max(), abs(parts[-1]).max(), abs(middle[:, 0] - half).max()])
        np.testing.assert_array_equal(steps.between(x, new, parts, np.ones(1)), new)
    ratio = np.divide(*errors)
    assert 18 < ratio[0] < 50
    assert ((ratio[1:] > 8) & (ratio[1:] < 25)).all()


def test_many_rows_cost_no_more_steps_than_few(monkeypatch):
    counted, step_of = [], steps.step_of
    monkeypatch.setattr(steps, "step_of", lambda *given: counted.append(1) or step_of(*given))
    given = network("S -> P : mm(V, K)"), np.array([[1.0, 0.3]]), np.array([1.0, 0.0])
    few = len(solution(*given, np.array([0.0, 2.0]))[0]) and len(counted)
    solution(*given, np.linspace(2.0, 0.0, 100))
    assert len(counted) == 2 * few


def test_saturation_alone_has_a_closed_form():
    """S = K W(S0/K exp((S0 - V t)/K)), Lambert's W (Schnell & Mendoza 1997, J Theor Biol 187:207-212)."""
    net, rng = network("S -> P : mm(V, K)"), np.random.default_rng(7)
    V, K = np.exp(rng.normal(0, 1, (2, 200)))
    times = np.array([0.1, 0.5, 1.0, 2.0])
    found = solution(net, np.stack([V, K], axis=1), np.array([1.0, 0.0]), times)
    exact = (K[:, None] * lambertw(1 / K[:, None] * np.exp((1 - V[:, None] * times) / K[:, None]))).real
    np.testing.assert_allclose(found[..., 0], exact, atol=5e-5)
    np.testing.assert_allclose(found.sum(axis=-1), 1, atol=1e-9)  # mass balance


def test_far_from_saturation_it_is_of_first_order():
    """V x/(K + x) is (V/K) x for x much below K."""
    times, saturated, first = TIMES[:4], network("A -> B; B -> C : mm(V, K)"), network("A -> B; B -> C")
    start = np.array([1.0, 0.0, 0.0])
    found = solution(saturated, np.array([0.8, 0.5e6, 1e6]), start, times)
    np.testing.assert_allclose(found, solution(first, np.array([0.8, 0.5]), start, times), atol=2e-5)


def test_modules_have_times_and_beginnings_of_their_own():
    net, rng = network("A -> B; B -> C : mm(V, K)"), np.random.default_rng(8)
    rates = np.exp(rng.normal(0, 0.5, (2, 2, 3)))
    start, time = np.array([[1.0, 0.0, 0.0], [0.3, 0.5, 0.0]]), np.array([[0.5, 2.0, 0.0], [3.0, 1.0, 1.0]])
    found = solution(net, rates, start, time)
    for i, j in np.ndindex(2, 2):
        for n, t in enumerate(time[j]):
            alone = one_by_one(net, rates[i, [j]], start[j], np.array([t]))[0, 0] if t else start[j]
            np.testing.assert_allclose(found[i, j, n], alone, atol=2e-5)


def test_no_rows_and_no_numbers_stop_nothing():
    """A module may lose its only row; a rate may be beyond all numbers, which is no news."""
    net, start = network("S -> P : mm(V, K)"), np.array([1.0, 0.0])
    assert solution(net, np.ones((5, 2)), start, np.empty(0)).shape == (5, 0, 2)
    found = solution(net, np.array([[np.inf, 1.0], [1.0, 0.0]]), start, np.array([0.0, 1.0]))
    assert found.shape == (2, 2, 2)
    assert np.isnan(found).all()


def explosive(t, state, rates):
    """2 A -> 3 A is infinite at a finite time."""
    (A,) = state
    return [rates[0] * A**2]


def test_a_point_without_a_solution_is_named_and_stops_no_other():
    net = equations(explosive, species=["A"], rates=["k"])
    with pytest.warns(RuntimeWarning, match=r"no solution of amounts.*at k = 10: they count as impossible"):
        found = solution(net, np.array([[0.01], [10.0], [0.02]]), np.array([1.0]), np.array([0.0, 1.0]))
    np.testing.assert_allclose(found[[0, 2], 1, 0], [1 / 0.99, 1 / 0.98], atol=2e-5)
    assert np.isnan(found[1, 1, 0])


def test_errors_below_nothing_do_not_meet_a_pole():
    """V x/(K + x) as one writes it has a pole at -K, and much that is saturated ends at 0 at once."""
    by_hand = equations(lambda t, x, k: [-k[0] * x[0] / (k[1] + x[0])], species=["A"], rates=["V", "K"])
    found = solution(
        by_hand, np.array([[0.875, K] for K in (1e-2, 3.53e-4, 1e-5)]), np.array([1.0]), np.array([0.5, 3.0])
    )
    np.testing.assert_allclose(found[:, 0, 0], 1 - 0.875 * 0.5, atol=0.01)
    np.testing.assert_allclose(found[:, 1, 0], 0, atol=2e-5)


def drained(t, state, rates):
    """What is taken whether it is there or not."""
    return [-rates[0] + 0 * state[0]]


def test_amounts_below_nothing_are_named():
    net = equations(drained, species=["A"], rates=["k"])
    with pytest.warns(RuntimeWarning, match="no solution of amounts, 0 or above, at k = 2"):
        found = solution(net, np.array([[0.5], [2.0]]), np.array([1.0]), np.array([1.0]))
    assert found[0, 0, 0] == pytest.approx(0.5)
    assert np.isnan(found[1]).all()


def test_equations_of_one_s_own_are_those_of_the_network_and_may_know_the_time():
    def motif_by_hand(t, state, rates):
        A, B, C = state
        k1, km, V, K = rates
        turned = V * B / (K + B)
        return -k1 * A + km * B, k1 * A - km * B - turned, turned

    by_hand = equations(motif_by_hand, species=["A", "B", "C"], rates=["k1", "km", "V", "K"])
    rates = np.exp(np.random.default_rng(9).normal(0, 0.7, (30, 4)))
    given = rates, np.array([1.0, 0.2, 0.0]), TIMES[:4]
    by_name = solution(network("A <-> B; B -> C : mm(V, K)"), *given)
    np.testing.assert_allclose(solution(by_hand, *given), by_name, atol=1e-5)
    fading = equations(lambda t, x, k: -k[0] * np.exp(-t) * x, species=["A"], rates=["k"])
    found = solution(fading, np.array([[0.5], [2.0]]), np.array([1.0]), np.array([0.3, 2.0]))
    exact = np.exp(-np.array([[0.5], [2.0]]) * (1 - np.exp(-np.array([0.3, 2.0]))))
    np.testing.assert_allclose(found[..., 0], exact, atol=5e-5)


def test_slopes_of_what_is_solved_by_steps():
    net = network("A -> B; B -> C : mm(V, K)")
    theta, start, time = pt.dmatrix(), np.eye(3)[:1], TIMES[None, :4]
    slope = pt.grad((Amounts(net)(theta, start, time) ** 2).sum(), theta).eval({theta: np.array([[0.1, -0.4, 0.3]])})

    def total(of):
        return (one_by_one(net, np.exp([of]), start[0], TIMES[:4]) ** 2).sum()

    at, h = np.array([0.1, -0.4, 0.3]), 1e-4
    exact = [(total(at + step) - total(at - step)) / (2 * h) for step in h * np.eye(3)]
    np.testing.assert_allclose(slope[0], exact, atol=2e-3)


def test_saturation_is_read_and_its_scales_are_those_of_the_data():
    net = network("A<->B:kon,mm( V ,K );B->C")
    assert net.text == "A <-> B : kon, mm(V, K); B -> C"
    assert net.rates == ("kon", "V", "K", "k2")
    assert not net.linear
    assert net.typical(10.0, 2.0) == {"kon": 0.5, "V": 5.0, "K": 10.0, "k2": 0.5}
    np.testing.assert_allclose(net.never_more, 1)
    speed = net.change(0.0, np.array([[0.0], [1.0], [0.0]]), np.array([[0.0], [2.0], [3.0], [0.0]]))
    np.testing.assert_allclose(speed[:, 0], [0.5, -0.5, 0])


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"species": []}, "names of species, got none"),
        ({"species": ["A", "A"]}, "names of species, each once"),
        ({"rates": ["k 1"]}, "names of rates, each once, as in ['A', 'B'], got 'k 1'"),
        ({"rates": ["A"]}, "'A' is a species and a rate"),
        ({"rates": {"k": -1.0}}, "typical value of 'k' above 0, got -1.0"),
        ({"species": ["A", "B"]}, "expected to give 2 changes, of A, B, got 1"),
        ({"function": lambda t, x, k: [x[0], x[0]]}, "expected to give 1 changes, of A, got 2"),
        ({"function": lambda t, x, k: [-float(k[0]) * x[0]]}, "as NumPy reckons; got TypeError"),
        ({"function": lambda t, x, k: [-x[0].sum()]}, "says something else of many points at once"),
    ],
)
def test_what_are_no_equations_is_refused_in_words(given, said):
    usual = {"function": lambda t, x, k: [-k[0] * x[0]], "species": ["A"], "rates": ["k"]} | given
    with pytest.raises(ValueError, match=re.escape(said)):
        equations(usual["function"], species=usual["species"], rates=usual["rates"])


def test_equations_travel_and_are_known_by_their_text():
    net = equations(explosive, species=["A"], rates={"k": 0.1})
    again = pickle.loads(pickle.dumps(net))
    assert again == net
    assert KNOWN[net.text] == net
    assert equations(drained, species=["A"], rates={"k": 0.1}).text != net.text
    assert net.typical(1.0, 2.0) == {"k": 0.1}
