"""A model that is only drawn, and as awkward as a model may be.

Absences of pupils in classes in schools: a vector estimand (intercept and slope of each
school), two nested levels (schools, and classes within them), an extra input (the days of
each class) and no closed form. Every diagnostic answers rightly or refuses in one sentence.
"""

import re
import warnings
from dataclasses import replace

import arviz as az
import numpy as np
import pandas as pd
import pymc as pm
import pytest
import xarray as xr
from pymc_extras.prior import Prior
from scipy import stats

import hbm_zoo as hz
from hbm_zoo.fields import Parameter
from hbm_zoo.frames.rules import count, label, number, positive
from hbm_zoo.group_level.level import GroupLevel
from hbm_zoo.group_level.populations import Normal
from hbm_zoo.inference.convergence import ConvergenceWarning
from hbm_zoo.inference.fits import hyperparameters
from hbm_zoo.model import HierarchicalModel


def prepare(frame, days):
    """One row a pupil; `days` is a second frame, one row a class."""
    days = days.set_index("class")["days"]
    classes = frame.drop_duplicates("class").set_index("class")["school"]
    schools = pd.unique(frame["school"])
    return xr.Dataset(
        {
            "absences": ("pupil", frame["absences"].to_numpy(np.int64)),
            "distance": ("pupil", frame["distance"].to_numpy(float)),
            "class_index": ("pupil", classes.index.get_indexer(frame["class"])),
            "school_index": ("class", pd.Index(schools).get_indexer(classes)),
            "days": ("class", days.loc[classes.index].to_numpy(float)),
        },
        coords={"school": schools, "class": classes.index.to_numpy(), "coefficient": ["intercept", "slope"]},
    )


def absences(data, prior, theta):
    """y_i ~ Poisson(days_c exp(theta_s0 + theta_s1 x_i + u_c)), u_c ~ N(0, omega^2)."""
    u = pm.Normal("u", 0, prior("omega"), dims="class")
    line = theta[data.school_index[data.class_index]]
    log_rate = line[:, 0] + line[:, 1] * data.distance + u[data.class_index]
    pm.Poisson("y", data.days[data.class_index] * pm.math.exp(log_rate), observed=data.absences, dims="pupil")


def population(prior):
    return pm.math.stack([prior("mu_intercept"), prior("mu_slope")])


def no_pooling(data, prior):
    absences(data, prior, prior("theta", dims=("school", "coefficient")))


def complete_pooling(data, prior):
    one = population(prior) + pm.math.zeros((data.school_index.max() + 1, 1))
    absences(data, prior, pm.Deterministic("theta", one, dims=("school", "coefficient")))


def partial_pooling(data, prior):
    mu = population(prior)
    absences(data, prior, pm.Normal("theta", mu, prior("tau"), dims=("school", "coefficient")))


def own(data):
    """Absences a day on the log scale; a school's own slope is left unknown."""
    school = data.school_index[data.class_index.values].values
    totals = [np.bincount(school, weights) for weights in (data.absences, data.days[data.class_index.values])]
    intercept = np.log(totals[0] / totals[1])
    return xr.DataArray(
        np.stack([intercept, np.full_like(intercept, np.nan)], axis=1),
        coords={"school": data.school, "coefficient": data.coefficient},
    )


def volume(data):
    pupils = np.bincount(data.school_index[data.class_index.values])
    return xr.DataArray(pupils, coords={"school": data.school}, name="pupils")


FOREIGN = HierarchicalModel(
    name="absences",
    question="Where are pupils away, and does distance matter?",
    group="school",
    estimand="theta",
    estimand_label="log rate",
    observed="y",
    location="mu_intercept",
    heterogeneity="tau",
    reference=0.0,
    columns={
        "school": label("the school"),
        "class": label("the class"),
        "distance": number("way to school [km, centred]"),
        "absences": count("days away"),
    },
    parameters={
        "mu_intercept": Parameter("mean log rate at mean distance"),
        "mu_slope": Parameter("mean change of the log rate with distance"),
        "tau": Parameter("spread of schools", (0, np.inf)),
        "omega": Parameter("spread of classes within a school", (0, np.inf)),
    },
    default_priors=lambda data: {
        "mu_intercept": Prior("Normal", mu=-2.0, sigma=0.5),
        "mu_slope": Prior("Normal", mu=0.0, sigma=0.3),
        "tau": Prior("Gamma", alpha=10.0, beta=20.0),
        "omega": Prior("Gamma", alpha=10.0, beta=50.0),
    },
    matched_prior=lambda priors: Prior("Normal", mu=-1.0, sigma=1.0),
    prepare=prepare,
    own=own,
    volume=volume,
    inputs={"days": {"class": label("the class"), "days": positive("days of school [days]")}},
    variants={
        "none": {"centered": no_pooling},
        "complete": {"centered": complete_pooling},
        "partial": {"centered": partial_pooling},
    },
    fixed={
        "none": lambda priors, data: {"mu_intercept": -1.0, "mu_slope": -1.0, "tau": 1.0},
        "complete": lambda priors, data: {"tau": 0.0},
        "partial": lambda priors, data: {},
    },
    simulate=None,
    datasets={},
)


def absences_frame(seed=5, schools=6, classes=2, pupils=8):
    rng = np.random.default_rng(seed)
    rows, days = [], []
    for s in range(schools):
        line = rng.normal([-2.0, 0.3], 0.5)
        for c in range(classes):
            u, length = rng.normal(0, 0.2), 30.0 + 10 * c
            days.append({"class": f"{s}{'ab'[c]}", "days": length})
            for x in rng.normal(0, 1, pupils):
                y = rng.poisson(length * np.exp(line[0] + line[1] * x + u))
                rows.append({"school": f"S{s}", "class": f"{s}{'ab'[c]}", "distance": x, "absences": y})
    return pd.DataFrame(rows), pd.DataFrame(days)


@pytest.fixture(scope="module")
def foreign():
    frame, days = absences_frame()
    settings = {"draws": 1000, "tune": 1000, "chains": 2, "random_seed": 3, "progressbar": False}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        return hz.fit_poolings(FOREIGN, frame, days=days, **settings)


def test_the_extra_input_reaches_the_model_and_stays_in_the_fit(foreign):
    data = foreign["partial"]["constant_data"]
    assert data["days"].values[:2].tolist() == [30.0, 40.0]
    assert foreign["partial"].attrs["options"] == "{}"


def test_groups_are_summarised_from_their_draws(foreign):
    summary = foreign["partial"]["group_summary"].to_dataset()
    draws = foreign["partial"]["posterior"]["theta"]
    np.testing.assert_allclose(summary["mean"], draws.mean(["chain", "draw"]))
    np.testing.assert_allclose(summary["sd"], draws.std(["chain", "draw"]))
    np.testing.assert_allclose(summary["eti89_lb"], draws.quantile(0.055, ["chain", "draw"]))
    np.testing.assert_allclose(summary["p_above"], (draws > 0).mean(["chain", "draw"]))
    assert "kappa" not in summary
    assert "elpd" not in summary
    assert float(summary["rank"].sel(coefficient="slope").sum()) == pytest.approx(21)


def test_the_groups_of_one_school_are_recovered(foreign):
    table = hz.groups(foreign, model=FOREIGN)
    intercept = table.xs("intercept", level="coefficient")
    assert np.corrcoef(intercept["own"], intercept["partial"])[0, 1] > 0.9
    assert table.xs("slope", level="coefficient")["own"].isna().all()
    assert np.ptp(table.xs("slope", level="coefficient")["complete"]) == 0


def test_probability_beyond_a_threshold_is_the_share_of_draws(foreign):
    table = hz.groups(foreign, threshold=-2.0, model=FOREIGN)
    draws = foreign["partial"]["posterior"]["theta"]
    expected = (draws > -2).mean(["chain", "draw"]).to_series()
    np.testing.assert_allclose(table["p_above_-2"], expected.reindex(table.index))


def test_draws_are_checked_group_level_included(foreign):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        table = hz.convergence(foreign)
    worst = max(float(v.max()) for v in az.rhat(foreign["partial"]["posterior"].dataset).data_vars.values())
    assert table.loc["partial", "r_hat"] == pytest.approx(worst)
    assert table.loc["partial", "passed"]


def test_the_log_likelihood_is_of_each_pupil_given_the_groups(foreign):
    fit = foreign["partial"]
    data, posterior = fit["constant_data"].to_dataset(), fit["posterior"].dataset
    theta = posterior["theta"].isel(school=data.school_index[data.class_index])
    u = posterior["u"].values[..., data.class_index.values]
    log_rate = theta.sel(coefficient="intercept") + theta.sel(coefficient="slope") * data.distance.values[:, None].T
    rate = data.days.values[data.class_index.values] * np.exp(log_rate.transpose("chain", "draw", ...).values + u)
    expected = stats.poisson.logpmf(data.absences.values, rate)
    np.testing.assert_allclose(fit["log_likelihood"]["y"].values, expected, rtol=1e-8)
    with warnings.catch_warnings():  # one pupil may be too surprising; that it is asked is enough
        warnings.filterwarnings("ignore", message=".*Pareto")
        assert az.loo(fit).n_data_points == data.sizes["pupil"]


def test_posterior_predictive_repeats_the_data(foreign):
    predictive = foreign["partial"]["posterior_predictive"]["y"]
    assert predictive.dims == ("chain", "draw", "pupil")
    observed = foreign["partial"]["constant_data"]["absences"]
    low, high = (predictive.quantile(p, ["chain", "draw"]) for p in (0.025, 0.975))
    assert ((low <= observed) & (observed <= high)).mean() > 0.9


# Its population named, groups never seen are known as well.


def of_schools(h):
    mean = xr.concat([h.mu_intercept, h.mu_slope], dim=xr.Variable("coefficient", ["intercept", "slope"]))
    return Normal(mean, h.tau)


NAMED = replace(FOREIGN, group_level=GroupLevel(population=of_schools))


def test_with_a_population_new_schools_are_predicted(foreign):
    for pooling, spread in (("partial", None), ("complete", 0.0), ("none", 1.0)):
        fit = foreign[pooling]
        h, said = hyperparameters(fit), hz.predict(fit, n_new=2, model=NAMED)
        summary = said["group_summary"].to_dataset()
        assert summary["case"].values.tolist() == ["never seen", "never seen"]
        mean, variance = h.mu_slope.mean(), h.mu_slope.var() + (h.tau**2).mean()
        np.testing.assert_allclose(summary["mean"].sel(coefficient="slope"), mean)
        np.testing.assert_allclose(summary["sd"].sel(coefficient="slope"), np.sqrt(variance))
        drawn = said["predictions"]["theta"].sel(coefficient="slope", school="new 1").stack(sample=("chain", "draw"))
        own = drawn.values - h.mu_slope.values if h.mu_slope.size > 1 and h.mu_slope.std() > 0 else drawn.values + 1.0
        expected = spread if spread is not None else np.sqrt(float((h.tau**2).mean()))
        assert own.std() == pytest.approx(expected, rel=0.1, abs=1e-9)


def test_with_a_population_what_draws_say_is_said(foreign):
    assert {"partial", "rank", "p_best"} <= set(hz.groups(foreign, model=NAMED))
    assert hz.plot_ranks(foreign) is not None
    assert len(hz.plot_poolings(foreign).axes) == 2
    sentences = hz.verdict({"partial": foreign["partial"]}, model=NAMED)
    assert sentences[2].startswith("Whether it fits was not asked: check_model needs how probable less than the own")
    assert re.match(r"S\d+ moves farthest in intercept, from ", sentences[3])


UNKNOWN = {
    "the density of a school left out": lambda fits: hz.compare_poolings(fits, model=NAMED),
    "what is known of a school after its data": lambda fits: hz.pooling_factor(fits["partial"], model=NAMED),
    "the weight of a school's own data": lambda fits: hz.plot_shrinkage(fits, model=NAMED),
    "what is known of a school after its data, given": lambda fits: hz.predict(fits["partial"], model=NAMED),
    "the likelihood with what belongs to each school": lambda fits: hz.empirical_bayes(
        NAMED, *absences_frame()[:1], days=absences_frame()[1]
    ),
}


@pytest.mark.parametrize("missing", UNKNOWN)
def test_with_a_population_what_is_missing_is_named(foreign, missing):
    with pytest.raises(ValueError, match=rf"needs {missing}[^.]*, and absences does not give it\.$"):
        UNKNOWN[missing](foreign)


REFUSALS = {
    "compare_poolings": lambda fits: hz.compare_poolings(fits, "new_group", model=FOREIGN),
    "compare_poolings again": lambda fits: hz.compare_poolings(fits, "new_observation", model=FOREIGN),
    "pooling_factor": lambda fits: hz.pooling_factor(fits["partial"], model=FOREIGN),
    "predict": lambda fits: hz.predict(fits["partial"], n_new=1, model=FOREIGN),
    "recover": lambda fits: hz.recover(fits["partial"], FOREIGN, *absences_frame()[:1], days=absences_frame()[1]),
    "empirical_bayes": lambda fits: hz.empirical_bayes(FOREIGN, *absences_frame()[:1], days=absences_frame()[1]),
    "plot_shrinkage": lambda fits: hz.plot_shrinkage(fits, model=FOREIGN),
    "plot_funnel": lambda fits: hz.plot_funnel(fits, model=FOREIGN),
    "plot_estimates": lambda fits: hz.plot_estimates_over_heterogeneity(fits["partial"], model=FOREIGN),
}


@pytest.mark.parametrize("what", REFUSALS)
def test_what_cannot_be_done_is_refused_in_one_sentence(foreign, what):
    with pytest.raises(ValueError, match=r"^[^.]*absences[^.]*\.$"):
        REFUSALS[what](foreign)


def test_what_needs_no_closed_form_is_drawn(foreign):
    assert len(hz.plot_poolings(foreign).axes) == 2
    assert hz.plot_ranks(foreign) is not None


def test_its_graph_is_described(foreign):
    frame, days = absences_frame()
    assert hz.describe_pooling(FOREIGN.build(frame, days=days)) == (
        "theta is pooled over school through mu_intercept, mu_slope and tau: partial pooling, centered. "
        "u is pooled over class through omega: partial pooling, centered."
    )


def test_the_verdict_says_what_it_can(foreign):
    sentences = hz.verdict({"partial": foreign["partial"]}, model=FOREIGN)
    assert sentences[0] == "Every fit can be trusted: partial pooling passed the checks of convergence."
    assert sentences[1] == (
        "compare_poolings needs the density of a school left out, given the others, and absences does not give it."
    )
    assert sentences[2].startswith("Whether it fits was not asked: check_model needs how probable less than the own")
    assert re.match(r"S\d+ moves farthest in intercept, from ", sentences[3])
    assert "kappa" not in " ".join(sentences)
    assert sentences[3].endswith("; no school has an estimate of its own in slope to be pulled from.")
    assert sentences[4].startswith("Next: fit again with another prior of tau")


@pytest.mark.long
def test_it_has_a_report(foreign, tmp_path):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        folder = hz.report(foreign, tmp_path / "report", model=FOREIGN)
    assert "absences does not give it" in (folder / "report.md").read_text()


def test_a_model_outside_the_zoo_must_be_given(foreign):
    with pytest.raises(ValueError, match="Unknown model 'absences'"):
        hz.groups(foreign)


def test_a_variant_that_hides_its_groups_is_refused():
    hidden = FOREIGN.variants | {
        "complete": {"centered": lambda data, prior: absences(data, prior, pm.math.zeros((6, 2)))}
    }
    frame, days = absences_frame()
    model = HierarchicalModel(**{**vars(FOREIGN), "variants": hidden})
    with pytest.raises(ValueError, match=r"^absences does not say what is known .* must show 'theta' by school\.$"):
        hz.fit(model, frame, "complete", days=days, draws=10, tune=10, chains=2, progressbar=False)
