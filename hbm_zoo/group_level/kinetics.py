"""One module given the population: its log rates on nodes, what its network says there, and how its data scatter.

    y_ji | theta_j ~ N(x_s(t_i; exp theta_j), sigma^2),   theta_j ~ N(mu, diag(omega^2))

What a module's data say of its rates is a sum of squares: of how far the mean of the rows of a species at a time
is from what the network has there, so often as there are rows, and of the rows around these means.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
import xarray as xr
from scipy.optimize import least_squares

from hbm_zoo.group_level.cloud import Cloud, on_nodes
from hbm_zoo.group_level.equations import Equations
from hbm_zoo.group_level.kept import last_kept
from hbm_zoo.group_level.level import GroupLevel
from hbm_zoo.group_level.network import Network
from hbm_zoo.group_level.solutions import solution
from hbm_zoo.group_level.weighted import MultivariateNormal, Weighted

KAPPA = "1 - E[Var(theta | y, h)] / omega^2, of the log"
CELL = ["instant", "species"]
#: Of the arrays that say what a row is: of an observation.
ROW = ("value", "of_module", "of_instant", "of_species")
#: From typical rates, in logs, beyond which a least square is none; steps to begin from, and of slopes; the least that
#: a rate moves what is expected, over the most, for it to be told from the others.
FARTHEST, BEGINNINGS, SLOPE, TOLD = 8.0, (0.0, -1.0, 1.0), 1e-2, 1e-3
#: Nodes a module that move with the population, if there is a formula for what is there or not; how often the others
#: are placed anew.
MOVING, ROUNDS = {True: 128, False: 64}, 3


@dataclass(frozen=True)
class Kinetics:
    """Modules of one network.

    Attributes
    ----------
    network
        The reactions, or equations.
    size
        Nodes a module.
    """

    network: Network | Equations
    size: int = 1024
    _solution: list = field(default_factory=list, init=False, repr=False, compare=False)

    @property
    def names(self) -> list[str]:
        """Of the rates: theta are their logs."""
        return [*self.network.rates]

    # The population.

    def population(self, h: xr.Dataset) -> MultivariateNormal:
        """Theta ~ N(mu, diag(omega^2))."""
        mu, omega = (self._by_rate(h, what) for what in ("mu", "omega"))
        unit = xr.DataArray(np.eye(len(self.names)), dims=("coefficient", "deviate"))
        return MultivariateNormal(mu, omega * unit)

    def _by_rate(self, h: xr.Dataset, what: str) -> xr.DataArray:
        values = xr.broadcast(*(h[f"{what}_{name}"] for name in self.names))
        stacked = np.stack([value.values for value in values])  # many times as fast as to concatenate
        return xr.DataArray(stacked, {**values[0].coords, "coefficient": self.names}, ("coefficient", *values[0].dims))

    # One module.

    def expected(self, theta: xr.DataArray, data: xr.Dataset) -> xr.DataArray:
        """How much there is [..., module, instant, species]."""
        given = [["coefficient"], ["species"], ["instant"]]
        return xr.apply_ufunc(
            self._solved, theta, data.start, data.time, input_core_dims=given, output_core_dims=[CELL]
        )

    def over_time(self, theta: xr.DataArray, time: xr.DataArray, data: xr.Dataset) -> xr.DataArray:
        """The last species that was measured, the product say, of each module [..., x]."""
        at = data.drop_dims(["instant", "observation"]).assign(time=time.rename({time.dims[0]: "instant"}))
        return self.expected(theta, at).isel(species=drawn(data)).rename(instant=time.dims[0])

    def _solved(self, theta: np.ndarray, start: np.ndarray, time: np.ndarray) -> np.ndarray:
        with np.errstate(over="ignore"):
            return solution(self.network, np.exp(theta), start, time)

    def replicate(self, rng: np.random.Generator, theta: xr.DataArray, h: xr.Dataset, new: xr.Dataset):
        """New rows [..., observation] of the species and at the times of ``new``."""
        rows = dict(zip(("module", *CELL), (new[name] for name in ROW[1:]), strict=True))
        f = self.expected(theta, new).isel(rows).drop_vars("module", errors="ignore")
        return xr.apply_ufunc(rng.normal, *xr.broadcast(f, h.sigma))

    # The integral over modules.

    @cached_property
    def cloud(self) -> Cloud:
        """Modules on nodes: the network is solved there once."""
        return Cloud(
            group="module",
            population=self.population,
            predict=self.squares,
            log_density=log_density,
            rough=self._rough,
            size=self.size,
            moving_size=MOVING[self.network.linear],
            rounds=ROUNDS,
            roughly=True,
        )

    def squares(self, theta: xr.DataArray, data: xr.Dataset) -> xr.DataArray:
        """Sum of squares of each module's rows [..., module]."""
        given = [["coefficient"], ["species"], ["instant"], CELL, CELL, []]
        arrays = data.start, data.time, data.average, data.rows, data.within
        return xr.apply_ufunc(self._squares, theta, *arrays, input_core_dims=given)

    def _squares(self, theta: np.ndarray, start, time, average, rows, within) -> np.ndarray:
        seen = rows.any(axis=tuple(range(rows.ndim - 2)) + (rows.ndim - 1,))  # others may have more instants
        time, average, rows = time[..., seen], average[..., seen, :], rows[..., seen, :]
        return of_squares(self._solved(theta, start, time), average, rows, within)

    def at_nodes(self, theta: xr.DataArray, data: xr.Dataset) -> xr.DataArray:
        """How much there is at nodes [module, node, instant, species]: solved once for all data of the same modules."""
        of = theta.values, data.start.values, data.time.values
        if not (self._solution and all(held is given for held, given in zip(self._solution[0], of, strict=True))):
            self._solution[:] = of, self.expected(theta, data)
        return self._solution[1]

    @cached_property
    def group_level(self) -> GroupLevel:
        """What is known of a module given the hyperparameters."""
        return self.cloud.group_level(
            replicate=self.replicate,
            without_group=without_module,
            leave_row_out=self.leave_row_out,
            without_row=self.without_row,
            kappa=KAPPA,
        )

    def leave_row_out(self, h: xr.Dataset, data: xr.Dataset, rows: np.ndarray) -> xr.DataArray:
        """Log density of each row given the others of its module [sample, observation] [nats].

        p(y_i | y_-i, h) = 1 / E[1 / p(y_i | theta_j)] over what is known of theta_j after all of them.
        """
        return xr.concat([self._without_others(h, data, int(i)) for i in rows], dim="observation")

    @last_kept
    def _of_module(self, h: xr.Dataset, data: xr.Dataset, j: int) -> tuple[xr.Dataset, Weighted]:
        """The data of a module, and what is known after them."""
        one = data.isel(module=[j])
        return one, self.cloud.conditional(h, one)

    def _without_others(self, h: xr.Dataset, data: xr.Dataset, i: int) -> xr.DataArray:
        value, j, instant, species = (data[name].values[i] for name in ROW)
        one, known = self._of_module(h, data, j)
        at = one.isel(instant=[instant])

        def there(theta: xr.DataArray) -> xr.DataArray:
            if "theta" in one and theta.values is one.theta.values:  # one solution for all rows of the module
                return self.at_nodes(theta, one).isel(instant=instant, species=species)
            return self.expected(theta, at).isel(instant=0, species=species)

        f = on_nodes(there, known.theta, one)
        of_row = -((value - f) ** 2) / (2 * h.sigma**2) - np.log(h.sigma) - np.log(2 * np.pi) / 2
        return -known.log_expectation(-of_row.where(known.weight > 0, 0.0)).isel(module=0, drop=True)

    def without_row(self, data: xr.Dataset, i: int) -> xr.Dataset:
        """The data without one row; the nodes stay, and what the other rows say there."""
        others = with_sums(data.isel(observation=np.arange(data.sizes["observation"]) != i))
        return others.assign(predicted=self.squares(data.theta, others)) if "theta" in data else others

    def with_response(self, data: xr.Dataset, value: np.ndarray) -> xr.Dataset:
        """The same rows with other values; the nodes stay, and what there is at them."""
        anew = with_sums(data.assign(value=("observation", value)))
        if "theta" not in data:
            return anew
        given, arrays = [CELL, CELL, CELL, []], (anew.average, anew.rows, anew.within)
        squares = xr.apply_ufunc(of_squares, self.at_nodes(data.theta, data), *arrays, input_core_dims=given)
        return anew.assign(predicted=squares.transpose(*data.predicted.dims))

    def _rough(self, data: xr.Dataset, priors) -> xr.Dataset:
        """Typical rates, a factor e apart, noise of a tenth of a typical value."""
        h = {f"mu_{name}": value for name, value in self.typical(data).items()} | {
            f"omega_{n}": 1.0 for n in self.names
        }
        return xr.Dataset(h | {"sigma": 0.1 * typical_value(data)})

    def typical(self, data: xr.Dataset) -> dict[str, float]:
        """Logs of rates by which a typical amount turns over in a typical time."""
        scales = self.network.typical(data.attrs["typical_amount"], data.attrs["typical_time"])
        return {name: float(np.log(value)) for name, value in scales.items()}

    # A module's own data alone.

    def own(self, data: xr.Dataset) -> xr.DataArray:
        """theta_j by least squares; NaN where a module's rows cannot tell its rates."""
        found = [self._least_squares(data.isel(module=j)) for j in range(data.sizes["module"])]
        coords = {"module": data.module, "coefficient": self.names}
        return xr.DataArray(np.reshape(found, (-1, len(self.names))), coords, ("module", "coefficient"))

    def _least_squares(self, one: xr.Dataset) -> np.ndarray:
        """Of one module, from a few beginnings; only where the slopes of its rows tell all rates apart."""
        seen, weight = one.rows.values > 0, np.sqrt(one.rows.values)
        middle = np.array([*self.typical(one).values()])
        if seen.sum() < middle.size:
            return np.full(middle.size, np.nan)

        def residuals(theta: np.ndarray) -> np.ndarray:
            x = self._solved(theta, one.start.values, one.time.values)
            return np.nan_to_num((weight * (x - one.average.values))[..., seen], nan=1e6)

        def slopes(theta: np.ndarray) -> np.ndarray:
            steps = SLOPE * np.eye(theta.size)
            return ((residuals(theta + steps) - residuals(theta - steps)) / (2 * SLOPE)).T

        ends = middle - FARTHEST, middle + FARTHEST
        beginnings = [middle + b for b in BEGINNINGS]
        if not self.network.linear:  # what takes steps takes them from the best of these
            beginnings = [min(beginnings, key=lambda theta: (residuals(theta) ** 2).sum())]
        fits = (least_squares(residuals, start, slopes, bounds=ends) for start in beginnings)
        best = min(fits, key=lambda fit: fit.cost)
        told = np.linalg.svd(best.jac, compute_uv=False)
        at_end = (abs(best.x - middle) > FARTHEST - 0.01).any()
        return np.full(middle.size, np.nan) if at_end or told[-1] < TOLD * told[0] else best.x


def of_squares(x: np.ndarray, average: np.ndarray, rows: np.ndarray, within: np.ndarray) -> np.ndarray:
    """Squares of rows [...] around what there is [..., instant, species]: around their means, and of these."""
    return within + (rows * (x - average) ** 2).sum(axis=(-2, -1))


def log_density(squares: xr.DataArray, h: xr.Dataset, data: xr.Dataset) -> xr.DataArray:
    """Log p(y_j | theta_jk, h) [..., module, node] [nats]."""
    n = data.rows.sum(CELL)
    return -n * (np.log(h.sigma) + np.log(2 * np.pi) / 2) - squares / (2 * h.sigma**2)


def with_sums(data: xr.Dataset) -> xr.Dataset:
    """All that a likelihood asks of rows: how many of each cell, their mean, and squares around these means."""
    value, *where = (data[name].values for name in ROW)
    shape = tuple(data.sizes[dim] for dim in ("module", *CELL))
    rows, total = np.zeros(shape), np.zeros(shape)
    np.add.at(rows, tuple(where), 1.0)
    np.add.at(total, tuple(where), value)
    average = total / np.maximum(rows, 1)
    within = np.bincount(where[0], (value - average[tuple(where)]) ** 2, shape[0])
    dims = ("module", *CELL)
    return data.assign(rows=(dims, rows), average=(dims, average), within=("module", within))


def without_module(data: xr.Dataset, group: str, j: int) -> xr.Dataset:
    """The data without one module, and rows that know their modules by their new places."""
    keep = np.arange(data.sizes["module"]) != j
    some = data.isel(module=keep, observation=keep[data.of_module.values])
    return some.assign(of_module=("observation", (np.cumsum(keep) - 1)[some.of_module.values]))


def drawn(data: xr.Dataset) -> int:
    """The position of the last species that was measured, which pictures show."""
    return int(data.of_species.max())


def rows_of(data: xr.Dataset) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Of each row of the last species that was measured whose it is, its time and its value."""
    of = data.of_module.values
    last = data.of_species.values == drawn(data)
    return of[last], data.time.values[of, data.of_instant.values][last], data.value.values[last]


def typical_value(data: xr.Dataset) -> float:
    """The median size of values that are not 0; 1 of none."""
    size = abs(data.value.values)
    return float(np.median(size[size > 0])) if (size > 0).any() else 1.0
