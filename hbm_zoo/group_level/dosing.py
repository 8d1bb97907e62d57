"""Doses and samples of patients side by side: what each dose has given by each sample, and who has which."""

from __future__ import annotations

import numpy as np
import pandas as pd
import xarray as xr

from hbm_zoo.group_level.one_compartment import course
from hbm_zoo.words import listed

DOSE = ("dose_time", "amount", "duration")
COURSE = ("given", "since", "lasting")


def side_by_side(of: np.ndarray, columns: dict[str, np.ndarray], dim: str, patients: int) -> dict[str, tuple]:
    """Columns as arrays [patient, dim], as long as the longest needs, the rest 0; ``there``, what is not rest."""
    within = pd.Series(of).groupby(of).cumcount().to_numpy()
    shape = patients, within.max() + 1 if within.size else 0
    arrays = {name: np.zeros(shape) for name in columns}
    for name, values in columns.items():
        arrays[name][of, within] = values
    return {name: (("patient", dim), array) for name, array in arrays.items()}


def with_courses(data: xr.Dataset) -> xr.Dataset:
    """What each dose has given by each sample, ``given``, ``since`` and ``lasting`` [patient, row, dose]."""
    arrays = xr.apply_ufunc(course, data.time, *(data[name] for name in DOSE), output_core_dims=[[], [], []])
    dims = ("patient", "row", "dose")
    return data.assign({name: array.transpose(*dims) for name, array in zip(COURSE, arrays, strict=True)})


def at_times(data: xr.Dataset, time: xr.DataArray) -> xr.Dataset:
    """The patients with rows at other times [row], the same of all."""
    return with_courses(data.drop_dims(["row", "observation"]).assign(time=time.rename({time.dims[0]: "row"})))


def samples(data: xr.Dataset) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Whose each sample is, its time [h] and the concentration."""
    of, row = data.of_patient.values, data.of_row.values
    return of, data.time.values[of, row], data.concentration.values


def with_history(new: xr.Dataset, seen: xr.Dataset) -> xr.Dataset:
    """New rows with the doses that a fit knows of their patients; one that comes again is the same dose.

    Raises
    ------
    ValueError
        If a patient has no dose at all.
    """
    if new is seen:
        return new
    known = pd.Index([str(label) for label in seen["patient"].values])
    where = known.get_indexer([str(label) for label in new["patient"].values])
    before = seen[list(DOSE)].isel(patient=np.maximum(where, 0)).drop_vars("patient", errors="ignore")
    before["amount"] = before.amount * xr.DataArray(where >= 0, dims="patient")
    ours = new[list(DOSE)].drop_vars("patient", errors="ignore")
    again = xr.ones_like(ours.amount, dtype=bool)
    for name in DOSE:
        again = again & (ours[name] == before[name].rename(dose="earlier"))
    ours["amount"] = ours.amount.where(~again.any("earlier"), 0.0)
    both = xr.concat([before, ours], dim="dose", data_vars="all")
    plain = new.drop_dims("dose").assign(both.data_vars)
    check_doses(plain)
    return with_courses(plain)


def check_doses(data: xr.Dataset) -> None:
    """Refuse patients without a dose."""
    without = data["patient"].values[~(data.amount > 0).any("dose").values]
    if without.size:
        raise ValueError(
            f"population_pk expected at least one dose of each patient, a row with an 'amount', got none of "
            f"{listed(map(str, without[:5]))}."
        )


def without_patient(data: xr.Dataset, group: str, j: int) -> xr.Dataset:
    """The data without one patient, and samples that know their patients by their new places."""
    keep = np.arange(data.sizes["patient"]) != j
    of = data.of_patient.values
    some = data.isel(patient=keep, observation=keep[of])
    return some.assign(of_patient=("observation", (np.cumsum(keep) - 1)[some.of_patient.values]))


def joined(seen: xr.Dataset, new: xr.Dataset) -> xr.Dataset:
    """The patients of two data sets, as many rows and doses of each as the longest has."""
    parts = []
    for data in (seen, new):
        longer = {dim: max(seen.sizes[dim], new.sizes[dim]) - data.sizes[dim] for dim in ("row", "dose")}
        wide = data.drop_dims("observation").pad({dim: (0, n) for dim, n in longer.items()}, constant_values=0.0)
        parts.append(wide.assign_coords(patient=[str(label) for label in data["patient"].values]))
    rows = [
        data[["concentration", "of_patient", "of_row"]].drop_vars("patient", errors="ignore") for data in (seen, new)
    ]
    rows[1]["of_patient"] = rows[1].of_patient + seen.sizes["patient"]
    one_by_one = xr.concat(rows, dim="observation")
    return xr.concat(parts, dim="patient").assign(one_by_one.data_vars).assign_attrs(seen.attrs)
