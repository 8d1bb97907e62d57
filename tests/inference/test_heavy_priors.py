"""Under a prior with a heavy tail a fit stays where the data are: no density loses its digits far away."""

import warnings

import numpy as np
import pytest
from pymc_extras.prior import Prior

import hbm_zoo as hz
from hbm_zoo.zoo import record_of

DATA = {
    "bcg_vaccine": "vaccine_clinics",
    "three_hospitals": "hospital_readmission",
    "heart_transplants": "hospital_readmission",
    "dyestuff": "tissue_expression",
    "sleepstudy": "reaction_norms",
    "baseball": "success_rates",
    "pastes": "material_batches",
}


def heavy(support, size):
    """Cauchy priors of about the size that a parameter has, and a log normal one of all sizes."""
    if support[0] == -np.inf:
        return [Prior("Cauchy", alpha=0, beta=size), Prior("Cauchy", alpha=0, beta=1e6 * size)]
    return [Prior("HalfCauchy", beta=size), Prior("LogNormal", mu=float(np.log(size)), sigma=10.0)]


@pytest.mark.slow
@pytest.mark.parametrize("name", DATA)
def test_each_hyperparameter_stays_where_the_data_are(name):
    """What is left of a fit that is refused is nothing; one that passes has medians as under the default prior."""
    model, frame = DATA[name], hz.load_data(name, DATA[name])
    record, given = record_of(model), {"draws": 500, "random_seed": 1, "progressbar": False}
    usual = hz.fit(model, frame, **given)["posterior"].to_dataset()
    passed = 0
    for parameter, about in record.parameters.items():
        if parameter not in usual or about.support not in ((-np.inf, np.inf), (0, np.inf)):
            continue
        for prior in heavy(about.support, float(abs(usual[parameter].median()))):
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                fit = hz.fit(model, frame, priors={parameter: prior}, **given)
                found = hz.convergence(fit)["passed"].all()
            if not found:
                continue
            passed += 1
            for other in set(record.parameters) & set(usual):
                apart = float(fit["posterior"][other].median() - usual[other].median())
                assert abs(apart) < 5 * float(usual[other].std()), (parameter, prior, other)
    assert passed >= 2
