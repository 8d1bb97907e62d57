"""Every record of the zoo keeps the contract: its page, its data, its variants, its closed form."""

import re

import numpy as np
import pymc as pm
import pytest
import xarray as xr
from scipy import stats

import hbm_zoo as hz
from hbm_zoo.group_level.populations import Beta, CorrelatedNormal, Gamma, Normal, SpikeSlab
from hbm_zoo.model import POOLINGS
from hbm_zoo.priors import describe

FEW = {"hospital_readmission": {"hospitals": 6}, "spike_slab_genes": {"genes": 12}}
CLOSED = [name for name, module in hz.MODELS.items() if module.MODEL.group_level.conditional]
VARIANTS = [
    (name, pooling, form)
    for name, module in hz.MODELS.items()
    for pooling, forms in module.MODEL.variants.items()
    for form in forms
]


def frame_of(name, seed=1):
    return hz.MODELS[name].MODEL.simulate(np.random.default_rng(seed), **FEW.get(name, {}))


def symbols(module):
    """The table of symbols on the page, as text, and what it calls code."""
    table = re.search(r"=+  =+.*\non paper +in code.*\n=[= ]+\n((?:.*\n)+?)=[= ]+\n", module.__doc__).group(1)
    return table, set(re.findall(r"``(\w+)``", table))


@pytest.mark.parametrize("name", hz.MODELS)
def test_the_page_asks_defines_assumes_and_cites(name):
    page = hz.MODELS[name].__doc__
    assert re.fullmatch(r"[A-Z][\w -]+: .+[.?]", page.splitlines()[0])
    assert hz.MODELS[name].MODEL.question.endswith("?")
    for section in ("The model", "What it assumes", "References"):
        assert f"\n{section}\n{'-' * len(section)}\n" in page
    assert re.search(r"\(\d{4}\)", page.split("References")[1])


@pytest.mark.parametrize("name", hz.MODELS)
def test_the_page_names_every_column_and_parameter(name):
    module = hz.MODELS[name]
    record, (table, codes) = module.MODEL, symbols(module)
    assert {record.estimand, *record.parameters} <= codes
    for column, rule in record.columns.items():
        assert rule.label or rule.optional or re.search(rf"\b{column}\b", table), column


@pytest.mark.parametrize("name", hz.MODELS)
def test_every_symbol_of_the_page_exists_in_code(name):
    module = hz.MODELS[name]
    record, (_, codes) = module.MODEL, symbols(module)
    frame, _ = frame_of(name)
    data = record.data(frame)
    known = {*record.columns, *record.parameters, *data.variables, "kappa"}
    for pooling, forms in record.variants.items():
        for form in forms:
            known |= set(record.write(data, pooling, form, record.priors(data)).named_vars)
    if record.group_level.expectations:
        known |= set(record.group_level.expectations(drawn_from_the_prior(record, data), data))
    assert codes <= known


@pytest.mark.parametrize("name", hz.MODELS)
def test_columns_and_hyperparameters_say_what_they_mean(name):
    record = hz.MODELS[name].MODEL
    assert all(rule.meaning and rule.expected for rule in record.columns.values())
    assert all(parameter.meaning for parameter in record.parameters.values())
    assert hz.MODELS[name].default_priors.__doc__
    data = record.data(frame_of(name)[0])
    priors = record.priors(data)
    assert set(record.parameters) <= set(priors)
    assert all(re.fullmatch(r"\w+\(.*\)", describe(prior)) for prior in priors.values())
    assert {record.location, record.heterogeneity} <= set(record.parameters)


@pytest.mark.parametrize(
    ("name", "dataset"), [(name, dataset) for name, module in hz.MODELS.items() for dataset in module.MODEL.datasets]
)
def test_shipped_data_are_what_the_model_takes(name, dataset):
    record = hz.MODELS[name].MODEL
    data = record.data(hz.load_data(dataset), **record.datasets[dataset].options)
    assert data.sizes[record.group] >= 2
    assert np.isfinite(record.volume(data)).all()


@pytest.mark.parametrize("name", hz.MODELS)
def test_a_simulated_frame_is_taken_and_its_seed_repeats_it(name):
    record = hz.MODELS[name].MODEL
    (frame, truth), (again, _), (other, _) = frame_of(name), frame_of(name), frame_of(name, seed=2)
    assert frame.equals(again)
    assert not frame.equals(other)
    data = record.data(frame)
    own = record.own(data)
    assert record.estimand in truth
    assert set(truth[record.estimand].dims) == set(own.dims)
    assert set(truth[record.group].values) == set(data[record.group].values)


@pytest.mark.parametrize("name", hz.MODELS)
def test_pooling_is_fixed_from_all_to_nothing(name):
    """No pooling fixes the whole population, complete pooling its spread, partial pooling not its spread."""
    record = hz.MODELS[name].MODEL
    data = record.data(frame_of(name)[0])
    priors = record.priors(data)
    fixed = {pooling: record.fixed[pooling](priors, data) for pooling in POOLINGS}
    assert set(record.variants) == set(record.fixed) == set(POOLINGS)
    assert {record.location, record.heterogeneity} <= set(fixed["none"])
    assert fixed["complete"][record.heterogeneity] == 0
    assert record.heterogeneity not in fixed["partial"]


@pytest.mark.parametrize(("name", "pooling", "form"), VARIANTS)
def test_every_variant_builds_with_a_finite_density(name, pooling, form):
    record = hz.MODELS[name].MODEL
    model = record.build(frame_of(name)[0], pooling, form)
    assert not model.potentials
    assert [v.name for v in model.observed_RVs] == [record.observed]
    assert np.isfinite(model.compile_logp(mode="FAST_COMPILE")(model.initial_point()))
    if form == "marginalized":
        sampled = [v.name for v in model.free_RVs + model.deterministics]
        assert not any(model.named_vars_to_dims.get(v) for v in sampled)


def drawn_from_the_prior(record, data, draws=3):
    """Hyperparameters [sample] of partial pooling."""
    priors = record.priors(data)
    fixed = record.fixed["partial"](priors, data)
    with pm.Model() as model:
        for name in record.parameters:
            if name not in fixed:
                priors[name].create_variable(name)
    names = [name for name in record.parameters if name not in fixed]
    values = pm.draw([model[name] for name in names], draws, random_seed=4, mode="FAST_COMPILE")
    return xr.Dataset({name: ("sample", value) for name, value in zip(names, values, strict=True)} | fixed)


def log_density(population, theta):
    """Log density of a population's continuous part at theta, by scipy."""
    if isinstance(population, CorrelatedNormal):
        z = (theta - population.mean) / population.sd
        first, second = (z.isel(coefficient=k, drop=True) for k in (0, 1))
        rho = population.correlation
        squares = (first**2 - 2 * rho * first * second + second**2) / (1 - rho**2)
        return -0.5 * squares - np.log(2 * np.pi * np.sqrt(1 - rho**2)) - np.log(population.sd).sum("coefficient")
    if isinstance(population, Gamma):
        shape = population.cv**-2
        return xr.apply_ufunc(lambda x, a, s: stats.gamma.logpdf(x, a, scale=s), theta, shape, population.mean / shape)
    if isinstance(population, Beta):
        a, b = population.mean / population.phi**2, (1 - population.mean) / population.phi**2
        return xr.apply_ufunc(stats.beta.logpdf, theta, a, b)
    if isinstance(population, SpikeSlab):
        slab = xr.apply_ufunc(stats.norm.logpdf, theta, population.slab_mean, population.slab_sd)
        return np.log1p(-population.null) + slab
    assert isinstance(population, Normal)
    return xr.apply_ufunc(stats.norm.logpdf, theta, population.mean, population.sd)


@pytest.mark.parametrize("name", CLOSED)
def test_candidate_s_formula_at_random_hyperparameters(name):
    """Log p(theta | h) + log p(y | theta, h) - log p(theta | y, h) = log p(y | h), for any theta (Besag 1989)."""
    record = hz.MODELS[name].MODEL
    level, data = record.group_level, record.data(frame_of(name)[0])
    h = drawn_from_the_prior(record, data)
    after = level.conditional(h, data)
    theta = after.mean + 0.3 * after.sd
    before = log_density(level.of_groups(h, data), theta)
    likelihood = level.log_likelihood(theta, h, data)
    difference = before + likelihood - log_density(after, theta) - level.log_left_out(h, data)
    assert set(difference.dims) == {"sample", record.group}
    np.testing.assert_allclose(difference, 0, atol=1e-7 * (1 + float(abs(likelihood).max())))


@pytest.mark.parametrize("name", CLOSED)
def test_kappa_is_the_share_of_variance_that_the_data_remove(name):
    """Kappa is in [0, 1], and 1 - Var(theta | y, h) / Var(theta | h) where that variance ignores the data."""
    record = hz.MODELS[name].MODEL
    level, data = record.group_level, record.data(frame_of(name)[0])
    h = drawn_from_the_prior(record, data)
    kappa, prior = level.reliability(h, data), level.of_groups(h, data)
    assert ((kappa >= 0) & (kappa <= 1)).all()
    if isinstance(prior, Normal):
        after = level.conditional(h, data)
        np.testing.assert_allclose(*xr.broadcast(kappa, 1 - after.sd**2 / prior.sd**2), atol=1e-9)
