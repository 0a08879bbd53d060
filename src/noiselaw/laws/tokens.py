"""Data-bound laws: at every number of tokens D the best size and its loss, compute being free (spec section 7, step 5).

At one D the log loss is a parabola in log M (and, separately, in log P); its vertex is the optimum. Power laws of the
optima in D follow as isoFLOP laws do in C. Where data alone bound a run, the larger model is often simply the better
one: no vertex lies among the sizes then, and the flags say so. Legend: S draws, K levels of D, R sizes, U runs, n rows.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from noiselaw.laws.bootstrap import run_effects
from noiselaw.laws.curves import IsoflopTable
from noiselaw.laws.forms import Floats
from noiselaw.laws.isoflop import MIN_OPTIMA, LawFit
from noiselaw.laws.lawfits import flat_record, law_fits, law_records, lost_draws, vertex_flags
from noiselaw.laws.optima import Keep, Optima, find_optima, fit_optimal_laws, parabolas, pooled_scatter
from noiselaw.laws.sizetable import SizeReadings, read_sizes
from noiselaw.laws.table import RunTable


@dataclass(frozen=True, slots=True)
class TokensOptimum:
    """The best size at one number of tokens. Where there is no minimum, the best run stands in, flagged."""

    tokens: float
    params: float
    flops_per_token: float
    flops: float
    loss: float
    c0: float
    c1: float
    c2: float
    """log L = c0 + c1 log M + c2 log(M)**2, natural logs."""
    flags: tuple[str, ...]
    kept: bool
    """Whether it carries the laws."""


@dataclass(frozen=True, slots=True)
class TokensPoint:
    """The loss of one size at one number of tokens."""

    run: str
    tokens: float
    params: float
    flops_per_token: float
    loss: float


@dataclass(frozen=True, slots=True)
class TokensFit:
    """Everything fitted for one group."""

    group: str
    laws: Mapping[str, LawFit]
    """loss, params, flops_per_token, flops over D; empty where fewer than 2 levels have an optimum."""
    optima: tuple[TokensOptimum, ...]
    points: tuple[TokensPoint, ...]
    flags: tuple[str, ...]
    scatter: float | None
    """Standard deviation of the log loss between runs, pooled over groups."""
    degrees_of_freedom: int
    """Of the scatter."""

    def record(self) -> dict[str, Any]:
        """Plain JSON: "laws", "flags", "scatter", "degrees_of_freedom", and flat "optima" and "points"."""
        return {
            "laws": law_records(self.laws),
            "flags": list(self.flags),
            "scatter": self.scatter,
            "degrees_of_freedom": self.degrees_of_freedom,
            "optima": [flat_record(optimum) for optimum in self.optima],
            "points": [flat_record(point) for point in self.points],
        }


def fit_tokens(
    table: RunTable,
    *,
    levels: Sequence[float] | None = None,
    keep: Keep = "inside",
    num_draws: int = 10_000,
    seed: int = 0,
) -> dict[str, TokensFit]:
    """Power laws L*(D), M*(D), P*(D) and C*(D) = D M*(D) of every group.

    `levels` are numbers of tokens to read off the runs' smoothed curves; by default those at which rows of three sizes
    or more stand (to 0.1 %), and where there are none, 12 levels along the curves. Of several runs of one size the
    lowest loss counts. Where fewer than two optima lie among the sizes, all minima carry the laws, flagged.

    Intervals (95 %, of the exponents): every run's losses move by one random factor, with the scatter that the
    parabolas' residuals show over all groups, and everything is fitted again (`noiselaw.laws.bootstrap`).

    Raises ValueError for levels that are not positive and finite.
    """
    if levels is not None and not all(math.isfinite(level) and level > 0 for level in levels):
        raise ValueError(f"levels {list(levels)}: give positive numbers of tokens")
    readings = {group: read_sizes(group, rows, "tokens", levels) for group, rows in table.groups()}
    scatter, freedom = pooled_scatter(reading.table for reading in readings.values())
    luck, generator = _Luck(scatter, freedom, num_draws), np.random.default_rng(seed)
    return {group: _fit_group(reading, keep, luck, generator) for group, reading in readings.items()}


class _Luck(NamedTuple):
    """How runs differ."""

    scatter: float | None
    degrees_of_freedom: int
    num_draws: int


def _fit_group(reading: SizeReadings, keep: Keep, luck: _Luck, generator: np.random.Generator) -> TokensFit:
    table = reading.table
    optima = find_optima(table, np.log(table.loss))
    flags: tuple[str, ...] = ()
    if keep == "inside" and optima.inside.sum() < MIN_OPTIMA <= optima.usable.sum():
        keep, flags = "all", ("laws carried by optima outside the sampled sizes",)
    kept = optima.carrying(keep)
    laws: dict[str, LawFit] = {}
    if kept.sum() < MIN_OPTIMA:
        flags = (*flags, "no laws: fewer than 2 levels have an optimum")
    else:
        draws = _draw_laws(reading, keep, luck, generator)
        laws = law_fits(_laws(table, optima, kept), draws, luck.degrees_of_freedom)
        flags = (*flags, *(("no interval: no level has more than 3 sizes",) if draws is None else lost_draws(draws)))
    return TokensFit(
        group=table.group,
        laws=laws,
        optima=tuple(_optimum(table, optima, index, kept) for index in range(kept.size)),
        points=tuple(_points(reading)),
        flags=(*_level_flags(reading, kept), *flags),
        scatter=luck.scatter,
        degrees_of_freedom=luck.degrees_of_freedom,
    )


def _laws(table: IsoflopTable, optima: Optima, weights: np.ndarray) -> dict[str, Floats]:
    """(log coefficient, exponent) [..., 2] over D by quantity; C* = D M*."""
    laws = fit_optimal_laws(np.log(table.budgets), optima, weights)
    logs = {name: np.stack(lines, axis=-1) for name, lines in laws._asdict().items()}
    return logs | {"flops": logs["flops_per_token"] + np.array([0.0, 1.0])}


def _draw_laws(
    reading: SizeReadings, keep: Keep, luck: _Luck, generator: np.random.Generator
) -> dict[str, Floats] | None:
    if luck.scatter is None:
        return None
    shifts = run_effects(generator, luck.num_draws, len(reading.runs), luck.scatter)
    drawn = find_optima(reading.table, np.log(reading.table.loss) + shifts[:, reading.run])
    return _laws(reading.table, drawn, drawn.carrying(keep))


def _optimum(table: IsoflopTable, optima: Optima, index: int, kept: np.ndarray) -> TokensOptimum:
    columns = np.flatnonzero(np.isfinite(table.loss[index]))
    loss, usable = table.loss[index, columns], bool(optima.usable[index])
    lowest = columns[np.argmin(loss)]
    tokens = float(table.budgets[index])
    flops_per_token = math.exp(optima.flops_per_token[index]) if usable else float(table.flops_per_token[lowest])
    coefficients = parabolas(np.log(table.flops_per_token), np.log(table.loss[index])).coefficients
    return TokensOptimum(
        tokens=tokens,
        params=math.exp(optima.params[index]) if usable else float(table.params[lowest]),
        flops_per_token=flops_per_token,
        flops=tokens * flops_per_token,
        loss=math.exp(optima.loss[index]) if usable else float(loss.min()),
        c0=float(coefficients[0]),
        c1=float(coefficients[1]),
        c2=float(coefficients[2]),
        flags=vertex_flags(loss, usable=usable, inside=bool(optima.inside[index])),
        kept=bool(kept[index]),
    )


def _points(reading: SizeReadings) -> Iterator[TokensPoint]:
    table = reading.table
    for row, column in np.argwhere(np.isfinite(table.loss)).tolist():
        yield TokensPoint(
            run=reading.runs[reading.run[row, column]],
            tokens=float(table.budgets[row]),
            params=float(table.params[column]),
            flops_per_token=float(table.flops_per_token[column]),
            loss=float(table.loss[row, column]),
        )


def _level_flags(reading: SizeReadings, kept: np.ndarray) -> tuple[str, ...]:
    num_sizes = len(reading.table.runs)
    raised = {
        f"{reading.left_out} of {reading.left_out + kept.size} levels left out: fewer than 3 sizes": reading.left_out,
        f"{int((~kept).sum())} of {kept.size} optima left out of the laws: outside the sampled sizes": not kept.all(),
        f"laws carried by {int(kept.sum())} optima only": MIN_OPTIMA <= kept.sum() < 4,
        f"only {num_sizes} sizes": num_sizes < 4,
    }
    return tuple(flag for flag, is_raised in raised.items() if is_raised)
