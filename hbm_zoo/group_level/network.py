"""Reactions as chemists write them: ``A <-> B; B -> C``.

Reactions are apart by semicolons. ``->`` runs one way, ``<->`` both; ``A -> 2 B + C`` makes two of B and one of C, and
``A -> 0`` nothing: a loss. Behind a colon stand names of the rates, ``A <-> B : kon, koff``; by default they are k1,
km, k2, ... in the order of writing. Each reaction takes one of one species, x, and its speed is k x. Where all are so
the network is linear: dx/dt = K x. ``B -> C : mm(V, K)`` is saturated by much of B: its speed is V x/(K + x) (Michaelis
& Menten 1913, Biochem Z 49:333-369).
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cache, cached_property

import numpy as np
from scipy.optimize import linprog

NAME = r"[A-Za-z]\w*"
LAW = re.compile(rf"({NAME})|mm\(({NAME}), ({NAME})\)")
#: Of the most that there is of a species: a saturation by less is one by so much, since no step resolves it.
UNRESOLVED = 1e-6
SIDE = re.compile(rf"(\d*)\s*\*?\s*({NAME})")


@dataclass(frozen=True)
class Reaction:
    """One way: the species of which one is taken, what is made of it, as counts by species, and names of its rates.

    One rate is k of k x, two are V and K of V x/(K + x).
    """

    taken: str
    made: tuple[tuple[str, int], ...]
    rates: tuple[str, ...]


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
    >>> motif.species, motif.rates
    (('A', 'B', 'C'), ('k1', 'km', 'k2'))
    """

    text: str
    species: tuple[str, ...]
    reactions: tuple[Reaction, ...]

    @cached_property
    def rates(self) -> tuple[str, ...]:
        """Names of all rates, in the order of writing."""
        return tuple(name for reaction in self.reactions for name in reaction.rates)

    @cached_property
    def linear(self) -> bool:
        """Whether all speeds are proportional to what there is."""
        return all(len(reaction.rates) == 1 for reaction in self.reactions)

    def typical(self, amount: float, time: float) -> dict[str, float]:
        """Rates by which a typical amount turns over in a typical time: 1/time; V is amount/time, and K amount."""
        of_law = {1: (1 / time,), 2: (amount / time, amount)}
        return {n: v for one in self.reactions for n, v in zip(one.rates, of_law[len(one.rates)], strict=True)}

    def change(self, t: np.ndarray | float, state: np.ndarray, rates: np.ndarray) -> np.ndarray:
        """dx/dt [species, point] at a state [species, point] under rates [rate, point], whatever the time."""
        by_name, least = dict(zip(self.rates, rates, strict=True)), UNRESOLVED * state.max(axis=0)
        speeds = []
        for reaction in self.reactions:
            x, (k, *half) = state[self.species.index(reaction.taken)], (by_name[name] for name in reaction.rates)
            # An error may be below 0, and must not meet -K.
            speeds.append(k * x / (np.maximum(half[0], least) + np.maximum(x, 0.0)) if half else k * x)
        return self.made @ np.stack(speeds)

    @cached_property
    def made(self) -> np.ndarray:
        """How many of each species one turn of each reaction makes, less what it takes [species, reaction]."""
        net = np.zeros((len(self.species), len(self.reactions)))
        for r, reaction in enumerate(self.reactions):
            net[self.species.index(reaction.taken), r] -= 1
            for one, n in reaction.made:
                net[self.species.index(one), r] += n
        return net

    @cached_property
    def parts(self) -> np.ndarray:
        """Of a linear network the matrices [rate, species, species] that K is the sum of, each times its rate."""
        found = np.zeros((len(self.rates), len(self.species), len(self.species)))
        for r, reaction in enumerate(self.reactions):
            found[r, :, self.species.index(reaction.taken)] = self.made[:, r]
        return found

    @cached_property
    def pair(self) -> tuple[int, int, int] | None:
        """Two species that are consumed, and the one that all they lose comes to, if that is so."""
        consumed = sorted({self.species.index(reaction.taken) for reaction in self.reactions})
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

    @cached_property
    def never_more(self) -> np.ndarray:
        """Weights of species [species], all above 0, whose sum no reaction makes larger; empty where there are none.

        Examples
        --------
        >>> network("A -> 2 B; B -> 0").never_more.tolist(), network("A -> 2 B; B -> A").never_more.size
        ([1.0, 0.5], 0)
        """
        size = len(self.species)
        change = {"A_ub": self.made.T, "b_ub": np.zeros(len(self.reactions))}
        found = linprog(np.ones(size), **change, bounds=[(1, None)] * size)
        return found.x / found.x.max() if found.success else np.empty(0)


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
    >>> network("A<->B:kon,koff").text
    'A <-> B : kon, koff'
    """
    if not isinstance(text, str) or "->" not in text:
        raise ValueError(
            f"A network is written as 'A <-> B; B -> C', got {text!r}. Equations of one's own are given from Python, "
            "by hz.reaction_networks.equations."
        )
    written = [_spaced(one) for one in text.strip(" ;").split(";")]
    both = sum("<->" in one for one in written)
    reactions = [each for i, one in enumerate(written) for each in _reactions(one, i + 1, both)]
    names = [name for reaction in reactions for name in reaction.rates]
    species = tuple(dict.fromkeys(s for r in reactions for s in (r.taken, *(one for one, _ in r.made))))
    if twice := [name for name in dict.fromkeys(names) if names.count(name) > 1]:
        raise ValueError(f"{text!r}: rate {twice[0]!r} is there twice; each has a name of its own.")
    if also := [name for name in names if name in species]:
        raise ValueError(f"{text!r}: {also[0]!r} is a species and a rate.")
    return Network("; ".join(written), species, tuple(reactions))


def _spaced(one: str) -> str:
    """A reaction with single spaces."""
    apart = " ".join(re.sub(r"(<->|->|[+:])", r" \1 ", one).split())
    return re.sub(r"\s*([(),])\s*", lambda sign: ", " if sign[1] == "," else sign[1], apart)


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
    for side in (left, right)[:ways]:
        if [n for _, n in side] != [1]:
            raise ValueError(
                f"Each reaction takes one of one species, as in 'A -> B' or 'A -> 2 B', got {one!r}. Others are given "
                "from Python, by hz.reaction_networks.equations."
            )
    default = [f"k{number}", "km" if both == 1 else f"km{number}"][:ways]
    laws = [LAW.fullmatch(each) for each in (re.split(r", (?![^(]*\))", law) if law else default)]
    if len(laws) != ways or not all(laws):
        names = "2 names of rates" if ways > 1 else "1 name of a rate, or mm(V, K),"
        raise ValueError(f"{one!r} expected {names} behind ':', got {law!r}.")
    rates = [tuple(filter(None, found.groups())) for found in laws if found]
    there = Reaction(left[0][0], right, rates[0])
    return [there, Reaction(right[0][0], left, rates[1])] if ways == 2 else [there]


def _side(text: str, one: str) -> tuple[tuple[str, int], ...]:
    """``2 A + B`` as counts by species."""
    found: dict[str, int] = {}
    for part in [] if text in ("", "0") else text.split("+"):
        if not (match := SIDE.fullmatch(part.strip())) or match[1] == "0":
            raise ValueError(f"A side of a reaction is written as 'A' or '2 A + B', got {text!r} in {one!r}.")
        found[match[2]] = found.get(match[2], 0) + int(match[1] or 1)
    return tuple(found.items())
