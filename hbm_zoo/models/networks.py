"""What a frame of modules must have, what its readers must know, and modules that never were."""

from __future__ import annotations

import warnings

import numpy as np
import pandas as pd
import xarray as xr

from hbm_zoo.frames.labels import text
from hbm_zoo.frames.rules import FrameError
from hbm_zoo.group_level.equations import FINGERPRINT, KNOWN, Equations
from hbm_zoo.group_level.kinetics import CELL, ROW, Kinetics
from hbm_zoo.group_level.network import Network, network
from hbm_zoo.words import choose, listed, plural

#: Times what there is at the beginning, beyond which values are in another unit.
FARTHEST = 5.0
#: Of what there is, less than which all values may be in another unit; of values, more than which are not below 0.
SMALL, HALF = 1e-3, 0.5
#: How far logs of rates may be from typical: two sds of their prior and more.
ANY_RATE = 3.0
#: Points at which the slopes of rates are taken, and their spread; the steps of slopes, and the least singular value
#: over the largest by which data are said to tell the rates: of a formula, and of a solution by steps.
POINTS, SPREAD = 8, 0.5
#: Times at which more could be seen, where what is seen does not tell the rates.
OFTEN = 24
SLOPES = {True: (1e-4, 1e-6), False: (1e-2, 1e-4)}


def written(value: object) -> str | Equations:
    """The one spelling of a network, or equations; those that a fit knows by their text are found if they are known.

    Raises
    ------
    ValueError
        If it cannot be read, or is a function by itself, or equations are of another session.
    """
    if isinstance(value, Equations):
        return value
    if isinstance(value, str) and value in KNOWN:
        return KNOWN[value]
    if callable(value):
        called = getattr(value, "__name__", "f")
        raise ValueError(
            f"A function has no names of species and rates: give network=hz.reaction_networks.equations({called}, "
            "species=[...], rates=[...])."
        )
    if isinstance(value, str) and FINGERPRINT.search(value):
        raise ValueError(
            f"The network {value!r} is a function of one's own, which a fit cannot store: give the same function to "
            "hz.reaction_networks.equations first."
        )
    if not isinstance(value, str):
        raise ValueError(f"A network is written as 'A <-> B; B -> C', or is equations of one's own; got {value!r}.")
    return network(value).text


def of(spelt: str | Equations) -> Network | Equations:
    """The network that is spelt so."""
    return spelt if isinstance(spelt, Equations) else network(spelt)


def beginning(network: Network | Equations, text: str) -> np.ndarray:
    """What there is of each species at time 0 [species], from ``A=1, B=0.2``; by default 1 of the first.

    Raises
    ------
    FrameError
        If a species is unknown, or an amount is no number, or negative.

    Examples
    --------
    >>> from hbm_zoo.group_level.network import network
    >>> beginning(network("A <-> B; B -> C"), "A=2, B=0.5").tolist()
    [2.0, 0.5, 0.0]
    """
    if not isinstance(text, str):
        raise FrameError(f"reaction_networks expected start as text, 'A=1, B=0.2' say; got {text!r}.")
    found, named = np.zeros(len(network.species)), set()
    if not text:
        found[0] = 1.0
    for part in text.split(",") if text else []:
        name, _, amount = (piece.strip() for piece in part.partition("="))
        try:
            choose(name, network.species, "species in start")
            value = float(amount)
        except ValueError as reason:
            why = str(reason) if name not in network.species else f"got {part.strip()!r}"
            raise FrameError(f"reaction_networks expected start as 'A=1, B=0.2': {why}.".replace("..", ".")) from None
        if not 0 <= value < np.inf:
            raise FrameError(f"reaction_networks expected amounts at time 0 of 0 or above, got {part.strip()!r}.")
        if name in named:
            raise FrameError(f"reaction_networks expected start to have each species once, got {name} twice: {text!r}.")
        named.add(name)
        found[network.species.index(name)] = value
    if not found.any():
        raise FrameError("reaction_networks expected some amount at time 0, got nothing of any species.")
    return found


def beginnings(
    network: Network | Equations, text: str, initial: pd.DataFrame | None, modules: np.ndarray
) -> np.ndarray:
    """What there is in each module at time 0 [module, species]: by ``text``, and where ``initial`` says another amount.

    Raises
    ------
    FrameError
        As `beginning`; if ``initial`` names a species that is none, the same of a module twice, or leaves a module with
        nothing.
    """
    if initial is None:
        return np.tile(beginning(network, text), (len(modules), 1))
    check_species(initial, network, "reaction_networks, 'initial'")
    if (twice := initial.duplicated(["module", "species"])).any():
        module, one = initial.loc[twice, ["module", "species"]].iloc[0]
        raise FrameError(f"reaction_networks, 'initial': species {one} of module {module} is there twice.")
    found = np.tile(beginning(network, text) if text else np.zeros(len(network.species)), (len(modules), 1))
    j = pd.Index(_labels(modules)).get_indexer(_labels(initial["module"]))
    s = pd.Index(network.species).get_indexer(initial["species"])
    here = j >= 0  # rows to predict may be of some modules only
    found[j[here], s[here]] = initial["amount"].to_numpy(float)[here]
    if (nothing := ~found.any(axis=1)).any():
        _check_known(initial["module"], modules)
        raise FrameError(
            f"reaction_networks, 'initial': module {modules[nothing][0]} has nothing of any species at time 0; give "
            "its amounts there, or those of all modules by start."
        )
    return found


def check_species(frame: pd.DataFrame, network: Network | Equations, where: str = "reaction_networks") -> None:
    """Refuse rows of species that the network has not."""
    unknown = ~frame["species"].isin(network.species)
    if unknown.any():
        got = frame["species"][unknown].iloc[0]
        try:
            choose(got, network.species, "species")
        except ValueError as reason:
            raise FrameError(f"{where}, column 'species', row {frame.index[unknown][0]}: {reason}") from None


def check_whole(network: Network | Equations, data: xr.Dataset):
    """A sentence of modules that say nothing, and of rates that no module tells.

    Raises
    ------
    FrameError
        If no row is after time 0, no value is above 0, values are far beyond what there can be, ``initial`` names a
        module that is none, or there is no solution at typical rates.
    """
    time = data.time.values[data.of_module.values, data.of_instant.values]
    if not (time > 0).any():
        raise FrameError("reaction_networks: column 'time' expected rows after time 0, got none: rates show over time.")
    if not (data.value > 0).any():
        raise FrameError("reaction_networks: column 'value' expected values above 0, got none.")
    yield from _of_unit(network, data)
    silent = data["module"].values[~((data.rows > 0) & (data.time > 0)).any(CELL).values]
    if silent.size:
        which = f"{plural('Module', silent.size)} {listed(map(str, silent[:5]))}"
        has = "have" if silent.size > 1 else "has"
        yield f"{which} {has} no row after time 0: only the others tell of their rates."
    kinetics = Kinetics(network)
    if "initial.module" in data:
        _check_known(data["initial.module"].values, data["module"].values)
    yield from _solved(kinetics, data)
    yield from untold(kinetics, data)


def _labels(values) -> list[str]:
    """As text, under which 1 and "1" are the same."""
    return text(pd.Series(values)).tolist()


def _check_known(named, modules: np.ndarray) -> None:
    """Refuse amounts at time 0 of modules that there are not: a name is misspelt, and another amount would stand."""
    for module in _labels(named):
        try:
            choose(module, _labels(modules), "module in 'initial'")
        except ValueError as reason:
            raise FrameError(f"reaction_networks: {reason}") from None


def _solved(kinetics: Kinetics, data: xr.Dataset):
    """A sentence if values are far from the solution at typical rates, where nothing else says what there can be.

    Raises
    ------
    FrameError
        If there is no solution where there should be one.
    """
    middle = xr.DataArray([*kinetics.typical(data).values()], dims="coefficient")
    with warnings.catch_warnings():
        warnings.simplefilter("error", RuntimeWarning)
        try:
            expected = kinetics.expected(middle, data).values
        except RuntimeWarning as found:
            raise FrameError(f"reaction_networks, at typical rates: {found}") from None
    if kinetics.network.never_more.size:
        return
    rows = data.of_module.values, data.of_instant.values, data.of_species.values
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # of rates that nobody has, and that may have no solution
        far = [kinetics.expected(middle + shift, data).values for shift in (-ANY_RATE, ANY_RATE)]
    tops = [float(top) for each in (expected, *far) if np.isfinite(top := each[rows].max())]
    largest = float(data.value.max())
    if len(tops) == 3 and not SMALL * min(tops) < largest < max(tops) / SMALL:
        times = largest / max(tops[0], np.finfo(float).tiny)
        yield (
            f"The largest value is {times:.2g} times that of the solution at typical rates: are values in the unit of "
            "start, and rates in that of time?"
        )


def _of_unit(network: Network | Equations, data: xr.Dataset):
    """A sentence of values that are small beside what there is, or below 0.

    Raises
    ------
    FrameError
        If no amount at the beginning can have become them.
    """
    if (negative := float((data.value < 0).mean())) > HALF:
        yield f"{negative:.0%} of the values are below 0, where no amount is."
    weights = network.never_more
    if not weights.size:
        return
    most = (data.start @ xr.DataArray(weights, dims="species")).values[data.of_module.values]
    most = most / weights[data.of_species.values]
    beyond = data.value.values / most
    middle = float(np.median(np.sort(beyond)[-max(1, beyond.size // 4) :]))
    if middle > FARTHEST:
        raise FrameError(
            f"reaction_networks: column 'value' has values {middle:.3g} times all that there is at time 0: are they in "
            "the unit of start? Give start, such as 'A=100'."
        )
    closed = isinstance(network, Network) and np.allclose(network.made.T @ weights, 0)
    if closed and (largest := float(beyond.max())) < SMALL:
        yield (
            f"The largest value is {largest:.2g} of all that there is at time 0: if they are not in the unit of start, "
            "give start, such as 'A=0.001'."
        )


def untold(kinetics: Kinetics, data: xr.Dataset):
    """A sentence if the rates cannot be told apart by all modules together, were all alike: then no pooling can.

    The slopes of what is expected of the rows, in the log rates, have as many independent columns as there are
    functions of the rates that data tell (Jacquez & Greif 1985, Math Biosci 77:201-227); at some points at random.
    """
    names, seen = kinetics.names, data.rows.transpose("module", *CELL) > 0
    rank = _rank(kinetics, data, seen)
    if rank == len(names):
        return
    often = data.drop_dims(["instant", "observation"]).assign(time=_often(data))
    shown = seen.any(["module", "instant"])
    longer = _rank(kinetics, often, shown)
    unseen = [
        str(one)
        for one in data["species"].values[~shown.values]
        if _rank(kinetics, often, shown | (data["species"] == one)) > longer
    ]
    because = f" at these times: at others there would be {longer}" if longer > rank else ""
    because += f"{';' if because else ':'} no module shows {' or '.join(unseen)}" if unseen else ""
    ever = ", and however long" if longer == rank else ""
    yield (
        f"These data tell {rank} {plural('function', rank)} of the {len(names)} rates {listed(names)}, and not "
        f"each{because}. However many modules are watched so{ever}, only the priors tell the rest, and pooling cannot "
        "help."
    )


def _often(data: xr.Dataset) -> xr.DataArray:
    """Times [module, instant] from far before the median of those that there are to far after it."""
    times = float(np.median(data.time.values[data.time.values > 0])) * np.geomspace(0.02, 50, OFTEN)
    return xr.DataArray(times, dims="instant").expand_dims(module=data["module"].values)


def _rank(kinetics: Kinetics, data: xr.Dataset, seen: xr.DataArray) -> int:
    """The most functions of the rates, over some points, that what is seen [module, instant, species] tells."""
    rng, middle = np.random.default_rng(0), np.array([*kinetics.typical(data).values()])
    points = middle + SPREAD * rng.standard_normal((POINTS, middle.size))
    return max(_rank_at(kinetics, data, seen, xr.DataArray(at, dims="coefficient")) for at in points)


def _rank_at(kinetics: Kinetics, data: xr.Dataset, seen: xr.DataArray, at: xr.DataArray) -> int:
    h, least = SLOPES[kinetics.network.linear]
    steps = xr.DataArray(np.eye(at.size), dims=("step", "coefficient"))
    slopes = (kinetics.expected(at + h * steps, data) - kinetics.expected(at - h * steps, data)) / (2 * h)
    of_rows = slopes.where(seen, 0.0).transpose("step", ...).values.reshape(at.size, -1)
    told = np.linalg.svd(of_rows, compute_uv=False)
    return int((told > least * told[0]).sum()) if told[0] > 0 else 0


def simulated(
    kinetics,
    prepare,
    rng,
    *,
    modules=12,
    rich=3,
    mu=None,
    omega=0.4,
    sigma=0.03,
    times=(0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0, 8.0),
    sparse_times=(1.0, 2.0, 4.0, 8.0),
    start="",
):
    """A frame like the real one and the truth that made it.

    Parameters
    ----------
    rng : numpy.random.Generator
        Source of randomness.
    modules, rich : int
        Number of modules, and how many of them are richly seen: all species but the first. Of the others the last
        alone is seen.
    mu : sequence of float, optional
        Mean log rates. Default: 0, -0.5 and -0.7, again and again, beyond those of typical values.
    omega : float
        Spread of the modules' log rates.
    sigma : float
        Error of a measurement, sd.
    times, sparse_times : tuple of float
        When rich and other modules are seen.
    start : str
        What there is at time 0.

    Returns
    -------
    frame : pandas.DataFrame
        Columns module, time, species, value.
    truth : xarray.Dataset
        The hyperparameters and theta [module, coefficient].

    Examples
    --------
    >>> import numpy as np
    >>> import hbm_zoo as hz
    >>> frame, truth = hz.reaction_networks.simulate(np.random.default_rng(1), modules=3, rich=1)
    >>> len(frame), truth.theta.dims
    (24, ('module', 'coefficient'))
    """
    names, species = kinetics.names, kinetics.network.species
    usual = np.log([*kinetics.network.typical(1.0, 1.0).values()]) + np.resize([0.0, -0.5, -0.7], len(names))
    middle = np.broadcast_to(usual if mu is None else mu, len(names))
    h = {f"mu_{name}": float(m) for name, m in zip(names, middle, strict=True)}
    h |= {f"omega_{name}": float(omega) for name in names} | {"sigma": float(sigma)}
    truth, labels = xr.Dataset(h), [f"M{j + 1:02d}" for j in range(modules)]
    theta = kinetics.population(truth.expand_dims(module=labels)).sample(rng).transpose("module", "coefficient")
    seen = {True: (times, species[1:] or species), False: (sparse_times, species[-1:])}
    rows = [(one, t, s, 0.0) for j, one in enumerate(labels) for s in seen[j < rich][1] for t in seen[j < rich][0]]
    frame = pd.DataFrame(rows, columns=["module", "time", "species", "value"])
    data = prepare(frame, start=start)
    frame["value"] = kinetics.replicate(rng, theta, truth, data).values
    return frame, truth.assign(theta=theta)


def side_by_side(
    frame: pd.DataFrame, network: Network | Equations, start: str, initial: pd.DataFrame | None
) -> xr.Dataset:
    """Rows by module, instant and species; instants [module, instant] are as many as the module with most has."""
    of, modules = pd.factorize(frame["module"])
    time, where = frame["time"].to_numpy(float), np.empty(len(frame), np.int64)
    instants = [np.unique(time[of == j]) for j in range(len(modules))]
    arrays = np.zeros((len(modules), max(map(len, instants))))
    for j, own in enumerate(instants):
        arrays[j, : len(own)] = own
        where[of == j] = np.searchsorted(own, time[of == j])
    species = pd.Index(network.species).get_indexer(frame["species"])
    rows = (frame["value"].to_numpy(float), of.astype(np.int64), where, species.astype(np.int64))
    return xr.Dataset(
        {"time": (("module", "instant"), arrays)}
        | {"start": (("module", "species"), beginnings(network, start, initial, np.asarray(modules)))}
        | {name: ("observation", value) for name, value in zip(ROW, rows, strict=True)},
        coords={"module": np.asarray(modules), "species": [*network.species]},
    )
