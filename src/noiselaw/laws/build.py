"""Columns of numbers -> a checked `RunTable`: missing sizes derived, duplicates settled, oddities flagged.

P parameters, D tokens, C = M D FLOPs, M FLOPs per token. Legend: n rows.
"""

from collections.abc import Hashable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from noiselaw.laws.conventions import CONVENTIONS, DEFAULT, GIVEN, Shapes, canonical, convention_named
from noiselaw.laws.forms import Floats
from noiselaw.laws.table import ALL, RunTable

RunBy = Literal["row", "size"]
"""Without a column of runs: every row its own run or cell, or the rows of one size (and batch, learning rate, unique
tokens) readings of one run."""

_AGREE = 0.01
"""Counts of FLOPs this close, relatively, are one count."""
_ONE_SIZE = 1.05
"""FLOPs per token of one size that differ by more than this factor were counted in two ways."""
PLAUSIBLE = (0.1, 30.0)
"""C / (6 P D) of any transformer; beyond, a column has another unit."""


class Origin(NamedTuple):
    """Where columns come from: their names in the file by ours, and the numbers of the rows."""

    names: Mapping[str, str]
    rows: Sequence[int]


def build_table(
    *,
    loss: ArrayLike,
    params: ArrayLike | None = None,
    tokens: ArrayLike | None = None,
    flops: ArrayLike | None = None,
    flops_per_token: ArrayLike | None = None,
    group: Sequence[str] | None = None,
    run: Sequence[str] | None = None,
    convention: str | None = None,
    layers: ArrayLike | None = None,
    width: ArrayLike | None = None,
    sequence_length: ArrayLike | None = None,
    batch_tokens: ArrayLike | None = None,
    learning_rate: ArrayLike | None = None,
    unique_tokens: ArrayLike | None = None,
    epochs: ArrayLike | None = None,
    cooldown: ArrayLike | None = None,
    run_by: RunBy = "row",
    marks: Sequence[Hashable] | None = None,
    origin: Origin | None = None,
) -> RunTable:
    """A table from columns [n] (or single values for all rows): losses and any two of params, tokens, FLOPs.

    FLOPs may be totals or per token. The third is derived by `convention` (`laws.conventions`; `6P` unless all three
    are there: then `given`). A named convention counts FLOPs anew where the table's are more than 1 % off, and flags
    it. unique_tokens = tokens / epochs where only epochs are given. `marks` tell rows apart that are alike in all
    columns here, such as seeds. `origin` says what columns and rows are called in error messages.

    Raises ValueError for values that are not positive and finite, columns of unequal length, unknown conventions or
    ones that lack a column, and two losses of one run at one point.
    """
    given = {
        "loss": loss, "params": params, "tokens": tokens, "flops": flops, "flops_per_token": flops_per_token,
        "layers": layers, "width": width, "sequence_length": sequence_length, "batch_tokens": batch_tokens,
        "learning_rate": learning_rate, "unique_tokens": unique_tokens, "epochs": epochs,
    }  # fmt: skip
    columns = _checked(given, origin)
    num_rows = columns["loss"].size
    rows = tuple(range(1, num_rows + 1)) if origin is None else origin.rows
    sizes = _complete(columns, convention, rows)
    unique = columns.get("unique_tokens")
    if unique is None and "epochs" in columns:
        unique = sizes.tokens / columns["epochs"]
    table = RunTable(
        group=np.asarray([ALL] * num_rows if group is None else [str(name) for name in group]),
        run=np.asarray(_run_names(sizes, columns, unique, run_by) if run is None else [str(name) for name in run]),
        loss=columns["loss"],
        params=sizes.params,
        tokens=sizes.tokens,
        flops=sizes.flops,
        flops_per_token=sizes.flops_per_token,
        convention=sizes.convention,
        batch_tokens=columns.get("batch_tokens"),
        learning_rate=columns.get("learning_rate"),
        unique_tokens=unique,
        cooldown=None if cooldown is None else np.asarray(cooldown, bool),
        notes=sizes.notes,
        flags=sizes.flags,
    )
    _refuse_unequal(table)
    table = replace(table, flags=table.flags + tuple(_low_flags(table, rows)))
    return _settle_duplicates(table, rows, None if run is not None else marks, has_runs=run is not None)


class _Sizes(NamedTuple):
    params: Floats
    tokens: Floats
    flops: Floats
    flops_per_token: Floats
    convention: str
    notes: tuple[str, ...]
    flags: tuple[str, ...]


def _checked(given: Mapping[str, ArrayLike | None], origin: Origin | None) -> dict[str, Floats]:
    columns = {name: np.asarray(values, float) for name, values in given.items() if values is not None}
    num_rows = columns["loss"].size
    if not num_rows:
        raise ValueError("the table has no rows; give at least one run")
    for name, values in columns.items():
        label = origin.names.get(name, name) if origin else name
        if values.shape not in ((), (num_rows,)):
            raise ValueError(f"column {label} has {values.size} rows but loss has {num_rows}; give one value per row")
        columns[name] = np.broadcast_to(values, num_rows)
        bad = np.flatnonzero(~(np.isfinite(columns[name]) & (columns[name] > 0)))
        if bad.size:
            row, more = origin.rows[bad[0]] if origin else bad[0] + 1, f" and {bad.size - 1} more" * (bad.size > 1)
            value = columns[name][bad[0]]
            what = "no number (NaN or empty)" if np.isnan(value) else f"{value:.6g} is not positive and finite"
            raise ValueError(
                f"column {label}, row {row}{more}: {what}; correct it, or leave such rows out (--where '{label}>0')"
            )
    return columns


def _complete(columns: Mapping[str, Floats], convention: str | None, rows: Sequence[int]) -> _Sizes:
    """The missing ones of P, D, C and M."""
    params, tokens, flops, size = (columns.get(name) for name in ("params", "tokens", "flops", "flops_per_token"))
    if tokens is None and flops is not None and size is not None:
        tokens = flops / size
    flags: tuple[str, ...] = ()
    if tokens is not None and flops is not None:
        flags = () if size is None else _identity_flags(flops, size * tokens)
        size = flops / tokens
    shapes = Shapes(params, *(columns.get(name) for name in ("layers", "width", "sequence_length")))
    name = canonical(convention or (DEFAULT if size is None or params is None else GIVEN))
    if name == GIVEN:
        return _as_given(params, tokens, size, flags)
    rule = convention_named(name, shapes)
    if params is None and (size is not None or name == "72Ld2+12Lds"):
        # Without M only the convention that counts matrices is asked, which needs no M.
        params = rule.params(shapes, np.asarray(np.nan) if size is None else size)
        _refuse_derived("parameters", params, name, rows)
    if params is None or (tokens is None and flops is None):
        raise _too_few_sizes(columns)
    counted = rule.flops_per_token(shapes, params)
    if tokens is None:
        assert flops is not None
        tokens, size = flops / counted, counted
        return _Sizes(params, tokens, flops, size, name, (f"tokens derived: C / M, M by convention {name}",), flags)
    if size is not None and _range(size / counted).within(_AGREE):
        derived = () if "params" in columns else (f"params derived from C / D by convention {name}",)
        return _Sizes(params, tokens, size * tokens, size, name, derived, flags)
    if size is not None:
        flags += (f"FLOPs in the table are {_range(size / counted)} times those by convention {name}: counted anew",)
    notes = () if size is not None else (f"FLOPs derived: M D, M by convention {name}",)
    return _Sizes(params, tokens, counted * tokens, counted, name, notes, flags)


def _as_given(params: Floats | None, tokens: Floats | None, size: Floats | None, flags: tuple[str, ...]) -> _Sizes:
    if size is None or tokens is None:
        raise ValueError(f"convention {GIVEN} needs tokens and FLOPs in every row; name both columns")
    if params is None:
        note = "no parameters in the table: params are FLOPs per token / 6"
        return _Sizes(size / 6.0, tokens, size * tokens, size, GIVEN, (note,), flags)
    return _Sizes(params, tokens, size * tokens, size, GIVEN, (), (*flags, *_drift_flags(params, size)))


def _identity_flags(flops: Floats, product: Floats) -> tuple[str, ...]:
    """C = M D must hold."""
    ratio = _range(flops / product)
    if ratio.within(_AGREE):
        return ()
    return (f"FLOPs are {ratio} times FLOPs per token times tokens; C / D is taken as FLOPs per token",)


def _drift_flags(params: Floats, size: Floats) -> tuple[str, ...]:
    """What FLOPs as given say of the way they were counted."""
    flags, ratio = [], _range(size / (6.0 * params))
    levels, index = np.unique(params, return_inverse=True)
    low, high = np.full(levels.size, np.inf), np.zeros(levels.size)
    np.minimum.at(low, index, size)
    np.maximum.at(high, index, size)
    worst = int(np.argmax(high / low))
    if not PLAUSIBLE[0] < ratio.low <= ratio.high < PLAUSIBLE[1]:
        flags.append(f"FLOPs are {ratio} times 6 P D: a column of params, tokens or FLOPs has another unit")
    elif high[worst] > _ONE_SIZE * low[worst]:
        flags.append(
            f"mixed conventions: FLOPs are {ratio} times 6 P D, and rows of one size (P = {levels[worst]:.6g}) "
            f"differ by a factor of {high[worst] / low[worst]:.3g}"
        )
    elif not ratio.within(_AGREE):
        flags.append(f"FLOPs are {ratio} times 6 P D: they count more than parameters, or in several ways")
    return tuple(flags)


class _Range(NamedTuple):
    low: float
    high: float

    def within(self, tolerance: float) -> bool:
        """Of one."""
        return 1 - tolerance <= self.low <= self.high <= 1 + tolerance

    def __str__(self) -> str:
        return f"{self.low:.3g}" if f"{self.low:.3g}" == f"{self.high:.3g}" else f"{self.low:.3g} to {self.high:.3g}"


def _range(values: Floats) -> _Range:
    return _Range(float(values.min()), float(values.max()))


def _too_few_sizes(columns: Mapping[str, Floats]) -> ValueError:
    known = [name for name in ("params", "tokens", "flops", "flops_per_token") if name in columns]
    return ValueError(
        f"sizes: only {', '.join(known) or 'none'} known; name two of --params, --tokens, --flops (or "
        f"--flops-per-token with --tokens); conventions: {', '.join(CONVENTIONS)}, {GIVEN}"
    )


def _refuse_derived(what: str, values: Floats, convention: str, rows: Sequence[int]) -> None:
    bad = np.flatnonzero(values <= 0)
    if bad.size:
        raise ValueError(
            f"row {rows[bad[0]]}: {what} by convention {convention} would be {values[bad[0]]:.4g}; "
            "give a column of parameters or another convention"
        )


def _run_names(sizes: _Sizes, columns: Mapping[str, Floats], unique_tokens: Floats | None, run_by: RunBy) -> list[str]:
    if run_by == "row":
        return [f"row {row}" for row in range(1, sizes.params.size + 1)]
    settings = {
        "B": columns.get("batch_tokens"), "lr": columns.get("learning_rate"), "U": unique_tokens,
    }  # fmt: skip
    told = {"P": sizes.params} | {
        symbol: column for symbol, column in settings.items() if column is not None and np.ptp(column) > 0
    }
    return [
        ", ".join(f"{symbol}={value:.6g}" for symbol, value in zip(told, row, strict=True))
        for row in np.stack(list(told.values()), axis=-1).tolist()
    ]


_FAR_BELOW = 1.5
"""No reading of a study lies below its next lowest by this factor: such a loss is another quantity, or a slip."""


def _low_flags(table: RunTable, rows: Sequence[int]) -> Iterator[str]:
    """Losses far below the others of their group, as no floor of any law allows."""
    for group in dict.fromkeys(table.group.tolist()):
        mine = np.flatnonzero(table.group == group)
        order = mine[np.argsort(table.loss[mine], kind="stable")]
        lowest = table.loss[order[: mine.size // 4 + 1]]
        gaps = lowest[1:] / lowest[:-1]
        if gaps.size and gaps.max() > _FAR_BELOW:
            last = int(np.argmax(gaps))
            yield (
                f"group {group}, row {rows[int(order[last])]}: a loss of {lowest[last]:.4g} where the next lowest is "
                f"{lowest[last + 1]:.4g}, below any E: look at the {_rows(last + 1)}, or leave them out with --where"
            )


def _refuse_unequal(table: RunTable) -> None:
    for name in ("group", "run", "cooldown"):
        column = getattr(table, name)
        if column is not None and column.shape != table.loss.shape:
            raise ValueError(f"column {name} has {column.size} rows but loss has {table.loss.size}; one value per row")


def _settle_duplicates(
    table: RunTable, numbers: Sequence[int], marks: Sequence[Hashable] | None, *, has_runs: bool
) -> RunTable:
    """Rows that repeat others exactly are dropped; two losses of one run at one point are refused."""
    named = ("group", "run") if has_runs else ("group",)
    optional = ("batch_tokens", "learning_rate", "unique_tokens", "cooldown")
    columns = [getattr(table, name) for name in (*named, "params", "tokens", "flops", *optional)]
    points = list(zip(*(column.tolist() for column in columns if column is not None), strict=True))
    rows = list(zip(points, table.loss.tolist(), marks or [()] * len(points), strict=True))
    firsts = {row: index for index, row in reversed(list(enumerate(rows)))}
    kept = np.array(sorted(firsts.values()))
    repeats = kept.size - len({points[row] for row in kept})
    if repeats and has_runs:
        raise _two_losses(table, numbers, points, kept)
    flags, notes = table.flags, table.notes
    if kept.size < len(rows):
        flags += (f"{_rows(len(rows) - kept.size)} of the table repeated others exactly and left out",)
        table = table.rows(kept)
    if repeats:
        notes += (f"{_rows(repeats)} with a size and a budget of another row: kept as repeats",)
    return replace(table, notes=notes, flags=flags)


def _two_losses(table: RunTable, numbers: Sequence[int], points: Sequence[Hashable], kept: np.ndarray) -> ValueError:
    seen: dict[Hashable, int] = {}
    for row in kept.tolist():
        first = seen.setdefault(points[row], row)
        if first != row:
            return ValueError(
                f"group {table.group[row]}, run {table.run[row]}: rows {numbers[first]} and {numbers[row]} give losses "
                f"{table.loss[first]:.6g} and {table.loss[row]:.6g} at {table.flops[row]:.6g} FLOPs; "
                "keep one of them, or name the runs apart"
            )
    raise AssertionError


def _rows(count: int) -> str:
    return "1 row" if count == 1 else f"{count} rows"
