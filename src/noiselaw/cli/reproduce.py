"""`noiselaw laws reproduce`: every published law beside what the paper's points give, and the paper's figures anew."""

import json as jsonlib
import math
from pathlib import Path

from rich.console import Console
from rich.table import Table
from rich.text import Text

from noiselaw.laws.discrepancy import Comparison, IntervalComparison, Section
from noiselaw.laws.heldout import HeldOut, HeldOutLoss
from noiselaw.laws.lawfits import OUTSIDE
from noiselaw.laws.published import COOLDOWN_FACTOR, COOLDOWN_FACTOR_UNCERTAINTY, PAPER
from noiselaw.laws.reproduce import NOT_DERIVABLE, Reproduction
from noiselaw.laws.reproduce import reproduce as rederive
from noiselaw.report import phrases
from noiselaw.report.cells import DASH
from noiselaw.report.tables import LAW_SYMBOLS

DEFAULT_FOLDER = Path("reproduction")
WIDTH = 120
"""Columns that the tables need: a narrower terminal wraps them, none of their numbers is cut."""
FLAG = "not by rounding"


def reproduce(*, out: Path | None = None, json: bool = False, figures: bool = True) -> None:
    """Fit the points of arXiv 2512.10858 as it does; print published, ours and difference; draw its figures anew.

    Args:
        out: folder of the figures; by default reproduction/.
        json: print one JSON object instead of tables.
        figures: write the figures, as PNG and SVG.
    """
    found = rederive()
    paths = _write_figures(found, out or DEFAULT_FOLDER) if figures else []
    if json:
        print(jsonlib.dumps({**found.record(), "figures": list(map(str, paths))}, indent=1, allow_nan=False))
        return
    console = Console(width=max(Console().width, WIDTH))
    console.print(_fit_summary(found))
    for section in found.sections:
        _print(console, section.title, section.note, _comparison_table(section))
    _print(console, "95 % intervals of the exponents", INTERVAL_NOTE, _interval_table(found.intervals))
    _print(console, "Runs that no fit has seen", HELD_OUT_NOTE, _held_out_table(found.held_out))
    console.print(Text("\nNot re-derivable", style="bold"))
    for what, why in NOT_DERIVABLE:
        console.print(Text(f"{what}: {why}"))
    if paths:
        console.print(f"\nfigures: {paths[0].parent}", markup=False, highlight=False)


INTERVAL_NOTE = (
    "Cut short: the published refits stopped early on an unused parameter, which pulled in the upper ends of D and L. "
    "D = C / M, so the interval of D must be the mirror image of that of M."
)
HELD_OUT_NOTE = (
    "Losses in nats per token. The final loss is predicted by the law over the published cooldown factor "
    f"{COOLDOWN_FACTOR} ± {COOLDOWN_FACTOR_UNCERTAINTY}. The interval covers the law and the surface. "
    "Error: predicted over measured, minus one."
)


def _write_figures(found: Reproduction, folder: Path) -> list[Path]:
    # Imported here: drawing takes longer to import than all fits take to compute.
    from noiselaw.report.paperfigures import paper_figures  # noqa: PLC0415
    from noiselaw.report.prints import write_prints  # noqa: PLC0415

    folder.mkdir(parents=True, exist_ok=True)
    return [path for drawing in paper_figures(found) for path in write_prints(drawing, folder)]


def _print(console: Console, title: str, note: str, table: Table) -> None:
    console.print(Text(f"\n{title}", style="bold"))
    console.print(Text(note, style="dim"))
    console.print(table)


def _table(*columns: str, text_columns: int) -> Table:
    """The first `text_columns` columns hold text, aligned left; the others numbers."""
    table = Table(box=None, pad_edge=False)
    for index, name in enumerate(columns):
        table.add_column(name, justify="left" if index < text_columns else "right", no_wrap=True)
    return table


def _fit_summary(found: Reproduction) -> Text:
    largest = max(fit.largest_budget for fit in found.fits.values())
    outside = ", ".join(
        f"{group} {sum(OUTSIDE in optimum.flags for optimum in fit.optima)} of {len(fit.optima)}"
        for group, fit in found.fits.items()
    )
    return Text(
        f"{PAPER}: optima at budgets up to {phrases.scientific(largest, 2)} FLOPs; vertices outside the sampled sizes "
        f"(kept, as in the paper): {outside}."
    )


def _comparison_table(section: Section) -> Table:
    table = _table("law", "number", "noise", "published", "ours", "difference", "explained by", text_columns=3)
    for row in section.comparisons:
        published, ours = f"{row.published:.{_decimals(row)}f}", f"{row.ours:.{_decimals(row) + 1}f}"
        table.add_row(
            LAW_SYMBOLS[row.quantity], row.number, row.group, published, ours, f"{row.difference:+.1e}",
            row.explained_by or FLAG, style=None if row.explained_by else "yellow",
        )  # fmt: skip
    return table


def _decimals(row: Comparison) -> int:
    """Decimals of the printed number: `rounding` is half a unit of its last digit."""
    return max(0, -math.floor(math.log10(2 * row.rounding) + 0.5))


def _interval_table(intervals: tuple[IntervalComparison, ...]) -> Table:
    table = _table("law", "noise", "published", "exact", "1 - published M", "ends explained by", text_columns=2)
    for row in intervals:
        decimals = 5 if row.quantity == "loss" else 4
        shown = [_interval(interval, decimals) for interval in (row.published, row.ours, row.mirrored)]
        ends = row.explained_by
        style = None if all(end in ("rounding", "draws") for end in ends) else "yellow"
        table.add_row(LAW_SYMBOLS[row.quantity], row.group, *shown, ", ".join(end or FLAG for end in ends), style=style)
    return table


def _held_out_table(runs: tuple[HeldOut, ...]) -> Table:
    table = _table(
        "run", "loss", "FLOPs", "beyond", "law", "95 % interval", "surface", "measured", "error", text_columns=2
    )
    for row in runs:
        where = phrases.scientific(row.run.flops), f"{row.extrapolation_factor:.3g}×"
        surface = DASH if row.surface is None else f"{row.surface:.3f}"
        table.add_row(row.run.name, "without cooldown", *where, *_held_out_cells(row.before_cooldown, surface))
        table.add_row(
            "", f"final (measured factor {row.measured_cooldown_factor:.4f})", "", "", *_held_out_cells(row.final, "")
        )
    return table


def _held_out_cells(loss: HeldOutLoss, surface: str) -> tuple[str, ...]:
    inside = "" if loss.is_inside else " (outside)"
    return (
        f"{loss.predicted:.3f}",
        _interval(loss.interval, 3),
        surface,
        f"{loss.measured:.3f}",
        phrases.signed(loss.error_percent, unit=" %") + inside,
    )


def _interval(interval: tuple[float, float] | None, decimals: int) -> str:
    return DASH if interval is None else " to ".join(f"{end:.{decimals}f}" for end in interval)
