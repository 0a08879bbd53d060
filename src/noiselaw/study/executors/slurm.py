"""Runs on a Slurm cluster through submitit (extra `slurm`): one batch job each, requeued when it is preempted.

Jobs are found again by their names. The study folder must be on a file system that all nodes see; what Slurm says of a
job lies in STUDY/slurm.
"""

import getpass
import signal
import subprocess
import time
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

from noiselaw.study.design import StudySpec
from noiselaw.study.executors.protocol import JobRequest, job_prefix, missing_package
from noiselaw.study.job import EXIT_BUSY, Job, Launch
from noiselaw.study.layout import Layout

try:
    from submitit import JobEnvironment, SlurmExecutor  # pyright: ignore[reportMissingImports]
    from submitit.core.utils import FailedJobError, FailedSubmissionError  # pyright: ignore[reportMissingImports]
    from submitit.helpers import DelayedSubmission  # pyright: ignore[reportMissingImports]
except ImportError as error:
    raise missing_package("slurm", error) from error

STOP_SECONDS = 60.0
"""More than the time between a cluster's SIGTERM and SIGKILL, by default 30 s."""
FULL_SECONDS = 60.0
"""How long no more jobs are offered to a queue that refused one."""
FIRST_PORT, NUM_PORTS = 20_000, 20_000


def start(study: StudySpec, folder: Path, layout: Layout, num_runs: int) -> "SlurmJobs":
    """The executor for a stage of `num_runs` runs. Raises ValueError where there is no Slurm."""
    try:
        executor = SlurmExecutor(folder.resolve() / "slurm", max_num_timeout=1_000_000)
    except RuntimeError:
        raise ValueError(
            "executor slurm: no srun on this machine; start the study on a node of the cluster that may submit jobs"
        ) from None
    spec = study.slurm
    gpus = None if study.gpus_per_run is None else int(study.gpus_per_run)
    executor.update_parameters(
        nodes=study.nodes_per_run,
        ntasks_per_node=1,
        cpus_per_task=layout.threads(num_runs) * study.processes_per_node,
        **_given(gpus_per_node=gpus, partition=spec.partition, account=spec.account, qos=spec.qos),
        **_given(mem=None if spec.memory_gb is None else f"{int(spec.memory_gb * 1024)}M"),
        time=spec.time_minutes,
        signal_delay_s=spec.warning_seconds,
        setup=spec.setup,
        additional_parameters={"requeue": True},
        # One node's end is the end of the run on all.
        srun_args=["--kill-on-bad-exit=1"],
    )
    launch = Launch("slurm", "", study.processes_per_node, study.nodes_per_run)
    return SlurmJobs(executor, launch, spec.max_jobs, job_prefix(folder))


class SlurmJobs:
    """One batch job for each run."""

    name = "slurm"

    def __init__(self, executor: Any, launch: Launch, max_jobs: int, prefix: str) -> None:
        self._executor, self._launch, self._max_jobs, self._prefix = executor, launch, max_jobs, prefix
        self._known: set[str] = set()
        self._full_until = 0.0

    def capacity(self) -> int:
        return 0 if time.monotonic() < self._full_until else self._max_jobs - len(self._known)

    def submit(self, job: JobRequest) -> bool:
        self._executor.update_parameters(job_name=job.name)
        try:
            self._executor.submit(SlurmRun(job.folder.resolve(), replace(self._launch, job=job.name)))
        except (FailedJobError, FailedSubmissionError) as error:
            if not self._known:
                raise ValueError(f"executor slurm: sbatch refused {job.name}: {error}") from error
            self._full_until = time.monotonic() + FULL_SECONDS  # a limit on jobs per user, most likely
            return False
        self._known.add(job.name)
        return True

    def poll(self) -> set[str]:
        """As the queue shows; as it was before where the controller does not answer."""
        jobs = queued_jobs()
        if jobs is not None:
            ours = [job for job in jobs if job.name.startswith(self._prefix)]
            self._known = {job.name for job in ours}
            for job in ours:
                _check_it_can_start(job)
        return set(self._known)

    def cancel(self, names: Iterable[str]) -> None:
        wanted, deadline = set(names), time.monotonic() + STOP_SECONDS
        ids = [job.number for job in queued_jobs() or [] if job.name in wanted]
        if ids:
            subprocess.run(["scancel", *ids], check=False, capture_output=True)  # noqa: S603, S607
        while wanted & {job.name for job in queued_jobs() or []} and time.monotonic() < deadline:
            time.sleep(0.5)


class SlurmRun:
    """What a batch job calls on each of its nodes; submitit asks it for a checkpoint before the job is requeued."""

    def __init__(self, folder: Path, launch: Launch) -> None:
        self._folder, self._launch = folder, launch
        self._job: Job | None = None

    def __call__(self) -> None:
        """Train. Raises RuntimeError where that failed, so that Slurm's own records show it."""
        here = JobEnvironment()
        port = FIRST_PORT + int(here.raw_job_id) % NUM_PORTS
        launch = replace(self._launch, node=here.node, rendezvous=f"{here.hostnames[0]}:{port}")
        self._job = Job(self._folder, launch)
        signal.signal(signal.SIGTERM, self._job.ask_to_stop)
        code = self._job.run()
        if code not in (0, EXIT_BUSY):
            raise RuntimeError(f"{self._folder}: exit code {code}; see {self._folder / 'log.txt'}")

    def checkpoint(self) -> Any:
        """Save and stop; what the requeued job does."""
        if self._job is not None:
            self._job.stop()
        return DelayedSubmission(SlurmRun(self._folder, self._launch))


class QueuedJob(NamedTuple):
    """A job that waits or runs."""

    number: str
    name: str
    reason: str
    """Why it waits."""


NEVER_STARTS = ("PartitionTimeLimit", "PartitionNodeLimit", "BadConstraints", "AccountNotAllowed", "QOSNotAllowed")
"""Reasons that no waiting helps against."""


def _check_it_can_start(job: QueuedJob) -> None:
    if job.reason in NEVER_STARTS:
        raise ValueError(
            f"executor slurm: {job.name} would wait for ever ({job.reason}); see what the partition allows (sinfo) and "
            "change slurm.partition, slurm.time_minutes, slurm.account, slurm.qos, gpus_per_run or nodes_per_run"
        )


def queued_jobs() -> list[QueuedJob] | None:
    """This user's jobs that wait or run; None where the controller does not answer."""
    words = ["squeue", "--noheader", "--user", getpass.getuser(), "--format", "%i %j %r"]
    answer = subprocess.run(words, capture_output=True, text=True, check=False)  # noqa: S603
    if answer.returncode != 0:
        return None
    return [QueuedJob(*line.split(maxsplit=2)) for line in answer.stdout.splitlines()]


def _given(**parameters: Any) -> dict[str, Any]:
    return {key: value for key, value in parameters.items() if value is not None}
