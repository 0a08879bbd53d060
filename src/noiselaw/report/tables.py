"""The tables of the page: what each row and column says. `page` turns them into HTML.

Losses in nats per token, compute in FLOPs, sizes in non-embedding parameters.
"""

import math
import statistics

import polars as pl

from noiselaw.laws.published import METHOD_1, PAPER
from noiselaw.report import phrases, repeats
from noiselaw.report.cells import DASH, Cell, Table, four_digits, interval_text, known, number
from noiselaw.report.comparison import Estimate, Verdict, verdicts
from noiselaw.report.crossings import LawGap, law_gaps
from noiselaw.report.published import published_laws
from noiselaw.report.results import ConfirmationRun, LossInterval, Optimum, PowerLaw, Prediction, Results
from noiselaw.specs import AUTOREGRESSIVE

LAW_SYMBOLS = {"loss": "L*", "flops_per_token": "M*", "tokens": "D*", "params": "P*"}


def all_tables(results: Results) -> tuple[Table, ...]:
    """Every table whose data exist."""
    made = (
        comparison_table(results),
        prediction_table(results),
        optima_table(results),
        exponents_table(results),
        crossings_table(results),
        repeats.values_table(results),
        repeats.runs_table(results),
        throughput_table(results),
    )
    return tuple(table for table in made if table is not None)


def comparison_table(results: Results) -> Table | None:
    """The best loss of every group at every budget, and how sure the lead of the best noise is."""
    judged = verdicts(results)
    groups = [group for group in results.groups if any(group in _estimates(verdict) for verdict in judged)]
    if not judged:
        return None
    rows = tuple(_comparison_row(verdict, groups) for verdict in judged)
    caption = (
        "Best loss at each compute budget, nats per token; the best noise in bold. Its lead over the second-best is as "
        "sure as the scatter of runs about the parabolas allows. †: flagged optimum. ✓: measured by the confirming "
        "runs."
    )
    return Table("comparison", "Who leads where", caption, ("Compute", *groups, "Lead (sure)"), rows)


def _estimates(verdict: Verdict) -> dict[str, Estimate]:
    baseline = {} if verdict.baseline is None else {AUTOREGRESSIVE: verdict.baseline}
    return dict(verdict.noises) | baseline


def _comparison_row(verdict: Verdict, groups: list[str]) -> tuple[Cell, ...]:
    estimates = _estimates(verdict)
    losses = [
        _loss_cell(estimates[group], strong=group == verdict.leader) if group in estimates else Cell(DASH)
        for group in groups
    ]
    lead = DASH if verdict.margin is None else f"{verdict.margin:.3f} ({sureness(verdict)})"
    compute = phrases.scientific(verdict.flops) + (" ✓" if verdict.confirmed else "")
    return (Cell(compute, value=verdict.flops), *losses, Cell(lead, value=verdict.margin))


def _loss_cell(estimate: Estimate, *, strong: bool) -> Cell:
    return Cell(f"{estimate.loss:.3f}{'†' if estimate.is_flagged else ''}", strong=strong, value=estimate.loss)


def sureness(verdict: Verdict) -> str:
    """99 %, > 99.9 %, or a dash where the runs do not tell."""
    if verdict.confidence is None:
        return DASH
    percent = math.floor(1000 * verdict.confidence) / 10  # never rounded up to certainty
    return "> 99.9 %" if percent > 99.9 else f"{percent:.3g} %"


def prediction_table(results: Results) -> Table | None:
    """Predicted against measured, one row per confirming run (one per prediction while none has ended)."""
    if not results.predictions.groups:
        return None
    rows = [
        _prediction_row(group, results.predictions.groups[group], run)
        for group in results.groups
        if group in results.predictions.groups
        for run in results.confirmation.groups.get(group, ()) or (None,)
    ]
    header = (
        "Group",
        "Model",
        "Parameters",
        "Tokens",
        "Compute",
        "Beyond",
        "Predicted",
        "95 % interval",
        "By surface",
        "Seed",
        "Measured",
        "Error",
    )
    caption = (
        "Losses in nats per token. “Beyond” is the compute over the largest budget that the laws were fitted on; the "
        f"prediction was written {_written_at(results)}, before the confirming runs started. The error is predicted "
        "over measured, minus one."
    )
    return Table("prediction", "Every confirming run", caption, header, tuple(rows), text_columns=(0, 1))


def short_prediction_table(results: Results) -> Table | None:
    """The same in brief: one row per group, the seeds' errors side by side."""
    rows = []
    for group in results.groups:
        plan, runs = results.predictions.groups.get(group), results.confirmation.groups.get(group, ())
        if plan is not None:
            measured = f"{statistics.mean(run.measured_loss for run in runs):.3f}" if runs else "not yet"
            errors = ", ".join(phrases.signed(run.error_percent) for run in runs) or DASH
            cells = (f"{plan.loss.value:.3f}", interval_text(plan.loss.interval, 2), measured)
            rows.append((Cell(group, group=group), *map(Cell, cells), Cell(errors, strong=True)))
    caption = (
        "Nats per token; the mean over seeds, and each seed’s error (predicted over measured, minus one). Predictions "
        "were written down before these runs started."
    )
    header = ("Group", "Predicted", "95 % interval", "Measured", "Error (%)")
    return Table("prediction-short", "Predicted and measured", caption, header, tuple(rows)) if rows else None


def _written_at(results: Results) -> str:
    return "down" if results.predictions.written_at is None else phrases.moment(results.predictions.written_at)


def _prediction_row(group: str, plan: Prediction, run: ConfirmationRun | None) -> tuple[Cell, ...]:
    factor = plan.extrapolation_factor
    loss = plan.loss if run is None else LossInterval(value=run.predicted, interval=run.interval)
    return (
        Cell(group, group=group),
        Cell(f"{plan.layers} × {plan.width}"),
        number(plan.params, phrases.count),
        number(plan.tokens, phrases.count),
        number(plan.flops, phrases.scientific),
        Cell(DASH) if factor is None else number(factor, lambda times: f"{times:.3g}×"),
        number(loss.value, four_digits),
        Cell(interval_text(loss.interval, 3)),
        Cell(DASH if plan.surface_loss is None else f"{plan.surface_loss.value:.4f}"),
        Cell(DASH if run is None else str(run.seed)),
        Cell("not yet") if run is None else Cell(_measured(run), value=run.measured_loss),
        Cell(DASH) if run is None else _error(run),
    )


def _error(run: ConfirmationRun) -> Cell:
    return Cell(phrases.signed(run.error_percent, unit=" %"), strong=True, value=run.error_percent)


def _measured(run: ConfirmationRun) -> str:
    error = "" if run.standard_error is None else f" ± {run.standard_error:.4f}"
    return f"{run.measured_loss:.4f}{error}"


def optima_table(results: Results) -> Table | None:
    """Every isoFLOP optimum with its flags."""
    rows = [
        _optimum_row(group, optimum)
        for group in results.groups
        if group in results.laws.groups
        for optimum in results.laws.groups[group].optima
    ]
    header = (
        "Group",
        "Compute",
        "Parameters P*",
        "FLOPs per token M*",
        "Tokens D*",
        "D*/P*",
        "Loss L*",
        "Runs",
        "Flags",
    )
    if not rows:
        return None
    caption = "The minimum of each parabola. A flagged optimum stands on thin ground: the flag says why."
    notes = tuple(f"{group}: {'; '.join(laws.flags)}." for group, laws in results.laws.groups.items() if laws.flags)
    return Table("optima", "Optima", caption, header, tuple(rows), (0, 8), prose_columns=(8,), notes=notes)


def _optimum_row(group: str, optimum: Optimum) -> tuple[Cell, ...]:
    return (
        Cell(group, group=group),
        number(optimum.budget, phrases.scientific),
        number(optimum.params, phrases.count),
        number(optimum.flops_per_token, phrases.count),
        number(optimum.tokens, phrases.count),
        number(optimum.tokens / optimum.params, phrases.count),
        number(optimum.loss, four_digits),
        Cell(str(len(optimum.points))),
        Cell("; ".join(optimum.flags) or DASH),
    )


def crossings_table(results: Results) -> Table | None:
    """Where the laws of the loss of any two groups cross, or who leads throughout."""
    rows = tuple(_crossing_row(gap) for gap in law_gaps(results))
    header = ("Groups", "", "Leads below", "Leads above", "Crossing (FLOPs)", "95 % interval", "Loss there")
    caption = (
        "Of the fitted power laws, between the smallest budget and a thousand times the largest, where intervals are "
        "cut off. “noiselaw laws cross” asks the runs themselves."
    )
    return Table("crossings", "Crossings", caption, header, rows, text_columns=(0, 1, 2, 3)) if rows else None


def _crossing_row(gap: LawGap) -> tuple[Cell, ...]:
    below, above = (gap.leader(end) for end in gap.within)
    at = gap.crossing
    interval = "not bounded" if gap.interval is None else " to ".join(map(phrases.scientific, gap.interval))
    return (
        Cell(gap.first, group=gap.first),
        Cell(gap.second, group=gap.second),
        Cell(below, group=below),
        Cell(above, group=above),
        Cell("none") if at is None else number(at, phrases.scientific),
        Cell(DASH if at is None else interval),
        Cell(DASH) if at is None else number(gap.loss.at(at), four_digits),
    )


def progress_table(results: Results) -> Table | None:
    """Where every run stands, while the study runs."""
    rows = tuple(
        (
            Cell(state.run, group=state.group),
            Cell(state.status),
            Cell(phrases.percent(state.share)),
            known(state.loss, four_digits),
            known(state.tokens_per_second, phrases.count),
        )
        for state in results.states
    )
    done = sum(state.status == "done" for state in results.states)
    title = f"{done} of {len(rows)} runs done"
    header = ("Run", "State", "Done", "Held-out loss", "Tokens per second")
    return Table("progress", title, "Losses in nats per token.", header, rows, text_columns=(0, 1)) if rows else None


def throughput_table(results: Results) -> Table | None:
    """Mean speed of the runs of each group and shape."""
    shapes = (
        results.throughput.group_by("group", "layers", "width", maintain_order=True)
        .agg(
            pl.len(),
            pl.col("tokens_per_second", "model_flops_per_second", "share_of_matmul_peak").mean(),
            pl.col("seconds").sum(),
        )
        .sort("width", "layers")
    )
    rows = [
        (
            Cell(group, group=group),
            Cell(f"{shape['layers']} × {shape['width']}"),
            Cell(str(shape["len"])),
            known(shape["tokens_per_second"], phrases.count),
            known(shape["model_flops_per_second"], lambda value: f"{value / 1e9:.3g}"),
            known(shape["share_of_matmul_peak"], phrases.percent),
            known(shape["seconds"], phrases.duration),
        )
        for group in results.groups
        for shape in shapes.filter(pl.col("group") == group).iter_rows(named=True)
    ]
    header = ("Group", "Layers × width", "Runs", "Tokens per second", "Model GFLOP/s", "Share of matmul peak", "Time")
    caption = "Means over runs of one shape; model FLOPs include the vocabulary head; time is summed over runs."
    return (
        Table("throughput", "Throughput by shape", caption, header, tuple(rows), text_columns=(0, 1)) if rows else None
    )


def exponents_table(results: Results) -> Table | None:
    """The fitted exponents with their intervals, beside the published ones."""
    rows = [
        _exponent_row(group, quantity, results.laws.groups[group].laws[quantity])
        for quantity in LAW_SYMBOLS
        for group in results.groups
        if group in results.laws.groups and quantity in results.laws.groups[group].laws
    ]
    header = ("Law", "Group", "Coefficient", "Exponent", "95 % interval", "Paper", "Paper’s interval", "Other papers")
    caption = (
        f"Each law is coefficient × C^exponent; FLOPs counted by {results.laws.convention or 'the study'}. Paper: "
        f"{PAPER}, by {METHOD_1}, at 5×10¹⁷ to 2×10²⁰ FLOPs, other text and tokens. Other papers count as they say."
    )
    return Table("exponents", "Exponents", caption, header, tuple(rows), text_columns=(0, 1, 7)) if rows else None


def _exponent_row(group: str, quantity: str, law: PowerLaw) -> tuple[Cell, ...]:
    published = published_laws(group, quantity)
    paper = next((one for one in published if one.source == PAPER), None)
    others = [
        f"{phrases.fixed(one.exponent, 3)} ({one.source.split(',')[0]})" for one in published if one.source != PAPER
    ]
    return (
        Cell(LAW_SYMBOLS[quantity]),
        Cell(group, group=group),
        number(law.coefficient, lambda coefficient: f"{coefficient:.4g}"),
        Cell(phrases.fixed(law.exponent, 4), strong=True, value=law.exponent),
        Cell(interval_text(law.interval, 4)),
        Cell(DASH if paper is None else phrases.fixed(paper.exponent, 4)),
        Cell(DASH if paper is None else interval_text(paper.interval, 3)),
        Cell("; ".join(others) or DASH),
    )
