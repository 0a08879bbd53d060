"""Files and stretches of files to documents: text files, JSON lines, Parquet with text, Parquet with token ids.

Text is read, never run. A reader holds one document or one batch of rows, not a file.
"""

import io
import json
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, BinaryIO

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from noiselaw.data.sources import JSON_SUFFIXES, PARQUET_SUFFIX, SourceFile, damaged, opened

READ_BYTES = 2**20
BATCH_ROWS = 256


@dataclass(frozen=True, slots=True)
class Piece:
    """A stretch of a file that can be read by itself."""

    file: SourceFile
    size: int
    """Bytes of the file, for progress."""
    start: int = 0
    """First byte, of Parquet first row group."""
    stop: int | None = None
    """One after the last; None reads to the end."""


@dataclass(frozen=True, slots=True)
class Place:
    """Where a document stands; counted only when somebody asks, because that takes reading the file up to it."""

    file: SourceFile
    number: int | None = None
    """Of the row; of the first line or document where there are marks; None where the file is the document."""
    mark: bytes = b""
    """What ends each line or document."""
    start: int = 0
    """The document's first byte, decompressed, where there are marks."""

    def __str__(self) -> str:
        if self.number is None:
            return self.file.address
        return f"{self.file.address}:{self.number + self._marks_before()}"

    def _marks_before(self) -> int:
        if not self.mark:
            return 0
        count, rest, left = 0, b"", self.start
        with _content(self.file) as stream:
            while left > 0 and (block := stream.read(min(left, READ_BYTES))):
                left -= len(block)
                *ended, rest = (rest + block).split(self.mark)
                count += len(ended)
        return count


@dataclass(frozen=True, slots=True)
class Document:
    place: Place
    text: str = ""
    """Empty for a file without UTF-8 text."""
    tokens: np.ndarray | None = None
    """Token ids uint32 [length], where the source holds these in place of text."""


@dataclass(frozen=True, slots=True)
class ReadOptions:
    text_column: str = "text"
    """Parquet column or JSON key that holds the text."""
    separator: str | None = None
    """Text files are cut into documents wherever this occurs; None makes each file one document."""
    tokens_column: str | None = None
    """Parquet column that holds lists of token ids; None where the sources are text."""
    vocab_size: int = 0
    """Token ids must lie below; only read with `tokens_column`."""


def read_documents(pieces: Iterable[Piece], options: ReadOptions) -> Iterator[Document]:
    """Every document of `pieces`, in order.

    Raises:
        ValueError: a file that is damaged or lacks the column; the message names file, place and remedy.
    """
    for piece in pieces:
        yield from _reader(piece.file, options)(piece, options)


Reader = Callable[[Piece, ReadOptions], Iterator[Document]]


def _reader(file: SourceFile, options: ReadOptions) -> Reader:
    if options.tokens_column is not None:
        return _read_tokens
    if file.format_suffix == PARQUET_SUFFIX:
        return _read_parquet
    return _read_json_lines if file.format_suffix in JSON_SUFFIXES else _read_text


@contextmanager
def _content(file: SourceFile) -> Iterator[BinaryIO]:
    """The file's bytes, decompressed. Raises ValueError where they cannot be read."""
    with opened(file) as raw:
        if file.codec is None:
            yield io.BufferedReader(raw, READ_BYTES) if file.is_remote else raw  # pyright: ignore[reportArgumentType]
        else:
            # pyarrow, because zstandard's reader takes a truncated file for a complete one.
            stream = pa.CompressedInputStream(pa.PythonFile(raw, mode="r"), file.codec)
            yield io.BufferedReader(stream)  # pyright: ignore[reportArgumentType]


def _read_text(piece: Piece, options: ReadOptions) -> Iterator[Document]:
    with _content(piece.file) as stream:
        if options.separator is None:
            text = _decoded(stream.read(), Place(piece.file))
            yield Document(Place(piece.file), text if piece.file.strict or "\0" not in text else "")
            return
        mark = options.separator.encode()
        for begin, content in _cut(stream, piece, mark):
            place = Place(piece.file, 0, mark, begin)
            yield Document(place, _decoded(content, place))


def _cut(stream: BinaryIO, piece: Piece, mark: bytes) -> Iterator[tuple[int, bytes]]:
    """First byte and content of each document between marks that begins in the piece, read a block at a time."""
    # A document begins where the file does or a mark ends: the first of a later piece may follow a mark just before it.
    begin = max(0, piece.start - len(mark))
    if begin:
        stream.seek(begin)
    is_document, rest = piece.start == 0, b""
    while block := stream.read(READ_BYTES):
        *documents, rest = (rest + block).split(mark)
        for document in documents:
            if piece.stop is not None and begin >= piece.stop:
                return
            if is_document:
                yield begin, document
            is_document = True
            begin += len(document) + len(mark)
    if is_document and (piece.stop is None or begin < piece.stop):
        yield begin, rest


def _decoded(content: bytes, place: Place) -> str:
    try:
        return content.decode()
    except UnicodeDecodeError as error:
        if place.file.strict:
            raise ValueError(f"{place}: not UTF-8 text ({error}); convert it or leave it out") from None
        return ""


def _read_json_lines(piece: Piece, options: ReadOptions) -> Iterator[Document]:
    with _content(piece.file) as stream:
        position = piece.start
        if position:
            # The line that began before the piece belongs to the piece before.
            stream.seek(position - 1)
            position += len(stream.readline()) - 1
        for line in stream:
            if piece.stop is not None and position >= piece.stop:
                return
            place = Place(piece.file, 1, b"\n", position)
            position += len(line)
            if line.strip():
                yield Document(place, _json_text(line, place, options.text_column))


def _json_text(line: bytes, place: Place, key: str) -> str:
    try:
        record = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{place}: not JSON ({error}); expected one JSON object per line") from None
    if not isinstance(record, dict):
        raise ValueError(  # noqa: TRY004 (a fault of the data, not of the program)
            f"{place}: a JSON {type(record).__name__}; expected one JSON object per line"
        )
    if key not in record:
        raise ValueError(f"{place}: no key {key!r}; keys there: {', '.join(record)}; choose one with --text-column")
    return _checked_text(record[key], place, key)


def _read_parquet(piece: Piece, options: ReadOptions) -> Iterator[Document]:
    for row, column in _columns(piece, options.text_column, "--text-column"):
        for number, value in enumerate(column.to_pylist(), start=row):
            place = Place(piece.file, number)
            yield Document(place, _checked_text(value, place, options.text_column))


def _columns(piece: Piece, name: str, option: str) -> Iterator[tuple[int, pa.Array]]:
    """The column's values a batch of rows at a time, each with the number of its first row in the file."""
    address = piece.file.address
    try:
        with opened(piece.file) as stream, pq.ParquetFile(stream, buffer_size=READ_BYTES) as table:
            names = table.schema_arrow.names
            if name not in names:
                raise ValueError(
                    f"{address}: no column {name!r}; columns there: {', '.join(names)}; choose one with {option}"
                )
            groups = range(table.num_row_groups)[piece.start : piece.stop]
            row = sum(table.metadata.row_group(group).num_rows for group in range(piece.start))
            for batch in table.iter_batches(batch_size=BATCH_ROWS, row_groups=groups, columns=[name]):
                yield row, batch.column(0)
                row += batch.num_rows
    except (pa.ArrowException, OSError) as error:
        raise damaged(address, error) from None


def _read_tokens(piece: Piece, options: ReadOptions) -> Iterator[Document]:
    """Documents of a column of lists of token ids; a missing list is a document without text."""
    assert options.tokens_column is not None
    for row, column in _columns(piece, options.tokens_column, "--tokens-column"):
        if not _holds_token_lists(column.type):
            raise ValueError(
                f"{piece.file.address}: column {options.tokens_column!r} holds {column.type}, not lists of whole "
                f"numbers; choose another with --tokens-column"
            )
        lengths = pc.call_function("list_value_length", [column]).fill_null(0).to_numpy(zero_copy_only=False)
        ends = np.cumsum(lengths)
        values = pc.call_function("list_flatten", [column])
        fault = _first_fault(values, options.vocab_size)
        if fault is not None:
            place = Place(piece.file, row + int(np.searchsorted(ends, fault, side="right")))
            raise ValueError(
                f"{place}: {options.tokens_column!r} holds token {values[fault].as_py()}, but the tokenizer's "
                f"vocabulary ends at {options.vocab_size - 1}; give the tokenizer these tokens were made with"
            )
        ids = values.to_numpy(zero_copy_only=False).astype(np.uint32)
        for number, (end, length) in enumerate(zip(ends.tolist(), lengths.tolist(), strict=True), start=row):
            yield Document(Place(piece.file, number), tokens=ids[end - length : end])


def _holds_token_lists(kind: pa.DataType) -> bool:
    is_list = pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind)
    return is_list and pa.types.is_integer(kind.value_type)


def _first_fault(values: pa.Array, vocab_size: int) -> int | None:
    """Index of the first value that is missing, negative or not below `vocab_size`."""
    if len(values) == 0:
        return None
    if values.null_count == 0:
        ids = values.to_numpy(zero_copy_only=False)
        if ids.min() >= 0 and ids.max() < vocab_size:
            return None
    return next(n for n, value in enumerate(values.to_pylist()) if value is None or not 0 <= value < vocab_size)


def _checked_text(value: Any, place: Place, column: str) -> str:
    if value is None:
        return ""
    if not isinstance(value, str):
        raise ValueError(  # noqa: TRY004 (a fault of the data, not of the program)
            f"{place}: {column!r} holds {type(value).__name__}, not text; choose another with --text-column"
        )
    return value if _is_unicode(value) else ""


def _is_unicode(text: str) -> bool:
    """False for half a surrogate pair, which JSON can spell and UTF-8 cannot."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True
