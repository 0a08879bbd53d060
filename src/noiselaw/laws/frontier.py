"""The frontier of loss curves: at every compute the run with the lowest loss (Chinchilla approach 1).

Unlike isoFLOP parabolas nothing is fitted across sizes, so the winning size moves in steps: the laws are as fine as the
sizes. A winner carries them only where both a smaller and a larger size have been trained to that compute: otherwise a
size nobody tried might have won. What steps and edges do to the laws is found by trial: curves of a surface that was
fitted to the same table, whose laws are known, go through the same steps with new luck for every run.
Legend: S draws, R runs, G points of the grid.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np

from noiselaw.laws.bootstrap import resample_counts, resample_lines
from noiselaw.laws.doubts import disagreement, is_allocating
from noiselaw.laws.envelope import Grid, Winners, try_envelope
from noiselaw.laws.forms import Floats, fit_lines
from noiselaw.laws.lawfits import (
    EDGE,
    FEW_POINTS,
    MIN_OPTIMA,
    LawFit,
    flat_record,
    law_fits,
    law_records,
    lost_draws,
)
from noiselaw.laws.luck import Luck
from noiselaw.laws.optima import Keep, OptimalLaws
from noiselaw.laws.readings import Trajectory, gather_levels, trajectories
from noiselaw.laws.record import surface_record
from noiselaw.laws.surface import SurfaceFit, fit_surface, surface_luck
from noiselaw.laws.table import RunTable

SMALLEST = "won by the smallest size trained that far"
LARGEST = "won by the largest size trained that far"
NO_LAWS = "no laws: fewer than 2 sizes win"
NO_LAWS_RAW = "no laws: fewer than 2 budgets"
FEW_BUDGETS = "no interval: fewer than 3 budgets"
NO_SURFACE = "no interval: no surface through the rows, on which the frontier could be tried"
FEW_RUNS = "no interval: too few runs to tell how they differ"


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
    scatter: float | None = None
    """Standard deviation of the log loss between runs; None where too few tell it."""
    degrees_of_freedom: float = 0.0
    """Of the scatter."""
    surface: SurfaceFit | None = None
    """Over FLOPs per token, through the same rows: what a prediction is held against; none for raw minima."""

    def record(self) -> dict[str, Any]:
        """Plain JSON: "laws", "flags", "optima" (one flat object per arc), "scatter", "degrees_of_freedom"; and of the
        surface "parameters", "parameters_covariance" and "certificate".
        """
        return (surface_record(self.surface) if self.surface is not None else {}) | {
            "laws": law_records(self.laws),
            "flags": list(self.flags),
            "optima": [flat_record(arc) for arc in self.optima],
            "scatter": self.scatter,
            "degrees_of_freedom": self.degrees_of_freedom,
        }


def fit_frontier(
    table: RunTable, *, keep: Keep = "inside", num_points: int = 1500, num_draws: int = 2000, seed: int = 0
) -> dict[str, FrontierFit]:
    """Power laws in C through the lower envelope of every group's smoothed loss curves, on a log grid of C.

    Source: Hoffmann et al., arXiv 2203.15556, section 3.1 (1500 log-spaced FLOPs). L*, M* and P* are least squares of
    logs over the grid; D* = C / M* mirrors M*. Intervals (of the exponents): what the same steps miss on curves of the
    group's surface with drawn luck. Their mean is the bias of steps and edges, known only as well as the surface, so
    an interval covers the law with and without it: it may lie to one side, and 95 % is the least that it holds
    (`benchmarks/coverage.py`). Where fewer than two sizes win between others, all winners carry the laws, flagged.

    Raises ValueError for a group in which no run has two rows.
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


def _fit_group(group: str, rows: RunTable, *, keep: Keep, num_points: int, num_draws: int, seed: int) -> FrontierFit:
    curves = [curve for curve in trajectories(rows) if curve.tokens.size > 1]
    if not curves:
        raise ValueError(
            f"group {group}: no run has two rows, and a frontier needs loss curves; "
            "give a column that names the run, or leave it out to take the rows of one size as one curve"
        )
    grid = Grid.of(curves, num_points)
    losses = [curve.loss_at(at) for curve, at in zip(curves, grid.tokens.T, strict=True)]
    log_loss = np.log(np.stack(losses, axis=-1))
    found = grid.winners(log_loss, keep)
    flags: tuple[str, ...] = ()
    if keep == "inside" and grid.is_single(found):
        keep, flags = "all", ("laws carried by winners without both a smaller and a larger size beside them",)
        found = grid.winners(log_loss, keep)
    laws, luck, surface = {}, None, None
    if grid.is_single(found):
        flags = (*flags, NO_LAWS)
    else:
        estimate = grid.laws(log_loss, found)
        trial = _try(grid, rows, found, keep, num_draws=num_draws, seed=seed)
        surface, luck, errors = trial.surface, trial.luck, trial.errors
        laws = law_fits(estimate, None) if errors is None else _with_errors(estimate, errors)
        flags = (*flags, *trial.flags)
        if surface is not None:
            largest = float(np.exp(grid.log_flops[found.carries].max()))
            flags += disagreement({name: law.law for name, law in laws.items()}, surface, largest)
    arcs = tuple(_arcs(curves, grid.log_flops, found))
    return FrontierFit(
        group,
        laws,
        arcs,
        (*_frontier_flags(arcs, len(curves)), *flags),
        scatter=None if luck is None else luck.between_runs,
        degrees_of_freedom=0.0 if luck is None else luck.run_freedom,
        surface=surface,
    )


def _with_errors(estimate: Mapping[str, Floats], errors: Mapping[str, Floats]) -> dict[str, LawFit]:
    """Laws with intervals about them, and about what is left without their bias, the mean of the errors [S, 2]."""
    corrected = law_fits(estimate, {name: estimate[name] - missed for name, missed in errors.items()})
    centred = {name: estimate[name] - missed + np.nanmean(missed, axis=0) for name, missed in errors.items()}
    return {
        name: replace(law, interval=_hull(corrected[name].interval, law.interval))
        for name, law in law_fits(estimate, centred).items()
    }


def _hull(first: tuple[float, float] | None, second: tuple[float, float] | None) -> tuple[float, float] | None:
    return None if first is None or second is None else (min(first[0], second[0]), max(first[1], second[1]))


class _Trial(NamedTuple):
    """What the laws of an envelope miss on the table's own surface, where that can be told."""

    surface: SurfaceFit | None
    """Over FLOPs per token, by least squares."""
    luck: Luck | None
    errors: dict[str, Floats] | None
    """[S, 2] by quantity."""
    flags: tuple[str, ...]


def _try(grid: Grid, rows: RunTable, found: Winners, keep: Keep, *, num_draws: int, seed: int) -> _Trial:
    run = np.unique(rows.run, return_inverse=True)[1]
    try:
        surface = fit_surface(rows.flops_per_token, rows.tokens, rows.loss, run, objective="l2")
    except ValueError:
        return _Trial(None, None, None, (NO_SURFACE,))
    luck = surface_luck(surface, rows.flops_per_token, rows.tokens, rows.loss, run)
    if not luck.tells_runs:
        return _Trial(surface, None, None, (FEW_RUNS,))
    if not is_allocating(surface):
        return _Trial(surface, luck, None, (NO_SURFACE,))
    errors = try_envelope(grid, surface, luck, found.carries, keep, num_draws=num_draws, seed=seed)
    bias = float(np.nanmean(errors["flops_per_token"][:, 1]))
    flags = lost_draws(errors)
    if abs(bias) > _BIASED:
        flags += (f"steps and edges shift the exponent of M* by {bias:+.3f} on the surface: intervals allow for it",)
    return _Trial(surface, luck, errors, flags)


_BIASED = 0.01


def _arcs(curves: Sequence[Trajectory], log_flops: Floats, winners: Winners) -> Iterator[Arc]:
    """Neighbouring points of one winner in one position, joined."""
    state = np.stack([winners.run, winners.there, winners.smallest, winners.largest], axis=-1)
    joints = np.flatnonzero((state[1:] != state[:-1]).any(-1)) + 1
    for members in np.split(np.arange(log_flops.size), joints):
        first = members[0]
        if not winners.there[first]:
            continue
        low, high = log_flops[first], log_flops[members[-1]]
        curve, budget = curves[int(winners.run[first])], float(np.exp((low + high) / 2))
        raised = {SMALLEST: winners.smallest[first], LARGEST: winners.largest[first]}
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
            kept=bool(winners.carries[first]),
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
        flags.append(f"laws carried by {winners} sizes only")
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
    estimate = OptimalLaws(*(fit_lines(log_budgets, y) for y in logs)).logs()
    draws, freedom = None, len(arcs) - 2
    if freedom > 0:
        counts = resample_counts(np.random.default_rng(seed), num_draws, len(arcs))
        draws = OptimalLaws(*(resample_lines(log_budgets, y, counts) for y in logs)).logs()
    flags = (FEW_BUDGETS,) if draws is None else lost_draws(draws)
    return FrontierFit(group, law_fits(estimate, draws, freedom), arcs, flags)


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
