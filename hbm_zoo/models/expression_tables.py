"""Expression of one gene from the tables that single-cell data come in."""

import numpy as np
import pandas as pd

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
        If there is no such gene or column; the nearest name is given.
    """
    choose(gene, adata.var_names, "gene")
    choose(tissue_key, adata.obs.columns, "column of adata.obs")
    column = adata[:, gene].X
    expression = np.asarray(column.toarray() if hasattr(column, "toarray") else column, dtype=float).ravel()
    return pd.DataFrame({"tissue": adata.obs[tissue_key].to_numpy(), "expression": expression, "gene": gene})
