"""What a group's parameter says along an axis of its rows, in the space of the data."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True)
class Curve:
    """A curve of each group and the rows that it was fitted to.

    Attributes
    ----------
    axis, response
        The columns of the frame along and up.
    rows
        ``rows(data)``: of each row the position of its group, its place on the axis and its response, three arrays in
        the units of the frame.
    at
        ``at(theta, x, data)``: the expected response [..., x] of a group's parameter at places x on the axis.
    """

    axis: str
    response: str
    rows: Callable
    at: Callable
