"""What every picture shares: colours that colour-blind readers can tell apart, labels, which groups to draw."""

from __future__ import annotations

from collections.abc import Iterable
from io import BytesIO

import numpy as np
import xarray as xr
from matplotlib.artist import Artist
from matplotlib.figure import Figure
from matplotlib.patheffects import withStroke
from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator
from scipy.optimize import isotonic_regression

from hbm_zoo.frames.moderators import OPTION
from hbm_zoo.inference.fits import settings
from hbm_zoo.words import shortened

# Okabe & Ito (2008), Color Universal Design.
COLOURS = {
    "own": "#000000",
    "none": "#E69F00",
    "complete": "#0072B2",
    "partial": "#D55E00",
    "empirical_bayes": "#009E73",
}
INK = "#333333"
GREY = "#8C8C8C"
FAINT = "#BBBBBB"
SMALL = 8
LONGEST_NAME = 28
CHARACTERS_AN_INCH = 14
WIDE_RANGE = 8
ROUNDING = 1e-6
#: Names that a label has at most where several points are one.
MOST_AT_A_PLACE = 3


class Picture(Figure):
    """A figure that shows itself in a notebook, without pyplot and its global state."""

    def _repr_png_(self) -> bytes:
        """What a notebook displays."""
        buffer = BytesIO()
        self.savefig(buffer, format="png", dpi=100)
        return buffer.getvalue()


def alike(values: xr.DataArray, group: str) -> bool:
    """Whether all groups have the same value, but for rounding."""
    return bool((values.max(group) - values.min(group) <= 1e-9 * abs(values).max()).all())


def colour(pooling: str) -> str:
    """The colour of a pooling, the same in every picture."""
    return COLOURS.get(pooling, INK)


def estimand_label(fit: xr.DataTree) -> str:
    """The estimand in words, behind it its symbol and the options it depends on; it is the same with moderators."""
    options = settings(fit, without=[OPTION])
    words, behind = fit.attrs.get("estimand_label", ""), "; ".join(filter(None, (fit.attrs["estimand"], options)))
    return f"{words} ({behind})" if words else behind


def panels(estimates: xr.DataArray, group: str) -> list[tuple[str, dict]]:
    """A panel for each coefficient of a vector estimand, one panel for a scalar: title and selection."""
    others = [dim for dim in estimates.dims if dim != group]
    if not others:
        return [("", {})]
    dim = others[0]
    return [(str(value), {dim: value}) for value in estimates[dim].values]


def both_ends(order: np.ndarray, kept: np.ndarray, most: int) -> np.ndarray:
    """The two ends of a long order, and between them those that are to be kept, the outermost first.

    Examples
    --------
    >>> both_ends(np.arange(1000), np.array([500, 501]), 6).tolist()
    [0, 1, 500, 501, 998, 999]
    """
    if order.size <= most:
        return order
    place = np.arange(order.size)
    end = np.minimum(place, place[::-1])
    wanted = np.isin(order, kept)
    half = max(most // 4, (most - int(wanted.sum())) // 2)
    between = np.flatnonzero(wanted & (end >= half))
    outermost = between[np.argsort(end[between], kind="stable")[: most - 2 * half]]
    return order[np.union1d(np.flatnonzero(end < half), outermost)]


def marked(fit: xr.DataTree, kept: Iterable) -> np.ndarray:
    """The places of the groups whose labels are to be kept."""
    return np.flatnonzero(np.isin(fit["group_summary"].dataset[fit.attrs["group"]].values, [*kept]))


def said_of_ends(fit_order: str, drawn: int, of: int, kept: int, kept_in_all: int) -> str:
    """In words, which of many groups a picture shows."""
    named = f"with {kept} of the {kept_in_all} that stand out; " if kept_in_all else ""
    return f"{drawn} of them, from both ends of the order of {fit_order};\n{named}{of - drawn} between are not drawn"


def evenly(order: np.ndarray, most: int) -> np.ndarray:
    """At most so many of an order, evenly spaced, its ends included."""
    return order[np.linspace(0, order.size - 1, min(order.size, most)).round().astype(int)]


def interval_ends(summary: xr.Dataset, of: str = "") -> tuple[str, str]:
    """Names of the two ends of the interval of an estimate, or ``of`` something else such as its rank."""
    lower, upper = sorted(name for name in map(str, summary) if name.startswith(f"{of}eti"))
    return lower, upper


def group_name(label: object) -> str:
    r"""A group's name as a picture writes it: not too long, and a dollar is no mathematics.

    Examples
    --------
    >>> print(group_name("$x$ of St. Mary and the Holy Cross"))
    \$x\$ of St. Mar…he Holy Cross
    """
    return shortened(str(label), LONGEST_NAME).replace("$", r"\$")


def finish(axes) -> None:
    """Remove the frame's top and right."""
    axes.spines[["top", "right"]].set_visible(False)


def legend_below(figure: Figure) -> None:
    """One legend for all panels, outside them."""
    entries: dict[str, Artist] = {}
    for axes in figure.axes:
        for handle, label in zip(*axes.get_legend_handles_labels(), strict=True):
            entries.setdefault(label, handle)
    columns = max(1, int(figure.get_figwidth() * CHARACTERS_AN_INCH / (max(map(len, entries)) + 7)))
    handles, labels = list(entries.values()), list(entries)
    figure.legend(handles, labels, loc="outside lower center", ncols=columns, fontsize="small", frameon=False)


def volume_axis(axes, volume: np.ndarray) -> None:
    """A log axis in plain numbers if the largest group has many times the data of the smallest."""
    if volume.max() > WIDE_RANGE * volume.min():
        axes.set_xscale("log")
        axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axes.xaxis.set_major_formatter(FuncFormatter(lambda x, _: f"{x:g}"))
        axes.xaxis.set_minor_locator(NullLocator())


def label_edge(axes, heights: np.ndarray, texts: list[str], colours: list[str] | str = INK) -> None:
    """Name what ends at the right edge of the axes: each text at its height, or led there from where there is room."""
    heights, colours = np.asarray(heights, float), [colours] * len(texts) if isinstance(colours, str) else colours
    low, high = axes.get_ylim()
    axes.set_ylim(low, high)
    row = 1.3 * SMALL * (high - low) / (72 * axes.get_position().height * axes.figure.get_figheight())
    order, steps = np.argsort(heights, kind="stable"), row * np.arange(heights.size)
    at = isotonic_regression(heights[order] - steps).x + steps
    for y, k in zip(at, order, strict=True):
        leader = {"arrowstyle": "-", "color": FAINT, "lw": 0.6, "shrinkA": 1, "shrinkB": 1}
        axes.annotate(
            texts[k],
            (1, heights[k]),
            xytext=(1.03, y),
            xycoords=axes.get_yaxis_transform(),
            textcoords=axes.get_yaxis_transform(),
            va="center",
            fontsize=SMALL,
            color=colours[k],
            arrowprops=leader if abs(y - heights[k]) > row / 4 else None,
            annotation_clip=False,
        )


def name_points(axes, x: np.ndarray, y: np.ndarray, labels: Iterable, outward: bool = False) -> None:
    """Name each point; points in one place share a label, of a few names, and it gives way to those below it.

    A label stands to the right where there is room, or ``outward``, on the side away from 0.
    """
    places: dict[tuple, list[str]] = {}
    for place, label in zip(zip(x, y, strict=True), labels, strict=True):
        places.setdefault(place, []).append(group_name(label))
    width, height = 72 * axes.figure.get_size_inches() * axes.get_position().size
    row, letter = 1.3 * SMALL, 0.62 * SMALL
    taken: list[tuple] = []
    for place in sorted(places, key=lambda place: place[1]):
        names, others = places[place][:MOST_AT_A_PLACE], places[place][MOST_AT_A_PLACE:]
        text = ", ".join(names) + (f" and {len(others)} more" if others else "")
        across, up = axes.transAxes.inverted().transform(axes.transData.transform(place))
        side = np.sign(place[0]) if outward else 1 if across < 0.75 else -1
        left = across * width + (6 if side > 0 else -6 - letter * len(text))
        right = left + letter * len(text)
        low = _free(left, right, up * height + 1, row, taken)
        taken.append((left, right, low))
        leader = {"arrowstyle": "-", "color": FAINT, "lw": 0.6, "shrinkA": 1, "shrinkB": 2}
        leader["relpos"] = (0.5 - side / 2, 0.5)
        axes.annotate(
            text,
            place,
            xytext=(6 * side, low - up * height),
            textcoords="offset points",
            ha="left" if side > 0 else "right",
            fontsize=SMALL,
            color=INK,
            arrowprops=leader if low - up * height > row else None,
            path_effects=[withStroke(linewidth=2, foreground="white")],
            zorder=5,
        )


def _free(left: float, right: float, low: float, row: float, taken: list[tuple]) -> float:
    """The lowest height from ``low`` up at which a text between two sides covers none of those that are ``taken``."""
    beside = [other for from_left, to_right, other in taken if left < to_right and from_left < right]
    while above := [other + row for other in beside if abs(low - other) < row - ROUNDING]:
        low = max(above)
    return low
