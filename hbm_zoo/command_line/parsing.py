"""What a person types on the command line, and what the library takes."""

from __future__ import annotations

import difflib
import importlib
import inspect
import re
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from types import ModuleType
from typing import Any

from pymc_extras.prior import Prior

from hbm_zoo.priors import from_text
from hbm_zoo.words import choose


def pairs(texts: Iterable[str], what: str) -> dict[str, str]:
    """``NAME=VALUE`` texts as a dict.

    Raises
    ------
    ValueError
        If a text has no ``=``, or a name comes twice.
    """
    found: dict[str, str] = {}
    for text in texts:
        name, equals, value = (part.strip() for part in text.partition("="))
        if not (name and equals and value):
            raise ValueError(f"{what} expected NAME=VALUE, got {text!r}.")
        if name in found:
            raise ValueError(f"{what} expected each name once, got {name!r} twice.")
        found[name] = value
    return found


def columns(texts: Iterable[str], names: Iterable[str]) -> dict[str, str]:
    """``observed=deaths,expected=exp`` as a dict; a comma ends a name only where the next pair begins.

    Examples
    --------
    >>> columns(["observed=Deaths, all causes,expected=exp"], ["observed", "expected"])
    {'observed': 'Deaths, all causes', 'expected': 'exp'}
    """
    starts = "|".join(map(re.escape, names))
    pieces = [piece for text in texts for piece in re.split(rf",(?=\s*(?:{starts})\s*=)", text)]
    if any("=" in rest for piece in pieces for rest in piece.split(",")[1:]):
        pieces = [part for piece in pieces for part in piece.split(",")]  # a misspelt name: let it be reported
    return pairs(pieces, "--columns")


def by_coefficient(texts: Iterable[str], coefficients: Iterable[str]) -> dict[str, list[str]]:
    """``slope=latitude`` texts as columns by coefficient.

    Raises
    ------
    ValueError
        If a text names none of the coefficients.

    Examples
    --------
    >>> by_coefficient(["slope=latitude", "slope=kind"], ["intercept", "slope"])
    {'slope': ['latitude', 'kind']}
    """
    found: dict[str, list[str]] = {}
    for text in texts:
        of, equals, column = (part.strip() for part in text.partition("="))
        if not equals:
            raise ValueError(f"--moderator expected {' or '.join(f'{c}={text}' for c in coefficients)}, got {text!r}.")
        found.setdefault(choose(of, coefficients, "coefficient in --moderator"), []).append(column)
    return found


def priors(texts: Iterable[str]) -> dict[str, Prior]:
    """``cv=HalfNormal(sigma=0.5)`` texts as priors by name."""
    found = {}
    for name, text in pairs(texts, "--prior").items():
        try:
            found[name] = from_text(text)
        except ValueError as error:
            raise ValueError(f"--prior {name}: {error}") from None
    return found


def options(texts: Iterable[str], takers: Iterable[Callable], as_text: Iterable[str] = ()) -> dict[str, Any]:
    """``gene=MAML1`` texts as options: text where a default is text or it is wanted, else a number if it can be."""
    defaults = {name: p.default for taker in takers for name, p in inspect.signature(taker).parameters.items()}
    text_wanted = {*as_text, *(name for name, default in defaults.items() if isinstance(default, str))}
    return {
        name: text if name in text_wanted else _number_or_text(text) for name, text in pairs(texts, "--option").items()
    }


def function(name: str, text: str) -> Callable:
    """``module:function`` as the function.

    A module in the working directory is found, as by ``python -m``.

    Raises
    ------
    ValueError
        If there is no such module, it cannot be imported, or it has no such function; the nearest is given.

    Examples
    --------
    >>> function("simulator", "math:sqrt")(9.0)
    3.0
    """
    module, _, called = text.partition(":")
    if not (module and called):
        raise ValueError(f"--option {name} expected module:function, got {text!r}.")
    try:
        found = _module(module)
        value = getattr(found, called)
    except ImportError as error:
        raise ValueError(f"--option {name}: {error}") from None
    except AttributeError:
        near = _nearest(called, [known for known, value in vars(found).items() if callable(value)])
        raise ValueError(f"--option {name}: {module} has no {called!r}.{near}") from None
    if not callable(value):
        raise ValueError(f"--option {name}: {called!r} of {module} is no function but {value!r}.")
    return value


def _module(name: str) -> ModuleType:
    """A module by name; an ImportError in words if it cannot be had."""
    here = Path.cwd()
    if str(here) not in sys.path:  # a script that pip installed does not look there
        sys.path.insert(0, str(here))
    try:
        return importlib.import_module(name)
    except Exception as error:  # a person's module raises what it likes
        if isinstance(error, ModuleNotFoundError) and f"{name}.".startswith(f"{error.name}."):
            near = _nearest(name, [path.stem for path in here.glob("*.py")])
            raise ImportError(f"there is no module {name!r}.{near}") from None
        raise ImportError(f"{name} cannot be imported: {type(error).__name__}: {error}.") from None


def _nearest(name: str, known: list[str]) -> str:
    near = difflib.get_close_matches(name, known, n=1)
    return f" Did you mean {near[0]!r}?" if near else ""


def _number_or_text(text: str) -> str | float:
    try:
        number = float(text)
    except ValueError:
        return text
    return int(number) if number.is_integer() and text.lstrip("+-").isdigit() else number
