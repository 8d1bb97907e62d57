"""Sums of a smooth function over many points, as sums over few: exact to the last digit."""

import numpy as np

NODES = 16


def compress(points, weights):
    """Nodes and weights with sum_i w_i f(x_i) the same for every f(x) = log(1 + t x), t >= 0.

    Between a and 2a such an f is a polynomial of degree 15 to within 6^-16 of its size: its
    only singularity, at -1/t, is three half-widths or more from the middle (Trefethen 2013,
    Approximation Theory and Approximation Practice, theorem 8.2). So the points of each
    octave give way to sixteen Chebyshev nodes, weighted so that every such polynomial has the
    same sum. An octave with fewer points keeps them.

    Parameters
    ----------
    points : array [point]
        Where f is wanted, all > 0.
    weights : array [..., point]
        How often; each leading index is a sum of its own over the same points.

    Returns
    -------
    nodes : array [node]
        In place of the points.
    weights : array [..., node]
        In place of the weights.

    Examples
    --------
    >>> points = np.arange(1, 100_000)
    >>> nodes, weights = compress(points, np.ones(points.size))
    >>> nodes.size, bool(np.isclose(weights @ np.log1p(0.3 * nodes), np.log1p(0.3 * points).sum(), rtol=1e-14))
    (223, True)
    """
    points, weights = np.asarray(points, float), np.asarray(weights, float)
    octave = np.frexp(points)[1]
    parts = [_compress_octave(points[octave == o], weights[..., octave == o]) for o in np.unique(octave)]
    nodes, weights = zip(*parts, strict=True) if parts else ([points], [weights])
    return np.concatenate(nodes), np.concatenate(weights, axis=-1)


def _compress_octave(points, weights):
    if points.size <= NODES:
        return points, weights
    middle, half = (points.max() + points.min()) / 2, max(np.ptp(points) / 2, np.spacing(points.max()))
    degree, angles = np.arange(NODES), np.pi * (np.arange(NODES) + 0.5) / NODES
    sums = np.stack([*_chebyshev_sums((points - middle) / half, weights)], axis=-1)
    at_nodes = np.cos(np.outer(degree, angles)) * np.where(degree == 0, 1, 2)[:, None] / NODES
    return middle + half * np.cos(angles), sums @ at_nodes


def _chebyshev_sums(x, weights):
    """Weighted sums of the Chebyshev polynomials T_0 ... T_15, by their recurrence."""
    before, now = x, np.ones_like(x)
    for _ in range(NODES):
        yield weights @ now
        before, now = now, 2 * x * now - before
