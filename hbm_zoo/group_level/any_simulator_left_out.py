"""Rows of groups whose simulator is any smooth one, each given all others: its density, and how it lies among them.

Given b, what is left of row i of y - F(b) after all of the discrepancy that y tells of, v ~ N(B t(b), F F'), is
l_i(b) = y_i - F_i(b) - w_i (B t(b))_p. If y_i is one of the rows that told it (Rasmussen & Williams 2006, section
5.4.2),

    y_i | b, y_-i  is  z_i = l_i / (sigma^2 P_i^1/2) sds off,  P_i = (1 - w_i^2 (F F')_pp / sigma^2) / sigma^2,

and what the others know of b is what all know of it, over that density: so one table of a group serves all its rows.
Where that has much at the ends of the nodes, for the row has told most of b, the group is integrated anew without it,
where z_i = l_i P_i^1/2, 1 / P_i = sigma^2 + w_i^2 (F F')_pp.
"""

from __future__ import annotations

import numpy as np
import xarray as xr
from scipy import special

from hbm_zoo.group_level.any_simulator import Given, by_draw, polynomials
from hbm_zoo.group_level.any_simulator_rows import without_each
from hbm_zoo.group_level.normal import LOG_2PI

#: The share of what the others know of b that may lie at an end of the nodes.
AT_ENDS = 1e-9
ANSWERS = ("log_density", "below", "above", "at_ends")


def leave_row_out(h, data, rows):
    """Log density of some rows, by position, given all others [nats]."""
    return _given_others(h, data, rows)["log_density"]


def row_tails(h, data, rows):
    """Two probabilities of some rows given all others: of no more than what was read, and of no less."""
    found = _given_others(h, data, rows)
    return found["below"], found["above"]


def _given_others(h, data, rows) -> xr.Dataset:
    """Log density and tails of some rows [..., row] given all others."""
    of, which = np.unique(data["of_specimen"].values[rows], return_inverse=True)
    found = _answers(h, data.isel(specimen=of), _asked(data, rows), which, True)
    others = [dim for dim in found["at_ends"].dims if dim != "row"]
    cut = np.flatnonzero(~(found["at_ends"] < AT_ENDS).all(others))
    if cut.size:
        apart = _answers(h, without_each(data, rows[cut]), _asked(data, rows[cut]), np.arange(cut.size), False)
        for name in ANSWERS:
            found[name][{"row": cut}] = apart[name]
    return found


def _asked(data, rows):
    """Of each row y - F as coefficients of the polynomials, w and the point."""
    left = -data["said"].values[rows]
    left[:, 0, 0] += data["deflection"].values[rows]
    return left, data["w"].values[rows], data["point_index"].values[rows]


def _answers(h, data, asked, which, told: bool) -> xr.Dataset:
    """The same, of rows that ``told`` what is known of the groups at the positions ``which``, or did not."""
    left, w, point = asked

    def formula(given: Given, b):
        log_f, z, _ = given.nodes
        t = polynomials(given.m[:, None, None] + given.s[:, None, None] * z, given.arrays["ends"], np)
        F, B = given.towards_v
        variance = given.sigma[:, None] ** 2
        spread = w**2 * (F**2).sum(axis=-1)[:, which, point]
        off = _at_nodes(given.at_r(left) - w[:, None] * B[:, which, point], t, which)
        precision = (1 - spread / variance) / variance if told else 1 / (variance + spread)
        off *= np.sqrt(precision)[..., None] / ((variance * precision)[..., None] if told else 1)
        log_density = 0.5 * (np.log(precision)[..., None] - LOG_2PI - off**2)
        log_weight = log_f[:, which] - (log_density if told else 0)
        log_weight -= special.logsumexp(log_weight, axis=-1, keepdims=True)
        weight = np.exp(log_weight)
        tails = ((weight * special.ndtr(side * off)).sum(axis=-1) for side in (1, -1))
        return special.logsumexp(log_weight + log_density, axis=-1), *tails, weight[..., [0, -1]].max(axis=-1)

    return xr.Dataset(dict(zip(ANSWERS, by_draw(formula, [["row"]] * len(ANSWERS), h, data), strict=True)))


def _at_nodes(coefficients, t, which):
    """Of polynomials [draw, row, power] what they are at the nodes t [draw, group, node, power] of each row's group."""
    found = np.empty((*coefficients.shape[:2], t.shape[-2]))
    for j in np.unique(which):
        here = which == j
        found[:, here] = coefficients[:, here] @ np.swapaxes(t[:, j], -1, -2)
    return found
