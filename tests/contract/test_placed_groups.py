"""Groups that differ before their data: a location with a covariate, theta_j ~ N(alpha + beta x_j, tau^2).

A meta-regression over sites of countries: `at` places each group, h never has its dim. Given tau everything is normal:
the oracles are matrices, tau on a fine grid. The same fits serve the cases in which a density is not defined.
"""

from dataclasses import replace

import numpy as np
import pandas as pd
import pymc as pm
import pytest
import xarray as xr
from pymc_extras.prior import Prior
from scipy import optimize, special, stats

import hbm_zoo as hz
from hbm_zoo.diagnostics.heterogeneity import estimates_over_heterogeneity
from hbm_zoo.diagnostics.prediction import _updated
from hbm_zoo.fields import Extras, Parameter
from hbm_zoo.frames.rules import FrameError, key, label, number, positive
from hbm_zoo.group_level import normal
from hbm_zoo.group_level.level import closed_form, summed
from hbm_zoo.group_level.populations import Normal
from hbm_zoo.inference import chunks
from hbm_zoo.inference.completion import add_groups
from hbm_zoo.inference.fits import hyperparameters, prepared
from hbm_zoo.inference.free_parameters import left_out
from hbm_zoo.inference.summary import group_summary
from hbm_zoo.model import HierarchicalModel
from hbm_zoo.priors import moments
from hbm_zoo.reporting.findings import findings
from hbm_zoo.reporting.report import write

KEY = ("country", "site")


def prepare(frame):
    numbers = {name: ("site", frame[name].to_numpy(float)) for name in ("effect", "se", "latitude")}
    return xr.Dataset(numbers, coords={"site": key(frame, KEY, "sites").to_numpy()})


def at(h, data):
    return h.assign(mu=h.alpha + h.beta * data.latitude)


def conditional(h, data):
    mean, sd = normal.conditional(data.effect, data.se, h.mu, h.tau)
    return h.assign(mu=mean, tau=sd)


def log_marginal(h, data):
    return normal.log_density(data.effect, h.mu, data.se**2 + h.tau**2)


def expected_log_likelihood(h, data):
    after = conditional(h, data)
    return normal.expected_log_density(data.effect, data.se, after.mu, after.tau)


SITES = closed_form(
    population=lambda h: Normal(h.mu, h.tau),
    conditional=conditional,
    log_marginal=log_marginal,
    at=at,
    log_likelihood=lambda theta, h, data: normal.log_density(data.effect, theta, data.se**2),
    expected_log_likelihood=expected_log_likelihood,
    reliability=lambda h, data: normal.reliability(data.se, h.tau),
    replicate=lambda rng, theta, h, data: xr.apply_ufunc(rng.normal, *xr.broadcast(theta, data.se)),
)


def no_pooling(data, prior):
    pm.Normal("y", prior("theta", dims="site"), data.se, observed=data.effect, dims="site")


def pooled(data, prior):
    mu = prior("alpha") + prior("beta") * data.latitude
    pm.Normal("y", mu, pm.math.sqrt(prior("tau") ** 2 + data.se**2), observed=data.effect, dims="site")


def of_one_site(priors):
    (m, v), (_, slope), (t, tv) = (moments(name, priors[name]) for name in ("alpha", "beta", "tau"))
    return Prior("Normal", mu=m, sigma=np.sqrt(v + slope + t**2 + tv))


def alone(priors, data):
    m, v = moments("theta", priors["theta"])
    return {"alpha": m, "beta": 0.0, "tau": np.sqrt(v)}


def thin(rng, data):
    e = data.se * rng.standard_normal(data.sizes["site"])
    return tuple(data.assign(effect=data.effect + sign * e, se=np.sqrt(2) * data.se) for sign in (1, -1))


RECORD = HierarchicalModel(
    name="sites",
    question="Does the effect change with latitude?",
    group="site",
    key=KEY,
    estimand="theta",
    response="effect",
    observed="y",
    location="alpha",
    heterogeneity="tau",
    reference=0.0,
    columns={
        "country": label("the country", unique=True),
        "site": label("the site in its country", unique=True),
        "latitude": number("latitude [10 degrees, centred]"),
        "effect": number("estimated effect"),
        "se": positive("its standard error"),
    },
    parameters={
        "alpha": Parameter("mean effect at mean latitude"),
        "beta": Parameter("change of the mean effect with latitude"),
        "tau": Parameter("spread of sites of one latitude", (0, np.inf)),
    },
    default_priors=lambda data: {
        "alpha": Prior("Normal", mu=0.0, sigma=1.0),
        "beta": Prior("Normal", mu=0.0, sigma=1.0),
        "tau": Prior("HalfNormal", sigma=0.5),
    },
    matched_prior=of_one_site,
    prepare=prepare,
    own=lambda data: data.effect,
    volume=lambda data: (data.se**-2).rename("precision"),
    variants={
        "none": {"centered": no_pooling},
        "complete": {"marginalized": pooled},
        "partial": {"marginalized": pooled},
    },
    fixed={"none": alone, "complete": lambda p, d: {"tau": 0.0}, "partial": lambda p, d: {}},
    group_level=SITES,
    simulate=None,
    datasets={},
    extras=Extras(thin=thin),
)

X = np.array([-2.1, -1.6, -1.2, -0.7, -0.4, 0.0, 0.3, 0.8, 1.1, 1.7, 2.1])
Y = np.array([1.45, 0.70, 1.02, 0.10, 0.55, -0.10, 0.25, -0.75, -0.40, -0.62, -1.50])
SE = np.array([0.3, 0.25, 0.4, 0.3, 0.2, 0.35, 0.3, 0.25, 0.4, 0.3, 0.35])
FRAME = pd.DataFrame(
    {"country": [*"NNNNPPPPQQQ"], "site": [1, 2, 3, 4, 1, 2, 3, 4, 1, 2, 3], "latitude": X, "effect": Y, "se": SE}
)


@pytest.fixture(scope="module")
def fits():
    return hz.fit_poolings(RECORD, FRAME, draws=1000, chains=2, random_seed=3, progressbar=False)


@pytest.fixture(scope="module")
def found(fits):
    return findings(fits, model=RECORD)


# Exact answers: alpha and beta integrated out by a matrix, tau on a grid.


def evidence(tau, y=Y, x=X, se=SE):
    """Log p(y | tau)."""
    design = np.column_stack([np.ones_like(x), x])
    return stats.multivariate_normal(np.zeros(len(y)), np.diag(se**2 + tau**2) + design @ design.T).logpdf(y)


TAU = (np.arange(150) + 0.5) / 100
PRIOR = stats.halfnorm(scale=0.5).logpdf(TAU)


def exact_elpd(taus=TAU, prior=PRIOR):
    def total(kept):
        return special.logsumexp(np.asarray(prior) + [evidence(t, Y[kept], X[kept], SE[kept]) for t in taus])

    return np.array([total(slice(None)) - total(np.arange(len(Y)) != j) for j in range(len(Y))])


def exact_mean(x_new, y=Y, x=X, se=SE):
    """E[alpha + beta x_new | y]."""
    share = special.softmax(PRIOR + [evidence(t, y, x, se) for t in TAU])
    design = np.column_stack([np.ones_like(x), x])
    lines = []
    for t in TAU:
        precision = design.T / (se**2 + t**2)
        lines.append(np.linalg.solve(precision @ design + np.eye(2), precision @ y))
    return share @ np.array(lines) @ [1, x_new]


H = xr.Dataset({"alpha": ("sample", [0.2, -0.5]), "beta": ("sample", [-0.6, 0.1]), "tau": ("sample", [0.3, 0.0])})


def test_each_group_is_placed_once_and_h_never_has_its_dim(fits):
    data = RECORD.data(FRAME)
    mu = H.alpha.values[:, None] + H.beta.values[:, None] * X
    sd = np.sqrt(H.tau.values[:, None] ** 2 + SE**2)
    each = stats.norm.logpdf(Y, mu, sd)
    np.testing.assert_allclose(SITES.log_left_out(H, data).transpose("sample", "site"), each, rtol=1e-10)
    np.testing.assert_allclose(SITES.log_joint(H, data), each.sum(axis=1), rtol=1e-10)
    before, after = SITES.of_groups(H, data), SITES.conditional(H, data)
    np.testing.assert_allclose(before.mean.transpose("sample", "site"), mu)
    weight = H.tau.values[:, None] ** 2 / sd**2
    np.testing.assert_allclose(after.mean.transpose("sample", "site"), weight * Y + (1 - weight) * mu, rtol=1e-10)
    assert set(hyperparameters(fits["partial"]).dims) == {"sample"}


def test_chunks_of_five_are_as_good_as_all_at_once(fits, monkeypatch):
    fit = fits["partial"]
    h, data = hyperparameters(fit), prepared(fit)

    def everything():
        return (
            chunks.log_joint(RECORD, h, data),
            group_summary(RECORD, "partial", h, data, 1.0),
            hz.groups(fits, threshold=0.3, model=RECORD).to_xarray(),
            xr.DataArray(left_out(RECORD, fits["complete"], np.arange(len(Y)))[0]),
            estimates_over_heterogeneity(fit, at=[0.0, 0.4], model=RECORD)["estimate"],
        )

    at_once = everything()
    sizes = []
    monkeypatch.setattr(chunks, "CELLS_AT_ONCE", 5 * h.sizes["sample"])
    in_portions = chunks.in_portions
    monkeypatch.setattr(
        chunks, "in_portions", lambda *a: (sizes.append(some.size) or some for some in list(in_portions(*a)))
    )
    for one, other in zip(at_once, everything(), strict=True):
        xr.testing.assert_allclose(one, other, rtol=1e-9)
    assert sizes[:3] == [5, 5, 1]


def test_fits_and_comparisons_agree_with_scipy(found):
    table = found.comparisons["new_group"]
    assert table.loc["partial", "elpd"] == pytest.approx(exact_elpd().sum(), abs=0.1)
    assert table.loc["complete", "elpd"] == pytest.approx(exact_elpd([0.0], [0.0]).sum(), abs=0.01)
    assert table["dse"].notna()[:2].all()
    again = found.comparisons["new_observation"]
    assert again["elpd"].notna().all()
    assert set(again.index[again["rank"].notna()]) == {"none", "complete", "partial"}


def test_empirical_bayes_agrees_with_scipy():
    plug_in = hz.empirical_bayes(RECORD, FRAME, draws=10, chains=1)

    def minus(u):
        return -stats.norm.logpdf(Y, u[0] + u[1] * X, np.sqrt(SE**2 + u[2] ** 2)).sum()

    best = optimize.minimize(minus, [0, 0, 0.3], method="BFGS")
    assert plug_in.attrs["log_likelihood"] == pytest.approx(-best.fun, abs=1e-6)
    np.testing.assert_allclose(plug_in["estimates"]["value"][:2], best.x[:2], atol=1e-3)


def test_a_new_group_of_predict_uses_its_own_covariate(fits):
    frame = pd.DataFrame({"country": ["R", "N", "R"], "site": [1, 2, 2], "latitude": [-3.0, 0.0, 3.0], "se": 0.2})
    said = hz.predict(fits["partial"], frame, model=RECORD)
    summary = said["group_summary"].to_dataset()
    assert summary["site"].values.tolist() == ["R / 1", "N / 2", "R / 2"]
    assert summary["case"].values.tolist() == ["never seen", "known", "never seen"]
    np.testing.assert_allclose(summary["mean"][[0, 2]], [exact_mean(-3.0), exact_mean(3.0)], atol=0.03)
    known = fits["partial"]["group_summary"].to_dataset().sel(site="N / 2")  # its own data are in the fit, where it was
    np.testing.assert_allclose(summary["mean"][1], known["mean"], rtol=1e-9)
    np.testing.assert_allclose(
        said["predictions"]["y"].mean(["chain", "draw"])[[0, 2]], summary["mean"][[0, 2]], atol=0.1
    )
    assert said["predictions"]["y"]["of_site"].values.tolist() == summary["site"].values.tolist()


def test_a_part_of_a_key_is_the_same_label_as_a_float(fits):
    rows = FRAME.assign(site=FRAME["site"].astype(float), effect=np.nan)
    groups = hz.predict(fits["partial"], rows, model=RECORD)["group_summary"].to_dataset()
    assert groups["site"].values.tolist() == fits["partial"]["group_summary"]["site"].values.tolist()
    assert set(groups["case"].values) == {"known"}


def test_rows_brought_move_the_line_as_a_fit_with_them_would(fits):
    frame = pd.DataFrame({"country": "R", "site": [1, 9], "latitude": [2.6, -2.6], "effect": [-0.6, np.nan], "se": 0.3})
    said = hz.predict(fits["partial"], frame, model=RECORD)["group_summary"].to_dataset()
    assert said["case"].values.tolist() == ["brings rows", "never seen"]
    moved = exact_mean(-2.6, np.append(Y, -0.6), np.append(X, 2.6), np.append(SE, 0.3))
    assert abs(moved - exact_mean(-2.6)) > 0.05
    assert float(said["mean"][1]) == pytest.approx(moved, abs=0.03)


def test_without_a_row_nobody_knows_where_a_new_group_lies(fits):
    with pytest.raises(ValueError, match=r"^Where a new site of sites lies depends on its columns: give it a row\.$"):
        hz.predict(fits["partial"], n_new=1, model=RECORD)


def test_a_bad_row_to_predict_names_the_key(fits):
    for column in KEY:
        with pytest.raises(FrameError, match=rf"^sites expected a column '{column}'"):
            hz.predict(fits["partial"], FRAME.drop(columns=column), model=RECORD)
    twice = pd.DataFrame({"country": "R", "site": [1, 1], "latitude": 0.0, "se": 0.2})
    with pytest.raises(FrameError, match=r"^sites: columns 'country' and 'site' expected each combination once"):
        hz.predict(fits["partial"], twice, model=RECORD)


def test_its_graph_is_described(fits):
    assert hz.describe_pooling(RECORD.build(FRAME)).startswith("theta is integrated out of the likelihood of y")
    assert hz.describe_pooling(RECORD.build(FRAME, "complete")) == (
        "alpha and beta are the same for every site: complete pooling."
    )


def test_its_picture_has_a_target_for_each_site(fits, found):
    assert any("moves" in sentence for sentence in found.verdict)
    (axes,) = hz.plot_shrinkage(fits, RECORD).axes
    assert {"target of each", "complete pooling"} <= {text.get_text() for text in axes.figure.legends[0].get_texts()}


def test_a_funnel_needs_one_target(fits, found, tmp_path):
    limits = replace(RECORD.extras, control_limits=lambda target, volume, probability: (target - 1, target + 1))
    record = replace(RECORD, extras=limits)
    with pytest.raises(ValueError, match="A funnel has one target, and .* expects something else of each site"):
        hz.plot_funnel(fits, record)
    folder = write(replace(found, record=record), tmp_path / "report")
    assert not list(folder.rglob("*funnel*"))


# A density that is not defined never wins: it is not 0 nats.


def undefined(where, name="log_joint", of=RECORD):
    """The record with a density that is NaN at some hyperparameters."""
    formula = getattr(of.group_level, name)
    change = {name: lambda h, data: formula(h, data).where(~where(h, data))}
    if name == "log_left_out":
        change["log_joint"] = summed(change[name])
    return replace(of, group_level=replace(of.group_level, **change))


def test_one_group_without_a_density_makes_the_joint_undefined():
    holed = undefined(lambda h, d: (h.tau > 0) & (d.site == "P / 2"), "log_left_out")
    joint = chunks.log_joint(holed, H, RECORD.data(FRAME)).values
    assert np.isnan(joint).tolist() == [True, False]


def test_an_undefined_joint_is_never_the_maximum():
    best = hz.empirical_bayes(RECORD, FRAME, draws=10, chains=1)
    for where in (lambda h, d: h.beta > 1, lambda h, d: h.tau == 0, lambda h, d: (h.alpha < -3) | (h.tau > 4)):
        holed = hz.empirical_bayes(undefined(where), FRAME, draws=10, chains=1)
        np.testing.assert_allclose(holed["estimates"]["value"], best["estimates"]["value"], atol=1e-5)
    nowhere = (
        r"^The likelihood of sites is not defined where its search begins, at alpha = 0, beta = 0, tau = 0\.337\.$"
    )
    with pytest.raises(ValueError, match=nowhere):
        hz.empirical_bayes(undefined(lambda h, d: h.tau > 0.2), FRAME)


def test_an_undefined_joint_is_no_node_of_the_quadrature(fits):
    """Beyond five standard deviations nothing is defined: counted as 0 nats it would hold all the probability."""
    h = hyperparameters(fits["complete"])
    most = float(h.beta.mean() + 5 * h.beta.std())
    for name in ("log_joint", "log_left_out"):
        holed = undefined(lambda h, d: h.beta > most, name)
        elpd, error = left_out(holed, fits["complete"], np.arange(len(Y)))
        np.testing.assert_allclose(elpd, exact_elpd([0.0], [0.0]), atol=1e-3)
        assert error.max() < 1e-3


def test_a_group_without_a_density_anywhere_leaves_the_others_undefined(fits):
    """Nothing is known of the evidence of the others: a ratio of two that are nothing is not 0 nats."""
    holed = undefined(lambda h, d: (h.beta < np.inf) & (d.site == "P / 2"), "log_left_out")
    elpd, _ = left_out(holed, fits["complete"], np.arange(len(Y)))
    assert np.isnan(elpd).all()


def test_draws_under_which_rows_have_no_density_go(fits):
    fit, most = fits["partial"], 0.25
    frame = pd.DataFrame({"country": "R", "site": [1], "latitude": [0.0], "effect": [0.1], "se": 0.3})
    h, brought = hyperparameters(fit), RECORD.prepared(frame)
    assert (h.tau > most).any()
    after, attrs = _updated(undefined(lambda h, d: h.tau > most), fit, h, brought, np.random.default_rng(1))
    assert float(after.tau.max()) <= most
    assert attrs["ess"] < (h.tau <= most).sum()
    never = undefined(lambda h, d: h.tau >= 0)
    with pytest.raises(ValueError, match=r"^Under no draw of the fit do the rows brought to sites have a density"):
        hz.predict(fit, pd.concat([frame, frame.assign(site=2, effect=np.nan)]), model=never)


def test_a_pooling_without_a_density_of_some_group_is_not_ranked(fits):
    """The site's likelihood is undefined under partial pooling: as 0 nats it would make partial pooling the best."""
    holed = undefined(lambda h, d: (h.tau > 0) & (d.site == "P / 2"), "log_left_out")
    holed = replace(holed, group_level=replace(holed.group_level, log_joint=SITES.log_joint))  # which drew the fit
    completed = fits["partial"].copy()
    add_groups(holed, completed, prepared(completed))
    table = hz.compare_poolings(fits | {"partial": completed}, model=holed)
    assert table["rank"].tolist()[0] == 1
    assert table.index.tolist()[0] == "complete"
    assert table.loc["partial", ["elpd", "elpd_diff"]].isna().all()
    assert table.loc["partial", "note"] == "a density is not defined: unranked"
    said = " ".join(hz.verdict(fits | {"partial": completed}, {"new_group": table}, model=holed))
    assert "there is nothing to compare: fewer than two poolings can be ranked" in said
    assert "nan nats" not in said
