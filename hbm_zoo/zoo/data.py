"""Shipped data, in the columns of the models that use them."""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path

import pandas as pd

from hbm_zoo.words import choose
from hbm_zoo.zoo import MODELS


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
            frame = load_data(name)
            rows.append({"dataset": name, "model": model, "rows": len(frame), "columns": ", ".join(frame.columns)})
    return pd.DataFrame(rows).set_index("dataset")


def load_data(name: str) -> pd.DataFrame:
    """Load a shipped data set, in the columns of its model.

    Parameters
    ----------
    name : str
        One of ``datasets().index``. `data/SOURCES.md` says where each comes from.

    Returns
    -------
    pandas.DataFrame
        A frame that ``fit`` takes, with the options that the model's ``MODEL.datasets[name]`` gives.

    Raises
    ------
    ValueError
        If there is no such data set; the nearest name is given.

    Examples
    --------
    >>> load_data("three_hospitals")["observed"].tolist()
    [6, 2, 48]
    """
    choose(name, [known for module in MODELS.values() for known in module.MODEL.datasets], "data set")
    return pd.read_csv(data_folder() / f"{name}.csv")


def data_folder() -> Path:
    """Where the data lie: inside an installed wheel, or beside the package in a checkout."""
    installed = Path(str(files("hbm_zoo"))) / "_data"
    return installed if installed.is_dir() else Path(str(files("hbm_zoo"))).parent / "data"
