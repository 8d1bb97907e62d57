"""What the data of a site say of sigma_A, tabulated once: sigma_E integrated out, and drawn again where it is wanted.

p(sigma_E) is of each site alone and no pooling changes it, so that

    L_l(sigma_A) = integral of p(q_l | sigma_A, sigma_E) p(sigma_E) d sigma_E

is a function of one number. At each of its nodes the table keeps the quantiles of sigma_E given sigma_A and the data,
at standard normal deviates: between them, and so for a log normal prior everywhere, log sigma_E is linear in these.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import xarray as xr
from scipy import special

from hbm_zoo.group_level import contrasts
from hbm_zoo.group_level.contrasts import experiment
from hbm_zoo.group_level.tabulated import mirrored, placed, weights, with_top

NODES = 97
WIDE = 240
COARSE, FINE = 97, 65  # Points of log sigma_E, to find where the integrand is and to integrate it.
NATS = 30.0
DEVIATES = np.linspace(-5, 5, 41)
CELLS_AT_ONCE = 4_000_000
#: How well fixed effects of new rows must be made of those seen, in units of what these span; the least span, relative.
ESTIMABLE, SPAN_LEAST = 1e-6, 1e-9


def tables(
    data: xr.Dataset, log_prior: Callable, quantiles: np.ndarray, sigma_A: Callable, wide: np.ndarray, even: bool
) -> xr.Dataset:
    """The table of every site.

    Parameters
    ----------
    data : xarray.Dataset
        With eigenvalues ``d``, counts ``n`` and sums of squares ``SS`` [site, eigen].
    log_prior : callable
        Log density of sigma_E.
    quantiles : numpy.ndarray
        Its quantiles at the probabilities of `DEVIATES`.
    sigma_A : callable
        Of the parameter that the population is of.
    wide : numpy.ndarray
        Parameters, as of `tabulated.placed`.
    even : bool
        Whether the likelihood is even; then ``wide`` starts at 0.

    Returns
    -------
    xarray.Dataset
        ``point``, ``likelihood`` [site, node], ``log_top`` [site]; ``log_sigma_E`` [site, node, deviate] and, before
        any data, ``log_sigma_E_before`` [deviate].
    """
    before = np.log(quantiles)
    found = []
    for j in range(data.sizes["site"]):
        d, n, SS = (data[name].values[j] for name in ("d", "n", "SS"))
        used = n > 0
        given = (d[used], n[used], SS[used]), log_prior, before[[0, -1]]
        rough = roughly_over_sigma_E(sigma_A(wide), *given)
        point = placed(wide, np.exp(rough - rough.max()), NODES)
        log_likelihood, of_sigma_E = over_sigma_E(sigma_A(point), *given)
        made = {"point": point, "log_likelihood": log_likelihood, "log_sigma_E": _at_deviates(*of_sigma_E)}
        found.append(mirrored(made) if even else made)
    dims = {"point": ("node",), "log_likelihood": ("node",), "log_sigma_E": ("node", "deviate")}
    stacked = {name: (("site", *rest), np.stack([one[name] for one in found])) for name, rest in dims.items()}
    of_sites = xr.Dataset(stacked | {"log_sigma_E_before": ("deviate", before)})
    return with_top(of_sites)


def over_sigma_E(sigma_A: np.ndarray, eigen, log_prior: Callable, ends: np.ndarray):
    """Log likelihood of each sigma_A, sigma_E integrated out by the trapezoid rule where the integrand is not nothing.

    With it the points [sigma_A, point] of log sigma_E and the share of the integral at each.
    """
    t, f, gap = _coarse(sigma_A, eigen, log_prior, ends)
    t = _fine(t, f > f.max(axis=1, keepdims=True) - NATS, gap)
    f = _integrand(sigma_A, t, eigen, log_prior)
    return special.logsumexp(f, axis=1) + np.log(t[:, 1] - t[:, 0]), (t, special.softmax(f, axis=1))


def _fine(t: np.ndarray, near: np.ndarray, gap: float) -> np.ndarray:
    """Points [sigma_A, point] from the first to the last of the coarse ones [point] that are near the top."""
    low, high = t[near.argmax(axis=1)] - gap, t[COARSE - 1 - near[:, ::-1].argmax(axis=1)] + gap
    return low[:, None] + (high - low)[:, None] * np.linspace(0, 1, FINE)


def roughly_over_sigma_E(sigma_A: np.ndarray, *given) -> np.ndarray:
    """The same on points that are the same for all sigma_A: where its likelihood bends is seen on them."""
    _, f, gap = _coarse(sigma_A, *given)
    return special.logsumexp(f, axis=1) + np.log(gap)


def _coarse(sigma_A: np.ndarray, eigen, log_prior: Callable, ends: np.ndarray) -> tuple[np.ndarray, np.ndarray, float]:
    """Points of log sigma_E that reach beyond prior and data, the integrand there, and their distance."""
    _, n, SS = eigen
    typical = np.log(SS.sum() / n.sum()) / 2 if SS.sum() > 0 else ends.mean()
    t = np.linspace(min(ends[0], typical - 8), max(ends[-1], typical + 3), COARSE)
    return t, _integrand(sigma_A, t[None], eigen, log_prior), t[1] - t[0]


def _integrand(sigma_A: np.ndarray, t: np.ndarray, eigen, log_prior: Callable) -> np.ndarray:
    """Log density [sigma_A, point] of the contrasts and of t = log sigma_E [nats]."""
    before = np.broadcast_to(log_prior(np.exp(t)) + t, (sigma_A.size, t.shape[1]))
    step = max(1, CELLS_AT_ONCE // max(1, t.shape[1] * eigen[0].size))
    parts = [slice(start, start + step) for start in range(0, sigma_A.size, step)]
    points = np.broadcast_to(np.exp(t), before.shape)
    return before + np.concatenate([contrasts.log_density(sigma_A[p, None], points[p], *eigen) for p in parts])


def _at_deviates(t: np.ndarray, masses: np.ndarray) -> np.ndarray:
    """Quantiles [..., deviate] of points [..., point] with masses."""
    below = np.cumsum(masses, axis=1) - masses / 2
    z = special.ndtri(np.clip(below, 1e-15, 1 - 1e-15))
    return np.array([np.interp(DEVIATES, z[i], t[i]) for i in range(len(t))])


def emptied(data: xr.Dataset) -> xr.Dataset:
    """The same sites before their data: nothing is known of sigma_A, and of sigma_E its prior."""
    before = data.log_sigma_E_before.broadcast_like(data.log_sigma_E)
    return data.assign(
        likelihood=xr.ones_like(data.likelihood),
        log_top=0 * data.log_top,
        log_sigma_E=before.transpose(*data.log_sigma_E.dims),
    )


def sigma_E(rng: np.random.Generator, a: np.ndarray, data: xr.Dataset, j: int) -> np.ndarray:
    """A draw of sigma_E of a site for each of its parameters a [draw], given its data."""
    node, likelihood, quantiles = (data[name].values[j] for name in ("point", "likelihood", "log_sigma_E"))
    right = np.clip(np.searchsorted(node, a), 1, node.size - 1)
    share = np.clip((a - node[right - 1]) / (node[right] - node[right - 1]), 0, 1)
    left_mass, right_mass = (1 - share) * likelihood[right - 1], share * likelihood[right]
    with np.errstate(invalid="ignore"):
        of_right = np.nan_to_num(right_mass / (left_mass + right_mass), nan=0.5)
    chosen = np.where(rng.random(a.size) < of_right, right, right - 1)
    z = np.clip(rng.standard_normal(a.size), *DEVIATES[[0, -1]])
    place = (z - DEVIATES[0]) / (DEVIATES[1] - DEVIATES[0])
    low = np.minimum(place.astype(int), DEVIATES.size - 2)
    first, second = quantiles[chosen, low], quantiles[chosen, low + 1]
    return np.exp(first + (place - low) * (second - first))


def without_rows(data: xr.Dataset, j: int, sigma_A: Callable) -> np.ndarray:
    """Log of a site's likelihood without each of its rows [row, node], in units of its table; NaN of a row that cannot.

    The density of the contrasts without a row is theirs over p(y_i | the others, sigma_A, sigma_E), integrated over
    sigma_E anew: without an outlier it lies elsewhere.
    """
    one, y, _ = experiment(data, j)
    of_node, which = np.unique(sigma_A(data["point"].values[j]), return_inverse=True)
    used = data["n"].values[j] > 0
    eigen = tuple(data[name].values[j, used] for name in ("d", "n", "SS"))
    before = data["log_sigma_E_before"].values
    given = eigen, lambda sigma_E: _log_prior(np.log(sigma_E), before), before[[0, -1]]
    t, f, gap = _coarse(of_node, *given)
    t = np.broadcast_to(t, f.shape)
    with np.errstate(invalid="ignore", divide="ignore"):
        without = f[..., None] - _rows(one, y, of_node, t)
        near = (without > without.max(axis=1, keepdims=True) - NATS).any(axis=2) | (f > f.max(axis=1)[:, None] - NATS)
        t = _fine(t[0], near, gap)
        f = _integrand(of_node, t, *given[:2])
        without = special.logsumexp(f[..., None] - _rows(one, y, of_node, t), axis=1)
        gained = without - special.logsumexp(f, axis=1)[:, None]
        return (np.log(data["likelihood"].values[j])[:, None] + gained[which]).T


def _rows(one: contrasts.Design, y: np.ndarray, sigma_A: np.ndarray, t: np.ndarray) -> np.ndarray:
    """Log density of each row given the others, at points [sigma_A, point] of log sigma_E [sigma_A, point, row]."""
    at = np.broadcast_to(sigma_A[:, None], t.shape)
    return contrasts.given_others(one, y, at.ravel(), np.exp(t).ravel()).reshape(*t.shape, -1)


def _log_prior(t: np.ndarray, before: np.ndarray) -> np.ndarray:
    """Log density of sigma_E, but for a constant, from log sigma_E and its quantiles at `DEVIATES`."""
    slope = np.gradient(DEVIATES, before)
    inside = np.clip(t, before[0], before[-1])
    z = np.interp(inside, before, DEVIATES) + (t - inside) * np.where(t < inside, slope[0], slope[-1])
    return -(z**2) / 2 + np.log(np.interp(inside, before, slope)) - t


def replicate(rng, theta, new: xr.Dataset, seen: xr.Dataset, sigma_A: Callable) -> xr.DataArray:
    """Responses [..., record] of new animals like those of the rows asked for, at sites that were seen.

    Raises
    ------
    ValueError
        If a site was not seen, or a row has a fixed effect that its site did not have: of it nothing is known.
    """
    dims = [dim for dim in theta.dims if dim != "site"]
    flat = theta.stack(draw_of=dims, create_index=False).transpose("draw_of", "site")
    known = list(map(str, seen["site"].values))
    found = np.empty((flat.sizes["draw_of"], new.sizes["record"]))
    for i, label in enumerate(map(str, new["site"].values)):
        if label not in known:
            raise ValueError(
                f"The mean of site {label!r} has a flat prior: its raw data are not predicted, its sigma_A is."
            )
        j, a = known.index(label), flat.values[:, i]
        scale, noise = sigma_A(a), sigma_E(rng, a, seen, known.index(label))
        one, y, _ = experiment(seen, j)
        Xb = contrasts.drawn(rng, one, y, scale, noise)[1]
        mean = _at_new_rows(Xb, seen, j, new, i, label)
        fresh = experiment(new, i)[0]
        values, errors = contrasts.fresh(rng, fresh, scale, noise)
        found[:, new["site_of"].values == i] = mean + values[:, fresh.row] + errors
    sizes = [theta.sizes[dim] for dim in dims]
    coords = {dim: theta[dim] for dim in dims if dim in theta.coords}
    return xr.DataArray(found.reshape(*sizes, -1), coords, (*dims, "record"))


def _at_new_rows(Xb: np.ndarray, seen: xr.Dataset, j: int, new: xr.Dataset, i: int, label: str) -> np.ndarray:
    """X b of new rows from that of the rows seen, where it is estimable."""
    X = seen["X"].values[seen["site_of"].values == j]
    asked = new["X"].isel(record=new["site_of"].values == i)
    unseen = [str(name) for name in asked["effect"].values if name not in seen["effect"].values]
    unseen = [name for name in unseen if asked.sel(effect=name).values.any()]
    at = asked.reindex(effect=seen["effect"].values, fill_value=0.0).values
    unit = np.maximum(abs(X).max(axis=0), abs(at).max(axis=0, initial=0.0))
    unit[unit == 0] = 1.0
    span = np.ptp(X, axis=0)
    varies = span > SPAN_LEAST * unit
    centre, scale = X.mean(axis=0) * varies, np.where(varies, span, unit)  # the first column, of ones, makes up for it
    X, at = (X - centre) / scale, (at - centre) / scale
    inverse = np.linalg.pinv(X)
    if unseen or (abs(at @ inverse @ X - at) > ESTIMABLE * np.maximum(1, abs(at))).any():
        what = f" {unseen[0]!r}" if unseen else ""
        raise ValueError(f"Site {label!r} has no data of a fixed effect{what} that a row asks for.")
    return Xb @ (at @ inverse).T


def leave_row_out(h, data: xr.Dataset, rows: np.ndarray, population: Callable, sigma_A: Callable) -> xr.DataArray:
    """Log density of scored rows given all others [..., scored] [nats]."""
    parts = []
    for i in rows:
        record = int(data["scored_row"].values[i])
        j = int(data["site_of"].values[record])
        held = _Held.of(h, data, j, population, sigma_A)
        position = int((data["site_of"].values[:record] == j).sum())
        parts.append(held.whole - np.log(xr.dot(held.weights, held.without(position), dim="node")))
    return xr.concat(parts, dim="scored")


class _Held:
    """The weights of one site's nodes at hyperparameters that are asked of row by row."""

    last: list = []

    def __init__(self, h, data, j, population, sigma_A):
        one = data[["point", "likelihood"]].isel(site=j, drop=True)
        before = population(h)
        self.weights = weights(before.mean, before.sd, one.point)
        self.whole = np.log(xr.dot(self.weights, one.likelihood, dim="node"))
        self.table = np.exp(without_rows(data, j, sigma_A))

    def without(self, position: int) -> xr.DataArray:
        return xr.DataArray(self.table[position], dims="node")

    @classmethod
    def of(cls, *asked) -> _Held:
        """The one held, if it is of the same; else made anew."""
        h, data, j, *_ = asked
        if not (cls.last and cls.last[0] is h and cls.last[1] is data and cls.last[2] == j):
            cls.last[:] = [h, data, j, cls(*asked)]
        return cls.last[3]


def without_row(data: xr.Dataset, i: int, sigma_A: Callable) -> xr.Dataset:
    """The data without one scored row: the table of its site."""
    record = int(data["scored_row"].values[i])
    j = int(data["site_of"].values[record])
    log_l = without_rows(data, j, sigma_A)[int((data["site_of"].values[:record] == j).sum())]
    log_likelihood = np.log(data.likelihood) + data.log_top
    log_likelihood[j] = log_l + data.log_top.values[j]
    return data.assign(with_top(data.assign(log_likelihood=log_likelihood))[["likelihood", "log_top"]])
