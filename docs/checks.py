"""Make the table of docs/checks.md: ``uv run python docs/checks.py FOLDER``, where what is finished is kept.

``--only "reaction_norms | partial | bent"`` makes one line, ``--only reaction_norms`` all of a model (``true`` is the
line where nothing is wrong); ``--data-sets 100`` and ``--faulty 20`` stop at fewer.
"""

import argparse
from pathlib import Path

import numpy as np
import pandas as pd
import xarray as xr

import hbm_zoo as hz
from hbm_zoo.diagnostics import replicas
from hbm_zoo.diagnostics.simulations import Design, of_priors
from hbm_zoo.inference.nodes import with_nodes
from hbm_zoo.workers.run import run, seed_of

#: Data sets of a line where nothing is wrong, where something is, and how many a piece of work holds.
DATA_SETS, FAULTY, AT_ONCE = 200, 40, 5
HEAD = "| model | pooling | data | data sets | rejected | se | by which checks |"


# Designs: what every simulated frame has, and its priors, computed once.


def designs():
    """A frame of each model, from which its priors are frozen."""
    rng = np.random.default_rng(0)
    return {
        "vaccine_clinics": hz.vaccine_clinics.MODEL.simulate(rng, clinics=30)[0],
        "hospital_readmission": hz.hospital_readmission.MODEL.simulate(rng, hospitals=60)[0],
        "success_rates": hz.success_rates.MODEL.simulate(rng, units=30)[0],
        "tissue_expression": hz.tissue_expression.MODEL.simulate(rng, tissues=15)[0],
        "reaction_norms": hz.reaction_norms.MODEL.simulate(rng, genotypes=20)[0],
        "spike_slab_genes": hz.spike_slab_genes.MODEL.simulate(rng, genes=1000)[0],
        "material_batches": hz.material_batches.MODEL.simulate(rng, batches=(4, 4), specimens=(5, 5))[0],
        "variance_components": hz.variance_components.MODEL.simulate(rng, sites=4)[0],
        "model_discrepancy": hz.model_discrepancy.MODEL.simulate(rng)[0],
        "model_discrepancy discrepancy=none": hz.model_discrepancy.MODEL.simulate(rng)[0],
        "population_pk route=iv": hz.population_pk.MODEL.under(route="iv").simulate(rng, patients=10)[0],
        "success_rates population=logit-normal": hz.success_rates.MODEL.simulate(rng, units=30)[0],
        "vaccine_clinics population=student-t": hz.vaccine_clinics.MODEL.simulate(rng, clinics=30)[0],
        "hospital_readmission noise=binomial": hz.hospital_readmission.MODEL.under(noise="binomial").simulate(
            rng, hospitals=60
        )[0],
        "selection_gradients": hz.selection_gradients.MODEL.simulate(rng)[0],
        "selection_gradients exact=True": hz.selection_gradients.MODEL.under(exact=True).simulate(
            rng, years=12, animals=(50, 100)
        )[0],
        "reaction_networks": hz.reaction_networks.MODEL.simulate(rng, modules=8, rich=8, times=(0.5, 1, 2, 4, 8))[0],
        "tissue_expression population=student-t": hz.tissue_expression.MODEL.simulate(rng, tissues=15)[0],
        "tissue_expression sigma=by tissue": hz.tissue_expression.MODEL.simulate(rng, tissues=15)[0],
        "tissue_expression noise=student-t": hz.tissue_expression.MODEL.simulate(rng, tissues=8)[0],
        "spike_slab_genes null=empirical": hz.spike_slab_genes.MODEL.simulate(rng, genes=1000)[0],
        "spike_slab_genes unit=z": hz.spike_slab_genes.MODEL.simulate(rng, genes=1000)[0],
        "spike_slab_genes slab=unimodal": hz.spike_slab_genes.MODEL.simulate(rng, genes=1000)[0],
    }


#: What is known beforehand, where data of the default priors would be refused: compliances below 0.
KNOWN = {"model_discrepancy": {"m": "Normal(mu=0.0143, sigma=0.0015)"}}


def settled(case, frame):
    """The record of a model under the options that its name is followed by, and those for its data."""
    model, _, said = case.partition(" ")
    record, chosen = hz.MODELS[model].MODEL, dict([said.split("=")] if said else [])
    chosen = {name: {"True": True}.get(value, value) for name, value in chosen.items()}
    return record.split({**record.under(**chosen).extras.simulated, **chosen}, frame)


# Faults: from a frame and a generator to a frame whose response is wrong in one way.


def t_population(frame, rng):
    """Effects of clinics from a t with 3 degrees of freedom, spread twice the median standard error."""
    theta = 2 * frame["standard_error"].median() * rng.standard_t(3, len(frame))
    return frame.assign(effect=rng.normal(theta, frame["standard_error"]))


def t_noise_of_clinics(frame, rng):
    """Noise of clinics from a t with 3 degrees of freedom; a normal population as wide as the median standard error."""
    theta = frame["standard_error"].median() * rng.standard_normal(len(frame))
    return frame.assign(effect=theta + frame["standard_error"] * rng.standard_t(3, len(frame)))


def two_populations_of_clinics(frame, rng):
    """Half of the clinics 6 median standard errors away from the others, and no other spread."""
    theta = 6 * frame["standard_error"].median() * rng.integers(0, 2, len(frame))
    return frame.assign(effect=rng.normal(theta, frame["standard_error"]))


def spread_of_clinics(frame, rng):
    """A normal population as wide as the median standard error."""
    theta = frame["standard_error"].median() * rng.standard_normal(len(frame))
    return frame.assign(effect=rng.normal(theta, frame["standard_error"]))


def overdispersed(frame, rng):
    """Counts with 30 % more variance than a Poisson; no spread of hospitals."""
    mean = frame["expected"].to_numpy()
    return frame.assign(observed=rng.negative_binomial(mean / 0.3, 1 / 1.3))


def two_populations_of_hospitals(frame, rng):
    """A fifth of the hospitals with twice the rate, the others within 10 %."""
    lam = np.where(rng.random(len(frame)) < 0.2, 2.0, 1.0) * rng.gamma(100, 1 / 100, len(frame))
    return frame.assign(observed=rng.poisson(frame["expected"] * lam))


def too_many_zeros(frame, rng):
    """A tenth of the hospitals report nothing."""
    lam = rng.gamma(25, 1 / 25, len(frame)) * (rng.random(len(frame)) > 0.1)
    return frame.assign(observed=rng.poisson(frame["expected"] * lam))


def two_kinds_of_odds(frame, rng):
    """A fifth of the hospitals with four times the odds, log odds of the others within 0.1."""
    alpha = np.where(rng.random(len(frame)) < 0.2, np.log(4), 0.0) + 0.1 * rng.standard_normal(len(frame))
    return frame.assign(observed=rng.binomial(frame["discharges"], at_risk(frame, alpha)))


def at_risk(frame, alpha):
    """Probabilities of hospitals whose log odds lie alpha above those expected."""
    e = frame["expected"] / frame["discharges"]
    return 1 / (1 + (1 - e) / e * np.exp(-alpha))


def an_odd_year(frame, rng):
    """Selection of two traits; in one of sixteen years gradients lie eight spreads from those of the others."""
    again, _ = hz.selection_gradients.MODEL.simulate(rng)
    away = 8 * again["trait"].map({"beak_depth": 0.1, "mass": 0.05})
    return again.assign(gradient=again["gradient"] + away.where(again["year"] == again["year"].min(), 0.0))


def stabilising(frame, rng):
    """Survival falls to both sides of the mean trait: log odds by a third of its square, in sds."""
    z = frame["z"].to_numpy()
    return frame.assign(survived=(rng.random(len(frame)) < 1 / (1 + np.exp(-0.3 * z + (z**2 - 1) / 3))).astype(int))


def two_populations_of_units(frame, rng):
    """A fifth of the units succeed in 60 % of trials, the others in 20 %."""
    p = np.where(rng.random(len(frame)) < 0.2, 0.6, 0.2)
    return frame.assign(successes=rng.binomial(frame["trials"], p))


def rows(frame, rng, noise):
    """Tissues N(8, 1) with some noise of the rows, given of each row."""
    tissue, _ = pd.factorize(frame["tissue"])
    return frame.assign(expression=8 + rng.standard_normal(tissue.max() + 1)[tissue] + noise)


def t_noise(frame, rng):
    """Rows of tissues from a t with 4 degrees of freedom."""
    return rows(frame, rng, 0.5 * rng.standard_t(4, len(frame)))


def unequal_variances(frame, rng):
    """Log sds of tissues with an sd of 0.4."""
    tissue, _ = pd.factorize(frame["tissue"])
    sd = 0.5 * np.exp(0.4 * rng.standard_normal(tissue.max() + 1))
    return rows(frame, rng, sd[tissue] * rng.standard_normal(len(frame)))


def lines(frame, rng, bend=0.0, noise=None):
    """Lines of genotypes as `simulate` has them, bent, with some noise of the rows."""
    of, _ = pd.factorize(frame["genotype"])
    x = frame["environment"].to_numpy() - 5
    level, slope = 50 + 6 * rng.standard_normal(of.max() + 1), 2 + 0.8 * rng.standard_normal(of.max() + 1)
    noise = 4.0 if noise is None else noise(x, of)
    return frame.assign(response=level[of] + slope[of] * x + bend * x**2 + noise * rng.standard_normal(len(frame)))


def bent(frame, rng):
    """Lines that fall 5 below the straight at both ends of the environment."""
    return lines(frame, rng, bend=-0.2)


def growing_noise(frame, rng):
    """Noise with an sd of 2 at one end of the environment and 6 at the other."""
    return lines(frame, rng, noise=lambda x, of: 4 + 0.4 * x)


def unequal_noise(frame, rng):
    """Log sds of genotypes' noise with an sd of 0.5."""
    sds = 4 * np.exp(0.5 * rng.standard_normal(1000))
    return lines(frame, rng, noise=lambda x, of: sds[of])


def genes(frame, rng, noise, share=0.1):
    """Effects of a share of genes with an sd of three median standard errors, and some noise in standard errors."""
    se = frame["standard_error"].to_numpy()
    theta = (rng.random(len(frame)) < share) * 3 * np.median(se) * rng.standard_normal(len(frame))
    return frame.assign(effect=theta + se * noise)


def wide_null(frame, rng):
    """Z scores with an sd of 1.3 and no effects."""
    return genes(frame, rng, 1.3 * rng.standard_normal(len(frame)), share=0.0)


def wide_null_with_effects(frame, rng):
    """Z scores with an sd of 1.3, and effects of a tenth of the genes."""
    return genes(frame, rng, 1.3 * rng.standard_normal(len(frame)))


def t_noise_of_genes(frame, rng):
    """Noise of genes from a t with 5 degrees of freedom, no effects."""
    return genes(frame, rng, rng.standard_t(5, len(frame)), share=0.0)


def correlated(frame, rng):
    """Blocks of 50 genes whose noise has a correlation of 0.5, no effects."""
    block = np.arange(len(frame)) // 50
    shared = rng.standard_normal(block.max() + 1)[block]
    return genes(frame, rng, np.sqrt(0.5) * (shared + rng.standard_normal(len(frame))), share=0.0)


def strengths(frame, rng, noise, drift=0.0):
    """Campaigns, batches and specimens as `simulate` has them, with a drift of batches within their campaign."""
    campaign, batch = pd.factorize(frame["campaign"])[0], frame["batch"].to_numpy(int)
    which = pd.factorize(frame[["campaign", "batch"]].apply(tuple, axis=1))[0]
    mean = 500 + 8 * rng.standard_normal(campaign.max() + 1)[campaign] + 6 * rng.standard_normal(which.max() + 1)[which]
    return frame.assign(strength=mean + drift * batch + noise(which) * rng.standard_normal(len(frame)))


def drifting_batches(frame, rng):
    """Each batch of a campaign is 5 stronger than the one before; their sd is 6."""
    return strengths(frame, rng, lambda which: 10.0, drift=5.0)


def unequal_batches(frame, rng):
    """Log sds of batches with an sd of 0.5."""
    return strengths(frame, rng, lambda which: 10 * np.exp(0.5 * rng.standard_normal(which.max() + 1))[which])


def t_noise_of_specimens(frame, rng):
    """Specimens from a t with 3 degrees of freedom."""
    return strengths(frame, rng, lambda which: 7 / np.sqrt(rng.chisquare(3, len(frame)) / 3))


def log_trait(frame, rng):
    """A trait that is normal on the log scale, with an sd of 0.5 there."""
    again, _ = hz.variance_components.MODEL.simulate(rng, sites=4)
    scale = 0.5 / again["response"].std()
    return again.assign(response=np.exp(scale * (again["response"] - 10)))


def t_noise_of_traits(frame, rng):
    """Errors of a trait from a t with 3 degrees of freedom, added to those that are normal and as large."""
    again, _ = hz.variance_components.MODEL.simulate(rng, sites=4)
    return again.assign(response=again["response"] + 0.5 * rng.standard_t(3, len(again)))


def a_spring(frame, rng):
    """A support that turns, and adds 5 % to the deflection of the tip."""
    return hz.model_discrepancy.MODEL.simulate(rng, share=0.05)[0]


def each_mounting(frame, rng):
    """Each mounting adds a wave along the beam, its size with an sd of 0.1 mm at the middle load."""
    again, _ = hz.model_discrepancy.MODEL.simulate(rng, share=0.3)
    of, x = pd.factorize(again["specimen"])[0], again["position"].to_numpy()
    load = again["load"].to_numpy() / again["load"].median()
    wave = np.sin(4 * np.pi * x)  # what no compliance can look like
    return again.assign(deflection=again["deflection"] + 0.1 * rng.standard_normal(of.max() + 1)[of] * load * wave)


def t_readings(frame, rng):
    """Readings with errors from a t with 3 degrees of freedom."""
    again, _ = hz.model_discrepancy.MODEL.simulate(rng, sigma=1e-3)
    return again.assign(deflection=again["deflection"] + 0.05 * rng.standard_t(3, len(again)))


def concentrations(frame, rng, kinds=0.0, share=0.0, degrees=np.inf):
    """Patients within 20 % of one another; some log clearances away, errors with a share of what is expected."""
    record = hz.population_pk.MODEL.under(route="iv")
    data = record.data(frame, **record.extras.simulated)
    theta = np.log([2.8, 32.0]) + 0.2 * rng.standard_normal((data.sizes["patient"], 2))
    theta[0, 0] += kinds
    h = xr.Dataset({"sigma_add": 0.0, "sigma_prop": 0.0})
    f = record.group_level.replicate(rng, xr.DataArray(theta, dims=("patient", "coefficient")), h, data, data).values
    noise = rng.standard_normal(f.size) if degrees == np.inf else rng.standard_t(degrees, f.size)
    found = frame.copy()
    found.loc[record.measured(frame), "concentration"] = f + np.hypot(0.2, share * f) * noise
    return found


def a_patient_of_another_kind(frame, rng):
    """One of ten patients clears the drug twenty times as fast; the others are within 20 % of one another."""
    return concentrations(frame, rng, kinds=np.log(20))


def growing_error(frame, rng):
    """Errors of samples grow by a fifth of the concentration, and the model has them additive."""
    return concentrations(frame, rng, share=0.2)


def t_noise_of_samples(frame, rng):
    """Errors of samples from a t with 3 degrees of freedom."""
    return concentrations(frame, rng, degrees=3)


def amounts(frame, rng, kinds=0.0, loss=0.0, share=0.0, degrees=np.inf):
    """Modules within 20 % of one another; one whose last rate is another, a loss that the network has not, noise."""
    record = hz.reaction_networks.MODEL.under(network="A <-> B : k1, km; B -> C : k2; A -> 0 : loss")
    data, h = record.data(frame), xr.Dataset({"sigma": 0.0})
    with np.errstate(divide="ignore"):
        theta = np.log([1.0, 0.6, 0.5, loss]) + 0.2 * rng.standard_normal((data.sizes["module"], 4))
    theta[0, 2] += kinds
    theta = xr.DataArray(theta, dims=("module", "coefficient"))
    x = record.group_level.replicate(rng, theta, h, data, data).values
    noise = rng.standard_normal(x.size) if degrees == np.inf else rng.standard_t(degrees, x.size)
    return frame.assign(value=x + (share * x if share else 0.03) * noise)


def a_module_of_another_kind(frame, rng):
    """The last rate of one of eight modules is a twentieth of theirs, who are within 20 % of one another."""
    return amounts(frame, rng, kinds=-np.log(20))


def a_loss(frame, rng):
    """A is lost besides, by a rate of 0.1, and the network does not say so."""
    return amounts(frame, rng, loss=0.1)


def error_in_shares(frame, rng):
    """Errors of rows are a tenth of the amount, and the model has them the same."""
    return amounts(frame, rng, share=0.1)


def t_noise_of_rows(frame, rng):
    """Errors of rows from a t with 3 degrees of freedom."""
    return amounts(frame, rng, degrees=3)


FAULTS = {
    "vaccine_clinics": {
        "complete": [spread_of_clinics],
        "partial": [t_population, t_noise_of_clinics, two_populations_of_clinics],
    },
    "hospital_readmission": {
        "complete": [overdispersed],
        "partial": [overdispersed, two_populations_of_hospitals, too_many_zeros],
    },
    "success_rates": {"partial": [two_populations_of_units]},
    "tissue_expression": {"partial": [t_noise, unequal_variances]},
    "reaction_norms": {"partial": [bent, growing_noise, unequal_noise]},
    "spike_slab_genes": {"partial": [wide_null, wide_null_with_effects, t_noise_of_genes, correlated]},
    "material_batches": {"partial": [drifting_batches, unequal_batches, t_noise_of_specimens]},
    "variance_components": {"partial": [log_trait, t_noise_of_traits]},
    "model_discrepancy": {"partial": [each_mounting, t_readings]},
    "model_discrepancy discrepancy=none": {"partial": [a_spring]},
    "population_pk route=iv": {"partial": [a_patient_of_another_kind, growing_error, t_noise_of_samples]},
    "hospital_readmission noise=binomial": {"partial": [two_kinds_of_odds]},
    "selection_gradients": {"partial": [an_odd_year]},
    "selection_gradients exact=True": {"partial": [stabilising]},
    "success_rates population=logit-normal": {"partial": [two_populations_of_units]},
    "vaccine_clinics population=student-t": {"partial": [two_populations_of_clinics]},
    **dict.fromkeys(
        [
            *(f"tissue_expression {o}" for o in ("population=student-t", "sigma=by tissue", "noise=student-t")),
            *(f"spike_slab_genes {o}" for o in ("null=empirical", "unit=z", "slab=unimodal")),
        ],
        {"partial": []},
    ),
    "reaction_networks": {"partial": [a_module_of_another_kind, a_loss, error_in_shares, t_noise_of_rows]},
}


def no_fault(frame, rng, record, options, pooling, priors):
    """Truth and data drawn from the priors of the design."""
    data = record.data(frame, **options)
    if record.group_level.nodes:
        data = with_nodes(record, data, priors, 0)
    fixed = record.fixed[pooling](priors, data)
    design = Design(data, np.arange(1), np.arange(1), [name for name in record.parameters if name not in fixed], fixed)
    h, level = of_priors(priors, design, 1, rng), record.group_level
    theta = level.before(h, data, record.group).sample(rng)
    response = level.replicate(rng, theta, h, data, level.unseen(data)).isel(sample=0).values
    found = frame.copy()
    found.loc[record.measured(frame), record.response] = response
    return found


def piece_of_work(piece):
    """Which checks each of some data sets fails [data set, check]."""
    replicas.LEAST = 1  # no interval is read here
    rng, pooling, frame = np.random.default_rng(piece["seed"]), piece["pooling"], piece["frame"]
    fault, found = FAULT_BY_NAME.get(piece["fault"]), []
    record, options = settled(piece["case"], frame)
    for _ in range(piece["size"]):
        wrong = fault(frame, rng) if fault else no_fault(frame, rng, record, options, pooling, piece["priors"])
        same = {"priors": piece["priors"], "draws": 250, "progressbar": False} | options
        fit = hz.fit(record, wrong, pooling, random_seed=int(rng.integers(2**31)), **same)
        p = hz.check_model(fit).droplevel("pooling")["p_holm"]
        found.append(xr.DataArray(p.to_numpy(float), {"check": p.index.to_numpy(str)}, "check"))
    return xr.DataTree.from_dict({"p_holm": xr.Dataset({"p": xr.concat(found, "data_set")})})


FAULT_BY_NAME = {f.__name__: f for poolings in FAULTS.values() for faults in poolings.values() for f in faults}


def line(folder, case, pooling, fault, frame, data_sets):
    """One line of the table."""
    record, options = settled(case, frame)
    same = {"case": case, "pooling": pooling, "fault": fault, "frame": frame}
    data = record.data(frame, **options)
    priors = record.priors(data, KNOWN.get(case.split()[0]), pooling)
    same["priors"] = {n: prior for n, prior in priors.items() if n not in record.extras.absent(data)}
    name = f"{case}-{pooling}-{fault or 'true'}"
    pieces = {f"{k}": {**same, "size": AT_ONCE, "seed": seed_of(1, f"{name} {k}")} for k in range(data_sets // AT_ONCE)}
    parts = run(piece_of_work, pieces, folder=Path(folder) / name, progressbar=False).values()
    p = xr.concat([part["p_holm"]["p"] for part in parts], "data_set")
    failed = p < 0.05
    rate = float(failed.any("check").mean())
    shares = failed.mean("data_set").to_series().sort_values(ascending=False)
    said = ", ".join(f"{check} {share:.2f}" for check, share in shares[shares > 0.01].items()).replace("|", "\\|")
    about = FAULT_BY_NAME[fault].__doc__.strip().rstrip(".") if fault else "**truth and data from the priors**"
    size = failed.sizes["data_set"]
    return f"| {case} | {pooling} | {about} | {size} | {rate:.3f} | {np.sqrt(rate * (1 - rate) / size):.3f} | {said} |"


def asked(only):
    """Case, pooling and fault of each line whose name starts as asked; where none does, the names are given."""
    every = [
        (case, pooling, fault)
        for case, poolings in FAULTS.items()
        for pooling, faults in poolings.items()
        for fault in ["", *(f.__name__ for f in faults)]
    ]
    names = {" | ".join([case, pooling, fault or "true"]): (case, pooling, fault) for case, pooling, fault in every}
    found = [each for name, each in names.items() if f"{name} | ".startswith(f"{only} | " if only else "")]
    if not found:
        raise SystemExit(f"no line is called {only!r}: {'; '.join(names)}")
    return found


def main(folder, only=None, data_sets=DATA_SETS, faulty=FAULTY):
    """Write the table anew after each line."""
    page = Path(__file__).with_name("checks.md")
    before = page.read_text().split(HEAD)
    kept = [row for row in before[1].splitlines()[2:] if row] if len(before) > 1 else []
    frames = designs()
    order = {name: k for k, name in enumerate(frames)}
    for case, pooling, fault in asked(only):
        row = line(folder, case, pooling, fault, frames[case], faulty if fault else data_sets)
        start = row.rsplit("|", 5)[0]
        kept = [*(other for other in kept if not other.startswith(start)), row]
        print(row, flush=True)
        kept.sort(key=lambda row: order[row.split(" | ")[0].strip("| ")])
        rule = "|" + " --- |" * (HEAD.count("|") - 1)
        page.write_text(before[0] + "\n".join([HEAD, rule, *kept, ""]))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder")
    parser.add_argument("--only")
    parser.add_argument("--data-sets", type=int, default=DATA_SETS)
    parser.add_argument("--faulty", type=int, default=FAULTY)
    main(**vars(parser.parse_args()))
