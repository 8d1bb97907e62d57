"""Selection gradients of each year from animals: their traits, and how they fared."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from functools import partial

import numpy as np
import pandas as pd

from hbm_zoo.frames.covariances import written
from hbm_zoo.frames.numerals import as_numbers
from hbm_zoo.frames.rules import FrameError, FrameWarning, Rule, check, label, number
from hbm_zoo.group_level.logistic import NoGradient, average_gradient, likeliest
from hbm_zoo.words import choose, listed, plural

READER = "from_individuals"
KINDS = ("linear", "survival")
SCALES = ("over years", "within year")
ERRORS = ("hc3", "ordinary")
#: Animals of a year for each coefficient of its regression, the intercept too; of survival, survivors and dead a trait.
FEWEST = 5

FITNESS = {
    "linear": Rule(
        "a finite number, 0 or more",
        lambda s: number("").holds(s) & ~(pd.to_numeric(s, errors="coerce") < 0),
        "the fitness of one animal, number of young say",
    ),
    "survival": Rule("0 or 1", lambda s: s.isin([0, 1]), "whether the animal survived"),
}
#: As pandas, and as the text of R's and Python's files, has them.
YES_OR_NO = {"true": 1, "false": 0}


def from_individuals(
    frame: pd.DataFrame,
    traits: Sequence[str] | str = (),
    fitness: str = "fitness",
    year: str = "year",
    kind: str = "linear",
    standardise: str = "over years",
    quadratic: bool = False,
    errors: str = "hc3",
) -> pd.DataFrame:
    """Estimate each year's selection gradients, and the covariance of their errors.

    Parameters
    ----------
    frame : pandas.DataFrame
        One row an animal and year: the year, the traits [any unit], the fitness.
    traits : sequence of str, or str
        The columns of the traits; in a text separated by semicolons.
    fitness, year : str
        The columns of fitness and year. Of survival, 0 or 1.
    kind : {"linear", "survival"}
        Least squares of fitness over its mean in the year (Lande & Arnold 1983); or a logistic regression of
        survival, its slopes made average gradients of relative survival (Janzen & Stern 1998).
    standardise : {"over years", "within year"}
        The sd that traits are divided by: that of all animals, which makes gradients of years comparable, or that of
        the year. Within years what is estimated is the gradient times that year's sd, which changes from year to year
        where the sd does, though selection may not. Traits are measured from the year's mean in both.
    quadratic : bool
        Of ``kind="linear"``: squares and products as well, in one regression with the traits. The gradient of a
        square is twice its slope (Stinchcombe et al. 2008), and so is its error. Two traits have five gradients then:
        take the rows of four at most to the model.
    errors : {"hc3", "ordinary"}
        Of ``kind="linear"``: covariances that allow for a spread of fitness that changes with the traits (MacKinnon &
        White 1985), as it does of survival and counts; or those of equal spread.

    Returns
    -------
    pandas.DataFrame
        Columns year, trait, gradient, standard_error [1 / sd], covariances, animals: what ``selection_gradients``
        takes. ``attrs["left_out"]`` has the years without gradients and why.

    Raises
    ------
    FrameError
        If a column is missing or holds something else, a trait does not vary, or no year is left.
    ValueError
        If an option has no such value, or quadratic gradients are asked of survival.

    Warns
    -----
    FrameWarning
        Names the years that are left out: too few animals, survivors or dead, fitness that is the same for all, traits
        that are functions of one another, survivors and dead that traits tell apart without error, or survival so steep
        that its gradient falls as the slope rises.

    Notes
    -----
    Fitness is divided by its mean in the year, which is an estimate: with u_i = (X'X)^-1 x_i e_i / (1 - h_i)
    - b (w_i - 1) / n, w relative fitness, S = sum u u' (HC3); of equal spread S = s^2 (X'X)^-1 + b b' Var(w) / n.

    Survival is logistic in traits z, p = 1 / (1 + exp(-a_0 - a'z)); the gradient b = a mean(p (1 - p)) / mean(p)
    has the covariance J I^-1 J', I the information and J the derivatives of b, those of the factor too. That is of the
    gradient of these animals; that of a population from which they are a sample is known less well where selection is
    strong (of 60 animals and a logistic slope of 3 per sd, an error of 0.10 stands for 0.15).

    Examples
    --------
    >>> import numpy as np, pandas as pd
    >>> rng = np.random.default_rng(1)
    >>> birds = pd.DataFrame({"year": np.repeat([2001, 2002], 100), "mass": rng.normal(20, 2, 200)})
    >>> birds["young"] = rng.poisson(np.exp(0.2 * (birds["mass"] - 20) / 2))
    >>> gradients = from_individuals(birds, traits="mass", fitness="young")
    >>> list(gradients.columns), gradients["gradient"].between(0, 0.5).all().item()
    (['year', 'trait', 'gradient', 'standard_error', 'covariances', 'animals'], True)
    """
    choose(kind, KINDS, "kind")
    choose(standardise, SCALES, "standardise")
    choose(errors, ERRORS, "errors")
    quadratic = choose(str(quadratic).lower(), ("false", "true"), "quadratic") == "true"
    if quadratic and kind == "survival":
        raise ValueError("Quadratic gradients are of kind='linear': of a logistic regression they are not its slopes.")
    names = listed_in(traits)
    animals = animals_of(frame, names, fitness, year, kind, READER)
    z = standardised(animals, names, year, standardise, READER)
    regression = _survival if kind == "survival" else partial(_linear, hc3=errors == "hc3")
    found, left_out = [], {}
    for one, rows in animals.groupby(year, sort=False).groups.items():
        try:
            terms, X, times = _terms(names, z.loc[rows].to_numpy(), quadratic)
            b, S = _of_year(animals.loc[rows, fitness].to_numpy(float), X, regression)
            found.append(rows_of(one, terms, times * b, np.outer(times, times) * S).assign(animals=len(rows)))
        except NoGradient as why:
            left_out[one] = str(why)
    gradients = _together(found, left_out)
    own_words = {"gradient": "gradient times that year's sd"} if standardise == "within year" else {}
    gradients.attrs |= {"left_out": left_out, "labels": {"year": year} | own_words}
    gradients.attrs["notes"] = [*frame.attrs.get("notes", []), *([_said(left_out)] if left_out else [])]
    return gradients


def listed_in(traits):
    """Names, in a text separated by semicolons."""
    if not isinstance(traits, str | Sequence):
        raise FrameError(f"Expected traits as names of columns, a text or a list, got {traits!r}.")
    return [name.strip() for name in traits.split(";")] if isinstance(traits, str) else [str(name) for name in traits]


def rows_of(year, names, b, S):
    """The rows of one year, from its gradients and the covariance of their errors."""
    columns = {"gradient": b, "standard_error": np.sqrt(np.diag(S)), "covariances": written(S, names)}
    return pd.DataFrame({"year": year, "trait": names} | columns)


def animals_of(frame, names, fitness, year, kind, reader):
    """The animals of a frame: the columns of year, fitness and traits, as numbers where they are."""
    _check_columns(frame, names, fitness, year, reader)
    columns = {year: label("the year"), fitness: FITNESS[kind], **{name: number("a trait") for name in names}}
    return check(_read(frame, columns), columns, reader)


def _read(frame, columns):
    """The columns' numbers, where a file left them as text."""
    if not isinstance(frame, pd.DataFrame):
        return frame
    plain = frame.map(lambda cell: YES_OR_NO.get(str(cell).strip().casefold(), cell))
    plain.attrs = frame.attrs
    return as_numbers(plain, columns)


def _check_columns(frame, names, fitness, year, reader):
    """Traits are named, and are other columns than year and fitness."""
    if not names or not all(names):
        have = listed(map(repr, frame.columns)) if isinstance(frame, pd.DataFrame) else "no frame"
        raise FrameError(f"{reader} expected the columns of traits by name, got none; there are {have}.")
    if len({*names, fitness, year}) < len(names) + 2:
        raise FrameError(f"{reader} expected traits, fitness and year to be columns of their own, each once.")


def standardised(animals, names, year, standardise, reader):
    """Traits from the year's mean in units of an sd; of a year where they do not vary, 0."""
    z = animals[names].astype(float)
    z = z - z.groupby(animals[year]).transform("mean")
    sd = z.groupby(animals[year]).transform("std") if standardise == "within year" else animals[names].std()
    for name in names:
        if not np.nanmax(np.atleast_1d(sd[name])) > 1e-12 * abs(animals[name]).max():
            raise FrameError(f"{reader}: column {name!r} expected values that differ, got one in every row.")
    return (z / sd).fillna(0.0)


def _terms(names, z, quadratic):
    """Names of the gradients, the columns of the regression beside the intercept, and how often each slope counts."""
    pairs = [(i, j) for i in range(len(names)) for j in range(i, len(names))] if quadratic else []
    X = np.column_stack([z, *(z[:, i] * z[:, j] for i, j in pairs)])
    terms = [f"{names[i]}^2" if i == j else f"{names[i]} * {names[j]}" for i, j in pairs]
    return [*names, *terms], X, np.array([1.0] * len(names) + [2.0 if i == j else 1.0 for i, j in pairs])


def _of_year(w, X, regression):
    """Gradients of a year and the covariance of their errors, if the animals tell them."""
    X = np.column_stack([np.ones(len(w)), X])
    if len(w) < FEWEST * X.shape[1]:
        raise NoGradient(
            f"{len(w)} {plural('animal', len(w))}, fewer than {FEWEST} for each of {X.shape[1]} coefficients"
        )
    if np.ptp(w) == 0:
        raise NoGradient({0.0: "no survivors or young", 1.0: "all survived, or had one young"}.get(w[0], "one fitness"))
    if np.linalg.matrix_rank(X) < X.shape[1]:
        raise NoGradient("traits are functions of one another")
    return regression(w, X)


def _linear(w, X, hc3):
    """Least squares of relative fitness; the covariance of its slopes, HC3 or of equal spread."""
    n, w = len(w), w / w.mean()
    inverse = np.linalg.inv(X.T @ X)
    b = inverse @ X.T @ w
    e, leverage = w - X @ b, np.einsum("ij,jk,ik->i", X, inverse, X)
    if hc3 and leverage.max() > 1 - 1e-8:
        raise NoGradient("one animal alone settles a coefficient")
    if not e @ e > 1e-20 * (w @ w):
        raise NoGradient("fitness is a function of the traits, without error")
    if hc3:  # what each animal adds to the slopes, by way of mean fitness too
        u = (X @ inverse) * (e / (1 - leverage))[:, None] - np.outer(w - 1, b) / n
        return b[1:], (u.T @ u)[1:, 1:]
    S = inverse * (e @ e / (n - X.shape[1])) + np.outer(b, b) * w.var(ddof=1) / n
    return b[1:], S[1:, 1:]


def _survival(y, X):
    """Average gradients of relative survival, and their covariance with the derivatives of the average."""
    rarer, fewest = int(min(y.sum(), (1 - y).sum())), FEWEST * (X.shape[1] - 1)
    if rarer < fewest:
        rare = "survived" if y.sum() == rarer else "died"
        raise NoGradient(f"{rarer} {rare}, fewer than {FEWEST} for each trait")
    b, S, steep = average_gradient(*likeliest(y, X), X)
    if steep:
        raise NoGradient("selection so steep that its gradient falls as the slope of survival rises")
    return b, S


def _together(found, left_out):
    """The years that have gradients; those that have none are named."""
    if not found:
        raise FrameError(f"{READER} has no year left: {_said(left_out)}")
    if left_out:
        warnings.warn(_said(left_out), FrameWarning, stacklevel=3)
    return pd.concat(found, ignore_index=True)


def _said(left_out):
    """Who was left out and why, in a sentence."""
    each = "; ".join(f"{one} ({why})" for one, why in left_out.items())
    return f"Left out {plural('year', len(left_out))} {each}."
