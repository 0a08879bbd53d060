"""Plans on the terminal: a column for each, and beside it the published run that it stands next to."""

from collections.abc import Sequence

from rich.table import Table
from rich.text import Text

from noiselaw.laws.hardware import SECONDS_PER_DAY, Resources
from noiselaw.laws.published import LargeRun
from noiselaw.laws.trainingplan import LossForecast, TrainingPlan
from noiselaw.report import phrases

WIDTH = 120
"""Of the table where no terminal says how wide it is."""


def plan_table(plans: Sequence[TrainingPlan]) -> Table:
    """One column per plan and published run; rows that say nothing about any of them are left out."""
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    table.add_column("")
    columns = []
    for plan in plans:
        table.add_column(Text(plan.group), justify="right")
        columns.append(plan_cells(plan))
        if plan.published_run is not None:
            table.add_column(Text(f"paper: {plan.published_run.name}"), justify="right", style="dim")
            columns.append(published_cells(plan.published_run))
    for label in columns[0]:
        cells = [column.get(label, "") for column in columns]
        if any(cells):
            table.add_row(label, *map(Text, cells))
    return table


def plan_cells(plan: TrainingPlan) -> dict[str, str]:
    """What a plan says, by the label of the row."""
    shape = plan.shape
    warmup, cooldown = f"{plan.warmup_steps:,} warm-up", f"{plan.cooldown_steps:,} cooldown"
    return {
        "training FLOPs": phrases.scientific(plan.flops),
        "layers × width": f"{shape.num_layers} × {shape.width}",
        "heads": f"{shape.num_heads} of {shape.width // shape.num_heads}",
        "parameters without embedding": phrases.count(plan.params),
        "parameters in all": phrases.count(plan.total_params),
        "FLOPs per token": phrases.scientific(plan.flops_per_token),
        "tokens": phrases.count(plan.tokens),
        "tokens per parameter": f"{plan.tokens_per_parameter:.1f}",
        "epochs": "" if plan.epochs is None else f"{plan.epochs:.3g}",
        "batch": f"{plan.batch_sequences:,} × {plan.sequence_length:,} tokens",
        "steps": f"{plan.num_steps:,}",
        "steps for the paper's FLOPs": "" if plan.published_steps is None else f"{plan.published_steps:,}",
        "of them": f"{warmup}, {cooldown}",
        "learning rate": f"{plan.learning_rate:.3g}",
        **_loss_cells(plan.loss),
        "beyond the largest budget": f"{plan.extrapolation_factor:.3g} times",
        "of the way in log FLOPs": phrases.percent(plan.extrapolation_share),
        **({} if plan.resources is None else _resource_cells(plan.resources)),
    }


def published_cells(run: LargeRun) -> dict[str, str]:
    """What is known of a published run, by the same labels."""
    return {
        "training FLOPs": phrases.scientific(run.flops),
        "layers × width": f"{run.num_layers} × {run.width}",
        "heads": f"{run.num_heads} of {run.width // run.num_heads}",
        "parameters without embedding": phrases.count(run.params),
        "FLOPs per token": phrases.scientific(run.flops_per_token),
        "tokens": phrases.count(run.tokens),
        "tokens per parameter": f"{run.tokens / run.params:.1f}",
        "batch": f"{run.batch_sequences:,} × 2,048 tokens",
        "steps": f"{run.num_steps:,}",
        "steps for the paper's FLOPs": f"{run.num_steps:,}",
        "loss, nats per token": f"{run.loss:.3f} measured",
        "before the cooldown": f"{run.loss_before_cooldown:.3f} measured",
    }


def _loss_cells(loss: LossForecast) -> dict[str, str]:
    bits = loss.bits_per_byte
    return {
        "loss, nats per token": f"{loss.value:.3f}",
        "95 % interval": "" if loss.interval is None else "{:.3f} to {:.3f}".format(*loss.interval),
        "before the cooldown": f"{loss.before_cooldown:.3f}",
        "by the surface": "" if loss.surface is None else f"{loss.surface:.3f}",
        "cost of repeats": "" if loss.scarcity_penalty == 1 else f"{loss.scarcity_penalty - 1:+.1%}",
        "bits per byte": "" if bits is None else f"{bits:.4f}",
    }


def _resource_cells(resources: Resources) -> dict[str, str]:
    machine, memory = resources.machine, resources.memory
    limit, cost = machine.accelerator.memory_bytes, resources.cost
    of_limit = "" if limit is None else f" of {limit / 1e9:.0f}"
    checkpointing = ", checkpointing" if memory.checkpointing else ""
    return {
        "machine": f"{machine.count} {machine.accelerator.name} at {machine.mfu:.0%} of peak",
        "wall-clock": _duration(resources.seconds),
        "cost": "" if cost is None else f"${cost:,.0f}",
        "memory per device": f"{memory.total / 1e9:.1f}{of_limit} GB{checkpointing}",
        "sequences at a time": f"{memory.micro_batch_sequences} on each",
    }


def _duration(seconds: float) -> str:
    days = seconds / SECONDS_PER_DAY
    return phrases.duration(seconds) if days < 2 else f"{days:,.1f} days"
