"""`noiselaw laws METHOD TABLE`: a table of anybody's runs in, laws with intervals out.

Every method reads the table alike (`ReadOptions`), fits, and prints one object: as JSON, or as tables drawn from it.
"""

import json as json_format
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any

import tyro
from rich.console import Console

from noiselaw.cli.lawtable import WIDTH, print_laws
from noiselaw.laws.build import RunBy
from noiselaw.laws.columns import ReadOptions
from noiselaw.laws.cooldown import fit_cooldown
from noiselaw.laws.crossing import Over, find_crossings
from noiselaw.laws.curves import IsoflopTable
from noiselaw.laws.datalaws import fit_data_laws
from noiselaw.laws.frontier import fit_frontier, raw_argmin
from noiselaw.laws.hyperparameters import Resample as TuningResample
from noiselaw.laws.hyperparameters import fit_hyperparameters
from noiselaw.laws.isoflop import Resample, fit_tables
from noiselaw.laws.levels import tabulate_levels
from noiselaw.laws.optima import Keep
from noiselaw.laws.read import read_table
from noiselaw.laws.record import law_object, to_json
from noiselaw.laws.surface import DELTA, Objective
from noiselaw.laws.surfacelaws import Size, fit_surface_table
from noiselaw.laws.table import RunTable

FIGURE_FORMATS = ("png", "svg")
FEWEST_DRAWS = 2


@dataclass(frozen=True, slots=True)
class Output:
    """What to print and draw."""

    json: bool = False
    """Print one JSON object."""
    figure: Path | None = None
    """Draw the laws into this file (.png or .svg)."""


Columns = Annotated[ReadOptions, tyro.conf.arg(name="")]
Show = Annotated[Output, tyro.conf.arg(name="")]


def isoflop(
    table: Path,
    /,
    *,
    columns: Columns = ReadOptions(),
    budgets: tuple[float, ...] = (),
    window: float | None = None,
    keep: Keep = "inside",
    resample: Resample = "runs",
    draws: int = 10_000,
    seed: int = 0,
    show: Show = Output(),
) -> None:
    """Fit parabolas over sizes at every budget, and power laws of compute through their minima.

    Args:
        table: CSV, JSON lines, JSON or Parquet, one row per reading; or the folder of a study.
        budgets: FLOPs to compare sizes at; by default those that rows share, else some along the runs' curves.
        window: Use only sizes within this factor of the best at each budget.
        keep: Which minima carry the laws: those inside the sampled sizes, or all.
        resample: What intervals draw anew: runs (by their scatter about the parabolas), or the minima.
        draws: Draws for intervals.
        seed: Seed of the draws.
    """
    runs = _read(table, columns, show, draws=draws)
    tables = _at_budgets(runs, budgets)
    fits = fit_tables(tables, window=window, keep=keep, resample=resample, num_draws=draws, seed=seed)
    _finish("isoflop", runs, to_json(fits, runs.convention)["groups"], show)


def surface(
    table: Path,
    /,
    *,
    columns: Columns = ReadOptions(),
    size: Size = "params",
    objective: Objective = "huber",
    delta: float | None = None,
    draws: int | None = None,
    seed: int = 0,
    show: Show = Output(),
) -> None:
    """Fit L = E + A N^-alpha + B D^-beta to log losses, and the laws of compute along its optimum.

    Args:
        table: CSV, JSON lines, JSON or Parquet, one row per reading; or the folder of a study.
        size: What N counts: params, or flops_per_token.
        objective: Huber's loss of log residuals, their squares (l2), or their absolute values (l1).
        delta: Huber's threshold, in units of log loss; by default 0.001.
        draws: Draws for intervals; by default as many as half a second allows.
        seed: Seed of the draws.
    """
    if delta is not None and objective != "huber":
        raise ValueError(f"--delta {delta:g} has no effect on --objective {objective}; it belongs to huber")
    runs = _read(table, columns, show, draws=draws)
    delta = DELTA if delta is None else delta
    fits = fit_surface_table(runs, size=size, objective=objective, delta=delta, num_draws=draws, seed=seed)
    _finish("surface", runs, _records(fits), show)


def frontier(
    table: Path,
    /,
    *,
    columns: Columns = ReadOptions(),
    raw: bool = False,
    keep: Keep | None = None,
    draws: int = 10_000,
    seed: int = 0,
    show: Show = Output(),
) -> None:
    """Fit laws of compute through the lower envelope of the runs' loss curves.

    Args:
        table: CSV, JSON lines, JSON or Parquet, one row per reading; or the folder of a study.
        raw: Take the lowest row of every budget as it stands instead, nothing interpolated.
        keep: Which winners carry the laws: those with a smaller and a larger size beside them (inside, by default), or
            all.
        draws: Draws for intervals.
        seed: Seed of the draws.
    """
    if raw and keep is not None:
        raise ValueError(f"--keep {keep} has no effect with --raw: the lowest row of every budget counts")
    runs = _read(table, columns, show, run_by="size", draws=draws)
    with _flagged(runs):
        if raw:
            fits = raw_argmin(runs, num_draws=draws, seed=seed)
        else:
            fits = fit_frontier(runs, keep=keep or "inside", num_draws=draws, seed=seed)
    _finish("frontier", runs, _records(fits), show)


def tokens(
    table: Path,
    /,
    *,
    columns: Columns = ReadOptions(),
    levels: tuple[float, ...] = (),
    keep: Keep = "inside",
    size: Size | None = None,
    delta: float | None = None,
    draws: int = 10_000,
    repeated_draws: int | None = None,
    seed: int = 0,
    show: Show = Output(),
) -> None:
    """Fit the best loss and size for given data; and what repeated data is worth, where the table says how often.

    Args:
        table: CSV, JSON lines, JSON or Parquet, one row per reading; or the folder of a study.
        levels: Tokens to compare sizes at; by default those that rows share, else some along the runs' curves.
        keep: Which minima carry the laws: those inside the sampled sizes, or all.
        size: What N counts in the law of repeated data: params (by default), or flops_per_token.
        delta: Huber's threshold for the law of repeated data, in units of log loss; by default 0.001.
        draws: Draws for intervals.
        repeated_draws: Draws for the law of repeated data; by default as many as half a second allows.
        seed: Seed of the draws.
    """
    runs = _read(table, columns, show, run_by="size", draws=draws, repeated=True)
    idle = {"--size": size, "--delta": delta, "--repeated-draws": repeated_draws}
    given = [name for name, value in idle.items() if value is not None]
    if given and not runs.repeats.any():
        raise ValueError(
            f"{', '.join(given)}: no row repeats its data, and only the law of repeated data asks for that; "
            "name the column of unique tokens (--unique-tokens) or epochs (--epochs)"
        )
    with _flagged(runs):
        found = fit_data_laws(
            runs,
            levels=levels or None,
            keep=keep,
            size=size or "params",
            delta=DELTA if delta is None else delta,
            num_draws=draws,
            repeated_draws=repeated_draws,
            seed=seed,
        )
    _say(found.notes)
    _finish("tokens", runs, found.groups, show)


def hyperparameters(
    table: Path,
    /,
    *,
    columns: Columns = ReadOptions(),
    targets: tuple[float, ...] = (),
    num_targets: int = 5,
    resample: TuningResample = "runs",
    draws: int = 10_000,
    seed: int = 0,
    show: Show = Output(),
) -> None:
    """Fit the best batch against tokens, and the best learning rate against batch.

    Args:
        table: CSV, JSON lines, JSON or Parquet, one row per reading.
        targets: Losses at which batches are compared; by default some for every size.
        num_targets: How many, where targets are not given.
        resample: What intervals draw anew: the luck of runs, or cells as if each were new (as the paper does: too
            narrow where cells share runs).
        draws: Draws for intervals.
        seed: Seed of the draws.
    """
    runs = _read(table, columns, show, run_by="size", draws=draws)
    with _flagged(runs):
        fits = fit_hyperparameters(
            runs, targets=targets or None, num_targets=num_targets, resample=resample, num_draws=draws, seed=seed
        )
    _finish("hyperparameters", runs, _records(fits), show)


def cooldown(
    table: Path,
    /,
    *,
    columns: Columns = ReadOptions(),
    tolerance: float = 0.01,
    show: Show = Output(),
) -> None:
    """Fit the factor between losses without and with a cooldown of the learning rate.

    Args:
        table: CSV, JSON lines, JSON or Parquet, one row per reading, with a column that says which were annealed.
        tolerance: Token counts this close, relatively, are equal.
    """
    runs = _read(table, columns, show)
    with _flagged(runs):
        fits = fit_cooldown(runs, tolerance=tolerance)
    _finish("cooldown", runs, _records(fits), show)


def cross(
    table: Path,
    /,
    *,
    columns: Columns = ReadOptions(),
    over: Over = "flops",
    between: tuple[str, str] | None = None,
    within: tuple[float, float] | None = None,
    at_flops: float | None = None,
    draws: int = 10_000,
    seed: int = 0,
    show: Show = Output(),
) -> None:
    """Find where the laws of one group overtake those of another.

    Args:
        table: CSV, JSON lines, JSON or Parquet, one row per reading, with a column of groups; or the folder of a study.
        over: What grows: compute, tokens, or unique tokens at a given compute.
        between: The two groups; by default every pair.
        within: Where to look; by default up to a thousand times beyond the data.
        at_flops: The compute, for unique tokens; by default the largest in the table.
        draws: Draws for intervals.
        seed: Seed of the draws.
    """
    run_by, repeated = "row" if over == "flops" else "size", over == "unique_tokens"
    runs = _read(table, columns, show, run_by=run_by, draws=draws, repeated=repeated)
    with _flagged(runs):
        found = find_crossings(
            runs, over=over, groups=between, within=within, flops=at_flops, num_draws=draws, seed=seed
        )
    _finish("cross", runs, _records(found), show)


def _read(
    path: Path,
    columns: ReadOptions,
    show: Output,
    *,
    run_by: RunBy = "row",
    draws: int | None = None,
    repeated: bool = False,
) -> RunTable:
    """The table, its guesses told on stderr; what cannot be drawn is refused before anything is fitted."""
    if draws is not None and draws < FEWEST_DRAWS:
        raise ValueError(f"--draws {draws}: an interval needs at least {FEWEST_DRAWS}; leave it out for the default")
    if show.figure is not None and show.figure.suffix[1:] not in FIGURE_FORMATS:
        raise ValueError(f"--figure {show.figure}: the name must end in .{' or .'.join(FIGURE_FORMATS)}")
    table = read_table(path, columns, run_by=run_by, repeated=repeated)
    _say(table.notes)
    return table


@contextmanager
def _flagged(table: RunTable) -> Iterator[None]:
    """Where a method refuses a table, what is odd about it may be why: told on stderr, as there are no laws to flag."""
    try:
        yield
    except ValueError:
        _say(table.flags)
        raise


def _at_budgets(runs: RunTable, budgets: Sequence[float]) -> dict[str, IsoflopTable]:
    """Losses at budgets, and how rows came to them told on stderr."""
    with _flagged(runs):
        found = tabulate_levels(runs, "flops", budgets or None)
    _say([note for group in found.values() for note in group.notes])
    return {name: group.table for name, group in found.items()}


def _say(notes: Sequence[str]) -> None:
    for note in notes:
        print(f"note: {note}", file=sys.stderr)


def _records(fits: Mapping[str, Any]) -> dict[str, Any]:
    return {group: fit.record() for group, fit in fits.items()}


def _finish(method: str, table: RunTable, groups: Mapping[str, Any], show: Output) -> None:
    """Print and draw the one object."""
    record = law_object(method, table, groups)
    if show.figure is not None:
        _draw(method, record, table, show.figure)
    if show.json:
        print(json_format.dumps(record, indent=1, allow_nan=False))
        return
    console = Console(highlight=False, markup=False)
    if not console.is_terminal:
        console = Console(highlight=False, markup=False, width=WIDTH)
    print_laws(record, console)


def _draw(method: str, record: Mapping[str, Any], table: RunTable, path: Path) -> None:
    from noiselaw.report.lawfigures import law_drawing  # noqa: PLC0415  drawing is slow to import
    from noiselaw.report.prints import write_prints  # noqa: PLC0415

    drawing = replace(law_drawing(method, record, table), name=path.stem)
    write_prints(drawing, path.parent, (path.suffix[1:],))
    print(f"figure: {path}", file=sys.stderr)
