import os
import signal
import subprocess
import sys
import time
import warnings
from concurrent.futures import ThreadPoolExecutor

import pytest
from threadpoolctl import threadpool_info, threadpool_limits

from hbm_zoo.workers.recorded import Folder
from hbm_zoo.workers.run import PiecesFailed, run

ONCE = {f"p{i}": 1 for i in range(8)}


def same_to_the_bit(one, other):
    assert list(one) == list(other)
    return all(one[name].identical(other[name]) for name in one)


def by_this_process(task, tasks, log):
    """What this process makes of the pieces, in their order."""
    results = run(task, tasks.pieces(log), progressbar=False)
    for path in log.iterdir():
        path.unlink()
    return results


@pytest.fixture
def alone(tasks, log):
    return by_this_process(tasks.draw, tasks, log)


@pytest.fixture
def recorded_alone(tasks, log):
    return by_this_process(tasks.tree, tasks, log)


@pytest.mark.parametrize("workers", [2, 3])
def test_any_number_of_workers_gives_the_same_bits(tasks, log, alone, workers):
    last_first = {f"p{i}": {"seconds": 0.4 - 0.1 * i} for i in range(4)}
    results = run(tasks.draw, tasks.pieces(log, **last_first), workers=workers, progressbar=False)
    assert list(results.items()) == list(alone.items())
    assert tasks.ran(log) == ONCE


def test_threads_in_any_order_give_the_same_bits(tasks, log, alone):
    last_first = {f"p{i}": {"seconds": 0.4 - 0.05 * i} for i in range(8)}
    with ThreadPoolExecutor(4) as executor:
        results = run(tasks.draw, tasks.pieces(log, **last_first), executor, progressbar=False)
    assert list(results.items()) == list(alone.items())


def test_linear_algebra_has_one_thread_here_too_and_its_own_number_afterwards(tasks, log):
    with threadpool_limits(2):
        before = [library["num_threads"] for library in threadpool_info()]
        results = run(tasks.draw, tasks.pieces(log, n=1), progressbar=False)
        assert results["p0"]["threads"] == 1
        assert [library["num_threads"] for library in threadpool_info()][: len(before)] == before
        assert tasks.draw(tasks.pieces(log, n=1)["p0"])["threads"] == max(before) == 2


@pytest.mark.parametrize("workers", [1, 2])
def test_a_piece_that_fails_stops_no_other_and_is_named(tasks, log, workers):
    given = tasks.pieces(log, p1={"wrong": "no data"}, p3={"odd": True})
    with pytest.raises(PiecesFailed, match="2 of 8 pieces failed: p1, p3. The first, p1: no data") as caught:
        run(tasks.draw, given, workers=workers, progressbar=False)
    results = caught.value.results
    assert list(results) == ["p0", "p2", "p4", "p5", "p6", "p7"]
    assert str(results.failed["p3"]) == "Odd: no two alike"
    assert "tasks_for_workers.py" in results.failed["p1"].__notes__[0]
    with pytest.raises(KeyError, match="no data"):
        results["p1"]


def test_warnings_reach_the_caller_once_and_again_from_a_folder(tasks, log, tmp_path):
    given = tasks.pieces(log, p1={"warns": "few rows"}, p2={"warns": "no rows"})
    for _ in range(2):
        with pytest.warns(UserWarning, match="2 of 8 pieces warned: p1, p2. The first, p1: few rows") as heard:
            run(tasks.tree, given, folder=tmp_path / "done", progressbar=False)
        assert len(heard) == 1
    assert tasks.ran(log) == ONCE


def test_threads_leave_the_filters_of_warnings_as_they_were(tasks, log):
    before = list(warnings.filters)
    with ThreadPoolExecutor(3) as executor:
        run(tasks.draw, tasks.pieces(log), executor, progressbar=False)
    assert warnings.filters == before


def test_what_is_recorded_is_what_was_made(tasks, log, recorded_alone, tmp_path):
    for _ in range(2):
        recorded = run(tasks.tree, tasks.pieces(log), folder=tmp_path / "done", progressbar=False)
        assert same_to_the_bit(recorded, recorded_alone)
    assert tasks.ran(log) == ONCE


def test_what_is_recorded_is_read_only_when_it_is_asked_for(tasks, log, tmp_path, monkeypatch):
    run(tasks.tree, tasks.pieces(log), folder=tmp_path / "done", progressbar=False)
    read = []
    monkeypatch.setattr(Folder, "read", lambda self, name: read.append(name))
    results = run(tasks.tree, tasks.pieces(log), folder=tmp_path / "done", progressbar=False)
    assert "p3" in results
    assert len(results) == len(list(results)) == 8
    assert repr(results) == "<8 of 8 results: p0, p1, p2, p3, p4, p5, p6, p7>"
    assert read == []
    assert results["p3"] is None
    assert read == ["p3"]


def test_a_half_written_file_never_counts(tasks, log, recorded_alone, tmp_path):
    done = tmp_path / "done"
    run(tasks.tree, tasks.pieces(log), folder=done, progressbar=False)
    for i, part in [(2, ".123.part"), (5, ""), (6, "")]:
        (file,) = done.glob(f"p{i}-*.nc")
        half = file.read_bytes()[: 0 if i == 6 else file.stat().st_size // 2]
        file.unlink()
        file.with_name(file.name + part).write_bytes(half)
        os.utime(file.with_name(file.name + part), (0, 0))
    assert same_to_the_bit(run(tasks.tree, tasks.pieces(log), folder=done, progressbar=False), recorded_alone)
    assert tasks.ran(log) == ONCE | {"p2": 2, "p5": 2, "p6": 2}
    assert not list(done.glob("*.part"))


def test_a_piece_that_failed_may_be_mended_and_there_may_be_more(tasks, log, recorded_alone, tmp_path):
    given = tasks.pieces(log)
    few = {name: piece for name, piece in given.items() if name not in ("p0", "p7")}
    with pytest.raises(PiecesFailed, match="The first, p3: no data"):
        run(tasks.tree, few | {"p3": given["p3"] | {"wrong": "no data"}}, folder=tmp_path / "done", progressbar=False)
    assert same_to_the_bit(run(tasks.tree, given, folder=tmp_path / "done", progressbar=False), recorded_alone)
    assert tasks.ran(log) == ONCE | {"p3": 2}


def test_a_piece_that_is_done_may_not_change(tasks, log, tmp_path):
    given = tasks.pieces(log)
    run(tasks.tree, given, folder=tmp_path / "done", progressbar=False)
    other = given | {"p5": given["p5"] | {"seed": -1}}
    with pytest.raises(ValueError, match="holds other work: 'p5' was done with other data, settings or seed"):
        run(tasks.tree, other, folder=tmp_path / "done", progressbar=False)
    assert tasks.ran(log) == ONCE


def test_only_trees_are_recorded(tasks, log, tmp_path):
    with pytest.raises(PiecesFailed, match="Expected a DataTree to be recorded, the task returned dict"):
        run(tasks.draw, tasks.pieces(log), folder=tmp_path / "done", progressbar=False)


def test_an_interrupt_keeps_what_is_finished(tasks, log, recorded_alone, tmp_path):
    given = tasks.pieces(log, p3={"interrupted": 1})
    with pytest.raises(KeyboardInterrupt):
        run(tasks.tree, given, folder=tmp_path / "done", progressbar=False)
    assert tasks.ran(log) == {f"p{i}": 1 for i in range(4)}
    assert same_to_the_bit(run(tasks.tree, given, folder=tmp_path / "done", progressbar=False), recorded_alone)
    assert tasks.ran(log) == ONCE | {"p3": 2}


def started(tasks, log, done, workers):
    """Another process at work, as soon as it has recorded three pieces."""
    command = [sys.executable, tasks.__file__, str(done), str(log), str(workers)]
    process = subprocess.Popen(command, stderr=subprocess.DEVNULL)
    while len(list(done.glob("*.nc"))) < 3:
        assert process.poll() is None
        time.sleep(0.01)
    return process


def children(pid):
    listed = subprocess.run(["ps", "-o", "pid=", "--ppid", str(pid)], capture_output=True, text=True).stdout
    return [int(child) for child in listed.split()]


def is_gone(pid):
    status = subprocess.run(["ps", "-o", "stat=", "-p", str(pid)], capture_output=True, text=True).stdout.strip()
    return status in {"", "Z", "Zs"}


@pytest.mark.skipif(sys.platform == "win32", reason="signals")
@pytest.mark.parametrize("kind", [signal.SIGKILL, pytest.param(signal.SIGINT, marks=pytest.mark.slow)])
def test_a_run_that_was_killed_goes_on(tasks, log, recorded_alone, tmp_path, kind):
    done = tmp_path / "done"
    process = started(tasks, log, done, workers=2)
    servants = children(process.pid)
    assert len(servants) >= 2
    process.send_signal(kind)
    assert process.wait(timeout=30) != 0
    deadline = time.monotonic() + 10
    while not all(map(is_gone, servants)):
        assert time.monotonic() < deadline, "processes outlive the one that started them"
        time.sleep(0.05)
    recorded = {path.stem.split("-")[0] for path in done.glob("*.nc")}
    assert 3 <= len(recorded) < 8
    once = tasks.ran(log)
    results = run(tasks.tree, tasks.pieces(log, seconds=0.2), folder=done, progressbar=False)
    assert same_to_the_bit(results, recorded_alone)
    assert tasks.ran(log) == {name: 1 if name in recorded else 1 + once.get(name, 0) for name in ONCE}
    assert sum(once.values()) - len(recorded) <= 4


def test_progress_is_shown_on_the_standard_error_or_not_at_all(tasks, log, capfd):
    run(tasks.draw, tasks.pieces(log, n=2), progressbar=False)
    assert capfd.readouterr() == ("", "")
    run(tasks.draw, tasks.pieces(log, n=2))
    shown = capfd.readouterr()
    assert shown.out == ""
    assert "2/2" in shown.err


@pytest.mark.parametrize(
    ("wrong", "sentence"),
    [
        ({"workers": 0}, "workers must be a whole number, 1 or more, got 0"),
        ({"workers": 2, "executor": ThreadPoolExecutor(1)}, "Expected workers or an executor, got both"),
        ({"pieces": {}}, "Expected at least one piece of work, got none"),
        ({"pieces": {1: 1}}, "Expected pieces by names that are text"),
        ({"task": lambda piece: piece, "workers": 2}, "Workers cannot import .*lambda.*: define it in a module"),
    ],
)
def test_what_cannot_be_run_is_said(wrong, sentence):
    with pytest.raises(ValueError, match=sentence):
        run(**{"task": os.path.basename, "pieces": {"a": "b"}} | wrong)


@pytest.mark.long
def test_records_travel_wherever_work_is_shared():
    """In a process of its own: elsewhere others may have told Python how."""
    code = "import pickle, hbm_zoo.workers.run; from hbm_zoo.zoo import record_of as of; m = of('vaccine_clinics'); "
    code += "assert pickle.loads(pickle.dumps(m)) is m"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=120)
