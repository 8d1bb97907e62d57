"""Simulators that are wrong in the same way for all groups: a line through 0 for each, and a Gaussian process for all.

    y_ji = b_j f_ji + w_ji (u_p + v_jp) + e_ji,    e ~ N(0, sigma^2),    p = p(j, i) the point that a row is of
    b_j ~ N(m, s^2),  u ~ N(0, a^2 C),  v_j ~ N(0, a_own^2 C),  C_pq = alike_pq exp(-apart_pq / (2 ell^2))

f is what the simulator says at b = 1, u the discrepancy that all groups share, at a few points, v_j a group's own,
which there need not be, w how a row scales them (Kennedy & O'Hagan 2001, J R Stat Soc B 63:425-464). Groups depend on
one another by u alone. With x_j = X_j' (y_j - m f_j), X_j = [f_j, W_j], G_j = X_j' X_j, and L the factor of the
covariance L L' of b_j and v_j, what a group has of its own is, given u and its data,

    N(K (x_j - G_j [0, u]) / sigma^2, K),    K = L (I + L' G_j L / sigma^2)^-1 L',

and, with that integrated out, what it says of u has the precision and the shift

    Q_j = (G_j - G_j K G_j / sigma^2) / sigma^2,    g_j = (x_j - G_j K x_j / sigma^2) / sigma^2,

but for their first entries (Woodbury; Rasmussen & Williams 2006, Gaussian Processes for Machine Learning, appendix
A.3). So no matrix is larger than the number of points, whatever the number of rows, no covariance is inverted, and
s = 0 and a = 0 are no limits. Groups with the same rows have one G, a `design`.

Where all have one design, their differences are free of u whatever it is, and their mean is not: m f + W u is in it.

Data hold what `discrepancy_rows.of_rows` makes of rows; hyperparameters ``m``, ``s``, ``sigma``, ``a``,
``ell``, and ``a_own``, if groups have discrepancies of their own.
"""

from __future__ import annotations

import numpy as np
import pytensor.tensor as pt

from hbm_zoo.group_level.normal import LOG_2PI

#: The share of a discrepancy's variance that each point has of its own, for a factor of C that is stable.
APART = 1e-9


# Of arrays: by NumPy with draws first [..., specimen or design, term], or by PyTensor for one h.


def root(ell, apart, alike, xp):
    """The factor of C."""
    C = alike * xp.exp(-apart / (2 * ell**2))
    return _factor((1 - APART) * C + APART * xp.eye(apart.shape[-1]), xp)


def _factor(matrix, xp):
    """Cholesky's, NaN where there is none."""
    if xp is pt:
        return pt.linalg.cholesky(matrix, on_error="nan")
    try:
        return np.linalg.cholesky(matrix)
    except np.linalg.LinAlgError:
        if matrix.ndim == 2:
            return np.full(matrix.shape, np.nan)
        return np.stack([_factor(one, xp) for one in matrix])


def own_given_shared(s, sigma, own_root, G, xp):
    """K [..., design, term, also], log|I + L' G L / sigma^2|; ``own_root`` is the factor of v's covariance, or None."""
    first = xp.eye(G.shape[-1])[:, 0][:, None]
    L = s[..., None, None] * first
    if own_root is not None:
        beside = xp.concatenate([xp.zeros_like(own_root[..., :1, :]), own_root], axis=-2)[..., None, :, :]
        L = xp.concatenate([L, beside + xp.zeros_like(L)], axis=-1)
    Lt = xp.swapaxes(L, -1, -2)
    B = xp.eye(L.shape[-1]) + Lt @ G @ L / sigma[..., None, None, None] ** 2
    factor = _factor(B, xp)
    half = xp.linalg.solve(factor, Lt)
    return xp.swapaxes(half, -1, -2) @ half, 2 * _log_diagonal(factor, xp)


def _log_diagonal(factor, xp):
    return xp.log(xp.diagonal(factor, axis1=-2, axis2=-1)).sum(axis=-1)


def of_each(m, s, sigma, own_root, b_hat, n, rr, Xr, design, G, xp):
    """Of each group: K and Q of its design, x and g, and the log density of its rows were there no u [nats]."""
    K, log_det = own_given_shared(s, sigma, own_root, G, xp)
    variance = sigma[..., None] ** 2
    GK = G @ K / variance[..., None, None]
    Q = (G - GK @ G) / variance[..., None, None]
    away = b_hat - m
    x = Xr + G[design][:, :, 0] * away[..., None]
    Kx = (K[..., design, :, :] @ x[..., None])[..., 0]
    g = (x - (G[design] @ Kx[..., None])[..., 0] / variance[..., None]) / variance[..., None]
    squares = (rr + away**2 * G[design][:, 0, 0] - (x * Kx).sum(axis=-1) / variance) / variance
    return K, Q, x, g, -0.5 * (n * (LOG_2PI + xp.log(variance)) + log_det[..., design] + squares)


def shared(Q, g, shared_root, design, xp):
    """Given all groups u ~ N(F F' v, F F'): F, v, F' v, and half the log determinant of what they know of it."""
    M, v = Q[..., design, 1:, 1:].sum(axis=-3), g[..., 1:].sum(axis=-2)
    F, half_log_det = posterior_factor(M, shared_root, xp)
    return F, v, (xp.swapaxes(F, -1, -2) @ v[..., None])[..., 0], half_log_det


def posterior_factor(M, shared_root, xp):
    """The factor F of (M + (R R')^-1)^-1 and half of log|I + R' M R|; R may be 0."""
    Rt = xp.swapaxes(shared_root, -1, -2)
    factor = _factor(xp.eye(M.shape[-1]) + Rt @ M @ shared_root, xp)
    return xp.swapaxes(xp.linalg.solve(factor, Rt), -1, -2), _log_diagonal(factor, xp)


def log_density(b_hat, n, rr, Xr, design, G, apart, alike, m, s, sigma, a, ell, *a_own):
    """Log density of all rows [nats], from one h."""
    C = root(ell, apart, alike, pt)
    own_root = a_own[0] * C if a_own else None
    each_m, each_s = m + pt.zeros_like(b_hat), s + pt.zeros_like(G[:, 0, 0])
    _, Q, _, g, log_each = of_each(each_m, each_s, sigma, own_root, b_hat, n, rr, Xr, design, G, pt)
    _, _, Fv, half_log_det = shared(Q, g, a * C, design, pt)
    return log_each.sum() + 0.5 * (Fv**2).sum() - half_log_det


def random_estimates(n, rr, Xr, design, G, apart, alike, m, s, sigma, a, ell, *a_own, rng=None, size=None):
    """Draw b_hat of each group; rr and Xr say nothing of it."""
    C, J = root(ell, apart, alike, np), n.size
    u = a * C @ rng.standard_normal(len(C)) + (a_own[0] if a_own else 0.0) * rng.standard_normal((J, len(C))) @ C.T
    of_line = np.maximum(G[design, 0, 0], np.finfo(float).tiny)
    b = rng.normal(m, s, J) + (G[design, 0, 1:] * u).sum(axis=1) / of_line
    return rng.normal(b, sigma / np.sqrt(of_line))
