"""What narrower and wider priors change, against quadrature, and a prior that decides."""

import numpy as np
import pandas as pd
import pytest
import xarray as xr
from pymc_extras.prior import Prior
from scipy import stats

import hbm_zoo as hz
from hbm_zoo.diagnostics.rescaled import scaled, with_priors
from hbm_zoo.inference.fits import prepared, priors_of
from hbm_zoo.models.variance_components import MODEL

EFFECTS, ERRORS = np.array([0.1, 0.9, -0.6, 0.4]), np.array([0.3, 0.4, 0.2, 0.5])


def clinics_fit(**more):
    frame = pd.DataFrame({"clinic": [*"abcd"], "effect": EFFECTS, "standard_error": ERRORS})
    return hz.fit("vaccine_clinics", frame, random_seed=1, progressbar=False, **more)


def on_a_grid(priors, mu_scale=1.0, tau_scale=1.0):
    """Posterior mean and sd of tau, and mean of each clinic's effect."""
    known, sigma = priors["mu"].parameters, tau_scale * priors["tau"].parameters["sigma"]
    mu = np.linspace(known["mu"] - 6 * known["sigma"], known["mu"] + 6 * known["sigma"], 601)[:, None]
    tau = np.linspace(0, 7 * sigma, 801)
    log_f = stats.norm.logpdf(mu, known["mu"], mu_scale * known["sigma"]) + stats.halfnorm.logpdf(tau, scale=sigma)
    for y, se in zip(EFFECTS, ERRORS, strict=True):
        log_f = log_f + stats.norm.logpdf(y, mu, np.hypot(se, tau))
    weight = np.exp(log_f - log_f.max())
    weight /= weight.sum()
    mean = (weight * tau).sum()
    of_clinics = [
        (weight * (mu + tau**2 / (tau**2 + se**2) * (y - mu))).sum() for y, se in zip(EFFECTS, ERRORS, strict=True)
    ]
    return mean, np.sqrt((weight * (tau - mean) ** 2).sum()), np.array(of_clinics)


@pytest.fixture(scope="module")
def fit():
    return clinics_fit()


@pytest.fixture(scope="module")
def table(fit):
    return hz.sensitivity(fit)


@pytest.mark.parametrize("scale", [0.5, 2.0])
def test_each_prior_on_another_scale_gives_what_quadrature_gives(fit, table, scale):
    priors = priors_of(fit)
    for name in ("mu", "tau"):
        mean, sd, _ = on_a_grid(priors, **{f"{name}_scale": scale})
        row = table.loc[name, scale]
        assert row["tau"] == pytest.approx(mean, abs=5 * sd / np.sqrt(2000))
    mean, sd, clinics = on_a_grid(priors)
    other_mean, _, others = on_a_grid(priors, tau_scale=scale)
    assert table.loc[("tau", scale), "moved"] == pytest.approx(abs(other_mean - mean) / sd, abs=0.1)
    assert table.loc[("tau", scale), "groups_moved"] == pytest.approx(
        max(abs(others - clinics) / fit["group_summary"]["sd"].values), abs=0.06
    )


def test_a_prior_that_decides_is_named(table):
    worst = table.drop(index="as it is", level=0)[["moved", "groups_moved"]].max(axis=1).groupby(level=0).max()
    assert worst["tau"] > 0.5 > worst["mu"]
    assert table.attrs["verdict"].startswith(f"The prior decides, that of tau ({worst['tau']:.2f} posterior sd)")
    assert (table.loc["tau", "power"] > 0.05).all()
    assert (table.loc["mu", "power"] < 0.05).all()


def test_with_many_trials_none_does_and_the_worst_is_named():
    table = hz.sensitivity(hz.fit("vaccine_clinics", hz.load_data("bcg_vaccine"), random_seed=1, progressbar=False))
    worst = table.drop(index="as it is", level=0)[["moved", "groups_moved"]].max(axis=1).groupby(level=0).max()
    assert worst.max() < 0.5
    assert table.attrs["verdict"].startswith("No prior decides")
    assert f"by {worst.max():.2f} posterior sd at most (prior of {worst.idxmax()})" in table.attrs["verdict"]


def test_a_prior_that_is_the_same_everywhere_has_no_powers_and_one_between_two_ends_no_scale():
    """The default of a mean rate: half of it would cut the data off, and no power of it is another prior."""
    table = hz.sensitivity(hz.fit("success_rates", hz.load_data("baseball"), random_seed=1, progressbar=False))
    assert table.attrs["left_out"] == ["mu"]
    assert table.index.get_level_values("parameter").unique().tolist() == ["as it is", "phi"]
    said = "The prior of phi does not decide: ", "The prior of mu (Uniform(lower=0, upper=1)) was not looked at"
    assert all(each in table.attrs["verdict"] for each in said)
    flat = hz.sensitivity(clinics_fit(priors={"tau": Prior("Uniform", lower=0, upper=3)}), scales=[2.0])
    assert flat.loc[("tau", 2.0), ["prior", "power"]].tolist() == ["Uniform(lower=0, upper=6)", 0.0]
    assert flat.loc[("mu", 2.0), "power"] > 0


def test_a_prior_that_was_not_looked_at_is_said():
    """It may be the one that decides."""
    odd = {"tau": Prior("Beta", alpha=2, beta=2), "mu": Prior("Normal", mu=0, tau=1)}
    table = hz.sensitivity(clinics_fit(priors=odd))
    assert table.attrs["left_out"] == ["mu", "tau"]
    assert table.attrs["verdict"] == (
        "Nothing is known of which prior decides. The prior of mu (Normal(mu=0, tau=1)) and tau (Beta(alpha=2, "
        "beta=2)) was not looked at: no scale of it is known here."
    )


@pytest.mark.parametrize(
    ("prior", "scale", "support", "ends"),
    [
        (Prior("Uniform", lower=50, upper=100), 0.5, (-np.inf, np.inf), (62.5, 87.5)),
        (Prior("Uniform", lower=-4, upper=0), 0.5, (-np.inf, np.inf), (-2, 0)),
        (Prior("Uniform", lower=1, upper=3), 2.0, (0, np.inf), (0, 4)),
        (Prior("Uniform", lower=1, upper=3), 2.1, (0, np.inf), "On 2.1 times its scale .* of 'x' leaves its support"),
        (Prior("Uniform", lower=0.2, upper=0.8), 0.5, (0, 1), "of 'x', which lies between two ends, has no scale"),
    ],
)
def test_a_uniform_prior_grows_about_its_end_at_0_or_its_middle(prior, scale, support, ends):
    if isinstance(ends, str):
        with pytest.raises(ValueError, match=ends):
            scaled("x", prior, scale, support)
    else:
        assert tuple(scaled("x", prior, scale, support).parameters.values()) == pytest.approx(ends)


def test_the_verdict_looks_at_the_priors_of_rates():
    """Five units whose spread the prior of phi decides: once nothing was said, for the prior of mu has no powers."""
    frame = pd.DataFrame({"unit": [*"abcde"], "successes": [1, 9, 2, 10, 4], "trials": 12})
    fits = hz.fit_poolings("success_rates", frame, random_seed=1, progressbar=False)
    assert "with its scale halved or doubled estimates move, by that of phi" in " ".join(hz.verdict(fits))


def test_without_a_free_hyperparameter_there_is_no_prior_to_look_at():
    with pytest.raises(ValueError, match="No pooling leaves no hyperparameter free"):
        hz.sensitivity(clinics_fit(pooling="none", draws=50))


@pytest.mark.long
def test_tables_are_made_anew_for_each_prior():
    """What a fit with that prior has: its nodes to the last digit, and a posterior as far as draws tell."""
    rng = np.random.default_rng(3)
    frame, _ = hz.variance_components.simulate(rng, sites=3, sires=(3, 4), offspring=(2, 3))
    same = {"random_seed": 1, "progressbar": False, "draws": 100}
    fit = hz.fit("variance_components", frame, **same)
    wider = {"sigma_E": scaled("sigma_E", priors_of(fit)["sigma_E"], 2.0)}
    of_that, moved = hz.fit("variance_components", frame, priors=wider, **same), with_priors(MODEL, fit, wider)
    xr.testing.assert_equal(prepared(moved), prepared(of_that))
    assert not prepared(moved)[prepared(fit).attrs["nodes"]].equals(prepared(fit)[prepared(fit).attrs["nodes"]])
    for name in ("mu", "tau"):
        drawn, there = moved["posterior"][name], of_that["posterior"][name]
        assert float(drawn.mean()) == pytest.approx(float(there.mean()), abs=0.3 * float(there.std()))


@pytest.mark.slow
def test_clouds_are_made_anew_for_each_prior():
    """`evidence` and `sensitivity` say of a prior what a fit with it says."""
    rng = np.random.default_rng(3)
    frame, _ = hz.reaction_networks.simulate(rng, modules=4, rich=4, times=(0.5, 1, 2, 4))
    same = {"random_seed": 1, "progressbar": False, "draws": 250}
    fits = {p: hz.fit("reaction_networks", frame, p, **same) for p in ("complete", "partial")}
    heterogeneity = hz.reaction_networks.MODEL.heterogeneity
    wider = {heterogeneity: scaled(heterogeneity, priors_of(fits["partial"])[heterogeneity], 2.0)}
    again = fits | {"partial": hz.fit("reaction_networks", frame, "partial", priors=wider, **same)}
    all_wider = {
        name: scaled(name, prior, 2.0) for name, prior in priors_of(fits["partial"]).items() if "omega" in name
    }
    widest = fits | {"partial": hz.fit("reaction_networks", frame, "partial", priors=all_wider, **same)}
    of_both = [hz.evidence(some, scales=[scale]).loc[scale] for some, scale in ((fits, 2.0), (widest, 1.0))]
    error = np.hypot(*(row["mcse"] for row in of_both))
    assert of_both[0]["log_bayes_factor"] == pytest.approx(of_both[1]["log_bayes_factor"], abs=4 * error)
    draws = again["partial"]["posterior"][heterogeneity]
    said = hz.sensitivity(fits["partial"], scales=[2.0]).loc[heterogeneity, 2.0]
    assert said["mean"] == pytest.approx(float(draws.mean()), abs=0.3 * float(draws.std()))
    assert said["sd"] == pytest.approx(float(draws.std()), rel=0.15)
