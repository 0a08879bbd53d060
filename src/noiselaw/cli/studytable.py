"""A study on the terminal: a live table of all runs, what is being done, the time left."""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Self

from rich.console import Console, ConsoleOptions, Group, RenderResult
from rich.live import Live
from rich.segment import Segment
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
            # Of more runs than there are lines only those that are under way or failed are worth them.
            active = [state for state in states if state.status in (Status.STARTED, Status.FAILED)]
            shown = states if len(states) < self._console.height else active
            self._live.update(Group(Text(f"[{self._elapsed()}] {line}"), study_table(shown)))
        elif time.monotonic() - self._last_line >= LINE_SECONDS:
            self._last_line = time.monotonic()
            self.say(line)

    def _elapsed(self) -> str:
        return _clock(time.monotonic() - self._started)


COLUMNS = ("run", "status", "done", "tokens", "held-out", "tokens/s", "peak")
CAPTION = "held-out: nats per token; peak: share of the measured matmul peak"


@dataclass(frozen=True, slots=True)
class StudyTable:
    """Rows of cells with a style each. Plain segments: rich's own tables take ten times as long, which thousands of
    runs would show.
    """

    rows: Sequence[tuple[tuple[str, ...], str]]

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """Every row on one line, cut at the edge of the terminal."""
        widths = [max(map(len, cells)) for cells in zip(COLUMNS, *(cells for cells, _ in self.rows), strict=True)]
        for cells, style in [(COLUMNS, "bold"), *self.rows]:
            texts = [
                text.ljust(width) if name in ("run", "status") else text.rjust(width)
                for name, text, width in zip(COLUMNS, cells, widths, strict=True)
            ]
            yield Segment(" ".join(texts)[: options.max_width], console.get_style(style))
            yield Segment.line()
        yield Segment(CAPTION[: options.max_width], console.get_style("italic dim"))
        yield Segment.line()


def study_table(states: Sequence[RunState]) -> StudyTable:
    """All runs, one row each, within 80 columns."""
    return StudyTable([(_cells(state), STYLES[state.status]) for state in states])


def _cells(state: RunState) -> tuple[str, ...]:
    validation, speed = state.validation or {}, state.speed or {}
    return (
        state.run.spec.name,
        state.status.value,
        f"{state.progress:.0%}",
        f"{state.step * state.run.spec.tokens_per_step:,}",
        f"{validation['loss']:.4f}" if validation else "",
        f"{speed['tokens_per_second']:,.0f}" if speed else "",
        f"{speed['share_of_matmul_peak']:.0%}" if speed else "",
    )


def _clock(seconds: float) -> str:
    return f"{int(seconds) // 60}:{int(seconds) % 60:02d}"
