"""Leave one out by Pareto-smoothed importance sampling, in chunks."""

from __future__ import annotations

import numpy as np
import xarray as xr
from arviz_stats.base import array_stats
from scipy.optimize import brentq
from scipy.special import expit, logsumexp

#: Weights that differ by less, in nats, have no tail to smooth: their largest is little above their mean.
EVEN_WEIGHTS = 0.5
#: Means of the weights that the largest may be where their tail is seen to end. The k of a Pareto knows no scale: of a
#: tail most of which is within 1e-4 of a plateau, and the rest a half above it, it is 2 though every weight is small.
#: There, where k-hat is too large to be trusted, weights are taken as they are.
ENDED, TOO_LARGE = 3, 0.7


def k_hat_threshold(samples: int) -> float:
    """Largest k-hat at which PSIS is trusted (Vehtari et al. 2024, JMLR 25:72, section 3.2.4).

    Of one draw, hyperparameters that are known, nothing is weighted: its k-hat is -inf, and trusted.
    """
    return -np.inf if samples == 1 else min(1 - 1 / np.log10(samples), 0.7)


def relative_efficiency(posterior: xr.Dataset) -> float:
    """Mean ESS of the hyperparameters over the number of draws, at most 1."""
    sizes = posterior.sizes["chain"] * posterior.sizes["draw"]
    ess = [
        array_stats.ess(v.transpose("chain", "draw", ...).values, chain_axis=0, draw_axis=1, method="mean")
        for v in posterior.values()
    ]
    return float(np.clip(np.nanmean([np.mean(e) for e in ess]) / sizes, 1e-3, 1))


def leave_one_out(
    log_likelihood: xr.DataArray,
    reff: float = 1.0,
    integration_error: xr.DataArray | None = None,
    log_ratios: xr.DataArray | None = None,
) -> xr.Dataset:
    """Expected log predictive density of each unit left out, with its trustworthiness.

    Parameters
    ----------
    log_likelihood : xarray.DataArray
        Log likelihood [sample, unit] of each unit given the hyperparameters [nats].
    reff : float
        Relative efficiency of the draws.
    integration_error : xarray.DataArray, optional
        Standard error [sample, unit] of the log likelihood, where it is a numerical integral [nats].
    log_ratios : xarray.DataArray, optional
        Logs of the weights [sample] by which the samples stand for the posterior; even if not given. They are
        smoothed together with what leaving a unit out makes of them.

    Returns
    -------
    xarray.Dataset
        ``elpd`` and ``lppd`` [nats], ``k_hat``, ``elpd_mcse`` [nats], each by unit; the last holds the
        error of the integrals as well as that of the draws.

    Notes
    -----
    elpd_j = log (sum_s w_s / sum_s w_s/m_j(h_s)) of samples with weights w_s, smoothed (Vehtari, Gelman & Gabry 2017,
    Stat Comput 27:1413-1432); Monte Carlo error by the delta method.
    """
    values = log_likelihood.transpose(..., "sample").values
    given = np.zeros(values.shape[-1]) if log_ratios is None else log_ratios.values
    lppd = logsumexp(values + given - logsumexp(given), axis=-1)
    log_weights, k_hat = without_each(values, given, reff)
    elpd = logsumexp(log_weights + values, axis=-1)
    deviation = np.exp(values + log_weights - elpd[..., None]) - np.exp(log_weights)
    mcse = np.sqrt((deviation**2).sum(axis=-1) / reff)
    if integration_error is not None:  # the nodes are the same for every draw: their errors do not average out
        error = integration_error.transpose(*log_likelihood.transpose(..., "sample").dims).values
        mcse = np.hypot(mcse, (np.exp(log_weights) * error).sum(axis=-1))
    template = log_likelihood.isel(sample=0, drop=True)
    named = {"elpd": elpd, "lppd": lppd, "k_hat": k_hat, "elpd_mcse": mcse}
    return xr.Dataset({name: template.copy(data=value) for name, value in named.items()})


def without_each(values: np.ndarray, given: np.ndarray, reff: float) -> tuple[np.ndarray, np.ndarray]:
    """Log weights [..., sample] of samples without each unit; a unit that changes no weight much leaves their tail."""
    (common,), (k_hat_of_all,) = smoothed(given[None], reff)
    log_weights, k_hat = common - values, np.full(values.shape[:-1], k_hat_of_all)
    with np.errstate(invalid="ignore"):
        matters = ~(np.ptp(values, axis=-1) < EVEN_WEIGHTS)
    log_weights[~matters] -= logsumexp(log_weights[~matters], axis=-1, keepdims=True)
    if matters.any():
        log_weights[matters], k_hat[matters] = smoothed(given - values[matters], reff)
    return log_weights, k_hat


def smoothed(log_ratios: np.ndarray, reff: float = 1.0) -> tuple[np.ndarray, np.ndarray]:
    """Log importance weights [..., sample] that sum to 1, their tail that of a Pareto; and its k-hat [...].

    The k-hat of weights that hardly differ is -inf, and 0 of those whose tail ends where a Pareto has none; infinite
    where it cannot be known.
    """
    with np.errstate(invalid="ignore"):  # infinite ratios have no shares
        log_weights = log_ratios - logsumexp(log_ratios, axis=-1, keepdims=True)
        ended = log_weights.max(axis=-1) < np.log(ENDED / log_ratios.shape[-1])
    as_they_are, k_hat = log_weights.copy(), np.full(log_ratios.shape[:-1], -np.inf)
    least, most = log_ratios.min(axis=-1), log_ratios.max(axis=-1)
    undefined = ~np.isfinite(most)  # NaN among them, or infinite, or no sample has a weight
    k_hat[undefined] = np.inf
    uneven = ~undefined & (least < most - EVEN_WEIGHTS)
    if uneven.any():
        try:
            log_weights[uneven], k_hat[uneven] = array_stats.psislw(-log_ratios[uneven], r_eff=reff, axis=-1)
        except ValueError:  # chains so stuck that a tail has one value: no weight can be trusted
            k_hat[uneven] = np.inf
    ended &= np.isfinite(k_hat) & (k_hat > TOO_LARGE)
    log_weights[ended] = as_they_are[ended]
    k_hat[ended] = 0.0
    return log_weights, k_hat


def bridge(without: np.ndarray, including: np.ndarray, reff: tuple[float, float] = (1.0, 1.0)) -> tuple[float, float]:
    """Predictive density of a unit left out, from draws made without it and draws made with it.

    Parameters
    ----------
    without, including : numpy.ndarray
        Log likelihood of the unit at draws from the posterior without it, and with it [nats];
        equally many.
    reff : tuple of float
        Relative efficiency of the draws without it, and of those with it.

    Returns
    -------
    elpd, mcse : float
        Log predictive density and its Monte Carlo standard error [nats]; NaN if the likelihood of a draw is undefined.
        Where the two have no draw in common the error is infinite.

    Notes
    -----
    The density is the ratio of the two posteriors' normalising constants, and its estimate
    Bennett's acceptance ratio (Bennett 1976, J Comput Phys 22:245-268; Meng & Wong
    1996, Stat Sinica 6:831-860). The mean of the density over the draws without the unit alone
    fails for an outlier: all of it comes from the few draws that lie nearest to the unit.
    """
    both = np.concatenate([without, including])
    if np.isnan(both).any():
        return np.nan, np.nan
    elpd = brentq(lambda r: expit(without - r).mean() - expit(r - including).mean(), both.min() - 1, both.max() + 1)
    shares = expit(without - elpd), expit(elpd - including)
    if not all(share.any() for share in shares):
        return float(elpd), np.inf
    of_the_largest = (share / share.max() for share in shares)  # whose squares are numbers
    relative_variance = [(share**2).mean() / share.mean() ** 2 - 1 for share in of_the_largest]
    return float(elpd), float(np.sqrt(sum(np.divide(relative_variance, reff)) / without.size))
