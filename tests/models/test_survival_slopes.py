"""Selection on survival, animal by animal: tables, leaving out and gradients against quadrature by SciPy."""

import warnings

import numpy as np
import pandas as pd
import pytest
import statsmodels.api as sm
import xarray as xr
from pymc_extras.prior import Prior
from scipy import integrate, special, stats

import hbm_zoo as hz
from hbm_zoo.diagnostics import surviving
from hbm_zoo.frames.rules import FrameError
from hbm_zoo.group_level import survival
from hbm_zoo.inference.nodes import with_nodes
from hbm_zoo.models.survival_checks import curvature, differences
from hbm_zoo.models.survival_slopes import standardised_animals

MODEL = hz.selection_gradients.MODEL.under(exact=True)
SETTINGS = {"exact": True, "random_seed": 1, "progressbar": False}


def animals():
    """Years as they come, one without a death, one whose trait tells who died, one of three animals."""
    rng = np.random.default_rng(3)
    z = [rng.normal(size=n) for n in (40, 25, 12, 16, 3)]
    survived = [
        rng.random(of.size) < special.expit(0.4 + slope * of) for of, slope in zip(z, [1, 0.2, 9], strict=False)
    ]
    survived[2] = z[2] > 0.3
    survived += [np.ones(16), np.array([0, 1, 0])]
    years = [pd.DataFrame({"year": 2000 + i, "z": z[i], "survived": survived[i].astype(int)}) for i in range(5)]
    return pd.concat(years, ignore_index=True)


FRAME = animals()
DATA = MODEL.data(FRAME)
TABLES = with_nodes(MODEL, DATA, MODEL.priors(DATA), seed=1)
INTERCEPT = np.linspace(-14, 14, 351)


def at(mu, tau):
    return xr.Dataset({"mu": ("sample", [mu]), "tau": ("sample", [tau])})


def of_year(j, drop=None):
    one = FRAME[FRAME["year"] == 2000 + j].reset_index(drop=True)
    one = one if drop is None else one.drop(index=drop)
    return one["z"].to_numpy(), one["survived"].to_numpy()


def log_joint(alpha, j, drop=None):
    """Of a year's animals and alpha_0 at slopes alpha [alpha, intercept]."""
    z, survived = of_year(j, drop)
    log_odds = alpha[:, None, None] * z + INTERCEPT[:, None]
    each = special.log_expit(np.where(survived == 1, 1, -1) * log_odds)
    return each.sum(axis=2) + stats.norm(0, 1.5).logpdf(INTERCEPT)


def log_likelihood(alpha, j, drop=None):
    return np.log(integrate.simpson(np.exp(log_joint(np.asarray(alpha), j, drop)), x=INTERCEPT, axis=1))


def log_marginal(j, mu, tau, drop=None):
    if tau == 0:
        return log_likelihood([mu], j, drop)[0]
    alpha = mu + tau * np.linspace(-7, 7, 281)
    density = np.exp(log_likelihood(alpha, j, drop)) * stats.norm(mu, tau).pdf(alpha)
    return np.log(integrate.simpson(density, x=alpha))


@pytest.mark.parametrize("tau", [0.0, 0.05, 0.4, 2.0])
def test_a_year_is_its_integral_over_intercept_and_slope(tau):
    """To .005 nats; and so small an error is said."""
    found, error = (
        f(at(0.3, tau), TABLES) for f in (MODEL.group_level.log_left_out, MODEL.group_level.integration_error)
    )
    for j in range(5):
        assert found.isel(sample=0, year=j).item() == pytest.approx(log_marginal(j, 0.3, tau), abs=0.005)
    assert (error < 0.005).all()


@pytest.mark.parametrize(("mu", "tau"), [(0.3, 0.0), (-2.0, 0.0), (3.0, 0.1)])
def test_years_that_differ_much_share_a_slope_that_is_far_from_each(mu, tau):
    """The likelihood of a year is known where it has next to nothing, which complete pooling asks for."""
    rng = np.random.default_rng(7)
    z = rng.normal(size=(2, 150))
    survived = rng.random((2, 150)) < special.expit(np.array([[-1.0], [2.0]]) * z)
    years = [pd.DataFrame({"year": t, "z": z[t], "survived": survived[t].astype(int)}) for t in range(2)]
    data = MODEL.data(pd.concat(years, ignore_index=True))
    tables = with_nodes(MODEL, data, MODEL.priors(data), seed=1)
    found = MODEL.group_level.log_left_out(at(mu, tau), tables).isel(sample=0).values
    alpha = mu + tau * np.linspace(-30, 10, 301) if tau else np.array([mu])
    for t in range(2):
        eta = alpha[:, None, None] * z[t] + INTERCEPT[:, None]
        log_joint = (survived[t] * eta - np.logaddexp(0, eta)).sum(axis=2) + stats.norm(0, 1.5).logpdf(INTERCEPT)
        log_l = special.logsumexp(log_joint, axis=1) + np.log(INTERCEPT[1] - INTERCEPT[0])
        exact = log_l[0]
        if tau:
            step = np.log(alpha[1] - alpha[0])
            exact = special.logsumexp(log_l + stats.norm(mu, tau).logpdf(alpha)) + step
        assert found[t] == pytest.approx(exact, abs=0.1)


@pytest.mark.parametrize("tau", [0.05, 0.6])
def test_an_animal_left_out_is_the_ratio_of_two_integrals(tau):
    found = MODEL.group_level.leave_row_out(at(0.3, tau), TABLES, np.array([0, 17, 70, 95]))
    for k, (j, position) in enumerate([(0, 0), (0, 17), (2, 5), (4, 2)]):
        exact = log_marginal(j, 0.3, tau) - log_marginal(j, 0.3, tau, drop=position)
        assert found.isel(animal=k, sample=0).item() == pytest.approx(exact, abs=0.005)
        i = [0, 17, 70, 95][k]
        without = MODEL.group_level.without_row(TABLES, i)
        left = MODEL.group_level.log_left_out(at(0.3, tau), without).isel(sample=0, year=j).item()
        assert left == pytest.approx(log_marginal(j, 0.3, tau, drop=position), abs=0.005)


def test_of_thousands_of_animals_no_product_overflows():
    rng = np.random.default_rng(8)
    z, alpha, alpha_0 = rng.normal(size=2500), np.array([-40.0, 0.0, 2.0, 40.0]), rng.normal(0, 20, (4, 3))
    expected = np.logaddexp(0, alpha_0[..., None] + alpha[:, None, None] * z).sum(axis=2)
    np.testing.assert_allclose(survival._log_normaliser(alpha, alpha_0, z), expected, rtol=1e-12, atol=1e-12)


def test_the_page_has_the_density_of_bernoulli_trials():
    priors = MODEL.priors(DATA)
    model = MODEL.write(DATA, "partial", "noncentered", priors)
    log_density = model.compile_logp(vars=model.observed_RVs, mode="AS_WRITTEN")
    rng = np.random.default_rng(1)
    z_t, alpha_0 = rng.normal(size=(2, 5))
    point = model.initial_point() | {"mu": 0.2, "tau_log__": np.log(0.5), "z_t": z_t, "alpha_0": alpha_0}
    of_year = FRAME["year"].to_numpy() - 2000
    p = special.expit(alpha_0[of_year] + (0.2 + 0.5 * z_t)[of_year] * FRAME["z"].to_numpy())
    assert log_density(point) == pytest.approx(stats.bernoulli.logpmf(FRAME["survived"], p).sum(), rel=1e-10)


def test_the_gradient_of_the_sampled_form_is_its_difference():
    model = MODEL.write(TABLES, "partial", "marginalized", MODEL.priors(DATA))
    log_density, gradient = (compiled(mode="AS_WRITTEN") for compiled in (model.compile_logp, model.compile_dlogp))
    point = np.array([0.3, np.log(0.4)])
    steps = 1e-5 * np.array([[1, 0], [-1, 0], [0, 1], [0, -1]])
    up, down, right, left = (log_density(dict(zip(("mu", "tau_log__"), point + s, strict=True))) for s in steps)
    found = gradient({"mu": point[0], "tau_log__": point[1]})
    np.testing.assert_allclose(found, np.array([up - down, right - left]) / 2e-5, rtol=1e-6)


def test_the_gradient_is_how_fast_mean_survival_rises_as_all_traits_do():
    z, step = np.random.default_rng(2).normal(size=50), 1e-6
    for alpha, alpha_0 in [(0.7, -1.0), (-2.0, 0.5), (9.0, 0.0)]:
        low, mean, high = (special.expit(alpha_0 + alpha * (z + shift)).mean() for shift in (-step, 0, step))
        found = survival.gradient(np.array([alpha]), np.array([alpha_0]), z)
        assert found == pytest.approx((high - low) / (2 * step) / mean, rel=1e-6)


def test_it_turns_back():
    """Selection ever steeper on thirty animals leaves ever fewer at the step."""
    z = np.random.default_rng(1).standard_normal(30)
    found = survival.gradient(np.array([1.0, 4.0, 100.0, 1000.0]), np.zeros(4), z)
    assert found[0] < found[1]
    assert found[2] > found[3]
    assert found[3] < 0.1


@pytest.mark.parametrize("j", range(5))
def test_intercepts_are_drawn_from_what_is_known_of_them_given_the_slope(j):
    for alpha in (0.0, 0.8, -2.5):
        f = np.exp(log_joint(np.array([alpha]), j)[0])
        mean = (INTERCEPT * f).sum() / f.sum()
        sd = np.sqrt(((INTERCEPT - mean) ** 2 * f).sum() / f.sum())
        drawn = survival.intercepts(np.random.default_rng(4), np.full(20_000, alpha), TABLES, j)
        assert abs(drawn.mean() - mean) < 4 * sd / np.sqrt(20_000) + 0.005 * sd
        assert drawn.std() == pytest.approx(sd, rel=0.03)


def test_new_animals_of_a_year_seen_and_of_one_never_seen():
    """Share that survives, against the average over what is known of alpha_0 at a given slope."""
    new = MODEL.prepared(pd.DataFrame({"year": [2000, 2050], "z": [1.5, 1.5], "survived": [0, 0]}))
    alpha = xr.DataArray(np.full((20_000, 2), 0.8), {"year": [2000, 2050]}, ("sample", "year"))
    found = MODEL.group_level.replicate(np.random.default_rng(5), alpha, at(0, 1), new, TABLES).mean("sample").values
    p = special.expit(INTERCEPT + 0.8 * 1.5)
    seen, before = np.exp(log_joint(np.array([0.8]), 0)[0]), stats.norm(0, 1.5).pdf(INTERCEPT)
    expected = [(p * weight).sum() / weight.sum() for weight in (seen, before)]
    np.testing.assert_allclose(found, expected, atol=4 * 0.5 / np.sqrt(20_000))


def test_likeliest_slopes_are_those_of_a_general_optimiser_and_none_where_there_is_none():
    from scipy.optimize import minimize

    own = MODEL.own(DATA)
    z, survived = of_year(0)
    loss = lambda a: -stats.bernoulli.logpmf(survived, special.expit(a[0] + a[1] * z)).sum()  # noqa: E731
    assert own.values[0] == pytest.approx(minimize(loss, [0, 0], method="Nelder-Mead").x[1], abs=1e-3)
    assert np.isnan(own.values[[2, 3]]).all()


def test_standardised_animals_have_the_scale_of_all_and_the_mean_of_their_year():
    raw = pd.DataFrame({"season": [1, 1, 2, 2], "mass": [20.0, 22.0, 29.0, 31.0], "lived": [True, False, True, True]})
    made = standardised_animals(raw, "mass", fitness="lived", year="season")
    np.testing.assert_allclose(made["z"], np.array([-1, 1, -1, 1]) / raw["mass"].std())
    assert made["survived"].tolist() == [1, 0, 1, 1]
    assert made.attrs["labels"] == {"year": "season", "z": "mass", "survived": "lived"}


@pytest.fixture(scope="module")
def fits():
    with warnings.catch_warnings():
        warnings.simplefilter("error", RuntimeWarning)
        return hz.fit_poolings("selection_gradients", FRAME, **SETTINGS)


def test_the_posterior_is_that_of_quadrature(fits):
    """Mean of mu and tau, z tests at their Monte Carlo errors; those of a year's gradient too."""
    mu, tau = np.meshgrid(np.linspace(-2, 2.5, 61), np.linspace(0, 2.2, 61)[1:], indexing="ij")
    h = xr.Dataset({"mu": ("sample", mu.ravel()), "tau": ("sample", tau.ravel())})
    log_density = MODEL.group_level.log_joint(h, TABLES).values
    log_density += stats.norm(0, 0.6).logpdf(mu.ravel()) + stats.halfnorm(0, 0.4).logpdf(tau.ravel())
    mass = np.exp(log_density - log_density.max())
    mass /= mass.sum()
    fit = fits["partial"]
    worth = fit["posterior"]["mu"].size * fit.attrs["efficiency"]
    for name, values in (("mu", mu.ravel()), ("tau", tau.ravel())):
        mean = (mass * values).sum()
        sd = np.sqrt((mass * (values - mean) ** 2).sum())
        assert abs(fit["posterior"][name].mean().item() - mean) < 4 * sd / np.sqrt(worth) + 0.005 * sd


def test_gradients_of_a_year_are_those_of_quadrature(fits):
    """At given hyperparameters, those of no pooling: a grid over slope and intercept."""
    fit, j = fits["none"], 0
    prior = MODEL.matched(MODEL.priors(DATA))["alpha"].parameters
    alpha = np.linspace(-3, 4, 281)
    weight = np.exp(log_joint(alpha, j)) * stats.norm(float(prior["mu"]), float(prior["sigma"])).pdf(alpha)[:, None]
    z, _ = of_year(j)
    beta = np.array([survival.gradient(np.full(INTERCEPT.size, a), INTERCEPT, z) for a in alpha])
    mean = (beta * weight).sum() / weight.sum()
    sd = np.sqrt(((beta - mean) ** 2 * weight).sum() / weight.sum())
    table = hz.selection_gradients.by_year(fit).loc[2000]
    assert abs(table["beta"] - mean) < 4 * sd / np.sqrt(surviving.DRAWS) + 0.005 * sd
    below = weight[alpha < 0].sum() / weight.sum()
    assert table["p_negative"] == pytest.approx(below, abs=2e-3)


def test_a_table_by_year_says_why_a_year_alone_has_no_gradient(fits):
    table = hz.selection_gradients.by_year(fits["partial"])
    assert table["animals"].tolist() == [40, 25, 12, 16, 3]
    assert table["own_is"].tolist()[2:4] == ["the traits tell survivors from dead without error", "all survived"]
    assert table["own"].isna().tolist()[:4] == [False, False, True, True]
    assert table[["alpha", "beta", "p_negative", "mcse", "kappa"]].notna().all(axis=None)
    assert ((table["alpha"] > 0) == (table["p_negative"] < 0.5)).all()
    one = hz.selection_gradients.by_year(fits["complete"])
    assert one["alpha"].nunique() == 1
    assert one["beta"].nunique() == 5


@pytest.mark.slow
def test_both_questions_are_answered_and_years_tabulated(fits):
    for question in ("new_group", "new_observation"):
        table = hz.compare_poolings(fits, question)
        assert np.isfinite(table.loc[["partial", "complete"], "elpd"].astype(float)).all()
    rows = hz.groups(fits)
    assert rows.index.names == ["year"]
    assert ((rows["kappa"].astype(float) > 0) & (rows["kappa"].astype(float) < 1)).all()


def test_animals_to_come_are_predicted_in_years_seen_and_not(fits):
    asked = pd.DataFrame({"year": [2000, 2000, 2050], "z": [-2.0, 2.0, 2.0], "survived": [0, 0, 0]})
    predicted = hz.predict(fits["partial"], asked)
    assert predicted["group_summary"].to_dataset()["mean"].sizes["year"] == 2


@pytest.mark.long
def test_a_year_left_out_is_a_refit_without_it(fits):
    """Log density of the first year given the others, by the table of leaving out and by a fit to the others."""
    others = FRAME[FRAME["year"] != 2000]
    refit = hz.fit("selection_gradients", others, **SETTINGS)
    h = xr.Dataset({name: ("sample", refit["posterior"][name].values.ravel()) for name in ("mu", "tau")})
    density = np.exp(MODEL.group_level.log_left_out(h, TABLES).isel(year=0).values)
    mcse = density.std() / density.mean() / np.sqrt(density.size * refit.attrs["efficiency"])
    fit = fits["partial"]
    h = xr.Dataset({name: ("sample", fit["posterior"][name].values.ravel()) for name in ("mu", "tau")})
    inverse = np.exp(-MODEL.group_level.log_left_out(h, TABLES).isel(year=0).values)
    error = inverse.std() / inverse.mean() / np.sqrt(inverse.size * fit.attrs["efficiency"])
    assert abs(np.log(density.mean()) + np.log(inverse.mean())) < 4 * np.hypot(mcse, error)


# Whether a slope is enough, and years are alike.


def many_years(rng, slopes, bend=0.0, animals=80):
    """A year of so many animals for each slope, survival bent by a square of the trait."""
    z = rng.normal(size=(len(slopes), animals))
    survived = rng.random(z.shape) < special.expit(0.3 + np.array(slopes)[:, None] * z + bend * (z**2 - 1))
    of = np.repeat(np.arange(len(slopes)), animals)
    return pd.DataFrame({"year": 2000 + of, "z": z.ravel(), "survived": survived.ravel().astype(int)})


def test_curvature_is_the_score_test_of_a_square_and_differences_are_of_likeliest_slopes():
    """Against statsmodels, whose estimates are not drawn to 0: to 2 %."""
    frame = many_years(np.random.default_rng(2), [0.2, 0.9, -0.3, 0.4], bend=-0.4)
    data, by_year = MODEL.data(frame), pd.get_dummies(frame["year"]).to_numpy(float)
    z = frame["z"].to_numpy()
    line = sm.GLM(frame["survived"], np.hstack([by_year, by_year * z[:, None]]), family=sm.families.Binomial()).fit()
    chi2 = line.score_test(exog_extra=z[:, None] ** 2)[0]
    assert curvature(None, data, None) == pytest.approx(-np.sqrt(float(np.squeeze(chi2))), rel=0.02)
    slopes, weights = line.params[4:], 1 / line.bse[4:] ** 2
    Q = (weights * (slopes - np.average(slopes, weights=weights)) ** 2).sum()
    assert differences(None, data, None) == pytest.approx(Q, rel=0.02)


def test_where_a_slope_is_enough_curvature_is_standard_normal():
    """Two hundred data sets of years that differ: mean and sd within four of their errors."""
    rng = np.random.default_rng(4)
    found = [
        curvature(None, MODEL.data(many_years(rng, rng.normal(0.4, 0.5, 5), animals=50)), None) for _ in range(200)
    ]
    assert abs(np.mean(found)) < 4 / np.sqrt(200)
    assert abs(np.std(found) - 1) < 4 / np.sqrt(2 * 200)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("slopes", "bend", "check", "said"),
    [
        ([0.3] * 8, -0.5, "curvature", "selection stabilises"),
        ([0.3] * 8, 0.5, "curvature", "selection is disruptive"),
        ([0.0] * 9 + [4.0], 0.0, "shape of alpha", "2009 lies farthest out"),
        ([0.3] * 8, 0.0, None, ""),
    ],
)
def test_what_is_planted_is_seen_by_the_check_that_is_for_it(slopes, bend, check, said):
    frame = many_years(np.random.default_rng(6), slopes, bend, animals=200)
    table = hz.check_model(hz.fit("selection_gradients", frame, draws=250, **SETTINGS))
    assert table.attrs["rejected"].get("partial", []) == ([check] if check else [])
    assert said in " ".join(table["verdict"])


@pytest.mark.slow
def test_years_that_differ_are_seen_under_complete_pooling():
    frame = many_years(np.random.default_rng(7), [-0.6, 0.0, 0.6, 1.2], animals=100)
    table = hz.check_model(hz.fit("selection_gradients", frame, "complete", draws=250, **SETTINGS))
    assert table.attrs["rejected"] == {"complete": ["spread"]}


# Refusals.

REFUSED = {
    "expected a column 'z'": lambda: MODEL.data(FRAME.drop(columns="z")),
    "column 'survived' expected 0 or 1, got 2": lambda: MODEL.data(FRAME.assign(survived=FRAME["survived"] * 2)),
    "column 'z' expected a finite number": lambda: MODEL.data(FRAME.assign(z=np.inf)),
    "expected at least 2 years to compare, got 1": lambda: MODEL.data(FRAME[FRAME["year"] == 2000]),
    "independent: it does not go with autocorrelation=True": lambda: hz.selection_gradients.MODEL.under(
        autocorrelation=True, exact=True
    ),
    "exact under a Normal prior of 'alpha', got StudentT": lambda: hz.fit(
        "selection_gradients", FRAME, "none", priors={"alpha": Prior("StudentT", nu=4, mu=0, sigma=1)}, **SETTINGS
    ),
    "expected values that differ, got one in every row": lambda: standardised_animals(FRAME.assign(z=1.0), "z"),
    "standardised_animals expected a column 'mass'": lambda: standardised_animals(FRAME, "mass"),
    "expected traits, fitness and year to be columns of their own": lambda: standardised_animals(FRAME, "year"),
    "column 'survived' expected 0 or 1, got 0.5": lambda: standardised_animals(FRAME.assign(survived=0.5), "z"),
    "column 'survived' expected 0 or 1, got True": lambda: MODEL.data(FRAME.assign(survived=True)),
    "from their year's mean, got a mean of 9.97": lambda: MODEL.data(FRAME.assign(z=FRAME["z"] + 10)),
    "expected one trait, got 'z' and 'survived'": lambda: standardised_animals(FRAME, ["z", "survived"]),
    "column 'year' expected": lambda: MODEL.data(FRAME.assign(year=None)),
    "Unknown exact 'yes': expected one of false, true": lambda: hz.fit(
        "selection_gradients", FRAME, exact="yes", random_seed=1
    ),
}


@pytest.mark.parametrize("message", REFUSED)
def test_a_bad_input_is_refused_in_a_sentence(message):
    with pytest.raises((FrameError, ValueError), match=message):
        REFUSED[message]()


def test_a_trait_in_another_unit_is_said_to_be():
    data = MODEL.data(FRAME.assign(z=50 * FRAME["z"]))
    assert "make it one by standardised_animals" in MODEL.extras.contradiction(data, MODEL.priors(data))
    assert MODEL.extras.contradiction(DATA, MODEL.priors(DATA)) is None


def test_animals_beside_those_that_a_new_year_brings_are_not_predicted(fits):
    """alpha_0 of a year is known of those of the fit only."""
    new = pd.DataFrame({"year": 2050, "z": [0.1, -0.2, 0.0], "survived": [1.0, 1.0, np.nan]})
    with pytest.raises(ValueError, match="2050 brings rows, and others of it are to be predicted"):
        hz.predict(fits["partial"], new)


def test_verbs_of_estimates_refuse_animals(fits):
    with pytest.raises(ValueError, match="one trait and no standard errors: by_year says what is known"):
        hz.selection_gradients.over_years(fits["partial"])


@pytest.mark.slow
@pytest.mark.parametrize("pooling", ["none", "complete", "partial"])
def test_simulation_based_calibration(pooling):
    frame, _ = MODEL.simulate(np.random.default_rng(1), years=6, animals=(15, 40))
    result = hz.calibrate(
        "selection_gradients", frame, pooling, simulations=200, random_seed=2, progressbar=False, exact=True
    )
    assert result.table["p_holm"].min() > 0.01
