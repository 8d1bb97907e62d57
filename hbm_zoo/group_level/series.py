"""Normal measurements of groups in time, each like the one before: AR(1), with gaps.

    theta_t - mu = phi (theta_(t-1) - mu) + e_t,    e_t ~ N(0, (1 - phi^2) T),    theta_1 ~ N(mu, T)

so that any two are N(mu, T) with the covariance phi^|t - s| T, whatever lies between them: a time without data is a gap
of two, or of more. All times together are one normal vector, with the factor C x L of its covariance (Kronecker's
product), T = L L', C the factor of the correlations in time,

    C_ts = phi^(t - s) w_s,  s <= t,    w_s^2 = 1 - phi^(2 (s - the time before s)),    w of the first 1,

which is the recursion itself, and holds at phi = 0. So formulas are those of `multivariate` for one group of many
numbers. A group left out lies between the others: its population is N(m_t, V_t), what they say of it (Rasmussen &
Williams 2006, Gaussian Processes for Machine Learning, section 5.4.2), and kappa is its own weight against that.

Data hold what those of `multivariate` hold, ``time`` [group], in order; hyperparameters ``mean``, ``factor``, ``phi``.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import numpy as np
import pytensor.tensor as pt
import xarray as xr
from pytensor import function
from pytensor.graph.replace import vectorize_graph

from hbm_zoo.group_level import multivariate
from hbm_zoo.group_level.multivariate import MATRIX, VECTOR
from hbm_zoo.group_level.normal import LOG_2PI
from hbm_zoo.group_level.populations import Normal

KAPPA = "the share of Var(theta | the other groups' data, h) that a group's own data remove"
SOURCE, INNER = "source", ("year", "trait")
AT_ONCE = 2_000_000  # Numbers of all matrices of some draws.


def factor_in_time(phi, time, xp):
    """C [..., t, s] of phi, a number or [..., 1, 1], and times in order, by NumPy or PyTensor."""
    lag = time[:, None] - time[None, :]
    before = xp.concatenate([time[:1] - 1, time[:-1]])
    w = xp.where(time > time[0], xp.sqrt(1 - phi ** (2 * (time - before))), 1.0)
    later = phi ** xp.where(lag > 0, lag, 1.0)
    return xp.where(lag > 0, later, xp.where(lag < 0, 0.0, 1.0)) * w


def log_density(b, measured, S, time, mean, L, phi):
    """Log N(b; mu, C C' x T + S) of what was measured, from matrices [time, trait] and one h [nats]."""
    size = b.shape[0] * b.shape[1]
    C, one_time = factor_in_time(phi, time, pt), pt.eye(b.shape[0])
    A = (C[:, None, :, None] * L[None, :, None, :]).reshape((size, size)) * measured.reshape((size, 1))
    errors = (S[:, :, None, :] * one_time[:, None, :, None]).reshape((size, size))
    root = pt.linalg.cholesky(A @ A.T + errors)
    z = pt.linalg.solve_triangular(root, (measured * (b - mean)).ravel(), lower=True)
    return -0.5 * (measured.sum() * LOG_2PI + (z**2).sum()) - pt.log(pt.diag(root)).sum()


def random(measured, S, time, mean, L, phi, rng=None, size=None):
    """Draw b [time, trait]; what was not measured is 0."""
    C = factor_in_time(phi, time, np)
    z, e = rng.standard_normal((2, *measured.shape))
    return measured * (mean + C @ z @ L.T + (np.linalg.cholesky(S) @ e[..., None])[..., 0])


@dataclass(frozen=True)
class Series(Normal):
    """Normals [..., group, trait] that share sources of chance: mean + factor z, z [..., source] ~ N(0, 1)."""

    factor: xr.DataArray

    def cells(self):
        """Each number alone."""
        return Normal(self.mean, self.sd).cells()

    def sample(self, rng):
        """One draw of all together."""
        mean = self.mean.transpose(..., *INNER)
        outer = {dim: size for dim, size in mean.sizes.items() if dim not in INNER}
        z = rng.standard_normal((*outer.values(), self.factor.sizes[SOURCE]))
        return mean + xr.dot(self.factor, xr.DataArray(z, dims=(*outer, SOURCE)), dim=SOURCE)

    def log_density(self, x):
        """Of all numbers together [nats]."""

        def log_density(away, factor):
            square = factor.reshape(*factor.shape[:-3], factor.shape[-1], factor.shape[-1])
            z = np.linalg.solve(square, away.reshape(*away.shape[:-2], -1, 1))[..., 0]
            return -0.5 * (z**2 + LOG_2PI).sum(axis=-1) - np.linalg.slogdet(square)[1]

        core = [list(INNER), [*INNER, SOURCE]]
        return xr.apply_ufunc(log_density, x - self.mean, self.factor, input_core_dims=core)


def log_joint(h, data):
    """Log density of all that was measured [nats]."""
    arrays = [data[name].values.astype(float) for name in ("b", "measured", "S", "time")]
    density, step = _compiled(), max(1, AT_ONCE // data.b.size**2)

    def log_joint(mean, L, phi):
        outer = np.broadcast_shapes(mean.shape[:-1], L.shape[:-2], phi.shape)
        size = mean.shape[-1]
        wide = [(mean, (size,)), (L, (size, size)), (phi, ())]
        each = [np.broadcast_to(value, (*outer, *inner)).reshape(-1, *inner) for value, inner in wide]
        portions = range(0, len(each[0]), step)
        return np.concatenate([density(*arrays, *(v[i : i + step] for v in each)) for i in portions]).reshape(outer)

    return xr.apply_ufunc(log_joint, h["mean"], h.factor, h.phi, input_core_dims=[VECTOR, MATRIX, []])


@cache
def _compiled():
    """The log density at many h at once."""
    of_data = [pt.dmatrix(), pt.dmatrix(), pt.dtensor3(), pt.dvector()]
    one, many = [pt.dvector(), pt.dmatrix(), pt.dscalar()], [pt.dmatrix(), pt.dtensor3(), pt.dvector()]
    densities = vectorize_graph(log_density(*of_data, *one), dict(zip(one, many, strict=True)))
    return function([*of_data, *many], densities, mode="FAST_COMPILE")


def conditional(h, data):
    """Theta | b of all times together."""
    mean, factor = _after(h, data)
    return Series(mean, np.sqrt((factor**2).sum(SOURCE)), factor)


def _after(h, data):
    """Mean and factor of all times: `multivariate` has them of one group of many numbers."""
    time, (times, traits) = data.time.values.astype(float), data.b.shape
    P = np.einsum("tij,ts->tisj", data.P.values, np.eye(times)).reshape(times * traits, times * traits)

    def after(away, L, phi):
        C = factor_in_time(phi[..., None, None], time, np)
        A = np.einsum("...ts,...ij->...tisj", C, L).reshape(*np.broadcast_shapes(C.shape[:-2], L.shape[:-2]), *P.shape)
        shift, factor = multivariate.after(away.reshape(*away.shape[:-2], -1), A, P)
        return shift.reshape(*shift.shape[:-1], times, traits), factor.reshape(*factor.shape[:-2], times, traits, -1)

    away = (data.measured * (data.b - h["mean"])).transpose(..., *INNER)
    dims = [list(INNER), MATRIX, []], [list(INNER), [*INNER, SOURCE]]
    shift, factor = xr.apply_ufunc(after, away, h.factor, h.phi, input_core_dims=dims[0], output_core_dims=dims[1])
    return h["mean"] + shift, factor


def given_others(h, data):
    """Mean m_t and covariance V_t of each time given the data of all others.

    With d and W what all data say of theta_t, its own P_t and e_t taken back: V_t = (I - W P_t)^-1 W, and
    m_t - mu = (I - W P_t)^-1 (d - W P_t e_t).
    """
    mean, factor = _after(h, data)
    away = data.measured * (data.b - h["mean"])

    def without(d, W, P, e):
        rest = np.eye(P.shape[-1]) - W @ P
        shift = np.linalg.solve(rest, d[..., None] - W @ (P @ e[..., None]))[..., 0]
        V = np.linalg.solve(rest, W)
        return shift, (V + np.swapaxes(V, -1, -2)) / 2

    core = [VECTOR, MATRIX, MATRIX, VECTOR]
    values = mean - h["mean"], multivariate.squared(factor, SOURCE), data.P, away
    shift, V = xr.apply_ufunc(without, *values, input_core_dims=core, output_core_dims=[VECTOR, MATRIX])
    return h["mean"] + shift, V


def log_left_out(h, data):
    """Log density of what was measured at a time given the data of all others [nats]: an interpolation."""
    return multivariate.log_density(data, *given_others(h, data))


def tails(h, data):
    """Probabilities of no more than what was measured at a time, and of no less, given the data of all others."""
    return multivariate.tails_of(data, *given_others(h, data))


def reliability(h, data):
    """What a time's own data take off its variance given the others, as a share of that; 0 where that is 0."""
    _, V = given_others(h, data)
    before = xr.apply_ufunc(
        lambda V: np.einsum("...kk->...k", V), V, input_core_dims=[MATRIX], output_core_dims=[VECTOR]
    )
    return (1 - conditional(h, data).sd ** 2 / before.where(before > 0, 1.0)).where(before > 0, 0.0)


def log_predictive(h, new, seen):
    """Log density of new data of each time given all that was seen [nats]."""
    mean, factor = _after(h, seen)
    return multivariate.log_density(new, mean, multivariate.squared(factor, SOURCE))


def expected_log_likelihood(h, data):
    """The log likelihood of each time averaged over theta | b of all [nats]."""
    mean, factor = _after(h, data)
    return multivariate.averaged(mean, multivariate.squared(factor, SOURCE), data)


def emptied(data):
    """The same times before their data."""
    nothing = {name: xr.zeros_like(data[name]) for name in ("b", "measured", "P")}
    one = xr.zeros_like(data.S) + np.eye(data.sizes["trait"])
    return data.assign(nothing | {"S": one})


def joined(*parts):
    """The times of several data sets, in order."""
    (group,) = parts[0].time.dims
    every = xr.concat([part[["b", "measured", "S", "P", "time"]] for part in parts], dim=group)
    return every.isel({group: np.argsort(every.time.values, kind="stable")}).assign_attrs(parts[0].attrs)
