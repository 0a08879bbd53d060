"""Batches for training: a batch is a pure function of (seed, step)."""

from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from noiselaw.data.mixture import AnySplit, gather
from noiselaw.data.order import Order, batch_positions


@dataclass(frozen=True, slots=True)
class Exposure:
    """What training has seen of its data."""

    unique_tokens: int
    """Different tokens seen so far."""
    epoch: float
    """Passes over the data in use; of a mixture, over the source that has been seen most often."""


@dataclass(frozen=True)
class TokenLoader:
    """Shuffled sequences of a split, epoch after epoch; of a mixture each source in epochs of its own.

    Raises ValueError where a source holds not even one sequence, or fewer than `unique_tokens` ask for.
    """

    split: AnySplit
    sequence_length: int
    batch_sequences: int
    seed: int
    unique_tokens: int | None = None
    """Tokens to train on, again and again: so many whole sequences, of a mixture in its proportions. None takes all."""

    def __post_init__(self) -> None:
        _ = self._orders

    @cached_property
    def _orders(self) -> tuple[Order, ...]:
        """One per source."""
        available = [source.num_sequences(self.sequence_length) for source in self.split.sources]
        unique = available
        if self.unique_tokens is not None:
            unique = self.split.interleaving.counts(self.unique_tokens // self.sequence_length)
        for source, wanted, held in zip(self.split.sources, unique, available, strict=True):
            if not 0 < wanted <= held:
                remedy = "raise it" if wanted == 0 else "lower it or prepare more text"
                raise ValueError(
                    f"data.unique_tokens {self.unique_tokens} asks {source.folder} for {wanted:,} sequences of "
                    f"{self.sequence_length:,} tokens, but it holds {held:,}; {remedy}"
                )
        names = [f"{self.seed}/{key}" if key else str(self.seed) for key in self.split.keys]
        return tuple(Order(*values) for values in zip(names, available, unique, strict=True))

    def batch(self, step: int) -> Tensor:
        """Tokens of the global batch of `step`, int64 [B, T]."""
        sources, places = self.split.interleaving.places(batch_positions(step, self.batch_sequences))
        for number, order in enumerate(self._orders):
            here = sources == number
            places[here] = order.indices(places[here])
        return torch.from_numpy(gather(self.split.sources, sources, places, self.sequence_length))

    def exposure(self, num_steps: int) -> Exposure:
        """What the first `num_steps` steps see."""
        seen = self.split.interleaving.counts(num_steps * self.batch_sequences)
        pairs = [(count, order.num_unique) for count, order in zip(seen, self._orders, strict=True)]
        unique = sum(min(count, held) for count, held in pairs) * self.sequence_length
        return Exposure(unique, max(count / held for count, held in pairs))
