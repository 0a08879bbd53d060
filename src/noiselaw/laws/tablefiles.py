"""Columns out of files, as they stand there: CSV, JSON lines or JSON, Parquet."""

import csv
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

Raw = dict[str, list[Any]]
"""Values by column: text from CSV, anything from JSON and Parquet, None where there is nothing."""

DELIMITERS = ",;\t|"


def read_columns(path: Path) -> Raw:
    """All columns of a file; without a known ending it is taken for CSV.

    Raises ValueError naming the file and the line for anything that is no table, OSError where it cannot be read.
    """
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such file")
    columns = READERS.get(path.suffix.lower(), _read_csv)(path)
    if not columns or not next(iter(columns.values())):
        raise ValueError(f"{path}: no rows; a table needs a header and at least one run")
    return columns


def _read_csv(path: Path) -> Raw:
    with path.open(encoding="utf-8-sig", newline="") as stream:
        try:
            lines = [line for line in stream if not line.startswith("#")]
            rows = list(csv.reader(lines, delimiter=_delimiter(lines), skipinitialspace=True))
        except (UnicodeDecodeError, csv.Error) as error:
            raise ValueError(
                f"{path}: not a CSV file in UTF-8 ({error}); save it as such, or as .jsonl, .json or .parquet"
            ) from None
    rows = [[cell.strip() for cell in row] for row in rows]
    rows = [row for row in rows if any(row)]
    if not rows:
        return {}
    # Spreadsheets leave columns without a name, such as row numbers, and empty fields at the ends of rows.
    header = rows[0]
    for number, row in enumerate(rows[1:], start=1):
        if any(row[len(header) :]):
            raise ValueError(f"{path}, row {number}: {len(row)} fields under {len(header)} columns; correct the row")
    twice = {name for name in header if name and header.count(name) > 1}
    if twice:
        raise ValueError(f"{path}: column {min(twice)!r} appears twice; rename one of them")
    columns = [index for index, name in enumerate(header) if name]
    return {header[index]: [row[index] if index < len(row) else None for row in rows[1:]] for index in columns}


def _delimiter(lines: Sequence[str]) -> str:
    """Of the first line with anything in it; a space where there is none of the usual ones."""
    first = next((line for line in lines if line.strip()), "")
    best = max(DELIMITERS, key=first.count)
    return best if best in first or " " not in first.strip() else " "


def _read_json(path: Path) -> Raw:
    """A list of objects, an object of columns, one object that holds such a list, or one object per line."""
    text = path.read_text(encoding="utf-8-sig").strip()
    try:
        whole = json.loads(text)
    except ValueError:
        whole = [_line(path, number, line) for number, line in enumerate(text.split("\n"), start=1) if line.strip()]
    if isinstance(whole, dict):
        lists = {name: values for name, values in whole.items() if isinstance(values, list)}
        rows = [values for values in lists.values() if values and all(isinstance(row, dict) for row in values)]
        if len(rows) == 1:
            whole = rows[0]
        elif len(lists) == len(whole):
            return _equal_columns(path, whole)
        else:
            whole = [whole]
    if not isinstance(whole, list) or not all(isinstance(row, dict) for row in whole):
        raise ValueError(f"{path}: expected rows as JSON objects, one per line or in one list")
    return _gather([dict(_flat(row)) for row in whole])


def _flat(row: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Nested objects by dotted names: {"config": {"n": 1}} is config.n."""
    for name, value in row.items():
        if isinstance(value, dict):
            yield from _flat(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value


def read_object(path: Path) -> dict[str, Any]:
    """A file that holds one JSON object. Raises ValueError naming the file for anything else."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{path}: not JSON ({error}); restore or remove the file") from None
    if not isinstance(found, dict):
        raise ValueError(f"{path}: expected an object, found {type(found).__name__}")  # noqa: TRY004  the file is at fault
    return found


def _line(path: Path, number: int, line: str) -> Any:
    try:
        return json.loads(line)
    except ValueError as error:
        raise ValueError(
            f"{path}, line {number}: not JSON ({error}); if the file was cut short, remove its last line"
        ) from None


def _equal_columns(path: Path, columns: Raw) -> Raw:
    lengths = {name: len(values) for name, values in columns.items()}
    if len(set(lengths.values())) > 1:
        raise ValueError(f"{path}: columns of unequal length {lengths}; give one value per row")
    return columns


def _gather(rows: Sequence[Mapping[str, Any]]) -> Raw:
    names = dict.fromkeys(name for row in rows for name in row)
    return {name: [row.get(name) for row in rows] for name in names}


def _read_parquet(path: Path) -> Raw:
    from pyarrow import ArrowException, parquet  # noqa: PLC0415  only this format needs it, and it is slow to import

    try:
        return parquet.read_table(path).to_pydict()
    except ArrowException as error:
        raise ValueError(f"{path}: not a Parquet file ({error})") from None


READERS: dict[str, Callable[[Path], Raw]] = {
    ".jsonl": _read_json,
    ".ndjson": _read_json,
    ".json": _read_json,
    ".parquet": _read_parquet,
    ".pq": _read_parquet,
}
"""By ending of the file's name."""
