"""Vertices of the parabolas at every budget, for one table or for thousands of resampled ones at once.

At one budget C the log loss of the sizes is a parabola in log M (and, separately, in log P); its vertex is the optimum.
Since D = C / M, the parabola in log D is the mirror image of that in log M, with the same minimum: D* = C / M* exactly.
Legend: K budgets, R runs; leading axes of draws are written [...].
"""

import math
from collections.abc import Iterable
from dataclasses import replace
from typing import Literal, NamedTuple

import numpy as np

from noiselaw.laws.bootstrap import resample_lines
from noiselaw.laws.curves import IsoflopTable
from noiselaw.laws.forms import Floats, Lines, Parabolas, fit_lines, fit_parabolas, shifted_parabolas

Keep = Literal["inside", "all"]
"""Which optima carry the laws: those inside the sampled sizes, or all that have a minimum (as the paper does)."""

_FAR = math.log(10.0)
"""A vertex further than this factor from every sampled size is no minimum but the noise of a straight line."""


class Optima(NamedTuple):
    """Natural logs of M*, P*, L* at the vertices [..., K]."""

    flops_per_token: Floats
    params: Floats
    loss: Floats
    convex: np.ndarray
    usable: np.ndarray
    """Convex, with a vertex near the sampled sizes."""
    inside: np.ndarray
    """Usable, with a vertex between the smallest and the largest size that was read at the budget."""

    def carrying(self, keep: Keep) -> np.ndarray:
        return self.inside if keep == "inside" else self.usable


class OptimalLaws(NamedTuple):
    """Lines of log L*, log P*, log M* over log C, one per leading index."""

    loss: Lines
    params: Lines
    flops_per_token: Lines

    def logs(self) -> dict[str, Floats]:
        """(log coefficient, exponent) [..., 2] by quantity. D* = C / M*: coefficient 1 / A and exponent 1 - a."""
        logs = {name: np.stack(lines, axis=-1) for name, lines in self._asdict().items()}
        return {**logs, "tokens": np.array([0.0, 1.0]) - logs["flops_per_token"]}


def find_optima(table: IsoflopTable, log_loss: Floats) -> Optima:
    """Optima for log losses [..., K, R] of the table's runs at its budgets; NaN marks a missing reading."""
    log_flops = np.log(table.flops_per_token)
    by_flops, by_params = parabolas(log_flops, log_loss), parabolas(np.log(table.params), log_loss)
    return _vertices(log_flops, np.isfinite(log_loss), by_flops, by_params)


def _vertices(log_flops: Floats, used: np.ndarray, by_flops: Parabolas, by_params: Parabolas) -> Optima:
    """Optima of parabolas [..., K] through the readings that are `used`, [..., K, R] or the same [K, R] for all."""
    low, high = np.where(used, log_flops, math.inf).min(-1), np.where(used, log_flops, -math.inf).max(-1)
    vertex = by_flops.vertex
    with np.errstate(invalid="ignore"):
        convex = (by_flops.c2 > 0) & (by_params.c2 > 0)
        usable = convex & (vertex > low - _FAR) & (vertex < high + _FAR)
        inside = usable & (vertex >= low) & (vertex <= high)
    return Optima(vertex, by_params.vertex, by_flops.at(vertex), convex, usable, inside)


def fit_optimal_laws(log_budgets: Floats, optima: Optima, weights: Floats | np.ndarray) -> OptimalLaws:
    """Power laws through the optima, weighted [..., K]; NaN where fewer than two have weight."""
    return OptimalLaws(
        *(fit_lines(log_budgets, y, weights) for y in (optima.loss, optima.params, optima.flops_per_token))
    )


def resample_optimal_laws(log_budgets: Floats, optima: Optima, kept: np.ndarray, counts: Floats) -> OptimalLaws:
    """Power laws through resamples of the kept optima: counts [S, k] of how often each is drawn."""
    x = log_budgets[kept]
    return OptimalLaws(
        *(resample_lines(x, y[kept], counts) for y in (optima.loss, optima.params, optima.flops_per_token))
    )


def draw_optimal_laws(table: IsoflopTable, shifts: Floats, keep: Keep) -> dict[str, Floats]:
    """(log coefficient, exponent) [S, 2] by quantity, for the table's runs moved by `shifts` [S, runs] of log loss."""
    log_budgets, log_loss = np.log(table.budgets), np.log(table.loss)
    if table.run is None:  # columns are runs: one shift for a whole column
        used, log_flops = np.isfinite(log_loss), np.log(table.flops_per_token)
        by_flops = shifted_parabolas(log_flops, log_loss, used, shifts)
        by_params = shifted_parabolas(np.log(table.params), log_loss, used, shifts)
        drawn = _vertices(log_flops, used, by_flops, by_params)
        return fit_optimal_laws(log_budgets, drawn, drawn.carrying(keep)).logs()
    parts = []
    for some in np.array_split(shifts, max(1, len(shifts) * log_loss.size // _CHUNK)):
        drawn = find_optima(table, log_loss + some[:, table.run])
        parts.append(fit_optimal_laws(log_budgets, drawn, drawn.carrying(keep)).logs())
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


_CHUNK = 2**19
"""Losses of draws held at once."""


def narrow(table: IsoflopTable, window: float | None) -> IsoflopTable:
    """The table with the sizes within a factor `window` of the best at every budget; None keeps all.

    The best is the vertex of the parabola through the sizes near the lowest loss, or the lowest itself where that
    parabola has no minimum among them. Raises ValueError for a window that is not above 1.
    """
    if window is None:
        return table
    if not window > 1:
        raise ValueError(f"window {window}: give a factor above 1, such as 4 for sizes from a quarter to four times")
    log_size, log_loss = np.log(table.cells(table.flops_per_token)), np.log(table.loss)
    missing = np.isnan(log_loss)
    lowest = np.argmin(np.where(missing, math.inf, log_loss), axis=-1)[:, None]
    center = np.take_along_axis(log_size, lowest, axis=-1)
    near = np.abs(log_size - center) <= math.log(window) * (1 + 1e-12)
    optima = find_optima(table, np.where(near, log_loss, math.nan))
    center = np.where(optima.inside[:, None], optima.flops_per_token[:, None], center)
    near = np.abs(log_size - center) <= math.log(window) * (1 + 1e-12)
    return replace(table, loss=np.where(near, table.loss, math.nan))


def parabolas(log_size: Floats, log_loss: Floats) -> Parabolas:
    """One parabola per budget through the readings there are."""
    return fit_parabolas(log_size, log_loss, np.isfinite(log_loss))


def pooled_scatter(tables: Iterable[IsoflopTable]) -> tuple[float | None, int]:
    """Run-to-run standard deviation of the log loss, and its degrees of freedom; None without any.

    From the residuals of the parabolas: at a budget with n sizes n - 3 are free. Budgets of one group that are read off
    the same runs average but add no freedom; budgets of their own runs do, and so do groups.
    """
    variance, freedom = 0.0, 0
    for table in tables:
        log_loss = np.log(table.loss)
        log_size = np.log(table.flops_per_token)
        fitted = parabolas(log_size, log_loss)
        residuals = log_loss - Parabolas(*(part[..., None] for part in fitted)).at(log_size)
        used = np.isfinite(log_loss)
        spare = used.sum(-1) - 3
        free = spare > 0
        if free.any():
            # Runs per reading: 1 over the number of budgets that share a run, 1 where every reading is its own run.
            share = 0.0 if table.run is None else np.unique(table.run[used]).size / used.sum()
            dof = max(int(spare.max()), round(share * float(spare[free].sum())))
            variance += dof * float(np.nansum(residuals[free] ** 2) / spare[free].sum())
            freedom += dof
    return (math.sqrt(variance / freedom), freedom) if freedom else (None, 0)
