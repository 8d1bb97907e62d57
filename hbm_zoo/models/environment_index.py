"""A gradient made of the responses themselves: the environment's mean (joint regression)."""

import numpy as np

from hbm_zoo.frames.rules import check, label, number

COLUMNS = {
    "genotype": label("the genotype's name"),
    "environment": label("the environment's name"),
    "response": number("what was measured"),
}
CIRCULAR = (
    "The environment is an index made of the responses themselves (environment_index), so a genotype cannot be left "
    "out as if it were new: its own responses are in x. Ask question='new_observation', or measure the environment."
)


def environment_index(frame, scale: float = 1.0):
    """Make the gradient out of the responses: each environment's mean (joint regression).

    Parameters
    ----------
    frame : pandas.DataFrame
        Columns genotype, environment (a name), response.
    scale : float
        How many units of the response are one unit of the index.

    Returns
    -------
    pandas.DataFrame
        Columns genotype, environment, response, index_of: ``environment`` is the mean
        response there, less the grand mean, over `scale`; ``index_of`` is its name. That
        column marks the frame, wherever it goes: the population slope is then `scale` by
        construction, so it is fixed and has no interval, and `compare_poolings` refuses
        to leave a genotype out.

    Raises
    ------
    FrameError, ValueError
        If a column is missing or wrong, or the scale is not above 0.

    Notes
    -----
    Finlay & Wilkinson (1963), who fix the mean slope at 1. Each row is a small part of its
    own x, so that leaving one row out still flatters every pooling a little. If genotypes
    are not all in the same environments, the means mix environments with genotypes.

    Examples
    --------
    >>> import pandas as pd
    >>> rows = {"genotype": ["A", "B"] * 2, "environment": ["wet", "wet", "dry", "dry"], "response": [5, 7, 1, 3]}
    >>> environment_index(pd.DataFrame(rows))["environment"].tolist()
    [2.0, 2.0, -2.0, -2.0]
    """
    if not (np.isscalar(scale) and np.isfinite(scale) and scale > 0):
        raise ValueError(f"environment_index expected a scale above 0, got {scale!r}.")
    frame = check(frame, COLUMNS, "environment_index")
    means = frame.groupby("environment")["response"].transform("mean")
    index = (means - frame["response"].mean()) / scale
    return frame.assign(environment=index, index_of=frame["environment"])


def circularity(frame):
    """What an index made of the responses settles: the mean slope; that no genotype is new."""
    if "index_of" not in frame:
        return {}
    means = frame.groupby("index_of")[["environment", "response"]].mean()
    x = means["environment"] - means["environment"].mean()
    if not (x**2).sum() > 0:
        return {}
    return {"index_slope": float((x * means["response"]).sum() / (x**2).sum()), "circular": CIRCULAR}


def far_center(data):
    """A sentence where the center lies farther outside the environments than they are apart."""
    low, high = float(data.x.min()), float(data.x.max())  # of the center
    center, outside = data.attrs["center"], max(low, -high, 0.0)
    if outside > high - low:
        yield (
            f"The center {center:g} lies {outside / (high - low):.3g} times the range of the environments, "
            f"{center + low:g} to {center + high:g}, outside them. There intercepts are extrapolations that go with "
            "the slopes, and the prior of rho narrows their spread: leave 'center' out, or choose one among them."
        )
