"""A run's metrics in TensorBoard (extra `tensorboard`)."""

from functools import partial
from pathlib import Path
from typing import Any

from noiselaw.metrics import Row
from noiselaw.specs import RunSpec


class TensorBoardObserver:
    """An observer of `noiselaw.train.loop.train` that writes every number of every row to `RUN/tensorboard`.

    The folder appears when the run starts, not before: a run wants an empty folder of its own.
    """

    def __init__(self, folder: Path) -> None:
        try:
            from torch.utils.tensorboard import SummaryWriter  # noqa: PLC0415 (an optional package)
        except ImportError:
            raise ImportError(
                "runtime.tensorboard is set but the tensorboard package is missing; pip install 'noiselaw[tensorboard]'"
            ) from None
        self._open = partial(SummaryWriter, str(folder / "tensorboard"))
        self._writer: SummaryWriter | None = None

    def started(self, spec: RunSpec, facts: dict[str, Any], step: int) -> None:
        del facts
        self._writer = self._open(purge_step=step + 1)  # a continued run writes later steps again
        self._writer.add_text("spec", f"```\n{spec.model_dump_json(indent=1)}\n```")

    def rows(self, rows: list[Row]) -> None:
        assert self._writer is not None
        for row in rows:
            for name, value in row.items():
                if name not in ("kind", "step"):
                    self._writer.add_scalar(f"{row['kind']}/{name}", value, row["step"])

    def message(self, text: str) -> None:
        assert self._writer is not None
        self._writer.add_text("messages", text)

    def close(self) -> None:
        if self._writer is not None:
            self._writer.close()
