"""Every record of the zoo, under every option that changes it, keeps the contract.

That is its page, its data, its variants, and what it knows of a group.
"""

import itertools
import re
import warnings
from functools import cache

import numpy as np
import pandas as pd
import pymc as pm
import pytest
import xarray as xr
from pymc_extras.prior import Prior
from scipy import integrate, stats
from scipy.stats import qmc

import hbm_zoo as hz
from hbm_zoo.diagnostics.evidence import of_these_data
from hbm_zoo.frames.rules import FrameWarning
from hbm_zoo.group_level.mixture_of_normals import StudentT
from hbm_zoo.group_level.multivariate import Vector
from hbm_zoo.group_level.populations import Beta, CorrelatedNormal, Gamma, Normal, SpikeSlab
from hbm_zoo.group_level.spike_and_slabs import SpikeSlabs
from hbm_zoo.inference.nodes import with_nodes
from hbm_zoo.model import POOLINGS
from hbm_zoo.priors import describe
from hbm_zoo.zoo import pages

FEW = {
    "hospital_readmission": {"hospitals": 6},
    "spike_slab_genes": {"genes": 12},
    "population_pk": {"patients": 4},
    "reaction_networks": {"modules": 2, "rich": 1},
    "variance_components": {"sites": 2, "sires": (6, 9), "offspring": (2, 5)},
    "selection_gradients": {"traits": 4, "years": 6},
    "selection_gradients-exact": {"years": 4, "animals": (12, 30)},
}
REFUSED_TOGETHER = [
    {"autocorrelation": True, "exact": True},
    {"population": "student-t", "sigma": "by tissue"},
    {"population": "student-t", "noise": "student-t"},
    {"sigma": "by tissue", "noise": "student-t"},
]


def under_every_option(record):
    """The records of a model, one for each choice of its alternatives, by the options that say which."""
    choices = itertools.product(*(record.alternatives[option] for option in record.alternatives))
    together = [dict(zip(record.alternatives, values, strict=True)) for values in choices]
    refused = [o for o in together if any(pair.items() <= o.items() for pair in REFUSED_TOGETHER)]
    return [record.under(**options) for options in together if options not in refused]


def name_of(record):
    """Its name and the options that change it: what they are set to, or which they are."""
    return "-".join([record.name, *(o if value is True else f"{o}={value}" for o, value in record.changed.items())])


RECORDS = {name_of(r): r for module in hz.MODELS.values() for r in under_every_option(module.MODEL)}
KINDS = {name: (record.group_level.kind, record.group_level.independent) for name, record in RECORDS.items()}
CLOSED, DEPENDENT, INTEGRATED = (
    [name for name, known in KINDS.items() if known in kinds]
    for kinds in (
        [("in closed form", True)],
        [("in closed form", False)],
        [("integrated numerically", True), ("tabulated", True)],
    )
)
VARIANTS = [
    (name, pooling, form)
    for name, record in RECORDS.items()
    for pooling, forms in record.variants.items()
    for form in forms
]


@cache
def written(name, pooling, form):
    """A variant of a record with few groups."""
    record = RECORDS[name]
    data = data_of(record)
    return record.write(data, pooling, form, record.priors(data))


def frame_of(record, seed=1):
    few = FEW.get(name_of(record), FEW.get(record.name, {}))
    return record.simulate(np.random.default_rng(seed), **few)


def data_of(record, frame=None):
    """What a frame is prepared to, as it is fitted, nodes of integrals with it; by default one like the real one."""
    if frame is None:
        return data_of_few(name_of(record))
    data = record.data(frame, **record.extras.simulated)
    return with_nodes(record, data, record.priors(data), seed=3)


@cache
def data_of_few(name):
    return data_of(RECORDS[name], frame_of(RECORDS[name])[0])


def symbols(record):
    """The table of symbols on the page, or of the section of an option, as text, and what it calls code."""
    titles = [f"With {option}={value}" for option, value in record.changed.items()] or ["The model"]
    text = "\n".join(pages.section(record.name, title) for title in titles)
    table = "".join(re.findall(r"=+  =+.*\non paper +in code.*\n=[= ]+\n((?:.*\n)+?)=[= ]+(?:\n|$)", text))
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
def test_the_page_names_every_column(name):
    record = RECORDS[name]
    table, _ = symbols(record)
    for column, rule in record.columns.items():
        assert rule.label or rule.optional or re.search(rf"\b{column}\b", table), column


@pytest.mark.parametrize("name", RECORDS)
def test_the_page_names_every_parameter(name):
    """What an option brings in or gives another meaning stands in the table of its own section."""
    record, (_, codes) = RECORDS[name], symbols(RECORDS[name])
    before = record.base.parameters if record.base else {}
    assert {p for p, parameter in record.parameters.items() if parameter != before.get(p)} <= codes
    if record.base:
        codes = codes | symbols(record.base)[1]
    assert record.estimand in codes
    of_group = record.matched(record.default_priors(data_of(record)))
    assert all(any(p == code or p.startswith(f"{code}_") for code in codes) for p in of_group), list(of_group)


@pytest.mark.parametrize("name", RECORDS)
def test_the_formula_on_the_page_is_of_the_option(name):
    """Each hyperparameter by its name, or as mu_r of each rate r, where rates are called as the reader likes."""
    record = RECORDS[name]
    data = data_of(record)
    free = set(record.parameters) - set(record.fixed["partial"](record.priors(data), data))
    words = set(re.findall(r"\w+", pages.formula(record.name, **record.chosen)))
    rates = "|".join(map(str, data.coords["coefficient"].values)) if {"mu_r", "omega_r"} <= words else "none"
    assert {p if p in words else re.sub(rf"_({rates})$", "_r", p) for p in free} <= words


@pytest.mark.parametrize("name", RECORDS)
def test_every_symbol_of_the_page_exists_in_code(name):
    record, (_, codes) = RECORDS[name], symbols(RECORDS[name])
    data = data_of(record)
    known = {*record.columns, *record.parameters, *data.variables, "kappa"}
    for pooling, forms in record.variants.items():
        for form in forms:
            known |= set(written(name, pooling, form).named_vars)
    if record.group_level.expectations:
        known |= set(record.group_level.expectations(drawn_from_the_prior(record, data), data))
    assert codes <= known


@pytest.mark.parametrize("name", RECORDS)
def test_columns_and_hyperparameters_say_what_they_mean(name):
    record = RECORDS[name]
    assert all(rule.meaning and rule.expected for rule in record.columns.values())
    assert all(parameter.meaning for parameter in record.parameters.values())
    assert record.default_priors.__doc__
    data = data_of(record)
    priors = record.priors(data)
    assert set(record.parameters) - {*record.extras.absent(data)} <= set(priors)
    assert all(re.fullmatch(r"\w+\(.*\)", describe(prior)) for prior in priors.values())
    assert {record.location, record.heterogeneity} <= set(record.parameters)


@pytest.mark.parametrize(
    ("name", "dataset"), [(name, dataset) for name, record in RECORDS.items() for dataset in record.datasets]
)
def test_shipped_data_are_what_the_model_takes(name, dataset):
    record = RECORDS[name]
    record, options = record.split(record.datasets[dataset].options)
    data = record.data(hz.load_data(dataset, record), **options)
    assert data.sizes[record.group] >= record.fewest_groups
    assert np.isfinite(record.volume(data)).all()


@pytest.mark.parametrize("name", RECORDS)
def test_a_simulated_frame_is_taken_and_its_seed_repeats_it(name):
    record = RECORDS[name]
    (frame, truth), (again, _), (other, _) = frame_of(record), frame_of(record), frame_of(record, seed=2)
    assert frame.equals(again)
    assert not frame.equals(other)
    data = data_of(record, frame)
    own = record.own(data)
    assert record.estimand in truth
    assert set(truth[record.estimand].dims) == set(own.dims)
    assert set(truth[record.group].values) == set(data[record.group].values)


@pytest.mark.parametrize("name", RECORDS)
def test_pooling_is_fixed_from_all_to_nothing(name):
    """No pooling fixes the whole population, complete pooling its spread, partial pooling not its spread."""
    record = RECORDS[name]
    data = data_of(record)
    priors = record.priors(data)
    fixed = {pooling: record.fixed[pooling](priors, data) for pooling in POOLINGS}
    assert set(record.variants) == set(record.fixed) == set(POOLINGS)
    assert {record.location, record.heterogeneity} <= set(fixed["none"])
    assert fixed["complete"][record.heterogeneity] == 0
    assert record.heterogeneity not in fixed["partial"]


@pytest.mark.parametrize(("name", "pooling", "form"), VARIANTS)
def test_every_variant_builds_with_a_finite_density(name, pooling, form):
    record, model = RECORDS[name], written(name, pooling, form)
    assert not model.potentials
    assert [v.name for v in model.observed_RVs] == [record.observed]
    terms = model.compile_logp(sum=False, mode="AS_WRITTEN")(model.initial_point())  # a sum of many has no Python
    assert all(np.isfinite(term).all() for term in terms)
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
    values = pm.draw([model[name] for name in names], draws, random_seed=4, mode="AS_WRITTEN")
    return xr.Dataset({name: ("sample", value) for name, value in zip(names, values, strict=True)} | fixed)


def log_density(population, theta):
    """Log density of a population's continuous part at theta, by scipy."""
    if isinstance(population, CorrelatedNormal):
        z = (theta - population.mean) / population.sd
        first, second = (z.isel(coefficient=k, drop=True) for k in (0, 1))
        rho = population.correlation
        squares = (first**2 - 2 * rho * first * second + second**2) / (1 - rho**2)
        return -0.5 * squares - np.log(2 * np.pi * np.sqrt(1 - rho**2)) - np.log(population.sd).sum("coefficient")
    if isinstance(population, Vector):
        joint = stats.multivariate_normal.logpdf
        covariance = xr.dot(population.factor, population.factor.rename(trait="also"), dim="other")
        density = np.vectorize(lambda x, mean, C: joint(x, mean, C), signature="(k),(k),(k,k)->()")
        core = [["trait"], ["trait"], ["trait", "also"]]
        return xr.apply_ufunc(density, theta, population.mean, covariance, input_core_dims=core)
    if isinstance(population, Gamma):
        shape = population.cv**-2
        return xr.apply_ufunc(lambda x, a, s: stats.gamma.logpdf(x, a, scale=s), theta, shape, population.mean / shape)
    if isinstance(population, Beta):
        a, b = population.mean / population.phi**2, (1 - population.mean) / population.phi**2
        return xr.apply_ufunc(stats.beta.logpdf, theta, a, b)
    if isinstance(population, SpikeSlab):
        slab = xr.apply_ufunc(stats.norm.logpdf, theta, population.slab_mean, population.slab_sd)
        return np.log1p(-population.null) + slab
    if isinstance(population, SpikeSlabs):
        each = xr.apply_ufunc(stats.norm.pdf, theta, population.each_mean, population.each_sd)
        return np.log1p(-population.null) + np.log((population.weight * each).sum("node"))
    if isinstance(population, StudentT):
        density = stats.t.logpdf
        return xr.apply_ufunc(density, theta, population.nu, population.mean, population.scale)
    assert isinstance(population, Normal)
    return xr.apply_ufunc(stats.norm.logpdf, theta, population.mean, population.sd)


def test_no_record_escapes_an_oracle_of_what_it_knows_of_a_group():
    assert {*CLOSED, *DEPENDENT, *INTEGRATED} == set(RECORDS)


@pytest.mark.parametrize("name", CLOSED)
def test_candidate_s_formula_at_random_hyperparameters(name):
    """Log p(theta | h) + log p(y | theta, h) - log p(theta | y, h) = log p(y | h), for any theta (Besag 1989)."""
    record = RECORDS[name]
    level, data = record.group_level, data_of(record)
    h = drawn_from_the_prior(record, data)
    after = level.conditional(h, data)
    theta = after.mean + 0.3 * after.sd
    before = log_density(level.of_groups(h, data), theta)
    likelihood = level.log_likelihood(theta, h, data)
    difference = before + likelihood - log_density(after, theta) - level.log_left_out(h, data)
    assert set(difference.dims) == {"sample", record.group}
    np.testing.assert_allclose(difference, 0, atol=1e-7 * (1 + float(abs(likelihood).max())))


@pytest.mark.parametrize("name", DEPENDENT)
def test_candidate_s_formula_of_groups_that_depend_on_one_another(name):
    """The same of all groups together."""
    record = RECORDS[name]
    level, data = record.group_level, data_of(record)
    h = drawn_from_the_prior(record, data)
    before, after = level.before(h, data, record.group), level.conditional(h, data)
    theta = after.mean + 0.3 * after.sd
    likelihood = level.log_likelihood(theta, h, data).sum(record.group)
    difference = before.log_density(theta) + likelihood - after.log_density(theta) - level.log_joint(h, data)
    assert set(difference.dims) == {"sample"}
    np.testing.assert_allclose(difference, 0, atol=1e-7 * (1 + float(abs(likelihood).max())))


@pytest.mark.parametrize("name", [name for name in INTEGRATED if not RECORDS[name].group_level.nodes])
def test_a_group_is_brute_force_at_random_hyperparameters(name):
    """Log p(y_j | h), and mean and sd of a group, by Simpson's rule on likelihood times population."""
    record = RECORDS[name]
    level, data = record.group_level, data_of(record)
    h = drawn_from_the_prior(record, data)
    before = level.population(level.at(h, data))
    heavy = isinstance(before, StudentT)
    wide = np.sinh(np.linspace(-14, 14, 8001)) if heavy else np.linspace(-12, 12, 4001)
    theta = before.mean + before.sd * xr.DataArray(wide, dims="x")
    joint = log_density(before, theta) + level.log_likelihood(theta, h, data)
    top = joint.max("x")

    def integral(g):
        values, at = xr.broadcast(np.exp(joint - top) * g, theta)
        return xr.apply_ufunc(lambda y, x: integrate.simpson(y, x=x), values, at, input_core_dims=[["x"]] * 2)

    evidence, reported, after = integral(1.0), level.reported(theta, data), level.after(h, data)
    mean = integral(reported) / evidence
    found = level.log_left_out(h, data)
    assert set(found.dims) == {"sample", record.group}
    np.testing.assert_allclose(*xr.broadcast(found, np.log(evidence) + top), atol=1e-6)
    np.testing.assert_allclose(*xr.broadcast(after.mean, mean), atol=1e-6)
    variance = integral((reported - mean) ** 2) / evidence
    np.testing.assert_allclose(*xr.broadcast(after.sd, np.sqrt(variance)), atol=1e-6)


@pytest.mark.parametrize("name", [name for name in INTEGRATED if RECORDS[name].group_level.log_sampled])
def test_a_group_of_several_coefficients_is_importance_sampling(name):
    """The same on other points: around what is said of each group, wider, and around the population."""
    record = RECORDS[name]
    level, data = record.group_level, data_of(record)
    h = drawn_from_the_prior(record, data)
    before, after = level.population(level.at(h, data)), level.conditional(h, data)
    z = stats.norm.ppf(qmc.Sobol(data.sizes["coefficient"], rng=8).random(2**13))
    for i, j in np.ndindex(h.sizes["sample"], data.sizes[record.group]):
        one, here = data.isel({record.group: [j]}), {"sample": i, record.group: j}
        L = before.cholesky.isel(sample=i).transpose("coefficient", "deviate").values
        prior = stats.multivariate_normal(before.mean.isel(sample=i), L @ L.T)
        theta, weight = (part.isel(here, missing_dims="ignore").values for part in (after.theta, after.weight))
        near = stats.multivariate_normal(weight @ theta, 2 * np.cov(theta.T, aweights=weight))
        points = np.concatenate([d.mean + z @ np.linalg.cholesky(d.cov).T for d in (prior, near)])
        log_likelihood = level.log_likelihood(
            xr.DataArray(points[:, None], dims=("point", record.group, "coefficient")), h.isel(sample=i), one
        ).values.ravel()
        density = np.exp(prior.logpdf(points)), np.exp(near.logpdf(points))
        w = np.exp(log_likelihood - log_likelihood.max()) * density[0] / (sum(density) / 2)
        log_m = np.log(w.mean()) + log_likelihood.max()
        error = np.hypot(w.std() / w.mean() / np.sqrt(w.size), float(level.integration_error(h, data)[here]))
        assert abs(log_m - float(level.log_left_out(h, data)[here])) < 4 * error + 1e-6
        assert error < 0.3
        np.testing.assert_allclose(w @ points / w.sum(), weight @ theta, atol=0.3 * np.sqrt(np.diag(near.cov).max()))


def copied(record, frame, times):
    """Each group of a frame so many times: groups are independent given h, so a copy is another draw of its data."""
    own = [name for name, rule in record.columns.items() if rule.label and rule.optional and name in frame]
    own = [name for name in own if not frame[name].astype(str).str.contains("=").any()]  # which no name of a unit has
    labels = frame[[*dict.fromkeys([record.key_columns[0], *own])]].astype(str)
    return pd.concat([frame.assign(**(labels + f" {i}")) for i in range(times)], ignore_index=True)


#: Groups of a series have no copies: what they weigh is tested with it.
COPIED = [name for name, record in RECORDS.items() if record.group_level.independent or record.group_level.further]

#: Each draw of data has nodes of its own.
ON_NODES = [n for n, record in RECORDS.items() if record.group_level.nodes is not None or "apart" in n]


@pytest.mark.parametrize("name", [pytest.param(n, marks=pytest.mark.slow) if n in ON_NODES else n for n in COPIED])
def test_kappa_averaged_over_data_is_a_share_of_variance(name):
    """In [0, 1] over data drawn at fixed h, and 1 - E[Var(theta | y, h)] / Var(theta | h) where it is defined so.

    A single kappa need not be: some data leave more doubt than there was.
    """
    record, rng = RECORDS[name], np.random.default_rng(6)
    copies = 12 if record.group_level.nodes or "place" in data_of(record).dims else 200
    level, frame = record.group_level, frame_of(record)[0]
    few = frame[record.labels(frame).isin(record.labels(frame).unique()[:4])]
    frame, hs = copied(record, few, copies), drawn_from_the_prior(record, data_of(record, few), draws=2)
    data = data_of(record, frame)
    for i in range(hs.sizes["sample"]):
        h = hs.isel(sample=[i])
        before = level.before(h, data, record.group)
        y = level.replicate(rng, before.sample(rng), h, data, level.unseen(data)).squeeze("sample")
        measured = frame.copy()
        measured.loc[record.measured(frame), record.response] = y.values
        with warnings.catch_warnings():  # of vague priors data are drawn that a reader would be warned of
            warnings.simplefilter("ignore", FrameWarning)
            seen = data_of(record, measured)
        kappa, removed = (
            value.broadcast_like(before.sd).transpose(record.group, ...).values.reshape(copies, -1)
            for value in (level.reliability(h, seen), 1 - (level.conditional(h, seen).sd / before.sd) ** 2)
        )
        # A kappa next to 0 is beside it by the error of its nodes.
        unsure = 4 * kappa.std(axis=0) / np.sqrt(copies) if level.nodes else 0.0
        assert ((kappa.mean(axis=0) >= -unsure) & (kappa.mean(axis=0) <= 1)).all()
        if level.kappa.startswith("1 - "):
            off = kappa - removed
            assert (abs(off.mean(axis=0)) <= 4 * off.std(axis=0) / np.sqrt(copies) + 1e-9).all()


@pytest.mark.parametrize("name", RECORDS)
def test_a_spread_s_prior_is_said_to_be_of_the_data_where_it_is(name):
    """Of half the responses it is half as wide; of rates, logs and odds it is the same."""
    record, data = RECORDS[name], data_of_few(name)
    default = record.default_priors(data)
    said = of_these_data(record, data, default, default)
    of_units = {"material_batches", "model_discrepancy", "reaction_norms", "tissue_expression", "vaccine_clinics"}
    assert (record.heterogeneity in said) == (record.name in of_units or name == "variance_components")
    assert of_these_data(record, data, dict.fromkeys(default, Prior("HalfNormal", sigma=0.123)), default) == ""


@pytest.mark.parametrize("name", [name for name, record in RECORDS.items() if record.extras.control_limits])
def test_limits_of_chance_are_a_curve_over_any_volume(name):
    """Pictures ask for volumes that no group has."""
    low, high = RECORDS[name].extras.control_limits(0.8, np.geomspace(40, 900, 50), 0.95)
    assert (np.isfinite(low) & np.isfinite(high) & (low < 0.8) & (0.8 < high)).all()
