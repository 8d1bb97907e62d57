"""One patient given the population: how a drug gets in and out, whatever is known of the hyperparameters."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import xarray as xr
from scipy.optimize import least_squares

from hbm_zoo.group_level import dosing, one_compartment
from hbm_zoo.group_level.cloud import Cloud, on_nodes
from hbm_zoo.group_level.kept import last_kept
from hbm_zoo.group_level.level import GroupLevel
from hbm_zoo.group_level.residual_error import BELOW, MEASURED, log_density, residual_error
from hbm_zoo.group_level.weighted import MultivariateNormal, Weighted

CORRELATIONS = {
    "rho_CL_V": "correlation of log clearance and log volume",
    "rho_CL_ka": "correlation of log clearance and log absorption rate",
    "partial_V_ka": "correlation of log volume and log absorption rate, given the clearance",
}
KAPPA = "1 - E[Var(theta | y, h)] / omega^2, of the log"
#: Dims of what a curve takes.
CURVE = [["coefficient"], [], [], *[["row", "dose"]] * 3]
#: From typical values, in logs, beyond which a least square is none, and steps of the last log to begin from.
FARTHEST, BEGINNINGS = 8.0, (0.0, -1.5, 1.5)


def correlations_of(names: tuple[str, ...]) -> list[str]:
    """One of two logs, three of three."""
    return [*CORRELATIONS][: len(names) * (len(names) - 1) // 2]


@dataclass(frozen=True)
class Route:
    """How a drug gets in: the logs that a patient has, and the curve of a dose.

    Attributes
    ----------
    names
        CL, V and, if the drug is absorbed, ka: theta are their logs.
    curve
        ``curve(given, since, lasting, *individual, xp)``, as of `one_compartment`.
    size
        Nodes a patient.
    """

    names: tuple[str, ...]
    curve: Callable
    size: int = 1024

    # The population.

    def population(self, h: xr.Dataset) -> MultivariateNormal:
        """Theta ~ N(mu, Omega)."""
        mean = _stacked([h[f"mu_{name}"] for name in self.names], "coefficient")
        factor = _stacked([_stacked(row, "deviate") for row in self.factor(h.__getitem__)], "coefficient")
        labels = {"coefficient": [*self.names]}
        return MultivariateNormal(mean.assign_coords(labels), factor.assign_coords(labels))

    def factor(self, value: Callable) -> list[list]:
        """Rows of the Cholesky factor of Omega, from ``value(name)`` of a spread or a correlation.

        The third correlation is partial, given the first log: any three in (-1, 1) are correlations (Lewandowski,
        Kurowicka & Joe 2009, J Multivar Anal 100:1989-2001).
        """
        rho = [value(name) for name in correlations_of(self.names)]
        rows = [[1.0], [rho[0], (1 - rho[0] ** 2) ** 0.5]]
        if len(rho) == 3:
            left = (1 - rho[1] ** 2) ** 0.5
            rows.append([rho[1], rho[2] * left, (1 - rho[2] ** 2) ** 0.5 * left])
        omega = [value(f"omega_{name}") for name in self.names]
        zeros = len(omega) - np.arange(1, len(omega) + 1)
        return [[w * r for r in row] + [0.0] * rest for w, row, rest in zip(omega, rows, zeros, strict=True)]

    # One patient.

    def individual(self, values, size_CL, size_V) -> list:
        """CL, V and ka of a patient who is so many times the typical one."""
        CL, V, *absorption = values
        return [CL * size_CL, V * size_V, *absorption]

    def expected(self, theta: xr.DataArray, data: xr.Dataset) -> xr.DataArray:
        """F of each row [..., patient, row]."""
        given = theta, data.size_CL, data.size_V, *(data[name] for name in dosing.COURSE)
        return xr.apply_ufunc(self._curve, *given, input_core_dims=CURVE, output_core_dims=[["row"]])

    def over_time(self, theta: xr.DataArray, time: xr.DataArray, data: xr.Dataset) -> xr.DataArray:
        """F of each patient after all of the doses [..., patient, x]."""
        return self.expected(theta, dosing.at_times(data, time)).rename(row=time.dims[0])

    def _curve(self, theta: np.ndarray, size_CL: np.ndarray, size_V: np.ndarray, *doses: np.ndarray) -> np.ndarray:
        """The same [..., row] without names, dose after dose: curves are asked for by the million."""
        values = [np.exp(theta[..., k, None]) for k in range(len(self.names))]
        individual = self.individual(values, size_CL[..., None], size_V[..., None])
        given = [i for i in range(doses[0].shape[-1]) if doses[0][..., i].any()]  # of the others nothing is left to add
        each = (self.curve(*(d[..., i] for d in doses), *individual) for i in given)
        return sum(each, np.zeros(doses[0].shape[:-1]) * individual[0])

    def replicate(
        self, rng: np.random.Generator, theta: xr.DataArray, h: xr.Dataset, new: xr.Dataset, seen: xr.Dataset
    ):
        """New samples [..., observation] at the times of ``new``; of a known patient, after the doses of the fit."""
        data = dosing.with_history(new, seen)
        f = self.expected(theta, data).isel(patient=data.of_patient, row=data.of_row)
        drawn = xr.apply_ufunc(rng.normal, *xr.broadcast(f, _error(data).sd(f, h.sigma_add, h.sigma_prop)))
        reported = np.maximum(drawn, data.attrs["lloq"]) if data.attrs["lloq"] else drawn
        return reported.drop_vars("patient", errors="ignore")

    def mirrored(self, theta, log_ratio=0.0):
        """Theta [..., coefficient] with the two rates exchanged, of a patient of so much more clearance than volume.

        ke = CL/V is the absorption rate there and V = CL/ka: the same curve.
        """
        log_CL, log_V, log_ka = (theta[..., k] for k in range(3))
        return np.stack([log_CL, log_CL - log_ka + log_ratio, log_CL - log_V + log_ratio], axis=-1)

    # The integral over patients.

    @cached_property
    def cloud(self) -> Cloud:
        """Patients on nodes: the curve is computed there once."""
        return Cloud(
            group="patient",
            population=self.population,
            predict=self._sums,
            log_density=_log_density,
            rough=self._rough,
            size=self.size,
        )

    def _sums(self, theta: xr.DataArray, data: xr.Dataset) -> xr.DataArray:
        """All of a patient's likelihood that no hyperparameter changes [..., part]."""
        given = theta, data.size_CL, data.size_V, *(data[name] for name in dosing.COURSE), data.sampled, data.used
        core = [*CURVE, ["row"], ["row"]]

        def sums(*arrays: np.ndarray) -> np.ndarray:
            return _error(data).sums(self._curve(*arrays[:-2]), *arrays[-2:])

        return xr.apply_ufunc(sums, *given, input_core_dims=core, output_core_dims=[["part"]])

    @cached_property
    def group_level(self) -> GroupLevel:
        """What is known of a patient given the hyperparameters."""
        of_cloud = self.cloud.group_level(
            without_group=dosing.without_patient,
            leave_row_out=self.leave_row_out,
            without_row=self.without_row,
            kappa=KAPPA,
        )
        return replace(of_cloud, replicate=self.replicate)

    def leave_row_out(self, h: xr.Dataset, data: xr.Dataset, rows: np.ndarray) -> xr.DataArray:
        """Log density of each sample given the others of its patient [sample, observation] [nats].

        p(y_i | y_-i, h) = 1 / E[1 / p(y_i | theta_j)] over what is known of theta_j after all of them.
        """
        return xr.concat([self._without_others(h, data, int(i)) for i in rows], dim="observation")

    def _without_others(self, h: xr.Dataset, data: xr.Dataset, i: int) -> xr.DataArray:
        j, row = data.of_patient.values[i], data.of_row.values[i]
        if data.used.values[j, row] == 0:  # a sample that is left out
            return 0.0 * h.sigma_add
        one, known = self._of_patient(h, data, j)
        at = one.isel(row=[row])
        f = on_nodes(lambda theta: self.expected(theta, at).isel(row=0), known.theta, one)
        scatter = _error(data).sd(f, h.sigma_add, h.sigma_prop)
        below = one.used.values[0, row] == BELOW
        of_row = xr.apply_ufunc(log_density, data.concentration.values[i], f, scatter, below)
        left_out = -known.log_expectation(-of_row.where(known.weight > 0, 0.0))
        return left_out.isel(patient=0, drop=True)

    @last_kept
    def _of_patient(self, h: xr.Dataset, data: xr.Dataset, j: int) -> tuple[xr.Dataset, Weighted]:
        """The data of a patient, and what is known after them."""
        one = data.isel(patient=[j])
        return one, self.cloud.conditional(h, one)

    def without_row(self, data: xr.Dataset, i: int) -> xr.Dataset:
        """The data without one sample; the nodes stay, and what is expected of the others there."""
        here = {"patient": data.of_patient.values[i], "row": data.of_row.values[i]}
        masks = {name: data[name].copy() for name in ("seen", "used")}
        for mask in masks.values():
            mask[here] = 0.0
        others = data.assign(masks).isel(observation=np.arange(data.sizes["observation"]) != i)
        return others.assign(predicted=self._sums(data.theta, others)) if "theta" in data else others

    def with_response(self, data: xr.Dataset, concentration: np.ndarray) -> xr.Dataset:
        """The same doses and times with other concentrations; the nodes stay, and what is expected there."""
        sampled, used = data.sampled.copy(), xr.where(data.used > 0, MEASURED, 0.0)
        here = {"patient": data.of_patient, "row": data.of_row}
        sampled[here] = concentration
        if limit := data.attrs["lloq"]:
            used = xr.where((used > 0) & (sampled <= limit), BELOW, used)
        fresh = {"concentration": ("observation", concentration), "sampled": sampled, "used": used}
        anew = data.assign(fresh)
        return anew.assign(predicted=self._sums(data.theta, anew)) if "theta" in data else anew

    def _rough(self, data: xr.Dataset, priors) -> xr.Dataset:
        """Typical values, patients half a unit apart on the log, noise of a fifth of a typical sample."""
        mu = {f"mu_{name}": np.log(data.attrs[f"typical_{name}"]) for name in self.names}
        omega = {f"omega_{name}": 0.5 for name in self.names}
        typical = float(abs(data.concentration).median()) if data.concentration.size else 1.0
        sigma = {"sigma_add": 0.2 * (typical or 1.0), "sigma_prop": 0.2} | _error(data).fixed
        return xr.Dataset(mu | omega | dict.fromkeys(correlations_of(self.names), 0.0) | sigma)

    # A patient's own data alone.

    def own(self, data: xr.Dataset) -> xr.DataArray:
        """theta_j by least squares; NaN where there are fewer samples than logs, or no least."""
        found = [self._least_squares(data.isel(patient=j)) for j in range(data.sizes["patient"])]
        coords = {"patient": data.patient, "coefficient": [*self.names]}
        return xr.DataArray(np.reshape(found, (-1, len(self.names))), coords, ("patient", "coefficient"))

    def _least_squares(self, one: xr.Dataset) -> np.ndarray:
        """Of one patient, from a few beginnings; absorption is the faster of two rates."""
        used = one.used.values == MEASURED
        if used.sum() < len(self.names):
            return np.full(len(self.names), np.nan)
        doses, y = [one[name].values[used] for name in dosing.COURSE], one.sampled.values[used]
        sizes = one.size_CL.item(), one.size_V.item()

        def residuals(logs: np.ndarray) -> np.ndarray:
            return self.curve(*doses, *self.individual(np.exp(logs), *sizes)).sum(axis=-1) - y

        middle = np.log([one.attrs[f"typical_{name}"] for name in self.names])
        last = np.eye(len(self.names))[-1]
        ends = middle - FARTHEST, middle + FARTHEST
        fits = [least_squares(residuals, middle + step * last, bounds=ends) for step in BEGINNINGS]
        best = min(fits, key=lambda fit: fit.cost).x
        if (abs(best - middle) > FARTHEST - 0.01).any():
            return np.full(len(self.names), np.nan)
        if len(self.names) == 3:
            other = self.mirrored(best, np.log(sizes[0] / sizes[1]))
            return max(best, other, key=lambda theta: theta[2])
        return best


def _stacked(values: list, dim: str) -> xr.DataArray:
    first, *others = xr.broadcast(*map(xr.DataArray, values))
    arrays = [first.values, *(other.transpose(*first.dims).values for other in others)]
    return xr.DataArray(np.stack(arrays), first.coords, (dim, *first.dims))


def _error(data: xr.Dataset):
    return residual_error(data.attrs["error"], data.attrs["lloq"])


def _log_density(predicted: xr.DataArray, h: xr.Dataset, data: xr.Dataset) -> xr.DataArray:
    """Log p(y_j | theta_jk, h) [..., patient, node] [nats]."""
    core = [["part"], ["row"], ["row"], [], []]
    given = predicted, data.sampled, data.used, h.sigma_add, h.sigma_prop
    return xr.apply_ufunc(_error(data).log_density, *given, input_core_dims=core)


#: By the option ``route``.
ORAL = Route(("CL", "V", "ka"), one_compartment.oral)
IV = Route(("CL", "V"), one_compartment.intravenous, size=512)
ROUTES = {"oral": ORAL, "iv": IV}
