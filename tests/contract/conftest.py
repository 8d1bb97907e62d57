"""A stand-in for the sampler: what becomes of draws is tested here, and compiling takes longer than all of it."""

import numpy as np
import pytest
import xarray as xr
from scipy.special import softmax
from scipy.stats import halfnorm, norm, qmc

from hbm_zoo.inference import sampling
from hbm_zoo.inference.chunks import log_joint

POINTS = 2**14
QUANTILES = {
    "Normal": lambda p, mu, sigma: norm(mu, sigma).ppf(p),
    "HalfNormal": lambda p, sigma: halfnorm(scale=sigma).ppf(p),
}


def quantile(prior, p):
    return QUANTILES[prior.distribution](p, **prior.parameters)


def resampled(record, data, pooling, parameterization, priors, settings, progressbar, sampler):
    """Draws of the prior, evenly spread, resampled by their likelihood (Rubin 1988): independent, and nearly exact."""
    rng, fixed = np.random.default_rng(settings["seed"]), record.fixed[pooling](priors, data)
    free = [name for name in record.parameters if name not in fixed]
    shares = qmc.Sobol(len(free), rng=rng).random(POINTS)
    drawn = {name: ("sample", quantile(priors[name], share)) for name, share in zip(free, shares.T, strict=True)}
    h = xr.Dataset(drawn)
    likelihood = log_joint(record, h.assign({name: value + 0 * h[free[0]] for name, value in fixed.items()}), data)
    weight = softmax(np.nan_to_num(likelihood.values, nan=-np.inf))
    shape = settings["chains"], settings["draws"]
    ladder = (rng.random() + np.arange(np.prod(shape))) / np.prod(shape)
    chosen = rng.permutation(np.searchsorted(np.cumsum(weight), ladder).clip(max=POINTS - 1))
    dims = ("chain", "draw")
    coords = {dim: range(size) for dim, size in zip(dims, shape, strict=True)}
    posterior = {name: (dims, h[name].values[chosen].reshape(shape)) for name in free}
    nothing = np.zeros(shape, bool)
    stats = {"diverging": nothing, "maxdepth_reached": nothing, "energy": rng.normal(size=shape)}
    stats = {name: (dims, value) for name, value in stats.items()}
    tree = xr.DataTree.from_dict(
        {"posterior": xr.Dataset(posterior, coords), "sample_stats": xr.Dataset(stats, coords)}
    )
    tree.attrs["parameterization"] = "marginalized"
    return tree


@pytest.fixture(scope="module")
def without_nuts():
    """Every fit and refit of a file by `resampled`."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sampling, "draw", resampled)
        yield
