"""What nobody pools but a group has of its own: a noise sd of each balance, integrated inside its likelihood.

    y_ji ~ N(theta_j, sigma_j^2),   theta_j ~ N(mu, tau^2),   log sigma_j ~ N(log 0.3, 0.5^2)

Only mu and tau are hyperparameters. theta_j and log sigma_j are integrated together, drawn together, and theta_j alone
is reported; new rows of a balance have its own noise.
"""

import numpy as np
import pytest
import xarray as xr
from scipy import stats

from hbm_zoo.group_level.cloud import Cloud
from hbm_zoo.group_level.weighted import MultivariateNormal
from hbm_zoo.inference.summary import group_summary

LOG_SIGMA, SPREAD = np.log(0.3), 0.5
ROWS = {"quiet": [1.0, 1.02, 0.99, 1.01, 1.0, 0.98], "loud": [0.2, 1.9, 1.1, 2.6, -0.3, 1.4], "single": [2.0]}
PLACE = xr.DataArray(np.eye(2), dims=("coefficient", "deviate"))


def population(h):
    """The second coefficient is of no hyperparameter."""
    mean = h.mu * PLACE.isel(deviate=0, drop=True) + LOG_SIGMA * PLACE.isel(deviate=1, drop=True)
    scale = xr.DataArray([1.0, 0.0], dims="deviate") * h.tau + xr.DataArray([0.0, SPREAD], dims="deviate")
    return MultivariateNormal(mean, PLACE * scale)


def log_density(theta, h, data):
    weight, sigma = theta.isel(coefficient=0, drop=True), np.exp(theta.isel(coefficient=1, drop=True))
    each = -(((data.y - weight) / sigma) ** 2) / 2 - np.log(sigma) - np.log(2 * np.pi) / 2
    return (each * data.seen).sum("row")


def replicate(rng, theta, h, new):
    weight, sigma = (theta.isel(coefficient=k, drop=True) for k in (0, 1))
    return xr.apply_ufunc(rng.normal, *xr.broadcast(weight, np.exp(sigma), new.seen)[:2])


LEVEL = Cloud(
    group="balance",
    population=population,
    predict=lambda theta, data: theta,
    log_density=log_density,
    rough=lambda data, priors: xr.Dataset({"mu": 1.0, "tau": 0.5}),
    estimand=lambda theta: theta.isel(coefficient=0, drop=True),
    size=4096,
).group_level(replicate=replicate)


@pytest.fixture(scope="module")
def data():
    y, seen = np.zeros((3, 6)), np.zeros((3, 6))
    for j, values in enumerate(ROWS.values()):
        y[j, : len(values)], seen[j, : len(values)] = values, 1.0
    shaped = {"y": (("balance", "row"), y), "seen": (("balance", "row"), seen)}
    plain = xr.Dataset(shaped, coords={"balance": list(ROWS), "coefficient": ["weight", "log_sigma"]})
    return plain.merge(LEVEL.nodes(plain, {}, np.random.default_rng(1), None))


def on_a_grid(rows, mu, tau, g):
    """The integral of likelihood x population over theta and log sigma, and E[g(theta, sigma)] under it."""
    theta = mu + tau * np.linspace(-6, 6, 4001)[:, None]
    log_sigma = LOG_SIGMA + SPREAD * np.linspace(-6, 6, 401)
    log_f = sum(stats.norm.logpdf(y, theta, np.exp(log_sigma)) for y in rows)
    f = np.exp(log_f + stats.norm.logpdf(theta, mu, tau) + stats.norm.logpdf(log_sigma, LOG_SIGMA, SPREAD))
    cell = (theta[1, 0] - theta[0, 0]) * (log_sigma[1] - log_sigma[0])
    return f.sum() * cell, (g(theta, np.exp(log_sigma)) * f).sum() / f.sum()


@pytest.mark.parametrize("balance", list(ROWS))
def test_both_are_integrated_and_one_is_reported(data, balance):
    h = xr.Dataset({"mu": ("sample", [1.2]), "tau": ("sample", [0.6])})
    evidence, mean = on_a_grid(ROWS[balance], 1.2, 0.6, lambda theta, sigma: theta)
    error = LEVEL.integration_error(h, data).sel(balance=balance).item()
    assert LEVEL.log_left_out(h, data).sel(balance=balance).item() == pytest.approx(np.log(evidence), abs=4 * error)
    assert error < 0.03
    after = LEVEL.after(h, data)
    assert "coefficient" not in after.mean.dims
    assert after.mean.sel(balance=balance).item() == pytest.approx(mean, abs=0.02)


def test_new_rows_have_the_noise_of_their_balance(data):
    """Var y = E[sigma^2 | y_j] + Var(theta | y_j): noise and weight are drawn together."""
    h = xr.Dataset({"mu": ("sample", np.full(400, 1.2)), "tau": ("sample", np.full(400, 0.6))})
    rng, known = np.random.default_rng(2), LEVEL.conditional(h, data)
    drawn = [LEVEL.replicate(rng, known.sample(rng), h, data, data).isel(row=0) for _ in range(10)]
    found = xr.concat(drawn, "sample")
    for balance in ("quiet", "loud"):
        _, square = on_a_grid(ROWS[balance], 1.2, 0.6, lambda theta, sigma: theta**2 + sigma**2)
        _, mean = on_a_grid(ROWS[balance], 1.2, 0.6, lambda theta, sigma: theta)
        assert found.sel(balance=balance).var().item() == pytest.approx(square - mean**2, rel=0.1)
    assert found.sel(balance="loud").std() > 5 * found.sel(balance="quiet").std()


def test_a_share_of_the_draws_without_a_number_leaves_no_number(data):
    """NaN at some draws is not averaged over the others."""
    tau = np.where(np.arange(50) < 20, np.nan, 0.6)
    h = xr.Dataset({"mu": ("sample", np.full(50, 1.2)), "tau": ("sample", tau)})
    after = LEVEL.conditional(h, data)
    np.testing.assert_array_equal(LEVEL.log_left_out(h, data).isnull().all("balance"), np.isnan(tau))
    assert np.isnan(after.sample(np.random.default_rng(3))).any()
    model = type("Record", (), {"group": "balance", "group_level": LEVEL, "reference": None})
    model.own, model.volume = (staticmethod(lambda data: data.seen.sum("row")) for _ in range(2))
    summary = group_summary(model, "partial", h, data, 1.0)
    for name in ("mean", "sd", "kappa", "elpd", "mean_log_likelihood"):
        assert summary[name].isnull().all(), name
    assert (summary["k_hat"] == np.inf).all()
