"""The frontier of loss curves: at every compute the run with the lowest loss (Chinchilla approach 1).

Unlike isoFLOP parabolas nothing is fitted across sizes, so the winning size moves in steps: the laws are as fine as the
sizes. A winner carries them only where both a smaller and a larger size have been trained to that compute: otherwise a
size nobody tried might have won. Legend: S draws, R runs, G points of the grid, K stretches of the grid over which the
runs keep their order.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from noiselaw.laws.bootstrap import resample_counts
from noiselaw.laws.forms import Floats, Lines, fit_lines
from noiselaw.laws.isoflop import EDGE, FEW_POINTS, MIN_OPTIMA, LawFit
from noiselaw.laws.lawfits import flat_record, law_fits, law_records, lost_draws
from noiselaw.laws.optima import Keep, OptimalLaws
from noiselaw.laws.readings import Trajectory, gather_levels, trajectories
from noiselaw.laws.table import RunTable

SMALLEST = "won by the smallest size trained that far"
LARGEST = "won by the largest size trained that far"
NO_LAWS = "no laws: fewer than 2 sizes win"
NO_LAWS_RAW = "no laws: fewer than 2 budgets"


@dataclass(frozen=True, slots=True)
class Arc:
    """A stretch of the frontier that one run holds; for raw minima a single budget."""

    run: str
    params: float
    flops_per_token: float
    flops_low: float
    flops_high: float
    budget: float
    """The middle of the stretch, where tokens and loss are read."""
    tokens: float
    loss: float
    flags: tuple[str, ...]
    kept: bool
    """Whether it carries the laws."""


@dataclass(frozen=True, slots=True)
class FrontierFit:
    """Everything found for one group."""

    group: str
    laws: Mapping[str, LawFit]
    """loss, params, flops_per_token, tokens over C; empty where fewer than 2 sizes win."""
    optima: tuple[Arc, ...]
    flags: tuple[str, ...]

    def record(self) -> dict[str, Any]:
        """Plain JSON: "laws", "flags" and "optima", one flat object per arc."""
        optima = [flat_record(arc) for arc in self.optima]
        return {"laws": law_records(self.laws), "flags": list(self.flags), "optima": optima}


def fit_frontier(
    table: RunTable, *, keep: Keep = "inside", num_points: int = 1500, num_draws: int = 10_000, seed: int = 0
) -> dict[str, FrontierFit]:
    """Power laws in C through the lower envelope of every group's smoothed loss curves, on a log grid of C.

    Source: Hoffmann et al., arXiv 2203.15556, section 3.1 (1500 log-spaced FLOPs). L*, M* and P* are least squares of
    logs over the grid; D* = C / M* mirrors M*. Intervals (95 %, of the exponents) are a bootstrap over runs: every draw
    takes R runs with replacement and finds its own frontier. Where fewer than two sizes win between others, all winners
    carry the laws, flagged. Raises ValueError for a group in which no run has two rows.
    """
    return {
        group: _fit_group(group, rows, keep=keep, num_points=num_points, num_draws=num_draws, seed=seed)
        for group, rows in table.groups()
    }


def raw_argmin(table: RunTable, *, num_draws: int = 10_000, seed: int = 0) -> dict[str, FrontierFit]:
    """Power laws through the lowest row of each budget as given, nothing interpolated (spec section 7, "raw").

    Every budget counts, even those of a single size, as in the paper; those are flagged. Intervals are a bootstrap over
    budgets.
    """
    return {group: _fit_raw(group, rows, num_draws, seed) for group, rows in table.groups()}


class _Runs(NamedTuple):
    """The curves of one group on the grid, runs in order of size."""

    curves: Sequence[Trajectory]
    log_flops: Floats
    """[G]"""
    log_loss: Floats
    """[G, R], NaN where a run has no reading."""
    size: np.ndarray
    """[R]: rank of the size; runs of one size share it."""


def _fit_group(group: str, rows: RunTable, *, keep: Keep, num_points: int, num_draws: int, seed: int) -> FrontierFit:
    curves = [curve for curve in trajectories(rows) if curve.tokens.size > 1]
    if not curves:
        raise ValueError(
            f"group {group}: no run has two rows, and a frontier needs loss curves; "
            "give a column that names the run, or leave it out to take the rows of one size as one curve"
        )
    stretches = _Stretches.of(_read_runs(curves, num_points))
    found = stretches.winners(np.ones((1, len(curves)), dtype=bool))
    flags: tuple[str, ...] = ()
    if keep == "inside" and stretches.single(found, keep)[0]:
        keep, flags = "all", ("laws carried by winners without both a smaller and a larger size beside them",)
    laws: dict[str, LawFit] = {}
    if stretches.single(found, keep)[0]:
        flags = (*flags, NO_LAWS)
    else:
        estimate = {name: values[0] for name, values in stretches.fit(found, keep).logs().items()}
        draws = _draw_laws(stretches, keep, num_draws, seed)
        laws = law_fits(estimate, draws)
        flags = (*flags, *lost_draws(draws))
    arcs = tuple(_arcs(stretches, found, keep))
    return FrontierFit(group, laws, arcs, (*_frontier_flags(arcs, len(curves)), *flags))


def _read_runs(curves: Sequence[Trajectory], num_points: int) -> _Runs:
    ends = np.array([curve.flops_per_token * curve.tokens[[0, -1]] for curve in curves])
    flops = np.geomspace(ends.min(), ends.max(), num_points)
    loss = np.stack([curve.loss_at(flops / curve.flops_per_token) for curve in curves], axis=-1)
    size = gather_levels(np.array([curve.flops_per_token for curve in curves])).level
    return _Runs(curves, np.log(flops), np.log(loss), size)


class _Winners(NamedTuple):
    """Who holds each stretch, [S, K]."""

    run: np.ndarray
    there: np.ndarray
    """Whether anyone does."""
    smallest: np.ndarray
    """No smaller size has been trained that far."""
    largest: np.ndarray

    def carrying(self, keep: Keep) -> np.ndarray:
        return self.there & ~(self.smallest | self.largest) if keep == "inside" else self.there


class _Stretches(NamedTuple):
    """Sums over the grid points of each stretch: all that least squares needs, for any draw of the runs."""

    runs: _Runs
    start: np.ndarray
    """[K]: first grid point of every stretch."""
    order: np.ndarray
    """[K, R]: runs from the lowest loss to the highest."""
    covers: np.ndarray
    """[K, R]"""
    sums: Floats
    """[3, K]: of 1, x, x**2 with x = log C about its middle."""
    loss_sums: Floats
    """[2, K, R]: of y, x y with y = log L."""

    @classmethod
    def of(cls, runs: _Runs) -> "_Stretches":
        order = np.argsort(runs.log_loss, axis=-1, kind="stable")
        covers = np.isfinite(runs.log_loss)
        changes = (order[1:] != order[:-1]).any(-1) | (covers[1:] != covers[:-1]).any(-1)
        start = np.flatnonzero(np.concatenate([[True], changes]))
        x = runs.log_flops - runs.log_flops.mean()
        y = np.where(covers, runs.log_loss, 0.0)
        sums = np.add.reduceat(np.stack([np.ones_like(x), x, x**2]), start, axis=1)
        loss_sums = np.add.reduceat(np.stack([y, x[:, None] * y]), start, axis=1)
        return cls(runs, start, order[start], covers[start], sums, loss_sums)

    def winners(self, present: np.ndarray) -> _Winners:
        """The winners among the runs that are present [S, R]."""
        there = present[:, None, :] & self.covers
        rank = np.argmax(np.take_along_axis(there, self.order[None], axis=-1), axis=-1)
        run = self.order[np.arange(len(self.order)), rank]
        size, last = self.runs.size, self.runs.size.size - 1
        smallest, largest = size[np.argmax(there, axis=-1)], size[last - np.argmax(there[..., ::-1], axis=-1)]
        return _Winners(run, np.asarray(there.any(-1)), size[run] == smallest, size[run] == largest)

    def single(self, winners: _Winners, keep: Keep) -> np.ndarray:
        """[S]: fewer than two sizes carry the laws."""
        kept, size = winners.carrying(keep), self.runs.size[winners.run]
        return np.where(kept, size, size.max() + 1).min(-1) >= np.where(kept, size, -1).max(-1)

    def fit(self, winners: _Winners, keep: Keep) -> OptimalLaws:
        """Least squares over all grid points that carry the laws, from their sums."""
        kept, stretch = winners.carrying(keep), np.arange(len(self.start))
        n, x, xx = (np.where(kept, part, 0.0) for part in self.sums)
        loss, loss_x = (np.where(kept, part[stretch, winners.run], 0.0) for part in self.loss_sums)
        params, size = (
            np.log([getattr(curve, name) for curve in self.runs.curves])[winners.run]
            for name in ("params", "flops_per_token")
        )
        sums, middle = (n.sum(-1), x.sum(-1), xx.sum(-1)), float(self.runs.log_flops.mean())
        return OptimalLaws(
            *(
                _line_of_sums(sums, y.sum(-1), xy.sum(-1), middle)
                for y, xy in ((loss, loss_x), (n * params, x * params), (n * size, x * size))
            )
        )


def _line_of_sums(sums: tuple[Floats, Floats, Floats], y: Floats, xy: Floats, middle: float) -> Lines:
    n, x, xx = sums
    with np.errstate(divide="ignore", invalid="ignore"):
        slope = (xy - x * y / n) / (xx - x**2 / n)
        return Lines((y - slope * x) / n - slope * middle, slope)


_CHUNK = 2**22
"""Booleans held at once while drawing."""


def _draw_laws(stretches: _Stretches, keep: Keep, num_draws: int, seed: int) -> dict[str, Floats]:
    """(log coefficient, exponent) [S, 2] by quantity; NaN for draws in which fewer than two sizes win."""
    present = resample_counts(np.random.default_rng(seed), num_draws, len(stretches.runs.curves)) > 0
    parts = []
    for some in np.array_split(present, max(1, num_draws * stretches.order.size // _CHUNK)):
        found = stretches.winners(some)
        lost = stretches.single(found, keep)[:, None]
        parts.append({name: np.where(lost, np.nan, law) for name, law in stretches.fit(found, keep).logs().items()})
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def _arcs(stretches: _Stretches, winners: _Winners, keep: Keep) -> Iterator[Arc]:
    """Neighbouring stretches of one winner in one position, joined."""
    runs, kept = stretches.runs, winners.carrying(keep)[0]
    run, there, smallest, largest = (part[0] for part in winners)
    state = np.stack([run, there, smallest, largest], axis=-1)
    joints = np.flatnonzero((state[1:] != state[:-1]).any(-1)) + 1
    ends = np.append(stretches.start[1:], runs.log_flops.size) - 1
    for members in np.split(np.arange(run.size), joints):
        first = members[0]
        if not there[first]:
            continue
        low, high = runs.log_flops[stretches.start[first]], runs.log_flops[ends[members[-1]]]
        curve, budget = runs.curves[run[first]], float(np.exp((low + high) / 2))
        raised = {SMALLEST: smallest[first], LARGEST: largest[first]}
        yield Arc(
            run=curve.name,
            params=curve.params,
            flops_per_token=curve.flops_per_token,
            flops_low=float(np.exp(low)),
            flops_high=float(np.exp(high)),
            budget=budget,
            tokens=budget / curve.flops_per_token,
            loss=float(curve.loss_at(budget / curve.flops_per_token)),
            flags=tuple(flag for flag, is_raised in raised.items() if is_raised),
            kept=bool(kept[first]),
        )


def _frontier_flags(arcs: Sequence[Arc], num_runs: int) -> tuple[str, ...]:
    flags = []
    left_out, whole = (
        sum(math.log(arc.flops_high / arc.flops_low) for arc in some)
        for some in ([arc for arc in arcs if not arc.kept], arcs)
    )
    if left_out:
        flags.append(
            f"{left_out / whole:.0%} of the frontier left out of the laws: a size beyond the edge might win there"
        )
    winners = len({arc.flops_per_token for arc in arcs if arc.kept})
    if MIN_OPTIMA <= winners < 8:
        flags.append(
            f"laws carried by {winners} sizes only: a staircase of so few is about {1 / winners**2:.0%} too flat"
        )
    if num_runs < 4:
        flags.append(f"only {num_runs} runs")
    return tuple(flags)


def _fit_raw(group: str, rows: RunTable, num_draws: int, seed: int) -> FrontierFit:
    budgets = gather_levels(rows.flops)
    lowest = [_lowest_row(rows, np.flatnonzero(budgets.level == level)) for level in range(budgets.values.size)]
    arcs = tuple(_raw_arc(rows, *found, budget) for found, budget in zip(lowest, budgets.values.tolist(), strict=True))
    if len(arcs) < MIN_OPTIMA:
        return FrontierFit(group, {}, arcs, (NO_LAWS_RAW,))
    log_budgets = np.log(budgets.values)
    logs = np.log([[arc.loss, arc.params, arc.flops_per_token] for arc in arcs]).T
    counts = resample_counts(np.random.default_rng(seed), num_draws, len(arcs))
    estimate, draws = (
        OptimalLaws(*(fit_lines(log_budgets, y, weights) for y in logs)).logs() for weights in (1.0, counts)
    )
    return FrontierFit(group, law_fits(estimate, draws), arcs, lost_draws(draws))


def _lowest_row(rows: RunTable, members: np.ndarray) -> tuple[int, tuple[str, ...]]:
    row = int(members[np.argmin(rows.loss[members])])
    size = rows.flops_per_token[members]
    raised = {
        FEW_POINTS: members.size < 4,
        EDGE: rows.flops_per_token[row] in (size.min(), size.max()),
    }
    return row, tuple(flag for flag, is_raised in raised.items() if is_raised)


def _raw_arc(rows: RunTable, row: int, flags: tuple[str, ...], budget: float) -> Arc:
    return Arc(
        run=str(rows.run[row]),
        params=float(rows.params[row]),
        flops_per_token=float(rows.flops_per_token[row]),
        flops_low=budget,
        flops_high=budget,
        budget=budget,
        tokens=budget / float(rows.flops_per_token[row]),
        loss=float(rows.loss[row]),
        flags=flags,
        kept=True,
    )
