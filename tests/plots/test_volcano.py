"""The volcano: every gene is there, the discoveries are marked, and the labels are the user's."""

import json

import numpy as np
import pytest

import hbm_zoo as hz


def points(axes):
    """Heights and places of every set of points, by legend label."""
    return {line.get_label(): line.get_xydata() for line in axes.lines if len(line.get_xydata()) > 2}


def test_every_gene_is_drawn_and_the_discoveries_are_marked(genes_fit):
    found = hz.discoveries(genes_fit)
    (axes,) = (figure := hz.plot_volcano(genes_fit)).axes
    drawn = points(axes)
    frame = hz.load_data("simulated_genes")
    np.testing.assert_allclose(drawn["other genes"][:, 0], frame["effect"])
    np.testing.assert_allclose(drawn["discovery: own effect"][:, 0], found["effect"])
    np.testing.assert_allclose(drawn["discovery: own effect"][:, 1], -np.log10(found["p_value"]))
    np.testing.assert_allclose(drawn["discovery: posterior mean"][:, 0], found["mean"])
    named = {text.get_text() for text in axes.texts}
    assert set(found.index[:10]) <= named
    assert figure.get_suptitle() == f"{len(found)} of 1,000 genes with an effect, Bayesian FDR 0.05"


def test_labels_are_the_users(genes_fit):
    renamed = genes_fit.copy()
    renamed.attrs["labels"] = json.dumps({"gene": "probe", "effect": "logFC"})
    (axes,) = (figure := hz.plot_volcano(renamed, min_effect=0.2)).axes
    assert axes.get_xlabel() == "logFC"
    assert "probes with an effect larger than 0.2" in figure.get_suptitle()


def test_it_needs_a_null_group(three_hospitals_fits):
    with pytest.raises(ValueError, match="some groups may have no effect"):
        hz.plot_volcano(three_hospitals_fits["partial"])
