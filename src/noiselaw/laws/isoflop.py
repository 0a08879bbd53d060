"""IsoFLOP laws: at every budget the best model size, over the budgets power laws of the best.

Parabolas in log space give the optima, least squares of logs over the optima the power laws (spec section 7, steps 3
and 4), draws over runs or optima the intervals. Legend: S draws, K budgets, R columns of the table.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from noiselaw.laws.bootstrap import resample_counts, run_effects
from noiselaw.laws.curves import IsoflopTable, LossCurve, tabulate_curves
from noiselaw.laws.doubts import below_floor, disagreement, parabola_bias
from noiselaw.laws.forms import Floats, PowerLaw
from noiselaw.laws.lawfits import (
    CONCAVE,
    EDGE,
    FEW_POINTS,
    MIN_OPTIMA,
    NO_MINIMUM,
    OUTSIDE,
    LawFit,
    law_fits,
    lost_draws,
)
from noiselaw.laws.levels import tabulate_levels
from noiselaw.laws.optima import (
    Keep,
    Optima,
    draw_optimal_laws,
    find_optima,
    fit_optimal_laws,
    narrow,
    parabolas,
    pooled_scatter,
    resample_optimal_laws,
)
from noiselaw.laws.surface import SurfaceFit, fit_surface
from noiselaw.laws.table import RunTable

Resample = Literal["runs", "optima"]
"""What the bootstrap draws anew (see `noiselaw.laws.bootstrap`)."""

QUANTITIES = ("loss", "tokens", "params", "flops_per_token")


@dataclass(frozen=True, slots=True)
class SizePoint:
    """The loss of one run at a budget."""

    run: str
    params: float
    flops_per_token: float
    loss: float


@dataclass(frozen=True, slots=True)
class Optimum:
    """The compute-optimal model at one budget. Where there is no minimum, the best run stands in, flagged."""

    budget: float
    params: float
    tokens: float
    flops_per_token: float
    loss: float
    flags: tuple[str, ...]
    kept: bool
    """Whether it carries the laws."""
    log_params_coefficients: tuple[float, float, float]
    """log L = c0 + c1 log P + c2 log(P)**2, natural logs."""
    points: tuple[SizePoint, ...]


@dataclass(frozen=True, slots=True)
class IsoflopFit:
    """Everything fitted for one group."""

    group: str
    laws: Mapping[str, LawFit]
    """By quantity (QUANTITIES); empty where fewer than 2 budgets have an optimum."""
    optima: tuple[Optimum, ...]
    flags: tuple[str, ...]
    scatter: float | None
    """Standard deviation of the log loss between runs, pooled over the groups fitted together."""
    degrees_of_freedom: int
    """Of the scatter."""
    surface: SurfaceFit | None
    """L = E + A P^-alpha + B D^-beta through the same table; None where it has too few points."""

    def law(self, quantity: str) -> PowerLaw:
        """The law of one of QUANTITIES. Raises ValueError, saying why, for a group without laws."""
        if not self.laws:
            reasons = "; ".join(self.flags)
            raise ValueError(f"group {self.group}: nothing to predict from ({reasons}); add sizes around the optimum")
        return self.laws[quantity].law

    @property
    def smallest_budget(self) -> float:
        """The smallest budget whose optimum carries the laws."""
        return min(optimum.budget for optimum in self.optima if optimum.kept)

    @property
    def largest_budget(self) -> float:
        """The largest budget whose optimum carries the laws: where extrapolation starts."""
        return max(optimum.budget for optimum in self.optima if optimum.kept)


def fit_isoflop(
    curves: Iterable[LossCurve],
    budgets: Sequence[float],
    *,
    keep: Keep = "inside",
    num_draws: int = 10_000,
    seed: int = 0,
) -> dict[str, IsoflopFit]:
    """Fit every group of a study's runs, with intervals from run-to-run scatter. See `fit_tables`."""
    return fit_tables(tabulate_curves(curves, budgets), keep=keep, num_draws=num_draws, seed=seed)


def fit_isoflop_table(
    table: RunTable,
    budgets: Sequence[float] | None = None,
    *,
    window: float | None = None,
    keep: Keep = "inside",
    resample: Resample = "runs",
    num_draws: int = 10_000,
    seed: int = 0,
) -> dict[str, IsoflopFit]:
    """Fit every group of a table of runs at the budgets its rows share, or at given ones. See `fit_tables`.

    How rows became budgets is said by `noiselaw.laws.levels.tabulate_levels`, which this calls.
    """
    tables = {group: found.table for group, found in tabulate_levels(table, "flops", budgets).items()}
    return fit_tables(tables, window=window, keep=keep, resample=resample, num_draws=num_draws, seed=seed)


def fit_tables(
    tables: Mapping[str, IsoflopTable],
    *,
    window: float | None = None,
    keep: Keep = "inside",
    resample: Resample = "runs",
    num_draws: int = 10_000,
    seed: int = 0,
) -> dict[str, IsoflopFit]:
    """Optima, power laws with 95 % intervals and the surface, for every group.

    Parabolas see the sizes within a factor `window` of the best, by default all. Budgets with fewer than 3 sizes have
    no parabola and are left out. Where fewer than 2 optima lie inside the sampled sizes, those outside carry the laws
    too; where fewer than 2 budgets have an optimum at all, a group has no laws. Both are flagged: one failed group does
    not cost a study the others. Raises ValueError for a window that is not above 1.
    """
    narrowed = {group: narrow(table, window) for group, table in tables.items()}
    scatter, freedom = pooled_scatter(narrowed.values())
    bootstrap = _Bootstrap(resample, num_draws, seed, scatter, freedom)
    return {group: _fit_table(table, narrowed[group], keep, bootstrap) for group, table in tables.items()}


@dataclass(frozen=True, slots=True)
class _Bootstrap:
    """How laws are drawn anew."""

    resample: Resample
    num_draws: int
    seed: int
    scatter: float | None
    degrees_of_freedom: int

    @property
    def no_interval(self) -> str:
        """Why there are no draws."""
        few = "fewer than 3 optima" if self.resample == "optima" else "no budget has more than 3 sizes"
        return f"no interval: {few}"

    def draw(self, table: IsoflopTable, optima: Optima, keep: Keep) -> tuple[dict[str, Floats] | None, float]:
        """(log coefficient, exponent) draws [S, 2] by quantity, and the degrees of freedom of their spread."""
        generator = np.random.default_rng(self.seed)
        if self.resample == "optima":
            kept = optima.carrying(keep)
            num_kept = int(kept.sum())
            if num_kept < _FEWEST_RESAMPLED:
                return None, 0
            counts = resample_counts(generator, self.num_draws, num_kept)
            return resample_optimal_laws(np.log(table.budgets), optima, kept, counts).logs(), num_kept - 2
        if self.scatter is None:
            return None, 0
        shifts = run_effects(generator, self.num_draws, len(table.runs), self.scatter)
        return draw_optimal_laws(table, shifts, keep), self.degrees_of_freedom


_FEWEST_RESAMPLED = 3
"""Optima; a line through two leaves nothing to tell its doubt."""


def _fit_table(whole: IsoflopTable, narrowed: IsoflopTable, keep: Keep, bootstrap: _Bootstrap) -> IsoflopFit:
    enough = narrowed.num_sizes >= 3
    table = narrowed.keep(enough)
    optima = find_optima(table, np.log(table.loss))
    kept = optima.carrying(keep)
    flags = _group_flags(kept, enough, len(table.runs))
    if kept.sum() < MIN_OPTIMA and keep == "inside":
        keep, kept = "all", optima.usable
        flags = (*flags, "laws carried by optima outside the sampled sizes")
    surface = _fit_surface(whole)
    if surface is not None:
        flags += below_floor(table.loss[np.isfinite(table.loss)], surface)
    laws, scarce = {}, kept.sum() < MIN_OPTIMA
    if not scarce:
        estimate = fit_optimal_laws(np.log(table.budgets), optima, kept).logs()
        draws, freedom = bootstrap.draw(table, optima, keep)
        laws = law_fits({name: estimate[name] for name in QUANTITIES}, draws, freedom)
        flags = (*flags, *((bootstrap.no_interval,) if draws is None else lost_draws(draws)))
        if surface is not None:
            plain = {name: law.law for name, law in laws.items()}
            flags += disagreement(plain, surface, float(table.budgets[kept].max()))
            flags += parabola_bias(table, surface, keep, kept)
    return IsoflopFit(
        group=table.group,
        laws=laws,
        optima=_describe_optima(table, optima, kept),
        flags=(*flags, "no laws: fewer than 2 budgets have an optimum") if scarce else flags,
        scatter=bootstrap.scatter,
        degrees_of_freedom=bootstrap.degrees_of_freedom,
        surface=surface,
    )


def _describe_optima(table: IsoflopTable, optima: Optima, kept: np.ndarray) -> tuple[Optimum, ...]:
    coefficients = np.stack(parabolas(np.log(table.params), np.log(table.loss)).coefficients, axis=-1)
    params, sizes = table.cells(table.params), table.cells(table.flops_per_token)
    described = []
    for index, budget in enumerate(table.budgets):
        columns = np.flatnonzero(np.isfinite(table.loss[index]))
        lowest = columns[np.argmin(table.loss[index, columns])]
        usable = bool(optima.usable[index])
        flops_per_token = math.exp(optima.flops_per_token[index]) if usable else float(sizes[index, lowest])
        described.append(
            Optimum(
                budget=float(budget),
                params=math.exp(optima.params[index]) if usable else float(params[index, lowest]),
                tokens=float(budget) / flops_per_token,
                flops_per_token=flops_per_token,
                loss=math.exp(optima.loss[index]) if usable else float(table.loss[index, lowest]),
                flags=_optimum_flags(optima, index, sizes[index, columns], sizes[index, lowest]),
                kept=bool(kept[index]),
                log_params_coefficients=tuple(coefficients[index].tolist()),
                points=tuple(
                    SizePoint(
                        run=table.run_name(index, column),
                        params=float(params[index, column]),
                        flops_per_token=float(sizes[index, column]),
                        loss=float(table.loss[index, column]),
                    )
                    for column in columns.tolist()
                ),
            )
        )
    return tuple(described)


def _optimum_flags(optima: Optima, index: int, sizes: Floats, lowest: float) -> tuple[str, ...]:
    raised = {
        FEW_POINTS: sizes.size < 4,
        CONCAVE: not optima.convex[index],
        NO_MINIMUM: not optima.usable[index],
        OUTSIDE: optima.usable[index] and not optima.inside[index],
        EDGE: lowest in (sizes.min(), sizes.max()),
    }
    return tuple(flag for flag, is_raised in raised.items() if is_raised)


def _group_flags(kept: np.ndarray, enough: np.ndarray, num_runs: int) -> tuple[str, ...]:
    flags = []
    if not enough.all():
        flags.append(f"{int((~enough).sum())} of {enough.size} budgets left out: fewer than 3 sizes")
    if not kept.all():
        flags.append(f"{int((~kept).sum())} of {kept.size} optima left out of the laws: outside the sampled sizes")
    if MIN_OPTIMA <= kept.sum() < 4:
        flags.append(f"laws carried by {int(kept.sum())} optima only")
    if num_runs < 4:
        flags.append(f"only {num_runs} runs")
    return tuple(flags)


def _fit_surface(table: IsoflopTable) -> SurfaceFit | None:
    """The surface over FLOPs per token and tokens, through every reading by least squares, as the paper fits it."""
    rows, columns = np.nonzero(np.isfinite(table.loss))
    size = table.cells(table.flops_per_token)[rows, columns]
    tokens = table.budgets[rows] / size
    if rows.size < 6 or np.unique(size).size < 3 or np.unique(tokens).size < 3:
        return None
    run = columns if table.run is None else table.run[rows, columns]
    return fit_surface(size, tokens, table.loss[rows, columns], run, objective="l2")
