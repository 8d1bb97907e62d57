r"""Model discrepancy: how wrong is our simulator, and what may we still believe?

Beams of one material are bent on a rig, and a finite element model is fitted to what sensors say.
The model clamps the support; the real one gives way a little. Trust the model, and Young's modulus
comes out wrong with great confidence. Or let reality be the model and a discrepancy, a curve that
belongs to the rig, and learn from the data how much specimens differ, how far the model is off, and
what can no longer be told.

The model
---------
    y_ji | b_j, delta    ~ N(b_j f_ji + w_ji delta(x_ji), sigma^2)       the readings
    b_j | m, s           ~ N(m, s^2),  E_j = 1 / b_j                     the specimens
    delta | a, ell       ~ GP(0, a^2 exp(-(x - x')^2 / (2 ell^2)))       the rig, the same for all
    m ~ N(m0, (m0/2)^2),  s ~ HalfNormal(m0/10)                          what we knew before
    sigma ~ HalfNormal(d/10),  a ~ HalfNormal(d/2)
    log ell ~ N(log (c L)^(1/2), (log(L/c) / 4)^2)

with m0 the compliance that the readings have under the model alone, d the median size of what the model
then predicts, c the spacing of the sensors and L the length of the beam: read once from the frame, then
frozen.

============  ===================  ========  ==========  ==============================================
on paper      in code              dims      unit        meaning
============  ===================  ========  ==========  ==============================================
y             ``deflection``       row       mm          one reading of a sensor
x             ``position``         row       m           where: the distance from the support
P             ``load``             row       N           the force at the tip
L             ``length``           specimen  m           of the beam; its width and thickness [mm] are
                                                         the columns ``width`` and ``thickness``
f             ``f``                row       mm GPa      what the model says at E = 1 GPa, by finite
                                                         elements: it is proportional to b
w             ``w``                row       none        how the discrepancy grows: P over the typical
                                                         load, and, pinned, x over half the length
j             ``of_specimen``      row       specimen    the specimen of a reading
bhat_j        ``b_hat``            specimen  1/GPa       its compliance under the model alone
delta         ``delta``            point     mm          the discrepancy at each sensor
b_j           ``b``                specimen  1/GPa       the specimen's compliance, 1 / E_j
m             ``m``                          1/GPa       mean compliance of the specimens
s             ``s``                          1/GPa       spread of the specimens, sd
sigma         ``sigma``                      mm          noise of a reading, sd
a             ``a``                          mm          size of the discrepancy, sd, under the typical
                                                         load (pinned: at half the length)
ell           ``ell``                        m           over which distance the discrepancy changes
kappa_j       ``kappa``            specimen  share       1 - Var(b_j | y, h) / s^2
============  ===================  ========  ==========  ==============================================

The compliance enters linearly, so that given the five hyperparameters all is normal, and the specimens and
the discrepancy are integrated out exactly (``group_level/discrepancy.py``). Where all specimens are measured
alike, their differences are free of the discrepancy whatever it is; their mean is not: only m f + w delta is
in it, and it is the prior, and what is known of the rig, that tells the two apart. So an E is what its prior
and these options make of it, and predictions between the sensors are not.

Options: ``with_load="proportional"`` is a discrepancy that grows with the load, as that of a soft support does;
``with_load="stationary"`` one that is alike at loads that are alike, over the typical load, w without P: it says
nothing of loads far beyond those that were tried. ``support="pinned"`` has no discrepancy at the support
itself; ``support="free"`` may have. ``typical_load`` [N] is the median load by default.

``simulator=`` is one of your own in place of the finite elements: a function of points [point, (position, load,
length, width, thickness, compliance)] that gives deflections [mm] in proportion to the compliance; one that is not
is refused, since nothing here would be exact: ``discrepancy="apart"`` takes any that is smooth. It runs once for each
place, load and geometry; the fit keeps what it said there, and it is asked again, and whether it is the same, where
new places are predicted.

No pooling gives each specimen the same wide normal of b in advance; complete pooling is s = 0: one material.
The rig is the same in all three: a discrepancy is no pooling, it is an option. One specimen alone can be
fitted, without pooling: the calibration of a single experiment. A specimen that is left out is a new one on
the same rig, whose discrepancy the others have shown.

E = 1 / b has no mean: it is told by its median and its quantiles.

With discrepancy=none
---------------------
    y_ji | b_j  ~ N(b_j f_ji, sigma^2)                                   the readings
    b_j | m, s  ~ N(m, s^2)                                              the specimens

============  ===================  ========  ==========  ==============================================
on paper      in code              dims      unit        meaning
============  ===================  ========  ==========  ==============================================
b_j           ``b``                specimen  1/GPa       the specimen's compliance, 1 / E_j
============  ===================  ========  ==========  ==============================================

The model is taken for the truth. It is here to be compared with: wrong models hide in sigma, and in s.

With discrepancy=by specimen
----------------------------
    y_ji | b_j, delta, v_j  ~ N(b_j f_ji + w_ji (delta + v_j)(x_ji), sigma^2)    the readings
    b_j | m, s              ~ N(m, s^2)                                          the specimens
    delta | a, ell ~ GP of size a,  v_j | a_own, ell ~ GP of size a_own          the rig, each mounting
    a_own ~ HalfNormal(d/2)

============  ===================  ========  ==========  ==============================================
on paper      in code              dims      unit        meaning
============  ===================  ========  ==========  ==============================================
b_j           ``b``                specimen  1/GPa       the specimen's compliance, 1 / E_j
a_own         ``a_own``                      mm          size of what each mounting adds, sd
============  ===================  ========  ==========  ==============================================

Each mounting of a specimen differs from the others, as well as all from the model: without the part that
they share, what is wrong in all of them would be averaged away.

With discrepancy=apart
----------------------
    y_ji | b_j, r, v_j  ~ N(F_ji(b_j, r) + w_ji v_j(x_ji), sigma^2)      the readings
    b_j | m, s          ~ N(m, s^2)                                      the specimens
    v_j | a, ell        ~ GP(0, a^2 exp(-(x - x')^2 / (2 ell^2)))        each specimen on its rig
    m ~ N((b0 + b1)/2, ((b1 - b0)/6)^2),  s ~ HalfNormal((b1 - b0)/20)
    r ~ N((r0 + r1)/2, ((r1 - r0)/6)^2)                                  where there is one

============  ===================  ========  ==========  ==============================================
on paper      in code              dims      unit        meaning
============  ===================  ========  ==========  ==============================================
F             ``said``             row       mm          what the simulator says, any smooth function of
                                                         b and r, by polynomials through its runs
b_0, b_1      ``ends``             end       1/GPa       the compliances between which it runs
r             ``r``                          its own     a second parameter of the simulator: the rig's, the
                                                         same for all specimens
r_0, r_1      ``rig_ends``         end       its own     between which it runs
v_j           ``v``                specimen  mm          the specimen's own discrepancy, at each sensor
b_j           ``b``                specimen  1/GPa       the specimen's compliance, 1 / E_j
============  ===================  ========  ==========  ==============================================

For a simulator that is not proportional to the compliance: a beam that bends far, say. It runs at thirteen compliances
for each place, load and geometry, between the moduli ``softest`` and ``stiffest`` [GPa], which the prior of m is about;
by default these are 4/7 of, and four times, the modulus that the readings have by finite elements. Polynomials through
the runs stand for it, and how far they are off halfway between the runs is the data's attribute ``table_error`` [mm]:
it is in the Monte Carlo error of elpd, and more than a tenth of the scatter of the readings is refused. Beyond the runs
it goes on in straight lines, and a prior with more than 2 % of a specimen there is refused.

A simulator may have a second parameter, r, which belongs to the rig: how far its support turns, say. It is told by
``rig_from`` and ``rig_to``, between which it runs at nine values for each of the thirteen compliances, and comes last
in a point [point, (position, load, length, width, thickness, compliance, r)]. All poolings learn one r for all
specimens. A support that turns and a soft material are told apart by two positions, and not by one, where r and b_j
are known together only, each as well as its prior: look at their correlation before you believe either. A discrepancy
that can bend as r does leaves r to its prior, too.

Given b_j and r all is normal, and b_j is integrated out numerically (``group_level/any_simulator.py``). Specimens
depend on one another by nothing but the hyperparameters: what a rig does to all of them alike is in each v_j anew, so
that their differences are known no better than they are themselves. With one specimen this is the calibration of a
single experiment (Kennedy & O'Hagan 2001), without pooling, for any smooth simulator of one or two parameters. kappa_j
of one data set may lie below 0.

What it assumes
---------------
* Readings err independently with one sd, the same at every sensor and load.
* The discrepancy is smooth, and of one size everywhere but for w. Beyond the last sensor it returns to 0, and
  nothing in the data says whether the rig does: ``reality`` says how far a prediction lies outside.
* The prior of m decides E wherever a discrepancy can bend like the model does. Know your material, or say
  that you do not.
* The beam is slender, and the model linear: no shear, no contact, small deflections.

References
----------
Kennedy M, O'Hagan A (2001) Bayesian calibration of computer models. J R Stat Soc B 63:425-464.
Brynjarsdottir J, O'Hagan A (2014) Learning about physical parameters: the importance of model
discrepancy. Inverse Problems 30:114007. Rasmussen C, Williams C (2006) Gaussian Processes for Machine
Learning.
"""

from numbers import Real

import numpy as np
import pandas as pd
import pymc as pm
import xarray as xr
from pymc_extras.prior import Prior

from hbm_zoo.fields import Extras, Parameter, Shipped
from hbm_zoo.frames.inputs import SIMULATOR
from hbm_zoo.frames.rules import FrameError, label, number, positive
from hbm_zoo.group_level import discrepancy_level, discrepancy_rows
from hbm_zoo.group_level.discrepancy import log_density, random_estimates
from hbm_zoo.group_level.level import GroupLevel
from hbm_zoo.group_level.populations import Normal
from hbm_zoo.model import HierarchicalModel, verbs_of
from hbm_zoo.models import beam, rigs
from hbm_zoo.models.any_simulator import apart
from hbm_zoo.models.beam import NAME
from hbm_zoo.models.discrepancies import by_specimen, one_rig, without
from hbm_zoo.models.rig_checks import OF_RIG
from hbm_zoo.models.rigs import PROPORTIONAL, STATIONARY
from hbm_zoo.priors import describe, moments
from hbm_zoo.words import choose

PINNED, FREE = "pinned", "free"
#: Times which the compliance of the readings may lie off its prior's mean before a unit is asked for.
FAR = 20.0

COLUMNS = {
    "specimen": label("the specimen that was bent"),
    "position": number("distance of the sensor from the support [m]"),
    "load": number("force at the tip [N]"),
    "deflection": number("what the sensor read [mm], in the direction of the force"),
    "length": positive("length of the beam [m]"),
    "width": positive("width of its section [mm]"),
    "thickness": positive("thickness of its section, along the force [mm]"),
}

PARAMETERS = {
    "m": Parameter("mean compliance of the specimens, 1/E [1/GPa]"),
    "s": Parameter("spread of the specimens' compliances around m, sd [1/GPa]", (0, np.inf)),
    "sigma": Parameter("noise of a reading, sd [mm]", (0, np.inf)),
    "a": Parameter("size of the discrepancy under the typical load, sd [mm]", (0, np.inf)),
    "ell": Parameter("distance over which the discrepancy changes [m]", (0, np.inf)),
}
A_OWN = Parameter("size of what each mounting adds to the discrepancy, sd [mm]", (0, np.inf))


def default_priors(data):
    """A compliance within a factor of two of the readings'; specimens alike to a tenth; a model wrong by half.

    Raises
    ------
    FrameError
        If no beam gives such readings.
    """
    rigs.check_readings(data)
    m0, d = rigs.compliance(data), rigs.predicted(data)
    spacing, length = rigs.spacing(data), float(data.attrs["length"])
    return {
        "m": Prior("Normal", mu=m0, sigma=m0 / 2),
        "s": Prior("HalfNormal", sigma=m0 / 10),
        "sigma": Prior("HalfNormal", sigma=d / 10),
        "a": Prior("HalfNormal", sigma=d / 2),
        "ell": Prior("LogNormal", mu=float(np.log(spacing * length) / 2), sigma=float(np.log(length / spacing) / 4)),
    }


def matched_prior(priors):
    """The normal with the mean and variance of a specimen's compliance."""
    (m, variance), (s, s_variance) = (moments(name, priors[name]) for name in ("m", "s"))
    return Prior("Normal", mu=m, sigma=float(np.sqrt(variance + s**2 + s_variance)))


def contradiction(data, priors):
    """Say so if the readings are those of another material by far: a unit is wrong, more likely than the model."""
    m0, (mean, _) = rigs.compliance(data), moments("m", priors["m"])
    if 1 / FAR < m0 / mean < FAR:
        return None
    return (
        f"The readings are those of E = {1 / m0:.3g} GPa under the model alone, and the prior {describe(priors['m'])} "
        "of 'm' [1/GPa] expects another material. Is position in m, load in N, and deflection, width and thickness "
        "in mm?"
    )


def prepare(
    frame, simulator=None, with_load: str = PROPORTIONAL, support: str = PINNED, typical_load: float | None = None
):
    """The rows [row], what the model says of each, and what each specimen says [specimen].

    Parameters
    ----------
    frame : pandas.DataFrame
        Columns specimen, position, load, deflection, length, width, thickness.
    simulator : callable, optional
        ``simulator(points)`` [point] [mm] at points [point, (position, load, length, width, thickness, compliance)], in
        proportion to the last, instead of the finite elements.
    with_load : {"proportional", "stationary"}
        How the discrepancy depends on the load.
    support : {"pinned", "free"}
        Whether there is none at the support, or may be.
    typical_load : float, optional
        The load at which a is its size, and over which a stationary one changes [N]. Default: the median load.

    Returns
    -------
    xarray.Dataset
        As of `hbm_zoo.group_level.discrepancy_rows.of_rows`.

    Raises
    ------
    FrameError
        If a sensor is not on its beam, a specimen has two geometries, no row has a load, or the simulator is not
        linear in the compliance.
    """
    with_load = choose(with_load, (PROPORTIONAL, STATIONARY), "with_load")
    support = choose(support, (PINNED, FREE), "support")
    P, x = (frame[name].to_numpy(float) for name in ("load", "position"))
    typical_load = _typical(P, typical_load)
    w = np.ones_like(P) if with_load == STATIONARY else P / typical_load
    if support == PINNED:
        w = w * 2 * x / frame["length"].to_numpy(float)
    reach = typical_load if with_load == STATIONARY else np.inf
    data = beam.readings(frame, w, reach, simulator)
    return data.assign_attrs(with_load=with_load, support=support, typical_load=typical_load)


def _typical(P, typical_load):
    """The typical load, given or the median of those that are not 0 [N]."""
    if typical_load is None:
        if not P.any():
            raise FrameError(f"{NAME}: column 'load' expected forces, got 0 in every row.")
        return float(np.median(abs(P[P != 0])))
    if isinstance(typical_load, bool) or not isinstance(typical_load, Real) or not 0 < typical_load < np.inf:
        raise FrameError(f"{NAME} expected typical_load to be a load above 0 [N], got {typical_load!r}.")
    return float(typical_load)


# The variants, each as it stands on the page; ``rig`` is the discrepancy of each row.


def no_pooling(data, prior, rig=one_rig):
    """b_j fixed in advance to a wide normal."""
    b = prior("b", dims="specimen")
    readings(data, prior, b[data.of_specimen], rig)


def complete_pooling(data, prior, rig=one_rig):
    """b_j = m: one compliance for all."""
    readings(data, prior, prior("m"), rig)


def partial_pooling_noncentered(data, prior, rig=one_rig):
    """b_j = m + s t_j, t_j ~ N(0, 1)."""
    t = pm.Normal("t", dims="specimen")
    b = pm.Deterministic("b", prior("m") + prior("s") * t, dims="specimen")
    readings(data, prior, b[data.of_specimen], rig)


def readings(data, prior, b, rig):
    """y_ji ~ N(b_j f_ji + w_ji delta(x_ji), sigma^2)."""
    mean = b * data.f + data.w * rig(data, prior)
    pm.Normal("y", mean, prior("sigma"), observed=data.deflection, dims="row")


def marginalized(data, prior, of_rig=("a", "ell")):
    """All rows are jointly normal: specimens and discrepancies are integrated out.

    One form for all three poolings. A specimen's own estimate stands for its rows.
    """
    h = [prior(name) for name in ("m", "s", "sigma", *of_rig)]
    pm.CustomDist(
        "y",
        data.n,
        data.rest,
        data.q,
        data.of_design,
        data.T,
        data.apart,
        data.alike,
        *h,
        logp=log_density,
        random=random_estimates,
        signature="(j),(j),(j,k),(j),(d,k,k),(p,p),(p,p)," + ",".join(["()"] * len(h)) + "->(j)",
        observed=data.b_hat,
        dims="specimen",
    )


# The specimens, given the hyperparameters.


def fixed_in_advance(priors, data):
    """No pooling: the population is the prior of one specimen."""
    prior = priors["b"]
    if prior.distribution != "Normal" or prior.transform:
        raise ValueError(f"No pooling is exact under a Normal prior of 'b', got {describe(prior)}.")
    mean, variance = moments("b", prior)
    return {"m": mean, "s": float(np.sqrt(variance))}


#: What the model does not know of: how it grows with the load over the middle one, p, and with x over the length.
TRUTHS = {
    "rotational spring": lambda p, x: p * x,
    "shear": lambda p, x: p * x,
    "gap": lambda p, x: np.sign(p) * x,
    "stiffening spring": lambda p, x: np.sign(p) * abs(p) ** 0.6 * x,
    "sinking support": lambda p, x: p * np.ones_like(x),
    "clamped": lambda p, x: np.zeros_like(x),
}


def simulate(
    rng,
    *,
    specimens=6,
    E=70.0,
    cv=0.04,
    truth="rotational spring",
    share=0.3,
    mounting=0.0,
    sigma=0.05,
    positions=(0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8),
    loads=(5.0, 10.0, 15.0),
    length=1.0,
    width=30.0,
    thickness=10.0,
):
    """A frame like the real one and the truth that made it.

    Parameters
    ----------
    rng : numpy.random.Generator
        Source of randomness.
    specimens : int
        Number of specimens, each bent under each load.
    E, cv : float
        Young's modulus of the material [GPa], and the sd of specimens' moduli as a share of it.
    truth : {"rotational spring", "shear", "gap", "stiffening spring", "sinking support", "clamped"}
        What the model does not know of: a support that turns in proportion to its moment; a beam that shears, which
        looks the same; a support that turns freely by an angle before it holds, turns less and less, or gives way
        downwards; nothing.
    share : float
        How much that adds to the deflection of the tip under the middle load, as a share of what the model says.
    mounting : float
        How that differs from the mounting of one specimen to the next: sd of its log, 0 if the rig is the same for all.
    sigma : float
        Noise of a reading, sd [mm].
    positions, loads : sequence of float
        Where the sensors are [m], and the forces at the tip [N].
    length, width, thickness : float
        Of the beams [m, mm, mm].

    Returns
    -------
    frame : pandas.DataFrame
        Columns specimen, position, load, deflection, length, width, thickness.
    truth : xarray.Dataset
        ``E``, ``b`` and ``share`` [specimen], the compliance of the material ``m`` and the spread ``s``, ``sigma``.

    Examples
    --------
    >>> import numpy as np
    >>> frame, truth = simulate(np.random.default_rng(1), specimens=2)
    >>> len(frame), truth.sizes["specimen"]
    (48, 2)
    """
    names = np.array([f"S{j + 1}" for j in range(specimens)])
    moduli = E * (1 + cv * rng.standard_normal(specimens))
    of, P, x = (value.ravel() for value in np.meshgrid(np.arange(specimens), loads, positions, indexing="ij"))
    rows = {"specimen": names[of], "position": x, "load": P, "length": length, "width": width, "thickness": thickness}
    frame = pd.DataFrame(rows)
    e = sigma * rng.standard_normal(len(frame))
    shares = share * np.exp(mounting * rng.standard_normal(specimens))
    frame.insert(3, "deflection", truly(frame, moduli[of], truth, shares[of], E, float(np.median(loads))) + e)
    true = {"m": 1 / E, "s": cv / E, "sigma": sigma}
    each = {"E": moduli, "b": 1 / moduli, "share": shares}
    return frame, xr.Dataset(true | {n: ("specimen", v) for n, v in each.items()}, coords={"specimen": names})


def truly(frame, moduli, truth, share, E, middle):
    """What sensors without noise would read [mm], of beams of some moduli, on a rig made for a material of E [GPa]."""
    x, P, *geometry = (frame[name].to_numpy(float) for name in ("position", "load", *beam.GEOMETRY))
    wrong = TRUTHS[choose(truth, TRUTHS, "truth")](P / middle, x / geometry[0])
    of_tip = beam.deflection(geometry[0], middle, *geometry) / E
    return beam.deflection(x, P, *geometry) / moduli + share * of_tip * wrong


ALTERNATIVES = {
    "discrepancy": {"shared": lambda record: record, "none": without, "by specimen": by_specimen, "apart": apart}
}

MODEL = HierarchicalModel(
    name=NAME,
    question="How wrong is our simulator, and what may we still believe?",
    group="specimen",
    estimand="b",
    estimand_label="compliance, 1/E [1/GPa]",
    response="deflection",
    observed="y",
    location="m",
    heterogeneity="s",
    reference=None,
    columns=COLUMNS,
    fewest_groups=1,
    inputs={"simulator": SIMULATOR},
    parameters=PARAMETERS,
    default_priors=default_priors,
    matched_prior=matched_prior,
    prepare=prepare,
    own=lambda data: data.b_hat,
    volume=lambda data: data.n.rename("readings"),
    variants={
        "none": {"centered": no_pooling, "marginalized": marginalized},
        "complete": {"centered": complete_pooling, "marginalized": marginalized},
        "partial": {"noncentered": partial_pooling_noncentered, "marginalized": marginalized},
    },
    fixed={
        "none": fixed_in_advance,
        "complete": lambda priors, data: {"s": 0.0},
        "partial": lambda priors, data: {},
    },
    group_level=GroupLevel(
        kind="in closed form",
        kappa=discrepancy_level.KAPPA,
        independent=False,
        population=lambda h: Normal(h.m, h.s),
        conditional=discrepancy_level.conditional,
        log_joint=discrepancy_level.log_joint,
        log_left_out=discrepancy_level.log_left_out,
        log_likelihood=discrepancy_level.log_likelihood,
        expected_log_likelihood=discrepancy_level.expected_log_likelihood,
        reliability=discrepancy_level.reliability,
        replicate=discrepancy_level.replicate,
        leave_row_out=discrepancy_level.leave_row_out,
        without_row=discrepancy_rows.without_row,
        without_group=discrepancy_rows.without_group,
        emptied=discrepancy_rows.emptied,
        joined=discrepancy_rows.joined,
    ),
    alternatives=ALTERNATIVES,
    simulate=simulate,
    datasets={"simulated_rig": Shipped()},
    extras=Extras(
        check=rigs.check,
        checks=OF_RIG,
        with_response=discrepancy_rows.with_readings,
        contradiction=contradiction,
        left_out="{a_group} not seen before, on the same rig",
    ),
)
build = MODEL.build
__getattr__ = verbs_of(NAME, "modulus", "discrepancy", "reality", "inside_and_beyond", "taken_for_the_truth")
