"""Source files cut into parts: what one worker encodes at a time. The same files give the same parts on any machine.

Big files are cut where documents cannot be torn: Parquet at row groups, JSON lines and separated text at bytes (whoever
reads from there looks for the next beginning). Compressed files, and text whose separator may overlap itself, stay
whole. Small files share a part. Nothing that is written depends on where parts end.
"""

import hashlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass

import pyarrow as pa
import pyarrow.parquet as pq

from noiselaw.data.readers import Piece, ReadOptions
from noiselaw.data.sources import JSON_SUFFIXES, PARQUET_SUFFIX, SourceFile, damaged, opened

LEAST_PART_BYTES = 2**22
MOST_PART_BYTES = 2**28
MOST_PARTS = 4096
"""Parts are as small as this number of them allows, between the two bounds."""


@dataclass(frozen=True, slots=True)
class Part:
    """Stretches of files that one worker encodes, in order."""

    pieces: tuple[Piece, ...]

    @property
    def size(self) -> int:
        """Bytes of the source files."""
        return sum(piece.size for piece in self.pieces)

    def key(self, *settings: object) -> str:
        """A name for this part read and encoded with these settings: another one when anything differs."""
        content = json.dumps([asdict(self), *settings], sort_keys=True)
        return hashlib.sha256(content.encode()).hexdigest()[:32]


def cut_parts(files: Sequence[SourceFile], options: ReadOptions) -> list[Part]:
    """The parts of `files`, in order.

    Raises ValueError for a Parquet file that is damaged.
    """
    total = sum(file.size for file in files)
    part_bytes = min(max(total // MOST_PARTS, LEAST_PART_BYTES), MOST_PART_BYTES)
    parts, pieces, size = [], [], 0
    for piece in (piece for file in files for piece in _pieces(file, options, part_bytes)):
        pieces.append(piece)
        size += piece.size
        if size >= part_bytes:
            parts.append(Part(tuple(pieces)))
            pieces, size = [], 0
    return [*parts, *([Part(tuple(pieces))] if pieces else [])]


def _pieces(file: SourceFile, options: ReadOptions, part_bytes: int) -> Iterator[Piece]:
    cuts = _cuts(file, options, part_bytes) if file.size > part_bytes else [(0, 0)]
    ends = [*cuts[1:], (None, file.size)]
    for (start, bytes_before), (stop, bytes_then) in zip(cuts, ends, strict=True):
        yield Piece(file, bytes_then - bytes_before, start, stop)


def _cuts(file: SourceFile, options: ReadOptions, part_bytes: int) -> list[tuple[int, int]]:
    """Where pieces start, and about how many bytes of the file lie before."""
    if file.format_suffix == PARQUET_SUFFIX:
        return _row_group_cuts(file, part_bytes)
    is_separated = options.separator is not None and not _may_overlap_itself(options.separator)
    if file.codec is None and (file.format_suffix in JSON_SUFFIXES or is_separated):
        return [(start, start) for start in range(0, file.size, part_bytes)]
    return [(0, 0)]


def _row_group_cuts(file: SourceFile, part_bytes: int) -> list[tuple[int, int]]:
    try:
        with opened(file) as stream, pq.ParquetFile(stream) as table:
            sizes = [table.metadata.row_group(group).total_byte_size for group in range(table.num_row_groups)]
    except (pa.ArrowException, OSError) as error:
        raise damaged(file.address, error) from None
    cuts, done, scale = [(0, 0)], 0, file.size / max(1, sum(sizes))
    for group, size in enumerate(sizes):
        if (done * scale) - cuts[-1][1] >= part_bytes:
            cuts.append((group, int(done * scale)))
        done += size
    return cuts


def _may_overlap_itself(separator: str) -> bool:
    """Whether it begins as it ends: then where it occurs depends on where one starts to look."""
    return any(separator.startswith(separator[start:]) for start in range(1, len(separator)))
