"""Runs on a Ray cluster: the one RAY_ADDRESS names, or one started on this machine (extra `ray`).

Every run is a named detached actor, so a study that was killed finds its runs again, and Ray itself refuses a second
one of the name. A run on several nodes is one placement group with an equal bundle on each; its nodes end together.
`noiselaw` must be importable on the nodes, and the study folder must have the same path there.
"""

import logging
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any

from noiselaw.study.design import StudySpec
from noiselaw.study.executors.protocol import JobRequest, job_prefix, missing_package
from noiselaw.study.job import Launch, start_job
from noiselaw.study.layout import Layout

try:
    import ray  # pyright: ignore[reportMissingImports]
    from ray.exceptions import RayActorError  # pyright: ignore[reportMissingImports]
    from ray.util import list_named_actors, placement_group  # pyright: ignore[reportMissingImports]
    from ray.util.scheduling_strategies import (  # pyright: ignore[reportMissingImports]
        PlacementGroupSchedulingStrategy,
    )
except ImportError as error:
    raise missing_package("ray", error) from error

NAMESPACE = "noiselaw"
STOP_SECONDS = 30.0
ANSWER_SECONDS = 5.0
"""An actor that takes longer to answer waits for its resources."""
QUEUED_JOBS = 4
"""Jobs that may wait in Ray's queue beyond those that fit: what makes an autoscaling cluster grow."""


def start(study: StudySpec, folder: Path, layout: Layout, num_runs: int) -> "RayExecutor":
    """The executor for a stage of `num_runs` runs; the cluster stays connected until the process ends."""
    if not ray.is_initialized():
        address = study.ray.address or os.environ.get("RAY_ADDRESS") or "local"
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
        here = {"num_cpus": layout.num_cores, "include_dashboard": False} if address == "local" else {}
        ray.init(address=address, namespace=NAMESPACE, log_to_driver=False, logging_level=logging.WARNING, **here)
    return RayExecutor(study, layout.threads(num_runs), job_prefix(folder))


class RayExecutor:
    """One detached actor for each job."""

    name = "ray"

    def __init__(self, study: StudySpec, num_threads: int, prefix: str) -> None:
        self._prefix, self._warned = prefix, False
        self._num_nodes, self._num_processes = study.nodes_per_run, study.processes_per_node
        gpus = {} if study.gpus_per_run is None else {"GPU": study.gpus_per_run}
        self._each = {"CPU": num_threads, **gpus}
        """What a run asks for, on every node."""

    def capacity(self) -> int:
        there = ray.cluster_resources()
        self._warn_where_no_node_is_large_enough()
        fit = min(int(there.get(kind, 0) // amount) for kind, amount in self._each.items()) // self._num_nodes
        return fit + QUEUED_JOBS - len(self.poll())

    def _warn_where_no_node_is_large_enough(self) -> None:
        """Once: a run would wait for ever, unless the cluster grows."""
        nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
        if self._warned or any(all(node.get(kind, 0) >= n for kind, n in self._each.items()) for node in nodes):
            return
        self._warned = True
        asked = ", ".join(f"{amount:g} {kind}" for kind, amount in self._each.items())
        print(
            f"noiselaw: executor ray: no node has the {asked} that a run asks for; it waits until one joins. On a "
            "cluster that does not grow set run.runtime.num_threads or gpus_per_run lower",
            file=sys.stderr,
        )

    def submit(self, job: JobRequest) -> bool:
        launch = Launch("ray", job.name, self._num_processes, self._num_nodes)
        identity = {"name": job.name, "namespace": NAMESPACE, "lifetime": "detached", "max_restarts": 0}
        with suppress(ValueError):  # one of the name is still there: the next poll shows it
            if self._num_nodes == 1:
                resources = {"num_cpus": self._each["CPU"], "num_gpus": self._each.get("GPU", 0)}
                JobActor.options(**identity, **resources).remote(str(job.folder), asdict(launch))
            else:
                GangActor.options(**identity).remote(str(job.folder), asdict(launch), self._each)  # pyright: ignore[reportAttributeAccessIssue]
        return True

    def poll(self) -> set[str]:
        return {name for name in list_named_actors() if name.startswith(self._prefix)}

    def cancel(self, names: Iterable[str]) -> None:
        actors = {}
        for name in names:
            with suppress(ValueError):  # it has ended
                actors[name] = ray.get_actor(name, namespace=NAMESPACE)
        asked = {actor.stop.remote(): name for name, actor in actors.items()}
        _, silent = ray.wait(list(asked), num_returns=len(asked), timeout=ANSWER_SECONDS) if asked else ([], [])
        for answer in silent:
            ray.kill(actors.pop(asked[answer]))
        deadline = time.monotonic() + STOP_SECONDS
        while (left := actors.keys() & self.poll()) and time.monotonic() < deadline:
            time.sleep(0.2)
        for name in left:
            ray.kill(actors[name])


class _Node:
    """A job's process on one node. Ray runs `__init__` in a thread that lives as long as the actor."""

    def __init__(self, folder: str, launch: dict[str, Any]) -> None:
        self._process = start_job(Path(folder), Launch(**launch), dict(os.environ))
        threading.Thread(target=self._end_with_it, daemon=True).start()

    def stop(self) -> None:
        """Ask the job to save and stop; the actor ends with it."""
        with suppress(ProcessLookupError):
            self._process.send_signal(signal.SIGTERM)

    def _end_with_it(self) -> None:
        while self._process.poll() is None:
            time.sleep(0.1)
        _end_this_actor()


JobActor = ray.remote(_Node)


@ray.remote(num_cpus=0)
class GangActor:
    """A run on several nodes: one placement group, one job on each bundle, torchrun between them."""

    def __init__(self, folder: str, launch: dict[str, Any], each: dict[str, float]) -> None:
        self._folder, self._launch, self._each = folder, launch, each
        self._nodes = []
        threading.Thread(target=self._run, daemon=True).start()

    def stop(self) -> None:
        """Ask every node to save and stop."""
        for node in self._nodes:
            node.stop.remote()

    def _run(self) -> None:
        """Ends this process, and with it the placement group and all nodes, when the first node has ended or another
        was lost for STOP_SECONDS.
        """
        try:
            self._start_nodes()
            while self._is_alive(self._nodes[0]) and all(self._is_alive(node) for node in self._nodes[1:]):
                time.sleep(1.0)
            deadline = time.monotonic() + STOP_SECONDS
            while self._is_alive(self._nodes[0]) and time.monotonic() < deadline:
                time.sleep(0.2)
        finally:
            _end_this_actor()

    def _start_nodes(self) -> None:
        num_nodes = self._launch["num_nodes"]
        group = placement_group([self._each] * num_nodes, strategy="STRICT_SPREAD")
        ray.get(group.ready())
        places = [PlacementGroupSchedulingStrategy(group, index) for index in range(num_nodes)]
        rendezvous = ray.get(meeting_point.options(scheduling_strategy=places[0]).remote())  # pyright: ignore[reportFunctionMemberAccess]
        resources = {"num_cpus": self._each["CPU"], "num_gpus": self._each.get("GPU", 0)}
        for index, place in enumerate(places):
            launch = {**self._launch, "node": index, "rendezvous": rendezvous}
            actor = JobActor.options(scheduling_strategy=place, **resources)
            self._nodes.append(actor.remote(self._folder, launch))

    @staticmethod
    def _is_alive(node: Any) -> bool:
        try:
            ray.get(node.__ray_ready__.remote())
        except RayActorError:
            return False
        return True


def _end_this_actor() -> None:
    """From any of its threads; what it owns ends with it."""
    try:
        ray.kill(ray.get_runtime_context().current_actor)
        time.sleep(ANSWER_SECONDS)
    finally:
        os._exit(0)


@ray.remote(num_cpus=0)
def meeting_point() -> str:
    """HOST:PORT on the node where it is asked, free at this moment."""
    with socket.socket() as probe:
        probe.bind(("", 0))
        return f"{ray.util.get_node_ip_address()}:{probe.getsockname()[1]}"
