"""A single experiment, where a model takes one: it has nothing to share, and all that is said of it is its own."""

import re
import sys
from dataclasses import replace
from types import ModuleType

import numpy as np
import pandas as pd
import pytest
from pymc_extras.prior import Prior

import hbm_zoo as hz
from hbm_zoo import zoo
from hbm_zoo.command_line.commands import compare_poolings
from hbm_zoo.command_line.errors import BadInput
from hbm_zoo.command_line.source import Source
from hbm_zoo.frames.rules import FrameError
from hbm_zoo.models.vaccine_clinics import MODEL
from hbm_zoo.priors import moments

RECORD = replace(
    MODEL,
    name="one_clinic",
    fewest_groups=1,
    default_priors=lambda data: {"mu": Prior("Normal", mu=0, sigma=1), "tau": Prior("HalfNormal", sigma=0.5)},
)
FRAME = pd.DataFrame({"clinic": ["Alone"], "effect": [-0.4], "standard_error": [0.2]})
SENTENCE = r"^One clinic has nothing to share with others: only no pooling can be fitted\.$"


@pytest.fixture(scope="module")
def fits():
    return hz.fit_poolings(RECORD, FRAME, draws=300, chains=2, random_seed=1, progressbar=False)


def test_only_no_pooling_is_fitted(fits):
    (fit,) = fits.values()
    assert list(fits) == ["none"]
    data = RECORD.data(FRAME)
    mean, variance = moments("theta", RECORD.matched(RECORD.priors(data))["theta"])
    weight = variance / (variance + 0.2**2)
    summary = fit["group_summary"].to_dataset()
    assert summary["mean"].item() == pytest.approx(weight * -0.4 + (1 - weight) * mean)
    assert summary["sd"].item() == pytest.approx(np.sqrt(weight) * 0.2)


@pytest.mark.parametrize("pooling", ["complete", "partial"])
def test_other_poolings_are_refused(pooling):
    with pytest.raises(ValueError, match=SENTENCE):
        hz.fit(RECORD, FRAME, pooling)
    with pytest.raises(ValueError, match=SENTENCE):
        RECORD.build(FRAME, pooling)


def test_empirical_bayes_is_refused():
    with pytest.raises(ValueError, match=SENTENCE):
        hz.empirical_bayes(RECORD, FRAME)


def test_a_model_of_several_still_wants_two():
    with pytest.raises(FrameError, match=r"^vaccine_clinics expected at least 2 clinics to compare, got 1\.$"):
        hz.fit(MODEL, FRAME, "none")


def test_it_is_tabulated_and_predicted(fits):
    table = hz.groups(fits, threshold=-0.5, model=RECORD)
    assert table.index.tolist() == ["Alone"]
    assert not {"kappa", "rank", "p_best"} & set(table)
    assert table["p_above_-0.5"].between(0.5, 1).all()
    new = pd.DataFrame({"clinic": ["Alone", "Other"], "standard_error": [0.3, 0.3]})
    said = hz.predict(fits["none"], new, n_new=1, model=RECORD)["group_summary"].to_dataset()
    assert said["case"].values.tolist() == ["known", "never seen", "never seen"]
    np.testing.assert_allclose(said["mean"][0], table["none"].item())


def test_its_verdict_draws_no_comparison(fits):
    sentences = hz.verdict(fits, model=RECORD)
    assert sentences[0] == "Every fit can be trusted: no pooling is drawn exactly."
    assert not any("leads" in sentence or "nan" in sentence for sentence in sentences)
    assert sentences[-1] == "One clinic has nothing to share with others: no pooling is all there is."


@pytest.fixture
def shell(monkeypatch, tmp_path):
    monkeypatch.setattr(zoo, "NAMES", (*zoo.NAMES, RECORD.name))
    page = ModuleType(f"hbm_zoo.models.{RECORD.name}")
    page.MODEL = RECORD
    monkeypatch.setitem(sys.modules, page.__name__, page)
    FRAME.to_csv(tmp_path / "one.csv", index=False)
    settings = {"draws": 300, "tune": 100, "chains": 2, "random_seed": 1}

    def compare(*poolings, out=None):
        source = Source(tmp_path / "one.csv", None, None, (), ())
        return compare_poolings(RECORD.name, source, poolings, [], settings, None, out, False, False)

    return compare


def test_it_is_printed_and_reported(shell, tmp_path, capsys):
    assert shell(out=tmp_path / "report") == 0
    out = capsys.readouterr().out
    page = (tmp_path / "report" / "report.md").read_text()
    assert "one.csv: 1 clinic, precision 25 each" in out
    assert "| clinic | precision | own | none | 89 % | P(> 0) |" in page  # it is first of one: no rank
    assert "only its prior Normal(mu=0, sigma=1.118) speaks: unranked" in page
    assert not re.search(r"\bnan\b", out + page)


def test_the_shell_refuses_to_share(shell):
    with pytest.raises(BadInput, match="One clinic has nothing to share with others: only no pooling can be fitted"):
        shell("partial")


def test_what_is_among_groups_is_refused_of_one(fits):
    with pytest.raises(ValueError, match="has no variance among .*: nothing is pooled"):
        hz.pooling_factor(fits["none"], RECORD)
    with pytest.raises(ValueError, match="has nothing to share with others: only no pooling can be fitted"):
        hz.recover(fits["none"], RECORD, FRAME)
