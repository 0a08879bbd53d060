"""Power laws with intervals from draws, as every method here reports them. Legend: S draws."""

import math
import reprlib
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

import numpy as np

from noiselaw.laws.bootstrap import LEVEL, percentile_interval
from noiselaw.laws.forms import Floats, PowerLaw

MIN_OPTIMA = 2
"""That carry a law."""

FEW_POINTS = "fewer than 4 points"
OUTSIDE = "vertex outside the sampled sizes"
NO_MINIMUM = "no minimum near the sampled sizes"
CONCAVE = "concave"
EDGE = "lowest loss at the smallest or largest size"


@dataclass(frozen=True, slots=True)
class LawFit:
    """A power law with its uncertainty; None where the table has no degrees of freedom to tell it."""

    law: PowerLaw
    interval: tuple[float, float] | None
    """Of the exponent, 95 %."""
    covariance: tuple[float, float, float] | None
    """Of log coefficient and exponent: (variance, covariance, variance)."""


def law_fits(
    estimates: Mapping[str, Floats], draws: Mapping[str, Floats] | None, freedom: float = math.inf
) -> dict[str, LawFit]:
    """Laws by quantity from (log coefficient, exponent) [2] and draws [S, 2] of it; NaN draws are left out."""
    return {
        name: _law_fit(estimate, None if draws is None else draws[name], freedom)
        for name, estimate in estimates.items()
    }


def _law_fit(estimate: Floats, draws: Floats | None, freedom: float) -> LawFit:
    law = PowerLaw(math.exp(estimate[0]), float(estimate[1]))
    whole = np.empty((0, 2)) if draws is None else draws[np.isfinite(draws).all(-1)]
    if len(whole) < 2:
        return LawFit(law, None, None)
    covariance = np.cov(whole, rowvar=False)
    interval = percentile_interval(whole[:, 1], law.exponent, LEVEL, freedom)
    return LawFit(law, interval, (float(covariance[0, 0]), float(covariance[0, 1]), float(covariance[1, 1])))


def law_records(laws: Mapping[str, LawFit]) -> dict[str, Any]:
    """{quantity: {"coefficient", "exponent", "interval", "covariance"}} of plain numbers and lists."""
    return {
        name: {
            "coefficient": fit.law.coefficient,
            "exponent": fit.law.exponent,
            "interval": listed(fit.interval),
            "covariance": None if fit.covariance is None else list(fit.covariance),
        }
        for name, fit in laws.items()
    }


def law_of(record: Mapping[str, Any]) -> LawFit:
    """The inverse, for one law. Raises KeyError, TypeError or ValueError for anything else."""
    interval, covariance = record["interval"], record["covariance"]
    law = PowerLaw(finite(record["coefficient"]), finite(record["exponent"]))
    return LawFit(law, interval and finites(interval, 2), covariance and finites(covariance, 3))


def finite(value: Any) -> float:
    """A number out of a file. Raises ValueError where it is none, or not finite."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise ValueError(f"{reprlib.repr(value)} stands where a finite number belongs; fit the table again")
    return float(value)


def finites(values: Any, length: int) -> Any:
    """A tuple of `length` numbers out of a file. Raises ValueError where it is none."""
    if not isinstance(values, list | tuple) or len(values) != length:
        raise ValueError(f"{reprlib.repr(values)} stands where {length} numbers belong; fit the table again")
    return tuple(map(finite, values))


def lost_draws(draws: Mapping[str, Floats]) -> tuple[str, ...]:
    """A flag where more than 2 % of the draws have no law."""
    lost = 1.0 - min(float(np.isfinite(values).all(-1).mean()) for values in draws.values())
    return (f"{lost:.0%} of the draws have no law",) if lost > 0.02 else ()


def interval_records(intervals: Mapping[str, tuple[float, float] | None]) -> dict[str, Any]:
    """Intervals of parameters as JSON."""
    return {name: listed(interval) for name, interval in intervals.items()}


def listed(interval: tuple[float, float] | None) -> list[float] | None:
    """An interval as JSON."""
    return None if interval is None else list(interval)


def vertex_flags(values: Floats, *, usable: bool, inside: bool) -> tuple[str, ...]:
    """Flags of one parabola through values [n], in order of x, that has a minimum near them or among them."""
    raised = {
        FEW_POINTS: values.size < 4,
        NO_MINIMUM: not usable,
        OUTSIDE: usable and not inside,
        EDGE: int(np.argmin(values)) in (0, values.size - 1),
    }
    return tuple(flag for flag, is_raised in raised.items() if is_raised)


def flat_record(row: Any) -> dict[str, Any]:
    """A frozen dataclass of plain values as one JSON object; flags as a list."""
    return {
        item.name: list(value) if isinstance(value := getattr(row, item.name), tuple) else value for item in fields(row)
    }
