"""Who does the jobs of a preparation: this process, others on this machine, or a Ray cluster.

An executor is a context manager around a function (function, jobs) -> pairs of job and result, as they finish, in any
order. Jobs are drawn from their iterable only as workers become free. A worker may die at any moment: what it finished
is on disk, and the rest is done again. Functions and jobs must be picklable.
"""

import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, nullcontext
from typing import Literal, Protocol, TypeVar

from noiselaw.data.executors.local import local_processes
from noiselaw.data.executors.ray import ray_tasks

J = TypeVar("J")
R = TypeVar("R")

ExecutorName = Literal["local", "ray"]


class RunJobs(Protocol):
    def __call__(self, function: Callable[[J], R], jobs: Iterable[J], /) -> Iterator[tuple[J, R]]: ...


def local(workers: int | None, num_jobs: int) -> AbstractContextManager[RunJobs]:
    """Processes on this machine, this one alone where there is work for no more."""
    num_processes = min(workers or len(os.sched_getaffinity(0)), num_jobs)
    return local_processes(num_processes) if num_processes > 1 else nullcontext(in_this_process)


EXECUTORS: dict[ExecutorName, Callable[[int | None, int], AbstractContextManager[RunJobs]]] = {
    "local": local,
    "ray": ray_tasks,
}
"""Each is told how many workers it may have (None: one for each core there is) and about how many jobs there are."""


def in_this_process(function: Callable[[J], R], jobs: Iterable[J], /) -> Iterator[tuple[J, R]]:
    for job in jobs:
        yield job, function(job)
