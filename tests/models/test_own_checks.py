"""What models check of themselves: against dense matrices and SciPy, and faults that they see; no sampling."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import xarray as xr
from scipy import stats

import hbm_zoo as hz
from hbm_zoo.group_level import contrasts
from hbm_zoo.group_level.kinetics import Kinetics
from hbm_zoo.group_level.network import network
from hbm_zoo.group_level.routes import ORAL
from hbm_zoo.inference.nodes import with_nodes
from hbm_zoo.models import network_checks, patient_checks, rig_checks
from hbm_zoo.models.batch_checks import OF_BATCHES
from hbm_zoo.models.relative_checks import OF_RELATIVES, given_others

SIMULATED = 45


def sees(check, right, wrong, among=1):
    """Whether a statistic of some data lies beyond those of right ones, by Bonferroni's rule over checks; two-sided."""
    drawn = np.array([check.statistic(None, data, None) for data in right])
    seen = check.statistic(None, wrong, None)
    p = 2 * min((1 + (drawn >= seen).sum()), (1 + (drawn <= seen).sum())) / (1 + drawn.size)
    return among * p < 0.05


# Batches within campaigns.


def test_batches_whose_means_are_the_same_are_no_misfit_but_are_said(recwarn):
    """Deviations from each batch's mean have scores that differ by rounding alone: no kurtosis is known of them."""
    frame, _ = hz.material_batches.MODEL.simulate(np.random.default_rng(1), campaigns=2)
    of = frame.groupby(["campaign", "batch"])["strength"]
    hz.material_batches.MODEL.data(frame.assign(strength=frame["strength"] - of.transform("mean") + 100))
    assert any("The means of all batches are the same" in str(each.message) for each in recwarn)


@pytest.fixture(scope="module")
def batches():
    frame, _ = hz.material_batches.MODEL.simulate(np.random.default_rng(1), campaigns=5)
    return frame, hz.material_batches.MODEL.data(frame)


@pytest.mark.parametrize(("sigma_c", "sigma_b"), [(8.0, 6.0), (0.0, 6.0), (8.0, 0.0), (0.0, 0.0)])
def test_what_others_expect_of_a_batch_is_that_of_a_dense_covariance(batches, sigma_c, sigma_b):
    _, data = batches
    h = xr.Dataset({"mu": 498.0, "sigma_c": sigma_c, "sigma_b": sigma_b, "sigma": 10.0})
    lower, upper = hz.material_batches.MODEL.group_level.tails(h, data)
    same = data.member.values @ data.member.values.T
    K = sigma_c**2 * same + np.diag(sigma_b**2 + 100.0 / data.n.values)
    away = np.linalg.solve(K, data.y_bar.values - 498.0)
    scores = away / np.sqrt(np.diag(np.linalg.inv(K)))  # of each given all others
    np.testing.assert_allclose(lower, stats.norm.cdf(scores), rtol=1e-9)
    np.testing.assert_allclose(upper, stats.norm.sf(scores), rtol=1e-9)


def test_scores_of_campaigns_are_those_of_generalised_least_squares(batches):
    _, data = batches
    h = xr.Dataset({"mu": 498.0, "sigma_c": 8.0, "sigma_b": 6.0, "sigma": 10.0})
    weight = 1 / (36.0 + 100.0 / data.n.values)
    of = data.family.values
    W, total = np.bincount(of, weight), np.bincount(of, weight * data.y_bar.values)
    scores = (total / W - 498.0) / np.sqrt(64.0 + 1 / W)
    expected = stats.kurtosis(scores, fisher=False)
    assert OF_BATCHES["tails of campaigns"].statistic(h, data, None) == pytest.approx(expected, rel=1e-9)


def test_drift_is_a_partial_correlation(batches):
    """Given the campaign: of residuals from dummies of the campaigns."""
    _, data = batches
    dummies = data.member.values
    hat = dummies @ np.linalg.pinv(dummies)
    order, mean = (v - hat @ v for v in (np.arange(data.sizes["batch"], dtype=float), data.y_bar.values))
    assert OF_BATCHES["drift"].statistic(None, data, None) == pytest.approx(np.corrcoef(order, mean)[0, 1], rel=1e-9)


def test_a_frame_of_one_batch_or_one_specimen_each_has_nothing_to_say():
    one = pd.DataFrame({"batch": ["a"] * 3, "strength": [1.0, 2.0, 4.0]})
    each = pd.DataFrame({"batch": list("abc"), "strength": [1.0, 2.0, 4.0]})
    data, alone = (hz.material_batches.MODEL.prepare(frame) for frame in (one, each))
    assert OF_BATCHES["drift"].statistic(None, data, None) == 0.0
    assert OF_BATCHES["equal variances"].statistic(None, data, None) == 0.0
    assert OF_BATCHES["tails of specimens"].statistic(None, alone, None) == 0.0


def test_faults_of_batches_are_seen():
    rng, model = np.random.default_rng(2), hz.material_batches.MODEL
    frame, _ = model.simulate(rng, campaigns=6, batches=(5, 5), specimens=(6, 6))
    batch = np.repeat(np.arange(30), 6)

    def of(theta, noise):
        return model.data(frame.assign(strength=theta[batch] + noise))

    def plain():
        return 500 + 6 * rng.standard_normal(30)

    right = [of(plain(), rng.normal(0, 10, 180)) for _ in range(SIMULATED)]
    wrong = {
        "drift": of(plain() + 4 * (np.arange(30) % 5), rng.normal(0, 10, 180)),
        "equal variances": of(plain(), rng.normal(0, 10 * np.exp(0.7 * rng.standard_normal(30))[batch])),
        "tails of specimens": of(plain(), 7 * rng.standard_t(3, 180)),
    }
    for name, data in wrong.items():
        assert sees(OF_BATCHES[name], right, data)
        assert not sees(OF_BATCHES[name], right[1:], right[0], len(wrong))


# Relatives.


@pytest.fixture(scope="module")
def relatives():
    frame, _ = hz.variance_components.MODEL.simulate(np.random.default_rng(3), sites=2, sires=(5, 7), offspring=(4, 6))
    frame["block"] = np.where(np.arange(len(frame)) % 2, "north", "south")
    return frame, hz.variance_components.MODEL.data(frame, fixed_effects="block")


def test_rows_given_others_are_those_of_a_dense_covariance(relatives):
    frame, data = relatives
    found, expected = given_others(data)
    done = 0
    for site, of in frame.groupby("site", sort=False):
        j = list(data.site.values).index(site)
        used = data.n.values[j] > 0
        sigma_A, sigma_E, _ = contrasts.restricted_maximum(*(data[k].values[j, used] for k in ("d", "n", "SS")))
        sire = of["sire"].to_numpy()
        K = np.where(sire[:, None] == sire, 0.25, 0.0) + 0.75 * np.eye(len(of))
        V = sigma_A**2 * K + sigma_E**2 * np.eye(len(of))
        X = np.column_stack([np.ones(len(of)), of["block"] == "north"]).astype(float)
        Vi = np.linalg.inv(V)
        P = Vi - Vi @ X @ np.linalg.solve(X.T @ Vi @ X, X.T @ Vi)
        Py, y = P @ of["response"].to_numpy(), of["response"].to_numpy()
        here = slice(done, done + len(of))
        np.testing.assert_allclose(found[here], Py / np.sqrt(np.diag(P)), rtol=1e-7)
        np.testing.assert_allclose(expected[here], y - Py / np.diag(P), rtol=1e-7)
        done += len(of)


def test_faults_of_traits_are_seen():
    rng, model = np.random.default_rng(4), hz.variance_components.MODEL

    def simulated():
        frame, _ = model.simulate(rng, sites=2, sires=(12, 12), offspring=(8, 8))
        return frame

    def of(frame):
        return model.data(frame)

    right = [of(simulated()) for _ in range(SIMULATED)]
    grown = simulated()
    grown["response"] = np.exp(0.7 * grown["response"])
    heavy = simulated()
    heavy.loc[::40, "response"] += 6.0  # slips of the pen
    assert sees(OF_RELATIVES["asymmetry of rows"], right, of(grown))
    assert sees(OF_RELATIVES["noise with the level"], right, of(grown))
    assert sees(OF_RELATIVES["tails of rows"], right, of(heavy))
    for check in OF_RELATIVES.values():
        assert not sees(check, right[1:], right[0], len(OF_RELATIVES))


# Readings on a rig.


@pytest.fixture(scope="module")
def rig():
    frame, _ = hz.model_discrepancy.MODEL.simulate(np.random.default_rng(5), specimens=3, positions=(0.2, 0.5, 0.8))
    h = {"m": 0.0143, "s": 0.0005, "sigma": 0.05, "a": 0.2, "ell": 0.3}
    return hz.model_discrepancy.MODEL.data(frame), xr.Dataset(h)


def test_readings_given_others_are_those_of_a_dense_covariance(rig):
    data, h = rig
    f, w, x, of = (data[name].values for name in ("f", "w", "position", "of_specimen"))
    same = of[:, None] == of
    R = np.exp(-((x[:, None] - x) ** 2) / (2 * 0.3**2))
    K = 0.0005**2 * same * np.outer(f, f) + 0.2**2 * np.outer(w, w) * R + 0.05**2 * np.eye(f.size)
    P = np.linalg.inv(K)
    expected = (P @ (data.deflection.values - 0.0143 * f)) / np.sqrt(np.diag(P))
    np.testing.assert_allclose(rig_checks.in_closed_form(h, data), expected, rtol=1e-5, atol=1e-7)


def test_neighbours_are_of_one_specimen_under_one_load(rig):
    data, h = rig
    z, frame = (
        rig_checks.in_closed_form(h, data),
        pd.DataFrame({k: data[k] for k in ("of_specimen", "load", "position")}),
    )
    rows = frame.assign(z=z).sort_values("position").groupby(["of_specimen", "load"])["z"].agg(list)
    one, other = (np.concatenate([part[s] for part in rows]) for s in (slice(None, -1), slice(1, None)))
    expected = (one * other).sum() / np.sqrt((one**2).sum() * (other**2).sum())
    assert rig_checks.neighbours(z, data) == pytest.approx(expected, rel=1e-9)


def test_a_discrepancy_that_the_model_has_not_is_seen_and_one_that_it_has_is_not():
    """By the model without one, at the noise that it takes the discrepancy for."""
    rng, record = np.random.default_rng(6), hz.model_discrepancy.MODEL.under(discrepancy="none")
    h = xr.Dataset({"m": 1 / 70, "s": 0.04 / 70, "sigma": 0.05, "a": 0.0, "ell": 0.3})

    def of(truth, **more):
        return record.data(hz.model_discrepancy.MODEL.simulate(rng, truth=truth, specimens=4, **more)[0])

    right = [of("clamped") for _ in range(SIMULATED)]
    wrong = of("rotational spring", share=0.1)
    noise = h.assign(sigma=float(np.sqrt((wrong.rest + (wrong.q**2).sum("term")).sum() / wrong.n.sum())))
    statistic = rig_checks.OF_BEAMS["neighbours"].statistic
    drawn = [statistic(h, data, None) for data in right]
    assert statistic(noise, wrong, None) > max(drawn)
    assert abs(drawn[0]) < 0.5


# Samples of a patient.


@pytest.mark.parametrize("error", ["additive", "proportional", "combined"])
def test_samples_given_others_are_averages_over_nodes_without_them(error):
    """The weights without a sample are those of a cloud that never saw it."""
    model = hz.population_pk.MODEL
    options = {"error": error, "typical_CL": 3.0, "typical_V": 35.0, "typical_ka": 1.0, "typical_sd": 0.7}
    frame, _ = model.simulate(np.random.default_rng(7), patients=2)
    data = model.data(frame, **options)
    of_error = {"sigma_add": 0.0 if error == "proportional" else 1.0, "sigma_prop": 0.0 if error == "additive" else 0.1}
    spreads = {"omega_CL": 0.3, "omega_V": 0.2, "omega_ka": 0.5}
    rho = dict.fromkeys(("rho_CL_V", "rho_CL_ka", "partial_V_ka"), 0.0)
    h = xr.Dataset({"mu_CL": np.log(3.0), "mu_V": np.log(35.0), "mu_ka": 0.0} | spreads | rho | of_error)
    data = with_nodes(model, data, model.priors(data), 1, h.expand_dims("sample"))  # so that none moves
    scores, expected, patient, _ = patient_checks.given_others(h, data)
    for i in (0, 3, data.sizes["observation"] - 1):
        j, row = int(data.of_patient[i]), int(data.of_row[i])
        known = ORAL.cloud.conditional(h, ORAL.without_row(data, i).isel(patient=[j]))
        f = ORAL.expected(known.theta, data.isel(patient=[j])).isel(row=row)
        sd = np.sqrt(float(h.sigma_add) ** 2 + (float(h.sigma_prop) * f) ** 2)
        place = float((known.weight * stats.norm.cdf((float(data.concentration[i]) - f) / sd)).sum())
        k = int(np.flatnonzero(patient == j)[row])
        assert scores[k] == pytest.approx(stats.norm.ppf(place), abs=1e-6)
        assert expected[k] == pytest.approx(float((known.weight * f).sum()), rel=1e-6)


# Rows of a module.

MOTIF = Kinetics(network("A <-> B; B -> C"), size=256)
OF_MODULES = {"mu_k1": 0.0, "mu_km": -0.5, "mu_k2": -0.7, "omega_k1": 0.3, "omega_km": 0.3, "omega_k2": 0.3}


def watched(modules, times, seed=8):
    """Modules of which two species are seen, with an error of 0.03, and what made them."""
    h = xr.Dataset(OF_MODULES | {"sigma": 0.03})
    model, middle = hz.reaction_networks.MODEL, [0.0, -0.5, -0.7]
    frame, truth = model.simulate(
        np.random.default_rng(seed), modules=modules, rich=modules, times=times, mu=middle, omega=0.3
    )
    return model.data(frame), h, truth.theta


def on_nodes(data, h):
    """The data with few nodes around these hyperparameters."""
    made = MOTIF.group_level.nodes(data, {}, np.random.default_rng(1), h.expand_dims("sample"))
    return data.merge(made)


def test_rows_given_others_are_averages_over_nodes_without_them():
    """The weights without a row are those of a cloud that never saw it."""
    data, h, _ = watched(2, (1.0, 2.0, 5.0))
    data = on_nodes(data, h)
    scores, expected, module = network_checks.given_others(MOTIF, h, data)
    for i in (0, 4, data.sizes["observation"] - 1):
        j, instant, species = (int(data[name][i]) for name in ("of_module", "of_instant", "of_species"))
        known = MOTIF.cloud.on_fixed_nodes(h, MOTIF.without_row(data, i).isel(module=[j]))
        x = MOTIF.expected(known.theta, data.isel(module=[j])).isel(instant=instant, species=species)
        place = float((known.weight * stats.norm.cdf((float(data.value[i]) - x) / 0.03)).sum())
        assert scores[i] == pytest.approx(stats.norm.ppf(place), abs=1e-6)
        assert expected[i] == pytest.approx(float((known.weight * x).sum()), rel=1e-6)
        assert module[i] == j


def test_another_response_has_the_squares_that_it_has_at_the_nodes():
    data, h, _ = watched(2, (1.0, 2.0, 5.0))
    data, value = on_nodes(data, h), np.random.default_rng(2).random(data.sizes["observation"])
    anew = MOTIF.with_response(data, value)
    xr.testing.assert_allclose(anew.predicted, MOTIF.squares(data.theta, anew).transpose(*anew.predicted.dims))
    assert "predicted" not in MOTIF.with_response(data.drop_vars(["theta", "predicted"]), value)


@pytest.mark.long
def test_faults_of_rows_are_seen_by_the_check_that_is_for_them():
    """A loss that the network has not, errors that are shares, slips of the pen; 18 rows of each of five modules."""
    data, h, theta = watched(5, tuple(np.geomspace(0.3, 12, 9)))
    rng = np.random.default_rng(3)
    x = MOTIF.replicate(rng, theta, h.assign(sigma=0.0), data).values
    lossy = network("A <-> B : k1, km; B -> C : k2; A -> 0 : loss")
    at = xr.concat([theta, xr.full_like(theta[:, :1], np.log(0.3))], "coefficient")
    lost = Kinetics(lossy).replicate(rng, at, h, data).values
    slip = np.where(np.arange(x.size) % 23 == 0, 0.15, 0.0)
    faults = {
        ("times", "neighbours"): lost,
        ("error with the amount",): x * (1 + 0.1 * rng.standard_normal(x.size)),
        ("tails of rows",): x + 0.03 * rng.standard_normal(x.size) + slip,
    }
    checks = network_checks.of(MOTIF)["checks"]
    for names, value in faults.items():
        h, wrong, right = fitted_and_replicated(h, MOTIF.with_response(data, value), rng)
        for name in names:
            check = replace(checks[name], statistic=lambda _, d, s, h=h, name=name: checks[name].statistic(h, d, s))
            assert sees(check, right, wrong), name
            assert not sees(check, right[1:], right[0], len(checks)), name


def fitted_and_replicated(h, data, rng):
    """Hyperparameters with the error of the least squares, the data on nodes of their own, and others like them."""
    data = on_nodes(data, h.assign(sigma=0.05))
    freedom = data.sizes["observation"] - 3 * data.sizes["module"]
    h = h.assign(sigma=np.sqrt(data.predicted.min("node").sum() / freedom))
    known = MOTIF.cloud.on_fixed_nodes(h, data)
    theta = xr.concat([known.sample(rng) for _ in range(SIMULATED)], "sample")
    values = MOTIF.replicate(rng, theta, h, data).transpose("sample", ...).values
    return h, data, [MOTIF.with_response(data, value) for value in values]
