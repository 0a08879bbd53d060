"""The order of sequences and the random numbers are pure functions of (seed, step)."""

import tracemalloc

import numpy as np
import pytest
import torch

from noiselaw.data.order import (
    BLOCK,
    Order,
    _block,
    _feistel,
    batch_positions,
    permuted,
    step_generator,
)


def sequence_indices(seed: int, step: int, batch: int, num_sequences: int) -> np.ndarray:
    """Sequences of the batch of `step` from a single source that is used whole."""
    return Order(str(seed), num_sequences, num_sequences).indices(batch_positions(step, batch))


def stream(seed: int, num_batches: int, batch: int, num_sequences: int) -> np.ndarray:
    return np.concatenate([sequence_indices(seed, step, batch, num_sequences) for step in range(num_batches)])


@pytest.mark.parametrize(("batch", "num_sequences"), [(1, 1), (4, 28), (7, 28), (16, 5), (8, 101)])
def test_an_epoch_visits_every_sequence_once(batch: int, num_sequences: int):
    indices = stream(3, -(-3 * num_sequences // batch), batch, num_sequences)
    for epoch in range(3):
        part = indices[epoch * num_sequences : (epoch + 1) * num_sequences]
        assert sorted(part) == list(range(num_sequences))


def test_epochs_and_seeds_have_their_own_permutations():
    orders = {(seed, epoch): tuple(sequence_indices(seed, epoch, 64, 64)) for seed in range(6) for epoch in range(6)}
    assert len(set(orders.values())) == 36


@pytest.mark.parametrize("size", [2, 5, 8])
def test_permutations_are_even(size: int):
    """Over many keys each ordered pair of images of (0, 1) comes about equally often, within 5 standard deviations."""
    num_keys = 2000
    pairs = [permuted(np.array([0, 1]), size, str(key)) for key in range(num_keys)]
    counts = np.zeros((size, size))
    np.add.at(counts, tuple(np.transpose(pairs)), 1)
    assert not counts.diagonal().any()
    share = 1 / (size * (size - 1))
    found = counts[~np.eye(size, dtype=bool)]
    assert np.abs(found - num_keys * share).max() < 5 * np.sqrt(num_keys * share * (1 - share))


def test_neighbours_are_torn_apart():
    """Rank correlation of index and image vanishes, also for the numbers of real corpora."""
    size = 45_001
    images = permuted(np.arange(size), size, "0/0")
    assert sorted(images) == list(range(size))
    correlations = [np.corrcoef(images[:-lag], images[lag:])[0, 1] for lag in (1, 2, 64, 256)]
    correlations.append(np.corrcoef(np.arange(size), images)[0, 1])
    assert np.abs(correlations).max() < 4 / np.sqrt(size)


def test_very_long_corpora():
    size = 10**15 + 7
    images = permuted(np.array([0, 1, size - 1]), size, "k")
    assert len(set(images)) == 3
    assert 0 <= images.min() <= images.max() < size


@pytest.mark.parametrize("num_ranks", [1, 2, 3, 4, 12])
def test_any_number_of_ranks_sees_the_same_global_order(num_ranks: int):
    """A rank may compute its slice alone: smaller batches cut the same endless order."""
    whole = stream(1, 5, 12, 37)
    cut = stream(1, 5 * num_ranks, 12 // num_ranks, 37)
    np.testing.assert_array_equal(whole, cut)


def test_order_does_not_change_between_versions():
    assert sequence_indices(0, 0, 8, 1000).tolist() == ORDER
    assert sequence_indices(0, 0, 8, 1000).dtype == np.int64


ORDER = [375, 197, 95, 652, 289, 546, 318, 981]


def test_generators_repeat_and_differ():
    def draw(seed: int, step: int, name: str) -> float:
        return float(torch.rand(1, generator=step_generator(seed, step, name)))

    draws = {(s, t, name): draw(s, t, name) for s in range(5) for t in range(50) for name in ("noise", "init")}
    assert len(set(draws.values())) == len(draws)
    assert draw(3, 7, "noise") == draws[3, 7, "noise"]
    assert abs(np.mean(list(draws.values())) - 0.5) < 4 * np.sqrt(1 / 12 / len(draws))


def test_blocks_are_the_permutation_looked_up_in_pieces(monkeypatch):
    """Batches that cross blocks and epochs take the places of each epoch's own permutation."""
    monkeypatch.setattr("noiselaw.data.order.BLOCK", 16)
    _block.cache_clear()
    size = 41
    whole = np.concatenate([permuted(np.arange(size), size, f"5/{epoch}") for epoch in range(4)])
    batches = [sequence_indices(5, step, 12, size) for step in range(4 * size // 12)]
    _block.cache_clear()
    np.testing.assert_array_equal(np.concatenate(batches), whole[: 12 * len(batches)])


@pytest.mark.parametrize("num_unique", [500_000_000, 300_000_000])
def test_five_hundred_million_sequences_need_no_index(num_unique: int, monkeypatch):
    """A batch far into training looks up a few blocks and holds a few of them, however many sequences there are."""
    num_sequences, batch = 500_000_000, 512
    looked_up = []

    def counted(indices: np.ndarray, size: int, key: str) -> np.ndarray:
        looked_up.append(len(indices))
        return permuted(indices, size, key)

    monkeypatch.setattr("noiselaw.data.order.permuted", counted)
    _block.cache_clear()
    order = Order("0", num_sequences, num_unique)
    steps = [0, 10**6, 3 * 10**6, 10**9]
    tracemalloc.start()
    batches = [order.indices(batch_positions(step, batch)) for step in steps]
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    per_batch = 2 if num_unique == num_sequences else 4  # blocks a batch may straddle, looked up once or twice
    assert sum(looked_up) <= per_batch * len(steps) * BLOCK
    assert peak < 40 * BLOCK * 8
    for indices in batches:
        assert len(set(indices.tolist())) == batch
        assert indices.min() >= 0
        assert indices.max() < num_sequences
        # Spread over the whole range: halves and sixteenths come about equally often.
        assert np.bincount(indices * 16 // num_sequences, minlength=16).max() < 80


def test_cycle_walking_costs_a_constant_factor(monkeypatch):
    """Numbers outside are sent through again: on average less than four times even where that is most often."""
    sent = []

    def counted(values: np.ndarray, half_bits: int, round_keys: list[int]) -> np.ndarray:
        sent.append(len(values))
        return _feistel(values, half_bits, round_keys)

    monkeypatch.setattr("noiselaw.data.order._feistel", counted)
    for size in (2**28 + 1, 500_000_000, 2**30):
        sent.clear()
        permuted(np.arange(20_000), size, "key")
        assert sum(sent) < 4.2 * 20_000
