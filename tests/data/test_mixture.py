"""Mixtures and limited data: exact proportions, epochs of each source, pure functions of (seed, step)."""

import math
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from noiselaw.data.interleaving import Interleaving
from noiselaw.data.loader import Exposure, TokenLoader
from noiselaw.data.mixture import MixedSplit, Mixture, open_data
from noiselaw.data.prepare import prepare
from noiselaw.data.shards import TokenData
from noiselaw.specs import DataSpec, RunSpec, SpecError, parse_spec

T = 16


@pytest.fixture(scope="module")
def other(data: TokenData, tmp_path_factory: pytest.TempPathFactory) -> TokenData:
    """Another corpus with the tokenizer of the first, a third of its size."""
    folder = tmp_path_factory.mktemp("other")
    generator = np.random.default_rng(1)
    for number in range(12):
        (folder / f"{number}.txt").write_text(" ".join(map(str, generator.integers(0, 10**6, 200))))
    settings = {"tokenizer": str(data.folder), "validation_fraction": 0.25}
    return prepare([str(folder)], tmp_path_factory.mktemp("out") / "out", **settings)


def mixed(data: TokenData, other: TokenData, first: float, second: float, **settings) -> DataSpec:
    sources = [{"path": data.folder, "weight": first}, {"path": other.folder, "weight": second}]
    return parse_spec(DataSpec, {"sources": sources, "sequence_length": T, **settings}, "test")


def rows_of(data: TokenData) -> dict[bytes, int]:
    """Index of each training sequence by its content."""
    split = data.split("train")
    rows = split.sequences(np.arange(split.num_sequences(T)), T)
    assert len({row.tobytes() for row in rows}) == len(rows)
    return {row.tobytes(): index for index, row in enumerate(rows)}


def order_of(data: TokenData, loader: TokenLoader, num_steps: int) -> list[int | None]:
    """Index in `data` of each sequence of the first steps; None for those of another source."""
    known = rows_of(data)
    return [known.get(row.tobytes()) for step in range(num_steps) for row in loader.batch(step).numpy()]


@settings(max_examples=30)
@given(st.lists(st.integers(1, 12), min_size=1, max_size=5), st.integers(0, 200), st.integers(1, 100))
def test_every_stretch_is_in_proportion(shares: list[int], start: int, length: int):
    """Places count each source's sequences one by one; rounding at the ends of a stretch is all that is off."""
    interleaving, total = Interleaving.of(shares), sum(shares)
    sources, places = interleaving.places(np.arange(start + length))
    for source, share in enumerate(shares):
        assert places[sources == source].tolist() == list(range(interleaving.counts(start + length)[source]))
        found = (sources[start:] == source).sum()
        assert abs(found - length * share / total) <= 1 + len(shares) * share / total
    assert interleaving.counts(3 * total) == [3 * share for share in shares]
    far_sources, far_places = interleaving.places(np.arange(start + length) + 10**12 * total)
    assert far_sources.tolist() == sources.tolist()
    assert (far_places - places).tolist() == [10**12 * shares[source] for source in sources]


def test_each_source_has_its_share_and_its_own_epochs(data: TokenData, other: TokenData):
    mixture = open_data(mixed(data, other, 0.75, 0.25))
    loader = TokenLoader(mixture.split("train"), T, 8, seed=3)
    num = other.split("train").num_sequences(T)
    num_steps = math.ceil(2 * num * 4 / 8)
    found = order_of(other, loader, num_steps)
    for step in range(num_steps):
        assert sum(index is not None for index in found[8 * step : 8 * step + 8]) == 2
    indices = [index for index in found if index is not None]
    first, second = indices[:num], indices[num : 2 * num]
    assert sorted(first) == sorted(second) == list(range(num))
    assert first != second
    held = data.split("train").num_sequences(T)
    unique = num + min(6 * num_steps, held)
    assert loader.exposure(num_steps) == Exposure(T * unique, max(len(indices) / num, 6 * num_steps / held))


def test_batches_depend_on_seed_and_step_alone(data: TokenData, other: TokenData):
    split = open_data(mixed(data, other, 3, 1)).split("train")
    loader = TokenLoader(split, T, 8, seed=3)
    forward = [loader.batch(step) for step in range(6)]
    for step in (5, 0, 3):
        assert TokenLoader(split, T, 8, seed=3).batch(step).equal(forward[step])
    assert not TokenLoader(split, T, 8, seed=4).batch(0).equal(forward[0])
    halves = [TokenLoader(split, T, 4, seed=3).batch(step) for step in range(12)]
    assert np.concatenate(halves).tolist() == np.concatenate(forward).tolist()


def test_validation_and_frequencies_are_those_of_the_mixture(data: TokenData, other: TokenData):
    mixture = open_data(mixed(data, other, 1, 3))
    assert isinstance(mixture, Mixture)
    split = mixture.split("validation")
    num = split.num_sequences(T)
    held = [source.split("validation").num_sequences(T) for source in (data, other)]
    assert num <= sum(held)
    used = split.interleaving.counts(num)
    more = split.interleaving.counts(num + 1)
    assert all(np.array(used) <= held)
    assert any(np.array(more) > held)
    rows = split.sequences(np.arange(num), T)
    expected = [
        source.split("validation").sequences(np.arange(n), T) for source, n in zip((data, other), used, strict=True)
    ]
    assert sorted(map(bytes, rows)) == sorted(map(bytes, np.concatenate(expected)))
    frequencies = [source.split("train").token_frequencies() for source in (data, other)]
    np.testing.assert_allclose(mixture.split("train").token_frequencies(), frequencies[0] / 4 + frequencies[1] * 3 / 4)
    bytes_per_token = [source.split("validation").bytes_per_token for source in (data, other)]
    assert split.bytes_per_token == pytest.approx(bytes_per_token[0] / 4 + bytes_per_token[1] * 3 / 4)


def test_weights_are_proportions(data: TokenData, other: TokenData):
    first = open_data(mixed(data, other, 0.3, 0.1))
    assert first.fingerprint == open_data(mixed(data, other, 3, 1)).fingerprint
    assert first.fingerprint != open_data(mixed(data, other, 1, 3)).fingerprint
    assert first.split("train").interleaving.shares.tolist() == [3, 1]
    with pytest.raises(ValueError, match=r"weights .* sum .*, more than 1,048,576; round them to fewer digits"):
        open_data(mixed(data, other, 0.123456789, 1))
    assert Fraction("0.3") / Fraction("0.1") == 3


def test_unsuitable_sources(data: TokenData, other: TokenData, corpus: Path, tmp_path: Path):
    stranger = prepare([str(corpus)], tmp_path / "out", tokenizer="bpe:280", validation_fraction=0.25)
    with pytest.raises(
        ValueError, match=r"out was prepared with another tokenizer than .*; prepare it with --tokenizer"
    ):
        open_data(mixed(data, stranger, 1, 1))
    copy = prepare(
        [str(corpus)], tmp_path / "copy", tokenizer=str(data.folder), validation_fraction=0.25, shard_tokens=500
    )
    with pytest.raises(ValueError, match="hold the same tokens; leave one out"):
        open_data(mixed(data, copy, 1, 1))
    for values, message in (
        ({}, r"give either path \(one folder\) or sources"),
        ({"path": "a", "sources": [{"path": "b", "weight": 1}]}, r"give either path \(one folder\) or sources"),
        ({"sources": [{"path": "b", "weight": 1}, {"path": "b", "weight": 2}]}, "sources names b twice"),
        ({"sources": [{"path": "b", "weight": 0}]}, r"sources.0.weight: .*greater than 0"),
        ({"sources": [{"path": "b", "wieght": 1}]}, r"wieght: unknown key \(did you mean 'weight'\?\)"),
        ({"path": "a", "unique_tokens": 0}, r"unique_tokens: .*greater than 0"),
    ):
        with pytest.raises(SpecError, match=message):
            parse_spec(DataSpec, {"sequence_length": T, **values}, "test")


def test_limited_data_is_repeated_in_new_orders(data: TokenData):
    split = data.split("train")
    loader = TokenLoader(split, T, 8, seed=1, unique_tokens=40 * T + 5)
    found = order_of(data, loader, 15)
    epochs = [found[start : start + 40] for start in (0, 40, 80)]
    assert len(set(map(tuple, epochs))) == 3
    assert len({frozenset(epoch) for epoch in epochs}) == 1
    assert len(set(found)) == 40
    smaller = order_of(data, TokenLoader(split, T, 8, seed=1, unique_tokens=8 * T), 1)
    assert set(smaller) < set(found)
    assert set(order_of(data, TokenLoader(split, T, 8, seed=2, unique_tokens=40 * T), 5)) != set(found)
    assert loader.exposure(2) == Exposure(16 * T, 0.4)
    assert loader.exposure(15) == Exposure(40 * T, 3.0)
    whole = TokenLoader(split, T, 8, seed=1)
    held = split.num_sequences(T)
    assert TokenLoader(split, T, 8, seed=1, unique_tokens=held * T).batch(4).equal(whole.batch(4))
    for wanted, message in (
        (T - 1, r"for 0 sequences of 16 tokens, .*; raise it"),
        ((held + 1) * T, "; lower it or prepare more"),
    ):
        with pytest.raises(ValueError, match=message):
            TokenLoader(split, T, 8, seed=1, unique_tokens=wanted)


def test_limited_data_of_a_mixture_keeps_its_proportions(data: TokenData, other: TokenData):
    split = open_data(mixed(data, other, 3, 1)).split("train")
    assert isinstance(split, MixedSplit)
    loader = TokenLoader(split, T, 8, seed=1, unique_tokens=40 * T)
    for source, count in ((data, 30), (other, 10)):
        assert len({index for index in order_of(source, loader, 15) if index is not None}) == count
    assert loader.exposure(15) == Exposure(40 * T, 3.0)


def run(**data) -> RunSpec:
    values = {
        "data": {"sequence_length": T, **data},
        "model": {"num_layers": 1, "width": 16, "num_heads": 2},
        "objective": {"kind": "autoregressive"},
        "batch_sequences": 4,
        "schedule": {"num_steps": 30},
    }
    return parse_spec(RunSpec, values, "test")


def test_fingerprints_tell_what_a_run_sees():
    sources = [{"path": "a", "weight": 1}, {"path": "b", "weight": 2}]
    plain = run(path="a")
    assert (
        plain.fingerprint("content")
        == run(path="b").fingerprint("content")
        == run(sources=sources).fingerprint("content")
    )
    limited = {run(path="a", unique_tokens=tokens).fingerprint("content") for tokens in (None, 160, 320)}
    assert len(limited) == 3
    assert run(sources=sources).data.paths == (Path("a"), Path("b"))
