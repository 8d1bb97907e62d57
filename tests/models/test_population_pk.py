"""Population pharmacokinetics: densities, integrals against quadrature, the flip-flop, references, frames."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import xarray as xr
from scipy import stats

import hbm_zoo as hz
from hbm_zoo.models.routes import ORAL, Route
from hbm_zoo.priors import moments

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


def log_likelihood(theta, sigma_add, sigma_prop, patient):
    """Of one patient of `SMALL`; rows before any dose tell nothing of a proportional error."""
    rows = SMALL[SMALL["patient"] == patient]
    doses = rows.loc[rows["amount"].notna(), ["time", "amount"]].to_numpy()
    taken = rows[rows["amount"].isna()]
    if sigma_add == 0:
        taken = taken[taken["time"] > 0]
    f = concentration(theta, taken["time"].to_numpy(), doses, rows["weight"].iloc[0])
    return stats.norm(f, np.hypot(sigma_add, sigma_prop * f)).logpdf(taken["concentration"]).sum()


def covariance(names):
    """Omega of `POINT`, from the partial correlation by its definition."""
    r = np.eye(3)
    r[0, 1] = r[1, 0] = POINT["rho_CL_V"]
    r[0, 2] = r[2, 0] = POINT["rho_CL_ka"]
    rest = np.sqrt((1 - r[0, 1] ** 2) * (1 - r[0, 2] ** 2))
    r[1, 2] = r[2, 1] = POINT["partial_V_ka"] * rest + r[0, 1] * r[0, 2]
    omega = np.array([POINT[f"omega_{name}"] for name in names])
    return np.outer(omega, omega) * r[: len(names), : len(names)]


def log_prior(names, priors):
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
@pytest.mark.parametrize("error", SIGMAS)
@pytest.mark.parametrize("route", OF_ROUTE)
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
        expected = log_prior(free, priors)
        expected += sum(log_likelihood(theta[j], *sigma.values(), "AB"[j]) for j in range(2))
        if error == "proportional":
            expected += 2 * stats.norm.logpdf(0)
        if pooling == "none":
            of_theta = [moments(f"theta_{name}", priors[f"theta_{name}"]) for name in names]
            expected += sum(stats.norm(m, np.sqrt(v)).logpdf(THETA[:, k]).sum() for k, (m, v) in enumerate(of_theta))
        if pooling == "partial":
            expected += stats.norm.logpdf(Z[:, :size]).sum()
        values = POINT | {f"theta_{name}": THETA[:, k] for k, name in enumerate(names)} | {"z": Z[:, :size]}
        point = {v.name: np.asarray(on_line(v.name, values)) for v in model.value_vars}
        assert float(model.compile_logp(jacobian=False, mode="FAST_COMPILE")(point)) == pytest.approx(
            expected, rel=1e-8
        ), (pooling, form)


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
