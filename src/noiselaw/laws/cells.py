"""The cells of a table's columns as numbers, names and truths, once it is known which column is which.

What the user named is read or refused; a guess that turns out to be something else is left out and noted.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from noiselaw.laws.columns import TEXTS, ColumnChoice, ReadOptions, Role, option, words_for
from noiselaw.laws.forms import Floats
from noiselaw.laws.numerals import read_numbers, split_name
from noiselaw.laws.tablefiles import Raw

_COUNTS: tuple[Role, ...] = ("params", "tokens", "unique_tokens")
_SIZES: tuple[Role, ...] = (*_COUNTS, "flops", "flops_per_token", "batch")
"""Roles whose numbers may stand in millions, or be written 125M."""
_FEWEST: dict[Role, float] = {"params": 1e3, "tokens": 1e3, "unique_tokens": 1e3, "flops": 1e6}
"""No language model has fewer: such a column counts millions, or the like."""


class Cells:
    """The columns of one table."""

    def __init__(self, raw: Raw, rows: Sequence[int], choice: ColumnChoice, *, decimal_commas: bool) -> None:
        self._raw, self._rows, self._choice, self._decimal_commas = raw, rows, choice, decimal_commas
        self._dropped: dict[Role, str] = {}
        self._notes: list[str] = []
        self.flags: list[str] = []
        self.has_runs = False

    def notes(self) -> list[str]:
        """On the choice of columns, without those that turned out to be something else."""
        kept = [note for role, note in self._choice.notes if role not in self._dropped]
        dropped = [
            f"column {self._choice.columns[role]!r} is not used as {words_for(role)}: {why}"
            for role, why in self._dropped.items()
        ]
        return [*kept, *dropped, *self._notes]

    def numbers(self, units: Mapping[str, float]) -> dict[Role, Floats]:
        """The columns of numbers, in counts."""
        found: dict[Role, Floats] = {}
        for role, name in self._choice.columns.items():
            if role not in TEXTS:
                values = self._column(role, name)
                if values is not None:
                    found[role] = self._in_counts(role, name, values, units)
        for role, value in self._choice.constants.items():
            found[role] = np.asarray(value)
        return found

    def _column(self, role: Role, name: str) -> Floats | None:
        """NaN where a cell is empty, which the table refuses; None for a guess that is no such column after all."""
        read = read_numbers(self._raw[name], decimal_commas=self._decimal_commas, suffixes=role in _SIZES)
        is_needed = role not in self._choice.guessed or role in ("loss", *_COUNTS[:2], "flops")
        for row, cell, value in zip(self._rows, self._raw[name], read.values, strict=True):
            if is_needed and value is None:
                raise ValueError(
                    f"column {name}, row {row}: {cell!r} is not a number; correct it, or leave the row out with --where"
                )
            if not is_needed and not (value is not None and math.isfinite(value) and value > 0):
                self._dropped[role] = f"row {row} holds {cell!r}; name it with {option(role)} if it is"
                return None
        self._notes += [f"column {name!r}: {note}" for note in read.notes]
        return np.array(read.values, float)

    def _in_counts(self, role: Role, name: str, values: Floats, units: Mapping[str, float]) -> Floats:
        """Multiplied by what `--unit` or the column's name says; what is too small to be counts is flagged."""
        if name in units:
            return values * units[name]
        unit, middle = split_name(name).unit if role in _SIZES else None, float(np.nanmedian(values))
        if unit is not None and middle < unit:
            self._notes.append(f"column {name!r}: times {unit:g}, by its name (else --unit '{name}=1')")
            return values * unit
        fewest = _FEWEST.get(role)
        if fewest is not None and middle < fewest:
            self.flags.append(
                f"column {name!r} counts no single {words_for(role)} (its middle is {middle:.4g}): say what it "
                f"counts, such as --unit '{name}=1e6'; until then coefficients are in its unit"
            )
        return values

    def batch_tokens(self, numbers: Mapping[Role, Floats], options: ReadOptions) -> Floats | None:
        """Batches in tokens."""
        if "batch" not in numbers:
            return None
        name = self._choice.columns["batch"]
        unit = options.batch_unit or ("sequences" if "seq" in name.lower() else "tokens")
        if unit == "tokens":
            if options.batch_unit is None and "token" not in name.lower():
                self._notes.append(f"column {name!r}: batches in tokens (else --batch-unit sequences)")
            return numbers["batch"]
        if "sequence_length" in numbers:
            return numbers["batch"] * numbers["sequence_length"]
        if "batch" in self._choice.guessed and options.batch_unit is None:
            self._dropped["batch"] = "batches in sequences need --sequence-length, a column or a number"
            return None
        raise ValueError(f"column {name}: batches in sequences need --sequence-length, a column or a number")

    def texts(self, role: Role) -> list[str] | None:
        """A column of names. Raises ValueError for an empty cell where the column was named."""
        name = self._choice.columns[role]
        cells = [text_of(value) for value in self._raw[name]]
        if role == "cooldown" or "" not in cells:
            return cells
        row = self._rows[cells.index("")]
        if role in self._choice.guessed:
            self._dropped[role] = f"row {row} is empty"
            return None
        raise ValueError(
            f"column {name}, row {row}: empty; name the {words_for(role)} of every row, or use --where '{name}!='"
        )

    def single_sized(self, runs: list[str] | None, numbers: Mapping[Role, Floats]) -> list[str] | None:
        """Runs as named; a guessed column in which one run has several sizes does not name runs."""
        if runs is None:
            return None
        if "run" in self._choice.guessed and "params" in numbers:
            names, index = np.unique(runs, return_inverse=True)
            sizes = [numbers["params"][index == run] for run in range(names.size)]
            mixed = next((run for run, mine in enumerate(sizes) if mine.max() > 1.001 * mine.min()), None)
            if mixed is not None:
                self._dropped["run"] = f"{str(names[mixed])!r} has several sizes; if it is one run name it with --run"
                return None
        self.has_runs = True
        return runs

    def truths(self, cells: list[str] | None) -> NDArray[np.bool_] | None:
        """Yes or no. Raises ValueError for anything else where the column was named."""
        if cells is None:
            return None
        bad = [cell for cell in cells if cell.lower() not in _TRUTHS]
        if not bad:
            return np.array([_TRUTHS[cell.lower()] for cell in cells])
        if "cooldown" in self._choice.guessed:
            self._dropped["cooldown"] = f"{bad[0]!r} says neither yes nor no"
            return None
        raise ValueError(
            f"column {self._choice.columns['cooldown']}: {bad[0]!r} says neither yes nor no; write true or false"
        )


_TRUTHS = {
    "1": True, "1.0": True, "true": True, "yes": True, "t": True, "y": True,
    "0": False, "0.0": False, "false": False, "no": False, "f": False, "n": False,
}  # fmt: skip


def text_of(value: Any) -> str:
    """A cell as text; nothing for an empty one."""
    return "" if value is None else str(value).strip()
