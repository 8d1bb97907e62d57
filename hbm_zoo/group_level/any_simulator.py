"""Groups whose simulator is wrong, each in its own way, and smooth in a parameter, not linear: one integral a group.

    y_ji = F_ji(b_j, r) + w_ji v_jp + e_ji,    e ~ N(0, sigma^2),    p = p(j, i) the point that a row is of
    b_j ~ N(m, s^2),  v_j ~ N(0, a^2 C),  C_pq = alike_pq exp(-apart_pq / (2 ell^2))

F is what a simulator says, by Chebyshev's polynomials t_k through its runs between two ends, and in straight lines
beyond them; its second parameter r, if it has one, is one of h, and the coefficients are those at r. Given b_j and h
all is normal, and v_j is integrated out: with W_j = O_j V_j, the columns of O_j orthonormal, S_j = I + a^2 V_j C V_j' /
sigma^2, and the polynomials' coefficients of O_j' (y_j - F_j), ``towards``, and of what is left of y_j - F_j beside
O_j, ``beside``, both [.., power],

    log p(y_j | b, h) = -1/2 (n log 2 pi sigma^2 + log|S_j| + |E_j t(b)|^2),  E_j = [S_j^-1/2 towards, beside] / sigma,

whatever the number of rows. It may have several tops, and b_j is integrated numerically, in units of z = (b - m) / s,
by the trapezoid rule: grids close in on all that is within `NATS` of the top, so that a likelihood that is far narrower
than the population is found, and s = 0 is no limit. Tops that are apart and each far narrower than their distance are
beyond it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import pytensor.tensor as pt
import xarray as xr
from pytensor.gradient import disconnected_grad

from hbm_zoo.group_level.any_simulator_rows import POWERS, emptied, joined, without_group
from hbm_zoo.group_level.band_limited import Tabulated
from hbm_zoo.group_level.discrepancy import posterior_factor, random_estimates, root, whitening
from hbm_zoo.group_level.kept import last_kept
from hbm_zoo.group_level.level import GroupLevel, summed
from hbm_zoo.group_level.normal import LOG_2PI
from hbm_zoo.group_level.populations import Normal

KAPPA = "1 - Var(b | y, h) / s^2, the discrepancy not known; at the data at hand, where the simulator bends"
#: Points of grids that close in on the integrand, and of the last; what it has lost at their ends.
CLOSING, NODES = (96, 48, 48), 96
NATS = 30.0
LEAST_SPREAD = 1e-12
AT_ONCE = 2_000_000
COMMON = ("m", "s", "sigma", "a", "ell", "r")
#: What is known of groups and of points, and the dims of each.
GROUPS = {
    "n": [],
    "towards": ["point", "power", "of_rig"],
    "beside": ["also_power", "power", "of_rig"],
    "V": ["point", "near"],
    "b_hat": [],
}
PLACES = {"apart": ["point", "near"], "alike": ["point", "near"], "ends": ["end"], "rig_ends": ["end"]}


# Of arrays: by NumPy with draws first [draw, group, ...], or by PyTensor for one h.


def polynomials(b, ends, xp):
    """Chebyshev's t_k [..., node, power] at b [..., node], and beyond the ends the straight lines that they end in.

    By t_{n + k} = 2 t_n t_k - t_{n - k}, all k < n at once: a cosine each would cost ten times as much.
    """
    x, k = ((2 * b - ends[0] - ends[1]) / (ends[1] - ends[0]))[..., None, :], np.arange(POWERS)[:, None]
    inside = xp.clip(x, -1, 1)
    t, n = xp.concatenate([xp.ones_like(x), inside], axis=-2), 2
    while n < POWERS:
        next_one = 2 * t[..., n // 2 : n // 2 + 1, :] ** 2 - 1
        t = xp.concatenate([t, 2 * next_one * t - xp.concatenate([next_one, t[..., :0:-1, :]], axis=-2)], axis=-2)
        n *= 2
    beyond = x - inside
    return xp.swapaxes(t[..., :POWERS, :] + k**2 * (k % 2 * beyond + (1 - k % 2) * abs(beyond)), -1, -2)


def of_rig(coefficients, r, rig_ends, xp):
    """Coefficients [..., power, of_rig] at r, of one h or of each draw [draw, ..., power]."""
    t = polynomials(r[..., None], rig_ends, xp)[..., 0, : coefficients.shape[-1]]
    return (coefficients * t).sum(axis=-1) if xp is pt else np.tensordot(t, coefficients, (-1, -1))


def whitened(sigma, a_root, n, towards, beside, V, xp):
    """E [..., group, row, power] with log p(y | b) = constant - |E t(b)|^2 / 2, and the constant [..., group]."""
    R, log_det = whitening(a_root[..., None, :, :], sigma, V, xp)
    E = xp.concatenate([R @ towards, beside / sigma[..., None, None, None]], axis=-2)
    return E, -0.5 * (n * (LOG_2PI + 2 * xp.log(sigma[..., None])) + log_det)


def misfit(b, E, ends, xp):
    """-|E t(b)|^2 / 2 at b [..., group, node]."""
    return -0.5 * ((E @ xp.swapaxes(polynomials(b, ends, xp), -1, -2)) ** 2).sum(axis=-2)


def on_nodes(m, s, E, b_hat, ends, xp):
    """Log integrand and z [..., group, node], and the step between nodes [..., group, 1]."""
    m, s = m[..., None, None], s[..., None, None]

    def log_f(z):
        return misfit(m + s * z, E, ends, xp) - z**2 / 2

    free = disconnected_grad if xp is pt else (lambda value: value)
    own = (b_hat[:, None] - m) / xp.maximum(s, LEAST_SPREAD)
    known = xp.concatenate([own, 0 * own], axis=-1)
    reach = xp.sqrt(2 * (NATS - xp.max(log_f(known), axis=-1)))[..., None]  # no log f is above -z^2 / 2
    low, high = free(-reach), free(reach)
    for size in CLOSING:
        z = low + (high - low) * np.linspace(0, 1, size)
        f = free(log_f(z))
        near, step = f > xp.max(f, axis=-1)[..., None] - NATS, (high - low) / (size - 1)
        low = xp.maximum(xp.min(xp.where(near, z, high), axis=-1)[..., None] - step, low)
        high = xp.minimum(xp.max(xp.where(near, z, low), axis=-1)[..., None] + step, high)
    low, high = free(low), free(high)
    z = low + (high - low) * np.linspace(0, 1, NODES)
    return log_f(z), z, (high - low) / (NODES - 1)


def log_integral(log_f, step, xp):
    """Log of the integral of f N(z; 0, 1) over the nodes [..., group]."""
    top = xp.max(log_f, axis=-1)
    total = xp.exp(log_f - top[..., None]).sum(axis=-1)
    return top + xp.log(total) + xp.log(step[..., 0]) - 0.5 * LOG_2PI


def log_density(value, n, towards, beside, V, b_hat, apart, alike, ends, rig_ends, m, s, sigma, a, ell, r, *of_line):
    """Log density of each group's rows, a PyTensor formula of one h [nats]; its statistics stand for the rows."""
    off = (of_rig(coefficients, r, rig_ends, pt) for coefficients in (towards, beside))
    E, constant = whitened(sigma, a * root(ell, apart, alike, pt), n, *off, V, pt)
    log_f, _, step = on_nodes(m, s, E, b_hat, ends, pt)
    return constant + log_integral(log_f, step, pt)


def random(
    n, towards, beside, V, b_hat, apart, alike, ends, rig_ends, m, s, sigma, a, ell, r, *of_line, rng=None, size=None
):
    """Draw b_hat of each group, of a simulator that is straight beyond its own estimate."""
    return random_estimates(n, *of_line, apart, alike, m, s, sigma, 0.0, ell, a, rng=rng, size=size)


# Of labelled hyperparameters and data.


@dataclass(frozen=True)
class Given:
    """Some draws of the hyperparameters as arrays [draw, ...], and the data's [group, ...]."""

    m: np.ndarray
    s: np.ndarray
    sigma: np.ndarray
    r: np.ndarray
    a_root: np.ndarray
    arrays: Mapping[str, np.ndarray]

    def at_r(self, coefficients):
        """Coefficients [..., power, of_rig] at each draw of r [draw, ..., power]."""
        return of_rig(coefficients, self.r, self.arrays["rig_ends"], np)

    @cached_property
    def towards(self):
        return self.at_r(self.arrays["towards"])

    @cached_property
    def whitened(self):
        n, beside, V = (self.arrays[name] for name in ("n", "beside", "V"))
        return whitened(self.sigma, self.a_root, n, self.towards, self.at_r(beside), V, np)

    @property
    def nodes(self):
        return on_nodes(self.m, self.s, self.whitened[0], self.arrays["b_hat"], self.arrays["ends"], np)

    def log_likelihood(self, b):
        """Log density of each group's rows at b [draw, group, node]."""
        E, constant = self.whitened
        return constant[..., None] + misfit(b, E, self.arrays["ends"], np)

    @property
    def towards_v(self):
        """Of v_j given b: the factor F of its covariance F F', and B with the mean B t(b)."""
        Vt, variance = np.swapaxes(self.arrays["V"], -1, -2), self.sigma[:, None, None, None] ** 2
        F, _ = posterior_factor(Vt @ self.arrays["V"] / variance, self.a_root[:, None], np)
        return F, F @ np.swapaxes(F, -1, -2) @ Vt @ self.towards / variance


def by_draw(formula: Callable, inner, h: xr.Dataset, data: xr.Dataset, b: xr.DataArray | None = None):
    """``formula(given, b)`` of portions of the draws: arrays [draw, *inner], labelled."""
    bare, arrays = [h[name].drop_vars(h[name].coords) for name in COMMON], {}
    points = (0.0 if b is None else b) * xr.ones_like(data["n"])
    points = points.drop_vars(points.coords)
    like = xr.broadcast(*bare, points.max("specimen"))[0]
    m, s, sigma, a, ell, r = (value.broadcast_like(like).transpose(*like.dims).values.ravel() for value in bare)
    known = points.broadcast_like(like).transpose(*like.dims, "specimen").values.reshape(m.size, data.sizes["specimen"])
    for name, dims in {**{name: ["specimen", *dims] for name, dims in GROUPS.items()}, **PLACES}.items():
        arrays[name] = data[name].transpose(*dims).values
    held = arrays["towards"].size + arrays["beside"].size
    step, parts = max(1, AT_ONCE // (1 + NODES * held // (POWERS * arrays["towards"].shape[-1]))), []
    for start in range(0, m.size, step):
        some = slice(start, start + step)
        a_root = a[some, None, None] * root(ell[some, None, None], arrays["apart"], arrays["alike"], np)
        parts.append(formula(Given(m[some], s[some], sigma[some], r[some], a_root, arrays), known[some]))
    labels = {"specimen": data["specimen"]} if "specimen" in data.coords else {}
    return [
        xr.DataArray(
            np.concatenate(v).reshape(*like.shape, *v[0].shape[1:]),
            labels if "specimen" in dims else {},
            (*like.dims, *dims),
        )
        for v, dims in zip(zip(*parts, strict=True), inner, strict=True)
    ]


def log_left_out(h, data):
    """Log density of each group's rows, b_j integrated out [nats]."""

    def integral(given, b):
        log_f, _, step = given.nodes
        return (given.whitened[1] + log_integral(log_f, step, np),)

    return by_draw(integral, [["specimen"]], h, data)[0]


@last_kept
def _posterior(h, data):
    """The nodes of each group [..., node], their weights, and the log likelihood there."""

    def table(given, b):
        log_f, z, _ = given.nodes
        weight = np.exp(log_f - log_f.max(axis=-1, keepdims=True))
        b = given.m[:, None, None] + given.s[:, None, None] * z
        return b, weight / weight.sum(axis=-1, keepdims=True), given.whitened[1][..., None] + log_f + z**2 / 2

    return by_draw(table, [["specimen", "node"]] * 3, h, data)


def conditional(h, data):
    """The population of b_j | y."""
    return Tabulated(*_posterior(h, data)[:2])


def log_likelihood(theta, h, data):
    """Log density of each group's rows at b_j [nats]."""
    at = [["specimen"]]
    return by_draw(lambda given, b: (given.log_likelihood(b[..., None])[..., 0],), at, h, data, theta)[0]


def expected_log_likelihood(h, data):
    """Its mean over b | y."""
    _, weight, level = _posterior(h, data)
    return (weight * level).sum("node", skipna=False)


def integration_error(h, data):
    """Standard error of each group's log density [nats], from what the simulator is off between its runs.

    Its errors at the rows are taken for independent and as large as the largest that was seen: the error is that times
    |V^-1 (y - F(b))|, V the covariance of the rows given b, at the mean of what is known of b.
    """
    middle = conditional(h, data).mean

    def error(given, b):
        R, _ = whitening(given.a_root[:, None], given.sigma, given.arrays["V"], np)
        E, t = given.whitened[0], polynomials(b, given.arrays["ends"], np)[..., None]
        points = given.arrays["V"].shape[-1]
        towards, beside = np.swapaxes(R, -1, -2) @ (E[..., :points, :] @ t), E[..., points:, :] @ t
        squares = (towards**2).sum(axis=(-2, -1)) + (beside**2).sum(axis=(-2, -1)) / given.sigma[:, None] ** 2
        return (data.attrs["table_error"] * np.sqrt(squares),)

    return by_draw(error, [["specimen"]], h, data, middle)[0]


def reliability(h, data):
    """1 - Var(b_j | y, h) / s^2, 0 where s is 0."""
    return (1 - conditional(h, data).sd ** 2 / xr.where(h.s > 0, h.s, 1.0) ** 2).where(h.s > 0, 0.0)


def discrepancies(rng, theta, h, data):
    """A draw of each group's v_j [..., specimen, point] given its rows and b_j."""

    def draw(given, b):
        F, B = given.towards_v
        t = polynomials(b, given.arrays["ends"], np)
        z = rng.standard_normal((*b.shape, F.shape[-1]))
        return ((B @ t[..., None] + F @ z[..., None])[..., 0],)

    return by_draw(draw, [["specimen", "point"]], h, data, theta)[0]


def realities(rng, theta, h, new, seen):
    """What the simulator says of new rows at theta, and a draw of the discrepancy there [..., row], given all seen."""
    both = joined(seen, emptied(new))
    b = theta.assign_coords(specimen=new["specimen"].values.astype(str)).reindex(specimen=both["specimen"].values)
    delta = discrepancies(rng, b.fillna(0.0), h, both)
    first = both.sizes["row"] - new.sizes["row"]
    of, point = (xr.DataArray(both[name].values[first:], dims="row") for name in ("of_specimen", "point_index"))
    w = xr.DataArray(new["w"].values, dims="row")
    each = theta.isel(specimen=xr.DataArray(new["of_specimen"].values, dims="row"))
    predicted = simulated(each.drop_vars("specimen", errors="ignore"), h, new)
    return predicted, w * delta.isel(specimen=of, point=point).drop_vars("specimen")


def simulated(b, h, data):
    """What the simulator says of each row at a b, or at one each, and at the r of h [..., row]."""
    each = []
    for x, ends in ((xr.DataArray(b), "ends"), (h.r, "rig_ends")):
        t = polynomials(x.values.reshape(-1), data[ends].values, np).reshape(*x.shape, -1)
        each.append(xr.DataArray(t, dims=(*x.dims, "power")))
    of_b, of_r = each[0], each[1].isel(power=slice(data.sizes["of_rig"])).rename(power="of_rig")
    said = xr.DataArray(data["said"].values, dims=("row", "power", "of_rig"))
    return xr.dot(of_b, xr.dot(of_r, said, dim="of_rig"), dim="power")


def rig(h, data):
    """The discrepancies of the groups on average, at each point [..., point], given the rows.

    Their mean and sd are exact given h; where the simulator bends within what is known of b they are normal nearly.
    """

    def moments(given, b):
        log_f, z, _ = given.nodes
        weight = np.exp(log_f - log_f.max(axis=-1, keepdims=True))
        weight /= weight.sum(axis=-1, keepdims=True)
        nodes = given.m[:, None, None] + given.s[:, None, None] * z
        t = polynomials(nodes, given.arrays["ends"], np)
        middle = (weight[..., None] * t).sum(axis=-2)
        F, B = given.towards_v
        away = B @ np.swapaxes(t - middle[..., None, :], -1, -2)
        return (B @ middle[..., None])[..., 0], (F**2).sum(axis=-1) + (weight[..., None, :] * away**2).sum(axis=-1)

    mean, variance = by_draw(moments, [["specimen", "point"]] * 2, h, data)
    return Normal(mean.mean("specimen"), np.sqrt(variance.sum("specimen")) / data.sizes["specimen"])


def replicate(rng, theta, h, new, seen):
    """Y = F(b) + w v + e, as many rows as there are."""
    predicted, delta = realities(rng, theta, h, new, seen)
    return xr.apply_ufunc(rng.normal, *xr.broadcast(predicted + delta, h.sigma))


def group_level(**formulas) -> GroupLevel:
    """The group level; further formulas as of `GroupLevel`."""
    return GroupLevel(
        kind="integrated numerically",
        kappa=KAPPA,
        population=lambda h: Normal(h.m, h.s),
        conditional=conditional,
        log_joint=summed(log_left_out),
        log_left_out=log_left_out,
        log_likelihood=log_likelihood,
        expected_log_likelihood=expected_log_likelihood,
        reliability=reliability,
        integration_error=integration_error,
        replicate=replicate,
        without_group=without_group,
        emptied=emptied,
        cells=lambda data: 1,
        **formulas,
    )
