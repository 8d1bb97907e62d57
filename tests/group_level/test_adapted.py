"""Nodes of a likelihood that is large along a curve, or in two places, against quadrature."""

import numpy as np
import pytest

from hbm_zoo.group_level.adapted import adapted
from hbm_zoo.group_level.proposal import log_standard_normal, proposed, standard_points

SEEDS = np.array([3, 4])


def bent(z):
    """Along a parabola."""
    return log_standard_normal(z) - (z[..., 0] ** 2 + z[..., 1] - 1) ** 2 / (2 * 0.05**2)


def twice(z):
    """In two places that are mirrored."""
    return log_standard_normal(z) - ((z[..., 0] ** 2 - 1.5) ** 2 + z[..., 1] ** 2) / (2 * 0.3**2)


def quadrature(log_f):
    x = np.linspace(-6, 6, 4001)
    return np.log(np.exp(log_f(np.stack(np.meshgrid(x, x), axis=-1))).sum() * (x[1] - x[0]) ** 2)


def integral(nodes):
    """Log of the integral and its effective nodes [curve]."""
    _, log_q, height = nodes
    w = np.exp(height - log_q)
    return np.log(w.mean(axis=1)), w.sum(axis=1) ** 2 / (w**2).sum(axis=1)


@pytest.mark.parametrize("log_f", [bent, twice])
def test_rounds_find_what_nodes_around_one_top_miss(log_f):
    """Of two dimensions and 1,024 nodes: integrals right, and most nodes at work."""
    points = tuple(np.stack(part) for part in zip(*(standard_points(2, 1024, seed) for seed in SEEDS), strict=True))
    first = proposed(log_f, 2, points)
    found, effective = integral(adapted(log_f, first, SEEDS, 3))
    np.testing.assert_allclose(found, quadrature(log_f), atol=4 / np.sqrt(effective.min()))
    assert effective.min() > 250
    assert effective.min() > 3 * integral(first)[1].max()


def test_no_round_leaves_the_nodes_as_they_are():
    first = proposed(bent, 1, tuple(part[None] for part in standard_points(2, 64, 1)))
    for kept, given in zip(adapted(bent, first, SEEDS[:1], 0), first, strict=True):
        np.testing.assert_array_equal(kept, given)
