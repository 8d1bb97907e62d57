"""Can the draws be trusted? Of chains by how they mix, of independent draws by their weights."""

from __future__ import annotations

import warnings

import numpy as np
import pandas as pd
import xarray as xr
from arviz_stats import bfmi, ess, rhat

from hbm_zoo.inference.fits import Fits
from hbm_zoo.inference.independent import ESS_LEAST, failures

RHAT_MOST = 1.01
ESS_LEAST_PER_CHAIN = 100
BFMI_LEAST = 0.3
K_HAT_MOST = 0.7
COLUMNS = (
    *("r_hat", "ess_bulk", "ess_tail", "divergences", "max_treedepth", "e_bfmi"),
    *("k_hat", "effective", "proposals", "tops"),
)


class ConvergenceWarning(UserWarning):
    """Draws that failed a check: do not rely on the fit."""


def convergence(fits: Fits | xr.DataTree) -> pd.DataFrame:
    """Check the draws of each fit, and say in words what holds.

    Parameters
    ----------
    fits : dict of str to xarray.DataTree, or one fit
        As `fit_poolings` or `fit` returns them.

    Returns
    -------
    pandas.DataFrame
        One row a fit: worst ``r_hat``, smallest ``ess_bulk`` and ``ess_tail`` over the
        sampled hyperparameters, ``divergences``, ``max_treedepth`` (draws that reached it),
        smallest ``e_bfmi``, of draws by NUTS; ``k_hat`` of the weights of independent draws, or of draws reweighted
        for the error of numerical integrals; ``effective`` of ``proposals``, and the ``tops`` found, of independent
        draws; ``passed``, and a ``verdict`` in words. What does not apply is NaN: R-hat and ESS of independent draws
        hold by construction, and are no check. Exact draws need none.

    Warns
    -----
    ConvergenceWarning
        For each fit that fails a check.

    Notes
    -----
    R-hat at most 1.01 and at least 100 effective draws a chain (Vehtari et al. 2021,
    Bayesian Anal 16:667-718); E-BFMI at least 0.3 (Betancourt 2016, arXiv:1604.00695);
    k-hat at most 0.7 (Vehtari et al. 2024, JMLR 25:72). Of independent draws k-hat, at least 400 effective
    proposals (Kong, Liu & Wong 1994, JASA 89:278-288), as many draws of them, and that every top found from several
    starts is in the proposal.
    """
    fits = {fits.attrs.get("pooling", "fit"): fits} if isinstance(fits, xr.DataTree) else fits
    table = pd.DataFrame({name: _checks(fit) for name, fit in fits.items()}).T.infer_objects()
    table.index.name = "pooling"
    for name, row in table.iterrows():
        if not row["passed"]:
            warnings.warn(f"The fit {name!r} cannot be trusted: {row['verdict']}", ConvergenceWarning, stacklevel=2)
    return table


def _checks(fit: xr.DataTree) -> dict:
    nothing = dict.fromkeys(COLUMNS, np.nan)
    if fit.attrs.get("engine") == "independent":
        return nothing | _of_weights(fit)
    if fit.attrs.get("parameterization") == "exact":
        closed = fit.attrs.get("group_level", "in closed form") == "in closed form"
        verdict = "exact: independent draws in closed form" if closed else "independent draws, integrated numerically"
        return nothing | {"passed": True, "verdict": verdict}
    sampled = [name for name, v in fit["log_prior"].data_vars.items()] if "log_prior" in fit else None
    posterior = fit["posterior"].dataset if sampled is None else fit["posterior"].dataset[sampled]
    stats = fit["sample_stats"]
    checks = {
        "r_hat": _extreme(rhat(posterior), max) if posterior.sizes["chain"] > 1 else np.nan,
        "ess_bulk": _extreme(ess(posterior, method="bulk"), min),
        "ess_tail": _extreme(ess(posterior, method="tail"), min),
        "divergences": int(stats["diverging"].sum()),
        "max_treedepth": int(stats["maxdepth_reached"].sum()),
        "e_bfmi": float(np.min(bfmi(fit)["energy"])),
        "k_hat": fit.attrs.get("k_hat", np.nan),
        "tops": fit.attrs.get("tops", np.nan),
    }
    failed = _failures(checks, posterior.sizes["chain"], fit.attrs.get("parameterization", ""))
    return nothing | checks | {"passed": not failed, "verdict": "; ".join(failed) or "passed every check"}


def _of_weights(fit: xr.DataTree) -> dict:
    """The checks of independent draws."""
    names = {"k_hat": "k_hat", "effective": "effective_proposals", "proposals": "proposals", "tops": "tops"}
    checks = {name: fit.attrs[attr] for name, attr in names.items()}
    failed = failures(checks["k_hat"], checks["effective"], checks["proposals"])
    draws = fit["posterior"].sizes["chain"] * fit["posterior"].sizes["draw"]
    if not failed and draws < ESS_LEAST:
        return checks | {"passed": False, "verdict": f"{draws} draws are fewer than {ESS_LEAST}: raise draws"}
    tops = "one top" if checks["tops"] == 1 else f"{checks['tops']} tops"
    proved = f"independent: {checks['effective']:.0f} effective of {checks['proposals']} proposals, {tops} found"
    advice = [*failed, "pass engine='nuts'"] if failed else []
    return checks | {"passed": not failed, "verdict": "; ".join(advice) or proved}


def _extreme(values: xr.Dataset, which) -> float:
    """The worst value; NaN, a constant or a stuck chain, is worse than any number."""
    flat = np.concatenate([v.values.ravel() for v in values.data_vars.values()])
    return float("nan") if np.isnan(flat).any() else float(which(flat))


def _failures(checks: dict, chains: int, parameterization: str) -> list[str]:
    """Each failed check in words: what it is, and what to try."""
    least = ESS_LEAST_PER_CHAIN * chains
    failures = []
    if chains < 2:
        failures.append("one chain cannot show whether chains agree: run at least 4")
    elif not checks["r_hat"] <= RHAT_MOST:
        failures.append(f"R-hat {checks['r_hat']:.3f} is above {RHAT_MOST}: chains disagree, run longer")
    if not min(checks["ess_bulk"], checks["ess_tail"]) >= least:
        low = min(checks["ess_bulk"], checks["ess_tail"])
        failures.append(f"{low:.0f} effective draws are fewer than {least}: raise draws")
    if checks["divergences"]:
        counted = f"{checks['divergences']} divergence{'s' if checks['divergences'] > 1 else ''}"
        other_form = "" if parameterization == "marginalized" else " or integrate the group level out"
        failures.append(f"{counted}: raise target_accept{other_form}")
    if checks["max_treedepth"]:
        failures.append(f"{checks['max_treedepth']} draws reached the largest tree depth: raise maxdepth")
    if not checks["e_bfmi"] >= BFMI_LEAST:
        failures.append(f"E-BFMI {checks['e_bfmi']:.2f} is below {BFMI_LEAST}: tails are not explored, reparameterize")
    if checks["tops"] > 1:
        failures.append(
            f"{checks['tops']} tops of the posterior were found, as where a prior contradicts the data: chains seldom "
            "pass from one to another, independent draws know both"
        )
    if not (np.isnan(checks["k_hat"]) or checks["k_hat"] <= K_HAT_MOST):
        failures.append(
            f"k-hat {checks['k_hat']:.2f} of the integrals is above {K_HAT_MOST}: spreads are smaller than the nodes "
            "resolve, sample a form in which groups are visible"
        )
    return failures
