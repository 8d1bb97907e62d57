"""Population pharmacokinetics: densities, integrals against quadrature, the flip-flop, references, frames."""

import json
import re
from dataclasses import replace
from pathlib import Path

import arviz as az
import numpy as np
import pandas as pd
import pytest
import xarray as xr
from scipy import special, stats

import hbm_zoo as hz
from hbm_zoo.diagnostics import replicas
from hbm_zoo.diagnostics.flip_flop import log_prior, mirrored
from hbm_zoo.diagnostics.model_checks import _to_try
from hbm_zoo.diagnostics.person import Person, on_nodes
from hbm_zoo.frames.rules import FrameWarning
from hbm_zoo.group_level.residual_error import ERRORS
from hbm_zoo.group_level.routes import IV, ORAL, ROUTES, Route
from hbm_zoo.inference import fits
from hbm_zoo.inference.loo import k_hat_threshold
from hbm_zoo.inference.nodes import with_nodes
from hbm_zoo.priors import log_density, moments, to_json
from hbm_zoo.reporting.answers import OF_MODELS
from hbm_zoo.reporting.findings import _priors

MODEL = hz.population_pk.MODEL
FOLDER = Path(__file__).parents[1] / "reference"
LOG_MARGINAL, NLS = (json.loads((FOLDER / f"theophylline_{name}.json").read_text()) for name in ("log_marginal", "nls"))
OPTIONS = {name: dict(shipped.options) for name, shipped in MODEL.datasets.items()}

EMPTY = np.nan
SMALL = pd.DataFrame(
    {
        "patient": ["A", "A", "A", "B", "A", "B", "B", "B", "B"],
        "time": [0.0, 1.0, 5.0, 0.0, 0.0, 0.0, 6.0, 3.0, 9.0],
        "amount": [100.0, EMPTY, EMPTY, 80.0, EMPTY, EMPTY, 50.0, EMPTY, EMPTY],
        "concentration": [EMPTY, 3.0, 2.1, EMPTY, 0.4, 0.1, EMPTY, 2.5, 3.6],
        "weight": [70.0, 70.0, 70.0, 50.0, 70.0, 50.0, 50.0, 50.0, 50.0],
    }
)
TYPICAL = {"typical_CL": 2.0, "typical_V": 25.0, "typical_ka": 1.2, "typical_sd": 0.7}
OF_ROUTE = {"oral": TYPICAL, "iv": {name: v for name, v in TYPICAL.items() if name != "typical_ka"}}
SIGMAS = {"additive": ("sigma_add",), "proportional": ("sigma_prop",), "combined": ("sigma_add", "sigma_prop")}
POINT = {"mu_CL": 0.8, "mu_V": 3.1, "mu_ka": 0.1, "omega_CL": 0.4, "omega_V": 0.3, "omega_ka": 0.8} | {
    "rho_CL_V": 0.5,
    "rho_CL_ka": -0.3,
    "partial_V_ka": 0.2,
    "sigma_add": 0.3,
    "sigma_prop": 0.15,
}
THETA = np.array([[0.9, 3.3, 0.2], [0.3, 2.9, -0.4]])
Z = np.array([[0.2, -0.7, 1.1], [-0.4, 0.3, 0.6]])


def record_of(route):
    return MODEL.under(route=route)


def bateman(CL, V, ka, t):
    ke = CL / V
    return np.where(t > 0, ka / (V * (ka - ke)) * (np.exp(-ke * t) - np.exp(-ka * t)), 0.0)


def concentration(theta, time, doses, weight):
    """Of one patient, by the textbook."""
    CL, V = np.exp(theta[0]) * (weight / 70) ** 0.75, np.exp(theta[1]) * weight / 70
    if len(theta) == 3:
        return sum(D * bateman(CL, V, np.exp(theta[2]), time - at) for at, D in doses)
    return sum(D / V * np.exp(-CL / V * (time - at)) * (time > at) for at, D in doses)


def expected(theta, sigma_add, sigma_prop, patient):
    """What is expected of a patient's samples, their sds, and the samples, but those that tell nothing."""
    rows = SMALL[SMALL["patient"] == patient]
    doses = rows.loc[rows["amount"].notna(), ["time", "amount"]].to_numpy()
    taken = rows[rows["amount"].isna()]
    if sigma_add == 0:
        taken = taken[taken["time"] > 0]
    f = concentration(theta, taken["time"].to_numpy(), doses, rows["weight"].iloc[0])
    return f, np.hypot(sigma_add, sigma_prop * f), taken["concentration"].to_numpy()


def log_likelihood(theta, sigma_add, sigma_prop, patient):
    """Of one patient of `SMALL`; rows before any dose tell nothing of a proportional error."""
    f, sd, y = expected(theta, sigma_add, sigma_prop, patient)
    return stats.norm(f, sd).logpdf(y).sum()


def covariance(names):
    """Omega of `POINT`, from the partial correlation by its definition."""
    r = np.eye(3)
    r[0, 1] = r[1, 0] = POINT["rho_CL_V"]
    r[0, 2] = r[2, 0] = POINT["rho_CL_ka"]
    rest = np.sqrt((1 - r[0, 1] ** 2) * (1 - r[0, 2] ** 2))
    r[1, 2] = r[2, 1] = POINT["partial_V_ka"] * rest + r[0, 1] * r[0, 2]
    omega = np.array([POINT[f"omega_{name}"] for name in names])
    return np.outer(omega, omega) * r[: len(names), : len(names)]


def log_density_of_priors(names, priors):
    """Of hyperparameters by name, their priors from scipy."""
    total = 0.0
    for name in names:
        prior, at = priors[name], POINT[name]
        number = prior.parameters
        if prior.distribution == "Normal":
            total += stats.norm(number["mu"], number["sigma"]).logpdf(at)
        elif prior.distribution == "HalfNormal":
            total += stats.halfnorm(scale=number["sigma"]).logpdf(at)
        else:
            total += stats.beta(number["alpha"], number["beta"]).logpdf((at + 1) / 2)  # of the share, as PyMC has it
    return total


@pytest.mark.filterwarnings("ignore::hbm_zoo.frames.rules.FrameWarning")
@pytest.mark.parametrize(
    ("route", "error"),
    [("oral", "additive"), ("oral", "proportional"), ("iv", "combined")]
    + [
        pytest.param(*rest, marks=pytest.mark.slow)
        for rest in [("oral", "combined"), ("iv", "additive"), ("iv", "proportional")]
    ],
)
def test_each_form_has_the_density_of_the_page(route, error):
    """Of the forms with patients in them; a row that is left out is a constant of them."""
    record, size = record_of(route), 2 + (route == "oral")
    names = ("CL", "V", "ka")[:size]
    rho = ["rho_CL_V", "rho_CL_ka", "partial_V_ka"][: 1 + 2 * (size == 3)]
    sigma = {name: POINT[name] if name in SIGMAS[error] else 0.0 for name in ("sigma_add", "sigma_prop")}
    mu, factor = np.array([POINT[f"mu_{name}"] for name in names]), np.linalg.cholesky(covariance(names))
    forms = {
        ("none", "centered"): (THETA[:, :size], SIGMAS[error]),
        ("complete", "centered"): (np.tile(mu, (2, 1)), [*(f"mu_{n}" for n in names), *SIGMAS[error]]),
        ("partial", "noncentered"): (
            mu + Z[:, :size] @ factor.T,
            [*(f"{what}_{n}" for what in ("mu", "omega") for n in names), *rho, *SIGMAS[error]],
        ),
    }
    for (pooling, form), (theta, free) in forms.items():
        model = record.build(SMALL, pooling, form, error=error, **OF_ROUTE[route])
        priors = record.priors(record.data(SMALL, error=error, **OF_ROUTE[route]))
        total = log_density_of_priors(free, priors)
        total += sum(log_likelihood(theta[j], *sigma.values(), "AB"[j]) for j in range(2))
        if error == "proportional":
            total += 2 * stats.norm.logpdf(0)
        if pooling == "none":
            of_theta = [moments(f"theta_{name}", priors[f"theta_{name}"]) for name in names]
            total += sum(stats.norm(m, np.sqrt(v)).logpdf(THETA[:, k]).sum() for k, (m, v) in enumerate(of_theta))
        if pooling == "partial":
            total += stats.norm.logpdf(Z[:, :size]).sum()
        values = POINT | {f"theta_{name}": THETA[:, k] for k, name in enumerate(names)} | {"z": Z[:, :size]}
        point = {v.name: np.asarray(on_line(v.name, values)) for v in model.value_vars}
        assert float(model.compile_logp(jacobian=False, mode="AS_WRITTEN")(point)) == pytest.approx(total, rel=1e-8), (
            pooling,
            form,
        )


@pytest.mark.filterwarnings("ignore::hbm_zoo.frames.rules.FrameWarning")
@pytest.mark.parametrize("error", SIGMAS)
def test_of_a_sample_below_the_limit_only_that_is_known(error):
    """Its probability, on the page and at given logs; a limit below all samples changes nothing."""
    h = xr.Dataset({"sigma_add": 0.3, "sigma_prop": 0.15} | ERRORS[error].fixed)
    limited, plain, low = (
        MODEL.data(SMALL, error=error, **TYPICAL, **given) for given in ({"lloq": 2.3}, {}, {"lloq": 1e-9})
    )
    theta = xr.DataArray(THETA, dims=("patient", "coefficient"))
    found = MODEL.group_level.log_likelihood(theta, h, limited)
    for j, patient in enumerate("AB"):
        f, sd, y = expected(THETA[j], *map(float, (h.sigma_add, h.sigma_prop)), patient)
        each = np.where(y <= 2.3, stats.norm(f, sd).logcdf(2.3), stats.norm(f, sd).logpdf(y))
        assert found[j].item() == pytest.approx(each.sum(), rel=1e-9)
    for data in (plain, low):
        np.testing.assert_allclose(
            MODEL.group_level.log_likelihood(theta, h, data), MODEL.group_level.log_likelihood(theta, h, plain)
        )
    model = MODEL.write(limited, "none", "centered", MODEL.priors(limited))
    of_samples = model.compile_logp(vars=model.observed_RVs, jacobian=False, mode="AS_WRITTEN")
    values = POINT | {f"theta_{name}": THETA[:, k] for k, name in enumerate(ORAL.names)}
    unused = 2 * stats.norm.logpdf(0) if error == "proportional" else 0.0
    point = {v.name: np.asarray(on_line(v.name, values)) for v in model.value_vars}
    assert float(of_samples(point)) == pytest.approx(float(found.sum()) + unused, rel=1e-8)
    drawn = MODEL.group_level.replicate(np.random.default_rng(1), theta, h, limited, limited)
    assert drawn.min() == 2.3


def on_line(name, values):
    """A value as PyMC holds it."""
    if name.endswith("_log__"):
        return np.log(values[name.removesuffix("_log__")])
    if name.endswith("_raw_logodds__"):
        share = (values[name.removesuffix("_raw_logodds__")] + 1) / 2
        return np.log(share / (1 - share))
    return values[name]


def hyperparameters(reference):
    """Those of a reference, in the order ka, CL, V."""
    mu, omega, r = (np.array(reference["hyperparameters"][name]) for name in ("mu", "omega_sd", "correlation"))
    h = {f"mu_{name}": mu[k] for k, name in enumerate(("ka", "CL", "V"))}
    h |= {f"omega_{name}": omega[k] for k, name in enumerate(("ka", "CL", "V"))}
    left = np.sqrt((1 - r[1, 2] ** 2) * (1 - r[0, 1] ** 2))
    h |= {"rho_CL_V": r[1, 2], "rho_CL_ka": r[0, 1], "partial_V_ka": (r[0, 2] - r[1, 2] * r[0, 1]) / left}
    return xr.Dataset(h | {"sigma_add": reference["hyperparameters"]["sigma"], "sigma_prop": 0.0})


ROWS = {
    "all 11 samples": range(11),
    "samples 5 and 10 (about 2 h and 12 h)": (4, 9),
    "sample 10 (about 12 h)": (9,),
}


def with_rows(frame, rows):
    """Doses, and of each patient's samples some."""
    nth = frame[frame["amount"].isna()].groupby("patient").cumcount()
    return frame[frame["amount"].notna() | nth.isin(list(rows)).reindex(frame.index, fill_value=False)]


@pytest.mark.parametrize("rows", ROWS)
def test_integrals_over_patients_are_those_of_a_reference(rows):
    """Log m_j of theophylline with many samples, two and one, within what nodes and reference say of themselves."""
    frame = with_rows(hz.load_data("theophylline"), ROWS[rows])
    data, found = MODEL.data(frame, **OPTIONS["theophylline"]), LOG_MARGINAL["analyses"][rows]
    h, fine = hyperparameters(LOG_MARGINAL), Route(ORAL.names, ORAL.curve, size=2**13).cloud
    level = fine.group_level()
    pilot = h.expand_dims(sample=1)
    data = data.merge(level.nodes(data, MODEL.priors(data), np.random.default_rng(1), pilot))
    known = fine.integrate(h, data)
    exact = np.array(found["log_marginal_subjects_1_to_12"])
    error = np.hypot(known.error, np.array(found["standard_error"]))
    assert (abs(known.log_marginal - exact) < 4 * error + 5e-4).all()
    assert float(known.error.max()) < 0.02
    assert abs(float((known.log_marginal - exact).mean())) < 2e-3


# The flip-flop.


def drawn(size=6, seed=2):
    """Hyperparameters [sample] around `POINT`."""
    rng = np.random.default_rng(seed)
    h = {name: ("sample", value + 0.1 * rng.uniform(-1, 1, size)) for name, value in POINT.items()}
    return xr.Dataset(h | {"sigma_prop": ("sample", np.zeros(size))})


def test_the_mirror_of_the_mirror_is_the_population():
    h = drawn()
    again = mirrored(ORAL, mirrored(ORAL, h, 0.3), 0.3)
    for name in h:
        np.testing.assert_allclose(again[name], h[name], rtol=1e-9, err_msg=str(name))
    assert (abs(mirrored(ORAL, h, 0.3).mu_ka - h.mu_ka) > 0.1).all()


def test_no_log_marginal_knows_on_which_side_it_is():
    """Per kg, where the symmetry is exact; both integrals within their errors."""
    data = MODEL.data(SMALL, scaling="per kg", **TYPICAL)
    h = drawn(4).assign(mu_CL=("sample", np.full(4, -3.4)), mu_V=("sample", np.full(4, -1.0)))
    sides = [h, mirrored(ORAL, h, 0.0)]
    fine = Route(ORAL.names, ORAL.curve, size=2**13).cloud
    level, known = fine.group_level(), []
    for side in sides:
        nodes = level.nodes(data, MODEL.priors(data), np.random.default_rng(3), side)
        known.append(fine.integrate(side, data.merge(nodes)))
    apart = known[0].log_marginal - known[1].log_marginal
    assert (abs(apart) < 4 * np.hypot(known[0].error, known[1].error)).all()
    assert float(np.hypot(known[0].error, known[1].error).max()) < 0.03


def test_the_prior_is_a_density_of_mu_and_omega():
    """Against the determinant of Omega's derivatives in spreads and correlations, by differences."""
    priors = MODEL.priors(MODEL.data(SMALL, **TYPICAL), pooling="partial")
    names = [*(f"omega_{name}" for name in ORAL.names), "rho_CL_V", "rho_CL_ka", "partial_V_ka"]

    def omega(values):
        h = xr.Dataset(dict(zip(names, values, strict=True)) | {f"mu_{name}": 0.0 for name in ORAL.names})
        L = ORAL.population(h).cholesky.values
        return (L @ L.T)[np.tril_indices(3)]

    h, expected = drawn(3), []
    each = {name: log_density(priors[name])(h[name].values) for name in [*names, *(f"mu_{n}" for n in ORAL.names)]}
    for i in range(3):
        at = np.array([float(h[name][i]) for name in names])
        steps = 1e-5 * np.eye(6)
        derivatives = np.stack([(omega(at + s) - omega(at - s)) / 2e-5 for s in steps])
        expected.append(sum(value[i] for value in each.values()) - np.linalg.slogdet(derivatives)[1])
    found = log_prior(ORAL, h, priors, "partial").values
    np.testing.assert_allclose(np.diff(found), np.diff(expected), atol=1e-7)


def fabricated(record, frame, draws, pooling, options):
    """A fit that holds what `flip_flop` reads of one."""
    data = record.data(frame, **{name: value for name, value in options.items() if name != "route"})
    priors = record.priors(data, pooling=pooling)
    fixed = record.fixed[pooling](priors, data)
    shape = {name: (("chain", "draw"), np.reshape(value, (1, -1))) for name, value in draws.items()}
    tree = xr.DataTree.from_dict({"posterior": xr.Dataset(shape), "constant_data": data})
    tree.attrs |= {"model": record.name, "pooling": pooling, "priors": to_json(priors), "parameterization": "exact"}
    tree.attrs |= {"fixed": json.dumps(fixed), "hyperparameters": json.dumps(list(record.parameters))}
    tree.attrs |= {"options": json.dumps(options), "seed": 1, "efficiency": 1.0}
    return tree, priors


def test_the_odds_of_the_mirror_are_a_mean_of_ratios_of_priors():
    """One curve for all, where the prior is that of mu alone."""
    rng, options = np.random.default_rng(4), TYPICAL | {"scaling": "per kg", "typical_CL": 0.3, "typical_V": 0.7}
    options["typical_ka"] = 0.9
    mu = {"mu_CL": rng.normal(-1.2, 0.1, 500), "mu_V": rng.normal(0, 0.1, 500), "mu_ka": rng.normal(0.1, 0.1, 500)}
    fit, priors = fabricated(MODEL, SMALL, mu | {"sigma_add": np.full(500, 0.4)}, "complete", options)
    with pytest.warns(hz.population_pk.FlipFlopWarning, match="CL and the area under the curve stand"):
        table = hz.population_pk.flip_flop(fit)
    here = np.stack([mu["mu_CL"], mu["mu_V"], mu["mu_ka"]], axis=-1)
    other = ORAL.mirrored(here)
    of_mu = [stats.norm(*(priors[f"mu_{name}"].parameters[p] for p in ("mu", "sigma"))) for name in ORAL.names]
    ratios = np.exp(sum(of_mu[k].logpdf(other[:, k]) - of_mu[k].logpdf(here[:, k]) for k in range(3)))
    assert table["odds"].item() == pytest.approx(ratios.mean(), rel=1e-6)
    assert table["mcse"].item() == pytest.approx(ratios.std() / np.sqrt(500), rel=1e-6)
    assert 0.05 < table["odds"].item() < 1
    (answer,) = OF_MODELS["population_pk"]
    assert answer.sentence(table).startswith("odds 0.15 (mcse 0.00")
    assert set(table.columns) == set(answer.meanings)


def test_where_there_is_one_rate_there_is_no_mirror():
    record = record_of("iv")
    fit, _ = fabricated(record, SMALL, {"mu_CL": [0.1], "mu_V": [3.0]}, "complete", OF_ROUTE["iv"] | {"route": "iv"})
    with pytest.raises(ValueError, match="a dose into a vein has one rate only"):
        hz.population_pk.flip_flop(fit)


# A few samples, and one left out.


def test_a_sample_left_out_is_a_ratio_of_integrals():
    """Log p(y_i | y_-i) = log m(all) - log m(without i), on the same nodes, for each error."""
    frame, truth = MODEL.simulate(np.random.default_rng(1), patients=3)
    h = truth.drop_vars(["theta", "patient", "coefficient"]).expand_dims(sample=2)
    for error, sigma_prop, lloq in (("additive", 0.0, 0.0), ("combined", 0.1, 0.0), ("additive", 0.0, 3.0)):
        h["sigma_prop"] = ("sample", [sigma_prop] * 2)
        data = MODEL.data(frame, error=error, lloq=lloq, **MODEL.extras.simulated)
        data = with_nodes(MODEL, data, MODEL.priors(data), 1, h)
        level, rows = MODEL.group_level, np.arange(4)
        whole = level.log_left_out(h, data).isel(patient=data.of_patient.values[rows])
        without = [level.log_left_out(h, level.without_row(data, i)) for i in rows]
        of_patient = [each.isel(patient=data.of_patient.values[i]) for i, each in zip(rows, without, strict=True)]
        found = level.leave_row_out(h, data, rows).transpose("sample", "observation")
        np.testing.assert_allclose(found, whole - xr.concat(of_patient, "patient").T, rtol=1e-9, atol=1e-9)


def test_own_is_that_of_a_reference_and_needs_as_many_samples_as_logs():
    frame = hz.load_data("theophylline")
    own = MODEL.own(MODEL.data(frame, **OPTIONS["theophylline"]))
    for patient, (log_ke, log_ka, log_CL) in NLS["analyses"]["own_nls_per_subject"].items():
        CL, V, ka = own.sel(patient=int(patient)).values
        np.testing.assert_allclose([CL - V, ka, CL], [log_ke, log_ka, log_CL], atol=1e-4)
    few = MODEL.own(MODEL.data(with_rows(frame, (4, 9)), **OPTIONS["theophylline"]))
    assert few.isnull().all()


@pytest.mark.parametrize(
    ("error", "side", "to_try"),
    [
        ("additive", "more", {"error": "combined"}),
        ("additive", "fewer", {}),
        ("proportional", "more", {}),
        ("proportional", "fewer", {"error": "combined"}),
        ("combined", "more", {}),
        ("combined", "fewer", {}),
    ],
)
def test_another_error_is_named_where_it_mends_the_misfit(error, side, to_try):
    """An error that grows faster than a share of the concentration, or shrinks with it, has no option."""
    fit, _ = fabricated(MODEL, SMALL, {"mu_CL": [0.8]}, "partial", TYPICAL | {"error": "additive"})
    fit.attrs["options"] = json.dumps(TYPICAL | {"error": error})
    check = MODEL.extras.checks["error with the concentration"]
    assert _to_try(MODEL, fit, check.alternative[side]) == to_try


def test_what_is_taken_away_of_a_patient_leaves_the_others():
    data = MODEL.data(SMALL, **TYPICAL)
    xr.testing.assert_identical(
        MODEL.group_level.without_group(data, "patient", 0).drop_attrs(),
        MODEL.prepared(SMALL[SMALL["patient"] == "B"], **TYPICAL).drop_attrs(),
    )


# From population to person, on a small fit.


COHORT = record_of("iv").simulate(np.random.default_rng(3), patients=6, times=(1.0, 4.0, 12.0, 24.0), fewest=3)[0]
SETTINGS = {"draws": 250, "chains": 2, "random_seed": 1, "progressbar": False}
NEW = pd.DataFrame(
    {
        "patient": "new",
        "time": [0.0, 2.0, 12.0, 20.0],
        "amount": [320.0, EMPTY, 160.0, EMPTY],
        "concentration": [EMPTY, 9.0, EMPTY, 6.0],
        "weight": 60.0,
    }
)


@pytest.fixture(scope="module")
def small_cloud():
    """On few nodes, for speed: how many there are is a number of the cloud."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(vars(IV.cloud), "size", 64)
        yield


@pytest.fixture(scope="module")
def cohort(small_cloud):
    return hz.fit("population_pk", COHORT, route="iv", **SETTINGS, **record_of("iv").extras.simulated)


@pytest.fixture(scope="module")
def person(cohort):
    return hz.population_pk.personalise(cohort, NEW)


def by_hand(fit, data, g, points=60_000):
    """Mean and sd of g(theta) of one new patient: draws of each population weighted by the likelihood."""
    h, rng = fits.hyperparameters(fit), np.random.default_rng(5)
    some = h.isel(sample=rng.integers(h.sizes["sample"], size=points))
    theta = IV.population(some).over(some.mu_CL).sample(rng)
    log_w = IV.group_level.log_likelihood(theta.expand_dims(patient=1), some, data).isel(patient=0).values
    w = np.exp(log_w - log_w.max())
    value = g(theta.transpose("sample", "coefficient").values)
    mean = (w @ value) / w.sum()
    error = np.sqrt((w**2) @ (value - mean) ** 2) / w.sum()
    return mean, np.sqrt(w @ (value - mean) ** 2 / w.sum()), error


def test_a_person_is_the_population_weighted_by_the_person_s_samples(cohort, person):
    """Clearance, and a concentration to come, against plain importance sampling from the population."""
    data, at = fits.prepared(person), {"size": (60 / 70) ** 0.75}
    worth = person.attrs["effective_draws"]
    for name, g in {
        "CL": lambda theta: np.exp(theta[:, 0]) * at["size"],
        "24 h": lambda theta: concentration(theta.T, np.array([24.0]), [(0.0, 320.0), (12.0, 160.0)], 60.0),
    }.items():
        mean, sd, error = by_hand(cohort, data, g)
        if name == "CL":
            found = hz.population_pk.exposure(person, 100.0, 12.0).loc["AUC"]
            mean_of_AUC, sd_of_AUC, error = by_hand(cohort, data, lambda theta: 100 / g(theta))  # noqa: B023
            assert abs(found["mean"] - mean_of_AUC) < 4 * np.hypot(error, sd_of_AUC / np.sqrt(worth))
            assert found["sd"] == pytest.approx(sd_of_AUC, rel=0.15)
        else:
            found = hz.population_pk.curve(person, [24.0]).iloc[0]
            assert abs(found["mean"] - mean) < 4 * np.hypot(error, sd / np.sqrt(worth))
            assert found["sd"] == pytest.approx(sd, rel=0.15)


def test_the_proof_is_printed_and_rows_may_come_in_any_order(cohort, person):
    assert {"k_hat", "effective_draws", "effective_nodes", "refitted"} <= set(person.attrs)
    assert person.attrs["personalised"].startswith("Patient new, 2 samples: ")
    assert not person.attrs["refitted"]
    again = hz.population_pk.personalise(cohort, NEW.iloc[[3, 0, 2, 1]])
    first, other = (each["group_summary"]["mean"].values for each in (person, again))
    np.testing.assert_allclose(first, other, atol=0.03)


def test_each_sample_narrows_the_band_on_average_and_none_is_the_population(cohort, person):
    nobody = hz.population_pk.personalise(cohort, NEW[NEW["amount"].notna()])
    assert nobody.attrs["personalised"].startswith("Patient new, 0 samples: ")
    wide, narrow = (hz.population_pk.curve(p, [30.0])["sd"].item() for p in (nobody, person))
    assert narrow < 0.7 * wide
    h = fits.hyperparameters(cohort)
    theta = IV.population(h).over(h.mu_CL).sample(np.random.default_rng(1)).transpose("sample", "coefficient").values
    log_CL = nobody["group_summary"].to_dataset().sel(coefficient="CL")
    assert log_CL["mean"].item() == pytest.approx(theta[:, 0].mean(), abs=4 * theta[:, 0].std() / np.sqrt(500))
    assert log_CL["sd"].item() == pytest.approx(theta[:, 0].std(), rel=0.15)


def test_predict_has_the_same_engine(cohort, person):
    """Rows of a new patient who brings samples, and of a known one, whose doses the fit knows."""
    asked = pd.concat([NEW, NEW.iloc[[3]].assign(time=30.0, concentration=EMPTY)], ignore_index=True)
    row = hz.predict(cohort, asked)["row_summary"].to_dataset().isel(row=0)
    expected, sigma = hz.population_pk.curve(person, [30.0]).iloc[0], fits.hyperparameters(person).sigma_add
    spread = float(np.hypot(expected["sd"], np.sqrt((sigma**2).mean())))
    assert abs(row["mean"] - expected["mean"]) < 4 * spread * np.sqrt(2 / person.attrs["effective_draws"])
    assert row["sd"] == pytest.approx(spread, rel=0.2)
    label = COHORT["patient"].iloc[0]
    weight = COHORT["weight"].iloc[0]
    later = pd.DataFrame({"patient": [label] * 2, "time": [24.0, 30.0], "amount": [100.0, EMPTY], "weight": weight})
    known = [
        hz.predict(cohort, rows)["row_summary"]["mean"].item()
        for rows in (later.iloc[[1]], later, pd.concat([COHORT[COHORT["patient"] == label].iloc[[0]], later]))
    ]
    assert known[1] > known[0] + 1  # a further dose
    assert known[2] == pytest.approx(known[1], abs=0.1)  # a dose that comes again is the same


def test_the_shape_of_each_log_is_asked_of_draws(cohort, monkeypatch):
    """Whatever is asked of replicated data, of which a few do."""
    monkeypatch.setattr(replicas, "LEAST", 9)
    monkeypatch.setattr(replicas, "MOST_A_CHECK", 2)
    table = hz.check_model(cohort)
    of_shape = table.loc[["shape of CL", "shape of V"]]
    assert table.index.get_level_values("check")[:2].tolist() == ["shape of CL", "shape of V"]
    assert of_shape["compares"].iloc[0].startswith("Shapiro and Francia's W of log CL of the patients")
    assert (of_shape["p"] > 0.05).all()
    assert ((of_shape["observed"] > 0.6) & (of_shape["observed"] < 1)).all()


@pytest.mark.slow
def test_a_patient_of_another_kind_is_named(small_cloud):
    """Who clears a drug thirty times as fast as fifteen others, who are within a tenth of one another."""
    record = record_of("iv")
    frame, _ = record.simulate(np.random.default_rng(6), patients=16, times=(1.0, 4.0, 12.0, 24.0), fewest=4)
    data = record.data(frame, **record.extras.simulated)
    rng = np.random.default_rng(7)
    logs = np.log([[2.8, 32.0]]) + 0.1 * rng.standard_normal((16, 2))
    logs[4, 0] += np.log(30)
    theta = xr.DataArray(logs, dims=("patient", "coefficient"))
    h = xr.Dataset({"sigma_add": 0.2, "sigma_prop": 0.0})
    wrong = frame.copy()
    wrong.loc[record.measured(frame), "concentration"] = IV.replicate(rng, theta, h, data, data).values
    fit = hz.fit("population_pk", wrong, route="iv", **SETTINGS, **record.extras.simulated)
    table = hz.check_model(fit)
    assert "shape of CL" in table.attrs["rejected"]["partial"]
    label = frame["patient"].unique()[4]
    assert f"patient {label} lies farthest out" in table.loc[("shape of CL", "partial"), "verdict"]
    assert table.loc[("shape of V", "partial"), "verdict"] == "as expected"


def test_no_prior_is_listed_of_an_error_that_the_model_has_not(cohort):
    listed = _priors(fits.model_of(cohort), {"partial": cohort}).index
    assert "sigma_add" in listed
    assert "sigma_prop" not in listed


def test_doses_for_a_target_are_those_that_reach_it(person):
    pk = hz.population_pk
    doses = pk.dose_for(person, 5.0, of="trough", every=12.0, number=10)["dose"]
    assert doses.is_monotonic_increasing
    reached = pk.exposure(person, float(doses[0.75]), 12.0, number=10, above=5.0)
    assert reached.loc["trough", "p_above"] == pytest.approx(0.75, abs=0.02)
    AUC = pk.dose_for(person, 100.0)["dose"]
    assert pk.exposure(person, float(AUC[0.5]), 12.0).loc["AUC", "median"] == pytest.approx(100, rel=0.02)  # of nodes
    steady = pk.exposure(person, 100.0, 12.0, number=20)
    assert steady.loc["trough", "mean"] < steady.loc["AUC", "mean"] / 12 < steady.loc["Cmax", "mean"]


def a_person(theta, weights, point):
    """What verbs ask of one patient, on nodes of which no fit is behind."""
    person = object.__new__(Person)
    vars(person).update(theta=theta, weights=weights, point=point)
    person.weight = xr.DataArray(weights.mean(axis=0), dims="node")
    return person


def test_the_error_of_a_person_is_the_scatter_over_integrals_and_draws():
    """Points anew, then draws anew: the error that is printed is the sd of what is printed, within a fifth."""
    rng, size, draws = np.random.default_rng(3), 400, 500
    for scatter in (0.0, 1.5):
        means, errors = [], []
        for _ in range(150):
            x, h = rng.standard_normal((size, 1)), scatter * rng.standard_normal((draws, 1))
            log_w = stats.norm.logpdf(x.T, h, 0.5) - stats.norm.logpdf(x.T)
            person = a_person(x, special.softmax(log_w, axis=1), np.arange(size))
            means.append(person.weight.values @ x[:, 0])
            errors.append(person.error(x[:, 0]))
        assert np.sqrt(np.mean(np.square(errors))) == pytest.approx(np.std(means), rel=0.2)


def test_nodes_that_move_have_the_error_of_those_that_do_not(person):
    """Nodes of each draw that happen to be the same: those that are kept are some of all, in the same places."""
    record, h = fits.model_of(person), fits.thinned(fits.hyperparameters(person), 200)
    known = record.group_level.conditional(h, fits.prepared(person))
    moving = replace(known, theta=known.theta.broadcast_like(known.weight))
    for chosen, still in zip(on_nodes(moving), on_nodes(known), strict=True):
        assert chosen.ndim == still.ndim
    (one, other) = (a_person(*on_nodes(each)) for each in (moving, known))
    for g in (np.exp, np.square):
        assert one.weight.values @ g(one.theta) == pytest.approx(other.weight.values @ g(other.theta), rel=0.01)
        np.testing.assert_allclose(one.error(g(one.theta)), other.error(g(other.theta)), rtol=0.1)


def test_every_number_of_a_person_has_its_error(person):
    pk = hz.population_pk
    curve, exposure = pk.curve(person, [1.0, 24.0]), pk.exposure(person, 100.0, 12.0, above=2.0)
    doses = pk.dose_for(person, 5.0, of="trough", every=12.0)
    for table in (curve, exposure.drop(index="tmax")):  # a bolus is highest at once
        assert ((table["mcse"] > 0) & (table["mcse"] < table["sd"] / 2)).all()
    assert (exposure.loc[["Cmax", "trough"], "p_above_mcse"] < 0.1).all()
    assert (doses["mcse"] < 0.3 * doses["dose"]).all()


def test_a_person_s_band_is_drawn_inside_the_population_s(cohort):
    """Of a population with a spread: after two samples less than two thirds as wide."""
    (axes,) = hz.plot_personalised(cohort, NEW, after=(2,)).axes
    assert area(axes.collections[1]) < 2 / 3 * area(axes.collections[0])


def area(band):
    """Of a filled band, by its outline."""
    x, y = band.get_paths()[0].vertices.T
    return abs(np.dot(x, np.roll(y, 1)) - np.dot(y, np.roll(x, 1))) / 2


def test_a_peak_is_not_missed_however_far_apart_doses_are(person):
    """The peak of an oral dose, by its formula, where the next comes after a week."""
    route, rng = ROUTES["oral"], np.random.default_rng(1)
    theta = np.log([[2.0, 25.0, 8.0]]) + 0.3 * rng.standard_normal((50, 3))
    one = a_person(theta, np.full((1, 50), 0.02), np.arange(50))
    one.route, one.individual = route, route.individual(np.exp(theta.T), 1.0, 1.0)
    found = one.exposures(100.0, 168.0, 1, 0.0)
    CL, V, ka = np.exp(theta.T)
    ke = CL / V
    at = np.log(ka / ke) / (ka - ke)
    np.testing.assert_allclose(found["Cmax"], bateman(CL, V, ka, at) * 100.0, rtol=2e-3)


@pytest.mark.slow
def test_the_error_is_the_scatter_of_other_seeds(cohort):
    """Eight times one patient, nodes and draws anew: areas scatter by no more than their error, nor by far less."""
    found = [
        hz.population_pk.exposure(hz.population_pk.personalise(cohort, NEW, random_seed=k), 100.0, 12.0).loc["AUC"]
        for k in range(8)
    ]
    scatter, error = np.std([row["mean"] for row in found], ddof=1), np.mean([row["mcse"] for row in found])
    assert 0.2 < scatter / error < 2


def apart(one, other):
    """How far means of logs in two fits of a patient are apart, in Monte Carlo errors of both [coefficient]."""
    means, errors = zip(*(of_means(fit) for fit in (one, other)), strict=True)
    return abs(means[0] - means[1]) / np.hypot(*errors)


def of_means(fit):
    """Means of a patient's logs, the last in a fit, and their Monte Carlo errors [coefficient]."""
    known = fit["group_summary"].to_dataset().isel(patient=-1)
    draws = fit["posterior"].sizes["chain"] * fit["posterior"].sizes["draw"]
    return known["mean"].values, known["sd"].values / np.sqrt(fits.efficiency(fit) * draws)


def test_a_weight_in_another_unit_is_said(cohort, small_cloud):
    with pytest.warns(FrameWarning, match="times that of the heaviest of the cohort: is column 'weight' in kg"):
        hz.population_pk.personalise(cohort, NEW[NEW["amount"].notna()].assign(weight=60_000.0))


@pytest.mark.long
def test_where_the_draws_cannot_follow_the_cohort_is_fitted_again(cohort, small_cloud):
    """A patient of fifty times the concentrations: no draw of the cohort's fit expects that."""
    rows = NEW.assign(concentration=50 * NEW["concentration"])
    with pytest.warns(FrameWarning, match="Patient new: Samples are .* times what typical values expect"):
        person = hz.population_pk.personalise(cohort, rows)
    assert person.attrs["refitted"] == 1
    assert person.attrs["k_hat"] > 0.5
    assert person.attrs["personalised"].endswith("these cannot follow: the cohort was fitted again with the patient.")
    kept = fits.hyperparameters(cohort).mu_V
    assert fits.hyperparameters(person).mu_V.mean() < kept.mean() - kept.std()


def intervals(fit, drawn, times, truths, h):
    """Places of truths [patient] of log CL in what draws of a fit say after some samples; widths of 89 % intervals.

    As `personalise` has it, all patients at once: each brings a dose and samples that its own truth and draw of h made.
    """
    record, rng, patients = record_of("iv"), np.random.default_rng(8), truths.sizes["patient"]
    each = pd.DataFrame({"patient": 0, "time": [0.0, *times], "amount": [320.0] + [EMPTY] * len(times), "weight": 70.0})
    rows = pd.concat([each.assign(patient=f"N{j:03d}") for j in range(patients)], ignore_index=True)
    rows["concentration"] = np.where(rows["amount"].isna(), 1.0, EMPTY)
    data = record.prepared(rows, **record.extras.simulated)
    of_sample = h.isel(sample=xr.DataArray(data.of_patient.values, dims="observation"))
    data = IV.with_response(data, IV.replicate(rng, truths, of_sample, data, data).values)
    data = with_nodes(record, data, fits.priors_of(fit), 1, drawn)
    log_m, known = record.group_level.log_left_out(drawn, data), record.group_level.conditional(drawn, data)
    log_m = log_m.transpose("sample", "patient")
    weight = known.weight * log_m.copy(data=special.softmax(log_m.values, axis=0))
    log_CL = known.theta.isel(coefficient=0, drop=True)
    true, places, widths = truths.isel(coefficient=0, drop=True).values, [], []
    for j in range(patients):
        w, x = (v.values.ravel() for v in xr.broadcast(weight.isel(patient=j), log_CL.isel(patient=j)))
        reached, x = np.cumsum(w[np.argsort(x)]), np.sort(x)
        places.append(np.interp(true[j], x, reached, left=0.0, right=1.0))
        widths.append(np.diff(np.interp([0.055, 0.945], reached, x)).item())
    return np.array(places), np.array(widths)


@pytest.mark.slow
def test_a_patient_s_interval_holds_as_often_as_it_says(cohort, monkeypatch):
    """Truths of 300 patients from a hundred draws of the cohort's fit, and what these say after two samples.

    Narrower than the population's.
    """
    monkeypatch.setitem(vars(IV.cloud), "size", 512)
    drawn, rng = fits.thinned(fits.hyperparameters(cohort), 100), np.random.default_rng(9)
    h = drawn.isel(sample=rng.integers(100, size=300))
    truths = IV.population(h).over(h.mu_CL).sample(rng).rename(sample="patient")
    places, widths = intervals(cohort, drawn, (1.0, 12.0), truths, h)
    held = abs(places - 0.5) < 0.445
    assert stats.kstest(places, "uniform").pvalue > 0.01
    assert stats.binomtest(int(held.sum()), 300, 0.89).pvalue > 0.01
    assert widths.mean() < truths.isel(coefficient=0).std().item() * 2 * stats.norm.ppf(0.945)


#: Of patient 9 of theophylline, who absorbs faster than all others: which samples are at hand.
OF_NINE = {"none": (), "11.6 h": (9,), "2 and 11.6 h": (4, 9), "0.3, 2 and 11.6 h": (1, 4, 9), "all 11": range(11)}


@pytest.fixture(scope="module")
def eleven():
    frame = hz.load_data("theophylline", MODEL)
    others = frame[frame["patient"] != 9]
    return hz.fit("population_pk", others, random_seed=1, progressbar=False, **OPTIONS["theophylline"]), frame


@pytest.mark.slow
@pytest.mark.parametrize("samples", OF_NINE)
def test_the_outlier_of_theophylline_is_as_after_a_refit(eleven, samples):
    """The cohort without patient 9, weighted by the samples of 9, against a fit of all twelve."""
    fit, frame = eleven
    rows = with_rows(frame[frame["patient"] == 9], OF_NINE[samples])
    person = hz.population_pk.personalise(fit, rows)
    assert person.attrs["refitted"] or person.attrs["k_hat"] <= k_hat_threshold(4000)
    if samples == "none":
        assert person.attrs["effective_draws"] > 3900
        return
    twelve = pd.concat([frame[frame["patient"] != 9], rows], ignore_index=True)
    again = hz.fit("population_pk", twelve, random_seed=2, progressbar=False, **OPTIONS["theophylline"])
    assert (apart(person, again) < 4).all(), (person.attrs["personalised"], apart(person, again))


@pytest.mark.slow
def test_the_cohort_of_phenobarbital_is_that_of_jags():
    """Its priors; all hyperparameters within four errors of both, and their sds within a fifth."""
    reference = json.loads((FOLDER / "phenobarbital.json").read_text())["analyses"]["bayes_jags"]["estimates"]
    priors = {"mu_CL": "Normal(mu=-5.3, sigma=1)", "mu_V": "Normal(mu=0, sigma=1)"}
    priors |= dict.fromkeys(("omega_CL", "omega_V", "sigma_prop"), "HalfNormal(sigma=0.5)")
    frame = hz.load_data("phenobarbital", MODEL)
    same = {"draws": 500, "random_seed": 1, "progressbar": False} | OPTIONS["phenobarbital"]
    fit = hz.fit("population_pk", frame, priors=priors, **same)
    names = {"mu_CL": "m_lcl", "mu_V": "m_lv", "omega_CL": "sd_lcl", "omega_V": "sd_lv", "rho_CL_V": "rho"}
    for ours, theirs in (names | {"sigma_prop": "sigma"}).items():
        draws, known = fit["posterior"][ours].values, reference[theirs]
        error = draws.std() / np.sqrt(fits.efficiency(fit) * draws.size)
        assert abs(draws.mean() - known["mean"]) < 4 * np.hypot(error, known["mcse_mean"]), ours
        assert draws.std() == pytest.approx(known["sd"], rel=0.2), ours


@pytest.mark.slow
def test_a_patient_left_out_is_as_after_a_refit_without(cohort):
    """Elpd of each, from the weights of one fit, against the log of a mean over draws of six others."""
    record, priors = record_of("iv"), fits.priors_of(cohort)
    known = cohort["group_summary"].to_dataset()
    options = record.extras.simulated
    for j, patient in enumerate(known["patient"].values):
        others, rows = (COHORT[which] for which in (COHORT["patient"] != patient, COHORT["patient"] == patient))
        without = hz.fit("population_pk", others, route="iv", priors=priors, **SETTINGS, **options)
        h = fits.hyperparameters(without)
        one = with_nodes(record, record.prepared(rows, **options), priors, 5, h)
        density = np.exp(record.group_level.log_left_out(h, one).isel(patient=0).values)
        error = density.std() / density.mean() / np.sqrt(fits.efficiency(without) * density.size)
        difference = known["elpd"].values[j] - np.log(density.mean())
        assert abs(difference) < 4 * np.hypot(error, known["elpd_mcse"].values[j]), patient


def test_priors_are_in_the_units_of_the_data():
    """Noise of the order of .3 of the median sample above 0; spreads and correlations have none."""
    record, options = record_of("oral"), TYPICAL
    here, there = (
        record.default_priors(record.data(frame, **options))
        for frame in (SMALL, SMALL.assign(concentration=1000 * SMALL["concentration"]))
    )
    scales = [float(each["sigma_add"].parameters["sigma"]) for each in (here, there)]
    assert scales == pytest.approx([0.3 * np.median([3.0, 2.1, 0.4, 0.1, 2.5, 3.6]), 690.0])
    rest = [{name: prior for name, prior in each.items() if name != "sigma_add"} for each in (here, there)]
    assert to_json(rest[0]) == to_json(rest[1])


@pytest.mark.slow
def test_simulation_based_calibration_of_the_smallest_form(small_cloud):
    """A bolus, three patients, two to four samples each: two hundred simulations."""
    frame, _ = record_of("iv").simulate(np.random.default_rng(1), patients=3, times=(1.0, 4.0, 12.0, 24.0))
    settings = {"simulations": 200, "draws": 250, "random_seed": 2, "progressbar": False}
    result = hz.calibrate(MODEL, frame, route="iv", **settings, **record_of("iv").extras.simulated)
    assert result.table["p_holm"].min() > 0.01
    assert {"log_population", "omega_CL", "theta_new_mean[CL]"} <= set(result.table.index)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::hbm_zoo.inference.convergence.ConvergenceWarning")  # a divergence of chains
def test_both_forms_have_one_posterior():
    """Patients integrated out, and patients by NUTS: six patients with two to four samples each."""
    options = {"route": "iv", "random_seed": 3, "progressbar": False} | record_of("iv").extras.simulated
    hidden = hz.fit("population_pk", COHORT, **options)
    visible = hz.fit("population_pk", COHORT, parameterization="noncentered", target_accept=0.99, **options)
    names = [name for name in hidden["posterior"] if hidden["posterior"][name].ndim == 2]
    tables = [az.summary(fit["posterior"].dataset[names], round_to="none") for fit in (hidden, visible)]
    off, error = tables[0]["mean"] - tables[1]["mean"], np.hypot(tables[0]["mcse_mean"], tables[1]["mcse_mean"])
    assert (abs(off) < 4 * error).all(), off / error
    assert tables[0]["sd"].to_numpy() == pytest.approx(tables[1]["sd"].to_numpy(), rel=0.2)


@pytest.mark.slow
def test_calibration_sees_patients_who_were_given_half(small_cloud):
    """Truths of patients who take half of each dose, fitted as if all of it."""
    record = record_of("iv")

    def replicate(rng, theta, h, new, seen):
        half = new.assign(given=new.given / 2)
        return IV.replicate(rng, theta, h, half, half)

    half = replace(record, group_level=replace(record.group_level, replicate=replicate))
    frame, _ = record.simulate(np.random.default_rng(1), patients=3, times=(1.0, 4.0, 12.0, 24.0))
    settings = {"simulations": 50, "draws": 250, "random_seed": 2, "progressbar": False}
    assert hz.calibrate(half, frame, **settings, **record.extras.simulated).table["p_holm"].min() < 0.01


@pytest.mark.parametrize(
    ("call", "sentence"),
    [
        (lambda fit: hz.population_pk.curve(fit, [1.0]), "name one, patient='P01' say"),
        (lambda fit: hz.population_pk.curve(fit, [-1.0], patient="P01"), "times must be a finite number from 0"),
        (lambda fit: hz.population_pk.curve(fit, [1.0], patient="P1"), "Did you mean 'P0"),
        (
            lambda fit: hz.population_pk.exposure(fit, 0.0, 12.0, patient="P01"),
            "amount must be a finite number above 0",
        ),
        (lambda fit: hz.population_pk.exposure(fit, 1.0, 12.0, number=2.5, patient="P01"), "a whole number of doses"),
        (lambda fit: hz.population_pk.dose_for(fit, 5.0, of="trough", patient="P01"), "the hours between doses"),
        (lambda fit: hz.population_pk.dose_for(fit, 5.0, duration=-1, patient="P01"), "duration must be a finite"),
        (lambda fit: hz.population_pk.curve(fit, [], patient="P01"), "one time or more, got none"),
        (
            lambda fit: hz.population_pk.dose_for(fit, 5.0, "trough", 5e4, patient="P01"),
            "of the peak is there: is it in h",
        ),
        (lambda fit: hz.population_pk.dose_for(fit, 5.0, of="through", patient="P01"), "Did you mean 'trough'"),
        (lambda fit: hz.population_pk.personalise(fit, COHORT), "rows of one patient, got 6"),
        (lambda fit: hz.population_pk.personalise(fit, COHORT[COHORT["patient"] == "P02"]), "is in the fit already"),
        (lambda fit: hz.population_pk.personalise(fit, NEW.drop(columns="weight")), "expected a column 'weight'"),
        (lambda fit: hz.population_pk.personalise(fit, NEW[NEW["amount"].isna()]), "at least one dose"),
    ],
)
def test_what_cannot_be_answered_is_refused(cohort, call, sentence):
    with pytest.raises(ValueError, match=sentence):
        call(cohort)


# Frames.


def changed(column, row, value):
    frame = SMALL.copy()
    frame[column] = frame[column].astype(object)
    frame.loc[row, column] = value
    return frame


@pytest.mark.parametrize(
    ("frame", "sentence"),
    [
        (changed("time", 1, -1.0), "'time' expected a finite number, 0 or above, got -1.0 in row 1"),
        (changed("time", 2, EMPTY), "'time' expected a finite number, 0 or above, got an empty cell in row 2"),
        (changed("amount", 0, 0.0), "'amount' expected a finite number above 0, or nothing, got 0.0 in row 0"),
        (
            changed("amount", 0, "100 mg"),
            "'amount' expected a finite number above 0, or nothing, got '100 mg' in row 0",
        ),
        (changed("concentration", 1, "12"), "'concentration' expected a finite number, or nothing, got '12' in row 1"),
        (changed("concentration", 0, 3.0), "got both in row 0"),
        (changed("amount", 0, EMPTY), "got neither in row 0"),
        (changed("weight", 2, 71.0), "one weight of each patient, got 70 and 71 of A"),
        (changed("weight", 2, EMPTY), "'weight' expected a finite number above 0, got an empty cell in row 2"),
        (SMALL.drop(columns="concentration"), "expected a column 'concentration'"),
        (SMALL.assign(duration=[EMPTY, 2.0] + [EMPTY] * 7), "'duration' is of doses, got 2.0 in row 1"),
        (SMALL.assign(duration=[2.0] + [EMPTY] * 8), "'duration' is of infusions: route='iv'"),
        (
            SMALL[SMALL["amount"].notna() | (SMALL["patient"] == "A")],
            "expected a sample of each patient, got none of B",
        ),
        (SMALL[SMALL["amount"].isna() | (SMALL["patient"] == "A")], "at least one dose of each patient.*got none of B"),
        (SMALL.assign(concentration=0.0 * SMALL["concentration"]), "'concentration' expected values above 0"),
        (SMALL.assign(concentration=1000 * SMALL["concentration"]), "times what typical values expect"),
        (SMALL.assign(amount=1000 * SMALL["amount"]), "times what typical values expect"),
        (SMALL.assign(time=60 * SMALL["time"]), "are columns 'time', .*in the same units"),
        (SMALL.assign(time=1e6 * SMALL["time"]), "are columns 'time', .*in the same units"),
        (SMALL.rename(columns={"amount": "dose"}), "got neither in row 0. There is no column 'amount'"),
    ],
)
def test_bad_frames_are_refused_in_a_sentence(frame, sentence):
    with pytest.raises(ValueError, match=sentence):
        hz.fit(MODEL, frame, random_seed=1, progressbar=False, **TYPICAL)


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({}, "needs to know what is typical: typical_CL=..., typical_V=..., typical_ka=..., typical_sd=..."),
        (TYPICAL | {"typical_V": -1.0}, "expected 'typical_V' to be a finite number above 0, got -1.0"),
        (TYPICAL | {"error": "additiv"}, "Did you mean 'additive'"),
        (TYPICAL | {"scaling": "per pound"}, "expected one of allometric, per kg"),
        (TYPICAL | {"route": "i.v."}, "expected one of oral, iv"),
        (TYPICAL | {"route": "iv"}, "typical_ka is of what is swallowed"),
        (TYPICAL | {"lloq": 1e6}, "every sample is at lloq=1e+06 or below: is it in the unit of 'concentration'?"),
        (TYPICAL | {"typical_Cl": 2.0}, "Did you mean 'typical_CL'"),
    ],
)
def test_bad_options_are_refused_in_a_sentence(options, sentence):
    with pytest.raises(ValueError, match=re.escape(sentence)):
        hz.fit(MODEL, SMALL, random_seed=1, progressbar=False, **options)


def test_what_is_left_out_or_of_no_use_is_counted():
    late = pd.concat([SMALL, SMALL.iloc[[0]].assign(time=50.0)], ignore_index=True)
    with pytest.warns(FrameWarning, match="1 dose no sooner than the patient's last sample: of no use to this fit"):
        MODEL.data(late, **TYPICAL)
    with pytest.warns(FrameWarning, match="Several doses at one time, of A: they are added"):
        MODEL.data(pd.concat([SMALL, SMALL.iloc[[0]]], ignore_index=True), **TYPICAL)
    with pytest.warns(FrameWarning, match="2 samples before any dose of the patient are left out"):
        data = MODEL.data(SMALL, error="proportional", **TYPICAL)
    assert data.used.sum() == data.seen.sum() - 2
