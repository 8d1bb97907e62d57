"""Numbers and rows as a reader wants them: few digits, aligned, ends of intervals together."""

from __future__ import annotations

import numpy as np
import pandas as pd

MISSING = "–"


def number(value: object, digits: int = 3) -> str:
    """A number with a few significant digits; a dash if there is none.

    Examples
    --------
    >>> number(0.98765), number(1234.5), number(float("nan"))
    ('0.988', '1234', '–')
    """
    if value is None or value is pd.NA or (isinstance(value, float | np.floating) and np.isnan(value)):
        return MISSING
    if isinstance(value, int | np.integer):
        return str(value)
    if not isinstance(value, float | np.floating):
        return str(value)
    decimals = max(0, digits - 1 - int(np.floor(np.log10(abs(float(value)))))) if value and np.isfinite(value) else 0
    return f"{value:.{decimals}f}" if decimals <= 6 else f"{value:.{digits - 1}e}"


def fixed(value: float, digits: int) -> str:
    """A number with so many decimals; no minus before nothing.

    Examples
    --------
    >>> fixed(-0.04, 1), fixed(-1.26, 1)
    ('0.0', '-1.3')
    """
    text = f"{value:.{digits}f}"
    return text if float(text) else text.removeprefix("-")


def aligned(values: pd.Series, digits: int = 3) -> pd.Series:
    """A column with the same number of decimals everywhere: `digits` significant ones for a middling value.

    Examples
    --------
    >>> aligned(pd.Series([0.5, 1.25, float("nan")])).tolist()
    ['0.50', '1.25', '–']
    """
    values = pd.to_numeric(values, errors="coerce").astype(float)
    sizes = values[np.isfinite(values) & (values != 0)].abs()
    if values.dropna().mod(1).eq(0).all():
        decimals = 0
    else:
        decimals = int(np.clip(digits - 1 - np.floor(np.log10(sizes.quantile(0.75))), 0, 6)) if len(sizes) else 0
    return values.map(lambda value: MISSING if np.isnan(value) else f"{value:.{decimals}f}")


def interval(lower: pd.Series, upper: pd.Series) -> pd.Series:
    """Two ends of an interval in one column."""
    both = aligned(pd.concat([lower.rename("x"), upper.rename("x")], ignore_index=True))
    return pd.Series([f"{a} to {b}" for a, b in zip(both[: len(lower)], both[len(lower) :], strict=True)], lower.index)
