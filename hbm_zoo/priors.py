"""Guard the priors a caller passes, and carry them in a fit."""

from __future__ import annotations

import ast
import difflib
import importlib
import inspect
import json
from collections.abc import Callable, Mapping
from functools import cache

import numpy as np
import pymc as pm
import pytensor
import pytensor.tensor as pt
from pymc_extras.prior import Prior, register_tensor_transform
from pytensor import function
from pytensor.compile.mode import Mode
from scipy.integrate import tanhsinh

CONTINUOUS = (
    "AsymmetricLaplace Beta Cauchy ChiSquared ExGaussian Exponential Flat Gamma Gumbel HalfCauchy HalfFlat HalfNormal "
    "HalfStudentT InverseGamma Kumaraswamy Laplace Logistic LogitNormal LogNormal Moyal Normal Pareto Rice SkewNormal "
    "StudentT Triangular TruncatedNormal Uniform VonMises Wald Weibull"
).split()
# Of a formula that is evaluated once, rewriting takes longer than all else.
ONCE = Mode("py", "minimum_compile")

register_tensor_transform("correlation", lambda share: 2 * share - 1)


def lkj(eta: float) -> Prior:
    """LKJ(eta) on the correlation of a 2 x 2 matrix: (rho + 1)/2 ~ Beta(eta, eta).

    Lewandowski, Kurowicka & Joe (2009), J Multivar Anal 100:1989-2001. A caller's own prior
    of a correlation is any Prior on (-1, 1), ``Prior("Uniform", lower=-1, upper=1)`` say.
    """
    return Prior("Beta", alpha=eta, beta=eta, transform="correlation")


def moments(name: str, prior: Prior) -> tuple[float, float]:
    """Mean and variance of a prior: in closed form, or by quadrature if it is in other parameters.

    Raises
    ------
    ValueError
        If the prior has no finite mean and variance.
    """
    try:
        mean, variance = (_closed_form(prior, what) for what in ("mean", "var"))
    except (ImportError, AttributeError, TypeError):
        mean, variance = _by_quadrature(prior)
    if not np.isfinite([mean, variance]).all():
        raise ValueError(
            f"The prior {prior} of {name!r} has no known finite mean and variance, so no prior for one group can be "
            "matched to it for no pooling: pass a prior for the group's own parameter as well."
        )
    return mean, variance


def expectation(prior: Prior, of: Callable) -> float:
    """E[of(x)] over a prior, by quadrature over its quantiles; `of` is bounded.

    Examples
    --------
    >>> round(expectation(Prior("Uniform", lower=0, upper=1), lambda x: x**2), 6)
    0.333333
    """
    quantile = _quantile_function(prior)
    return float(tanhsinh(lambda p: of(quantile(p)), 0, 1).integral)


def ppf(prior: Prior, p: float) -> float:
    """Quantile of a prior."""
    try:
        return _closed_form(prior, "ppf", p)
    except (ImportError, AttributeError, TypeError):
        return float(_quantile_function(prior)(p))


def quantiles(prior: Prior, p: np.ndarray) -> np.ndarray:
    """Quantiles of a prior at several probabilities, by one compiled function.

    Examples
    --------
    >>> quantiles(Prior("Uniform", lower=0, upper=2), np.array([0.25, 0.5])).tolist()
    [0.5, 1.0]
    """
    try:
        return _quantile_function(prior)(p)
    except NotImplementedError:  # of its distribution PyMC has none
        return np.array([ppf(prior, each) for each in p])


def log_density(prior: Prior) -> Callable:
    """The log density of a prior, a function of an array.

    Examples
    --------
    >>> log_density(Prior("Normal", mu=0, sigma=1))(np.zeros(2)).round(3).tolist()
    [-0.919, -0.919]
    """
    x = pt.dvector("x")
    with pm.Model():
        compiled = function([x], pm.logp(prior.create_variable("of"), x), mode="FAST_COMPILE")
    return lambda at: compiled(np.ravel(at)).reshape(np.shape(at))


def describe(prior: Prior) -> str:
    """A prior in one line: ``LogNormal(mu=0, sigma=0.5)``."""
    inside = ", ".join(
        f"{k}={float(np.asarray(v)):.4g}" for k, v in prior.parameters.items() if not isinstance(v, Prior)
    )
    plain = f"{prior.distribution}({inside})"
    return f"{prior.transform}({plain})" if prior.transform else plain


def from_text(text: str) -> Prior:
    """The prior that is written as ``HalfNormal(sigma=0.5)``.

    Raises
    ------
    ValueError
        If it is not a continuous distribution's name with numbers given by name.

    Examples
    --------
    >>> from_text("HalfNormal(sigma=0.5)").parameters
    {'sigma': 0.5}
    """
    try:
        call = ast.parse(text, mode="eval").body
        distribution = call.func.id  # type: ignore[attr-defined]
        if call.args:  # type: ignore[attr-defined]
            raise ValueError
        given = {keyword.arg: float(ast.literal_eval(keyword.value)) for keyword in call.keywords}  # type: ignore[attr-defined]
    except (SyntaxError, AttributeError, ValueError, TypeError):
        raise ValueError(
            f"expected a distribution with its numbers by name, such as HalfNormal(sigma=0.5), got {text!r}."
        ) from None
    if distribution not in CONTINUOUS:
        near = difflib.get_close_matches(distribution, CONTINUOUS, n=1)
        hint = f" Did you mean {near[0]!r}?" if near else ""
        raise ValueError(f"expected a continuous distribution of PyMC, got {distribution!r}.{hint}")
    taken = [name for name in inspect.signature(getattr(pm, distribution).dist).parameters if "args" not in name]
    for name in given:
        if name not in taken:
            raise ValueError(f"{distribution} takes {' or '.join(taken) or 'nothing'}, got {name!r} in {text!r}.")
    try:
        return Prior(distribution, **given)
    except Exception as error:  # the library raises a class of its own for every mistake
        raise ValueError(f"{text!r}: {str(error).splitlines()[0]}") from None


def to_json(priors: Mapping[str, Prior]) -> str:
    """Priors as text, for the attributes of a fit."""
    return json.dumps({name: prior.to_dict() for name, prior in priors.items()}, sort_keys=True)


def from_json(text: str) -> dict[str, Prior]:
    """The priors that `to_json` wrote."""
    return {name: Prior.from_dict(prior) for name, prior in json.loads(text).items()}


def numbers(priors: Mapping[str, Prior]) -> dict[str, np.ndarray]:
    """The numbers of priors, each by the name of the parameter and its own.

    Examples
    --------
    >>> {name: float(value) for name, value in numbers({"tau": Prior("HalfNormal", sigma=2)}).items()}
    {'prior of tau: sigma': 2.0}
    """
    return {
        f"prior of {name}: {own}": np.asarray(value, float)
        for name, prior in priors.items()
        for own, value in prior.parameters.items()
        if not isinstance(value, Prior)
    }


def apart_from_numbers(priors: Mapping[str, Prior]) -> dict[str, Prior]:
    """The same priors, their numbers in shared variables with the names that `numbers` gives.

    What is compiled of them serves priors with other numbers, such as those of other data.
    """
    shared = {name: pytensor.shared(value, name=name) for name, value in numbers(priors).items()}
    copies = {name: prior.deepcopy() for name, prior in priors.items()}
    for name, copy in copies.items():
        held = {own: shared.get(f"prior of {name}: {own}", value) for own, value in copy.parameters.items()}
        copy.parameters = held
    return copies


def families(priors: Mapping[str, Prior]) -> str:
    """What is left of priors without the numbers that `numbers` gives, as text."""
    plain = {name: prior.to_dict() for name, prior in priors.items()}
    for name, prior in priors.items():
        plain[name]["kwargs"] = {
            k: plain[name]["kwargs"][k] if isinstance(v, Prior) else None for k, v in prior.parameters.items()
        }
    return json.dumps(plain, sort_keys=True)


def _closed_form(prior: Prior, what: str, *arguments: float) -> float:
    """A property of a prior, e.g. its mean, by the formula kept for its distribution."""
    if prior.transform:
        raise AttributeError(f"no closed form is kept for {describe(prior)}")
    numbers = {name: float(value) for name, value in prior.parameters.items()}
    return _evaluated(prior.distribution, what, arguments, tuple(numbers.items()))


@cache
def _evaluated(distribution: str, what: str, arguments: tuple, parameters: tuple) -> float:
    """The formula at numbers; kept, for replicates and refits ask for the same again."""
    module = importlib.import_module(f"pytensor_distributions.{distribution.lower()}")
    # A bare float such as 0.5 would become a tensor in single precision.
    numbers = {name: pt.as_tensor(np.float64(value)) for name, value in parameters}
    return float(pt.as_tensor(getattr(module, what)(*arguments, **numbers)).eval(mode=ONCE))


def _by_quadrature(prior: Prior) -> tuple[float, float]:
    """Mean and variance as integrals of the quantile function; NaN where they do not converge."""
    quantile = _quantile_function(prior)
    first, second = (tanhsinh(lambda p, k=k: quantile(p) ** k, 0, 1) for k in (1, 2))
    if not (first.success and second.success):
        return np.nan, np.nan
    return float(first.integral), float(second.integral - first.integral**2)


def _quantile_function(prior: Prior):
    p = pt.dvector("p")
    with pm.Model():
        compiled = function([p], pm.icdf(prior.create_variable("x"), p), mode="FAST_COMPILE")
    return lambda at: compiled(np.ravel(at)).reshape(np.shape(at))


def check_name(name: str, names: list[str], model: str, elsewhere: str = "") -> None:
    """Refuse a prior of a name that does not exist, the nearest given, or the option that has it.

    Raises
    ------
    ValueError
        If the name is not among the names.

    Examples
    --------
    >>> check_name("vc", ["mu", "cv"], "hospital_readmission")
    Traceback (most recent call last):
    ValueError: hospital_readmission has no prior named 'vc': expected one of mu, cv. Did you mean 'cv'?
    """
    if name not in names:
        same_letters = [known for known in names if sorted(known) == sorted(str(name))]  # "vc" is not near by `difflib`
        near = difflib.get_close_matches(str(name), names, n=1) or same_letters
        hint = f" Did you mean {near[0]!r}?" if near else ""
        hint = f" There is one with {elsewhere}." if elsewhere else hint
        raise ValueError(f"{model} has no prior named {name!r}: expected one of {', '.join(names)}.{hint}")


def given_as(name: str, prior: Prior | str) -> Prior:
    """A prior as a caller gives it: a Prior, or its text.

    Raises
    ------
    ValueError
        If a text is no prior.
    """
    try:
        return from_text(prior) if isinstance(prior, str) else prior
    except ValueError as error:
        raise ValueError(f"The prior of {name!r}: {error}") from None


def check_prior(name: str, prior: Prior, support: tuple[float, float] | None) -> None:
    """Refuse what is not a proper prior on its parameter's support."""
    if not isinstance(prior, Prior):
        raise ValueError(
            f"The prior of {name!r} must be a pymc_extras Prior such as Prior('HalfNormal', sigma=1), or its text, "
            f"got {prior!r}."
        )
    if prior.dims:
        raise ValueError(f"The prior of {name!r} must be for one number, got dims {prior.dims}.")
    try:
        with pm.Model(), np.errstate(all="ignore"):
            variable = prior.create_variable(name)
            draws = pm.draw(variable, 200, random_seed=0, mode="FAST_COMPILE")
            log_density = function([], pm.logp(variable, draws), mode="FAST_COMPILE")()
    except Exception as error:  # PyTensor and NumPy raise what they like here
        reason = str(error).splitlines()[0]
        raise ValueError(f"The prior {describe(prior)} of {name!r} is not a distribution: {reason}") from error
    if variable.ndim or variable.dtype != "float64":
        raise ValueError(f"The prior of {name!r} must be for one real number, got {prior}.")
    if np.isnan(log_density).any() or not np.isfinite(log_density).any():
        raise ValueError(
            f"The prior {describe(prior)} of {name!r} is not a proper distribution: its density is not finite."
        )
    if support and (draws.min() < support[0] or draws.max() > support[1]):
        raise ValueError(
            f"{name!r} lies between {support[0]:g} and {support[1]:g}, but its prior {describe(prior)} gives weight to "
            f"{draws.min() if draws.min() < support[0] else draws.max():.3g}."
        )
