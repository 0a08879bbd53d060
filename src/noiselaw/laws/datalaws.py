"""What a table says of data, fresh and repeated: the object that `noiselaw laws tokens` prints.

The two are fitted apart: the best size for fresh tokens (`laws.tokens`), and what repeats are worth (`laws.repeated`).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from noiselaw.laws.bootstrap import default_draws
from noiselaw.laws.levels import tabulate_levels
from noiselaw.laws.optima import Keep
from noiselaw.laws.repeated import Size, fit_repeated, why_no_law
from noiselaw.laws.surface import DELTA
from noiselaw.laws.table import RunTable
from noiselaw.laws.tokens import fit_level_tables, fresh_rows

METHOD = "tokens"
FILE_NAME = "token_laws.json"
"""The object of a study, in its folder."""


@dataclass(frozen=True, slots=True)
class DataLaws:
    """Laws of data by group."""

    groups: dict[str, dict[str, Any]]
    """What `TokensFit.record` says, and under "repeated" what `RepeatedFit.record` does, where there are such laws;
    "flags" say why there are none."""
    notes: tuple[str, ...]
    """How rows came to levels, one sentence each."""


def fit_data_laws(
    table: RunTable,
    *,
    levels: Sequence[float] | None = None,
    keep: Keep = "inside",
    size: Size = "params",
    delta: float = DELTA,
    num_draws: int = 10_000,
    repeated_draws: int | None = None,
    seed: int = 0,
) -> DataLaws:
    """Laws of fresh data by `fit_tokens`, of repeated data by `fit_repeated` where any row repeats its data.

    Raises ValueError as `fit_tokens` does for a table without repeats; with repeats a group without laws says why.
    """
    has_repeats = bool(table.repeats.any())
    found, records = {}, {}
    for group, rows in table.groups():
        try:
            found |= tabulate_levels(fresh_rows(rows), "tokens", levels)
        except ValueError as error:
            if not has_repeats:
                raise
            records[group] = {"laws": {}, "flags": [f"no laws of fresh data: {error}"]}
    tables = {group: level.table for group, level in found.items()}
    fits = fit_level_tables(tables, keep=keep, num_draws=num_draws, seed=seed)
    records |= {group: fit.record() for group, fit in fits.items()}
    if has_repeats:
        draws = default_draws(table.loss.size) if repeated_draws is None else repeated_draws
        for at, (group, rows) in enumerate(table.groups()):
            reason = why_no_law(rows, size)
            if reason is not None:
                records[group]["flags"].append(f"no law of repeated data: {reason}")
                continue
            fit = fit_repeated(rows, size=size, delta=delta, num_draws=draws, seed=seed + at)[group]
            records[group]["repeated"] = fit.record()
    notes = tuple(note for level in found.values() for note in level.notes)
    return DataLaws({group: records[group] for group, _ in table.groups()}, notes)
