"""Reactions as chemists write them: ``A <-> B; B -> C``.

Reactions are apart by semicolons. ``->`` runs one way, ``<->`` both; ``2 A + B`` takes two of A and one of B, and an
empty side or ``0`` is nothing: a source or a loss. Behind a colon stand names of rates, or a law:

    A <-> B : kon, koff         mass action, by the names given; by default k1, km, k2, ... in the order of writing
    B -> C : mm(V, K)           V B / (K + B)           (Michaelis & Menten 1913, Biochem Z 49:333-369)

Mass action is the rate times each reactant to the power of how many are taken (Guldberg & Waage 1864).
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache, cached_property

import numpy as np

NAME = r"[A-Za-z]\w*"
SIDE = re.compile(rf"(\d*)\s*\*?\s*({NAME})")
SATURATING = re.compile(rf"mm\(\s*({NAME})\s*,\s*({NAME})\s*\)")


@dataclass(frozen=True)
class Rate:
    """A rate constant by its name; its unit is time^-per_time amount^of_amount."""

    name: str
    per_time: int = 1
    of_amount: int = 0


@dataclass(frozen=True)
class Reaction:
    """What is taken and made, as counts by species, and how fast: one rate of mass action, or V and K."""

    taken: tuple[tuple[str, int], ...]
    made: tuple[tuple[str, int], ...]
    rates: tuple[Rate, ...]

    def __str__(self) -> str:
        left, right = (
            " + ".join(f"{n} {s}" if n > 1 else s for s, n in side) or "0" for side in (self.taken, self.made)
        )
        names = [rate.name for rate in self.rates]
        return f"{left} -> {right} : " + (f"mm({', '.join(names)})" if len(names) == 2 else names[0])

    @property
    def linear(self) -> bool:
        """Whether its speed is a rate times one species."""
        return len(self.rates) == 1 and [n for _, n in self.taken] == [1]


@dataclass(frozen=True)
class Network:
    """Reactions of some species.

    Attributes
    ----------
    text
        As it was written, spaces aside.
    species
        In the order of writing; the first is what there is at the beginning, if nothing else is said.
    reactions
        Each one way.

    Examples
    --------
    >>> motif = network("A <-> B; B -> C")
    >>> motif.species, [rate.name for rate in motif.rates]
    (('A', 'B', 'C'), ['k1', 'km', 'k2'])
    >>> motif.change(np.array([1.0, 0.5, 0.0]), np.array([2.0, 1.0, 4.0])).tolist()
    [-1.5, -0.5, 2.0]
    """

    text: str
    species: tuple[str, ...]
    reactions: tuple[Reaction, ...]

    @cached_property
    def rates(self) -> tuple[Rate, ...]:
        """All rates, in the order of writing."""
        return tuple(rate for reaction in self.reactions for rate in reaction.rates)

    @cached_property
    def made(self) -> np.ndarray:
        """How many of each species one turn of each reaction makes, less what it takes [species, reaction]."""
        net = np.zeros((len(self.species), len(self.reactions)))
        for r, reaction in enumerate(self.reactions):
            for sign, side in ((-1, reaction.taken), (1, reaction.made)):
                for one, n in side:
                    net[self.species.index(one), r] += sign * n
        return net

    @cached_property
    def linear(self) -> bool:
        """Whether the species obey dx/dt = K x."""
        return all(reaction.linear for reaction in self.reactions)

    @cached_property
    def parts(self) -> np.ndarray:
        """Of a linear network the matrices [rate, species, species] that K is the sum of, each times its rate."""
        found = np.zeros((len(self.rates), len(self.species), len(self.species)))
        for r, reaction in enumerate(self.reactions):
            found[r, :, self.species.index(reaction.taken[0][0])] = self.made[:, r]
        return found

    @cached_property
    def pair(self) -> tuple[int, int, int] | None:
        """Of a linear network two species that are consumed, and the one that all they lose comes to, if that is so."""
        consumed = sorted({self.species.index(one) for reaction in self.reactions for one, _ in reaction.taken})
        others = [k for k in range(len(self.species)) if k not in consumed]
        if len(consumed) != 2 or len(others) != 1 or abs(self.made.sum(axis=0)).any() or not self.linear:
            return None
        return consumed[0], consumed[1], others[0]

    @cached_property
    def block(self) -> tuple[tuple[np.ndarray, np.ndarray], ...]:
        """Of the matrix of that pair, entry by entry, which rates it has, and how often each."""
        i, j, _ = self.pair or (0, 0, 0)
        weights = [self.parts[:, p, q] for p in (i, j) for q in (i, j)]
        return tuple((np.flatnonzero(w), w[w != 0]) for w in weights)

    def change(self, state: np.ndarray, rates: np.ndarray) -> np.ndarray:
        """dx/dt [..., species] at a state [..., species] under rates [..., rate]."""
        return self.speeds(state, rates) @ self.made.T

    def speeds(self, state: np.ndarray, rates: np.ndarray) -> np.ndarray:
        """How often each reaction runs in a unit of time [..., reaction]."""
        each, k = [], 0
        for reaction in self.reactions:
            of = [state[..., self.species.index(one)] ** n for one, n in reaction.taken]
            if len(reaction.rates) == 2:
                each.append(rates[..., k] * of[0] / (rates[..., k + 1] + of[0]))
            else:
                each.append(np.prod([rates[..., k] + np.zeros(state.shape[:-1]), *of], axis=0))
            k += len(reaction.rates)
        return np.stack(each, axis=-1)


@cache
def network(text: str) -> Network:
    """Read a network.

    Parameters
    ----------
    text : str
        Reactions, as above.

    Returns
    -------
    Network
        Its ``text`` has one space where it had some, so that spaces make no other network.

    Raises
    ------
    ValueError
        If it cannot be read: which reaction, what was expected.

    Examples
    --------
    >>> str(network("E + S <-> ES : kon, koff; ES -> E + P : kcat").reactions[0])
    'E + S -> ES : kon'
    """
    if not isinstance(text, str) or not text.strip(" ;"):
        raise ValueError(f"A network is written as 'A <-> B; B -> C', got {text!r}.")
    written = [_spaced(one) for one in text.strip(" ;").split(";")]
    both = sum("<->" in one for one in written)
    reactions = [each for i, one in enumerate(written) for each in _reactions(one, i + 1, both)]
    names = [rate.name for reaction in reactions for rate in reaction.rates]
    species = tuple(dict.fromkeys(s for r in reactions for side in (r.taken, r.made) for s, _ in side))
    if twice := [name for name in dict.fromkeys(names) if names.count(name) > 1]:
        raise ValueError(f"{text!r}: rate {twice[0]!r} is there twice; each has a name of its own.")
    if also := [name for name in names if name in species]:
        raise ValueError(f"{text!r}: {also[0]!r} is a species and a rate.")
    return Network("; ".join(written), species, tuple(reactions))


def _spaced(one: str) -> str:
    """A reaction with single spaces."""
    return " ".join(re.sub(r"(<->|->|[+:]|,)", r" \1 ", one).split()).replace(" ,", ",")


def _reactions(one: str, number: int, both: int) -> list[Reaction]:
    """The one or two ways of a reaction as it is written, the so-manieth of its network."""
    sides, _, law = (part.strip() for part in one.partition(":"))
    ways = 2 if "<->" in sides else 1
    parts = re.split(r"<->|->", sides)
    if len(parts) != 2:
        raise ValueError(f"A reaction has one arrow, -> or <->, as in 'A -> B', got {one!r}.")
    left, right = (_side(part.strip(), one) for part in parts)
    if left == right:
        raise ValueError(f"{one!r} changes nothing.")
    if saturating := SATURATING.fullmatch(law):
        if ways == 2 or [n for _, n in left] != [1]:
            raise ValueError(f"mm(V, K) is of one species on its way, as in 'B -> C : mm(V, K)', got {one!r}.")
        V, K = saturating.groups()
        return [Reaction(left, right, (Rate(V, 1, 1), Rate(K, 0, 1)))]
    default = [f"k{number}", "km" if both == 1 else f"km{number}"][:ways]
    names = [name.strip() for name in law.split(",")] if law else default
    if len(names) != ways or not all(re.fullmatch(NAME, name) for name in names):
        raise ValueError(f"{one!r} expected {ways} {'names' if ways > 1 else 'name'} of rates behind ':', got {law!r}.")
    orders = [sum(n for _, n in side) for side in (left, right)]
    there = Reaction(left, right, (Rate(names[0], 1, 1 - orders[0]),))
    return [there, Reaction(right, left, (Rate(names[1], 1, 1 - orders[1]),))] if ways == 2 else [there]


def _side(text: str, one: str) -> tuple[tuple[str, int], ...]:
    """``2 A + B`` as counts by species."""
    found: dict[str, int] = {}
    for part in [] if text in ("", "0") else text.split("+"):
        if not (match := SIDE.fullmatch(part.strip())) or match[1] == "0":
            raise ValueError(f"A side of a reaction is written as 'A' or '2 A + B', got {text!r} in {one!r}.")
        found[match[2]] = found.get(match[2], 0) + int(match[1] or 1)
    return tuple(found.items())


def conserved(network: Network) -> np.ndarray:
    """Weights of species [species], all above 0, whose sum no reaction changes; empty where there are none.

    Examples
    --------
    >>> conserved(network("A <-> 2 B")).tolist(), conserved(network("A -> 0")).size
    ([1.0, 0.5], 0)
    """
    from scipy.optimize import linprog

    size = len(network.species)
    found = linprog(
        np.ones(size), A_eq=network.made.T, b_eq=np.zeros(len(network.reactions)), bounds=[(1, None)] * size
    )
    return found.x / found.x.max() if found.success else np.empty(0)


def unreached(network: Network, present: Sequence[str]) -> list[str]:
    """Species that there never are, if there are only these at the beginning.

    Examples
    --------
    >>> unreached(network("A <-> B; B -> C"), ["C"])
    ['A', 'B']
    """
    there = set(present)
    for _ in network.species:
        for reaction in network.reactions:
            if {one for one, _ in reaction.taken} <= there:
                there |= {one for one, _ in reaction.made}
    return [one for one in network.species if one not in there]
