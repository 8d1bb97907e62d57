"""Every group's estimate if the groups differed this much: shrinkage as a function of heterogeneity."""

from __future__ import annotations

import difflib

import numpy as np
import xarray as xr
from scipy.special import logsumexp, softmax

from hbm_zoo.inference.chunks import each_group
from hbm_zoo.inference.fits import hyperparameters, model_of, prepared, priors_of
from hbm_zoo.inference.free_parameters import FreeParameters, log_density, means_of, on_path
from hbm_zoo.inference.quadrature import DRAWS, MOST_DIMENSIONS, quadrature
from hbm_zoo.model import HierarchicalModel
from hbm_zoo.words import plural

GRID_POINTS = 80
RANGE_SHOWN = 0.995
DRAWS_OF_INTEGRALS = 512


def estimates_over_heterogeneity(
    fit: xr.DataTree,
    at: np.ndarray | None = None,
    groups: list | None = None,
    model: HierarchicalModel | None = None,
) -> xr.Dataset:
    """Each group's posterior mean given the heterogeneity, the other hyperparameters integrated out.

    Parameters
    ----------
    fit : xarray.DataTree
        A fit of partial pooling.
    at : array_like, optional
        Values of the heterogeneity, 0 or more. Default: from 0 to beyond nearly all its draws.
    groups : list, optional
        The groups wanted. Default: all.
    model : HierarchicalModel, optional
        The record of a model that is not in the zoo.

    Returns
    -------
    xarray.Dataset
        ``estimate`` [heterogeneity, group, ...] = E[theta_j | t, y], in the unit of the
        estimand; where weighted draws stand for an integral its Monte Carlo error ``mcse``, that of independent
        draws (these are more even); ``draws`` [sample] of the heterogeneity; where it is one number,
        ``log_density`` [heterogeneity] = log p(t | y) up to a constant. ``attrs["at_0"]`` says
        whether the estimates at t = 0 are those of complete pooling.

    Raises
    ------
    ValueError
        If the fit is not of partial pooling, a group is unknown, or the model does not say what is known of a group.

    Notes
    -----
    With h the other hyperparameters,

        E[theta_j | t, y] = int E[theta_j | h, t, y_j] p(h | t, y) dh,
        p(h | t, y)       ~ p(h) prod_j m_j(h, t),

    by Gauss-Hermite quadrature around the mode of h given t (Naylor & Smith 1982, J R Stat Soc C
    31:214-225), h taken to the whole line; where h has more than three parts, by weighted draws around the mode
    (Geweke 1989, Econometrica 57:1317-1339), 4096 for each t (512 where groups are integrated numerically), the same
    standardised draws for every t.
    Averaged over p(t | y) this is the fit's own estimate.
    Where the heterogeneity is a matrix, t moves along one path through it, t = 1 at the posterior
    means (``path`` of the record).

    Examples
    --------
    >>> import hbm_zoo as hz
    >>> fit = hz.fit("hospital_readmission", hz.load_data("three_hospitals"), random_seed=1, progressbar=False)
    >>> over = estimates_over_heterogeneity(fit, at=[0, 1])
    >>> over["estimate"].round(2).values.tolist()
    [[1.16, 1.16, 1.16], [1.4, 0.6, 1.19]]
    """
    record = model_of(fit, model)
    if fit.attrs["pooling"] != "partial":
        raise ValueError(f"Estimates over the heterogeneity need partial pooling; got {fit.attrs['pooling']} pooling.")
    level = record.ask("The estimate at a given heterogeneity", "conditional", "log_joint")
    data, h = prepared(fit), hyperparameters(fit)
    draws = path_draws(record, h)
    t = grid_over(draws) if at is None else np.asarray(at, float)
    means = means_of(h)
    others = FreeParameters(record, fit, path=lambda t: on_path(record, t, means))
    log_f, size = lambda x: others.log_posterior(x, t), len(others.names)
    weighted = DRAWS if level.cells(data) == 1 else DRAWS_OF_INTEGRALS
    points, log_weights = quadrature(log_f, t.size, size, step=level.step, draws=weighted)
    weights = xr.DataArray(softmax(log_weights, axis=1), dims=("heterogeneity", "point"), coords={"heterogeneity": t})
    given = others.at(points, t).rename(curve="heterogeneity")
    labels = data[record.group].values.tolist() if groups is None else known(groups, data[record.group])
    wanted = data.sel({record.group: labels}) if level.independent else data
    curves = each_group(record, wanted, weights.size, lambda part: _averaged(level.after(given, part).mean, weights))
    result = curves.sel({record.group: labels}).assign(draws=draws)
    if size <= MOST_DIMENSIONS:
        result = result.drop_vars("mcse")
    alike = set(others.names) == set(record.parameters) - set(record.fixed["complete"](priors_of(fit), data))
    result.attrs["at_0"] = "complete pooling" if alike else f"{plural(record.group)} that do not differ"
    if record.extras.path is None:
        log_prior = log_density(priors_of(fit)[record.heterogeneity])(t)
        result["log_density"] = ("heterogeneity", logsumexp(log_weights, axis=1) + log_prior)
    return result


def _averaged(mean: xr.DataArray, weights: xr.DataArray) -> xr.Dataset:
    """The average of E[theta | h, y] over points h, and its Monte Carlo error were the points drawn."""
    mean = mean.where(weights > 0, 0.0)
    average = (mean * weights).sum("point", skipna=False)
    squares = (weights * (mean - average)) ** 2
    return xr.Dataset({"estimate": average, "mcse": np.sqrt(squares.sum("point", skipna=False))})


def known(groups: list, labels: xr.DataArray) -> list:
    """The labels that groups are given by; 3 and "3" are the same.

    Raises
    ------
    ValueError
        If there is no such group; the nearest is given.
    """
    by_text = {str(label): label for label in labels.values.tolist()}
    for given in groups:
        if str(given) not in by_text:
            near = difflib.get_close_matches(str(given), by_text, n=1)
            raise ValueError(f"There is no {labels.name} {given!r}." + (f" Did you mean {near[0]!r}?" if near else ""))
    return [by_text[str(given)] for given in groups]


def grid_over(draws: xr.DataArray) -> np.ndarray:
    """From 0 to beyond nearly all draws, half the points evenly, half where the draws are."""
    shares = np.linspace(0, RANGE_SHOWN, GRID_POINTS // 2 + 1)
    where = draws.quantile(shares).values
    return np.unique(np.concatenate([np.linspace(0, where[-1], GRID_POINTS // 2 + 1), where]))


def path_draws(record: HierarchicalModel, h: xr.Dataset) -> xr.DataArray:
    """The heterogeneity of each draw: along a path, the geometric mean of its spreads over those at t = 1."""
    means = means_of(h)
    one, two = on_path(record, 1.0, means), on_path(record, 2.0, means)
    spreads = [name for name in one if one[name] != two[name]]
    return np.exp(sum(np.log(h[name] / one[name]) for name in spreads) / len(spreads))
