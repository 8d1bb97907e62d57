"""The command line as a new user meets it: the right report, or one sentence and an exit code."""

import re
import signal
import subprocess
import sys
import time

import numpy as np
import pandas as pd
import pytest

import hbm_zoo as hz
from hbm_zoo.command_line.cli import main

HOSPITALS = pd.DataFrame(
    {
        "hospital": [f"Ward {i}" for i in range(6)],
        "observed": [6, 2, 48, 11, 0, 25],
        "expected": [4, 4, 40, 14, 1.5, 20],
    }
)


@pytest.fixture(autouse=True)
def narrow(monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")


def compare(*arguments, model="hospital_readmission"):
    return main(["compare", model, "--seed", "1", *map(str, arguments)])


def test_help_list_and_describe_answer_without_pymc():
    code = (
        "import sys; from hbm_zoo.command_line.cli import main\n"
        "for words in ('--help', 'list', 'compare --help', 'describe spike_slab_genes'): main(words.split())\n"
        "assert not {'pymc', 'pytensor', 'pandas'} & set(sys.modules)"
    )
    start = time.perf_counter()
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert time.perf_counter() - start < 10  # all four, on a busy machine
    assert done.returncode == 0, done.stderr
    for name in ("compare", "describe", "spike_slab_genes", "gamma_g ~ Bernoulli", "--columns"):
        assert name in done.stdout


def test_every_model_is_listed_with_its_question_and_has_a_page(capsys):
    assert main(["list"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines if not line.startswith(" ")] == list(hz.MODELS)
    assert all(len(line.rstrip()) <= 80 for line in lines)
    for name in hz.MODELS:
        assert main(["describe", name]) == 0
        page = capsys.readouterr().out
        for heading in ("The model", "What it assumes", "References"):
            assert heading in page


def test_shipped_data_are_shown_and_saved(capsys, tmp_path):
    assert main(["data"]) == 0
    assert "three_hospitals" in capsys.readouterr().out
    assert main(["data", "three_hospitals", "--out", str(tmp_path / "three.csv")]) == 0
    assert "Smaller" in capsys.readouterr().out
    pd.testing.assert_frame_equal(pd.read_csv(tmp_path / "three.csv"), hz.load_data("three_hospitals"))
    assert main(["data", "three_hospitals", "--out", str(tmp_path / "three.csv")]) == 2
    assert main(["data", "three_hospital"]) == 2
    assert main(["data", "dyestuff", "--model", "material_batches"]) == 0
    assert main(["data", "dyestuff"]) == 2
    assert "Did you mean 'three_hospitals'" in capsys.readouterr().err


@pytest.mark.long
def test_from_a_spreadsheet_s_file_to_a_report(capfd, tmp_path):
    rows = [f"{h};{o};{str(float(e)).replace('.', ',')}" for h, o, e in HOSPITALS.itertuples(index=False)]
    text = "\ufeff" + "\r\n".join(["Ward;Falls;Falls expected", *rows, "Total;92;83,5", ";;"])
    (tmp_path / "falls.csv").write_bytes(text.encode())
    names = "hospital=Ward,observed=Falls,expected=Falls expected"
    more = ["--threshold", 1.5, "--out", tmp_path / "report"]
    code = compare(
        "--data",
        tmp_path / "falls.csv",
        "--drop-unusable",
        "--columns",
        names,
        "--prior",
        "cv=HalfNormal(sigma=0.5)",
        *more,
    )
    out, err = capfd.readouterr()
    assert code == 0, out + err
    assert "Warning" not in err
    assert "Traceback" not in err
    lines = out.splitlines()
    assert all(len(line) <= 80 for line in lines if "report.html" not in line)
    assert len(lines) <= 50  # six notes and answers beyond the usual, and what the model does not fit
    assert "\x1b" not in out  # plain when not a terminal
    for said in (
        "falls.csv: 6 Wards, Falls expected 1.5 to 40 (median 9)",
        "HalfNormal(sigma=0.5)",
        "1 line of falls.csv could not be used, left out: line 8 (Total): 'Total' is the name of a summary.",
        "A Ward not seen before",
        "The same Ward, again",
        "or the same Ward again",
        "Verdict",
        "Population",
    ):
        assert said in " ".join(out.split())
    groups = pd.read_csv(tmp_path / "report" / "groups.csv")
    assert groups.columns[:2].tolist() == ["Ward", "Falls expected"]
    np.testing.assert_allclose(groups["own"], HOSPITALS["observed"] / HOSPITALS["expected"], rtol=1e-5)
    assert "p_above_1.5" in groups


ODD_FILES = {
    "tabs.tsv": ("Hospital\tObserved\tExpected\n", "\t"),
    "pipes.txt": ("hospital|observed|expected\n", "|"),
    "semicolons.csv": ("sep=;\nhospital;observed;expected\n", ";"),
}


@pytest.mark.parametrize("name", ODD_FILES)
def test_a_file_with_another_separator_is_the_same_data(capsys, tmp_path, name):
    header, separator = ODD_FILES[name]
    body = HOSPITALS.to_csv(index=False, header=False, sep=separator)
    (tmp_path / name).write_text(header + body)
    assert compare("--data", tmp_path / name, "--pooling", "none", "--out", tmp_path / "report") == 0
    groups = pd.read_csv(tmp_path / "report" / "groups.csv")
    np.testing.assert_allclose(groups["own"], HOSPITALS["observed"] / HOSPITALS["expected"], rtol=1e-5)


def big_file(path, **cells):
    frame = pd.DataFrame({"ward": [f"w{i:04d}" for i in range(3000)], "deaths": "20", "exp": "20.5"})
    for column, value in cells.items():
        frame.loc[1872, column] = value  # line 1 is the header
    frame.to_csv(path, index=False)
    return "--data", path, "--columns", "hospital=ward,observed=deaths,expected=exp"


def test_three_thousand_rows_and_little_said(capsys, tmp_path):
    assert compare(*big_file(tmp_path / "big.csv"), "--pooling", "none", "--draws", 50, "--quiet") == 0
    out, err = capsys.readouterr()
    assert out.startswith("Verdict")
    assert err == ""


@pytest.mark.parametrize(
    ("cells", "named"),
    [
        ({"deaths": "2o"}, "column 'deaths' expected a whole number, 0 or more"),
        ({"exp": "-3"}, "column 'exp' expected a finite number above 0"),
        ({"exp": ""}, "got an empty cell in line 1874"),
    ],
)
def test_one_bad_cell_in_three_thousand_rows_is_named(capsys, tmp_path, cells, named):
    assert compare(*big_file(tmp_path / "big.csv", **cells)) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert named in err
    assert "big.csv" in err
    assert "line 1874" in err
    assert len(err.strip().splitlines()) == 1


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--data", "nowhere.csv"], "There is no file nowhere.csv"),
        (["--data", "pumps"], "There is no file pumps; the shipped data of that name: --dataset pumps"),
        (["--data", "x.csv", "--dataset", "pumps"], "either --data or --dataset"),
        (["--dataset", "pmps"], "Did you mean 'pumps'"),
        (["--columns", "observed=deaths"], "name it by --data"),
        (["--label", "who"], "name it by --data"),
        (["--data", "x.csv", "--label", "hospitall"], "x.csv has no column 'hospitall'"),
        (["x.csv"], "'x.csv' was not expected: a file is given by --data"),
        (["--data", "x.csv", "--reader", "hrpp"], "Did you mean 'hrrp'"),
        (["--prior", "cv=HalfNorml(sigma=1)"], "Did you mean 'HalfNormal'"),
        (["--prior", "cv"], "expected NAME=VALUE"),
        (["--prior", "vc=HalfNormal(sigma=1)"], "Did you mean 'cv'"),
        (["--prior", "cv=HalfNormal(sigma=-1)"], "is not a distribution"),
        (["--option", "gene=MAML1"], "Unknown option of hospital_readmission 'gene'"),
        (["--pooling", "partal"], 'Did you mean "partial"'),
        (["--draws", "0"], "Must be >= 1"),
        (["--drwas", "10"], "Did you mean --draws"),
        (["--out", "."], "exists: name another folder"),
        (["--out", "no/where"], "There is no folder"),
    ],
)
def test_what_cannot_be_used_is_one_sentence_and_exit_code_2(capsys, tmp_path, monkeypatch, arguments, said):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "x.csv").write_text("hospital,observed,expected\nA,1,1\nB,2,2\n")
    assert compare(*arguments) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert said in err
    assert len(err.strip().splitlines()) == 1


@pytest.mark.parametrize(
    ("network", "said"),
    [
        ("A -> B -> C", "one arrow"),
        ("A <-> D; D -> C", "'species', row 0.*'B'.*A, D, C"),
        ("A -> B; B -> C : mm(V)", "mm"),
    ],
)
def test_a_network_is_an_option_and_read_as_chemists_write_it(capsys, tmp_path, network, said):
    """What is wrong with it is said before anything is fitted."""
    rows = "module,time,species,value\n" + "".join(f"m{j},{t},B,0.{t}\n" for j in (1, 2) for t in (1, 2, 3))
    (tmp_path / "x.csv").write_text(rows)
    given = ["--data", str(tmp_path / "x.csv"), "--option", f"network={network}"]
    assert main(["compare", "reaction_networks", *given]) == 2
    assert re.search(said, capsys.readouterr().err)


def test_an_unknown_model_names_the_nearest(capsys):
    assert main(["compare", "hospital_readmision"]) == 2
    assert 'Did you mean "hospital_readmission"' in capsys.readouterr().err


def test_a_contradicted_prior_speaks_the_owner_s_names(capsys, tmp_path):
    (tmp_path / "f.csv").write_text("hospital,observed,exp\nA,1,1000\nB,2,2000\nC,3,3000\n")
    assert compare("--data", tmp_path / "f.csv", "--columns", "expected=exp") == 2
    assert "Rescale 'exp'" in capsys.readouterr().err


def test_a_failed_check_writes_its_report_and_exits_with_1(capsys, tmp_path):
    HOSPITALS.to_csv(tmp_path / "f.csv", index=False)
    sizes = ["--draws", 20, "--tune", 20, "--chains", 2, "--engine", "nuts", "--pooling", "complete"]
    assert compare("--data", tmp_path / "f.csv", *sizes, "--out", tmp_path / "report") == 1
    assert capsys.readouterr().out.startswith("Failed")
    assert "Do not rely on this report" in (tmp_path / "report" / "report.html").read_text(encoding="utf-8")
    assert "Do not rely on this report" in (tmp_path / "report" / "report.md").read_text(encoding="utf-8")


def test_a_fit_that_breaks_off_is_reported_with_the_others(capsys, tmp_path, monkeypatch):
    fit = hz.fit

    def broken(model, frame, pooling, **how):
        if pooling == "partial":
            raise RuntimeError("the sampler lost its way\nand more")
        return fit(model, frame, pooling, **how)

    monkeypatch.setattr(hz, "fit", broken)
    HOSPITALS.to_csv(tmp_path / "f.csv", index=False)
    both = ["--pooling", "none", "--pooling", "partial"]
    assert compare("--data", tmp_path / "f.csv", *both, "--out", tmp_path / "report") == 1
    text = (tmp_path / "report" / "report.html").read_text(encoding="utf-8")
    assert "The fit of partial pooling broke off: RuntimeError: the sampler lost its way" in text
    assert compare("--data", tmp_path / "f.csv", "--pooling", "partial") == 1
    assert "the sampler lost its way" in capsys.readouterr().err


@pytest.mark.parametrize(("error", "code"), [(KeyboardInterrupt(), 130), (ZeroDivisionError("oops"), 1)])
def test_no_traceback_reaches_the_terminal(capsys, tmp_path, monkeypatch, error, code):
    from hbm_zoo.reporting import report

    def fails(*_, **__):
        raise error

    monkeypatch.setattr(report, "write", fails)
    arguments = ["--dataset", "three_hospitals", "--pooling", "none", "--out", tmp_path / "report"]
    assert compare(*arguments) == code
    assert "Traceback" not in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(type(error)) if code == 1 else pytest.MonkeyPatch.context():
        compare(*arguments, "--debug")


def test_the_official_file_is_read_and_its_notes_are_printed(capsys, tmp_path):
    header = (
        "Facility Name,Facility ID,Measure Name,Number of Discharges,Expected Readmission Rate,Number of Readmissions"
    )
    rows = [f"H{i},{i:06d},READM-30-{m}-HRRP,{400 + i},20.5,{70 + i}" for i in range(4) for m in ("HF", "AMI")]
    (tmp_path / "hrrp.csv").write_text("\n".join([header, *rows]))
    given = ["--data", tmp_path / "hrrp.csv", "--reader", "hrrp"]
    assert compare(*given) == 2
    assert "READM-30-AMI-HRRP, READM-30-HF-HRRP" in capsys.readouterr().err
    report = ["--pooling", "none", "--out", tmp_path / "report"]
    assert compare(*given, "--option", "measure=HF", *report) == 0
    assert "a Poisson overstates the variance" in " ".join(capsys.readouterr().out.split())
    assert pd.read_csv(tmp_path / "report" / "groups.csv", dtype=str)["hospital"].iloc[0] == "000000 H0"


def test_names_are_text_and_not_markup(capsys, tmp_path):
    (tmp_path / "f.csv").write_text("hospital,observed,expected\nA [/x],1,2\nB [red]z[/red],2,3\nC :smile:,4,3\n")
    assert compare("--data", tmp_path / "f.csv", "--pooling", "partial") == 0
    out = capsys.readouterr().out
    assert all(name in out for name in ("A [/x]", "B [red]z[/red]", "C :smile:"))


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--tune", "1.5"], "expected a whole number, got '1.5'"),
        (["--draws", "10.6"], "expected a whole number, got '10.6'"),
        (["--threshold", "nan"], "expected a finite number, got 'nan'"),
        (["--option", "draws=10"], "Unknown option of hospital_readmission 'draws'"),
        (["--data", "."], "is a folder"),
    ],
)
def test_numbers_are_not_rounded_and_options_not_guessed(capsys, arguments, said):
    assert compare(*arguments) == 2
    assert said in " ".join(capsys.readouterr().err.split())


OPTIONS = [
    (name, option)
    for name, module in hz.MODELS.items()
    for option in (*module.MODEL.options, *(["measure"] if name == "hospital_readmission" else []))
]


@pytest.mark.parametrize(("model", "option"), OPTIONS)
def test_an_option_is_said_as_it_is_given_here(capsys, monkeypatch, model, option):
    """Each option that a record or a reader has, as the library would name it to a caller from Python."""

    def refuse(*given, **how):
        raise ValueError(f"Fit with {option}='a b', {option}=3.5 or other={option!r}.")

    monkeypatch.setattr(hz, "fit", refuse)
    assert compare(model=model) == 2
    said = " ".join(capsys.readouterr().err.split())
    assert said.endswith(f"Fit with --option {option}=a b, --option {option}=3.5 or other='{option}'.")


def test_what_is_said_as_given_here_is_left_as_it_is(capsys, tmp_path):
    (tmp_path / "cells.csv").write_text("tissue,expression\nA,1\nB,2\n")
    assert compare("--data", tmp_path / "cells.csv", "--columns", "gene=symbol", model="tissue_expression") == 2
    assert "--columns gene=symbol: cells.csv has no column 'symbol'" in " ".join(capsys.readouterr().err.split())


def test_an_interrupt_that_the_sampler_takes_for_itself_still_counts(capsys, tmp_path, monkeypatch):
    """The sampler returns what it has; nothing is said of it, and nothing written."""
    fit = hz.fit

    def interrupted(*given, **how):
        try:
            signal.raise_signal(signal.SIGINT)
        except KeyboardInterrupt:
            return fit(*given, **how)

    monkeypatch.setattr(hz, "fit", interrupted)
    assert compare("--pooling", "none", "--out", tmp_path / "report") == 130
    assert not (tmp_path / "report").exists()
    assert capsys.readouterr().out == ""


def test_a_threshold_is_answered(capsys):
    assert compare("--dataset", "three_hospitals", "--pooling", "none", "--threshold", 1.1) == 0
    assert re.search(r"P\(lam > 1.1\) exceeds 0.9 for \d of 3\s+hospitals", capsys.readouterr().out)


@pytest.mark.long
def test_moderators_are_asked_for_by_column_and_said_in_the_data_and_the_answer(tmp_path, capsys):
    trials = hz.load_data("bcg_vaccine").assign(latitude=lambda f: f["latitude"].astype(str) + ".0")
    trials.rename(columns={"clinic": "trial"}).to_csv(tmp_path / "trials.csv", index=False)
    line = ["compare", "vaccine_clinics", "--data", str(tmp_path / "trials.csv"), "--columns", "clinic=trial"]
    line += ["--moderator", "latitude", "--seed", "1", "--draws", "200"]
    assert main(line) == 0
    out = " ".join(capsys.readouterr().out.split())
    assert "moderators = latitude" in out
    assert "the model does not use column 'allocation'" in out  # and says nothing of latitude
    assert "theta_j | mu, beta, tau ~ N(mu + x_j beta, tau^2)" in out
    assert "Moderators what they leave: tau 0.3" in out
    assert re.search(r"share of variance explained: R2 0\.[56]\d+ \(.*\), a priori 0\.[45]", out)
    assert main([*line, "--moderator", "lattitude"]) == 2
    assert "Did you mean 'latitude'?" in capsys.readouterr().err


READ = {
    "escalc": ("study,yi,vi\nA,0.1,0.04\nB,-0.3,0.05\n", ["--option", "label=study"], []),
    "counts": (
        "clinic,events_treated,total_treated,events_control,total_control\nA,0,40,10,44\nB,5,50,9,52\n",
        [],
        ["from_counts added 0.5 to the four cells of 1 of 2 trials (A)"],
    ),
}


@pytest.mark.parametrize("reader", READ)
def test_a_reader_of_trials_reads_a_file_of_text_and_says_what_it_did(capsys, tmp_path, reader):
    text, options, notes = READ[reader]
    (tmp_path / "trials.csv").write_text(text)
    given = ["--data", tmp_path / "trials.csv", "--reader", reader, *options, "--pooling", "none", "--draws", 50]
    assert compare(*given, "--quiet", model="vaccine_clinics") == 0
    out = " ".join(capsys.readouterr().out.split())
    assert out.startswith("Note" if notes else "Verdict")
    assert all(note in out for note in notes)


def test_what_a_model_says_of_the_data_is_a_note(capsys):
    """In Python a warning; warnings are silent here."""
    given = ["--dataset", "sleepstudy", "--option", "center=2000", "--pooling", "none", "--draws", 50, "--quiet"]
    compare(*given, model="reaction_norms")
    assert "The center 2000 lies 221 times the range" in " ".join(capsys.readouterr().out.split())


def test_a_pedigree_and_fixed_effects_come_from_the_command_line(tmp_path, capsys):
    frame, _ = hz.variance_components.simulate(np.random.default_rng(3), sites=2, sires=(3, 4), offspring=(2, 3))
    sires = pd.DataFrame({"animal": frame["sire"].unique(), "sire": ""})
    young = frame.assign(animal=[f"a{i}" for i in range(len(frame))], block=np.arange(len(frame)) % 2)
    pd.concat([sires, young[["animal", "sire"]]]).assign(dam="").to_csv(tmp_path / "pedigree.csv", index=False)
    young[["site", "animal", "response", "block"]].to_csv(tmp_path / "rows.csv", index=False)
    line = ["compare", "variance_components", "--data", str(tmp_path / "rows.csv"), "--pooling", "complete", "--draws"]
    line += ["100", "--seed", "1", "--option", f"pedigree={tmp_path / 'pedigree.csv'}"]
    assert main([*line, "--option", "fixed_effects=block (factor)"]) == 0
    assert "does not use" not in capsys.readouterr().out
