"""Result tables of DESeq2 and limma, as those tools write them, for `spike_slab_genes`."""

import warnings

import numpy as np
import pandas as pd

from hbm_zoo.frames.numerals import as_numbers
from hbm_zoo.frames.rules import FrameError, FrameWarning, check, label, number, positive

GENE_COLUMNS = ("gene", "ID", "row", "Unnamed: 0", "")
MISSING = ("NA", "NaN", "nan", "")


def from_deseq2(frame):
    """Read a table of DESeq2's ``results`` (or PyDESeq2's).

    Parameters
    ----------
    frame : pandas.DataFrame
        Columns log2FoldChange and lfcSE; genes in the index, in a column named gene or row, or
        in the first column, unnamed as ``write.csv`` leaves it.

    Returns
    -------
    pandas.DataFrame
        Columns gene, effect, standard_error [log2]. ``attrs["notes"]`` say what was left out.

    Raises
    ------
    FrameError
        If a column is missing, genes have no names, or the fold changes were shrunk before.

    Warns
    -----
    FrameWarning
        Genes without an estimate or a p value (no counts, or an outlier by Cook's distance), and rows without a
        name, are left out and counted. A missing adjusted p value alone leaves no gene out.

    Notes
    -----
    Columns: Love, Huber & Anders (2014) Genome Biol 15:550, function ``results``.

    Examples
    --------
    >>> import pandas as pd
    >>> frame = pd.DataFrame({"log2FoldChange": [1.5, -0.2], "lfcSE": [0.3, 0.2]}, index=["BRCA1", "TP53"])
    >>> from_deseq2(frame)["gene"].tolist()
    ['BRCA1', 'TP53']
    """
    if "pvalue" in frame and "stat" not in frame:
        raise FrameError(
            "from_deseq2 expected a table of results(), got one without the column 'stat', as lfcShrink() makes them: "
            "its fold changes are shrunk already."
        )
    named = _named(frame, ("log2FoldChange", "lfcSE", "pvalue"), "from_deseq2")
    rules = {"gene": label("gene"), "log2FoldChange": number("fold change"), "lfcSE": positive("its standard error")}
    kept, notes = _without(
        named, {"no name": named["gene"].isna(), "no estimate or no p value": named.isna().any(axis=1)}
    )
    table = (
        check(kept, rules, "from_deseq2")
        .set_axis(kept.index)
        .rename(columns={"log2FoldChange": "effect", "lfcSE": "standard_error"})
    )
    table.attrs["notes"] = notes
    return table


def from_limma(frame):
    """Read a table of limma's ``topTable``.

    Parameters
    ----------
    frame : pandas.DataFrame
        Columns logFC and t; genes in the index, in a column named gene or ID, or in the first
        column, unnamed as ``write.csv`` leaves it.

    Returns
    -------
    pandas.DataFrame
        Columns gene, effect, standard_error = logFC / t [log2], the moderated standard error.
        ``attrs["notes"]`` say what was left out.

    Raises
    ------
    FrameError
        If a column is missing, genes have no names, or logFC and t disagree in sign.

    Warns
    -----
    FrameWarning
        Rows without a name or an estimate, or with a logFC or t that was rounded to 0, so that the table does not
        tell the standard error, are left out and counted.

    Notes
    -----
    Columns: Ritchie et al. (2015) Nucleic Acids Res 43:e47, function ``topTable``. The moderated t
    is taken for a normal score, which it is with many residual and prior degrees of freedom.

    Examples
    --------
    >>> import pandas as pd
    >>> from_limma(pd.DataFrame({"ID": ["1635_at"], "logFC": [1.2], "t": [8.0]}))["standard_error"].item()
    0.15
    """
    named = _named(frame, ("logFC", "t"), "from_limma")
    zero = (named["logFC"] == 0) | (named["t"] == 0)
    kept, notes = _without(
        named,
        {
            "no name": named["gene"].isna(),
            "no estimate": named.isna().any(axis=1),
            "logFC or t of 0, by rounding, which tells no standard error": zero,
        },
    )
    rules = {"gene": label("gene"), "logFC": number("fold change"), "t": number("moderated t statistic")}
    table = check(kept, rules, "from_limma")
    table = table.assign(standard_error=table["logFC"] / table["t"]).set_axis(kept.index)
    if (bad := ~(table["standard_error"] > 0)).any():
        raise FrameError(f"from_limma expected logFC and t of the same sign; they differ {_place(table, bad)}.")
    table = table.drop(columns="t").rename(columns={"logFC": "effect"})
    table.attrs["notes"] = notes
    return table


def _place(table, bad):
    """Where the first bad row is."""
    return f"in {table.index.name or 'row'} {table.index[np.asarray(bad)][0]}"


def _named(frame, columns, reader):
    """Genes by name, and those of the columns that there are, as numbers."""
    if not isinstance(frame, pd.DataFrame):
        raise FrameError(f"{reader} expected a pandas DataFrame, got {type(frame).__name__}.")
    if missing := [name for name in columns if name not in frame and name != "pvalue"]:
        there = ", ".join(map(str, frame.columns))
        raise FrameError(f"{reader} expected a column {missing[0]!r}, got only {there}.")
    gene = next((frame[name] for name in GENE_COLUMNS if name in frame), None)
    if gene is None:
        if isinstance(frame.index, pd.RangeIndex) or frame.index.name == "line":
            raise FrameError(f"{reader} expected genes in the index or in a column 'gene', got row numbers only.")
        gene = frame.index.to_series()
    gene = gene.mask(gene.astype(str).str.strip().isin(MISSING)) if gene.dtype == object else gene
    return pd.DataFrame({"gene": gene} | _numbers(frame[[name for name in columns if name in frame]], reader))


def _numbers(frame, reader):
    """Columns as numbers, whatever their decimal mark; R writes NA where there is none."""
    plain = frame.map(lambda cell: None if isinstance(cell, str) and cell.strip() in MISSING else cell)
    numbers = as_numbers(plain, dict.fromkeys(frame.columns, number("")))
    for name, column in numbers.items():
        bad = column.map(lambda cell: isinstance(cell, str))
        if bad.any():
            got = column[bad].iloc[0]
            raise FrameError(f"{reader}: column {name!r} expected a number or NA, got {got!r} {_place(frame, bad)}.")
    return {name: column.astype(float) for name, column in numbers.items()}


def _without(table, reasons):
    """The rows that stay, and a sentence that counts the others, by the first reason that holds of each."""
    kept, notes = pd.Series(True, table.index), []
    for reason, holds in reasons.items():
        if (out := holds & kept).any():
            notes.append(f"{out.sum():,} of {len(table):,} genes are left out: {reason}.")
            kept &= ~holds
    for note in notes:
        warnings.warn(note, FrameWarning, stacklevel=3)
    return table[kept], notes
