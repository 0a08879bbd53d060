"""A run's progress on the terminal: loss, bits per byte, tokens per second, utilisation, time left."""

from collections.abc import Iterable
from typing import Any

from rich.console import Console, RenderableType
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.text import Text

from noiselaw.metrics import Row
from noiselaw.specs import RunSpec
from noiselaw.units import bits_per_byte_from_nats_per_token


class _BarWithNumbers(Progress):
    """A bar with a line of numbers under it, which may wrap: beside the bar they would not fit into 80 columns."""

    numbers = ""

    def get_renderables(self) -> Iterable[RenderableType]:
        yield from super().get_renderables()
        yield Text(self.numbers)


class ProgressBar:
    """An observer of `noiselaw.train.loop.train`: a bar on a terminal, one line per validation elsewhere."""

    def __init__(self, console: Console | None = None) -> None:
        self._console = console or Console(stderr=True)
        self._progress = _BarWithNumbers(
            TextColumn("{task.description}"),
            BarColumn(bar_width=24),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(),
            console=self._console,
            disable=not self._console.is_terminal,
        )
        self._bytes_per_token = 1.0
        self._loss = ""
        self._validation = ""
        self._speed = ""

    def started(self, spec: RunSpec, facts: dict[str, Any], step: int) -> None:
        self._bytes_per_token = facts["bytes_per_token"]
        self._say(
            f"{spec.name}: {facts['group']}, {facts['non_embedding_parameters']:,} non-embedding parameters, "
            f"{spec.num_tokens:,} tokens in {spec.schedule.num_steps:,} steps"
            + (f", continuing after step {step:,}" if step else "")
        )
        self._progress.start()
        self._task = self._progress.add_task(spec.name, total=spec.schedule.num_steps, completed=step)

    def rows(self, rows: list[Row]) -> None:
        for row in rows:
            self._read(row)
        self._progress.numbers = "  ".join(part for part in (self._loss, self._validation, self._speed) if part)
        self._progress.update(self._task, completed=max(row["step"] for row in rows))

    def message(self, text: str) -> None:
        self._say(f"warning: {text}")

    def close(self) -> None:
        self._progress.stop()

    def _say(self, text: str) -> None:
        """Print one line that stays, cut nowhere: in a file lines have any length."""
        self._console.print(text, highlight=False, markup=False, soft_wrap=True)

    def _read(self, row: Row) -> None:
        if row["kind"] == "train":
            self._loss = f"train {row['loss']:.3f}"
        elif row["kind"] == "speed":
            share = row["share_of_matmul_peak"]
            self._speed = f"{row['tokens_per_second']:,.0f} tokens/s  {share:.0%} of matmul peak"
        elif row["kind"] == "validation":
            bits = bits_per_byte_from_nats_per_token(row["loss"], self._bytes_per_token)
            self._validation = f"held-out {row['loss']:.3f} nats  {bits:.3f} bits/byte"
            if self._progress.disable:
                self._say(f"step {row['step']:,}: {self._validation}  {self._loss}  {self._speed}")
