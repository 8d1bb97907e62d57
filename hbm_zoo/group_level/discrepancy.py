"""Simulators that are wrong in the same way for all groups: a line through 0 for each, and a Gaussian process for all.

    y_ji = b_j f_ji + w_ji (u_p + v_jp) + e_ji,    e ~ N(0, sigma^2),    p = p(j, i) the point that a row is of
    b_j ~ N(m, s^2),  u ~ N(0, a^2 C),  v_j ~ N(0, a_own^2 C),  C_pq = alike_pq exp(-apart_pq / (2 ell^2))

f is what the simulator says at b = 1, u the discrepancy that all groups share, at a few points, v_j a group's own,
which there need not be, w how a row scales them (Kennedy & O'Hagan 2001, J R Stat Soc B 63:425-464). Groups depend on
one another by u alone. With X_j = [f_j, W_j] = O_j T_j, the columns of O_j orthonormal, rows say q_j = O_j' (y_j -
m f_j), and have a rest that neither b_j nor a discrepancy explains. With L the factor of the covariance L L' of b_j and
v_j, S_j = I + T_j L L' T_j' / sigma^2 and R_j' R_j = S_j^-1 / sigma^2,

    log p(y_j | u = 0) = -1/2 (n log 2 pi sigma^2 + log|S_j| + rest_j / sigma^2 + |R_j q_j|^2),

what a group says of u has the precision Q_j = A_j' A_j and the shift g_j = A_j' R_j q_j, A_j = R_j T_j, but for their
first entries, and what it has of its own has, given u, the mean H_j (q_j - T_j [0, u]), H_j = L L' A_j' R_j, and the
covariance L (I + L' T_j' T_j L / sigma^2)^-1 L' (Woodbury; Rasmussen & Williams 2006, Gaussian Processes for Machine
Learning, appendix A.3). So no matrix is larger than the number of points, whatever the number of rows, nothing large is
taken from what is as large, however small the noise is, and s = 0 and a = 0 are no limits. Groups with the same rows
have one T, a `design`.

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


def own_factor(s, own_root, T, xp):
    """L [..., design, term, source]; ``own_root`` is the factor of v's covariance, or None."""
    L = s[..., None, None] * xp.eye(T.shape[-1])[:, 0][:, None]
    if own_root is None:
        return L
    beside = xp.concatenate([xp.zeros_like(own_root[..., :1, :]), own_root], axis=-2)[..., None, :, :]
    return xp.concatenate([L, beside + xp.zeros_like(L)], axis=-1)


def whitening(L, sigma, T, xp):
    """R [..., design, term, also], and log|S|."""
    noise = sigma[..., None, None, None]
    TL = T @ L / noise
    one = xp.eye(T.shape[-1])
    factor = _factor(one + TL @ xp.swapaxes(TL, -1, -2), xp)
    return xp.linalg.solve(factor, xp.broadcast_to(one, factor.shape)) / noise, 2 * _log_diagonal(factor, xp)


def _log_diagonal(factor, xp):
    return xp.log(xp.diagonal(factor, axis1=-2, axis2=-1)).sum(axis=-1)


def of_each(m, s, sigma, own_root, b_hat, n, rest, q, design, T, xp):
    """Of each design L, R and A; of each group q and g, and the log density of its rows were there no u [nats].

    Data have q of the rows around a group's own line, b_hat.
    """
    L = own_factor(s, own_root, T, xp)
    R, log_det = whitening(L, sigma, T, xp)
    A = R @ T
    q = q + T[design][:, :, 0] * (b_hat - m)[..., None]
    Rq = (R[..., design, :, :] @ q[..., None])[..., 0]
    g = (xp.swapaxes(A, -1, -2)[..., design, :, :] @ Rq[..., None])[..., 0]
    variance = sigma[..., None] ** 2
    log_each = n * (LOG_2PI + xp.log(variance)) + log_det[..., design] + rest / variance + (Rq**2).sum(axis=-1)
    return L, R, A, q, g, -0.5 * log_each


def of_shared(A, xp):
    """The precision of what each design says of u."""
    of_u = A[..., 1:]
    return xp.swapaxes(of_u, -1, -2) @ of_u


def shared(Q, g, shared_root, design, xp):
    """Given all groups u ~ N(F F' v, F F'): F, v, F' v, and half the log determinant of what they know of it."""
    M, v = Q[..., design, :, :].sum(axis=-3), g[..., 1:].sum(axis=-2)
    F, half_log_det = posterior_factor(M, shared_root, xp)
    return F, v, (xp.swapaxes(F, -1, -2) @ v[..., None])[..., 0], half_log_det


def posterior_factor(M, shared_root, xp):
    """The factor F of (M + (R R')^-1)^-1 and half of log|I + R' M R|; R may be 0."""
    Rt = xp.swapaxes(shared_root, -1, -2)
    factor = _factor(xp.eye(shared_root.shape[-1]) + Rt @ M @ shared_root, xp)
    return xp.swapaxes(xp.linalg.solve(factor, Rt), -1, -2), _log_diagonal(factor, xp)


def log_density(b_hat, n, rest, q, design, T, apart, alike, m, s, sigma, a, ell, *a_own):
    """Log density of all rows [nats], from one h."""
    C = root(ell, apart, alike, pt)
    own_root = a_own[0] * C if a_own else None
    each_m, each_s = m + pt.zeros_like(b_hat), s + pt.zeros_like(T[:, 0, 0])
    _, _, A, _, g, log_each = of_each(each_m, each_s, sigma, own_root, b_hat, n, rest, q, design, T, pt)
    _, _, Fv, half_log_det = shared(of_shared(A, pt), g, a * C, design, pt)
    return log_each.sum() + 0.5 * (Fv**2).sum() - half_log_det


def random_estimates(n, rest, q, design, T, apart, alike, m, s, sigma, a, ell, *a_own, rng=None, size=None):
    """Draw b_hat of each group; the rest and q say nothing of it."""
    C, J = root(ell, apart, alike, np), n.size
    u = a * C @ rng.standard_normal(len(C)) + (a_own[0] if a_own else 0.0) * rng.standard_normal((J, len(C))) @ C.T
    f = T[design][:, :, 0]
    of_line = np.maximum((f**2).sum(axis=1), np.finfo(float).tiny)
    of_u = (T[design][:, :, 1:] @ u[..., None])[..., 0]
    b = rng.normal(m, s, J) + (f * of_u).sum(axis=1) / of_line
    return rng.normal(b, sigma / np.sqrt(of_line))
