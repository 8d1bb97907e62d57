r"""Population pharmacokinetics: what does this patient need, after one blood sample?

A drug is given, blood is drawn a few times, and the concentration rises and falls at rates that
differ from person to person. A cohort teaches what is typical, how far patients differ, and what
goes with what; a new patient's one or two samples tell the rest. Treat every patient alone, draw
one curve for all, or learn from the cohort how much to share?

The model
---------
    y_ij | theta_j      ~ N(f_ij, sigma_add^2 + (sigma_prop f_ij)^2)    the samples
    theta_j | mu, Omega ~ N3(mu, Omega),  theta_j = log (CL, V, ka)     the patients
    mu_CL, mu_V, mu_ka  ~ N(log typical value, typical_sd^2)            what we knew before
    omega_CL, omega_V ~ HalfNormal(.5),  omega_ka ~ HalfNormal(1)
    (rho_CL_V, rho_CL_ka, partial_V_ka) ~ LKJ(2)
    sigma_add ~ HalfNormal(.3 m),  sigma_prop ~ HalfNormal(.2)

with m the median of the samples above 0, and Omega the covariance of these spreads and
correlations. f is one compartment with absorption: each dose D adds, at a time t after it,

    D ka/V t exp(-min(ka, ke) t) g(|ka - ke| t),  ke = CL/V,  g(x) = (1 - exp(-x))/x.

============  ===========================  ====================  ======  ===============================
on paper      in code                      dims                  unit    meaning
============  ===========================  ====================  ======  ===============================
y_ij          ``concentration``            observation           mass/L  what was measured
t_ij          ``time``                     patient, row          h       when
D             ``amount``                   patient, dose         mass    a dose, see ``duration``
theta_j       ``theta``                    patient, coefficient  log     the patient's own
CL_j          exp of ``theta_CL``          patient               L/h     clearance
V_j           exp of ``theta_V``           patient               L       volume
ka_j          exp of ``theta_ka``          patient               1/h     absorption rate
mu            ``mu_CL``, ``mu_V``,                               log     the typical patient
              ``mu_ka``
omega         ``omega_CL``, ``omega_V``,                         log     spread of patients: about a
              ``omega_ka``                                               coefficient of variation
R             ``rho_CL_V``, ``rho_CL_ka``                        none    correlations
R             ``partial_V_ka``                                   none    correlation of V and ka, given CL
sigma         ``sigma_add``                                      mass/L  residual error, a fixed sd
sigma         ``sigma_prop``                                     share   residual error, a share of f
kappa         ``kappa``                    patient, coefficient  share   weight of the patient's own data
============  ===========================  ====================  ======  ===============================

A row of the frame is one event: a dose or a sample. Doses superpose, whatever their history. CL
and V are those of the share of a dose that reaches the blood.

``typical_CL``, ``typical_V`` and ``typical_ka`` are asked for, with ``typical_sd``, how well they
are known: 1 is a factor e. They are what a leaflet or a former study says; two rates can always
be exchanged (below), and only such knowledge says which is which.

With ``weight`` in the frame CL_j = exp(theta_CL) (weight/70)^.75 and V_j = exp(theta_V) weight/70
(``scaling="allometric"``), or both are per kg (``scaling="per kg"``); typical values are then those
of 70 kg, or per kg.

``error="additive"`` sets sigma_prop = 0, "proportional" sigma_add = 0, and "combined" learns both.
Under a proportional error nothing is known of a sample before any dose, which cannot scatter: such
rows are left out, and counted: its elpd is of fewer rows than that of an additive error, and is not
compared with it. With ``lloq``, the limit of quantification, a concentration at it or below
tells that it is no more: its density is Phi((lloq - f)/sd) (method M3, Beal 2001).

No pooling gives the logs of each patient wide independent normals in advance, matched in mean and
variance to what the partial model expects of one patient; complete pooling is Omega = 0: one curve
for all. The residual error is shared by the patients in all three.

The flip-flop: (CL, V, ka) and (CL, CL/ka, CL/V) have the same curve, for the two rates ka and ke may be
exchanged. The likelihood does not know which is which; priors do, and `flip_flop` says what they
leave to the other side. CL and the area under the curve do not depend on it; ka, V and the peak
between samples do. Independent draws cover the other side, too, where priors leave it any weight.

There is no closed form: theta_j is integrated on a cloud of nodes (`cloud.py`), and kappa of a
coefficient is 1 - E[Var(theta | y, h)] / omega^2, of the log.

With route=iv
-------------
    y_ij | theta_j      ~ N(f_ij, sigma_add^2 + (sigma_prop f_ij)^2)    the samples
    theta_j | mu, Omega ~ N2(mu, Omega),  theta_j = log (CL, V)         the patients
    mu_CL, mu_V ~ N(log typical value, typical_sd^2)                    what we knew before
    omega_CL, omega_V ~ HalfNormal(.5),  rho_CL_V ~ LKJ(2)
    sigma_add ~ HalfNormal(.3 m),  sigma_prop ~ HalfNormal(.2)

A dose is a bolus, or an infusion that runs in over ``duration`` hours; a sample at the very time of a
dose was taken before it. A bolus adds D/V exp(-ke t).

============  ===========================  ====================  ======  ===============================
on paper      in code                      dims                  unit    meaning
============  ===========================  ====================  ======  ===============================
T             ``duration``                 patient, dose         h       how long it ran in; 0 of a bolus
omega         ``omega_CL``, ``omega_V``                          log     spread of patients
R             ``rho_CL_V``                                       none    correlation of CL and V
============  ===========================  ====================  ======  ===============================

What it assumes
---------------
* One compartment: after its peak the concentration falls along one exponential. A second, slower
  fall is read as noise.
* Elimination is linear: twice the dose, twice the concentration.
* Patients are exchangeable but for their weight, and logs of CL, V and ka are normal.
* Doses and times are as they stand in the frame, and samples err independently of one another.

References
----------
Sheiner L, Rosenberg B, Melmon K (1972) Modelling of individual pharmacokinetics for computer-aided
drug dosage. Comput Biomed Res 5:441-459. Sheiner L, Beal S (1980) J Pharmacokinet Biopharm
8:553-571. Wakefield J (1996) The Bayesian analysis of population pharmacokinetic models. J Am Stat
Assoc 91:62-75. Beal S (2001) Ways to fit a PK model with some data below the quantification limit.
J Pharmacokinet Pharmacodyn 28:481-504. Anderson B, Holford N (2008) Mechanism-based concepts of size and maturity in
pharmacokinetics. Annu Rev Pharmacol Toxicol 48:303-332. Lewandowski D, Kurowicka D, Joe H (2009)
J Multivar Anal 100:1989-2001.
"""

from dataclasses import replace
from functools import partial, wraps

import numpy as np
import pandas as pd
import pymc as pm
import pytensor.tensor as pt
import xarray as xr
from pymc_extras.prior import Prior

from hbm_zoo.fields import Extras, Parameter, Shipped
from hbm_zoo.frames.rules import FrameError, label, not_negative, number, or_empty, positive
from hbm_zoo.group_level import dosing, features
from hbm_zoo.group_level.curves import Curve
from hbm_zoo.group_level.residual_error import BELOW, ERRORS, SIGMAS, residual_error
from hbm_zoo.group_level.routes import CORRELATIONS, IV, ORAL, correlations_of
from hbm_zoo.model import HierarchicalModel, verbs_of
from hbm_zoo.models import patient_checks
from hbm_zoo.models.cohorts import simulated
from hbm_zoo.models.events import check_events, check_whole, contradiction
from hbm_zoo.models.nonmem import from_nonmem as from_nonmem
from hbm_zoo.priors import describe, lkj, moments
from hbm_zoo.words import choose

COLUMNS = {
    "patient": label("the patient"),
    "time": not_negative("when the dose was given or the sample taken [h]"),
    "amount": or_empty(positive("a dose [mass]; empty where the row is a sample"), optional=True),
    "duration": or_empty(not_negative("how long the dose ran in [h]; empty or 0 of a bolus"), optional=True),
    "concentration": or_empty(number("what was measured [mass/L]; empty where the row is a dose")),
    "weight": replace(positive("body weight [kg]"), optional=True),
}
#: Scales of the spreads; those of the residual error, in typical responses and as a share.
SPREADS = {"CL": 0.5, "V": 0.5, "ka": 1.0}
OF_RESPONSE, SHARE = 0.3, 0.2
#: What CL and V are multiples of, by weight [kg].
SCALINGS = {
    "allometric": lambda weight: ((weight / 70) ** 0.75, weight / 70),
    "per kg": lambda weight: (weight, weight),
}
#: What is typical of simulated patients.
TYPICAL = {
    ORAL: {"typical_CL": 2.8, "typical_V": 32.0, "typical_ka": 1.5, "typical_sd": 0.5},
    IV: {"typical_CL": 2.8, "typical_V": 32.0, "typical_sd": 0.5},
}


def parameters_of(route):
    """The hyperparameters of log CL, log V and, if the drug is absorbed, log ka."""
    words = {"CL": "log clearance", "V": "log volume", "ka": "log absorption rate"}
    ends = {name: ({name: -1.0}, {name: 1.0}) for name in CORRELATIONS}
    return {
        **{f"mu_{name}": Parameter(f"mean {words[name]} of patients") for name in route.names},
        **{f"omega_{name}": Parameter(f"spread of {words[name]}, sd", (0, np.inf)) for name in route.names},
        **{name: Parameter(CORRELATIONS[name], (-1, 1), ends[name]) for name in correlations_of(route.names)},
        "sigma_add": Parameter("residual error of a sample, sd [mass/L]", (0, np.inf)),
        "sigma_prop": Parameter("residual error, sd as a share of what is expected", (0, np.inf)),
    }


def default_priors(route, data):
    """Typical values as they were given; spreads of a factor e at most; noise of the order of a sample."""
    typical = float(data.concentration.where(data.concentration > 0).median())
    mu = {
        f"mu_{n}": Prior("Normal", mu=np.log(data.attrs[f"typical_{n}"]), sigma=data.attrs["typical_sd"])
        for n in route.names
    }
    omega = {f"omega_{name}": Prior("HalfNormal", sigma=SPREADS[name]) for name in route.names}
    # LKJ(2) of three: of those that nothing is given (Lewandowski et al. 2009), LKJ(2.5).
    rho = {
        name: lkj(1 + len(route.names) / 2 if name != "partial_V_ka" else 2.0) for name in correlations_of(route.names)
    }
    scales = {"sigma_add": OF_RESPONSE * typical, "sigma_prop": SHARE}
    sigma = {name: Prior("HalfNormal", sigma=scale) for name, scale in scales.items()}
    return mu | omega | rho | sigma


def matched_prior(route, priors):
    """Normals with the mean and variance of theta_j once the hyperparameters are averaged out."""
    matched = {}
    for name in route.names:
        (mean, variance), (omega, of_omega) = (moments(n, priors[n]) for n in (f"mu_{name}", f"omega_{name}"))
        matched[f"theta_{name}"] = Prior("Normal", mu=mean, sigma=float(np.sqrt(variance + omega**2 + of_omega)))
    return matched


def prepare(
    frame,
    error="additive",
    scaling: str | None = None,
    typical_CL: float | None = None,
    typical_V: float | None = None,
    typical_ka: float | None = None,
    typical_sd: float | None = None,
    lloq: float = 0.0,
):
    """Doses and samples of every patient side by side, as many as the one with the most has.

    Parameters
    ----------
    frame : pandas.DataFrame
        Columns patient, time, amount, concentration, and duration, weight if there are any.
    error : {"additive", "proportional", "combined"}
        Residual error.
    scaling : {"allometric", "per kg"}, optional
        How clearance and volume follow the weight. Default: allometric, where there is a weight.
    typical_CL, typical_V, typical_ka, typical_sd : float
        What is known of the typical patient in advance, and the sd of their logs.
    lloq : float
        Lower limit of quantification [mass/L]: of a concentration at it or below only that is known. 0: each is what it
        says.

    Returns
    -------
    xarray.Dataset
        Dims patient, dose, row, observation, coefficient; ``used`` [patient, row], which rows tell of the patient: 1,
        and 2 of one of which only that it is below the limit is known.

    Raises
    ------
    FrameError
        If a row is neither a dose nor a sample, a weight changes or is missing, or a typical value is no number.
    """
    choose(error, ERRORS, "error")
    typical = {"typical_CL": typical_CL, "typical_V": typical_V, "typical_ka": typical_ka, "typical_sd": typical_sd}
    attrs = {name: _above_zero(name, value) for name, value in typical.items() if value is not None}
    attrs["lloq"] = _above_zero("lloq", lloq) if lloq else 0.0
    there, frame = frame.columns, pd.DataFrame({name: frame[name] if name in frame else np.nan for name in COLUMNS})
    check_events(frame, there)
    of, patients = pd.factorize(frame["patient"])
    is_dose = frame["amount"].notna().to_numpy()
    doses, samples = frame[is_dose].fillna({"duration": 0.0}), frame[~is_dose]
    given = {"dose_time": doses["time"], "amount": doses["amount"], "duration": doses["duration"]}
    taken = {"time": samples["time"], "sampled": samples["concentration"], "seen": np.ones(len(samples))}
    shape = len(patients)
    data = xr.Dataset(
        dosing.side_by_side(of[is_dose], given, "dose", shape)
        | dosing.side_by_side(of[~is_dose], taken, "row", shape)
        | {
            "concentration": ("observation", samples["concentration"].to_numpy(float)),
            "of_patient": ("observation", of[~is_dose].astype(np.int64)),
            "of_row": ("observation", pd.Series(of[~is_dose]).groupby(of[~is_dose]).cumcount().to_numpy(np.int64)),
        },
        coords={"patient": np.asarray(patients)},
    )
    weight = frame.groupby(of)["weight"].first().to_numpy(float)
    size, chosen = _sizes(weight, scaling)
    data = dosing.with_courses(data.assign({name: ("patient", value) for name, value in size.items()}))
    data["used"] = data.seen * (data.given > 0).any("dose") if error == "proportional" else data.seen
    attrs |= {"error": error} | chosen
    return _censored(data.assign_attrs(attrs), attrs["lloq"])


def _censored(data, lloq):
    """Concentrations at the limit or below are at it; how many is noted."""
    if not lloq:
        return data
    below = (data.used > 0) & (data.sampled <= lloq)
    return data.assign(
        used=data.used.where(~below, BELOW),
        sampled=data.sampled.where(~below, lloq),
        concentration=np.maximum(data.concentration, lloq),
    )


def _above_zero(name, value):
    if isinstance(value, bool) or not isinstance(value, int | float | np.number) or not 0 < value < np.inf:
        raise FrameError(f"population_pk expected {name!r} to be a finite number above 0, got {value!r}.")
    return float(value)


def _sizes(weight, scaling):
    """What the patients' CL and V are multiples of, and how it was chosen."""
    if np.isnan(weight).any():
        if scaling is not None:
            raise FrameError(f"population_pk expected a column 'weight' [kg] for scaling={scaling!r}, got none.")
        return {"size_CL": np.ones(weight.size), "size_V": np.ones(weight.size)}, {}
    scaling = choose(scaling or "allometric", SCALINGS, "scaling")
    return dict(zip(("size_CL", "size_V"), SCALINGS[scaling](weight), strict=True)), {"scaling": scaling}


# The variants, each as it stands on the page.


def no_pooling(route, data, prior):
    """theta_j fixed in advance to wide normals."""
    samples(
        route, data, prior, shown(pt.stack([prior(f"theta_{name}", dims="patient") for name in route.names], axis=-1))
    )


def complete_pooling(route, data, prior):
    """One curve for all: theta_j = mu."""
    samples(route, data, prior, pt.stack([prior(f"mu_{name}") for name in route.names]))


def partial_pooling(route, data, prior):
    """theta_j = mu + L z_j with z_j ~ N(0, I), L L' = Omega."""
    mu, factor = population_of_logs(route, prior)
    samples(route, data, prior, shown(mu + pm.Normal("z", dims=("patient", "coefficient")) @ factor.T))


def marginalized(route, data, prior):
    """Every patient integrated out on a cloud of nodes, which are data."""
    nodes = [getattr(data, name) for name in ("predicted", "features", "log_q", "pilot_mean", "pilot_cholesky")]
    pm.CustomDist(
        "y",
        data.used,
        *(prior(name) for name in SIGMAS),
        *population_of_logs(route, prior),
        *nodes,
        logp=partial(log_marginal, residual_error(data.error, data.lloq), len(route.names)),
        signature="(j,r),(),(),(c),(c,d),(j,k,p),(j,k,f),(j,k),(c),(c,d)->(j,r)",
        observed=data.sampled,
    )


def log_marginal(error, size, y, used, sigma_add, sigma_prop, mu, factor, predicted, *cloud):
    """Log p(y_j | h) of all patients [nats]."""
    given, log_q, *pilot = cloud
    density = error.log_density(predicted, y[:, None], used[:, None], sigma_add, sigma_prop, pt)
    return features.log_marginal(density, given, log_q, mu, factor, *pilot, size).sum()


def population_of_logs(route, prior):
    """mu, and the Cholesky factor L of Omega."""
    return pt.stack([prior(f"mu_{name}") for name in route.names]), pt.stacklists(route.factor(prior))


def shown(theta):
    """theta_j by its name."""
    return pm.Deterministic("theta", theta, dims=("patient", "coefficient"))


def samples(route, data, prior, theta):
    """y_ij ~ N(f_ij, sigma_add^2 + (sigma_prop f_ij)^2)."""
    values = [pt.exp(theta[..., k]) for k in range(len(route.names))]
    individual = [value[..., None, None] for value in route.individual(values, data.size_CL, data.size_V)]
    f = route.curve(data.given, data.since, data.lasting, *individual, xp=pt).sum(axis=-1)
    j, i = data.of_patient, data.of_row
    used, f = data.used[j, i] > 0, f[j, i]
    scatter = ERRORS[data.error].sd(f, *map(prior, SIGMAS))
    # PyMC stops where an sd is 0 or undefined, and those who climb from far out could not turn back.
    scatter = pt.switch(scatter > 0, scatter, np.finfo(float).tiny)
    # A sample that is left out is 0, as expected, with an sd of 1: a constant.
    scatter = pt.switch(used, scatter, 1.0)
    given = {"observed": data.concentration * used, "dims": "observation"}
    if data.lloq:
        limit = pt.switch(used, data.lloq, -np.inf)
        pm.Censored("y", pm.Normal.dist(f * used, scatter), lower=limit, upper=None, **given)
    else:
        pm.Normal("y", f * used, scatter, **given)


def in_advance(route, priors, data):
    """No pooling: the population is the prior of one patient, its logs independent."""
    fixed = dict.fromkeys(correlations_of(route.names), 0.0) | ERRORS[data.attrs["error"]].fixed
    for name in route.names:
        prior = priors[f"theta_{name}"]
        if prior.distribution != "Normal" or prior.transform:
            raise ValueError(f"No pooling is exact under a Normal prior of 'theta_{name}', got {describe(prior)}.")
        mean, variance = moments(f"theta_{name}", prior)
        fixed |= {f"mu_{name}": mean, f"omega_{name}": float(np.sqrt(variance))}
    return fixed


def one_curve(route, priors, data):
    """Complete pooling: Omega = 0."""
    spreads = [f"omega_{name}" for name in route.names]
    return dict.fromkeys([*spreads, *correlations_of(route.names)], 0.0) | ERRORS[data.attrs["error"]].fixed


def shrink_together(route, t, means):
    """Omega = t^2 that of the posterior means: spreads by the same factor, correlations kept."""
    spreads = {f"omega_{name}": t * means[f"omega_{name}"] for name in route.names}
    return spreads | {name: means[name] for name in correlations_of(route.names)}


def named(route, data):
    """The logs that a patient has, by name."""
    return data.assign_coords(coefficient=[*route.names])


def of_route(route):
    """The formulas of a route of administration."""

    def bound(formula):
        return wraps(formula)(lambda *arguments, **options: formula(route, *arguments, **options))

    return {
        "parameters": parameters_of(route),
        "prepare": wraps(prepare)(lambda frame, **options: named(route, prepare(frame, **options))),
        "default_priors": bound(default_priors),
        "matched_prior": bound(matched_prior),
        "own": route.own,
        "variants": {
            "none": {"centered": bound(no_pooling), "marginalized": bound(marginalized)},
            "complete": {"centered": bound(complete_pooling)},
            "partial": {"noncentered": bound(partial_pooling), "marginalized": bound(marginalized)},
        },
        "fixed": {
            "none": bound(in_advance),
            "complete": bound(one_curve),
            "partial": lambda priors, data: dict(ERRORS[data.attrs["error"]].fixed),
        },
        "group_level": route.group_level,
        "simulate": wraps(simulated)(partial(simulated, route, prepare)),
        "extras": Extras(
            check=lambda data: check_whole(data, route.names),
            path=bound(shrink_together),
            contradiction=bound(contradiction),
            readers={"nonmem": from_nonmem},
            simulated=TYPICAL[route],
            curve=Curve("time", "concentration", dosing.samples, route.over_time),
            **patient_checks.of(route),
        ),
    }


IN_HOURS_AND_MG = {
    "time": "time_h",
    "amount": "dose_mg",
    "concentration": "conc_mg_per_L",
    "weight": "weight_kg",
}


def into_a_vein(record):
    """The record of what is not swallowed, with the data sets that were not."""
    shown = {name: shipped for name, shipped in record.datasets.items() if shipped.options.get("route") == "iv"}
    return replace(record, datasets=shown, **of_route(IV))


ALTERNATIVES = {"route": {"oral": lambda record: record, "iv": into_a_vein}}

MODEL = HierarchicalModel(
    name="population_pk",
    question="What does this patient need, after one blood sample?",
    group="patient",
    estimand="theta",
    estimand_label="logs of clearance, volume and absorption rate",
    response="concentration",
    observed="y",
    location="mu_CL",
    heterogeneity="omega_CL",
    reference=None,
    columns=COLUMNS,
    measured=lambda frame: frame["amount"].isna() if "amount" in frame else pd.Series(True, index=frame.index),
    volume=lambda data: data.seen.sum("row").rename("samples"),
    alternatives=ALTERNATIVES,
    datasets={
        "theophylline": Shipped(
            columns={"patient": "subject"} | IN_HOURS_AND_MG,
            options={"scaling": "per kg", "typical_CL": 0.04, "typical_V": 0.5, "typical_ka": 1.5, "typical_sd": 1.0},
        ),
        "phenobarbital": Shipped(
            columns={"patient": "infant"} | IN_HOURS_AND_MG,
            options={
                "route": "iv",
                "error": "proportional",
                "scaling": "per kg",
                "typical_CL": 0.005,
                "typical_V": 1.0,
                "typical_sd": 1.0,
            },
        ),
    },
    **of_route(ORAL),
)
build = MODEL.build
simulate = MODEL.simulate
__getattr__ = verbs_of("population_pk", "FlipFlopWarning", "flip_flop", "personalise", "curve", "exposure", "dose_for")
