"""The zoo against textbook PyMC, Bambi and NumPyro: the same data, the same priors, one run.

    uv run --group benchmarks python benchmarks/peers.py [hospitals | reaction_norms | tissues | genes]

* hospitals: 3,000 hospitals (``pm.NegativeBinomial``)
* reaction norms: 500 genotypes x 10 environments
* tissues: 1,000,000 cells in 50 tissues
* genes: 20,000 genes, spike and slab with the indicator summed out (``pm.NormalMixture``)

``speed`` is effective draws of the worst hyperparameter per second of the whole: from the frame to the fit, building,
compiling, sampling, and for the zoo each group recovered, summarised and left out. Of the peers that integrate the
groups out, ``PyMC_groups`` does the same work: draws of each group from its conditional, their mean and interval, and
leave-one-out by ArviZ; the others stop at the hyperparameters. Effective draws are the bulk ESS of
chains, and what the zoo's independent draws are worth by their weights, which their ESS would overstate. Each runner
works twice in processes of its own and the second is counted, with what the first left on disk. Peers that need
minutes are given fewer draws: the speed counts draws.
"""

import json
import os
import subprocess
import sys
import time
import warnings

import arviz as az
import numpy as np
import nutpie
import pandas as pd
import pymc as pm

import hbm_zoo as hz

CHAINS, CORES = 4, 2


def zoo(model, frame) -> dict[str, float]:
    """A fit as a user makes it."""
    fitted = hz.fit  # imported before the clock starts, as the peers are
    start = time.perf_counter()
    fit = fitted(model, frame, random_seed=1, progressbar=False)
    wall = time.perf_counter() - start
    if fit.attrs["engine"] == "nuts":
        return scores({name: fit["posterior"][name].values for name in fit["log_prior"].data_vars}, wall)
    ess = fit.attrs["efficiency"] * fit["posterior"].sizes["chain"] * fit["posterior"].sizes["draw"]
    return {"ess": ess, "wall": wall, "speed": ess / wall}


def by_nutpie(write, names: list[str], draws: int, groups=None) -> dict[str, float]:
    """Write, compile and sample a PyMC model by its fastest sampler; then what ``groups(model, tree)`` does."""
    start = time.perf_counter()
    model = write()
    names = [name for name in names if name in model.named_vars]
    tree = nutpie.sample(
        nutpie.compile_pymc_model(model, var_names=names),
        draws=draws,
        tune=draws,
        chains=CHAINS,
        cores=CORES,
        seed=1,
        progress_bar=False,
        save_warmup=False,
    )
    if groups is not None:
        groups(model, tree)
    return scores({name: tree["posterior"].dataset[name].values for name in names}, time.perf_counter() - start)


def summarised(model, tree, theta: np.ndarray) -> None:
    """What a fit of the zoo holds beside its draws: of each group, draws [sample, group], and of leaving it out."""
    theta.mean(axis=0), theta.std(axis=0), np.quantile(theta, [0.055, 0.945], axis=0)
    pm.compute_log_likelihood(tree, model=model, progressbar=False)
    az.loo(tree, pointwise=True)


def by_numpyro(model, names: list[str], draws: int, *arguments) -> dict[str, float]:
    """Compile and sample a NumPyro model."""
    import jax
    import numpyro
    from numpyro.infer import MCMC, NUTS

    numpyro.set_host_device_count(CORES)
    jax.config.update("jax_enable_x64", True)
    start = time.perf_counter()
    mcmc = MCMC(
        NUTS(model),
        num_warmup=draws,
        num_samples=draws,
        num_chains=CHAINS,
        chain_method="sequential",
        progress_bar=False,
    )
    mcmc.run(jax.random.PRNGKey(1), *arguments)
    values = {name: np.asarray(value) for name, value in mcmc.get_samples(group_by_chain=True).items() if name in names}
    return scores(values, time.perf_counter() - start)


def scores(values: dict[str, np.ndarray], wall: float) -> dict[str, float]:
    """Smallest bulk ESS, seconds, speed."""
    ess = min(float(az.ess(value, method="bulk")) for value in values.values())
    return {"ess": ess, "wall": wall, "speed": ess / wall}


# Hospitals.


def hospitals_pymc(frame, priors) -> pm.Model:
    """O_j ~ NegativeBinomial with mean E_j mu and shape 1/cv^2, as PyMC writes it."""
    with pm.Model() as model:
        mu, cv = (priors[name].create_variable(name) for name in ("mu", "cv"))
        pm.NegativeBinomial("O", mu=frame["expected"].to_numpy() * mu, alpha=cv**-2, observed=frame["observed"])
    return model


def hospitals_recovered(model, tree, frame) -> None:
    """Rates from their Gamma given mu and cv."""
    mu, a = (tree["posterior"].dataset[name].values.ravel()[:, None] for name in ("mu", "cv"))
    a = a**-2
    shape, rate = a + frame["observed"].to_numpy(), a / mu + frame["expected"].to_numpy()
    summarised(model, tree, np.random.default_rng(1).standard_gamma(shape) / rate)


def hospitals_numpyro(observed, expected, numbers):
    """The same model in NumPyro."""
    import numpyro
    import numpyro.distributions as dist

    mu = numpyro.sample("mu", dist.LogNormal(*numbers["mu"]))
    cv = numpyro.sample("cv", dist.HalfNormal(*numbers["cv"]))
    numpyro.sample("O", dist.NegativeBinomial2(expected * mu, cv**-2), obs=observed)


def hospitals() -> dict:
    """3,000 hospitals."""
    frame, _ = hz.hospital_readmission.simulate(np.random.default_rng(1), hospitals=3_000)
    record = hz.hospital_readmission.MODEL
    priors = record.priors(record.data(frame), pooling="partial")
    observed, expected = frame["observed"].to_numpy(), frame["expected"].to_numpy()
    return dict(
        hbm_zoo=lambda: zoo(hz.hospital_readmission, frame),
        PyMC=lambda: by_nutpie(lambda: hospitals_pymc(frame, priors), ["mu", "cv"], 1000),
        PyMC_groups=lambda: by_nutpie(
            lambda: hospitals_pymc(frame, priors),
            ["mu", "cv"],
            1000,
            lambda model, tree: hospitals_recovered(model, tree, frame),
        ),
        NumPyro=lambda: by_numpyro(hospitals_numpyro, ["mu", "cv"], 1000, observed, expected, numbers_of(priors)),
    )


# Reaction norms.


def lines_pymc(frame, priors) -> pm.Model:
    """Correlated intercepts and slopes as a textbook writes them: LKJ Cholesky factor, noncentered."""
    genotype, names = pd.factorize(frame["genotype"])
    x = (frame["environment"] - frame["environment"].mean()).to_numpy()
    with pm.Model() as model:
        mu = pm.math.stack([priors[name].create_variable(name) for name in ("mu_intercept", "mu_slope")])
        spread = pm.math.stack([priors[name].create_variable(name) for name in ("tau_intercept", "tau_slope")])
        chol, corr, _ = pm.LKJCholeskyCov("chol", eta=2, n=2, sd_dist=pm.HalfNormal.dist(1.0), store_in_trace=False)
        unit = chol / pm.math.sqrt((chol**2).sum(axis=1, keepdims=True))
        pm.Deterministic("rho", corr[0, 1])
        sigma = priors["sigma"].create_variable("sigma")
        z = pm.Normal("z", size=(len(names), 2))
        theta = mu + (z @ unit.T) * spread
        pm.Normal("y", theta[genotype, 0] + theta[genotype, 1] * x, sigma, observed=frame["response"].to_numpy())
    return model


def lines_numpyro(genotype, groups, x, y, numbers):
    """The same model in NumPyro."""
    import numpyro
    import numpyro.distributions as dist

    mu = [numpyro.sample(name, dist.Normal(*numbers[name])) for name in ("mu_intercept", "mu_slope")]
    spread = [numpyro.sample(name, dist.HalfNormal(*numbers[name])) for name in ("tau_intercept", "tau_slope")]
    chol = numpyro.sample("chol", dist.LKJCholesky(2, 2.0))
    numpyro.deterministic("rho", chol[1, 0])
    sigma = numpyro.sample("sigma", dist.HalfNormal(*numbers["sigma"]))
    z = numpyro.sample("z", dist.Normal(0, 1).expand([groups, 2]).to_event(2))
    theta = z @ chol.T
    intercept, slope = mu[0] + spread[0] * theta[:, 0], mu[1] + spread[1] * theta[:, 1]
    numpyro.sample("y", dist.Normal(intercept[genotype] + slope[genotype] * x, sigma), obs=y)


def reaction_norms() -> dict:
    """500 genotypes in 10 environments."""
    model = hz.reaction_norms
    frame, _ = model.simulate(np.random.default_rng(1), genotypes=500, environments=10)
    record = model.MODEL
    priors = record.priors(record.data(frame))
    names = list(record.parameters)
    genotype, labels = pd.factorize(frame["genotype"])
    x = (frame["environment"] - frame["environment"].mean()).to_numpy()
    return dict(
        hbm_zoo=lambda: zoo(model, frame),
        PyMC=lambda: by_nutpie(lambda: lines_pymc(frame, priors), names, 500),
        NumPyro=lambda: by_numpyro(
            lines_numpyro, names, 500, genotype, len(labels), x, frame["response"].to_numpy(), numbers_of(priors)
        ),
    )


# Tissues.


def tissues_pymc(frame, priors) -> pm.Model:
    """Cells in tissues as a textbook writes them, a row a cell."""
    tissue, names = pd.factorize(frame["tissue"])
    with pm.Model() as model:
        mu, tau, sigma = (priors[name].create_variable(name) for name in ("mu", "tau", "sigma"))
        theta = pm.Normal("theta", mu, tau, size=len(names))
        pm.Normal("y", theta[tissue], sigma, observed=frame["expression"].to_numpy())
    return model


def tissues_bambi(frame, priors) -> pm.Model:
    """The same model by its formula."""
    import bambi as bmb

    def prior(name: str):
        return bmb.Prior(priors[name].distribution, **{k: float(v) for k, v in priors[name].parameters.items()})

    of_tissues = bmb.Prior("Normal", mu=0, sigma=prior("tau"))
    given = {"Intercept": prior("mu"), "1|tissue": of_tissues, "sigma": prior("sigma")}
    model = bmb.Model(
        "expression ~ 1 + (1|tissue)", frame.astype({"tissue": str}), priors=given, center_predictors=False
    )
    model.build()
    return model.backend.model


def tissues_numpyro(tissue, groups, y, numbers):
    """The same model in NumPyro."""
    import numpyro
    import numpyro.distributions as dist

    mu = numpyro.sample("mu", dist.Normal(*numbers["mu"]))
    tau = numpyro.sample("tau", dist.HalfNormal(*numbers["tau"]))
    sigma = numpyro.sample("sigma", dist.HalfNormal(*numbers["sigma"]))
    theta = numpyro.sample("theta", dist.Normal(mu, tau).expand([groups]).to_event(1))
    numpyro.sample("y", dist.Normal(theta[tissue], sigma), obs=y)


def tissues() -> dict:
    """1,000,000 cells in 50 tissues; the peers get 100 draws a chain, or they would take an hour."""
    model = hz.tissue_expression
    rng = np.random.default_rng(1)
    tissue = rng.integers(50, size=1_000_000)
    expression = rng.normal(8, 1, 50)[tissue] + rng.normal(0, 1.5, tissue.size)
    frame = pd.DataFrame({"tissue": tissue, "expression": expression})
    record = model.MODEL
    priors = record.priors(record.data(frame))
    names = list(record.parameters)
    return dict(
        hbm_zoo=lambda: zoo(model, frame),
        PyMC=lambda: by_nutpie(lambda: tissues_pymc(frame, priors), names, 100),
        Bambi=lambda: by_nutpie(lambda: tissues_bambi(frame, priors), ["Intercept", "1|tissue_sigma", "sigma"], 100),
        NumPyro=lambda: by_numpyro(tissues_numpyro, names, 100, tissue, 50, expression, numbers_of(priors)),
    )


# Genes.


def genes_pymc(frame, priors) -> pm.Model:
    """The spike and slab with its indicator summed out, by ``pm.NormalMixture``."""
    s = frame["standard_error"].to_numpy()
    with pm.Model() as model:
        pi0, tau = (priors[name].create_variable(name) for name in ("pi0", "tau"))
        sigma = pm.math.stack([s * np.ones_like(s), pm.math.sqrt(s**2 + tau**2)], axis=-1)
        pm.NormalMixture("y", w=pm.math.stack([pi0, 1 - pi0]), mu=0.0, sigma=sigma, observed=frame["effect"].to_numpy())
    return model


def genes_numpyro(y, s, numbers):
    """The same model in NumPyro."""
    import jax
    import numpyro
    import numpyro.distributions as dist

    pi0 = numpyro.sample("pi0", dist.Beta(*numbers["pi0"]))
    tau = numpyro.sample("tau", dist.LogNormal(*numbers["tau"]))
    weights = dist.Categorical(jax.numpy.stack([pi0, 1 - pi0]))
    sigma = jax.numpy.stack([s, jax.numpy.sqrt(s**2 + tau**2)], axis=-1)
    numpyro.sample("y", dist.MixtureSameFamily(weights, dist.Normal(0.0, sigma)), obs=y)


def genes() -> dict:
    """20,000 genes, one in ten with an effect."""
    model = hz.spike_slab_genes
    frame, _ = model.simulate(np.random.default_rng(1), genes=20_000)
    record = model.MODEL
    priors = record.priors(record.data(frame))
    y, s = frame["effect"].to_numpy(), frame["standard_error"].to_numpy()
    names = ["pi0", "tau"]
    return dict(
        hbm_zoo=lambda: zoo(model, frame),
        PyMC=lambda: by_nutpie(lambda: genes_pymc(frame, priors), names, 1000),
        NumPyro=lambda: by_numpyro(genes_numpyro, names, 500, y, s, numbers_of(priors)),
    )


def numbers_of(priors) -> dict[str, tuple[float, ...]]:
    """The numbers of each prior, in the order both libraries take them."""
    return {
        name: tuple(float(np.asarray(value)) for value in prior.parameters.values()) for name, prior in priors.items()
    }


WORKS = {"hospitals": hospitals, "reaction_norms": reaction_norms, "tissues": tissues, "genes": genes}


def alone(work: str, runner: str) -> dict[str, float]:
    """One runner in a process of its own."""
    command = [sys.executable, __file__, "alone", work, runner]
    env = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    printed = subprocess.run(command, check=True, capture_output=True, text=True, timeout=3_000, env=env).stdout
    return json.loads(printed.splitlines()[-1])


def race(work: str) -> pd.DataFrame:
    """Each runner, and the speeds against each other."""
    runners = list(WORKS[work]())
    for runner in runners:
        alone(work, runner)
    table = pd.DataFrame({runner: alone(work, runner) for runner in runners}).T
    return table.assign(times_slower=table.loc["hbm_zoo", "speed"] / table["speed"])


def main() -> None:
    """Print each race, or what one runner of it did."""
    warnings.simplefilter("ignore")
    if sys.argv[1:2] == ["alone"]:
        _, _, work, runner = sys.argv
        print(json.dumps(WORKS[work]()[runner]()))
        return
    for work in sys.argv[1:] or WORKS:
        print(f"\n{work}\n{race(work).round(2).to_string()}", flush=True)


if __name__ == "__main__":
    main()
