"""Reaction networks: densities, integrals by brute force, no spread, what data cannot tell, bad frames."""

import pickle
import re
from dataclasses import replace

import arviz as az
import numpy as np
import pandas as pd
import pytest
import xarray as xr
from scipy import stats
from scipy.special import lambertw, logsumexp
from scipy.stats import qmc

import hbm_zoo as hz
from hbm_zoo.diagnostics.reaction_networks import _functions as combinations_of
from hbm_zoo.diagnostics.reaction_networks import generalised
from hbm_zoo.frames.rules import FrameError, FrameWarning
from hbm_zoo.group_level.kinetics import Kinetics
from hbm_zoo.group_level.moving import top_by_nodes
from hbm_zoo.group_level.newton import modes
from hbm_zoo.group_level.proposal import standardised
from hbm_zoo.group_level.weighted import MultivariateNormal
from hbm_zoo.inference.nodes import with_nodes
from hbm_zoo.priors import moments
from hbm_zoo.workers import pickling

MODEL = hz.reaction_networks.MODEL
NAMES = ("k1", "km", "k2")
H = {"mu_k1": 0.1, "mu_km": -0.4, "mu_k2": -0.6, "omega_k1": 0.5, "omega_km": 0.3, "omega_k2": 0.4, "sigma": 0.05}
#: A module that shows B and C, one that shows C, and one that shows C once; a row that is there twice.
SMALL = pd.DataFrame(
    [
        ("rich", t, s, y)
        for t, b, c in [(0.5, 0.3, 0.1), (1, 0.36, 0.2), (3, 0.25, 0.6)]
        for s, y in [("B", b), ("C", c)]
    ]
    + [("sparse", t, "C", y) for t, y in [(1.0, 0.25), (2.0, 0.45), (2.0, 0.5), (6.0, 0.9)]]
    + [("once", 2.0, "C", 0.3)],
    columns=["module", "time", "species", "value"],
)


def motif(theta, t):
    """A, B and C of A <-> B -> C by the closed form [..., 3]."""
    k1, km, k2 = (np.exp(theta[..., k]) for k in range(3))
    S = k1 + km + k2
    d = np.sqrt(S**2 - 4 * k1 * k2)
    slow = (S - d) / 2
    bend = np.exp(-slow * t) * (1 - np.exp(-d * t)) / d
    B, C = k1 * bend, 1 - np.exp(-slow * t) - slow * bend
    return np.stack([1 - B - C, B, C], axis=-1)


def log_likelihood(theta, module, sigma=H["sigma"], frame=SMALL):
    """Of the rows of one module at log rates [..., rate]."""
    rows = frame[frame["module"] == module].itertuples()
    return sum(
        stats.norm(motif(theta, row.time)[..., "ABC".index(row.species)], sigma).logpdf(row.value) for row in rows
    )


def test_each_form_has_the_density_of_the_page():
    rng = np.random.default_rng(1)
    theta, z = rng.normal(-0.3, 0.4, (3, 3)), rng.normal(size=(3, 3))
    mu, omega = (np.array([H[f"{what}_{name}"] for name in NAMES]) for what in ("mu", "omega"))
    data = MODEL.data(SMALL)
    priors = MODEL.priors(data)
    T, Y = np.median(SMALL["time"]), np.median(SMALL["value"])
    of_mu = stats.norm(-np.log(T), 1.5).logpdf(mu).sum()
    of_omega, of_sigma = stats.halfnorm(scale=0.5).logpdf(omega).sum(), stats.halfnorm(scale=0.3 * Y).logpdf(0.05)
    of_theta = sum(
        stats.norm(m, np.sqrt(v)).logpdf(theta[:, k]).sum()
        for k, (m, v) in enumerate(moments(f"theta_{name}", priors[f"theta_{name}"]) for name in NAMES)
    )
    modules = data["module"].values
    forms = {
        ("none", "centered"): (theta, of_theta + of_sigma),
        ("complete", "centered"): (np.tile(mu, (3, 1)), of_mu + of_sigma),
        ("partial", "noncentered"): (mu + omega * z, of_mu + of_omega + of_sigma + stats.norm.logpdf(z).sum()),
    }
    values = H | {f"theta_{name}": theta[:, k] for k, name in enumerate(NAMES)} | {"z": z}
    for (pooling, form), (of_modules, total) in forms.items():
        model = MODEL.build(SMALL, pooling, form)
        total += sum(log_likelihood(of_modules[j], module) for j, module in enumerate(modules))
        point = {v.name: np.asarray(_on_line(v.name, values)) for v in model.value_vars}
        found = float(model.compile_logp(jacobian=False, mode="AS_WRITTEN")(point))
        assert found == pytest.approx(total, rel=1e-8), (pooling, form)


def _on_line(name, values):
    return np.log(values[name.removesuffix("_log__")]) if name.endswith("_log__") else values[name]


@pytest.fixture(scope="module")
def seen():
    """The small frame with nodes around a rough fit."""
    data = MODEL.data(SMALL)
    return with_nodes(MODEL, data, MODEL.priors(data), 1, xr.Dataset(H).expand_dims(sample=1))


def brute_force(module, h, power=17):
    """Log p(y_j | h) and its error over randomised quasi-Monte Carlo points of the population, by eight parts."""
    mu, omega = (np.array([h[f"{what}_{name}"] for name in NAMES]) for what in ("mu", "omega"))
    each = []
    for seed in range(8):
        z = stats.norm.ppf(qmc.Sobol(3, rng=seed).random_base2(power - 3))
        each.append(logsumexp(log_likelihood(mu + omega * z, module, h["sigma"])) - np.log(len(z)))
    shares = np.exp(np.array(each) - max(each))
    return max(each) + np.log(shares.mean()), shares.std(ddof=1) / shares.mean() / np.sqrt(8)


@pytest.mark.parametrize("module", ["rich", "sparse", "once"])
@pytest.mark.parametrize("spread", [1.0, 0.2, 0.02])
def test_integrals_over_modules_are_brute_force(seen, module, spread):
    """With many rows, few and one; at spreads for which nodes stay, and for which they move."""
    h = H | {name: spread * value for name, value in H.items() if name.startswith("omega")}
    exact, error = brute_force(module, h)
    j = list(seen["module"].values).index(module)
    known = MODEL.group_level.log_left_out.__self__.integrate(xr.Dataset(h), seen).isel(module=j)
    assert abs(float(known.log_marginal) - exact) < 4 * np.hypot(error, float(known.error)) + 1e-4
    assert float(known.error) < 0.15
    assert error < 0.02


def test_nodes_that_move_lie_where_those_of_the_fit_have_the_likelihood(seen):
    """Around the top that is looked for, within its width; and somewhere for hyperparameters that are no numbers."""
    cloud = MODEL.group_level.log_left_out.__self__
    h = {name: [value, 0.1 * value, 1e200, np.nan] if name == "omega_km" else [value] * 4 for name, value in H.items()}
    h, one = xr.Dataset({name: ("state", value) for name, value in h.items()}), seen.isel(module=[0])
    h["sigma"] = H["sigma"]  # one for all states
    population = cloud.population(h).over(h.state).over(xr.ones_like(one.seed, dtype=float))
    mode, curvature = top_by_nodes(cloud.log_density(one.predicted, h, one), population, one)
    assert np.isfinite(mode).all()
    assert np.isfinite(curvature).all()
    some, few = h.isel(state=[0, 1]), population.mean.isel(state=[0, 1])
    log_f = standardised(
        lambda theta: cloud.log_density(cloud.predict(theta, one), some, one),
        MultivariateNormal(few, population.cholesky.isel(state=[0, 1])),
        "state",
    )
    exact, sharp = modes(log_f, np.zeros((2, 3)), 0.01)
    away = np.einsum("si,sij,sj->s", mode[:2] - exact, sharp, mode[:2] - exact)
    assert (away < 4).all()
    ratio = np.linalg.slogdet(curvature[:2])[1] - np.linalg.slogdet(sharp)[1]
    assert (abs(ratio) < 2).all()


def test_without_spread_every_module_has_the_typical_rates(seen):
    h = H | {name: 0.0 for name in H if name.startswith("omega")}
    found = MODEL.group_level.log_left_out(xr.Dataset(h).expand_dims(sample=2), seen)
    mu = np.array([h[f"mu_{name}"] for name in NAMES])
    for j, module in enumerate(seen["module"].values):
        np.testing.assert_allclose(found.isel(module=j), log_likelihood(mu, module), rtol=1e-10)


def test_the_sampler_s_density_is_that_of_the_fixed_nodes(seen):
    model = MODEL.write(seen, "partial", "marginalized", MODEL.priors(seen, pooling="partial"))
    point = {v.name: np.asarray(_on_line(v.name, H)) for v in model.value_vars}
    found = float(model.compile_logp(vars=model.observed_RVs, mode="AS_WRITTEN")(point))
    assert found == pytest.approx(float(MODEL.group_level.log_sampled(xr.Dataset(H), seen)), rel=1e-8)


def test_a_row_left_out_is_brute_force(seen):
    """p(y_i | the other rows of its module) is a ratio of two integrals."""
    h = xr.Dataset(H).expand_dims(sample=1)
    found = MODEL.group_level.leave_row_out(h, seen, np.arange(len(SMALL)))
    for i, module in enumerate(SMALL["module"]):
        without = SMALL.drop(index=i)
        z = stats.norm.ppf(qmc.Sobol(3, rng=5).random_base2(16))
        theta = np.array([H[f"mu_{n}"] for n in NAMES]) + np.array([H[f"omega_{n}"] for n in NAMES]) * z
        of_all, of_others = (logsumexp(log_likelihood(theta, module, frame=f) + 0 * z[:, 0]) for f in (SMALL, without))
        assert abs(float(found.isel(observation=i).item()) - (of_all - of_others)) < 0.12, i


def test_without_a_row_the_data_are_those_of_the_others(seen):
    for i in (0, 7, 9):
        others = MODEL.group_level.without_row(seen, i)
        frame = SMALL.drop(index=i)
        if len(others["module"]) == frame["module"].nunique():
            again = MODEL.data(frame)
            for name in ("within", "value"):
                np.testing.assert_allclose(others[name], again[name], atol=1e-12)
        theta = xr.DataArray(np.zeros((3, 3)), dims=("module", "coefficient"))
        found = MODEL.group_level.log_likelihood(theta, xr.Dataset(H), others)
        exact = [log_likelihood(np.zeros(3), module, frame=frame) for module in seen["module"].values]
        np.testing.assert_allclose(found, exact, atol=1e-9)


def test_hours_or_seconds_and_grams_or_milligrams_give_the_same_prior_of_what_is_seen():
    slow = SMALL.assign(time=3600 * SMALL["time"], value=1000 * SMALL["value"])
    here, there = MODEL.data(SMALL), MODEL.data(slow, start="A=1000")
    for name in NAMES:
        apart = MODEL.priors(here)[f"mu_{name}"].parameters["mu"] - MODEL.priors(there)[f"mu_{name}"].parameters["mu"]
        assert apart == pytest.approx(np.log(3600))
    assert MODEL.priors(there)["sigma"].parameters["sigma"] == pytest.approx(
        1000 * MODEL.priors(here)["sigma"].parameters["sigma"]
    )


def test_own_estimates_are_least_squares_where_there_is_a_least():
    frame, truth = MODEL.simulate(np.random.default_rng(3), modules=4, rich=2, sigma=1e-5)
    own = MODEL.own(MODEL.data(frame))
    np.testing.assert_allclose(own[:2], truth.theta[:2], atol=0.01)
    assert np.isnan(own[2:]).all()  # C alone: k1 and k2 may be exchanged, and more


def test_that_no_module_tells_the_rates_is_said_before_the_fit():
    only_c = SMALL[SMALL["species"] == "C"]
    with pytest.warns(FrameWarning, match=r"tell 2 functions of the 3 rates k1, km and k2.*no module shows A or B"):
        MODEL.data(only_c)
    MODEL.data(SMALL)


@pytest.mark.parametrize(
    ("frame", "network", "said"),
    [
        (SMALL.assign(time=1.0), None, r"each at these times: at others there would be 3\. However many .* so, only"),
        (SMALL[SMALL["species"] == "C"].assign(time=2.0), None, "1 function .* would be 2; no module shows A or B"),
        (
            SMALL,
            "A -> B; A -> B; B -> C",
            r"and not each\. However many .* so, and however long, only",
        ),
    ],
)
def test_what_would_tell_the_rates_is_named_and_nothing_else(frame, network, said):
    """More times, or a species; never a species that would tell nothing."""
    record = MODEL if network is None else MODEL.under(network=network)
    with pytest.warns(FrameWarning, match=said):
        record.data(frame)


NETWORK = "A -> B : ka; B -> C : kb; A -> D : kd"


def test_pictures_show_the_last_species_that_was_measured():
    """Of a chamber the air is seen, which is not the last of its species."""
    rich = SMALL[SMALL["species"] == "B"]
    only_b = MODEL.data(pd.concat([rich, rich.assign(module="another")], ignore_index=True))
    of, time, value = MODEL.extras.curve.rows(only_b)
    assert len(of) == len(time) == len(value) == 2 * len(rich)
    theta = xr.DataArray(np.log([1.0, 0.6, 0.5]), dims="coefficient")
    times = xr.DataArray([0.5, 2.0], dims="x")
    shown = MODEL.extras.curve.at(theta, times, only_b)
    at_times = only_b.drop_dims(["instant", "observation"]).assign(time=times.rename(x="instant"))
    network = hz.reaction_networks.network("A <-> B; B -> C")
    np.testing.assert_allclose(shown, Kinetics(network).expected(theta, at_times).sel(species="B"))


def test_another_network_is_another_record():
    record = MODEL.under(network=NETWORK)
    assert [name for name in record.parameters if name.startswith("mu_")] == ["mu_ka", "mu_kb", "mu_kd"]
    assert record is MODEL.under(network=" A->B:ka;B -> C : kb ; A -> D : kd")
    assert MODEL.under(network="A<->B;B->C") is MODEL
    frame, truth = record.simulate(np.random.default_rng(1), modules=3, rich=1)
    data = record.data(frame)
    theta = truth.theta
    found = record.group_level.log_likelihood(theta, truth, data)
    assert np.isfinite(found).all()
    assert record.location == "mu_ka"


SATURATED = "B -> C : mm(V, K)"
ENZYME = pd.DataFrame(
    [("first", t, "B", y) for t, y in [(0.5, 0.75), (1.0, 0.55), (2.0, 0.2)]]
    + [("second", t, "C", y) for t, y in [(1.0, 0.3), (3.0, 0.8)]],
    columns=["module", "time", "species", "value"],
)


def by_lambert(theta, t):
    """B and C of saturation alone, by Lambert's W (Schnell & Mendoza 1997) [..., 2]."""
    V, K = (np.exp(theta[..., k]) for k in range(2))
    B = (K * lambertw(np.exp((1 - V * t) / K) / K)).real
    return np.stack([B, 1 - B], axis=-1)


@pytest.mark.parametrize("spread", [1.0, 0.02, 0.0])
def test_integrals_over_enzymes_are_brute_force(spread):
    """Nodes that stay, nodes that move, and no spread, against the closed form at 2^14 points of the population."""
    record = MODEL.under(network=SATURATED)
    h = {"mu_V": -0.4, "mu_K": -0.8, "omega_V": 0.4 * spread, "omega_K": 0.6 * spread, "sigma": 0.05}
    data = record.data(ENZYME)
    pilot = xr.Dataset(h | {"omega_V": 0.4, "omega_K": 0.6}).expand_dims(sample=1)
    seen = with_nodes(record, data, record.priors(data), 1, pilot)
    z = stats.norm.ppf(qmc.Sobol(2, rng=3).random_base2(14))
    theta = np.array([-0.4, -0.8]) + np.array([h["omega_V"], h["omega_K"]]) * z
    known = record.group_level.log_left_out.__self__.integrate(xr.Dataset(h), seen)
    for j, (module, rows) in enumerate(ENZYME.groupby("module")):
        each = sum(
            stats.norm(by_lambert(theta, row.time)[..., "BC".index(row.species)], 0.05).logpdf(row.value)
            for row in rows.itertuples()
        )
        exact, found = logsumexp(each) - np.log(len(z)), known.isel(module=j)
        assert abs(float(found.log_marginal) - exact) < 4 * float(found.error) + 0.01, module
        assert float(found.error) < 0.1


def test_saturation_has_priors_in_the_units_of_the_data():
    record = MODEL.under(network=SATURATED)
    slow = ENZYME.assign(time=3600 * ENZYME["time"], value=1000 * ENZYME["value"])
    here, there = record.data(ENZYME), record.data(slow, start="B=1000")
    of = {name: [record.priors(d)[f"mu_{name}"].parameters["mu"] for d in (here, there)] for name in ("V", "K")}
    assert of["V"][1] - of["V"][0] == pytest.approx(np.log(1000 / 3600))
    assert of["K"][1] - of["K"][0] == pytest.approx(np.log(1000))


def decay(t, state, rates):
    """Only the product of two rates shows."""
    A, B = state
    a, b = rates
    return -a * b * A, a * b * A


def exploding(t, state, rates):
    return 1e3 * state[0] ** 2 * rates[0], 0 * state[1]


DECAY = ENZYME.assign(species=ENZYME["species"].map({"B": "A", "C": "B"}))


def test_that_equations_do_not_tell_their_rates_is_said_before_the_fit():
    own = hz.reaction_networks.equations(decay, species=["A", "B"], rates=["a", "b"])
    with pytest.warns(FrameWarning, match="tell 1 function of the 2 rates a and b, and not each"):
        MODEL.under(network=own).data(DECAY)


def blowing_up(t, state, rates):
    return 0.05 * state[0] ** 2 * rates[0], rates[0] - 0 * state[1]


def test_of_equations_that_have_no_solution_at_fast_rates_no_unit_is_doubted():
    """At typical rates they have one; what there may be at others nobody knows."""
    own = hz.reaction_networks.equations(blowing_up, species=["A", "B"], rates=["a"])
    MODEL.under(network=own).data(DECAY.assign(value=1e6 * DECAY["value"]))


def test_equations_without_a_solution_are_refused():
    own = hz.reaction_networks.equations(exploding, species=["A", "B"], rates=["a"])
    with pytest.raises(FrameError, match="at typical rates.*no solution of amounts"):
        MODEL.under(network=own).data(DECAY)


def test_a_fit_knows_equations_by_their_text():
    own = hz.reaction_networks.equations(decay, species=["A", "B"], rates=["a", "b"])
    record = MODEL.under(network=own)
    assert MODEL.under(network=own.text) is record
    (_, travels), again = pickling._by_name(record), MODEL.under(network=pickle.loads(pickle.dumps(own)))
    assert travels == (MODEL.name, {"network": own})
    assert again is record
    with pytest.raises(ValueError, match=r"a function of one's own.*hz.reaction_networks.equations first"):
        MODEL.under(network="decay of A, B by a, b #01234567")
    with pytest.raises(ValueError, match=r"equations\(decay, species=\[...\], rates=\[...\]\)"):
        MODEL.under(network=decay)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::hbm_zoo.inference.convergence.ConvergenceWarning")  # a divergence of chains
def test_both_forms_have_one_posterior():
    """Modules integrated out, and modules by NUTS: four modules whose species are all seen."""
    frame, _ = MODEL.simulate(np.random.default_rng(2), modules=4, rich=4, times=(0.5, 1.0, 2.0, 4.0, 8.0))
    hidden = hz.fit("reaction_networks", frame, random_seed=3, progressbar=False)
    sampler = {"draws": 500, "tune": 500, "chains": 2, "target_accept": 0.99, "random_seed": 3, "progressbar": False}
    visible = hz.fit("reaction_networks", frame, parameterization="noncentered", **sampler)
    names = [*H]
    tables = [az.summary(fit["posterior"].dataset[names], round_to="none") for fit in (hidden, visible)]
    off, error = tables[0]["mean"] - tables[1]["mean"], np.hypot(tables[0]["mcse_mean"], tables[1]["mcse_mean"])
    assert (abs(off) < 4 * error).all(), off / error
    assert tables[0]["sd"].to_numpy() == pytest.approx(tables[1]["sd"].to_numpy(), rel=0.2)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:.*no solution of amounts:RuntimeWarning")  # rates e^17 from typical ones are tried
def test_an_enzyme_is_fitted_and_its_equations_are_the_same():
    """Three modules; the same network by hand has the same draws."""
    frame, truth = MODEL.under(network=SATURATED).simulate(np.random.default_rng(5), modules=3, rich=3, sigma=0.01)

    def by_hand(t, state, rates):
        speed = rates[0] * state[0] / (rates[1] + state[0])
        return -speed, speed

    T = frame["time"].median()
    own = hz.reaction_networks.equations(by_hand, species=["B", "C"], rates={"V": 1 / T, "K": 1.0})
    how = {"random_seed": 1, "progressbar": False, "draws": 100}
    fits = [hz.fit(MODEL, frame, network=which, **how) for which in (SATURATED, own)]
    means, sds = (fits[0]["group_summary"].dataset[name] for name in ("mean", "sd"))
    assert (abs(means - truth.theta) < 4 * sds).all()
    np.testing.assert_allclose(means, fits[1]["group_summary"].dataset["mean"], atol=0.2 * float(sds.min()))


INITIAL = pd.DataFrame({"module": ["rich", "once"], "species": ["A", "B"], "amount": [2.0, 0.5]})


def test_modules_begin_with_amounts_of_their_own():
    """Twice as much of all is twice as much; other modules begin as ``start`` has it; the fit keeps the frame."""
    data = MODEL.data(SMALL, start="A=1", initial=INITIAL)
    assert data.start.sel(module="rich").values.tolist() == [2, 0, 0]
    assert data.start.sel(module="sparse").values.tolist() == [1, 0, 0]
    assert data.start.sel(module="once").values.tolist() == [1, 0.5, 0]
    assert data["initial.amount"].values.tolist() == [2, 0.5]
    theta, time = xr.DataArray([0.1, -0.4, -0.6], dims="coefficient"), xr.DataArray([1.0, 3.0], dims="x")
    of_product, usual = (MODEL.extras.curve.at(theta, time, each) for each in (data, MODEL.data(SMALL)))
    np.testing.assert_allclose(of_product.sel(module="rich"), 2 * usual.sel(module="rich"), rtol=1e-12)


def test_a_known_input_is_a_species_that_does_not_change():
    """A flow out of vessels of two volumes."""

    def flow(t, state, rates):
        volume, amount = state
        return 0 * volume, -rates[0] * amount / volume

    own = hz.reaction_networks.equations(flow, species=["volume", "S"], rates=["q"])
    rows = [(vessel, t, "S", 1.0) for vessel in ("small", "large") for t in (0.5, 1.0)]
    frame = pd.DataFrame(rows, columns=["module", "time", "species", "value"])
    volumes = pd.DataFrame({"module": ["small", "large"], "species": "volume", "amount": [1.0, 5.0]})
    record = MODEL.under(network=own)
    data = record.data(frame, start="S=2", initial=volumes)
    theta, time = xr.DataArray([np.log(0.7)], dims="coefficient"), xr.DataArray([0.5, 2.0], dims="x")
    found = record.extras.curve.at(theta, time, data)
    exact = 2 * np.exp(-0.7 * time / xr.DataArray([1.0, 5.0], dims="module"))
    np.testing.assert_allclose(found.transpose(*exact.dims), exact, atol=1e-4)


@pytest.mark.parametrize(
    ("initial", "options", "said"),
    [
        (INITIAL.assign(species="X"), {}, "'initial', column 'species'.*'X'"),
        (INITIAL.assign(amount=-1.0), {}, "'initial'.*'amount'.*0 or above"),
        (INITIAL.drop(columns="amount"), {}, "'initial'.*amount"),
        (pd.concat([INITIAL, INITIAL], ignore_index=True), {}, "'initial': species A of module rich is there twice"),
        (INITIAL, {}, "'initial': module sparse has nothing of any species at time 0"),
        (INITIAL.assign(module=["rihc", "once"]), {"start": "A=1"}, "module in 'initial'.*'rihc'.*'rich'"),
        (INITIAL.assign(module=["rihc", "once"]), {}, "module in 'initial'.*'rihc'.*'rich'"),
        (INITIAL.assign(amount=0.0), {"start": "A=0"}, "some amount at time 0"),
    ],
)
def test_bad_beginnings_are_refused_in_words(initial, options, said):
    with pytest.raises(FrameError, match=said):
        MODEL.data(SMALL, initial=initial, **options)


def test_beginnings_know_modules_under_any_spelling():
    numbered = SMALL.assign(module=pd.factorize(SMALL["module"])[0])
    amounts = pd.DataFrame({"module": map(str, range(numbered["module"].nunique())), "species": "A", "amount": 2.0})
    assert (MODEL.data(numbered, initial=amounts).start.sel(species="A") == 2).all()


def test_rows_of_some_modules_take_their_beginnings_from_all():
    """As rows to predict do, with what was given of the modules of a fit."""
    amounts = pd.DataFrame({"module": [*SMALL["module"].unique(), "another"], "species": "A", "amount": 2.0})
    assert (MODEL.prepared(SMALL, initial=amounts).start.sel(species="A") == 2).all()
    with pytest.raises(FrameError, match="module in 'initial' 'another'"):
        MODEL.data(SMALL, initial=amounts)


def test_values_of_another_unit_or_sign_are_said():
    with pytest.warns(FrameWarning, match="The largest value is .* of all that there is at time 0.*give start"):
        MODEL.data(SMALL.assign(value=SMALL["value"] * 1e-6))
    negative = SMALL.assign(value=np.where(SMALL.index == 0, 0.1, -SMALL["value"]))
    with pytest.warns(FrameWarning, match="% of the values are below 0, where no amount is"):
        MODEL.data(negative)
    own = MODEL.under(network=hz.reaction_networks.equations(decay, species=["A", "B"], rates=["a", "b"]))
    for factor in (1e-5, 1e5):
        with pytest.warns(FrameWarning) as told:
            own.data(DECAY.assign(value=factor * DECAY["value"]))
        assert any("times that of the solution at typical rates" in str(each.message) for each in told)
    # Of what grows, a large amount may be a rate that is somewhat larger.
    MODEL.under(network="A -> 2 B; B -> A").data(DECAY.assign(value=1e4 * DECAY["value"]))


def changed(**columns):
    """The small frame with another value in its third row."""
    frame = SMALL.copy().astype({"value": object, "time": object})
    for name, value in columns.items():
        frame.loc[2, name] = value
    return frame


@pytest.mark.parametrize(
    ("frame", "options", "said"),
    [
        (changed(time=-1.0), {}, "'time'.*a finite number, 0 or above"),
        (changed(time=np.nan), {}, "'time'.*a finite number"),
        (changed(value="much"), {}, "'value'.*a finite number"),
        (changed(value=np.inf), {}, "'value'.*a finite number"),
        (changed(species="BB"), {}, "'species', row 2.*'BB'.*A, B, C"),
        (changed(module=None), {}, "'module'.*a label"),
        (SMALL.drop(columns="species"), {}, "species"),
        (SMALL.assign(time=0.0), {}, "'time' expected rows after time 0"),
        (SMALL.assign(value=0.0), {}, "'value' expected values above 0"),
        (SMALL.assign(value=1000 * SMALL["value"]), {}, "times all that there is at time 0"),
        (
            SMALL.assign(value=1000 * SMALL["value"]),
            {"network": "A <-> B; B -> C; B -> 0"},
            "times all that there is at time 0",
        ),
        (SMALL[SMALL["module"] == "rich"], {}, "at least 2 modules"),
        (SMALL, {"start": "A"}, "expected start as 'A=1, B=0.2'"),
        (SMALL, {"start": "A=1, A=2"}, "each species once, got A twice"),
        (SMALL, {"start": {"A": 1}}, r"start as text, .* got {'A': 1}"),
        (SMALL, {"start": "X=1"}, "species in start.*'X'"),
        (SMALL, {"start": "A=-1"}, "amounts at time 0 of 0 or above"),
        (SMALL, {"start": "A=0"}, "some amount at time 0"),
        (SMALL, {"network": "A -> B -> C"}, "one arrow"),
        (SMALL, {"network": 3}, "A network is written as"),
        (SMALL, {"netwrok": "A -> B"}, "network"),
    ],
)
def test_bad_input_is_refused_in_words(frame, options, said):
    with pytest.raises((FrameError, ValueError), match=said):
        MODEL.build(frame, **options)


def test_a_silent_module_is_named():
    silent = pd.concat([SMALL, pd.DataFrame([("silent", 0.0, "C", 0.01)], columns=SMALL.columns)], ignore_index=True)
    with pytest.warns(FrameWarning, match="Module silent has no row after time 0"):
        MODEL.data(silent)


# What a module's own data and the others tell.


@pytest.fixture(scope="module")
def fit():
    """Three modules, one of them richly seen."""
    frame, _ = MODEL.simulate(np.random.default_rng(5), modules=3, rich=1)
    return hz.fit(MODEL, frame, "partial", draws=100, random_seed=1, progressbar=False)


@pytest.mark.slow
def test_rates_are_known_from_oneself_and_from_others(fit):
    table = hz.reaction_networks.identifiability(fit)
    rates = table.loc[[name for name in table.index if name[1] in NAMES]]
    prior = np.sqrt(1.5**2 + 0.5**2)
    assert rates["prior"].to_numpy() == pytest.approx(prior, rel=1e-2)
    assert (table[["others", "alone", "all"]].max(axis=1) < 1.1 * table["prior"] + 0.3).all()
    rich, sparse = table.loc["M01"], table.loc["M03"]
    assert rich.loc["k2", "alone"] < 0.2 < sparse.loc["k2", "alone"]
    # C alone knows k1 k2 better than k1.
    assert sparse.loc["k1 * k2", "alone"] < 0.7 * sparse.loc["k1", "alone"]
    assert (table["all"] < 1.05 * table["alone"]).all()
    assert (table["mcse"] < 0.2 * table["all"]).all()
    only = hz.reaction_networks.identifiability(fit, ["k1 * k2 / km"])
    assert only.index.get_level_values("function").unique().tolist() == ["k1 * k2 / km"]
    assert only["prior"].to_numpy() == pytest.approx(np.sqrt(3) * prior, rel=1e-2)


@pytest.mark.slow
def test_others_are_of_a_fit_without_the_module_where_weights_are_in_doubt(fit, monkeypatch):
    """And are the same where they are not: both by 400 draws or more."""
    table = hz.reaction_networks.identifiability(fit, ["k1", "k2"])
    assert table[["others", "from_others"]].notna().all(axis=None)
    monkeypatch.setattr("hbm_zoo.diagnostics.reaction_networks.k_hat_threshold", lambda draws: -np.inf)
    refitted = hz.reaction_networks.identifiability(fit, ["k1", "k2"])
    assert refitted["others"].to_numpy() == pytest.approx(table["others"].to_numpy(), rel=0.2)
    pd.testing.assert_series_equal(refitted["k_hat"], table["k_hat"])


def test_weights_of_a_direction_make_the_sum_of_which_so_much_is_left():
    """Spreads that differ tenfold: w V w over w Omega w is what is left, and no sum has less."""
    rng, spread = np.random.default_rng(1), np.array([1.0, 0.3, 0.1])
    root = rng.standard_normal((3, 3)) * spread[:, None]
    V, Omega = root @ root.T / 5, np.diag(spread**2)
    left, along = generalised(V, spread)
    ratio = [(w @ V @ w) / (w @ Omega @ w) for w in (*along, *rng.standard_normal((2000, 3)) / spread)]
    np.testing.assert_allclose(ratio[:3], left)
    assert left[0] <= min(ratio) + 1e-12
    assert left[2] >= max(ratio) - 1e-12


@pytest.mark.slow
def test_directions_are_of_ordered_rates_where_the_product_alone_is_seen(fit):
    table = hz.reaction_networks.directions(fit)
    assert (table.loc["M01", "ordered"] == "").all()
    assert (table.loc["M03", "ordered"] == "k1 > k2").all()
    for module in ("M01", "M03"):
        assert table.loc[module, "left"].is_monotonic_increasing
    assert table.loc["M01", "left"].iloc[0] < 0.05


@pytest.mark.slow
def test_the_smallest_spread_that_nodes_resolve_is_reported(fit):
    """Nodes that were made once fail as spreads go to 0; where they hold, the likelihood is that of brute force."""
    table = hz.reaction_networks.resolution(fit)
    assert table["resolved"].iloc[0]
    assert not table["resolved"].iloc[-2:].any()
    assert table["resolved"].is_monotonic_decreasing
    assert (abs(table.loc[table["resolved"], "off"]) <= 1).all()
    assert table["error"].max() < 0.6


@pytest.mark.parametrize("text", ["k1 + km * k2", "k9"])
def test_a_combination_that_cannot_be_read_is_refused(text):
    with pytest.raises(ValueError, match=re.escape(text)):
        combinations_of([*NAMES], [text])


def smallest(modules=3, seed=1):
    """A <-> B where both are seen: two rates, few rows."""
    record = MODEL.under(network="A <-> B")
    times = (0.5, 1.5, 4.0)
    frame, _ = record.simulate(np.random.default_rng(seed), modules=modules, rich=modules, times=times, sigma=0.05)
    return record, frame


@pytest.mark.slow
def test_a_module_left_out_is_a_refit_without_it():
    """Its density under a fit of the others, against importance sampling from the fit of all."""
    record, frame = smallest(6)
    how = {"random_seed": 1, "progressbar": False, "network": "A <-> B", "draws": 500}
    priors = record.priors(record.data(frame), pooling="partial")
    of_all = hz.fit(MODEL, frame, priors=priors, **how)["group_summary"].dataset
    for j, module in enumerate(of_all["module"].values[:3]):
        others = hz.fit(MODEL, frame[frame["module"] != module], priors=priors, **how)
        h = others["posterior"].dataset[[*record.parameters]].stack(sample=("chain", "draw"), create_index=False)
        data = record.data(frame)
        seen = with_nodes(record, data, priors, 2, h).isel(module=[j])
        log_m = record.group_level.log_left_out(h, seen).isel(module=0).values
        exact = logsumexp(log_m) - np.log(log_m.size)
        w = np.exp(log_m - exact)
        error = np.hypot(w.std() / np.sqrt(0.5 * w.size), float(of_all.elpd_mcse[j]))
        assert abs(float(of_all.elpd[j]) - exact) < 4 * error + 0.02, module
        assert error < 0.25


CALIBRATED = {"draws": 100, "random_seed": 1, "progressbar": False}


def chain():
    """A -> B -> C, all seen five times in three modules: two rates that data tell, so that draws are independent."""
    record = MODEL.under(network="A -> B; B -> C")
    times = (0.25, 0.5, 1.0, 2.0, 4.0)
    return record, record.simulate(np.random.default_rng(1), modules=3, rich=3, times=times, sigma=0.05)[0]


@pytest.mark.slow
def test_a_small_network_is_calibrated():
    """200 simulations of three modules."""
    _, frame = chain()
    result = hz.calibrate(MODEL, frame, network="A -> B; B -> C", simulations=200, **CALIBRATED)
    assert result.table["p_holm"].min() > 0.01, result.table


@pytest.mark.slow
def test_calibration_sees_modules_that_were_watched_twice_as_long():
    """Truths of rows at twice the time, fitted as if at theirs."""
    record, frame = chain()

    def replicate(rng, theta, h, new, seen):
        late = new.assign(time=2 * new.time)
        return record.group_level.replicate(rng, theta, h, late, late)

    fast = replace(record, group_level=replace(record.group_level, replicate=replicate))
    assert hz.calibrate(fast, frame, simulations=50, **CALIBRATED).table["p_holm"].min() < 0.01
