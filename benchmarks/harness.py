"""What the benchmarks share: interleaved timing, peak memory, the machine's name, numbers beside their targets."""

import argparse
import ctypes
import json
import math
import os
import platform
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from torch._C._profiler import _EventType, _ProfilerEvent
from torch.profiler import ProfilerActivity, profile

from noiselaw.train.machine import choose_float32_products, float32_products

Job = Callable[[], object]


@dataclass(frozen=True)
class Claim:
    """A measured number and what was asked of it."""

    what: str
    value: float
    target: float | None = None
    """None where nothing was asked."""
    at_most: bool = True
    """Whether smaller is better."""

    @property
    def is_met(self) -> bool | None:
        if self.target is None:
            return None
        return self.value <= self.target if self.at_most else self.value >= self.target


def parser(description: str, *, threads: bool = True) -> argparse.ArgumentParser:
    """Options that benchmarks share; `threads` for those whose number of threads may be chosen."""
    found = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    if threads:
        found.add_argument("--threads", type=int, default=2)
    found.add_argument("--claims", type=Path, help="also write the numbers that have targets, as JSON, to this file")
    return found


def write_claims(claims: Sequence[Claim], path: Path | None) -> None:
    """For `benchmarks/run_all.py`, where a path is given."""
    if path is not None:
        path.write_text(json.dumps([asdict(claim) for claim in claims]), encoding="utf-8")


@contextmanager
def fastest_products() -> Iterator[str]:
    """Float32 products on the CPU by the library that training would choose; its name."""
    library = choose_float32_products("auto", torch.device("cpu"))
    with float32_products(library):
        yield library


def machine() -> str:
    """Processor, threads and versions, for the head of a table."""
    return f"{cpu_name()}, {torch.get_num_threads()} thread(s), torch {torch.__version__}"


def cpu_name() -> str:
    """The processor's name where the system tells it."""
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text(encoding="utf-8").splitlines() if cpuinfo.exists() else []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def best_seconds(timed: Mapping[str, Job], num_rounds: int) -> dict[str, float]:
    """Best wall time of each job, rounds interleaved so that a busy machine troubles all of them alike."""
    best = dict.fromkeys(timed, math.inf)
    for _ in range(num_rounds):
        for name, job in timed.items():
            started = time.perf_counter()
            job()
            best[name] = min(best[name], time.perf_counter() - started)
    return best


@contextmanager
def _silent_stderr() -> Iterator[None]:
    """Without what the profiler's own code writes to file descriptor 2 whenever it starts and stops."""
    sys.stderr.flush()
    kept, nowhere = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 2)
    try:
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(nowhere)


@contextmanager
def _all_threads_counted() -> Iterator[None]:
    """PyTorch's count of the CPU memory it has given out, kept whatever thread takes or frees.

    The profiler alone sees threads that it has entered; gloo's free tensors after they have left it.
    """
    library = ctypes.CDLL(str(Path(torch.__file__).parent / "lib" / "libc10.so"))
    counts = ctypes.c_bool.in_dll(library, "FLAGS_caffe2_report_cpu_memory_usage")
    counts.value = True
    try:
        yield
    finally:
        counts.value = False


def peak_megabytes(job: Job) -> float:
    """Largest sum of what the job holds at one time, from the allocator's own count."""
    with (
        _silent_stderr(),
        _all_threads_counted(),
        profile(activities=[ProfilerActivity.CPU], profile_memory=True) as recorded,
    ):
        job()
    events = sorted(
        _allocations(recorded.profiler.kineto_results.experimental_event_tree()),
        key=lambda event: event.start_time_ns,
    )
    first = events[0].extra_fields
    before = first.total_allocated - first.alloc_size
    return (max(event.extra_fields.total_allocated for event in events) - before) / 2**20


def _allocations(events: Iterable[_ProfilerEvent]) -> Iterator[_ProfilerEvent]:
    """What was taken or freed within `events`."""
    for event in events:
        if event.tag == _EventType.Allocation:
            yield event
        yield from _allocations(event.children)
