r"""Reaction networks: which rates can a module not tell alone, and what do the others lend it?

The same reactions run in many modules: cells, reactors, animals. Their rates differ, but not wildly. Few modules are
watched closely; of most only the product is seen, a few times. Fit every module alone, take one set of rates for all,
or learn from all modules how much to share?

The model
---------
    y_ji | theta_j      ~ N(x_s(t_i; exp theta_j), sigma^2)   a row: species s at time t_i
    theta_j | mu, omega ~ N(mu, diag(omega^2))                the modules' log rates
    mu_r                ~ N(log r0, 1.5^2)                    of each rate r; r0 = 1/T, T the median time of rows
    omega_r             ~ HalfNormal(.5)
    sigma               ~ HalfNormal(.3 Y)                    Y the median size of values

x is the solution of the network. By default that is

    A <-> B -> C,   dA/dt = -k1 A + km B,  dB/dt = k1 A - (km + k2) B,  dC/dt = k2 B,  A(0) = 1:

    B = k1 exp(-l1 t) (1 - exp(-d t))/d,   C = 1 - exp(-l1 t) - l1 exp(-l1 t) (1 - exp(-d t))/d,
    S = k1 + km + k2,  d = sqrt(S^2 - 4 k1 k2),  l1 = (S - d)/2.

============  ===========================  ====================  ==========  ===========================
on paper      in code                      dims                  unit        meaning
============  ===========================  ====================  ==========  ===========================
y_ji          ``value``                    observation           amount      what was measured
t_i           ``time``                     module, instant       time        when
s             ``species``                  observation           none        of which species
x             ``average``                  module, instant,      amount      mean of the rows of a
                                           species                           species at a time
x(0)          ``start``                    module, species       amount      what there is at time 0
theta_j       ``theta``                    module, coefficient   log         the module's own
k1_j          exp of ``theta_k1``          module                1/time      rate of A -> B
km_j          exp of ``theta_km``          module                1/time      rate of B -> A
k2_j          exp of ``theta_k2``          module                1/time      rate of B -> C
mu            ``mu_k1``, ``mu_km``,                              log         the typical module
              ``mu_k2``
omega         ``omega_k1``, ``omega_km``,                        log         spread of modules: about a
              ``omega_k2``                                                   coefficient of variation
sigma         ``sigma``                                          amount      error of a measurement, sd
kappa         ``kappa``                    module, coefficient   share       weight of the module's data
============  ===========================  ====================  ==========  ===========================

``network="A <-> B; B -> C"`` writes the reactions as chemists do. ``A -> 2 B : k`` names its rate; without names they
are k1, k2, ... in the order of writing, km or km1, ... backwards. Each reaction takes one of one species. ``B -> C :
mm(V, K)`` is saturated: its speed is V B/(K + B), as of an enzyme; log V and log K are among the module's log rates.
Every rate has a mu_ and an omega_ of its name. Of V the typical r0 is X/T, of K it is X, the most that there is of a
species at time 0, the median module's. T, X and Y are of the data, so that hours or seconds, grams or milligrams, give
the same answer. ``start="A=1, B=0.2"`` is what there is at time 0; by default 1 of the first species. Where modules
differ, a second frame ``initial`` has it: module, species, amount.

Any other right-hand side is a function of one's own (Python only), of t, what there is, and the rates, of many points
at once: see `equations`. What is not linear is solved by steps, each point by its own (`steps.py`); rates without a
solution count as impossible, and are named.

    >>> def inhibited(t, state, rates):
    ...     S, P = state
    ...     V, K, I = rates
    ...     speed = V * S / (K * (1 + P / I) + S)
    ...     return -speed, speed
    >>> own = equations(inhibited, species=["S", "P"], rates={"V": 0.5, "K": 0.4, "I": 0.2})
    >>> [name for name in MODEL.under(network=own).parameters if name.startswith("mu_")]
    ['mu_V', 'mu_K', 'mu_I']

The shipped ``ccl4_chamber`` has one (`chamber.py`): twelve rats, each in a closed chamber whose air has carbon
tetrachloride, which is breathed, kept in fat and destroyed by the liver, V C/(K + C). Two log rates are a rat's own:
of breathing, Q [L/h], and V [mg/h]; K, of the enzyme, and the other constants of a rat are taken for known. Doses are
from 25 to 1,000 ppm, and errors in ppm are fifty times as large in one as in another; so values are shares of the
dose, which is a known input: there one sd is right within a factor of three, and no further parameter is needed. Rats
of high doses, whose livers are saturated, cannot tell V alone. `check_model` does not pass it: what is left of rows
that follow one another is alike, most in the first hours, so that the chamber is not quite as these equations have
it, and intervals are too narrow.

What one module can tell: C alone depends on k1 k2 and k1 + km + k2 only, two functions of three rates, and does not
know k1 from k2. So a module that shows C alone cannot tell its rates, however long it is watched; others that
show B can. If no module shows B, pooling cannot help either, which is said before the fit.

No pooling gives each module's log rates wide independent normals in advance, matched in mean and variance to what the
partial model expects of one module; complete pooling is omega = 0: one set of rates for all. The error is shared by
the modules in all three.

There is no closed form: theta_j is integrated on a cloud of nodes (`cloud.py`), and kappa of a log rate is
1 - E[Var(theta | y, h)] / omega^2.

What it assumes
---------------
* The network is the right one, and is the same in all modules; only the rates differ.
* Modules run side by side: none feeds another.
* What there is at time 0 is known.
* Log rates of modules are normal and independent of one another, and modules are exchangeable.
* Measurements err by a fixed sd, independently.

References
----------
Jacquez J, Greif P (1985) Numerical parameter identifiability and estimability: integrating identifiability,
estimability, and optimal sampling design. Math Biosci 77:201-227. Raue A et al. (2009) Structural and practical
identifiability analysis of partially observed dynamical models. Bioinformatics 25:1923-1929. Anderson D (1983)
Compartmental Modeling and Tracer Kinetics. Springer. Michaelis L, Menten ML (1913) Die Kinetik der Invertinwirkung.
Biochem Z 49:333-369.
"""

from dataclasses import replace
from functools import cache, partial, wraps

import numpy as np
import pymc as pm
import pytensor.tensor as pt
from pymc_extras.prior import Prior

from hbm_zoo.fields import Extras, Parameter, Shipped
from hbm_zoo.frames.inputs import Freely
from hbm_zoo.frames.rules import label, not_negative, number
from hbm_zoo.group_level import features
from hbm_zoo.group_level.amounts import Amounts
from hbm_zoo.group_level.curves import Curve
from hbm_zoo.group_level.equations import equations as equations
from hbm_zoo.group_level.kinetics import ROW, Kinetics, rows_of, typical_value, with_sums
from hbm_zoo.group_level.network import network as network
from hbm_zoo.model import HierarchicalModel, verbs_of
from hbm_zoo.models import network_checks
from hbm_zoo.models.chamber import CHAMBER, RATS
from hbm_zoo.models.networks import check_species, check_whole, of, side_by_side, simulated, written
from hbm_zoo.priors import describe, moments

COLUMNS = {
    "module": label("the module: a cell, a reactor, an animal"),
    "time": not_negative("time since the beginning"),
    "species": label("which species was measured, by its name in the network"),
    "value": number("how much of it was measured [amount]"),
}
INITIAL = {
    "module": label("the module"),
    "species": label("a species, by its name in the network"),
    "amount": not_negative("how much of it there was at time 0 [amount]"),
}
MOTIF = "A <-> B; B -> C"
#: Prior sds: of mean log rates, of their spread among modules, and of the error in typical values.
WIDTH, SPREAD, OF_VALUE = 1.5, 0.5, 0.3


def parameters_of(kinetics):
    """The hyperparameters of the log rates."""
    return {
        **{f"mu_{name}": Parameter(f"mean log {name} of modules") for name in kinetics.names},
        **{f"omega_{name}": Parameter(f"spread of log {name} of modules, sd", (0, np.inf)) for name in kinetics.names},
        "sigma": Parameter("error of a measurement, sd [amount]", (0, np.inf)),
    }


def default_priors(kinetics, data):
    """Rates by which typical amounts turn over in a typical time, within a factor of 20; modules a factor e apart."""
    mu = {f"mu_{name}": Prior("Normal", mu=at, sigma=WIDTH) for name, at in kinetics.typical(data).items()}
    omega = {f"omega_{name}": Prior("HalfNormal", sigma=SPREAD) for name in kinetics.names}
    return mu | omega | {"sigma": Prior("HalfNormal", sigma=OF_VALUE * typical_value(data))}


def matched_prior(kinetics, priors):
    """Normals with the mean and variance of theta_j once the hyperparameters are averaged out."""
    matched = {}
    for name in kinetics.names:
        (mean, variance), (omega, of_omega) = (moments(n, priors[n]) for n in (f"mu_{name}", f"omega_{name}"))
        matched[f"theta_{name}"] = Prior("Normal", mu=mean, sigma=float(np.sqrt(variance + omega**2 + of_omega)))
    return matched


def prepare(frame, start: str = "", initial=None):
    """Rows of every module by instant and species, as many instants as the module with most has.

    Parameters
    ----------
    frame : pandas.DataFrame
        Columns module, time, species, value.
    start : str
        What there is at time 0, such as ``A=1, B=0.2``, of each module. Default: 1 of the first species.
    initial : pandas.DataFrame, optional
        What there is of a species in a module at time 0, where modules differ, columns module, species, amount; without
        ``start`` there is nothing else.

    Returns
    -------
    xarray.Dataset
        Dims module, instant, species, observation, coefficient.

    Raises
    ------
    FrameError
        If a species is not in the network, ``start`` cannot be read, or a module has nothing at time 0.
    """
    return prepared(Kinetics(network(MOTIF)), frame, start, initial)


def prepared(kinetics, frame, start, initial):
    """The same of any network."""
    check_species(frame, kinetics.network)
    data = side_by_side(frame, kinetics.network, start, initial)
    time = frame["time"][frame["time"] > 0]
    typical = {
        "typical_time": time.median() if len(time) else 1.0,
        "typical_amount": np.median(data.start.max("species")),
    }
    attrs = {"start": start} | {name: float(value) for name, value in typical.items()}
    return with_sums(data).assign_coords(coefficient=kinetics.names).assign_attrs(attrs)


# The variants, each as it stands on the page.


def no_pooling(kinetics, data, prior):
    """theta_j fixed in advance to wide normals."""
    rows(kinetics, data, prior, shown(pt.stack([prior(f"theta_{n}", dims="module") for n in kinetics.names], axis=-1)))


def complete_pooling(kinetics, data, prior):
    """One set of rates for all: theta_j = mu."""
    mu, _ = population_of_logs(kinetics, prior)
    rows(kinetics, data, prior, mu + pt.zeros_like(data.within)[:, None])


def partial_pooling(kinetics, data, prior):
    """theta_j = mu + omega z_j with z_j ~ N(0, I)."""
    mu, omega = population_of_logs(kinetics, prior)
    rows(kinetics, data, prior, shown(mu + omega * pm.Normal("z", dims=("module", "coefficient"))))


def marginalized(kinetics, data, prior):
    """Every module integrated out on a cloud of nodes, which are data."""
    nodes = [getattr(data, name) for name in ("predicted", "features", "log_q", "pilot_mean", "pilot_cholesky")]
    pm.CustomDist(
        "y",
        data.rows,
        prior("sigma"),
        *population_of_logs(kinetics, prior),
        *nodes,
        logp=partial(log_marginal, len(kinetics.names)),
        signature="(j,t,s),(),(c),(c),(j,k),(j,k,f),(j,k),(c),(c,d)->(j,t,s)",
        observed=data.average,
    )


def log_marginal(size, y, rows, sigma, mu, omega, squares, *cloud):
    """Log p(y_j | h) of all modules [nats]."""
    given, log_q, *pilot = cloud
    n = rows.sum(axis=(-2, -1))[:, None]
    density = -n * (pt.log(sigma) + np.log(2 * np.pi) / 2) - squares / (2 * sigma**2)
    return features.log_marginal(density, given, log_q, mu, pt.diag(omega), *pilot, size).sum()


def population_of_logs(kinetics, prior):
    """mu, and the spreads omega."""
    return [pt.stack([prior(f"{what}_{name}") for name in kinetics.names]) for what in ("mu", "omega")]


def shown(theta):
    """theta_j by its name."""
    return pm.Deterministic("theta", theta, dims=("module", "coefficient"))


def rows(kinetics, data, prior, theta):
    """y_ji ~ N(x, sigma^2)."""
    x = Amounts(kinetics.network)(theta, data.start, data.time)
    value, *where = (getattr(data, name) for name in ROW)
    pm.Normal("y", x[tuple(where)], prior("sigma"), observed=value, dims="observation")


def in_advance(kinetics, priors, data):
    """No pooling: the population is the prior of one module."""
    fixed = {}
    for name in kinetics.names:
        prior = priors[f"theta_{name}"]
        if prior.distribution != "Normal" or prior.transform:
            raise ValueError(f"No pooling is exact under a Normal prior of 'theta_{name}', got {describe(prior)}.")
        mean, variance = moments(f"theta_{name}", prior)
        fixed |= {f"mu_{name}": mean, f"omega_{name}": float(np.sqrt(variance))}
    return fixed


def without_spread(kinetics, priors, data):
    """Complete pooling: omega = 0."""
    return dict.fromkeys([f"omega_{name}" for name in kinetics.names], 0.0)


def shrink_together(kinetics, t, means):
    """Spreads by the same factor t of the posterior means."""
    return {f"omega_{name}": t * means[f"omega_{name}"] for name in kinetics.names}


def extras_of(kinetics):
    """What is of networks alone."""
    return Extras(
        check=partial(check_whole, kinetics.network),
        path=wraps(shrink_together)(partial(shrink_together, kinetics)),
        curve=Curve("time", "value", rows_of, kinetics.over_time),
        **network_checks.of(kinetics),
    )


@cache
def of_network(spelt):
    """The formulas of a network."""
    kinetics = Kinetics(of(spelt))

    def bound(formula):
        return wraps(formula)(lambda *arguments, **options: formula(kinetics, *arguments, **options))

    of_frame = wraps(prepare)(lambda frame, start="", initial=None: prepared(kinetics, frame, start, initial))
    return {
        "location": f"mu_{kinetics.names[0]}",
        "heterogeneity": f"omega_{kinetics.names[0]}",
        "parameters": parameters_of(kinetics),
        "prepare": of_frame,
        "default_priors": bound(default_priors),
        "matched_prior": bound(matched_prior),
        "own": kinetics.own,
        "variants": {
            "none": {"centered": bound(no_pooling), "marginalized": bound(marginalized)},
            "complete": {"centered": bound(complete_pooling)},
            "partial": {"noncentered": bound(partial_pooling), "marginalized": bound(marginalized)},
        },
        "fixed": {
            "none": bound(in_advance),
            "complete": bound(without_spread),
            "partial": lambda priors, data: {},
        },
        "group_level": kinetics.group_level,
        "simulate": wraps(simulated)(partial(simulated, kinetics, of_frame)),
        "extras": extras_of(kinetics),
    }


ALTERNATIVES = {
    "network": Freely(
        "A <-> B; B -> C",
        read=written,
        change=lambda spelt: lambda record: replace(record, **of_network(spelt)),
    )
}

MODEL = HierarchicalModel(
    name="reaction_networks",
    question="Which rates can a module not tell alone, and what do the others lend it?",
    group="module",
    estimand="theta",
    estimand_label="logs of the rates",
    response="value",
    observed="y",
    reference=None,
    columns=COLUMNS,
    inputs={"initial": INITIAL},
    volume=lambda data: data.rows.sum(["instant", "species"]).rename("rows"),
    alternatives=ALTERNATIVES,
    datasets={
        "simulated_network": Shipped(),
        "ccl4_chamber": Shipped(
            columns={"module": "animal", "time": "time_h", "value": "share"},
            options={"network": CHAMBER, "start": "air=1", "initial": RATS},
        ),
    },
    **of_network(MOTIF),
)
build = MODEL.build
simulate = MODEL.simulate
__getattr__ = verbs_of("reaction_networks", "identifiability", "directions", "resolution")
