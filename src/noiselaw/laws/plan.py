"""From laws to a size: the shape nearest to the optimal one at a budget, its tokens and the loss it should reach."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from noiselaw.accounting import DEFAULT_CONVENTION, ModelShape, flops_per_token, parameter_counts
from noiselaw.laws.isoflop import IsoflopFit
from noiselaw.laws.prediction import Prediction, predict_loss


@dataclass(frozen=True, slots=True)
class Choice:
    """A shape out of several."""

    shape: ModelShape
    flops_per_token: float
    flags: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Plan:
    """One run that spends a budget as the laws advise."""

    shape: ModelShape
    params: int
    """Non-embedding."""
    flops_per_token: float
    convention: str
    tokens: float
    optimal_flops_per_token: float
    """What the law asks for; the shape is the nearest candidate."""
    loss: Prediction
    flags: tuple[str, ...]

    @property
    def flops(self) -> float:
        return self.loss.flops

    def record(self) -> dict[str, Any]:
        """As written to prediction files, and equal to what is read back; losses in nats per token."""
        loss = self.loss
        surface = {"surface_loss": {"value": loss.surface_value, "interval": _listed(loss.surface_interval)}}
        return {
            "flops": loss.flops,
            "layers": self.shape.num_layers,
            "width": self.shape.width,
            "heads": self.shape.num_heads,
            "params": self.params,
            "flops_per_token": self.flops_per_token,
            "convention": self.convention,
            "tokens": self.tokens,
            "optimal_flops_per_token": self.optimal_flops_per_token,
            "loss": {"value": loss.value, "interval": _listed(loss.interval)},
            **(surface if loss.surface_value is not None else {}),
            "extrapolation_factor": loss.extrapolation_factor,
            "flags": list(self.flags),
        }


def plan_run(
    fit: IsoflopFit,
    flops: float,
    candidates: Sequence[ModelShape],
    sequence_length: int,
    convention: str = DEFAULT_CONVENTION,
) -> Plan:
    """Choose the candidate closest to M*(C) in log M and give it D = C / M tokens.

    `convention` must be the one the fit's FLOPs per token were counted by. Candidates may be larger than any sampled
    size. Raises ValueError without candidates, for a budget that is not positive and finite, or
    for a group without laws.
    """
    if not (math.isfinite(flops) and flops > 0):
        raise ValueError(f"flops {flops}: a plan needs a positive, finite budget")
    optimal = float(fit.law("flops_per_token")(flops))
    choice = nearest_shape(optimal, candidates, sequence_length, convention)
    return Plan(
        shape=choice.shape,
        params=parameter_counts(choice.shape).non_embedding,
        flops_per_token=choice.flops_per_token,
        convention=convention,
        tokens=flops / choice.flops_per_token,
        optimal_flops_per_token=optimal,
        loss=predict_loss(fit, flops, choice.flops_per_token),
        flags=choice.flags,
    )


def nearest_shape(
    optimal: float, candidates: Sequence[ModelShape], sequence_length: int, convention: str = DEFAULT_CONVENTION
) -> Choice:
    """The candidate closest in log M to `optimal` FLOPs per token. Raises ValueError without candidates."""
    if not candidates:
        raise ValueError("no candidate shapes to plan with; give at least one")
    sizes = [flops_per_token(shape, sequence_length, convention) for shape in candidates]
    distances = [abs(math.log(size / optimal)) for size in sizes]
    best = distances.index(min(distances))
    return Choice(candidates[best], sizes[best], _flags(optimal, sizes, sizes[best]))


def _listed(interval: tuple[float, float] | None) -> list[float] | None:
    return None if interval is None else list(interval)


def _flags(optimal: float, sizes: Sequence[float], chosen: float) -> tuple[str, ...]:
    flags = []
    if not min(sizes) <= optimal <= max(sizes):
        flags.append("the optimal size lies outside the candidates")
    if max(chosen / optimal, optimal / chosen) > 1.5:
        flags.append(f"the nearest candidate is {chosen / optimal:.2f} times the optimal size")
    return tuple(flags)
