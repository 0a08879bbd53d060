"""Figures of a study beyond its laws of compute: scarce data, crossings, tuning, residuals, known models.

C training compute in FLOPs, M FLOPs per token, D tokens, P non-embedding parameters; losses in nats per token. A figure
whose data are not there is None.
"""

import math
from collections.abc import Iterable, Sequence
from typing import Any

import polars as pl

from noiselaw.laws.build import build_table
from noiselaw.laws.levels import tabulate_levels
from noiselaw.laws.published import BATCH_LAWS, LEARNING_RATE_LAWS, PAPER, POOLED_BATCH_LAW, PublishedLaw
from noiselaw.laws.tokens import fit_level_tables
from noiselaw.report import phrases
from noiselaw.report.axes import linear_axis, log_axis
from noiselaw.report.colors import NEUTRAL, Style
from noiselaw.report.crossings import LawGap, law_gaps
from noiselaw.report.drawing import Band, Dash, Drawing, Label, Line, Mark, Panel, Points
from noiselaw.report.knownmodels import KNOWN_MODELS, KnownModel
from noiselaw.report.lawfigures import TOKEN_LAWS
from noiselaw.report.lawpanels import law_panels, level_line, rows_of, widths
from noiselaw.report.panels import FLOPS, PARAMS, heights, log_spaced
from noiselaw.report.results import GroupLaws, Results
from noiselaw.report.tuningfigures import pair_panel

Span = tuple[float, float]
"""Of C, FLOPs."""
TOKENS = "Training tokens D"
NUM_DRAWS = 200
"""Of laws that are fitted for the page alone: enough for the band of a law."""
TABLE_COLUMNS = ("loss", "params", "tokens", "flops", "flops_per_token")


def scarce(results: Results) -> Drawing | None:
    """The data-bound frontier: the best loss and size for given tokens, whatever they cost in compute."""
    grid = results.curves.filter(pl.col("role") == "grid").drop_nulls(TABLE_COLUMNS)
    if grid.is_empty():
        return None
    columns: dict[str, Any] = {name: grid[name].to_numpy() for name in TABLE_COLUMNS}
    try:
        table = build_table(**columns, group=grid["group"].to_list(), run=grid["run"].to_list())
        levels = {name: found.table for name, found in tabulate_levels(table, "tokens").items()}
        groups = {name: fit.record() for name, fit in fit_level_tables(levels, num_draws=NUM_DRAWS).items()}
    except ValueError:  # too few runs so far
        return None
    panels = law_panels(groups, TOKEN_LAWS[:2], results.styles)
    caption = (
        "Best loss after so many tokens and the size that reaches it, by parabolas over the sizes trained (hollow "
        "where flagged, most often because the largest size trained is the best). Compute is free: data is the limit."
    )
    return Drawing("data_bound", "The data-bound frontier", caption, rows_of(panels)) if panels else None


def crossings(results: Results) -> Drawing | None:
    """Losses of all groups over that of the first, and where any two laws cross."""
    gaps = law_gaps(results)
    if not gaps:
        return None
    reference = gaps[0].first
    marks = [mark for gap in gaps if gap.first == reference for mark in _gap_marks(gap, results.styles[gap.second])]
    span = [end for gap in gaps for end in gap.within]
    x = log_axis(FLOPS, span, phrases.scientific, most_ticks=5)
    y = linear_axis(f"Loss over that of {reference} (%)", [0.0, *heights(marks)])
    guide = Line((min(span), max(span)), (0.0, 0.0), results.styles[reference].color, width=1.4, hover=reference)
    panels = (
        Panel(f"Laws of the loss against {reference}", x, y, (guide, *marks)),
        pair_panel({f"{gap.first} | {gap.second}": gap.record() for gap in gaps}, "flops"),
    )
    caption = (
        "Left: fitted losses relative to the first noise, with 95 % bands, solid within the budgets of the study and "
        "dashed beyond. Right: where the laws of two groups cross (star) with its 95 % interval, within a thousand "
        "times the largest budget (line); the band marks the budgets of the study."
    )
    return Drawing("crossings", "Who overtakes whom", caption, (panels,))


def _gap_marks(gap: LawGap, style: Style) -> list[Mark]:
    marks: list[Mark] = []
    x = log_spaced(*gap.within)
    half = [gap.half_width(at) for at in x]
    if None not in half:
        low, high = (
            tuple(_percent(gap.at(at) + sign * (width or 0.0)) for at, width in zip(x, half, strict=True))
            for sign in (-1, 1)
        )
        marks.append(Band(x, low, high, style.color, opacity=0.12, group=gap.second))
    spans: tuple[tuple[Span, Dash], ...] = ((gap.data, "solid"), ((gap.data[1], gap.within[1]), "dash"))
    for ends, dash in spans:
        along = log_spaced(*ends)
        y = tuple(_percent(gap.at(at)) for at in along)
        marks.append(Line(along, y, style.color, dash=dash, hover=f"{gap.second} over {gap.first}", group=gap.second))
    return marks


def _percent(log_ratio: float) -> float:
    return 100 * math.expm1(log_ratio)


def tuning(results: Results) -> Drawing | None:
    """Batch against tokens and learning rate against batch of every run, beside the published laws."""
    runs = results.curves.drop_nulls(["tokens", "batch_tokens", "learning_rate"]).sort("run", "step")
    runs = runs.filter(*(pl.col(name) > 0 for name in ("tokens", "batch_tokens", "learning_rate")))
    runs = runs.unique("run", keep="last", maintain_order=True)
    if runs.is_empty():
        return None
    views = (
        ("Batch", "tokens", "batch_tokens", TOKENS, "Batch (tokens)", phrases.count, (POOLED_BATCH_LAW, *BATCH_LAWS)),
        ("Learning rate", "batch_tokens", "learning_rate", "Batch (tokens)", "Learning rate", phrases.plain,
         LEARNING_RATE_LAWS),
    )  # fmt: skip
    panels = []
    for title, of, quantity, of_label, label, write, laws in views:
        marks = [
            *(mark for name in results.groups for mark in _run_points(runs, name, of, quantity, results.styles[name])),
            *_tuning_laws(laws, results, list(runs[of])),
        ]
        axes = log_axis(of_label, widths(marks), phrases.count), log_axis(label, heights(marks), write)
        panels.append(Panel(title, *axes, tuple(marks)))
    caption = (
        f"What the runs were trained with. Dotted: the laws of {PAPER} for the best batch and the best learning rate "
        "(switch them on above), grey where all noises are pooled; fitted on much larger runs."
    )
    return Drawing("tuning", "Batch and learning rate", caption, (tuple(panels),))


def _run_points(runs: pl.DataFrame, group: str, of: str, quantity: str, style: Style) -> list[Points]:
    mine = runs.filter(pl.col("group") == group)
    if mine.is_empty():
        return []
    hover = tuple(
        f"{name}\nbatch {phrases.count(batch)} tokens, learning rate {rate:.3g}"
        for name, batch, rate in mine.select("run", "batch_tokens", "learning_rate").iter_rows()
    )
    return [
        Points(tuple(mine[of]), tuple(mine[quantity]), style.color, style.symbol, 6.0, 0.8, hover=hover, group=group)
    ]


def _tuning_laws(laws: Iterable[PublishedLaw], results: Results, span: Sequence[float]) -> list[Line]:
    x = log_spaced(min(span), max(span))
    drawn = [law for law in laws if law.coefficient is not None and law.group in ("all", *results.groups)]
    return [
        Line(
            x,
            tuple(law.law()(x).tolist()),
            results.styles[law.group].color if law.group in results.groups else NEUTRAL,
            width=1.2,
            dash="dot",
            hover=f"{law.source}, {law.group}: {law.coefficient:.4g} x^{law.exponent:.4g}",
            group=law.group if law.group in results.groups else None,
            layer="published",
        )
        for law in drawn
    ]


def residuals(results: Results) -> Drawing | None:
    """What parabolas, law of the loss and surface miss, in percent."""
    fitted = {name: results.laws.groups[name] for name in results.groups if name in results.laws.groups}
    views = (
        ("Parabolas", _parabola_misses),
        ("Law of the loss", _law_misses),
        ("Surface", _surface_misses),
    )
    drawn = []
    for title, misses in views:
        marks = [_miss_points(name, misses(laws), results.styles[name]) for name, laws in fitted.items()]
        drawn += [(title, [mark for mark in marks if mark.x])] if any(mark.x for mark in marks) else []
    if not drawn:
        return None
    panels = []
    for title, marks in drawn:
        largest = max(map(abs, heights(marks)))
        x = log_axis(FLOPS, widths(marks), phrases.scientific, most_ticks=5)
        y = linear_axis("Fitted − measured (%)", [-largest, largest])
        panels.append(Panel(title, x, y, (level_line(widths(marks), 0.0), *marks)))
    caption = (
        "Fitted over measured loss, minus one: the parabola at every budget, the power law at the optima, the surface "
        "E + A M^-α + B D^-β at every loss that the parabolas are fitted to. Slopes and bows are what a form of law "
        "cannot follow; scatter is the luck of runs."
    )
    return Drawing("residuals", "Residuals", caption, (tuple(panels),))


MOST_NAMED = 300
"""Points that say as the mouse hovers which run they are: more would make the page large."""
Miss = tuple[float, float, str]
"""C in FLOPs, percent, hover."""


def _parabola_misses(laws: GroupLaws) -> list[Miss]:
    return [
        (optimum.budget, 100 * (optimum.curve.loss_at(point.params) / point.loss - 1), point.run or "")
        for optimum in laws.optima
        if optimum.curve is not None
        for point in optimum.points
    ]


def _law_misses(laws: GroupLaws) -> list[Miss]:
    law = laws.laws.get("loss")
    return (
        []
        if law is None
        else [(one.budget, 100 * (law.at(one.budget) / one.loss - 1), "optimum") for one in laws.optima]
    )


def _surface_misses(laws: GroupLaws) -> list[Miss]:
    surface = laws.parameters
    if surface is None:
        return []
    return [
        (one.budget, 100 * (surface.at(size, one.budget / size) / point.loss - 1), point.run or "")
        for one in laws.optima
        for point in one.points
        if (size := point.flops_per_token) is not None
    ]


def _miss_points(group: str, misses: Sequence[Miss], style: Style) -> Points:
    named = misses if len(misses) <= MOST_NAMED else ()
    hover = tuple(f"{run}\n{phrases.signed(percent)} %" for _, percent, run in named)
    x, y = tuple(flops for flops, _, _ in misses), tuple(percent for _, percent, _ in misses)
    return Points(x, y, style.color, style.symbol, 4.5, 0.75, hover=hover, group=group)


KNOWN_REACH = 1e26
"""FLOPs up to which the study's laws are drawn among known models."""


def known_models(results: Results) -> Drawing | None:
    """The plane of parameters and tokens: the study's runs and laws among models that people know."""
    lines = [line for name in results.groups for line in _allocation(results, name)]
    runs = (
        results.curves.drop_nulls(["params", "tokens"])
        .sort("run", "step")
        .unique("run", keep="last", maintain_order=True)
    )
    points = [mark for name in results.groups for mark in _trained(runs, name, results.styles[name])]
    if not (lines or points):
        return None
    models = [_model_mark(model) for model in KNOWN_MODELS]
    labels = [Label(model.params, model.tokens, model.name, model.side) for model in KNOWN_MODELS]
    marks: list[Mark] = [*lines, *points, *models, *labels]
    inside = [*points, *models, *(line for line in lines if line.dash == "solid")]
    x = log_axis(PARAMS, widths(inside), phrases.count, room_high=0.12)
    y = log_axis(TOKENS, heights(inside), phrases.count)
    guide = Line((x.low, x.high), (20 * x.low, 20 * x.high), NEUTRAL, 0.7, 1.0, hover="20 tokens per parameter")
    caption = (
        "Every run of the study (small marks), its laws of compute-optimal size and tokens (solid within its budgets, "
        "dashed far beyond: fiction, but it shows the direction), and known models by the parameters and tokens of "
        "their papers (squares autoregressive, triangles diffusion). The grey line is 20 tokens per parameter."
    )
    panel = Panel("Parameters and tokens", x, y, (guide, *marks))
    return Drawing("known_models", "Among known models", caption, ((panel,),))


def _allocation(results: Results, group: str) -> list[Line]:
    """(P*(C), D*(C)) of a group's laws."""
    fitted = results.laws.groups.get(group)
    if fitted is None or not {"params", "tokens"} <= set(fitted.laws) or not fitted.optima:
        return []
    params, tokens, color = fitted.laws["params"], fitted.laws["tokens"], results.styles[group].color
    budgets = [optimum.budget for optimum in fitted.optima]
    made = []
    low, high = min(budgets), max(budgets)
    spans: tuple[tuple[Span, Dash], ...] = (((low, high), "solid"), ((high, KNOWN_REACH), "dash"))
    for ends, dash in spans:
        flops = log_spaced(*ends, number=20)
        x, y = tuple(map(params.at, flops)), tuple(map(tokens.at, flops))
        made.append(
            Line(x, y, color, 1.0 if dash == "solid" else 0.7, dash=dash, hover=f"{group}: P* and D*", group=group)
        )
    return made


def _trained(runs: pl.DataFrame, group: str, style: Style) -> list[Points]:
    mine = runs.filter(pl.col("group") == group)
    if mine.is_empty():
        return []
    hover = tuple(f"{name}\n{phrases.count(params)} parameters, {phrases.count(tokens)} tokens"
                  for name, params, tokens in mine.select("run", "params", "tokens").iter_rows())  # fmt: skip
    return [
        Points(
            tuple(mine["params"]), tuple(mine["tokens"]), style.color, style.symbol, 4.0, 0.7, hover=hover, group=group
        )
    ]


def _model_mark(model: KnownModel) -> Points:
    hover = (
        f"{model.name}\n{phrases.count(model.params)} parameters, {phrases.count(model.tokens)} tokens\n{model.source}"
    )
    symbol = "triangle" if model.is_diffusion else "square"
    return Points((model.params,), (model.tokens,), NEUTRAL, symbol, 7.0, hover=(hover,))
