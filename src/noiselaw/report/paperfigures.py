"""The figures of arXiv 2512.10858, drawn anew from its points and our fits.

Laws are solid where optima carry them and dashed beyond. C training compute in FLOPs by the paper's count, M FLOPs per
token, D tokens; losses in nats per token.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from noiselaw.laws.heldout import HeldOut, HeldOutLoss
from noiselaw.laws.published import COMPARISON_LAWS, LARGE_RUNS, LOSS_GAPS, METHOD_1, NOISES, LargeRun
from noiselaw.laws.record import to_json
from noiselaw.laws.reproduce import Reproduction
from noiselaw.report import phrases
from noiselaw.report.axes import Axis, linear_axis, log_axis
from noiselaw.report.colors import NEUTRAL, STYLES, Style, Symbol
from noiselaw.report.drawing import Band, Drawing, Label, Line, Mark, Panel, Points, spread_labels
from noiselaw.report.panels import (
    FLOPS,
    QUANTITIES,
    best_points,
    extended_law,
    heights,
    isoflop_panels,
    log_spaced,
    quantity_format,
    write_quantity,
)
from noiselaw.report.results import GroupLaws, Laws
from noiselaw.report.tables import LAW_SYMBOLS

MAIN = "reproduced"
REACH = 3e22
"""Laws are drawn up to it: beyond the largest run."""
TITLE = "Scaling of discrete diffusion, from the points of arXiv 2512.10858"


def paper_figures(found: Reproduction) -> tuple[Drawing, ...]:
    """Parabolas, laws of compute, exponents, held-out runs; last all of them in one, named MAIN."""
    laws = Laws.model_validate(to_json(found.fits, METHOD_1)).groups
    parabolas = isoflop_panels({noise: laws[noise].optima for noise in NOISES}, STYLES)
    compute = tuple(_law_panel(laws, quantity) for quantity in ("loss", "flops_per_token", "tokens"))
    tests = (_exponent_panel(found, "flops_per_token"), _gap_panel(found), _error_panel(found.held_out))
    return (
        Drawing("isoflop", "Loss at fixed compute", ISOFLOP_CAPTION, (parabolas,)),
        Drawing("laws", "Laws of compute", LAWS_CAPTION, (compute,)),
        Drawing("exponents", "Exponents with 95 % intervals", EXPONENTS_CAPTION, (_exponent_panels(found),)),
        Drawing("held_out", "Laws put to the test", HELD_OUT_CAPTION, (tests[1:],)),
        Drawing(MAIN, TITLE, f"{ISOFLOP_CAPTION} {LAWS_CAPTION} {HELD_OUT_CAPTION}", (parabolas, compute, tests)),
    )


ISOFLOP_CAPTION = (
    "Loss of every size at the same compute (number on the curve, in FLOPs). Curves are parabolas in logs; stars mark "
    "their minima, hollow where flagged."
)
LAWS_CAPTION = (
    "Optima of the parabolas (hollow where flagged) and their power laws, solid where they are fitted, dashed beyond. "
    "Large marks are the runs at 1e21 and 1e22 FLOPs, before cooldown, which no fit has seen; grey lines are laws of "
    "other papers."
)
EXPONENTS_CAPTION = (
    "Exponents by noise: ours and as printed, with 95 % intervals (the printed upper ends of D* and L* are cut short), "
    "by the lowest points and, for M* and D*, by the surface."
)
HELD_OUT_CAPTION = (
    "Left: the fitted loss of every noise over that of masked noise. Right: predicted over measured loss of the large "
    "runs, minus one; bars hold the errors that the 95 % interval of law and surface allows."
)


def _law_panel(laws: Mapping[str, GroupLaws], quantity: str) -> Panel:
    title, label = QUANTITIES[quantity]
    span = [optimum.budget for group in laws.values() for optimum in group.optima]
    marks: list[Mark] = []
    for noise, fitted in laws.items():
        optima = [(optimum.budget, getattr(optimum, quantity), bool(optimum.flags)) for optimum in fitted.optima]
        points = best_points(noise, optima, lambda value: write_quantity(quantity, value), STYLES[noise])
        marks += extended_law(noise, fitted.laws[quantity], span, REACH, STYLES[noise])
        marks += [replace(mark, size=3.0) for mark in points]
    runs = [_large_run(run, quantity) for run in LARGE_RUNS]
    others = _other_laws(quantity)
    y = log_axis(label, heights([*others, *marks, *runs]), quantity_format(quantity), room_high=0.06)
    x = log_axis(FLOPS, (*span, REACH), phrases.scientific, room_high=0.3 if others else 0.1, most_ticks=5)
    names = [Label(line.x[-1], line.y[-1], line.hover or "") for line in others]
    if quantity == "loss":
        names = [Label(run.x[0], run.y[0], f" {run.hover[0]}") for run in runs]
    return Panel(title, x, y, (*others, *marks, *runs, *spread_labels(names, y)))


def _large_run(run: LargeRun, quantity: str) -> Points:
    value = run.loss_before_cooldown if quantity == "loss" else getattr(run, quantity)
    style = STYLES[run.group]
    return Points((run.flops,), (value,), style.color, style.symbol, 8, hover=(run.name,), group=run.group)


def _other_laws(quantity: str) -> list[Line]:
    """Other papers' laws as grey lines, hovering with their names; M = 6 P where a law is of parameters."""
    reach = log_spaced(1e18, REACH)
    lines = []
    for published in COMPARISON_LAWS:
        is_size = published.quantity == "params" and quantity == "flops_per_token"
        if published.quantity == quantity or is_size:
            values = tuple(((6.0 if is_size else 1.0) * published.law()(reach)).tolist())
            name = published.source.split(",", maxsplit=1)[0]
            lines.append(Line(reach, values, NEUTRAL, 0.8, 1.1, "dot", hover=name))
    return lines


def _gap_panel(found: Reproduction) -> Panel:
    """L* of every noise over that of masked noise, in percent, with what was printed and measured."""
    budgets = [optimum.budget for optimum in found.fits["masked"].optima]
    reach = 10 * REACH
    marks: list[Mark] = [Line((min(budgets), reach), (0.0, 0.0), STYLES["masked"].color, group="masked")]
    for noise in NOISES[1:]:
        marks += [
            _gap_line(found, noise, (min(budgets), max(budgets))),
            replace(_gap_line(found, noise, (max(budgets), reach)), dash="dash"),
        ]
    style = STYLES["uniform"]
    printed = Points(
        tuple(LOSS_GAPS), tuple(100 * gap for gap in LOSS_GAPS.values()), style.color, style.symbol, 7, filled=False,
        hover=("uniform, as printed",) * len(LOSS_GAPS),
    )  # fmt: skip
    masked, uniform = (next(run for run in LARGE_RUNS if run.name == name) for name in ("mask-3b", "unif-3b"))
    measured = Points(
        (uniform.flops,), (100 * (uniform.loss_before_cooldown / masked.loss_before_cooldown - 1),), style.color,
        style.symbol, 8, hover=("unif-3b over mask-3b, measured",),
    )  # fmt: skip
    x = log_axis(FLOPS, (*budgets, reach), phrases.scientific, most_ticks=5)
    y = linear_axis("L* over that of masked noise (%)", heights([*marks, printed, measured]))
    key = (("uniform, as printed", printed), ("3B runs, measured", measured))
    return Panel("Gap to masked noise", x, y, (*marks, printed, measured), key=key)


def _gap_line(found: Reproduction, noise: str, span: tuple[float, float]) -> Line:
    law, masked = (found.fits[name].law("loss") for name in (noise, "masked"))
    x = log_spaced(*span)
    gap = 100 * (law(x) / masked(x) - 1)
    return Line(x, tuple(gap.tolist()), STYLES[noise].color, hover=noise, group=noise)


def _exponent_panels(found: Reproduction) -> tuple[Panel, ...]:
    return tuple(_exponent_panel(found, quantity) for quantity in ("loss", "flops_per_token", "tokens"))


@dataclass(frozen=True, slots=True)
class _Estimate:
    """One way to an exponent: how it is drawn, and where about the middle of its noise's row."""

    name: str
    level: float
    symbol: Symbol
    filled: bool = True

    def mark(self, color: str, exponent: float, interval: tuple[float, float] | None, row: float) -> Points:
        return Points(
            (exponent,), (row + self.level,), color, self.symbol, 5.5, filled=self.filled,
            hover=(f"{self.name}: {exponent:.4f}",), x_interval=() if interval is None else (interval,),
        )  # fmt: skip


_PARABOLAS = _Estimate("parabolas", 0.27, "circle")
_PRINTED = _Estimate("as printed", 0.09, "circle", filled=False)
_LOWEST = _Estimate("lowest points", -0.09, "cross")
_SURFACE = _Estimate("surface", -0.27, "diamond")


def _exponent_panel(found: Reproduction, quantity: str) -> Panel:
    """Every estimate of the exponent of a law, a row per noise."""
    marks: list[Points] = []
    names = tuple(reversed(NOISES))
    for row, noise in enumerate(names):
        for estimate, exponent, interval in _exponents(found, noise, quantity):
            marks.append(estimate.mark(STYLES[noise].color, exponent, interval, float(row)))
    shown = dict.fromkeys(estimate for estimate, _, _ in _exponents(found, NOISES[0], quantity))
    key = tuple((estimate.name, estimate.mark(NEUTRAL, 0.0, None, 0.0)) for estimate in shown)
    ends = [end for mark in marks for end in (*mark.x, *(end for pair in mark.x_interval for end in pair))]
    symbol = LAW_SYMBOLS[quantity]
    x = linear_axis(f"a of {symbol} = A C^a", ends)
    return Panel(f"Exponent of {symbol}", x, _noise_axis(names), tuple(marks), key=key)


def _exponents(
    found: Reproduction, noise: str, quantity: str
) -> Iterable[tuple[_Estimate, float, tuple[float, float] | None]]:
    interval = next(row for row in found.intervals if (row.group, row.quantity) == (noise, quantity))
    raw = next(section for section in found.sections if section.name == "raw").comparisons
    printed, ours = interval.exponent
    yield _PARABOLAS, ours, interval.ours
    yield _PRINTED, printed, interval.published
    lowest = (row.ours for row in raw if (row.group, row.quantity, row.number) == (noise, quantity, "exponent"))
    yield _LOWEST, next(lowest), None
    size = found.surfaces[noise].optimal_size().exponent
    if quantity != "loss":
        yield _SURFACE, size if quantity == "flops_per_token" else 1 - size, None


def _noise_axis(names: Sequence[str]) -> Axis:
    """A row per name, and room for the key above."""
    return Axis("", -0.6, 1.25 * len(names) - 0.4, tuple((float(row), name) for row, name in enumerate(names)))


def _error_panel(runs: Sequence[HeldOut]) -> Panel:
    """Predicted over measured, minus one; bars are the errors that the interval allows."""
    marks: list[Points | Band] = []
    ranked = list(reversed(runs))
    for row, run in enumerate(ranked):
        style = STYLES[run.run.group]
        for loss, level, filled in ((run.before_cooldown, 0.13, True), (run.final, -0.13, False)):
            marks += _error_marks(loss, row + level, style, filled=filled)
    x = linear_axis("Predicted − measured (%)", [value for mark in marks for value in mark.x])
    y = _noise_axis([run.run.name for run in ranked])
    zero = Line((0.0, 0.0), (y.low, y.high), NEUTRAL, width=1.0)
    return Panel("Runs that no fit has seen", x, y, (zero, *marks), key=_error_key())


def _error_key() -> tuple[tuple[str, Line | Points], ...]:
    before, final = (Points((0.0,), (0.0,), NEUTRAL, "circle", 6, filled=filled) for filled in (True, False))
    interval = Line((0.0,), (0.0,), NEUTRAL, opacity=0.4, width=5)
    return ("before cooldown", before), ("final", final), ("95 % interval", interval)


def _error_marks(loss: HeldOutLoss, row: float, style: Style, *, filled: bool) -> list[Points | Band]:
    marks: list[Points | Band] = []
    if loss.interval is not None:
        ends = tuple(100 * (end / loss.measured - 1) for end in loss.interval)
        marks.append(Band(ends, (row - 0.06,) * 2, (row + 0.06,) * 2, style.color, opacity=0.3))
    hover = (f"predicted {loss.predicted:.4f}, measured {loss.measured:.4f}\n{phrases.signed(loss.error_percent)} %",)
    return [*marks, Points((loss.error_percent,), (row,), style.color, style.symbol, 7, filled=filled, hover=hover)]
