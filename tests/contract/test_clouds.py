"""The contract of a record, held to a model outside the package whose groups are integrated on a cloud of nodes.

A substance decays in dishes: each has an amplitude and a rate, two logs with a correlated normal
population. The page gives a population, a simulator, a density, and what is reported: the half-life
alone, which does not say what new rows need to know. All diagnostics answer.
"""

import warnings
from dataclasses import replace

import arviz as az
import numpy as np
import pandas as pd
import pymc as pm
import pytensor.tensor as pt
import pytest
import xarray as xr
from pymc_extras.prior import Prior
from pytensor.graph.basic import Constant
from pytensor.graph.traversal import ancestors

import hbm_zoo as hz
from hbm_zoo.diagnostics import cross_validation
from hbm_zoo.diagnostics.heterogeneity import estimates_over_heterogeneity
from hbm_zoo.diagnostics.verdict.pull import pull
from hbm_zoo.fields import Extras, Parameter
from hbm_zoo.frames.rules import label, number, positive
from hbm_zoo.group_level import features
from hbm_zoo.group_level.cloud import Cloud
from hbm_zoo.group_level.weighted import MultivariateNormal
from hbm_zoo.inference import chunks, sampling
from hbm_zoo.inference.chunks import log_joint_above
from hbm_zoo.inference.fits import hyperparameters, prepared, priors_of, proposals, thinned
from hbm_zoo.inference.loo import leave_one_out
from hbm_zoo.inference.summary import CELLS_LEFT_OUT, affordable
from hbm_zoo.model import HierarchicalModel
from hbm_zoo.priors import lkj, moments

#: One fit of a cloud, which all read, takes some seconds.
pytestmark = pytest.mark.long

COEFFICIENTS = ["amplitude", "rate"]
PARAMETERS = {
    "mu_amplitude": Parameter("mean log amplitude"),
    "mu_rate": Parameter("mean log rate"),
    "omega_amplitude": Parameter("spread of log amplitudes", (0, np.inf)),
    "omega_rate": Parameter("spread of log rates", (0, np.inf)),
    "rho": Parameter("correlation of the two", (-1, 1)),
    "sigma": Parameter("noise (sd) of a measurement", (0, np.inf)),
}


def prepare(frame):
    """Rows of every dish side by side, as many as the dish with the most has; `seen` says which are there."""
    of, dishes = pd.factorize(frame["dish"])
    row = frame.groupby("dish", sort=False).cumcount().to_numpy()
    shape = len(dishes), row.max() + 1
    time, value, seen = np.zeros(shape), np.zeros(shape), np.zeros(shape)
    time[of, row], value[of, row], seen[of, row] = frame["time"], frame["value"], 1.0
    wide = {name: (("dish", "row"), array) for name, array in {"time": time, "value": value, "seen": seen}.items()}
    where = {"of_dish": ("observation", of), "of_row": ("observation", row)}
    return xr.Dataset(wide | where, coords={"dish": np.asarray(dishes), "coefficient": COEFFICIENTS})


# The integral: a population, a simulator, a density, and what is reported.


def population(h):
    by_deviate = [xr.DataArray([1.0, 0.0], dims="deviate"), xr.DataArray([0.0, 1.0], dims="deviate")]
    first = h.omega_amplitude * by_deviate[0]
    second = h.omega_rate * (h.rho * by_deviate[0] + np.sqrt(1 - h.rho**2) * by_deviate[1])
    parts = [h.mu_amplitude, h.mu_rate], [first, second]
    joined = [xr.concat(xr.broadcast(*map(xr.DataArray, part)), dim="coefficient") for part in parts]
    return MultivariateNormal(*(part.assign_coords(coefficient=COEFFICIENTS) for part in joined))


def curve(theta, data):
    log_amplitude, log_rate = (theta.isel(coefficient=k, drop=True) for k in (0, 1))
    return np.exp(log_amplitude - np.exp(log_rate) * data.time)


def log_density(curve, h, data):
    squares, rows = ((data.value - curve) ** 2 * data.seen).sum("row"), data.seen.sum("row")
    return -squares / (2 * h.sigma**2) - rows * np.log(h.sigma * np.sqrt(2 * np.pi))


def half_life(theta):
    return np.log(2) * np.exp(-theta.isel(coefficient=1, drop=True))


def replicate(rng, theta, h, data):
    """New rows at the same times, [observation]."""
    rows = data[["time"]].isel(dish=data.of_dish, row=data.of_row)
    expected = curve(theta.isel(dish=data.of_dish), rows)
    return xr.apply_ufunc(rng.normal, *xr.broadcast(expected, h.sigma)).drop_vars("dish")


def rough(data, priors):
    """The means of the priors."""
    return xr.Dataset({name: moments(name, priors[name])[0] for name in PARAMETERS if name != "rho"} | {"rho": 0.0})


CLOUD = Cloud(
    group="dish",
    population=population,
    predict=curve,
    log_density=log_density,
    rough=rough,
    estimand=half_life,
    size=512,
)

# The variants.


def measured(data, prior, log_amplitude, log_rate):
    time, value = (getattr(data, name)[data.of_dish, data.of_row] for name in ("time", "value"))
    expected = pm.math.exp(log_amplitude - pm.math.exp(log_rate) * time)
    pm.Normal("y", expected, prior("sigma"), observed=value, dims="observation")


def dishes(data, prior, log_theta):
    pm.Deterministic("half_life", np.log(2) * pt.exp(-log_theta[:, 1]), dims="dish")
    measured(data, prior, log_theta[data.of_dish, 0], log_theta[data.of_dish, 1])


def no_pooling(data, prior):
    dishes(data, prior, pt.stack([prior(f"log_{name}", dims="dish") for name in COEFFICIENTS], axis=-1))


def complete_pooling(data, prior):
    measured(data, prior, prior("mu_amplitude"), prior("mu_rate"))


def partial_pooling(data, prior):
    mu, cholesky = population_of_logs(prior)
    dishes(data, prior, mu + pm.Normal("z", dims=("dish", "coefficient")) @ cholesky.T)


def population_of_logs(prior):
    mu = pt.stack([prior("mu_amplitude"), prior("mu_rate")])
    first, second, rho = prior("omega_amplitude"), prior("omega_rate"), prior("rho")
    return mu, pt.stacklists([[first, 0.0], [second * rho, second * pt.sqrt(1 - rho**2)]])


def marginalized(data, prior):
    """Every dish integrated out on its nodes, which are data."""
    nodes = [getattr(data, name) for name in ("predicted", "features", "log_q", "pilot_mean", "pilot_cholesky")]
    pm.CustomDist(
        "y",
        data.seen,
        prior("sigma"),
        *population_of_logs(prior),
        *nodes,
        logp=log_marginal,
        signature="(j,r),(),(c),(c,d),(j,k,r),(j,k,f),(j,k),(c),(c,d)->(j,r)",
        observed=data.value,
    )


def log_marginal(value, seen, sigma, mu, cholesky, curve, given, log_q, pilot_mean, pilot_cholesky):
    squares, rows = ((value[:, None] - curve) ** 2 * seen[:, None]).sum(axis=-1), seen.sum(axis=-1)[:, None]
    density = -squares / (2 * sigma**2) - rows * pt.log(sigma * np.sqrt(2 * np.pi))
    return features.log_marginal(density, given, log_q, mu, cholesky, pilot_mean, pilot_cholesky, 2).sum()


def default_priors(data):
    return {
        "mu_amplitude": Prior("Normal", mu=0.5, sigma=1.0),
        "mu_rate": Prior("Normal", mu=-0.5, sigma=1.0),
        "omega_amplitude": Prior("HalfNormal", sigma=0.5),
        "omega_rate": Prior("HalfNormal", sigma=0.5),
        "rho": lkj(2.0),
        "sigma": Prior("HalfNormal", sigma=0.3),
    }


def matched_prior(priors):
    matched = {}
    for name in COEFFICIENTS:
        (mean, variance), (omega, of_omega) = (moments(n, priors[n]) for n in (f"mu_{name}", f"omega_{name}"))
        matched[f"log_{name}"] = Prior("Normal", mu=mean, sigma=float(np.sqrt(variance + omega**2 + of_omega)))
    return matched


def in_advance(priors, data):
    fixed = {"rho": 0.0}
    for name in COEFFICIENTS:
        mean, variance = moments(name, priors[f"log_{name}"])
        fixed |= {f"mu_{name}": mean, f"omega_{name}": float(np.sqrt(variance))}
    return fixed


def own(data):
    """Half-life by least squares of the log of values; NaN with fewer than three above 0."""
    found = np.full(data.sizes["dish"], np.nan)
    for j in range(found.size):
        used = ((data.seen > 0) & (data.value > 0.05)).values[j]
        if used.sum() > 2:
            found[j] = -np.log(2) / np.polyfit(data.time.values[j, used], np.log(data.value.values[j, used]), 1)[0]
    return xr.DataArray(found, coords={"dish": data.dish})


def thin(rng, data):
    """Each row in one half or the other, at random."""
    first = rng.random(data.seen.shape) < 0.5
    return tuple(data.assign(seen=data.seen * half) for half in (first, ~first))


DECAY = HierarchicalModel(
    name="decay",
    question="How fast does it decay, dish by dish?",
    group="dish",
    estimand="half_life",
    estimand_label="half-life [h]",
    observed="y",
    response="value",
    location="mu_rate",
    heterogeneity="omega_rate",
    reference=None,
    columns={
        "dish": label("the dish"),
        "time": positive("when it was measured [h]"),
        "value": number("what was measured"),
    },
    parameters=PARAMETERS,
    default_priors=default_priors,
    matched_prior=matched_prior,
    prepare=prepare,
    own=own,
    volume=lambda data: data.seen.sum("row").rename("rows"),
    variants={
        "none": {"centered": no_pooling, "marginalized": marginalized},
        "complete": {"centered": complete_pooling},
        "partial": {"noncentered": partial_pooling, "marginalized": marginalized},
    },
    fixed={
        "none": in_advance,
        "complete": lambda priors, data: {"omega_amplitude": 0.0, "omega_rate": 0.0, "rho": 0.0},
        "partial": lambda priors, data: {},
    },
    group_level=CLOUD.group_level(replicate=replicate),
    simulate=None,
    datasets={},
    extras=Extras(thin=thin),
)


def decay_frame(rows=(8, 8, 6, 6, 4, 3, 1), seed=2, spread=0.5):
    """Seven dishes, the last with one row."""
    rng, frame = np.random.default_rng(seed), []
    for j, n in enumerate(rows):
        log_amplitude, log_rate = rng.normal([0.7, -0.4], spread)
        for time in np.sort(rng.uniform(0.2, 4, n)):
            value = np.exp(log_amplitude - np.exp(log_rate) * time) + rng.normal(0, 0.05)
            frame.append({"dish": f"D{j + 1}", "time": time, "value": value})
    return pd.DataFrame(frame)


SETTINGS = {"draws": 400, "tune": 400, "chains": 2, "random_seed": 4, "progressbar": False}
LEVEL = DECAY.group_level


def quietly(call, *arguments, **options):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return call(*arguments, **options)


@pytest.fixture(scope="module")
def partial():
    return quietly(hz.fit, DECAY, decay_frame(), **SETTINGS)


def test_nodes_are_in_the_fit_and_data_of_the_model(partial):
    data = prepared(partial)
    assert "theta" in partial["nodes"]
    assert "theta" not in partial["constant_data"]
    assert "nodes" not in partial["constant_data"].attrs
    assert data.attrs["nodes"] == sorted(partial["nodes"].data_vars)
    model = DECAY.write(data, "partial", "marginalized", priors_of(partial))
    assert {"predicted", "features", "log_q"} <= {variable.name for variable in model.data_vars}
    constants = [v for v in ancestors([model.logp()]) if isinstance(v, Constant)]
    assert max(np.size(constant.data) for constant in constants) < 50


def test_the_sampler_has_the_integral_on_fixed_nodes(partial):
    data, h = prepared(partial), thinned(hyperparameters(partial), 5)
    h["omega_rate"] = h.omega_rate * [1.0, 1.0, 1.0, 1.0, 0.02]
    model = DECAY.write(data, "partial", "marginalized", priors_of(partial))
    log_likelihood = model.compile_logp(vars=model.observed_RVs, mode="AS_WRITTEN")
    on_line = {name: ("log__", np.log(h[name])) for name in PARAMETERS if h[name].min() > 0 and name != "rho"}
    on_line = {f"{name}_{ending}": value for name, (ending, value) in on_line.items()}
    on_line |= {name: h[name] for name in PARAMETERS} | {"rho_raw_logodds__": np.log1p(h.rho) - np.log1p(-h.rho)}
    points = [{name: on_line[name].values[k] for name in model.initial_point()} for k in range(5)]
    np.testing.assert_allclose([log_likelihood(point) for point in points], LEVEL.log_sampled(h, data), rtol=1e-8)
    apart = abs(LEVEL.log_sampled(h, data) - LEVEL.log_joint(h, data))
    moved = CLOUD.integrate(h, data).moved.any("dish")
    assert (apart.where(~moved, 0.0) < 1e-8).all()
    assert apart[4] > 1e-3  # where the tables have nodes that move


def test_no_dish_says_more_than_at_its_best(partial, monkeypatch):
    """A bound of every integral; a sum that is too little whatever one dish says is given up, and no other."""
    data, h = prepared(partial), thinned(hyperparameters(partial), 6)
    h["omega_rate"] = h.omega_rate * [1.0, 3.0, 0.1, 1e-2, 1e-4, 0.0]
    each, most = LEVEL.log_left_out(h, data), LEVEL.log_most(h, data)
    exact = each.sum("dish").values
    assert (most.values > exact).all()
    near = LEVEL.log_at_most(h, data).values
    assert ((near <= most.values) & (near > exact - 1e-6)).all()
    stay = ~CLOUD.integrate(h, data).moved.any("dish").values
    assert stay.any()
    np.testing.assert_allclose(near[stay], exact[stay], rtol=1e-9)
    monkeypatch.setattr(chunks, "CELLS_AT_ONCE", 1)
    found = log_joint_above(DECAY, h, data, exact.max() - 1.0)
    kept = found > -np.inf
    assert kept[exact.argmax()]
    assert kept.sum() < 6
    np.testing.assert_allclose(found[kept], exact[kept], rtol=1e-6)  # nodes that move depend a little on whose do


def test_what_is_reported_is_a_function_of_what_the_likelihood_needs(partial):
    """Draws and averages agree, and new rows are of the amplitude that was drawn with the half-life."""
    summary, draws = partial["group_summary"].to_dataset(), partial["posterior"]["half_life"]
    assert draws.dims == ("chain", "draw", "dish")
    error = draws.std(["chain", "draw"]) / np.sqrt(draws.sizes["chain"] * draws.sizes["draw"])
    assert (abs(draws.mean(["chain", "draw"]) - summary["mean"]) < 4 * error).all()
    replicated, data = partial["posterior_predictive"]["y"], prepared(partial)
    observed = data.value.values[data.of_dish, data.of_row]
    spread = replicated.std(["chain", "draw"])
    assert (abs(replicated.mean(["chain", "draw"]) - observed) < 3 * spread).all()
    # Amplitude and rate of a known dish depend on one another: taken from different draws the curve would vary more.
    h = hyperparameters(partial)
    curves = curve(LEVEL.conditional(h, data).sample(np.random.default_rng(1)), data)
    variance = (curves.var("sample") + (h.sigma**2).mean()).values[data.of_dish, data.of_row]
    np.testing.assert_allclose(spread, np.sqrt(variance), rtol=0.15)


def test_the_table_of_groups_and_what_is_said_of_them(partial):
    table = hz.groups({"partial": partial}, threshold=1.0, model=DECAY)
    assert list(table.index) == [f"D{j}" for j in range(1, 8)]
    assert ((table["partial_eti89_lb"] < table["partial"]) & (table["partial"] < table["partial_eti89_ub"])).all()
    assert table["rank"].sum() == pytest.approx(28)
    assert table.loc[["D1", "D2"], "kappa"].min() > table.loc["D7", "kappa"]
    share = (partial["posterior"]["half_life"] > 1).mean(["chain", "draw"])
    np.testing.assert_allclose(table["p_above_1"], share, atol=0.1)
    assert pull(DECAY, partial)[0].startswith("the typical dish is pulled little")
    assert hz.pooling_factor(partial, model=DECAY)["pooling_factor"].between(0, 1.2).all()
    assert hz.plot_ranks({"partial": partial}) is not None


def test_the_error_of_the_integrals_is_in_that_of_the_elpd(partial):
    summary, data = partial["group_summary"].to_dataset(), prepared(partial)
    h = affordable(proposals(partial), data.sizes["dish"] * LEVEL.cells(data), CELLS_LEFT_OUT)
    log_left_out, error = LEVEL.log_left_out(h, data), LEVEL.integration_error(h, data)
    alone = leave_one_out(log_left_out.transpose("sample", ...), log_ratios=h["log_ratio"])
    np.testing.assert_allclose(summary["elpd"], alone["elpd"], rtol=1e-5)
    assert (summary["elpd_mcse"] > alone["elpd_mcse"]).all()
    added = np.sqrt(summary["elpd_mcse"] ** 2 - alone["elpd_mcse"] ** 2)
    assert ((added >= error.min("sample") - 1e-5) & (added <= error.max("sample") + 1e-5)).all()


def test_a_refit_without_a_dish_has_the_nodes_of_the_others(partial, monkeypatch):
    data, seen = prepared(partial), []
    plain = sampling.refit
    monkeypatch.setattr(
        cross_validation, "refit", lambda fit, other, *rest: (seen.append(other), plain(fit, other, *rest))[1]
    )
    short = partial.copy()
    short.attrs["draws"] = 200
    (elpd,), (mcse,) = cross_validation.refitted(DECAY, short, np.array([0]), 7)
    assert seen[0].dish.values.tolist() == [f"D{j}" for j in range(2, 8)]
    xr.testing.assert_identical(seen[0].theta, data.theta.isel(dish=slice(1, None)))
    summary = partial["group_summary"].to_dataset().isel(dish=0)
    assert elpd == pytest.approx(float(summary["elpd"]), abs=4 * np.hypot(mcse, float(summary["elpd_mcse"])))
    assert mcse >= float(LEVEL.integration_error(hyperparameters(partial), data.isel(dish=[0])).mean()) - 1e-3


@pytest.mark.slow
def test_halves_have_clouds_of_their_own(partial, monkeypatch):
    monkeypatch.setattr(cross_validation, "SPLITS", 2)
    monkeypatch.setattr(cross_validation, "DRAWS_A_SPLIT", 100)
    made, make = [], cross_validation.with_nodes
    monkeypatch.setattr(cross_validation, "with_nodes", lambda *given: made.append(make(*given)) or made[-1])
    table = quietly(hz.compare_poolings, {"partial": partial}, "new_observation", model=DECAY)
    assert np.isfinite(table["elpd"].item())
    assert len(made) == 2
    assert not np.allclose(made[0].theta, prepared(partial).theta)


def test_known_new_and_brought_dishes_are_predicted(partial):
    """A dish that brings the rows of D1 is as D1; one never seen is as the population."""
    first = decay_frame().query("dish == 'D1'").assign(dish="copy")
    asked = pd.DataFrame({"dish": ["D1", "D7", "copy", "fresh"], "time": [1.0] * 4})
    got = quietly(hz.predict, partial, pd.concat([first, asked], ignore_index=True), n_new=1, model=DECAY)
    summary = got["group_summary"].to_dataset()
    case = dict(zip(summary.dish.values.tolist(), summary["case"].values.tolist(), strict=True))
    assert case == {"copy": "brings rows", "D1": "known", "D7": "known", "fresh": "never seen", "new 1": "never seen"}
    of = {name: float(summary["mean"].sel(dish=name)) for name in case}
    assert of["copy"] == pytest.approx(of["D1"], abs=0.5 * float(summary["sd"].sel(dish="D1")))
    fitted = partial["group_summary"].to_dataset()["mean"].sel(dish="D1")
    assert of["D1"] == pytest.approx(float(fitted), rel=0.02)
    assert of["fresh"] == pytest.approx(of["new 1"], rel=1e-6)
    draws = got["predictions"]["half_life"].sel(dish="fresh")
    assert float(draws.mean()) == pytest.approx(of["fresh"], abs=5 * float(draws.std()) / np.sqrt(draws.size))
    # Rows at one time: those of a known dish vary least.
    spread = got["row_summary"]["sd"].values
    assert spread[0] < spread[3]


def test_a_fit_survives_its_file(partial, tmp_path):
    partial.to_netcdf(tmp_path / "fit.nc")
    again = az.from_netcdf(tmp_path / "fit.nc")
    xr.testing.assert_equal(again["nodes"].to_dataset(), partial["nodes"].to_dataset())
    ours, theirs = (hz.predict(fit, n_new=1, model=DECAY)["group_summary"] for fit in (partial, again))
    xr.testing.assert_allclose(ours.to_dataset(), theirs.to_dataset())
    left_out = [LEVEL.log_left_out(thinned(hyperparameters(fit), 5), prepared(fit)) for fit in (partial, again)]
    np.testing.assert_allclose(*left_out)


def test_draws_of_the_hyperparameters_are_enough(partial):
    alone = xr.DataTree.from_dict({"posterior": partial["posterior"].dataset[list(PARAMETERS)]})
    again = hz.recover(alone, DECAY, decay_frame(), random_seed=9)["posterior"]["half_life"]
    ours = partial["posterior"]["half_life"]
    error = ours.std(["chain", "draw"]) * np.sqrt(2 / ours.isel(dish=0).size)
    assert (abs(again.mean(["chain", "draw"]) - ours.mean(["chain", "draw"])) < 5 * error).all()


def both_known(data):
    """Both coefficients' own estimates: of the amplitude none."""
    rate = np.log(2) / own(data)
    return xr.concat([np.nan * rate, rate], dim="coefficient").assign_coords(coefficient=COEFFICIENTS).T


@pytest.mark.slow
def test_three_poolings_of_a_vector(monkeypatch, tmp_path):
    """No, complete and partial pooling of amplitude and rate, both questions, tables, verdict and report."""
    monkeypatch.setattr(cross_validation, "SPLITS", 3)
    level = replace(CLOUD, estimand=np.exp).group_level(replicate=replicate)
    record = replace(DECAY, estimand="theta", own=both_known, group_level=level)
    enough = {"draws": 1000, "tune": 1000}  # a report says nothing of fits that fail a check
    fits = hz.fit_poolings(record, decay_frame(), **SETTINGS | enough)
    for question in ("new_group", "new_observation"):
        table = quietly(hz.compare_poolings, fits, question, model=record)
        assert np.isfinite(table["elpd"].astype(float)).all()
        assert table.loc["complete", "elpd"] < table.loc["partial", "elpd"]
    table = hz.groups(fits, model=record)
    assert np.ptp(table.xs("rate", level="coefficient")["complete"]) == 0
    alone, shared = (table[f"{name}_eti89_ub"] - table[f"{name}_eti89_lb"] for name in ("none", "partial"))
    assert (shared.xs("D7", level="dish") < alone.xs("D7", level="dish")).all()
    folder = quietly(hz.report, fits, tmp_path / "report", model=record)
    assert "typical dish is pulled" in (folder / "report.md").read_text()


@pytest.mark.slow
def test_over_the_heterogeneity_and_with_plug_in_estimates(partial):
    """Without a spread of rates all half-lives are one; the likelihood is largest near where the draws are."""
    over = estimates_over_heterogeneity(partial, at=[0.0, 0.5], model=DECAY)["estimate"]
    assert float(np.ptp(over.sel(heterogeneity=0.0).values)) < 0.02
    assert float(np.ptp(over.sel(heterogeneity=0.5).values)) > 0.2
    plug_in = quietly(hz.empirical_bayes, DECAY, decay_frame())
    assert "theta" in plug_in["nodes"]
    for name in ("mu_amplitude", "mu_rate", "sigma"):
        value, draws = float(plug_in["estimates"]["value"].sel(hyperparameter=name)), partial["posterior"][name]
        assert abs(value - float(draws.mean())) < 2 * float(draws.std())


@pytest.mark.slow
@pytest.mark.parametrize(("spread", "size"), [(0.5, 512), (0.0, 1024)])
def test_both_forms_have_one_posterior(spread, size):
    """The cloud's marginal against latent variables: means and sds of the hyperparameters, of spreads on the log."""
    record = replace(DECAY, group_level=replace(CLOUD, size=size).group_level(replicate=replicate))
    forms = [
        quietly(hz.fit, record, decay_frame(spread=spread), "partial", form, **SETTINGS | {"draws": 1500, "tune": 1000})
        for form in ("marginalized", "noncentered")
    ]
    for name in PARAMETERS:
        scale = np.log if name.startswith("omega") else np.asarray
        drawn = [fit["posterior"].dataset[[name]].map(scale) for fit in forms]
        tables = [az.summary(draws, round_to="none").loc[name] for draws in drawn]
        error = np.hypot(tables[0]["mcse_mean"], tables[1]["mcse_mean"])
        assert abs(tables[0]["mean"] - tables[1]["mean"]) < 4 * error, name
        assert tables[0]["sd"] == pytest.approx(tables[1]["sd"], rel=0.2), name
