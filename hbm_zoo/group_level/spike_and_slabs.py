"""A normal measurement of an effect that is exactly 0 in a share of the groups, else from a mixture of normals.

    y_g | theta_g ~ N(theta_g + delta0 se_g, (sigma0 se_g)^2)
    theta_g       = 0 with probability pi0, else ~ sum_k w_k N(mu_k, s_k^2)

Stephens (2017), Biostatistics 18:275-294, equations 2.4 and 2.8: with all mu_k = 0 any population that is symmetric
and has one top at 0 is nearly such a mixture. `hbm_zoo.group_level.two_groups` is the same with one slab.
Each slab is a share q_k = (1 - pi0) w_k, a centre mu_k and a width over sigma0, s_k/sigma0; log densities take all
shares, then all centres, then all widths.
"""

from dataclasses import dataclass
from functools import reduce

import numpy as np
import pytensor.tensor as pt
import xarray as xr
from scipy import special

from hbm_zoo.group_level.mixture_of_normals import MixtureOfNormals
from hbm_zoo.group_level.populations import BEFORE_0, Population
from hbm_zoo.group_level.two_groups import centred


def log_marginal(y, se, pi0, delta0, sigma0, *slabs):
    """Log p(y): pi0 N(y'; 0, s^2) + sum_k q_k N(y'; mu_k, s^2 + s_k^2), y' and s as the null sees them."""
    return log_kernel(y, se, pi0, delta0, sigma0, *slabs) - pt.log(se)


def log_kernel(y, se, pi0, delta0, sigma0, *slabs):
    """What is left of `log_marginal` without - log se: log sum_k q_k r_k exp(a_k), the largest a_k taken out.

    r_k = s/sqrt(s^2 + s_k^2) and a_k = -r_k^2 ((y' - mu_k)/s)^2 / 2; the null is one of them, without width. What is
    taken out has no shares in it, so that exponentials of a null that is known are the same at all shares. Where what
    is largest has no share and the others vanish beside it, the largest term is the sum.
    """
    y, s = centred(y, se, delta0, sigma0)
    shares, centres, widths = thirds(slabs)
    r2 = [1.0, *(1 / (1 + (width / se) ** 2) for width in widths)]
    a = [-r * ((y - mu) / s) ** 2 / 2 for r, mu in zip(r2, (0.0, *centres), strict=True)]
    top = reduce(pt.maximum, a)
    each = list(zip((pi0, *shares), r2, a, strict=True))
    total = sum(q * (pt.sqrt(r) * pt.exp(exponent - top)) for q, r, exponent in each)
    largest = reduce(pt.maximum, (pt.log(q) + (pt.log(r) / 2 + exponent) for q, r, exponent in each))
    return pt.maximum(top + pt.log(total), largest) - pt.log(sigma0) - 0.5 * np.log(2 * np.pi)


def thirds(slabs):
    """Shares, centres and widths."""
    K = len(slabs) // 3
    return slabs[:K], slabs[K : 2 * K], slabs[2 * K :]


def random(se, pi0, delta0, sigma0, *slabs, rng=None, size=None):
    """Draw y with indicators and effects integrated out."""
    noise = rng.normal(delta0 * se, sigma0 * se, size=size)
    shares, centres, widths = thirds(slabs)
    u, theta, reached = rng.random(size=noise.shape), np.zeros(noise.shape), np.asarray(pi0, float)
    for q, mu, width in zip(shares, centres, widths, strict=True):
        theta = np.where((u >= reached) & (u < reached + q), rng.normal(mu, sigma0 * width, size=noise.shape), theta)
        reached = reached + q
    return noise + theta


@dataclass(frozen=True)
class SpikeSlabs(Population):
    """Exactly 0 with probability `null`, else a mixture of normals [node].

    Examples
    --------
    >>> of = [xr.DataArray(v, dims="node") for v in ([0.0, 0.0], [1.0, 2.0], [0.5, 0.5])]
    >>> half = SpikeSlabs(xr.DataArray(0.5), *of)
    >>> half.cdf(0.0).item(), half.ppf(0.6).item(), round(half.sd.item() ** 2, 6)
    (0.75, 0.0, 1.25)
    """

    atom = 0.0
    inner = ("node",)
    null: xr.DataArray
    each_mean: xr.DataArray
    each_sd: xr.DataArray
    weight: xr.DataArray

    @property
    def slab(self):
        return MixtureOfNormals(self.each_mean, self.each_sd, self.weight)

    @property
    def mean(self):
        return (1 - self.null) * self.slab.mean

    @property
    def sd(self):
        slab = self.slab
        return np.sqrt((1 - self.null) * (slab.sd**2 + self.null * slab.mean**2))

    def cdf(self, x):
        return self.null * (x >= 0) + (1 - self.null) * self.slab.cdf(x)

    def ppf(self, p):
        below = (1 - self.null) * self.slab.cdf(BEFORE_0)
        rest = xr.where(p <= below, p, p - self.null)
        with np.errstate(divide="ignore", invalid="ignore"):
            outside = self.slab.ppf(rest / (1 - self.null))
        return xr.where((p > below) & (p <= below + self.null), 0.0, outside)

    def log_density(self, x):
        """Of the continuous part, at effects that are not 0."""
        with np.errstate(divide="ignore"):
            return np.log1p(-self.null) + self.slab.log_density(x)

    def sample(self, rng):
        slab = self.over(self._outer(self.null * self.each_mean * self.each_sd * self.weight)).slab.sample(rng)
        u = slab.copy(data=rng.random(slab.shape))
        return xr.where(u < self.null, 0.0, slab).transpose(*slab.dims)


def conditional(y, se, delta0, sigma0, before):
    """The `SpikeSlabs` after y: lfdr, and each slab's mean, sd and weight among the slabs."""
    y, s = centred(y, se, delta0, sigma0)
    variance = s**2 + before.each_sd**2
    with np.errstate(divide="ignore"):
        each = np.log(before.weight) - 0.5 * (np.log(variance / s**2) + (y - before.each_mean) ** 2 / variance)
    top = each.max("node")
    relative = np.exp(each - top)
    total = relative.sum("node", skipna=False)
    log_ratio = -0.5 * (y / s) ** 2 - top - np.log(total)
    k = before.each_sd**2 / variance
    lfdr = xr.apply_ufunc(special.expit, xr.apply_ufunc(special.logit, before.null) + log_ratio)
    return SpikeSlabs(lfdr, k * y + (1 - k) * before.each_mean, np.sqrt(k) * s, relative / total)


def tails(y, se, delta0, sigma0, before):
    """Probabilities of no more than y, and of no less: of the null and of each slab, in their shares."""
    y, s = centred(y, se, delta0, sigma0)
    spike, score = y / s, (y - before.each_mean) / np.sqrt(s**2 + before.each_sd**2)

    def below(sign):
        slabs = (before.weight * special.ndtr(sign * score)).sum("node", skipna=False)
        return before.null * special.ndtr(sign * spike) + (1 - before.null) * slabs

    return below(1), below(-1)
