"""The file that CMS publishes for the Hospital Readmissions Reduction Program, as it is."""

import difflib
import warnings

import numpy as np
import pandas as pd
from scipy import stats

from hbm_zoo.frames.numerals import as_numbers
from hbm_zoo.frames.rules import FrameError, FrameWarning, Rule, count, number
from hbm_zoo.words import choose

TEXT = ("Facility Name", "Facility ID", "Measure Name")
NUMBERS = {
    "Number of Discharges": Rule("a whole number", count("").holds, "discharges"),
    "Expected Readmission Rate": Rule(
        "a number of percent, 0 to 100", lambda s: number("").holds(s) & s.astype(float).between(0, 100), "percent"
    ),
    "Number of Readmissions": Rule("a whole number", count("").holds, "readmissions"),
}
#: What other years, and the publisher's machine-readable files, call a column.
ALSO = {
    "Facility Name": ("Hospital Name",),
    "Facility ID": ("Provider Number", "Provider ID", "CMS Certification Number"),
}
WITHHELD = {"", "n/a", "na", "nan", "not available", "too few to report"}
FEWEST_PUBLISHED = 11
MOST_MISSING = 0.01


def from_hrrp(frame, measure=None, least_expected=25.0):
    """Hospitals of one measure, from the published file of the readmissions program.

    Parameters
    ----------
    frame : pandas.DataFrame
        The file's rows, its columns as published: Facility Name, Facility ID, Measure Name,
        Number of Discharges, Expected Readmission Rate [percent], Number of Readmissions; in other years Hospital
        Name, Provider Number or Provider ID; in any case, with spaces or underscores.
        Read it with ``dtype=str``: a Facility ID has leading zeros (they are put back).
    measure : str, optional
        Such as ``"READM-30-HF-HRRP"`` or ``"HF"``; needed if the file has several.
    least_expected : float
        Leave out hospitals with a smaller expected count [patients]. Counts below 11 are
        withheld by the publisher, so to keep all that is there would be to choose by outcome;
        the expected count does not depend on it.

    Returns
    -------
    pandas.DataFrame
        Columns hospital (ID and name), observed, expected = discharges x expected rate / 100 (never
        the published ratio, which is already shrunk), discharges. ``attrs["notes"]`` say what was left out.

    Raises
    ------
    FrameError
        If a column is missing, a cell is neither a number nor withheld, or nothing is left.
    ValueError
        If the measure is not in the file, or several are and none was named.

    Warns
    -----
    FrameWarning
        How much a Poisson overstates the noise at this risk, 1/(1 - p), where ``fit(noise="binomial")`` does not; and
        if more than 1 % of
        the hospitals large enough, or of a size unknown, have no published count.

    Examples
    --------
    >>> rows = [["A", "010001", "READM-30-HF-HRRP", "400", "20.0", "90"],
    ...         ["B", "010005", "READM-30-HF-HRRP", "300", "21.5", "60"]]
    >>> with warnings.catch_warnings():
    ...     warnings.simplefilter("ignore")
    ...     frame = from_hrrp(pd.DataFrame(rows, columns=[*TEXT, *NUMBERS]))
    >>> frame[["hospital", "observed", "expected"]].to_numpy().tolist()
    [['010001 A', 90, 80.0], ['010005 B', 60, 64.5]]
    """
    frame = _checked(frame, least_expected)
    rows = frame[frame["Measure Name"].astype(str) == _measure(frame, measure)]
    discharges, rate, observed = _published(rows)
    expected = discharges * rate / 100
    large = expected >= least_expected
    kept = large & observed.notna()
    if not kept.any():
        raise FrameError(f"from_hrrp: no hospital has a published count and at least {least_expected:g} expected.")
    table = pd.DataFrame(
        {
            "hospital": _identity(rows) + " " + rows["Facility Name"].astype(str).str.strip(),
            "observed": observed,
            "expected": expected,
            "discharges": discharges,
        }
    )[kept].astype({"observed": np.int64, "discharges": np.int64})
    withheld = observed.isna() & (large | (rate.notna() & expected.isna()))
    serious = [*_missing(kept, withheld, least_expected), _overstated(table)]
    table.attrs["notes"] = [
        *_left_out(~large & expected.notna(), least_expected),
        *_counted(observed.isna() & rate.isna(), "neither a count nor an expected rate"),
        *_counted(observed.notna() & expected.isna(), "a count, but no number of discharges or no expected rate"),
        *serious,
    ]
    for note in serious:
        warnings.warn(note, FrameWarning, stacklevel=2)
    return table


def published(frame, measure="READM-30-HF-HRRP"):
    """The file that the publisher would make of hospitals: what `from_hrrp` reads.

    Parameters
    ----------
    frame : pandas.DataFrame
        Columns hospital, observed, expected, discharges, as ``simulate`` gives them with ``noise="binomial"``.
    measure : str
        The name of the measure.

    Returns
    -------
    pandas.DataFrame
        Text, in the published columns: rates to four decimals of a percent; counts below 11, and the discharges beside
        them, withheld.

    Examples
    --------
    >>> frame = pd.DataFrame({"hospital": ["A", "B"], "observed": [90, 9], "expected": [80.0, 12], "discharges": 400})
    >>> published(frame).iloc[:, 3:].to_numpy().tolist()
    [['400', '20.0000', '90'], ['N/A', '3.0000', 'Too Few to Report']]
    """
    withheld = frame["observed"] < FEWEST_PUBLISHED
    columns = {
        "Facility Name": frame["hospital"].astype(str),
        "Facility ID": [f"{i + 1:06d}" for i in range(len(frame))],
        "Measure Name": measure,
        "Number of Discharges": frame["discharges"].astype(str).mask(withheld, "N/A"),
        "Expected Readmission Rate": (100 * frame["expected"] / frame["discharges"]).map("{:.4f}".format),
        "Number of Readmissions": frame["observed"].astype(str).mask(withheld, "Too Few to Report"),
    }
    return pd.DataFrame(columns)


def _checked(frame, least_expected):
    """The frame under the names of today; one that is not the published one, or a threshold that is no number."""
    if not isinstance(frame, pd.DataFrame):
        raise FrameError(f"from_hrrp expected a pandas DataFrame, got {type(frame).__name__}.")
    there = {_plain(name): name for name in frame.columns}
    names = {
        there[plain]: today
        for today in (*TEXT, *NUMBERS)
        for plain in map(_plain, reversed((today, *ALSO.get(today, ()))))
        if plain in there
    }
    named = frame.rename(columns=names)
    missing = [name for name in (*TEXT, *NUMBERS) if name not in named.columns]
    if missing:
        near = difflib.get_close_matches(missing[0], map(str, frame.columns), n=1)
        hint = f" The nearest it has is {near[0]!r}." if near else ""
        raise FrameError(
            f"from_hrrp expected the columns {', '.join((*TEXT, *NUMBERS))}; there is no {missing[0]!r}.{hint}"
        )
    if isinstance(least_expected, str) or not least_expected >= 0:
        raise ValueError(f"from_hrrp expected least_expected to be a number, 0 or more, got {least_expected!r}.")
    return named


def _plain(name):
    """A column's name without its case, spaces and underscores."""
    return str(name).casefold().replace("_", "").replace(" ", "")


def _measure(frame, given):
    """The full name of the measure asked for, or of the only one there is."""
    names = sorted(frame["Measure Name"].dropna().astype(str).unique())
    if given is None:
        if len(names) != 1:
            raise ValueError(f"The file has several measures, name one by measure=: {', '.join(names)}.")
        return names[0]
    whole = {name.upper().replace("_", "-"): name for name in names}
    short = {plain.removeprefix("READM-30-").removesuffix("-HRRP"): name for plain, name in whole.items()}
    wanted = str(given).strip().upper().replace("_", "-")
    return whole.get(wanted) or short.get(wanted) or choose(given, names, "measure")


def _published(rows):
    """The numbers of the columns, NaN where they are withheld, whatever their decimal mark."""
    plain = rows[list(NUMBERS)].map(lambda cell: None if str(cell).strip().lower() in WITHHELD else cell)
    plain = plain.map(lambda cell: cell.strip() if isinstance(cell, str) else cell)
    plain.attrs = rows.attrs
    numbers = as_numbers(plain, NUMBERS)
    for name, rule in NUMBERS.items():
        column = numbers[name]
        read = column.map(lambda cell: np.nan if isinstance(cell, str) else cell).astype(float)
        if (bad := column.notna() & ~rule.holds(read)).any():
            got = plain[name][bad].iloc[0]
            raise FrameError(f"Column {name!r} expected {rule.expected} or N/A, got {got!r} {_place(rows, bad)}.")
    discharges, rate, observed = (numbers[name].astype(float) for name in NUMBERS)
    if (more := observed > discharges).any():
        raise FrameError(
            f"Column 'Number of Readmissions' expected no more than the discharges, got more {_place(rows, more)}."
        )
    return discharges, rate, observed


def _place(rows, bad):
    """Where the first bad row is."""
    return f"in {rows.index.name or 'row'} {rows.index[bad.to_numpy()][0]}"


def _identity(rows):
    """Facility IDs as text of six characters: a reader that took them for numbers lost their zeros."""
    return rows["Facility ID"].astype(str).str.strip().str.replace(r"\.0$", "", regex=True).str.zfill(6)


def _left_out(small, least):
    """A sentence if hospitals were left out for their size."""
    if not small.any():
        return []
    return [f"{small.sum()} hospitals with an expected count below {least:g} were left out, whatever their outcome."]


def _counted(which, what):
    """A sentence if hospitals were left out for what they have or lack."""
    return [f"{which.sum()} hospitals have {what}, and were left out."] if which.any() else []


def _missing(kept, missing, least):
    """A sentence if more than 1 % of the hospitals that belong here have no published count."""
    all_of_them = missing.sum() + kept.sum()
    share = missing.sum() / all_of_them
    if share <= MOST_MISSING:
        return []
    chance = stats.poisson.cdf(FEWEST_PUBLISHED - 1, least) if least > 0 else 1.0
    return [
        f"{missing.sum()} of {all_of_them} hospitals ({100 * share:.1f} %) have no published count and were left out, "
        f"which may bias the rest upwards: fewer than {FEWEST_PUBLISHED} are withheld, and a hospital with "
        f"{least:g} expected has so few with probability {chance:.2g}."
    ]


def _overstated(table):
    """How much larger than the binomial's the Poisson's variance is."""
    p = table["observed"].sum() / table["discharges"].sum()
    return (
        f"{100 * p:.1f} % of discharges are readmitted: a Poisson overstates the variance of the counts by about "
        f"1/(1 - p) = {1 / (1 - p):.2f}, which biases cv down; noise='binomial' does not."
    )
