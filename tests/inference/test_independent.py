"""Independent draws: mixture, weights, tops; and planted conflicts of prior and data, none of which may pass."""

from functools import partial
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from pymc_extras.prior import Prior
from scipy import stats
from scipy.special import logsumexp, softmax

import hbm_zoo as hz
from hbm_zoo.group_level.newton import STEP
from hbm_zoo.inference import independent
from hbm_zoo.inference import places as places_of
from hbm_zoo.inference.independent import Weighted, effective, resampled, weighted
from hbm_zoo.inference.log_posterior import log_posterior
from hbm_zoo.inference.places import Places, around, places
from hbm_zoo.zoo import record_of

CONFLICTS = {
    "t1": (Prior("StudentT", nu=1, mu=0, sigma=0.02), Prior("HalfNormal", sigma=4)),
    "t2": (Prior("StudentT", nu=2, mu=0, sigma=0.05), Prior("HalfNormal", sigma=3)),
    "t1, narrow": (Prior("StudentT", nu=1, mu=0, sigma=0.002), Prior("HalfNormal", sigma=1)),
    "t3": (Prior("StudentT", nu=3, mu=0, sigma=0.1), Prior("HalfNormal", sigma=2)),
    "normal": (Prior("Normal", mu=0, sigma=0.3), Prior("HalfNormal", sigma=4)),
    "half-Cauchy": (Prior("Normal", mu=0, sigma=0.3), Prior("HalfCauchy", beta=1)),
}


def standard_normal(x):
    """Log density of points."""
    return stats.norm.logpdf(x).sum(axis=1)


class Density:
    """A posterior by its log density, for what needs no model."""

    much, step = False, STEP

    def __init__(self, log_density, size, log_prior=standard_normal, of_prior=None):
        """Of a prior that is a standard normal unless another is given, with draws of it."""
        self.log_density, self.log_prior, self.size = log_density, log_prior, size
        self.of_prior = np.random.default_rng(0).normal(size=(400, size)) if of_prior is None else of_prior

    def __call__(self, x):
        """Log density of points."""
        return self.log_density(x)

    def parts(self, x):
        """Of prior and likelihood."""
        return self.log_prior(x), self.log_density(x) - self.log_prior(x)


def clinics(effects, mu, tau, se=0.5):
    """The posterior of clinics whose effects are near 10, and its mean of mu by a fine grid."""
    record = record_of("vaccine_clinics")
    frame = pd.DataFrame(
        {"clinic": [*"abcdefghij"[: len(effects)]], "effect": np.array(effects, float), "standard_error": se}
    )
    data = record.data(frame)
    model = record.write(data, "partial", "marginalized", record.priors(data, {"mu": mu, "tau": tau}, "partial"))
    return log_posterior(model, {name: v.values for name, v in data.data_vars.items()}, nodes=1)


def on_grid(posterior):
    """Mean and sd of mu, by sums over a grid [tau, mu] on the lines on which they are drawn."""
    names = [v.name for v in posterior.model.free_RVs]
    mu, tau = np.meshgrid(np.linspace(-8, 16, 1601), np.linspace(-8, 12, 401), indexing="ij")
    u = np.column_stack([{"mu": mu, "tau": tau}[name].ravel() for name in names])
    share = softmax(posterior((u - posterior.centre) / posterior.scale))
    mean = share @ mu.ravel()
    return mean, np.sqrt(share @ (mu.ravel() - mean) ** 2)


def test_the_mixture_has_the_density_of_its_draws():
    """Its density against SciPy's; its draws by importance weights to a normal whose integral is 1."""
    mixture = around(
        Places(np.array([[1.0, -2.0], [4.0, 0.0]]), np.array([[[4.0, 1.0], [1.0, 1.0]], np.eye(2)]), np.zeros(2), 2)
    )
    x = mixture.sample(20_000, np.random.default_rng(1))
    parts = [
        share * stats.multivariate_t(centre, root @ root.T, df=5).pdf(x[:50])
        for share, centre, root in zip(mixture.shares, mixture.centres, mixture.roots, strict=True)
    ]
    np.testing.assert_allclose(np.exp(mixture.log_density(x[:50])), np.sum(parts, axis=0), rtol=1e-9)
    ratio = np.exp(stats.multivariate_normal([2, -1], [[1, 0.3], [0.3, 0.5]]).logpdf(x) - mixture.log_density(x))
    assert ratio.mean() == pytest.approx(1, abs=5 * ratio.std() / np.sqrt(len(x)))
    assert mixture.shares.sum() == pytest.approx(1)


def test_fitting_finds_a_skew_density():
    rng, skew = np.random.default_rng(2), stats.skewnorm(6)
    density = Density(lambda x: skew.logpdf(x[:, 0]), 1)
    found = independent.fitted(density, Places(np.array([[0.3]]), np.array([[[0.1]]]), np.zeros(1), 1), rng)
    x = found.sample(20_000, rng)
    assert effective(softmax(density(x) - found.log_density(x))) > 0.75 * len(x)


def test_each_top_is_found_once():
    def two(x):
        return np.logaddexp(stats.norm(-1, 0.1).logpdf(x[:, 0]), stats.norm(1.5, 0.1).logpdf(x[:, 0]) - 2)

    both = places(Density(two, 1))
    np.testing.assert_allclose(both.where, [[-1.0], [1.5]], atol=1e-4)
    np.testing.assert_allclose(both.shares, stats.logistic.cdf([2, -2]), rtol=1e-4)
    one = places(Density(lambda x: stats.norm(1, 0.2).logpdf(x).sum(axis=1), 2))
    np.testing.assert_allclose(one.where, [[1.0, 1.0]], atol=1e-4)
    np.testing.assert_allclose(one.curvature, [25 * np.eye(2)], rtol=1e-3, atol=1e-6)


def test_a_curvature_is_seen_between_the_nodes_of_a_table():
    """Log density of a table is linear between its nodes: differences shorter than their gap see an edge or nothing."""
    nodes = np.linspace(-6, 6, 121)
    table = Density(lambda x: np.interp(x[:, 0], nodes, stats.norm(1.03, 0.5).logpdf(nodes)), 1)
    table.step = 0.3
    found = places(table)
    assert found.tops == 1
    np.testing.assert_allclose(found.where, [[1.03]], atol=0.05)
    np.testing.assert_allclose(found.curvature, [[[4.0]]], rtol=0.3)


def test_where_no_draw_of_the_prior_has_a_density_there_is_no_place():
    assert places(Density(lambda x: np.full(len(x), -np.inf), 2)).tops == 0


@pytest.mark.parametrize("conflict", CONFLICTS)
@pytest.mark.parametrize("effects", [pytest.param((10.0, 10.3, 9.8), marks=pytest.mark.slow), (10.0, 10.3)])
def test_no_conflict_of_prior_and_data_passes_with_a_wrong_answer(conflict, effects):
    """Either the draws are refused, or mu's mean is that of a grid, which has two tops, up to 5 errors."""
    posterior = clinics(effects, *CONFLICTS[conflict])
    mean, sd = on_grid(posterior)
    for seed in range(3):
        rng = np.random.default_rng(seed)
        found = weighted(posterior, places(posterior), 2000, rng)
        if not found.failures:
            mu = posterior.variables(found.x)["mu"].values
            error = np.sqrt((found.weights**2 * (mu - found.weights @ mu) ** 2).sum()) + 0.01 * sd
            assert abs(found.weights @ mu - mean) < 5 * error


def half_t3(scale):
    """Half of Student's t of 3 degrees of freedom."""
    return SimpleNamespace(logpdf=lambda x: stats.t(3, 0, scale).logpdf(x) + np.log(2))


#: Data that a prior of mu and one of tau both contradict, each explained in two ways: mu far from its prior, or a
#: large tau. Effects, standard error, Student's nu and sigma of mu, tau as here and by SciPy.
BOTH = {
    "spread far out": (
        ([9, 10, 11.5], 0.2, 2, 0.02),
        Prior("InverseGamma", alpha=2, beta=0.001),
        stats.invgamma(2, scale=0.001),
    ),
    "spread farther": (
        ([4.2, 4.34, 5.55, 4.4, 5.67], 0.1, 3, 0.005),
        Prior("InverseGamma", alpha=3, beta=0.0016),
        stats.invgamma(3, scale=0.0016),
    ),
    "both in part": (
        ([1.87, 10.06, 9.71, 9.95, 9.8], 0.3, 2, 0.036),
        Prior("LogNormal", mu=-6.33, sigma=1),
        stats.lognorm(1, scale=np.exp(-6.33)),
    ),
    "a shoulder": (
        ([0, 0.1, -0.1, 8, 8.1, 7.9], 0.1, 1, 0.05),
        Prior("HalfNormal", sigma=4),
        stats.halfnorm(scale=4),
    ),
    "a long shoulder": (
        ([-1.13, 1.93, 1.42, 4.72, 4.49, 0.77, 11.78, 1.9], 1.0, 1, 0.0075),
        Prior("HalfStudentT", nu=3, sigma=0.35),
        half_t3(0.35),
    ),
    "a shoulder of heavy tails": (
        ([0, 0.1, -0.1, 8, 8.1, 7.9], 0.1, 1, 0.05),
        Prior("HalfCauchy", beta=1),
        stats.halfcauchy(),
    ),
}


@pytest.mark.parametrize("contradicted", BOTH)
def test_a_mean_and_a_spread_that_are_both_contradicted_are_followed(contradicted):
    """Against sums over a grid, by SciPy alone."""
    (effects, se, nu, sigma), tau, of_tau = BOTH[contradicted]
    posterior = clinics(effects, Prior("StudentT", nu=nu, mu=0, sigma=sigma), tau, se)
    mu = np.unique([*np.sinh(np.linspace(-13, 13, 2001)) * 1e-4, *np.linspace(-30, 30, 3001)])
    log_tau = np.linspace(-12, 7, 700)
    log_density = stats.t(nu, 0, sigma).logpdf(mu)[:, None] + of_tau.logpdf(np.exp(log_tau)) + log_tau
    for effect in effects:
        log_density += stats.norm(0, np.hypot(np.exp(log_tau), se)).logpdf(effect - mu[:, None])
    mass = np.exp(log_density - log_density.max()).sum(axis=1) * np.gradient(mu)
    mean = mass @ mu / mass.sum()
    sd = np.sqrt(mass @ (mu - mean) ** 2 / mass.sum())
    for seed in range(3):
        found = weighted(posterior, places(posterior), 4000, np.random.default_rng(seed))
        assert not found.failures
        at = posterior.variables(found.x)["mu"].values
        error = np.sqrt((found.weights**2 * (at - mean) ** 2).sum())
        assert found.weights @ at == pytest.approx(mean, abs=4.5 * error + 0.01 * sd)
        assert found.weights @ (at - mean) ** 2 == pytest.approx(sd**2, rel=0.15)


def test_a_proposal_that_has_missed_a_top_passes_k_hat(monkeypatch):
    """Why tops are looked for from the likelihood as well: a wrong answer may pass every check of weights."""
    monkeypatch.setattr(places_of, "PRIOR_COUNTS", np.array([1.0]))
    monkeypatch.setattr(places_of, "TOO_THIN", np.inf)  # neither far out nor among the prior's draws
    posterior = clinics((10.0, 10.3, 9.8), *CONFLICTS["t1"])
    mean, _ = on_grid(posterior)
    passed = []
    for seed in range(3):
        rng = np.random.default_rng(seed)
        found = weighted(posterior, places(posterior), 2000, rng)
        passed.append(not found.failures and found.weights @ posterior.variables(found.x)["mu"].values < 0.1 < mean)
    assert any(passed)


@pytest.mark.parametrize("share", [0.99, 0.95, 0.7])
@pytest.mark.parametrize("says", [0.2, 5.0, 9.0])
def test_a_prior_of_two_tops_is_followed(share, says):
    """Far apart, in units of the middle half of the prior, which is one of them; the likelihood allows for both."""
    rng = np.random.default_rng(4)
    of_prior = np.where(rng.random(400) < share, 0, 10)[:, None] + 0.02 * rng.normal(size=(400, 1))

    def prior(x):
        logs = [stats.norm(centre, 0.02).logpdf(x[:, 0]) for centre in (0, 10)]
        return logsumexp(np.array(logs).T, axis=1, b=[share, 1 - share])

    def posterior(x):
        return prior(x) + stats.norm(says, 3).logpdf(x[:, 0])

    density = Density(posterior, 1, prior, of_prior)
    found = weighted(density, places(density), 2000, rng)
    mass = np.array([share, 1 - share]) * stats.norm(says, 3).pdf([0, 10])
    mean = 10 * mass[1] / mass.sum()
    error = np.sqrt((found.weights**2 * (found.x[:, 0] - mean) ** 2).sum())
    assert not found.failures
    assert found.tops == 2
    assert abs(found.weights @ found.x[:, 0] - mean) < 5 * error + 0.01


def test_weights_that_prove_nothing_fail():
    rng = np.random.default_rng(5)
    x = rng.normal(size=(4000, 1))
    even = Weighted(x, np.zeros(4000), 1)
    assert not even.failures
    assert even.ess == pytest.approx(4000)
    cauchy = Weighted(x, np.abs(stats.cauchy.rvs(size=4000, random_state=rng)), 1)
    assert "k-hat" in cauchy.failures[0]
    one = Weighted(x, np.where(np.arange(4000) == 7, 30.0, 0.0), 1)
    assert any("effective of 4000 proposals are fewer than 400" in said for said in one.failures)
    for planted in (np.nan, np.inf):
        assert Weighted(x, np.where(np.arange(4000) == 7, planted, 0.0), 1).failures
    assert Weighted(x, np.full(4000, -np.inf), 1).failures


def test_resampled_draws_are_of_the_weights_and_worth_what_they_say():
    """The mean of draws has, over repetitions, the error that their effective number says."""
    rng = np.random.default_rng(6)
    means, worths = [], []
    for _ in range(600):
        x = rng.normal(size=1000)
        weights = softmax(0.8 * x)  # from a standard normal to one around 0.8
        chosen, worth = resampled(weights, 500, rng)
        means.append(x[chosen].mean())
        worths.append(worth)
    assert np.mean(means) == pytest.approx(0.8, abs=0.02)
    assert 1 / np.var(means) == pytest.approx(np.mean(worths), rel=0.25)
    chosen, worth = resampled(np.full(1000, 1e-3), 500, rng)
    assert worth == pytest.approx(500)
    assert np.unique(chosen).size == 500
    assert resampled(np.full(500, 1 / 500), 500, rng)[1] == pytest.approx(500)


def test_where_proposals_are_worth_little_more_are_made(monkeypatch):
    """A narrow crescent, of which a few ellipses explain little; a normal density needs no more than asked for."""
    monkeypatch.setattr(independent, "along", lambda posterior, mixture, seen, rng: mixture)

    def crescent(x):
        return -(x[:, 0] ** 2) / 2 - (x[:, 1] - x[:, 0] ** 2) ** 2 / 0.002

    top, sizes = Places(np.zeros((1, 2)), np.eye(2)[None], np.zeros(1), 1), {}
    for log_density in (crescent, standard_normal):
        found = weighted(Density(log_density, 2), top, 4000, np.random.default_rng(7))
        sizes[log_density] = len(found.x)
    assert sizes[standard_normal] == 8000
    assert sizes[crescent] > 8000


@pytest.mark.long
@pytest.mark.parametrize("shape", [pytest.param(3, marks=pytest.mark.slow), 1])
def test_ten_correlated_and_skew_dimensions_are_proved_and_right(shape):
    """Sums of logs of gamma variables, of skewness -.6 and -1.1: means and standard deviations are known."""
    rng = np.random.default_rng(shape)
    mixed, part = np.linalg.qr(rng.normal(size=(10, 10)))[0] * np.geomspace(0.2, 2, 10), stats.loggamma(shape)
    posterior = Density(lambda x: part.logpdf(np.linalg.solve(mixed, x.T)).sum(axis=0), 10)
    with np.errstate(over="ignore"):
        found = weighted(posterior, places(posterior), 4000, rng)
    assert found.failures == []
    mean, sd = found.weights @ found.x, np.sqrt(part.var() * (mixed**2).sum(axis=1))
    z = (mean - part.mean() * mixed.sum(axis=1)) / (sd / np.sqrt(found.ess))
    assert (z**2).sum() < stats.chi2(10).isf(1e-4)
    np.testing.assert_allclose(found.weights @ (found.x - mean) ** 2, sd**2, rtol=6 * np.sqrt(3 / found.ess))


def test_settings_of_steps_are_refused_by_name():
    frame = hz.load_data("bcg_vaccine")
    with pytest.raises(ValueError, match="tune, target_accept: a setting of NUTS"):
        hz.fit("vaccine_clinics", frame, engine="independent", tune=10, target_accept=0.9)
    with pytest.raises(ValueError, match="tune must be a whole number, 1 or more, got 0"):
        hz.fit("vaccine_clinics", frame, engine="nuts", tune=0)
    with pytest.raises(ValueError, match="target_accept must lie between 0 and 1, got 'high'"):
        hz.fit("vaccine_clinics", frame, engine="nuts", target_accept="high")
    with pytest.raises(ValueError, match="No independent draws: the centered form has arrays"):
        hz.fit("vaccine_clinics", frame, engine="independent", parameterization="centered")
    with pytest.raises(ValueError, match="independent"):
        hz.fit("vaccine_clinics", frame, engine="independant")


def along_a_parabola(x, width=0.1):
    """Log density: x_0 is normal, x_1 is its square but for some width, x_2 is by itself."""
    middle = np.column_stack([0 * x[:, 0], x[:, 0] ** 2, 0 * x[:, 0]])
    return stats.norm(middle, [1.5, width, 0.3]).logpdf(x).sum(axis=1)


WIDTHS = [0.1, 0.15, 0.25, 0.4, 0.7]


def errors_of_the_mean(width):
    """What fails of weighted proposals along a parabola, and how far its mean is off [standard errors]."""
    density = Density(partial(along_a_parabola, width=width), 3)
    found = independent.weighted(density, places(density), 4000, np.random.default_rng(2))
    mean = found.weights @ found.x[:, 1]
    return found.failures, (mean - 1.5**2) / np.sqrt(found.weights**2 @ (found.x[:, 1] - mean) ** 2)


@pytest.mark.parametrize("width", [pytest.param(w, marks=[pytest.mark.slow] * (w not in (0.15, 0.4))) for w in WIDTHS])
def test_a_curve_is_followed_however_thin(width, monkeypatch):
    """The planted fault is to grow only where k-hat says so: it passes, and the mean is many errors off."""
    failures, z = errors_of_the_mean(width)
    assert not failures
    assert abs(z) < 4
    monkeypatch.setattr(independent, "THIN", np.inf)
    failures, z = errors_of_the_mean(width)
    assert width == 0.1 or (not failures and abs(z) > 5)


def test_a_mixture_grows_along_a_curve_that_it_did_not_cover():
    """The mean of x_1, the variance of x_0, lies far out on both arms; a mixture that does not grow is refused."""
    density = Density(along_a_parabola, 3)
    found, rng = places(density), np.random.default_rng(1)

    def proposed(mixture):
        x = mixture.sample(8000, rng)
        return Weighted(x, density(x) - mixture.log_density(x), found.tops)

    mixture = independent.fitted(density, found, rng)
    first = proposed(mixture)
    grown = proposed(independent.along(density, mixture, first, rng))
    mean = grown.weights @ grown.x[:, 1]
    error = np.sqrt(grown.weights**2 @ (grown.x[:, 1] - mean) ** 2)
    assert first.failures
    assert not grown.failures
    assert grown.ess > 4000
    assert mean == pytest.approx(1.5**2, abs=4 * error)
    assert error < 0.06


def test_a_part_that_a_mixture_grows_lies_where_it_was_too_thin():
    mixture = around(Places(np.zeros((1, 2)), np.eye(2)[None], np.zeros(1), 1))
    x = np.random.default_rng(1).normal([5.0, -3.0], [0.5, 0.2], (2000, 2))
    grown = mixture.grown(x, stats.norm([5.0, -3.0], [0.5, 0.2]).logpdf(x).sum(axis=1), 1)
    assert grown.shares.sum() == pytest.approx(1)
    assert grown.shares[-1] == mixture.shares[-1]
    np.testing.assert_allclose(grown.centres[-2], [5.0, -3.0], atol=2)
    np.testing.assert_array_equal(grown.centres[-1], mixture.centres[-1])
