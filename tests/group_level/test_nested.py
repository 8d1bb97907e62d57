"""Normal groups within families against dense normals by SciPy."""

import numpy as np
import pytensor
import pytensor.tensor as pt
import pytest
import xarray as xr
from scipy import stats

from hbm_zoo.group_level import nested
from hbm_zoo.group_level.normal import moments_by_group

# Rows of six groups in three families; one family has one group, one group one row.
GROUP = np.array([0, 0, 0, 1, 1, 2, 3, 3, 3, 3, 4, 4, 5, 5, 5])
FAMILY = np.array([0, 0, 1, 0, 2, 1])
Y = np.array([4.1, 5.0, 3.2, 6.6, 6.1, 2.0, 5.5, 5.9, 4.8, 5.2, 8.8, 9.4, 1.1, 0.4, 1.9])
SPREADS = {
    "all spread": (1.3, 0.7, 0.9),
    "no spread of batches": (1.3, 0.0, 0.9),
    "no spread of campaigns": (0.0, 0.7, 0.9),
    "none": (0.0, 0.0, 1.1),
}


def data_of(y=Y, group=GROUP, family=FAMILY):
    """As a page prepares them."""
    n, y_bar, SS = moments_by_group(y, group)
    return xr.Dataset(
        {"n": ("batch", n), "y_bar": ("batch", y_bar), "SS": ("batch", SS), "family": ("batch", family)}
        | {"member": (("batch", "campaign"), np.eye(family.max() + 1)[family])},
        coords={"batch": np.arange(n.size), "campaign": list("ABC")[: family.max() + 1]},
    )


def h_of(sigma_c, sigma_b, sigma, mu=4.4):
    """Two draws, so that dims are told apart: the one given, and another."""
    values = {"mu": (mu, 3.0), "sigma_c": (sigma_c, 0.4), "sigma_b": (sigma_b, 1.1), "sigma": (sigma, 0.6)}
    return xr.Dataset({name: ("sample", np.array(pair, float)) for name, pair in values.items()})


def covariance(h, k, group=GROUP, family=FAMILY):
    """Of the rows."""
    c, b, s = (h[name].values[k] for name in ("sigma_c", "sigma_b", "sigma"))
    of = family[group]
    return c**2 * np.equal.outer(of, of) + b**2 * np.equal.outer(group, group) + s**2 * np.eye(group.size)


def log_density(h, k, rows=slice(None)):
    """Of some rows, by SciPy."""
    mean = np.full(Y[rows].size, h.mu.values[k])
    return stats.multivariate_normal(mean, covariance(h, k)[rows][:, rows]).logpdf(Y[rows]) if mean.size else 0.0


@pytest.fixture(params=SPREADS)
def h(request):
    return h_of(*SPREADS[request.param])


def test_the_joint_density_is_the_matrix_s(h):
    np.testing.assert_allclose(nested.log_joint(h, data_of()), [log_density(h, k) for k in (0, 1)], rtol=1e-10)


def test_the_form_that_is_sampled_has_the_same_density_and_the_gradient_of_differences(h):
    data, names = data_of(), ["mu", "sigma_c", "sigma_b", "sigma"]
    point = pt.dvector()
    statistics = [data[name].values for name in ("y_bar", "n", "SS", "member")]
    value = nested.log_marginal(*statistics, *(point[k] for k in range(4)))
    f = pytensor.function([point], [value, pytensor.grad(value, point)], mode="AS_WRITTEN")
    at = np.array([h[name].values[0] for name in names])
    density, gradient = f(at)
    assert density == pytest.approx(log_density(h, 0), rel=1e-10)
    steps = 1e-5 * np.eye(4)
    np.testing.assert_allclose(gradient, [(f(at + e)[0] - f(at - e)[0]) / 2e-5 for e in steps], rtol=1e-5, atol=1e-5)


def test_a_group_left_out_is_the_joint_density_less_that_of_the_others(h):
    found = nested.log_left_out(h, data_of())
    exact = [[log_density(h, k) - log_density(h, k, np.flatnonzero(GROUP != j)) for j in range(6)] for k in (0, 1)]
    np.testing.assert_allclose(found.transpose("sample", "batch"), exact, rtol=1e-9)


def test_a_row_left_out_is_the_joint_density_less_that_of_the_others(h):
    rows = np.arange(Y.size)
    y, group = xr.DataArray(Y, dims="row"), xr.DataArray(GROUP, dims="row")
    found = nested.leave_row_out(h, data_of(), y, group)
    exact = [[log_density(h, k) - log_density(h, k, np.delete(rows, i)) for i in rows] for k in (0, 1)]
    np.testing.assert_allclose(found.transpose("sample", "row"), exact, rtol=1e-9)


def exact_conditional(h, k):
    """Mean and covariance of theta [group], then mu_c [family], given the rows."""
    c, b = h.sigma_c.values[k], h.sigma_b.values[k]
    of = np.concatenate([FAMILY, np.arange(3)])
    prior = c**2 * np.equal.outer(of, of) + b**2 * np.diag(np.repeat([1.0, 0.0], [6, 3]))
    Z = np.eye(9)[GROUP]
    gain = prior @ Z.T @ np.linalg.inv(covariance(h, k))
    return h.mu.values[k] + gain @ (Y - h.mu.values[k]), prior - gain @ Z @ prior


def test_groups_and_families_given_the_rows_are_the_matrix_s(h):
    data = data_of()
    groups, families = nested.conditional(h, data), nested.families_after(h, data)
    for k in (0, 1):
        mean, cov = exact_conditional(h, k)
        for found, part in ((groups, slice(0, 6)), (families, slice(6, 9))):
            np.testing.assert_allclose(found.mean.isel(sample=k), mean[part], rtol=1e-9)
            np.testing.assert_allclose(found.sd.isel(sample=k) ** 2, np.diag(cov)[part], rtol=1e-8, atol=1e-14)


def test_draws_and_density_are_joint():
    """Covariances of 40,000 draws, each within 5 standard errors; the density by SciPy, where groups have their own."""
    h = h_of(1.3, 0.7, 0.9)
    after = nested.conditional(h.isel(sample=np.zeros(40_000, int)), data_of())
    theta = after.sample(np.random.default_rng(1)).transpose("sample", "batch").values
    mean, cov = (part[:6] for part in exact_conditional(h, 0))
    cov = cov[:, :6]
    error = np.sqrt((cov**2 + np.outer(np.diag(cov), np.diag(cov))) / len(theta))
    assert (abs(np.cov(theta.T) - cov) < 5 * error).all()
    after = nested.conditional(h.isel(sample=np.zeros(4, int)), data_of())
    density = after.log_density(xr.DataArray(theta[:4], dims=("sample", "batch")).assign_coords(batch=np.arange(6)))
    np.testing.assert_allclose(density[:4], stats.multivariate_normal(mean, cov).logpdf(theta[:4]), rtol=1e-9)


def test_a_group_without_rows_is_a_new_one_of_its_family(h):
    """Predicted by the conditional of all groups: the family's mean, and a chance of its own."""
    seen, new = data_of(), nested.emptied(data_of().isel(batch=[1, 5]).assign_coords(batch=["x", "y"]))
    both = nested.joined(seen.assign_coords(batch=list("abcdef")), new)
    after, families = nested.conditional(h, both), nested.families_after(h, seen)
    for label, family in (("x", "A"), ("y", "B")):
        one, of = after.mean.sel(batch=label), families.mean.sel(campaign=family)
        np.testing.assert_allclose(one, of)
        variance = families.sd.sel(campaign=family) ** 2 + h.sigma_b**2
        np.testing.assert_allclose(after.sd.sel(batch=label) ** 2, variance)
    np.testing.assert_allclose(after.mean.isel(batch=slice(0, 6)), nested.conditional(h, seen).mean)


def test_before_their_data_groups_are_the_population_s():
    h = h_of(1.3, 0.7, 0.9)
    before = nested.conditional(h, nested.emptied(data_of()))
    assert (before.mean == h.mu).all()
    theta = np.array([4.0, 5.1, 3.3, 4.8, 6.0, 2.9])
    of = np.equal.outer(FAMILY, FAMILY)
    exact = stats.multivariate_normal(np.full(6, 4.4), 1.3**2 * of + 0.7**2 * np.eye(6)).logpdf(theta)
    assert before.log_density(xr.DataArray(theta, dims="batch")).values[0] == pytest.approx(exact, rel=1e-10)


def test_the_weight_of_a_group_s_data_is_the_variance_they_remove_within_its_family(h):
    """1 - Var(theta | y, mu_c) / Var(theta | mu_c)."""
    b, sigma, n = h.sigma_b, h.sigma, data_of().n
    after = xr.where(b > 0, 1 / (1 / b**2 + n / sigma**2), 0.0)
    removed = xr.where(b > 0, 1 - after / b**2, 0.0)
    np.testing.assert_allclose(*xr.broadcast(nested.reliability(h, data_of()), removed), atol=1e-12)


def test_what_a_group_has_of_its_own_is_the_matrix_s(h):
    """Theta - mu_c, of a joint normal of both."""
    deviations = nested.deviations(h, data_of())
    for k in (0, 1):
        mean, cov = exact_conditional(h, k)
        A = np.hstack([np.eye(6), -np.eye(3)[FAMILY]])
        np.testing.assert_allclose(deviations.mean.isel(sample=k), A @ mean, rtol=1e-8, atol=1e-12)
        np.testing.assert_allclose(deviations.sd.isel(sample=k) ** 2, np.diag(A @ cov @ A.T), rtol=1e-7, atol=1e-13)


def test_new_rows_of_the_same_groups_are_predicted_by_the_matrix(h):
    """The last row of each group that has several, given all other rows."""
    last = np.array([2, 4, 9, 11, 14])
    first = np.delete(np.arange(Y.size), last)
    n, y_bar, SS = moments_by_group(Y[last], np.arange(5))
    new = {"n": ("batch", n), "y_bar": ("batch", y_bar), "SS": ("batch", SS)}
    found = nested.log_predictive(h, xr.Dataset(new, {"batch": GROUP[last]}), data_of(Y[first], GROUP[first]))
    exact = [[log_density(h, k, np.append(first, i)) - log_density(h, k, first) for i in last] for k in (0, 1)]
    np.testing.assert_allclose(found.transpose("sample", "batch"), exact, rtol=1e-9)
