"""What is drawn, said once: panels of lines, points and bands, drawn by `interactive` (page) and `prints` (files).

x and y are in the units of the panel's axes. Every mark may belong to a noise (`group`), which the page can switch off,
and to a `layer` ("published"), which the page can switch on.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import accumulate
from typing import Literal

from noiselaw.report.axes import Axis
from noiselaw.report.colors import Symbol

Dash = Literal["solid", "dash", "dot"]
Layer = Literal["published"]


@dataclass(frozen=True, slots=True)
class Line:
    x: tuple[float, ...]
    y: tuple[float, ...]
    color: str
    opacity: float = 1.0
    width: float = 1.8
    dash: Dash = "solid"
    hover: str | None = None
    group: str | None = None
    layer: Layer | None = None


@dataclass(frozen=True, slots=True)
class Points:
    x: tuple[float, ...]
    y: tuple[float, ...]
    color: str
    symbol: Symbol = "circle"
    size: float = 6.0
    """Points (1/72 inch) on paper, pixels on the page."""
    opacity: float = 1.0
    filled: bool = True
    hover: tuple[str, ...] = ()
    """One text per point; lines of a text are separated by a newline."""
    x_interval: tuple[tuple[float, float], ...] = ()
    y_interval: tuple[tuple[float, float], ...] = ()
    group: str | None = None


@dataclass(frozen=True, slots=True)
class Label:
    """A short text that ends (`left`) or begins (`right`) at a point."""

    x: float
    y: float
    text: str
    side: Literal["left", "right"] = "right"
    group: str | None = None


@dataclass(frozen=True, slots=True)
class Band:
    x: tuple[float, ...]
    low: tuple[float, ...]
    high: tuple[float, ...]
    color: str
    opacity: float = 0.18
    group: str | None = None


def spread_labels(labels: Sequence[Label], axis: Axis, gap: float = 0.05) -> list[Label]:
    """The labels moved up or down as little as keeps `gap` (a share of the axis) between them, lowest first.

    Pushing up from the lowest and down from the highest both keep the distance, and so does the mean of the two.
    """
    ordered = sorted(labels, key=lambda label: label.y)
    heights = [axis.share(label.y) for label in ordered]
    up = list(accumulate(heights, lambda below, height: max(height, below + gap)))
    down = list(accumulate(reversed(heights), lambda above, height: min(height, above - gap)))[::-1]
    middle = [(low + high) / 2 for low, high in zip(up, down, strict=True)]
    return [replace(label, y=axis.value(height)) for label, height in zip(ordered, middle, strict=True)]


Mark = Line | Points | Label | Band


@dataclass(frozen=True, slots=True)
class Panel:
    title: str
    x: Axis
    y: Axis
    marks: tuple[Mark, ...]
    span: int = 1
    """Columns it takes, of its row's."""
    key: tuple[tuple[str, Line | Points], ...] = ()
    """What marks stand for where their groups do not tell; drawn in files, the page says it as the mouse hovers."""


@dataclass(frozen=True, slots=True)
class Drawing:
    """One figure: rows of panels under a title, with a caption that says what to see and how it was made."""

    name: str
    title: str
    caption: str
    rows: tuple[tuple[Panel, ...], ...]

    @property
    def panels(self) -> tuple[Panel, ...]:
        return tuple(panel for row in self.rows for panel in row)
