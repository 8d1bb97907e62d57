"""Log N(theta; mu, Omega) of many nodes as one product: features of the nodes times natural parameters.

Hyperparameters enter linearly, so that a table over draws is one product of matrices, and a gradient
one product of a matrix and a vector.
"""

from __future__ import annotations

from functools import partial

import numpy as np
import pytensor.tensor as pt
import xarray as xr

from hbm_zoo.group_level.weighted import MultivariateNormal

VECTOR, MATRIX = ["coefficient"], ["coefficient", "deviate"]
LEAST_SPREAD = 1e-8  # Of the pilot's: no two nodes are as near.


def features(cloud: xr.Dataset) -> xr.DataArray:
    """1, z_i and z_i z_j of each node [group, node, feature], in the pilot's units."""
    found = xr.apply_ufunc(
        _features,
        cloud.theta - cloud.pilot_mean,
        cloud.pilot_cholesky,
        input_core_dims=[VECTOR, MATRIX],
        output_core_dims=[["feature"]],
    )
    return found.transpose(..., "node", "feature")


def _features(away: np.ndarray, cholesky: np.ndarray) -> np.ndarray:
    z = np.linalg.solve(cholesky, away[..., None])[..., 0]
    i, j = np.triu_indices(z.shape[-1])
    return np.concatenate([np.ones_like(z[..., :1]), z, z[..., i] * z[..., j]], axis=-1)


def natural_parameters(mean, cholesky, pilot_mean, pilot_cholesky, size: int, xp):
    """Eta(h) [..., feature], such that log N(theta; mu, Omega) = `features` . eta; ``xp`` is NumPy or PyTensor.

    With A = L^-1 L_0 and a = L^-1 (mu - mu_0) the squares are |A z - a|^2.
    """
    inverse = xp.linalg.inv(cholesky)
    A, a = inverse @ pilot_cholesky, inverse @ (mean - pilot_mean)[..., None]
    i, j = np.triu_indices(size)
    scale = xp.log(xp.diagonal(cholesky, axis1=-2, axis2=-1)) + np.log(2 * np.pi) / 2
    constant = -(a[..., 0] ** 2 / 2 + scale).sum(axis=-1)[..., None]
    quadratic = -(A.mT @ A)[..., i, j] / (1 + (i == j)) + xp.zeros_like(constant)
    return xp.concatenate([constant, (A.mT @ a)[..., 0], quadratic], axis=-1)


def log_normal(population: MultivariateNormal, cloud: xr.Dataset) -> xr.DataArray:
    """Log N(theta; mu, Omega) [state, group, node] of all nodes of a cloud at all states of the hyperparameters."""
    size = population.cholesky.sizes["deviate"]
    diagonal = xr.DataArray(np.eye(size, dtype=bool), dims=MATRIX)
    floor = LEAST_SPREAD * cloud.pilot_cholesky
    eta = xr.apply_ufunc(
        partial(natural_parameters, size=size, xp=np),
        population.mean,
        population.cholesky.where(~diagonal, np.maximum(population.cholesky, floor)),
        cloud.pilot_mean,
        cloud.pilot_cholesky,
        input_core_dims=[VECTOR, MATRIX, VECTOR, MATRIX],
        output_core_dims=[["feature"]],
    )
    return xr.apply_ufunc(
        lambda eta, phi: eta @ phi.mT,
        eta,
        cloud.features,
        input_core_dims=[["state", "feature"], ["node", "feature"]],
        output_core_dims=[["state", "node"]],
    )


def log_marginal(log_likelihood, features, log_q, mean, cholesky, pilot_mean, pilot_cholesky, size: int):
    """Log p(y_j | h) of each group [group] as a PyTensor expression, on nodes that never move.

    Parameters
    ----------
    log_likelihood
        Log p(y_j | theta_jk, h) [group, node].
    features, log_q, pilot_mean, pilot_cholesky
        Of the cloud. They enter as data, never as constants, which take minutes to compile.
    mean, cholesky
        mu [coefficient] or [group, coefficient], and the Cholesky factor of Omega [coefficient, deviate].
    size
        How many coefficients.
    """
    eta = natural_parameters(mean, cholesky, pilot_mean, pilot_cholesky, size, pt)
    log_f = log_likelihood + (features @ eta[..., None])[..., 0] - log_q
    return pt.logsumexp(log_f, axis=-1) - pt.log(features.shape[-2])
