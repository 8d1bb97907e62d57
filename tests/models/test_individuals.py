"""Selection gradients of animals against statsmodels, derivatives by differences and a frozen file; who is left out."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import statsmodels.api as sm

import hbm_zoo as hz
from hbm_zoo.frames.covariances import parsed
from hbm_zoo.frames.rules import FrameError, FrameWarning
from hbm_zoo.models.individuals import from_individuals

DATA = Path(__file__).parents[2] / "data"
BIRDS = pd.read_csv(DATA / "selection_years.csv")
TRAITS = ["beak_depth_sd", "mass_sd"]
SURVIVAL = {"traits": TRAITS, "fitness": "survived", "kind": "survival"}


def young(years=3, animals=80, seed=1):
    """Animals whose number of young follows their mass and wing; the traits in units of their own."""
    rng = np.random.default_rng(seed)
    size = years * animals
    z = rng.multivariate_normal([0, 0], [[1, 0.5], [0.5, 1]], size)
    frame = pd.DataFrame({"season": np.repeat(2000 + np.arange(years), animals), "mass": 20 + 2 * z[:, 0]})
    frame["wing"] = 60 + 5 * z[:, 1] + 3 * (frame["season"] - 2000)
    frame["young"] = rng.poisson(np.exp(0.5 + 0.3 * z[:, 0] - 0.1 * z[:, 0] ** 2))
    return frame


ANIMALS = young()
YOUNG = {"traits": "mass; wing", "fitness": "young", "year": "season"}


def of_year(gradients, year):
    """The gradients of a year, and the covariance of their errors."""
    rows = gradients[gradients["year"] == year]
    names = rows["trait"].tolist()
    S = np.diag(rows["standard_error"] ** 2)
    for k, text in enumerate(rows["covariances"]):
        for name, value in parsed(text).items():
            S[k, names.index(name)] = S[names.index(name), k] = value
    return rows["gradient"].to_numpy(), S


def standardised(frame, year, sd=None):
    rows = frame[frame["season"] == year]
    z = rows[["mass", "wing"]] - rows[["mass", "wing"]].mean()
    return rows["young"] / rows["young"].mean(), z / (frame[["mass", "wing"]].std() if sd is None else sd)


def errors_of(w, X, robust=True):
    """Slopes of statsmodels, and their covariance with that of mean fitness, by which fitness was divided."""
    fit = sm.OLS(w, X).fit(cov_type="HC3" if robust else "nonrobust")
    b, n = fit.params.to_numpy(), len(w)
    if not robust:
        return b[1:], (fit.cov_params().to_numpy() + np.outer(b, b) * np.var(w, ddof=1) / n)[1:, 1:]
    deleted = np.asarray(fit.get_influence().resid_press)[:, None]
    with_mean = (deleted * (X.to_numpy() @ np.asarray(fit.normalized_cov_params)))[:, 1:] - np.outer(w - 1, b[1:]) / n
    return b[1:], with_mean.T @ with_mean


@pytest.mark.parametrize("errors", ["hc3", "ordinary"])
def test_linear_gradients_are_least_squares_of_statsmodels(errors):
    gradients = from_individuals(ANIMALS, errors=errors, **YOUNG)
    w, z = standardised(ANIMALS, 2001)
    b, S = of_year(gradients, 2001)
    expected, covariance = errors_of(w, sm.add_constant(z), errors == "hc3")
    np.testing.assert_allclose(b, expected, rtol=1e-10)
    np.testing.assert_allclose(S, covariance, rtol=1e-9)
    assert gradients["animals"].eq(80).all()


def test_errors_of_linear_gradients_are_those_of_samples():
    """Mean fitness is an estimate: without its error those of strong gradients come out too large, by 40 % here."""
    rng = np.random.default_rng(4)
    z = rng.normal(size=(600, 100))
    young = rng.poisson(np.exp(0.8 * z - 0.32))
    years = pd.DataFrame({"year": np.repeat(np.arange(600), 100), "z": z.ravel(), "young": young.ravel()})
    gradients = from_individuals(years, traits="z", fitness="young")
    sd = gradients["gradient"].std()
    assert np.sqrt((gradients["standard_error"] ** 2).mean()) == pytest.approx(sd, rel=0.12)  # four standard errors


def test_errors_of_survival_are_of_the_animals_at_hand():
    """As the docstring says: of the population they are sampled from, strong selection is known less well."""
    rng = np.random.default_rng(6)
    z = rng.normal(size=(200, 60))
    alive = rng.random(z.shape) < 1 / (1 + np.exp(0.8 - 3 * z))
    years = pd.DataFrame({"year": np.repeat(np.arange(200), 60), "z": z.ravel(), "alive": alive.ravel()})
    with pytest.warns(FrameWarning, match="Left out year"):
        gradients = from_individuals(years, traits="z", fitness="alive", kind="survival")
    ratio = gradients["gradient"].std() / np.sqrt((gradients["standard_error"] ** 2).mean())
    assert 1.2 < ratio < 1.8


def test_yes_and_no_are_survival_too():
    as_numbers = from_individuals(BIRDS, **SURVIVAL)
    for kind in (bool, "boolean", object, str):
        yes = BIRDS.assign(survived=BIRDS["survived"].astype(bool).astype(kind))
        pd.testing.assert_frame_equal(from_individuals(yes, **SURVIVAL), as_numbers)


def test_a_year_with_few_deaths_is_left_out():
    rng = np.random.default_rng(2)
    frame = pd.DataFrame({"year": np.repeat([1, 2], 60), "z": rng.normal(size=120), "alive": rng.integers(0, 2, 120)})
    frame.loc[frame["year"] == 2, "alive"] = 1
    frame.loc[frame.index[-4:], "alive"] = 0
    with pytest.warns(FrameWarning, match="Left out year 2 .4 died, fewer than 5 for each trait"):
        from_individuals(frame, traits="z", fitness="alive", kind="survival")


def test_quadratic_gradients_are_twice_the_slopes_of_squares():
    """And so are their errors; those of products count once."""
    gradients = from_individuals(ANIMALS, quadratic=True, **YOUNG)
    w, z = standardised(ANIMALS, 2002)
    X = sm.add_constant(z.assign(mm=z.mass**2, mw=z.mass * z.wing, ww=z.wing**2))
    (expected, covariance), times = errors_of(w, X), np.array([1, 1, 2, 1, 2])
    b, S = of_year(gradients, 2002)
    assert gradients["trait"][:5].tolist() == ["mass", "wing", "mass^2", "mass * wing", "wing^2"]
    np.testing.assert_allclose(b, times * expected, rtol=1e-9)
    np.testing.assert_allclose(S, np.outer(times, times) * covariance, rtol=1e-8)


def test_within_years_each_year_has_an_sd_of_its_own_and_says_so():
    gradients = from_individuals(ANIMALS, standardise="within year", **YOUNG)
    sd = ANIMALS[ANIMALS["season"] == 2001][["mass", "wing"]].std()
    w, z = standardised(ANIMALS, 2001, sd)
    np.testing.assert_allclose(of_year(gradients, 2001)[0], sm.OLS(w, sm.add_constant(z)).fit().params[1:], rtol=1e-10)
    assert gradients.attrs["labels"]["gradient"] == "gradient times that year's sd"
    assert from_individuals(ANIMALS, **YOUNG).attrs["labels"] == {"year": "season"}


def test_survival_is_a_logistic_regression_and_its_average_gradient():
    """Slopes of statsmodels; the covariance with the derivatives of the average, by differences."""
    gradients = from_individuals(BIRDS, **SURVIVAL)
    rows = BIRDS[BIRDS["year"] == 1994]
    X = sm.add_constant((rows[TRAITS] - rows[TRAITS].mean()) / BIRDS[TRAITS].std()).to_numpy()
    fit = sm.Logit(rows["survived"].to_numpy(), X).fit(disp=0, tol=1e-12)

    def average(a):
        p = 1 / (1 + np.exp(-X @ a))
        return a[1:] * (p * (1 - p)).mean() / p.mean()

    J = np.column_stack([(average(fit.params + e) - average(fit.params - e)) / 2e-6 for e in 1e-6 * np.eye(3)])
    b, S = of_year(gradients, 1994)
    np.testing.assert_allclose(b, average(fit.params), rtol=1e-6)
    np.testing.assert_allclose(S, J @ fit.cov_params() @ J.T, rtol=1e-5)


def test_the_shipped_gradients_are_those_of_the_shipped_animals():
    """Made without this code; the traits there were taken as they are."""
    gradients, shipped = from_individuals(BIRDS, **SURVIVAL), hz.load_data("selection_gradients")
    sd = BIRDS[TRAITS].std()[gradients["trait"]].to_numpy()
    np.testing.assert_allclose(gradients["gradient"] / sd, shipped["gradient"], atol=6e-6)
    np.testing.assert_allclose(gradients["standard_error"] / sd, shipped["standard_error"], atol=6e-6)
    assert gradients["animals"].tolist() == shipped["animals"].tolist()


def test_gradients_do_not_depend_on_the_unit_of_a_trait_or_on_the_order_of_rows():
    changed = ANIMALS.assign(mass=1000 * ANIMALS["mass"] - 7).sample(frac=1, random_state=1)
    one, two = (
        from_individuals(frame, **YOUNG).sort_values(["year", "trait"], ignore_index=True)
        for frame in (ANIMALS, changed)
    )
    pd.testing.assert_frame_equal(one.drop(columns="covariances"), two.drop(columns="covariances"), rtol=1e-8)


def test_what_comes_out_is_what_the_model_takes():
    data = hz.selection_gradients.MODEL.data(from_individuals(ANIMALS, **YOUNG))
    assert dict(data.sizes) == {"estimate": 6, "year": 3, "trait": 2, "other": 2}
    assert (data.S.values[:, 0, 1] < 0).all()  # traits that go together have errors that go apart


# Years that are left out, each for its own reason.


def one_year(name, **columns):
    frame = young(years=1)
    frame["season"] = name
    return frame.assign(**columns)


def survival(frame):
    return frame.assign(young=(frame["young"] > 1).astype(int))


Z = one_year("x")["mass"].to_numpy()
LEFT_OUT = {
    "few": (one_year("few")[:14], "14 animals, fewer than 5 for each of 3 coefficients", "linear"),
    "barren": (one_year("barren", young=0), "no survivors or young", "linear"),
    "all alive": (one_year("all alive", young=1), "all survived", "survival"),
    "all dead": (one_year("all dead", young=0), "no survivors or young", "survival"),
    "parted": (one_year("parted", young=(Z > 20).astype(int)), "tell survivors from dead", "survival"),
    "one trait twice": (one_year("one trait twice", wing=3 * Z), "functions of one another", "linear"),
    "no error": (one_year("no error", young=Z), "without error", "linear"),
}


@pytest.mark.parametrize("name", LEFT_OUT)
def test_a_year_without_gradients_is_left_out_by_name(name):
    bad, why, kind = LEFT_OUT[name]
    good = survival(ANIMALS) if kind == "survival" else ANIMALS
    frame = pd.concat([good.assign(season=good["season"].astype(str)), bad])
    with pytest.warns(FrameWarning, match=f"Left out year {name} .*{why}"):
        gradients = from_individuals(frame, kind=kind, **YOUNG)
    assert set(gradients["year"]) == {"2000", "2001", "2002"}
    assert list(gradients.attrs["left_out"]) == [name]
    assert name in gradients.attrs["notes"][0]


def test_survival_so_steep_that_the_gradient_turns_back_is_left_out():
    """Between 30 animals only the slope of the logistic tells, not the average gradient."""
    z = np.linspace(-2, 2, 30)
    alive = (z > 0).astype(int)
    alive[[14, 15]] = 1, 0
    rng = np.random.default_rng(1)
    good = pd.DataFrame({"year": 1, "z": rng.normal(size=60), "alive": rng.integers(0, 2, 60)})
    frame = pd.concat([good, pd.DataFrame({"year": 2, "z": z, "alive": alive})])
    with pytest.warns(FrameWarning, match="Left out year 2 .selection so steep"):
        from_individuals(frame, traits="z", fitness="alive", kind="survival")


def test_a_separation_of_all_but_those_on_the_line_has_no_slope_either():
    z = np.repeat([-1.0, 0.0, 1.0], 10)
    alive = np.r_[np.zeros(10), np.tile([0, 1], 5), np.ones(10)]
    frame = pd.DataFrame({"year": 1, "z": z, "alive": alive.astype(int)})
    with pytest.raises(FrameError, match="no year left.*tell survivors from dead"):
        from_individuals(frame, traits="z", fitness="alive", kind="survival")


BAD = {
    "columns of traits by name": (ANIMALS, {"traits": ""}),
    "expected a column 'weight'.*nearest": (ANIMALS.rename(columns={"wing": "weigth"}), {"traits": "weight"}),
    "columns of their own, each once": (ANIMALS, {"traits": "mass; mass"}),
    "columns of their own": (ANIMALS, {"traits": ["mass", "young"]}),
    "column 'young' expected a finite number, 0 or more, got -1": (ANIMALS.assign(young=-1), {}),
    "column 'young' expected 0 or 1, got 2": (ANIMALS.assign(young=2), {"kind": "survival"}),
    "column 'mass' expected a finite number, got an empty cell in row 0": (
        ANIMALS.assign(mass=ANIMALS["mass"].where(ANIMALS.index > 0)),
        {},
    ),
    "column 'wing' expected values that differ": (ANIMALS.assign(wing=60.0), {}),
    "Unknown kind 'logistic'": (ANIMALS, {"kind": "logistic"}),
    "Unknown standardise 'over year'.*Did you mean 'over years'": (ANIMALS, {"standardise": "over year"}),
    "Unknown errors 'HC3'": (ANIMALS, {"errors": "HC3"}),
    "Quadratic gradients are of kind='linear'": (survival(ANIMALS), {"kind": "survival", "quadratic": True}),
    "Unknown quadratic 'maybe'": (ANIMALS, {"quadratic": "maybe"}),
    "expected a pandas DataFrame": ([1, 2], {}),
    "at least one row": (ANIMALS[:0], {}),
}


@pytest.mark.parametrize("message", BAD)
def test_what_is_no_table_of_animals_is_refused_in_a_sentence(message):
    frame, options = BAD[message]
    with pytest.raises(ValueError, match=message):
        from_individuals(frame, **YOUNG | options)
