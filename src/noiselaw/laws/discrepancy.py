"""A published number beside ours, and what explains their difference.

The *rounding* of the printed number may; or the *points*, which were recovered from pixels; for intervals the *draws*,
since two bootstraps never agree to the last digit. What nothing known explains stays flagged (None).
"""

import math
from dataclasses import asdict, dataclass
from statistics import NormalDist
from typing import Any

from noiselaw.laws.bootstrap import LEVEL

PUBLISHED_DRAWS = 10_000
"""Resamples of the published bootstrap."""
REACH = 3.0
"""Standard deviations that an explanation may use."""


@dataclass(frozen=True, slots=True)
class Comparison:
    """A published number beside ours."""

    group: str
    quantity: str
    """What the law or surface is of."""
    number: str
    """Which number of it: exponent, prefactor, R², the name of a parameter."""
    published: float
    ours: float
    rounding: float
    """Half a unit of the last printed digit."""
    spread: float = 0.0
    """How far the recovery of the points may have moved ours (REACH standard deviations)."""

    @property
    def difference(self) -> float:
        return self.ours - self.published

    @property
    def explained_by(self) -> str | None:
        reaches = {"rounding": self.rounding, "points": self.rounding + self.spread}
        return next((name for name, reach in reaches.items() if abs(self.difference) <= reach), None)

    def record(self) -> dict[str, Any]:
        return {**asdict(self), "difference": self.difference, "explained_by": self.explained_by}


@dataclass(frozen=True, slots=True)
class Section:
    """Comparisons of one kind."""

    name: str
    title: str
    note: str
    comparisons: tuple[Comparison, ...]

    def record(self) -> dict[str, Any]:
        rows = [comparison.record() for comparison in self.comparisons]
        return {"title": self.title, "note": self.note, "comparisons": rows}


@dataclass(frozen=True, slots=True)
class IntervalComparison:
    """The 95 % interval of an exponent: published, ours, and what that of D must be because D = C / M."""

    group: str
    quantity: str
    exponent: tuple[float, float]
    """Published and ours."""
    published: tuple[float, float]
    ours: tuple[float, float]
    mirrored: tuple[float, float] | None
    """One minus the published interval of M; for tokens only."""
    num_draws: int
    """Of our bootstrap."""

    @property
    def explained_by(self) -> tuple[str | None, str | None]:
        """What explains either end, both measured from their exponent: their offsets are printed to two digits.

        "cut short": the upper end of D or L where the published one falls short; its refits stopped early on an unused
        parameter (spec section 7, step 4).
        """
        low, high = (self._explain(end) for end in (0, 1))
        falls_short = self.published[1] - self.exponent[0] < self.ours[1] - self.exponent[1]
        if high is None and falls_short and self.quantity in ("tokens", "loss"):
            high = "cut short"
        return low, high

    def record(self) -> dict[str, Any]:
        pairs = {name: getattr(self, name) for name in ("exponent", "published", "ours", "mirrored", "explained_by")}
        lists = {name: None if pair is None else list(pair) for name, pair in pairs.items()}
        return {"group": self.group, "quantity": self.quantity, **lists}

    def _explain(self, end: int) -> str | None:
        published, ours = self.published[end] - self.exponent[0], self.ours[end] - self.exponent[1]
        rounding = half_unit(published, 2)
        reaches = {"rounding": rounding, "draws": rounding + REACH * self._draw_error()}
        return next((name for name, reach in reaches.items() if abs(ours - published) <= reach), None)

    def _draw_error(self) -> float:
        """Standard error of the difference of the two bootstraps' ends, for draws that are about normal."""
        normal, tail = NormalDist(), (1 - LEVEL) / 2
        deviation = (self.ours[1] - self.ours[0]) / (2 * normal.inv_cdf(1 - tail))
        variance = tail * (1 - tail) * (1 / self.num_draws + 1 / PUBLISHED_DRAWS)
        return deviation * math.sqrt(variance) / normal.pdf(normal.inv_cdf(tail))


def half_unit(value: float, digits: int) -> float:
    """Half a unit of the last of that many significant digits."""
    return 0.5 * 10.0 ** (math.floor(math.log10(abs(value))) - digits + 1)
