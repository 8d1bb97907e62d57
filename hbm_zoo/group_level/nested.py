"""Normal groups within families: groups that lie around the mean of their family, families around one mean.

    y_gi | theta_g ~ N(theta_g, sigma^2),  theta_g | mu_c ~ N(mu_c, sigma_b^2),  mu_c ~ N(mu, sigma_c^2)

Groups of one family depend on one another. With the groups integrated out a group's mean is N(mu_c, 1/w_g), w_g =
n_g / (sigma^2 + n_g sigma_b^2), and all that a family's groups say of mu_c is in W = sum w, their mean weighted by w,
and Q = sum w (ybar - mean)^2 (Searle, Casella & McCulloch 1992, Variance Components, section 3.4). No spread is a
limit: each formula holds at sigma_b = 0 and sigma_c = 0, and those of a group for one without rows.

Data hold ``n``, ``y_bar``, ``SS`` [group], ``member`` [group, family], 1 where a group is of a family, and ``family``,
the position of that family; hyperparameters ``mu``, ``sigma_c``, ``sigma_b``, ``sigma``.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd
import pytensor.tensor as pt
import xarray as xr

from hbm_zoo.group_level import normal
from hbm_zoo.group_level.evaluate import evaluate
from hbm_zoo.group_level.normal import LOG_2PI, expected_log_density_rows, log_density, log_within
from hbm_zoo.group_level.populations import Normal

NOTHING = np.finfo(float).tiny
STATISTICS = ("n", "y_bar", "SS")


def precision(n, sigma_b, sigma):
    """W = n / (sigma^2 + n sigma_b^2), of a group's mean around that of its family."""
    return n / (sigma**2 + n * sigma_b**2)


def log_groups(n, SS, w, sigma):
    """Log density of the rows of each group, but for the squares around the family's mean."""
    return log_within(n, SS, sigma) + 0.5 * (pt.log(w) - LOG_2PI)


def log_family(W, mean, Q, mu, sigma_c):
    """The squares of a family's groups, its mean integrated out: N(mu, sigma_c^2)."""
    spread = 1 + W * sigma_c**2
    return -0.5 * (Q + pt.log(spread) + W * (mean - mu) ** 2 / spread)


def log_marginal(y_bar, n, SS, member, mu, sigma_c, sigma_b, sigma):
    """Log density of all rows, groups and families integrated out, from vectors [group] [nats]."""
    w = precision(n, sigma_b, sigma)
    W = w @ member
    mean = (w * y_bar) @ member / pt.maximum(W, NOTHING)
    Q = (w * (y_bar - member @ mean) ** 2) @ member
    return log_groups(n, SS, w, sigma).sum() + log_family(W, mean, Q, mu, sigma_c).sum()


def random_means(n, SS, member, mu, sigma_c, sigma_b, sigma, rng=None, size=None):
    """Draw the groups' means, those of one family around a mean of their own; SS says nothing of them."""
    families = member @ rng.normal(mu, sigma_c, member.shape[1])
    return rng.normal(families, np.sqrt(sigma_b**2 + sigma**2 / n))


@dataclass(frozen=True)
class Nested(Normal):
    """Normals [..., group] of which a part, `shared` of the sd, is one chance for all groups of a family."""

    shared: xr.DataArray
    family: xr.DataArray

    @property
    def own(self):
        """The sd of what a group has of its own."""
        return np.sqrt(np.maximum(self.sd**2 - self.shared**2, 0))

    def _fields(self):
        return {name: value for name, value in super()._fields().items() if name != "family"}

    def sample(self, rng):
        """One draw for each family, one for each group."""
        mean, own, shared = xr.broadcast(self.mean, self.own, self.shared)
        (group,) = self.family.dims
        outer = [dim for dim in mean.dims if dim != group]
        sizes = [mean.sizes[dim] for dim in outer]
        families = rng.standard_normal((*sizes, int(self.family.max()) + 1))
        z = xr.DataArray(families, dims=(*outer, "of_family")).isel(of_family=self.family)
        return mean + own * mean.copy(data=rng.standard_normal(mean.shape)) + shared * z

    def log_density(self, x):
        """Of all groups together [...]: of a family S + l l', S the variances of its groups' own, l what they share."""
        own = self.own
        away, loading = (x - self.mean) / own, self.shared / own
        member = xr.DataArray(np.eye(int(self.family.max()) + 1)[self.family], dims=(*self.family.dims, "of_family"))
        W, total = (xr.dot(value, member, dim=self.family.dims) for value in (loading**2, loading * away))
        of_families = (total**2 / (1 + W) - np.log1p(W)).sum("of_family")
        return 0.5 * of_families - (0.5 * (away**2 + LOG_2PI) + np.log(own)).sum(self.family.dims)


def of_families(h, data):
    """Of each group w, of each family W, the weighted mean of its groups, and their squares Q around it."""
    (group,) = data.n.dims
    w = precision(data.n, h.sigma_b, h.sigma)
    W = xr.dot(w, data.member, dim=group)
    mean = xr.dot(w * data.y_bar, data.member, dim=group) / np.maximum(W, NOTHING)
    Q = xr.dot(w * (data.y_bar - _by_group(mean, data)) ** 2, data.member, dim=group)
    return w, W, mean, Q


def _by_group(value, data):
    """What a family has, for each of its groups."""
    _, family = data.member.dims
    return value.isel({family: data.family}, missing_dims="ignore").drop_vars(family, errors="ignore")


def log_joint(h, data):
    """Log density of all rows, groups and families integrated out [nats]."""
    w, W, mean, Q = of_families(h, data)
    groups = evaluate(log_groups, data.n, data.SS, w, h.sigma)
    families = evaluate(log_family, W, mean, Q, h.mu, h.sigma_c)
    group, family = data.member.dims
    return groups.sum(group, skipna=False) + families.sum(family, skipna=False)


def families_after(h, data):
    """mu_c | y: as of one measurement with the precision W."""
    _, W, mean, _ = of_families(h, data)
    return _family_after(h, W, W * (mean - h.mu))


def _family_after(h, W, total):
    """mu_c | y, from its groups' precision W and the sum of w (ybar - mu)."""
    spread = 1 + W * h.sigma_c**2
    return Normal(h.mu + h.sigma_c**2 * total / spread, h.sigma_c / np.sqrt(spread))


def weight_of_family(h, data):
    """Kappa_c = W sigma_c^2 / (1 + W sigma_c^2), of a family's own data."""
    _, W, _, _ = of_families(h, data)
    return W * h.sigma_c**2 / (1 + W * h.sigma_c**2)


def conditional(h, data):
    """theta_g | y: between its own mean and its family's, whose chance it shares."""
    families = families_after(h, data)
    middle, sd = _by_group(families.mean, data), _by_group(families.sd, data)
    return Nested(*_group_after(h, data.y_bar, data.n, middle, sd), data.family)


def _group_after(h, y_bar, n, middle, sd):
    """Mean, sd and what is shared of it, of theta_g given n rows and what the others say of its family's mean."""
    total = h.sigma**2 + n * h.sigma_b**2
    kappa = n * h.sigma_b**2 / total
    shared = (1 - kappa) * sd
    return kappa * y_bar + (1 - kappa) * middle, np.sqrt(h.sigma_b**2 * h.sigma**2 / total + shared**2), shared


def reliability(h, data):
    """Kappa = n sigma_b^2 / (sigma^2 + n sigma_b^2), of a group's own data against the mean of its family."""
    return data.n * h.sigma_b**2 / (h.sigma**2 + data.n * h.sigma_b**2)


def deviations(h, data):
    """theta_g - mu_c | y: what a group has of its own."""
    families, kappa = families_after(h, data), reliability(h, data)
    shared = kappa * _by_group(families.sd, data)
    own = h.sigma_b * h.sigma / np.sqrt(h.sigma**2 + data.n * h.sigma_b**2)
    away = kappa * (data.y_bar - _by_group(families.mean, data))
    return Nested(away, np.hypot(own, shared), shared, data.family)


def log_left_out(h, data):
    """Log density of a group's rows given all other groups [nats]."""
    mean, sd = expected_by_others(h, data)
    return evaluate(log_within, data.n, data.SS, h.sigma) + log_density(data.y_bar, mean, sd**2)


def tails(h, data):
    """Probabilities of no more than a group's mean, and of no less, given all other groups."""
    return normal.tails(data.y_bar, 0.0, *expected_by_others(h, data))


def expected_by_others(h, data):
    """Mean and sd of a group's mean given all other groups: those of its family tell where that is."""
    w, W, mean, _ = of_families(h, data)
    total = _by_group(W * (mean - h.mu), data) - w * (data.y_bar - h.mu)
    family = _family_after(h, np.maximum(_by_group(W, data) - w, 0), total)
    return family.mean, np.sqrt(family.sd**2 + 1 / w)


def scores_of_families(h, data):
    """Of each family how far the mean of its groups lies from mu, over the sd that it has: sigma_c^2 + 1/W."""
    _, W, mean, _ = of_families(h, data)
    return (mean - h.mu) / np.sqrt(h.sigma_c**2 + 1 / W)


def leave_row_out(h, data, y, group):
    """Log density of rows y of groups, by position, given all other rows [nats]."""
    (dim,) = data.n.dims
    w, W, mean, _ = of_families(h, data)
    total = _by_group(W * (mean - h.mu), data) - w * (data.y_bar - h.mu)
    of_rows = xr.Dataset({"n": data.n, "y_bar": data.y_bar, "w": w, "W": _by_group(W, data), "total": total})
    one = of_rows.isel({dim: group}).drop_vars(dim, errors="ignore")
    n = one.n - 1
    y_bar = (one.n * one.y_bar - y) / np.maximum(n, 1)
    left = precision(n, h.sigma_b, h.sigma)
    family = _family_after(h, np.maximum(one.W - one.w, 0) + left, one.total + left * (y_bar - h.mu))
    mean, sd, _ = _group_after(h, y_bar, n, family.mean, family.sd)
    return log_density(y, mean, sd**2 + h.sigma**2)


def log_predictive(h, new, seen):
    """Log density of new rows of the same groups given all that was seen [nats]."""
    after = conditional(h, seen)
    within = evaluate(log_within, new.n, new.SS, h.sigma)
    return within + log_density(new.y_bar, after.mean, after.sd**2 + h.sigma**2 / new.n)


def log_likelihood(theta, h, data):
    """Log density of a group's rows, each N(theta_g, sigma^2) [nats]."""
    return expected_log_density_rows(data.y_bar, data.n, data.SS, theta, 0, h.sigma)


def expected_log_likelihood(h, data):
    """Its mean over theta_g | y [nats]."""
    after = conditional(h, data)
    return expected_log_density_rows(data.y_bar, data.n, data.SS, after.mean, after.sd, h.sigma)


def emptied(data):
    """The same groups before their data."""
    return data.assign({name: xr.zeros_like(data[name]) for name in STATISTICS})


def joined(*parts):
    """The groups of several data sets; families are known by their labels."""
    group, family = parts[0].member.dims
    codes, labels = pd.factorize(np.concatenate([part[family].values[part.family.values] for part in parts]))
    each = xr.concat([part[[*STATISTICS]].drop_vars(family, errors="ignore") for part in parts], dim=group)
    member = ((group, family), np.eye(labels.size)[codes])
    return each.assign(member=member, family=(group, codes)).assign_coords({family: labels})
