"""Concentrations in a body of one compartment, after any history of doses.

Elimination is linear, so that doses superpose: each gives a curve of its own, and the concentration is their sum.
With `g`(x) = (1 - exp(-x))/x no formula has a pole where two rates meet or an infusion ends at once. ``xp`` is NumPy
or PyTensor. What a dose has given by a time is data (`course`): no schedule is asked again at other clearances.

Rowland M, Tozer T (2011) Clinical Pharmacokinetics and Pharmacodynamics, 4th ed., chapters 3, 5 and 6.
"""

import numpy as np

#: Below which 1 - exp(-x) is its series.
SMALL = 1e-5


def g(x, xp=np):
    """(1 - exp(-x))/x of x >= 0: 1 at 0.

    Examples
    --------
    >>> g(np.array([0.0, 1.0])).round(4).tolist()
    [1.0, 0.6321]
    """
    near = (x < SMALL) * 1.0
    far = x + near  # both branches are finite, their gradients too
    return near * (1 - x / 2 * (1 - x / 3)) + (1 - near) * -xp.expm1(-far) / far


def oral(given, since, lasting, CL, V, ka, xp=np):
    """Concentration after a dose that is absorbed at a rate ka, finite where ka = CL/V.

    D ka/V t exp(-min(ka, ke) t) g(|ka - ke| t), ke = CL/V, is the Bateman function

        D ka / (V (ka - ke)) (exp(-ke t) - exp(-ka t))        (Bateman 1910, Proc Camb Philos Soc 15:423-427)

    Parameters
    ----------
    given, since
        The dose [amount], 0 before it, and the time since [h].
    lasting
        0: what is swallowed is given at once.
    CL, V, ka
        Clearance [volume/h], volume, absorption rate [1/h]; what a share of the dose reaches the blood is in CL and V.
    xp
        ``numpy`` or ``pytensor.tensor``.

    Examples
    --------
    >>> oral(100.0, np.array([0.0, 1.0]), 0.0, 2.0, 20.0, 0.1).round(3).tolist()
    [0.0, 0.452]
    """
    ke = CL / V
    slower, apart = xp.minimum(ka, ke), abs(ka - ke)
    return given * ka / V * since * xp.exp(-slower * since) * g(apart * since, xp)


def intravenous(given, since, lasting, CL, V, xp=np):
    """Concentration after a bolus, or during and after an infusion at a constant rate.

    Parameters
    ----------
    given
        What has run in [amount]: of a bolus all of it, of an infusion its share.
    since, lasting
        Time since the start of the dose, and for how long of that it ran in, 0 of a bolus [h].
    CL, V
        Clearance [volume/h] and volume.
    xp
        ``numpy`` or ``pytensor.tensor``.

    Examples
    --------
    A bolus, and an infusion that has gone on until CL carries off what runs in:

    >>> intravenous(100.0, 10.0, 0.0, 2.0, 20.0).round(3).item(), intravenous(1e5, 1e3, 1e3, 2.0, 20.0).round(3).item()
    (1.839, 50.0)
    """
    ke = CL / V
    bolus = xp is np and not np.any(lasting)  # g(0) = 1, and a curve is asked for by the million
    return given / V * (1.0 if bolus else g(ke * lasting, xp)) * xp.exp(-ke * (since - lasting))


def course(time, dose_time, amount, duration):
    """What each dose has given by a time, the time since, and for how long of that it ran in.

    A sample at the very time of a dose was taken before it.

    Examples
    --------
    >>> [value.tolist() for value in course(np.array([0.0, 1.0, 5.0]), 0.0, 100.0, 4.0)]
    [[0.0, 25.0, 100.0], [0.0, 1.0, 5.0], [0.0, 1.0, 4.0]]
    """
    since = np.maximum(time - dose_time, 0.0)
    lasting = np.minimum(since, duration)
    share = np.where(duration > 0, lasting / np.where(duration > 0, duration, 1.0), since > 0)
    return amount * share, since, lasting
