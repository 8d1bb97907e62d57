"""Genes with a slab of several widths: density, shares, widths, poolings, lists."""

import numpy as np
import pandas as pd
import pytest
import xarray as xr
from pymc_extras.prior import Prior
from scipy import stats
from scipy.optimize import approx_fprime

import hbm_zoo as hz
from hbm_zoo.diagnostics.multiplicity import NoiseMayHaveHeavyTails
from hbm_zoo.models import spike_slab_genes as genes
from hbm_zoo.models import unimodal_genes as slabs

NORMAL, UNIMODAL = genes.MODEL, genes.MODEL.under(slab="unimodal")
FEW = pd.DataFrame({"gene": ["A", "B", "C"], "effect": [0.35, -0.9, 0.01], "standard_error": [0.2, 0.3, 0.05]})
Y, SE = FEW["effect"].to_numpy(), FEW["standard_error"].to_numpy()
STICKS = {"v1": 0.4, "v2": 0.3, "v3": 0.5, "v4": 0.6}
SHARES = np.array([0.4, 0.6 * 0.3, 0.42 * 0.5, 0.21 * 0.6, 0.21 * 0.4])
POINT = {"pi1": 0.3, **STICKS, "mu": 0.0, "narrowest": 0.1, "widest": 1.6}


def at(**values):
    """Hyperparameters at one point; what is not given is the theoretical null."""
    values = POINT | {"delta0": 0.0, "sigma0": 1.0} | values
    return xr.Dataset({name: ("sample", [float(value)]) for name, value in values.items()})


def by_scipy(pi1, sticks, delta0, sigma0, grid, unit):
    """Log density of the effects, as on the page; shares from the sticks, in order."""
    w, left = [], 1.0
    for v in sticks:
        w.append(left * v)
        left *= 1 - v
    narrowest, widest = grid
    s = sigma0 * narrowest * (widest / narrowest) ** (np.arange(5) / 4)
    density = (1 - pi1) * stats.norm.pdf(Y, delta0 * SE, sigma0 * SE)
    for share, width in zip([*w, left], s, strict=True):
        density = density + pi1 * share * stats.norm.pdf(Y, delta0 * SE, np.hypot(sigma0 * SE, width * unit))
    return np.log(density).sum()


@pytest.mark.parametrize(("null", "unit"), [("theoretical", "effect"), ("empirical", "z")])
def test_density_and_gradient_are_those_of_scipy(null, unit):
    record = NORMAL.under(null=null, slab="unimodal", unit=unit)
    priors = record.priors(record.data(FEW))
    grid = [slabs.given(priors, name) for name in ("narrowest", "widest")]
    model = record.build(FEW, parameterization="marginalized")
    names = [v.name for v in model.free_RVs]
    u = np.linspace(-0.6, 0.7, len(names))
    point = {model.rvs_to_values[v].name: np.asarray(x) for v, x in zip(model.free_RVs, u, strict=True)}

    def log_likelihood(x):
        value = dict(zip(names, x, strict=True))
        share = {name: 1 / (1 + np.exp(-value[name])) for name in ("pi1", *STICKS)}
        delta0, sigma0 = (value["delta0"], np.exp(value["sigma0"])) if null == "empirical" else (0.0, 1.0)
        of_gene = SE if unit == "z" else 1.0
        return by_scipy(share["pi1"], [share[v] for v in STICKS], delta0, sigma0, grid, of_gene)

    ours = model.compile_logp(vars=model.observed_RVs, mode="AS_WRITTEN")(point)
    assert float(ours) == pytest.approx(log_likelihood(u), rel=1e-10)
    log_prior = model.compile_logp(vars=model.free_RVs, mode="AS_WRITTEN")
    whole = approx_fprime(u, lambda x: log_likelihood(x) + float(log_prior(dict(zip(point, x, strict=True)))), 1e-7)
    np.testing.assert_allclose(model.compile_dlogp(mode="AS_WRITTEN")(point), whole, rtol=1e-4, atol=1e-5)


def test_the_diagnostics_have_the_same_density():
    data, h = UNIMODAL.data(FEW), at(delta0=0.2, sigma0=1.1)
    expected = by_scipy(0.3, list(STICKS.values()), 0.2, 1.1, (0.1, 1.6), 1.0)
    assert UNIMODAL.group_level.log_joint(h, data).item() == pytest.approx(expected, rel=1e-12)


def test_sticks_are_dirichlet_shares():
    """Ten genes seen in the null and one in each slab: means and variances of (1 - pi1, pi1 w_1, ...)."""
    priors, rng, n = UNIMODAL.priors(UNIMODAL.data(FEW)), np.random.default_rng(1), 200_000
    drawn = {name: rng.beta(*(float(v) for v in priors[name].parameters.values()), n) for name in ("pi1", *STICKS)}
    shares = np.array([1 - drawn["pi1"], *(drawn["pi1"] * w for w in slabs.weights([drawn[v] for v in STICKS]))])
    dirichlet = stats.dirichlet([10, 1, 1, 1, 1, 1])
    np.testing.assert_allclose(shares.sum(axis=0), 1)
    np.testing.assert_allclose(shares.mean(axis=1), dirichlet.mean(), atol=5 * 0.15 / np.sqrt(n))
    np.testing.assert_allclose(np.cov(shares), dirichlet.cov(), atol=2e-4)


def test_all_in_one_width_is_the_normal_slab():
    data = UNIMODAL.data(FEW)
    one = at(v1=0.0, v2=0.0, v3=1.0)  # the middle of five widths from 0.1 to 1.6
    normal = xr.Dataset({name: ("sample", [v]) for name, v in {"pi0": 0.7, "tau": 0.4, "mu": 0.0}.items()})
    normal = normal.assign(delta0=one.delta0, sigma0=one.sigma0)
    for question in ("log_left_out", "reliability", "expected_log_likelihood"):
        ours, theirs = (getattr(r.group_level, question)(h, data) for r, h in ((UNIMODAL, one), (NORMAL, normal)))
        np.testing.assert_allclose(*xr.broadcast(ours, theirs), rtol=1e-12, err_msg=question)
    after, other = UNIMODAL.group_level.conditional(one, data), NORMAL.group_level.conditional(normal, data)
    np.testing.assert_allclose(*xr.broadcast(after.mean, other.mean), rtol=1e-12)
    np.testing.assert_allclose(*xr.broadcast(after.sd, other.sd), rtol=1e-12)


def test_no_share_and_no_width_are_exact():
    """With pi1 = 0 all is 0; complete pooling is one effect for all."""
    data = UNIMODAL.data(FEW)
    nothing = UNIMODAL.group_level.conditional(at(pi1=0), data)
    np.testing.assert_array_equal(nothing.mean, 0)
    np.testing.assert_array_equal(nothing.sd, 0)
    fixed = UNIMODAL.fixed["complete"](UNIMODAL.priors(data), data)
    one = at(**fixed | {"mu": 0.3})
    np.testing.assert_allclose(
        UNIMODAL.group_level.log_left_out(one, data).values.ravel(), stats.norm.logpdf(Y, 0.3, SE)
    )
    np.testing.assert_allclose(UNIMODAL.group_level.conditional(one, data).mean, 0.3)
    assert (UNIMODAL.group_level.expectations(one, data)["lfdr"] == 0).all()


def test_no_pooling_is_one_normal_in_advance():
    data = UNIMODAL.data(FEW)
    priors = UNIMODAL.priors(data)
    s0 = priors["theta"].parameters["sigma"]
    grid = np.geomspace(*(slabs.given(priors, name) for name in ("narrowest", "widest")), 5)
    assert s0 == pytest.approx(np.sqrt((grid**2).sum() / 15))  # each slab has a fifteenth of Dirichlet(10, 1, ...)
    alone = at(**UNIMODAL.fixed["none"](priors, data))
    expected = stats.norm.logpdf(Y, 0, np.hypot(SE, s0))
    np.testing.assert_allclose(UNIMODAL.group_level.log_left_out(alone, data).values.ravel(), expected)


def test_widths_reach_from_the_noise_to_the_data_and_stay_where_they_are():
    data = UNIMODAL.data(FEW)
    priors = UNIMODAL.priors(data)
    assert slabs.given(priors, "narrowest") == pytest.approx(0.5 * 0.2)
    assert slabs.given(priors, "widest") == pytest.approx(2 * np.sqrt(0.9**2 - 0.3**2))
    free = NORMAL.under(slab="unimodal", null="empirical")
    assert slabs.given(free.priors(data), "narrowest") == pytest.approx(2 * 0.2)
    assert "assumed central" in free.parameters["pi1"].meaning
    other = UNIMODAL.extras.with_response(data, 10 * Y)
    assert UNIMODAL.fixed["partial"](priors, other) == UNIMODAL.fixed["partial"](priors, data)
    with pytest.raises(ValueError, match="widths of slabs are given: 'widest' expected DiracDelta"):
        UNIMODAL.fixed["partial"](priors | {"widest": Prior("HalfNormal", sigma=1.0)}, data)


@pytest.fixture(scope="module")
def heavy():
    """Genes one in five of which has an effect from a t with two degrees of freedom, and its truth."""
    rng = np.random.default_rng(5)
    frame, _ = genes.simulate(rng, genes=200)
    theta = np.where(rng.random(200) < 0.2, 0.3 * rng.standard_t(2, 200), 0.0)
    frame = frame.assign(effect=rng.normal(theta, frame["standard_error"]))
    return frame, theta, hz.fit_poolings(genes, frame, slab="unimodal", random_seed=1, draws=250, progressbar=False)


def test_independent_draws_are_proved_and_the_list_is_right(heavy):
    _, theta, fits = heavy
    partial = fits["partial"]
    assert partial.attrs["engine"] == "independent"
    assert hz.convergence(partial)["passed"].all()
    np.testing.assert_allclose(partial["posterior"]["pi0"], 1 - partial["posterior"]["pi1"])
    # Few genes, and heavy effects.
    with pytest.warns(NoiseMayHaveHeavyTails, match=r"explains the data as well \(by 0"):
        found = hz.discoveries(partial, fdr=0.1)
    wrong = (theta[partial["group_summary"].dataset.indexes["gene"].get_indexer(found.index)] == 0).sum()
    assert len(found) > 10
    assert wrong <= 0.1 * len(found) + 3 * np.sqrt(0.1 * len(found))


@pytest.mark.parametrize("question", ["new_group", pytest.param("new_observation", marks=pytest.mark.slow)])
def test_both_questions_of_a_comparison(heavy, question):
    _, _, fits = heavy
    table = hz.compare_poolings(fits, question=question)
    assert table.index[0] == "partial"
    assert np.isfinite(table["elpd"].astype(float)).all()


def test_averages_over_draws_are_those_by_scipy(heavy):
    """Lfdr of each gene, draw by draw."""
    frame, _, fits = heavy
    fit = fits["partial"]
    h = fit["posterior"].dataset.stack(sample=("chain", "draw"))
    y, se = frame["effect"].to_numpy(), frame["standard_error"].to_numpy()
    priors = UNIMODAL.priors(UNIMODAL.data(frame))
    grid = np.geomspace(*(slabs.given(priors, name) for name in ("narrowest", "widest")), 5)
    pi1, w = h["pi1"].values, slabs.weights([h[v].values for v in STICKS])
    null = (1 - pi1)[:, None] * stats.norm.pdf(y, 0, se)
    each = [(pi1 * share)[:, None] * stats.norm.pdf(y, 0, np.hypot(se, s)) for share, s in zip(w, grid, strict=True)]
    lfdr = (null / (null + sum(each))).mean(axis=0)
    np.testing.assert_allclose(fit["group_summary"]["lfdr"], lfdr, rtol=1e-6, atol=1e-12)
