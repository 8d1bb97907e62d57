"""Populations of a vector: the multivariate normal, and a weighted sample on nodes."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import xarray as xr
from scipy.special import ndtri
from scipy.stats import qmc

from hbm_zoo.group_level.populations import Normal, Population

NODES_OF_A_MAP = 10  # A power of 2.


@dataclass(frozen=True)
class MultivariateNormal(Population):
    """Normal with a mean [..., coefficient] and the Cholesky factor [..., coefficient, deviate] of its covariance.

    theta = mean + cholesky z, z ~ N(0, I): no spread is a point. sd, cdf and ppf are the marginals', log density and
    draws are joint.

    Examples
    --------
    >>> L = xr.DataArray([[3.0, 0.0], [4.0, 0.0]], dims=("coefficient", "deviate"))
    >>> MultivariateNormal(xr.DataArray([1.0, 2.0], dims="coefficient"), L).sd.values.tolist()
    [3.0, 4.0]
    """

    inner = ("deviate",)
    mean: xr.DataArray
    cholesky: xr.DataArray

    @property
    def sd(self):
        return np.sqrt((self.cholesky**2).sum("deviate", skipna=False))

    def at(self, z):
        """Theta at standard deviates z [..., deviate]."""
        return self.mean + xr.dot(self.cholesky, z, dim="deviate")

    def map(self, g):
        """The population of g(theta), on equally weighted nodes of the normal (scrambled Sobol points)."""
        size = self.mean.sizes["coefficient"]
        u = qmc.Sobol(size, rng=0).random_base2(NODES_OF_A_MAP)
        z = xr.DataArray(ndtri(np.clip(u, 1e-12, 1 - 1e-12)), dims=("node", "deviate"))
        return Weighted(g(self.at(z)), xr.DataArray(np.full(len(u), 1 / len(u)), dims="node"))

    def cdf(self, x):
        return Normal(self.mean, self.sd).cdf(x)

    def ppf(self, p):
        return Normal(self.mean, self.sd).ppf(p)

    def log_density(self, x):
        """Of all coefficients together; a point has none."""
        vector, matrix = ["coefficient"], ["coefficient", "deviate"]
        return xr.apply_ufunc(
            _log_density, x - self.mean, self.cholesky, input_core_dims=[vector, matrix], output_core_dims=[[]]
        )

    def sample(self, rng):
        mean = xr.broadcast(self.mean, self.sd)[0].rename(coefficient="deviate")
        z = mean.copy(data=rng.standard_normal(mean.shape)).drop_vars("deviate", errors="ignore")
        return self.at(z).transpose(*(dim if dim != "deviate" else "coefficient" for dim in mean.dims))


def _log_density(away, cholesky):
    z = np.linalg.solve(cholesky, away[..., None])[..., 0]
    diagonal = np.diagonal(cholesky, axis1=-2, axis2=-1)
    return -(z**2 / 2 + np.log(diagonal) + np.log(2 * np.pi) / 2).sum(axis=-1)


@dataclass(frozen=True)
class Weighted(Population):
    """Nodes theta [..., node, coefficient] with weights [..., node] that sum to 1.

    What is expected of any function is a weighted sum. mean, sd, cdf and ppf are the marginals', draws are joint.
    Nodes that are the same for all draws of the hyperparameters are held once.

    Examples
    --------
    >>> theta = xr.DataArray([[1.0], [2.0], [4.0]], dims=("node", "coefficient"))
    >>> two = Weighted(theta, xr.DataArray([0.5, 0.5, 0.0], dims="node"))
    >>> float(two.mean.item()), float(two.sd.item()), two.ppf(0.6).item()
    (1.5, 0.5, 2.0)
    >>> two.map(np.exp).mean.round(2).item()
    5.05
    """

    inner = ("node",)
    theta: xr.DataArray
    weight: xr.DataArray

    @property
    def mean(self):
        return self._first + self._sum(self._away)

    @property
    def sd(self):
        variance = self._sum(self._away**2) - self._sum(self._away) ** 2
        return np.sqrt(np.maximum(variance, 0))

    def map(self, g):
        """The population of g(theta), of any function of the nodes [..., node, coefficient]."""
        return replace(self, theta=g(self.theta))

    def log_expectation(self, log_g):
        """Log E[g(theta)] from log g at the nodes [..., node].

        With log g the log likelihood of new rows it is their log density given those seen; minus that of
        - log p(row | theta) is the log density of a row given the others.
        """
        with np.errstate(divide="ignore"):
            terms = np.log(self.weight) + log_g
        top = terms.max("node")
        return top + np.log(np.exp(terms - top).sum("node", skipna=False))

    def cdf(self, x):
        return self._sum(self.theta <= x)

    def ppf(self, p):
        """The least node up to which the weights come to p."""
        in_order, weights = xr.apply_ufunc(
            _sorted, self.theta, self.weight, input_core_dims=[["node"]] * 2, output_core_dims=[["node"]] * 2
        )
        total = weights.cumsum("node")
        # Rounding may leave the whole a little below 1.
        reached = (total >= p * total.isel(node=-1)).argmax("node")
        return in_order.isel(node=reached)

    def sample(self, rng):
        total = self.weight.cumsum("node", skipna=False)
        whole = total.isel(node=-1, drop=True)
        node = (total <= whole.copy(data=rng.random(whole.shape)) * whole).sum("node")
        return self.theta.isel(node=node).where(whole.notnull()).transpose(*whole.dims, ...)

    def log_density(self, x):
        """Refused: nodes have no density.

        Raises
        ------
        NotImplementedError
            Always, with the formula that answers.
        """
        raise NotImplementedError(
            "A weighted sample of nodes has no density. That of theta given the data is log_likelihood(theta, h, data) "
            "+ population(h).log_density(theta) - the group's log marginal likelihood."
        )

    def over(self, like):
        return replace(self, weight=self.weight * xr.ones_like(like, dtype=float))

    def cells(self):
        outer = xr.broadcast(self._outer(self.theta), self._outer(self.weight))[0]
        template = outer.transpose("sample", ...)
        if "sample" in self.theta.dims:
            theta = self._flat(self.theta, template)
        else:
            theta = self._flat(self.theta, template.isel(sample=[0])).isel(sample=0, drop=True)
        return Weighted(theta, self._flat(self.weight, template)), template.isel(sample=0, drop=True)

    @property
    def _first(self):
        return self.theta.isel(node=0, drop=True)

    @property
    def _away(self):
        """From the first node: where all nodes are one point, mean and sd are exactly its own and 0."""
        return self.theta - self._first

    def _sum(self, values):
        return xr.dot(self.weight, values, dim="node")


def _sorted(theta, weight):
    order = np.argsort(theta, axis=-1)
    weights = np.take_along_axis(*np.broadcast_arrays(weight, order), axis=-1)
    return np.broadcast_to(np.take_along_axis(theta, order, axis=-1), weights.shape), weights
