"""Panels of laws as they stand in the JSON objects of `noiselaw laws`, whatever the method.

Losses in nats per token. Points are hollow where flagged or left out of the laws.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from noiselaw.report import phrases
from noiselaw.report.axes import log_axis
from noiselaw.report.colors import NEUTRAL, Style, group_styles
from noiselaw.report.drawing import Label, Line, Mark, Panel, Points
from noiselaw.report.panels import (
    FLOPS,
    QUANTITIES,
    best_points,
    heights,
    law_band,
    law_line,
    quantity_format,
    write_quantity,
)
from noiselaw.report.results import PowerLaw

Record = Mapping[str, Any]
"""What a method found for one group."""
Groups = Mapping[str, Record]

MOST_PANELS = 5
"""Of a row."""


@dataclass(frozen=True, slots=True)
class LawView:
    """One law of a method, and the points that it goes through."""

    quantity: str
    of: str
    """What it is a law of."""
    points: str
    """The list of a record that holds them."""
    title: str
    label: str
    of_label: str
    symbol: str
    """Of what it is a law of."""

    def write_of(self, value: float) -> str:
        """Where a point stands, for its hover."""
        return f"{self.symbol} = {phrases.scientific(value)}"


COMPUTE = {
    quantity: LawView(quantity, "budget", "optima", title, label, FLOPS, "C")
    for quantity, (title, label) in QUANTITIES.items()
}
"""The laws of compute: M*, D*, L*."""


def law_panels(
    groups: Groups, views: Iterable[LawView], styles: Mapping[str, Style] | None = None
) -> tuple[Panel, ...]:
    """A panel per law that a group has, or has points of; `styles` of all groups of the page."""
    drawn = ((view, _marks_of(groups, view, styles or group_styles(groups))) for view in views)
    return tuple(_law_panel(view, marks) for view, marks in drawn if marks)


def law_marks(name: str, record: Record, view: LawView, style: Style) -> list[Mark]:
    """Law, band and points of one group."""
    points = [
        (float(one[view.of]), float(one[view.quantity]), bool(one.get("flags")) or not one.get("kept", True))
        for one in record.get(view.points, ())
    ]
    found = record.get("laws", {}).get(view.quantity)
    marks: list[Mark] = []
    if found is not None and points:
        law, span = PowerLaw.model_validate(found), [x for x, _, _ in points]
        marks += law_band(name, law, span, style, record.get("degrees_of_freedom", 0))
        marks.append(law_line(name, law, span, style, view.symbol))
    return [
        *marks,
        *best_points(name, points, lambda value: write_quantity(view.quantity, value), style, view.write_of),
    ]


def _marks_of(groups: Groups, view: LawView, styles: Mapping[str, Style]) -> list[Mark]:
    return [mark for name, record in groups.items() for mark in law_marks(name, record, view, styles[name])]


def _law_panel(view: LawView, marks: Sequence[Mark]) -> Panel:
    x = log_axis(view.of_label, widths(marks), quantity_format(view.of), most_ticks=5)
    return Panel(view.title, x, log_axis(view.label, heights(marks), quantity_format(view.quantity)), tuple(marks))


def widths(marks: Iterable[Mark]) -> list[float]:
    """Every x that the marks reach, the ends of intervals included."""
    reached: list[float] = []
    for mark in marks:
        reached += (mark.x,) if isinstance(mark, Label) else mark.x
        if isinstance(mark, Points):
            reached += (end for interval in mark.x_interval for end in interval)
    return reached


def level_line(x: Iterable[float], y: float) -> Line:
    """A grey guide at one height."""
    along = list(x)
    return Line((min(along), max(along)), (y, y), NEUTRAL, width=1.0)


def rows_of(panels: Sequence[Panel]) -> tuple[tuple[Panel, ...], ...]:
    """Rows of at most MOST_PANELS, about equally long."""
    if not panels:
        return ()
    number = -(-len(panels) // MOST_PANELS)
    length = -(-len(panels) // number)
    return tuple(tuple(panels[start : start + length]) for start in range(0, len(panels), length))
