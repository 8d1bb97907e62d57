"""AR(1) in time against dense normals: gaps, what was not measured, what the others say."""

import numpy as np
import pytensor.tensor as pt
import pytest
import xarray as xr
from pytensor import function
from pytensor.gradient import grad
from scipy import stats

from hbm_zoo.group_level import multivariate as mv
from hbm_zoo.group_level import series
from tests.group_level.test_multivariate import case as independent

PHI = (0.6, -0.5, 0.0)
TIME = np.array([1990.0, 1991, 1994, 1995, 2001])


def case(size):
    """Five times with gaps, one without data, and three populations."""
    data, h = independent(size)
    data = data.rename(group="year").assign(time=("year", TIME))
    return data, h.assign(phi=("sample", list(PHI)))


def dense(data, h, s):
    """Which numbers were measured, all measurements and errors, and mean and covariance of all gradients, stacked."""
    L, phi = h.factor.values[s], PHI[s]
    R = np.array([[phi ** abs(int(t - u)) if t != u else 1.0 for u in TIME] for t in TIME])
    times, traits = data.b.shape
    S = np.zeros((times * traits,) * 2)
    for t in range(times):
        S[t * traits : (t + 1) * traits, t * traits : (t + 1) * traits] = data.S.values[t]
    measured = np.flatnonzero(data.measured.values.ravel())
    return measured, data.b.values.ravel(), S, np.tile(h["mean"].values[s], times), np.kron(R, L @ L.T)


def conditional(i, b, S, mean, T):
    """Bayes' theorem by dense inverses, from the numbers i."""
    K = T[:, i] @ np.linalg.inv(T[np.ix_(i, i)] + S[np.ix_(i, i)])
    return mean + K @ (b - mean)[i], T - K @ T[i]


@pytest.mark.parametrize("size", [1, 2, 3])
def test_density_is_that_of_the_dense_normal(size):
    data, h = case(size)
    found = series.log_joint(h, data)
    for s in range(3):
        i, b, S, mean, T = dense(data, h, s)
        expected = stats.multivariate_normal.logpdf(b[i], mean[i], (T + S)[np.ix_(i, i)])
        assert float(found[s]) == pytest.approx(expected, rel=1e-10, abs=1e-10)


@pytest.mark.parametrize("s", range(3))
def test_gradient_in_phi_and_the_mean_is_that_of_the_dense_normal(s):
    """1/2 tr((a a' - C^-1) dC/dphi) and, for each trait, the sum of a over times, a = C^-1 e."""
    data, h = case(2)
    mean, phi = pt.dvector(), pt.dscalar()
    arrays = [data[name].values for name in ("b", "measured", "S", "time")]
    L = h.factor.values[s]
    density = series.log_density(*map(pt.constant, arrays), mean, pt.constant(L), phi)
    at = h["mean"].values[s], PHI[s]
    slopes = function([mean, phi], grad(density, [mean, phi]), mode="AS_WRITTEN")(*at)
    i, b, S, centre, T = dense(data, h, s)
    C = (T + S)[np.ix_(i, i)]
    a = np.linalg.solve(C, (b - centre)[i])
    lag = abs(np.subtract.outer(TIME, TIME))
    power = np.where(lag > 0, lag * PHI[s] ** np.where(lag > 0, lag - 1, 1), 0.0)
    power = np.where(lag == 1, 1.0, power)
    slope = np.kron(power, L @ L.T)[np.ix_(i, i)]
    assert float(slopes[1]) == pytest.approx(0.5 * np.trace((np.outer(a, a) - np.linalg.inv(C)) @ slope), rel=1e-8)
    by_trait = np.bincount(i % 2, a, 2)
    np.testing.assert_allclose(slopes[0], by_trait, rtol=1e-8)


@pytest.mark.parametrize("size", [1, 2, 3])
def test_conditional_left_out_and_weight_are_those_of_dense_normals(size):
    data, h = case(size)
    after, left_out, kappa = series.conditional(h, data), series.log_left_out(h, data), series.reliability(h, data)
    for s in range(3):
        i, b, S, mean, T = dense(data, h, s)
        centre, V = conditional(i, b, S, mean, T)
        np.testing.assert_allclose(
            after.mean.isel(sample=s).transpose("year", "trait").values.ravel(), centre, atol=1e-9
        )
        F = after.factor.isel(sample=s).transpose("year", "trait", "source").values.reshape(centre.size, -1)
        np.testing.assert_allclose(F @ F.T, V, atol=1e-9)
        for t in range(5):
            own = i[i // size == t]
            others = np.setdiff1d(i, own)
            m, W = conditional(others, b, S, mean, T)
            C = (W + S)[np.ix_(own, own)]
            expected = stats.multivariate_normal.logpdf(b[own], m[own], C) if own.size else 0.0
            assert float(left_out.isel(year=t, sample=s)) == pytest.approx(expected, abs=1e-8)
            here = slice(t * size, (t + 1) * size)
            weight = 1 - np.diag(V)[here] / np.diag(W)[here]
            np.testing.assert_allclose(kappa.isel(year=t, sample=s), weight, atol=1e-8)


def test_independent_years_are_phi_of_0():
    """Density, what is left out, and kappa."""
    data, h = case(3)
    h = h.assign(phi=0 * h.phi)
    xr.testing.assert_allclose(series.log_joint(h, data), mv.log_marginal(h, data).sum("year"))
    xr.testing.assert_allclose(series.log_left_out(h, data), mv.log_marginal(h, data))
    xr.testing.assert_allclose(*xr.broadcast(series.reliability(h, data), mv.reliability(h, data)))


def test_the_sum_of_one_step_ahead_is_the_density_of_all():
    """p(y) = prod p(y_t | the times before): a filter, by leaving the last of some out."""
    data, h = case(2)
    steps = sum(series.log_left_out(h, data.isel(year=slice(t + 1))).isel(year=-1, drop=True) for t in range(5))
    xr.testing.assert_allclose(steps.drop_vars("year", errors="ignore"), series.log_joint(h, data))


def test_no_spread_is_a_point_and_has_no_weight():
    data, h = case(2)
    h = h.assign(factor=0 * h.factor)
    assert (series.conditional(h, data).sd == 0).all()
    assert (series.reliability(h, data) == 0).all()
    xr.testing.assert_allclose(series.log_left_out(h, data), mv.log_likelihood(h["mean"], h, data))


def test_draws_have_their_covariance_in_time():
    data, h = case(2)
    once = h.isel(sample=[0] * 20_000)
    draws = series.conditional(once, series.emptied(data)).sample(np.random.default_rng(1))
    first = draws.isel(trait=0).transpose("sample", "year").values
    lag = abs(np.subtract.outer(TIME, TIME))
    np.testing.assert_allclose(np.corrcoef(first.T), 0.6**lag, atol=4 / np.sqrt(20_000))
    np.testing.assert_allclose(first.std(axis=0), np.sqrt((h.factor[0].values[0] ** 2).sum()), rtol=0.03)


def test_joint_density_of_draws():
    data, h = case(2)
    after = series.conditional(h, data)
    x = after.mean + 0.3
    found = after.log_density(x).values
    for s in range(3):
        F = after.factor.isel(sample=s).transpose("year", "trait", "source").values.reshape(10, 10)
        assert found[s] == pytest.approx(stats.multivariate_normal.logpdf(np.full(10, 0.3), np.zeros(10), F @ F.T))


def test_times_are_joined_in_order():
    data, h = case(2)
    one, two = data.isel(year=[0, 3]), data.isel(year=[4, 1, 2])
    together = series.joined(one, two)
    assert together.time.values.tolist() == TIME.tolist()
    xr.testing.assert_allclose(series.log_joint(h, together), series.log_joint(h, data))


def test_a_second_measurement_is_predicted_from_the_first():
    """Log p(y' | y) = log p(y, y') - log p(y), of one time: all others empty in the second."""
    data, h = case(2)
    again = data.assign(b=0.7 * data.b)
    found = series.log_predictive(h, again, data)
    for s in range(3):
        i, b, S, mean, T = dense(data, h, s)
        centre, V = conditional(i, b, S, mean, T)
        own = i[i // 2 == 0]
        expected = stats.multivariate_normal.logpdf(0.7 * b[own], centre[own], (V + S)[np.ix_(own, own)])
        assert float(found.isel(year=0, sample=s)) == pytest.approx(expected)


@pytest.mark.parametrize("size", [1, 2, 3])
def test_tails_are_those_of_dense_normals_given_all_other_times(size):
    """And, at one time, given the numbers before."""
    data, h = case(size)
    lower, upper = (tail.transpose("sample", "year", "trait") for tail in series.tails(h, data))
    for s in range(3):
        i, b, S, mean, T = dense(data, h, s)
        for k in range(b.size):
            t = k // size
            if k not in i:
                assert np.isnan(lower.values[s, t, k % size])
                continue
            known = np.array([n for n in i if n // size != t or n < k])
            K = (T + S)[k, known] @ np.linalg.inv((T + S)[np.ix_(known, known)])
            sd = np.sqrt((T + S)[k, k] - K @ (T + S)[known, k])
            law = stats.norm(mean[k] + K @ (b - mean)[known], sd)
            assert float(lower[s, t, k % size]) == pytest.approx(law.cdf(b[k]), rel=1e-8, abs=1e-12)
            assert float(upper[s, t, k % size]) == pytest.approx(law.sf(b[k]), rel=1e-8, abs=1e-12)
