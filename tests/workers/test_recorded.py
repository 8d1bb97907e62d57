import json
from dataclasses import replace
from datetime import datetime
from math import nan
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import xarray as xr
from pymc_extras.prior import Prior

import hbm_zoo as hz
from hbm_zoo.models.vaccine_clinics import MODEL
from hbm_zoo.workers import recorded
from hbm_zoo.workers.recorded import MANIFEST, fingerprint, opened
from hbm_zoo.workers.run import run

FRAME = pd.DataFrame({"clinic": ["a", "b"], "y": [1.0, nan]})
PIECES = {"a": {"seed": 1}, "b": {"seed": 2}}


def task(piece):
    """Not called here."""


def other_task(piece):
    """Not called here."""


@pytest.mark.parametrize(
    "values",
    [
        [FRAME, FRAME.assign(y=2.0), FRAME.rename(columns={"y": "z"}), FRAME.set_axis([1, 2]), FRAME.iloc[::-1]],
        [FRAME["y"].to_numpy(), np.zeros(2), np.zeros((2, 1)), np.zeros(2, int)],
        [xr.Dataset({"y": ("row", [1.0])}), xr.Dataset({"y": ("row", [2.0])}), xr.Dataset({"y": ("col", [1.0])})],
        [1, 1.0, True, "1", b"1", None, [1], {"1": 1}, {1: "1"}],
        [["a", "b"], ["ab"], ["a", ["b"]]],
        [Prior("Normal", mu=0, sigma=1), Prior("Normal", mu=0, sigma=2)],
        [model := hz.spike_slab_genes.MODEL, model.under(null="empirical"), hz.MODELS["success_rates"].MODEL],
        [task, other_task],
    ],
)
def test_other_values_have_other_fingerprints(values):
    assert len({fingerprint(value) for value in values}) == len(values)


def test_equal_frames_have_one_fingerprint_and_notes_count():
    assert fingerprint(FRAME.copy()) == fingerprint(FRAME)
    noted = FRAME.copy()
    noted.attrs["source"] = "a file"
    assert fingerprint(noted) != fingerprint(FRAME)


def test_what_a_caller_has_made_is_known_by_all_that_it_is_made_of():
    """One's own record under the name of another, and functions that no module has under their names."""
    level = replace(MODEL.group_level, conditional=lambda h, data: None)
    own = replace(MODEL, group_level=level)
    assert fingerprint(own) == fingerprint(replace(MODEL, group_level=level)) != fingerprint(MODEL)
    assert fingerprint(lambda x: x) != fingerprint(lambda x: 2 * x)
    assert fingerprint(times(2)) == fingerprint(times(2)) != fingerprint(times(3))
    assert fingerprint(times) == fingerprint(times)


def test_a_fit_is_known_after_it_was_read(tmp_path):
    """NetCDF makes a number of a row of one, and an array of an empty row."""
    draws = xr.Dataset({"mu": ("draw", [0.5, 0.25]), "told": ("draw", [True, False])}, attrs={"rows": [], "one": ["a"]})
    tree = xr.DataTree.from_dict({"posterior": draws})
    tree.attrs |= {"seed": 1, "worth": 0.5, "why": ""}
    tree.to_netcdf(tmp_path / "fit.nc")
    with xr.open_datatree(tmp_path / "fit.nc") as file:
        read = file.load()
    assert fingerprint(read) == fingerprint(tree)
    seed, row, value = tree.copy(), tree.copy(), tree.copy()
    seed.attrs["seed"] = 2
    row["posterior"].attrs["one"] = "b"
    value["posterior"]["mu"] = value["posterior"]["mu"] + 1
    assert len({fingerprint(one) for one in (tree, seed, row, value)}) == 4


def test_a_frame_may_hold_what_the_work_does_not_use(tmp_path):
    """A caller's attributes, and cells that have no hash."""
    frame = FRAME.assign(lists=[[i] for i in range(len(FRAME))])
    frame.attrs = {"when": datetime(2020, 1, 1), "where": Path("here")}
    other = frame.assign(lists=[[i + 1] for i in range(len(FRAME))])
    assert fingerprint(frame) == fingerprint(frame.copy()) != fingerprint(other)
    given = {"pooling": "none", "random_seed": 1, "progressbar": False, "folder": tmp_path}
    units = {"a": hz.load_data("three_hospitals").assign(extra=[[1], [2], [3]])}
    units["a"].attrs["when"] = datetime(2020, 1, 1)
    assert list(hz.fit_many("hospital_readmission", units, **given)) == ["a"]


def times(factor):
    """A function that holds a number."""
    return lambda x: factor * x


def test_what_has_no_fingerprint_is_said():
    with pytest.raises(TypeError, match="Expected frames, arrays, .*, got object"):
        fingerprint([object()])


@pytest.mark.parametrize(
    ("work", "sentence"),
    [
        ((other_task, PIECES), "holds other work, of another task: name another folder"),
    ],
)
def test_a_folder_of_other_work_is_refused(tmp_path, work, sentence):
    opened(tmp_path / "done", task, PIECES)
    opened(tmp_path / "done", task, PIECES)
    with pytest.raises(ValueError, match=sentence):
        opened(tmp_path / "done", *work)


def test_a_folder_begun_with_another_version_is_refused(tmp_path):
    opened(tmp_path, task, PIECES)
    work = json.loads((tmp_path / MANIFEST).read_text())
    work["versions"]["numpy"] = "1.0"
    (tmp_path / MANIFEST).write_text(json.dumps(work))
    with pytest.raises(ValueError, match="of numpy 1.0, not"):
        opened(tmp_path, task, PIECES)


def test_a_folder_of_something_else_is_refused(tmp_path):
    (tmp_path / "letter.txt").touch()
    with pytest.raises(ValueError, match="holds files but no work.json: name an empty folder"):
        opened(tmp_path, task, PIECES)


def test_names_of_any_kind_have_files_of_their_own(tmp_path):
    names = ["A", "a", "a/b", "a b", "../a", "é", "x" * 300, ""]
    folder = opened(tmp_path, task, dict.fromkeys(names))
    for name in names:
        folder.write(name, name.encode())
    assert len({path.name.lower() for path in tmp_path.iterdir()}) == len(names) + 1
    assert all(folder.files[name].read_bytes().startswith(name.encode()) for name in names)


def test_a_write_that_is_cut_off_leaves_the_earlier_file(tmp_path, monkeypatch):
    path = tmp_path / "a"
    recorded.write_whole(path, b"before")
    monkeypatch.setattr(recorded.os, "fsync", lambda _: (_ for _ in ()).throw(OSError("disk full")))
    with pytest.raises(OSError, match="disk full"):
        recorded.write_whole(path, b"after")
    assert path.read_bytes() == b"before"


def test_a_file_of_another_piece_never_counts(tasks, log, tmp_path):
    made = run(tasks.tree, tasks.pieces(log), folder=tmp_path / "done", progressbar=False)["p0"]
    first, second = sorted((tmp_path / "done").glob("*.nc"))[:2]
    first.write_bytes(second.read_bytes())
    with pytest.raises(ValueError, match="holds other work: 'p0' was done with other data, settings or seed"):
        run(tasks.tree, tasks.pieces(log), folder=tmp_path / "done", progressbar=False)
    first.unlink()
    again = run(tasks.tree, tasks.pieces(log), folder=tmp_path / "done", progressbar=False)
    assert again["p0"].identical(made)
    first.unlink()
    with pytest.raises(ValueError, match="is gone, or is not what was recorded of 'p0': run the work again"):
        again["p0"]


def test_one_bit_that_changed_inside_a_file_is_seen_and_the_piece_done_again(tasks, log, tmp_path):
    made = run(tasks.tree, tasks.pieces(log), folder=tmp_path / "done", progressbar=False)["p0"]
    first = sorted((tmp_path / "done").glob("*.nc"))[0]
    whole = first.read_bytes()
    assert xr.load_datatree(first).attrs  # anybody opens it
    for place in (len(whole) // 3, len(whole) // 2, len(whole) - 40):
        damaged = bytearray(whole)
        damaged[place] ^= 1
        first.write_bytes(damaged)
        again = run(tasks.tree, tasks.pieces(log), folder=tmp_path / "done", progressbar=False)
        assert again["p0"].identical(made)
        assert first.read_bytes() != bytes(damaged)


@pytest.mark.parametrize("torn", ["", "{", "[]", "{}"])
def test_a_damaged_manifest_is_said(tmp_path, torn):
    (tmp_path / MANIFEST).write_text(torn)
    with pytest.raises(ValueError, match="is damaged, so that nobody knows whose the files beside it are"):
        opened(tmp_path, fingerprint, PIECES)
