"""Who survived of a year's animals, tabulated by the slope of survival: the intercept integrated out, and drawn again.

    y_i ~ Bernoulli(p_i),  p_i = 1 / (1 + exp(-alpha_0 - alpha z_i)),  alpha_0 ~ p(alpha_0)

The selection gradient of these animals is the average change of relative survival per unit of the trait (Janzen &
Stern 1998, Evolution 52:1564-1571),

    beta = alpha mean(p (1 - p)) / mean(p)

which has the sign of alpha and is no function of it that could be turned round: the gradient of a survival that is
steeper still falls again, as all that is left to tell apart are the animals at the step.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import xarray as xr
from scipy import special

from hbm_zoo.group_level.nuisance import Nuisance, drawn, log_density_of

STEEPEST, FLATTEST, WIDE = 40.0, 0.02, 80  # Slopes per unit of the trait that the nodes are chosen from.
NEAR, AROUND = 40.0, 161  # And those around the likeliest, in standard errors, closest there.
MOST_FACTORS = 1000
RIDGE = 0.01  # Precision that settles a likeliest slope where traits tell survivors from dead.


def tables(data: xr.Dataset, log_prior: Callable, quantiles: np.ndarray) -> xr.Dataset:
    """The table of every year.

    Parameters
    ----------
    data : xarray.Dataset
        With ``z``, ``survived``, ``of_year`` [animal].
    log_prior : callable
        Log density of alpha_0.
    quantiles : numpy.ndarray
        Its quantiles at `nuisance.DEVIATES`.

    Returns
    -------
    xarray.Dataset
        ``point``, ``log_likelihood`` [year, node]; ``alpha_0`` [year, node, deviate] and, before any data,
        ``alpha_0_before`` [deviate].
    """
    found = []
    for j in range(data.sizes["year"]):
        z, survived = animals(data, j)
        nuisance = _over_intercept(z, survived, log_prior, quantiles[[0, -1]])
        found.append(nuisance.tabulated(_slopes(z, survived), lambda alpha: alpha))
    dims = {"point": ["node"], "log_likelihood": ["node"], "quantiles": ["node", "deviate"]}
    stacked = {name: (["year", *rest], np.stack([one[name] for one in found])) for name, rest in dims.items()}
    return xr.Dataset(stacked | {"alpha_0_before": ("deviate", quantiles)}).rename(quantiles="alpha_0")


def animals(data: xr.Dataset, j: int) -> tuple[np.ndarray, np.ndarray]:
    """Traits and survival of a year's animals."""
    here = data["of_year"].values == j
    return data["z"].values[here], data["survived"].values[here]


def _over_intercept(z: np.ndarray, survived: np.ndarray, log_prior: Callable, ends: np.ndarray) -> Nuisance:
    """alpha_0, integrated out at each alpha between where the prior and where the animals would have it."""
    n, alive, of_alive = z.size, survived.sum(), z @ survived
    odds = special.logit((alive + 0.5) / (n + 1))
    furthest = abs(z).max(initial=0.0)

    def integrand(alpha, alpha_0):
        log_likelihood = alive * alpha_0 + of_alive * alpha[:, None] - _log_normaliser(alpha, alpha_0, z)
        return log_likelihood + log_prior(alpha_0)

    def between(alpha):
        reach = abs(alpha) * furthest + abs(odds) + 8
        return np.minimum(ends[0], -reach), np.maximum(ends[1], reach)

    return Nuisance(integrand, between)


def _log_normaliser(alpha: np.ndarray, alpha_0: np.ndarray, z: np.ndarray) -> np.ndarray:
    """Sum over animals of log(1 + exp(alpha_0 + alpha z)), alpha [node], alpha_0 [node, point].

    log(1 + e^x) is max(x, 0) and the log of a number from 1 to 2: of a thousand of these a product is at hand.
    """
    total = np.zeros_like(alpha_0)
    for some in np.split(z, range(MOST_FACTORS, z.size, MOST_FACTORS)):
        product = np.ones_like(alpha_0)
        for one in some:
            log_odds = alpha_0 + alpha[:, None] * one
            total += np.maximum(log_odds, 0)
            product *= 1 + np.exp(-np.abs(log_odds))
        total += np.log(product)
    return total


def _slopes(z: np.ndarray, survived: np.ndarray) -> np.ndarray:
    """Slopes that hold whatever a year's animals can say: of all sizes, and close around the likeliest."""
    outward = np.geomspace(FLATTEST, STEEPEST, WIDE)
    (_, centre), covariance = near_likeliest(z, survived)
    steps = np.sinh(np.linspace(-5, 5, AROUND)) / np.sinh(5)
    close = centre + np.sqrt(covariance[1, 1]) * NEAR * steps
    return np.unique(np.r_[-outward, 0.0, outward, close[abs(close) < STEEPEST]])


def near_likeliest(z: np.ndarray, survived: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Intercept and slope that survival is likeliest under, drawn a little to 0, and the inverse of the curvature."""
    X, at = np.column_stack([np.ones(z.size), z]), np.zeros(2)
    for _ in range(100):
        p = special.expit(X @ at)
        curvature = X.T @ (X * (p * (1 - p))[:, None]) + RIDGE * np.eye(2)
        step = np.linalg.solve(curvature, X.T @ (survived - p) - RIDGE * at)
        at = at + step / max(1.0, np.abs(step).max())
        if np.abs(step).max() < 1e-9:
            break
    return at, np.linalg.inv(curvature)


def emptied(data: xr.Dataset) -> xr.Dataset:
    """The same years before any animal was seen: nothing is known of alpha, and of alpha_0 its prior."""
    before = data.alpha_0_before.broadcast_like(data.alpha_0)
    return data.assign(
        log_likelihood=xr.zeros_like(data.log_likelihood),
        alpha_0=before.transpose(*data.alpha_0.dims),
    )


def intercepts(rng: np.random.Generator, alpha: np.ndarray, data: xr.Dataset, j: int) -> np.ndarray:
    """A draw of alpha_0 of a year for each of its slopes alpha [draw], given its animals."""
    return drawn(rng, alpha, *(data[name].values[j] for name in ("point", "alpha_0")))


def gradient(alpha: np.ndarray, alpha_0: np.ndarray, z: np.ndarray) -> np.ndarray:
    """The selection gradient [draw] of animals with traits z, at slopes and intercepts [draw].

    Examples
    --------
    As survival gets steeper it rises, and falls again.

    >>> z = np.random.default_rng(1).standard_normal(30)
    >>> steeper = gradient(np.array([1.0, 4.0, 1000.0]), np.zeros(3), z)
    >>> bool(steeper[0] < steeper[1]), bool(steeper[2] < steeper[1])
    (True, True)
    """
    alpha, alpha_0 = np.asarray(alpha, float), np.asarray(alpha_0, float)
    p = special.expit(alpha_0[:, None] + alpha[:, None] * z)
    return alpha * (p * (1 - p)).mean(axis=1) / p.mean(axis=1)


def place(data: xr.Dataset, i: int) -> tuple[int, int]:
    """The year of an animal, and which of its animals it is."""
    j = int(data["of_year"].values[i])
    return j, int((data["of_year"].values[:i] == j).sum())


def without_rows(data: xr.Dataset, j: int, point: np.ndarray, rows) -> np.ndarray:
    """Log likelihood of a year at slopes, without each of some of its animals [animal, point]."""
    z, survived = animals(data, j)
    before = data["alpha_0_before"].values
    nuisance = _over_intercept(z, survived, log_density_of(before), before[[0, -1]])

    def of_animals(alpha, alpha_0):
        eta = alpha_0[..., None] + alpha[:, None, None] * z[rows]
        return survived[rows] * eta - np.logaddexp(0, eta)

    return nuisance.without(point, of_animals).T


def replicate(rng, theta: xr.DataArray, new: xr.Dataset, seen: xr.Dataset) -> xr.DataArray:
    """Whether animals [..., animal] with the traits of those asked for survive, in years seen and not seen."""
    dims = [dim for dim in theta.dims if dim != "year"]
    flat = theta.stack(draw_of=dims, create_index=False).transpose("draw_of", "year")
    known, before = list(map(str, seen["year"].values)), seen["alpha_0_before"].values
    found = np.empty((flat.sizes["draw_of"], new.sizes["animal"]))
    for i, label in enumerate(map(str, new["year"].values)):
        alpha, here = flat.values[:, i], new["of_year"].values == i
        if label in known:
            alpha_0 = intercepts(rng, alpha, seen, known.index(label))
        else:
            alpha_0 = drawn(rng, alpha, np.array([0.0, 1.0]), np.broadcast_to(before, (2, before.size)))
        p = special.expit(alpha_0[:, None] + alpha[:, None] * new["z"].values[here])
        found[:, here] = rng.random(p.shape) < p
    sizes = [theta.sizes[dim] for dim in dims]
    coords = {dim: theta[dim] for dim in dims if dim in theta.coords}
    return xr.DataArray(found.reshape(*sizes, -1), coords, (*dims, "animal"))
