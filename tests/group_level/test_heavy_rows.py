"""Rows with heavy tails against Simpson's rule, SciPy and limits; several tops; places of own means."""

import numpy as np
import pytensor
import pytensor.tensor as pt
import pytest
import xarray as xr
from scipy import integrate, special, stats

from hbm_zoo.group_level import heavy_rows, normal
from hbm_zoo.group_level.heavy_rows import HeavyRows

LEVEL = HeavyRows("group", "of_row", "y")


def known(**values):
    return xr.Dataset({name: ("sample", np.atleast_1d(np.asarray(v, float))) for name, v in values.items()})


def data_of(rows):
    held = heavy_rows.in_places(rows, "group")
    of = np.repeat(np.arange(len(rows)), [len(y) for y in rows])
    return xr.Dataset(held | {"y": ("row_of_all", np.concatenate(rows)), "of_row": ("row_of_all", of)})


def integral(y, mu, tau, sigma, nu, of=lambda theta: 1.0):
    """Log of the integral over theta of the rows' density and a function of theta, on thousands of points."""
    theta = np.linspace(mu - 14 * tau, mu + 14 * tau, 4001)
    log_f = stats.norm.logpdf(theta, mu, tau) + stats.t.logpdf(y[:, None], nu, theta, sigma).sum(axis=0)
    return np.log(integrate.trapezoid(np.exp(log_f - log_f.max()) * of(theta), x=theta)) + log_f.max()


ROWS = [
    np.array([0.1, -0.4, 0.3, 0.2, 9.0]),
    np.array([-6.0, 6.0]),
    np.array([2.5]),
    np.array([-5.0, -4.6, 5.2, 4.9]),
    1.0 + 0.5 * stats.t.ppf((np.arange(60) + 0.5) / 60, 3),
]
GIVEN = [(0.2, 0.8, 0.5, 3.0), (0.0, 4.0, 1.0, 2.3), (-1.0, 1.5, 0.6, 8.0)]  # mu, tau, sigma, nu


def hyperparameters(given):
    return known(**dict(zip(("mu", "tau", "sigma", "nu_above_2"), (*given[:3], given[3] - 2), strict=True)))


@pytest.mark.parametrize("given", GIVEN)
def test_the_density_of_a_group_is_the_integral_where_it_has_several_tops_too(given):
    found, *_ = LEVEL._on_nodes(hyperparameters(given), data_of(ROWS))
    exact = [integral(y, *given) for y in ROWS]
    np.testing.assert_allclose(found.values.ravel(), exact, atol=1e-6)


def test_nodes_see_both_tops_of_rows_that_lie_apart():
    """Two rows 12 apart, sigma 1, nu = 2.3: theta is here or there, alike; a search from one top would halve it."""
    theta = LEVEL.conditional(hyperparameters(GIVEN[1]), data_of(ROWS))
    below = theta.cdf(xr.DataArray(0.0)).isel(group=1).item()
    assert below == pytest.approx(0.5, abs=1e-6)
    density = theta.log_density(xr.DataArray([-5.8, 0.0, 5.8], dims="x")).isel(group=1).values.ravel()
    assert density[0] > density[1] + 1
    assert density[2] > density[1] + 1
    assert theta.sd.isel(group=1).item() > 4


@pytest.mark.parametrize("given", GIVEN)
def test_what_is_known_of_a_group_is_the_integral(given):
    h, data = hyperparameters(given), data_of(ROWS)
    after, averaged = LEVEL.conditional(h, data), LEVEL.expected_log_likelihood(h, data).values.ravel()
    for j, y in enumerate(ROWS):
        expected = lambda of: np.exp(integral(y, *given, of) - integral(y, *given))  # noqa: B023, E731
        mean = expected(lambda theta: theta + 50) - 50  # of a function that is above 0
        sd = np.sqrt(expected(lambda theta: (theta - mean) ** 2))  # noqa: B023
        lost = expected(lambda theta: 60 - stats.t.logpdf(y[:, None], given[3], theta, given[2]).sum(axis=0))  # noqa: B023
        assert after.mean.values.ravel()[j] == pytest.approx(mean, abs=1e-5)
        assert after.sd.values.ravel()[j] == pytest.approx(sd, rel=1e-5)
        assert averaged[j] == pytest.approx(60 - lost, abs=1e-4)


def test_the_gradient_is_that_of_the_integral():
    values = [pt.dscalar() for _ in range(4)]
    held = data_of(ROWS)
    arrays = [pt.as_tensor(held[name].values) for name in ("row", "present", "marks")]
    total = heavy_rows.log_marginal(None, *arrays, *values).sum()
    gradient = pytensor.function(values, pytensor.grad(total, values), mode="AS_WRITTEN")
    for given in (GIVEN[0], GIVEN[2]):
        differences = []
        for k in range(4):
            moved = ((*given[:k], given[k] + step, *given[k + 1 :]) for step in (1e-4, -1e-4))
            ahead, behind = (sum(integral(y, *at) for y in ROWS) for at in moved)
            differences.append((ahead - behind) / 2e-4)
        np.testing.assert_allclose(gradient(*given), differences, rtol=1e-4, atol=1e-4)


def test_a_row_left_out_and_new_rows_are_ratios_of_integrals():
    data = data_of(ROWS)
    new = data_of([y + 0.7 for y in ROWS])
    for given in GIVEN[:2]:
        h = hyperparameters(given)
        rows = np.array([0, 4, 5, 6, 7, 8, 30])
        found = LEVEL.leave_row_out(h, data, rows).values.ravel()
        ahead = LEVEL.log_predictive(h, new, data).values.ravel()
        for value, i in zip(found, rows, strict=True):
            j = int(data.of_row[i])
            first = int((data.of_row < j).sum())
            others = np.delete(ROWS[j], i - first)
            without = integral(others, *given) if others.size else 0.0
            assert value == pytest.approx(integral(ROWS[j], *given) - without, abs=1e-4)
        for j, y in enumerate(ROWS):
            exact = integral(np.r_[y, y + 0.7], *given) - integral(y, *given)
            assert ahead[j] == pytest.approx(exact, abs=1e-5)


def test_a_row_left_out_is_a_number_where_nodes_differ_by_thousands_of_nats():
    """Proposals have such hyperparameters: rows lie hundreds of sigma apart, and their noise is all but normal."""
    y, given = 8 + np.array([-0.1, -0.05, 0.0, 0.03, 0.4]), (8.0, 30.0, 3e-4, 5000.0)
    theta = np.linspace(7.8, 8.5, 200_001)
    each = stats.t.logpdf(y[:, None], given[3], theta, given[2])
    log_f = stats.norm.logpdf(theta, *given[:2]) + each.sum(axis=0)
    exact = [special.logsumexp(log_f) - special.logsumexp(log_f - each[i]) for i in (0, 4)]
    found = LEVEL.leave_row_out(hyperparameters(given), data_of([y]), np.array([0, 4]))
    np.testing.assert_allclose(found.values.ravel(), exact, rtol=1e-6)


def test_without_spread_all_have_one_mean_exactly_and_many_degrees_of_freedom_are_normal():
    data, h = data_of(ROWS), known(mu=0.3, tau=0.0, sigma=0.7, nu_above_2=1.2)
    exact = [stats.t.logpdf(y, 3.2, 0.3, 0.7).sum() for y in ROWS]
    for value in (LEVEL.log_left_out(h, data), LEVEL.expected_log_likelihood(h, data)):
        np.testing.assert_allclose(value.values.ravel(), exact, rtol=1e-9)
    np.testing.assert_allclose(LEVEL.log_likelihood(h.mu, h, data).values.ravel(), exact, rtol=1e-12)
    after = LEVEL.conditional(h, data)
    np.testing.assert_allclose(after.mean, 0.3, rtol=1e-12)
    np.testing.assert_allclose(after.sd, 0.0, atol=1e-12)
    assert float(LEVEL.reliability(h, data).max()) == 0
    rows = [np.array([0.1, -0.4, 0.3]), np.array([1.5])]
    h, y_bar, n = known(mu=0.3, tau=0.8, sigma=0.7, nu_above_2=1e7), np.array([0.0, 1.5]), np.array([3, 1])
    mean, sd = normal.conditional(y_bar, 0.7 / np.sqrt(n), 0.3, 0.8)
    after = LEVEL.conditional(h, data_of(rows))
    np.testing.assert_allclose([after.mean.values.ravel(), after.sd.values.ravel()], [mean, sd], atol=1e-5)
    lower, _ = LEVEL.tails(h, data_of(rows))
    exact, _ = normal.tails(y_bar, 0.7 / np.sqrt(n), 0.3, 0.8)
    np.testing.assert_allclose(lower.values.ravel(), exact, atol=2e-3)


@pytest.mark.parametrize("tau", [0.0, 0.5])
def test_places_of_own_means_are_uniform(tau):
    """Of 3000 groups of 1, 2 and 7 rows; at the sd of the noise as if it were normal they would not be."""
    rng = np.random.default_rng(5)
    rows = [rng.normal(0.1, tau) + 0.8 * rng.standard_t(2.6, size) for size in rng.choice([1, 2, 7], 3000)]
    data = data_of(rows)
    lower, upper = LEVEL.tails(known(mu=0.1, tau=tau, sigma=0.8, nu_above_2=0.6), data)
    np.testing.assert_allclose(lower + upper, 1, atol=1e-12)
    assert stats.kstest(lower.values.ravel(), "uniform").pvalue > 1e-3
    sd = 0.8 * np.sqrt(2.6 / 0.6)
    lower, _ = LEVEL.tails(known(mu=0.1, tau=tau, sigma=sd, nu_above_2=1e6), data)
    assert stats.kstest(lower.values.ravel(), "uniform").pvalue < 1e-3
