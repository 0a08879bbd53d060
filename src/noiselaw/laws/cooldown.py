"""What annealing the learning rate is worth: the factor between losses of runs without and with a cooldown.

The paper finds it constant, 1.0245 (`published.COOLDOWN_FACTOR`), so laws may be fitted to runs without a cooldown and
divided by it. Whether it is constant is tested, not assumed. Legend: n pairs.
"""

import math
from collections.abc import Hashable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from noiselaw.laws.bootstrap import LEVEL, student_quantile
from noiselaw.laws.forms import Floats, fit_lines
from noiselaw.laws.lawfits import flat_record, interval_records
from noiselaw.laws.luck import split_luck
from noiselaw.laws.readings import gather_levels, trajectory_of
from noiselaw.laws.table import RunTable

DRIFTS = "the factor drifts with compute: its slope's interval excludes 0"
ONE_PARTNER = "all pairs share the runs without a cooldown: their luck is in no interval of the factor"


@dataclass(frozen=True, slots=True)
class CooldownPair:
    """Losses of runs that differ in nothing but the cooldown, after the same tokens."""

    run: str
    """With the cooldown."""
    params: float
    tokens: float
    flops: float
    loss_without: float
    loss_with: float
    ratio: float


@dataclass(frozen=True, slots=True)
class CooldownFit:
    """The factor of one group and whether it drifts."""

    group: str
    factor: float
    """Geometric mean of loss without over loss with a cooldown."""
    slope: float | None
    """Of the log ratio over log C; None for fewer than 2 compute levels."""
    intervals: Mapping[str, tuple[float, float] | None]
    """95 %, of factor and slope; None without spare pairs."""
    pairs: tuple[CooldownPair, ...]
    flags: tuple[str, ...]

    def record(self) -> dict[str, Any]:
        """Plain JSON: "parameters" (factor, slope), their "intervals", "flags" and flat "pairs"."""
        return {
            "parameters": {"factor": self.factor, "slope": self.slope},
            "intervals": interval_records(self.intervals),
            "flags": list(self.flags),
            "pairs": [flat_record(pair) for pair in self.pairs],
        }


def fit_cooldown(table: RunTable, *, tolerance: float = 0.01) -> dict[str, CooldownFit]:
    """The cooldown factor of every group, from pairs of equal size, batch, learning rate, unique data and tokens.

    Factor: exp(mean(log(loss without / loss with))). The last annealed row of every run is held against runs without a
    cooldown: their loss at its tokens lies on a row (within `tolerance` of its tokens) or between two rows of one run,
    where it is interpolated in logs. Several such runs (seeds) count by their geometric mean.

    Intervals are Student's t. Pairs of one setting are held against the same runs without a cooldown, whose luck they
    share: the factor is as uncertain as the sums over settings say, one degree of freedom less than settings; for the
    slope of the log ratio over log C the luck of settings and that of single pairs are told apart (`luck.split_luck`),
    which is n - 2 degrees where every pair has a setting of its own. A slope whose interval excludes 0 is flagged.
    Raises ValueError for a table without a cooldown column or
    a group without pairs.
    """
    if table.cooldown is None:
        raise ValueError("the table has no cooldown column; name the one that says which rows were annealed")
    return {group: _fit_group(group, *_pairs(rows, tolerance)) for group, rows in table.groups()}


def _pairs(rows: RunTable, tolerance: float) -> tuple[list[CooldownPair], np.ndarray]:
    """The last annealed row of every run, with its partners' loss, and the number [n] of the setting of each."""
    found = list(_find_pairs(rows, tolerance))
    known = list(dict.fromkeys(setting for _, setting in found))
    return [pair for pair, _ in found], np.array([known.index(setting) for _, setting in found], dtype=int)


def _find_pairs(rows: RunTable, tolerance: float) -> Iterator[tuple[CooldownPair, Hashable]]:
    settings = _settings(rows)
    annealed = np.asarray(rows.cooldown, bool)
    plain: dict[Hashable, list[np.ndarray]] = {}
    for name in dict.fromkeys(rows.run[~annealed].tolist()):
        members = np.flatnonzero((rows.run == name) & ~annealed)
        plain.setdefault(settings[members[0]], []).append(members)
    for name in dict.fromkeys(rows.run[annealed].tolist()):
        members = np.flatnonzero((rows.run == name) & annealed)
        last = members[np.argmax(rows.tokens[members])]
        losses = [
            _loss_at(rows, partner, float(rows.tokens[last]), tolerance) for partner in plain.get(settings[last], [])
        ]
        found = [loss for loss in losses if loss is not None]
        if found:
            without = math.exp(float(np.mean(np.log(found))))
            pair = CooldownPair(
                run=name,
                params=float(rows.params[last]),
                tokens=float(rows.tokens[last]),
                flops=float(rows.flops[last]),
                loss_without=without,
                loss_with=float(rows.loss[last]),
                ratio=without / float(rows.loss[last]),
            )
            yield pair, settings[last]


def _settings(rows: RunTable) -> list[Hashable]:
    """What a pair must share, per row: every column that the table has, values within 0.1 % being equal."""
    columns = (rows.params, rows.flops_per_token, rows.batch_tokens, rows.learning_rate, rows.unique_tokens)
    return list(zip(*(gather_levels(column).level.tolist() for column in columns if column is not None), strict=True))


def _loss_at(rows: RunTable, members: np.ndarray, tokens: float, tolerance: float) -> float | None:
    """The loss of one run without a cooldown after that many tokens; None where it has no row there or around."""
    curve = trajectory_of(rows.rows(members))
    nearest = int(np.argmin(np.abs(np.log(curve.tokens / tokens))))
    if abs(math.log(curve.tokens[nearest] / tokens)) <= tolerance:
        return float(curve.loss[nearest])
    if curve.covers(tokens):
        return float(np.exp(np.interp(math.log(tokens), np.log(curve.tokens), np.log(curve.loss))))
    return None


def _fit_group(group: str, pairs: list[CooldownPair], setting: np.ndarray) -> CooldownFit:
    if not pairs:
        raise ValueError(
            f"group {group}: no run with a cooldown has a partner of the same size, batch, learning rate and tokens "
            "without one; add such runs or leave out the columns that tell them apart"
        )
    logs = np.log([pair.ratio for pair in pairs])
    x = np.log([pair.flops for pair in pairs])
    mean = float(logs.mean())
    factor = _around(mean, *_mean_error(logs - mean, setting))
    slope, drift = _drift(x, logs, setting)
    raised = {
        f"only {len(pairs)} pairs": len(pairs) < 3,
        "no interval: a single pair": len(pairs) < 2,
        ONE_PARTNER: len(pairs) > 1 and setting.max() == 0,
        DRIFTS: drift is not None and not drift[0] <= 0 <= drift[1],
        "the factor is below 1: the cooldown raised the loss": mean < 0,
    }
    return CooldownFit(
        group=group,
        factor=math.exp(mean),
        slope=slope,
        intervals={"factor": factor and (math.exp(factor[0]), math.exp(factor[1])), "slope": drift},
        pairs=tuple(pairs),
        flags=tuple(flag for flag, is_raised in raised.items() if is_raised),
    )


def _mean_error(residuals: Floats, setting: np.ndarray) -> tuple[float, float]:
    """Standard error of a mean, from its residuals [n], and its degrees of freedom; by pairs where one setting is."""
    cluster = setting if setting.max() > 0 else np.arange(residuals.size)
    sums = np.bincount(cluster, residuals) / residuals.size
    freedom = sums.size - 1
    return math.sqrt(float((sums**2).sum()) * sums.size / max(freedom, 1)), freedom


def _drift(x: Floats, logs: Floats, setting: np.ndarray) -> tuple[float | None, tuple[float, float] | None]:
    """Slope of the log ratio over log C, and its interval."""
    if gather_levels(np.exp(x)).values.size < 2:
        return None, None
    line, u = fit_lines(x, logs), x - x.mean()
    luck = split_luck(logs - line.at(x), np.stack([np.ones(x.size), u]), setting)
    weights = u / (u**2).sum()
    between = luck.between_runs**2 * float((np.bincount(setting, weights) ** 2).sum())
    within = luck.within_runs**2 * float((weights**2).sum())
    # Of the sum of two estimated variances (Satterthwaite).
    squares = sum(
        part**2 / freedom for part, freedom in ((between, luck.run_freedom), (within, luck.row_freedom)) if part
    )
    freedom = (between + within) ** 2 / squares if squares else x.size - 2
    return float(line.slope), _around(float(line.slope), math.sqrt(between + within), freedom)


def _around(value: float, error: float, freedom: float) -> tuple[float, float] | None:
    """The interval; None without freedom."""
    if freedom < 1 - 1e-9:
        return None
    half = student_quantile(LEVEL, freedom + 1e-9) * error
    return value - half, value + half
