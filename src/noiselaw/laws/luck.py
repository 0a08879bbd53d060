"""How much of what a fit misses is the luck of whole runs, and how much the noise of single rows.

y = fit + u[run] + e[row], both normal. What least squares leaves is M (Z u + e) with M = I - Q Q', Q an orthonormal
basis of the fit's slopes and Z the rows of each run, so two sums of squares tell the two variances (Henderson's third
method):

    r'r         expects  var(u) tr(B)          + var(e) tr(M)              B = Z' M Z
    r' P r      expects  var(u) tr(B N^-1 B)   + var(e) tr(P M)            P = Z N^-1 Z', N rows of every run

Where every row is its own run there is luck only, and var(u) = r'r / (n - k). Legend: n rows, R runs, k unknowns,
S draws.
"""

import math
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from noiselaw.laws.bootstrap import LEVEL, run_weights, student_widening
from noiselaw.laws.forms import Floats

MANY_RUNS = 20
"""From so many runs on they are weighted at random; of fewer, too few would be left in a draw."""


@dataclass(frozen=True, slots=True)
class Luck:
    """Standard deviations of log losses, and how well they are known."""

    between_runs: float
    run_freedom: float
    """Degrees of freedom of the luck of runs (Satterthwaite), not whole."""
    within_runs: float
    row_freedom: float

    @property
    def tells_runs(self) -> bool:
        """Whether there are runs enough to tell how they differ."""
        return self.run_freedom >= 1 - 1e-9

    def draw(self, generator: np.random.Generator, num_draws: int, run: np.ndarray) -> Floats:
        """Random shifts [S, n] of rows that belong to `run` [n]: Student's t, because the deviations are estimates."""
        num_runs = int(run.max()) + 1
        shifts = _deviations(generator, self.between_runs, self.run_freedom, num_draws)
        drawn = (shifts * generator.standard_normal((num_draws, num_runs)))[:, run]
        if self.within_runs > 0:
            noise = _deviations(generator, self.within_runs, self.row_freedom, num_draws)
            drawn = drawn + noise * generator.standard_normal((num_draws, run.size))
        return drawn


def split_luck(residuals: Floats, slopes: Floats, run: np.ndarray) -> Luck:
    """Luck from log residuals [n] of a fit with slopes [k, n] over its unknowns, rows belonging to `run` [n].

    Residuals of another fit than least squares are larger; to first order its own are what the slopes cannot explain.
    """
    basis = _orthonormal(slopes)
    residuals = residuals - basis @ (basis.T @ residuals)
    counts = np.bincount(run).astype(float)
    by_run = np.zeros((counts.size, basis.shape[-1]))
    np.add.at(by_run, run, basis)
    spare_rows = run.size - basis.shape[-1]
    free = (np.diag(counts) - by_run @ by_run.T) / np.sqrt(counts[:, None] * counts)
    whole, squared = float((np.diag(free) * counts).sum()), float((residuals**2).sum())
    spare_runs = float(np.trace(free))
    freedom = spare_runs**2 / max(float((free**2).sum()), 1e-300)
    if counts.size == run.size:
        return Luck(_root(squared, whole), freedom, 0.0, 0.0)
    weighted = float((np.bincount(run, residuals) ** 2 / counts).sum())
    # Of B N^-1 B, in the scaling of `free`.
    twice = float(((free @ free).diagonal() * counts).sum())
    between, within = np.linalg.lstsq(
        np.array([[whole, spare_rows], [twice, spare_runs]]), np.array([squared, weighted]), rcond=None
    )[0]
    if within <= 0:
        return Luck(_root(squared, whole), freedom, 0.0, 0.0)
    if between <= 0:
        return Luck(0.0, freedom, _root(squared, spare_rows), spare_rows)
    return Luck(math.sqrt(between), freedom, math.sqrt(within), max(spare_rows - freedom, 1.0))


class Redrawn(NamedTuple):
    """Tables to fit again, rows by rows: other weights, or other losses."""

    weights: Floats
    """[S, n]"""
    log_loss: Floats
    """[S, n]"""
    widening: float
    """By which refits are to be pushed apart about the estimate."""

    def widen(self, name: str, draws: Floats, estimate: float) -> Floats:
        """Draws [S] of a parameter pushed apart: scales A and B in logs, what cannot be negative no further than 0."""
        if name in SCALES:
            return estimate * (draws / estimate) ** self.widening
        moved = estimate + self.widening * (draws - estimate)
        return np.maximum(moved, 0.0) if name in BOUNDED else moved


SCALES = ("A", "B")
BOUNDED = ("E", "inverse_R_D", "inverse_R_N")
"""Parameters of loss surfaces that cannot be negative."""


def redraw(
    log_loss: Floats, slopes: Floats, residuals: Floats, run: np.ndarray, *, delta: float, num_draws: int, seed: int
) -> Redrawn | None:
    """Draws of a table with log losses [n] and log residuals [n] of a Huber fit with slopes [k, n] over its unknowns.

    Many runs are weighted at random, whole; few keep their places and get new luck about the fit. None where even that
    cannot be told. Weights: residuals are smaller than the errors were, which Student's t makes up for; a fit by signs
    (most residuals beyond `delta`) shrinks nothing. Tests measure that the intervals hold 95 %.
    """
    generator, num_runs, every = np.random.default_rng(seed), int(run.max()) + 1, (num_draws, run.size)
    if num_runs >= MANY_RUNS:
        by_signs = float((np.abs(residuals) <= delta).mean()) < 0.5
        weights = run_weights(generator, num_draws, num_runs, smooth=by_signs)[:, run]
        widening = 1.0 if by_signs else student_widening(LEVEL, num_runs - len(slopes))
        return Redrawn(weights, np.broadcast_to(log_loss, every), widening)
    luck = split_luck(residuals, slopes, run)
    if not luck.tells_runs:
        return None
    return Redrawn(np.ones(every), log_loss - residuals + luck.draw(generator, num_draws, run), 1.0)


def _orthonormal(slopes: Floats) -> Floats:
    """A basis [n, k] of the space of the slopes, without directions that only rounding tells apart."""
    left, values, _ = np.linalg.svd(slopes.T, full_matrices=False)
    return left[:, values > 1e-9 * values[0]]


def _root(squares: float, freedom: float) -> float:
    return math.sqrt(squares / freedom) if freedom > 1e-9 else 0.0


def _deviations(generator: np.random.Generator, deviation: float, freedom: float, num_draws: int) -> Floats:
    """Draws [S, 1] of a deviation that was estimated with so many degrees of freedom."""
    if deviation == 0:
        return np.zeros((num_draws, 1))
    return deviation * np.sqrt(freedom / generator.chisquare(freedom, num_draws))[:, None]
