"""One to four traits by their numbers: a mean, a spread and correlations with the traits before, for each."""

import pymc as pm
import pytensor.tensor as pt
import xarray as xr

from hbm_zoo.group_level.multivariate import cholesky

MOST = 4
TRAITS = range(1, MOST + 1)
PAIRS = [(i, j) for j in TRAITS for i in range(1, j)]


def present(data):
    """The numbers of the traits that there are."""
    return TRAITS[: len(data.traits.split(";"))]


def scalars(data, prior):
    """Mu, and the rows of the Cholesky factor of T, number by number."""
    mu, tau = ([prior(f"{name}_{k}") for k in present(data)] for name in ("mu", "tau"))
    rho = [[prior(f"rho_{i}{j}") for i in range(1, j)] for j in present(data)]
    return mu, cholesky(tau, rho)


def years(data, prior):
    """Mu, and the Cholesky factor L of T = L L'."""
    mu, rows = scalars(data, prior)
    return pt.stack(mu), pt.stacklists([row + [0.0] * (len(mu) - len(row)) for row in rows])


def at(h, data):
    """Mu and L of the traits that there are, by trait."""
    mu, rows = scalars(data, lambda name: h[name])
    L = [_joined([*row, *[0 * mu[0]] * (len(mu) - len(row))], "other") for row in rows]
    return xr.Dataset({"mean": _joined(mu, "trait"), "factor": _joined(L, "trait")}).assign_coords(trait=data.trait)


def _joined(values, dim):
    return xr.concat(xr.broadcast(*values), dim=dim, coords="minimal", compat="override")


def absent(data):
    """The hyperparameters of traits that there are not."""
    size = data.sizes["trait"]
    alone = [f"{name}_{k}" for name in ("mu", "tau") for k in TRAITS[size:]]
    return [*alone, *(f"rho_{i}{j}" for i, j in PAIRS if j > size)]


def estimate(data, beta):
    """Y ~ N(beta, S) over all rows, of which those of one year share their errors."""
    same_year = pt.eq(data.of_year[:, None], data.of_year[None, :])
    S = data.S[data.of_year[:, None], data.of_trait[:, None], data.of_trait[None, :]] * same_year
    pm.MvNormal("y", beta, cov=S, observed=data.gradient, dims="estimate")
