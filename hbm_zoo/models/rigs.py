"""What the readings of a rig must be for `model_discrepancy`, and what they say before any fit."""

from __future__ import annotations

import numpy as np
import pandas as pd

from hbm_zoo.frames.rules import FrameError
from hbm_zoo.models.beam import MM, NAME
from hbm_zoo.words import listed

PROPORTIONAL, STATIONARY = "proportional", "stationary"
#: Points of a discrepancy: its covariance is factored for each draw.
MOST_POINTS = 60
#: Young's moduli [GPa] of all that a beam is made of: softer than rubber, harder than diamond, is a wrong unit.
SOFTEST, HARDEST = 1e-3, 1300.0
#: Below which a material of beams is seldom, and a load in kN often.
SOFT = 0.5
#: Residuals over the median prediction below which readings are the model's own.
EXACT = 1e-9
#: Deflection over length beyond which a beam is no longer linear.
SLENDER = 0.1
#: Residuals over their median size beyond which chance has not made one: 6 sds of a normal.
FAR_OFF = 9.0
#: Specimens that a sentence names at most.
MOST_NAMED = 5


def check(data):
    """Refuse a rig that cannot tell what is asked, whatever it reads; say what else a reader must know.

    Raises
    ------
    FrameError
        If a specimen has no reading that tells of its compliance, or there are too few or too many sensors.
    """
    _check_sensors(data)
    if (data.ff == 0).any():
        which = data["specimen"].values[data.ff == 0][0]
        raise FrameError(f"{NAME}: specimen {which!s} has no reading under a load and off the support: leave it out.")
    rows = _rows(data)
    said = [_bent(rows), _soft(rows, data), _against(rows, _least_squares(data)), _repeated(rows), _alone(rows, data)]
    return [sentence for each in said for sentence in each]


def check_readings(data):
    """Refuse readings that no beam gives.

    Raises
    ------
    FrameError
        If readings are all 0, against the force, those of no material or of a beam that bends farther than it is long,
        or exactly the model's.
    """
    rows = _rows(data)
    off = rows["deflection"] - data.b_hat.values[rows["of_specimen"]] * rows["f"]
    if data.n.max() > 1 and float((off**2).max()) <= (EXACT * predicted(data)) ** 2:
        raise FrameError(
            f"{NAME}: column 'deflection' expected readings that err, got the model's own to the last digit: nothing "
            "says how large sigma is."
        )
    worst = rows.loc[_share(rows).idxmax()]
    if abs(worst["deflection"]) > worst["length"]:
        raise FrameError(
            f"{NAME}: column 'deflection' expected mm, got {worst['deflection']:g} of a beam of {worst['length']:g} "
            "mm, which does not bend that far."
        )


def _rows(data):
    """The readings, each with the label of its specimen and the length of its beam [mm]."""
    rows = pd.DataFrame({name: data[name].values for name in ("of_specimen", "position", "load", "deflection", "f")})
    of = rows["of_specimen"].to_numpy()
    return rows.assign(specimen=data["specimen"].values[of], length=MM * data.length.values[of])


def _share(rows):
    """Deflections as a share of the length."""
    return rows["deflection"].abs() / rows["length"]


def _check_sensors(data):
    """Refuse a discrepancy at one place, which is a compliance, and one at very many."""
    if "with_load" in data.attrs and np.unique(data.position.values).size < 2:
        raise FrameError(
            f"{NAME}: column 'position' expected two different ones or more, got one: nothing tells a discrepancy "
            'there from the compliance. Take the model for the truth, discrepancy="none".'
        )
    if data.sizes["point"] > MOST_POINTS:
        where = "positions" if data.attrs["with_load"] == PROPORTIONAL else "pairs of position and load"
        raise FrameError(
            f"{NAME} expected at most {MOST_POINTS} different {where}, got {data.sizes['point']}: average sensors that "
            "are neighbours."
        )


def _bent(rows):
    """Deflections that are no small share of the length."""
    if SLENDER < (most := _share(rows).max()) <= 1:
        yield (
            f"Deflections are up to {most:.0%} of the length: beams that bend that far are stiffer than a model that "
            "is linear."
        )


def _against(rows, m0):
    """Readings as if the force had pulled the other way, and not by chance."""
    off = (rows["deflection"] - m0 * rows["f"]).abs()
    against = rows[(rows["deflection"] * rows["f"] < 0) & (off > FAR_OFF * off.median())]
    if len(against):
        first = against.iloc[0]
        yield (
            f"Readings against the force: {len(against)} of {len(rows)}, the first of specimen {first['specimen']!s} "
            f"at {first['position']:g} m under {first['load']:g} N. Is a sign wrong?"
        )


def _repeated(rows):
    """Readings that may have been copied."""
    if again := int(rows.duplicated(["specimen", "position", "load", "deflection"]).sum()):
        yield (
            f"Repeated to the last digit: {again} of {len(rows)} readings, of the same specimen, place and load. If "
            "they were copied, not measured again, drop them: they make every interval too narrow."
        )


def _alone(rows, data):
    """Specimens that leave their compliance to what others say of the discrepancy."""
    sensors = rows.groupby("specimen", sort=False)["position"].nunique()
    alone = sensors.index[sensors < 2]
    if "with_load" in data.attrs and len(alone):
        yield (
            f"One sensor only: specimen {listed(map(str, alone[:MOST_NAMED]))}. Its compliance is told as well as "
            "others tell the discrepancy at that place."
        )


def _soft(rows, data):
    """Readings of a material that is softer than most: more often loads are in kN."""
    b = _least_squares(data)
    if "rig_from" not in data.attrs and _share(rows).max() <= SLENDER and SOFTEST * b < 1 < SOFT * b:
        yield (
            f"The readings are those of a material with E = {1 / b:.2g} GPa, softer than wood and most plastics: is "
            "'load' in N, 'deflection' in mm?"
        )


def compliance(data):
    """That of all readings under the model alone, if there is a material that has it [1/GPa]."""
    m0 = _least_squares(data)
    if m0 <= 0:
        raise FrameError(
            f"{NAME}: column 'deflection' expected readings in the direction of the load, got the opposite on average, "
            "or none at all: change the sign of one of the two columns."
        )
    if not SOFTEST < 1 / m0 < HARDEST:
        raise FrameError(
            f"{NAME}: the readings are those of a material with E = {1 / m0:.3g} GPa, and none has that. Expected "
            "position and length in m, load in N, deflection, width and thickness in mm."
        )
    return m0


def _least_squares(data):
    return float((data.ff * data.b_hat).sum() / data.ff.sum())


def predicted(data):
    """Median size of what the model says at the compliance of the readings [mm]."""
    f = data.f.values[data.f.values != 0]
    return float(np.median(abs(f))) * compliance(data)


def spacing(data):
    """Of the sensors: the median distance of neighbours, a quarter of the length if there is one sensor [m]."""
    places = np.unique(data.position.values)
    length = float(data.attrs["length"])
    return min(float(np.median(np.diff(places))), length / 4) if places.size > 1 else length / 4
