"""Figures of the methods that compare runs with each other: batch and learning rate, cooldown, crossings.

D training tokens, B batch in tokens, eta learning rate, C training compute in FLOPs; losses in nats per token.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from noiselaw.laws.table import RunTable
from noiselaw.report import phrases
from noiselaw.report.axes import Axis, linear_axis, log_axis
from noiselaw.report.colors import NEUTRAL, Style, group_styles
from noiselaw.report.drawing import Band, Drawing, Label, Line, Mark, Panel, Points
from noiselaw.report.lawpanels import Groups, LawView, Record, law_panels, level_line, rows_of, widths
from noiselaw.report.panels import FLOPS, LOSS, heights, quantity_format

TUNING_LAWS = (
    LawView("batch_tokens", "tokens", "cells", "Best batch B*", "Batch (tokens)", "Training tokens D", "D"),
    LawView(
        "learning_rate", "batch_tokens", "readings", "Best learning rate η*", "Learning rate", "Batch (tokens)", "B"
    ),
)
PAIRED_BY = " | "
"""Between the names of a pair."""
OVER_LABELS = {"flops": FLOPS, "tokens": "Training tokens D", "unique_tokens": "Unique tokens U"}


def hyperparameters(groups: Groups, table: RunTable) -> Drawing:
    """The laws of batch and learning rate, and the cells that their points were read off."""
    del table  # the cells hold what they were read off
    styles = group_styles(groups)
    batch = [mark for name, record in groups.items() for mark in _batch_lines(record["cells"], name, styles[name])]
    rate = [mark for name, record in groups.items() for mark in _rate_lines(record["rate_cells"], name, styles[name])]
    panels = (
        _cell_panel("Too small, too large a batch", "Batch over the best", "Tokens to a loss over the best (%)", batch),
        _cell_panel("Too low, too high a rate", "Learning rate over the best", "Loss over the best (%)", rate),
    )
    caption = (
        "Best batch for a number of tokens and best learning rate for a batch, by the vertices of parabolas (hollow: "
        "no minimum among the values tried). Below: what every cell pays for another batch or learning rate."
    )
    below = tuple(panel for panel in panels if panel is not None)
    rows = (*rows_of(law_panels(groups, TUNING_LAWS)), *rows_of(below))
    return Drawing("hyperparameters", "Laws of batch and learning rate", caption, rows)


def _batch_lines(cells: Sequence[Mapping[str, Any]], group: str, style: Style) -> list[Line]:
    return [
        _cell_line(
            [batch / cell["batch_tokens"] for batch in cell["batches"]],
            [100 * (tokens / cell["tokens"] - 1) for tokens in cell["tokens_to_target"]],
            f"{group}\n{phrases.count(cell['params'])} parameters to a loss of {cell['target_loss']:.4g}",
            style,
        )
        for cell in cells
        if cell["kept"]
    ]


def _rate_lines(cells: Sequence[Mapping[str, Any]], group: str, style: Style) -> list[Line]:
    return [
        _cell_line(
            [rate / cell["learning_rate"] for rate in cell["learning_rates"]],
            [100 * (loss / cell["loss"] - 1) for loss in cell["losses"]],
            f"{group}\n{phrases.count(cell['params'])} parameters, batch {phrases.count(cell['batch_tokens'])}",
            style,
        )
        for cell in cells
        if cell["kept"]
    ]


def _cell_line(x: list[float], y: list[float], hover: str, style: Style) -> Line:
    return Line(tuple(x), tuple(y), style.color, 0.5, 1.0, hover=hover)


def _cell_panel(title: str, x_label: str, y_label: str, lines: Sequence[Line]) -> Panel | None:
    if not lines:
        return None
    x = log_axis(x_label, widths(lines), phrases.plain)
    return Panel(title, x, linear_axis(y_label, heights(lines)), (level_line(widths(lines), 0.0), *lines))


def cooldown(groups: Groups, table: RunTable) -> Drawing:
    """The factor of every pair of runs against compute, with the constant of its group."""
    del table  # the pairs hold their losses
    styles = group_styles(groups)
    span = [pair["flops"] for record in groups.values() for pair in record["pairs"]]
    span = [min(span) / 1.3, max(span) * 1.3]
    marks = [mark for name, record in groups.items() for mark in _factor_marks(name, record, span, styles[name])]
    x = log_axis(FLOPS, span, phrases.scientific, margin=0.02)
    y = linear_axis("Loss without over loss with cooldown", heights(marks))
    caption = (
        "Every pair of runs that differ in the cooldown alone; lines and bands are the constant factor of a group with "
        "its 95 % interval."
    )
    return Drawing("cooldown", "What a cooldown is worth", caption, ((Panel("Cooldown factor", x, y, tuple(marks)),),))


def _factor_marks(name: str, record: Record, span: Sequence[float], style: Style) -> list[Mark]:
    factor, interval = record["parameters"]["factor"], record["intervals"]["factor"]
    along = (min(span), max(span))
    marks: list[Mark] = []
    if interval is not None:
        marks.append(Band(along, (interval[0],) * 2, (interval[1],) * 2, style.color, group=name))
    marks.append(Line(along, (factor,) * 2, style.color, hover=f"{name}: {factor:.4f}", group=name))
    pairs = record["pairs"]
    x, y = tuple(pair["flops"] for pair in pairs), tuple(pair["ratio"] for pair in pairs)
    hover = tuple(f"{pair['run']}\n{pair['ratio']:.4f}" for pair in pairs)
    return [*marks, Points(x, y, style.color, style.symbol, 6.5, hover=hover, group=name)]


def crossing(groups: Groups, table: RunTable) -> Drawing:
    """The rows of the table with the points where laws cross, and a row per pair with interval and range searched."""
    over = next(iter(groups.values()))["over"]
    caption = (
        "Losses of the table's rows, and stars where the laws of two groups cross (hollow where flagged). Right: the "
        "95 % interval of every crossing in the range searched (line) and where both groups have data (band)."
    )
    panels = (_loss_panel(groups, table, over), pair_panel(groups, over))
    return Drawing("cross", "Who overtakes whom", caption, (panels,))


def _loss_panel(groups: Groups, table: RunTable, over: str) -> Panel:
    styles = group_styles(dict.fromkeys(table.group.tolist()))
    marks: list[Mark] = []
    compared = [name for pair in groups for name in styles if name in pair.split(PAIRED_BY)]
    for name, rows in table.rows(np.isin(table.group, compared)).groups():
        x, y = tuple(getattr(rows, over).tolist()), tuple(rows.loss.tolist())
        marks.append(Points(x, y, styles[name].color, styles[name].symbol, 4.0, 0.7, group=name))
    for pair, record in groups.items():
        marks += _star(record, pair, record["parameters"]["loss"])
    x = log_axis(OVER_LABELS[over], widths(marks), quantity_format(over), most_ticks=5)
    return Panel("Losses", x, log_axis(LOSS, heights(marks), phrases.plain), tuple(marks))


def _star(record: Record, pair: str, y: float | None) -> list[Points]:
    at, interval = record["parameters"]["crossing"], record["intervals"]["crossing"]
    if at is None or y is None:
        return []
    hover = f"{pair}\n{record['leader_below']} leads below, {record['leader_above']} above {phrases.scientific(at)}"
    return [
        Points((at,), (y,), NEUTRAL, "star", 11, filled=not record["flags"], hover=(hover,),
               x_interval=() if interval is None else (tuple(interval),))
    ]  # fmt: skip


def pair_panel(groups: Groups, over: str) -> Panel:
    """A row per pair: the range searched, the range of data, the crossing; or who leads throughout."""
    marks: list[Mark] = []
    names = tuple(groups)[::-1]
    for row, pair in enumerate(names):
        record = groups[pair]
        data, within, leader = tuple(record["data"]), tuple(record["within"]), record["leader_below"]
        if leader is None:  # a group without a law has no range to search
            continue
        marks += [
            Line(within, (float(row),) * 2, NEUTRAL, 0.6, 1.0),
            Band(data, (row - 0.12,) * 2, (row + 0.12,) * 2, NEUTRAL, 0.3),
            *_star(record, pair, float(row)),
        ]
        if record["parameters"]["crossing"] is None:
            marks.append(Label(within[0], row + 0.25, f"no crossing: {leader} leads"))
    x = log_axis(OVER_LABELS[over], widths(marks), quantity_format(over), most_ticks=5)
    rows = tuple((float(row), name) for row, name in enumerate(names))
    return Panel("Crossings", x, Axis("", -0.6, len(names) - 0.4, rows), tuple(marks))
