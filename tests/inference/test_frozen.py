"""Fit files of the first version open, and what they say of their groups is computed again to rounding.

Each file was written by version 0.1.0, before groups, options and data sets were described as they are now.
"""

from pathlib import Path

import arviz as az
import numpy as np
import pytest
import xarray as xr

import hbm_zoo as hz
from hbm_zoo.inference.fits import hyperparameters, model_of, prepared
from hbm_zoo.inference.loo import relative_efficiency
from hbm_zoo.inference.summary import group_summary

FROZEN = Path(__file__).parents[1] / "frozen"
NAMES = sorted(path.stem for path in FROZEN.glob("*.nc"))
DRAWN = ("rank", "p_best", "p_top10")
#: The shipped data that each was fitted to, or to the first rows of.
DATA = {
    "hospital_readmission": "pumps",
    "reaction_norms": "sleepstudy",
    "spike_slab_genes": "simulated_genes",
    "tissue_expression": "dyestuff",
    "vaccine_clinics": "bcg_vaccine",
}


@pytest.fixture(scope="module", params=NAMES)
def frozen(request):
    return az.from_netcdf(FROZEN / f"{request.param}.nc")


def test_each_of_the_first_five_models_has_a_file():
    assert len(NAMES) == 5
    assert set(NAMES) <= set(hz.MODELS)


def test_its_record_is_found_under_its_options(frozen):
    record = model_of(frozen)
    assert record.name == frozen.attrs["model"]
    expected = "empirical" if record.name == "spike_slab_genes" else None
    assert record.chosen.get("null") == expected


def test_its_groups_are_the_same_to_rounding(frozen):
    record, then = model_of(frozen), frozen["group_summary"].to_dataset()
    free = [name for name in record.parameters if name in frozen["posterior"]]
    reff = relative_efficiency(frozen["posterior"].dataset[free])
    now = group_summary(record, "partial", hyperparameters(frozen), prepared(frozen), reff)
    names = [name for name in map(str, then) if not name.startswith(DRAWN)]
    assert len(names) > 10
    for name in names:
        xr.testing.assert_allclose(now[name].astype(float), then[name].astype(float), rtol=1e-6, atol=1e-9)


def test_tables_and_predictions_take_it(frozen):
    record = model_of(frozen)
    table = hz.groups({"partial": frozen})
    assert len(table) == frozen["group_summary"]["mean"].size
    predicted = hz.predict(frozen, n_new=1, random_seed=1)["group_summary"]
    assert np.isfinite(predicted["mean"]).all()
    assert hz.verdict({"partial": frozen})
    assert record.response in record.columns


def test_rows_of_its_own_data_are_predicted(frozen):
    record = model_of(frozen)
    rows = hz.load_data(DATA[record.name], record).head(3)
    predicted = hz.predict(frozen, rows, random_seed=1)
    groups = predicted["group_summary"].to_dataset()
    assert set(groups["case"].values) == {"known"}
    then = frozen["group_summary"]["mean"].sel({record.group: groups[record.group]})
    xr.testing.assert_allclose(groups["mean"].transpose(*then.dims), then.reset_coords(drop=True), rtol=1e-6)
    assert np.isfinite(predicted["row_summary"]["mean"]).all()
    assert predicted["row_summary"].sizes["row"] == len(rows)
