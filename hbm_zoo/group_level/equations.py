"""A right-hand side of one's own: dx/dt = f(t, x, rates), written in Python."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field

import numpy as np

from hbm_zoo.group_level.network import NAME

#: Equations of this session by their text, for fits that know no more of them.
KNOWN: dict[str, Equations] = {}
#: How the text of equations ends: with a fingerprint of what they say.
FINGERPRINT = re.compile(r"#[0-9a-f]{8}$")


@dataclass(frozen=True)
class Equations:
    """What `equations` makes: in the place of a `network.Network`, and equal to another of the same text."""

    text: str
    function: Callable = field(compare=False)
    species: tuple[str, ...]
    scales: tuple[tuple[str, float | None], ...]
    linear = False
    never_more = np.empty(0)

    def __post_init__(self):
        KNOWN[self.text] = self

    def __str__(self) -> str:
        return self.text

    def __reduce__(self):
        return Equations, (self.text, self.function, self.species, self.scales)

    @property
    def rates(self) -> tuple[str, ...]:
        """Names of all rates."""
        return tuple(name for name, _ in self.scales)

    def typical(self, amount: float, time: float) -> dict[str, float]:
        """Typical rates as they were given, or one over the typical time."""
        return {name: 1 / time if value is None else value for name, value in self.scales}

    def change(self, t: np.ndarray, state: np.ndarray, rates: np.ndarray) -> np.ndarray:
        """dx/dt [species, point] at times [point], a state [species, point] and rates [rate, point]."""
        found = self.function(t, np.maximum(state, 0.0), rates)  # an error below 0 must not meet -K
        return np.stack([np.broadcast_to(one, state.shape[1:]) for one in found]).astype(float)


def equations(
    function: Callable, *, species: Iterable[str], rates: Iterable[str] | Mapping[str, float | None]
) -> Equations:
    """Equations of one's own, for ``network=``.

    Parameters
    ----------
    function : callable
        ``function(t, state, rates)``: how fast each species changes, as many arrays as species. It is asked of many
        points at once, each at a time of its own: ``t`` [point], ``state`` [species, point] and ``rates`` [rate,
        point], which are unpacked, ``A, B = state``, and reckoned with by NumPy.
    species : iterable of str
        Names of the species. A known input of a module, a volume say, is one that does not change, whose
        amount in each module ``initial`` gives.
    rates : iterable of str, or mapping of str to float
        Names of the rates; their logs are those of a module. Priors are around one over the typical time of the data,
        or around typical values, {"V": 0.2, "K": 3.0}, in the units of the function.

    Returns
    -------
    Equations
        A fit knows them by their ``text``: the function's name, rates, species, and a fingerprint of what it says at
        a few points. In another session give the same function to `equations` before what is asked of the fit.

    Raises
    ------
    ValueError
        If a name is none, or is there twice; if a typical value is not above 0; if the function does not answer many
        points with a change of each species, or not as it answers one.

    Examples
    --------
    >>> def saturated(t, state, rates):
    ...     S, P = state
    ...     V, K = rates
    ...     speed = V * S / (K + S)
    ...     return -speed, speed
    >>> equations(saturated, species=["S", "P"], rates={"V": 0.2, "K": 3.0}).rates
    ('V', 'K')
    """
    species, scales = _names("species", species), _scales(rates)
    if twice := set(species) & {name for name, _ in scales}:
        raise ValueError(f"{min(twice)!r} is a species and a rate.")
    called = getattr(function, "__name__", "equations")
    said = _answers(called, function, species, scales)
    fingerprint = hashlib.sha256(" ".join(f"{value:.6g}" for value in said.ravel()).encode()).hexdigest()[:8]
    text = f"{called} of {', '.join(species)} by {', '.join(name for name, _ in scales)} #{fingerprint}"
    return Equations(text, function, species, scales)


def _names(what: str, given: Iterable[str]) -> tuple[str, ...]:
    """Names, each once."""
    names = (given,) if isinstance(given, str) else tuple(given)
    for name in names:
        if not isinstance(name, str) or not re.fullmatch(NAME, name) or names.count(name) > 1:
            raise ValueError(f"equations expected names of {what}, each once, as in ['A', 'B'], got {name!r}.")
    if not names:
        raise ValueError(f"equations expected names of {what}, got none.")
    return names


def _scales(rates: Iterable[str] | Mapping[str, float | None]) -> tuple[tuple[str, float | None], ...]:
    """Names of rates, and their typical values where they are given."""
    values = dict(rates) if isinstance(rates, Mapping) else dict.fromkeys(_names("rates", rates))
    for name, value in values.items():
        if value is not None and not (isinstance(value, int | float) and 0 < value < np.inf):
            raise ValueError(f"equations expected a typical value of {name!r} above 0, got {value!r}.")
    return tuple((name, values[name]) for name in _names("rates", values))


def _answers(called: str, function: Callable, species: tuple, scales: tuple) -> np.ndarray:
    """What a function says of three points [species, point], if it says the same of each by itself."""
    size = np.array([value or 1.0 for _, value in scales])[:, None]
    state, rates = _between(len(species)), size * _between(len(scales))
    of_all = _asked(called, function, species, state, rates)
    of_each = [_asked(called, function, species, state[:, [i]], rates[:, [i]]) for i in range(state.shape[1])]
    if not np.allclose(of_all, np.concatenate(of_each, axis=1), rtol=1e-9, equal_nan=True):
        raise ValueError(f"{called} says something else of many points at once than of each: is it all of NumPy?")
    return of_all


def _asked(called: str, function: Callable, species: tuple, state: np.ndarray, rates: np.ndarray) -> np.ndarray:
    """One answer, or a ValueError in words."""
    expected = f"{called}(t, state, rates) expected to give {len(species)} changes, of {', '.join(species)}"
    try:
        with np.errstate(all="ignore"):
            changes = function(np.full(state.shape[1], 0.5), state.copy(), rates.copy())
            answer = np.stack([np.broadcast_to(one, state.shape[1:]) for one in changes]).astype(float)
    except Exception as error:  # a person's function raises what it likes
        what = f"{type(error).__name__}: {error}"
        raise ValueError(f"{expected}, each at many points at once, as NumPy reckons; got {what}.") from None
    if len(answer) != len(species):
        raise ValueError(f"{expected}, got {len(answer)}.")
    return answer


def _between(size: int) -> np.ndarray:
    """Three points [size, point] between 0.5 and 1.5, no two numbers alike."""
    return 0.5 + (0.37 + 0.618 * np.arange(1, 3 * size + 1).reshape(size, 3)) % 1
