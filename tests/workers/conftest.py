"""Tasks that other processes import."""

import importlib
from pathlib import Path

import pytest

IMPORTABLE = Path(__file__).parents[1] / "importable"


@pytest.fixture
def tasks(monkeypatch):
    """The module of `tests/importable`: processes that are started have the same path, and more threads than one."""
    monkeypatch.syspath_prepend(IMPORTABLE)
    for library in ("OMP", "OPENBLAS"):
        monkeypatch.setenv(f"{library}_NUM_THREADS", "2")
    return importlib.import_module("tasks_for_workers")


@pytest.fixture
def log(tmp_path):
    """An empty folder where tasks note that they ran."""
    folder = tmp_path / "log"
    folder.mkdir()
    return folder
