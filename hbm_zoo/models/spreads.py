"""Whether rows can tell lines, and their noise, apart."""

import warnings

from hbm_zoo.frames.rules import FrameError


def check_spreads(data):
    """Refuse what tells neither lines nor noise; warn where only priors tell them apart.

    Raises
    ------
    FrameError
        If the frame cannot tell lines, or their noise, apart.
    """
    if not data.x.max() > data.x.min():
        at = float(data.x[0]) + data.attrs["center"]
        raise FrameError(f"reaction_norms: column 'environment' expected at least 2 values, got {at:g} in every row.")
    if not (data.r22 > 1e-9 * abs(data.x).max()).any():
        warnings.warn(
            "No genotype was seen in two environments: one mean of each tells no slope from an intercept, and the "
            "spread of slopes is told by its prior more than by the data.",
            stacklevel=2,
        )
    if not data.response.max() > data.response.min():
        at = float(data.response[0])
        raise FrameError(f"reaction_norms: column 'response' expected values that differ, got {at:g} in every row.")
    freedom = float((data.n - 1 - (data.r22 > 0)).sum())
    if freedom == 0:
        warnings.warn(
            "No genotype has a row to spare beside its line, so sigma and the spread of lines are told apart by "
            "their priors more than by the data.",
            stacklevel=2,
        )
    elif float(data.rss.sum()) <= 1e-20 * float((data.response**2).sum()):
        raise FrameError(
            "reaction_norms: column 'response' expected some noise, but every genotype's rows lie exactly on a line: "
            "sigma would be 0."
        )
