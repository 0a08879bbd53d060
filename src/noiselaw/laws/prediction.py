"""What a larger run will reach, with an interval that owns up to every source of doubt.

The headline is the isoFLOP power law L*(C): on the paper's own table, fitted over any decade of budgets and asked for
the optimum at four times the largest of them, it is off by 0.3 % (root mean square over 45 windows) where the surface
with its irreducible loss is 2.2 % too high. The choice is made here once, not after seeing a run. The surface stands
beside it, and the interval covers both: their difference is what the form of the law is worth.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

from noiselaw.laws.bootstrap import LEVEL, student_quantile
from noiselaw.laws.forms import PowerLaw
from noiselaw.laws.lawfits import LawFit
from noiselaw.laws.surface import SurfaceFit


class Laws(Protocol):
    """The laws of one group as predictions and plans use them, whatever method found them."""

    @property
    def group(self) -> str: ...
    @property
    def laws(self) -> Mapping[str, LawFit]:
        """flops_per_token and tokens over C at least; loss where the optimal loss is a power law. Empty without any."""
        ...

    @property
    def flags(self) -> tuple[str, ...]: ...
    @property
    def scatter(self) -> float | None:
        """Standard deviation of the log loss between runs."""
        ...

    @property
    def degrees_of_freedom(self) -> float:
        """Of the scatter."""
        ...

    @property
    def surface(self) -> SurfaceFit | None:
        """Over FLOPs per token and tokens."""
        ...

    @property
    def smallest_budget(self) -> float:
        """Of those that carry the laws."""
        ...

    @property
    def largest_budget(self) -> float:
        """Of those that carry the laws: where extrapolation starts."""
        ...

    def law(self, quantity: str) -> PowerLaw:
        """Raises ValueError, saying why, for a group without laws."""
        ...


@dataclass(frozen=True, slots=True)
class Prediction:
    """The loss of one new run in nats per token; intervals are 95 %, None where run-to-run scatter is unknown."""

    flops: float
    value: float
    """By the law of the loss; by the surface where there is no such law."""
    interval: tuple[float, float] | None
    """Covers the law's and the surface's interval."""
    surface_value: float | None
    """By the surface, at the planned size and tokens."""
    surface_interval: tuple[float, float] | None
    extrapolation_factor: float
    """The run's compute over that of the largest budget that carries the laws."""


def predict_loss(fit: Laws, flops: float, flops_per_token: float | None = None) -> Prediction:
    """Predict a new run of C = `flops`, of M = `flops_per_token` or else the law's optimal size.

    Interval: log L* +- t * sqrt(v + s**2), where v is the variance of the fitted law at C, s the scatter of a single
    run, t Student's quantile at the scatter's degrees of freedom; likewise for the surface. Raises ValueError for
    compute or a size that is not positive and finite, and for a group without laws.
    """
    _refuse_impossible("flops", flops)
    size = float(fit.law("flops_per_token")(flops)) if flops_per_token is None else flops_per_token
    _refuse_impossible("flops_per_token", size)
    by_surface = _by_surface(fit, size, flops / size)
    by_law = _by_law(fit, flops)
    headline = by_law or by_surface
    if headline is None:
        raise ValueError(f"group {fit.group}: neither a law of the loss nor a surface; fit one of them")
    value, interval = headline
    surface_value, surface_interval = by_surface or (None, None)
    if interval and surface_interval:
        interval = min(interval[0], surface_interval[0]), max(interval[1], surface_interval[1])
    return Prediction(flops, value, interval, surface_value, surface_interval, flops / fit.largest_budget)


Forecast = tuple[float, tuple[float, float] | None]


def _by_law(fit: Laws, flops: float) -> Forecast | None:
    if "loss" not in fit.laws:
        return None
    value = float(fit.law("loss")(flops))
    return value, _interval(fit, value, _law_error(fit, flops))


def _by_surface(fit: Laws, size: float, tokens: float) -> Forecast | None:
    if fit.surface is None:
        return None
    value = float(fit.surface(size, tokens))
    error = None if fit.scatter is None else fit.scatter * fit.surface.standard_error(size, tokens)
    return value, _interval(fit, value, error)


def _refuse_impossible(name: str, value: float) -> None:
    if not (math.isfinite(value) and value > 0):
        raise ValueError(f"{name} {value}: a prediction needs a positive, finite number")


def _law_error(fit: Laws, flops: float) -> float | None:
    """Standard error of log L*(C)."""
    covariance = fit.laws["loss"].covariance
    if covariance is None:
        return None
    x = math.log(flops)
    return math.sqrt(max(covariance[0] + x * (2.0 * covariance[1] + x * covariance[2]), 0.0))


def _interval(fit: Laws, value: float, error: float | None) -> tuple[float, float] | None:
    if error is None or fit.scatter is None:
        return None
    half = student_quantile(LEVEL, max(fit.degrees_of_freedom, 1)) * math.hypot(error, fit.scatter)
    return value * math.exp(-half), value * math.exp(half)
