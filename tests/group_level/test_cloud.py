"""The cloud against brute force: a fine grid over two coefficients, spreads from 1 to 0, groups from no row to many."""

from dataclasses import replace

import numpy as np
import pytensor
import pytensor.tensor as pt
import pytest
import xarray as xr
from scipy import special, stats

from hbm_zoo.group_level import cloud as engine
from hbm_zoo.group_level import features
from hbm_zoo.group_level.cloud import Cloud
from hbm_zoo.group_level.weighted import MultivariateNormal

TIMES = np.linspace(0.2, 4, 12)
ROWS = {"none": 0, "one": 1, "few": 3, "rich": 12}
MU = np.array([0.5, -0.3])


def population(h):
    """Log amplitude and log rate: sds omega and 0.8 omega, and their correlation."""
    row = xr.DataArray([1.0, 0.0], dims="deviate"), xr.DataArray([0.0, 1.0], dims="deviate")
    first = h.omega * row[0]
    second = 0.8 * h.omega * (h.rho * row[0] + np.sqrt(1 - h.rho**2) * row[1])
    cholesky = xr.concat([first, second], dim="coefficient").assign_coords(coefficient=["amplitude", "rate"])
    mean = h.delta + xr.DataArray(MU, dims="coefficient", coords={"coefficient": ["amplitude", "rate"]})
    return MultivariateNormal(mean, cholesky)


def curve(theta, data):
    """Sum of squares around A exp(-k t), over the rows that a group has."""
    log_a, log_k = (theta.isel(coefficient=k, drop=True) for k in (0, 1))
    expected = np.exp(log_a - np.exp(log_k) * data.time)
    return ((data.y - expected) ** 2 * data.seen).sum("time")


def log_density(squares, h, data):
    return -squares / (2 * h.sigma**2) - data.seen.sum("time") * np.log(h.sigma * np.sqrt(2 * np.pi))


def rough(data, priors):
    return xr.Dataset({"omega": 0.6, "rho": 0.0, "sigma": 0.1, "delta": 0.0})


DECAY = Cloud(group="dish", population=population, predict=curve, log_density=log_density, rough=rough)


def dishes():
    """Four dishes, of no row, one, three and twelve."""
    rng, y, seen = np.random.default_rng(4), [], []
    for j, rows in enumerate(ROWS.values()):
        a, k = np.exp(MU + 0.5 * rng.standard_normal(2))
        y.append(a * np.exp(-k * TIMES) + 0.1 * rng.standard_normal(TIMES.size))
        seen.append(np.arange(TIMES.size) % 12 < rows)
        assert seen[j].sum() == rows
    data = {"y": (("dish", "time"), np.array(y)), "seen": (("dish", "time"), np.array(seen, float))}
    return xr.Dataset(data, coords={"dish": list(ROWS), "time": TIMES})


DATA = dishes()
LEVEL = DECAY.group_level()
SEEN = DATA.merge(LEVEL.nodes(DATA, {}, np.random.default_rng(5), None))


def at(**values):
    given = {"omega": 0.5, "rho": 0.0, "sigma": 0.1, "delta": 0.0} | values
    each = np.broadcast_arrays(*map(np.atleast_1d, given.values()))
    return xr.Dataset({name: ("sample", value.astype(float)) for name, value in zip(given, each, strict=True)})


def brute_force(h, data, dish, power=1.0, allowed=lambda theta: True, g=lambda theta: theta):
    """Log integral, mean and sd of g, by default both coefficients, on a grid over all within 40 nats of the top."""
    one, h = data.sel(dish=dish), h.isel(sample=0)
    of, ends = population(h), [(-20.0, 20.0), (-20.0, 20.0)]
    for points in (201, 401, 401):
        axes = [np.linspace(*end, points) for end in ends]
        z = np.stack(np.meshgrid(*axes, indexing="ij"))
        theta = of.at(xr.DataArray(z, dims=("deviate", "p", "q")))
        log_f = power * log_density(curve(theta, one), h, one).values + stats.norm.logpdf(z).sum(axis=0)
        log_f = np.where(allowed(theta), log_f, -np.inf)
        near = log_f > log_f.max() - 40
        steps = [axis[1] - axis[0] for axis in axes]
        kept = [axis[near.any(axis=1 - k)] for k, axis in enumerate(axes)]
        ends = [(x.min() - step, x.max() + step) for x, step in zip(kept, steps, strict=True)]
    total = special.logsumexp(log_f)
    weight = xr.DataArray(np.exp(log_f - total), dims=("p", "q"))
    mean = (weight * g(theta)).sum(["p", "q"])
    sd = np.sqrt((weight * (g(theta) - mean) ** 2).sum(["p", "q"]))
    return total + np.log(steps).sum(), mean.values, sd.values


SPREADS = [(1.0, 0.0), (0.3, 0.6), (0.1, 0.0), (0.03, -0.5), (0.003, 0.0)]


@pytest.mark.parametrize(("omega", "rho"), SPREADS)
def test_integrals_means_and_sds_are_brute_force(omega, rho):
    h = at(omega=omega, rho=rho)
    found, after = DECAY.integrate(h, SEEN), LEVEL.conditional(h, SEEN)
    assert (found.effective >= engine.FEWEST).all()
    for dish in ROWS:
        total, mean, sd = brute_force(h, DATA, dish)
        one = {"dish": dish, "sample": 0}
        error = float(found.error.sel(dish=dish).isel(sample=0))
        off = abs(float(found.log_marginal.sel(dish=dish).isel(sample=0)) - total)
        assert off < 4 * error + 1e-6, (dish, off, error)
        assert error < 0.08
        ours = (value.sel(dish=dish).isel(sample=0).values for value in (after.mean, after.sd))
        for found_, exact in zip(ours, (mean, sd), strict=True):
            np.testing.assert_allclose(found_, exact, atol=0.12 * sd.max(), err_msg=str(one))


@pytest.mark.slow
def test_the_stated_error_covers_the_true_one():
    """Over 20 clouds the error of each integral, in units of the one that is stated, is at most one in rms."""
    h, z = at(omega=[0.7, 0.2, 0.03], rho=0.3), []
    exact = np.array([[brute_force(h.isel(sample=[k]), DATA, dish)[0] for dish in ROWS] for k in range(3)])
    for seed in range(20):
        seen = DATA.merge(LEVEL.nodes(DATA, {}, np.random.default_rng(seed), None))
        found = DECAY.integrate(h, seen).transpose("sample", "dish")
        z.append((found.log_marginal.values - exact) / np.maximum(found.error.values, 1e-9))
    rms = np.sqrt(np.mean(np.square(z), axis=0))
    assert (rms < 1.2).all(), rms
    assert rms.max() > 0.1  # an error that says nothing would be far too wide


def test_without_spread_all_is_the_likelihood_at_the_mean():
    h = at(omega=0.0, delta=0.1)
    theta = population(h).mean.isel(sample=0)
    for dish in ROWS:
        one = DATA.sel(dish=dish)
        exact = float(log_density(curve(theta, one), h.isel(sample=0), one))
        assert float(LEVEL.log_left_out(h, SEEN).sel(dish=dish).squeeze()) == pytest.approx(exact, rel=1e-12)
    after = LEVEL.conditional(h, SEEN)
    np.testing.assert_allclose(after.mean.transpose(..., "coefficient").squeeze(), np.tile(theta, (4, 1)), rtol=1e-12)
    assert (after.sd == 0).all()
    assert (LEVEL.reliability(h, SEEN) == 0).all()


def test_the_way_to_no_spread_is_smooth():
    """The rich dish from a spread of 1e-4 to none: no jump where fixed nodes give way to others."""
    values = LEVEL.log_joint(at(omega=[0.0, 1e-9, 1e-6, 1e-4]), SEEN).values
    np.testing.assert_allclose(values, values[0], atol=0.02)


def test_fixed_nodes_alone_fail_at_a_small_spread(monkeypatch):
    """What moving nodes are for: the planted fault is an error of more than half a nat."""
    h = at(omega=0.01)
    exact = brute_force(h, DATA, "rich")[0]
    assert float(LEVEL.log_left_out(h, SEEN).sel(dish="rich").squeeze()) == pytest.approx(exact, abs=0.02)
    monkeypatch.setattr(engine, "FEWEST", 0)
    fixed = LEVEL.log_left_out(at(omega=0.01), SEEN)  # h as such would be remembered
    assert abs(float(fixed.sel(dish="rich").squeeze()) - exact) > 0.3


@pytest.mark.parametrize("omega", [0.6, 0.05])
def test_new_rows_of_a_dish_have_their_density(omega):
    """The second half of the rows given the first: a ratio of two integrals."""
    early = DATA.time < 2
    first, second = DATA.assign(seen=DATA.seen * early), DATA.assign(seen=DATA.seen * ~early)
    seen = first.merge(LEVEL.nodes(first, {}, np.random.default_rng(6), None))
    h = at(omega=omega)
    found = LEVEL.log_predictive(h, second, seen)
    for dish in ("none", "few", "rich"):
        both, half = (brute_force(h, data, dish)[0] for data in (DATA, first))
        assert float(found.sel(dish=dish).squeeze()) == pytest.approx(both - half, abs=0.15 if dish == "rich" else 0.05)


def test_expected_log_likelihood_and_kappa_are_brute_force():
    h = at(omega=0.5)
    expected, kappa = LEVEL.expected_log_likelihood(h, SEEN), LEVEL.reliability(h, SEEN)
    for dish in ROWS:
        step = 1e-3  # d/ds log of the integral of likelihood^s at s = 1
        ends = [brute_force(h, DATA, dish, power=1 + s)[0] for s in (step, -step)]
        slope = (ends[0] - ends[1]) / (2 * step)
        assert float(expected.sel(dish=dish).squeeze()) == pytest.approx(slope, abs=0.1)
        sd = brute_force(h, DATA, dish)[2]
        share = 1 - sd**2 / (np.array([0.5, 0.4]) ** 2)
        np.testing.assert_allclose(kappa.sel(dish=dish).squeeze(), share, atol=0.12)


def half_life(theta):
    return np.log(2) * np.exp(-theta.isel(coefficient=1, drop=True))


@pytest.mark.parametrize("omega", [0.5, 0.05])
def test_what_is_reported_may_be_a_function_of_the_parameter(omega):
    """The half-life alone: mean, sd and kappa by brute force; its draws are those of theta; before data lognormal."""
    h, level = at(omega=omega), replace(DECAY, estimand=half_life).group_level()
    after, before, kappa = level.after(h, SEEN), level.of_groups(h, SEEN), level.reliability(h, SEEN)
    scale = 0.8 * omega
    rate = stats.lognorm(scale, scale=np.log(2) * np.exp(-MU[1]))
    assert float(before.mean.squeeze()) == pytest.approx(rate.mean(), rel=1e-3)
    assert float(before.sd.squeeze()) == pytest.approx(rate.std(), rel=0.02)
    for dish in ROWS:
        _, mean, sd = brute_force(h, DATA, dish, g=half_life)
        assert float(after.mean.sel(dish=dish).squeeze()) == pytest.approx(float(mean), abs=0.1 * float(sd))
        assert float(after.sd.sel(dish=dish).squeeze()) == pytest.approx(float(sd), rel=0.08)
        assert float(kappa.sel(dish=dish).squeeze()) == pytest.approx(1 - float(sd) ** 2 / rate.var(), abs=0.1)
    one, both = (of.sample(np.random.default_rng(3)) for of in (after, level.conditional(h, SEEN)))
    np.testing.assert_array_equal(one, level.reported(both, SEEN))


def test_the_likelihood_at_a_given_parameter_is_that_of_the_rows():
    h, theta = at(), population(at()).over(xr.ones_like(DATA.dish, dtype=float)).sample(np.random.default_rng(2))
    found = LEVEL.log_likelihood(theta, h, SEEN)
    for dish in ROWS:
        of, rows = theta.sel(dish=dish).isel(sample=0).values, DATA.seen.sel(dish=dish).values > 0
        expected = np.exp(of[..., 0] - np.exp(of[..., 1]) * TIMES)[rows]
        exact = stats.norm(expected, 0.1).logpdf(DATA.y.sel(dish=dish).values[rows]).sum()
        assert float(found.sel(dish=dish).squeeze()) == pytest.approx(exact, rel=1e-9, abs=1e-12)


def test_kappa_averaged_over_what_a_dish_may_show_is_a_share():
    """1 - E[Var(theta | y)] / Var(theta) lies in [0, 1] on average over simulated dishes of three rows."""
    rng, n = np.random.default_rng(8), 150
    theta = population(at()).over(xr.DataArray(np.ones(n), dims="dish")).sample(rng)
    theta = theta.squeeze("sample").transpose("dish", "coefficient")
    expected = np.exp(theta.values[:, :1] - np.exp(theta.values[:, 1:]) * TIMES)
    y = expected + 0.1 * rng.standard_normal(expected.shape)
    seen = np.tile(np.arange(TIMES.size) < 3, (n, 1)).astype(float)
    many = xr.Dataset({"y": (("dish", "time"), y), "seen": (("dish", "time"), seen)}, coords={"time": TIMES})
    many = many.merge(replace(DECAY, size=256).group_level().nodes(many, {}, rng, None))
    kappa = LEVEL.reliability(at(), many).squeeze("sample").mean("dish")
    assert ((kappa > 0) & (kappa < 1)).all()
    # By total variance the average of kappa is what the means vary by, here within its standard error of 12 %.
    between = LEVEL.conditional(at(), many).mean.squeeze("sample").var("dish")
    share = between / xr.DataArray([0.25, 0.16], dims="coefficient")
    assert (abs(kappa - share) < 4 * share * np.sqrt(2 / n)).all()


def test_where_a_simulator_fails_the_likelihood_is_0():
    def fails(theta, data):
        squares = curve(theta, data)
        return squares.where(theta.isel(coefficient=0, drop=True) < 0.5)

    broken = replace(DECAY, predict=fails)
    level = broken.group_level()
    seen = DATA.merge(level.nodes(DATA, {}, np.random.default_rng(5), None))
    found = float(level.log_left_out(at(), seen).sel(dish="one").squeeze())
    exact = brute_force(at(), DATA, "one", allowed=lambda theta: (theta.isel(coefficient=0) < 0.5).values)[0]
    assert found == pytest.approx(exact, abs=0.05)
    assert LEVEL.log_joint(at(sigma=0.0), SEEN).item() == -np.inf  # and no warning
    with pytest.raises(ValueError, match="The likelihood is 0 at every node of dish"):
        replace(DECAY, predict=lambda theta, data: curve(theta, data) * np.nan).group_level().nodes(
            DATA, {}, np.random.default_rng(5), None
        )


def test_a_cloud_says_what_it_needs():
    with pytest.raises(ValueError, match="a power of 2 of nodes a group, such as 1024; got 1000"):
        replace(DECAY, size=1000).group_level().nodes(DATA, {}, np.random.default_rng(1), None)
    flat = replace(DECAY, rough=lambda data, priors: rough(data, priors).assign(omega=0.0))
    with pytest.raises(ValueError, match="must have a spread in every coefficient"):
        flat.group_level().nodes(DATA, {}, np.random.default_rng(1), None)


def test_a_pilot_moves_the_nodes_and_one_without_spread_does_not():
    pilot = at(omega=[0.4, 0.6], delta=[0.9, 1.1])
    made = LEVEL.nodes(DATA, {}, np.random.default_rng(5), pilot)
    np.testing.assert_allclose(made.pilot_mean, MU + 1)
    same = LEVEL.nodes(DATA, {}, np.random.default_rng(5), at(omega=0.0))
    np.testing.assert_array_equal(same.theta, SEEN.theta)


def test_placed_groups_have_their_own_mean():
    """`at` moves one dish: it alone changes, by what its own hyperparameters say."""
    shift = xr.DataArray([0.0, 0.0, 0.0, 0.4], dims="dish")
    placed = replace(DECAY, at=lambda h, data: h.assign(delta=h.delta + data.extra)).group_level()
    data = SEEN.assign(extra=shift)
    ours, plain = placed.log_left_out(at(), data).squeeze(), LEVEL.log_left_out(at(), SEEN).squeeze()
    np.testing.assert_allclose(ours[:3], plain[:3], atol=1e-9)
    exact = brute_force(at(delta=0.4), DATA, "rich")[0]
    assert float(ours[3]) == pytest.approx(exact, abs=0.1)


def test_the_sampler_has_the_same_integral_and_its_gradient():
    h = at(omega=0.5, rho=0.3).isel(sample=0)
    phi = features.features(SEEN)
    inputs = [pt.dvector(), pt.dmatrix(), pt.dscalar()]
    data = [SEEN.predicted, phi, SEEN.log_q, SEEN.pilot_mean, SEEN.pilot_cholesky, DATA.seen.sum("time")]
    squares, given, log_q, pilot_mean, pilot_cholesky, rows = (pt.as_tensor(value.values) for value in data)
    mean, cholesky, sigma = inputs
    density = -squares / (2 * sigma**2) - rows[:, None] * pt.log(sigma * np.sqrt(2 * np.pi))
    total = features.log_marginal(density, given, log_q, mean, cholesky, pilot_mean, pilot_cholesky, 2)
    gradient = pytensor.grad(total.sum(), inputs)
    f = pytensor.function(inputs, [total, *gradient], mode="AS_WRITTEN")
    of = population(h)
    point = of.mean.values, of.cholesky.transpose("coefficient", "deviate").values, 0.1
    ours, slope, of_cholesky, of_sigma = f(*point)
    fixed = integral_of_fixed(h)
    np.testing.assert_allclose(ours, fixed, rtol=1e-9)
    e = 1e-5
    for k in range(2):
        up, down = (f(point[0] + s * e * np.eye(2)[k], *point[1:])[0].sum() for s in (1, -1))
        assert slope[k] == pytest.approx((up - down) / (2 * e), rel=1e-5)
    for i, k in ((0, 0), (1, 0), (1, 1)):
        one = np.zeros((2, 2))
        one[i, k] = e
        up, down = (f(point[0], point[1] + s * one, point[2])[0].sum() for s in (1, -1))
        assert of_cholesky[i, k] == pytest.approx((up - down) / (2 * e), rel=1e-5)
    up, down = (f(*point[:2], 0.1 + s * e)[0].sum() for s in (1, -1))
    assert float(of_sigma) == pytest.approx((up - down) / (2 * e), rel=1e-4)


def integral_of_fixed(h):
    """The same sum written out with scipy's normal density."""
    of, found = population(h), []
    covariance = of.cholesky.transpose("coefficient", "deviate").values
    normal = stats.multivariate_normal(of.mean.values, covariance @ covariance.T)
    for j in range(len(ROWS)):
        one = SEEN.isel(dish=j)
        log_f = log_density(one.predicted, h, DATA.isel(dish=j)) + normal.logpdf(one.theta.values) - one.log_q
        found.append(special.logsumexp(log_f) - np.log(log_f.size))
    return found


def test_three_coefficients_once():
    """Normal rows of the sum of three coefficients: in closed form, rich and sparse, wide and narrow."""
    eye = xr.DataArray(np.eye(3), dims=("coefficient", "deviate"))
    cloud = Cloud(
        group="site",
        population=lambda h: MultivariateNormal(0.0 * eye.sum("deviate"), h.omega * eye),
        predict=lambda theta, data: theta.sum("coefficient"),
        log_density=lambda total, h, data: -0.5 * data.n * (data.y - total) ** 2,
        rough=lambda data, priors: xr.Dataset({"omega": 1.0}),
    )
    data = xr.Dataset({"y": ("site", [0.3, -1.0]), "n": ("site", [1.0, 50.0])})
    seen = data.merge(cloud.group_level().nodes(data, {}, np.random.default_rng(1), None))
    omega = np.array([1.0, 0.3, 0.03, 0.001])
    found = cloud.integrate(xr.Dataset({"omega": ("sample", omega)}), seen).transpose("sample", "site")
    variance = 3 * omega[:, None] ** 2 + 1 / data.n.values
    exact = stats.norm(0, np.sqrt(variance)).logpdf(data.y.values) + 0.5 * np.log(2 * np.pi / data.n.values)
    assert (abs(found.log_marginal.values - exact) < 4 * found.error.values + 1e-6).all()
    assert (found.error < 0.08).all()
