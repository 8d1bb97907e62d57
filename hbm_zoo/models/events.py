"""Rows of a frame as events: each a dose or a sample."""

import warnings

import pandas as pd

from hbm_zoo.frames.rules import FrameError, FrameWarning, cell
from hbm_zoo.group_level.dosing import check_doses
from hbm_zoo.words import listed, plural


def check_events(frame: pd.DataFrame) -> None:
    """Refuse a row that is both a dose and a sample or neither, and a patient of several weights."""
    dose, sample = (frame[name].notna() for name in ("amount", "concentration"))
    for wrong, got in ((dose & sample, "both"), (~dose & ~sample, "neither")):
        if wrong.any():
            raise FrameError(
                f"population_pk expected each row to be a dose, with an 'amount', or a sample, with a 'concentration', "
                f"got {got} in row {frame.index[wrong][0]}."
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


def check_whole(data, absorbed):
    """What a whole data set must have, and what its owner should know of it."""
    check_doses(data)
    without = data["patient"].values[data.seen.sum("row").values == 0]
    if without.size:
        raise FrameError(
            f"population_pk expected a sample of each patient, got none of {', '.join(map(str, without[:5]))}."
        )
    if not (data.concentration > 0).any():
        raise FrameError("population_pk: column 'concentration' expected values above 0, got none.")
    if absorbed and (data.duration > 0).any():
        raise FrameError("population_pk: column 'duration' is of infusions: route='iv'.")
    if left_out := int(((data.seen > 0) & (data.used == 0)).sum()):
        warnings.warn(
            f"{left_out} {plural('sample', left_out)} before any dose of the patient {'are' if left_out > 1 else 'is'} "
            f"left out: under a {data.attrs['error']} error nothing is known of them.",
            FrameWarning,
            stacklevel=5,
        )
    late = int(((data.dose_time >= data.time.max("row")) & (data.amount > 0)).sum())
    if late:
        warnings.warn(
            f"{late} {plural('dose', late)} no sooner than the patient's last sample: of no use to this fit.",
            FrameWarning,
            stacklevel=5,
        )
