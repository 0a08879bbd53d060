"""Runs side by side on this machine, each pinned to its own share of the cores, and to a GPU where there are."""

import signal
import subprocess
import time
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from noiselaw.study.design import StudySpec
from noiselaw.study.executors.protocol import JobRequest
from noiselaw.study.job import Launch, start_job
from noiselaw.study.layout import Layout
from noiselaw.study.machine import Share, shares

STOP_SECONDS = 30.0


def start(study: StudySpec, folder: Path, layout: Layout, num_runs: int) -> "LocalExecutor":
    """The executor for a stage of `num_runs` runs."""
    del folder
    each = shares(layout.side_by_side(num_runs), study.gpus_per_run or 1)
    return LocalExecutor(each, num_processes=study.processes_per_node if each[0].gpus else 1)


@dataclass(frozen=True, slots=True)
class _Worker:
    process: subprocess.Popen[bytes]
    share: Share


class LocalExecutor:
    """One job on each share of this machine. Jobs are told to stop when this process dies, however it dies."""

    name = "local"

    def __init__(self, each: list[Share], num_processes: int = 1) -> None:
        self._free, self._num_processes = list(each), num_processes
        self._workers: dict[str, _Worker] = {}

    def capacity(self) -> int:
        return len(self._free)

    def submit(self, job: JobRequest) -> bool:
        share = self._free.pop(0)
        process = start_job(job.folder, Launch("local", job.name, self._num_processes), share.environment)
        with suppress(ProcessLookupError):
            share.pin(process.pid)
        self._workers[job.name] = _Worker(process, share)
        return True

    def poll(self) -> set[str]:
        for name, worker in list(self._workers.items()):
            if worker.process.poll() is not None:
                del self._workers[name]
                self._free.append(worker.share)
        return set(self._workers)

    def cancel(self, names: Iterable[str]) -> None:
        workers = [self._workers[name] for name in names if name in self._workers]
        for worker in workers:
            worker.process.send_signal(signal.SIGTERM)
        deadline = time.monotonic() + STOP_SECONDS
        for worker in workers:
            with suppress(subprocess.TimeoutExpired):
                worker.process.wait(max(0.1, deadline - time.monotonic()))
            if worker.process.poll() is None:
                worker.process.kill()  # its training is told to stop by that
