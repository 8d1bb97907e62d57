"""Groups whose simulator is wrong, given labelled hyperparameters of any dims: the formulas of `discrepancy`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import pandas as pd
import xarray as xr

from hbm_zoo.group_level.discrepancy import of_each, of_shared, posterior_factor, root, shared
from hbm_zoo.group_level.discrepancy_rows import emptied, joined
from hbm_zoo.group_level.normal import LOG_2PI
from hbm_zoo.group_level.populations import Normal

KAPPA = "1 - E[Var(b | y, h)] / Var(b | h), the discrepancy not known"
#: Numbers of all matrices of some draws.
AT_ONCE = 2_000_000
STATISTICS = ("b_hat", "n", "rest", "q", "of_design", "T")
COMMON, OWN = ("m", "s", "sigma", "a", "ell"), "a_own"


@dataclass(frozen=True)
class Joint(Normal):
    """Normals [..., specimen] that share sources of chance: mean + own z + loading t, t [..., source] of all alike."""

    inner: ClassVar[tuple[str, ...]] = ("source",)
    own: xr.DataArray
    loading: xr.DataArray

    def cells(self):
        """Each number alone."""
        return Normal(self.mean, self.sd).cells()

    def sample(self, rng):
        """One draw of all together."""
        mean, own = xr.broadcast(self.mean, self.own)
        outer = {dim: size for dim, size in mean.sizes.items() if dim != "specimen"}
        z = rng.standard_normal((*outer.values(), self.loading.sizes["source"]))
        together = xr.dot(self.loading, xr.DataArray(z, dims=(*outer, "source")), dim="source")
        return (mean + own * mean.copy(data=rng.standard_normal(mean.shape)) + together).transpose(*mean.dims)

    def log_density(self, x):
        """Of all numbers together [nats]."""

        def log_density(away, own, loading):
            covariance = loading @ np.swapaxes(loading, -1, -2) + own[..., None] ** 2 * np.eye(own.shape[-1])
            z = np.linalg.solve(covariance, away[..., None])[..., 0]
            return -0.5 * ((z * away).sum(axis=-1) + np.linalg.slogdet(covariance)[1] + own.shape[-1] * LOG_2PI)

        core = [["specimen"], ["specimen"], ["specimen", "source"]]
        return xr.apply_ufunc(log_density, x - self.mean, self.own, self.loading, input_core_dims=core)


@dataclass(frozen=True)
class _Given:
    """Hyperparameters as arrays: m [draw, specimen], s [draw, design], others [draw, ...]; and the data's."""

    m: np.ndarray
    s: np.ndarray
    sigma: np.ndarray
    a_root: np.ndarray
    own_root: np.ndarray | None
    arrays: tuple[np.ndarray, ...]

    @property
    def design(self):
        return self.arrays[4]

    @property
    def T(self):
        return self.arrays[5]

    @property
    def each(self):
        """What each group says."""
        return of_each(self.m, self.s, self.sigma, self.own_root, *self.arrays, np)

    def after(self, A, g):
        """What all say of the discrepancy that they share."""
        return shared(of_shared(A, np), g, self.a_root, self.design, np)

    def own(self, L, R, A):
        """Of what a design has of its own, given u: H, and a factor of its covariance."""
        known = np.swapaxes(self.T, -1, -2) @ self.T / self.sigma[:, None, None, None] ** 2
        return L @ np.swapaxes(A @ L, -1, -2) @ R, posterior_factor(known, L, np)[0]


def _by_draw(formula: Callable, h: xr.Dataset, data: xr.Dataset, dims, theta: xr.DataArray | None = None):
    """Apply a formula to hyperparameters of any dims, a portion of draws after the other.

    ``formula(given)`` returns arrays [draw, *dims]. A group whose parameter ``theta`` says, where it is not NaN, comes
    from that point, not from the population.
    """
    bare = [h[name].drop_vars(h[name].coords) for name in (*COMMON, OWN) if name in h]
    known = None if theta is None else theta.drop_vars(theta.coords)
    template = xr.broadcast(*bare, *([] if known is None else [known.isel(specimen=0)]))[0]
    m, s, sigma, a, ell, *own = (v.broadcast_like(template).transpose(*template.dims).values.ravel() for v in bare)
    arrays, J = [data[name].values for name in STATISTICS], data.sizes["specimen"]
    each_m, free = np.broadcast_to(m[:, None], (m.size, J)), np.ones(data.sizes["design"])
    if known is not None:
        points = known.broadcast_like(template).transpose(*template.dims, "specimen").values.reshape(-1, J)
        each_m = np.where(np.isnan(points), each_m, points)
        free = _apart_where_known(arrays, ~np.isnan(points[0]))
    step = max(1, AT_ONCE // ((J + free.size) * arrays[-1][0].size))
    parts = []
    for start in range(0, m.size, step):
        some = slice(start, start + step)
        R = root(ell[some, None, None], data["apart"].values, data["alike"].values, np)
        own_root = own[0][some, None, None] * R if own else None
        each_s = s[some, None] * free
        given = _Given(each_m[some], each_s, sigma[some], a[some, None, None] * R, own_root, tuple(arrays))
        parts.append(formula(given))
    by_dims = zip(dims, map(np.concatenate, zip(*parts, strict=True)), strict=True)
    return [_named(values, template, inner, data) for inner, values in by_dims]


def _apart_where_known(arrays: list[np.ndarray], known: np.ndarray) -> np.ndarray:
    """Give groups that are known and groups that are not designs of their own, in place; 0 for those of the known."""
    of_design, T = arrays[-2:]
    arrays[-2], kinds = pd.MultiIndex.from_arrays([of_design, known]).factorize()
    arrays[-1] = T[kinds.get_level_values(0).to_numpy(int)]
    return 1.0 - kinds.get_level_values(1).to_numpy(float)


def _named(values: np.ndarray, template: xr.DataArray, inner: list[str], data: xr.Dataset) -> xr.DataArray:
    """An array [draw, ...] with the dims of the draws, and the labels of the groups."""
    named = xr.DataArray(values.reshape(*template.shape, *values.shape[1:]), dims=(*template.dims, *inner))
    return named.assign_coords(specimen=data["specimen"]) if {"specimen"} & {*inner} & {*data.coords} else named


def _log_joint(given: _Given):
    """Of each group without the others, and what is added as they share u."""
    _, _, A, _, g, log_each = given.each
    _, _, Fv, half_log_det = given.after(A, g)
    return log_each, 0.5 * (Fv**2).sum(axis=-1) - half_log_det


def log_joint(h, data):
    """Log density of all rows [nats]."""
    log_each, together = _by_draw(_log_joint, h, data, (["specimen"], []))
    return log_each.sum("specimen", skipna=False) + together


def log_likelihood(theta, h, data):
    """Log density of the rows given each b_j [nats]; an equal share for each of what they say of u together."""
    log_each, together = _by_draw(_log_joint, h, data, (["specimen"], []), theta)
    return log_each + together / data.sizes["specimen"]


def expected_log_likelihood(h, data):
    """Its mean over b | y: half of kappa less than at the mean, for Var(b | y) = (H + I / s^2)^-1, H of the rows."""
    after = conditional(h, data)
    return log_likelihood(after.mean, h, data) - 0.5 * _kappa(after.sd, h.s)


def _conditional(given: _Given):
    L, R, A, q, g, _ = given.each
    F, _, Fv, _ = given.after(A, g)
    H, own = given.own(L, R, A)
    first, design = H[:, :, :1], given.design
    loading = -(first @ given.T)[:, :, 0, 1:][:, design] @ F
    mean = given.m + (first[:, design, 0] * q).sum(axis=-1) + (loading @ Fv[..., None])[..., 0]
    of_own = np.sqrt((own[:, :, 0] ** 2).sum(axis=-1))[:, design]
    return mean, np.sqrt(of_own**2 + (loading**2).sum(axis=-1)), of_own, loading


def conditional(h, data):
    """B | y of all groups together."""
    return Joint(*_by_draw(_conditional, h, data, (*[["specimen"]] * 3, ["specimen", "source"])))


def reliability(h, data):
    """Kappa = 1 - Var(b_j | y, h) / s^2, 0 where s is 0."""
    return _kappa(conditional(h, data).sd, h.s)


def _kappa(sd, s):
    return (1 - sd**2 / xr.where(s > 0, s, 1.0) ** 2).where(s > 0, 0.0)


def _log_left_out(given: _Given):
    _, _, A, _, g, log_each = given.each
    _, _, Fv, half_log_det = given.after(A, g)
    J, designs = given.design.size, len(given.T)
    others = np.bincount(given.design, minlength=designs) - np.eye(designs)  # of each design, for a group of each
    F, half_log_dets = posterior_factor(np.einsum("dk,nkpq->ndpq", others, of_shared(A, np)), given.a_root[:, None], np)
    v = (1 - np.eye(J)) @ g[..., 1:]
    of_others = (np.swapaxes(F, -1, -2)[:, given.design] @ v[..., None])[..., 0]
    gained = 0.5 * ((Fv**2).sum(axis=-1)[:, None] - (of_others**2).sum(axis=-1))
    return (log_each + gained - half_log_det[:, None] + half_log_dets[:, given.design],)


def log_left_out(h, data):
    """Log density of a group's rows given all other groups [nats]: they tell of the discrepancy."""
    return _by_draw(_log_left_out, h, data, (["specimen"],))[0]


def leave_row_out(h, data, rows):
    """Log density of some rows, by position, given all other rows [nats]."""
    away, precision = given_others(h, data, rows)
    return 0.5 * (np.log(precision) - LOG_2PI - precision * away**2)


def given_others(h, data, rows):
    """How far some rows, by position, lie from what all other rows expect, and the precision of that [..., row].

    Of a joint normal with the precision P and alpha = P (y - mean), they are alpha_i / P_ii and P_ii (Rasmussen &
    Williams 2006, section 5.4.2).
    """
    y, f, w, of, point = (data[name].values[rows] for name in ("deflection", "f", "w", "of_specimen", "point_index"))
    X = np.zeros((y.size, 1 + data.sizes["point"]))
    X[:, 0], X[np.arange(y.size), 1 + point] = f, w

    def of_rows(given: _Given):
        L, R, A, q, g, _ = given.each
        F, _, Fv, _ = given.after(A, g)
        H, own = given.own(L, R, A)
        variance, size = given.sigma[:, None] ** 2, (given.sigma.size, y.size)
        spread, told, left = np.empty(size), np.empty(size), np.empty((*size, X.shape[1]))
        for d in range(len(given.T)):
            here = given.design[of] == d
            XH = X[here] @ H[:, d]
            spread[:, here] = ((X[here] @ own[:, d]) ** 2).sum(axis=-1)
            told[:, here] = (XH * q[:, of[here]]).sum(axis=-1)
            left[:, here] = X[here] - XH @ given.T[d]
        towards_u = (left / variance[..., None])[..., 1:] @ F
        precision = (1 - spread / variance) / variance - (towards_u**2).sum(axis=-1)
        alpha = (y - given.m[:, of] * f - told) / variance - (towards_u @ Fv[..., None])[..., 0]
        return alpha / precision, precision

    return _by_draw(of_rows, h, data, (["row"], ["row"]))


def rig(h, data):
    """The discrepancy that all share, at each point, given the rows [..., point]."""

    def of_points(given: _Given):
        _, _, A, _, g, _ = given.each
        F, _, Fv, _ = given.after(A, g)
        return (F @ Fv[..., None])[..., 0], np.sqrt((F**2).sum(axis=-1))

    return Normal(*_by_draw(of_points, h, data, (["point"], ["point"])))


def discrepancies(rng, theta, h, data):
    """A draw of each group's discrepancy, u + v_j [..., specimen, point], given the rows and some b_j, by theta."""

    def draw(given: _Given):
        L, R, A, q, g, _ = given.each
        F, _, Fv, _ = given.after(A, g)
        u = (F @ (Fv + rng.standard_normal(Fv.shape))[..., None])[..., 0]
        every = np.repeat(u[:, None], given.design.size, axis=1)
        if given.own_root is None:
            return (every,)
        H, own = given.own(L, R, A)
        of_u = (given.T[..., 1:] @ u[:, None, :, None])[..., 0][:, given.design]
        z = rng.standard_normal((*q.shape[:2], own.shape[-1]))
        v = H[:, given.design] @ (q - of_u)[..., None] + own[:, given.design] @ z[..., None]
        return (every + v[..., 1:, 0],)

    return _by_draw(draw, h, data, (["specimen", "point"],), theta)[0]


def realities(rng, theta, h, new, seen):
    """What the simulator says of new rows at theta, and a draw of the discrepancy there [..., row], given all seen."""
    both = joined(seen, emptied(new))
    labels = both["specimen"].values.astype(str)
    theirs = new["specimen"].values.astype(str)
    each = theta.assign_coords(specimen=theirs).reindex(specimen=labels)
    delta = discrepancies(rng, each, h, both)
    first = both.sizes["row"] - new.sizes["row"]
    of, point = (xr.DataArray(both[name].values[first:], dims="row") for name in ("of_specimen", "point_index"))
    w = xr.DataArray(new["w"].values, dims="row")
    each = theta.isel(specimen=xr.DataArray(new["of_specimen"].values, dims="row"))
    predicted = simulated(each.drop_vars("specimen", errors="ignore"), h, new)
    return predicted, w * delta.isel(specimen=of, point=point).drop_vars("specimen")


def simulated(b, h, data):
    """What the simulator says of each row at a b, or at one each [..., row]."""
    return b * xr.DataArray(data["f"].values, dims="row")


def replicate(rng, theta, h, new, seen):
    """Y = b f + w (u + v) + e, as many rows as there are."""
    predicted, delta = realities(rng, theta, h, new, seen)
    return xr.apply_ufunc(rng.normal, *xr.broadcast(predicted + delta, h.sigma))
