"""Keys and values kept between forward passes, so that text which no longer changes is computed once.

A cache changes nothing but the work: `model(ids, attention, positions, cache)` gives the hidden states that the whole
sequence would have at `positions`, as long as the tokens at the other positions are those that were stored.

Shapes: B batch, K new tokens, S positions in all, H heads, D head dimension.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional


@dataclass(frozen=True, slots=True, eq=False)
class LayerCache:
    """Keys and values of one layer, after norm and rotary turn: [B, S, H, D], the sink in front where there is one."""

    key: Tensor
    value: Tensor
    num_sinks: int

    def store(self, key: Tensor, value: Tensor, positions: Tensor) -> tuple[Tensor, Tensor]:
        """Put `key` and `value` [B, K, H, D] at `positions` [K] or [B, K]; all keys and values, the sink's included."""
        slots = positions + self.num_sinks
        rows = torch.arange(len(key), device=key.device)[:, None]
        self.key[rows, slots] = key.to(self.key.dtype)
        self.value[rows, slots] = value.to(self.value.dtype)
        return self.key, self.value


@dataclass(frozen=True, slots=True, eq=False)
class KeyValueCache:
    """Every layer's keys and values. Made by `Transformer.new_cache`; written in place by its forward pass."""

    layers: tuple[LayerCache, ...]

    @property
    def num_positions(self) -> int:
        """S."""
        return self.layers[0].key.shape[1] - self.layers[0].num_sinks

    def first(self, num_positions: int) -> "KeyValueCache":
        """The first positions only: a view, so what is stored through it stands in the whole cache too."""
        stop = num_positions + self.layers[0].num_sinks
        return self._map(lambda tensor: tensor[:, :stop])

    def grown(self, num_positions: int) -> "KeyValueCache":
        """A copy with room for `num_positions` in all; the new ones are empty."""
        more = num_positions - self.num_positions
        return self._map(lambda tensor: functional.pad(tensor, (0, 0, 0, 0, 0, more)))

    def rows(self, index: Tensor) -> "KeyValueCache":
        """A copy for the sequences at `index` [n]."""
        return self._map(lambda tensor: tensor[index])

    def _map(self, change: Callable[[Tensor], Tensor]) -> "KeyValueCache":
        return KeyValueCache(
            tuple(LayerCache(change(layer.key), change(layer.value), layer.num_sinks) for layer in self.layers)
        )
