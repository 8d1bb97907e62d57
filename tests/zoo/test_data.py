"""Shipped data: they load, they have a source, and the simulated ones can be made again."""

import importlib.util
from pathlib import Path

import pandas as pd
import pytest

import hbm_zoo as hz

DATA = Path(__file__).parents[2] / "data"
SIMULATED = [path.stem for path in DATA.glob("simulated_*.csv")]


def test_every_file_belongs_to_a_model_and_every_dataset_has_a_file():
    assert sorted(hz.datasets().index) == sorted(path.stem for path in DATA.glob("*.csv"))


def test_every_dataset_has_its_source():
    sources = (DATA / "SOURCES.md").read_text()
    assert [name for name in hz.datasets().index if name not in sources] == []


def test_heart_transplants_expects_as_many_deaths_as_were_observed():
    frame = hz.load_data("heart_transplants")
    assert len(frame) == 94
    assert frame["expected"].sum() == pytest.approx(frame["observed"].sum(), abs=1e-4)


def test_an_unknown_dataset_names_the_nearest():
    with pytest.raises(ValueError, match="Unknown data set 'hart_transplants'.*Did you mean 'heart_transplants'"):
        hz.load_data("hart_transplants")


@pytest.mark.parametrize("name", SIMULATED)
def test_simulated_data_can_be_made_again(name):
    spec = importlib.util.spec_from_file_location("make_simulated", DATA / "make_simulated.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    pd.testing.assert_frame_equal(getattr(module, name)(), hz.load_data(name), check_exact=False, rtol=1e-9)
