"""The tissues of `tissue_expression`, each with a spread of its own.

    y_gi | theta_g, sigma_g   ~ N(theta_g, sigma_g^2)
    theta_g | mu, tau         ~ N(mu, tau^2)
    log sigma_g               ~ N(log sigma, s_sigma^2)

Given sigma_g all is normal: what is known of a tissue is a mixture, over what sigma_g may be, of closed forms
(`hbm_zoo.group_level.own_spreads`).
"""

from dataclasses import replace

import numpy as np
import pandas as pd
import pymc as pm
import xarray as xr
from pymc_extras.prior import Prior

from hbm_zoo.fields import Parameter
from hbm_zoo.frames.rules import FrameError
from hbm_zoo.group_level import normal, own_spreads

SIGMA = Parameter(
    "spread of cells around their tissue's mean in a typical tissue, sd: the median of tissues", (0, np.inf)
)
S_SIGMA = Parameter(
    "spread of log sigma_g among tissues, sd; at 0.5 two of three lie within a factor of 1.6", (0, np.inf)
)


def with_priors(default_priors):
    """The priors of one sigma for all, and one of how much those of tissues differ."""

    def priors(data):
        """A mean anywhere near the data, spreads up to about twice that of all cells, and within a factor of e."""
        return default_priors(data) | {"s_sigma": Prior("HalfNormal", sigma=0.5)}

    return priors


def check(data):
    """Refuse a tissue whose cells are all the same: its own sigma would be 0."""
    _, index = np.unique(data.tissue_index.values, return_inverse=True)
    for j in np.flatnonzero(data.n.values > 1):
        y = data.expression.values[index == j]
        if normal.are_the_same(y, data.n.values[[j]], data.SS.values[[j]])[0]:
            raise FrameError(
                "tissue_expression with sigma='by tissue' expected cells of each tissue that differ, got the same "
                f"value in all {y.size} rows of {str(data.tissue.values[j])!r}: nothing says how large its sigma is."
            )
    yield from ()


# The variants, each as it stands on the page.


def no_pooling(data, prior):
    """theta_g ~ N(m0, s0^2), fixed in advance."""
    rows_of(data, prior("theta", dims="tissue")[data.tissue_index], prior)


def complete_pooling(data, prior):
    """y_gi ~ N(mu, sigma_g^2): one mean for all."""
    rows_of(data, prior("mu"), prior)


def complete_pooling_each(data, prior):
    """y_gi ~ N(mu_g, sigma_g^2), where each tissue has a mu of its own."""
    rows_of(data, prior("mu")[data.tissue_index], prior)


def partial_pooling_centered(data, prior):
    """theta_g ~ N(mu, tau^2)."""
    theta = pm.Normal("theta", prior("mu"), prior("tau"), dims="tissue")
    rows_of(data, theta[data.tissue_index], prior)


def partial_pooling_noncentered(data, prior):
    """theta_g = mu + tau z_g, z_g ~ N(0, 1)."""
    mu, tau = prior("mu"), prior("tau")
    z = pm.Normal("z", dims="tissue")
    theta = pm.Deterministic("theta", mu + tau * z, dims="tissue")
    rows_of(data, theta[data.tissue_index], prior)


def rows_of(data, mean, prior):
    """Log sigma_g ~ N(log sigma, s_sigma^2); y_gi ~ N(mean, sigma_g^2)."""
    sigma_g = pm.LogNormal("sigma_g", pm.math.log(prior("sigma")), prior("s_sigma"), dims="tissue")
    pm.Normal("y", mean, sigma_g[data.tissue_index], observed=data.expression, dims="cell")


def marginalized(data, prior):
    """The rows of a tissue with theta_g and sigma_g integrated out, under any pooling; their mean stands for them."""
    pm.CustomDist(
        "y",
        data.n,
        data.SS,
        *(prior(name) for name in ("mu", "tau", "sigma", "s_sigma")),
        logp=own_spreads.log_marginal,
        random=own_spreads.random,
        signature="(),(),(),(),(),()->()",
        observed=data.y_bar,
        dims="tissue",
    )


def with_a_mu_each(record):
    """The record in forms that take a mu for each tissue."""
    complete = record.variants["complete"] | {"centered": complete_pooling_each}
    return replace(record, variants={**record.variants, "complete": complete})


def simulate(rng, *, tissues=8, mu=8.0, tau=1.0, sigma=0.5, s_sigma=0.4, median_cells=20.0, sigma_cells=1.0):
    """A frame like the real one and the truth that made it; log sigma_g with the sd s_sigma, else as of one sigma."""
    names = [f"T{i + 1:02d}" for i in range(tissues)]
    n = np.ceil(median_cells * np.exp(sigma_cells * rng.standard_normal(tissues))).astype(int)
    theta, own = rng.normal(mu, tau, tissues), sigma * np.exp(s_sigma * rng.standard_normal(tissues))
    frame = pd.DataFrame(
        {"tissue": np.repeat(names, n), "expression": rng.normal(np.repeat(theta, n), np.repeat(own, n))}
    )
    truth = {"mu": mu, "tau": tau, "sigma": sigma, "s_sigma": s_sigma}
    of_tissues = {"theta": ("tissue", theta), "sigma_g": ("tissue", own)}
    return frame, xr.Dataset(truth | of_tissues, coords={"tissue": names})


def by_tissue(record):
    """The record of `tissue_expression` with a sigma of each tissue."""
    if "nu_above_2" in record.parameters:
        raise ValueError("sigma='by tissue' is of a normal population: it does not go with population='student-t'.")
    return replace(
        record,
        parameters={**record.parameters, "sigma": SIGMA, "s_sigma": S_SIGMA},
        default_priors=with_priors(record.default_priors),
        variants={
            "none": {"centered": no_pooling, "marginalized": marginalized},
            "complete": {"centered": complete_pooling, "marginalized": marginalized},
            "partial": {
                "centered": partial_pooling_centered,
                "noncentered": partial_pooling_noncentered,
                "marginalized": marginalized,
            },
        },
        group_level=own_spreads.group_level(
            "tissue", "tissue_index", "expression", without_row=record.group_level.without_row
        ),
        simulate=simulate,
        extras=replace(record.extras, check=check, moderated=replace(record.extras.moderated, written=with_a_mu_each)),
    )
