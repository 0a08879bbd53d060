"""The lower envelope of loss curves on a grid of compute: who wins where, laws of the winners, how far these err.

Legend: S draws, R runs in order of size, G points of the grid.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from noiselaw.laws.doubts import surface_laws
from noiselaw.laws.forms import Floats, PowerLaw, fit_lines
from noiselaw.laws.luck import Luck
from noiselaw.laws.optima import Keep, OptimalLaws
from noiselaw.laws.readings import Trajectory, gather_levels
from noiselaw.laws.surface import SurfaceFit


class Winners(NamedTuple):
    """Who holds each point of the grid, [..., G]."""

    run: np.ndarray
    there: np.ndarray
    """Whether any run has been trained to the point."""
    smallest: np.ndarray
    """No smaller size has been trained that far."""
    largest: np.ndarray
    carries: np.ndarray
    """Whether the point carries the laws."""


class Grid(NamedTuple):
    """The runs of one group on a grid of compute."""

    log_flops: Floats
    """[G]"""
    covers: np.ndarray
    """[G, R]: whether the run has readings around the point."""
    log_params: Floats
    """[R]"""
    log_size: Floats
    """[R], FLOPs per token."""
    rank: np.ndarray
    """[R] of the size; runs of one size share it."""

    @classmethod
    def of(cls, curves: Sequence[Trajectory], num_points: int) -> "Grid":
        """From the first reading of any run to the last."""
        size = np.array([curve.flops_per_token for curve in curves])
        ends = size * np.array([curve.tokens[[0, -1]] for curve in curves]).T
        flops = np.geomspace(ends.min(), ends.max(), num_points)
        params = np.array([curve.params for curve in curves])
        grid = cls(np.log(flops), np.empty(0), np.log(params), np.log(size), gather_levels(size).level)
        # Of the very numbers at which losses are read: rounding must not put a covered point beyond a curve's end.
        covers = [curve.covers(at) for curve, at in zip(curves, grid.tokens.T, strict=True)]
        return grid._replace(covers=np.stack(covers, axis=-1))

    @property
    def tokens(self) -> Floats:
        """[G, R]: what each run has seen at each point."""
        return np.exp(self.log_flops[:, None] - self.log_size)

    def thinned(self, step: int) -> "Grid":
        """Every so many-th point."""
        return self._replace(log_flops=self.log_flops[::step], covers=self.covers[::step])

    def winners(self, log_loss: Floats, keep: Keep) -> Winners:
        """Of log losses [..., G, R]."""
        run = np.argmin(np.where(self.covers, log_loss, np.inf), axis=-1)
        smallest = self.rank[run] == np.where(self.covers, self.rank, self.rank.max() + 1).min(-1)
        largest = self.rank[run] == np.where(self.covers, self.rank, -1).max(-1)
        there = np.broadcast_to(self.covers.any(-1), run.shape)
        return Winners(run, there, smallest, largest, there & ~(smallest | largest) if keep == "inside" else there)

    def is_single(self, winners: Winners) -> np.ndarray:
        """[...]: fewer than two sizes carry the laws."""
        rank = self.rank[winners.run]
        lowest = np.where(winners.carries, rank, self.rank.max() + 1).min(-1)
        return lowest >= np.where(winners.carries, rank, -1).max(-1)

    def laws(self, log_loss: Floats, winners: Winners) -> dict[str, Floats]:
        """(log coefficient, exponent) [..., 2] by quantity; NaN where fewer than two sizes carry them."""
        best = np.take_along_axis(log_loss, winners.run[..., None], axis=-1)[..., 0]
        lines = [
            fit_lines(self.log_flops, y, winners.carries)
            for y in (best, self.log_params[winners.run], self.log_size[winners.run])
        ]
        single = self.is_single(winners)[..., None]
        return {name: np.where(single, np.nan, law) for name, law in OptimalLaws(*lines).logs().items()}


_STEP = 5
"""Of the grid that trials use."""
_CHUNK = 2**21
"""Losses held at once."""


def try_envelope(
    grid: Grid, surface: SurfaceFit, luck: Luck, carries: np.ndarray, keep: Keep, *, num_draws: int, seed: int
) -> dict[str, Floats]:
    """By how much the laws of the envelope of a surface's curves miss the surface's own, [S, 2] by quantity.

    The curves are the grid's, each with drawn luck. Laws as (log coefficient, exponent); that of the loss, no power law
    in truth, is the line through the surface's optimum at the points that carry the table's laws.
    """
    trial, generator = grid.thinned(_STEP), np.random.default_rng(seed)
    exact = np.log(surface(np.exp(grid.log_size), np.exp(trial.log_flops[:, None] - grid.log_size)))
    shifts = luck.draw(generator, num_draws, np.arange(grid.rank.size))
    parts = []
    for some in np.array_split(shifts, max(1, num_draws * exact.size // _CHUNK)):
        log_loss = exact + some[:, None, :]
        parts.append(trial.laws(log_loss, trial.winners(log_loss, keep)))
    truth = _optimal_logs(grid, surface, carries)
    return {name: np.concatenate([part[name] for part in parts]) - truth[name] for name in parts[0]}


def _optimal_logs(grid: Grid, surface: SurfaceFit, carries: np.ndarray) -> dict[str, Floats]:
    """(log coefficient, exponent) [2] by quantity, of the surface's optimum."""
    params = PowerLaw.fit(np.exp(grid.log_size), np.exp(grid.log_params))
    laws = surface_laws(surface, params)
    logs = {name: np.array([np.log(law.coefficient), law.exponent]) for name, law in laws.items()}
    flops = np.exp(grid.log_flops)
    size = surface.optimal_size()(flops)
    line = fit_lines(grid.log_flops, np.log(surface(size, flops / size)), carries)
    return logs | {"loss": np.stack(line, axis=-1)}
