"""What the luck of runs does to the laws of batch and learning rate: every run's losses moved, every cell read again.

Cells of one size share its runs, so drawing cells as if each were new would promise too much. Instead all of a run's
losses move by one random factor, as far as the residuals of the parabolas say; tokens to a target follow by the slope
of the run's curve there. Legend: S draws, U settings (runs), n cells, b values tried in a cell.
"""

import math
from collections.abc import Hashable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from noiselaw.laws.forms import Floats, Lines, fit_lines, fit_parabolas
from noiselaw.laws.luck import Luck
from noiselaw.laws.tuning import BatchCell, RateCell


@dataclass(frozen=True, slots=True, eq=False)
class Vertices:
    """Vertices of cells in S draws: logs of the best value and of what it reaches, [S, n]."""

    at: Floats
    value: Floats
    inside: np.ndarray
    """Whether the vertex lies among the values tried."""


def tuning_luck(cells: Sequence[BatchCell], rates: Sequence[RateCell]) -> Luck | None:
    """How the log losses of runs scatter about the parabolas; None where no cell has more than three values.

    Cells that share their runs (targets of one size, token counts of one batch) average, but add no freedom.
    """
    clusters: dict[Hashable, list[tuple[float, int]]] = {}
    for cell in cells:
        _add_spare(clusters, cell.flops_per_token, np.log(cell.batches), np.log(cell.tokens_to_target), cell.slopes)
    for cell in rates:
        key = cell.flops_per_token, cell.batch_tokens
        _add_spare(clusters, key, np.log(cell.learning_rates), np.log(cell.losses), (1.0,))
    freedom = sum(max(spare for _, spare in found) for found in clusters.values())
    if not freedom:
        return None
    squares = sum(
        max(spare for _, spare in found) * sum(square for square, _ in found) / sum(spare for _, spare in found)
        for found in clusters.values()
    )
    return Luck(math.sqrt(squares / freedom), float(freedom), 0.0, 0.0)


def _add_spare(
    clusters: dict[Hashable, list[tuple[float, int]]], key: Hashable, x: Floats, y: Floats, slopes: Sequence[float]
) -> None:
    """The sum of squared residuals of a cell's parabola, as log losses, and its spare values."""
    spare = x.size - 3
    if spare > 0:
        missed = (y - fit_parabolas(x, y).at(x)) / math.sqrt(np.mean(np.square(slopes)))
        clusters.setdefault(key, []).append((float((missed**2).sum()), spare))


def draw_batches(cells: Sequence[BatchCell], shifts: Floats) -> Vertices:
    """Of log batches and log tokens, runs moved by `shifts` [S, U] of log loss."""
    return _stack(
        _vertices(np.log(cell.batches), np.log(cell.tokens_to_target), np.array(cell.slopes), cell.settings, shifts)
        for cell in cells
    )


def draw_rates(cells: Sequence[RateCell], shifts: Floats) -> Vertices:
    """Of log learning rates and log losses."""
    return _stack(
        _vertices(np.log(cell.learning_rates), np.log(cell.losses), np.ones(len(cell.losses)), cell.settings, shifts)
        for cell in cells
    )


def batch_lines(drawn: Vertices) -> Lines:
    """Log B* over log D through the vertices inside, [S]; NaN where fewer than two are."""
    return fit_lines(drawn.value, drawn.at, drawn.inside)


def rate_lines(cells: Sequence[RateCell], drawn: Vertices, batch: Lines) -> Lines:
    """Log eta* over log B, [S]: read at every draw's own B*(D), where that lies among the batches with an eta*."""
    levels: dict[Hashable, list[int]] = {}
    for index, cell in enumerate(cells):
        levels.setdefault((cell.flops_per_token, cell.tokens), []).append(index)
    best, rates, usable = [], [], []
    for same in levels.values():
        log_batch = np.log([cells[index].batch_tokens for index in same])
        inside = drawn.inside[:, same]
        at = batch.at(math.log(cells[same[0]].tokens))
        line = fit_lines(log_batch, drawn.at[:, same], inside)
        low, high = (np.where(inside, log_batch, side * math.inf) for side in (1, -1))
        best.append(at)
        rates.append(line.at(at))
        usable.append((inside.sum(-1) > 1) & (at >= low.min(-1)) & (at <= high.max(-1)))
    x, y, weights = (np.stack(part, axis=-1) for part in (best, rates, usable))
    return fit_lines(x, y, weights)


def _vertices(x: Floats, y: Floats, slopes: Floats, settings: Sequence[int], shifts: Floats) -> Vertices:
    """Of one cell, [S, 1]."""
    parabola = fit_parabolas(x, y + slopes * shifts[:, list(settings)])
    at = parabola.vertex
    with np.errstate(invalid="ignore"):
        inside = (parabola.c2 > 0) & (at >= x[0]) & (at <= x[-1])
    return Vertices(at[:, None], parabola.at(at)[:, None], inside[:, None])


def _stack(cells: Iterable[Vertices]) -> Vertices:
    parts = list(cells)
    return Vertices(
        *(np.concatenate([getattr(part, name) for part in parts], axis=-1) for name in ("at", "value", "inside"))
    )
