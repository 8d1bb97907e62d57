"""Groups whose simulator is wrong against dense normals by SciPy."""

from functools import cache

import numpy as np
import pytensor
import pytensor.tensor as pt
import pytest
import xarray as xr
from scipy import linalg, stats

from hbm_zoo.group_level import discrepancy, discrepancy_level, discrepancy_rows

# Rows of four specimens; two are measured alike, one has a row alone, and no two rows of one have its places in order.
OF = np.array([0, 0, 0, 0, 1, 1, 1, 1, 2, 3, 3, 3])
X = np.array([0.1, 0.3, 0.1, 0.6, 0.1, 0.3, 0.1, 0.6, 0.3, 0.9, 0.1, 0.6])
P = np.array([1.0, 1.0, 2.0, 1.0, 1.0, 1.0, 2.0, 1.0, 2.0, 1.0, 1.0, 2.0])
F = 3 * X**2 * P
W = P * 2 * X
Y = np.random.default_rng(3).normal(1.4 * F + 0.3 * W, 0.1)
SIZES = {
    "all": (0.2, 0.15, 0.4, 0.3),
    "specimens are one": (0.0, 0.15, 0.4, 0.3),
    "the model is right": (0.2, 0.15, 0.0, 0.0),
    "a rough rig": (0.2, 0.05, 0.4, 0.01),
}
KINDS = {"proportional": np.inf, "stationary": 1.5}
NAMES = ["m", "s", "sigma", "a", "ell", "a_own"]


def data_of(reach=np.inf, keep=slice(None)):
    """As a page prepares them."""
    rows = {"deflection": Y, "f": F, "w": W, "position": X, "load": P, "seen": np.ones(Y.size), "of_specimen": OF}
    rows = xr.Dataset({name: ("row", value) for name, value in rows.items()}, attrs={"reach": reach})
    return discrepancy_rows.of_rows(rows, np.array(list("abcd")))


def h_of(s, sigma, a, a_own, own):
    """Two draws, so that dims are told apart."""
    values = {"m": (1.3, 1.5), "s": (s, 0.3), "sigma": (sigma, 0.2), "a": (a, 0.2), "ell": (0.35, 0.6)}
    values |= {"a_own": (a_own, 0.1)} if own else {}
    return xr.Dataset({name: ("sample", np.array(pair, float)) for name, pair in values.items()})


@pytest.fixture(params=SIZES)
def sizes(request):
    return SIZES[request.param]


@pytest.fixture(params=[False, True], ids=["shared", "by specimen"])
def h(request, sizes):
    return h_of(*sizes, own=request.param)


@pytest.fixture(params=KINDS)
def data(request):
    return data_of(KINDS[request.param])


class Dense:
    """Mean and covariance of b, of the discrepancy of each row, and of the rows, by one big normal."""

    def __init__(self, h, k, data, x=X, load=P, of=OF):
        m, s, self.sigma, a, ell = (h[name].values[k] for name in NAMES[:5])
        a_own = h["a_own"].values[k] if "a_own" in h else 0.0
        reach, same = data.attrs["reach"], np.equal.outer(x, x)
        if np.isfinite(reach):
            same = same & np.equal.outer(load, load)
        C = np.exp(-(np.subtract.outer(x, x) ** 2) / (2 * ell**2) - np.subtract.outer(load, load) ** 2 / (2 * reach**2))
        C = (1 - discrepancy.APART) * C + discrepancy.APART * same
        self.m, self.s, self.delta = m, s, (a**2 + a_own**2 * np.equal.outer(of, of)) * C
        self.V = s**2 * np.outer(F, F) * np.equal.outer(OF, OF) + self.sigma**2 * np.eye(Y.size)
        self.V += np.outer(W, W) * self.delta[: Y.size, : Y.size]

    def log_density(self, rows=slice(None)):
        """Of some rows."""
        mean = self.m * F[rows]
        return stats.multivariate_normal(mean, self.V[rows][:, rows]).logpdf(Y[rows]) if mean.size else 0.0

    def given(self, prior, with_rows):
        """Mean shift and covariance of something normal, given all rows."""
        gain = with_rows @ np.linalg.inv(self.V)
        return gain @ (Y - self.m * F), prior - gain @ with_rows.T

    def b(self):
        """Mean and covariance of the specimens' compliances given the rows."""
        shift, cov = self.given(self.s**2 * np.eye(4), self.s**2 * np.eye(4)[:, OF] * F)
        return self.m + shift, cov


def test_the_joint_density_is_the_matrix_s(h, data):
    found = discrepancy_level.log_joint(h, data)
    np.testing.assert_allclose(found, [Dense(h, k, data).log_density() for k in (0, 1)], rtol=1e-8, atol=1e-8)


@cache
def compiled(size):
    """The density that is sampled, and its gradient in h, of any data."""
    arrays = [pt.dvector(), pt.dvector(), pt.dvector(), pt.dmatrix(), pt.lvector(), pt.dtensor3(), *pt.dmatrices(2)]
    h = pt.dvector()
    value = discrepancy.log_density(*arrays, *(h[k] for k in range(size)))
    return pytensor.function([*arrays, h], [value, pytensor.grad(value, h)], mode="AS_WRITTEN")


def test_the_form_that_is_sampled_has_the_same_density_and_the_gradient_of_differences(h, data):
    names = [name for name in NAMES if name in h]
    statistics = [data[name].values for name in ("b_hat", "n", "rest", "q", "of_design", "T", "apart", "alike")]
    f, at = compiled(len(names)), np.array([h[name].values[0] for name in names])
    density, gradient = f(*statistics, at)
    assert density == pytest.approx(Dense(h, 0, data).log_density(), rel=1e-8, abs=1e-8)
    steps = 1e-5 * np.eye(len(names))
    differences = [(f(*statistics, at + e)[0] - f(*statistics, at - e)[0]) / 2e-5 for e in steps]
    np.testing.assert_allclose(gradient, differences, rtol=1e-4, atol=1e-4)


def test_a_group_left_out_is_the_joint_density_less_that_of_the_others(h, data):
    found = discrepancy_level.log_left_out(h, data).transpose("sample", "specimen")
    dense = [Dense(h, k, data) for k in (0, 1)]
    exact = [[d.log_density() - d.log_density(np.flatnonzero(OF != j)) for j in range(4)] for d in dense]
    np.testing.assert_allclose(found, exact, rtol=1e-8, atol=1e-8)


def test_a_row_left_out_is_the_joint_density_less_that_of_the_others(h, data):
    found = discrepancy_level.leave_row_out(h, data, np.arange(Y.size)).transpose("sample", "row")
    dense, rows = [Dense(h, k, data) for k in (0, 1)], np.arange(Y.size)
    exact = [[d.log_density() - d.log_density(np.delete(rows, i)) for i in rows] for d in dense]
    np.testing.assert_allclose(found, exact, rtol=1e-7, atol=1e-8)
    some = discrepancy_level.leave_row_out(h, data, np.array([7, 2]))
    np.testing.assert_allclose(some, found.isel(row=[7, 2]))


def test_specimens_given_the_rows_are_the_matrix_s(h, data):
    after = discrepancy_level.conditional(h, data)
    for k in (0, 1):
        mean, cov = Dense(h, k, data).b()
        one = [getattr(after, name).isel(sample=k).values for name in ("mean", "own", "loading")]
        np.testing.assert_allclose(one[0], mean, rtol=1e-8)
        np.testing.assert_allclose(np.diag(one[1] ** 2) + one[2] @ one[2].T, cov, rtol=1e-6, atol=1e-12)
        np.testing.assert_allclose(after.sd.isel(sample=k) ** 2, np.diag(cov), rtol=1e-7, atol=1e-14)


def test_however_small_the_noise_the_density_is_that_of_contrasts():
    """At a noise of 1e-5, where the matrix has lost its digits: its root by QR of [factors; noise], none squared."""
    for own in (False, True):
        h, data = h_of(0.2, 1e-5, 0.4, 0.3, own=own).isel(sample=[0]), data_of()
        points, at = np.unique(X, return_inverse=True)
        C = np.exp(-(np.subtract.outer(points, points) ** 2) / (2 * 0.35**2))
        root = np.linalg.cholesky((1 - discrepancy.APART) * C + discrepancy.APART * np.eye(points.size))
        factors = [0.2 * F[:, None] * np.equal.outer(OF, range(4)), 0.4 * W[:, None] * root[at]]
        factors += [0.3 * own * W[:, None] * root[at] * (OF == j)[:, None] for j in range(4)]
        R = np.linalg.qr(np.vstack([*(f.T for f in factors), 1e-5 * np.eye(Y.size)]), mode="r")
        z = linalg.solve_triangular(R.T, Y - 1.3 * F, lower=True)
        exact = -0.5 * z @ z - np.log(abs(np.diag(R))).sum() - 0.5 * Y.size * np.log(2 * np.pi)
        assert discrepancy_level.log_joint(h, data).item() == pytest.approx(exact, rel=1e-9)


def test_draws_and_density_are_joint():
    """Covariances of 40,000 draws, each within 5 standard errors; the density by SciPy."""
    h, data = h_of(*SIZES["all"], own=True), data_of()
    mean, cov = Dense(h, 0, data).b()
    after = discrepancy_level.conditional(h.isel(sample=np.zeros(40_000, int)), data)
    b = after.sample(np.random.default_rng(1)).transpose("sample", "specimen").values
    error = np.sqrt((cov**2 + np.outer(np.diag(cov), np.diag(cov))) / len(b))
    assert (abs(np.cov(b.T) - cov) < 5 * error).all()
    density = discrepancy_level.conditional(h.isel(sample=[0]), data).log_density(
        xr.DataArray(b[:4], dims=("draw", "specimen"), coords={"specimen": list("abcd")})
    )
    np.testing.assert_allclose(density.squeeze(), stats.multivariate_normal(mean, cov).logpdf(b[:4]), rtol=1e-8)


def test_at_given_compliances_the_rows_have_the_matrix_s_density(h, data):
    b = xr.DataArray([1.2, 1.5, 1.4, 1.1], dims="specimen", coords={"specimen": list("abcd")})
    found = discrepancy_level.log_likelihood(b, h, data).sum("specimen")
    no_spread = h.assign(s=0 * h.s)
    for k in (0, 1):
        V = Dense(no_spread, k, data).V
        exact = stats.multivariate_normal(b.values[OF] * F, V).logpdf(Y)
        assert float(found[k]) == pytest.approx(exact, rel=1e-8, abs=1e-8)


def test_averaged_over_compliances_the_log_likelihood_is_the_mean_of_draws():
    h, data = h_of(*SIZES["all"], own=True).isel(sample=[0]), data_of()
    b = discrepancy_level.conditional(h.isel(sample=np.zeros(4000, int)), data).sample(np.random.default_rng(2))
    drawn = discrepancy_level.log_likelihood(b, h.isel(sample=np.zeros(4000, int)), data).sum("specimen")
    found = float(discrepancy_level.expected_log_likelihood(h, data).sum())
    assert abs(float(drawn.mean()) - found) < 4 * float(drawn.std()) / np.sqrt(drawn.size)


def test_kappa_is_the_variance_that_the_rows_remove(h, data):
    found = discrepancy_level.reliability(h, data).transpose("sample", "specimen")
    for k in (0, 1):
        s = float(h.s[k])
        exact = 1 - np.diag(Dense(h, k, data).b()[1]) / s**2 if s else np.zeros(4)
        np.testing.assert_allclose(found[k], exact, atol=1e-8)


def test_differences_of_specimens_measured_alike_are_free_of_the_discrepancy_and_their_mean_is_not():
    """Specimens a and b have one design: b_a - b_b given the rows hardly depends on a and ell; the mean does."""
    data, base = data_of().isel(specimen=[0, 1]), h_of(*SIZES["all"], own=False).isel(sample=[0])
    assert data.of_design.values.tolist() == [0, 0]
    after = [discrepancy_level.conditional(base.assign(a=0 * base.a + a), data).mean.values[0] for a in (0.0, 0.5)]
    assert np.diff(after[0]) == pytest.approx(np.diff(after[1]), rel=1e-10)
    assert abs(after[0].mean() - after[1].mean()) > 0.05


def test_replicates_are_the_matrix_s_draws_given_the_rows():
    """New rows at old and new places, of a specimen that is known and of one that is not: mean and covariance."""
    for own in (False, True):
        h, seen = h_of(*SIZES["all"], own=own), data_of()
        x, load, of = np.array([0.3, 0.45, 0.3, 0.8]), np.array([1.0, 2.0, 2.0, 1.0]), np.array([0, 0, 1, 1])
        f, w = 3 * x**2 * load, load * 2 * x
        rows = {"deflection": 0 * x, "f": f, "w": w, "position": x, "load": load, "seen": np.ones(4), "of_specimen": of}
        rows = xr.Dataset({name: ("row", value) for name, value in rows.items()}, attrs=seen.attrs)
        new = discrepancy_rows.of_rows(rows, np.array(["b", "new"]))
        many = h.isel(sample=np.zeros(5_000, int))
        both = discrepancy_rows.joined(seen, discrepancy_rows.emptied(new))
        b = discrepancy_level.conditional(many, both).sample(np.random.default_rng(5)).sel(specimen=["b", "new"])
        y = discrepancy_level.replicate(np.random.default_rng(6), b, many, new, seen).transpose("sample", "row").values
        dense = Dense(h, 0, seen, np.append(X, x), np.append(P, load), np.append(OF, np.where(of == 0, 1, 4)))
        who = np.where(of == 0, 1, 4)
        delta = dense.delta[Y.size :]
        with_rows = dense.s**2 * np.outer(f, F) * np.equal.outer(who, OF) + np.outer(w, W) * delta[:, : Y.size]
        prior = dense.s**2 * np.outer(f, f) * np.equal.outer(who, who) + np.outer(w, w) * delta[:, Y.size :]
        shift, cov = dense.given(prior, with_rows)
        cov = cov + dense.sigma**2 * np.eye(4)
        assert (abs(y.mean(axis=0) - dense.m * f - shift) < 5 * np.sqrt(np.diag(cov) / len(y))).all()
        error = np.sqrt((cov**2 + np.outer(np.diag(cov), np.diag(cov))) / len(y))
        assert (abs(np.cov(y.T) - cov) < 5 * error).all()


def test_without_a_row_or_a_group_statistics_are_those_of_the_others():
    data = data_of()
    without, left = discrepancy_rows.without_row(data, 8), discrepancy_rows.without_group(data, "specimen", 2)
    xr.testing.assert_allclose(without, left)
    assert left["specimen"].values.tolist() == ["a", "b", "d"]
    h = h_of(*SIZES["all"], own=False)
    joined = discrepancy_rows.joined(left, data.isel(row=[8]).assign(of_specimen=("row", [2])))
    np.testing.assert_allclose(discrepancy_level.log_joint(h, joined), discrepancy_level.log_joint(h, data), rtol=1e-10)
    empty = discrepancy_level.conditional(h, discrepancy_rows.emptied(data))
    np.testing.assert_allclose(empty.sd, h.s * xr.ones_like(empty.sd))
    np.testing.assert_allclose(empty.mean, h.m * xr.ones_like(empty.mean))
