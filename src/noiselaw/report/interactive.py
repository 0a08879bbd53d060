"""Panels as plotly data for the page. Colours of the page itself (ink, grid, dark or light) are set by page.js.

Every text that may come from a study is escaped here, because plotly reads a subset of HTML in its texts.
"""

import html
import math
from collections.abc import Iterable
from typing import Any

from noiselaw.report.axes import Axis
from noiselaw.report.colors import Symbol
from noiselaw.report.drawing import Band, Label, Line, Mark, Panel, Points

SYMBOLS: dict[Symbol, str] = {
    "circle": "circle", "square": "square", "diamond": "diamond", "triangle": "triangle-up",
    "triangle-down": "triangle-down", "star": "star", "cross": "cross",
}  # fmt: skip


def panel_json(panel: Panel) -> dict[str, Any]:
    """`{"title", "data", "layout"}` of one panel, ready for JSON and Plotly.newPlot."""
    traces = [_trace(mark) for mark in panel.marks]
    return {"title": panel.title, "data": traces, "layout": {"xaxis": _axis(panel.x), "yaxis": _axis(panel.y)}}


def _axis(axis: Axis) -> dict[str, Any]:
    transform = math.log10 if axis.log else float
    return {
        "type": "log" if axis.log else "linear",
        "range": [transform(axis.low), transform(axis.high)],
        "tickvals": [value for value, _ in axis.ticks],
        "ticktext": [_escape(text) for _, text in axis.ticks],
        "title": {"text": _escape(axis.label)},
    }


def _trace(mark: Mark) -> dict[str, Any]:
    if isinstance(mark, Band):
        return _band(mark)
    if isinstance(mark, Label):
        return _label(mark)
    return _line(mark) if isinstance(mark, Line) else _points(mark)


def _band(band: Band) -> dict[str, Any]:
    return {
        "type": "scatter", "mode": "lines", "x": _rounded([*band.x, *reversed(band.x)]),
        "y": _rounded([*band.high, *reversed(band.low)]), "line": {"width": 0},
        "fill": "toself", "fillcolor": _rgba(band.color, band.opacity),
        "hoverinfo": "skip", "meta": {"group": band.group, "layer": None},
    }  # fmt: skip


def _line(line: Line) -> dict[str, Any]:
    trace = {
        "type": "scatter", "mode": "lines", "x": _rounded(line.x), "y": _rounded(line.y), "opacity": line.opacity,
        "line": {"color": line.color, "width": line.width, "dash": line.dash},
        "meta": {"group": line.group, "layer": line.layer}, "visible": line.layer is None,
    }  # fmt: skip
    return trace | _hover(line.hover)


def _label(label: Label) -> dict[str, Any]:
    position = "middle right" if label.side == "right" else "middle left"
    return {
        "type": "scatter", "mode": "text", "x": _rounded([label.x]), "y": _rounded([label.y]),
        "text": [_escape(label.text)], "textposition": position, "textfont": {"size": 10},
        "hoverinfo": "skip", "cliponaxis": False, "meta": {"group": label.group, "layer": None},
    }  # fmt: skip


def _points(points: Points) -> dict[str, Any]:
    symbol = SYMBOLS[points.symbol]
    width = 0.0 if points.filled else 1.8
    trace = {
        "type": "scatter", "mode": "markers", "x": _rounded(points.x), "y": _rounded(points.y),
        "opacity": points.opacity,
        "marker": {
            "color": points.color, "size": points.size * 1.25, "symbol": symbol if points.filled else f"{symbol}-open",
            "line": {"color": points.color, "width": width},
        },
        "meta": {"group": points.group, "layer": None},
    }  # fmt: skip
    for name, values, intervals in (("x", points.x, points.x_interval), ("y", points.y, points.y_interval)):
        if intervals:
            trace[f"error_{name}"] = _error_bars(values, intervals, points.color)
    return trace | _hover(points.hover or None)


def _error_bars(values: tuple[float, ...], intervals: tuple[tuple[float, float], ...], color: str) -> dict[str, Any]:
    pairs = list(zip(values, intervals, strict=True))
    return {
        "type": "data", "symmetric": False, "color": color, "thickness": 1.6, "width": 5,
        "array": _rounded(max(0.0, high - value) for value, (_, high) in pairs),
        "arrayminus": _rounded(max(0.0, value - low) for value, (low, _) in pairs),
    }  # fmt: skip


def _hover(text: str | tuple[str, ...] | None) -> dict[str, Any]:
    """One text for all points, or one each."""
    if text is None:
        return {"hoverinfo": "skip"}
    escaped = _escape(text) if isinstance(text, str) else list(map(_escape, text))
    return {"text": escaped, "hovertemplate": "%{text}<extra></extra>"}


def _escape(text: str) -> str:
    return html.escape(text, quote=False).replace("\n", "<br>")


def _rounded(values: Iterable[float]) -> list[float]:
    """Seven significant digits: finer than any screen, half the bytes."""
    return [float(f"{value:.7g}") for value in values]


def _rgba(color: str, opacity: float) -> str:
    red, green, blue = (int(color[start : start + 2], 16) for start in (1, 3, 5))
    return f"rgba({red},{green},{blue},{opacity:g})"
