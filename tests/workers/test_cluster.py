"""The workers of a cluster, one of which is killed."""

import os
import signal
import threading
import time

import pytest

from hbm_zoo.workers.run import run

distributed = pytest.importorskip("distributed")
pytestmark = pytest.mark.filterwarnings("default")  # a cluster that loses a worker talks


@pytest.fixture
def client(tmp_path):
    """Two processes of one thread each."""
    local = {"n_workers": 2, "threads_per_worker": 1, "dashboard_address": None, "local_directory": str(tmp_path)}
    with distributed.LocalCluster(**local, silence_logs=50) as cluster, distributed.Client(cluster) as client:
        yield client


def kill_one_when_at_work(client, log):
    """SIGKILL a worker's process once three pieces have begun."""
    (first, *_) = client.run(os.getpid).values()
    while len(list(log.iterdir())) < 3:
        time.sleep(0.01)
    os.kill(first, signal.SIGKILL)


@pytest.mark.long
def test_a_cluster_that_loses_a_worker_gives_the_same_bits(tasks, log, tmp_path, client):
    killer = threading.Thread(target=kill_one_when_at_work, args=(client, log))
    killer.start()
    given = tasks.pieces(log, n=12, seconds=0.3)
    results = run(tasks.tree, given, client.get_executor(), folder=tmp_path / "done", progressbar=False)
    killer.join()
    assert max(tasks.ran(log).values()) > 1, "no piece was lost"
    assert set(tasks.ran(log)) == set(given)
    alone = run(tasks.tree, tasks.pieces(log, n=12), progressbar=False)
    assert list(results) == list(alone)
    assert all(results[name].identical(alone[name]) for name in alone)
