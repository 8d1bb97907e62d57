"""Files as people have them: each is read to the same frame, or refused in one sentence."""

import numpy as np
import pandas as pd
import pytest

from hbm_zoo.command_line import parsing
from hbm_zoo.frames import reading
from hbm_zoo.frames.rules import FrameError, FrameWarning, check, count, label, number, positive
from hbm_zoo.frames.summaries import _between, summary_rows

RULES = {"hospital": label("name", unique=True), "observed": count("seen"), "expected": positive("expected")}
TRUTH = pd.DataFrame(
    {"hospital": ["010001", "A, north", "Gerät"], "observed": [6, 1250, 0], "expected": [4.5, 1100.25, 0.75]}
)


def read(path, text, encoding="utf-8", columns=()):
    path.write_bytes(text.encode(encoding))
    frame = reading.read(path)
    return reading.for_model(frame, parsing.columns(columns, RULES), RULES)


COMMAS = 'hospital,observed,expected\n010001,6,4.5\n"A, north",1250,1100.25\nGerät,0,0.75\n'
SEMICOLONS = "hospital;observed;expected\n010001;6;4,5\nA, north;1250;1100,25\nGerät;0;0,75\n"
FILES = {
    "plain": COMMAS,
    "other case, other order": 'Expected,x,HOSPITAL,OBSERVED\n4.5,,010001,6\n1100.25,,"A, north",1250\n.75,,Gerät,0\n',
    "decimal commas": SEMICOLONS,
    "thousands": SEMICOLONS.replace("1250;1100,25", "1.250;1.100,25"),
    "quoted thousands": COMMAS.replace("1250,1100.25", '"1,250","1,100.25"'),
    "byte order mark": "\ufeff" + SEMICOLONS.replace("\n", "\r\n"),
    "separator stated": "sep=;\r\n" + SEMICOLONS.replace("\n", "\r\n"),
    "tabs": SEMICOLONS.replace(";", "\t"),
    "blank lines and cells": SEMICOLONS.replace("\n", ";;\n\n").replace("1250;", " 1250 ;") + ";;;\n",
}


@pytest.mark.parametrize("encoding", ["utf-8", "utf-16", "cp1252"])
@pytest.mark.parametrize("name", FILES)
def test_every_way_of_writing_a_table_gives_the_same_frame(tmp_path, name, encoding):
    if encoding != "utf-8" and name == "byte order mark":
        pytest.skip("the mark belongs to the encoding")
    frame = check(read(tmp_path / "file.csv", FILES[name], encoding), RULES, "model")
    pd.testing.assert_frame_equal(frame.reset_index(drop=True), TRUTH, check_dtype=False)


SUMMARIES = {
    "last": (SEMICOLONS + "Total:;1256;1.105,50\n", 5, "'Total:' is the name of a summary"),
    "first": ("hospital,observed,expected\nTotal,18,17\nA,3,4\nB,5,4\nC,10,9\n", 2, "'Total' is the name"),
    "no sum": ("hospital,observed,expected\nA,1,1\nNATIONAL,4,4\nB,2,2\n", 3, "'NATIONAL' is the name"),
    "without a name": (COMMAS + ",1256,1105.5\n", 5, "it is the sum of all others"),
    "by its numbers": (COMMAS + "Köln,1256,1105.5\n", 5, "it is the sum of all others"),
    "amid the others": ("hospital,observed,expected\nA,3,4\nB,5,4\nX,18,17\nC,10,9\n", 4, "it is the sum"),
}


@pytest.mark.parametrize("case", SUMMARIES)
def test_a_summary_is_refused_by_its_line_and_left_out_if_asked(tmp_path, case):
    text, line, why = SUMMARIES[case]
    with pytest.raises(FrameError, match=rf"line {line} of file.csv is no hospital: .*{why}.*--drop-unusable"):
        read(tmp_path / "file.csv", text)
    frame = reading.for_model(reading.read(tmp_path / "file.csv"), {}, RULES, drop_unusable=True)
    assert len(frame) == len(text.splitlines()) - 2
    assert line not in frame.index
    (note,) = frame.attrs["notes"]
    assert note.startswith(f"1 line of file.csv could not be used, left out: line {line}")


def test_a_frame_without_numbers_has_no_sums():
    """A pedigree, or a frame whose only number has another name."""
    pedigree = pd.DataFrame({"animal": [*"abcde"], "sire": ["", "", "a", "a", "b"]})
    assert summary_rows(pedigree, {"animal": label(""), "sire": label("")}) == {}


@pytest.mark.parametrize(
    ("name", "summary"),
    [
        ("RE Model", True),
        ("Total (95% CI)", True),
        ("Random-effects model", True),
        ("Pooled estimate", True),
        ("Subtotal: acute", True),
        ("Sub-total", True),
        ("National Hospital", False),
        ("Total Joint Clinic", False),
        ("All Saints", False),
        ("Summers", False),
        ("ALL", False),
        ("FE", False),
        ("St. Overall", False),
    ],
)
def test_summaries_by_their_words(name, summary):
    frame = pd.DataFrame({"hospital": ["A", "B", name], "observed": [1, 2, 4], "expected": [1.0, 2.0, 5.0]})
    assert bool(summary_rows(frame, RULES)) == summary


def test_an_estimate_that_pools_the_others_is_no_trial():
    rules = {"clinic": label(""), "effect": number(""), "standard_error": positive("")}
    y, se = np.array([-0.5, -0.1, -0.3, 0.4]), np.array([0.2, 0.3, 0.25, 0.15])
    names = ["A", "B", "C", "D", "Meta"]
    for between in (0.0, _between(y, se**2)):
        w = 1 / (se**2 + between)
        mean, sd = round((w * y).sum() / w.sum(), 4), round(w.sum() ** -0.5, 4)
        frame = pd.DataFrame({"clinic": names, "effect": [*y, mean], "standard_error": [*se, sd]})
        assert summary_rows(frame, rules) == {4: "it is the estimate that pools all others"}
        apart = frame.assign(effect=[*y, mean + sd / 10])
        assert summary_rows(apart, rules) == {}


def test_a_group_that_happens_to_be_the_sum_stays(tmp_path):
    assert len(read(tmp_path / "file.csv", "hospital,observed,expected\nA,1,1\nB,2,2\nC,3,3\n")) == 3


def test_rows_that_break_a_rule_are_left_out_if_asked_counted_and_listed(tmp_path):
    text = "hospital,observed,expected\nA,1,1\nB,2,0\nC,x,3\n,4,4\nD,2,2\n"
    with pytest.raises(FrameError, match="expected a whole number"):
        check(read(tmp_path / "file.csv", text), RULES, "model")
    frame = reading.for_model(reading.read(tmp_path / "file.csv"), {}, RULES, drop_unusable=True)
    assert frame["hospital"].tolist() == ["A", "D"]
    assert frame.attrs["notes"] == [
        "3 lines of file.csv could not be used, left out: line 3 (B): expected is 0.0; line 4 (C): observed is 'x'; "
        "line 5: hospital is an empty cell."
    ]


def test_labels_that_look_alike_are_noted(tmp_path):
    frame = read(tmp_path / "file.csv", "hospital,observed,expected\nSt Mary,1,1\nST MARY,2,2\nLake,3,4\n")
    (note,) = frame.attrs["notes"]
    assert note.startswith("file.csv: column 'hospital' has 'St Mary' and 'ST MARY', which differ by case")
    with pytest.warns(FrameWarning, match="'St Mary' and 'ST MARY', which differ by case, spaces or form only"):
        assert len(check(frame, RULES, "model")) == 3


QUOTES = {
    "never closed": ('A,3,4,ok\nB,5,4,"see ward 5\nC,10,9,ok\n', "file.csv: a quote that is opened in line 3 is never"),
    "amid": ('A,3,4,"see "ward" 5"\n', "line 2 has a quote amid a cell that is quoted"),
}


@pytest.mark.parametrize("case", QUOTES)
def test_a_quote_that_swallows_rows_is_refused(tmp_path, case):
    rows, sentence = QUOTES[case]
    with pytest.raises(FrameError, match=sentence):
        read(tmp_path / "file.csv", "hospital,observed,expected,notes\n" + rows)


def test_a_cell_over_several_lines_is_noted(tmp_path):
    frame = read(tmp_path / "file.csv", 'hospital,observed,expected,notes\nA,3,4,"see\nB,5,4,"\nC,1,2,\n')
    assert frame["hospital"].tolist() == ["A", "C"]
    assert frame.attrs["notes"] == [
        "Line 2 of file.csv: the cell of 'notes' goes over several lines. Is a quote missing?",
        "file.csv: the model does not use column 'notes'.",
    ]


def test_a_cell_of_a_book_is_refused(tmp_path):
    with pytest.raises(FrameError, match="a cell in line 2 has more than 131,072 characters. Is a quote missing"):
        read(tmp_path / "file.csv", f'hospital,observed,expected\n"{"x" * 200_000}",1,1\n')


def test_where_commas_separate_cells_the_point_is_the_decimal_mark(tmp_path):
    frame = read(tmp_path / "file.csv", "hospital,observed,expected\nA,3.500,4.125\nB,5.000,4.250\nC,7.000,6.375\n")
    assert frame["expected"].tolist() == [4.125, 4.25, 6.375]
    with pytest.raises(FrameError, match=r"got 3.5 in line 2"):
        check(frame, RULES, "model")


def test_the_owner_s_names_are_kept_and_a_comma_may_be_in_one(tmp_path):
    text = 'clinic;"Deaths, all";exp. deaths;expected\nA;1;1,5;9\nB;2;2,5;9\n'
    frame = read(tmp_path / "f.csv", text, columns=["hospital=clinic,observed=Deaths, all,expected=exp. deaths"])
    assert frame["expected"].tolist() == [1.5, 2.5]
    assert frame.attrs["labels"] == {"hospital": "clinic", "observed": "Deaths, all", "expected": "exp. deaths"}
    assert frame.index.tolist() == [2, 3]


def test_columns_may_change_places(tmp_path):
    text = "hospital,observed,expected\nA,1.5,1\nB,2.5,2\n"
    frame = read(tmp_path / "f.csv", text, columns=["observed=expected", "expected=observed"])
    assert (frame["observed"].tolist(), frame["expected"].tolist()) == ([1, 2], [1.5, 2.5])


@pytest.mark.parametrize(
    ("cells", "complaint"),
    [
        ("A,12o,1\nB,2,2", "column 'observed' expected a whole number.*got '12o' in line 2"),
        ("A,1,1\n\nB,2,", "column 'expected' expected.*got an empty cell in line 4"),
        ("A,1,N/A\nB,2,2", "got 'N/A' in line 2"),
        ('A,1,"1,234"\nB,2,2', "got '1,234' in line 2"),  # 1234 or 1.234: nobody can tell
        ('A,1,"12,5"\nB,2,2.5\nC,3,2.5', "got '12,5' in line 2"),
        ("A,1,1\nA,2,2", "column 'hospital' expected each value once, got 'A' in lines 2, 3"),
        ("A,-1,1\nB,2,2", "column 'observed'.*got -1.0 in line 2"),
    ],
)
def test_a_bad_cell_is_named_by_its_line(tmp_path, cells, complaint):
    with pytest.raises(FrameError, match=complaint):
        check(read(tmp_path / "f.csv", f"hospital,observed,expected\n{cells}\n"), RULES, "model")


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("", "is empty"),
        ("hospital,observed,expected\nA,1,0,5\n", "line 2 has 4 cells, the header has 3"),
        ("PK\x03\x04", "is a workbook: save the sheet as CSV"),
        ("\x00\x01", "is not a text file"),
        ("hospital,observed,observed\nA,1,1\n", "expected one column 'observed'"),
    ],
)
def test_what_is_no_table_is_refused(tmp_path, text, complaint):
    with pytest.raises(FrameError, match=complaint):
        read(tmp_path / "f.csv", text)


def test_half_a_text_is_none(tmp_path):
    (tmp_path / "f.csv").write_bytes(b"\xff\xfe\x01")
    with pytest.raises(FrameError, match=r"f.csv is not a text file: expected CSV or parquet"):
        reading.read(tmp_path / "f.csv")


def test_a_missing_file_names_the_nearest(tmp_path):
    (tmp_path / "deaths.csv").write_text("x\n1\n")
    with pytest.raises(FrameError, match=r"There is no file .*death.csv. Did you mean deaths.csv\?"):
        reading.read(tmp_path / "death.csv")


@pytest.mark.parametrize(
    ("columns", "complaint"),
    [
        ("expcted=x", "the model has no column 'expcted'.*Did you mean 'expected'"),
        ("expected=expetced", "f.csv has no column 'expetced'.*Did you mean 'expected'"),
        ("expected", "expected NAME=VALUE, got 'expected'"),
        ("expected=observed,observed=observed", "expected one column 'observed'"),
    ],
)
def test_columns_that_do_not_exist_name_the_nearest(tmp_path, columns, complaint):
    with pytest.raises(ValueError, match=complaint):
        read(tmp_path / "f.csv", "hospital,observed,expected\nA,1,1\n", columns=[columns])


def test_parquet_keeps_its_numbers_and_counts_rows_from_one(tmp_path):
    TRUTH.to_parquet(tmp_path / "f.parquet")
    frame = reading.for_model(reading.read(tmp_path / "f.parquet"), {}, RULES)
    pd.testing.assert_frame_equal(frame.reset_index(drop=True), TRUTH, check_dtype=False)
    assert (frame.index.tolist(), frame.index.name) == ([1, 2, 3], "row")


def test_numbers_that_may_be_negative_have_decimal_commas_too(tmp_path):
    rules = {"effect": number("effect")}
    (tmp_path / "f.csv").write_text("effect;x\n-0,5;\n-1.234,5;\n1e-3;\n2;\n")
    frame = reading.for_model(reading.read(tmp_path / "f.csv"), {}, rules)
    np.testing.assert_allclose(frame["effect"], [-0.5, -1234.5, 0.001, 2])


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("HalfNormal(0.5)", "with its numbers by name"),
        ("HalfNorml(sigma=1)", "Did you mean 'HalfNormal'"),
        ("__import__('os')", "with its numbers by name"),
        ("Normal(mu=a, sigma=1)", "with its numbers by name"),
        ("HalfNormal(sd=1)", "HalfNormal takes sigma or tau, got 'sd'"),
    ],
)
def test_a_prior_that_is_none_is_refused(text, complaint):
    with pytest.raises(ValueError, match=complaint):
        parsing.priors([f"tau={text}"])


def test_a_prior_is_its_distribution_and_numbers():
    assert parsing.priors(["mu=Normal(mu=-1e-3, sigma=2)"])["mu"].parameters == {"mu": -0.001, "sigma": 2}


def test_options_are_text_where_their_default_is_text():
    def prepare(frame, null="theoretical", center=None): ...

    given = parsing.options(["null=1", "center=2.5", "gene=MAML1"], [prepare])
    assert given == {"null": "1", "center": 2.5, "gene": "MAML1"}
