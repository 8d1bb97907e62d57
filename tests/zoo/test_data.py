"""Shipped data: they load, they have a source, and the simulated ones can be made again."""

import importlib.util
import sys
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import pandas as pd
import pytest

import hbm_zoo as hz
from hbm_zoo import zoo
from hbm_zoo.command_line.source import Source
from hbm_zoo.fields import Shipped
from hbm_zoo.models.vaccine_clinics import MODEL as vaccine_clinics

DATA = Path(__file__).parents[2] / "data"
SIMULATED = [path.stem for path in DATA.glob("simulated_*.csv")]


def test_every_file_belongs_to_a_model_and_every_dataset_has_a_file():
    shipped = [item for module in hz.MODELS.values() for item in module.MODEL.datasets.items()]
    assert {name for name, _ in shipped} == {*hz.datasets().index}
    assert sorted({of.file or name for name, of in shipped}) == sorted(path.stem for path in DATA.glob("*.csv"))


def test_a_file_may_hold_several_data_sets():
    record = hz.variance_components.MODEL
    parts = [hz.load_data(name) for name, of in record.datasets.items() if of.file == "eucalyptus_progenies"]
    assert [part["site"].unique().tolist() for part in parts] == [["Araraquara"], ["Bento Quirino"], ["Mogi-Guacu"]]
    assert sum(map(len, parts)) == len(pd.read_csv(DATA / "eucalyptus_progenies.csv"))


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


def second_model(name, columns, options):
    """Another model on the file of the BCG trials, under names of columns of its own."""
    shipped = Shipped(file="bcg_vaccine", columns=columns, options=options)
    return replace(vaccine_clinics, name="trials", datasets={name: shipped})


def test_one_file_serves_two_models_each_in_its_own_columns(monkeypatch):
    theirs = pd.read_csv(DATA / "bcg_vaccine.csv")
    trials = second_model("bcg_vaccine", {"trial": "clinic", "log_rr": "effect"}, {"covariate": "latitude"})
    page = ModuleType("hbm_zoo.models.trials")
    page.MODEL = trials
    monkeypatch.setitem(sys.modules, page.__name__, page)
    monkeypatch.setattr(zoo, "NAMES", (*zoo.NAMES, "trials"))
    with pytest.raises(
        ValueError, match=r"^'bcg_vaccine' is used by vaccine_clinics and trials: name one by model=\.$"
    ):
        hz.load_data("bcg_vaccine")
    for model in ("trials", trials, page):
        frame = hz.load_data("bcg_vaccine", model=model)
        assert frame["log_rr"].tolist() == theirs["effect"].tolist()
        assert frame.attrs["labels"] == {"trial": "clinic", "log_rr": "effect"}
    assert hz.load_data("bcg_vaccine", model="vaccine_clinics")["effect"].tolist() == theirs["effect"].tolist()
    listed = hz.datasets().reset_index().query("dataset == 'bcg_vaccine'").set_index("model")["columns"]
    assert listed["trials"].startswith("trial, log_rr")
    assert listed["vaccine_clinics"].startswith("clinic, effect")


def test_one_file_under_another_name_and_the_same_under_its_own():
    assert hz.load_data("by_latitude", second_model("by_latitude", {}, {})).equals(hz.load_data("bcg_vaccine"))


def test_the_command_line_shows_a_shipped_data_set_by_its_options():
    trials = second_model("bcg_vaccine", {}, {"covariate": "latitude"})
    trials = replace(trials, prepare=lambda frame, covariate="year": trials.prepare(frame))
    for given, options in (((), {"covariate": "latitude"}), (("covariate=year",), {"covariate": "year"})):
        frame, read = Source(None, None, None, (), given).read(trials)
        assert read == options
        assert frame.attrs["source"] == "bcg_vaccine"


@pytest.mark.parametrize("name", SIMULATED)
def test_simulated_data_can_be_made_again(name):
    spec = importlib.util.spec_from_file_location("make_simulated", DATA / "make_simulated.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    pd.testing.assert_frame_equal(getattr(module, name)(), hz.load_data(name), check_exact=False, rtol=1e-9)
