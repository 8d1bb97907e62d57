"""Residual errors: sums and rows against the normal density of scipy."""

import numpy as np
import pytensor.tensor as pt
import pytest
from pytensor import function
from scipy import stats

from hbm_zoo.group_level.residual_error import BELOW, ERRORS, residual_error

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


@pytest.mark.parametrize("xp", [np, pt])
@pytest.mark.parametrize("error", ERRORS)
def test_of_a_row_below_the_limit_only_that_is_known(error, xp):
    """Phi((limit - f) / sd), to forty sds, of NumPy and of PyTensor; the rest as it is."""
    sigmas, of = [np.asarray(sigma) for sigma in SIGMAS[error]], residual_error(error, 2.0)
    y, used = np.where(Y < 4, 2.0, Y), np.where((Y < 4) & (USED > 0), BELOW, USED)
    f = (F * np.array([1.0, 20.0])[:, None, None]) * (USED > 0)
    found = of.log_density(of.sums(f, y, used), y, used, *sigmas, xp)
    found = found if xp is np else found.eval()
    scatter = np.where(used > 0, np.hypot(sigmas[0], sigmas[1] * f), 1.0)
    each = np.where(used == BELOW, stats.norm(f, scatter).logcdf(2.0), stats.norm(f, scatter).logpdf(y))
    np.testing.assert_allclose(found, (each * (used > 0)).sum(axis=-1), rtol=1e-9)


@pytest.mark.parametrize("error", ERRORS)
def test_where_a_curve_is_undefined_so_is_the_density(error):
    """NaN, and not 0 nats."""
    sums = ERRORS[error].sums(F * np.nan, Y, USED)
    assert np.isnan(ERRORS[error].log_density(sums, Y, USED, *map(np.asarray, SIGMAS[error]))).all()


@pytest.mark.parametrize("error", ["additive", "proportional"])
def test_where_nothing_is_expected_the_log_and_its_gradient_are_numbers(error):
    """A drug that has all gone: with an error that is a share of nothing a measurement has a density of 0."""
    given, sigma = ERRORS[error].sums(0 * F, Y, USED), pt.dscalar("sigma")
    of = [sigma if value else pt.zeros_like(sigma) for value in SIGMAS[error]]
    log_density = ERRORS[error].log_density(given, Y, USED, *of, pt).sum()
    value, slope = function([sigma], [log_density, pt.grad(log_density, sigma)])(0.3)
    assert np.isfinite([value, slope]).all()
    assert (value < -1e200) == (error == "proportional")
