"""Tables of losses that isoFLOP fits start from: read off loss curves of runs, or given as points.

C = M * D: training FLOPs, training FLOPs per token, tokens. Losses are nats per token.
Legend: K budgets, R runs of one group, n points.
"""

import math
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from noiselaw.laws.forms import Floats, SaturatingCurve, fit_lines, fit_saturating_curves

MIN_CURVE_POINTS = 4
"""Fewer validations do not carry a smoothed curve."""


@dataclass(frozen=True, slots=True, eq=False)
class LossCurve:
    """One run: its size and its validation losses, in the order of training."""

    run: str
    group: str
    """What laws are fitted for, one by one: a noise, an objective."""
    params: float
    """Non-embedding parameters P."""
    flops_per_token: float
    """Training FLOPs per token M, by the caller's convention."""
    tokens: Floats
    loss: Floats
    _smoothed: "_Smoothing | None" = field(default=None, init=False, repr=False)
    """Found at the first reading and kept."""

    def __post_init__(self) -> None:
        """Check the curve. Raises ValueError naming the run, the value and the remedy."""
        _check(self, "params", np.array([self.params]))
        _check(self, "flops_per_token", np.array([self.flops_per_token]))
        _check(self, "tokens", self.tokens)
        _check(self, "loss", self.loss)
        if self.tokens.shape != self.loss.shape or self.tokens.ndim != 1:
            raise ValueError(
                f"run {self.run}: {self.tokens.size} tokens but {self.loss.size} losses; give one loss per token count"
            )
        if self.tokens.size < MIN_CURVE_POINTS:
            raise ValueError(
                f"run {self.run}: {self.tokens.size} validations; a loss curve needs at least {MIN_CURVE_POINTS}"
            )
        if not (np.diff(self.tokens) > 0).all():
            raise ValueError(f"run {self.run}: tokens do not grow from row to row; drop duplicate or unordered rows")

    @property
    def flops(self) -> Floats:
        return self.flops_per_token * self.tokens

    def covers(self, flops: float) -> bool:
        """Whether the budget lies between the first and the last validation (one step of slack at the end)."""
        return self.flops[0] <= flops <= self.flops[-1] * (1 + _END_SLACK)

    def loss_at_flops(self, flops: ArrayLike) -> Floats:
        """Loss at budgets C, smoothed: L(t) = C + B t^-b through the curve, plus a local line through what it misses.

        The local part enters only where it foretells left-out validations better than nothing: the form alone would
        carry a kink of early training to the end of the run, local lines alone the noise of a few validations. Raises
        ValueError outside the run's validations: nothing is extrapolated.
        """
        budgets = np.asarray(flops, float)
        for budget in (budgets.min(), budgets.max()) if budgets.size else ():
            if not self.covers(budget):
                raise ValueError(
                    f"run {self.run}: budget {budget:.4g} FLOPs lies outside its validations "
                    f"({self.flops[0]:.4g} to {self.flops[-1]:.4g}); train longer, validate earlier or drop the budget"
                )
        if self._smoothed is None:
            object.__setattr__(self, "_smoothed", _Smoothing.of(self.tokens, self.loss))
        assert self._smoothed is not None
        return self._smoothed.at(budgets / self.flops_per_token)


class _Smoothing(NamedTuple):
    """The form through a curve, and what it misses where local lines foretell that."""

    trend: SaturatingCurve
    log_tokens: Floats
    missed: Floats | None

    @classmethod
    def of(cls, tokens: Floats, loss: Floats, trend: SaturatingCurve | None = None) -> "_Smoothing":
        trend = trend or SaturatingCurve.fit(tokens, loss)
        log_tokens, missed = np.log(tokens), np.log(loss / trend(tokens))
        left_out = missed - _local_lines(log_tokens, missed, log_tokens, leave_out=True)
        return cls(trend, log_tokens, missed if (left_out**2).sum() < (missed**2).sum() else None)

    def at(self, tokens: Floats) -> Floats:
        if self.missed is None:
            return self.trend(tokens)
        return self.trend(tokens) * np.exp(_local_lines(self.log_tokens, self.missed, np.log(tokens)))


def smooth(curves: Iterable[LossCurve]) -> None:
    """Find the smoothing of many curves at once, which takes a hundredth of the time of one by one."""
    by_length: dict[int, list[LossCurve]] = {}
    for curve in curves:
        if curve._smoothed is None:  # noqa: SLF001  this file's own
            by_length.setdefault(curve.tokens.size, []).append(curve)
    for some in by_length.values():
        trends = fit_saturating_curves([curve.tokens for curve in some], [curve.loss for curve in some])
        for curve, trend in zip(some, trends, strict=True):
            object.__setattr__(curve, "_smoothed", _Smoothing.of(curve.tokens, curve.loss, trend))


_END_SLACK = 0.01
_LOCAL_POINTS = 5.0


def _local_lines(x: Floats, y: Floats, at: Floats, *, leave_out: bool = False) -> Floats:
    """Weighted lines through about five neighbours (tricube weights), each read where it is centred.

    `leave_out` gives a point that is read at its own x no weight of its own.
    """
    distance = np.abs(x - at[..., None])
    if leave_out:
        distance = np.where(distance == 0, np.inf, distance)
    reach = _LOCAL_POINTS / 2 * (x[-1] - x[0]) / (x.size - 1)
    nearest = np.sort(distance, axis=-1)[..., min(3, x.size - 2)]
    width = np.maximum(reach, 1.001 * nearest)[..., None]
    weights = (1.0 - np.minimum(distance / width, 1.0) ** 3) ** 3
    return fit_lines(x, y, weights).at(at)


_ONE_SIZE = 1e-3
"""FLOPs per token closer than this, in logs, are those of one size."""


@dataclass(frozen=True, slots=True, eq=False)
class IsoflopTable:
    """Losses of one group at common budgets: a column for every run, or cells of their own (`run`)."""

    group: str
    runs: tuple[str, ...]
    params: Floats
    """[R], or [K, R] by cell"""
    flops_per_token: Floats
    """[R], or [K, R] by cell"""
    budgets: Floats
    """[K], rising"""
    loss: Floats
    """[K, R], NaN where a run has no reading at a budget"""
    run: NDArray[np.int_] | None = None
    """[K, R]: which of `runs` each cell is read off; None where columns are runs."""

    @property
    def num_sizes(self) -> NDArray[np.int_]:
        """[K]: distinct sizes with a reading at each budget; several readings of one size count once."""
        sizes = np.where(np.isfinite(self.loss), np.log(self.cells(self.flops_per_token)), math.nan)
        return (np.diff(np.sort(sizes, axis=-1), prepend=-math.inf, axis=-1) > _ONE_SIZE).sum(-1)

    def cells(self, column: Floats) -> Floats:
        """A column of sizes as [K, R]."""
        return np.broadcast_to(column, self.loss.shape)

    def run_name(self, budget: int, column: int) -> str:
        return self.runs[column if self.run is None else int(self.run[budget, column])]

    def keep(self, budgets: NDArray[np.bool_]) -> "IsoflopTable":
        """The budgets where the mask [K] is true."""
        params, flops_per_token = (
            column if column.ndim == 1 else column[budgets] for column in (self.params, self.flops_per_token)
        )
        return replace(
            self,
            budgets=self.budgets[budgets],
            loss=self.loss[budgets],
            params=params,
            flops_per_token=flops_per_token,
            run=None if self.run is None else self.run[budgets],
        )


def tabulate_curves(curves: Iterable[LossCurve], budgets: Sequence[float]) -> dict[str, IsoflopTable]:
    """Read every run off at every budget that lies on its curve. Groups in order of appearance.

    Raises ValueError for budgets that are not positive, or runs of one group with the same name.
    """
    levels = np.unique(np.asarray(budgets, float))
    if not levels.size or not (np.isfinite(levels) & (levels > 0)).all():
        raise ValueError(f"budgets {list(budgets)}: give positive FLOPs")
    groups: dict[str, list[LossCurve]] = {}
    for curve in curves:
        groups.setdefault(curve.group, []).append(curve)
    return {group: _tabulate_group(group, members, levels) for group, members in groups.items()}


def tabulate_points(
    *,
    group: Sequence[str],
    params: ArrayLike,
    flops_per_token: ArrayLike,
    flops: ArrayLike,
    loss: ArrayLike,
    run: Sequence[str] | None = None,
) -> dict[str, IsoflopTable]:
    """Points [n] with budgets as given. Without `run`, all points of one size count as one run.

    Raises ValueError for columns of unequal length, values that are not positive and finite, one size with two values
    of FLOPs per token, or two rows for the same run and budget.
    """
    columns = {"params": params, "flops_per_token": flops_per_token, "flops": flops, "loss": loss}
    values = {name: np.asarray(column, float) for name, column in columns.items()}
    for name, column in values.items():
        if column.shape != (len(group),):
            raise ValueError(f"column {name} has {column.size} rows but group has {len(group)}; give one value per row")
        _refuse_bad_rows(name, column)
    names = [f"P={size:.6g}" for size in values["params"]] if run is None else list(run)
    rows = np.asarray(group)
    return {str(name): _tabulate_rows(str(name), rows == name, names, values) for name in dict.fromkeys(rows.tolist())}


def _tabulate_group(group: str, curves: list[LossCurve], budgets: Floats) -> IsoflopTable:
    names = [curve.run for curve in curves]
    twice = {name for name, count in Counter(names).items() if count > 1}
    if twice:
        raise ValueError(f"group {group}: run {min(twice)!r} appears twice; give each run once, under its own name")
    curves = sorted(curves, key=lambda curve: curve.flops_per_token)
    loss = np.full((budgets.size, len(curves)), math.nan)
    smooth(curves)
    for column, curve in enumerate(curves):
        on_curve = np.array([curve.covers(budget) for budget in budgets])
        loss[on_curve, column] = curve.loss_at_flops(budgets[on_curve])
    return IsoflopTable(
        group=group,
        runs=tuple(curve.run for curve in curves),
        params=np.array([curve.params for curve in curves], float),
        flops_per_token=np.array([curve.flops_per_token for curve in curves], float),
        budgets=budgets,
        loss=loss,
    )


def _tabulate_rows(group: str, mine: np.ndarray, names: list[str], values: dict[str, Floats]) -> IsoflopTable:
    rows = np.flatnonzero(mine)
    by_run: dict[str, int] = {}
    for row in rows[np.argsort(values["flops_per_token"][rows], kind="stable")]:
        first = by_run.setdefault(names[row], int(row))
        for size in ("params", "flops_per_token"):
            if values[size][first] != values[size][row]:
                raise ValueError(
                    f"group {group}, run {names[row]}: {size} is {values[size][first]:.6g} "
                    f"and {values[size][row]:.6g}; one run has one size: correct the rows or name the runs apart"
                )
    budgets = np.unique(values["flops"][rows])
    loss = np.full((budgets.size, len(by_run)), math.nan)
    column = {name: index for index, name in enumerate(by_run)}
    for row in rows:
        cell = np.searchsorted(budgets, values["flops"][row]), column[names[row]]
        if not math.isnan(loss[cell]):
            raise ValueError(
                f"group {group}, run {names[row]}: two rows at {values['flops'][row]:.6g} FLOPs; keep one of them"
            )
        loss[cell] = values["loss"][row]
    firsts = list(by_run.values())
    return IsoflopTable(
        group, tuple(by_run), values["params"][firsts], values["flops_per_token"][firsts], budgets, loss
    )


def _check(curve: LossCurve, name: str, values: Floats) -> None:
    bad = values[~(np.isfinite(values) & (values > 0))]
    if bad.size:
        raise ValueError(f"run {curve.run}: {name} holds {bad.flat[0]}; it must be positive and finite: drop such rows")


def _refuse_bad_rows(name: str, values: Floats) -> None:
    bad = np.flatnonzero(~(np.isfinite(values) & (values > 0)))
    if bad.size:
        raise ValueError(
            f"column {name}, row {bad[0]}: {values[bad[0]]} is not positive and finite; drop or correct the row"
        )
