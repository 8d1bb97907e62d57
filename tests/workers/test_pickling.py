"""What travels to other processes arrives as it was."""

import pickle

import pymc as pm
from pymc_extras.prior import Prior

import hbm_zoo as hz
from hbm_zoo.models.vaccine_clinics import MODEL
from hbm_zoo.workers import pickling


def test_a_prior_of_which_variables_were_made_travels():
    """Alone, within another and as a default of a model, which fits have used."""
    alone, nested = Prior("Gamma", alpha=2.0, beta=0.1, dims="a"), Prior("Normal", mu=Prior("Normal"), sigma=1)
    with pm.Model(coords={"a": [1, 2]}):
        alone.create_variable("x")
        nested.create_variable("y")
    arrived = pickle.loads(pickle.dumps([alone, nested]))
    assert arrived == [alone, nested]
    with pm.Model(coords={"a": [1, 2]}):
        assert arrived[0].create_variable("x").type.ndim == 1
    record = MODEL.under(population="student-t")
    priors = record.priors(record.data(hz.load_data("bcg_vaccine")), pooling="none")
    assert pickle.loads(pickle.dumps(priors)) == priors


def test_a_record_of_the_zoo_arrives_as_the_one_that_is_there():
    assert pickle.loads(pickle.dumps(MODEL)) is MODEL
    assert pickling.of_the_zoo(MODEL.under(population="student-t"))
