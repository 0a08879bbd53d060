"""The best batch for a number of tokens and the best learning rate for a batch, read off parabolas as the paper does.

Batch: per cell (size, target loss) a parabola of log tokens-to-target against log B; its vertex is B* at D* tokens, and
B* = A D^a over cells. Learning rate: per cell (size, B, D) a parabola of log loss against log eta gives eta*; per
(size, D) a line of log eta* over log B is read at B*(D), and eta* = A B^a over those readings (spec section 7, item 6).
Legend: S draws, n cells or readings.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from noiselaw.laws.bootstrap import resample_counts
from noiselaw.laws.forms import Floats, Lines, fit_lines
from noiselaw.laws.lawfits import LawFit, flat_record, law_fits, law_records, lost_draws
from noiselaw.laws.readings import label_sizes
from noiselaw.laws.table import RunTable
from noiselaw.laws.tuning import BatchCell, RateCell, batch_cells, rate_cells, settings_of

MIN_CELLS = 2


@dataclass(frozen=True, slots=True)
class RateReading:
    """The best learning rate at the best batch, for one model size and number of tokens."""

    params: float
    flops_per_token: float
    tokens: float
    batch_tokens: float
    """B*(D) by the batch law."""
    learning_rate: float
    intercept: float
    slope: float
    """log eta* = intercept + slope * log B over the batches tried at this size and D, natural logs."""


@dataclass(frozen=True, slots=True)
class HyperparametersFit:
    """Everything fitted for one group."""

    group: str
    laws: Mapping[str, LawFit]
    """batch_tokens over tokens and learning_rate over batch_tokens, as far as the cells carry them."""
    cells: tuple[BatchCell, ...]
    rate_cells: tuple[RateCell, ...]
    readings: tuple[RateReading, ...]
    flags: tuple[str, ...]

    def record(self) -> dict[str, Any]:
        """Plain JSON: "laws", "flags", and "cells", "rate_cells", "readings", each a list of objects."""
        return {
            "laws": law_records(self.laws),
            "flags": list(self.flags),
            "cells": [flat_record(cell) for cell in self.cells],
            "rate_cells": [flat_record(cell) for cell in self.rate_cells],
            "readings": [flat_record(reading) for reading in self.readings],
        }


def fit_hyperparameters(
    table: RunTable,
    *,
    targets: Sequence[float] | None = None,
    num_targets: int = 5,
    num_draws: int = 10_000,
    seed: int = 0,
) -> dict[str, HyperparametersFit]:
    """B* = A D^a and eta* = A B^a for every group, with 95 % intervals of the exponents from a bootstrap over cells.

    Rows of one size, batch and learning rate are one curve, read between its rows. `targets` are losses; by default
    each size has `num_targets` of its own, quantiles of the losses that at least 4 of its batches (3 if there are no
    more) come down to. D for the learning rate are the token counts that rows share, or else `num_targets` log-spaced
    ones along the curves. Only vertices among the values tried carry laws. Without a learning rate column there is only
    the batch law. Rows after a cooldown are left out where the table has others.

    Raises ValueError without a batch column, or for targets that are not positive and finite.
    """
    if table.batch_tokens is None:
        raise ValueError("the table has no batch column; name the one that holds tokens (or sequences) per batch")
    if targets is not None and not all(math.isfinite(target) and target > 0 for target in targets):
        raise ValueError(f"targets {list(targets)}: give losses in nats per token")
    generator = np.random.default_rng(seed)
    return {
        group: _fit_group(group, rows, targets, num_targets, _Bootstrap(generator, num_draws))
        for group, rows in table.groups()
    }


@dataclass(frozen=True, slots=True)
class _Bootstrap:
    generator: np.random.Generator
    num_draws: int

    def counts(self, num_cells: int) -> Floats:
        return resample_counts(self.generator, self.num_draws, num_cells)


def _fit_group(
    group: str, rows: RunTable, targets: Sequence[float] | None, num_targets: int, bootstrap: _Bootstrap
) -> HyperparametersFit:
    rows, flags = _without_cooldown(rows)
    size = label_sizes(rows)
    sizes = [settings_of(rows.rows(size == label)) for label in range(size.max() + 1)]
    cells = [cell for settings in sizes for cell in batch_cells(settings, targets, num_targets)]
    tried = [] if rows.learning_rate is None else sizes
    rates = [cell for settings in tried for cell in rate_cells(settings, num_targets)]
    batch_law = _fit_batch_law(cells, bootstrap)
    flags += _cell_flags("batch", cells)
    readings: list[RateReading] = []
    laws: dict[str, LawFit] = {}
    if batch_law is None:
        flags.append("no laws: fewer than 2 batch cells have an optimum inside")
    else:
        laws |= law_fits({"batch_tokens": batch_law.estimate}, {"batch_tokens": batch_law.draws})
        flags += lost_draws({"batch_tokens": batch_law.draws})
        readings = list(_read_rates(rates, batch_law))
    if rows.learning_rate is not None:
        rate_law = _fit_rate_law(readings, batch_law, bootstrap)
        flags += _cell_flags("learning rate", rates)
        if rate_law is None:
            flags.append("no learning rate law: eta* can be read at B* for fewer than 2 sizes and token counts")
        else:
            laws |= law_fits({"learning_rate": rate_law.estimate}, {"learning_rate": rate_law.draws})
            flags += lost_draws({"learning_rate": rate_law.draws})
    return HyperparametersFit(group, laws, tuple(cells), tuple(rates), tuple(readings), tuple(flags))


@dataclass(frozen=True, slots=True, eq=False)
class _Law:
    """(log coefficient, exponent) [2] and draws of it [S, 2]."""

    estimate: Floats
    draws: Floats

    def at(self, log_x: Floats) -> tuple[Floats, Floats]:
        """Log values [n] and their draws [S, n]."""
        return Lines(*self.estimate).at(log_x), Lines(*self.draws.T[..., None]).at(log_x)


def _fit_batch_law(cells: Sequence[BatchCell], bootstrap: _Bootstrap) -> _Law | None:
    kept = [cell for cell in cells if cell.kept]
    if len(kept) < MIN_CELLS:
        return None
    x, y = np.log([[cell.tokens, cell.batch_tokens] for cell in kept]).T
    return _Law(*(np.stack(fit_lines(x, y, weights), axis=-1) for weights in (1.0, bootstrap.counts(len(kept)))))


def _read_rates(cells: Sequence[RateCell], batch_law: _Law) -> Iterator[RateReading]:
    """eta* at B*(D), where B* lies among the batches that have an eta* at that size and D."""
    by_level: dict[tuple[float, float], list[RateCell]] = {}
    for cell in cells:
        if cell.kept:
            by_level.setdefault((cell.flops_per_token, cell.tokens), []).append(cell)
    for (flops_per_token, tokens), same in by_level.items():
        log_batch, log_rate = np.log([[cell.batch_tokens, cell.learning_rate] for cell in same]).T
        best = float(batch_law.at(np.log([tokens]))[0][0])
        if log_batch.min() <= best <= log_batch.max() and len(same) > 1:
            line = fit_lines(log_batch, log_rate)
            yield RateReading(
                params=same[0].params,
                flops_per_token=flops_per_token,
                tokens=tokens,
                batch_tokens=math.exp(best),
                learning_rate=math.exp(float(line.at(best))),
                intercept=float(line.intercept),
                slope=float(line.slope),
            )


def _fit_rate_law(readings: Sequence[RateReading], batch_law: _Law | None, bootstrap: _Bootstrap) -> _Law | None:
    """Every draw reads eta* at its own B*(D): the doubt about the batch law is carried on."""
    if batch_law is None or len({reading.tokens for reading in readings}) < MIN_CELLS:
        return None
    best, drawn = batch_law.at(np.log([reading.tokens for reading in readings]))
    lines = Lines(*np.array([[reading.intercept, reading.slope] for reading in readings]).T)
    counts = bootstrap.counts(len(readings))
    return _Law(
        np.stack(fit_lines(best, lines.at(best)), axis=-1),
        np.stack(fit_lines(drawn, lines.at(drawn), counts), axis=-1),
    )


def _without_cooldown(rows: RunTable) -> tuple[RunTable, list[str]]:
    if rows.cooldown is None or rows.cooldown.all() or not rows.cooldown.any():
        return rows, []
    return rows.rows(~rows.cooldown), [f"{int(rows.cooldown.sum())} rows after a cooldown left out"]


def _cell_flags(what: str, cells: Sequence[BatchCell] | Sequence[RateCell]) -> list[str]:
    kept = sum(cell.kept for cell in cells)
    raised = {
        f"{len(cells) - kept} of {len(cells)} {what} cells left out: no minimum among the values tried": kept
        < len(cells),
        f"{what} law carried by {kept} cells only": 0 < kept < 4,
    }
    return [flag for flag, is_raised in raised.items() if is_raised]
