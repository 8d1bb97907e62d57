"""The zoo against textbook PyMC and NumPyro: the same data, the same priors, one run.

    uv run --group benchmarks python benchmarks/peers.py [reaction_norms | tissues | genes]

* reaction norms: 500 genotypes x 10 environments
* tissues: 1,000,000 cells in 50 tissues
* genes: 20,000 genes, spike and slab with the indicator summed out (``pm.NormalMixture``)

A speed is the smallest bulk ESS of the hyperparameters over the seconds of sampling, warm-up
included and compilation not. ``wall`` is everything from the frame to the draws, compilation
included. Peers that need minutes for a full run are given fewer draws: the speed counts draws.
"""

import sys
import time
import warnings

import arviz as az
import jax
import numpy as np
import numpyro
import numpyro.distributions as dist
import nutpie
import pandas as pd
import pymc as pm
from numpyro.infer import MCMC, NUTS

import hbm_zoo as hz
from hbm_zoo.inference import sampling

CHAINS, CORES = 4, 2
numpyro.set_host_device_count(CORES)
jax.config.update("jax_enable_x64", True)


def zoo(model, frame, draws: int) -> dict[str, float]:
    """The hyperparameters as `hz.fit` draws them; compilation is that of a first, short run."""
    start = time.perf_counter()
    record = model.MODEL
    data = record.data(frame)
    priors = record.priors(data, pooling="partial")

    def drawn(draws: int):
        settings = {"draws": draws, "tune": draws, "chains": CHAINS, "seed": 1}
        return sampling.draw(record, data, "partial", "marginalized", priors, settings, False, {"cores": CORES})

    drawn(1)
    compiled = time.perf_counter()
    posterior = drawn(draws)["posterior"].dataset
    end = time.perf_counter()
    values = {name: posterior[name].values for name in record.parameters if name in posterior}
    return scores(values, end - compiled, end - start)


def by_nutpie(model, names: list[str], draws: int, start: float) -> dict[str, float]:
    """Compile and sample a PyMC model by its default sampler."""
    names = [name for name in names if name in model.named_vars]
    compiled = nutpie.compile_pymc_model(model, var_names=names)
    ready = time.perf_counter()
    tree = nutpie.sample(
        compiled, draws=draws, tune=draws, chains=CHAINS, cores=CORES, seed=1, progress_bar=False, save_warmup=False
    )
    end = time.perf_counter()
    values = {name: tree["posterior"].dataset[name].values for name in names}
    return scores(values, end - ready, end - start)


def by_numpyro(model, names: list[str], draws: int, *arguments) -> dict[str, float]:
    """Compile and sample a NumPyro model; compilation is the first, short run's excess."""
    start = time.perf_counter()
    mcmc = MCMC(
        NUTS(model),
        num_warmup=draws,
        num_samples=draws,
        num_chains=CHAINS,
        chain_method="parallel" if CORES >= CHAINS else "sequential",
        progress_bar=False,
    )
    mcmc.warmup(jax.random.PRNGKey(0), *arguments)
    compiled = time.perf_counter()
    mcmc.run(jax.random.PRNGKey(1), *arguments)
    jax.block_until_ready(mcmc.get_samples())
    end = time.perf_counter()
    values = {name: np.asarray(value) for name, value in mcmc.get_samples(group_by_chain=True).items() if name in names}
    # The warm-up is compiled and run, then draws are compiled and run: an upper bound of the cost of either.
    return scores(values, end - compiled, end - start)


def scores(values: dict[str, np.ndarray], seconds: float, wall: float) -> dict[str, float]:
    """Smallest bulk ESS, seconds, speed."""
    ess = min(float(az.ess(value, method="bulk")) for value in values.values())
    return {"ess": ess, "seconds": seconds, "speed": ess / seconds, "wall": wall}


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
    mu = [numpyro.sample(name, dist.Normal(*numbers[name])) for name in ("mu_intercept", "mu_slope")]
    spread = [numpyro.sample(name, dist.HalfNormal(*numbers[name])) for name in ("tau_intercept", "tau_slope")]
    chol = numpyro.sample("chol", dist.LKJCholesky(2, 2.0))
    numpyro.deterministic("rho", chol[1, 0])
    sigma = numpyro.sample("sigma", dist.HalfNormal(*numbers["sigma"]))
    z = numpyro.sample("z", dist.Normal(0, 1).expand([groups, 2]).to_event(2))
    theta = z @ chol.T
    intercept, slope = mu[0] + spread[0] * theta[:, 0], mu[1] + spread[1] * theta[:, 1]
    numpyro.sample("y", dist.Normal(intercept[genotype] + slope[genotype] * x, sigma), obs=y)


def reaction_norms() -> pd.DataFrame:
    """500 genotypes in 10 environments."""
    model = hz.reaction_norms
    frame, _ = model.simulate(np.random.default_rng(1), genotypes=500, environments=10)
    record = model.MODEL
    priors = record.priors(record.data(frame))
    names = list(record.parameters)
    genotype, labels = pd.factorize(frame["genotype"])
    x = (frame["environment"] - frame["environment"].mean()).to_numpy()
    return race(
        hbm_zoo=lambda: zoo(model, frame, 1000),
        PyMC=lambda: by_nutpie(lines_pymc(frame, priors), names, 500, time.perf_counter()),
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


def tissues_numpyro(tissue, groups, y, numbers):
    """The same model in NumPyro."""
    mu = numpyro.sample("mu", dist.Normal(*numbers["mu"]))
    tau = numpyro.sample("tau", dist.HalfNormal(*numbers["tau"]))
    sigma = numpyro.sample("sigma", dist.HalfNormal(*numbers["sigma"]))
    theta = numpyro.sample("theta", dist.Normal(mu, tau).expand([groups]).to_event(1))
    numpyro.sample("y", dist.Normal(theta[tissue], sigma), obs=y)


def tissues() -> pd.DataFrame:
    """1,000,000 cells in 50 tissues; the peers get 100 draws a chain, or they would take an hour."""
    model = hz.tissue_expression
    rng = np.random.default_rng(1)
    tissue = rng.integers(50, size=1_000_000)
    expression = rng.normal(8, 1, 50)[tissue] + rng.normal(0, 1.5, tissue.size)
    frame = pd.DataFrame({"tissue": tissue, "expression": expression})
    record = model.MODEL
    priors = record.priors(record.data(frame))
    names = list(record.parameters)
    return race(
        hbm_zoo=lambda: zoo(model, frame, 1000),
        PyMC=lambda: by_nutpie(tissues_pymc(frame, priors), names, 100, time.perf_counter()),
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
    pi0 = numpyro.sample("pi0", dist.Beta(*numbers["pi0"]))
    tau = numpyro.sample("tau", dist.LogNormal(*numbers["tau"]))
    weights = dist.Categorical(jax.numpy.stack([pi0, 1 - pi0]))
    sigma = jax.numpy.stack([s, jax.numpy.sqrt(s**2 + tau**2)], axis=-1)
    numpyro.sample("y", dist.MixtureSameFamily(weights, dist.Normal(0.0, sigma)), obs=y)


def genes() -> pd.DataFrame:
    """20,000 genes, one in ten with an effect."""
    model = hz.spike_slab_genes
    frame, _ = model.simulate(np.random.default_rng(1), genes=20_000)
    record = model.MODEL
    priors = record.priors(record.data(frame))
    y, s = frame["effect"].to_numpy(), frame["standard_error"].to_numpy()
    names = ["pi0", "tau"]
    return race(
        hbm_zoo=lambda: zoo(model, frame, 1000),
        PyMC=lambda: by_nutpie(genes_pymc(frame, priors), names, 1000, time.perf_counter()),
        NumPyro=lambda: by_numpyro(genes_numpyro, names, 500, y, s, numbers_of(priors)),
    )


def numbers_of(priors) -> dict[str, tuple[float, ...]]:
    """The numbers of each prior, in the order both libraries take them."""
    return {
        name: tuple(float(np.asarray(value)) for value in prior.parameters.values()) for name, prior in priors.items()
    }


def race(**runners) -> pd.DataFrame:
    """Run each in turn and set the speeds against each other."""
    table = pd.DataFrame({name: run() for name, run in runners.items()}).T
    table["times_slower"] = table.loc["hbm_zoo", "speed"] / table["speed"]
    return table


def warm_up() -> None:
    """Load the compilers on a model of one number, which the first runner would otherwise pay for."""
    with pm.Model() as model:
        pm.Normal("y", pm.Normal("mu"), observed=0.0)
    by_nutpie(model, ["mu"], 10, time.perf_counter())
    by_numpyro(lambda: numpyro.sample("mu", dist.Normal()), ["mu"], 10)


def main() -> None:
    """Print each race."""
    warnings.simplefilter("ignore")
    warm_up()
    races = {"reaction_norms": reaction_norms, "tissues": tissues, "genes": genes}
    for name in sys.argv[1:] or races:
        print(f"\n{name}\n{races[name]().round(2).to_string()}", flush=True)


if __name__ == "__main__":
    main()
