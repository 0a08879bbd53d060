"""Cells of tuned runs: the best batch for a target loss, the best learning rate for a batch, as vertices of parabolas.

Rows of one size, batch and learning rate are one curve. Legend: K levels of the loss or of tokens, n settings.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from noiselaw.laws.forms import Floats, fit_parabolas
from noiselaw.laws.lawfits import vertex_flags
from noiselaw.laws.readings import Trajectory, gather_levels, trajectory_of
from noiselaw.laws.table import RunTable

MIN_POINTS = 3
"""Of a parabola."""
REACHED_BY = 4
"""Batch sizes that should come down to a default target loss."""


@dataclass(frozen=True, slots=True)
class BatchCell:
    """Tokens to one target loss against batch size, at one model size."""

    params: float
    flops_per_token: float
    target_loss: float
    batch_tokens: float
    """B*, the vertex; where there is no minimum, the best batch tried."""
    tokens: float
    """D* there."""
    batches: tuple[float, ...]
    """Tried, rising."""
    tokens_to_target: tuple[float, ...]
    """Of each batch at its best learning rate."""
    flags: tuple[str, ...]
    kept: bool
    """Whether it carries the law: convex, with the vertex among the batches tried."""
    settings: tuple[int, ...] = ()
    """Numbers of the settings that the batches stand for."""
    slopes: tuple[float, ...] = ()
    """Of log tokens over the log of the target, by batch: what a run's luck does to its tokens."""


@dataclass(frozen=True, slots=True)
class RateCell:
    """Loss against learning rate, at one model size, batch and number of tokens."""

    params: float
    flops_per_token: float
    batch_tokens: float
    tokens: float
    learning_rate: float
    """eta*, the vertex; where there is no minimum, the best rate tried."""
    loss: float
    learning_rates: tuple[float, ...]
    """Tried, rising."""
    losses: tuple[float, ...]
    flags: tuple[str, ...]
    kept: bool
    settings: tuple[int, ...] = ()
    """Numbers of the settings that the rates stand for."""


class Setting(NamedTuple):
    """One batch size and learning rate at one model size."""

    number: int
    """Among those of all sizes."""
    batch: float
    rate: float
    """NaN where the table has none."""
    curve: Trajectory


def settings_of(rows: RunTable, first: int = 0) -> list[Setting]:
    """The settings of the rows of one size, by batch and then rate, numbered from `first`."""
    assert rows.batch_tokens is not None
    batches = gather_levels(rows.batch_tokens)
    rates = None if rows.learning_rate is None else gather_levels(rows.learning_rate)
    keys = np.stack([batches.level, np.zeros_like(batches.level) if rates is None else rates.level], axis=-1)
    found, index = np.unique(keys, axis=0, return_inverse=True)
    return [
        Setting(
            number=first + label,
            batch=float(batches.values[batch]),
            rate=math.nan if rates is None else float(rates.values[rate]),
            curve=trajectory_of(rows.rows(index.reshape(-1) == label)),
        )
        for label, (batch, rate) in enumerate(found.tolist())
    ]


def batch_cells(settings: Sequence[Setting], targets: Sequence[float] | None, num_targets: int) -> Iterator[BatchCell]:
    """One cell per target loss that at least 3 batches come down to."""
    by_batch = _by_batch(settings)
    levels = np.asarray(_default_targets(by_batch, num_targets) if targets is None else targets, float)
    batches, curve = np.array(list(by_batch)), settings[0].curve
    best = [_best_rate(same, levels) for same in by_batch.values()]
    tokens, slopes = (np.stack([part[index] for part in best], axis=-1) for index in (0, 1))
    numbers = np.stack([part[2] for part in best], axis=-1)
    for target, reached, slope, number in zip(levels.tolist(), tokens, slopes, numbers, strict=True):
        there = np.isfinite(reached)
        if there.sum() >= MIN_POINTS:
            vertex = find_vertex(batches[there], reached[there])
            yield BatchCell(
                params=curve.params,
                flops_per_token=curve.flops_per_token,
                target_loss=float(target),
                batch_tokens=vertex.at,
                tokens=vertex.value,
                batches=tuple(batches[there].tolist()),
                tokens_to_target=tuple(reached[there].tolist()),
                flags=vertex.flags,
                kept=vertex.inside,
                settings=tuple(number[there].tolist()),
                slopes=tuple(slope[there].tolist()),
            )


_NUDGE = 1e-3
"""Of the log of a target, to see how the tokens to it move."""


def _best_rate(same: Sequence[Setting], targets: Floats) -> tuple[Floats, Floats, np.ndarray]:
    """Fewest tokens to each target among the settings of one batch [K], their slopes, and which setting it is.

    A target counts once a curve has come down to it from above: earlier nothing is known.
    """
    nudged = np.concatenate([targets * math.exp(side * _NUDGE) for side in (0.0, 1.0, -1.0)])
    tokens, above, below = np.split(np.stack([one.curve.tokens_at(nudged) for one in same]), 3, axis=-1)
    best = np.argmin(np.where(np.isfinite(tokens), tokens, np.inf), axis=0)
    least, high, low = (np.take_along_axis(part, best[None], axis=0)[0] for part in (tokens, above, below))
    # At the ends of a curve only one side can be read.
    slope = np.where(np.isfinite(high), np.log(high / least), np.log(least / low)) / _NUDGE
    return np.where(np.isfinite(slope), least, np.nan), slope, np.array([one.number for one in same])[best]


def rate_cells(settings: Sequence[Setting], num_levels: int) -> Iterator[RateCell]:
    """One cell per batch and number of tokens at which at least 3 learning rates can be read."""
    levels, losses = _read_levels(settings, num_levels)
    for batch, same in _by_batch(settings).items():
        columns = [index for index, one in enumerate(settings) if one.batch == batch]
        rates, curve = np.array([one.rate for one in same]), same[0].curve
        numbers = np.array([one.number for one in same])
        for tokens, loss in zip(levels, losses[:, columns], strict=True):
            there = np.isfinite(loss)
            if there.sum() >= MIN_POINTS:
                vertex = find_vertex(rates[there], loss[there])
                yield RateCell(
                    params=curve.params,
                    flops_per_token=curve.flops_per_token,
                    batch_tokens=batch,
                    tokens=float(tokens),
                    learning_rate=vertex.at,
                    loss=vertex.value,
                    learning_rates=tuple(rates[there].tolist()),
                    losses=tuple(loss[there].tolist()),
                    flags=vertex.flags,
                    kept=vertex.inside,
                    settings=tuple(numbers[there].tolist()),
                )


class Vertex(NamedTuple):
    """The minimum of a parabola in logs; the lowest point where there is none."""

    at: float
    value: float
    flags: tuple[str, ...]
    inside: bool


def find_vertex(x: Floats, y: Floats) -> Vertex:
    """The minimum of log y as a parabola in log x, for points [n] in order of x."""
    log_x, log_y = np.log(x), np.log(y)
    parabola = fit_parabolas(log_x, log_y)
    usable, at = bool(parabola.c2 > 0), float(parabola.vertex)
    inside = usable and bool(log_x[0] <= at <= log_x[-1])
    flags = vertex_flags(y, usable=usable, inside=inside)
    if not usable:
        lowest = int(np.argmin(y))
        return Vertex(float(x[lowest]), float(y[lowest]), flags, inside)
    return Vertex(math.exp(at), math.exp(float(parabola.at(at))), flags, inside)


def _by_batch(settings: Sequence[Setting]) -> dict[float, list[Setting]]:
    grouped: dict[float, list[Setting]] = {}
    for one in settings:
        grouped.setdefault(one.batch, []).append(one)
    return grouped


def _default_targets(by_batch: dict[float, list[Setting]], num_targets: int) -> Floats:
    """Quantiles of the losses that enough batches come down to."""
    losses = np.concatenate([one.curve.loss for same in by_batch.values() for one in same])
    first = np.array([max(one.curve.loss[0] for one in same) for same in by_batch.values()])
    best = np.array([min(one.curve.loss.min() for one in same) for same in by_batch.values()])
    reached = ((losses[:, None] < first) & (losses[:, None] >= best)).sum(-1)
    shared = losses[reached >= min(REACHED_BY, max(len(by_batch), MIN_POINTS))]
    return np.quantile(shared, np.linspace(0.1, 0.9, num_targets)) if shared.size else np.empty(0)


def _read_levels(settings: Sequence[Setting], num_levels: int) -> tuple[Floats, Floats]:
    """Token counts [K] and losses [K, n]: rows where batches share them, else read along the curves."""
    tokens = np.concatenate([one.curve.tokens for one in settings])
    owner = np.repeat(np.arange(len(settings)), [one.curve.tokens.size for one in settings])
    levels = gather_levels(tokens)
    losses = np.full((levels.values.size, len(settings)), np.nan)
    losses[levels.level, owner] = np.concatenate([one.curve.loss for one in settings])
    shared = _num_batches(settings, np.isfinite(losses)) >= min(2, len(_by_batch(settings)))
    if shared.any():
        return levels.values[shared], losses[shared]
    grid = np.geomspace(tokens.min(), tokens.max(), _GRID)
    covered = np.stack([one.curve.covers(grid) for one in settings], axis=-1)
    usable = grid[_num_batches(settings, covered) >= min(2, len(_by_batch(settings)))]
    if not usable.size:
        return np.empty(0), np.empty((0, len(settings)))
    chosen = np.geomspace(usable[0], usable[-1], num_levels)
    return chosen, np.stack([one.curve.loss_at(chosen) for one in settings], axis=-1)


_GRID = 200


def _num_batches(settings: Sequence[Setting], readable: np.ndarray) -> np.ndarray:
    """[K]: batches with at least 3 learning rates readable, of [K, n]."""
    batches = np.array([one.batch for one in settings])
    return sum(
        (readable[:, batches == batch].sum(-1) >= MIN_POINTS for batch in np.unique(batches)),
        np.zeros(len(readable), dtype=int),
    )
