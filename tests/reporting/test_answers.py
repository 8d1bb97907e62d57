"""A report has what the model's own verbs answer, and says why where they answer nothing."""

import io
from functools import cache

import numpy as np
import pandas as pd
import pytest
from rich.console import Console

import hbm_zoo as hz
from hbm_zoo.command_line import terminal
from hbm_zoo.reporting import sentences
from hbm_zoo.reporting.answers import OF_MODELS
from hbm_zoo.reporting.definitions import define
from hbm_zoo.reporting.findings import findings
from hbm_zoo.reporting.report import write

#: Those whose fits take a second; of `population_pk` the sentence is tested with the verb.
QUICK = [name for name in OF_MODELS if hz.MODELS[name].MODEL.group_level.nodes is None]


@pytest.fixture(scope="module")
def fits():
    """A fit of a model and pooling, once."""
    how = {"random_seed": 1, "progressbar": False, "draws": 250}
    return cache(lambda name, pooling: hz.fit(name, hz.load_data(data(name), name), pooling, **how))


def data(name):
    return next(iter(hz.MODELS[name].MODEL.datasets))


@pytest.fixture(scope="module")
def found(fits):
    """What is found of a fit, once."""
    return cache(lambda name, pooling: findings({pooling: fits(name, pooling)}))


#: A rig's verbs make fits of their own.
REPORTED = [pytest.param(n, marks=[pytest.mark.slow] * (n == "model_discrepancy")) for n in QUICK]


@pytest.mark.long
@pytest.mark.parametrize("name", REPORTED)
def test_a_report_has_the_table_the_sentence_and_the_picture(name, fits, found, tmp_path):
    fit, folder = fits(name, "partial"), write(found(name, "partial"), tmp_path / "report")
    page = (folder / "report.md").read_text(encoding="utf-8")
    html = (folder / "report.html").read_text(encoding="utf-8")
    for answer in OF_MODELS[name]:
        table = getattr(hz.MODELS[name], answer.verb)(fit)
        assert all(answer.meanings.get(c) or define(c, "", "") for c in table), "every column is explained"
        assert set(answer.texts) == set(table.columns) - set(table.select_dtypes("number").columns)
        written = pd.read_csv(folder / f"{answer.verb}.csv", index_col=list(range(table.index.nlevels)))
        numbers = table.select_dtypes("number")
        np.testing.assert_allclose(written[list(numbers)].to_numpy(float), numbers.to_numpy(float), rtol=1e-5)
        assert not answer.picture or (folder / f"{answer.verb}.png").read_bytes().startswith(b"\x89PNG")
        assert f"## {answer.heading}\n\n{answer.sentence(table)}.".replace("<", r"\<") in page
        assert f"<h2>{answer.heading}</h2>" in html


@pytest.mark.long
@pytest.mark.parametrize("name", REPORTED)
def test_the_terminal_says_it_in_a_line_and_why_there_is_none(name, found):
    for pooling in ("partial", "none"):
        of = found(name, pooling)
        console = Console(file=io.StringIO(), width=80)
        terminal.show(of, console)
        printed = " ".join(console.file.getvalue().split())
        for answer in OF_MODELS[name]:
            table = of.answers[answer.verb]
            said = table if isinstance(table, str) else answer.sentence(table)
            assert " ".join(f"{answer.word} {said}".split()) in printed
        assert all(isinstance(table, pd.DataFrame) for table in of.answers.values()) or pooling == "none"


# Of models whose fits take long: the sentences, of tables made by hand.


def rates(rows):
    """A table of `identifiability`: by module and function, sds of logs."""
    columns = ["prior", "others", "alone", "all"]
    index = pd.MultiIndex.from_tuples([row[:2] for row in rows], names=["module", "function"])
    return pd.DataFrame([row[2:] for row in rows], index, columns)


def test_where_the_population_is_as_good_a_guess_is_said():
    """Sums and products are none of the rates that are counted."""
    table = rates(
        [
            ("M1", "k1", 1.5, 0.9, 0.2, 0.1),
            ("M1", "k1 * k2", 2.0, 1.0, 0.1, 0.1),
            ("M2", "k1", 1.5, 0.30, 1.4, 0.29),
            ("M2", "k1 + k2", 1.5, 0.30, 1.4, 0.30),
        ]
    )
    said = sentences.known(table)
    assert said.startswith("of 2 rates of modules 1 are known within a factor of 2 alone, 2 with all modules. Of 1 a ")
    assert said.endswith("the variance that the others leave (M2): there what is typical of modules is as good a guess")
    assert "as good a guess" not in sentences.known(table.drop(index="M2", level="module"))


def test_the_smallest_spread_that_is_resolved_is_said():
    table = pd.DataFrame(
        {"omega_k1": [0.8, 0.4, 0.2], "off": [0.1, 0.2, 3.0], "error": [0.05, 0.06, 0.11], "resolved": [1, 1, 0]}
    ).astype({"resolved": bool})
    assert "down to omega_k1 0.4; below, they move, and the log likelihood is known within 0.11" in sentences.resolved(
        table
    )
    assert sentences.resolved(table.assign(resolved=False)).startswith(
        "the nodes that were made once resolve no spread"
    )


def test_what_a_module_s_data_tell_best_is_said():
    index = pd.MultiIndex.from_product([["M1", "M2"], [1, 2]], names=["module", "direction"])
    table = pd.DataFrame(
        {"left": [0.02, 0.9, 0.001, 0.5], "k1": [1.0, 0.1, -0.5, 1.0], "k2": [0.05, 1.0, 1.0, 0.2]}, index
    ).assign(ordered=["", "", "k1 > k2", "k1 > k2"])
    table.attrs["note"] = "local: there"
    assert sentences.told_best(table) == (
        "a module's own data tell best: M2 - 0.5 log k1 + log k2 (k1 > k2), of whose variance 0.001 is left; "
        "M1 log k1 + 0.05 log k2, of whose variance 0.02 is left; local: there"
    )


def test_a_prediction_beyond_the_data_says_what_it_rests_on():
    index = pd.MultiIndex.from_tuples([("S1", 0.4, 10.0), ("S1", 1.0, 10.0)], names=["specimen", "position", "load"])
    columns = {"reality": [6.1, 24.0], "reality_eti89_lb": [6.08, 23.8], "reality_eti89_ub": [6.11, 24.2]}
    table = pd.DataFrame(
        columns | {"where": ["among the data", "beyond the last sensor"], "without": [5.4, 25.9]}, index
    )
    said = sentences.predicted(table)
    assert (
        "beyond the last sensor, at 1 m under 10 N, 24.0 mm (23.8 to 24.2), were the simulator the truth 25.9" in said
    )
    assert said.endswith("they rest on the kind of discrepancy that is assumed (docs/discrepancy.md of the package)")
