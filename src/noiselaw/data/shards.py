"""Reading prepared tokens: memory-mapped, checked against their manifest.

Shapes: B sequences, T tokens per sequence, V vocabulary. Sequence i is tokens [i*T, (i+1)*T) of the split's documents
laid end to end.
"""

import hashlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from noiselaw.data.interleaving import OneSource
from noiselaw.data.manifest import (
    TOKENIZER_NAME,
    FileRecord,
    Manifest,
    ShardRecord,
    SplitName,
    SplitRecord,
    read_manifest,
)

CHECK_TOKENS = 2**22
VERIFIED_BYTES = 2**32
"""A folder of at most this size is read whole each time it is opened: seconds, and no altered bit goes unnoticed."""
REMEDY = "restore the file or prepare the data again"


@dataclass(frozen=True, slots=True)
class Split(OneSource):
    """The training or the validation documents."""

    name: SplitName
    folder: Path
    record: SplitRecord
    mask_id: int
    vocab_size: int
    shards: tuple[np.ndarray, ...]
    """Memory-mapped tokens of each file."""
    shard_starts: np.ndarray
    """Position of each shard's first token in the split, int64."""

    @property
    def num_tokens(self) -> int:
        return self.record.num_tokens

    @property
    def num_documents(self) -> int:
        return self.record.num_documents

    @property
    def num_bytes(self) -> int:
        """UTF-8 bytes of the text."""
        return self.record.num_bytes

    @property
    def bytes_per_token(self) -> float:
        return self.num_bytes / self.num_tokens

    def num_sequences(self, sequence_length: int) -> int:
        """Whole sequences of `sequence_length` tokens. Raises ValueError where there is not even one."""
        if self.num_tokens < sequence_length:
            raise ValueError(
                f"{self.folder}: the {self.name} split holds {self.num_tokens:,} tokens, fewer than one sequence of "
                f"{sequence_length:,}; prepare more text or shorten the sequences"
            )
        return self.num_tokens // sequence_length

    def sequences(self, indices: np.ndarray, sequence_length: int) -> np.ndarray:
        """Tokens int64 [B, T] of the sequences with these indices [B]; a sequence may span shards.

        Raises ValueError for a token outside the vocabulary.
        """
        starts = np.asarray(indices, dtype=np.int64) * sequence_length
        inside = starts.size == 0 or (starts.min() >= 0 and starts.max() + sequence_length <= self.num_tokens)
        assert inside, "index outside split"
        first, last = (
            np.searchsorted(self.shard_starts, ends, side="right") - 1
            for ends in (starts, starts + sequence_length - 1)
        )
        tokens = np.empty((starts.size, sequence_length), dtype=np.int64)
        offsets = np.arange(sequence_length)
        for shard in np.unique(first):
            whole = (first == shard) & (last == shard)
            tokens[whole] = self.shards[shard][(starts[whole] - self.shard_starts[shard])[:, None] + offsets]
        for row in np.flatnonzero(first != last):
            tokens[row] = self._across_shards(int(starts[row]), sequence_length)
        if tokens.size and tokens.max() >= self.vocab_size:
            self._refuse(tokens, starts)
        return tokens

    def _refuse(self, tokens: np.ndarray, starts: np.ndarray) -> None:
        """Raises ValueError that names the first token of `tokens` [B, T] outside the vocabulary."""
        row, column = np.argwhere(tokens >= self.vocab_size)[0]
        position = int(starts[row] + column)
        shard = int(np.searchsorted(self.shard_starts, position, side="right")) - 1
        raise ValueError(
            f"{self.folder / self.record.shards[shard].name}: holds token {tokens[row, column]} at position "
            f"{position - int(self.shard_starts[shard]):,} but the vocabulary ends at {self.vocab_size - 1}; {REMEDY}"
        )

    def _across_shards(self, start: int, length: int) -> np.ndarray:
        """Tokens [length] from position `start` on, from as many shards as they span."""
        pieces, position = [], start
        while position < start + length:
            shard = int(np.searchsorted(self.shard_starts, position, side="right")) - 1
            offset = position - int(self.shard_starts[shard])
            pieces.append(self.shards[shard][offset : offset + start + length - position])
            position += len(pieces[-1])
        return np.concatenate(pieces)

    def token_frequencies(self) -> np.ndarray:
        """Share of each token, float64 [V]: (count + 1) / sum over all tokens but the mask, which has 0."""
        weights = read_array(self.folder / self.record.counts.name, self.mask_id + 1).astype(np.float64) + 1.0
        weights[self.mask_id] = 0.0
        return weights / weights.sum()


@dataclass(frozen=True, slots=True)
class TokenData:
    """A folder written by `noiselaw data prepare`."""

    folder: Path
    manifest: Manifest
    splits: dict[SplitName, Split]

    @property
    def vocab_size(self) -> int:
        """All ids, mask included (V)."""
        return self.manifest.vocab_size

    @property
    def mask_id(self) -> int:
        return self.manifest.mask_id

    @property
    def end_of_text_id(self) -> int:
        return self.manifest.end_of_text_id

    @property
    def empty_id(self) -> int:
        return self.manifest.empty_id

    @property
    def fingerprint(self) -> str:
        """Hash of the content: tokens, vocabulary, split; not of the folder's place or the source's name."""
        return self.manifest.fingerprint

    @property
    def tokenizer_path(self) -> Path:
        return self.folder / TOKENIZER_NAME

    def split(self, name: SplitName) -> Split:
        return self.splits[name]


def open_tokens(folder: Path, verify: bool | None = None) -> TokenData:
    """Open a prepared folder. Sizes and the small files are always checked, and token ids as batches are read.

    `verify` also reads every shard once and compares checksums and token ids; by default where that takes seconds
    (VERIFIED_BYTES), and not for a corpus of hours: `noiselaw data inspect` does it there.

    Raises:
        ValueError: not a prepared folder, a manifest of another format, a file missing, truncated or altered, or a
            token outside the vocabulary.
    """
    manifest = read_manifest(folder)
    if verify is None:
        num_tokens = sum(record.num_tokens for record in manifest.splits.values())
        verify = num_tokens * np.dtype(manifest.dtype).itemsize <= VERIFIED_BYTES
    _check_sum(folder, manifest.tokenizer)
    splits: dict[SplitName, Split] = {name: _open_split(folder, manifest, name, verify) for name in manifest.splits}
    return TokenData(folder, manifest, splits)


def _open_split(folder: Path, manifest: Manifest, name: SplitName, verify: bool) -> Split:
    record = manifest.splits[name]
    _check_sum(folder, record.counts)
    shards = tuple(_open_shard(folder, shard, manifest, verify) for shard in record.shards)
    lengths = np.array([len(shard) for shard in shards], dtype=np.int64)
    starts = np.cumsum(lengths) - lengths
    return Split(name, folder, record, manifest.mask_id, manifest.vocab_size, shards, starts)


def _open_shard(folder: Path, record: ShardRecord, manifest: Manifest, verify: bool) -> np.ndarray:
    path = _existing(folder, record)
    dtype = np.dtype(manifest.dtype)
    expected, size = record.num_tokens * dtype.itemsize, path.stat().st_size
    if size != expected:
        word = "truncated" if size < expected else "too long"
        raise ValueError(f"{path}: {word}, {size:,} bytes instead of {expected:,}; {REMEDY}")
    tokens = np.memmap(path, dtype=dtype, mode="r")
    if verify:
        _check_tokens(path, tokens, record, manifest.vocab_size)
    return tokens


def _check_tokens(path: Path, tokens: np.ndarray, record: ShardRecord, vocab_size: int) -> None:
    digest, largest = hashlib.sha256(), 0
    for start in range(0, len(tokens), CHECK_TOKENS):
        block = np.ascontiguousarray(tokens[start : start + CHECK_TOKENS])
        digest.update(block.data)
        largest = max(largest, int(block.max()))
    if digest.hexdigest() != record.sha256:
        raise ValueError(f"{path}: altered since it was prepared (checksum differs); {REMEDY}")
    if largest >= vocab_size:
        raise ValueError(f"{path}: holds token {largest} but the vocabulary ends at {vocab_size - 1}; {REMEDY}")


def read_array(path: Path, min_length: int = 1) -> np.ndarray:
    """A list of at least `min_length` numbers in a .npy file. Raises ValueError naming the file where it is none."""
    try:
        values = np.load(path, mmap_mode="r", allow_pickle=False)
    except (ValueError, EOFError, OSError, OverflowError, SyntaxError) as error:
        raise ValueError(f"{path}: damaged ({error}); {REMEDY}") from error
    if not isinstance(values, np.ndarray) or values.ndim != 1 or values.dtype.kind not in "iuf":
        raise ValueError(f"{path}: damaged (no list of numbers); {REMEDY}")
    if len(values) < min_length:
        raise ValueError(f"{path}: damaged ({len(values)} numbers, at least {min_length} expected); {REMEDY}")
    return np.array(values)


def _check_sum(folder: Path, record: FileRecord) -> None:
    path = _existing(folder, record)
    with path.open("rb") as stream:
        if hashlib.file_digest(stream, "sha256").hexdigest() != record.sha256:
            raise ValueError(f"{path}: altered since it was prepared (checksum differs); {REMEDY}")


def _existing(folder: Path, record: FileRecord) -> Path:
    path = folder / record.name
    if not path.is_file():
        raise ValueError(f"{path}: missing; {REMEDY}")
    return path
