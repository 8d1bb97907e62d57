"""Model discrepancy: density, limits, quadrature, the experiment's lessons, one specimen, frames, verbs."""

import json
from dataclasses import replace

import numpy as np
import pandas as pd
import pymc as pm
import pytest
import xarray as xr
from pymc_extras.prior import Prior
from scipy import stats
from scipy.special import softmax

import hbm_zoo as hz
from hbm_zoo.diagnostics.model_discrepancy import POPULATION
from hbm_zoo.diagnostics.reality import ANOTHER_BEAM, BEYOND_LOADS, BEYOND_SENSORS, INSIDE, parts
from hbm_zoo.diagnostics.rigs import taken_for_the_truth
from hbm_zoo.frames.rules import FrameError, FrameWarning
from hbm_zoo.group_level.discrepancy import APART, log_density, random_estimates
from hbm_zoo.inference.fits import efficiency, hyperparameters, prepared, proposals
from hbm_zoo.models import beam
from hbm_zoo.models.model_discrepancy import TRUTHS, truly

MODEL = hz.model_discrepancy.MODEL
SETTINGS = {"random_seed": 1, "progressbar": False, "draws": 500}
RIG = hz.load_data("simulated_rig")
SMALL, _ = MODEL.simulate(np.random.default_rng(2), specimens=2, positions=(0.2, 0.5, 0.9), loads=(5.0, 10.0))
SMALL = SMALL.iloc[[0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 11]]
PRIORS = {
    "m": Prior("Normal", mu=0.015, sigma=0.004),
    "s": Prior("HalfNormal", sigma=0.002),
    "sigma": Prior("HalfNormal", sigma=0.2),
    "a": Prior("HalfNormal", sigma=2.0),
    "ell": Prior("LogNormal", mu=-1.0, sigma=0.5),
    "a_own": Prior("HalfNormal", sigma=1.0),
}
POINT = {"m": 0.016, "s_log__": -6.9, "sigma_log__": -2.0, "a_log__": 0.3, "ell_log__": -0.9, "a_own_log__": -1.0}
POINT |= {"t": np.array([-0.4, 1.1]), "b": np.array([0.0165, 0.0158]), "z": np.array([0.4, -0.3, 1.2])}
POINT |= {"z_own": np.array([[0.1, 0.5, -0.7], [1.0, -0.2, 0.3]])}
VARIANTS = [("shared", pooling, form) for pooling, forms in MODEL.variants.items() for form in forms]
VARIANTS += [(kind, "partial", form) for kind in ("none", "by specimen") for form in MODEL.variants["partial"]]
QUICK = [("shared", "partial", "noncentered"), ("shared", "partial", "marginalized"), ("shared", "none", "centered")]
CASES = [pytest.param(*case, marks=[] if case in QUICK else pytest.mark.slow) for case in VARIANTS]


# The beam.


def test_the_elements_are_the_cubic_of_the_textbook():
    """P x^2 (3 L - x) / (6 E I), in mm at 1 GPa."""
    x, P, length, width, thickness = np.linspace(0, 1.3, 40), 7.0, 1.3, 25.0, 8.0
    exact = 1e3 * P * x**2 * (3 * length - x) / (6 * 1e9 * (width * thickness**3 / 12 * 1e-12))
    np.testing.assert_allclose(beam.deflection(x, P, length, width, thickness), exact, rtol=1e-11, atol=1e-10)


@pytest.mark.parametrize("truth", TRUTHS)
def test_what_the_model_does_not_know_adds_its_share_at_the_tip_under_the_middle_load(truth):
    frame = SMALL.iloc[[0]].assign(position=1.0, load=10.0)
    clamped, there = (truly(frame, np.array([70.0]), name, 0.3, 70.0, 10.0)[0] for name in ("clamped", truth))
    assert there == pytest.approx(clamped * (1.0 if truth == "clamped" else 1.3))


def test_each_mounting_adds_its_share_and_all_add_the_same_if_they_do_not_differ():
    def shares(mounting):
        rng = np.random.default_rng(3)
        frame, true = MODEL.simulate(rng, specimens=4, mounting=mounting, share=0.2, sigma=0.0)
        tip = frame[(frame["position"] == 0.8) & (frame["load"] == 10.0)]
        f = beam.deflection(*(tip[name].to_numpy() for name in ("position", "load", "length", "width", "thickness")))
        of_tip = beam.deflection(1.0, 10.0, 1.0, 30.0, 10.0) / 70 * 0.8
        return true, (tip["deflection"].to_numpy() - f * true.b.values) / of_tip

    same, found = shares(0.0)
    np.testing.assert_allclose(found, 0.2)
    np.testing.assert_allclose(same.share, 0.2)
    true, found = shares(0.3)
    np.testing.assert_allclose(found, true.share)
    assert np.unique(true.share).size == 4


# The density of each variant as it stands on the page.


def by_scipy(kind, pooling, form, point):
    """Log joint density without Jacobians."""
    y, x, P = (SMALL[name].to_numpy() for name in ("deflection", "position", "load"))
    of, point_index = pd.factorize(SMALL["specimen"])[0], pd.factorize(x, sort=True)[0]
    f = 1e3 * P * x**2 * (3 - x) / (6 * 1e9 * (30 * 10**3 / 12 * 1e-12))
    w = P / np.median(P) * 2 * x
    m = point["m"]
    s, sigma, a, ell, a_own = (np.exp(point[f"{name}_log__"]) for name in ("s", "sigma", "a", "ell", "a_own"))
    of_prior = {"m": stats.norm(0.015, 0.004).logpdf(m), "ell": stats.norm(-1, 0.5).logpdf(np.log(ell)) - np.log(ell)}
    halves = {"s": (s, 0.002), "sigma": (sigma, 0.2), "a": (a, 2.0), "a_own": (a_own, 1.0)}
    of_prior |= {name: stats.halfnorm(scale=scale).logpdf(value) for name, (value, scale) in halves.items()}
    gone = {"none": ("m", "s"), "complete": ("s",), "partial": ()}[pooling]
    gone += {"none": ("a", "ell", "a_own"), "shared": ("a_own",), "by specimen": ()}[kind]
    log_p = sum(value for name, value in of_prior.items() if name not in gone)
    before = 0.015, np.sqrt(0.004**2 + 0.002**2)
    if pooling == "none":
        m, s = before
    s = 0.0 if pooling == "complete" else s
    a, a_own = (0.0 if kind == "none" else a), (a_own if kind == "by specimen" else 0.0)
    places = np.unique(x)
    C = np.exp(-(np.subtract.outer(places, places) ** 2) / (2 * ell**2))
    C = (1 - APART) * C + APART * np.eye(3)
    if form == "marginalized":
        same, at = np.equal.outer(of, of), C[np.ix_(point_index, point_index)]
        V = s**2 * np.outer(f, f) * same + np.outer(w, w) * (a**2 + a_own**2 * same) * at + sigma**2 * np.eye(y.size)
        return log_p + stats.multivariate_normal(m * f, V).logpdf(y)
    R, delta = np.linalg.cholesky(C), np.zeros((2, 3))
    if kind != "none":
        log_p += stats.norm.logpdf(point["z"]).sum()
        delta = delta + a * R @ point["z"]
    if kind == "by specimen":
        log_p += stats.norm.logpdf(point["z_own"]).sum()
        delta = delta + a_own * point["z_own"] @ R.T
    b = np.full(2, m)
    if pooling == "none":
        b, log_p = point["b"], log_p + stats.norm(*before).logpdf(point["b"]).sum()
    if pooling == "partial":
        b, log_p = m + s * point["t"], log_p + stats.norm.logpdf(point["t"]).sum()
    return log_p + stats.norm(b[of] * f + w * delta[of, point_index], sigma).logpdf(y).sum()


@pytest.mark.parametrize(("kind", "pooling", "form"), CASES)
def test_each_variant_has_the_density_and_gradient_of_the_page(kind, pooling, form):
    record = MODEL.under(discrepancy=kind)
    priors = {name: prior for name, prior in PRIORS.items() if name in record.parameters}
    priors = {name: prior for name, prior in priors.items() if not (kind == "none" and name in ("a", "ell"))}
    model = record.build(SMALL, pooling, form, priors)
    point = {v.name: np.asarray(POINT[v.name]) for v in model.value_vars}
    found = model.compile_logp(jacobian=False, mode="AS_WRITTEN")(point)
    assert float(found) == pytest.approx(by_scipy(kind, pooling, form, POINT), rel=1e-8)
    gradient, start = model.compile_dlogp(jacobian=False, mode="AS_WRITTEN")(point), 0
    for variable in model.value_vars:
        name, size = variable.name, np.size(POINT[variable.name])
        for k in range(size):
            step = 1e-7 if name in ("m", "b") else 1e-5
            e = step * np.reshape(np.eye(size)[k], np.shape(POINT[name]))
            ahead, behind = (by_scipy(kind, pooling, form, POINT | {name: POINT[name] + side * e}) for side in (1, -1))
            assert gradient[start + k] == pytest.approx((ahead - behind) / (2 * step), rel=1e-4, abs=1e-3), name
        start += size


# A fit against quadrature, and what the experiment teaches.


@pytest.fixture(scope="module")
def fits():
    known = {"m": Prior("Normal", mu=1 / 70, sigma=0.03 / 70)}
    return {
        "vague": hz.fit(MODEL, RIG, **SETTINGS),
        "known": hz.fit(MODEL, RIG, priors=known, **SETTINGS),
        "without": hz.fit(MODEL, RIG, discrepancy="none", **SETTINGS),
    }


def test_the_fit_is_the_grid(fits):
    """Without a discrepancy: mean of each hyperparameter, over a grid of three, within 4 Monte Carlo errors."""
    fit = fits["without"]
    h, data = hyperparameters(fit), MODEL.under(discrepancy="none").data(RIG)
    axes = [np.linspace(float(h[name].min()), float(h[name].max()) * 1.05, 45) for name in ("m", "s", "sigma")]
    m, s, sigma = (axis.ravel() for axis in np.meshgrid(*axes, indexing="ij"))
    priors = {name: prior.parameters for name, prior in MODEL.under(discrepancy="none").priors(data).items()}
    n, of_line, b_hat = 24, data.ff.values[0], data.b_hat.values[:, None]
    rr = float(((data.deflection - data.b_hat[data.of_specimen.values].values * data.f) ** 2).sum())
    log_p = stats.norm(m, np.sqrt(s**2 + sigma**2 / of_line)).logpdf(b_hat).sum(axis=0)
    log_p += -0.5 * rr / sigma**2 - 6 * (n - 1) * np.log(sigma)
    log_p += stats.norm(priors["m"]["mu"], priors["m"]["sigma"]).logpdf(m)
    log_p += stats.halfnorm(scale=priors["s"]["sigma"]).logpdf(s)
    weight = softmax(log_p + stats.halfnorm(scale=priors["sigma"]["sigma"]).logpdf(sigma))
    for name, values in (("m", m), ("s", s), ("sigma", sigma)):
        draws = h[name].values
        error = 4 * draws.std() / np.sqrt(efficiency(fit) * draws.size)
        assert abs(draws.mean() - weight @ values) < error + 0.02 * draws.std(), name


def test_without_a_discrepancy_the_modulus_is_wrong_with_confidence_and_with_one_it_is_what_the_prior_makes_of_it(fits):
    tables = {name: hz.model_discrepancy.modulus(fit).loc[POPULATION] for name, fit in fits.items()}
    ends = {name: (table["E_eti89_lb"], table["E_eti89_ub"]) for name, table in tables.items()}
    assert ends["without"][1] < 55  # the truth is 70
    for name in ("vague", "known"):
        assert ends[name][0] < 70 < ends[name][1]
    widths = {name: high - low for name, (low, high) in ends.items()}
    assert widths["vague"] > 3 * widths["known"] > 3 * widths["without"]
    assert tables["known"]["learned"] < 0.5 < tables["vague"]["learned"]


def test_three_places_are_predicted_with_and_without_a_discrepancy(fits):
    """As `reality` of a frame says them, and the fit of the same frame without one."""
    table = hz.model_discrepancy.inside_and_beyond(fits["vague"])
    assert table["where"].tolist() == [INSIDE, BEYOND_SENSORS, BEYOND_LOADS]
    rows = table.index.to_frame(index=False).assign(**RIG.iloc[0][["length", "width", "thickness"]])
    expected = hz.model_discrepancy.reality(fits["vague"], rows, fits["without"])
    np.testing.assert_allclose(table["reality"], expected["reality"])
    assert (abs(table["without"].to_numpy() - expected["without"]) < 0.2 * expected["sd_without"]).all()
    with pytest.raises(ValueError, match="fit with a discrepancy"):
        hz.model_discrepancy.inside_and_beyond(fits["without"])


@pytest.mark.slow
def test_the_first_of_beams_that_differ_has_places_of_its_own():
    """A beam of half the length: its sensors, its end; loads are those of all."""
    short = RIG.assign(length=np.where(RIG["specimen"] == "S1", 0.5, RIG["length"]))
    short = short[(short["specimen"] != "S1") | (short["position"] < 0.5)]
    fit = hz.fit(MODEL, short, "none", draws=250, random_seed=1, progressbar=False)
    position = hz.model_discrepancy.inside_and_beyond(fit).index.get_level_values("position")
    assert position[1] == 0.5
    assert max(position) == 0.5


def test_the_simulator_is_taken_for_the_truth_from_a_fit_as_from_its_frame(fits):
    found = taken_for_the_truth(fits["vague"])
    for name in ("m", "s", "sigma"):
        np.testing.assert_allclose(found["posterior"][name], fits["without"]["posterior"][name], rtol=1e-6)
    assert not {"a", "ell"} & set(found["posterior"].dataset)
    informed = hyperparameters(taken_for_the_truth(fits["known"])).m
    assert 1 / informed.mean() > 60  # the prior of the fit, not the default one


def test_specimens_are_compared_better_than_they_are_known(fits):
    """Their differences are free of what they share; the truth of each difference lies within 4 sds."""
    table = hz.model_discrepancy.modulus(fits["vague"]).drop(POPULATION)
    assert (table["sd_of_difference"] < table["sd"] / 50).all()
    b = fits["vague"]["posterior"]["b"]
    drawn = (b - b.mean("specimen")).stack(sample=("chain", "draw")).transpose("sample", ...).values
    true = RIG.groupby("specimen", sort=False)["true_b"].first().to_numpy()
    assert (abs(drawn.mean(axis=0) - (true - true.mean())) < 4 * drawn.std(axis=0)).all()


def test_reality_is_known_better_than_its_parts_and_nearer_than_without(fits):
    rows = RIG[RIG["specimen"] == "S1"].iloc[[3, 3, 3]].assign(position=[0.45, 1.0, 0.8], load=[10.0, 10.0, 30.0])
    moduli = 1 / rows["true_b"].to_numpy()
    there = truly(rows, moduli, "rotational spring", 0.3, 70.0, 10.0)
    table = hz.model_discrepancy.reality(fits["known"], rows, fits["without"])
    assert table["where"].tolist() == [INSIDE, BEYOND_SENSORS, BEYOND_LOADS]
    other = rows.assign(specimen="new", thickness=20.0)
    assert hz.model_discrepancy.reality(fits["known"], other)["where"].iloc[1] == f"{BEYOND_SENSORS}, {ANOTHER_BEAM}"
    with pytest.raises(
        FrameError, match="expected specimen S1 as it was in the fit, 1 x 30 x 10, got 1 x 30 x 20: give"
    ):
        hz.model_discrepancy.reality(fits["known"], rows.assign(thickness=20.0))
    np.testing.assert_allclose(table["simulator"] + table["discrepancy"], table["reality"], rtol=1e-9)
    assert (table["sd"] < table["sd_of_discrepancy"] / 2).all()
    assert (abs(table["reality"] - there) < 4 * table["sd"]).all()
    assert abs(table["without"].iloc[0] - there[0]) > 5 * table["sd_without"].iloc[0]


@pytest.mark.slow
def test_the_error_of_reality_is_the_scatter_of_other_draws():
    """Eight fits of the same readings; the scatter of eight is known to a quarter."""
    alone = RIG[RIG["specimen"] == "S1"]
    rows = alone.iloc[[3, 3]].assign(position=[0.45, 1.0])
    means, errors = [], []
    for seed in range(8):
        fit = hz.fit(MODEL, alone, "none", discrepancy="none", draws=100, random_seed=seed, progressbar=False)
        table = hz.model_discrepancy.reality(fit, rows)
        means.append(table["reality"])
        errors.append(table["mcse"])
    ratio = np.std(means, axis=0, ddof=1) / np.mean(errors, axis=0)
    assert ((ratio > 0.4) & (ratio < 1.6)).all(), ratio


def test_the_curve_is_the_mean_of_draws_and_rises_to_the_truth(fits):
    table = hz.model_discrepancy.discrepancy(fits["known"], [0.0, 0.4, 0.8, 1.0])
    assert table.loc[0.0, ["discrepancy", "mcse"]].tolist() == [0.0, 0.0]
    assert table["where"].tolist() == [INSIDE, INSIDE, INSIDE, BEYOND_SENSORS]
    rows = RIG.head(1).iloc[[0] * 2].assign(position=[0.4, 0.8], load=10.0)
    drawn, _, _ = parts(fits["known"], rows)
    delta = drawn["discrepancy"]
    error = 4.5 * delta.std("sample") / np.sqrt(delta.sizes["sample"] * efficiency(fits["known"]))
    assert (abs(delta.mean("sample").values - table["discrepancy"].iloc[1:3]) < error.values).all()
    off = 0.3 * beam.deflection(1.0, 10.0, 1.0, 30.0, 10.0) / 70 * np.array([0.4, 0.8])
    low, high = (table[f"discrepancy_eti89_{end}"].iloc[1:3] for end in ("lb", "ub"))
    assert ((low < off) & (off < high)).all()


def test_prediction_of_new_readings_is_reality_with_noise(fits):
    rows = RIG.head(2).drop(columns="deflection").assign(position=[0.45, 0.45], specimen=["S1", "new"])
    predicted = hz.predict(fits["known"], rows)["row_summary"].to_dataset()
    table = hz.model_discrepancy.reality(fits["known"], rows)
    sigma = float(fits["known"]["posterior"]["sigma"].mean())
    np.testing.assert_allclose(predicted["mean"], table["reality"], atol=5 * np.hypot(table["sd"], sigma).max() / 30)
    np.testing.assert_allclose(predicted["sd"], np.hypot(table["sd"], sigma), rtol=0.15)
    assert table["sd"].iloc[1] > 5 * table["sd"].iloc[0]  # a specimen never seen


@pytest.mark.long
def test_one_specimen_is_calibrated_alone():
    """Kennedy & O'Hagan's single experiment: no pooling, and nothing else."""
    one = RIG[RIG["specimen"] == "S1"]
    fit = hz.fit(MODEL, one, "none", **SETTINGS)
    assert json.loads(fit.attrs["fixed"])["s"] > 0
    table = hz.model_discrepancy.modulus(fit)
    assert table.index.tolist() == ["S1"]
    assert table["E_eti89_lb"].item() < 70 < table["E_eti89_ub"].item()
    with pytest.raises(ValueError, match="only no pooling can be fitted"):
        hz.fit(MODEL, one, **SETTINGS)


def test_a_proposal_that_has_no_weight_leaves_what_is_left_out_defined(fits):
    """At a noise of 1e-15 mm no density is defined."""
    fit = fits["vague"].copy()
    proposed = fit["proposals"].to_dataset().copy(deep=True)
    proposed["sigma"][:3], proposed["log_ratio"][:3] = 1e-15, -np.inf
    fit["proposals"] = xr.DataTree(proposed)
    h, data = proposals(fit), prepared(fit)
    assert h.sizes["sample"] == proposed.sizes["proposal"] - 3
    assert np.isfinite(MODEL.group_level.leave_row_out(h, data, np.arange(2))).all()


def refitted(frame, record, priors, pooling):
    """Log density of each specimen under a fit of the others, and its Monte Carlo error."""
    options, data = dict(record.chosen), record.data(frame)
    for name in data["specimen"].values:
        fit = hz.fit(MODEL, frame[frame["specimen"] != name], pooling, priors=priors, **options, **SETTINGS)
        h = hyperparameters(fit)
        density = np.exp(record.group_level.log_left_out(h, data).sel(specimen=name).values)
        error = density.std() / density.mean() / np.sqrt(density.size * efficiency(fit))
        yield np.log(density.mean()), error


@pytest.mark.slow
@pytest.mark.parametrize("discrepancy", ["shared", "none", "by specimen"])
@pytest.mark.parametrize("pooling", ["partial", "complete"])
def test_a_specimen_left_out_is_predicted_as_by_a_refit(discrepancy, pooling):
    """The sum over specimens, by weights of one fit and by refits, within 4 errors of both."""
    places = {"positions": (0.2, 0.5, 0.8), "loads": (5.0, 10.0)}
    frame, _ = MODEL.simulate(np.random.default_rng(5), specimens=4, **places)
    record = MODEL.under(discrepancy=discrepancy)
    priors = {n: p for n, p in record.priors(record.data(frame)).items() if n in record.parameters}
    priors = {n: p for n, p in priors.items() if not (discrepancy == "none" and n in ("a", "ell"))}
    fit = hz.fit(MODEL, frame, pooling, priors=priors, discrepancy=discrepancy, **SETTINGS)
    found = hz.compare_poolings({pooling: fit}).loc[pooling]
    left_out, errors = np.transpose([*refitted(frame, record, priors, pooling)])
    assert abs(found["elpd"] - left_out.sum()) < 4 * np.hypot(found["mcse"], np.linalg.norm(errors))
    assert np.linalg.norm(errors) < 0.1


# Limits and options.


def test_data_in_other_units_of_load_and_order_have_the_same_posterior_of_the_rest():
    """Rows in another order are the same data; specimens measured alike have one design."""
    data = MODEL.data(RIG)
    shuffled = MODEL.data(RIG.sample(frac=1, random_state=1))
    assert data.sizes["design"] == shuffled.sizes["design"] == 1
    h = xr.Dataset({name: ("sample", [value]) for name, value in (("m", 0.016), ("s", 1e-3), ("sigma", 0.1))})
    h = h.assign(a=("sample", [1.0]), ell=("sample", [0.4]))
    log_joint = MODEL.group_level.log_joint
    np.testing.assert_allclose(log_joint(h, data), log_joint(h, shuffled), rtol=1e-9)


def test_options_say_where_a_discrepancy_is():
    for support, load in (("pinned", "proportional"), ("free", "proportional"), ("free", "stationary")):
        data = MODEL.data(RIG, support=support, with_load=load, typical_load=10.0)
        w, x, P = (data[name].values for name in ("w", "position", "load"))
        np.testing.assert_allclose(w, (2 * x if support == "pinned" else 1) * (P / 10 if load == "proportional" else 1))
        assert data.sizes["point"] == (8 if load == "proportional" else 24)
    assert data["alike"].values.min() == pytest.approx(np.exp(-0.5))  # 5 N and 15 N, over 10 N


def test_default_priors_are_read_from_the_frame():
    data = MODEL.data(RIG)
    priors = MODEL.priors(data)
    m0 = (RIG["deflection"] * data.f.values).sum() / (data.f.values**2).sum()
    d = m0 * np.median(data.f.values)
    numbers = {name: prior.parameters for name, prior in priors.items()}
    assert numbers["m"] == pytest.approx({"mu": m0, "sigma": m0 / 2})
    assert numbers["a"]["sigma"] == pytest.approx(d / 2)
    low, high = np.exp(numbers["ell"]["mu"] + np.array([-2, 2]) * numbers["ell"]["sigma"])
    assert (low, high) == pytest.approx((0.1, 1.0))  # the spacing of the sensors, the length of the beam
    thicker = MODEL.priors(MODEL.data(RIG.assign(thickness=20.0)))["m"].parameters
    assert thicker["mu"] == pytest.approx(8 * m0)


# Frames that are not what they seem.


BAD = {
    "position in mm": (RIG.assign(position=1e3 * RIG["position"]), r"'position' expected distances .* in row 0"),
    "negative position": (RIG.assign(position=-RIG["position"]), "got -0.1 of 1 in row 0"),
    "deflection upwards": (RIG.assign(deflection=-RIG["deflection"]), "in the direction of the load"),
    "no deflection": (RIG.assign(deflection=0.0), "none at all"),
    "thickness in m": (RIG.assign(thickness=0.01), "none has that. Expected position and length in m"),
    "deflection in km": (RIG.assign(deflection=RIG["deflection"] * 1e-6), "a material with E"),
    "no load": (RIG.assign(load=0.0), "'load' expected forces, got 0 in every row"),
    "a sensor at the support alone": (
        pd.concat([RIG, RIG.head(1).assign(specimen="S9", position=0.0)]),
        "specimen S9 has no reading",
    ),
    "two beams": (RIG.assign(width=[25.0] + [30.0] * 143), "'width' expected one value a specimen, got 2 of 'S1'"),
    "no width": (RIG.assign(width=0.0), "'width' expected a finite number above 0"),
    "a gap": (RIG.assign(deflection=[np.nan] + [1.0] * 143), "got an empty cell in row 0"),
    "a decimal comma": (RIG.assign(load="5,0"), "column 'load' expected a finite number"),
    "a misspelt column": (RIG.rename(columns={"thickness": "thicknes"}), "The nearest it has is 'thicknes'"),
    "too many sensors": (
        RIG.head(70).assign(position=np.linspace(0.1, 0.9, 70), specimen=list("ab") * 35),
        "at most 60 different positions, got 70",
    ),
    "no noise": (RIG.assign(deflection=MODEL.data(RIG).f.values / 60), "to the last digit"),
    "deflection in m": (RIG.assign(deflection=RIG["deflection"] / 1e3), r"E = 5.12e\+04 GPa, and none has that"),
    "deflection in um": (RIG.assign(deflection=RIG["deflection"] * 1e3), "expected mm, got .* of a beam of 1000 mm"),
    "length in mm": (RIG.assign(length=1e3), "none has that. Expected position and length in m"),
    "a sensor beyond the beam": (RIG.assign(position=1.5 * RIG["position"]), "got 1.05 of 1 in row 6"),
    "text": (RIG.assign(deflection=["broken"] + ["1.0"] * 143), "got 'broken' in row 0"),
    "no length": (RIG.drop(columns="length"), r"expected a column 'length' \(length of the beam \[m\]\)"),
    "a specimen without a load": (
        RIG.assign(load=RIG["load"].where(RIG["specimen"] != "S2", 0.0)),
        "S2 has no reading",
    ),
    "one sensor": (RIG[RIG["position"] == 0.8], "'position' expected two different ones or more, got one"),
    "no rows": (RIG.head(0), "at least one row"),
}


@pytest.mark.parametrize("name", BAD)
def test_a_bad_frame_is_refused_by_column_and_row(name):
    frame, sentence = BAD[name]
    with pytest.raises(FrameError, match=sentence):
        MODEL.build(frame)


DOUBTFUL = {
    "load in kN": (RIG.assign(load=RIG["load"] / 1e3), "E = 0.051 GPa, softer than wood .* is 'load' in N"),
    "rows twice": (pd.concat([RIG, RIG.head(20)], ignore_index=True), "^Repeated to the last digit: 20 of 164"),
    "a sign": (
        RIG.assign(load=RIG["load"] * np.where(RIG.index == 15, -1, 1)),
        r"^Readings against the force: 1 of 144, the first of specimen S1 at 0\.8 m under -10 N",
    ),
    "a soft beam": (RIG.assign(deflection=RIG["deflection"] * 10), "^Deflections are up to 27% of the length"),
    "a lone sensor": (RIG[(RIG["specimen"] != "S3") | (RIG["position"] == 0.8)], "^One sensor only: specimen S3"),
}


@pytest.mark.parametrize("name", DOUBTFUL)
def test_what_a_reader_must_know_of_the_data_is_said(name):
    frame, sentence = DOUBTFUL[name]
    with pytest.warns(FrameWarning, match=sentence):
        MODEL.data(frame)


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"with_load": "proportionate"}, "proportional"),
        ({"support": "clamped"}, "support"),
        ({"typical_load": -3}, "typical_load"),
        ({"discrepancy": "own"}, "discrepancy"),
        ({"discrepancy": "none", "with_load": "stationary"}, "with_load"),
    ],
)
def test_an_option_that_cannot_be_is_refused_by_name(options, sentence):
    with pytest.raises(ValueError, match=sentence):
        MODEL.build(RIG, **options)


def test_a_prior_of_another_material_asks_for_the_units():
    with pytest.raises(ValueError, match="Is position in m"):
        hz.fit(MODEL, RIG, priors={"m": Prior("Normal", mu=70.0, sigma=2.0)}, **SETTINGS)
    with pytest.raises(ValueError, match="these data have nothing that it is of"):
        hz.fit(MODEL, RIG, discrepancy="none", priors={"a": Prior("HalfNormal", sigma=1.0)}, **SETTINGS)
    with pytest.raises(ValueError, match="No pooling is exact under a Normal prior of 'b'"):
        hz.fit(MODEL, RIG, "none", priors={"b": Prior("HalfNormal", sigma=0.02)}, **SETTINGS)


def test_a_question_that_cannot_be_answered_is_refused(fits):
    verbs = hz.model_discrepancy
    with pytest.raises(ValueError, match="takes the simulator for the truth"):
        verbs.discrepancy(fits["without"])
    with pytest.raises(ValueError, match="from 0 to 1 m"):
        verbs.discrepancy(fits["known"], [0.2, 1.2])
    with pytest.raises(ValueError, match='discrepancy="none"'):
        verbs.reality(fits["known"], RIG.head(1), fits["vague"])
    with pytest.raises(FrameError, match="at least one row"):
        verbs.reality(fits["known"], RIG.head(0))
    with pytest.raises(FrameError, match="in row 0"):
        verbs.reality(fits["known"], RIG.head(1).assign(position=3.0))
    with pytest.raises(ValueError, match="got one of hospital_readmission"):
        verbs.modulus(hz.fit("hospital_readmission", hz.load_data("three_hospitals"), "none", **SETTINGS))


# A simulator of one's own.


def tapered(points):
    """A beam that is thinner towards its tip, by the unit load theorem: its inertia at x is I / (1 + x)."""
    x, P, L, width, thickness, b = points.T
    inertia = width * thickness**3 / 12 * 1e-12
    moment = x**2 * L / 2 - x**3 / 6 + x**3 * L / 6 - x**4 / 12  # of (L - t) (x - t) (1 + t) from 0 to x
    return 1e3 * P * b / (1e9 * inertia) * moment


@pytest.fixture(scope="module")
def by_simulator():
    return hz.fit(MODEL, RIG, simulator=tapered, **SETTINGS)


def test_a_simulator_takes_the_place_of_the_elements(by_simulator):
    """Its answers are f; those of the beam given as a simulator change nothing."""
    data = prepared(by_simulator)
    x, P = RIG["position"].to_numpy(), RIG["load"].to_numpy()
    t = (np.arange(2000) + 0.5) / 2000 * x[:, None]
    by_sum = ((1 - t) * (x[:, None] - t) * (1 + t)).mean(axis=1) * x
    np.testing.assert_allclose(data["f"], 1e3 * P * by_sum / (1e9 * 30 * 10**3 / 12 * 1e-12), rtol=1e-6)
    np.testing.assert_allclose(data["simulator.values"][:, 0], tapered(data["simulator.points"].values))
    same = MODEL.data(RIG, simulator=lambda points: points[:, 5] * beam.deflection(*points[:, :5].T))
    xr.testing.assert_allclose(same[[*MODEL.data(RIG)]], MODEL.data(RIG))


def test_new_places_are_simulated_again_and_only_by_the_same(by_simulator):
    rows, verbs = RIG.head(1).assign(position=0.45), hz.model_discrepancy
    table = verbs.reality(by_simulator, rows, simulator=tapered)
    new = MODEL.data(rows.iloc[[0, 0]].assign(position=[0.45, 0.5]), simulator=tapered)
    b = float(by_simulator["posterior"]["b"].sel(specimen="S1").mean())
    assert table["simulator"].item() == pytest.approx(b * float(new["f"][0]), rel=0.05)
    assert abs(table["reality"].item() - RIG[RIG["specimen"] == "S1"]["deflection"].iloc[3:5].mean()) < 0.2
    predicted = hz.predict(by_simulator, rows, simulator=tapered)["row_summary"]["mean"].item()
    assert predicted == pytest.approx(table["reality"].item(), abs=0.05)
    with pytest.raises(ValueError, match="a fit cannot store a function: give it again as 'simulator'"):
        verbs.reality(by_simulator, rows)
    with pytest.raises(ValueError, match="'simulator' is not the simulator of the fit: at"):
        verbs.reality(by_simulator, rows, simulator=lambda points: 1.01 * tapered(points))


def test_where_a_simulator_is_not_given_again_it_is_shown_where_it_ran(by_simulator):
    curve = hz.model_discrepancy.discrepancy(by_simulator, [0.4, 0.45])
    assert curve["simulator"].isna().tolist() == [False, True]
    assert curve["discrepancy"].notna().all()
    again = hz.model_discrepancy.discrepancy(by_simulator, [0.4, 0.45], simulator=tapered)
    assert again["simulator"].iloc[0] == curve["simulator"].iloc[0]
    drawn = {line.get_label(): line for line in hz.plot_discrepancy(by_simulator).axes[0].lines}
    np.testing.assert_allclose(drawn["simulator"].get_xdata(), np.unique(RIG["position"]))


def test_a_fit_of_the_elements_takes_no_simulator_afterwards(fits):
    with pytest.raises(ValueError, match="The fit was made without a 'simulator'"):
        hz.model_discrepancy.reality(fits["known"], RIG.head(1), simulator=tapered)


@pytest.mark.parametrize(
    ("simulator", "sentence"),
    [
        (lambda points: tapered(points) / points[:, 5] ** 2, "in proportion to the compliance, its last input, got "),
        (lambda points: tapered(points) + 1.0, "only what is linear is integrated exactly"),
        (lambda points: np.full(len(points), np.nan), "expected one finite deflection .* got nan"),
        (lambda points: points, "expected one finite deflection .* got 6 of each"),
        ("lab:f", "'simulator' to be a function of points, got 'lab:f'"),
    ],
)
def test_a_simulator_that_is_not_linear_is_refused(simulator, sentence):
    with pytest.raises(ValueError, match=sentence):
        MODEL.build(RIG, simulator=simulator)


# Pictures.


@pytest.mark.long
def test_pictures_draw_what_the_tables_say(fits):
    curve = hz.plot_discrepancy(fits["vague"])
    drawn = {line.get_label(): line for line in curve.axes[0].lines}
    table = hz.model_discrepancy.discrepancy(fits["vague"], np.linspace(0, 1, 61))
    np.testing.assert_allclose(
        drawn["simulator and discrepancy"].get_ydata(), table["simulator"] + table["discrepancy"]
    )
    assert len(drawn["readings"].get_xdata()) == 48
    of_E = hz.plot_modulus(fits["vague"])
    labels = {line.get_label(): line for axes in of_E.axes for line in axes.lines}
    E, alone = labels["simulator taken for the truth (height scaled)"].get_data()
    assert E[alone.argmax()] == pytest.approx(1 / fits["without"]["posterior"]["m"].mean().item(), rel=0.01)
    assert "prior" in labels
    alone = hz.model_discrepancy.modulus(fits["vague"]).drop(POPULATION)["model_alone"]
    np.testing.assert_allclose(labels["least squares, the simulator alone"].get_xdata(), alone)
    E, density = labels["posterior"].get_data()
    assert np.trapezoid(density, E) == pytest.approx(1, abs=0.02)


# Calibration.

DESIGN, _ = MODEL.simulate(np.random.default_rng(3), specimens=3, positions=(0.2, 0.4, 0.6, 0.8), loads=(5.0, 10.0))
MANY = {"simulations": 200, "draws": 250, "random_seed": 1, "progressbar": False}


@pytest.mark.slow
@pytest.mark.parametrize("discrepancy", ["shared", "none", "by specimen"])
@pytest.mark.parametrize("pooling", ["partial", "none", "complete"])
def test_each_pooling_is_calibrated(discrepancy, pooling):
    result = hz.calibrate(MODEL, DESIGN, pooling, discrepancy=discrepancy, **MANY)
    assert result.table["p_holm"].min() > 0.01
    assert result.failed <= 10


def each_on_its_own_rig(data, prior):
    """The marginal form with an error: as if no two specimens had a discrepancy in common."""
    m, s, sigma, a, ell = (prior(name) for name in ("m", "s", "sigma", "a", "ell"))
    given = [data.n, data.rest, data.q, data.of_design, data.T, data.apart, data.alike, m, s, sigma, 0 * a, ell, a]
    signature = "(j),(j),(j,k),(j),(d,k,k),(p,p),(p,p),(),(),(),(),(),()->(j)"
    functions = {"logp": log_density, "random": random_estimates, "signature": signature}
    pm.CustomDist("y", *given, **functions, observed=data.b_hat, dims="specimen")


@pytest.mark.slow
def test_a_discrepancy_that_is_not_shared_is_not_calibrated():
    variants = MODEL.variants | {"partial": {**MODEL.variants["partial"], "marginalized": each_on_its_own_rig}}
    wrong = replace(MODEL, variants=variants, alternatives={})
    assert hz.calibrate(wrong, DESIGN, **MANY).table["p_holm"].min() < 1e-4
