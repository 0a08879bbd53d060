"""Prepared tokens: sequences are exact, and every kind of damage is one clear error."""

import hashlib
import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from noiselaw.cli.data import inspect
from noiselaw.data.loader import TokenLoader
from noiselaw.data.manifest import MANIFEST_NAME, token_dtype
from noiselaw.data.order import Order, batch_positions
from noiselaw.data.shards import TokenData, open_tokens


def all_tokens(data: TokenData, name: str) -> np.ndarray:
    files = sorted(data.folder.glob(f"{name}-*.bin"))
    return np.concatenate([np.fromfile(file, dtype="<u2") for file in files]).astype(np.int64)


def test_sequences_span_shards(data: TokenData):
    split = data.split("train")
    assert len(split.shards) > 3
    assert all(isinstance(shard, np.memmap) for shard in split.shards)
    tokens = all_tokens(data, "train")
    assert split.num_tokens == len(tokens)
    for length in (2, 7, 128, 1300):
        num = split.num_sequences(length)
        assert num == len(tokens) // length
        indices = np.random.default_rng(0).permutation(num)
        expected = tokens[: num * length].reshape(num, length)[indices]
        found = split.sequences(indices, length)
        assert found.dtype == np.int64
        np.testing.assert_array_equal(found, expected)


def test_sequences_outside_the_split(data: TokenData):
    split = data.split("train")
    for index in (-1, split.num_sequences(16)):
        with pytest.raises(AssertionError):
            split.sequences(np.array([index]), 16)


def test_token_frequencies_add_one_and_leave_out_the_mask(data: TokenData):
    frequencies = data.split("train").token_frequencies()
    weights = np.bincount(all_tokens(data, "train"), minlength=300) + 1.0
    weights[data.mask_id] = 0
    np.testing.assert_allclose(frequencies, weights / weights.sum(), rtol=1e-15)
    assert frequencies.dtype == np.float64
    assert frequencies[data.mask_id] == 0
    assert frequencies[data.empty_id] > 0


def test_split_shorter_than_one_sequence(data: TokenData):
    split = data.split("validation")
    message = (
        r"validation split holds [\d,]+ tokens, fewer than one sequence of 1,000,000; prepare more text or shorten"
    )
    with pytest.raises(ValueError, match=message):
        split.num_sequences(1_000_000)
    with pytest.raises(ValueError, match=message):
        TokenLoader(split, 1_000_000, 1, seed=0)


def test_loader_is_a_pure_function_of_seed_and_step(data: TokenData):
    split = data.split("train")
    loader = TokenLoader(split, 16, 8, seed=5)
    batch = loader.batch(3)
    num_sequences = split.num_sequences(16)
    indices = Order("5", num_sequences, num_sequences).indices(batch_positions(3, 8))
    np.testing.assert_array_equal(batch.numpy(), split.sequences(indices, 16))
    loader.batch(0)
    assert loader.batch(3).equal(batch)
    assert not loader.batch(4).equal(batch)
    assert not TokenLoader(split, 16, 8, seed=6).batch(3).equal(batch)


def test_storage_type():
    assert [token_dtype(size) for size in (300, 65_536, 65_537)] == ["<u2", "<u2", "<u4"]


@pytest.fixture
def copy(data: TokenData, tmp_path: Path) -> Path:
    return Path(shutil.copytree(data.folder, tmp_path / "copy"))


def test_fingerprint_is_the_content(data: TokenData, copy: Path):
    edit_manifest(copy, lambda manifest: manifest.update(noiselaw_version="0.0.0"))
    assert open_tokens(copy).fingerprint == data.fingerprint
    edit_manifest(copy, lambda manifest: manifest.update(mask_id=5))
    assert open_tokens(copy).fingerprint != data.fingerprint


def edit_manifest(folder: Path, change: Callable[[dict], object]) -> None:
    path = folder / MANIFEST_NAME
    manifest = json.loads(path.read_text())
    change(manifest)
    path.write_text(json.dumps(manifest))


def truncate(folder: Path) -> None:
    path = folder / "train-00001.bin"
    path.write_bytes(path.read_bytes()[:-2])


def lengthen(folder: Path) -> None:
    path = folder / "train-00001.bin"
    path.write_bytes(path.read_bytes() + b"\0\0")


def alter(folder: Path, name: str = "train-00001.bin") -> None:
    content = bytearray((folder / name).read_bytes())
    content[-2] ^= 1
    (folder / name).write_bytes(content)


def token_outside(folder: Path) -> None:
    path = folder / "train-00001.bin"
    tokens = np.fromfile(path, dtype="<u2")
    tokens[17] = 300
    path.write_bytes(tokens.tobytes())
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    edit_manifest(folder, lambda manifest: manifest["splits"]["train"]["shards"][1].update(sha256=digest))


DAMAGE = {
    "truncated shard": (truncate, "train-00001.bin: truncated, 998 bytes instead of 1,000; restore the file"),
    "lengthened shard": (lengthen, "train-00001.bin: too long, 1,002 bytes instead of 1,000; restore the file"),
    "altered shard": (alter, "train-00001.bin: altered since it was prepared"),
    "altered counts": (lambda folder: alter(folder, "train.counts.npy"), "train.counts.npy: altered"),
    "altered tokenizer": (lambda folder: alter(folder, "tokenizer.json"), "tokenizer.json: altered"),
    "token outside the vocabulary": (token_outside, "holds token 300 but the vocabulary ends at 299; restore"),
    "missing shard": (lambda folder: (folder / "train-00001.bin").unlink(), "train-00001.bin: missing; restore"),
    "missing tokenizer": (lambda folder: (folder / "tokenizer.json").unlink(), "tokenizer.json: missing; restore"),
    "missing manifest": (lambda folder: (folder / MANIFEST_NAME).unlink(), "no prepared data here"),
    "damaged manifest": (lambda folder: truncate_text(folder / MANIFEST_NAME), "damaged or not JSON"),
    "another format": (
        lambda folder: edit_manifest(folder, lambda manifest: manifest.update(format="noiselaw-tokens-9")),
        "format is 'noiselaw-tokens-9', this version of noiselaw reads 'noiselaw-tokens-1'; prepare the data again",
    ),
    "unknown key": (lambda folder: edit_manifest(folder, lambda m: m.update(extra=1)), "extra: unknown key"),
    "mask outside the vocabulary": (
        lambda folder: edit_manifest(folder, lambda manifest: manifest.update(mask_id=300)),
        "mask_id 300 is outside the vocabulary of 300",
    ),
    "counts that do not add up": (
        lambda folder: edit_manifest(folder, lambda manifest: manifest["splits"]["train"].update(num_tokens=1)),
        "num_tokens is 1 but the shards hold",
    ),
    "file outside the folder": (
        lambda folder: edit_manifest(
            folder, lambda manifest: manifest["splits"]["train"]["shards"][0].update(name="../train-00000.bin")
        ),
        "plain file name inside the folder",
    ),
    "split missing": (
        lambda folder: edit_manifest(folder, lambda manifest: manifest["splits"].pop("validation")),
        "must be train and validation",
    ),
}


def truncate_text(path: Path) -> None:
    path.write_text(path.read_text()[:-20])


@pytest.mark.parametrize("name", DAMAGE)
def test_damage_is_one_clear_error(name: str, copy: Path):
    damage, message = DAMAGE[name]
    damage(copy)
    with pytest.raises(ValueError, match=message):
        open_tokens(copy)


def test_sizes_are_checked_even_without_verification(copy: Path):
    alter(copy)
    open_tokens(copy, verify=False)
    truncate(copy)
    with pytest.raises(ValueError, match="truncated"):
        open_tokens(copy, verify=False)


def test_a_corpus_of_hours_is_not_read_whole_when_it_is_opened(copy: Path, monkeypatch: pytest.MonkeyPatch, capsys):
    """Sizes and small files still are checked, ids as batches are read, and `data inspect` reads everything."""
    monkeypatch.setattr("noiselaw.data.shards.VERIFIED_BYTES", 10)
    alter(copy)
    open_tokens(copy)
    with pytest.raises(ValueError, match=r"train-00001.bin: altered since it was prepared"):
        inspect(copy)
    token_outside(copy)
    split = open_tokens(copy).split("train")
    length = 20
    split.sequences(np.array([0, 30]), length)
    with pytest.raises(
        ValueError, match=r"train-00001.bin: holds token 300 at position 17 but the vocabulary ends at 299"
    ):
        split.sequences(np.array([30, 25, 0]), length)  # sequence 25 is tokens 500 to 519
    alter(copy, "tokenizer.json")
    with pytest.raises(ValueError, match=r"tokenizer.json: altered"):
        open_tokens(copy)
