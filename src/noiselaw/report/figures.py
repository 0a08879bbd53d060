"""What each figure of the report shows.

C training compute in FLOPs, M FLOPs per token, D tokens, P non-embedding parameters; losses in nats per token.
A figure whose data are not there yet is None.
"""

import math
from typing import Literal

import polars as pl

from noiselaw.report import phrases, repeats
from noiselaw.report.axes import Axis, linear_axis, log_axis
from noiselaw.report.colors import NEUTRAL, Style
from noiselaw.report.drawing import Band, Drawing, Label, Line, Mark, Panel, Points, spread_labels
from noiselaw.report.panels import (
    FLOPS,
    LOSS,
    PARAMS,
    QUANTITIES,
    heights,
    isoflop_panels,
    law_marks,
    log_spaced,
    quantity_format,
    run_line,
    shade,
)
from noiselaw.report.published import published_laws
from noiselaw.report.results import ConfirmationRun, Results
from noiselaw.report.studyfigures import crossings, known_models, residuals, scarce, tuning

MOST_LABELS = 12
"""Of sizes beside the curves of a panel."""
LABELLED_ENDS: dict[str, tuple[Literal["first", "last"], Literal["left", "right"]]] = {
    "grid": ("first", "left"),
    "confirmation": ("last", "right"),
}
"""By the role of a run: which of its validations bears its size, and on which side."""


def all_figures(results: Results) -> tuple[Drawing, ...]:
    """Every figure whose data exist, in the order of the page."""
    made = (
        loss_curves(results),
        isoflop(results),
        power_laws(results),
        frontier(results),
        crossings(results),
        scarce(results),
        repeats.figure(results),
        tuning(results),
        residuals(results),
        known_models(results),
        throughput(results),
    )
    return tuple(figure for figure in made if figure is not None)


def main_figure(results: Results) -> Drawing | None:
    """The study in one picture: isoFLOP parabolas above, the frontier with its confirmed prediction below."""
    above, below = isoflop(results), frontier(results)
    if above is None or below is None:
        return None
    return Drawing("main", results.facts.name, f"{above.caption} {below.caption}", (*above.rows, *below.rows))


def loss_curves(results: Results) -> Drawing | None:
    """Loss against compute, a panel per group, a shade per size, with the fitted frontier."""
    curves = results.curves.filter(pl.col("role") != "repeated").sort("run", "step")
    if curves.is_empty():
        return None
    x = log_axis(FLOPS, curves["flops"], phrases.scientific, margin=0.04, room_low=0.16, room_high=0.12, most_ticks=5)
    y = log_axis(LOSS, curves["loss"], phrases.plain)
    styles = results.styles
    sizes = sorted(set(curves["params"].drop_nulls()))
    shades = {size: shade(index, len(sizes)) for index, size in enumerate(sizes)}
    panels = []
    for group in results.groups:
        rows = curves.filter(pl.col("group") == group)
        runs = rows.partition_by("run", maintain_order=True)
        lines = [_run_line(run, styles[group], shades.get(run["params"][0], 1.0)) for run in runs]
        if lines:
            law = _frontier_line(results, group, rows["flops"])
            panels.append(Panel(group, x, y, (*lines, *law, *_size_labels(rows, y))))
    caption = (
        "Every validation of every run on fresh tokens; darker is larger, the number is the size in non-embedding "
        "parameters, dashed runs confirm the prediction, the dotted line is the fitted frontier L*(C). For diffusion "
        "the loss is the bound on the negative log-likelihood, for the autoregressive baseline the negative "
        "log-likelihood itself."
    )
    return Drawing("loss_curves", "Loss curves", caption, (tuple(panels),))


def _run_line(run: pl.DataFrame, style: Style, shade: float) -> Line:
    first = run.row(0, named=True)
    size = phrases.count(first["params"]) if first["params"] else ""
    hover = f"{size} parameters, seed {first['seed']}"
    return run_line(run, "flops", style, shade, is_dashed=first["role"] == "confirmation", hover=hover)


def _size_labels(rows: pl.DataFrame, y: Axis) -> list[Label]:
    """Sizes: of grid runs beside their first validation, of confirming runs (one of the seeds) beside their last."""
    known = rows.drop_nulls("params").sort("run", "step")
    labels: list[Label] = []
    for role, (keep, side) in LABELLED_ENDS.items():
        ends = known.filter(pl.col("role") == role).unique("params", keep=keep, maintain_order=True).sort("params")
        ends = ends.gather_every(max(1, math.ceil(len(ends) / MOST_LABELS)))
        values = ends.select("flops", "loss", "params", "group").iter_rows()
        beside = [Label(flops, loss, phrases.count(size), side, group) for flops, loss, size, group in values]
        labels += spread_labels(beside, y)
    return labels


def _frontier_line(results: Results, group: str, flops: pl.Series) -> list[Line]:
    law = results.laws.groups[group].laws.get("loss") if group in results.laws.groups else None
    low, high = flops.min(), flops.max()
    if law is None or not isinstance(low, float) or not isinstance(high, float):
        return []
    budgets = [optimum.budget for optimum in results.laws.groups[group].optima] or [low]
    x = log_spaced(min(budgets), high)
    hover = f"{group}: L* = {law.coefficient:.4g} C^{law.exponent:.4g}"
    return [Line(x, tuple(map(law.at, x)), NEUTRAL, width=1.6, dash="dot", hover=hover, group=group)]


def isoflop(results: Results) -> Drawing | None:
    """Loss against size at fixed compute, a panel per group, with parabolas and optima."""
    groups = {name: results.laws.groups[name].optima for name in results.groups if name in results.laws.groups}
    if not any(optimum.points for optima in groups.values() for optimum in optima):
        return None
    panels = isoflop_panels(groups, results.styles)
    caption = (
        "Loss of every size at the same compute (the number on each curve, in FLOPs), read off the loss curves. Curves "
        "are parabolas in log-log space; a star marks their minimum, hollow where it is flagged (see the optima)."
    )
    return Drawing("isoflop", "Loss at fixed compute", caption, (panels,))


def power_laws(results: Results) -> Drawing | None:
    """M*, D* and L* against compute: optima, fits and the published laws."""
    fitted = {name: group for name, group in results.laws.groups.items() if group.laws}
    if not fitted:
        return None
    planned = [plan.flops for plan in results.predictions.groups.values()]
    budgets = [optimum.budget for group in fitted.values() for optimum in group.optima]
    span = [*budgets, *planned] or list(results.facts.budgets) or [1.0, 10.0]
    panels = []
    for quantity, (title, label) in QUANTITIES.items():
        marks = [
            mark for name in results.groups if name in fitted for mark in _law_marks(results, name, quantity, span)
        ]
        x, y = log_axis(FLOPS, span, phrases.scientific), log_axis(label, heights(marks), quantity_format(quantity))
        panels.append(Panel(title, x, y, tuple(marks)))
    caption = (
        "Optima of the parabolas (hollow where flagged) and power laws through them, drawn on to the largest "
        "prediction. Bands hold the law with 95 % probability, by the scatter of the runs. Published laws (switch "
        "them on above) were fitted on larger runs of other text; their losses do not compare and are not drawn."
    )
    return Drawing("power_laws", "Power laws of the optima", caption, (tuple(panels),))


def _law_marks(results: Results, group: str, quantity: str, span: list[float]) -> list[Line | Points | Band]:
    style, fitted = results.styles[group], results.laws.groups[group]
    marks = law_marks(group, fitted, quantity, span, style)
    return (
        [*marks, *_published_lines(group, quantity, log_spaced(min(span), max(span)), style)] if fitted.laws else marks
    )


def _published_lines(group: str, quantity: str, x: tuple[float, ...], style: Style) -> list[Line]:
    """Published laws of compute, drawn on to the study's budgets; not of the loss, which depends on text and tokens."""
    if quantity == "loss":
        return []
    return [
        Line(
            x,
            tuple(published.law()(x).tolist()),
            style.color,
            opacity=0.8,
            width=1.2,
            dash="dot",
            hover=f"{published.source}, {group}: {published.coefficient:.4g} C^{published.exponent:.4g}",
            group=group,
            layer="published",
        )
        for published in published_laws(group, quantity)
    ]


def frontier(results: Results) -> Drawing | None:
    """Best loss against compute of all groups, with what was predicted and what was measured; then the error."""
    if not any("loss" in group.laws or group.optima for group in results.laws.groups.values()):
        return None
    planned = [plan.flops for plan in results.predictions.groups.values()]
    budgets = [optimum.budget for group in results.laws.groups.values() for optimum in group.optima]
    span = [*budgets, *planned] or [1.0, 10.0]
    marks = [mark for name in results.groups for mark in _frontier_marks(results, name, span)]
    x = log_axis(FLOPS, span, phrases.scientific, room_high=0.04)
    y = log_axis(LOSS, heights(marks), phrases.plain)
    panels = [Panel("Best loss for the compute", x, y, tuple(marks), span=3)]
    errors = _error_panel(results)
    if errors is not None:
        panels.append(errors)
    caption = (
        "Best loss that each group reaches with a given compute: optima, the fitted law, the prediction written down "
        "before the confirming runs started (hollow, with its 95 % interval) and what these runs then measured "
        "(filled, one per seed)."
    )
    return Drawing("frontier", "The frontier, and its prediction put to the test", caption, (tuple(panels),))


def _frontier_marks(results: Results, group: str, span: list[float]) -> list[Line | Points]:
    style = results.styles[group]
    marks: list[Line | Points] = []
    if group in results.laws.groups:
        marks += [mark for mark in _law_marks(results, group, "loss", span) if not isinstance(mark, Band)]
    plan = results.predictions.groups.get(group)
    if plan is None:
        return marks
    hover = f"{group}, predicted at C = {phrases.scientific(plan.flops)} FLOPs\n{plan.loss.value:.4f} nats per token"
    interval = () if plan.loss.interval is None else (plan.loss.interval,)
    marks.append(
        Points((plan.flops,), (plan.loss.value,), style.color, style.symbol, 10, filled=False, hover=(hover,),
               y_interval=interval, group=group)
    )  # fmt: skip
    runs = results.confirmation.groups.get(group, ())
    if runs:
        texts = tuple(f"{run.run}, seed {run.seed}\nmeasured {run.measured_loss:.4f} nats per token" for run in runs)
        losses = tuple(run.measured_loss for run in runs)
        marks.append(Points((plan.flops,) * len(runs), losses, style.color, style.symbol, 5, hover=texts, group=group))
    return marks


def _error_panel(results: Results) -> Panel | None:
    confirmed = {
        name: results.confirmation.groups[name] for name in results.groups if results.confirmation.groups.get(name)
    }
    if not confirmed:
        return None
    styles = results.styles
    rows = {name: float(len(confirmed) - 1 - index) for index, name in enumerate(confirmed)}
    y = Axis("", -0.6, len(confirmed) - 0.4, tuple((row, name) for name, row in rows.items()))
    marks = [mark for name, runs in confirmed.items() for mark in _error_marks(name, runs, rows[name], styles[name])]
    values = [value for mark in marks for value in mark.x]
    largest = max([0.5, *map(abs, values)])
    x = linear_axis("Predicted − measured (%)", [-largest, largest], margin=0.1)
    zero = Line((0.0, 0.0), (y.low, y.high), NEUTRAL, width=1.0)
    return Panel("Error of the prediction", x, y, (zero, *marks), span=2)


def _error_marks(group: str, runs: tuple[ConfirmationRun, ...], row: float, style: Style) -> list[Points | Band]:
    marks: list[Points | Band] = []
    interval = runs[0].interval
    if interval is not None:
        ends = tuple(100 * (runs[0].predicted / end - 1) for end in interval)  # the errors that it allows
        marks.append(Band(ends, (row - 0.08,) * 2, (row + 0.08,) * 2, style.color, opacity=0.3, group=group))
    errors = tuple(run.error_percent for run in runs)
    hover = tuple(f"{run.run}, seed {run.seed}\n{phrases.signed(run.error_percent)} %" for run in runs)
    marks.append(Points(errors, (row,) * len(runs), style.color, style.symbol, 7, hover=hover, group=group))
    return marks


def throughput(results: Results) -> Drawing | None:
    """Tokens per second and the share of the matmul peak against model size."""
    sizes = results.curves.group_by("run").agg(pl.col("params").max())
    runs = (
        results.throughput.join(sizes, on="run", how="inner")
        .drop_nulls(["params", "tokens_per_second"])
        .sort("params", "run")
    )
    if runs.is_empty():
        return None
    runs = runs.with_columns(percent=100 * pl.col("share_of_matmul_peak"))
    x = log_axis(PARAMS, runs["params"], phrases.count)
    speed = log_axis("Tokens per second", runs["tokens_per_second"], phrases.count)
    peak = linear_axis("Share of matmul peak (%)", [0.0, *runs["percent"].drop_nulls()], margin=0.04)
    panels = (
        Panel("Tokens per second", x, speed, _throughput_marks(results, runs, "tokens_per_second")),
        Panel("Share of the measured matmul peak", x, peak, _throughput_marks(results, runs, "percent")),
    )
    caption = (
        "Every run's average. The peak is the measured rate of large matrix products on the same number of threads."
    )
    return Drawing("throughput", "Throughput", caption, (panels,))


def _throughput_marks(results: Results, runs: pl.DataFrame, column: str) -> tuple[Mark, ...]:
    marks: list[Mark] = []
    for group, style in results.styles.items():
        rows = runs.filter(pl.col("group") == group).drop_nulls(column)
        hover = tuple(f"{name}\n{value:,.4g}" for name, value in zip(rows["run"], rows[column], strict=True))
        if hover:
            x, y = tuple(rows["params"]), tuple(rows[column])
            marks.append(Points(x, y, style.color, style.symbol, 7, 0.85, hover=hover, group=group))
    return tuple(marks)
