"""A folder of finished pieces, one NetCDF file each: whole or not there, and each of the piece that it says it is of.

A file knows the fingerprint of its piece: work may go on with pieces that were mended, or are new, beside those that
are done.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib.metadata import version
from operator import attrgetter
from pathlib import Path
from typing import Any

import cloudpickle
import numpy as np
import pandas as pd
import xarray as xr
from pymc_extras.prior import Prior

from hbm_zoo.model import HierarchicalModel
from hbm_zoo.workers.outcome import PIECE, WARNED
from hbm_zoo.workers.pickling import of_the_zoo

MANIFEST = "work.json"
LONGEST_NAME = 60
#: Seconds after which a draft is one that a killed process has left.
STALE = 3600
OF_RESULTS = ("hbm_zoo", "pymc", "pytensor", "nutpie", "numba", "numpy", "scipy")


@dataclass(frozen=True)
class Folder:
    """Where the results of pieces are, and the fingerprint of each piece, by the piece's name."""

    files: Mapping[str, Path]
    fingerprints: Mapping[str, str]

    def write(self, name: str, content: bytes) -> None:
        """Record a piece: its file appears whole or not at all, whenever the process is killed."""
        write_whole(self.files[name], content + hashlib.sha256(content).digest())

    def read(self, name: str) -> xr.DataTree:
        """The result of a piece, in memory."""
        if self.attrs(name) is None:
            raise ValueError(
                f"{self.files[name]} is gone, or is not what was recorded of {name!r}: run the work again."
            )
        with xr.open_datatree(self.files[name]) as tree:
            tree.load()
        del tree.attrs[WARNED], tree.attrs[PIECE]
        return tree

    def attrs(self, name: str) -> dict[str, Any] | None:
        """What the file of a piece says of the whole; None if there is no such file, or not as it was written.

        Raises
        ------
        ValueError
            If the file is of another piece of that name: of other data, settings or seed.
        """
        if not _as_written(self.files[name]):
            return None
        try:
            with xr.open_dataset(self.files[name]) as root:
                attrs = dict(root.attrs)
        except (OSError, ValueError):
            return None
        if not {PIECE, WARNED} <= set(attrs):
            return None
        if attrs[PIECE] != self.fingerprints[name]:
            raise ValueError(
                f"{self.files[name].parent} holds other work: {name!r} was done with other data, settings or seed. "
                "Name another folder."
            )
        return attrs


def _as_written(path: Path) -> bool:
    """Whether a file is there and ends with the digest of what comes before, which those who read NetCDF pass over."""
    if not path.is_file():
        return False
    content = path.read_bytes()
    size = hashlib.sha256().digest_size
    return hashlib.sha256(content[:-size]).digest() == content[-size:]


def write_whole(path: Path, content: bytes) -> None:
    """Write a file under another name, to the disk, and give it its name in one step."""
    draft = path.with_name(f"{path.name}.{os.getpid()}.part")  # two processes may do the same work in one folder
    with draft.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    os.replace(draft, path)


def opened(folder: str | Path, task: Callable, pieces: Mapping[str, Any]) -> Folder:
    """The folder of some work, new or begun.

    Raises
    ------
    ValueError
        If the folder holds anything else than work of the same task by the same versions.
    """
    path = Path(folder).expanduser().resolve()
    if path.exists() and not path.is_dir():
        raise ValueError(f"Expected a folder, got a file: {folder}.")
    path.mkdir(parents=True, exist_ok=True)
    work = {
        "task": f"{task.__module__}.{task.__qualname__}",
        "versions": {name: version(name) for name in OF_RESULTS},
    }
    if (path / MANIFEST).is_file():
        _check_same(work, _begun(path / MANIFEST), folder)
    elif any(not entry.name.startswith(MANIFEST) for entry in path.iterdir()):
        raise ValueError(f"{folder} holds files but no {MANIFEST}: name an empty folder, or one that this work began.")
    else:
        write_whole(path / MANIFEST, json.dumps(work, indent=1).encode())
    for draft in path.glob("*.part"):
        if time.time() - draft.stat().st_mtime > STALE:
            draft.unlink(missing_ok=True)
    fingerprints = {name: fingerprint(piece) for name, piece in pieces.items()}
    return Folder({name: path / f"{file_name(name)}.nc" for name in pieces}, fingerprints)


def _begun(manifest: Path) -> dict:
    """The work that a folder was begun for."""
    try:
        begun = json.loads(manifest.read_text())
        if {"task", "versions"} <= set(begun):
            return begun
    except (ValueError, TypeError):
        pass
    raise ValueError(f"{manifest} is damaged, so that nobody knows whose the files beside it are: name another folder.")


def _check_same(work: dict, begun: dict, folder: str | Path) -> None:
    """Refuse a folder of other work, by the first thing that differs."""
    said = [] if begun["task"] == work["task"] else ["another task"]
    for name, now in work["versions"].items():
        if (then := begun["versions"].get(name)) != now:
            said.append(f"{name} {then}, not {now}")
    if said:
        raise ValueError(f"{folder} holds other work, of {said[0]}: name another folder.")


def file_name(name: str) -> str:
    """As much of the name as any file system takes, and a fingerprint, since names may differ by case only."""
    return f"{re.sub(r'[^\w.-]+', '_', name)[:LONGEST_NAME]}-{fingerprint(name)[:12]}"


def fingerprint(value: Any) -> str:
    """The same for equal values in any process: of frames, arrays, fits, models, priors, functions, and plain Python.

    Raises
    ------
    TypeError
        If a value is of another kind.

    Examples
    --------
    >>> fingerprint({"a": [1, None]}) == fingerprint({"a": (1, None)}) != fingerprint({"a": [2, None]})
    True
    """
    return hashlib.sha256(_canonical(value)).hexdigest()


def _canonical(value: Any) -> bytes:
    """Bytes that say what a value is, parts by their own fingerprints."""
    match value:
        case None | bool() | int() | float() | str() | bytes():
            return f"{type(value).__name__}:{value!r}".encode()
        case np.generic() | np.ndarray():
            return f"array:{np.shape(value)}:{np.asarray(value).tolist()!r}".encode()
        case pd.DataFrame():
            columns = {str(name): _column(value.iloc[:, i]) for i, name in enumerate(value.columns)}
            return b"frame:" + _canonical([_of_any(value.attrs), columns, _column(value.index.to_series())])
        case xr.Dataset():
            return b"dataset:" + _canonical([value.attrs, {n: [v.dims, v.values] for n, v in value.variables.items()}])
        case xr.DataTree():
            parts = {name: of.to_dataset() for name, of in value.children.items()}
            said = [_as_read(value.attrs), {name: _as_read(of.attrs) for name, of in parts.items()}]
            return b"tree:" + _canonical([*said, {name: of.drop_attrs() for name, of in parts.items()}])
        case Mapping():
            return b"mapping:" + "".join(fingerprint(k) + fingerprint(v) for k, v in value.items()).encode()
        case list() | tuple():
            return b"row:" + "".join(map(fingerprint, value)).encode()
        case Prior():
            return b"prior:" + _canonical(value.to_dict())
        case HierarchicalModel():
            return b"model:" + (_canonical([value.name, value.chosen]) if of_the_zoo(value) else _whole(vars(value)))
        case _ if callable(value) and hasattr(value, "__qualname__"):
            name = f"{value.__module__}.{value.__qualname__}"
            return b"function:" + (name.encode() if _known_by_name(value) else _whole(value))
    raise TypeError(
        f"Expected frames, arrays, fits, models, priors, functions, numbers or text, got {type(value).__name__}."
    )


def _as_read(attrs: Mapping) -> dict[str, list]:
    """Attributes as NetCDF gives them back, to which a number and a row of one are alike, and a truth is a number."""
    rows = {name: np.atleast_1d(value) for name, value in attrs.items()}
    return {name: (row.astype(float) if row.dtype.kind in "biuf" else row).tolist() for name, row in rows.items()}


def _known_by_name(function: Callable) -> bool:
    """Whether its module has it under its name, as it has no lambda; what a notebook or a script defines may change."""
    module = sys.modules.get(function.__module__)
    try:
        return function.__module__ != "__main__" and attrgetter(function.__qualname__)(module) is function
    except AttributeError:
        return False


def _whole(value: Any) -> bytes:
    """Of what is known by no name: all that it is made of."""
    return hashlib.sha256(cloudpickle.dumps(value)).digest()


def _of_any(value: Any) -> Any:
    """A value if it has a fingerprint, or all that it is made of: a caller's own attributes may be anything."""
    try:
        _canonical(value)
    except TypeError:
        return _whole(value)
    return value


def _column(column: pd.Series) -> list:
    try:
        return [str(column.dtype), pd.util.hash_pandas_object(column, index=False).to_numpy()]
    except TypeError:  # cells that have no hash, lists say
        return [str(column.dtype), _whole(column.to_list())]
