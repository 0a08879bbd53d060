"""Data-bound laws: at every number of tokens D the best size and its loss, compute being free (spec section 7, step 5).

At one D the log loss is a parabola in log M (and, separately, in log P); its vertex is the optimum. Power laws of the
optima in D follow as isoFLOP laws do in C. Where data alone bound a run, the larger model is often simply the better
one: no vertex lies among the sizes then, and the flags say so. Legend: S draws, K levels of D, n rows.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from noiselaw.laws.bootstrap import run_effects
from noiselaw.laws.curves import IsoflopTable
from noiselaw.laws.forms import Floats
from noiselaw.laws.lawfits import MIN_OPTIMA, LawFit, flat_record, law_fits, law_records, lost_draws, vertex_flags
from noiselaw.laws.levels import MIN_SIZES, tabulate_levels
from noiselaw.laws.optima import (
    Keep,
    Optima,
    draw_optimal_laws,
    find_optima,
    fit_optimal_laws,
    parabolas,
    pooled_scatter,
)
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

    `levels` are numbers of tokens; how rows come to them is said by `noiselaw.laws.levels.tabulate_levels`. Where fewer
    than two optima lie among the sizes, all minima carry the laws, flagged.

    Intervals (95 %, of the exponents): every run's losses move by one random factor, with the scatter that the
    parabolas' residuals show over all groups, and everything is fitted again (`noiselaw.laws.bootstrap`).

    Rows that repeat their data take no part: they say what repeats are worth. Raises ValueError for levels that are not
    positive and finite, and for a group in which no level has three sizes.
    """
    tables = {group: found.table for group, found in tabulate_levels(fresh_rows(table), "tokens", levels).items()}
    return fit_level_tables(tables, keep=keep, num_draws=num_draws, seed=seed)


def fresh_rows(table: RunTable) -> RunTable:
    """The rows that see every token once at most. Raises ValueError where there are none."""
    if table.repeats.all():
        raise ValueError("every row repeats its data: no laws of fresh data")
    return table.rows(~table.repeats)


def fit_level_tables(
    tables: Mapping[str, IsoflopTable], *, keep: Keep = "inside", num_draws: int = 10_000, seed: int = 0
) -> dict[str, TokensFit]:
    """As `fit_tokens`, from losses at levels; those with fewer than three sizes are left out."""
    enough = {group: table.num_sizes >= MIN_SIZES for group, table in tables.items()}
    kept = {group: table.keep(enough[group]) for group, table in tables.items()}
    scatter, freedom = pooled_scatter(kept.values())
    luck, generator = _Luck(scatter, freedom, num_draws), np.random.default_rng(seed)
    return {
        group: _fit_group(table, int((~enough[group]).sum()), keep, luck, generator) for group, table in kept.items()
    }


class _Luck(NamedTuple):
    """How runs differ."""

    scatter: float | None
    degrees_of_freedom: int
    num_draws: int


def _fit_group(
    table: IsoflopTable, left_out: int, keep: Keep, luck: _Luck, generator: np.random.Generator
) -> TokensFit:
    optima = find_optima(table, np.log(table.loss))
    flags: tuple[str, ...] = ()
    if keep == "inside" and optima.inside.sum() < MIN_OPTIMA <= optima.usable.sum():
        keep, flags = "all", ("laws carried by optima outside the sampled sizes",)
    kept = optima.carrying(keep)
    laws: dict[str, LawFit] = {}
    if kept.sum() < MIN_OPTIMA:
        flags = (*flags, "no laws: fewer than 2 levels have an optimum")
    else:
        draws = _draw_laws(table, keep, luck, generator)
        laws = law_fits(_laws(table, optima, kept), draws, luck.degrees_of_freedom)
        flags = (*flags, *(("no interval: no level has more than 3 sizes",) if draws is None else lost_draws(draws)))
    return TokensFit(
        group=table.group,
        laws=laws,
        optima=tuple(_optimum(table, optima, index, kept) for index in range(kept.size)),
        points=tuple(_points(table)),
        flags=(*_level_flags(table, left_out, kept), *flags),
        scatter=luck.scatter,
        degrees_of_freedom=luck.degrees_of_freedom,
    )


def _laws(table: IsoflopTable, optima: Optima, kept: np.ndarray) -> dict[str, Floats]:
    return _over_tokens(fit_optimal_laws(np.log(table.budgets), optima, kept).logs())


def _over_tokens(logs: Mapping[str, Floats]) -> dict[str, Floats]:
    """(log coefficient, exponent) [..., 2] by quantity, of laws whose levels are tokens: C* = D M*."""
    laws = {name: values for name, values in logs.items() if name != "tokens"}
    return laws | {"flops": logs["flops_per_token"] + np.array([0.0, 1.0])}


def _draw_laws(
    table: IsoflopTable, keep: Keep, luck: _Luck, generator: np.random.Generator
) -> dict[str, Floats] | None:
    if luck.scatter is None:
        return None
    shifts = run_effects(generator, luck.num_draws, len(table.runs), luck.scatter)
    return _over_tokens(draw_optimal_laws(table, shifts, keep))


def _optimum(table: IsoflopTable, optima: Optima, index: int, kept: np.ndarray) -> TokensOptimum:
    columns = np.flatnonzero(np.isfinite(table.loss[index]))
    loss, usable = table.loss[index, columns], bool(optima.usable[index])
    lowest = columns[np.argmin(loss)]
    tokens = float(table.budgets[index])
    params, sizes = table.cells(table.params)[index], table.cells(table.flops_per_token)[index]
    flops_per_token = math.exp(optima.flops_per_token[index]) if usable else float(sizes[lowest])
    coefficients = parabolas(np.log(sizes), np.log(table.loss[index])).coefficients
    return TokensOptimum(
        tokens=tokens,
        params=math.exp(optima.params[index]) if usable else float(params[lowest]),
        flops_per_token=flops_per_token,
        flops=tokens * flops_per_token,
        loss=math.exp(optima.loss[index]) if usable else float(loss.min()),
        c0=float(coefficients[0]),
        c1=float(coefficients[1]),
        c2=float(coefficients[2]),
        flags=vertex_flags(loss, usable=usable, inside=bool(optima.inside[index])),
        kept=bool(kept[index]),
    )


def _points(table: IsoflopTable) -> Iterator[TokensPoint]:
    params, sizes = table.cells(table.params), table.cells(table.flops_per_token)
    for row, column in np.argwhere(np.isfinite(table.loss)).tolist():
        yield TokensPoint(
            run=table.run_name(row, column),
            tokens=float(table.budgets[row]),
            params=float(params[row, column]),
            flops_per_token=float(sizes[row, column]),
            loss=float(table.loss[row, column]),
        )


def _level_flags(table: IsoflopTable, left_out: int, kept: np.ndarray) -> tuple[str, ...]:
    num_sizes = int(table.num_sizes.max(initial=0))
    raised = {
        f"{left_out} of {left_out + kept.size} levels left out: fewer than 3 sizes": left_out,
        f"{int((~kept).sum())} of {kept.size} optima left out of the laws: outside the sampled sizes": not kept.all(),
        f"laws carried by {int(kept.sum())} optima only": MIN_OPTIMA <= kept.sum() < 4,
        f"only {num_sizes} sizes": num_sizes < 4,
    }
    return tuple(flag for flag, is_raised in raised.items() if is_raised)
