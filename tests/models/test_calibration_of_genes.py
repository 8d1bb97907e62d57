"""Calibration of the alternatives of genes, and an error in each that it must see; forty genes."""

from dataclasses import replace

import numpy as np
import pytest

import hbm_zoo as hz
from hbm_zoo.models import spike_slab_genes as genes
from hbm_zoo.models import unimodal_genes as slabs

pytestmark = pytest.mark.slow
FRAME, _ = genes.MODEL.simulate(np.random.default_rng(0), genes=40)
BY_Z, UNIMODAL = genes.MODEL.under(unit="z"), genes.MODEL.under(slab="unimodal")


def calibrated(record, simulations):
    return hz.calibrate(record, FRAME, simulations=simulations, random_seed=1, progressbar=False)


def planted(record, other):
    """A record whose fits have the density of another one; no option leads back to the first."""
    partial = {"marginalized": other.variants["partial"]["marginalized"]}
    return replace(record, variants={**record.variants, "partial": partial}, alternatives={}, changed={}, base=None)


@pytest.mark.parametrize("options", [{"unit": "z"}, {"slab": "unimodal"}], ids=["z", "unimodal"])
def test_the_truth_is_one_more_draw(options):
    """Of right posteriors one in a thousand fails this; 100 simulations see coarse errors (docs/calibration.md)."""
    result = calibrated(genes.MODEL.under(**options), 100)
    print(result)
    assert result.table["p_holm"].min() > 1e-3


def test_a_unit_that_is_forgotten_is_seen():
    """The fits take tau for an sd of effects, the truths for one of z."""
    assert calibrated(planted(BY_Z, genes.MODEL), 25).table["p_holm"].min() < 1e-3


def test_widths_in_the_wrong_order_are_seen(monkeypatch):
    """The fits take the share of the narrowest slab for that of the widest."""
    right = slabs.slabs

    def reversed_widths(prior):
        pi0, w, s, *null = right(prior)
        return pi0, w, s[::-1], *null

    monkeypatch.setattr(slabs, "slabs", reversed_widths)
    assert calibrated(planted(UNIMODAL, UNIMODAL), 50).table["p_holm"].min() < 1e-3
