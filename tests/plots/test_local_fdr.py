"""The local-fdr picture: curves that are the fitted densities, points that are the genes."""

import numpy as np
import pytest
from scipy import stats

import hbm_zoo as hz
from hbm_zoo.inference.fits import hyperparameters, thinned
from hbm_zoo.plots.local_fdr import DRAWS


def test_curves_are_the_fitted_densities(genes_fit):
    above, below = hz.plot_local_fdr(genes_fit).axes
    curves = {line.get_label(): line.get_xydata().T for line in above.lines + below.lines}
    frame, h = hz.load_data("simulated_genes"), hyperparameters(genes_fit)
    z, everything = curves["all genes, expected"]
    se, h = frame["standard_error"].to_numpy(), thinned(h, DRAWS)
    bin_width = (z[-1] - z[0]) / 90
    by_scipy = np.zeros_like(z)
    for pi0, tau in zip(h.pi0.values, h.tau.values, strict=True):
        slab = stats.norm.pdf(z[:, None], 0, np.hypot(1, tau / se)).mean(axis=1)
        by_scipy += bin_width * 1000 * (pi0 * stats.norm.pdf(z) + (1 - pi0) * slab) / h.sizes["sample"]
    np.testing.assert_allclose(everything, by_scipy, rtol=0.01)
    null = bin_width * 1000 * float(h.pi0.mean()) * stats.norm.pdf(z)
    np.testing.assert_allclose(curves["null genes, expected"][1], null, rtol=0.01)
    average = curves["average lfdr at z"][1]
    np.testing.assert_allclose(average, curves["null genes, expected"][1] / everything)
    np.testing.assert_allclose(curves["lfdr of each gene"][1], genes_fit["group_summary"]["lfdr"])
    assert sum(patch.get_height() for patch in above.patches) == 1000


def test_it_needs_a_null_group(three_hospitals_fits):
    with pytest.raises(ValueError, match="plot_local_fdr needs partial pooling"):
        hz.plot_local_fdr(three_hospitals_fits["partial"])
