"""Words and numbers as a sentence, a table or a picture writes them."""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from typing import Any

POOLINGS = {
    "none": "no pooling",
    "complete": "complete pooling",
    "partial": "partial pooling",
    "empirical_bayes": "empirical Bayes",
}


NEAR = 0.7  # Of `difflib`: "covariates" is not near to "cores".


def pooling(name: str) -> str:
    """A pooling in words; a name of the caller's own as it is.

    Examples
    --------
    >>> pooling("none"), pooling("with another prior")
    ('no pooling', 'with another prior')
    """
    return POOLINGS.get(name, name)


def with_article(noun: str) -> str:
    """A hospital, an organ; a unit, as it is spoken."""
    spoken_open = noun[:1].lower() in "aeiou" and not noun.lower().startswith(("uni", "use", "eu", "one"))
    return f"{'an' if spoken_open else 'a'} {noun}"


def plural(noun: str, count: int = 2) -> str:
    """Several of a thing, unless there is one; a name that ends in no letter, such as "Klinik-Nr.", has one form.

    Examples
    --------
    >>> plural("hospital"), plural("batch"), plural("family"), plural("site", 1), plural("Klinik-Nr.")
    ('hospitals', 'batches', 'families', 'site', 'Klinik-Nr.')
    """
    if count == 1 or not noun[-1:].isalpha():
        return noun
    if noun.endswith("y") and noun[-2:-1] not in "aeiou":
        return f"{noun[:-1]}ies"
    return f"{noun}es" if noun.endswith(("s", "x", "z", "ch", "sh")) else f"{noun}s"


def listed(words: Iterable[str]) -> str:
    """Words in a row, the last after an "and".

    Examples
    --------
    >>> listed(["no pooling", "complete pooling", "partial pooling"])
    'no pooling, complete pooling and partial pooling'
    """
    *first, last = words
    return f"{', '.join(first)} and {last}" if first else last


def named(group: str, label: object) -> str:
    """A group by its name; a bare number says what it numbers.

    Examples
    --------
    >>> named("hospital", 9), named("hospital", "St. Mary")
    ('hospital 9', 'St. Mary')
    """
    return f"{group} {label}" if str(label).replace(".", "", 1).isdigit() else str(label)


def plain(value: float) -> str:
    """Three digits, and no powers of ten for numbers that people write out.

    Examples
    --------
    >>> plain(1597.6), plain(0.5), plain(-2.884), plain(2e-7)
    ('1,598', '0.5', '-2.88', '2e-07')
    """
    return f"{value:,.0f}" if 1000 <= abs(value) < 1e9 else f"{value:.3g}"


def told_apart(one: float, other: float) -> tuple[str, str]:
    """Two numbers that differ, with as many digits as it takes to see that they do.

    Examples
    --------
    >>> told_apart(493.18, 492.77), told_apart(1597.6, 1201.0), told_apart(2.0, 2.0)
    (('493.2', '492.8'), ('1,598', '1,201'), ('2', '2'))
    """
    said = plain(one), plain(other)
    for digits in range(4, 10):
        if said[0] != said[1] or one == other:
            break
        said = f"{one:,.{digits}g}", f"{other:,.{digits}g}"
    return said


def shortened(name: str, width: int) -> str:
    """A name that is too long loses its middle: names that begin alike stay apart.

    Examples
    --------
    >>> shortened("St. Mary and Sons, North", 12)
    'St. Ma…North'
    """
    if len(name) <= width:
        return name
    tail = (width - 1) // 2
    return f"{name[: width - 1 - tail]}…{name[-tail:]}"


def choose(given: Any, allowed: Iterable[str], what: str) -> str:
    """Return `given` if it is one of the allowed names, else say which is nearest.

    Raises
    ------
    ValueError
        If the name is not among the allowed ones.
    """
    allowed = list(allowed)
    if given in allowed:
        return given
    near = difflib.get_close_matches(str(given), allowed, n=1, cutoff=NEAR)
    hint = f" Did you mean {near[0]!r}?" if near else ""
    expected = f"one of {', '.join(allowed)}" if allowed else "none"
    raise ValueError(f"Unknown {what} {given!r}: expected {expected}.{hint}")
