"""What repeats are worth: the study's own law of it, and every run that repeats its data beside its twin on fresh data.

D tokens trained on, U unique ones; losses in nats per token.
"""

from typing import Any

import polars as pl

from noiselaw.laws.build import build_table
from noiselaw.report import phrases
from noiselaw.report.axes import log_axis
from noiselaw.report.cells import DASH, Cell, Table, four_digits, known, number
from noiselaw.report.colors import Style
from noiselaw.report.drawing import Drawing, Line, Panel
from noiselaw.report.lawfigures import TOKENS, repeat_panels
from noiselaw.report.lawpanels import rows_of
from noiselaw.report.panels import LOSS, run_line, shade
from noiselaw.report.results import RepeatLaw, Results

COLUMNS = ("loss", "params", "tokens", "flops", "flops_per_token", "unique_tokens")
SHAPE = ("group", "layers", "width", "heads")


def figure(results: Results) -> Drawing | None:
    """What repeats are worth by the laws, and the loss curves that they were fitted to."""
    curves = results.curves.filter(pl.col("role") != "confirmation").drop_nulls(COLUMNS)
    if (curves["role"] != "repeated").all():
        return None
    columns: dict[str, Any] = {name: curves[name].to_numpy() for name in COLUMNS}
    try:
        table = build_table(**columns, group=curves["group"].to_list(), run=curves["run"].to_list())
    except ValueError:  # rows that no law could be fitted to
        return None
    laws = {name: law.model_dump() for name, law in _laws(results).items()}
    rows = (
        *rows_of(repeat_panels(laws, table, results.styles)),
        *rows_of(_curve_panels(curves.sort("run", "step"), results)),
    )
    caption = (
        "What D tokens of which U are unique are worth in fresh ones, by the study's law of repeated data, and what "
        "that law misses; below, every validation of the runs that it was fitted to: on fresh tokens (solid) and on "
        "few of them, again and again (dashed), darker for larger models."
    )
    return Drawing("repeats", "What repeats are worth", caption, rows)


def _laws(results: Results) -> dict[str, RepeatLaw]:
    groups = results.data_laws.groups
    return {name: law for name in results.groups if name in groups and (law := groups[name].repeated) is not None}


def _curve_panels(curves: pl.DataFrame, results: Results) -> list[Panel]:
    x, y = log_axis(TOKENS, curves["tokens"], phrases.count), log_axis(LOSS, curves["loss"], phrases.plain)
    sizes = sorted(set(curves["params"]))
    shades = {size: shade(index, len(sizes)) for index, size in enumerate(sizes)}
    panels = []
    for group in results.groups:
        runs = curves.filter(pl.col("group") == group).partition_by("run", maintain_order=True)
        if runs:
            lines = tuple(_line(run, results.styles[group], shades[run["params"][0]]) for run in runs)
            panels.append(Panel(group, x, y, lines))
    return panels


def _line(run: pl.DataFrame, style: Style, opacity: float) -> Line:
    last = run.row(-1, named=True)
    hover = f"{phrases.count(last['unique_tokens'])} unique tokens"
    return run_line(run, "tokens", style, opacity, is_dashed=last["role"] == "repeated", hover=hover)


def values_table(results: Results) -> Table | None:
    """The value of repeats, and of size beyond what the unique tokens are optimal for."""
    rows = tuple(
        _value_row(name, law) if (law := results.data_laws.groups[name].repeated) else _no_value(name, results)
        for name in results.groups
        if name in results.data_laws.groups
    )
    header = ("Group", "R* of repeats", "95 % interval", "R* of size", "Its interval", "E", "alpha", "beta", "Flags")
    caption = (
        "R* is the number of repeats after which their value has decayed by 1/e: D tokens of which U are unique are "
        "worth U (1 + R* (1 − exp(−(D/U − 1) / R*))) fresh ones; ∞ where it never does. Size in excess of what is "
        "optimal for U tokens loses its value alike; no number where the runs do not show it."
    )
    return Table("repeats", "The value of repeats", caption, header, rows, (0, 8), prose_columns=(8,)) if rows else None


def _value_row(name: str, law: RepeatLaw) -> tuple[Cell, ...]:
    fitted = law.parameters
    return (
        Cell(name, group=name),
        *_decay_cells(fitted.R_D, law.intervals.get("R_D")),
        *(_decay_cells(fitted.R_N, law.intervals["R_N"]) if "R_N" in law.intervals else (Cell(DASH), Cell(DASH))),
        *(number(value, phrases.plain) for value in (fitted.E, fitted.alpha, fitted.beta)),
        Cell("; ".join(law.flags) or DASH),
    )


def _decay_cells(repeats: float | None, interval: tuple[float | None, float | None] | None) -> tuple[Cell, Cell]:
    """R* and its interval."""
    ends = DASH if interval is None else " to ".join(map(_decay_text, interval))
    return Cell(_decay_text(repeats), strong=True, value=repeats), Cell(ends)


def _decay_text(repeats: float | None) -> str:
    return "∞" if repeats is None else phrases.plain(repeats)


def _no_value(name: str, results: Results) -> tuple[Cell, ...]:
    return (Cell(name, group=name), *[Cell(DASH)] * 7, Cell("; ".join(results.data_laws.groups[name].flags)))


def runs_table(results: Results) -> Table | None:
    """Every run that repeats its data, beside the same run on fresh data."""
    ends = results.curves.sort("run", "step").unique("run", keep="last", maintain_order=True)
    fresh = ends.filter(pl.col("role") == "grid").select(*SHAPE, "tokens", pl.col("loss").alias("fresh"))
    repeated = ends.filter(pl.col("role") == "repeated").drop_nulls("unique_tokens")
    found = repeated.join(fresh, on=[*SHAPE, "tokens"], how="left").sort("params", "unique_tokens")
    rows = tuple(
        _run_row(run) for name in results.groups for run in found.filter(pl.col("group") == name).iter_rows(named=True)
    )
    header = ("Group", "Layers × width", "Unique tokens", "Epochs", "Loss", "On fresh tokens", "Cost")
    caption = (
        "Losses of the last validation, nats per token, of every run that repeats its data and of the same model "
        "trained on as many fresh tokens; the cost is the one over the other, minus one."
    )
    return Table("repeated-runs", "Runs that repeat their data", caption, header, rows, (0, 1)) if rows else None


def _run_row(run: dict[str, float]) -> tuple[Cell, ...]:
    cost = None if run["fresh"] is None else 100 * (run["loss"] / run["fresh"] - 1)
    return (
        Cell(str(run["group"]), group=str(run["group"])),
        Cell(f"{run['layers']} × {run['width']}"),
        number(run["unique_tokens"], phrases.count),
        number(run["tokens"] / run["unique_tokens"], lambda epochs: f"{epochs:.3g}"),
        number(run["loss"], four_digits),
        known(run["fresh"], four_digits),
        known(cost, lambda percent: phrases.signed(percent, unit=" %")),
    )
