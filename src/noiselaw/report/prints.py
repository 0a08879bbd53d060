"""Drawings as files for README and paper (PNG, SVG), by matplotlib; no window, no global state."""

import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure, SubFigure
from matplotlib.lines import Line2D
from matplotlib.ticker import NullLocator

from noiselaw.files import write_atomically
from noiselaw.report.axes import Axis
from noiselaw.report.colors import NEUTRAL, Symbol
from noiselaw.report.drawing import Band, Dash, Drawing, Label, Line, Mark, Panel, Points

MARKERS: dict[Symbol, str] = {
    "circle": "o", "square": "s", "diamond": "D", "triangle": "^", "triangle-down": "v", "star": "*", "cross": "P",
}  # fmt: skip
DASHES: dict[Dash, Literal["-", "--", ":"]] = {"solid": "-", "dash": "--", "dot": ":"}
INK, GRID = "#24292f", "#e4e7eb"
RESOLUTION = 180
SHORT_NAME = 16
"""Letters; a key of such names stands in two columns."""
STYLE: dict[Any, Any] = {
    "font.family": "DejaVu Sans",  # comes with matplotlib, has the superscripts, looks the same everywhere
    "font.size": 8.5, "axes.titlesize": 10, "axes.labelsize": 8.5, "xtick.labelsize": 7.5, "ytick.labelsize": 7.5,
    "text.color": INK, "axes.labelcolor": INK, "axes.edgecolor": "#9aa1ab", "xtick.color": INK, "ytick.color": INK,
    "axes.linewidth": 0.8, "xtick.major.width": 0.8, "ytick.major.width": 0.8,
    "xtick.major.size": 3, "ytick.major.size": 3,
    "axes.spines.top": False, "axes.spines.right": False, "axes.axisbelow": True, "axes.grid": True,
    "grid.color": GRID, "grid.linewidth": 0.7, "text.parse_math": False, "svg.hashsalt": "noiselaw",
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class PrintStyle:
    """How drawings become files."""

    formats: tuple[str, ...]
    width: float
    """Inches."""
    heights: tuple[float, float]
    """Of a row of up to two panels, and of more; inches."""
    most_panels: int
    """Of a row; longer rows are broken."""
    settings: Mapping[Any, Any]
    """matplotlib's, on top of STYLE."""


SCREEN = PrintStyle(("png", "svg"), 11.0, (3.3, 2.9), 99, {})
"""For a README: wide, to be looked at on a screen."""
PAPER = PrintStyle(
    ("png", "svg", "pdf"), 6.75, (2.3, 2.0), 3,
    {
        "font.size": 7.5, "axes.titlesize": 8, "axes.labelsize": 7.5, "xtick.labelsize": 6.5, "ytick.labelsize": 6.5,
        "pdf.fonttype": 42, "axes.linewidth": 0.6, "grid.linewidth": 0.5, "lines.linewidth": 1.0,
    },
)  # fmt: skip
"""For a paper: as wide as its text, letters of 7 points, fonts embedded as TrueType."""
_METADATA: dict[str, dict[str, None]] = {
    "png": {"Software": None}, "svg": {"Date": None}, "pdf": {"CreationDate": None, "Producer": None, "Creator": None},
}  # fmt: skip
"""Left out, so that the same drawing gives the same bytes."""


def write_prints(
    drawing: Drawing, folder: Path, formats: tuple[str, ...] = (), style: PrintStyle = SCREEN
) -> list[Path]:
    """Write the drawing as `folder`/NAME.FORMAT, whole files only; the same drawing gives the same bytes.

    The formats are the style's where none is given; the folder is made where there is none.
    """
    folder.mkdir(parents=True, exist_ok=True)
    paths = [folder / f"{drawing.name}.{kind}" for kind in formats or style.formats]
    with rc_context(STYLE | dict(style.settings)), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing", category=UserWarning)  # names in any script
        figure = draw(drawing, style)
        figure.draw_without_rendering()
        figure.set_layout_engine(None)  # laid out once, not once more for every format
        for path in paths:
            kind = path.suffix[1:]
            write_atomically(path, lambda stream, kind=kind: figure.savefig(
                stream, format=kind, dpi=RESOLUTION, metadata=_METADATA[kind]
            ))  # fmt: skip
    return paths


def draw(drawing: Drawing, style: PrintStyle = SCREEN) -> Figure:
    """The drawing as a matplotlib figure: a strip of panels per row."""
    rows = [part for row in drawing.rows for part in _broken(row, style.most_panels)]
    heights = [style.heights[len(row) > 2] for row in rows]
    figure = Figure(figsize=(style.width, sum(heights)))
    figure.set_layout_engine("constrained", w_pad=0.1, h_pad=0.1)
    strips = figure.subfigures(len(rows), 1, height_ratios=heights, squeeze=False)[:, 0]
    for strip, row in zip(strips, rows, strict=True):
        _draw_row(strip, row)
    return figure


def _broken(row: tuple[Panel, ...], most: int) -> Iterator[tuple[Panel, ...]]:
    """Rows of at most so many panels, about equally long."""
    number = -(-len(row) // most)
    length = -(-len(row) // number)
    return (row[start : start + length] for start in range(0, len(row), length))


def _draw_row(strip: SubFigure, row: tuple[Panel, ...]) -> None:
    grid = strip.add_gridspec(1, len(row), width_ratios=[panel.span for panel in row])
    has_legend = False
    for index, panel in enumerate(row):
        axes = strip.add_subplot(grid[index])
        axes.set_title(panel.title, loc="left", fontweight="bold", color=_title_color(panel))
        _set_axis(axes, panel.x, "x")
        _set_axis(axes, panel.y, "y")
        if index and panel.y == row[index - 1].y:
            axes.set_ylabel("")
            axes.tick_params(axis="y", labelleft=False)
        for mark in panel.marks:
            _draw_mark(axes, mark)
        has_legend = _add_legend(axes, panel, has_legend=has_legend)


def _title_color(panel: Panel) -> str:
    """A panel of one noise bears its colour."""
    drawn = [mark for mark in panel.marks if not isinstance(mark, Label) and mark.group == panel.title]
    colors = {mark.color for mark in drawn} - {NEUTRAL}
    return colors.pop() if len(colors) == 1 else INK


def _set_axis(axes: Axes, axis: Axis, which: str) -> None:
    if axis.log:
        (axes.set_xscale if which == "x" else axes.set_yscale)("log")
    (axes.set_xlim if which == "x" else axes.set_ylim)(axis.low, axis.high)
    scale = axes.xaxis if which == "x" else axes.yaxis
    scale.set_minor_locator(NullLocator())
    scale.set_ticks([value for value, _ in axis.ticks], labels=[text for _, text in axis.ticks])
    scale.set_label_text(axis.label)


def _draw_mark(axes: Axes, mark: Mark) -> None:
    if isinstance(mark, Band):
        axes.fill_between(mark.x, mark.low, mark.high, color=mark.color, alpha=mark.opacity, linewidth=0)
    elif isinstance(mark, Label):
        _draw_label(axes, mark)
    elif isinstance(mark, Line):
        _draw_line(axes, mark)
    else:
        _draw_points(axes, mark)


def _draw_line(axes: Axes, line: Line) -> None:
    if line.layer == "published":
        return
    style = {"color": _tint(line.color, line.opacity), "linewidth": line.width, "solid_capstyle": "butt"}
    axes.plot(line.x, line.y, linestyle=DASHES[line.dash], **style)


def _draw_label(axes: Axes, label: Label) -> None:
    offset, alignment = (4, "left") if label.side == "right" else (-4, "right")
    axes.annotate(
        label.text, (label.x, label.y), (offset, 0), textcoords="offset points", fontsize=7, color=INK,
        ha=alignment, va="center",
    )  # fmt: skip


def _draw_points(axes: Axes, points: Points) -> None:
    color = _tint(points.color, points.opacity)
    is_star = points.symbol == "star"
    # A white rim parts large marks from what lies beneath; small ones it would swallow.
    has_rim = points.filled and points.size >= (9 if is_star else 4)
    style: dict[str, Any] = {
        "linestyle": "none", "marker": MARKERS[points.symbol], "markersize": points.size,
        "markerfacecolor": color if points.filled else "white", "markeredgecolor": "white" if has_rim else color,
        "markeredgewidth": 0.6 if points.filled else min(1.3, 0.15 * points.size), "zorder": 4 if is_star else 3,
    }  # fmt: skip
    x_errors, y_errors = _errors(points.x, points.x_interval), _errors(points.y, points.y_interval)
    if x_errors is None and y_errors is None:
        axes.plot(points.x, points.y, **style)
    else:
        axes.errorbar(
            points.x, points.y, xerr=x_errors, yerr=y_errors, ecolor=color, elinewidth=1.3, capsize=3, **style
        )


def _tint(color: str, opacity: float) -> tuple[float, float, float]:
    """The colour that `opacity` gives on white: shades do not darken where marks cross."""
    red, green, blue = (1 - opacity * (1 - channel) for channel in to_rgb(color))
    return red, green, blue


def _errors(values: tuple[float, ...], intervals: tuple[tuple[float, float], ...]) -> list[list[float]] | None:
    """Distances below and above, as matplotlib wants them; none on a side where the interval leaves its value out."""
    if not intervals:
        return None
    pairs = list(zip(values, intervals, strict=True))
    return [
        [max(0.0, value - low) for value, (low, _) in pairs],
        [max(0.0, high - value) for value, (_, high) in pairs],
    ]


def _add_legend(axes: Axes, panel: Panel, *, has_legend: bool) -> bool:
    """The panel's key; else its noises where there are several, no axis names them and none of its row has.

    Returns whether the row has a legend of noises now.
    """
    groups = {} if panel.key or has_legend else _drawn_groups(panel)
    shown = dict(panel.key) or groups
    if shown:
        handles = [_handle(name, mark) for name, mark in shown.items()]
        columns = 2 if panel.key and max(map(len, shown)) <= SHORT_NAME else 1
        style = {"fontsize": 8, "loc": "best"} if groups else {"fontsize": 7, "loc": "upper right", "ncols": columns}
        axes.legend(handles=handles, frameon=False, **style)
    return has_legend or bool(groups)


def _drawn_groups(panel: Panel) -> dict[str, Points]:
    """Groups by the first of their points; none where there is one only, or the axis names them."""
    shown: dict[str, Points] = {}
    for mark in panel.marks:
        if isinstance(mark, Points) and mark.group is not None:
            shown.setdefault(mark.group, replace(mark, filled=True, opacity=1.0, size=5.0))
    return {} if len(shown) < 2 or {text for _, text in panel.y.ticks} == set(shown) else shown


def _handle(name: str, mark: Line | Points) -> Line2D:
    """A sample of the mark; points of a group bear the line of their law."""
    if isinstance(mark, Line):
        color = _tint(mark.color, mark.opacity)
        return Line2D([], [], color=color, linewidth=mark.width, linestyle=DASHES[mark.dash], label=name)
    face = mark.color if mark.filled else "white"
    return Line2D(
        [], [], color=mark.color, linewidth=0 if mark.group is None else 1.8, marker=MARKERS[mark.symbol],
        markersize=min(mark.size, 6), markerfacecolor=face, label=name,
    )  # fmt: skip
