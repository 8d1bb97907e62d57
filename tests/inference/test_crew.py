from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from multiprocessing import get_context

import pytest

from hbm_zoo.inference import crew
from hbm_zoo.inference.crew import Crew, WorkerDied
from hbm_zoo.inference.workers import PiecesFailed, run


def test_a_worker_that_dies_is_replaced_and_its_piece_runs_again(tasks, log):
    alone = run(tasks.draw, tasks.pieces(log), progressbar=False)
    results = run(tasks.draw, tasks.pieces(log, p2={"dies": 2}), workers=2, progressbar=False)
    assert all(results[name].identical(alone[name]) for name in alone)
    assert tasks.ran(log)["p2"] == 3
    assert max(tasks.ran(log).values()) <= 3


def test_a_piece_that_kills_its_worker_each_time_is_given_up_by_name_and_no_other(tasks, log):
    with pytest.raises(
        PiecesFailed, match="1 of 8 pieces failed: p0. .*'p0' was given up: its worker died 3 times"
    ) as e:
        run(tasks.draw, tasks.pieces(log, p0={"dies": 99}), workers=2, progressbar=False)
    assert list(e.value.results) == [f"p{i}" for i in range(1, 8)]
    assert tasks.ran(log)["p0"] == 3
    assert isinstance(e.value.results.failed["p0"], WorkerDied)


def test_workers_that_only_die_are_not_started_for_ever(tasks, log):
    with pytest.raises(WorkerDied, match="__main__"):
        run(tasks.draw, tasks.pieces(log, **{f"p{i}": {"dies": 99} for i in range(8)}), workers=2, progressbar=False)
    assert set(tasks.ran(log)) <= {"p0", "p1", "p2", "p3"}


def test_an_executor_that_broke_is_its_owners(tasks, log, tmp_path):
    given = tasks.pieces(log, p3={"dies": 1})
    with ProcessPoolExecutor(1, get_context("spawn")) as executor:
        with pytest.raises(WorkerDied, match="make a new one and run this again"):
            run(tasks.draw, given, executor, folder=tmp_path / "done", progressbar=False)
    run(tasks.draw, given, folder=tmp_path / "done", progressbar=False)
    assert tasks.ran(log) == {f"p{i}": 2 if i == 3 else 1 for i in range(8)}


def test_only_so_many_pieces_are_under_way(monkeypatch):
    monkeypatch.setattr(crew, "UNDER_WAY", 3)
    under_way, most = set(), []

    def submit(executor, name):
        under_way.add(name)
        most.append(len(under_way))
        return executor.submit(str, name)

    with ThreadPoolExecutor(2) as executor, Crew(executor) as given:
        for name, future in given.outcomes(map(str, range(20)), submit):
            assert future.result() == name
            under_way.remove(name)
    assert len(most) == 20
    assert max(most) == 3
