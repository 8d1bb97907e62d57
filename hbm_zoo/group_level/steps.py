"""Equations that have no formula, solved by steps in time: many points at once, each by steps of its own.

One step of a Rosenbrock method is that of RODAS, of order 4, with the step of order 3 that goes with it for its error,
L-stable, so that no rate is too fast for it (Hairer & Wanner 1996, Solving ordinary differential equations II, section
IV.7 and the code there). It solves linear systems only, as many as there are points in one call, and each point keeps
the largest error of its own species: it is as exact as if it were alone. Between steps a polynomial of order 3 is read,
so that many rows cost no more steps than few. A library's solver holds the error of all points together, by steps as
short as the fastest needs, and took a million of them where rates lay far apart.
"""

from __future__ import annotations

import math
from typing import Protocol

import numpy as np

#: Errors of a step: of a species' amount, and of the least there is of one at time 0, others of which are 0.
RELATIVE, ABSOLUTE = 1e-4, 1e-6
#: Steps at most, the shortest of the last time; how much a step may shrink and grow, and of what its error allows.
MOST, SHORTEST, SHRINKS, GROWS, SAFE = 3000, 1e-14, 0.2, 5.0, 0.9
#: Points that are solved together; relative steps of slopes, and of how much there is of any species.
TOGETHER, SLOPE, OF_MOST = 4096, 1.5e-8, 1e-3
#: RODAS: the diagonal; by stage weights of the former ones in the state and in the sum, the place in time, the weight
#: of the slope in time. In the last two stages the state is that of the step, less its error.
GAMMA = 0.25
OF_FIFTH = (1.221224509226641, 6.019134481288629, 12.53708332932087, -0.6878860361058950)
STAGES = (
    ((), (), 0.0, 0.25),
    ((1.544,), (-5.6688,), 0.386, -0.1043),
    ((0.9466785280815826, 0.2557011698983284), (-2.430093356833875, -0.2063599157091915), 0.21, 0.1035),
    (
        (3.314825187068521, 2.896124015972201, 0.9986419139977817),
        (-0.1073529058151375, -9.594562251023355, -20.47028614809616),
        0.63,
        -0.0362,
    ),
    (OF_FIFTH, (7.496443313967647, -10.24680431464352, -33.99990352819905, 11.70890893206160), 1.0, 0.0),
    (
        (*OF_FIFTH, 1.0),
        (8.083246795921522, -7.981132988064893, -31.52159432874371, 16.31930543123136, -6.058818238834054),
        1.0,
        0.0,
    ),
)
#: By stage, what bends the line between the states before and after a step, and what skews that.
WITHIN = (
    (10.12623508344586, -7.487995877610167, -34.80091861555747, -7.992771707568823, 1.025137723295662),
    (-0.6762803392806898, 6.087714651680015, 16.43084320892478, 24.76722511418386, -6.594389125716872),
)


class Changing(Protocol):
    """How fast species [species, point] change at times [point] under rates [rate, point]."""

    def change(self, t: np.ndarray, state: np.ndarray, rates: np.ndarray) -> np.ndarray: ...


def by_steps(of: Changing, rates: np.ndarray, start: np.ndarray, time: np.ndarray) -> np.ndarray:
    """How much there is [..., instant, species], as of `solutions.solution`; NaN where there is no solution."""
    outer = np.broadcast_shapes(rates.shape[:-1], start.shape[:-1], time.shape[:-1])
    points, parts = math.prod(outer), (rates, start, time)
    given = [np.broadcast_to(v, (*outer, v.shape[-1])).reshape(points, v.shape[-1]) for v in parts]
    ends = np.cumsum([part.shape[-1] for part in given])[:2]
    found = np.full((points, time.shape[-1], start.shape[-1]), np.nan)
    (fine,) = np.nonzero((np.isfinite(given[0]) & (given[0] > 0)).all(axis=-1))
    if not (found.size and fine.size):
        return found.reshape(*outer, *found.shape[1:])
    each, which = np.unique(np.hstack(given)[fine], axis=0, return_inverse=True)  # modules may be alike
    blocks = np.split(each, range(TOGETHER, len(each), TOGETHER))
    with np.errstate(all="ignore"):
        solved = [marched(of, *(part.T for part in np.split(block, ends, axis=1))) for block in blocks]
    found[fine] = np.moveaxis(np.concatenate(solved, axis=-1), -1, 0)[which]
    return found.reshape(*outer, *found.shape[1:])


def marched(of: Changing, rates: np.ndarray, start: np.ndarray, time: np.ndarray) -> np.ndarray:
    """[instant, species, point] from rates [rate, point], amounts [species, point] and times [instant, point]."""
    order = np.argsort(time, axis=0)
    at, size = np.take_along_axis(time, order, axis=0), time.shape[1]
    found, x = np.full((*time.shape, len(start)), np.nan), start.astype(float)
    least = ABSOLUTE * np.where(start > 0, start, np.inf).min(axis=0)
    t, h, turn, live = np.zeros(size), at[-1] / 100, np.zeros(size, int), np.arange(size)
    while (due := live[at[turn[live], live] <= 0]).size:
        found[order[turn[due], due], due] = x[:, due].T
        turn[due] += 1
        live = live[turn[live] < len(at)]
    for _ in range(MOST):
        if not live.size:
            break
        end = np.minimum(t[live] + h[live], at[-1, live])
        step = end - t[live]
        new, parts = step_of(of, t[live], x[:, live], rates[:, live], step)
        error = np.max(abs(parts[-1]) / (least[live] + RELATIVE * np.maximum(abs(x[:, live]), abs(new))), axis=0)
        error = np.nan_to_num(error, nan=np.inf)
        h[live] = step * np.clip(SAFE * np.maximum(error, 1e-9) ** -0.25, SHRINKS, GROWS)
        (good,) = (some,) = np.nonzero(error <= 1)
        while (some := some[at[turn[live[some]], live[some]] <= end[some]]).size:
            due = live[some]
            within = (at[turn[due], due] - t[due]) / step[some]
            passed = between(x[:, due], new[:, some], [part[:, some] for part in parts], within)
            found[order[turn[due], due], due] = passed.T
            turn[due] += 1
            some = some[turn[due] < len(at)]
        x[:, live[good]], t[live[good]] = new[:, good], end[good]
        live = live[(turn[live] < len(at)) & (h[live] > SHORTEST * at[-1, live])]
    return np.moveaxis(found, -1, 1)


def between(x: np.ndarray, new: np.ndarray, parts: list[np.ndarray], share: np.ndarray) -> np.ndarray:
    """The state [species, point] after a share of a step, of order 3."""
    bent, skew = (sum(d * part for d, part in zip(row, parts, strict=False)) for row in WITHIN)
    return (1 - share) * x + share * (new + (1 - share) * (bent + share * skew))


def step_of(of: Changing, t: np.ndarray, x: np.ndarray, rates: np.ndarray, h: np.ndarray) -> tuple:
    """The state [species, point] after one step of RODAS, and its stages, the last of which is the error."""
    size, points = x.shape
    dx, dt = SLOPE * np.maximum(abs(x), OF_MOST * abs(x).max(axis=0)), SLOPE * np.maximum(t, h)
    beside = x[:, None] + np.concatenate([np.eye(size)[..., None] * dx, np.zeros((size, 2, points))], axis=1)
    when = np.concatenate([np.tile(t, size + 1), t + dt])  # slopes of all species and of time in one call
    asked = of.change(when, beside.reshape(size, -1), np.tile(rates, size + 2)).reshape(size, size + 2, points)
    now = asked[:, size]
    matrix = ((now[:, None] - asked[:, :size]) / dx).transpose(2, 0, 1) + np.eye(size) / (GAMMA * h)[:, None, None]
    inverse = np.linalg.inv(np.where(np.isfinite(matrix).all(axis=(1, 2))[:, None, None], matrix, np.eye(size)))
    in_time, parts = (asked[:, size + 1] - now) / dt, list[np.ndarray]()
    for in_state, in_sum, place, of_slope in STAGES:
        state = x + sum(a * part for a, part in zip(in_state, parts, strict=True))
        rest = sum(c * part for c, part in zip(in_sum, parts, strict=True)) / h
        change = of.change(t + place * h, state, rates) if parts else now
        right = change + of_slope * h * in_time + rest
        parts.append((inverse @ right.T[..., None])[..., 0].T)
    return state + parts[-1], parts
