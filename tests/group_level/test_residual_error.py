"""Residual errors: sums and rows against the normal density of scipy."""

import numpy as np
import pytest
from scipy import stats

from hbm_zoo.group_level.residual_error import ERRORS

RNG = np.random.default_rng(3)
F, Y = RNG.uniform(1, 9, (2, 5, 4)), RNG.uniform(1, 9, (2, 1, 4))
USED = np.array([[[1.0, 1, 1, 1]], [[1, 1, 0, 0]]])
SIGMAS = {"additive": (0.7, 0.0), "proportional": (0.0, 0.2), "combined": (0.7, 0.2)}


@pytest.mark.parametrize("error", ERRORS)
def test_a_patient_s_rows_have_the_density_of_scipy(error):
    sigmas = [np.asarray(sigma) for sigma in SIGMAS[error]]
    f = F * (USED > 0)  # where no row is, nothing is expected
    found = ERRORS[error].log_density(ERRORS[error].sums(f, Y, USED), Y, USED, *sigmas)
    each = stats.norm(F, np.hypot(sigmas[0], sigmas[1] * F)).logpdf(Y)
    np.testing.assert_allclose(found, (each * USED).sum(axis=-1), rtol=1e-12)


@pytest.mark.parametrize("error", ERRORS)
def test_where_a_curve_is_undefined_so_is_the_density(error):
    """NaN, and not 0 nats."""
    sums = ERRORS[error].sums(F * np.nan, Y, USED)
    assert np.isnan(ERRORS[error].log_density(sums, Y, USED, *map(np.asarray, SIGMAS[error]))).all()
