"""An effect and its standard error from the tables that trials come in."""

import warnings
from collections.abc import Collection, Mapping
from types import MappingProxyType

import numpy as np
import pandas as pd

from hbm_zoo.frames.numerals import as_numbers
from hbm_zoo.frames.rules import FrameError, Rule, check, count, label, number, positive
from hbm_zoo.words import choose

COUNTS = {
    "clinic": label("the clinic's name", unique=True),
    "events_treated": count("treated patients with an event [patients]"),
    "total_treated": count("treated patients [patients]"),
    "events_control": count("controls with an event [patients]"),
    "total_control": count("controls [patients]"),
}
ESCALC = {"yi": number("effect"), "vi": positive("its sampling variance")}


def log_risk_ratio(a, b, c, d):
    """log(p1 / p0) and its variance 1/a - 1/n1 + 1/c - 1/n0."""
    return np.log(a / (a + b)) - np.log(c / (c + d)), 1 / a - 1 / (a + b) + 1 / c - 1 / (c + d)


def log_odds_ratio(a, b, c, d):
    """log(ad / bc) and its variance 1/a + 1/b + 1/c + 1/d (Woolf 1955)."""
    return np.log(a * d / (b * c)), 1 / a + 1 / b + 1 / c + 1 / d


def risk_difference(a, b, c, d):
    """p1 - p0 and its variance p1 (1 - p1)/n1 + p0 (1 - p0)/n0."""
    return a / (a + b) - c / (c + d), a * b / (a + b) ** 3 + c * d / (c + d) ** 3


MEASURES = MappingProxyType({f.__name__: f for f in (log_risk_ratio, log_odds_ratio, risk_difference)})


def from_counts(frame: pd.DataFrame, measure: str = "log_risk_ratio") -> pd.DataFrame:
    """Effects of two-armed trials from their events and totals.

    Parameters
    ----------
    frame : pandas.DataFrame
        One row a trial: clinic, events_treated, total_treated, events_control,
        total_control [patients].
    measure : {"log_risk_ratio", "log_odds_ratio", "risk_difference"}
        Treated against control: below 0, fewer events among the treated.

    Returns
    -------
    pandas.DataFrame
        clinic, effect, standard_error, and the frame's further columns, such as moderators.

    Raises
    ------
    FrameError
        If a column is missing, a value is no count, or events exceed their total.
    ValueError
        If the measure is unknown.

    Warns
    -----
    UserWarning
        If a trial has a zero cell: 0.5 is added to the four cells of that trial only, which
        pulls its effect towards none. If an arm pair has no event at all, or nothing but
        events: it has no say on a ratio and is left out of one.

    Notes
    -----
    Cochrane Handbook for Systematic Reviews of Interventions, 6th ed., sections 10.4.4
    and 6.4.1; R's metafor::escalc (Viechtbauer 2010) adds 0.5 to the same trials.

    Examples
    --------
    >>> import pandas as pd
    >>> trial = pd.DataFrame({"clinic": ["Aronson"], "events_treated": [4], "total_treated": [123],
    ...                       "events_control": [11], "total_control": [139]})
    >>> from_counts(trial).round(3).values.tolist()
    [['Aronson', -0.889, 0.571]]
    """
    choose(measure, MEASURES, "measure")
    trials, notes = _read(frame, COUNTS, "from_counts"), []
    cells = np.column_stack([*_arm(trials, "treated"), *_arm(trials, "control")])
    silent = (cells[:, [0, 2]] == 0).all(axis=1) | (cells[:, [1, 3]] == 0).all(axis=1)
    if silent.any() and measure != "risk_difference":
        notes.append(
            f"left out {_named(trials, silent)}: both arms without an event, or with nothing else, say nothing of a "
            f"{measure.replace('_', ' ')}."
        )
        trials, cells = trials[~silent], cells[~silent]
    zero = (cells == 0).any(axis=1)
    if zero.any():
        notes.append(f"added 0.5 to the four cells of {_named(trials, zero)}, each with a zero cell.")
    effect, variance = MEASURES[measure](*(cells + 0.5 * zero[:, None]).T)
    effects = pd.DataFrame({"clinic": trials["clinic"], "effect": effect, "standard_error": np.sqrt(variance)})
    for note in notes:
        warnings.warn(f"from_counts {note}", stacklevel=2)
    read = _with_further(effects, frame, COUNTS)
    read.attrs["notes"] = [f"from_counts {note}" for note in notes]
    return read


def from_escalc(frame: pd.DataFrame, label: str | None = None) -> pd.DataFrame:
    """Effects as R's ``metafor::escalc`` writes them.

    Parameters
    ----------
    frame : pandas.DataFrame
        Columns yi (effect) and vi (sampling variance).
    label : str, optional
        The column that names the trials. Default: ``trial``, if there is one; else they are numbered from 1.

    Returns
    -------
    pandas.DataFrame
        clinic, effect, standard_error, and the frame's further columns, such as moderators.

    Raises
    ------
    FrameError
        If yi or vi is missing, empty, or vi is not above 0.
    ValueError
        If there is no column of the name given.

    Examples
    --------
    >>> import pandas as pd
    >>> from_escalc(pd.DataFrame({"yi": [-0.5], "vi": [0.04]})).to_dict("records")
    [{'clinic': 1, 'effect': -0.5, 'standard_error': 0.2}]
    """
    effects = _read(frame, ESCALC, "from_escalc")
    if label is not None:
        choose(label, map(str, frame.columns), "column")
    name = "trial" if label is None else label
    clinic = frame[name].to_numpy() if name in frame.columns else np.arange(1, len(frame) + 1)
    read = pd.DataFrame({"clinic": clinic, "effect": effects["yi"], "standard_error": np.sqrt(effects["vi"])})
    return _with_further(read, frame, {*ESCALC, name})


def _read(frame: pd.DataFrame, rules: Mapping[str, Rule], reader: str) -> pd.DataFrame:
    """The columns that a reader needs, numbers that are text read as people write them."""
    return check(as_numbers(frame, rules) if isinstance(frame, pd.DataFrame) else frame, rules, reader)


def _with_further(effects: pd.DataFrame, frame: pd.DataFrame, read: Collection[str]) -> pd.DataFrame:
    """Effects, and beside them the columns of their rows that say something else, such as moderators."""
    further = [name for name in frame.columns if name not in {*read, *effects.columns}]
    return effects.join(frame[further].reset_index(drop=True))


def _arm(trials: pd.DataFrame, arm: str) -> tuple[np.ndarray, np.ndarray]:
    """Patients of an arm with and without an event."""
    events, total = trials[f"events_{arm}"].to_numpy(float), trials[f"total_{arm}"].to_numpy(float)
    wrong = (events > total) | (total == 0)
    if wrong.any():
        row = int(np.flatnonzero(wrong)[0])
        raise FrameError(
            f"from_counts expected a total_{arm} of at least 1 and at least events_{arm}, got {events[row]:g} events "
            f"of {total[row]:g} in {trials['clinic'].iloc[row]!r}."
        )
    return events, total - events


def _named(trials: pd.DataFrame, which: np.ndarray) -> str:
    names = trials["clinic"][which].astype(str).tolist()
    return f"{len(names)} of {len(trials)} trials ({', '.join(names)})"
