"""Anybody's table -> losses of several sizes at common levels of compute or tokens, which parabolas are fitted to.

Levels are those that rows share; where they scatter by a few percent around nominal ones, rows are gathered at clear
gaps; where rows are loss curves of runs, levels are read along them. Of runs that differ in batch or learning rate the
best counts (spec section 7, step 2); other repeats of a size all count. Legend: K levels, R columns, n rows.
"""

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Literal, NamedTuple

import numpy as np

from noiselaw.laws.curves import MIN_CURVE_POINTS, IsoflopTable, LossCurve, tabulate_curves
from noiselaw.laws.forms import Floats
from noiselaw.laws.readings import LEVEL_TOLERANCE, gather_levels, trajectories
from noiselaw.laws.table import RunTable

Along = Literal["flops", "tokens"]
"""What sizes are compared at."""

MIN_SIZES = 3
NUM_LEVELS = 8
"""Read along curves where nobody names any."""
_NEAR = math.log(1.1)
"""Rows of one nominal level lie within this factor from row to row."""
_CLEAR = 3.0
"""Gaps between levels are wider than those inside by this factor at least."""
_CATCH = math.log(1.25)
"""Rows count for a named level within this factor."""
_WORDS = {"flops": "budgets", "tokens": "levels"}
"""What levels are called, also by the option that names them."""


class LevelTable(NamedTuple):
    """Losses of one group at levels (the table's `budgets`), and how they were found."""

    table: IsoflopTable
    notes: tuple[str, ...]


def tabulate_levels(
    table: RunTable, along: Along = "flops", levels: Sequence[float] | None = None
) -> dict[str, LevelTable]:
    """Losses at levels of FLOPs or tokens for every group.

    Without `levels`, rows that share them; else 8 read along the curves of runs, or the budgets of the study that the
    table comes from. Given ones are read along curves, or catch the rows nearest to them. Raises ValueError for levels
    that are not positive, and for a group in which no level has three sizes.
    """
    if levels is not None and not (len(levels) and all(math.isfinite(level) and level > 0 for level in levels)):
        raise ValueError(f"{_WORDS[along]} {list(levels)}: give positive numbers")
    return {group: _tabulate(group, rows, along, levels) for group, rows in table.groups()}


def _tabulate(group: str, rows: RunTable, along: Along, levels: Sequence[float] | None) -> LevelTable:
    named = np.unique(levels) if levels is not None else np.array(rows.budgets if along == "flops" else ())
    has_curves = np.unique(rows.run, return_counts=True)[1].max() >= MIN_CURVE_POINTS
    if named.size and has_curves:
        return _along_curves(group, rows, along, named)
    at = getattr(rows, along)
    index = _nearest(at, named) if named.size else _shared_levels(rows, at)
    if index is not None:
        return _at_rows(group, rows, along, index)
    if has_curves:
        return _along_curves(group, rows, along, _covered_levels(rows, along))
    raise ValueError(
        f"group {group}: no {_WORDS[along]} shared by {MIN_SIZES} sizes or more; name them with --{_WORDS[along]}, or "
        "the runs with --run if the rows are loss curves, or fit a surface instead"
    )


def _nearest(at: Floats, levels: Floats) -> np.ndarray:
    """The level [n] that catches each row; -1 for none."""
    distance = np.abs(np.log(at[:, None] / levels))
    return np.where(distance.min(-1) < _CATCH, distance.argmin(-1), -1)


def _shared_levels(rows: RunTable, at: Floats) -> np.ndarray | None:
    """The level [n] of each row: equal values, or else clusters with clear gaps; None where most rows share none."""
    return next((index for index in (gather_levels(at).level, _clusters(at)) if _share(rows, index) >= 0.5), None)


def _share(rows: RunTable, index: np.ndarray) -> float:
    """How many rows stand at levels of 3 sizes or more."""
    sizes = [np.unique(rows.params[index == level]).size for level in range(index.max() + 1)]
    return float((np.array(sizes)[index] >= MIN_SIZES).mean())


def _clusters(values: Floats) -> np.ndarray:
    """Single linkage in logs, cut where the sorted gaps between neighbours widen most; every row alone if unclear."""
    alone, order = np.arange(values.size), np.argsort(values, kind="stable")
    logs = np.log(values[order])
    gaps = np.diff(logs)
    # Below the tolerance of levels gaps are rounding; a last, wide one stands for a table of a single level.
    ranked = np.append(np.sort(np.maximum(gaps, LEVEL_TOLERANCE)), _CLEAR * _NEAR)
    widening = np.where(ranked[:-1] <= _NEAR, ranked[1:] / ranked[:-1], 0.0)
    if not widening.size or widening.max() < _CLEAR:
        return alone
    label = np.concatenate([[0], np.cumsum(gaps > ranked[int(np.argmax(widening))])])
    ends = np.append(np.flatnonzero(np.diff(label)), label.size - 1)
    starts = np.concatenate([[0], ends[:-1] + 1])
    index = np.empty(values.size, dtype=int)
    index[order] = label
    return index if (logs[ends] - logs[starts]).max() <= _CATCH else alone


def _at_rows(group: str, rows: RunTable, along: Along, index: np.ndarray) -> LevelTable:
    """Rows gathered by level [n], sizes rising, every cell with the luck of its row's run."""
    notes = []
    left_out = int((index < 0).sum())
    if left_out:
        notes.append(f"group {group}: {left_out} rows lie near none of the {_WORDS[along]}")
    if left_out == index.size:
        at = getattr(rows, along)
        raise ValueError(
            f"group {group}: no row lies near the {_WORDS[along]}; its {along} go from {at.min():.4g} to {at.max():.4g}"
        )
    rows, index = rows.rows(index >= 0), index[index >= 0]
    best = _best_settings(rows, index)
    if best.size < rows.loss.size:
        notes.append(f"group {group}: best of several batch sizes and learning rates in {best.size} cells")
        rows, index = rows.rows(best), index[best]
    at = getattr(rows, along)
    index = np.unique(index, return_inverse=True)[1]
    counts = np.bincount(index)
    levels = np.exp(np.bincount(index, np.log(at)) / counts)
    spread = max(float(np.ptp(at[index == level])) / levels[level] for level in range(levels.size))
    if spread > 1e-3:
        notes.append(
            f"group {group}: rows gathered into {levels.size} {_WORDS[along]}, within which they differ by {spread:.2g}"
        )
    order = np.lexsort((rows.flops_per_token, levels[index]))
    rank = np.argsort(np.argsort(levels))
    row = rank[index[order]]
    slot = np.arange(order.size) - np.concatenate([[0], np.cumsum(np.bincount(row))])[row]
    names, luck = np.unique(rows.run, return_inverse=True)
    shape = levels.size, int(counts.max())
    cells = {
        name: np.full(shape, fill) for name, fill in (("params", 1.0), ("flops_per_token", 1.0), ("loss", math.nan))
    }
    for name, column in cells.items():
        column[row, slot] = getattr(rows, name)[order]
    run = np.zeros(shape, dtype=int)
    run[row, slot] = luck[order]
    return LevelTable(
        IsoflopTable(group=group, runs=tuple(names.tolist()), budgets=np.sort(levels), run=run, **cells), tuple(notes)
    )


def _best_settings(rows: RunTable, index: np.ndarray) -> np.ndarray:
    """The rows [k] that count: the lowest of every cell of level and size in which batch or learning rate vary."""
    settings = [column for column in (rows.batch_tokens, rows.learning_rate) if column is not None]
    every = np.arange(rows.loss.size)
    if not settings:
        return every
    cell = np.unique(np.stack([index, gather_levels(rows.params).level]), axis=1, return_inverse=True)[1].reshape(-1)
    varied = np.zeros(cell.max() + 1, dtype=bool)
    for column in settings:
        low, high = np.full(varied.size, math.inf), np.zeros(varied.size)
        np.minimum.at(low, cell, column)
        np.maximum.at(high, cell, column)
        varied |= high > low
    lowest = np.full(varied.size, math.inf)
    np.minimum.at(lowest, cell, rows.loss)
    return every[~varied[cell] | (rows.loss == lowest[cell])]


def _along_curves(group: str, rows: RunTable, along: Along, levels: Floats) -> LevelTable:
    """Every run's smoothed curve read at the levels; of runs of one size that differ in settings, the best."""
    whole = [curve for curve in trajectories(rows) if curve.tokens.size >= MIN_CURVE_POINTS]
    size = np.array([curve.flops_per_token for curve in whole])
    # Where a token counts as one FLOP, budgets are tokens.
    per_token = size if along == "flops" else np.ones_like(size)
    curves = [
        LossCurve(curve.name, group, curve.params, cost, curve.tokens, curve.loss)
        for curve, cost in zip(whole, per_token.tolist(), strict=True)
    ]
    notes = [f"group {group}: {len(curves)} loss curves read at {levels.size} {_WORDS[along]}"]
    table = replace(tabulate_curves(curves, levels.tolist())[group], flops_per_token=size)
    best = _best_columns(table, rows)
    if best is not table:
        notes.append(f"group {group}: best of several batch sizes and learning rates for {best.params.size} sizes")
    return LevelTable(best, tuple(notes))


def _best_columns(table: IsoflopTable, rows: RunTable) -> IsoflopTable:
    """One column per size with the lowest loss at each level, if runs differ in batch or learning rate."""
    first = np.array([int(np.argmax(rows.run == name)) for name in table.runs])
    settings = [column[first] for column in (rows.batch_tokens, rows.learning_rate) if column is not None]
    size = gather_levels(table.params).level
    members = [np.flatnonzero(size == label) for label in range(size.max() + 1)]
    if not any(np.ptp(column[mine]) > 0 for column in settings for mine in members):
        return table
    loss = np.where(np.isfinite(table.loss), table.loss, math.inf)
    run = np.stack([mine[np.argmin(loss[:, mine], axis=-1)] for mine in members], axis=-1)
    lowest = np.take_along_axis(loss, run, axis=-1)
    one = [int(mine[0]) for mine in members]
    return IsoflopTable(
        group=table.group,
        runs=table.runs,
        params=table.params[one],
        flops_per_token=table.flops_per_token[one],
        budgets=table.budgets,
        loss=np.where(np.isfinite(lowest), lowest, math.nan),
        run=run,
    )


def _covered_levels(rows: RunTable, along: Along) -> Floats:
    """Log-spaced over the FLOPs or tokens that three sizes or more cover."""
    size, at = gather_levels(rows.params).level, getattr(rows, along)
    spans = [at[size == label] for label in range(size.max() + 1)]
    if len(spans) >= MIN_SIZES:
        low = sorted(span.min() for span in spans)[MIN_SIZES - 1]
        high = sorted(span.max() for span in spans)[-MIN_SIZES]
        if low < high:
            return np.geomspace(low, high, NUM_LEVELS)
    raise ValueError(
        f"no {along} are covered by the curves of {MIN_SIZES} sizes; train more sizes to common {_WORDS[along]}"
    )
