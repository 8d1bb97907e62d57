"""A report is whole, self-contained, and says what its figures mean."""

import io
import json
import re
from dataclasses import replace

import arviz as az
import numpy as np
import pandas as pd
import pytest
import xarray as xr
from rich.console import Console

import hbm_zoo as hz
from hbm_zoo.command_line.terminal import _shrinkage
from hbm_zoo.reporting.findings import findings
from hbm_zoo.reporting.folder import check_target, whole
from hbm_zoo.reporting.formatting import aligned, number
from hbm_zoo.reporting.report import write
from hbm_zoo.reporting.tables import groups as groups_table

OBSERVED, EXPECTED = [6, 2, 48, 11, 0, 25], [4.0, 4.0, 40.0, 14.0, 1.5, 20.5]


@pytest.fixture(scope="module")
def fits():
    frame = pd.DataFrame(
        {"hospital": ["A & <b>B</b>", "2", "3", "4", "5", "6"], "observed": OBSERVED, "expected": EXPECTED}
    )
    frame.attrs = {
        "source": "wards.csv",
        "labels": {"hospital": "ward", "observed": "falls", "expected": "falls_expected"},
        "notes": ["Line 8 of wards.csv was left out."],
    }
    return hz.fit_poolings("hospital_readmission", frame, random_seed=3, progressbar=False)


@pytest.fixture(scope="module")
def found(fits):
    return findings(fits, threshold=1.25)


@pytest.fixture(scope="module")
def folder(found, tmp_path_factory):
    return write(found, check_target(tmp_path_factory.mktemp("reports") / "report"))


@pytest.fixture(scope="module")
def page(folder):
    return (folder / "report.html").read_text(encoding="utf-8")


def test_the_folder_is_complete(folder):
    assert {p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file()} == {
        "report.html",
        "report.md",
        "comparison.csv",
        "groups.csv",
        "model_checks.csv",
        "calibration.png",
        "poolings.png",
        "shrinkage.png",
        "funnel.png",
        "ranks.png",
        "fits/none.nc",
        "fits/complete.nc",
        "fits/partial.nc",
    }
    assert not [p for p in folder.parent.iterdir() if p != folder]


def test_what_the_checks_say_is_in_the_report(found, page, folder):
    table = pd.read_csv(folder / "model_checks.csv")
    assert table[["check", "pooling"]].to_numpy().tolist() == [list(row) for row in found.fit_to_data.index]
    section = page[page.index("Does the model fit the data?") : page.index("Every ward")]
    for check in ("outlying", "asymmetry", "zeros", "spread"):
        assert f">{check}<" in section
    assert "Where each ward, and each of its rows if there are several, lies among what all others expect" in section
    assert "Does the model fit the data?" in (folder / "report.md").read_text()


def test_no_address_outside(page):
    text = re.sub(r'src="data:image/png;base64,[^"]*"', "", page)
    for address in ("http", "//", "src=", "url(", "@import", "<link"):
        assert address not in text


def test_the_box_answers_the_question_first(found, page, folder):
    (sentence,) = found.standing_out
    chance = found.groups["p_above_1.25"]
    assert sentence == f"P(lam > 1.25) exceeds 0.9 for {(chance > 0.9).sum()} of 6 wards" + (
        ": " + ", ".join(f"{name} ({p:.2f})" for name, p in chance[chance > 0.9].sort_values(ascending=False).items())
        if (chance > 0.9).any()
        else ""
    )
    box = page[page.index("What the data say") :]
    assert box.index("P(lam &gt; 1.25)") < box.index("Every fit can be trusted")
    assert "**P(lam > 1.25)" in (folder / "report.md").read_text(encoding="utf-8")


def test_without_a_threshold_both_sides_of_the_reference_are_named(fits):
    without = findings(fits)
    several = pd.Series([0.99, 0.97, 0.05, 0.5, 0.4, 0.3], index=without.groups.index)
    both = replace(without, groups=without.groups.assign(p_above_1=several))
    wards = [str(label) for label in several.index]
    assert both.standing_out == [
        f"P(lam > 1) exceeds 0.9 for 2 of 6 wards: {wards[0]} (0.99), {wards[1]} (0.97)",
        f"P(lam < 1) exceeds 0.9 for 1 of 6 wards: {wards[2]} (0.95)",
    ]
    assert both.certain == set(several.index[:3])
    asked = replace(both, groups=both.groups.assign(**{"p_above_1.25": several}), threshold=1.25)
    assert asked.certain == set(several.index[:2])


@pytest.mark.long
def test_of_what_nearly_all_do_the_others_are_named_and_an_empty_side_is_not(fits):
    without = findings(fits)
    nearly = pd.Series([0.99, 0.97, 0.95, 0.92, 0.91, 0.3], index=without.groups.index)
    (said,) = replace(without, groups=without.groups.assign(p_above_1=nearly)).standing_out
    assert said == f"P(lam > 1) exceeds 0.9 for 5 of 6 wards, not for {nearly.index[5]} (0.30)"
    (said,) = replace(without, groups=without.groups.assign(p_above_1=0.5)).standing_out
    assert said == "P(lam > 1) exceeds 0.9 for 0 of 6 wards"


def test_what_is_left_out_of_a_long_table_is_counted_where_it_is_left_out(found):
    many = pd.concat([found.groups.assign(partial=found.groups["partial"] + k) for k in range(10)])
    table, said = groups_table(replace(found, groups=many))
    assert said == "The 20 largest and the 20 smallest; all 60 are in groups.csv."
    assert table.iloc[20].tolist() == [
        "… 20 between …".replace(" ", "\N{NO-BREAK SPACE}"),
        *[""] * (table.shape[1] - 1),
    ]
    assert len(table) == 41


def test_files_are_linked_and_pictures_described(page):
    assert re.findall(r'<a href="([^"]+)">', page) == ["model_checks.csv", "groups.csv", "comparison.csv"]
    described = re.findall(r'<img alt="([^"]*)"', page)
    assert len(described) == 5
    assert all(len(text) > 40 for text in described)


def test_pictures_are_inline(page, folder):
    assert len(re.findall(r'src="data:image/png;base64,', page)) == len(list(folder.glob("*.png")))


def test_what_must_be_stated(page, folder, fits):
    text = (folder / "report.md").read_text(encoding="utf-8")
    attributes = fits["partial"].attrs
    for stated in (attributes["data_hash"], str(attributes["seed"]), "wards.csv", "Line 8 of wards.csv was left out."):
        assert stated in page
        assert stated in text
    for name, version in json.loads(attributes["versions"]).items():
        assert f"{name} {version}" in page
    for stated in (
        "HalfNormal(sigma=1)",
        "no pooling: the prior of one ward, matched",
        "effective of 8000 proposals, one top found",
        "4 chains of 1000 draws, independent of one another",
        "Readmissions are rare, under noise=poisson",
    ):
        assert stated in page
        assert stated in text


def test_every_column_of_the_files_is_defined(page, folder):
    columns = [*pd.read_csv(folder / "comparison.csv").columns, *pd.read_csv(folder / "groups.csv").columns[1:]]
    assert [name for name in columns if not re.search(rf"<dt>{name}</dt><dd>[^<]+</dd>", page)] == []


def test_names_are_the_owner_s_and_escaped(page, folder):
    assert "A &amp; &lt;b&gt;B&lt;/b&gt;" in page
    assert "<b>B</b>" not in page
    assert "falls_expected" in page
    assert pd.read_csv(folder / "groups.csv").columns[:2].tolist() == ["ward", "falls_expected"]


def test_every_column_is_defined(page, folder):
    defined = set(re.findall(r"<dt>([^<]+)</dt><dd>[^<]+</dd>", page))
    comparison = set(pd.read_csv(folder / "comparison.csv").columns) - {"question"}
    groups = set(pd.read_csv(folder / "groups.csv").columns) - {"ward"}
    assert comparison | groups <= defined | {"note"}


def test_the_two_questions_are_kept_apart(folder):
    table = pd.read_csv(folder / "comparison.csv")
    assert table.groupby("question")["pooling"].nunique().to_dict() == {"new_group": 3, "new_observation": 3}


def test_numbers_are_those_of_the_tables(folder, fits):
    groups = pd.read_csv(folder / "groups.csv").set_index("ward")
    np.testing.assert_allclose(groups["own"], np.divide(OBSERVED, EXPECTED), rtol=1e-5)
    np.testing.assert_allclose(groups["partial"], fits["partial"]["group_summary"]["mean"], rtol=1e-5)
    assert "p_above_1.25" in groups


def test_whose_choice_a_prior_was():
    from pymc_extras.prior import Prior

    frame = hz.load_data("three_hospitals")
    same = {"pooling": "none", "random_seed": 1}
    wide = hz.fit("hospital_readmission", frame, priors={"cv": Prior("HalfNormal", sigma=2)}, **same)
    choice = findings({"none": wide}).priors["choice"].to_dict()
    assert choice == {"mu": "default", "cv": "the caller's", "lam": "default"}  # matched to the caller's cv
    own = hz.fit("hospital_readmission", frame, priors={"lam": Prior("Gamma", alpha=1, beta=1)}, **same)
    priors = findings({"none": own}).priors
    assert priors["choice"].to_dict() == {"mu": "default", "cv": "default", "lam": "the caller's"}
    assert priors.loc["lam", "between"] == "0.0513 to 3"


def test_fits_come_back(folder, fits):
    loaded = {name: xr.open_datatree(folder / "fits" / f"{name}.nc") for name in fits}
    xr.testing.assert_allclose(loaded["partial"]["posterior"].to_dataset(), fits["partial"]["posterior"].to_dataset())
    assert az.summary(loaded["partial"], var_names=["mu", "cv"]).shape[0] == 2


def test_pictures_speak_the_owner_s_names(fits):
    assert "falls_expected" in hz.plot_shrinkage(fits).axes[0].get_xlabel()
    assert hz.plot_poolings(fits).axes[0].get_ylabel() == "ward"
    assert hz.compare_poolings({"none": fits["none"]}).attrs["question"].startswith("a ward not seen")


def test_a_report_that_breaks_off_leaves_nothing(found, tmp_path, monkeypatch):
    monkeypatch.setattr(xr.DataTree, "to_netcdf", lambda *_, **__: (_ for _ in ()).throw(OSError("disk full")))
    with pytest.raises(OSError, match="disk full"):
        write(found, check_target(tmp_path / "report"))
    assert list(tmp_path.iterdir()) == []


def test_an_earlier_report_stays_if_the_new_one_breaks_off(tmp_path):
    earlier = tmp_path / "report"
    earlier.mkdir()
    (earlier / "report.html").write_text("earlier")

    def broken():
        with whole(check_target(earlier, overwrite=True)) as draft:
            (draft / "report.html").write_text("later")
            raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        broken()
    assert (earlier / "report.html").read_text() == "earlier"
    assert list(tmp_path.iterdir()) == [earlier]


def test_an_earlier_report_is_replaced_whole(tmp_path):
    earlier = tmp_path / "report"
    earlier.mkdir()
    (earlier / "report.html").write_text("earlier")
    (earlier / "groups.csv").write_text("old")
    with whole(check_target(earlier, overwrite=True)) as draft:
        (draft / "report.html").write_text("later")
    assert {p.name: p.read_text() for p in earlier.iterdir()} == {"report.html": "later"}
    assert list(tmp_path.iterdir()) == [earlier]


def test_what_lies_beside_an_earlier_report_is_never_deleted(tmp_path):
    for name in ("report.html", "groups.csv", "notes.txt"):
        (tmp_path / name).write_text("mine")
    with pytest.raises(FileExistsError, match="holds notes.txt beside an earlier report: move it"):
        check_target(tmp_path, overwrite=True)
    (tmp_path / "notes.txt").unlink()
    assert check_target(tmp_path, overwrite=True) == tmp_path.resolve()


@pytest.mark.parametrize("overwrite", [False, True])
def test_a_folder_of_something_else_is_never_touched(tmp_path, overwrite):
    (tmp_path / "thesis.tex").write_text("years of work")
    with pytest.raises(FileExistsError):
        check_target(tmp_path, overwrite)


def test_a_folder_that_takes_nothing_is_named_before_anything_is_fitted(tmp_path, monkeypatch):
    """Also where those who ask may write anywhere, by what the system says, but nothing can be made."""
    monkeypatch.setattr("tempfile.mkdtemp", lambda **where: open(tmp_path / "nowhere" / "file"))
    with pytest.raises(PermissionError, match="may not be written to"):
        check_target(tmp_path / "report")


def test_an_empty_folder_may_be_filled_and_a_missing_parent_is_named(tmp_path):
    assert check_target(tmp_path) == tmp_path
    with pytest.raises(FileNotFoundError, match="There is no folder"):
        check_target(tmp_path / "nowhere" / "report")


def test_exact_fits_of_one_pooling_make_a_report_too(fits, tmp_path):
    hz.report({"none": fits["none"]}, tmp_path / "report")
    text = (tmp_path / "report" / "report.html").read_text(encoding="utf-8")
    assert "under no, complete and partial pooling" in text
    assert 'alt="Shrinkage"' not in text


@pytest.mark.parametrize(
    ("value", "text"),
    [(0.0, "0"), (0.004567, "0.00457"), (12345.6, "12346"), (3, "3"), (None, "–"), (1e-9, "1.00e-09")],
)
def test_numbers_have_three_significant_digits(value, text):
    assert number(value) == text


def test_a_column_is_aligned():
    assert aligned(pd.Series([120.0, 3.25, np.nan])).tolist() == ["120.0", "3.2", "–"]


@pytest.mark.long
def test_a_model_with_a_null_group_reports_its_discoveries(tmp_path, monkeypatch):
    for name in ("LEAST", "MOST_A_CHECK"):  # of the checks no alarm is asked for
        monkeypatch.setattr(f"hbm_zoo.diagnostics.replicas.{name}", 2)
    genes = hz.load_data("simulated_genes").iloc[600:800]
    fit = hz.fit("spike_slab_genes", genes, draws=250, random_seed=3, progressbar=False)
    folder = hz.report({"partial": fit}, tmp_path / "genes")
    listed, found = pd.read_csv(folder / "discoveries.csv"), hz.discoveries(fit)
    assert len(found)
    assert listed["gene"].tolist() == found.index.tolist()
    page = (folder / "report.html").read_text(encoding="utf-8")
    assert found.attrs["verdict"].partition(" (")[0] in page
    assert {"volcano.png", "local_fdr.png"} <= {path.name for path in folder.iterdir()}
    assert "P(theta != 0 | y) tau^2 / (tau^2 + s^2)" in page
    assert set(listed.columns[1:]) - {"effect", "standard_error", "mean"} <= {
        *re.findall(r"<dt>([^<]+)</dt>", page),
        *[c for c in listed if c.startswith("eti")],
    }


def test_groups_shrunken_alike_are_shown_by_how_far_they_move(found):
    """Equal weights are in no order; then the distance is."""
    part = pd.DataFrame(
        {"own": [1.0, 9.0, 3.0, 4.0, 5.0, 6.0], "partial": 4.0, "kappa": 0.5},
        index=pd.Index(list("abcdef"), name=found.group),
    )
    for kappa, head, first in ((part["kappa"], "From most to least moved", "b"), (part["own"], "shrunken", "a")):
        console = Console(file=io.StringIO(), width=80)
        _shrinkage(replace(found, groups=part.assign(kappa=kappa)), console)
        heading, top, *_ = console.file.getvalue().splitlines()
        assert head in heading
        assert top.split()[0] == first
