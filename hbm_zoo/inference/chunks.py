"""Groups in portions, so that no array of draws x groups grows beyond what memory should hold."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
import xarray as xr

from hbm_zoo.model import HierarchicalModel

CELLS_AT_ONCE = 400_000


def in_portions(which: np.ndarray, samples: int, cells: int = 1) -> Iterator[np.ndarray]:
    """Positions in portions, each small enough for one array of draws x portion x cells."""
    step = max(1, CELLS_AT_ONCE // (samples * cells))
    for start in range(0, which.size, step):
        yield which[start : start + step]


def of_groups(record: HierarchicalModel, data: xr.Dataset, samples: int) -> Iterator[xr.Dataset]:
    """The groups in chunks; all at once where they depend on one another."""
    level = record.group_level
    if not level.independent:
        yield data
        return
    for portion in in_portions(np.arange(data.sizes[record.group]), samples, level.cells(data)):
        yield data.isel({record.group: portion})


def each_group(record: HierarchicalModel, data: xr.Dataset, samples: int, formula: Callable):
    """What ``formula(chunk)`` says of each group, chunk by chunk.

    Chunks have no labels, which every sum of two arrays would compare anew; groups that depend on one another keep
    theirs.
    """
    bare = data.drop_vars(record.group, errors="ignore") if record.group_level.independent else data
    with xr.set_options(arithmetic_join="exact"):
        parts = [formula(chunk) for chunk in of_groups(record, bare, samples)]
    return xr.concat(parts, dim=record.group).assign_coords({record.group: data[record.group]})


def log_joint(record: HierarchicalModel, h: xr.Dataset, data: xr.Dataset) -> xr.DataArray:
    """Log likelihood of all data at hyperparameters of any dims, what belongs to each group integrated out [nats]."""
    samples = 1
    for size in h.sizes.values():
        samples *= size
    return sum(record.group_level.log_joint(h, part) for part in of_groups(record, data, samples))


def log_joint_above(
    record: HierarchicalModel, h: xr.Dataset, data: xr.Dataset, least: np.ndarray | float
) -> np.ndarray:
    """The same [sample] where it is above ``least``, or would be but for what one portion of the groups says; or -inf.

    Portion by portion, what its data can say at most gives way to its integral; hyperparameters are given up as soon as
    the sum is too little, so that few are left when integrals are dear. A group that is left out later may be the one
    that made it so.
    """
    level, parts = record.group_level, list(of_groups(record, data, h.sizes["sample"]))
    best, most = ([of(h, part).values for part in parts] for of in (level.log_most, level.log_at_most))
    total, worst = sum(most), np.max(np.subtract(best, most), axis=0)
    for part, of_best, of_part in zip(parts, best, most, strict=True):
        left = np.flatnonzero(~(total + worst <= least))
        if left.size:
            joint = level.log_joint(h.isel(sample=left), part).values
            total[left] += joint - of_part[left]
            worst[left] = np.maximum(worst[left], of_best[left] - joint)
    return np.where(total + worst <= least, -np.inf, total)
