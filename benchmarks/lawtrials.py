"""Made-up tables whose laws are known, fitted by every method of `noiselaw laws`: do intervals hold the truth?

Every trial draws one table: losses of a known law, each run moved by its luck (LUCK) and, where runs have several rows,
each row by noise of its own (NOISE); both normal, in log loss. It fits the table as the command line does, with fewer
draws, and returns truth and interval of every quantity. Legend: n rows, P parameters, D tokens, M FLOPs per token.
"""

import math
from collections.abc import Callable, Mapping
from functools import cache, partial
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from noiselaw.laws.build import build_table
from noiselaw.laws.cooldown import fit_cooldown
from noiselaw.laws.crossing import Over, find_crossings
from noiselaw.laws.forms import fit_lines
from noiselaw.laws.frontier import FrontierFit, fit_frontier, raw_argmin
from noiselaw.laws.hyperparameters import Resample as TuningResample
from noiselaw.laws.hyperparameters import fit_hyperparameters
from noiselaw.laws.isoflop import Resample, fit_isoflop_table
from noiselaw.laws.otherlaws import laws_of_frontier, laws_of_surface
from noiselaw.laws.prediction import Laws, predict_loss
from noiselaw.laws.repeated import fit_repeated, repeated_loss
from noiselaw.laws.surface import Objective
from noiselaw.laws.surfacelaws import fit_surface_table
from noiselaw.laws.table import RunTable
from noiselaw.laws.tokens import fit_tokens

Floats = NDArray[np.float64]
Interval = tuple[float, float] | None
Found = Mapping[str, tuple[float, Interval]]
"""Truth and interval by quantity."""
Generator = np.random.Generator
Runs = Literal["shared", "own"]
"""Whether the rows of one size are readings of one run, or every row is its own run."""
Loss = Callable[[Floats, Floats], Floats]
"""Of (P, D)."""

LUCK, NOISE = 0.004, 0.001
DRAWS, REFITS = 999, 199
"""Draws of lines and parabolas, and of what has to descend."""


class Trial(NamedTuple):
    """One method on one kind of table."""

    run: Callable[[Generator], Found]
    at_least: tuple[str, ...] = ()
    """Quantities whose intervals are meant to hold the truth more often than they say; the method's docstring says why.
    """


class Coverage(NamedTuple):
    """How often the intervals of one quantity held the truth."""

    num_held: int
    num_intervals: int
    num_tables: int
    median_width: float

    @property
    def share(self) -> float:
        return self.num_held / self.num_intervals

    @property
    def error(self) -> float:
        """Binomial standard error of the share."""
        return math.sqrt(self.share * (1 - self.share) / self.num_intervals)


def measure(trial: Trial, num_tables: int, seed: int = 0) -> dict[str, Coverage]:
    """Coverage by quantity over so many tables."""
    found = [trial.run(np.random.default_rng((seed, index))) for index in range(num_tables)]
    return {quantity: _coverage([each[quantity] for each in found]) for quantity in found[0]}


def _coverage(found: list[tuple[float, Interval]]) -> Coverage:
    told = [(truth, interval) for truth, interval in found if interval is not None]
    held = sum(low <= truth <= high for truth, (low, high) in told)
    widths = [high - low for _, (low, high) in told]
    return Coverage(held, len(told), len(found), float(np.median(widths)) if widths else math.nan)


# Laws that tables are made from. Parabolas in log P about P* are exact for isoFLOP fits and data-bound laws.

VALLEY = {"loss": (60.0, -0.11), "params": (0.08, 0.53)}
"""Coefficient and exponent of L* and P* over C = 6 P D."""
BOUND = {"loss": (12.0, -0.08), "params": (300.0, 0.5)}
"""Over D."""
SURFACE = {"E": 1.8172, "A": 482.01, "alpha": 0.3478, "B": 2085.43, "beta": 0.3658}
REPEATED = {"E": 1.8, "A": 400.0, "alpha": 0.34, "B": 900.0, "beta": 0.3, "inverse_R_D": 1 / 15}
_CURVATURE = 0.02


def valley(params: Floats, tokens: Floats) -> Floats:
    return _parabola(VALLEY, 6 * params * tokens, params)


def bound(params: Floats, tokens: Floats) -> Floats:
    return _parabola(BOUND, tokens, params)


def surface(params: Floats, tokens: Floats) -> Floats:
    E, A, alpha, B, beta = SURFACE.values()
    return E + A * params**-alpha + B * tokens**-beta


def _parabola(laws: Mapping[str, tuple[float, float]], x: Floats, params: Floats) -> Floats:
    (loss, exponent), (best, growth) = laws.values()
    return loss * x**exponent * np.exp(_CURVATURE * np.log(params / (best * x**growth)) ** 2)


def lucky(generator: Generator, loss: Floats, run: Floats | None) -> Floats:
    """Losses [n] with the luck of the run [n] each belongs to; None where every row is a run."""
    if run is None:
        return loss * np.exp(LUCK * generator.standard_normal(loss.size))
    _, number = np.unique(run, return_inverse=True)
    luck = LUCK * generator.standard_normal(int(number.max()) + 1)
    return loss * np.exp(luck[number] + NOISE * generator.standard_normal(loss.size))


def table_of(generator: Generator, law: Loss, params: Floats, tokens: Floats, runs: Runs) -> RunTable:
    """Rows [n] of a law with luck."""
    loss = lucky(generator, law(params, tokens), params if runs == "shared" else None)
    names = [f"{size:.6g}" for size in params] if runs == "shared" else [str(row) for row in range(params.size)]
    return build_table(loss=loss, params=params, tokens=tokens, run=names)


def pairs(first: Floats, second: Floats) -> tuple[Floats, Floats]:
    """Every value of the one with every value of the other."""
    one, other = np.meshgrid(first, second)
    return one.ravel(), other.ravel()


def exponents(fit: Laws | FrontierFit, truths: Mapping[str, float]) -> dict[str, tuple[float, Interval]]:
    """Of laws by quantity."""
    return {f"{name} exponent": (truth, fit.laws[name].interval) for name, truth in truths.items() if name in fit.laws}


def prediction(generator: Generator, fit: Laws, law: Loss, flops: float) -> tuple[float, Interval]:
    """The loss that a new run of the planned size reaches, its own luck included."""
    size = float(fit.law("flops_per_token")(flops))
    loss = float(law(np.asarray(size / 6), np.asarray(flops / size)))
    return loss * math.exp(LUCK * generator.standard_normal()), predict_loss(fit, flops).interval


def seed_of(generator: Generator) -> int:
    return int(generator.integers(2**31))


BUDGETS = np.geomspace(1e17, 1e19, 6)
"""FLOPs of the readings of isoFLOP tables."""


def isoflop(generator: Generator, law: Loss, runs: Runs, resample: Resample, num_budgets: int) -> Found:
    budgets = np.geomspace(BUDGETS[0], BUDGETS[-1], num_budgets)
    middle = VALLEY["params"][0] * 1e18 ** VALLEY["params"][1]
    params, flops = pairs(middle * np.geomspace(1 / 12, 12, 7), budgets)
    table = table_of(generator, law, params, flops / 6 / params, runs)
    fit = fit_isoflop_table(table, resample=resample, num_draws=DRAWS, seed=seed_of(generator))["all"]
    truths = {name: VALLEY[name][1] for name in ("loss", "params")} if law is valley else {}
    return exponents(fit, truths) | {"prediction": prediction(generator, fit, law, 4 * float(budgets[-1]))}


def surfaces(generator: Generator, runs: Runs, objective: Objective) -> Found:
    params, tokens = pairs(np.geomspace(1e7, 1e10, 8), np.geomspace(1e9, 1e12, 8))
    table = table_of(generator, surface, params, tokens, runs)
    fit = fit_surface_table(table, objective=objective, num_draws=REFITS, seed=seed_of(generator))["all"]
    laws = laws_of_surface("all", fit.record())
    growth = SURFACE["beta"] / (SURFACE["alpha"] + SURFACE["beta"])
    parameters = {name: (SURFACE[name], fit.intervals.get(name)) for name in ("E", "alpha", "beta")}
    predicted = prediction(generator, laws, surface, 10 * float(table.flops.max()))
    return parameters | exponents(laws, {"params": growth}) | {"prediction": predicted}


def frontier(generator: Generator) -> Found:
    params, share = pairs(np.geomspace(1e7, 1e10, 12), np.geomspace(1 / 300, 1, 24))
    tokens = 60 * params * share
    table = table_of(generator, surface, params, tokens, "shared")
    fit = fit_frontier(table, num_points=500, num_draws=DRAWS, seed=seed_of(generator))["all"]
    growth = SURFACE["beta"] / (SURFACE["alpha"] + SURFACE["beta"])
    found = exponents(fit, {"params": growth, "loss": _frontier_slope(fit)})
    laws = laws_of_frontier("all", fit.record())
    return found | {"prediction": prediction(generator, laws, surface, 4 * laws.largest_budget)}


def _frontier_slope(fit: FrontierFit) -> float:
    """Of the line through the surface's optimum where winners carry the laws: that of the loss is no power law."""
    kept = [np.log([arc.flops_low, arc.flops_high]) for arc in fit.optima if arc.kept]
    x = np.concatenate([np.linspace(low, high, max(2, round(100 * (high - low)))) for low, high in kept])
    _, A, alpha, B, beta = SURFACE.values()
    best = (alpha * A / (beta * B)) ** (1 / (alpha + beta)) * (np.exp(x) / 6) ** (beta / (alpha + beta))
    return float(fit_lines(x, np.log(surface(best, np.exp(x) / 6 / best))).slope)


def raw(generator: Generator) -> Found:
    params, flops = pairs(np.geomspace(1e7, 1e10, 24), np.geomspace(BUDGETS[0], BUDGETS[-1], 12))
    table = table_of(generator, valley, params, flops / 6 / params, "own")
    fit = raw_argmin(table, num_draws=DRAWS, seed=seed_of(generator))["all"]
    return exponents(fit, {name: VALLEY[name][1] for name in ("loss", "params")})


def data_bound(generator: Generator, runs: Runs) -> Found:
    params, tokens = pairs(np.geomspace(1e6, 6e7, 7), np.geomspace(1e8, 1e10, 6))
    table = table_of(generator, bound, params, tokens, runs)
    fit = fit_tokens(table, num_draws=DRAWS, seed=seed_of(generator))["all"]
    return {f"{name} exponent": (BOUND[name][1], fit.laws[name].interval) for name in ("loss", "params")}


def repeated(generator: Generator, runs: Runs) -> Found:
    table = repeated_table(generator, runs, ["all"])
    fit = fit_repeated(table, num_draws=REFITS, seed=seed_of(generator))["all"]
    return {name: (REPEATED[name], fit.intervals[name]) for name in ("E", "alpha", "beta", "inverse_R_D")}


def repeated_table(generator: Generator, runs: Runs, groups: list[str]) -> RunTable:
    """Five sizes on three stocks of data, up to 60 epochs.

    In the second group repeats keep their value longer, but its floor is higher.
    """
    sizes, stocks, epochs = (grid.ravel() for grid in np.meshgrid(
        np.geomspace(1e7, 1e9, 5), (1e8, 1e9, 1e10), (1.0, 2.0, 5.0, 20.0, 60.0)
    ))  # fmt: skip
    run = np.char.add(np.char.mod("%.4g", sizes), np.char.mod("-%g", stocks))
    parts, names = [], []
    for group in groups:
        loss = repeated_loss(repeated_law(group), sizes, stocks * epochs, stocks)
        parts.append(lucky(generator, loss, run if runs == "shared" else None))
        names += [f"{group} {name}" if runs == "shared" else f"{group} {row}" for row, name in enumerate(run)]
    return build_table(
        loss=np.concatenate(parts), params=np.tile(sizes, len(groups)), tokens=np.tile(stocks * epochs, len(groups)),
        unique_tokens=np.tile(stocks, len(groups)), run=names, group=np.repeat(groups, sizes.size).tolist(),
    )  # fmt: skip


def repeated_law(group: str) -> Floats:
    """Parameters [7] as `repeated_loss` takes them."""
    law = REPEATED | ({"E": 1.85, "inverse_R_D": 1 / 150} if group == "second" else {})
    return np.array([*law.values(), 0.0])


BATCH, RATE = (0.5, 0.5), (0.01, 0.3)
"""Coefficient and exponent of B* over D and of eta* over B."""


def tuned(generator: Generator, resample: TuningResample) -> Found:
    """Two sizes, five batches of five learning rates, eight readings along each of the 50 runs.

    Tokens to a target are an exact parabola of log B, log losses one of log eta.
    """
    size, batch, step = (
        grid.ravel() for grid in np.meshgrid((1e7, 4e7), 2.0 ** np.arange(11, 18, 1.5), np.arange(-2, 3))
    )
    number, tokens = pairs(np.arange(size.size), np.geomspace(2e8, 6e9, 8))
    size, batch, step = size[number], batch[number], step[number]
    rate = RATE[0] * batch ** RATE[1] * 2.0**step
    bend, offset = 0.1, np.log(batch / BATCH[0])
    # log D = x + bend (offset - a x)^2 for x the log of the tokens that the best batch needs.
    square, linear, rest = bend * BATCH[1] ** 2, 1 - 2 * bend * BATCH[1] * offset, bend * offset**2 - np.log(tokens)
    needed = (-linear + np.sqrt(linear**2 - 4 * square * rest)) / (2 * square)
    loss = 30 * (size / 1e7) ** -0.05 * np.exp(-0.1 * needed + 0.02 * (step * math.log(2)) ** 2)
    table = build_table(
        loss=lucky(generator, loss, number), params=size, tokens=tokens, batch_tokens=batch, learning_rate=rate,
        run=[str(each) for each in number],
    )  # fmt: skip
    fit = fit_hyperparameters(table, resample=resample, num_draws=DRAWS, seed=seed_of(generator))["all"]
    truths = {"batch_tokens": BATCH[1], "learning_rate": RATE[1]}
    return {f"{name} exponent": (truth, fit.laws[name].interval) for name, truth in truths.items() if name in fit.laws}


FACTOR = 1.0245


def cooled(generator: Generator, num_trunks: int, num_branches: int) -> Found:
    """Runs without a cooldown, each held against several with one: these share its luck."""
    trunk = np.repeat(np.arange(num_trunks), num_branches)
    luck = LUCK * generator.standard_normal(num_trunks)
    size = 1e7 * 2.0**trunk
    tokens = 1e9 * 4.0 ** np.tile(np.arange(num_branches), num_trunks)
    plain = surface(size, tokens) * np.exp(luck[trunk] + NOISE * generator.standard_normal(trunk.size))
    annealed = surface(size, tokens) / FACTOR * np.exp(LUCK * generator.standard_normal(trunk.size))
    names = [f"trunk {each}" for each in trunk] + [f"branch {row}" for row in range(trunk.size)]
    table = build_table(
        loss=np.concatenate([plain, annealed]), params=np.tile(size, 2), tokens=np.tile(tokens, 2), run=names,
        cooldown=np.repeat([False, True], trunk.size),
    )  # fmt: skip
    intervals = fit_cooldown(table)["all"].intervals
    return {"factor": (FACTOR, intervals["factor"]), "slope": (0.0, intervals["slope"])}


CROSSING = {"flops": 1e19, "tokens": 1e10}


def crossed(generator: Generator, over: Over, runs: Runs) -> Found:
    """Two groups whose laws differ in the exponent of the loss and are equal at CROSSING."""
    law, x = (valley, BUDGETS) if over == "flops" else (bound, np.geomspace(1e8, 1e10, 6))
    middle = math.sqrt(6e7 * 1e6) if over == "tokens" else VALLEY["params"][0] * 1e18 ** VALLEY["params"][1]
    params, at = pairs(middle * np.geomspace(1 / 8, 8, 7), x)
    tokens = at / 6 / params if over == "flops" else at
    tilt = (at / CROSSING[over]) ** -0.02
    parts = [lucky(generator, law(params, tokens) * each, params if runs == "shared" else None) for each in (1, tilt)]
    names = [f"{g} {size:.6g}" if runs == "shared" else f"{g} {n}" for g in "ab" for n, size in enumerate(params)]
    table = build_table(
        loss=np.concatenate(parts), params=np.tile(params, 2), tokens=np.tile(tokens, 2), run=names,
        group=np.repeat(["a", "b"], params.size).tolist(),
    )  # fmt: skip
    (found,) = find_crossings(table, over=over, num_draws=DRAWS, seed=seed_of(generator)).values()
    return {"log crossing": (math.log(CROSSING[over]), _logs(found.interval))}


def crossed_by_stock(generator: Generator, runs: Runs) -> Found:
    """The group whose repeats keep their value longer leads where unique data is scarce."""
    table = repeated_table(generator, runs, ["first", "second"])
    (found,) = find_crossings(
        table, over="unique_tokens", flops=STOCK_FLOPS, num_draws=REFITS, seed=seed_of(generator)
    ).values()
    return {"log crossing": (_true_stock(), _logs(found.interval))}


STOCK_FLOPS = 1e20


@cache
def _true_stock() -> float:
    """Log of the unique tokens at which both groups reach the same loss with STOCK_FLOPS, each at its best size."""
    stock, size = np.geomspace(1e7, 1e11, 8001), np.geomspace(1e7, 1e12, 2001)
    best = [
        np.array([repeated_loss(law, size, STOCK_FLOPS / 6 / size, each).min() for each in stock])
        for law in (repeated_law("first"), repeated_law("second"))
    ]
    ahead = best[0] < best[1]
    (crossing,) = np.flatnonzero(ahead[1:] != ahead[:-1])
    return float(np.log(stock[crossing : crossing + 2]).mean())


def _logs(interval: Interval) -> Interval:
    return None if interval is None else (math.log(interval[0]), math.log(interval[1]))


TRIALS: dict[str, Trial] = {
    "isoflop, 7 runs": Trial(partial(isoflop, law=valley, runs="shared", resample="runs", num_budgets=6)),
    "isoflop, 42 runs": Trial(partial(isoflop, law=valley, runs="own", resample="runs", num_budgets=6)),
    "isoflop, 7 runs of a surface": Trial(partial(isoflop, law=surface, runs="shared", resample="runs", num_budgets=6)),
    "isoflop, optima resampled": Trial(partial(isoflop, law=valley, runs="own", resample="optima", num_budgets=12)),
    **{
        f"surface by {objective}, {number} runs": Trial(partial(surfaces, runs=runs, objective=objective))
        for objective in ("huber", "l2", "l1")
        for number, runs in ((8, "shared"), (64, "own"))
    },
    "frontier, 12 runs": Trial(frontier, at_least=("params exponent", "loss exponent", "prediction")),
    "frontier, raw minima": Trial(raw),
    "tokens, 7 runs": Trial(partial(data_bound, runs="shared")),
    "tokens, 42 runs": Trial(partial(data_bound, runs="own")),
    "repeated data, 15 runs": Trial(partial(repeated, runs="shared")),
    "repeated data, 75 runs": Trial(partial(repeated, runs="own")),
    "hyperparameters, runs": Trial(partial(tuned, resample="runs")),
    "hyperparameters, cells": Trial(partial(tuned, resample="cells")),
    "cooldown, 8 pairs": Trial(partial(cooled, num_trunks=8, num_branches=1)),
    "cooldown, 5 runs of 3 pairs": Trial(partial(cooled, num_trunks=5, num_branches=3)),
    "cross over flops, 14 runs": Trial(partial(crossed, over="flops", runs="shared")),
    "cross over flops, 84 runs": Trial(partial(crossed, over="flops", runs="own")),
    "cross over tokens, 14 runs": Trial(partial(crossed, over="tokens", runs="shared")),
    "cross over unique tokens, 150 runs": Trial(partial(crossed_by_stock, runs="own")),
}
"""By what the table of results calls them."""
