"""What approximations say of a patient with few samples, and how often a patient's interval holds.

``uv run python docs/personalised.py FOLDER`` makes the tables of docs/personalised.md; what is finished is kept there.
"""

import json
import sys
import warnings
from functools import cache
from pathlib import Path

import numpy as np
import pandas as pd
import xarray as xr
from scipy import optimize, stats

import hbm_zoo as hz
from hbm_zoo.diagnostics.person import on_nodes
from hbm_zoo.diagnostics.updating import smoothed
from hbm_zoo.group_level.routes import IV, ORAL
from hbm_zoo.group_level.weighted import Weighted
from hbm_zoo.inference import fits
from hbm_zoo.inference.nodes import with_nodes
from hbm_zoo.workers.run import run

PAGE = Path(__file__).with_name("personalised.md")
REFERENCE = Path(__file__).parents[1] / "tests" / "reference" / "theophylline_log_marginal.json"
ROWS = {
    "all 11 samples": range(11),
    "samples 5 and 10 (about 2 h and 12 h)": (4, 9),
    "sample 10 (about 12 h)": (9,),
}
OF_FEW_SAMPLES = "| samples of theophylline | Laplace, rms [nats] | worst | FOCE, rms [nats] | worst |"
OF_A_PERSON = (
    "| samples of a new patient | holds | width [log] | alone: holds | width [log] | narrower than alone "
    "| largest k-hat |"
)
PATIENTS, AT_ONCE, BY_THE_VERB = 300, 25, 10
RECORD = hz.population_pk.MODEL.under(route="iv")
TIMES = {0: (), 1: (6.0,), 2: (1.0, 12.0), 4: (0.5, 2.0, 6.0, 12.0)}
OF_COHORT = (0.25, 0.5, 1.0, 2.0, 4.0, 8.0, 12.0, 24.0)


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


@cache
def cohort(pooling):
    """Twelve simulated patients, a bolus each, fitted."""
    frame, _ = RECORD.simulate(np.random.default_rng(1), patients=12, times=OF_COHORT, fewest=4)
    settings = {"random_seed": 1, "progressbar": False, "route": "iv", "draws": 50} | RECORD.extras.simulated
    return hz.fit("population_pk", frame, pooling, **settings), frame[frame["patient"] == frame["patient"].iloc[0]]


@cache
def truths():
    """Draws of the cohort's fit, one a patient, and a patient's logs from the population of each."""
    h, rng = fits.hyperparameters(cohort("partial")[0]), np.random.default_rng(2)
    chosen = h.isel(sample=rng.integers(h.sizes["sample"], size=PATIENTS))
    return chosen, IV.population(chosen).over(chosen.mu_CL).sample(rng).transpose("sample", "coefficient")


def rows_of(i, times):
    """Of patient i a dose, and samples at some times."""
    (h, theta), like = truths(), cohort("partial")[1]
    dose = like[like["amount"].notna()].head(1)
    rows = dose.loc[dose.index.repeat(1 + len(times))].reset_index(drop=True).assign(patient=f"new {i}")
    rows.loc[1:, "time"] = dose["time"].iloc[0] + np.array(times)
    rows.loc[1:, "amount"] = np.nan
    rows.loc[1:, "concentration"] = 0.0
    if times:
        data = RECORD.prepared(rows, **RECORD.extras.simulated)
        one = theta.isel(sample=i).expand_dims(patient=1).drop_vars("patient", errors="ignore")
        sampled = IV.replicate(np.random.default_rng(i), one, h.isel(sample=i), data, data)
        rows.loc[1:, "concentration"] = sampled.values.ravel()
    return rows


def piece_of_work(piece):
    """Of some patients the 89 % interval of log CL, by the cohort's fit, or by the prior of one patient and its noise.

    As `personalise` has it, many patients at once, and draws weighted where it resamples them.
    """
    fit, who = cohort(piece["pooling"])[0], range(piece["first"], piece["first"] + piece["size"])
    rows = pd.concat([rows_of(i, TIMES[piece["samples"]]) for i in who], ignore_index=True)
    h, data = fits.hyperparameters(fit), RECORD.prepared(rows, **RECORD.extras.simulated)
    data = with_nodes(RECORD, data, fits.priors_of(fit), piece["first"], h)
    level = RECORD.group_level
    log_m = level.log_left_out(h, data).transpose("patient", "sample").values
    after, known = [smoothed(row, fits.efficiency(fit)) for row in log_m], level.conditional(h, data)
    weight = known.weight * xr.DataArray([one.weight for one in after], dims=("patient", "sample"))
    each = [known_ends(Weighted(*(part.isel(patient=[j]) for part in (known.theta, weight)))) for j in range(len(who))]
    lower, upper = np.transpose(each)
    found = {"lower": lower, "upper": upper, "k_hat": [one.k_hat for one in after]}
    return xr.DataTree.from_dict({"log_CL": xr.Dataset({name: ("patient", value) for name, value in found.items()})})


def known_ends(known):
    """The ends of the 89 % interval of log CL of one patient, draws weighted."""
    theta, weight = on_nodes(known)
    log_CL = Weighted(xr.DataArray(theta[:, 0], dims="node"), xr.DataArray(weight, dims="node"))
    return [log_CL.ppf(p).item() for p in (0.055, 0.945)]


def intervals(folder, pooling, samples):
    """Ends of each patient's interval [patient], and k-hat of the weights; without a sample one is that of all."""
    same = {"pooling": pooling, "samples": samples, "size": AT_ONCE if samples else 1}
    starts = range(0, PATIENTS, AT_ONCE) if samples else [0]
    pieces = {f"{pooling} {samples} {first}": {**same, "first": first} for first in starts}
    parts = run(piece_of_work, pieces, folder=folder, progressbar=False).values()
    found = xr.concat([part["log_CL"].to_dataset() for part in parts], "patient")
    return found if samples else found.isel(patient=np.zeros(PATIENTS, int))


def by_the_verb(ends, samples):
    """How far ends of intervals by `personalise` itself are from those, in widths, of the first patients."""
    off = []
    for i in range(BY_THE_VERB):
        person = hz.population_pk.personalise(cohort("partial")[0], rows_of(i, TIMES[samples]), random_seed=i)
        known, one = person["group_summary"].to_dataset().isel(patient=0).sel(coefficient="CL"), ends.isel(patient=i)
        away = abs(known.eti89_lb - one.lower), abs(known.eti89_ub - one.upper)
        off.append(max(map(float, away)) / float(one.upper - one.lower))
    return np.array(off)


def of_patients(folder):
    """A row a number of samples: how often 89 % intervals of log CL hold a patient's, and how wide they are.

    The truth of each patient is drawn from a draw of the cohort's fit: what is then said of the patient must hold as
    often as it says.
    """
    true = truths()[1].sel(coefficient="CL").values
    by_cohort, alone = ([intervals(folder, pooling, n) for n in TIMES] for pooling in ("partial", "none"))
    lines = []
    for samples, *both in zip(TIMES, by_cohort, alone, strict=True):
        width = [(found.upper - found.lower).values for found in both]
        cells = [f"{held(found, true)} | {with_error(w)}" for found, w in zip(both, width, strict=True)]
        narrower, worst = (width[0] < width[1]).sum(), float(both[0].k_hat.max())
        lines.append(f"| {samples} | {' | '.join(cells)} | {narrower} of {PATIENTS} | {worst:.2f} |")
        print(lines[-1], flush=True)
    off = by_the_verb(by_cohort[2], [*TIMES][2])
    print(f"Ends by the verb, in widths: {off.mean():.3f} off, {off.max():.3f} at most", flush=True)
    return lines


def held(ends, true):
    """The share of intervals that hold the truth, and its standard error."""
    share = ((ends.lower.values < true) & (true < ends.upper.values)).mean()
    return f"{share:.3f} +- {np.sqrt(share * (1 - share) / true.size):.3f}"


def with_error(width):
    """The mean width and its standard error."""
    return f"{width.mean():.3f} +- {width.std(ddof=1) / np.sqrt(width.size):.3f}"


def main(folder):
    """Write both tables after the words of the page."""
    warnings.simplefilter("ignore")
    for head, lines in (OF_FEW_SAMPLES, of_theophylline), (OF_A_PERSON, lambda: of_patients(folder)):
        made, text = [head, "|" + " --- |" * (head.count("|") - 1), *lines()], PAGE.read_text()
        start = text.index(head.split(" | ")[0])
        end = text.find("\n\n", start) + 1 or len(text)
        PAGE.write_text(text[:start] + "\n".join(made) + "\n" + text[end:])


if __name__ == "__main__":
    main(sys.argv[1])
