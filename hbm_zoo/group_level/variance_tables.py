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
from hbm_zoo.group_level.tabulated import mirrored

WIDE = 240
CELLS_AT_ONCE = 4_000_000
#: How well fixed effects of new rows must be made of those seen, in units of what these span.
ESTIMABLE = 1e-6


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
        ``point``, ``log_likelihood`` [site, node]; ``log_sigma_E`` [site, node, deviate] and, before
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
    return of_sites.rename(quantiles="log_sigma_E")


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
    """The same sites before their data: nothing is known of sigma_A, its prior of sigma_E; no animal has a name."""
    before = data.log_sigma_E_before.broadcast_like(data.log_sigma_E)
    return data.assign(
        log_likelihood=xr.zeros_like(data.log_likelihood),
        log_sigma_E=before.transpose(*data.log_sigma_E.dims),
    ).assign_coords(animal=np.full(data.sizes["animal"], ""))


def sigma_E(rng: np.random.Generator, a: np.ndarray, data: xr.Dataset, j: int) -> np.ndarray:
    """A draw of sigma_E of a site for each of its parameters a [draw], given its data."""
    return np.exp(drawn(rng, a, *(data[name].values[j] for name in ("point", "log_sigma_E"))))


def place(data: xr.Dataset, i: int) -> tuple[int, int]:
    """The site of a scored row, and which of its rows it is."""
    record = int(data["scored_row"].values[i])
    j = int(data["site_of"].values[record])
    return j, int((data["site_of"].values[:record] == j).sum())


def without_rows(data: xr.Dataset, j: int, point: np.ndarray, rows, sigma_A: Callable) -> np.ndarray:
    """Log likelihood of a site at points, without each of some of its rows [row, point]; NaN of one that cannot be.

    The density of the contrasts without a row is theirs over p(y_i | the others, sigma_A, sigma_E), integrated over
    sigma_E anew.
    """
    one, y, _ = experiment(data, j)
    at, which = np.unique(sigma_A(point), return_inverse=True)
    before = data["log_sigma_E_before"].values
    nuisance = _over_sigma_E(data, j, log_density_of(before), before[[0, -1]])
    without = nuisance.without(at, lambda sigma_A, t: _rows(one, y, sigma_A, t, rows))
    return without[which].T


def _rows(one: contrasts.Design, y: np.ndarray, sigma_A: np.ndarray, t: np.ndarray, rows) -> np.ndarray:
    """Log density of rows given all others, at points [sigma_A, point] of log sigma_E [sigma_A, point, row]."""
    at = np.broadcast_to(sigma_A[:, None], t.shape)
    return contrasts.given_others(one, y, at.ravel(), np.exp(t).ravel(), rows).reshape(*t.shape, -1)


def replicate(rng, theta, new: xr.Dataset, seen: xr.Dataset, sigma_A: Callable) -> xr.DataArray:
    """Responses [..., record] of new animals, offspring of the parents that rows name, at sites that were seen.

    A parent that was seen at the site has the breeding value that its relatives there tell of; another is unrelated.

    Raises
    ------
    ValueError
        If a site was not seen, or a row has a fixed effect that its site did not have: of it nothing is known; or an
        animal of the pedigree has other parents than it had.
    """
    _check_parents(seen, new)
    dims = [dim for dim in theta.dims if dim != "site"]
    flat = theta.stack(draw_of=dims, create_index=False).transpose("draw_of", "site")
    sites = list(map(str, seen["site"].values))
    found = np.empty((flat.sizes["draw_of"], new.sizes["record"]))
    for i, label in enumerate(map(str, new["site"].values)):
        if label not in sites:
            raise ValueError(
                f"The mean of site {label!r} has a flat prior: its raw data are not predicted, its sigma_A is."
            )
        j, a = sites.index(label), flat.values[:, i]
        scale, noise = sigma_A(a), sigma_E(rng, a, seen, j)
        one, y, there = experiment(seen, j)
        values, Xb = contrasts.drawn(rng, one, y, scale, noise)
        mean = _at_new_rows(Xb, seen, j, new, i, label)
        fresh, _, asked = experiment(new, i)
        by_name = dict(zip(seen["animal"].values[there], values.T, strict=True))
        parents = np.union1d(fresh.sire, fresh.dam)
        known = {k: by_name[name] for k in parents if k >= 0 and (name := new["animal"].values[asked[k]]) in by_name}
        values, errors = contrasts.fresh(rng, fresh, scale, noise, known)
        found[:, new["site_of"].values == i] = mean + values[:, fresh.row] + errors
    sizes = [theta.sizes[dim] for dim in dims]
    coords = {dim: theta[dim] for dim in dims if dim in theta.coords}
    return xr.DataArray(found.reshape(*sizes, -1), coords, (*dims, "record"))


def _check_parents(seen: xr.Dataset, new: xr.Dataset) -> None:
    """Refuse a pedigree in which an animal that was seen has other parents."""
    if "pedigree.row" not in new.dims:  # without one, labels are of parents, of whom nobody names the parents
        return
    was, now = (_parents(data) for data in (seen, new))
    for name in was.keys() & now.keys():
        for role, before, after in zip(("sire", "dam"), was[name], now[name], strict=True):
            if before != after and None not in (before, after):
                raise ValueError(
                    f"predict expected the pedigree of the fit, in which the {role} of {name!r} is {before!r}, got "
                    f"{after!r}."
                )


def _parents(data: xr.Dataset) -> dict:
    """Sire and dam of each animal by label, None where not known."""
    label = dict(enumerate(data["animal"].values))
    pairs = zip(data["sire"].values, data["dam"].values, strict=True)
    return {label[i]: tuple(map(label.get, map(int, pair))) for i, pair in enumerate(pairs)}


def _at_new_rows(Xb: np.ndarray, seen: xr.Dataset, j: int, new: xr.Dataset, i: int, label: str) -> np.ndarray:
    """X b of new rows from that of the rows seen, where it is estimable."""
    X = seen["X"].values[seen["site_of"].values == j]
    asked = new["X"].isel(record=new["site_of"].values == i)
    unseen = [str(name) for name in asked["effect"].values if name not in seen["effect"].values]
    unseen = [name for name in unseen if asked.sel(effect=name).values.any()]
    at = asked.reindex(effect=seen["effect"].values, fill_value=0.0).values
    centre, unit = contrasts.units(X)
    X, at = (X - centre) / unit, (at - centre) / unit
    inverse = np.linalg.pinv(X)
    if unseen or (abs(at @ inverse @ X - at) > ESTIMABLE * np.maximum(1, abs(at))).any():
        what = f" {unseen[0]!r}" if unseen else ""
        raise ValueError(f"Site {label!r} has no data of a fixed effect{what} that a row asks for.")
    return Xb @ (at @ inverse).T
