"""Survival regressed on traits: the likeliest coefficients, whether there are any, and the gradients they make."""

from __future__ import annotations

import numpy as np
from scipy.optimize import linprog, minimize
from scipy.special import expit

SETTLED = 1e-10


class NoGradient(Exception):
    """Why a year has no gradient."""


def average_gradient(a: np.ndarray, information: np.ndarray, X: np.ndarray) -> tuple[np.ndarray, np.ndarray, bool]:
    """Gradients of relative survival at coefficients a, their covariance, and whether they fall as slopes rise.

    b = a mean(p (1 - p)) / mean(p) has the covariance J I^-1 J', J the derivatives of b, those of the factor too
    (Janzen & Stern 1998, Evolution 52:1564-1571).
    """
    p = expit(X @ a)
    g = p * (1 - p)
    factor = g.mean() / p.mean()
    slope = ((X * (g * (1 - 2 * p))[:, None]).mean(axis=0) - factor * (X * g[:, None]).mean(axis=0)) / p.mean()
    steeper = np.r_[-(g[:, None] * X[:, 1:]).mean(axis=0) @ a[1:] / g.mean(), a[1:]]
    J = np.column_stack([np.zeros(len(a) - 1), factor * np.eye(len(a) - 1)]) + np.outer(a[1:], slope)
    return factor * a[1:], J @ np.linalg.inv(information) @ J.T, bool(factor + slope @ steeper <= 0)


def _separated(y: np.ndarray, X: np.ndarray) -> bool:
    """Whether a line parts survivors from dead, or all but those on it (Konis 2007): no slope is the likeliest then."""
    signed = X * (2 * y - 1)[:, None]
    best = linprog(-signed.sum(axis=0), A_ub=-signed, b_ub=np.zeros(len(y)), bounds=(-1, 1), method="highs")
    return bool(-best.fun > 1e-7)


def likeliest(y: np.ndarray, X: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The likeliest coefficients of a logistic regression, and the information there.

    Raises
    ------
    NoGradient
        If there are none: all fared alike, or traits tell survivors from dead.
    """
    if np.ptp(y) == 0:
        raise NoGradient("all survived" if y[0] else "no survivors")
    if _separated(y, X):
        raise NoGradient("the traits tell survivors from dead without error")

    def information(a):
        p = expit(X @ a)
        return X.T @ (X * (p * (1 - p))[:, None])

    def minus_log_likelihood(a):
        eta = X @ a
        return np.logaddexp(0, eta).sum() - y @ eta

    start = np.r_[np.log(y.mean() / (1 - y.mean())), np.zeros(X.shape[1] - 1)]
    found = minimize(
        minus_log_likelihood,
        start,
        jac=lambda a: X.T @ (expit(X @ a) - y),
        hess=information,
        method="trust-exact",
        options={"gtol": SETTLED * len(y)},
    )
    return found.x, information(found.x)
