"""Files -> `RunTable`: columns named or guessed, rows chosen, text turned into numbers. Every guess is noted."""

import math
import operator
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from noiselaw.laws.build import PLAUSIBLE, Origin, RunBy, build_table
from noiselaw.laws.columns import SIZES, TEXTS, ColumnChoice, ReadOptions, Role, choose_columns, number, refuse_unknown
from noiselaw.laws.forms import Floats
from noiselaw.laws.table import RunTable
from noiselaw.laws.tablefiles import Raw, read_columns, read_object


def read_table(path: Path, options: ReadOptions | None = None, *, run_by: RunBy = "row") -> RunTable:
    """Read a table of runs (CSV, JSON lines, JSON, Parquet), or the folder of a study: the runs of its grid.

    `run_by` says what one run is where neither a column nor the options do. Raises ValueError that names the column,
    the row, the value and the remedy, OSError where there is no such file.
    """
    options = options or ReadOptions()
    study = _open_study(path, options) if path.is_dir() else _Study(path, options, (), ())
    options = study.options
    raw, rows = _choose_rows(read_columns(study.table), options.where)
    choice = choose_columns(raw, options)
    numbers: dict[Role, Floats] = {
        role: _numbers(raw[name], name, rows) for role, name in choice.columns.items() if role not in TEXTS
    }
    numbers |= {role: np.asarray(value) for role, value in choice.constants.items()}
    dropped, drop_notes = _implausible(numbers, choice)
    batch, batch_notes = _batch_tokens(numbers, choice, options)
    texts = {role: [_text(value) for value in raw[name]] for role, name in choice.columns.items() if role in TEXTS}
    by = options.run_by or run_by
    table = build_table(
        **{role: values for role, values in numbers.items() if role not in {*dropped, "batch"}},
        batch_tokens=batch,
        group=texts.get("group"),
        run=texts.get("run"),
        cooldown=_truths(texts["cooldown"], choice.columns["cooldown"]) if "cooldown" in texts else None,
        convention=options.convention,
        run_by=by,
        origin=Origin({str(role): name for role, name in choice.columns.items()}, rows),
    )
    run_notes = () if "run" in texts else (_RUN_NOTES[by],)
    notes = (*study.notes, *choice.notes, *drop_notes, *batch_notes, *run_notes, *table.notes)
    return replace(table, notes=notes, budgets=study.budgets)


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


def _open_study(folder: Path, options: ReadOptions) -> _Study:
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
    return _Study(table, replace(options, where=(*options.where, "role=grid")), budgets, ("the runs of the grid",))


_COMPARISONS: dict[str, Callable[[Any, Any], bool]] = {
    "<=": operator.le, ">=": operator.ge, "!=": operator.ne, "<": operator.lt, ">": operator.gt, "=": operator.eq,
}  # fmt: skip


def _choose_rows(raw: Raw, conditions: Sequence[str]) -> tuple[Raw, Sequence[int]]:
    """The rows that meet every condition, and their numbers, from 1."""
    rows = range(1, len(next(iter(raw.values()))) + 1)
    for condition in conditions:
        parts = re.fullmatch(r"(.+?)\s*(<=|>=|!=|<|>|=)\s*(.*)", condition)
        if parts is None:
            raise ValueError(f"--where {condition!r}: say COLUMN=VALUE, COLUMN<VALUE, COLUMN>=VALUE or the like")
        name, sign, wanted = parts.groups()
        refuse_unknown(name, list(raw), "--where")
        kept = [index for index, value in enumerate(raw[name]) if _holds(value, sign, wanted)]
        if not kept:
            raise ValueError(f"--where {condition!r}: no row is left; look at column {name}")
        raw, rows = {column: [values[index] for index in kept] for column, values in raw.items()}, [
            rows[index] for index in kept
        ]  # fmt: skip
    return raw, rows


def _holds(value: Any, sign: str, wanted: str) -> bool:
    """As numbers where both are, else as text, which is equal or not."""
    first, second = number(value), number(wanted)
    if first is not None and second is not None:
        return _COMPARISONS[sign](first, second)
    return sign in ("=", "!=") and _COMPARISONS[sign](_text(value), wanted)


def _numbers(values: Sequence[Any], name: str, rows: Sequence[int]) -> Floats:
    """A column of numbers; nothing at all is NaN, which the table refuses. Raises ValueError for text."""
    parsed = [math.nan if value is None or value == "" else number(value) for value in values]
    for row, value, found in zip(rows, values, parsed, strict=True):
        if found is None:
            raise ValueError(
                f"column {name}, row {row}: {value!r} is not a number; correct it, or leave the row out with --where"
            )
    return np.array(parsed, float)


def _text(value: Any) -> str:
    return "" if value is None else str(value)


def _truths(values: Sequence[str], name: str) -> NDArray[np.bool_]:
    known = {"1": True, "1.0": True, "true": True, "yes": True, "0": False, "0.0": False, "false": False, "no": False}
    bad = [value for value in values if value.lower() not in known]
    if bad:
        raise ValueError(f"column {name}: {bad[0]!r} says neither yes nor no; write true or false")
    return np.array([known[value.lower()] for value in values])


def _implausible(numbers: Mapping[Role, Floats], choice: ColumnChoice) -> tuple[set[Role], tuple[str, ...]]:
    """Guessed sizes that cannot be what their name says, where two others were named."""
    guessed: list[Role] = [role for role in SIZES if role in choice.guessed]
    if len([role for role in SIZES if role in numbers]) - len(guessed) < 2:
        return set(), ()
    dropped: set[Role] = set()
    for role in guessed:
        others: dict[Role, Floats] = {
            name: values for name, values in numbers.items() if name == role or name not in guessed
        }
        ratio = _flops_ratio(others)
        if ratio is not None and not PLAUSIBLE[0] < ratio < PLAUSIBLE[1]:
            dropped.add(role)
    return dropped, tuple(f"column {choice.columns[role]!r} cannot be {role}: not used" for role in sorted(dropped))


def _flops_ratio(sizes: Mapping[Role, Floats]) -> float | None:
    """The middle of C / (6 P D); None without parameters and FLOPs per token."""
    size = sizes.get("flops_per_token")
    if size is None and "flops" in sizes and "tokens" in sizes:
        with np.errstate(divide="ignore", invalid="ignore"):
            size = sizes["flops"] / sizes["tokens"]
    if size is None or "params" not in sizes:
        return None
    with np.errstate(divide="ignore", invalid="ignore"):
        return float(np.median(size / (6.0 * sizes["params"])))


def _batch_tokens(
    numbers: Mapping[Role, Floats], choice: ColumnChoice, options: ReadOptions
) -> tuple[Floats | None, tuple[str, ...]]:
    """Batches in tokens."""
    if "batch" not in numbers:
        return None, ()
    name = choice.columns["batch"]
    unit = options.batch_unit or ("sequences" if "seq" in name.lower() else "tokens")
    if unit == "tokens":
        is_said = options.batch_unit is not None or "token" in name.lower()
        return numbers["batch"], () if is_said else (
            f"column {name!r}: batches in tokens (else --batch-unit sequences)",
        )
    if "sequence_length" not in numbers:
        raise ValueError(f"column {name}: batches in sequences need --sequence-length, a column or a number")
    return numbers["batch"] * numbers["sequence_length"], ()
