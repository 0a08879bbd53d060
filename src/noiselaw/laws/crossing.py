"""Where one group overtakes another: in compute, in tokens, or in unique data at a given compute.

Both groups' laws are held against each other, and draws of the one against draws of the other: the interval says how
well the crossing is known, the share of draws how sure it is that there is one. "No crossing in this range" is an
answer. Legend: S draws, G points of a grid of log x, x what the crossing is sought in.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from itertools import combinations
from typing import Any, Literal, NamedTuple

import numpy as np

from noiselaw.laws.bootstrap import LEVEL, MOST_DRAWS
from noiselaw.laws.forms import Floats, Lines
from noiselaw.laws.isoflop import fit_isoflop_table
from noiselaw.laws.lawfits import LawFit, listed
from noiselaw.laws.repeated import NAMES, RepeatedFit, fit_repeated, repeated_loss
from noiselaw.laws.table import RunTable
from noiselaw.laws.tokens import fit_tokens

Over = Literal["flops", "tokens", "unique_tokens"]

REACH = 1e3
"""How far beyond the data crossings are sought by default."""


@dataclass(frozen=True, slots=True)
class Crossing:
    """Whether and where two groups' losses cross."""

    first: str
    second: str
    over: Over
    within: tuple[float, float]
    """Where it was sought."""
    data: tuple[float, float]
    """Where both groups have data."""
    at: float | None
    """The smallest x at which the losses are equal; None without one."""
    loss: float | None
    """Of both there, nats per token."""
    interval: tuple[float, float] | None
    """95 % of `at`, over the draws that have such a crossing."""
    share_of_draws: float | None
    """How many cross within the range: the same way round as the estimate, or at all where it does not."""
    leader_below: str | None
    """The group of lower loss at the lower end of the range."""
    leader_above: str | None
    extrapolation_factor: float | None
    """How far outside the data the crossing lies; 1 inside."""
    flags: tuple[str, ...]

    def record(self) -> dict[str, Any]:
        """Plain JSON; "parameters" and "intervals" hold the crossing itself."""
        return {
            "parameters": {
                "crossing": self.at,
                "loss": self.loss,
                "share_of_draws": self.share_of_draws,
                "extrapolation_factor": self.extrapolation_factor,
            },
            "intervals": {"crossing": listed(self.interval)},
            "over": self.over,
            "within": list(self.within),
            "data": list(self.data),
            "leader_below": self.leader_below,
            "leader_above": self.leader_above,
            "flags": list(self.flags),
        }


def find_crossings(
    table: RunTable,
    *,
    over: Over = "flops",
    groups: tuple[str, str] | None = None,
    within: tuple[float, float] | None = None,
    flops: float | None = None,
    num_draws: int = 10_000,
    seed: int = 0,
) -> dict[str, Crossing]:
    """The crossing of every pair of groups (or of `groups`), by "first | second".

    `over` flops: isoFLOP laws L*(C). `over` tokens: data-bound laws L*(D). `over` unique_tokens: at compute `flops`
    (default: the largest in the table) and U unique tokens the least loss of the repeated-data law over the size, the
    epochs following from C = M D. Sought `within` a range, by default a thousandfold beyond the data on both sides.

    Draws of power laws are normal with the laws' covariance, as wide as Student's t where that comes from run-to-run
    scatter (common to the groups); those of the repeated-data law are its bootstrap. Groups are drawn independently.

    Raises ValueError for fewer than two groups, an unknown group, a range that is not 0 < low < high, or `flops` with
    another `over`.
    """
    _refuse_options(over, within, flops)
    chosen = _choose_groups(table, groups)
    table = table.rows(np.isin(table.group, chosen))
    generator = np.random.default_rng(seed)
    if over == "unique_tokens":
        sides = _repeated_sides(table, flops or float(table.flops.max()), min(num_draws, MOST_DRAWS), seed)
    else:
        sides = _law_sides(table, over, num_draws, generator)
    return {
        f"{first} | {second}": _cross((first, second), (sides[first], sides[second]), over, within)
        for first, second in combinations(chosen, 2)
    }


class _Side(NamedTuple):
    """One group's log loss as a function of log x."""

    data: tuple[float, float]
    log_loss: Callable[[Floats], Floats] | None
    """[1, G] -> [1, G]; None for a group without a law."""
    draws: Callable[[Floats], Floats] | None
    """[1, G] or [S, G] -> [S, G]; None for a law without an interval."""


def _law_sides(table: RunTable, over: Over, num_draws: int, generator: np.random.Generator) -> dict[str, _Side]:
    laws: Mapping[str, tuple[LawFit | None, int, tuple[float, float]]]
    if over == "flops":
        fits = fit_isoflop_table(table, num_draws=num_draws)
        laws = {
            group: (fit.laws.get("loss"), fit.degrees_of_freedom, _ends([optimum.budget for optimum in fit.optima]))
            for group, fit in fits.items()
        }
    else:
        laws = {
            group: (fit.laws.get("loss"), fit.degrees_of_freedom, _ends([optimum.tokens for optimum in fit.optima]))
            for group, fit in fit_tokens(table, num_draws=num_draws).items()
        }
    freedom = max((freedom for _, freedom, _ in laws.values()), default=0)
    widening = (
        np.sqrt(freedom / generator.chisquare(freedom, num_draws))[:, None] if freedom else np.ones((num_draws, 1))
    )
    return {group: _law_side(law, data, widening, generator) for group, (law, _, data) in laws.items()}


def _law_side(fit: LawFit | None, data: tuple[float, float], widening: Floats, generator: np.random.Generator) -> _Side:
    if fit is None:
        return _Side(data, None, None)
    line = np.array([math.log(fit.law.coefficient), fit.law.exponent])
    if fit.covariance is None:
        return _Side(data, Lines(*line).at, None)
    variance, shared, slope_variance = fit.covariance
    covariance = np.array([[variance, shared], [shared, slope_variance]])
    # Intercept and slope are nearly collinear far from log x = 0: rounding must not make a variance negative.
    values, axes = np.linalg.eigh(covariance)
    normal = generator.standard_normal((len(widening), 2)) * np.sqrt(np.maximum(values, 0.0))
    drawn = line + widening * (normal @ axes.T)
    return _Side(data, Lines(*line).at, Lines(*drawn.T[..., None]).at)


def _ends(values: list[float]) -> tuple[float, float]:
    return (min(values), max(values)) if values else (math.nan, math.nan)


def _repeated_sides(table: RunTable, flops: float, num_draws: int, seed: int) -> dict[str, _Side]:
    fits = fit_repeated(table, size="flops_per_token", num_draws=num_draws, seed=seed)
    return {group: _repeated_side(fits[group], rows, flops) for group, rows in table.groups()}


def _repeated_side(fit: RepeatedFit, rows: RunTable, flops: float) -> _Side:
    assert rows.unique_tokens is not None
    estimate = np.array([[fit.parameters.get(name, 0.0) for name in NAMES]])
    data = float(rows.unique_tokens.min()), float(rows.unique_tokens.max())
    return _Side(
        data,
        lambda log_x: _least_log_loss(estimate, flops, log_x),
        (lambda log_x: _least_log_loss(fit.draws, flops, log_x)) if len(fit.draws) else None,
    )


_SIZES = np.linspace(0.0, 1.0, 17)
_ROUNDS = 3
_CHUNK = 2**18


def _least_log_loss(parameters: Floats, flops: float, log_unique: Floats) -> Floats:
    """Log of the least loss [S, G] over the size M at C = M D, for parameters [S, 7] and U [1, G] or [S, G].

    The optimum lies above a tenth of the size that is optimal with fresh data; above the size at which C spends every
    token once, larger models only lose. Searched on a grid of log M, narrowed to the neighbours of the best.
    """
    num_points = log_unique.shape[-1]
    parts = np.array_split(np.arange(len(parameters)), max(1, len(parameters) * num_points // _CHUNK))
    unique = np.broadcast_to(log_unique, (len(parameters), num_points))
    return np.concatenate([_search_sizes(parameters[part], flops, unique[part]) for part in parts])


def _search_sizes(parameters: Floats, flops: float, log_unique: Floats) -> Floats:
    _, A, alpha, B, beta, *_ = (column[:, None] for column in parameters.T)
    fresh = (np.log(alpha * A / (beta * B)) + beta * math.log(flops)) / (alpha + beta)
    low = np.broadcast_to(fresh - math.log(10.0), log_unique.shape)
    high = np.maximum(fresh, math.log(flops) - log_unique) + math.log(10.0)

    def losses(low: Floats, high: Floats) -> tuple[Floats, Floats, np.ndarray]:
        """Sizes between the bounds, their losses, and which is the lowest that has neighbours."""
        log_size = low[..., None] + (high - low)[..., None] * _SIZES
        size = np.exp(log_size)
        loss = repeated_loss(parameters[:, None, None, :], size, flops / size, np.exp(log_unique)[..., None])
        return log_size, loss, np.clip(np.argmin(loss, axis=-1), 1, _SIZES.size - 2)[..., None]

    log_size, loss, best = losses(low, high)
    for _ in range(_ROUNDS - 1):
        log_size, loss, best = losses(*(np.take_along_axis(log_size, best + side, -1)[..., 0] for side in (-1, 1)))
    before, least, after = (np.take_along_axis(loss, best + side, -1)[..., 0] for side in (-1, 0, 1))
    bend = before - 2.0 * least + after
    with np.errstate(divide="ignore", invalid="ignore"):
        least = np.where(bend > 0, least - (after - before) ** 2 / (8.0 * bend), least)
    return np.log(least)


class _Found(NamedTuple):
    """The first crossing of every draw."""

    log_x: Floats
    """[S], NaN without one."""
    first_leads: np.ndarray
    """[S]: below the crossing."""
    several: np.ndarray
    """[S]: more follow."""


def _first_crossing(difference: Callable[[Floats], Floats], ends: Floats, num_points: int) -> _Found:
    """Where the difference of log losses [S, G] first changes its sign: a grid, narrowed twice, then a line."""
    grid = np.linspace(ends[0], ends[1], num_points)[None]
    values = difference(grid)
    changes = (values[:, 1:] > 0) != (values[:, :-1] > 0)
    at = np.argmax(changes, axis=-1)
    low, high = grid[0, at], grid[0, at + 1]
    leads = np.take_along_axis(values, at[:, None], -1)[:, 0] < 0
    for _ in range(_NARROWINGS):
        grid = np.linspace(low, high, _NARROW_POINTS, axis=-1)
        values = difference(grid)
        at = np.argmax((values[:, 1:] > 0) != (values[:, :-1] > 0), axis=-1)[:, None]
        low, high = (np.take_along_axis(grid, at + side, -1)[:, 0] for side in (0, 1))
    before, after = (np.take_along_axis(values, at + side, -1)[:, 0] for side in (0, 1))
    with np.errstate(divide="ignore", invalid="ignore"):
        log_x = low - before * (high - low) / (after - before)
    return _Found(np.where(changes.any(-1), log_x, np.nan), leads, changes.sum(-1) > 1)


_ESTIMATE_POINTS = 257
_DRAW_POINTS = 17
_NARROW_POINTS = 9
_NARROWINGS = 2


def _cross(
    pair: tuple[str, str], sides: tuple[_Side, _Side], over: Over, within: tuple[float, float] | None
) -> Crossing:
    data = _shared(*(side.data for side in sides))
    within = within or (data[0] / REACH, data[1] * REACH)
    unknown = Crossing(
        *pair, over, within, data, None, None, None, None, None, None, None,
        tuple(f"group {group} has no law" for group, side in zip(pair, sides, strict=True) if side.log_loss is None),
    )  # fmt: skip
    first, second = (side.log_loss for side in sides)
    if first is None or second is None:
        return unknown
    ends = np.log(within)
    found = _first_crossing(lambda log_x: first(log_x) - second(log_x), ends, _ESTIMATE_POINTS)
    log_x = float(found.log_x[0])
    crosses = math.isfinite(log_x)
    drawn = _draw_crossings(sides, ends)
    share, interval = (None, None) if drawn is None else _summary(found, drawn)
    below, above = (first(ends[None]) - second(ends[None]))[0] < 0
    return replace(
        unknown,
        at=math.exp(log_x) if crosses else None,
        loss=math.exp(first(found.log_x[None])[0, 0]) if crosses else None,
        interval=interval,
        share_of_draws=share,
        leader_below=pair[0] if below else pair[1],
        leader_above=pair[0] if above else pair[1],
        extrapolation_factor=_distance(math.exp(log_x), data) if crosses else None,
        flags=_flags(found, within, data, share),
    )


def _draw_crossings(sides: tuple[_Side, _Side], ends: Floats) -> _Found | None:
    first, second = (side.draws for side in sides)
    if first is None or second is None:
        return None
    return _first_crossing(lambda log_x: first(log_x) - second(log_x), ends, _DRAW_POINTS)


def _summary(found: _Found, drawn: _Found) -> tuple[float, tuple[float, float] | None]:
    """The share of draws that cross, and the central 95 % of their crossings; only those the estimate's way round."""
    crosses = np.isfinite(drawn.log_x)
    if not np.isfinite(found.log_x[0]):
        return float(crosses.mean()), None
    alike = crosses & (drawn.first_leads == found.first_leads[0])
    if alike.sum() < 2:
        return float(alike.mean()), None
    low, high = np.quantile(drawn.log_x[alike], [0.5 - LEVEL / 2, 0.5 + LEVEL / 2])
    return float(alike.mean()), (math.exp(low), math.exp(high))


def _shared(first: tuple[float, float], second: tuple[float, float]) -> tuple[float, float]:
    """Where both have data; where nowhere, from the lowest of either to the highest."""
    low, high = max(first[0], second[0]), min(first[1], second[1])
    return (low, high) if low <= high else (high, low)


def _distance(x: float, data: tuple[float, float]) -> float:
    return max(1.0, data[0] / x, x / data[1])


def _flags(
    found: _Found, within: tuple[float, float], data: tuple[float, float], share: float | None
) -> tuple[str, ...]:
    log_x = float(found.log_x[0])
    crosses = math.isfinite(log_x)
    distance = _distance(math.exp(log_x), data) if crosses else 1.0
    raised = {
        f"no crossing within {within[0]:.3g} to {within[1]:.3g}": not crosses,
        f"{distance:.3g} times beyond the data": distance > 1.0,
        "there are more crossings beyond this one": bool(found.several[0]),
        "no interval: a law has none": share is None,
        f"only {share:.0%} of the draws cross this way: the interval is theirs" if share is not None else "": crosses
        and share is not None
        and share < LEVEL,
        f"{share:.0%} of the draws do cross" if share is not None else "": not crosses
        and share is not None
        and share > 1 - LEVEL,
    }
    return tuple(flag for flag, is_raised in raised.items() if is_raised)


def _refuse_options(over: Over, within: tuple[float, float] | None, flops: float | None) -> None:
    if within is not None and not 0 < within[0] < within[1] < math.inf:
        raise ValueError(f"within {within[0]:g} to {within[1]:g}: give 0 < low < high")
    if flops is not None and over != "unique_tokens":
        raise ValueError(f"flops {flops:g} has no effect on a crossing over {over}; it belongs to unique_tokens")
    if flops is not None and not 0 < flops < math.inf:
        raise ValueError(f"flops {flops:g}: give a positive, finite budget")


def _choose_groups(table: RunTable, groups: tuple[str, str] | None) -> list[str]:
    known = list(dict.fromkeys(table.group.tolist()))
    for group in groups or ():
        if group not in known:
            raise ValueError(f"no group {group!r} in the table; it has {', '.join(known)}")
    chosen = list(dict.fromkeys(groups or known))
    if len(chosen) < 2:
        raise ValueError(f"a crossing needs two groups, got {', '.join(chosen)}; name the column that tells them apart")
    return chosen
