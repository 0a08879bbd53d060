"""Losses read along training: rows of a table as curves, and the levels that several of them share.

Readings between rows are smoothed where a curve has points enough (`LossCurve.loss_at_flops`), otherwise lines in logs.
Nothing is extrapolated. Legend: n rows of one curve, K levels.
"""

from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from noiselaw.laws.curves import MIN_CURVE_POINTS, LossCurve
from noiselaw.laws.forms import Floats
from noiselaw.laws.table import RunTable

LEVEL_TOLERANCE = 1e-3
"""Values closer than this, in logs, are one level: steps are whole, so budgets of sizes differ in the last digits."""


@dataclass(frozen=True, slots=True, eq=False)
class Trajectory:
    """Losses [n] of one size (and setting) at tokens [n], rising; where rows share a token count, the lowest."""

    name: str
    params: float
    flops_per_token: float
    tokens: Floats
    loss: Floats
    curve: LossCurve | None = field(init=False)

    def __post_init__(self) -> None:
        enough = self.tokens.size >= MIN_CURVE_POINTS
        curve = LossCurve(self.name, "", self.params, self.flops_per_token, self.tokens, self.loss) if enough else None
        object.__setattr__(self, "curve", curve)

    def covers(self, tokens: ArrayLike) -> np.ndarray:
        """Whether token counts lie between the first and the last row."""
        at = np.asarray(tokens, float)
        return (at >= self.tokens[0]) & (at <= self.tokens[-1])

    def loss_at(self, tokens: ArrayLike) -> Floats:
        """Smoothed loss at token counts, NaN outside the rows."""
        at = np.asarray(tokens, float)
        inside = self.covers(at)
        loss = np.full(at.shape, np.nan)
        if self.curve is not None:
            loss[inside] = self.curve.loss_at_flops(self.flops_per_token * at[inside])
        else:
            loss[inside] = np.exp(np.interp(np.log(at[inside]), np.log(self.tokens), np.log(self.loss)))
        return loss

    def tokens_at(self, losses: ArrayLike) -> Floats:
        """The tokens [K] after which the smoothed loss is first down to targets [K]; NaN where it never crosses them.

        Two grids, the second inside the step of the first, then a line in logs: exact to 1e-8 for curves as smooth as
        these.
        """
        targets = np.atleast_1d(np.asarray(losses, float))[:, None]
        first, last = np.log(self.tokens[[0, -1]])
        grid = np.linspace(first, last, _COARSE)
        step = np.argmax(self._loss_at_logs(grid) <= targets, axis=-1)
        # A target never reached, or reached before the first row, has step 0.
        fine = np.linspace(grid[np.maximum(step - 1, 0)], grid[step], _FINE, axis=-1)
        loss = self._loss_at_logs(fine)
        after = np.maximum(np.argmax(loss <= targets, axis=-1), 1)[:, None]
        (x0, y0), (x1, y1) = (
            (np.take_along_axis(fine, at, -1), np.take_along_axis(np.log(loss), at, -1)) for at in (after - 1, after)
        )
        with np.errstate(divide="ignore", invalid="ignore"):
            crossing = (x0 + (x1 - x0) * (np.log(targets) - y0) / (y1 - y0))[:, 0]
        return np.where(step > 0, np.exp(crossing), np.nan)

    def _loss_at_logs(self, log_tokens: Floats) -> Floats:
        # Rounding must not push the ends off the curve.
        return self.loss_at(np.clip(np.exp(log_tokens), self.tokens[0], self.tokens[-1]))


_COARSE = 257
_FINE = 33


def trajectories(table: RunTable) -> list[Trajectory]:
    """The runs of one group as curves, in order of size. Raises ValueError for a run of several sizes."""
    names = dict.fromkeys(table.run.tolist())
    curves = [trajectory_of(table.rows(table.run == name)) for name in names]
    return sorted(curves, key=lambda curve: (curve.flops_per_token, curve.params))


def trajectory_of(rows: RunTable) -> Trajectory:
    """All rows as one curve, under the first one's name. Raises ValueError where they are not of one size."""
    name = str(rows.run[0])
    for column, sizes in (("params", rows.params), ("flops_per_token", rows.flops_per_token)):
        if np.ptp(sizes) > LEVEL_TOLERANCE * sizes.min():
            raise ValueError(
                f"run {name}: {column} is {sizes.min():.6g} and {sizes.max():.6g}; "
                "one run has one size: correct the rows or name the runs apart"
            )
    tokens, position = np.unique(rows.tokens, return_inverse=True)
    loss = np.full(tokens.size, np.inf)
    np.minimum.at(loss, position, rows.loss)
    return Trajectory(name, float(rows.params[0]), float(rows.flops_per_token[0]), tokens, loss)


class Levels(NamedTuple):
    """Values [n] gathered into levels."""

    values: Floats
    """[K], rising: the geometric mean of each level's members."""
    level: np.ndarray
    """[n]: the level of every row."""


def gather_levels(values: Floats) -> Levels:
    """Chains of values that differ by less than LEVEL_TOLERANCE in logs become one level."""
    logs = np.log(values)
    order = np.argsort(logs, kind="stable")
    starts = np.diff(logs[order], prepend=-np.inf) > LEVEL_TOLERANCE
    index = np.empty(values.size, dtype=int)
    index[order] = np.cumsum(starts) - 1
    counts = np.bincount(index)
    return Levels(np.exp(np.bincount(index, logs) / counts), index)


def label_sizes(table: RunTable) -> np.ndarray:
    """[n]: 0 for the rows of the smallest size, 1 for the next."""
    levels = [gather_levels(column).level for column in (table.flops_per_token, table.params)]
    return np.unique(np.stack(levels, axis=-1), axis=0, return_inverse=True)[1].reshape(-1)
