"""Jobs as tasks of a Ray cluster: the one at RAY_ADDRESS, or one started on the spot on this machine."""

import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from itertools import islice
from typing import Any


@contextmanager
def ray_tasks(workers: int | None, num_jobs: int) -> Iterator[Callable[..., Iterator[tuple[Any, Any]]]]:
    """Run jobs as Ray tasks of one CPU each, at most `workers` at a time, None for one on each of its cores.

    Source and output folders must be on storage that every node sees. Raises ImportError where Ray is not installed.
    """
    try:
        import ray  # noqa: PLC0415 (an extra)  # pyright: ignore[reportMissingImports]
        from ray.exceptions import RayTaskError  # noqa: PLC0415  # pyright: ignore[reportMissingImports]
    except ImportError:
        raise ImportError(
            "--executor ray needs the package ray; install it with pip install 'noiselaw[ray]', or leave --executor out"
        ) from None
    started_here = not ray.is_initialized()
    if started_here:
        environment = {"env_vars": {"TOKENIZERS_PARALLELISM": "false"}}
        ray.init(address=os.environ.get("RAY_ADDRESS", "local"), runtime_env=environment, log_to_driver=False)

    most = min(workers or int(ray.cluster_resources()["CPU"]), num_jobs)

    def run(function: Callable[[Any], Any], jobs: Iterable[Any], /) -> Iterator[tuple[Any, Any]]:
        task = ray.remote(num_cpus=1)(function)
        waiting, running = iter(jobs), dict[Any, Any]()
        while True:
            for job in islice(waiting, most - len(running)):
                running[task.remote(job)] = job
            if not running:
                return
            for reference in ray.wait(list(running))[0]:
                try:
                    yield running.pop(reference), ray.get(reference)
                except RayTaskError as error:
                    raise error.cause from None

    try:
        yield run
    finally:
        if started_here:
            ray.shutdown()
