"""The tissues of `tissue_expression`, of a population that lets one lie far out.

    y_gi | theta_g          ~ N(theta_g, sigma^2)
    theta_g | mu, tau, nu   ~ t_nu(mu, tau),  nu > 2

The mean of a tissue's rows is one normal measurement with the standard error sigma / sqrt(n_g), as a clinic's effect
is (`hbm_zoo.group_level.heavy_tails`); what they say of sigma alone is beside it.
"""

from dataclasses import replace

import numpy as np
import pandas as pd
import pymc as pm
import pytensor.tensor as pt
import xarray as xr

from hbm_zoo.fields import Parameter
from hbm_zoo.group_level import heavy_tails, normal, rows
from hbm_zoo.group_level.evaluate import evaluate
from hbm_zoo.group_level.heavy_tails import HeavyTails
from hbm_zoo.models.student_population import (
    NU_ABOVE_2,
    fixed_in_advance,
    matched_prior,
    no_spread,
    student_t,
    variance,
    with_priors,
)

TAU = Parameter("scale of the t population of tissues around mu, in the unit of expression", (0, np.inf))


# The variants, each as it stands on the page.


def no_pooling_marginalized(data, prior):
    """theta_g ~ t, fixed in advance and integrated out."""
    rows_of_tissues(data, prior("mu"), prior("tau"), 2 + prior("nu_above_2"), prior("sigma"))


def partial_pooling_centered(data, prior):
    """theta_g ~ t_nu(mu, tau); y_gi ~ N(theta_g, sigma^2)."""
    mu, tau, nu = student_t(prior)
    theta = pm.StudentT("theta", nu=nu, mu=mu, sigma=tau, dims="tissue")
    pm.Normal("y", theta[data.tissue_index], prior("sigma"), observed=data.expression, dims="cell")


def partial_pooling_noncentered(data, prior):
    """theta_g = mu + tau z_g, z_g ~ t_nu(0, 1)."""
    mu, tau, nu = student_t(prior)
    z = pm.StudentT("z", nu=nu, mu=0, sigma=1, dims="tissue")
    theta = pm.Deterministic("theta", mu + tau * z, dims="tissue")
    pm.Normal("y", theta[data.tissue_index], prior("sigma"), observed=data.expression, dims="cell")


def partial_pooling_marginalized(data, prior):
    """The rows of a tissue with theta_g integrated out."""
    rows_of_tissues(data, *student_t(prior), prior("sigma"))


def rows_of_tissues(data, mu, tau, nu, sigma):
    """Rows with theta_g integrated out; their mean stands for them."""
    pm.CustomDist(
        "y",
        data.n,
        data.SS,
        mu,
        tau,
        nu,
        sigma,
        logp=log_marginal_rows,
        random=random,
        signature="(),(),(),(),(),()->()",
        observed=data.y_bar,
        dims="tissue",
    )


def log_marginal_rows(y_bar, n, SS, mu, tau, nu, sigma):
    """Log density of a tissue's n rows with theta integrated out, a PyTensor formula [nats]."""
    measured = heavy_tails.log_marginal(y_bar, sigma / pt.sqrt(n), mu, tau, nu)
    return measured + normal.log_within(n, SS, sigma)


def random(n, SS, mu, tau, nu, sigma, rng=None, size=None):
    """Draw the mean of a tissue's n rows; SS says nothing of it."""
    return heavy_tails.random(sigma / np.sqrt(n), mu, tau, nu, rng=rng, size=size)


# One tissue, given mu, tau, nu and sigma.


TISSUES = HeavyTails(
    measured=lambda h, data: (data.y_bar, h.sigma / np.sqrt(data.n)),
    beside=lambda h, data: evaluate(normal.log_within, data.n, data.SS, h.sigma),
)


def simulate(rng, *, tissues=8, mu=8.0, tau=0.6, nu=4.0, sigma=0.5, median_cells=20.0, sigma_cells=1.0):
    """A frame like the real one and the truth that made it; theta from a t_nu(mu, tau), else as of the normal."""
    names = [f"T{i + 1:02d}" for i in range(tissues)]
    n = np.ceil(median_cells * np.exp(sigma_cells * rng.standard_normal(tissues))).astype(int)
    theta = mu + tau * rng.standard_t(nu, tissues)
    frame = pd.DataFrame({"tissue": np.repeat(names, n), "expression": rng.normal(np.repeat(theta, n), sigma)})
    truth = {"mu": mu, "tau": tau, "sigma": sigma, "nu_above_2": nu - 2, "theta": ("tissue", theta)}
    return frame, xr.Dataset(truth, coords={"tissue": names})


def with_student_t(record):
    """The record of `tissue_expression` with a t population of means."""
    level, forms = record.group_level, record.variants
    return replace(
        record,
        parameters={**record.parameters, "tau": TAU, "nu_above_2": NU_ABOVE_2},
        default_priors=with_priors(record.default_priors),
        matched_prior=matched_prior,
        variants={
            "none": {"centered": forms["none"]["centered"], "marginalized": no_pooling_marginalized},
            "complete": forms["complete"],
            "partial": {
                "centered": partial_pooling_centered,
                "noncentered": partial_pooling_noncentered,
                "marginalized": partial_pooling_marginalized,
            },
        },
        fixed={"none": fixed_in_advance, "complete": no_spread, "partial": lambda priors, data: {}},
        group_level=TISSUES.group_level(
            replicate=level.replicate,
            leave_row_out=rows.leave_row_out(TISSUES.log_left_out, "tissue", "tissue_index", "expression"),
            without_row=level.without_row,
        ),
        simulate=simulate,
        extras=replace(record.extras, moderated=replace(record.extras.moderated, unexplained=variance)),
    )
