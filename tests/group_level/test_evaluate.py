import numpy as np
import pytensor.tensor as pt
import xarray as xr
from pytensor.graph.traversal import ancestors

from hbm_zoo.group_level import evaluate as evaluation
from hbm_zoo.group_level import poisson_gamma
from hbm_zoo.group_level.evaluate import MANY_CELLS, _compiled, evaluate


def by_label(values, labels):
    return xr.DataArray(values, {"g": [*labels]}, ("g",))


def plus(a, b):
    return a + b


def test_arrays_meet_by_their_labels_whatever_the_order():
    a, b = by_label([1.0, 2.0, 3.0], "abc"), by_label([10.0, 20.0, 30.0], "cab")
    xr.testing.assert_equal(evaluate(plus, a, b), a + b)


def test_the_result_has_every_dim_though_the_formula_may_not_need_it():
    a, draws = by_label([1.0, 2.0, 3.0], "abc"), xr.DataArray([1.0, 2.0], dims="sample")
    found = evaluate(lambda a, draws: 2 * a, a, draws)
    assert found.sizes == {"g": 3, "sample": 2}
    np.testing.assert_array_equal(found.isel(sample=1), 2 * a)
    found[0, 0] = 7.0  # an array of its own
    assert found[0, 1] == 2.0


def test_what_does_not_depend_on_a_dim_is_computed_once_for_it():
    """The logarithm is of the draws alone: groups x draws logarithms would cost many times more."""

    def formula(a, draws):
        return a * pt.log(draws)

    compiled = _compiled(formula, ((None, 1), (1, None)))
    (result,) = compiled.maker.fgraph.outputs
    (log,) = [v for v in ancestors([result]) if v.owner and str(v.owner.op) == "Log"]
    assert log.type.broadcastable == (True, False)


def test_dims_that_the_same_arguments_have_are_one():
    """Chains of draws, draws alone, and one of them are compiled once; each value is in its place."""

    def formula(a, h, both):
        return a - 2 * h + 3 * both

    a, rng = by_label([1.0, 2.0, 3.0], "abc"), np.random.default_rng(1)
    before = _compiled.cache_info().misses
    for sizes in ({"chain": 2, "draw": 4}, {"sample": 5}, {"sample": 1}):
        h = xr.DataArray(rng.normal(size=[*sizes.values()]), dims=[*sizes])
        both = xr.DataArray(rng.normal(size=[*sizes.values(), 3]), {"g": [*"abc"]}, dims=[*sizes, "g"])
        for arguments in (
            (a, h, both),
            (a, h, both.transpose("g", ...)),
            (a, h, both.transpose(..., *reversed(sizes))),
        ):
            found = evaluate(formula, *arguments)
            xr.testing.assert_allclose(found, a - 2 * h + 3 * both)
            assert found.dims == ("g", *sizes)
            assert found.values.flags.c_contiguous
    assert _compiled.cache_info().misses == before + 1


def test_of_many_cells_nothing_is_computed_number_by_number(monkeypatch):
    """NumPy has no softplus: of many cells it is compiled, of few it need not be."""
    asked = []
    monkeypatch.setattr(evaluation, "_compiled", lambda *given: asked.append(given[2]) or np.atleast_1d)
    for size in (10, MANY_CELLS):
        evaluate(pt.softplus, xr.DataArray(np.zeros(size), dims="g"))
        evaluate(pt.exp, xr.DataArray(np.zeros(size), dims="g"))
    assert asked == [False, False, True, False]


def test_many_cells_are_what_few_are():
    """A long formula is compiled for many; it is the same formula."""
    observed = by_label(np.arange(60.0), range(60))
    mu, cv = (xr.DataArray(np.linspace(low, high, 4_000), dims="sample") for low, high in ((0.5, 2.0), (0.0, 0.9)))
    every = evaluate(poisson_gamma.log_marginal, observed, 3.0 + 0 * observed, mu, cv)
    few = evaluate(poisson_gamma.log_marginal, observed, 3.0 + 0 * observed, mu[::400], cv[::400])
    assert every.size >= MANY_CELLS > few.size
    np.testing.assert_allclose(every.isel(sample=slice(None, None, 400)), few, rtol=1e-12)
