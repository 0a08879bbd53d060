"""The bottom of a loss surface, found from many starts or for thousands of resampled tables at once.

log L = log(E + A size^-alpha + B tokens^-beta) against log losses y, by Huber's loss of the residuals: damped Newton
steps with analytic derivatives. Legend: S starts or draws, n points, 5 unknowns theta = (log A, alpha, log B, beta,
log E), the logs of A and B taken at the middle of the data. Weights and y are [n], or [S, n] where draws differ.
"""

import math
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from noiselaw.laws.forms import Floats


@dataclass(frozen=True, slots=True, eq=False)
class Points:
    """Logs of the data, sizes x and tokens z about their means."""

    x: Floats
    z: Floats
    y: Floats
    """[n] or [S, n]"""
    weights: Floats
    """[n] or [S, n]"""
    center_size: float
    center_tokens: float

    @classmethod
    def checked(cls, size: ArrayLike, tokens: ArrayLike, loss: ArrayLike) -> "Points":
        """Raises ValueError for values that are not positive and finite, or too few to carry a surface."""
        columns = {
            "size": np.asarray(size, float),
            "tokens": np.asarray(tokens, float),
            "loss": np.asarray(loss, float),
        }
        for name, values in columns.items():
            bad = np.flatnonzero(~(np.isfinite(values) & (values > 0)))
            if bad.size:
                raise ValueError(
                    f"{name}, row {bad[0]}: {values[bad[0]]} is not positive and finite; drop or correct it"
                )
        for name in ("size", "tokens"):
            distinct = np.unique(columns[name]).size
            if distinct < 3:
                raise ValueError(f"a surface needs at least 3 distinct values of {name}, got {distinct}; add runs")
        if columns["loss"].size < 6:
            raise ValueError(f"a surface has 5 parameters and needs at least 6 points, got {columns['loss'].size}")
        x, z, y = (np.log(values) for values in columns.values())
        return cls(x - x.mean(), z - z.mean(), y, np.ones(y.size), float(x.mean()), float(z.mean()))

    def draws(self, index: np.ndarray) -> "Points":
        """The draws [k] of `index`; what all draws share stays shared."""
        y, weights = (part if part.ndim == 1 else part[index] for part in (self.y, self.weights))
        return replace(self, y=y, weights=weights)


class Derivatives(NamedTuple):
    """Of the objective over theta."""

    gradient: Floats
    """[S, 5]"""
    hessian: Floats
    """[S, 5, 5]"""
    scale: Floats
    """[S, 5]: weighted sums of squared slopes of log L. The Hessian's own diagonal vanishes where no residual lies
    within a narrow delta, and steps damped by it would run away."""


class Descent(NamedTuple):
    """Where every start ended."""

    theta: Floats
    """[S, 5]"""
    objective: Floats
    """[S]"""


def objective(data: Points, theta: Floats, delta: float) -> Floats:
    """Sum of Huber's losses [S] of the log residuals; infinite where the surface overflows."""
    with np.errstate(over="ignore", divide="ignore", invalid="ignore"):
        size = np.abs(np.log(sum(_terms(data, theta))) - data.y)
        inner = np.minimum(size, delta)
        total = (data.weights * inner * (size - inner / 2)).sum(-1)
    return np.where(np.isfinite(total), total, math.inf)


def log_slopes(data: Points, theta: Floats) -> tuple[Floats, Floats]:
    """The log loss [S, n] and its gradient [S, 5, n] over theta."""
    first, second, floor = _terms(data, theta)
    total = first + second + floor
    slopes = np.empty((*total.shape[:1], 5, *total.shape[1:]))
    np.divide(first, total, out=slopes[:, 0])
    np.multiply(slopes[:, 0], -data.x, out=slopes[:, 1])
    np.divide(second, total, out=slopes[:, 2])
    np.multiply(slopes[:, 2], -data.z, out=slopes[:, 3])
    np.divide(floor, total, out=slopes[:, 4])
    return np.log(total), slopes


def derivatives(data: Points, theta: Floats, delta: float) -> Derivatives:
    """Exact first and second derivatives.

    With g the slopes of log L and K the second derivatives of the terms over L, those of log L are K - g g'. K is block
    diagonal and shares its sums with the gradient.
    """
    log_loss, slopes = log_slopes(data, theta)
    residual = log_loss - data.y
    pull = data.weights * np.clip(residual, -delta, delta)
    bend = data.weights * (np.abs(residual) <= delta) - pull
    pulled = slopes * pull[:, None]
    gradient = pulled.sum(-1)
    hessian = (slopes * bend[:, None]) @ slopes.swapaxes(1, 2)
    for at, x in ((0, data.x), (2, data.z)):
        hessian[:, at, at] += gradient[:, at]
        hessian[:, at, at + 1] += gradient[:, at + 1]
        hessian[:, at + 1, at] += gradient[:, at + 1]
        hessian[:, at + 1, at + 1] -= (pulled[:, at + 1] * x).sum(-1)
    hessian[:, 4, 4] += gradient[:, 4]
    weights = np.broadcast_to(data.weights, residual.shape)
    return Derivatives(gradient, hessian, np.einsum("sn,sin,sin->si", weights, slopes, slopes))


_MAX_STEPS = 500
_CONVERGED = 1e-11
"""A step that gains less than this share of the objective is the last."""


def descend(data: Points, theta: Floats, delta: float) -> Descent:
    """Damped Newton steps from every start at once, until none improves."""
    theta = theta.copy()
    reached = objective(data, theta, delta)
    damping = np.full(len(theta), 1e-2)
    active = np.isfinite(reached)
    for _ in range(_MAX_STEPS):
        index = np.flatnonzero(active)
        if not index.size:
            break
        mine = data.draws(index)
        trial = theta[index] - _newton_step(mine, theta[index], delta, damping[index])
        gain = reached[index] - objective(mine, trial, delta)
        better = gain > 0
        theta[index[better]] = trial[better]
        reached[index[better]] -= gain[better]
        stalled = np.where(better, gain <= _CONVERGED * reached[index], damping[index] > 1e3)
        damping[index] = np.where(better, np.maximum(damping[index] / 8, 1e-12), damping[index] * 8)
        active[index[stalled]] = False
    return Descent(theta, reached)


_NARROWING = 8.0


def descend_to(data: Points, theta: Floats, delta: float) -> Descent:
    """As `descend`, for a delta far below the residuals: narrowed step by step, so that every descent starts near.

    Huber's loss over delta is at most delta / 2 below the absolute residual: this is how L1 is reached.
    """
    log_loss, _ = log_slopes(data, theta)
    width = float(np.quantile(np.abs(log_loss - data.y), 0.9))
    while width > delta * _NARROWING:
        theta = descend(data, theta, width).theta
        width /= _NARROWING
    return descend(data, theta, delta)


def _terms(data: Points, theta: Floats) -> tuple[Floats, Floats, Floats]:
    """The three terms of the surface: [S, n], [S, n], [S, 1]."""
    log_a, alpha, log_b, beta, log_e = (theta[:, [index]] for index in range(5))
    with np.errstate(over="ignore"):
        return np.exp(log_a - alpha * data.x), np.exp(log_b - beta * data.z), np.exp(log_e)


def _newton_step(data: Points, theta: Floats, delta: float, damping: Floats) -> Floats:
    gradient, hessian, scale = derivatives(data, theta, delta)
    damped = hessian + (damping[:, None] * scale + 1e-14 * scale.max(-1, keepdims=True))[:, :, None] * np.eye(5)
    # An indefinite Hessian is lifted until the step goes downhill.
    indefinite = ~_is_definite(damped)
    lift = 1.5 * np.abs(np.linalg.eigvalsh(damped[indefinite])[:, 0])
    damped[indefinite] += lift[:, None, None] * np.eye(5)
    return np.linalg.solve(damped, gradient[..., None])[..., 0]


def _is_definite(matrices: Floats) -> np.ndarray:
    """Which of symmetric matrices [S, k, k] are positive definite: all pivots of elimination are positive."""
    reduced, definite = matrices.copy(), np.ones(len(matrices), dtype=bool)
    for k in range(matrices.shape[-1]):
        definite &= reduced[:, k, k] > 0
        column = reduced[:, k + 1 :, k]
        pivot = np.where(definite, reduced[:, k, k], 1.0)[:, None, None]
        reduced[:, k + 1 :, k + 1 :] -= column[:, :, None] * column[:, None, :] / pivot
    return definite


_EXPONENTS = np.geomspace(0.03, 2.0, 14)


def projected_starts(data: Points, delta: float, num_starts: int) -> Floats:
    """The best starts [S, 5] of a grid of exponents: for each pair E, A and B are a linear problem in L / L."""
    alpha, beta = (grid.ravel()[:, None] for grid in np.meshgrid(_EXPONENTS, _EXPONENTS))
    columns = [np.exp(-alpha * data.x), np.exp(-beta * data.z), np.ones((alpha.size, data.y.size))]
    basis = np.stack(columns, axis=-1) / np.exp(data.y)[:, None]
    normal = np.einsum("sni,snj->sij", basis, basis)
    linear = np.linalg.solve(normal + 1e-12 * np.eye(3), basis.sum(1)[..., None])[..., 0]
    floor = 1e-3 * math.exp(data.y.min())
    log_a, log_b, log_e = (np.log(np.maximum(linear[:, [index]], floor)) for index in range(3))
    starts = np.concatenate([log_a, alpha, log_b, beta, log_e], axis=-1)
    return starts[np.argsort(objective(data, starts, delta))[:num_starts]]
