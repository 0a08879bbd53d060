"""Files -> `RunTable`: columns named or guessed, rows chosen, text turned into numbers. Every guess is noted."""

import operator
import re
from collections.abc import Callable, Hashable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

from noiselaw.laws.build import Origin, RunBy, build_table
from noiselaw.laws.cells import Cells, text_of
from noiselaw.laws.columns import TEXTS, ColumnChoice, ReadOptions, choose_columns, refuse_unknown
from noiselaw.laws.numerals import plain_number, read_numbers, unit_of, uses_decimal_commas
from noiselaw.laws.table import RunTable
from noiselaw.laws.tablefiles import Raw, read_columns, read_object


def read_table(
    path: Path, options: ReadOptions | None = None, *, run_by: RunBy = "row", repeated: bool = False
) -> RunTable:
    """Read a table of runs (CSV, JSON lines, JSON, Parquet), or the folder of a study: the runs of its grid.

    `run_by` says what one run is where neither a column nor the options do; `repeated` takes those runs of a study,
    too, that repeat their data. Raises ValueError that names the column, the row, the value and the remedy, OSError
    where there is no such file.
    """
    options = options or ReadOptions()
    study = _open_study(path, options, repeated=repeated) if path.is_dir() else _Study(path, options, (), ())
    options = study.options
    raw = read_columns(study.table)
    commas = uses_decimal_commas(raw.values())
    raw, rows = _choose_rows(raw, options.where, decimal_commas=commas)
    choice = choose_columns(raw, options)
    cells = Cells(raw, rows, choice, decimal_commas=commas)
    numbers = cells.numbers(_units(options.unit, raw))
    batch = cells.batch_tokens(numbers, options)
    texts = {role: cells.texts(role) for role in TEXTS if role in choice.columns}
    cooldown = cells.truths(texts.pop("cooldown", None))
    by = options.run_by or run_by
    table = build_table(
        **{role: values for role, values in numbers.items() if role != "batch"},
        batch_tokens=batch,
        group=texts.get("group"),
        run=cells.single_sized(texts.get("run"), numbers),
        cooldown=cooldown,
        convention=options.convention,
        run_by=by,
        marks=_marks(raw, choice),
        origin=Origin({str(role): name for role, name in choice.columns.items()}, rows),
    )
    run_notes = () if cells.has_runs else (_RUN_NOTES[by],)
    notes = (*study.notes, *cells.notes(), *run_notes, *table.notes)
    flags = (*cells.flags, *table.flags, *_pooled(table, raw, choice))
    return replace(table, notes=notes, flags=flags, budgets=study.budgets)


_RUN_NOTES: dict[RunBy, str] = {
    "row": "no column of runs: every row counts as a run of its own",
    "size": "no column of runs: the rows of one size count as readings of one run",
}


class _Study(NamedTuple):
    """What a folder says of its table."""

    table: Path
    options: ReadOptions
    budgets: tuple[float, ...]
    notes: tuple[str, ...]


def _open_study(folder: Path, options: ReadOptions, *, repeated: bool) -> _Study:
    """The table of a study's folder: its grid, its budgets, and how its study.json says FLOPs were counted."""
    table, facts = folder / "curves.csv", folder / "study.json"
    if not table.is_file():
        raise ValueError(f"{folder}: a folder without curves.csv is no study; give a table or the folder of a study")
    known = read_object(facts) if facts.is_file() else {}
    convention, length = known.get("flops_convention"), known.get("sequence_length")
    if options.convention is None and convention is not None and length is not None:
        length = options.sequence_length or str(length)
        options = replace(options, convention=str(convention), sequence_length=length)
    budgets = tuple(float(budget) for budget in known.get("budgets", ()))
    if any(condition.startswith("role") for condition in options.where):
        return _Study(table, options, budgets, ())
    rows, note = ("role!=confirmation", "all but the confirming runs") if repeated else _GRID
    return _Study(table, replace(options, where=(*options.where, rows)), budgets, (note,))


_GRID = "role=grid", "the runs of the grid"


_COMPARISONS: dict[str, Callable[[Any, Any], bool]] = {
    "<=": operator.le, ">=": operator.ge, "!=": operator.ne, "<": operator.lt, ">": operator.gt, "=": operator.eq,
}  # fmt: skip


def _choose_rows(raw: Raw, conditions: Sequence[str], *, decimal_commas: bool) -> tuple[Raw, Sequence[int]]:
    """The rows that meet every condition, and their numbers, from 1."""
    rows = range(1, len(next(iter(raw.values()))) + 1)
    for condition in conditions:
        parts = re.fullmatch(r"(.+?)\s*(<=|>=|!=|<|>|=)\s*(.*)", condition)
        if parts is None:
            raise ValueError(f"--where {condition!r}: say COLUMN=VALUE, COLUMN<VALUE, COLUMN>=VALUE or the like")
        name, sign, wanted = parts.groups()
        refuse_unknown(name, list(raw), "--where")
        numbers = read_numbers(raw[name], decimal_commas=decimal_commas, suffixes=True).values
        pairs = zip(raw[name], numbers, strict=True)
        kept = [index for index, (text, number) in enumerate(pairs) if _holds(text, number, sign, wanted)]
        if not kept:
            raise ValueError(f"--where {condition!r}: no row is left; look at column {name}")
        raw = {column: [values[index] for index in kept] for column, values in raw.items()}
        rows = [rows[index] for index in kept]
    return raw, rows


def _holds(value: Any, number: float | None, sign: str, wanted: str) -> bool:
    """As numbers where both are, else as text, which is equal or not. An empty cell is no number."""
    second = plain_number(wanted)
    if number is not None and second is not None:
        return _COMPARISONS[sign](number, second)
    return sign in ("=", "!=") and _COMPARISONS[sign](text_of(value), wanted)


def _units(given: Sequence[str], raw: Raw) -> dict[str, float]:
    """Factors by column. Raises ValueError for an unknown column or unit."""
    units = {}
    for each in given:
        name, equals, text = each.rpartition("=")
        factor = unit_of(text)
        if not equals or factor is None:
            raise ValueError(f"--unit {each!r}: say COLUMN=FACTOR, such as N=1e6, N=M or C=PF-days")
        refuse_unknown(name, list(raw), "--unit")
        units[name] = factor
    return units


def _pooled(table: RunTable, raw: Raw, choice: ColumnChoice) -> tuple[str, ...]:
    """Flags a column of few words that nothing reads and that alone tells apart all rows of equal size and budget."""
    if "group" in choice.columns or len(table.loss) != len(next(iter(raw.values()))):
        return ()
    points: dict[Hashable, list[int]] = {}
    for index, point in enumerate(zip(table.params.tolist(), table.tokens.tolist(), strict=True)):
        points.setdefault(point, []).append(index)
    repeated = [rows for rows in points.values() if len(rows) > 1]
    for name, values in raw.items():
        words = list(map(text_of, values))
        if name in choice.columns.values() or any(plain_number(word) is not None for word in words):
            continue
        few = len(set(words)) <= len(words) // 3
        if repeated and few and all(len({words[index] for index in rows}) == len(rows) for rows in repeated):
            return (f"rows of equal size and budget differ in column {name!r}: --group {name!r} fits them apart",)
    return ()


def _marks(raw: Raw, choice: ColumnChoice) -> list[Hashable]:
    """What tells rows apart beside the columns that are read: a seed, a note; but not a number for every row."""
    others = [list(map(str, values)) for name, values in raw.items() if name not in choice.columns.values()]
    telling = [values for values in others if len(set(values)) < len(values)]
    return list(zip(*telling, strict=True)) if telling else [()] * len(next(iter(raw.values())))
