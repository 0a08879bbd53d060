"""Damped Newton descent of many small problems at once, with lower bounds. Legend: S problems, k unknowns."""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from noiselaw.laws.forms import Floats


class Problem(NamedTuple):
    """What to minimise; both functions take theta [s, k] and the numbers [s] of the problems it belongs to."""

    objective: Callable[[Floats, np.ndarray], Floats]
    """[s]; infinite where theta is no solution."""
    derivatives: Callable[[Floats, np.ndarray], tuple[Floats, Floats]]
    """Gradient [s, k] and (nearly) the Hessian [s, k, k]."""
    lower: Floats
    """[k], -inf where there is no bound."""
    free: np.ndarray
    """[k]: which unknowns may move at all."""


_MAX_STEPS = 500
_CONVERGED = 1e-11
"""A step that gains less than this share of the objective is the last."""


def descend(problem: Problem, theta: Floats) -> tuple[Floats, Floats]:
    """Steps from every start until none improves. Returns theta [S, k] and the objective [S] there."""
    theta = theta.copy()
    every = np.arange(len(theta))
    objective = problem.objective(theta, every)
    damping = np.full(len(theta), 1e-3)
    active = np.isfinite(objective)
    for _ in range(_MAX_STEPS):
        index = every[active]
        if not index.size:
            break
        trial = theta[index] - _step(problem, theta[index], index, damping[index])
        trial = np.maximum(trial, problem.lower)
        gain = objective[index] - problem.objective(trial, index)
        better = gain > 0
        theta[index[better]] = trial[better]
        objective[index[better]] -= gain[better]
        stalled = np.where(better, gain <= _CONVERGED * objective[index], damping[index] > 1e3)
        damping[index] = np.where(better, np.maximum(damping[index] / 8, 1e-12), damping[index] * 8)
        active[index[stalled]] = False
    return theta, objective


def projected_gradient(problem: Problem, theta: Floats) -> Floats:
    """The gradient [S, k] of every problem at its theta, zero where a bound holds it up."""
    gradient, _ = problem.derivatives(theta, np.arange(len(theta)))
    return np.where(_held(problem, theta, gradient), 0.0, gradient)


def _held(problem: Problem, theta: Floats, gradient: Floats) -> np.ndarray:
    return ~problem.free | ((theta <= problem.lower) & (gradient > 0))


def _step(problem: Problem, theta: Floats, index: np.ndarray, damping: Floats) -> Floats:
    gradient, hessian = problem.derivatives(theta, index)
    held = _held(problem, theta, gradient)
    free = ~held
    identity = np.eye(theta.shape[-1])
    hessian = np.where(free[:, :, None] & free[:, None, :], hessian, held[:, :, None] * identity)
    scale = np.abs(np.einsum("skk->sk", hessian))
    damped = hessian + ((damping[:, None] * scale) + 1e-14 * scale.max(-1, keepdims=True))[:, :, None] * identity
    # An indefinite Hessian is lifted until the step goes downhill.
    lift = np.maximum(0.0, -1.5 * np.linalg.eigvalsh(damped)[:, 0])
    damped += lift[:, None, None] * identity
    return np.linalg.solve(damped, np.where(held, 0.0, gradient)[..., None])[..., 0]
