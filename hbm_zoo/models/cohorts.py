"""Cohorts of patients that never were, and the truth that made them."""

import numpy as np
import pandas as pd
import xarray as xr

from hbm_zoo.group_level.residual_error import SIGMAS
from hbm_zoo.group_level.routes import correlations_of


def simulated(
    route,
    prepare,
    rng,
    *,
    patients=12,
    CL=2.8,
    V=32.0,
    ka=1.5,
    omega_CL=0.3,
    omega_V=0.2,
    omega_ka=0.6,
    rho_CL_V=0.4,
    rho_CL_ka=0.0,
    partial_V_ka=0.0,
    sigma_add=0.4,
    doses=(320.0,),
    interval=12.0,
    times=(0.25, 0.5, 1.0, 2.0, 3.5, 5.0, 7.0, 9.0, 12.0, 24.0),
    fewest=2,
):
    """A frame like the real one and the truth that made it.

    Parameters
    ----------
    rng : numpy.random.Generator
        Source of randomness.
    patients : int
        Number of patients.
    CL, V, ka : float
        Clearance [L/h], volume [L] and absorption rate [1/h] of the typical patient of 70 kg.
    omega_CL, omega_V, omega_ka, rho_CL_V, rho_CL_ka, partial_V_ka : float
        Spreads and correlations of the patients' logs.
    sigma_add : float
        Residual error, sd [mg/L].
    doses : tuple of float
        Each patient's doses [mg], ``interval`` hours apart.
    interval : float
        Time between doses [h].
    times : tuple of float
        When samples may be taken after the last dose [h].
    fewest : int
        Each patient gives so many of them at least.

    Returns
    -------
    frame : pandas.DataFrame
        Columns patient, time, amount, concentration, weight.
    truth : xarray.Dataset
        The hyperparameters and theta [patient, coefficient].

    Examples
    --------
    >>> import numpy as np
    >>> import hbm_zoo as hz
    >>> frame, truth = hz.population_pk.simulate(np.random.default_rng(1), patients=3)
    >>> list(frame.columns), truth.theta.dims
    (['patient', 'time', 'amount', 'concentration', 'weight'], ('patient', 'coefficient'))
    """
    given = locals() | {"mu_CL": np.log(CL), "mu_V": np.log(V), "mu_ka": np.log(ka), "sigma_prop": 0.0}
    names = [f"P{j + 1:02d}" for j in range(patients)]
    names_of_h = [f"{what}_{name}" for what in ("mu", "omega") for name in route.names]
    names_of_h += [*correlations_of(route.names), *SIGMAS]
    truth = xr.Dataset({name: float(given[name]) for name in names_of_h})
    theta = route.population(truth.expand_dims(patient=names)).sample(rng).transpose("patient", "coefficient")
    dose_times = interval * np.arange(len(doses))
    rows = []
    for name, weight in zip(names, rng.normal(70, 10, patients).clip(45, 110).round(1), strict=True):
        kept = np.sort(rng.permutation(times)[: rng.integers(fewest, len(times) + 1)])
        rows += [(name, at, amount, np.nan, weight) for at, amount in zip(dose_times, doses, strict=True)]
        rows += [(name, at, np.nan, 0.0, weight) for at in dose_times[-1] + kept]
    frame = pd.DataFrame(rows, columns=["patient", "time", "amount", "concentration", "weight"])
    data = prepare(frame)
    y = route.replicate(rng, theta, truth, data, data).values
    frame.loc[frame["amount"].isna(), "concentration"] = y
    return frame, truth.assign(theta=theta)
