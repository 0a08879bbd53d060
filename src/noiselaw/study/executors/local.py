"""Runs side by side on this machine, each process pinned to its own share of the cores."""

import ctypes
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import IO

from noiselaw.files import write_text
from noiselaw.study.design import PlannedRun

POLL_SECONDS = 1.0
STOP_SECONDS = 30.0
PR_SET_PDEATHSIG = 1


@dataclass(frozen=True, slots=True)
class Exit:
    """How a run's process ended."""

    run: PlannedRun
    code: int

    @property
    def reason(self) -> str:
        """The exit code, or the signal that ended it."""
        return f"exit {self.code}" if self.code >= 0 else f"killed by {signal.Signals(-self.code).name}"


@dataclass(frozen=True, slots=True)
class _Worker:
    run: PlannedRun
    process: subprocess.Popen[bytes]
    cores: tuple[int, ...]


def worker_count(num_workers: int, num_runs: int) -> int:
    """How many of `num_runs` go side by side where `num_workers` may, as far as there are cores."""
    return min(num_workers, len(available_cores()), max(1, num_runs))


def core_shares(num_workers: int) -> list[tuple[int, ...]]:
    """This process's cores in equal shares, whatever is left over idle.

    The number of threads decides a run's last digits, so every run gets the same number, whichever share it falls on
    and however often it is continued.
    """
    cores = available_cores()
    size = len(cores) // num_workers
    return [tuple(cores[index * size : (index + 1) * size]) for index in range(num_workers)]


def execute(runs: list[PlannedRun], num_workers: int, on_poll: Callable[[], None]) -> list[Exit]:
    """Train every run, `num_workers` at a time (at most one per core); `on_poll` is called every second.

    Each run is `noiselaw train RUN/spec.json` in a process of its own, its output in RUN/log.txt. When this process is
    interrupted or killed, its runs save a checkpoint and stop; calling it again continues them.
    """
    shares = core_shares(num_workers)
    waiting, working, exits = list(runs), list[_Worker](), list[Exit]()
    try:
        while waiting or working:
            for worker in [worker for worker in working if worker.process.poll() is not None]:
                working.remove(worker)
                exits.append(Exit(worker.run, worker.process.returncode))
                shares.append(worker.cores)
            while waiting and shares:
                share = shares.pop(0)
                working.append(_Worker(waiting[0], _start(waiting[0], share), share))
                waiting.pop(0)
            on_poll()
            time.sleep(POLL_SECONDS)
    finally:
        _stop(working)
    return exits


def log_tail(run: PlannedRun, num_lines: int = 5) -> str:
    """The last lines of a run's output."""
    path = run.folder / "log.txt"
    if not path.exists():
        return ""
    return "\n".join(path.read_text(encoding="utf-8", errors="replace").splitlines()[-num_lines:])


def _start(run: PlannedRun, cores: tuple[int, ...]) -> subprocess.Popen[bytes]:
    """Start a run on its cores. The spec is written with the number of threads they allow, which is not identity."""
    run.folder.mkdir(parents=True, exist_ok=True)
    runtime = run.spec.runtime.model_copy(update={"num_threads": len(cores)})
    spec = run.spec.model_copy(update={"runtime": runtime})
    spec_path = run.folder / "spec.json"
    write_text(spec_path, spec.model_dump_json(indent=1) + "\n")
    with (run.folder / "log.txt").open("ab") as log:
        return start_training([str(spec_path), "--out", str(run.folder)], cores, output=log, errors=log)


def start_training(
    arguments: list[str], cores: tuple[int, ...], *, output: IO[bytes] | int, errors: IO[bytes] | int
) -> subprocess.Popen[bytes]:
    """`noiselaw train ARGUMENTS` as a process of its own on `cores`, which ends when this one does."""
    parent = os.getpid()
    return subprocess.Popen(  # noqa: S603 (our own interpreter, our own arguments)
        [sys.executable, "-m", "noiselaw.cli", "train", *arguments],
        stdout=output,
        stderr=errors,
        stdin=subprocess.DEVNULL,
        env={**os.environ, "OMP_NUM_THREADS": str(len(cores))},
        start_new_session=True,
        preexec_fn=lambda: _enter(cores, parent),  # noqa: PLW1509 (this process starts no threads before)
    )


def _enter(cores: tuple[int, ...], parent: int) -> None:
    """In the child, before the program starts: stay on these cores, and stop when the parent dies (Linux)."""
    if sys.platform == "linux":
        os.sched_setaffinity(0, cores)
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
        if os.getppid() != parent:  # it died before the line above
            os._exit(1)


def _stop(workers: list[_Worker]) -> None:
    """Ask the runs to save a checkpoint and stop; kill those that do not within STOP_SECONDS."""
    for worker in workers:
        worker.process.send_signal(signal.SIGTERM)
    deadline = time.monotonic() + STOP_SECONDS
    for worker in workers:
        with suppress(subprocess.TimeoutExpired):
            worker.process.wait(max(0.1, deadline - time.monotonic()))
        if worker.process.poll() is None:
            worker.process.kill()


def available_cores() -> list[int]:
    """The cores this process may use."""
    if sys.platform == "linux":
        return sorted(os.sched_getaffinity(0))
    return list(range(os.cpu_count() or 1))
