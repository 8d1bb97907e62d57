"""Rigs whose simulator is any smooth function of the compliance: `model_discrepancy` with discrepancy="apart"."""

from dataclasses import replace
from functools import partial
from numbers import Real

import numpy as np
import pymc as pm
import pytensor.tensor as pt
from pymc_extras.prior import Prior
from scipy import stats

from hbm_zoo.fields import Parameter
from hbm_zoo.frames.rules import FrameError
from hbm_zoo.group_level import any_simulator, any_simulator_left_out, any_simulator_rows
from hbm_zoo.group_level.any_simulator import log_density, of_rig, polynomials, random
from hbm_zoo.group_level.any_simulator_rows import NO_RIG, RIG_POWERS
from hbm_zoo.group_level.discrepancy import root
from hbm_zoo.group_level.discrepancy_rows import ROWS
from hbm_zoo.models import beam, rigs
from hbm_zoo.models.beam import GEOMETRY, NAME
from hbm_zoo.models.rig_checks import OF_ANY
from hbm_zoo.models.rigs import PROPORTIONAL
from hbm_zoo.priors import describe, moments

#: The compliances between which a simulator runs by default, over that of the readings were it linear.
STIFFEST, SOFTEST = 0.25, 1.75
#: Of the priors: sds of m between an end and the middle, and the share of b beyond the ends that is too much.
SDS, BEYOND = 3.0, 0.02
#: Errors of the table over the scatter of the readings: what is told, and what is refused.
TOLD, TOO_COARSE = 0.01, 0.1
R = Parameter("second parameter of the simulator, the rig's, the same for all specimens [its unit]")


def apart(record):
    """The record of specimens that are alone with their discrepancies, and of any smooth simulator."""
    return replace(
        record,
        parameters={**record.parameters, "r": R},
        prepare=preparing(record),
        default_priors=default_priors,
        variants={
            "none": {"centered": no_pooling, "marginalized": marginalized},
            "complete": {"centered": complete_pooling, "marginalized": marginalized},
            "partial": {"noncentered": partial_pooling_noncentered, "marginalized": marginalized},
        },
        fixed={pooling: partial(fixed_too, fixed) for pooling, fixed in record.fixed.items()},
        group_level=any_simulator.group_level(
            leave_row_out=any_simulator_left_out.leave_row_out,
            row_tails=any_simulator_left_out.row_tails,
            without_row=any_simulator_rows.without_row,
        ),
        datasets={},
        extras=replace(
            record.extras,
            check=check,
            checks=OF_ANY,
            with_response=any_simulator_rows.with_readings,
            absent=lambda data: () if data.sizes["of_rig"] > 1 else ("r",),
            contradiction=lambda data, priors: beyond(data, priors | record.matched(priors) | priors),
            left_out=type(record.extras)().left_out,
        ),
    )


def fixed_too(fixed, priors, data):
    """What a pooling fixes, and r of a simulator that has none."""
    return fixed(priors, data) | ({} if data.sizes["of_rig"] > 1 else {"r": 0.0})


def preparing(record):
    """The ``prepare`` of such a record."""

    def prepare(
        frame,
        simulator=None,
        with_load: str = PROPORTIONAL,
        support: str = "pinned",
        typical_load: float | None = None,
        stiffest: float | None = None,
        softest: float | None = None,
        rig_from: float | None = None,
        rig_to: float | None = None,
    ):
        """As of `model_discrepancy.prepare`; the simulator runs between two moduli, ``stiffest`` and ``softest`` [GPa].

        Where ``rig_from`` and ``rig_to`` are given it has a second parameter, of the rig, and runs between these, too:
        points [point, (position, load, length, width, thickness, compliance, r)].

        Raises
        ------
        FrameError, ValueError
            If the frame is not what the model takes, or the moduli are not two, the stiffer the larger, or the values
            of the second parameter are not, or have no simulator.
        """
        straight = record.prepare(frame, None, with_load, support, typical_load)
        stiffest, softest = _moduli(straight, stiffest, softest)
        given, of_rig = _points(frame), _of_rig(simulator, rig_from, rig_to)
        said, error = tabulated(simulator or finite_elements, given, np.array([1 / stiffest, 1 / softest]), of_rig)
        rows = straight[[*ROWS]].drop_vars("specimen", errors="ignore").assign(said=(("row", "power", "of_rig"), said))
        attrs = {"stiffest": stiffest, "softest": softest, "table_error": error}
        attrs |= {"rig_from": rig_from, "rig_to": rig_to} if of_rig else {}
        rows = rows.assign_attrs(straight.attrs | attrs)
        data = any_simulator_rows.of_rows(rows, straight["specimen"].values)
        return data.assign({name: straight[name] for name in GEOMETRY})

    return prepare


def finite_elements(points):
    """The default: what they say at 1 GPa, in proportion to the compliance [mm]; there is no second parameter."""
    return beam.deflection(*points[:, :5].T) * points[:, 5]


def _points(frame):
    return np.column_stack([frame[name].to_numpy(float) for name in ("position", "load", *GEOMETRY)])


def _moduli(data, stiffest, softest):
    """The moduli between which the simulator runs, those given or by default [GPa]."""
    for name, value in (("stiffest", stiffest), ("softest", softest)):
        if value is not None and (isinstance(value, bool) or not isinstance(value, Real) or not 0 < value < np.inf):
            raise ValueError(f"{NAME}: '{name}' expected a modulus above 0 in GPa, got {value!r}.")
    m0 = 1.0 if stiffest and softest else rigs.compliance(data)
    stiffest, softest = float(stiffest or 1 / (STIFFEST * m0)), float(softest or 1 / (SOFTEST * m0))
    if not softest < stiffest:
        raise ValueError(f"{NAME}: 'stiffest' expected more than 'softest', got {stiffest:.4g} and {softest:.4g} GPa.")
    return stiffest, softest


def _of_rig(simulator, rig_from, rig_to):
    """The ends of the second parameter, none if it has none."""
    if rig_from is None and rig_to is None:
        return ()
    for name, value in (("rig_from", rig_from), ("rig_to", rig_to)):
        if isinstance(value, bool) or not isinstance(value, Real) or not np.isfinite(value):
            raise ValueError(f"{NAME}: {name!r} expected an end of the second parameter, a number, got {value!r}.")
    if not rig_from < rig_to:
        raise ValueError(f"{NAME}: 'rig_to' expected more than 'rig_from', got {rig_to:.4g} and {rig_from:.4g}.")
    if simulator is None:
        raise ValueError(f"{NAME}: 'rig_from' and 'rig_to' are of a 'simulator' of two parameters, got none.")
    return float(rig_from), float(rig_to)


def tabulated(simulator, given, ends, rig_ends):
    """What a simulator says of each row, as polynomials [row, power, of_rig], and how far they are off [mm].

    It runs at each place, load and geometry that is asked, and is asked again halfway between the runs.
    """
    points, back = np.unique(given, axis=0, return_inverse=True)
    said, between = (
        (which(ends), which(rig_ends, RIG_POWERS) if rig_ends else None)
        for which in (any_simulator_rows.runs, any_simulator_rows.held_out)
    )
    said = any_simulator_rows.said_by(_answers(simulator, points, *said))
    b, r = between if rig_ends else (between[0], np.zeros(1))
    off = any_simulator_rows.at(said, b, ends, r, rig_ends or NO_RIG) - _answers(simulator, points, *between)
    return said[back.reshape(-1)], float(abs(off).max())


def _answers(simulator, points, compliances, of_rig):
    """Its answers at each point, compliance and second parameter, if there is one [point, run, run of the rig]."""
    runs = [compliances] if of_rig is None else [compliances, of_rig]
    *others, last = (np.tile(value.ravel(), len(points)) for value in np.meshgrid(*runs, indexing="ij"))
    every = np.column_stack([np.repeat(points, last.size // len(points), axis=0), *others])
    return beam.answers(simulator, every, last).reshape(len(points), compliances.size, -1)


def default_priors(data):
    """All that the simulator was run for within 3 sds; specimens alike to a tenth; a model wrong by half.

    Raises
    ------
    FrameError
        If no beam gives such readings.
    """
    rigs.check_readings(data)
    d, spacing, length = rigs.predicted(data), rigs.spacing(data), float(data.attrs["length"])
    low, high = data["ends"].values
    middle = (low + high) / 2
    least, most = data["rig_ends"].values
    of_rig = {"r": Prior("Normal", mu=float(least + most) / 2, sigma=float(most - least) / 2 / SDS)}
    return (of_rig if data.sizes["of_rig"] > 1 else {}) | {
        "m": Prior("Normal", mu=middle, sigma=(high - middle) / SDS),
        "s": Prior("HalfNormal", sigma=(high - middle) / 10),
        "sigma": Prior("HalfNormal", sigma=d / 10),
        "a": Prior("HalfNormal", sigma=d / 2),
        "ell": Prior("LogNormal", mu=float(np.log(spacing * length) / 2), sigma=float(np.log(length / spacing) / 4)),
    }


def check(data):
    """As of `rigs.check`; and whether the runs suffice.

    Raises
    ------
    FrameError
        As there; if most specimens' own estimates lie at an end of the runs, or their table is too coarse.
    """
    said, ends = rigs.check(data), data["ends"].values
    at_end = np.isclose(data["b_hat"].values[:, None], ends, rtol=1e-6).any(axis=1)
    if at_end.mean() > 0.5 and data.sizes["of_rig"] == 1:  # of two parameters one may stand in for the other
        which = data["specimen"].values[at_end][0]
        raise FrameError(
            f"{NAME}: readings of most specimens, the first {which!s}, are nearest to an end of the moduli "
            f"that the simulator was run for, {1 / ends[1]:.4g} to {1 / ends[0]:.4g} GPa: give others as 'softest' and "
            "'stiffest'."
        )
    scatter = np.sqrt(float(_off(data).var()))
    error = data.attrs["table_error"]
    share = error / scatter if scatter > 0 else 0.0
    if share > TOO_COARSE:
        raise FrameError(
            f"{NAME}: 'simulator' expected a smooth function of the compliance, got one that the polynomials through "
            f"its {any_simulator_rows.POWERS} runs miss by {error:.3g} mm, {share:.0%} of the scatter of the readings: "
            "give nearer moduli as 'softest' and 'stiffest'."
        )
    if share > TOLD:
        said.append(
            f"Between its runs the simulator is known to {error:.3g} mm, {share:.0%} of the scatter of the readings."
        )
    return said


def _off(data):
    """The readings less what the simulator says at each specimen's own estimate [mm]."""
    own = data["b_hat"].values[data["of_specimen"].values]
    return data["deflection"].values - own * data["f"].values


def beyond(data, priors):
    """Say so if a prior has much beyond the runs, where nothing is known of the simulator."""
    (low, high), of_rig = data["ends"].values, data["rig_ends"].values
    if outside := _share_beyond(priors["b"], low, high):
        return (
            f"The simulator was run from {1 / high:.4g} to {1 / low:.4g} GPa, and the prior {describe(priors['b'])} of "
            f"a specimen's 'b' [1/GPa] has {outside:.0%} beyond: give other moduli as 'softest' and 'stiffest'."
        )
    if "r" in priors and (outside := _share_beyond(priors["r"], *of_rig)):
        return (
            f"The simulator was run from {of_rig[0]:.4g} to {of_rig[1]:.4g}, and the prior {describe(priors['r'])} of "
            f"its second parameter 'r' has {outside:.0%} beyond: give other ends as 'rig_from' and 'rig_to'."
        )
    return None


def _share_beyond(prior, low, high):
    """The share of a prior beyond two ends where it is too much, else 0."""
    mean, variance = moments("b", prior)
    outside = 1 - float(np.diff(stats.norm(mean, np.sqrt(variance)).cdf([low, high]))[0])
    return outside if outside > BEYOND else 0.0


# The variants, each as it stands on the page.


def no_pooling(data, prior):
    """b_j ~ N(m0, s0^2), fixed in advance; the discrepancy of each is its own in all poolings."""
    readings(data, prior, prior("b", dims="specimen"))


def complete_pooling(data, prior):
    """b_j = m for all."""
    readings(data, prior, prior("m") + pt.zeros_like(data.n))


def partial_pooling_noncentered(data, prior):
    """b_j = m + s t_j, t_j ~ N(0, 1)."""
    m, s = prior("m"), prior("s")
    t = pm.Normal("t", dims="specimen")
    readings(data, prior, pm.Deterministic("b", m + s * t, dims="specimen"))


def readings(data, prior, b):
    """y_ji ~ N(F_ji(b_j, r) + w_ji v_j(x_ji), sigma^2), v_j = a R z_j."""
    z = pm.Normal("z", dims=("specimen", "point"))
    v = pm.Deterministic("v", prior("a") * (z @ root(prior("ell"), data.apart, data.alike, pt).T))
    said = of_rig(data.said, pt.as_tensor(prior("r")), data.rig_ends, pt)
    F = (said * polynomials(b[data.of_specimen], data.ends, pt)).sum(axis=-1)
    pm.Normal(
        "y", F + data.w * v[data.of_specimen, data.point_index], prior("sigma"), observed=data.deflection, dims="row"
    )


def marginalized(data, prior):
    """b_j and v_j integrated out, for all three poolings; a specimen's own estimate stands for its rows."""
    of_line = data.rest, data.q, data.of_design, data.T
    pm.CustomDist(
        "y",
        data.n,
        data.towards,
        data.beside,
        data.V,
        data.b_hat,
        data.apart,
        data.alike,
        data.ends,
        data.rig_ends,
        *(prior(name) for name in ("m", "s", "sigma", "a", "ell", "r")),
        *of_line,
        logp=log_density,
        random=random,
        signature="(j),(j,p,k,l),(j,r,k,l),(j,p,p),(j),(p,p),(p,p),(e),(e),(),(),(),(),(),(),(j),(j,t),(j),(d,t,t)->(j)",
        observed=data.b_hat,
        dims="specimen",
    )
