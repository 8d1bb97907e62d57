"""How often variances are estimated as exactly 0, and what pooling them is worth: ``uv run python docs/variances.py``.

Writes the tables of docs/variances.md. Half sibs: 6 sites of 20 sires with 8 offspring each, sigma_E = 1.
"""

from pathlib import Path

import numpy as np
import pandas as pd
import xarray as xr
from scipy import stats
from scipy.special import softmax

import hbm_zoo as hz
from hbm_zoo.diagnostics.variance_components import anova_h2
from hbm_zoo.inference.nodes import with_nodes
from hbm_zoo.priors import quantiles

MODEL = hz.variance_components.MODEL
SITES, SIRES, OFFSPRING, REPLICATES = 6, 20, 8, 60
TRUTHS = {
    "all 0.5": lambda rng: np.full(SITES, 0.5),
    "all 0": lambda rng: np.zeros(SITES),
    "0, 0, .4, .5, .7, .9": lambda rng: np.array([0, 0, 0.4, 0.5, 0.7, 0.9]),
    "log normal(-.7, .3)": lambda rng: np.exp(rng.normal(-0.7, 0.3, SITES)),
    "log normal(-.7, .8)": lambda rng: np.exp(rng.normal(-0.7, 0.8, SITES)),
}
POINTS = 30
HEAD = "| sigma_A | F | REML 0 | ANOVA < 0 | se | posterior there | own | none | partial | partial - none | covered |"


def drawn(rng, sigma_A):
    """A frame of half sibs with these sigma_A."""
    site, sire = (each.ravel() for each in np.indices((SITES, SIRES * OFFSPRING)))
    sire = SIRES * site + sire // OFFSPRING
    g = (rng.normal(0, sigma_A[np.arange(SITES * SIRES) // SIRES]) / 2)[sire]
    g = g + rng.normal(0, sigma_A[site] * np.sqrt(0.75))
    return pd.DataFrame({"site": site, "sire": sire, "response": g + rng.normal(size=site.size)})


def share_exactly_0(sigma_A):
    """P(MS between < MS within), of REML and ANOVA alike where families are equal: an F distribution."""
    within = 0.75 * sigma_A**2 + 1
    ratio = (within + OFFSPRING * sigma_A**2 / 4) / within
    return stats.f.cdf(1 / ratio, SIRES - 1, SIRES * (OFFSPRING - 1))


def estimates(frame):
    """Own estimates, ANOVA's h^2, and posterior means and 90 % intervals of two poolings, by quadrature."""
    data = MODEL.data(frame)
    priors = MODEL.priors(data)
    seen = with_nodes(MODEL, data, priors, 0)
    p = (np.arange(POINTS) + 0.5) / POINTS  # of each prior, equally likely parts of it
    mu, tau = np.meshgrid(*(quantiles(priors[name], p) for name in ("mu", "tau")))
    h = xr.Dataset({"mu": ("sample", mu.ravel()), "tau": ("sample", tau.ravel())})
    weight = softmax(MODEL.group_level.log_joint(h, seen).values)
    few = h.isel(sample=np.random.default_rng(0).choice(weight.size, 400, p=weight))
    fixed = xr.Dataset({name: ("sample", [v]) for name, v in MODEL.fixed["none"](priors, data).items()})
    found = {"own": MODEL.own(data).values, "anova": [anova_h2(data, j) for j in range(SITES)]}
    for name, at in (("none", fixed.isel(sample=np.zeros(400, int))), ("partial", few)):
        a = abs(MODEL.group_level.conditional(at, seen).sample(np.random.default_rng(1)))
        after = MODEL.group_level.after(at, seen)
        found[name] = after.mean.mean("sample").values
        found[f"{name}_low"], found[f"{name}_high"] = a.quantile([0.05, 0.95], "sample").values
    return pd.DataFrame(found)


def row(name, truth):
    """One line of the table: each truth so many times."""
    rng = np.random.default_rng(1)
    parts = []
    for i in range(REPLICATES):
        sigma_A = truth(rng)
        parts.append(estimates(drawn(rng, sigma_A)).assign(truth=sigma_A, replicate=i))
    all_of = pd.concat(parts)
    zero, n = all_of["own"] == 0, len(all_of)
    negative = (all_of["anova"] < 0).mean()
    expected = np.mean(share_exactly_0(all_of["truth"].to_numpy()))
    square = {of: (all_of[of] - all_of["truth"]) ** 2 for of in ("own", "none", "partial")}
    rmse = {of: np.sqrt(each.mean()) for of, each in square.items()}
    by_replicate = (square["partial"] - square["none"]).groupby(all_of["replicate"]).mean()
    gain, error = by_replicate.mean(), by_replicate.std(ddof=1) / np.sqrt(REPLICATES)
    covered = {
        of: ((all_of[f"{of}_low"] <= all_of["truth"]) & (all_of["truth"] <= all_of[f"{of}_high"]))[all_of["truth"] > 0]
        for of in ("none", "partial")
    }
    shown = " / ".join(f"{each.mean():.2f}" if each.size else "-" for each in covered.values())
    there = all_of[zero]
    says = f"{there['partial'].mean():.2f} (up to {there['partial_high'].mean():.2f})" if len(there) else "-"
    se = np.sqrt(zero.mean() * (1 - zero.mean()) / n)
    cells = [*(f"{share:.2f}" for share in (expected, zero.mean(), negative, se)), says]
    cells += [f"{rmse[of]:.3f}" for of in rmse] + [f"{gain:+.3f} ({error:.3f})", shown]
    return f"| {name} | {' | '.join(cells)} |"


def main():
    """Write the table after the text of the page."""
    page = Path(__file__).with_name("variances.md")
    text = page.read_text().split("| sigma_A |")[0]
    text += HEAD + "\n|" + " --- |" * (HEAD.count("|") - 1) + "\n"
    for name, truth in TRUTHS.items():
        text += row(name, truth) + "\n"
        page.write_text(text)
        print(text.splitlines()[-1], flush=True)


if __name__ == "__main__":
    main()
