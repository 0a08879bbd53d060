"""A study on the terminal: a live table of all runs, what is being done, the time left."""

import time
from types import TracebackType
from typing import Self

from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from noiselaw.study.ledger import RunState, Status
from noiselaw.study.timing import seconds_left

STYLES = {Status.WAITING: "dim", Status.STARTED: "bold", Status.DONE: "green", Status.FAILED: "red"}
LINE_SECONDS = 30.0


class StudyDisplay:
    """Shows a study's progress: live on a terminal, a line every half minute elsewhere."""

    def __init__(self) -> None:
        self._console = Console()
        self._live = (
            Live(console=self._console, refresh_per_second=2, transient=True) if self._console.is_terminal else None
        )
        self._started = time.monotonic()
        self._last_line = 0.0

    def __enter__(self) -> Self:
        if self._live is not None:
            self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._live is not None:
            self._live.stop()

    def say(self, text: str) -> None:
        """Print one line that stays."""
        self._console.print(f"[{self._elapsed()}] {text}", highlight=False, markup=False, soft_wrap=True)

    def update(self, title: str, states: list[RunState], num_workers: int) -> None:
        """Show the runs of one stage."""
        line = f"{title}: {sum(state.status is Status.DONE for state in states)} of {len(states)} runs done"
        left = seconds_left(states, num_workers)
        line += "" if left is None else f", about {_clock(left)} left"
        if self._live is not None:
            # The line comes first: a terminal too low for the table loses the end of it.
            self._live.update(Group(Text(f"[{self._elapsed()}] {line}"), study_table(states)))
        elif time.monotonic() - self._last_line >= LINE_SECONDS:
            self._last_line = time.monotonic()
            self.say(line)

    def _elapsed(self) -> str:
        return _clock(time.monotonic() - self._started)


def study_table(states: list[RunState]) -> Table:
    """All runs, one row each, within 80 columns."""
    table = Table(box=None, pad_edge=False, padding=(0, 1, 0, 0))
    table.caption = "held-out: nats per token; peak: share of the measured matmul peak"
    table.caption_justify = "left"
    for name in ("run", "status", "done", "tokens", "held-out", "tokens/s", "peak"):
        table.add_column(name, justify="left" if name in ("run", "status") else "right", no_wrap=True)
    for state in states:
        validation, speed = state.validation or {}, state.speed or {}
        table.add_row(
            state.run.spec.name,
            state.status.value,
            f"{state.progress:.0%}",
            f"{state.step * state.run.spec.tokens_per_step:,}",
            f"{validation['loss']:.4f}" if validation else "",
            f"{speed['tokens_per_second']:,.0f}" if speed else "",
            f"{speed['share_of_matmul_peak']:.0%}" if speed else "",
            style=STYLES[state.status],
        )
    return table


def _clock(seconds: float) -> str:
    return f"{int(seconds) // 60}:{int(seconds) % 60:02d}"
