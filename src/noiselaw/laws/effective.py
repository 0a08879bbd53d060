"""Effective tokens and parameters of runs that repeat their data, and the loss over theta with its derivatives.

The formulas stand in `noiselaw.laws.repeated`. Legend: S thetas, n rows, k = 7 unknowns theta = (log A, alpha, log B,
beta, log E, x_D, x_N), x = 1 / R*; logs of sizes and tokens are taken about their means, and so are those of A and B.
"""

import math
from typing import NamedTuple

import numpy as np

from noiselaw.laws.forms import Floats
from noiselaw.laws.newton import Problem

NUM_UNKNOWNS = 7
LEAST_EXPONENT = 1e-4
"""Of alpha and beta: without a positive one no size is optimal for U tokens, and N' has no slope."""


def decayed(repeats: Floats, inverse: Floats) -> Floats:
    """R* (1 - exp(-R / R*)) for 1 / R*: exact also where R / R* is small, and R where 1 / R* is 0."""
    z = np.asarray(repeats * inverse)
    with np.errstate(divide="ignore", invalid="ignore"):
        return repeats * np.where(z > 0, -np.expm1(-z) / z, 1.0)


def decayed_slopes(repeats: Floats, inverse: Floats) -> tuple[Floats, Floats]:
    """First and second derivative of `decayed` over 1 / R*.

    They are -R**2 g(z) and -R**3 g'(z) with z = R / R* and g(z) = (1 - (1 + z) exp(-z)) / z**2, by its power series
    where the closed form would cancel.
    """
    z = repeats * inverse
    small = z < _SERIES_BELOW
    near, far = np.where(small, z, 0.0), np.where(small, 1.0, z)
    g = np.where(small, np.polyval(_SERIES, near), (1.0 - (1.0 + far) * np.exp(-far)) / far**2)
    slope = np.where(small, np.polyval(np.polyder(_SERIES), near), (np.exp(-far) - 2.0 * g) / far)
    return -(repeats**2) * g, -(repeats**3) * slope


_SERIES_BELOW = 0.05
_SERIES = np.array([(-1) ** n * (n - 1) / math.factorial(n) for n in range(8, 1, -1)])
"""Of g, highest power first; the next term is below 1e-13."""


_MOST_EXCESS = 50.0
"""Log of N / U_N."""


class Rows(NamedTuple):
    """Logs of the data [n], sizes and tokens about their means."""

    size: Floats
    unique: Floats
    """Tokens seen at least once."""
    repeats: Floats
    """R_D"""
    loss: Floats


class _Terms(NamedTuple):
    """Logs of A N'^-alpha, B D'^-beta and E with their derivatives over theta."""

    logs: tuple[Floats, Floats, Floats]
    """[S, n], [S, n], [S, 1]"""
    size_slopes: Floats
    """[S, n, k]"""
    token_slopes: Floats
    """[S, n, k]"""
    effective_size: Floats
    """Slopes of log N' [S, n, k]"""
    effective_tokens: tuple[Floats, Floats]
    """First and second derivative of log D' over x_D [S, n]."""


def log_loss(rows: Rows, theta: Floats) -> Floats:
    """[S, n]; NaN or infinite where theta is out of reach."""
    log_a, alpha, log_b, beta, log_e, x_d, _ = (theta[:, [index]] for index in range(NUM_UNKNOWNS))
    with np.errstate(all="ignore"):
        size, _ = _effective_size(rows, theta, slopes=False)
        tokens = rows.unique + np.log1p(decayed(rows.repeats, x_d))
        return np.log(np.exp(log_a - alpha * size) + np.exp(log_b - beta * tokens) + np.exp(log_e))


def _effective_size(rows: Rows, theta: Floats, *, slopes: bool) -> tuple[Floats, Floats | None]:
    """Log N' [S, n] and its slopes over theta [S, n, k].

    For U tokens the optimum is alpha A N^-alpha = beta B U^-beta, so log N = (log(alpha A / (beta B)) + beta log U) /
    alpha, about the means as well.
    """
    log_a, alpha, log_b, beta, _, _, x_n = (theta[:, [index]] for index in range(NUM_UNKNOWNS))
    optimal = (np.log(alpha / beta) + log_a - log_b + beta * rows.unique) / alpha
    # Further below, nothing depends on where it lies, and the excess would overflow.
    lowest = rows.size - _MOST_EXCESS
    excess = (rows.size > optimal) & (optimal > lowest)
    optimal = np.maximum(optimal, lowest)
    within = np.minimum(optimal, rows.size)
    repeats = np.expm1(rows.size - within)
    value = decayed(repeats, x_n)
    if not slopes:
        return within + np.log1p(value), None
    gradient = np.zeros((*value.shape, NUM_UNKNOWNS))
    # Of log N' over log U_N: one for itself, the rest because fewer parameters are then in excess.
    through = np.where(excess, 1.0 - np.exp(-repeats * x_n) * (1.0 + repeats) / (1.0 + value), 0.0)
    gradient[..., 0] = through / alpha
    gradient[..., 1] = through * (1.0 / alpha - optimal) / alpha
    gradient[..., 2] = -through / alpha
    gradient[..., 3] = through * (rows.unique - 1.0 / beta) / alpha
    gradient[..., 6] = decayed_slopes(repeats, x_n)[0] / (1.0 + value)
    return within + np.log1p(value), gradient


def _terms(rows: Rows, theta: Floats) -> _Terms:
    log_a, alpha, log_b, beta, log_e, x_d, _ = (theta[:, [index]] for index in range(NUM_UNKNOWNS))
    size, effective_size = _effective_size(rows, theta, slopes=True)
    assert effective_size is not None
    value = decayed(rows.repeats, x_d)
    tokens = rows.unique + np.log1p(value)
    first, second = (part / (1.0 + value) for part in decayed_slopes(rows.repeats, x_d))
    second = second - first**2
    size_slopes = -alpha[..., None] * effective_size
    size_slopes[..., 0] += 1.0
    size_slopes[..., 1] -= size
    token_slopes = np.zeros((*tokens.shape, NUM_UNKNOWNS))
    token_slopes[..., 2], token_slopes[..., 3], token_slopes[..., 5] = 1.0, -tokens, -beta * first
    logs = (log_a - alpha * size, log_b - beta * tokens, log_e)
    return _Terms(logs, size_slopes, token_slopes, effective_size, (first, second))


def log_slopes(rows: Rows, theta: Floats) -> tuple[Floats, Floats]:
    """The log loss [S, n] and its gradient [S, n, k] over theta."""
    log_total, _, slopes, _ = _slopes(rows, theta)
    return log_total, slopes


def _slopes(rows: Rows, theta: Floats) -> tuple[Floats, Floats, Floats, _Terms]:
    """Log loss, shares of its three terms [3, S, n], gradient, and the terms."""
    terms = _terms(rows, theta)
    shares = np.exp(np.stack(np.broadcast_arrays(*terms.logs)))
    total = shares.sum(0)
    shares = shares / total
    slopes = shares[0][..., None] * terms.size_slopes + shares[1][..., None] * terms.token_slopes
    slopes[..., 4] += shares[2]
    return np.log(total), shares, slopes, terms


def huber_problem(rows: Rows, weights: Floats, losses: Floats, delta: float, *, excess: bool) -> Problem:
    """Sum of weights [S, n] times Huber's loss of residuals from log losses [S, n], for `newton.descend`.

    x_N moves only with `excess`. The Hessian is exact but for the second derivatives of log N', which matter only to
    the speed.
    """

    def objective(theta: Floats, index: np.ndarray) -> Floats:
        with np.errstate(all="ignore"):
            size = np.abs(log_loss(rows, theta) - losses[index])
            inner = np.minimum(size, delta)
            total = (weights[index] * inner * (size - inner / 2)).sum(-1)
        return np.where(np.isfinite(total), total, math.inf)

    def derivatives(theta: Floats, index: np.ndarray) -> tuple[Floats, Floats]:
        log_total, shares, slopes, terms = _slopes(rows, theta)
        residual = log_total - losses[index]
        pull = weights[index] * np.clip(residual, -delta, delta)
        stiffness = weights[index] * (np.abs(residual) <= delta)
        hessian = _gram(slopes, stiffness - pull) + _curvature(terms, pull * shares, theta[:, 3])
        return np.einsum("sn,snk->sk", pull, slopes), hessian

    lower = np.array([-np.inf, LEAST_EXPONENT, -np.inf, LEAST_EXPONENT, -np.inf, 0.0, 0.0])
    return Problem(objective, derivatives, lower, np.array([True] * 6 + [excess]))


def _gram(slopes: Floats, weights: Floats) -> Floats:
    return slopes.swapaxes(1, 2) @ (weights[..., None] * slopes)


def _curvature(terms: _Terms, pulls: Floats, beta: Floats) -> Floats:
    """Sum over rows of pull times (second derivatives of the loss) / loss; pulls [3, S, n] by term."""
    curvature = _gram(terms.size_slopes, pulls[0]) + _gram(terms.token_slopes, pulls[1])
    curvature[:, 4, 4] += pulls[2].sum(-1)
    cross = -np.einsum("sn,snk->sk", pulls[0], terms.effective_size)
    curvature[:, 1, :] += cross
    curvature[:, :, 1] += cross
    first, second = terms.effective_tokens
    cross = -(pulls[1] * first).sum(-1)
    curvature[:, 3, 5] += cross
    curvature[:, 5, 3] += cross
    curvature[:, 5, 5] -= beta * (pulls[1] * second).sum(-1)
    return curvature
