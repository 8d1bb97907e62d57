"""A model from outside the package with five free hyperparameters beside its heterogeneity: weighted draws.

    y_j ~ N(theta_j, sigma^2 / n_j),   theta_j ~ N(b_0 + b_1 x_1j + b_2 x_2j + b_3 x_3j, tau^2)

Given tau and sigma all is normal, so that one integral over sigma is the oracle of a five-dimensional one.
"""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import xarray as xr
from pymc_extras.prior import Prior
from scipy import stats
from scipy.special import logsumexp, softmax

from hbm_zoo.diagnostics.heterogeneity import estimates_over_heterogeneity
from hbm_zoo.fields import Extras, Parameter
from hbm_zoo.frames.rules import label, number, positive
from hbm_zoo.group_level import normal
from hbm_zoo.group_level.evaluate import evaluate
from hbm_zoo.group_level.level import closed_form
from hbm_zoo.group_level.populations import Normal
from hbm_zoo.inference.fitting import attributes
from hbm_zoo.inference.free_parameters import FreeParameters, left_out
from hbm_zoo.models import vaccine_clinics

SLOPES, SD = ["b0", "b1", "b2", "b3"], {"b": 3.0, "tau": 1.0, "sigma": 2.0}


def prepare(frame):
    return xr.Dataset(
        {name: ("field", frame[name].to_numpy(float)) for name in frame if name != "field"}
    ).assign_coords(field=frame["field"].to_numpy())


def at(h, data):
    return h.assign(mu=h.b0 + sum(h[f"b{k}"] * data[f"x{k}"] for k in (1, 2, 3)))


def standard_error(h, data):
    return h.sigma / np.sqrt(data.plots)


def conditional(h, data):
    mu, tau = normal.conditional(data.harvest, standard_error(h, data), h.mu, h.tau)
    return h.assign(mu=mu, tau=tau)


FIELDS = replace(
    vaccine_clinics.MODEL,
    name="fields",
    group="field",
    estimand_label="harvest",
    response="harvest",
    location="b0",
    columns={
        "field": label("the field"),
        "harvest": number("mean harvest of its plots [t/ha]"),
        "plots": positive("number of plots"),
        **{f"x{k}": number("of the soil") for k in (1, 2, 3)},
    },
    parameters={
        **{name: Parameter("of the harvest on the soil") for name in SLOPES},
        "tau": Parameter("spread of fields", (0, np.inf)),
        "sigma": Parameter("spread of plots", (0, np.inf)),
    },
    default_priors=lambda data: {
        **{name: Prior("Normal", mu=0.0, sigma=SD["b"]) for name in SLOPES},
        **{name: Prior("HalfNormal", sigma=SD[name]) for name in ("tau", "sigma")},
    },
    prepare=prepare,
    own=lambda data: data.harvest,
    volume=lambda data: data.plots,
    group_level=closed_form(
        population=lambda h: Normal(h.mu, h.tau),
        conditional=conditional,
        log_marginal=lambda h, data: evaluate(normal.log_marginal, data.harvest, standard_error(h, data), h.mu, h.tau),
        log_likelihood=lambda theta, h, data: normal.log_density(data.harvest, theta, standard_error(h, data) ** 2),
        replicate=None,
        at=at,
    ),
    extras=Extras(),
)


def fields(seed=7, size=14):
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(3, size))
    plots = rng.integers(1, 9, size)
    theta = 4 + 1.5 * x[0] - x[1] + 0.7 * rng.normal(size=size)
    harvest = rng.normal(theta, 1.2 / np.sqrt(plots))
    soil = {f"x{k + 1}": x[k] for k in range(3)}
    return pd.DataFrame({"field": [f"F{j}" for j in range(size)], "harvest": harvest, "plots": plots, **soil})


def fit_of(pooling):
    """A fit whose draws say only where to look, and say it badly."""
    data = FIELDS.data(fields())
    rng, centre = np.random.default_rng(0), dict.fromkeys(SLOPES, 1.0) | {"sigma": 3.0, "tau": 0.5}
    draws = {name: value * np.exp(0.3 * rng.standard_normal((2, 100))) for name, value in centre.items()}
    posterior = xr.Dataset({name: (("chain", "draw"), value) for name, value in draws.items()})
    tree = xr.DataTree.from_dict({"posterior": posterior, "constant_data": data})
    tree.attrs |= attributes(FIELDS, data, pooling, FIELDS.default_priors(data))
    return tree


def exactly(frame, tau):
    """Log p(y | tau) and E[theta | tau, y]: four slopes integrated out by formula, sigma on a fine grid."""
    step = 0.02
    sigma = np.arange(step / 2, 10, step)
    y = frame["harvest"].to_numpy()
    X = np.column_stack([np.ones(len(frame)), frame[["x1", "x2", "x3"]]])
    lines = SD["b"] ** 2 * X @ X.T + tau**2 * np.eye(len(y))
    V = lines + np.eye(len(y)) * (sigma[:, None] ** 2 / frame["plots"].to_numpy())[:, None]
    solved = np.linalg.solve(V, np.broadcast_to(y[:, None], (len(sigma), len(y), 1)))[..., 0]
    log_p = -0.5 * (solved @ y + np.linalg.slogdet(V)[1] + len(y) * np.log(2 * np.pi))
    log_f = log_p + stats.halfnorm.logpdf(sigma, scale=SD["sigma"])
    return logsumexp(log_f) + np.log(step), softmax(log_f) @ (solved @ lines)


def test_estimates_over_the_heterogeneity_are_those_of_the_normal_formulas():
    """To 0.02 t/ha where fields are known to 0.5, the log density of tau to 0.02 nats."""
    t = np.array([0.0, 0.3, 0.7, 1.5, 4.0])
    fit = fit_of("partial")
    assert len(FreeParameters(FIELDS, fit, path=lambda t: {"tau": t}).names) == 5
    over = estimates_over_heterogeneity(fit, at=t, model=FIELDS)
    log_p, means = zip(*(exactly(fields(), tau) for tau in t), strict=True)
    estimate, mcse = (over[name].transpose("heterogeneity", "field") for name in ("estimate", "mcse"))
    np.testing.assert_allclose(estimate, means, atol=0.02)
    assert (abs(estimate - means) < 4 * mcse + 1e-9).all()
    assert mcse.max() < 0.05
    log_density = np.array(log_p) + stats.halfnorm.logpdf(t, scale=SD["tau"])
    np.testing.assert_allclose(over["log_density"] - over["log_density"][0], log_density - log_density[0], atol=0.02)
    assert over.attrs["at_0"] == "complete pooling"


def test_a_group_left_out_of_complete_pooling_is_known_to_its_error():
    frame, which = fields(), np.array([0, 5, 13])
    elpd, error = left_out(FIELDS, fit_of("complete"), which)
    whole = exactly(frame, 0.0)[0]
    exact = [whole - exactly(frame.drop(index=j), 0.0)[0] for j in which]
    assert error.max() < 0.01
    np.testing.assert_allclose(elpd, exact, atol=0.01)


@pytest.mark.parametrize("fixed", [{}, {"tau": 0.0}])
def test_the_record_has_the_density_of_the_oracle(fixed):
    """At one point of all six: independent normals, by scipy."""
    frame = fields()
    h = {"b0": 3.0, "b1": 1.0, "b2": -0.5, "b3": 0.2, "tau": 0.8, "sigma": 1.1} | fixed
    mean = h["b0"] + sum(h[f"b{k}"] * frame[f"x{k}"] for k in (1, 2, 3))
    expected = stats.norm.logpdf(
        frame["harvest"], mean, np.sqrt(h["tau"] ** 2 + h["sigma"] ** 2 / frame["plots"])
    ).sum()
    got = FIELDS.group_level.log_joint(xr.Dataset(h), FIELDS.data(frame))
    assert float(got) == pytest.approx(expected, rel=1e-10)
