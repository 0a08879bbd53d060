"""Which sequences a step trains on, and which random numbers it uses: pure functions of (seed, step).

Nothing is remembered between steps, so a run that stopped continues with its step number and nothing else. The order
of an epoch is a keyed permutation evaluated only where it is needed: a Feistel network over a power of four, whose
outputs beyond the last sequence are sent through again until they fall inside (cycle walking).
"""

import hashlib
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch

FEISTEL_ROUNDS = 8
BLOCK = 4096
"""Places of an epoch that are looked up together: a network of one batch's size is all overhead."""


def batch_positions(step: int, batch_sequences: int) -> np.ndarray:
    """Positions of the global batch of `step` in the endless order, int64 [batch_sequences]. Ranks take slices."""
    return step * batch_sequences + np.arange(batch_sequences, dtype=np.int64)


@dataclass(frozen=True, slots=True)
class Order:
    """The endless order of a source's sequences, which batches cut.

    Every epoch visits each of them once, in a permutation of its own that is never held in memory.
    """

    key: str
    """Names the order: the seed, and of a mixture the source."""
    num_sequences: int
    """Those there are."""
    num_unique: int
    """Those in use: the first images of a permutation that `key` names, so that smaller subsets lie in larger ones."""

    def indices(self, positions: np.ndarray) -> np.ndarray:
        """The sequences at `positions` >= 0 of the order, both int64 [n]. Work and memory are O(n + BLOCK)."""
        assert 0 < self.num_unique <= self.num_sequences, self
        epochs, offsets = np.divmod(positions, self.num_unique)
        blocks, places = np.divmod(offsets, BLOCK)
        indices = np.empty_like(offsets)
        for epoch, block in np.unique(np.stack([epochs, blocks]), axis=1).T.tolist():
            here = (epochs == epoch) & (blocks == block)
            indices[here] = _block(self, epoch, block)[places[here]]
        return indices


@lru_cache(maxsize=64)
def _block(order: Order, epoch: int, block: int) -> np.ndarray:
    """The sequences at places block * BLOCK and on of an epoch, int64 [BLOCK or what is left]."""
    offsets = np.arange(block * BLOCK, min((block + 1) * BLOCK, order.num_unique), dtype=np.int64)
    chosen = permuted(offsets, order.num_unique, f"{order.key}/{epoch}")
    if order.num_unique == order.num_sequences:
        return chosen
    return permuted(chosen, order.num_sequences, f"{order.key}/unique")


def permuted(indices: np.ndarray, size: int, key: str) -> np.ndarray:
    """Images of `indices` (int64, 0 <= index < size) under the permutation of range(size) that `key` names."""
    half_bits = max(1, -(-(size - 1).bit_length() // 2))
    round_keys = [_hash_bits(64, "order", key, number) for number in range(FEISTEL_ROUNDS)]
    values = _feistel(indices.astype(np.uint64), half_bits, round_keys)
    while (outside := values >= size).any():
        values[outside] = _feistel(values[outside], half_bits, round_keys)
    return values.astype(np.int64)


def step_generator(seed: int, step: int, stream: str) -> torch.Generator:
    """A CPU generator of its own for every (seed, step, stream); `stream` names what the numbers are for."""
    return torch.Generator().manual_seed(_hash_bits(63, "step", seed, step, stream))


def _feistel(values: np.ndarray, half_bits: int, round_keys: list[int]) -> np.ndarray:
    """A permutation of the numbers below 4**half_bits, uint64."""
    half, mask = np.uint64(half_bits), np.uint64(2**half_bits - 1)
    left, right = values >> half, values & mask
    for round_key in round_keys:
        left, right = right, left ^ (_mixed(right + np.uint64(round_key)) & mask)
    return left << half | right


def _mixed(values: np.ndarray) -> np.ndarray:
    """The finaliser of SplitMix64 (Steele, Lea and Flood 2014): every input bit reaches every output bit."""
    values = (values ^ (values >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    values = (values ^ (values >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return values ^ (values >> np.uint64(31))


def _hash_bits(bits: int, *parts: int | str) -> int:
    digest = hashlib.blake2b("/".join(map(str, parts)).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little") >> (64 - bits)
