"""Expression of one gene from the tables that single-cell data come in."""

import warnings

import numpy as np
import pandas as pd

from hbm_zoo.frames.rules import FrameWarning
from hbm_zoo.words import choose


def from_anndata(adata, gene, tissue_key):
    """Expression of one gene from an AnnData object, the field's own format.

    Parameters
    ----------
    adata : anndata.AnnData
        ``X`` holds expression [cell, gene] on a log scale, dense or sparse. Needs the
        extra ``hbm_zoo[anndata]``.
    gene : str
        One of ``adata.var_names``.
    tissue_key : str
        The column of ``adata.obs`` that names the tissue of a cell.

    Returns
    -------
    pandas.DataFrame
        Columns tissue, expression, gene.

    Raises
    ------
    ValueError
        If there is no such gene or column (the nearest name is given), several genes have the name, or there is no X.

    Warns
    -----
    FrameWarning
        If all values are whole numbers: raw counts are not normal.
    """
    choose(gene, adata.var_names, "gene")
    choose(tissue_key, adata.obs.columns, "column of adata.obs")
    if (several := int((adata.var_names == gene).sum())) > 1:
        raise ValueError(f"{several} genes are named {gene!r}: make names unique, adata.var_names_make_unique().")
    if adata.X is None:
        raise ValueError("adata.X is empty: put expression on a log scale there, from a layer for example.")
    column = adata[:, gene].X
    expression = np.asarray(column.toarray() if hasattr(column, "toarray") else column, dtype=float).ravel()
    if expression.any() and (expression % 1 == 0).all():
        warnings.warn(
            f"adata.X of {gene!r} holds whole numbers only: are these raw counts? The model is of a log scale.",
            FrameWarning,
            stacklevel=2,
        )
    return pd.DataFrame({"tissue": adata.obs[tissue_key].to_numpy(), "expression": expression, "gene": gene})
