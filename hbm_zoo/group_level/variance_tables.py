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

from hbm_zoo.group_level import contrasts
from hbm_zoo.group_level.contrasts import experiment
from hbm_zoo.group_level.nuisance import Nuisance, drawn, log_density_of
from hbm_zoo.group_level.tabulated import mirrored, with_top

WIDE = 240
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
        Its quantiles at the probabilities of `nuisance.DEVIATES`.
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
        made = _over_sigma_E(data, j, lambda t: log_prior(np.exp(t)) + t, before[[0, -1]]).tabulated(wide, sigma_A)
        found.append(mirrored(made) if even else made)
    dims = {"point": "node", "log_likelihood": "node", "quantiles": ("node", "deviate")}
    stacked = {
        name: (("site", *np.atleast_1d(rest)), np.stack([one[name] for one in found])) for name, rest in dims.items()
    }
    of_sites = xr.Dataset(stacked | {"log_sigma_E_before": ("deviate", before)})
    return with_top(of_sites.rename(quantiles="log_sigma_E"))


def _over_sigma_E(data: xr.Dataset, j: int, log_prior: Callable, ends: np.ndarray) -> Nuisance:
    """Log sigma_E of a site, integrated out at each sigma_A, where prior or data have it."""
    d, n, SS = (data[name].values[j] for name in ("d", "n", "SS"))
    d, n, SS = d[n > 0], n[n > 0], SS[n > 0]
    typical = np.log(SS.sum() / n.sum()) / 2 if SS.sum() > 0 else ends.mean()
    low, high = min(ends[0], typical - 8), max(ends[-1], typical + 3)

    def integrand(sigma_A, t):
        step = max(1, CELLS_AT_ONCE // max(1, t.shape[1] * d.size))
        parts = [slice(start, start + step) for start in range(0, sigma_A.size, step)]
        sigma_E = np.exp(t)
        of_data = [contrasts.log_density(sigma_A[p, None], sigma_E[p], d, n, SS) for p in parts]
        return log_prior(t) + np.concatenate(of_data)

    return Nuisance(integrand, lambda sigma_A: (low, high))


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
    return np.exp(drawn(rng, a, *(data[name].values[j] for name in ("point", "log_sigma_E"))))


def place(data: xr.Dataset, i: int) -> tuple[int, int]:
    """The site of a scored row, and which of its rows it is."""
    record = int(data["scored_row"].values[i])
    j = int(data["site_of"].values[record])
    return j, int((data["site_of"].values[:record] == j).sum())


def without_rows(data: xr.Dataset, j: int, sigma_A: Callable) -> np.ndarray:
    """Log of a site's likelihood without each of its rows [row, node], in units of its table; NaN of a row that cannot.

    The density of the contrasts without a row is theirs over p(y_i | the others, sigma_A, sigma_E), integrated over
    sigma_E anew.
    """
    one, y, _ = experiment(data, j)
    of_node, which = np.unique(sigma_A(data["point"].values[j]), return_inverse=True)
    before = data["log_sigma_E_before"].values
    nuisance = _over_sigma_E(data, j, log_density_of(before), before[[0, -1]])
    gained = nuisance.gained_without(of_node, lambda sigma_A, t: _rows(one, y, sigma_A, t))
    with np.errstate(divide="ignore"):
        return (np.log(data["likelihood"].values[j])[:, None] + gained[which]).T


def _rows(one: contrasts.Design, y: np.ndarray, sigma_A: np.ndarray, t: np.ndarray) -> np.ndarray:
    """Log density of each row given the others, at points [sigma_A, point] of log sigma_E [sigma_A, point, row]."""
    at = np.broadcast_to(sigma_A[:, None], t.shape)
    return contrasts.given_others(one, y, at.ravel(), np.exp(t).ravel()).reshape(*t.shape, -1)


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
