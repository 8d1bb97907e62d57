"""Networks as they are written, and their solutions against the exponential of the matrix and the closed form."""

import re

import numpy as np
import pytensor.tensor as pt
import pytest
from pytensor.graph.replace import vectorize_graph
from scipy.linalg import expm

from hbm_zoo.group_level.amounts import Amounts
from hbm_zoo.group_level.network import Network, conserved, network
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
        if (weights := conserved(net)).size:
            np.testing.assert_allclose(x @ weights, (x @ weights)[:, :1] + 0 * x[..., 0], rtol=1e-9)


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
        ("A = B", "A reaction has one arrow"),
        ("A -> B -> C", "A reaction has one arrow"),
        ("A -> A", "changes nothing"),
        ("A -> B : k; B -> C : k", "rate 'k' is there twice"),
        ("A -> B : A", "'A' is a species and a rate"),
        ("A <-> B : k", "expected 2 names of rates"),
        ("A -> B : 3", "expected 1 name of rates"),
        ("A + B -> C", "is of linear networks: each reaction takes one of one species"),
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
