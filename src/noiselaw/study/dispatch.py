"""Every run of a stage to its end, whatever dies meanwhile: jobs are started, found again, tried again, given up.

What a run has come to is read from its folder. A run is started only where no job of its name waits or runs and nobody
holds its folder; the job itself takes the folder's lease, which settles what was not seen here.
"""

import socket
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

from noiselaw.files import write_text
from noiselaw.lease import LeaseWatch
from noiselaw.study.attempts import Attempt, read_attempts, write_attempts
from noiselaw.study.design import PlannedRun
from noiselaw.study.executors.protocol import Executor, JobRequest, job_prefix
from noiselaw.study.ledger import Status, read_state

POLL_SECONDS = 1.0
NEVER_STARTED = "its job ended before it started"


@dataclass(frozen=True, slots=True)
class Stage:
    """What is to be carried out, and how."""

    study_folder: Path
    executor: Executor
    num_threads: int
    max_attempts: int
    say: Callable[[str], None]
    on_poll: Callable[[Sequence[PlannedRun]], None]
    """Called every second with the runs whose state may have changed."""

    def job(self, run: PlannedRun) -> JobRequest:
        return JobRequest(job_prefix(self.study_folder) + run.spec.name, run.folder)


@dataclass(slots=True)
class _Progress:
    """A run that is not done yet."""

    run: PlannedRun
    known_attempts: int = 0
    """Of those in its folder, the ones that were looked at."""
    failures: int = 0


@dataclass(slots=True)
class _Board:
    """Where every run stands that is not done."""

    waiting: deque[_Progress]
    flying: dict[str, _Progress] = field(default_factory=dict)
    """By the name of the job."""
    watch: LeaseWatch = field(default_factory=LeaseWatch)


def carry_out(runs: Sequence[PlannedRun], stage: Stage) -> None:
    """Train every run until it is done or has failed for good. When this is interrupted, jobs save and stop.

    Jobs that an earlier study left waiting or running are found by their names and not started again.
    """
    board = _Board(deque(_Progress(run) for run in runs))
    try:
        _find_jobs_again(board, stage)
        while board.waiting or board.flying:
            alive = stage.executor.poll()
            ended = [board.flying.pop(name) for name in list(board.flying) if name not in alive]
            for progress in ended:
                if _goes_on(progress, stage, board.watch):
                    board.waiting.appendleft(progress)  # what has begun is finished first
            _start_some(board, stage)
            stage.on_poll([progress.run for progress in (*ended, *board.flying.values())])
            time.sleep(POLL_SECONDS)
    except BaseException:
        stage.executor.cancel(list(board.flying))
        raise


def _find_jobs_again(board: _Board, stage: Stage) -> None:
    alive = stage.executor.poll()
    found = [progress for progress in board.waiting if stage.job(progress.run).name in alive]
    if found:
        stage.say(f"{len(found)} of the runs wait or train already: found again by their jobs' names")
    for progress in found:
        board.waiting.remove(progress)
        progress.known_attempts = len(read_attempts(progress.run.folder))
        board.flying[stage.job(progress.run).name] = progress


def _start_some(board: _Board, stage: Stage) -> None:
    """Submit what the executor takes; runs whose folder somebody holds go to the end of the line."""
    room = stage.executor.capacity()
    for _ in range(len(board.waiting)):
        if room <= 0:
            return
        progress = board.waiting.popleft()
        if board.watch.look(progress.run.folder).state != "free":
            board.waiting.append(progress)
            continue
        if read_state(progress.run).status is Status.DONE:  # by whoever held it
            continue
        progress.known_attempts = len(read_attempts(progress.run.folder))
        job = stage.job(progress.run)
        _write_spec(progress.run, stage.num_threads)
        if not stage.executor.submit(job):
            board.waiting.appendleft(progress)
            return
        board.flying[job.name] = progress
        room -= 1


def _write_spec(run: PlannedRun, num_threads: int) -> None:
    """The run's spec, with the number of threads it gets, which is not identity."""
    run.folder.mkdir(parents=True, exist_ok=True)
    runtime = run.spec.runtime.model_copy(update={"num_threads": num_threads})
    spec = run.spec.model_copy(update={"runtime": runtime})
    write_text(run.folder / "spec.json", spec.model_dump_json(indent=1) + "\n")


def _goes_on(progress: _Progress, stage: Stage, watch: LeaseWatch) -> bool:
    """Whether a run whose job has ended is to be started again."""
    run = progress.run
    state = read_state(run)
    if state.status is Status.DONE:
        return False
    if (run.folder / "failure.json").exists():
        stage.say(f"{run.spec.name}: {state.cause}; not tried again")
        return False
    if watch.look(run.folder).state != "free":  # another job, of whatever executor, works on it
        return True
    attempts = read_attempts(run.folder)
    if len(attempts) == progress.known_attempts:
        attempts.append(_never_started(stage, run))
        write_attempts(run.folder, attempts)
    new = attempts[progress.known_attempts :]
    progress.known_attempts = len(attempts)
    progress.failures += sum(attempt.counts_as_failure for attempt in new)
    again = progress.failures < stage.max_attempts
    what = "tried again" if again else "given up"
    stage.say(f"{run.spec.name}: {new[-1].cause} ({progress.failures} of {stage.max_attempts} attempts failed); {what}")
    return again


def _never_started(stage: Stage, run: PlannedRun) -> Attempt:
    now = datetime.now(UTC).isoformat(timespec="milliseconds")
    return Attempt(
        executor=stage.executor.name,
        job=stage.job(run).name,
        host=socket.gethostname(),
        started_at=now,
        first_step=0,
        ended_at=now,
        reason=NEVER_STARTED,
    )
