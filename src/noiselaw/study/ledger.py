"""The state of runs, read from their folders: the folders are the truth, nothing else is stored."""

from dataclasses import dataclass
from enum import Enum
from typing import Any

from noiselaw.files import read_json
from noiselaw.metrics import read_latest
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
        }


def read_state(run: PlannedRun) -> RunState:
    """The state of `run` as its folder shows it; cheap enough to ask every second."""
    result, failure = run.folder / "result.json", run.folder / "failure.json"
    if result.exists():
        record = read_json(result)
        step = run.spec.schedule.num_steps
        return RunState(run, Status.DONE, step, record["validation"], record["speed"], failure=None)
    latest = read_latest(run.folder / "metrics.jsonl")
    failed = failure.exists()
    return RunState(
        run=run,
        status=Status.FAILED if failed else Status.STARTED if latest else Status.WAITING,
        step=latest.get("train", {"step": 0})["step"],
        validation=latest.get("validation"),
        speed=latest.get("speed"),
        failure=read_json(failure) if failed else None,
    )
