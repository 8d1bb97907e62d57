"""Absorption and elimination may be exchanged: how probable is it?"""

from __future__ import annotations

import warnings
from collections.abc import Mapping

import numpy as np
import pandas as pd
import xarray as xr
from pymc_extras.prior import Prior

from hbm_zoo.diagnostics.person import fit_of_patients
from hbm_zoo.group_level.routes import ROUTES, Route, correlations_of
from hbm_zoo.inference.chunks import log_joint
from hbm_zoo.inference.fits import efficiency, hyperparameters, prepared, priors_of, thinned
from hbm_zoo.model import HierarchicalModel
from hbm_zoo.priors import log_density

#: Odds of the mirror beyond which it cannot be left unsaid.
MOST_ODDS = 0.05
#: Draws at which a mirrored population is integrated anew.
DRAWS_OF_MIRROR = 200


class FlipFlopWarning(UserWarning):
    """Absorption and elimination may be exchanged: what does not depend on it is CL and the area under the curve."""


def flip_flop(fit: xr.DataTree, model: HierarchicalModel | None = None) -> pd.DataFrame:
    """How probable is it that the two rates are exchanged, absorption the slower?

    Parameters
    ----------
    fit : xarray.DataTree
        Partial or complete pooling of ``population_pk``, oral.
    model : HierarchicalModel, optional
        The record of a model that is not in the zoo.

    Returns
    -------
    pandas.DataFrame
        One row, ``mirror``: ``odds`` of the other side against this one, their Monte Carlo error ``mcse``, and the
        ``share`` of draws that lie there, of which the odds make no use.

    Raises
    ------
    ValueError
        If the fit is of another model, not oral, or of no pooling.

    Warns
    -----
    FlipFlopWarning
        If the odds are above 0.05.

    Notes
    -----
    A theta = (log CL, log CL - log ka, log CL - log V) has the same curve as theta, A A = I and |det A| = 1. So
    N(mu, Omega) and N(A mu, A Omega A') have one likelihood, and the odds are the mean of
    p(mirror h)/p(h) over the posterior of one side, p the prior as a density of (mu, Omega), whose Jacobian is 1.
    Where patients' clearances and volumes do not follow their weights alike, the curve of a patient is exchanged with
    that of another weight: then the ratio of the likelihoods, near 1, is counted, too.

    Examples
    --------
    >>> import hbm_zoo as hz
    >>> callable(hz.population_pk.flip_flop)
    True
    """
    record, data = fit_of_patients(fit, model, "flip_flop"), prepared(fit)
    route, pooling = ROUTES[str(record.chosen["route"])], fit.attrs["pooling"]
    if len(route.names) < 3:
        raise ValueError("flip_flop is of drugs that are absorbed: a dose into a vein has one rate only.")
    if pooling not in ("partial", "complete"):
        raise ValueError(f"flip_flop compares populations with their mirrors, and {pooling!r} has none: give partial.")
    h, worth = hyperparameters(fit), efficiency(fit)
    log_ratio = np.log(data.size_CL / data.size_V)
    middle, priors = float(log_ratio.mean()), priors_of(fit)
    here = (h.mu_ka > h.mu_CL - h.mu_V + middle).values
    if not here.any():
        raise ValueError("In no draw is absorption the faster: the priors put this fit on the other side.")
    side = h.isel(sample=here)
    if np.ptp(log_ratio.values) > 1e-9:
        side = thinned(side, DRAWS_OF_MIRROR)
    other = mirrored(route, side, middle)
    log_odds = log_prior(route, other, priors, pooling) - log_prior(route, side, priors, pooling)
    if np.ptp(log_ratio.values) > 1e-9:
        log_odds = log_odds + log_joint(record, other, data) - log_joint(record, side, data)
    ratios = np.exp(log_odds.values)
    odds, mcse = ratios.mean(), ratios.std() / np.sqrt(max(1.0, worth * ratios.size))
    if odds > MOST_ODDS:
        warnings.warn(
            f"The odds that the rates are exchanged are {odds:.2g}: CL and the area under the curve stand, ka, V and "
            "peaks do not. A typical ka that is better known would settle it.",
            FlipFlopWarning,
            stacklevel=2,
        )
    row = {"odds": odds, "mcse": mcse, "share": 1 - here.mean()}
    return pd.DataFrame([row], index=pd.Index(["mirror"], name="side"))


def mirrored(route: Route, h: xr.Dataset, log_ratio: float) -> xr.Dataset:
    """The population with the two rates of each patient exchanged, h [sample]."""
    population, each = route.population(h), xr.ones_like(h.mu_CL)
    mean = (population.mean * each).transpose("sample", "coefficient").values
    L = (population.cholesky * each).transpose("sample", "coefficient", "deviate").values
    A = np.stack([route.mirrored(e) for e in np.eye(3)], axis=-1)
    covariance = A @ L @ L.mT @ A.T
    omega = np.sqrt(np.diagonal(covariance, axis1=1, axis2=2))
    with np.errstate(invalid="ignore"):
        r = covariance / omega[:, :, None] / omega[:, None, :]
        partial = (r[:, 1, 2] - r[:, 0, 1] * r[:, 0, 2]) / np.sqrt((1 - r[:, 0, 1] ** 2) * (1 - r[:, 0, 2] ** 2))
    rho = [np.where(omega.all(axis=1), value, 0.0) for value in (r[:, 0, 1], r[:, 0, 2], partial)]
    mu = route.mirrored(mean, log_ratio)
    found = {f"mu_{name}": mu[:, k] for k, name in enumerate(route.names)}
    found |= {f"omega_{name}": omega[:, k] for k, name in enumerate(route.names)}
    found |= dict(zip(correlations_of(route.names), rho, strict=True))
    return h.assign({name: ("sample", value) for name, value in found.items()})


def log_prior(route: Route, h: xr.Dataset, priors: Mapping[str, Prior], pooling: str) -> xr.DataArray:
    """Log prior [sample] as a density of (mu, Omega), up to a constant; of mu alone where there is no spread.

    Priors are of spreads and correlations, the last partial: the density of Omega is theirs over the Jacobians
    8 prod omega^3 and sqrt((1 - rho_CL_V^2) (1 - rho_CL_ka^2)).
    """
    names = [f"mu_{name}" for name in route.names]
    if pooling == "partial":
        names += [f"omega_{name}" for name in route.names] + correlations_of(route.names)
    total = np.sum([log_density(priors[name])(h[name].values) for name in names], axis=0)
    if pooling == "partial":
        total -= 3 * np.sum([np.log(h[f"omega_{name}"].values) for name in route.names], axis=0)
        total -= np.sum([np.log1p(-(h[name].values ** 2)) / 2 for name in ("rho_CL_V", "rho_CL_ka")], axis=0)
    return xr.DataArray(total, dims="sample")
