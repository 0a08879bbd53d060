"""Where the fitted laws of the loss of two groups cross, from the laws and their covariances alone.

log L* of each group is a line in log C, so is their difference, and its zero has Fieller's interval: all C at which the
difference is within Student's t times its standard error. `noiselaw laws cross` asks the runs themselves instead.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any

from noiselaw.laws.bootstrap import LEVEL, student_quantile
from noiselaw.laws.crossing import REACH
from noiselaw.report.results import GroupLaws, PowerLaw, Results

Covariance = tuple[float, float, float]


@dataclass(frozen=True, slots=True)
class LawGap:
    """log L* of `second` over that of `first` = level + slope log C."""

    first: str
    second: str
    level: float
    slope: float
    covariance: Covariance | None
    """Of level and slope: (variance, covariance, variance); None where runs do not tell."""
    quantile: float
    """Of Student's t at LEVEL."""
    data: tuple[float, float]
    """C from the smallest to the largest budget of both groups, FLOPs."""
    loss: PowerLaw
    """Of `first`."""

    @property
    def within(self) -> tuple[float, float]:
        """Where a crossing counts."""
        return self.data[0], self.data[1] * REACH

    def at(self, flops: float) -> float:
        return self.level + self.slope * math.log(flops)

    def half_width(self, flops: float) -> float | None:
        """Of the 95 % interval of `at`."""
        if self.covariance is None:
            return None
        x, (a, b, c) = math.log(flops), self.covariance
        return self.quantile * math.sqrt(max(a + x * (2 * b + x * c), 0.0))

    @property
    def crossing(self) -> float | None:
        """C at which the laws are equal; None where that is not within the range."""
        if self.slope == 0:
            return None
        low, high = (math.log(end) for end in self.within)
        x = -self.level / self.slope
        return math.exp(x) if low <= x <= high else None

    @property
    def interval(self) -> tuple[float, float] | None:
        """Fieller's, of the crossing, cut off at the range; None where it is not bounded."""
        if self.covariance is None or self.crossing is None:
            return None
        square = self.quantile**2
        a, b, c = self.covariance
        curvature = self.slope**2 - square * c
        middle = self.level * self.slope - square * b
        root = middle**2 - curvature * (self.level**2 - square * a)
        if curvature <= 0 or root < 0:
            return None
        low, high = (math.log(end) for end in self.within)
        ends = [(-middle + sign * math.sqrt(root)) / curvature for sign in (-1, 1)]
        return math.exp(max(ends[0], low)), math.exp(min(ends[1], high))

    def leader(self, flops: float) -> str:
        return self.first if self.at(flops) > 0 else self.second

    def record(self) -> dict[str, Any]:
        """By the keys of `noiselaw laws cross --json`, as far as figures read them."""
        at = self.crossing
        return {
            "parameters": {"crossing": at, "loss": None if at is None else self.loss.at(at)},
            "intervals": {"crossing": self.interval},
            "within": self.within,
            "data": self.data,
            "leader_below": self.leader(self.within[0]),
            "leader_above": self.leader(self.within[1]),
            "flags": [] if at is None or self.interval else ["the interval of the crossing is not bounded"],
        }


def law_gaps(results: Results) -> tuple[LawGap, ...]:
    """Every pair of groups that have a law of the loss, in the order of the study."""
    fitted = [
        (name, results.laws.groups[name])
        for name in results.groups
        if name in results.laws.groups and "loss" in results.laws.groups[name].laws and results.laws.groups[name].optima
    ]
    return tuple(_gap(*first, *second) for first, second in combinations(fitted, 2))


def _gap(first: str, ours: GroupLaws, second: str, theirs: GroupLaws) -> LawGap:
    laws = ours.laws["loss"], theirs.laws["loss"]
    budgets = [optimum.budget for group in (ours, theirs) for optimum in group.optima]
    freedom = min(ours.degrees_of_freedom, theirs.degrees_of_freedom)
    covariance = _sum([law.covariance for law in laws]) if freedom > 0 else None
    return LawGap(
        first=first,
        second=second,
        level=math.log(laws[1].coefficient / laws[0].coefficient),
        slope=laws[1].exponent - laws[0].exponent,
        covariance=covariance,
        quantile=student_quantile(LEVEL, max(freedom, 1)),
        data=(min(budgets), max(budgets)),
        loss=laws[0],
    )


def _sum(covariances: Sequence[Covariance | None]) -> Covariance | None:
    """Of two laws of different runs: nothing they share moves both."""
    first, second = covariances
    if first is None or second is None:
        return None
    return first[0] + second[0], first[1] + second[1], first[2] + second[2]
