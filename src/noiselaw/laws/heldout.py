"""The paper's runs at 1e21 and 1e22 FLOPs: what laws fitted on at most 2e20 say, beside what was measured.

The laws hold for runs without cooldown, so they are held against the loss before it; divided by the paper's cooldown
factor they are held against the final loss. Losses in nats per token, C = M D in FLOPs.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from noiselaw.laws.isoflop import IsoflopFit
from noiselaw.laws.lawbook import CooldownFactor
from noiselaw.laws.lawfits import listed
from noiselaw.laws.prediction import predict_loss
from noiselaw.laws.published import (
    COOLDOWN_FACTOR,
    COOLDOWN_FACTOR_UNCERTAINTY,
    LARGE_RUNS,
    LargeRun,
    isoflop_laws,
)


@dataclass(frozen=True, slots=True)
class HeldOutLoss:
    """One loss of a run that no fit has seen."""

    predicted: float
    interval: tuple[float, float] | None
    """95 %, for one run."""
    measured: float

    @property
    def error_percent(self) -> float:
        """Predicted over measured, minus one."""
        return 100 * (self.predicted / self.measured - 1)

    @property
    def is_inside(self) -> bool | None:
        """Whether the interval holds what was measured; None without interval."""
        return None if self.interval is None else self.interval[0] <= self.measured <= self.interval[1]

    def record(self) -> dict[str, Any]:
        return {
            "predicted": self.predicted,
            "interval": listed(self.interval),
            "measured": self.measured,
            "error_percent": self.error_percent,
            "is_inside": self.is_inside,
        }


@dataclass(frozen=True, slots=True)
class HeldOut:
    """One large run: predictions from the shipped points beside its losses."""

    run: LargeRun
    extrapolation_factor: float
    """Its compute over the largest budget that carries the laws."""
    before_cooldown: HeldOutLoss
    final: HeldOutLoss
    """Prediction over the cooldown factor; the interval pays for that factor's uncertainty too."""
    printed_law: float
    """L*(C) with the printed coefficients."""
    surface: float | None
    """By the surface at the run's size and tokens, without cooldown."""

    @property
    def measured_cooldown_factor(self) -> float:
        return self.run.loss_before_cooldown / self.run.loss

    def record(self) -> dict[str, Any]:
        return {
            "run": self.run.name,
            "group": self.run.group,
            "flops": self.run.flops,
            "flops_per_token": self.run.flops_per_token,
            "tokens": self.run.tokens,
            "extrapolation_factor": self.extrapolation_factor,
            "before_cooldown": self.before_cooldown.record(),
            "final": self.final.record(),
            "printed_law": self.printed_law,
            "surface": self.surface,
            "measured_cooldown_factor": self.measured_cooldown_factor,
        }


def predict_large_runs(fits: Mapping[str, IsoflopFit]) -> tuple[HeldOut, ...]:
    """Predict every large run of the paper from the fits of its points."""
    printed = {law.group: law.law() for law in isoflop_laws() if law.quantity == "loss"}
    return tuple(_predict(fits[run.group], run, float(printed[run.group](run.flops))) for run in LARGE_RUNS)


def _predict(fit: IsoflopFit, run: LargeRun, printed_law: float) -> HeldOut:
    prediction = predict_loss(fit, run.flops, run.flops_per_token)
    cooldown = CooldownFactor(COOLDOWN_FACTOR, COOLDOWN_FACTOR_UNCERTAINTY)
    return HeldOut(
        run=run,
        extrapolation_factor=prediction.extrapolation_factor,
        before_cooldown=HeldOutLoss(prediction.value, prediction.interval, run.loss_before_cooldown),
        final=HeldOutLoss(*cooldown.lower(prediction.value, prediction.interval), run.loss),
        printed_law=printed_law,
        surface=prediction.surface_value,
    )
