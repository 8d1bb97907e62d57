"""Fits that many tests read: each is made once."""

import pytest

import hbm_zoo as hz


@pytest.fixture(scope="session")
def three_hospitals_fits():
    """Three poolings of three hospitals."""
    frame = hz.load_data("three_hospitals")
    return hz.fit_poolings("hospital_readmission", frame, random_seed=1, progressbar=False)


@pytest.fixture(scope="session")
def heart_fits():
    """Three poolings of 94 hospitals."""
    frame = hz.load_data("heart_transplants")
    return hz.fit_poolings("hospital_readmission", frame, random_seed=2, progressbar=False)


@pytest.fixture(scope="session")
def genes_fit():
    """Partial pooling of 1,000 simulated genes."""
    return hz.fit("spike_slab_genes", hz.load_data("simulated_genes"), random_seed=3, progressbar=False)
