r"""Tissue expression: in which tissue is a gene at work, and in which is it only noisy?

The expression of one gene is measured in cells (or samples) of several tissues:
forty of kidney, six of placenta. The mean of six is a poor guide. Treat every tissue
alone, lump them all, or learn from the data how much to share?

The model
---------
    y_gi | theta_g       ~ N(theta_g, sigma^2)               the data
    theta_g | mu, tau    ~ N(mu, tau^2)                      the tissues
    mu ~ N(m0, (2.5 s)^2),  tau ~ HalfNormal(s),  sigma ~ HalfNormal(s)

with m0 the mean of the tissues' means and s the sd of all rows: read once from the
frame, then frozen.

==========  ==================  ========  ===============  =============================
on paper    in code             dims      unit             meaning
==========  ==================  ========  ===============  =============================
y_gi        ``expression``      cell      expression       one cell's measurement
g           ``tissue_index``    cell                       the cell's tissue
n_g         ``n``               tissue    cells            how many there are
ybar_g      ``y_bar``           tissue    expression       their mean
SS_g        ``SS``              tissue    expression^2     their squares around it
theta_g     ``theta``           tissue    expression       the tissue's own mean
mu          ``mu``                        expression       mean of the tissues
tau         ``tau``                       expression       spread of the tissues, sd
sigma       ``sigma``                     expression       spread within a tissue, sd
kappa_g     ``kappa``           tissue    share            weight of the tissue's data
==========  ==================  ========  ===============  =============================

All that the rows say of theta_g, mu, tau and sigma is in n, ybar and SS: a million
cells of fifty tissues cost what fifty tissues cost. Given mu, tau and sigma

    theta_g | y_g ~ N(kappa_g ybar_g + (1 - kappa_g) mu, kappa_g sigma^2 / n_g),
    kappa_g = n_g tau^2 / (n_g tau^2 + sigma^2).

No pooling gives each tissue the same wide normal in advance, N(m0, s0^2) with
s0^2 = Var(mu) + E[tau^2]; complete pooling is tau = 0. sigma is one parameter, shared
by the tissues, in all three; under complete pooling it absorbs their spread.

With moderators
---------------
What is known of a tissue beforehand moves the mean it is expected to have; tau is what is
left of the spread between tissues, sigma stays that within:

    y_gi | theta_g             ~ N(theta_g, sigma^2)         the data
    theta_g | mu, beta, tau    ~ N(mu + x_g beta, tau^2)     the tissues
    mu ~ N(m0, (2.5 s)^2),  tau ~ HalfNormal(s),  sigma ~ HalfNormal(s)
    beta ~ N(0, (s / sd(x))^2) of a number, N(0, (2 s)^2) of a level against the first

with x_g the columns, the same in all rows of a tissue, centred over tissues, so that mu
is the mean at average x. R^2 = Var_g(x_g beta) / (Var_g(x_g beta) + tau^2).

With population=student-t
-------------------------
One tissue far from the others, the only one where the gene is at work, is pulled by a normal
population as hard as any, and widens it for all. A population with heavy tails lets go of it:

    y_gi | theta_g         ~ N(theta_g, sigma^2)             the data
    theta_g | mu, tau, nu  ~ t_nu(mu, tau)                   the tissues
    nu = 2 + nu_above_2,  nu_above_2 ~ Gamma(2, 0.1)
    mu ~ N(m0, (2.5 s)^2),  tau ~ HalfNormal(s),  sigma ~ HalfNormal(s)

==========  ==================  ========  ===============  =============================
on paper    in code             dims      unit             meaning
==========  ==================  ========  ===============  =============================
nu          ``nu``                        none             degrees of freedom: heavy
                                                           tails below 10, all but
                                                           normal beyond 30
nu - 2      ``nu_above_2``                none             how far above the 2 without
                                                           which tissues have no sd
tau         ``tau``                       expression       scale of the t: the tissues'
                                                           sd is tau sqrt(nu/(nu - 2))
==========  ==================  ========  ===============  =============================

A tissue's mean is one measurement with standard error sigma / sqrt(n_g): theta_g is known as
the effect of a clinic is (see `vaccine_clinics`). The ``weight`` in the table of groups is
(E[theta_g] - mu)/(ybar_g - mu), of the data at hand; kappa_g is averaged over data. Seven
tissues say little of nu: its prior speaks along.

With sigma=by tissue
--------------------
Tissues may be noisy to different degrees. One sigma for all then trusts the mean of a noisy
tissue too much, and that of a quiet one too little. A sigma of each, log-normal among tissues:

    y_gi | theta_g, sigma_g       ~ N(theta_g, sigma_g^2)                the data
    theta_g | mu, tau             ~ N(mu, tau^2)                         the tissues
    log sigma_g | sigma, s_sigma  ~ N(log sigma, s_sigma^2)              their noise
    mu ~ N(m0, (2.5 s)^2),  tau ~ HalfNormal(s),  sigma ~ HalfNormal(s)
    s_sigma ~ HalfNormal(0.5)

==========  ==================  ========  ===============  =============================
on paper    in code             dims      unit             meaning
==========  ==================  ========  ===============  =============================
sigma_g     ``sigma_g``         tissue    expression       spread within the tissue, sd
sigma       ``sigma``                     expression       that of a typical tissue: the
                                                           median of the sigma_g
s_sigma     ``s_sigma``                   none             sd of log sigma_g; 0 is one
                                                           sigma for all
kappa_g     ``kappa``           tissue    share            weight of the tissue's mean,
                                                           averaged over sigma_g
==========  ==================  ========  ===============  =============================

Given sigma_g all is in closed form, so that theta_g | y_g is a mixture of normals and

    E[theta_g | y_g] = kappa_g ybar_g + (1 - kappa_g) mu,
    kappa_g = E[n_g tau^2 / (n_g tau^2 + sigma_g^2) | y_g],

sigma_g integrated numerically (`hbm_zoo.group_level.own_spreads`). Under no and under complete
pooling sigma_g is shared as much: the poolings differ in the means.

With noise=student-t
--------------------
One cell far from the others, a doublet or a misread value, moves the mean of a small tissue by
as much as it likes. Noise with heavy tails lets go of it:

    y_gi | theta_g     ~ t_nu(theta_g, sigma)                the data
    theta_g | mu, tau  ~ N(mu, tau^2)                        the tissues
    nu = 2 + nu_above_2,  nu_above_2 ~ Gamma(2, 0.1)
    mu ~ N(m0, (2.5 s)^2),  tau ~ HalfNormal(s),  sigma ~ HalfNormal(s)

==========  ==================  ========  ===============  =============================
on paper    in code             dims      unit             meaning
==========  ==================  ========  ===============  =============================
nu          ``nu``                        none             degrees of freedom of rows:
                                                           heavy tails below 10, all but
                                                           normal beyond 30
nu - 2      ``nu_above_2``                none             how far above the 2 without
                                                           which rows have no sd
sigma       ``sigma``                     expression       scale of the t: the sd within
                                                           is sigma sqrt(nu/(nu - 2))
kappa_g     ``kappa``           tissue    share            tau^2 / (tau^2 + 1/I_g), I_g
                                                           the information of the rows
==========  ==================  ========  ===============  =============================

I_g = n_g (nu + 1) / ((nu + 3) sigma^2). No statistics stand for the rows: theta_g is integrated
with each of them at each node (`hbm_zoo.group_level.heavy_rows`), and where a few rows lie apart
it may be here or there. Time grows with the rows: tissues times rows of the largest may be
5,000, which takes minutes; more are refused. Of the checks those of the rows are asked, and which
tissues do not belong; those that fit replicated data again would take as long as a hundred fits.
ybar_g, the tissue's own mean, is as it was.

What it assumes
---------------
* The spread within a tissue is the same in each, and normal, but with an option that says
  otherwise: expression on a log scale. Of the options one at a time.
* Cells are independent. Cells of one donor, or samples of one study, are not.
* Tissues are exchangeable: nothing known about one sets it apart beforehand, but what is
  given as a moderator.

References
----------
Davies O, Goldsmith P (1972) Statistical Methods in Research and Production, 4th ed.,
section 6.4. Box G, Tiao G (1973) Bayesian Inference in Statistical Analysis, section
5.1. Gelman A et al. (2013) Bayesian Data Analysis, 3rd ed., section 11.6.
"""

import warnings
from dataclasses import replace

import numpy as np
import pandas as pd
import pymc as pm
import xarray as xr
from pymc_extras.prior import Prior

from hbm_zoo.fields import Extras, Parameter, Shipped
from hbm_zoo.frames import labels
from hbm_zoo.frames.rules import FrameError, FrameWarning, label, number
from hbm_zoo.group_level import normal
from hbm_zoo.group_level.evaluate import evaluate
from hbm_zoo.group_level.level import closed_form
from hbm_zoo.group_level.populations import Normal
from hbm_zoo.model import HierarchicalModel
from hbm_zoo.models.expression_tables import from_anndata as from_anndata
from hbm_zoo.models.moderated import Moderated
from hbm_zoo.models.own_checks import OF_ROWS
from hbm_zoo.models.student_rows import with_student_rows
from hbm_zoo.models.student_tissues import with_student_t
from hbm_zoo.models.tissues_by_spread import by_tissue
from hbm_zoo.priors import describe, moments
from hbm_zoo.words import choose

COLUMNS = {
    "tissue": label("the tissue a cell or sample is of"),
    "expression": number("expression of the gene, on a log scale"),
    "gene": label("which gene was measured", optional=True),
}

PARAMETERS = {
    "mu": Parameter("mean expression of the population of tissues"),
    "tau": Parameter("spread of tissues around mu, sd, in the unit of expression", (0, np.inf)),
    "sigma": Parameter("spread of cells around their tissue's mean, sd", (0, np.inf)),
}


def default_priors(data):
    """A mean anywhere near the data; neither spread more than about twice that of all cells.

    Raises
    ------
    FrameError
        If no cells of a tissue differ: the density grows without bound as sigma goes to 0.

    Warns
    -----
    FrameWarning
        If every tissue has one cell.
    """
    m0, s = float(data.y_bar.mean()), spread_of_rows(data)
    if data.n.max() == 1:
        warnings.warn(
            "Every tissue has one row: only their priors tell the spread within tissues (sigma) from that between them "
            "(tau). If each row comes with a standard error, use vaccine_clinics.",
            FrameWarning,
            stacklevel=4,
        )
    all_same, each_same = normal.are_the_same(data.expression, data.n, data.SS)
    if all_same or each_same:
        raise FrameError(
            "tissue_expression: column 'expression' expected cells of a tissue that differ, got the same value in all "
            f"rows of {'the frame' if all_same else 'each tissue'}: nothing says how large sigma is."
        )
    spread = Prior("HalfNormal", sigma=s)
    return {"mu": Prior("Normal", mu=m0, sigma=2.5 * s), "tau": spread, "sigma": spread}


def spread_of_rows(data):
    """The sd of all rows: the scale s of all priors."""
    return float(data.expression.std(ddof=1))


def matched_prior(priors):
    """The normal with the mean and variance of theta_g once mu and tau are averaged out."""
    (mu, mu_variance), (tau, tau_variance) = (moments(name, priors[name]) for name in ("mu", "tau"))
    return Prior("Normal", mu=mu, sigma=np.sqrt(mu_variance + tau**2 + tau_variance))


def prepare(frame, gene=None):
    """The rows [cell] of one gene, and their count, mean and centred squares [tissue].

    Parameters
    ----------
    frame : pandas.DataFrame
        Columns tissue, expression, and gene if it holds several.
    gene : str, optional
        Which gene, where there is more than one.
    """
    frame, gene = select(frame, gene)
    index, tissues = pd.factorize(frame["tissue"])
    y = frame["expression"].to_numpy(float)
    n, y_bar, SS = normal.moments_by_group(y, index)
    return xr.Dataset(
        {
            "expression": ("cell", y),
            "tissue_index": ("cell", index.astype(np.int64)),
            "n": ("tissue", n.astype(np.int64)),
            "y_bar": ("tissue", y_bar),
            "SS": ("tissue", SS),
        },
        coords={"tissue": np.asarray(tissues)},
        attrs={"gene": gene},
    )


def select(frame, gene):
    """The rows of one gene, and its name."""
    if "gene" not in frame.columns:
        if gene is not None:
            raise FrameError(f"tissue_expression expected a column 'gene' to find {gene!r} in, got none.")
        return frame, ""
    named = labels.text(frame["gene"])
    genes = named.unique().tolist()
    if gene is None and len(genes) > 1:
        some = ", ".join(map(repr, genes[:12])) + (", ..." if len(genes) > 12 else "")
        raise FrameError(
            f"tissue_expression is of one gene, got {len(genes)}: {some}. Select one, e.g. gene={genes[0]!r}."
        )
    gene = genes[0] if gene is None else choose(labels.one(gene), genes, "gene")
    return frame[named == gene], gene


# The variants, each as it stands on the page.


def no_pooling(data, prior):
    """theta_g ~ N(m0, s0^2), fixed in advance; y_gi ~ N(theta_g, sigma^2)."""
    theta, sigma = prior("theta", dims="tissue"), prior("sigma")
    pm.Normal("y", theta[data.tissue_index], sigma, observed=data.expression, dims="cell")


def complete_pooling(data, prior):
    """y_gi ~ N(mu, sigma^2): one mean for all."""
    mu, sigma = prior("mu"), prior("sigma")
    pm.Normal("y", mu, sigma, observed=data.expression, dims="cell")


def complete_pooling_each(data, prior):
    """y_gi ~ N(mu_g, sigma^2), where each tissue has a mu of its own."""
    mu, sigma = prior("mu"), prior("sigma")
    pm.Normal("y", mu[data.tissue_index], sigma, observed=data.expression, dims="cell")


def partial_pooling_centered(data, prior):
    """theta_g ~ N(mu, tau^2); y_gi ~ N(theta_g, sigma^2)."""
    mu, tau, sigma = prior("mu"), prior("tau"), prior("sigma")
    theta = pm.Normal("theta", mu, tau, dims="tissue")
    pm.Normal("y", theta[data.tissue_index], sigma, observed=data.expression, dims="cell")


def partial_pooling_noncentered(data, prior):
    """theta_g = mu + tau z_g, z_g ~ N(0, 1)."""
    mu, tau, sigma = prior("mu"), prior("tau"), prior("sigma")
    z = pm.Normal("z", dims="tissue")
    theta = pm.Deterministic("theta", mu + tau * z, dims="tissue")
    pm.Normal("y", theta[data.tissue_index], sigma, observed=data.expression, dims="cell")


def marginalized(data, prior):
    """The rows of a tissue are jointly normal: theta_g is integrated out.

    One form for all three poolings, each with its own population: no pooling fixes mu and
    tau in advance, complete pooling has tau = 0. The mean of the rows stands for them all.
    """
    pm.CustomDist(
        "y",
        data.n,
        data.SS,
        prior("mu"),
        prior("tau"),
        prior("sigma"),
        logp=normal.log_marginal_rows,
        random=normal.random_mean,
        signature="(),(),(),(),()->()",
        observed=data.y_bar,
        dims="tissue",
    )


# One tissue, given mu, tau and sigma.


def standard_error(h, data):
    """The standard error sigma / sqrt(n_g): a tissue's mean as one measurement."""
    return h.sigma / np.sqrt(data.n)


def population(h):
    """Theta ~ N(mu, tau^2)."""
    return Normal(h.mu, h.tau)


def conditional(h, data):
    """theta_g | y_g ~ N(kappa ybar_g + (1 - kappa) mu, kappa sigma^2 / n_g)."""
    mu, tau = normal.conditional(data.y_bar, standard_error(h, data), h.mu, h.tau)
    return h.assign(mu=mu, tau=tau)


def log_marginal(h, data):
    """Log density of a tissue's rows given mu, tau and sigma [nats]."""
    return evaluate(normal.log_marginal_rows, data.y_bar, data.n, data.SS, h.mu, h.tau, h.sigma)


def log_likelihood(theta, h, data):
    """Log density of a tissue's rows, each N(theta_g, sigma^2) [nats]."""
    return normal.expected_log_density_rows(data.y_bar, data.n, data.SS, theta, 0, h.sigma)


def expected_log_likelihood(h, data):
    """E[log density of a tissue's rows] over theta_g | y_g [nats]."""
    after = conditional(h, data)
    return normal.expected_log_density_rows(data.y_bar, data.n, data.SS, after.mu, after.tau, h.sigma)


def reliability(h, data):
    """kappa_g = n_g tau^2 / (n_g tau^2 + sigma^2)."""
    return normal.reliability(standard_error(h, data), h.tau)


def tails(h, data):
    """Probabilities of no more than ybar_g, and of no less, given mu, tau and sigma."""
    return normal.tails(data.y_bar, standard_error(h, data), h.mu, h.tau)


def replicate(rng, theta, h, data):
    """y_gi ~ N(theta_g, sigma^2), as many as there are."""
    return xr.apply_ufunc(rng.normal, *xr.broadcast(theta.isel(tissue=data.tissue_index), h.sigma))


def leave_row_out(h, data, rows):
    """Log density of each cell given the other cells of its tissue [nats]."""
    return normal.leave_row_out(*cells(h, data, rows))


def row_tails(h, data, rows):
    """Probabilities of no more than a cell, and of no less, given the other cells of its tissue."""
    return normal.row_tails(*cells(h, data, rows))


def cells(h, data, rows):
    """Some cells, the mean and number of those of their tissues, and the population they come from."""
    tissue = data.tissue_index[rows]
    own, mu = data[["y_bar", "n"]].isel(tissue=tissue), h.mu.isel(tissue=tissue, missing_dims="ignore")
    return data.expression[rows], own.y_bar, own.n, mu, h.tau, h.sigma


def with_response(data, expression):
    """The same cells with other values."""
    n, y_bar, SS = normal.moments_by_group(expression, data.tissue_index.values)
    return data.assign(expression=("cell", expression), y_bar=("tissue", y_bar), SS=("tissue", SS))


def without_row(data, i):
    """The data without one cell; a tissue that had no other is gone."""
    cells = pd.DataFrame({"tissue": data.tissue.values[data.tissue_index], "expression": data.expression})
    return prepare(cells.drop(index=i)).assign_attrs(data.attrs)


def fixed_in_advance(priors, data):
    """No pooling: the population is the prior of one tissue, N(m0, s0^2)."""
    prior = priors["theta"]
    if prior.distribution != "Normal":
        raise ValueError(f"No pooling is exact under a Normal prior of 'theta', got {describe(prior)}.")
    mean, variance = moments("theta", prior)
    return {"mu": mean, "tau": np.sqrt(variance)}


def with_a_mu_each(record):
    """The record in forms that take a mu for each tissue."""
    complete = record.variants["complete"] | {"centered": complete_pooling_each}
    return replace(record, variants={**record.variants, "complete": complete})


def simulate(rng, *, tissues=8, mu=8.0, tau=1.0, sigma=0.5, median_cells=20.0, sigma_cells=1.0):
    """A frame like the real one and the truth that made it.

    Parameters
    ----------
    rng : numpy.random.Generator
        Source of randomness.
    tissues : int
        Number of tissues.
    mu, tau : float
        Mean and sd of the population of tissues [log2 expression].
    sigma : float
        Spread within a tissue, sd [log2 expression].
    median_cells : float
        Median number of cells of a tissue; each has at least one.
    sigma_cells : float
        Spread of tissue sizes: sd of the log number of cells.

    Returns
    -------
    frame : pandas.DataFrame
        Columns tissue, expression.
    truth : xarray.Dataset
        mu, tau, sigma, and theta [tissue].

    Examples
    --------
    >>> import numpy as np
    >>> frame, truth = simulate(np.random.default_rng(1), tissues=3)
    >>> list(frame.columns), dict(truth.theta.sizes)
    (['tissue', 'expression'], {'tissue': 3})
    """
    names = [f"T{i + 1:02d}" for i in range(tissues)]
    n = np.ceil(median_cells * np.exp(sigma_cells * rng.standard_normal(tissues))).astype(int)
    theta = rng.normal(mu, tau, tissues)
    frame = pd.DataFrame({"tissue": np.repeat(names, n), "expression": rng.normal(np.repeat(theta, n), sigma)})
    truth = {"mu": mu, "tau": tau, "sigma": sigma, "theta": ("tissue", theta)}
    return frame, xr.Dataset(truth, coords={"tissue": names})


ALTERNATIVES = {
    "population": {"normal": lambda record: record, "student-t": with_student_t},
    "sigma": {"common": lambda record: record, "by tissue": by_tissue},
    "noise": {"normal": lambda record: record, "student-t": with_student_rows},
}

MODEL = HierarchicalModel(
    name="tissue_expression",
    question="In which tissue is the gene at work, and in which is it only noisy?",
    group="tissue",
    estimand="theta",
    estimand_label="mean expression",
    response="expression",
    observed="y",
    location="mu",
    heterogeneity="tau",
    reference=None,
    columns=COLUMNS,
    parameters=PARAMETERS,
    default_priors=default_priors,
    matched_prior=matched_prior,
    prepare=prepare,
    own=lambda data: data.y_bar,
    volume=lambda data: data.n.rename("cells"),
    variants={
        "none": {"centered": no_pooling, "marginalized": marginalized},
        "complete": {"centered": complete_pooling, "marginalized": marginalized},
        "partial": {
            "centered": partial_pooling_centered,
            "noncentered": partial_pooling_noncentered,
            "marginalized": marginalized,
        },
    },
    fixed={"none": fixed_in_advance, "complete": lambda priors, data: {"tau": 0.0}, "partial": lambda priors, data: {}},
    group_level=closed_form(
        population=population,
        conditional=conditional,
        log_marginal=log_marginal,
        log_likelihood=log_likelihood,
        expected_log_likelihood=expected_log_likelihood,
        reliability=reliability,
        replicate=replicate,
        tails=tails,
        leave_row_out=leave_row_out,
        row_tails=row_tails,
        without_row=without_row,
    ),
    alternatives=ALTERNATIVES,
    simulate=simulate,
    datasets={
        "tissue_expression": Shipped(options={"gene": "MAML1"}),
        "dyestuff": Shipped(columns={"tissue": "batch", "expression": "yield_g"}),
    },
    extras=Extras(
        checks=OF_ROWS,
        with_response=with_response,
        moderated=Moderated(
            scale=spread_of_rows, unexplained=lambda h: h.tau**2, of="mean expression", written=with_a_mu_each
        ),
    ),
)
build = MODEL.build
