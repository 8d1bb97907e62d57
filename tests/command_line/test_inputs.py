"""A second frame and a simulator on the command line: files, and functions of modules in the working directory."""

import sys
from dataclasses import replace

import pytest
import xarray as xr

from hbm_zoo.frames.inputs import SIMULATOR
from hbm_zoo.frames.rules import label, number, positive
from hbm_zoo.models import vaccine_clinics


def prepare(frame, errors, simulator):
    """The clinics of the zoo, each effect less what a simulator says of its dose; errors by clinic."""
    return xr.Dataset(
        {
            "effect": ("clinic", frame["effect"].to_numpy() - simulator(frame[["dose"]].to_numpy())),
            "standard_error": ("clinic", errors.set_index("site").loc[frame["clinic"], "error"].to_numpy()),
        },
        coords={"clinic": frame["clinic"].to_numpy()},
    )


DOSES = replace(
    vaccine_clinics.MODEL,
    name="doses",
    prepare=prepare,
    columns={"clinic": label("the clinic", unique=True), "effect": number("its effect"), "dose": number("in mg")},
    inputs={"errors": {"site": label("the clinic"), "error": positive("its error")}, "simulator": SIMULATOR},
    datasets={},
)


@pytest.fixture
def doses(command_line_with):
    return command_line_with(DOSES)


@pytest.fixture
def here(monkeypatch, tmp_path):
    """A working directory as a person has it: data, errors, a module, and a path that does not lead to it."""
    (tmp_path / "trials.csv").write_text("clinic,effect,dose\nA,1.5,1\nB,2.5,2\nC,3.5,3\nD,4.0,4\n")
    (tmp_path / "errors.csv").write_text("Site;Error\nA;0,5\nB;0,25\nC;1\nD;1,5\n")
    (tmp_path / "my_curve.py").write_text("LEVEL = 1.0\n\ndef rise(points):\n    return LEVEL * points[:, 0]\n")
    (tmp_path / "my_broken.py").write_text("1 / 0\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setattr(sys, "path", [entry for entry in sys.path if entry not in ("", ".", str(tmp_path))])
    yield tmp_path
    for name in ("my_curve", "my_broken"):
        sys.modules.pop(name, None)


def compare(main, *more, errors="errors.csv", simulator="my_curve:rise"):
    words = ["compare", "doses", "--data", "trials.csv", "--pooling", "none", "--seed", "1", "--draws", "20"]
    given = {"errors": errors, "simulator": simulator}
    for name, value in given.items():
        words += ["--option", f"{name}={value}"] if value else []
    return main([*words, *more])


def test_a_frame_from_a_file_and_a_function_from_a_module_of_the_working_directory(doses, here, capsys):
    assert compare(doses, "--out", "report") == 0
    out = capsys.readouterr().out
    assert "trials.csv: 4 clinics, precision 0.444 to 16 (median 2.5)" in out
    assert (here / "report" / "report.html").is_file()


BAD_SIMULATORS = {
    "no module": ("my_curv:rise", ": there is no module 'my_curv'. Did you mean 'my_curve'?"),
    "no function": ("my_curve:rize", ": my_curve has no 'rize'. Did you mean 'rise'?"),
    "no name": ("my_curve", " expected module:function, got 'my_curve'."),
    "not callable": ("my_curve:LEVEL", ": 'LEVEL' of my_curve is no function but 1.0."),
    "broken": ("my_broken:rise", ": my_broken cannot be imported: ZeroDivisionError: division by zero."),
    "a file": ("my_curve.py:rise", ": there is no module 'my_curve.py'. Did you mean 'my_curve'?"),
}


@pytest.mark.parametrize("what", BAD_SIMULATORS)
def test_a_simulator_that_is_not_one_is_refused(doses, here, capsys, what):
    given, sentence = BAD_SIMULATORS[what]
    assert compare(doses, simulator=given) == 2
    assert capsys.readouterr().err.strip() == f"hbm-zoo: --option simulator{sentence}"


BAD_ERRORS = {
    "no file": (
        "error.csv",
        "",
        "--option errors: There is no file error.csv. Did you mean errors.csv?",
    ),
    "no column": (
        "bad.csv",
        "site,eror\nA,1\n",
        "bad.csv: doses, 'errors' expected a column 'error' (its error), got 'site', 'eror'. The nearest it has is "
        "'eror'.",
    ),
    "bad cells": (
        "bad.csv",
        "Site,Error\nA,1\nB,none\nC,-1\nD,1\n",
        "bad.csv: doses, 'errors': column 'Error' expected a finite number above 0, got 'none' in line 3 (B); -1.0 in "
        "line 4 (C).",
    ),
    "no rows": ("bad.csv", "site,error\n", "bad.csv: doses, 'errors' expected at least one row, got an empty frame."),
}


@pytest.mark.parametrize("what", BAD_ERRORS)
def test_a_second_file_that_cannot_be_used_is_named_with_its_lines(doses, here, capsys, what):
    file, text, sentence = BAD_ERRORS[what]
    if text:
        (here / file).write_text(text)
    assert compare(doses, errors=file) == 2
    assert capsys.readouterr().err.strip() == f"hbm-zoo: {sentence}"


def test_what_was_done_to_the_rows_of_a_second_file_is_said(doses, here, capsys):
    (here / "errors.csv").write_text("Site,Error\nA,0.5\nB,0.25\nC,1\nD,1.5\nTotal,3.25\n")
    assert compare(doses) == 2
    assert "line 6 of errors.csv is no site: 'Total' is the name of a summary" in capsys.readouterr().err
    assert compare(doses, "--drop-unusable") == 0
    said = "1 line of errors.csv could not be used, left out: line 6 (Total): 'Total' is the name of a summary."
    assert said in " ".join(capsys.readouterr().out.split())


@pytest.mark.parametrize(
    ("missing", "sentence"),
    [
        ("errors", "doses expected a frame with columns site, error as 'errors', got none."),
        ("simulator", "doses expected a simulator as 'simulator', got none."),
    ],
)
def test_what_the_model_takes_is_asked_for_by_name(doses, here, capsys, missing, sentence):
    assert compare(doses, **{missing: None}) == 2
    assert capsys.readouterr().err.splitlines()[-1] == f"hbm-zoo: trials.csv: {sentence}"


def test_an_unknown_option_names_the_nearest(doses, here, capsys):
    assert compare(doses, "--option", "simulater=my_curve:rise", simulator=None) == 2
    assert "Did you mean 'simulator'?" in capsys.readouterr().err


def test_a_further_input_is_said_as_it_is_given_here(doses, here, capsys, monkeypatch):
    def refuse(*given, **how):
        raise ValueError("Give it again as simulator=curve.")

    monkeypatch.setattr("hbm_zoo.fit", refuse)
    assert compare(doses) == 2
    assert "Give it again as --option simulator=curve." in " ".join(capsys.readouterr().err.split())
