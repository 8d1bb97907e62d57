r"""Reaction norms: whose response to the environment differs, and whose only looks so.

A breeder grows genotypes in many environments and draws a line through each one's
yields: how well it does (intercept), how it responds to better conditions (slope). A
genotype seen in two poor years has a line, too, but a line of noise. Draw every line
alone, draw one for all, or learn from the data how alike lines are?

The model
---------
    y_i | theta_g      ~ N(intercept_g + slope_g x_i, sigma^2)           the data
    theta_g | mu, T    ~ N2(mu, T)                                       the genotypes
    mu_intercept ~ N(m0, 2.5 s0),  mu_slope ~ N(0, 2.5 s1)               what we knew before
    tau_intercept ~ HalfNormal(s0),  tau_slope ~ HalfNormal(s1)
    rho ~ LKJ(2),  sigma ~ HalfNormal(s)

with theta_g = (intercept_g, slope_g), mu = (mu_intercept, mu_slope), and T the
covariance matrix of tau_intercept, tau_slope and rho. x is the environment measured
from ``center``: the intercept is the response *there*, and so is what rho correlates
with the slope. The frame's mean environment unless the caller says otherwise.

=============  ==================  ====================  ==================  =========================
on paper       in code             dims                  unit                meaning
=============  ==================  ====================  ==================  =========================
y_i            ``response``        observation           response            what was measured
x_i            ``x``               observation           environment         environment - center
theta_g        ``theta``           genotype,             response; response  the genotype's line
                                   coefficient           per environment
mu             ``mu_intercept``,                         the same            the population line
               ``mu_slope``
tau            ``tau_intercept``,                        the same            spread of the lines
               ``tau_slope``
rho            ``rho``                                   none                correlation of the two
sigma          ``sigma``                                 response            noise of a measurement
n, R, z, rss   the same            genotype              none; environment;  the genotype's data, X = QR,
                                                         response            z = Q'y
kappa          ``kappa``           genotype,             share               weight of its own data
                                   coefficient
=============  ==================  ====================  ==================  =========================

Given the hyperparameters all is known of a genotype in closed form, from n, R, z and
rss, so a genotype costs the same however often it was measured (`normal_regression`).
No pooling gives each line the same wide normal in advance, matched in mean and variance
to what the partial model expects of one genotype, intercept and slope independent.
Complete pooling is T = 0: one line for all. sigma is one parameter, shared by all
genotypes in all three poolings; under complete pooling it absorbs the spread of lines.

With moderators
---------------
What is known of a genotype beforehand moves the intercept it is expected to have, or the
slope, moderators={"slope": [...], "intercept": [...]}:

    y_i | theta_g            ~ N(intercept_g + slope_g x_i, sigma^2)     the data
    theta_g | mu, beta, T    ~ N2(mu_g, T)                               the genotypes
    mu_g = (mu_intercept + w_g beta_intercept, mu_slope + v_g beta_slope)
    mu_intercept ~ N(m0, 2.5 s0),  mu_slope ~ N(0, 2.5 s1)               what we knew before
    tau_intercept ~ HalfNormal(s0),  tau_slope ~ HalfNormal(s1)
    rho ~ LKJ(2),  sigma ~ HalfNormal(s)
    beta_slope ~ N(0, (s1 / sd(v))^2) of a number, N(0, (2 s1)^2) of a level against the
    first, beta_intercept the same with s0

with w_g and v_g the columns, the same in all rows of a genotype, centred over genotypes.
R^2[slope] = Var_g(v_g beta_slope) / (Var_g(v_g beta_slope) + tau_slope^2), and so on.

What it assumes
---------------
* A straight line over the range seen, and the same noise everywhere.
* Genotypes are exchangeable: no pedigree sets one nearer to another.
* The environment is measured, not made of the responses. If it is their mean in each
  environment (`environment_index`), the population slope is known by construction: it is
  fixed, not estimated, and no genotype can be left out as if it were new.

References
----------
Finlay K, Wilkinson G (1963) The analysis of adaptation in a plant-breeding programme.
Aust J Agric Res 14:742-754. Laird N, Ware J (1982) Random-effects models for
longitudinal data. Biometrics 38:963-974. Gelman A, Hill J (2007) Data Analysis Using
Regression and Multilevel/Hierarchical Models, chapter 13.
"""

from dataclasses import replace

import numpy as np
import pandas as pd
import pymc as pm
import pytensor.tensor as pt
import xarray as xr
from pymc_extras.prior import Prior

from hbm_zoo.fields import Extras, Parameter, Shipped
from hbm_zoo.frames.rules import FrameError, label, number
from hbm_zoo.group_level import normal_regression
from hbm_zoo.group_level.curves import Curve
from hbm_zoo.group_level.evaluate import evaluate
from hbm_zoo.group_level.level import closed_form
from hbm_zoo.group_level.populations import CorrelatedNormal
from hbm_zoo.model import HierarchicalModel
from hbm_zoo.models.environment_index import circularity, far_center
from hbm_zoo.models.environment_index import environment_index as environment_index
from hbm_zoo.models.line_checks import OF_LINES, lines_with_response, tails_of_lines
from hbm_zoo.models.moderated import Moderated
from hbm_zoo.models.spreads import check_spreads
from hbm_zoo.priors import describe, lkj, moments

COLUMNS = {
    "genotype": label("the genotype's name"),
    "environment": number("where on the environmental gradient it was grown"),
    "response": number("what was measured"),
    "index_of": label("the environment whose mean response 'environment' is: see environment_index", optional=True),
}

PARAMETERS = {
    "mu_intercept": Parameter("mean response of the population of genotypes at the center"),
    "mu_slope": Parameter("mean change of the response per unit of the environment"),
    "tau_intercept": Parameter("spread (sd) of the genotypes' responses at the center", (0, np.inf)),
    "tau_slope": Parameter("spread (sd) of the genotypes' slopes", (0, np.inf)),
    "rho": Parameter(
        "correlation of intercept and slope; depends on where the center is", (-1, 1), ({"rho": -1.0}, {"rho": 1.0})
    ),
    "sigma": Parameter("noise (sd) of one measurement around its genotype's line", (0, np.inf)),
}

COEFFICIENTS = ["intercept", "slope"]
DESIGN = ["r11", "r12", "r22"]
STATISTICS = ["n", *DESIGN, "z1", "z2", "rss"]


def default_priors(data):
    """Scales from the frame: genotypes at the center, and responses per spread of environments.

    s is the sd of all responses, s1 = s / sd(environment) the steepest line they allow, s0
    the sd of the genotypes' mean responses moved along the common line to the center, plus
    what slopes of that size add if the center is far from the data; m0 is their mean.
    """
    check_spreads(data)
    at_center, slopes, spread_y = scales(data)
    mean_slope = data.attrs.get("index_slope", 0.0)
    return {
        "mu_intercept": Prior("Normal", mu=float(levels(data).mean()), sigma=2.5 * at_center),
        "mu_slope": Prior("Normal", mu=mean_slope, sigma=2.5 * slopes),
        "tau_intercept": Prior("HalfNormal", sigma=at_center),
        "tau_slope": Prior("HalfNormal", sigma=slopes),
        "rho": lkj(2.0),
        "sigma": Prior("HalfNormal", sigma=spread_y),
    }


def scales(data):
    """Scales of intercepts and of slopes, and the sd of the responses."""
    spread_y = float(data.response.std(ddof=1))
    slopes = spread_y / float(data.x.std(ddof=1))
    return float(np.hypot(levels(data).std(ddof=1) or spread_y, float(data.x.mean()) * slopes)), slopes, spread_y


def levels(data):
    """The genotypes' mean responses moved along the common line to the center [genotype]."""
    within = float((data.r22 * data.z2).sum()) / max(float((data.r22**2).sum()), np.finfo(float).tiny)
    return (data.z1 - data.r12 * within) / data.r11


def matched_prior(priors):
    """Normals with the mean and variance of one genotype's intercept and slope."""
    return {f"theta_{name}": _matched(priors, name) for name in COEFFICIENTS}


def _matched(priors, name):
    (mean, variance), (tau, tau_variance) = (moments(n, priors[n]) for n in (f"mu_{name}", f"tau_{name}"))
    return Prior("Normal", mu=mean, sigma=float(np.sqrt(variance + tau**2 + tau_variance)))


def prepare(frame, center: float | None = None):
    """Rows become ``x`` and ``response`` [observation], and n, R, z, rss [genotype].

    Parameters
    ----------
    frame : pandas.DataFrame
        Columns genotype, environment, response, and index_of if environment is an index.
    center : float, optional
        The environment at which the intercept sits. Default: the mean of the frame's, which
        for an index is 0. Kept in the attrs.

    Returns
    -------
    xarray.Dataset
        Dims observation, genotype, coefficient.

    Raises
    ------
    FrameError
        If the center is not a finite number.
    """
    if center is None:
        center = 0.0 if "index_of" in frame else float(frame["environment"].mean())
    if isinstance(center, bool) or not isinstance(center, int | float | np.number) or not np.isfinite(center):
        raise FrameError(f"reaction_norms expected 'center' to be a finite number, got {center!r}.")
    of, genotypes = pd.factorize(frame["genotype"])
    x = frame["environment"].to_numpy(float) - float(center)
    y = frame["response"].to_numpy(float)
    statistics = normal_regression.qr(x, y, of, len(genotypes))
    return xr.Dataset(
        {
            "x": ("observation", x),
            "response": ("observation", y),
            "of_genotype": ("observation", of),
            **{name: ("genotype", values) for name, values in statistics.items()},
        },
        coords={"observation": np.arange(len(frame)), "genotype": np.asarray(genotypes), "coefficient": COEFFICIENTS},
        attrs={"center": float(center)} | circularity(frame),
    )


# The variants, each as it stands on the page.


def no_pooling(data, prior):
    """theta_g fixed in advance to a wide normal; y ~ N(intercept_g + slope_g x, sigma^2)."""
    lines = [prior(f"theta_{name}", dims="genotype") for name in COEFFICIENTS]
    theta = pm.Deterministic("theta", pt.stack(lines, axis=-1), dims=("genotype", "coefficient"))
    measure(data, theta[data.of_genotype, 0], theta[data.of_genotype, 1], prior("sigma"))


def complete_pooling(data, prior):
    """One line for all: y ~ N(mu_intercept + mu_slope x, sigma^2)."""
    measure(data, prior("mu_intercept"), prior("mu_slope"), prior("sigma"))


def complete_pooling_each(data, prior):
    """The same, where each genotype has a population line of its own."""
    mu, _ = population_line(prior)
    measure(data, mu[data.of_genotype, 0], mu[data.of_genotype, 1], prior("sigma"))


def partial_pooling_centered(data, prior):
    """theta_g ~ N2(mu, T); y ~ N(intercept_g + slope_g x, sigma^2)."""
    mu, L = population_line(prior)
    theta = pm.MvNormal("theta", mu, chol=L, dims=("genotype", "coefficient"))
    measure(data, theta[data.of_genotype, 0], theta[data.of_genotype, 1], prior("sigma"))


def partial_pooling_noncentered(data, prior):
    """theta_g = mu + L u_g with u_g ~ N2(0, I)."""
    mu, L = population_line(prior)
    u = pm.Normal("u", 0, 1, dims=("genotype", "coefficient"))
    theta = pm.Deterministic("theta", mu + u @ L.T, dims=("genotype", "coefficient"))
    measure(data, theta[data.of_genotype, 0], theta[data.of_genotype, 1], prior("sigma"))


def marginalized(data, prior):
    """Every line integrated out: z ~ N2(R mu, R T R' + sigma^2 I), rss ~ sigma^2 chi^2.

    All three poolings: no pooling has mu and T fixed in advance, complete pooling T = 0.
    """
    design = [data.n, *(getattr(data, name) for name in DESIGN)]
    pm.CustomDist(
        "y",
        *design,
        *(prior(name) for name in PARAMETERS),
        logp=log_density,
        random=normal_regression.random,
        signature="(),(),(),(),(),(),(),(),(),()->(3)",
        observed=pt.stack([data.z1, data.z2, data.rss], axis=-1),
    )


def log_density(value, n, r11, r12, r22, *hyperparameters):
    """Log density of the rows that z and rss stand for."""
    z1, z2, rss = value[..., 0], value[..., 1], value[..., 2]
    return normal_regression.log_marginal(n, r11, r12, r22, z1, z2, rss, *hyperparameters)


def population_line(prior):
    """Mu, and the Cholesky factor L of T = L L'."""
    mu = pt.stack(pt.broadcast_arrays(*map(pt.as_tensor, (prior("mu_intercept"), prior("mu_slope")))), axis=-1)
    tau_intercept, tau_slope, rho = prior("tau_intercept"), prior("tau_slope"), prior("rho")
    L = pt.stacklists([[tau_intercept, 0.0], [tau_slope * rho, tau_slope * pt.sqrt(1 - rho**2)]])
    return mu, L


def measure(data, intercept, slope, sigma):
    """y_i ~ N(intercept + slope x_i, sigma^2)."""
    pm.Normal("y", intercept + slope * data.x, sigma, observed=data.response, dims="observation")


# One genotype, given the hyperparameters.


def by_coefficient(intercept, slope):
    """Two arrays as one, with dim coefficient."""
    both = xr.broadcast(xr.DataArray(intercept), xr.DataArray(slope))
    joined = xr.concat(both, dim="coefficient", coords="minimal", compat="override")
    return joined.assign_coords(coefficient=COEFFICIENTS)


def population(h):
    """Theta ~ N2(mu, T)."""
    mean, sd = by_coefficient(h.mu_intercept, h.mu_slope), by_coefficient(h.tau_intercept, h.tau_slope)
    return CorrelatedNormal(mean, sd, h.rho)


def conditional(h, data):
    """theta_g | y: the bivariate normal by Bayes' theorem."""
    z = [data[name] for name in (*DESIGN, "z1", "z2")]
    after = normal_regression.conditional(*z, *(h[name] for name in PARAMETERS))
    return h.assign(dict(zip(PARAMETERS, after, strict=False)))


def log_marginal(h, data):
    """Log p(y of a genotype | h) [nats], the density of its raw rows."""
    arguments = [data[name] for name in STATISTICS] + [h[name] for name in PARAMETERS]
    return evaluate(normal_regression.log_marginal, *arguments)


def log_likelihood(theta, h, data):
    """Log N(y; X theta, sigma^2 I) of a genotype's rows [nats]."""
    intercept, slope = theta.isel(coefficient=0, drop=True), theta.isel(coefficient=1, drop=True)
    squares = data.rss + (data.z1 - data.r11 * intercept - data.r12 * slope) ** 2 + (data.z2 - data.r22 * slope) ** 2
    return -0.5 * (data.n * np.log(2 * np.pi * h.sigma**2) + squares / h.sigma**2)


def expected_log_likelihood(h, data):
    """E[log N(y; X theta, sigma^2 I)] over theta | y [nats]."""
    after = conditional(h, data)
    spread = [after[name] for name in ("tau_intercept", "tau_slope", "rho")]
    trace = sum(b**2 for b in normal_regression.loading(data.r11, data.r12, data.r22, *spread))
    return log_likelihood(population(after).mean, h, data) - trace / (2 * h.sigma**2)


def reliability(h, data):
    """Kappa = 1 - V_kk / T_kk of each coefficient."""
    names = [h[name] for name in ("tau_intercept", "tau_slope", "rho", "sigma")]
    return by_coefficient(*normal_regression.reliability(*(data[name] for name in DESIGN), *names))


def replicate(rng, theta, h, data):
    """y_i ~ N(intercept_g + slope_g x_i, sigma^2)."""
    lines = theta.isel(genotype=data.of_genotype)
    response = lines.isel(coefficient=0, drop=True) + lines.isel(coefficient=1, drop=True) * data.x
    return xr.apply_ufunc(rng.normal, *xr.broadcast(response, h.sigma)).drop_vars("genotype")


def leave_row_out(h, data, rows):
    """Log p(y_i | the genotype's other rows, h) [nats], by row."""
    return normal_regression.log_leave_row_out(*measured_on_lines(h, data, rows)).drop_vars("genotype")


def row_tails(h, data, rows):
    """Probabilities of no more than y_i, and of no less, given the genotype's other rows, by row."""
    ends = normal_regression.row_tails(*measured_on_lines(h, data, rows))
    return tuple(end.drop_vars("genotype") for end in ends)


def measured_on_lines(h, data, rows):
    """Some responses, mean and variance of their genotypes' lines there given all rows, and the noise."""
    own = data[STATISTICS].isel(genotype=data.of_genotype[rows])
    x, response = data.x[rows], data.response[rows]
    after = conditional(h.isel(genotype=data.of_genotype[rows], missing_dims="ignore"), own)
    line = after.mu_intercept + after.mu_slope * x
    along, across = after.tau_slope * x, np.sqrt(1 - after.rho**2)
    variance = (after.tau_intercept + after.rho * along) ** 2 + (across * along) ** 2
    return response, line, variance, h.sigma


def without_row(data, i):
    """The data without one row; a genotype that had no other is gone."""
    rows = {"genotype": data.genotype.values[data.of_genotype], "environment": data.x, "response": data.response}
    return prepare(pd.DataFrame(rows).drop(index=i), center=0.0).assign_attrs(data.attrs)


def own_line(data):
    """The least-squares line of each genotype; NaN where its rows define none."""
    slope = data.z2 / data.r22.where(data.r22 > 0)
    return by_coefficient((data.z1 - data.r12 * slope) / data.r11, slope)


def in_advance(priors, data):
    """No pooling: the population is the prior of one genotype, intercept and slope independent."""
    fixed = {"rho": 0.0}
    for name in COEFFICIENTS:
        prior = priors[f"theta_{name}"]
        if prior.distribution != "Normal" or prior.transform:
            raise ValueError(f"No pooling is exact under a Normal prior of 'theta_{name}', got {describe(prior)}.")
        mean, variance = moments(f"theta_{name}", prior)
        fixed |= {f"mu_{name}": mean, f"tau_{name}": np.sqrt(variance)}
    return fixed


def by_construction(priors, data):
    """With an index made of the responses the mean slope is known."""
    return {"mu_slope": data.attrs["index_slope"]} if "circular" in data.attrs else {}


def one_line(priors, data):
    """Complete pooling: T = 0."""
    return {"tau_intercept": 0.0, "tau_slope": 0.0, "rho": 0.0} | by_construction(priors, data)


def shrink_together(t, means):
    """T = t^2 That: both spreads by the same factor, their correlation kept."""
    return {"tau_intercept": t * means["tau_intercept"], "tau_slope": t * means["tau_slope"], "rho": means["rho"]}


def rows(data):
    """Whose each row is, and its environment and response."""
    return data.of_genotype.values, data.x.values + data.attrs["center"], data.response.values


def line_at(theta, x, data):
    """Intercept + slope (environment - center)."""
    return theta.sel(coefficient="intercept", drop=True) + theta.sel(coefficient="slope", drop=True) * (
        x - data.attrs["center"]
    )


def with_a_line_each(record):
    """The record in forms that take a population line for each genotype."""
    complete = record.variants["complete"] | {"centered": complete_pooling_each}
    return replace(record, variants={**record.variants, "complete": complete})


def simulate(
    rng,
    *,
    genotypes=20,
    environments=8,
    mu_intercept=50.0,
    mu_slope=2.0,
    tau_intercept=6.0,
    tau_slope=0.8,
    rho=0.3,
    sigma=4.0,
    missing=0.0,
):
    """A frame like the real one and the truth that made it.

    Parameters
    ----------
    rng : numpy.random.Generator
        Source of randomness.
    genotypes, environments : int
        Numbers of genotypes, and of environments evenly spaced over 0 to 10.
    mu_intercept, mu_slope : float
        The population line: response at environment 5, and per unit of the environment.
    tau_intercept, tau_slope, rho : float
        Spread of the genotypes' intercepts and slopes, and their correlation.
    sigma : float
        Noise of a measurement.
    missing : float
        Share of rows lost at random; every genotype keeps one.

    Returns
    -------
    frame : pandas.DataFrame
        Columns genotype, environment, response.
    truth : xarray.Dataset
        The hyperparameters, ``theta`` [genotype, coefficient], and in the attrs the
        ``center`` they hold for.

    Examples
    --------
    >>> import numpy as np
    >>> frame, truth = simulate(np.random.default_rng(1), genotypes=3, environments=4)
    >>> len(frame), truth.theta.dims, truth.attrs["center"]
    (12, ('genotype', 'coefficient'), 5.0)
    """
    names = [f"G{i + 1:03d}" for i in range(genotypes)]
    values = (mu_intercept, mu_slope, tau_intercept, tau_slope, rho, sigma)
    truth = xr.Dataset(dict(zip(PARAMETERS, map(float, values), strict=True)), attrs={"center": 5.0})
    every = truth.expand_dims(genotype=names)
    theta = population(every).sample(rng).transpose("genotype", "coefficient")
    of, x = np.repeat(np.arange(genotypes), environments), np.tile(np.linspace(0, 10, environments), genotypes)
    lines = theta.values[of]
    y = lines[:, 0] + lines[:, 1] * (x - truth.attrs["center"]) + sigma * rng.standard_normal(len(x))
    frame = pd.DataFrame({"genotype": np.array(names)[of], "environment": x, "response": y})
    keep = rng.random(len(frame)) >= missing
    keep[rng.integers(environments, size=genotypes) + environments * np.arange(genotypes)] = True
    return frame[keep].reset_index(drop=True), truth.assign(theta=theta)


MODEL = HierarchicalModel(
    name="reaction_norms",
    question="Whose response to the environment differs, and whose only looks so?",
    group="genotype",
    estimand="theta",
    estimand_label="intercept and slope of the response",
    response="response",
    observed="y",
    location="mu_slope",
    heterogeneity="tau_slope",
    reference=0.0,
    columns=COLUMNS,
    parameters=PARAMETERS,
    default_priors=default_priors,
    matched_prior=matched_prior,
    prepare=prepare,
    own=own_line,
    volume=lambda data: data.n.rename("rows"),
    variants={
        "none": {"centered": no_pooling, "marginalized": marginalized},
        "complete": {"centered": complete_pooling, "marginalized": marginalized},
        "partial": {
            "centered": partial_pooling_centered,
            "noncentered": partial_pooling_noncentered,
            "marginalized": marginalized,
        },
    },
    fixed={"none": in_advance, "complete": one_line, "partial": by_construction},
    group_level=closed_form(
        population=population,
        conditional=conditional,
        log_marginal=log_marginal,
        log_likelihood=log_likelihood,
        expected_log_likelihood=expected_log_likelihood,
        reliability=reliability,
        replicate=replicate,
        tails=tails_of_lines,
        leave_row_out=leave_row_out,
        row_tails=row_tails,
        without_row=without_row,
    ),
    simulate=simulate,
    datasets={"barley_minnesota": Shipped(), "sleepstudy": Shipped()},
    extras=Extras(
        path=shrink_together,
        check=far_center,
        curve=Curve(axis="environment", response="response", rows=rows, at=line_at),
        moderated=Moderated(
            scale=lambda data: dict(zip(COEFFICIENTS, scales(data), strict=False)),
            unexplained=lambda h: {name: h[f"tau_{name}"] ** 2 for name in COEFFICIENTS},
            of={"intercept": "the response at the center", "slope": "the slope"},
            written=with_a_line_each,
            coefficients={name: (f"mu_{name}", f"tau_{name}") for name in COEFFICIENTS},
        ),
        checks=OF_LINES,
        with_response=lines_with_response,
    ),
)
build = MODEL.build
