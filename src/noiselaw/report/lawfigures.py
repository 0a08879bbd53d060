"""A figure for every method of `noiselaw laws`, from the object that it prints and the table that it read.

C training compute in FLOPs, M FLOPs per token, D tokens, N a size by parameters or M; losses in nats per token. Points
are hollow where flagged or left out of the laws.
"""

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from noiselaw.laws.repeated import NAMES, repeated_loss
from noiselaw.laws.table import RunTable
from noiselaw.report import phrases
from noiselaw.report.axes import linear_axis, log_axis
from noiselaw.report.colors import Style, group_styles
from noiselaw.report.drawing import Drawing, Line, Mark, Panel, Points
from noiselaw.report.lawpanels import COMPUTE, Groups, LawView, Record, law_marks, law_panels, level_line, rows_of
from noiselaw.report.panels import FLOPS, LOSS, Valley, heights, isoflop_panels, log_spaced, shade, valley_panels
from noiselaw.report.results import Optimum
from noiselaw.report.tuningfigures import cooldown, crossing, hyperparameters

TOKENS = "Training tokens D"


def law_drawing(method: str, record: Record, table: RunTable) -> Drawing:
    """The figure of one method's JSON object, `{"groups": {...}}`.

    Raises ValueError for a method without a figure, and where no group has anything to draw.
    """
    if method not in FIGURES:
        raise ValueError(f"no figure for method {method!r}; known: {', '.join(FIGURES)}")
    drawing = FIGURES[method](record["groups"], table)
    if not drawing.panels:
        raise ValueError(f"laws {method}: nothing to draw, no group has laws or points; see the flags")
    return drawing


def isoflop(groups: Groups, table: RunTable) -> Drawing:
    """Parabolas at every budget, and the laws through their minima."""
    del table  # the optima hold the points that they stand for
    optima = {name: tuple(map(Optimum.model_validate, record["optima"])) for name, record in groups.items()}
    above = isoflop_panels({name: some for name, some in optima.items() if some}, group_styles(groups))
    caption = (
        "Loss of every size at the same compute (number on the curve, in FLOPs), parabolas in logs and their minima "
        "(stars, hollow where flagged); below the power laws of the minima."
    )
    rows = (*rows_of(above), *rows_of(law_panels(groups, COMPUTE.values())))
    return Drawing("isoflop", "Laws of compute by parabolas", caption, rows)


def frontier(groups: Groups, table: RunTable) -> Drawing:
    """Every run's curve under the law of the best."""
    styles = group_styles(groups)
    x = log_axis(FLOPS, table.flops, phrases.scientific, most_ticks=5 if len(groups) < 4 else 3)
    y = log_axis(LOSS, table.loss, phrases.plain)
    panels = [
        Panel(name, x, y, (*_curves(rows, styles[name]), *law_marks(name, groups[name], COMPUTE["loss"], styles[name])))
        for name, rows in table.groups()
    ]
    caption = (
        "Every run's losses (faint), the best run of each stretch of compute (points in its middle, hollow where left "
        "out) and the law of the envelope; below the size and the tokens of the best run."
    )
    below = law_panels(groups, (COMPUTE["flops_per_token"], COMPUTE["tokens"]))
    return Drawing("frontier", "Laws of compute by the frontier", caption, (*rows_of(panels), *rows_of(below)))


def _curves(rows: RunTable, style: Style) -> list[Line]:
    runs = [rows.rows(rows.run == run) for run in dict.fromkeys(rows.run.tolist())]
    return [_along(run.flops, run.loss, style, 0.35, str(run.run[0])) for run in runs]


def _along(x: np.ndarray, y: np.ndarray, style: Style, opacity: float, hover: str) -> Line:
    order = np.argsort(x, kind="stable")
    return Line(tuple(x[order].tolist()), tuple(y[order].tolist()), style.color, opacity, 1.0, hover=hover)


def surface(groups: Groups, table: RunTable) -> Drawing:
    """Rows of the table on slices of the surface, and what it misses."""
    styles = group_styles(groups)
    x = log_axis(TOKENS, table.tokens, phrases.count, most_ticks=5)
    y = log_axis(LOSS, table.loss, phrases.plain)
    fitted_groups = {name: rows for name, rows in table.groups() if "parameters" in groups[name]}
    slices, missed = [], []
    for name, rows in fitted_groups.items():
        fitted, style = _SurfaceRecord(groups[name]), styles[name]
        slices.append(Panel(name, x, y, _slices(name, fitted, rows, style)))
        errors = 100 * (fitted.loss(fitted.size_of(rows), rows.tokens) / rows.loss - 1)
        missed.append(_cloud(name, rows.flops, errors, style))
    largest = max(map(abs, heights(missed)), default=1.0)
    error = Panel(
        "What the surface misses",
        log_axis(FLOPS, table.flops, phrases.scientific),
        linear_axis("Fitted − measured (%)", [-largest, largest]),
        (level_line(table.flops, 0.0), *missed),
    )
    caption = (
        "Loss against tokens: points are the rows of the table, lines the fitted surface E + A N^-alpha + B D^-beta at "
        "their sizes (darker is larger). Below: fitted over measured loss, minus one."
    )
    return Drawing("surface", "The loss surface", caption, (*rows_of(slices), *rows_of([error] if missed else [])))


class _SurfaceRecord:
    """L = E + A N^-alpha + B D^-beta of a record; its `size` says what N counts."""

    def __init__(self, record: Record) -> None:
        self._parameters = record["parameters"]
        self._size: str = record.get("size", "params")

    def loss(self, size: np.ndarray, tokens: np.ndarray) -> np.ndarray:
        p = self._parameters
        return p["E"] + p["A"] * size ** -p["alpha"] + p["B"] * tokens ** -p["beta"]

    def size_of(self, rows: RunTable) -> np.ndarray:
        return getattr(rows, self._size)


MOST_SLICES = 12
"""Sizes that have a line of their own; of more, so many are drawn, evenly."""


def _slices(name: str, fitted: _SurfaceRecord, rows: RunTable, style: Style) -> tuple[Mark, ...]:
    sizes = np.unique(fitted.size_of(rows))
    opacity = dict(zip(sizes.tolist(), (shade(index, sizes.size) for index in range(sizes.size)), strict=True))
    chosen = sizes[np.unique(np.linspace(0, sizes.size - 1, min(sizes.size, MOST_SLICES)).round().astype(int))]
    marks: list[Mark] = []
    for size in chosen:
        mine = rows.tokens[fitted.size_of(rows) == size]
        tokens = np.array(log_spaced(mine.min(), mine.max())) if mine.min() < mine.max() else mine[:1]
        line = _along(tokens, fitted.loss(size, tokens), style, opacity[float(size)], f"{name}, {phrases.count(size)}")
        marks.append(line)
    small = 5.0 if rows.loss.size <= MANY_ROWS else 3.0
    for size in sizes:
        mine = fitted.size_of(rows) == size
        cloud = _cloud(name, rows.tokens[mine], rows.loss[mine], style, opacity[float(size)])
        marks.append(replace(cloud, size=small))
    return tuple(marks)


def _cloud(name: str, x: np.ndarray, y: np.ndarray, style: Style, opacity: float = 0.8) -> Points:
    """Points of a group, small where they are many."""
    size = 5.0 if x.size <= MANY_ROWS else 3.0
    return Points(tuple(x.tolist()), tuple(y.tolist()), style.color, style.symbol, size, opacity, group=name)


MANY_ROWS = 60

_OF_TOKENS = ("tokens", "optima")
TOKEN_LAWS = (
    LawView("loss", *_OF_TOKENS, "Loss L*", LOSS, TOKENS, "D"),
    LawView("flops_per_token", *_OF_TOKENS, "Model size M*", "FLOPs per token", TOKENS, "D"),
    LawView("flops", *_OF_TOKENS, "Compute C*", FLOPS, TOKENS, "D"),
)


def tokens(groups: Groups, table: RunTable) -> Drawing:
    """Parabolas at every number of tokens, the laws through their minima, the value of repeats where it was fitted."""
    valleys = {
        name: [_token_valley(one, record["points"]) for one in record["optima"]]
        for name, record in groups.items()
        if record.get("optima")
    }
    above = valley_panels(valleys, group_styles(groups), "FLOPs per token M")
    repeated = {name: record["repeated"] for name, record in groups.items() if record.get("repeated")}
    below = (law_panels(groups, TOKEN_LAWS), repeat_panels(repeated, table, group_styles(groups)))
    rows = (*rows_of(above), *(row for panels in below for row in rows_of(panels)))
    caption = (
        "Loss of every size after the same tokens (number on the curve), parabolas in logs and their minima (stars, "
        "hollow where flagged); below the power laws of the minima. Compute is free here."
    )
    return Drawing("tokens", "Laws of data", caption, rows)


def _token_valley(optimum: Mapping[str, Any], points: list[Mapping[str, Any]]) -> Valley:
    level = phrases.count(optimum["tokens"])
    return Valley(
        level=optimum["tokens"],
        text=level,
        size=optimum["flops_per_token"],
        loss=optimum["loss"],
        hover="\n".join((f"optimum at {level} tokens", f"{optimum['loss']:.4f} nats per token", *optimum["flags"])),
        is_flagged=bool(optimum["flags"]),
        coefficients=(optimum["c0"], optimum["c1"], optimum["c2"]),
        points=tuple(
            (point["flops_per_token"], point["loss"], f"{point['run']}, {level} tokens\n{point['loss']:.4f}")
            for point in points
            if point["tokens"] == optimum["tokens"]
        ),
    )


_MOST_MISSED = 1e6
"""Percent; laws of damaged files miss by more than any axis holds."""


def repeat_panels(groups: Groups, table: RunTable, styles: Mapping[str, Style]) -> tuple[Panel, ...]:
    """What D tokens of U unique ones are worth by the law of repeated data of each group, and what that law misses."""
    if not groups:
        return ()
    epochs = np.array(log_spaced(1.0, 4 * float(_epochs(table).max())))
    worth: list[Mark] = [_along(epochs, epochs, Style("#8a8f98", "circle"), 0.7, "as good as new")]
    missed: list[Points] = []
    for name, rows in table.groups():
        if name in groups:
            line = _along(epochs, _effective_epochs(groups[name], epochs), styles[name], 1.0, name)
            worth.append(replace(line, group=name))
            errors = 100 * (_repeated_loss(groups[name], rows) / rows.loss - 1)
            there = np.abs(errors) < _MOST_MISSED
            missed.append(_cloud(name, _epochs(rows)[there], errors[there], styles[name]))
    x = log_axis("Epochs D / U", epochs, phrases.plain)
    y = log_axis("Worth of the tokens D' / U", heights(worth), phrases.plain)
    largest = max(map(abs, heights(missed)), default=1.0)
    error = linear_axis("Fitted − measured (%)", [-largest, largest])
    return (
        Panel("What repeats are worth", x, y, tuple(worth)),
        Panel("What the law misses", x, error, (level_line(epochs, 0.0), *missed)),
    )


def _epochs(rows: RunTable) -> np.ndarray:
    assert rows.unique_tokens is not None
    return rows.tokens / rows.unique_tokens


def _effective_epochs(record: Record, epochs: np.ndarray) -> np.ndarray:
    """D' / U = 1 + R* (1 - exp(-R / R*)) with R = epochs - 1; R* is null where repeats keep their value."""
    decay = record["parameters"]["R_D"]
    return epochs if decay is None else 1.0 - decay * np.expm1(-(epochs - 1.0) / decay)


def _repeated_loss(record: Record, rows: RunTable) -> np.ndarray:
    assert rows.unique_tokens is not None
    parameters = np.array([record["parameters"].get(name, 0.0) for name in NAMES])
    return repeated_loss(parameters, getattr(rows, record["size"]), rows.tokens, rows.unique_tokens)


FIGURES: dict[str, Callable[[Groups, RunTable], Drawing]] = {
    "isoflop": isoflop,
    "surface": surface,
    "frontier": frontier,
    "tokens": tokens,
    "hyperparameters": hyperparameters,
    "cooldown": cooldown,
    "cross": crossing,
}
"""One figure per method of `noiselaw laws`."""
