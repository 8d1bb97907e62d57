"""The rows of `tissue_expression`, with noise that lets one lie far out.

    y_gi | theta_g      ~ t_nu(theta_g, sigma),  nu > 2
    theta_g | mu, tau   ~ N(mu, tau^2)

No mean and no squares stand for the rows of a tissue: each is asked at each node of the integral over theta_g
(`hbm_zoo.group_level.heavy_rows`), so that time grows with their number, which is limited.
"""

from dataclasses import replace

import numpy as np
import pandas as pd
import pymc as pm
import xarray as xr

from hbm_zoo.fields import Parameter
from hbm_zoo.frames.rules import FrameError
from hbm_zoo.group_level import heavy_rows
from hbm_zoo.group_level.checks import OF_ALL
from hbm_zoo.group_level.heavy_rows import HeavyRows
from hbm_zoo.models.own_checks import OF_ROWS
from hbm_zoo.models.student_population import with_priors

SIGMA = Parameter(
    "scale of the t of cells around their tissue's mean; their sd is sqrt(nu/(nu - 2)) of it", (0, np.inf)
)
NU_ABOVE_2 = Parameter(
    "degrees of freedom of cells beyond the two without which they have no sd; near 0 a few cells lie far out, beyond "
    "30 their noise is all but normal",
    (0, np.inf),
)
#: Tissues times the cells of the largest: what a table of all has.
MOST_PLACES = 5000
#: Those that fit each of a hundred data sets again are not asked: that takes as long as a hundred fits.
CHECKS = {name: check for name, check in OF_ROWS.items() if check.of_data} | {
    name: replace(check, poolings=()) for name, check in OF_ALL.items()
}


def preparing(prepare):
    """The prepared data with the rows of each tissue beside them."""

    def with_rows(frame, gene=None):
        return placed(prepare(frame, gene))

    return with_rows


def placed(data):
    """The data with the rows of each tissue in order, in as many places as the largest has.

    Raises
    ------
    FrameError
        If there are too many.
    """
    places = data.sizes["tissue"] * int(data.n.max())
    if places > MOST_PLACES:
        raise FrameError(
            "tissue_expression with noise='student-t' asks each row at each step, and takes tissues times rows of the "
            f"largest up to {MOST_PLACES:,}; got {data.sizes['tissue']:,} tissues, one with {int(data.n.max()):,} "
            "rows. Draw some of the rows of the large ones at random, or leave the noise normal."
        )
    y, of = data.expression.values, data.tissue_index.values
    rows = [y[of == j] for j in range(data.sizes["tissue"])]
    return data.drop_dims(["place", "mark"], errors="ignore").assign(heavy_rows.in_places(rows, "tissue"))


# The variants, each as it stands on the page.


def no_pooling(data, prior):
    """theta_g ~ N(m0, s0^2), fixed in advance."""
    rows_around(data, prior("theta", dims="tissue")[data.tissue_index], prior)


def complete_pooling(data, prior):
    """y_gi ~ t_nu(mu, sigma): one mean for all."""
    rows_around(data, prior("mu"), prior)


def complete_pooling_each(data, prior):
    """y_gi ~ t_nu(mu_g, sigma), where each tissue has a mu of its own."""
    rows_around(data, prior("mu")[data.tissue_index], prior)


def partial_pooling_centered(data, prior):
    """theta_g ~ N(mu, tau^2)."""
    theta = pm.Normal("theta", prior("mu"), prior("tau"), dims="tissue")
    rows_around(data, theta[data.tissue_index], prior)


def partial_pooling_noncentered(data, prior):
    """theta_g = mu + tau z_g, z_g ~ N(0, 1)."""
    mu, tau = prior("mu"), prior("tau")
    z = pm.Normal("z", dims="tissue")
    theta = pm.Deterministic("theta", mu + tau * z, dims="tissue")
    rows_around(data, theta[data.tissue_index], prior)


def rows_around(data, mean, prior):
    """y_gi ~ t_nu(mean, sigma)."""
    pm.StudentT("y", nu=degrees(prior), mu=mean, sigma=prior("sigma"), observed=data.expression, dims="cell")


def marginalized(data, prior):
    """The rows of a tissue with theta_g integrated out, under any pooling; their mean stands for them."""
    pm.CustomDist(
        "y",
        data.row,
        data.present,
        data.marks,
        prior("mu"),
        prior("tau"),
        prior("sigma"),
        degrees(prior),
        logp=heavy_rows.log_marginal,
        random=heavy_rows.random,
        signature="(r),(r),(m),(),(),(),()->()",
        observed=data.y_bar,
        dims="tissue",
    )


def degrees(prior):
    """Degrees of freedom of the rows."""
    return pm.Deterministic("nu", 2 + prior("nu_above_2"))


def with_a_mu_each(record):
    """The record in forms that take a mu for each tissue."""
    complete = record.variants["complete"] | {"centered": complete_pooling_each}
    return replace(record, variants={**record.variants, "complete": complete})


TISSUES = HeavyRows("tissue", "tissue_index", "expression")


def simulate(rng, *, tissues=8, mu=8.0, tau=1.0, sigma=0.4, nu=4.0, median_cells=20.0, sigma_cells=1.0):
    """A frame like the real one and the truth that made it; rows from a t_nu, else as of normal noise."""
    names = [f"T{i + 1:02d}" for i in range(tissues)]
    n = np.ceil(median_cells * np.exp(sigma_cells * rng.standard_normal(tissues))).astype(int)
    theta = rng.normal(mu, tau, tissues)
    expression = np.repeat(theta, n) + sigma * rng.standard_t(nu, n.sum())
    frame = pd.DataFrame({"tissue": np.repeat(names, n), "expression": expression})
    truth = {"mu": mu, "tau": tau, "sigma": sigma, "nu_above_2": nu - 2, "theta": ("tissue", theta)}
    return frame, xr.Dataset(truth, coords={"tissue": names})


def with_student_rows(record):
    """The record of `tissue_expression` with t noise."""
    for other, value in {"nu_above_2": "population='student-t'", "s_sigma": "sigma='by tissue'"}.items():
        if other in record.parameters:
            raise ValueError(f"noise='student-t' has one sigma and a normal population: it does not go with {value}.")
    level, with_response = record.group_level, record.extras.with_response
    return replace(
        record,
        parameters={**record.parameters, "sigma": SIGMA, "nu_above_2": NU_ABOVE_2},
        default_priors=with_priors(record.default_priors),
        prepare=preparing(record.prepare),
        variants={
            "none": {"centered": no_pooling, "marginalized": marginalized},
            "complete": {"centered": complete_pooling, "marginalized": marginalized},
            "partial": {
                "centered": partial_pooling_centered,
                "noncentered": partial_pooling_noncentered,
                "marginalized": marginalized,
            },
        },
        group_level=TISSUES.group_level(without_row=lambda data, i: placed(level.without_row(data, i))),
        simulate=simulate,
        extras=replace(
            record.extras,
            checks=CHECKS,
            with_response=lambda data, expression: placed(with_response(data, expression)),
            moderated=replace(record.extras.moderated, written=with_a_mu_each),
        ),
    )
