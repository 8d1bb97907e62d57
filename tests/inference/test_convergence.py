"""A failed gate speaks."""

import warnings

import numpy as np
import pytest
import xarray as xr

import hbm_zoo as hz
from hbm_zoo.inference.convergence import ConvergenceWarning


def made_up(spoil=None, chains=4, draws=500):
    """Independent draws of mu and cv, as a fit would hold them, and one thing wrong with them."""
    rng = np.random.default_rng(1)
    shape = (chains, draws)
    posterior = {name: (("chain", "draw"), rng.standard_normal(shape)) for name in ("mu", "cv")}
    stats = {
        "diverging": (("chain", "draw"), np.zeros(shape, bool)),
        "maxdepth_reached": (("chain", "draw"), np.zeros(shape, bool)),
        "energy": (("chain", "draw"), rng.standard_normal(shape)),
    }
    if spoil:
        spoil(posterior, stats)
    tree = xr.DataTree.from_dict(
        {
            "posterior": xr.Dataset(posterior),
            "log_prior": xr.Dataset(posterior),
            "sample_stats": xr.Dataset(stats),
        }
    )
    tree.attrs = {"pooling": "partial", "parameterization": "marginalized"}
    return tree


def one_chain_elsewhere(posterior, stats):
    posterior["cv"][1][2] += 5


def stuck_chains(posterior, stats):
    posterior["mu"][1][:] = np.arange(4)[:, None]


def one_divergence(posterior, stats):
    stats["diverging"][1][0, 7] = True


def deep_trees(posterior, stats):
    stats["maxdepth_reached"][1][0, :3] = True


def slow_energy(posterior, stats):
    stats["energy"][1][:] = np.cumsum(stats["energy"][1], axis=1)


def slow_chains(posterior, stats):
    draws = posterior["mu"][1]
    for t in range(1, draws.shape[1]):
        draws[:, t] = 0.95 * draws[:, t - 1] + 0.3 * draws[:, t]


FAILURES = {
    one_chain_elsewhere: "R-hat",
    stuck_chains: "R-hat",
    one_divergence: "1 divergence: raise target_accept",
    deep_trees: "3 draws reached the largest tree depth",
    slow_energy: "E-BFMI",
    slow_chains: "effective draws are fewer than 400",
}


@pytest.mark.parametrize("spoil", FAILURES)
def test_a_failed_check_warns_and_says_which(spoil):
    with pytest.warns(ConvergenceWarning, match=f"'partial' cannot be trusted: .*{FAILURES[spoil]}"):
        table = hz.convergence({"partial": made_up(spoil)})
    assert not table.loc["partial", "passed"]
    assert FAILURES[spoil] in table.loc["partial", "verdict"]


def test_good_draws_pass_in_silence():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        table = hz.convergence(made_up())
    assert table.loc["partial", "passed"]
    assert table.loc["partial", "verdict"] == "passed every check"


def test_one_chain_is_not_enough():
    with pytest.warns(ConvergenceWarning, match="one chain cannot show whether chains agree"):
        hz.convergence(made_up(chains=1))


def test_exact_draws_need_no_check():
    frame = hz.load_data("three_hospitals")
    fit = hz.fit("hospital_readmission", frame, pooling="none", random_seed=1, draws=50)
    table = hz.convergence(fit)
    assert table.loc["none", "passed"]
    assert table.loc["none", "verdict"].startswith("exact")
