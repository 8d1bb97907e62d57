"""Fits that many tests read: each is made once."""

import gc
import importlib.util
import os
import sys
import types

import pytest
from pytensor import config
from pytensor.compile.mode import Mode, register_mode

import hbm_zoo as hz
import hbm_zoo.zoo
from hbm_zoo.command_line import cli


def pytest_configure():
    """One thread of linear algebra a worker: matrices are small, and threads that wait for each other take longer."""
    os.environ.update(dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"), "1"))


# Graphs refer to themselves, and live long: looking for garbage as often as by default took up to a tenth of the time.
gc.set_threshold(50_000, 50, 100)
# A density that is evaluated once is so in half the time that to rewrite it takes.
register_mode("AS_WRITTEN", Mode(linker="py", optimizer=None))
# Where each node of a graph was made is not noted: that takes a seventh of the time in which graphs are made.
config.traceback__limit = 0


@pytest.fixture(scope="session")
def three_hospitals_fits():
    """Three poolings of three hospitals."""
    frame = hz.load_data("three_hospitals")
    return hz.fit_poolings("hospital_readmission", frame, random_seed=1, progressbar=False)


@pytest.fixture(scope="session")
def heart_fits():
    """Three poolings of 94 hospitals."""
    frame = hz.load_data("heart_transplants")
    return hz.fit_poolings("hospital_readmission", frame, random_seed=2, progressbar=False)


@pytest.fixture(scope="session")
def genes_fit():
    """Partial pooling of 1,000 simulated genes."""
    return hz.fit("spike_slab_genes", hz.load_data("simulated_genes"), random_seed=3, progressbar=False)


@pytest.fixture
def command_line_with(monkeypatch):
    """From a record to the command line of a zoo that has one model more."""

    def main_with(record):
        monkeypatch.setattr(hbm_zoo.zoo, "NAMES", (*hbm_zoo.zoo.NAMES, record.name))
        module = types.ModuleType(f"hbm_zoo.models.{record.name}")
        module.MODEL = record
        monkeypatch.setitem(sys.modules, module.__name__, module)
        spec = importlib.util.spec_from_file_location("command_line_with", cli.__file__)  # it names models at import
        command_line = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(command_line)
        return command_line.main

    return main_with
