"""A planned training run as a value: what it is, what it should reach, what it takes, and how it is written down.

Losses are nats per token; C = M * D training FLOPs without head, FLOPs per token, tokens.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from noiselaw.accounting import ModelShape, parameter_counts
from noiselaw.laws.hardware import Resources
from noiselaw.laws.published import LargeRun

AUTOREGRESSIVE = "autoregressive"


@dataclass(frozen=True, slots=True)
class LossForecast:
    """The loss a run should reach, 95 % intervals beside it (None where run-to-run scatter is unknown)."""

    value: float
    """At the end, after the cooldown where its gain is known."""
    interval: tuple[float, float] | None
    before_cooldown: float
    interval_before_cooldown: tuple[float, float] | None
    surface: float | None
    """By the loss surface at the planned size and tokens, before the cooldown: how far the forms of law differ."""
    scarcity_penalty: float
    """Factor that repeated data costs, within all of the above; 1 where data is fresh."""
    bits_per_byte_per_nat: float | None

    @property
    def bits_per_byte(self) -> float | None:
        return None if self.bits_per_byte_per_nat is None else self.value * self.bits_per_byte_per_nat

    def record(self) -> dict[str, Any]:
        """The keys of a plan's record that speak of loss."""
        factor = self.bits_per_byte_per_nat
        low_high = None if self.interval is None or factor is None else [factor * end for end in self.interval]
        return {
            "loss": {"value": self.value, "interval": _listed(self.interval)},
            "loss_before_cooldown": {
                "value": self.before_cooldown,
                "interval": _listed(self.interval_before_cooldown),
            },
            "surface_loss_before_cooldown": self.surface,
            "scarcity_penalty": self.scarcity_penalty,
            "bits_per_byte": None if factor is None else {"value": self.bits_per_byte, "interval": low_high},
        }


@dataclass(frozen=True, slots=True)
class TrainingPlan:
    """One run, complete."""

    group: str
    """A noise by name, or `autoregressive`."""
    shape: ModelShape
    flops_per_token: float
    convention: str
    """How FLOPs per token count."""
    optimal_flops_per_token: float
    """What the laws ask for; the shape is the nearest that hardware likes."""
    sequence_length: int
    batch_sequences: int
    optimal_batch_tokens: float
    """What the law of the batch asks for, before snapping."""
    num_steps: int
    warmup_steps: int
    cooldown_steps: int
    learning_rate: float
    """Base learning rate eta: matrices in blocks learn at eta / width."""
    unique_tokens: float | None
    """None where fresh data is no limit."""
    loss: LossForecast
    extrapolation_factor: float
    """C over the largest budget that carries the laws."""
    extrapolation_share: float
    """Of the way from the smallest to this budget, in log C, that no fitted run has gone."""
    resources: Resources | None
    published_run: LargeRun | None
    """A published run of the same kind and budget, to compare with."""
    published_steps: int | None
    """Steps that a plan for that run's own FLOPs has: published runs went on somewhat beyond their budgets."""
    flags: tuple[str, ...]

    @property
    def params(self) -> int:
        """Non-embedding."""
        return parameter_counts(self.shape).non_embedding

    @property
    def total_params(self) -> int:
        return parameter_counts(self.shape).total

    @property
    def tokens(self) -> int:
        return self.batch_sequences * self.sequence_length * self.num_steps

    @property
    def flops(self) -> float:
        return float(self.flops_per_token) * self.tokens

    @property
    def tokens_per_parameter(self) -> float:
        return self.tokens / self.params

    @property
    def epochs(self) -> float | None:
        return None if self.unique_tokens is None else self.tokens / self.unique_tokens

    def record(self) -> dict[str, Any]:
        """As JSON. `noise` is the group."""
        return {
            "noise": self.group,
            "flops": self.flops,
            "layers": self.shape.num_layers,
            "width": self.shape.width,
            "heads": self.shape.num_heads,
            "params": self.params,
            "total_params": self.total_params,
            "flops_per_token": self.flops_per_token,
            "optimal_flops_per_token": self.optimal_flops_per_token,
            "convention": self.convention,
            "vocab_size": self.shape.vocab_size,
            "tokens": self.tokens,
            "tokens_per_parameter": self.tokens_per_parameter,
            "unique_tokens": self.unique_tokens,
            "epochs": self.epochs,
            "sequence_length": self.sequence_length,
            "batch_sequences": self.batch_sequences,
            "batch_tokens": self.batch_sequences * self.sequence_length,
            "optimal_batch_tokens": self.optimal_batch_tokens,
            "steps": self.num_steps,
            "warmup_steps": self.warmup_steps,
            "cooldown_steps": self.cooldown_steps,
            "learning_rate": self.learning_rate,
            **self.loss.record(),
            "extrapolation_factor": self.extrapolation_factor,
            "extrapolation_share": self.extrapolation_share,
            "resources": None if self.resources is None else self.resources.record(),
            "published": None
            if self.published_run is None
            else {**published_record(self.published_run), "planned_steps": self.published_steps},
            "flags": list(self.flags),
        }

    def run_settings(self, shared: Mapping[str, Any], data_path: str) -> dict[str, Any]:
        """Settings of the run as `noiselaw train` reads them, on top of those that all runs behind the laws shared.

        `shared` holds keys of a run's spec, and under `diffusion` those of a diffusion objective.
        """
        objective = {"kind": AUTOREGRESSIVE}
        if self.group != AUTOREGRESSIVE:
            objective = {"kind": "diffusion", "noise": self.group, **shared.get("diffusion", {})}
        planned: dict[str, Any] = {
            "name": f"{self.group}-{self.flops:.1e}".replace("+", ""),
            "data": {"path": data_path, "sequence_length": self.sequence_length},
            "model": {
                **shared.get("model", {}),
                "num_layers": self.shape.num_layers,
                "width": self.shape.width,
                "num_heads": self.shape.num_heads,
            },
            "objective": objective,
            "batch_sequences": self.batch_sequences,
            "optimizer": {**shared.get("optimizer", {}), "learning_rate": self.learning_rate},
            "schedule": {
                "num_steps": self.num_steps,
                "warmup_steps": self.warmup_steps,
                "cooldown_steps": self.cooldown_steps,
            },
        }
        if self.resources is not None:
            planned["precision"] = self.resources.machine.accelerator.precision
            memory = self.resources.memory
            planned["runtime"] = {
                **shared.get("runtime", {}),
                "micro_batch_sequences": memory.micro_batch_sequences,
                "parallel": {"recompute": "full" if memory.checkpointing else "none"},
            }
        return planned | {key: value for key, value in shared.items() if key not in planned and key != "diffusion"}


def published_record(run: LargeRun) -> dict[str, Any]:
    """A published run by the keys of a plan's record."""
    return {
        "name": run.name,
        "source": run.source,
        "layers": run.num_layers,
        "width": run.width,
        "heads": run.num_heads,
        "params": run.params,
        "flops_per_token": run.flops_per_token,
        "tokens": run.tokens,
        "flops": run.flops,
        "batch_sequences": run.batch_sequences,
        "steps": run.num_steps,
        "loss": run.loss,
        "loss_before_cooldown": run.loss_before_cooldown,
    }


def _listed(interval: tuple[float, float] | None) -> list[float] | None:
    return None if interval is None else list(interval)
