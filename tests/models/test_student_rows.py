"""Tissues whose rows have heavy tails: densities by SciPy, the limit on rows, a cell far out, and its checks."""

import numpy as np
import pandas as pd
import pytest
from scipy import stats

import hbm_zoo as hz
from hbm_zoo.frames.rules import FrameError
from hbm_zoo.group_level.checks import OF_ALL
from hbm_zoo.models.tissue_expression import MODEL

RECORD = MODEL.under(noise="student-t")
FRAME = pd.DataFrame(
    {
        "tissue": ["liver"] * 5 + ["kidney"] * 4 + ["placenta"] + ["lung"] * 2,
        "expression": [5.1, 5.2, 5.0, 5.5, 9.3, 7.7, 7.6, 7.8, 7.65, 4.4, 6.0, 6.9],
    }
)
Y, OF = FRAME["expression"].to_numpy(), np.repeat([0, 1, 2, 3], [5, 4, 1, 2])
M0, S = FRAME.groupby("tissue")["expression"].mean().mean(), Y.std(ddof=1)
S0 = np.sqrt((2.5 * S) ** 2 + S**2)
SETTINGS = {"noise": "student-t", "random_seed": 3, "progressbar": False}
POINT = {"mu": 6.3, "tau": 1.4, "nu_above_2": 1.7, "sigma": 0.4, "theta": np.array([5.2, 7.0, 4.9, 6.0])}
POINT["z"] = (POINT["theta"] - 6.0) / 1.3
POSITIVE = ("tau", "nu_above_2", "sigma")


def log_noise(p):
    return stats.halfnorm.logpdf(p["sigma"], scale=S) + stats.gamma.logpdf(p["nu_above_2"], 2, scale=10)


def log_prior(p):
    return log_noise(p) + stats.norm.logpdf(p["mu"], M0, 2.5 * S) + stats.halfnorm.logpdf(p["tau"], scale=S)


def rows(p, mean):
    return stats.t.logpdf(Y, 2 + p["nu_above_2"], mean, p["sigma"]).sum()


def marginal(p, mu, tau):
    theta = np.linspace(mu - 14 * tau, mu + 14 * tau, 6001)
    log_t = stats.t.logpdf(Y[:, None], 2 + p["nu_above_2"], theta, p["sigma"])
    each = [np.exp(log_t[g == OF].sum(axis=0)) * stats.norm.pdf(theta, mu, tau) for g in range(4)]
    return sum(np.log(f.sum() * (theta[1] - theta[0])) for f in each)


VARIANTS = {
    ("none", "centered"): lambda p: (
        log_noise(p) + stats.norm.logpdf(p["theta"], M0, S0).sum() + rows(p, p["theta"][OF])
    ),
    ("none", "marginalized"): lambda p: log_noise(p) + marginal(p, M0, S0),
    ("complete", "centered"): lambda p: log_noise(p) + stats.norm.logpdf(p["mu"], M0, 2.5 * S) + rows(p, p["mu"]),
    ("complete", "marginalized"): lambda p: log_noise(p) + stats.norm.logpdf(p["mu"], M0, 2.5 * S) + rows(p, p["mu"]),
    ("partial", "centered"): lambda p: (
        log_prior(p) + stats.norm.logpdf(p["theta"], p["mu"], p["tau"]).sum() + rows(p, p["theta"][OF])
    ),
    ("partial", "noncentered"): lambda p: (
        log_prior(p) + stats.norm.logpdf(p["z"]).sum() + rows(p, (p["mu"] + p["tau"] * p["z"])[OF])
    ),
    ("partial", "marginalized"): lambda p: log_prior(p) + marginal(p, p["mu"], p["tau"]),
}


#: The formula is the same under every pooling, and takes a while to compile.
AGAIN = [("none", "marginalized"), ("complete", "marginalized")]
CASES = [pytest.param(w, id="-".join(w), marks=[pytest.mark.slow] * (w in AGAIN)) for w in VARIANTS]


@pytest.mark.parametrize("which", CASES)
def test_every_variant_is_its_density_by_scipy_on_raw_rows(which):
    model = RECORD.build(FRAME, *which)
    names = [v.name.removesuffix("_log__") for v in model.value_vars]
    named = {f"{n}_log__" if n in POSITIVE else n: np.log(POINT[n]) if n in POSITIVE else POINT[n] for n in names}
    found = model.compile_logp(jacobian=False, mode="AS_WRITTEN")(named)
    # One row, and two, of a population as wide as that of no pooling, ten sigma: nodes are far apart.
    assert found == pytest.approx(VARIANTS[which](POINT), abs=5e-3 if which == ("none", "marginalized") else 1e-6)


def test_more_rows_than_it_takes_are_refused_with_what_may_be_done():
    many = pd.DataFrame({"tissue": np.repeat(["a", "b"], [2501, 1]), "expression": np.arange(2502.0)})
    with pytest.raises(FrameError, match="up to 5,000; got 2 tissues, one with 2,501 rows. Draw some of the rows"):
        RECORD.data(many)
    assert RECORD.data(many.iloc[1:]).sizes["place"] == 2500


def test_other_values_and_rows_left_out_keep_the_places():
    data = RECORD.data(FRAME)
    again = RECORD.extras.with_response(data, Y + 1.0)
    np.testing.assert_allclose(again.row, data.row + 1.0)
    assert again.equals(RECORD.data(FRAME.assign(expression=Y + 1.0)))
    without = RECORD.group_level.without_row(data, 9)
    assert without.equals(RECORD.data(FRAME.drop(index=9)))


def test_options_that_do_not_go_together_are_refused():
    for other in ({"sigma": "by tissue"}, {"population": "student-t"}):
        with pytest.raises(ValueError, match="does not go with"):
            hz.fit("tissue_expression", FRAME, noise="student-t", **other)


@pytest.mark.slow
def test_a_cell_far_out_is_let_go_compared_and_predicted():
    fits = {p: hz.fit("tissue_expression", FRAME, p, draws=500, **SETTINGS) for p in ("none", "complete", "partial")}
    table = hz.groups(fits)
    assert table.loc["liver", "own"] == pytest.approx(6.02)
    normal = hz.fit("tissue_expression", FRAME, draws=500, random_seed=3, progressbar=False)
    assert table.loc["liver", "partial"] < normal["group_summary"]["mean"].sel(tissue="liver") - 0.3
    for question in ("new_group", "new_observation"):
        assert np.isfinite(hz.compare_poolings(fits, question)["elpd"]).all()
    new = pd.DataFrame({"tissue": ["liver", "skin", "bone"], "expression": [np.nan, np.nan, 6.0]})
    told = hz.predict(fits["partial"], new, random_seed=1)["group_summary"]
    assert told["case"].values.tolist() == ["known", "never seen", "brings rows"]


@pytest.mark.slow
def test_heavy_tails_that_were_planted_lead_to_this_noise_and_pass_under_it():
    """12 tissues of 20 rows of a t with 2.5 degrees of freedom."""
    frame, _ = RECORD.simulate(np.random.default_rng(4), tissues=12, nu=2.5, sigma_cells=0.0)
    settings = {"random_seed": 1, "progressbar": False}
    normal = hz.check_model(hz.fit("tissue_expression", frame, "none", **settings))
    assert normal.attrs["rejected"]["none"] == ["tails of rows"]
    assert normal.attrs["alternative"]["none"] == {"noise": "student-t"}
    heavy = hz.check_model(hz.fit("tissue_expression", frame, "none", noise="student-t", **settings))
    assert heavy.attrs["rejected"] == {}


@pytest.mark.slow
def test_calibration():
    frame, _ = RECORD.simulate(np.random.default_rng(0), tissues=7, median_cells=6.0)
    result = hz.calibrate("tissue_expression", frame, simulations=100, draws=250, workers=2, **SETTINGS)
    assert result.table["p_holm"].min() > 0.01


@pytest.mark.parametrize("pooling", ["none", "partial"])
def test_no_check_fits_replicated_data_again(pooling):
    """That would take as long as a hundred fits: those of the rows are asked, which need none."""
    asked = {name: check for name, check in {**OF_ALL, **RECORD.extras.checks}.items() if pooling in check.poolings}
    assert list(asked) == ["equal variances", "tails of rows"]
    assert all(check.of_data for check in asked.values())
