"""Anybody's table of runs: one row per reading, in columns of one meaning and one unit.

C = M * D: training FLOPs, training FLOPs per token, tokens; P parameters, counted as the table counts them. Losses are
nats per token. Parameters and tokens are facts; FLOPs are a count, so they carry the name of a convention.
Legend: n rows.
"""

from collections.abc import Iterator
from dataclasses import dataclass, fields, replace

import numpy as np
from numpy.typing import NDArray

from noiselaw.laws.forms import Floats

ALL = "all"
"""The name of the only group of a table without groups."""


@dataclass(frozen=True, slots=True, eq=False)
class RunTable:
    """Checked columns [n]; those that nobody gave are None. Made from files by `laws.read`, from arrays by `build`."""

    group: NDArray[np.str_]
    """What laws are fitted for, one by one: a noise, an objective."""
    run: NDArray[np.str_]
    """Rows of one run share its luck: a bootstrap draws runs, not rows."""
    loss: Floats
    params: Floats
    tokens: Floats
    """Training tokens seen, repeats counted."""
    flops: Floats
    flops_per_token: Floats
    convention: str
    """How FLOPs were counted, see `laws.conventions`."""
    batch_tokens: Floats | None = None
    learning_rate: Floats | None = None
    unique_tokens: Floats | None = None
    cooldown: NDArray[np.bool_] | None = None
    """Whether the learning rate was annealed before the reading."""
    budgets: tuple[float, ...] = ()
    """FLOPs at which the study that the table comes from compares sizes; empty where nobody says."""
    notes: tuple[str, ...] = ()
    """What was guessed or derived while reading, one sentence each."""
    flags: tuple[str, ...] = ()
    """What looks odd in the table, one sentence each."""

    @property
    def repeats(self) -> NDArray[np.bool_]:
        """[n]: which rows have seen some tokens more than once; none where nobody says."""
        if self.unique_tokens is None:
            return np.zeros(self.loss.size, bool)
        return self.tokens > self.unique_tokens * (1 + 1e-6)

    def groups(self) -> Iterator[tuple[str, "RunTable"]]:
        """The rows of every group, groups in order of appearance."""
        for name in dict.fromkeys(self.group.tolist()):
            yield name, self.rows(self.group == name)

    def rows(self, mask: NDArray[np.bool_]) -> "RunTable":
        """The rows where `mask` [n] is true (or those of an index [k])."""
        columns = {field.name: getattr(self, field.name) for field in fields(self)}
        return replace(
            self, **{name: values[mask] for name, values in columns.items() if isinstance(values, np.ndarray)}
        )
