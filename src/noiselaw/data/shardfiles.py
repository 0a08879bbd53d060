"""The tokens of all parts laid end to end and cut into shards, with checksums and counts made on the way.

A shard is written by one worker from the parts it overlaps, so its bytes depend neither on where parts end nor on who
encoded them. V is the size of the vocabulary.
"""

import hashlib
import io
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np

from noiselaw.data.manifest import FileRecord, ShardRecord, SplitName, SplitRecord, token_dtype
from noiselaw.files import read_json, write_atomically, write_json

COPY_TOKENS = 2**22


@dataclass(frozen=True, slots=True)
class Slice:
    """Tokens [start, start + count) of a file."""

    path: Path
    start: int
    count: int


@dataclass(frozen=True, slots=True)
class ShardJob:
    """Write one shard into `folder`; its record and counts, which come last, go into `records`."""

    folder: Path
    records: Path
    split: SplitName
    number: int
    slices: tuple[Slice, ...]
    vocab_size: int

    @property
    def name(self) -> str:
        return f"{self.split}-{self.number:05d}.bin"

    @property
    def key(self) -> str:
        """What the shard is made of."""
        content = [[piece.path.name, piece.start, piece.count] for piece in self.slices]
        return hashlib.sha256(json.dumps(content).encode()).hexdigest()

    @property
    def counts_path(self) -> Path:
        return self.records / f"{self.name}.counts.npy"

    @property
    def record_path(self) -> Path:
        return self.records / f"{self.name}.json"

    @property
    def num_bytes(self) -> int:
        return sum(piece.count for piece in self.slices) * np.dtype(token_dtype(self.vocab_size)).itemsize

    def record(self) -> ShardRecord | None:
        """The record of the shard where it is finished, made of these very slices."""
        if not self.record_path.exists():
            return None
        found = read_json(self.record_path)
        return ShardRecord(**found["shard"]) if found["key"] == self.key else None


def cut_shards(parts: Sequence[tuple[Path, int]], shard_tokens: int) -> list[tuple[Slice, ...]]:
    """The slices of each shard of at most `shard_tokens` tokens; `parts` are files and their numbers of tokens."""
    shards, slices, room = [], [], shard_tokens
    for path, num_tokens in parts:
        start = 0
        while start < num_tokens:
            count = min(room, num_tokens - start)
            slices.append(Slice(path, start, count))
            start += count
            room -= count
            if room == 0:
                shards.append(tuple(slices))
                slices, room = [], shard_tokens
    return [*shards, *([tuple(slices)] if slices else [])]


def write_shard(job: ShardJob) -> ShardRecord:
    """Do the job, forcing everything to disk before the record says that it is there."""
    counts = np.zeros(job.vocab_size, dtype=np.int64)
    digest = hashlib.sha256()

    def write(stream: BinaryIO) -> None:
        for tokens in _blocks(job):
            stream.write(tokens.data)
            digest.update(tokens.data)
            counts[:] += np.bincount(tokens, minlength=job.vocab_size)

    write_atomically(job.folder / job.name, write)
    write_atomically(job.counts_path, lambda stream: np.save(stream, counts, allow_pickle=False))
    num_tokens = sum(piece.count for piece in job.slices)
    record = ShardRecord(name=job.name, sha256=digest.hexdigest(), num_tokens=num_tokens)
    write_json(job.record_path, {"key": job.key, "shard": record.model_dump(mode="json")})
    return record


def _blocks(job: ShardJob) -> Iterator[np.ndarray]:
    dtype = np.dtype(token_dtype(job.vocab_size))
    for piece in job.slices:
        with piece.path.open("rb") as stream:
            stream.seek(piece.start * dtype.itemsize)
            for done in range(0, piece.count, COPY_TOKENS):
                yield np.fromfile(stream, dtype=dtype, count=min(COPY_TOKENS, piece.count - done))


def finish_split(jobs: Sequence[ShardJob], num_documents: int, num_bytes: int, token_bytes: np.ndarray) -> SplitRecord:
    """The record of a split whose shards are all written; its token counts are added up and written beside them.

    `num_bytes` of 0 is worked out from the counts and `token_bytes` [V], the bytes of each token's text.
    """
    counts = sum((np.load(job.counts_path, allow_pickle=False) for job in jobs), np.zeros_like(token_bytes))
    buffer = io.BytesIO()
    np.save(buffer, counts, allow_pickle=False)
    path = jobs[0].folder / f"{jobs[0].split}.counts.npy"
    write_atomically(path, lambda stream: stream.write(buffer.getvalue()))
    shards = [job.record() for job in jobs]
    return SplitRecord(
        num_tokens=int(counts.sum()),
        num_documents=num_documents,
        num_bytes=num_bytes or int(counts @ token_bytes),
        counts=FileRecord(name=path.name, sha256=hashlib.sha256(buffer.getvalue()).hexdigest()),
        shards=tuple(shard for shard in shards if shard is not None),
    )
