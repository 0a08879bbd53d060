"""Which source each position of a mixture belongs to: exact proportions, any position in constant time.

W is the sum of the shares. Of every W positions (a round) each source has exactly its share, evenly spread, so which
source a position belongs to, and how many of that source came before, is a matter of a division.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np


@dataclass(frozen=True, slots=True, eq=False)
class Interleaving:
    """The sources of an endless order of sequences."""

    shares: np.ndarray
    """Whole numbers without a common divisor, int64 [sources]."""
    source_at: np.ndarray
    """Source of each position of a round, int64 [W]."""
    before: np.ndarray
    """How many positions of the round before have the same source, int64 [W]."""

    @staticmethod
    def of(shares: Sequence[int]) -> "Interleaving":
        sources = np.repeat(np.arange(len(shares)), shares)
        before = np.concatenate([np.arange(share) for share in shares])
        moments = np.concatenate([(np.arange(share) + 0.5) / share for share in shares])
        order = np.argsort(moments, kind="stable")
        return Interleaving(np.array(shares, dtype=np.int64), sources[order], before[order])

    def places(self, positions: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Source of each of `positions` [n], and how many sequences of that source come before it; both int64 [n]."""
        rounds, place = np.divmod(positions, len(self.source_at))
        sources = self.source_at[place]
        return sources, rounds * self.shares[sources] + self.before[place]

    def counts(self, num_positions: int) -> list[int]:
        """How many of the first `num_positions` each source has."""
        rounds, rest = divmod(num_positions, len(self.source_at))
        started = np.bincount(self.source_at[:rest], minlength=len(self.shares))
        return [rounds * int(share) + int(more) for share, more in zip(self.shares, started, strict=True)]


ALONE = Interleaving.of([1])
"""One source and nothing else."""


class OneSource:
    """What tells a split that is its own only source from a mixture's."""

    __slots__ = ()

    @property
    def sources(self) -> tuple[Self, ...]:
        return (self,)

    @property
    def interleaving(self) -> Interleaving:
        return ALONE

    @property
    def keys(self) -> tuple[str, ...]:
        """What tells the orders of several sources apart."""
        return ("",)
