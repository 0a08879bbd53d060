"""Draws for intervals. What is resampled is what was drawn at random: runs and cells, never the rows of one run.

Two ways, by what the table holds. *Optima* of a dense table of tuned cells are resampled with replacement, as the paper
does (spec section 7, step 4). A study of a few runs cannot be resampled that way: four to six sizes per parabola drawn
with replacement leave two or three distinct ones, and refits weighted at random shrink the spread by the leverage of
each size (more than one half here). There the whole curve of a run is moved by one random factor instead, with the
scatter that the residuals of the parabolas show, and everything is fitted again: all budgets that were read off a run
share its fate, and the few degrees of freedom of that scatter are paid for (Student's t, not normal).
Legend: S draws, R runs, K optima.
"""

import math
from statistics import NormalDist

import numpy as np
from numpy.typing import ArrayLike

from noiselaw.laws.forms import Floats, Lines

LEVEL = 0.95
"""Of every interval."""
ROW_DRAWS = 240_000
"""Rows of a table refitted by default, all draws and groups together: about half a second."""
FEWEST_DRAWS, MOST_DRAWS = 200, 1000


def default_draws(num_rows: int) -> int:
    """Draws of methods that descend again for each."""
    return min(max(ROW_DRAWS // num_rows, FEWEST_DRAWS), MOST_DRAWS)


def resample_counts(generator: np.random.Generator, num_draws: int, num_points: int) -> Floats:
    """How often each point is drawn in a resample with replacement: weights [S, K] for an exact weighted refit."""
    return generator.multinomial(num_points, np.full(num_points, 1.0 / num_points), num_draws).astype(float)


def run_weights(generator: np.random.Generator, num_draws: int, num_runs: int, *, smooth: bool) -> Floats:
    """Random weights [S, R] of mean and variance one: how often each run is drawn, or (`smooth`) exponential ones.

    Exponential weights (the Bayesian bootstrap, Rubin 1981) leave no run out. A fit by signs of residuals (Huber's loss
    far beyond its threshold, absolute values) depends on the few points next to it; without some of them it jumps, and
    counts would overstate its spread: by 9 % at 48 points, by 27 % at 24.
    """
    if not smooth:
        return resample_counts(generator, num_draws, num_runs)
    weights = generator.standard_exponential((num_draws, num_runs))
    return weights / weights.mean(-1, keepdims=True)


def resample_lines(x: ArrayLike, y: ArrayLike, counts: Floats) -> Lines:
    """Least-squares lines through resamples: the exact fit to y [..., K] over x [K] with counts [S, K] as weights.

    All resamples and all y at once: about the middles of x and y the five sums of a line are two matrix products. Lines
    are [..., S]; NaN where a resample holds fewer than two distinct x.
    """
    x, y = np.asarray(x, float), np.asarray(y, float)
    x_middle, y_middle = x.mean(), y.mean(-1, keepdims=True)
    u, v = x - x_middle, y - y_middle
    total, first, second = np.stack([np.ones_like(u), u, u**2]) @ counts.T
    sum_y, sum_xy = v @ counts.T, (u * v) @ counts.T
    spread = second - first**2 / total
    # A resample of one x alone leaves rounding noise here.
    spread = np.where(spread > 1e-12 * second, spread, np.nan)
    slope = (sum_xy - first * sum_y / total) / spread
    return Lines((sum_y - slope * first) / total + y_middle - slope * x_middle, slope)


def run_effects(generator: np.random.Generator, num_draws: int, num_runs: int, scatter: float) -> Floats:
    """Random shifts [S, R] of the log loss of each run, one for its whole curve: normal with deviation `scatter`."""
    return scatter * generator.standard_normal((num_draws, num_runs))


def student_quantile(level: float, degrees_of_freedom: float) -> float:
    """Half width, in standard errors, of the central interval of that level; infinite degrees of freedom are normal.

    Degrees of freedom are whole, so the probability is a finite sum and bisection inverts it: scipy's special functions
    would take longer to import than everything here takes to run.
    """
    if math.isinf(degrees_of_freedom):
        return NormalDist().inv_cdf(0.5 + level / 2)
    low, high = 0.0, math.pi / 2
    for _ in range(100):
        middle = (low + high) / 2
        low, high = (middle, high) if _student_mass(middle, int(degrees_of_freedom)) < level else (low, middle)
    return math.sqrt(degrees_of_freedom) * math.tan(low)


def _student_mass(angle: float, degrees_of_freedom: int) -> float:
    """P(|t| < sqrt(dof) tan(angle)) for Student's t (Abramowitz and Stegun 26.7.3, 26.7.4)."""
    odd = degrees_of_freedom % 2
    cosine, term, total = math.cos(angle), 1.0, 0.0
    for power in range(odd, degrees_of_freedom - 1, 2):
        term = term * cosine**2 * (power - 1) / power if power > 1 else cosine**odd
        total += term
    mass = math.sin(angle) * total
    return (angle + mass) * 2 / math.pi if odd else mass


def student_widening(level: float, degrees_of_freedom: float) -> float:
    """By how much Student's central interval of that level is wider than the normal one."""
    return student_quantile(level, degrees_of_freedom) / student_quantile(level, math.inf)


def percentile_interval(
    draws: Floats, estimate: float = math.nan, level: float = LEVEL, degrees_of_freedom: float = math.inf
) -> tuple[float, float]:
    """The central interval that holds `level` of the draws; with degrees of freedom widened about the estimate, as
    Student's t is wider than the normal distribution.

    NaN draws (refits without a minimum) are left out.
    """
    # Of S draws and one more, each of S + 1 ranks is as likely: Weibull's quantiles hold `level` with few draws, too.
    low, high = np.nanquantile(draws, [0.5 - level / 2, 0.5 + level / 2], method="weibull")
    if math.isinf(degrees_of_freedom):
        return float(low), float(high)
    widening = student_widening(level, degrees_of_freedom)
    return estimate + widening * (float(low) - estimate), estimate + widening * (float(high) - estimate)
