import dataclasses
import pickle
import subprocess
import sys
import time
from concurrent.futures import Executor, Future

import numpy as np
import pandas as pd
import pytest
from arviz_base import rc_context

import hbm_zoo as hz
from hbm_zoo.frames.rules import FrameError
from hbm_zoo.inference.convergence import ConvergenceWarning
from hbm_zoo.inference.many import FailedUnitsWarning
from hbm_zoo.workers.run import PiecesFailed

QUIET = {"random_seed": 1, "progressbar": False}


@pytest.fixture(scope="module")
def hospitals():
    """Five years of three hospitals each."""
    frame = hz.load_data("three_hospitals")
    return {f"year {i}": frame.assign(observed=frame["observed"] + i) for i in range(5)}


def fitted(frames, **how):
    return hz.fit_many("hospital_readmission", frames, **{"pooling": "none"} | QUIET | how)


def same(fit, other):
    """To the bit, but for the hour, which groups that ArviZ makes note in their attrs."""
    return fit.equals(other) and fit.attrs == other.attrs


def all_same(fits, others):
    assert list(fits) == list(others)
    return all(same(fits[name], others[name]) for name in fits)


def test_a_unit_is_fitted_as_if_it_were_alone(hospitals):
    fits, few = fitted(hospitals), fitted({name: hospitals[name] for name in ["year 3", "year 1"]})
    assert list(fits) == list(hospitals)
    assert all(same(fits[name], few[name]) for name in few)
    alone = hz.fit("hospital_readmission", hospitals["year 1"], "none", random_seed=fits["year 1"].attrs["seed"])
    assert fits["year 1"].equals(alone)
    assert len({fit.attrs["seed"] for fit in fits.values()}) == 5


def test_one_frame_is_split_by_a_column(hospitals):
    frame = pd.concat([frame.assign(year=i) for i, frame in enumerate(hospitals.values())], ignore_index=True)
    fits = fitted(frame.sample(frac=1, random_state=1).sort_values("hospital", kind="stable"), by="year")
    assert set(fits) == {"0", "1", "2", "3", "4"}
    for i, name in enumerate(hospitals):
        own = fitted({str(i): hospitals[name].sort_values("hospital")})[str(i)]
        assert same(fits[str(i)], own)


@pytest.mark.long
def test_workers_and_folders_change_no_bit(hospitals, tmp_path):
    few = dict(list(hospitals.items())[:3])
    alone = fitted(few)
    recorded = fitted(few, workers=2, folder=tmp_path)
    assert all_same(recorded, alone)
    assert all_same(fitted(dict(reversed(few.items()))), {name: alone[name] for name in reversed(few)})
    assert hz.units(recorded).equals(hz.units(alone))


def test_a_unit_whose_data_are_refused_is_named_and_stops_no_other(hospitals):
    frames = hospitals | {"year 2": hospitals["year 2"].assign(expected=-1.0)}
    with pytest.warns(
        FailedUnitsWarning, match="1 of 5 units have no fit: year 2. The first, year 2: .*expected a fin"
    ):
        fits = fitted(frames)
    assert list(fits) == ["year 0", "year 1", "year 3", "year 4"]
    assert isinstance(fits.failed["year 2"], FrameError)
    table = hz.units(fits)
    assert table["passed"].tolist() == [True] * 4 + [False]
    assert "above 0" in table.loc["year 2", "verdict"]
    with pytest.raises(PiecesFailed, match="1 of 1 unit failed: year 2"):
        fitted({"year 2": frames["year 2"]})


def test_draws_that_cannot_be_trusted_are_said_once_by_unit(hospitals):
    few = {name: hospitals[name] for name in ["year 0", "year 1"]}
    with pytest.warns(ConvergenceWarning, match="2 of 2 units warned: year 0, year 1. The first, year 0: ") as heard:
        fits = fitted(few, pooling="complete", engine="nuts", draws=20, tune=50, chains=2)
    assert len(heard) == 1
    table = hz.units(fits)
    assert not table["passed"].any()
    assert table["verdict"].str.contains("effective draws").all()
    name = hz.hospital_readmission.MODEL.location
    for unit, fit in fits.items():
        assert table.loc[unit, name] == fit["posterior"][name].mean()
        assert table.loc[unit, f"{name}_eti89_lb"] == fit["posterior"][name].quantile(0.055)


@pytest.mark.slow
def test_fits_of_many_units_go_on_after_a_kill(hospitals, tmp_path):
    done = tmp_path / "done"
    code = (
        "import hbm_zoo as hz\n"
        "frame = hz.load_data('three_hospitals')\n"
        "frames = {f'year {i}': frame.assign(observed=frame['observed'] + i) for i in range(5)}\n"
        "hz.fit_many('hospital_readmission', frames, pooling='none', random_seed=1, progressbar=False, "
        f"folder={str(done)!r})"
    )
    process = subprocess.Popen([sys.executable, "-c", code])
    while len(files := list(done.glob("*.nc"))) < 2:
        assert process.poll() is None
        time.sleep(0.002)
    process.kill()
    process.wait()
    files = {path: path.stat().st_mtime_ns for path in done.glob("*.nc")}
    assert 2 <= len(files) < 5
    fits = fitted(hospitals, folder=done)
    assert all_same(fits, fitted(hospitals))
    assert {path: path.stat().st_mtime_ns for path in files} == files


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::hbm_zoo.inference.convergence.ConvergenceWarning")
def test_sampled_fits_are_the_same_whoever_makes_them_and_in_whatever_order(hospitals):
    few = {name: hospitals[name] for name in ["year 0", "year 2", "year 4"]}
    how = {"pooling": "partial", "draws": 500, "tune": 500}
    alone = fitted(dict(reversed(few.items())), **how)
    fits = fitted(few, workers=2, **how)
    assert all(same(fits[name], alone[name]) for name in few)


@pytest.mark.parametrize(
    ("wrong", "error", "sentence"),
    [
        ({"frames": 3}, FrameError, "expected a DataFrame or a mapping of them, got int"),
        ({"by": None}, ValueError, "One frame holds many units only by a column"),
        ({"by": "hopital"}, ValueError, "Did you mean 'hospital'"),
        ({"frames": {"a": 1}}, ValueError, "got both"),
        ({"by": None, "frames": {1: 1, "1": 2}}, ValueError, "units by different names, got 1, '1'"),
        ({"frame": 3}, ValueError, "Unknown option of hospital_readmission 'frame'"),
        ({"draw": 3}, ValueError, "Did you mean 'draws'"),
        ({"pooling": "partly"}, ValueError, "Unknown pooling 'partly'"),
        ({"folder": "x", "random_seed": None}, ValueError, "give random_seed as well"),
        ({"random_seed": -1}, ValueError, "random_seed must be a whole number"),
        ({"draws": 0}, ValueError, "draws must be a whole number, 1 or more, got 0"),
        ({"engine": "independent", "tune": 5}, ValueError, "tune: a setting of NUTS"),
    ],
)
def test_what_is_wrong_for_all_is_said_at_once(wrong, error, sentence):
    given = {"model": "hospital_readmission", "frames": hz.load_data("three_hospitals"), "by": "hospital"}
    with pytest.raises(error, match=sentence):
        hz.fit_many(**given | QUIET | wrong)


def test_a_record_of_the_zoo_travels_by_its_name_and_another_once_by_value():
    record = hz.spike_slab_genes.MODEL.under(null="empirical")
    assert pickle.loads(pickle.dumps(record)) is record
    own = dataclasses.replace(hz.hospital_readmission.MODEL, name="own", own=lambda data: data)
    travelled = pickle.dumps(own)
    assert pickle.loads(travelled) is pickle.loads(travelled)
    assert pickle.loads(travelled).name == "own"


class Elsewhere(Executor):
    """A worker that has ArviZ's own settings, as a new process has."""

    def submit(self, task, *given):
        """Done at once."""
        future = Future()
        with rc_context({"stats.ci_prob": 0.89}):
            future.set_result(task(*given))
        return future


def test_intervals_are_those_the_caller_asked_for_whoever_fits(hospitals):
    with rc_context({"stats.ci_prob": 0.5}):
        same_pooling = {"pooling": "complete", "draws": 100}
        here, there = fitted(hospitals, **same_pooling), fitted(hospitals, executor=Elsewhere(), **same_pooling)
    assert all_same(here, there)
    assert "eti50_lb" in here["year 0"]["group_summary"]
    assert {column for column in hz.units(there) if column.startswith("mu_eti")} == {"mu_eti50_lb", "mu_eti50_ub"}


def test_a_unit_of_one_group_is_told_by_that_group_and_not_by_its_prior():
    frame, _ = hz.variance_components.simulate(np.random.default_rng(3), sites=2, sires=(3, 4), offspring=(2, 3))
    same = {"pooling": "none", "random_seed": 1, "progressbar": False, "draws": 50}
    fits = hz.fit_many("variance_components", frame, by="site", **same)
    table = hz.units(fits)
    assert not {"mu", "tau"} & set(table)
    summary = fits["S01"]["group_summary"]
    told = table.loc["S01", ["sigma_A", "sigma_A_eti89_lb", "sigma_A_eti89_ub"]].tolist()
    assert told == [summary[name].item() for name in ("mean", "eti89_lb", "eti89_ub")]
