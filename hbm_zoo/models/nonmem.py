"""Read data sets written for NONMEM (Beal, Sheiner, Boeckmann & Bauer, NONMEM Users Guides, part I)."""

from __future__ import annotations

import numpy as np
import pandas as pd

from hbm_zoo.frames.rules import FrameError, cell
from hbm_zoo.words import listed

NEEDED = ("ID", "TIME", "AMT", "DV")
#: What a row may say and the model does not know, each with what it would mean.
NOT_READ = {
    "ADDL": "further doses that have no row",
    "II": "the time between doses that have no row",
    "SS": "a steady state before the row",
}
OBSERVED, DOSE = 0, 1
MISSING = "."


def from_nonmem(frame: pd.DataFrame) -> pd.DataFrame:
    """A NONMEM data set as a frame of `population_pk`, one row an event.

    Parameters
    ----------
    frame : pandas.DataFrame
        Columns ID, TIME, AMT, DV, and EVID, MDV, RATE, WT where there are any; a point is nothing.

    Returns
    -------
    pandas.DataFrame
        Columns patient, time [h], amount, concentration, and duration [h], weight where there is a RATE, a WT.
        Rows that hold nothing (MDV 1 and no dose, EVID 2) are left out, and counted in ``attrs["notes"]``.

    Raises
    ------
    FrameError
        If a column is missing, a cell is no number, or a row says what the model does not know: ADDL, II, SS, an EVID
        of 3 or 4, a RATE below 0.

    Examples
    --------
    >>> rows = {"ID": [1, 1], "TIME": [0.0, 2.0], "AMT": [100.0, "."], "DV": [".", 3.1]}
    >>> from_nonmem(pd.DataFrame(rows))["concentration"].tolist()
    [nan, 3.1]
    """
    if missing := [name for name in NEEDED if name not in frame.columns]:
        raise FrameError(f"from_nonmem expected columns {listed(NEEDED)}, got none named {listed(missing)}.")
    known = [name for name in (*NEEDED[1:], "EVID", "MDV", "RATE", "WT", *NOT_READ) if name in frame.columns]
    numbers = pd.DataFrame({name: _numbers(frame, name) for name in known})
    _check_read(frame, numbers)
    amount = numbers["AMT"].fillna(0.0)
    kind = numbers["EVID"] if "EVID" in numbers else pd.Series(np.where(amount > 0, DOSE, OBSERVED), frame.index)
    if (other := ~kind.isin([OBSERVED, DOSE, 2])).any():
        raise FrameError(_refused(frame, "EVID", other, "0, 1 or 2: a reset is not read"))
    if (empty := (kind == DOSE) & ~(amount > 0)).any():
        raise FrameError(_refused(frame, "AMT", empty, "a dose above 0 where EVID is 1"))
    is_dose = kind == DOSE
    is_sample = (kind == OBSERVED) & (numbers.get("MDV", 0.0 * amount).fillna(0) == 0)
    read = pd.DataFrame({"patient": frame["ID"], "time": numbers["TIME"], "amount": amount.where(is_dose)})
    if "RATE" in numbers:
        rate = numbers["RATE"].fillna(0.0)
        if (modelled := rate < 0).any():
            raise FrameError(_refused(frame, "RATE", modelled, "0 or above: a rate that is modelled is not read"))
        read["duration"] = (amount / rate.where(rate > 0)).where(is_dose)
    read["concentration"] = numbers["DV"].where(is_sample)
    if "WT" in numbers:
        read["weight"] = numbers["WT"]
    kept = read[is_dose | is_sample].reset_index(drop=True)
    if left_out := len(read) - len(kept):
        kept.attrs["notes"] = [
            f"{left_out} of {len(read)} rows hold neither a dose nor a sample (MDV, EVID) and are left out."
        ]
    return kept


def _check_read(frame: pd.DataFrame, numbers: pd.DataFrame) -> None:
    """Refuse what would be read as something else."""
    for name, meaning in NOT_READ.items():
        if name in numbers and (said := numbers[name].fillna(0) != 0).any():
            raise FrameError(
                _refused(frame, name, said, f"nothing or 0: {meaning} {'are' if name == 'ADDL' else 'is'} not read")
            )


def _numbers(frame: pd.DataFrame, name: str) -> pd.Series:
    """A column as numbers, a point or nothing as NaN."""
    column = frame[name].map(lambda v: np.nan if isinstance(v, str) and v.strip() in ("", MISSING) else v)
    found = pd.to_numeric(column, errors="coerce")
    if (wrong := found.isna() & column.notna()).any():
        raise FrameError(_refused(frame, name, wrong, "a number"))
    return found


def _refused(frame: pd.DataFrame, name: str, where: pd.Series, expected: str) -> str:
    return (
        f"from_nonmem: column {name!r} expected {expected}, got {cell(frame[name][where].iloc[0])} in row "
        f"{frame.index[where][0]}."
    )
