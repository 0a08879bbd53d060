"""Every attempt at a run: who made it, where, and how it ended. `attempts.json` in the run's folder.

Written by whoever holds the folder's lease, whatever executor started it, so the cause of a failure is known also to a
study that was not there when it happened.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

from noiselaw.files import read_json, write_json
from noiselaw.metrics import read_latest

FILE_NAME = "attempts.json"
LOG_NAME = "log.txt"
LOG_LINES = 5
EXIT_STOPPED = 130
"""Exit code of a run that saved a checkpoint and stopped because it was asked to."""


@dataclass(frozen=True, slots=True)
class Attempt:
    """One start of a run. What is None is not known: the attempt goes on, or its machine was lost."""

    executor: str
    job: str
    """The executor's name for it."""
    host: str
    started_at: str
    first_step: int
    """Steps that were done when it started."""
    ended_at: str | None = None
    last_step: int | None = None
    reason: str | None = None
    """How it ended: done, stopped, exit CODE, killed by SIGNAL."""
    log: str | None = None
    """The last lines of its output, where it failed."""

    @property
    def counts_as_failure(self) -> bool:
        """Whether it speaks against trying again: all but success, and being stopped after some steps."""
        if self.reason == "done":
            return False
        return self.reason != "stopped" or self.last_step is None or self.last_step <= self.first_step

    @property
    def cause(self) -> str:
        """The reason in words, for people."""
        return self.reason or "lost: its machine or its supervisor died"


def read_attempts(folder: Path) -> list[Attempt]:
    """The attempts at the run in `folder`, oldest first. Raises ValueError naming the file when it is damaged."""
    path = folder / FILE_NAME
    if not path.exists():
        return []
    try:
        return [Attempt(**attempt) for attempt in read_json(path)]
    except TypeError as error:
        raise ValueError(f"{path}: damaged ({error}); delete it: only the history of failures is lost") from None


def write_attempts(folder: Path, attempts: Sequence[Attempt]) -> None:
    write_json(folder / FILE_NAME, [asdict(attempt) for attempt in attempts])


def begin(folder: Path, executor: str, job: str, host: str) -> None:
    """Note that an attempt starts now. For the holder of the folder's lease, as `end`."""
    attempt = Attempt(executor, job, host, started_at=_now(), first_step=steps_done(folder))
    write_attempts(folder, [*read_attempts(folder), attempt])


def end(folder: Path, reason: str) -> None:
    """Note how the newest attempt ended."""
    *before, last = read_attempts(folder)
    failed = reason not in ("done", "stopped")
    ended = replace(
        last,
        ended_at=_now(),
        last_step=steps_done(folder),
        reason=reason,
        log=log_tail(folder) if failed else None,
    )
    write_attempts(folder, [*before, ended])


def steps_done(folder: Path) -> int:
    """Steps that the run's record shows."""
    return read_latest(folder / "metrics.jsonl").get("train", {"step": 0})["step"]


def log_tail(folder: Path, num_lines: int = LOG_LINES) -> str:
    """The last lines of a run's output."""
    path = folder / LOG_NAME
    if not path.exists():
        return ""
    with path.open("rb") as stream:
        stream.seek(max(0, path.stat().st_size - 64 * 1024))
        lines = stream.read().decode(errors="replace").splitlines()
    return "\n".join(lines[-num_lines:])


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds")
