"""The state of runs, read from their folders: the folders are the truth, nothing else is stored."""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Any

from noiselaw.files import read_json
from noiselaw.metrics import read_latest
from noiselaw.study.attempts import FILE_NAME, Attempt, read_attempts
from noiselaw.study.design import PlannedRun


class Status(Enum):
    WAITING = "waiting"
    STARTED = "started"
    DONE = "done"
    FAILED = "failed"


@dataclass(frozen=True, slots=True)
class RunState:
    """Where a run stands."""

    run: PlannedRun
    status: Status
    step: int
    validation: dict[str, Any] | None
    speed: dict[str, Any] | None
    failure: dict[str, Any] | None
    """step and fault of a run that failed, and the last lines of its output where they are known."""
    attempts: int = 0
    """How often it was started."""

    @property
    def cause(self) -> str:
        """Why it failed, in a few words."""
        return "" if self.failure is None else f"{self.failure['fault']} at step {self.failure['step']}"

    @property
    def progress(self) -> float:
        """Share of the run's steps that are done."""
        return self.step / self.run.spec.schedule.num_steps

    def as_row(self) -> dict[str, Any]:
        """The state as plain values, for JSON."""
        return {
            "run": self.run.spec.name,
            "group": self.run.group,
            "role": self.run.role,
            "status": self.status.value,
            "step": self.step,
            "num_steps": self.run.spec.schedule.num_steps,
            "validation": self.validation,
            "speed": self.speed,
            "failure": self.failure,
            "attempts": self.attempts,
        }

    def missing_record(self) -> dict[str, Any]:
        """What study.json says of a run that a study went on without."""
        fault = self.failure or {"step": self.step, "fault": "not finished"}
        run = {"run": self.run.spec.name, "group": self.run.group, "role": self.run.role}
        return {**run, "attempts": self.attempts, **fault}


def read_state(run: PlannedRun) -> RunState:
    """The state of `run` as its folder shows it; cheap enough to ask every second."""
    try:
        names = {entry.name for entry in os.scandir(run.folder)}
    except FileNotFoundError:
        names = set()
    attempts = read_attempts(run.folder) if FILE_NAME in names else []
    if "result.json" in names:
        record = read_json(run.folder / "result.json")
        step = run.spec.schedule.num_steps
        return RunState(run, Status.DONE, step, record["validation"], record["speed"], None, len(attempts))
    latest = read_latest(run.folder / "metrics.jsonl") if "metrics.jsonl" in names else {}
    step = latest.get("train", {"step": 0})["step"]
    failure = _crash(attempts, step)
    if "failure.json" in names:
        failure = {"log": attempts[-1].log if attempts else None, **read_json(run.folder / "failure.json")}
    return RunState(
        run=run,
        status=Status.FAILED if failure else Status.STARTED if latest else Status.WAITING,
        step=step,
        validation=latest.get("validation"),
        speed=latest.get("speed"),
        failure=failure,
        attempts=len(attempts),
    )


def _crash(attempts: Sequence[Attempt], step: int) -> dict[str, Any] | None:
    """How the newest attempt failed; None where it has not, or goes on."""
    if not attempts or attempts[-1].ended_at is None or not attempts[-1].counts_as_failure:
        return None
    last = attempts[-1]
    return {"step": step, "fault": last.cause, "log": last.log}
