"""What was known before the data, at all draws at once, against PyMC, which takes one draw after another."""

import numpy as np
import pymc as pm
import pytest
import xarray as xr
from pymc.stats import compute_log_prior

from hbm_zoo.inference import prior as ours
from hbm_zoo.inference.nodes import with_nodes
from hbm_zoo.zoo import NAMES, record_of

DRAWS = 1000
QUIET = {"mode": "AS_WRITTEN"}
VARIANTS = [(name, pooling) for name in NAMES for pooling in record_of(name).variants]
FORMS = [
    (name, pooling, form)
    for name in ("vaccine_clinics", "reaction_norms")
    for pooling, forms in record_of(name).variants.items()
    for form in forms
]


def small(name):
    """A record and a handful of simulated groups."""
    record = record_of(name)
    frame, _ = record.simulate(np.random.default_rng(4))
    few = record.labels(frame).unique()[:5]
    data = record.data(frame[record.labels(frame).isin(few)], **record.extras.simulated)
    return record, with_nodes(record, data, record.priors(data), seed=1)


#: Their pages show contrasts of the rows, which are not predicted before the data.
OF_CONTRASTS = {"variance_components"}


def both(name, pooling, draws=DRAWS):
    """The page's prior and prior predictive, ours and PyMC's."""
    record, data = small(name)
    priors = record.priors(data, pooling=pooling)
    page = record.write(data, pooling, next(iter(record.variants[pooling])), priors)
    fixed = record.fixed[pooling](priors, data)
    return ours.prior(record, page, data, fixed, draws, 1), ours.by_pymc(page, draws, 2)


def largest_z(one, other):
    """The largest z over shares below tenths of every entry of a variable, and of what its first two differ by."""
    one, other = (v.values.reshape(v.sizes["draw"], -1).astype(float) for v in (one, other))
    one, other = (np.column_stack([v, np.diff(v[:, :2], axis=1)]) for v in (one, other))
    tenths = np.quantile(np.concatenate([one, other]), [0.1, 0.5, 0.9], axis=0)
    first, second = ((v <= tenths[:, None]).mean(axis=1) for v in (one, other))
    either = (first + second) / 2
    return np.max(np.abs(first - second) / np.sqrt(2 * np.maximum(either * (1 - either), 0.01) / len(one)))


@pytest.mark.parametrize(("name", "pooling"), VARIANTS)
def test_prior_and_prior_predictive_are_those_of_the_page(name, pooling):
    """Shares of 2 x 1000 draws, some hundred in all: one beyond 5 standard errors is a mistake."""
    got, expected = both(name, pooling)
    xr.testing.assert_equal(got["observed_data"].to_dataset(), expected["observed_data"].to_dataset())
    for group in ("prior", "prior_predictive"):
        for variable, drawn in got[group].data_vars.items():
            theirs = expected[group][variable]
            assert (drawn.dims, drawn.shape, drawn.dtype) == (theirs.dims, theirs.shape, theirs.dtype)
            assert largest_z(drawn, theirs) < 5, f"{variable} of {group}"


@pytest.mark.parametrize("name", ["hospital_readmission", "vaccine_clinics", "success_rates"])
def test_a_draw_that_all_groups_share_would_be_seen(monkeypatch, name):
    replicated = ours.replicated

    def shared(record, h, data, draws, rng):
        theta, _ = replicated(record, h, data, draws, rng)
        theta = xr.zeros_like(theta) + theta.isel({record.group: 0}, drop=True)
        return theta, record.group_level.replicate(rng, theta, h, data, data)

    monkeypatch.setattr(ours, "replicated", shared)
    got, expected = both(name, "partial")
    record = record_of(name)
    for group, variable in (("prior", record.estimand), ("prior_predictive", record.observed)):
        assert largest_z(got[group][variable], expected[group][variable]) > 5


@pytest.mark.parametrize("name", NAMES)
def test_what_all_groups_share_is_on_the_page(name):
    """Hyperparameters, the estimand by group, and what the page derives from them, such as a Gamma's shape and rate."""
    got, expected = both(name, "partial", draws=3)
    record = record_of(name)
    latent = {str(v) for v in expected["prior"].data_vars if expected["prior"][v].ndim > 2} - {record.estimand}
    assert set(got["prior"].data_vars) == set(expected["prior"].data_vars) - latent
    predicted = set() if name in OF_CONTRASTS else {record.observed}
    assert set(got["prior_predictive"].data_vars) == predicted


@pytest.mark.parametrize(("name", "pooling", "form"), FORMS)
def test_log_prior_is_pymcs(name, pooling, form):
    record, data = small(name)
    model = record.write(data, pooling, form, record.priors(data, pooling=pooling))
    drawn = pm.sample_prior_predictive(20, model=model, random_seed=3, compile_kwargs=QUIET)["prior"].to_dataset()
    got = ours.log_prior(model, drawn)
    expected = compute_log_prior(
        {"posterior": drawn}, model=model, extend_inferencedata=False, progressbar=False, compile_kwargs=QUIET
    )
    assert set(got) == set(expected)
    for variable, density in got.items():
        # PyMC repeats a density of several coefficients for each.
        alone = expected[variable].isel(dict.fromkeys(set(expected[variable].dims) - set(density.dims), 0), drop=True)
        xr.testing.assert_allclose(density, alone, rtol=1e-10)
