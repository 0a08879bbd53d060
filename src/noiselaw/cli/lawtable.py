"""Laws on the terminal, whatever the method: tables drawn from the very object that --json prints."""

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from noiselaw.report import phrases

WIDTH = 120
"""Of the tables where no terminal says how wide it is."""
MOST_ROWS = 12
"""Of a list; the --json object holds all."""

READINGS = ("points", "readings")
"""Lists of what was read off the table: for figures."""
INNER = ("c0", "c1", "c2")
"""Coefficients of parabolas: for figures."""
WORDS = ("group", "quantity", "law", "run", "flags", "active_bounds")
"""Columns that stand to the left."""
NOTHING = "–"
ROUNDING = 1e-14
"""Printed as zero."""

Record = Mapping[str, Any]

VARIABLES = {"batch_tokens": "D", "learning_rate": "B"}
"""What a quantity's law is over, where it is not compute C (tokens D in laws of data)."""


def print_laws(record: Record, console: Console) -> None:
    """Laws, parameters, lists, flags and certificates of every group that has them."""
    groups: Mapping[str, Record] = record["groups"]
    console.print(f"{record['method']}, FLOPs counted as {record['convention']}")
    of = "D" if record["method"] == "tokens" else "C"
    _print_rows(console, "laws", (row for name, group in groups.items() for row in _law_rows(name, group, of)))
    for key, intervals in (("parameters", "parameter_intervals"), ("repeated", "intervals")):
        rows = (_parameter_row(name, group, key, intervals) for name, group in groups.items() if group.get(key))
        _print_rows(console, key, rows)
    for name, group in groups.items():
        for key, rows in group.items():
            if _is_table(rows) and key not in READINGS:
                shown = [_scalars(row) for row in rows[:MOST_ROWS]]
                more = f", first {MOST_ROWS} of {len(rows)}" if len(rows) > MOST_ROWS else ""
                _print_rows(console, f"{name}: {key}{more}", shown)
    _print_rows(
        console,
        "certificate",
        ({"group": name, **_scalars(group["certificate"])} for name, group in groups.items() if "certificate" in group),
    )
    for flag, named in _flags(groups).items():
        whose = "" if len(named) == len(groups) else f"{', '.join(named)}: "
        console.print(Text(f"! {whose}{flag}", style="yellow"))


def _flags(groups: Mapping[str, Record]) -> dict[str, list[str]]:
    """The groups that each flag is raised for."""
    named: dict[str, list[str]] = {}
    for name, group in groups.items():
        for flag in group["flags"]:
            named.setdefault(flag, []).append(name)
    return named


def _law_rows(name: str, group: Record, of: str) -> Iterable[dict[str, str]]:
    """The laws, and beside them those of a surface through the same points."""
    beside = {f"{quantity} (surface)": law for quantity, law in group.get("surface", {}).items()}
    for quantity, law in {**group.get("laws", {}), **beside}.items():
        offset = f"{phrases.plain(law['offset'])} + " if "offset" in law else ""
        variable = VARIABLES.get(quantity, of)
        yield {
            "group": name,
            "quantity": quantity,
            "law": f"{offset}{_number(law['coefficient'])} {variable}^{phrases.plain(law['exponent'])}",
            "95 % of the exponent": _interval(law.get("interval")),
        }


def _parameter_row(name: str, group: Record, key: str, intervals: str) -> dict[str, str]:
    """Parameters of a group, or of something fitted beside, with their intervals."""
    holder = group if key == "parameters" else group[key]
    known = holder.get(intervals) or holder.get("intervals") or {}
    cells = {
        symbol: f"{_number(value)} {_interval(known.get(symbol))}".strip()
        for symbol, value in holder["parameters"].items()
    }
    return {"group": name, **cells}


def _print_rows(console: Console, title: str, rows: Iterable[Mapping[str, str]]) -> None:
    """A table with a column for every key of the rows; nothing without rows."""
    rows = list(rows)
    if not rows:
        return
    table = Table(title=Text(title), title_justify="left", box=None, pad_edge=False, padding=(0, 2, 0, 0))
    keys = list(dict.fromkeys(key for row in rows for key in row))
    for key in keys:
        # Spaces, so that headers can wrap.
        table.add_column(Text(key.replace("_", " ")), justify="left" if key in WORDS else "right")
    for row in rows:
        table.add_row(*(Text(row.get(key, "")) for key in keys))
    console.print()
    console.print(table)


def _is_table(rows: Any) -> bool:
    return isinstance(rows, Sequence) and bool(rows) and isinstance(rows[0], Mapping)


def _scalars(row: Record) -> dict[str, str]:
    """What fits into cells: numbers and words, and lists of words joined."""
    cells = {}
    for key, value in row.items():
        if key in INNER:
            continue
        if isinstance(value, list) and all(isinstance(word, str) for word in value):
            cells[key] = "; ".join(value)
        elif not isinstance(value, (list, dict)):
            cells[key] = value if isinstance(value, str) else _number(value)
    return cells


def _number(value: float | None) -> str:
    """Yes or no for truths, scientific beyond four digits before or three zeros behind the point."""
    if value is None or not math.isfinite(value):
        return NOTHING
    if isinstance(value, bool):
        return "yes" if value else "no"
    if abs(value) < ROUNDING or 1e-3 <= abs(value) < 1e4:
        return phrases.plain(0 if abs(value) < ROUNDING else value)
    return phrases.scientific(value).replace("-", "−")


def _interval(interval: Sequence[float | None] | None) -> str:
    return "" if interval is None else f"[{', '.join(map(_number, interval))}]"
