"""The tables of a report as HTML."""

from __future__ import annotations

import pandas as pd
from great_tables import GT, loc, style

from hbm_zoo import words
from hbm_zoo.plots.style import COLOURS


def html(table: pd.DataFrame, identity: str, texts: tuple[str, ...] = ()) -> str:
    """A table as HTML; `texts` are the columns of text, set to the left, the first among them."""
    left = [name for name in table.columns if name in (table.columns[0], *texts)]
    drawn = (
        GT(table, id=identity)
        .cols_align("right", [name for name in table.columns if name not in left])
        .cols_align("left", left)
        .tab_options(
            table_width="100%",
            table_font_size="13px",
            table_font_names=["inherit"],
            data_row_padding="3px",
            data_row_padding_horizontal="4px",
            column_labels_padding_horizontal="4px",
            column_labels_font_weight="600",
            column_labels_border_top_style="none",
            column_labels_border_bottom_color="#333333",
            table_body_border_bottom_color="#333333",
            table_body_hlines_color="#E5E5E5",
            table_border_top_style="none",
            table_border_bottom_style="none",
        )
    )
    if table.columns[0] == "pooling":
        for row, name in enumerate(table["pooling"]):
            colour = next((COLOURS[key] for key, said in words.POOLINGS.items() if said == name), None)
            if colour:
                edge = style.borders(sides="left", color=colour, weight="5px")
                drawn = drawn.tab_style(edge, loc.body(columns="pooling", rows=[row]))
    return drawn.as_raw_html()
