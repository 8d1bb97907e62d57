"""A module imported lazily is not loaded by a fit's arithmetic."""

import importlib.util
import sys

import numpy as np
import pytest
from scipy.special import logsumexp

from hbm_zoo.inference.asleep import asleep


@pytest.fixture
def jax(tmp_path, monkeypatch):
    """A module ``jax`` that is imported lazily, as ArviZ does it."""
    (tmp_path / "jax.py").write_text("class Array: ...\n")
    spec = importlib.util.spec_from_file_location("jax", tmp_path / "jax.py")
    spec.loader = importlib.util.LazyLoader(spec.loader)
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, "jax", module)
    spec.loader.exec_module(module)
    return module


def loaded(module):
    """Whether a look at the module has loaded it."""
    return "Array" in object.__getattribute__(module, "__dict__")


def unseen():
    """An array of a type that SciPy has not asked about before: it asks once of each."""
    return np.zeros(2).view(type("Unseen", (np.ndarray,), {}))


def test_scipy_wakes_a_lazy_module_unless_it_is_kept_asleep(jax):
    with asleep("jax"):
        logsumexp(unseen())
    assert sys.modules["jax"] is jax
    assert not loaded(jax)
    logsumexp(unseen())  # the fault that is guarded against
    assert loaded(jax)


def test_a_module_in_use_stays_where_it_is(jax):
    assert jax.Array
    with asleep("jax"):
        assert sys.modules["jax"] is jax


def test_a_module_imported_meanwhile_stays(jax):
    with asleep("jax"):
        sys.modules["jax"] = sys
    assert sys.modules["jax"] is sys


def test_a_module_that_is_not_there_is_not_missed():
    with asleep("no_such_module"):
        assert "no_such_module" not in sys.modules
    assert "no_such_module" not in sys.modules
