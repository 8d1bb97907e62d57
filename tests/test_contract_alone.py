"""The contract of a model that takes one experiment alone: no pooling, and nothing to share."""

import re
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import xarray as xr
from pymc_extras.prior import Prior
from scipy import stats

import hbm_zoo as hz
from hbm_zoo.frames.rules import FrameError
from hbm_zoo.inference.fitting import poolings_of
from hbm_zoo.model import POOLINGS
from hbm_zoo.models import vaccine_clinics

#: The clinics of the zoo, of which one is a case; its priors are given, for one effect has no spread.
TRIALS = replace(
    vaccine_clinics.MODEL,
    name="trials",
    fewest_groups=1,
    default_priors=lambda data: {"mu": Prior("Normal", mu=0.0, sigma=1.0), "tau": Prior("HalfNormal", sigma=1.0)},
    datasets={},
)
ONE = pd.DataFrame({"clinic": ["Leeds"], "effect": [-0.8], "standard_error": [0.5]})
TWO = pd.concat([ONE, ONE.assign(clinic="York", effect=0.2)])
ONLY = r"^One clinic has nothing to share with others: only no pooling can be fitted\.$"


@pytest.fixture(scope="module")
def alone():
    return hz.fit_poolings(TRIALS, ONE, random_seed=1, progressbar=False)


def test_only_no_pooling_is_fitted(alone):
    assert list(alone) == ["none"]
    assert poolings_of(TRIALS, ONE) == ("none",)
    assert poolings_of(TRIALS, TWO) == POOLINGS


def test_one_group_in_several_rows_is_one():
    rows = replace(TRIALS, key=("city", "ward"))
    frame = pd.DataFrame({"city": ["Leeds"] * 3, "ward": [1, 1, 1], "effect": 0.0})
    assert poolings_of(rows, frame) == ("none",)
    assert poolings_of(rows, frame.assign(ward=[1, 1, 2])) == POOLINGS


def test_its_posterior_is_that_of_its_own_prior(alone):
    prior = TRIALS.matched(TRIALS.default_priors(None))["theta"]
    m0, s0 = (float(prior.parameters[name]) for name in ("mu", "sigma"))
    precision = s0**-2 + 0.5**-2
    posterior = stats.norm((m0 * s0**-2 - 0.8 * 0.5**-2) / precision, precision**-0.5)
    summary = alone["none"]["group_summary"].to_dataset().sel(clinic="Leeds")
    np.testing.assert_allclose(
        [summary["mean"], summary["sd"], summary["eti89_lb"], summary["p_above"]],
        [posterior.mean(), posterior.std(), posterior.ppf(0.055), posterior.sf(0)],
        rtol=1e-6,
    )


@pytest.mark.parametrize("pooling", ["complete", "partial"])
@pytest.mark.parametrize("verb", ["fit", "build"])
def test_another_pooling_is_refused_in_a_sentence(pooling, verb):
    with pytest.raises(ValueError, match=ONLY):
        hz.fit(TRIALS, ONE, pooling) if verb == "fit" else TRIALS.build(ONE, pooling)


def test_empirical_bayes_has_nothing_to_learn_from():
    with pytest.raises(ValueError, match=ONLY):
        hz.empirical_bayes(TRIALS, ONE)


def test_recover_has_no_population_to_draw_from(alone):
    with pytest.raises(ValueError, match=ONLY):
        hz.recover(alone["none"], TRIALS, ONE)


def test_a_model_that_needs_two_says_so():
    with pytest.raises(FrameError, match=r"^vaccine_clinics expected at least 2 clinics to compare, got 1\.$"):
        hz.fit(vaccine_clinics, ONE)
    with pytest.raises(FrameError, match=r"^trials expected at least 3 clinics to compare, got 2\.$"):
        hz.fit(replace(TRIALS, fewest_groups=3), TWO)


def test_it_is_tabulated(alone):
    table = hz.groups(alone, threshold=-1.0, model=TRIALS)
    assert table.index.tolist() == ["Leeds"]
    assert table.loc["Leeds", ["own", "rank", "p_best"]].tolist() == [-0.8, 1.0, 1.0]
    assert 0.5 < table.loc["Leeds", "p_above_-1"] < 1
    assert "kappa" not in table


def test_its_draws_are_exact(alone):
    assert hz.convergence(alone).loc["none", "verdict"] == "exact: independent draws in closed form"


def test_it_is_predicted_again_and_beside_others(alone):
    again = hz.predict(alone["none"], model=TRIALS)
    assert again["row_summary"]["sd"].item() == pytest.approx(
        np.hypot(0.5, alone["none"]["group_summary"]["sd"].item()), rel=0.05
    )
    rows = pd.DataFrame({"clinic": ["Leeds", "Hull", "Bath"], "effect": [np.nan, 0.3, np.nan], "standard_error": 0.5})
    both = hz.predict(alone["none"], rows, n_new=1, model=TRIALS)["group_summary"]
    assert both["case"].values.tolist() == ["known", "brings rows", "never seen", "never seen"]
    prior = TRIALS.matched(TRIALS.default_priors(None))["theta"]
    assert float(both["sd"].sel(clinic="new 1")) == pytest.approx(float(prior.parameters["sigma"]))


def test_nothing_is_compared(alone):
    for question in ("new_group", "new_observation"):
        table = hz.compare_poolings(alone, question, model=TRIALS)
        assert table.index.tolist() == ["none"]
        assert np.isnan(table["se"].astype(float)).all() or question == "new_observation"


def test_the_pooling_factor_of_one_is_refused(alone):
    with pytest.raises(ValueError, match=r"^One clinic has no variance among clinics: .*\.$"):
        hz.pooling_factor(alone["none"], model=TRIALS)


def test_pictures_of_one(alone):
    assert hz.plot_poolings(alone).axes[0].get_yticklabels()[0].get_text() == "Leeds"
    assert hz.plot_ranks(alone) is not None


def test_the_verdict_says_that_there_was_nothing_to_share(alone):
    sentences = hz.verdict(alone, model=TRIALS)
    assert sentences[0] == "Every fit can be trusted: no pooling is drawn exactly."
    assert sentences[-1] == "One clinic has nothing to share with others: no pooling is all there is."
    assert not any("compare" in sentence or "pulled" in sentence for sentence in sentences)


def test_it_survives_its_file(alone, tmp_path):
    alone["none"].to_netcdf(tmp_path / "one.nc")
    opened = xr.open_datatree(tmp_path / "one.nc").load()
    before, after = (hz.groups(fit, model=TRIALS) for fit in (alone["none"], opened))
    pd.testing.assert_frame_equal(before, after, check_index_type=False)


def test_the_report_is_of_one(alone, tmp_path):
    text = (hz.report(alone, tmp_path / "report", model=TRIALS) / "report.md").read_text()
    assert "1 clinic, precision 4 each" in text
    assert "nan" not in text.lower().replace("financ", "")


def test_the_command_line_fits_what_can_be_fitted(command_line_with, tmp_path, monkeypatch, capsys):
    main = command_line_with(TRIALS)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "80")
    ONE.to_csv("one.csv", index=False)
    words = "compare trials --data one.csv --seed 1 --draws 100 --threshold -1".split()
    assert main([*words, "--out", "report"]) == 0
    out = capsys.readouterr().out
    assert "one.csv: 1 clinic, precision 4 each" in out
    assert "exceeds 0.9 for 0 of 1 clinic\n" in out
    assert "nan" not in re.findall(r"\bnan\b", out.lower())
    assert (tmp_path / "report" / "report.html").is_file()
    assert main([*words, "--pooling", "partial"]) == 2
    assert capsys.readouterr().err.splitlines()[-1] == (
        "hbm-zoo: one.csv: One clinic has nothing to share with others: only no pooling can be fitted."
    )
