"""Rows of a frame as events, each a dose or a sample, and what is most likely wrong with them."""

from collections.abc import Collection

import numpy as np
import pandas as pd
import xarray as xr

from hbm_zoo.frames.rules import FrameError, cell
from hbm_zoo.group_level.dosing import check_doses
from hbm_zoo.group_level.residual_error import MEASURED
from hbm_zoo.priors import moments
from hbm_zoo.words import listed, plural

#: So many sds from what typical values expect, concentrations are in another unit.
CONTRADICTION = 4.0
#: What is expected where nothing is left of a dose, for a ratio.
NOTHING = 1e-300


def check_events(frame: pd.DataFrame, given: Collection[str]) -> None:
    """Refuse a row that is both a dose and a sample or neither, and a patient of several weights."""
    hint = "" if "amount" in given else " There is no column 'amount'."
    dose, sample = (frame[name].notna() for name in ("amount", "concentration"))
    for wrong, got in ((dose & sample, "both"), (~dose & ~sample, "neither")):
        if wrong.any():
            raise FrameError(
                f"population_pk expected each row to be a dose, with an 'amount', or a sample, with a 'concentration', "
                f"got {got} in row {frame.index[wrong][0]}.{hint}"
            )
    if (lasting := ~dose & (frame["duration"] > 0)).any():
        raise FrameError(
            f"population_pk: column 'duration' is of doses, got {cell(frame['duration'][lasting].iloc[0])} in row "
            f"{frame.index[lasting][0]}, which is a sample."
        )
    several = frame.groupby("patient", sort=False)["weight"].nunique()
    if (several > 1).any():
        patient = several.index[several > 1][0]
        got = listed(f"{w:g}" for w in frame["weight"][frame["patient"] == patient].unique())
        raise FrameError(f"population_pk: column 'weight' expected one weight of each patient, got {got} of {patient}.")


def check_whole(data, names):
    """A sentence of samples that are left out, of doses that are of no use, and of doses at one time.

    Raises
    ------
    FrameError
        If a typical value is missing or of no use, a patient has no dose or no sample, no sample is above 0 or above
        the limit, or what is swallowed has a duration.
    """
    _check_typical(data, names)
    check_doses(data)
    _check_samples(data)
    if "ka" in names and (data.duration > 0).any():
        raise FrameError("population_pk: column 'duration' is of infusions: route='iv'.")
    if left_out := int(((data.seen > 0) & (data.used == 0)).sum()):
        yield (
            f"{left_out} {plural('sample', left_out)} before any dose of the patient {'are' if left_out > 1 else 'is'} "
            f"left out: under a {data.attrs['error']} error nothing is known of them."
        )
    if late := int(((data.dose_time >= data.time.max("row")) & (data.amount > 0)).sum()):
        yield f"{late} {plural('dose', late)} no sooner than the patient's last sample: of no use to this fit."
    in_order = np.sort(data.dose_time.where(data.amount > 0).values, axis=1)
    if (twice := (np.diff(in_order, axis=1) == 0).any(axis=1)).any():
        yield (
            f"Several doses at one time, of {', '.join(map(str, data['patient'].values[twice][:5]))}: they are added. "
            "Is a row there twice?"
        )


def _check_typical(data, names):
    """Refuse a typical value that is missing, or is of what the route has not."""
    needed = [*(f"typical_{name}" for name in names), "typical_sd"]
    if missing := [name for name in needed if name not in data.attrs]:
        raise FrameError(
            f"population_pk needs to know what is typical: {', '.join(f'{name}=...' for name in missing)}. CL [L/h], "
            "V [L] and ka [1/h] from a leaflet or a former study, and the sd of their logs, 1 for a factor e."
        )
    if "typical_ka" in data.attrs and "ka" not in names:
        raise FrameError("population_pk: typical_ka is of what is swallowed; under route='iv' nothing is absorbed.")


def _check_samples(data):
    """Refuse a patient without samples, and samples of which none tells an amount."""
    without = data["patient"].values[data.seen.sum("row").values == 0]
    if without.size:
        raise FrameError(
            f"population_pk expected a sample of each patient, got none of {', '.join(map(str, without[:5]))}."
        )
    if not (data.concentration > 0).any():
        raise FrameError("population_pk: column 'concentration' expected values above 0, got none.")
    if not (data.used == MEASURED).any():
        raise FrameError(
            f"population_pk: every sample is at lloq={data.attrs['lloq']:g} or below: is it in the unit of "
            "'concentration'?"
        )


def contradiction(route, data, priors):
    """A sentence, if samples are far from what is typical of the priors: another unit, most likely."""
    which = "theta" if f"theta_{route.names[0]}" in priors else "mu"
    middle, variance = zip(
        *(moments(f"{which}_{name}", priors[f"{which}_{name}"]) for name in route.names), strict=True
    )
    f = np.maximum(route.expected(xr.DataArray(list(middle), dims="coefficient"), data), NOTHING)
    both = (data.used == MEASURED) & (data.sampled > 0)
    times = float(np.exp(np.log((data.sampled / f).where(both)).median()))
    if not abs(np.log(times)) > CONTRADICTION * np.sqrt(max(variance)):
        return None
    return (
        f"Samples are {times:.2g} times what typical values expect of these doses: are columns 'time', 'amount' and "
        "'concentration' and the typical values in the same units (h, mass, mass/L, L, L/h)?"
    )
