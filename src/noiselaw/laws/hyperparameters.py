"""The best batch for a number of tokens and the best learning rate for a batch, read off parabolas as the paper does.

Batch: per cell (size, target loss) a parabola of log tokens-to-target against log B; its vertex is B* at D* tokens, and
B* = A D^a over cells. Learning rate: per cell (size, B, D) a parabola of log loss against log eta gives eta*; per
(size, D) a line of log eta* over log B is read at B*(D), and eta* = A B^a over those readings (spec section 7, item 6).
Legend: S draws, n cells or readings.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import numpy as np

from noiselaw.laws.bootstrap import resample_counts, resample_lines
from noiselaw.laws.forms import Floats, Lines, fit_lines
from noiselaw.laws.lawfits import LawFit, flat_record, law_fits, law_records, lost_draws
from noiselaw.laws.luck import Luck
from noiselaw.laws.readings import label_sizes
from noiselaw.laws.table import RunTable
from noiselaw.laws.tuning import BatchCell, RateCell, Setting, batch_cells, rate_cells, settings_of
from noiselaw.laws.tuningdraws import batch_lines, draw_batches, draw_rates, rate_lines, tuning_luck

MIN_CELLS = 2
Resample = Literal["runs", "cells"]
"""What intervals draw anew: the luck of runs, or cells as if each were new (the paper; too narrow where cells share
runs)."""
HIDDEN = ("settings", "slopes")
"""Of cells: how they hang together, for draws only."""


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
            "cells": [_cell_record(cell) for cell in self.cells],
            "rate_cells": [_cell_record(cell) for cell in self.rate_cells],
            "readings": [flat_record(reading) for reading in self.readings],
        }


def _cell_record(cell: BatchCell | RateCell) -> dict[str, Any]:
    return {name: value for name, value in flat_record(cell).items() if name not in HIDDEN}


def fit_hyperparameters(
    table: RunTable,
    *,
    targets: Sequence[float] | None = None,
    num_targets: int = 5,
    resample: Resample = "runs",
    num_draws: int = 10_000,
    seed: int = 0,
) -> dict[str, HyperparametersFit]:
    """B* = A D^a and eta* = A B^a for every group, with 95 % intervals of the exponents.

    Rows of one size, batch and learning rate are one curve, read between its rows. `targets` are losses; by default
    each size has `num_targets` of its own, quantiles of the losses that at least 4 of its batches (3 if there are no
    more) come down to. D for the learning rate are the token counts that rows share, or else `num_targets` log-spaced
    ones along the curves. Only vertices among the values tried carry laws. Without a learning rate column there is only
    the batch law. Rows after a cooldown are left out where the table has others.

    Intervals of runs are reflected draws, which takes off the side to which luck pushes vertices.

    Raises ValueError without a batch column, or for targets that are not positive and finite.
    """
    if table.batch_tokens is None:
        raise ValueError("the table has no batch column; name the one that holds tokens (or sequences) per batch")
    if targets is not None and not all(math.isfinite(target) and target > 0 for target in targets):
        raise ValueError(f"targets {list(targets)}: give losses in nats per token")
    how = _How(targets, num_targets, resample, num_draws, seed)
    return {group: _fit_group(group, rows, how) for group, rows in table.groups()}


class _How(NamedTuple):
    targets: Sequence[float] | None
    num_targets: int
    resample: Resample
    num_draws: int
    seed: int


def _fit_group(group: str, rows: RunTable, how: _How) -> HyperparametersFit:
    rows, flags = _without_cooldown(rows)
    sizes = _settings_by_size(rows)
    cells = [cell for settings in sizes for cell in batch_cells(settings, how.targets, how.num_targets)]
    tried = [] if rows.learning_rate is None else sizes
    rates = [cell for settings in tried for cell in rate_cells(settings, how.num_targets)]
    batch_law = _fit_batch_law(cells)
    readings = [] if batch_law is None else list(_read_rates(rates, batch_law))
    estimates = {} if batch_law is None else {"batch_tokens": np.stack(batch_law)}
    flags += _cell_flags("batch", cells)
    if batch_law is None:
        flags.append("no laws: fewer than 2 batch cells have an optimum inside")
    if rows.learning_rate is not None:
        flags += _cell_flags("learning rate", rates)
        if len({reading.tokens for reading in readings}) < MIN_CELLS:
            flags.append("no learning rate law: eta* can be read at B* for fewer than 2 sizes and token counts")
        else:
            log_batch, log_rate = np.log([[reading.batch_tokens, reading.learning_rate] for reading in readings]).T
            estimates["learning_rate"] = np.stack(fit_lines(log_batch, log_rate))
    laws: dict[str, LawFit] = {}
    if estimates:
        laws, doubts = _with_intervals(estimates, cells, rates, readings, how)
        flags += doubts
    return HyperparametersFit(group, laws, tuple(cells), tuple(rates), tuple(readings), tuple(flags))


def _settings_by_size(rows: RunTable) -> list[list[Setting]]:
    size, found, first = label_sizes(rows), [], 0
    for label in range(size.max() + 1):
        found.append(settings_of(rows.rows(size == label), first))
        first += len(found[-1])
    return found


def _fit_batch_law(cells: Sequence[BatchCell]) -> Lines | None:
    kept = [cell for cell in cells if cell.kept]
    if len(kept) < MIN_CELLS:
        return None
    return fit_lines(*np.log([[cell.tokens, cell.batch_tokens] for cell in kept]).T)


def _with_intervals(
    estimates: Mapping[str, Floats],
    cells: Sequence[BatchCell],
    rates: Sequence[RateCell],
    readings: Sequence[RateReading],
    how: _How,
) -> tuple[dict[str, LawFit], tuple[str, ...]]:
    """The laws with what draws say of them, and what to doubt."""
    if how.resample == "cells":
        return _by_cells(estimates, cells, readings, how)
    luck = tuning_luck(cells, rates)
    if luck is None:
        return law_fits(estimates, None), ("no interval: no cell has more than 3 values",)
    draws = _draw_luck(estimates, cells, rates, luck, how)
    # Vertices are ratios: luck pushes laws to one side, and a second time in the draws. Reflected, they take it off.
    reflected = {name: 2 * estimate - draws[name] for name, estimate in estimates.items()}
    return law_fits(estimates, reflected), lost_draws(draws)


def _draw_luck(
    estimates: Mapping[str, Floats], cells: Sequence[BatchCell], rates: Sequence[RateCell], luck: Luck, how: _How
) -> dict[str, Floats]:
    """(log coefficient, exponent) [S, 2] by quantity, every cell read again after its runs have moved."""
    settings = np.arange(1 + max(number for cell in (*cells, *rates) for number in cell.settings))
    shifts = luck.draw(np.random.default_rng(how.seed), how.num_draws, settings)
    batch = batch_lines(draw_batches(cells, shifts))
    draws = {"batch_tokens": np.stack(batch, axis=-1)}
    if "learning_rate" in estimates:
        draws["learning_rate"] = np.stack(rate_lines(rates, draw_rates(rates, shifts), batch), axis=-1)
    return draws


def _by_cells(
    estimates: Mapping[str, Floats], cells: Sequence[BatchCell], readings: Sequence[RateReading], how: _How
) -> tuple[dict[str, LawFit], tuple[str, ...]]:
    """Cells drawn with replacement, as the paper does; every draw reads eta* at its own B*(D)."""
    generator = np.random.default_rng(how.seed)
    log_tokens, log_batch = np.log([[cell.tokens, cell.batch_tokens] for cell in cells if cell.kept]).T
    batch = resample_lines(log_tokens, log_batch, resample_counts(generator, how.num_draws, log_tokens.size))
    laws = law_fits(
        {"batch_tokens": estimates["batch_tokens"]},
        {"batch_tokens": np.stack(batch, axis=-1)},
        max(log_tokens.size - 2, 1),
    )
    if "learning_rate" not in estimates:
        return laws, ()
    lines = Lines(*np.array([[reading.intercept, reading.slope] for reading in readings]).T)
    best = Lines(*(part[:, None] for part in batch)).at(np.log([reading.tokens for reading in readings]))
    drawn = fit_lines(best, lines.at(best), resample_counts(generator, how.num_draws, len(readings)))
    rate = {"learning_rate": np.stack(drawn, axis=-1)}
    return laws | law_fits({"learning_rate": estimates["learning_rate"]}, rate, max(len(readings) - 2, 1)), lost_draws(
        rate
    )


def _read_rates(cells: Sequence[RateCell], batch_law: Lines) -> Iterator[RateReading]:
    """eta* at B*(D), where B* lies among the batches that have an eta* at that size and D."""
    by_level: dict[tuple[float, float], list[RateCell]] = {}
    for cell in cells:
        if cell.kept:
            by_level.setdefault((cell.flops_per_token, cell.tokens), []).append(cell)
    for (flops_per_token, tokens), same in by_level.items():
        log_batch, log_rate = np.log([[cell.batch_tokens, cell.learning_rate] for cell in same]).T
        best = float(batch_law.at(math.log(tokens)))
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
