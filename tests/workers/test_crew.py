from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from multiprocessing import get_context

import pytest

from hbm_zoo.workers import crew
from hbm_zoo.workers.crew import Crew, WorkerDied
from hbm_zoo.workers.run import PiecesFailed, run


def test_the_dead_are_replaced_and_a_piece_that_always_kills_is_given_up_and_no_other(tasks, log, tmp_path):
    (tmp_path / "alone").mkdir()
    alone = run(tasks.draw, tasks.pieces(tmp_path / "alone"), progressbar=False)
    given = tasks.pieces(log, p0={"dies": 99}, p2={"dies": 2})
    with pytest.raises(
        PiecesFailed, match="1 of 8 pieces failed: p0. .*'p0' was given up: its worker died 3"
    ) as caught:
        run(tasks.draw, given, workers=2, progressbar=False)
    results = caught.value.results
    assert dict(results) == {name: drawn for name, drawn in alone.items() if name != "p0"}
    assert isinstance(results.failed["p0"], WorkerDied)
    assert 3 <= tasks.ran(log)["p0"] <= 4
    assert tasks.ran(log)["p2"] == 3


def test_workers_that_only_die_are_not_started_for_ever(tasks, log):
    with pytest.raises(WorkerDied, match="__main__"):
        run(tasks.draw, tasks.pieces(log, **{f"p{i}": {"dies": 99} for i in range(8)}), workers=2, progressbar=False)
    assert set(tasks.ran(log)) <= {"p0", "p1", "p2", "p3"}


def test_an_executor_that_broke_is_its_owners(tasks, log, tmp_path):
    given = tasks.pieces(log, p3={"dies": 1})
    with ProcessPoolExecutor(1, get_context("spawn")) as executor:
        with pytest.raises(WorkerDied, match="make a new one and run this again"):
            run(tasks.tree, given, executor, folder=tmp_path / "done", progressbar=False)
    run(tasks.tree, given, folder=tmp_path / "done", progressbar=False)
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
