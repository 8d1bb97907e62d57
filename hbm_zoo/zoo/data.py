"""Shipped data, in the columns of the models that use them."""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING

import pandas as pd

from hbm_zoo.words import choose, listed
from hbm_zoo.zoo import MODELS, record_of

if TYPE_CHECKING:
    from hbm_zoo.model import HierarchicalModel


def datasets() -> pd.DataFrame:
    """List the shipped data sets: name, the model they belong to, rows and columns.

    Examples
    --------
    >>> "pumps" in datasets().index
    True
    """
    rows = []
    for model, module in MODELS.items():
        for name in module.MODEL.datasets:
            frame = load_data(name, module.MODEL)
            rows.append({"dataset": name, "model": model, "rows": len(frame), "columns": ", ".join(frame.columns)})
    return pd.DataFrame(rows).set_index("dataset")


def load_data(name: str, model: ModuleType | HierarchicalModel | str | None = None) -> pd.DataFrame:
    """Load a shipped data set, in the columns of its model.

    Parameters
    ----------
    name : str
        One of ``datasets().index``. `data/SOURCES.md` says where each comes from.
    model : module, HierarchicalModel or str, optional
        The model to use it by; needed only if several use it under other names of columns.

    Returns
    -------
    pandas.DataFrame
        A frame that ``fit`` takes, with the options that ``MODEL.datasets[name].options`` gives; its
        ``attrs["labels"]`` say what the file calls the columns, for tables and pictures.

    Raises
    ------
    ValueError
        If there is no such data set; the nearest name is given. If several models use it, and none was named.

    Examples
    --------
    >>> load_data("three_hospitals")["observed"].tolist()
    [6, 2, 48]
    """
    records = [module.MODEL for module in MODELS.values()] if model is None else [record_of(model)]
    choose(name, [known for record in records for known in record.datasets], "data set")
    users = [record for record in records if name in record.datasets]
    if len({(record.datasets[name].file, *record.datasets[name].columns.items()) for record in users}) > 1:
        raise ValueError(f"{name!r} is used by {listed(record.name for record in users)}: name one by model=.")
    shipped = users[0].datasets[name]
    frame = pd.read_csv(data_folder() / f"{shipped.file or name}.csv")
    frame = frame.rename(columns={theirs: ours for ours, theirs in shipped.columns.items()})
    for column, value in shipped.where.items():
        frame = frame[frame[column] == value].reset_index(drop=True)
    if shipped.reader:
        frame = users[0].extras.readers[shipped.reader](frame, **shipped.given)
    frame.attrs["labels"] = frame.attrs.get("labels", {}) | dict(shipped.columns)
    return frame


def data_folder() -> Path:
    """Where the data lie: inside an installed wheel, or beside the package in a checkout."""
    installed = Path(str(files("hbm_zoo"))) / "_data"
    return installed if installed.is_dir() else Path(str(files("hbm_zoo"))).parent / "data"
