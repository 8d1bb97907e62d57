"""Every shipped data set, and data at the edges, by independent draws: each proved, and NUTS agrees."""

import numpy as np
import pandas as pd
import pytest
import xarray as xr

import hbm_zoo as hz
from hbm_zoo.inference import sampling
from hbm_zoo.inference.independent import failures
from hbm_zoo.inference.loo import relative_efficiency
from hbm_zoo.inference.nodes import with_nodes
from hbm_zoo.zoo import record_of

#: Those whose likelihood takes no nodes, thousands of times a second; clouds are tested with their models.
SHIPPED = [
    (name, model) for name, model in hz.datasets()["model"].items() if record_of(model).group_level.nodes is None
]
#: Of these the integrals are compiled for a quarter of a minute.
COMPILED = ("simulated_discharges", "selection_survivors")
POOLINGS = ("complete", "partial")


def alike(model, groups):
    """Groups that do not differ, so that a spread is at its end."""
    rng, names = np.random.default_rng(1), [f"G{i}" for i in range(groups)]
    if model == "vaccine_clinics":
        return pd.DataFrame({"clinic": names, "effect": 0.3, "standard_error": rng.uniform(0.1, 0.5, groups)})
    if model == "hospital_readmission":
        return pd.DataFrame({"hospital": names, "observed": 10, "expected": 10.0})
    if model == "success_rates":
        return pd.DataFrame({"unit": names, "successes": 3, "trials": 10})
    return pd.DataFrame({"tissue": np.repeat(names, 4), "expression": np.tile([1.0, 2.0, 3.0, 4.0], groups)})


def on_one_line(genotypes):
    """Slopes that rise with intercepts: a correlation of 1."""
    rng, x = np.random.default_rng(2), np.arange(6.0)
    frames = [
        pd.DataFrame({"genotype": f"G{i}", "environment": x, "response": a + (1 + a) * x + rng.normal(0, 0.2, 6)})
        for i, a in enumerate(rng.normal(0, 1, genotypes))
    ]
    return pd.concat(frames, ignore_index=True)


def many_clinics(clinics):
    """So many that their effects tell everything."""
    rng = np.random.default_rng(3)
    error = rng.uniform(0.1, 1, clinics)
    effect = rng.normal(0.5, 0.3, clinics) + error * rng.normal(size=clinics)
    return pd.DataFrame({"clinic": np.arange(clinics), "effect": effect, "standard_error": error})


def many_genes(genes):
    """One in ten with an effect."""
    return record_of("spike_slab_genes").simulate(np.random.default_rng(4), genes=genes)[0]


EDGES = {
    **{
        f"{groups} alike, {m}": (m, alike(m, groups))
        for groups in (2, 30)
        for m in ("vaccine_clinics", "success_rates")
    },
    "10 alike, hospital_readmission": ("hospital_readmission", alike("hospital_readmission", 10)),
    "4 alike, tissue_expression": ("tissue_expression", alike("tissue_expression", 4)),
    "correlation of 1": ("reaction_norms", on_one_line(12)),
    "20,000 clinics": ("vaccine_clinics", many_clinics(20_000)),
    "20,000 genes": ("spike_slab_genes", many_genes(20_000)),
}


def drawn(model, frame, pooling, engine, options=None, draws=1000, seed=1):
    """Draws of the hyperparameters alone."""
    record, of_data = record_of(model).split(options or {})
    data = record.data(frame, **of_data)
    priors = record.priors(data, pooling=pooling)
    settings = {"draws": draws, "tune": 1000, "chains": 4, "seed": seed, "engine": engine}
    seen = with_nodes(record, data, priors, seed)
    return sampling.draw(record, seen, pooling, None, priors, settings, False, {})


def of_shipped(name, model, pooling, engine, **settings):
    """The same of a shipped data set."""
    options = record_of(model).datasets[name].options
    return drawn(model, hz.load_data(name, model), pooling, engine, options, **settings)


def check(tree):
    """Proved: by few failures are meant none, and most proposals count."""
    assert not failures(tree.attrs["k_hat"], tree.attrs["effective_proposals"], tree.attrs["proposals"])
    assert tree.attrs["k_hat"] < 0.6
    assert tree.attrs["effective_proposals"] > 0.4 * tree.attrs["proposals"]
    assert tree.attrs["tops"] == 1


@pytest.mark.parametrize("pooling", [pytest.param("complete", marks=pytest.mark.slow), "partial"])
@pytest.mark.parametrize(
    ("name", "model"),
    [pytest.param(*each, marks=[pytest.mark.slow] if each[0] in COMPILED else []) for each in SHIPPED],
)
def test_every_shipped_data_set_is_proved(name, model, pooling):
    check(of_shipped(name, model, pooling, "independent"))


@pytest.mark.parametrize("edge", EDGES)
def test_data_at_the_edges_are_proved(edge):
    check(drawn(*EDGES[edge], "partial", "independent"))


def near(value):
    """Within five standard units, so that a mean exists."""
    return np.clip(value, -5, 5)


def inside(value):
    """Within one standard unit."""
    return (np.abs(value) < 1).astype(float)


def z_scores(independent, nuts):
    """Of means, and of the share within an sd of them, of each number drawn; errors by weights and by ESS."""
    found = []
    for name, by_nuts in nuts["posterior"].data_vars.items():
        centre, scale = float(by_nuts.mean()), float(by_nuts.std())
        for of in (near, inside):
            a, b = (of((tree["posterior"][name] - centre) / scale) for tree in (independent, nuts))
            worth = independent.attrs["efficiency"] * a.size, relative_efficiency(xr.Dataset({name: b})) * b.size
            error = np.sqrt(float(a.var()) / worth[0] + float(b.var()) / worth[1])
            found.append(float(a.mean() - b.mean()) / error)
    return found


@pytest.mark.slow
def test_nuts_draws_the_same_of_every_shipped_data_set():
    """Some hundred z tests: their root mean square is near 1, and none is far out."""
    z = []
    for name, model in SHIPPED:
        for pooling in POOLINGS:
            if name != "leukemia_genes":  # minutes of NUTS
                draws = {"draws": 4000} if model != "spike_slab_genes" else {}
                engines = ("independent", "nuts")
                z += z_scores(*(of_shipped(name, model, pooling, engine, **draws) for engine in engines))
    z = np.array(z)
    assert len(z) > 80
    assert np.abs(z).max() < 4.5
    assert 0.7 < np.sqrt((z**2).mean()) < 1.3
