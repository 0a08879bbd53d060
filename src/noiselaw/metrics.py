"""The record of a run: one table, JSON lines, appended as training goes and cut back when it resumes.

Rows have a `kind`. `train` (one per step) and `validation` rows depend on the spec and the machine's arithmetic only,
so a resumed run repeats them bit by bit; `speed` rows carry what depends on the clock.
"""

import json
import mmap
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from noiselaw.files import unwritable, write_text

Row = dict[str, Any]
"""One line of the table; its first key is `kind`."""
KINDS = ("train", "validation", "speed")


def read_rows(path: Path, kind: str | None = None) -> list[Row]:
    """Whole rows of a metrics file, in order; a last line cut short by a kill is left out.

    Raises ValueError naming the file where a row before it is damaged.
    """
    if not path.exists():
        return []
    lines = path.read_bytes().split(b"\n")[:-1]
    rows = [_parse_row(path, line) for line in lines if line]
    return rows if kind is None else [row for row in rows if row["kind"] == kind]


def read_latest(path: Path) -> dict[str, Row]:
    """The last whole row of each kind, found from the end: for looking at a run while it trains. Raises as above."""
    if not path.exists() or not path.stat().st_size:
        return {}
    latest = {}
    with path.open("rb") as stream, mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ) as content:
        end = content.rfind(b"\n") + 1
        for kind in KINDS:
            start = content.rfind(_row_start(kind), 0, end)
            if start >= 0:
                latest[kind] = _parse_row(path, content[start : content.find(b"\n", start)])
    return latest


def _parse_row(path: Path, line: bytes) -> Row:
    """One line of the table. Raises ValueError naming the file where it is none."""
    try:
        row = json.loads(line)
        fault = None if isinstance(row, dict) and row["kind"] in KINDS and row["step"] >= 0 else "no row of metrics"
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        row, fault = {}, f"{type(error).__name__}: {error}"
    if fault:
        raise ValueError(f"{path}: damaged ({fault}); restore the file, or move its run's folder away and train again")
    return row


def _row_start(kind: str) -> bytes:
    return json.dumps({"kind": kind}).encode().rstrip(b"}")


class MetricsLog:
    """Appends rows to `metrics.jsonl` of a run folder."""

    def __init__(self, path: Path, resume_step: int) -> None:
        """Open the table, keeping only rows up to `resume_step`: later ones will be written again."""
        kept = [row for row in read_rows(path) if row["step"] <= resume_step]
        write_text(path, "".join(json.dumps(row) + "\n" for row in kept))
        self._path = path
        self._stream = path.open("a", encoding="utf-8")

    def append(self, rows: list[Row]) -> None:
        """Write rows through to the operating system. NaN and infinity are refused: they are not JSON."""
        text = "".join(json.dumps(row, allow_nan=False) + "\n" for row in rows)
        with self._named_errors():
            self._stream.write(text)
            self._stream.flush()

    def sync(self) -> None:
        """Force all rows to disk: called before a checkpoint that relies on them."""
        with self._named_errors():
            os.fsync(self._stream.fileno())

    def close(self) -> None:
        with self._named_errors():
            self._stream.close()

    @contextmanager
    def _named_errors(self) -> Iterator[None]:
        """A full disk is reported with the file it struck."""
        try:
            yield
        except OSError as error:
            raise unwritable(self._path, error) from error


def read_kind(path: Path, kind: str) -> list[Row]:
    """The whole rows of one kind, found without parsing the others: for tables of thousands of runs.

    Raises ValueError naming the file where one of them is damaged; damage in rows of other kinds shows in `read_rows`.
    """
    if not path.exists() or not path.stat().st_size:
        return []
    lines, opening = [], _row_start(kind)
    with path.open("rb") as stream, mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ) as content:
        end = content.rfind(b"\n") + 1
        start = 0 if content[: min(end, len(opening))] == opening else content.find(b"\n" + opening, 0, end) + 1 or end
        while start < end:
            stop = content.find(b"\n", start)
            lines.append(content[start:stop])
            start = content.find(b"\n" + opening, stop, end) + 1 or end
    try:
        return [json.loads(line) for line in lines]
    except ValueError as error:
        raise ValueError(
            f"{path}: damaged ({error}); restore the file, or move its run's folder away and train again"
        ) from error
