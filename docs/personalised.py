"""What approximations say of a patient with few samples, and how often a patient's interval holds.

``uv run python docs/personalised.py`` makes the tables of docs/personalised.md.
"""

import json
import warnings
from pathlib import Path

import numpy as np
import xarray as xr
from scipy import optimize, stats

import hbm_zoo as hz
from hbm_zoo.group_level.routes import IV, ORAL
from hbm_zoo.inference import fits

PAGE = Path(__file__).with_name("personalised.md")
REFERENCE = Path(__file__).parents[1] / "tests" / "reference" / "theophylline_log_marginal.json"
ROWS = {
    "all 11 samples": range(11),
    "samples 5 and 10 (about 2 h and 12 h)": (4, 9),
    "sample 10 (about 12 h)": (9,),
}
PATIENTS = 40
TIMES = {0: (), 1: (6.0,), 2: (1.0, 12.0), 4: (0.5, 2.0, 6.0, 12.0), 8: (0.25, 0.5, 1.0, 2.0, 4.0, 8.0, 12.0, 24.0)}


# Log m_j at given hyperparameters, of theophylline.


def population(reference):
    """Mean and covariance of log CL, V, ka, and sigma."""
    h = reference["hyperparameters"]
    order = [1, 2, 0]  # the reference has ka first
    mu, omega = np.array(h["mu"])[order], np.array(h["omega_sd"])[order]
    return mu, np.outer(omega, omega) * np.array(h["correlation"])[np.ix_(order, order)], h["sigma"]


def approximations(curve, y, mu, Omega, sigma):
    """Log m by Laplace's approximation, and by a curve that is straight about its mode (FOCE)."""
    prior, L = stats.multivariate_normal(mu, Omega), np.linalg.cholesky(Omega)

    def minus_log_joint(z):
        return -stats.norm(curve(mu + L @ z), sigma).logpdf(y).sum() + z @ z / 2

    z = min((optimize.minimize(minus_log_joint, start) for start in np.eye(4, 3) * 0.5), key=lambda found: found.fun).x
    mode, step = mu + L @ z, 1e-4
    J = np.stack([(curve(mode + e) - curve(mode - e)) / (2 * step) for e in step * np.eye(3)], axis=1)
    straight = stats.multivariate_normal(curve(mode) + J @ (mu - mode), J @ Omega @ J.T + sigma**2 * np.eye(y.size))
    steps = step * 10 * np.eye(3)

    def joint(theta):
        return stats.norm(curve(theta), sigma).logpdf(y).sum() + prior.logpdf(theta)

    H = [
        [(joint(mode + a + b) - joint(mode + a - b) - joint(mode - a + b) + joint(mode - a - b)) for b in steps]
        for a in steps
    ]
    H = np.array(H) / (4 * (10 * step) ** 2)
    return joint(mode) + 1.5 * np.log(2 * np.pi) - np.linalg.slogdet(-H)[1] / 2, straight.logpdf(y)


def of_theophylline():
    """A row a number of samples: what the two approximations err by over twelve patients."""
    reference = json.loads(REFERENCE.read_text())
    mu, Omega, sigma = population(reference)
    record, frame = hz.population_pk.MODEL, hz.load_data("theophylline", hz.population_pk.MODEL)
    nth = frame[frame["amount"].isna()].groupby("patient").cumcount()
    lines = []
    for name, rows in ROWS.items():
        kept = frame["amount"].notna() | nth.isin(list(rows)).reindex(frame.index, fill_value=False)
        data = record.data(frame[kept], **record.datasets["theophylline"].options)
        found = []
        for j in range(data.sizes["patient"]):
            one = data.isel(patient=[j])
            used = one.used.values[0] > 0

            def curve(theta, one=one, used=used):
                at = xr.DataArray(theta[None], dims=("patient", "coefficient"))
                return ORAL.expected(at, one).values[0][used]

            found.append(approximations(curve, one.sampled.values[0][used], mu, Omega, sigma))
        off = np.array(found) - np.array(reference["analyses"][name]["log_marginal_subjects_1_to_12"])[:, None]
        each = " | ".join(
            f"{np.sqrt((off[:, k] ** 2).mean()):.3f} | {off[abs(off[:, k]).argmax(), k]:+.2f}" for k in (0, 1)
        )
        lines.append(f"| {name} | {each} |")
    return lines


# How often a patient's interval holds.


def cohort():
    """Twelve simulated patients, a bolus each."""
    record = hz.population_pk.MODEL.under(route="iv")
    frame, _ = record.simulate(np.random.default_rng(1), patients=12, times=TIMES[8], fewest=4)
    settings = {"random_seed": 1, "progressbar": False, "route": "iv", "draws": 250} | record.extras.simulated
    return hz.fit("population_pk", frame, **settings), record, frame[frame["patient"] == frame["patient"].iloc[0]]


def of_patients():
    """A row a number of samples: how often 89 % intervals of log CL hold a patient's, and how wide they are.

    The truth of each patient is drawn from a draw of the cohort's fit: what is then said of the patient must hold as
    often as it says.
    """
    fit, record, like = cohort()
    h, rng = fits.hyperparameters(fit), np.random.default_rng(2)
    chosen = h.isel(sample=rng.integers(h.sizes["sample"], size=PATIENTS))
    theta = IV.population(chosen).over(chosen.mu_CL).sample(rng).transpose("sample", "coefficient")
    lines = []
    for samples, times in TIMES.items():
        found = np.array(
            [of_one(fit, record, like, times, chosen.isel(sample=i), theta[i], i) for i in range(PATIENTS)]
        )
        held, width, refitted = found.mean(axis=0)
        error = np.sqrt(held * (1 - held) / PATIENTS)
        lines.append(f"| {samples} | {held:.3f} +- {error:.3f} | {width:.2f} | {int(refitted * PATIENTS)} |")
    return lines


def of_one(fit, record, like, times, h, theta, seed):
    """Whether the interval holds the truth, its width, and whether it took a refit."""
    dose = like[like["amount"].notna()].head(1)
    rows = dose.loc[dose.index.repeat(1 + len(times))].reset_index(drop=True).assign(patient="new")
    rows.loc[1:, "time"] = dose["time"].iloc[0] + np.array(times)
    rows.loc[1:, "amount"] = np.nan
    rows.loc[1:, "concentration"] = 0.0
    if times:
        data = record.prepared(rows, **record.extras.simulated)
        one = theta.expand_dims(patient=1).drop_vars("patient", errors="ignore")
        rows.loc[1:, "concentration"] = IV.replicate(np.random.default_rng(seed), one, h, data, data).values.ravel()
    person = hz.population_pk.personalise(fit, rows, random_seed=seed)
    known = person["group_summary"].to_dataset().isel(patient=0).sel(coefficient="CL")
    low, high, true = known["eti89_lb"].item(), known["eti89_ub"].item(), theta.sel(coefficient="CL").item()
    return low < true < high, high - low, person.attrs["refitted"]


def main():
    """Write both tables after the words of the page."""
    warnings.simplefilter("ignore")
    text = PAGE.read_text()
    for head, lines in (
        ("| samples of theophylline |", of_theophylline),
        ("| samples of a new patient |", of_patients),
    ):
        start = text.index(head)
        rule = text.index("\n", text.index("\n", start) + 1) + 1
        end = text.find("\n\n", rule - 1) + 1 or len(text)
        text = text[:rule] + "\n".join(lines()) + "\n" + text[end:]
        PAGE.write_text(text)


if __name__ == "__main__":
    main()
