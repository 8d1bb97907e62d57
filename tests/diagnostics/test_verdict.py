"""Every sentence is true, on data sets made to contradict one another."""

import re

import numpy as np
import pandas as pd
import pytest
import xarray as xr
from pymc_extras.prior import Prior

import hbm_zoo as hz
from hbm_zoo.diagnostics.verdict.prediction import answer, prediction
from hbm_zoo.diagnostics.verdict.pull import _why, pull
from hbm_zoo.frames.rules import FrameWarning
from hbm_zoo.inference.fits import model_of

SETTINGS = {"random_seed": 1, "progressbar": False, "tune": 500}


def hospitals(observed, expected):
    names = [f"H{i:03d}" for i in range(len(expected))]
    return pd.DataFrame({"hospital": names, "observed": observed, "expected": expected})


def no_spread():
    expected = 40 * np.exp(np.random.default_rng(3).normal(0, 1, 22)).round(2)
    return hospitals(np.random.default_rng(3).poisson(expected), expected)


def huge_spread():
    rng = np.random.default_rng(4)
    return hospitals(rng.poisson(400 * rng.gamma(0.5, 2, 22)), np.full(22, 400.0))


def outlier():
    rng = np.random.default_rng(5)
    observed = rng.poisson(200 * rng.gamma(100, 1 / 100, 22))
    observed[7] = 2000
    return hospitals(observed, np.full(22, 200.0))


def one_small():
    rng = np.random.default_rng(6)
    expected = np.full(22, 500.0)
    expected[11] = 2.0
    observed = rng.poisson(expected * rng.gamma(25, 1 / 25, 22))
    observed[11] = 4
    return hospitals(observed, expected)


FRAMES = {
    "no spread": no_spread,
    "huge spread": huge_spread,
    "outlier": outlier,
    "one small": one_small,
    "three": lambda: hz.load_data("three_hospitals"),
}


@pytest.fixture(scope="module", autouse=True)
def few_refits():
    """The sentences follow the tables, whose precision is tested elsewhere."""
    with pytest.MonkeyPatch.context() as patch:
        for name in ("GROUPS_FOR_BRUTE_FORCE", "GROUPS_FOR_BRUTE_FORCE_COMPLETE", "SPLITS"):
            patch.setattr(f"hbm_zoo.diagnostics.cross_validation.{name}", 4)
        for name in ("LEAST", "MOST_A_CHECK"):  # too few for an alarm but that of a group by its name
            patch.setattr(f"hbm_zoo.diagnostics.replicas.{name}", 2)
        yield


@pytest.fixture(scope="module")
def cases(few_refits):
    """Fits, both tables and the verdict of each contrary data set."""
    found = {}
    for name, frame in FRAMES.items():
        fits = hz.fit_poolings("hospital_readmission", frame(), **SETTINGS)
        tables = {question: hz.compare_poolings(fits, question) for question in ("new_group", "new_observation")}
        found[name] = fits, tables, hz.verdict(fits, tables)
    return found


#: How each thing said begins.
BEGINNINGS = ("For a hospital", "For the same", "The typical", "Next: ", "No hospital")


def words(pooling):
    return f"{pooling.replace('none', 'no')} pooling"


def said(sentences, start):
    """What is said from this beginning to the next."""
    (sentence,) = [s for s in sentences if start.lower() in s.lower()]
    rest = sentence[sentence.lower().index(start.lower()) :]
    ends = [at for b in BEGINNINGS if (at := rest.lower().find(f"; {b.lower()}")) > 0]
    return rest[: min(ends, default=len(rest))]


@pytest.mark.parametrize("name", FRAMES)
@pytest.mark.parametrize("question", ["new_group", "new_observation"])
def test_what_predicts_better_is_what_its_own_table_says(cases, name, question):
    fits, tables, sentences = cases[name]
    table = tables[question]
    start = {"new_group": "For a hospital not seen", "new_observation": "For the same hospital again"}[question]
    sentence = said(sentences, start)
    ranked = table[table["rank"].notna()].sort_values("rank")
    best = tables["new_group"].index[0]
    leader = "it" if question == "new_observation" and ranked.index[0] == best else words(ranked.index[0])
    assert f" {leader} leads " in sentence
    for pooling, row in ranked.iloc[1:].iterrows():
        gap = f"{-row['elpd_diff']:.1f}"
        if name == "three":
            assert f"{words(pooling)} by {gap} nats" in sentence
            continue
        degree = "within noise"
        if -row["elpd_diff"] > 2 * row["dse"]:
            degree = "clearly" if -row["elpd_diff"] > 4 else "hardly"
        elif -row["elpd_diff"] >= 10 and row["one_unit"] > 0.2:
            degree = f"by much but unevenly, one hospital making {100 * row['one_unit']:.0f} % of it"
        if row["one_unit"] > 0.5:
            degree = "mostly at one hospital"
        if gap == "0.0":
            degree = "by nothing"
        assert f"{words(pooling)} {degree} ({gap} nats, se {row['dse']:.1f})" in sentence
    if name == "three":
        assert "(3 hospitals are too few for a standard error)" in sentence
        assert "se " not in sentence


@pytest.mark.parametrize("name", FRAMES)
def test_no_pooling_is_no_evidence_about_a_new_hospital(cases, name):
    assert "no pooling" not in said(cases[name][2], "For a hospital not seen before")
    assert "no pooling" in said(cases[name][2], "For the same hospital again")


def test_not_even_if_its_prior_is_lucky():
    """A prior that knows the truth outscores both others on a new hospital, and still is not mentioned."""
    lucky = {"lam": Prior("Gamma", alpha=1e4, beta=1e4)}
    fits = hz.fit_poolings("hospital_readmission", no_spread().head(12), priors=lucky, **SETTINGS)
    table = hz.compare_poolings(fits)
    assert table["elpd"].astype(float).idxmax() == "none"
    assert "no pooling" not in said(hz.verdict(fits, {"new_group": table}), "For a hospital not seen before")


def test_no_spread_favours_complete_pooling_and_huge_spread_does_not(cases):
    assert cases["no spread"][1]["new_observation"].index[0] == "complete"
    assert "complete pooling clearly" in said(
        cases["huge spread"][2], "For a hospital not seen before partial pooling leads"
    )


@pytest.mark.parametrize(
    ("name", "strength"), [("no spread", "strongly"), ("huge spread", "little"), ("three", "about half way")]
)
def test_how_strongly_is_said_by_kappa_and_its_definition_is_named(cases, name, strength):
    fits, _, sentences = cases[name]
    kappa = fits["partial"]["group_summary"]["kappa"].values
    sentence = said(sentences, "The typical hospital is pulled")
    assert f"pulled {strength} (median kappa {np.median(kappa):.2f}; " in sentence
    assert "kappa = 1 - E[Var(lam | y, h)] / Var(lam | h)" in sentence


@pytest.mark.parametrize("name", FRAMES)
def test_what_moves_farthest_does(cases, name):
    fits, _, sentences = cases[name]
    summary = fits["partial"]["group_summary"].to_dataset()
    moved = abs(summary["own"] - summary["mean"])
    j = int(moved.values.argmax())
    own, mean = float(summary["own"][j]), float(summary["mean"][j])
    if moved[j] <= 0.2 * summary["sd"][j]:
        assert name == "huge spread"
        assert said(sentences, "no hospital moves noticeably")
        return
    start = f"{summary['hospital'].values[j]} moves farthest, from {own:.3g} to {mean:.3g}"
    assert re.match(r"(:|, though) ", said(sentences, start)[len(start) :])


def test_it_is_pulled_for_its_distance_or_for_its_size(cases):
    outlying, small = (said(cases[name][2], f"{h} moves") for name, h in (("outlier", "H007"), ("one small", "H011")))
    assert outlying.startswith("H007 moves farthest, ")
    assert ": it lies far out (" in outlying
    assert "weigh" not in outlying
    assert small.startswith("H011 moves farthest, ")
    assert ": its data weigh little (kappa " in small
    assert "expected 2)" in small


def test_the_distance_is_the_number_it_claims_to_be(cases):
    fits, _, sentences = cases["outlier"]
    summary = fits["partial"]["group_summary"].to_dataset()
    target = float(fits["partial"]["posterior"]["mu"].mean())
    distance = abs(summary["own"].values - target)
    assert f"({distance[7] / np.median(distance):.1f} times the median distance from {target:.3g})" in said(
        sentences, "H007 moves"
    )


def test_a_misfit_is_named_and_only_where_there_is_one(cases):
    assert "look at H007, which surprises the model most (2 hyperparameters act as" in said(
        cases["outlier"][2], "look at H007"
    )
    for name in ("no spread", "huge spread", "one small", "three"):
        assert not any("look at" in s for s in cases[name][2])


def test_with_few_groups_the_prior_must_be_asked_about(cases):
    fits, _, sentences = cases["three"]
    share = float(fits["partial"]["posterior"]["cv"].std() / fits["partial"]["prior"]["cv"].std())
    sentence = said(sentences, "Next: fit again with another prior of cv")
    assert f"from 3 hospitals its posterior sd is {share:.2f} of its prior's" in sentence
    assert cases["huge spread"][2][-1].startswith("Next: report each hospital by partial pooling, with its interval")
    assert cases["no spread"][2][-1] == "Next: report each hospital by partial pooling, with its interval."


def test_the_prior_that_decides_is_named(cases):
    """With half or twice the scale of the prior of mu its posterior mean moves by more than half of its sd."""
    table = hz.sensitivity(cases["huge spread"][0]["partial"])
    moved = table.loc["mu", ["moved", "groups_moved"]].max(axis=None)
    said = f"its scale halved or doubled estimates move, by that of mu ({moved:.1f} posterior sd)."
    assert cases["huge spread"][2][-1].endswith(said)
    assert moved > 0.5


def test_a_hospital_apart_is_named_and_not_to_be_reported(cases):
    sentences = cases["outlier"][2]
    assert "Partial pooling does not fit: 1 hospital does not belong to the population: H007." in sentences
    assert sentences[-1].startswith(
        "Next: do not report each hospital by this fit; find out what is different about H007"
    )


@pytest.mark.parametrize("name", FRAMES)
def test_it_is_five_sentences_and_one_more_of_a_misfit(cases, name):
    assert len(cases[name][2]) == 5 + (name == "outlier")
    assert all(s[0].isupper() and s.endswith(".") for s in cases[name][2])


@pytest.mark.parametrize("name", FRAMES)
def test_fits_that_passed_are_trusted(cases, name):
    assert cases[name][2][0] == (
        "Every fit can be trusted: complete pooling and partial pooling passed the checks of convergence; "
        "no pooling is drawn exactly."
    )


def test_from_fits_that_failed_nothing_is_concluded(cases):
    """The weights of independent draws prove nothing."""
    fits = dict(cases["huge spread"][0])
    fits["partial"] = fits["partial"].copy()
    fits["partial"].attrs["k_hat"] = 0.9
    sentences = hz.verdict(fits, cases["huge spread"][1])
    assert len(sentences) == 2
    assert sentences[0].startswith("Do not rely on these fits: partial pooling (k-hat 0.90 ")
    assert "complete" not in sentences[0]
    assert sentences[1].startswith("Nothing is concluded")


def test_without_partial_pooling_nothing_is_said_of_pull(cases):
    fits, tables, _ = cases["huge spread"]
    sentences = hz.verdict({"none": fits["none"]})
    assert sentences[0] == "Every fit can be trusted: no pooling is drawn exactly."
    assert "nothing to compare" in sentences[1]
    assert "no fit is of partial pooling" in sentences[-1]


def test_fits_of_other_data_are_refused(cases):
    with pytest.raises(ValueError, match="do not belong together"):
        hz.verdict({"partial": cases["three"][0]["partial"], "complete": cases["outlier"][0]["complete"]})


def ranking(one_unit=0.1, **rows):
    """A table of compare_poolings, made by hand: elpd_diff, dse, k-hat, refits of each pooling, best first."""
    columns = ["elpd_diff", "dse", "max_k_hat", "refits"]
    table = pd.DataFrame.from_dict(rows, orient="index", columns=columns)
    table = table.assign(rank=pd.array(range(1, len(rows) + 1), dtype="Int64"), one_unit=one_unit)
    table.attrs["unit"] = "hospital"
    return table


@pytest.mark.parametrize(
    ("rows", "groups", "expected"),
    [
        (
            {"complete": (0, 0, 0.1, 0), "partial": (-9.0, 2.0, 0.1, 0)},
            30,
            "it leads partial pooling clearly (9.0 nats, se 2.0)",
        ),
        (
            {"complete": (0, 0, 0.1, 0), "partial": (-3.9, 2.0, 0.1, 0)},
            30,
            "it leads partial pooling within noise (3.9 nats, se 2.0)",
        ),
        (
            {"complete": (0, 0, 0.1, 0), "partial": (-0.6, 0.1, 0.1, 0)},
            30,
            "it leads partial pooling hardly (0.6 nats, se 0.1)",
        ),
        (
            {"one_unit": 0.97, "complete": (0, 0, 0.1, 0), "partial": (-722.5, 676.4, 0.1, 0)},
            30,
            "it leads partial pooling mostly at one hospital (722.5 nats, se 676.4)",
        ),
        (
            {"one_unit": 0.44, "complete": (0, 0, 0.1, 0), "partial": (-79.3, 44.5, 0.1, 0)},
            13,
            "it leads partial pooling by much but unevenly, one hospital making 44 % of it (79.3 nats, se 44.5)",
        ),
        (
            {"one_unit": 0.44, "complete": (0, 0, 0.1, 0), "partial": (-9.3, 5.5, 0.1, 0)},
            13,
            "it leads partial pooling within noise (9.3 nats, se 5.5)",
        ),
        (
            {"complete": (0, 0, 0.1, 0), "partial": (-0.04, 0.01, 0.1, 0)},
            30,
            "it leads partial pooling by nothing (0.0 nats, se 0.0)",
        ),
        (
            {"complete": (0, 0, 0.1, 0), "partial": (-900.0, np.nan, 0.1, 0)},
            9,
            "it leads partial pooling by 900.0 nats (9 hospitals are too few for a standard error)",
        ),
        (
            {"none": (0, 0, np.nan, np.nan), "partial": (-1.0, 2.0, 1.4, 0), "complete": (-8.0, 2.0, 1.4, 3)},
            30,
            "it leads partial pooling within noise (1.0 nats, se 2.0) and complete pooling clearly (8.0 nats, se 2.0), "
            "with doubt about partial pooling, whose k-hat is too large",
        ),
        ({"partial": (0, 0, 0.1, 0)}, 30, "there is nothing to compare: fewer than two poolings can be ranked"),
    ],
)
def test_the_answer_follows_the_table(rows, groups, expected):
    assert answer(ranking(**rows), f"{groups} hospitals are too few for a standard error", "it") == expected


@pytest.mark.parametrize(
    ("first", "second", "leader"), [("none", "none", "it"), ("none", "partial", "partial pooling")]
)
def test_a_leader_is_named_once_and_another_anew(cases, first, second, leader):
    others = {"none": "partial", "partial": "none"}
    tables = [ranking(**{best: (0, 0, 0.1, 0), others[best]: (-9.0, 2.0, 0.1, 0)}) for best in (first, second)]
    record, fit = hz.hospital_readmission.MODEL, cases["outlier"][0]["none"]
    new, same = prediction(record, fit, dict(zip(("new_group", "new_observation"), tables, strict=True)))
    assert new.startswith(f"for a hospital not seen before {words(first)} leads {words(others[first])} clearly")
    assert same.startswith(f"for the same hospital again {leader} leads {words(others[second])} clearly")


def test_the_weight_of_data_is_compared_with_those_that_have_an_estimate():
    """Of five modules three have an estimate of their own; the lightest of these still weighs more than the others."""
    of = {
        "own": [1.0, 1.1, 2.0, np.nan, np.nan],
        "mean": [0.98, 1.07, 1.6, 1.0, 1.0],
        "kappa": [0.99, 0.98, 0.9, 0.1, 0.1],
    }
    of |= {"surprise": [0.5, 0.6, 0.7, np.nan, np.nan], "volume": [8.0, 8.0, 8.0, 4.0, 4.0]}
    summary = xr.Dataset({name: ("module", values) for name, values in of.items()})
    target = xr.DataArray(np.ones(5), dims="module")
    said = _why("samples", summary, target, 2, "")
    assert said == ": its data weigh less than those of most that have an estimate of their own (kappa 0.90; samples 8)"
    every = _why("samples", summary.isel(module=slice(3)), target[:3], 2, "")
    assert every == ": its data weigh less than those of most (kappa 0.90; samples 8)"


def test_a_group_that_moves_away_from_the_target_is_not_said_to_be_pulled():
    """Where rows far out are let go, the others may lie on the far side of their mean."""
    of = {"own": [8.31, 5.0, 6.0], "mean": [8.46, 4.9, 5.95], "kappa": [0.99, 0.95, 0.9]}
    of |= {"surprise": [1.5, 1.0, 0.5], "volume": [38.0, 20.0, 10.0]}
    summary = xr.Dataset({name: ("tissue", values) for name, values in of.items()})
    away = ", away from 6.81: no pull towards that, but how its own rows count: those that lie far out less, say"
    assert _why("cells", summary, xr.DataArray(6.81), 0, "") == away
    by = "the other years that it goes with"
    assert _why("cells", summary, xr.DataArray(6.81), 0, by) == f", away from 6.81: no pull towards that, but {by}"
    assert "no pull" not in _why("cells", summary, xr.DataArray(9.0), 0, "")


def test_what_all_move_by_is_no_way_of_one_group():
    """Specimens of one rig, whose simulator errs in all alike."""
    of = {"own": [1.963, 1.941, 1.966], "mean": [1.631, 1.609, 1.635], "kappa": [0.67] * 3, "volume": [24.0] * 3}
    summary = xr.Dataset({name: ("specimen", values) for name, values in of.items()})
    assert _why("rows", summary, xr.DataArray(1.63), 0, "") == ", most of it what all move by (-0.332)"


def test_no_reason_is_given_by_a_kappa_that_is_no_weight():
    """Of groups that are integrated numerically: data may leave more doubt than there was, and weigh a lot."""
    of = {"own": [1.17, 0.6, 0.5], "mean": [0.73, 0.58, 0.5], "kappa": [0.02, 0.3, 0.2], "volume": [67.0, 40.0, 41.0]}
    summary = xr.Dataset({name: ("site", values) for name, values in of.items()})
    assert (
        _why("rows", summary, xr.DataArray(0.4), 0, "")
        == " (3.9 times the median distance from 0.4; kappa 0.02; rows 67)"
    )


@pytest.mark.long
def test_a_year_is_pulled_by_those_beside_it():
    """Of one trait there are no other coefficients."""
    y = np.repeat([0.5, -0.5], 4)
    y[2] = 0.12
    frame = pd.DataFrame({"year": range(2000, 2008), "trait": "z", "gradient": y, "standard_error": 0.05})
    frame.loc[2, "standard_error"] = 0.3
    fit = hz.fit("selection_gradients", frame, autocorrelation=True, random_seed=1, draws=100, progressbar=False)
    moved = hz.verdict({"partial": fit})[-2]
    assert "but the other years that it goes with" in moved
    assert "coefficients" not in moved


@pytest.mark.long
def test_a_batch_is_pulled_to_its_campaign_and_what_only_priors_tell_is_said():
    frame, _ = hz.material_batches.simulate(np.random.default_rng(1), campaigns=2, batches=(3, 4))
    of_first = frame["campaign"] == frame["campaign"].iloc[0]
    frame["strength"] = np.where(of_first, 480, 520) + np.random.default_rng(5).normal(size=len(frame))
    one_each = frame.groupby(["campaign", "batch"]).head(1)
    with pytest.warns(FrameWarning, match="Every batch has one row"):
        fit = hz.fit("material_batches", one_each, random_seed=1, draws=100, progressbar=False)
    lines = hz.verdict({"partial": fit})
    assert "only their priors tell the spread of specimens (sigma) from that of batches" in lines[1]
    assert "away from" not in lines[-2]
    assert re.search(r"median distance from (48|52)", lines[-2])


def test_far_out_is_by_the_distance_that_is_printed():
    """A slope that its intercept did not expect need not be far from the others' slopes."""
    of = {"own": [9.6, 1.5, 25.0], "mean": [11.9, 2.0, 24.5], "kappa": [0.84, 0.8, 0.85]}
    of |= {"surprise": [2.5, 0.5, 0.6], "volume": [10.0, 10.0, 10.0]}
    summary, target = xr.Dataset({name: ("genotype", v) for name, v in of.items()}), xr.DataArray(13.2)
    said = [_why("rows", summary, target, 0, of_several) for of_several in ("its other coefficients", "")]
    assert said[0] == ": it lies far out for what its other coefficients say (0.3 times the median distance from 13.2)"
    assert said[1] == ": it lies far out for data as precise as its own (0.3 times the median distance from 13.2)"
    beyond = summary.assign(own=("genotype", [40.0, 15.0, 10.0]), mean=("genotype", [38.0, 14.6, 10.4]))
    assert _why("rows", beyond, target, 0, "its other coefficients").startswith(": it lies far out (8")


@pytest.mark.parametrize("moderators", [[], ["latitude"]])
def test_names_of_groups_change_no_reason(moderators):
    """What is computed of groups is by their labels, whatever they are called."""
    frame = hz.load_data("bcg_vaccine")
    frame["who"] = "study " + frame["clinic"].astype(str)
    said = []
    for label in (None, "who"):
        same = {"random_seed": 1, "draws": 250, "progressbar": False, "label": label}
        fit = hz.fit("vaccine_clinics", frame, **({"moderators": moderators} if moderators else {}), **same)
        said.append("; ".join(pull(model_of(fit), fit)))
    assert said[1] == said[0].replace("Comstock", "study Comstock")
    assert "its data weigh little" in said[0]
