"""Nodes of one group that move with the population, where too few of those that were made once lie (`cloud`)."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import xarray as xr
from scipy import special

from hbm_zoo.group_level.proposal import log_standard_normal, proposed, standard_points, standardised
from hbm_zoo.group_level.weighted import MultivariateNormal

OF_NODES = "log_likelihood"
#: Spreads, in those of the pilot's population, by which a population is widened to see a likelihood around it.
WIDE = 0.5
#: Means and spreads of logs beyond which all are alike: no exponential of them is a number.
FARTHEST = 1e6


def moving(
    log_likelihood: Callable,
    population: MultivariateNormal,
    size: int,
    seed: int,
    top: tuple[np.ndarray, np.ndarray] | None = None,
) -> xr.Dataset:
    """Nodes of one group that move with the population, and its integral, at each state of the hyperparameters.

    They lie around the top, which is looked for if it is not given.

    With w = f/q and v = N(z; 0, I)/q in units of their means, log m = log mean f/q - b log mean N/q, b the slope of w
    on v; its error is that of w - b v.
    """
    log_f = standardised(log_likelihood, population, "state")
    states, coefficients = population.mean.sizes["state"], population.mean.sizes["coefficient"]
    points = standard_points(coefficients, size, seed)
    z, log_q, height = proposed(log_f, states, tuple(part[None] for part in points), top)
    log_w, log_v = height - log_q, log_standard_normal(z) - log_q
    (log_mean, w), (log_mean_v, v) = _in_units_of_mean(log_w), _in_units_of_mean(log_v)
    slope = (w * v).mean(axis=1, keepdims=True) / (v**2).mean(axis=1, keepdims=True)
    found = {
        "log_marginal": log_mean - slope[:, 0] * log_mean_v,
        "error": np.sqrt(((w - slope * v) ** 2).mean(axis=1) / size),
        "effective": size / (1 + (w**2).mean(axis=1)),
    }
    theta = population.at(xr.DataArray(z, dims=("state", "node", "deviate")))
    of_nodes = {"log_f": log_w, OF_NODES: height - log_standard_normal(z)}
    return xr.Dataset(
        {name: ("state", value) for name, value in found.items()}
        | {name: (("state", "node"), value) for name, value in of_nodes.items()}
        | {"theta": theta.drop_vars(theta.coords)}
    )


def top_by_nodes(
    log_likelihood: xr.DataArray, population: MultivariateNormal, one: xr.Dataset
) -> tuple[np.ndarray, np.ndarray]:
    """Mode and curvature [state, deviate, ...] of likelihood x population, as the nodes of the fit have the likelihood.

    The normal whose product with a wider population has the mean and covariance of the nodes' weights there, as an
    approximating factor (Minka 2001, Expectation propagation for approximate Bayesian inference, UAI 17:362-369). The
    fewer nodes are effective, the wider it is.
    """
    theta = one.theta.transpose(..., "node", "coefficient").values.reshape(one.sizes["node"], -1)
    mean, scale = (_by_state(part, dims) for part, dims in ((population.mean, 1), (population.cholesky, 2)))
    pilot = one.pilot_cholesky.values
    wide = scale @ scale.mT + WIDE**2 * pilot @ pilot.T
    away = theta - mean[:, None]
    log_wide = -np.einsum("sni,sij,snj->sn", away, np.linalg.inv(wide), away) / 2
    of_states = log_likelihood.broadcast_like(population.mean.isel(coefficient=0, drop=True))  # it may be one for all
    given = of_states.transpose("state", ...).values.reshape(len(mean), -1)
    weight = np.nan_to_num(special.softmax(given + log_wide - one.log_q.values.ravel(), axis=1), nan=1 / len(theta))
    centre = (weight[:, None] @ away)[:, 0]
    spread = np.einsum("sn,sni,snj->sij", weight, away, away) - centre[..., None] * centre[:, None]
    precision = np.linalg.inv(spread + wide * (weight**2).sum(axis=1)[:, None, None])
    values, vectors = np.linalg.eigh(scale.mT @ (precision - np.linalg.inv(wide)) @ scale)
    curvature = np.eye(values.shape[1]) + (vectors * np.maximum(values, 0)[:, None]) @ vectors.mT
    slope = scale.mT @ precision @ centre[..., None]
    return np.linalg.solve(curvature, slope)[..., 0], curvature


def _by_state(values: xr.DataArray, dims: int) -> np.ndarray:
    """[state, ...] of a population of one group; 0 where it is not defined, and its integral is not either."""
    found = values.transpose("state", ..., *["coefficient", "deviate"][:dims]).values
    found = np.nan_to_num(found.reshape(len(found), *found.shape[found.ndim - dims :]), posinf=0.0, neginf=0.0)
    return found.clip(-FARTHEST, FARTHEST)


def _in_units_of_mean(log_w: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Log mean [state], and how far each is from the mean in units of it [state, node]."""
    log_mean = special.logsumexp(log_w, axis=1) - np.log(log_w.shape[1])
    with np.errstate(invalid="ignore"):  # where all is 0 nothing is far from the mean
        return log_mean, np.nan_to_num(np.expm1(log_w - log_mean[:, None]))
