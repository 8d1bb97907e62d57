"""Success rates: density, identities, brute force on grids, references, bad frames."""

import json
import warnings
from pathlib import Path

import arviz as az
import numpy as np
import pandas as pd
import pytest
import xarray as xr
from pymc_extras.prior import Prior
from pytensor.compile.mode import Mode
from scipy import special, stats

import hbm_zoo as hz
from hbm_zoo.diagnostics import cross_validation, replicas
from hbm_zoo.frames.rules import FrameError
from hbm_zoo.inference.fits import hyperparameters, thinned
from hbm_zoo.inference.sampling import refit
from hbm_zoo.models import success_rates as rates

MODEL = rates.MODEL
POPULATIONS = ("beta", "logit-normal")
BATTERS = hz.load_data("baseball")
FEW = pd.DataFrame({"unit": list("ABCD"), "successes": [0, 3, 7, 1], "trials": [4, 10, 7, 1]})


def at(**values):
    return xr.Dataset({name: ("sample", np.atleast_1d(np.asarray(v, float))) for name, v in values.items()})


# Density: each variant against scipy, at random points, and its gradient.

POINT = {
    "beta": {"mu": 0.3, "phi": 0.4},
    "logit-normal": {"mu": -0.4, "tau": 0.7},
}


def by_scipy(population, pooling, form, values, unit):
    """Log density of a variant, its priors included; `unit` is what each unit has."""
    y, n = FEW["successes"].to_numpy(), FEW["trials"].to_numpy()
    mu = values["mu"]
    if population == "beta":
        phi = values["phi"]
        a, b = mu / phi**2, (1 - mu) / phi**2
        prior = stats.halfnorm(scale=0.5).logpdf(phi)
        if pooling == "complete":
            return stats.binom.logpmf(y, n, mu).sum()
        if form == "marginalized":
            return prior + stats.betabinom.logpmf(y, n, a, b).sum()
        p, of_units = unit, stats.beta.logpdf(unit, a, b).sum()
        if form == "noncentered":
            scale = phi / np.sqrt(mu * (1 - mu))
            p = special.expit(special.logit(mu) + scale * unit)
            of_units = (stats.beta.logpdf(p, a, b) + np.log(scale * p * (1 - p))).sum()
        return prior + of_units + stats.binom.logpmf(y, n, p).sum()
    tau = values["tau"]
    prior = stats.norm(0, 1.5).logpdf(mu) + stats.halfnorm(scale=1).logpdf(tau)
    if pooling == "complete":
        return stats.norm(0, 1.5).logpdf(mu) + stats.binom.logpmf(y, n, special.expit(mu)).sum()
    if form == "marginalized":
        return prior + np.log([integral(y_j, n_j, mu, tau) for y_j, n_j in zip(y, n, strict=True)]).sum()
    alpha = mu + tau * unit if form == "noncentered" else unit
    of_units = stats.norm.logpdf(unit).sum() if form == "noncentered" else stats.norm(mu, tau).logpdf(unit).sum()
    return prior + of_units + stats.binom.logpmf(y, n, special.expit(alpha)).sum()


def integral(y, n, mu, tau):
    """P(y) by a fine grid over the log odds."""
    alpha = mu + tau * np.linspace(-10, 10, 4001)
    density = stats.norm(mu, tau).pdf(alpha) * stats.binom.pmf(y, n, special.expit(alpha))
    return density.sum() * (alpha[1] - alpha[0])


SLOW = {("logit-normal", "partial", "marginalized"): pytest.mark.slow}  # its gradient is compiled for a minute
VARIANTS = [
    pytest.param(population, pooling, form, marks=SLOW.get((population, pooling, form), ()))
    for population in POPULATIONS
    for pooling in ("complete", "partial")
    for form in MODEL.under(population=population).variants[pooling]
]


@pytest.mark.parametrize(("population", "pooling", "form"), VARIANTS)
def test_each_variant_has_the_density_and_gradient_of_the_page(population, pooling, form):
    record = MODEL.under(population=population)
    model = record.build(FEW, pooling, form, population=population)
    shown = {"centered": {"beta": "p", "logit-normal": "alpha"}[population], "noncentered": "z"}.get(form)
    rng, spread = np.random.default_rng(3), record.heterogeneity
    unit = rng.uniform(0.1, 0.9, 4) if shown == "p" else rng.normal(-0.3, 0.5, 4)
    names = ["mu"] if pooling == "complete" else ["mu", spread]

    def theirs(values):
        return by_scipy(population, pooling, form, values, unit)

    free = {v.name: model.rvs_to_values[v] for v in model.free_RVs}
    forward = {
        name: model.rvs_to_transforms[variable].forward if model.rvs_to_transforms[variable] else None
        for variable in model.free_RVs
        for name in [variable.name]
    }
    point = {}
    for variable in model.free_RVs:
        value = unit if variable.name == shown else POINT[population][variable.name]
        if forward[variable.name] is not None:
            value = forward[variable.name](np.asarray(value, float), *variable.owner.inputs).eval()
        point[free[variable.name].name] = np.asarray(value)
    logp = model.compile_logp(jacobian=False, mode="AS_WRITTEN")
    assert float(logp(point)) == pytest.approx(theirs(POINT[population]), rel=1e-8, abs=1e-7)
    # Rewritten and compiled where a loop looks for nodes; that of the Beta's integral is in test_beta_binomial.py.
    searches = (population, form) == ("logit-normal", "marginalized")
    mode = "FAST_RUN" if searches else Mode(linker="py", optimizer=None)
    for name in names:  # the gradient along a hyperparameter's own line, by differences of scipy's density
        value, h = free[name], 1e-5
        variable = next(v for v in model.free_RVs if v.name == name)
        transform, inputs = model.rvs_to_transforms[variable], variable.owner.inputs

        def back(u, transform=transform, inputs=inputs):
            return float(transform.backward(np.asarray(u), *inputs).eval()) if transform else float(u)

        ends = [theirs(POINT[population] | {name: back(point[value.name] + s * h)}) for s in (1, -1)]
        ours = model.compile_dlogp(vars=[variable], jacobian=False, mode=mode)(point)
        assert float(ours[0]) == pytest.approx((ends[0] - ends[1]) / (2 * h), rel=1e-5, abs=1e-5)


@pytest.mark.parametrize("population", POPULATIONS)
def test_without_spread_all_is_complete_pooling(population):
    record = MODEL.under(population=population)
    data = record.data(FEW)
    mu, rate = (0.3, 0.3) if population == "beta" else (-0.4, special.expit(-0.4))
    h = at(mu=mu, **{record.heterogeneity: 0.0})
    level, binomial = record.group_level, stats.binom.logpmf(data.successes, data.trials, rate)
    np.testing.assert_allclose(level.log_left_out(h, data).values.ravel(), binomial, rtol=1e-10)
    after = level.after(h, data)
    np.testing.assert_allclose(after.mean.values.ravel(), rate, rtol=1e-12)
    np.testing.assert_allclose(after.sd.values.ravel(), 0, atol=1e-12)
    np.testing.assert_allclose(level.reliability(h, data).values.ravel(), 0, atol=1e-12)


@pytest.mark.parametrize("population", POPULATIONS)
def test_a_unit_given_the_hyperparameters_is_brute_force(population):
    """Mean, sd, cdf, expected log likelihood, kappa and the density of new counts, each on a fine grid of rates."""
    record = MODEL.under(population=population)
    data, values = record.data(FEW), POINT[population]
    h, level = at(**values), record.group_level
    x = np.linspace(-14, 14, 40_001)
    p = special.expit(x)
    prior = population_on_log_odds(population, values, x)
    after = level.after(h, data)
    for j, (y, n) in enumerate(zip(FEW["successes"], FEW["trials"], strict=True)):
        weight = prior * stats.binom.pmf(y, n, p)
        weight /= weight.sum()
        mean = weight @ p
        sd = np.sqrt(weight @ (p - mean) ** 2)
        assert float(after.mean.squeeze()[j]) == pytest.approx(mean, abs=1e-7)
        assert float(after.sd.squeeze()[j]) == pytest.approx(sd, abs=1e-7)
        middle = after.ppf(0.4).squeeze()[j]
        assert weight[p <= float(middle)].sum() == pytest.approx(0.4, abs=1e-3)
        loglik = weight @ stats.binom.logpmf(y, n, p)
        assert float(level.expected_log_likelihood(h, data).squeeze()[j]) == pytest.approx(loglik, abs=1e-6)
        if population == "logit-normal":
            of_log_odds = weight @ (x - weight @ x) ** 2
            kappa = float(level.reliability(h, data).squeeze()[j])
            assert kappa == pytest.approx(1 - of_log_odds / values["tau"] ** 2, abs=1e-6)
        later = stats.binom.pmf(2, 6, p)
        new = data.assign(successes=("unit", np.full(4, 2)), trials=("unit", np.full(4, 6)))
        found = float(level.log_predictive(h, new, data).squeeze()[j])
        assert found == pytest.approx(np.log(weight @ later), abs=1e-6)


def population_on_log_odds(population, values, x):
    """Density of the log odds of a rate."""
    if population == "logit-normal":
        return stats.norm(values["mu"], values["tau"]).pdf(x)
    a, b = values["mu"] / values["phi"] ** 2, (1 - values["mu"]) / values["phi"] ** 2
    p = special.expit(x)
    return stats.beta(a, b).pdf(p) * p * (1 - p)


@pytest.mark.parametrize("population", POPULATIONS)
def test_kappa_averaged_over_counts_is_the_definition_and_a_share(population):
    """1 - E[Var(theta | y, h)] / Var(theta | h) of a unit's rate or log odds, over all counts that it may show."""
    record, n = MODEL.under(population=population), 7
    h, level = at(**POINT[population]), record.group_level
    every = pd.DataFrame({"unit": [f"U{y}" for y in range(n + 1)], "successes": range(n + 1), "trials": n})
    data = record.data(every)
    chance = np.exp(level.log_left_out(h, data).values.ravel())
    assert chance.sum() == pytest.approx(1, abs=1e-9)
    within = chance @ (level.conditional(h, data).sd.values.ravel() ** 2)
    kappa = level.reliability(h, data).values.ravel()
    whole = float(np.squeeze(level.population(h).sd.values)) ** 2
    assert chance @ kappa == pytest.approx(1 - within / whole, abs=1e-6)
    assert ((kappa > 0) & (kappa < 1)).all()


@pytest.mark.parametrize("population", POPULATIONS)
def test_the_matched_prior_has_the_moments_of_a_unit(population):
    record = MODEL.under(population=population)
    priors = record.default_priors(record.data(FEW))
    rng, n = np.random.default_rng(1), 400_000
    if population == "beta":
        mu, phi = rng.uniform(0, 1, n), abs(rng.normal(0, 0.5, n))
        draws = rng.beta(mu / phi**2, (1 - mu) / phi**2)
        matched = record.matched(priors)["p"]
        ours = stats.beta(float(matched.parameters["alpha"]), float(matched.parameters["beta"]))
    else:
        draws = rng.normal(rng.normal(0, 1.5, n), abs(rng.normal(0, 1, n)))
        matched = record.matched(priors)["alpha"]
        ours = stats.norm(float(matched.parameters["mu"]), float(matched.parameters["sigma"]))
    assert abs(draws.mean() - ours.mean()) < 4 * draws.std() / np.sqrt(n)
    assert draws.var() == pytest.approx(ours.var(), rel=0.01)


def test_no_pooling_is_the_beta_posterior_of_each_unit():
    fit = hz.fit(rates, FEW, pooling="none", priors={"p": Prior("Beta", alpha=2, beta=3)}, random_seed=1)
    after = stats.beta(2 + FEW["successes"], 3 + FEW["trials"] - FEW["successes"])
    np.testing.assert_allclose(fit["group_summary"]["mean"], after.mean(), rtol=1e-12)
    np.testing.assert_allclose(fit["group_summary"]["eti89_lb"], after.ppf(0.055), rtol=1e-6)
    with pytest.raises(ValueError, match="No pooling is exact under a Beta prior of 'p', got Uniform"):
        hz.fit(rates, FEW, pooling="none", priors={"p": Prior("Uniform", lower=0, upper=1)}, random_seed=1)


@pytest.mark.parametrize("frame", [FEW, FEW.assign(successes=[0, 1, 7 * 10**8, 999_999_999], trials=999_999_999)])
def test_halves_hold_every_trial_once(frame):
    data, rng = MODEL.data(frame), np.random.default_rng(2)
    for _ in range(50):
        first, second = MODEL.extras.thin(rng, data)
        for name in ("successes", "trials"):
            np.testing.assert_array_equal(first[name] + second[name], data[name])
        assert (abs(first.trials - second.trials) <= 1).all()
        assert (first.successes <= first.trials).all()


# The fit of the batters against a grid over the hyperparameters.


# Of the reference below too, so that the sampler is compiled once for both.
PRIORS = {
    "beta": {},
    "logit-normal": {"mu": Prior("Normal", mu=0, sigma=5), "tau": Prior("HalfNormal", sigma=1)},
}


class Grid:
    """All that is asked of a fit, by brute force over mu and the spread; each unit integrated on its own grid."""

    def __init__(self, population, frame):
        self.population, self.frame = population, frame
        if population == "beta":
            mu, spread = np.linspace(0.001, 0.999, 160), np.linspace(0.002, 1.2, 120)
            log_prior = np.zeros((160, 1)) + stats.halfnorm(scale=0.5).logpdf(spread)
            m, s = np.meshgrid(mu, spread, indexing="ij")
            a, b = m / s**2, (1 - m) / s**2
            y, n = (frame[name].to_numpy()[:, None, None] for name in ("successes", "trials"))
            self.each = stats.betabinom.logpmf(y, n, a, b)
            self.mean = (y + a) / (n + a + b)
        else:
            mu, spread = np.linspace(-2.5, 0.5, 120), np.linspace(0.002, 2, 100)
            log_prior = stats.norm(0, 5).logpdf(mu)[:, None] + stats.halfnorm(scale=1).logpdf(spread)
            m, s = np.meshgrid(mu, spread, indexing="ij")
            z = np.linspace(-8, 8, 65)
            p = special.expit(m[..., None] + s[..., None] * z)
            weight = stats.norm.pdf(z) * (z[1] - z[0])
            rows = frame[["successes", "trials"]].to_numpy()
            found = {pair: self._unit(*pair, p, weight) for pair in set(map(tuple, rows))}
            self.each = np.array([found[tuple(row)][0] for row in rows])
            self.mean = np.array([found[tuple(row)][1] for row in rows])
        self.m, self.s = m, s
        log_post = log_prior + self.each.sum(axis=0)
        self.log_evidence = special.logsumexp(log_post)
        self.weight = np.exp(log_post - self.log_evidence)

    @staticmethod
    def _unit(y, n, p, weight):
        likelihood = special.comb(n, y) * p**y * (1 - p) ** (n - y) * weight
        total = likelihood.sum(axis=-1)
        return np.log(total), (likelihood * p).sum(axis=-1) / total

    def leave_out(self):
        """Log predictive density of each unit: -log of the average of 1 / m_j over the posterior."""
        return np.array([-special.logsumexp(-each, b=self.weight) for each in self.each])


@pytest.fixture(scope="module", params=["beta", pytest.param("logit-normal", marks=pytest.mark.slow)])
def batters(request):
    population, settings = request.param, {"random_seed": 4, "progressbar": False}
    fits = hz.fit_poolings(rates, BATTERS, population=population, priors=PRIORS[population], **settings)
    return population, fits, Grid(population, BATTERS)


@pytest.fixture(scope="module")
def written(batters, tmp_path_factory):
    """The report and its comparisons by question: of few halves and replicates, which are looked at elsewhere."""
    _, fits, _ = batters
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(cross_validation, "SPLITS", 3)
        for name in ("LEAST", "MOST_A_CHECK"):
            patch.setattr(replicas, name, 2)
        folder = hz.report(fits, tmp_path_factory.mktemp("batters") / "report")
    table = pd.read_csv(folder / "comparison.csv", index_col=["question", "pooling"])
    return folder, {question: table.loc[question] for question in ("new_group", "new_observation")}


def test_the_fit_is_the_grid(batters):
    """Means within 4 Monte Carlo errors, each less than 0.2 posterior sds: a shift of that size would be seen."""
    population, fits, grid = batters
    fit = fits["partial"]
    spread = MODEL.under(population=population).heterogeneity
    for name, values in (("mu", grid.m), (spread, grid.s)):
        draws = fit["posterior"][name]
        mcse = float(az.mcse(draws))
        assert abs(float(draws.mean()) - (grid.weight * values).sum()) < 4 * mcse, name
        assert 4 * mcse < 0.2 * float(draws.std())
    summary = fit["group_summary"].dataset
    exact = (grid.weight * grid.mean).sum(axis=(1, 2))
    np.testing.assert_allclose(summary["mean"], exact, atol=0.002)


def test_leaving_a_batter_out_is_the_grid(batters):
    _, fits, grid = batters
    np.testing.assert_allclose(fits["partial"]["group_summary"]["elpd"], grid.leave_out(), atol=0.03)


@pytest.mark.slow
def test_the_comparison_leaves_each_batter_out(batters, written):
    (_, _, grid), (_, compared) = batters, written
    table = compared["new_group"]
    assert table.loc["partial", "elpd"] == pytest.approx(grid.leave_out().sum(), abs=0.05)
    assert pd.isna(table.loc["none", "rank"])


@pytest.mark.slow
def test_the_same_batter_again_is_the_fair_contest(written):
    table = written[1]["new_observation"]
    assert set(table["rank"]) == {1, 2, 3}
    assert table.index[-1] == "none"


def test_the_rest_of_the_season_is_nearer_to_shared_rates(batters):
    """Efron & Morris (1975): pulling the batters together predicts the rest of the season far better."""
    _, fits, _ = batters
    hits = (BATTERS["remaining_average"] * BATTERS["remaining_at_bats"]).round().astype(int)
    later = BATTERS.assign(successes=hits, trials=BATTERS["remaining_at_bats"])
    table = rates.score(fits, later)
    rate = (hits / BATTERS["remaining_at_bats"]).to_numpy()
    own = (BATTERS["successes"] / BATTERS["trials"]).to_numpy()
    assert table.loc["own", "rmse"] == pytest.approx(np.sqrt(np.mean((own - rate) ** 2)))
    assert table.loc["partial", "rmse"] < 0.6 * table.loc["own", "rmse"]
    assert table.loc["partial", "log_score"] > table.loc["none", "log_score"] + 5
    with pytest.raises(FrameError, match="score expected units of the fits, got 'Babe Ruth'"):
        rates.score(fits, later.replace({"unit": {"Max Alvis": "Babe Ruth"}}))


def test_units_with_numbers_are_scored_whatever_the_type():
    fit = hz.fit("success_rates", FEW.assign(unit=range(4)), pooling="none", random_seed=1, draws=100, chains=2)
    tables = [
        rates.score(fit, FEW.assign(unit=labels)) for labels in (range(4), np.arange(4.0), ["00", "01", "2", "3.0"])
    ]
    for table in tables:
        assert table.loc["own", "rmse"] == 0
        pd.testing.assert_frame_equal(table, tables[0])
    with pytest.raises(FrameError, match=r"^score expected units of the fits, got '9', which is in none of them\.$"):
        rates.score(fit, FEW.assign(unit=[0.0, 1.0, 2.0, 9.0]))
    with pytest.raises(FrameError, match="'unit' expected each value once, got 1 in rows 1, 2"):
        rates.score(fit, FEW.assign(unit=["0", "01", "1", "3"]))


def test_every_public_function_takes_it(batters):
    population, fits, _ = batters
    assert hz.convergence(fits)["passed"].all()
    table = hz.groups(fits, threshold=0.3)
    assert table["own"].between(0, 1).all()
    new = pd.DataFrame({"unit": ["Max Alvis", "Rookie", "Veteran"], "trials": 100, "successes": [np.nan, np.nan, 40]})
    predicted = hz.predict(fits["partial"], new, random_seed=1)
    assert predicted["group_summary"]["case"].values.tolist() == ["known", "never seen", "brings rows"]
    assert predicted["predictions"]["y"].dtype.kind == "i"
    assert set(hz.pooling_factor(fits["partial"]).index) == {"data", "unit"}
    for picture in (hz.plot_poolings, hz.plot_shrinkage, hz.plot_ranks):
        assert picture(fits) is not None
    curves = [line for line in hz.plot_funnel(fits).axes[0].lines if len(line.get_xdata()) > 20]
    assert len(curves) == 4
    for curve in curves:
        assert np.isfinite(curve.get_ydata()).all()
    assert hz.plot_estimates_over_heterogeneity(fits["partial"]) is not None
    recovered = hz.recover(fits["partial"], rates, BATTERS, random_seed=1, population=population)
    assert recovered["posterior"]["p"].dims == ("chain", "draw", "unit")


@pytest.mark.slow
def test_its_report_says_what_was_fitted(batters, written):
    text = (written[0] / "report.md").read_text()
    assert {"beta": "Beta(a, b)", "logit-normal": "N(mu, tau^2)"}[batters[0]] in text
    assert "\n* Every fit can be trusted" in text


def test_empirical_bayes_is_the_maximum(batters):
    population, _, grid = batters
    plug_in = hz.empirical_bayes(rates, BATTERS, population=population)
    total = grid.each.sum(axis=0)
    assert plug_in.attrs["log_likelihood"] >= total.max() - 1e-3
    assert plug_in.attrs["log_likelihood"] == pytest.approx(total.max(), abs=0.05)


def test_surprising_new_counts_of_a_unit_have_their_density():
    """Old and new counts at opposite ends, up to 50,000 trials: against piecewise quadrature of their product."""
    record = MODEL.under(population="logit-normal")
    mu, tau = -0.4, 0.9
    cases = pd.DataFrame(
        {"y": [0, 5, 40, 0], "n": [10, 10, 50, 50_000], "y_new": [30, 0, 0, 3], "n_new": [30, 400, 9, 6]}
    )
    seen = record.data(pd.DataFrame({"unit": list("ABCD"), "successes": cases["y"], "trials": cases["n"]}))
    new = seen.assign(successes=("unit", cases["y_new"]), trials=("unit", cases["n_new"]))
    ours = record.group_level.log_predictive(at(mu=mu, tau=tau), new, seen).values.ravel()

    def log_integral(*counts):
        alpha = np.linspace(-25, 25, 2_000_001)
        log_f = stats.norm(mu, tau).logpdf(alpha)
        for y, n in counts:
            log_f += y * special.log_expit(alpha) + (n - y) * special.log_expit(-alpha)
        return special.logsumexp(log_f) + np.log(alpha[1] - alpha[0])

    for found, case in zip(ours, cases.itertuples(), strict=True):
        both = log_integral((case.y, case.n), (case.y_new, case.n_new)) - log_integral((case.y, case.n))
        ways = np.log(special.comb(case.n_new, case.y_new))
        assert found == pytest.approx(both + ways, abs=1e-6)


REFERENCE = json.loads((Path(__file__).parents[1] / "reference" / "surgical.json").read_text())


@pytest.mark.slow
def test_surgical_hospitals_agree_with_jags():
    """Means by z tests against 80,000 effective draws of JAGS; a shift of 0.2 posterior sd would be seen."""
    reference = REFERENCE["analyses"]["logit_normal_weak_priors"]["estimates"]
    settings = {"priors": PRIORS["logit-normal"], "random_seed": 8, "progressbar": False}
    fit = hz.fit(rates, hz.load_data("surgical"), population="logit-normal", **settings)
    for ours, theirs in (("mu", "mu"), ("tau", "sigma")):
        draws, known = fit["posterior"][ours], reference[theirs]
        error = np.hypot(float(az.mcse(draws)), known["mcse_mean"])
        assert abs(float(draws.mean()) - known["mean"]) < 4 * error
        assert 4 * error < 0.2 * known["sd"]
    summary = fit["group_summary"].dataset
    for j in range(12):
        known = reference[f"p[{j + 1}]"]
        assert abs(float(summary["mean"][j]) - known["mean"]) < 0.05 * known["sd"]
        assert float(summary["sd"][j]) == pytest.approx(known["sd"], rel=0.05)


@pytest.mark.parametrize("pooling", ["complete", pytest.param("partial", marks=pytest.mark.long)])
def test_the_error_of_a_score_knows_that_units_move_together(pooling):
    """Later rates are all lower: a draw of mu that is low is better for every unit."""
    rng = np.random.default_rng(3)
    n, p = rng.integers(30, 120, 25), rng.beta(45, 15, 25)
    frame = pd.DataFrame({"unit": range(25), "successes": rng.binomial(n, p), "trials": n})
    late = frame.assign(successes=rng.binomial(n, p - 0.06))
    rows = [
        rates.score(hz.fit("success_rates", frame, pooling, random_seed=seed, progressbar=False), late).loc[pooling]
        for seed in range(12)
    ]
    scores, errors = (np.array([row[name] for row in rows]) for name in ("log_score", "mcse"))
    assert 0.5 < errors.mean() / scores.std(ddof=1) < 3  # were they apart it would be 0.43, and 0.24


@pytest.mark.parametrize("target", [0.5, 0.9, 0.97])
def test_limits_of_chance_are_alike_for_successes_and_failures(target):
    """Of rates all at the target 5 % at most lie beyond; all successes do not, where they are likely."""
    n = np.arange(20, 100)
    low, high = MODEL.extras.control_limits(target, n, 0.95)
    other_low, other_high = MODEL.extras.control_limits(1 - target, n, 0.95)
    np.testing.assert_allclose(low, 1 - other_high, rtol=1e-12)
    np.testing.assert_allclose(high, 1 - other_low, rtol=1e-12)
    y = np.arange(100)[:, None]
    beyond = (y / n < low) | (y / n > high)
    assert (beyond * stats.binom.pmf(y, n, target)).sum(axis=0).max() < 0.075
    assert MODEL.extras.control_limits(0.9, np.array([1]), 0.95)[1] >= 1


def drawn_from_the_priors(population, rng, n):
    """Hyperparameters, rates and successes as the page says they come about."""
    if population == "beta":
        mu, phi = rng.uniform(), abs(rng.normal(0, 0.5))
        p = rng.beta(mu / phi**2, (1 - mu) / phi**2, n.size)
        return {"mu": mu, "phi": phi}, p, rng.binomial(n, p)
    mu, tau = rng.normal(0, 1.5), abs(rng.normal())
    p = special.expit(rng.normal(mu, tau, n.size))
    return {"mu": mu, "tau": tau}, p, rng.binomial(n, p)


def ranks(record, fit, population, rng, simulations, spoil=1):
    """Ranks of the true hyperparameters and the first rate among 99 draws; `spoil` multiplies the trials of the fit."""
    data, found, level = fit["constant_data"].to_dataset(), [], record.group_level
    for i in range(simulations):
        truth, p, y = drawn_from_the_priors(population, rng, data.trials.values)
        seen = data.assign(successes=("unit", y), trials=spoil * data.trials)
        h = thinned(hyperparameters(refit(fit, seen, random_seed=i)), 99)
        rate = level.reported(level.conditional(h, seen.isel(unit=[0])).sample(rng), seen).values.ravel()
        found.append([*(int((h[name] < value).sum()) for name, value in truth.items()), int((rate < p[0]).sum())])
    return np.array(found)


@pytest.mark.slow
@pytest.mark.parametrize("population", POPULATIONS)
def test_simulation_based_calibration_and_that_it_would_see_an_error(population):
    """Talts et al. (2018): ranks are uniform under the right model, not with twice the trials."""
    record = MODEL.under(population=population)
    trials = np.array([1, 2, 5, 10, 20, 40, 80, 160])
    frame = pd.DataFrame({"unit": list("ABCDEFGH"), "successes": trials // 2, "trials": trials})
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        fit = hz.fit(rates, frame, population=population, draws=250, tune=400, random_seed=1, progressbar=False)

    def p_values(found):
        return [stats.chisquare(np.histogram(r, bins=np.arange(0, 101, 10))[0]).pvalue for r in found.T]

    assert min(p_values(ranks(record, fit, population, np.random.default_rng(21), 250))) > 1e-3
    assert p_values(ranks(record, fit, population, np.random.default_rng(22), 120, spoil=2))[0] < 1e-6


# Bad frames.


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"successes": [0, 3, 8, 1]}, "at most as many successes as trials, got 8 of 7 for 'C'"),
        ({"successes": [0, -1, 7, 1]}, "column 'successes' expected a whole number, 0 or more"),
        ({"successes": [0, 2.5, 7, 1]}, "column 'successes' expected a whole number.*2.5 in row 1"),
        ({"successes": [0, np.nan, 7, 1]}, "column 'successes' .* an empty cell in row 1"),
        ({"successes": ["0", "3", "7", "1"]}, "column 'successes' expected a whole number"),
        ({"trials": [0, 10, 7, 1]}, "column 'trials' expected a whole number, 1 or more.*0 in row 0"),
        ({"trials": [4, np.inf, 7, 1]}, "column 'trials' .*inf in row 1"),
        ({"trials": [4, 1e9, 7, 1]}, "column 'trials' .*at most 999,999,999"),
        ({"unit": ["A", "B", "B", "D"]}, "column 'unit' expected each value once, got 'B' in rows 1, 2"),
        ({"unit": ["A", None, "C", "D"]}, "column 'unit' expected a label"),
    ],
)
def test_bad_values_are_named(change, message):
    with pytest.raises(FrameError, match=message):
        hz.fit(rates, FEW.assign(**change))


def test_bad_frames_and_names_are_named():
    with pytest.raises(FrameError, match="expected a column 'trials'.*nearest it has is 'trial'"):
        hz.fit(rates, FEW.rename(columns={"trials": "trial"}))
    with pytest.raises(FrameError, match="at least 2 units"):
        hz.fit(rates, FEW.iloc[:1])
    with pytest.raises(ValueError, match="no prior named 'tau'.*"):
        hz.fit(rates, FEW, priors={"tau": Prior("HalfNormal", sigma=1)})
