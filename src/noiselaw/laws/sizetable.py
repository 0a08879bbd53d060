"""The best loss of every size at common levels of compute or tokens: what parabolas over sizes are fitted to.

Levels are those that rows share, or else chosen and read along the runs' curves. Legend: K levels, R sizes, U runs,
n rows.
"""

from collections.abc import Sequence
from typing import Literal, NamedTuple

import numpy as np

from noiselaw.laws.curves import IsoflopTable
from noiselaw.laws.forms import Floats
from noiselaw.laws.readings import gather_levels, label_sizes, trajectories
from noiselaw.laws.table import RunTable

By = Literal["flops", "tokens"]

NUM_LEVELS = 12
"""Levels read along curves where rows of several sizes share none."""
MIN_SIZES = 3


class SizeReadings(NamedTuple):
    """Losses of sizes at levels, and which run each comes from."""

    table: IsoflopTable
    """Its budgets are the levels."""
    runs: tuple[str, ...]
    """[U]"""
    run: np.ndarray
    """[K, R]"""
    left_out: int
    """Levels with fewer than 3 sizes."""


def read_sizes(group: str, rows: RunTable, by: By, levels: Sequence[float] | None = None) -> SizeReadings:
    """Losses [K, R] of one group; of several runs of one size the lowest counts.

    By default at levels where rows of 3 sizes or more stand (to 0.1 %), and where there are none at 12 log-spaced ones,
    smoothed along the curves. Given levels are read along the curves.
    """
    if levels is None:
        readings = _gather_sizes(group, rows, *_read_rows(rows, by))
        if readings.table.budgets.size:
            return readings
    at = _default_levels(rows, by) if levels is None else np.unique(np.asarray(levels, float))
    return _gather_sizes(group, rows, at, _read_curves(rows, by, at))


def _read_rows(rows: RunTable, by: By) -> tuple[Floats, Floats]:
    """Levels [K] at which rows stand and the losses [K, U] there, infinite where a run has none."""
    names, run = np.unique(rows.run, return_inverse=True)
    levels = gather_levels(getattr(rows, by))
    loss = np.full((levels.values.size, names.size), np.inf)
    np.minimum.at(loss, (levels.level, run.reshape(-1)), rows.loss)
    return levels.values, loss


def _read_curves(rows: RunTable, by: By, levels: Floats) -> Floats:
    """Losses [K, U] along the runs' curves, infinite outside them."""
    curves = {curve.name: curve for curve in trajectories(rows)}
    per_token = {name: curve.flops_per_token if by == "flops" else 1.0 for name, curve in curves.items()}
    loss = np.stack([curves[name].loss_at(levels / per_token[name]) for name in np.unique(rows.run).tolist()], axis=-1)
    return np.where(np.isnan(loss), np.inf, loss)


def _default_levels(rows: RunTable, by: By) -> Floats:
    """Log-spaced over the range that three sizes cover."""
    size, along = label_sizes(rows), getattr(rows, by)
    spans = [along[size == label] for label in range(size.max() + 1)]
    if len(spans) < MIN_SIZES:
        return np.empty(0)
    low = sorted(span.min() for span in spans)[MIN_SIZES - 1]
    high = sorted(span.max() for span in spans)[-MIN_SIZES]
    return np.geomspace(low, high, NUM_LEVELS) if low < high else np.empty(0)


def _gather_sizes(group: str, rows: RunTable, levels: Floats, loss: Floats) -> SizeReadings:
    """The best run of every size at every level, of losses [K, U] by run."""
    names, first = np.unique(rows.run, return_index=True)
    size = label_sizes(rows)[first]
    columns = [np.flatnonzero(size == label) for label in np.unique(size)]
    run = np.stack([column[np.argmin(loss[:, column], axis=-1)] for column in columns], axis=-1)
    best = np.take_along_axis(loss, run, axis=-1)
    enough = np.isfinite(best).sum(-1) >= MIN_SIZES
    one_of_each = first[[column[0] for column in columns]]
    table = IsoflopTable(
        group=group,
        runs=tuple(rows.run[one_of_each].tolist()),
        params=rows.params[one_of_each],
        flops_per_token=rows.flops_per_token[one_of_each],
        budgets=levels[enough],
        loss=np.where(np.isfinite(best), best, np.nan)[enough],
    )
    return SizeReadings(table, tuple(names.tolist()), run[enough], int((~enough).sum()))
