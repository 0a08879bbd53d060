"""Panels and marks that several figures share: parabolas at fixed compute, power laws with their optima.

C training compute in FLOPs, M FLOPs per token, D tokens, P non-embedding parameters; losses in nats per token.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import polars as pl

from noiselaw.laws.bootstrap import LEVEL, student_quantile
from noiselaw.report import phrases
from noiselaw.report.axes import MOST_TICKS, Axis, Format, log_axis
from noiselaw.report.colors import Style
from noiselaw.report.drawing import Band, Label, Line, Mark, Panel, Points, spread_labels
from noiselaw.report.results import GroupLaws, Optimum, PowerLaw

LOSS = "Held-out loss (nats per token)"
FLOPS = "Training compute C (FLOPs)"
PARAMS = "Non-embedding parameters P"
QUANTITIES = {
    "flops_per_token": ("Model size M*", "FLOPs per token"),
    "tokens": ("Data D*", "Tokens"),
    "loss": ("Loss L*", LOSS),
}
"""The laws of compute that are drawn, each with title and label of the axis."""


@dataclass(frozen=True, slots=True)
class Valley:
    """Losses over sizes at one level of compute or tokens, with the parabola through them and its minimum."""

    level: float
    text: str
    """The level, as it stands beside the curve."""
    size: float
    loss: float
    hover: str
    """Of the minimum."""
    is_flagged: bool
    coefficients: tuple[float, float, float] | None
    """log loss = c0 + c1 x + c2 x² with x = log size (natural logs)."""
    points: tuple[tuple[float, float, str], ...]
    """Size, loss, hover."""

    @property
    def reach(self) -> tuple[float, float]:
        """From the smallest to the largest size, the best among them."""
        sizes = [self.size, *(size for size, _, _ in self.points)]
        return min(sizes), max(sizes)


def isoflop_panels(groups: Mapping[str, Sequence[Optimum]], styles: Mapping[str, Style]) -> tuple[Panel, ...]:
    """Loss against parameters at fixed compute, a panel per group."""
    valleys = {name: [_isoflop_valley(name, optimum) for optimum in optima] for name, optima in groups.items()}
    return valley_panels(valleys, styles, PARAMS)


def _isoflop_valley(group: str, optimum: Optimum) -> Valley:
    budget = f"C = {phrases.scientific(optimum.budget)} FLOPs"
    star = f"optimum at {budget}\n{phrases.count(optimum.params)} parameters, {phrases.count(optimum.tokens)} tokens\n"
    star += f"{optimum.loss:.4f} nats per token" + "".join(f"\n{flag}" for flag in optimum.flags)
    points = [
        (f"{point.run or group}\n{phrases.count(point.params)} parameters, {budget}", point) for point in optimum.points
    ]
    return Valley(
        level=optimum.budget,
        text=phrases.scientific(optimum.budget, digits=2),
        size=optimum.params,
        loss=optimum.loss,
        hover=star,
        is_flagged=bool(optimum.flags),
        coefficients=None if optimum.curve is None else optimum.curve.log_params_coefficients,
        points=tuple((point.params, point.loss, f"{text}\n{point.loss:.4f} nats per token") for text, point in points),
    )


MANY_LEVELS = 8
"""More parabolas than these are drawn finer, and only so many of those that reach the largest size are numbered."""


def valley_panels(groups: Mapping[str, Sequence[Valley]], styles: Mapping[str, Style], label: str) -> tuple[Panel, ...]:
    """Loss against size, a panel per group, darker at higher levels; `label` names the axis of sizes."""
    every = [valley for valleys in groups.values() for valley in valleys]
    sizes = [end for valley in every for end in valley.reach]
    losses = [valley.loss for valley in every] + [loss for valley in every for _, loss, _ in valley.points]
    x = log_axis(label, sizes, phrases.count, room_high=0.24, most_ticks=MOST_TICKS if len(groups) < 5 else 4)
    y = log_axis(LOSS, losses, phrases.plain)
    panels = []
    for group, valleys in groups.items():
        ranked = sorted(valleys, key=lambda valley: valley.level)
        fineness = min(1.0, math.sqrt(MANY_LEVELS / max(len(ranked), 1)))
        marks = [
            mark
            for index, valley in enumerate(ranked)
            for mark in _valley_marks(valley, group, styles[group], shade(index, len(ranked)) * fineness, fineness)
        ]
        panels.append(Panel(group, x, y, (*marks, *_level_labels(ranked, group, y))))
    return tuple(panels)


def _valley_marks(valley: Valley, group: str, style: Style, opacity: float, fineness: float) -> list[Mark]:
    marks: list[Mark] = []
    if valley.coefficients is not None and valley.points:
        c0, c1, c2 = valley.coefficients
        x = log_spaced(*valley.reach)
        y = tuple(math.exp(c0 + log_x * (c1 + log_x * c2)) for log_x in map(math.log, x))
        marks.append(Line(x, y, style.color, opacity, width=1.8 * fineness, group=group))
    if valley.points:
        sizes, losses, hover = zip(*valley.points, strict=True)
        marks.append(
            Points(sizes, losses, style.color, style.symbol, 5.5 * fineness, opacity, hover=hover, group=group)
        )
    star = Points(
        (valley.size,), (valley.loss,), style.color, "star", 11 * math.sqrt(fineness), filled=not valley.is_flagged,
        hover=(valley.hover,), group=group,
    )  # fmt: skip
    return [*marks, star]


def _level_labels(valleys: Sequence[Valley], group: str, y: Axis) -> list[Label]:
    """The level of each curve beside its largest size; of many, some of those that reach the largest of all."""
    last = [(valley, max(valley.points)) for valley in valleys if valley.points]
    if len(last) > MANY_LEVELS:
        widest = max(size for _, (size, _, _) in last)
        last = [(valley, point) for valley, point in last if point[0] == widest]
        last = [last[index] for index in sorted({round(at) for at in np.linspace(0, len(last) - 1, MANY_LEVELS)})]
    return spread_labels([Label(size, loss, valley.text, group=group) for valley, (size, loss, _) in last], y)


def law_marks(
    group: str, fitted: GroupLaws, quantity: str, span: Iterable[float], style: Style
) -> list[Line | Points | Band]:
    """A law of compute over the span of C with its band, and the optima (hollow where flagged)."""
    marks: list[Line | Points | Band] = []
    law = fitted.laws.get(quantity)
    if law is not None:
        marks += law_band(group, law, span, style, fitted.degrees_of_freedom)
        marks.append(law_line(group, law, span, style))
    optima = [(optimum.budget, getattr(optimum, quantity), bool(optimum.flags)) for optimum in fitted.optima]
    return [*marks, *best_points(group, optima, lambda value: write_quantity(quantity, value), style)]


def law_line(group: str, law: PowerLaw, span: Iterable[float], style: Style, of: str = "C") -> Line:
    """The law over the span of what it is a law of."""
    span = list(span)
    x = log_spaced(min(span), max(span))
    hover = f"{group}: {law.coefficient:.4g} {of}^{law.exponent:.4g}"
    return Line(x, tuple(map(law.at, x)), style.color, hover=hover, group=group)


def law_band(group: str, law: PowerLaw, span: Iterable[float], style: Style, degrees_of_freedom: int) -> list[Band]:
    """What holds the law with 95 % probability; nothing where that is not known."""
    span = list(span)
    x = log_spaced(min(span), max(span))
    errors = [law.standard_error(at) for at in x]
    if degrees_of_freedom <= 0 or None in errors:
        return []
    half, y = student_quantile(LEVEL, degrees_of_freedom) * np.array(errors), np.array([law.at(at) for at in x])
    low, high = (tuple((y * np.exp(sign * half)).tolist()) for sign in (-1, 1))
    return [Band(x, low, high, style.color, group=group)]


def extended_law(group: str, law: PowerLaw, span: Iterable[float], reach: float, style: Style) -> list[Line]:
    """The law over the span it was fitted on, and dashed from there to where it is drawn on."""
    span = list(span)
    inside = law_line(group, law, span, style)
    return [replace(law_line(group, law, (max(span), reach), style), dash="dash"), inside]


MANY_POINTS = 12
"""More of them are drawn smaller."""


def best_points(
    group: str,
    best: Iterable[tuple[float, float, bool]],
    write: Format,
    style: Style,
    of: Format = lambda flops: f"C = {phrases.scientific(flops)} FLOPs",
) -> list[Points]:
    """(x, y, flagged): filled points, and hollow ones for the flagged."""
    best = list(best)
    size = 6.5 if len(best) <= MANY_POINTS else 4.0
    marks = []
    for flagged in (False, True):
        shown = [(x, y) for x, y, is_flagged in best if is_flagged == flagged]
        if shown:
            x, y = zip(*shown, strict=True)
            hover = tuple(f"{group}\n{of(a)}: {write(b)}" for a, b in shown)
            marks.append(Points(x, y, style.color, style.symbol, size, filled=not flagged, hover=hover, group=group))
    return marks


def write_quantity(quantity: str, value: float) -> str:
    return f"{value:.4f} nats per token" if quantity == "loss" else quantity_format(quantity)(value)


def quantity_format(quantity: str) -> Format:
    """How ticks of that quantity are written."""
    return _FORMATS.get(quantity, phrases.count)


_FORMATS: dict[str, Format] = {
    "loss": phrases.plain,
    "learning_rate": phrases.plain,
    "budget": phrases.scientific,
    "flops": phrases.scientific,
}


def heights(marks: Iterable[Mark]) -> list[float]:
    """Every y that the marks reach, the ends of bands and intervals included."""
    reached: list[float] = []
    for mark in marks:
        if isinstance(mark, Band):
            reached += (*mark.low, *mark.high)
        elif isinstance(mark, Label):
            reached.append(mark.y)
        else:
            reached += mark.y
            if isinstance(mark, Points):
                reached += (end for interval in mark.y_interval for end in interval)
    return reached


MOST_SHADES = 12
"""More than these nobody tells apart."""


def shade(index: int, number: int) -> float:
    """Opacity from faint (first) to full (last); of many, neighbours share theirs."""
    if number > MOST_SHADES:
        index, number = index * MOST_SHADES // number, MOST_SHADES
    return 1.0 if number < 2 else 0.4 + 0.6 * index / (number - 1)


def log_spaced(low: float, high: float, number: int = 60) -> tuple[float, ...]:
    return tuple(np.geomspace(low, high, number).tolist())


def run_line(run: pl.DataFrame, x: str, style: Style, opacity: float, *, is_dashed: bool, hover: str) -> Line:
    """The loss curve of one run, its rows of curves.csv, over the column `x`; `hover` stands below the run's name."""
    return Line(
        tuple(run[x]),
        tuple(run["loss"]),
        style.color,
        opacity=opacity,
        width=1.6,
        dash="dash" if is_dashed else "solid",
        hover=f"{run['run'][0]}\n{hover}",
        group=run["group"][0],
    )
